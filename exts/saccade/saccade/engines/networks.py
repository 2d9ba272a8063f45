"""The TensorRT network of an ONNX file: precision written into the graph, and parser errors that name the operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.engines.options import BuildOptions
from saccade.engines.versions import Traits, int8_route
from saccade.errors import ConfigurationError, DependencyError, ModelError

if TYPE_CHECKING:
    import numpy as np
    import onnx


@dataclass(frozen=True, slots=True)
class Prepared:
    """A graph in the wanted precision, and what its build must be told."""

    graph: bytes
    route: str
    """How the precision is reached, for the record."""
    half: bool = False
    """Whether it has float16 tensors."""
    float_nodes: frozenset[str] = field(default_factory=frozenset)
    """Nodes that compute in float32 although others do not."""
    fused: frozenset[str] = field(default_factory=frozenset)
    """Nodes of a graph to be calibrated that become part of the product before them."""
    samples: dict[str, np.ndarray] | None = None
    """Calibration samples by input, where TensorRT itself is to find the scales."""


def prepared_from_onnx(
    path: Path,
    options: BuildOptions,
    version: str,
    *,
    graph: bytes | None = None,
    say: Callable[[str], None],
) -> Prepared:
    """Returns the graph of ``path`` in the precision that ``options`` names.

    Args:
        path: ONNX file.
        options: What is to be built.
        version: ``tensorrt.__version__``, which decides how int8 scales are given.
        graph: The network instead of what stands in ``path``; one that has float16 tensors or Q/DQ pairs already is
            taken as it is.
        say: Told what is done.

    Raises:
        ModelError: The file cannot be read or converted.
        ConfigurationError: int8 without calibration samples, or with unfit ones.
    """
    data = graph if graph is not None else _read(path)
    if options.precision == "fp32":
        return Prepared(data, "as it is")
    from saccade.precision import fp16, int8

    model = _loaded(path, graph)
    if options.precision == "fp16":
        if fp16.is_half(model):
            return Prepared(data, "half graph as given", True, frozenset(fp16.float_nodes(model)))
        say("converting to float16")
        half = fp16.half_from_float(model, say=say)
        return Prepared(_serialized(path, half), "onnx half graph", True, frozenset(fp16.float_nodes(half)))
    if int8.is_quantized(model):
        return Prepared(data, "explicit Q/DQ as given", fp16.is_half(model))
    if options.calibration is None:
        raise ConfigurationError(f"{path}: precision int8 needs samples: --calibration FILE.npz or FOLDER")
    samples = int8.calibration_arrays(options.calibration)
    if int8_route(version) == "explicit":
        quantized = int8.quantized_from_float(model, samples, say=say)
        return Prepared(_serialized(path, quantized), "explicit Q/DQ")
    if set(samples) == {int8.UNNAMED}:
        constants = {constant.name for constant in model.graph.initializer}
        inputs = [info.name for info in model.graph.input if info.name not in constants]
        if len(inputs) == 1:
            samples = {inputs[0]: samples[int8.UNNAMED]}
    names = [node.name for node in model.graph.node]
    fp16.name_nodes(model)
    if names != [node.name for node in model.graph.node]:
        data = _serialized(path, model)
    too_large = fp16.overflowing(model).keys()
    return Prepared(
        data,
        "calibrator",
        float_nodes=frozenset(node.name for node in model.graph.node if too_large & set(node.input)),
        fused=frozenset(node.name for node in model.graph.node if node.op_type == "Relu"),
        samples=samples,
    )


def network_from_onnx(
    trt: Any, builder: Any, path: Path, prepared: Prepared, *, flags: int, logger: Any, traits: Traits
) -> tuple[Any, Any]:
    """Returns the parsed network and its parser, which owns the weights and must outlive the build.

    Raises:
        ModelError: TensorRT cannot read the network; the text names operators and nodes.
    """
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(prepared.graph, str(path)):
        problems = [
            _problem(trt, parser.get_error(index), prepared.graph, logger.notes, traits)
            for index in range(parser.num_errors)
        ]
        raise ModelError(
            f"{path}: TensorRT {trt.__version__} cannot read this network: {'; '.join(problems) or logger.errors}. "
            "Export it with operators that this TensorRT has, or run it with engine.backend: onnxruntime"
        )
    return network, parser


def _problem(trt: Any, error: Any, graph: bytes, notes: list[str], traits: Traits) -> str:
    """Returns one parser error in words: what, which operator, which node."""
    # By comparison: the parser of 8.5 gives its codes' names in a way of its own.
    code = next((name for name, value in trt.ErrorCode.__members__.items() if value == error.code()), "ERROR")
    if traits.node_named_in_error:
        operator, name = error.node_operator(), error.node_name()
    else:
        operator, name = _node_at(graph, error.node())
    if not operator:
        # Without onnx the node cannot be looked up, but the parser noted the operator when it found no importer.
        operator = next((note.split("op: ", 1)[1].split(".")[0] for note in reversed(notes)), "")
    if not operator:
        return f"{code}: {error.desc().strip()}"
    place = f"node {name!r}" if name else f"node {error.node()}"
    if code == "UNSUPPORTED_NODE" or "lugin not found" in error.desc():
        return f"operator {operator} is not supported ({place}; {code}: {error.desc().strip()})"
    return f"operator {operator} ({place}): {code}: {error.desc().strip()}"


def _node_at(graph: bytes, index: int) -> tuple[str, str]:
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError:
        return "", ""
    try:
        nodes = onnx.ModelProto.FromString(graph).graph.node
    except DecodeError:
        return "", ""
    return (nodes[index].op_type, nodes[index].name) if 0 <= index < len(nodes) else ("", "")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read this network: {error.strerror}. Check networks.*.model") from error


def _loaded(path: Path, graph: bytes | None) -> onnx.ModelProto:
    try:
        import onnx
    except ImportError as error:
        raise DependencyError(f"precisions other than fp32 change the graph ({error}): pip install onnx") from error
    try:
        model = onnx.load_from_string(graph) if graph is not None else onnx.load(str(path))
        if graph is not None:
            onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except OSError as error:
        raise ModelError(f"{path}: cannot read this network: {error}. Check networks.*.model") from error
    except Exception as error:
        raise ModelError(f"{path}: this is no complete ONNX network: {error}") from error
    return model


def _serialized(path: Path, model: onnx.ModelProto) -> bytes:
    try:
        return model.SerializeToString()
    except ValueError as error:
        raise ModelError(f"{path}: a converted network must stay below 2 GiB: {error}") from error
