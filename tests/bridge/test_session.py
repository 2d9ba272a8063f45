"""The ROS 2 side of a run: an external controller is waited for, acts on every frame, and is reported."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("rosbags")

from tests.bridge.doubles import KeptTransport
from tests.bridge.test_commands import header, twist
from tests.onnx_models import camera_network, lidar_network
from tests.scripted_simulator import ScriptedSimulator
from tests.test_loop import Sink, configuration

from saccade.bridge import messages
from saccade.bridge.base import TransportError
from saccade.bridge.session import BridgeSession
from saccade.config import RunConfig
from saccade.errors import EngineError
from saccade.frame import SimState
from saccade.loop import PerceptionLoop
from saccade.network import Network
from saccade.validation.scorer import LabelScorer


def wanted(**ros2) -> RunConfig:
    document = configuration(frames=10, warmup=0).model_dump()
    document["controller"]["kind"] = "ros2"
    document["ros2"].update(enabled=True, command_timeout=60.0, **ros2)
    return RunConfig.model_validate(document)


def test_controller_needs_the_bridge():
    """An external controller without the bridge is a configuration error that says what to set."""
    document = configuration().model_dump()
    document["controller"]["kind"] = "ros2"
    with pytest.raises(ValueError, match=r"ros2\.enabled"):
        RunConfig.model_validate(document)


def test_acts_on_every_frame(tmp_path):
    """Each record names the external controller and carries what it asked for."""
    config = wanted()
    transport = KeptTransport()
    session = BridgeSession(config, intrinsics={}, transport=transport)
    transport.give("/cmd_vel", twist(0.3, 0.0, 0.2))
    session.wait_for_controller(say=lambda text: None)
    camera_network(tmp_path / "camera.onnx")
    lidar_network(tmp_path / "lidar.onnx")
    networks = {
        name: Network(name, entry, tmp_path / entry.model, sensors=config.sensors, engine=config.engine)
        for name, entry in config.networks.items()
    }
    simulator = ScriptedSimulator(config)
    sink = Sink()
    loop = PerceptionLoop(
        config,
        simulator=simulator,
        networks=networks,
        controller=session.controller,
        sink=sink,
        scorer=LabelScorer(),
        observers=[session.publisher],
    )
    loop.run(simulator.open("none"))
    assert {record["command"]["source"] for record in sink} == {"ros2"}
    assert {record["command"]["reason"] for record in sink} == {"external"}
    assert {(record["command"]["linear"][0], record["command"]["yaw_rate"]) for record in sink} == {(0.3, 0.2)}
    facts = session.facts()
    assert facts["command_latency_ms"]["n"] == 1
    assert facts["commands"]["accepted"] == 1
    session.close()
    session.close()
    assert transport.closed


def test_nobody_controls():
    """The wait ends in time and says on which topics and where it waited."""
    session = BridgeSession(wanted(controller_wait=0.3), intrinsics={}, transport=KeptTransport())
    said: list[str] = []
    with pytest.raises(EngineError) as caught:
        session.wait_for_controller(say=said.append)
    session.close()
    assert said == ["waiting up to 0.3 s for a controller on /cmd_vel or /joint_command or /trajectory"]
    assert "no command came within 0.3 s on /cmd_vel" in str(caught.value)


def test_stopped_while_waiting():
    """Ctrl-C ends the wait at once and without an error of its own."""
    session = BridgeSession(wanted(controller_wait=3600), intrinsics={}, transport=KeptTransport())
    session.wait_for_controller(say=lambda text: None, stopped=lambda: True)
    session.close()


def test_transport_refuses():
    """A middleware that refuses a topic closes the node and ends the run with its reason."""

    class Refusing(KeptTransport):
        def subscribe(self, topic, type_name, qos, received) -> None:
            raise TransportError(f"{topic}: no more room")

    transport = Refusing()
    with pytest.raises(EngineError, match="no more room"):
        BridgeSession(wanted(), intrinsics={}, transport=transport)
    assert transport.closed


def empty():
    return messages.new("std_msgs/msg/Empty", structure_needs_at_least_one_member=0)


def answers(transport):
    publication = transport.publications["/saccade/reset_result"]
    return [json.loads(messages.decode(data, "std_msgs/msg/String").data) for data in publication.sent]


def test_reset():
    """A reset that is asked for is done once, answered and counted; several at a time are one."""
    transport = KeptTransport()
    session = BridgeSession(wanted(), intrinsics={}, transport=transport, resettable=True)
    state = SimState(sim_time=1.5)
    assert not session.reset(state)
    transport.give("/saccade/reset", empty())
    transport.give("/saccade/reset", empty())
    assert [session.reset(state) for _ in range(3)] == [True, False, False]
    assert session.bridge.flush(5)
    assert answers(transport) == [{"done": True, "sim_time": 1.5}]
    assert session.facts()["resets"] == {"done": 1, "refused": 0}
    session.close()


def test_reset_that_cannot_be():
    """A simulator that cannot start again says so to who asked, and the run goes on."""
    transport = KeptTransport()
    session = BridgeSession(wanted(), intrinsics={}, transport=transport)
    transport.give("/saccade/reset", empty())
    assert not session.reset(SimState(sim_time=2.0))
    assert session.bridge.flush(5)
    (answer,) = answers(transport)
    assert answer["done"] is False and "cannot start again" in answer["reason"]
    assert session.facts()["resets"] == {"done": 0, "refused": 1}
    session.close()


def test_unknown_joint_is_refused_not_run():
    """With the joints known, a command for another one is refused where it comes in: it must not end the run."""
    transport = KeptTransport()
    session = BridgeSession(wanted(), intrinsics={}, transport=transport, joints=frozenset({"knee"}))
    fields = {"name": ["elbow"], "position": np.array([0.1]), "velocity": np.zeros(0), "effort": np.zeros(0)}
    transport.give("/joint_command", messages.new("sensor_msgs/msg/JointState", header=header(), **fields))
    assert session.facts()["commands"]["refused"] == 1
    assert "'elbow'" in session.facts()["commands"]["refusal"]
    session.close()
