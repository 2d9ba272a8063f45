"""Images and point clouds at their rates without loss, and receivers that stop or die."""

from __future__ import annotations

import os
import signal
import time
import zlib

import numpy as np
import pytest
from tests.interop.conftest import introduced, listened, packed, until
from tests.ros_messages import sample

IMAGE = "sensor_msgs/msg/Image"
CLOUD = "sensor_msgs/msg/PointCloud2"
HISTORY = 10
"""Messages that both sides' reliable profiles keep."""
PROBE = 10**6
"""Numbers from here on only find out whether the reader takes part already."""


def image(number: int):
    """A 640x480 image that carries its number and checksum."""
    made = sample(IMAGE)
    data = np.full(640 * 480 * 3, number % 256, dtype=np.uint8)
    made.height, made.width, made.encoding, made.step, made.data = 480, 640, "rgb8", 1920, data
    return _stamped(made, number)


def cloud(number: int):
    """32768 points that carry their number and checksum."""
    made = sample(CLOUD)
    made.height, made.width, made.point_step, made.row_step = 1, 32768, 16, 32768 * 16
    made.data = np.full(32768 * 16, number % 251, dtype=np.uint8)
    return _stamped(made, number)


def _stamped(message, number: int):
    now = time.time_ns()
    message.header.stamp.sec, message.header.stamp.nanosec = now // 10**9, now % 10**9
    message.header.frame_id = f"{number}-{zlib.crc32(message.data)}"
    return message


