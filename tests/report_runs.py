"""Makes run folders to report on: a walk through a small made-up hall, with figures computed from its own frames."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from saccade.frame import CLASSES
from saccade.reporting.samples import write_sample
from saccade.telemetry.gpu import ThinnedSeries, _statistics
from saccade.telemetry.statistics import describe, proportion

HALL = [
    ("structure", "wall", 0, 0, 18, 0.3),
    ("structure", "wall", 0, 9.7, 18, 10),
    ("structure", "rack row A", 2.5, 3.0, 9, 4.2),
    ("structure", "rack row B", 2.5, 6.0, 9, 7.2),
    ("obstacle", "forklift", 12.2, 6.2, 14.4, 7.6),
    ("obstacle", "pallet", 11, 1.0, 12, 1.8),
    ("person", "person", 14.6, 4.2, 15.1, 4.7),
]
STAGES = ("sense", "hand_over", "preprocess", "infer", "to_host", "decide")
STAMPS = ("sim_state", "sensed", "handed_over", "preprocessed", "inferred", "on_host", "decided")


def make_run(
    directory: Path,
    *,
    ticks: int = 120,
    warmup: int = 10,
    seed: int = 0,
    sensors: tuple[tuple[str, str], ...] = (("head_camera", "camera"), ("lidar", "lidar")),
    networks: bool = True,
    truth: bool = True,
    samples: int = 3,
    contacts: int = 0,
    finished: bool = True,
    cut: bool = False,
    name: str = "warehouse",
    budgets: list[dict[str, Any]] | None = None,
    performance: str | None = "cpu",
    **changes: Any,
) -> dict[str, Any]:
    """Writes ``run.json``, ``frames.jsonl`` and samples, and returns the content of ``run.json``.

    Args:
        directory: The run's folder; made.
        ticks: Judged decisions.
        warmup: Decisions before them.
        seed: Everything random comes from it.
        sensors: Names and kinds; with ``networks``, one network per sensor reads it.
        networks: Whether there are results.
        truth: Whether there is ground truth.
        samples: Sample frames.
        contacts: Contacts in the walk.
        finished: Whether ``run.json`` is that of a finished run.
        cut: Whether the record lacks its end and its last line is torn.
        name: The run's name.
        budgets: Replaces the made-up budgets.
        performance: ``"cpu"``: an eager run on the CPU; ``"graph"``: CUDA graphs, GPU samples, profiled functions;
            ``None``: a record from before these were kept.
        changes: Replaced in ``run.json`` at the top level.
    """
    random = np.random.default_rng(seed)
    directory.mkdir(parents=True, exist_ok=True)
    readers = {
        f"{kind} network of {sensor}" if index > 1 else kind: (sensor, kind)
        for index, (sensor, kind) in enumerate(sensors)
    }
    frames = _frames(random, ticks, warmup, sensors, readers if networks else {}, truth, contacts)
    header = {
        "kind": "header",
        "schema": 1,
        "run": name,
        "created": "2026-03-02T09:14:05+01:00",
        "sensors": {sensor: {"kind": kind, "rate": 10.0} for sensor, kind in sensors},
        "networks": {
            reader: {"sensor": sensor, "classes": list(CLASSES), "hazard_threshold": 0.5}
            for reader, (sensor, _) in (readers.items() if networks else ())
        },
        "deadline_ms": 100.0,
        "frames_expected": ticks,
        "warmup": warmup,
    }
    end = {
        "kind": "end",
        "frames": len(frames),
        "lost": 0,
        "reason": "completed",
        "message": "",
        "wall_s": 31.0,
        "simulated_s": 41.0,
    }
    lines = [json.dumps(line) for line in [header, *frames, *([] if cut else [end])]]
    text = "\n".join(lines) + "\n"
    (directory / "frames.jsonl").write_text(text + '{"kind": "frame", "ind' if cut else text)
    run = _summary(name, header, frames, sensors, readers if networks else {}, budgets) if finished else {}
    extra = _performance(random, performance, sensors, readers if networks else {}) if finished else {}
    run = {**_start(name, sensors, finished), **run, **extra, **changes}
    (directory / "run.json").write_text(json.dumps(run, indent=1))
    for index in range(samples):
        tick = warmup + int((index + 0.5) * ticks / samples)
        frame = next(frame for frame in frames if frame["tick"] == tick)
        entries: dict[str, Any] = {}
        for reader, (_, kind) in readers.items():
            make = _camera_sample if kind == "camera" else _lidar_sample
            entries.update({f"{kind}:{reader}:{key}": value for key, value in make(random, frame["pose"]).items()})
        write_sample(directory / "samples" / f"{tick:06d}.npz", tick, frame["sim_time"], entries)
    return run


def _frames(
    random: Any, ticks: int, warmup: int, sensors: Any, readers: Any, truth: bool, contacts: int
) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = []
    clock = 10**12
    distance = 0.0
    previous = None
    touched = (
        set(random.choice(np.arange(warmup, warmup + ticks), contacts, replace=False).tolist()) if contacts else set()
    )
    for tick in range(warmup + ticks):
        phase = tick / max(warmup + ticks, 1) * 2 * np.pi
        pose = [8.5 + 6.9 * np.cos(phase), 5 + 3.6 * np.sin(phase + 0.15 * np.sin(3 * phase)), phase + np.pi / 2]
        distance += 0.0 if previous is None else float(np.hypot(pose[0] - previous[0], pose[1] - previous[1]))
        previous = pose
        free = _clearance(pose)
        danger = bool(free[0] < 1.5)
        slow = 6.0 if tick < 3 else 1 + (random.random() < 0.02) * random.uniform(0.6, 2.6)
        at = clock + int(tick * 1e8)
        sim_state, cursor, group = at, at, []
        for sensor, kind in sensors:
            cursor += int(random.gamma(60, 0.16 if kind == "camera" else 0.09) * 1e6)
            group.append({"sensor": sensor, "stamps": {"sim_state": sim_state, "sensed": cursor}})
        for frame, (_, kind) in zip(group, sensors, strict=True):
            for stamp, mean in zip(STAMPS[2:6], (0.08, 0.9, 13 if kind == "camera" else 9, 0.25), strict=True):
                cursor += int(random.gamma(50, mean / 50) * slow * 1e6)
                frame["stamps"][stamp] = cursor if readers or stamp == "handed_over" else None
        decided = cursor + int(random.gamma(20, 0.01) * 1e6)
        for index, (frame, (sensor, _)) in enumerate(zip(group, sensors, strict=True)):
            stamps = frame["stamps"]
            stamps.update(
                decided=decided, published=decided + 40_000, applied=decided + int(random.gamma(9, 0.2) * 1e6)
            )
            frame.update(
                kind="frame",
                index=len(frames),
                tick=tick,
                phase="warmup" if tick < warmup else "judged",
                sequence=tick,
                sim_time=round(tick * 0.1, 6),
                dropped=0,
                latency_ms=(decided - sim_state) * 1e-6,
                inference_ms=(stamps["on_host"] - stamps["handed_over"]) * 1e-6 if readers else None,
                applied_sim_time=round(tick * 0.1 + 0.02, 6),
                results={},
                pose=[float(value) for value in pose],
                truth={"hazard": danger, "clearance": free} if truth else None,
                distance=distance,
                command={"linear": [0.7, 0.0], "yaw_rate": 0.1, "source": "reflex", "reason": "cruise"},
                contacts=[{"sim_time": tick * 0.1, "body": "/Robot/hand", "other": "/World/Pallet"}]
                if index == 0 and tick in touched
                else [],
            )
            for reader, (read, kind) in readers.items():
                if read == sensor:
                    frame["results"][reader] = _result(random, kind, free, truth)
            frames.append(frame)
    return frames


def _result(random: Any, kind: str, free: list[float], truth: bool) -> dict[str, Any]:
    size = np.array([20000, 14000, 6000, 900, 0, 9000]) * random.uniform(0.8, 1.2, 6)
    wrong = size * np.array([0.02, 0.05, 0.09, 0.2, 0, 0.03]) * random.uniform(0.5, 1.5, 6)
    score = 1 / (1 + np.exp(-(1.5 - free[0]) * 7 - random.normal(0, 0.7)))
    guessed = (np.array(free) * random.normal(1, 0.02, 16) + random.normal(0, 0.06, 16)).clip(0.1, 30)
    return {
        "hazard": float(score) if kind == "camera" else None,
        "clearance": guessed.tolist() if kind == "lidar" else None,
        "finite": True,
        "intersection": (size - wrong).astype(int).tolist() if truth else None,
        "union": (size + wrong).astype(int).tolist() if truth else None,
        "valid": int(size.sum()) if truth else 0,
        "agree": int((size - wrong).sum()) if truth else 0,
    }


def _clearance(pose: list[float], count: int = 16, spread: int = 3) -> list[float]:
    angles = pose[2] + 2 * np.pi * (np.arange(count)[:, None] + np.linspace(-0.4, 0.4, spread)) / count
    return np.minimum(_cast(pose, angles)[0].min(axis=1), 30.0).tolist()


def _cast(pose: list[float], angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to, and class of, the first box of the hall that each ray from ``pose`` meets."""
    dx, dy = np.cos(angles), np.sin(angles)
    best, label = np.full(angles.shape, 40.0), np.full(angles.shape, 5)
    for name, _, x0, y0, x1, y1 in HALL:
        with np.errstate(divide="ignore", invalid="ignore"):
            tx = np.sort(np.stack([(x0 - pose[0]) / dx, (x1 - pose[0]) / dx]), axis=0)
            ty = np.sort(np.stack([(y0 - pose[1]) / dy, (y1 - pose[1]) / dy]), axis=0)
        near, far = np.maximum(tx[0], ty[0]), np.minimum(tx[1], ty[1])
        hit = (near < far) & (near > 0) & (near < best)
        best, label = np.where(hit, near, best), np.where(hit, CLASSES.index(name), label)
    return best, label


