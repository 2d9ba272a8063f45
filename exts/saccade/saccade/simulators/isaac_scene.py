"""The stage in Isaac Sim: opened under a layer of its own, the humanoid prepared, sensors placed; no omni in here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.config import CameraConfig, LidarConfig, RunConfig
from saccade.errors import SceneError
from saccade.frame import FLOOR, ROBOT
from saccade.scenes.humanoid import route_from_stage
from saccade.scenes.labels import Labels, labels_from_stage
from saccade.scenes.limbs import StageHumanoid, humanoid_of_stage, joint_order
from saccade.scenes.mounts import inverse, multiply, sensor_mount
from saccade.scenes.movers import Pose, animated_without_body, pose_of
from saccade.sensors.camera import CameraIntrinsics, camera_intrinsics

if TYPE_CHECKING:
    from pxr import Sdf, Usd

APERTURE = 20.955
"""Horizontal aperture that cameras are given [tenths of a scene unit]; only its ratio to the focal length counts."""

NEAR = 0.05
"""Near clipping distance [m]."""

CONTACT_API = "PhysxContactReportAPI"
RIGID_BODY_API = "PhysxRigidBodyAPI"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a sensor sits."""

    name: str
    prim: str
    """Path of the prim that it was found at."""
    parent: str
    """Path of the prim that its own prim goes below."""
    pose: Pose
    """Sensor frame in the parent's frame [m]."""
    on_root: Pose
    """Sensor frame in the frame of the humanoid's root link as authored, or in the world where nothing carries it."""
    carried: bool
    """Whether the humanoid carries it."""
    intrinsics: CameraIntrinsics | None


@dataclass(slots=True)
class IsaacScene:
    """What the simulator needs to know of the opened stage."""

    stage: Usd.Stage
    path: Path | str
    humanoid: StageHumanoid
    joints: list[str]
    """Paths of the humanoid's revolute joints, in the order of the gait's coordinates."""
    authored_targets: dict[str, float]
    """Drive targets by joint path [rad]."""
    labels: Labels
    placements: dict[str, Placement]
    route: list[tuple[float, float]]
    overlay: Sdf.Layer
    """Layer below the session's that holds what was prepared; taken away with :meth:`restore`."""
    warnings: list[str] = field(default_factory=list)

    def restore(self, prims: list[str]) -> None:
        """Removes the sensors' prims, and what was prepared: the stage is its user's again."""
        remove_prims(self.stage, prims)
        _remove_overlay(self.stage, self.overlay)

    def thing_of(self, collider: str) -> str | None:
        """Returns the path of what a collider belongs to: its labelled prim; ``None`` for the floor."""
        owner = self.labels.owner_of(collider) or self.labels.agreed_below(collider)
        if owner is None:
            return collider
        return None if self.labels.own[owner] == FLOOR else owner


def write_top_layer(scene: Path | str, folder: Path) -> Path:
    """Writes a root layer above a scene, and returns its path.

    Isaac Sim writes ``timeCodesPerSecond`` of the root layer whenever a rendering time is set, which would change how
    fast everything animated in the scene goes. Under a root layer of its own the scene's layers keep their rate, and
    USD converts.

    Args:
        scene: USD file, or the address of one that only Isaac Sim can open.
        folder: Where to write.

    Raises:
        SceneError: The scene is missing or cannot be read.
    """
    from pxr import Sdf, UsdGeom

    from saccade.scenes.stage import stage_from_file

    if isinstance(scene, str):
        layer = Sdf.Layer.CreateNew(str(folder / "scene.top.usda"))
        layer.subLayerPaths.append(scene)
    else:
        # Opened once outside of Isaac Sim, for its errors: there a file that is missing is a flag and no reason.
        stage = stage_from_file(scene)
        layer = Sdf.Layer.CreateNew(str(folder / f"{scene.stem}.top.usda"))
        layer.subLayerPaths.append(str(scene.resolve()))
        layer.timeCodesPerSecond = stage.GetTimeCodesPerSecond()
        if stage.GetDefaultPrim():
            layer.defaultPrim = str(stage.GetDefaultPrim().GetPath())[1:]
    layer.pseudoRoot.SetInfo(UsdGeom.Tokens.metersPerUnit, 1.0)
    layer.pseudoRoot.SetInfo(UsdGeom.Tokens.upAxis, UsdGeom.Tokens.z)
    layer.Save()
    return Path(layer.realPath)


