"""Pipeline: a worker thread for sources that do not wait, with bounded queues, deadlines, a watchdog and a balance."""

from __future__ import annotations

import atexit
import copy
import math
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from saccade.delivery import Delivered, PipelineCounters, Tally, Ticket, delivered_from
from saccade.errors import ConfigurationError, EngineError
from saccade.frame import now_ns
from saccade.queueing import BoundedQueue, Counters, Policy, QueueClosed, payload_bytes, wait_until
from saccade.watchdog import Incident, Watchdog, print_incident

STUCK_AFTER_S = 30.0
"""Default limit of the watchdog [s]: longer than a slow frame, shorter than a user's patience."""
EXIT_WAIT_S = 2.0
"""How long the end of the process waits for the frame in work of a pipeline that was not stopped [s]."""


@dataclass(slots=True, eq=False)
class _Work:
    frame: Any
    ticket: Ticket
    kept: bool


_RUNNING: weakref.WeakSet[Pipeline] = weakref.WeakSet()


class Pipeline:
    """Runs ``process`` on a thread of its own, on frames that are submitted from any thread.

    Starts at once. Leaving the ``with`` block finishes what waits; after an exception, Ctrl-C too, only the frame in
    work is finished. :meth:`stop` raises when a frame or result is not accounted for.

    Args:
        process: Takes a frame and returns a result; an exception is delivered as that frame's error.
        name: For messages and threads, such as the network's name.
        frames: Most frames that may wait.
        bytes: Most bytes of frames that may wait [B], by ``size_bytes``; ``None`` = not bounded by bytes.
        policy: What happens to a frame for which there is no room.
        block_deadline_s: How long ``block`` waits for room [s].
        results: Most results that may wait to be read.
        results_policy: What happens to a result for which there is no room.
        results_deadline_s: How long the worker waits for a reader with ``results_policy="block"`` [s].
        deadline_ms: From capture to result [ms]; ``None`` = not judged.
        stuck_after_s: The watchdog's limit [s]; ``None`` = no watchdog.
        on_result: Takes each result on the worker's thread; :meth:`get_result` then has nothing to read.
        on_stuck: Told once per incident, by the watchdog's thread; ``None`` prints the stacks to standard error.
        keep: Copies a frame at submission, for sources that overwrite their buffers: see
            :class:`saccade.framepool.FramePool`.
        release: Gets back what ``keep`` returned, when the frame was processed or dropped.
        size_bytes: Bytes of a frame [B]; needed where ``bytes`` is given and frames are not arrays or ``Frame``.
        clock: Monotonic time [ns]: the one that ``captured_ns`` is on.

    Raises:
        ConfigurationError: A bound or deadline makes no sense.
    """

    def __init__(
        self,
        process: Callable[[Any], Any],
        *,
        name: str,
        frames: int = 2,
        bytes: int | None = None,
        policy: Policy = "drop_oldest",
        block_deadline_s: float | None = None,
        results: int = 64,
        results_policy: Policy = "drop_oldest",
        results_deadline_s: float | None = None,
        deadline_ms: float | None = None,
        stuck_after_s: float | None = STUCK_AFTER_S,
        on_result: Callable[[Delivered], None] | None = None,
        on_stuck: Callable[[Incident], None] | None = None,
        keep: Callable[[Any], Any] | None = None,
        release: Callable[[Any], None] | None = None,
        size_bytes: Callable[[Any], int] = payload_bytes,
        clock: Callable[[], int] = now_ns,
    ) -> None:
        if deadline_ms is not None and not deadline_ms > 0:
            raise ConfigurationError(f"{name}: deadline_ms is {deadline_ms}, expected more than 0, or None")
        self.name = name
        self._process = process
        self._policy: Policy = policy
        self._on_result = on_result
        self._keep = keep
        self._release = release
        self._bounded_by_bytes = bytes is not None
        self._size_bytes = size_bytes
        self._clock = clock
        # One lock for both queues and all counters, so that a frame is seen in exactly one place.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._frames: BoundedQueue[_Work] = BoundedQueue(
            frames=frames,
            bytes=bytes,
            policy=policy,
            deadline_s=block_deadline_s,
            name=f"{name}: frames",
            on_drop=self._frame_dropped,
            lock=self._lock,
            clock=clock,
        )
        self._results: BoundedQueue[Delivered] = BoundedQueue(
            frames=results,
            policy=results_policy,
            deadline_s=results_deadline_s,
            name=f"{name}: results",
            on_drop=self._result_dropped,
            lock=self._lock,
            clock=clock,
        )
        self._to_release: list[Any] = []
        self._sequence = 0
        self._in_work: _Work | None = None
        self._given_up: _Work | None = None
        self._tally = Tally(deadline_ms)
        self._copies = 0
        self._in_callback = False
        self._called_back = 0
        self._callback_errors = 0
        self._callback_error: BaseException | None = None
        self._failure: BaseException | None = None
        self._ended = False
        self._stopped = False
        self._tell_stuck = on_stuck or print_incident
        limit_s = math.inf if stuck_after_s is None else stuck_after_s
        self.watchdog = Watchdog(limit_s, name=name, on_stuck=self._stuck, clock=clock)
        """Holds the incidents with their stacks."""
        if stuck_after_s is not None:
            self.watchdog.start()
        self._thread = threading.Thread(target=self._work, name=f"saccade-pipeline {name}", daemon=True)
        self._thread.start()
        _RUNNING.add(self)

    def submit_frame(self, frame: Any, *, captured_ns: int | None = None, block: bool | None = None) -> Ticket:
        """Hands over one frame; a full queue is dealt with by the policy, so look at ``ticket.dropped``.

        After :meth:`stop` a frame is dropped as ``closed``: a source that runs on does no harm.

        Args:
            frame: Any object; unless there is a ``keep``, it must stay valid until it was processed.
            captured_ns: When it was captured [ns], on the pipeline's clock (:func:`saccade.frame.now_ns`); its
                deadline counts from here. ``None`` = now.
            block: True waits for room up to ``block_deadline_s`` whatever the policy, False never waits.

        Raises:
            ConfigurationError: ``captured_ns`` lies in the future, so it is from another clock; the frame's size is
                not known; or ``block`` without ``block_deadline_s``.
        """
        now = self._clock()
        if captured_ns is not None and captured_ns > now:
            raise ConfigurationError(
                f"{self.name}: captured_ns lies {(captured_ns - now) * 1e-9:.3f} s in the future of the pipeline's "
                f"clock. Take it from saccade.frame.now_ns(), not from the wall clock or the simulation time"
            )
        size = self._size_bytes(frame) if self._bounded_by_bytes else 0
        policy: Policy | None = None
        if block:
            policy = "block"
        elif block is False and self._policy == "block":
            policy = "drop_newest"
        captured_ns = now if captured_ns is None else captured_ns
        with self._lock:
            if self._keep is None or self._frames.would_refuse(size, policy=policy):  # no copy for nothing
                return self._put(frame, False, captured_ns, size, policy)
        ticket = self._put(self._keep(frame), True, captured_ns, size, policy)
        self._release_dropped()
        return ticket

    def get_result(
        self, ticket: Ticket | None = None, timeout_s: float | None = None, *, newest: bool = False
    ) -> Delivered:
        """Waits for a result and returns it; each is returned once.

        Args:
            ticket: Whose result; ``None`` = the next in the order of completion. For a dropped frame this returns at
                once, with the reason in ``ticket.dropped``.
            timeout_s: Longest wait [s]; ``None`` = as long as it takes, 0 = not at all.
            newest: Without a ticket, the newest unread result; older ones are dropped as ``skipped``.

        Raises:
            TimeoutError: There was none in time.
            EngineError: The engine is stuck, and nothing is ready.
            QueueClosed: The pipeline has stopped and everything was read.
            ConfigurationError: This ticket's result was read before, or results go to ``on_result``.
        """
        self._check_readable()
        until = None if timeout_s is None else self._clock() + round(timeout_s * 1e9)
        with self._lock:
            while True:
                found = self._take_ready(newest) if ticket is None else self._take_ticket(ticket)
                if found is not None:
                    return found
                self._raise_if_hopeless()
                if not wait_until(self._changed, until, self._clock):
                    counters = self.counters().frames
                    raise TimeoutError(f"{self.name}: no result within {timeout_s:g} s; frames: {counters}")

    def peek_result(self, max_age_s: float) -> Delivered | None:
        """Returns the newest result without taking it, read already or not; never waits.

        Args:
            max_age_s: Greatest age [s], from the frame's capture until now.

        Returns:
            The result; ``None`` when there is none so young.
        """
        self._check_readable()
        return self._results.peek(max_age_s)

    def heartbeat(self) -> None:
        """Tells the watchdog, from within a ``process`` that is long on purpose, that it is not stuck."""
        self.watchdog.beat()

    @property
    def stuck(self) -> Incident | None:
        """The incident that is going on, ``None`` when all is well."""
        return self.watchdog.incident

    def counters(self) -> PipelineCounters:
        """Returns all counters of one moment."""
        with self._lock:
            frames = self._frames.counters()
            lost = {"stuck": 1} if self._given_up is not None else {}
            results = self._results.counters()
            if self._on_result is not None:
                results = Counters(self._tally.finished, self._called_back, {}, int(self._in_callback))
            return PipelineCounters(
                frames=Counters(
                    produced=frames.produced,
                    consumed=self._tally.finished,
                    dropped={**frames.dropped, **lost},
                    in_flight=frames.in_flight + (self._in_work is not None),
                ),
                results=results,
                errors=self._tally.errors,
                copies=self._copies,
                missed=self._tally.missed,
                miss_streak=self._tally.miss_streak,
                longest_miss_streak=self._tally.longest_miss_streak,
                incidents=self.watchdog.incident_count,
                callback_errors=self._callback_errors,
            )

    def statistics(self) -> dict[str, Any]:
        """Returns counters, deadline and times for a record, as documented in docs/pipeline.md."""
        with self._lock:
            counters = self.counters()
            tally = copy.deepcopy(self._tally)
        return {
            **counters.as_dict(),
            **tally.statistics(),
            "incidents": [one.as_dict() for one in self.watchdog.incidents],
        }

    def stop(self, *, drain: bool = True, timeout_s: float | None = None) -> None:
        """Ends the pipeline; unread results stay readable. A second call does nothing.

        Args:
            drain: Processes what waits; otherwise that is dropped as ``abandoned``, and only the frame in work is
                finished.
            timeout_s: Longest wait for that [s]; ``None`` = until it is done, or the watchdog finds it stuck.

        Raises:
            EngineError: A frame or result is not accounted for; the engine is stuck or the time was over, in which
                case its frame counts as dropped (``stuck``); or ``on_result`` or ``release`` had raised.
            ConfigurationError: Called from ``process`` or ``on_result``.
        """
        if self._stopped:
            return
        unfinished = self._end(drain, timeout_s)
        if unfinished is not None:
            raise EngineError(unfinished) from self._failure
        if self._callback_error is not None:
            first = f"{type(self._callback_error).__name__}: {self._callback_error}"
            raise EngineError(
                f"{self.name}: on_result or release raised {self._callback_errors} times, first {first}"
            ) from self._callback_error

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        elif not self._stopped:
            # The exception that ends the block is the one to tell; only a broken balance is raised on top of it.
            self._end(False, None)

    def _put(self, frame: Any, kept: bool, captured_ns: int, size: int, policy: Policy | None) -> Ticket:
        with self._lock:
            ticket = Ticket(self._sequence, captured_ns)
            self._sequence += 1
            self._copies += kept
            self._frames.put(_Work(frame, ticket, kept), size_bytes=size, stamp_ns=captured_ns, policy=policy)
            return ticket

    def _work(self) -> None:
        try:
            while (work := self._next()) is not None:
                self._finish(work, delivered_from(self._process, work.frame, work.ticket, clock=self._clock))
        except BaseException as error:
            self._failure = error
            raise
        finally:
            with self._lock:
                self._ended = True
                self._changed.notify_all()

    def _next(self) -> _Work | None:
        with self._lock:
            try:
                work = self._frames.take()
            except QueueClosed:
                return None
            self._in_work = work
            work.ticket.state = "in work"
            self.watchdog.begin(f"frame {work.ticket.sequence}")
            return work

    def _finish(self, work: _Work, delivered: Delivered) -> None:
        with self._lock:
            self.watchdog.end()
            given_up = self._given_up is work
            if not given_up:
                self._in_work = None
                self._tally.count(delivered)
                if self._on_result is None:
                    self._offer(delivered)
                else:
                    self._in_callback = True
                self._changed.notify_all()
        if self._on_result is not None and not given_up:
            self._call_back(delivered, self._on_result)
        self._give_back(work)

    def _offer(self, delivered: Delivered) -> None:
        if self._results.put(delivered, stamp_ns=delivered.ticket.captured_ns) is None:
            delivered.ticket.state = "ready"
            delivered.ticket._delivered = delivered

    def _call_back(self, delivered: Delivered, on_result: Callable[[Delivered], None]) -> None:
        self.watchdog.begin(f"on_result of frame {delivered.ticket.sequence}")
        try:
            on_result(delivered)
        except Exception as error:
            self._callback_failed(error)
        with self._lock:
            self.watchdog.end()
            self._in_callback = False
            self._called_back += 1
            delivered.ticket.state = "delivered"
            self._changed.notify_all()

    def _callback_failed(self, error: Exception) -> None:
        with self._lock:
            self._callback_errors += 1
            if self._callback_error is None:
                self._callback_error = error

    def _take_ready(self, newest: bool) -> Delivered | None:
        read = self._results.take_newest if newest else self._results.take
        return self._hand_out(read(0)) if len(self._results) else None

    def _take_ticket(self, ticket: Ticket) -> Delivered | None:
        if ticket.state == "dropped":
            return Delivered(ticket)
        if ticket.state == "delivered":
            raise ConfigurationError(
                f"{self.name}: the result of frame {ticket.sequence} was read before; each is delivered once"
            )
        delivered = ticket._delivered
        if delivered is None:
            return None
        if not self._results.take_item(delivered):
            raise ConfigurationError(f"{self.name}: the ticket of frame {ticket.sequence} is another pipeline's")
        return self._hand_out(delivered)

    def _hand_out(self, delivered: Delivered) -> Delivered:
        delivered.ticket.state = "delivered"
        delivered.ticket._delivered = None
        self._changed.notify_all()
        return delivered

    def _check_readable(self) -> None:
        if self._on_result is not None:
            raise ConfigurationError(
                f"{self.name}: results go to on_result. Leave on_result out to read them with get_result or peek_result"
            )

    def _raise_if_hopeless(self) -> None:
        if self._failure is not None:
            raise EngineError(self._unfinished()) from self._failure
        if self.stuck is not None:
            raise EngineError(self.watchdog.remedy())
        if self._ended or self._stopped:
            raise QueueClosed(f"{self.name}: the pipeline has stopped and every result was read")

    def _frame_dropped(self, work: _Work, reason: str) -> None:
        work.ticket.drop(reason)
        if work.kept:
            self._to_release.append(work)
        self._changed.notify_all()

    def _result_dropped(self, delivered: Delivered, reason: str) -> None:
        delivered.ticket.drop(f"result {reason}")
        self._changed.notify_all()

    def _release_dropped(self) -> None:
        with self._lock:
            dropped, self._to_release = self._to_release, []
        for work in dropped:
            self._give_back(work)

    def _give_back(self, work: _Work) -> None:
        if work.kept and self._release is not None:
            try:
                self._release(work.frame)
            except Exception as error:
                self._callback_failed(error)

    def _stuck(self, incident: Incident) -> None:
        with self._lock:
            self._changed.notify_all()
        self._tell_stuck(incident)

    def _end(self, drain: bool, timeout_s: float | None) -> str | None:
        """Ends the worker and checks the balance; returns why its frame could not be finished."""
        if threading.current_thread() is self._thread:
            raise ConfigurationError(
                f"{self.name}: stop() was called from process or on_result, for whose end it would wait. Call it from "
                f"another thread"
            )
        until = None if timeout_s is None else self._clock() + round(timeout_s * 1e9)
        self._frames.close(abandon=not drain)
        self._results.stop_waiting_for_room()
        with self._lock:
            while not self._ended and self.stuck is None and wait_until(self._changed, until, self._clock):
                pass
            unfinished = self._unfinished()
            if unfinished is not None:
                self._give_up()
            while self._frames.counters().in_flight:  # who waited for room is on the way out
                self._changed.wait()
            self._stopped = True
            self._changed.notify_all()
        self.watchdog.close()
        self._release_dropped()
        counters = self.counters()
        if not counters.settled:
            raise EngineError(
                f"{self.name}: not every frame and result is accounted for, so the run is invalid. This is an error in "
                f"Saccade: please report it with these counters.\n{counters}"
            ) from self._failure
        return unfinished

    def _unfinished(self) -> str | None:
        if self._failure is not None:
            return f"{self.name}: the worker ended with {self._failure!r}"
        if self._ended:
            return None
        if self.stuck is not None:
            return self.watchdog.remedy()
        return (
            f"{self.name}: the frame in work was not done in the time that stop() was given. Give it more, or set "
            f"stuck_after_s to see where it stands"
        )

    def _give_up(self) -> None:
        self._frames.close(abandon=True)
        work, self._in_work = self._in_work, None
        if work is not None:
            # The worker may still come back from it one day: then it must find that nobody waits for the result.
            self._given_up = work
            work.ticket.drop("stuck")


@atexit.register
def _end_workers() -> None:
    """Lets frames in work end: native code that the interpreter's end cuts off in the middle aborts the process."""
    for pipeline in list(_RUNNING):
        pipeline._frames.close(abandon=True)
        pipeline._thread.join(EXIT_WAIT_S)
