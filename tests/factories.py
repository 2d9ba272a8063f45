"""Synthetic records for tests only: plausible in shape, invented in content, never shown as a measurement."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from saccade.config import Budgets
from saccade.frame import CLASS_COUNT, CLASSES, SECTOR_COUNT
from saccade.telemetry.recorder import Recorder

PERIOD_NS = 100_000_000
RANGE_MAX = 30.0


def make_header(ticks=100, warmup=5, **fields):
    """The header of a run with a camera and a LiDAR at 10 Hz and a network on each."""
    return {
        "kind": "header",
        "schema": 1,
        "run": "synthetic",
        "created": "2026-01-01T00:00:00.000+00:00",
        "sensors": {
            "head_camera": {"kind": "camera", "rate": 10.0},
            "lidar": {"kind": "lidar", "rate": 10.0, "range_max": RANGE_MAX},
        },
        "networks": {
            "camera": {"sensor": "head_camera", "classes": list(CLASSES), "hazard_threshold": 0.5},
            "lidar": {"sensor": "lidar", "classes": list(CLASSES), "hazard_threshold": 0.5},
        },
        "deadline_ms": 100.0,
        "frames_expected": ticks,
        "warmup": warmup,
        **fields,
    }


def make_frames(ticks=100, *, seed=0, warmup=5, contacts=(), dropped=(), duplicate=(), nan=(), stall=None, slow=()):
    """Frame records of a synthetic run.

    Args:
        ticks: Judged decisions.
        seed: Of everything random.
        warmup: Decisions before them.
        contacts: Ticks with a contact onset.
        dropped: Ticks at which the camera reports one dropped sample.
        duplicate: Ticks at which the camera delivers the sample before again.
        nan: Ticks at which the camera network gives NaN (recorded as null).
        stall: Tick from which the LiDAR delivers nothing for five ticks.
        slow: Ticks that take 130 ms.
    """
    rng = random.Random(seed)
    frames, index, camera_sequence, distance = [], 0, -1, 0.0
    x, y, yaw = 0.0, 0.0, 0.0
    clock = 1_000_000_000_000
    for tick in range(warmup + ticks):
        sim_time = 0.1 * (tick + 1)
        hazard = (tick // 10) % 4 == 1
        clock += PERIOD_NS
        state = clock + rng.randrange(1_000_000)
        speed = 0.3 if hazard else 0.7
        x, y, yaw = x + 0.1 * speed * math.cos(yaw), y + 0.1 * speed * math.sin(yaw), yaw + rng.gauss(0.005, 0.02)
        distance += 0.1 * speed
        sense = int(rng.lognormvariate(16.0, 0.15))
        stall_now = stall is not None and stall <= tick < stall + 5
        camera_sequence += 1 + (tick in dropped)
        sequences = {"head_camera": camera_sequence - (tick in duplicate), "lidar": tick}
        now = state + sense
        group = []
        for sensor, network in (("head_camera", "camera"), ("lidar", "lidar")):
            if sensor == "lidar" and stall_now:
                continue
            stamps = {"sim_state": state, "sensed": state + sense}
            now += rng.randrange(20_000, 60_000)
            stamps["handed_over"] = now
            for stamp, base in (("preprocessed", 12.5), ("inferred", 16.0), ("on_host", 12.0)):
                now += int(rng.lognormvariate(base, 0.2))
                stamps[stamp] = now
            if tick in slow:
                now += 100_000_000
                stamps["on_host"] = now
            group.append((sensor, network, stamps))
        now += rng.randrange(20_000, 80_000)
        true_clearance = [round(min(RANGE_MAX, abs(rng.gauss(4, 3)) + 0.4), 3) for _ in range(SECTOR_COUNT)]
        for position, (sensor, network, stamps) in enumerate(group):
            stamps |= {"decided": now, "published": None, "applied": now + rng.randrange(50_000, 200_000)}
            frames.append(
                {
                    "kind": "frame",
                    "index": index,
                    "tick": tick,
                    "phase": "warmup" if tick < warmup else "judged",
                    "sensor": sensor,
                    "sequence": sequences[sensor],
                    "sim_time": sim_time,
                    "dropped": int(sensor == "head_camera" and tick in dropped),
                    "stamps": stamps,
                    "latency_ms": (stamps["decided"] - stamps["sim_state"]) * 1e-6,
                    "inference_ms": (stamps["on_host"] - stamps["handed_over"]) * 1e-6,
                    "applied_sim_time": sim_time,
                    "results": {network: _result(rng, network, hazard, true_clearance, broken=tick in nan)},
                    "truth": {"hazard": hazard, "clearance": true_clearance},
                    "command": {
                        "linear": [speed, 0.0],
                        "yaw_rate": rng.gauss(0, 0.1),
                        "source": "reflex",
                        "reason": "slow" if hazard else "cruise",
                    },
                    "pose": [x, y, yaw],
                    "distance": distance,
                    "contacts": [{"sim_time": sim_time - 0.04, "body": "/humanoid/arm", "other": "/world/rack"}]
                    if tick in contacts and position == 0
                    else [],
                }
            )
            index += 1
    return frames


def _result(rng, network, hazard, clearance, *, broken):
    camera = network == "camera"
    pixels = 224 * 224 if camera else 32 * 1024
    shares = [0.45, 0.3, 0.12, 0.05, 0.0, 0.08] if camera else [0.6, 0.25, 0.1, 0.05, 0.0, 0.0]
    intersection, union = [], []
    for share in shares:
        true = int(pixels * share)
        right = int(true * min(1.0, max(0.0, rng.gauss(0.95, 0.015))))
        intersection.append(right)
        union.append(2 * true - right)
    score = None
    if camera and not (broken and camera):
        score = min(1.0, max(0.0, rng.gauss(0.88 if hazard else 0.12, 0.12)))
    said = None
    if not camera:
        said = [max(0.0, value + rng.gauss(0, 0.08)) for value in clearance]
    return {
        "hazard": score,
        "clearance": said,
        "finite": not (broken and camera),
        "intersection": intersection,
        "union": union,
        "valid": sum(int(pixels * share) for share in shares),
        "agree": sum(intersection),
    }


def write_record(directory, header, frames, end=True, **end_fields):
    """Writes a record with the real Recorder; ``end=False`` leaves the last line out, as a killed run does."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(directory, header)
    for frame in frames:
        recorder.put(frame)
    fields = {"reason": "completed", "message": "", "wall_s": 12.0, "simulated_s": 11.0, **end_fields}
    recorder.close(**fields)
    path = directory / "frames.jsonl"
    if not end:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    return path


