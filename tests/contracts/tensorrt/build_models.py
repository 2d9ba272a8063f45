"""What the doubles of TensorRT's builder, network and ONNX parser do, documented refusals included."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.contracts.tensorrt.gate import Gated, make

MAGIC = b"TENSORRT-DOUBLE\n"

_LAYER_TYPES = {
    "Cast": "IDENTITY",
    "Concat": "CONCATENATION",
    "Constant": "CONSTANT",
    "Conv": "CONVOLUTION",
    "ConvTranspose": "DECONVOLUTION",
    "DequantizeLinear": "DEQUANTIZE",
    "Gemm": "MATRIX_MULTIPLY",
    "Identity": "IDENTITY",
    "MatMul": "MATRIX_MULTIPLY",
    "MaxPool": "POOLING",
    "QuantizeLinear": "QUANTIZE",
    "ReduceMean": "REDUCE",
    "Relu": "ACTIVATION",
    "Reshape": "SHUFFLE",
    "Resize": "RESIZE",
    "Shape": "SHAPE",
    "Sigmoid": "ACTIVATION",
    "Slice": "SLICE",
    "Softmax": "SOFTMAX",
    "TopK": "TOPK",
    "Transpose": "SHUFFLE",
}
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Min", "Max", "Pow")
_DATA_TYPES = {1: "FLOAT", 10: "HALF", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 2: "UINT8"}


class HostMemory(bytes):
    """``IHostMemory``: bytes through the buffer protocol, without the methods of ``bytes``."""

    def __getattribute__(self, name):
        if not name.startswith("_") and name not in ("dtype", "nbytes"):
            raise AttributeError(f"'IHostMemory' object has no attribute '{name}'")
        return super().__getattribute__(name)

    def __len__(self):
        raise TypeError("object of type 'IHostMemory' has no len()")

    @property
    def nbytes(self):
        return memoryview(self).nbytes


class ILogger(Gated):
    def __init__(self):
        self._initialized = True

    def _say(self, severity: str, text: str) -> None:
        self.log(getattr(self._tensorrt.module.ILogger.Severity, severity), text)


class Logger(ILogger):
    _writable = frozenset({"min_severity"})

    def __init__(self, min_severity=None):
        super().__init__()
        self._said: list[str] = []

    def log(self, severity, msg):
        self._said.append(msg)


class IProgressMonitor(Gated):
    def __init__(self):
        self._initialized = True


class IInt8EntropyCalibrator2(Gated):
    def __init__(self):
        self._initialized = True


class Builder(Gated):
    _writable = frozenset({"max_threads", "error_recorder", "gpu_allocator", "max_batch_size"})
    platform_has_fast_fp16 = platform_has_fast_int8 = platform_has_tf32 = True

    def __init__(self, logger):
        if not isinstance(logger, self._tensorrt.module.ILogger):
            raise TypeError("__init__(): incompatible constructor arguments: logger is no ILogger")
        if self._tensorrt.no_driver or self._tensorrt.no_memory:
            code = 2 if self._tensorrt.no_memory else 35
            if not self._tensorrt.silent:
                text = f"CUDA initialization failure with error: {code}. Please check your CUDA installation"
                logger._say("ERROR", text)
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger
        self._initialized = True

    def create_network(self, flags=0):
        names = self._tensorrt.module.NetworkDefinitionCreationFlag.__members__
        known = sum(1 << int(flag) for flag in names.values())
        if int(flags) & ~known:
            raise ValueError(f"create_network(): no such flags: {flags}")
        on = {name for name, flag in names.items() if int(flags) & (1 << int(flag))}
        major = self._tensorrt.version[0]
        return make(
            self._tensorrt.module.INetworkDefinition,
            explicit_batch=major >= 10 or "EXPLICIT_BATCH" in on,
            strongly_typed=major >= 11 or "STRONGLY_TYPED" in on,
            inputs=[],
            outputs=[],
            layers=[],
            half=False,
            quantized=False,
        )

    def create_builder_config(self):
        made = make(self._tensorrt.module.IBuilderConfig, profiles=[], flags={"TF32"}, pools={}, calibration=None)
        made._cache = None
        sources = self._tensorrt.module.TacticSource.__members__.values()
        made._tactic_sources = sum(1 << int(source) for source in sources)
        return made

    def create_optimization_profile(self):
        return make(self._tensorrt.module.IOptimizationProfile, shapes={})

    def build_serialized_network(self, network, config):
        double = self._tensorrt
        double.builds.append((network, config))
        if double.on_build is not None:
            double.on_build(network, config)
        refusal = double.build_fails or _refusal(network, config)
        if refusal is None and config._calibrator is not None:
            refusal = _calibrate(network, config)
        if refusal is None and "progress_monitor" in type(config)._api and config.progress_monitor is not None:
            refusal = _report_phases(config.progress_monitor)
        if refusal is not None:
            self._logger._say("ERROR", refusal)
            return None
        if config._cache is not None:
            config._cache._content += b"+timed"
        return HostMemory(_plan(network, config, double))


class IBuilderConfig(Gated):
    _writable = frozenset(
        {
            "builder_optimization_level",
            "progress_monitor",
            "int8_calibrator",
            "profiling_verbosity",
            "max_workspace_size",
            "max_aux_streams",
            "avg_timing_iterations",
            "hardware_compatibility_level",
        }
    )
    progress_monitor = None
    int8_calibrator = None

    @property
    def _calibrator(self):
        return self.int8_calibrator if "int8_calibrator" in type(self)._api else None

    def set_flag(self, flag):
        self._flags.add(flag.name)

    def clear_flag(self, flag):
        self._flags.discard(flag.name)

    def get_flag(self, flag):
        return flag.name in self._flags

    def set_memory_pool_limit(self, pool, pool_size):
        self._pools[pool.name] = pool_size

    def get_tactic_sources(self):
        return self._tactic_sources

    def set_tactic_sources(self, tactic_sources):
        self._tactic_sources = tactic_sources
        return True

    def add_optimization_profile(self, profile):
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_calibration_profile(self, profile):
        self._calibration = profile
        return True

    def create_timing_cache(self, serialized_timing_cache):
        return make(self._tensorrt.module.ITimingCache, content=bytes(serialized_timing_cache))

    def set_timing_cache(self, cache, ignore_mismatch):
        if cache._content and not cache._content.startswith(self._tensorrt.timing_cache_head) and not ignore_mismatch:
            return False
        cache._content = cache._content or self._tensorrt.timing_cache_head
        self._cache = cache
        return True

    def get_timing_cache(self):
        return self._cache


class ITimingCache(Gated):
    def serialize(self):
        return HostMemory(self._content)

    def combine(self, input_cache, ignore_mismatch):
        self._content += input_cache._content
        return True


class IOptimizationProfile(Gated):
    def set_shape(self, input, min, opt, max):
        self._shapes[input] = [tuple(min), tuple(opt), tuple(max)]


class INetworkDefinition(Gated):
    _writable = frozenset({"name", "error_recorder"})
    name = "network"
    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))
    num_layers = property(lambda self: len(self._layers))
    has_implicit_batch_dimension = property(lambda self: not self._explicit_batch)

    def get_input(self, index):
        return self._inputs[index]

    def get_output(self, index):
        return self._outputs[index]

    def get_layer(self, index):
        return self._layers[index]


class ITensor(Gated):
    _writable = frozenset({"name", "dtype", "allowed_formats", "dynamic_range", "location"})
    is_shape_tensor = False
    is_execution_tensor = True
    shape = property(lambda self: self._tensorrt.module.Dims(-1 if isinstance(d, str) else d for d in self._dims))


class ILayer(Gated):
    _writable = frozenset({"name", "precision", "metadata"})
    num_outputs = property(lambda self: len(self._outputs))
    num_inputs = property(lambda self: len(self._inputs))
    precision_is_set = property(lambda self: self._constrained)
    _constrained = property(lambda self: "precision" in self.__dict__)

    def get_input(self, index):
        return self._inputs[index]

    def get_output(self, index):
        return self._outputs[index]

    def get_output_type(self, index):
        return self._types.get(index, self._outputs[index].dtype)

    def set_output_type(self, index, dtype):
        self._types[index] = dtype

    def output_type_is_set(self, index):
        return index in self._types


class ParserError(Gated):
    def code(self):
        return self._code

    def desc(self):
        return self._desc

    def file(self):
        return "onnx2trt"

    def func(self):
        return self._func

    def line(self):
        return 1

    def node(self):
        return self._node

    def node_name(self):
        return self._node_name

    def node_operator(self):
        return self._node_operator


class OnnxParser(Gated):
    num_errors = property(lambda self: len(self._errors))

    def __init__(self, network, logger):
        module = self._tensorrt.module
        if not isinstance(network, module.INetworkDefinition) or not isinstance(logger, module.ILogger):
            raise TypeError("__init__(): incompatible constructor arguments")
        self._network, self._logger, self._errors = network, logger, []
        self._initialized = True

    def get_error(self, index):
        return self._errors[index]

    def clear_errors(self):
        self._errors.clear()

    def parse(self, model, path=None):
        import onnx
        from google.protobuf.message import DecodeError

        self._tensorrt.parsed_paths.append(path)
        try:
            graph = onnx.ModelProto.FromString(bytes(model))
            known = onnx.shape_inference.infer_shapes(graph)
        except (DecodeError, onnx.shape_inference.InferenceError):
            return self._refuse("MODEL_DESERIALIZE_FAILED", "Failed to parse the ONNX model.", -1, None)
        if not graph.graph.node:
            return self._refuse("MODEL_DESERIALIZE_FAILED", "Failed to parse the ONNX model.", -1, None)
        if not self._network._explicit_batch:
            return self._refuse("INVALID_GRAPH", "only networks with an explicit batch dimension", -1, None)
        for index, node in enumerate(graph.graph.node):
            if node.domain not in ("", "ai.onnx"):
                text = f"No importer registered for op: {node.op_type}. Attempting to import as plugin."
                self._logger._say("INFO", text)
                what = 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"'
                return self._refuse("UNSUPPORTED_NODE", what, index, node)
        _fill(self._network, known.graph, self._tensorrt)
        return True

    def _refuse(self, code: str, text: str, index: int, node: Any) -> bool:
        error = make(
            self._tensorrt.module.ParserError,
            code=getattr(self._tensorrt.module.ErrorCode, code),
            desc=text,
            func="importFallbackPluginImporter" if node is not None else "parse",
            node=index,
            node_name=node.name if node is not None else "",
            node_operator=node.op_type if node is not None else "",
        )
        self._errors.append(error)
        return False


def _fill(network: Any, graph: Any, double: Any) -> None:
    """Makes the network's tensors and layers from an ONNX graph whose shapes are inferred."""
    types = {info.name: info.type.tensor_type for info in (*graph.input, *graph.value_info, *graph.output)}
    tensors: dict[str, Any] = {}

    def tensor(name: str) -> Any:
        if name not in tensors:
            kind = types.get(name)
            made = make(double.module.ITensor, dims=_dims(kind, name))
            made.name = name
            made.dtype = _data_type(kind.elem_type if kind is not None else 1, double)
            tensors[name] = made
        return tensors[name]

    constants = {constant.name for constant in graph.initializer}
    network._inputs.extend(tensor(info.name) for info in graph.input if info.name not in constants)
    network._outputs.extend(tensor(info.name) for info in graph.output)
    for node in graph.node:
        # An optional input that is not given is None, and weights of a convolution are no tensor.
        read = [tensor(name) if name else None for name in node.input if name not in constants]
        made = make(double.module.ILayer, inputs=read, outputs=[tensor(name) for name in node.output], types={})
        made.name = node.name or f"(Unnamed Layer* {network.num_layers}) [{node.op_type}]"
        kind = "ELEMENTWISE" if node.op_type in _ELEMENTWISE else _LAYER_TYPES.get(node.op_type, "UNARY")
        object.__setattr__(made, "type", getattr(double.module.LayerType, kind))
        network._layers.append(made)
    network._half = any(kind.elem_type == 10 for kind in types.values())
    network._quantized = any(node.op_type == "QuantizeLinear" for node in graph.node)


