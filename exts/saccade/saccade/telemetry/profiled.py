"""``profiled``: measures users' own functions and blocks, by name: wall time, GPU time, GPU memory."""

from __future__ import annotations

import contextlib
import functools
import inspect
import random
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from saccade.telemetry.statistics import describe

if TYPE_CHECKING:
    import warp as wp

__all__ = ["Profiled", "clear_profile", "profile_facts", "profiled", "set_profiling"]

KEPT = 10_000
"""Values that are kept per quantity for percentiles; of more, a uniform random sample."""
MAX_NAMES = 256
"""Names that have figures of their own."""
OTHER_NAMES = f"(names beyond the first {MAX_NAMES})"
MAX_PENDING = 64
"""Pairs of CUDA events per name that wait to be read; reading one that is this old waits for nothing."""

Function = TypeVar("Function", bound=Callable[..., Any])

_enabled = True
_lock = threading.Lock()
_calls: dict[str, _Calls] = {}


@overload
def profiled(name: Function) -> Function: ...


@overload
def profiled(
    name: str | None = None, *, device: str | None = None, stream: wp.Stream | None = None, memory: bool = False
) -> Profiled: ...


def profiled(
    name: Any = None, *, device: str | None = None, stream: wp.Stream | None = None, memory: bool = False
) -> Any:
    """Measures every call of a function, or a block of code.

    ``@profiled`` or ``@profiled("plan")`` above a function, ``with profiled("plan"):`` around a block. The figures
    stand in ``profile`` of ``run.json`` and in the report; :func:`profile_facts` returns them. Calls may nest, recur
    and come from several threads; a call's time includes what it calls. A call that raises counts, and its error goes
    on. Coroutine functions are measured from their first step to their end.

    Args:
        name: Name in the report; ``None`` takes the function's module and name.
        device: CUDA device whose work between begin and end is timed by events, such as ``"cuda:0"``. Work that the
            function puts on another stream is not seen, and nothing waits for the GPU.
        stream: Stream to time; ``None`` = the device's current one. Needs ``device``.
        memory: Whether to ask the driver for the device's free memory before and after: two calls of the
            driver, outside of the measured times. Needs ``device``.

    Raises:
        ValueError: ``stream`` or ``memory`` without ``device``, or a block without a name.
        TypeError: A generator function, whose call only makes the generator.
    """
    if callable(name):
        return Profiled(None, device=None, stream=None, memory=False)(name)
    return Profiled(name, device=device, stream=stream, memory=memory)


def profile_facts() -> dict[str, dict[str, Any]]:
    """Returns the ``profile`` field of ``run.json``, by name; waits for GPU work that is being timed."""
    with _lock:
        found = dict(_calls)
    return {name: calls.facts() for name, calls in found.items()}


def set_profiling(enabled: bool) -> None:
    """Turns measuring on or off for the whole process; it is on at first, and off it costs one test per call."""
    global _enabled  # noqa: PLW0603
    _enabled = enabled


def clear_profile() -> None:
    """Forgets everything that was measured, as at the start of a run."""
    with _lock:
        _calls.clear()


