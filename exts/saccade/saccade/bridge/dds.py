"""DdsTransport: a ROS 2 node without ROS 2, on cyclonedds, that other nodes and tools take for an ordinary one."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
from cyclonedds._clayer import ddspy_take
from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication, BuiltinTopicDcpsSubscription
from cyclonedds.core import (
    DDSException,
    DDSStatus,
    GuardCondition,
    InstanceState,
    Policy,
    Qos,
    ReadCondition,
    SampleState,
    ViewState,
    WaitSet,
)
from cyclonedds.domain import DomainParticipant
from cyclonedds.internal import DDS
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from saccade.bridge import messages, names
from saccade.bridge.base import Endpoint, Received, TransportError
from saccade.bridge.dds_domain import SharedDomain
from saccade.bridge.dds_settings import FRAGMENT_SIZE, LOOPBACK, URI, settings_xml
from saccade.bridge.dds_types import hide_type_information, idl_type
from saccade.bridge.qos import PRESETS, QualityOfService

GRAPH_TOPIC = "ros_discovery_info"
GRAPH_TYPE = "rmw_dds_common/msg/ParticipantEntitiesInfo"
GRAPH_TYPE_HASH = "RIHS01_91a0593bacdcc50ea9bdcf849a938b128412cc1ea821245c663bcd26f83c295e"
"""ROS 2 hashes its ``char`` as ``uint8``, rosbags does not: the one type here whose hash cannot be computed."""
ANY_SAMPLE = ViewState.Any | InstanceState.Any | SampleState.Any
GUID_SIZE = 16
TAKEN_AT_ONCE = 32
DISCOVERED_AT_ONCE = 256
GRAPH_REQUEST = QualityOfService(transient_local=True, depth=200)
LONGEST_WAIT = duration(seconds=5)
WRITE_BLOCKS = duration(milliseconds=100)
"""How long a reliable writer waits for room at a receiver that does not keep up."""

_library = DDS._dll_handle
_library.dds_write.argtypes = [ctypes.c_int32, ctypes.c_void_p]
_library.dds_write.restype = ctypes.c_int32


class DdsTransport:
    """Implements :class:`saccade.bridge.base.Transport` on DDS alone.

    Args:
        node: Name of the node.
        namespace: Its namespace.
        domain: DDS domain.
        network: ``loopback``, ``any`` or an interface; where ``CYCLONEDDS_URI`` is set, that decides instead.
        fragment_size: Bytes per fragment of a large message.
        graph: Whether to announce the node, so that ``ros2 node list`` knows it.
        distribution: ROS 2 distribution of the other nodes, which decides how the node is announced.

    Raises:
        TransportError: Cyclone DDS could not start.
        ConfigurationError: A name is not allowed, or the domain is already open in this process with other settings.
    """

    name = "dds"

    def __init__(
        self,
        *,
        node: str = "saccade",
        namespace: str = "/",
        domain: int = 0,
        network: str = LOOPBACK,
        fragment_size: int = FRAGMENT_SIZE,
        graph: bool = True,
        distribution: str = "jazzy",
    ) -> None:
        self.node = names.full_node_name(node, namespace)
        self._node_name = (namespace if namespace == "/" else namespace.rstrip("/"), node)
        self._types = messages.store(distribution)
        self._with_hash = distribution != "humble"
        self._lock = threading.RLock()
        self._publications: list[_DdsPublication] = []
        self._subscriptions: list[tuple[DataReader, Endpoint, Received]] = []
        self._topics: dict[tuple[str, str], Topic] = {}
        self._made: dict[str, type] = {}
        self._others: dict[bytes, Endpoint] = {}
        self._owners: dict[bytes, tuple[bytes, str]] = {}
        self._conditions: list[ReadCondition] = []
        self._closing = False
        self._type_information_hidden = True
        self.failures = 0
        """Messages whose receiver raised; the first is in :attr:`failure`."""
        self.failure: str | None = None
        settings = None if os.environ.get(URI) else settings_xml(network=network, fragment_size=fragment_size)
        self._facts: dict[str, Any] = {
            "transport": self.name,
            "node": self.node,
            "domain": domain,
            "network": f"as {URI} says" if settings is None else network,
            "fragment_size": None if settings is None else fragment_size,
            "distribution": distribution,
            "cyclonedds": version("cyclonedds"),
            "rosbags": version("rosbags"),
        }
        try:
            self._domain = SharedDomain.open(domain, settings)
            userdata = Policy.Userdata(b"enclave=/;")
            self._participant = DomainParticipant(domain, qos=Qos(userdata, Policy.EntityName(node)))
            self._wake = GuardCondition(self._participant)
            self._waitset = WaitSet(self._participant)
            self._waitset.attach(self._wake)
            self._discovery = [
                (BuiltinDataReader(self._participant, BuiltinTopicDcpsPublication), True),
                (BuiltinDataReader(self._participant, BuiltinTopicDcpsSubscription), False),
            ]
            for reader, _ in self._discovery:
                self._attach(reader)
            graph_topic = self._topic(GRAPH_TOPIC, GRAPH_TYPE)
            hash_ = GRAPH_TYPE_HASH if self._with_hash else None
            latched = PRESETS["latched"]
            self._graph_reader = DataReader(
                self._participant, graph_topic, _dds_qos(GRAPH_REQUEST, hash_, writes=False)
            )
            self._attach(self._graph_reader)
            self._graph: DataWriter | None = None
            if graph:
                self._graph = DataWriter(self._participant, graph_topic, _dds_qos(latched, hash_, writes=True))
                self._announce()
        except DDSException as error:
            raise TransportError(f"Cyclone DDS could not start on domain {domain}: {error}") from error
        self._thread = threading.Thread(target=self._spin, name="saccade-dds", daemon=True)
        self._thread.start()
        _close_at_exit(self)

    def advertise(self, topic: str, type_name: str, qos: QualityOfService) -> _DdsPublication:
        """See :meth:`saccade.bridge.base.Transport.advertise`."""
        with self._lock:
            self._check_open()
            try:
                publication = _DdsPublication(
                    DataWriter(
                        self._participant,
                        self._topic(names.dds_topic(topic), type_name),
                        _dds_qos(qos, self._hash(type_name), writes=True),
                    ),
                    topic,
                    type_name,
                    qos,
                )
                publication.writer.set_status_mask(DDSStatus.PublicationMatched)
                self._publications.append(publication)
                self._waitset.attach(publication.writer)
                self._announce()
            except DDSException as error:
                raise TransportError(f"{topic} ({type_name}) could not be advertised: {error}") from error
            return publication

    def subscribe(self, topic: str, type_name: str, qos: QualityOfService, received: Received) -> None:
        """See :meth:`saccade.bridge.base.Transport.subscribe`."""
        with self._lock:
            self._check_open()
            try:
                reader = DataReader(
                    self._participant,
                    self._topic(names.dds_topic(topic), type_name),
                    _dds_qos(qos, self._hash(type_name), writes=False),
                )
                self._subscriptions.append((reader, Endpoint(topic, type_name, False, qos, self.node), received))
                self._attach(reader)
                self._announce()
                self._wake.set(True)
            except DDSException as error:
                raise TransportError(f"{topic} ({type_name}) could not be subscribed to: {error}") from error

    def endpoints(self) -> Sequence[Endpoint]:
        """See :meth:`saccade.bridge.base.Transport.endpoints`."""
        with self._lock:
            owners = {gid: node for gid, (_, node) in self._owners.items()}
            return [replace(endpoint, owner=owners.get(gid, "")) for gid, endpoint in self._others.items()]

    def own_endpoints(self) -> Sequence[Endpoint]:
        """See :meth:`saccade.bridge.base.Transport.own_endpoints`."""
        with self._lock:
            written = [Endpoint(p.topic, p.type_name, True, p.qos, self.node) for p in self._publications]
            return written + [endpoint for _, endpoint, _ in self._subscriptions]

    def facts(self) -> dict[str, Any]:
        """See :meth:`saccade.bridge.base.Transport.facts`."""
        return {
            **self._facts,
            "type_information_hidden": self._type_information_hidden,
            "receiver_failures": self.failures,
            "receiver_failure": self.failure,
        }

    def close(self) -> None:
        """See :meth:`saccade.bridge.base.Transport.close`."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._wake.set(True)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _spin(self) -> None:
        try:
            while not self._closing:
                self._waitset.wait(LONGEST_WAIT)
                self._wake.take()
                if self._closing:
                    break
                self._look_around()
                with self._lock:
                    subscriptions = list(self._subscriptions)
                for reader, _, received in subscriptions:
                    self._receive(reader, received)
        except DDSException as error:
            self.failure = self.failure or f"receiving ended: {error}"
        finally:
            # Here and not in close(), which a receiver may have called on this very thread.
            self._free()

    def _receive(self, reader: DataReader, received: Received) -> None:
        while not self._closing:
            samples = ddspy_take(reader._ref, ANY_SAMPLE, TAKEN_AT_ONCE)
            if not isinstance(samples, list):
                return
            for data, info in samples:
                if info.valid_data:
                    try:
                        received(data)
                    except Exception as error:
                        # A receiver's mistake must not end receiving for all the others.
                        self.failures += 1
                        self.failure = self.failure or f"{type(error).__name__}: {error}"
            if len(samples) < TAKEN_AT_ONCE:
                return

    def _look_around(self) -> None:
        """Takes in who has come and gone."""
        for publication in self._publications:
            publication.count()
        for reader, publishes in self._discovery:
            for sample in reader.take(N=DISCOVERED_AT_ONCE):
                self._discovered(sample, publishes)
        samples = ddspy_take(self._graph_reader._ref, ANY_SAMPLE, DISCOVERED_AT_ONCE)
        for data, info in samples if isinstance(samples, list) else []:
            if info.valid_data:
                # Another node's announcement that cannot be read costs its name in our reports, nothing more.
                with contextlib.suppress(Exception):
                    self._named(self._types.deserialize_cdr(data, GRAPH_TYPE))

    def _discovered(self, sample: Any, publishes: bool) -> None:
        gid = sample.key.bytes
        if not sample.sample_info.valid_data or sample.sample_info.instance_state != InstanceState.Alive:
            with self._lock:
                self._others.pop(gid, None)
            return
        topic = names.ros_topic(sample.topic_name)
        if topic is None or sample.participant_key == self._participant.guid:
            return
        reliability = sample.qos[Policy.Reliability]
        offered = QualityOfService(
            reliable=not isinstance(reliability, type(Policy.Reliability.BestEffort)),
            transient_local=sample.qos[Policy.Durability] is not Policy.Durability.Volatile,
            depth=getattr(sample.qos[Policy.History], "depth", 0),
        )
        with self._lock:
            self._others[gid] = Endpoint(topic, names.ros_type(sample.type_name), publishes, offered)

    def _named(self, info: Any) -> None:
        participant = bytes(info.gid.data[:GUID_SIZE])
        with self._lock:
            self._owners = {gid: owner for gid, owner in self._owners.items() if owner[0] != participant}
            for node in info.node_entities_info_seq:
                full = f"{node.node_namespace.rstrip('/')}/{node.node_name}"
                for gid in (*node.reader_gid_seq, *node.writer_gid_seq):
                    self._owners[bytes(gid.data[:GUID_SIZE])] = (participant, full)

    def _announce(self) -> None:
        """Publishes which endpoints belong to the node: what makes it a node for the others."""
        if self._graph is None:
            return
        namespace, node = self._node_name
        kinds = self._types.types
        node_info = kinds["rmw_dds_common/msg/NodeEntitiesInfo"](
            node_namespace=namespace,
            node_name=node,
            reader_gid_seq=[self._gid(reader) for reader, _, _ in self._subscriptions],
            writer_gid_seq=[self._gid(publication.writer) for publication in self._publications],
        )
        info = kinds[GRAPH_TYPE](gid=self._gid(self._participant), node_entities_info_seq=[node_info])
        data = self._types.serialize_cdr(info, GRAPH_TYPE, little_endian=True)
        _write(self._graph, bytes(data) + bytes(-len(data) % 4))

    def _gid(self, entity: Any) -> Any:
        # 16 bytes since Iron, 24 before: a node of Humble dies of the wrong size.
        _, fields = self._types.fielddefs["rmw_dds_common/msg/Gid"]
        size = fields[0][1][1][1]
        data = np.zeros(size, dtype=np.uint8)
        data[:GUID_SIZE] = np.frombuffer(entity.guid.bytes, dtype=np.uint8)
        return self._types.types["rmw_dds_common/msg/Gid"](data=data)

    def _hash(self, type_name: str) -> str | None:
        return messages.type_hash(type_name) if self._with_hash else None

    def _topic(self, topic: str, type_name: str) -> Topic:
        known = self._topics.get((topic, type_name))
        if known is not None:
            return known
        if type_name not in self._types.fielddefs:
            raise TransportError(f"{topic}: message type {type_name} is not known")
        made = Topic(self._participant, topic, idl_type(type_name, self._types, self._made))
        self._type_information_hidden &= hide_type_information(made)
        self._topics[topic, type_name] = made
        return made

    def _attach(self, reader: DataReader) -> None:
        condition = ReadCondition(reader, ANY_SAMPLE)
        self._conditions.append(condition)
        self._waitset.attach(condition)

    def _check_open(self) -> None:
        if self._closing:
            raise TransportError(f"{self.node} is closed")

    def _free(self) -> None:
        """Deletes the participant with all that belongs to it; a send that comes later is refused."""
        with self._lock:
            self._closing = True
            for publication in self._publications:
                publication.close()
            self._participant._delete(self._participant._ref)
            self._domain.close()


