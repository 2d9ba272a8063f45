"""The walking gait: feet that stay, legs that reach them, phases that make sense."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.scenes.gait import DUTY, Gait, GaitModel, Joint, Leg

THIGH, SHANK, SOLE = 0.42, 0.40, 0.08
ROLES = ("hip_yaw", "hip_roll", "hip_pitch", "knee", "ankle_pitch", "ankle_roll")


def _model(sign: float = 1.0) -> GaitModel:
    legs = []
    for side, y in ((0, 0.1), (1, -0.1)):
        joints = {role: Joint(6 * side + i, 6 * side + i, sign) for i, role in enumerate(ROLES)}
        legs.append(Leg(joints, (0.0, y, -0.04), (0.0, y, -0.86), THIGH, SHANK, 0.0, 0.0, SOLE))
    arms = tuple({"shoulder_pitch": Joint(12 + side, 12 + side, sign)} for side in (0, 1))
    return GaitModel((legs[0], legs[1]), (arms[0], arms[1]))


def _ankle(gait: Gait, side: int) -> tuple[float, float, float, float]:
    """Forward kinematics of one leg: ankle in the base frame and the foot's pitch."""
    leg = gait.model.legs[side]
    values = dict(zip([(j.coordinate) for j in gait.joints], gait.targets, strict=True))
    angle = {role: joint.sign * values[joint.coordinate] for role, joint in leg.joints.items()}
    thigh, shank = angle["hip_pitch"], angle["hip_pitch"] + angle["knee"]
    x = -THIGH * math.sin(thigh) - SHANK * math.sin(shank)
    depth = THIGH * math.cos(thigh) + SHANK * math.cos(shank)
    y, z = depth * math.sin(angle["hip_roll"]), -depth * math.cos(angle["hip_roll"])
    cos, sin = math.cos(angle["hip_yaw"]), math.sin(angle["hip_yaw"])
    pitch = shank + angle["ankle_pitch"]
    return leg.hip[0] + cos * x - sin * y, leg.hip[1] + sin * x + cos * y, leg.hip[2] + z, pitch


def test_stands_on_flat_feet_side_by_side() -> None:
    gait = Gait(_model())
    assert gait.standing
    for side in (0, 1):
        x, y, z, pitch = _ankle(gait, side)
        assert (x, y) == pytest.approx((0.0, 0.1 - 0.2 * side), abs=1e-6)
        assert gait.height + z == pytest.approx(SOLE, abs=1e-6)
        assert pitch == pytest.approx(0.0, abs=1e-6)
    assert 0.9 < gait.height < 0.94


