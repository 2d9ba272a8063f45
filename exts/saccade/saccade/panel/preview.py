"""Pictures of what the sensors see: drawn where the frames are, into buffers of their own that a window may show."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saccade.frame import Frame
from saccade.kernels.preview import draw_ranges

if TYPE_CHECKING:
    import warp as wp

PERIOD_S = 0.1
"""Shortest time between two pictures of one sensor [s]."""


@dataclass(frozen=True, slots=True)
class Preview:
    """One sensor's newest picture."""

    sensor: str
    array: wp.array
    """Packed RGBA (red lowest), shape ``(height, width)``, uint32, contiguous; it stays where it is and is drawn anew
    in place."""
    sequence: int
    """Of the frame that it shows."""

    @property
    def size(self) -> tuple[int, int]:
        """Width, height [px]."""
        return self.array.shape[1], self.array.shape[0]


class Previews:
    """Draws the newest frame of every sensor, on the frame's own device: nothing leaves it.

    Args:
        range_max: By LiDAR, the range that is drawn darkest [m].
    """

    def __init__(self, range_max: dict[str, float]) -> None:
        self._range_max = range_max
        self._lock = threading.Lock()
        self._shown: dict[str, Preview] = {}
        self._due: dict[str, float] = {}
        self._streams: dict[str, Any] = {}
        self.enabled = False
        """Whether anybody looks: nothing is drawn otherwise."""

    @property
    def shown(self) -> dict[str, Preview]:
        """The newest picture of each sensor."""
        with self._lock:
            return dict(self._shown)

    def take(self, frames: Sequence[Frame]) -> None:
        """Draws frames whose turn it is; called outside the latency that is measured, while their buffers are valid."""
        if not self.enabled:
            return
        now = time.monotonic()
        for frame in frames:
            if now < self._due.get(frame.sensor, 0.0):
                continue
            self._due[frame.sensor] = now + PERIOD_S
            self._draw(frame)

    def _draw(self, frame: Frame) -> None:
        import warp as wp

        source = frame.buffers.get("color" if frame.kind == "camera" else "ranges")
        if source is None:
            return
        known = self._shown.get(frame.sensor)
        if known is not None and known.array.shape == source.shape and known.array.device == source.device:
            target = known.array
        else:
            target = wp.zeros(source.shape, dtype=wp.uint32, device=source.device)
        if frame.kind == "camera":
            wp.copy(target, source)
        else:
            draw_ranges(source, target, self._range_max.get(frame.sensor, 30.0))
        # Who shows it reads the memory without asking for a stream: the picture must be there when this returns. It is
        # outside of every latency, and a copy of one small picture on the device.
        if source.device.is_cuda:
            wp.synchronize_stream(wp.get_stream(source.device))
        with self._lock:
            self._shown[frame.sensor] = Preview(frame.sensor, target, frame.sequence)
