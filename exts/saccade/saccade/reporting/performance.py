"""The report's performance section: what ran where, what crossed PCIe, and what the GPU did meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saccade.reporting import svg, wording
from saccade.reporting.figures import markup
from saccade.reporting.svg import Panel, Scale

__all__ = ["performance", "split"]

WIDTH = 510.0
"""Width of one chart [px], as half of the page."""
TIPS = 60
"""Stretches of a chart that say their values when hovered over."""

OLD = "The record does not say: the run did not finish, or it was recorded by a version that did not measure this."

SCOPES = {"frame": "the whole frame, sensors included", "buffers": "from the sensor buffers on"}

NODES = {"kernel": "kernels", "memcpy": "copies", "memset": "memory fills"}
"""Node types of a CUDA graph in words; the others keep their name."""

CHARTS: tuple[tuple[str, str, float, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "Utilisation",
        "percent of the time",
        1.0,
        (
            ("gpu_utilisation_percent", "GPU", "var(--stage-infer-0)"),
            ("memory_utilisation_percent", "memory", "var(--stage-to_host)"),
        ),
    ),
    (
        "GPU memory",
        "GiB in use",
        2.0**-30,
        (
            ("memory_used_bytes", "whole GPU", "var(--stage-infer-0)"),
            ("process_memory_bytes", "this process", "var(--stage-to_host)"),
        ),
    ),
    ("Power", "W", 1.0, (("power_w", "power", "var(--stage-infer-0)"),)),
    (
        "Clocks",
        "MHz",
        1.0,
        (
            ("sm_clock_mhz", "SM", "var(--stage-infer-0)"),
            ("memory_clock_mhz", "memory", "var(--stage-to_host)"),
        ),
    ),
    ("Temperature", "°C", 1.0, (("temperature_c", "temperature", "var(--stage-infer-0)"),)),
    ("CPU of this process", "percent of one core", 1.0, (("process_cpu_percent", "CPU", "var(--stage-infer-0)"),)),
)
"""The charts: title, unit, factor into that unit, and field, text and colour of each line."""

QUANTITIES = (
    ("gpu_utilisation_percent", "GPU busy", "%"),
    ("memory_utilisation_percent", "GPU memory busy", "%"),
    ("memory_used_bytes", "Memory in use, whole GPU", "bytes"),
    ("process_memory_bytes", "Memory in use, this process", "bytes"),
    ("power_w", "Power", "W"),
    ("sm_clock_mhz", "SM clock", "MHz"),
    ("memory_clock_mhz", "Memory clock", "MHz"),
    ("temperature_c", "Temperature", "°C"),
    ("process_cpu_percent", "CPU of this process, of one core", "%"),
)
"""Field, text and unit of the sampled quantities."""

OTHER_QUANTITIES = {"energy_j": "energy", "throttle_reasons": "throttling"}

PROFILE_QUANTITIES = {"gpu_ms": "GPU time", "gpu_memory_change_bytes": "change of GPU memory"}

REASONS = {
    "gpu_idle": "the GPU was idle",
    "application_clocks_setting": "clocks fixed by a setting",
    "sw_power_cap": "power limit",
    "hw_slowdown": "hardware slowdown",
    "sync_boost": "held level with other GPUs",
    "sw_thermal_slowdown": "temperature limit",
    "hw_thermal_slowdown": "hardware temperature limit",
    "hw_power_brake_slowdown": "external power brake",
    "display_clock_setting": "clocks fixed by a display",
}

UNTHROTTLED = {"gpu_idle", "application_clocks_setting", "display_clock_setting"}
"""Reasons for low clocks that nobody would call throttling: nothing to do, or asked for."""


def performance(run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the template shows of ``execution``, ``residency``, ``clock``, ``gpu``, ``engine``, ``profile``.

    Args:
        run: Content of ``run.json``, of any age: a part that it lacks is a sentence.
    """
    return {
        # Said once for all of them rather than under each heading.
        "old": "" if any(run.get(name) for name in ("execution", "residency", "clock", "gpu", "profile")) else OLD,
        "execution": _execution(_mapping(run.get("execution"))),
        "residency": _residency(_mapping(run.get("residency")), str(run.get("device") or "")),
        "clock": _clock(_mapping(run.get("clock")), _mapping(run.get("execution"))),
        "gpu": _gpu(_mapping(run.get("gpu")), _mapping(run.get("gpu_series"))),
        "engines": _engines(_mapping(run.get("engine"))),
        "profile": _profile(run.get("profile")),
    }


