"""A trade-off in the terminal: one table per network and batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from saccade.reporting.tradeoff import groups, table_cells
from saccade.validation.recommendation import candidate_title, not_qualified

TITLES = ("", "accuracy", "of FP32", "kept", "p50 [ms]", "p95 [ms]", "frames/s")
WIDE_TITLES = (*TITLES, "mJ/frame", "MiB GPU", "MiB file", "build [s]")


def tradeoff_tables(result: Mapping[str, Any], *, width: int = 80) -> Iterator[RenderableType]:
    """Yields the tables, and what could not be measured.

    Args:
        result: The content of ``tradeoff.json``.
        width: Of the terminal [characters]; a narrow one gets fewer columns.
    """
    titles = WIDE_TITLES if width >= 132 else TITLES
    for network, batch, entries in groups(result):
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for title in titles:
            side = "left" if title in ("", "kept") else "right"
            table.add_column(escape(title), header_style="dim", justify=side)  # type: ignore[arg-type]
        unlike = []
        for entry in entries:
            cells = table_cells(entry)
            if (why := not_qualified(entry)) is not None:
                # In a line of its own below: a cell would be too wide.
                unlike.append(f"{candidate_title(entry)}: {why}")
                cells[3] = cells[3].partition(":")[0]
            if titles is TITLES:
                # The interval of the share is in the report, and so is why it is not certain.
                cells[2], cells[3] = cells[2].partition(" ")[0], cells[3].partition(" (")[0]
            table.add_row(*(escape(cell) for cell in cells[: len(titles)]))
        yield Text(f"{network}, {'in the loop' if batch == 1 else f'batch {batch}, the engine alone'}", style="bold")
        yield table
        for line in unlike:
            yield Text(line, style="yellow")
    for entry in result["failed"]:
        yield Text(f"not measured: {entry['key']}: {entry['reason']}", style="yellow")
    if not result.get("complete", True):
        yield Text("not complete: the same command goes on with it", style="bold yellow")
