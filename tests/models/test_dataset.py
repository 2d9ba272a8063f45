from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import ConfigurationError
from saccade.models import dataset


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 400), st.integers(1, 400))
def test_parts_and_data_seeds_never_share_a_layout(one, other, first, second):
    seen: set[int] = set()
    for part in dataset.PARTS:
        seeds = set(dataset.scene_seeds(part, data_seed=one, count=first))
        assert len(seeds) == first
        assert not seen & seeds
        seen |= seeds
    if one != other:
        for part in dataset.PARTS:
            assert not seen & set(dataset.scene_seeds(part, data_seed=other, count=second))


@pytest.mark.parametrize(("data_seed", "count"), [(-1, 1), (100, 1), (0, 0), (0, 10_001)])
def test_seeds_out_of_range_are_refused(data_seed, count):
    with pytest.raises(ConfigurationError, match="choose"):
        dataset.scene_seeds("train", data_seed=data_seed, count=count)


def test_key_follows_what_the_samples_depend_on():
    def key(**changes):
        return dataset.dataset_key(**{"data_seed": 0, "counts": {"train": 4}, "poses": 8, **changes})

    assert key() == key()
    assert len({key(), key(data_seed=1), key(counts={"train": 5}), key(poses=9)}) == 4


@pytest.mark.parametrize("kind", dataset.KINDS)
def test_a_shard_returns_what_was_written(kind, drawn_dataset, tmp_path):
    samples = dataset.load_part(drawn_dataset, kind, "validation")
    again = tmp_path / "again.npz"
    dataset.write_shard(again, kind, samples)
    found = dataset.read_shard(again, kind)
    assert set(found) == set(samples)
    for name, array in samples.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        if name == "images":  # JPEG of high quality, and this is its second round
            assert np.abs(found[name].astype(int) - array).mean() < 1.0
        elif name == "ranges":
            assert np.abs(found[name] - array).max() <= dataset.RANGE_STEP
        else:
            assert np.array_equal(found[name], array)


def test_ranges_survive_any_jump(tmp_path):
    random = np.random.default_rng(3)
    ranges = np.where(random.random((2, 32, 1024)) < 0.3, 0.0, random.uniform(0.15, 30.0, (2, 32, 1024))).astype(
        np.float32
    )
    path = tmp_path / "jumps.npz"
    dataset.write_shard(
        path, "lidar", {"ranges": ranges, "intensity": random.integers(0, 256, ranges.shape).astype(np.uint8)}
    )
    assert np.abs(dataset.read_shard(path, "lidar")["ranges"] - ranges).max() <= 0.51 * dataset.RANGE_STEP


def test_a_complete_dataset_is_taken_as_it_is(drawn_dataset):
    before = sorted(p.stat().st_mtime_ns for p in drawn_dataset.rglob("*") if p.is_file())
    assert dataset.ensure_dataset("camera", cache=drawn_dataset) == drawn_dataset
    assert sorted(p.stat().st_mtime_ns for p in drawn_dataset.rglob("*") if p.is_file()) == before


def test_a_damaged_shard_is_named(drawn_dataset):
    path = dataset.shard_path(drawn_dataset, "test", "lidar", dataset.read_manifest(drawn_dataset)["seeds"]["test"][0])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigurationError, match=path.name):
        dataset.load_part(drawn_dataset, "lidar", "test")


def test_a_missing_manifest_says_what_to_do(tmp_path):
    with pytest.raises(ConfigurationError, match=r"dataset\.json"):
        dataset.read_manifest(tmp_path)
