"""PointInstancers become references: places, masks, nesting, prototypes that disappear."""

from __future__ import annotations

import pytest

pytest.importorskip("pxr")
from pxr import Gf, Usd, UsdGeom

from saccade.errors import SceneError
from saccade.scenes.instancers import expand_instancers


def _instancer(stage: Usd.Stage, path: str = "/World/many", prototypes: int = 1) -> UsdGeom.PointInstancer:
    instancer = UsdGeom.PointInstancer.Define(stage, path)
    targets = []
    for k in range(prototypes):
        cube = UsdGeom.Cube.Define(stage, f"{path}/prototypes/kind_{k}")
        cube.CreateSizeAttr(0.2 * (k + 1))
        cube.AddTranslateOp().Set(Gf.Vec3d(0, 0, 5))
        targets.append(cube.GetPath())
    instancer.CreatePrototypesRel().SetTargets(targets)
    return instancer


def _visible_cubes(stage: Usd.Stage) -> dict[str, tuple[float, ...]]:
    cache = UsdGeom.XformCache()
    return {
        str(prim.GetPath()): tuple(cache.GetLocalToWorldTransform(prim).ExtractTranslation())
        for prim in stage.Traverse()
        if prim.IsA(UsdGeom.Cube)
    }


def test_instances_stand_where_they_should() -> None:
    stage = Usd.Stage.CreateInMemory()
    world = UsdGeom.Xform.Define(stage, "/World")
    world.AddTranslateOp().Set(Gf.Vec3d(10, 0, 0))
    instancer = _instancer(stage, prototypes=2)
    instancer.CreateProtoIndicesAttr([0, 1, 0])
    instancer.CreatePositionsAttr([(1, 0, 0), (2, 0, 0), (3, 0, 0)])
    instancer.CreateScalesAttr([(1, 1, 1), (2, 2, 2), (1, 1, 1)])
    expected = instancer.ComputeInstanceTransformsAtTime(Usd.TimeCode.Default(), Usd.TimeCode.Default())
    assert expand_instancers(stage) == 3
    cubes = _visible_cubes(stage)
    assert len(cubes) == 3
    places = sorted(cubes.values())
    wanted = sorted(tuple(m.ExtractTranslation() + Gf.Vec3d(10, 0, 0)) for m in expected)
    for a, b in zip(places, wanted, strict=True):
        assert a == pytest.approx(b)
    assert not stage.GetRootLayer().GetPrimAtPath("/World/many/saccade_instances")


def test_invisible_and_inactive_instances_are_left_out() -> None:
    stage = Usd.Stage.CreateInMemory()
    instancer = _instancer(stage)
    instancer.CreateProtoIndicesAttr([0, 0, 0, 0])
    instancer.CreatePositionsAttr([(k, 0, 0) for k in range(4)])
    instancer.CreateIdsAttr([10, 11, 12, 13])
    instancer.CreateInvisibleIdsAttr([11])
    instancer.DeactivateId(13)
    assert expand_instancers(stage) == 2
    assert sorted(place[0] for place in _visible_cubes(stage).values()) == pytest.approx([0.0, 2.0])


def test_orientations_turn() -> None:
    stage = Usd.Stage.CreateInMemory()
    instancer = _instancer(stage)
    instancer.CreateProtoIndicesAttr([0])
    instancer.CreatePositionsAttr([(0, 0, 0)])
    instancer.CreateOrientationsAttr([Gf.Quath(0.70710678, 0.70710678, 0, 0)])  # 90 degrees about x
    expand_instancers(stage)
    # The prototype's own offset of 5 upwards points along -y now.
    assert next(iter(_visible_cubes(stage).values())) == pytest.approx((0, -5, 0), abs=1e-2)


def test_nested_instancers() -> None:
    stage = Usd.Stage.CreateInMemory()
    outer = UsdGeom.PointInstancer.Define(stage, "/World/outer")
    inner = _instancer(stage, "/World/outer/prototypes/pallet")
    inner.CreateProtoIndicesAttr([0, 0])
    inner.CreatePositionsAttr([(0, 0, 0), (0, 1, 0)])
    outer.CreatePrototypesRel().SetTargets([inner.GetPath()])
    outer.CreateProtoIndicesAttr([0, 0, 0])
    outer.CreatePositionsAttr([(k, 0, 0) for k in range(3)])
    expand_instancers(stage)
    places = sorted((round(x), round(y)) for x, y, _ in _visible_cubes(stage).values())
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]


def test_malformed_instancers_are_named() -> None:
    stage = Usd.Stage.CreateInMemory()
    instancer = _instancer(stage)
    instancer.CreateProtoIndicesAttr([0, 3])
    instancer.CreatePositionsAttr([(0, 0, 0), (1, 0, 0)])
    with pytest.raises(SceneError, match=r"/World/many.*prototype 3"):
        expand_instancers(stage)
    instancer.GetProtoIndicesAttr().Set([0, 0, 0])
    with pytest.raises(SceneError, match=r"/World/many"):
        expand_instancers(stage)


def test_an_empty_instancer_is_nothing() -> None:
    stage = Usd.Stage.CreateInMemory()
    _instancer(stage)
    assert expand_instancers(stage) == 0
