"""BoundedQueue: frames or messages between threads, bounded by count and bytes, each of them accounted for."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args

from saccade.errors import ConfigurationError
from saccade.frame import now_ns

T = TypeVar("T")

Policy = Literal["drop_oldest", "drop_newest", "block"]
"""What a full queue does with one more item: see docs/pipeline.md."""

MAX_WAIT_S = min(threading.TIMEOUT_MAX, 86400.0)
"""Longest single wait on a condition [s]; the operating system refuses more than its own limit."""


class QueueClosed(Exception):
    """The queue was closed and everything in it has been read: the normal end for a reader."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Where the items of a queue are; one consistent moment."""

    produced: int
    """Items offered, accepted or not."""
    consumed: int
    dropped: dict[str, int]
    """Count by reason, only reasons that occurred: ``oldest`` (replaced by a newer one), ``newest`` (refused, full),
    ``deadline`` (no room within the deadline of ``block``), ``too_large`` (more bytes than the whole queue may hold),
    ``skipped`` (passed over by ``take_newest``), ``abandoned`` (waiting when the queue was closed without draining),
    ``closed`` (offered after that), ``interrupted`` (a Ctrl-C came between two steps of one call)."""
    in_flight: int
    """Items that wait in the queue, or before it for room."""

    @property
    def dropped_total(self) -> int:
        """All dropped items, whatever the reason."""
        return sum(self.dropped.values())

    @property
    def balanced(self) -> bool:
        """Whether produced = consumed + dropped + in flight."""
        return self.produced == self.consumed + self.dropped_total + self.in_flight

    def as_dict(self) -> dict[str, Any]:
        """Returns the counters for a record."""
        return {
            "produced": self.produced,
            "consumed": self.consumed,
            "dropped": dict(self.dropped),
            "in_flight": self.in_flight,
        }

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.dropped.items()))
        return (
            f"{self.produced} produced {'=' if self.balanced else '≠'} {self.consumed} consumed + "
            f"{self.dropped_total} dropped{f' ({reasons})' if reasons else ''} + {self.in_flight} in flight"
        )


@dataclass(slots=True, eq=False)
class _Entry(Generic[T]):
    item: T
    size_bytes: int
    stamp_ns: int


