"""Doubles for tests of executions, on any Warp device: a simulator that paints by kernels, and an engine of kernels."""

from __future__ import annotations

import numpy as np
import warp as wp
from tests.scripted_simulator import ScriptedSimulator

from saccade.config import EngineConfig, RunConfig
from saccade.engines.base import TensorSpec
from saccade.frame import Frame, Stamps, now_ns
from saccade.network import Network

SIZE = 8
CHANNELS, COLUMNS = 4, 16

APART = 1000
"""What the pictures of neighbouring sensors differ by, counted in samples."""


@wp.kernel(enable_backward=False)
def _paint(number: wp.array(dtype=wp.int32), pose: wp.array(dtype=wp.int32), image: wp.array2d(dtype=wp.uint32)):
    y, x = wp.tid()
    seed = 37 * number[0] + 11 * pose[0] + 5 * x + 3 * y
    red = wp.uint32(seed & 255)
    green = wp.uint32((2 * seed) & 255)
    blue = wp.uint32((3 * seed) & 255)
    image[y, x] = red | (green << wp.uint32(8)) | (blue << wp.uint32(16))


@wp.kernel(enable_backward=False)
def _measure(number: wp.array(dtype=wp.int32), pose: wp.array(dtype=wp.int32), ranges: wp.array2d(dtype=wp.float32)):
    channel, column = wp.tid()
    ranges[channel, column] = 1.0 + 0.25 * float((7 * number[0] + 3 * pose[0] + channel + column) % 50)


@wp.kernel(enable_backward=False)
def _mix(source: wp.array2d(dtype=wp.float32), first: int, output: wp.array2d(dtype=wp.float32)):
    row, k = wp.tid()
    value = source[row, k % source.shape[1]] * (1.0 + float(k % 7))
    if first == 0:
        value = value + output[row, k]
    output[row, k] = value


def colors(number, pose, size=SIZE):
    """What :func:`_paint` gives."""
    y, x = np.mgrid[:size, :size]
    seed = 37 * number + 11 * pose + 5 * x + 3 * y
    channels = [((factor * seed) & 255).astype(np.uint32) for factor in (1, 2, 3)]
    return channels[0] | (channels[1] << 8) | (channels[2] << 16)


class PaintingSimulator(ScriptedSimulator):
    """Sensors whose content follows from sample number and step, painted by kernels, as part of a graph or not.

    As in Newton, :meth:`record_state` brings the scene to the current state: a capture without it replays an old one.

    Args:
        config: Run configuration.
        device: Warp device.
        capturable: Whether sensing can be part of a graph.
        fresh: Whether each call gives new frame objects.
        rotating: Sets of buffers by sensor between which the samples rotate.
    """

    def __init__(self, config, *, device="cpu", capturable=True, fresh=False, rotating=None):
        self.device = device
        self.capturable = capturable
        self.fresh = fresh
        self.numbers = {name: wp.zeros(1, dtype=wp.int32, device=device) for name in config.sensors}
        self.pose = wp.zeros(1, dtype=wp.int32, device=device)
        self.sensed_pose = wp.zeros(1, dtype=wp.int32, device=device)
        super().__init__(config)
        self.sets = {
            name: [self.frames[name], *(self._frame(name, config.sensors[name]) for _ in range(count - 1))]
            for name, count in {**dict.fromkeys(config.sensors, 1), **(rotating or {})}.items()
        }
        self.prepared = 0
        self.recorded = 0

    def _frame(self, name, sensor):
        if sensor.kind == "camera":
            shape = (sensor.height, sensor.width)
            buffers = {"color": wp.zeros(shape, dtype=wp.uint32, device=self.device)}
        else:
            shape = (sensor.channels, sensor.columns)
            buffers = {
                "ranges": wp.zeros(shape, dtype=wp.float32, device=self.device),
                "intensity": wp.full(shape, value=0.5, dtype=wp.float32, device=self.device),
            }
        buffers["labels"] = wp.zeros(shape, dtype=wp.uint8, device=self.device)
        return Frame(name, sensor.kind, 0, 0.0, Stamps(), buffers)

    def due(self):
        due = []
        for name, sensor in self.config.sensors.items():
            newest = int(self.state.sim_time * sensor.rate + 1e-9)
            if newest < self.next_sequence[name]:
                continue
            sets = self.sets[name]
            frame = sets[newest % len(sets)]
            if self.fresh:
                frame = Frame(name, frame.kind, 0, 0.0, Stamps(), frame.buffers)
            frame.dropped = newest - self.next_sequence[name]
            frame.sequence = newest
            frame.sim_time = self.state.sim_time
            self.next_sequence[name] = newest + 1
            frame.stamps.clear()
            frame.stamps.sim_state = self.state_ns
            due.append(frame)
        return due

    def prepare(self, frames):
        self.prepared += 1
        for frame in frames:
            self.numbers[frame.sensor].fill_(frame.sequence + APART * list(self.config.sensors).index(frame.sensor))
        self.pose.fill_(self.state.step)

    def record_state(self, stream):
        wp.copy(self.sensed_pose, self.pose)

    def record_sense(self, frames, stream):
        self.recorded += 1
        for frame in frames:
            kernel, name = (_paint, "color") if frame.kind == "camera" else (_measure, "ranges")
            target = frame.buffers[name]
            inputs = [self.numbers[frame.sensor], self.sensed_pose]
            wp.launch(kernel, target.shape, inputs=inputs, outputs=[target], device=self.device)

    def sense(self):
        due = self.due()
        if due:
            self.prepare(due)
            self.record_state(None)
            self.record_sense(due, None)
            if self.device != "cpu":
                wp.synchronize_device(self.device)
        for frame in due:
            frame.stamps.sensed = now_ns()
        return due


