"""RunPublisher: what a run publishes, as an observer of the loop that copies and hands over, nothing more."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.bridge import contents, names
from saccade.bridge.bridge import Bridge, Topic
from saccade.bridge.copies import CopySender
from saccade.bridge.results import IMAGE, ResultTopics
from saccade.config import CameraConfig, LidarConfig, RunConfig
from saccade.frame import Frame, SimState, now_ns

if TYPE_CHECKING:
    from saccade.loop import Tick

DIAGNOSTICS_PERIOD = 1.0
"""[s] of wall time."""
SENSOR_OUTPUTS = {"color": "image_raw", "depth": "depth", "points": "points", "ranges": "scan"}
"""A sensor's buffers and the last part of their topics."""


class RunPublisher:
    """Publishes each decision of a run; called by the loop after it, outside the latency that is measured.

    Buffers are copied into slots that are allocated with a sensor's first frame and come back when their message has
    gone. A topic that nobody listens to costs one comparison.

    Args:
        bridge: The node.
        config: The run.
        intrinsics: Of each camera, by sensor, as the simulator reports them.
        stamps: Whether handing over counts as the frames' ``published``.
        report_robot: Has the simulator fill joints and sensor poses of its state, copying with what it is given;
            ``None`` where it cannot.
    """

    def __init__(
        self,
        bridge: Bridge,
        config: RunConfig,
        *,
        intrinsics: Mapping[str, Mapping[str, Any]],
        stamps: bool = True,
        report_robot: Callable[[Callable[[Any, Any], None]], None] | None = None,
    ) -> None:
        self._bridge = bridge
        self._stamps = stamps
        self._report_robot = report_robot
        self._sim_ns = 0
        bridge.clock = lambda: self._sim_ns
        self._config = config
        self._intrinsics = intrinsics
        self._copies = CopySender()
        self._last_diagnostics = 0.0
        self.tap = self._copies.tap
        """What left a GPU to be published."""
        self._robot_copies = self.tap.copies()
        self.handover_ms: list[float] = []
        """Time that each call took [ms]."""
        advertise = bridge.advertise
        self._left_to_others: dict[str, list[str]] = {}
        self._clock = self._unless_others("/clock", "rosgraph_msgs/msg/Clock", "clock")
        self._tf = self._unless_others("/tf", "tf2_msgs/msg/TFMessage", "default")
        self._tf_static = self._unless_others("/tf_static", "tf2_msgs/msg/TFMessage", "latched")
        self._odometry = advertise("/odom", "nav_msgs/msg/Odometry")
        self._joints = (
            self._unless_others("/joint_states", "sensor_msgs/msg/JointState", "default") if report_robot else None
        )
        self._diagnostics = advertise("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")
        self._verdict = advertise("~/verdict", "std_msgs/msg/String", preset="latched")
        self._sensors = {name: self._sensor_topics(name) for name in config.sensors}
        self._results = ResultTopics(bridge, config, self._copies)
        cameras = {
            names.token(name): optical_frame(name)
            for name, sensor in config.sensors.items()
            if isinstance(sensor, CameraConfig)
        }
        if self._tf_static is not None and cameras:
            self._tf_static.publish(partial(contents.optical_transforms, cameras))

    def __call__(self, tick: Tick) -> None:
        """Hands one decision over."""
        start = time.perf_counter()
        state = tick.state
        sim_time = state.sim_time
        self._sim_ns = round(sim_time * 1e9)
        if self._clock is not None and self._clock.wanted:
            self._clock.publish(lambda: contents.new("rosgraph_msgs/msg/Clock", clock=contents.time_message(sim_time)))
        if self._odometry.wanted:
            # The simulator's state changes with its next step; what is in it does not.
            self._odometry.publish(partial(contents.odometry, copy.copy(state)))
        self._publish_robot(state)
        for frame in tick.frames:
            self._publish_sensor(frame)
            for result in tick.results.get(frame.sensor, ()):
                frame_id = frame_of(frame.sensor, self._config.sensors[frame.sensor])
                self._results.publish(result, frame.stamps, stamp=frame.sim_time, frame_id=frame_id)
            if self._stamps:
                frame.stamps.published = now_ns()
        if self._diagnostics.wanted and start - self._last_diagnostics >= DIAGNOSTICS_PERIOD:
            self._last_diagnostics = start
            self._publish_diagnostics(tick)
        self.handover_ms.append((time.perf_counter() - start) * 1e3)

    def verdict(self, summary: Mapping[str, Any]) -> None:
        """Publishes the verdict, latched, as JSON: ``verdict``, ``reasons`` and ``run``."""
        kept = {key: summary.get(key) for key in ("verdict", "reasons", "name", "exit_status") if key in summary}
        text = json.dumps(kept)
        self._verdict.publish(lambda: contents.new("std_msgs/msg/String", data=text))

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say."""
        return {
            **self._bridge.facts(),
            "left_to_others": self._left_to_others,
            "handover_ms": self.handover_facts(),
        }

    def handover_facts(self) -> dict[str, Any]:
        """Returns ``median``, ``max`` [ms] and ``n`` of what decisions cost on the loop."""
        handover = np.array(self.handover_ms or [0.0])
        return {"median": float(np.median(handover)), "max": float(handover.max()), "n": len(self.handover_ms)}

    def _publish_robot(self, state: SimState) -> None:
        tf = self._tf if self._tf is not None and self._tf.wanted else None
        joints = self._joints if self._joints is not None and self._joints.wanted else None
        if self._report_robot is not None and (tf is not None or joints is not None):
            self._report_robot(self._copy_now)
            if joints is not None and state.joint_positions is not None and state.joint_velocities is not None:
                values = (state.joint_positions.copy(), state.joint_velocities.copy())
                joints.publish(partial(contents.joint_state, state.sim_time, state.joint_names, *values))
        if tf is not None:
            tf.publish(partial(contents.transforms, state.sim_time, contents.robot_links(state)))

    def _copy_now(self, target: Any, source: Any) -> None:
        """Copies a few numbers that are read at once; waits for them."""
        self._robot_copies.copy(target, source)
        self._robot_copies.launched()
        self._robot_copies.wait()

    def _publish_sensor(self, frame: Frame) -> None:
        sim_time = frame.sim_time
        config = self._config.sensors[frame.sensor]
        topics = self._sensors[frame.sensor]
        frame_id = frame_of(frame.sensor, config)
        info = topics.get("camera_info")
        intrinsics = self._intrinsics.get(frame.sensor)
        if info is not None and intrinsics is not None and info.wanted:
            info.publish(partial(contents.camera_info, sim_time, frame_id, intrinsics))
        if isinstance(config, CameraConfig):
            self._copied(topics.get("color"), frame, ("color",), partial(contents.color_image, sim_time, frame_id))
            self._copied(topics.get("depth"), frame, ("depth",), partial(contents.depth_image, sim_time, frame_id))
            return
        make = partial(contents.point_cloud, sim_time, frame_id)
        self._copied(topics.get("points"), frame, ("points", "intensity"), make)
        limits = (config.range_min, config.range_max)
        make = partial(contents.laser_scan, sim_time, frame_id, limits=limits)
        self._copied(topics.get("ranges"), frame, ("ranges", "intensity"), make)

    def _publish_diagnostics(self, tick: Tick) -> None:
        frame = tick.frames[0]
        stamps = frame.stamps
        latency_ms = (stamps.decided - stamps.sim_state) * 1e-6
        stages: dict[str, Any] = {
            "latency_ms": latency_ms,
            "inference_ms": (stamps.on_host - stamps.handed_over) * 1e-6 if stamps.on_host else 0.0,
            "dropped": sum(one.dropped for one in tick.frames),
            "tick": tick.index,
            "phase": tick.phase,
            "command": f"{tick.command.source} {tick.command.reason}",
        }
        late = latency_ms > self._config.run.deadline_ms
        loop = (contents.WARN if late else contents.OK, "saccade: loop", "late" if late else "on time", stages)
        sim_time = tick.state.sim_time

        def make() -> Any:
            lost = {
                name: counts["dropped"] for name, counts in self._bridge.counters().items() if counts.get("dropped")
            }
            problems = self._bridge.problems()
            level = contents.WARN if lost or problems else contents.OK
            text = problems[0] if problems else "messages dropped" if lost else "nothing lost"
            return contents.diagnostics(sim_time, [loop, (level, "saccade: bridge", text, lost)])

        self._diagnostics.publish(make)

    def _copied(self, topic: Topic | None, frame: Frame, buffers: tuple[str, ...], make: Callable[..., Any]) -> None:
        if topic is None or not topic.wanted or any(name not in frame.buffers for name in buffers):
            return
        self._copies.send(topic, {name: frame.buffers[name] for name in buffers}, make)

    def _unless_others(self, name: str, type_name: str, preset: str) -> Topic | None:
        others = self._bridge.published_by_others(name)
        if others:
            self._left_to_others[name] = others
            return None
        return self._bridge.advertise(name, type_name, preset=preset)

    def _sensor_topics(self, name: str) -> dict[str, Topic]:
        config = self._config.sensors[name]
        base = f"/{names.token(name)}"
        topics: dict[str, Topic] = {}
        if isinstance(config, CameraConfig):
            topics["camera_info"] = self._bridge.advertise(f"{base}/camera_info", "sensor_msgs/msg/CameraInfo")
        if not self._config.ros2.images:
            return topics
        for output in config.outputs:
            if output not in SENSOR_OUTPUTS or (output == "ranges" and config.channels != 1):  # type: ignore[union-attr]
                continue
            kind = IMAGE if isinstance(config, CameraConfig) else "sensor_msgs/msg/PointCloud2"
            if output == "ranges":
                kind = "sensor_msgs/msg/LaserScan"
            topics[output] = self._bridge.advertise(f"{base}/{SENSOR_OUTPUTS[output]}", kind, preset="reliable_sensor")
        return topics


def optical_frame(sensor: str) -> str:
    """Returns the frame of a camera's images: z forward, x right, y down (REP-103)."""
    return f"{names.token(sensor)}_optical_frame"


def frame_of(sensor: str, config: CameraConfig | LidarConfig) -> str:
    """Returns the frame that a sensor's messages are in."""
    return optical_frame(sensor) if isinstance(config, CameraConfig) else names.token(sensor)
