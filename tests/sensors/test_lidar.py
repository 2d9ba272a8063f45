"""LiDARs: ranges to 1 mm against analytic geometry, also after bodies moved; conventions, masks, intensity, noise."""

from __future__ import annotations

import numpy as np
import pytest
import warp as wp

from saccade.config import LidarConfig
from saccade.frame import BACKGROUND, FLOOR, OBSTACLE, PERSON, ROBOT, STRUCTURE
from saccade.sensors.lidar import LidarSensor, lidar_directions

FAR = np.inf


def configured(**changes) -> LidarConfig:
    return LidarConfig(**{"kind": "lidar", "prim": "head", "range_max": 60.0, **changes})


def sensor_on(
    scene, classes, geometry, *, labels, own=None, position=(0, 0, 0), matrix=None, body=-1, bands=None, **changes
):
    count = scene.model.shape_count
    return LidarSensor(
        "lidar",
        configured(**changes),
        scene.model,
        body=body,
        offset=geometry.as_transform(position, np.eye(3) if matrix is None else matrix),
        class_of_shape=classes(labels),
        own_shapes=classes([0] * count if own is None else own),
        seed=3,
        bands=bands,
    )


# Analytic distances in float64, all in the shape's own frame: origin o, unit directions d of shape (n, 3).


def ray_box(o, d, half):
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (-half - o) / d, (half - o) / d
    near, far = np.minimum(a, b).max(axis=1), np.maximum(a, b).min(axis=1)
    return np.where((near <= far) & (near > 0), near, FAR)


def ray_sphere(o, d, radius):
    b = d @ o
    inside = b * b - (o @ o - radius * radius)
    t = -b - np.sqrt(np.maximum(inside, 0))
    return np.where((inside >= 0) & (t > 0), t, FAR)


