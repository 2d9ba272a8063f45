"""PerceptionNode: networks on any ROS 2 camera or LiDAR, through the pipeline, without a simulator."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from saccade.bridge import contents
from saccade.bridge.base import Transport, TransportError
from saccade.bridge.bridge import Bridge, Recording
from saccade.bridge.copies import CopySender
from saccade.bridge.messages import MessageError
from saccade.bridge.node_source import NodeSource, warm_up
from saccade.bridge.results import ResultTopics
from saccade.bridge.selection import open_transport
from saccade.config import CameraConfig
from saccade.configuration import LoadedConfiguration
from saccade.delivery import Delivered
from saccade.errors import EngineError
from saccade.execution import execution_for
from saccade.frame import Frame, Result, now_ns
from saccade.network import Network
from saccade.pipeline import Pipeline
from saccade.queueing import Policy
from saccade.simulators.base import Simulator

DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"
BLOCK_DEADLINE_S = 1.0
"""How long the policy ``block`` lets a message wait for room [s]."""
LAST_SENT_S = 2.0
"""How long the end waits for the last messages to be sent [s]."""


@dataclass(frozen=True, slots=True)
class _Message:
    sensor: str
    message: Any
    captured_ns: int


@dataclass(frozen=True, slots=True)
class _Found:
    frame: Frame
    results: list[Result]
    header: Any


class PerceptionNode:
    """Receives sensor messages, runs the networks on them and publishes what they say.

    Open from the start; :meth:`close` finishes what waits. Messages that cannot be used are counted and told in
    ``/diagnostics``, and end nothing.

    Args:
        loaded: Sensors, networks, engine and ROS 2 settings.
        topics: Topic by sensor.
        queue: Most messages that may wait.
        policy: What gives way when they do.
        depth_max: Depth that counts as white [m] where a camera's topic is depth; ``None`` refuses depth.
        subscribed: Whether to listen to the topics; :meth:`submit` works either way.
        transport: An opened node; ``None`` opens the configured one.
        recording: Takes every message that is sent.
        on_result: Called after each result or error, on the pipeline's thread.
        say: Told what is loaded.

    Raises:
        DependencyError: What the transport or engine needs is not there.
        ModelError: A network cannot be used.
        EngineError: The middleware could not start.
    """

    def __init__(
        self,
        loaded: LoadedConfiguration,
        *,
        topics: Mapping[str, str],
        queue: int = 2,
        policy: Policy = "drop_oldest",
        depth_max: float | None = None,
        subscribed: bool = True,
        transport: Transport | None = None,
        recording: Recording | None = None,
        on_result: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        config = loaded.config
        self._config = config
        self._on_result = on_result
        self._queue = queue
        self._lock = threading.Lock()
        self.received = dict.fromkeys(topics, 0)
        """Messages by sensor that were handed to the pipeline."""
        self.refused = 0
        """Messages that cannot be used."""
        self.refusal: str | None = None
        """Why the last of them cannot."""
        self.failure: str | None = None
        """What the last other error was."""
        device = _device(config.simulator.device)
        self.networks = {
            name: _loaded(name, loaded, device=device, say=say)  # one after the other: builds take all cores
            for name in config.networks
        }
        self._source = NodeSource(config.sensors, device=device, depth_max=depth_max)
        simulator = cast(Simulator, self._source)
        networks = list(self.networks.values())
        if all(network.engine.device == "cpu" for network in networks):
            warm_up(self._source, execution_for(simulator, networks, graph="off"), list(topics))
        self._execution = execution_for(simulator, networks, graph=config.engine.graph)
        self.reason = "given"
        try:
            if transport is None:
                transport, choice = open_transport(config.ros2)
                self.reason = f"{choice.transport}: {choice.reason}"
            self.bridge = Bridge(transport, config.ros2, recording=recording)
            copies = CopySender()
            self._results = ResultTopics(self.bridge, config, copies)
            self._diagnostics = self.bridge.advertise("/diagnostics", DIAGNOSTICS)
            self.pipeline = Pipeline(
                self._process,
                name=config.ros2.node,
                frames=queue,
                policy=policy,
                block_deadline_s=BLOCK_DEADLINE_S,
                deadline_ms=config.run.deadline_ms,
                on_result=self._publish,
            )
            self.topics = {
                sensor: self._subscribe(sensor, topic) if subscribed else self.bridge.resolve(topic)
                for sensor, topic in topics.items()
            }
            """Full topic name by sensor."""
        except TransportError as error:
            if transport is not None:
                transport.close()
            raise EngineError(f"ros2: {error}") from error

    def submit(self, sensor: str, message: Any, *, block: bool | None = None) -> None:
        """Hands a message to the pipeline, as if it had been received.

        Args:
            sensor: Name in the configuration.
            message: sensor_msgs/Image or PointCloud2.
            block: True waits for room instead of dropping.
        """
        captured_ns = now_ns()
        self.received[sensor] += 1
        self.pipeline.submit_frame(_Message(sensor, message, captured_ns), captured_ns=captured_ns, block=block)

    def room(self) -> bool:
        """Returns whether a message given now would have to wait for none other, or the engine is stuck for good."""
        return self.pipeline.counters().frames.in_flight < self._queue or self.pipeline.stuck is not None

    def diagnose(self) -> None:
        """Publishes ``/diagnostics`` if anybody listens; called once a second by the node's owner."""
        if not self._diagnostics.wanted:
            return
        status = self._status()
        problems = self.bridge.problems()
        level, text = (contents.WARN, problems[0]) if problems else (contents.OK, "nothing lost")
        lost = {name: counts["dropped"] for name, counts in self.bridge.counters().items() if counts.get("dropped")}
        statuses = [status, (level, "saccade: bridge", text, lost)]
        self._diagnostics.publish(lambda: contents.diagnostics(time.time(), statuses))

    def summary(self) -> dict[str, Any]:
        """Returns counters and times so far, with what it ran on."""
        return {
            "pipeline": self.pipeline.statistics(),
            "received": dict(self.received),
            "refused": self.refused,
            "refusal": self.refusal,
            "failure": self.failure,
            "engine": {name: network.facts() for name, network in self.networks.items()},
            "ros2": {"chosen": self.reason, **self.bridge.facts()},
            **self._execution.facts(),
        }

    def close(self, *, drain: bool = True, timeout_s: float = 10.0) -> None:
        """Finishes what waits, sends it and leaves ROS 2; safe to call twice.

        Args:
            drain: Runs the networks on what waits; otherwise that is dropped.
            timeout_s: Longest wait for that [s].

        Raises:
            EngineError: A frame is not accounted for, or the engine is stuck.
        """
        try:
            # While messages still arrive: those count as dropped, closed.
            self.pipeline.stop(drain=drain, timeout_s=timeout_s)
        finally:
            self.diagnose()
            self.bridge.close(timeout=LAST_SENT_S)
            for network in self.networks.values():
                network.close()

    def _subscribe(self, sensor: str, topic: str) -> str:
        camera = isinstance(self._config.sensors[sensor], CameraConfig)
        kind = "sensor_msgs/msg/Image" if camera else "sensor_msgs/msg/PointCloud2"
        # Best effort gets messages from every publisher, reliable or not.
        return self.bridge.subscribe(topic, kind, lambda message: self.submit(sensor, message), preset="sensor")

    def _process(self, work: _Message) -> _Found:
        frame = self._source.frame(work.sensor, work.message, work.captured_ns)
        results = self._execution.infer([frame])
        return _Found(frame, results[work.sensor], work.message.header)

    def _publish(self, delivered: Delivered) -> None:
        if isinstance(delivered.error, MessageError):
            with self._lock:
                self.refused += 1
                self.refusal = str(delivered.error)
        elif delivered.error is not None:
            self.failure = f"{type(delivered.error).__name__}: {delivered.error}"
        else:
            found: _Found = delivered.value
            for result in found.results:
                self._results.publish(
                    result,
                    found.frame.stamps,
                    stamp=found.header.stamp,
                    frame_id=found.header.frame_id,
                    value=self._first_value(result),
                )
        self._on_result()

    def _first_value(self, result: Result) -> float | None:
        if result.hazard is not None or result.clearance:
            return None
        first = next(iter(self.networks[result.network].outputs.values()))
        return float(first.flatten()[:1].numpy()[0])

    def _status(self) -> tuple[int, str, str, Mapping[str, Any]]:
        counters = self.pipeline.counters()
        statistics = self.pipeline.statistics()
        latency = statistics["latency_ms"]
        values: dict[str, Any] = {
            "received": counters.frames.produced,
            "processed": counters.frames.consumed,
            "dropped": counters.frames.dropped_total,
            "in_flight": counters.frames.in_flight,
            "refused": self.refused,
            "errors": counters.errors,
            "missed": counters.missed,
            "latency_ms_p50": latency["p50"]["value"],
            "latency_ms_max": latency["max"],
            **{f"engine {name}": network.engine.name for name, network in self.networks.items()},
        }
        if self.pipeline.stuck is not None:
            return contents.ERROR, "saccade: node", "the engine is stuck", values
        if self.failure is not None:
            return contents.ERROR, "saccade: node", self.failure, values
        if self.refusal is not None:
            return contents.WARN, "saccade: node", self.refusal, values
        if not counters.frames.produced:
            return contents.WARN, "saccade: node", f"nothing on {', '.join(self.topics.values())} yet", values
        return contents.OK, "saccade: node", "running", values


def _loaded(name: str, loaded: LoadedConfiguration, *, device: str, say: Callable[[str], None]) -> Network:
    config = loaded.config
    say(f"loading network {name}")
    path = loaded.model_path(name)
    return Network(
        name, config.networks[name], path, sensors=config.sensors, engine=config.engine, device=device, say=say
    )


def _device(wanted: str) -> str:
    from saccade.kernels.setup import prepare_warp

    prepare_warp()
    import warp as wp

    if wanted == "cpu" or not wp.is_cuda_available():
        if wanted == "cuda":
            raise EngineError("simulator.device: cuda, but Warp finds no CUDA device here: use --device cpu")
        return "cpu"
    return "cuda:0"
