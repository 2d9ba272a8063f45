"""Structured pruning: whole channels removed from a graph, through everything that is tied to them.

Channels that are added to each other, or that a depthwise convolution or a normalisation passes on, can only go
together. They are found by following every channel through the graph as a variable of its own, with variables that
must stay equal merged (after Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023). Filters are ranked by
their L1 norm (Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.errors import ConfigurationError, ModelError
from saccade.precision.cost import constants_of, shapes_of
from saccade.precision.int8 import kept_nodes

if TYPE_CHECKING:
    import onnx

MULTIPLE = 8
"""Channels that stay are a multiple of this where they were: kernels for half and int8 work on packs of 8 or more."""

_ALONG = {
    "Abs", "AveragePool", "Cast", "Ceil", "Clip", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "GlobalAveragePool",
    "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "LpPool", "MaxPool", "Mish", "Neg",
    "Relu", "Round", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh",
}  # fmt: skip
_BETWEEN = {"Add", "Div", "Max", "Min", "Mul", "PRelu", "Pow", "Sub", "Where"}
_PER_CHANNEL = {"BatchNormalization", "InstanceNormalization"}


def without_channels(
    model: onnx.ModelProto, amount: float, *, keep: Collection[str] = (), multiple: int = MULTIPLE
) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    """Removes the channels with the smallest filters from every layer that allows it.

    Outputs keep their shapes. Channels that reach an output, or an operator whose use of channels is not known, stay.

    Args:
        model: A float network; left unchanged.
        amount: Share of the channels to remove from each layer, 0..1.
        keep: Operator types and names of nodes whose own output channels stay.
        multiple: The number of channels that stay is rounded up to a multiple of this.

    Returns:
        The smaller network, and per set of tied layers ``nodes``, ``before`` and ``after``.

    Raises:
        ConfigurationError: No channel can be removed.
        ModelError: The pruned graph is not consistent.
    """
    flow = _Flow(model, set(kept_nodes(model, keep)))
    protected = flow.protected_roots()
    removed: set[int] = set()
    layers = []
    for nodes, roots, importance in flow.layers():
        free = [root for root in roots if root not in protected]
        stay = min(len(roots), multiple * math.ceil(len(roots) * (1 - amount) / multiple))
        drop = min(len(free), len(roots) - stay)
        removed.update(sorted(free, key=lambda root: (importance[root], root))[:drop])
        layers.append({"nodes": nodes, "before": len(roots), "after": len(roots) - drop})
    if not removed:
        raise ConfigurationError(
            f"channels: none can be removed at amount {amount:g}: every layer has too few of them (multiples of "
            f"{multiple} stay), or they reach an output; take a larger amount, or l1 or 2:4"
        )
    return _cut(model, flow, removed), layers


class _Flow:
    """Every channel of every tensor as a variable; what ties them; where weights are indexed by them."""

    def __init__(self, model: onnx.ModelProto, kept: set[str]) -> None:
        self.constants = constants_of(model)
        self.shapes = shapes_of(model)
        self.cuts: list[tuple[str, int, np.ndarray]] = []
        """Constant, axis, and the variable of each index along it."""
        self.groups: dict[str, np.ndarray] = {}
        """Input variables of depthwise convolutions by node name: their number is the attribute ``group``."""
        self.protected: set[int] = set()
        self._parents: list[int] = []
        self._channels: dict[str, np.ndarray] = {}
        self._producers: list[tuple[str, str, int, np.ndarray]] = []
        self._usage: dict[str, int] = {}
        for node in model.graph.node:
            for name in node.input:
                self._usage[name] = self._usage.get(name, 0) + 1
        constants = {constant.name for constant in model.graph.initializer}
        for info in model.graph.input:
            if info.name not in constants:
                self._protect(self.of(info.name))
        for node in model.graph.node:
            if node.op_type != "Constant":
                self._follow(node)
                if node.name in kept:
                    for name in node.output:
                        self._protect(self.of(name))
        for info in model.graph.output:
            self._protect(self.of(info.name))
        for name, _, variables in self.cuts:
            # Two nodes would have to agree on what goes.
            if self._usage.get(name, 0) > 1:
                self._protect(variables)

    def protected_roots(self) -> set[int]:
        return {self.root(variable) for variable in self.protected}

    def root(self, variable: int) -> int:
        while self._parents[variable] != variable:
            self._parents[variable] = self._parents[self._parents[variable]]
            variable = self._parents[variable]
        return variable

    def of(self, name: str) -> np.ndarray:
        """Returns the variables of a tensor's channels (axis 1); unknown ones must stay."""
        if name not in self._channels:
            shape = self.shapes.get(name, ())
            self._channels[name] = self._fresh(shape[1] if len(shape) > 1 else 0)
            self._protect(self._channels[name])
        return self._channels[name]

    def layers(self) -> list[tuple[list[str], list[int], dict[int, float]]]:
        """Returns, per set of tied layers, their nodes, the roots of their channels, and how much each root matters."""
        owner: dict[int, int] = {}
        members: dict[int, list[int]] = {}
        for index, (_, _, _, variables) in enumerate(self._producers):
            mine = {self.root(int(variable)) for variable in variables}
            tied = {owner[root] for root in mine if root in owner} | {index}
            first = min(tied)
            members[first] = sorted({m for other in tied for m in members.pop(other, [other])})
            for root, own in list(owner.items()):
                if own in tied:
                    owner[root] = first
            owner.update(dict.fromkeys(mine, first))
        found = []
        for first, indices in sorted(members.items()):
            roots = sorted(root for root, own in owner.items() if own == first)
            sums: dict[int, list[float]] = {root: [] for root in roots}
            for index in indices:
                _, weight, axis, variables = self._producers[index]
                array = np.abs(np.moveaxis(self.constants[weight], axis, 0)).reshape(len(variables), -1).mean(axis=1)
                # Layers that are tied count alike, whatever their scale.
                for variable, value in zip(variables, array / max(float(array.mean()), 1e-30), strict=True):
                    sums[self.root(int(variable))].append(float(value))
            importance = {root: float(np.mean(values)) for root, values in sums.items()}
            found.append(([self._producers[index][0] for index in indices], roots, importance))
        return found

    def _fresh(self, count: int) -> np.ndarray:
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def _protect(self, variables: np.ndarray) -> None:
        self.protected.update(int(variable) for variable in variables)

    def _tie(self, one: np.ndarray, other: np.ndarray) -> None:
        for first, second in zip(one, other, strict=True):
            self._parents[self.root(int(second))] = self.root(int(first))

    def _follow(self, node: Any) -> None:
        how = getattr(self, f"_{node.op_type.lower()}", None)
        if how is not None:
            outputs = how(node)
        elif node.op_type in _ALONG:
            outputs = self.of(node.input[0])
        elif node.op_type in _BETWEEN:
            outputs = self._between(node)
        elif node.op_type in _PER_CHANNEL:
            outputs = self.of(node.input[0])
            for name in node.input[1:]:
                self._cut(name, 0, outputs)
        else:
            outputs = None
        if outputs is None:
            for name in node.input:
                if name and name not in self.constants:
                    self._protect(self.of(name))
            return
        for name in node.output:
            self._channels[name] = outputs

    def _cut(self, name: str, axis: int, variables: np.ndarray) -> None:
        if name in self.constants:
            self.cuts.append((name, axis, variables))
        else:
            self._protect(variables)

    def _conv(self, node: Any) -> np.ndarray | None:
        weight = self.constants.get(node.input[1])
        if weight is None:
            return None
        into, groups = self.of(node.input[0]), _attribute(node, "group", 1)
        if groups == 1:
            self._cut(node.input[1], 1, into)
            out = self._produced(node, node.input[1], 0)
        elif groups == len(into) and weight.shape[0] % groups == 0:
            out = np.repeat(into, weight.shape[0] // groups)
            self._cut(node.input[1], 0, out)
            self.groups[node.name] = into
        else:
            return None
        for bias in node.input[2:]:
            if bias:
                self._cut(bias, 0, out)
        return out

    def _convtranspose(self, node: Any) -> np.ndarray | None:
        if node.input[1] not in self.constants or _attribute(node, "group", 1) != 1:
            return None
        self._cut(node.input[1], 0, self.of(node.input[0]))
        out = self._produced(node, node.input[1], 1)
        for bias in node.input[2:]:
            self._cut(bias, 0, out)
        return out

    def _gemm(self, node: Any) -> np.ndarray | None:
        if node.input[1] not in self.constants or _attribute(node, "transA", 0):
            return None
        turned = bool(_attribute(node, "transB", 0))
        self._cut(node.input[1], 1 if turned else 0, self.of(node.input[0]))
        out = self._produced(node, node.input[1], 0 if turned else 1)
        for bias in node.input[2:]:
            array = self.constants.get(bias)
            if array is None:
                self._protect(out)
            elif array.ndim and array.shape[-1] == len(out):
                self._cut(bias, array.ndim - 1, out)
        return out

    def _matmul(self, node: Any) -> np.ndarray | None:
        weight = self.constants.get(node.input[1])
        if weight is None or weight.ndim != 2 or len(self.shapes.get(node.input[0], ())) != 2:
            return None
        self._cut(node.input[1], 0, self.of(node.input[0]))
        return self._produced(node, node.input[1], 1)

    def _produced(self, node: Any, weight: str, axis: int) -> np.ndarray:
        out = self._fresh(self.constants[weight].shape[axis])
        self._cut(weight, axis, out)
        self._producers.append((node.name, weight, axis, out))
        return out

    def _between(self, node: Any) -> np.ndarray | None:
        moving = [name for name in node.input if name not in self.constants]
        ranks = {len(self.shapes.get(name, ())) for name in moving}
        if len(ranks) != 1 or min(ranks) < 2:
            return None
        (rank,) = ranks
        widest = max(moving, key=lambda name: len(self.of(name)))
        out = self.of(widest)
        for name in moving:
            channels = self.of(name)
            if name == widest:
                continue
            if len(channels) == len(out):
                self._tie(out, channels)
            else:
                self._protect(channels)  # one channel for all
        for name in node.input:
            if name in self.constants:
                array = self.constants[name]
                axis = 1 - (rank - array.ndim)
                if axis >= 0 and array.shape[axis] > 1:
                    if array.shape[axis] != len(out):
                        return None
                    self._cut(name, axis, out)
        return out

    def _concat(self, node: Any) -> np.ndarray | None:
        rank = len(self.shapes.get(node.output[0], ()))
        parts = [self.of(name) for name in node.input]
        if rank < 2:
            return None
        if _attribute(node, "axis", 1) % rank == 1:
            return np.concatenate(parts)
        for part in parts[1:]:
            if len(part) != len(parts[0]):
                return None
            self._tie(parts[0], part)
        return parts[0]

    def _flatten(self, node: Any) -> np.ndarray | None:
        shape = self.shapes.get(node.input[0])
        if shape is None or _attribute(node, "axis", 1) != 1:
            return None
        return np.repeat(self.of(node.input[0]), math.prod(shape[2:]))

    def _reshape(self, node: Any) -> np.ndarray | None:
        wanted, shape = self.constants.get(node.input[1]), self.shapes.get(node.input[0], ())
        # A size that is written down would no longer be true.
        if wanted is None or len(shape) < 2 or list(wanted[1:]) != [-1]:
            return None
        return np.repeat(self.of(node.input[0]), math.prod(shape[2:]))

    def _squeeze(self, node: Any) -> np.ndarray | None:
        axes = self._axes(node)
        return self.of(node.input[0]) if axes and not {0, 1} & axes else None

    def _reduce(self, node: Any) -> np.ndarray | None:
        axes = self._axes(node)
        return self.of(node.input[0]) if axes and not {0, 1} & axes else None

    _reducemean = _reducemax = _reducemin = _reducesum = _reduce

    def _slice(self, node: Any) -> np.ndarray | None:
        axes = self._axes(node, 3)
        return self.of(node.input[0]) if axes and 1 not in axes else None

    def _pad(self, node: Any) -> np.ndarray | None:
        pads = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        rank = len(self.shapes.get(node.input[0], ()))
        whole = pads is not None and len(node.input) < 4 and len(pads) == 2 * rank
        return self.of(node.input[0]) if whole and not pads[1] and not pads[rank + 1] else None  # type: ignore[index]

    def _resize(self, node: Any) -> np.ndarray | None:
        # With sizes instead of scales the number of channels is written down.
        sized = len(node.input) > 3 and node.input[3]
        scales = self.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        return self.of(node.input[0]) if not sized and scales is not None and scales[1] == 1 else None

    def _axes(self, node: Any, place: int = 1) -> set[int]:
        """The axes of a node, from its attribute or its input; empty where they are not known."""
        rank = len(self.shapes.get(node.input[0], ()))
        given = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
        if given is None and len(node.input) > place and node.input[place] in self.constants:
            given = self.constants[node.input[place]].tolist()
        return {int(axis) % rank for axis in given} if given and rank else set()


def _cut(model: onnx.ModelProto, flow: _Flow, removed: set[int]) -> onnx.ModelProto:
    import onnx
    from onnx import numpy_helper

    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    arrays: dict[str, np.ndarray] = {}
    for name, axis, variables in flow.cuts:
        stay = _staying(flow, variables, removed)
        if not stay.all():
            arrays[name] = np.compress(stay, arrays.get(name, flow.constants[name]), axis=axis)
    for constant in smaller.graph.initializer:
        if constant.name in arrays:
            constant.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(arrays[constant.name]), constant.name))
    for node in smaller.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value" and node.output[0] in arrays:
                attribute.t.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(arrays[node.output[0]])))
            elif attribute.name == "group" and node.name in flow.groups:
                attribute.i = int(_staying(flow, flow.groups[node.name], removed).sum())
    del smaller.graph.value_info[:]
    try:
        return onnx.shape_inference.infer_shapes(smaller, strict_mode=True, data_prop=True)
    except Exception as error:
        raise ModelError(f"channels cannot be removed from this network: {error}") from error


def _staying(flow: _Flow, variables: np.ndarray, removed: Collection[int]) -> np.ndarray:
    return np.array([flow.root(int(variable)) not in removed for variable in variables], dtype=bool)


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


__all__ = ["MULTIPLE", "without_channels"]
