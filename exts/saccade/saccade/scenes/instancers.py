"""Expands PointInstancers, which Newton's importer does not, into references that it does read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saccade.errors import SceneError

if TYPE_CHECKING:
    from pxr import Usd, UsdGeom

GROUP = "saccade_instances"
"""Child of an instancer that holds its expanded instances."""

MAX_NESTING = 4
MAX_INSTANCES = 20_000


def expand_instancers(stage: Usd.Stage) -> int:
    """Replaces every PointInstancer by one referencing prim per visible instance, in the session layer.

    Orientations, scales, ``invisibleIds`` and inactive instances are respected; prototypes that lie below their
    instancer disappear, as USD asks. Meshes are shared again when the model is built. Nested instancers are
    expanded level by level.

    Args:
        stage: The stage, changed in its session layer only.

    Returns:
        Number of instances made.

    Raises:
        SceneError: An instancer is malformed, or there are too many instances.
    """
    from pxr import Usd, UsdGeom

    total = 0
    done: set[str] = set()
    with Usd.EditContext(stage, stage.GetSessionLayer()):
        for _ in range(MAX_NESTING):
            found = [
                prim
                for prim in stage.Traverse()
                if prim.IsA(UsdGeom.PointInstancer) and str(prim.GetPath()) not in done
            ]
            # A nested instancer inside a prototype is expanded after the copy that shows it.
            found = [prim for prim in found if not _inside_prototype(prim, found)]
            if not found:
                return total
            for prim in found:
                done.add(str(prim.GetPath()))
                total += _expand(stage, UsdGeom.PointInstancer(prim), total)
    raise SceneError(f"PointInstancers are nested more than {MAX_NESTING} deep: flatten the scene's instances")


def _inside_prototype(prim: Usd.Prim, instancers: list[Usd.Prim]) -> bool:
    from pxr import UsdGeom

    path = prim.GetPath()
    for other in instancers:
        if other == prim:
            continue
        for target in UsdGeom.PointInstancer(other).GetPrototypesRel().GetForwardedTargets():
            if path.HasPrefix(target):
                return True
    return False


def _expand(stage: Usd.Stage, instancer: UsdGeom.PointInstancer, made: int) -> int:
    """Expands one instancer and returns the number of its visible instances."""
    from pxr import Sdf, Usd, UsdGeom

    prim = instancer.GetPrim()
    path = prim.GetPath()
    time = Usd.TimeCode.Default()
    indices = instancer.GetProtoIndicesAttr().Get(time)
    if indices is None:
        time = Usd.TimeCode.EarliestTime()
        indices = instancer.GetProtoIndicesAttr().Get(time)
    targets = instancer.GetPrototypesRel().GetForwardedTargets()
    if not indices or not targets:
        return 0
    if made + len(indices) > MAX_INSTANCES:
        raise SceneError(
            f"{path}: more than {MAX_INSTANCES} instances in the scene; use fewer, or merge them into meshes"
        )
    for index in set(indices):
        if not 0 <= index < len(targets) or not stage.GetPrimAtPath(targets[index]):
            raise SceneError(
                f"{path}: protoIndices names prototype {index}, but 'prototypes' has {len(targets)} existing target(s)"
            )
    transforms = instancer.ComputeInstanceTransformsAtTime(
        time, time, UsdGeom.PointInstancer.ExcludeProtoXform, UsdGeom.PointInstancer.IgnoreMask
    )
    if len(transforms) != len(indices):
        raise SceneError(
            f"{path}: {len(indices)} protoIndices but {len(transforms)} transforms; check positions and orientations"
        )
    mask = list(instancer.ComputeMaskAtTime(time)) or [True] * len(indices)
    group = UsdGeom.Xform.Define(stage, path.AppendChild(GROUP))
    count = 0
    for number, (index, matrix, visible) in enumerate(zip(indices, transforms, mask, strict=True)):
        if not visible:
            continue
        place = UsdGeom.Xform.Define(stage, group.GetPath().AppendChild(f"instance_{number}"))
        place.AddTransformOp().Set(matrix)
        source = targets[index]
        copy = stage.OverridePrim(place.GetPath().AppendChild(source.name))
        copy.GetReferences().AddInternalReference(source)
        copy.SetSpecifier(Sdf.SpecifierDef)
        copy.SetActive(True)
        count += 1
    for target in targets:
        if target.HasPrefix(path):
            stage.OverridePrim(target).SetActive(False)
    return count
