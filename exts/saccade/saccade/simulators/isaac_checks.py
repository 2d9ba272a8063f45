"""What has to hold before a run in Isaac Sim begins, and what it does otherwise than configured; no omni in here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from saccade.config import CameraConfig, RunConfig
from saccade.errors import ConfigurationError
from saccade.simulators.isaac_versions import RENDERED_SIDE, SMALL_SIDE, STABLE_IDS, THROTTLING, Release

WAITING = (
    ("/app/hydraEngine/waitIdle", True),
    ("/app/asyncRendering", False),
    ("/omni/replicator/asyncRendering", False),
    (THROTTLING, False),
)
"""Settings with which every update waits for its own frames, and goes on doing so after a stop or a pause."""


def check_settings(settings: Mapping[str, Any], config: RunConfig, device: str) -> None:
    """Verifies that a lockstep run gets one frame per update, and that the renderer is on the engines' GPU.

    Args:
        settings: By path, as the application has them.
        config: The run.
        device: Of the engines, ``"cpu"`` or ``"cuda:N"``.

    Raises:
        ConfigurationError: They do not fit; the text says how to start.
    """
    if config.simulator.pace == "lockstep":
        wrong = [(path, wanted) for path, wanted in WAITING if bool(settings[path]) is not wanted]
        if wrong:
            listed = " and ".join(f"{path} is {settings[path]}, not {wanted}" for path, wanted in wrong)
            options = " ".join(f"--{path}={str(wanted).lower()}" for path, wanted in wrong)
            raise ConfigurationError(
                f"simulator.pace: lockstep needs the renderer to be waited for, and {listed}: start with the "
                f"experience isaacsim.exp.base.zero_delay.kit (scripts/isaac_validate.py does), or with "
                f"--/app/updateOrder/checkForHydraRenderComplete=1000 {options}, or use simulator.pace: realtime"
            )
    active = settings["/renderer/activeGpu"]
    ordinal = int(device.partition(":")[2] or 0)
    if device != "cpu" and isinstance(active, int) and active >= 0 and active != ordinal:
        raise ConfigurationError(
            f"the renderer is on GPU {active} (/renderer/activeGpu), the engines are on {device}: frames would have "
            f"to be copied. Start with --/renderer/activeGpu={ordinal}"
        )


def check_sensors(config: RunConfig, release: Release) -> None:
    """Refuses cameras that the release's upscaler would give in another size.

    Raises:
        ConfigurationError: The text says what to configure instead.
    """
    for name, sensor in config.sensors.items():
        if not isinstance(sensor, CameraConfig) or not release.resizes_small:
            continue
        if min(sensor.width, sensor.height) < SMALL_SIDE:
            raise ConfigurationError(
                f"sensors.{name}: {sensor.width}x{sensor.height} is too small for Isaac Sim {release.name}, whose "
                f"upscaler gives buffers of another size below {SMALL_SIDE} px: render at 320 px or more and give the "
                f"network's input the size that it takes (networks.<name>.inputs.<tensor>.size)"
            )


def isaac_overrides(config: RunConfig) -> list[str]:
    """Returns what makes a configuration that was not written for Isaac Sim run in it, as ``--set`` has it.

    Cameras below :data:`RENDERED_SIDE` are rendered larger by a whole factor, with the same view, in every release; the
    networks' inputs scale the pictures down.

    Args:
        config: The run, for whatever simulator.
    """
    found = ["simulator.backend=isaac"]
    for name, sensor in config.sensors.items():
        if not isinstance(sensor, CameraConfig) or min(sensor.width, sensor.height) >= RENDERED_SIDE:
            continue
        factor = math.ceil(RENDERED_SIDE / min(sensor.width, sensor.height))
        values: dict[str, Any] = {"width": factor * sensor.width, "height": factor * sensor.height}
        for key, pair in (("focal", sensor.focal), ("principal", sensor.principal)):
            if pair is not None:
                values[key] = [factor * value for value in pair]
        found += [f"sensors.{name}.{key}={json.dumps(value)}" for key, value in values.items()]
    return found


def no_labels_reason(release: Release, settings: Mapping[str, Any]) -> str:
    """Returns why a LiDAR's returns have no labels; empty where they should have.

    Args:
        release: Which Isaac Sim runs.
        settings: By path.
    """
    if (release.major, release.minor) < (5, 1):
        return (
            f"Isaac Sim {release.name} hands out no map from its LiDARs' object ids to prims (StableIdMap comes with "
            f"5.1)"
        )
    if not settings.get(STABLE_IDS):
        return (
            f"the renderer names no things while {STABLE_IDS} is {settings.get(STABLE_IDS)}: start with "
            f"--{STABLE_IDS}=true (scripts/isaac_validate.py does)"
        )
    return ""


def warnings_of(
    config: RunConfig, release: Release, settings: Mapping[str, Any], missing: Sequence[str], streams: Mapping[str, Any]
) -> list[str]:
    """Returns what the run does otherwise than the configuration reads, in sentences.

    Args:
        config: The run.
        release: Which Isaac Sim runs.
        settings: By path.
        missing: Extensions that could not be enabled.
        streams: By sensor.
    """
    notes = []
    if not release.read:
        notes.append(f"the interface of Isaac Sim {release.version} was not read: its neighbours' is assumed")
    for name, sensor in config.sensors.items():
        noise = sensor.noise.model_dump()
        if any(noise[key] != (1.0 if key == "exposure" else 0.0) for key in noise):
            notes.append(f"sensors.{name}.noise belongs to the embedded simulator's sensors and is not added here")
        period = 1.0 / sensor.rate
        if sensor.kind == "lidar" and not math.isclose(period, config.simulator.step):
            notes.append(
                f"sensors.{name}: a rotation takes {period:g} s and an update {config.simulator.step:g} s: the returns "
                f"of a frame may be up to {period:g} s older than its time; with simulator.step: {period:g} every "
                f"update completes a rotation"
            )
    for name, stream in streams.items():
        if reason := getattr(stream, "no_labels_reason", ""):
            notes.append(f"sensors.{name}: returns have no labels, and the LiDAR's accuracy is absent: {reason}")
    notes += [f"the extension {name} could not be enabled" for name in missing]
    if settings["/renderer/multiGpu/enabled"]:
        notes.append("/renderer/multiGpu/enabled is set: frames may be rendered on another GPU than the engines'")
    return notes
