"""RclpyTransport: a ROS 2 node on the rclpy that this Python imports, in a context of its own."""

from __future__ import annotations

import atexit
import importlib
import os
import threading
from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from saccade.bridge import names
from saccade.bridge.base import Endpoint, Received, TransportError
from saccade.bridge.qos import QualityOfService

COUNTING_PERIOD = 0.1
"""How often matched subscribers are counted anew [s]."""
NAMELESS = ("_NODE_NAME_UNKNOWN_", "_CREATED_BY_BARE_DDS_APP_")
"""What rclpy calls the node of an endpoint whose node it does not know yet."""
ENVIRONMENT = (
    "ROS_DISTRO",
    "ROS_DOMAIN_ID",
    "ROS_LOCALHOST_ONLY",
    "ROS_AUTOMATIC_DISCOVERY_RANGE",
    "ROS_STATIC_PEERS",
    "ROS_SECURITY_ENABLE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "CYCLONEDDS_URI",
)
"""What decides about the middleware's network before it starts; recorded, never set here."""


class RclpyTransport:
    """Implements :class:`saccade.bridge.base.Transport` on rclpy.

    The context is its own, without signal handlers: another node of the process, such as Isaac Sim's, keeps its
    context, and Ctrl-C stays with the program.

    Args:
        node: Name of the node.
        namespace: Its namespace.
        domain: DDS domain; ``None`` leaves it to ``ROS_DOMAIN_ID``.

    Raises:
        TransportError: rclpy could not start.
        ConfigurationError: A name is not allowed.
    """

    name = "rclpy"

    def __init__(self, *, node: str = "saccade", namespace: str = "/", domain: int | None = None) -> None:
        self.node = names.full_node_name(node, namespace)
        self._lock = threading.RLock()
        self._publications: list[_RclpyPublication] = []
        self._received: list[Endpoint] = []
        self._closing = False
        self.failures = 0
        """Messages whose receiver raised; the first is in :attr:`failure`."""
        self.failure: str | None = None
        self._context = Context()
        try:
            rclpy.init(args=[], context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
            self._node = Node(
                node,
                namespace=namespace,
                context=self._context,
                use_global_arguments=False,
                enable_rosout=False,
                start_parameter_services=False,
            )
            self._executor = SingleThreadedExecutor(context=self._context)
            self._executor.add_node(self._node)
            self._node.create_timer(COUNTING_PERIOD, self._count)
        except Exception as error:
            raise TransportError(f"rclpy could not start: {error}") from error
        self._thread = threading.Thread(target=self._spin, name="saccade-rclpy", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def advertise(self, topic: str, type_name: str, qos: QualityOfService) -> _RclpyPublication:
        """See :meth:`saccade.bridge.base.Transport.advertise`."""
        with self._lock:
            self._check_open()
            try:
                publisher = self._node.create_publisher(_message_class(type_name), topic, _profile(qos))
            except Exception as error:
                raise TransportError(f"{topic} ({type_name}) could not be advertised: {error}") from error
            publication = _RclpyPublication(publisher, topic, type_name, qos)
            self._publications.append(publication)
            return publication

    def subscribe(self, topic: str, type_name: str, qos: QualityOfService, received: Received) -> None:
        """See :meth:`saccade.bridge.base.Transport.subscribe`."""

        def take(data: bytes) -> None:
            try:
                received(data)
            except Exception as error:
                # A receiver's mistake must not end receiving for all the others.
                self.failures += 1
                self.failure = self.failure or f"{type(error).__name__}: {error}"

        with self._lock:
            self._check_open()
            try:
                self._node.create_subscription(_message_class(type_name), topic, take, _profile(qos), raw=True)
            except Exception as error:
                raise TransportError(f"{topic} ({type_name}) could not be subscribed to: {error}") from error
            self._received.append(Endpoint(topic, type_name, False, qos, self.node))
            self._executor.wake()

    def endpoints(self) -> Sequence[Endpoint]:
        """See :meth:`saccade.bridge.base.Transport.endpoints`."""
        with self._lock:
            if self._closing:
                return []
            found = []
            for topic, _ in self._node.get_topic_names_and_types():
                for publishes, asked in (
                    (True, self._node.get_publishers_info_by_topic),
                    (False, self._node.get_subscriptions_info_by_topic),
                ):
                    found += [_endpoint(topic, publishes, info) for info in asked(topic)]
            return [endpoint for endpoint in found if endpoint.owner != self.node]

    def own_endpoints(self) -> Sequence[Endpoint]:
        """See :meth:`saccade.bridge.base.Transport.own_endpoints`."""
        with self._lock:
            written = [Endpoint(p.topic, p.type_name, True, p.qos, self.node) for p in self._publications]
            return written + self._received

    def facts(self) -> dict[str, Any]:
        """See :meth:`saccade.bridge.base.Transport.facts`."""
        return {
            "transport": self.name,
            "node": self.node,
            "domain": self._context.get_domain_id() if not self._closing else None,
            "network": "as the middleware's environment says",
            "middleware": rclpy.get_rmw_implementation_identifier(),
            "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            "receiver_failures": self.failures,
            "receiver_failure": self.failure,
        }

    def close(self) -> None:
        """See :meth:`saccade.bridge.base.Transport.close`."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._executor.wake()
        if self._thread is not threading.current_thread():
            self._thread.join()
        atexit.unregister(self.close)

    def _spin(self) -> None:
        try:
            while not self._closing:
                self._executor.spin_once(timeout_sec=1.0)
        except (ExternalShutdownException, RuntimeError) as error:
            # The owner of the process may shut all of ROS 2 down before us.
            self.failure = self.failure or f"receiving ended: {error}"
        finally:
            # Here and not in close(), which a receiver may have called on this very thread.
            self._free()

    def _count(self) -> None:
        for publication in list(self._publications):
            publication.count()

    def _check_open(self) -> None:
        if self._closing:
            raise TransportError(f"{self.node} is closed")

    def _free(self) -> None:
        with self._lock:
            self._closing = True
            for publication in self._publications:
                publication.close()
            self._executor.shutdown(timeout_sec=0)
            self._node.destroy_node()
            self._context.try_shutdown()


class _RclpyPublication:
    """One publisher; see :class:`saccade.bridge.base.Publication`."""

    def __init__(self, publisher: Any, topic: str, type_name: str, qos: QualityOfService) -> None:
        self.topic = topic
        self.type_name = type_name
        self.qos = qos
        self.subscribers = 0
        self._publisher = publisher
        self._open = True
        self._sending = threading.Lock()

    def send(self, data: bytes | memoryview) -> None:
        """See :meth:`saccade.bridge.base.Publication.send`."""
        with self._sending:
            if not self._open:
                raise TransportError(f"{self.topic}: the node is closed")
            try:
                # Ready bytes pass rclpy unread; assigning an image's data to a message would take up to 46 ms.
                self._publisher.publish(bytes(data))
            except Exception as error:
                raise TransportError(f"{self.topic}: {error}") from error

    def count(self) -> None:
        """Counts the matched subscribers anew."""
        if self._open:
            self.subscribers = self._publisher.get_subscription_count()

    def close(self) -> None:
        """Waits for a send under way and refuses later ones."""
        with self._sending:
            self._open = False
            self.subscribers = 0


def _message_class(type_name: str) -> Any:
    package, _, name = type_name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


def _profile(qos: QualityOfService) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=qos.depth,
        reliability=ReliabilityPolicy.RELIABLE if qos.reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if qos.transient_local else DurabilityPolicy.VOLATILE,
    )


def _endpoint(topic: str, publishes: bool, info: Any) -> Endpoint:
    profile = info.qos_profile
    return Endpoint(
        topic,
        info.topic_type,
        publishes,
        QualityOfService(
            reliable=profile.reliability != ReliabilityPolicy.BEST_EFFORT,
            transient_local=profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
            depth=profile.depth,
        ),
        "" if info.node_name in NAMELESS else f"{info.node_namespace.rstrip('/')}/{info.node_name}",
    )
