"""Chooses and captions the report's figures: what is drawn of a run, and what is said where nothing can be."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saccade.frame import CLASSES
from saccade.reporting import accuracy as scores
from saccade.reporting import maps, plots
from saccade.reporting.samples import Sample
from saccade.telemetry.record import Record

PALETTE = (
    (143, 168, 147),
    (91, 107, 127),
    (224, 138, 30),
    (194, 24, 91),
    (43, 123, 186),
    (233, 236, 239),
)
"""Colours of the classes in pictures; the page's ``--class-*`` are the same."""
UNKNOWN = (60, 60, 60)
WRONG = (230, 57, 20)
PICTURE_WIDTH = 288
"""Width to which camera pictures are reduced [px]."""
PICTURE_BYTES = 1_900_000
"""All pictures together; samples beyond are left out, and the report says so."""


def markup(text: str) -> Any:
    """Marks text of :mod:`saccade.reporting.svg`, which escapes what it is given, as ready for the page."""
    from markupsafe import Markup

    return Markup(text)


def charts(run: Mapping[str, Any], record: Record) -> dict[str, Any]:
    """Returns the latency figures with their captions."""
    frames = record.frames
    deadline = run.get("deadline_ms") or record.header.get("deadline_ms")
    judged = [tick[0] for tick in plots.ticks_from_frames(frames) if tick[0]["phase"] == "judged"]
    latencies = [frame["latency_ms"] for frame in judged if frame.get("latency_ms") is not None]
    timeline, timeline_notes = plots.timeline(frames, deadline_ms=deadline)
    age, age_notes = plots.age(frames, deadline_ms=deadline)
    statistics = run.get("latency_ms") or {}
    return {
        "timeline": markup(timeline),
        "timeline_notes": timeline_notes,
        "lead": _largest_stage(frames),
        "age": markup(age),
        "age_notes": age_notes,
        "histogram": markup(plots.histogram(latencies, statistics, deadline_ms=deadline)),
        "tail": markup(plots.tail(latencies, statistics, deadline_ms=deadline)),
        "count": len(latencies),
    }


def accuracy(run: Mapping[str, Any], record: Record) -> dict[str, Any]:
    """Returns the accuracy figures with their captions."""
    judged = [frame for frame in record.frames if frame["phase"] == "judged"]
    found = run.get("accuracy") or {}
    header = record.header.get("networks") or {}
    sensors = (run.get("configuration") or {}).get("sensors") or {}
    bars = [
        {"name": name, "kind": entry.get("sensor_kind"), "svg": markup(scores.iou_bars(entry)), "entry": entry}
        for name, entry in (found.get("networks") or {}).items()
        if any(value is not None for value in _values(entry.get("iou")))
    ]
    hazards, clearances = [], []
    names = dict.fromkeys([*header, *(name for frame in judged for name in frame.get("results") or {})])
    for name in names:
        entry = header.get(name) or {}
        threshold = entry.get("hazard_threshold") or 0.5
        drawn, notes = scores.hazard(judged, name, threshold=threshold)
        if drawn:
            hazards.append({"name": name, "svg": markup(drawn), "notes": notes})
        places = ((record.header.get("sensors") or {}), sensors)
        caps = [(place.get(entry.get("sensor")) or {}).get("range_max") for place in places]
        cap = next((limit for limit in caps if limit), float("inf"))
        drawn, notes = scores.clearance_errors(judged, name, cap=cap)
        if drawn:
            clearances.append({"name": name, "svg": markup(drawn), "notes": notes})
    hazard = found.get("hazard") or {}
    table = hazard if any(hazard.get(key) for key in ("tp", "fp", "tn", "fn")) else None
    truth = any(frame.get("truth") for frame in judged)
    return {"bars": bars, "hazards": hazards, "clearances": clearances, "hazard": table, "truth": truth}


def pictures(run: Mapping[str, Any], samples: Sequence[Sample]) -> dict[str, Any]:
    """Returns the sample frames as pictures, and what was left out for the page's size."""
    cards: list[dict[str, Any]] = []
    left, omitted = PICTURE_BYTES, 0
    for number, sample in enumerate(samples, 1):
        cameras = [_camera(name, entry) for name, entry in sample.cameras.items() if "color" in entry]
        lidars = []
        for name, entry in sample.lidars.items():
            drawn, notes = maps.lidar_from_above(entry)
            if drawn:
                lidars.append({"name": name, "svg": markup(drawn), "notes": notes})
        size = sum(len(panel["source"]) for camera in cameras for panel in camera["panels"])
        size += sum(len(lidar["svg"]) for lidar in lidars)
        if size > left:
            omitted += 1
            continue
        left -= size
        cards.append(
            {
                "number": number,
                "tick": sample.tick,
                "time": f"{sample.sim_time:.2f}",
                "cameras": cameras,
                "lidars": lidars,
            }
        )
    classes = [(name, f"var(--class-{name})") for name in CLASSES]
    return {"cards": cards, "omitted": omitted, "classes": classes}