@settings(max_examples=40, deadline=None)
@given(
    forward=st.floats(-0.5, 1.2),
    left=st.floats(-0.3, 0.3),
    turn=st.floats(-1.0, 1.0),
    sign=st.sampled_from([1.0, -1.0]),
)
def test_legs_reach_their_feet_whatever_is_commanded(forward: float, left: float, turn: float, sign: float) -> None:
    gait = Gait(_model(sign))
    x = y = yaw = 0.0
    dt = 0.005
    reached = []
    wanted = (forward, left, turn)
    for step in range(600):
        # 1.2 m/s within 0.8 s, as the base's limit of acceleration has it
        forward, left, turn = (min(1.0, step / 160) * value for value in wanted)
        middle = yaw + 0.5 * turn * dt
        x += (forward * math.cos(middle) - left * math.sin(middle)) * dt
        y += (forward * math.sin(middle) + left * math.cos(middle)) * dt
        yaw += turn * dt
        gait.advance(dt, x, y, yaw, forward, left, turn)
        assert all(math.isfinite(value) for value in gait.targets)
        for side in (0, 1):
            foot_x, foot_y, foot_z, _ = gait.foot(side)
            ankle_x, ankle_y, ankle_z, pitch = _ankle(gait, side)
            world_x = x + math.cos(yaw) * ankle_x - math.sin(yaw) * ankle_y
            world_y = y + math.sin(yaw) * ankle_x + math.cos(yaw) * ankle_y
            reached.append(math.dist((world_x, world_y, gait.height + ankle_z - SOLE), (foot_x, foot_y, foot_z)))
            assert pitch == pytest.approx(0.0, abs=1e-6)
            # Toes must not rise above the knee nor the foot fall through the floor.
            assert -1e-9 <= foot_z < 0.2
    # The leg is as long as it is: at the end of a fast step it may miss its foot by a little.
    assert max(reached) < 0.06
    assert sorted(reached)[len(reached) // 2] < 1e-6


def test_feet_stand_still_in_the_world_while_the_base_moves() -> None:
    gait = Gait(_model())
    x, dt = 0.0, 0.005
    last: dict[int, tuple[float, float]] = {}
    both_up = 0
    for _ in range(800):
        x += 0.7 * dt
        gait.advance(dt, x, 0.0, 0.0, 0.7, 0.0, 0.0)
        up = 0
        for side in (0, 1):
            foot_x, foot_y, foot_z, swinging = gait.foot(side)
            if not swinging:
                assert foot_z == 0.0
                if side in last:
                    assert math.dist(last[side], (foot_x, foot_y)) < 1e-12
                last[side] = (foot_x, foot_y)
            else:
                last.pop(side, None)
                up += 1
        both_up += up == 2
    assert both_up == 0  # it walks, it does not run
    assert gait.foot(0)[0] == pytest.approx(x, abs=0.7)


def test_stops_with_feet_together() -> None:
    gait = Gait(_model())
    x, dt = 0.0, 0.005
    for _ in range(300):
        x += 0.7 * dt
        gait.advance(dt, x, 0.0, 0.0, 0.7, 0.0, 0.0)
    for _ in range(600):
        gait.advance(dt, x, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert gait.standing
    targets = list(gait.targets)
    gait.advance(dt, x, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert gait.targets == pytest.approx(targets, abs=1e-3)
    assert abs(gait.foot(0)[0] - gait.foot(1)[0]) < 0.03


@given(phase=st.floats(0, 1, exclude_max=True), speed=st.floats(0.1, 1.2))
def test_a_pose_without_history_has_one_foot_where_its_phase_says(phase: float, speed: float) -> None:
    gait = Gait(_model())
    gait.reset(1.0, 2.0, 0.5, phase=phase, speed=speed)
    for side in (0, 1):
        share = (phase + 0.5 * side) % 1.0
        if abs(share - DUTY) > 1e-9:
            assert gait.foot(side)[3] == (share >= DUTY)
    assert math.dist(gait.foot(0)[:2], (1.0, 2.0)) < 0.9


def test_arms_swing_against_the_legs() -> None:
    gait = Gait(_model())
    shoulder = [slot for slot, joint in enumerate(gait.joints) if joint.coordinate == 12]
    gait.reset(0.0, 0.0, 0.0, phase=0.0, speed=1.0)
    left_leg_ahead = gait.foot(0)[0] > 0
    assert left_leg_ahead
    assert gait.targets[shoulder[0]] > 0.2  # positive swings backwards


def test_limits_hold() -> None:
    model = _model()
    legs = []
    for leg in model.legs:
        joints = {role: Joint(j.coordinate, j.dof, j.sign, -0.3, 0.3) for role, j in leg.joints.items()}
        legs.append(Leg(joints, leg.hip, leg.ankle, THIGH, SHANK, 0.0, 0.0, SOLE))
    gait = Gait(GaitModel((legs[0], legs[1]), model.arms))
    gait.reset(0.0, 0.0, 0.0, phase=0.8, speed=1.0)
    assert all(
        -0.3 <= value <= 0.3 for value, joint in zip(gait.targets, gait.joints, strict=True) if joint.coordinate < 12
    )
