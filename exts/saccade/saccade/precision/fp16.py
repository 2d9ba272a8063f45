"""Half-precision networks: weights and arithmetic in float16, inputs and outputs still float32."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from saccade.errors import ConfigurationError, DependencyError, ModelError

if TYPE_CHECKING:
    import onnx

LARGEST_HALF = 65504.0


def half_from_float(
    model: onnx.ModelProto, *, blocked: Collection[str] = (), say: Callable[[str], None] | None = None
) -> onnx.ModelProto:
    """Returns a copy of ``model`` that computes in float16 between float32 inputs and outputs.

    Nodes that cannot, or whose weights do not fit into float16, stay in float32 between casts.

    Args:
        model: A float32 network; left unchanged.
        blocked: Operator types (``"Softmax"``) and names of nodes that stay in float32.
        say: Told which weights do not fit, and so which nodes stay in float32.

    Raises:
        ConfigurationError: ``blocked`` names what the network does not have.
        DependencyError: ``onnx`` is not installed.
        ModelError: The network cannot be converted.
    """
    try:
        import onnx
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    except ImportError as error:
        raise DependencyError(f"precision fp16 needs onnx and ONNX Runtime ({error}): pip install onnx") from error
    named = onnx.ModelProto()
    named.CopyFrom(model)
    name_nodes(named)
    operators = {node.op_type for node in named.graph.node}
    names = {node.name for node in named.graph.node}
    if unknown := set(blocked) - operators - names:
        raise ConfigurationError(
            f"blocked: {', '.join(sorted(unknown))}: neither an operator nor a node of this network; "
            f"its operators are {', '.join(sorted(operators))}"
        )
    # The conversion changes constants in place.
    named_constants = dict(_float_constants(named))
    too_large = overflowing(named)
    overflowed = {node.name for node in named.graph.node if too_large.keys() & set(node.input)}
    if too_large and say is not None:
        worst = ", ".join(f"{name} ({size:.3g})" for name, size in sorted(too_large.items()))
        say(f"beyond float16's {LARGEST_HALF:.0f}: {worst}; {', '.join(sorted(overflowed))} stay in float32")
    try:
        half = convert_float_to_float16(
            named,
            keep_io_types=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, *(set(blocked) & operators)],
            node_block_list=[*(set(blocked) & names), *overflowed],
        )
    except Exception as error:
        raise ModelError(f"this network cannot be converted to float16: {error}") from error
    return _with_float_constants(_without_round_trips(_sorted(half)), named_constants)


def overflowing(model: onnx.ModelProto) -> dict[str, float]:
    """Returns the weights that float16 cannot hold, by name, with their largest magnitude; infinities are meant."""
    import numpy as np

    found = {}
    for name, value in _float_constants(model):
        finite = np.abs(value[np.isfinite(value)])
        if finite.size and finite.max() > LARGEST_HALF:
            found[name] = float(finite.max())
    return found


def float_nodes(model: onnx.ModelProto) -> set[str]:
    """Returns the names of the nodes of a half-precision network that still compute in float32.

    Casts are not among them, nor is what handles integers and shapes.
    """
    import onnx

    types = _types(model)
    return {
        node.name
        for node in model.graph.node
        if node.name
        and node.op_type not in ("Cast", "Constant")
        and any(types.get(name) == onnx.TensorProto.FLOAT for name in node.output)
    }


def is_half(model: onnx.ModelProto) -> bool:
    """Says whether a network already computes in float16 somewhere."""
    import onnx

    half = onnx.TensorProto.FLOAT16
    return any(constant.data_type == half for constant in model.graph.initializer) or any(
        node.op_type == "Cast" and any(a.name == "to" and a.i == half for a in node.attribute)
        for node in model.graph.node
    )


def name_nodes(model: onnx.ModelProto) -> None:
    """Gives every node of ``model`` a name of its own, by which it can be blocked and found again in TensorRT."""
    taken = {node.name for node in model.graph.node}
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            name = f"{node.op_type}_{index}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
        seen.add(node.name)


def _float_constants(model: onnx.ModelProto) -> Iterator[tuple[str, Any]]:
    from onnx import TensorProto, numpy_helper

    for constant in model.graph.initializer:
        if constant.data_type == TensorProto.FLOAT:
            yield constant.name, numpy_helper.to_array(constant)
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                    yield node.output[0], numpy_helper.to_array(attribute.t)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    import onnx

    known = onnx.shape_inference.infer_shapes(model).graph
    return {info.name: info.type.tensor_type.elem_type for info in (*known.input, *known.value_info, *known.output)}


def _without_round_trips(model: onnx.ModelProto) -> onnx.ModelProto:
    """Takes out the casts from float32 to float16 and back, which cost digits between two float32 nodes or at an edge.

    Where the second one makes an output of the network it stays, from float32 to float32, to carry the name.
    """
    from onnx import TensorProto

    types = _types(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    outputs = {info.name for info in model.graph.output}
    direct = {}
    for node in model.graph.node:
        first = makers.get(node.input[0]) if node.op_type == "Cast" else None
        if (
            first is not None
            and first.op_type == "Cast"
            and types.get(first.output[0]) == TensorProto.FLOAT16
            and types.get(node.output[0]) == types.get(first.input[0]) == TensorProto.FLOAT
        ):
            node.input[0] = first.input[0]
            if node.output[0] not in outputs:
                direct[node.output[0]] = first.input[0]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            source = name
            while source in direct:
                source = direct[source]
            node.input[index] = source
    read = {name for node in model.graph.node for name in _used(node)} | outputs
    kept = [node for node in model.graph.node if node.op_type != "Cast" or node.output[0] in read]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def _with_float_constants(model: onnx.ModelProto, constants: Mapping[str, Any]) -> onnx.ModelProto:
    """Gives nodes that stay in float32 their constants as they were, where the conversion rounds and casts them back.

    The scales of a Resize are such: behind a cast they are no constant any more, so that neither ONNX's shape
    inference nor TensorRT's parser knows the size of what comes out, and a third would be rounded.
    """
    from onnx import TensorProto, numpy_helper

    restored = {}
    for node in model.graph.node:
        to = next((a.i for a in node.attribute if a.name == "to"), None) if node.op_type == "Cast" else None
        if to == TensorProto.FLOAT and node.input[0] in constants:
            restored[node.output[0]] = constants[node.input[0]]
    if not restored:
        return model
    kept = [node for node in model.graph.node if node.output[0] not in restored]
    read = {name for node in kept for name in _used(node)} | {info.name for info in model.graph.output}
    kept = [node for node in kept if node.op_type != "Constant" or node.output[0] in read]
    initializers = [constant for constant in model.graph.initializer if constant.name in read]
    initializers += [numpy_helper.from_array(value, name) for name, value in restored.items() if name in read]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)
    return model


def _sorted(model: onnx.ModelProto) -> onnx.ModelProto:
    """Puts the casts that the conversion appended where they are needed: every node after its inputs' nodes."""
    nodes = list(model.graph.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output}
    done: set[int] = set()
    order: list[int] = []
    for start in range(len(nodes)):
        pending = [start]
        while pending:
            index = pending[-1]
            needs = [maker[name] for name in _used(nodes[index]) if name in maker and maker[name] not in done]
            if index not in done and needs:
                pending.extend(needs)
                continue
            pending.pop()
            if index not in done:
                done.add(index)
                order.append(index)
    ordered = [nodes[index] for index in order]
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    return model


def _used(node: onnx.NodeProto) -> Iterator[str]:
    """Yields what a node reads, also from inside its branches and loops."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _used(inner)
