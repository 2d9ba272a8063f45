"""The other side of the interop tests: a plain rclpy node in its own process and Python, told what to do by lines.

Each line on standard input is a JSON object with ``do``; each is answered by one line of JSON.
"""

from __future__ import annotations

import base64
import importlib
import json
import statistics
import sys
import threading
import time
import zlib

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message

KEPT = 64


def message_class(type_name: str):
    package, _, name = type_name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


def profile(request: dict) -> QoSProfile:
    return QoSProfile(
        depth=request.get("depth", 10),
        reliability=ReliabilityPolicy.RELIABLE if request.get("reliable", True) else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL
        if request.get("transient_local", False)
        else DurabilityPolicy.VOLATILE,
    )


class Peer:
    def __init__(self) -> None:
        rclpy.init()
        self.node = rclpy.create_node("peer", namespace="/lab")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.heard: dict[str, dict] = {}
        self.publishers: dict[str, object] = {}
        threading.Thread(target=self.spin, daemon=True).start()

    def spin(self) -> None:
        try:
            self.executor.spin()
        except ExternalShutdownException:
            pass

    def subscribe(self, request: dict) -> dict:
        topic = request["topic"]
        heard = self.heard[topic] = {"count": 0, "bad": 0, "raw": [], "again": [], "late_ms": [], "numbers": []}
        kind = message_class(request["type"])

        def received(data: bytes) -> None:
            now = time.time_ns()
            heard["count"] += 1
            if request.get("check"):
                # What streams is numbered, and carries the checksum of its data in the frame's name.
                message = deserialize_message(data, kind)
                number, checksum = message.header.frame_id.split("-")
                heard["numbers"].append(int(number))
                heard["bad"] += zlib.crc32(memoryview(message.data)) != int(checksum)
                heard["late_ms"].append((now - message.header.stamp.sec * 10**9 - message.header.stamp.nanosec) * 1e-6)
            elif len(heard["raw"]) < KEPT:
                heard["raw"].append(base64.b64encode(data).decode())
                message = deserialize_message(data, kind)
                heard["again"].append(base64.b64encode(serialize_message(message)).decode())

        heard["subscription"] = self.node.create_subscription(kind, topic, received, profile(request), raw=True)
        return {}

    def reset(self, request: dict) -> dict:
        self.heard[request["topic"]].update({"count": 0, "bad": 0, "late_ms": [], "numbers": []})
        return {}

    def count(self, request: dict) -> dict:
        return {"count": self.heard[request["topic"]]["count"]}

    def report(self, request: dict) -> dict:
        heard = self.heard[request["topic"]]
        numbers = heard["numbers"]
        return {
            "count": heard["count"],
            "bad": heard["bad"],
            "raw": heard["raw"],
            "again": heard["again"],
            "latency_ms": statistics.median(heard["late_ms"]) if heard["late_ms"] else None,
            "in_order": numbers == sorted(numbers),
            "distinct": len(set(numbers)),
            "numbers": numbers,
        }

    def publish(self, request: dict) -> dict:
        kind = message_class(request["type"])
        publisher = self.publisher(request)
        message = deserialize_message(base64.b64decode(request["data"]), kind)
        for _ in range(request.get("count", 1)):
            publisher.publish(message)
            time.sleep(request.get("period", 0.0))
        return {"data": base64.b64encode(serialize_message(message)).decode()}

    def advertise(self, request: dict) -> dict:
        self.publisher(request)
        return {}

    def matched(self, request: dict) -> dict:
        return {"count": self.publishers[request["topic"]].get_subscription_count()}

    def joined(self, request: dict) -> dict:
        return {"count": self.heard[request["topic"]]["subscription"].get_publisher_count()}

    def raw(self, request: dict) -> dict:
        """Publishes bytes that rclpy does not look into: what a faulty or hostile node sends."""
        publisher = self.publisher(request)
        for data in request["data"]:
            publisher.publish(base64.b64decode(data))
        return {}

    def stream(self, request: dict) -> dict:
        kind = message_class(request["type"])
        publisher = self.publisher(request)
        message = deserialize_message(base64.b64decode(request["data"]), kind)
        plain = bytearray(message.data)
        start = time.perf_counter()
        first = request.get("start", 0)
        for number in range(first, first + request["count"]):
            plain[number % len(plain)] ^= 0xFF
            data = type(message.data)("B")
            data.frombytes(bytes(plain))
            message.data = data
            message.header.frame_id = f"{number}-{zlib.crc32(plain)}"
            now = time.time_ns()
            message.header.stamp.sec, message.header.stamp.nanosec = now // 10**9, now % 10**9
            publisher.publish(message)
            time.sleep(max(0.0, start + (number + 1 - first) / request["rate"] - time.perf_counter()))
        return {}

    def graph(self, request: dict) -> dict:
        infos = {}
        for topic in request.get("topics", []):
            found = []
            for publishes, asked in (
                (True, self.node.get_publishers_info_by_topic),
                (False, self.node.get_subscriptions_info_by_topic),
            ):
                for info in asked(topic):
                    found.append(
                        {
                            "publishes": publishes,
                            "node": f"{info.node_namespace.rstrip('/')}/{info.node_name}",
                            "type": info.topic_type,
                            "hash": str(info.topic_type_hash),
                            "reliable": info.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
                            "transient_local": info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
                        }
                    )
            infos[topic] = found
        return {
            "topics": dict(self.node.get_topic_names_and_types()),
            "nodes": [f"{space.rstrip('/')}/{name}" for name, space in self.node.get_node_names_and_namespaces()],
            "infos": infos,
        }

    def by_node(self, request: dict) -> dict:
        asked = request["name"], request["namespace"]
        return {
            "publishes": dict(self.node.get_publisher_names_and_types_by_node(*asked)),
            "subscribes": dict(self.node.get_subscriber_names_and_types_by_node(*asked)),
        }

    def type_hash(self, request: dict) -> dict:
        package, _, name = request["type"].split("/")
        share = importlib.import_module("ament_index_python").get_package_share_directory(package)
        with open(f"{share}/msg/{name}.json") as file:
            hashes = json.load(file)["type_hashes"]
        return {"hash": next(entry["hash_string"] for entry in hashes if entry["type_name"] == request["type"])}

    def publisher(self, request: dict):
        topic = request["topic"]
        if topic not in self.publishers:
            self.publishers[topic] = self.node.create_publisher(message_class(request["type"]), topic, profile(request))
        return self.publishers[topic]


def main() -> None:
    peer = Peer()
    print(json.dumps({"ready": rclpy.get_rmw_implementation_identifier()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(peer, request["do"])(request)
        except Exception as error:  # told to the test, which fails with it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    peer.executor.shutdown(timeout_sec=1)
    peer.node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
