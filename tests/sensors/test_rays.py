"""Ray bundles: what they give, what they refuse, and that the whole product renders with one kernel."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import warp as wp

from saccade.scenes.lights import Lighting
from saccade.sensors.rays import NO_SHAPE, Mount, RayBundle, rows


def bundle_rays(origins, directions) -> wp.array:
    rays = np.stack([origins, directions], axis=-2)[:, :, None]
    return wp.array(rays.astype(np.float32), dtype=wp.vec3f, device="cpu")


@pytest.fixture
def box(world):
    def fill(builder):
        body = builder.add_body(xform=wp.transform((4.0, 0.0, 0.0), wp.quat_identity()))
        builder.add_shape_box(body, hx=1.0, hy=1.0, hz=1.0, color=(0.5, 0.25, 1.0))

    return world(fill)


def test_a_bundle_gives_depth_shape_normal_and_albedo(box):
    origins = np.zeros((2, 3, 3))
    origins[1, :, 1] = [0.5, 0.9, 1.5]
    directions = np.zeros((2, 3, 3))
    directions[..., 0] = 1.0
    directions[0, 2] = [-1.0, 0.0, 0.0]
    bundle = RayBundle(box.model, bundle_rays(origins, directions), "cpu")
    turned = wp.quat_from_axis_angle(wp.vec3(0.0, 0.0, 1.0), np.pi / 2)
    # The bundle looks along the world's +y after a quarter turn, from beside the box.
    place = wp.array([wp.transformf(wp.vec3(4.0, -5.0, 0.0), turned)], dtype=wp.transformf, device="cpu")
    bundle.cast(box.state, place)
    assert bundle.depth.numpy() == pytest.approx(np.array([[4.0, 4.0, 0.0], [4.0, 4.0, 0.0]]), abs=1e-5)
    hit = bundle.depth.numpy() > 0
    assert (bundle.shape_index.numpy()[hit] == 0).all()
    assert (bundle.shape_index.numpy()[~hit] == int(NO_SHAPE)).all()
    assert bundle.normal.numpy()[hit] == pytest.approx(np.tile([0.0, -1.0, 0.0], (4, 1)), abs=1e-5)
    linear = ((np.array([0.5, 0.25, 1.0]) + 0.055) / 1.055) ** 2.4
    assert bundle.albedo.numpy()[hit] == pytest.approx(np.tile(linear, (4, 1)), abs=1e-3)
    assert (bundle.albedo.numpy()[~hit] == 0).all()


def test_rays_of_another_form_are_refused(box):
    with pytest.raises(ValueError, match="height, width, 1, 2"):
        RayBundle(box.model, wp.zeros((4, 4), dtype=wp.vec3f, device="cpu"))
    with pytest.raises(ValueError, match="height, width, 1, 2"):
        RayBundle(box.model, wp.zeros((4, 4, 2, 2), dtype=wp.vec3f, device="cpu"))


def test_every_sensor_shares_one_kernel(box):
    rays = bundle_rays(np.zeros((4, 4, 3)), np.tile([1.0, 0.0, 0.0], (4, 4, 1)))
    place = wp.array([wp.transformf()], dtype=wp.transformf, device="cpu")
    modules = set()
    bundles = [RayBundle(box.model, rays), RayBundle(box.model, rays), RayBundle(box.model, rays, lighting=Lighting())]
    bundles.append(RayBundle(box.model, rays, lighting=Lighting(sun_color=(0, 0, 0), cast_shadows=False)))
    for bundle in bundles:
        bundle.cast(box.state, place)
        kernels = bundle._caster._render_context._kernel_cache
        assert len(kernels) == 1
        modules.add(next(iter(kernels.values())).module.name)
    assert len(modules) == 1
    assert bundles[0]._caster is bundles[1]._caster


def test_a_mount_follows_its_body(box, geometry):
    offset = geometry.as_transform((0.0, 0.0, 0.5), geometry.rotation((0, 0, 1), 90))
    mount = Mount(box.model.device, body=0, offset=offset)
    fixed = Mount(box.model.device, body=-1, offset=offset)
    geometry.move(box, {0: ((1.0, 2.0, 3.0), geometry.rotation((1, 0, 0), 90))})
    for each in (mount, fixed):
        each.update(box.state)
    # The body's z points along the world's -y, so the mount sits half a metre there.
    assert mount.transform.numpy()[0, :3] == pytest.approx([1.0, 1.5, 3.0], abs=1e-6)
    expected = geometry.as_transform((0, 0, 0), geometry.rotation((1, 0, 0), 90) @ geometry.rotation((0, 0, 1), 90))
    assert abs(mount.transform.numpy()[0, 3:] @ np.array([*expected])[3:]) == pytest.approx(1.0, abs=1e-6)
    assert fixed.transform.numpy()[0, :3] == pytest.approx([0.0, 0.0, 0.5])


def test_rows_alias_the_same_memory_and_keep_it_alive():
    array = wp.array(np.arange(24, dtype=np.float32).reshape(6, 4), dtype=wp.float32, device="cpu")
    alias = rows(array, 2, 4)
    assert alias.ptr == array.ptr + 2 * 4 * 4
    alias.fill_(-1.0)
    assert array.numpy()[:, 0].tolist() == [0.0, 4.0, -1.0, -1.0, 16.0, 20.0]
    alive = weakref.ref(array)
    del array
    gc.collect()
    assert alive() is not None
    assert rows(alias, 0, 1, view=True).shape == (1, 1, 4)


def test_an_error_in_a_band_reaches_the_caller(box):
    rays = bundle_rays(np.zeros((8, 4, 3)), np.tile([1.0, 0.0, 0.0], (8, 4, 1)))
    bundle = RayBundle(box.model, rays, bands=4)
    place = wp.array([wp.transformf()], dtype=wp.transformf, device="cpu")
    bundle.cast(box.state, place)
    bundle._bands[3]["depth_image"] = wp.zeros((1, 1, 1), dtype=wp.float32, device="cpu")
    with pytest.raises(ValueError, match="depth_image shape"):
        bundle.cast(box.state, place)
