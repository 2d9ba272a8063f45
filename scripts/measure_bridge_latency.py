#!/usr/bin/env python3
"""Measures how old a 640x480 image is when a plain rclpy subscriber has it, and writes docs/benchmarks/bridge.json.

    python scripts/fetch_ros_peer.py              # a real rclpy, once
    python scripts/measure_bridge_latency.py      # a few minutes; the machine should do nothing else
    python scripts/write_benchmarks.py

Both transports send to Fast DDS and to Cyclone DDS, each as it comes and tuned as docs/ros2.md has it: large buffers,
and memory that is kept. An image is stamped when the loop hands it over and is looked at when the subscriber's callback
begins; both processes are on one machine and its clock. Every image counts; one that never came is told as lost.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".ros-peer"
TOPIC, TYPE = "/bench/image", "sensor_msgs/msg/Image"
TRANSPORTS = ("dds", "rclpy")
MIDDLEWARES = {"rmw_fastrtps_cpp": "Fast DDS", "rmw_cyclonedds_cpp": "Cyclone DDS"}
RATE = 30
"""[Hz]"""
FIRST = 30
"""Images that are not counted: both sides have just found each other."""
LARGE_BUFFERS = (
    "<CycloneDDS><Domain><Internal><SocketReceiveBufferSize min='default' max='4194304B'/></Internal>"
    "</Domain></CycloneDDS>"
)
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "67108864", "MALLOC_TRIM_THRESHOLD_": "536870912"}
"""glibc otherwise gives an image's memory back and takes it anew: some 900 page faults for each, on Fast DDS."""
WAIT_S = 60.0


