"""A camera that is faster than its network: the pipeline drops what is too late, and accounts for every frame.

    python examples/pipeline.py [--rate 1000] [--seconds 3] [--policy drop_oldest]

Synthetic pictures, the camera network that comes with Saccade, ONNX Runtime on one CPU core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import warp as wp

from saccade import paths
from saccade.engines.onnxruntime import OnnxRuntimeEngine
from saccade.frame import CLASSES, now_ns
from saccade.pipeline import Pipeline

SIZE = 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def main() -> None:
    """Runs the camera for a while, reads the results beside it, and prints where every frame went."""
    options = _options()
    process = camera_network()
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    process(picture)  # the first inference takes longer than the others
    hazards: list[float] = []
    with Pipeline(
        process,
        name="camera",
        frames=2,
        policy=options.policy,
        block_deadline_s=0.05,
        deadline_ms=50,
        keep=np.copy,  # the camera overwrites its one picture
    ) as pipeline:
        start = now_ns()
        for sequence in range(round(options.rate * options.seconds)):
            due = start + round(sequence / options.rate * 1e9)
            time.sleep(max(0, due - now_ns()) * 1e-9)
            captured_ns = now_ns()
            draw(picture, sequence)
            pipeline.submit_frame(picture, captured_ns=captured_ns)
            hazards += read(pipeline)
    hazards += read(pipeline)  # what was not read when the pipeline stopped is still there
    _print(pipeline, hazards)


def camera_network() -> Callable[[np.ndarray], tuple[float, dict[str, float]]]:
    """Returns a function from a picture to its hazard probability, 0..1, and the share of each class."""
    engine = OnnxRuntimeEngine(paths.resolve("camera.onnx", "model"), threads=1)
    arrays = {spec.name: wp.zeros(spec.shape, dtype=wp.float32, device="cpu") for spec in engine.inputs}
    arrays |= {spec.name: wp.zeros(spec.shape, dtype=wp.float32, device="cpu") for spec in engine.outputs}
    for name, array in arrays.items():
        engine.bind(name, array)
    image, labels, hazard = (arrays[name].numpy() for name in ("image", "labels", "hazard"))  # the same memory

    def process(picture: np.ndarray) -> tuple[float, dict[str, float]]:
        image[0] = ((picture / np.float32(255) - MEAN) / STD).transpose(2, 0, 1)
        engine.enqueue(None)
        counts = np.bincount(labels[0].argmax(axis=0).ravel(), minlength=len(CLASSES))
        return float(hazard[0, 0]), dict(zip(CLASSES, counts / counts.sum(), strict=True))

    return process


def draw(picture: np.ndarray, sequence: int) -> None:
    """Draws a box that moves over a floor, over the picture before."""
    picture[: SIZE // 2] = (192, 208, 224)
    picture[SIZE // 2 :] = 96
    left = 2 * sequence % (SIZE - 60)
    picture[SIZE // 2 - 30 : SIZE // 2 + 60, left : left + 60] = (176, 80, 32)


def read(pipeline: Pipeline) -> list[float]:
    """Returns the hazards of all results that are ready, without waiting."""
    hazards = []
    while pipeline.counters().results.in_flight:
        hazard, _ = pipeline.get_result(timeout_s=0).require()
        hazards.append(hazard)
    return hazards


def _print(pipeline: Pipeline, hazards: list[float]) -> None:
    statistics = pipeline.statistics()
    deadline, latency = statistics["deadline"], statistics["latency_ms"]
    missed, middle = deadline["missed"], latency["p50"]["value"]
    print(pipeline.counters())
    print(f"copies at submission: {statistics['copies']}")
    print(
        f"deadline {deadline['limit_ms']:g} ms: {missed['count']} of {missed['n']} missed, "
        f"longest streak {deadline['longest_miss_streak']}"
    )
    if hazards:
        print(
            f"capture to result: median {'not known' if middle is None else f'{middle:.1f} ms'}, "
            f"longest {latency['max']:.1f} ms, n = {latency['n']}"
        )
        print(f"hazard of {len(hazards)} results: {min(hazards):.2f} to {max(hazards):.2f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1000.0, help="pictures per second")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--policy", choices=["drop_oldest", "drop_newest", "block"], default="drop_oldest")
    return parser.parse_args()


if __name__ == "__main__":
    main()