def prepare_stage(stage: Usd.Stage, path: Path | str, config: RunConfig) -> IsaacScene:
    """Reads an open stage and prepares the humanoid in a layer of its own: nothing of the scene's files changes.

    The humanoid's links report contacts, bear no weight (the base carries them on rails, as in the embedded simulator)
    and are labelled as robot where nothing labels them.

    Raises:
        SceneError: The stage cannot be used; the text says what to do.
        ConfigurationError: A sensor cannot be placed.
    """
    from pxr import Sdf

    overlay = Sdf.Layer.CreateAnonymous("saccade.usda")
    stage.GetSessionLayer().subLayerPaths.insert(0, overlay.identifier)
    try:
        return _prepared(stage, path, config, overlay)
    except BaseException:
        _remove_overlay(stage, overlay)
        raise


def _remove_overlay(stage: Usd.Stage, overlay: Sdf.Layer) -> None:
    paths = stage.GetSessionLayer().subLayerPaths
    if overlay.identifier in paths:
        paths.remove(overlay.identifier)


def _prepared(stage: Usd.Stage, path: Path | str, config: RunConfig, overlay: Sdf.Layer) -> IsaacScene:
    from pxr import Sdf, Usd, UsdPhysics

    units, up = _units(stage)
    if not math.isclose(units, 1.0) or up != "Z":
        raise SceneError(
            f"{path}: metersPerUnit is {units:g} and the up axis {up}; in Isaac Sim a scene needs 1 and Z: "
            f"convert it, or use --simulator newton"
        )
    labels = labels_from_stage(stage, further=config.simulator.labels)
    humanoid = humanoid_of_stage(stage, config.simulator.humanoid, labels)
    notes = []
    with Usd.EditContext(stage, overlay):
        for body in humanoid.bodies:
            prim = stage.GetPrimAtPath(body)
            if prim.IsInstanceProxy():
                raise SceneError(
                    f"{body} is inside an instance and cannot be prepared: make {humanoid.path} uninstanced"
                )
            prim.AddAppliedSchema(CONTACT_API)
            prim.CreateAttribute("physxContactReport:threshold", Sdf.ValueTypeNames.Float).Set(0.0)
            prim.AddAppliedSchema(RIGID_BODY_API)
            prim.CreateAttribute("physxRigidBody:disableGravity", Sdf.ValueTypeNames.Bool).Set(True)
        for link in (humanoid.path, *humanoid.bodies):
            if labels.class_of(link) != ROBOT:
                prim = stage.GetPrimAtPath(link)
                prim.AddAppliedSchema("SemanticsLabelsAPI:class")
                prim.CreateAttribute("semantics:labels:class", Sdf.ValueTypeNames.TokenArray).Set(["robot"])
                labels.own[link] = ROBOT
    bodies = [str(p.GetPath()) for p in stage.Traverse() if p.HasAPI(UsdPhysics.RigidBodyAPI)]
    for still in animated_without_body(stage, bodies)[:8]:
        notes.append(f"{still} is animated but no rigid body: it is seen, and nothing collides with it")
    if not any(index == FLOOR for index in labels.own.values()):
        notes.append("nothing in the scene is labelled floor: everything below counts as in the way; label it 'floor'")
    joints = joint_order(stage, humanoid)
    notes += _weak_drives(stage, humanoid, joints)
    placements = {name: _placed(stage, name, sensor, humanoid) for name, sensor in config.sensors.items()}
    return IsaacScene(
        stage=stage,
        path=path,
        humanoid=humanoid,
        joints=joints,
        authored_targets={joint: _target(stage, joint) for joint in joints},
        labels=labels,
        placements=placements,
        route=route_from_stage(stage),
        overlay=overlay,
        warnings=notes,
    )


