"""Results of trade-offs for tests: made up, and said to be."""

from __future__ import annotations


def figure(value, spread=0.0, n=100, **more):
    """A figure with an interval of ``spread`` to either side; ``None`` = without one."""
    interval = None if value is None or spread is None else [value - spread, value + spread]
    return {"value": value, "interval": interval, "n": n, **more}


def entry(
    precision="fp32", *, network="camera", sparsity="none", batch=1, accuracy=0.9, latency=5.0, spread=0.05,
    accuracy_spread=0.005, retention=1.0, energy=None, memory=None, invalid=None, size=None, differs=None,
):  # fmt: skip
    """One entry of ``candidates``; ``differs``: relative L2 of labels that its engine was found to have, limit 0.05."""
    pruned = "" if sparsity == "none" else f"-{sparsity.replace(':', '')}"
    kept = None if retention is None else retention >= 0.99
    return {
        "key": f"{network}-{precision}{pruned}" + ("" if batch == 1 else f"-batch{batch}"),
        "network": network,
        "device": "cpu",
        "engine": {"engine": "onnxruntime", "version": "1"},
        "batch": batch,
        "precision": precision,
        "sparsity": sparsity,
        "size": size,
        "accuracy": figure(accuracy, accuracy_spread, metric="miou"),
        "retention": {**figure(retention, 0.002), "gate": 0.99, "kept": kept, "certain": kept is not None},
        "agreement": None,
        "latency": figure(latency, spread),
        "latency_p95": figure(None if latency is None else latency * 1.2, spread),
        "latency_p99": figure(None, None, reason="p99 needs at least 368 samples, and there are 100"),
        "throughput": figure(None if latency is None else 1000 * batch / latency, 1.0),
        "energy_per_frame": figure(energy, 0.0, unit="J") if energy else figure(None, None, reason="no NVML here"),
        "hazard_auroc": None,
        "clearance_error_m": None,
        "non_finite": 0,
        "invalid": invalid,
        **({} if differs is None else qualification(differs)),
        "memory_bytes": memory,
        "memory_absent": None if memory else "measured on GPUs only",
        "plan_bytes": 2_000_000,
        "build_s": 1.5,
        "model_sha256": "0" * 64,
        "model": {},
        "measured": "in the loop",
    }


def qualification(relative):
    """What an entry says of an engine that was compared."""
    limits = {"relative_l2": 0.05, "label_agreement": 0.97}
    figures = {"relative_l2": {"labels": relative}, "label_agreement": 0.99, "non_finite": 0, "samples": 16}
    passed = relative <= limits["relative_l2"]
    return {"qualified": passed, "qualification": {**figures, "passed": passed, "limits": limits, "inputs": "given"}}


def result(*entries, failed=(), complete=True):
    """A whole result."""
    return {
        "schema": 1,
        "kind": "tradeoff",
        "created": "2026-01-01T00:00:00+00:00",
        "complete": complete,
        "note": "made up for a test",
        "configuration": "test",
        "device": "cpu",
        "host": {"cpu": "a CPU", "cores": 2},
        "versions": {"onnxruntime": "1.0", "python": "3.11"},
        "commit": "0" * 40,
        "modified": False,
        "load_average": {"min": 0.1, "max": 0.5},
        "frames_per_scene": 20,
        "scenes": [{"name": f"layout_{i}", "seed": i, "digest": ""} for i in range(5)],
        "calibration": {"source": "training layouts", "frames": 100},
        "gate": 0.99,
        "candidates": list(entries),
        "failed": list(failed),
        "fronts": {},
    }