def _camera_sample(random: Any, pose: list[float]) -> dict[str, Any]:
    columns = np.linspace(0.6, -0.6, 224)
    distance, label = _cast(pose, pose[2] + columns)
    rows = np.arange(224)[:, None]
    top, bottom = 112 - 190 / distance, 112 + 190 / distance
    truth = np.where(rows > bottom, 0, np.where(rows > top, label, 5)).astype(np.uint8)
    base = np.array([[120, 122, 118], [88, 104, 130], [214, 140, 52], [150, 60, 90], [60, 90, 160], [196, 210, 222]])
    shade = np.clip(1.15 - distance / 30, 0.4, 1)[None, :, None]
    color = (base[truth] * shade + random.normal(0, 5, (224, 224, 3))).clip(0, 255).astype(np.uint8)
    predicted = np.roll(truth, 2, axis=1)
    predicted[:14, :60] = 1
    return {"color": color, "predicted": predicted, "truth": truth, "hazard": 0.82, "hazard_truth": 1}


def _lidar_sample(random: Any, pose: list[float]) -> dict[str, Any]:
    azimuth = 2 * np.pi * np.arange(512) / 512
    elevation = np.radians(np.linspace(15, -45, 16))[:, None]
    planar, label = _cast(pose, pose[2] + azimuth)
    floor = np.where(elevation < 0, 1.3 / np.tan(np.maximum(-elevation, 1e-3)), 99) + 0 * azimuth
    reach = np.minimum(planar, floor)
    truth = np.where(floor < planar, 0, label).astype(np.uint8)
    reach = reach * random.normal(1, 0.003, reach.shape)
    points = np.stack([reach * np.cos(azimuth), reach * np.sin(azimuth), reach * np.tan(elevation)], axis=-1)
    points[reach > 30] = 0
    predicted = np.where(random.random(truth.shape) < 0.02, 1, truth).astype(np.uint8)
    free = np.array(_clearance(pose))
    return {
        "points": points.reshape(-1, 3).astype(np.float32),
        "predicted": predicted.reshape(-1),
        "truth": truth.reshape(-1),
        "clearance": (free * random.normal(1, 0.04, 16)).astype(np.float32),
        "clearance_truth": free.astype(np.float32),
    }


