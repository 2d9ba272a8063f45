"""The humanoid: proportions, joints, sensors, and that it stands on its own drives."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("pxr")

from pxr import Gf, Usd, UsdGeom, UsdPhysics

from saccade.scenes.author_humanoid import links
from saccade.scenes.gait import ARM_ROLES, LEG_ROLES, SIDES
from saccade.scenes.humanoid import gait_roles

SCENES = Path(__file__).resolve().parents[2] / "scenes"


@pytest.fixture(scope="module")
def stage() -> Usd.Stage:
    return Usd.Stage.Open(str(SCENES / "humanoid.usda"))


def shapes_box(stage: Usd.Stage, path: str) -> Gf.Range3d:
    """Returns the box around what is seen of a prim: USD's own cache takes rounded extents of shapes."""
    cache = UsdGeom.BBoxCache(Usd.TimeCode.Default(), [UsdGeom.Tokens.default_])
    return cache.ComputeWorldBound(stage.GetPrimAtPath(path)).ComputeAlignedRange()


def test_proportions(stage):
    body = shapes_box(stage, "/Humanoid")
    assert 1.70 <= body.GetMax()[2] <= 1.75
    assert body.GetMin()[2] == pytest.approx(0.0, abs=1e-4)
    assert 0.4 <= body.GetSize()[1] <= 0.65
    bodies = [p for p in stage.Traverse() if p.HasAPI(UsdPhysics.RigidBodyAPI)]
    mass = sum(UsdPhysics.MassAPI(p).GetMassAttr().Get() for p in bodies)
    assert 55 <= mass <= 70
    for side in SIDES:
        sole = shapes_box(stage, f"/Humanoid/{side}_foot/sole")
        assert sole.GetMin()[2] == pytest.approx(0.0, abs=1e-4)


def test_joints_have_limits_drives_and_plausible_links(stage):
    joints = [p for p in stage.Traverse() if p.IsA(UsdPhysics.RevoluteJoint)]
    assert len(joints) == 25
    for prim in joints:
        joint, drive = UsdPhysics.RevoluteJoint(prim), UsdPhysics.DriveAPI.Get(prim, "angular")
        assert prim.HasAPI(UsdPhysics.DriveAPI, "angular")
        assert -180 < joint.GetLowerLimitAttr().Get() < 0 < joint.GetUpperLimitAttr().Get() < 180
        assert 5 < drive.GetMaxForceAttr().Get() <= 300
        # Per degree: 60 to 1500 N m/rad.
        assert math.radians(50) < drive.GetStiffnessAttr().Get() < math.radians(1500)
        assert drive.GetDampingAttr().Get() > 0
        assert len(joint.GetBody0Rel().GetTargets()) == len(joint.GetBody1Rel().GetTargets()) == 1
    for prim in stage.Traverse():
        if prim.HasAPI(UsdPhysics.RigidBodyAPI):
            inertia = UsdPhysics.MassAPI(prim).GetDiagonalInertiaAttr().Get()
            assert min(inertia) > 5e-4 and max(inertia) <= sum(inertia) - max(inertia) + 1e-6, prim.GetPath()


def test_joint_frames_agree_with_the_links(stage):
    cache = UsdGeom.XformCache()
    for prim in stage.Traverse():
        if not prim.IsA(UsdPhysics.RevoluteJoint):
            continue
        joint = UsdPhysics.Joint(prim)
        places = []
        for body, at in (
            (joint.GetBody0Rel(), joint.GetLocalPos0Attr()),
            (joint.GetBody1Rel(), joint.GetLocalPos1Attr()),
        ):
            link = stage.GetPrimAtPath(body.GetTargets()[0])
            places.append(cache.GetLocalToWorldTransform(link).Transform(Gf.Vec3d(at.Get())))
        assert (places[0] - places[1]).GetLength() < 1e-4, prim.GetPath()


def test_left_and_right_mirror_each_other():
    by_name = {link.name: link for link in links()}
    for name, link in by_name.items():
        if name.startswith("left_"):
            other = by_name["right" + name[4:]]
            assert other.at == (link.at[0], -link.at[1], link.at[2])
            assert (other.mass, other.gains) == (link.mass, link.gains)
            if link.axis == "Y":
                assert other.limits == link.limits
            else:
                assert other.limits == (-link.limits[1], -link.limits[0])


def test_custom_data_names_every_role(stage):
    data = dict(stage.GetDefaultPrim().GetCustomDataByKey("saccade"))
    roles = gait_roles(data)
    assert set(roles) == {f"{side}_{role}" for side in SIDES for role in (*LEG_ROLES, *ARM_ROLES)}
    for name in roles.values():
        assert stage.GetPrimAtPath(f"/Humanoid/joints/{name}").IsA(UsdPhysics.RevoluteJoint)
    assert data["stand_height"] == pytest.approx(0.98)
    assert data["thigh_length"] + data["shank_length"] + data["sole_offset"] == pytest.approx(0.925)


