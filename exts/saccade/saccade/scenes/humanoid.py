"""The humanoid in a stage: its root, the joints that a gait moves, and the scene's route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from saccade.errors import SceneError
from saccade.scenes.gait import ARM_ROLES, LEG_ROLES, REQUIRED_ROLES, SIDES
from saccade.scenes.mounts import nearest_first

if TYPE_CHECKING:
    from pxr import Usd

CUSTOM_DATA = "saccade"
"""Key of the custom data in which a scene names what no standard schema does."""


def humanoid_prim(stage: Usd.Stage, configured: str | None) -> Usd.Prim:
    """Finds the articulation that is the humanoid.

    Args:
        stage: The stage.
        configured: ``simulator.humanoid.prim``; ``None`` takes the only articulation root of the scene.

    Returns:
        The configured prim, or the prim with the articulation root.

    Raises:
        SceneError: There is none, there are several, or the configured prim is missing.
    """
    from pxr import Usd, UsdPhysics

    roots = [prim for prim in stage.Traverse() if prim.HasAPI(UsdPhysics.ArticulationRootAPI)]
    listed = [str(prim.GetPath()) for prim in roots]
    if configured is not None:
        prim = stage.GetPrimAtPath(configured) if configured.startswith("/") else None
        if not prim and not configured.startswith("/"):
            named = [p for p in stage.Traverse() if p.GetName() == configured]
            prim = named[0] if len(named) == 1 else None
        if not prim:
            near = ", ".join(nearest_first(configured, listed)[:8]) or "none"
            raise SceneError(
                f"simulator.humanoid.prim: there is no prim {configured!r}; articulation roots in the scene are: {near}"
            )
        below = [p for p in Usd.PrimRange(prim) if p.HasAPI(UsdPhysics.ArticulationRootAPI)]
        above = _ancestor_with_root(prim)
        if not below and above is None:
            bodies = [p for p in Usd.PrimRange(prim) if p.HasAPI(UsdPhysics.RigidBodyAPI)]
            if not bodies:
                raise SceneError(
                    f"simulator.humanoid.prim: {configured} holds no rigid body: name the prim above its links"
                    + (f"; articulation roots in the scene are: {', '.join(listed)}" if listed else "")
                )
            with Usd.EditContext(stage, stage.GetSessionLayer()):
                UsdPhysics.ArticulationRootAPI.Apply(prim)
        return prim
    if len(roots) == 1:
        return roots[0]
    if roots:
        raise SceneError(
            f"the scene has {len(roots)} articulations: say which is the humanoid with simulator.humanoid.prim, "
            f"one of: {', '.join(listed)}"
        )
    where = stage.GetRootLayer().realPath or stage.GetRootLayer().identifier
    if not any(prim.HasAPI(UsdPhysics.RigidBodyAPI) for prim in stage.Traverse()):
        raise SceneError(
            f"{where}: the scene has no physics: no rigid body and no articulation. Give links PhysicsRigidBodyAPI, "
            "connect them with joints and give the humanoid's root prim PhysicsArticulationRootAPI"
        )
    raise SceneError(
        f"{where}: the scene has no humanoid: no prim has PhysicsArticulationRootAPI. Apply it to the prim above "
        "the humanoid's links, or name that prim in simulator.humanoid.prim"
    )


def _ancestor_with_root(prim: Usd.Prim) -> Usd.Prim | None:
    from pxr import UsdPhysics

    while prim and not prim.IsPseudoRoot():
        if prim.HasAPI(UsdPhysics.ArticulationRootAPI):
            return prim
        prim = prim.GetParent()
    return None


def custom_data(prim: Usd.Prim) -> dict[str, Any]:
    """Returns the custom data that a prim, or the nearest ancestor that has some, holds for saccade."""
    while prim and not prim.IsPseudoRoot():
        data = prim.GetCustomDataByKey(CUSTOM_DATA)
        if data:
            return dict(data)
        prim = prim.GetParent()
    return {}


def gait_roles(data: Mapping[str, Any]) -> dict[str, str]:
    """Returns joint names by role, such as ``{"left_hip_pitch": "LHipPitch"}``, from a humanoid's custom data.

    Roles may be nested (``left`` / ``hip_pitch``) or flat (``left_hip_pitch``); anything else is left alone.
    """
    wanted = {f"{side}_{role}" for side in SIDES for role in (*LEG_ROLES, *ARM_ROLES)}
    found: dict[str, str] = {}

    def visit(values: Mapping[str, Any], prefix: str) -> None:
        for key, value in values.items():
            name = f"{prefix}_{key}" if prefix else str(key)
            if isinstance(value, Mapping):
                visit(value, name if name in SIDES or prefix else (str(key) if key in SIDES else ""))
            elif isinstance(value, str):
                role = next((role for role in wanted if name == role), None)
                if role:
                    found[role] = value

    visit(data, "")
    return found


def missing_roles(roles: Mapping[str, Any]) -> list[str]:
    """Returns the roles without which there is no gait and that ``roles`` lacks."""
    return [f"{side}_{role}" for side in SIDES for role in REQUIRED_ROLES if f"{side}_{role}" not in roles]


def route_from_stage(stage: Usd.Stage) -> list[tuple[float, float]]:
    """Returns the waypoints that a top prim of the scene names in its custom data, in the world [m]."""
    from pxr import Gf, UsdGeom

    cache = UsdGeom.XformCache()
    tops = [stage.GetDefaultPrim(), *stage.GetPseudoRoot().GetChildren()]
    y_up = stage.GetSessionLayer().customLayerData.get("saccade_up_axis") == "Y"
    for prim in tops:
        data = prim.GetCustomDataByKey(CUSTOM_DATA) if prim else None
        route = data.get("route") if data else None
        if not route:
            continue
        points = []
        for x, y, z in _triples(list(route), y_up=y_up, where=f"{prim.GetPath()} customData.saccade.route"):
            world = cache.GetLocalToWorldTransform(prim).Transform(Gf.Vec3d(x, y, z))
            points.append((float(world[0]), float(world[1])))
        return points
    return []


def _triples(route: list[Any], *, y_up: bool, where: str) -> list[tuple[float, float, float]]:
    """Returns waypoints with three coordinates from pairs, triples or a flat list of pairs."""
    if all(isinstance(value, (int, float)) for value in route):
        if len(route) % 2:
            raise SceneError(f"{where}: a flat list holds x and y of each waypoint in turn, got {len(route)} numbers")
        route = [route[i : i + 2] for i in range(0, len(route), 2)]
    points = []
    for value in route:
        numbers = [float(number) for number in value]
        if len(numbers) == 2:
            x, y = numbers
            points.append((x, 0.0, y) if y_up else (x, y, 0.0))
        elif len(numbers) == 3:
            points.append((numbers[0], numbers[1], numbers[2]))
        else:
            raise SceneError(f"{where}: a waypoint has 2 or 3 coordinates, got {numbers}")
    return points
