"""Lights: sun, sky, colour, exposure, what a stage without light gets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pxr")
from pxr import Gf, Usd, UsdGeom, UsdLux

from saccade.scenes.lights import EXPOSURE_LIMITS, GROUND_SHARE, lighting_from_stage


def _sun(
    stage: Usd.Stage, path: str = "/sun", *, intensity: float = 3000, rotation: tuple = (0, 0, 0)
) -> UsdLux.DistantLight:
    sun = UsdLux.DistantLight.Define(stage, path)
    sun.CreateIntensityAttr(intensity)
    UsdGeom.Xformable(sun).AddRotateXYZOp().Set(Gf.Vec3f(*rotation))
    return sun


def test_no_light_is_said() -> None:
    lighting = lighting_from_stage(Usd.Stage.CreateInMemory())
    assert any("no light" in text for text in lighting.warnings)
    assert math.hypot(*lighting.sun_direction) == pytest.approx(1.0, abs=1e-6)
    assert lighting.sun_direction[2] < 0


def test_sun_direction_and_sky() -> None:
    stage = Usd.Stage.CreateInMemory()
    _sun(stage, rotation=(60, 0, 0))
    UsdLux.DomeLight.Define(stage, "/sky").CreateIntensityAttr(1000)
    lighting = lighting_from_stage(stage)
    # -z turned by 60 degrees about x
    assert lighting.sun_direction == pytest.approx(
        (0.0, math.sin(math.radians(60)), -math.cos(math.radians(60))), abs=1e-6
    )
    assert lighting.sky_color[0] / lighting.sun_color[0] == pytest.approx(1000 / 3000)
    assert lighting.ground_color[0] == pytest.approx(GROUND_SHARE * lighting.sky_color[0])
    assert lighting.cast_shadows and not lighting.warnings


def test_intensity_exposure_colour_and_shadows() -> None:
    stage = Usd.Stage.CreateInMemory()
    sun = _sun(stage, intensity=750)
    sun.CreateExposureAttr(2.0)
    sun.CreateColorAttr(Gf.Vec3f(1.0, 0.5, 0.25))
    UsdLux.ShadowAPI.Apply(sun.GetPrim()).CreateShadowEnableAttr(False)
    UsdLux.DomeLight.Define(stage, "/sky").CreateIntensityAttr(1000)
    lighting = lighting_from_stage(stage)
    red, green, blue = lighting.sun_color
    assert (green / red, blue / red) == pytest.approx((0.5, 0.25))
    assert red / lighting.sky_color[0] == pytest.approx(3.0)
    assert not lighting.cast_shadows


def test_the_strongest_sun_wins_and_invisible_ones_do_not_shine() -> None:
    stage = Usd.Stage.CreateInMemory()
    _sun(stage, "/weak", intensity=500)
    _sun(stage, "/strong", intensity=3000, rotation=(45, 0, 0))
    hidden = _sun(stage, "/hidden", intensity=9000)
    UsdGeom.Imageable(hidden).MakeInvisible()
    lighting = lighting_from_stage(stage)
    assert lighting.sun_direction[1] == pytest.approx(math.sqrt(0.5), abs=1e-6)
    assert any("/weak" in text for text in lighting.warnings)
    assert "/hidden" not in lighting.source


def test_local_lights_lend_a_direction() -> None:
    stage = Usd.Stage.CreateInMemory()
    lamp = UsdLux.RectLight.Define(stage, "/lamp")
    lamp.CreateIntensityAttr(5000)
    UsdGeom.Xformable(lamp).AddRotateYOp().Set(30.0)
    lighting = lighting_from_stage(stage)
    assert lighting.sun_direction == pytest.approx((-0.5, 0.0, -math.sqrt(0.75)), abs=1e-6)
    assert any("/lamp" in text for text in lighting.warnings)
    assert max(lighting.sky_color) > 0


def test_a_dome_alone_casts_no_shadow() -> None:
    stage = Usd.Stage.CreateInMemory()
    UsdLux.DomeLight.Define(stage, "/sky").CreateIntensityAttr(2000)
    lighting = lighting_from_stage(stage)
    assert lighting.sun_color == (0.0, 0.0, 0.0)
    assert not lighting.cast_shadows


@given(sun=st.floats(1.0, 1e6), sky=st.floats(1.0, 1e6))
def test_exposure_keeps_pictures_between_black_and_burnt(sun: float, sky: float) -> None:
    stage = Usd.Stage.CreateInMemory()
    _sun(stage, intensity=sun)
    UsdLux.DomeLight.Define(stage, "/sky").CreateIntensityAttr(sky)
    lighting = lighting_from_stage(stage)
    total = lighting.sun_color[0] + lighting.sky_color[0]
    low, high = EXPOSURE_LIMITS
    assert low - 1e-6 <= total <= high + 1e-6
    assert lighting.sun_color[0] / lighting.sky_color[0] == pytest.approx(sun / sky, rel=1e-5)
