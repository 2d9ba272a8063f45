"""The plan of a scene before it is written: free space, footprints, clutter, paths and route, as plain numbers."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Point = tuple[float, float]
Color = tuple[float, float, float]
Rectangle = tuple[float, float, float, float]
"""x0, y0, x1, y1 [m]."""

PERIOD = 48.0
"""Every path repeats after this time [s]."""
KEY_INTERVAL = 0.25
"""Time between keyframes [s]."""
WALL_THICKNESS = 0.16
ROUTE_CLEARANCE = 0.95
"""Distance of everything static from the route [m]."""
PATH_CLEARANCE = 0.5
"""Distance of everything static from the path of a person [m]."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """An upright box seen from above."""

    x: float
    y: float
    half_x: float
    half_y: float
    yaw: float = 0.0
    """[rad]"""
    height: float = 2.0

    def distance(self, x: float, y: float) -> float:
        """Returns the distance of a point from the box [m], 0 inside."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        dx, dy = x - self.x, y - self.y
        u, v = abs(cos * dx + sin * dy) - self.half_x, abs(cos * dy - sin * dx) - self.half_y
        return math.hypot(max(u, 0.0), max(v, 0.0))

    def corners(self) -> list[Point]:
        """Returns its corners, counter-clockwise."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        local = [(a * self.half_x, b * self.half_y) for a, b in signs]
        return [(self.x + cos * u - sin * v, self.y + sin * u + cos * v) for u, v in local]


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that stands in the scene."""

    kind: str
    """``rack``, ``column``, ``pallet``, ``cone``, ``barrel``, ``bin``, ``bench``, ``cabinet`` or ``carton``."""
    x: float
    y: float
    yaw: float
    """[rad]"""
    footprint: Footprint
    style: int = 0
    """Number from which a prop takes its own variations."""


@dataclass(frozen=True, slots=True)
class Track:
    """A closed way with its keyframes; a single keyframe stands still."""

    times: list[float]
    positions: list[Point]
    yaws: list[float]
    """Continuous [rad]."""

    def distance(self, x: float, y: float) -> float:
        """Returns the least distance of the way from a point [m]."""
        return min(math.hypot(px - x, py - y) for px, py in self.positions)


