"""Building blocks of authored scenes: layers, prims, shapes, labels, materials and physics, all standard schemas.

Prims are written as Sdf specs: that is ten times as fast as the Usd API, and the same bytes come out every time.
Colours are given as sRGB 0..1, as one sees them, and stored linear, as USD wants them. Lengths in metres, angles in
degrees, as in USD.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.scenes.author_mesh import MeshData

if TYPE_CHECKING:
    from pxr import Sdf

Vector = Sequence[float]
Color = tuple[float, float, float]

FRAMES_PER_SECOND = 24.0
DECIMALS = 5
"""Numbers are rounded to 10 um, so that the files stay readable and the same on every machine."""


def new_layer(default_prim: str, *, duration: float | None = None, comment: str = "") -> Sdf.Layer:
    """Returns an empty layer in metres with z up.

    Args:
        default_prim: Name of its top prim.
        duration: Length of the animation [s]; ``None`` = none.
        comment: Documentation of the layer.
    """
    from pxr import Sdf

    layer = Sdf.Layer.CreateAnonymous(".usda")
    root = layer.pseudoRoot
    root.SetInfo("metersPerUnit", 1.0)
    root.SetInfo("kilogramsPerUnit", 1.0)
    root.SetInfo("upAxis", "Z")
    layer.defaultPrim = default_prim
    layer.timeCodesPerSecond = FRAMES_PER_SECOND
    layer.framesPerSecond = FRAMES_PER_SECOND
    if comment:
        layer.documentation = comment
    if duration is not None:
        layer.startTimeCode = 0.0
        layer.endTimeCode = duration * FRAMES_PER_SECOND
    return layer


def save_layer(layer: Sdf.Layer, path: Path | str) -> None:
    """Writes a layer as a .usda file; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".usda", dir=path.parent)
    os.close(handle)
    try:
        if not layer.Export(name):
            raise OSError(f"{path} could not be written")
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def rounded(values: Any) -> Any:
    """Returns a number, or a sequence of numbers as a tuple, rounded and without negative zeros."""
    if isinstance(values, (int, float)):
        return round(float(values), DECIMALS) + 0.0
    return tuple(rounded(value) for value in values)


def linear(color: Vector) -> tuple[float, ...]:
    """Returns linear RGB of an sRGB colour, 0..1."""
    return tuple(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color)


def attribute(prim: Sdf.PrimSpec, name: str, kind: str, value: Any, *, uniform: bool = False) -> Sdf.AttributeSpec:
    """Writes one attribute; ``kind`` is a USD type name such as ``"float3"``."""
    from pxr import Sdf

    variability = Sdf.VariabilityUniform if uniform else Sdf.VariabilityVarying
    spec = Sdf.AttributeSpec(prim, name, Sdf.ValueTypeNames.Find(kind), variability)
    if value is not None:
        spec.default = value
    return spec


def relationship(prim: Sdf.PrimSpec, name: str, targets: Sequence[str]) -> None:
    """Writes one relationship."""
    from pxr import Sdf

    spec = Sdf.RelationshipSpec(prim, name, custom=False)
    spec.targetPathList.explicitItems = [Sdf.Path(target) for target in targets]


def apply_api(prim: Sdf.PrimSpec, *schemas: str) -> None:
    """Applies API schemas, in the order given, behind those that are applied already."""
    from pxr import Sdf

    present = prim.GetInfo("apiSchemas").GetAddedOrExplicitItems() if prim.HasInfo("apiSchemas") else []
    wanted = [*present, *[schema for schema in schemas if schema not in present]]
    prim.SetInfo("apiSchemas", Sdf.TokenListOp.Create(prependedItems=wanted))


