"""BagReplaySimulator: frames out of a ROS 2 bag, of a simulated or a real robot, through the whole loop."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from saccade.bridge import messages, names
from saccade.bridge.bag_reader import BagMessage, BagReader, stamp_ns
from saccade.bridge.inputs import color_from_image, depth_from_image, points_from_cloud
from saccade.bridge.messages import MessageError
from saccade.config import CameraConfig, LidarConfig, RunConfig
from saccade.errors import RecordError
from saccade.frame import Frame, GroundTruth, SimState, Stamps
from saccade.simulators.replay import ReplaySimulator

IMAGE = "sensor_msgs/msg/Image"
CLOUD = "sensor_msgs/msg/PointCloud2"
ODOMETRY = "nav_msgs/msg/Odometry"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
ODOMETRY_TOPIC = "/odom"
NO_TRUTH = "a bag holds no ground truth"
NO_POSE = f"the bag has no {ODOMETRY_TOPIC}"
BY_TRUTH = ("camera_miou", "lidar_miou", "hazard_recall", "hazard_auroc", "clearance_error_m", "contacts")
"""Budgets that need ground truth."""
RATE_TOLERANCE = 0.25
"""Share by which a sensor's median period may differ from the configured one."""
TOLD_EVERY = 500
"""Messages between two words of progress."""


