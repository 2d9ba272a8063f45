"""``metrics.json`` in the shape of Isaac Sim's JSONFileMetrics: phases ``loading`` and ``benchmark``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Measurement = tuple[str, float | None, str]
"""Name, value, unit; a value of ``None`` is left out, because the shape has no place for it."""

_STATISTICS = (("Mean", "mean"), ("Min", "min"), ("Max", "max"))
_PERCENTILES = (("Median", "p50"), ("P95", "p95"), ("P99", "p99"))


def metrics_document(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the content of ``metrics.json`` for the content of ``run.json``.

    Measurement names begin with the run's name and the phase, as Isaac Sim's own backend writes them.
    """
    name = str(run.get("name") or "run")
    return [_phase(name, "loading", _loading(run), run), _phase(name, "benchmark", _benchmark(run), run)]


def _phase(test: str, phase: str, measurements: Iterator[Measurement], run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "phase_name": phase,
        "measurements": [
            {"name": f"{test} {phase} {name}", "value": value, "unit": unit, "type": "single"}
            for name, value, unit in measurements
            if value is not None
        ],
        "metadata": [
            {"name": f"{test} {phase} {name}", "data": data, "type": kind} for name, data, kind in _metadata(phase, run)
        ],
    }


def _loading(run: Mapping[str, Any]) -> Iterator[Measurement]:
    phases = (run.get("simulator") or {}).get("startup_s") or {}
    for name, seconds in phases.items():
        yield f"Simulator {name}", _milliseconds(seconds), "ms"
    host = run.get("host") or {}
    yield "Peak System Memory RSS", host.get("peak_rss_mb"), "MB"


def _benchmark(run: Mapping[str, Any]) -> Iterator[Measurement]:
    yield "Runtime", _milliseconds(run["wall_s"]), "ms"
    yield "Real Time Factor", run["realtime_factor"], ""
    yield "Judged Decisions", run["frames"], ""
    yield from _statistics("Decision Latency", run["latency_ms"], "ms")
    yield from _statistics("Inference", run["inference_ms"], "ms")
    for stage, statistics in run["stages_ms"].items():
        yield from _statistics(f"Stage {stage}", statistics, "ms")
    for sensor, facts in run["sensors"].items():
        yield f"{sensor} Achieved Rate", facts["achieved_hz"], "Hz"
        yield f"{sensor} Dropped", facts["dropped"], ""
    yield "Deadline Miss Rate", run["deadline_miss_rate"]["value"], ""
    yield "Deadline Misses", run["deadline_misses"], ""
    yield "Dropped Frames", run["dropped"], ""
    yield "Stale Frames", run["stale"], ""
    yield "Lost Records", run["lost"], ""
    accuracy = run["accuracy"]
    yield "Camera mIoU", accuracy["camera_miou"], ""
    yield "LiDAR mIoU", accuracy["lidar_miou"], ""
    yield "Hazard AUROC", accuracy["hazard_auroc"], ""
    yield "Hazard Recall", accuracy["hazard"]["recall"]["value"], ""
    yield "Clearance Error", accuracy["clearance_error_m"], "m"
    yield "Contacts", run["contacts"], ""
    yield "Distance", run["distance_m"], "m"


def _metadata(phase: str, run: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    host = run.get("host") or {}
    gpu = host.get("gpu") or {}
    facts = {
        "workflow_name": "saccade",
        "cpu_name": host.get("cpu"),
        "gpu_name": gpu.get("name"),
        "device": run.get("device"),
    }
    for name, data in facts.items():
        if data is not None:
            yield name, str(data), "string"
    if run.get("seed") is not None:
        yield "seed", run["seed"], "int"
    if phase == "benchmark":
        yield "verdict", run["verdict"], "string"
        yield "deadline_ms", run["deadline_ms"], "float"


def _statistics(name: str, statistics: Mapping[str, Any], unit: str) -> Iterator[Measurement]:
    for word, key in _STATISTICS:
        yield f"{word} {name}", statistics[key], unit
    for word, key in _PERCENTILES:
        yield f"{word} {name}", statistics[key]["value"], unit


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
