"""The report's figures in space: LiDAR from above and the walked path on the floor plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from saccade.frame import CLASSES, FLOOR, SECTOR_COUNT
from saccade.reporting import svg
from saccade.reporting.plots import WIDE, Frames, ticks_from_frames

Place = Callable[[Sequence[float]], tuple[float, float]]
"""From metres in the world to pixels on the plan."""

BIRDS_EYE = 420.0
MAX_CELLS = 5000
CORRIDOR = (1.5, 0.8)
"""Length and width of the walking corridor in which anything but floor is a hazard [m]."""
SPEEDS = 6
"""Steps of the colour ramp for walking speed."""


def lidar_from_above(entry: Mapping[str, np.ndarray]) -> tuple[str, list[str]]:
    """Draws one LiDAR sample from above: predicted labels, wrong ones ringed, predicted and true clearance.

    Args:
        entry: ``points`` and what else there is of ``predicted``, ``truth``, ``clearance``, ``clearance_truth``, as
            in :class:`saccade.reporting.samples.Sample`.

    Returns:
        The SVG (empty without points), and notes on what it leaves out.
    """
    points = np.asarray(entry.get("points", np.zeros((0, 3))), float).reshape(-1, 3)
    hit = np.isfinite(points).all(axis=1) & (np.abs(points).max(axis=1, initial=0) > 0)
    if not hit.any():
        return "", []
    distance = np.hypot(points[:, 0], points[:, 1])
    reach = float(np.clip(math.ceil(np.quantile(distance[hit], 0.97)), 5, 16))
    shown = hit & (distance <= reach * 1.02)
    labels = _labels(entry.get("predicted"), len(points))
    truth = _labels(entry.get("truth"), len(points))
    middle, scale = BIRDS_EYE / 2, (BIRDS_EYE / 2 - 14) / reach
    # Base frame x forward, y left: forward is up on the page.
    xs, ys = middle - points[:, 1] * scale, middle - points[:, 0] * scale
    parts = [svg.circle(middle, middle, reach * scale, kind="disc")]
    for ring in svg.linear_ticks(0, reach, 3)[1:]:
        parts.append(svg.circle(middle, middle, ring * scale, kind="ring"))
        parts.append(svg.label(middle + 3, middle + ring * scale - 4, f"{ring:g} m", kind="small"))
    parts.append(_sectors(entry.get("clearance"), middle, scale, reach, kind="clearance"))
    size = 2.4
    for known in (*range(len(CLASSES)), None):
        # Floor first: what stands on it must not be hidden under it.
        chosen = shown & ((labels == known) if known is not None else (labels >= len(CLASSES)))
        cells = _cells(xs[chosen], ys[chosen], size)
        if len(cells):
            name = CLASSES[known] if known is not None else "unknown"
            kind = "points floor" if known == FLOOR else "points"
            parts.append(f'<path class="{kind}" style="stroke:var(--class-{name})" d="{_dots(cells)}"/>')
    notes = []
    if entry.get("truth") is not None and entry.get("predicted") is not None:
        scored = hit & (truth < len(CLASSES))
        wrong = scored & (labels != truth)
        cells = _cells(xs[wrong & shown], ys[wrong & shown], 4.0)
        if len(cells):
            parts.append(f'<path class="points wrong" d="{_dots(cells)}"/>')
        if scored.any():
            right = 1 - wrong.sum() / scored.sum()
            notes.append(f"{right * 100:.1f} % of {int(scored.sum())} returns labelled as the truth has them.")
    parts.append(_sectors(entry.get("clearance_truth"), middle, scale, reach, kind="clearance-truth"))
    length, width = CORRIDOR[0] * scale, CORRIDOR[1] * scale
    parts.append(svg.rectangle(middle - width / 2, middle - length, width, length, kind="corridor"))
    parts.append(
        svg.path([(middle, middle - 9), (middle - 6, middle + 7), (middle + 6, middle + 7)], close=True, kind="robot")
    )
    beyond = int((hit & ~shown).sum())
    if beyond:
        notes.append(f"{beyond} returns lie beyond the {reach:g} m shown.")
    description = f"LiDAR from above, {int(hit.sum())} returns within {distance[hit].max():.3g} m, forward is up."
    return svg.document(BIRDS_EYE, BIRDS_EYE, parts, description=description, kind="figure birds-eye"), notes


def walked_path(
    frames: Frames, plan: Mapping[str, Any] | None, *, sample_ticks: Sequence[int] = ()
) -> tuple[str, list[str]]:
    """Draws the walk on the floor plan: path coloured by speed, contacts, route, footprints and movers.

    Args:
        frames: Frames of the record.
        plan: ``simulator.floor_plan`` of ``run.json``; any part may be missing.
        sample_ticks: Decisions whose place is numbered from 1, those of the sample frames.

    Returns:
        The SVG (empty without poses), and notes.
    """
    plan = plan or {}
    firsts = [tick[0] for tick in ticks_from_frames(frames) if tick[0].get("pose") and None not in tick[0]["pose"]]
    poses = np.array([frame["pose"] for frame in firsts], float).reshape(-1, 3)
    times = np.array([frame["sim_time"] for frame in firsts], float)
    route = _polyline(plan.get("route"))
    if not len(poses):
        return "", []
    low, high = _extent(plan.get("bounds"), [poses[:, :2], route])
    size = high - low
    # Tall plans are turned, so that the long side lies along the page; the axes' arrows say so.
    turned = size[1] > size[0] * 1.15
    across, along = (size[1], size[0]) if turned else (size[0], size[1])
    scale = min((WIDE - 20) / across, 560 / along)
    width, height = across * scale + 20, along * scale + 20

    def place(point: Sequence[float]) -> tuple[float, float]:
        if turned:
            return 10 + (point[1] - low[1]) * scale, 10 + (point[0] - low[0]) * scale
        return 10 + (point[0] - low[0]) * scale, 10 + (high[1] - point[1]) * scale

    parts = [svg.rectangle(10, 10, width - 20, height - 20, kind="ground")]
    names: list[str] = []
    parts += _footprints(plan.get("footprints"), place, names)
    if len(route) > 1:
        parts.append(svg.path([place(point) for point in route], kind="route"))
    for point in route:
        parts.append(svg.circle(*place(point), 3, kind="waypoint"))
    parts += _movers(plan.get("movers"), place)
    speeds, top = _speeds(poses, times)
    for step in range(SPEEDS):
        for run in _runs(speeds, step, top):
            parts.append(
                svg.path(
                    [place(poses[index].tolist()) for index in run], kind="walk", style=f"stroke:var(--speed-{step})"
                )
            )
    parts.append(svg.circle(*place(poses[0]), 6, kind="start", tip="start"))
    parts.append(_heading(place, poses[-1].tolist()))
    by_tick = {frame["tick"]: index for index, frame in enumerate(firsts)}
    for number, tick in enumerate(sample_ticks, 1):
        if tick in by_tick:
            x, y = place(poses[by_tick[tick]])
            parts.append(svg.circle(x, y, 8, kind="stop", tip=f"sample {number}, decision {tick}"))
            parts.append(svg.label(x, y + 3.7, str(number), anchor="middle", kind="stop-text"))
    contacts = [contact for frame in frames for contact in frame.get("contacts") or []]
    contacts = [contact for contact in contacts if contact.get("sim_time") is not None]
    for contact in contacts[:200]:
        index = int(np.clip(np.searchsorted(times, contact["sim_time"]), 0, len(times) - 1))
        x, y = place(poses[index])
        tip = f"contact at {contact['sim_time']:.2f} s: {contact['body']} with {contact['other']}"
        cross = f"M{x - 6:.1f},{y - 6:.1f}l12,12M{x + 6:.1f},{y - 6:.1f}l-12,12"
        parts.append(f'<path class="contact" d="{cross}"><title>{svg.escape(tip)}</title></path>')
    bar = _round_length(across / 6)
    base = height + 22
    parts += [
        svg.line(10, base - 4, 10 + bar * scale, base - 4, kind="scale"),
        svg.label(16 + bar * scale, base, f"{bar:g} m"),
    ]
    entries = (
        [("dot", "var(--ink)", "start"), ("ring", "var(--accent)", "sample frame")]
        if sample_ticks
        else [("dot", "var(--ink)", "start")]
    )
    if len(route):
        entries.append(("dash", "var(--muted)", "route"))
    entries += [("box", f"var(--class-{name})", name) for name in CLASSES if name in names]
    if plan.get("movers"):
        entries.append(("ring", "var(--muted)", "mover's start and path"))
    entries.append(("line", "var(--fail)", f"contact ({len(contacts)})"))
    marks, last = svg.legend(entries, x=max(bar * scale + 90, 120), y=base, width=max(width, 640) - bar * scale - 110)
    parts += marks
    ramp = last + 24
    parts.append(svg.label(10, ramp, "speed 0"))
    for step in range(SPEEDS):
        parts.append(svg.rectangle(64 + 26 * step, ramp - 9, 26, 10, style=f"fill:var(--speed-{step})"))
    parts.append(svg.label(70 + 26 * SPEEDS, ramp, f"{top:.2g} m/s"))
    note = ["The plan is turned by 90°: +y points right, +x down."] if turned else []
    walked = float(np.hypot(*np.diff(poses[:, :2], axis=0).T).sum()) if len(poses) > 1 else 0.0
    description = f"Floor plan with a walk of {walked:.1f} m and {len(contacts)} contacts."
    return svg.document(max(width, 640), ramp + 10, parts, description=description), note


def _labels(values: np.ndarray | None, count: int) -> np.ndarray:
    if values is None or np.asarray(values).size != count:
        return np.full(count, 255, np.int64)
    return np.asarray(values).reshape(-1).astype(np.int64)


def _cells(xs: np.ndarray, ys: np.ndarray, size: float) -> np.ndarray:
    """Returns the occupied cells of a grid: returns that fall on one dot are drawn once."""
    if not len(xs):
        return np.zeros((0, 2), np.int64)
    cells = np.unique(np.round(np.stack([xs, ys], axis=1) / size).astype(np.int64), axis=0)
    while len(cells) > MAX_CELLS:
        size *= 1.25
        cells = np.unique(np.round(np.stack([xs, ys], axis=1) / size).astype(np.int64), axis=0)
    return np.round(cells * size, 1)


def _dots(cells: np.ndarray) -> str:
    # A line of no length with round ends is a dot: the shortest SVG there is for thousands of them.
    return "".join(f"M{svg.coordinate(x)} {svg.coordinate(y)}h0" for x, y in cells.tolist())


def _sectors(values: Any, middle: float, scale: float, reach: float, *, kind: str) -> str:
    if values is None or np.asarray(values).size != SECTOR_COUNT:
        return ""
    pieces = []
    half = math.pi / SECTOR_COUNT
    for index, value in enumerate(np.asarray(values, float).reshape(-1).tolist()):
        if not math.isfinite(value):
            continue
        radius = min(max(value, 0.0), reach) * scale
        ends = []
        for angle in (2 * half * index - half, 2 * half * index + half):
            ends.append((middle - radius * math.sin(angle), middle - radius * math.cos(angle)))
        (x1, y1), (x2, y2) = ends
        arc = f"{x1:.1f},{y1:.1f}A{radius:.1f},{radius:.1f} 0 0 0 {x2:.1f},{y2:.1f}"
        pieces.append(f"M{middle:g},{middle:g}L{arc}Z" if kind == "clearance" else f"M{arc}")
    return f'<path class="{kind}" d="{"".join(pieces)}"/>'


def _extent(bounds: Any, clouds: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    points = np.concatenate([cloud for cloud in clouds if len(cloud)])
    low, high = points.min(axis=0) - 1.0, points.max(axis=0) + 1.0
    if isinstance(bounds, Sequence) and len(bounds) == 4:
        low, high = np.minimum(low + 1.0, bounds[:2]), np.maximum(high - 1.0, bounds[2:])
    return low, np.maximum(high, low + 2.0)


def _polyline(value: Any) -> np.ndarray:
    if not isinstance(value, Sequence) or not value:
        return np.zeros((0, 2))
    return np.array([point[:2] for point in value], float)


def _footprints(footprints: Any, place: Place, names: list[str]) -> list[str]:
    parts: list[str] = []
    texts: dict[str, tuple[float, float, float, str]] = {}
    for footprint in footprints or []:
        polygon = footprint.get("polygon") or []
        name = footprint.get("class", "structure")
        if len(polygon) < 3 or name == "floor":
            continue
        names.append(name)
        said = str(footprint.get("label") or footprint.get("name") or name)
        outline = [place(point) for point in polygon]
        colour = f"var(--class-{name})" if name in CLASSES else "var(--muted)"
        parts.append(svg.path(outline, close=True, kind="footprint", style=f"fill:{colour}", tip=said))
        short = svg.shorten(said.rstrip("/").rsplit("/", maxsplit=1)[-1], 20)
        xs, ys = [x for x, _ in outline], [y for _, y in outline]
        width, height = max(xs) - min(xs), max(ys) - min(ys)
        if short != name and width > svg.CHARACTER_WIDTH * len(short) and height > 13:
            # A rack of fifty shapes is named once, where there is most room.
            x, y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
            text = svg.label(x, y + 4, short, anchor="middle", kind="on-map")
            texts[said] = max(texts.get(said, (0.0, x, y, "")), (width * height, x, y, text))
    placed: list[tuple[float, float, str]] = []
    for _, x, y, text in sorted(texts.values(), reverse=True):
        if all(abs(x - other_x) > 60 or abs(y - other_y) > 13 for other_x, other_y, _ in placed):
            placed.append((x, y, text))
    return [*parts, *(text for _, _, text in placed)]


def _movers(movers: Any, place: Place) -> list[str]:
    parts = []
    for mover in movers or []:
        if not isinstance(mover, Mapping):
            continue
        colour = f"var(--class-{mover['class']})" if mover.get("class") in CLASSES else "var(--class-person)"
        track = _polyline(mover.get("path") or mover.get("route"))
        start = mover.get("start") or mover.get("position") or (track[0].tolist() if len(track) else None)
        if len(track) > 1:
            parts.append(svg.path([place(point) for point in track], kind="mover-path", style=f"stroke:{colour}"))
        if start is not None:
            said = str(mover.get("label") or mover.get("name") or mover.get("class") or "mover")
            parts.append(svg.circle(*place(start), 6, kind="mover", style=f"stroke:{colour}", tip=f"{said}: start"))
    return parts


def _speeds(poses: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, float]:
    if len(poses) < 2:
        return np.zeros(0), 1.0
    steps = np.hypot(*np.diff(poses[:, :2], axis=0).T)
    speeds = steps / np.maximum(np.diff(times), 1e-6)
    return speeds, max(float(np.quantile(speeds, 0.99)), 0.1)


def _runs(speeds: np.ndarray, step: int, top: float) -> list[list[int]]:
    """Returns runs of pose indices whose segments fall into one step of the ramp; long ones are thinned."""
    steps = np.minimum((speeds / top * SPEEDS + 1e-6).astype(int), SPEEDS - 1)
    found: list[list[int]] = []
    for index in np.nonzero(steps == step)[0].tolist():
        if found and found[-1][-1] == index:
            found[-1].append(index + 1)
        else:
            found.append([index, index + 1])
    every = max(len(speeds) // 4000, 1)
    return [[*run[:-1:every], run[-1]] for run in found]


def _heading(place: Place, pose: Sequence[float]) -> str:
    x, y = place(pose)
    ahead = place((pose[0] + math.cos(pose[2]), pose[1] + math.sin(pose[2])))
    angle = math.degrees(math.atan2(ahead[1] - y, ahead[0] - x))
    turn = f"translate({x:.1f} {y:.1f}) rotate({angle:.0f})"
    return f'<path class="robot" transform="{turn}" d="M9,0L-6,-6L-6,6Z"><title>end</title></path>'


def _round_length(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(max(value, 1e-3)))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= value * 1.001)