class BagReplaySimulator(ReplaySimulator):
    """Delivers the images and clouds of a bag in the order of their recording.

    Sensor ``NAME`` is read from ``/NAME/image_raw`` (and ``/NAME/depth``, where each image has a depth image of its
    stamp) or ``/NAME/points``, before ``ros2.namespace`` and ``ros2.remap``: what :mod:`saccade.bridge` publishes and
    records, and by remapping any other bag. Messages of different sensors that were recorded within half a
    ``simulator.step`` make one decision. A frame's time is its message's stamp, or its time of recording where the
    stamps are not set. The pose comes from ``/odom``, the intrinsics from ``/NAME/camera_info``, where there are such.

    There is no ground truth: accuracy and contacts are not judged, and the facts' ``unjudged`` says so.

    Args:
        config: The run; sizes and rates of its sensors must be those of the bag.
        recording: The bag.
        device: Warp device of the buffers.
        progress: Called with what is being done while the bag is looked through.
    """

    def __init__(
        self,
        config: RunConfig,
        recording: Path | str,
        device: str,
        *,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(config, recording, device)
        self._progress = progress or (lambda text: None)
        self._reader: BagReader | None = None

    def open(self, scene: Path | str) -> SimState:
        """Looks the bag through and returns the state of its first decision; the scene is not needed.

        Raises:
            RecordError: There is no such bag, it is damaged, or it lacks what the configuration needs.
            DependencyError: rosbags is not installed.
        """
        self.close()
        self._reader = reader = BagReader(self._directory)
        try:
            return self._opened(reader)
        except BaseException:
            self.close()
            raise

    def _opened(self, reader: BagReader) -> SimState:
        self._topics = self._required_topics(reader)
        index = self._looked_through(reader)
        self._manifest = {"state": "complete"}
        self._run = {}
        self._step_s = self._config.simulator.step
        self._ticks = _decisions(index, self._step_s)
        self._has_pose = bool(index.odometry)
        self._intrinsics = index.intrinsics
        self._check_rates(index)
        self._check_length()
        self._left_out = index.without_depth
        used = [topic for sensor, topics in self._topics.items() for topic in topics.values()]
        used = [topic for topic in used if topic not in self._left_out]
        stream = _Stream(reader, used)
        self._channels = {
            name: _BagChannel(
                name,
                self._config.sensors[name],
                {buffer: topic for buffer, topic in self._topics[name].items() if topic in used},
                stream,
                self.device,
            )
            for name in self._config.sensors
        }
        self._contacts = []
        self._begin()
        return self._state

    def facts(self) -> dict[str, Any]:
        """Returns what was replayed, and what cannot be judged by it."""
        if self._reader is None:
            return {"name": self.name, "device": self.device}
        unjudged = dict.fromkeys(BY_TRUTH, NO_TRUTH)
        if not self._has_pose:
            unjudged["distance_m"] = NO_POSE
        return {
            "name": self.name,
            "device": self.device,
            "recorded_name": "bag",
            "recording": str(self._reader.path),
            "recording_state": self._manifest.get("state"),
            "recording_decisions": len(self._ticks),
            "topics": self._topics,
            "left_out": self._left_out,
            "ground_truth": NO_TRUTH,
            "unjudged": unjudged,
            "sensors": {
                name: {
                    "kind": sensor.kind,
                    "rate_hz": sensor.rate,
                    **({"intrinsics": self._intrinsics[name]} if name in self._intrinsics else {}),
                }
                for name, sensor in self._config.sensors.items()
            },
        }

    def close(self) -> None:
        """Frees the buffers and the bag; safe to call twice."""
        super().close()
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _resolved(self, name: str) -> str:
        ros2 = self._config.ros2
        return names.resolve(name, namespace=ros2.namespace, node=ros2.node, remap=ros2.remap)

    def _required_topics(self, reader: BagReader) -> dict[str, dict[str, str]]:
        """Topics by sensor and buffer; fails where one is missing."""
        found: dict[str, dict[str, str]] = {}
        for name, sensor in self._config.sensors.items():
            base = f"/{names.token(name)}"
            camera = isinstance(sensor, CameraConfig)
            buffer, plain = ("color", f"{base}/image_raw") if camera else ("points", f"{base}/points")
            topic = self._resolved(plain)
            remedy = f"say which topic feeds sensor {name!r} with --set ros2.remap='{{{plain}: /TOPIC}}'"
            reader.require(topic, IMAGE if camera else CLOUD, remedy=remedy)
            found[name] = {buffer: topic}
            depth = self._resolved(f"{base}/depth")
            if isinstance(sensor, CameraConfig) and "depth" in sensor.outputs and reader.types.get(depth) == IMAGE:
                found[name]["depth"] = depth
        return found

    def _looked_through(self, reader: BagReader) -> _Index:
        """Reads the headers of all messages that are needed."""
        index = _Index(self._topics)
        odometry = self._resolved(ODOMETRY_TOPIC)
        infos = {self._resolved(f"/{names.token(n)}/camera_info"): n for n in self._config.sensors}
        wanted = {**dict.fromkeys(infos, CAMERA_INFO), odometry: ODOMETRY}
        extra = [topic for topic, kind in wanted.items() if reader.types.get(topic) == kind]
        self._progress("looking the bag through")
        total = sum(reader.counts[topic] for topic in (*index.owners, *extra))
        for number, found in enumerate(reader.messages([*index.owners, *extra])):
            if number % TOLD_EVERY == TOLD_EVERY - 1:
                self._progress(f"looking the bag through: {number + 1} of {total} messages")
            message = _decoded(reader, found)
            if found.topic == odometry:
                index.odometry.append((found.time_ns, _pose(message)))
            elif found.topic in infos:
                index.intrinsics.setdefault(infos[found.topic], _intrinsics(message))
            else:
                sensor = index.owners[found.topic]
                self._check_size(sensor, found.topic, message)
                index.add(found.topic, found.time_ns, stamp_ns(message))
        return index

    def _check_size(self, sensor: str, topic: str, message: Any) -> None:
        config = self._config.sensors[sensor]
        if isinstance(config, CameraConfig) and (message.width, message.height) != (config.width, config.height):
            raise RecordError(
                f"{self._directory}: {topic} has images of {message.width}x{message.height}, and sensor {sensor!r} is "
                f"configured with {config.width}x{config.height}: --set sensors.{sensor}.width={message.width} "
                f"--set sensors.{sensor}.height={message.height}"
            )

    def _check_rates(self, index: _Index) -> None:
        for name, sensor in self._config.sensors.items():
            times = index.times(next(iter(self._topics[name].values())))
            if len(times) < 2:
                continue
            period = float(np.median(np.diff(times)))
            if not abs(period * sensor.rate - 1) <= RATE_TOLERANCE:
                rate = 1 / period if period > 0 else math.inf
                raise RecordError(
                    f"{self._directory}: sensor {name!r} was recorded at {rate:.3g} Hz, and sensors.{name}.rate asks "
                    f"for {sensor.rate:g} Hz: --set sensors.{name}.rate={rate:.3g}"
                )


class _Index:
    """Times of the messages of each topic, in the order of recording."""

    def __init__(self, topics: Mapping[str, Mapping[str, str]]) -> None:
        self.owners = {topic: sensor for sensor, of in topics.items() for topic in of.values()}
        self.primary = {sensor: next(iter(of.values())) for sensor, of in topics.items()}
        self._depth = {sensor: of["depth"] for sensor, of in topics.items() if "depth" in of}
        self.recorded: list[tuple[int, str, int]] = []
        """Time of recording [ns], sensor and row of the messages that make frames."""
        self.odometry: list[tuple[int, dict[str, Any]]] = []
        self.intrinsics: dict[str, dict[str, Any]] = {}
        self._stamps: dict[str, list[tuple[int, int]]] = {topic: [] for topic in self.owners}

    def add(self, topic: str, time_ns: int, stamp: int) -> None:
        """Takes in one message."""
        sensor = self.owners[topic]
        if topic == self.primary[sensor]:
            self.recorded.append((time_ns, sensor, len(self._stamps[topic])))
        self._stamps[topic].append((time_ns, stamp))

    def times(self, topic: str) -> list[float]:
        """Returns each message's stamp [s], or time of recording where one of them has no stamp."""
        entries = self._stamps[topic]
        # A simulation's first stamp is 0.
        stamped = all(stamp for _, stamp in entries[1:]) if len(entries) > 1 else bool(entries[0][1])
        return [(stamp if stamped else time_ns) * 1e-9 for time_ns, stamp in entries]

    @property
    def without_depth(self) -> dict[str, str]:
        """Depth topics that cannot be used, and why."""
        found = {}
        for sensor, topic in self._depth.items():
            color = [stamp for _, stamp in self._stamps[self.primary[sensor]]]
            depth = [stamp for _, stamp in self._stamps[topic]]
            if color != depth:
                found[topic] = (
                    f"its {len(depth)} messages do not have the stamps of the {len(color)} images, one by one"
                )
        return found


def _decisions(index: _Index, step: float) -> list[dict[str, Any]]:
    """Puts messages that were recorded together into decisions, as the index of a recorded run has them."""
    times = {sensor: index.times(topic) for sensor, topic in index.primary.items()}
    odometry_ns = [time_ns for time_ns, _ in index.odometry]
    travelled = _travelled([pose for _, pose in index.odometry])
    together_ns = round(step * 0.5e9)
    groups: list[list[tuple[int, str, int]]] = []
    for entry in index.recorded:
        group = groups[-1] if groups else []
        if group and entry[0] - group[0][0] <= together_ns and entry[1] not in {sensor for _, sensor, _ in group}:
            group.append(entry)
        else:
            groups.append([entry])
    order = list(index.primary)
    decisions: list[dict[str, Any]] = []
    newest = -math.inf
    for tick, group in enumerate(groups):
        newest = max(newest, *(times[sensor][row] for _, sensor, row in group))
        at = bisect_right(odometry_ns, max(time_ns for time_ns, _, _ in group)) - 1
        pose = index.odometry[max(at, 0)][1] if index.odometry else _pose(None)
        state = {**pose, "sim_time": newest, "step": tick, "distance": travelled[max(at, 0)] if travelled else 0.0}
        frames = [
            {
                "sensor": sensor,
                "sequence": row,
                "sim_time": times[sensor][row],
                "dropped": 0,
                "row": row,
                "crc32": 0,
                "truth": {"labels": False, "hazard": None, "clearance": None},
            }
            for _, sensor, row in sorted(group, key=lambda entry: order.index(entry[1]))
        ]
        decisions.append({"tick": tick, "state": state, "frames": frames})
    return decisions


def _travelled(poses: list[dict[str, Any]]) -> list[float]:
    found, total = [], 0.0
    for before, after in zip([*poses[:1], *poses], poses, strict=False):
        total += math.dist(before["position"][:2], after["position"][:2])
        found.append(total)
    return found


def _pose(message: Any) -> dict[str, Any]:
    """Position, heading and velocity of an odometry message; ``None`` = at the origin, at rest."""
    if message is None:
        return {"position": [0.0, 0.0, 0.0], "yaw": 0.0, "velocity": [0.0, 0.0], "yaw_rate": 0.0}
    pose, twist = message.pose.pose, message.twist.twist
    q = pose.orientation
    yaw = math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y**2 + q.z**2))
    return {
        "position": [float(pose.position.x), float(pose.position.y), float(pose.position.z)],
        "yaw": yaw,
        "velocity": [float(twist.linear.x), float(twist.linear.y)],
        "yaw_rate": float(twist.angular.z),
    }