def _start(name: str, sensors: Any, finished: bool) -> dict[str, Any]:
    plan = {
        "bounds": [0, 0, 18, 10],
        "footprints": [
            {"class": kind, "label": label, "polygon": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]}
            for kind, label, x0, y0, x1, y1 in HALL
        ],
        "route": [[15.4, 5], [8.5, 8.6], [1.6, 5], [8.5, 1.4]],
        "movers": [{"class": "person", "path": [[14.8, 4.4], [14.8, 2.0]]}],
    }
    configuration = {
        "description": "A humanoid walks its round through a warehouse; camera and LiDAR keep it clear of people.",
        "scene": "warehouse.usda",
        "simulator": {"backend": "newton", "step": 0.02, "pace": "lockstep"},
        "sensors": {
            sensor: {"kind": kind, "rate": 10.0, **({"range_max": 30.0} if kind == "lidar" else {})}
            for sensor, kind in sensors
        },
        "run": {"frames": 120, "seed": 7},
    }
    return {
        "schema": 1,
        "name": name,
        "state": "finished" if finished else "running",
        "started": "2026-03-02T09:14:05.120+01:00",
        "deadline_ms": 100.0,
        "seed": 7,
        "device": "cpu",
        "configuration": configuration,
        "sources": {
            "description": "file config/warehouse.yaml",
            "scene": "file config/warehouse.yaml",
            "simulator.backend": "default",
            "simulator.step": "default",
            "simulator.pace": "--set",
            "run.frames": "--frames",
            "run.seed": "file config/warehouse.yaml",
        },
        "versions": {"saccade": "0.1.0", "python": "3.11.8", "newton": "1.8.0", "warp": "1.19.0"},
        "host": {"cpu": "Example CPU, 2 cores", "memory_gib": 7.8, "system": "Linux 6.1", "gpu": None},
        "hashes": {"scene": "9f" * 32, "model camera": "1c" * 32},
        "engine": {"camera": {"name": "onnxruntime", "device": "cpu"}},
        "simulator": {"name": "newton", "solver": "mujoco", "floor_plan": plan},
    }


