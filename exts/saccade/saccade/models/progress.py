"""How far rendering and training are: one callable, shown as bars with an estimate of the time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Report = Callable[[str, int, int, str], None]
"""Called with the stage (``"scenes"``, ``"epochs"``), what is done, the total, and a note such as the current loss."""


def silent(_stage: str, _done: int, _total: int, _note: str = "") -> None:
    """Reports nothing."""


@contextlib.contextmanager
def console_report() -> Iterator[Report]:
    """Yields a report that draws progress bars on stderr; plain lines where ``rich`` or a terminal is missing."""
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        console = None
    else:
        console = Console(stderr=True)
    if console is None or not console.is_terminal:
        yield _plain()
        return
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, speed_estimate_period=600) as bars:
        tasks: dict[str, int] = {}

        def report(stage: str, done: int, total: int, note: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = int(bars.add_task(stage, total=total, note=note, completed=done))
            bars.update(tasks[stage], completed=done, total=total, note=note)  # type: ignore[arg-type]

        yield report


def _plain() -> Report:
    started: dict[str, tuple[float, int]] = {}

    def report(stage: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        began, first = started.setdefault(stage, (now, done))
        left = (now - began) / (done - first) * (total - done) if done > first else None
        tail = f", {left / 60:.1f} min left" if left is not None else ""
        print(f"{stage} {done}/{total}{tail} {note}".rstrip(), file=sys.stderr, flush=True)

    return report
