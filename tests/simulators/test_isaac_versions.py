"""The resolver: which core API and adapter a release has, and why others are refused."""

import pytest

from saccade.configuration import load_configuration
from saccade.errors import DependencyError
from saccade.simulators.isaac_versions import SUPPORTED, core_api, release_of


@pytest.mark.parametrize(
    ("version", "core", "adapter"),
    [
        ("5.0.0-rc.45", "isaacsim.core.api", "saccade.simulators.isaac_5"),
        ("5.1.0", "isaacsim.core.api", "saccade.simulators.isaac_5"),
        ("6.0.1-rc.7+main.0", "isaacsim.core.experimental", "saccade.simulators.isaac_6"),
        ("6.2.0.0", "isaacsim.core.experimental", "saccade.simulators.isaac_6"),
    ],
)
def test_supported_releases(version, core, adapter):
    release = release_of(version)
    assert (release.core, release.adapter, release.read) == (core, adapter, True)
    assert release.name in SUPPORTED


@pytest.mark.parametrize(
    ("version", "why"),
    [("4.2.0", "omni.isaac.core"), ("4.5.0", "not public"), ("7.0", "newer"), ("nightly", "no version")],
)
def test_refused_with_the_reason(version, why):
    with pytest.raises(DependencyError, match=why):
        release_of(version)


def test_core_api_by_version():
    assert [core_api(*v) for v in ((4, 2), (4, 5), (5, 1), (6, 0))] == [
        "omni.isaac.core",
        "isaacsim.core.api",
        "isaacsim.core.api",
        "isaacsim.core.experimental",
    ]


def test_a_configuration_for_another_simulator_is_rendered_larger_with_the_same_view():
    from saccade.simulators.isaac_checks import isaac_overrides

    loaded = load_configuration("warehouse", overrides=["sensors.head_camera.height=168"])
    changes = isaac_overrides(loaded.config)
    assert changes == [
        "simulator.backend=isaac",
        "sensors.head_camera.width=448",
        "sensors.head_camera.height=336",
    ]
    config = load_configuration("warehouse", overrides=changes).config
    assert isaac_overrides(config) == ["simulator.backend=isaac"]
    focal = ["sensors.head_camera.focal=[100, 110]", "sensors.head_camera.principal=[112.5, 100]"]
    config = load_configuration("warehouse", overrides=focal).config
    assert isaac_overrides(config)[-2:] == [
        "sensors.head_camera.focal=[200.0, 220.0]",
        "sensors.head_camera.principal=[225.0, 200.0]",
    ]


def test_a_rotation_that_takes_more_than_an_update_is_told():
    from saccade.simulators.isaac_checks import warnings_of

    def told(*overrides):
        config = load_configuration("isaac", overrides=overrides).config
        settings = {"/renderer/multiGpu/enabled": False}
        return [note for note in warnings_of(config, release_of("6.0.1"), settings, (), {}) if "rotation" in note]

    assert not told()
    (note,) = told("simulator.step=0.02")
    assert "sensors.lidar: a rotation takes 0.1 s and an update 0.02 s" in note and "simulator.step: 0.1" in note
    assert not told("sensors.lidar.rate=20", "simulator.step=0.05") and told("sensors.lidar.rate=5")


def test_what_differs():
    five, early, late = (release_of(v) for v in ("5.1.0", "6.0.1", "6.1.0"))
    assert (five.lidar_on_device, early.lidar_on_device) == (True, False)
    assert [r.resizes_small for r in (five, early, late)] == [True, True, False]
    assert [r.exit_status for r in (five, early, late)] == ["os._exit", "os._exit", "close"]
    assert not release_of("6.3.0").read
