"""The first Ctrl-C ends a run in order, the second at once."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any


class Interrupt:
    """Turns the first Ctrl-C (or SIGTERM) into an orderly end and the second into an immediate one."""

    def __init__(self) -> None:
        self.requested = False
        self.running = False
        self.raised = False
        """Whether an exception was raised; what loads at that moment may have turned it into one of its own."""

    def __call__(self, number: int, frame: Any) -> None:
        """Handles the signal."""
        at_once = self.requested or not self.running
        self.requested = True
        if at_once:
            self.raised = True
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Puts the first signal off until the block has ended: what it makes is never left without an owner."""
        self.running = True
        try:
            yield
        finally:
            self.running = False
        if self.requested:
            self.raised = True
            raise KeyboardInterrupt


@contextlib.contextmanager
def signals_to(interrupt: Interrupt) -> Iterator[None]:
    """Installs the handler; signals belong to the main thread, elsewhere the caller's own handling stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    report = sys.unraisablehook

    def quiet(unraisable: sys.UnraisableHookArgs) -> None:
        # A signal can arrive in a callback that cannot raise, such as a weak reference's during an import: it is noted
        # all the same, and the run ends at the next step.
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            report(unraisable)

    sys.unraisablehook = quiet
    try:
        yield
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)
