"""Free poses in an authored scene: where a humanoid can stand, half of them in front of something."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.errors import SceneError
from saccade.scenes.author_plan import Footprint, Rectangle

if TYPE_CHECKING:
    from pxr import Gf, Usd

BODY_RADIUS = 0.45
"""Distance of a pose from every collider [m]."""
NEAR = (0.5, 2.0)
"""Distance from which half of the poses look at something [m]."""
BODY_HEIGHT = (0.02, 1.9)
"""Colliders that lie above or below are no obstacle [m]."""


def free_poses(stage_path: Path | str, count: int, seed: int) -> list[tuple[float, float, float]]:
    """Samples poses at which a humanoid stands free.

    Half of them look at something that is 0.5 to 2 m away, straight or somewhat aside; the others look anywhere.

    Args:
        stage_path: A scene as :func:`author_scene` writes it.
        count: Number of poses.
        seed: Seed of the sampling.

    Returns:
        x, y [m] and heading [rad], at least 0.45 m from every collider but the floor and the humanoid, people and
        vehicles at their places at the start.

    Raises:
        SceneError: There is no free floor, or too little of it.
    """
    rooms, obstacles = free_space(stage_path)
    rng = random.Random(f"poses {seed}")
    if not rooms:
        raise SceneError(f"{stage_path} has no floor: nothing with a collider or a surface is labelled 'floor'")
    poses: list[tuple[float, float, float]] = []
    for _ in range(400 * max(count, 1)):
        if len(poses) == count:
            return poses
        wants_near = len(poses) % 2 == 0
        pose = _facing(obstacles, rng) if wants_near and obstacles else _anywhere(rooms, rng)
        if pose is None or not _is_free(pose[0], pose[1], rooms, obstacles):
            continue
        if wants_near and obstacles and not NEAR[0] <= distance_ahead(pose, obstacles) <= NEAR[1]:
            continue
        poses.append(pose)
    raise SceneError(f"{stage_path}: only {len(poses)} of {count} free poses were found; the scene is too full")


def distance_ahead(pose: tuple[float, float, float], obstacles: list[Footprint], *, half_width: float = 0.3) -> float:
    """Returns how far a walk straight ahead is free, up to 4 m [m]."""
    x, y, yaw = pose
    cos, sin = math.cos(yaw), math.sin(yaw)
    near = [f for f in obstacles if math.hypot(f.x - x, f.y - y) < 4.5 + math.hypot(f.half_x, f.half_y)]
    for k in range(80):
        reach = 0.05 * k
        if any(
            f.distance(x + cos * reach - sin * w, y + sin * reach + cos * w) < 0.03
            for f in near
            for w in (-half_width, 0.0, half_width)
        ):
            return reach
    return 4.0


def free_space(stage_path: Path | str) -> tuple[list[Rectangle], list[Footprint]]:
    """Reads the floor and the colliders of a scene, seen from above.

    Args:
        stage_path: A USD scene in metres with z up.

    Returns:
        Rectangles of floor, and boxes around all colliders at the height of a humanoid.
    """
    from pxr import Usd, UsdGeom, UsdPhysics

    stage = Usd.Stage.Open(str(stage_path))
    every = [UsdGeom.Tokens.default_, UsdGeom.Tokens.render, UsdGeom.Tokens.proxy, UsdGeom.Tokens.guide]
    bounds = UsdGeom.BBoxCache(Usd.TimeCode.Default(), every)
    cache = UsdGeom.XformCache()
    rooms: list[Rectangle] = []
    obstacles: list[Footprint] = []
    walker = iter(Usd.PrimRange(stage.GetPseudoRoot()))
    for prim in walker:
        if prim.HasAPI(UsdPhysics.ArticulationRootAPI) or prim.IsA(UsdGeom.PointInstancer):
            walker.PruneChildren()
            continue
        if not prim.IsA(UsdGeom.Gprim):
            continue
        local = bounds.ComputeUntransformedBound(prim).ComputeAlignedRange()
        matrix = cache.GetLocalToWorldTransform(prim)
        if _is_floor(prim):
            if prim.IsA(UsdGeom.Mesh) or prim.GetAttribute("purpose").Get() != UsdGeom.Tokens.guide:
                low, high = _aligned(local, matrix)
                rooms.append((low[0], low[1], high[0], high[1]))
        elif prim.HasAPI(UsdPhysics.CollisionAPI):
            low, high = _aligned(local, matrix)
            if high[2] > BODY_HEIGHT[0] and low[2] < BODY_HEIGHT[1]:
                obstacles.append(_footprint(local, matrix, high[2]))
    return rooms, obstacles


def _is_floor(prim: Usd.Prim) -> bool:
    attribute = prim.GetAttribute("semantics:labels:class")
    return bool(attribute) and "floor" in (attribute.Get() or [])


def _aligned(local: Gf.Range3d, matrix: Gf.Matrix4d) -> tuple[Gf.Vec3d, Gf.Vec3d]:
    from pxr import Gf

    box = Gf.BBox3d(local, matrix).ComputeAlignedRange()
    return box.GetMin(), box.GetMax()


def _footprint(local: Gf.Range3d, matrix: Gf.Matrix4d, height: float) -> Footprint:
    """Returns the upright box around a shape that is turned about z only, or the box along the axes."""
    from pxr import Gf

    along = matrix.TransformDir(Gf.Vec3d(1, 0, 0))
    up = matrix.TransformDir(Gf.Vec3d(0, 0, 1)).GetNormalized()
    if abs(up[2]) < 0.999:
        low, high = _aligned(local, matrix)
        return Footprint(
            (low[0] + high[0]) / 2, (low[1] + high[1]) / 2, (high[0] - low[0]) / 2, (high[1] - low[1]) / 2, 0.0, height
        )
    center = matrix.Transform(local.GetMidpoint())
    half = local.GetSize() / 2
    across = matrix.TransformDir(Gf.Vec3d(0, 1, 0))
    return Footprint(
        center[0],
        center[1],
        half[0] * along.GetLength(),
        half[1] * across.GetLength(),
        math.atan2(along[1], along[0]),
        height,
    )


def _anywhere(rooms: list[Rectangle], rng: random.Random) -> tuple[float, float, float]:
    x0, y0, x1, y1 = rng.choices(rooms, [(r[2] - r[0]) * (r[3] - r[1]) for r in rooms])[0]
    return (rng.uniform(x0, x1), rng.uniform(y0, y1), rng.uniform(-math.pi, math.pi))


def _facing(obstacles: list[Footprint], rng: random.Random) -> tuple[float, float, float]:
    """Returns a pose in front of an obstacle, looking at it."""
    thing = rng.choice(obstacles)
    corners = thing.corners()
    k, share = rng.randrange(4), rng.random()
    a, b = corners[k], corners[(k + 1) % 4]
    x, y = a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share
    outward = math.atan2(a[0] - b[0], b[1] - a[1]) + rng.uniform(-0.7, 0.7)
    reach = rng.uniform(*NEAR)
    yaw = outward + math.pi + rng.uniform(-0.2, 0.2)
    return (x + reach * math.cos(outward), y + reach * math.sin(outward), math.remainder(yaw, 2 * math.pi))


def _is_free(x: float, y: float, rooms: list[Rectangle], obstacles: list[Footprint]) -> bool:
    if not any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in rooms):
        return False
    return all(f.distance(x, y) >= BODY_RADIUS for f in obstacles)
