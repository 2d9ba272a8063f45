from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.errors import RecordError
from saccade.reporting.samples import read_sample, read_samples, write_sample


def test_a_sample_comes_back_as_it_was_written(tmp_path: Path) -> None:
    color = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    points = np.ones((4, 3), np.float32)
    entries = {"camera:eye:color": color, "camera:eye:hazard": 0.25, "lidar:scan:points": points}
    write_sample(tmp_path / "samples" / "000007.npz", 7, 1.5, entries)
    sample = read_sample(tmp_path / "samples" / "000007.npz")
    assert (sample.tick, sample.sim_time) == (7, 1.5)
    assert np.array_equal(sample.cameras["eye"]["color"], color)
    assert float(sample.cameras["eye"]["hazard"]) == 0.25
    assert np.array_equal(sample.lidars["scan"]["points"], points)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["000007.npz"]


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=40))
def test_any_network_name_survives(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    path = tmp_path_factory.mktemp("sample") / "a.npz"
    write_sample(path, 0, 0.0, {f"camera:{name}:truth": np.zeros((2, 2), np.uint8)})
    assert list(read_sample(path).cameras) == [name]
    assert [entry.name for entry in path.parent.iterdir()] == ["a.npz"]


def test_a_key_of_no_sample_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="camera:<network>"):
        write_sample(tmp_path / "a.npz", 0, 0.0, {"depth": 1})
    assert list(tmp_path.iterdir()) == []


def test_damaged_samples_are_named_and_the_others_read_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    for tick in (30, 5):
        write_sample(folder / f"{tick:06d}.npz", tick, tick / 10, {})
    (folder / "000009.npz").write_bytes(b"PK nonsense")
    whole = (folder / "000030.npz").read_bytes()
    (folder / "000031.npz").write_bytes(whole[: len(whole) // 2])
    samples, problems = read_samples(tmp_path)
    assert [sample.tick for sample in samples] == [5, 30]
    assert len(problems) == 2
    assert "000009.npz" in problems[0]
    with pytest.raises(RecordError, match="not a readable sample"):
        read_sample(folder / "000009.npz")