def main() -> int:
    """Measures all combinations and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300, help="images per combination (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each combination (default: %(default)s)")
    parser.add_argument("--note", help="what should be known about this measurement, such as the machine's load")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks" / "bridge.json")
    parser.add_argument("--role", choices=("send", "receive"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role == "send":
        return send(json.loads(sys.stdin.readline()))
    if arguments.role == "receive":
        return receive()
    if not any(PEER.glob("ready-*")):
        parser.error("there is no rclpy to measure with: python scripts/fetch_ros_peer.py fetches one")
    result = measured(arguments.images, arguments.repeats, arguments.note)
    with tempfile.NamedTemporaryFile("w", dir=arguments.output.parent, suffix=".part", delete=False) as file:
        json.dump(result, file, indent=2, allow_nan=False)
        file.write("\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, arguments.output)
    print(arguments.output)
    return 0


def measured(images: int, repeats: int, note: str | None) -> dict[str, Any]:
    """Returns all combinations, measured in turns, with what they ran on."""
    from saccade.benchmark.measure import median
    from saccade.benchmark.suite import commit
    from saccade.telemetry.host import host_facts, package_versions

    combinations = list(itertools.product(TRANSPORTS, MIDDLEWARES, (True, False)))
    found: dict[tuple[str, str, bool], list[dict[str, Any]]] = {one: [] for one in combinations}
    before = os.getloadavg()
    for repeat in range(repeats):
        for one in combinations if repeat % 2 == 0 else reversed(combinations):
            transport, middleware, tuned = one
            print(f"run {repeat + 1} of {repeats}: {described(*one)}", file=sys.stderr, flush=True)
            found[one].append(run(transport, middleware, tuned=tuned, images=images))
    rows = []
    for (transport, middleware, tuned), runs in found.items():
        late = [value for each in runs for value in each["late_ms"]]
        rows.append(
            {
                "transport": transport,
                "middleware": middleware,
                "tuned": tuned,
                "latency_ms": median(late) if late else None,
                "p95_ms": sorted(late)[int(0.95 * (len(late) - 1))] if late else None,
                "max_ms": max(late, default=None),
                "sent": images * repeats,
                "lost": images * repeats - len(late),
                "medians_by_run_ms": [median(each["late_ms"])["value"] for each in runs],
            }
        )
    facts = host_facts()
    return {
        "schema": 1,
        "kind": "bridge_latency",
        "rate_hz": RATE,
        "image": [640, 480, 3],
        "latency": rows,
        "load": [*before, *os.getloadavg()],
        "rmem_max": int(Path("/proc/sys/net/core/rmem_max").read_text()),
        "host": {key: facts[key] for key in ("cpu", "cores", "memory_mb", "system") if key in facts},
        "versions": package_versions(),
        **commit(),
        "note": note,
    }


def described(transport: str, middleware: str, tuned: bool) -> str:
    """Returns a combination in words."""
    return f"{transport} to {MIDDLEWARES[middleware]}, {'tuned' if tuned else 'untuned'}"


def run(transport: str, middleware: str, *, tuned: bool, images: int) -> dict[str, Any]:
    """Sends images to a subscriber in another process; returns how late each was [ms]."""
    domain = 100 + os.getpid() % 100
    peer_python = str(PEER / "venv" / "bin" / "python")
    script = str(Path(__file__).resolve())
    receiver_environment = peer_environment(middleware, domain, tuned=tuned)
    if transport == "rclpy":
        sender_python, sender_environment = peer_python, dict(receiver_environment)
        sender_environment["PYTHONPATH"] += os.pathsep + str(ROOT / "exts" / "saccade")
    else:
        sender_python = sys.executable
        sender_environment = {**os.environ, "PYTHONPATH": str(ROOT / "exts" / "saccade")}
        if tuned:
            sender_environment |= KEPT_MEMORY
    receiver = _process(peer_python, script, "receive", receiver_environment)
    sender = None
    try:
        assert receiver.stdin is not None and receiver.stdout is not None
        _line(receiver.stdout)
        sender = _process(sender_python, script, "send", sender_environment)
        assert sender.stdin is not None and sender.stdout is not None
        sender.stdin.write(json.dumps({"transport": transport, "domain": domain, "images": images}) + "\n")
        sender.stdin.flush()
        counters = json.loads(_line(sender.stdout))
        receiver.stdin.write(f"{images}\n")
        receiver.stdin.flush()
        return {**json.loads(_line(receiver.stdout)), "counters": counters}
    finally:
        for process in (sender, receiver):
            if process is not None:
                process.kill()
                process.communicate()


def peer_environment(middleware: str, domain: int, *, tuned: bool) -> dict[str, str]:
    """Returns the environment of a process on the peer's rclpy."""
    tree = PEER / "jazzy"
    found = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ},
        "ROS_DISTRO": "jazzy",
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "RMW_IMPLEMENTATION": middleware,
        "AMENT_PREFIX_PATH": str(tree),
        "LD_LIBRARY_PATH": str(tree / "lib"),
        "PYTHONPATH": str(tree / "rclpy"),
    }
    if tuned:
        found |= KEPT_MEMORY
    if tuned and middleware == "rmw_fastrtps_cpp":
        found["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SYSTEM_DEFAULT"
        found["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(ROOT / "docs" / "fastdds.xml")
    elif tuned:
        found["CYCLONEDDS_URI"] = LARGE_BUFFERS
    return found


def send(request: dict[str, Any]) -> int:
    """Sends images on the bridge as a run does, and writes the topic's counters."""
    import numpy as np

    from saccade.bridge import contents
    from saccade.bridge.bridge import Bridge
    from saccade.bridge.selection import open_transport
    from saccade.config import Ros2Config

    config = Ros2Config(transport=request["transport"], domain=request["domain"])
    transport, _ = open_transport(config)
    bridge = Bridge(transport, config)
    topic = bridge.advertise(TOPIC, TYPE, preset="reliable_sensor")
    picture = np.random.default_rng(0).integers(0, 2**32, (480, 640), dtype=np.uint32)
    slots = [np.empty_like(picture) for _ in range(topic.channel.capacity + 2)]
    deadline = time.monotonic() + WAIT_S
    while not topic.wanted:
        assert time.monotonic() < deadline, "nobody listens"
        time.sleep(0.05)
    start = time.perf_counter()
    for number in range(-FIRST, request["images"]):
        now = time.time_ns()
        slot = slots[number % len(slots)]
        np.copyto(slot, picture)
        stamp = contents.new("builtin_interfaces/msg/Time", sec=now // 10**9, nanosec=now % 10**9)
        topic.publish(lambda stamp=stamp, number=number, slot=slot: contents.color_image(stamp, str(number), slot))
        time.sleep(max(0.0, start + (number + FIRST + 1) / RATE - time.perf_counter()))
    bridge.flush(10)
    print(json.dumps(bridge.counters()[TOPIC]), flush=True)
    sys.stdin.read()
    return 0


def receive() -> int:
    """Subscribes in plain rclpy; told how many images were sent, waits for them and writes how late each was [ms]."""
    import rclpy
    from rclpy.qos import QoSProfile
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("receiver")
    late: dict[int, float] = {}

    def take(data: bytes) -> None:
        now = time.time_ns()
        header = deserialize_message(data, Image).header
        late[int(header.frame_id)] = (now - header.stamp.sec * 10**9 - header.stamp.nanosec) * 1e-6

    node.create_subscription(Image, TOPIC, take, QoSProfile(depth=10), raw=True)
    threading.Thread(target=rclpy.spin, args=(node,), daemon=True).start()
    print("ready", flush=True)
    images = int(sys.stdin.readline())
    deadline = time.monotonic() + 10
    while images - 1 not in late and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    print(json.dumps({"late_ms": [late[number] for number in range(images) if number in late]}), flush=True)
    os._exit(0)


def _process(python: str, script: str, role: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, script, "--role", role], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def _line(stream: IO[str]) -> str:
    line = stream.readline()
    if not line:
        raise RuntimeError("a process has ended early: see above")
    return line


if __name__ == "__main__":
    sys.exit(main())
