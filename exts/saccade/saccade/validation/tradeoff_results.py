"""From what a sweep measured to its result: accuracy, retention and latency of each candidate, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from saccade.telemetry.statistics import auroc, describe, proportion
from saccade.validation.tradeoff_candidates import Candidate
from saccade.validation.tradeoff_energy import CPU_ENERGY

LEAST_SCENES = 5
"""Scenes below which no interval of an accuracy is given: resampling fewer says little about other scenes."""
RESAMPLES = 2000
SEED = 0

Cell = Mapping[str, Any]
Statistic = Callable[[np.ndarray], np.ndarray]
"""A figure by resample: scene numbers, shape ``(..., scenes)``, in; values, shape ``(...)``, out."""


@dataclass(slots=True)
class Measured:
    """Everything that was measured of one candidate."""

    candidate: Candidate
    built: Mapping[str, Any]
    cells: Sequence[Cell]
    """In the loop, one per scene, in the order of the scenes."""
    batches: Mapping[int, Sequence[Cell]] = field(default_factory=dict)
    """The engine alone, by batch, one per scene."""
    agreement: tuple[int, int] | None = None
    """Labels that are those of FP32 at the same size, and all."""


def candidate_entries(
    measured: Measured, reference: Measured | None, *, device: str, gate: float
) -> list[dict[str, Any]]:
    """Returns the entries of ``candidates`` in the result: one per batch.

    Args:
        measured: The candidate.
        reference: FP32 of the same network on the same scenes; ``None`` where that failed.
        device: Warp device that the engines ran on.
        gate: Share of the reference's accuracy that counts as kept.
    """
    entries = [_loop_entry(measured, reference, device=device, gate=gate)]
    for batch, cells in sorted(measured.batches.items()):
        if batch > 1 and len(cells) == len(measured.cells):
            other = reference.batches.get(batch) if reference is not None else None
            entries.append(_batch_entry(measured, cells, other, batch=batch, device=device, gate=gate))
    return entries


def bootstrap_interval(statistic: Statistic, scenes: int) -> list[float] | None:
    """Returns the 95 % percentile interval of a figure when whole scenes are drawn with replacement.

    Frames of one scene resemble each other, so that scenes and not frames are resampled: Davison and Hinkley,
    Bootstrap Methods and their Application, 1997, section 3.8. ``None`` below :data:`LEAST_SCENES`.
    """
    if scenes < LEAST_SCENES:
        return None
    from scipy.stats import bootstrap

    def value(rows: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(np.moveaxis(rows, axis, -1).astype(np.int64))

    with np.errstate(invalid="ignore", divide="ignore"):
        found = bootstrap(
            (np.arange(scenes),), value, n_resamples=RESAMPLES, vectorized=True, method="percentile",
            random_state=np.random.default_rng(SEED),
        )  # fmt: skip
        values = found.bootstrap_distribution
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    return [float(value) for value in np.quantile(values, (0.025, 0.975))]


def miou_statistic(cells: Sequence[Cell]) -> Statistic | None:
    """Returns pooled mIoU over classes present as a function of scenes; ``None`` without labels."""
    if not cells or any(cell["intersection"] is None for cell in cells):
        return None
    intersection, union, support = (
        np.array([cell[name] for cell in cells], np.float64) for name in ("intersection", "union", "support")
    )

    def miou(rows: np.ndarray) -> np.ndarray:
        i, u, s = (sums[rows].sum(axis=-2) for sums in (intersection, union, support))
        present = (s > 0) & (u > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = np.where(present, i / np.where(u > 0, u, 1), 0.0)
            return iou.sum(axis=-1) / present.sum(axis=-1)

    return miou


def auroc_statistic(cells: Sequence[Cell]) -> Statistic | None:
    """Returns the AUROC of the hazard as a function of scenes; ``None`` without hazards."""
    pairs = [cell.get("hazard") or [] for cell in cells]
    if not any(pairs):
        return None

    def area(rows: np.ndarray) -> np.ndarray:
        flat = rows.reshape(-1, rows.shape[-1])
        values = []
        for chosen in flat:
            drawn = [pair for row in chosen for pair in pairs[row]]
            value = auroc([score for score, _ in drawn], [truth for _, truth in drawn])
            values.append(np.nan if value is None else value)
        return np.array(values).reshape(rows.shape[:-1])

    return area


def accuracy_statistic(cells: Sequence[Cell]) -> tuple[str, Statistic] | None:
    """Returns the figure that accuracy means for a network: mIoU where it gives labels, else the hazard's AUROC."""
    for name, made in (("miou", miou_statistic(cells)), ("hazard_auroc", auroc_statistic(cells))):
        if made is not None:
            return name, made
    return None