def walk(run: Mapping[str, Any], record: Record, samples: Sequence[Sample]) -> dict[str, Any]:
    """Returns the walked path with its caption."""
    plan = (run.get("simulator") or {}).get("floor_plan")
    drawn, notes = maps.walked_path(record.frames, plan, sample_ticks=[sample.tick for sample in samples])
    contacts = [contact for frame in record.frames for contact in frame.get("contacts") or []]
    return {"svg": markup(drawn), "notes": notes, "contacts": contacts[:50], "contact_count": len(contacts)}


def _values(iou: Any) -> list[Any]:
    return list(iou.values()) if isinstance(iou, Mapping) else list(iou or [])


def _largest_stage(frames: plots.Frames) -> str:
    stack, _ticks = plots.layers([frame for frame in frames if frame["phase"] == "judged"])
    total = sum(float(values.sum()) for _, _, values in stack)
    if not total:
        return ""
    text, _, values = max(stack, key=lambda layer: layer[2].sum())
    return f"Most of it goes to “{text}”: {values.sum() / total * 100:.0f}\u202f% of the judged decisions' time."


def _camera(name: str, entry: Mapping[str, np.ndarray]) -> dict[str, Any]:
    from PIL import Image

    color = np.ascontiguousarray(np.asarray(entry["color"], np.uint8)[..., :3])
    height, width = color.shape[:2]
    size = (min(width, PICTURE_WIDTH), max(round(height * min(width, PICTURE_WIDTH) / width), 1))
    reduced = Image.fromarray(color).resize(size, Image.Resampling.BOX)
    panels = [_panel("camera", reduced, "Camera picture")]
    labels: dict[str, np.ndarray] = {}
    for key, text in (("predicted", "predicted labels"), ("truth", "true labels")):
        if entry.get(key) is None or np.asarray(entry[key]).ndim != 2:
            continue
        image = Image.fromarray(np.asarray(entry[key], np.uint8)).resize(size, Image.Resampling.NEAREST)
        labels[key] = np.asarray(image)
        present = [CLASSES[index] for index in np.unique(labels[key]) if index < len(CLASSES)]
        panels.append(_panel(text, _painted(labels[key]), f"{text.capitalize()}: {', '.join(present)}"))
    agreement = None
    if len(labels) == 2:
        scored = labels["truth"] < len(CLASSES)
        wrong = scored & (labels["truth"] != labels["predicted"])
        agreement = 1 - float(wrong.sum()) / max(int(scored.sum()), 1)
        grey = np.asarray(reduced.convert("L"), np.float32) * 0.35 + 130
        mixed = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        mixed[wrong] = WRONG
        said = f"{(1 - agreement) * 100:.1f} % of the pixels are labelled otherwise than the truth has them"
        panels.append(_panel(f"disagreement {(1 - agreement) * 100:.1f} %", Image.fromarray(mixed), said))
    return {"name": name, "panels": panels, "hazard": _hazard_words(entry), "ratio": f"{size[0]} / {size[1]}"}


def _hazard_words(entry: Mapping[str, np.ndarray]) -> str:
    if entry.get("hazard") is None:
        return ""
    truth = int(entry["hazard_truth"]) if entry.get("hazard_truth") is not None else -1
    words = {0: "truth: free", 1: "truth: hazard"}.get(truth, "truth unknown")
    return f"hazard {float(entry['hazard']):.2f}, {words}"


def _painted(labels: np.ndarray) -> Any:
    from PIL import Image

    indices = np.where(labels < len(CLASSES), labels, len(CLASSES)).astype(np.uint8)
    painted = Image.fromarray(indices)
    painted.putpalette([channel for colour in (*PALETTE, UNKNOWN) for channel in colour])
    return painted


def _panel(text: str, image: Any, description: str) -> dict[str, str]:
    stream = io.BytesIO()
    if image.mode == "P":
        image.save(stream, format="PNG", optimize=True)
        kind = "png"
    else:
        image.save(stream, format="JPEG", quality=86, subsampling=0)
        kind = "jpeg"
    source = f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
    return {"text": text, "source": source, "description": description}
