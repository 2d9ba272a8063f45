"""Commands from outside: checked, clamped, timed out, and as the controller of a run in the reflex's place."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from saccade.bridge.bridge import Bridge
from saccade.config import HumanoidConfig
from saccade.frame import Command, Result, SimState, now_ns

TWIST_TOPIC = "/cmd_vel"
TWIST_STAMPED_TOPIC = "/cmd_vel_stamped"
JOINTS_TOPIC = "/joint_command"
TRAJECTORY_TOPIC = "/trajectory"
PAUSE_TOPIC = "~/pause"
RESET_TOPIC = "~/reset"
STEP_TOPIC = "~/step"
LARGEST_JOINT_TARGET = 1000.0
"""[rad or m]; beyond it is a mistake, whatever the joint."""
MOST_JOINTS = 1024
MOST_POINTS = 100_000
MOST_STEPS = 1_000_000
LATENCIES_KEPT = 100_000


@dataclass(slots=True)
class Commanded:
    """What was last asked for."""

    linear_x: float = 0.0
    linear_y: float = 0.0
    yaw_rate: float = 0.0
    joints: Mapping[str, float] = field(default_factory=dict)
    received: int = 0
    """When it came [ns], on the timeline of :func:`saccade.frame.now_ns`; 0 = nothing came yet."""
    velocity_received: int = 0
    """When a velocity came last [ns]."""


class CommandReceiver:
    """Listens for commands and keeps the last valid one.

    Message callbacks run on the transport's thread, everything else on the loop's.

    Args:
        bridge: The node.
        limits: Speeds to which commands are clamped.
        timeout: Wall time without a command [s] after which the humanoid stops.
        joints: Names of the joints that may be commanded; ``None`` = not checked.
        clock: Monotonic time [ns].
    """

    def __init__(
        self,
        bridge: Bridge,
        limits: HumanoidConfig,
        *,
        timeout: float,
        joints: frozenset[str] | None = None,
        clock: Callable[[], int] = now_ns,
    ) -> None:
        self._limits = limits
        self._timeout = timeout
        self._joints = joints
        self._clock = clock
        self._lock = threading.Lock()
        self._last = Commanded()
        self._trajectory: list[tuple[float, dict[str, float]]] = []
        self._trajectory_start: float | None = None
        self._arrived = threading.Event()
        self.paused = False
        self.resets = 0
        """Resets asked for and not yet taken with :meth:`take_reset`."""
        self._steps = 0
        self.accepted = 0
        self.refused = 0
        """Commands with values that are not finite, or without sense; each leaves the one before in force."""
        self.refusal: str | None = None
        """Why the last of them was refused."""
        self.clamped = 0
        """Commands that asked for more than the limits."""
        self.timeouts = 0
        """Times that commands stopped coming."""
        self._silent = True
        bridge.subscribe(TWIST_TOPIC, "geometry_msgs/msg/Twist", self._checked(TWIST_TOPIC, self._twist))
        bridge.subscribe(
            TWIST_STAMPED_TOPIC,
            "geometry_msgs/msg/TwistStamped",
            self._checked(TWIST_STAMPED_TOPIC, lambda message: self._twist(message.twist)),
        )
        bridge.subscribe(JOINTS_TOPIC, "sensor_msgs/msg/JointState", self._checked(JOINTS_TOPIC, self._joint_state))
        bridge.subscribe(
            TRAJECTORY_TOPIC,
            "trajectory_msgs/msg/JointTrajectory",
            self._checked(TRAJECTORY_TOPIC, self._joint_trajectory),
        )
        bridge.subscribe(PAUSE_TOPIC, "std_msgs/msg/Bool", self._pause)
        bridge.subscribe(RESET_TOPIC, "std_msgs/msg/Empty", self._reset)
        bridge.subscribe(STEP_TOPIC, "std_msgs/msg/UInt32", self._checked(STEP_TOPIC, self._step))

    def current(self, sim_time: float) -> Commanded | None:
        """Returns what holds now: stopped after a silence, with the trajectory's targets; ``None`` before any command.

        Args:
            sim_time: Simulation time [s]: trajectories run in it, from the first call after their arrival.
        """
        with self._lock:
            last = self._last
            if not last.received:
                return None
            age = (self._clock() - last.velocity_received) * 1e-9
            silent = not last.velocity_received or age > self._timeout
            if silent and not self._silent:
                self.timeouts += 1
            self._silent = silent
            joints = {**last.joints, **self._targets(sim_time)}
            if silent:
                return Commanded(joints=joints, received=last.received, velocity_received=last.velocity_received)
            return Commanded(last.linear_x, last.linear_y, last.yaw_rate, joints, last.received, last.velocity_received)

    @property
    def age_s(self) -> float | None:
        """Time since the newest command came [s]; ``None`` before any."""
        with self._lock:
            received = self._last.received
        return (self._clock() - received) * 1e-9 if received else None

    @property
    def silent(self) -> bool:
        """Whether the last call of :meth:`current` found that velocities no longer come."""
        return self._silent

    def wait(self, seconds: float) -> bool:
        """Waits for the first command, at most ``seconds`` [s]; returns whether it came."""
        return self._arrived.wait(seconds)

    def take_reset(self) -> bool:
        """Returns whether a reset was asked for since the last call."""
        with self._lock:
            asked, self.resets = self.resets > 0, 0
            return asked

    def drop_trajectory(self) -> None:
        """Forgets the trajectory that is being followed."""
        with self._lock:
            self._trajectory = []
            self._trajectory_start = None

    def may_step(self) -> bool:
        """Returns whether the simulation may take a step: always unless paused, then once per step asked for."""
        with self._lock:
            if not self.paused:
                return True
            if self._steps:
                self._steps -= 1
                return True
            return False

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say."""
        with self._lock:
            return {
                "accepted": self.accepted,
                "refused": self.refused,
                "refusal": self.refusal,
                "clamped": self.clamped,
                "timeouts": self.timeouts,
            }

    def _checked(self, topic: str, take: Callable[[Any], None]) -> Callable[[Any], None]:
        """Counts a message that ``take`` accepts or refuses; what was in force before stays in force then."""

        def taken(message: Any) -> None:
            with self._lock:
                try:
                    take(message)
                except _Refused as refused:
                    self.refused += 1
                    self.refusal = f"{topic}: {refused}"
                    return
                self.accepted += 1
            if topic != STEP_TOPIC:
                self._arrived.set()

        return taken

    def _twist(self, twist: Any) -> None:
        asked = (float(twist.linear.x), float(twist.linear.y), float(twist.angular.z))
        if not all(map(math.isfinite, asked)):
            raise _Refused(f"velocity {asked} is not finite")
        x, y, yaw_rate = asked
        speed = math.hypot(x, y)
        factor = min(1.0, self._limits.max_speed / speed) if speed else 1.0
        held = max(-self._limits.max_yaw_rate, min(self._limits.max_yaw_rate, yaw_rate))
        self.clamped += factor < 1.0 or held != yaw_rate
        now = self._clock()
        self._last = Commanded(x * factor, y * factor, held, self._last.joints, now, now)

    def _joint_state(self, message: Any) -> None:
        targets = self._named(message.name, message.position)
        if not targets:
            raise _Refused("no joint is named")
        now = self._clock()
        last = self._last
        self._trajectory = []
        self._last = Commanded(
            last.linear_x, last.linear_y, last.yaw_rate, {**last.joints, **targets}, now, last.velocity_received
        )

    def _joint_trajectory(self, message: Any) -> None:
        if not 0 < len(message.points) <= MOST_POINTS:
            raise _Refused(f"{len(message.points)} points, expected 1 to {MOST_POINTS}")
        points = []
        before = -math.inf
        for point in message.points:
            at = point.time_from_start.sec + point.time_from_start.nanosec * 1e-9
            if at < 0 or at <= before:
                raise _Refused(f"time_from_start {at:g} s does not come after {before:g} s")
            points.append((at, self._named(message.joint_names, point.positions)))
            before = at
        last = self._last
        self._trajectory = points
        self._trajectory_start = None
        self._last = Commanded(
            last.linear_x, last.linear_y, last.yaw_rate, last.joints, self._clock(), last.velocity_received
        )

    def _named(self, names: Any, positions: Any) -> dict[str, float]:
        if len(names) != len(positions) or len(names) > MOST_JOINTS:
            raise _Refused(f"{len(names)} names with {len(positions)} positions")
        unknown = [name for name in names if self._joints is not None and name not in self._joints]
        if unknown:
            raise _Refused(f"no joint {', '.join(map(repr, unknown[:3]))}")
        targets = {str(name): float(value) for name, value in zip(names, positions, strict=True)}
        for name, value in targets.items():
            if not abs(value) <= LARGEST_JOINT_TARGET:  # also refuses NaN
                raise _Refused(f"joint {name!r}: {value} is no position")
        return targets

    def _targets(self, sim_time: float) -> dict[str, float]:
        """The trajectory's targets now: linear between its points, the last held; the first from the start on."""
        if not self._trajectory:
            return {}
        if self._trajectory_start is None:
            self._trajectory_start = sim_time
        elapsed = sim_time - self._trajectory_start
        before = self._trajectory[0]
        for point in self._trajectory:
            if point[0] > elapsed:
                if point is before:
                    return dict(point[1])
                share = (elapsed - before[0]) / (point[0] - before[0])
                return {name: value + share * (point[1][name] - value) for name, value in before[1].items()}
            before = point
        return dict(before[1])

    def _pause(self, message: Any) -> None:
        with self._lock:
            self.paused = bool(message.data)
            self._steps = 0

    def _reset(self, message: Any) -> None:
        with self._lock:
            self.resets += 1

    def _step(self, message: Any) -> None:
        if not 0 < message.data <= MOST_STEPS:
            raise _Refused(f"{message.data} steps, expected 1 to {MOST_STEPS}")
        self._steps = min(self._steps + int(message.data), MOST_STEPS)


