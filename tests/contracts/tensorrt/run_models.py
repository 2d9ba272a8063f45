"""What the doubles of TensorRT's runtime, engine and execution context do, documented refusals included."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.contracts.tensorrt.build_models import MAGIC, HostMemory
from tests.contracts.tensorrt.gate import Gated, make


class IProfiler(Gated):
    def __init__(self):
        self._initialized = True


class Runtime(Gated):
    _writable = frozenset({"engine_host_code_allowed", "max_threads", "error_recorder", "gpu_allocator", "DLA_core"})
    engine_host_code_allowed = False

    def __init__(self, logger):
        if not isinstance(logger, self._tensorrt.module.ILogger):
            raise TypeError("__init__(): incompatible constructor arguments: logger is no ILogger")
        if self._tensorrt.no_driver:
            logger._say("ERROR", "CUDA initialization failure with error: 35. Please check your CUDA installation")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger
        self._initialized = True

    def deserialize_cuda_engine(self, serialized_engine):
        plan = bytes(serialized_engine)
        if not plan.startswith(MAGIC) or plan.count(b"\n") < 2:
            self._logger._say("ERROR", "Error Code 1: Serialization (magicTag assertion failed)")
            return None
        _, checksum, body = plan.split(b"\n", 2)
        if hashlib.sha256(body).hexdigest().encode() != checksum:
            self._logger._say("ERROR", "Error Code 1: Serialization (the plan is damaged)")
            return None
        described = json.loads(body)
        if described["version"] != self._tensorrt.module.__version__:
            self._logger._say(
                "ERROR", f"Error Code 1: Serialization: Version tag does not match: {described['version']}"
            )
            return None
        self._tensorrt.host_code_allowed.append(self.engine_host_code_allowed if self._has_switch else None)
        return make(self._tensorrt.module.ICudaEngine, plan=plan, described=described, logger=self._logger)

    @property
    def _has_switch(self) -> bool:
        return "engine_host_code_allowed" in type(self)._api


class ICudaEngine(Gated):
    _writable = frozenset({"error_recorder"})
    name = "double"
    refittable = False
    device_memory_size = device_memory_size_v2 = 1 << 20
    num_io_tensors = property(lambda self: len(self._described["inputs"]) + len(self._described["outputs"]))
    num_layers = property(lambda self: len(self._described["layers"]))
    num_optimization_profiles = property(lambda self: len(self._described["profiles"]))

    def get_tensor_name(self, index):
        return self._tensors[index]["name"]

    def get_tensor_mode(self, name):
        modes = self._tensorrt.module.TensorIOMode
        found = self._find(name)
        if found is None:
            return modes.NONE
        return modes.INPUT if found in self._described["inputs"] else modes.OUTPUT

    def get_tensor_dtype(self, name):
        return getattr(self._tensorrt.module.DataType, self._known(name)["dtype"])

    def get_tensor_shape(self, name):
        return self._tensorrt.module.Dims(-1 if isinstance(d, str) else d for d in self._known(name)["dims"])

    def get_tensor_location(self, name):
        return self._tensorrt.module.TensorLocation.DEVICE

    def get_tensor_format(self, name, profile_index=0):
        return self._tensorrt.module.TensorFormat.LINEAR

    def get_tensor_profile_shape(self, name, profile_index):
        shapes = self._described["profiles"][profile_index]
        found = shapes.get(name) or [self._known(name)["dims"]] * 3
        return [self._tensorrt.module.Dims(shape) for shape in found]

    def create_execution_context(self, *_strategy):
        if self._tensorrt.context_fails:
            self._logger._say("ERROR", "Error Code 2: OutOfMemory (no further information)")
            return None
        return make(
            self._tensorrt.module.IExecutionContext,
            engine=self,
            addresses={},
            shapes={t["name"]: t["dims"] for t in self._described["inputs"]},
            profile=0,
        )

    def create_engine_inspector(self):
        return make(self._tensorrt.module.EngineInspector, engine=self)

    def serialize(self):
        return HostMemory(self._plan)

    @property
    def _tensors(self) -> list[dict[str, Any]]:
        return [*self._described["inputs"], *self._described["outputs"]]

    def _find(self, name: str) -> dict[str, Any] | None:
        return next((tensor for tensor in self._tensors if tensor["name"] == name), None)

    def _known(self, name: str) -> dict[str, Any]:
        found = self._find(name)
        if found is None:
            raise ValueError(f"no tensor {name!r}")
        return found


class EngineInspector(Gated):
    _writable = frozenset({"execution_context", "error_recorder"})

    def get_engine_information(self, format):
        layers = [self._layer(layer) for layer in self._engine._described["layers"]]
        return json.dumps({"Layers": layers, "Bindings": [tensor["name"] for tensor in self._engine._tensors]})

    def get_layer_information(self, layer_index, format):
        return json.dumps(self._layer(self._engine._described["layers"][layer_index]))

    def _layer(self, layer: dict[str, Any]) -> Any:
        """As the real inspector: a name alone, unless the engine was built with detailed verbosity."""
        if not self._engine._described["detailed"]:
            return layer["name"]
        return {"Name": layer["name"], "LayerType": layer["type"], "Inputs": [], "Outputs": [], "TacticName": ""}


class IExecutionContext(Gated):
    _writable = frozenset(
        {"profiler", "name", "debug_sync", "enqueue_emits_profile", "nvtx_verbosity", "persistent_cache_limit"}
    )
    profiler = None
    enqueue_emits_profile = True
    engine = property(lambda self: self._engine)
    active_optimization_profile = property(lambda self: self._profile)
    all_binding_shapes_specified = property(lambda self: not self.infer_shapes())

    def set_optimization_profile_async(self, profile_index, stream_handle):
        if not 0 <= profile_index < self._engine.num_optimization_profiles:
            return False
        self._profile = profile_index
        return True

    def set_input_shape(self, name, shape):
        wanted = tuple(shape)
        found = next((tensor for tensor in self._engine._described["inputs"] if tensor["name"] == name), None)
        if found is None or len(found["dims"]) != len(wanted):
            return False
        low, _, high = (tuple(s) for s in self._engine.get_tensor_profile_shape(name, self._profile))
        if not all(isinstance(size, int) for size in low):
            return False
        if not all(small <= size <= large for small, size, large in zip(low, wanted, high, strict=True)):
            self._engine._logger._say("ERROR", f"Error Code 3: {name}: {wanted} is not in the profile {low} to {high}")
            return False
        self._shapes[name] = list(wanted)
        return True

    def get_tensor_shape(self, name):
        if name in self._shapes:
            sizes = self._shapes[name]
        else:
            sizes = [self._size(size) for size in self._engine._known(name)["dims"]]
        return self._tensorrt.module.Dims(size if isinstance(size, int) else -1 for size in sizes)

    def infer_shapes(self):
        return [name for name, sizes in self._shapes.items() if not all(isinstance(size, int) for size in sizes)]

    def set_tensor_address(self, name, memory):
        if self._engine._find(name) is None:
            return False
        self._addresses[name] = memory
        return True

    def get_tensor_address(self, name):
        return self._addresses.get(name, 0)

    def report_to_profiler(self):
        if self.profiler is None:
            return False
        for layer in self._engine._described["layers"]:
            self.profiler.report_layer_time(layer["name"], 0.001)
        return True

    def execute_async_v3(self, stream_handle):
        missing = [tensor["name"] for tensor in self._engine._tensors if not self._addresses.get(tensor["name"])]
        if missing or self.infer_shapes() or self._tensorrt.execution_fails:
            text = self._tensorrt.execution_fails or f"Address is not set for {', '.join(missing) or 'a shape'}"
            self._engine._logger._say("ERROR", f"Error Code 3: API Usage Error ({text})")
            return False
        self._tensorrt.executions.append((self, stream_handle))
        if self._tensorrt.on_execute is not None:
            self._tensorrt.on_execute(self)
        if self.profiler is not None and self.enqueue_emits_profile:
            self.report_to_profiler()
        return True

    def _size(self, size: int | str) -> int | str:
        """A symbolic size is that of the input dimension with the same name."""
        for tensor in self._engine._described["inputs"]:
            if size in tensor["dims"] and isinstance(size, str):
                return self._shapes[tensor["name"]][tensor["dims"].index(size)]
        return size
