"""A USD scene as a Newton model: bodies, classes of shapes, the humanoid's coordinates, movers and floor."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.config import HumanoidConfig, RunConfig
from saccade.errors import SceneError
from saccade.frame import FLOOR, OBSTACLE, ROBOT
from saccade.scenes.gait import GaitModel
from saccade.scenes.gait_joints import gait_joints, no_gait_reason
from saccade.scenes.humanoid import custom_data, gait_roles, humanoid_prim, route_from_stage
from saccade.scenes.instancers import expand_instancers
from saccade.scenes.labels import Labels, labels_from_stage
from saccade.scenes.lights import Lighting, lighting_from_stage
from saccade.scenes.mounts import Pose, quaternion_product, rotate
from saccade.scenes.movers import Mover, animated_without_body, movers_from_stage
from saccade.scenes.stage import scene_hash, stage_from_file, up_axis_correction
from saccade.simulators.newton_humanoid import gait_model, pose_tuple
from saccade.simulators.newton_shapes import ShapeBoxes, transformed

if TYPE_CHECKING:
    import newton
    from pxr import Usd

HEIGHT_LIMITS = (0.3, 5.0)
"""Plausible heights of a humanoid [m]; outside, the stage's units are wrong."""


CONTACT_GAP = 0.002
"""Distance below which shapes are candidates for a contact [m]."""

ROOT_ARMATURE = 1e4
"""Inertia added to the humanoid's root [kg, kg m^2]."""

GRAVITY_COMPENSATION = "mujoco:gravcomp"


@dataclass(slots=True)
class Humanoid:
    """The humanoid's place in the model."""

    path: str
    root_body: int
    root_q: int
    """First joint coordinate of the root: position, quaternion x, y, z, w."""
    root_qd: int
    bodies: list[int]
    joints: dict[str, tuple[int, int]]
    """Joint coordinate and velocity index by joint path, for joints with one degree of freedom."""
    joint_names: dict[str, str]
    """Joint path by short name, where that is unique."""
    rest: tuple[float, float, float, float]
    """Rotation of the root in the base frame (x forward, z up), quaternion x, y, z, w."""
    start: tuple[float, float, float]
    """x, y [m] and yaw [rad] in the scene."""
    root_height: float
    """Height of the root above the floor when it stands as authored [m]."""
    gait: GaitModel | None
    no_gait_reason: str = ""
    total_mass: float = 0.0


@dataclass(slots=True)
class NewtonScene:
    """Everything that was read from a scene."""

    path: Path
    stage: Any
    sha256: str
    model: Any
    bodies: dict[str, int]
    humanoid: Humanoid
    movers: list[tuple[Mover, int]]
    """Each with the first joint coordinate of its body."""
    classes: np.ndarray
    """Class index by shape, uint8."""
    own_shapes: np.ndarray
    """1 for the humanoid's shapes, uint8."""
    objects: list[str]
    """Path of the thing that a shape belongs to, by shape: contacts are counted per thing."""
    lighting: Lighting
    labels: Labels
    route: list[tuple[float, float]]
    floor_height: float
    warnings: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)


