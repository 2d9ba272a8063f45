"""The peer process with a real rclpy, and our side of the bridge on the transport under test."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".ros-peer"
TREE = FOLDER / "jazzy"
TRANSPORT = os.environ.get("SACCADE_INTEROP_TRANSPORT", "dds")
"""``rclpy`` runs our own side on the peer's rclpy: under its Python, in its environment."""
LEAVES_S = 10.0
"""How long a peer may take to leave in order [s]."""
IN_STEP = 1.0
"""After endpoints know each other [s]: a volatile reliable reader takes part from the writer's next heartbeat on."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = None
    if not any(FOLDER.glob("ready-*")):
        reason = "no ROS 2 peer here: make test-interop fetches it"
        # These bring their own peers.
        items = [item for item in items if Path(item.path).name != "test_native.py"]
    elif TRANSPORT == "dds":
        for module in ("cyclonedds", "rosbags"):
            try:
                __import__(module)
            except ImportError as error:
                reason = f"our side cannot run: {error}"
    if reason is not None:
        for item in items:
            if Path(__file__).parent in Path(item.path).parents:
                item.add_marker(pytest.mark.skip(reason=reason))


LOOPBACK = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
"""As ours by default: both sides keep to the loopback interface, or they do not find each other."""
TUNED_FAST_DDS = {
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",
    "FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "docs" / "fastdds.xml"),
}
"""As docs/ros2.md has it for images: otherwise Fast DDS's buffers are smaller than one."""


def peer_environment(middleware: str, domain: int, *, tuned: bool = True) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    return {
        **kept,
        "ROS_DISTRO": "jazzy",
        "ROS_DOMAIN_ID": str(domain),
        "RMW_IMPLEMENTATION": middleware,
        **(TUNED_FAST_DDS if tuned and middleware == "rmw_fastrtps_cpp" else LOOPBACK),
        "AMENT_PREFIX_PATH": str(TREE),
        "LD_LIBRARY_PATH": str(TREE / "lib"),
        "PYTHONPATH": str(TREE / "rclpy"),
    }


class Peer:
    """The peer process; every method is one request to it."""

    def __init__(self, middleware: str, domain: int) -> None:
        self.middleware = middleware
        self.process = subprocess.Popen(
            [str(FOLDER / "venv" / "bin" / "python"), str(Path(__file__).with_name("peer.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=peer_environment(middleware, domain),
        )
        assert self._answer()["ready"] == middleware

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        self.start(do, **request)
        return self.finish()

    def start(self, do: str, **request: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self.process.stdin.flush()

    def finish(self) -> dict[str, Any]:
        answer = self._answer()
        assert "error" not in answer, answer["error"]
        return answer

    def report(self, topic: str) -> dict[str, Any]:
        return self.ask("report", topic=topic)

    def close(self) -> None:
        """Lets it leave in order: one that is killed leaves its shared memory behind."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(LEAVES_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the peer has died"
        return json.loads(line)


def packed(data: bytes | memoryview) -> str:
    return base64.b64encode(bytes(data)).decode()


def unpacked(text: str) -> bytes:
    return base64.b64decode(text)


def until(true: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """Waits until ``true()`` holds and returns what it returned; the test fails when it never does."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)
    return found


def introduced(peer: Peer, bridge: Any, *topics: str) -> None:
    """Waits until the peer's publishers and our subscribers of ``topics`` know each other."""
    for topic in topics:
        until(lambda topic=topic: peer.ask("matched", topic=topic)["count"])
        until(lambda topic=topic: any(e.publishes and e.topic == topic for e in bridge.transport.endpoints()))
    time.sleep(IN_STEP)


def listened(*topics: Any, peer: Peer | None = None) -> None:
    """Waits until somebody listens to each of our ``topics``, and until the peer's subscribers know us, too."""
    until(lambda: all(topic.wanted for topic in topics))
    for topic in topics if peer is not None else ():
        until(lambda topic=topic: peer.ask("joined", topic=topic.name)["count"])
    time.sleep(IN_STEP)


@pytest.fixture(scope="session")
def domain() -> int:
    """A domain for this test process, away from the default and from other test processes."""
    return 20 + os.getpid() % 80


@pytest.fixture(scope="module", params=["rmw_fastrtps_cpp", "rmw_cyclonedds_cpp"])
def middleware(request) -> str:
    if TRANSPORT == "rclpy" and os.environ.get("RMW_IMPLEMENTATION") != request.param:
        pytest.skip("our own rclpy runs on the other middleware")
    return request.param


@pytest.fixture
def peer(middleware, domain) -> Iterator[Peer]:
    peer = Peer(middleware, domain)
    yield peer
    peer.close()


@pytest.fixture
def bridge(domain):
    """Opens our side, by default with the transport under test; further arguments go to the configuration."""
    from saccade.bridge.bridge import Bridge
    from saccade.bridge.selection import open_transport
    from saccade.config import Ros2Config

    opened = []

    def open_bridge(**fields: Any) -> Bridge:
        config = Ros2Config(**{"domain": domain, "transport": TRANSPORT, **fields})
        transport, _ = open_transport(config)
        opened.append(Bridge(transport, config))
        return opened[-1]

    yield open_bridge
    for made in opened:
        made.close()
