"""NodeSource: messages put into buffers that stay where they are, as a simulator's sensors would have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import warp as wp

from saccade.bridge.inputs import color_from_image, points_from_cloud
from saccade.bridge.messages import MessageError
from saccade.config import CameraConfig, SensorConfig
from saccade.frame import Frame, Stamps, now_ns

LEAST_POINTS = 1024
MOST_POINTS = 2**22
MOST_SHAPES = 8
"""Sizes that one sensor's messages may have, one after the other: each keeps its buffers."""


class NodeSource:
    """Turns messages into frames; what an execution needs of a :class:`saccade.simulators.base.Simulator`.

    Args:
        sensors: The configured sensors.
        device: Warp device of the buffers.
        depth_max: Depth that counts as white [m], see :func:`saccade.bridge.inputs.color_from_image`.
    """

    name = "ros2"
    acts = False
    capturable = False

    def __init__(self, sensors: Mapping[str, SensorConfig], *, device: str, depth_max: float | None = None) -> None:
        self.device = device
        self._sensors = sensors
        self._depth_max = depth_max
        self._buffers: dict[str, dict[tuple[int, ...], dict[str, _Buffer]]] = {name: {} for name in sensors}
        self._sequences = dict.fromkeys(sensors, 0)
        self.uploads: dict[str, int] = {}
        """Bytes per frame that are copied to a GPU, by sensor."""

    def frame(self, sensor: str, message: Any, captured_ns: int) -> Frame:
        """Returns the frame of a message; its buffers are valid until the sensor's next one of the same size.

        Args:
            sensor: Name in the configuration.
            message: sensor_msgs/Image for a camera, sensor_msgs/PointCloud2 for a LiDAR.
            captured_ns: When it was received [ns].

        Raises:
            MessageError: The message is not usable; the text says why.
        """
        arrays: Mapping[str, np.ndarray]
        if isinstance(self._sensors[sensor], CameraConfig):
            arrays = {"color": color_from_image(message, depth_max=self._depth_max)}
            kind = "camera"
        else:
            arrays = _padded(*points_from_cloud(message))
            kind = "lidar"
        buffers = self._filled(sensor, arrays)
        stamp = message.header.stamp
        frame = Frame(sensor, kind, self._sequences[sensor], stamp.sec + stamp.nanosec * 1e-9, Stamps(), buffers)
        self._sequences[sensor] += 1
        frame.stamps.sim_state, frame.stamps.sensed = captured_ns, now_ns()
        return frame

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say."""
        return {"sensors": {name: {"kind": sensor.kind} for name, sensor in self._sensors.items()}}

    def _filled(self, sensor: str, arrays: Mapping[str, np.ndarray]) -> dict[str, wp.array]:
        known = self._buffers[sensor]
        shape = next(iter(arrays.values())).shape
        if shape not in known:
            if len(known) >= MOST_SHAPES:
                raise MessageError(
                    f"{sensor}: messages of a {MOST_SHAPES + 1}th size, {shape}: a node keeps buffers for {MOST_SHAPES}"
                )
            known[shape] = {name: _Buffer(name, array, self.device) for name, array in arrays.items()}
        for name, array in arrays.items():
            known[shape][name].fill(array)
        if self.device != "cpu":
            self.uploads[f"{sensor}.message"] = sum(array.nbytes for array in arrays.values())
        return {name: buffer.array for name, buffer in known[shape].items()}


class _Buffer:
    """One buffer of a sensor; on a GPU with pinned memory before it, from which the upload does not hold the host.

    The next message comes when the results of this one are on the host: the upload has been done by then.
    """

    def __init__(self, name: str, like: np.ndarray, device: str) -> None:
        shape = like.shape[:1] if name == "points" else like.shape
        kind = wp.vec3f if name == "points" else wp.dtype_from_numpy(like.dtype)
        self.array = wp.zeros(shape, dtype=kind, device=device)
        pinned = self.array.device.is_cuda
        self._host = wp.empty(shape, dtype=kind, device="cpu", pinned=True) if pinned else self.array
        self._view = self._host.numpy()

    def fill(self, values: np.ndarray) -> None:
        """Puts ``values`` into it, in order on the device's stream."""
        np.copyto(self._view, values)
        if self._host is not self.array:
            wp.copy(self.array, self._host)


def _padded(points: np.ndarray, intensity: np.ndarray) -> Mapping[str, np.ndarray]:
    """Points and intensities with the origin, which is no return, up to a power of two: few sizes, few buffers."""
    count = len(points)
    if count > MOST_POINTS:
        raise MessageError(f"point cloud of {count} points: a node takes up to {MOST_POINTS}")
    capacity = max(LEAST_POINTS, 1 << (count - 1).bit_length()) if count else LEAST_POINTS
    room = np.zeros((capacity, 3), np.float32)
    room[:count] = points
    strength = np.zeros(capacity, np.float32)
    strength[:count] = intensity
    return {"points": room, "intensity": strength}


def warm_up(source: NodeSource, execution: Any, sensors: Sequence[str]) -> None:
    """Runs every network once on black images and empty clouds, so that no message waits for a kernel to compile."""
    for name in sensors:
        config = source._sensors[name]
        if isinstance(config, CameraConfig):
            arrays: Mapping[str, np.ndarray] = {"color": np.zeros((config.height, config.width, 3), np.uint8)}
        else:
            arrays = _padded(np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
        frame = Frame(name, config.kind, 0, 0.0, Stamps(), source._filled(name, arrays))
        execution.infer([frame])