def define(
    parent: Any,
    name: str,
    type_name: str = "Xform",
    *,
    translate: Vector | None = None,
    rotate: Vector | float | None = None,
    scale: Vector | None = None,
    purpose: str | None = None,
    abstract: bool = False,
) -> Sdf.PrimSpec:
    """Makes a prim.

    Args:
        parent: Parent prim, or the layer.
        name: Its name.
        type_name: Its schema, such as ``"Cube"``.
        translate: Position in the parent [m].
        rotate: Rotation [degrees] about z, or about x, then y, then z.
        scale: Scale in its own frame.
        purpose: ``"guide"`` for what is there and not seen.
        abstract: Makes a class to refer to, which is not part of the scene.
    """
    from pxr import Sdf

    spec = Sdf.PrimSpec(parent, name, Sdf.SpecifierClass if abstract else Sdf.SpecifierDef, type_name)
    order = []
    if translate is not None:
        attribute(spec, "xformOp:translate", "double3", rounded(translate))
        order.append("xformOp:translate")
    if isinstance(rotate, (int, float)):
        attribute(spec, "xformOp:rotateZ", "double", rounded(rotate))
        order.append("xformOp:rotateZ")
    elif rotate is not None:
        attribute(spec, "xformOp:rotateXYZ", "float3", rounded(rotate))
        order.append("xformOp:rotateXYZ")
    if scale is not None:
        attribute(spec, "xformOp:scale", "float3", rounded(scale))
        order.append("xformOp:scale")
    if order:
        attribute(spec, "xformOpOrder", "token[]", order, uniform=True)
    if purpose is not None:
        attribute(spec, "purpose", "token", purpose, uniform=True)
    return spec


def label(prim: Sdf.PrimSpec, class_name: str, object_name: str | None = None) -> None:
    """Gives a prim its semantic labels: ``UsdSemantics``, and the older form that Isaac Sim 5 reads as well."""
    schemas = ["SemanticsLabelsAPI:class", "SemanticsAPI:Semantics"]
    attribute(prim, "semantics:labels:class", "token[]", [class_name])
    if object_name:
        schemas.append("SemanticsLabelsAPI:object")
        attribute(prim, "semantics:labels:object", "token[]", [object_name])
    attribute(prim, "semantic:Semantics:params:semanticType", "string", "class")
    attribute(prim, "semantic:Semantics:params:semanticData", "string", class_name)
    apply_api(prim, *schemas)


def paint(prim: Sdf.PrimSpec, color: Color | None, material: str | None = None) -> None:
    """Gives a shape its colour (sRGB) or binds a material by path."""
    if color is not None:
        attribute(prim, "primvars:displayColor", "color3f[]", [rounded(linear(color))])
    if material is not None:
        apply_api(prim, "MaterialBindingAPI")
        relationship(prim, "material:binding", [material])


def box(
    parent: Any, name: str, size: Vector, at: Vector, *, rotate: Any = None, purpose: str | None = None
) -> Sdf.PrimSpec:
    """Makes a Cube of ``size`` [m] centred at ``at``; its size is 1 and its scale carries the extent."""
    spec = define(parent, name, "Cube", translate=at, rotate=rotate, scale=size, purpose=purpose)
    attribute(spec, "size", "double", 1.0)
    attribute(spec, "extent", "float3[]", [(-0.5, -0.5, -0.5), (0.5, 0.5, 0.5)])
    return spec


def sphere(parent: Any, name: str, radius: float, at: Vector) -> Sdf.PrimSpec:
    """Makes a Sphere."""
    spec = define(parent, name, "Sphere", translate=at)
    r = rounded(radius)
    attribute(spec, "radius", "double", r)
    attribute(spec, "extent", "float3[]", [(-r, -r, -r), (r, r, r)])
    return spec


def rod(
    parent: Any,
    name: str,
    kind: str,
    radius: float,
    height: float,
    at: Vector,
    *,
    axis: str = "Z",
    rotate: Any = None,
    purpose: str | None = None,
) -> Sdf.PrimSpec:
    """Makes a ``"Capsule"``, ``"Cylinder"`` or ``"Cone"``; a capsule's height is without its caps."""
    spec = define(parent, name, kind, translate=at, rotate=rotate, purpose=purpose)
    r, h = rounded(radius), rounded(height)
    attribute(spec, "radius", "double", r)
    attribute(spec, "height", "double", h)
    attribute(spec, "axis", "token", axis, uniform=True)
    half = [r, r, r]
    half["XYZ".index(axis)] = rounded(h / 2 + (r if kind == "Capsule" else 0.0))
    attribute(spec, "extent", "float3[]", [tuple(-v for v in half), tuple(half)])
    return spec


