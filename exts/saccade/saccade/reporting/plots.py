"""The report's figures over time and value: one function each, from record data to an inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saccade.reporting import svg
from saccade.reporting.svg import Panel, Scale

WIDE = 1040.0
HALF = 510.0
MAX_BARS = 480
"""Decisions that the timeline draws one by one."""

TIMED = (
    ("sensed", "sense"),
    ("handed_over", "hand_over"),
    ("preprocessed", "preprocess"),
    ("inferred", "infer"),
    ("on_host", "to_host"),
    ("decided", "decide"),
)
"""The stamps up to the decision, and the stage that each of them ends."""

STAGE_NAMES = {
    "sense": "sense",
    "hand_over": "hand over",
    "preprocess": "preprocess",
    "infer": "infer",
    "to_host": "to host",
    "decide": "decide",
    "publish": "publish",
    "apply": "apply",
}

Frames = Sequence[Mapping[str, Any]]


def ticks_from_frames(frames: Frames) -> list[list[Mapping[str, Any]]]:
    """Returns the frames of each decision, in the order of the decisions."""
    found: dict[int, list[Mapping[str, Any]]] = {}
    for frame in frames:
        # What was not finite is null in the record, and a frame without its time has no place in a drawing.
        if frame.get("sim_time") is not None:
            found.setdefault(frame["tick"], []).append(frame)
    return [found[tick] for tick in sorted(found)]


def stage_shares(tick: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Splits one decision's time from state to decision among the stages.

    Every moment belongs to the stage that ended it, over all frames of the decision, so that the parts add up to the
    latency although frames of several sensors interleave.

    Returns:
        Milliseconds by stage and sensor; empty for a decision that was not made.
    """
    events = []
    for frame in tick:
        stamps = frame["stamps"]
        events += [
            (stamps[stamp], order, stage, frame["sensor"])
            for order, (stamp, stage) in enumerate(TIMED)
            if stamps.get(stamp) is not None
        ]
    starts = [frame["stamps"]["sim_state"] for frame in tick if frame["stamps"].get("sim_state") is not None]
    if not starts or not any(stage == "decide" for _, _, stage, _ in events):
        return {}
    shares: dict[tuple[str, str], float] = {}
    previous = min(starts)
    for stamp, _, stage, sensor in sorted(events):
        shares[stage, sensor] = shares.get((stage, sensor), 0.0) + (stamp - previous) * 1e-6
        previous = stamp
    return shares


def layers(frames: Frames) -> tuple[list[tuple[str, str, np.ndarray]], list[list[Mapping[str, Any]]]]:
    """Returns the timeline's layers from the bottom up, and the decisions they are of.

    Returns:
        Text, CSS colour and milliseconds per decision of each layer; inference is split by sensor up to four sensors.
    """
    ticks = [tick for tick in ticks_from_frames(frames) if tick[0].get("latency_ms") is not None]
    shares = [stage_shares(tick) for tick in ticks]
    sensors = list(dict.fromkeys(sensor for share in shares for stage, sensor in share if stage == "infer"))
    split = 1 < len(sensors) <= 4
    found: list[tuple[str, str, np.ndarray]] = []
    for _, stage in TIMED:
        groups: list[tuple[str, str, set[str] | None]] = [(STAGE_NAMES[stage], f"var(--stage-{stage})", None)]
        if stage == "infer" and split:
            groups = [
                (f"infer {svg.shorten(sensor, 22)}", f"var(--stage-infer-{index})", {sensor})
                for index, sensor in enumerate(sensors)
            ]
        elif stage == "infer":
            groups = [("infer", "var(--stage-infer-0)", None)]
        for text, colour, chosen in groups:
            values = np.array(
                [
                    sum(
                        value
                        for (part, sensor), value in share.items()
                        if part == stage and (chosen is None or sensor in chosen)
                    )
                    for share in shares
                ],
                float,
            )
            if values.size and values.max() > 0:
                found.append((text, colour, values))
    return found, ticks


