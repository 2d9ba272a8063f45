"""Quantized networks: int8 scales measured on samples and written into the graph as Q/DQ pairs."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.errors import ConfigurationError, DependencyError, ModelError
from saccade.precision.fp16 import name_nodes

if TYPE_CHECKING:
    import onnx

FEWEST_SAMPLES = 100
"""Below this the measured ranges depend on chance; some 500 are usual."""

OPERATORS = ("Conv", "Gemm", "MatMul", "Add")
"""What is quantized: the operators that TensorRT has int8 kernels for and fuses with what follows them."""

UNNAMED = ""
"""The name of the samples of a folder, which does not say which input they are for; the network must have one."""

_STRIDE = 10
"""Batches after which what was measured is summed up, so that memory stays small."""

_QUANTIZE_OPSET = 13
"""The first ONNX opset with a scale per channel."""


def quantized_from_float(
    model: onnx.ModelProto,
    samples: Mapping[str, np.ndarray],
    *,
    allow_few: bool = False,
    operators: Sequence[str] = OPERATORS,
    method: str = "minmax",
    percentile: float = 99.99,
    keep: Collection[str] = (),
    say: Callable[[str], None] | None = None,
) -> onnx.ModelProto:
    """Returns a copy of ``model`` with explicit Q/DQ pairs: int8, symmetric, weights with a scale per channel.

    Constants are folded and batch normalisations merged first, since a bias behind an Identity is no constant to
    TensorRT. Biases stay float, and of a residual sum only one side is quantized, so that the convolution before it and
    the sum become one kernel. Other sums stay in float: nothing would become faster, and what they add up may be metres
    that eight bits cannot hold.

    Args:
        model: A float32 network; left unchanged.
        samples: Inputs by name as :func:`calibration_arrays` reads them, first axis = samples.
        allow_few: Accepts fewer than :data:`FEWEST_SAMPLES` samples.
        operators: Operator types to quantize.
        method: How a range follows from the samples: ``"minmax"``, ``"entropy"`` or ``"percentile"``.
        percentile: Share of the values that a range holds with ``"percentile"`` [%].
        keep: Operator types and names of nodes that stay in float.
        say: Told what is going on.

    Raises:
        ConfigurationError: The samples are too few or do not fit the inputs.
        DependencyError: ``onnx`` is not installed.
        ModelError: The network cannot be quantized.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise DependencyError(f"precision int8 needs onnx and ONNX Runtime ({error}): pip install onnx") from error
    say = say or (lambda text: None)
    folded = simplified(model)
    excluded = [*kept_nodes(folded, keep), *(node.name for node in folded.graph.node if not _worth(folded, node))]
    fitted = fitted_samples(samples, _input_shapes(folded), allow_few=allow_few)
    count = len(next(iter(fitted.values())))
    say(f"measuring activations on {count} samples")
    methods = {
        "minmax": quantization.CalibrationMethod.MinMax,
        "entropy": quantization.CalibrationMethod.Entropy,
        "percentile": quantization.CalibrationMethod.Percentile,
    }
    if method not in methods:
        raise ConfigurationError(f"calibration method {method!r}: expected one of {', '.join(methods)}")
    with tempfile.TemporaryDirectory(prefix="saccade-int8-") as folder, _quiet():
        quantized = Path(folder) / "quantized.onnx"
        try:
            quantization.quantize_static(
                folded,
                quantized,
                _reader(quantization, fitted, _input_shapes(folded), say),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(operators),
                nodes_to_exclude=excluded,
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=methods[method],
                extra_options={
                    "CalibStridedMinMax": _STRIDE,
                    "CalibPercentile": percentile,
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    # TensorRT takes float weights behind Q and DQ in every version, int8 weights only in newer ones.
                    "AddQDQPairToWeight": True,
                    "QuantizeBias": False,
                    "DedicatedQDQPair": False,
                    # Inputs alone: a pair behind a convolution would part it from its activation.
                    "OpTypesToExcludeOutputQuantization": list(operators),
                },
            )
            result = onnx.load(str(quantized))
        except Exception as error:
            raise ModelError(f"this network cannot be quantized: {error}") from error
    _free_residual_sums(result)
    _drop_unused(result)
    return result


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of ``model`` with constants folded, identities gone and batch normalisations merged.

    Raises:
        ModelError: ONNX Runtime cannot load the network, or its opset is too old for a scale per channel.
    """
    import onnx
    import onnxruntime

    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < _QUANTIZE_OPSET:
        raise ModelError(
            f"int8 needs ONNX opset {_QUANTIZE_OPSET} or newer, the network has {opset}: "
            "export it again, or convert it with onnx.version_converter"
        )
    named = onnx.ModelProto()
    named.CopyFrom(model)
    name_nodes(named)
    with tempfile.TemporaryDirectory(prefix="saccade-int8-") as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        try:
            onnxruntime.InferenceSession(named.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot load this network: {str(error).strip()}") from error
        folded = onnx.load(options.optimized_model_filepath)
    # What the optimizer writes names the newest IR and every domain that ONNX Runtime knows.
    folded.ir_version = min(folded.ir_version, model.ir_version)
    del folded.opset_import[:]
    folded.opset_import.extend(entry for entry in model.opset_import if entry.domain in _domains(folded))
    return folded


def kept_nodes(model: onnx.ModelProto, keep: Collection[str]) -> list[str]:
    """Returns the names of the nodes that operator types and names of nodes mean.

    Raises:
        ConfigurationError: ``keep`` names what the network does not have.
    """
    operators = {node.op_type for node in model.graph.node}
    names = {node.name for node in model.graph.node}
    if unknown := set(keep) - operators - names:
        raise ConfigurationError(
            f"keep: {', '.join(sorted(unknown))}: neither an operator nor a node of this network; its operators are "
            f"{', '.join(sorted(operators))}"
        )
    return [node.name for node in model.graph.node if node.op_type in keep or node.name in keep]


def quantized_nodes(model: onnx.ModelProto) -> list[str]:
    """Returns the names of the nodes that read int8, in the order of the graph."""
    makers = {name: node for node in model.graph.node for name in node.output}
    return [
        node.name
        for node in model.graph.node
        if node.op_type not in _PAIR and any(_dequantized(makers, name) is not None for name in node.input)
    ]


def without_quantization(model: onnx.ModelProto, nodes: Collection[str]) -> onnx.ModelProto:
    """Returns a copy of a quantized network in which the named nodes read float again; the others are as they were."""
    import onnx

    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    makers = {name: node for node in freed.graph.node for name in node.output}
    for node in freed.graph.node:
        if node.name in nodes and node.op_type not in _PAIR:
            for index, name in enumerate(node.input):
                source = _dequantized(makers, name)
                if source is not None:
                    node.input[index] = source
    _drop_unused(freed)
    return freed


def is_quantized(model: onnx.ModelProto) -> bool:
    """Says whether a network has Q/DQ pairs of its own."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def calibration_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """Reads calibration samples.

    Args:
        path: A .npz file with one array per input, first axis = samples; or a folder of .npy files, each one sample
            of the network's only input, without the batch axis or with one of size 1.

    Returns:
        Arrays by input name; those of a folder under :data:`UNNAMED`.

    Raises:
        ConfigurationError: Nothing usable is there; the text names the file.
    """
    path = Path(path)
    if path.is_dir():
        return {UNNAMED: _stacked(path)}
    if not path.exists():
        raise ConfigurationError(f"{path}: no such file or folder: calibration takes a .npz file or a folder of .npy")
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("it is a single array, not a .npz archive with one array per input name")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:
        raise ConfigurationError(f"{path}: cannot read calibration samples: {error}") from error
    if not arrays:
        raise ConfigurationError(f"{path}: no arrays in it: expected one per input name, first axis = samples")
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ConfigurationError(f"{path}: every input needs the same number of samples, found {counts}")
    return arrays


def fitted_samples(
    samples: Mapping[str, np.ndarray], shapes: Mapping[str, Sequence[int | None]], *, allow_few: bool = False
) -> dict[str, np.ndarray]:
    """Returns the samples by the network's own input names, checked against its shapes.

    Args:
        samples: As :func:`calibration_arrays` reads them.
        shapes: Shape of each input, batch axis first; ``None`` for open sizes.
        allow_few: Accepts fewer than :data:`FEWEST_SAMPLES` samples.

    Raises:
        ConfigurationError: They do not fit, are not finite, or are too few.
    """
    if set(samples) == {UNNAMED} and len(shapes) == 1:
        samples = {next(iter(shapes)): samples[UNNAMED]}
    if set(samples) != set(shapes):
        found = ", ".join(name or "a folder of .npy files (for networks with one input)" for name in samples)
        raise ConfigurationError(f"calibration: samples for inputs {', '.join(shapes)} are expected, found {found}")
    for name, array in samples.items():
        wanted = tuple(shapes[name])[1:]
        fits = len(wanted) == array.ndim - 1 and all(
            size is None or size == found for size, found in zip(wanted, array.shape[1:], strict=True)
        )
        if not fits:
            text = "x".join("?" if size is None else str(size) for size in wanted)
            raise ConfigurationError(
                f"calibration: input {name!r} takes samples of {text}, these have shape {array.shape[1:]}"
            )
        if not np.isfinite(array).all():
            raise ConfigurationError(f"calibration: the samples for {name!r} hold NaN or infinite values")
    count = len(next(iter(samples.values())))
    if count < FEWEST_SAMPLES and not allow_few:
        raise ConfigurationError(
            f"calibration: {count} samples, at least {FEWEST_SAMPLES} are needed for ranges that can be trusted "
            "(some 500 are usual)"
        )
    return dict(samples)


def batches(samples: Mapping[str, np.ndarray], size: int, *, first: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yields float32 batches of ``size`` samples from ``first`` on; the last one is filled up from the start."""
    count = len(next(iter(samples.values())))
    for start in range(first, max(count, first + 1), size):
        rows = np.arange(start, start + size) % count
        yield {name: np.ascontiguousarray(array[rows], np.float32) for name, array in samples.items()}