def _intrinsics(message: Any) -> dict[str, Any]:
    """Of a calibration; ROS 2 has the top left pixel's centre at (0, 0), this project at (0.5, 0.5)."""
    k = message.k
    return {
        "fx": float(k[0]),
        "fy": float(k[4]),
        "cx": float(k[2]) + 0.5,
        "cy": float(k[5]) + 0.5,
        "width": int(message.width),
        "height": int(message.height),
    }


def _decoded(reader: BagReader, found: BagMessage) -> Any:
    try:
        return messages.decode(bytes(found.data), found.type_name)
    except MessageError as error:
        raise RecordError(f"{reader.path}: {found.topic} at {found.time_ns * 1e-9:.3f} s: {error}") from error


class _Stream:
    """The bag once more, message by message; those that are not wanted yet wait."""

    def __init__(self, reader: BagReader, topics: list[str]) -> None:
        self._reader = reader
        self._messages: Iterator[BagMessage] = reader.messages(topics)
        self._waiting: dict[str, deque[BagMessage]] = {topic: deque() for topic in topics}
        self._taken = dict.fromkeys(topics, 0)

    def take(self, topic: str, row: int) -> Any:
        """Returns message ``row`` of a topic, decoded; rows only ever rise."""
        waiting = self._waiting[topic]
        while True:
            while not waiting:
                found = next(self._messages, None)
                if found is None:
                    raise RecordError(f"{self._reader.path}: message {row} of {topic} is gone: the bag was changed")
                self._waiting[found.topic].append(found)
            found = waiting.popleft()
            self._taken[topic] += 1
            if self._taken[topic] > row:
                return _decoded(self._reader, found)


