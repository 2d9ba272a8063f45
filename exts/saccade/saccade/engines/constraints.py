"""Types of single layers, for builds in which TensorRT chooses types itself: 8.5, and calibrators up to 10."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

PRODUCTS = frozenset({"CONVOLUTION", "DECONVOLUTION", "FULLY_CONNECTED", "MATRIX_MULTIPLY"})
"""Kinds of layers that run in int8: what :mod:`saccade.precision.int8` puts Q/DQ pairs before."""
MOVING = frozenset(
    {
        "ASSERTION", "CAST", "CONCATENATION", "CONDITION", "CONDITIONAL_INPUT", "CONDITIONAL_OUTPUT", "CONSTANT",
        "FILL", "GATHER", "IDENTITY", "ITERATOR", "LOOP_OUTPUT", "NON_ZERO", "ONE_HOT", "PADDING", "RECURRENCE",
        "REVERSE_SEQUENCE", "SCATTER", "SELECT", "SHAPE", "SHUFFLE", "SLICE", "SQUEEZE", "TRIP_LIMIT", "UNSQUEEZE",
    }
)  # fmt: skip
"""Kinds of layers that compute nothing: they take the type of what they move, or have none to choose."""


def keep_in_float(trt: Any, network: Any, names: Collection[str]) -> bool:
    """Binds the layers of those names to float32; returns whether there are any."""
    found = False
    for layer in _layers(network):
        if layer.name not in names or layer.type == trt.LayerType.CONSTANT or not _float_outputs(trt, layer):
            continue
        layer.precision = trt.DataType.FLOAT
        for output, tensor in enumerate(_outputs(layer)):
            if tensor.dtype == trt.DataType.FLOAT:
                layer.set_output_type(output, trt.DataType.FLOAT)
        found = True
    return found


def int8_for_products(trt: Any, network: Any, *, fused: Collection[str] = (), bound: Collection[str] = ()) -> bool:
    """Leaves int8 to products alone where TensorRT measures scales itself, which give it one for every tensor.

    So that the network computes in int8 what one with Q/DQ pairs does: products on rounded inputs, everything else in
    float16, and no tensor rounded but those that products read. A tensor that anything else reads, also behind layers
    that only move it, is float16; outputs of the network stay float32, which nothing may change.

    Args:
        trt: The module ``tensorrt``.
        network: The parsed network, weakly typed.
        fused: Layers that become one kernel with the product before them, such as ReLU: parted they would cost more,
            and rounding before or after them is the same.
        bound: Layers that have a type already.

    Returns:
        Whether there is any constraint.
    """
    layers = list(_layers(network))
    readers: dict[str, list[Any]] = {}
    maker: dict[str, Any] = {}
    for layer in layers:
        for tensor in _inputs(layer):
            readers.setdefault(tensor.name, []).append(layer)
        for tensor in _outputs(layer):
            maker[tensor.name] = layer
    results = {network.get_output(index).name for index in range(network.num_outputs)}
    found = False
    for layer in layers:
        kind = layer.type.name
        outputs = _float_outputs(trt, layer)
        if kind in MOVING or layer.name in bound or not outputs:
            continue
        if kind not in PRODUCTS and not (layer.name in fused and _follows_product(layer, maker, readers)):
            layer.precision = trt.DataType.HALF
            found = True
        for output, tensor in outputs:
            if tensor.name in results:
                layer.set_output_type(output, trt.DataType.FLOAT)
            elif _is_read_in_float(tensor.name, readers, results, fused if kind in PRODUCTS else ()):
                layer.set_output_type(output, trt.DataType.HALF)
            else:
                continue
            found = True
    return found


def _follows_product(layer: Any, maker: dict[str, Any], readers: dict[str, list[Any]]) -> bool:
    """Whether a layer is the only one to read what a product gives."""
    before = [tensor.name for tensor in _inputs(layer)]
    return all(name in maker and maker[name].type.name in PRODUCTS and len(readers[name]) == 1 for name in before)


def _is_read_in_float(
    name: str, readers: dict[str, list[Any]], results: Collection[str], fused: Collection[str]
) -> bool:
    """Whether anything but a product reads a tensor, where it is or where it is moved to.

    ``fused``: layers that do not count where they are its only reader, since the tensor then exists in a kernel alone.
    """
    if len(readers.get(name, ())) == 1 and readers[name][0].name in fused and name not in results:
        return False
    pending, seen = [name], {name}
    while pending:
        current = pending.pop()
        if current in results:
            return True
        for layer in readers.get(current, ()):
            kind = layer.type.name
            if kind in PRODUCTS:
                continue
            if kind not in MOVING:
                return True
            moved = {tensor.name for tensor in _outputs(layer)} - seen
            seen |= moved
            pending += moved
    return False


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _inputs(layer: Any) -> list[Any]:
    """The tensors that a layer reads; optional ones that are not given are ``None`` to TensorRT."""
    found = (layer.get_input(index) for index in range(layer.num_inputs))
    return [tensor for tensor in found if tensor is not None]


def _outputs(layer: Any) -> list[Any]:
    return [layer.get_output(index) for index in range(layer.num_outputs)]


def _float_outputs(trt: Any, layer: Any) -> Sequence[tuple[int, Any]]:
    """Number and tensor of the outputs whose type can be chosen; none where all are shapes or integers."""
    return [
        (index, tensor)
        for index, tensor in enumerate(_outputs(layer))
        if tensor.dtype == trt.DataType.FLOAT and not tensor.is_shape_tensor
    ]
