"""Outbox: a bounded queue per topic in front of one thread that serialises and sends."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Policy = Literal["drop_oldest", "drop_newest", "block"]

Build = Callable[[], "bytes | memoryview"]
"""Makes a message's bytes, on the outbox's thread."""


@dataclass(slots=True)
class _Parcel:
    build: Build
    release: Callable[[], None] | None

    def let_go(self) -> None:
        if self.release is not None:
            self.release()


class Channel:
    """One topic's queue; at any time ``produced = delivered + dropped + in_flight``.

    Args:
        name: The topic.
        send: Sends a message's bytes; called on the outbox's thread.
        wanted: Whether anybody listens; where nobody does, nothing is built, queued or counted as produced.
        capacity: Messages that may wait.
        policy: What gives way when the queue is full: the oldest message, the newest, or the caller, who waits.
        changed: The outbox's condition.
    """

    def __init__(
        self,
        name: str,
        *,
        send: Callable[[bytes | memoryview], None],
        wanted: Callable[[], bool],
        capacity: int,
        policy: Policy,
        changed: threading.Condition,
    ) -> None:
        self.name = name
        self.capacity = capacity
        self.policy = policy
        self.produced = 0
        self.delivered = 0
        self.dropped = 0
        """Given up because the queue was full or closed, or because building or sending failed."""
        self.unheard = 0
        """Not produced because nobody listened."""
        self.failures = 0
        """Of the dropped: building or sending failed."""
        self.failure: str | None = None
        """The last failure."""
        self.waited_s = 0.0
        """Wall time that callers waited under the policy ``block`` [s]."""
        self._send = send
        self._wanted = wanted
        self._changed = changed
        self._waiting: deque[_Parcel] = deque()
        self._sending = False
        self._closed = False

    @property
    def wanted(self) -> bool:
        """Whether a message given now would be sent to anybody."""
        return self._wanted()

    @property
    def in_flight(self) -> int:
        """Messages that wait or are being sent."""
        return len(self._waiting) + self._sending

    def put(self, build: Build, *, release: Callable[[], None] | None = None) -> bool:
        """Hands over a message; never waits, except under the policy ``block``.

        Args:
            build: Makes the message's bytes later, on the outbox's thread.
            release: Called once when the message has been sent or given up, on any thread.

        Returns:
            Whether it was taken; it may still give way to a newer one.
        """
        parcel = _Parcel(build, release)
        if not self._wanted():
            self.unheard += 1
            parcel.let_go()
            return False
        given_up: _Parcel | None = None
        with self._changed:
            if self.policy == "block" and len(self._waiting) >= self.capacity:
                start = time.perf_counter()
                while len(self._waiting) >= self.capacity and not self._closed:
                    self._changed.wait()
                self.waited_s += time.perf_counter() - start
            self.produced += 1
            if self._closed or (self.policy == "drop_newest" and len(self._waiting) >= self.capacity):
                given_up = parcel
            else:
                if len(self._waiting) >= self.capacity:
                    given_up = self._waiting.popleft()
                self._waiting.append(parcel)
                self._changed.notify_all()
            self.dropped += given_up is not None
        if given_up is not None:
            given_up.let_go()
        return given_up is not parcel

    def counters(self) -> dict[str, Any]:
        """Returns a consistent snapshot of the counters."""
        with self._changed:
            return {
                "produced": self.produced,
                "delivered": self.delivered,
                "dropped": self.dropped,
                "in_flight": self.in_flight,
                "unheard": self.unheard,
                "failures": self.failures,
                "failure": self.failure,
                "waited_s": self.waited_s,
            }

    def _take(self) -> _Parcel | None:
        if not self._waiting:
            return None
        self._sending = True
        # A caller who waits for room has it now, however long this message takes to send.
        self._changed.notify_all()
        return self._waiting.popleft()

    def _deliver(self, parcel: _Parcel) -> None:
        failure = None
        try:
            self._send(parcel.build())
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        finally:
            parcel.let_go()
        with self._changed:
            self._sending = False
            self.delivered += failure is None
            if failure is not None:
                self.dropped += 1
                self.failures += 1
                self.failure = failure
            self._changed.notify_all()

    def _give_up(self) -> None:
        while self._waiting:
            self._waiting.popleft().let_go()
            self.dropped += 1


class Outbox:
    """Sends what its channels hold, one message at a time, each channel in turn.

    A channel whose messages are large or whose receiver is slow delays the others by one message, never by its queue.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._channels: list[Channel] = []
        self._closing = False
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="saccade-outbox", daemon=True)
        self._thread.start()

    def open(
        self,
        name: str,
        *,
        send: Callable[[bytes | memoryview], None],
        wanted: Callable[[], bool] = lambda: True,
        capacity: int = 5,
        policy: Policy = "drop_oldest",
    ) -> Channel:
        """Returns a new channel; the arguments are those of :class:`Channel`."""
        channel = Channel(name, send=send, wanted=wanted, capacity=capacity, policy=policy, changed=self._changed)
        with self._changed:
            channel._closed = self._closing
            self._channels.append(channel)
        return channel

    def flush(self, timeout: float) -> bool:
        """Waits until nothing is in flight, at most ``timeout`` [s]; returns whether that came about."""
        with self._changed:
            return self._changed.wait_for(lambda: not any(channel.in_flight for channel in self._channels), timeout)

    def counters(self) -> dict[str, dict[str, Any]]:
        """Returns the counters by channel."""
        with self._changed:
            channels = list(self._channels)
        return {channel.name: channel.counters() for channel in channels}

    def close(self, *, timeout: float = 2.0) -> bool:
        """Sends what waits for at most ``timeout`` [s] and gives up the rest; safe to call twice.

        Returns:
            Whether the thread ended; it does not while a send hangs in the middleware.
        """
        with self._changed:
            self._closing = True
            for channel in self._channels:
                channel._closed = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self.flush(timeout)
        with self._changed:
            self._abandoned = True
            for channel in self._channels:
                channel._give_up()
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        turn = 0
        while True:
            with self._changed:
                found = self._next(turn)
                while found is None and not self._abandoned:
                    self._changed.wait()
                    found = self._next(turn)
                if found is None:
                    return
                turn, channel, parcel = found
            channel._deliver(parcel)

    def _next(self, turn: int) -> tuple[int, Channel, _Parcel] | None:
        count = len(self._channels)
        for offset in range(count):
            channel = self._channels[(turn + offset) % count]
            parcel = channel._take()
            if parcel is not None:
                return (turn + offset + 1) % count, channel, parcel
        return None
