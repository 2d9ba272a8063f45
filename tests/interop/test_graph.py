"""What rclpy says about our node, profiles that match or cannot, and late joiners."""

from __future__ import annotations

import itertools

import pytest
from tests.interop.conftest import TRANSPORT, introduced, listened, packed, unpacked, until
from tests.ros_messages import sample

STRING = "std_msgs/msg/String"


def test_node_and_topics(peer, bridge):
    """rclpy lists the node with its namespace, its topics with types and hashes, and which of them are the node's."""
    from saccade.bridge import messages

    ours = bridge(node="saccade_test", namespace="/robot")
    ours.advertise("camera/image_raw", "sensor_msgs/msg/Image")
    ours.advertise("/detections", "vision_msgs/msg/Detection2DArray")
    ours.subscribe("/cmd_vel", "geometry_msgs/msg/Twist", lambda message: None)
    topics = ["/robot/camera/image_raw", "/detections", "/cmd_vel"]

    def seen():
        # An endpoint is known before the announcement that names its node has come.
        graph = peer.ask("graph", topics=topics)
        infos = graph["infos"].values()
        named = all(infos) and not any("UNKNOWN" in info["node"] for found in infos for info in found)
        return graph if named and "/robot/saccade_test" in graph["nodes"] else None

    graph = until(seen)
    assert graph["topics"]["/robot/camera/image_raw"] == ["sensor_msgs/msg/Image"]
    for topic in topics:
        (info,) = graph["infos"][topic]
        assert info["node"] == "/robot/saccade_test"
        assert info["hash"] == messages.type_hash(info["type"]), topic
        assert info["publishes"] == (topic != "/cmd_vel")
    own = peer.ask("by_node", name="saccade_test", namespace="/robot")
    assert own["publishes"].get("/detections") == ["vision_msgs/msg/Detection2DArray"]
    assert own["subscribes"].get("/cmd_vel") == ["geometry_msgs/msg/Twist"]


def test_graph_type_hash(peer, bridge):
    """The node's own announcement has the type hash that rclpy has for it."""
    if TRANSPORT != "dds":
        pytest.skip("rclpy announces its node itself")
    from saccade.bridge.dds import GRAPH_TYPE_HASH

    expected = peer.ask("type_hash", type="rmw_dds_common/msg/ParticipantEntitiesInfo")["hash"]
    assert expected == GRAPH_TYPE_HASH


def test_we_know_them(peer, bridge):
    """The peer's endpoints are known with node, type and profile."""
    ours = bridge()
    peer.ask("subscribe", topic="/theirs", type=STRING, reliable=False)

    def found():
        return [endpoint for endpoint in ours.transport.endpoints() if endpoint.topic == "/theirs" and endpoint.owner]

    (endpoint,) = until(found)
    assert endpoint.owner == "/lab/peer"
    assert endpoint.type_name == STRING
    assert not endpoint.publishes
    assert not endpoint.qos.reliable


PROFILES = list(itertools.product([True, False], [True, False]))


@pytest.mark.parametrize(("reliable", "latched"), PROFILES)
def test_profiles_out(peer, bridge, reliable, latched):
    """A message arrives exactly where no more is requested than offered; where not, both profiles are told."""
    ours = bridge()
    presets = ("default", "sensor", "latched")
    topics = {preset: ours.advertise(f"/qos/{preset}", STRING, preset=preset) for preset in presets}
    for preset in topics:
        peer.ask("subscribe", topic=f"/qos/{preset}", type=STRING, reliable=reliable, transient_local=latched)
    expected = {
        "default": not latched,
        "sensor": not reliable and not latched,
        "latched": True,
    }
    listened(*(topic for preset, topic in topics.items() if expected[preset]), peer=peer)
    until(lambda: len(ours.problems()) == sum(not meets for meets in expected.values()))
    for topic in topics.values():
        topic.publish(sample(STRING))
    for preset, meets in expected.items():
        if meets:
            until(lambda preset=preset: peer.report(f"/qos/{preset}")["count"] == 1)
        else:
            assert peer.report(f"/qos/{preset}")["count"] == 0
            assert ours.counters()[f"/qos/{preset}"]["unheard"] == 1
            (told,) = [text for text in ours.problems() if text.startswith(f"/qos/{preset}:")]
            assert "offered (" in told and "requested (" in told
            assert ("reliability" in told) == (preset == "sensor" and reliable)
            assert ("durability" in told) == latched


def test_profiles_in(peer, bridge):
    """Our reliable subscription gets nothing from a best-effort publisher and says why; from a reliable one it does."""
    ours = bridge()
    heard: list = []
    ours.subscribe("/in/good", STRING, heard.append)
    ours.subscribe("/in/bad", STRING, heard.append)
    peer.ask("advertise", topic="/in/good", type=STRING)
    peer.ask("advertise", topic="/in/bad", type=STRING, reliable=False)
    introduced(peer, ours, "/in/good")
    data = packed(_encoded(STRING))
    peer.ask("publish", topic="/in/bad", type=STRING, data=data)
    peer.ask("publish", topic="/in/good", type=STRING, data=data)
    until(lambda: ours.counters()["/in/good"]["received"] == 1)
    assert ours.counters()["/in/bad"]["received"] == 0
    told = until(lambda: next((text for text in ours.problems() if "/lab/peer" in text), None))
    assert len(ours.problems()) == 1
    assert told.startswith("/in/bad: the publisher of /lab/peer cannot match because of reliability")


def test_other_type(peer, bridge):
    """Another type on our topic is told, and neither side gets anything from the other."""
    ours = bridge()
    topic = ours.advertise("/mixed", STRING)
    peer.ask("subscribe", topic="/mixed", type="std_msgs/msg/Float32")
    (told,) = until(ours.problems)
    assert "has type std_msgs/msg/Float32, this node has std_msgs/msg/String" in told
    assert not topic.publish(sample(STRING))


def test_late_joiner(peer, bridge):
    """A latched message that was sent before anybody listened reaches whoever comes later, in both directions."""
    ours = bridge()
    topic = ours.advertise("/latched/out", STRING, preset="latched")
    assert topic.publish(sample(STRING, seed=5))
    assert ours.flush(5)
    peer.ask("subscribe", topic="/latched/out", type=STRING, transient_local=True, depth=1)
    until(lambda: peer.report("/latched/out")["count"] == 1)
    assert unpacked(peer.report("/latched/out")["raw"][0])[4:] == bytes(_encoded(STRING, seed=5))[4:]
    latched = {"topic": "/latched/in", "type": STRING, "transient_local": True, "depth": 1}
    peer.ask("publish", **latched, data=packed(_encoded(STRING, seed=6)))
    heard: list = []
    ours.subscribe("/latched/in", STRING, heard.append, preset="latched")
    until(lambda: heard)
    assert heard[0].data == sample(STRING, seed=6).data


def _encoded(type_name, *, seed=1):
    from saccade.bridge import messages

    return messages.encode(sample(type_name, seed=seed))
