"""The humanoid as its USD prims describe it: links, pose, size, and the limbs that a gait moves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saccade.config import HumanoidConfig
from saccade.errors import SceneError
from saccade.frame import FLOOR
from saccade.scenes.gait import ARM_ROLES, LEG_ROLES, SIDES, GaitModel, Joint, Leg
from saccade.scenes.gait_joints import GaitJoint, gait_joints, no_gait_reason, no_such_joint
from saccade.scenes.humanoid import custom_data, gait_roles, humanoid_prim
from saccade.scenes.labels import Labels
from saccade.scenes.mounts import inverse, multiply, quaternion_product, rotate
from saccade.scenes.movers import Pose, pose_of

if TYPE_CHECKING:
    from pxr import Usd

AXES = {"X": (1.0, 0.0, 0.0), "Y": (0.0, 1.0, 0.0), "Z": (0.0, 0.0, 1.0)}

AXIS_OF_ROLE = {
    "hip_yaw": "Z",
    "hip_roll": "X",
    "hip_pitch": "Y",
    "knee": "Y",
    "ankle_pitch": "Y",
    "ankle_roll": "X",
    "shoulder_pitch": "Y",
    "elbow": "Y",
}

MIN_ALIGNMENT = 0.7
"""Cosine between a joint's axis and the axis that its role turns about, below which the role is wrong."""

HEIGHT_LIMITS = (0.3, 4.0)
"""Heights of a humanoid [m]; anything else is a unit that was mistaken."""


@dataclass(frozen=True, slots=True)
class StageHumanoid:
    """What a stage says about the humanoid, at the pose that it was authored in."""

    path: str
    articulation: str
    """Path of the prim with the articulation root, by which the physics knows it."""
    root: str
    """Path of the root link: the body that no joint hangs below another."""
    bodies: tuple[str, ...]
    """Paths of all links."""
    joints: tuple[str, ...]
    """Paths of the joints with one degree of freedom."""
    rest: tuple[float, float, float, float]
    """Rotation of the root link in the base frame, quaternion x, y, z, w."""
    start: tuple[float, float, float]
    """Base in the world: x, y [m], heading [rad]."""
    root_height: float
    """Height of the root link above the lowest point [m]."""
    height: float
    """From the lowest to the highest point [m]."""
    radius: float
    """Of the upright cylinder about the root link that holds everything [m]."""
    floor_height: float
    gait: GaitModel | None
    no_gait_reason: str

    def root_pose(self, x: float, y: float, z: float, yaw: float) -> Pose:
        """Returns the pose of the root link for a base at (x, y, z) [m] with a heading [rad]."""
        turn = (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))
        return (x, y, z, *quaternion_product(turn, self.rest))


@dataclass(frozen=True, slots=True)
class _Joint:
    path: str
    child: str
    anchor: Pose
    """Joint frame in the base frame at the zero pose."""
    axis: tuple[float, float, float]
    lower: float
    upper: float


def humanoid_of_stage(stage: Usd.Stage, config: HumanoidConfig, labels: Labels) -> StageHumanoid:
    """Reads the humanoid from a stage in metres with z up.

    Args:
        stage: The stage, with its physics as authored.
        config: ``simulator.humanoid``.
        labels: The stage's labels, for the floor.

    Raises:
        SceneError: There is no humanoid, or it cannot be used; the text says what to do.
    """
    from pxr import UsdGeom, UsdPhysics

    prim = humanoid_prim(stage, config.prim)
    path = str(prim.GetPath())
    cache = UsdGeom.XformCache()
    names = _bodies(stage, prim)
    if not names:
        raise SceneError(f"{path} is an articulation root without rigid bodies: give its links PhysicsRigidBodyAPI")
    bodies = [stage.GetPrimAtPath(name) for name in names]
    root, links = _tree(stage, names)
    fixed = [str(joint.GetPath()) for joint, parent, child, _ in links if parent is None]
    if fixed:
        raise SceneError(
            f"the humanoid {path} is fixed to the world (joint {fixed[0]}): remove that joint, so that the base can "
            f"follow commands"
        )
    pose = pose_of(cache.GetLocalToWorldTransform(stage.GetPrimAtPath(root)))
    forward = rotate(pose[3:], (1.0, 0.0, 0.0))
    if math.hypot(forward[0], forward[1]) < 0.1:
        forward = rotate(pose[3:], (0.0, 0.0, 1.0))
    yaw = math.atan2(forward[1], forward[0])
    rest = quaternion_product((0.0, 0.0, -math.sin(yaw / 2), math.cos(yaw / 2)), pose[3:])
    corners = [corner for body in bodies for corner in _corners(body, None)]
    if not corners:
        raise SceneError(f"the humanoid {path} has no shape: give its links geometry with PhysicsCollisionAPI")
    low, high = min(c[2] for c in corners), max(c[2] for c in corners)
    if not HEIGHT_LIMITS[0] <= high - low <= HEIGHT_LIMITS[1]:
        raise SceneError(f"the humanoid {path} is {high - low:.3g} m tall: check the stage's metersPerUnit")
    revolute = [str(joint.GetPath()) for joint, _, _, _ in links if joint.IsA(UsdPhysics.RevoluteJoint)]
    roles = gait_joints(config.gait, gait_roles(custom_data(prim)), revolute)
    reason = no_gait_reason(config.gait, roles, revolute, path)
    gait = _gait(stage, roles, root, rest, links) if not reason else None
    single = tuple(str(joint.GetPath()) for joint, _, _, _ in links if _is_single(joint))
    return StageHumanoid(
        path=path,
        articulation=_articulation(prim),
        root=root,
        bodies=tuple(sorted(names)),
        joints=single,
        rest=rest,
        start=(pose[0], pose[1], yaw),
        root_height=pose[2] - low,
        height=high - low,
        radius=max(math.hypot(c[0] - pose[0], c[1] - pose[1]) for c in corners),
        floor_height=_floor_below(stage, labels, pose[0], pose[1], low),
        gait=gait,
        no_gait_reason=reason,
    )