def estimate(statistic: Statistic | None, cells: Sequence[Cell], *, reason: str = "not measured") -> dict[str, Any]:
    """Returns ``value``, ``interval``, ``n`` frames and ``scenes`` of a figure."""
    frames = sum(int(cell["frames"]) for cell in cells)
    base = {"n": frames, "scenes": len(cells)}
    if statistic is None or not cells:
        return {"value": None, "interval": None, **base, "reason": reason}
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(statistic(np.arange(len(cells))))
    if not np.isfinite(value):
        return {"value": None, "interval": None, **base, "reason": "nothing in these scenes to measure it by"}
    interval = bootstrap_interval(statistic, len(cells))
    found: dict[str, Any] = {"value": value, "interval": interval, **base}
    if interval is None:
        found["reason"] = f"an interval needs at least {LEAST_SCENES} scenes"
    return found


def gate_state(retention: Mapping[str, Any], gate: float) -> dict[str, Any]:
    """Returns whether a candidate keeps enough of FP32's accuracy, and whether its interval leaves no doubt."""
    value, interval = retention["value"], retention["interval"]
    if value is None:
        return {"gate": gate, "kept": None, "certain": False}
    kept = value >= gate
    certain = interval is not None and (interval[0] >= gate if kept else interval[1] < gate)
    return {"gate": gate, "kept": kept, "certain": certain}


def percentile_of(values: Sequence[float], name: str) -> dict[str, Any]:
    """Returns ``value``, ``interval`` from order statistics and ``n`` of a percentile such as ``"p95"``."""
    found = describe(values)[name]
    interval = None if found["low"] is None else [found["low"], found["high"]]
    entry = {"value": found["value"], "interval": interval, "n": found["n"], "unit": "ms"}
    return entry if found["reason"] is None else {**entry, "reason": found["reason"]}


def invalid_reason(cells: Sequence[Cell]) -> str | None:
    """Returns why a candidate's figures must not be used; ``None`` where they may."""
    broken = sum(int(cell.get("non_finite") or 0) for cell in cells)
    if broken:
        frames = sum(int(cell["frames"]) for cell in cells)
        return f"{broken} of {frames} frames have outputs that are not finite"
    said = [cell["predicted"] for cell in cells if cell.get("predicted") is not None]
    supports = [cell["support"] for cell in cells if cell.get("support") is not None]
    if said and supports:
        present = sum(any(s[c] for s in supports) for c in range(len(supports[0])))
        predicted = sum(any(s[c] for s in said) for c in range(len(said[0])))
        if present > 1 and predicted == 1:
            return "collapsed: it gives one class for everything"
    return None


def _loop_entry(measured: Measured, reference: Measured | None, *, device: str, gate: float) -> dict[str, Any]:
    cells = measured.cells
    times = [value for cell in cells for value in cell["inference_ms"]]
    entry = _common(measured, cells, reference.cells if reference is not None else None, 1, device, gate)
    entry |= {
        "latency": {**percentile_of(times, "p50"), "percentile": 50},
        "latency_p95": {**percentile_of(times, "p95"), "percentile": 95},
        "latency_p99": {**percentile_of(times, "p99"), "percentile": 99},
        "decision_latency": {
            **percentile_of([v for cell in cells for v in cell["latency_ms"]], "p50"),
            "percentile": 50,
        },
        "throughput": _throughput(cells, "inference_ms", 1),
        "measured": "in the loop",
    }
    singles = measured.batches.get(1, ())
    entry["energy_per_frame"] = _energy(singles, 1, CPU_ENERGY if device == "cpu" else None)
    return entry


def _batch_entry(
    measured: Measured, cells: Sequence[Cell], reference: Sequence[Cell] | None, *, batch: int, device: str, gate: float
) -> dict[str, Any]:
    times = [value for cell in cells for value in cell["run_ms"]]
    entry = _common(measured, cells, reference, batch, device, gate)
    entry |= {
        "latency": {**percentile_of(times, "p50"), "percentile": 50},
        "latency_p95": {**percentile_of(times, "p95"), "percentile": 95},
        "latency_p99": {**percentile_of(times, "p99"), "percentile": 99},
        "throughput": _throughput(cells, "run_ms", batch),
        "energy_per_frame": _energy(cells, batch, None),
        "measured": "the engine alone",
    }
    return entry


