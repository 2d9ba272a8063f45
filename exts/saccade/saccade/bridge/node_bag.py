"""A node's messages out of a bag, as if they came from the network: paced as recorded, or as fast as processed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from saccade.bridge import messages, names
from saccade.bridge.bag_reader import BagReader
from saccade.bridge.messages import MessageError
from saccade.bridge.node import PerceptionNode
from saccade.config import CameraConfig, RunConfig, SensorConfig

ASKED_EVERY_S = 0.001
"""How often a full queue is looked at when messages go as fast as processed [s]."""
DIAGNOSTICS_PERIOD_S = 1.0


def message_type(sensor: SensorConfig) -> str:
    """Returns the type of the messages that feed a sensor."""
    return "sensor_msgs/msg/Image" if isinstance(sensor, CameraConfig) else "sensor_msgs/msg/PointCloud2"


def check_topics(reader: BagReader, config: RunConfig, topics: Mapping[str, str]) -> None:
    """Makes sure that the bag has what a node listens to.

    Args:
        reader: The bag.
        config: Sensors, and how names are resolved.
        topics: Topic by sensor.

    Raises:
        RecordError: A topic is missing, has another type, or no messages.
    """
    ros2 = config.ros2
    for sensor, name in topics.items():
        topic = names.resolve(name, namespace=ros2.namespace, node=ros2.node, remap=ros2.remap)
        kind = message_type(config.sensors[sensor])
        reader.require(topic, kind, remedy=f"say which one with --topic {sensor}=TOPIC")


def feed(
    reader: BagReader,
    node: PerceptionNode,
    *,
    rate: float,
    stopped: threading.Event,
    attend: Callable[[], None] = lambda: None,
    facts: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Hands the bag's messages to the node until the end, or until ``stopped``.

    Args:
        reader: A bag that :func:`check_topics` has accepted.
        node: Opened with ``subscribed=False``.
        rate: Recorded time over wall time, 1 = as recorded; the node's queue and policy decide what is dropped.
            0 = as fast as processed: nothing is dropped.
        stopped: Ends it at once, from any thread.
        attend: Called once a second meanwhile.
        facts: Takes what is returned, kept up to date; ``None`` makes one.

    Returns:
        ``path``, ``messages`` read, ``unreadable`` (bytes that are no message of their type), ``unreadable_reason`` of
        the last of them, ``complete``, and ``late_ms``: by how much the slowest message was handed over late.

    Raises:
        RecordError: The bag is damaged; the messages before were handed over.
    """
    sensors = {topic: sensor for sensor, topic in node.topics.items()}
    facts = {} if facts is None else facts
    facts.update(path=str(reader.path), messages=0, unreadable=0, unreadable_reason=None, complete=False, late_ms=0.0)
    start_ns: int | None = None
    start = attended = time.monotonic()
    for found in reader.messages(list(sensors)):
        if start_ns is None:
            start_ns, start = found.time_ns, time.monotonic()
        facts["messages"] += 1
        try:
            message = messages.decode(bytes(found.data), found.type_name)
        except MessageError as error:
            facts["unreadable"] += 1
            facts["unreadable_reason"] = f"{found.topic}: {error}"
            continue
        due = start + (found.time_ns - start_ns) * 1e-9 / rate if rate else 0.0
        while not stopped.is_set():
            now = time.monotonic()
            if now - attended >= DIAGNOSTICS_PERIOD_S:
                attended = now
                attend()
            if rate:
                if now >= due:
                    facts["late_ms"] = max(facts["late_ms"], (now - due) * 1e3)
                    break
                stopped.wait(min(due - now, DIAGNOSTICS_PERIOD_S))
            else:
                if node.room():
                    break
                stopped.wait(ASKED_EVERY_S)
        if stopped.is_set():
            facts["messages"] -= 1  # the one in hand was not handed over
            return facts
        node.submit(sensors[found.topic], message)
    facts["complete"] = True
    return facts
