"""Weights taken away one by one: the smallest of a layer, or two of every four for sparse tensor cores."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.precision.int8 import kept_nodes

if TYPE_CHECKING:
    import onnx

GROUP, KEPT = 4, 2
"""Sparse tensor cores skip two of four neighbouring weights along the input channels."""


def mask_l1(weight: np.ndarray, amount: float) -> np.ndarray:
    """Returns which weights stay: all but the ``amount`` share that is smallest in magnitude (L1)."""
    drop = round(amount * weight.size)
    mask = np.ones(weight.size, bool)
    mask[np.argsort(np.abs(weight).ravel(), kind="stable")[:drop]] = False
    return mask.reshape(weight.shape)


def mask_2_to_4(weight: np.ndarray) -> np.ndarray:
    """Returns which weights stay: of every four neighbours along axis 1 the two largest, in every output channel.

    Channels left over where their number is no multiple of four stay. Shape ``(out, in, ...)``.
    """
    whole = weight.shape[1] // GROUP * GROUP
    mask = np.ones(weight.shape, bool)
    if not whole:
        return mask
    # Input channels last, so that four neighbours are one row.
    last = np.moveaxis(np.abs(weight[:, :whole]), 1, -1)
    grouped = last.reshape(*last.shape[:-1], whole // GROUP, GROUP)
    order = np.argsort(-grouped, axis=-1, kind="stable")
    chosen = np.zeros(grouped.shape, bool)
    np.put_along_axis(chosen, order[..., :KEPT], True, axis=-1)
    mask[:, :whole] = np.moveaxis(chosen.reshape(last.shape), -1, 1)
    return mask


def sparse_masks(
    model: onnx.ModelProto, how: str, *, amount: float = 0.5, keep: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Returns which weights stay, by the name of their constant.

    Depthwise convolutions are left alone: they hold few weights, and a row of four has no neighbours there.

    Args:
        model: A float network.
        how: ``"l1"`` or ``"2:4"``.
        amount: Share that goes with ``"l1"``, in each layer.
        keep: Operator types and names of nodes that are left alone.
    """
    kept = set(kept_nodes(model, keep))
    constants = _initializers(model)
    masks = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.name in kept or node.input[1] not in constants:
            continue
        weight, turned = constants[node.input[1]], _turned(node)
        if weight.ndim < 2 or (node.op_type == "Conv" and weight.shape[1] < GROUP):
            continue
        across = np.swapaxes(weight, 0, 1) if turned else weight
        mask = mask_l1(across, amount) if how == "l1" else mask_2_to_4(across)
        masks[node.input[1]] = np.swapaxes(mask, 0, 1) if turned else mask
    return masks


def unpruned_layers(model: onnx.ModelProto, how: str) -> tuple[list[str], list[str]]:
    """Returns the layers that pruning is for, and those of them whose weights do not show it, by the names of nodes.

    With ``"2:4"`` those are the layers that sparse tensor cores take: their input channels are a multiple of 16, their
    output channels of 8. Where a network has none so wide, all that hold four neighbours count. Other layers may be
    as they like.

    Args:
        model: A float network.
        how: ``"l1"``, which shows in zeros, or ``"2:4"``.
    """
    constants = _initializers(model)
    candidates = sparse_masks(model, how)
    layers, wide = {}, {}
    for index, node in enumerate(model.graph.node):
        if len(node.input) < 2 or node.input[1] not in candidates or node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        weight = constants[node.input[1]]
        across = np.swapaxes(weight, 0, 1) if _turned(node) else weight
        name = node.name or f"{node.op_type} {index}"
        if across.shape[1] >= GROUP:
            layers[name] = across
        if across.shape[1] % 16 == 0 and across.shape[0] % 8 == 0:
            wide[name] = across
    if how == "2:4":
        layers = wide or layers
        return list(layers), [name for name, weight in layers.items() if not is_2_to_4(weight)]
    return list(layers), [name for name, weight in layers.items() if np.count_nonzero(weight) == weight.size]


def masked(model: onnx.ModelProto, masks: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Returns a copy of a network with the weights outside of the masks at zero."""
    import onnx
    from onnx import numpy_helper

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for constant in changed.graph.initializer:
        if constant.name in masks:
            weight = numpy_helper.to_array(constant) * masks[constant.name]
            constant.CopyFrom(numpy_helper.from_array(weight.astype(np.float32), constant.name))
    return changed


def is_2_to_4(weight: np.ndarray) -> bool:
    """Whether every four neighbours along axis 1 hold at most two weights that are not zero."""
    whole = weight.shape[1] // GROUP * GROUP
    last = np.moveaxis(weight[:, :whole], 1, -1)
    return bool((np.count_nonzero(last.reshape(*last.shape[:-1], -1, GROUP), axis=-1) <= KEPT).all())


def _turned(node: Any) -> bool:
    """Whether a weight has its inputs along axis 0."""
    if node.op_type == "MatMul":
        return True
    return node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute)


def _initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    from onnx import numpy_helper

    return {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}