def _weak_drives(stage: Usd.Stage, humanoid: StageHumanoid, joints: list[str]) -> list[str]:
    """Returns a sentence about the gait's joints that nothing turns: a target has an effect through a drive only."""
    if humanoid.gait is None:
        return []
    parts = [*(leg.joints for leg in humanoid.gait.legs), *humanoid.gait.arms]
    moved = [joints[joint.coordinate] for part in parts for joint in part.values()]
    name = "drive:angular:physics:stiffness"
    weak = [path for path in moved if not (stage.GetPrimAtPath(path).GetAttribute(name).Get() or 0.0) > 0]
    if not weak:
        return []
    return [
        f"joints of the gait without an angular drive that has a stiffness will not follow it: {', '.join(weak[:8])}; "
        f"give them one (PhysicsDriveAPI:angular) in the scene"
    ]


def _units(stage: Usd.Stage) -> tuple[float, str]:
    """Returns metres per unit and up axis of the scene itself, which is the layer below a root layer of ours."""
    from pxr import Sdf, UsdGeom

    root = stage.GetRootLayer()
    ours = root.realPath.endswith(".top.usda") and root.subLayerPaths
    layer = Sdf.Layer.FindOrOpenRelativeToLayer(root, root.subLayerPaths[0]) if ours else root
    info = (layer or root).pseudoRoot
    units = info.GetInfo(UsdGeom.Tokens.metersPerUnit) if info.HasInfo(UsdGeom.Tokens.metersPerUnit) else 0.01
    up = info.GetInfo(UsdGeom.Tokens.upAxis) if info.HasInfo(UsdGeom.Tokens.upAxis) else "Y"
    return float(units), str(up)


def _target(stage: Usd.Stage, joint: str) -> float:
    attribute = stage.GetPrimAtPath(joint).GetAttribute("drive:angular:physics:targetPosition")
    value = attribute.Get() if attribute else None
    return math.radians(float(value)) if value else 0.0


def _placed(stage: Usd.Stage, name: str, config: CameraConfig | LidarConfig, humanoid: StageHumanoid) -> Placement:
    from pxr import UsdGeom, UsdPhysics

    bodies = [str(p.GetPath()) for p in stage.Traverse() if p.HasAPI(UsdPhysics.RigidBodyAPI)]
    index = {path: i for i, path in enumerate(bodies)}
    mount = sensor_mount(stage, name, config, index, root=humanoid.path)
    cache = UsdGeom.XformCache()
    root = pose_of(cache.GetLocalToWorldTransform(stage.GetPrimAtPath(humanoid.root)))
    carried = mount.body >= 0 and bodies[mount.body] in humanoid.bodies
    if mount.body < 0:
        parent, world = "", mount.offset
    else:
        parent = bodies[mount.body]
        world = multiply(pose_of(cache.GetLocalToWorldTransform(stage.GetPrimAtPath(parent))), mount.offset)
    intrinsics = None
    if isinstance(config, CameraConfig):
        intrinsics = camera_intrinsics(name, config, mount.camera)
    on_root = multiply(inverse(root), world) if carried else world
    return Placement(name, mount.prim, parent, mount.offset, on_root, carried, intrinsics)