def mesh(
    parent: Any, name: str, data: MeshData, at: Vector | None = None, *, rotate: Any = None, scale: Any = None
) -> Sdf.PrimSpec:
    """Makes a Mesh; texture coordinates go into the primvar ``st``."""
    from pxr import Vt

    spec = define(parent, name, "Mesh", translate=at, rotate=rotate, scale=scale)
    points = data.points.round(DECIMALS) + 0.0
    attribute(spec, "faceVertexCounts", "int[]", Vt.IntArray.FromNumpy(data.counts))
    attribute(spec, "faceVertexIndices", "int[]", Vt.IntArray.FromNumpy(data.indices))
    attribute(spec, "points", "point3f[]", Vt.Vec3fArray.FromNumpy(points.astype("float32")))
    normals = attribute(
        spec, "normals", "normal3f[]", Vt.Vec3fArray.FromNumpy((data.normals.round(3) + 0.0).astype("float32"))
    )
    normals.SetInfo("interpolation", "vertex")
    if data.st is not None:
        st = attribute(
            spec, "primvars:st", "texCoord2f[]", Vt.Vec2fArray.FromNumpy((data.st.round(3) + 0.0).astype("float32"))
        )
        st.SetInfo("interpolation", "vertex")
    attribute(spec, "extent", "float3[]", [rounded(points.min(axis=0).tolist()), rounded(points.max(axis=0).tolist())])
    attribute(spec, "subdivisionScheme", "token", "none", uniform=True)
    if data.double_sided:
        attribute(spec, "doubleSided", "bool", True, uniform=True)
    return spec


def material(looks: Sdf.PrimSpec, name: str, *, color: Color = (0.8, 0.8, 0.8), texture: str | None = None) -> str:
    """Makes a UsdPreviewSurface material, textured where a file is named, and returns its path."""
    spec = define(looks, name, "Material")
    path = str(spec.path)
    _connected(spec, "outputs:surface", "token", f"{path}/surface.outputs:surface")
    surface = define(spec, "surface", "Shader")
    attribute(surface, "info:id", "token", "UsdPreviewSurface", uniform=True)
    attribute(surface, "inputs:roughness", "float", 0.8)
    attribute(surface, "inputs:metallic", "float", 0.0)
    attribute(surface, "outputs:surface", "token", None)
    if texture is None:
        attribute(surface, "inputs:diffuseColor", "color3f", rounded(linear(color)))
        return path
    from pxr import Sdf

    _connected(surface, "inputs:diffuseColor", "color3f", f"{path}/texture.outputs:rgb")
    image = define(spec, "texture", "Shader")
    attribute(image, "info:id", "token", "UsdUVTexture", uniform=True)
    attribute(image, "inputs:file", "asset", Sdf.AssetPath(texture))
    attribute(image, "inputs:sourceColorSpace", "token", "sRGB")
    attribute(image, "inputs:wrapS", "token", "repeat")
    attribute(image, "inputs:wrapT", "token", "repeat")
    _connected(image, "inputs:st", "float2", f"{path}/st.outputs:result")
    attribute(image, "outputs:rgb", "float3", None)
    reader = define(spec, "st", "Shader")
    attribute(reader, "info:id", "token", "UsdPrimvarReader_float2", uniform=True)
    attribute(reader, "inputs:varname", "string", "st")
    attribute(reader, "outputs:result", "float2", None)
    return path


def _connected(prim: Sdf.PrimSpec, name: str, kind: str, source: str) -> None:
    from pxr import Sdf

    attribute(prim, name, kind, None).connectionPathList.explicitItems = [Sdf.Path(source)]


def physics_material(looks: Sdf.PrimSpec, name: str, *, friction: float) -> str:
    """Makes a physics material and returns its path."""
    spec = define(looks, name, "Material")
    apply_api(spec, "PhysicsMaterialAPI")
    attribute(spec, "physics:staticFriction", "float", rounded(friction))
    attribute(spec, "physics:dynamicFriction", "float", rounded(friction * 0.9))
    attribute(spec, "physics:restitution", "float", 0.0)
    return str(spec.path)


def collide(prim: Sdf.PrimSpec, physics: str | None = None) -> None:
    """Makes a shape a collider, with a physics material where one is named by path."""
    apply_api(prim, "PhysicsCollisionAPI")
    if physics is not None:
        apply_api(prim, "MaterialBindingAPI")
        relationship(prim, "material:binding:physics", [physics])


