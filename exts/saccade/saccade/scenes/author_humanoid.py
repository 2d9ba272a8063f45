"""The humanoid: an articulation of human proportions with 25 driven joints, cameras and a LiDAR mount.

All link frames have x forward, y left, z up when every joint is at zero, and joint axes are the frames' axes: a
positive angle is a right-handed turn about x (roll), y (pitch) or z (yaw) of the base. So positive hip and shoulder
pitch swing a limb backwards, a positive knee bends, a negative elbow bends, and positive roll lifts the left limbs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.scenes.author import (
    Color,
    apply_api,
    attribute,
    box,
    camera,
    collide,
    collider_box,
    collider_rod,
    define,
    label,
    material,
    mesh,
    new_layer,
    paint,
    physics_material,
    relationship,
    remember,
    rigid_body,
    rod,
    rounded,
    save_layer,
    sphere,
)
from saccade.scenes.author_mesh import MeshData, boxes_mesh, ellipsoid_mesh, loft_mesh, rounded_sections
from saccade.scenes.author_textures import texture

if TYPE_CHECKING:
    from pxr import Sdf

SHELL: Color = (0.90, 0.91, 0.92)
DARK: Color = (0.16, 0.17, 0.19)
JOINT: Color = (0.30, 0.32, 0.35)
ACCENT: Color = (0.05, 0.52, 0.62)
GLASS: Color = (0.04, 0.05, 0.07)
LIGHT: Color = (0.35, 0.90, 0.98)

PELVIS_HEIGHT = 0.98
HIP = (0.0, 0.10, 0.925)
KNEE_HEIGHT = 0.505
ANKLE_HEIGHT = 0.085
WAIST_HEIGHT = 1.07
SHOULDER = (0.0, 0.215, 1.40)
ELBOW_HEIGHT = 1.115
NECK_HEIGHT = 1.50
HEAD_HEIGHT = 1.535
SKULL_TOP = 1.715
LIDAR_HEIGHT = 1.785
THIGH_LENGTH = HIP[2] - KNEE_HEIGHT
SHANK_LENGTH = KNEE_HEIGHT - ANKLE_HEIGHT


@dataclass(frozen=True, slots=True)
class Link:
    """A rigid link and the joint that connects it to its parent."""

    name: str
    parent: str
    at: tuple[float, float, float]
    """Joint in the standing humanoid [m]."""
    mass: float
    extent: tuple[float, float, float]
    """Box that its mass fills evenly [m]."""
    center: tuple[float, float, float]
    joint: str = ""
    axis: str = "Y"
    limits: tuple[float, float] = (-45.0, 45.0)
    """[degrees]"""
    gains: tuple[float, float, float] = (300.0, 15.0, 100.0)
    """Stiffness [N m/rad], damping [N m s/rad], largest torque [N m]."""


def links() -> list[Link]:
    """Returns the links, parents before children."""
    hip, leg, ankle = (900.0, 45.0, 220.0), (900.0, 45.0, 260.0), (800.0, 35.0, 140.0)
    waist, arm, neck = (900.0, 45.0, 200.0), (120.0, 6.0, 60.0), (60.0, 3.0, 15.0)
    found = [Link("pelvis", "", (0.0, 0.0, PELVIS_HEIGHT), 8.0, (0.18, 0.28, 0.18), (0.0, 0.0, -0.02))]
    small = (0.12, 0.12, 0.12)
    waist_at = (0.0, 0.0, WAIST_HEIGHT)
    found += [
        Link("waist_yaw_link", "pelvis", waist_at, 1.2, small, (0, 0, -0.01), "waist_yaw", "Z", (-70, 70), waist),
        Link("waist_roll_link", "waist_yaw_link", waist_at, 1.0, small, (0, 0, 0), "waist_roll", "X", (-25, 25), waist),
        Link(
            "torso",
            "waist_roll_link",
            waist_at,
            15.0,
            (0.20, 0.32, 0.40),
            (0, 0, 0.21),
            "waist_pitch",
            "Y",
            (-20, 55),
            waist,
        ),
        Link(
            "neck_link",
            "torso",
            (0.0, 0.0, NECK_HEIGHT),
            0.6,
            (0.1, 0.1, 0.1),
            (0, 0, 0.02),
            "neck_yaw",
            "Z",
            (-80, 80),
            neck,
        ),
        Link(
            "head",
            "neck_link",
            (0.0, 0.0, HEAD_HEIGHT),
            2.6,
            (0.18, 0.16, 0.2),
            (0, 0, 0.09),
            "neck_pitch",
            "Y",
            (-35, 45),
            neck,
        ),
    ]
    for side, s in (("left", 1.0), ("right", -1.0)):

        def mirrored(low: float, high: float, s: float = s) -> tuple[float, float]:
            return (low, high) if s > 0 else (-high, -low)

        at = (HIP[0], s * HIP[1], HIP[2])
        knee, foot = (at[0], at[1], KNEE_HEIGHT), (at[0], at[1], ANKLE_HEIGHT)
        arm_at, elbow = (SHOULDER[0], s * SHOULDER[1], SHOULDER[2]), (0.0, s * (SHOULDER[1] + 0.02), ELBOW_HEIGHT)
        parts = [
            ("hip_yaw_link", "pelvis", at, 1.1, small, (0, 0, 0.02), "hip_yaw", "Z", mirrored(-35, 50), hip),
            ("hip_roll_link", "hip_yaw_link", at, 1.2, small, (0, 0, 0), "hip_roll", "X", mirrored(-25, 45), hip),
            ("thigh", "hip_roll_link", at, 5.8, (0.13, 0.13, 0.38), (0, 0, -0.19), "hip_pitch", "Y", (-120, 45), leg),
            ("shank", "thigh", knee, 3.4, (0.10, 0.10, 0.38), (0, 0, -0.18), "knee", "Y", (-2, 140), leg),
            ("ankle_link", "shank", foot, 0.6, (0.09, 0.09, 0.09), (0, 0, 0), "ankle_pitch", "Y", (-50, 50), ankle),
            ("foot", "ankle_link", foot, 1.2, (0.25, 0.1, 0.06), (0.05, 0, -0.05), "ankle_roll", "X", (-25, 25), ankle),
            ("shoulder_link", "torso", arm_at, 1.1, small, (0, 0, 0), "shoulder_pitch", "Y", (-170, 60), arm),
            (
                "shoulder_roll_link", "shoulder_link", arm_at, 0.9, small, (0, 0, 0),
                "shoulder_roll", "X", mirrored(-8, 120), arm,
            ),
            (
                "upper_arm", "shoulder_roll_link", arm_at, 1.7, (0.09, 0.09, 0.26), (0, s * 0.01, -0.15),
                "shoulder_yaw", "Z", (-90, 90), arm,
            ),
            ("forearm", "upper_arm", elbow, 1.6, (0.08, 0.08, 0.34), (0, 0, -0.16), "elbow", "Y", (-135, 2), arm),
        ]  # fmt: skip
        for name, parent, place, mass, extent, center, joint, axis, limits, gains in parts:
            above = parent if parent in ("pelvis", "torso") else f"{side}_{parent}"
            found.append(
                Link(f"{side}_{name}", above, place, mass, extent, center, f"{side}_{joint}", axis, limits, gains)
            )
    return found


def author_humanoid(path: Path | str) -> Path:
    """Writes the humanoid as a .usda file, its texture beside it.

    Args:
        path: File to write.

    Returns:
        The file.
    """
    path = Path(path)
    layer = new_layer("Humanoid", comment=__doc__ or "")
    root = define(layer, "Humanoid")
    root.SetInfo("kind", "component")
    apply_api(root, "PhysicsArticulationRootAPI")
    label(root, "robot", "humanoid")
    remember(root, _custom_data())
    looks = define(root, "Looks", "Scope")
    looks_of = {
        "panel": material(looks, "panel", texture=texture(path.parent, "panel", (0.07, 0.08, 0.1), size=128)),
        "sole": physics_material(looks, "sole", friction=1.0),
    }
    by_name = {}
    for link in links():
        spec = define(root, link.name, translate=link.at)
        x, y, z = link.extent
        inertia = [link.mass / 12 * v for v in (y * y + z * z, x * x + z * z, x * x + y * y)]
        rigid_body(spec, mass=link.mass, inertia=inertia, center=link.center)
        by_name[link.name] = spec
    _shape_trunk(by_name, looks_of)
    for side, s in (("left", 1.0), ("right", -1.0)):
        _shape_leg(by_name, side, s, looks_of)
        _shape_arm(by_name, side, s)
    head = by_name["head"]
    camera(head, "head_camera", (0.118, 0.0, 1.60 - HEAD_HEIGHT), pitch_down=35.0, field_of_view=90.0)
    camera(by_name["torso"], "chest_camera", (0.148, 0.0, 0.315), pitch_down=25.0, field_of_view=70.0)
    define(head, "lidar_mount", translate=(0.0, 0.0, LIDAR_HEIGHT - HEAD_HEIGHT))
    _join(root)
    _filter_collisions(by_name)
    save_layer(layer, path)
    return path


def _custom_data() -> dict[str, object]:
    """Returns what the gait must know about the humanoid and no standard schema says."""
    roles = (
        "hip_yaw",
        "hip_roll",
        "hip_pitch",
        "knee",
        "ankle_pitch",
        "ankle_roll",
        "shoulder_pitch",
        "shoulder_roll",
        "elbow",
    )
    data: dict[str, object] = {side: {role: f"{side}_{role}" for role in roles} for side in ("left", "right")}
    data["axis_sign"] = dict.fromkeys(roles, 1)
    data["positive_direction"] = {
        "pitch": "a limb that hangs down swings backwards: right-handed about the base's +y",
        "roll": "a limb that hangs down swings to the left: right-handed about the base's +x",
        "yaw": "counter-clockwise seen from above: right-handed about the base's +z",
        "knee": "the shank swings backwards: the knee bends",
        "elbow": "the forearm swings backwards: bending is negative",
    }
    data["thigh_length"] = rounded(THIGH_LENGTH)
    data["shank_length"] = rounded(SHANK_LENGTH)
    data["sole_offset"] = rounded(ANKLE_HEIGHT)
    data["stand_height"] = rounded(PELVIS_HEIGHT)
    data["root_link"] = "pelvis"
    return data


def _join(root: Sdf.PrimSpec) -> None:
    """Writes the joints with their limits and drives."""
    from pxr import Gf

    scope = define(root, "joints", "Scope")
    at = {link.name: link.at for link in links()}
    for link in links():
        if not link.joint:
            continue
        joint = define(scope, link.joint, "PhysicsRevoluteJoint")
        relationship(joint, "physics:body0", [f"{root.path}/{link.parent}"])
        relationship(joint, "physics:body1", [f"{root.path}/{link.name}"])
        attribute(joint, "physics:axis", "token", link.axis, uniform=True)
        offset = [a - b for a, b in zip(link.at, at[link.parent], strict=True)]
        attribute(joint, "physics:localPos0", "point3f", rounded(offset))
        attribute(joint, "physics:localPos1", "point3f", (0.0, 0.0, 0.0))
        attribute(joint, "physics:localRot0", "quatf", Gf.Quatf(1.0))
        attribute(joint, "physics:localRot1", "quatf", Gf.Quatf(1.0))
        attribute(joint, "physics:lowerLimit", "float", float(link.limits[0]))
        attribute(joint, "physics:upperLimit", "float", float(link.limits[1]))
        apply_api(joint, "PhysicsDriveAPI:angular")
        stiffness, damping, torque = link.gains
        # Angular gains are per degree in USD.
        attribute(joint, "drive:angular:physics:type", "token", "force", uniform=True)
        attribute(joint, "drive:angular:physics:stiffness", "float", rounded(math.radians(stiffness)))
        attribute(joint, "drive:angular:physics:damping", "float", rounded(math.radians(damping)))
        attribute(joint, "drive:angular:physics:maxForce", "float", torque)
        attribute(joint, "drive:angular:physics:targetPosition", "float", 0.0)


def _filter_collisions(by_name: dict[str, Sdf.PrimSpec]) -> None:
    """Lets links that are neighbours, or would only ever rub, pass through each other."""
    pairs: dict[str, list[str]] = {
        "pelvis": ["torso", "left_thigh", "right_thigh", "left_forearm", "right_forearm"],
        "torso": ["head", "left_upper_arm", "right_upper_arm", "left_forearm", "right_forearm"],
        "left_thigh": ["right_thigh", "left_shank", "left_forearm", "torso"],
        "right_thigh": ["right_shank", "right_forearm", "torso"],
        "left_shank": ["left_foot", "right_shank", "right_foot"],
        "right_shank": ["right_foot", "left_foot"],
        "left_foot": ["right_foot"],
        "left_upper_arm": ["left_forearm"],
        "right_upper_arm": ["right_forearm"],
    }
    for name, others in pairs.items():
        apply_api(by_name[name], "PhysicsFilteredPairsAPI")
        relationship(by_name[name], "physics:filteredPairs", [str(by_name[other].path) for other in others])


def _shown(spec: Sdf.PrimSpec, color: Color | None, *, look: str | None = None) -> Sdf.PrimSpec:
    paint(spec, color, look)
    label(spec, "robot", "humanoid")
    return spec


def _skin(
    link: Sdf.PrimSpec,
    name: str,
    color: Color,
    z0: float,
    z1: float,
    profile: Sequence[tuple[float, float, float]],
    **options: float,
) -> None:
    """Adds a shell that follows a profile along z."""
    at = (0.0, options.pop("y", 0.0), 0.0)
    _shown(mesh(link, name, loft_mesh(rounded_sections(z0, z1, profile, **options), segments=22), at), color)


def _pad(
    link: Sdf.PrimSpec, name: str, color: Color, size: Sequence[float], at: Sequence[float], *, exponent: float = 4.5
) -> None:
    """Adds a box with soft edges."""
    half = [v / 2 for v in size]
    data = loft_mesh(
        rounded_sections(
            -half[2], half[2], [(0, half[0], half[1]), (1, half[0], half[1])], exponent=exponent, rim=min(half) * 0.5
        ),
        segments=20,
    )
    _shown(mesh(link, name, data, at), color)


def _shape_trunk(by_name: dict[str, Sdf.PrimSpec], looks_of: dict[str, str]) -> None:
    """Gives pelvis, waist, torso, neck and head their shapes."""
    pelvis = by_name["pelvis"]
    _skin(
        pelvis,
        "shell",
        SHELL,
        -0.10,
        0.06,
        [(0, 0.075, 0.085), (0.45, 0.10, 0.145), (1, 0.092, 0.135)],
        exponent=3.0,
        rim=0.025,
    )
    _pad(pelvis, "belt", ACCENT, (0.205, 0.285, 0.022), (0, 0, 0.022), exponent=3.0)
    collider_box(pelvis, "collider", (0.19, 0.27, 0.15), (0, 0, -0.02))
    _shown(rod(by_name["waist_yaw_link"], "bearing", "Cylinder", 0.085, 0.06, (0, 0, -0.02)), DARK)
    _shown(sphere(by_name["waist_roll_link"], "ball", 0.075, (0, 0, 0.015)), JOINT)

    torso = by_name["torso"]
    _skin(torso, "abdomen", DARK, 0.0, 0.17, [(0, 0.080, 0.110), (1, 0.095, 0.130)], exponent=2.8, rim=0.015)
    chest = [(0, 0.098, 0.132), (0.35, 0.122, 0.168), (0.7, 0.128, 0.180), (1, 0.088, 0.140)]
    _skin(torso, "chest", SHELL, 0.13, 0.425, chest, exponent=3.0, rim=0.035)
    _shown(
        mesh(torso, "panel", boxes_mesh([((0.014, 0.17, 0.12), (0, 0, 0))]), (0.124, 0, 0.235), rotate=(0, 4.0, 0)),
        None,
        look=looks_of["panel"],
    )
    _pad(torso, "backpack", DARK, (0.11, 0.25, 0.25), (-0.135, 0, 0.25))
    _pad(torso, "backpack_stripe", ACCENT, (0.012, 0.16, 0.03), (-0.19, 0, 0.30))
    _shown(sphere(torso, "chest_lens", 0.019, (0.124, 0, 0.315)), GLASS)
    _shown(rod(torso, "collar", "Cylinder", 0.062, 0.03, (0, 0, 0.425)), DARK)
    collider_box(torso, "collider", (0.26, 0.35, 0.40), (-0.02, 0, 0.22))

    _shown(rod(by_name["neck_link"], "column", "Cylinder", 0.045, 0.075, (0, 0, 0.01)), JOINT)
    head = by_name["head"]
    skull = [(0, 0.055, 0.048), (0.2, 0.082, 0.070), (0.5, 0.098, 0.080), (0.75, 0.092, 0.077), (1, 0.062, 0.055)]
    _skin(head, "skull", SHELL, -0.02, SKULL_TOP - HEAD_HEIGHT, skull, exponent=2.3, rim=0.035)
    face = [(0.035, 0.006, 0, 0.088, 0.072, 2.3), (0.06, 0.008, 0, 0.099, 0.081, 2.3),
            (0.10, 0.008, 0, 0.100, 0.0815, 2.3), (0.13, 0.006, 0, 0.097, 0.080, 2.3),
            (0.145, 0.004, 0, 0.090, 0.076, 2.3)]  # fmt: skip
    _shown(mesh(head, "visor", loft_mesh(face, segments=16, start=-80.0, end=80.0)), GLASS)
    glow = [(0.098, 0.0095, 0, 0.100, 0.0815, 2.3), (0.108, 0.0095, 0, 0.100, 0.0815, 2.3)]
    _shown(mesh(head, "eyes", loft_mesh(glow, segments=12, start=-38.0, end=38.0)), LIGHT)
    for side, s in (("left", 1), ("right", -1)):
        _shown(rod(head, f"{side}_ear", "Cylinder", 0.032, 0.016, (0, s * 0.080, 0.085), axis="Y"), ACCENT)
    _shown(rod(head, "lidar_base", "Cylinder", 0.030, 0.03, (0, 0, SKULL_TOP - HEAD_HEIGHT + 0.008)), DARK)
    collider_rod(head, "collider", "Capsule", 0.095, 0.02, (0, 0, 0.085))


def _shape_leg(by_name: dict[str, Sdf.PrimSpec], side: str, s: float, looks_of: dict[str, str]) -> None:
    _shown(rod(by_name[f"{side}_hip_yaw_link"], "bearing", "Cylinder", 0.055, 0.05, (0, 0, 0.035)), DARK)
    _shown(sphere(by_name[f"{side}_hip_roll_link"], "ball", 0.066, (0, s * 0.012, 0)), JOINT)
    thigh = by_name[f"{side}_thigh"]
    profile = [(0, 0.052, 0.050), (0.5, 0.074, 0.068), (0.85, 0.080, 0.074), (1, 0.066, 0.062)]
    _skin(thigh, "shell", SHELL, -0.365, -0.035, profile, rim=0.03)
    _pad(thigh, "stripe", ACCENT, (0.05, 0.012, 0.16), (0.0, s * 0.072, -0.16))
    collider_rod(thigh, "collider", "Capsule", 0.068, 0.22, (0, 0, -0.20))

    shank = by_name[f"{side}_shank"]
    _shown(rod(shank, "knee", "Cylinder", 0.052, 0.105, (0, 0, 0), axis="Y"), DARK)
    _shown(mesh(shank, "knee_cap", ellipsoid_mesh(0.030, 0.042, 0.055, segments=12, rings=9), (0.042, 0, 0.0)), SHELL)
    calf = [(0, 0.036, 0.036), (0.35, 0.046, 0.044), (0.75, 0.062, 0.055), (1, 0.050, 0.050)]
    _skin(shank, "shell", SHELL, -0.375, -0.045, calf, rim=0.02, x=-0.006)
    _pad(shank, "shin", DARK, (0.018, 0.05, 0.20), (0.048, 0, -0.19))
    collider_rod(shank, "collider", "Capsule", 0.055, 0.24, (0, 0, -0.19))

    _shown(sphere(by_name[f"{side}_ankle_link"], "ball", 0.040, (0, 0, 0)), JOINT)
    foot = by_name[f"{side}_foot"]
    sole = box(foot, "sole", (0.25, 0.104, 0.026), (0.052, 0, -ANKLE_HEIGHT + 0.013))
    collide(_shown(sole, DARK), looks_of["sole"])
    _shown(mesh(foot, "shoe", _shoe()), SHELL)


def _shoe() -> MeshData:
    """Returns the upper of a foot: long below, and drawn back towards the ankle above."""
    z = -ANKLE_HEIGHT + 0.02
    sections = [
        (z, 0.052, 0.0, 0.112, 0.046, 4.0),
        (z + 0.008, 0.052, 0.0, 0.120, 0.050, 4.0),
        (z + 0.022, 0.048, 0.0, 0.114, 0.049, 3.6),
        (z + 0.036, 0.030, 0.0, 0.090, 0.045, 3.0),
        (z + 0.050, 0.012, 0.0, 0.064, 0.040, 2.6),
        (z + 0.062, 0.0, 0.0, 0.044, 0.034, 2.3),
        (z + 0.066, 0.0, 0.0, 0.030, 0.024, 2.2),
    ]
    return loft_mesh(sections, segments=20)


def _shape_arm(by_name: dict[str, Sdf.PrimSpec], side: str, s: float) -> None:
    _shown(sphere(by_name[f"{side}_shoulder_link"], "ball", 0.058, (0, 0, 0)), JOINT)
    pad = ellipsoid_mesh(0.072, 0.062, 0.075, segments=16, rings=9)
    _shown(mesh(by_name[f"{side}_shoulder_roll_link"], "cap", pad, (0, s * 0.018, 0.012)), SHELL)
    upper = by_name[f"{side}_upper_arm"]
    _skin(
        upper,
        "shell",
        SHELL,
        -0.245,
        -0.045,
        [(0, 0.040, 0.038), (0.6, 0.050, 0.046), (1, 0.044, 0.042)],
        rim=0.018,
        y=s * 0.02,
    )
    _pad(upper, "stripe", ACCENT, (0.035, 0.010, 0.09), (0, s * 0.068, -0.13))
    collider_rod(upper, "collider", "Capsule", 0.048, 0.16, (0, s * 0.02, -0.14))
    forearm = by_name[f"{side}_forearm"]
    _shown(rod(forearm, "elbow", "Cylinder", 0.040, 0.082, (0, 0, 0), axis="Y"), DARK)
    _skin(
        forearm, "shell", SHELL, -0.225, -0.035, [(0, 0.030, 0.030), (0.6, 0.042, 0.040), (1, 0.040, 0.038)], rim=0.015
    )
    _shown(rod(forearm, "wrist", "Cylinder", 0.026, 0.03, (0, 0, -0.235)), JOINT)
    _pad(forearm, "palm", DARK, (0.078, 0.036, 0.095), (0.004, 0, -0.29), exponent=3.2)
    _pad(forearm, "fingers", DARK, (0.070, 0.026, 0.075), (0.008, s * -0.006, -0.365), exponent=3.2)
    _shown(rod(forearm, "thumb", "Capsule", 0.012, 0.045, (0.048, s * -0.012, -0.29), rotate=(0, -28.0, 0)), DARK)
    collider_rod(forearm, "collider", "Capsule", 0.042, 0.26, (0, 0, -0.19))
