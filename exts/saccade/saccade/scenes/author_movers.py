"""People and forklifts: each one kinematic rigid body on keyframes, seen as many shapes."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from saccade.scenes.author import (
    Color,
    animate,
    collider_box,
    collider_rod,
    define,
    label,
    mesh,
    paint,
    refer,
    rigid_body,
    rod,
    sphere,
)
from saccade.scenes.author_mesh import boxes_mesh, ellipsoid_mesh, loft_mesh, rounded_sections
from saccade.scenes.author_plan import Track
from saccade.scenes.author_props import Props

if TYPE_CHECKING:
    from pxr import Sdf

SKIN: tuple[Color, ...] = (
    (0.94, 0.77, 0.66),
    (0.87, 0.67, 0.53),
    (0.72, 0.51, 0.38),
    (0.52, 0.35, 0.25),
    (0.35, 0.23, 0.17),
)
CLOTHES: tuple[Color, ...] = (
    (0.16, 0.22, 0.36), (0.22, 0.24, 0.27), (0.40, 0.30, 0.22), (0.12, 0.30, 0.28), (0.45, 0.13, 0.14),
    (0.62, 0.62, 0.60), (0.30, 0.36, 0.20), (0.20, 0.36, 0.58),
)  # fmt: skip
TROUSERS: tuple[Color, ...] = (
    (0.13, 0.17, 0.28),
    (0.18, 0.18, 0.20),
    (0.36, 0.31, 0.24),
    (0.26, 0.28, 0.30),
    (0.20, 0.23, 0.18),
)
VESTS: tuple[Color, ...] = ((0.80, 0.95, 0.10), (0.99, 0.45, 0.05))
HATS: tuple[Color, ...] = (
    (0.98, 0.80, 0.08),
    (0.95, 0.95, 0.94),
    (0.12, 0.32, 0.70),
    (0.85, 0.15, 0.10),
    (0.98, 0.50, 0.08),
)
HAIR: tuple[Color, ...] = ((0.10, 0.08, 0.07), (0.30, 0.19, 0.11), (0.62, 0.47, 0.28), (0.55, 0.55, 0.56))
FORKLIFT: tuple[Color, ...] = ((0.96, 0.69, 0.07), (0.90, 0.42, 0.06), (0.78, 0.16, 0.10), (0.30, 0.55, 0.22))

MODEL_HEIGHT = 1.75
"""Height at which a person is modelled [m]; others are scaled."""
SHOE_HEIGHT = 0.085
"""Height of the ankle above the sole [m]."""


def write_person(props: Props, group: Sdf.PrimSpec, name: str, track: Track, rng: random.Random) -> None:
    """Writes a person on a track, in a pose of walking, or standing where the track stands still."""
    spec = define(group, name)
    height = rng.uniform(1.55, 1.90)
    mass = 22.0 * height**2
    animate(spec, track.times, [(x, y, 0.0) for x, y in track.positions], [math.degrees(yaw) for yaw in track.yaws])
    rigid_body(
        spec, mass=mass, inertia=(0.1 * mass, 0.1 * mass, 0.02 * mass), center=(0, 0, 0.55 * height), kinematic=True
    )
    label(spec, "person", "person")
    scale = height / MODEL_HEIGHT
    collider_rod(spec, "collider", "Capsule", 0.25, height - 0.62, (0, 0, height / 2 + 0.06))
    walks = len(track.times) > 1
    stride = rng.uniform(0.34, 0.5) if walks else 0.04
    lead = rng.choice((1, -1))
    # The lower of both feet stands on the floor.
    drop = min(_joints(stride * lead * s, walks)[2][1] for s in (1, -1)) - SHOE_HEIGHT
    body = define(spec, "body", translate=(0.0, 0.0, -drop * scale), scale=(scale, scale, scale))
    shapes = _person_classes(props)
    vest, hat = rng.random() < 0.65, rng.random() < 0.6
    jacket, trousers, skin = rng.choice(CLOTHES), rng.choice(TROUSERS), rng.choice(SKIN)
    sleeve = jacket if rng.random() < 0.75 else skin
    _copy(body, "hips", shapes["hips"], trousers)
    _copy(body, "torso", shapes["torso"], jacket)
    if vest:
        color = rng.choice(VESTS)
        _copy(body, "vest", shapes["vest"], color)
        _copy(body, "vest_band", shapes["band"], (0.88, 0.88, 0.86))
    _shown(rod(body, "neck", "Cylinder", 0.052, 0.11, (0.005, 0, 1.50)), skin)
    _copy(body, "head", shapes["head"], skin)
    _copy(body, "hair", shapes["hair"], rng.choice(HAIR))
    if hat:
        color = rng.choice(HATS)
        _copy(body, "hat", shapes["hat"], color)
        _copy(body, "brim", shapes["brim"], color)
    for side, s in (("left", 1), ("right", -1)):
        forward = stride * lead * s
        _leg(body, side, s, forward, trousers, shapes["shoe"], walks)
        _arm(body, side, s, -0.8 * forward, sleeve, skin, rng.uniform(0.25, 0.6))


def _leg(body: Sdf.PrimSpec, side: str, s: int, angle: float, color: Color, shoe: str, walks: bool) -> None:
    """Writes a leg; the one behind bends at the knee."""
    y = 0.095 * s
    hip, knee, ankle, bend = _joints(angle, walks)
    _limb(body, f"{side}_thigh", hip, knee, y, 0.080, color)
    _limb(body, f"{side}_shank", knee, ankle, y, 0.058, color)
    tilt = math.degrees(bend * 0.9 - 0.05)
    spec = define(body, f"{side}_shoe", "Mesh", translate=(ankle[0], y, ankle[1]), rotate=(0.0, tilt, 0.0))
    refer(spec, shoe)


def _joints(angle: float, walks: bool) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float], float]:
    """Returns hip, knee and ankle (x, z) [m] and the bend of the knee [rad] of a leg that swings by ``angle``."""
    hip = (0.0, 0.90)
    bend = 0.5 if walks and angle < 0 else 0.06
    knee = (hip[0] + 0.42 * math.sin(angle), hip[1] - 0.42 * math.cos(angle))
    lower = angle - bend
    return hip, knee, (knee[0] + 0.40 * math.sin(lower), knee[1] - 0.40 * math.cos(lower)), bend


def _arm(body: Sdf.PrimSpec, side: str, s: int, angle: float, color: Color, skin: Color, bend: float) -> None:
    shoulder = (0.0, 1.40)
    elbow = (0.29 * math.sin(angle), shoulder[1] - 0.29 * math.cos(angle))
    lower = angle + bend
    wrist = (elbow[0] + 0.25 * math.sin(lower), elbow[1] - 0.25 * math.cos(lower))
    _limb(body, f"{side}_upper_arm", shoulder, elbow, 0.225 * s, 0.052, color)
    _limb(body, f"{side}_forearm", elbow, wrist, 0.235 * s, 0.042, color)
    _shown(sphere(body, f"{side}_hand", 0.048, (wrist[0] + 0.02 * math.sin(lower), 0.235 * s, wrist[1] - 0.04)), skin)


def _limb(
    body: Sdf.PrimSpec, name: str, a: tuple[float, float], b: tuple[float, float], y: float, radius: float, color: Color
) -> None:
    """Writes a capsule between two points (x, z) in a plane."""
    dx, dz = b[0] - a[0], b[1] - a[1]
    at = ((a[0] + b[0]) / 2, y, (a[1] + b[1]) / 2)
    angle = math.degrees(math.atan2(dx, dz))
    _shown(rod(body, name, "Capsule", radius, math.hypot(dx, dz), at, rotate=(0.0, angle, 0.0)), color)


def _shown(spec: Sdf.PrimSpec, color: Color) -> None:
    paint(spec, color)
    label(spec, "person", "person")


def _copy(parent: Sdf.PrimSpec, name: str, target: str, color: Color) -> None:
    """Shows a shared shape in another colour."""
    spec = define(parent, name, "Mesh")
    refer(spec, target)
    paint(spec, color)


def _person_classes(props: Props) -> dict[str, str]:
    """Writes the shapes that all people share, and returns their paths."""
    names = ("hips", "torso", "vest", "band", "head", "hair", "hat", "brim", "shoe")
    paths = {name: f"{props.shared.path}/person_{name}" for name in names}
    if props.world.layer.GetPrimAtPath(paths["hips"]):
        return paths
    torso = [(0, 0.105, 0.145), (0.4, 0.110, 0.155), (0.75, 0.118, 0.185), (1, 0.080, 0.155)]
    bigger = [(share, x + 0.012, y + 0.012) for share, x, y in torso]
    shapes = {
        "hips": loft_mesh(rounded_sections(0.80, 1.02, [(0, 0.100, 0.145), (1, 0.105, 0.150)], rim=0.04), segments=14),
        "torso": loft_mesh(rounded_sections(0.96, 1.485, torso, exponent=2.5, rim=0.04), segments=16),
        "vest": loft_mesh(rounded_sections(1.0, 1.495, bigger, exponent=2.5, rim=0.03), segments=16),
        "band": loft_mesh([(1.13, 0, 0, 0.124, 0.172, 2.5), (1.19, 0, 0, 0.126, 0.176, 2.5)], segments=16),
        "head": ellipsoid_mesh(0.098, 0.078, 0.122, segments=14, rings=11),
        "hair": ellipsoid_mesh(0.104, 0.086, 0.118, segments=14, rings=11, lowest=0.05),
        "hat": ellipsoid_mesh(0.130, 0.112, 0.130, segments=14, rings=11, lowest=0.0),
        "brim": loft_mesh([(0.0, 0.03, 0, 0.155, 0.118, 2), (0.012, 0.03, 0, 0.155, 0.118, 2)], segments=16),
        "shoe": loft_mesh(
            [
                (-0.085, 0.055, 0, 0.125, 0.046, 3),
                (-0.05, 0.055, 0, 0.130, 0.050, 3),
                (-0.02, 0.03, 0, 0.095, 0.048, 2.6),
                (0.02, 0.0, 0, 0.060, 0.050, 2.2),
                (0.05, 0.0, 0, 0.05, 0.046, 2.2),
            ],
            segments=14,
        ),
    }
    places = {"head": (0.015, 0, 1.63), "hair": (0.0, 0, 1.645), "hat": (0.005, 0, 1.66), "brim": (0.0, 0, 1.66)}
    for name, data in shapes.items():
        spec = mesh(props.shared, f"person_{name}", data, places.get(name))
        spec.specifier = _class_specifier()
        label(spec, "person", "person")
        if name == "shoe":
            paint(spec, (0.13, 0.11, 0.10))
    return paths


def _class_specifier() -> object:
    from pxr import Sdf

    return Sdf.SpecifierClass


def write_forklift(
    props: Props, group: Sdf.PrimSpec, name: str, track: Track, rng: random.Random, *, color: Color | None = None
) -> None:
    """Writes a forklift on a track; its forks point along +x. Without a colour it gets one by chance."""
    spec = define(group, name)
    animate(spec, track.times, [(x, y, 0.0) for x, y in track.positions], [math.degrees(yaw) for yaw in track.yaws])
    rigid_body(spec, mass=2800.0, inertia=(900.0, 1900.0, 1700.0), center=(-0.2, 0, 0.6), kinematic=True)
    label(spec, "obstacle", "forklift")
    collider_box(spec, "collider", (1.75, 1.08, 1.95), (-0.22, 0, 1.08))
    lift = rng.choice((0.12, 0.12, 0.5, 0.9))
    collider_box(spec, "fork_collider", (1.05, 0.72, 0.12), (1.18, 0, max(lift, 0.14) + 0.03))
    color = color or rng.choice(FORKLIFT)
    dark, steel = (0.13, 0.13, 0.14), (0.32, 0.33, 0.35)

    def shown(shape: Sdf.PrimSpec, tint: Color | None, look: str | None = None) -> None:
        paint(shape, tint, look)
        label(shape, "obstacle", "forklift")

    half = [(0, 0.76, 0.50), (1, 0.74, 0.50)]
    shown(
        mesh(
            spec,
            "chassis",
            loft_mesh(rounded_sections(0.20, 0.74, half, exponent=5, rim=0.06), segments=24),
            (-0.14, 0, 0),
        ),
        color,
    )
    rear = [(0, 0.30, 0.50), (0.6, 0.33, 0.51), (1, 0.24, 0.46)]
    shown(
        mesh(
            spec,
            "counterweight",
            loft_mesh(rounded_sections(0.28, 1.08, rear, exponent=4, rim=0.08), segments=24),
            (-0.82, 0, 0),
        ),
        dark,
    )
    stripe = mesh(spec, "stripe", boxes_mesh([((0.02, 0.72, 0.16), (0, 0, 0))], tile=0.4), (-1.145, 0, 0.62))
    shown(stripe, None, props.look("hazard", "hazard", (0.95, 0.78, 0.08), size=128))
    shown(
        mesh(
            spec,
            "seat",
            boxes_mesh([((0.46, 0.48, 0.14), (0, 0, 0)), ((0.12, 0.46, 0.52), (-0.24, 0, 0.3))]),
            (-0.32, 0, 0.84),
        ),
        (0.10, 0.10, 0.11),
    )
    posts = [
        ((0.06, 0.06, 1.38), (x, y, 1.40)) for x, y in ((0.42, 0.44), (0.42, -0.44), (-0.72, 0.44), (-0.72, -0.44))
    ]
    posts += [((1.26, 0.98, 0.05), (-0.14, 0, 2.10))]
    shown(mesh(spec, "cab", boxes_mesh(posts)), dark)
    shown(mesh(spec, "dashboard", boxes_mesh([((0.16, 0.62, 0.34), (0.40, 0, 0.90))])), steel)
    shown(rod(spec, "steering_wheel", "Cylinder", 0.17, 0.025, (0.22, 0, 1.12), rotate=(0, -55.0, 0)), dark)
    mast = [((0.09, 0.10, 2.05), (0.66, y, 1.10)) for y in (-0.30, 0.30)]
    mast += [((0.06, 0.60, 0.08), (0.66, 0, z)) for z in (0.35, 1.2, 2.08)]
    shown(mesh(spec, "mast", boxes_mesh(mast)), steel)
    tines = [((1.05, 0.11, 0.045), (1.20, y, lift)) for y in (-0.24, 0.24)]
    tines += [((0.05, 0.80, 0.09), (0.72, 0, lift + z)) for z in (0.05, 0.42)]
    tines += [((0.05, 0.11, 0.46), (0.70, y, lift + 0.22)) for y in (-0.24, 0.24)]
    shown(mesh(spec, "forks", boxes_mesh(tines)), (0.20, 0.20, 0.21))
    for side, s in (("left", 1), ("right", -1)):
        shown(rod(spec, f"{side}_front_wheel", "Cylinder", 0.28, 0.20, (0.40, s * 0.45, 0.28), axis="Y"), dark)
        shown(
            rod(spec, f"{side}_front_hub", "Cylinder", 0.13, 0.22, (0.40, s * 0.45, 0.28), axis="Y"), (0.75, 0.75, 0.74)
        )
        shown(rod(spec, f"{side}_rear_wheel", "Cylinder", 0.23, 0.18, (-0.72, s * 0.44, 0.23), axis="Y"), dark)
    shown(sphere(spec, "beacon", 0.06, (-0.6, 0, 2.17)), (0.98, 0.55, 0.05))
    if lift > 0.3 or rng.random() < 0.5:
        crate = boxes_mesh([((0.80, 0.60, 0.50), (1.22, 0, lift + 0.28))])
        shown(
            mesh(spec, "load", crate),
            None,
            props.look("carton_2", "cardboard", props.palette.cartons[2 % len(props.palette.cartons)], size=128),
        )
