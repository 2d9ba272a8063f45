"""FramePool: own copies of a simulator's frames, in buffers that are used again."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import warp as wp

from saccade.errors import ConfigurationError
from saccade.frame import Frame

Layout = tuple[tuple[str, tuple[int, ...], Any, str], ...]
"""Name, shape, dtype and device of each buffer, in the frame's order."""


class FramePool:
    """Copies frames whose buffers are only valid until the simulator's next ``sense()``.

    Made for ``Pipeline(keep=pool.keep, release=pool.release)``. There are as many buffers as frames were ever kept
    at once, which the pipeline's bounds limit; after that nothing is allocated.

    Args:
        stream: CUDA stream of the copies, ordered before and after with the device's current stream; ``None`` = the
            current stream itself. The host waits for nothing: who reads a kept frame on a third stream, or releases
            it while that still reads, orders the two.
    """

    def __init__(self, *, stream: wp.Stream | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._free: dict[Layout, list[dict[str, wp.array]]] = {}
        self._lent: dict[int, tuple[Layout, Frame]] = {}
        self.copied_frames = 0
        self.copied_bytes = 0
        self.allocated_frames = 0
        """Sets of buffers that had to be allocated."""

    def keep(self, frame: Frame) -> Frame:
        """Returns a frame with the same values, in buffers of this pool, and stamps of its own."""
        layout: Layout = tuple(
            (name, tuple(array.shape), array.dtype, str(array.device)) for name, array in frame.buffers.items()
        )
        with self._lock:
            free = self._free.get(layout)
            buffers = free.pop() if free else None
        allocated = buffers is None
        if buffers is None:
            buffers = {name: wp.empty(shape, dtype=dtype, device=device) for name, shape, dtype, device in layout}
        if self._stream is not None:
            # New buffers are allocated, and the simulator writes, in the order of the current stream.
            self._stream.wait_stream(self._stream.device.stream)
        for name, source in frame.buffers.items():
            wp.copy(buffers[name], source, stream=self._stream if source.device.is_cuda else None)
        if self._stream is not None:
            # The simulator's next writes must come after the copies.
            self._stream.device.stream.wait_stream(self._stream)
        kept = replace(frame, stamps=replace(frame.stamps), buffers=buffers)
        with self._lock:
            self._lent[id(kept)] = (layout, kept)
            self.copied_frames += 1
            self.copied_bytes += sum(array.capacity for array in buffers.values())
            self.allocated_frames += allocated
        return kept

    def release(self, frame: Frame) -> None:
        """Takes the buffers of a kept frame back; the frame must not be read any more.

        Raises:
            ConfigurationError: The frame was not kept by this pool, or was released already.
        """
        with self._lock:
            lent = self._lent.pop(id(frame), None)
            if lent is None:
                raise ConfigurationError(
                    f"frame {frame.sequence} of {frame.sensor} is not one that this pool keeps: release what keep() "
                    f"returned, once"
                )
            self._free.setdefault(lent[0], []).append(dict(frame.buffers))

    @property
    def lent_frames(self) -> int:
        """Kept frames that were not released yet."""
        return len(self._lent)
