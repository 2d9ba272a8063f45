"""What stands in a scene: racks, cartons, pallets, cones, barrels, furniture, walls and floors."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.scenes.author import (
    Color,
    attribute,
    box,
    collide,
    collider_box,
    collider_rod,
    define,
    label,
    material,
    mesh,
    paint,
    physics_material,
    refer,
    relationship,
    rod,
    rounded,
)
from saccade.scenes.author_mesh import boxes_mesh, loft_mesh, quad_mesh, strips_mesh
from saccade.scenes.author_plan import Plan, Thing
from saccade.scenes.author_textures import texture

if TYPE_CHECKING:
    from pxr import Sdf

CARTON_SIZES = ((0.60, 0.40, 0.40), (0.40, 0.40, 0.30), (0.80, 0.60, 0.50), (0.50, 0.35, 0.55))
DECK_HEIGHTS = (0.18, 1.42, 2.62)
"""Where the shelves of a rack are [m]."""


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours and textures of one scene."""

    floor: tuple[str, Color]
    """Kind of texture, colour."""
    wall: tuple[str, Color]
    dado: Color | None
    frame: Color
    beam: Color
    cartons: tuple[Color, ...]
    barrel: Color
    pallet: Color
    door: Color
    line: Color | None = None
    """Markings on the floor along racks."""
    grain: int = 0


@dataclass(slots=True)
class Props:
    """Where props are written, and what they share."""

    world: Sdf.PrimSpec
    looks: Sdf.PrimSpec
    shared: Sdf.PrimSpec
    """Abstract: classes to refer to."""
    folder: Path
    palette: Palette
    rng: random.Random
    cartons: list[tuple[int, tuple[float, float, float], float]] = field(default_factory=list)
    """Prototype, position [m], yaw [rad]."""
    cones: list[tuple[float, float, float]] = field(default_factory=list)
    """x, y [m], yaw [rad]."""
    materials: dict[str, str] = field(default_factory=dict)
    count: int = 0
    rack_fill: float = 0.93
    """See :class:`saccade.scenes.author_plan.Plan`."""

    def look(self, name: str, kind: str, color: Color, *, second: Color | None = None, size: int = 256) -> str:
        """Returns the path of a textured material, made on first use."""
        if name not in self.materials:
            file = texture(self.folder, kind, color, second=second, seed=self.palette.grain, size=size)
            self.materials[name] = material(self.looks, name, texture=file)
        return self.materials[name]


def write_floor(props: Props, plan: Plan) -> None:
    """Writes one textured surface per room, and below it the slab that carries the robot."""
    group = define(props.world, "Floor", "Xform")
    label(group, "floor", "floor")
    kind, color = props.palette.floor
    look = props.look("floor", kind, color)
    grip = physics_material(props.looks, "grip", friction=1.0)
    for k, (x0, y0, x1, y1) in enumerate(_apart(plan.rooms)):
        center = ((x0 + x1) / 2, (y0 + y1) / 2)
        surface = mesh(group, f"surface_{k}", quad_mesh(x1 - x0, y1 - y0, tile=3.0), (*center, 0.0))
        paint(surface, None, look)
        label(surface, "floor", "floor")
    # One slab a little wider than all rooms: feet find no edge on it.
    x0, y0, x1, y1 = plan.bounds
    size = (x1 - x0 + 0.4, y1 - y0 + 0.4, 0.1)
    slab = collider_box(group, "slab", size, ((x0 + x1) / 2, (y0 + y1) / 2, -0.05), physics=grip)
    label(slab, "floor", "floor")


def write_markings(props: Props, plan: Plan) -> None:
    """Paints lines on the floor along the racks, where there is room for them."""
    if props.palette.line is None:
        return
    strips = []
    for thing in plan.things:
        if thing.kind != "rack":
            continue
        for side in (-1.0, 1.0):
            x, y, _ = _placed(thing, 0.0, side * (thing.footprint.half_y + 0.3), 0.0)
            if plan.inside(x, y, 0.1) and plan.clearance(x, y) > 0.2:
                along = abs(math.cos(thing.yaw)) > 0.7
                length = 2 * thing.footprint.half_x
                strips.append((((length, 0.09) if along else (0.09, length)), (x, y)))
    if strips:
        group = props.world.layer.GetPrimAtPath(f"{props.world.path}/Floor")
        marks = mesh(group, "markings", strips_mesh(strips, height=0.002))
        paint(marks, props.palette.line)
        label(marks, "floor", "floor_marking")


