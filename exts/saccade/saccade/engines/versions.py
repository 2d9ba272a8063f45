"""What one TensorRT release has and another lacks, decided here by its version and nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from saccade.errors import DependencyError

_NUMPY_NAMES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}


@dataclass(frozen=True, slots=True)
class Traits:
    """How to speak to one TensorRT release."""

    version: tuple[int, ...]
    explicit_batch: bool
    """Whether a network is only complete with the flag ``EXPLICIT_BATCH``; later it is the only mode."""
    strongly_typed: bool
    """Whether types come from the graph; the precision flags must then stay off."""
    strongly_typed_flag: bool
    """Whether a network becomes strongly typed by the flag ``STRONGLY_TYPED``; without it, it always is."""
    precision_flags: bool
    """Whether ``BuilderFlag.FP16`` and ``INT8``, layer precisions and the int8 calibrator exist."""
    optimization_level: bool
    """Whether ``IBuilderConfig.builder_optimization_level`` exists."""
    progress_monitor: bool
    """Whether a build reports its phases and can be cancelled."""
    host_code_switch: bool
    """Whether ``Runtime.engine_host_code_allowed`` exists."""
    device_memory: str
    """The property of ``ICudaEngine`` that holds the activation memory [bytes]."""
    node_named_in_error: bool
    """Whether a parser error knows the operator and the name of its node, not the node's index alone."""
    external_sources: tuple[str, ...]
    """Tactic sources that need a library of their own."""
    external_libraries: tuple[tuple[str, str, tuple[str, ...]], ...]
    """Per external source: its name, a function that the real library exports, and the file names to look for."""


def traits_of(version: str) -> Traits:
    """Returns what the TensorRT release ``version`` (``tensorrt.__version__``) has.

    Raises:
        DependencyError: It is older than 8.5, which has no addresses by tensor name.
    """
    number = version_tuple(version)
    if number < (8, 5):
        raise DependencyError(f"TensorRT {version} is too old: 8.5 or newer is needed (pip install -U tensorrt)")
    external = _external_libraries(number)
    return Traits(
        version=number,
        explicit_batch=number < (10,),
        strongly_typed=number >= (10,),
        strongly_typed_flag=(10,) <= number < (11,),
        precision_flags=number < (11,),
        optimization_level=number >= (8, 6),
        progress_monitor=number >= (10,),
        host_code_switch=number >= (8, 6),
        device_memory="device_memory_size_v2" if number >= (11,) else "device_memory_size",
        node_named_in_error=number >= (10,),
        external_sources=tuple(name for name, _, _ in external),
        external_libraries=external,
    )


def int8_route(version: str) -> str:
    """Returns how int8 scales reach TensorRT: ``"explicit"`` (Q/DQ in the graph) or ``"calibrator"``.

    The calibrator is gone in TensorRT 11 and deprecated in 10. On 8.5 a ResNet-18 with Q/DQ was measured not to finish
    its build in 340 s, where the calibrator needed 52 s: before 10, it is the way.
    """
    return "explicit" if version_tuple(version) >= (10,) else "calibrator"


def version_tuple(version: str) -> tuple[int, ...]:
    """Returns the leading numbers of a version, ``"8.5.3.1"`` as ``(8, 5, 3, 1)``."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    if numbers is None:
        raise DependencyError(f"TensorRT says its version is {version!r}: expected numbers, such as 10.16.1")
    return tuple(int(number) for number in numbers.group().split("."))


def numpy_name(data_type: Any) -> str | None:
    """Returns the NumPy name of a ``tensorrt.DataType``, ``None`` for types that NumPy lacks.

    ``tensorrt.nptype`` is not used: that of 8.5 fails with NumPy 1.24 to 1.26.
    """
    return _NUMPY_NAMES.get(data_type.name)


def _external_libraries(number: tuple[int, ...]) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    if number >= (11,):
        return ()
    cuda: tuple[str, ...]
    cudnn: tuple[str, ...]
    if number < (8, 6):
        cuda, cudnn = ("11",), ("8",)
    elif number < (10,):
        cuda, cudnn = ("12", "11"), ("8",)
    else:
        cuda, cudnn = ("13", "12", "11"), ("9", "8")
    return (
        ("CUBLAS", "cublasCreate_v2", tuple(f"libcublas.so.{major}" for major in cuda)),
        ("CUBLAS_LT", "cublasLtCreate", tuple(f"libcublasLt.so.{major}" for major in cuda)),
        ("CUDNN", "cudnnCreate", tuple(f"libcudnn.so.{major}" for major in cudnn)),
    )
