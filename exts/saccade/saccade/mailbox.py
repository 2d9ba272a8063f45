"""The small results of one frame, side by side on the device, so that one copy brings them to the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import warp as wp

from saccade.kernels.decode import SUMMARY_SIZE

MAX_STAMPS = 64
"""Time stamps that one frame can take on the device."""


class Mailbox:
    """Summaries of all networks and the device's time stamps, with their host side.

    On the CPU both sides are the same memory. On CUDA the host side is pinned, and :meth:`fetch` is the only copy
    from the device that a frame needs.

    Args:
        rows: Summaries: images and scans of all networks together.
        device: Warp device.
    """

    def __init__(self, rows: int, device: Any):
        self.device = wp.get_device(device)
        # Stamps first: they need eight bytes' alignment.
        self._stamp_bytes = MAX_STAMPS * 8
        size = self._stamp_bytes + rows * SUMMARY_SIZE * 4
        self._array = wp.zeros(size, dtype=wp.uint8, device=self.device)
        on_cpu = self.device.is_cpu
        self._host = self._array if on_cpu else wp.zeros(size, dtype=wp.uint8, device="cpu", pinned=True)
        view = self._host.numpy()
        self.stamps = self._part(0, (MAX_STAMPS,), wp.uint64)
        """Device times [ns] by slot, shape ``(MAX_STAMPS,)``, uint64; 0 = not taken."""
        self.stamp_values: np.ndarray = view[: self._stamp_bytes].view(np.uint64)
        """Host side of :attr:`stamps`."""
        self._values = view[self._stamp_bytes :].view(np.float32).reshape(rows, SUMMARY_SIZE)

    @property
    def size(self) -> int:
        """Bytes that :meth:`fetch` copies."""
        return int(self._array.size)

    def rows(self, first: int, count: int) -> tuple[wp.array, np.ndarray]:
        """Returns summaries as a device array and its host side, both of shape ``(count, SUMMARY_SIZE)``, float32."""
        offset = self._stamp_bytes + first * SUMMARY_SIZE * 4
        return self._part(offset, (count, SUMMARY_SIZE), wp.float32), self._values[first : first + count]

    def clear(self) -> None:
        """Launches setting everything to 0 on the device."""
        self._array.zero_()

    def fetch(self) -> None:
        """Launches the copy to the host; its values hold once the stream has been waited for."""
        if self._host is not self._array:
            wp.copy(self._host, self._array)

    def _part(self, offset: int, shape: tuple[int, ...], dtype: Any) -> wp.array:
        part = wp.array(ptr=self._array.ptr + offset, shape=shape, dtype=dtype, device=self.device)
        part._saccade_owner = self._array  # the memory must outlive the alias
        return part