class _DdsPublication:
    """One writer; see :class:`saccade.bridge.base.Publication`."""

    def __init__(self, writer: DataWriter, topic: str, type_name: str, qos: QualityOfService) -> None:
        self.writer = writer
        self.topic = topic
        self.type_name = type_name
        self.qos = qos
        self.subscribers = 0
        self._open = True
        self._sending = threading.Lock()

    def send(self, data: bytes | memoryview) -> None:
        """See :meth:`saccade.bridge.base.Publication.send`."""
        with self._sending:
            if not self._open:
                raise TransportError(f"{self.topic}: the node is closed")
            _write(self.writer, data)

    def count(self) -> None:
        """Counts the matched subscribers anew where that has changed."""
        status = self.writer.get_publication_matched_status()
        if status is not None:
            self.subscribers = status.current_count

    def close(self) -> None:
        """Waits for a send under way and refuses later ones."""
        with self._sending:
            self._open = False
            self.subscribers = 0


class _Payload(ctypes.Structure):
    """How Cyclone DDS's Python layer hands serialised samples to its library."""

    _fields_ = (("data", ctypes.c_void_p), ("size", ctypes.c_size_t))


def _write(writer: DataWriter, data: bytes | memoryview) -> None:
    """Writes ready bytes without holding Python's lock: the loop must not wait while an image is sent."""
    view = np.frombuffer(data, dtype=np.uint8)
    payload = _Payload(view.ctypes.data, view.size)
    code = _library.dds_write(writer._ref, ctypes.byref(payload))
    if code < 0:
        raise TransportError(f"{writer.topic.name}: {DDSException(code)}")


def _dds_qos(qos: QualityOfService, hash_: str | None, *, writes: bool) -> Qos:
    policies: list[Any] = [
        Policy.Reliability.Reliable(WRITE_BLOCKS) if qos.reliable else Policy.Reliability.BestEffort,
        Policy.Durability.TransientLocal if qos.transient_local else Policy.Durability.Volatile,
        Policy.History.KeepLast(qos.depth),
        Policy.DataRepresentation(use_cdrv0_representation=True),
    ]
    if writes:
        policies.append(Policy.WriterDataLifecycle(autodispose=False))
        if qos.transient_local:
            policies.append(Policy.DurabilityService(0, Policy.History.KeepLast(qos.depth), -1, -1, -1))
    if hash_ is not None:
        policies.append(Policy.Userdata(f"typehash={hash_};".encode()))
    return Qos(*policies)


def _close_at_exit(transport: DdsTransport) -> None:
    """The library's threads must not outlive Python: a transport that nobody closed is closed at exit."""
    alive = weakref.ref(transport)

    def close() -> None:
        left = alive()
        if left is not None:
            left.close()

    atexit.register(close)