def ray_tube(o, d, radius, half_height):
    a = d[:, 0] ** 2 + d[:, 1] ** 2
    b = d[:, 0] * o[0] + d[:, 1] * o[1]
    inside = b * b - a * (o[0] ** 2 + o[1] ** 2 - radius**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (-b - np.sqrt(np.maximum(inside, 0))) / a
    return np.where((inside >= 0) & (t > 0) & (np.abs(o[2] + t * d[:, 2]) <= half_height), t, FAR)


def ray_cylinder(o, d, radius, half_height):
    best = ray_tube(o, d, radius, half_height)
    for cap in (-half_height, half_height):
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (cap - o[2]) / d[:, 2]
            on_cap = (t > 0) & ((o[0] + t * d[:, 0]) ** 2 + (o[1] + t * d[:, 1]) ** 2 <= radius**2)
        best = np.minimum(best, np.where(on_cap, t, FAR))
    return best


def ray_capsule(o, d, radius, half_height):
    best = ray_tube(o, d, radius, half_height)
    for end in (-half_height, half_height):
        best = np.minimum(best, ray_sphere(o - np.array([0, 0, end]), d, radius))
    return best


def ray_plane(o, d):
    with np.errstate(divide="ignore", invalid="ignore"):
        t = -o[2] / d[:, 2]
    return np.where(t > 0, t, FAR)


SHAPES = {
    "box": (
        lambda b, body: b.add_shape_box(body, hx=0.5, hy=0.3, hz=0.8),
        lambda o, d: ray_box(o, d, np.array([0.5, 0.3, 0.8])),
    ),
    "sphere": (lambda b, body: b.add_shape_sphere(body, radius=0.6), lambda o, d: ray_sphere(o, d, 0.6)),
    "cylinder": (
        lambda b, body: b.add_shape_cylinder(body, radius=0.4, half_height=0.9),
        lambda o, d: ray_cylinder(o, d, 0.4, 0.9),
    ),
    "capsule": (
        lambda b, body: b.add_shape_capsule(body, radius=0.35, half_height=0.6),
        lambda o, d: ray_capsule(o, d, 0.35, 0.6),
    ),
}


def scenes(geometry):
    """Two arrangements: poses of the carrier and of the four shapes."""
    turn = geometry.rotation
    return [
        [
            ((0.0, 0.0, 1.5), np.eye(3)),
            ((5.0, 1.0, 1.0), turn((0, 0, 1), 30)),
            ((-3.0, 3.0, 1.2), np.eye(3)),
            ((1.0, -4.0, 1.0), turn((1, 0, 0), 20)),
            ((-4.0, -2.0, 1.1), turn((0, 1, 0), 50)),
        ],
        [
            ((2.0, -1.0, 1.7), turn((0.1, 0.2, 1.0), 100)),
            ((-9.0, 4.0, 2.0), turn((1, 1, 1), 75)),
            ((6.0, 6.0, 0.8), np.eye(3)),
            ((3.0, 3.0, 1.5), turn((1, 1, 0), 80)),
            ((2.5, -12.0, 1.0), turn((0, 1, 1), -35)),
        ],
    ]


@pytest.mark.parametrize("bands", [1, None])
def test_ranges_agree_with_analytic_geometry_also_after_bodies_moved(world, classes, geometry, bands):
    def fill(builder):
        builder.add_body()
        for add, _ in SHAPES.values():
            add(builder, builder.add_body())
        builder.add_ground_plane()

    scene = world(fill)
    mount, tilt = np.array([0.05, 0.02, 0.2]), geometry.rotation((0, 1, 0), 5)
    sensor = sensor_on(
        scene,
        classes,
        geometry,
        labels=[STRUCTURE, OBSTACLE, PERSON, ROBOT, FLOOR],
        body=0,
        position=mount,
        matrix=tilt,
        channels=64,
        vertical_fov=(-50.0, 30.0),
        bands=bands,
    )
    directions = lidar_directions(sensor.config)[1].reshape(-1, 3)
    for sequence, arrangement in enumerate(scenes(geometry)):
        geometry.move(scene, dict(enumerate(arrangement)))
        sensor.sense(scene.state, sequence)
        position, matrix = arrangement[0]
        origin, rays = position + matrix @ mount, directions @ (matrix @ tilt).T
        distances = [
            function(turn.T @ (origin - center), rays @ turn)
            for (center, turn), (_, function) in zip(arrangement[1:], SHAPES.values(), strict=True)
        ]
        distances.append(ray_plane(origin, rays))
        nearest, winner = np.min(distances, axis=0), np.argmin(distances, axis=0)
        expected = np.where((nearest >= 0.15) & (nearest <= 60.0), nearest, 0.0)
        measured, labels = sensor.buffers["ranges"].numpy().ravel(), sensor.buffers["labels"].numpy().ravel()
        expected_labels = np.where(
            expected > 0, np.array([STRUCTURE, OBSTACLE, PERSON, ROBOT, FLOOR])[winner], BACKGROUND
        )
        # float32 and float64 may disagree about which side of an edge a ray passes; nowhere else.
        same = labels == expected_labels
        assert (~same).sum() <= 5
        assert np.array_equal(measured[same] > 0, expected[same] > 0)
        error = np.abs(measured - expected)
        for index in range(5):
            on_shape = same & (expected > 0) & (winner == index)
            assert on_shape.sum() > 40, index
            assert error[on_shape].max() < 1e-3, index
        points = sensor.buffers["points"].numpy().reshape(-1, 3)
        assert np.abs(points - directions * measured[:, None]).max() < 1e-4


def walls(builder):
    """Four different walls: ahead at 5 m, left at 3 m, behind at 7 m, right at 4 m; a ceiling at 2 m."""
    at = lambda x, y, z: wp.transform((x, y, z), wp.quat_identity())  # noqa: E731
    builder.add_shape_box(-1, xform=at(5.5, 0, 0), hx=0.5, hy=20, hz=9, color=(1.0, 1.0, 1.0))
    builder.add_shape_box(-1, xform=at(0, 3.5, 0), hx=20, hy=0.5, hz=9, color=(0.5, 0.5, 0.5))
    builder.add_shape_box(-1, xform=at(-7.5, 0, 0), hx=0.5, hy=20, hz=9, color=(1.0, 0.0, 0.0))
    builder.add_shape_box(-1, xform=at(0, -4.5, 0), hx=20, hy=0.5, hz=9, color=(0.0, 0.0, 0.0))
    builder.add_shape_box(-1, xform=at(0, 0, 2.5), hx=20, hy=20, hz=0.5, color=(0.0, 1.0, 0.0))


def test_columns_run_counter_clockwise_from_ahead_and_channels_downwards(world, classes, geometry):
    scene = world(walls)
    sensor = sensor_on(
        scene, classes, geometry, labels=[0, 1, 2, 3, 4], channels=5, columns=64, vertical_fov=(-40.0, 60.0)
    )
    sensor.sense(scene.state, 0)
    ranges, points, labels = (sensor.buffers[name].numpy() for name in ("ranges", "points", "labels"))
    elevation = np.radians([60.0, 35.0, 10.0, -15.0, -40.0])
    assert sensor.intrinsics.elevation == pytest.approx(elevation)
    level = np.cos(elevation[3])
    assert ranges[3, [0, 16, 32, 48]] * level == pytest.approx([5.0, 3.0, 7.0, 4.0], abs=1e-4)
    assert labels[3, [0, 16, 32, 48]].tolist() == [0, 1, 2, 3]
    assert ranges[0, 0] * np.sin(elevation[0]) == pytest.approx(2.0, abs=1e-4)
    assert labels[0, 0] == 4
    assert points[3, 16] == pytest.approx([0.0, 3.0, 3.0 * np.tan(elevation[3])], abs=1e-4)


def test_intensity_is_luminance_times_cosine(world, classes, geometry):
    scene = world(walls)
    sensor = sensor_on(
        scene, classes, geometry, labels=[1] * 5, channels=1, columns=360, vertical_fov=(0.0, 0.0), range_max=100.0
    )
    sensor.sense(scene.state, 0)
    intensity = sensor.buffers["intensity"].numpy()[0]
    grey = ((0.5 + 0.055) / 1.055) ** 2.4
    assert intensity[[0, 90, 180, 270]] == pytest.approx([1.0, grey, 0.2126, 0.0], abs=1e-3)
    assert intensity[20] == pytest.approx(np.cos(np.radians(20)), abs=1e-3)
    assert intensity[100] == pytest.approx(grey * np.cos(np.radians(10)), abs=1e-3)
    assert intensity.min() >= 0 and intensity.max() <= 1


def test_intensity_has_no_holes_on_distant_boxes(world, classes, geometry):
    def fill(builder):
        builder.add_shape_box(
            -1, xform=wp.transform((25.5, 0, 0), wp.quat_identity()), hx=0.5, hy=9, hz=9, color=(1, 1, 1)
        )

    scene = world(fill)
    sensor = sensor_on(scene, classes, geometry, labels=[1], channels=16, columns=1024, vertical_fov=(-15.0, 15.0))
    sensor.sense(scene.state, 0)
    hit = sensor.buffers["ranges"].numpy() > 0
    cosine = 25.0 / sensor.buffers["ranges"].numpy()[hit]
    assert hit.sum() > 500
    assert np.abs(sensor.buffers["intensity"].numpy()[hit] - cosine).max() < 0.01


def test_returns_outside_the_limits_are_none(world, classes, geometry):
    scene = world(walls)
    sensor = sensor_on(
        scene,
        classes,
        geometry,
        labels=[1] * 5,
        channels=1,
        columns=64,
        vertical_fov=(0.0, 0.0),
        range_min=3.5,
        range_max=6.0,
    )
    sensor.sense(scene.state, 0)
    ranges, labels, intensity, points = (
        sensor.buffers[name].numpy()[0] for name in ("ranges", "labels", "intensity", "points")
    )
    assert ranges[[0, 48]] == pytest.approx([5.0, 4.0], abs=1e-4)
    none = ranges == 0
    assert none[[16, 32]].all()
    assert (labels[none] == BACKGROUND).all() and (labels[~none] == 1).all()
    assert (intensity[none] == 0).all() and (points[none] == 0).all()
    assert ((ranges[~none] >= 3.5) & (ranges[~none] <= 6.0)).all()


def test_the_own_body_is_masked_only_when_asked(world, classes, geometry):
    def fill(builder):
        walls(builder)
        builder.add_shape_sphere(-1, xform=wp.transform((1.0, 0, 0), wp.quat_identity()), radius=0.3)

    scene = world(fill)
    common = {
        "labels": [1] * 5 + [ROBOT],
        "own": [0] * 5 + [1],
        "channels": 1,
        "columns": 64,
        "vertical_fov": (0.0, 0.0),
    }
    for mask, ahead, label in ((True, 0.0, BACKGROUND), (False, 0.7, ROBOT)):
        sensor = sensor_on(scene, classes, geometry, **common, own_body_mask=mask)
        sensor.sense(scene.state, 0)
        assert sensor.buffers["ranges"].numpy()[0, 0] == pytest.approx(ahead, abs=1e-4)
        assert sensor.buffers["labels"].numpy()[0, 0] == label
        assert sensor.buffers["ranges"].numpy()[0, 16] == pytest.approx(3.0, abs=1e-4)


def test_noise_leaves_clean_ranges_and_repeats(world, classes, geometry):
    scene = world(walls)
    noise = {"range_std": 0.02, "dropout": 0.1}
    clean = sensor_on(scene, classes, geometry, labels=[1] * 5)
    assert clean.buffers["ranges"] is clean.clean_ranges
    noisy, again = (sensor_on(scene, classes, geometry, labels=[1] * 5, noise=noise) for _ in range(2))
    clean.sense(scene.state, 0)
    noisy.sense(scene.state, 11)
    again.sense(scene.state, 11)
    assert np.array_equal(noisy.clean_ranges.numpy(), clean.clean_ranges.numpy())
    for name in noisy.buffers:
        assert np.array_equal(noisy.buffers[name].numpy(), again.buffers[name].numpy()), name
    measured, true = noisy.buffers["ranges"].numpy(), noisy.clean_ranges.numpy()
    kept = measured > 0
    assert (measured[kept] - true[kept]).std() == pytest.approx(0.02, rel=0.05)
    assert 1 - kept[true > 0].mean() == pytest.approx(0.1, abs=0.01)
    assert (noisy.buffers["labels"].numpy()[~kept] == BACKGROUND).all()
    first = measured.copy()
    noisy.sense(scene.state, 12)
    assert not np.array_equal(first, noisy.buffers["ranges"].numpy())


def test_bands_do_not_change_a_bit(world, classes, geometry):
    scene = world(walls)
    reference = None
    for bands in (1, 2, 5, 8):
        sensor = sensor_on(
            scene, classes, geometry, labels=[1] * 5, noise={"range_std": 0.02, "dropout": 0.1}, bands=bands
        )
        sensor.sense(scene.state, 0)
        sensor.sense(scene.state, 4)
        values = {name: array.numpy().copy() for name, array in sensor.buffers.items()}
        reference = reference or values
        for name, value in values.items():
            assert np.array_equal(value, reference[name]), (bands, name)


def test_only_configured_outputs_are_offered(world, classes, geometry):
    scene = world(walls)
    sensor = sensor_on(scene, classes, geometry, labels=[1] * 5, outputs=["ranges", "intensity"])
    assert list(sensor.buffers) == ["ranges", "intensity"]
    assert (sensor.name, sensor.kind) == ("lidar", "lidar")
    assert sensor.buffers["ranges"].shape == (32, 1024)


def test_a_captured_graph_replays(world, classes, geometry):
    scene = world(walls)
    sensor = sensor_on(scene, classes, geometry, labels=[1] * 5, noise={"range_std": 0.02, "dropout": 0.1})
    sensor.sense(scene.state, 0)
    with wp.ScopedCapture(device="cpu") as capture:
        sensor.cast(scene.state)
    sensor.sense(scene.state, 21)
    eager = {name: array.numpy().copy() for name, array in sensor.buffers.items()}
    for array in sensor.buffers.values():
        array.zero_()
    sensor.number(21)
    wp.capture_launch(capture.graph)
    for name, value in eager.items():
        assert np.array_equal(value, sensor.buffers[name].numpy()), name
