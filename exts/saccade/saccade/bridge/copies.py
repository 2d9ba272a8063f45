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
            slots = self._slots[topic.name] = _Slots(arrays, topic.channel.capacity + 2, self.tap)
        slot = slots.copy(arrays)
        topic.publish(lambda: make(*slot.arrived()), release=lambda: slots.free.put(slot))


class _Slot:
    """Host copies of one message's arrays; pinned where the sensor is on a GPU."""

    def __init__(self, arrays: Mapping[str, wp.array], tap: Tap) -> None:
        self.arrays = [
            wp.empty(array.shape, dtype=array.dtype, device="cpu", pinned=array.device.is_cuda)
            for array in arrays.values()
        ]
        self.copies = tap.copies()
        self._views = [array.numpy() for array in self.arrays]

    def arrived(self) -> list[np.ndarray]:
        """Returns the copies, once they are there."""
        self.copies.wait()
        return self._views


class _Slots:
    """Slots for one topic's messages."""

    def __init__(self, arrays: Mapping[str, wp.array], count: int, tap: Tap) -> None:
        self.free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for _ in range(count):
            self.free.put(_Slot(arrays, tap))

    def copy(self, arrays: Mapping[str, wp.array]) -> _Slot:
        """Launches the copy of the arrays into a free slot and returns it."""
        slot = self.free.get_nowait()
        for target, source in zip(slot.arrays, arrays.values(), strict=True):
            slot.copies.copy(target, source)
        slot.copies.launched()
        return slot
