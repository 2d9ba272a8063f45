"""Plans of the shipped warehouse and corridor, and random ones of both kinds."""

from __future__ import annotations

import math
import random

from saccade.scenes.author_plan import (
    PATH_CLEARANCE,
    Footprint,
    Plan,
    Point,
    Rectangle,
    Thing,
    Track,
    distance_to_line,
    footprint_of,
    rounded_route,
    scatter,
    shuttle,
    stadium,
    standing,
    track_along,
    walls_around,
)

BAY = (2.7, 1.1, 3.2)
"""Width, depth and height of a rack bay [m]."""

SIZES = {
    "pallet": (1.2, 0.8, 0.144),
    "stack": (1.2, 0.8, 1.1),
    "cone": (0.36, 0.36, 0.7),
    "barrel": (0.6, 0.6, 0.9),
    "bin": (0.4, 0.4, 0.65),
    "bench": (1.3, 0.28, 0.45),
    "cabinet": (0.9, 0.28, 1.9),
    "carton": (0.5, 0.4, 0.4),
    "column": (0.4, 0.4, 4.0),
}
"""Footprint and height of things [m]."""


def _bay(x: float, y: float, yaw: float, style: int) -> Thing:
    return Thing("rack", x, y, yaw, Footprint(x, y, BAY[0] / 2, BAY[1] / 2, yaw, BAY[2]), style)


