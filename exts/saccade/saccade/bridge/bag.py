"""BagRecorder: what the bridge would publish, written to an MCAP bag by a thread; needs no DDS and no ROS 2."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.bridge.bridge import Bridge, Topic
from saccade.bridge.messages import store
from saccade.bridge.outbox import Policy
from saccade.bridge.publishing import RunPublisher
from saccade.config import RunConfig
from saccade.errors import DependencyError, RecordError
from saccade.telemetry.recorder import write_problem

if TYPE_CHECKING:
    from saccade.loop import Tick

FOLDER = "bag"
"""Of the bag below the run's folder; the file in it is ``bag.mcap``, beside ``metadata.yaml``."""
METADATA_VERSION = 8
"""Of rosbag2's metadata: the newest whose profiles Humble can read."""
FLUSH_S = 1.0
"""Longest time until a message is with the operating system [s], as long as messages come."""
DRAIN_S = 30.0
"""How long the end of a run waits for the disk [s]."""


class BagWriter:
    """A rosbag2 folder with one MCAP file of CDR messages, profile ``ros2``, and ``metadata.yaml``.

    Messages are collected into chunks of 1 MiB; a chunk is also closed after :data:`FLUSH_S`, so that a killed process
    leaves a file whose whole chunks can be read, and loses at most what came within that time. Such a file has no
    index, and its folder no ``metadata.yaml``. Methods may be called from several threads.

    Args:
        folder: Must not exist.

    Raises:
        DependencyError: rosbags is not installed.
        RecordError: The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.messages = 0
        self.bytes = 0
        """Of the messages, without what the format adds."""
        self.failure: str | None = None
        """Why the bag is incomplete; ``None`` as long as all is well."""
        self._connections: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._flushed = time.monotonic()
        self._closed = False
        try:
            from rosbags.rosbag2 import StoragePlugin, Writer
        except ImportError as error:
            raise DependencyError(f"a bag needs rosbags ({error}): pip install 'saccade[ros]'") from error
        self._writer = Writer(folder, version=METADATA_VERSION, storage_plugin=StoragePlugin.MCAP)
        try:
            self._writer.open()
        except OSError as error:
            raise RecordError(write_problem(folder, error)) from error

    def write(self, topic: Topic, data: bytes | memoryview, time_ns: int) -> None:
        """Writes one message.

        Args:
            topic: Name, type and profile.
            data: CDR with its encapsulation header.
            time_ns: When it counts as recorded.

        Raises:
            RecordError: The disk refuses it, or refused one before.
        """
        with self._lock:
            if self.failure is not None or self._closed:
                raise RecordError(self.failure or f"{self.folder} is closed")
            try:
                connection = self._connections.get(topic.name) or self._connect(topic)
                self._writer.write(connection, time_ns, data)
                if time.monotonic() - self._flushed >= FLUSH_S:
                    self._flush()
            except OSError as error:
                raise self._failed(error) from error
            self.messages += 1
            self.bytes += len(data)

    def flush(self) -> None:
        """Hands all that was written to the operating system; a failure is kept in :attr:`failure`."""
        with self._lock:
            if self.failure is not None or self._closed:
                return
            try:
                self._flush()
            except OSError as error:
                self._failed(error)

    def close(self) -> None:
        """Writes index and metadata; safe to call twice. A failure is kept in :attr:`failure`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                if self.failure is None:
                    self._writer.close()
                else:
                    self._writer.abort()
            except OSError as error:
                self._failed(error)

    def _connect(self, topic: Topic) -> Any:
        from rosbags.interfaces import (
            Qos,
            QosDurability,
            QosHistory,
            QosLiveliness,
            QosReliability,
            QosTime,
        )

        forever = QosTime(9223372036, 854775807)  # what ROS 2 has for no limit
        profile = Qos(
            QosHistory.KEEP_LAST,
            topic.qos.depth,
            QosReliability.RELIABLE if topic.qos.reliable else QosReliability.BEST_EFFORT,
            QosDurability.TRANSIENT_LOCAL if topic.qos.transient_local else QosDurability.VOLATILE,
            forever,
            forever,
            QosLiveliness.AUTOMATIC,
            forever,
            False,
        )
        made = self._writer.add_connection(
            topic.name, topic.type_name, typestore=store(), offered_qos_profiles=[profile]
        )
        self._connections[topic.name] = made
        return made

    def _flush(self) -> None:
        storage: Any = self._writer.storage
        if storage.chunk.msgs:
            storage.close_chunk()
        storage.bio.flush()
        self._flushed = time.monotonic()

    def _failed(self, error: OSError) -> RecordError:
        self.failure = self.failure or f"the bag is incomplete: {write_problem(self.folder, error)}"
        return RecordError(self.failure)


