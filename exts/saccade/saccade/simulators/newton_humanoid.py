"""Measures a humanoid's legs and arms in a Newton model, so that a gait can move them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.errors import SceneError
from saccade.scenes.gait import ARM_ROLES, LEG_ROLES, SIDES, GaitModel, Joint, Leg
from saccade.scenes.gait_joints import GaitJoint, no_such_joint
from saccade.scenes.mounts import Pose, inverse, multiply, rotate

if TYPE_CHECKING:
    import newton

    from saccade.simulators.newton_shapes import ShapeBoxes

AXIS_OF_ROLE = {
    "hip_yaw": (0.0, 0.0, 1.0),
    "hip_roll": (1.0, 0.0, 0.0),
    "hip_pitch": (0.0, 1.0, 0.0),
    "knee": (0.0, 1.0, 0.0),
    "ankle_pitch": (0.0, 1.0, 0.0),
    "ankle_roll": (1.0, 0.0, 0.0),
    "shoulder_pitch": (0.0, 1.0, 0.0),
    "elbow": (0.0, 1.0, 0.0),
}

MIN_ALIGNMENT = 0.7
"""Cosine between a joint's axis and the axis that its role turns about, below which the role is wrong."""


def gait_model(
    model: newton.Model,
    roles: Mapping[str, GaitJoint],
    joints: Mapping[str, tuple[int, int]],
    names: Mapping[str, str],
    joint_index: Mapping[str, int],
    root_body: int,
    rest: tuple[float, float, float, float],
    shapes: ShapeBoxes,
) -> GaitModel:
    """Measures limbs at the zero pose: lengths, directions, axis signs and soles come from the model itself.

    Args:
        model: The finalized model.
        roles: Joint by role, such as ``left_knee``.
        joints: Coordinate and velocity index by joint path.
        names: Joint path by short name.
        joint_index: Joint index by joint path.
        root_body: The humanoid's root link.
        rest: Rotation of the root in the base frame.
        shapes: Boxes of the model's shapes.

    Raises:
        SceneError: A role names no joint of the humanoid, or one that turns about another axis.
    """
    body_q = _zero_pose(model)
    # World poses become poses in the base frame: x forward, z up, origin at the root.
    to_base = multiply((0.0, 0.0, 0.0, *rest), inverse(pose_tuple(body_q[root_body])))
    child_frames = model.joint_X_c.numpy()
    axes = model.joint_axis.numpy()
    children = model.joint_child.numpy()
    lower, upper = model.joint_limit_lower.numpy(), model.joint_limit_upper.numpy()

    def measured(role: str) -> tuple[Joint, tuple[float, float, float], int] | None:
        if role not in roles:
            return None
        chosen = roles[role]
        path = chosen.name if chosen.name in joints else names.get(chosen.name.rsplit("/", 1)[-1], "")
        if path not in joints:
            raise no_such_joint(role, chosen, list(names))
        index = joint_index[path]
        body = int(children[index])
        anchor = multiply(multiply(to_base, pose_tuple(body_q[body])), pose_tuple(child_frames[index]))
        q, qd = joints[path]
        axis = rotate(anchor[3:], (float(axes[qd][0]), float(axes[qd][1]), float(axes[qd][2])))
        wanted = AXIS_OF_ROLE[role.split("_", 1)[1]]
        alignment = sum(a * b for a, b in zip(axis, wanted, strict=True))
        if chosen.sign is None and abs(alignment) < MIN_ALIGNMENT:
            raise SceneError(
                f"the gait role {role} names joint {path}, whose axis at the zero pose is "
                f"({axis[0]:.2f}, {axis[1]:.2f}, {axis[2]:.2f}) in the base frame instead of {wanted}"
            )
        sign = chosen.sign if chosen.sign is not None else math.copysign(1.0, alignment)
        joint = Joint(q, qd, sign, float(lower[qd]), float(upper[qd]), chosen.offset, chosen.scale)
        return joint, anchor[:3], body

    legs, arms = [], []
    for side in SIDES:
        found: dict[str, Any] = {role: measured(f"{side}_{role}") for role in LEG_ROLES}
        hip, knee, ankle = (found[role][1] for role in ("hip_pitch", "knee", "ankle_pitch"))
        foot = (found.get("ankle_roll") or found["ankle_pitch"])[2]
        legs.append(
            Leg(
                joints={role: value[0] for role, value in found.items() if value is not None},
                hip=hip,
                ankle=ankle,
                thigh_length=math.dist((hip[0], hip[2]), (knee[0], knee[2])),
                shank_length=math.dist((knee[0], knee[2]), (ankle[0], ankle[2])),
                thigh_angle=math.atan2(hip[0] - knee[0], hip[2] - knee[2]),
                shank_angle=math.atan2(knee[0] - ankle[0], knee[2] - ankle[2]),
                sole=ankle[2] - _lowest(foot, body_q, to_base, shapes),
            )
        )
        found = {role: measured(f"{side}_{role}") for role in ARM_ROLES}
        arms.append({role: value[0] for role, value in found.items() if value is not None})
    return GaitModel((legs[0], legs[1]), (arms[0], arms[1]))


def _zero_pose(model: newton.Model) -> np.ndarray:
    """Returns the poses of all bodies with every joint but free roots at zero."""
    import newton

    state = model.state()
    coordinates = model.joint_q.numpy().copy()
    starts, types = model.joint_q_start.numpy(), model.joint_type.numpy()
    for j in range(model.joint_count):
        if types[j] != int(newton.JointType.FREE) and starts[j + 1] - starts[j] == 1:
            coordinates[starts[j]] = 0.0
    state.joint_q.assign(coordinates)
    newton.eval_fk(model, state.joint_q, state.joint_qd, state)
    return state.body_q.numpy().copy()


def _lowest(body: int, body_q: np.ndarray, to_base: Pose, shapes: ShapeBoxes) -> float:
    """Returns the height of the lowest point of a body in the base frame [m]."""
    heights = [
        multiply(to_base, pose_tuple((*corner, 0.0, 0.0, 0.0, 1.0)))[2]
        for i in np.flatnonzero(shapes.body == body)
        for corner in shapes.corners(int(i), body_q)
    ]
    if not heights:
        raise SceneError("a foot of the humanoid has no shape: give the link below the ankle geometry")
    return min(heights)


def pose_tuple(values: Any) -> Pose:
    """Returns seven numbers as a pose."""
    x, y, z, a, b, c, d = (float(v) for v in values)
    return (x, y, z, a, b, c, d)
