"""Bridge: one node's topics, published through the outbox and read with every bad message counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from saccade.bridge import messages, names
from saccade.bridge.base import Publication, Transport, problems
from saccade.bridge.messages import MessageError
from saccade.bridge.outbox import Channel, Outbox, Policy
from saccade.bridge.qos import PRESETS, QualityOfService
from saccade.config import Ros2Config

Recording = Callable[["Topic", "bytes | memoryview", int], None]
"""Takes topic, bytes and time [ns] of every message that is sent."""


class Topic:
    """One published topic."""

    def __init__(
        self,
        name: str,
        type_name: str,
        qos: QualityOfService,
        publication: Publication | None,
        recording: Recording | None,
        clock: Callable[[], int],
    ) -> None:
        self.name = name
        """Resolved."""
        self.type_name = type_name
        self.qos = qos
        self._publication = publication
        self._recording = recording
        self._clock = clock
        self._recorded_ns = 0
        self._latched = publication is not None and publication.qos.transient_local
        self.channel: Channel

    @property
    def wanted(self) -> bool:
        """Whether a message would go anywhere: a matched subscriber, a late one of a latched topic, a recording."""
        if self._latched or self._recording is not None:
            return True
        return self._publication is not None and self._publication.subscribers > 0

    def publish(self, message: Any, *, release: Callable[[], None] | None = None) -> bool:
        """Hands a message over.

        Args:
            message: A message, or what makes one: called later, on the outbox's thread.
            release: Called once when the message has been sent or given up.

        Returns:
            Whether it was taken.
        """
        make = message if callable(message) else lambda: message
        if self._recording is None:
            return self.channel.put(lambda: messages.encode(make()), release=release)
        handed_over = self._clock()

        def build() -> memoryview:
            self._recorded_ns = handed_over  # building and sending one message follow each other on one thread
            return messages.encode(make())

        return self.channel.put(build, release=release)

    def send(self, data: bytes | memoryview) -> None:
        """Sends a message's bytes now; the outbox's part."""
        if self._recording is not None:
            self._recording(self, data, self._recorded_ns)
        if self._publication is not None and (self._latched or self._publication.subscribers):
            self._publication.send(data)


@dataclass(slots=True)
class _Reading:
    received: int = 0
    refused: int = 0
    refusal: str | None = None


class Bridge:
    """The topics of one node.

    Args:
        transport: The node; ``None`` only records.
        config: Names, profiles and queues.
        recording: Takes every message that is sent, on the outbox's thread.
    """

    def __init__(self, transport: Transport | None, config: Ros2Config, *, recording: Recording | None = None) -> None:
        self.transport = transport
        self._config = config
        self.clock: Callable[[], int] = time.time_ns
        """Time that messages are recorded with [ns]: the wall's, unless their source has one of its own."""
        self._recording = recording
        self._outbox = Outbox()
        self._topics: dict[str, Topic] = {}
        self._readings: dict[str, _Reading] = {}
        self._qos = {self.resolve(name): preset for name, preset in config.qos.items()}
        self._lock = threading.Lock()

    def resolve(self, name: str) -> str:
        """Returns the absolute name of a topic after namespace and remapping."""
        return names.resolve(name, namespace=self._config.namespace, node=self._config.node, remap=self._config.remap)

    def advertise(
        self,
        name: str,
        type_name: str,
        *,
        preset: str = "default",
        capacity: int | None = None,
        policy: Policy | None = None,
    ) -> Topic:
        """Returns a topic to publish on; asked again for the same one, the same.

        Args:
            name: Topic before namespace and remapping.
            type_name: ``package/msg/Type``.
            preset: Profile from :data:`saccade.bridge.qos.PRESETS` unless the configuration names another.
            capacity: Messages that may wait; ``None`` = as configured.
            policy: What gives way; ``None`` = as configured.
        """
        topic = self.resolve(name)
        with self._lock:
            known = self._topics.get(topic)
            if known is not None:
                return known
            qos = self._profile(topic, preset)
            publication = self.transport.advertise(topic, type_name, qos) if self.transport is not None else None
            made = Topic(topic, type_name, qos, publication, self._recording, self._now)
            made.channel = self._outbox.open(
                topic,
                send=made.send,
                wanted=lambda: made.wanted,
                capacity=capacity or self._config.queue,
                policy=policy or self._config.policy,
            )
            self._topics[topic] = made
            return made

    def subscribe(self, name: str, type_name: str, received: Callable[[Any], None], *, preset: str = "default") -> str:
        """Has ``received`` called with every message of a topic, on the transport's thread; returns its full name.

        Bytes that are no such message are counted and left out.
        """
        topic = self.resolve(name)
        reading = self._readings.setdefault(topic, _Reading())

        def take(data: bytes) -> None:
            try:
                message = messages.decode(data, type_name)
            except MessageError as error:
                reading.refused += 1
                reading.refusal = str(error)
                return
            reading.received += 1
            received(message)

        if self.transport is not None:
            self.transport.subscribe(topic, type_name, self._profile(topic, preset), take)
        return topic

    def published_by_others(self, name: str) -> list[str]:
        """Returns the nodes, as far as known by name, that publish a topic besides this one."""
        topic = self.resolve(name)
        endpoints = self.transport.endpoints() if self.transport is not None else ()
        return [other.owner or "another node" for other in endpoints if other.publishes and other.topic == topic]

    def problems(self) -> list[str]:
        """Returns a sentence for each endpoint of another node that can never match ours."""
        if self.transport is None:
            return []
        return problems(self.transport.own_endpoints(), self.transport.endpoints())

    def counters(self) -> dict[str, dict[str, Any]]:
        """Returns by topic what was produced, delivered and dropped, and what was received and refused."""
        found = {name: {"direction": "out", **counts} for name, counts in self._outbox.counters().items()}
        for name, reading in self._readings.items():
            found[name] = {
                **found.get(name, {}),
                "direction": "in",
                "received": reading.received,
                "refused": reading.refused,
                "refusal": reading.refusal,
            }
        return found

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say."""
        transport = self.transport.facts() if self.transport is not None else None
        return {"transport": transport, "topics": self.counters(), "problems": self.problems()}

    def flush(self, timeout: float) -> bool:
        """Waits until nothing is in flight, at most ``timeout`` [s]; returns whether that came about."""
        return self._outbox.flush(timeout)

    def close(self, *, timeout: float = 2.0) -> None:
        """Sends what waits for at most ``timeout`` [s], then closes the transport; safe to call twice."""
        self._outbox.close(timeout=timeout)
        if self.transport is not None:
            self.transport.close()

    def _now(self) -> int:
        return self.clock()

    def _profile(self, topic: str, preset: str) -> QualityOfService:
        return PRESETS[self._qos.get(topic, preset)]
