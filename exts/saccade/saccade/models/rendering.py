"""Renders dataset samples with the embedded simulator: one randomised layout at a time, several at once."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from saccade.errors import DependencyError, SaccadeError
from saccade.frame import BACKGROUND, FLOOR, ROBOT
from saccade.models.dataset import KINDS, SENSORS, shard_path, write_manifest, write_shard
from saccade.models.progress import Report

CELL = 8
"""Edge of a cell of the camera's coarse maps [px]."""
TOO_CLOSE = 0.35
"""Clearance below which a pose counts as taken [m]."""
WALKING = 0.75
"""Share of the poses taken from the walk; the others stand."""


def render_scenes(
    folder: Path, manifest: dict[str, Any], missing: list[tuple[str, int]], *, workers: int | None, report: Report
) -> None:
    """Renders the missing layouts of a dataset, each for every kind of sensor, and writes its manifest.

    Finished layouts are kept when this is interrupted, and skipped the next time.

    Args:
        folder: The dataset's folder.
        manifest: As from :func:`saccade.models.dataset.read_manifest`; versions and minutes are filled in.
        missing: Part and scene seed of what is to be rendered.
        workers: Processes; ``None`` = one per core, at most 8.
        report: Called as layouts are done.

    Raises:
        DependencyError: The embedded simulator is not installed.
        SaccadeError: A layout cannot be rendered.
    """
    _require_simulator()
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(len(seeds) for seeds in manifest["seeds"].values())
    done = total - len(missing)
    began = time.monotonic()
    manifest["versions"] = _versions()
    write_manifest(folder, manifest)
    report("layouts", done, total, "starting")
    tasks = [(str(folder), part, seed, int(manifest["poses"])) for part, seed in missing]
    with _pool(workers) as pool:
        waiting = {pool.submit(render_scene, *task) for task in tasks}
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                try:
                    note = future.result()
                except BrokenProcessPool as error:
                    raise SaccadeError(
                        "a rendering process died (out of memory?): start again with fewer workers; finished "
                        "layouts are kept"
                    ) from error
                done += 1
                report("layouts", done, total, note)
    manifest["minutes"] = round(float(manifest.get("minutes") or 0) + (time.monotonic() - began) / 60, 2)
    write_manifest(folder, manifest)


@contextlib.contextmanager
def _pool(workers: int | None) -> Any:
    """Yields a process pool whose processes end at once when this one is interrupted."""
    count = workers or min(8, os.cpu_count() or 1)
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=_ignore_interrupt)
    try:
        yield pool
    except BaseException:
        # They ignore the interrupt themselves, so that only this process says anything about it.
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        raise
    pool.shutdown()


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _require_simulator() -> None:
    import importlib.util

    absent = [name for name in ("newton", "mujoco", "pxr", "PIL") if importlib.util.find_spec(name) is None]
    if absent:
        raise DependencyError(
            f"rendering a dataset needs the embedded simulator ({', '.join(absent)} missing): pip install "
            f"'saccade[sim]', or "
            "give a rendered dataset with --cache"
        )


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("newton", "warp-lang", "mujoco", "usd-core", "numpy")}


def render_scene(folder: str, part: str, seed: int, poses: int) -> str:
    """Renders one layout for every kind of sensor and returns a note about it; runs in a process of its own."""
    from saccade.config import RunConfig
    from saccade.scenes.author_poses import free_poses
    from saccade.scenes.author_scene import author_scene
    from saccade.simulators.newton import NewtonSimulator

    with tempfile.TemporaryDirectory(prefix="saccade-scene-") as scratch:
        scene = Path(scratch) / "scene.usda"
        author_scene(scene, layout="random", seed=seed)
        config = RunConfig.model_validate({"scene": str(scene), "sensors": SENSORS})
        simulator = NewtonSimulator(config, device="cpu")
        try:
            simulator.open(scene)
            samples = render_poses(simulator, free_poses(scene, poses, seed=seed), np.random.default_rng([seed, 1]))
        finally:
            simulator.close()
    for kind in KINDS:
        write_shard(shard_path(Path(folder), part, kind, seed), kind, samples[kind])
    return f"hazard in {samples['camera']['hazard'].mean():.0%}"


