"""Where sensors sit: prims found by path or name, and their pose on the body that carries them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saccade.config import CameraConfig, LidarConfig
from saccade.errors import SceneError
from saccade.scenes.movers import Pose, pose_of
from saccade.scenes.stage import up_axis_correction

if TYPE_CHECKING:
    from pxr import Usd, UsdGeom

Quaternion = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class SensorMount:
    """A sensor's place in the scene."""

    body: int
    """Index of the body that carries it; -1 = the world."""
    offset: Pose
    """Sensor frame in the body's frame, or in the world: position [m], quaternion x, y, z, w."""
    camera: UsdGeom.Camera | None
    """Camera prim with the intrinsics, where there is one."""
    prim: str
    """Path of the prim that it was found at."""


def sensor_mount(
    stage: Usd.Stage, name: str, config: CameraConfig | LidarConfig, bodies: Mapping[str, int], *, root: str
) -> SensorMount:
    """Finds where a configured sensor sits.

    Args:
        stage: The stage in metres, z up.
        name: Name of the sensor in the configuration, for messages.
        config: The sensor.
        bodies: Body index by prim path.
        root: Path of the humanoid's root prim.

    Returns:
        The mount. Cameras look along -z with +y up, as in USD; LiDARs along x with z up.

    Raises:
        SceneError: A prim is missing or is no camera; the text lists those that exist, the nearest name first.
    """
    from pxr import UsdGeom

    is_camera = config.kind == "camera"
    if config.mount is not None:
        link = _required_prim(stage, config.mount.link, root, f"sensors.{name}.mount.link", cameras_only=False)
        body, pose = _on_body(stage, link, bodies)
        frame = multiply(pose, (0.0, 0.0, 0.0, *up_axis_correction(stage)))
        frame = multiply(frame, (*config.mount.translation, *_quaternion(*config.mount.rotation)))
        if is_camera:
            # From x forward, z up to a camera's -z forward, +y up.
            frame = multiply(frame, (0.0, 0.0, 0.0, 0.5, -0.5, -0.5, 0.5))
        camera = None
        if is_camera and config.prim is not None:
            prim = _required_prim(stage, config.prim, root, f"sensors.{name}.prim", cameras_only=True)
            camera = UsdGeom.Camera(prim)
        return SensorMount(body, frame, camera, str(link.GetPath()))
    assert config.prim is not None  # the configuration sees to it
    prim = _required_prim(stage, config.prim, root, f"sensors.{name}.prim", cameras_only=is_camera)
    body, pose = _on_body(stage, prim, bodies)
    if is_camera:
        return SensorMount(body, pose, UsdGeom.Camera(prim), str(prim.GetPath()))
    if prim.IsA(UsdGeom.Camera):
        # A LiDAR at a camera's place looks where the camera looks.
        pose = multiply(pose, inverse((0.0, 0.0, 0.0, 0.5, -0.5, -0.5, 0.5)))
    else:
        pose = multiply(pose, (0.0, 0.0, 0.0, *up_axis_correction(stage)))
    return SensorMount(body, pose, None, str(prim.GetPath()))


def find_prim(stage: Usd.Stage, name: str, root: str) -> Usd.Prim | None:
    """Returns a prim by path, by a path below ``root``, or by its name below ``root`` and then anywhere.

    Raises:
        SceneError: Several prims have that name.
    """
    from pxr import Sdf, Usd

    if name.startswith("/"):
        prim = stage.GetPrimAtPath(name) if Sdf.Path.IsValidPathString(name) else None
        return prim if prim else None
    if Sdf.Path.IsValidPathString(f"{root}/{name}"):
        prim = stage.GetPrimAtPath(f"{root}/{name}")
        if prim:
            return prim
    anchor = stage.GetPrimAtPath(root)
    for start in (anchor, stage.GetPseudoRoot()):
        found = [prim for prim in Usd.PrimRange(start, Usd.TraverseInstanceProxies()) if prim.GetName() == name]
        if len(found) > 1:
            paths = ", ".join(str(prim.GetPath()) for prim in found[:6])
            raise SceneError(f"{len(found)} prims are named {name!r}: give the path of one of them: {paths}")
        if found:
            return found[0]
    return None