def _dims(kind: Any, name: str) -> list[int | str]:
    if kind is None:
        return []
    dims = kind.shape.dim
    return [d.dim_value if d.HasField("dim_value") else d.dim_param or f"{name}.{axis}" for axis, d in enumerate(dims)]


def _data_type(element: int, double: Any) -> Any:
    name = _DATA_TYPES.get(element, "FLOAT")
    if name not in double.module.DataType.__members__:
        name = "INT32"  # 8.5 has no INT64 and narrows it
    return getattr(double.module.DataType, name)


def _refusal(network: Any, config: Any) -> str | None:
    """Returns why TensorRT does not build this, ``None`` when it does."""
    typed = {"FP16", "INT8", "BF16", "FP8", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"}
    if network._strongly_typed:
        if wrong := sorted(config._flags & typed):
            return f"Error Code 3: API Usage Error (strongly typed network with precision flags {', '.join(wrong)})"
        if config._calibrator is not None:
            return "Error Code 3: API Usage Error (strongly typed network with an int8 calibrator)"
    else:
        if network._half and "FP16" not in config._flags:
            return "Error Code 4: half precision is set for a layer, but fp16 is not configured in the builder"
        if network._quantized and "INT8" not in config._flags:
            return "Error Code 4: Int8 precision is set for a layer, but int8 is not configured in the builder"
        if "INT8" in config._flags and not network._quantized and config._calibrator is None:
            return "Error Code 4: Calibration failure occurred with no scaling factors detected"
        constrained = any(layer._constrained or layer._types for layer in network._layers)
        if constrained and not config._flags & typed - {"FP16", "INT8"}:
            return "a layer's precision is set, but no flag says that it counts"
    for tensor in network._inputs:
        dynamic = any(isinstance(size, str) for size in tensor._dims)
        if dynamic and not any(tensor.name in profile._shapes for profile in config._profiles):
            return "Error Code 4: Network has dynamic or shape inputs, but no optimization profile has been defined."
    return None


def _calibrate(network: Any, config: Any) -> str | None:
    """Asks the calibrator for batches until there are none; they must have the shapes of the calibration profile."""
    calibrator = config._calibrator
    if any(isinstance(size, str) for t in network._inputs for size in t._dims) and config._calibration is None:
        return "Error Code 4: Calibration Profile is not defined"
    cache = calibrator.read_calibration_cache()
    batches = 0
    while not cache:
        pointers = calibrator.get_batch([tensor.name for tensor in network._inputs])
        if not pointers:
            break
        if len(pointers) != len(network._inputs) or not all(isinstance(pointer, int) for pointer in pointers):
            return "calibrator: one address per input is expected"
        batches += 1
    if batches == 0 and not cache:
        return "Error Code 1: Calibration failure: the calibrator gave no batch"
    network._tensorrt.calibration_batches.append(batches)
    calibrator.write_calibration_cache(HostMemory(b"scales"))
    return None


def _report_phases(monitor: Any) -> str | None:
    monitor.phase_start("Building", None, 2)
    for step in range(2):
        if not monitor.step_complete("Building", step):
            return "Error Code 10: the build was cancelled"
    monitor.phase_finish("Building")
    return None


def _plan(network: Any, config: Any, double: Any) -> bytes:
    """Returns the plan: what the runtime double needs to know, behind a checksum."""
    profiles = [profile._shapes for profile in config._profiles]
    described = {
        "version": double.module.__version__,
        "inputs": [_described(tensor) for tensor in network._inputs],
        "outputs": [_described(tensor) for tensor in network._outputs],
        "profiles": profiles or [{tensor.name: [tensor._dims] * 3 for tensor in network._inputs}],
        "layers": [
            {
                "name": layer.name,
                "type": layer.type.name,
                "precision": layer.precision.name if layer._constrained else None,
                "outputs": {layer._outputs[index].name: kind.name for index, kind in layer._types.items()},
            }
            for layer in network._layers
        ],
        "detailed": getattr(config.__dict__.get("profiling_verbosity"), "name", "") == "DETAILED",
        "flags": sorted(config._flags),
    }
    body = json.dumps(described, sort_keys=True).encode()
    return MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _described(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype.name, "dims": tensor._dims}
