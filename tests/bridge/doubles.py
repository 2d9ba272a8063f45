"""A transport that only remembers: what the bridge sends is kept, what a test gives is received."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from saccade.bridge.base import Endpoint


@dataclass
class KeptPublication:
    topic: str
    type_name: str
    qos: Any
    subscribers: int = 1
    sent: list = field(default_factory=list)

    def send(self, data) -> None:
        self.sent.append(bytes(data))


class KeptTransport:
    name = "kept"
    node = "/saccade"

    def __init__(self, *, subscribers: int = 1, others: tuple[Endpoint, ...] = ()) -> None:
        self.publications: dict[str, KeptPublication] = {}
        self.receivers: dict[str, Any] = {}
        self.others = others
        self.subscribers = subscribers
        self.closed = False

    def advertise(self, topic, type_name, qos) -> KeptPublication:
        made = KeptPublication(topic, type_name, qos, self.subscribers)
        self.publications[topic] = made
        return made

    def subscribe(self, topic, type_name, qos, received) -> None:
        self.receivers[topic] = received

    def endpoints(self):
        return self.others

    def own_endpoints(self):
        return [Endpoint(made.topic, made.type_name, True, made.qos) for made in self.publications.values()]

    def facts(self) -> dict[str, Any]:
        return {"transport": self.name}

    def close(self) -> None:
        self.closed = True

    def give(self, topic: str, message) -> None:
        from saccade.bridge import messages

        self.receivers[topic](bytes(messages.encode(message)))