def split(value: Any, unit: str) -> tuple[str, str]:
    """Returns the rounded value and its unit, as :func:`wording.split`, with ``"bytes"`` in the largest binary unit."""
    if unit != "bytes" or isinstance(value, bool) or not isinstance(value, (int, float)):
        return wording.split(value, unit)
    size, index = float(value), 0
    names = ("B", "KiB", "MiB", "GiB", "TiB")
    while abs(size) >= 1024 and index + 1 < len(names):
        size, index = size / 1024, index + 1
    return (f"{size:.0f}" if not index else wording.number(size)), names[index]


def _execution(found: Mapping[str, Any]) -> dict[str, Any]:
    if not found:
        return {"lead": OLD, "rows": []}
    reason = _sentence(found.get("reason"))
    if found.get("mode") == "graph":
        lead = f"The frame ran as a CUDA graph, {SCOPES.get(str(found.get('scope')), 'captured once and replayed')}."
    else:
        lead = "The frame ran eagerly: every piece of work was launched from Python, one after the other."
    names = (
        ("graphs", "Graphs"),
        ("captures", "Captured"),
        ("recaptures", "Captured again"),
        ("replays", "Replayed"),
        ("copied_inputs", "Inputs copied into own buffers"),
        ("physics", "Physics"),
    )
    rows = [(name, text) for name, text in names if found.get(name) is not None]
    if found.get("mode") != "graph":
        rows = [row for row in rows if row[0] == "physics" and found["physics"] == "graph"]
    return {"lead": f"{lead} {reason}".strip(), "rows": rows}


def _residency(found: Mapping[str, Any], device: str) -> dict[str, Any]:
    if not found:
        return {"kind": "", "sentence": OLD, "graphs": [], "named": [], "types": []}
    graphs = [graph for graph in found.get("graphs") or [] if isinstance(graph, Mapping)]
    types = list(dict.fromkeys(name for graph in graphs for name in _mapping(graph.get("nodes"))))
    types.sort(key=lambda name: (name not in NODES, list(NODES).index(name) if name in NODES else 0, name))
    rows = [
        {
            "path": ("residency", "graphs", str(index)),
            "name": ", ".join(map(str, graph.get("sensors") or [])) or "–",
            "unknown": [str(entry) for entry in graph.get("unknown") or []],
        }
        for index, graph in enumerate(graphs)
    ]
    uploads, taps = _mapping(found.get("declared_uploads")), _mapping(found.get("taps"))
    writes = _mapping(found.get("kernel_writes"))
    named: list[tuple[str, str, tuple[str, ...], tuple[str, ...] | None, str]]
    named = [("declared upload", name, ("declared_uploads", name), None, "per set of frames") for name in uploads]
    named += [
        ("written by a kernel", name, ("kernel_writes", name), None, "one replay of each graph") for name in writes
    ]
    named += [("tap", name, ("taps", name, "bytes"), ("taps", name, "count"), "over the run") for name in taps]
    sentence, kind = _residency_sentence(found, graphs, uploads)
    if kind == "unproven" and not device.startswith("cuda"):
        kind = ""  # nothing to warn of: without a GPU nothing can cross to it
    return {
        "kind": kind,
        "sentence": sentence,
        "graphs": rows,
        "types": [(name, NODES.get(name, name)) for name in types],
        "named": named,
    }


def _residency_sentence(
    found: Mapping[str, Any], graphs: Sequence[Mapping[str, Any]], uploads: Mapping[str, Any]
) -> tuple[str, str]:
    if not found.get("proven"):
        return f"Not proven: {found.get('reason') or 'the record gives no reason'}.".replace("..", "."), "unproven"
    nodes = sum(sum(_mapping(graph.get("nodes")).values()) for graph in graphs)
    which = "the captured graph's" if len(graphs) == 1 else f"the {len(graphs)} captured graphs'"
    proof = f"proven from {which} {wording.number(nodes)} nodes."
    crossed = found.get("host_to_device_bytes")
    if crossed:
        size = wording.NARROW_SPACE.join(split(crossed, "bytes"))
        return f"{size} cross PCIe to the GPU with every set of frames, {proof} These streams do not stay on it.", "no"
    if uploads:
        several = "uploads" if len(uploads) > 1 else "upload"
        streams = f"Of the streams that are resident on the GPU, 0 bytes of pixels crossed PCIe, {proof}"
        return f"{streams} The declared {several} below come on top.", "proven"
    return f"0 bytes of pixels crossed PCIe on the inference path, {proof}", "proven"


def _clock(found: Mapping[str, Any], execution: Mapping[str, Any]) -> dict[str, Any]:
    if not found:
        eager = execution.get("mode") == "eager"
        return {"rows": [], "empty": "No other clock was mapped: all stamps are the host's own." if eager else OLD}
    rows = (
        (("source",), "Source", ""),
        (("tick_ns",), "Tick", "ns"),
        (("uncertainty_us", "mean"), "Uncertainty, mean", "µs"),
        (("uncertainty_us", "max"), "Uncertainty, largest", "µs"),
        (("pairs",), "Paired samples", ""),
        (("jumps",), "Jumps over 1 ms", ""),
        (("clamped",), "Stamps put in order", ""),
    )
    return {"rows": [row for row in rows if _at(found, row[0]) is not None], "empty": ""}