def _articulation(prim: Usd.Prim) -> str:
    """Returns the prim with the articulation root: this one, one below it or one above it."""
    from pxr import Usd, UsdPhysics

    for below in Usd.PrimRange(prim, Usd.TraverseInstanceProxies()):
        if below.HasAPI(UsdPhysics.ArticulationRootAPI):
            return str(below.GetPath())
    above = prim.GetParent()
    while above and not above.IsPseudoRoot() and not above.HasAPI(UsdPhysics.ArticulationRootAPI):
        above = above.GetParent()
    return str((above if above and not above.IsPseudoRoot() else prim).GetPath())


def _bodies(stage: Usd.Stage, prim: Usd.Prim) -> tuple[str, ...]:
    """Returns the links, in the stage's order: what lies below a prim, and what joints connect to it.

    The articulation root may be a link itself, with the others beside it.
    """
    from pxr import Usd, UsdPhysics

    stage_range = Usd.PrimRange(stage.GetPseudoRoot(), Usd.TraverseInstanceProxies(Usd.PrimDefaultPredicate))
    every = [str(p.GetPath()) for p in stage_range if p.HasAPI(UsdPhysics.RigidBodyAPI)]
    path = str(prim.GetPath())
    found = {name for name in every if name == path or name.startswith(path + "/")}
    if not found:
        return ()
    _, inner = _joints(stage, every)
    grown = True
    while grown:
        grown = False
        for _, first, second in inner:
            if (first in found) != (second in found):
                found |= {first, second}
                grown = True
    return tuple(name for name in every if name in found)


def _is_single(joint: Usd.Prim) -> bool:
    from pxr import UsdPhysics

    return bool(joint.IsA(UsdPhysics.RevoluteJoint) or joint.IsA(UsdPhysics.PrismaticJoint))


def _tree(stage: Usd.Stage, names: tuple[str, ...]) -> tuple[str, list[tuple[Usd.Prim, str | None, str, float]]]:
    """Returns the root link, and joint, parent, child and sign of every joint from there outwards.

    A joint's sign is -1 where it was authored the other way round; a parent of ``None`` is the world. Of the links that
    are nobody's second body the first one from which most others hang is the root.
    """
    fixed, inner = _joints(stage, names)
    seconds = {second for _, _, second in inner}
    candidates = [name for name in names if name not in seconds] or [names[0]]
    trees = {name: _outwards(name, inner) for name in candidates}
    root = max(candidates, key=lambda name: (len(trees[name]), -names.index(name)))
    return root, [*fixed, *trees[root]]


