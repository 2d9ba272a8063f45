"""ONNX Runtime on the CPU: the engine wherever there is no TensorRT."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import warp as wp

from saccade.engines.base import TensorSpec
from saccade.errors import EngineError, ModelError

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxRuntimeEngine:
    """Runs an ONNX file on the CPU, reading from and writing to bound arrays without a copy.

    Args:
        path: ONNX file.
        threads: Threads inside one operator; 0 = one per core.
        shapes: Shape by input name that the caller will bind; it must agree with the file.
        defaults: Shape by input name for the dimensions that the file leaves open and ``shapes`` does not give; an
            open dimension named in neither is 1.

    Raises:
        ModelError: The file is missing, unreadable or corrupt, or uses something this ONNX Runtime cannot run.
    """

    name = "onnxruntime"
    device = "cpu"

    def __init__(
        self,
        path: Path | str,
        *,
        threads: int = 0,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        defaults: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.path = Path(path)
        self._digest, self._session = _session_from_onnx(self.path, threads)
        self._threads = threads
        self.inputs: Sequence[TensorSpec] = [
            _input_spec(self.path, node, (shapes or {}).get(node.name), (defaults or {}).get(node.name))
            for node in self._session.get_inputs()
        ]
        self.outputs: Sequence[TensorSpec] = self._output_specs()
        self._binding = self._session.io_binding()
        self._bound: dict[str, wp.array] = {}

    def bind(self, name: str, array: wp.array) -> None:
        """Binds a contiguous CPU array to a tensor; see :class:`saccade.engines.base.Engine`."""
        specs = {spec.name: spec for spec in (*self.inputs, *self.outputs)}
        spec = specs.get(name)
        if spec is None:
            raise ModelError(f"{self.path}: no tensor {name!r}; it has {', '.join(specs)}")
        dtype = np.dtype(wp.dtype_to_numpy(array.dtype)).name
        if tuple(array.shape) != spec.shape or dtype != spec.dtype or not array.is_contiguous:
            raise ModelError(
                f"{self.path}: tensor {name!r} is {spec.dtype} {spec.shape}, "
                f"bound was a {'' if array.is_contiguous else 'non-contiguous '}{dtype} {tuple(array.shape)}"
            )
        if array.device.is_cuda:
            raise ModelError(
                f"{self.path}: ONNX Runtime runs on the CPU here, tensor {name!r} was bound on {array.device}"
            )
        is_input = any(spec.name == name for spec in self.inputs)
        bind = self._binding.bind_input if is_input else self._binding.bind_output
        bind(name, "cpu", 0, np.dtype(spec.dtype), spec.shape, array.ptr)
        self._bound[name] = array

    def enqueue(self, stream: Any = None) -> None:
        """Runs the network on the bound arrays before it returns; ``stream`` is not used on the CPU."""
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise EngineError(
                f"{self.path}: ONNX Runtime stopped with: {error}. "
                f"Check the file with  python -m onnx.checker {self.path}"
            ) from error

    def infer(self, array: np.ndarray) -> np.ndarray:
        """Runs a single-input network on ``array`` and returns its first output."""
        return self._session.run(None, {self.inputs[0].name: array})[0]

    def facts(self) -> dict[str, Any]:
        """Returns runtime, version, precision of the first input, file hash and threads."""
        return {
            "engine": self.name,
            "version": onnxruntime.__version__,
            "file": self.path.name,
            "sha256": self._digest,
            "precision": self.inputs[0].dtype,
            "threads": self._threads or "all cores",
            "inputs": {spec.name: list(spec.shape) for spec in self.inputs},
            "outputs": {spec.name: list(spec.shape) for spec in self.outputs},
        }

    def close(self) -> None:
        """Lets go of the session and the bound arrays."""
        self._bound.clear()
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()

    def _output_specs(self) -> list[TensorSpec]:
        nodes = self._session.get_outputs()
        shapes = [node.shape for node in nodes]
        if not all(isinstance(size, int) for shape in shapes for size in shape):
            # Open output dimensions follow from the inputs: one run on zeros tells them.
            zeros = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.inputs}
            try:
                shapes = [value.shape for value in self._session.run(None, zeros)]
            except Exception as error:
                wanted = ", ".join(f"{spec.name} {spec.shape}" for spec in self.inputs)
                raise ModelError(f"{self.path}: cannot run with inputs {wanted}: {error}") from error
        return [
            TensorSpec(node.name, tuple(int(size) for size in shape), _dtype(self.path, node))
            for node, shape in zip(nodes, shapes, strict=True)
        ]


def _session_from_onnx(path: Path, threads: int) -> tuple[str, onnxruntime.InferenceSession]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read this network: {error.strerror}. Check networks.*.model") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Idle workers that spin take the cores that the simulator needs between two inferences.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # From the path, so that weights kept in a file beside the .onnx are found.
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load this network: {str(error).strip()}. "
            f"Is it a complete ONNX file?  python -c \"import onnx; onnx.checker.check_model('{path}')\"  says more"
        ) from error
    return hashlib.sha256(data).hexdigest(), session


def _input_spec(path: Path, node: Any, given: tuple[int, ...] | None, default: tuple[int, ...] | None) -> TensorSpec:
    if given is not None and len(given) != len(node.shape):
        raise ModelError(f"{path}: input {node.name!r} has shape {node.shape}, configured is {list(given)}")
    if default is None or len(default) != len(node.shape):
        default = (1,) * len(node.shape)
    resolved = []
    for axis, size in enumerate(node.shape):
        wanted = (given or default)[axis]
        if isinstance(size, int) and given is not None and size != wanted:
            raise ModelError(
                f"{path}: input {node.name!r} has shape {node.shape}, the configured sensor and preprocessing give "
                f"{list(given)}: change the sensor's resolution or networks.*.inputs.{node.name}.size"
            )
        resolved.append(size if isinstance(size, int) else int(wanted))
    return TensorSpec(node.name, tuple(resolved), _dtype(path, node))


def _dtype(path: Path, node: Any) -> str:
    if node.type not in _DTYPES:
        raise ModelError(f"{path}: tensor {node.name!r} has type {node.type}, which is not supported")
    return _DTYPES[node.type]
