"""A trade-off for people: table, CSV, plots and one self-contained page, all from its JSON alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from saccade.reporting import svg
from saccade.reporting.figures import markup
from saccade.reporting.svg import Panel, Scale
from saccade.reporting.wording import number
from saccade.telemetry.recorder import write_atomic
from saccade.validation.recommendation import (
    RESULT_FILE,
    candidate_title,
    not_qualified,
    overlap,
    pareto_front,
    recommend,
)

WIDTH, HEIGHT = 720.0, 420.0
COLOURS = {"fp32": "#4c5760", "fp16": "#2f6db3", "int8": "#c2541b", "int8_mixed": "#7b5aa6"}
"""Of the precisions, in plots."""
STANDALONE = """<style>
svg{font:12px system-ui,"Segoe UI",Arial,sans-serif;background:#fff}
text{fill:#66717b}.title{fill:#4c5760}.strong{fill:#1b2126;font-weight:600}
.grid{stroke:#e2e6e9}.axis{stroke:#66717b}.front{fill:none;stroke:#1f5fae;stroke-width:1.4;stroke-dasharray:5 4}
</style>"""
"""A plot in a file of its own has no page whose colours it could take."""

COLUMNS = (
    "candidate", "batch", "accuracy", "accuracy_low", "accuracy_high", "retention", "retention_low", "retention_high",
    "kept", "agreement", "latency_ms", "latency_low", "latency_high", "latency_p95_ms", "latency_p99_ms",
    "throughput_fps", "energy_mj", "memory_mib", "plan_mib", "build_s", "qualified",
)  # fmt: skip

Entry = Mapping[str, Any]


def write_result(folder: Path | str, result: Mapping[str, Any]) -> list[Path]:
    """Writes ``tradeoff.json``, ``.csv``, ``.md``, ``.html`` and the plots, each whole or not at all.

    Raises:
        RecordError: The folder cannot be written.
    """
    folder = Path(folder)
    files: dict[str, str] = {
        "tradeoff.csv": csv_text(result),
        "tradeoff.md": "\n".join(markdown_lines(result)) + "\n",
        "tradeoff.html": page(result),
        **{f"{name}.svg": plot for name, plot in plots(result).items()},
        # Last, so that a result means that everything is there.
        RESULT_FILE: json.dumps(result, indent=1, allow_nan=False) + "\n",
    }
    for name, content in files.items():
        write_atomic(folder / name, content)
    return [folder / name for name in files]


def groups(result: Mapping[str, Any]) -> Iterator[tuple[str, int, list[Entry]]]:
    """Yields network, batch and candidates."""
    entries = result["candidates"]
    for network, batch in dict.fromkeys((entry["network"], entry["batch"]) for entry in entries):
        yield network, batch, [e for e in entries if (e["network"], e["batch"]) == (network, batch)]


def plots(result: Mapping[str, Any], *, standalone: bool = True) -> dict[str, str]:
    """Returns the Pareto plots as SVG by name: accuracy against latency and against throughput."""
    found = {}
    for network, batch, entries in groups(result):
        name = network if batch == 1 else f"{network}-batch{batch}"
        for cost in ("latency", "throughput"):
            drawn = front_plot(entries, cost=cost, standalone=standalone)
            if drawn is not None:
                found[f"{name}-{cost}"] = drawn
    return found


def front_plot(entries: Sequence[Entry], *, cost: str = "latency", standalone: bool = False) -> str | None:
    """Draws accuracy against a cost with both intervals and the Pareto front; ``None`` where nothing can be drawn.

    Args:
        entries: Candidates of one network and batch.
        cost: ``"latency"`` or ``"throughput"``.
        standalone: Whether it brings its own colours.
    """
    drawn = [
        entry
        for entry in entries
        if entry["accuracy"]["value"] is not None and entry[cost]["value"] is not None and not entry.get("invalid")
    ]
    if not drawn:
        return None
    x = _scale([bound for entry in drawn for bound in _bounds(entry[cost])], 64.0, WIDTH - 24.0, log=True)
    y = _scale([bound for entry in drawn for bound in _bounds(entry["accuracy"])], HEIGHT - 60.0, 40.0, log=False)
    panel = Panel(x, y)
    titles = {"latency": "median inference time [ms], log scale", "throughput": "frames per second, log scale"}
    panel.axes(titles[cost], "accuracy (mIoU)" if drawn[0]["accuracy"].get("metric") == "miou" else "accuracy (AUROC)")
    front = pareto_front(drawn, cost=cost, lower=cost == "latency")
    corners = [(x(entry[cost]["value"]), y(entry["accuracy"]["value"])) for entry in front]
    if len(corners) > 1:
        panel.parts.append(svg.path(corners, kind="front", style="fill:none;stroke:#1f5fae;stroke-dasharray:5 4"))
    for entry in drawn:
        panel.parts += _mark(panel, entry, cost, on_front=entry in front)
    panel.parts += _names(panel, drawn, cost)
    description = f"{drawn[0]['network']}: accuracy against {cost} of {len(drawn)} candidates"
    parts = [STANDALONE, *panel.parts] if standalone else panel.parts
    return svg.document(WIDTH, HEIGHT, parts, description=description)


def csv_text(result: Mapping[str, Any]) -> str:
    """Returns one row per candidate and batch; what was not measured is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("network", "device", "precision", "sparsity", *COLUMNS))
    for entry in result["candidates"]:
        row = _row(entry)
        values = ["" if row[name] is None else row[name] for name in COLUMNS]
        writer.writerow((entry["network"], entry["device"], entry["precision"], entry["sparsity"], *values))
    return out.getvalue()


def markdown_lines(result: Mapping[str, Any], *, level: str = "##", pictures: str | None = None) -> Iterator[str]:
    """Yields the result as Markdown: facts, a table per network and batch, what failed, the recommendation.

    Args:
        result: The result.
        level: Of the headings.
        pictures: Where the plots are and how their names begin, such as ``"tradeoff/h100-"``; ``None`` = beside it.
    """
    yield from facts_lines(result)
    prefix = "" if pictures is None else pictures
    drawn = plots(result)
    for network, batch, entries in groups(result):
        alone = "" if batch == 1 else f", batch {batch} (the engine alone)"
        yield ""
        yield f"{level} {network}{alone}"
        yield ""
        yield "| candidate | accuracy | of FP32 | kept | latency p50 [ms] | p95 [ms] | frames/s | mJ/frame | MiB GPU | MiB file | build [s] |"  # noqa: E501
        yield "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|"
        for entry in entries:
            yield "| " + " | ".join(table_cells(entry)) + " |"
        name = network if batch == 1 else f"{network}-batch{batch}"
        for cost in ("latency", "throughput"):
            if f"{name}-{cost}" in drawn:
                yield ""
                yield f"![{network}: accuracy against {cost}]({prefix}{name}-{cost}.svg)"
        yield ""
        yield from gain_lines(entries)
    if result["failed"]:
        yield ""
        yield "Not measured:"
        yield ""
        for entry in result["failed"]:
            yield f"- {entry['key']}: {entry['reason']}"
    if result["candidates"]:
        yield ""
        yield f"{level} Recommendation at the gate of {result['gate']:g}"
        yield ""
        for batch in sorted({entry["batch"] for entry in result["candidates"]}):
            for found in recommend(result, batch=batch).values():
                for line in found.lines():
                    yield f"- {line.strip()}"


def table_cells(entry: Entry) -> list[str]:
    """Returns a candidate's row of the table, ready to print."""
    row = _row(entry)
    kept = {None: "-", True: "yes", False: "no"}[row["kept"]]
    if row["kept"] is not None and not entry["retention"]["certain"]:
        kept += " (interval reaches the gate)" if entry["retention"]["interval"] else " (no interval)"
    unlike = not_qualified(entry)
    cells = [
        candidate_title(entry),
        _with_interval(row["accuracy"], row["accuracy_low"], row["accuracy_high"], 4),
        _with_interval(row["retention"], row["retention_low"], row["retention_high"], 4),
        entry["invalid"] or (f"{kept}; {unlike}" if unlike else kept),
        _with_interval(row["latency_ms"], row["latency_low"], row["latency_high"], 3, significant=True),
    ]
    cells += [_plain(row[name]) for name in ("latency_p95_ms", "throughput_fps", "energy_mj", "memory_mib")]
    return [*cells, _plain(row["plan_mib"]), _plain(row["build_s"])]


def gain_lines(entries: Sequence[Entry]) -> Iterator[str]:
    """Yields what each candidate gains over FP32 in median latency; nothing where their intervals overlap."""
    base = next((e for e in entries if e["precision"] == "fp32" and e["sparsity"] == "none" and not e["size"]), None)
    if base is None or base["latency"]["value"] is None:
        return
    for entry in entries:
        if entry is base or entry["latency"]["value"] is None:
            continue
        ratio = base["latency"]["value"] / entry["latency"]["value"]
        title = candidate_title(entry) + (" (not qualified)" if not_qualified(entry) else "")
        if overlap(entry["latency"], base["latency"]):
            yield f"- {title}: no measurable difference to FP32 in median latency"
        elif ratio >= 1:
            yield f"- {title}: {ratio:.2f} times as fast as FP32"
        else:
            yield f"- {title}: slower than FP32, {1 / ratio:.2f} times its time"


def facts_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yields what it ran on."""
    host = result["host"]
    versions = result.get("versions", {})
    gpu = host.get("gpu") or {}
    where = f"GPU: {gpu.get('name', 'none')}, driver {host.get('driver') or gpu.get('driver') or 'unknown'}"
    yield f"- {where}" if result["device"] != "cpu" else "- the engines ran on the CPU"
    yield f"- CPU: {host.get('cpu')}, {host.get('cores')} cores for this process"
    names = ("onnxruntime", "tensorrt", "warp-lang", "python")
    yield "- " + ", ".join(f"{name} {versions[name]}" for name in names if versions.get(name))
    modified = " with changes" if result.get("modified") else ""
    yield f"- commit {result.get('commit') or 'unknown'}{modified}, {result['created']}"
    scenes = result["scenes"]
    yield f"- {len(scenes)} scenes of {result['frames_per_scene']} judged frames each"
    load = result.get("load_average")
    if load:
        yield f"- load average of the machine while measuring: {load['min']:.1f} to {load['max']:.1f}"
    if not result["complete"]:
        yield "- **not complete**: scenes that every candidate went through so far"
    if result.get("note"):
        yield f"- {result['note']}"


def page(result: Mapping[str, Any]) -> str:
    """Returns the result as one self-contained page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("saccade.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = plots(result, standalone=False)
    sections = []
    for network, batch, entries in groups(result):
        name = network if batch == 1 else f"{network}-batch{batch}"
        charts = [markup(drawn[f"{name}-{cost}"]) for cost in ("latency", "throughput") if f"{name}-{cost}" in drawn]
        advice = recommend(result, network=network, batch=batch)[network] if entries else None
        sections.append(
            {
                "title": network if batch == 1 else f"{network}, batch {batch} (the engine alone)",
                "id": name,
                "rows": [table_cells(entry) for entry in entries],
                "charts": charts,
                "advice": [] if advice is None else advice.lines(),
                "gains": [line.removeprefix("- ") for line in gain_lines(entries)],
            }
        )
    style = (resources.files("saccade.reporting") / "templates" / "report.css").read_text(encoding="utf-8")
    return environment.get_template("tradeoff.html.j2").render(
        result=result,
        style=style + ".front{stroke-width:1.4}",
        policy="default-src 'none'; style-src 'unsafe-inline'; img-src data:",
        facts=[line.removeprefix("- ").replace("**", "") for line in facts_lines(result)],
        sections=sections,
    )


def _row(entry: Entry) -> dict[str, Any]:
    def low(name: str) -> Any:
        return None if entry[name]["interval"] is None else entry[name]["interval"][0]

    def high(name: str) -> Any:
        return None if entry[name]["interval"] is None else entry[name]["interval"][1]

    energy, memory, plan = entry["energy_per_frame"]["value"], entry["memory_bytes"], entry["plan_bytes"]
    return {
        "candidate": candidate_title(entry),
        "batch": entry["batch"],
        "accuracy": entry["accuracy"]["value"],
        "accuracy_low": low("accuracy"),
        "accuracy_high": high("accuracy"),
        "retention": entry["retention"]["value"],
        "retention_low": low("retention"),
        "retention_high": high("retention"),
        "kept": entry["retention"]["kept"],
        "agreement": entry["agreement"],
        "latency_ms": entry["latency"]["value"],
        "latency_low": low("latency"),
        "latency_high": high("latency"),
        "latency_p95_ms": entry["latency_p95"]["value"],
        "latency_p99_ms": entry["latency_p99"]["value"],
        "throughput_fps": entry["throughput"]["value"],
        "energy_mj": None if energy is None else energy * 1e3,
        "memory_mib": None if memory is None else memory / 2**20,
        "plan_mib": None if plan is None else plan / 2**20,
        "build_s": entry["build_s"],
        "qualified": {None: None, True: "yes", False: "no"}[entry.get("qualified")],
    }


def _with_interval(value: Any, low: Any, high: Any, digits: int, *, significant: bool = False) -> str:
    if value is None:
        return "-"
    form = f".{digits}g" if significant else f".{digits}f"
    return f"{value:{form}}" if low is None else f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _plain(value: Any) -> str:
    return "-" if value is None else number(float(value)).replace("\u202f", " ")


def _bounds(figure: Mapping[str, Any]) -> list[float]:
    return [figure["value"], *(figure["interval"] or ())]


def _scale(values: Sequence[float], start: float, end: float, *, log: bool) -> Scale:
    low, high = min(values), max(values)
    if log:
        return Scale(low / 1.15, high * 1.15, start, end, log=True)
    room = max((high - low) * 0.12, 0.002)
    return Scale(low - room, high + room, start, end)


def _mark(panel: Panel, entry: Entry, cost: str, *, on_front: bool) -> list[str]:
    colour = COLOURS.get(entry["precision"], "#3c3c3c")
    x, y = panel.x(entry[cost]["value"]), panel.y(entry["accuracy"]["value"])
    line = f"stroke:{colour};stroke-width:1.3;opacity:.75"
    parts = []
    if entry["accuracy"]["interval"] is not None:
        low, high = entry["accuracy"]["interval"]
        parts.append(svg.line(x, panel.y(low), x, panel.y(high), style=line))
    if entry[cost]["interval"] is not None:
        low, high = entry[cost]["interval"]
        parts.append(svg.line(panel.x(low), y, panel.x(high), y, style=line))
    paint = f"fill:{colour}" if on_front else f"fill:#fff;stroke:{colour};stroke-width:1.8"
    tip = f"{candidate_title(entry)}: accuracy {entry['accuracy']['value']:.4f}, {entry[cost]['value']:.4g}"
    if (why := not_qualified(entry)) is not None:
        paint += ";stroke-dasharray:2 2"
        tip += f"; {why}"
    parts.append(svg.circle(x, y, 5, style=paint, tip=tip))
    return parts


def _names(panel: Panel, entries: Sequence[Entry], cost: str) -> list[str]:
    """Labels beside the marks, moved down where they would touch another's."""
    parts: list[str] = []
    placed: list[tuple[float, float, float]] = []
    for entry in sorted(entries, key=lambda e: panel.y(e["accuracy"]["value"])):
        text = candidate_title(entry)
        width = svg.CHARACTER_WIDTH * len(text)
        x, y = panel.x(entry[cost]["value"]) + 9, panel.y(entry["accuracy"]["value"]) - 7
        if x + width > panel.right:
            x -= width + 18
        while any(abs(y - other_y) < 13 and x < right and left < x + width for left, right, other_y in placed):
            y += 13
        placed.append((x, x + width, y))
        parts.append(svg.label(x, y, text, kind="strong"))
    return parts
