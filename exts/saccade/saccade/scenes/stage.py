"""Opens a USD file as a stage in metres with z up; everything that reads the scene sees it that way."""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.errors import SceneError

if TYPE_CHECKING:
    from pxr import Gf, Usd

SUFFIXES = (".usd", ".usda", ".usdc", ".usdz")
OP_NAME = "xformOp:transform:saccade"


def stage_from_file(path: Path | str) -> Usd.Stage:
    """Opens a scene; units and up axis are converted in the session layer, so the file's own layers stay untouched.

    Args:
        path: USD file.

    Returns:
        The stage, composed in metres with z up.

    Raises:
        SceneError: There is no such file, or it is not a USD file.
    """
    from pxr import Tf, Usd

    path = Path(path)
    if not path.is_file():
        raise SceneError(_missing(path))
    try:
        stage = Usd.Stage.Open(str(path.resolve()), Usd.Stage.LoadAll)
    except Tf.ErrorException as error:
        reason = str(error).strip().splitlines()[-1][:300]
        raise SceneError(
            f"{path} cannot be read as a USD file: {reason}. Give a .usd, .usda, .usdc or .usdz file; "
            "'usdchecker' names what is wrong in it"
        ) from error
    if stage is None or not stage.GetPseudoRoot().GetChildren():
        raise SceneError(f"{path} holds no prim: give a USD file with a humanoid and its surroundings")
    _convert_units(stage)
    return stage


def _missing(path: Path) -> str:
    """Returns the message for a scene file that is not there, with the names that come near."""
    folder = path.parent if path.parent.is_dir() else None
    if folder is None:
        return f"there is no folder {path.parent} for the scene {path.name}: check 'scene' in the configuration"
    present = sorted(p.name for p in folder.iterdir() if p.suffix in SUFFIXES)
    near = difflib.get_close_matches(path.name, present, n=len(present) or 1, cutoff=0.0)
    text = f"in {folder} are: {', '.join(near[:8])}" if near else f"{folder} holds no USD file"
    return f"there is no scene {path}: {text}. Check 'scene' in the configuration"


def scene_hash(stage: Usd.Stage) -> str:
    """Returns the sha256 over all files that the stage is composed of, in the order of their names."""
    digest = hashlib.sha256()
    layers = [layer for layer in stage.GetUsedLayers() if layer.realPath and not layer.anonymous]
    for real_path in sorted({layer.realPath for layer in layers}, key=lambda name: Path(name).name):
        digest.update(Path(real_path).name.encode())
        digest.update(Path(real_path).read_bytes())
    return digest.hexdigest()


def up_axis_correction(stage: Usd.Stage) -> tuple[float, float, float, float]:
    """Returns the quaternion (x, y, z, w) from the frame x forward, z up to the stage's own prim frames.

    In a stage that was authored with y up, a prim's "up" is its y axis; what looks along x with z up in a z-up
    stage looks along x with y up there.
    """
    if stage.GetSessionLayer().customLayerData.get("saccade_up_axis") == "Y":
        half = math.sqrt(0.5)
        return (-half, 0.0, 0.0, half)
    return (0.0, 0.0, 0.0, 1.0)


