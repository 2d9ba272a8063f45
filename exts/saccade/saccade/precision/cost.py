"""What a network costs: parameters and multiply-adds, counted on its ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.errors import ModelError

if TYPE_CHECKING:
    import onnx


def parameters_of(model: onnx.ModelProto) -> dict[str, int]:
    """Returns how many weights a network has.

    Weights are the constants of convolutions and matrix products and what is added to their results; scales, zero
    points, shapes and tables are not.

    Returns:
        ``total``, and ``nonzero`` of them.
    """
    total = nonzero = 0
    for array in weights_of(model).values():
        total += array.size
        nonzero += int(np.count_nonzero(array))
    return {"total": total, "nonzero": nonzero}


def weights_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Returns the weights and biases of convolutions and matrix products by the name of their constant.

    What stands behind a Q/DQ pair or a cast counts as the weight itself.
    """
    constants = constants_of(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        for name in node.input:
            source = name
            while source in makers and makers[source].op_type in _TRANSPARENT and source not in constants:
                source = makers[source].input[0]
            if source in constants:
                found[source] = constants[source]
    return found


def constants_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Returns all constants of a graph by name: its initializers and what its Constant nodes make."""
    from onnx import numpy_helper

    found = {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found


def multiply_adds_of(model: onnx.ModelProto) -> int:
    """Returns the multiply-adds of convolutions and matrix products for one sample; zeros count like other weights.

    Raises:
        ModelError: A shape cannot be inferred; the text names the node.
    """
    shapes = shapes_of(model)
    constants = constants_of(model)
    total = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            weight = shapes.get(node.input[1]) or constants[node.input[1]].shape
            # A convolution does one kernel per output value, its transpose one per input value.
            values = _known(shapes, node, node.output[0] if node.op_type == "Conv" else node.input[0])
            total += math.prod(values) * math.prod(weight[1:])
        elif node.op_type == "Gemm":
            rows, inner = _known(shapes, node, node.input[0])
            if _attribute(node, "transA", 0):
                rows, inner = inner, rows
            total += math.prod(_known(shapes, node, node.output[0])) * inner
        elif node.op_type == "MatMul":
            total += math.prod(_known(shapes, node, node.output[0])) * _known(shapes, node, node.input[0])[-1]
    return total


def shapes_of(model: onnx.ModelProto, *, sizes: Mapping[str, int] | None = None) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all tensors that can be inferred, open sizes as 1.

    Args:
        model: The network; left unchanged.
        sizes: Size by the name of an open dimension, where it is not 1.
    """
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    open_sizes = [
        dimension
        for info in fixed.graph.input
        for dimension in info.type.tensor_type.shape.dim
        if not dimension.HasField("dim_value")
    ]
    for dimension in open_sizes:
        dimension.dim_value = (sizes or {}).get(dimension.dim_param, 1)
    if open_sizes:
        # What was inferred with an open size contradicts what is inferred without.
        del fixed.graph.value_info[:]
        for info in fixed.graph.output:
            info.type.tensor_type.ClearField("shape")
    known = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    found = {}
    for info in (*known.input, *known.value_info, *known.output):
        dimensions = info.type.tensor_type.shape.dim
        if info.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dimensions):
            found[info.name] = tuple(d.dim_value for d in dimensions)
    for name, array in constants_of(model).items():
        found.setdefault(name, array.shape)
    return found


_TRANSPARENT = ("QuantizeLinear", "DequantizeLinear", "Cast", "Identity")


def _known(shapes: Mapping[str, tuple[int, ...]], node: Any, name: str) -> tuple[int, ...]:
    if name not in shapes:
        raise ModelError(
            f"{node.op_type} {node.name!r}: the shape of {name!r} cannot be inferred, so its cost cannot be counted: "
            "export the network with fixed sizes"
        )
    return shapes[name]


def _attribute(node: Any, name: str, default: Any) -> Any:
    return next((a.i for a in node.attribute if a.name == name), default)