def render_poses(simulator: Any, poses: Any, random: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    """Returns samples by kind of sensor, as documented at :func:`saccade.models.dataset.write_shard`.

    Args:
        simulator: Open simulator with the sensors ``camera`` and ``lidar``.
        poses: Free poses x, y [m], yaw [rad].
        random: Source of gait phases and times.
    """
    rows: dict[str, dict[str, list[Any]]] = {kind: {} for kind in KINDS}
    for x, y, yaw in poses:
        walk = {"gait_phase": float(random.random()), "gait_speed": 0.0, "time": float(random.uniform(0.0, 120.0))}
        if random.random() < WALKING:
            walk["gait_speed"] = float(random.uniform(0.2, 1.2))
        pose = (float(x), float(y), float(yaw))
        frames, truths = _placed(simulator, pose, walk)
        if min(truths["lidar"].clearance) < TOO_CLOSE:
            # Someone walks through this place at that time; at the start it is free.
            walk["time"] = 0.0
            frames, truths = _placed(simulator, pose, walk)
        for kind, sample in (("camera", camera_sample), ("lidar", lidar_sample)):
            values = sample(simulator, frames[kind], truths[kind])
            values["poses"] = np.array(pose, dtype=np.float32)
            for name, value in values.items():
                rows[kind].setdefault(name, []).append(value)
    return {kind: {name: np.stack(values) for name, values in columns.items()} for kind, columns in rows.items()}


def _placed(
    simulator: Any, pose: tuple[float, float, float], walk: dict[str, float]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns frames and truths by kind of sensor at a pose."""
    simulator.place(*pose, **walk)
    frames = {frame.kind: frame for frame in simulator.sense_now()}
    return frames, {kind: simulator.ground_truth(frame) for kind, frame in frames.items()}


def camera_sample(simulator: Any, frame: Any, truth: Any) -> dict[str, Any]:
    """Returns one camera sample, with the coarse maps that the hazard head is taught with."""
    labels = truth.labels.numpy().copy()
    depth = frame.buffers["depth"].numpy()
    packed = np.ascontiguousarray(frame.buffers["color"].numpy())
    image = packed.view(np.uint8).reshape(*packed.shape, 4)[..., :3].copy()
    points = _world_points(depth, _sensor(simulator, frame.sensor))
    inside = in_corridor(points, simulator.state, _floor_height(simulator))
    inside &= (depth > 0) & (labels != FLOOR) & (labels != ROBOT)
    nearness = np.where(depth > 0, 1.0 / (1.0 + depth), 0.0)
    return {
        "images": image,
        "labels": labels,
        "proximity": _cells(inside).any(axis=-1),
        "nearness": np.rint(255.0 * _cells(nearness).mean(axis=-1)).astype(np.uint8),
        "hazard": np.bool_(truth.hazard),
    }


def lidar_sample(simulator: Any, frame: Any, truth: Any) -> dict[str, Any]:
    """Returns one LiDAR sample, with the mask of returns that count for the clearance."""
    from saccade.simulators.newton_truth import CLEARANCE_HEIGHTS

    ranges = frame.buffers["ranges"].numpy().copy()
    labels = truth.labels.numpy().copy()
    sensor = _sensor(simulator, frame.sensor)
    pose = sensor.transform.numpy()[0]
    points = _rotated(pose[3:7], _directions(sensor) * ranges[..., None])
    height = points[..., 2] + pose[2] - _floor_height(simulator)
    low, high = CLEARANCE_HEIGHTS
    gate = (ranges > 0) & (height >= low) & (height <= high)
    gate &= (labels != FLOOR) & (labels != ROBOT) & (labels != BACKGROUND)
    return {
        "ranges": ranges,
        "intensity": np.rint(255.0 * frame.buffers["intensity"].numpy()).astype(np.uint8),
        "labels": labels,
        "gate": gate,
        "clearance": np.array(truth.clearance, dtype=np.float32),
    }


def _sensor(simulator: Any, name: str) -> Any:
    """Returns a sensor of the simulator: its pose and intrinsics are no part of a frame."""
    return simulator._sensors[name]


def _floor_height(simulator: Any) -> float:
    return float(simulator._scene.floor_height)


def in_corridor(points: np.ndarray, state: Any, floor_height: float) -> np.ndarray:
    """Returns which world points [m], shape ``(..., 3)``, lie in the walking corridor ahead of the base."""
    from saccade.simulators.newton_truth import CORRIDOR_LENGTH, CORRIDOR_TOP, CORRIDOR_WIDTH, MIN_HEIGHT

    x, y = points[..., 0] - state.position[0], points[..., 1] - state.position[1]
    cos, sin = math.cos(state.yaw), math.sin(state.yaw)
    ahead, left = cos * x + sin * y, cos * y - sin * x
    height = points[..., 2] - floor_height
    inside = (ahead >= 0.0) & (ahead <= CORRIDOR_LENGTH) & (np.abs(left) <= CORRIDOR_WIDTH / 2)
    return inside & (height > MIN_HEIGHT) & (height < CORRIDOR_TOP)


def _world_points(depth: np.ndarray, sensor: Any) -> np.ndarray:
    """Returns the world points [m] that a camera's planar depth shows, shape ``(height, width, 3)``."""
    lens, pose = sensor.intrinsics, sensor.transform.numpy()[0]
    right = (np.arange(lens.width) + 0.5 - lens.cx) / lens.fx
    down = (np.arange(lens.height) + 0.5 - lens.cy) / lens.fy
    rays = np.stack(
        [np.broadcast_to(right, depth.shape), np.broadcast_to(-down[:, None], depth.shape), np.full(depth.shape, -1.0)],
        -1,
    )
    return _rotated(pose[3:7], rays * depth[..., None]) + pose[:3]


def _directions(sensor: Any) -> np.ndarray:
    """Returns the unit directions of a LiDAR's rays in its frame, shape ``(channels, columns, 3)``."""
    elevation = np.asarray(sensor.intrinsics.elevation)[:, None]
    azimuth = 2 * math.pi * np.arange(sensor.intrinsics.columns) / sensor.intrinsics.columns
    return np.stack(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.broadcast_to(np.sin(elevation), (len(elevation), len(azimuth))),
        ],
        axis=-1,
    )


def _rotated(quaternion: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    axis, w = quaternion[:3].astype(float), float(quaternion[3])
    turned = 2 * np.cross(axis, vectors)
    return vectors + w * turned + np.cross(axis, turned)


def _cells(image: np.ndarray) -> np.ndarray:
    """Returns the pixels of each cell along the last axis, shape ``(height / 8, width / 8, 64)``."""
    rows, columns = image.shape[0] // CELL, image.shape[1] // CELL
    return image.reshape(rows, CELL, columns, CELL).transpose(0, 2, 1, 3).reshape(rows, columns, CELL * CELL)
