"""Maps the GPU's global timer onto the host's monotonic clock by paired samples."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import warp as wp

from saccade.frame import now_ns
from saccade.kernels.stamps import record_stamp

PAIRS = 8
"""Paired samples of one synchronisation; the tightest one counts."""

PERIOD_NS = 1_000_000_000
"""Time between two synchronisations [ns]."""

JUMP_NS = 1_000_000
"""A change of the offset by more than this between two synchronisations is a jump [ns]: the run is invalid."""


def gpu_pair(device: Any) -> Callable[[], tuple[int, int, int]]:
    """Returns a function that takes one paired sample: host time before, device time, host time after [ns]."""
    stamps = wp.zeros(1, dtype=wp.uint64, device=device)
    host = wp.zeros(1, dtype=wp.uint64, device="cpu", pinned=True)
    view = host.numpy()
    launch = record_stamp(stamps, 0)
    stream = wp.get_device(device).stream

    def sample() -> tuple[int, int, int]:
        wp.synchronize_stream(stream)
        before = now_ns()
        launch.launch()
        wp.copy(host, stamps)
        wp.synchronize_stream(stream)
        return before, int(view[0]), now_ns()

    return sample


class GpuClock:
    """Turns device times into host times.

    Each synchronisation takes :data:`PAIRS` paired samples and keeps the one with the smallest interval between the
    host times around it: the device time lies in that interval, so half of it bounds the error of its middle. Between
    synchronisations the offset is taken as constant; how far it had moved at the next one is part of the uncertainty.

    Args:
        pair: Takes one sample: host time before, device time, host time after [ns]; see :func:`gpu_pair`.
        now: The host's monotonic clock [ns].
    """

    def __init__(self, pair: Callable[[], tuple[int, int, int]], *, now: Callable[[], int] = now_ns) -> None:
        self._pair = pair
        self._now = now
        self._uncertainties: list[float] = []
        self._pairs = 0
        self._steps: list[int] = []
        self.offset = 0
        """Host time less device time [ns]."""
        self.jumps = 0
        self.clamped = 0
        """Stamps moved by :meth:`host_time` because the mapping put them outside their frame."""
        self._last_sync = -PERIOD_NS
        self._first = True
        self._tick: int | None = None

    def synchronise(self) -> None:
        """Takes paired samples now; a stream is waited for, so not while a frame is under way."""
        samples = [self._pair() for _ in range(PAIRS)]
        self._pairs += PAIRS
        before, device, after = min(samples, key=lambda sample: sample[2] - sample[0])
        offset = (before + after) // 2 - device
        uncertainty = (after - before) / 2
        if not self._first:
            step = offset - self.offset
            self._steps.append(abs(step))
            if abs(step) > JUMP_NS:
                self.jumps += 1
            uncertainty += abs(step)
        self._uncertainties.append(uncertainty)
        self._observe_tick([sample[1] for sample in samples])
        self.offset, self._first = offset, False
        self._last_sync = self._now()

    def synchronise_if_due(self) -> None:
        """Synchronises when the last time was a second ago or more."""
        if self._now() - self._last_sync >= PERIOD_NS:
            self.synchronise()

    def host_time(self, device: int, first: int, last: int) -> int:
        """Returns the host time [ns] of a device time [ns], between two host times that it is known to lie between.

        The mapping is off by some microseconds, the order of the stages is not: a time that it moved past its
        neighbour is put level with it and counted in :attr:`clamped`.
        """
        mapped = device + self.offset
        if first <= mapped <= last:
            return mapped
        self.clamped += 1
        return first if mapped < first else last

    def facts(self) -> dict[str, Any]:
        """Returns ``clock`` of the record: see docs/record.md."""
        return {
            "source": "GPU global timer, mapped by paired samples",
            "tick_ns": self._tick,
            "uncertainty_us": {
                "mean": statistics.fmean(self._uncertainties) * 1e-3 if self._uncertainties else None,
                "max": max(self._uncertainties) * 1e-3 if self._uncertainties else None,
            },
            "pairs": self._pairs,
            "jumps": self.jumps,
            "clamped": self.clamped,
        }

    def _observe_tick(self, times: list[int]) -> None:
        """Keeps the greatest common divisor of the differences seen: the timer's step."""
        for earlier, later in pairwise(times):
            if later != earlier:
                self._tick = int(np.gcd(self._tick or 0, later - earlier))
