"""What a configuration asks for that an Isaac Sim release cannot give, or gives otherwise; imports nothing of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saccade.config import CameraConfig, RunConfig
from saccade.errors import ConfigurationError
from saccade.simulators.isaac_versions import SMALL_SIDE, Release


def check_sizes(config: RunConfig, release: Release) -> None:
    """Refuses cameras whose pictures would come back in another size.

    Raises:
        ConfigurationError: There is one; the text says what to do.
    """
    for name, sensor in config.sensors.items():
        if not isinstance(sensor, CameraConfig) or not release.resizes_small:
            continue
        if min(sensor.width, sensor.height) < SMALL_SIDE:
            raise ConfigurationError(
                f"sensors.{name}: {sensor.width}x{sensor.height} is too small for Isaac Sim {release.name}, "
                f"whose upscaler gives buffers of another size below {SMALL_SIDE} px: render at 320 px or more and "
                f"give the network's input the size that it takes (networks.<name>.inputs.<tensor>.size)"
            )


def warnings_of(
    config: RunConfig, release: Release, settings: Mapping[str, Any], missing_extensions: Sequence[str]
) -> list[str]:
    """Returns what the run does otherwise than the configuration reads."""
    notes = []
    if not release.read:
        notes.append(f"the interface of Isaac Sim {release.version} was not read: it is taken for that of 6.2")
    for name, sensor in config.sensors.items():
        noise = sensor.noise.model_dump()
        if any(noise[key] != (1.0 if key == "exposure" else 0.0) for key in noise):
            notes.append(f"sensors.{name}.noise belongs to the embedded simulator's sensors and is not added here")
    for name in missing_extensions:
        notes.append(f"the extension {name} could not be enabled")
    if settings["/renderer/multiGpu/enabled"]:
        notes.append("/renderer/multiGpu/enabled is set: frames may be rendered on another GPU than the engines'")
    return notes
