"""Finds out which trait of a graph with Q/DQ pairs keeps TensorRT from finishing a build.

    python scripts/qdq_probe.py --prepare graphs          writes the graphs; needs onnx and ONNX Runtime, no GPU
    python scripts/qdq_probe.py --graphs graphs           builds them; needs TensorRT and a GPU, nothing else
    python scripts/qdq_probe.py                           both

A ladder of cuts through ResNet-18 (one convolution, one residual block, two stages, all of it) is built with the FP16
flag and without. Then the smallest cut that did not finish in its time, or else all of it, is built with one
suspected trait changed at a time. Every build runs in a process of its own with its own time limit; where one is
stopped, the last lines of TensorRT's verbose log tell what it was at. One JSON line per build goes to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

CUTS = {"conv": "conv1.relu", "block": "layer1.0.sum.relu", "stages": "layer2.1.sum.relu", "whole": "logits"}
"""Tensor that a cut ends with."""

SAMPLES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, help="writes the graphs into this folder and ends")
    parser.add_argument("--graphs", type=Path, help="folder of graphs that were prepared")
    parser.add_argument("--limit", type=float, default=240.0, help="time for everything [s]")
    parser.add_argument("--each", type=float, default=75.0, help="time for one build [s]")
    parser.add_argument("--jobs", type=int, default=max(1, min(6, (os.cpu_count() or 2) // 2)), help="builds at once")
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--fp16", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        print(json.dumps(built(options.build, fp16=options.fp16, log=options.log)))
        return
    if options.prepare:
        for path in prepared(options.prepare):
            print(path)
        return
    with tempfile.TemporaryDirectory(prefix="qdq-") as scratch:
        folder = options.graphs or Path(scratch)
        if options.graphs is None:
            list(prepared(folder))
        probe(folder, Path(scratch), limit=options.limit, each=options.each, jobs=options.jobs)


def probe(folder: Path, scratch: Path, *, limit: float, each: float, jobs: int) -> None:
    """Builds the ladder, then the traits on its first rung that did not hold."""
    began = time.monotonic()

    def row(job: tuple[str, str, bool]) -> dict[str, Any]:
        cut, trait, fp16 = job
        facts = {"cut": cut, "trait": trait, "fp16": fp16}
        left = min(each, limit - (time.monotonic() - began))
        if left < 5:
            return {**facts, "state": "not tried"}
        return {**facts, **in_process(folder / f"{cut}.{trait}.onnx", fp16, scratch, left)}

    with ThreadPoolExecutor(jobs) as pool:
        stuck: list[str] = []
        for found in pool.map(row, [(cut, "base", fp16) for cut in CUTS for fp16 in (False, True)]):
            print(json.dumps(found), flush=True)
            if found["state"] != "built":
                stuck.append(found["cut"])
        cut = next((name for name in CUTS if name in stuck), "whole")
        traits = sorted(path.name.split(".")[1] for path in folder.glob(f"{cut}.*.onnx"))
        # What the base has without its flag comes first: more of the time is left for it.
        jobs_left = [(cut, trait, fp16) for fp16 in (False, True) for trait in traits if trait != "base"]
        for found in pool.map(row, jobs_left):
            print(json.dumps(found), flush=True)


def in_process(path: Path, fp16: bool, scratch: Path, limit: float) -> dict[str, Any]:
    """Runs one build in a process of its own."""
    log = scratch / f"{path.stem}.{'fp16' if fp16 else 'int8'}.log"
    command = [sys.executable, __file__, "--build", str(path), "--log", str(log), *(["--fp16"] if fp16 else [])]
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"state": "stopped", "wall_s": round(time.monotonic() - began, 1), "last_log": tail(log)}
    wall = round(time.monotonic() - began, 1)
    try:
        return {"state": "built", "wall_s": wall, **json.loads(done.stdout.splitlines()[-1])}
    except (IndexError, ValueError):
        text = done.stderr.strip().splitlines()[-3:]
        return {"state": f"failed ({done.returncode})", "wall_s": wall, "error": text, "last_log": tail(log)}


def tail(log: Path, lines: int = 4) -> list[str]:
    """Returns the end of a build's log, with the seconds since its start."""
    if not log.is_file():
        return []
    return [line[:200] for line in log.read_text(errors="replace").splitlines()[-lines:]]