class BagRecorder:
    """An observer of the loop that writes what :class:`saccade.bridge.publishing.RunPublisher` makes of each decision.

    Messages carry the simulation time of their decision as the time of recording. A thread makes and writes them; on
    the loop they cost a copy. When ``record.bag_queue`` messages of a topic wait, ``record.bag_policy`` says what gives
    way: the loop, which waits outside of the latency that is measured (``block``; by itself in lockstep), or a message
    (``drop_oldest``; by itself in real time), which is then counted in its topic's ``dropped``.

    Args:
        directory: The run's folder.
        config: The run.
        intrinsics: Of each camera, by sensor, as the simulator reports them.
        options: Further arguments of the publisher.

    Raises:
        DependencyError: rosbags is not installed.
        RecordError: The folder cannot be written.
    """

    def __init__(
        self, directory: Path, config: RunConfig, *, intrinsics: Mapping[str, Mapping[str, Any]], **options: Any
    ) -> None:
        self.policy: Policy = bag_policy(config)
        self._closed = False
        self._writer = BagWriter(directory / FOLDER)
        ros2 = config.ros2.model_copy(update={"queue": config.record.bag_queue, "policy": self.policy})
        self._bridge = Bridge(None, ros2, recording=self._writer.write)
        self.publisher = RunPublisher(self._bridge, config, intrinsics=intrinsics, stamps=False, **options)
        self.tap = self.publisher.tap

    def __call__(self, tick: Tick) -> None:
        """Hands one decision over; does nothing once something has failed."""
        if self.failure is None and not self._closed:
            self.publisher(tick)

    @property
    def failure(self) -> str | None:
        """Why the bag is incomplete; ``None`` as long as all is well."""
        return self._writer.failure

    def flush(self) -> None:
        """Waits until all that was handed over is with the operating system, at most :data:`DRAIN_S`."""
        self._bridge.flush(DRAIN_S)
        self._writer.flush()

    def verdict(self, summary: Mapping[str, Any]) -> None:
        """Writes the verdict."""
        self.publisher.verdict(summary)

    def facts(self) -> dict[str, Any]:
        """Returns how the recording went: by topic produced = delivered + dropped + in flight."""
        topics = self._bridge.counters()
        return {
            "folder": FOLDER,
            "policy": self.policy,
            "messages": self._writer.messages,
            "bytes": self._writer.bytes,
            "lost": sum(counts["dropped"] for counts in topics.values()),
            "waited_s": sum(counts["waited_s"] for counts in topics.values()),
            "handover_ms": self.publisher.handover_facts(),
            "failure": self.failure,
            "topics": {name: counts for name, counts in topics.items() if counts["produced"]},
        }

    def close(self) -> None:
        """Writes what waits, and the index; safe to call twice."""
        self._closed = True
        self._bridge.close(timeout=DRAIN_S)
        self._writer.close()


def bag_policy(config: RunConfig) -> Policy:
    """Returns what gives way when the disk does not keep up: as configured, else by the pace of the run."""
    if config.record.bag_policy != "auto":
        return config.record.bag_policy
    return "block" if config.simulator.pace == "lockstep" else "drop_oldest"
