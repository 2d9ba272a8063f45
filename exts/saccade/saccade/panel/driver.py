"""Brings the turns of a run to the threads that they belong to; the application's thread never waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from saccade.loop import STAND, UPDATE
from saccade.validation.interrupt import Interrupt
from saccade.validation.watch import WORK

STANDING_PERIOD_S = 0.02
"""How often a paused run on the worker looks whether it goes on [s]."""

Turns = Generator[str, float | None, dict[str, Any]]


class RunDriver:
    """One run: its turns, one at a time, each on its thread.

    Args:
        turns: See :func:`saccade.validation.run.validation_turns`.
        interrupt: That of ``turns``.
        worker: Does the work.
        stepped: Whether turns that belong to the application are done by :meth:`update`; else the worker does all.
        at_stand: Called on the run's thread where it may stand still.
        on_hold: Called there when it begins to stand still (true) and when it goes on.
    """

    def __init__(
        self,
        turns: Turns,
        interrupt: Interrupt,
        worker: ThreadPoolExecutor,
        *,
        stepped: bool,
        at_stand: Callable[[], None] = lambda: None,
        on_hold: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._turns = turns
        self._interrupt = interrupt
        self._worker = worker
        self._at_stand = at_stand
        self._on_hold = on_hold
        self._stepped = stepped
        self._next = WORK
        self._job: Future[None] | None = None
        self._wanted_pause = threading.Event()
        self._standing_since: float | None = None
        self.standing = False
        """Whether it stands still now."""
        self.stepping = False
        """Whether the loop has begun."""
        self.summary: dict[str, Any] | None = None
        self.error: BaseException | None = None
        self.finished = False
        if not stepped:
            self._job = worker.submit(self._all)

    def update(self) -> None:
        """Does what is due on the application's thread; called once per update, and returns at once otherwise."""
        if self.finished or not self._stepped:
            return
        if self._job is not None:
            if not self._job.done():
                return
            self._job = None
            if self.finished:
                return
        if self._next == WORK:
            self._job = self._worker.submit(self._turn)
            return
        if self._next == STAND and self._stands():
            return
        self._turn()
        # The decision is made: what comes next is only to hand it over, and belongs before the application's update.
        if self._next == STAND and not self.finished and not self._stands():
            self._turn()

    def pause(self) -> None:
        """Asks the run to stand still, which it does after the decision that is under way."""
        self._wanted_pause.set()

    def resume(self) -> None:
        """Lets it go on."""
        self._wanted_pause.clear()

    def stop(self) -> None:
        """Ends it in order: it is judged, and reported, as interrupted."""
        self._interrupt.requested = True
        self._wanted_pause.clear()

    def finish(self, timeout_s: float) -> bool:
        """Stops, and does all that is left here and now; for the end of the application.

        Returns:
            Whether it has ended within ``timeout_s``.
        """
        self.stop()
        deadline = time.monotonic() + timeout_s
        while not self.finished and time.monotonic() < deadline:
            self.update()
            if self._job is not None:
                wait([self._job], timeout=0.05)
        return self.finished

    def _stands(self) -> bool:
        """Whether the run stands still, and since when."""
        if self._wanted_pause.is_set() and not self._interrupt.requested:
            if not self.standing:
                self._standing_since = time.perf_counter()
                self.standing = True
                self._on_hold(True)
            return True
        if self.standing:
            self.standing = False
            self._on_hold(False)
        return False

    def _stood(self) -> float | None:
        if self._standing_since is None:
            return None
        stood, self._standing_since = time.perf_counter() - self._standing_since, None
        return stood

    def _turn(self, error: BaseException | None = None) -> None:
        """Does one turn on this thread; ``error`` is raised in it."""
        try:
            if error is not None:
                self._next = self._turns.throw(error)
            else:
                self._next = self._turns.send(self._stood() if self._next == STAND else None)
        except StopIteration as end:
            self.summary, self.finished = end.value, True
        except BaseException as raised:
            self.error, self.finished = raised, True
        else:
            if self._next == STAND:
                self.stepping = True
                self._at_stand()

    def _all(self) -> None:
        """Does every turn on the worker."""
        while not self.finished:
            if self._next == UPDATE:
                self._turn(RuntimeError("this simulator is advanced by an application, and there is none"))
                continue
            while self._next == STAND and self._stands():
                time.sleep(STANDING_PERIOD_S)
            self._turn()
