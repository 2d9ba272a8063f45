"""ROS 2 in the view model: topics with counts and rates, from a real bridge over a transport that remembers."""

from types import SimpleNamespace

import pytest
from tests.bridge.doubles import KeptTransport

from saccade.bridge import messages
from saccade.bridge.session import BridgeSession
from saccade.config import RunConfig
from saccade.panel.live import LiveRun, with_run
from saccade.panel.picture import picture
from saccade.panel.topics import PERIOD_S, TopicWatch
from saccade.panel.view import TopicRow, View
from saccade.panel.wording import topic_text


def config(**ros2):
    sensors = {"eye": {"kind": "camera", "prim": "eye"}}
    return RunConfig.model_validate({"scene": "room.usda", "sensors": sensors, "ros2": {"enabled": True, **ros2}})


@pytest.fixture
def bridge():
    transport = KeptTransport()
    session = BridgeSession(config(), intrinsics={}, transport=transport)
    yield session, transport
    session.close()


def twist(x):
    still = messages.new("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
    ahead = messages.new("geometry_msgs/msg/Vector3", x=x, y=0.0, z=0.0)
    return messages.new("geometry_msgs/msg/Twist", linear=ahead, angular=still)


def counted(delivered, dropped=None):
    return {"direction": "out", "delivered": delivered, "dropped": dropped or {}, "failures": 0, "failure": None}


def test_rates_are_over_the_newest_readings():
    now = [0.0]
    watch = TopicWatch(clock=lambda: now[0])
    assert watch.rows(lambda: {"/a": counted(4)})[0].rate_hz is None
    for i in range(1, 40):
        now[0] += PERIOD_S / 2  # every other time nothing is read
        rows = watch.rows(lambda n=4 + 5 * i: {"/a": counted(n), "/b": counted(0)})
    assert rows[0].rate_hz == pytest.approx(5 / (PERIOD_S / 2))
    assert rows[1] == TopicRow("1 further topics", "", 0, 0, None, "nothing sent or received yet")
    assert watch._readings.maxlen == len(watch._readings)


def test_what_was_sent_and_received_and_lost_is_shown(bridge):
    session, transport = bridge
    run = LiveRun(session._config)
    assert run.topics() == () and run.commands() == ""
    run.session = SimpleNamespace(bridge=session, networks={}, simulator=None, state=None, sampler=None)
    assert run.commands() == "no command came yet"
    transport.give("/cmd_vel", twist(0.4))
    transport.give("/cmd_vel", twist(float("nan")))
    transport.receivers["/cmd_vel"](b"broken")
    session.verdict({"verdict": "pass", "reasons": []})
    assert session.bridge.flush(5)
    rows = {row.name: row for row in run.topics()}
    received = rows["/cmd_vel"]
    assert (received.direction, received.count, received.lost) == ("in", 2, 1) and received.detail
    assert rows["/saccade/verdict"].count == 1 and rows["/saccade/verdict"].direction == "out"
    said = run.commands()
    assert said.startswith("1 commands accepted, 1 refused") and said.endswith("s old")
    view = with_run(View(state="running"), run, {"eye": _found()}, None)
    assert view.topics and view.commands.startswith("1 commands accepted")


def _found():
    from saccade.panel.view import SensorRow

    return SensorRow("eye", "camera", "/Robot/eye", "found")


def test_words():
    assert topic_text(TopicRow("/a", "out", 12, 3, 9.96)) == "12 sent at 10.0 Hz, 3 dropped"
    assert topic_text(TopicRow("/b", "in", 2, 1, None, "not finite")) == "2 received, 1 refused: not finite"
    assert topic_text(TopicRow("4 further topics", "", 0, 0, None, "quiet")) == "quiet"


def test_the_picture_shows_them():
    plain = picture(View(ros2="joined"))
    shown = picture(
        View(ros2="joined", commands="3 commands", topics=(TopicRow("/eye/image_raw", "out", 12, 0, 10.0),))
    )
    assert shown.size[1] > plain.size[1] or shown.tobytes() != plain.tobytes()
