"""Scenes that cannot be used: each says what is wrong and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from robots import Scene, add_walker, run_config, walker_scene

from saccade.errors import ConfigurationError, SceneError
from saccade.simulators.newton import NewtonSimulator


def _open(path: Path, **simulator: object) -> None:
    NewtonSimulator(run_config(path, **simulator)).open(path)


def test_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    walker_scene(tmp_path / "warehouse.usda")
    with pytest.raises(SceneError, match=r"warehose\.usda.*warehouse\.usda"):
        _open(tmp_path / "warehose.usda")
    with pytest.raises(SceneError, match=r"folder"):
        _open(tmp_path / "nowhere" / "warehouse.usda")


def test_not_a_usd_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.usda"
    path.write_text("#usda 1.0\ndef Xform {\n")
    with pytest.raises(SceneError, match=r"broken\.usda"):
        _open(path)
    empty = tmp_path / "empty.usda"
    empty.write_text("#usda 1.0\n")
    with pytest.raises(SceneError, match=r"no prim"):
        _open(empty)
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG")
    with pytest.raises(SceneError, match=r"picture\.png"):
        _open(picture)


def test_scene_without_physics(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "still.usda")
    scene.box("/World/ground", (30, 30, 0.2), (0, 0, -0.1), label="floor", collide=False)
    with pytest.raises(SceneError, match=r"no physics.*PhysicsArticulationRootAPI"):
        _open(scene.save())


def test_scene_without_humanoid(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "people.usda")
    scene.mover("/World/visitor", (0.4, 0.4, 1.7), [(0.0, (3.0, -3.0, 0.85)), (4.0, (3.0, 3.0, 0.85))])
    path = scene.save()
    with pytest.raises(SceneError, match=r"no humanoid.*simulator.humanoid.prim"):
        _open(path)
    with pytest.raises(SceneError, match=r"no prim '/World/Robot'"):
        _open(path, humanoid={"prim": "/World/Robot"})


def test_humanoid_fixed_to_the_world(tmp_path: Path) -> None:
    from pxr import UsdPhysics

    scene = Scene(tmp_path / "fixed.usda")
    scene.box("/World/ground", (30, 30, 0.2), (0, 0, -0.1), label="floor")
    add_walker(scene)
    joint = UsdPhysics.FixedJoint.Define(scene.stage, "/Robot/joints/anchor")
    joint.CreateBody1Rel().SetTargets(["/Robot/pelvis"])
    with pytest.raises(SceneError, match=r"fixed to the world"):
        _open(scene.save())


def test_implausible_size_blames_the_units(tmp_path: Path) -> None:
    path = walker_scene(tmp_path / "tiny.usda")
    text = path.read_text().replace("metersPerUnit = 1", "metersPerUnit = 0.01")
    path.write_text(text)
    with pytest.raises(SceneError, match=r"metersPerUnit"):
        _open(path)


def test_missing_sensor_prims_list_what_exists(walker_file: Path) -> None:
    config = run_config(walker_file)
    config.sensors["eye"].prim = "eya"
    with pytest.raises(SceneError, match=r"sensors\.eye\.prim.*'eya'.*/Robot/trunk/eye"):
        NewtonSimulator(config).open(walker_file)
    config.sensors["eye"].prim = "/Robot/pelvis"
    with pytest.raises(SceneError, match=r"not a Camera.*/Robot/trunk/eye"):
        NewtonSimulator(config).open(walker_file)
    config.sensors["eye"].prim = "eye"
    config.sensors["lidar"].prim = "lidr"
    with pytest.raises(SceneError, match=r"sensors\.lidar\.prim.*are: /Robot/trunk/lidar"):
        NewtonSimulator(config).open(walker_file)


def test_wrong_gait_roles_are_named(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "roles.usda")
    scene.box("/World/ground", (30, 30, 0.2), (0, 0, -0.1), label="floor")
    add_walker(scene)
    prim = scene.stage.GetPrimAtPath("/Robot")
    data = prim.GetCustomDataByKey("saccade")
    data["left"]["knee"] = "left_hip_roll"
    prim.SetCustomDataByKey("saccade", data)
    with pytest.raises(SceneError, match=r"left_knee.*left_hip_roll.*axis"):
        _open(scene.save())


def test_cuda_without_cuda_says_so() -> None:
    import warp as wp

    if wp.is_cuda_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ConfigurationError, match=r"--device cpu"):
        NewtonSimulator(run_config("x"), device="cuda")
