"""Watchdog: notices that a frame's work gives no sign of life, and says where every thread stands."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from saccade.errors import ConfigurationError
from saccade.frame import now_ns

CHECKS_PER_LIMIT = 4
"""How often the thread looks within one limit, at least once per :data:`LONGEST_PERIOD_S`."""
LONGEST_PERIOD_S = 1.0
MAX_INCIDENTS = 100
"""Incidents that are kept with their stacks; later ones are only counted."""


@dataclass(slots=True, eq=False)
class Incident:
    """One time that work was stuck."""

    name: str
    """Whose work, such as the engine's name."""
    work: str
    """What was in work, such as ``"frame 17"``."""
    silent_s: float
    """Time since the last sign of life when it was noticed [s]."""
    limit_s: float
    stacks: str
    """The stacks of all threads when it was noticed, the stuck one first."""
    recovered_after_s: float | None = None
    """Time from the last sign of life before the incident to the next one [s]; ``None`` = none yet."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the incident for a record, without the stacks."""
        return {"work": self.work, "silent_s": self.silent_s, "recovered_after_s": self.recovered_after_s}

    def __str__(self) -> str:
        end = "" if self.recovered_after_s is None else f", recovered after {self.recovered_after_s:.1f} s"
        return (
            f"{self.name} is stuck: no sign of life from {self.work} for {self.silent_s:.1f} s "
            f"(limit {self.limit_s:g} s){end}\n{self.stacks}"
        )


class Watchdog:
    """Watches one worker thread, which says when it starts, goes on and ends.

    :meth:`begin`, :meth:`beat` and :meth:`end` cost the worker one lock; nobody is woken by them. A worker that
    holds Python's global lock in native code stops the watchdog too: see docs/pipeline.md.

    Args:
        limit_s: Longest time without a sign of life while something is in work [s].
        name: Whose work it is.
        on_stuck: Called once per incident, on the thread that noticed it and without locks; ``None`` prints the
            incident to standard error.
        on_recovered: Called when a stuck worker gives a sign of life, on that worker's thread and without locks.
        clock: Monotonic time [ns].

    Raises:
        ConfigurationError: The limit is not positive.
    """

    def __init__(
        self,
        limit_s: float,
        *,
        name: str,
        on_stuck: Callable[[Incident], None] | None = None,
        on_recovered: Callable[[Incident], None] | None = None,
        clock: Callable[[], int] = now_ns,
    ) -> None:
        if not limit_s > 0:
            raise ConfigurationError(f"{name}: the watchdog's limit is {limit_s} s, expected more than 0")
        self.limit_s = limit_s
        self.name = name
        self.incidents: list[Incident] = []
        """The first :data:`MAX_INCIDENTS`, in order; those that are over have their ``recovered_after_s``."""
        self.incident_count = 0
        self._on_stuck = on_stuck or print_incident
        self._on_recovered = on_recovered
        self._clock = clock
        self._lock = threading.Lock()
        self._work: str | None = None
        self._worker = 0
        self._sign_ns = 0
        self._incident: Incident | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> Watchdog:
        """Starts the thread that looks; without it only :meth:`check` does."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name=f"saccade-watchdog {self.name}", daemon=True)
            self._thread.start()
        return self

    def begin(self, work: str) -> None:
        """Says that the calling thread starts with ``work``."""
        self._sign(work)

    def beat(self) -> None:
        """Gives a sign of life in the middle of long work; without any work it does nothing."""
        if self._work is not None:
            self._sign(self._work)

    def end(self) -> None:
        """Says that the work is done."""
        self._sign(None)

    def check(self) -> Incident | None:
        """Looks once, and reports when the work has newly become stuck.

        Returns:
            The incident that was reported by this call, else ``None``.
        """
        with self._lock:
            silent = self._clock() - self._sign_ns
            if self._work is None or self._incident is not None or silent <= self.limit_s * 1e9:
                return None
            # Under the lock: the worker cannot go on past its next sign of life before its stack is taken.
            incident = Incident(self.name, self._work, silent * 1e-9, self.limit_s, stacks(self._worker))
            self._incident = incident
            self.incident_count += 1
            if len(self.incidents) < MAX_INCIDENTS:
                self.incidents.append(incident)
        try:
            self._on_stuck(incident)
        except Exception:
            # The watchdog must outlive whoever it tells.
            traceback.print_exc()
        return incident

    @property
    def incident(self) -> Incident | None:
        """The incident that is going on, ``None`` when all is well."""
        with self._lock:
            return self._incident

    def silent_s(self) -> float:
        """Returns the time since the last sign of life while something is in work [s], else 0."""
        with self._lock:
            return 0.0 if self._work is None else (self._clock() - self._sign_ns) * 1e-9

    def remedy(self) -> str:
        """Returns who is stuck, for how long and what to do: the text of the error for those who wait."""
        with self._lock:
            work, silent_s = self._work, (self._clock() - self._sign_ns) * 1e-9
        return (
            f"{self.name}: the engine is stuck, no sign of life from {work} for {silent_s:.1f} s "
            f"(limit {self.limit_s:g} s). Its stack is in watchdog.incidents[-1].stacks, and on standard error unless "
            f"on_stuck is given. Start the process anew. If a first frame compiles kernels or builds an engine, "
            f"process one before the pipeline starts or raise stuck_after_s; if process is long on purpose, call "
            f"heartbeat() from it"
        )

    def close(self) -> None:
        """Ends the thread; signs of life are still noticed."""
        self._closing.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Watchdog:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sign(self, work: str | None) -> None:
        with self._lock:
            now = self._clock()
            over, self._incident = self._incident, None
            if over is not None:
                over.recovered_after_s = (now - self._sign_ns) * 1e-9
            self._work = work
            self._worker = threading.get_ident()
            self._sign_ns = now
        if over is not None and self._on_recovered is not None:
            self._on_recovered(over)

    def _watch(self) -> None:
        period = min(self.limit_s / CHECKS_PER_LIMIT, LONGEST_PERIOD_S)
        while not self._closing.wait(period):
            self.check()


def stacks(first: int | None = None) -> str:
    """Returns the Python stacks of all threads as text.

    Args:
        first: Identifier of the thread that comes first.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    parts = []
    for identifier in sorted(frames, key=lambda identifier: (identifier != first, identifier)):
        parts.append(f"Thread {names.get(identifier, 'not started by Python')} ({identifier:#x}):")
        parts.append("".join(traceback.format_stack(frames[identifier])).rstrip())
    return "\n".join(parts)


def print_incident(incident: Incident) -> None:
    """Prints an incident with its stacks to standard error."""
    print(incident, file=sys.stderr, flush=True)
