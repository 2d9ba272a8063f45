"""Every message type both ways between our side and a real rclpy, byte for byte."""

from __future__ import annotations

import pytest
from tests.interop.conftest import introduced, listened, packed, unpacked, until
from tests.ros_messages import same, sample

TYPES = [
    "builtin_interfaces/msg/Time",
    "rosgraph_msgs/msg/Clock",
    "std_msgs/msg/Bool",
    "std_msgs/msg/Empty",
    "std_msgs/msg/Float32",
    "std_msgs/msg/Float32MultiArray",
    "std_msgs/msg/String",
    "std_msgs/msg/UInt32",
    "geometry_msgs/msg/Twist",
    "geometry_msgs/msg/TwistStamped",
    "tf2_msgs/msg/TFMessage",
    "sensor_msgs/msg/JointState",
    "nav_msgs/msg/Odometry",
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CameraInfo",
    "sensor_msgs/msg/PointCloud2",
    "sensor_msgs/msg/LaserScan",
    "vision_msgs/msg/Detection2DArray",
    "diagnostic_msgs/msg/DiagnosticArray",
    "trajectory_msgs/msg/JointTrajectory",
]


def topic_of(type_name: str) -> str:
    return f"/all/{type_name.rsplit('/', 1)[1].lower()}"


def test_out(peer, bridge):
    """What rclpy receives is what was sent, bytes and all, and it reads every field as it was."""
    from saccade.bridge import messages

    ours = bridge()
    sent = {type_name: sample(type_name, seed=1) for type_name in TYPES}
    topics = {type_name: ours.advertise(topic_of(type_name), type_name) for type_name in TYPES}
    for type_name in TYPES:
        peer.ask("subscribe", topic=topic_of(type_name), type=type_name)
    listened(*topics.values(), peer=peer)
    for type_name, topic in topics.items():
        assert topic.publish(sent[type_name])
    until(lambda: all(peer.report(topic_of(type_name))["count"] == 1 for type_name in TYPES))
    for type_name in TYPES:
        report = peer.report(topic_of(type_name))
        data = bytes(messages.encode(sent[type_name]))
        assert unpacked(report["raw"][0])[4 : len(data)] == data[4:], type_name
        assert same(messages.decode(unpacked(report["again"][0]), type_name), sent[type_name]), type_name
    counters = ours.counters()
    assert all(counters[topic.name]["delivered"] == 1 for topic in topics.values())


def test_in(peer, bridge):
    """What rclpy sends arrives with every field as it was; on Cyclone DDS, which pads with zeros, byte for byte."""
    from saccade.bridge import messages

    ours = bridge()
    received: dict[str, list] = {type_name: [] for type_name in TYPES}
    for type_name in TYPES:
        ours.subscribe(topic_of(type_name), type_name, received[type_name].append)
        peer.ask("advertise", topic=topic_of(type_name), type=type_name)
    introduced(peer, ours, *map(topic_of, TYPES))
    for type_name in TYPES:
        message = sample(type_name, seed=2)
        data = messages.encode(message)
        serialised = unpacked(peer.ask("publish", topic=topic_of(type_name), type=type_name, data=packed(data))["data"])
        if peer.middleware == "rmw_cyclonedds_cpp":
            assert serialised[4:].ljust(len(data) - 4, b"\0") == bytes(data)[4:], type_name
    until(lambda: all(received.values()))
    for type_name, found in received.items():
        assert len(found) == 1
        assert same(found[0], sample(type_name, seed=2)), type_name


@pytest.mark.parametrize("length", [0, 1])
def test_sequences(peer, bridge, length):
    """Empty and single-element sequences, where alignment goes wrong first, survive the round trip."""
    from saccade.bridge import messages

    ours = bridge()
    topics = {type_name: ours.advertise(topic_of(type_name), type_name) for type_name in TYPES}
    for type_name in TYPES:
        peer.ask("subscribe", topic=topic_of(type_name), type=type_name)
    listened(*topics.values(), peer=peer)
    for type_name, topic in topics.items():
        topic.publish(sample(type_name, seed=3, length=length))
    until(lambda: all(peer.report(topic_of(type_name))["count"] == 1 for type_name in TYPES))
    for type_name in TYPES:
        again = unpacked(peer.report(topic_of(type_name))["again"][0])
        assert same(messages.decode(again, type_name), sample(type_name, seed=3, length=length)), type_name