def define_camera(stage: Usd.Stage, placement: Placement, config: CameraConfig) -> str:
    """Defines the camera prim of a placement in the session layer, and returns its path.

    The scene's own camera prims stay as they are: resolution and intrinsics are the configuration's.
    """
    from pxr import Gf, Usd, UsdGeom

    path = f"{placement.parent}/saccade_{placement.name}"
    intrinsics = placement.intrinsics
    assert intrinsics is not None
    with Usd.EditContext(stage, stage.GetSessionLayer()):
        camera = UsdGeom.Camera.Define(stage, path)
        xform = UsdGeom.Xformable(camera)
        xform.ClearXformOpOrder()
        xform.AddTransformOp().Set(_local_matrix(stage, placement))
        width, height = intrinsics.width, intrinsics.height
        camera.CreateProjectionAttr("perspective")
        camera.CreateHorizontalApertureAttr(APERTURE)
        camera.CreateFocalLengthAttr(APERTURE * intrinsics.fx / width)
        camera.CreateVerticalApertureAttr(APERTURE * height / width * intrinsics.fx / intrinsics.fy)
        camera.CreateHorizontalApertureOffsetAttr((0.5 * width - intrinsics.cx) / width * APERTURE)
        camera.CreateVerticalApertureOffsetAttr((intrinsics.cy - 0.5 * height) / width * APERTURE)
        camera.CreateClippingRangeAttr(Gf.Vec2f(NEAR, config.max_distance))
    return path


def lidar_pose(stage: Usd.Stage, placement: Placement) -> tuple[tuple[float, float, float], Any]:
    """Returns translation and rotation (w, x, y, z) of a LiDAR below its parent.

    Raises:
        SceneError: The parent is scaled, which would stretch what the LiDAR sees.
    """
    from pxr import UsdGeom

    if placement.parent:
        matrix = UsdGeom.XformCache().GetLocalToWorldTransform(stage.GetPrimAtPath(placement.parent))
        scales = [matrix.GetRow3(i).GetLength() for i in range(3)]
        if any(abs(scale - 1.0) > 1e-3 for scale in scales):
            raise SceneError(
                f"sensors.{placement.name}: {placement.parent} is scaled by {scales}: mount the LiDAR on a link "
                f"without scale"
            )
    x, y, z, qx, qy, qz, qw = placement.pose
    return (x, y, z), (qw, qx, qy, qz)


def remove_prims(stage: Usd.Stage, paths: list[str]) -> None:
    """Removes prims that were defined in the session layer, or by Isaac Sim where it edits."""
    from pxr import Usd

    for layer in (stage.GetSessionLayer(), stage.GetEditTarget().GetLayer()):
        with Usd.EditContext(stage, layer):
            for path in paths:
                stage.RemovePrim(path)


def _local_matrix(stage: Usd.Stage, placement: Placement) -> Any:
    """Returns the local transform that gives a prim its pose, whatever scale its parent has."""
    from pxr import Gf, UsdGeom

    x, y, z, qx, qy, qz, qw = placement.pose
    matrix = Gf.Matrix4d(1.0)
    matrix.SetRotateOnly(Gf.Rotation(Gf.Quatd(qw, qx, qy, qz)))
    matrix.SetTranslateOnly(Gf.Vec3d(x, y, z))
    if not placement.parent:
        return matrix
    parent = UsdGeom.XformCache().GetLocalToWorldTransform(stage.GetPrimAtPath(placement.parent))
    return matrix * parent.RemoveScaleShear() * parent.GetInverse()


def intrinsics_facts(placements: Mapping[str, Placement], config: RunConfig) -> dict[str, Any]:
    """Returns what the record says about the sensors: kind, rate, prim and intrinsics."""
    facts = {}
    for name, placement in placements.items():
        sensor = config.sensors[name]
        if placement.intrinsics is not None:
            intrinsics: Any = placement.intrinsics.as_dict()
        else:
            assert isinstance(sensor, LidarConfig)
            intrinsics = {
                "channels": sensor.channels,
                "columns": sensor.columns,
                "vertical_fov": list(sensor.vertical_fov),
                "range_min": sensor.range_min,
                "range_max": sensor.range_max,
            }
        facts[name] = {"kind": sensor.kind, "rate_hz": sensor.rate, "prim": placement.prim, "intrinsics": intrinsics}
    return facts
