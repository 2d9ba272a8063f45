"""A robot from elsewhere: the tests' biped with another maker's joint names, one axis turned round, and no roles."""

from __future__ import annotations

from pathlib import Path

from pxr import Gf, Sdf, Usd, UsdPhysics
from tests.simulators.robots import walker_scene

TURNED = "left_knee"
"""The joint whose axis points to the right instead of to the left."""


def foreign_scene(path: Path, *, ending: str = "_joint", **names: str) -> Path:
    """Writes the scene.

    Args:
        path: File.
        ending: What joint names end in.
        names: Other names by role without side, such as ``ankle_pitch="ankle"``.
    """
    walker_scene(path)
    stage = Usd.Stage.Open(str(path))
    robot = stage.GetPrimAtPath("/Robot")
    robot.ClearCustomDataByKey("saccade")
    edits = Sdf.BatchNamespaceEdit()
    for prim in stage.GetPrimAtPath("/Robot/joints").GetChildren():
        name = prim.GetName()
        if name == TURNED:
            joint = UsdPhysics.Joint(prim)
            for rotation in (joint.CreateLocalRot0Attr(), joint.CreateLocalRot1Attr()):
                rotation.Set(Gf.Quatf(0.0, 1.0, 0.0, 0.0))
        side, _, role = name.partition("_")
        if role and f"{names.get(role, role)}{ending}" != role:
            edits.Add(str(prim.GetPath()), f"/Robot/joints/{side}_{names.get(role, role)}{ending}")
    layer = stage.GetRootLayer()
    assert layer.Apply(edits)
    layer.Save()
    return path