class BoundedQueue(Generic[T]):
    """Holds items between the threads that make them and those that read them.

    All methods may be called from any thread. Every item is counted once: produced = consumed + dropped + in flight
    holds at every moment at which :meth:`counters` can be called.

    Args:
        frames: Most items that may wait, at least 1.
        bytes: Most bytes that may wait [B], by the sizes given to :meth:`put`; ``None`` = not bounded by bytes.
        policy: What happens to one more item when there is no room.
        deadline_s: How long ``block`` waits for room [s] before the item is dropped; needed for ``block``.
        name: For messages.
        on_drop: Called with each dropped item and the reason, under the queue's lock: it must be short, must not
            raise and must not wait.
        lock: To share with other queues, so that several can be read at one moment.
        clock: Monotonic time [ns].

    Raises:
        ConfigurationError: A bound or the deadline makes no sense.
    """

    def __init__(
        self,
        *,
        frames: int,
        bytes: int | None = None,
        policy: Policy = "drop_oldest",
        deadline_s: float | None = None,
        name: str = "queue",
        on_drop: Callable[[T, str], None] | None = None,
        lock: threading.RLock | None = None,  # type: ignore[valid-type]
        clock: Callable[[], int] = now_ns,
    ) -> None:
        _check_bounds(name, frames, bytes, policy, deadline_s)
        self.name = name
        self._frame_limit = frames
        self._byte_limit = bytes
        self._policy: Policy = policy
        self._deadline_s = deadline_s
        self._on_drop = on_drop
        self._clock = clock
        self._lock: Any = threading.RLock() if lock is None else lock
        self._readable = threading.Condition(self._lock)
        self._writable = threading.Condition(self._lock)
        self._entries: deque[_Entry[T]] = deque()
        self._byte_count = 0
        self._newest: _Entry[T] | None = None
        self._produced = 0
        self._consumed = 0
        self._dropped: dict[str, int] = {}
        self._blocked: set[_Entry[T]] = set()
        self._patient = True
        self._closed = False

    def put(
        self, item: T, *, size_bytes: int | None = None, stamp_ns: int | None = None, policy: Policy | None = None
    ) -> str | None:
        """Offers one item.

        Args:
            item: Any object.
            size_bytes: What it counts against ``bytes`` [B]; ``None`` = its :func:`payload_bytes`.
            stamp_ns: From when its age counts [ns], on this queue's clock; ``None`` = now.
            policy: For this item only, instead of the queue's.

        Returns:
            ``None`` when the item was accepted, else why it was dropped: see :class:`Counters`.

        Raises:
            ConfigurationError: ``block`` on a queue without ``deadline_s``, or the item's size is not known. The item
                is not counted then.
        """
        policy = policy or self._policy
        _check_deadline(self.name, policy, self._deadline_s)
        if size_bytes is None:
            size_bytes = 0 if self._byte_limit is None else payload_bytes(item)
        entry = _Entry(item, size_bytes, self._clock() if stamp_ns is None else stamp_ns)
        with self._exact(entry):
            self._produced += 1
            reason = self._reason_to_refuse(entry, policy)
            if reason is not None:
                self._drop(entry, reason)
                return reason
            while not self._has_room(entry):
                self._drop(self._pop_first(), "oldest")
            self._entries.append(entry)
            self._byte_count += size_bytes
            self._newest = entry
            # All readers, not one: the one that was woken may give up at this very moment (timeout, Ctrl-C).
            self._readable.notify_all()
        return None

    def would_refuse(self, size_bytes: int, *, policy: Policy | None = None) -> bool:
        """Whether :meth:`put` would drop such an item at once; certain only for who holds the shared ``lock``."""
        with self._lock:
            entry = _Entry(None, size_bytes, 0)
            full = (policy or self._policy) == "drop_newest" and not self._has_room(entry)
            return self._closed or self._too_large(entry) or full

    def take(self, timeout_s: float | None = None) -> T:
        """Returns the oldest waiting item, in the order of acceptance; waits for one.

        Args:
            timeout_s: Longest wait [s]; ``None`` = until there is one, 0 = not at all.

        Raises:
            TimeoutError: Nothing came in time.
            QueueClosed: The queue is closed and empty.
        """
        with self._exact():
            self._wait_for_item(timeout_s)
            return self._consume(self._pop_first())

    def take_newest(self, timeout_s: float | None = None) -> T:
        """Returns the newest item that was not read yet; older ones are dropped by this read, as ``skipped``.

        Args:
            timeout_s: As in :meth:`take`.

        Raises:
            TimeoutError: Nothing came in time.
            QueueClosed: The queue is closed and empty.
        """
        with self._exact():
            self._wait_for_item(timeout_s)
            while len(self._entries) > 1:
                self._drop(self._pop_first(), "skipped")
            return self._consume(self._pop_first())

    def take_item(self, item: T) -> bool:
        """Takes one certain waiting item out of its turn, by identity; false when it is not waiting here."""
        with self._exact():
            for entry in self._entries:
                if entry.item is item:
                    self._entries.remove(entry)
                    self._byte_count -= entry.size_bytes
                    self._writable.notify_all()
                    self._consume(entry)
                    return True
        return False

    def peek(self, max_age_s: float) -> T | None:
        """Returns the newest accepted item without consuming it, read already or not; never waits.

        The queue holds on to that one item until the next is accepted.

        Args:
            max_age_s: Greatest age [s], from the item's stamp until now.

        Returns:
            The item; ``None`` when there was none yet, or the newest is older.
        """
        with self._lock:
            newest = self._newest
            if newest is None or self._clock() - newest.stamp_ns > max_age_s * 1e9:
                return None
            return newest.item

    def counters(self) -> Counters:
        """Returns all counters of one moment."""
        with self._lock:
            return Counters(
                self._produced, self._consumed, dict(self._dropped), len(self._entries) + len(self._blocked)
            )

    def close(self, *, abandon: bool = False) -> None:
        """Ends the production and wakes everyone who waits; may be called again.

        Who waits for room has the item dropped as ``closed``. Readers get what is still waiting, then
        :class:`QueueClosed`.

        Args:
            abandon: Drops what is waiting, as ``abandoned``.
        """
        with self._exact():
            self._closed = True
            if abandon:
                self._newest = None
                while self._entries:
                    self._drop(self._pop_first(), "abandoned")
            self._readable.notify_all()
            self._writable.notify_all()

    def stop_waiting_for_room(self) -> None:
        """From here on ``block`` has a deadline of zero: a queue whose reader has gone must hold nobody up."""
        with self._lock:
            self._patient = False
            self._writable.notify_all()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait [B]."""
        return self._byte_count

    def __len__(self) -> int:
        """Items that wait."""
        return len(self._entries)

    def _reason_to_refuse(self, entry: _Entry[T], policy: Policy) -> str | None:
        if self._closed:
            return "closed"
        if self._too_large(entry):
            return "too_large"
        if policy == "block":
            return self._wait_for_room(entry)
        return "newest" if policy == "drop_newest" and not self._has_room(entry) else None

    def _wait_for_room(self, entry: _Entry[T]) -> str | None:
        until = self._clock() + round((self._deadline_s or 0.0) * 1e9)
        try:
            self._blocked.add(entry)
            while not self._closed and not self._has_room(entry):
                if not self._patient or not wait_until(self._writable, until, self._clock):
                    return "deadline"
        finally:
            self._blocked.discard(entry)
        return "closed" if self._closed else None

    def _wait_for_item(self, timeout_s: float | None) -> None:
        until = None if timeout_s is None else self._clock() + round(timeout_s * 1e9)
        while not self._entries:
            if self._closed:
                raise QueueClosed(f"{self.name} is closed and empty")
            if not wait_until(self._readable, until, self._clock):
                raise TimeoutError(f"{self.name}: nothing came within {timeout_s:g} s")

    def _too_large(self, entry: _Entry[Any]) -> bool:
        return self._byte_limit is not None and entry.size_bytes > self._byte_limit

    def _has_room(self, entry: _Entry[Any]) -> bool:
        if len(self._entries) >= self._frame_limit:
            return False
        return self._byte_limit is None or self._byte_count + entry.size_bytes <= self._byte_limit

    def _pop_first(self) -> _Entry[T]:
        entry = self._entries.popleft()
        self._byte_count -= entry.size_bytes
        # All, not one: the room may suit another item than that of the one who was woken.
        self._writable.notify_all()
        return entry

    def _consume(self, entry: _Entry[T]) -> T:
        self._consumed += 1
        return entry.item

    def _drop(self, entry: _Entry[T], reason: str) -> None:
        self._dropped[reason] = self._dropped.get(reason, 0) + 1
        if self._on_drop is not None:
            self._on_drop(entry.item, reason)

    @contextmanager
    def _exact(self, offered: _Entry[T] | None = None) -> Iterator[None]:
        """Holds the lock, and settles the account when a Ctrl-C ends the block between two of its steps.

        An item leaves or enters one place at a time, so that what an interrupt leaves open is always an item that is
        in no place at all.
        """
        with self._lock:
            try:
                yield
            except BaseException as error:
                if not isinstance(error, Exception):
                    self._settle_interrupt(offered)
                raise

    def _settle_interrupt(self, offered: _Entry[T] | None) -> None:
        if offered is not None:
            self._blocked.discard(offered)
        accounted = self._consumed + sum(self._dropped.values()) + len(self._entries) + len(self._blocked)
        if self._produced > accounted:
            self._dropped["interrupted"] = self._dropped.get("interrupted", 0) + self._produced - accounted
        self._byte_count = sum(entry.size_bytes for entry in self._entries)
        self._readable.notify_all()
        self._writable.notify_all()


def wait_until(condition: threading.Condition, until_ns: int | None, clock: Callable[[], int]) -> bool:
    """Waits on ``condition``, whose lock is held, once; the caller asks again for what it waits for.

    Args:
        condition: What is notified.
        until_ns: Latest time on ``clock`` [ns]; ``None`` = no limit.
        clock: Monotonic time [ns].

    Returns:
        False, without having waited, when the time is over.
    """
    if until_ns is None:
        condition.wait()
        return True
    remaining = until_ns - clock()
    if remaining <= 0:
        return False
    condition.wait(min(remaining * 1e-9, MAX_WAIT_S))
    return True


def payload_bytes(item: Any) -> int:
    """Returns the bytes of an item's arrays [B]: NumPy, Warp, torch, ``bytes`` or a Frame.

    Raises:
        ConfigurationError: The item is none of these.
    """
    if isinstance(item, (bytes, bytearray)):
        return len(item)
    buffers = getattr(item, "buffers", None)
    if isinstance(buffers, Mapping):
        return sum(payload_bytes(array) for array in buffers.values())
    for attribute in ("nbytes", "capacity"):  # NumPy and torch have the first, Warp the second
        size = getattr(item, attribute, None)
        if isinstance(size, int):
            return size
    raise ConfigurationError(
        f"a queue is bounded by bytes, and how many a {type(item).__name__} has is not known: give size_bytes"
    )


def _check_bounds(name: str, frames: int, byte_limit: int | None, policy: str, deadline_s: float | None) -> None:
    if policy not in get_args(Policy):
        raise ConfigurationError(f"{name}: policy {policy!r} is none of {', '.join(get_args(Policy))}")
    if frames < 1:
        raise ConfigurationError(f"{name}: frames is {frames}, at least one item must fit")
    if byte_limit is not None and byte_limit < 1:
        raise ConfigurationError(f"{name}: bytes is {byte_limit}, expected a positive number or None")
    if deadline_s is not None and not 0 <= deadline_s < math.inf:
        raise ConfigurationError(f"{name}: deadline_s is {deadline_s}, expected seconds, 0 or more")
    _check_deadline(name, policy, deadline_s)


def _check_deadline(name: str, policy: str, deadline_s: float | None) -> None:
    if policy == "block" and deadline_s is None:
        raise ConfigurationError(f"{name}: block needs deadline_s, the longest wait for room in seconds")
