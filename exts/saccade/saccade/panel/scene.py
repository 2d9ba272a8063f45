"""What a stage offers to choose from: humanoids, cameras and LiDARs; looked through in small pieces."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from saccade.config import CameraConfig, SensorConfig
from saccade.configuration import LoadedConfiguration
from saccade.panel.view import SensorRow

if TYPE_CHECKING:
    from pxr import Usd

PIECE = 200
"""Prims that are looked at between two turns."""


@dataclass(slots=True)
class SceneFacts:
    """What was found, by path."""

    humanoids: list[str] = field(default_factory=list)
    """Articulation roots."""
    cameras: list[str] = field(default_factory=list)
    lidars: list[str] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=dict)
    """Paths by prim name: sensors are configured by path or by name."""
    prims: int = 0


def look_through(stage: Usd.Stage) -> Generator[None, None, SceneFacts]:
    """Looks through a stage, :data:`PIECE` prims at a time.

    RTX LiDARs are prims of type ``OmniLidar``, or cameras with a ``sensorModelPluginName`` or ``modelConfig``.

    Returns:
        What was found, as the generator's value.
    """
    from pxr import Usd, UsdGeom, UsdPhysics

    facts = SceneFacts()
    for prim in Usd.PrimRange(stage.GetPseudoRoot(), Usd.TraverseInstanceProxies()):
        facts.prims += 1
        if facts.prims % PIECE == 0:
            yield
        path = str(prim.GetPath())
        facts.names.setdefault(prim.GetName(), []).append(path)
        if prim.HasAPI(UsdPhysics.ArticulationRootAPI):
            facts.humanoids.append(path)
        if prim.GetTypeName() == "OmniLidar" or (
            prim.IsA(UsdGeom.Camera)
            and (prim.HasAttribute("sensorModelPluginName") or prim.HasAttribute("modelConfig"))
        ):
            facts.lidars.append(path)
        elif prim.IsA(UsdGeom.Camera):
            facts.cameras.append(path)
    return facts


def looked_through(loaded: LoadedConfiguration) -> SceneFacts | None:
    """Opens the scene's file and looks through it; ``None`` where it cannot be opened here."""
    try:
        from saccade.scenes.stage import stage_from_file
    except ImportError:
        return None
    path = loaded.scene_path()
    try:
        turns = look_through(stage_from_file(path))
    except ImportError:  # no USD in this Python
        return None
    while True:
        try:
            next(turns)
        except StopIteration as end:
            return end.value


def sensor_rows(sensors: Mapping[str, SensorConfig], facts: SceneFacts | None) -> dict[str, SensorRow]:
    """Returns one row per configured sensor, and one per sensor of the scene that none uses, by name or path.

    Args:
        sensors: Of the configuration.
        facts: What the scene has; ``None`` = not looked through yet.
    """
    rows: dict[str, SensorRow] = {}
    used: set[str] = set()
    for name, sensor in sensors.items():
        wanted = sensor.mount.link if sensor.mount is not None else str(sensor.prim)
        if isinstance(sensor, CameraConfig):
            detail = f"{sensor.width}x{sensor.height} at {sensor.rate:g} Hz"
        else:
            detail = f"{sensor.channels}x{sensor.columns} at {sensor.rate:g} Hz"
        if facts is None:
            rows[name] = SensorRow(name, sensor.kind, wanted, "not looked for", detail)
            continue
        found = paths_of(wanted, facts)
        used.update(found)
        if len(found) == 1:
            rows[name] = SensorRow(name, sensor.kind, found[0], "found", detail)
        elif not found:
            field_name = "mount.link" if sensor.mount is not None else "prim"
            reason = f"the scene has no prim {wanted!r}: correct sensors.{name}.{field_name}"
            rows[name] = SensorRow(name, sensor.kind, wanted, "missing", reason)
        else:
            reason = f"{len(found)} prims are named {wanted!r}: give the path of one of them"
            rows[name] = SensorRow(name, sensor.kind, wanted, "missing", reason)
    if facts is not None:
        for kind, paths in (("camera", facts.cameras), ("lidar", facts.lidars)):
            for path in paths:
                if path not in used:
                    rows[path] = SensorRow(path, kind, path, "unused", "in the scene, not in the configuration")
    return rows


def paths_of(wanted: str, facts: SceneFacts) -> list[str]:
    """Returns the prims that a path, the end of a path, or a name means; a humanoid's own come first."""
    if wanted.startswith("/"):
        return [wanted] if wanted in facts.names.get(wanted.rsplit("/", 1)[-1], ()) else []
    named = [path for path in facts.names.get(wanted.rsplit("/", 1)[-1], ()) if path.endswith(f"/{wanted}")]
    own = [path for path in named if any(path.startswith(f"{root}/") for root in facts.humanoids)]
    return own if len(own) == 1 else named
