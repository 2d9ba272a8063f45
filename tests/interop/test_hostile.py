"""What a faulty or hostile node sends: nothing crashes or blocks, each message is counted and told."""

from __future__ import annotations

import math
import struct

from tests.interop.conftest import introduced, packed, until
from tests.ros_messages import sample

TWIST = "geometry_msgs/msg/Twist"
JOINTS = "sensor_msgs/msg/JointState"


def test_refused_and_counted(peer, bridge):
    """Truncated messages and lengths beyond the message are refused; the next good one arrives all the same.

    Where the middleware itself throws such bytes away, as Cyclone DDS does, they are not even counted.
    """
    from saccade.bridge import messages

    ours = bridge()
    heard: list = []
    ours.subscribe("/hostile", JOINTS, heard.append)
    peer.ask("advertise", topic="/hostile", type=JOINTS)
    introduced(peer, ours, "/hostile")
    good = bytes(messages.encode(sample(JOINTS)))
    huge = good[:12] + struct.pack("<I", 0xFFFFFFFF) + good[16:]
    bad = [packed(data) for data in (good[:20], huge, good[:-8])]
    peer.ask("raw", topic="/hostile", type=JOINTS, data=bad)
    peer.ask("raw", topic="/hostile", type=JOINTS, data=[packed(good)])
    until(lambda: heard)
    counters = ours.counters()["/hostile"]
    assert counters["received"] == len(heard) == 1
    assert counters["refused"] in range(4)
    assert (counters["refusal"] is None) == (counters["refused"] == 0)


def test_garbage(peer, bridge):
    """Bytes that are no CDR at all may ruin their own publisher's topic, and no other one."""
    from saccade.bridge import messages

    ours = bridge()
    heard: list = []
    ours.subscribe("/garbage", JOINTS, lambda message: None)
    ours.subscribe("/good", JOINTS, heard.append)
    for topic in ("/garbage", "/good"):
        peer.ask("advertise", topic=topic, type=JOINTS)
    introduced(peer, ours, "/garbage", "/good")
    peer.ask("raw", topic="/garbage", type=JOINTS, data=[packed(b"\xff" * 64)])
    data = packed(messages.encode(sample(JOINTS)))
    peer.ask("publish", topic="/good", type=JOINTS, data=data, count=5, period=0.2)
    until(lambda: heard)
    assert ours.counters()["/garbage"]["received"] == 0


def test_flood(peer, bridge):
    """A thousand commands a second are all received or given up by their queue; the latest one gets through."""
    from saccade.bridge import messages

    ours = bridge()
    heard: list[float] = []
    ours.subscribe("/flood", TWIST, lambda message: heard.append(message.linear.x))
    peer.ask("advertise", topic="/flood", type=TWIST)
    introduced(peer, ours, "/flood")
    first = sample(TWIST)
    first.linear.x = 1.0
    last = sample(TWIST)
    last.linear.x = 2.0
    peer.ask("publish", topic="/flood", type=TWIST, data=packed(messages.encode(first)), count=2000, period=0.001)
    peer.ask("publish", topic="/flood", type=TWIST, data=packed(messages.encode(last)))
    until(lambda: heard and heard[-1] == 2.0)
    assert 1 < len(heard) <= 2001


