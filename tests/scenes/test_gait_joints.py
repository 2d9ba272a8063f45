"""Gaits for robots whose scene names no roles: by configuration, joint by joint or as a known robot."""

import math

import pytest

pytest.importorskip("pxr")

from tests.scenes.foreign import TURNED, foreign_scene

from saccade.config import HumanoidConfig
from saccade.errors import ConfigurationError, SceneError
from saccade.scenes.gait import REQUIRED_ROLES, SIDES, Gait
from saccade.scenes.gait_joints import ROBOTS, GaitJoint, gait_joints
from saccade.scenes.labels import labels_from_stage
from saccade.scenes.limbs import humanoid_of_stage, joint_order
from saccade.scenes.stage import stage_from_file


def humanoid(path, **gait):
    stage = stage_from_file(path)
    config = HumanoidConfig.model_validate({"gait": gait})
    found = humanoid_of_stage(stage, config, labels_from_stage(stage, further={}))
    return found, joint_order(stage, found)


def targets(found, joints):
    """Targets of the gait half a second into a walk, by joint name."""
    gait = Gait(found.gait)
    gait.reset(*found.start)
    for i in range(25):
        gait.advance(0.02, 0.01 * i, 0.0, 0.0, 0.5, 0.0, 0.0)
    return {
        joints[joint.coordinate].rsplit("/", 1)[-1]: target
        for joint, target in zip(gait.joints, gait.targets, strict=True)
    }


def test_without_roles_it_glides_and_says_which_robot_it_resembles(tmp_path):
    found, _ = humanoid(foreign_scene(tmp_path / "g1.usda"))
    assert found.gait is None and "simulator.humanoid.gait.joints: unitree_g1" in found.no_gait_reason
    found, _ = humanoid(foreign_scene(tmp_path / "h1.usda", ending="", ankle_pitch="ankle"))
    assert "simulator.humanoid.gait.joints: unitree_h1" in found.no_gait_reason
    found, _ = humanoid(foreign_scene(tmp_path / "other.usda", ending="_motor"))
    assert found.gait is None and "unitree" not in found.no_gait_reason


@pytest.mark.parametrize(
    ("robot", "ending", "names", "roles"),
    [("unitree_g1", "_joint", {}, 6), ("unitree_h1", "_joint", {"ankle_pitch": "ankle"}, 5),
     ("unitree_h1", "", {"ankle_pitch": "ankle"}, 5)],
)  # fmt: skip
def test_a_known_robot_walks(tmp_path, robot, ending, names, roles):
    found, joints = humanoid(foreign_scene(tmp_path / "robot.usda", ending=ending, **names), joints=robot)
    assert found.no_gait_reason == ""
    assert [len(leg.joints) for leg in found.gait.legs] == [roles, roles]
    asked = targets(found, joints)
    # Knees bend backwards whichever way their axes point.
    left, right = asked[f"left_knee{ending}"], asked[f"right_knee{ending}"]
    assert left < -0.05 < 0.05 < right


def test_sign_offset_and_scale_of_one_joint(tmp_path):
    path = foreign_scene(tmp_path / "robot.usda", ending="")
    plain = {f"{side}_{role}": f"{side}_{role}" for side in SIDES for role in REQUIRED_ROLES}
    before = targets(*humanoid(path, joints=plain))
    changed = {**plain, "right_knee": {"joint": "right_knee", "sign": -1, "offset": 0.3, "scale": 0.5}}
    after = targets(*humanoid(path, joints=changed))
    assert after["right_knee"] == pytest.approx(0.3 - 0.5 * before["right_knee"])
    assert {k: v for k, v in after.items() if k != "right_knee"} == pytest.approx(
        {k: v for k, v in before.items() if k != "right_knee"}
    )
    assert set(before) == set(plain.values())  # joints without a role are left alone
    assert TURNED in before and all(map(math.isfinite, before.values()))


def test_what_the_configuration_names_takes_the_place_of_what_the_scene_names():
    from saccade.config import GaitConfig

    config = GaitConfig.model_validate({"joints": {"left_knee": {"joint": "other", "offset": 0.1}}})
    found = gait_joints(config, {"left_knee": "own", "right_knee": "own_too"}, [])
    assert found == {"left_knee": GaitJoint("other", None, 0.1, 1.0), "right_knee": GaitJoint("own_too")}


def test_mistakes_are_told(tmp_path):
    path = foreign_scene(tmp_path / "robot.usda")
    with pytest.raises(SceneError, match=r"names a joint for left_ankle_pitch.*gait\.joints: unitree_g1"):
        humanoid(path, joints={"left_knee": "left_knee_joint", "left_hip_pitch": "left_hip_pitch_joint"})
    roles = {
        f"{side}_{role}": f"{side}_{role}_joint" for side in SIDES for role in ("hip_pitch", "knee", "ankle_pitch")
    }
    with pytest.raises(SceneError, match=r"'left_kneee', which is no joint .* are: left_knee_joint"):
        humanoid(path, joints={**roles, "left_knee": "left_kneee"})
    with pytest.raises(SceneError, match="left_hip_yaw_joint, whose axis at the zero pose is"):
        humanoid(path, joints={**roles, "left_knee": "left_hip_yaw_joint"})
    with pytest.raises(SceneError, match="left_knee"):
        humanoid(foreign_scene(tmp_path / "motors.usda", ending="_motor"), joints="unitree_g1")


@pytest.mark.parametrize("value", ["unitree_x", {"left_tail": "tail"}, {"left_knee": {"joint": "a", "scale": -1}}])
def test_a_wrong_field_is_named(tmp_path, value):
    import json

    from saccade.configuration import load_configuration

    with pytest.raises(ConfigurationError, match=r"simulator\.humanoid\.gait\.joints"):
        load_configuration("warehouse", overrides=[f"simulator.humanoid.gait.joints={json.dumps(value)}"])


def test_known_robots_name_what_a_gait_needs():
    assert all(set(REQUIRED_ROLES) <= set(roles) for roles in ROBOTS.values())
