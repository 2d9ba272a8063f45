"""Quality of service: the presets, and which offers meet which requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Preset = Literal["default", "reliable_sensor", "sensor", "latched", "clock"]


@dataclass(frozen=True, slots=True)
class QualityOfService:
    """What a publisher offers or a subscriber requests; the history always keeps the last ``depth`` samples."""

    reliable: bool = True
    transient_local: bool = False
    """A late subscriber gets the last ``depth`` samples."""
    depth: int = 10
    """0 = not known, of another node's endpoint."""

    def __str__(self) -> str:
        return (
            f"{'reliable' if self.reliable else 'best effort'}, "
            f"{'transient local' if self.transient_local else 'volatile'}, depth {self.depth or 'unknown'}"
        )


PRESETS: dict[str, QualityOfService] = {
    "default": QualityOfService(depth=10),
    # Reliable: a best-effort subscriber still matches, while a reliable one never matches a best-effort publisher.
    "reliable_sensor": QualityOfService(depth=10),
    "sensor": QualityOfService(reliable=False, depth=5),
    "latched": QualityOfService(transient_local=True, depth=1),
    "clock": QualityOfService(reliable=False, depth=1),
}
"""ROS 2's own profiles by name; ``reliable_sensor`` is what this bridge publishes sensors with."""


def mismatches(offered: QualityOfService, requested: QualityOfService) -> list[str]:
    """Returns the policies for which a publisher's offer does not meet a subscriber's request; none = they match."""
    found = []
    if requested.reliable and not offered.reliable:
        found.append("reliability")
    if requested.transient_local and not offered.transient_local:
        found.append("durability")
    return found