def _performance(random: Any, kind: str | None, sensors: Any, readers: Any) -> dict[str, Any]:
    """What docs/record.md says of how the frame ran, what crossed PCIe, clocks, GPU samples and user functions."""
    if kind is None:
        return {}
    if kind == "cpu":
        reason = "NVML is not installed: pip install nvidia-ml-py"
        fields = ("gpu_utilisation_percent", "memory_used_bytes", "power_w", "energy_j", "throttle_reasons")
        facts, series = _sampled(random, 410, {"process_cpu_percent": (140, 25)})
        return {
            "execution": {"mode": "eager", "scope": None, "reason": "the run is on the CPU", "physics": "cpu"},
            "residency": {"proven": False, "reason": "an eager run on the CPU: nothing crosses", "graphs": []},
            "gpu": {**facts, "absent": dict.fromkeys(fields, reason)},
            "gpu_series": series,
            "profile": {},
        }
    graphs = [
        {
            "sensors": [sensor],
            "nodes": {"kernel": 41 + index, "memcpy": 3, **({"memset": 2} if index == 0 else {})},
            "host_to_device_bytes": 0,
            "device_to_host_bytes": 96 + 64 * index,
            "device_to_device_bytes": 602112 * (index + 1),
        }
        for index, (sensor, _) in enumerate(sensors)
    ]
    quantities = {
        "gpu_utilisation_percent": (61, 9),
        "memory_utilisation_percent": (14, 3),
        "memory_used_bytes": (5.1 * 2**30, 2**26),
        "process_memory_bytes": (3.2 * 2**30, 2**26),
        "power_w": (312, 40),
        "sm_clock_mhz": (1902, 60),
        "memory_clock_mhz": (2619, 0),
        "temperature_c": (47, 1.2),
        "process_cpu_percent": (118, 12),
    }
    facts, series = _sampled(random, 900, quantities)
    device = {"name": "Example GPU", "uuid": "GPU-0", "memory_total_bytes": 80 * 2**30, "power_limit_w": 350.0}
    facts |= {
        "device": device,
        "energy_j": 27811.4,
        "throttle_reasons": {"gpu_idle": 0.081, "sw_power_cap": 0.034},
        "absent": {},
    }
    return {
        "device": "cuda:0",
        "execution": {
            "mode": "graph",
            "scope": "frame",
            "reason": None,
            "graphs": len(graphs),
            "captures": len(graphs) + 1,
            "recaptures": 1,
            "replays": 812,
            "copied_inputs": 0,
            "physics": "eager",
        },
        "residency": {
            "proven": True,
            "reason": None,
            "graphs": graphs,
            "host_to_device_bytes": 0,
            "device_to_host_bytes": sum(graph["device_to_host_bytes"] for graph in graphs),
            "kernel_writes": {"results and stamps": 264},
            "declared_uploads": {},
            "taps": {f"samples of {sensors[0][0]}": {"bytes": 4816896, "count": 3}},
        },
        "clock": {
            "source": "GPU global timer, mapped by paired samples",
            "tick_ns": 32,
            "uncertainty_us": {"mean": 1.812, "max": 3.4071},
            "pairs": 328,
            "jumps": 0,
            "clamped": 2,
        },
        "gpu": facts,
        "gpu_series": series,
        "engine": {
            reader: {
                "engine": "TensorRT",
                "version": "8.5.3.1",
                "precision": "fp16",
                "memory_bytes": 9_437_184,
                "plan_bytes": 3_105_792,
                "qualification": {
                    "relative_l2": {"labels": 0.00231, "hazard": 0.00048},
                    "label_agreement": 0.99871,
                    "non_finite": 0,
                    "samples": 16,
                    "passed": True,
                    "limits": {"relative_l2": 0.01, "label_agreement": 0.99},
                },
            }
            for reader in readers
        },
        "profile": {
            "planner.plan": {
                "calls": 812,
                "failed": 0,
                "wall_ms": describe(random.gamma(30, 0.012, 812)),
                "gpu_ms": describe(random.gamma(30, 0.004, 812)),
                "gpu_memory_change_bytes": describe(np.r_[2.0**21, np.zeros(811)]),
                "absent": {},
            },
            "write map": {
                "calls": 12,
                "failed": 1,
                "wall_ms": describe(random.gamma(4, 3, 12)),
                "absent": {"gpu_ms": "12 of 12 calls: ValueError: Invalid device identifier: cuda:3"},
            },
        },
    }