def timeline(frames: Frames, *, deadline_ms: float | None) -> tuple[str, list[str]]:
    """Draws where each decision's time went, stage on stage, with the deadline.

    Returns:
        The SVG (empty without any decision), and notes on what was put together or cut.
    """
    stack, ticks = layers(frames)
    if not stack:
        return "", []
    notes = []
    totals = np.sum([values for _, _, values in stack], axis=0)
    chosen = np.arange(len(totals))
    if len(totals) > MAX_BARS:
        groups = np.array_split(chosen, MAX_BARS)
        chosen = np.array([group[totals[group].argmax()] for group in groups])
        size = len(groups[0])
        notes.append(f"{len(totals)} decisions: each bar is the slowest of up to {size} in a row.")
    top = float(totals.max())
    wanted = max((deadline_ms or 0.0) * 1.15, float(np.quantile(totals, 0.98)) * 1.35)
    if top > wanted:
        count = int((totals > wanted).sum())
        rises = f"{count} decision{'s rise' if count > 1 else ' rises'}"
        notes.append(f"{rises} above the chart (marked ▲), up to {top:.4g} ms.")
    high = min(max(top * 1.1, (deadline_ms or 0) * 1.15), wanted) if top > wanted else max(wanted, top * 1.05)
    entries = [("box", colour, f"{text} {np.median(values):.3g} ms") for text, colour, values in reversed(stack)]
    marks, base = svg.legend(entries, x=46, y=16, width=WIDE - 60)
    first, last = ticks[0][0]["tick"], ticks[-1][0]["tick"]
    panel = Panel(Scale(first, last + 1, 46, WIDE - 14), Scale(0, high, base + 290, base + 44))
    panel.parts += marks
    panel.axes("decision", "milliseconds from state to decision")
    warm = [tick[0]["tick"] for tick in ticks if tick[0]["phase"] == "warmup"]
    numbers = [ticks[index][0]["tick"] for index in chosen]
    edges = [panel.x(number) for number in numbers] + [panel.right]
    below = np.zeros(len(chosen))
    for _, colour, values in stack:
        above = below + values[chosen]
        outline = _steps(edges, [panel.y(value) for value in above])
        outline += reversed(_steps(edges, [panel.y(value) for value in below]))
        panel.parts.append(svg.path(outline, close=True, kind="layer", style=f"fill:{colour}"))
        below = above
    if warm:
        end = panel.x(warm[-1] + 1)
        panel.parts.append(
            svg.rectangle(panel.left, panel.top, end - panel.left, panel.bottom - panel.top, kind="warmup")
        )
        panel.parts.append(svg.label(end + 5, panel.top + 12, "◂ warm-up", kind="small"))
    for position, index in enumerate(chosen):
        if totals[index] > high:
            x = (edges[position] + edges[position + 1]) / 2
            tip = [(x - 4, panel.top - 1), (x + 4, panel.top - 1), (x, panel.top - 8)]
            panel.parts.append(svg.path(tip, close=True, kind="clipped"))
    if deadline_ms is not None:
        panel.deadline(deadline_ms, f"deadline {deadline_ms:g} ms")
    for position, index in enumerate(chosen):
        parts = ", ".join(f"{text} {values[index]:.2f}" for text, _, values in stack if values[index] >= 0.005)
        tip_text = f"decision {numbers[position]}: {totals[index]:.2f} ms ({parts})"
        width = edges[position + 1] - edges[position]
        height = panel.bottom - panel.top
        panel.parts.append(svg.rectangle(edges[position], panel.top, width, height, kind="hit", tip=tip_text))
    extremes = f"the median takes {np.median(totals):.3g} ms, the slowest {top:.4g} ms"
    description = f"Stacked stages of {len(totals)} decisions; {extremes}."
    return svg.document(WIDE, base + 334, panel.parts, description=description), notes


