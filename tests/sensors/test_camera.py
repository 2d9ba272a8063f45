"""Cameras: projection to 0.1 px and depth to 1 mm against geometry, labels, sky, noise, graphs, no allocation."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import warp as wp

from saccade.config import CameraConfig
from saccade.errors import ConfigurationError, SceneError
from saccade.frame import BACKGROUND, FLOOR, OBSTACLE
from saccade.scenes.lights import Lighting
from saccade.sensors.camera import CameraSensor, camera_intrinsics

EVERY = ["color", "depth", "labels", "normals"]
RADIUS = 0.35


def configured(**changes) -> CameraConfig:
    return CameraConfig(**{"kind": "camera", "prim": "head", "outputs": EVERY, "horizontal_fov": 80.0, **changes})


def usd_camera(**attributes):
    pxr = pytest.importorskip("pxr")
    from pxr import Usd, UsdGeom

    assert pxr
    stage = Usd.Stage.CreateInMemory()
    camera = UsdGeom.Camera.Define(stage, "/camera")
    camera.stage = stage
    for name, value in attributes.items():
        camera.GetPrim().GetAttribute(name).Set(value)
    return camera


def project_sphere(center: np.ndarray, radius: float, fx: float, fy: float, cx: float, cy: float):
    """Returns the centroid of a sphere's image; ``center`` has x right, y down, z forward.

    The outline is an ellipse whose long axis points to the principal point; its ends are the tangents in the plane
    through the optical axis and the centre.
    """
    off_axis = np.hypot(center[0], center[1])
    angle, half = np.arctan2(off_axis, center[2]), np.arcsin(radius / np.linalg.norm(center))
    radial = 0.5 * (np.tan(angle + half) + np.tan(angle - half))
    direction = center[:2] / off_axis if off_axis > 0 else np.zeros(2)
    return fx * radial * direction[0] + cx, fy * radial * direction[1] + cy


def targets() -> np.ndarray:
    """Returns points in the camera's own frame (x right, y down, z forward) [m], all inside a 70 degree view."""
    return np.array([[0.0, 0.0, 4.0], [-1.6, -0.7, 4.5], [1.7, 0.8, 4.2], [-1.1, 0.9, 3.6], [1.2, -0.8, 3.9]])


@pytest.fixture
def aimed(world, classes, geometry):
    """A camera on a moving body and five spheres on bodies, which ``place`` puts where the camera should see them."""

    def fill(builder):
        carrier = builder.add_body()
        builder.add_shape_box(
            carrier, hx=0.01, hy=0.01, hz=0.01, xform=wp.transform((-5.0, 0.0, 0.0), wp.quat_identity())
        )
        for _ in targets():
            builder.add_shape_sphere(builder.add_body(), radius=RADIUS)

    scene = world(fill)
    labels = classes([BACKGROUND, 0, 1, 2, 3, 4])
    mount = np.array([0.1, -0.05, 0.3])
    tilt = geometry.rotation((0, 1, 0), 12) @ geometry.rotation((0, 0, 1), -7)

    def make(config, camera=None, **options):
        offset = geometry.as_transform(mount, tilt @ geometry.CAMERA_TO_ROBOT)
        sensor = CameraSensor(
            "head",
            config,
            scene.model,
            usd_camera=camera,
            body=0,
            offset=offset,
            class_of_shape=labels,
            lighting=Lighting(),
            seed=0,
            **options,
        )

        def place(position, matrix):
            poses = {0: (position, matrix)}
            axes = matrix @ tilt @ geometry.CAMERA_TO_ROBOT @ np.diag([1.0, -1.0, -1.0])
            for body, target in enumerate(targets(), start=1):
                poses[body] = (position + matrix @ mount + axes @ target, np.eye(3))
            geometry.move(scene, poses)
            sensor.sense(scene.state, 0)

        return sensor, place

    return make


def poses(geometry):
    return [
        (np.zeros(3), np.eye(3)),
        (np.array([3.0, -2.0, 1.5]), geometry.rotation((0.2, -0.4, 1.0), 130)),
        (np.array([-8.0, 6.0, 0.5]), geometry.rotation((1.0, 0.3, 0.2), -75)),
    ]