def built(path: Path, *, fp16: bool, log: Path) -> dict[str, Any]:
    """Builds one graph with TensorRT and returns its times; run in a process of its own."""
    import tensorrt as trt

    began = time.monotonic()
    file = log.open("w", buffering=1)

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps everything, with its time."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            file.write(f"{time.monotonic() - began:.2f} {str(severity).rsplit('.', maxsplit=1)[-1]} {message}\n")

    logger = Logger()
    builder = trt.Builder(logger)
    flags = trt.NetworkDefinitionCreationFlag.__members__
    network = builder.create_network(1 << int(flags["EXPLICIT_BATCH"]) if "EXPLICIT_BATCH" in flags else 0)
    onnx_parser = trt.OnnxParser(network, logger)
    if not onnx_parser.parse(path.read_bytes()):
        return {"state": "refused", "error": [onnx_parser.get_error(i).desc() for i in range(onnx_parser.num_errors)]}
    parsed = time.monotonic()
    config = builder.create_builder_config()
    if trt.__version__.startswith("8."):
        # Its cuBLAS and cuDNN come apart from it, and are often missing.
        config.set_tactic_sources(0)
    known = trt.BuilderFlag.__members__
    if "INT8" in known and not path.name.endswith(".float.onnx"):
        config.set_flag(known["INT8"])
    if fp16 and "FP16" in known:
        config.set_flag(known["FP16"])
    plan = builder.build_serialized_network(network, config)
    ended = time.monotonic()
    return {
        "state": "built" if plan is not None else "gave up",
        "tensorrt": trt.__version__,
        "layers": network.num_layers,
        "parse_s": round(parsed - began, 2),
        "build_s": round(ended - parsed, 2),
        "plan_bytes": 0 if plan is None else memoryview(plan).nbytes,
        **({} if plan is not None else {"last_log": tail(log)}),
    }


def prepared(folder: Path) -> Iterator[Path]:
    """Writes every cut with every trait; yields the files."""
    import numpy as np
    import onnx

    from saccade.models.resnet import resnet18

    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).standard_normal((SAMPLES, 3, 224, 224), np.float32)
    whole = resnet18()
    for cut, end in CUTS.items():
        model = cut_at(whole, end)
        known: set[bytes] = set()
        for trait, make in TRAITS.items():
            copy = onnx.ModelProto()
            copy.CopyFrom(model)
            data = make(copy, {"image": images}).SerializeToString(deterministic=True)
            # In a small cut some traits change nothing.
            if data not in known:
                known.add(data)
                path = folder / f"{cut}.{trait}.onnx"
                path.write_bytes(data)
                yield path


def cut_at(model: Any, end: str) -> Any:
    """Returns the part of a network that ends with a tensor."""
    import onnx

    part = onnx.ModelProto()
    part.CopyFrom(model)
    last = next(index for index, node in enumerate(part.graph.node) if end in node.output)
    del part.graph.node[last + 1 :]
    used = {name for node in part.graph.node for name in node.input}
    kept = [constant for constant in part.graph.initializer if constant.name in used]
    del part.graph.initializer[:]
    part.graph.initializer.extend(kept)
    del part.graph.output[:]
    part.graph.output.append(onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, None))
    return onnx.shape_inference.infer_shapes(part)


def base(model: Any, samples: Any, **options: Any) -> Any:
    """What ``saccade compress --precision int8`` writes."""
    from saccade.precision.int8 import quantized_from_float

    return quantized_from_float(model, samples, allow_few=True, **options)


def only(*operators: str) -> Callable[[Any, Any], Any]:
    return lambda model, samples: base(model, samples, operators=operators)


def onnxruntime_default(model: Any, samples: Any, **options: Any) -> Any:
    """What onnxruntime.quantization writes by itself: pairs around everything, int8 weights, int32 biases."""
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        rows = iter(samples["image"])

        def get_next(self) -> Any:
            row = next(self.rows, None)
            return None if row is None else {"image": row[None]}

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        quantization.quantize_static(
            model,
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, **options},
        )
        return onnx.load(str(path))


