"""Free poses: free indeed, half of them in front of something, the same for a seed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pxr")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saccade.errors import SceneError
from saccade.scenes.author_poses import BODY_RADIUS, distance_ahead, free_poses, free_space
from saccade.scenes.author_scene import author_scene

SCENES = Path(__file__).resolve().parents[2] / "scenes"


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout_seed=st.integers(0, 10_000), seed=st.integers(0, 10_000))
def test_poses_in_random_scenes_are_free_and_balanced(tmp_path, layout_seed, seed):
    path = author_scene(tmp_path / f"{layout_seed}.usda", layout="random", seed=layout_seed)
    rooms, obstacles = free_space(path)
    poses = free_poses(path, 16, seed)
    assert len(poses) == 16
    for x, y, _ in poses:
        assert any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in rooms)
        assert min(f.distance(x, y) for f in obstacles) >= BODY_RADIUS
    near = [0.3 <= distance_ahead(pose, obstacles) <= 2.05 for pose in poses]
    assert sum(near) >= 8


@pytest.mark.parametrize("name", ["warehouse", "corridor"])
def test_poses_in_shipped_scenes_repeat_for_a_seed(name):
    first = free_poses(SCENES / f"{name}.usda", 20, 3)
    assert first == free_poses(SCENES / f"{name}.usda", 20, 3)
    assert first != free_poses(SCENES / f"{name}.usda", 20, 4)


def test_a_scene_without_a_floor_says_so(tmp_path):
    with pytest.raises(SceneError, match="no floor"):
        free_poses(SCENES / "humanoid.usda", 1, 0)
