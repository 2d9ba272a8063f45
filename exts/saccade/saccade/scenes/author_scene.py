"""Writes whole scenes: the shipped warehouse and corridor, random ones, and the bench."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from saccade.scenes.author import (
    Color,
    attribute,
    box,
    camera,
    collide,
    define,
    label,
    new_layer,
    paint,
    refer,
    remember,
    rounded,
    save_layer,
    sphere,
)
from saccade.scenes.author_humanoid import author_humanoid
from saccade.scenes.author_layout import corridor_plan, random_plan, warehouse_plan
from saccade.scenes.author_movers import FORKLIFT, write_forklift, write_person
from saccade.scenes.author_plan import PERIOD, Plan
from saccade.scenes.author_props import Palette, Props, write_floor, write_markings, write_things, write_walls

if TYPE_CHECKING:
    from pxr import Sdf

Layout = Literal["warehouse", "corridor", "random"]

PLANS = {"warehouse": warehouse_plan, "corridor": corridor_plan, "random": random_plan}

WAREHOUSE = Palette(
    floor=("concrete", (0.56, 0.56, 0.55)),
    wall=("blocks", (0.80, 0.81, 0.80)),
    dado=None,
    frame=(0.10, 0.26, 0.55),
    beam=(0.93, 0.45, 0.08),
    cartons=((0.76, 0.60, 0.42), (0.70, 0.53, 0.36), (0.80, 0.66, 0.48), (0.66, 0.50, 0.34)),
    barrel=(0.10, 0.27, 0.55),
    pallet=(0.72, 0.57, 0.38),
    door=(0.62, 0.66, 0.70),
    grain=1,
)
CORRIDOR = Palette(
    floor=("checker", (0.66, 0.65, 0.61)),
    wall=("plaster", (0.88, 0.87, 0.83)),
    dado=(0.42, 0.55, 0.58),
    frame=(0.35, 0.36, 0.38),
    beam=(0.35, 0.36, 0.38),
    cartons=((0.76, 0.60, 0.42), (0.70, 0.53, 0.36)),
    barrel=(0.15, 0.40, 0.24),
    pallet=(0.66, 0.48, 0.30),
    door=(0.50, 0.34, 0.22),
    grain=2,
)


def author_scene(
    path: Path | str, *, layout: Layout = "warehouse", seed: int = 0, humanoid: str = "humanoid.usda"
) -> Path:
    """Writes a scene as a .usda file, and its textures in a folder beside it.

    The same layout and seed give the same bytes. Nothing in the scene depends on what was written before.

    Args:
        path: File to write.
        layout: Which scene: the shipped ones, or a random one of either kind.
        seed: Seed of the layout, the colours, the light and the people.
        humanoid: The humanoid's file as the scene refers to it; written beside the scene where it is missing.

    Returns:
        The file.
    """
    path = Path(path)
    plan = PLANS[layout](seed)
    rng = random.Random(f"looks {layout} {seed}")
    palette = {"warehouse": WAREHOUSE, "corridor": CORRIDOR}.get(layout) or _random_palette(rng)
    robot = Path(humanoid) if Path(humanoid).is_absolute() else path.parent / humanoid
    if not robot.exists():
        author_humanoid(robot)
    layer = new_layer("World", duration=PERIOD, comment=f"Saccade scene: layout {layout}, seed {seed}")
    world = define(layer, "World")
    world.SetInfo("kind", "assembly")
    data: dict[str, object] = {"bounds": _doubles(list(plan.bounds)), "layout": layout, "seed": seed}
    if plan.route:
        # A flat list of x and y in turn: USD's dictionaries know no list of pairs.
        data["route"] = _doubles([value for point in plan.route for value in point])
    if plan.obstructions:
        data["obstructions"] = _doubles([value for point in plan.obstructions for value in point])
    remember(world, data)
    _write_physics(world)
    _write_lights(world, rng, shipped=layout != "random")
    looks = define(world, "Looks", "Scope")
    shared = define(world, "Shared", "Scope", abstract=True)
    props = Props(world, looks, shared, path.parent, palette, rng, rack_fill=plan.rack_fill)
    write_floor(props, plan)
    write_walls(props, plan)
    write_markings(props, plan)
    write_things(props, plan)
    _write_movers(props, plan, rng, shipped=layout != "random")
    x, y, yaw = plan.start
    robot_prim = define(world, "Humanoid", translate=(x, y, 0.0), rotate=math.degrees(yaw))
    refer(robot_prim, "", humanoid if Path(humanoid).is_absolute() else f"./{humanoid}")
    save_layer(layer, path)
    return path


def author_bench(path: Path | str) -> Path:
    """Writes the bench: 24 primitive shapes, a camera and a LiDAR mount, for timing the sensors alone.

    Args:
        path: File to write.

    Returns:
        The file.
    """
    layer = new_layer("World", comment="Saccade bench: primitive shapes around a camera and a LiDAR mount")
    world = define(layer, "World")
    _write_physics(world)
    _write_lights(world, random.Random(0), shipped=True)
    floor = box(world, "floor", (16.0, 12.0, 0.1), (0, 0, -0.05))
    paint(floor, (0.45, 0.46, 0.47))
    label(floor, "floor", "floor")
    collide(floor)
    walls: list[tuple[Any, Any]] = [((0.2, 12.0, 3.0), (8.1, 0, 1.5)), ((0.2, 12.0, 3.0), (-8.1, 0, 1.5))]
    walls += [((16.4, 0.2, 3.0), (0, 6.1, 1.5)), ((16.4, 0.2, 3.0), (0, -6.1, 1.5))]
    for k, (size, at) in enumerate(walls):
        wall = box(world, f"wall_{k}", size, at)
        paint(wall, (0.75, 0.75, 0.72))
        label(wall, "structure", "wall")
        collide(wall)
    rng = random.Random(7)
    for k in range(12):
        angle = 2 * math.pi * k / 12 + 0.2
        reach = 2.4 + 2.4 * rng.random()
        size = (0.3 + 0.6 * rng.random(), 0.3 + 0.6 * rng.random(), 0.4 + 1.2 * rng.random())
        at = (reach * 1.2 * math.cos(angle), reach * math.sin(angle), size[2] / 2)
        block = box(world, f"box_{k:02d}", size, at, rotate=rng.uniform(-40, 40))
        paint(block, _shade(rng, (0.70, 0.52, 0.34), 0.2))
        label(block, "obstacle", "carton")
        collide(block)
    for k in range(7):
        angle = 2 * math.pi * k / 7
        radius = 0.2 + 0.3 * rng.random()
        ball = sphere(world, f"ball_{k}", radius, (3.6 * math.cos(angle) * 1.2, 3.6 * math.sin(angle), radius))
        paint(ball, _shade(rng, (0.3, 0.5, 0.7), 0.25))
        label(ball, "obstacle", "ball")
        collide(ball)
    camera(world, "camera", (0.0, 0.0, 1.6), pitch_down=20.0, field_of_view=90.0)
    define(world, "lidar_mount", translate=(0.0, 0.0, 1.7))
    save_layer(layer, path)
    return Path(path)


def _doubles(values: list[float]) -> object:
    from pxr import Vt

    return Vt.DoubleArray([float(value) for value in rounded(values)])


def _write_physics(world: Sdf.PrimSpec) -> None:
    scene = define(world, "Physics", "PhysicsScene")
    attribute(scene, "physics:gravityDirection", "vector3f", (0.0, 0.0, -1.0))
    attribute(scene, "physics:gravityMagnitude", "float", 9.81)


def _write_lights(world: Sdf.PrimSpec, rng: random.Random, *, shipped: bool) -> None:
    """Writes a sun and a sky; their sum stays near what a camera exposes well."""
    group = define(world, "Lights", "Scope")
    sun_strength = 1900.0 if shipped else rng.uniform(700.0, 2900.0)
    sky_strength = 1150.0 if shipped else rng.uniform(600.0, 1700.0)
    tilt, turn = (32.0, 55.0) if shipped else (rng.uniform(8.0, 58.0), rng.uniform(0.0, 360.0))
    warm = (1.0, 0.96, 0.90) if shipped else _between((1.0, 0.88, 0.74), (0.88, 0.94, 1.0), rng.random())
    sky = (0.93, 0.96, 1.0) if shipped else _between((1.0, 0.95, 0.88), (0.84, 0.92, 1.0), rng.random())
    sun = define(group, "Sun", "DistantLight", rotate=(tilt, 0.0, turn))
    attribute(sun, "inputs:intensity", "float", round(sun_strength, 1))
    attribute(sun, "inputs:angle", "float", 0.53)
    attribute(sun, "inputs:color", "color3f", rounded(warm))
    dome = define(group, "Sky", "DomeLight")
    attribute(dome, "inputs:intensity", "float", round(sky_strength, 1))
    attribute(dome, "inputs:color", "color3f", rounded(sky))


def _write_movers(props: Props, plan: Plan, rng: random.Random, *, shipped: bool) -> None:
    people = define(props.world, "People", "Xform") if plan.people else None
    for k, track in enumerate(plan.people):
        write_person(props, people, f"person_{k}", track, random.Random(rng.random()))  # type: ignore[arg-type]
    vehicles = define(props.world, "Vehicles", "Xform") if plan.forklifts else None
    for k, track in enumerate(plan.forklifts):
        color = FORKLIFT[0] if shipped else None
        write_forklift(props, vehicles, f"forklift_{k}", track, random.Random(rng.random()), color=color)  # type: ignore[arg-type]


def _random_palette(rng: random.Random) -> Palette:
    """Returns random colours and textures."""
    floors = (
        ("concrete", (0.55, 0.55, 0.54)), ("concrete", (0.38, 0.39, 0.41)), ("concrete", (0.62, 0.58, 0.52)),
        ("checker", (0.66, 0.65, 0.61)), ("checker", (0.48, 0.52, 0.55)), ("wood", (0.60, 0.45, 0.30)),
        ("concrete", (0.36, 0.46, 0.42)), ("plaster", (0.50, 0.32, 0.27)),
    )  # fmt: skip
    walls = (
        ("brick", (0.58, 0.30, 0.23)), ("brick", (0.72, 0.64, 0.52)), ("blocks", (0.80, 0.81, 0.80)),
        ("blocks", (0.66, 0.70, 0.72)),
        ("plaster", (0.88, 0.87, 0.83)), ("plaster", (0.76, 0.80, 0.78)), ("metal", (0.62, 0.66, 0.70)),
        ("metal", (0.44, 0.54, 0.62)),
        ("concrete", (0.68, 0.68, 0.66)),
    )  # fmt: skip
    frames = ((0.10, 0.26, 0.55), (0.35, 0.37, 0.40), (0.12, 0.40, 0.28), (0.60, 0.62, 0.64), (0.55, 0.16, 0.12))
    beams = ((0.93, 0.45, 0.08), (0.92, 0.74, 0.10), (0.70, 0.18, 0.12), (0.55, 0.57, 0.60), (0.16, 0.34, 0.62))
    browns = (
        (0.76, 0.60, 0.42),
        (0.70, 0.53, 0.36),
        (0.80, 0.66, 0.48),
        (0.62, 0.47, 0.32),
        (0.85, 0.82, 0.76),
        (0.46, 0.50, 0.56),
    )
    floor, wall = rng.choice(floors), rng.choice(walls)
    return Palette(
        floor=(floor[0], _shade(rng, floor[1], 0.12)),
        wall=(wall[0], _shade(rng, wall[1], 0.10)),
        dado=_shade(rng, (0.42, 0.52, 0.56), 0.3) if wall[0] == "plaster" and rng.random() < 0.6 else None,
        frame=rng.choice(frames),
        beam=rng.choice(beams),
        cartons=tuple(_shade(rng, rng.choice(browns), 0.1) for _ in range(4)),
        barrel=_shade(rng, (0.3, 0.35, 0.45), 0.5),
        pallet=_shade(rng, (0.68, 0.52, 0.35), 0.15),
        door=rng.choice(
            ((0.62, 0.66, 0.70), (0.50, 0.34, 0.22), (0.30, 0.42, 0.55), (0.78, 0.76, 0.70), (0.34, 0.46, 0.36))
        ),
        line=rng.choice(((0.93, 0.76, 0.12), (0.90, 0.90, 0.88), None)),
        grain=rng.randrange(8),
    )


def _shade(rng: random.Random, color: Color, spread: float) -> Color:
    level = 1 + rng.uniform(-spread, spread)
    tint = [min(max(c * level * (1 + rng.uniform(-spread, spread) / 3), 0.0), 1.0) for c in color]
    return (round(tint[0], 3), round(tint[1], 3), round(tint[2], 3))


def _between(a: Color, b: Color, share: float) -> Color:
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)
