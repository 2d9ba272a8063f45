"""From the record of a run to its summary, and to the files that say how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.config import Budgets
from saccade.frame import CLASSES
from saccade.telemetry.host import peak_rss_mb
from saccade.telemetry.record import Record, read_frames
from saccade.telemetry.recorder import finite, write_atomic
from saccade.telemetry.statistics import auroc, describe, proportion
from saccade.validation.accuracy import clearance_errors, mean_iou, pooled_iou
from saccade.validation.budget import judge_budgets
from saccade.validation.verdict import clock_problems, judge, record_problems

STAGE_NAMES = ("sense", "hand_over", "preprocess", "infer", "to_host", "decide", "publish", "apply")
_STAGE_ENDS = ("sensed", "handed_over", "preprocessed", "inferred", "on_host", "decided", "published", "applied")

Frames = Sequence[Mapping[str, Any]]


def finish_run(directory: Path | str, budgets: Budgets, run_document: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the record, judges it, and writes ``run.json``, ``metrics.json`` and ``junit.xml``: whole or not at all.

    Args:
        directory: The run's folder.
        budgets: The limits.
        run_document: What the record does not hold: configuration, sources, versions, host, hashes, engine,
            simulator, seed, device, recorder, times.

    Returns:
        The content of ``run.json``.

    Raises:
        RecordError: The record cannot be read at all, or the folder cannot be written.
    """
    from saccade.reporting.isaac_metrics import metrics_document
    from saccade.reporting.junit import junit_document

    directory = Path(directory)
    summary = summarise(read_frames(directory), budgets, run=run_document)
    host = {**run_document.get("host", {}), "peak_rss_mb": peak_rss_mb()}
    document = finite({**run_document, "host": host, **summary, "schema": 1, "state": "finished"})
    document.setdefault("name", directory.name)
    write_atomic(directory / "metrics.json", json.dumps(metrics_document(document), indent=1, allow_nan=False) + "\n")
    write_atomic(directory / "junit.xml", junit_document(document))
    # Last, so that a finished run.json means that everything is there.
    write_atomic(directory / "run.json", json.dumps(document, indent=1, allow_nan=False, default=str) + "\n")
    return document