def nearest_first(wanted: str, names: Iterable[str]) -> list[str]:
    """Returns ``names`` with the one that resembles ``wanted`` most in front."""
    tail = wanted.rsplit("/", 1)[-1].lower()

    def likeness(path: str) -> float:
        whole = difflib.SequenceMatcher(None, wanted.lower(), path.lower()).ratio()
        return max(whole, difflib.SequenceMatcher(None, tail, path.rsplit("/", 1)[-1].lower()).ratio())

    return sorted(names, key=lambda path: (-likeness(path), path))


def multiply(a: Pose, b: Pose) -> Pose:
    """Returns the pose ``b``, given in the frame of pose ``a``, in the frame that ``a`` is given in."""
    rotated = rotate(a[3:], b[:3])
    q = quaternion_product(a[3:], b[3:])
    return (a[0] + rotated[0], a[1] + rotated[1], a[2] + rotated[2], *q)


def inverse(a: Pose) -> Pose:
    """Returns the inverse of a pose."""
    q = (-a[3], -a[4], -a[5], a[6])
    p = rotate(q, a[:3])
    return (-p[0], -p[1], -p[2], *q)


def quaternion_product(a: Quaternion, b: Quaternion) -> Quaternion:
    """Returns the rotation that does ``b`` first, then ``a``; quaternions x, y, z, w."""
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def rotate(q: Quaternion, v: tuple[float, float, float]) -> tuple[float, float, float]:
    """Returns ``v`` rotated by the unit quaternion ``q``."""
    x, y, z, w = q
    tx, ty, tz = 2 * (y * v[2] - z * v[1]), 2 * (z * v[0] - x * v[2]), 2 * (x * v[1] - y * v[0])
    return (
        v[0] + w * tx + y * tz - z * ty,
        v[1] + w * ty + z * tx - x * tz,
        v[2] + w * tz + x * ty - y * tx,
    )


def _quaternion(roll: float, pitch: float, yaw: float) -> Quaternion:
    """Returns the rotation by roll about x, then pitch about y, then yaw about z [degrees]."""
    result: Quaternion = (0.0, 0.0, 0.0, 1.0)
    for angle, axis in ((roll, 0), (pitch, 1), (yaw, 2)):
        half = math.radians(angle) / 2
        single = [0.0, 0.0, 0.0, math.cos(half)]
        single[axis] = math.sin(half)
        result = quaternion_product((single[0], single[1], single[2], single[3]), result)
    return result


def _on_body(stage: Usd.Stage, prim: Usd.Prim, bodies: Mapping[str, int]) -> tuple[int, Pose]:
    """Returns the nearest body at or above a prim and the prim's pose on it."""
    from pxr import UsdGeom

    cache = UsdGeom.XformCache()
    pose = pose_of(cache.GetLocalToWorldTransform(prim))
    carrier = prim
    while carrier and not carrier.IsPseudoRoot():
        index = bodies.get(str(carrier.GetPath()))
        if index is not None:
            body_pose = pose_of(cache.GetLocalToWorldTransform(carrier))
            return index, multiply(inverse(body_pose), pose)
        carrier = carrier.GetParent()
    return -1, pose


def _required_prim(stage: Usd.Stage, name: str, root: str, field: str, *, cameras_only: bool) -> Usd.Prim:
    from pxr import Usd, UsdGeom

    prim = find_prim(stage, name, root)
    if prim is not None and (not cameras_only or prim.IsA(UsdGeom.Camera)):
        return prim
    if cameras_only:
        every = Usd.PrimRange(stage.GetPseudoRoot(), Usd.TraverseInstanceProxies())
        there = [str(p.GetPath()) for p in every if p.IsA(UsdGeom.Camera)]
        kind = "cameras"
    else:
        every = Usd.PrimRange(stage.GetPrimAtPath(root), Usd.TraverseInstanceProxies())
        there = [str(p.GetPath()) for p in every if p.IsA(UsdGeom.Xformable) and not p.IsA(UsdGeom.Gprim)]
        kind = f"prims below {root}"
    listing = nearest_first(name, there)
    shown = ", ".join(listing[:8]) + (f" and {len(listing) - 8} more" if len(listing) > 8 else "")
    what = (
        f"{name!r} is a {prim.GetTypeName() or 'prim without type'}, not a Camera"
        if prim
        else f"there is no prim {name!r}"
    )
    remedy = f"{kind} are: {shown}" if listing else f"the scene has no {kind}; use 'mount' with a link and a pose"
    raise SceneError(f"{field}: {what}; {remedy}")