def _stacked(folder: Path) -> np.ndarray:
    files = sorted(folder.glob("*.npy"))
    if not files:
        raise ConfigurationError(f"{folder}: no .npy files in it: expected one per sample")
    arrays: list[np.ndarray] = []
    for file in files:
        try:
            array = np.load(file, allow_pickle=False)
        except Exception as error:
            raise ConfigurationError(f"{file}: cannot read this calibration sample: {error}") from error
        if arrays and array.shape != arrays[0].shape:
            raise ConfigurationError(f"{file}: shape {array.shape}, but {files[0].name} has {arrays[0].shape}")
        arrays.append(array)
    stacked = np.stack(arrays)
    # A sample that was saved as a batch of one has five axes now where a picture has three.
    return stacked[:, 0] if stacked.ndim == 5 and stacked.shape[1] == 1 else stacked


def _input_shapes(model: onnx.ModelProto) -> dict[str, list[int | None]]:
    constants = {constant.name for constant in model.graph.initializer}
    return {
        info.name: [d.dim_value if d.HasField("dim_value") else None for d in info.type.tensor_type.shape.dim]
        for info in model.graph.input
        if info.name not in constants
    }


def _reader(
    quantization: Any,
    samples: Mapping[str, np.ndarray],
    shapes: Mapping[str, Sequence[int | None]],
    say: Callable[[str], None],
) -> Any:
    size = next(iter(shapes.values()))[0] or 1

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Hands ONNX Runtime one batch after the other; filled up from the start to a multiple of :data:`_STRIDE`."""

        def __init__(self) -> None:
            count = len(next(iter(samples.values())))
            self._count = -(-count // (size * _STRIDE)) * _STRIDE if count > size * _STRIDE else _STRIDE
            self.set_range(0, self._count)

        def __len__(self) -> int:
            return self._count

        def set_range(self, start_index: int, end_index: int) -> None:
            self._next, self._end = start_index, end_index

        def get_next(self) -> dict[str, np.ndarray] | None:
            if self._next >= self._end:
                return None
            self._next += 1
            say(f"measuring activations {self._next}/{self._count}")
            return next(batches(samples, size, first=(self._next - 1) * size))

    return Reader()


_PAIR = ("QuantizeLinear", "DequantizeLinear")


def _dequantized(makers: Mapping[str, Any], name: str) -> str | None:
    """Returns the float tensor behind the Q/DQ pair that makes ``name``; ``None`` where none does."""
    dequantize = makers.get(name)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    quantize = makers.get(dequantize.input[0])
    return quantize.input[0] if quantize is not None and quantize.op_type == "QuantizeLinear" else None


def _worth(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Whether quantizing a node makes anything faster: of the sums only those that fuse with a convolution."""
    if node.op_type != "Add":
        return True
    convolved = {name for other in model.graph.node if other.op_type == "Conv" for name in other.output}
    return any(name in convolved for name in node.input)