def assert_projects(sensor, expected):
    labels = sensor.buffers["labels"].numpy()
    for index, target in enumerate(targets()):
        rows, columns = np.nonzero(labels == index)
        assert rows.size > 100, f"sphere {index} is not in view"
        u, v = project_sphere(target, RADIUS, *expected)
        assert columns.mean() + 0.5 == pytest.approx(u, abs=0.1), index
        assert rows.mean() + 0.5 == pytest.approx(v, abs=0.1), index


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 480), (320, 400)])
def test_field_of_view_projects_to_a_tenth_of_a_pixel(aimed, geometry, width, height):
    sensor, place = aimed(configured(width=width, height=height, horizontal_fov=70.0))
    focal = width / 2 / np.tan(np.radians(35))
    for position, matrix in poses(geometry):
        place(position, matrix)
        assert_projects(sensor, (focal, focal, width / 2, height / 2))


def test_usd_camera_has_square_pixels_and_uses_its_aperture_offsets(aimed, geometry):
    # A vertical aperture of another aspect, as Isaac Sim's cameras often have: it must not stretch the image.
    camera = usd_camera(
        focalLength=18.0,
        horizontalAperture=20.955,
        verticalAperture=11.0,
        horizontalApertureOffset=0.8,
        verticalApertureOffset=-0.5,
    )
    sensor, place = aimed(configured(width=600, height=400, horizontal_fov=None), camera)
    focal = 18.0 / 20.955 * 600
    expected = (focal, focal, 300 - 0.8 / 20.955 * 600, 200 - 0.5 / 20.955 * 600)
    assert sensor.intrinsics.as_dict() == pytest.approx(
        dict(zip(["fx", "fy", "cx", "cy", "width", "height"], [*expected, 600, 400], strict=True))
    )
    for position, matrix in poses(geometry):
        place(position, matrix)
        assert_projects(sensor, expected)


def test_aperture_offsets_have_newtons_sign(aimed):
    from newton.sensors import SensorCamera

    lens = {"focal_length": 18.0, "horizontal_aperture": 20.0, "vertical_aperture": 20.0 * 200 / 300}
    offsets = {"horizontal_aperture_offset": 1.3, "vertical_aperture_offset": 0.7}
    newtons = SensorCamera.compute_camera_rays_pinhole(300, 200, **lens, **offsets, device="cpu").numpy()
    camera = usd_camera(
        focalLength=18.0, horizontalAperture=20.0, horizontalApertureOffset=1.3, verticalApertureOffset=0.7
    )
    sensor, _ = aimed(configured(width=300, height=200, horizontal_fov=None), camera)
    assert np.allclose(sensor._bundle.rays.numpy(), newtons, atol=1e-6)


def test_given_focal_and_principal_win(aimed, geometry):
    sensor, place = aimed(configured(width=500, height=300, focal=(330.0, 350.0), principal=(260.0, 140.0)))
    place(*poses(geometry)[1])
    assert_projects(sensor, (330.0, 350.0, 260.0, 140.0))


def test_intrinsics_need_a_source():
    with pytest.raises(ConfigurationError, match=r"sensors.head: no intrinsics.*horizontal_fov"):
        camera_intrinsics("head", configured(horizontal_fov=None), None)
    with pytest.raises(ConfigurationError, match=r"sensors\.head\.focal"):
        camera_intrinsics("head", configured(focal=(0.0, 10.0)), None)


def test_unusable_camera_prims_are_refused():
    with pytest.raises(SceneError, match="/camera has projection 'orthographic'"):
        camera_intrinsics("head", configured(), usd_camera(projection="orthographic"))
    with pytest.raises(SceneError, match="/camera needs horizontalAperture and focalLength above 0"):
        camera_intrinsics("head", configured(), usd_camera(focalLength=0.0))


@pytest.fixture
def room(world, classes, geometry):
    """A floor, a wall and a box seen from a fixed camera 1.5 m above the floor."""

    def fill(builder):
        at = lambda x, y, z: wp.transform((x, y, z), wp.quat_identity())  # noqa: E731
        builder.add_shape_box(-1, xform=at(0, 0, -0.1), hx=30, hy=30, hz=0.1, color=(0.5, 0.5, 0.5))
        builder.add_shape_box(-1, xform=at(20.5, 0, 1.0), hx=0.5, hy=4, hz=1.0, color=(0.8, 0.2, 0.2))
        builder.add_shape_box(builder.add_body(), hx=0.25, hy=0.25, hz=0.25, color=(0.2, 0.8, 0.2))

    scene = world(fill)
    geometry.move(scene, {0: ((4.0, 0.5, 0.25), np.eye(3))})
    labels = classes([FLOOR, 1, OBSTACLE])

    def make(**options):
        bands = options.pop("bands", None)
        lighting = options.pop("lighting", Lighting())
        return scene, CameraSensor(
            options.pop("name", "head"),
            configured(**{"width": 320, "height": 240, **options}),
            scene.model,
            usd_camera=None,
            body=-1,
            offset=geometry.as_transform((0, 0, 1.5), geometry.CAMERA_TO_ROBOT),
            class_of_shape=labels,
            lighting=lighting,
            seed=5,
            bands=bands,
        )

    return make


