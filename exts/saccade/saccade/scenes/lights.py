"""The lights of a stage, reduced to what the embedded renderer knows: one sun and a two-coloured ambient light."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pxr import Gf, Usd

Vector = tuple[float, float, float]

REFERENCE_INTENSITY = 3200.0
"""Light intensity that exposes to 1: a stage as Isaac Sim's users light it (sun near 3000, dome near 1000)."""

EXPOSURE_LIMITS = (0.45, 1.5)
"""Light on a white horizontal surface after exposure. Outside, the exposure is adapted, as a camera's would be."""

GROUND_SHARE = 0.35
"""Light that comes back from the ground, as a share of the ambient light from the sky."""

LOCAL_LIGHTS = ("SphereLight", "RectLight", "DiskLight", "CylinderLight")


@dataclass(frozen=True, slots=True)
class Lighting:
    """The light in a scene: linear RGB after exposure, where 1 on a white surface is a white pixel."""

    sun_direction: Vector = (-0.4082483, 0.4082483, -0.8164966)
    """Unit vector in which the sunlight travels, in the world (z up)."""
    sun_color: Vector = (0.75, 0.74, 0.70)
    sky_color: Vector = (0.36, 0.37, 0.40)
    """Ambient light on surfaces that face up; also the colour of the background."""
    ground_color: Vector = (0.13, 0.13, 0.13)
    """Ambient light on surfaces that face down."""
    cast_shadows: bool = True
    source: str = "default"
    """Prim paths that it was made of, or ``"default"``."""
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Returns the lighting as plain values for the record."""
        return {
            "sun_direction": list(self.sun_direction),
            "sun_color": list(self.sun_color),
            "sky_color": list(self.sky_color),
            "ground_color": list(self.ground_color),
            "cast_shadows": self.cast_shadows,
            "source": self.source,
        }


def lighting_from_stage(stage: Usd.Stage, *, world_from_stage: Gf.Matrix4d | None = None) -> Lighting:
    """Reads the lights of a stage.

    The strongest ``DistantLight`` becomes the sun, every ``DomeLight`` and every further light becomes ambient
    light. Without a distant light the strongest local light lends the sun its direction.

    Args:
        stage: The stage; light units are those of UsdLux, read as Isaac Sim's users set them.
        world_from_stage: Rotation and scale into the z-up world, row-vector convention as in pxr; ``None`` = identity.

    Returns:
        The lighting; without any light a default one that says so in its warnings.
    """
    from pxr import Usd, UsdGeom

    suns: list[tuple[float, Vector, Vector, bool, str]] = []
    local: list[tuple[float, Vector, Vector, str]] = []
    ambient = [0.0, 0.0, 0.0]
    names: list[str] = []
    cache = UsdGeom.XformCache(Usd.TimeCode.Default())
    for prim in stage.Traverse():
        kind = str(prim.GetTypeName())
        if kind not in ("DistantLight", "DomeLight", "DomeLight_1", *LOCAL_LIGHTS) or not _is_visible(prim):
            continue
        strength = _strength(prim)
        if strength <= 0:
            continue
        color = _color(prim)
        names.append(str(prim.GetPath()))
        if kind == "DistantLight":
            suns.append((strength, _direction(prim, cache, world_from_stage), color, _casts_shadows(prim), names[-1]))
        elif kind.startswith("DomeLight"):
            ambient = [a + strength * c for a, c in zip(ambient, color, strict=True)]
        else:
            direction = (
                _direction(prim, cache, world_from_stage) if kind in ("RectLight", "DiskLight") else (0.0, 0.0, -1.0)
            )
            local.append((strength, direction, color, names[-1]))
    if not names:
        return Lighting(warnings=("the scene has no light: a default sun and sky are used; add a UsdLux.DistantLight",))
    return _reduced(suns, local, ambient, names)


def _reduced(
    suns: list[tuple[float, Vector, Vector, bool, str]],
    local: list[tuple[float, Vector, Vector, str]],
    ambient: list[float],
    names: list[str],
) -> Lighting:
    """Returns one sun and ambient light, exposed, from all the lights of a stage."""
    warnings: list[str] = []
    if suns:
        suns.sort(key=lambda sun: (-sun[0], sun[4]))
        strength, direction, color, shadows, _ = suns[0]
        sun = [strength * c for c in color]
        for further_strength, _, further_color, _, path in suns[1:]:
            ambient = [a + 0.5 * further_strength * c for a, c in zip(ambient, further_color, strict=True)]
            warnings.append(f"{path}: a second distant light counts as ambient light")
        if local:
            # Their fall-off is not rendered; half of a fixed share keeps lit halls from turning black.
            ambient = [a + 0.15 * strength for a in ambient]
            warnings.append(f"{len(local)} local light(s) count as ambient light")
    elif local:
        local.sort(key=lambda light: (-light[0], light[3]))
        _, direction, color, path = local[0]
        # Intensities of local lights depend on their size and distance: only colour and direction are taken.
        sun = [0.6 * REFERENCE_INTENSITY * c for c in color]
        ambient = [a + 0.35 * REFERENCE_INTENSITY * c for a, c in zip(ambient, color, strict=True)]
        shadows = True
        warnings.append(f"no distant light: {path} lends the sun its direction")
    else:
        direction, sun, shadows = (0.0, 0.0, -1.0), [0.0, 0.0, 0.0], False
        warnings.append("no distant light: ambient light only, without shadows")
    if max(ambient) <= 0:
        ambient = [0.25 * s for s in sun]
    facing = max(-direction[2], 0.0)
    total = max(s * facing + a for s, a in zip(sun, ambient, strict=True)) / REFERENCE_INTENSITY
    low, high = EXPOSURE_LIMITS
    exposure = min(max(total, low), high) / (total * REFERENCE_INTENSITY) if total > 0 else 0.0
    return Lighting(
        sun_direction=direction,
        sun_color=_scaled(sun, exposure),
        sky_color=_scaled(ambient, exposure),
        ground_color=_scaled(ambient, exposure * GROUND_SHARE),
        cast_shadows=shadows,
        source=", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else ""),
        warnings=tuple(warnings),
    )


def _scaled(color: list[float], factor: float) -> Vector:
    return (color[0] * factor, color[1] * factor, color[2] * factor)


def _input(prim: Usd.Prim, name: str, default: Any) -> Any:
    attribute = prim.GetAttribute(f"inputs:{name}")
    if not attribute:
        attribute = prim.GetAttribute(name)
    value = attribute.Get() if attribute else None
    return default if value is None else value


def _strength(prim: Usd.Prim) -> float:
    """Returns the intensity of a light with its exposure, in the units of :data:`REFERENCE_INTENSITY`."""
    fallback = {"DistantLight": 3000.0}.get(str(prim.GetTypeName()), 1000.0)
    attribute = prim.GetAttribute("inputs:intensity")
    # UsdLux's own defaults (50000 for the sun, 1 for a dome) are physical, not what anyone lights a stage with.
    intensity = float(attribute.Get()) if attribute and attribute.HasAuthoredValue() else fallback
    value = intensity * 2.0 ** float(_input(prim, "exposure", 0.0))
    return value if math.isfinite(value) else 0.0


def _color(prim: Usd.Prim) -> Vector:
    color = [float(c) for c in _input(prim, "color", (1.0, 1.0, 1.0))]
    if bool(_input(prim, "enableColorTemperature", False)):
        from pxr import UsdLux

        warmth = UsdLux.BlackbodyTemperatureAsRgb(float(_input(prim, "colorTemperature", 6500.0)))
        color = [c * float(w) for c, w in zip(color, warmth, strict=True)]
    return (max(color[0], 0.0), max(color[1], 0.0), max(color[2], 0.0))


def _casts_shadows(prim: Usd.Prim) -> bool:
    attribute = prim.GetAttribute("inputs:shadow:enable")
    value = attribute.Get() if attribute else None
    return True if value is None else bool(value)


def _direction(prim: Usd.Prim, cache: Any, world_from_stage: Gf.Matrix4d | None) -> Vector:
    """Returns the direction in which a light's -Z axis looks, in the world."""
    from pxr import Gf

    matrix = cache.GetLocalToWorldTransform(prim)
    if world_from_stage is not None:
        matrix = matrix * world_from_stage
    direction = matrix.TransformDir(Gf.Vec3d(0, 0, -1)).GetNormalized()
    return (float(direction[0]), float(direction[1]), float(direction[2]))


def _is_visible(prim: Usd.Prim) -> bool:
    from pxr import UsdGeom

    imageable = UsdGeom.Imageable(prim)
    return not imageable or imageable.ComputeVisibility() != UsdGeom.Tokens.invisible
