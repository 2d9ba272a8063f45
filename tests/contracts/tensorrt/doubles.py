"""A module ``tensorrt`` of one release, made from its interface: for tests of the code that calls it, without a GPU."""

from __future__ import annotations

import ctypes
import json
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tests.contracts.tensorrt import build_models, run_models
from tests.contracts.tensorrt.gate import Gated, enumeration, gated_class

RELEASES = ("8.5.3.1", "10.16.1.11", "11.4.0.106")

_FOLDER = Path(__file__).parent
_NUMPY_NAMES = {"FLOAT": "float32", "HALF": "float16", "BOOL": "bool"}


class TensorRTDouble:
    """One release's module, what it is told to do, and what was done with it.

    Args:
        release: One of :data:`RELEASES`.
    """

    def __init__(self, release: str) -> None:
        surface = json.loads((_FOLDER / f"api-{release}.json").read_text(encoding="utf-8"))
        self.version = tuple(int(number) for number in release.split("."))
        self.no_driver = False
        """Whether the builder and the runtime find no CUDA driver."""
        self.no_memory = False
        self.silent = False
        """Whether the GPU is too full for the builder to start."""
        self.build_fails: str | None = None
        """What the builder logs before it returns ``None``."""
        self.context_fails = False
        """Whether there is too little memory for an execution context."""
        self.execution_fails: str | None = None
        """What the context logs before it refuses to execute."""
        self.on_build: Callable[[Any, Any], None] | None = None
        """Called with the network and the configuration of every build, before it."""
        self.on_execute: Callable[[Any], None] | None = None
        """Called with the context of every execution; see :func:`views`."""
        self.timing_cache_head = f"timing cache of {release}".encode()
        """How every timing cache of this release and GPU begins."""
        self.builds: list[tuple[Any, Any]] = []
        self.executions: list[tuple[Any, int]] = []
        """Context and stream handle of every ``execute_async_v3``."""
        self.calibration_batches: list[int] = []
        self.host_code_allowed: list[bool | None] = []
        """Per deserialized plan the runtime's switch; ``None`` where the release has none."""
        self.parsed_paths: list[str | None] = []
        self.module = self._module(surface)

    def _module(self, surface: dict[str, Any]) -> types.ModuleType:
        module = types.ModuleType("tensorrt")
        self.module = module
        module.__version__ = surface["version"]  # type: ignore[attr-defined]
        module.Dims = Dims  # type: ignore[attr-defined]
        others = set(surface["others"])
        for name, described in surface["api"].items():
            if described["kind"] == "enum":
                setattr(module, name, enumeration(name, described["members"]))
            elif described["kind"] == "class" and name != "Dims":
                setattr(module, name, self._class(name, described["members"]))
            elif described["kind"] == "function":
                others.add(name)
        logger = module.ILogger
        logger.Severity = enumeration("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])
        for name, severity in logger.Severity.__members__.items():
            setattr(logger, name, severity)
        module.Logger.Severity = logger.Severity  # type: ignore[attr-defined]
        for name, data_type in module.DataType.__members__.items():
            data_type.itemsize = {"FLOAT": 4, "HALF": 2, "INT32": 4, "INT64": 8}.get(name, 1)
        module.volume = lambda shape: int(np.prod(tuple(shape)))  # type: ignore[attr-defined]
        module.nptype = lambda kind: np.dtype(_NUMPY_NAMES.get(kind.name, kind.name.lower()))  # type: ignore[attr-defined]

        def missing(name: str) -> Any:
            if name in others:
                raise NotImplementedError(f"the double of TensorRT does not model {name}")
            raise AttributeError(f"module 'tensorrt' has no attribute '{name}'")

        module.__getattr__ = missing  # type: ignore[method-assign]
        return module

    def _class(self, name: str, members: dict[str, str]) -> type:
        model = getattr(build_models, name, None) or getattr(run_models, name, None) or Gated
        if name == "IHostMemory":
            return build_models.HostMemory
        if name == "Logger":
            model = type("LoggerModel", (build_models.Logger, self.module.ILogger), {})
        return gated_class(name, members, model, self)


class Dims:
    """``tensorrt.Dims``: a sequence of sizes that equals only its own kind."""

    MAX_DIMS = 8

    def __init__(self, sizes=()):
        self._sizes = tuple(sizes)

    def __len__(self):
        return len(self._sizes)

    def __getitem__(self, index):
        return self._sizes[index]

    def __eq__(self, other):
        return isinstance(other, Dims) and self._sizes == other._sizes

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self):
        return str(self._sizes)


@contextmanager
def installed(release: str, *reload: str) -> Iterator[TensorRTDouble]:
    """Puts the double of ``release`` where ``import tensorrt`` finds it, and takes it away again.

    Args:
        release: One of :data:`RELEASES`.
        reload: Modules of the package that import TensorRT when they are loaded; they are loaded anew inside, and what
            was loaded before comes back afterwards.
    """
    double = TensorRTDouble(release)
    names = ("tensorrt", *reload)
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.modules["tensorrt"] = double.module
    try:
        yield double
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def views(context: Any) -> dict[str, np.ndarray]:
    """Returns the context's bound tensors as NumPy arrays on the bound addresses, which must be host memory."""
    found = {}
    for tensor in context._engine._tensors:
        name = tensor["name"]
        shape = tuple(context.get_tensor_shape(name))
        dtype = np.dtype(_NUMPY_NAMES.get(tensor["dtype"], tensor["dtype"].lower()))
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_char * size).from_address(context._addresses[name])
        found[name] = np.frombuffer(memory, dtype).reshape(shape)
    return found
