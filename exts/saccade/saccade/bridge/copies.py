"""CopySender: hands arrays over to be published, copied into slots that come back when their message has gone."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import warp as wp

from saccade.bridge.bridge import Topic
from saccade.telemetry.taps import Tap


class CopySender:
    """Publishes arrays that their owner is about to overwrite.

    Slots are allocated with a topic's first message.
    """

    def __init__(self) -> None:
        self._slots: dict[str, _Slots] = {}
        self.tap = Tap()
        """What left a GPU to be published."""

    def send(self, topic: Topic, arrays: Mapping[str, wp.array], make: Callable[..., Any]) -> None:
        """Copies ``arrays`` and publishes ``make(*copies)``, which is called later, on the outbox's thread."""
        slots = self._slots.get(topic.name)
        if slots is None:
            # One message more than can wait is being sent, and one more is being copied here.
            slots = self._slots[topic.name] = _Slots(arrays, topic.channel.capacity + 2)
        slot = slots.copy(arrays, self.tap)
        topic.publish(lambda: make(*slot), release=lambda: slots.free.put(slot))


class _Slots:
    """Host copies for one topic's messages; pinned where the sensor is on a GPU."""

    def __init__(self, arrays: Mapping[str, wp.array], count: int) -> None:
        self.free: queue.SimpleQueue[list[np.ndarray]] = queue.SimpleQueue()
        self._arrays: dict[int, list[wp.array]] = {}
        for _ in range(count):
            kept = [
                wp.empty(array.shape, dtype=array.dtype, device="cpu", pinned=array.device.is_cuda)
                for array in arrays.values()
            ]
            views = [array.numpy() for array in kept]
            self._arrays[id(views)] = kept
            self.free.put(views)

    def copy(self, arrays: Mapping[str, wp.array], tap: Tap) -> list[np.ndarray]:
        """Copies the arrays into a free slot and returns its views."""
        views = self.free.get_nowait()
        device = None
        for target, source in zip(self._arrays[id(views)], arrays.values(), strict=True):
            tap.copy(target, source)
            device = source.device
        if device is not None and device.is_cuda:
            wp.synchronize_stream(device.stream)
        return views
