"""ResNet-18 with its ImageNet head as an ONNX file, untrained: a network of known cost for the benchmark."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.errors import DependencyError
from saccade.models.export import atomic_path

if TYPE_CHECKING:
    import onnx

OPSET = 13
IR_VERSION = 8
INPUT, OUTPUT = "image", "logits"
SIZE = 224
"""Height and width of the input [px]."""
CLASS_COUNT = 1000
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Channels and first stride of the four stages of two blocks each."""

_EPSILON = 1e-5


def resnet18_file(path: Path, *, seed: int = 0, batch: int | None = 1) -> Path:
    """Writes the network and returns ``path``; the same arguments give the same bytes.

    Weights have He's initialization; batch normalization with random statistics is folded into the convolutions.

    Args:
        path: The file; replaced only when it is complete.
        seed: Of all weights.
        batch: Images per run; ``None`` leaves it open.

    Raises:
        DependencyError: ``onnx`` is not installed.
    """
    model = resnet18(seed=seed, batch=batch)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    return path


def resnet18(*, seed: int = 0, batch: int | None = 1) -> onnx.ModelProto:
    """Returns the network: input ``image`` ``(batch, 3, 224, 224)``, output ``logits`` ``(batch, 1000)``, float32.

    Args:
        seed: Of all weights.
        batch: Images per run; ``None`` leaves it open.

    Raises:
        DependencyError: ``onnx`` is not installed.
    """
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError as error:
        raise DependencyError(f"ResNet-18 is written with onnx ({error}): pip install onnx") from error

    generator = np.random.default_rng(seed)
    nodes: list[Any] = []
    weights: dict[str, np.ndarray] = {}
    value = _layers(nodes, weights, generator)
    weights["fc.weight"] = _he(generator, (CLASS_COUNT, STAGES[-1][0]))
    weights["fc.bias"] = np.zeros(CLASS_COUNT, np.float32)
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pool"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pool"], ["flat"], "flat", axis=1))
    nodes.append(helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], [OUTPUT], "fc", transB=1))
    size: int | str = "batch" if batch is None else batch
    graph = helper.make_graph(
        nodes,
        "resnet18",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [size, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [size, CLASS_COUNT])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "saccade"
    checker.check_model(model)
    return model


def _layers(nodes: list[Any], weights: dict[str, np.ndarray], generator: np.random.Generator) -> str:
    """Appends all convolutions; returns the name of the last feature map."""
    from onnx import helper

    def convolution(value: str, name: str, channels: tuple[int, int], kernel: int, stride: int, gain: float) -> str:
        into, out = channels
        weight, bias = _folded(generator, _he(generator, (out, into, kernel, kernel)), gain)
        weights[f"{name}.weight"], weights[f"{name}.bias"] = weight, bias
        around = kernel // 2
        nodes.append(
            helper.make_node(
                "Conv",
                [value, f"{name}.weight", f"{name}.bias"],
                [name],
                name,
                kernel_shape=[kernel, kernel],
                strides=[stride, stride],
                pads=[around] * 4,
            )
        )
        return name

    def rectified(value: str) -> str:
        nodes.append(helper.make_node("Relu", [value], [f"{value}.relu"], f"{value}.relu"))
        return f"{value}.relu"

    value = rectified(convolution(INPUT, "conv1", (3, STAGES[0][0]), 7, 2, 1.0))
    nodes.append(
        helper.make_node(
            "MaxPool", [value], ["maxpool"], "maxpool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
        )
    )
    value, into = "maxpool", STAGES[0][0]
    for name, out, stride in _blocks():
        inner = rectified(convolution(value, f"{name}.conv1", (into, out), 3, stride, 1.0))
        # The branch adds to what is there: with a smaller gain eight blocks do not blow the values up.
        branch = convolution(inner, f"{name}.conv2", (out, out), 3, 1, 0.5)
        shortcut = value
        if stride != 1 or into != out:
            shortcut = convolution(value, f"{name}.shortcut", (into, out), 1, stride, math.sqrt(0.5))
        nodes.append(helper.make_node("Add", [branch, shortcut], [f"{name}.sum"], f"{name}.sum"))
        value, into = rectified(f"{name}.sum"), out
    return value


def _blocks() -> Iterator[tuple[str, int, int]]:
    """Yields name, channels and stride of the eight residual blocks."""
    for stage, (channels, stride) in enumerate(STAGES, start=1):
        yield f"layer{stage}.0", channels, stride
        yield f"layer{stage}.1", channels, 1


def _he(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    fan_in = int(np.prod(shape[1:]))
    return (generator.standard_normal(shape) * math.sqrt(2 / fan_in)).astype(np.float32)


def _folded(generator: np.random.Generator, weight: np.ndarray, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns weight and bias with a batch normalization of random statistics folded in."""
    out = len(weight)
    gamma, beta = gain * generator.uniform(0.8, 1.2, out), generator.normal(0, 0.05, out)
    mean, variance = generator.normal(0, 0.05, out), generator.uniform(0.8, 1.25, out)
    scale = gamma / np.sqrt(variance + _EPSILON)
    folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return folded.astype(np.float32), (beta - mean * scale).astype(np.float32)