def age(frames: Frames, *, deadline_ms: float | None) -> tuple[str, list[str]]:
    """Draws how old the sensed state was when results were on the host, decided on and in effect.

    Returns:
        The SVG (empty without any stamp), and notes on what was put together.
    """
    frames = [frame for tick in ticks_from_frames(frames) for frame in tick]
    sensors = list(dict.fromkeys(frame["sensor"] for frame in frames))
    lines: list[tuple[str, str, str, np.ndarray, np.ndarray]] = []
    for index, sensor in enumerate(sensors[:4]):
        times, ages = _ages([frame for frame in frames if frame["sensor"] == sensor], "on_host")
        colour = f"var(--stage-infer-{index})"
        lines.append(("line", colour, f"on host, {svg.shorten(sensor, 22)}", times, ages))
    firsts = [tick[0] for tick in ticks_from_frames(frames)]
    lines.append(("line", "var(--ink)", "decided", *_ages(firsts, "decided")))
    lines.append(("dash", "var(--stage-to_host)", "in effect", *_ages(firsts, "applied")))
    lines = [entry for entry in lines if np.isfinite(entry[4]).any()]
    if not lines:
        return "", []
    every = np.concatenate([ages[np.isfinite(ages)] for *_, ages in lines])
    wanted = max((deadline_ms or 0.0) * 1.15, float(np.quantile(every, 0.99)) * 1.35)
    high = min(wanted, float(every.max()) * 1.15) if not deadline_ms else wanted
    notes = (
        [f"{int((every > high).sum())} of {every.size} values lie above the chart, up to {every.max():.4g} ms."]
        if every.max() > high
        else []
    )
    marks, base = svg.legend([entry[:3] for entry in lines], x=46, y=16, width=WIDE - 60)
    span = np.concatenate([times for _, _, _, times, _ in lines])
    panel = Panel(
        Scale(float(span.min()), max(float(span.max()), float(span.min()) + 1e-9), 46, WIDE - 14),
        Scale(0, high, base + 244, base + 44),
    )
    panel.parts += marks
    panel.axes("simulation time [s]", "age of the sensed state [ms]")
    binned = False
    for mark, colour, _, times, ages in lines:
        dash = ";stroke-dasharray:4 3" if mark == "dash" else ""
        binned |= panel.series(times, ages, style=f"stroke:{colour};fill:{colour}{dash}")
    if binned:
        notes.append("Lines are medians of neighbouring decisions, the bands reach from their least to their greatest.")
    if deadline_ms is not None:
        panel.deadline(deadline_ms, f"deadline {deadline_ms:g} ms")
    losses = [frame["sim_time"] for frame in frames if frame.get("dropped")]
    for moment in losses[:400]:
        panel.parts.append(svg.line(panel.x(moment), panel.bottom, panel.x(moment), panel.bottom - 9, kind="loss"))
    if losses:
        notes.append("Red marks on the axis: samples dropped before that frame.")
    description = f"Age of information over the run at {', '.join(entry[2] for entry in lines)}."
    return svg.document(WIDE, base + 288, panel.parts, description=description), notes


def histogram(values: Sequence[float], statistics: Mapping[str, Any] | None, *, deadline_ms: float | None) -> str:
    """Draws how often each latency occurred, counts on a log scale so that a single slow decision is seen."""
    data = np.asarray(values, float)
    if not data.size:
        return ""
    scale, ticks, outside = _value_scale(data, deadline_ms)
    edges = np.geomspace(scale.low, scale.high, 49) if scale.log else np.linspace(scale.low, scale.high, 49)
    counts, _ = np.histogram(data, edges)
    panel = Panel(scale, count_scale(counts, 262, 40))
    panel.axes(
        "latency [ms], log scale" if scale.log else "latency [ms]",
        "decisions, log scale",
        x_ticks=ticks,
        y_ticks=count_ticks(panel.y),
    )
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            x, y = panel.x(low), panel.y(count)
            tip = f"{count} decision{'s' if count > 1 else ''} between {low:.4g} and {high:.4g} ms"
            panel.parts.append(svg.rectangle(x + 0.5, y, panel.x(high) - x - 1, panel.bottom - y, kind="bar", tip=tip))
    for row, name in enumerate(("p50", "p95", "p99")):
        _mark_percentile(panel, statistics, name, row)
    _vertical_deadline(panel, deadline_ms, outside)
    description = f"Histogram of {data.size} latencies from {data.min():.3g} to {data.max():.4g} ms."
    return svg.document(HALF, 306, panel.parts, description=description)


