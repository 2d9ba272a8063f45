"""TensorRT 8.5 to 11: a plan opened once, named tensors bound once, and nothing but the enqueue per frame."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorrt as trt
import warp as wp

from saccade import cuda
from saccade.engines import versions
from saccade.engines.arrays import layout_of
from saccade.engines.base import TensorSpec
from saccade.engines.buffers import BufferPool, pool
from saccade.errors import DependencyError, EngineError, ModelError

PROFILE_WARMUP = 10
"""Iterations before the profiled ones: the first launches load kernels."""


class TensorRTEngine:
    """Runs a plan on one GPU.

    The calling thread's current CUDA device must be the engine's in :meth:`enqueue`, as Warp's scopes leave it;
    everything else sees to that itself. A plan runs its code when it is opened: open what the store or the user vouch
    for.

    Args:
        plan: The serialized engine.
        name_of: What messages call it, such as the ONNX file's name.
        device: CUDA device.
        shapes: Shape by input name for the dimensions that the plan leaves open; ``None`` and what is not named take
            the shape that the plan is tuned for.
        facts: What the record should say besides, such as precision and ONNX hash.
        optimization_profile: Which of the plan's profiles.
        buffers: Where :meth:`infer` and :meth:`profile` take arrays from; ``None`` = the process's pool.

    Raises:
        DependencyError: There is no such device here.
        EngineError: The plan does not open here, or there is too little memory.
        ModelError: The plan does not take these shapes.
    """

    name = "tensorrt"

    def __init__(
        self,
        plan: bytes,
        *,
        name_of: str,
        device: str = "cuda:0",
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        facts: Mapping[str, Any] | None = None,
        optimization_profile: int = 0,
        buffers: BufferPool | None = None,
    ) -> None:
        self.device = cuda.require(device)
        self.file = name_of
        self._traits = versions.traits_of(trt.__version__)
        self._pool = pool if buffers is None else buffers
        self._facts = dict(facts or {})
        self._digest = hashlib.sha256(plan).hexdigest()
        self._profile_index = optimization_profile
        self._bound: dict[str, Any] = {}
        self._execute: Any = None
        self.inputs: Sequence[TensorSpec] = []
        self.outputs: Sequence[TensorSpec] = []
        with cuda.primary_context(self.device):
            self._runtime, self._engine = self._opened(plan)
            self.memory_bytes = int(getattr(self._engine, self._traits.device_memory))
            """Memory for activations and scratch of one execution context [bytes]; weights and arrays are extra."""
            self._context = self._new_context()
        self.reshape(shapes or {})

    def reshape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Gives the open dimensions other sizes; arrays whose shape no longer fits must be bound anew.

        Args:
            shapes: Shape by input name; an open input that is not named takes the shape that the plan is tuned for.

        Raises:
            ModelError: No such input, or a size outside the plan's range.
        """
        names = self._tensor_names(trt.TensorIOMode.INPUT)
        unknown = [name for name in shapes if name not in names]
        if unknown:
            raise ModelError(f"{self.file}: no input {', '.join(unknown)}; it has {', '.join(names)}")
        _LOG.clear()
        inputs = [self._input_spec(name, shapes.get(name)) for name in names]
        self._set_shapes(self._context, inputs)
        self.inputs = inputs
        self.outputs = [self._output_spec(name) for name in self._tensor_names(trt.TensorIOMode.OUTPUT)]
        fitting = {spec.name: spec.shape for spec in (*self.inputs, *self.outputs)}
        self._bound = {
            name: array
            for name, array in self._bound.items()
            if _fits(layout_of(array).shape, fitting[name])  # type: ignore[union-attr]
        }
        self._execute = None

    def bind(self, name: str, array: Any) -> None:
        """Binds an array to a tensor and keeps it alive; see :class:`saccade.engines.base.Engine`.

        Args:
            name: The tensor.
            array: A Warp array, or anything with ``__cuda_array_interface__``; contiguous. Work that still fills it on
                another stream is the caller's to wait for.
        """
        spec = next((spec for spec in (*self.inputs, *self.outputs) if spec.name == name), None)
        if spec is None:
            known = ", ".join(spec.name for spec in (*self.inputs, *self.outputs))
            raise ModelError(f"{self.file}: no tensor {name!r}; it has {known}")
        layout = layout_of(array)
        if layout is None:
            raise ModelError(
                f"{self.file}: tensor {name!r} was bound to a {type(array).__name__}: expected a Warp array or an "
                f"object with __cuda_array_interface__, on {self.device}"
            )
        if layout.device not in (None, self.device):
            raise ModelError(
                f"{self.file}: TensorRT runs on {self.device} here, tensor {name!r} was bound on {layout.device}"
            )
        if not _fits(layout.shape, spec.shape) or layout.dtype != spec.dtype or not layout.contiguous:
            raise ModelError(
                f"{self.file}: tensor {name!r} is {spec.dtype} {spec.shape}, "
                f"bound was a {'' if layout.contiguous else 'non-contiguous '}{layout.dtype} {layout.shape}"
            )
        if not layout.writable and spec in self.outputs:
            raise ModelError(f"{self.file}: output {name!r} was bound to a read-only array")
        self._opened_engine()
        _LOG.clear()
        if not self._context.set_tensor_address(name, layout.pointer):
            raise EngineError(f"{self.file} on {self.device}: TensorRT refused the array of {name!r}: {_LOG.text()}")
        self._bound[name] = array

    def enqueue(self, stream: wp.Stream | None = None) -> None:
        """Enqueues the network on ``stream``; ``None`` = the device's current one. Neither allocates nor waits.

        Raises:
            EngineError: A tensor is not bound, or TensorRT refused.
        """
        if self._execute is None:
            self._execute = self._checked_execute()
        stream = wp.get_stream(self.device) if stream is None else stream
        handle = int(stream.cuda_stream or 0)
        if not self._execute(handle):
            raise EngineError(
                f"{self.file} on {self.device}, stream {handle:#x}: TensorRT stopped with: {_LOG.text()}. The bound "
                f"arrays must still exist, and the stream must be of {self.device}; CUDA_LAUNCH_BLOCKING=1 shows the "
                f"first call that failed"
            )

    def infer(self, array: np.ndarray) -> np.ndarray:
        """Runs a single-input network on ``array`` and returns its first output; copies and waits, for scripts only."""
        if len(self.inputs) != 1:
            names = ", ".join(spec.name for spec in self.inputs)
            raise ModelError(f"{self.file}: infer() takes networks with one input, this one has {names}: bind them")
        spec, first = self.inputs[0], self.outputs[0]
        if tuple(array.shape) != spec.shape or array.dtype.name != spec.dtype:
            raise ModelError(
                f"{self.file}: input {spec.name!r} is {spec.dtype} {spec.shape}, given was {array.dtype} {array.shape}"
            )
        bound = dict(self._bound)
        try:
            with (
                wp.ScopedDevice(self.device),
                cuda.primary_context(self.device),
                self._pool.borrowed((*self.inputs, *self.outputs), device=self.device) as arrays,
            ):
                for name, borrowed in arrays.items():
                    self.bind(name, borrowed)
                arrays[spec.name].assign(array.reshape(arrays[spec.name].shape))
                self.enqueue(None)
                return arrays[first.name].numpy().reshape(first.shape)
        finally:
            self._bound = {}
            self._execute = None
            for name, own in bound.items():
                self.bind(name, own)

    def profile(self, iterations: int = 100) -> dict[str, Any]:
        """Measures each layer in an execution context of its own; the engine itself stays unprofiled.

        A profiled enqueue waits for every layer: the sum is more than the engine takes by itself.

        Args:
            iterations: How often it is run and measured, after :data:`PROFILE_WARMUP` times that are not.

        Returns:
            ``iterations``, ``warmup``, ``total_ms`` (sum of the medians) and ``layers``, in the order of execution,
            each with ``name``, ``median_ms``, ``mean_ms`` and ``share``.
        """
        self._opened_engine()
        with (
            wp.ScopedDevice(self.device),
            cuda.primary_context(self.device),
            self._pool.borrowed((*self.inputs, *self.outputs), device=self.device) as arrays,
        ):
            return self._profiled({**arrays, **self._bound}, iterations)

    def layers(self) -> list[dict[str, Any]]:
        """Returns what the inspector knows of each layer: its name, or more where the plan was built to tell more."""
        with cuda.primary_context(self.device):
            inspector = self._opened_engine().create_engine_inspector()
            inspector.execution_context = self._context
            text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        try:
            found = json.loads(text)["Layers"]
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(f"{self.file}: TensorRT's description of this engine is no JSON: {error}") from error
        return [layer if isinstance(layer, dict) else {"Name": str(layer)} for layer in found]

    def facts(self) -> dict[str, Any]:
        """Returns runtime, version, device, memory, shapes and the plan's hash, with what the opener knew besides."""
        return {
            "engine": self.name,
            "version": trt.__version__,
            "file": self.file,
            "plan_sha256": self._digest,
            "device": self.device,
            "memory_bytes": self.memory_bytes,
            "inputs": {spec.name: list(spec.shape) for spec in self.inputs},
            "outputs": {spec.name: list(spec.shape) for spec in self.outputs},
            **self._facts,
        }

    def close(self) -> None:
        """Frees context, engine and runtime, and lets go of the bound arrays; safe to call twice."""
        self._execute = None
        self._bound = {}
        with cuda.primary_context(self.device):
            # In this order: each uses the next.
            self._context = None
            self._engine = None
            self._runtime = None

    def _opened(self, plan: bytes) -> tuple[Any, Any]:
        _LOG.clear()
        try:
            runtime = trt.Runtime(_LOG)
        except (TypeError, RuntimeError) as error:  # how the bindings say that the library gave nothing
            raise DependencyError(
                f"{self.file}: TensorRT {trt.__version__} does not start on {self.device}: {_LOG.text(error)}. Is the "
                f"driver new enough for it? nvidia-smi shows its version"
            ) from error
        if self._traits.host_code_switch:
            runtime.engine_host_code_allowed = False
        engine = runtime.deserialize_cuda_engine(plan) if plan else None
        if engine is not None:
            return runtime, engine
        said = _LOG.text("the plan is empty" if not plan else "no reason given")
        if "memory" in said.lower():
            raise EngineError(f"{self.file} on {self.device}: no room for this engine: {said}. {self._room()}")
        raise EngineError(
            f"{self.file}: this plan does not open with TensorRT {trt.__version__} on {self.device}: {said}. A plan "
            f"fits the TensorRT version and the kind of GPU that it was built with, and must be whole. Build it "
            f"here:  saccade engine build MODEL.onnx"
        )

    def _new_context(self) -> Any:
        engine = self._engine
        count = engine.num_optimization_profiles
        if not 0 <= self._profile_index < count:
            raise ModelError(f"{self.file}: no optimization profile {self._profile_index}; it has 0 to {count - 1}")
        _LOG.clear()
        context = engine.create_execution_context()
        if context is None:
            raise EngineError(
                f"{self.file} on {self.device}: no execution context: {_LOG.text()}. It needs "
                f"{_mebibytes(self.memory_bytes)} beside its weights. {self._room()}"
            )
        if self._profile_index:
            stream = wp.get_stream(self.device)
            if not context.set_optimization_profile_async(self._profile_index, int(stream.cuda_stream or 0)):
                raise EngineError(f"{self.file}: profile {self._profile_index} was refused: {_LOG.text()}")
            wp.synchronize_stream(stream)
        return context

    def _room(self) -> str:
        facts = cuda.driver_facts(self.device)
        return (
            f"{facts['name']} has {_mebibytes(facts['memory_free'])} free of {_mebibytes(facts['memory_total'])}: end "
            f"other programs on it, close engines, lower the batch, or build with a smaller --workspace"
        )

    def _opened_engine(self) -> Any:
        if self._engine is None:
            raise EngineError(f"{self.file}: this engine was closed: open it again")
        return self._engine

    def _tensor_names(self, mode: Any) -> list[str]:
        engine = self._opened_engine()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return [name for name in names if engine.get_tensor_mode(name) == mode]

    def _input_spec(self, name: str, given: tuple[int, ...] | None) -> TensorSpec:
        engine = self._engine
        if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            raise ModelError(f"{self.file}: input {name!r} is a shape that TensorRT reads on the host: not supported")
        declared = tuple(engine.get_tensor_shape(name))
        wanted = None if given is None else tuple(int(size) for size in given)
        if -1 not in declared:
            if wanted is not None and wanted != declared:
                raise ModelError(f"{self.file}: input {name!r} has shape {declared}, asked for was {wanted}")
            return TensorSpec(name, declared, self._dtype(name))
        low, best, high = (tuple(shape) for shape in engine.get_tensor_profile_shape(name, self._profile_index))
        shape = best if wanted is None else wanted
        fits = len(shape) == len(low) and all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True))
        if not fits:
            raise ModelError(
                f"{self.file}: input {name!r} takes shapes from {low} to {high}, asked for was {shape}. Build the "
                f"engine for it:  saccade engine build MODEL.onnx --max {name}:{'x'.join(map(str, shape))}"
            )
        return TensorSpec(name, shape, self._dtype(name))

    def _output_spec(self, name: str) -> TensorSpec:
        shape = tuple(self._context.get_tensor_shape(name))
        if -1 in shape:
            raise ModelError(
                f"{self.file}: the shape of output {name!r} depends on the data {shape}: such networks are not "
                f"supported"
            )
        return TensorSpec(name, shape, self._dtype(name))

    def _set_shapes(self, context: Any, inputs: Sequence[TensorSpec]) -> None:
        for spec in inputs:
            if -1 in tuple(self._engine.get_tensor_shape(spec.name)) and not context.set_input_shape(
                spec.name, spec.shape
            ):
                raise ModelError(f"{self.file}: input {spec.name!r} refused shape {spec.shape}: {_LOG.text()}")
        unresolved = context.infer_shapes()
        if unresolved:
            raise ModelError(f"{self.file}: the shapes do not follow from {', '.join(unresolved)}: {_LOG.text()}")

    def _dtype(self, name: str) -> str:
        kind = self._engine.get_tensor_dtype(name)
        dtype = versions.numpy_name(kind)
        if dtype is None:
            raise ModelError(
                f"{self.file}: tensor {name!r} is {kind.name}, which NumPy lacks: export the network with float inputs "
                f"and outputs"
            )
        return dtype

    def _checked_execute(self) -> Any:
        self._opened_engine()
        unbound = [spec.name for spec in (*self.inputs, *self.outputs) if spec.name not in self._bound]
        if unbound:
            raise EngineError(
                f"{self.file}: nothing is bound to {', '.join(unbound)}: bind every tensor before enqueue"
            )
        _LOG.clear()
        return self._context.execute_async_v3

    def _profiled(self, arrays: Mapping[str, Any], iterations: int) -> dict[str, Any]:
        context, times = self._new_context(), LayerTimes()
        self._set_shapes(context, self.inputs)
        for name, array in arrays.items():
            context.set_tensor_address(name, layout_of(array).pointer)  # type: ignore[union-attr]
        context.profiler = times
        stream = wp.get_stream(self.device)
        handle = int(stream.cuda_stream or 0)
        for iteration in range(PROFILE_WARMUP + iterations):
            if iteration == PROFILE_WARMUP:
                times.layers.clear()
            if not context.execute_async_v3(handle):
                raise EngineError(f"{self.file} on {self.device}: profiling stopped with: {_LOG.text()}")
            cuda.synchronize(stream)
        medians = {name: statistics.median(values) for name, values in times.layers.items()}
        total = sum(medians.values())
        layers = [
            {
                "name": name,
                "median_ms": medians[name],
                "mean_ms": statistics.fmean(values),
                "share": medians[name] / total if total else None,
            }
            for name, values in times.layers.items()
        ]
        return {"iterations": iterations, "warmup": PROFILE_WARMUP, "total_ms": total, "layers": layers}


class MessageLog(trt.ILogger):
    """Keeps TensorRT's errors for the next exception's text, and shows none by itself.

    One for the process: TensorRT takes the first that it is given, whatever it is given later.
    """

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: deque[str] = deque(maxlen=20)

    def log(self, severity: Any, msg: str) -> None:
        """Called by TensorRT, from any of its threads."""
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
            self.errors.append(" ".join(str(msg).split()))

    def clear(self) -> None:
        """Forgets what was said before."""
        self.errors.clear()

    def text(self, otherwise: object = "no reason given") -> str:
        """Returns what was said since :meth:`clear`, without repetitions; ``otherwise`` where that is nothing."""
        return "; ".join(dict.fromkeys(self.errors)) or str(otherwise)


class LayerTimes(trt.IProfiler):
    """Collects the times that TensorRT reports per layer [ms]."""

    def __init__(self) -> None:
        trt.IProfiler.__init__(self)
        self.layers: dict[str, list[float]] = {}

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        """Called by TensorRT after each profiled enqueue."""
        self.layers.setdefault(layer_name, []).append(float(ms))


_LOG = MessageLog()


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return shape == wanted or (wanted == () and shape == (1,))


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
