"""The transport protocol: serialised messages out and in, and what other nodes offer and request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from saccade.bridge.qos import QualityOfService, mismatches

Received = Callable[[bytes], None]
"""Takes one serialised message on the transport's own thread."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A publisher or subscriber of another participant, or one of our own."""

    topic: str
    """Absolute ROS 2 name."""
    type_name: str
    """``package/msg/Type``."""
    publishes: bool
    qos: QualityOfService
    owner: str = ""
    """Node or participant it belongs to, as far as known."""


class Publication(Protocol):
    """A publisher of one topic."""

    topic: str
    type_name: str
    qos: QualityOfService

    @property
    def subscribers(self) -> int:
        """Subscribers that are matched now; cheap enough to be asked per frame."""
        ...

    def send(self, data: bytes | memoryview) -> None:
        """Writes one message in CDR with its encapsulation header; called by one thread at a time.

        Raises:
            TransportError: The middleware refused it.
        """
        ...


@runtime_checkable
class Transport(Protocol):
    """A ROS 2 node without knowledge of message content.

    Receiving runs on the transport's own thread; :meth:`close` may be called from any thread, twice, and before or
    after everything else has been closed.
    """

    name: str
    """``"rclpy"`` or ``"dds"``."""
    node: str
    """Full name of the node."""

    def advertise(self, topic: str, type_name: str, qos: QualityOfService) -> Publication:
        """Opens a publisher of an absolute topic name.

        Raises:
            TransportError: The middleware refused it.
        """
        ...

    def subscribe(self, topic: str, type_name: str, qos: QualityOfService, received: Received) -> None:
        """Has ``received`` called with every message of the topic until the transport is closed.

        Raises:
            TransportError: The middleware refused it.
        """
        ...

    def endpoints(self) -> Sequence[Endpoint]:
        """Returns the endpoints of all other participants that are known now."""
        ...

    def own_endpoints(self) -> Sequence[Endpoint]:
        """Returns the endpoints of this node, without the middleware's own."""
        ...

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say: versions, domain, network, middleware."""
        ...

    def close(self) -> None:
        """Ends receiving and frees the node."""
        ...


class TransportError(Exception):
    """The middleware refused something; the text says what and with which code."""


def problems(own: Sequence[Endpoint], others: Sequence[Endpoint]) -> list[str]:
    """Returns a sentence for each pair of endpoints on one topic that can never exchange a message.

    Args:
        own: Endpoints of this node.
        others: Endpoints of other nodes.
    """
    found = []
    for mine in own:
        for other in others:
            if other.topic != mine.topic or other.publishes == mine.publishes:
                continue
            role = "publisher" if other.publishes else "subscriber"
            whose = f"the {role} of {other.owner}" if other.owner else f"another node's {role}"
            if other.type_name != mine.type_name:
                found.append(f"{mine.topic}: {whose} has type {other.type_name}, this node has {mine.type_name}")
                continue
            offered, requested = (other.qos, mine.qos) if other.publishes else (mine.qos, other.qos)
            policies = mismatches(offered, requested)
            if policies:
                found.append(
                    f"{mine.topic}: {whose} cannot match because of {' and '.join(policies)}: "
                    f"offered ({offered}), requested ({requested})"
                )
    return found