def test_depth_labels_and_normals_agree_with_geometry(room):
    scene, sensor = room()
    sensor.sense(scene.state, 0)
    depth, labels, normals = (sensor.buffers[name].numpy() for name in ("depth", "labels", "normals"))
    k = sensor.intrinsics
    rows, columns = np.mgrid[0 : k.height, 0 : k.width]
    right, down = (columns + 0.5 - k.cx) / k.fx, (rows + 0.5 - k.cy) / k.fy
    with np.errstate(divide="ignore"):
        floor = 1.5 / down
    on_floor, on_wall, on_box = labels == FLOOR, labels == 1, labels == OBSTACLE
    assert on_floor.sum() > 10000 and on_wall.sum() > 500 and on_box.sum() > 300
    assert np.abs(depth[on_floor] - floor[on_floor]).max() < 1e-3
    assert np.abs(depth[on_wall] - 20.0).max() < 1e-3
    front = on_box & (np.abs(normals[..., 0] + 1) < 1e-3)
    assert np.abs(depth[front] - 3.75).max() < 1e-3
    # Also far away, where Newton alone leaves holes: a floor's normal is up and a wall's points at the camera.
    assert np.abs(normals[on_floor] - [0, 0, 1]).max() < 1e-3
    assert np.abs(normals[on_wall] - [-1, 0, 0]).max() < 1e-3
    # And the labels are where they belong: no pixel of the box outside of its outline.
    y, z = -right[on_box] * depth[on_box], 1.5 - down[on_box] * depth[on_box]
    assert y.min() > 0.25 - 1e-3 and y.max() < 0.75 + 1e-3 and z.min() > -1e-3 and z.max() < 0.5 + 1e-3


def test_background_is_sky_without_depth_and_normal(room):
    sky = (0.25, 0.5, 1.0)
    scene, sensor = room(lighting=Lighting(sky_color=sky))
    sensor.sense(scene.state, 0)
    nothing = sensor.buffers["labels"].numpy() == BACKGROUND
    assert nothing.sum() > 10000
    pixels = sensor.buffers["color"].numpy().view(np.uint8).reshape(240, 320, 4)[nothing]
    # sRGB of linear 0.25, 0.5 and 1.
    assert (pixels == [137, 188, 255, 255]).all()
    assert (sensor.buffers["depth"].numpy()[nothing] == 0).all()
    assert (sensor.buffers["normals"].numpy()[nothing] == 0).all()


def test_beyond_the_maximum_distance_is_background(room):
    scene, sensor = room(max_distance=15.0)
    sensor.sense(scene.state, 0)
    labels, depth = sensor.buffers["labels"].numpy(), sensor.buffers["depth"].numpy()
    assert not (labels == 1).any()
    assert depth.max() <= 15.0 and depth.max() > 12.0
    assert (depth[labels == BACKGROUND] == 0).all()


def test_light_on_a_flat_surface_is_what_was_asked_for(room):
    lighting = Lighting(sun_direction=(0, 0, -1), sun_color=(0.6, 0.6, 0.6), sky_color=(0.2, 0.2, 0.2))
    # Albedo 0.5 in sRGB is 0.2140 linear; sun and sky from above add up to 0.8.
    for exposure, expected in ((1.0, 115), (2.0, 157)):
        scene, sensor = room(lighting=lighting, noise={"exposure": exposure})
        sensor.sense(scene.state, 0)
        image = sensor.buffers["color"].numpy().view(np.uint8).reshape(240, 320, 4)
        assert abs(int(image[230, 10, 0]) - expected) <= 1
        assert (image[..., 3] == 255).all()