def _convert_units(stage: Usd.Stage) -> None:
    """Puts one transform above every top prim, so that world transforms come out in metres with z up."""
    from pxr import Gf, Sdf, Usd, UsdGeom

    scale = float(UsdGeom.GetStageMetersPerUnit(stage))
    up_axis = str(UsdGeom.GetStageUpAxis(stage))
    session = stage.GetSessionLayer()
    if math.isclose(scale, 1.0) and up_axis == "Z":
        return
    matrix = Gf.Matrix4d(1.0)
    if up_axis != "Z":
        matrix.SetRotate(Gf.Rotation(Gf.Vec3d(1, 0, 0), 90.0))
    matrix = Gf.Matrix4d().SetScale(scale) * matrix
    prims = list(_transform_tops(stage.GetPseudoRoot(), below=False))
    physics = list(stage.TraverseAll())
    with Usd.EditContext(stage, session):
        for prim in prims:
            order = prim.GetAttribute("xformOpOrder").Get() or []
            names = [str(name) for name in order]
            reset = ["!resetXformStack!"] if "!resetXformStack!" in names else []
            rest = [name for name in names if name != "!resetXformStack!"]
            prim.CreateAttribute(OP_NAME, Sdf.ValueTypeNames.Matrix4d, False).Set(matrix)
            prim.CreateAttribute("xformOpOrder", Sdf.ValueTypeNames.TokenArray, False).Set([*reset, OP_NAME, *rest])
        for prim in physics:
            if not prim.IsInstanceProxy():
                _convert_physics(prim, scale, matrix)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    session.customLayerData = {"saccade_up_axis": up_axis, "saccade_meters_per_unit": scale}


def _transform_tops(prim: Usd.Prim, *, below: bool) -> Iterator[Usd.Prim]:
    """Yields the topmost transformable prims and every prim that resets the transform stack."""
    from pxr import UsdGeom

    for child in prim.GetAllChildren():
        if child.IsInstance() and below and not UsdGeom.Xformable(child).GetResetXformStack():
            continue
        xformable = UsdGeom.Xformable(child)
        if xformable and (not below or xformable.GetResetXformStack()):
            yield child
        if not child.IsInstance():
            yield from _transform_tops(child, below=below or bool(xformable))


def _convert_physics(prim: Usd.Prim, scale: float, matrix: Gf.Matrix4d) -> None:
    """Converts the physics attributes that carry a length and are not carried by a transform."""
    kind = str(prim.GetTypeName())
    if kind == "PhysicsScene":
        _scale(prim, "physics:gravityMagnitude", scale, only_positive=True)
        direction = prim.GetAttribute("physics:gravityDirection")
        if direction and direction.HasAuthoredValue() and direction.Get().GetLength() > 0:
            turned = matrix.TransformDir(direction.Get())
            direction.Set(turned.GetNormalized())
    schemas = prim.GetAppliedSchemas()
    if "PhysicsMassAPI" in schemas:
        _scale(prim, "physics:density", scale**-3)
        _scale(prim, "physics:diagonalInertia", scale**2)
    if "PhysicsMaterialAPI" in schemas:
        _scale(prim, "physics:density", scale**-3)
    if "PhysicsRigidBodyAPI" in schemas:
        _scale(prim, "physics:velocity", scale)
    for schema in schemas:
        if schema.startswith("PhysicsDriveAPI:"):
            name = schema.split(":", 1)[1]
            angular = name in ("angular", "rotX", "rotY", "rotZ")
            factor = scale**2 if angular else 1.0
            _scale(prim, f"drive:{name}:physics:stiffness", factor)
            _scale(prim, f"drive:{name}:physics:damping", factor)
            _scale(prim, f"drive:{name}:physics:maxForce", scale**2 if angular else scale)
            if not angular:
                _scale(prim, f"drive:{name}:physics:targetPosition", scale)
                _scale(prim, f"drive:{name}:physics:targetVelocity", scale)
        elif schema.startswith("PhysicsLimitAPI:trans") or schema == "PhysicsLimitAPI:distance":
            name = schema.split(":", 1)[1]
            _scale(prim, f"limit:{name}:physics:low", scale)
            _scale(prim, f"limit:{name}:physics:high", scale)
    if kind == "PhysicsPrismaticJoint":
        _scale(prim, "physics:lowerLimit", scale)
        _scale(prim, "physics:upperLimit", scale)


def _scale(prim: Usd.Prim, name: str, factor: float, *, only_positive: bool = False) -> None:
    attribute = prim.GetAttribute(name)
    if not attribute or not attribute.HasAuthoredValue() or factor == 1.0:
        return
    value = attribute.Get()
    if only_positive and not (math.isfinite(value) and value > 0):
        return
    attribute.Set(value * factor)