def _row(x: float, y: float, count: int, style: int, yaw: float = 0.0) -> list[Thing]:
    """Returns bays side by side, starting at the left end of the row."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    offsets = [BAY[0] * (k + 0.5) for k in range(count)]
    return [_bay(round(x + cos * d, 4), round(y + sin * d, 4), yaw, style + k) for k, d in enumerate(offsets)]


def warehouse_plan(seed: int) -> Plan:
    """Returns the shipped warehouse, 22 x 14 m; ``seed`` only moves its clutter."""
    rng = random.Random(f"warehouse {seed}")
    plan = Plan(rooms=[(-11.0, -7.0, 11.0, 7.0)], wall_height=6.2, rack_fill=0.6)
    plan.walls = walls_around(plan.rooms)
    plan.things += _row(-5.4, 0.56, 4, 10) + _row(-5.4, -0.56, 4, 20, 0.0)
    plan.things += _row(-6.9, 6.4, 4, 30) + _row(-3.8, -6.4, 3, 40)
    for x in (-5.75, 5.75):
        plan.things.append(footprint_of("column", x, 0.0, 0.0, (0.4, 0.4, plan.wall_height)))
    plan.route = rounded_route([(6.9, -2.5), (6.9, 2.5), (-7.1, 2.5), (-7.1, -2.5)], 1.3)
    plan.start = (-4.5, -2.5, 0.0)
    plan.route = _from_start(plan.route, plan.start)
    plan.people = [
        track_along(stadium(-1.2, 4.25, 4.6, 0.55), 1.05, phase=0.1),
        track_along(stadium(1.5, -4.25, 4.4, 0.6), 0.9, phase=0.55, reverse=True),
        track_along(stadium(-9.3, 0.3, 3.4, 0.6, math.pi / 2), 0.8, phase=0.3),
        track_along(stadium(6.2, 4.7, 1.0, 0.5), 0.6, phase=0.8),
    ]
    plan.forklifts = [shuttle(9.1, -4.6, 9.1, 2.2, laps=2, phase=0.1)]
    plan.doors = [
        ("shutter", -11.0, 3.9, 0.0, 3.2, 3.4),
        ("shutter", -11.0, -4.2, 0.0, 3.2, 3.4),
        ("shutter", 11.0, -1.4, math.pi, 3.6, 3.6),
        ("door", 8.2, 7.0, -math.pi / 2, 1.0, 2.1),
        ("door", -8.2, -7.0, math.pi / 2, 1.0, 2.1),
    ]
    cones = [(-6.9, 0.62), (-6.9, -0.62), (5.75, 0.95), (5.75, -0.95)]
    cones += [(8.15, 4.6), (9.1, 4.6), (10.05, 4.6), (-2.2, 5.5), (3.4, -5.55)]
    for x, y in cones:
        thing = footprint_of("cone", x, y, 0.0, SIZES["cone"])
        if min(distance_to_line(a, b, plan.route) for a, b in thing.footprint.corners()) > 0.9:
            plan.things.append(thing)
    corners = [
        ("barrel", -10.5, 6.4),
        ("barrel", -9.8, 6.5),
        ("barrel", -10.4, 5.7),
        ("barrel", 10.5, -6.4),
        ("barrel", 9.8, -6.5),
    ]
    for kind, x, y in corners:
        plan.things.append(Thing(kind, x, y, 0.0, Footprint(x, y, 0.3, 0.3, 0.0, 0.9), rng.randrange(1000)))
    for x, y, yaw in ((9.9, 6.2, 0.1), (10.2, 5.25, 1.5), (-7.6, -6.3, 0.05), (-9.9, -6.2, -0.08), (6.4, 6.35, 0.0)):
        size = SIZES["stack"]
        plan.things.append(
            Thing("stack", x, y, yaw, Footprint(x, y, size[0] / 2, size[1] / 2, yaw, size[2]), rng.randrange(10**6))
        )
    scatter(plan, rng, "pallet", 3, SIZES["pallet"], near=0.6)
    scatter(plan, rng, "carton", 5, SIZES["carton"], near=0.8)
    scatter(plan, rng, "cone", 2, SIZES["cone"])
    for kind, x, y, yaw in (
        ("carton", -1.0, -2.78, 0.3),
        ("cone", 2.0, -2.66, 0.0),
        ("barrel", 4.9, -2.85, 0.0),
        ("cone", 7.12, 1.0, 0.0),
        ("carton", 4.4, 2.80, -0.4),
        ("cone", 1.4, 2.68, 0.0),
        ("bin", -1.8, 2.74, 0.0),
        ("carton", -5.0, 2.78, 0.2),
    ):
        plan.obstruct(kind, x, y, yaw, SIZES[kind])
    return plan


def corridor_plan(seed: int) -> Plan:
    """Returns the shipped corridor: 18 m, an L turn, two niches and a lobby at either end."""
    rng = random.Random(f"corridor {seed}")
    rooms: list[Rectangle] = [
        (0.0, -1.5, 18.0, 1.5),
        (15.0, -1.5, 18.0, 9.0),
        (-4.5, -2.7, 0.5, 2.7),
        (13.8, 8.5, 19.2, 13.0),
        (3.0, -4.9, 7.0, -1.5),
        (9.0, 1.5, 13.0, 4.8),
    ]
    plan = Plan(rooms=rooms, wall_height=2.9)
    plan.walls = walls_around(rooms)
    loop = [(-2.6, -0.95), (0.6, -0.32), (16.82, -0.32), (16.82, 9.2), (17.5, 11.3), (15.5, 11.3), (16.18, 9.2)]
    plan.route = rounded_route([*loop, (16.18, 0.32), (0.6, 0.32), (-2.6, 0.95)], 0.6)
    plan.start = (0.6, -0.32, 0.0)
    plan.route = _from_start(plan.route, plan.start)
    plan.people = [
        track_along(stadium(5.0, -3.0, 1.35, 0.7), 0.7, phase=0.2),
        track_along(stadium(11.0, 2.9, 1.4, 0.65), 0.6, phase=0.6, reverse=True),
    ]
    plan.doors = [
        ("door", 1.8, 1.5, -math.pi / 2, 1.0, 2.1),
        ("door", 6.3, 1.5, -math.pi / 2, 1.0, 2.1),
        ("door", 10.6, -1.5, math.pi / 2, 1.0, 2.1),
        ("door", 13.4, -1.5, math.pi / 2, 1.0, 2.1),
        ("door", 18.0, 4.2, math.pi, 1.0, 2.1),
        ("door", 15.0, 6.6, 0.0, 1.0, 2.1),
        ("door", -4.5, 0.0, 0.0, 1.6, 2.2),
        ("door", 16.5, 13.0, -math.pi / 2, 1.8, 2.2),
    ]
    for kind, x, y, yaw in (
        ("cabinet", -2.0, 2.5, 0.0), ("bench", -2.2, -2.5, 0.0), ("bin", -4.15, 2.4, 0.0), ("bin", 0.2, 2.4, 0.0),
        ("bench", 4.4, -4.7, 0.0), ("cabinet", 6.2, -4.7, 0.0), ("barrel", 9.5, 4.3, 0.0), ("carton", 12.4, 4.4, 0.2),
        ("carton", 11.8, 4.45, -0.1), ("cabinet", 14.0, 10.2, math.pi / 2), ("bench", 19.0, 10.4, math.pi / 2),
        ("cone", 18.9, 12.6, 0.0), ("cone", 14.1, 12.6, 0.0), ("cone", 14.1, 8.9, 0.0), ("stack", 18.4, 9.2, 0.1),
        ("bin", 8.6, -1.3, 0.0), ("cone", 13.3, 1.28, 0.0),
    ):  # fmt: skip
        size = SIZES[kind]
        thing = Thing(kind, x, y, yaw, Footprint(x, y, size[0] / 2, size[1] / 2, yaw, size[2]), rng.randrange(10**6))
        plan.things.append(thing)
    # Only what leaves the robot its way stays.
    plan.things = [
        t for t in plan.things
        if all(t.footprint.distance(x, y) >= 0.92 for x, y in _densely(plan.route))
        and all(t.footprint.distance(*p) >= PATH_CLEARANCE - 0.1 for track in plan.people for p in track.positions)
    ]  # fmt: skip
    for kind, x, y in (("cone", 3.6, -0.55), ("carton", 7.6, -0.66), ("barrel", 11.4, -0.75), ("cone", 17.1, 3.0)):
        plan.obstruct(kind, x, y, 0.0, SIZES[kind])
    return plan


def _from_start(route: list[Point], start: tuple[float, float, float]) -> list[Point]:
    """Returns a closed route that begins with the first waypoint ahead of the start."""
    x, y, yaw = start
    ahead = [math.cos(yaw) * (px - x) + math.sin(yaw) * (py - y) for px, py in route]
    first = min((k for k, d in enumerate(ahead) if d > 0.3), key=lambda k: math.dist(route[k], (x, y)))
    return route[first:] + route[:first]


def random_plan(seed: int) -> Plan:
    """Returns a random warehouse or corridor."""
    rng = random.Random(f"random {seed}")
    for _ in range(20):
        plan = _random_warehouse(rng) if rng.random() < 0.6 else _random_corridor(rng)
        start = _free_start(plan, rng)
        if start is not None:
            plan.start = start
            return plan
    raise RuntimeError(f"no free start was found for seed {seed}")


def _random_warehouse(rng: random.Random) -> Plan:
    width, depth = rng.uniform(9.0, 19.0), rng.uniform(7.5, 14.0)
    plan = Plan(rooms=[(-width / 2, -depth / 2, width / 2, depth / 2)], wall_height=rng.uniform(2.8, 5.0))
    if rng.random() < 0.3:
        # An annexe makes the hall less of a box.
        x = rng.uniform(-width / 3, width / 3)
        plan.rooms.append((x - 1.6, depth / 2, x + 1.6, depth / 2 + rng.uniform(1.5, 4.0)))
    plan.walls = walls_around(plan.rooms)
    style = rng.randrange(10**6)
    y = -depth / 2 + 0.6
    while y < depth / 2 - 0.6:
        at_wall = y < -depth / 2 + 1 or y > depth / 2 - 1.3
        bays = int((width - (0.6 if at_wall else rng.uniform(3.5, 6.0))) // BAY[0])
        if bays > 0 and rng.random() < 0.75:
            bays = rng.randint(max(1, bays - 3), bays)
            x = rng.uniform(-width / 2 + 0.2, width / 2 - 0.2 - bays * BAY[0])
            plan.things += [
                thing for thing in _row(x, y, bays, style)
                if rng.random() < 0.9 and len(plan.rooms) * abs(thing.y - depth / 2) > 1.4 * (len(plan.rooms) - 1)
            ]  # fmt: skip
        y += rng.uniform(2.6, 4.6)
        if abs(y - (depth / 2 - 0.6)) < 1.6:
            y = depth / 2 - 0.6
            if rng.random() < 0.5:
                break
    for _ in range(rng.randint(0, 4)):
        x, y = rng.uniform(-width / 2 + 0.8, width / 2 - 0.8), rng.uniform(-depth / 2 + 0.8, depth / 2 - 0.8)
        side = rng.uniform(0.3, 0.55)
        thing = footprint_of("column", x, y, 0.0, (side, side, plan.wall_height))
        if all(other.distance(x, y) > 0.9 for other in plan.footprints()):
            plan.things.append(thing)
    _random_people(plan, rng, rng.randint(1, 5))
    if rng.random() < 0.6:
        _random_forklift(plan, rng)
    density = rng.uniform(0.5, 1.6)
    clutter = (
        ("stack", 5, 0.4), ("pallet", 3, 0.3), ("barrel", 5, 0.5), ("carton", 7, 0.4), ("cone", 7, 0.2),
        ("bin", 2, 0.8),
    )  # fmt: skip
    for kind, most, near in clutter:
        scatter(plan, rng, kind, round(rng.randint(0, most) * density), SIZES[kind], near=near)
    _random_doors(plan, rng, "shutter")
    return plan


def _random_corridor(rng: random.Random) -> Plan:
    length, half = rng.uniform(9.0, 18.0), rng.uniform(1.05, 1.7)
    rooms: list[Rectangle] = [(0.0, -half, length, half)]
    if rng.random() < 0.7:
        reach, side = rng.uniform(4.0, 8.0), rng.choice((-1, 1))
        x0 = length - 2 * half if rng.random() < 0.6 else rng.uniform(2.0, length - 2 * half)
        low, high = sorted((-side * half, side * (half + reach)))
        rooms.append((x0, low, x0 + 2 * half, high))
    for _ in range(rng.randint(1, 3)):
        x0, wide, deep = rng.uniform(0.5, length - 3.5), rng.uniform(1.6, 3.4), rng.uniform(0.8, 3.0)
        low, high = (half, half + deep) if rng.random() < 0.5 else (-half - deep, -half)
        rooms.append((x0, low, x0 + wide, high))
    if rng.random() < 0.6:
        rooms.append((-rng.uniform(2.5, 4.0), -rng.uniform(1.8, 3.0), 0.4, rng.uniform(1.8, 3.0)))
    rooms = [tuple(round(v, 2) for v in room) for room in rooms]  # type: ignore[misc]
    plan = Plan(rooms=rooms, wall_height=rng.uniform(2.5, 3.4))
    plan.walls = walls_around(rooms)
    _random_people(plan, rng, rng.randint(1, 3))
    density = rng.uniform(0.5, 1.5)
    clutter = (
        ("cabinet", 3, 1.0), ("bench", 3, 1.0), ("bin", 3, 0.9), ("carton", 5, 0.7), ("cone", 4, 0.3),
        ("barrel", 2, 0.8), ("stack", 1, 0.8),
    )  # fmt: skip
    for kind, most, near in clutter:
        scatter(plan, rng, kind, round(rng.randint(0, most) * density), SIZES[kind], near=near)
    _random_doors(plan, rng, "door")
    return plan


def _random_people(plan: Plan, rng: random.Random, count: int) -> None:
    for _ in range(count * 30):
        if len(plan.people) >= count:
            return
        x0, y0, x1, y1 = rng.choice(plan.rooms)
        x, y = rng.uniform(x0, x1), rng.uniform(y0, y1)
        if rng.random() < 0.25:
            track = standing(x, y, rng.uniform(-math.pi, math.pi))
        else:
            yaw = rng.choice((0.0, math.pi / 2, rng.uniform(0, math.pi)))
            points = stadium(x, y, rng.uniform(0.6, 4.0), rng.uniform(0.4, 1.0), yaw)
            track = track_along(points, rng.uniform(0.5, 1.25), phase=rng.random(), reverse=rng.random() < 0.5)
        if _track_is_free(plan, track, 0.5):
            plan.people.append(track)


def _random_forklift(plan: Plan, rng: random.Random) -> None:
    for _ in range(40):
        x0, y0, x1, y1 = plan.rooms[0]
        x, y, yaw = rng.uniform(x0, x1), rng.uniform(y0, y1), rng.choice((0.0, math.pi / 2, math.pi, -math.pi / 2))
        reach = rng.uniform(0.6, 3.0)
        dx, dy = reach * math.cos(yaw), reach * math.sin(yaw)
        track = shuttle(x - dx, y - dy, x + dx, y + dy, laps=rng.randint(1, 2), phase=rng.random())
        if _track_is_free(plan, track, 1.75):
            plan.forklifts.append(track)
            return


def _track_is_free(plan: Plan, track: Track, clearance: float) -> bool:
    tracks = [*plan.people, *plan.forklifts]
    if not all(
        plan.clearance(x, y) >= clearance and all(other.distance(x, y) > clearance + 0.5 for other in tracks)
        for x, y in track.positions[:: max(1, len(track.positions) // 48)]
    ):
        return False
    # Between those that were looked at in full a corner may reach out.
    return all(plan.clearance(x, y) > clearance / 2 for x, y in track.positions)


def _random_doors(plan: Plan, rng: random.Random, kind: str) -> None:
    width, height = (3.0, 2.7) if kind == "shutter" else (1.0, 2.1)
    for x0, y0, x1, y1 in plan.walls:
        along_x = x1 - x0 > y1 - y0
        length = max(x1 - x0, y1 - y0)
        if length < width + 1.2 or rng.random() < 0.4:
            continue
        at = rng.uniform(width / 2 + 0.5, length - width / 2 - 0.5)
        x, y = (x0 + at, (y0 + y1) / 2) if along_x else ((x0 + x1) / 2, y0 + at)
        half = (y1 - y0) / 2 if along_x else (x1 - x0) / 2
        for yaw in (0.0, math.pi / 2, math.pi, -math.pi / 2):
            dx, dy = math.cos(yaw), math.sin(yaw)
            if abs(dy if along_x else dx) < 0.5:
                continue
            if plan.inside(x + dx * (half + 0.1), y + dy * (half + 0.1)):
                plan.doors.append((kind, x + dx * half, y + dy * half, yaw, width, height))
                break


def _free_start(plan: Plan, rng: random.Random) -> tuple[float, float, float] | None:
    """Returns a pose with at least 3 m free ahead."""
    obstacles = [*plan.footprints(), *[Footprint(*t.positions[0], 0.5, 0.5) for t in plan.people]]
    obstacles += [Footprint(*t.positions[0], 1.4, 1.4) for t in plan.forklifts]
    for _ in range(300):
        x0, y0, x1, y1 = rng.choice(plan.rooms)
        x, y, yaw = rng.uniform(x0, x1), rng.uniform(y0, y1), rng.uniform(-math.pi, math.pi)
        ahead = [(x + 0.4 * k * math.cos(yaw), y + 0.4 * k * math.sin(yaw)) for k in range(9)]
        if all(plan.inside(*p) and min(f.distance(*p) for f in obstacles) > 0.55 for p in ahead):
            return (round(x, 3), round(y, 3), round(yaw, 4))
    return None


def _densely(route: list[Point]) -> list[Point]:
    points = []
    for a, b in zip(route, [*route[1:], route[0]], strict=True):
        steps = max(1, math.ceil(math.dist(a, b) / 0.1))
        points += [(a[0] + (b[0] - a[0]) * k / steps, a[1] + (b[1] - a[1]) * k / steps) for k in range(steps)]
    return points
