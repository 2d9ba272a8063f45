"""Sensor buffers that stay where they are: a simulator of cameras whose pictures do not change, for timing alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from saccade.config import CameraConfig
from saccade.frame import Command, Frame, GroundTruth, SimState, Stamps, now_ns
from saccade.network import Network

WIDTH, HEIGHT = 640, 480
"""Size of the cameras [px]."""

STEP = 0.1
"""Simulated time between two frames [s]."""

SMALL_OUTPUT = 64 * 1024
"""Outputs up to this size are brought to the host as they are [bytes]; larger ones stay for the decoder."""


class BufferSource:
    """Hands over the same resident frames again and again.

    Args:
        buffers: Packed RGBA image by camera, shape ``(height, width)``, uint32.
    """

    name = "buffers"
    acts = False
    capturable = False

    def __init__(self, buffers: Mapping[str, wp.array]) -> None:
        first = next(iter(buffers.values()))
        self.device = str(first.device)
        self.uploads: dict[str, int] = {}
        self.route: Sequence[tuple[float, float]] = ()
        self.step_times: list[int] = []
        """When each step was asked for [ns]."""
        self._frames = [Frame(name, "camera", -1, 0.0, Stamps(), {"color": image}) for name, image in buffers.items()]
        self._state = SimState()

    def open(self, scene: Path | str) -> SimState:
        """Returns the first state; there is no scene."""
        return self._state

    def step(self, command: Command | None) -> SimState:
        """Lets simulated time pass, and notes when."""
        self.step_times.append(now_ns())
        self._state.step += 1
        self._state.sim_time = self._state.step * STEP
        return self._state

    def sense(self) -> Sequence[Frame]:
        """Returns all frames, as due now."""
        now = now_ns()
        for frame in self._frames:
            frame.sequence += 1
            frame.sim_time = self._state.sim_time
            frame.stamps.sim_state = frame.stamps.sensed = now
        return self._frames

    def ground_truth(self, frame: Frame) -> GroundTruth:
        """Returns nothing: these pictures show no scene."""
        return GroundTruth()

    def due(self) -> Sequence[Frame]:
        """Not offered: see :attr:`capturable`."""
        raise NotImplementedError("frames that lie in buffers are not sensed")

    def prepare(self, frames: Sequence[Frame]) -> None:
        """Not offered: see :attr:`capturable`."""
        raise NotImplementedError("frames that lie in buffers are not sensed")

    def record_state(self, stream: Any) -> None:
        """Not offered: see :attr:`capturable`."""
        raise NotImplementedError("frames that lie in buffers are not sensed")

    def record_sense(self, frames: Sequence[Frame], stream: Any) -> None:
        """Not offered: see :attr:`capturable`."""
        raise NotImplementedError("frames that lie in buffers are not sensed")

    def facts(self) -> dict[str, Any]:
        """Returns the little that there is to say."""
        return {"name": self.name, "device": self.device}

    def close(self) -> None:
        """Does nothing."""


class OutputTap:
    """Brings a network's small outputs to pinned host memory as part of every frame.

    What a network without a decoder says would otherwise stay on the device: the results that are timed are on the
    host.
    """

    name = "outputs to host"
    after = "inference"

    def __init__(self, network: Network) -> None:
        self._pairs = [
            (wp.empty(array.shape, dtype=array.dtype, device="cpu", pinned=array.device.is_cuda), array)
            for array in network.outputs.values()
            if array.capacity <= SMALL_OUTPUT
        ]

    def record(self, frames: Sequence[Frame], stream: Any) -> None:
        """Launches the copies; see :class:`saccade.execution.FrameStage`."""
        for host, array in self._pairs:
            wp.copy(host, array)


def camera_configs(count: int = 1) -> dict[str, CameraConfig]:
    """Returns the configuration of cameras ``camera_0``, ``camera_1``, ..."""
    return {
        f"camera_{number}": CameraConfig(kind="camera", prim="none", width=WIDTH, height=HEIGHT, outputs=["color"])
        for number in range(count)
    }


def buffers_for(cameras: Sequence[str], *, device: str) -> dict[str, wp.array]:
    """Returns a resident picture for each camera, each another one."""
    return {name: wp.array(picture(seed), dtype=wp.uint32, device=device) for seed, name in enumerate(cameras)}


def picture(seed: int = 0) -> np.ndarray:
    """Returns a picture with smooth shades and some edges, packed RGBA, shape ``(HEIGHT, WIDTH)``, uint32."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    channels = []
    for _ in range(3):
        across, down, phase = generator.uniform(1, 4), generator.uniform(1, 4), generator.uniform(0, 2 * np.pi)
        channels.append(127 + 90 * np.sin(2 * np.pi * (across * x / WIDTH + down * y / HEIGHT) + phase))
    image = np.stack(channels, axis=-1)
    for _ in range(8):
        top, left = int(generator.integers(0, HEIGHT - 80)), int(generator.integers(0, WIDTH - 80))
        image[top : top + 80, left : left + 80] = generator.uniform(0, 255, 3)
    pixels = np.clip(np.round(image), 0, 255).astype(np.uint32)
    packed = pixels[..., 0] | pixels[..., 1] << 8 | pixels[..., 2] << 16 | np.uint32(255) << np.uint32(24)
    return np.ascontiguousarray(packed.astype(np.uint32))
