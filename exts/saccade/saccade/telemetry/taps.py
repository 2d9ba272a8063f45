"""What leaves the GPU beside the results, to be kept, recorded or published raw: on its own stream, and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import warp as wp


class Tap:
    """Copies arrays to the host beside the frames, and counts what came from a GPU."""

    def __init__(self) -> None:
        self.bytes = 0
        self.count = 0
        self._streams: dict[str, Any] = {}

    def copies(self) -> TapCopies:
        """Returns an empty set of copies that can be filled again and again; make one for each slot."""
        return TapCopies(self)

    def facts(self) -> dict[str, int]:
        """Returns ``bytes`` and ``count`` so far; both 0 where the arrays are the host's own."""
        return {"bytes": self.bytes, "count": self.count}

    def _counted(self, target: wp.array, source: wp.array) -> None:
        if source.device.is_cuda and target.device.is_cpu:
            self.bytes += source.size * wp.types.type_size_in_bytes(source.dtype)
            self.count += 1

    def _stream(self, device: Any) -> Any:
        stream = self._streams.get(device.alias)
        if stream is None:
            stream = self._streams[device.alias] = wp.Stream(device)
        return stream


class TapCopies:
    """Copies that belong together: launched by who owns the sources, waited for by who reads the targets.

    On CUDA they run on the tap's stream, after what the device's stream has been given so far, and what it is given
    from :meth:`launched` on waits for them there, so that the next frame overwrites nothing; no thread waits for
    either. On the CPU they are done at once.
    """

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self._device: Any = None
        self._event: Any = None
        self._pending = False

    def copy(self, target: wp.array, source: wp.array) -> None:
        """Launches the copy of ``source`` to an array of the same shape and type; pinned where it is to overlap.

        All sources of one set are on one device.
        """
        device = source.device
        if not device.is_cuda:
            wp.copy(target, source)
            return
        stream = self._tap._stream(device)
        if not self._pending:
            self._pending, self._device = True, device
            stream.wait_stream(device.stream)
        wp.copy(target, source, stream=stream)
        self._tap._counted(target, source)

    def launched(self) -> None:
        """Ends the set: from here on the device's stream may be given work that overwrites the sources."""
        if not self._pending:
            return
        self._pending = False
        if self._event is None:
            self._event = wp.Event(self._device)
        self._tap._stream(self._device).record_event(self._event)
        self._device.stream.wait_event(self._event)

    def wait(self) -> None:
        """Waits on the calling thread until the copies have arrived; before the targets are read."""
        if self._event is not None:
            wp.synchronize_event(self._event)


Taps = dict[str, Callable[[], dict[str, int]]]
"""Facts of each tap by name."""