@dataclass(slots=True)
class Plan:
    """Everything that a scene consists of, but for its looks."""

    rooms: list[Rectangle]
    """The free space is their union."""
    start: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Humanoid: x, y [m], yaw [rad]."""
    route: list[Point] = field(default_factory=list)
    walls: list[Rectangle] = field(default_factory=list)
    wall_height: float = 4.0
    things: list[Thing] = field(default_factory=list)
    people: list[Track] = field(default_factory=list)
    forklifts: list[Track] = field(default_factory=list)
    doors: list[tuple[str, float, float, float, float, float]] = field(default_factory=list)
    """Kind, x, y, yaw [rad], width, height [m]; they lie on walls."""
    bays_deep: float = 1.1
    rack_fill: float = 0.93
    """How likely the next place of a shelf is taken by a carton; a shelf ends at the first free one."""
    obstructions: list[Point] = field(default_factory=list)
    """Places of the things that stand in the robot's way on purpose; they are also in :attr:`things`."""

    def obstruct(self, kind: str, x: float, y: float, yaw: float, size: tuple[float, float, float]) -> None:
        """Puts a thing half into the route: whoever follows it has to see the thing and walk around."""
        self.things.append(footprint_of(kind, x, y, yaw, size))
        self.obstructions.append((x, y))

    @property
    def bounds(self) -> Rectangle:
        """Returns the box around all rooms."""
        return (
            min(r[0] for r in self.rooms),
            min(r[1] for r in self.rooms),
            max(r[2] for r in self.rooms),
            max(r[3] for r in self.rooms),
        )

    def footprints(self) -> list[Footprint]:
        """Returns all that is static: walls and things."""
        walls = [
            Footprint((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2, 0.0, self.wall_height)
            for x0, y0, x1, y1 in self.walls
        ]
        return walls + [thing.footprint for thing in self.things]

    def inside(self, x: float, y: float, margin: float = 0.0) -> bool:
        """Says whether a point lies in a room, at least ``margin`` [m] from its edge."""
        return any(x0 + margin <= x <= x1 - margin and y0 + margin <= y <= y1 - margin for x0, y0, x1, y1 in self.rooms)

    def clearance(self, x: float, y: float) -> float:
        """Returns the distance of a point to the nearest static thing [m]; 0 outside the rooms."""
        if not self.inside(x, y):
            return 0.0
        return min((f.distance(x, y) for f in self.footprints()), default=math.inf)


def footprint_of(kind: str, x: float, y: float, yaw: float, size: tuple[float, float, float]) -> Thing:
    """Returns a thing whose footprint is a box of ``size`` [m] around its place."""
    return Thing(kind, x, y, yaw, Footprint(x, y, size[0] / 2, size[1] / 2, yaw, size[2]))


def walls_around(rooms: Sequence[Rectangle]) -> list[Rectangle]:
    """Returns walls along the edge of a union of rectangles, outside of it."""
    xs = sorted({v for r in rooms for v in (r[0], r[2])})
    ys = sorted({v for r in rooms for v in (r[1], r[3])})

    def free(i: int, j: int) -> bool:
        if not (0 <= i < len(xs) - 1 and 0 <= j < len(ys) - 1):
            return False
        x, y = (xs[i] + xs[i + 1]) / 2, (ys[j] + ys[j + 1]) / 2
        return any(r[0] < x < r[2] and r[1] < y < r[3] for r in rooms)

    t = WALL_THICKNESS
    found: list[Rectangle] = []
    for i in range(len(xs)):
        for side in (-1, 1):
            runs = [
                (ys[j], ys[j + 1])
                for j in range(len(ys) - 1)
                if free(i - (side < 0), j) and not free(i - (side > 0), j)
            ]
            # A wall to the left of free space lies further left, and so on.
            for low, high in _merged(runs):
                x0, x1 = (xs[i], xs[i] + t) if side < 0 else (xs[i] - t, xs[i])
                found.append((x0, low - t, x1, high + t))
    for j in range(len(ys)):
        for side in (-1, 1):
            runs = [
                (xs[i], xs[i + 1])
                for i in range(len(xs) - 1)
                if free(i, j - (side < 0)) and not free(i, j - (side > 0))
            ]
            for low, high in _merged(runs):
                y0, y1 = (ys[j], ys[j] + t) if side < 0 else (ys[j] - t, ys[j])
                found.append((low, y0, high, y1))
    return [_trimmed(wall, rooms) for wall in found]


def _trimmed(wall: Rectangle, rooms: Sequence[Rectangle]) -> Rectangle:
    """Takes back the ends of a wall that reach into a room at an inner corner."""
    x0, y0, x1, y1 = wall
    t = WALL_THICKNESS
    x = (x0 + x1) / 2
    for r in rooms:
        if r[0] < x < r[2]:
            if r[1] < y0 + t / 2 < r[3]:
                y0 += t
            if r[1] < y1 - t / 2 < r[3]:
                y1 -= t
    return (x0, y0, x1, y1)


def _merged(runs: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for low, high in sorted(runs):
        if merged and abs(merged[-1][1] - low) < 1e-9:
            merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return merged


def track_along(points: Sequence[Point], speed: float, *, phase: float = 0.0, reverse: bool = False) -> Track:
    """Returns a closed way at constant speed that repeats after :data:`PERIOD`.

    Args:
        points: Closed polygon, dense.
        speed: Wanted speed [m/s]; the nearest that gives whole laps in the period is taken.
        phase: Share of the way at which it starts.
        reverse: Goes the other way round.
    """
    ring = list(reversed(points)) if reverse else list(points)
    ring.append(ring[0])
    lengths = [0.0]
    for a, b in itertools.pairwise(ring):
        lengths.append(lengths[-1] + math.dist(a, b))
    total = lengths[-1]
    laps = max(1, round(speed * PERIOD / total))
    count = round(PERIOD / KEY_INTERVAL)

    def at(s: float) -> Point:
        s = s % total
        low, high = 0, len(lengths) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if lengths[middle] <= s else (low, middle)
        share = (s - lengths[low]) / max(lengths[high] - lengths[low], 1e-12)
        return (
            ring[low][0] + (ring[high][0] - ring[low][0]) * share,
            ring[low][1] + (ring[high][1] - ring[low][1]) * share,
        )

    times: list[float] = []
    positions: list[Point] = []
    yaws: list[float] = []
    for k in range(count + 1):
        s = (phase + laps * k / count) * total
        behind, ahead = at(s - 0.06), at(s + 0.06)
        yaw = math.atan2(ahead[1] - behind[1], ahead[0] - behind[0])
        if yaws:
            yaw = yaws[-1] + math.remainder(yaw - yaws[-1], 2 * math.pi)
        times.append(k * KEY_INTERVAL)
        positions.append(at(s))
        yaws.append(yaw)
    return Track(times, positions, yaws)


def standing(x: float, y: float, yaw: float) -> Track:
    """Returns the track of somebody who stands still."""
    return Track([0.0], [(x, y)], [yaw])


def shuttle(x0: float, y0: float, x1: float, y1: float, *, laps: int, phase: float = 0.0) -> Track:
    """Returns a way that goes forward from one point to the other and back in reverse, easing in and out."""
    yaw = math.atan2(y1 - y0, x1 - x0)
    count = round(PERIOD / KEY_INTERVAL)
    times, positions = [], []
    for k in range(count + 1):
        share = 0.5 - 0.5 * math.cos(2 * math.pi * (laps * k / count + phase))
        times.append(k * KEY_INTERVAL)
        positions.append((x0 + (x1 - x0) * share, y0 + (y1 - y0) * share))
    return Track(times, positions, [yaw] * (count + 1))


def stadium(x: float, y: float, half_length: float, radius: float, yaw: float = 0.0) -> list[Point]:
    """Returns a closed way of two straights and two half circles around a point."""
    straight = max(half_length - radius, 0.0)
    points = []
    for k in range(25):
        angle = -math.pi / 2 + math.pi * k / 24
        points.append((straight + radius * math.cos(angle), radius * math.sin(angle)))
    points += [(-u, -v) for u, v in points]
    dense: list[Point] = []
    for a, b in zip(points, [*points[1:], points[0]], strict=True):
        steps = max(1, int(math.dist(a, b) / 0.1))
        dense += [(a[0] + (b[0] - a[0]) * k / steps, a[1] + (b[1] - a[1]) * k / steps) for k in range(steps)]
    cos, sin = math.cos(yaw), math.sin(yaw)
    return [(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in dense]


def rounded_route(corners: Sequence[Point], radius: float) -> list[Point]:
    """Returns a closed route along a polygon whose corners are rounded off, waypoints about 1 m apart."""
    count = len(corners)
    route: list[Point] = []
    for k in range(count):
        before, here, after = corners[k - 1], corners[k], corners[(k + 1) % count]
        reach = min(radius, math.dist(before, here) / 2.01, math.dist(here, after) / 2.01)
        a, b = _towards(here, before, reach), _towards(here, after, reach)
        bend = [_bezier(a, here, b, t) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
        if route:
            steps = int(math.dist(route[-1], bend[0]) // 1.2)
            route += [_between(route[-1], bend[0], (i + 1) / (steps + 1)) for i in range(steps)][:steps]
        route += bend
    steps = int(math.dist(route[-1], route[0]) // 1.2)
    last, first = route[-1], route[0]
    route += [_between(last, first, (i + 1) / (steps + 1)) for i in range(steps)]
    return [(round(x, 3), round(y, 3)) for x, y in route]


def _towards(a: Point, b: Point, distance: float) -> Point:
    return _between(a, b, distance / max(math.dist(a, b), 1e-9))


def _between(a: Point, b: Point, share: float) -> Point:
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share)


def _bezier(a: Point, b: Point, c: Point, t: float) -> Point:
    return _between(_between(a, b, t), _between(b, c, t), t)


def distance_to_line(x: float, y: float, line: Sequence[Point]) -> float:
    """Returns the distance of a point from a closed polyline [m]; infinite for an empty one."""
    best = math.inf
    for a, b in zip(line, [*line[1:], *line[:1]], strict=True):
        dx, dy = b[0] - a[0], b[1] - a[1]
        square = dx * dx + dy * dy
        t = 0.0 if square < 1e-12 else min(max(((x - a[0]) * dx + (y - a[1]) * dy) / square, 0.0), 1.0)
        best = min(best, math.hypot(x - a[0] - t * dx, y - a[1] - t * dy))
    return best


def fits(plan: Plan, footprint: Footprint, *, gap: float = 0.05) -> bool:
    """Says whether something may stand there: in a room, apart from all else, off the route and the paths."""
    probes = _probes(footprint)
    if not all(plan.inside(x, y) for x, y in probes):
        return False
    if any(distance_to_line(x, y, plan.route) < ROUTE_CLEARANCE for x, y in probes):
        return False
    for track in plan.people:
        if any(footprint.distance(*p) < PATH_CLEARANCE for p in track.positions[::2]):
            return False
    for track in plan.forklifts:
        if any(footprint.distance(*p) < 1.9 for p in track.positions[::2]):
            return False
    x, y, yaw = plan.start
    for k in range(8):
        ahead = 0.45 * k
        if footprint.distance(x + ahead * math.cos(yaw), y + ahead * math.sin(yaw)) < 0.75:
            return False
    for other in plan.footprints():
        if any(other.distance(px, py) < gap for px, py in probes):
            return False
        if any(footprint.distance(px, py) < gap for px, py in _probes(other)):
            return False
    return True


def _probes(footprint: Footprint) -> list[Point]:
    """Returns points along the edge of a footprint, and its centre."""
    corners = footprint.corners()
    points = [(footprint.x, footprint.y)]
    for a, b in zip(corners, [*corners[1:], corners[0]], strict=True):
        steps = max(1, math.ceil(math.dist(a, b) / 0.4))
        points += [_between(a, b, k / steps) for k in range(steps)]
    return points


def scatter(
    plan: Plan, rng: random.Random, kind: str, count: int, size: tuple[float, float, float], *, near: float = 0.0
) -> int:
    """Adds up to ``count`` things of one kind at random free places.

    Args:
        plan: Changed in place.
        rng: Source of chance.
        kind: Kind of thing.
        count: How many are wanted.
        size: Of its footprint and its height [m].
        near: Share that is put within 1 m of something that stands already.

    Returns:
        How many found a place.
    """
    added = 0
    for _ in range(count * 12):
        if added == count:
            break
        x0, y0, x1, y1 = rng.choice(plan.rooms)
        x, y = rng.uniform(x0, x1), rng.uniform(y0, y1)
        if rng.random() < near and not 0.2 < plan.clearance(x, y) - max(size[:2]) / 2 < 0.6:
            continue
        yaw = (
            rng.choice((0.0, math.pi / 2)) + rng.uniform(-0.2, 0.2)
            if rng.random() < 0.75
            else rng.uniform(0, 2 * math.pi)
        )
        thing = footprint_of(kind, x, y, yaw, size)
        if fits(plan, thing.footprint):
            plan.things.append(
                Thing(kind, round(x, 3), round(y, 3), round(yaw, 3), thing.footprint, rng.randrange(1_000_000))
            )
            added += 1
    return added