def _gpu(found: Mapping[str, Any], series: Mapping[str, Any]) -> dict[str, Any]:
    if not found:
        return {"charts": [], "rows": [], "empty": OLD, "absent": [], "lead": "", "throttling": "", "energy": False}
    limits = _mapping(found.get("device"))
    charts = []
    for title, unit, factor, lines in CHARTS:
        limit = limits.get("power_limit_w") if title == "Power" else None
        drawn = chart(series, title, unit, factor, lines, limit=limit)
        if drawn:
            charts.append({"title": title, "svg": markup(drawn)})
    rows = [(name, text, unit) for name, text, unit in QUANTITIES if isinstance(found.get(name), Mapping)]
    absent = _absent(_mapping(found.get("absent")))
    return {
        "lead": _gpu_lead(found, limits),
        "charts": charts,
        "rows": rows,
        "throttling": _throttling(found.get("throttle_reasons")),
        "energy": found.get("energy_j") is not None,
        "absent": absent,
        "empty": "" if rows or absent else OLD,
    }


def _gpu_lead(found: Mapping[str, Any], device: Mapping[str, Any]) -> str:
    samples, period = found.get("samples"), found.get("period_s")
    parts = []
    if device.get("name"):
        total = device.get("memory_total_bytes")
        with_memory = f" with {wording.NARROW_SPACE.join(split(total, 'bytes'))}" if isinstance(total, int) else ""
        parts.append(f"{device['name']}{with_memory}.")
    if samples and isinstance(period, (int, float)):
        parts.append(f"{wording.number(samples)} samples, one every {period:g} s, warm-up included.")
    if found.get("stopped"):
        parts.append(f"Incomplete: {_sentence(found['stopped'])}")
    return " ".join(parts)


def _throttling(reasons: Any) -> str:
    if not isinstance(reasons, Mapping):
        return ""
    held = {name: share for name, share in reasons.items() if name not in UNTHROTTLED and share}
    other = {name: share for name, share in reasons.items() if name in UNTHROTTLED and share}
    words = [
        ", ".join(f"{REASONS.get(name, name)} {_percent(share)}" for name, share in part.items())
        for part in (held, other)
    ]
    text = (
        f"Clocks were throttled, share of samples by reason: {words[0]}." if held else "Nothing throttled the clocks."
    )
    return text + (f" Not counted as throttling: {words[1]}." if other else "")


def _absent(reasons: Mapping[str, Any]) -> list[str]:
    """Returns one sentence per reason: what is missing for it."""
    texts = {name: f"{text[0].lower()}{text[1:]}" if text[1].islower() else text for name, text, _ in QUANTITIES}
    texts |= OTHER_QUANTITIES
    grouped: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        grouped.setdefault(str(reason), []).append(texts.get(name, str(name)))
    return [f"Not measured: {', '.join(names)}. {_sentence(reason)}" for reason, names in grouped.items()]


