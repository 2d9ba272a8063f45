"""Kernels for RTX sensors against NumPy: depth, labels, range images in both forms, the carrier's cylinder."""

import math

import numpy as np
import pytest
import warp as wp

from saccade.frame import BACKGROUND, FLOOR, OBSTACLE, ROBOT
from saccade.kernels import rtx

SHAPE = (16, 64)
LIMITS = (math.radians(-30), math.radians(10), 0.2, 20.0)


def array(values, dtype=wp.float32):
    return wp.array(np.ascontiguousarray(values), dtype=dtype, device="cpu")


def outputs():
    return (
        wp.zeros(SHAPE, dtype=wp.float32, device="cpu"),
        wp.zeros(SHAPE, dtype=wp.float32, device="cpu"),
        wp.zeros(SHAPE, dtype=wp.vec3f, device="cpu"),
        wp.zeros(SHAPE, dtype=wp.uint8, device="cpu"),
    )


def returns(count=4000, seed=3):
    rng = np.random.default_rng(seed)
    azimuth = rng.uniform(-180, 180, count)
    elevation = rng.uniform(-35, 15, count)
    distance = rng.uniform(0.05, 25, count)
    return azimuth, elevation, distance, rng.uniform(0, 1, count), rng.integers(0, 6, count)


def expected(azimuth, elevation, distance):
    """Number of the return in each cell, -1 = none."""
    best = np.full(SHAPE, -1)
    row = np.round((10 - elevation) / 40 * (SHAPE[0] - 1))
    column = np.round((azimuth % 360) / 360 * SHAPE[1]) % SHAPE[1]
    for i in np.argsort(-distance, kind="stable"):
        if 0.2 <= distance[i] <= 20 and 0 <= row[i] < SHAPE[0]:
            best[int(row[i]), int(column[i])] = i
    return best


def test_depth_without_infinities():
    depth = np.array([[1.0, np.inf, np.nan], [0.0, -2.0, 50.0]], dtype=np.float32)
    out = wp.zeros((2, 3), dtype=wp.float32, device="cpu")
    rtx.clean_depth(array(depth), 30.0, out)
    assert out.numpy().tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_classes_of_ids_with_an_unknown_one():
    ids = array(np.array([[0, 1, 2], [3, 99, 2]], dtype=np.uint32), wp.uint32)
    out = wp.zeros((2, 3), dtype=wp.uint8, device="cpu")
    rtx.classes_of_ids(ids, array(np.array([5, 2, 0, 1], dtype=np.uint8), wp.uint8), out)
    assert out.numpy().tolist() == [[5, 2, 0], [1, BACKGROUND, 0]]


def cells():
    return tuple(wp.zeros(SHAPE, dtype=dtype, device="cpu") for dtype in (wp.float32, wp.int32))


@pytest.mark.parametrize("form", ("points", "spherical"))
def test_both_forms_give_the_nearest_return_of_every_cell(form):
    azimuth, elevation, distance, intensity, classes = returns()
    best = expected(azimuth, elevation, distance)
    found, nothing = outputs(), array(np.zeros(5, dtype=np.float32))
    if form == "points":
        a, e = np.radians(azimuth), np.radians(elevation)
        xyz = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=1) * distance[:, None]
        xyz, strengths = array(xyz.astype(np.float32)), array(intensity.astype(np.float32))
        by_return = array(classes.astype(np.uint8), wp.uint8)
        rtx.image_of_points(xyz, strengths, by_return, LIMITS, nothing, False, cells(), found)
    else:
        packed = np.zeros((5, 8192), dtype=np.float32)
        packed[:, : len(azimuth)] = [azimuth, elevation, distance, intensity, classes]
        rtx.image_of_spherical(array(packed), len(azimuth), LIMITS, nothing, False, cells(), found)
    ranges, strength, points, labels = (one.numpy() for one in found)
    wanted = np.where(best >= 0, distance[best], 0)
    # A direction on the very edge of two cells may fall to either; nothing else may differ.
    same = np.isclose(ranges, wanted, atol=1e-3)
    assert same.mean() > 0.995
    hit = same & (best >= 0)
    assert np.allclose(strength[hit], intensity[best[hit]], atol=1e-5)
    assert np.allclose(np.linalg.norm(points, axis=2)[hit], distance[best[hit]], atol=1e-3)
    assert (labels[hit] == classes[best[hit]]).all()
    assert (labels[best < 0][same[best < 0]] == BACKGROUND).all()


