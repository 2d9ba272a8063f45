"""The verdict: pass, fail or invalid, why, and how it is printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from saccade.telemetry.record import Record

EXIT_STATUS = {"pass": 0, "fail": 1, "invalid": 3}

_CHAIN = ("sim_state", "sensed", "handed_over", "preprocessed", "inferred", "on_host", "decided")
"""Stamps that one thread takes one after the other; publishing and effect come after the decision in either order."""


def judge(problems: Sequence[str], budgets: Sequence[Mapping[str, Any]]) -> tuple[str, int, list[str]]:
    """Returns verdict, exit status and the reasons in sentences.

    Args:
        problems: What makes the run impossible to judge.
        budgets: The judged budgets; one that could not be judged makes the run invalid.
    """
    unjudged = [_sentence(budget) for budget in budgets if budget["passed"] is None]
    missed = [_sentence(budget) for budget in budgets if budget["passed"] is False]
    if problems or unjudged:
        return "invalid", EXIT_STATUS["invalid"], [*problems, *unjudged, *missed]
    if missed:
        return "fail", EXIT_STATUS["fail"], missed
    met = f"all {len(budgets)} budgets are met" if len(budgets) > 1 else "the budget is met"
    return "pass", EXIT_STATUS["pass"], [met if budgets else "no budget is configured, and the record is whole"]


def record_problems(record: Record) -> list[str]:
    """Returns what makes a run invalid whatever its figures are, in sentences; empty for a sound one."""
    return [
        *_ending(record),
        *record.problems,
        *_too_few(record),
        *_non_finite(record),
        *_stalled(record),
        *_clock(record),
        *_incomplete(record),
    ]


def clock_problems(clock: Mapping[str, Any]) -> list[str]:
    """Returns why stamps of another clock cannot be trusted, in sentences; empty where they can."""
    jumps = clock.get("jumps") or 0
    if not jumps:
        return []
    return [
        f"the clock of {clock.get('source', 'the device')} jumped by more than 1 ms {jumps} "
        f"time{'s' if jumps > 1 else ''} against the host's: latencies of its stages are not known; run again"
    ]


def last_line(summary: Mapping[str, Any], directory: Path | str) -> str:
    """Returns ``PASS frames=N p50=..ms p95=..ms dropped=N miou=.. contacts=N -> DIR``; ``n/a`` where there is none."""
    latency, accuracy = summary["latency_ms"], summary["accuracy"]
    miou = accuracy["camera_miou"] if accuracy["camera_miou"] is not None else accuracy["lidar_miou"]
    return (
        f"{summary['verdict'].upper()} frames={summary['frames']} p50={_milliseconds(latency['p50']['value'])} "
        f"p95={_milliseconds(latency['p95']['value'])} dropped={summary['dropped']} "
        f"miou={'n/a' if miou is None else f'{miou:.3f}'} contacts={summary['contacts']} -> {directory}"
    )


def json_summary(summary: Mapping[str, Any], directory: Path | str) -> dict[str, Any]:
    """Returns the object that ``--json`` prints: plain numbers, ``None`` where there is none."""
    latency, accuracy = summary["latency_ms"], summary["accuracy"]
    return {
        "verdict": summary["verdict"],
        "frames": summary["frames"],
        "latency_ms": {
            "p50": latency["p50"]["value"],
            "p95": latency["p95"]["value"],
            "p99": latency["p99"]["value"],
            "max": latency["max"],
        },
        "deadline_miss_rate": summary["deadline_miss_rate"]["value"],
        "realtime_factor": summary["realtime_factor"],
        "dropped": summary["dropped"],
        "accuracy": {
            name: accuracy[name] for name in ("camera_miou", "lidar_miou", "hazard_auroc", "clearance_error_m")
        },
        "contacts": summary["contacts"],
        "directory": str(directory),
    }


def _sentence(budget: Mapping[str, Any]) -> str:
    return f"budget {budget['name']}: {budget['reason']}"


def _milliseconds(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1f}ms"


def _ending(record: Record) -> Iterator[str]:
    end = record.end
    if end is None or end["reason"] == "completed":
        return
    words = {"interrupted": "the run was interrupted", "timeout": "the run took too long", "error": "the run failed"}
    yield f"{words[end['reason']]}: {end['message']}" if end["message"] else words[end["reason"]]


def _too_few(record: Record) -> Iterator[str]:
    expected = record.header["frames_expected"]
    judged = len({frame["tick"] for frame in record.frames if frame["phase"] == "judged"})
    if judged < expected:
        yield f"{judged} of {expected} judged decisions are in the record"


def _non_finite(record: Record) -> Iterator[str]:
    counts: dict[str, int] = {}
    for frame in record.frames:
        for name, result in frame["results"].items():
            clearance = result["clearance"]
            if not result["finite"] or (clearance is not None and None in clearance):
                counts[name] = counts.get(name, 0) + 1
    for name, count in counts.items():
        yield (
            f"network {name} gave NaN or infinite values in {count} frame{'s' if count > 1 else ''}: check the "
            "model and its preprocessing"
        )
    lost = sum(
        frame["sim_time"] is None or frame["distance"] is None or None in frame["pose"] for frame in record.frames
    )
    if lost:
        yield (
            f"the simulated state was not finite in {lost} frame{'s' if lost > 1 else ''}: the physics has diverged; "
            "try more simulator.substeps"
        )


def _stalled(record: Record) -> Iterator[str]:
    """Samples that are missing without having been declared as dropped, by more than one period."""
    times = [frame["sim_time"] for frame in record.frames if frame["sim_time"] is not None]
    if not times:
        return
    for name, facts in record.header["sensors"].items():
        own = [frame for frame in record.frames if frame["sensor"] == name and frame["sim_time"] is not None]
        if not own:
            yield f"sensor {name} never delivered a frame"
            continue
        period = 1 / facts["rate"]
        # Two periods from one sample to the next are one missing sample; more than that is a stall.
        allowed = 2 * period * (1 + 1e-6)
        longest, since = 0.0, 0.0
        gap = own[0]["sim_time"] - min(times) - own[0]["dropped"] * period
        if gap > allowed:
            longest, since = gap, min(times)
        for before, after in pairwise(own):
            gap = after["sim_time"] - before["sim_time"] - after["dropped"] * period
            if gap > max(allowed, longest):
                longest, since = gap, before["sim_time"]
        gap = max(times) - own[-1]["sim_time"]
        if gap > max(allowed, longest):
            longest, since = gap, own[-1]["sim_time"]
        if longest:
            yield (
                f"sensor {name} stalled: no frame for {longest:.3g} s after {since:.3f} s of simulation time, at a "
                f"period of {period:.3g} s"
            )


def _clock(record: Record) -> Iterator[str]:
    backwards = [frame for frame in record.frames if not _ordered(frame["stamps"])]
    if backwards:
        yield (
            f"the clock jumped: the stamps of {len(backwards)} frame{'s' if len(backwards) > 1 else ''} are not in "
            f"order (first: index {backwards[0]['index']})"
        )
    yield from _ticks(record)
    newest: dict[str, tuple[int, float]] = {}
    for frame in record.frames:
        sequence, sim_time = frame["sequence"], frame["sim_time"]
        known = newest.get(frame["sensor"])
        # An old sample that comes again is stale, which is counted; a new one with an older time is a broken clock.
        if sim_time is None or (known is not None and sequence <= known[0]):
            continue
        if known is not None and sim_time <= known[1]:
            times = f"{known[1]:.6g} s, then {sim_time:.6g} s"
            yield f"simulation time stood still or went back: {frame['sensor']} at {times}"
            return
        newest[frame["sensor"]] = (sequence, sim_time)


def _ticks(record: Record) -> Iterator[str]:
    last_tick = last_stamp = None
    for frame in record.frames:
        tick, stamp = frame["tick"], frame["stamps"]["sim_state"]
        if tick == last_tick:
            continue
        if last_tick is not None and tick < last_tick:
            yield f"decision {tick} comes after decision {last_tick} in the record"
            return
        if last_stamp is not None and stamp is not None and stamp <= last_stamp:
            yield f"the clock jumped: the state of decision {tick} is not later than the one before"
            return
        last_tick, last_stamp = tick, last_stamp if stamp is None else stamp


def _ordered(stamps: Mapping[str, int | None]) -> bool:
    reached = [value for name in _CHAIN if (value := stamps[name]) is not None]
    if any(later < before for before, later in pairwise(reached)):
        return False
    decided = stamps["decided"]
    after = (stamps["published"], stamps["applied"])
    return decided is None or all(stamp is None or stamp >= decided for stamp in after)


def _incomplete(record: Record) -> Iterator[str]:
    judged = [frame for frame in record.frames if frame["phase"] == "judged"]
    without = [f for f in judged if f["stamps"]["sim_state"] is None or f["stamps"]["decided"] is None]
    if without:
        yield f"{len(without)} judged frames have no decision (first: index {without[0]['index']})"
    known = record.header["sensors"].keys()
    strangers = sorted({frame["sensor"] for frame in record.frames} - known)
    if strangers:
        yield f"the record has frames of sensors that its header does not name: {', '.join(strangers)}"
