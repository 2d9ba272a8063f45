"""The report's figures of accuracy against ground truth: one function each, from record data to an inline SVG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from saccade.frame import CLASSES
from saccade.reporting import svg
from saccade.reporting.plots import HALF, WIDE, Frames, count_scale, count_ticks
from saccade.reporting.svg import Panel, Scale


def iou_bars(network: Mapping[str, Any]) -> str:
    """Draws a network's IoU per class as bars, with the mean; a class that never occurred says so."""
    iou = network.get("iou") or {}
    if isinstance(iou, Mapping):
        rows = list(iou.items())
    else:
        rows = list(zip(network.get("classes") or CLASSES, iou, strict=False))
    if not rows:
        return ""
    height = 26 * len(rows)
    scale = Scale(0.0, 1.0, 96, HALF - 52)
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1.0):
        x = scale(tick)
        parts += [svg.line(x, 8, x, height + 12, kind="grid"), svg.label(x, height + 28, f"{tick:g}", anchor="middle")]
    for row, (name, value) in enumerate(rows):
        y = 14 + 26 * row
        colour = f"var(--class-{name})" if name in CLASSES else "var(--muted)"
        parts.append(svg.label(88, y + 13, svg.shorten(str(name), 14), anchor="end"))
        if value is None:
            parts.append(svg.label(102, y + 13, "did not occur", kind="small"))
            continue
        tip = f"{name}: IoU {value:.4f}"
        parts.append(svg.rectangle(96, y, scale(value) - 96, 18, kind="class-bar", style=f"fill:{colour}", tip=tip))
        parts.append(svg.label(scale(value) + 7, y + 13, f"{value:.3f}", kind="strong"))
    mean = network.get("miou")
    if mean is not None:
        parts.append(svg.line(scale(mean), 4, scale(mean), height + 12, kind="mean"))
        parts.append(svg.label(scale(mean), height + 46, f"mIoU {mean:.3f}", anchor="middle", kind="strong"))
    described = ", ".join(f"{name} {'absent' if value is None else f'{value:.3f}'}" for name, value in rows)
    return svg.document(HALF, height + 54, parts, description=f"IoU per class: {described}.")


def hazard(frames: Frames, network: str, *, threshold: float) -> tuple[str, list[str]]:
    """Draws a network's hazard score over the run, where the truth says hazard, and what was missed.

    Returns:
        The SVG (empty without scores), and notes on what was put together.
    """
    rows = [
        (frame["sim_time"], result["hazard"], (frame.get("truth") or {}).get("hazard"))
        for frame in frames
        if (result := (frame.get("results") or {}).get(network))
        and result.get("hazard") is not None
        and frame.get("sim_time") is not None
    ]
    if not rows:
        return "", []
    times = np.array([row[0] for row in rows])
    scores = np.array([row[1] for row in rows], float)
    truth = [row[2] for row in rows]
    entries = [
        ("line", "var(--accent)", "hazard score"),
        ("box", "var(--truth-band)", "truth: hazard"),
        ("dash", "var(--ink)", f"threshold {threshold:g}"),
        ("dot", "var(--fail)", "missed"),
        ("ring", "var(--warn)", "false alarm"),
    ]
    marks, base = svg.legend(entries, x=46, y=16, width=WIDE - 60)
    panel = Panel(Scale(times[0], max(times[-1], times[0] + 1e-9), 46, WIDE - 14), Scale(0, 1.0, base + 204, base + 44))
    panel.parts += marks
    step = float(np.median(np.diff(times))) / 2 if len(times) > 1 else 0.0
    start: int | None = None
    for index in range(len(rows) + 1):
        active = index < len(rows) and truth[index] is True
        if active and start is None:
            start = index
        elif not active and start is not None:
            left, right = panel.x(times[start] - step), panel.x(times[index - 1] + step)
            panel.parts.append(
                svg.rectangle(left, panel.top, max(right - left, 1), panel.bottom - panel.top, kind="truth-band")
            )
            start = None
    panel.axes(
        "simulation time [s]", f"hazard score of {svg.shorten(network)}", y_ticks=[(0, "0"), (0.5, "0.5"), (1, "1")]
    )
    panel.parts.append(svg.line(panel.left, panel.y(threshold), panel.right, panel.y(threshold), kind="threshold"))
    notes = []
    if panel.series(times, scores, style="stroke:var(--accent);fill:var(--accent)"):
        notes.append(
            "The line is the median of neighbouring frames, the band reaches from their least to their greatest."
        )
    wrong = [(time, score, real) for time, score, real in rows if real is not None and (score >= threshold) != real]
    for moment, score, real in wrong[:600]:
        tip = f"{moment:.2f} s: score {score:.3f}, truth {'hazard' if real else 'free'}"
        kind = "missed" if real else "false-alarm"
        panel.parts.append(svg.circle(panel.x(moment), panel.y(score), 3.6, kind=kind, tip=tip))
    if len(wrong) > 600:
        notes.append(f"The first 600 of {len(wrong)} wrong frames are marked.")
    description = f"Hazard score of {network} over {len(rows)} frames, {len(wrong)} on the wrong side of {threshold:g}."
    return svg.document(WIDE, base + 248, panel.parts, description=description), notes


def clearance_errors(frames: Frames, network: str, *, cap: float) -> tuple[str, list[str]]:
    """Draws the signed clearance errors (predicted minus true, both capped at ``cap`` [m]) of every sector.

    Returns:
        The SVG (empty without clearances), and notes on values in the outermost bars.
    """
    errors = [
        min(guess, cap) - min(real, cap)
        for frame in frames
        if (result := (frame.get("results") or {}).get(network))
        and result.get("clearance")
        and (frame.get("truth") or {}).get("clearance")
        for guess, real in zip(result["clearance"], frame["truth"]["clearance"], strict=True)
        if guess is not None and real is not None
    ]
    if not errors:
        return "", []
    data = np.array(errors)
    reach = max(0.5, float(np.quantile(np.abs(data), 0.995)) * 1.1)
    outside = int((np.abs(data) > reach).sum())
    edges = np.linspace(-reach, reach, 42)
    counts, _ = np.histogram(np.clip(data, -reach, reach), edges)
    panel = Panel(Scale(-reach, reach, 46, HALF - 10), count_scale(counts, 262, 40))
    panel.axes("predicted − true clearance [m]", "sectors, log scale", y_ticks=count_ticks(panel.y))
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            kind = "bar unsafe" if low > 0 else "bar"
            x, y = panel.x(low), panel.y(count)
            tip = f"{count} sectors between {low:.2f} and {high:.2f} m"
            panel.parts.append(svg.rectangle(x + 0.5, y, panel.x(high) - x - 1, panel.bottom - y, kind=kind, tip=tip))
    panel.parts.append(svg.line(panel.x(0), panel.top, panel.x(0), panel.bottom, kind="threshold"))
    panel.parts.append(svg.label(panel.left + 4, panel.top + 12, "sees less room than there is", kind="small"))
    panel.parts.append(svg.label(panel.right, panel.top + 12, "sees more: unsafe", anchor="end", kind="small"))
    notes = (
        [f"{outside} of {data.size} errors lie beyond the outermost bars, up to {np.abs(data).max():.3g} m."]
        if outside
        else []
    )
    description = f"Histogram of {data.size} clearance errors, median magnitude {np.median(np.abs(data)):.3g} m."
    return svg.document(HALF, 306, panel.parts, description=description), notes