class _BagChannel:
    """One sensor's buffers, allocated once and filled from its messages."""

    def __init__(
        self,
        name: str,
        config: CameraConfig | LidarConfig,
        topics: Mapping[str, str],
        stream: _Stream,
        device: str,
    ) -> None:
        self._name, self._config, self._topics, self._stream = name, config, topics, stream
        self._organised: bool | None = None
        if isinstance(config, CameraConfig):
            shape = (config.height, config.width)
            kinds: dict[str, Any] = {"color": wp.uint32, "depth": wp.float32}
            kinds = {buffer: kind for buffer, kind in kinds.items() if buffer in topics}
        else:
            shape = (config.channels, config.columns)
            kinds = {"ranges": wp.float32, "intensity": wp.float32, "points": wp.vec3f}
        self.arrays = {buffer: wp.zeros(shape, dtype=kind, device=device) for buffer, kind in kinds.items()}
        self._staging = {
            buffer: wp.zeros(shape, dtype=array.dtype, device="cpu", pinned=True) if array.device.is_cuda else array
            for buffer, array in self.arrays.items()
        }
        self._views = {buffer: array.numpy() for buffer, array in self._staging.items()}
        self.frame = Frame(name, config.kind, 0, 0.0, Stamps(), dict(self.arrays))

    @property
    def size(self) -> int:
        """Bytes of one sample of all buffers."""
        return sum(view.nbytes for view in self._views.values())

    def load(self, row: int, checksum: int) -> None:
        """Reads one sample into the arrays.

        Raises:
            RecordError: A message cannot be used; the text says which and why.
        """
        for buffer, topic in self._topics.items():
            message = self._stream.take(topic, row)
            try:
                self._fill(buffer, message)
            except MessageError as error:
                raise RecordError(f"message {row} of {topic} (sensor {self._name!r}): {error}") from error
        device = self.frame.buffers[next(iter(self.arrays))].device
        if device.is_cuda:
            for buffer, array in self.arrays.items():
                wp.copy(array, self._staging[buffer])
            # The staging arrays are filled again by the next sample.
            wp.synchronize_stream(device.stream)

    def truth_of(self, entry: dict[str, Any]) -> GroundTruth:
        """Returns that nothing is known."""
        return GroundTruth()

    def _fill(self, buffer: str, message: Any) -> None:
        views = self._views
        if buffer == "color":
            packed = views["color"].view(np.uint8).reshape(*views["color"].shape, 4)
            packed[:, :, :3] = color_from_image(message)
            packed[:, :, 3] = 255
        elif buffer == "depth":
            np.copyto(views["depth"], depth_from_image(message))
        else:
            self._fill_points(*points_from_cloud(message), organised=(message.height, message.width))

    def _fill_points(self, points: np.ndarray, intensity: np.ndarray, *, organised: tuple[int, int]) -> None:
        assert isinstance(self._config, LidarConfig)
        views = self._views
        shape = views["ranges"].shape
        ranges = np.sqrt(np.einsum("ij,ij->i", points, points))
        rows, columns, inside = cells_of(points, ranges, self._config)
        if self._organised is None:
            at_home = rows * shape[1] + columns == np.arange(len(points)) if organised == shape else np.zeros(1, bool)
            self._organised = bool(np.all(at_home[inside])) if organised == shape else False
        if self._organised and organised == shape:
            np.copyto(views["points"], points.reshape(*shape, 3))
            np.copyto(views["intensity"], intensity.reshape(shape))
            np.copyto(views["ranges"], ranges.reshape(shape))
            return
        for view in views.values():
            view[:] = 0
        # The nearest of a cell comes last, and stays.
        order = np.flatnonzero(inside)[np.argsort(-ranges[inside], kind="stable")]
        cells = (rows[order], columns[order])
        views["ranges"][cells] = ranges[order]
        views["intensity"][cells] = intensity[order]
        views["points"][cells] = points[order]


def cells_of(points: np.ndarray, ranges: np.ndarray, config: LidarConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns row, column and whether a point lies in the field of view, each of shape ``(n,)``.

    Args:
        points: In the sensor frame [m], shape ``(n, 3)``.
        ranges: Their distances [m], 0 = no return.
        config: Channels from the highest down, columns counter-clockwise from straight ahead.
    """
    lowest, highest = (math.radians(angle) for angle in config.vertical_fov)
    elevation = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))
    if config.channels > 1:
        row = np.rint((highest - elevation) / (highest - lowest) * (config.channels - 1))
    else:
        row = np.zeros(len(points))
    inside = (ranges > 0) & (row >= 0) & (row < config.channels)
    turn = np.arctan2(points[:, 1], points[:, 0]) / (2 * math.pi)
    column = np.rint((turn - np.floor(turn)) * config.columns) % config.columns
    return np.where(inside, row, 0).astype(np.intp), column.astype(np.intp), inside
