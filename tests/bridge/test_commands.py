"""Commands: clamped, refused with the one before in force, timed out to a stop; the controller passes them on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rosbags")

from tests.bridge.doubles import KeptTransport
from tests.ros_messages import sample

from saccade.bridge import messages
from saccade.bridge.bridge import Bridge
from saccade.bridge.commands import CommandReceiver, Ros2Controller
from saccade.config import HumanoidConfig, Ros2Config
from saccade.frame import SimState

LIMITS = HumanoidConfig(max_speed=1.0, max_yaw_rate=0.5)


class Setup:
    def __init__(self, **options) -> None:
        self.now = 1_000_000_000
        self.transport = KeptTransport()
        self.bridge = Bridge(self.transport, Ros2Config())
        self.receiver = CommandReceiver(self.bridge, LIMITS, timeout=0.5, clock=lambda: self.now, **options)

    def twist(self, x=0.0, y=0.0, yaw=0.0) -> None:
        self.transport.give("/cmd_vel", twist(x, y, yaw))

    def joints(self, names, positions) -> None:
        message = messages.new(
            "sensor_msgs/msg/JointState",
            header=header(),
            name=list(names),
            position=np.array(positions, dtype=np.float64),
            velocity=np.zeros(0),
            effort=np.zeros(0),
        )
        self.transport.give("/joint_command", message)

    def trajectory(self, names, points) -> None:
        made = [
            messages.new(
                "trajectory_msgs/msg/JointTrajectoryPoint",
                positions=np.array(positions, dtype=np.float64),
                velocities=np.zeros(0),
                accelerations=np.zeros(0),
                effort=np.zeros(0),
                time_from_start=messages.new(
                    "builtin_interfaces/msg/Duration", sec=int(at // 1), nanosec=int(at % 1 * 1e9)
                ),
            )
            for at, positions in points
        ]
        message = messages.new(
            "trajectory_msgs/msg/JointTrajectory", header=header(), joint_names=list(names), points=made
        )
        self.transport.give("/trajectory", message)


def header():
    stamp = messages.new("builtin_interfaces/msg/Time", sec=0, nanosec=0)
    return messages.new("std_msgs/msg/Header", stamp=stamp, frame_id="")


def twist(x=0.0, y=0.0, yaw=0.0):
    vector = "geometry_msgs/msg/Vector3"
    return messages.new(
        "geometry_msgs/msg/Twist",
        linear=messages.new(vector, x=x, y=y, z=0.0),
        angular=messages.new(vector, x=0.0, y=0.0, z=yaw),
    )


@pytest.fixture
def setup():
    made = []

    def make(**options) -> Setup:
        made.append(Setup(**options))
        return made[-1]

    yield make
    for one in made:
        one.bridge.close()


def test_nothing_yet(setup):
    """Before any command there is none, and the controller stands and says that it waits."""
    one = setup()
    assert one.receiver.current(0.0) is None
    command = Ros2Controller(one.receiver).decide(SimState(), 7)
    assert (command.source, command.reason, command.tick) == ("ros2", "wait", 7)
    assert (command.linear_x, command.linear_y, command.yaw_rate) == (0, 0, 0)
    assert not one.receiver.wait(0)


def test_twist_and_stamped(setup):
    """Both kinds of velocity command are taken, the later one holds."""
    one = setup()
    one.twist(0.3, -0.2, 0.1)
    assert one.receiver.wait(0)
    current = one.receiver.current(0.0)
    assert (current.linear_x, current.linear_y, current.yaw_rate) == (0.3, -0.2, 0.1)
    assert current.received == one.now
    stamped = messages.new("geometry_msgs/msg/TwistStamped", header=header(), twist=twist(0.6))
    one.transport.give("/cmd_vel_stamped", stamped)
    assert one.receiver.current(0.0).linear_x == 0.6
    assert one.receiver.facts()["accepted"] == 2


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_clamped(x, y, yaw):
    """Whatever is asked for, speed and turn rate stay within the limits and the direction is kept."""
    one = Setup()
    one.twist(x, y, yaw)
    current = one.receiver.current(0.0)
    one.bridge.close()
    speed = math.hypot(current.linear_x, current.linear_y)
    assert speed <= LIMITS.max_speed * (1 + 1e-9)
    assert abs(current.yaw_rate) <= LIMITS.max_yaw_rate
    assert math.isclose(current.linear_x * y, current.linear_y * x, rel_tol=1e-6, abs_tol=1e-6)
    assert one.receiver.clamped == (math.hypot(x, y) > LIMITS.max_speed or abs(yaw) > LIMITS.max_yaw_rate)


@pytest.mark.parametrize("bad", [(math.nan, 0, 0), (0, math.inf, 0), (0, 0, -math.inf)])
def test_not_finite(setup, bad):
    """A velocity that is not finite is refused and told, and the one before stays in force."""
    one = setup()
    one.twist(0.4)
    one.twist(*map(float, bad))
    assert one.receiver.current(0.0).linear_x == 0.4
    facts = one.receiver.facts()
    assert (facts["accepted"], facts["refused"]) == (1, 1)
    assert facts["refusal"].startswith("/cmd_vel: velocity (")


def test_silence_stops(setup):
    """After the configured silence the velocity is zero, once counted; the next command moves again."""
    one = setup()
    controller = Ros2Controller(one.receiver)
    one.twist(0.4)
    one.now += 499_000_000
    assert controller.decide(SimState(), 0).linear_x == 0.4
    one.now += 2_000_000
    for _ in range(3):
        command = controller.decide(SimState(), 1)
        assert (command.linear_x, command.reason) == (0.0, "silent")
    assert one.receiver.timeouts == 1
    one.twist(0.2)
    command = controller.decide(SimState(), 2)
    assert (command.linear_x, command.reason) == (0.2, "external")


def test_joints(setup):
    """Joint targets are merged by name and do not keep a velocity alive."""
    one = setup(joints=frozenset({"knee", "hip"}))
    one.twist(0.4)
    one.joints(["knee"], [0.5])
    one.joints(["hip"], [0.1])
    one.now += 600_000_000
    one.joints(["knee"], [0.6])
    current = one.receiver.current(0.0)
    assert current.joints == {"knee": 0.6, "hip": 0.1}
    assert current.linear_x == 0.0


@pytest.mark.parametrize(
    ("names", "positions", "why"),
    [
        (["knee"], [math.nan], "is no position"),
        (["knee"], [1e9], "is no position"),
        (["knee", "hip"], [0.1], "2 names with 1 positions"),
        (["tail"], [0.1], "no joint 'tail'"),
        ([], [], "no joint is named"),
    ],
)
def test_joints_refused(setup, names, positions, why):
    """Joint commands without sense are refused with the reason, and nothing of them is in force."""
    one = setup(joints=frozenset({"knee", "hip"}))
    one.joints(names, positions)
    assert one.receiver.current(0.0) is None
    assert why in one.receiver.facts()["refusal"]


def test_trajectory(setup):
    """A trajectory runs in simulation time from its first use, linear between points, and holds its last."""
    one = setup()
    one.trajectory(["knee"], [(0.0, [0.0]), (1.0, [1.0]), (2.0, [0.0])])
    for sim_time, expected in ((10.0, 0.0), (10.5, 0.5), (11.0, 1.0), (11.75, 0.25), (12.0, 0.0), (99.0, 0.0)):
        assert one.receiver.current(sim_time).joints["knee"] == pytest.approx(expected)


@pytest.mark.parametrize("points", [[], [(1.0, [0.0]), (1.0, [1.0])], [(2.0, [0.0]), (1.0, [0.0])], [(0.0, [])]])
def test_trajectory_refused(setup, points):
    """Trajectories without points, with times that do not increase or without positions are refused whole."""
    one = setup()
    one.trajectory(["knee"], points)
    assert one.receiver.current(0.0) is None
    assert one.receiver.refused == 1


def test_pause_step_reset(setup):
    """Paused, the run may take exactly the steps that are asked for; a reset is taken once."""
    one = setup()
    assert one.receiver.may_step()
    one.transport.give("/saccade/pause", messages.new("std_msgs/msg/Bool", data=True))
    assert not one.receiver.may_step()
    one.transport.give("/saccade/step", messages.new("std_msgs/msg/UInt32", data=2))
    assert [one.receiver.may_step() for _ in range(3)] == [True, True, False]
    one.transport.give("/saccade/pause", messages.new("std_msgs/msg/Bool", data=False))
    assert one.receiver.may_step()
    one.transport.give("/saccade/reset", messages.new("std_msgs/msg/Empty", structure_needs_at_least_one_member=0))
    assert one.receiver.take_reset()
    assert not one.receiver.take_reset()


def test_latency_once_per_command(setup):
    """The time from receipt to decision is kept once per command, however many decisions it holds for."""
    one = setup()
    controller = Ros2Controller(one.receiver)
    for number in range(3):
        one.now += 1000
        one.twist(0.1 * (number + 1))
        for _ in range(4):
            controller.decide(SimState(), 0)
    assert len(controller.latencies_ms()) == 3


def test_malformed(setup):
    """Bytes that are no command never reach the receiver."""
    one = setup()
    one.transport.receivers["/cmd_vel"](b"\0\1\0\0short")
    assert one.bridge.counters()["/cmd_vel"]["refused"] == 1
    assert one.receiver.facts()["refused"] == 0
    assert one.receiver.current(0.0) is None


@given(
    st.sampled_from(["/cmd_vel", "/cmd_vel_stamped", "/joint_command", "/trajectory"]),
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8),
)
def test_fuzz_commands(topic, length, changes):
    """Changed bytes on any command topic: each is counted once, and what holds then is finite and in the limits."""
    types = {
        "/cmd_vel": "geometry_msgs/msg/Twist",
        "/cmd_vel_stamped": "geometry_msgs/msg/TwistStamped",
        "/joint_command": "sensor_msgs/msg/JointState",
        "/trajectory": "trajectory_msgs/msg/JointTrajectory",
    }
    one = Setup()
    data = bytearray(messages.encode(sample(types[topic], length=length)))
    for offset, value in changes:
        data[offset % len(data)] = value
    one.transport.receivers[topic](bytes(data))
    counters, facts = one.bridge.counters()[topic], one.receiver.facts()
    current = one.receiver.current(0.0)
    one.bridge.close()
    assert counters["received"] + counters["refused"] == 1
    assert facts["accepted"] + facts["refused"] == counters["received"]
    if current is not None:
        assert math.hypot(current.linear_x, current.linear_y) <= LIMITS.max_speed * (1 + 1e-9)
        assert abs(current.yaw_rate) <= LIMITS.max_yaw_rate
        assert all(math.isfinite(value) for value in current.joints.values())