def test_commands(peer, bridge):
    """Velocities that are not finite or far too fast, at 1 kHz: each is counted, the last good one is in force."""
    from saccade.bridge import messages
    from saccade.bridge.commands import CommandReceiver
    from saccade.config import HumanoidConfig

    ours = bridge()
    limits = HumanoidConfig(max_speed=1.0, max_yaw_rate=0.5)
    receiver = CommandReceiver(ours, limits, timeout=3600)
    peer.ask("advertise", topic="/cmd_vel", type=TWIST)
    introduced(peer, ours, "/cmd_vel")

    def sent(x: float, yaw: float, count: int) -> None:
        message = sample(TWIST)
        message.linear.x, message.linear.y, message.angular.z = x, 0.0, yaw
        peer.ask(
            "publish", topic="/cmd_vel", type=TWIST, data=packed(messages.encode(message)), count=count, period=1e-3
        )

    sent(0.25, 0.1, 5)
    until(lambda: receiver.facts()["accepted"] >= 1)
    for bad in ((math.nan, 0.0), (math.inf, 0.0), (0.0, -math.inf)):
        sent(*bad, 200)
    until(lambda: receiver.facts()["refused"] >= 3)
    assert (receiver.current(0.0).linear_x, receiver.current(0.0).yaw_rate) == (0.25, 0.1)
    assert "is not finite" in receiver.facts()["refusal"]
    sent(1e300, -1e300, 1000)
    until(lambda: receiver.current(0.0).linear_x == limits.max_speed)
    assert receiver.current(0.0).yaw_rate == -limits.max_yaw_rate
    sent(0.5, 0.0, 1)
    until(lambda: receiver.current(0.0).linear_x == 0.5)
    counters, facts = ours.counters()["/cmd_vel"], receiver.facts()
    assert facts["accepted"] + facts["refused"] == counters["received"] <= 1606
    assert facts["clamped"] >= 1


def test_wrong_type(peer, bridge):
    """Another type on a topic that we listen to is told and not heard; so are its bytes under the right name."""
    from saccade.bridge import messages

    ours = bridge()
    heard: list = []
    ours.subscribe("/wrong", TWIST, heard.append)
    ours.subscribe("/disguised", JOINTS, heard.append)
    peer.ask("advertise", topic="/wrong", type="std_msgs/msg/Float32")
    peer.ask("advertise", topic="/disguised", type=JOINTS)
    introduced(peer, ours, "/disguised")
    told = until(lambda: [text for text in ours.problems() if text.startswith("/wrong:")])
    assert "has type std_msgs/msg/Float32, this node has geometry_msgs/msg/Twist" in told[0]
    floats = packed(messages.encode(sample("std_msgs/msg/Float32")))
    peer.ask("publish", topic="/wrong", type="std_msgs/msg/Float32", data=floats, count=3, period=0.01)
    peer.ask("raw", topic="/disguised", type=JOINTS, data=[floats] * 3)
    peer.ask("raw", topic="/disguised", type=JOINTS, data=[packed(messages.encode(sample(JOINTS)))])
    until(lambda: heard)
    assert len(heard) == 1
    assert heard[0].__msgtype__ == JOINTS
    assert ours.counters()["/wrong"]["received"] == 0


def test_receiver_raises(peer, bridge):
    """A receiver's exception is counted and does not end receiving."""
    from saccade.bridge import messages

    ours = bridge()
    heard: list = []

    def take(message) -> None:
        heard.append(message)
        raise RuntimeError("a mistake in the receiver")

    ours.subscribe("/raises", TWIST, take)
    peer.ask("advertise", topic="/raises", type=TWIST)
    introduced(peer, ours, "/raises")
    data = packed(messages.encode(sample(TWIST)))
    peer.ask("publish", topic="/raises", type=TWIST, data=data, count=3, period=0.01)
    until(lambda: len(heard) == 3)
    facts = until(lambda: ours.transport.facts() if ours.transport.facts()["receiver_failures"] == 3 else None)
    assert facts["receiver_failure"] == "RuntimeError: a mistake in the receiver"


def test_other_domain(peer, bridge, domain):
    """A node in another domain is neither heard nor told of."""
    ours = bridge(domain=domain + 100)
    topic = ours.advertise("/elsewhere", TWIST)
    peer.ask("subscribe", topic="/elsewhere", type=TWIST)
    same = bridge()
    until(lambda: any(endpoint.topic == "/elsewhere" for endpoint in same.transport.endpoints()))
    assert not topic.wanted
    assert not ours.transport.endpoints()