def _apart(rooms: list[tuple[float, float, float, float]]) -> list[tuple[float, float, float, float]]:
    """Returns rectangles that cover the same ground without overlap."""
    xs = sorted({v for r in rooms for v in (r[0], r[2])})
    ys = sorted({v for r in rooms for v in (r[1], r[3])})
    found: list[tuple[float, float, float, float]] = []
    for y0, y1 in itertools.pairwise(ys):
        run: tuple[float, float, float, float] | None = None
        for x0, x1 in itertools.pairwise(xs):
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            if any(r[0] < x < r[2] and r[1] < y < r[3] for r in rooms):
                run = (run[0], y0, x1, y1) if run else (x0, y0, x1, y1)
            elif run:
                found.append(run)
                run = None
        if run:
            found.append(run)
    return found


def write_walls(props: Props, plan: Plan) -> None:
    """Writes the walls as textured meshes with a collider for each, and the doors on them."""
    group = define(props.world, "Walls", "Xform")
    label(group, "structure", "wall")
    kind, color = props.palette.wall
    look = props.look("wall", kind, color, second=props.palette.dado)
    height = plan.wall_height
    tile = {"plaster": height, "brick": 1.6, "blocks": 1.6, "metal": 2.0}.get(kind, 2.0)
    for k, (x0, y0, x1, y1) in enumerate(plan.walls):
        size, at = (x1 - x0, y1 - y0, height), ((x0 + x1) / 2, (y0 + y1) / 2, height / 2)
        # One mesh per wall: a single one would fill the whole scene, and every ray would have to look into it.
        wall = mesh(group, f"wall_{k}", boxes_mesh([(size, (0, 0, 0))], tile=tile), at)
        paint(wall, None, look)
        label(wall, "structure", "wall")
        collider_box(group, f"wall_{k}_collider", size, at)
    for k, (what, x, y, yaw, width, wanted) in enumerate(plan.doors):
        tall = min(wanted, height - 0.15)
        color = props.palette.door
        panel = mesh(
            group,
            f"{what}_{k}",
            boxes_mesh([((0.07, width, tall), (0, 0, 0))]),
            (x, y, tall / 2),
            rotate=math.degrees(yaw),
        )
        paint(panel, None, props.look(what, what, color, size=128))
        label(panel, "structure", what)
        frame = boxes_mesh(
            [
                ((0.11, 0.09, tall + 0.09), (0, -width / 2 - 0.045, 0.045)),
                ((0.11, 0.09, tall + 0.09), (0, width / 2 + 0.045, 0.045)),
                ((0.11, width, 0.09), (0, 0, tall / 2 + 0.045)),
            ]
        )
        trim = mesh(group, f"{what}_{k}_frame", frame, (x, y, tall / 2), rotate=math.degrees(yaw))
        paint(trim, (0.25, 0.26, 0.28) if what == "door" else (0.88, 0.72, 0.1))
        label(trim, "structure", what)


def _rack_class(props: Props) -> str:
    """Writes the class of a rack bay: uprights with bracing, beams and shelves."""
    existing = f"{props.shared.path}/rack_bay"
    if props.world.layer.GetPrimAtPath(existing):
        return existing
    bay = define(props.shared, "rack_bay", "Xform", abstract=True)
    width, depth, height = 2.7, 1.1, 3.2
    x, y = width / 2 - 0.05, depth / 2 - 0.05
    posts = [((0.09, 0.07, height), (a * x, b * y, height / 2)) for a in (-1, 1) for b in (-1, 1)]
    posts += [((0.03, depth - 0.1, 0.04), (a * x, 0, z)) for a in (-1, 1) for z in (0.4, 1.0, 1.9, 2.5, 3.1)]
    frame = mesh(bay, "frame", boxes_mesh(posts))
    paint(frame, props.palette.frame)
    label(frame, "structure", "rack")
    bars = [((width - 0.1, 0.05, 0.11), (0, b * y, z - 0.03)) for b in (-1, 1) for z in DECK_HEIGHTS]
    beams = mesh(bay, "beams", boxes_mesh(bars))
    paint(beams, props.palette.beam)
    label(beams, "structure", "rack")
    boards = [((width - 0.1, depth - 0.08, 0.03), (0, 0, z + 0.03)) for z in DECK_HEIGHTS]
    decks = mesh(bay, "decks", boxes_mesh(boards, tile=1.5))
    paint(decks, None, props.look("deck", "wood", (0.68, 0.56, 0.40), size=128))
    label(decks, "structure", "rack")
    collider_box(bay, "collider", (width, depth, height), (0, 0, height / 2))
    return existing