class Ros2Controller:
    """An external controller in the built-in reflex's place: has its interface, and passes on what was received.

    Each command's latency, from its receipt to the decision that carries it, is kept once per command.

    Args:
        receiver: Where commands come from.
    """

    def __init__(self, receiver: CommandReceiver) -> None:
        self._receiver = receiver
        self._applied = 0
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)

    def reset(self) -> None:
        """Drops a trajectory; the last velocity holds until its time is over."""
        self._receiver.drop_trajectory()

    def update(self, result: Result, sim_time: float) -> None:
        """Does nothing: the external controller gets the results as topics."""

    def decide(self, state: SimState, tick: int) -> Command:
        """Returns the command that holds now, standing before the first one and after a silence."""
        command = Command(tick=tick, source="ros2")
        current = self._receiver.current(state.sim_time)
        if current is None:
            command.reason = "wait"
            return command
        command.linear_x, command.linear_y = current.linear_x, current.linear_y
        command.yaw_rate = current.yaw_rate
        command.joint_targets = dict(current.joints) or None
        command.reason = "silent" if self._receiver.silent else "external"
        if current.received != self._applied:
            self._applied = current.received
            self._latencies.append((now_ns() - current.received) * 1e-6)
        return command

    def latencies_ms(self) -> list[float]:
        """Returns the time from each command's receipt to its decision [ms], oldest first."""
        return list(self._latencies)


class _Refused(Exception):
    """Why a command is not taken."""


def pause_while(receiver: CommandReceiver, stopped: Callable[[], bool], *, period: float = 0.005) -> float:
    """Waits while the run is paused; returns for how long [s].

    Args:
        receiver: Says whether it is.
        stopped: Whether the run ends anyway, such as after Ctrl-C.
        period: How often both are asked [s].
    """
    start = time.perf_counter()
    while not receiver.may_step() and not stopped():
        time.sleep(period)
    return time.perf_counter() - start
