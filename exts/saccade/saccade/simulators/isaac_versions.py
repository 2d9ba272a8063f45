"""Which Isaac Sim this is, what its core API is called, and which adapter speaks to it; imports nothing of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from saccade.errors import DependencyError

SUPPORTED = ("5.0", "5.1", "6.0", "6.1", "6.2")
"""Releases whose interface was read; nothing has been run in any of them."""

SMALL_SIDE = 300
"""Sides of a render product below this [px] come back in another size up to 6.0: the upscaler's doing."""

RENDERED_SIDE = 320
"""Smallest side [px] that a camera of a configuration not written for Isaac Sim is rendered with."""

STABLE_IDS = "/rtx-transient/stableIds/enabled"
"""Setting that the renderer reads when it starts: only then its LiDARs say which prim a return came from."""

THROTTLING = "/exts/isaacsim.core.throttling/enable_async"
"""Setting that the full application has on: asynchronous rendering then comes back with every stop and pause."""

ZERO_DELAY_EXPERIENCE = "isaacsim.exp.base.zero_delay.kit"
PYTHON_EXPERIENCE = "isaacsim.exp.base.python.kit"


@dataclass(frozen=True, slots=True)
class Release:
    """One Isaac Sim release."""

    version: str
    """As it calls itself, such as ``"6.0.1-rc.7"``."""
    major: int
    minor: int
    core: str
    """The core API: ``"omni.isaac.core"``, ``"isaacsim.core.api"`` or ``"isaacsim.core.experimental"``."""
    adapter: str
    """Module of this package that speaks to it."""
    read: bool
    """Whether the interface of exactly this release was read."""

    @property
    def name(self) -> str:
        """Major and minor number, such as ``"6.0"``."""
        return f"{self.major}.{self.minor}"

    @property
    def lidar_on_device(self) -> bool:
        """Whether RTX LiDARs leave their returns on the GPU: the output of 6.x is in host memory."""
        return self.major < 6

    @property
    def resizes_small(self) -> bool:
        """Whether a product with a side below :data:`SMALL_SIDE` comes back in another size, without a word."""
        return (self.major, self.minor) < (6, 1)

    @property
    def exit_status(self) -> str:
        """How a script ends with a status of its own: ``"os._exit"``, or ``"close"`` where close() keeps it."""
        return "close" if (self.major, self.minor) >= (6, 1) else "os._exit"

    @property
    def ros_extension(self) -> str:
        """The extension below which the release keeps its own rclpy."""
        return "isaacsim.ros2.bridge" if self.major < 6 else "isaacsim.ros2.core"


def core_api(major: int, minor: int) -> str:
    """Returns what the core API is called in a release.

    ``omni.isaac.core`` is still there as a shim up to 5.1 and gone in 6.x; ``isaacsim.core.api`` begins with 4.5 and is
    deprecated in 6.x, where the experimental modules and the managers of simulation and rendering take over.
    """
    if (major, minor) < (4, 5):
        return "omni.isaac.core"
    return "isaacsim.core.api" if major < 6 else "isaacsim.core.experimental"


def release_of(version: str) -> Release:
    """Returns the release of a version text.

    Args:
        version: As ``isaacsim.core.version.get_version()`` gives it first, or as the file VERSION holds it.

    Raises:
        DependencyError: The release cannot be used; the text says why and which can.
    """
    match = re.match(r"\s*(\d+)\.(\d+)", version)
    if match is None:
        raise DependencyError(f"Isaac Sim calls its version {version!r}, which is no version: expected such as 6.0.1")
    major, minor = int(match[1]), int(match[2])
    core = core_api(major, minor)
    supported = ", ".join(SUPPORTED)
    if core == "omni.isaac.core":
        raise DependencyError(
            f"Isaac Sim {major}.{minor} has its core API in {core} and sensors without the annotators that are needed "
            f"here: install one of {supported}"
        )
    if major < 5:
        raise DependencyError(
            f"Isaac Sim {major}.{minor} has {core}, but its sources are not public and nothing here was written "
            f"against them: install one of {supported}"
        )
    if major > 6:
        raise DependencyError(
            f"Isaac Sim {major}.{minor} is newer than what this version of Saccade was written against ({supported}): "
            f"update Saccade"
        )
    name = f"{major}.{minor}"
    return Release(version.strip(), major, minor, core, f"saccade.simulators.isaac_{major}", name in SUPPORTED)
