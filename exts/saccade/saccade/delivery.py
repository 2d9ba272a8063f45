"""What a pipeline gives back: tickets, results and counters, and the tally of its deadline."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from saccade.errors import EngineError
from saccade.queueing import Counters
from saccade.telemetry.statistics import describe, proportion


@dataclass(slots=True, eq=False)
class Ticket:
    """One submitted frame: what :meth:`saccade.pipeline.Pipeline.get_result` asks for it by."""

    sequence: int
    """Number of the submission, from 0."""
    captured_ns: int
    """When the frame was captured [ns], on the pipeline's clock."""
    state: str = "waiting"
    """``"waiting"``, ``"in work"``, ``"ready"``, ``"delivered"`` or ``"dropped"``."""
    dropped: str | None = None
    """Why it was dropped: a reason of :class:`saccade.queueing.Counters`, with ``"result "`` before it when the
    result and not the frame was dropped, or ``"stuck"``."""
    _delivered: Delivered | None = field(default=None, repr=False)

    def drop(self, reason: str) -> None:
        """Marks the frame as one that gets no result any more."""
        self.state = "dropped"
        self.dropped = reason
        self._delivered = None


@dataclass(slots=True, eq=False)
class Delivered:
    """What became of one frame."""

    ticket: Ticket
    value: Any = None
    """What ``process`` returned."""
    error: BaseException | None = None
    """What ``process`` raised."""
    latency_ms: float | None = None
    """From capture to result or error [ms]; ``None`` for a dropped frame."""
    process_ms: float | None = None
    """Of that, inside ``process`` [ms]."""
    missed: bool = False
    """Whether no result came within the deadline; an error is no result."""

    def require(self) -> Any:
        """Returns the value, or raises the frame's error.

        Raises:
            EngineError: The frame was dropped.
        """
        if self.error is not None:
            raise self.error
        if self.ticket.dropped is not None:
            raise EngineError(
                f"frame {self.ticket.sequence} was dropped ({self.ticket.dropped}): take a longer queue, another "
                f"policy, or submit fewer frames"
            )
        return self.value


@dataclass(frozen=True, slots=True)
class PipelineCounters:
    """Where all frames and results of a pipeline are; one consistent moment."""

    frames: Counters
    """Consumed = ``process`` ended, by result or error; in flight = waiting for room, queued or in work. One more
    reason to be dropped: ``stuck``, in work when the pipeline was stopped without it."""
    results: Counters
    """Produced = frames consumed; consumed = read by ``get_result``, or handed to ``on_result``."""
    errors: int
    """Frames for which ``process`` raised."""
    copies: int
    """Frames copied by ``keep`` at submission."""
    missed: int
    """Consumed frames that had no result within the deadline; dropped ones are not judged."""
    miss_streak: int
    """Misses in a row, up to now."""
    longest_miss_streak: int
    incidents: int
    """Times that the watchdog found the work stuck."""
    callback_errors: int
    """Results for which ``on_result`` raised."""

    @property
    def settled(self) -> bool:
        """Whether all frames and results are accounted for, and no frame is on its way any more."""
        frames, results = self.frames, self.results
        balanced = frames.balanced and results.balanced and results.produced == frames.consumed
        return balanced and not frames.in_flight

    def as_dict(self) -> dict[str, Any]:
        """Returns the balances for a record."""
        return {
            "frames": self.frames.as_dict(),
            "results": self.results.as_dict(),
            "copies": self.copies,
            "callback_errors": self.callback_errors,
        }

    def __str__(self) -> str:
        return f"frames: {self.frames}\nresults: {self.results}"


def delivered_from(process: Callable[[Any], Any], frame: Any, ticket: Ticket, *, clock: Callable[[], int]) -> Delivered:
    """Runs ``process`` on a frame and returns what came of it; whatever it raises is that frame's error.

    Args:
        process: Takes the frame and returns a result.
        frame: Any object.
        ticket: The frame's.
        clock: Monotonic time [ns], the one of the ticket.
    """
    delivered = Delivered(ticket)
    start = clock()
    try:
        delivered.value = process(frame)
    except BaseException as error:  # SystemExit too: it would end the worker and leave the frame unanswered
        delivered.error = error
    end = clock()
    delivered.process_ms = (end - start) * 1e-6
    delivered.latency_ms = (end - ticket.captured_ns) * 1e-6
    return delivered


@dataclass(slots=True)
class Tally:
    """Counts what ``process`` did, against the deadline; the caller holds the lock."""

    deadline_ms: float | None
    finished: int = 0
    errors: int = 0
    missed: int = 0
    miss_streak: int = 0
    longest_miss_streak: int = 0
    latency_ms: array[float] = field(default_factory=lambda: array("d"))
    process_ms: array[float] = field(default_factory=lambda: array("d"))

    def count(self, delivered: Delivered) -> None:
        """Takes in one frame that was processed, and judges it."""
        latency_ms, process_ms = delivered.latency_ms or 0.0, delivered.process_ms or 0.0
        self.finished += 1
        if delivered.error is None:
            self.latency_ms.append(latency_ms)
            self.process_ms.append(process_ms)
        else:
            self.errors += 1
        if self.deadline_ms is not None:
            delivered.missed = delivered.error is not None or latency_ms > self.deadline_ms
        if delivered.missed:
            self.missed += 1
            self.miss_streak += 1
            self.longest_miss_streak = max(self.longest_miss_streak, self.miss_streak)
        else:
            self.miss_streak = 0

    def statistics(self) -> dict[str, Any]:
        """Returns deadline and times for a record; the times are those of frames with a result, all of them."""
        return {
            "errors": self.errors,
            "deadline": {
                "limit_ms": self.deadline_ms,
                "missed": proportion(self.missed, 0 if self.deadline_ms is None else self.finished),
                "miss_streak": self.miss_streak,
                "longest_miss_streak": self.longest_miss_streak,
            },
            "latency_ms": describe(self.latency_ms),
            "process_ms": describe(self.process_ms),
        }
