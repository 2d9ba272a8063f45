"""Small scenes with a robot, written with pxr for the simulator's tests: any unit, any up axis, any names."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pxr import Gf, Sdf, Usd, UsdGeom, UsdLux, UsdPhysics

HIP, KNEE, ANKLE = 0.90, 0.48, 0.08

# link: (parent, position in the base frame [m], axis, box size [m], box centre below the link's origin [m], mass [kg])
LEG = {
    "hip_yaw": ("pelvis", HIP, "Z", (0.06, 0.06, 0.06), 0.0, 1.0),
    "hip_roll": ("hip_yaw", HIP, "X", (0.06, 0.06, 0.06), 0.0, 1.0),
    "hip_pitch": ("hip_roll", HIP, "Y", (0.10, 0.10, 0.30), -0.21, 6.0),
    "knee": ("hip_pitch", KNEE, "Y", (0.08, 0.08, 0.28), -0.20, 3.0),
    "ankle_pitch": ("knee", ANKLE, "Y", (0.05, 0.05, 0.05), 0.0, 0.5),
    "ankle_roll": ("ankle_pitch", ANKLE, "X", (0.22, 0.10, 0.03), -0.065, 1.0),
}


class Scene:
    """A stage under construction: positions in metres with z up, written in the stage's own unit and up axis."""

    def __init__(self, path: Path, *, meters_per_unit: float = 1.0, up_axis: str = "Z"):
        self.path = path
        self.stage = Usd.Stage.CreateNew(str(path))
        self.unit = meters_per_unit
        self.y_up = up_axis == "Y"
        UsdGeom.SetStageMetersPerUnit(self.stage, meters_per_unit)
        UsdGeom.SetStageUpAxis(self.stage, up_axis)
        self.stage.SetTimeCodesPerSecond(24)
        world = UsdGeom.Xform.Define(self.stage, "/World")
        self.stage.SetDefaultPrim(world.GetPrim())

    def vector(self, x: float, y: float, z: float) -> Gf.Vec3d:
        """Returns a position [m] in the stage's own unit and axes."""
        x, y, z = (v / self.unit for v in (x, y, z))
        return Gf.Vec3d(x, z, -y) if self.y_up else Gf.Vec3d(x, y, z)

    def axis(self, name: str) -> tuple[str, float]:
        """Returns the stage's own name of a z-up axis, and +1 or -1."""
        if not self.y_up:
            return name, 1.0
        return {"X": ("X", 1.0), "Y": ("Z", -1.0), "Z": ("Y", 1.0)}[name]

    def box(
        self, path: str, size: Any, center: Any, *, label: str | None = None, collide: bool = True, older: bool = False
    ) -> Usd.Prim:
        """Adds a box."""
        cube = UsdGeom.Cube.Define(self.stage, path)
        cube.CreateSizeAttr(1.0)
        cube.AddTranslateOp().Set(self.vector(*center))
        scale = self.vector(*size)
        cube.AddScaleOp().Set(Gf.Vec3f(*(abs(v) for v in scale)))
        if collide:
            UsdPhysics.CollisionAPI.Apply(cube.GetPrim())
        if label:
            self.label(cube.GetPrim(), label, older=older)
        return cube.GetPrim()

    def label(self, prim: Usd.Prim, label: str, *, older: bool = False) -> None:
        """Labels a prim, in UsdSemantics' form or the older one."""
        if older:
            prim.CreateAttribute("semantic:Semantics:params:semanticType", Sdf.ValueTypeNames.String).Set("class")
            prim.CreateAttribute("semantic:Semantics:params:semanticData", Sdf.ValueTypeNames.String).Set(label)
        else:
            prim.AddAppliedSchema("SemanticsLabelsAPI:class")
            prim.CreateAttribute("semantics:labels:class", Sdf.ValueTypeNames.TokenArray).Set([label])

    def light(self) -> None:
        """Adds a sun and a sky."""
        sun = UsdLux.DistantLight.Define(self.stage, "/World/sun")
        sun.CreateIntensityAttr(2500)
        sun.AddRotateXYZOp().Set(Gf.Vec3f(35, 20, 0))
        UsdLux.DomeLight.Define(self.stage, "/World/sky").CreateIntensityAttr(1000)

    def mover(self, path: str, size: Any, track: list[tuple[float, Any]], *, label: str = "person") -> Usd.Prim:
        """Adds a box that moves along (time [s], position [m])."""
        xform = UsdGeom.Xform.Define(self.stage, path)
        op = xform.AddTranslateOp()
        for time, position in track:
            op.Set(self.vector(*position), Usd.TimeCode(time * 24))
        body = UsdPhysics.RigidBodyAPI.Apply(xform.GetPrim())
        body.CreateKinematicEnabledAttr(True)
        self.box(f"{path}/shape", size, (0, 0, 0), label=label)
        self.stage.SetStartTimeCode(0)
        self.stage.SetEndTimeCode(track[-1][0] * 24)
        return xform.GetPrim()

    def route(self, points: list[tuple[float, float]]) -> None:
        """Names waypoints [m]."""
        prim = self.stage.GetPrimAtPath("/World")
        flat = [[float(v) for v in self.vector(x, y, 0.0)] for x, y in points]
        prim.SetCustomDataByKey("saccade", {"route": Gf_array(flat)})

    def save(self) -> Path:
        """Writes the file."""
        self.stage.GetRootLayer().Save()
        return self.path


def Gf_array(rows: list[list[float]]) -> Any:
    """Returns rows of three numbers as a USD array."""
    from pxr import Vt

    return Vt.Vec3dArray([Gf.Vec3d(*row) for row in rows])