def _rack(props: Props, group: Sdf.PrimSpec, name: str, thing: Thing) -> None:
    spec = define(group, name, translate=(thing.x, thing.y, 0.0), rotate=math.degrees(thing.yaw))
    refer(spec, _rack_class(props))
    label(spec, "structure", "rack")
    rng = random.Random(thing.style)
    for z in DECK_HEIGHTS:
        u = -1.25
        while u < 0.95 and rng.random() < props.rack_fill:
            kind = rng.randrange(len(CARTON_SIZES))
            wide, _, tall = CARTON_SIZES[kind]
            if u + wide > 1.27:
                break
            height = z + 0.045
            layers = 2 if tall < 0.45 and rng.random() < 0.45 else 1
            v = rng.uniform(-0.12, 0.12)
            for layer in range(layers):
                place = _placed(thing, u + wide / 2, v, height + tall * layer)
                props.cartons.append((kind, place, thing.yaw + rng.uniform(-0.05, 0.05)))
            u += wide + rng.choice((0.03, 0.06, 0.3))


def _placed(thing: Thing, u: float, v: float, z: float) -> tuple[float, float, float]:
    cos, sin = math.cos(thing.yaw), math.sin(thing.yaw)
    return (thing.x + cos * u - sin * v, thing.y + sin * u + cos * v, z)


def _column(props: Props, group: Sdf.PrimSpec, name: str, thing: Thing) -> None:
    wide, height = thing.footprint.half_x * 2, thing.footprint.height
    spec = define(group, name, translate=(thing.x, thing.y, 0.0), rotate=math.degrees(thing.yaw))
    label(spec, "structure", "column")
    shaft = box(spec, "shaft", (wide, wide, height), (0, 0, height / 2))
    paint(shaft, (0.62, 0.63, 0.64))
    label(shaft, "structure", "column")
    collide(shaft)
    guard = mesh(spec, "guard", boxes_mesh([((wide + 0.03, wide + 0.03, 1.2), (0, 0, 0.6))], tile=0.9))
    paint(guard, None, props.look("hazard", "hazard", (0.95, 0.78, 0.08), size=128))
    label(guard, "structure", "column")


def _pallet_class(props: Props) -> str:
    existing = f"{props.shared.path}/pallet"
    if props.world.layer.GetPrimAtPath(existing):
        return existing
    bay = define(props.shared, "pallet", "Xform", abstract=True)
    boards: list[tuple[Any, Any]] = [((1.2, 0.1, 0.022), (0, y, 0.133)) for y in (-0.35, -0.175, 0.0, 0.175, 0.35)]
    boards += [((0.1, 0.8, 0.022), (x, 0, 0.111)) for x in (-0.55, 0.0, 0.55)]
    boards += [((0.1, 0.1, 0.078), (x, y, 0.061)) for x in (-0.55, 0.0, 0.55) for y in (-0.35, 0.0, 0.35)]
    boards += [((1.2, 0.1, 0.022), (0, y, 0.011)) for y in (-0.35, 0.0, 0.35)]
    wood = mesh(bay, "wood", boxes_mesh(boards, tile=0.8))
    paint(wood, None, props.look("pallet", "wood", props.palette.pallet, size=128))
    label(wood, "obstacle", "pallet")
    return existing


def _pallet(props: Props, group: Sdf.PrimSpec, name: str, thing: Thing) -> None:
    spec = define(group, name, translate=(thing.x, thing.y, 0.0), rotate=math.degrees(thing.yaw))
    label(spec, "obstacle", "pallet")
    refer(define(spec, "pallet"), _pallet_class(props))
    collider_box(spec, "collider", (1.2, 0.8, 0.144), (0, 0, 0.072))