def _joints(stage: Usd.Stage, names: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Returns joints between links and the world (joint, ``None``, link, 1), and those between links (joint, both)."""
    from pxr import UsdPhysics

    fixed, inner = [], []
    for prim in stage.Traverse():
        if not prim.IsA(UsdPhysics.Joint):
            continue
        joint = UsdPhysics.Joint(prim)
        if joint.GetExcludeFromArticulationAttr().Get() or joint.GetJointEnabledAttr().Get() is False:
            continue
        targets = [relation.GetTargets() for relation in (joint.GetBody0Rel(), joint.GetBody1Rel())]
        first, second = (_carrier(stage, str(found[0]), names) if found else None for found in targets)
        if first is not None and second is not None:
            inner.append((prim, first, second))
        elif first is not None or second is not None:
            fixed.append((prim, None, str(second or first), 1.0))
    return fixed, inner


def _outwards(root: str, inner: list[tuple[Usd.Prim, str, str]]) -> list[tuple[Usd.Prim, str | None, str, float]]:
    found: list[tuple[Usd.Prim, str | None, str, float]] = []
    known, waiting = {root}, list(inner)
    grown = True
    while grown:
        grown = False
        for entry in list(waiting):
            prim, first, second = entry
            if (first in known) == (second in known):
                continue
            parent, child, sign = (first, second, 1.0) if first in known else (second, first, -1.0)
            known.add(child)
            found.append((prim, parent, child, sign))
            waiting.remove(entry)
            grown = True
    return found


def _carrier(stage: Usd.Stage, path: str, names: Sequence[str]) -> str | None:
    prim = stage.GetPrimAtPath(path)
    while prim and not prim.IsPseudoRoot():
        if str(prim.GetPath()) in names:
            return str(prim.GetPath())
        prim = prim.GetParent()
    return None


def _corners(body: Usd.Prim, to: Usd.Prim | None) -> Iterator[tuple[float, float, float]]:
    """Yields the corners of the boxes of a link's shapes in the world, or in the frame of ``to`` without its scale."""
    from pxr import Gf, Usd, UsdGeom, UsdPhysics

    purposes = [UsdGeom.Tokens.default_, UsdGeom.Tokens.render, UsdGeom.Tokens.proxy, UsdGeom.Tokens.guide]
    boxes = UsdGeom.BBoxCache(Usd.TimeCode.EarliestTime(), purposes, useExtentsHint=False)
    frame = None
    if to is not None:
        frame = UsdGeom.XformCache().GetLocalToWorldTransform(to).RemoveScaleShear().GetInverse()
    shapes = Usd.PrimRange(body, Usd.TraverseInstanceProxies())
    for prim in shapes:
        if prim != body and prim.HasAPI(UsdPhysics.RigidBodyAPI):
            shapes.PruneChildren()
            continue
        if not prim.IsA(UsdGeom.Gprim):
            continue
        box = boxes.ComputeWorldBound(prim)
        if box.GetRange().IsEmpty():
            continue
        matrix = box.GetMatrix()
        for i in range(8):
            corner = matrix.Transform(box.GetRange().GetCorner(i))
            if frame is not None:
                corner = frame.Transform(Gf.Vec3d(corner))
            yield (float(corner[0]), float(corner[1]), float(corner[2]))


def _gait(
    stage: Usd.Stage,
    roles: Mapping[str, GaitJoint],
    root: str,
    rest: tuple[float, float, float, float],
    links: list[Any],
) -> GaitModel:
    """Measures limbs at the zero pose, which need not be the authored one: joint frames alone say where links are."""
    from pxr import UsdPhysics

    poses: dict[str, Pose] = {root: (0.0, 0.0, 0.0, *rest)}
    joints: dict[str, _Joint] = {}
    for prim, parent, child, sign in links:
        if parent not in poses:
            continue
        first, second = _joint_frames(stage, prim)
        at_parent, at_child = (first, second) if sign > 0 else (second, first)
        anchor = multiply(poses[parent], at_parent)
        poses[child] = multiply(anchor, inverse(at_child))
        if prim.IsA(UsdPhysics.RevoluteJoint):
            revolute = UsdPhysics.RevoluteJoint(prim)
            turned = rotate(anchor[3:], AXES[str(revolute.GetAxisAttr().Get())])
            lower, upper = (
                math.radians(float(v)) for v in (revolute.GetLowerLimitAttr().Get(), revolute.GetUpperLimitAttr().Get())
            )
            if sign < 0:
                turned = (-turned[0], -turned[1], -turned[2])
            joints[str(prim.GetPath())] = _Joint(str(prim.GetPath()), child, anchor, turned, lower, upper)
    order = {path: i for i, path in enumerate(joints)}
    short: dict[str, str] = {}
    for path in joints:
        name = path.rsplit("/", 1)[-1]
        short[name] = "" if name in short else path

    def measured(role: str) -> tuple[Joint, tuple[float, float, float], str] | None:
        if role not in roles:
            return None
        chosen = roles[role]
        path = chosen.name if chosen.name in joints else short.get(chosen.name.rsplit("/", 1)[-1], "")
        if path not in joints:
            raise no_such_joint(role, chosen, list(short))
        found = joints[path]
        wanted = AXES[AXIS_OF_ROLE[role.split("_", 1)[1]]]
        alignment = sum(a * b for a, b in zip(found.axis, wanted, strict=True))
        if chosen.sign is None and abs(alignment) < MIN_ALIGNMENT:
            axis = ", ".join(f"{value:.2f}" for value in found.axis)
            raise SceneError(
                f"the gait role {role} names joint {path}, whose axis at the zero pose is ({axis}) in the base frame "
                f"instead of {wanted}"
            )
        sign = chosen.sign if chosen.sign is not None else math.copysign(1.0, alignment)
        place = order[path]
        joint = Joint(place, place, sign, found.lower, found.upper, chosen.offset, chosen.scale)
        return joint, found.anchor[:3], found.child

    legs, arms = [], []
    for side in SIDES:
        leg: dict[str, Any] = {role: measured(f"{side}_{role}") for role in LEG_ROLES}
        hip, knee, ankle = (leg[role][1] for role in ("hip_pitch", "knee", "ankle_pitch"))
        foot = (leg.get("ankle_roll") or leg["ankle_pitch"])[2]
        legs.append(
            Leg(
                joints={role: value[0] for role, value in leg.items() if value is not None},
                hip=hip,
                ankle=ankle,
                thigh_length=math.dist((hip[0], hip[2]), (knee[0], knee[2])),
                shank_length=math.dist((knee[0], knee[2]), (ankle[0], ankle[2])),
                thigh_angle=math.atan2(hip[0] - knee[0], hip[2] - knee[2]),
                shank_angle=math.atan2(knee[0] - ankle[0], knee[2] - ankle[2]),
                sole=ankle[2] - _lowest(stage, foot, poses[foot]),
            )
        )
        found = {role: measured(f"{side}_{role}") for role in ARM_ROLES}
        arms.append({role: value[0] for role, value in found.items() if value is not None})
    return GaitModel((legs[0], legs[1]), (arms[0], arms[1]))


def joint_order(stage: Usd.Stage, humanoid: StageHumanoid) -> list[str]:
    """Returns the paths of the revolute joints in the order of the gait's coordinates."""
    from pxr import UsdPhysics

    return [path for path in humanoid.joints if stage.GetPrimAtPath(path).IsA(UsdPhysics.RevoluteJoint)]


def _joint_frames(stage: Usd.Stage, prim: Usd.Prim) -> tuple[Pose, Pose]:
    """Returns the joint's frame on its first and on its second body; lengths are the bodies' own, with their scale."""
    from pxr import Gf, UsdGeom, UsdPhysics

    joint = UsdPhysics.Joint(prim)
    found = []
    for relation, position, rotation in (
        (joint.GetBody0Rel(), joint.GetLocalPos0Attr(), joint.GetLocalRot0Attr()),
        (joint.GetBody1Rel(), joint.GetLocalPos1Attr(), joint.GetLocalRot1Attr()),
    ):
        body = stage.GetPrimAtPath(relation.GetTargets()[0])
        matrix = UsdGeom.XformCache().GetLocalToWorldTransform(body)
        scale = [matrix.GetRow3(i).GetLength() for i in range(3)]
        place, turn = position.Get() or Gf.Vec3f(0), rotation.Get() or Gf.Quatf(1)
        imaginary = turn.GetImaginary()
        found.append(
            (
                float(place[0]) * scale[0],
                float(place[1]) * scale[1],
                float(place[2]) * scale[2],
                float(imaginary[0]),
                float(imaginary[1]),
                float(imaginary[2]),
                float(turn.GetReal()),
            )
        )
    return found[0], found[1]


def _lowest(stage: Usd.Stage, foot: str, pose: Pose) -> float:
    """Returns the height of a link's lowest point [m] when it has ``pose``."""
    prim = stage.GetPrimAtPath(foot)
    heights = [multiply(pose, (*corner, 0.0, 0.0, 0.0, 1.0))[2] for corner in _corners(prim, prim)]
    if not heights:
        raise SceneError(f"{foot}, a foot of the humanoid, has no shape: give the link below the ankle geometry")
    return min(heights)


def _floor_below(stage: Usd.Stage, labels: Labels, x: float, y: float, low: float) -> float:
    """Returns the height of the floor on which the humanoid stands [m]; its own lowest point where there is none."""
    from pxr import Usd, UsdGeom

    boxes = UsdGeom.BBoxCache(Usd.TimeCode.EarliestTime(), [UsdGeom.Tokens.default_, UsdGeom.Tokens.render])
    best = None
    for path, index in labels.own.items():
        if index != FLOOR:
            continue
        bound = boxes.ComputeWorldBound(stage.GetPrimAtPath(path)).ComputeAlignedRange()
        if bound.IsEmpty():
            continue
        least, most = bound.GetMin(), bound.GetMax()
        if least[0] <= x <= most[0] and least[1] <= y <= most[1]:
            top = float(most[2])
            if best is None or abs(top - low) < abs(best - low):
                best = top
    return low if best is None else best
