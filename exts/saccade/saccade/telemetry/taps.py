"""Counts what leaves the GPU beside the results, by name: what is kept, recorded or published raw."""

from __future__ import annotations

from collections.abc import Callable

import warp as wp


class Tap:
    """Copies arrays and counts what came from a GPU."""

    def __init__(self) -> None:
        self.bytes = 0
        self.count = 0

    def copy(self, target: wp.array, source: wp.array) -> None:
        """Launches the copy of ``source`` to an array of the same shape and type."""
        wp.copy(target, source)
        if source.device.is_cuda and target.device.is_cpu:
            self.bytes += source.size * wp.types.type_size_in_bytes(source.dtype)
            self.count += 1

    def facts(self) -> dict[str, int]:
        """Returns ``bytes`` and ``count`` so far; both 0 where the arrays are the host's own."""
        return {"bytes": self.bytes, "count": self.count}


Taps = dict[str, Callable[[], dict[str, int]]]
"""Facts of each tap by name."""