def scene_from_file(path: Path, config: RunConfig, *, device: str, progress: Callable[[str], None]) -> NewtonScene:
    """Opens a USD file and builds the Newton model of it.

    Args:
        path: USD file.
        config: The run; the humanoid and the labels are read from its ``simulator`` section.
        device: Warp device of the model.
        progress: Called with what is being done.

    Raises:
        SceneError: The scene cannot be used; the text says what to do.
    """
    import newton

    progress(f"reading {path.name}")
    stage = stage_from_file(path)
    humanoid_config = config.simulator.humanoid
    root = humanoid_prim(stage, humanoid_config.prim)
    notes = _composition_problems(stage)
    instances = expand_instancers(stage)
    if instances:
        progress(f"expanded {instances} instances")

    progress("building the physics model")
    builder = newton.ModelBuilder(up_axis=newton.Axis.Z)
    newton.solvers.SolverMuJoCo.register_custom_attributes(builder)
    # Newton looks for contacts far around shapes; MuJoCo takes that as its own margin and finds ten times too many.
    builder.default_shape_cfg.gap = CONTACT_GAP
    result, import_notes = _import(builder, stage, path)
    notes += import_notes
    bodies: dict[str, int] = {str(k): int(v) for k, v in result["path_body_map"].items() if v >= 0}
    own, root_joint = _articulation(builder, bodies, root)
    kinematic = _make_kinematic(builder, bodies, own, int(builder.joint_child[root_joint]))
    model = builder.finalize(device=device)

    labels = labels_from_stage(stage, further=config.simulator.labels)
    own_shapes, classes, unlabelled = _classes(model, labels, set(own))
    rest_of_stage = movers_from_stage(stage, kinematic)
    q_start = model.joint_q_start.numpy()
    joint_of_body = {int(child): j for j, child in enumerate(model.joint_child.numpy())}
    movers = [(mover, int(q_start[joint_of_body[bodies[mover.path]]])) for mover in rest_of_stage]
    for still in animated_without_body(stage, list(bodies))[:8]:
        notes.append(f"{still} is animated but no rigid body: it stands still; give it a kinematic PhysicsRigidBodyAPI")

    shapes = ShapeBoxes(model)
    humanoid, floor_height = _humanoid(
        stage, root, model, root_joint, own, humanoid_config, result, shapes, classes, notes
    )
    if not (classes == FLOOR).any():
        _guess_floor(classes, own_shapes, shapes, humanoid, floor_height, model, notes)
    lighting = lighting_from_stage(stage)
    notes += lighting.warnings
    if labels.unknown:
        listing = ", ".join(sorted(labels.unknown)[:12])
        notes.append(f"labels that nothing knows count as obstacle: {listing}; map them in simulator.labels")
    return NewtonScene(
        path=path,
        stage=stage,
        sha256=scene_hash(stage),
        model=model,
        bodies=bodies,
        humanoid=humanoid,
        movers=movers,
        classes=classes,
        own_shapes=own_shapes,
        objects=_objects(model, labels),
        lighting=lighting,
        labels=labels,
        route=route_from_stage(stage),
        floor_height=floor_height,
        warnings=notes,
        unlabelled=unlabelled,
    )


def _composition_problems(stage: Usd.Stage) -> list[str]:
    """Returns what could not be composed, such as missing references."""
    errors = stage.GetCompositionErrors() if hasattr(stage, "GetCompositionErrors") else []
    return [f"the scene is incomplete: {str(error).strip()[:300]}" for error in errors[:8]]


def _import(builder: newton.ModelBuilder, stage: Usd.Stage, path: Path) -> tuple[dict[str, Any], list[str]]:
    import newton

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = builder.add_usd(
                stage,
                enable_self_collisions=False,
                schema_resolvers=[
                    newton.usd.SchemaResolverNewton(),
                    newton.usd.SchemaResolverPhysx(),
                    newton.usd.SchemaResolverMjc(),
                ],
            )
        except (ValueError, RuntimeError, KeyError) as error:
            raise SceneError(f"{path}: the physics of the scene cannot be imported: {error}") from error
    notes = []
    for text in dict.fromkeys(
        str(w.message).splitlines()[0][:300] for w in caught if "Deprecat" not in w.category.__name__
    ):
        notes.append(f"import: {text}")
    return result, notes[:12]


def _articulation(builder: newton.ModelBuilder, bodies: dict[str, int], root: Usd.Prim) -> tuple[list[int], int]:
    """Returns the humanoid's bodies and its root joint."""
    import newton

    path = str(root.GetPath())
    seeds = [index for name, index in bodies.items() if name == path or name.startswith(path + "/")]
    if not seeds:
        raise SceneError(
            f"{path} is an articulation root without rigid bodies: give the humanoid's links PhysicsRigidBodyAPI"
        )
    pairs = list(zip(builder.joint_parent, builder.joint_child, strict=True))
    own: set[int] = set(seeds)
    grown = True
    while grown:
        grown = False
        for parent, child in pairs:
            if parent >= 0 and (parent in own) != (child in own):
                own |= {parent, child}
                grown = True
    tops = [j for j, (parent, child) in enumerate(pairs) if parent < 0 and child in own]
    free = [j for j in tops if builder.joint_type[j] == newton.JointType.FREE]
    if not free:
        raise SceneError(
            f"the humanoid {path} is fixed to the world (joint {builder.joint_label[tops[0]] if tops else 'none'}): "
            "remove that joint, so that the base can follow commands"
        )
    # The tree with the most links is the humanoid; what else lies below its prim is loose.
    trees = {j: _tree(int(builder.joint_child[j]), pairs) for j in free}
    best = max(free, key=lambda j: (len(trees[j]), -j))
    return sorted(trees[best]), best