def _common(
    measured: Measured, cells: Sequence[Cell], reference: Sequence[Cell] | None, batch: int, device: str, gate: float
) -> dict[str, Any]:
    candidate, built = measured.candidate, measured.built
    metric, statistic = accuracy_statistic(cells) or (None, None)
    retention = estimate(_retention(cells, reference), cells, reason="FP32 was not measured on the same scenes")
    memory = [cell["memory_bytes"] for cell in cells if cell.get("memory_bytes") is not None]
    engine = dict(cells[0].get("engine") or {}) if cells else {}
    qualification = engine.get("qualification")
    build = engine.get("build") or {}
    agree = measured.agreement
    area = auroc_statistic(cells) if batch == 1 else None
    errors = [cell["clearance"] for cell in cells if cell.get("clearance")]
    error_count = sum(count for _, count in errors)
    return {
        "key": candidate.key if batch == 1 else f"{candidate.key}-batch{batch}",
        "network": candidate.network,
        "device": device,
        "engine": {name: engine.get(name) for name in ("engine", "version")},
        "batch": batch,
        "precision": candidate.precision,
        "sparsity": candidate.pruning,
        "size": None if candidate.size is None else list(candidate.size),
        "accuracy": {
            **estimate(statistic, cells, reason="the network gives neither labels nor a hazard"),
            "metric": metric,
        },
        "retention": {**retention, **gate_state(retention, gate)},
        "agreement": None if agree is None or batch > 1 else proportion(*agree)["value"],
        "hazard_auroc": estimate(area, cells, reason="no hazard, or no frame with one") if batch == 1 else None,
        "clearance_error_m": sum(total for total, _ in errors) / error_count if error_count else None,
        "non_finite": sum(int(cell.get("non_finite") or 0) for cell in cells),
        "invalid": invalid_reason(cells),
        # Neither yes nor no for what was not compared: ONNX Runtime is the reference itself.
        "qualified": None if qualification is None else bool(qualification["passed"]),
        "qualification": qualification,
        "memory_bytes": max(memory) if memory else None,
        "memory_absent": None if memory else "measured on GPUs only",
        "plan_bytes": _plan_bytes(engine, built),
        "build_s": float(built.get("build_s") or 0.0) + float(build.get("build_s") or 0.0),
        "model_sha256": built.get("sha256"),
        "model": built.get("facts") or {},
    }


def _plan_bytes(engine: Mapping[str, Any], built: Mapping[str, Any]) -> int | None:
    """Of the TensorRT plan; ONNX Runtime has none, its file is what is loaded."""
    return engine.get("plan_bytes") or built.get("bytes")


def _retention(cells: Sequence[Cell], reference: Sequence[Cell] | None) -> Statistic | None:
    own, theirs = accuracy_statistic(cells), accuracy_statistic(reference or ())
    if own is None or theirs is None or own[0] != theirs[0] or len(cells) != len(reference or ()):
        return None

    def ratio(rows: np.ndarray) -> np.ndarray:
        # The same scenes on both sides: what makes a scene hard for both does not widen the interval.
        with np.errstate(invalid="ignore", divide="ignore"):
            return own[1](rows) / theirs[1](rows)

    return ratio


def _throughput(cells: Sequence[Cell], name: str, batch: int) -> dict[str, Any]:
    """Frames per second of one stream: all frames over all of their time."""
    counts = np.array([len(cell[name]) for cell in cells], np.float64)
    sums = np.array([sum(cell[name]) for cell in cells], np.float64) * 1e-3

    def rate(rows: np.ndarray) -> np.ndarray:
        return batch * counts[rows].sum(axis=-1) / sums[rows].sum(axis=-1)

    return {**estimate(rate if counts.sum() else None, cells), "n": int(counts.sum()), "unit": "frames/s"}


def _energy(cells: Sequence[Cell], batch: int, absent: str | None) -> dict[str, Any]:
    values = [cell["energy_j"] / batch for cell in cells if cell.get("energy_j") is not None]
    if not values:
        reason = next((cell.get("energy_absent") for cell in cells if cell.get("energy_absent")), absent)
        return {"value": None, "interval": None, "n": 0, "unit": "J", "reason": reason or "not measured"}
    energies = np.array(values)

    def mean(rows: np.ndarray) -> np.ndarray:
        return energies[rows].mean(axis=-1)

    interval = bootstrap_interval(mean, len(values))
    return {"value": float(energies.mean()), "interval": interval, "n": len(values), "unit": "J"}