def add_walker(
    scene: Scene, *, root: str = "/Robot", at: Any = (0, 0), heading: float = 0.0, roles: bool = True
) -> None:
    """Adds a biped of 0.9 m hip height with 12 driven joints, a head camera and a LiDAR mount."""
    stage = scene.stage
    top = UsdGeom.Xform.Define(stage, root)
    top.AddTranslateOp().Set(scene.vector(*at, 0.0))
    if scene.y_up:
        top.AddRotateYOp().Set(heading)
    else:
        top.AddRotateZOp().Set(heading)
    UsdPhysics.ArticulationRootAPI.Apply(top.GetPrim())
    links = {"pelvis": (None, (0.0, 0.0, HIP + 0.04), "", (0.2, 0.3, 0.1), 0.0, 10.0)}
    links["trunk"] = ("pelvis", (0.0, 0.0, HIP + 0.1), "Z", (0.2, 0.4, 0.5), 0.35, 25.0)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        for role, (parent, z, axis, size, below, mass) in LEG.items():
            upper = parent if parent == "pelvis" else f"{side}_{parent}"
            links[f"{side}_{role}"] = (upper, (0.0, 0.1 * sign, z), axis, size, below, mass)
    for name, (parent, position, axis, size, below, mass) in links.items():
        body = UsdGeom.Xform.Define(stage, f"{root}/{name}")
        body.AddTranslateOp().Set(scene.vector(*position))
        UsdPhysics.RigidBodyAPI.Apply(body.GetPrim())
        UsdPhysics.MassAPI.Apply(body.GetPrim()).CreateMassAttr(mass)
        ahead = 0.04 if name.endswith("ankle_roll") else 0.0
        scene.box(f"{root}/{name}/shape", size, (ahead, 0, below))
        if parent is not None:
            add_joint(
                scene, f"{root}/joints/{name}", f"{root}/{parent}", links[parent][1], f"{root}/{name}", position, axis
            )
    add_camera(scene, f"{root}/trunk/eye", (0.15, 0.0, 0.5), pitch=20.0)
    mount = UsdGeom.Xform.Define(stage, f"{root}/trunk/lidar")
    mount.AddTranslateOp().Set(scene.vector(0.0, 0.0, 0.75))
    if roles:
        data: dict[str, Any] = {side: {role: f"{side}_{role}" for role in LEG} for side in ("left", "right")}
        top.GetPrim().SetCustomDataByKey("saccade", data)


def add_joint(
    scene: Scene, path: str, parent: str, parent_at: Any, child: str, at: Any, axis: str, stiffness: float = 600.0
) -> None:
    """Adds a driven hinge at a link's origin."""
    joint = UsdPhysics.RevoluteJoint.Define(scene.stage, path)
    joint.CreateBody0Rel().SetTargets([parent])
    joint.CreateBody1Rel().SetTargets([child])
    name, sign = scene.axis(axis)
    joint.CreateAxisAttr(name)
    joint.CreateLocalPos0Attr(Gf.Vec3f(scene.vector(*(a - b for a, b in zip(at, parent_at, strict=True)))))
    joint.CreateLocalPos1Attr(Gf.Vec3f(0))
    low, high = (-120.0, 150.0) if sign > 0 else (-150.0, 120.0)
    joint.CreateLowerLimitAttr(low)
    joint.CreateUpperLimitAttr(high)
    drive = UsdPhysics.DriveAPI.Apply(joint.GetPrim(), "angular")
    drive.CreateTypeAttr("force")
    unit = scene.unit**-2 * math.pi / 180
    drive.CreateStiffnessAttr(stiffness * unit)
    drive.CreateDampingAttr(0.05 * stiffness * unit)
    drive.CreateTargetPositionAttr(0.0)


def add_camera(scene: Scene, path: str, at: Any, *, pitch: float) -> None:
    """Adds a camera that looks along x, down by ``pitch`` degrees."""
    camera = UsdGeom.Camera.Define(scene.stage, path)
    camera.AddTranslateOp().Set(scene.vector(*at))
    if scene.y_up:
        camera.AddRotateYOp().Set(-90.0)
        camera.AddRotateXOp().Set(-pitch)
    else:
        camera.AddRotateXYZOp().Set(Gf.Vec3f(90.0 - pitch, 0.0, -90.0))
    camera.CreateFocalLengthAttr(12.0)
    camera.CreateHorizontalApertureAttr(20.955)


def walker_scene(path: Path, **stage_options: Any) -> Path:
    """Writes a floor, a wall 6 m ahead, a box aside and the biped at the origin, looking along x."""
    scene = Scene(path, **stage_options)
    scene.light()
    scene.box("/World/ground", (30, 30, 0.2), (0, 0, -0.1), label="floor")
    scene.box("/World/wall", (0.2, 30, 3), (6, 0, 1.5), label="wall")
    scene.box("/World/crate", (0.6, 0.6, 0.6), (2.0, 2.0, 0.3), label="box", older=True)
    scene.mover(
        "/World/visitor", (0.4, 0.4, 1.7), [(0.0, (3.0, -3.0, 0.85)), (4.0, (3.0, 3.0, 0.85)), (8.0, (3.0, -3.0, 0.85))]
    )
    add_walker(scene)
    scene.route([(0, 0), (4, 0), (4, 4)])
    return scene.save()


def run_config(scene: Path | str = "", **simulator: Any) -> Any:
    """Returns a run with a small camera and a small LiDAR at 10 Hz."""
    from saccade.config import RunConfig

    return RunConfig.model_validate(
        {
            "scene": str(scene),
            "simulator": simulator,
            "sensors": {
                "eye": {"kind": "camera", "prim": "eye", "width": 48, "height": 32, "rate": 10},
                "lidar": {"kind": "lidar", "prim": "lidar", "channels": 16, "columns": 128, "rate": 10},
            },
        }
    )
