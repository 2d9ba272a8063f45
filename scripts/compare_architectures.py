"""Compares what the networks can be built from: parameters, multiply-adds and latency side by side.

    python scripts/compare_architectures.py --prepare graphs     writes the ONNX files; needs torch (extra train)
    python scripts/compare_architectures.py --graphs graphs      measures them; needs no torch
    python scripts/compare_architectures.py --graphs graphs --device cuda:0    the same on a GPU, with TensorRT in half

Weights are untrained: latency does not hang on them, and accuracy is not compared here. All architectures of a network
are timed in one process, in turns. Figures are added to docs/benchmarks/architectures.json under the device's name, so
that a CPU and a GPU can stand side by side.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("camera", "lidar")
DOCS = Path(__file__).resolve().parent.parent / "docs"
OUT = DOCS / "benchmarks" / "architectures.json"
PAGE = DOCS / "networks.md"
BEGIN, END = "<!-- architectures: written by scripts/compare_architectures.py -->", "<!-- /architectures -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, help="writes the ONNX files into this folder and ends")
    parser.add_argument("--graphs", type=Path, help="folder of the ONNX files")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda:0 with TensorRT")
    parser.add_argument("--rounds", type=int, default=20, help="turns of ten runs that each has")
    parser.add_argument("--limit", type=float, default=180.0, help="time for measuring one network [s]")
    parser.add_argument("--out", type=Path, default=OUT, help="file that the figures are added to")
    options = parser.parse_args()
    if options.prepare:
        prepare(options.prepare)
    elif options.graphs:
        measure(options.graphs, options.device, rounds=options.rounds, limit=options.limit, out=options.out)
    else:
        parser.error("say --prepare FOLDER or --graphs FOLDER")


def prepare(folder: Path) -> None:
    """Writes every architecture of every network, and what each costs."""
    import onnx
    import torch

    from saccade.models.export import export_network
    from saccade.models.networks import ARCHITECTURES, network_from_kind
    from saccade.precision.cost import multiply_adds_of, parameters_of

    for kind in KINDS:
        costs = {}
        for architecture in ARCHITECTURES:
            torch.manual_seed(0)
            network = network_from_kind(kind, architecture=architecture)
            for module in network.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    # Equal biases would be written, and so counted, only once.
                    module.running_mean.normal_(0, 0.1)
            path = export_network(network, folder / f"{kind}.{architecture}.onnx", metadata={"kind": kind})
            model = onnx.load(str(path))
            costs[architecture] = {
                "parameters": parameters_of(model)["total"],
                "multiply_adds": multiply_adds_of(model),
            }
            print(path, costs[architecture])
        (folder / f"{kind}.json").write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, device: str, *, rounds: int, limit: float, out: Path) -> None:
    """Times them in turns and adds the figures to the file."""
    from saccade.benchmark.measure import TimeLimit, Variant, interleaved, median, ratio
    from saccade.models.export import atomic_path

    document: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {"schema": 1}
    networks = document.setdefault("networks", {})
    name, runtime = described(device)
    for kind in KINDS:
        costs = json.loads((folder / f"{kind}.json").read_text(encoding="utf-8"))
        variants = {
            architecture: Variant(runner(folder / f"{kind}.{architecture}.onnx", device)) for architecture in costs
        }
        times = interleaved(variants, rounds=rounds, limit=TimeLimit(limit))
        rows = networks.setdefault(kind, {})
        for architecture, cost in costs.items():
            row = rows.setdefault(architecture, {})
            row |= cost
            row.setdefault("latency", {})[name] = {
                "runtime": runtime,
                "median_ms": median(times[architecture]),
                "over_separable": ratio(times[architecture], times["separable"]),
            }
            print(kind, architecture, json.dumps(row))
    with atomic_path(out) as path:
        path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if out == OUT:
        text = PAGE.read_text(encoding="utf-8")
        with atomic_path(PAGE) as path:
            path.write_text(with_table(text, document), encoding="utf-8")


def with_table(page: str, document: dict[str, Any]) -> str:
    """Returns the page with the table of the document between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table(document)}\n{END}{rest.split(END)[1]}"


def table(document: dict[str, Any]) -> str:
    """Returns the figures as a Markdown table: latencies as ratios to the separable network, with 95 % intervals."""
    rows = [row for kinds in document["networks"].values() for row in kinds.values()]
    devices = list(dict.fromkeys(name for row in rows for name in row["latency"]))
    titles = ["network", "architecture", "parameters", "multiply-adds", *(f"latency, {name}" for name in devices)]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for kind, architectures in document["networks"].items():
        for architecture, row in architectures.items():
            cells = [kind, architecture, f"{row['parameters'] / 1e3:.0f} k", f"{row['multiply_adds'] / 1e6:.0f} M"]
            for name in devices:
                found = row["latency"].get(name)
                cells.append("–" if found is None else latency(architecture, found))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def latency(architecture: str, found: dict[str, Any]) -> str:
    """Returns median and ratio of one network on one device."""
    text = f"{found['median_ms']['value']:.2f} ms"
    if architecture == "separable":
        return text
    over = found["over_separable"]
    return f"{text}, {over['value']:.2f} x ({over['interval'][0]:.2f} to {over['interval'][1]:.2f})"


def runner(path: Path, device: str) -> Callable[[], Any]:
    """Returns what runs a network once, with arrays of its own, and waits for it."""
    import warp as wp

    from saccade.config import EngineConfig
    from saccade.engines.selection import engine_from_onnx

    engine = engine_from_onnx(path, EngineConfig(precision="fp16"), device=device, say=print)
    arrays = []
    random = np.random.default_rng(0)
    for spec in (*engine.inputs, *engine.outputs):
        values = random.random(spec.shape).astype(spec.dtype)
        arrays.append(wp.array(values, device=engine.device))
        engine.bind(spec.name, arrays[-1])
    if not wp.get_device(engine.device).is_cuda:
        return lambda kept=arrays: engine.enqueue(None)  # type: ignore[misc]
    from saccade.benchmark.session import graph_of

    stream = wp.get_stream(engine.device)
    return graph_of(stream, lambda: engine.enqueue(stream), engine, arrays)


def described(device: str) -> tuple[str, str]:
    """Returns the device's name and what runs the networks there."""
    if device == "cpu":
        import os

        import onnxruntime

        model = "CPU"
        facts = Path("/proc/cpuinfo")
        if facts.is_file():
            names = [line.split(":", 1)[1].strip() for line in facts.read_text().splitlines() if "model name" in line]
            model = names[0] if names else model
        return f"{model}, {os.cpu_count()} cores", f"ONNX Runtime {onnxruntime.__version__}, float32"
    import tensorrt
    import warp as wp

    return wp.get_device(device).name, f"TensorRT {tensorrt.__version__}, float16, one CUDA graph"


if __name__ == "__main__":
    main()
