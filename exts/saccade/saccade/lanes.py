"""CUDA streams beside the main one: work that does not wait for each other becomes branches of one graph."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import warp as wp


class Lanes:
    """Streams that branch off a main stream and join it again, by events; nothing here waits on the host.

    Without branches, and on the CPU, every lane is the main stream, and order is that of the launches.

    Args:
        device: Warp device.
        branched: Whether lanes are streams of their own.
    """

    def __init__(self, device: Any, *, branched: bool) -> None:
        self._device = wp.get_device(device)
        self.main: Any = self._device.stream if self._device.is_cuda else None
        self._branched = branched and self.main is not None
        self._streams: dict[str, wp.Stream] = {}
        self._events: list[wp.Event] = []
        self._used = 0
        self._open: list[wp.Stream] = []

    def names(self, kinds: Sequence[str]) -> list[str | None]:
        """Returns the lane of each of some pieces of work: the first kind's is the main stream, others have their own.

        Without branches all of them are on the main stream.
        """
        main = kinds[0] if kinds else None
        return [None if not self._branched or kind == main else kind for kind in kinds]

    def begin(self) -> None:
        """Starts a frame: every lane that is used from here on branches off what the main stream has done so far."""
        self._used = 0
        self._open.clear()
        self._fork = self.mark()

    def mark(self, lane: str | None = None) -> wp.Event | None:
        """Returns a point in the work of a lane that other lanes can wait for; ``None`` = the main stream."""
        if not self._branched:
            return None
        if self._used == len(self._events):
            self._events.append(wp.Event(self._device))
        event = self._events[self._used]
        self._used += 1
        stream = self.main if lane is None else self._stream(lane)
        stream.record_event(event)
        return event

    @contextlib.contextmanager
    def on(self, lane: str | None, *after: wp.Event | None) -> Iterator[wp.Stream | None]:
        """Launches what the block launches on a lane, after the points that are given.

        Args:
            lane: Name of the lane; ``None`` = the main stream.
            after: From :meth:`mark`.
        """
        if not self._branched:
            yield self.main
            return
        stream = self.main if lane is None else self._stream(lane)
        for event in after:
            if event is not None:
                stream.wait_event(event)
        with wp.ScopedStream(stream, sync_enter=False, sync_exit=False):
            yield stream

    def join(self) -> None:
        """Lets the main stream go on only after every lane that was used."""
        for stream in self._open:
            if self._used == len(self._events):
                self._events.append(wp.Event(self._device))
            event = self._events[self._used]
            self._used += 1
            stream.record_event(event)
            self.main.wait_event(event)
        self._open.clear()

    def _stream(self, lane: str) -> wp.Stream:
        stream = self._streams.get(lane)
        if stream is None:
            stream = self._streams[lane] = wp.Stream(self._device)
        if stream not in self._open:
            assert self._fork is not None
            stream.wait_event(self._fork)
            self._open.append(stream)
        return stream
