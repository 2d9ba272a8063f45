#!/usr/bin/env python3
"""Writes docs/benchmarks.md from the measurements in docs/benchmarks/*.json.

saccade bench --json > docs/benchmarks/NAME.json
python scripts/write_benchmarks.py            # or --check, which writes nothing
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from saccade.benchmark.text import GOALS, HAND_OVER_GOAL_MS, LATENCY_GOAL_MS, TITLES, median_groups

DOCS = Path(__file__).resolve().parents[1] / "docs"

HEAD = """\
# Benchmarks

<!-- Written by scripts/write_benchmarks.py from docs/benchmarks/*.json: change those, not this page. -->

`saccade bench` measures in one process, with the variants of a comparison taking turns, and reports ratios: absolute
times are those of one machine. Every time that was measured counts, none is trimmed; values are medians, intervals are
95 %, from order statistics, and that of a ratio is the widest that its two medians allow.

    saccade bench --json > docs/benchmarks/NAME.json
    python scripts/write_benchmarks.py

Where there is no git history, `SACCADE_COMMIT` names the commit. A measurement is refused, and its figures are not
shown, where outputs are not finite, where the variants' results differ from ONNX Runtime's in FP32 by more than their
precision explains, where a loop that was to replay a graph did not, and where a graph does not sense what the same
frame launched eagerly senses, also after the robot was moved.

What is compared:

- **floor**: the bare TensorRT engine's enqueue alone, captured as a CUDA graph and replayed, with the wait for it.
- **graph**: a 640x480 packed RGBA frame in GPU memory to the network's outputs in host memory (outputs up to 64 KiB)
  through the loop: preprocessing, engine, copy of the outputs, one CUDA graph. `with stamps and decoding` also stamps
  the stages on the device, decodes labels and hazard where the network has them, and checks that all outputs are
  finite. What need not wait for each other runs side by side in the graph; `line` is the graph without branches.
- **host round trip**: the same frame copied to the host, OpenCV's resize with its defaults, NumPy to normalise, pinned
  memory up, the same engine, the result down: as robotics lessons teach it. The frame comes down by `numpy()`; with a
  `pinned frame` it comes down into pinned memory, which is faster.
- **Polygraphy** and **ONNX Runtime on the CPU** get a prepared input: they are the engine alone.
- **sensors to result**: a ray-traced 640x480 camera with colour and depth and a LiDAR of 32x1024, preprocessing, FP16
  ResNet-18 and its outputs on the host, one CUDA graph. The bench scene is `scenes/bench.usda`, 24 primitive shapes
  and a post for the robot; the warehouse is reported beside it.
- **byte floor**: image read once and input written once (1920x1080 RGBA to 640x640), at the bandwidth of copies within
  the device (bytes read and written) in the same run; 64 images take turns, more than any L2 holds, and an empty
  kernel's time is taken off.
- **cameras**: buffers to outputs for 1 to 16 cameras as one batch through one engine with an open batch, against the
  faster of one camera through that engine and through an engine built for one.
- **recorder**: handing a record to the writer, as a share of the frame.
- **image to a ROS 2 subscriber** (`scripts/measure_bridge_latency.py`): from the moment the loop hands a 640x480 image
  over to the callback of a plain rclpy subscriber in another process, converted, serialised and sent, at 30 Hz. `tuned`
  is what docs/ros2.md says about images, on both sides.
- **bridge**: the configuration's own loop with every ROS 2 topic listened to by another process, in blocks that are
  published and blocks that are not: from state to decision, and from one decision to the next with the hand-over.

ResNet-18 is untrained: its weights come from a seed (`saccade.models.resnet`). TensorRT 8.5 is what these runs use;
TensorRT 10 and 11 are checked by contract and have not been run.
"""

NONE = "\nThere is no measurement yet.\n"


def main() -> int:
    """Writes the page, or says whether it is as it would be written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where the page is stale")
    arguments = parser.parse_args()
    target = DOCS / "benchmarks.md"
    text = page(measurements(DOCS / "benchmarks"))
    if arguments.check:
        return int(not target.is_file() or target.read_text(encoding="utf-8") != text)
    target.write_text(text, encoding="utf-8")
    print(target)
    return 0


NOT_OF_BENCH = ("architectures.json",)
"""Figures of other scripts in the same folder."""


def measurements(folder: Path) -> dict[str, Any]:
    """Returns the results by the name of their file."""
    files = [file for file in sorted(folder.glob("*.json")) if file.name not in NOT_OF_BENCH]
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def page(results: Mapping[str, Any]) -> str:
    """Returns the page."""
    parts = [HEAD]
    for name, result in results.items():
        parts.append("\n" + "\n".join(section(name, result)) + "\n")
    return "".join(parts) if results else HEAD + NONE


def section(name: str, result: dict[str, Any]) -> Iterator[str]:
    """Yields the lines about one measurement."""
    yield f"## {name}"
    yield ""
    if result.get("kind") == "bridge_latency":
        yield from latency(result)
        return
    if result.get("kind") == "nodes":
        yield from nodes(result)
        return
    yield from facts(result)
    yield ""
    yield "| ratio | value | 95 % interval | n | goal |"
    yield "|---|---:|---:|---:|---|"
    for key, ratio in result["ratios"].items():
        interval = ratio["interval"]
        spread = "" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"
        yield f"| {TITLES.get(key, key)} | {ratio['value']:.4g} | {spread} | {ratio['n']} | {verdict(key, ratio)} |"
    yield from others(result)
    yield ""
    yield "| median | ms | 95 % interval | n |"
    yield "|---|---:|---:|---:|"
    for title, medians in median_groups(result):
        for key, median in medians.items():
            if median["value"] is None:
                continue
            interval = median["interval"]
            spread = "" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"
            yield f"| {title}{key} | {median['value']:.4g} | {spread} | {median['n']} |"


def latency(result: dict[str, Any]) -> Iterator[str]:
    """Yields the lines about images on their way to a subscriber."""
    host, versions = result["host"], result.get("versions", {})
    yield f"- CPU: {host['cpu']}, {host['cores']} cores for this process"
    yield f"- load (1 minute) before and after: {result['load'][0]:.2f}, {result['load'][3]:.2f}"
    yield f"- largest socket buffer: {result['rmem_max']} bytes; cyclonedds {versions.get('cyclonedds') or 'unknown'}"
    yield f"- commit {result.get('commit') or 'unknown'}{' with changes' if result.get('modified') else ''}"
    if result.get("note"):
        yield f"- {result['note']}"
    yield ""
    yield "| transport | subscriber | | median [ms] | 95 % interval | n | p95 | max | lost | goal |"
    yield "|---|---|---|---:|---:|---:|---:|---:|---:|---|"
    for row in result["latency"]:
        name = f"| {row['transport']} | {row['middleware']} | {'tuned' if row['tuned'] else 'as it comes'} |"
        found = row["latency_ms"]
        if found is None:
            yield f"{name} | | 0 | | | {row['lost']} | |"
            continue
        spread = "" if found["interval"] is None else "{:.3g} to {:.3g}".format(*found["interval"])
        goal = ""
        if row["tuned"]:
            goal = f"{LATENCY_GOAL_MS}: {'met' if LATENCY_GOAL_MS.met(found['value']) else '**missed**'}"
        yield (
            f"{name} {found['value']:.3g} | {spread} | {found['n']} | {row['p95_ms']:.3g} | {row['max_ms']:.3g} "
            f"| {row['lost']} | {goal} |"
        )


def nodes(result: dict[str, Any]) -> Iterator[str]:
    """Yields the lines about what each part of a frame's graph costs, before and after a change."""
    host, versions = result["host"], result["versions"]
    runs = result["runs"]
    yield f"- GPU: {host['gpu']['name']}, driver {host['gpu']['driver']}; CPU: {host['cpu']}, {host['cores']} cores"
    yield f"- TensorRT {versions['tensorrt']}, Warp {versions['warp-lang']}, Python {versions['python']}"
    yield f"- {result['network']}, all variants in turns in one process; each column is a machine lease of its own"
    for number, run in enumerate(runs, start=1):
        yield f"- {number}: {run['title']}; commit {run['commit']}"
    yield ""
    yield "| median [us] | " + " | ".join(f"{number}" for number in range(1, len(runs) + 1)) + " |"
    yield "|---|" + "---:|" * len(runs)
    for name in runs[0]["median"]:
        cells = []
        for run in runs:
            floor = run["median"]["engine"]["median_us"]
            value = run["median"][name]["median_us"]
            cells.append(f"{value:.1f} ({value / floor:.3f} x)")
        yield f"| {name} | " + " | ".join(cells) + " |"
    for name in dict.fromkeys(name for run in runs for name in run["alone_us"]):
        cells = [f"{run['alone_us'][name]:.2f}" if name in run["alone_us"] else "-" for run in runs]
        yield f"| alone, 20 in a graph: {name} | " + " | ".join(cells) + " |"


def facts(result: dict[str, Any]) -> Iterator[str]:
    """Yields what it ran on."""
    host = result["host"]
    gpu = host.get("gpu") or {}
    versions = result.get("versions", {})
    yield f"- GPU: {gpu.get('name', 'none')}, driver {host.get('driver') or 'none'}"
    yield f"- CPU: {host['cpu']}, {host['cores']} cores for this process"
    warp, python = versions.get("warp-lang"), versions.get("python")
    yield f"- TensorRT {host.get('tensorrt') or 'none'}, Warp {warp}, Python {python}"
    modified = " with changes" if result.get("modified") else ""
    yield f"- commit {result.get('commit') or 'unknown'}{modified}"
    if result.get("note"):
        yield f"- {result['note']}"
    if result.get("quick"):
        yield "- a quick run: too few samples to rely on"


def verdict(key: str, ratio: dict[str, Any]) -> str:
    """Returns a ratio's goal and whether it is met."""
    goal = GOALS.get(key)
    return "" if goal is None else f"{goal}: {'met' if goal.met(ratio['value']) else '**missed**'}"


def hand_over(bridge: dict[str, Any]) -> str:
    """Returns what handing an image over costs the loop, and what became of the messages."""
    taken = bridge["hand_over_ms"]
    low, high = taken["interval"]
    met = "met" if HAND_OVER_GOAL_MS.met(taken["value"]) else "**missed**"
    counts = {key: sum(one[key] for one in bridge["topics"].values()) for key in ("delivered", "dropped", "received")}
    return (
        f"Bridge ({bridge['transport'].partition(':')[0]}): handing one image of 640x480x3 over takes the loop "
        f"{taken['value']:.3g} ms ({low:.3g} to {high:.3g}, n {taken['n']}), goal {HAND_OVER_GOAL_MS}: {met}. Of "
        f"{len(bridge['topics'])} topics, {counts['delivered']} messages were sent, {counts['dropped']} gave way to "
        f"newer ones, and the listener got {counts['received']}."
    )


def others(result: dict[str, Any]) -> Iterator[str]:
    """Yields what is no ratio and no median."""
    yield ""
    if result.get("host_to_device_bytes") is not None:
        yield (
            f"Host to device, per frame, from the nodes of the loop's {result['graphs']} graphs: "
            f"{result['host_to_device_bytes']} bytes. Device to host: at most {result['device_to_host_bytes']} bytes."
        )
    if result.get("recorder_us") is not None:
        yield f"Recorder: {result['recorder_us']:.3g} us per record on the loop (mean)."
    if "bridge" in result:
        yield hand_over(result["bridge"])
    preprocess = result.get("preprocess")
    if preprocess:
        medians = ", ".join(f"{key} {value['value']:.4g} us" for key, value in preprocess["median_us"].items())
        yield f"Preprocess, per launch: {medians} (copy: of 256 MiB)."
        yield f"Copy bandwidth: {preprocess['copy_bandwidth_bytes_per_s'] / 1e12:.3g} TB/s."
    for title, group in (("Not measured", "missing"), ("Invalid", "invalid")):
        for key, reason in result.get(group, {}).items():
            yield f"- {title}: {key}: {reason}"


if __name__ == "__main__":
    sys.exit(main())
