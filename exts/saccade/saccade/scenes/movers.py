"""People and vehicles that move along time-sampled transforms, whatever the robot does."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pxr import Gf, Usd

Pose = tuple[float, float, float, float, float, float, float]
"""Position [m] and quaternion x, y, z, w in the world."""


@dataclass(slots=True)
class Mover:
    """One body on rails: poses at times, repeated for ever."""

    path: str
    times: list[float]
    """[s] from the start of the stage's time range, ascending."""
    poses: list[Pose]
    period: float
    """Length of the loop [s]."""
    _cursor: int = field(default=0, repr=False)

    def pose_into(self, time: float, out: list[float]) -> None:
        """Writes the pose at ``time`` [s] into ``out``: position [m], quaternion x, y, z, w."""
        times, poses = self.times, self.poses
        t = math.fmod(time, self.period) if self.period > 0 else 0.0
        if t <= times[0] or len(times) == 1:
            out[:] = poses[0]
            return
        if t >= times[-1]:
            out[:] = poses[-1]
            return
        k = bisect_right(times, t) - 1
        share = (t - times[k]) / (times[k + 1] - times[k])
        interpolate(poses[k], poses[k + 1], share, out)


def interpolate(first: Pose, second: Pose, share: float, out: list[float]) -> None:
    """Writes the pose between two poses into ``out``: linear position, spherical rotation."""
    for i in (0, 1, 2):
        out[i] = first[i] + (second[i] - first[i]) * share
    dot = first[3] * second[3] + first[4] * second[4] + first[5] * second[5] + first[6] * second[6]
    flip = -1.0 if dot < 0 else 1.0
    dot = min(abs(dot), 1.0)
    if dot > 0.9995:
        a, b = 1.0 - share, share * flip
    else:
        angle = math.acos(dot)
        scale = math.sin(angle)
        a, b = math.sin((1.0 - share) * angle) / scale, math.sin(share * angle) / scale * flip
    norm = 0.0
    for i in (3, 4, 5, 6):
        out[i] = a * first[i] + b * second[i]
        norm += out[i] * out[i]
    norm = math.sqrt(norm)
    for i in (3, 4, 5, 6):
        out[i] /= norm


def movers_from_stage(stage: Usd.Stage, paths: Iterable[str]) -> list[Mover]:
    """Reads the trajectories of kinematic bodies.

    Args:
        stage: The stage in metres, z up.
        paths: Prims of kinematic bodies.

    Returns:
        One mover per prim whose transform, or an ancestor's, has more than one time sample.
    """
    from pxr import Usd, UsdGeom

    rate = stage.GetTimeCodesPerSecond() or 24.0
    start, end = stage.GetStartTimeCode(), stage.GetEndTimeCode()
    has_range = stage.HasAuthoredTimeCodeRange() and end > start
    samples = {path: _time_samples(stage.GetPrimAtPath(path)) for path in paths}
    samples = {path: codes for path, codes in samples.items() if len(codes) > 1}
    if not samples:
        return []
    if not has_range:
        start = min(codes[0] for codes in samples.values())
        end = max(codes[-1] for codes in samples.values())
    found = []
    cache = UsdGeom.XformCache()
    for path, codes in samples.items():
        wanted = sorted({start, *[code for code in codes if start <= code <= end], end})
        poses = []
        for code in wanted:
            cache.SetTime(Usd.TimeCode(code))
            poses.append(pose_of(cache.GetLocalToWorldTransform(stage.GetPrimAtPath(path))))
        times = [(code - start) / rate for code in wanted]
        found.append(Mover(path, times, poses, (end - start) / rate))
    return found


def animated_without_body(stage: Usd.Stage, bodies: Iterable[str]) -> list[str]:
    """Returns prims with animated transforms that no kinematic body carries: they stand still in the simulation."""
    from pxr import UsdGeom

    known = set(bodies)
    found = []
    for prim in stage.Traverse():
        xformable = UsdGeom.Xformable(prim)
        if not xformable or not xformable.TransformMightBeTimeVarying():
            continue
        path = str(prim.GetPath())
        carried = any(body == path or body.startswith(path + "/") for body in known)
        if not carried and not prim.IsA(UsdGeom.Camera):
            found.append(path)
    return found


def pose_of(matrix: Gf.Matrix4d) -> Pose:
    """Returns position and rotation of a transform without its scale."""
    rigid = matrix.RemoveScaleShear()
    p, q = rigid.ExtractTranslation(), rigid.ExtractRotationQuat().GetNormalized()
    i = q.GetImaginary()
    return (float(p[0]), float(p[1]), float(p[2]), float(i[0]), float(i[1]), float(i[2]), float(q.GetReal()))


def _time_samples(prim: Any) -> list[float]:
    """Returns the time codes at which the transform of a prim or of an ancestor is sampled, ascending."""
    from pxr import UsdGeom

    codes: set[float] = set()
    while prim and not prim.IsPseudoRoot():
        xformable = UsdGeom.Xformable(prim)
        if xformable:
            codes.update(xformable.GetTimeSamples())
            if xformable.GetResetXformStack():
                break
        prim = prim.GetParent()
    return sorted(codes)
