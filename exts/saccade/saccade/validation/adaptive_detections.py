"""Counts what a network detected, where its labels are."""

# Warp reads the annotations of kernels: they are its array types, not Python's.
# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

from typing import Any

import warp as wp

from saccade.frame import OBSTACLE, ROBOT


@wp.kernel(enable_backward=False)
def _count(labels: wp.array2d(dtype=wp.uint8), low: int, high: int, counts: wp.array(dtype=wp.int32)):
    y, x = wp.tid()
    label = int(labels[y, x])
    if label >= low and label <= high:
        wp.atomic_add(counts, 0, 1)


class DetectionCounter:
    """Counts pixels or returns labelled obstacle, person or robot; every array is allocated here, none per call.

    Args:
        labels: Class indices, shape ``(height, width)``, uint8; read anew by every :meth:`count`.
    """

    def __init__(self, labels: wp.array) -> None:
        self._labels = labels  # kept: another array must not come to lie at the same address
        device = labels.device
        self._stream: Any = device.stream if device.is_cuda else None
        self._counts = wp.zeros(1, dtype=wp.int32, device=device)
        self._host = wp.zeros(1, dtype=wp.int32, device="cpu", pinned=True) if device.is_cuda else self._counts
        self._view = self._host.numpy()
        self._launch = wp.launch(
            _count, dim=labels.shape, inputs=[labels, OBSTACLE, ROBOT], outputs=[self._counts], device=device,
            record_cmd=True,
        )  # fmt: skip

    def count(self) -> int:
        """Returns the number of the labels as they are now; on CUDA it waits for the current stream."""
        self._counts.zero_()
        self._launch.launch()
        if self._stream is not None:
            wp.copy(self._host, self._counts)
            wp.synchronize_stream(self._stream)
        return int(self._view[0])