@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_out(peer, bridge, seconds):
    """640x480 at 30 Hz and 32768 points at 10 Hz: each arrives once, in order and whole, and the counters add up.

    The short run, for a machine that has more to do, waits for room and for a peer that lags; the long one never does.
    """
    ours = bridge()
    patient = seconds == 10
    queue = {"capacity": 8, "policy": "block"} if patient else {}
    topics = {
        "/stream/image": ours.advertise("/stream/image", IMAGE, preset="reliable_sensor", **queue),
        "/stream/cloud": ours.advertise("/stream/cloud", CLOUD, preset="reliable_sensor", **queue),
    }
    for topic in topics.values():
        peer.ask("subscribe", topic=topic.name, type=topic.type_name, depth=10, check=True)
    listened(*topics.values(), peer=peer)
    # A volatile reader takes part from some early message on, not always the first: counted are those after that.
    before = dict.fromkeys(topics, 0)
    for name, make in (("/stream/image", image), ("/stream/cloud", cloud)):
        before[name] = _in_step(peer, topics[name], make)
    start = time.perf_counter()
    for number in range(30 * seconds):
        topics["/stream/image"].publish(image(number))
        if number % 3 == 0:
            topics["/stream/cloud"].publish(cloud(number // 3))
        if patient and number >= HISTORY:
            # What the peer has not taken of the last messages its reader keeps; one that is lost is found at the end.
            patient = _comes(lambda number=number: _count(peer, "/stream/image") > number - HISTORY)
        time.sleep(max(0.0, start + (number + 1) / 30 - time.perf_counter()))
    assert ours.flush(20)
    for name, count in (("/stream/image", 30 * seconds), ("/stream/cloud", 10 * seconds)):
        counters = ours.counters()[name]
        expected = count + before[name]
        assert (counters["produced"], counters["delivered"], counters["dropped"]) == (expected, expected, 0)
        # A lost fragment is repaired with the receiver's next answer to a heartbeat.
        _comes(lambda name=name, count=count: _count(peer, name) >= count)
        report = peer.report(name)
        missing = sorted(set(range(count)) - set(report["numbers"]))
        assert (missing, report["count"], report["bad"]) == ([], count, 0)
        assert report["in_order"]


def test_in(peer, bridge):
    """The same from rclpy to us for ten seconds: each arrives once, in order and whole."""
    from saccade.bridge import messages

    ours = bridge()
    numbers: list[int] = []
    bad: list[int] = []

    def take(message) -> None:
        number, checksum = message.header.frame_id.split("-")
        numbers.append(int(number))
        if zlib.crc32(message.data) != int(checksum):
            bad.append(int(number))

    ours.subscribe("/stream/in", IMAGE, take)
    peer.ask("advertise", topic="/stream/in", type=IMAGE)
    introduced(peer, ours, "/stream/in")
    data = packed(messages.encode(image(0)))
    stream = {"topic": "/stream/in", "type": IMAGE, "data": data, "rate": 30}
    for attempt in range(1, 11):
        number = PROBE + attempt
        peer.ask("stream", **stream, count=1, start=number)
        if _comes(lambda number=number: number in numbers):
            break
    assert numbers and numbers[-1] > PROBE
    numbers.clear()
    # As many at a time as our reader keeps: it loses none, however late its thread gets to them.
    for start in range(0, 300, HISTORY):
        peer.ask("stream", **stream, count=HISTORY, start=start)
        until(lambda start=start: len(numbers) >= start + HISTORY)
    assert numbers == list(range(300))
    assert not bad


def _comes(true) -> bool:
    """Whether ``true()`` comes to hold within a while."""
    try:
        until(true, seconds=5)
    except AssertionError:
        return False
    return True


def _count(peer, name: str) -> int:
    return peer.ask("count", topic=name)["count"]


def _in_step(peer, topic, make) -> int:
    """Sends until one message has arrived, then forgets them; returns how many it sent."""
    for attempt in range(1, 11):
        topic.publish(make(PROBE + attempt))
        if _comes(lambda attempt=attempt: PROBE + attempt in peer.report(topic.name)["numbers"]):
            peer.ask("reset", topic=topic.name)
            return attempt
    raise AssertionError(f"{topic.name}: the peer takes no part")


@pytest.mark.parametrize("ended", ["stopped", "killed"])
def test_peer_ends(peer, bridge, ended):
    """A reader that stops reading or dies costs a hand-over nothing: all are taken or dropped, none waits."""
    ours = bridge()
    topic = ours.advertise("/stream/image", IMAGE, preset="reliable_sensor")
    small = ours.advertise("/stream/small", "std_msgs/msg/Float32")
    peer.ask("subscribe", topic=topic.name, type=IMAGE, check=True)
    peer.ask("subscribe", topic=small.name, type=small.type_name)
    listened(topic, small, peer=peer)
    os.kill(peer.process.pid, signal.SIGSTOP if ended == "stopped" else signal.SIGKILL)
    waits = []
    for number in range(60):
        start = time.perf_counter()
        topic.publish(image(number))
        small.publish(sample(small.type_name))
        waits.append(time.perf_counter() - start)
        time.sleep(1 / 60)
    # A hand-over that waited for the reader would wait for the middleware's 100 ms at least.
    assert sorted(waits)[len(waits) // 2] < 0.05
    assert ours.flush(10)
    for name in (topic.name, small.name):
        counters = ours.counters()[name]
        assert counters["produced"] == counters["delivered"] + counters["dropped"]
        assert counters["produced"] + counters["unheard"] == 60
    if ended == "stopped":
        os.kill(peer.process.pid, signal.SIGCONT)
        before = peer.report(topic.name)["count"]

        def heard_again():
            topic.publish(image(1000))
            time.sleep(0.2)
            return peer.report(topic.name)["count"] > before

        until(heard_again, seconds=30)


def test_peer_returns(middleware, bridge, domain):
    """A node that dies and comes back is served again, and the dead one is forgotten."""
    from tests.interop.conftest import Peer

    ours = bridge()
    topic = ours.advertise("/again", "std_msgs/msg/Float32")
    for _ in range(2):
        peer = Peer(middleware, domain)
        peer.ask("subscribe", topic=topic.name, type=topic.type_name)
        listened(topic, peer=peer)
        topic.publish(sample(topic.type_name))
        until(lambda peer=peer: peer.report(topic.name)["count"] == 1)
        # Leaves in order, as a node that ends does; one that is killed is forgotten after its lease of 10 s or more.
        peer.process.stdin.close()
        peer.process.wait()
        peer.process.stdout.close()
        until(lambda: not topic.wanted, seconds=60)
