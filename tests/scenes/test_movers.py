"""Things that move along time samples: interpolation, loops, ancestors, units."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pxr")
from pxr import Gf, Usd, UsdGeom, UsdPhysics

from saccade.scenes.movers import Mover, animated_without_body, interpolate, movers_from_stage

IDENTITY = (0.0, 0.0, 0.0, 1.0)


def _stage() -> Usd.Stage:
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdGeom.SetStageUpAxis(stage, "Z")
    stage.SetTimeCodesPerSecond(24)
    return stage


def test_position_between_samples_and_around_the_loop() -> None:
    stage = _stage()
    xform = UsdGeom.Xform.Define(stage, "/p")
    op = xform.AddTranslateOp()
    op.Set(Gf.Vec3d(0, 0, 0), Usd.TimeCode(24))
    op.Set(Gf.Vec3d(4, 0, 0), Usd.TimeCode(72))
    op.Set(Gf.Vec3d(0, 0, 0), Usd.TimeCode(120))
    stage.SetStartTimeCode(24)
    stage.SetEndTimeCode(120)
    (mover,) = movers_from_stage(stage, ["/p"])
    assert mover.period == pytest.approx(4.0)
    pose = [0.0] * 7
    for time, x in ((0.0, 0.0), (1.0, 2.0), (2.0, 4.0), (3.0, 2.0), (4.0, 0.0), (5.0, 2.0), (9.0, 2.0), (41.5, 3.0)):
        mover.pose_into(time, pose)
        assert pose[0] == pytest.approx(x, abs=1e-9), time
        assert tuple(pose[3:]) == pytest.approx(IDENTITY)


def test_ancestors_and_turns_count_and_scale_does_not() -> None:
    stage = _stage()
    group = UsdGeom.Xform.Define(stage, "/g")
    group.AddTranslateOp().Set(Gf.Vec3d(1, 2, 3))
    group.AddScaleOp().Set(Gf.Vec3f(2, 2, 2))
    child = UsdGeom.Xform.Define(stage, "/g/c")
    turn = child.AddRotateZOp()
    turn.Set(0.0, Usd.TimeCode(0))
    turn.Set(90.0, Usd.TimeCode(24))
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(24)
    (mover,) = movers_from_stage(stage, ["/g/c"])
    pose = [0.0] * 7
    mover.pose_into(0.5, pose)
    assert pose[:3] == pytest.approx([1, 2, 3])
    assert pose[3:] == pytest.approx([0, 0, math.sin(math.radians(22.5)), math.cos(math.radians(22.5))], abs=1e-6)


def test_what_has_no_samples_does_not_move() -> None:
    stage = _stage()
    UsdGeom.Xform.Define(stage, "/still").AddTranslateOp().Set(Gf.Vec3d(1, 0, 0))
    assert movers_from_stage(stage, ["/still"]) == []


def test_animation_without_a_body_is_named() -> None:
    stage = _stage()
    for name in ("body", "picture"):
        op = UsdGeom.Xform.Define(stage, f"/{name}").AddTranslateOp()
        op.Set(Gf.Vec3d(0, 0, 0), Usd.TimeCode(0))
        op.Set(Gf.Vec3d(1, 0, 0), Usd.TimeCode(10))
    UsdPhysics.RigidBodyAPI.Apply(stage.GetPrimAtPath("/body"))
    assert animated_without_body(stage, ["/body"]) == ["/picture"]


@given(
    share=st.floats(0, 1),
    first=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: math.hypot(*q) > 0.1),
    second=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: math.hypot(*q) > 0.1),
)
def test_interpolated_rotations_are_rotations_between(share: float, first: tuple, second: tuple) -> None:
    a, b = (tuple(v / math.hypot(*q) for v in q) for q in (first, second))
    out = [0.0] * 7
    interpolate((0, 0, 0, *a), (2, 0, 0, *b), share, out)
    assert out[0] == pytest.approx(2 * share)
    assert math.hypot(*out[3:]) == pytest.approx(1.0)

    def angle(p: tuple, q: tuple) -> float:
        return 2 * math.acos(min(1.0, abs(sum(x * y for x, y in zip(p, q, strict=True)))))

    whole = angle(a, b)
    assert angle(a, tuple(out[3:])) == pytest.approx(share * whole, abs=2e-3)
    assert angle(tuple(out[3:]), b) == pytest.approx((1 - share) * whole, abs=2e-3)


def test_a_single_pose_is_a_pose() -> None:
    pose = [0.0] * 7
    Mover("/x", [0.0], [(1.0, 2.0, 3.0, *IDENTITY)], 0.0).pose_into(5.0, pose)
    assert pose == [1.0, 2.0, 3.0, *IDENTITY]
