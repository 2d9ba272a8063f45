"""The humanoid's base on rails: commands, limits and integration, in plain arithmetic."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from saccade.config import HumanoidConfig
from saccade.errors import ConfigurationError
from saccade.frame import Command, now_ns
from saccade.scenes.mounts import nearest_first

MAX_PENDING = 256
"""Commands that wait for their time; with more the oldest one is lost, which never happens at sane delays."""


class Base:
    """Planar pose and velocity of the humanoid's base.

    Args:
        config: Limits of speed and acceleration.
        joints: Joint coordinate and velocity index by joint path.
        joint_names: Joint path by short name.
    """

    def __init__(self, config: HumanoidConfig, joints: Mapping[str, tuple[int, int]], joint_names: Mapping[str, str]):
        self._config = config
        self._joints = joints
        self._names = joint_names
        self._pending: deque[Command] = deque(maxlen=MAX_PENDING)
        self.x = self.y = self.yaw = 0.0
        self.forward = self.left = self.yaw_rate = 0.0
        self.distance = 0.0
        self._wanted = (0.0, 0.0, 0.0)
        self.joint_targets: dict[int, float] = {}
        """Commanded targets by joint coordinate."""

    def place(self, x: float, y: float, yaw: float) -> None:
        """Puts the base somewhere at rest and drops all commands."""
        self.x, self.y, self.yaw = x, y, yaw
        self.forward = self.left = self.yaw_rate = 0.0
        self._wanted = (0.0, 0.0, 0.0)
        self._pending.clear()
        self.joint_targets.clear()

    def accept(self, command: Command) -> None:
        """Checks a command and queues it for its time.

        Raises:
            ConfigurationError: A value is not finite, or a joint is unknown; the text names it.
        """
        for name in ("linear_x", "linear_y", "yaw_rate", "apply_at"):
            if not math.isfinite(getattr(command, name)):
                raise ConfigurationError(f"command.{name} is {getattr(command, name)}: a finite number is needed")
        for joint, target in (command.joint_targets or {}).items():
            self._coordinate(joint)
            if not math.isfinite(target):
                raise ConfigurationError(f"command.joint_targets[{joint!r}] is {target}: a finite number is needed")
        # In order of time; of two commands for the same moment the later one given holds.
        position = len(self._pending)
        while position > 0 and self._pending[position - 1].apply_at > command.apply_at:
            position -= 1
        if len(self._pending) == MAX_PENDING:
            self._pending.popleft()
            position = max(position - 1, 0)
        self._pending.insert(position, command)

    def apply_due(self, sim_time: float, applied: list[tuple[int, int, float]]) -> None:
        """Takes over all commands whose time has come."""
        while self._pending and self._pending[0].apply_at <= sim_time + 1e-9:
            command = self._pending.popleft()
            config = self._config
            speed = math.hypot(command.linear_x, command.linear_y)
            scale = min(1.0, config.max_speed / speed) if speed > 0 else 1.0
            turn = min(max(command.yaw_rate, -config.max_yaw_rate), config.max_yaw_rate)
            self._wanted = (command.linear_x * scale, command.linear_y * scale, turn)
            self.joint_targets.clear()
            for joint, target in (command.joint_targets or {}).items():
                self.joint_targets[self._coordinate(joint)] = float(target)
            applied.append((command.tick, now_ns(), sim_time))

    def advance(self, dt: float) -> None:
        """Integrates velocity and pose over ``dt`` [s] within the limits of acceleration."""
        config = self._config
        change_x, change_y = self._wanted[0] - self.forward, self._wanted[1] - self.left
        change = math.hypot(change_x, change_y)
        allowed = config.max_acceleration * dt
        share = min(1.0, allowed / change) if change > 0 else 1.0
        self.forward += change_x * share
        self.left += change_y * share
        turn = config.max_yaw_acceleration * dt
        self.yaw_rate += min(max(self._wanted[2] - self.yaw_rate, -turn), turn)
        middle = self.yaw + 0.5 * self.yaw_rate * dt
        cos, sin = math.cos(middle), math.sin(middle)
        step_x, step_y = (cos * self.forward - sin * self.left) * dt, (sin * self.forward + cos * self.left) * dt
        self.x += step_x
        self.y += step_y
        self.distance += math.hypot(step_x, step_y)
        self.yaw = math.remainder(self.yaw + self.yaw_rate * dt, 2 * math.pi)

    def motion_heading(self) -> float:
        """Returns the direction of the commanded velocity in the world, the heading when it stands [rad]."""
        forward, left, _ = self._wanted
        if math.hypot(forward, left) < 0.02:
            return self.yaw
        return self.yaw + math.atan2(left, forward)

    def _coordinate(self, joint: str) -> int:
        path = joint if joint in self._joints else self._names.get(joint)
        if path is None:
            near = ", ".join(nearest_first(joint, self._names)[:8])
            raise ConfigurationError(f"command.joint_targets: the humanoid has no joint {joint!r}; nearest are: {near}")
        return self._joints[path][0]
