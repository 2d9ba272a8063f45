"""Range images from ranges and from points in any order."""

import numpy as np
import pytest
import warp as wp

from saccade.config import LidarConfig
from saccade.kernels import range_image
from saccade.sensors.lidar import lidar_directions


@pytest.mark.parametrize("scale", [1.0, 1 / 30])
def test_range_image_holds_scaled_ranges_and_intensity(scale):
    """Channel 0 is range times scale with 0 for no return, channel 1 intensity."""
    ranges = np.array([[0.0, 3.0, 30.0]], np.float32)
    intensity = np.array([[0.0, 0.5, 1.0]], np.float32)
    output = wp.zeros((1, 2, 1, 3), dtype=wp.float32, device="cpu")
    range_image.record_range_image(
        wp.array(ranges, device="cpu"), wp.array(intensity, device="cpu"), scale, output
    ).launch()
    np.testing.assert_allclose(output.numpy()[0], [ranges * scale, intensity], rtol=1e-6)


def image_of(points, intensity, *, channels, columns, fov, dtype=wp.float32):
    output = wp.full((1, 2, channels, columns), value=7.0, dtype=dtype, device="cpu")
    launches = range_image.record_point_image(
        wp.array(points.astype(np.float32), dtype=wp.vec3f, device="cpu"),
        wp.array(intensity.astype(np.float32), device="cpu"),
        1.0,
        output,
        vertical_fov=fov,
        cells=wp.zeros((channels, columns), dtype=wp.float32, device="cpu"),
    )
    for launch in launches:
        launch.launch()
    return output.numpy()[0]


@pytest.mark.parametrize("dtype", [wp.float32, wp.float16])
def test_points_of_a_scan_in_any_order_give_its_range_image(dtype):
    """Shuffled points fall back into the cells of the rays that they came from, with their intensities."""
    config = LidarConfig(kind="lidar", prim="l", channels=8, columns=64, vertical_fov=(-30.0, 10.0))
    _, directions = lidar_directions(config)
    random = np.random.default_rng(0)
    ranges = random.uniform(0.5, 20.0, (8, 64))
    ranges[2, 5] = 0.0
    intensity = random.uniform(size=(8, 64))
    order = random.permutation(8 * 64)
    points = (ranges[..., None] * directions).reshape(-1, 3)[order]
    found = image_of(points, intensity.ravel()[order], channels=8, columns=64, fov=(-30.0, 10.0), dtype=dtype)
    intensity[2, 5] = 0.0
    np.testing.assert_allclose(found, [ranges, intensity], rtol=2e-3 if dtype == wp.float16 else 1e-5, atol=1e-3)


def test_the_nearest_point_of_a_cell_counts():
    """Of three points in one direction the nearest is kept, with its own intensity."""
    points = np.array([[4.0, 0.0, 0.0], [2.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    found = image_of(points, np.array([0.1, 0.2, 0.3]), channels=1, columns=16, fov=(0.0, 0.0))
    assert found[0, 0, 0] == 2.0
    assert found[1, 0, 0] == np.float32(0.2)
    assert (found[:, 0, 1:] == 0).all()


def test_points_that_are_none_are_left_out():
    """The origin, NaN and what lies outside the vertical field of view leave the image empty."""
    points = np.array([[0.0, 0.0, 0.0], [np.nan, 1.0, 0.0], [np.inf, 1.0, 0.0], [0.1, 0.0, 5.0]])
    assert (image_of(points, np.ones(4), channels=4, columns=16, fov=(-20.0, 20.0)) == 0).all()


def test_azimuth_wraps_around():
    """Just right of straight ahead rounds to column 0 and not past the last column."""
    angle = -0.4 * 2 * np.pi / 16
    points = np.array([[np.cos(angle), np.sin(angle), 0.0]])
    assert image_of(points, np.ones(1), channels=1, columns=16, fov=(0.0, 0.0))[0, 0, 0] == pytest.approx(1.0)
