"""An adaptive run for people: lines, one plot over time, one page, all from its JSON alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from saccade.reporting import svg
from saccade.reporting.figures import markup
from saccade.reporting.svg import Panel, Scale
from saccade.reporting.tradeoff import COLOURS, STANDALONE
from saccade.telemetry.recorder import write_atomic
from saccade.validation.tradeoff_candidates import TITLES

WIDTH, HEIGHT = 960.0, 470.0


def write_adaptive(folder: Path | str, result: Mapping[str, Any]) -> list[Path]:
    """Writes ``adaptive.json``, ``.md``, ``.svg`` and ``.html``, each whole or not at all."""
    folder = Path(folder)
    files = {
        "adaptive.svg": adaptive_plot(result, standalone=True),
        "adaptive.md": "\n".join(adaptive_lines(result)) + "\n",
        "adaptive.html": page(result),
        "adaptive.json": json.dumps(result, indent=1, allow_nan=False) + "\n",
    }
    for name, content in files.items():
        write_atomic(folder / name, content)
    return [folder / name for name in files]


def adaptive_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yields the result as Markdown."""
    host, found = result["host"], result["outcome"]
    where = (host.get("gpu") or {}).get("name") if result["device"] != "cpu" else host.get("cpu")
    load = result["load"]
    yield f"- {where}, {host.get('cores')} CPU cores for this process; commit {result.get('commit') or 'unknown'}"
    yield f"- {result['frames']} frames at {result['rate_hz']:g} Hz; load: {_load_text(load)}"
    yield f"- deadline {result['deadline_ms']:.3g} ms: {result['deadline_from']}, fixed before the other runs"
    if result.get("note"):
        yield f"- {result['note']}"
    yield ""
    networks = list(found["accuracy"])
    titles = ["run", "misses", "p50 [ms]", "p95 [ms]", "p50 under load [ms]", *(f"{name} mIoU" for name in networks)]
    yield f"| {' | '.join(titles)} |"
    yield "|---|---:|---:|---:|---:|" + "---:|" * len(networks)
    for name, run in result["runs"].items():
        values = [run["inference_ms"]["p50"], run["inference_ms"]["p95"], run["inference_under_load_ms"]["p50"]]
        cells = [_number(value["value"]) for value in values]
        accuracy = ["-" if run["accuracy"][n] is None else f"{run['accuracy'][n]:.4f}" for n in networks]
        title = {"adaptive": "adaptive", "unloaded": "FP32 without load"}.get(name) or f"fixed {TITLES.get(name, name)}"
        misses = "-" if name == "unloaded" else f"{run['misses']} of {run['frames']}"
        yield f"| {title} | {misses} | " + " | ".join([*cells, *accuracy]) + " |"
    yield ""
    yield f"{found['statement']}."
    yield ""
    yield f"- misses at most a fifth of fixed FP32's: {_met(found['misses_goal'])}"
    lowest = TITLES.get(found["lowest"], found["lowest"])
    within = f"within {found['accuracy_tolerance']:g}"
    yield f"- accuracy at least that of fixed {lowest}, {within}: {_met(found['accuracy_goal'])}"
    gap = found["least_gap_s"]
    least = "there were fewer than two" if gap is None else f"the closest two are {gap:.2f} s apart"
    dwell = f"no two switches closer than the dwell time of {result['dwell_s']:g} s"
    yield f"- {dwell}: {_met(found['dwell_goal'])} ({least})"
    facts = result["runs"]["adaptive"]["adaptive"]
    for switch in facts["switches"]:
        at = switch["time_s"] - facts["start_s"]
        names = f"{TITLES.get(switch['source'], switch['source'])} to {TITLES.get(switch['target'], switch['target'])}"
        yield f"- at {at:.1f} s from {names}: {switch['reason']}"
    for note in facts["notes"]:
        yield f"- {note}"
    for name, reason in facts["excluded"].items():
        yield f"- {TITLES.get(name, name)} is never taken: {reason}"


