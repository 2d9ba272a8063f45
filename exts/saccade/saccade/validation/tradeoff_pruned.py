"""Pruned networks that were made elsewhere: whether one may take the place of the network that a sweep would prune."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.errors import ModelError
from saccade.precision import fp16, int8
from saccade.precision.compress import loaded as loaded_graph
from saccade.precision.cost import multiply_adds_of, parameters_of
from saccade.precision.evaluation import session_from
from saccade.precision.samples import Samples
from saccade.precision.sparsity import unpruned_layers
from saccade.validation.tradeoff_candidates import Candidate
from saccade.validation.tradeoff_models import with_size

if TYPE_CHECKING:
    import onnx

BATCH = "batch"
SAME = 1e-4
"""Largest relative difference between a frame alone and in a batch."""


def checked_pruned(
    path: Path, candidate: Candidate, original: onnx.ModelProto, samples: Samples, *, open_batch: bool
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Returns a pruned network that was given, at the candidate's size, and what is to be told about it.

    Args:
        path: Its ONNX file, float32.
        candidate: Network, pruning and size that it is for.
        original: The network before pruning, at that size.
        samples: Frames to run it on.
        open_batch: Whether it has to take batches of any size; where its batch is fixed at 1, it is opened.

    Raises:
        ModelError: It has other inputs or outputs, is not in float32, is not pruned in that way, or takes one frame at
            a time by its making; the text names file and layer.
    """
    found = loaded_graph(path)
    if int8.is_quantized(found) or fp16.is_half(found):
        raise ModelError(f"{path}: is in int8 or half precision already: give the pruned network in float32")
    if candidate.size is not None:
        found = with_size(found, candidate.size)
    _require_same_edges(path, found, original)
    _require_pruned(path, candidate.pruning, found, original)
    if open_batch and not _is_open(found):
        found = with_open_batch(path, found, samples)
    facts = {
        "parameters": {"before": parameters_of(original), "after": parameters_of(found)},
        "multiply_adds": {"before": multiply_adds_of(original), "after": multiply_adds_of(found)},
        "pruning": {"kind": candidate.pruning, "given": path.name},
    }
    return found, facts


def with_open_batch(path: Path, model: onnx.ModelProto, samples: Samples) -> onnx.ModelProto:
    """Returns a copy of a network with its batch open instead of 1, where every frame of a batch is computed alone.

    Args:
        path: Its file, for the text of an error.
        model: A network with a batch of 1.
        samples: Frames to show it on: two of them together have to give what each gives alone.

    Raises:
        ModelError: They do not: the batch of 1 stands in the middle of the graph, too.
    """
    import onnx

    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    # What was inferred holds for a batch of 1.
    del opened.graph.value_info[:]
    constants = {constant.name for constant in opened.graph.initializer}
    for info in (*(i for i in opened.graph.input if i.name not in constants), *opened.graph.output):
        dims = info.type.tensor_type.shape.dim
        if not dims or dims[0].dim_value != 1:
            raise ModelError(_fixed(path, f"{info.name!r} does not begin with a batch of 1"))
        dims[0].dim_param = BATCH
    rows = samples.take([0, len(samples) - 1])
    feeds = {name: array.astype(np.float32, copy=False) for name, array in rows.inputs.items()}
    try:
        alone = session_from(model)
        singles = [alone.run(None, {name: array[i : i + 1] for name, array in feeds.items()}) for i in range(2)]
        together = session_from(opened).run(None, feeds)
    except Exception as error:
        raise ModelError(_fixed(path, str(error).strip().splitlines()[0])) from error
    for index, info in enumerate(opened.graph.output):
        wanted = np.concatenate([single[index] for single in singles])
        value = together[index]
        if value.shape != wanted.shape or not np.allclose(value, wanted, rtol=SAME, atol=SAME * np.abs(wanted).max()):
            raise ModelError(_fixed(path, f"output {info.name!r} of two frames is not that of each alone"))
    return opened


def _fixed(path: Path, why: str) -> str:
    return (
        f"{path}: takes one frame at a time, and its batch cannot be opened ({why}): export it with an open batch, or "
        "compare batch 1 alone (tradeoff.batches: [1])"
    )


def _is_open(model: onnx.ModelProto) -> bool:
    return not model.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value")


def _require_same_edges(path: Path, found: onnx.ModelProto, original: onnx.ModelProto) -> None:
    for what in ("input", "output"):
        own, wanted = _edges(found, what), _edges(original, what)
        if own.keys() != wanted.keys():
            raise ModelError(
                f"{path}: has the {what}s {', '.join(own)}, the network that it stands for has {', '.join(wanted)}"
            )
        for name, shape in wanted.items():
            if not _fits(own[name], shape):
                raise ModelError(
                    f"{path}: {what} {name!r} is {_text(own[name])}, of the network that it stands for {_text(shape)}"
                )


def _edges(model: onnx.ModelProto, what: str) -> Mapping[str, tuple[int | None, ...]]:
    constants = {constant.name for constant in model.graph.initializer}
    return {
        info.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in info.type.tensor_type.shape.dim)
        for info in getattr(model.graph, what)
        if info.name not in constants
    }


def _fits(own: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> bool:
    """Whether shapes agree; the batch, and sizes that one of them leaves open, may differ."""
    if len(own) != len(wanted):
        return False
    batch_fits = None in (own[:1] + wanted[:1]) or own[:1] == wanted[:1]
    return batch_fits and all(None in pair or pair[0] == pair[1] for pair in zip(own[1:], wanted[1:], strict=True))


def _text(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


def _require_pruned(path: Path, how: str, found: onnx.ModelProto, original: onnx.ModelProto) -> None:
    if how == "channels":
        before, after = parameters_of(original)["total"], parameters_of(found)["total"]
        if after >= before:
            raise ModelError(
                f"{path}: is not pruned by channels: it has {after} parameters, the network that it stands for {before}"
            )
        return
    layers, dense = unpruned_layers(found, how)
    if not layers:
        raise ModelError(f"{path}: has no layers that pruning {how} applies to")
    if how == "2:4" and dense:
        raise ModelError(
            f"{path}: is not pruned 2:4: {len(dense)} of the {len(layers)} layers that sparse tensor cores take have "
            f"more than two weights of four that are not zero, the first is {dense[0]!r}"
        )
    if how == "l1" and len(dense) == len(layers):
        raise ModelError(f"{path}: is not pruned: none of its {len(layers)} layers has zeros, as {dense[0]!r}")