class KernelEngine:
    """An engine whose every output value is a weighted sum of one value of each input, row by row of the batch.

    Args:
        inputs: Shape by name.
        outputs: Shape by name.
        device: Warp device.
    """

    name = "kernels"

    def __init__(self, inputs, outputs, *, device="cpu"):
        self.device = device
        self.inputs = [TensorSpec(name, tuple(shape), "float32") for name, shape in inputs.items()]
        self.outputs = [TensorSpec(name, tuple(shape), "float32") for name, shape in outputs.items()]
        self.bound = {}
        self.enqueued = 0
        self._launches = None

    def bind(self, name, array):
        self.bound[name] = array
        self._launches = None

    def enqueue(self, stream=None):
        self.enqueued += 1
        if self._launches is None:
            self._launches = [
                wp.launch(
                    _mix,
                    rows(self.bound[output.name]).shape,
                    inputs=[rows(self.bound[source.name]), int(source is self.inputs[0])],
                    outputs=[rows(self.bound[output.name])],
                    device=self.device,
                    record_cmd=True,
                )
                for output in self.outputs
                for source in self.inputs
            ]
        for launch in self._launches:
            launch.launch()

    def infer(self, array):
        raise NotImplementedError

    def facts(self):
        return {"engine": self.name}

    def close(self):
        pass


def rows(array):
    """An array as one row of values per image of the batch."""
    return array.reshape((array.shape[0], array.size // array.shape[0]))


def mixed(inputs, size):
    """What :class:`KernelEngine` gives for one output of ``size`` values a row; inputs have shape (batch, ...)."""
    flat = [np.asarray(value, np.float32).reshape(len(value), -1) for value in inputs]
    k = np.arange(size)
    return sum(value[:, k % value.shape[1]] * (1 + k % 7).astype(np.float32) for value in flat)


def configuration(
    *, cameras=("eye",), camera_rate=10.0, lidar_rate=10.0, networks=("camera", "lidar"), frames=10, size=SIZE
):
    """A run with some cameras and a LiDAR, read by ``camera`` (all cameras a batch), ``lidar`` and ``fused``."""
    image = {"kind": "image", "sensor": list(cameras), "mean": [0, 0, 0], "std": [1, 1, 1]}
    ranges = {"kind": "range_image", "sensor": "laser", "range_scale": 0.1}
    known = {
        "camera": ({"image": image}, {"labels": "labels", "hazard": "hazard"}),
        "lidar": ({"ranges": ranges}, {"labels": "labels", "clearance": "clearance"}),
        "fused": ({"image": image, "ranges": ranges}, {"hazard": "hazard"}),
        "swapped": ({"ranges": ranges, "image": image}, {"hazard": "hazard"}),
    }
    camera = {"kind": "camera", "prim": "c", "width": size, "height": size, "rate": camera_rate}
    return RunConfig.model_validate(
        {
            "scene": "none.usda",
            "sensors": {
                **dict.fromkeys(cameras, camera),
                "laser": {"kind": "lidar", "prim": "l", "channels": CHANNELS, "columns": COLUMNS, "rate": lidar_rate},
            },
            "networks": {
                name: {"model": f"{name}.onnx", "inputs": known[name][0], "decoder": known[name][1]}
                for name in networks
            },
            "run": {"frames": frames, "warmup": 0},
        }
    )


def networks_of(config, monkeypatch, *, device="cpu"):
    """The configured networks on :class:`KernelEngine`."""
    made = []
    for name, entry in config.networks.items():
        batch = len(next(iter(entry.inputs.values())).sensors)
        image = next((source for source in entry.inputs.values() if source.kind == "image"), None)
        shapes = {
            tensor: (len(source.sensors), 3, SIZE, SIZE) if source is image else (1, 2, CHANNELS, COLUMNS)
            for tensor, source in entry.inputs.items()
        }
        labels = (SIZE, SIZE) if image is not None else (CHANNELS, COLUMNS)
        known = {"labels": (batch, 6, *labels), "hazard": (batch, 1), "clearance": (batch, 16)}
        outputs = {role: known[role] for role in known if getattr(entry.decoder, role)}
        engine = KernelEngine(shapes, outputs, device=device)
        monkeypatch.setattr("saccade.network.engine_from_onnx", lambda *_, made=engine, **__: made)
        made.append(Network(name, entry, None, sensors=config.sensors, engine=EngineConfig(), device=device))
    return made


def drive(execution, simulator, steps, *, after=lambda frames, results: None):
    """Runs an execution for some steps; returns what was found in plain values, set by set."""
    found = []
    for _ in range(steps):
        frames = execution.sense()
        if frames:
            results = execution.infer(frames)
            found.append(
                {
                    (frame.sensor, frame.sequence): [
                        (
                            result.network,
                            result.hazard,
                            result.clearance,
                            result.finite,
                            None if result.labels is None else result.labels.numpy().tolist(),
                        )
                        for result in results[frame.sensor]
                    ]
                    for frame in frames
                }
            )
            after(frames, results)
            execution.idle()
        simulator.step(None)
    return found