def _load_text(load: Mapping[str, Any]) -> str:
    one = load["workers"] == 1
    where = load["on"]
    if load["kind"] == "stream":
        return f"{load['workers']} {'stream' if one else 'streams'} of the same process on {where}"
    return f"{load['workers']} other {'process' if one else 'processes'} on {where}"


def adaptive_plot(result: Mapping[str, Any], *, standalone: bool = False) -> str:
    """Draws latency over time, the adaptive run coloured by its precision, with the load and the deadline.

    Args:
        result: The result.
        standalone: Whether it brings its own colours.
    """
    runs = result["runs"]
    own, top = runs["adaptive"]["series"], runs[result["precisions"][0]]["series"]
    times = np.array(own["t_s"])
    latencies = [value for run in (own, top) for value in run["inference_ms"]]
    low, high = min(latencies), max([*latencies, result["deadline_ms"]])
    end = float(times[-1]) or 1.0
    x = Scale(0.0, end, 64.0, WIDTH - 20.0)
    panel = Panel(x, Scale(low / 1.2, high * 1.2, 300.0, 40.0, log=True))
    loaded = [t for t, under in zip(own["t_s"], own["loaded"], strict=True) if under]
    if loaded:
        shade = "fill:#f6dfb0;opacity:.5"
        panel.parts.append(svg.rectangle(x(loaded[0]), 40.0, x(loaded[-1]) - x(loaded[0]), 260.0, style=shade))
    panel.axes("time [s]", "inference of a decision [ms], log scale")
    panel.parts.append(
        svg.line(
            64.0,
            panel.y(result["deadline_ms"]),
            WIDTH - 20.0,
            panel.y(result["deadline_ms"]),
            style="stroke:#b92b27;stroke-dasharray:6 4",
        )
    )
    panel.parts.append(svg.label(WIDTH - 20.0, panel.y(result["deadline_ms"]) - 5, "deadline", anchor="end"))
    for t, value in zip(top["t_s"], top["inference_ms"], strict=True):
        panel.parts.append(svg.circle(x(t), panel.y(value), 1.6, style="fill:none;stroke:#93a0ab"))
    for t, value, name in zip(own["t_s"], own["inference_ms"], own["precision"], strict=True):
        panel.parts.append(svg.circle(x(t), panel.y(value), 2.1, style=f"fill:{COLOURS.get(name, '#3c3c3c')}"))
    below = Panel(x, Scale(0.0, 100.0, 440.0, 370.0))
    below.axes("", "load of the device [%]", x_ticks=[])
    shares = np.array([np.nan if v is None else v for v in own["load_percent"]], float)
    below.series(times, shares, style="stroke:#8f5a00;fill:none;stroke-width:1.4")
    entries = [
        ("dot", COLOURS.get(name, "#3c3c3c"), f"adaptive, {TITLES.get(name, name)}")
        for name in dict.fromkeys(own["precision"])
    ]
    entries.append(("ring", "#93a0ab", f"fixed {TITLES.get(result['precisions'][0], '')}"))
    entries.append(("box", "#f6dfb0", "load"))
    marks, _ = svg.legend(entries, x=330.0, y=18.0, width=WIDTH - 350.0)
    parts = [*([STANDALONE] if standalone else []), *panel.parts, *below.parts, *marks]
    return svg.document(WIDTH, HEIGHT, parts, description="latency, precision and load over time")


def page(result: Mapping[str, Any]) -> str:
    """Returns the result as one self-contained page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("saccade.reporting"), autoescape=True, undefined=StrictUndefined)
    style = (resources.files("saccade.reporting") / "templates" / "report.css").read_text(encoding="utf-8")
    lines = list(adaptive_lines(result))
    table = [line for line in lines if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return environment.get_template("adaptive.html.j2").render(
        result=result,
        style=style,
        policy="default-src 'none'; style-src 'unsafe-inline'; img-src data:",
        head=rows[0],
        rows=rows[2:],
        facts=[line.removeprefix("- ") for line in lines if line.startswith("- ")],
        chart=markup(adaptive_plot(result)),
    )


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}"


def _met(goal: bool) -> str:
    return "met" if goal else "**missed**"
