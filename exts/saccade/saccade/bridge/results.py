"""ResultTopics: the topics of the networks' results, of a run and of a node alike."""

from __future__ import annotations

from functools import partial
from typing import Any

from saccade.bridge import contents, names
from saccade.bridge.bridge import Bridge, Topic
from saccade.bridge.copies import CopySender
from saccade.config import CameraConfig, RunConfig
from saccade.frame import Result, Stamps

IMAGE = "sensor_msgs/msg/Image"
FLOAT = "std_msgs/msg/Float32"


class ResultTopics:
    """Publishes results, each topic only where somebody listens.

    Args:
        bridge: The node.
        config: Its networks and sensors.
        copies: Takes the label images.
    """

    def __init__(self, bridge: Bridge, config: RunConfig, copies: CopySender) -> None:
        self._bridge = bridge
        self._config = config
        self._copies = copies
        self._topics = {name: self._advertised(name) for name in config.networks}

    def publish(
        self, result: Result, stamps: Stamps, *, stamp: float | Any, frame_id: str, value: float | None = None
    ) -> None:
        """Hands one result over.

        Args:
            result: Of a configured network.
            stamps: Of the frame that it belongs to.
            stamp: Of the messages: [s], or a time message.
            frame_id: The frame that labels are in.
            value: What to publish as the result where it has neither hazard nor clearance.
        """
        topics = self._topics[result.network]
        if result.hazard is not None:
            value = result.hazard
        elif result.clearance:
            value = result.clearance[0]
        if value is not None and topics["result"].wanted:
            topics["result"].publish(partial(contents.number, value))
        if stamps.on_host and topics["latency"].wanted:
            topics["latency"].publish(partial(contents.number, (stamps.on_host - stamps.handed_over) * 1e-6))
        if result.clearance is not None and topics["clearance"].wanted:
            topics["clearance"].publish(partial(contents.numbers, list(result.clearance)))
        if result.labels is None or len(result.labels.shape) != 2:
            return
        arrays = {"labels": result.labels}
        for topic, make in (("labels", contents.label_image), ("detections", contents.detections)):
            if topic in topics and topics[topic].wanted:
                self._copies.send(topics[topic], arrays, partial(make, stamp, frame_id))

    def _advertised(self, name: str) -> dict[str, Topic]:
        network = self._config.networks[name]
        base = "/ai" if len(self._config.networks) == 1 else f"/ai/{names.token(name)}"
        advertise = self._bridge.advertise
        topics = {
            "result": advertise(f"{base}/inference_result", FLOAT),
            "latency": advertise(f"{base}/inference_latency", FLOAT),
            "clearance": advertise(f"{base}/clearance", "std_msgs/msg/Float32MultiArray"),
        }
        sensor = next(iter(network.inputs.values())).sensors[0]
        if network.decoder.labels is not None and isinstance(self._config.sensors[sensor], CameraConfig):
            topics["detections"] = advertise(f"{base}/detections", "vision_msgs/msg/Detection2DArray")
            if self._config.ros2.images:
                topics["labels"] = advertise(f"{base}/labels", IMAGE, preset="reliable_sensor")
        return topics
