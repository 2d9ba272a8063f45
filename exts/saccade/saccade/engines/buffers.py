"""Device arrays that engines of one shape take turns with, so that opening another engine need not allocate."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from saccade.errors import EngineError

if TYPE_CHECKING:
    from saccade.engines.base import TensorSpec

_Kind = tuple[tuple[int, ...], str, str]


class BufferPool:
    """Arrays by shape, element type and device. Threads may share it.

    Who gives an array back has enqueued everything that uses it: the next one enqueues on the same stream, or after a
    synchronization.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: dict[_Kind, list[wp.array]] = {}
        self._taken: dict[int, tuple[_Kind, wp.array]] = {}
        self.allocations = 0
        """Arrays allocated so far."""

    def acquire(self, shape: tuple[int, ...], dtype: str, *, device: str) -> wp.array:
        """Returns an array that nobody else has; its content is undefined.

        Args:
            shape: Its shape; ``()`` gives one element.
            dtype: NumPy name of the element type.
            device: Warp device.
        """
        kind = (tuple(shape) or (1,), np.dtype(dtype).name, str(wp.get_device(device)))
        with self._lock:
            free = self._free.get(kind)
            if free:
                array = free.pop()
            else:
                array = wp.empty(kind[0], dtype=wp.dtype_from_numpy(np.dtype(kind[1])), device=device)
                self.allocations += 1
            self._taken[id(array)] = (kind, array)
        return array

    def release(self, array: wp.array) -> None:
        """Gives an array back.

        Raises:
            EngineError: It was not taken from this pool, or was given back already.
        """
        with self._lock:
            kind, known = self._taken.pop(id(array), (None, None))
            if kind is None or known is not array:
                raise EngineError(
                    f"buffer pool: an array of shape {tuple(array.shape)} was given back that is not out. Release what "
                    f"acquire() gave, once"
                )
            self._free.setdefault(kind, []).append(array)

    @contextlib.contextmanager
    def borrowed(self, specs: Sequence[TensorSpec], *, device: str) -> Iterator[dict[str, wp.array]]:
        """Gives an array for each tensor by name, and takes them back at the end."""
        arrays: dict[str, wp.array] = {}
        try:
            for spec in specs:
                arrays[spec.name] = self.acquire(spec.shape, spec.dtype, device=device)
            yield arrays
        finally:
            for array in arrays.values():
                self.release(array)

    @property
    def taken(self) -> int:
        """Arrays that are out."""
        return len(self._taken)

    @property
    def memory_bytes(self) -> int:
        """Memory of all its arrays, out or not [bytes]."""
        with self._lock:
            kinds = [kind for kind, arrays in self._free.items() for _ in arrays]
            kinds += [kind for kind, _ in self._taken.values()]
        return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype, _ in kinds)

    def clear(self) -> None:
        """Frees the arrays that nobody has."""
        with self._lock:
            self._free.clear()


pool = BufferPool()
"""The pool of this process."""