class Profiled:
    """What :func:`profiled` returns: a decorator, and a context manager that may be entered again and by threads."""

    def __init__(self, name: str | None, *, device: str | None, stream: wp.Stream | None, memory: bool) -> None:
        if device is None and (stream is not None or memory):
            raise ValueError("profiled: stream and memory are of a CUDA device: name it, such as device='cuda:0'")
        self.name = name
        self._device = device
        self._stream = stream
        self._memory = memory
        # By thread, so that one object can be entered by several at once.
        self._open: dict[int, list[_Measurement | None]] = {}

    def __call__(self, function: Function) -> Function:
        """Returns ``function`` with every call measured."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"profiled: {function.__qualname__} is a generator function, whose call only makes the generator; "
                "put 'with profiled(name):' around the work inside of it"
            )
        name = self.name or _name_of(function)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args: Any, **options: Any) -> Any:
                if not _enabled:
                    return await function(*args, **options)
                measurement = self._begin(name)
                try:
                    result = await function(*args, **options)
                except BaseException:
                    measurement.end(failed=True)
                    raise
                measurement.end(failed=False)
                return result

            return coroutine  # type: ignore[return-value]

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            if not _enabled:
                return function(*args, **options)
            measurement = self._begin(name)
            try:
                result = function(*args, **options)
            except BaseException:
                measurement.end(failed=True)
                raise
            measurement.end(failed=False)
            return result

        return call  # type: ignore[return-value]

    def __enter__(self) -> Profiled:
        if self.name is None:
            raise ValueError("profiled: a block has no name of its own: with profiled('name'):")
        stack = self._open.setdefault(threading.get_ident(), [])
        stack.append(self._begin(self.name) if _enabled else None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack = self._open[threading.get_ident()]
        measurement = stack.pop()
        if not stack:
            del self._open[threading.get_ident()]
        if measurement is not None:
            measurement.end(failed=kind is not None)

    def _begin(self, name: str) -> _Measurement:
        return _Measurement(_calls_of(name), self._device, self._stream, self._memory)


class _Measurement:
    """One call: begins when it is made, ends with :meth:`end`."""

    __slots__ = ("_calls", "_device", "_event", "_free", "_start", "_stream")

    def __init__(self, calls: _Calls, device: str | None, stream: wp.Stream | None, memory: bool) -> None:
        self._calls = calls
        self._device: Any = None
        self._stream: Any = None
        self._event: Any = None
        self._free: int | None = None
        if device is not None:
            self._begin_device(device, stream, memory)
        # Last, so that the measuring itself is not in the time.
        self._start = time.perf_counter_ns()

    def end(self, *, failed: bool) -> None:
        """Takes the times of the call."""
        wall_ms = (time.perf_counter_ns() - self._start) * 1e-6
        calls = self._calls
        calls.add_wall(wall_ms, failed)
        if self._event is not None:
            with calls.watched("gpu_ms"):
                if self._stream.is_capturing:
                    raise _Unmeasured(CAPTURED)
                event = calls.event(self._device.alias)
                event.record(self._stream)
                calls.add_pair(self._device.alias, self._event, event)
        if self._free is not None:
            with calls.watched("gpu_memory_change_bytes"):
                calls.add_memory(self._free - self._device.free_memory)

    def _begin_device(self, device: str, stream: wp.Stream | None, memory: bool) -> None:
        calls = self._calls
        with calls.watched("gpu_ms", *(["gpu_memory_change_bytes"] if memory else [])):
            import warp as wp

            found = wp.get_device(device)
            if not found.is_cuda:
                raise _Unmeasured(f"{device} is no CUDA device")
            self._stream = found.stream if stream is None else stream
            if self._stream.is_capturing:
                raise _Unmeasured(CAPTURED)
            self._device = found
        if self._device is None:
            return
        if memory:
            with calls.watched("gpu_memory_change_bytes"):
                self._free = found.free_memory
        with calls.watched("gpu_ms"):
            event = calls.event(found.alias)
            event.record(self._stream)
            self._event = event


class _Unmeasured(Exception):
    """Why a call has no GPU figures."""


CAPTURED = "the call was part of the capture of a CUDA graph, which runs nothing"


class _Calls:
    """The figures of one name; its lock is held for a few additions only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed = 0
        self._wall = _Values()
        self._gpu = _Values()
        self._memory = _Values()
        self._missed: dict[str, tuple[int, str]] = {}
        self._pending: deque[tuple[str, Any, Any]] = deque()
        self._unused: dict[str, list[Any]] = {}

    def add_wall(self, wall_ms: float, failed: bool) -> None:
        """Takes the wall time of one call [ms]."""
        with self._lock:
            self._wall.add(wall_ms)
            self._failed += failed

    def add_memory(self, taken: int) -> None:
        """Takes how much less memory of the device is free after a call [bytes]."""
        with self._lock:
            self._memory.add(float(taken))

    def add_pair(self, device: str, first: Any, second: Any) -> None:
        """Takes the events around one call; the oldest are read once too many wait."""
        with self._lock:
            self._pending.append((device, first, second))
        self._read(MAX_PENDING)

    def event(self, device: str) -> Any:
        """Returns an event of a device to record: one that was read, or a new one."""
        with self._lock:
            unused = self._unused.get(device)
            if unused:
                return unused.pop()
        from saccade.cuda import Event

        return Event(device)

    @contextlib.contextmanager
    def watched(self, *quantities: str) -> Iterator[None]:
        """Counts a call without these quantities where measuring fails: it must not end, or hide, what it measures."""
        try:
            yield
        except Exception as error:
            reason = str(error) if isinstance(error, _Unmeasured) else f"{type(error).__name__}: {error}"
            with self._lock:
                for name in quantities:
                    self._missed[name] = (self._missed.get(name, (0, ""))[0] + 1, reason)

    def facts(self) -> dict[str, Any]:
        """Returns ``calls``, ``failed``, statistics, and why others are absent."""
        self._read(0)
        with self._lock:
            facts: dict[str, Any] = {"calls": self._wall.count, "failed": self._failed, "wall_ms": self._wall.facts()}
            if self._gpu.count:
                facts["gpu_ms"] = self._gpu.facts()
            if self._memory.count:
                facts["gpu_memory_change_bytes"] = self._memory.facts()
            facts["absent"] = {
                name: f"{count} of {self._wall.count} calls: {reason}" for name, (count, reason) in self._missed.items()
            }
            return facts

    def _read(self, waiting: int) -> None:
        """Reads the oldest pairs of events until at most ``waiting`` are left."""
        while True:
            with self._lock:
                if len(self._pending) <= waiting:
                    return
                device, first, second = self._pending.popleft()
            with self.watched("gpu_ms"):
                second.synchronize()
                elapsed = float(second.elapsed_ms(first))
                with self._lock:
                    self._gpu.add(elapsed)
                    self._unused.setdefault(device, []).extend((first, second))


class _Values:
    """Count, mean, least and greatest of all values, and a uniform sample of bounded size for percentiles."""

    __slots__ = ("_kept", "_maximum", "_minimum", "_random", "_total", "count")

    def __init__(self) -> None:
        self.count = 0
        self._total = 0.0
        self._minimum = float("inf")
        self._maximum = float("-inf")
        self._kept = array("d")
        self._random = random.Random(0)

    def add(self, value: float) -> None:
        self.count += 1
        self._total += value
        self._minimum = min(self._minimum, value)
        self._maximum = max(self._maximum, value)
        if len(self._kept) < KEPT:
            self._kept.append(value)
            return
        # Algorithm R: every value so far has the same chance to be among those kept.
        place = self._random.randrange(self.count)
        if place < KEPT:
            self._kept[place] = value

    def facts(self) -> dict[str, Any]:
        """Returns the statistics object; ``n`` of a percentile is the size of the sample that it is of."""
        found = describe(np.array(self._kept))
        if self.count > len(self._kept):
            mean = min(max(self._total / self.count, self._minimum), self._maximum)
            found |= {"n": self.count, "mean": mean, "min": self._minimum, "max": self._maximum}
        return found


def _calls_of(name: str) -> _Calls:
    found = _calls.get(name)
    if found is not None:
        return found
    with _lock:
        if name not in _calls and len(_calls) >= MAX_NAMES:
            name = OTHER_NAMES
        return _calls.setdefault(name, _Calls())


def _name_of(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}".replace("<locals>.", "")