def test_cameras_see_what_they_should(stage):
    cache = UsdGeom.XformCache()
    for path, height, down, fov in (("head/head_camera", 1.6, 35, 90), ("torso/chest_camera", 1.385, 25, 70)):
        camera = UsdGeom.Camera(stage.GetPrimAtPath(f"/Humanoid/{path}"))
        gf = camera.GetCamera(Usd.TimeCode.Default())
        assert gf.GetFieldOfView(Gf.Camera.FOVHorizontal) == pytest.approx(fov, abs=0.01)
        assert gf.horizontalAperture == gf.verticalAperture
        matrix = cache.GetLocalToWorldTransform(camera.GetPrim())
        look, up = matrix.TransformDir(Gf.Vec3d(0, 0, -1)), matrix.TransformDir(Gf.Vec3d(0, 1, 0))
        assert look[0] == pytest.approx(math.cos(math.radians(down)), abs=1e-6)
        assert look[2] == pytest.approx(-math.sin(math.radians(down)), abs=1e-6)
        assert up[2] > 0 and abs(up[1]) < 1e-6
        assert matrix.ExtractTranslation()[2] == pytest.approx(height, abs=0.02)


def test_the_lidar_mount_stands_upright_above_the_skull(stage):
    matrix = UsdGeom.XformCache().GetLocalToWorldTransform(stage.GetPrimAtPath("/Humanoid/head/lidar_mount"))
    at = matrix.ExtractTranslation()
    assert matrix.ExtractRotationMatrix() == Gf.Matrix3d(1.0)
    assert at[2] > shapes_box(stage, "/Humanoid/head").GetMax()[2] + 0.01


def standing_scene(tmp_path: Path) -> Path:
    stage = Usd.Stage.CreateNew(str(tmp_path / "standing.usda"))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    world = UsdGeom.Xform.Define(stage, "/World")
    stage.SetDefaultPrim(world.GetPrim())
    UsdPhysics.Scene.Define(stage, "/World/Physics")
    floor = UsdGeom.Cube.Define(stage, "/World/floor")
    floor.CreateSizeAttr(1.0)
    UsdGeom.XformCommonAPI(floor).SetScale((6, 6, 0.1))
    UsdGeom.XformCommonAPI(floor).SetTranslate((0, 0, -0.05))
    UsdPhysics.CollisionAPI.Apply(floor.GetPrim())
    stage.DefinePrim("/World/Humanoid").GetReferences().AddReference(str(SCENES / "humanoid.usda"))
    stage.Save()
    return tmp_path / "standing.usda"


def test_it_stands_on_its_drives(tmp_path):
    newton = pytest.importorskip("newton")
    import numpy as np

    builder = newton.ModelBuilder(up_axis=newton.Axis.Z)
    newton.solvers.SolverMuJoCo.register_custom_attributes(builder)
    builder.add_usd(str(standing_scene(tmp_path)), enable_self_collisions=True)
    model = builder.finalize(device="cpu")
    assert model.joint_dof_count == 25 + 6
    assert 55 <= float(model.body_mass.numpy().sum()) <= 70
    solver = newton.solvers.SolverMuJoCo(model, use_mujoco_cpu=True)
    state, following, control = model.state(), model.state(), model.control()
    newton.eval_fk(model, model.joint_q, model.joint_qd, state)
    pelvis = model.body_label.index("/World/Humanoid/pelvis")
    start = state.body_q.numpy()[pelvis].copy()
    shape_of_geom = solver.mjc_geom_to_newton_shape.numpy()[0]
    touching: set[frozenset[str]] = set()
    for _ in range(400):
        state.clear_forces()
        solver.step(state, following, control, None, 0.005)
        state, following = following, state
        data = solver.mj_data
        for k in range(data.ncon):
            if data.contact.dist[k] < 0:
                touching.add(frozenset(model.shape_label[shape_of_geom[g]] for g in data.contact.geom[k]))
    drift = state.body_q.numpy()[pelvis][:3] - start[:3]
    assert np.abs(drift).max() < 0.02
    assert np.abs(state.joint_qd.numpy()).max() < 0.05
    # Nothing but soles on the floor: no link rubs against another, with self-collisions on.
    soles = {f"/World/Humanoid/{side}_foot/sole" for side in SIDES}
    assert touching == {frozenset({sole, "/World/floor"}) for sole in soles}
