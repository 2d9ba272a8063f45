#!/usr/bin/env python3
"""Writes docs/tradeoff.md and its plots from the measurements in docs/tradeoff/*.json.

saccade tradeoff warehouse --out sweep --json > docs/tradeoff/NAME.json
python scripts/write_tradeoff.py              # or --check, which writes nothing
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade.reporting.adaptive import adaptive_lines, adaptive_plot
from saccade.reporting.tradeoff import markdown_lines, plots

DOCS = Path(__file__).resolve().parents[1] / "docs"
NONE = "\nThere is no measurement yet.\n"


def main() -> int:
    """Writes the pages, or says whether they are as they would be written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where something is stale")
    arguments = parser.parse_args()
    files = written(DOCS)
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if arguments.check:
        for path in stale:
            print(f"{path} is stale", file=sys.stderr)
        return int(bool(stale))
    for path in stale:
        path.write_text(files[path], encoding="utf-8")
        print(path)
    return 0


def written(docs: Path) -> dict[Path, str]:
    """Returns every file that follows from the measurements, with its content."""
    found = results(docs / "tradeoff")
    sweeps = {name: result for name, result in found.items() if result.get("kind") == "tradeoff"}
    runs = {name: result for name, result in found.items() if result.get("kind") == "adaptive"}
    files = {
        docs / "tradeoff.md": page((docs / "tradeoff" / "head.md").read_text(encoding="utf-8"), sweeps),
        docs / "adaptive.md": adaptive_page((docs / "tradeoff" / "adaptive-head.md").read_text(encoding="utf-8"), runs),
    }
    for name, result in sweeps.items():
        for plot, text in plots(result).items():
            files[docs / "tradeoff" / f"{name}-{plot}.svg"] = text
    for name, result in runs.items():
        files[docs / "tradeoff" / f"{name}.svg"] = adaptive_plot(result, standalone=True)
    return files


def results(folder: Path) -> dict[str, Any]:
    """Returns the results by the name of their file."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}


def page(head: str, sweeps: Mapping[str, Any]) -> str:
    """Returns the page of the trade-offs."""
    parts = [head]
    for name, result in sweeps.items():
        lines = [f"## {name}", "", *markdown_lines(result, level="###", pictures=f"tradeoff/{name}-")]
        parts.append("\n" + "\n".join(lines) + "\n")
    return "".join(parts) if sweeps else head + NONE


def adaptive_page(head: str, runs: Mapping[str, Any]) -> str:
    """Returns the page of the adaptive runs."""
    parts = [head]
    for name, result in runs.items():
        lines = [f"## {name}", "", *adaptive_lines(result), "", f"![load, precision and latency](tradeoff/{name}.svg)"]
        parts.append("\n" + "\n".join(lines) + "\n")
    return "".join(parts) if runs else head + NONE


if __name__ == "__main__":
    sys.exit(main())