def collider_box(
    parent: Any, name: str, size: Vector, at: Vector, *, rotate: Any = None, physics: str | None = None
) -> Sdf.PrimSpec:
    """Makes a box that collides and is not seen."""
    spec = box(parent, name, size, at, rotate=rotate, purpose="guide")
    collide(spec, physics)
    return spec


def collider_rod(parent: Any, name: str, kind: str, radius: float, height: float, at: Vector) -> Sdf.PrimSpec:
    """Makes a capsule or cylinder that collides and is not seen."""
    spec = rod(parent, name, kind, radius, height, at, purpose="guide")
    collide(spec)
    return spec


def rigid_body(
    prim: Sdf.PrimSpec,
    *,
    mass: float,
    inertia: Vector,
    center: Vector = (0.0, 0.0, 0.0),
    kinematic: bool = False,
) -> None:
    """Makes a prim a rigid body.

    Args:
        prim: An Xform.
        mass: [kg]
        inertia: Principal moments about the centre of mass, along the prim's axes [kg m^2].
        center: Centre of mass [m].
        kinematic: Moves along its animation, whatever pushes it.
    """
    from pxr import Gf

    apply_api(prim, "PhysicsRigidBodyAPI", "PhysicsMassAPI")
    if kinematic:
        attribute(prim, "physics:kinematicEnabled", "bool", True)
    attribute(prim, "physics:mass", "float", rounded(mass))
    attribute(prim, "physics:centerOfMass", "point3f", rounded(center))
    attribute(prim, "physics:diagonalInertia", "float3", tuple(round(float(v), 6) for v in inertia))
    attribute(prim, "physics:principalAxes", "quatf", Gf.Quatf(1.0))


def animate(prim: Sdf.PrimSpec, times: Sequence[float], positions: Sequence[Vector], yaws: Sequence[float]) -> None:
    """Moves a prim along keyframes.

    Args:
        prim: A prim without a transform.
        times: [s]
        positions: In the parent [m].
        yaws: Continuous, not wrapped [degrees].
    """
    place = attribute(prim, "xformOp:translate", "double3", rounded(positions[0]))
    turn = attribute(prim, "xformOp:rotateZ", "double", rounded(yaws[0]))
    if len(times) > 1:
        layer = prim.layer
        for time, position, yaw in zip(times, positions, yaws, strict=True):
            code = rounded(time * FRAMES_PER_SECOND)
            layer.SetTimeSample(place.path, code, _vec3d(rounded(position)))
            layer.SetTimeSample(turn.path, code, round(float(yaw), 2) + 0.0)
    attribute(prim, "xformOpOrder", "token[]", ["xformOp:translate", "xformOp:rotateZ"], uniform=True)


def _vec3d(values: Vector) -> Any:
    from pxr import Gf

    return Gf.Vec3d(*values)


def camera(parent: Any, name: str, at: Vector, *, pitch_down: float, field_of_view: float, yaw: float = 0.0) -> None:
    """Makes a square camera that looks along the parent's x axis.

    Args:
        parent: The link that carries it.
        name: Its name.
        at: Position in the parent [m].
        pitch_down: How far it looks down [degrees].
        field_of_view: Horizontal and vertical [degrees].
        yaw: How far it looks to the left [degrees].
    """
    import math

    # A camera looks along -z with +y up: turned up about x first, then about z to look along x.
    spec = define(parent, name, "Camera", translate=at, rotate=(90.0 - pitch_down, 0.0, yaw - 90.0))
    aperture = 20.955
    attribute(spec, "focalLength", "float", round(aperture / 2 / math.tan(math.radians(field_of_view / 2)), 6))
    attribute(spec, "horizontalAperture", "float", aperture)
    attribute(spec, "verticalAperture", "float", aperture)
    attribute(spec, "clippingRange", "float2", (0.02, 100.0))
    attribute(spec, "projection", "token", "perspective")


def remember(prim: Sdf.PrimSpec, values: Mapping[str, Any]) -> None:
    """Writes custom data under the key ``saccade``, where the reading side looks for it."""
    prim.SetInfo("customData", {"saccade": dict(values)})


def refer(prim: Sdf.PrimSpec, target: str, asset: str = "") -> None:
    """Makes a prim show what is defined at another path, in this layer or in a file."""
    from pxr import Sdf

    reference = Sdf.Reference(asset, Sdf.Path(target) if target else Sdf.Path())
    prim.referenceList.prependedItems = [reference]