def _free_residual_sums(model: onnx.ModelProto) -> None:
    """Takes the Q/DQ pair off the side of a sum that comes straight from a convolution; the other side keeps its own.

    TensorRT then runs convolution, sum and activation as one kernel that reads the residual as int8.
    """
    nodes = model.graph.node
    maker = {name: node for node in nodes for name in node.output}
    readers: dict[str, int] = {}
    for node in nodes:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for node in nodes:
        if node.op_type != "Add":
            continue
        for side, name in enumerate(node.input):
            dequantize = maker.get(name)
            quantize = maker.get(dequantize.input[0]) if dequantize is not None else None
            if dequantize is None or quantize is None or quantize.op_type != "QuantizeLinear":
                continue
            source = maker.get(quantize.input[0])
            if source is not None and source.op_type == "Conv" and readers[quantize.input[0]] == 1:
                node.input[side] = quantize.input[0]
                break


def _drop_unused(model: onnx.ModelProto) -> None:
    """Removes nodes, constants and domains that nothing reads any more."""
    graph = model.graph
    wanted = {info.name for info in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(node.input)
    nodes = list(reversed(kept))
    del graph.node[:]
    graph.node.extend(nodes)
    constants = [constant for constant in graph.initializer if constant.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    imports = [entry for entry in model.opset_import if entry.domain in _domains(model)]
    del model.opset_import[:]
    model.opset_import.extend(imports)


def _domains(model: onnx.ModelProto) -> set[str]:
    return {"", "ai.onnx", *(node.domain for node in model.graph.node)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps ONNX Runtime's advice on preprocessing, which has been done, and its prints off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
