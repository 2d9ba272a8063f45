"""A small Newton scene with one of each primitive, and bodies that carry sensors."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

CAMERA_TO_ROBOT = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""Columns: a camera's x, y, z axes in a frame with x forward, y left, z up, where it looks forward."""


def rotation(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    """Returns a rotation matrix (Rodrigues)."""
    x, y, z = np.asarray(axis, dtype=float) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    a = np.radians(degrees)
    return np.eye(3) + np.sin(a) * k + (1 - np.cos(a)) * k @ k


def as_transform(position, matrix):
    """Returns a Warp transform of a position and a rotation matrix."""
    import warp as wp

    return wp.transform(wp.vec3(*position), wp.quat_from_matrix(wp.mat33(*np.asarray(matrix, float).flatten())))


def move(world, poses) -> None:
    """Sets the poses of bodies (position, matrix) and refits the BVH, as the simulator does."""
    values = world.state.body_q.numpy()
    for body, (position, matrix) in poses.items():
        values[body] = np.array([*as_transform(position, matrix)], dtype=np.float32)
    world.state.body_q.assign(values)
    world.model.bvh_refit_shapes(world.state)


@pytest.fixture(scope="session")
def geometry():
    """The functions of this file, for tests: importlib mode gives no other way in."""
    return SimpleNamespace(rotation=rotation, as_transform=as_transform, move=move, CAMERA_TO_ROBOT=CAMERA_TO_ROBOT)


@pytest.fixture
def world():
    """Makes a model from a function that fills a builder; returns model and state."""
    newton = pytest.importorskip("newton")

    def make(fill):
        builder = newton.ModelBuilder(up_axis=newton.Axis.Z)
        fill(builder)
        model = builder.finalize(device="cpu")
        state = model.state()
        newton.eval_fk(model, model.joint_q, model.joint_qd, state)
        model.bvh_refit_shapes(state)
        return SimpleNamespace(model=model, state=state)

    return make


@pytest.fixture
def classes():
    """Makes a uint8 array by shape."""
    import warp as wp

    return lambda values: wp.array(np.asarray(values, dtype=np.uint8), dtype=wp.uint8, device="cpu")