def test_shadows_can_be_switched_off(room):
    images = []
    for cast_shadows in (True, False):
        scene, sensor = room(lighting=Lighting(cast_shadows=cast_shadows))
        sensor.sense(scene.state, 0)
        images.append(sensor.buffers["color"].numpy().view(np.uint8).reshape(240, 320, 4)[..., 0].astype(int))
    darker = images[0] < images[1] - 10
    assert darker.sum() > 50
    assert (images[0] <= images[1]).all()


def test_bands_do_not_change_a_bit(room):
    reference = None
    for bands in (1, 2, 3, 8):
        scene, sensor = room(bands=bands, noise={"read": 3, "shot": 2})
        sensor.sense(scene.state, 0)  # one thread
        sensor.sense(scene.state, 7)  # many
        values = {name: array.numpy().copy() for name, array in sensor.buffers.items()}
        reference = reference or values
        for name, value in values.items():
            assert np.array_equal(value, reference[name]), (bands, name)


def test_noise_touches_colour_only_and_none_is_bit_identical(room):
    scene, clean = room()
    _, noisy = room(noise={"read": 4.0})
    _, again = room(noise={"read": 4.0})
    for sensor, sequence in ((clean, 0), (noisy, 3), (again, 3)):
        sensor.sense(scene.state, sequence)
    for name in ("depth", "labels", "normals"):
        assert np.array_equal(clean.buffers[name].numpy(), noisy.buffers[name].numpy())
    first = noisy.buffers["color"].numpy().copy()
    assert np.array_equal(first, again.buffers["color"].numpy())
    difference = first.view(np.uint8).astype(int) - clean.buffers["color"].numpy().view(np.uint8)
    assert difference.reshape(-1, 4)[:, :3].std() == pytest.approx(np.sqrt(16 + 1 / 12), rel=0.05)
    noisy.sense(scene.state, 4)
    assert not np.array_equal(first, noisy.buffers["color"].numpy())
    # Without noise the sample number means nothing.
    before = clean.buffers["color"].numpy().copy()
    clean.sense(scene.state, 99)
    assert np.array_equal(before, clean.buffers["color"].numpy())
    assert [len(band) for band in clean._bundle._finish] == [1] * len(clean._bundle.bands)


def test_only_configured_outputs_are_offered_and_truth_labels_always(room):
    scene, sensor = room(outputs=["color"])
    sensor.sense(scene.state, 0)
    assert list(sensor.buffers) == ["color"]
    assert (sensor.labels.numpy() == FLOOR).any()
    assert (sensor.name, sensor.kind) == ("head", "camera")


def test_a_captured_graph_replays_with_new_poses_and_sample_numbers(room, geometry):
    scene, sensor = room(noise={"read": 4.0})
    sensor.sense(scene.state, 0)
    with wp.ScopedCapture(device="cpu") as capture:
        sensor.cast(scene.state)
    for sequence, position in ((5, (3.0, -0.5, 0.25)), (6, (5.0, 0.0, 0.4))):
        geometry.move(scene, {0: (position, np.eye(3))})
        sensor.sense(scene.state, sequence)
        eager = {name: array.numpy().copy() for name, array in sensor.buffers.items()}
        for array in sensor.buffers.values():
            array.zero_()
        sensor.number(sequence)
        wp.capture_launch(capture.graph)
        for name, value in eager.items():
            assert np.array_equal(value, sensor.buffers[name].numpy()), name


def test_sensing_allocates_nothing(room, monkeypatch):
    scene, sensor = room(noise={"read": 4.0})
    for sequence in range(3):
        sensor.sense(scene.state, sequence)
    pointers = {name: array.ptr for name, array in sensor.buffers.items()}
    made, allocated = [], []
    initialise, allocator = wp.array.__init__, type(wp.get_device("cpu").get_allocator())
    allocate = allocator.allocate

    def counted_init(self, *args, **kwargs):
        made.append(sys._getframe(1).f_code.co_filename)
        initialise(self, *args, **kwargs)

    def counted_allocate(self, size):
        allocated.append(size)
        return allocate(self, size)

    monkeypatch.setattr(wp.array, "__init__", counted_init)
    monkeypatch.setattr(allocator, "allocate", counted_allocate)
    wp.zeros(3, dtype=wp.float32, device="cpu")
    assert made and allocated == [12], "the counters count"
    made.clear()
    allocated.clear()
    for sequence in range(10):
        sensor.sense(scene.state, sequence)
    assert allocated == []
    assert [path for path in made if "saccade" in path] == []
    assert {name: array.ptr for name, array in sensor.buffers.items()} == pointers