def _sampled(random: Any, count: int, quantities: dict[str, tuple[float, float]]) -> tuple[Any, Any]:
    """Facts and series of made-up samples (mean and spread by quantity), in the sampler's own shape."""
    drawn = {
        name: np.maximum(mean + spread * (random.normal(size=count) + np.sin(np.arange(count) / 90)), 0)
        for name, (mean, spread) in quantities.items()
    }
    series = ThinnedSeries(600)
    kept: dict[str, Any] = {name: array("d") for name in drawn}
    for index in range(count):
        # NVML did not answer for a while.
        gone = {"power_w"} if 400 <= index < 430 else set()
        found = {name: float(values[index]) for name, values in drawn.items() if name not in gone}
        series.add(index * 0.1, found)
        for name, value in found.items():
            kept[name].append(value)
    facts: dict[str, Any] = {"samples": count, "period_s": 0.1, "round_ms": {"mean": 0.41, "max": 2.2}}
    return {**facts, **{name: _statistics(values) for name, values in kept.items()}}, series.as_dict()


def _summary(name: str, header: Any, frames: Any, sensors: Any, readers: Any, budgets: Any) -> dict[str, Any]:
    judged = [frame for frame in frames if frame["phase"] == "judged"]
    firsts = list({frame["tick"]: frame for frame in reversed(judged)}.values())
    latency = describe([frame["latency_ms"] for frame in firsts])
    inference = describe([frame["inference_ms"] for frame in judged if frame["inference_ms"] is not None])
    late = sum(frame["latency_ms"] > 100 for frame in firsts)
    found = _accuracy(judged, readers)
    run = {
        "finished": "2026-03-02T09:14:49.120+01:00",
        "frames": len(firsts),
        "dropped": 0,
        "stale": 0,
        "lost": 0,
        "latency_ms": latency,
        "inference_ms": inference,
        "stages_ms": _stages(judged),
        "sensors": {
            sensor: {
                "kind": kind,
                "rate_hz": 10.0,
                "achieved_hz": 10.0,
                "produced": len(firsts),
                "judged": len(firsts),
                "dropped": 0,
                "duplicates": 0,
                "out_of_order": 0,
                "latency_ms": describe([frame["latency_ms"] for frame in judged if frame["sensor"] == sensor]),
                "inference_ms": describe(
                    [frame["inference_ms"] for frame in judged if frame["sensor"] == sensor and frame["inference_ms"]]
                ),
                "stages_ms": _stages([frame for frame in judged if frame["sensor"] == sensor]),
            }
            for sensor, kind in sensors
        },
        "deadline_misses": late,
        "deadline_miss_rate": proportion(late, len(firsts)),
        "realtime_factor": 1.3217384,
        "simulated_s": len(firsts) / 10,
        "wall_s": len(firsts) / 13.217384,
        "accuracy": found,
        "contacts": sum(len(frame["contacts"]) for frame in judged),
        "contact_list": [],
        "distance_m": firsts[0]["distance"] - firsts[-1]["distance"],
        "recorder": {"records": len(frames), "lost": 0, "hand_over_us": {"mean": 3.1, "max": 41.0}},
    }
    run["budgets"] = _budgets(run) if budgets is None else budgets
    states = [budget["passed"] for budget in run["budgets"]]
    run["verdict"], run["exit_status"] = ("fail", 1) if False in states else ("pass", 0)
    run["reasons"] = [
        f"{budget['name']} is {budget['value']:.4g}, its limit is {budget['comparison']} {budget['limit']:g}"
        for budget in run["budgets"]
        if budget["passed"] is False
    ]
    return run