def hidden_biases(model: Any, samples: Any) -> Any:
    """Every bias of a convolution behind an Identity, as some exporters leave them."""
    import onnx

    quantized = base(model, samples)
    for index, node in enumerate([n for n in quantized.graph.node if n.op_type in ("Conv", "Gemm")]):
        name = f"hidden_{index}"
        quantized.graph.node.insert(0, onnx.helper.make_node("Identity", [node.input[2]], [name]))
        node.input[2] = name
    return quantized


def int8_weights(model: Any, samples: Any) -> Any:
    """Weights stored as int8 behind a DequantizeLinear alone."""
    import numpy as np
    from onnx import numpy_helper

    quantized = base(model, samples)
    constants = {constant.name: constant for constant in quantized.graph.initializer}
    for node in list(quantized.graph.node):
        if node.op_type == "QuantizeLinear" and node.input[0] in constants:
            weight = constants[node.input[0]]
            array, scale = numpy_helper.to_array(weight), numpy_helper.to_array(constants[node.input[1]])
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            shape = [-1 if place == axis else 1 for place in range(array.ndim)] if scale.ndim else []
            stored = np.clip(np.rint(array / scale.reshape(shape)), -128, 127).astype(np.int8)
            weight.CopyFrom(numpy_helper.from_array(stored, weight.name))
            reader = next(n for n in quantized.graph.node if node.output[0] in n.input)
            reader.input[0] = weight.name
            quantized.graph.node.remove(node)
    return quantized


def per_tensor(model: Any, samples: Any) -> Any:
    """One scale per weight instead of one per channel."""
    import numpy as np
    from onnx import numpy_helper

    quantized = base(model, samples)
    constants = {constant.name: constant for constant in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            for place in (1, 2):
                array = numpy_helper.to_array(constants[node.input[place]])
                if array.ndim:
                    value = np.array(array.max(), array.dtype)
                    constants[node.input[place]].CopyFrom(numpy_helper.from_array(value, node.input[place]))
            kept = [a for a in node.attribute if a.name != "axis"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return quantized


def pair_per_reader(model: Any, samples: Any) -> Any:
    """A Q/DQ pair of its own for every reader of a tensor."""
    import onnx

    quantized = base(model, samples)
    makers = {name: node for node in quantized.graph.node for name in node.output}
    seen: set[str] = set()
    for node in list(quantized.graph.node):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for place, name in enumerate(node.input):
            second = makers.get(name)
            if second is None or second.op_type != "DequantizeLinear":
                continue
            if name in seen:
                first, copies = makers[second.input[0]], []
                for original in (first, second):
                    copy = onnx.NodeProto()
                    copy.CopyFrom(original)
                    copy.name, copy.output[0] = f"{original.name}_{node.name}", f"{original.output[0]}_{node.name}"
                    copies.append(copy)
                copies[1].input[0] = copies[0].output[0]
                at = list(quantized.graph.node).index(node)
                quantized.graph.node.insert(at, copies[0])
                quantized.graph.node.insert(at + 1, copies[1])
                node.input[place] = copies[1].output[0]
            seen.add(name)
    return quantized


TRAITS: dict[str, Callable[[Any, Any], Any]] = {
    "base": base,
    "float": lambda model, samples: model,
    "convolutions": only("Conv"),
    "no-sums": only("Conv", "Gemm"),
    "no-gemm": only("Conv", "Add"),
    "first-in-float": lambda model, samples: base(model, samples, keep=("conv1",)),
    "per-tensor": per_tensor,
    "int8-weights": int8_weights,
    "hidden-biases": hidden_biases,
    "pair-per-reader": pair_per_reader,
    "onnxruntime": onnxruntime_default,
    "onnxruntime-float-bias": lambda model, samples: onnxruntime_default(
        model, samples, QuantizeBias=False, AddQDQPairToWeight=True
    ),
}
"""How each variant is made from the float network."""


if __name__ == "__main__":
    main()
