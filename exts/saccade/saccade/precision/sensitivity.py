"""Which quantized nodes cost accuracy: each is quantized alone, and the worst are given back to float."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.precision import evaluation as judge
from saccade.precision.int8 import quantized_nodes, without_quantization
from saccade.precision.samples import Samples

if TYPE_CHECKING:
    import onnx

PROBE_SAMPLES = 16
"""Samples that every node is tried on alone."""

LARGEST_ERROR = 0.05
"""Relative error (L2) that an output which holds no classes may have; as of int8 engines."""


def node_sensitivity(
    reference: onnx.ModelProto,
    quantized: onnx.ModelProto,
    samples: Samples,
    *,
    report: Callable[[int, int], None] = lambda *_: None,
) -> list[dict[str, Any]]:
    """Quantizes every node alone and measures what it does to the outputs.

    Args:
        reference: The float network.
        quantized: The same with Q/DQ pairs.
        samples: What both run on; :data:`PROBE_SAMPLES` of them are used.
        report: Told how many nodes are done, of how many.

    Returns:
        One entry per quantized node, the most harmful first: ``node``, ``operator``, ``error`` (largest relative L2
        error of any output) and ``label_agreement``.
    """
    few = samples.spread(PROBE_SAMPLES)
    wanted = judge.outputs_of(reference, few)
    names = quantized_nodes(quantized)
    operators = {node.name: node.op_type for node in quantized.graph.node}
    rows = []
    for index, name in enumerate(names):
        alone = without_quantization(quantized, [other for other in names if other != name])
        found = judge.agreement(judge.outputs_of(alone, few), wanted)
        errors = [np.inf if value is None else value for value in found["relative_l2"].values()]
        error = float(max(errors)) if not found["non_finite"] else float(np.inf)
        agreement = found["label_agreement"]
        rows.append({"node": name, "operator": operators[name], "error": error, "label_agreement": agreement})
        report(index + 1, len(names))
    return sorted(rows, key=lambda row: -row["error"])


def mixed_from(
    reference: onnx.ModelProto,
    quantized: onnx.ModelProto,
    ranking: list[dict[str, Any]],
    samples: Samples,
    *,
    target: float,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[onnx.ModelProto, list[str], float]:
    """Leaves as few of the most harmful nodes in float as keep the accuracy, found by bisection.

    Args:
        reference: The float network.
        quantized: The same with Q/DQ pairs.
        ranking: As of :func:`node_sensitivity`.
        samples: What the choice is made on; never those that the result is judged on.
        target: Share of the reference's accuracy to keep, 0..1.
        say: Told what was tried.

    Returns:
        The network, the names of the nodes left in float, and the share that it keeps on ``samples``. All nodes are
        left in float where nothing less is enough.
    """
    wanted = judge.outputs_of(reference, samples)

    def tried(count: int) -> tuple[onnx.ModelProto, float]:
        model = without_quantization(quantized, [row["node"] for row in ranking[:count]])
        share = kept_share(judge.outputs_of(model, samples), wanted, samples)
        say(f"{count} of {len(ranking)} nodes in float keep {share:.2%}")
        return model, share

    low, high = 0, len(ranking)
    best, share = tried(0)
    if share < target:
        best, share = tried(high)
        # Invariant: ``low`` is not enough, ``high`` is.
        while high - low > 1:
            middle = (low + high) // 2
            model, found = tried(middle)
            if found >= target:
                high, best, share = middle, model, found
            else:
                low = middle
    else:
        high = 0
    return best, [row["node"] for row in ranking[:high]], share


def kept_share(found: judge.Outputs, wanted: judge.Outputs, samples: Samples) -> float:
    """Returns the share of the reference's accuracy that is left, 0 where an output is off by more than the limit.

    The smallest of: the share of labels that are equal, and with a truth the shares of mIoU and hazard AUROC. Outputs
    that hold no classes must stay within :data:`LARGEST_ERROR`.
    """
    compared = judge.agreement(found, wanted)
    labelled = judge.label_axes(wanted)
    errors = [value for name, value in compared["relative_l2"].items() if name not in labelled]
    own, original = judge.accuracy(found, samples), judge.accuracy(wanted, samples)
    scored = [
        float(own[name] / original[name])
        for name in ("miou", "hazard_auroc")
        if own and original and own.get(name) is not None and original.get(name)
    ]
    if "hazard_auroc" in (own or {}):
        errors = [value for name, value in compared["relative_l2"].items() if name not in {*labelled, "hazard"}]
    if compared["non_finite"] or any(value is None or value > LARGEST_ERROR for value in errors):
        return 0.0
    if compared["label_agreement"] is not None:
        scored.append(float(compared["label_agreement"]))
    return min(scored, default=1.0)
