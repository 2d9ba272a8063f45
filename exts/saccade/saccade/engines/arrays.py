"""Where an array lies and what it holds, whichever library it is from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp


@dataclass(frozen=True, slots=True)
class Layout:
    """An array as an engine sees it."""

    pointer: int
    shape: tuple[int, ...]
    dtype: str
    """NumPy name of the element type."""
    contiguous: bool
    writable: bool
    device: str | None
    """Warp's name of its device; ``None`` where its library does not tell."""


def layout_of(array: Any) -> Layout | None:
    """Returns the layout of a Warp array or of an object with ``__cuda_array_interface__``, ``None`` for others."""
    if isinstance(array, wp.array):
        dtype = np.dtype(wp.dtype_to_numpy(array.dtype)).name
        pointer, shape = int(array.ptr or 0), tuple(array.shape)
        return Layout(pointer, shape, dtype, bool(array.is_contiguous), True, str(array.device))
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        return None
    pointer, read_only = interface["data"]
    shape = tuple(int(size) for size in interface["shape"])
    dtype = np.dtype(interface["typestr"])
    contiguous = _is_contiguous(shape, interface.get("strides"), dtype.itemsize)
    return Layout(int(pointer or 0), shape, dtype.name, contiguous, not read_only, _device(array))


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...] | None, itemsize: int) -> bool:
    if strides is None:
        return True
    expected = itemsize
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True


def _device(array: Any) -> str | None:
    """Torch has ``device.index``, CuPy ``device.id``; the interface itself does not name the device."""
    device = getattr(array, "device", None)
    for name in ("index", "id"):
        ordinal = getattr(device, name, None)
        if isinstance(ordinal, int):
            return f"cuda:{ordinal}"
    return None
