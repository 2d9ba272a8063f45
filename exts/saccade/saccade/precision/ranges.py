"""What half precision would lose of a network's activations: tensors that overflow or underflow, found on samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.precision.evaluation import session_from
from saccade.precision.fp16 import LARGEST_HALF
from saccade.precision.samples import Samples

if TYPE_CHECKING:
    import onnx

HEADROOM = 2.0
"""Factor below float16's largest value that measured magnitudes must stay, for frames that were not measured."""

MOST_LOST = 4e-3
"""Share of a tensor's length (L2) that rounding to float16 may lose. Normal numbers lose 3e-4 or so; a tensor above
this consists of subnormal ones."""

CHECKED_SAMPLES = 60
"""Samples that are run, from all over the set."""


def unfit_for_half(
    model: onnx.ModelProto, samples: Samples, *, report: Callable[[int, int], None] = lambda *_: None
) -> list[dict[str, Any]]:
    """Runs a network in float32 and finds the activations that float16 cannot hold.

    Args:
        model: A float32 network with named nodes.
        samples: What it runs on.
        report: Told how many samples are done, of how many.

    Returns:
        One entry per tensor, in the order of the graph: ``tensor``, ``node`` that makes it, ``operator``, ``reason``
        (``"overflow"``, ``"underflow"``), ``largest`` magnitude, and ``lost``, the share of its length that rounding
        to float16 costs.
    """
    import onnx

    watched = _watched(model)
    outputs = {info.name for info in model.graph.output}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in watched
        if name not in outputs
    )
    session = session_from(probe)
    names = [node.name for node in session.get_outputs()]
    largest, length, error = (dict.fromkeys(names, 0.0) for _ in range(3))
    chosen = samples.spread(CHECKED_SAMPLES)
    size = session.get_inputs()[0].shape[0]
    batch = size if isinstance(size, int) and size > 0 else 1
    for start in range(0, len(chosen), batch):
        rows = np.arange(start, start + batch) % len(chosen)
        feed = {name: np.ascontiguousarray(array[rows], np.float32) for name, array in chosen.inputs.items()}
        for name, value in zip(names, session.run(names, feed), strict=True):
            if value.dtype != np.float32 or not value.size:
                continue
            finite = value[np.isfinite(value)]
            with np.errstate(over="ignore"):
                rounded = finite.astype(np.float16).astype(np.float32)
            largest[name] = max(largest[name], float(np.abs(finite).max(initial=0.0)))
            length[name] += float(np.square(finite, dtype=np.float64).sum())
            error[name] += float(np.square(np.where(np.isinf(rounded), 0, rounded) - finite, dtype=np.float64).sum())
        report(min(start + batch, len(chosen)), len(chosen))
    found = []
    for name, node in watched.items():
        lost = (error[name] / length[name]) ** 0.5 if length.get(name) else 0.0
        reason = "overflow" if largest[name] * HEADROOM > LARGEST_HALF else "underflow" if lost > MOST_LOST else None
        if reason is not None:
            entry = {"tensor": name, "node": node.name, "operator": node.op_type, "reason": reason}
            found.append({**entry, "largest": largest[name], "lost": lost})
    return found


def nodes_to_keep(model: onnx.ModelProto, unfit: list[dict[str, Any]]) -> set[str]:
    """Returns the nodes that must stay in float32 for the unfit tensors to be float32: who makes and who reads them."""
    tensors = {entry["tensor"] for entry in unfit}
    return {node.name for node in model.graph.node if tensors & {*node.input, *node.output}}


def _watched(model: onnx.ModelProto) -> dict[str, Any]:
    """The float tensors that nodes make at run time, by name, with their nodes."""
    import onnx

    known = onnx.shape_inference.infer_shapes(model).graph
    types = {info.name: info.type.tensor_type.elem_type for info in (*known.value_info, *known.output)}
    return {
        name: node
        for node in model.graph.node
        if node.op_type != "Constant"
        for name in node.output
        if types.get(name) == onnx.TensorProto.FLOAT
    }
