"""The int8 calibrator of TensorRT 8.5 to 10: device buffers filled from samples, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import warp as wp

from saccade.errors import ConfigurationError, EngineError
from saccade.precision.int8 import batches, fitted_samples


def calibrator_from_arrays(
    trt: Any,
    samples: Mapping[str, np.ndarray],
    shapes: Mapping[str, Sequence[int]],
    *,
    device: str = "cuda:0",
) -> Any:
    """Returns an ``IInt8EntropyCalibrator2`` that hands TensorRT every sample once.

    Args:
        trt: The module ``tensorrt``.
        samples: Inputs by name as :func:`saccade.precision.int8.calibration_arrays` reads them.
        shapes: Shape of each float32 input while calibrating, the calibration profile's optimum.
        device: Warp device of the buffers, the one that the engine is built on.

    Returns:
        The calibrator; its ``failure`` holds the first exception of a callback, which TensorRT cannot pass on, and its
        ``batches`` how many it has given.

    Raises:
        ConfigurationError: The samples are too few or do not fit the inputs.
        EngineError: The device has no room for a batch.
    """
    fitted = fitted_samples(samples, {name: list(shape) for name, shape in shapes.items()})
    sizes = {shape[0] for shape in shapes.values()}
    if len(sizes) != 1:
        raise ConfigurationError(f"calibration: inputs with different batch sizes {sorted(sizes)} cannot be calibrated")
    size = sizes.pop()

    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        """Copies batches into fixed device buffers; TensorRT reads the addresses."""

        def __init__(self) -> None:
            super().__init__()
            self.failure: BaseException | None = None
            self.batches = 0
            self._source: Iterator[dict[str, np.ndarray]] = batches(fitted, size)
            self._buffers = {name: _buffer(tuple(shape), device) for name, shape in shapes.items()}

        def get_batch_size(self) -> int:
            return size

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            try:
                batch = next(self._source, None)
                if batch is None:
                    return None
                for name, array in batch.items():
                    self._buffers[name].assign(array)
                # TensorRT reads on a stream of its own.
                wp.synchronize_device(device)
                self.batches += 1
                return [int(self._buffers[name].ptr) for name in names]
            except Exception as error:  # through C++ it would end the process
                self.failure = self.failure or error
                return None

        def read_calibration_cache(self) -> None:
            """Never any: which samples it came from could not be told."""

        def write_calibration_cache(self, cache: Any) -> None:
            """Not kept; the engine is."""

    return Calibrator()


def _buffer(shape: tuple[int, ...], device: str) -> wp.array:
    try:
        return wp.empty(shape, wp.float32, device=device)
    except RuntimeError as error:
        raise EngineError(
            f"{device}: no room for a calibration batch {shape} ({error}): free memory on the GPU, or calibrate with a "
            "smaller --opt batch"
        ) from error
