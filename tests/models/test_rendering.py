from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("newton")
pytest.importorskip("pxr")

from saccade.frame import FLOOR, ROBOT
from saccade.models import dataset, rendering


def test_corridor_turns_with_the_robot():
    state = SimpleNamespace(position=(2.0, 1.0, 0.9), yaw=math.pi / 2)
    points = np.array(
        [
            [2.0, 2.0, 0.5],  # 1 m ahead
            [2.0, 2.6, 0.5],  # 1.6 m ahead: too far
            [1.7, 2.0, 0.5],  # 0.3 m left
            [1.5, 2.0, 0.5],  # 0.5 m left: beside
            [2.0, 0.9, 0.5],  # behind
            [2.0, 2.0, 0.01],  # on the floor
            [2.0, 2.0, 2.1],  # overhead
        ]
    )
    assert rendering.in_corridor(points, state, 0.0).tolist() == [True, False, True, False, False, False, False]
    assert rendering.in_corridor(points + np.array([0, 0, 1.0]), state, 1.0)[0]


def test_cells_hold_their_pixels():
    image = np.arange(32 * 16).reshape(32, 16)
    cells = rendering._cells(image)
    assert cells.shape == (4, 2, 64)
    assert set(cells[1, 1]) == set(image[8:16, 8:16].ravel())


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """One small layout, rendered twice in folders of their own."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    for folder in folders:
        rendering.render_scene(str(folder), "train", 1_009_999, 4)
    return [
        {kind: dataset.read_shard(dataset.shard_path(folder, "train", kind, 1_009_999), kind) for kind in dataset.KINDS}
        for folder in folders
    ]


def test_the_same_seed_gives_the_same_samples(rendered):
    one, other = rendered
    for kind in dataset.KINDS:
        assert set(one[kind]) == set(other[kind])
        for name, array in one[kind].items():
            assert np.array_equal(array, other[kind][name]), (kind, name)


def test_samples_have_the_documented_shapes(rendered):
    camera, lidar = rendered[0]["camera"], rendered[0]["lidar"]
    assert camera["images"].shape == (4, 224, 224, 3)
    assert camera["labels"].shape == (4, 224, 224)
    assert camera["proximity"].shape == camera["nearness"].shape == (4, 28, 28)
    assert lidar["ranges"].shape == lidar["labels"].shape == lidar["gate"].shape == (4, 32, 1024)
    assert lidar["clearance"].shape == (4, 16)
    assert camera["images"].std() > 10
    assert (camera["labels"] == FLOOR).any()
    assert not (lidar["labels"] == ROBOT).any()


def test_samples_agree_with_themselves(rendered):
    """What the coarse maps and masks say follows from the truth that the simulator gives as single values."""
    camera, lidar = rendered[0]["camera"], rendered[0]["lidar"]
    # A cell in the corridor is a hazard; the other way round, a thing may hide behind the image's edge.
    assert not (camera["proximity"].any(axis=(1, 2)) & ~camera["hazard"]).any()
    elevation = np.radians(np.linspace(15.0, -45.0, 32))[:, None]
    distance = np.where(lidar["gate"], lidar["ranges"] * np.cos(elevation), 30.0).min(axis=1)
    nearest = np.roll(distance, 32, axis=-1).reshape(4, 16, 64).min(axis=-1)
    # The head bobs and nods a little, which moves returns across the limits of sectors.
    assert np.median(np.abs(nearest - lidar["clearance"])) < 0.02
    assert not lidar["gate"][lidar["labels"] == FLOOR].any()
    assert (lidar["ranges"][lidar["gate"]] > 0).all()


@pytest.mark.slow
def test_an_interrupted_dataset_goes_on_where_it_stopped(tmp_path):
    manifest = dataset._manifest(0, {"train": 2, "validation": 1, "test": 1}, 2)
    dataset.write_manifest(tmp_path, manifest)
    calls = []

    def report(stage, done, total, note=""):
        calls.append((done, total))
        if done == 1 and len(calls) < 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dataset.ensure_dataset("lidar", cache=tmp_path, workers=1, report=report)
    there = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert there
    assert not list(tmp_path.rglob("*.part"))
    dataset.ensure_dataset("lidar", cache=tmp_path, workers=1)
    assert all(path.stat().st_mtime_ns == time for path, time in there.items())
    assert len(dataset.load_part(tmp_path, "lidar", "train")["labels"]) == 4
