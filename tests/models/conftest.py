from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saccade.models import dataset

SAMPLES = 4


def camera_samples(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Plain pictures: floor below, background above, and a person in the middle of every other one."""
    labels = np.zeros((SAMPLES, 224, 224), dtype=np.uint8)
    labels[:, :100] = 5
    hazard = np.arange(SAMPLES) % 2 == 0
    for sample in np.flatnonzero(hazard):
        column = int(random.integers(30, 80))  # left of the middle
        labels[sample, 100:180, column : column + 40] = 3
    colors = np.array(
        [[90, 90, 90], [200, 180, 50], [50, 50, 200], [200, 40, 40], [10, 10, 10], [180, 200, 240]], np.uint8
    )
    return {
        "images": colors[labels],
        "labels": labels,
        "proximity": (labels == 3)[:, ::8, ::8],
        "nearness": np.full((SAMPLES, 28, 28), 80, np.uint8),
        "hazard": hazard,
        "poses": np.zeros((SAMPLES, 3), np.float32),
    }


def lidar_samples(random: np.random.Generator) -> dict[str, np.ndarray]:
    """A round room of 8 m with a person in it."""
    elevation = np.radians(np.linspace(15, -45, 32))
    floor = np.where(elevation < 0, 1.7 / np.maximum(np.sin(-elevation), 1e-6), np.inf)
    ranges = np.broadcast_to(np.minimum(floor, 8 / np.cos(elevation))[None, :, None], (SAMPLES, 32, 1024)).copy()
    labels = np.broadcast_to(np.where(floor < 8 / np.cos(elevation), 0, 1)[None, :, None], ranges.shape).astype(
        np.uint8
    )
    for sample in range(SAMPLES):
        columns = (int(random.integers(0, 1024)) + np.arange(50)) % 1024
        distance = random.uniform(1, 5) / np.cos(elevation)
        nearer = distance[:, None] < ranges[sample][:, columns]
        ranges[sample][:, columns] = np.where(nearer, distance[:, None], ranges[sample][:, columns])
        labels[sample][:, columns] = np.where(nearer, 3, labels[sample][:, columns])
    gate = labels != 0
    horizontal = np.where(gate, ranges * np.cos(elevation)[None, :, None], 30.0).min(axis=1)
    clearance = np.roll(horizontal, 32, axis=-1).reshape(SAMPLES, 16, 64).min(axis=-1)
    return {
        "ranges": ranges.astype(np.float32),
        "intensity": (labels * 40 + 10).astype(np.uint8),
        "labels": labels,
        "gate": gate,
        "clearance": clearance.astype(np.float32),
        "poses": np.zeros((SAMPLES, 3), np.float32),
    }


@pytest.fixture
def drawn_dataset(tmp_path: Path) -> Path:
    """A tiny dataset on disk whose samples are drawn, not rendered."""
    folder = tmp_path / "dataset"
    manifest = dataset._manifest(0, {"train": 2, "validation": 1, "test": 1}, SAMPLES)
    for part, seed in dataset._shards(manifest):
        random = np.random.default_rng(seed)
        dataset.write_shard(dataset.shard_path(folder, part, "camera", seed), "camera", camera_samples(random))
        dataset.write_shard(dataset.shard_path(folder, part, "lidar", seed), "lidar", lidar_samples(random))
    dataset.write_manifest(folder, manifest)
    return folder
