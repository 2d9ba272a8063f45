"""The window's view model where packages are missing: says which, and starts nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from saccade.panel.logbook import Logbook
from saccade.panel.view import LogLine, State, View


class BarePanel:
    """Has the methods of :class:`saccade.panel.model.Panel` and imports nothing that may be missing.

    Args:
        missing: What is missing.
        forward: Also given every line of the log.
    """

    def __init__(self, missing: tuple[LogLine, ...], forward: Callable[[Any, str], None] | None = None) -> None:
        self.log = Logbook(forward)
        self.previews: dict[str, Any] = {}
        self.state: State = "idle"
        self._missing = missing
        for line in missing:
            self.log.add(line.level, line.text, line.remedy)

    def view(self) -> View:
        """Returns what the window shows."""
        return View(doing="packages are missing: see below", missing=self._missing, log=self.log.lines)

    def refuse(self, *_: Any, **__: Any) -> None:
        """Does what every button does here: nothing, and says why."""
        self.log.add("warning", "packages are missing", "Install them, and start Isaac Sim again.")

    start = pause = resume = stop = refuse
    choose_configuration = choose_scene = choose_humanoid = choose_engine = refuse

    def save_report(self, target: Path | str) -> None:
        """Does nothing: there is no report."""
        self.refuse()

    def preview(self, on: bool) -> None:
        """Does nothing: there are no sensors."""

    def look_again(self) -> None:
        """Does nothing: no stage is looked through."""

    def update(self) -> None:
        """Does nothing: nothing is under way."""

    def close(self) -> None:
        """Does nothing: nothing is open."""
