"""What the record says about a scene: its facts, and the floor plan with footprints of what stands on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.frame import CLASSES, FLOOR

if TYPE_CHECKING:
    from saccade.simulators.newton_scene import NewtonScene

PLAN_HEIGHT = 2.0
"""What begins higher above the floor than this is not drawn [m]."""


def scene_facts(scene: NewtonScene) -> dict[str, Any]:
    """Returns what the record should say about a scene; plain values."""
    humanoid = scene.humanoid
    return {
        "scene": str(scene.path),
        "scene_sha256": scene.sha256,
        "shapes": scene.model.shape_count,
        "bodies": scene.model.body_count,
        "movers": [mover.path for mover, _ in scene.movers],
        "classes": {name: int((scene.classes == i).sum()) for i, name in enumerate(CLASSES)},
        "humanoid": {
            "prim": humanoid.path,
            "joints": len(humanoid.joints),
            "mass_kg": round(humanoid.total_mass, 3),
            "gait": humanoid.gait is not None,
            "no_gait_reason": humanoid.no_gait_reason,
        },
        "floor_height_m": scene.floor_height,
        "lighting": scene.lighting.as_dict(),
        "unlabelled": scene.unlabelled[:50],
        "unlabelled_count": len(scene.unlabelled),
        "unknown_labels": {label: paths[:5] for label, paths in scene.labels.unknown.items()},
        "warnings": list(scene.warnings),
        "floor_plan": plan_for_report(scene),
    }


def footprints(scene: NewtonScene) -> list[dict[str, Any]]:
    """Returns footprints in the world [m]: ``class``, ``kind``, ``label`` and ``polygon`` of each visible shape.

    Args:
        scene: The scene; movers are where its stage has them.
    """
    import newton

    from saccade.simulators.newton_shapes import ShapeBoxes

    model = scene.model
    boxes = ShapeBoxes(model)
    body_q = model.body_q.numpy()
    flags = model.shape_flags.numpy()
    movers = {scene.bodies[mover.path]: mover for mover, _ in scene.movers}
    for body, mover in movers.items():
        body_q[body] = mover.poses[0]
    plan = []
    for i, path in enumerate(model.shape_label):
        if scene.own_shapes[i] or not flags[i] & int(newton.ShapeFlags.VISIBLE):
            continue
        corners = boxes.corners(i, body_q)
        if corners[:, 2].min() > scene.floor_height + PLAN_HEIGHT:
            continue
        is_floor = scene.classes[i] == FLOOR
        kind = "floor" if is_floor else "mover" if int(boxes.body[i]) in movers else "static"
        polygon = hull(corners[:, :2])
        plan.append(
            {
                "class": CLASSES[scene.classes[i]],
                "kind": kind,
                "label": (scene.labels.owner_of(path) or path).rsplit("/", 1)[-1],
                "polygon": [[round(float(x), 3), round(float(y), 3)] for x, y in polygon],
            }
        )
    return plan


def plan_for_report(scene: NewtonScene) -> dict[str, Any]:
    """Returns the floor plan as the record has it: ``bounds``, ``footprints``, ``movers`` with paths, ``route`` [m]."""
    plan = footprints(scene)
    floor = [point for entry in plan if entry["kind"] == "floor" for point in entry["polygon"]]
    everything = floor or [point for entry in plan for point in entry["polygon"]] or [[0.0, 0.0]]
    xs, ys = [p[0] for p in everything], [p[1] for p in everything]
    return {
        "bounds": [min(xs), min(ys), max(xs), max(ys)],
        "footprints": [entry for entry in plan if entry["kind"] == "static"],
        "movers": _mover_tracks(scene),
        "route": [list(point) for point in scene.route],
    }


def _mover_tracks(scene: NewtonScene) -> list[dict[str, Any]]:
    """Returns each thing that moves by itself once, with its path; limbs follow the body above them."""
    tracks: dict[str, dict[str, Any]] = {}
    for mover, _ in scene.movers:
        owner = scene.labels.owner_of(mover.path) or mover.path
        if owner in tracks:
            continue
        index = scene.labels.class_of(mover.path)
        path = [[round(p[0], 3), round(p[1], 3)] for p in mover.poses]
        tracks[owner] = {
            "class": "obstacle" if index is None else CLASSES[index],
            "label": owner.rsplit("/", 1)[-1],
            "path": path,
            "start": path[0],
        }
    return list(tracks.values())


def hull(points: np.ndarray) -> list[tuple[float, float]]:
    """Returns the convex hull of points in the plane, counter-clockwise."""
    ordered = sorted({(round(float(x), 4), round(float(y), 4)) for x, y in points})
    if len(ordered) <= 2:
        return ordered

    def half(run: list[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for p in run:
            while len(chain) > 1 and (
                (chain[-1][0] - chain[-2][0]) * (p[1] - chain[-2][1])
                - (chain[-1][1] - chain[-2][1]) * (p[0] - chain[-2][0])
                <= 0
            ):
                chain.pop()
            chain.append(p)
        return chain[:-1]

    return half(ordered) + half(ordered[::-1])