def _tree(root: int, pairs: list[tuple[int, int]]) -> set[int]:
    tree = {root}
    grown = True
    while grown:
        grown = False
        for parent, child in pairs:
            if parent in tree and child not in tree:
                tree.add(child)
                grown = True
    return tree


def _make_kinematic(builder: newton.ModelBuilder, bodies: dict[str, int], own: list[int], root_body: int) -> list[str]:
    """Puts the humanoid's root on rails and returns the paths of all other kinematic bodies."""
    import newton

    kinematic = int(newton.BodyFlags.KINEMATIC)
    builder.body_flags[root_body] = kinematic
    members = set(own)
    # What holds a kinematic root in MuJoCo acts on accelerations before the drives' damping is integrated; without
    # this inertia the root would still give way within a step, and stiff drives would shake the whole body.
    root_joint = builder.joint_child.index(root_body)
    first = builder.joint_qd_start[root_joint]
    for dof in range(first, first + 6):
        builder.joint_armature[dof] = ROOT_ARMATURE
    # The base carries the links on rails, so no leg bears the weight: nor need the drives fight it.
    compensation = builder.custom_attributes[GRAVITY_COMPENSATION]
    if compensation.values is None:
        compensation.values = {}
    for body in own:
        compensation.values[body] = 1.0
    found = []
    for path, body in bodies.items():
        if body in members or not builder.body_flags[body] & kinematic:
            continue
        found.append(path)
        # Without mass MuJoCo moves them as they are told, without a constraint per body and step.
        builder.body_mass[body] = 0.0
        builder.body_inv_mass[body] = 0.0
        zero = type(builder.body_inertia[body])(*([0.0] * 9))
        builder.body_inertia[body] = zero
        builder.body_inv_inertia[body] = zero
    return found