def _stack(props: Props, group: Sdf.PrimSpec, name: str, thing: Thing) -> None:
    """Writes a pallet with cartons on it."""
    _pallet(props, group, name, thing)
    spec = props.world.layer.GetPrimAtPath(f"{group.path}/{name}")
    rng = random.Random(thing.style)
    kind = rng.choice((0, 1, 0, 2))
    wide, deep, tall = CARTON_SIZES[kind]
    columns, rows, layers = int(1.22 // wide), int(0.82 // deep), rng.randint(1, 3)
    top = 0.145
    for layer in range(layers):
        left_out = rng.randrange(columns * rows + 1) if layer == layers - 1 else -1
        for k in range(columns * rows):
            if k == left_out and columns * rows > 1:
                continue
            u = (k % columns - (columns - 1) / 2) * (wide + 0.01)
            v = (k // columns - (rows - 1) / 2) * (deep + 0.01)
            props.cartons.append((kind, _placed(thing, u, v, top), thing.yaw + rng.uniform(-0.03, 0.03)))
        top += tall
    height = top - 0.144
    collider_box(spec, "load_collider", (columns * wide, rows * deep, height), (0, 0, 0.144 + height / 2))


def _carton(props: Props, group: Sdf.PrimSpec, name: str, thing: Thing) -> None:
    kind = 1 if thing.style % 3 else 3
    wide, deep, tall = CARTON_SIZES[kind]
    spec = define(group, name, translate=(thing.x, thing.y, 0.0), rotate=math.degrees(thing.yaw))
    label(spec, "obstacle", "carton")
    props.cartons.append((kind, (thing.x, thing.y, 0.0), thing.yaw))
    height = tall
    if thing.style % 4 == 0:
        props.cartons.append((1, (thing.x, thing.y, tall), thing.yaw + 0.2))
        height += CARTON_SIZES[1][2]
    collider_box(spec, "collider", (wide, deep, height), (0, 0, height / 2))


def _cone(props: Props, group: Sdf.PrimSpec, name: str, thing: Thing) -> None:
    spec = define(group, name, translate=(thing.x, thing.y, 0.0), rotate=math.degrees(thing.yaw))
    label(spec, "obstacle", "cone")
    props.cones.append((thing.x, thing.y, thing.yaw))
    collider_box(spec, "collider", (0.36, 0.36, 0.05), (0, 0, 0.025))
    collider_rod(spec, "body_collider", "Cylinder", 0.12, 0.65, (0, 0, 0.375))


def _barrel(props: Props, group: Sdf.PrimSpec, name: str, thing: Thing) -> None:
    spec = define(group, name, translate=(thing.x, thing.y, 0.0))
    label(spec, "obstacle", "barrel")
    base = props.palette.barrel
    color = [base, (0.10, 0.27, 0.55), (0.55, 0.13, 0.10), (0.15, 0.40, 0.24)][thing.style % 4]
    body = rod(spec, "body", "Cylinder", 0.285, 0.88, (0, 0, 0.44))
    collide(body)
    shapes = [body]
    shapes += [
        rod(spec, f"hoop_{k}", "Cylinder", 0.298, 0.03, (0, 0, z)) for k, z in enumerate((0.02, 0.30, 0.58, 0.87))
    ]
    for shape in shapes:
        paint(shape, color)
        label(shape, "obstacle", "barrel")
    lid = rod(spec, "lid", "Cylinder", 0.27, 0.012, (0, 0, 0.885))
    paint(lid, tuple(0.75 * c for c in color))  # type: ignore[arg-type]
    label(lid, "obstacle", "barrel")


def _bin(props: Props, group: Sdf.PrimSpec, name: str, thing: Thing) -> None:
    spec = define(group, name, translate=(thing.x, thing.y, 0.0))
    label(spec, "obstacle", "bin")
    color = [(0.20, 0.22, 0.24), (0.16, 0.36, 0.24), (0.18, 0.26, 0.42)][thing.style % 3]
    body = rod(spec, "body", "Cylinder", 0.185, 0.60, (0, 0, 0.30))
    paint(body, color)  # type: ignore[arg-type]
    label(body, "obstacle", "bin")
    collide(body)
    rim = rod(spec, "rim", "Cylinder", 0.198, 0.05, (0, 0, 0.61))
    paint(rim, (0.5, 0.52, 0.54))
    label(rim, "obstacle", "bin")


def _bench(props: Props, group: Sdf.PrimSpec, name: str, thing: Thing) -> None:
    spec = define(group, name, translate=(thing.x, thing.y, 0.0), rotate=math.degrees(thing.yaw))
    label(spec, "obstacle", "bench")
    seat = mesh(spec, "seat", boxes_mesh([((1.3, 0.28, 0.05), (0, 0, 0.425))], tile=0.8))
    paint(seat, None, props.look("pallet", "wood", props.palette.pallet, size=128))
    legs = mesh(spec, "legs", boxes_mesh([((0.06, 0.24, 0.40), (x, 0, 0.20)) for x in (-0.5, 0.5)]))
    paint(legs, (0.22, 0.23, 0.25))
    for shape in (seat, legs):
        label(shape, "obstacle", "bench")
    collider_box(spec, "collider", (1.3, 0.28, 0.45), (0, 0, 0.225))


def _cabinet(props: Props, group: Sdf.PrimSpec, name: str, thing: Thing) -> None:
    spec = define(group, name, translate=(thing.x, thing.y, 0.0), rotate=math.degrees(thing.yaw))
    label(spec, "obstacle", "cabinet")
    color = [(0.58, 0.61, 0.63), (0.35, 0.44, 0.52), (0.62, 0.20, 0.16)][thing.style % 3]
    body = box(spec, "body", (0.9, 0.28, 1.9), (0, 0, 0.95))
    paint(body, color)  # type: ignore[arg-type]
    collide(body)
    leaf = tuple(0.85 * c for c in color)
    trim = [((0.43, 0.296, 1.72), (x, 0, 0.98)) for x in (-0.222, 0.222)]
    doors = mesh(spec, "doors", boxes_mesh(trim))
    paint(doors, leaf)  # type: ignore[arg-type]
    handles = mesh(spec, "handles", boxes_mesh([((0.02, 0.34, 0.16), (x, 0, 1.0)) for x in (-0.05, 0.05)]))
    paint(handles, (0.12, 0.12, 0.13))
    for shape in (body, doors, handles):
        label(shape, "obstacle", "cabinet")


_WRITERS: dict[str, Callable[[Props, Any, str, Thing], None]] = {
    "rack": _rack,
    "column": _column,
    "pallet": _pallet,
    "stack": _stack,
    "carton": _carton,
    "cone": _cone,
    "barrel": _barrel,
    "bin": _bin,
    "bench": _bench,
    "cabinet": _cabinet,
}


def write_things(props: Props, plan: Plan) -> None:
    """Writes everything that stands, then cartons and cones as instances."""
    groups = {}
    for title, kinds in (("Racks", ("rack",)), ("Columns", ("column",)), ("Clutter", tuple(_WRITERS)[2:])):
        groups.update(dict.fromkeys(kinds, title))
    made: dict[str, Sdf.PrimSpec] = {}
    for k, thing in enumerate(plan.things):
        title = groups[thing.kind]
        if title not in made:
            made[title] = define(props.world, title, "Xform")
        _WRITERS[thing.kind](props, made[title], f"{thing.kind}_{k:02d}", thing)
    _instances(props)


def _instances(props: Props) -> None:
    """Writes the PointInstancers of cartons and cones."""
    if props.cartons:
        instancer = define(props.world, "Cartons", "PointInstancer")
        prototypes = define(instancer, "Prototypes", "Scope")
        targets = []
        for k, size in enumerate(CARTON_SIZES):
            color = props.palette.cartons[k % len(props.palette.cartons)]
            mark = ((0.75, 0.15, 0.12), (0.12, 0.3, 0.6), None, (0.1, 0.45, 0.25))[k]
            proto = define(prototypes, f"carton_{k}", "Xform")
            label(proto, "obstacle", "carton")
            skin = mesh(proto, "carton", boxes_mesh([(size, (0, 0, size[2] / 2))]))
            paint(skin, None, props.look(f"carton_{k}", "cardboard", color, second=mark, size=128))
            label(skin, "obstacle", "carton")
            targets.append(str(proto.path))
        kinds, places, yaws = zip(*props.cartons, strict=True)
        _point(instancer, targets, kinds, places, yaws)
    if props.cones:
        instancer = define(props.world, "Cones", "PointInstancer")
        prototypes = define(instancer, "Prototypes", "Scope")
        proto = define(prototypes, "cone", "Xform")
        label(proto, "obstacle", "cone")
        cone = [(0.035, 0, 0, 0.140, 0.140, 2), (0.70, 0, 0, 0.030, 0.030, 2)]
        foot = box(proto, "foot", (0.36, 0.36, 0.035), (0, 0, 0.0175))
        paint(foot, (0.12, 0.12, 0.13))
        body = mesh(proto, "body", loft_mesh(cone, segments=16))
        paint(body, (0.95, 0.36, 0.06))
        bands = [(0.26, 0, 0, 0.106, 0.106, 2), (0.40, 0, 0, 0.083, 0.083, 2)]
        band = mesh(proto, "band", loft_mesh(bands, segments=16))
        paint(band, (0.94, 0.94, 0.93))
        for shape in (foot, body, band):
            label(shape, "obstacle", "cone")
        feet = [(x, y, 0.0) for x, y, _ in props.cones]
        _point(instancer, [str(proto.path)], [0] * len(feet), feet, [yaw for _, _, yaw in props.cones])


def _point(
    instancer: Sdf.PrimSpec, targets: list[str], kinds: Sequence[int], places: Sequence[Any], yaws: Sequence[float]
) -> None:
    from pxr import Gf

    relationship(instancer, "prototypes", targets)
    attribute(instancer, "protoIndices", "int[]", list(kinds))
    attribute(instancer, "positions", "point3f[]", [rounded(place) for place in places])
    turns = [Gf.Quath(round(math.cos(yaw / 2), 4), 0.0, 0.0, round(math.sin(yaw / 2), 4)) for yaw in yaws]
    attribute(instancer, "orientations", "quath[]", turns)
