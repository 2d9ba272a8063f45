"""Which joint has which role in the gait: from the configuration, from a robot's known names, or from the scene."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saccade.errors import SceneError
from saccade.scenes.gait import SIDES
from saccade.scenes.humanoid import missing_roles
from saccade.scenes.mounts import nearest_first

if TYPE_CHECKING:
    from saccade.config import GaitConfig

_UNITREE = {
    "hip_yaw": ("hip_yaw_joint", "hip_yaw"),
    "hip_roll": ("hip_roll_joint", "hip_roll"),
    "hip_pitch": ("hip_pitch_joint", "hip_pitch"),
    "knee": ("knee_joint", "knee"),
    "shoulder_pitch": ("shoulder_pitch_joint", "shoulder_pitch"),
}

ROBOTS: dict[str, dict[str, tuple[str, ...]]] = {
    "unitree_h1": {**_UNITREE, "ankle_pitch": ("ankle_joint", "ankle")},
    "unitree_g1": {
        **_UNITREE,
        "ankle_pitch": ("ankle_pitch_joint",),
        "ankle_roll": ("ankle_roll_joint",),
    },
}
"""Names of the joints of known robots after ``left_`` and ``right_``, by role, with the names of other editions.

From the descriptions that Unitree publishes (``unitree_ros``: ``h1_description``, ``g1_description``; an H1-2 has the
names of a G1) and, without the ending ``_joint``, from Isaac Lab's configuration of Isaac Sim's H1. Elbows are bent at
their zero and stay as they are.
"""


@dataclass(frozen=True, slots=True)
class GaitJoint:
    """One joint that has a role."""

    name: str
    """Path, or the last part of it."""
    sign: float | None = None
    """+1 or -1; ``None`` = as its axis says at the zero pose."""
    offset: float = 0.0
    """Its angle where the gait asks for 0 [rad]."""
    scale: float = 1.0
    """Its angle for every radian that the gait asks for."""


def gait_joints(config: GaitConfig, named: Mapping[str, str], joints: Collection[str]) -> dict[str, GaitJoint]:
    """Returns the joints of the gait by role, such as ``left_knee``.

    Args:
        config: ``simulator.humanoid.gait``; what it names takes the place of what the scene names, role by role.
        named: Joints that the scene names by role.
        joints: Paths of the humanoid's joints.
    """
    found = {role: GaitJoint(name) for role, name in named.items()}
    if isinstance(config.joints, str):
        found |= {role: GaitJoint(name) for role, name in _known(config.joints, joints).items()}
    elif config.joints is not None:
        for role, joint in config.joints.items():
            if isinstance(joint, str):
                found[role] = GaitJoint(joint)
            else:
                found[role] = GaitJoint(joint.joint, joint.sign, joint.offset, joint.scale)
    return found


def no_gait_reason(config: GaitConfig, roles: Mapping[str, GaitJoint], joints: Collection[str], humanoid: str) -> str:
    """Returns why there is no gait, and what would give one; empty where there is one.

    Args:
        config: ``simulator.humanoid.gait``.
        roles: As :func:`gait_joints` gives them.
        joints: Paths of the humanoid's joints.
        humanoid: Path of its prim.

    Raises:
        SceneError: There is none, and the configuration insists on one or names joints for it.
    """
    if config.enabled is False:
        return "switched off"
    missing = missing_roles(roles)
    if not missing:
        return ""
    robot = next((name for name in ROBOTS if not missing_roles(_known(name, joints))), None)
    reason = f"neither configuration nor scene names a joint for {', '.join(missing)}"
    if robot is not None:
        reason += f"; the joints are called as those of {robot}: set simulator.humanoid.gait.joints: {robot}"
    if config.enabled or config.joints is not None:
        raise SceneError(
            f"simulator.humanoid.gait: {reason}. Name joints by role in simulator.humanoid.gait.joints, or in "
            f"{humanoid}: customData = {{ dictionary saccade = {{ string left_hip_pitch = ... }} }}. Its joints are "
            f"{', '.join(sorted(path.rsplit('/', 1)[-1] for path in joints)[:40]) or 'none'}"
        )
    return reason


def no_such_joint(role: str, joint: GaitJoint, names: Collection[str]) -> SceneError:
    """Returns the error for a role whose joint the humanoid lacks."""
    near = ", ".join(nearest_first(joint.name, list(names))[:8])
    return SceneError(
        f"the gait role {role} names joint {joint.name!r}, which is no joint of the humanoid; nearest are: {near}"
    )


def _known(robot: str, joints: Collection[str]) -> dict[str, str]:
    names = {path.rsplit("/", 1)[-1] for path in joints}
    found = {}
    for side in SIDES:
        for role, endings in ROBOTS[robot].items():
            name = next((f"{side}_{ending}" for ending in endings if f"{side}_{ending}" in names), None)
            if name is not None:
                found[f"{side}_{role}"] = name
    return found
