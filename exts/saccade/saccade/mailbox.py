"""The small results of one frame, side by side in memory of the host that kernels write to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import warp as wp

from saccade.kernels.decode import SUMMARY_SIZE, SmallOutput, record_results
from saccade.kernels.stamps import Marks, new_timer, record_stamp

MAX_STAMPS = 64
"""Time stamps that one frame can take on the device."""


class Mailbox:
    """Summaries of all networks and the device's time stamps.

    They lie in pinned memory of the host, to which kernels of the device write (CUDA C++ Programming Guide, mapped
    memory under unified addressing): no copy brings them there, and none of them is read over the bus. What is added up
    by many threads is added up in the device's own memory, and :meth:`record_results` writes it at the end of a frame.
    On the CPU it is plain memory.

    Args:
        rows: Summaries: images and scans of all networks together.
        device: Warp device.
    """

    def __init__(self, rows: int, device: Any):
        self.device = wp.get_device(device)
        # Stamps first: they need eight bytes' alignment.
        self._stamp_bytes = MAX_STAMPS * 8
        size = self._stamp_bytes + rows * SUMMARY_SIZE * 4
        self._host = wp.zeros(size, dtype=wp.uint8, device="cpu", pinned=self.device.is_cuda)
        view = self._host.numpy()
        self.stamps = self._part(0, (MAX_STAMPS,), wp.uint64)
        """Device times [ns] by slot, shape ``(MAX_STAMPS,)``, uint64; those that a frame does not take are older."""
        self.stamp_values: np.ndarray = view[: self._stamp_bytes].view(np.uint64)
        """The same memory as the host has it."""
        self._summaries = self._part(self._stamp_bytes, (rows, SUMMARY_SIZE), wp.float32)
        self._values = view[self._stamp_bytes :].view(np.float32).reshape(rows, SUMMARY_SIZE)
        self._counts = wp.zeros(rows, dtype=wp.int32, device=self.device)
        self._ends = wp.zeros(MAX_STAMPS, dtype=wp.uint64, device=self.device)
        self._timer = new_timer(self.device)

    @property
    def row_bytes(self) -> int:
        """Bytes of a summary."""
        return SUMMARY_SIZE * 4

    def rows(self, first: int, count: int) -> np.ndarray:
        """Returns summaries, shape ``(count, SUMMARY_SIZE)``, float32; they hold once the stream was waited for."""
        return self._values[first : first + count]

    def counts(self, first: int, count: int) -> wp.array:
        """Returns where the non-finite values of images and scans are counted, shape ``(count,)``, int32."""
        return self._counts[first : first + count]

    def marks(self, *, first: int = -1, last: int = -1) -> Marks:
        """Returns which stamps a kernel takes of itself.

        Args:
            first: Slot of the time at which it begins; -1 = none.
            last: Slot of the time at which it ends, which only :meth:`record_results` brings to the host; -1 = none.
        """
        marks = Marks()
        marks.first, marks.last = first, last
        marks.times, marks.ends, marks.timer = self.stamps, self._ends, self._timer
        return marks

    def record_stamp(self, slot: int) -> wp.Launch:
        """Returns a recorded launch of one thread that stamps a point between two others."""
        return record_stamp(self.stamps, slot, self._timer)

    def record_results(self, outputs: Sequence[SmallOutput], rows: Sequence[int], *, first: int = -1) -> wp.Launch:
        """Returns a recorded launch that completes summaries and brings stamps of ends to the host.

        Args:
            outputs: Of networks, which are small.
            rows: Summaries that are completed.
            first: Slot of the time at which it begins; -1 = none.
        """
        return record_results(outputs, rows, self._counts, self._summaries, self.marks(first=first))

    def _part(self, offset: int, shape: tuple[int, ...], dtype: Any) -> wp.array:
        # The device reaches pinned memory by the host's own address.
        part = wp.array(ptr=self._host.ptr + offset, shape=shape, dtype=dtype, device=self.device)
        part._saccade_owner = self._host  # the memory must outlive the alias
        return part
