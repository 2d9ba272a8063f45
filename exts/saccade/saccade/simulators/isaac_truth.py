"""Ground truth from the stage: is the walking corridor free at the time of a frame; the floor plan for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import warp as wp

from saccade.frame import CLASSES, FLOOR, OBSTACLE, ROBOT, SECTOR_COUNT
from saccade.kernels.rtx import nearest_per_sector
from saccade.scenes.mounts import multiply
from saccade.simulators.newton_plan import PLAN_HEIGHT, hull
from saccade.simulators.newton_truth import (
    AHEAD_FROM,
    CLEARANCE_HEIGHTS,
    CORRIDOR_LENGTH,
    CORRIDOR_TOP,
    CORRIDOR_WIDTH,
    MIN_HEIGHT,
    HostArray,
)

if TYPE_CHECKING:
    from pxr import Usd

    from saccade.scenes.labels import Labels
    from saccade.scenes.movers import Pose


@dataclass(slots=True)
class _Thing:
    path: str
    label: int
    local: np.ndarray
    """Corners of its box in its own frame, shape ``(8, 3)``."""
    moves: bool
    polygon: np.ndarray
    """Footprint in the world [m], counter-clockwise."""
    low: float
    high: float


class CorridorBoxes:
    """Looks into the corridor ahead with the boxes of everything that is drawn.

    A box holds its thing whole: round things and open meshes count as somewhat larger than they are. What physics moves
    freely counts where it was authored, as its pose is not in the stage.

    Args:
        stage: The stage in metres with z up.
        labels: Its labels; what has none is an obstacle, as in the embedded simulator.
        own: Paths of the humanoid's links, which do not count.
        floor_height: Height of the floor [m].
    """

    def __init__(self, stage: Usd.Stage, labels: Labels, own: Sequence[str], floor_height: float) -> None:
        from pxr import Usd, UsdGeom

        self._stage, self._floor = stage, floor_height
        self._cache, self._rate = UsdGeom.XformCache(), stage.GetTimeCodesPerSecond()
        boxes = UsdGeom.BBoxCache(
            Usd.TimeCode.EarliestTime(), [UsdGeom.Tokens.default_, UsdGeom.Tokens.render], useExtentsHint=False
        )
        self._things: list[_Thing] = []
        for prim in Usd.PrimRange(stage.GetPseudoRoot(), Usd.TraverseInstanceProxies(Usd.PrimDefaultPredicate)):
            path = str(prim.GetPath())
            if not prim.IsA(UsdGeom.Gprim) or any(path == link or path.startswith(link + "/") for link in own):
                continue
            imageable = UsdGeom.Imageable(prim)
            if imageable.ComputeVisibility() == UsdGeom.Tokens.invisible or imageable.ComputePurpose() in (
                UsdGeom.Tokens.proxy,
                UsdGeom.Tokens.guide,
            ):
                continue
            bound = boxes.ComputeUntransformedBound(prim).ComputeAlignedRange()
            if bound.IsEmpty():
                continue
            found = labels.class_of(path)
            if found is None and (near := labels.agreed_below(path)):
                found = labels.own[near]
            corners = np.array([tuple(bound.GetCorner(i)) for i in range(8)])
            thing = _Thing(path, OBSTACLE if found is None else found, corners, _moves(prim), corners, 0.0, 0.0)
            self._place(thing, Usd.TimeCode.EarliestTime())
            self._things.append(thing)
        self._moving = [thing for thing in self._things if thing.moves]

    def is_hazard(self, x: float, y: float, heading: float, *, seconds: float) -> bool:
        """Returns whether anything but floor and robot is in the corridor from (x, y) [m] along ``heading`` [rad].

        Args:
            x: Base in the world [m].
            y: Base in the world [m].
            heading: Of the motion [rad].
            seconds: Time of the animation [s].
        """
        self._move_to(seconds)
        cos, sin = math.cos(heading), math.sin(heading)
        axes = np.array([[cos, sin], [-sin, cos]])
        low, high = self._floor + MIN_HEIGHT, self._floor + CORRIDOR_TOP
        for thing in self._things:
            if thing.label in (FLOOR, ROBOT) or thing.high <= low or thing.low >= high:
                continue
            local = (thing.polygon - (x, y)) @ axes.T
            if _overlaps(local, (AHEAD_FROM, CORRIDOR_LENGTH), (-CORRIDOR_WIDTH / 2, CORRIDOR_WIDTH / 2)):
                return True
        return False

    def plan(self, route: list[tuple[float, float]]) -> dict[str, Any]:
        """Returns the floor plan as the record has it: ``bounds``, ``footprints``, ``movers`` and ``route`` [m]."""
        floor = [p for t in self._things if t.label == FLOOR for p in t.polygon.tolist()]
        everything = floor or [p for t in self._things for p in t.polygon.tolist()] or [[0.0, 0.0]]
        xs, ys = [p[0] for p in everything], [p[1] for p in everything]
        footprints = [
            {
                "class": CLASSES[thing.label],
                "kind": "static",
                "label": thing.path.rsplit("/", 1)[-1],
                "polygon": [[round(px, 3), round(py, 3)] for px, py in thing.polygon.tolist()],
            }
            for thing in self._things
            if thing.label != FLOOR and not thing.moves and thing.low <= self._floor + PLAN_HEIGHT
        ]
        return {
            "bounds": [min(xs), min(ys), max(xs), max(ys)],
            "footprints": footprints,
            "movers": [],
            "route": [list(point) for point in route],
        }

    @property
    def counts(self) -> dict[str, int]:
        """Drawn things by class."""
        return {name: sum(thing.label == i for thing in self._things) for i, name in enumerate(CLASSES)}

    def _move_to(self, seconds: float) -> None:
        from pxr import Usd, UsdGeom

        rate = self._stage.GetTimeCodesPerSecond()
        if rate != self._rate:
            # The cache keeps how the scene's time codes map to the stage's, which has changed.
            self._cache, self._rate = UsdGeom.XformCache(), rate
        code = Usd.TimeCode(seconds * rate)
        for thing in self._moving:
            self._place(thing, code)

    def _place(self, thing: _Thing, code: Any) -> None:
        self._cache.SetTime(code)
        matrix = np.array(self._cache.GetLocalToWorldTransform(self._stage.GetPrimAtPath(thing.path)))
        world = thing.local @ matrix[:3, :3] + matrix[3, :3]
        thing.low, thing.high = float(world[:, 2].min()), float(world[:, 2].max())
        thing.polygon = np.array(hull(world[:, :2]))


def _moves(prim: Usd.Prim) -> bool:
    from pxr import UsdGeom

    while prim and not prim.IsPseudoRoot():
        xformable = UsdGeom.Xformable(prim)
        if xformable and xformable.TransformMightBeTimeVarying():
            return True
        prim = prim.GetParent()
    return False


def _overlaps(polygon: np.ndarray, along: tuple[float, float], across: tuple[float, float]) -> bool:
    """Whether a convex polygon and an upright rectangle share an inner point (separating axes)."""
    for axis, (least, most) in enumerate((along, across)):
        if polygon[:, axis].max() <= least or polygon[:, axis].min() >= most:
            return False
    corners = np.array([(u, v) for u in along for v in across])
    edges = np.roll(polygon, -1, axis=0) - polygon
    for edge in edges:
        normal = np.array([-edge[1], edge[0]])
        mine, other = polygon @ normal, corners @ normal
        if mine.max() <= other.min() or mine.min() >= other.max():
            return False
    return True


def clearance_of(
    points: wp.array,
    labels: wp.array | None,
    root: Pose | None,
    on_root: Pose,
    *,
    floor_height: float,
    range_max: float,
) -> list[float]:
    """Returns the clearance [m] by sector of one LiDAR frame, capped at ``range_max`` [m].

    Args:
        points: In the sensor frame [m], shape ``(channels, columns)``, vec3f; the origin = no return.
        labels: Class index per return, same shape, uint8; ``None`` = heights alone tell the floor from the rest.
        root: Pose of the root link in the world; ``None`` for a LiDAR that nothing carries.
        on_root: Sensor frame in the root link's frame, or in the world; links between count as rigid.
        floor_height: Height of the floor [m].
        range_max: [m]
    """
    pose = on_root if root is None else multiply(root, on_root)
    host = HostArray(np.full(SECTOR_COUNT, range_max, dtype=np.float32), wp.float32, points.device)
    heights = (floor_height + CLEARANCE_HEIGHTS[0], floor_height + CLEARANCE_HEIGHTS[1])
    grid = labels if labels is not None else wp.zeros((1, 1), dtype=wp.uint8, device=points.device)
    nearest_per_sector(points, grid, labels is not None, wp.transform(pose[:3], pose[3:]), heights, host.array)
    host.pull()
    return [float(value) for value in host.host]
