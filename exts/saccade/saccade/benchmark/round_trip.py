"""The way over the host that the loop is compared with: frame down, OpenCV and NumPy, input up, result down.

It is the inference that robotics lessons teach (``preprocess_image`` and ``infer``): OpenCV's resize with its
defaults, NumPy for the rest, pinned buffers. Only the calls that TensorRT has removed are replaced.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import warp as wp

from saccade import cuda
from saccade.engines.base import Engine


def opencv() -> Any:
    """Returns OpenCV.

    Raises:
        ImportError: It is not installed.
    """
    return importlib.import_module("cv2")


def preprocess_image(cv2: Any, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the network's input, flat, float32.

    Args:
        cv2: OpenCV.
        image: Blue, green, red, shape ``(height, width, 3)``, uint8.
        size: Width and height of the input [px].
    """
    resized = cv2.resize(image, size)
    normalized = resized.astype(np.float32) / 255.0
    rgb_image = cv2.cvtColor(normalized, cv2.COLOR_BGR2RGB)
    return np.transpose(rgb_image, (2, 0, 1)).ravel()


def image_from_frame(cv2: Any, packed: np.ndarray) -> np.ndarray:
    """Returns a packed RGBA frame as OpenCV has images: blue, green, red."""
    return cv2.cvtColor(packed.view(np.uint8).reshape(*packed.shape, 4), cv2.COLOR_RGBA2BGR)


class HostRoundTrip:
    """Takes a frame from the GPU, prepares it on the CPU and runs an engine of its own on it.

    Args:
        engine: The engine; it is used for nothing else.
        frame: Packed RGBA image on the GPU, shape ``(height, width)``, uint32.
        input_name: The engine's input.
        output_name: The output that is brought back.
        pinned_frame: Whether the frame comes down into pinned memory, instead of by a plain ``numpy()`` as a script
            has it.

    Raises:
        ImportError: OpenCV is not installed.
    """

    def __init__(
        self, engine: Engine, frame: wp.array, *, input_name: str, output_name: str, pinned_frame: bool = True
    ) -> None:
        self._cv2 = opencv()
        self._engine, self._frame = engine, frame
        device = engine.device
        self._stream = cuda.stream(device)
        specs = {spec.name: spec for spec in (*engine.inputs, *engine.outputs)}
        self._arrays = {
            name: wp.zeros(spec.shape, dtype=wp.dtype_from_numpy(np.dtype(spec.dtype)), device=device)
            for name, spec in specs.items()
        }
        for name, array in self._arrays.items():
            engine.bind(name, array)
        self._input, self._output = self._arrays[input_name], self._arrays[output_name]
        self._size = (self._input.shape[3], self._input.shape[2])
        self._host_frame = _Pinned(frame) if pinned_frame else None
        self._host_input, self._host_output = _Pinned(self._input), _Pinned(self._output)
        wp.synchronize_device(device)

    def run(self) -> np.ndarray:
        """Goes all the way once; returns the output on the host, flat, valid until the next time."""
        if self._host_frame is None:
            packed = self._frame.numpy()
        else:
            wp.copy(self._host_frame.array, self._frame, stream=self._stream)
            cuda.synchronize(self._stream)
            packed = self._host_frame.values.reshape(self._frame.shape)
        image = image_from_frame(self._cv2, packed)
        return self._infer(preprocess_image(self._cv2, image, self._size))

    def _infer(self, input_data: np.ndarray) -> np.ndarray:
        np.copyto(self._host_input.values, input_data.ravel())
        wp.copy(self._input, self._host_input.array, stream=self._stream)
        self._engine.enqueue(self._stream)
        wp.copy(self._host_output.array, self._output, stream=self._stream)
        cuda.synchronize(self._stream)
        return self._host_output.values


class _Pinned:
    """Pinned host memory for the values of a device array, as NumPy and as Warp see it."""

    def __init__(self, like: wp.array) -> None:
        dtype = np.dtype(wp.dtype_to_numpy(like.dtype))
        self.values: np.ndarray = cuda.pinned(like.size, dtype, device=str(like.device))
        self.array = wp.array(
            ptr=self.values.ctypes.data, shape=like.shape, dtype=like.dtype, device="cpu", pinned=True
        )