def tail(values: Sequence[float], statistics: Mapping[str, Any] | None, *, deadline_ms: float | None) -> str:
    """Draws the share of decisions slower than each latency, log scale, with the percentiles and their intervals."""
    data = np.sort(np.asarray(values, float))
    if not data.size:
        return ""
    count = data.size
    scale, ticks, outside = _value_scale(data, deadline_ms)
    panel = Panel(scale, Scale(min(0.5 / count, 0.008), 1.0, 262, 40, log=True))
    shares = [
        (1.0, "100 %"),
        (0.5, "50 %"),
        (0.1, "10 %"),
        (0.05, "5 %"),
        (0.01, "1 %"),
        (0.001, "0.1 %"),
        (1e-4, "0.01 %"),
    ]
    shown = [(share, text) for share, text in shares if share >= panel.y.low]
    panel.axes(
        "latency [ms], log scale" if scale.log else "latency [ms]",
        "share of decisions slower, log scale",
        x_ticks=ticks,
        y_ticks=shown,
    )
    remaining = 1.0 - np.arange(1, count + 1) / count
    keep = np.unique(np.concatenate([np.arange(0, count, max(count // 400, 1)), np.arange(max(count - 300, 0), count)]))
    points = [(panel.x(data[0]), panel.y(1.0))]
    for index in keep:
        points += [
            (panel.x(data[index]), points[-1][1]),
            (panel.x(data[index]), panel.y(max(remaining[index], panel.y.low))),
        ]
    panel.parts.append(svg.path(points, kind="line", style="stroke:var(--accent);stroke-width:2"))
    for name, share in (("p50", 0.5), ("p95", 0.05), ("p99", 0.01)):
        entry = (statistics or {}).get(name) or {}
        y = panel.y(share)
        if entry.get("value") is None:
            if entry:
                panel.parts.append(
                    svg.label(panel.right, y - 5, f"{name} not supported by n = {count}", anchor="end", kind="small")
                )
            continue
        x = panel.x(entry["value"])
        if entry.get("low") is not None and entry.get("high") is not None:
            panel.parts.append(svg.line(panel.x(entry["low"]), y, panel.x(entry["high"]), y, kind="interval"))
        tip = f"{name} = {entry['value']:.4g} ms, 95 % interval {_interval(entry)} ms"
        panel.parts.append(svg.circle(x, y, 4.5, kind="marker", tip=tip))
        beside = x + 90 < panel.right
        panel.parts.append(
            svg.label(
                x + (9 if beside else -9),
                y - 7,
                f"{name} {entry['value']:.4g}",
                anchor="start" if beside else "end",
                kind="strong",
            )
        )
    _vertical_deadline(panel, deadline_ms, outside)
    description = f"Share of {count} decisions slower than a latency, with p50, p95 and p99 and their intervals."
    return svg.document(HALF, 306, panel.parts, description=description)


def bullet(budget: Mapping[str, Any]) -> str:
    """Draws one budget as a small bar: the allowed side, the limit, the value with its interval."""
    value, limit = budget.get("value"), budget.get("limit")
    low, high = budget.get("low"), budget.get("high")
    known = [number for number in (value, limit, low, high) if number is not None]
    if limit is None or not known:
        return ""
    top = max(max(known) * 1.12, limit * 1.35)
    if budget.get("comparison") == ">=" and max(known) <= 1.0 and budget.get("unit") in ("", None, "1"):
        top = 1.0
    scale = Scale(0.0, top or 1.0, 3, 177)
    edge = scale(limit)
    below = budget.get("comparison") == "<="
    parts = [svg.rectangle(3, 7, 174, 10, kind="track")]
    parts.append(svg.rectangle(3 if below else edge, 7, (edge - 3) if below else (177 - edge), 10, kind="allowed"))
    parts.append(svg.line(edge, 3, edge, 21, kind="limit"))
    outcome = {True: "passed", False: "failed"}.get(budget.get("passed"), "unjudged")  # type: ignore[arg-type]
    if value is not None:
        if low is not None and high is not None and high > low:
            parts.append(svg.line(scale(low), 12, scale(high), 12, kind=f"range {outcome}"))
        parts.append(svg.circle(scale(value), 12, 4.5, kind=f"value {outcome}"))
    words = "no value" if value is None else f"value {value:.4g}"
    bound = "at most" if below else "at least"
    return svg.document(180, 24, parts, description=f"{words}, {bound} {limit:.4g} allowed", kind="bullet")


def _steps(edges: Sequence[float], heights: Sequence[float]) -> list[tuple[float, float]]:
    points = []
    for index, height in enumerate(heights):
        points += [(edges[index], height), (edges[index + 1], height)]
    return points


def _ages(frames: Frames, stamp: str) -> tuple[np.ndarray, np.ndarray]:
    times = np.array([frame["sim_time"] for frame in frames], float)
    ages = [
        (frame["stamps"][stamp] - frame["stamps"]["sim_state"]) * 1e-6
        if frame["stamps"].get(stamp) is not None and frame["stamps"].get("sim_state") is not None
        else np.nan
        for frame in frames
    ]
    return times, np.array(ages, float)


def _value_scale(data: np.ndarray, deadline_ms: float | None) -> tuple[Scale, list[tuple[float, str]], bool]:
    """Scale for latencies, its ticks, and whether the deadline lies beyond it: far limits would squash the data."""
    low, high = float(data.min()), float(data.max())
    outside = deadline_ms is not None and deadline_ms > 2.5 * high
    if deadline_ms is not None and not outside:
        high = max(high, deadline_ms)
    low = max(low, high * 1e-5, 1e-6)
    log = high / low >= 8
    scale = (
        Scale(low / 1.1, high * 1.1, 46, HALF - 10, log=log)
        if log
        else Scale(max(low - 0.06 * (high - low), 0), high + 0.06 * (high - low) + 1e-6, 46, HALF - 10)
    )
    return scale, [(value, f"{value:g}") for value in scale.ticks(5)], outside


def count_scale(counts: np.ndarray, bottom: float, top: float) -> Scale:
    """Returns a log scale for counts on which a count of one is still seen."""
    return Scale(0.6, max(float(counts.max()) * 1.6, 10.0), bottom, top, log=True)


def count_ticks(scale: Scale) -> list[tuple[float, str]]:
    """Returns powers of ten for :func:`count_scale`."""
    return [(10.0**power, f"{10**power}") for power in range(8) if 10**power <= scale.high]


def _interval(entry: Mapping[str, Any]) -> str:
    low, high = entry.get("low"), entry.get("high")
    return "unknown" if low is None or high is None else f"{low:.4g} to {high:.4g}"


def _mark_percentile(panel: Panel, statistics: Mapping[str, Any] | None, name: str, row: int) -> None:
    entry = (statistics or {}).get(name) or {}
    if entry.get("value") is None:
        return
    x = panel.x(entry["value"])
    if entry.get("low") is not None and entry.get("high") is not None:
        left, right = panel.x(entry["low"]), panel.x(entry["high"])
        panel.parts.append(
            svg.rectangle(left, panel.top, max(right - left, 1), panel.bottom - panel.top, kind="interval-band")
        )
    panel.parts.append(svg.line(x, panel.top, x, panel.bottom, kind="percentile"))
    panel.parts.append(svg.label(x + 4, panel.top + 10 + 13 * row, name, kind="strong"))


def _vertical_deadline(panel: Panel, deadline_ms: float | None, outside: bool) -> None:
    if deadline_ms is None:
        return
    text = f"deadline {deadline_ms:g} ms"
    if outside:
        panel.parts.append(svg.label(panel.right, panel.top - 12, f"{text} →", anchor="end", kind="deadline-text"))
        return
    x = panel.x(deadline_ms)
    panel.parts.append(svg.line(x, panel.top, x, panel.bottom, kind="deadline"))
    # Above the axis title where the two would meet.
    anchor, y = ("end", panel.top - 12) if x > 300 else ("start", panel.top - 27)
    panel.parts.append(svg.label(x, y, text, anchor=anchor, kind="deadline-text"))
