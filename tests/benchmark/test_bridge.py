"""The bridge's cost: published and not in blocks, times put to the right side, and what is refused."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

pytest.importorskip("rosbags")

from tests.benchmark.sessions import session_for
from tests.bridge.doubles import KeptTransport

from saccade.benchmark import bridge as group
from saccade.benchmark.measure import InvalidMeasurement
from saccade.bridge.bridge import Bridge
from saccade.config import Ros2Config
from saccade.frame import Stamps


@pytest.fixture
def kept():
    bridge = Bridge(KeptTransport(), Ros2Config())
    yield bridge
    bridge.close()


def tick(index, *, phase="judged", finite=True, ms=4):
    stamps = Stamps()
    stamps.sim_state, stamps.decided = 1_000_000, 1_000_000 * (1 + ms)
    results = {"eye": [SimpleNamespace(finite=finite)]}
    return SimpleNamespace(index=index, phase=phase, frames=[SimpleNamespace(stamps=stamps)], results=results)


def test_blocks_take_turns(kept):
    """Every other block is published; the first decision of each and the warm-up are not counted."""
    published = []
    observer = group.AlternatingPublisher(lambda tick: published.append(tick.index), kept)
    for index in range(4 * group.BLOCK):
        on = (index // group.BLOCK) % 2 == 0
        observer(tick(index, phase="warmup" if index < group.BLOCK else "judged", ms=3 if on else 2))
    assert published == [*range(group.BLOCK), *range(2 * group.BLOCK, 3 * group.BLOCK)]
    counted = group.BLOCK - group.SETTLE
    assert observer.frames_ms == {True: [3.0] * counted, False: [2.0] * 2 * counted}
    assert {on: len(turns) for on, turns in observer.turns_ms.items()} == {True: counted, False: 2 * counted}
    assert len(observer.hand_over_ms) == counted
    assert all(value > 0 for value in observer.turns_ms[True] + observer.turns_ms[False])


def test_each_image_is_copied_and_sent(kept):
    """What is timed has really been done: one message of 640x480 in three bytes for each."""
    topic = kept.advertise(group.IMAGE_TOPIC, group.IMAGE_TYPE)
    times = group.hand_overs(kept, topic, device="cpu", count=12)
    assert len(times) == 12 and all(value > 0 for value in times)
    sent = kept.transport.publications[group.IMAGE_TOPIC].sent
    assert len(sent) == 12 + group.FIRST_HAND_OVERS
    assert all(len(data) > 640 * 480 * 3 for data in sent)
    assert group._accounted(kept)[group.IMAGE_TOPIC]["delivered"] == len(sent)


def test_failed_messages_are_refused(kept):
    """A message that could not be sent has not cost what one costs."""
    topic = kept.advertise(group.IMAGE_TOPIC, group.IMAGE_TYPE)
    topic.publish(lambda: 1 / 0)
    with pytest.raises(InvalidMeasurement, match="messages failed"):
        group._accounted(kept)


def test_what_nobody_heard_is_refused(kept):
    """Without an image at the other process, with wild outputs or five decisions nothing is reported."""
    observer = group.AlternatingPublisher(lambda tick: None, kept)
    ros2 = SimpleNamespace(reason="given")
    simulator = SimpleNamespace(device="cpu")
    arguments = ({}, {group.IMAGE_TOPIC: 3}, ros2, simulator)
    for index in range(3 * group.BLOCK - 1):
        observer(tick(index))
    with pytest.raises(InvalidMeasurement, match="fewer than six"):
        group._result(observer, [0.1] * 20, *arguments)
    for index in range(3 * group.BLOCK, 8 * group.BLOCK):
        observer(tick(index))
    assert group._result(observer, [0.1] * 20, *arguments)["ratios"]["bridge_on_over_off"]["value"] == 1.0
    with pytest.raises(InvalidMeasurement, match="got no image"):
        group._result(observer, [0.1] * 20, {}, {}, ros2, simulator)
    observer(tick(8 * group.BLOCK, finite=False))
    with pytest.raises(InvalidMeasurement, match="non-finite"):
        group._result(observer, [0.1] * 20, *arguments)


def test_another_process_listens():
    """Over DDS, the listener gets each image that was handed over, and says so at the end."""
    pytest.importorskip("cyclonedds")
    from saccade.bridge.selection import open_transport

    config = Ros2Config(transport="dds", domain=100 + os.getpid() % 100)
    transport, _ = open_transport(config)
    bridge = Bridge(transport, config)
    try:
        topic = bridge.advertise(group.IMAGE_TOPIC, group.IMAGE_TYPE, preset="reliable_sensor")
        with group.listening(bridge, config) as heard:
            group.hand_overs(bridge, topic, device="cpu", count=20)
        assert 1 <= heard[group.IMAGE_TOPIC] <= 20 + group.FIRST_HAND_OVERS
    finally:
        bridge.close()


def test_without_a_transport_it_is_missing(monkeypatch):
    """Where neither transport imports, the group is left out with the reason, and is not invalid."""
    from saccade.benchmark import suite
    from saccade.bridge import selection
    from saccade.errors import DependencyError

    def choose(wanted):
        raise DependencyError("ros2: neither transport can be used")

    monkeypatch.setattr(selection, "choose", choose)
    session = session_for()
    result = {"ratios": {}, "invalid": {}}
    suite._run_group("bridge", session, result)
    assert session.missing["bridge"] == "ros2: neither transport can be used"
    assert result == {"ratios": {}, "invalid": {}}


@pytest.mark.slow
def test_the_loop_is_published_in_blocks():
    """The warehouse with every topic listened to: all messages accounted for, figures from both kinds of block."""
    pytest.importorskip("cyclonedds")
    pytest.importorskip("newton")
    found = group.measure_bridge(session_for(frames=20))
    assert found["ratios"]["bridge_on_over_off"]["n"] >= 15
    topics = found["bridge"]["topics"]
    assert topics["/head_camera/image_raw"]["received"] > 0
    assert topics["/lidar/points"]["received"] > 0
    assert all(one["produced"] == one["delivered"] + one["dropped"] for one in topics.values())
    assert found["bridge"]["hand_over_ms"]["n"] == 20