def _engines(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for network, entry in found.items():
        if not isinstance(entry, Mapping):
            continue
        qualification = _mapping(entry.get("qualification"))
        limits = _mapping(qualification.get("limits"))
        rows.append(
            {
                "network": network,
                # Before engines said it themselves, their name stood under another key.
                "name": "engine" if entry.get("engine") is not None else "name",
                "outputs": list(_mapping(qualification.get("relative_l2"))),
                "limits": {
                    name: _percent(limit) if name == "label_agreement" else wording.number(limit)
                    for name, limit in limits.items()
                },
                "agreement": qualification.get("label_agreement") is not None,
                "samples": qualification.get("samples") is not None,
                "qualified": qualification.get("passed"),
            }
        )
    return rows


def _profile(found: Any) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        return {"rows": [], "notes": [], "empty": OLD}
    if not found:
        empty = "No function of your own was measured: put saccade.telemetry.profiled's @profiled above one."
        return {"rows": [], "notes": [], "empty": empty}
    entries = {name: _mapping(entry) for name, entry in found.items()}
    notes = [
        f"{name}: no {PROFILE_QUANTITIES.get(quantity, quantity)} for {reason}"
        for name, entry in entries.items()
        for quantity, reason in _mapping(entry.get("absent")).items()
    ]
    columns = [
        (path, text, unit)
        for path, text, unit in (
            (("gpu_ms", "mean"), "GPU mean [ms]", ""),
            (("gpu_ms", "p95"), "GPU p95 [ms]", ""),
            (("gpu_memory_change_bytes", "max"), "Most GPU memory taken", "bytes"),
        )
        if any(entry.get(path[0]) for entry in entries.values())
    ]
    return {"rows": list(entries), "columns": columns, "notes": notes, "empty": ""}


def chart(
    series: Mapping[str, Any],
    title: str,
    unit: str,
    factor: float,
    lines: Sequence[tuple[str, str, str]],
    *,
    limit: float | None = None,
) -> str:
    """Draws one quantity over the run; a gap in the series is a gap in the line.

    Args:
        series: ``gpu_series``: ``t_s`` and lists of equal length by field.
        title: What is drawn.
        unit: Unit of the vertical axis.
        factor: From the field's unit into that one.
        lines: Field, text and CSS colour of each line.
        limit: A limit to draw, in the axis's unit.

    Returns:
        The SVG; empty where the series holds none of the fields.
    """
    times = np.array(series.get("t_s") or [], float)
    drawn = []
    for name, text, colour in lines:
        values = np.array([np.nan if value is None else value for value in series.get(name) or []], float) * factor
        if len(values) == len(times) and np.isfinite(values).any():
            drawn.append((text, colour, values))
    if not drawn:
        return ""
    every = np.concatenate([values[np.isfinite(values)] for *_, values in drawn])
    low, high = _bounds(every, unit, limit)
    end = float(times[-1])
    panel = Panel(Scale(0.0, end if end > 0 else 1.0, 46, WIDTH - 10), Scale(low, high, 190, 54))
    entries = [("line", colour, text) for text, colour, _ in drawn]
    marks, _ = svg.legend(entries, x=12, y=14, width=WIDTH - 24)
    panel.parts += marks
    panel.axes("seconds since the start", unit, y_ticks=[(value, f"{value:g}") for value in panel.y.ticks(4)])
    for _, colour, values in drawn:
        for part in _unbroken(values):
            style = f"stroke:{colour}"
            if len(part) == 1:
                centre = panel.x(times[part[0]]), panel.y(values[part[0]])
                panel.parts.append(svg.circle(*centre, 1.5, style=f"fill:{colour}"))
            else:
                panel.series(times[part], values[part], style=style, bins=len(times))
    if limit is not None and limit <= high:
        panel.deadline(limit, f"limit {limit:g} {unit}")
    panel.parts += _tips(panel, times, drawn)
    extremes = "; ".join(f"{text} from {_short(np.nanmin(v))} to {_short(np.nanmax(v))}" for text, _, v in drawn)
    return svg.document(WIDTH, 232, panel.parts, description=f"{title} over the run [{unit}]: {extremes}.")


def _bounds(values: np.ndarray, unit: str, limit: float | None) -> tuple[float, float]:
    """Ends of the vertical axis: from 0 where 0 means none, and up to a limit that is near."""
    least, most = float(values.min()), float(values.max())
    if unit == "°C":
        return max(np.floor(least - 3), 0.0), np.ceil(most + 3)
    if unit == "percent of the time":
        return 0.0, 105.0
    if limit is not None and limit <= 2.5 * most:
        most = max(most, limit)
    return 0.0, most * 1.15 if most > 1e-9 else 1.0


def _unbroken(values: np.ndarray) -> list[np.ndarray]:
    """Returns the indices of each stretch without a gap."""
    known = np.flatnonzero(np.isfinite(values))
    return [part for part in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1) if len(part)]


def _tips(panel: Panel, times: np.ndarray, drawn: Sequence[tuple[str, str, np.ndarray]]) -> list[str]:
    parts = []
    for group in np.array_split(np.arange(len(times)), min(len(times), TIPS)):
        found = [(text, values[group]) for text, _, values in drawn if np.isfinite(values[group]).any()]
        words = ", ".join(f"{text} {_short(float(np.nanmean(part)))}" for text, part in found) or "not measured"
        left, right = panel.x(times[group[0]]), panel.x(times[min(group[-1] + 1, len(times) - 1)])
        tip = f"at {_short(float(times[group].mean()))} s: {words}"
        box = (left, panel.top, right - left, panel.bottom - panel.top)
        parts.append(svg.rectangle(*box, kind="hit", tip=tip))
    return parts


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _at(found: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = found
    for part in path:
        value = _mapping(value).get(part)
    return value


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _percent(share: Any) -> str:
    return wording.joined(share, "share") if isinstance(share, (int, float)) else str(share)


def _sentence(text: Any) -> str:
    """A reason of the record as a sentence; nothing for nothing."""
    words = str(text or "").strip()
    if not words:
        return ""
    words = words[:1].upper() + words[1:]
    return words if words.endswith((".", "!", "?")) else f"{words}."