def make_record(directory, ticks=100, seed=0, *, torn=False, cut=False, gap=None, reason="completed", **faults):
    """Writes a synthetic ``frames.jsonl`` into ``directory`` and returns its path.

    Args:
        directory: Run folder; made if need be.
        ticks: Judged decisions; 5 warm-up decisions (``warmup=``) come before them.
        seed: Of everything random.
        torn: Cut off in the middle of the last line.
        cut: Without the end line.
        gap: Index of a record that is missing.
        reason: How the run ended.
        faults: See :func:`make_frames`.
    """
    frames = make_frames(ticks, seed=seed, **faults)
    if gap is not None:
        frames = [frame for frame in frames if frame["index"] != gap]
    header = make_header(ticks, faults.get("warmup", 5))
    path = write_record(directory, header, frames, end=not (cut or torn), reason=reason)
    if torn:
        path.write_bytes(path.read_bytes()[:-40])
    return path


def make_document(name="synthetic", **fields):
    """A ``run_document`` as the loop collects it."""
    return {
        "schema": 1,
        "name": name,
        "started": "2026-01-01T00:00:00.000+00:00",
        "finished": "2026-01-01T00:00:20.000+00:00",
        "configuration": {"scene": "synthetic.usda", "run": {"frames": 100, "seed": 0}},
        "sources": {"scene": "file synthetic.yaml", "run.frames": "--frames", "run.seed": "default"},
        "seed": 0,
        "device": "cpu",
        "versions": {"saccade": "0", "python": "3"},
        "host": {"cpu": "synthetic", "cores": 2, "memory_mb": 1024.0, "gpu": None, "gpu_reason": "synthetic"},
        "hashes": {"scene": "0" * 64},
        "engine": {"camera": {"name": "synthetic"}, "lidar": {"name": "synthetic"}},
        "simulator": {"name": "synthetic"},
        "recorder": {"records": 210, "lost": 0, "hand_over_us": {"mean": 1.0, "max": 5.0}},
        **fields,
    }


def make_budgets(**fields):
    """The shipped budgets."""
    shipped = {
        "latency_p95_ms": 100,
        "deadline_miss_rate": 0.05,
        "dropped": 0,
        "stale": 0,
        "camera_miou": 0.7,
        "lidar_miou": 0.8,
        "hazard_recall": 0.95,
        "contacts": 0,
    }
    return Budgets(**{**shipped, **fields})


def make_run(directory, ticks=100, seed=0, *, budgets=None, document=None, **faults):
    """A whole finished run folder (without report and samples); returns the content of ``run.json``."""
    from saccade.validation.summary import finish_run

    make_record(directory, ticks, seed, **faults)
    return finish_run(directory, budgets or make_budgets(), document or make_document(Path(directory).name))


def rewrite(path, change):
    """Applies ``change`` to the list of decoded lines of a record and writes it back."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in change(lines)))


assert CLASS_COUNT == 6  # the shares above
