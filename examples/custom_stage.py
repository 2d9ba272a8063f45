"""A user's own CUDA kernel as a stage of the frame, twice: through Warp, and through PyCUDA's SourceModule.

    python examples/custom_stage.py [--frames 100] [--device cuda:0]

A synthetic LiDAR on the GPU, and the LiDAR network that comes with Saccade where TensorRT is installed. Both kernels
compute the same from the ranges; they are captured with the frame as one CUDA graph and replayed with it. In a run of
your own, hand the stages to ``PerceptionLoop(..., stages=[...])``.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import warp as wp

from saccade import cuda, paths
from saccade.config import EngineConfig, LidarConfig, NetworkConfig
from saccade.errors import SaccadeError
from saccade.execution import FrameStage
from saccade.frame import Frame, Stamps, now_ns
from saccade.kernels.setup import prepare_warp
from saccade.network import Network
from saccade.stream_execution import StreamExecution

SENSOR = "lidar"
LIDAR = LidarConfig(kind="lidar", prim="synthetic", channels=32, columns=1024)
BLOCK = 256

CUDA_SOURCE = """
__global__ void custom_robotics_kernel(const float *input, float *output, int size)
{
    int idx = blockIdx.x * blockDim.x + threadIdx.x;
    if (idx < size)
        output[idx] = sqrtf(fabsf(input[idx])) * 2.0f;
}
"""


@wp.kernel(enable_backward=False)
def robotics(values: wp.array(dtype=wp.float32), output: wp.array(dtype=wp.float32)):  # type: ignore[valid-type]
    """The same as CUDA_SOURCE."""
    i = wp.tid()
    output[i] = wp.sqrt(wp.abs(values[i])) * 2.0


class WarpStage:
    """Runs the kernel on the ranges of one LiDAR, through Warp.

    Args:
        sensor: Name of the LiDAR.
        output: One value per return, float32; a stage allocates nothing while it runs.
    """

    name = "robotics kernel through Warp"
    after = "sense"

    def __init__(self, sensor: str, output: wp.array) -> None:
        self._sensor = sensor
        self._output = output

    def record(self, frames: Sequence[Frame], stream: wp.Stream) -> None:
        """Launches the kernel; while the frame is captured it becomes a node of the graph."""
        for frame in frames:
            if frame.sensor == self._sensor:
                values = frame.buffers["ranges"].flatten()
                wp.launch(robotics, values.size, inputs=[values], outputs=[self._output], stream=stream)


class PycudaStage:
    """Runs the kernel on the ranges of one LiDAR, through PyCUDA.

    PyCUDA launches on its own streams only. Its stream branches off the frame's and joins it again: while the frame is
    captured that makes the launch a node of the same graph.

    Args:
        sensor: Name of the LiDAR.
        output: One value per return, float32.
        function: Of the kernel, from :func:`compiled` or any other PyCUDA module.
    """

    name = "robotics kernel through PyCUDA"
    after = "sense"

    def __init__(self, sensor: str, output: wp.array, function: Any) -> None:
        self._sensor = sensor
        self._output = output
        self._device = str(output.device)
        self._function = function.prepare("PPi")
        self._branch = cuda.stream(self._device)

    def record(self, frames: Sequence[Frame], stream: wp.Stream) -> None:
        """Launches the kernel between what the frame's stream did before and what it does next."""
        for frame in frames:
            if frame.sensor != self._sensor:
                continue
            values, size = frame.buffers["ranges"], self._output.size
            grid, block = ((size + BLOCK - 1) // BLOCK, 1), (BLOCK, 1, 1)
            self._branch.wait_stream(stream)
            # PyCUDA's calls need its context current: the primary one, which Warp and TensorRT use too.
            with cuda.primary_context(self._device):
                self._function.prepared_async_call(
                    grid, block, self._branch.pycuda, int(values.ptr), int(self._output.ptr), size
                )
            stream.wait_stream(self._branch)


def compiled(device: str) -> Any:
    """Returns the PyCUDA function of CUDA_SOURCE."""
    from pycuda.compiler import SourceModule

    with cuda.primary_context(device):
        return SourceModule(CUDA_SOURCE).get_function("custom_robotics_kernel")


def why_no_pycuda() -> str | None:
    """Returns why SourceModule cannot be used here; ``None`` = it can."""
    if cuda.backend() != "pycuda":
        return "PyCUDA is not used here: pip install pycuda"
    if shutil.which("nvcc") is None:
        return "SourceModule compiles with nvcc, which is not on PATH: install the CUDA toolkit"
    return None


class SyntheticLidar:
    """What an execution needs of a simulator: a LiDAR whose ranges change from sample to sample, on the GPU."""

    capturable = False

    def __init__(self, device: str) -> None:
        self.device = device
        shape = (LIDAR.channels, LIDAR.columns)
        buffers = {
            "ranges": wp.zeros(shape, dtype=wp.float32, device=device),
            "intensity": wp.full(shape, value=0.5, dtype=wp.float32, device=device),
        }
        self._frame = Frame(SENSOR, "lidar", -1, 0.0, Stamps(), buffers)

    def sense(self) -> list[Frame]:
        """Returns the next sample."""
        frame = self._frame
        frame.sequence += 1
        frame.buffers["ranges"].fill_(1.0 + frame.sequence % 20)
        wp.synchronize_device(self.device)
        frame.stamps.sim_state = frame.stamps.sensed = now_ns()
        return [frame]


def main() -> None:
    """Captures and replays the frame with both stages, and compares what they gave with NumPy."""
    options = _options()
    prepare_warp()
    if not wp.is_cuda_available():
        raise SystemExit(
            "This example runs its kernels on an NVIDIA GPU, and Warp finds none here: nvidia-smi shows whether the "
            "driver works."
        )
    try:
        run(cuda.require(options.device), options.frames)
    except SaccadeError as error:
        raise SystemExit(str(error)) from error


def run(device: str, frames: int) -> None:
    """Runs ``frames`` samples through the frame and its stages."""
    source = SyntheticLidar(device)
    size = LIDAR.channels * LIDAR.columns
    outputs = {"Warp": wp.zeros(size, dtype=wp.float32, device=device)}
    stages: list[FrameStage] = [WarpStage(SENSOR, outputs["Warp"])]
    missing = why_no_pycuda()
    if missing is None:
        outputs["PyCUDA"] = wp.zeros(size, dtype=wp.float32, device=device)
        stages.append(PycudaStage(SENSOR, outputs["PyCUDA"], compiled(device)))
    else:
        print(f"Without the PyCUDA stage. {missing}")
    execution = StreamExecution(source, networks_for(device), device=device, stages=stages)  # type: ignore[arg-type]
    worst = dict.fromkeys(outputs, 0.0)
    for _ in range(frames):
        (frame,) = execution.sense()
        execution.infer([frame])
        wanted = 2.0 * np.sqrt(np.abs(frame.buffers["ranges"].numpy().ravel()))
        for name, output in outputs.items():
            worst[name] = max(worst[name], float(np.abs(output.numpy() - wanted).max()))
    facts = execution.facts()
    print(_described(facts))
    for name, difference in worst.items():
        print(f"{name}: greatest difference from NumPy over {frames} frames {difference:.1e}")


def networks_for(device: str) -> list[Network]:
    """Returns the LiDAR network that comes with Saccade, or nothing where TensorRT is not installed."""
    if importlib.util.find_spec("tensorrt") is None:
        print("Without a network: TensorRT is not installed.")
        return []
    config = NetworkConfig.model_validate(
        {
            "model": "lidar.onnx",
            "inputs": {"range_image": {"kind": "range_image", "sensor": SENSOR}},
            "decoder": {"labels": "labels", "clearance": "clearance"},
        }
    )
    path = paths.resolve("lidar.onnx", "model")
    return [Network("lidar", config, path, sensors={SENSOR: LIDAR}, engine=EngineConfig(), device=device, say=print)]


def _described(facts: dict[str, Any]) -> str:
    execution, residency = facts["execution"], facts["residency"]
    if execution["mode"] != "graph":
        return f"The frame ran eagerly: {execution['reason']}"
    replayed = f"The frame is one CUDA graph, replayed {execution['replays']} times"
    if not residency["proven"]:
        return f"{replayed}; what crosses PCIe is not proven: {residency['reason']}"
    nodes = ", ".join(f"{count} {name}" for name, count in sorted(residency["graphs"][0]["nodes"].items()))
    written = sum(residency["kernel_writes"].values())
    return (
        f"{replayed}: {nodes}; {residency['host_to_device_bytes']} bytes to the GPU, "
        f"{residency['device_to_host_bytes']} copied back, {written} written back by a kernel"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--device", default="cuda:0")
    return parser.parse_args()


if __name__ == "__main__":
    main()
