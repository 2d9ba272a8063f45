#!/usr/bin/env python3
"""Writes docs/tradeoff.md and its plots from the measurements in docs/tradeoff/*.json.

saccade tradeoff warehouse --out sweep --json > docs/tradeoff/NAME.json
python scripts/write_tradeoff.py              # or --check, which writes nothing
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saccade.reporting.adaptive import adaptive_lines, adaptive_plot
from saccade.reporting.tradeoff import markdown_lines, plots

DOCS = Path(__file__).resolve().parents[1] / "docs"
NONE = "\nThere is no measurement yet.\n"

HEAD = """\
# Accuracy against latency

<!-- Written by scripts/write_tradeoff.py from docs/tradeoff/*.json: change those, or that script, not this page. -->

`saccade tradeoff` measures every precision, pruning and input size that the section `tradeoff` of the configuration
names, and says which to take. FP32 without pruning is the reference and always measured.

    saccade tradeoff warehouse --precision fp32,fp16,int8,int8_mixed --prune none,2:4 --batch 1,16
    saccade tradeoff warehouse --min-accuracy 0.92 --max-latency 30
    saccade tradeoff --from docs/tradeoff/NAME.json --max-latency 5     # asks a result, measures nothing

In Python:

    from saccade.validation.tradeoff import recommend
    recommend("runs/tradeoff-warehouse", min_accuracy=0.92, max_latency=30)["camera"].lines()

## What is run where

- **Scenes** are randomised layouts of the part `test`, on which no network was trained and no threshold chosen. Each
  is walked once by the embedded simulator on the CPU, steered by the configuration's own networks in FP32, and
  recorded. Every candidate then gets the same recorded frames. Recorded runs of your own take their place with
  `tradeoff.recordings`.
- **In the loop** (batch 1): the recorded sensor buffers are replayed through the same loop, execution, preprocessing,
  engine and decoding as in `saccade validate`, one network at a time. Latency is `inference_ms` of the record: from
  hand-over of the buffers to the result on the host. On a GPU that is the replayed CUDA graph, and the upload of the
  recorded buffers comes before it. What the simulator takes is no part of it.
- **Other batches**: the engine alone on the same prepared frames, with their accuracy counted again, since a runtime
  may choose other kernels. The network needs an open batch; where a file `NAME_dynamic.onnx` lies beside it, that is
  taken for all candidates.
- **Turns**: candidates follow each other scene by scene, another one first in every scene, so that drift hits all.
- **Accuracy** is mIoU against the simulator's labels, pooled over all frames, over classes present, on the network's
  own grid; for a network without labels the AUROC of its hazard. **Retention** is the share of FP32's on the same
  scenes. Both have 95 % bootstrap intervals (percentile, 2000 resamples) in which whole scenes are drawn, because
  frames of one scene resemble each other; below 5 scenes there is none.
- **Latency** is the median; p95 and p99 stand beside it, all with intervals from order statistics, nothing trimmed. A
  percentile that the number of frames cannot bear is missing (p95: 72 frames, p99: 368).
- **Throughput** is frames over the time that they took, one stream.
- **Energy** per frame is NVML's energy counter over one second of runs of the engine in each of the first three
  scenes, and includes what the GPU takes when idle. There is none on the CPU. **GPU memory** is what opening the engine
  and the first frames took of the free memory, measured on a GPU only; another program that allocates meanwhile
  falsifies it. On a GPU engines that are measured alone stay open from scene to scene, as long as a quarter of its
  memory is free; their memory is that of the first opening.
- **Pruning** is done once per network and size, in FP32; all precisions are made from that network, and its time is
  that of the FP32 row. Whether a candidate is no use at all (NaN, collapsed) is judged against the pruned network when
  it is made; what counts, retention and gate, is judged here, against FP32 before pruning. A network that was pruned
  elsewhere takes its place with `tradeoff.pruned` or `--pruned camera:2:4=FILE`: it needs the same inputs and outputs
  and must be pruned that way (2:4: in every layer that sparse tensor cores take; l1: zeros; channels: fewer
  parameters). A batch of 1 is opened where two frames together give what each gives alone.
- **Calibration** of INT8 and of pruning uses frames of training layouts, recorded the same way. Samples that are
  given are compared with the frames that are measured on, by hash, and refused where a frame is in both.
- **int8** is explicit Q/DQ; on TensorRT before 10 it is TensorRT's own calibrator with the same samples, unless
  `tradeoff.int8` says `qdq` or `calibrator`.
- **TensorRT engines** are compared with ONNX Runtime before they are used, on 16 samples from all over the calibration
  set, which lie beside each network in `models/`. One that differs by more than its precision explains is measured all
  the same, since its accuracy on ground truth is what a sweep is for: it is marked as *not qualified*, with the figures
  and their limits, drawn hollow with a broken outline, and never recommended. FP32 without pruning, of whose accuracy
  all others keep a share, must be qualified, and outputs that are not finite are refused. Everywhere else (`saccade
  validate`, `node`, `adaptive`, `engine build`) such an engine is refused. What a former sweep refused is measured with
  `--retry`. ONNX Runtime's own engines are not compared with anything.
- A candidate whose outputs are not finite, or which gives one class for everything, is shown and never recommended.

The recommendation is the fastest candidate that keeps the gate (0.99 of FP32's accuracy by default as in MLPerf,
`--gate strict` 0.999) and every limit; `--max-latency` is judged by p95. Where intervals overlap there is *no
measurable difference*: then the more accurate one is taken, and among equals the one with the most careful
arithmetic. Where nothing meets the limits the answer says which limit, and what comes nearest; the exit status is 1.

## Going on with a sweep

Every measurement is a line of `journal.jsonl`, on the disk before the next begins. The same command with the same
`--out` goes on after Ctrl-C, SIGKILL or `--time-limit` (status 3 until it is complete); candidates, scenes and
batches may be added, everything else has to be the same, or the journal is refused. Recordings that are gone are made
again: where their checksums differ, what was measured on them is measured again.

Before the first measurement everything is made that it needs: networks, then the engines of every batch, one by one.
A sweep that is killed meanwhile loses the engine it was at; `--time-limit` counts building as well, and the result says
what remains.

`--prepare-only` records scenes and calibration samples and makes the networks, also for `--device cuda --engine
tensorrt` on a machine without a GPU: copy the folder to the one that measures, and give the same command without it.
The journal contains no paths and belongs to the machine that measured first. A folder with `calibration/` needs
neither the layouts nor the source that the samples are from.

    saccade tradeoff warehouse --device cuda --engine tensorrt --out sweep --prepare-only
    saccade tradeoff --merge sweep-camera --merge sweep-lidar --out sweep    # the same scenes, machine and versions"""

ADAPTIVE_HEAD = """\
# Adaptive precision

<!-- Written by scripts/write_tradeoff.py from docs/tradeoff/*.json: change those, or that script, not this page. -->

With `engine.adaptive` several precisions of each network are kept ready, and after each decision it is chosen which
runs the next one. All networks of a run switch together.

    engine:
      adaptive:
        precisions: [fp32, fp16, int8]         # the most accurate first
        tradeoff: runs/tradeoff-warehouse      # the networks, and what each keeps of FP32's accuracy
        accuracy_floor: 0.99
        deadline_ms: 20

- **Engines** are opened once and bound to the same input and output arrays; on a GPU each precision has its own
  captured graph, captured with the first frames. A switch changes which engine or graph runs: nothing is built,
  captured, allocated on the device or copied, and no frame is dropped. A precision that cannot be opened beside the
  others, for lack of memory for example, is left out, and the record says why.
- **Warm-up**: each precision runs five frames in turn, so that it is known what each takes on this machine.
- **Down**: when recent inference times (of the last 8 frames all but the slowest) exceed 0.95 of the deadline, to the
  most accurate precision that is expected to keep it, else to the fastest. A precision that was not faster in the
  warm-up is never taken for load; where none is, that is said and the most accurate one stays.
- **Up**: when the more accurate precision is expected below 0.87 of the deadline and the device has room: load below
  90 % and memory below 95 % (NVML; on the CPU the load of all cores).
- **Dwell**: two switches for load are at least `dwell_s` apart. A precision that did not help, or that had to be left
  again soon, is left out for `hold_s`, longer each time.
- **Faults** do not wait: outputs that are not finite, labels that agree less than 0.8 with the frame before a switch,
  or ten frames without any obstacle, person or robot where there were some, lead to the most accurate precision at
  once. If it detects nothing either, the other one is not blamed.
- **Floor**: a precision that keeps less than `accuracy_floor` of FP32's accuracy in the trade-off is never taken, and
  neither is one whose engine was not qualified there. Without a trade-off nothing is known, and none is excluded.

Every switch is in the record with its reason ([record.md](record.md)). The policy (`validation/adaptive_policy.py`)
knows no clock and no device; it is tested by properties and on slowdowns recorded under real load.

## The experiment

    saccade adaptive warehouse --tradeoff runs/tradeoff-warehouse

replays the same recorded frames at the sensors' pace: FP32 without load first, whose p95 times 1.2 becomes the
deadline; then each fixed precision and the adaptive choice, each with load in the middle third of the frames. The
load are other processes that multiply matrices, on the CPU one per core (NumPy), on a GPU one (Warp), which takes turns
with the run; with `--load stream` it is a stream of the same process, whose kernels run beside the run's. Finished runs
are kept, and the same command goes on with the rest. It runs several engines on one device and nothing else."""


def main() -> int:
    """Writes the pages, or says whether they are as they would be written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where something is stale")
    arguments = parser.parse_args()
    files = written(DOCS)
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if arguments.check:
        for path in stale:
            print(f"{path} is stale", file=sys.stderr)
        return int(bool(stale))
    for path in stale:
        path.write_text(files[path], encoding="utf-8")
        print(path)
    return 0


def written(docs: Path) -> dict[Path, str]:
    """Returns every file that follows from the measurements, with its content."""
    found = results(docs / "tradeoff")
    sweeps = {name: result for name, result in found.items() if result.get("kind") == "tradeoff"}
    runs = {name: result for name, result in found.items() if result.get("kind") == "adaptive"}
    files = {
        docs / "tradeoff.md": page(HEAD, sweeps),
        docs / "adaptive.md": adaptive_page(ADAPTIVE_HEAD, runs),
    }
    for name, result in sweeps.items():
        for plot, text in plots(result).items():
            files[docs / "tradeoff" / f"{name}-{plot}.svg"] = text
    for name, result in runs.items():
        files[docs / "tradeoff" / f"{name}.svg"] = adaptive_plot(result, standalone=True)
    return files


def results(folder: Path) -> dict[str, Any]:
    """Returns the results by the name of their file."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}


def page(head: str, sweeps: Mapping[str, Any]) -> str:
    """Returns the page of the trade-offs."""
    parts = [head]
    for name, result in sweeps.items():
        lines = [f"## {name}", "", *markdown_lines(result, level="###", pictures=f"tradeoff/{name}-")]
        parts.append("\n" + "\n".join(lines) + "\n")
    return "".join(parts) if sweeps else head + NONE


def adaptive_page(head: str, runs: Mapping[str, Any]) -> str:
    """Returns the page of the adaptive runs."""
    parts = [head]
    for name, result in runs.items():
        lines = [f"## {name}", "", *adaptive_lines(result), "", f"![load, precision and latency](tradeoff/{name}.svg)"]
        parts.append("\n" + "\n".join(lines) + "\n")
    return "".join(parts) if runs else head + NONE


if __name__ == "__main__":
    sys.exit(main())
