"""Mounts: prims by path and name, poses on bodies, frames of cameras and LiDARs, the arithmetic of poses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pxr")
from pxr import Gf, Usd, UsdGeom

from saccade.config import CameraConfig, LidarConfig
from saccade.errors import SceneError
from saccade.scenes.mounts import inverse, multiply, nearest_first, rotate, sensor_mount

angles = st.floats(-3.1, 3.1)
lengths = st.floats(-5, 5)


def _pose(x: float, y: float, z: float, roll: float, pitch: float, yaw: float) -> tuple:
    rotation = Gf.Rotation(Gf.Vec3d(1, 0, 0), math.degrees(roll))
    rotation *= Gf.Rotation(Gf.Vec3d(0, 1, 0), math.degrees(pitch))
    rotation *= Gf.Rotation(Gf.Vec3d(0, 0, 1), math.degrees(yaw))
    q = rotation.GetQuat()
    return (x, y, z, *q.GetImaginary(), q.GetReal())


poses = st.builds(_pose, lengths, lengths, lengths, angles, angles, angles)


@given(a=poses, b=poses)
def test_a_pose_and_its_inverse_cancel(a: tuple, b: tuple) -> None:
    back = multiply(inverse(a), multiply(a, b))
    assert back[:3] == pytest.approx(b[:3], abs=1e-9)
    assert abs(sum(p * q for p, q in zip(back[3:], b[3:], strict=True))) == pytest.approx(1.0)


@given(a=poses, b=poses)
def test_products_match_pxr(a: tuple, b: tuple) -> None:
    def matrix(pose: tuple) -> Gf.Matrix4d:
        m = Gf.Matrix4d(1.0)
        m.SetRotate(Gf.Quatd(pose[6], *pose[3:6]))
        m.SetTranslateOnly(Gf.Vec3d(*pose[:3]))
        return m

    product = matrix(b) * matrix(a)
    ours = multiply(a, b)
    assert ours[:3] == pytest.approx(tuple(product.ExtractTranslation()), abs=1e-9)
    assert rotate(a[3:], (1.0, 2.0, 3.0)) == pytest.approx(tuple(matrix(a).TransformDir(Gf.Vec3d(1, 2, 3))), abs=1e-9)


def _stage() -> Usd.Stage:
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.Xform.Define(stage, "/Robot").AddTranslateOp().Set(Gf.Vec3d(5, 0, 0))
    head = UsdGeom.Xform.Define(stage, "/Robot/head")
    head.AddTranslateOp().Set(Gf.Vec3d(0, 0, 1))
    head.AddRotateZOp().Set(90.0)
    camera = UsdGeom.Camera.Define(stage, "/Robot/head/front_camera")
    camera.AddTranslateOp().Set(Gf.Vec3d(0.1, 0, 0))
    camera.AddRotateXYZOp().Set(Gf.Vec3f(90, 0, -90))
    UsdGeom.Xform.Define(stage, "/Robot/head/lidar").AddTranslateOp().Set(Gf.Vec3d(0, 0, 0.2))
    UsdGeom.Camera.Define(stage, "/World/overview")
    return stage


BODIES = {"/Robot/head": 3}


def test_a_camera_on_its_body() -> None:
    config = CameraConfig(kind="camera", prim="front_camera")
    mount = sensor_mount(_stage(), "eye", config, BODIES, root="/Robot")
    assert (mount.body, mount.prim) == (3, "/Robot/head/front_camera")
    assert mount.offset[:3] == pytest.approx((0.1, 0, 0))
    # It looks along the head's x axis, with the head's z up.
    assert rotate(mount.offset[3:], (0.0, 0.0, -1.0)) == pytest.approx((1, 0, 0), abs=1e-6)
    assert rotate(mount.offset[3:], (0.0, 1.0, 0.0)) == pytest.approx((0, 0, 1), abs=1e-6)
    assert mount.camera is not None


def test_a_lidar_on_its_body_and_one_in_the_world() -> None:
    mount = sensor_mount(_stage(), "l", LidarConfig(kind="lidar", prim="/Robot/head/lidar"), BODIES, root="/Robot")
    assert mount.body == 3
    assert mount.offset == pytest.approx((0, 0, 0.2, 0, 0, 0, 1))
    fixed = sensor_mount(_stage(), "l", LidarConfig(kind="lidar", prim="lidar"), {}, root="/Robot")
    assert fixed.body == -1
    assert fixed.offset[:3] == pytest.approx((5, 0, 1.2))
    assert rotate(fixed.offset[3:], (1.0, 0.0, 0.0)) == pytest.approx((0, 1, 0), abs=1e-6)


def test_mounts_by_link_and_angles() -> None:
    mount = {"link": "head", "translation": (0.1, 0.2, 0.3), "rotation": (0.0, 30.0, 0.0)}
    lidar = sensor_mount(_stage(), "l", LidarConfig(kind="lidar", mount=mount), BODIES, root="/Robot")
    assert lidar.body == 3
    assert lidar.offset[:3] == pytest.approx((0.1, 0.2, 0.3))
    down = rotate(lidar.offset[3:], (1.0, 0.0, 0.0))
    assert down == pytest.approx((math.cos(math.radians(30)), 0, -0.5))  # positive pitch looks down
    config = CameraConfig(kind="camera", mount=mount, horizontal_fov=90)
    camera = sensor_mount(_stage(), "c", config, BODIES, root="/Robot")
    assert camera.camera is None
    assert rotate(camera.offset[3:], (0.0, 0.0, -1.0)) == pytest.approx(down)
    assert rotate(camera.offset[3:], (1.0, 0.0, 0.0)) == pytest.approx((0, -1, 0), abs=1e-9)  # right is -y


def test_a_lidar_at_a_cameras_place_looks_where_it_looks() -> None:
    mount = sensor_mount(_stage(), "l", LidarConfig(kind="lidar", prim="front_camera"), BODIES, root="/Robot")
    assert rotate(mount.offset[3:], (1.0, 0.0, 0.0)) == pytest.approx((1, 0, 0), abs=1e-6)
    assert rotate(mount.offset[3:], (0.0, 0.0, 1.0)) == pytest.approx((0, 0, 1), abs=1e-6)


def test_missing_and_ambiguous_prims() -> None:
    stage = _stage()
    with pytest.raises(SceneError, match=r"sensors\.eye\.prim.*front_camera, /World/overview"):
        sensor_mount(stage, "eye", CameraConfig(kind="camera", prim="frontcamera"), BODIES, root="/Robot")
    with pytest.raises(SceneError, match=r"not a Camera"):
        sensor_mount(stage, "eye", CameraConfig(kind="camera", prim="lidar"), BODIES, root="/Robot")
    with pytest.raises(SceneError, match=r"mount\.link.*haed"):
        config = LidarConfig(kind="lidar", mount={"link": "haed"})
        sensor_mount(stage, "l", config, BODIES, root="/Robot")
    UsdGeom.Xform.Define(stage, "/Robot/tail/lidar")
    with pytest.raises(SceneError, match=r"2 prims are named 'lidar'"):
        sensor_mount(stage, "l", LidarConfig(kind="lidar", prim="lidar"), BODIES, root="/Robot")


def test_the_nearest_name_comes_first() -> None:
    assert nearest_first("head_cam", ["/a/chest_camera", "/a/head_camera", "/b/x"])[0] == "/a/head_camera"