def _stages(frames: Any) -> dict[str, Any]:
    found = {}
    for stage, first, last in zip(STAGES, STAMPS, STAMPS[1:], strict=False):
        values = [
            (frame["stamps"][last] - frame["stamps"][first]) * 1e-6
            for frame in frames
            if frame["stamps"][last] and frame["stamps"][first]
        ]
        found[stage] = describe(values)
    return found


def _accuracy(judged: Any, readers: Any) -> dict[str, Any]:
    networks: dict[str, Any] = {}
    for reader, (_, kind) in readers.items():
        results = [frame["results"][reader] for frame in judged if reader in frame["results"]]
        if not results or results[0]["union"] is None:
            continue
        intersection, union = (np.sum([result[key] for result in results], axis=0) for key in ("intersection", "union"))
        iou = {name: float(a / b) if b else None for name, a, b in zip(CLASSES, intersection, union, strict=True)}
        seen = [value for value in iou.values() if value is not None]
        right = sum(result["agree"] for result in results) / sum(result["valid"] for result in results)
        networks[reader] = {
            "sensor_kind": kind,
            "classes": list(CLASSES),
            "iou": iou,
            "miou": float(np.mean(seen)),
            "pixel_accuracy": right,
        }
    scored = [
        (result["hazard"] >= 0.5, frame["truth"]["hazard"])
        for frame in judged
        if frame["truth"]
        for result in frame["results"].values()
        if result["hazard"] is not None
    ]
    tp, fn, fp, tn = (scored.count(case) for case in ((True, True), (False, True), (True, False), (False, False)))
    errors = [
        abs(a - b)
        for frame in judged
        if frame["truth"]
        for result in frame["results"].values()
        if result["clearance"]
        for a, b in zip(result["clearance"], frame["truth"]["clearance"], strict=True)
    ]
    by_kind = {entry["sensor_kind"]: entry["miou"] for entry in networks.values()}
    return {
        "camera_miou": by_kind.get("camera"),
        "lidar_miou": by_kind.get("lidar"),
        "hazard_auroc": 0.9873 if scored else None,
        "clearance_error_m": float(np.median(errors)) if errors else None,
        "hazard": {
            "threshold": 0.5,
            "tp": tp,
            "fp": fp,
            "tn": tn,
            "fn": fn,
            "recall": proportion(tp, tp + fn),
            "precision": proportion(tp, tp + fp),
        }
        if scored
        else None,
        "clearance": describe(errors),
        "networks": networks,
    }


def _budgets(run: dict[str, Any]) -> list[dict[str, Any]]:
    p95, missed = run["latency_ms"]["p95"], run["deadline_miss_rate"]
    recall = (run["accuracy"]["hazard"] or {}).get("recall") or {"value": None, "low": None, "high": None, "n": 0}
    rows = [
        ("latency_p95_ms", "p95 of the latency from state to decision", "ms", "<=", 100.0, p95),
        ("deadline_miss_rate", "decisions later than 100 ms", "", "<=", 0.05, missed),
        ("dropped", "samples due and not delivered", "", "<=", 0, {"value": run["dropped"]}),
        ("camera_miou", "mIoU of the camera networks", "", ">=", 0.7, {"value": run["accuracy"]["camera_miou"]}),
        ("lidar_miou", "mIoU of the LiDAR networks", "", ">=", 0.8, {"value": run["accuracy"]["lidar_miou"]}),
        ("hazard_recall", "hazards that were found", "", ">=", 0.95, recall),
        ("contacts", "contacts with anything but the floor", "", "<=", 0, {"value": run["contacts"]}),
    ]
    found = []
    for name, description, unit, comparison, limit, entry in rows:
        value = entry.get("value")
        passed = None if value is None else value <= limit if comparison == "<=" else value >= limit
        found.append(
            {
                "name": name,
                "description": description,
                "unit": unit,
                "comparison": comparison,
                "limit": limit,
                "value": value,
                "low": entry.get("low"),
                "high": entry.get("high"),
                "n": entry.get("n") or run["frames"],
                "passed": passed,
                "reason": entry.get("reason") or ("no value" if value is None else ""),
            }
        )
    return found