def summarise(record: Record, budgets: Budgets, *, run: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Computes every summary field of docs/record.md from the record.

    Args:
        record: The frames.
        budgets: The limits.
        run: What else is known of the run: its ``clock`` and ``execution`` are judged where there are any.

    Returns:
        ``verdict`` to ``budgets`` in the order of that page; no number is NaN or infinite.
    """
    run = run or {}
    simulator = run.get("simulator") or {}
    header = record.header
    judged = [frame for frame in record.frames if frame["phase"] == "judged"]
    decisions = by_tick(judged)
    latencies = [value for frames in decisions if (value := decision_latency(frames)) is not None]
    deadline = header["deadline_ms"]
    misses = sum(latency > deadline for latency in latencies)
    sensors = {name: _sensor(name, facts, record.frames) for name, facts in header["sensors"].items()}
    contacts = [contact for frame in judged for contact in frame["contacts"]]
    summary: dict[str, Any] = {
        "frames": len(decisions),
        "frames_by_sensor": {name: entry["judged"] for name, entry in sensors.items()},
        "dropped": sum(frame["dropped"] for frame in record.frames),
        "stale": sum(entry["duplicates"] + entry["out_of_order"] for entry in sensors.values())
        # What a simulator was given twice and kept from the networks counts as well.
        + int(simulator.get("stale_deliveries") or 0),
        "lost": record.lost,
        "latency_ms": describe(latencies),
        "inference_ms": describe([value for frames in decisions if (value := _decision_inference(frames)) is not None]),
        "stages_ms": stages(judged),
        "sensors": sensors,
        "deadline_ms": deadline,
        "deadline_misses": misses,
        "deadline_miss_rate": proportion(misses, len(latencies)),
        **_pace(decisions, (run or {}).get("pauses") or ()),
        "accuracy": _accuracy(header, judged),
        "contacts": len(contacts),
        "contact_list": contacts,
        "distance_m": _span(judged, "distance"),
    }
    recaptures = (run.get("execution") or {}).get("recaptures")
    not_judged = _not_judged(run, budgets)
    judgeable = budgets.model_copy(update=dict.fromkeys(not_judged))
    streams = ((run.get("simulator") or {}).get("streams") or {}).values()
    no_labels = next((found for stream in streams if (found := stream.get("no_labels_reason"))), None)
    known = {**summary, "recaptures": recaptures, "no_lidar_labels": no_labels}
    summary["budgets"] = judge_budgets(known, judgeable)
    if not_judged:
        summary["not_judged"] = not_judged
    clocks = (run.get("clock") or {}, simulator.get("clock") or {})
    problems = [*record_problems(record), *(problem for clock in clocks for problem in clock_problems(clock))]
    verdict, exit_status, reasons = judge(problems, summary["budgets"])
    for reason in dict.fromkeys(not_judged.values()):
        names = ", ".join(name for name, why in not_judged.items() if why == reason)
        reasons = [*reasons, f"not judged: {names}: {reason}"]
    return {"verdict": verdict, "exit_status": exit_status, "reasons": reasons, **summary}


def _not_judged(run: Mapping[str, Any], budgets: Budgets) -> dict[str, str]:
    """Configured budgets that the source of the frames leaves nothing to judge by, and why."""
    reasons = (run.get("simulator") or {}).get("unjudged") or {}
    return {name: reason for name, reason in reasons.items() if getattr(budgets, name) is not None}


def by_tick(frames: Frames) -> list[list[Mapping[str, Any]]]:
    """Returns the frames of each decision, in the order of their first frame."""
    ticks: dict[int, list[Mapping[str, Any]]] = {}
    for frame in frames:
        ticks.setdefault(frame["tick"], []).append(frame)
    return list(ticks.values())


def decision_latency(frames: Frames) -> float | None:
    """Returns the time from the state to the decision [ms]: the longest of the frames, which share both."""
    found = [value for frame in frames if (value := frame_latency(frame)) is not None]
    return max(found) if found else None


def frame_latency(frame: Mapping[str, Any]) -> float | None:
    """Returns ``decided - sim_state`` [ms]."""
    return _between(frame["stamps"], "sim_state", "decided")


def frame_stages(frame: Mapping[str, Any]) -> dict[str, float]:
    """Returns the time of each stage that the frame went through [ms]: since the stage before that it reached.

    A frame that no network reads has no ``preprocess``, and its ``decide`` begins when it was handed over.
    """
    stamps = frame["stamps"]
    found: dict[str, float] = {}
    before = stamps["sim_state"]
    for name, stamp in zip(STAGE_NAMES, _STAGE_ENDS, strict=True):
        now = stamps[stamp]
        if now is None:
            continue
        if before is not None:
            found[name] = (now - before) / 1e6
        before = now
    return found


def stages(frames: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns statistics of each stage of one frame [ms]."""
    values: dict[str, list[float]] = {name: [] for name in STAGE_NAMES}
    for frame in frames:
        for name, value in frame_stages(frame).items():
            values[name].append(value)
    return {name: describe(found) for name, found in values.items()}


def _between(stamps: Mapping[str, int | None], start: str, end: str) -> float | None:
    first, last = stamps[start], stamps[end]
    return None if first is None or last is None else (last - first) / 1e6


def _frame_inference(frame: Mapping[str, Any]) -> float | None:
    return _between(frame["stamps"], "handed_over", "on_host")


def _decision_inference(frames: Frames) -> float | None:
    found = [value for frame in frames if (value := _frame_inference(frame)) is not None]
    return sum(found) if found else None


def _sensor(name: str, facts: Mapping[str, Any], frames: Frames) -> dict[str, Any]:
    own = [frame for frame in frames if frame["sensor"] == name]
    judged = [frame for frame in own if frame["phase"] == "judged"]
    duplicates = out_of_order = 0
    seen: set[int] = set()
    newest = -1
    for frame in own:
        sequence = frame["sequence"]
        if sequence in seen:
            duplicates += 1
        elif sequence < newest:
            out_of_order += 1
        seen.add(sequence)
        newest = max(newest, sequence)
    span = _span(judged, "sim_time")
    inference = [value for frame in judged if (value := _frame_inference(frame)) is not None]
    return {
        "kind": facts["kind"],
        "rate_hz": facts["rate"],
        "achieved_hz": (len(judged) - 1) / span if span else None,
        "produced": len(own) + sum(frame["dropped"] for frame in own),
        "judged": len(judged),
        "dropped": sum(frame["dropped"] for frame in own),
        "duplicates": duplicates,
        "out_of_order": out_of_order,
        "latency_ms": describe([value for frame in judged if (value := frame_latency(frame)) is not None]),
        "inference_ms": describe(inference),
        "stages_ms": stages(judged),
    }


def _span(frames: Frames, field: str) -> float | None:
    """Difference of a field between the last and the first frame; ``None`` where either is not known."""
    if not frames or frames[0][field] is None or frames[-1][field] is None:
        return None
    return float(frames[-1][field] - frames[0][field])


def _pace(decisions: Sequence[Frames], pauses: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Simulated and wall time from the first judged state to the last: both over the same number of periods.

    While the run was made to stand still, neither passes.
    """
    firsts = [frames[0] for frames in decisions]
    simulated = _span(firsts, "sim_time") if len(firsts) > 1 else None
    wall = None
    if len(firsts) > 1:
        start, end = firsts[0]["stamps"]["sim_state"], firsts[-1]["stamps"]["sim_state"]
        wall = (end - start) / 1e9 if start is not None and end is not None else None
    if wall is not None:
        first, last = firsts[0]["tick"], firsts[-1]["tick"]
        wall -= sum(pause["wall_s"] for pause in pauses if first <= pause["after_tick"] < last)
    factor = simulated / wall if simulated is not None and wall is not None and wall > 0 else None
    return {"realtime_factor": factor, "simulated_s": simulated, "wall_s": wall}


def _accuracy(header: Mapping[str, Any], judged: Frames) -> dict[str, Any]:
    networks = {}
    counts: dict[str, list[tuple[list[int], list[int]]]] = {"camera": [], "lidar": []}
    supports: dict[str, list[list[int] | None]] = {"camera": [], "lidar": []}
    for name, facts in header["networks"].items():
        kind = header["sensors"].get(facts["sensor"], {}).get("kind")
        results = [frame["results"][name] for frame in judged if name in frame["results"]]
        scored = [r for r in results if r["intersection"] is not None and r["union"] is not None]
        pairs = [(r["intersection"], r["union"]) for r in scored]
        support = [r.get("support") for r in scored]
        if kind in counts:
            counts[kind] += pairs
            supports[kind] += support
        valid = sum(r["valid"] or 0 for r in scored)
        iou = pooled_iou(pairs, support=support)
        networks[name] = {
            "sensor_kind": kind,
            "classes": list(CLASSES),
            "iou": iou,
            "miou": mean_iou(iou),
            "pixel_accuracy": sum(r["agree"] or 0 for r in scored) / valid if valid else None,
        }
    hazard, area = _hazard(header, judged)
    clearance = describe(_clearance_errors(header, judged))
    return {
        "camera_miou": mean_iou(pooled_iou(counts["camera"], support=supports["camera"])),
        "lidar_miou": mean_iou(pooled_iou(counts["lidar"], support=supports["lidar"])),
        "hazard_auroc": area,
        "clearance_error_m": clearance["p50"]["value"],
        "hazard": hazard,
        "clearance": clearance,
        "networks": networks,
    }


def _hazard(header: Mapping[str, Any], judged: Frames) -> tuple[dict[str, Any], float | None]:
    """Hazard confusion and AUROC of the first network that gives hazards, against the truth of the same frames."""
    for name, facts in header["networks"].items():
        pairs = [
            (frame["results"][name]["hazard"], frame["truth"]["hazard"])
            for frame in judged
            if name in frame["results"]
            and frame["results"][name]["hazard"] is not None
            and frame["truth"] is not None
            and frame["truth"]["hazard"] is not None
        ]
        if pairs:
            threshold = facts["hazard_threshold"]
            return _confusion(pairs, threshold), auroc([p for p, _ in pairs], [t for _, t in pairs])
    return {**_confusion([], 0.5), "threshold": None}, None


def _confusion(pairs: Sequence[tuple[float, bool]], threshold: float) -> dict[str, Any]:
    def count(said: bool, true: bool) -> int:
        return sum((score >= threshold) is said and truth is true for score, truth in pairs)

    tp, fp, tn, fn = count(True, True), count(True, False), count(False, False), count(False, True)
    return {
        "threshold": threshold,
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "recall": proportion(tp, tp + fn),
        "precision": proportion(tp, tp + fp),
    }


def _clearance_errors(header: Mapping[str, Any], judged: Frames) -> list[float]:
    errors: list[float] = []
    for frame in judged:
        truth = frame["truth"]
        if truth is None or truth["clearance"] is None:
            continue
        cap = header["sensors"].get(frame["sensor"], {}).get("range_max")
        for result in frame["results"].values():
            if result["clearance"] is not None:
                errors += clearance_errors(result["clearance"], truth["clearance"], cap)
    return errors
