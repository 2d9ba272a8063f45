"""The engine protocol: a network with named tensors, bound once, enqueued per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import warp as wp


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a network."""

    name: str
    shape: tuple[int, ...]
    """Resolved shape; a dynamic dimension has the size that the engine was opened with."""
    dtype: str
    """NumPy name of the element type, such as ``"float32"``."""


@runtime_checkable
class Engine(Protocol):
    """Runs one network.

    Output arrays are the caller's. On CUDA, :meth:`enqueue` neither allocates nor synchronises with the host.
    """

    name: str
    """``"onnxruntime"`` or ``"tensorrt"``."""
    device: str
    """Warp device of the arrays that can be bound, ``"cpu"`` or ``"cuda:N"``."""
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]

    def bind(self, name: str, array: wp.array) -> None:
        """Binds a contiguous array to a tensor; done once, before the first frame.

        Raises:
            ModelError: No tensor of that name, or the shape, dtype or device differs.
        """
        ...

    def enqueue(self, stream: Any) -> None:
        """Runs the network on the bound arrays; on CUDA asynchronously on ``stream``, on CPU before it returns.

        Raises:
            EngineError: The runtime refused; the text names the engine and the remedy.
        """
        ...

    def infer(self, array: np.ndarray) -> np.ndarray:
        """Runs a single-input network on ``array`` and returns its first output; allocates, for scripts only."""
        ...

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say: runtime and version, precision, file hash, thread count."""
        ...

    def close(self) -> None:
        """Frees what was opened; safe to call twice."""
        ...