def _classes(model: newton.Model, labels: Labels, own: set[int]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns the humanoid's shapes, the class of every shape and the prims without a label."""
    body = model.shape_body.numpy()
    own_shapes = np.array([b in own for b in body], dtype=np.uint8)
    classes = np.full(model.shape_count, OBSTACLE, dtype=np.uint8)
    unlabelled = []
    for i, path in enumerate(model.shape_label):
        found = labels.class_of(path)
        if found is None:
            near = labels.agreed_below(path)
            found = None if near is None else labels.own[near]
        if own_shapes[i]:
            classes[i] = ROBOT
        elif found is None:
            unlabelled.append(path)
        else:
            classes[i] = found
    return own_shapes, classes, unlabelled


def _objects(model: newton.Model, labels: Labels) -> list[str]:
    """Returns the path of the thing that each shape belongs to: its body, its labelled prim or the prim above it."""
    body = model.shape_body.numpy()
    found = []
    for i, path in enumerate(model.shape_label):
        if body[i] >= 0:
            found.append(model.body_label[body[i]])
        elif owner := labels.owner_of(path):
            found.append(owner)
        else:
            found.append(path.rsplit("/", 1)[0] if labels.agreed_below(path) else path)
    return found


def _humanoid(
    stage: Usd.Stage,
    root: Usd.Prim,
    model: newton.Model,
    root_joint: int,
    own: list[int],
    config: HumanoidConfig,
    result: dict[str, Any],
    shapes: ShapeBoxes,
    classes: np.ndarray,
    notes: list[str],
) -> tuple[Humanoid, float]:
    """Returns the humanoid and the height of the floor below it [m]."""
    body_q = model.body_q.numpy()
    child, q_start, qd_start = model.joint_child.numpy(), model.joint_q_start.numpy(), model.joint_qd_start.numpy()
    root_body = int(child[root_joint])
    pose = pose_tuple(body_q[root_body])
    correction = up_axis_correction(stage)
    # The base looks along the root's own x axis, seen from above.
    forward = rotate(pose[3:7], (1.0, 0.0, 0.0))
    if math.hypot(forward[0], forward[1]) < 0.1:
        forward = rotate(quaternion_product(pose[3:7], correction), (0.0, 0.0, 1.0))
    yaw = math.atan2(forward[1], forward[0])
    rest = quaternion_product((0.0, 0.0, -math.sin(yaw / 2), math.cos(yaw / 2)), pose[3:7])

    members = set(own)
    own_corners = [shapes.corners(i, body_q) for i in range(len(shapes.body)) if int(shapes.body[i]) in members]
    if not own_corners:
        raise SceneError(
            f"the humanoid {root.GetPath()} has no shape: give its links geometry with PhysicsCollisionAPI"
        )
    low = min(float(c[:, 2].min()) for c in own_corners)
    high = max(float(c[:, 2].max()) for c in own_corners)
    if not HEIGHT_LIMITS[0] <= high - low <= HEIGHT_LIMITS[1]:
        raise SceneError(
            f"the humanoid {root.GetPath()} is {high - low:.3g} m tall: check the stage's metersPerUnit "
            "(USD takes 0.01 where a stage does not say)"
        )
    floor = _floor_below(pose[0], pose[1], low, shapes, classes, body_q)

    joints, names = {}, {}
    types = model.joint_type.numpy()
    for path, j in result["path_joint_map"].items():
        if (
            j >= 0
            and int(child[j]) in members
            and int(qd_start[j + 1]) - int(qd_start[j]) == 1
            and types[j] in (0, 1, 6)
        ):
            joints[str(path)] = (int(q_start[j]), int(qd_start[j]))
            short = str(path).rsplit("/", 1)[-1]
            names[short] = "" if short in names else str(path)
    names = {short: path for short, path in names.items() if path}

    roles = gait_joints(config.gait, gait_roles(custom_data(root)), list(joints))
    gait, reason = None, no_gait_reason(config.gait, roles, list(joints), str(root.GetPath()))
    if not reason:
        gait = gait_model(model, roles, joints, names, result["path_joint_map"], root_body, rest, shapes)
    return (
        Humanoid(
            path=str(root.GetPath()),
            root_body=root_body,
            root_q=int(q_start[root_joint]),
            root_qd=int(qd_start[root_joint]),
            bodies=own,
            joints=joints,
            joint_names=names,
            rest=rest,
            start=(pose[0], pose[1], yaw),
            root_height=pose[2] - low,
            gait=gait,
            no_gait_reason=reason,
            total_mass=float(model.body_mass.numpy()[own].sum()),
        ),
        floor,
    )


def _floor_below(x: float, y: float, low: float, shapes: ShapeBoxes, classes: np.ndarray, body_q: np.ndarray) -> float:
    """Returns the height of the floor on which the humanoid stands [m]; its own lowest point where there is none."""
    best = None
    for i in np.flatnonzero(classes == FLOOR):
        if shapes.infinite[i]:
            top = float(transformed(shapes.local[i], np.zeros((1, 3)))[0, 2])
        else:
            corners = shapes.corners(int(i), body_q)
            if not (
                corners[:, 0].min() <= x <= corners[:, 0].max() and corners[:, 1].min() <= y <= corners[:, 1].max()
            ):
                continue
            top = float(corners[:, 2].max())
        if best is None or abs(top - low) < abs(best - low):
            best = top
    return low if best is None else best


def _guess_floor(
    classes: np.ndarray,
    own_shapes: np.ndarray,
    shapes: ShapeBoxes,
    humanoid: Humanoid,
    floor_height: float,
    model: newton.Model,
    notes: list[str],
) -> None:
    """Takes the shape under the humanoid's feet for the floor of a scene that labels none."""
    body_q = model.body_q.numpy()
    candidates = []
    for i in range(len(classes)):
        corners = shapes.corners(i, body_q)
        extent = np.ptp(corners[:, :2], axis=0)
        if own_shapes[i] or abs(corners[:, 2].max() - floor_height) > 0.1 or extent.min() < 1.0:
            continue
        if (corners[:, :2].min(axis=0) <= humanoid.start[:2]).all() and (
            corners[:, :2].max(axis=0) >= humanoid.start[:2]
        ).all():
            candidates.append((float(extent.prod()), i))
    if not candidates:
        notes.append("nothing in the scene is labelled floor, and nothing lies below the humanoid")
        return
    index = max(candidates)[1]
    classes[index] = FLOOR
    notes.append(f"nothing is labelled floor: {model.shape_label[index]} is taken for it; label it 'floor'")


def root_pose(humanoid: Humanoid, x: float, y: float, z: float, yaw: float) -> Pose:
    """Returns the pose of the humanoid's root link for a base at (x, y, z) [m] with a heading [rad]."""
    half = yaw / 2
    return (x, y, z, *quaternion_product((0.0, 0.0, math.sin(half), math.cos(half)), humanoid.rest))
