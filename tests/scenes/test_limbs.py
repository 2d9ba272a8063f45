"""The humanoid read from USD alone is the one that the embedded simulator measures in its model."""

from dataclasses import asdict
from pathlib import Path

import pytest

pytest.importorskip("pxr")

from saccade.config import HumanoidConfig
from saccade.errors import SceneError
from saccade.scenes.labels import labels_from_stage
from saccade.scenes.limbs import humanoid_of_stage, joint_order
from saccade.scenes.stage import stage_from_file

SCENES = Path(__file__).parents[2] / "scenes"


@pytest.fixture(scope="module")
def corridor():
    stage = stage_from_file(SCENES / "corridor.usda")
    return stage, humanoid_of_stage(stage, HumanoidConfig(), labels_from_stage(stage))


@pytest.fixture(scope="module")
def measured():
    pytest.importorskip("newton")
    from tests.contracts.isaac.physics import PLAIN_SENSOR

    from saccade.config import RunConfig
    from saccade.simulators.newton_scene import scene_from_file

    config = RunConfig.model_validate({"scene": "corridor.usda", "sensors": {"none": PLAIN_SENSOR}})
    return scene_from_file(SCENES / "corridor.usda", config, device="cpu", progress=lambda text: None)


def test_the_root_stands_where_the_embedded_simulator_has_it(corridor, measured):
    _, humanoid = corridor
    known = measured.humanoid
    assert humanoid.root == measured.model.body_label[known.root_body]
    assert set(humanoid.bodies) == {measured.model.body_label[body] for body in known.bodies}
    assert humanoid.start == pytest.approx(known.start, abs=1e-5)
    assert humanoid.rest == pytest.approx(known.rest, abs=1e-6)
    assert humanoid.root_height == pytest.approx(known.root_height, abs=1e-4)
    assert humanoid.floor_height == pytest.approx(measured.floor_height, abs=1e-5)
    assert set(humanoid.joints) == set(known.joints)


def test_legs_have_the_same_lengths_angles_and_signs(corridor, measured):
    stage, humanoid = corridor
    order = joint_order(stage, humanoid)
    by_coordinate = {coordinate: path for path, (coordinate, _) in measured.humanoid.joints.items()}
    for own, known in zip(humanoid.gait.legs, measured.humanoid.gait.legs, strict=True):
        assert own.joints.keys() == known.joints.keys()
        for role, joint in own.joints.items():
            other = known.joints[role]
            assert order[joint.coordinate] == by_coordinate[other.coordinate]
            assert joint.sign == other.sign
            assert (joint.lower, joint.upper) == pytest.approx((other.lower, other.upper), abs=1e-5)
        numbers, others = (
            {k: v for k, v in asdict(leg).items() if k not in ("joints", "hip", "ankle")} for leg in (own, known)
        )
        assert numbers == pytest.approx(others, abs=1e-4)
        assert own.hip == pytest.approx(known.hip, abs=1e-5)
        assert own.ankle == pytest.approx(known.ankle, abs=1e-5)
    assert [set(arm) for arm in humanoid.gait.arms] == [set(arm) for arm in measured.humanoid.gait.arms]
    assert humanoid.gait.stand_height == pytest.approx(measured.humanoid.gait.stand_height, abs=1e-4)


def test_a_joint_authored_the_other_way_round_turns_the_other_way(tmp_path):
    from pxr import UsdPhysics
    from tests.simulators.robots import walker_scene

    plain = stage_from_file(walker_scene(tmp_path / "plain.usda"))
    turned = stage_from_file(walker_scene(tmp_path / "turned.usda"))
    first = humanoid_of_stage(plain, HumanoidConfig(), labels_from_stage(plain))
    knee = next(path for path in first.joints if path.endswith("left_knee"))
    joint = UsdPhysics.Joint(turned.GetPrimAtPath(knee))
    relations = (joint.GetBody0Rel(), joint.GetBody1Rel())
    ends = [relation.GetTargets() for relation in relations]
    places = [joint.GetLocalPos0Attr().Get(), joint.GetLocalPos1Attr().Get()]
    turns = [joint.GetLocalRot0Attr().Get(), joint.GetLocalRot1Attr().Get()]
    for relation, targets in zip(relations, reversed(ends), strict=True):
        relation.SetTargets(targets)
    joint.GetLocalPos0Attr().Set(places[1])
    joint.GetLocalPos1Attr().Set(places[0])
    joint.GetLocalRot0Attr().Set(turns[1])
    joint.GetLocalRot1Attr().Set(turns[0])
    second = humanoid_of_stage(turned, HumanoidConfig(), labels_from_stage(turned))
    assert second.gait.legs[0].joints["knee"].sign == -first.gait.legs[0].joints["knee"].sign
    assert second.gait.legs[0].thigh_length == pytest.approx(first.gait.legs[0].thigh_length)
    assert second.root == first.root


def test_a_humanoid_that_is_fixed_is_refused(tmp_path):
    from pxr import UsdPhysics
    from tests.simulators.robots import walker_scene

    stage = stage_from_file(walker_scene(tmp_path / "fixed.usda"))
    humanoid = humanoid_of_stage(stage, HumanoidConfig(), labels_from_stage(stage))
    joint = UsdPhysics.FixedJoint.Define(stage, "/World/holds")
    joint.CreateBody1Rel().SetTargets([humanoid.root])
    with pytest.raises(SceneError, match="fixed to the world"):
        humanoid_of_stage(stage, HumanoidConfig(), labels_from_stage(stage))


def test_the_articulation_root_may_be_a_link_beside_the_others(tmp_path):
    from pxr import UsdPhysics
    from tests.simulators.robots import walker_scene

    stage = stage_from_file(walker_scene(tmp_path / "beside.usda"))
    known = humanoid_of_stage(stage, HumanoidConfig(), labels_from_stage(stage))
    top, root = stage.GetPrimAtPath(known.articulation), stage.GetPrimAtPath(known.root)
    assert known.articulation != known.root
    UsdPhysics.ArticulationRootAPI.Apply(root)
    top.RemoveAPI(UsdPhysics.ArticulationRootAPI)
    found = humanoid_of_stage(stage, HumanoidConfig(), labels_from_stage(stage))
    assert found.articulation == found.root == known.root
    assert (found.bodies, found.joints) == (known.bodies, known.joints)
