"""What a faulty or hostile node sends: nothing crashes or blocks, each message is counted and told."""

from __future__ import annotations

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