def test_nothing_came_back():
    found = outputs()
    for one in found[:2]:
        one.fill_(3.0)
    empty = wp.zeros((0, 3), dtype=wp.float32, device="cpu")
    none = wp.zeros(0, dtype=wp.float32, device="cpu")
    unknown = wp.zeros(0, dtype=wp.uint8, device="cpu")
    rtx.image_of_points(empty, none, unknown, LIMITS, array(np.zeros(5, dtype=np.float32)), True, cells(), found)
    assert not found[0].numpy().any() and not found[1].numpy().any()


def test_the_carrier_s_own_returns_are_none():
    packed = np.zeros((5, 3), dtype=np.float32)
    packed[:, 0] = [0, 0, 0.5, 1, OBSTACLE]  # inside the cylinder
    packed[:, 1] = [90, 0, 2.0, 1, ROBOT]  # the robot by its label
    packed[:, 2] = [180, 0, 2.0, 1, OBSTACLE]
    own = array(np.array([0, 0, 0.6, -1, 1], dtype=np.float32))
    found = outputs()
    rtx.image_of_spherical(array(packed), 3, LIMITS, own, True, cells(), found)
    assert (found[0].numpy() > 0).sum() == 1
    found = outputs()
    rtx.image_of_spherical(array(packed), 3, LIMITS, array(np.zeros(5, dtype=np.float32)), False, cells(), found)
    assert (found[0].numpy() > 0).sum() == 3


def test_nearest_per_sector_leaves_out_floor_and_what_is_too_low():
    points = np.zeros((1, 4, 3), dtype=np.float32)
    points[0] = [[2, 0, 0], [1, 0, 0], [0, 3, 0], [-4, 0, -5]]
    labels = array(np.array([[OBSTACLE, FLOOR, OBSTACLE, OBSTACLE]], dtype=np.uint8), wp.uint8)
    for use, ahead in ((True, 2.0), (False, 1.0)):
        sectors = array(np.full(16, 30, dtype=np.float32))
        pose = wp.transform((0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 1.0))
        rtx.nearest_per_sector(array(points, wp.vec3f), labels, use, pose, (0.05, 1.9), sectors)
        values = sectors.numpy()
        assert values[0] == pytest.approx(ahead) and values[4] == pytest.approx(3) and values[8] == 30


def test_classes_of_things_by_their_number_of_128_bits():
    rng = np.random.default_rng(5)
    words = rng.integers(0, 2**32, (300, 4), dtype=np.uint64)
    classes = rng.integers(0, 5, 300)
    words[:100, 3] = 0  # wholes, whose parts differ in their highest word only
    table = {}
    for word, label in zip(words.tolist(), classes.tolist(), strict=True):
        lower, upper = word[0] | word[1] << 32, word[2] | word[3] << 32
        table[(lower ^ (upper * rtx.FOLD)) & (2**64 - 1)] = label
    keys = sorted(table)
    parts = words[:100].copy()
    parts[:, 3] = rng.integers(1, 2**32, 100)
    strangers = rng.integers(0, 2**32, (50, 4), dtype=np.uint64)
    asked = np.concatenate([words, parts, strangers]).astype(np.uint32)
    found = wp.zeros(512, dtype=wp.uint8, device="cpu")
    rtx.classes_of_things(
        array(asked, wp.uint32),
        array(np.array(keys, dtype=np.uint64), wp.uint64),
        array(np.array([table[key] for key in keys], dtype=np.uint8), wp.uint8),
        found,
    )
    assert found.numpy()[:450].tolist() == [*classes, *classes[:100], *([OBSTACLE] * 50)]
