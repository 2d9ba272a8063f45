"""The log of the window: bounded, safe to write from every thread, each problem with its remedy."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from saccade.errors import SaccadeError
from saccade.panel.view import Level, LogLine

LINES = 500
"""Lines that are kept."""

_LOGGER = logging.getLogger("saccade")

REMEDIES = {
    "ConfigurationError": "Correct the field that is named, or pick another configuration, and press Start.",
    "SceneError": "Pick a scene that has what is named, and press Start.",
    "ModelError": "Correct networks.*.model in the configuration, and press Start.",
    "DependencyError": "Install it with the command that is named, and start Isaac Sim again.",
    "RecordError": "Choose another folder for runs (setting /exts/saccade/out), and press Start.",
    "EngineError": "The run is invalid. Build the engine again, or take engine onnxruntime, and press Start.",
}
"""What to do in the window about an error, by the name of its class; its own text says it in detail."""

UNEXPECTED = "This is a fault in Saccade or in what it calls: report it with the whole log."


class Logbook:
    """Keeps the newest lines.

    Args:
        forward: Also given every line: level, text.
    """

    def __init__(self, forward: Callable[[Level, str], None] | None = None) -> None:
        self._forward = forward
        self._lines: deque[LogLine] = deque(maxlen=LINES)
        self._lock = threading.Lock()

    @property
    def lines(self) -> tuple[LogLine, ...]:
        """All lines that are kept, oldest first."""
        with self._lock:
            return tuple(self._lines)

    def add(self, level: Level, text: str, remedy: str = "") -> LogLine:
        """Adds a line and returns it."""
        line = LogLine(time.strftime("%H:%M:%S"), level, text, remedy)
        with self._lock:
            self._lines.append(line)
        if self._forward is not None:
            self._forward(level, f"{text} {remedy}".strip())
        return line

    def add_error(self, error: BaseException) -> LogLine:
        """Adds what went wrong; the traceback of what nobody expected goes to Python's own log."""
        if isinstance(error, SaccadeError):
            kinds = [kind.__name__ for kind in type(error).__mro__]
            remedy = next((REMEDIES[kind] for kind in kinds if kind in REMEDIES), "")
            return self.add("error", str(error), remedy)
        _LOGGER.error("unexpected error in a run", exc_info=error)
        return self.add("error", f"{type(error).__name__}: {error}", UNEXPECTED)
