"""What a run shows while it goes on: what is being loaded, how far it is, and its pace."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from saccade.config import RunConfig
from saccade.loop import Tick

if TYPE_CHECKING:
    from rich.console import Console

SAME_TEXT_S = 10.0
"""How long a log is spared a line that differs from the last one only in a number [s]."""


class RunProgress:
    """Says what is being loaded and how far the run is, with its pace so far."""

    def __init__(self, console: Console | None, config: RunConfig) -> None:
        self._console = console
        self._total = config.run.warmup + config.run.frames
        self._bar: Any = None
        self._task: Any = None
        self._status: Any = None
        self._said = ("", 0.0)

    def __enter__(self) -> RunProgress:
        if self._console is not None:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """Shows what is being done."""
        if self._console is None:
            return
        if self._bar is not None:
            self._stop()
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        self._status.update(text)
        if not self._console.is_terminal and self._is_news(text):
            self._console.print(text, highlight=False)

    def _is_news(self, text: str) -> bool:
        """Returns whether a log should have this line: not where only a count of seconds has moved on."""
        gist, now = re.sub(r"[0-9]+", "", text), time.monotonic()
        if gist == self._said[0] and now - self._said[1] < SAME_TEXT_S:
            return False
        self._said = (gist, now)
        return True

    def __call__(self, tick: Tick) -> None:
        """Moves the bar; called after each decision."""
        if self._console is None:
            return
        if self._bar is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._stop()
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
                refresh_per_second=4,
            )
            self._task = self._bar.add_task("warm-up", total=self._total, note="")
            self._bar.start()
        if tick.index % 10 == 0 or tick.index + 1 == self._total:
            frame = tick.frames[0]
            latency = (frame.stamps.decided - frame.stamps.sim_state) * 1e-6
            self._bar.update(
                self._task,
                completed=tick.index + 1,
                description="warm-up" if tick.phase == "warmup" else "judging",
                note=f"{latency:5.1f} ms  {tick.state.distance:5.1f} m  {tick.command.reason}",
            )
