"""A walking gait: feet that stay where they stand, legs by inverse kinematics, arms that swing.

Angles of a limb in the sagittal plane are measured from straight down, positive backwards (the rotation about the
base's +y axis). Lengths in metres, in the base frame: x forward, y left, z up, origin at the humanoid's root.
Everything is plain Python arithmetic on floats: nothing is allocated per step but floats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

LEG_ROLES = ("hip_yaw", "hip_roll", "hip_pitch", "knee", "ankle_pitch", "ankle_roll")
REQUIRED_ROLES = ("hip_pitch", "knee", "ankle_pitch")
ARM_ROLES = ("shoulder_pitch", "elbow")
SIDES = ("left", "right")

DUTY = 0.58
"""Share of a cycle in which a foot stands."""
STRETCH = 0.985
"""Share of the leg's length that the gait uses: a straight knee has no inverse."""
STANDING_SPEED = 0.02
"""Foot speed below which the humanoid comes to a stand [m/s]."""
TURN_RADIUS = 0.35
"""Turns a yaw rate [rad/s] into a foot speed [m/s]."""
STEP_RATE_LIMITS = (1.3, 2.4)
"""Steps per second."""


@dataclass(frozen=True, slots=True)
class Joint:
    """One joint that the gait moves."""

    coordinate: int
    """Index into the model's joint coordinates."""
    dof: int
    """Index into the model's joint velocities."""
    sign: float
    """+1 where the joint's axis is the base frame's axis, -1 where it is its opposite."""
    lower: float = -math.inf
    upper: float = math.inf
    offset: float = 0.0
    """Its angle where the gait asks for 0 [rad]."""
    scale: float = 1.0
    """Its angle for every radian that the gait asks for."""


@dataclass(frozen=True, slots=True)
class Leg:
    """A leg as measured at the zero pose."""

    joints: Mapping[str, Joint]
    hip: tuple[float, float, float]
    ankle: tuple[float, float, float]
    thigh_length: float
    shank_length: float
    thigh_angle: float
    """Direction of the thigh at zero joint angles [rad]."""
    shank_angle: float
    sole: float
    """Height of the ankle above the sole [m]."""


@dataclass(frozen=True, slots=True)
class GaitModel:
    """What the gait knows about a humanoid."""

    legs: tuple[Leg, Leg]
    """Left, right."""
    arms: tuple[Mapping[str, Joint], Mapping[str, Joint]]

    @property
    def stand_height(self) -> float:
        """Height of the root above the floor when it stands [m]."""
        return min(_root_height(leg, 0.0) for leg in self.legs)


class _Foot:
    """Where one foot is in the world, and where it lifted off."""

    __slots__ = ("lift_x", "lift_y", "lift_yaw", "swinging", "x", "y", "yaw", "z")

    def __init__(self) -> None:
        self.x = self.y = self.yaw = self.z = 0.0
        self.lift_x = self.lift_y = self.lift_yaw = 0.0
        self.swinging = False


class Gait:
    """The state of a walk; :meth:`advance` moves it on and leaves joint targets behind."""

    def __init__(
        self, model: GaitModel, *, step_length: float = 0.55, swing_height: float = 0.08, arm_swing: float = 0.35
    ):
        """Sets up a gait.

        Args:
            model: The humanoid.
            step_length: Length of a step at 1 m/s [m].
            swing_height: Height of a foot in mid-swing [m].
            arm_swing: Amplitude of the shoulders at 1 m/s [rad].
        """
        self.model = model
        self.step_length = step_length
        self.swing_height = swing_height
        self.arm_swing = arm_swing
        self.joints: list[Joint] = []
        self._slots: list[dict[str, int]] = []
        for part in (*[leg.joints for leg in model.legs], *model.arms):
            slots = {}
            for role, joint in part.items():
                slots[role] = len(self.joints)
                self.joints.append(joint)
            self._slots.append(slots)
        self.targets = [0.0] * len(self.joints)
        """Joint targets [rad], in the order of :attr:`joints`."""
        self.rates = [0.0] * len(self.joints)
        """Rate of change of the targets [rad/s]."""
        self.height = model.stand_height
        """Height of the root above the floor [m]."""
        self.phase = 0.0
        self._feet = (_Foot(), _Foot())
        self._standing = True
        self._rate = STEP_RATE_LIMITS[0] / 2
        self._amplitude = 0.0
        self.reset(0.0, 0.0, 0.0)

    @property
    def standing(self) -> bool:
        """Whether both feet stand side by side and no step is under way."""
        return self._standing

    def foot(self, side: int) -> tuple[float, float, float, bool]:
        """Returns where a foot's ankle should be: world x, y, height over the stand [m] and whether it swings."""
        foot = self._feet[side]
        return foot.x, foot.y, foot.z, foot.swinging

    def reset(self, x: float, y: float, yaw: float, *, phase: float = 0.0, speed: float = 0.0) -> None:
        """Takes a pose of the walk without its history.

        Args:
            x: Root in the world [m].
            y: Root in the world [m].
            yaw: Heading [rad].
            phase: Phase of the walk, 0..1; at 0 the left foot lands.
            speed: Forward speed of the walk [m/s]; 0 stands.
        """
        self.phase = phase % 1.0
        self._standing = abs(speed) < STANDING_SPEED
        self._rate = self._cycles_per_second(abs(speed))
        stance_time = DUTY / self._rate
        for side, foot in enumerate(self._feet):
            ankle = self.model.legs[side].ankle
            share = (self.phase + 0.5 * side) % 1.0
            offset, foot.z, foot.swinging = 0.0, 0.0, False
            if not self._standing:
                half = 0.5 * speed * stance_time
                if share < DUTY:
                    offset = half * (1.0 - 2.0 * share / DUTY)
                else:
                    u = (share - DUTY) / (1.0 - DUTY)
                    offset = half * (2.0 * _smooth(u) - 1.0)
                    foot.z, foot.swinging = self._lift(u, abs(speed)), True
            foot.x, foot.y = _moved(x, y, yaw, ankle[0] + offset, ankle[1])
            foot.yaw = yaw
            if foot.swinging:
                lift = ankle[0] - 0.5 * speed * stance_time
                foot.lift_x, foot.lift_y = _moved(x, y, yaw, lift, ankle[1])
                foot.lift_yaw = yaw
        self._amplitude = 0.0 if self._standing else min(abs(speed), 1.3)
        self.height = self._wanted_height(abs(speed))
        self._solve(x, y, yaw, 0.0)

    def advance(self, dt: float, x: float, y: float, yaw: float, forward: float, left: float, yaw_rate: float) -> float:
        """Moves the walk on by ``dt`` to a given pose and velocity of the base.

        Args:
            dt: Time step [s].
            x: Root in the world at the end of the step [m].
            y: Root in the world at the end of the step [m].
            yaw: Heading at the end of the step [rad].
            forward: Velocity in the base frame [m/s].
            left: Velocity in the base frame [m/s].
            yaw_rate: [rad/s].

        Returns:
            Height of the root above the floor [m].
        """
        speed = math.hypot(forward, left)
        effort = speed + TURN_RADIUS * abs(yaw_rate)
        moving = effort > STANDING_SPEED
        if moving and self._standing:
            # The left foot steps first, at once.
            self._standing = False
            self.phase = DUTY
        if moving:
            self._rate += (self._cycles_per_second(effort) - self._rate) * min(1.0, dt / 0.2)
        else:
            self._rate = max(self._rate, 0.6)
        if not self._standing:
            self.phase = (self.phase + self._rate * dt) % 1.0
            for side in (0, 1):
                self._move_foot(side, x, y, yaw, forward, left, yaw_rate, effort)
            if not moving and self._feet_together(x, y, yaw):
                self._standing = True
        self._amplitude += (min(speed, 1.3) - self._amplitude) * min(1.0, dt / 0.25)
        self.height += (self._wanted_height(speed) - self.height) * min(1.0, dt / 0.15)
        self._solve(x, y, yaw, dt)
        return self.height

    def _cycles_per_second(self, effort: float) -> float:
        # Step length grows with the square root of speed, and so does the step rate, as in people.
        steps = math.sqrt(max(effort, 1e-6)) / self.step_length
        low, high = STEP_RATE_LIMITS
        return 0.5 * min(max(steps, low), high)

    def _lift(self, u: float, effort: float) -> float:
        return self.swing_height * min(1.0, 0.4 + effort) * 16.0 * (u * (1.0 - u)) ** 2

    def _wanted_height(self, speed: float) -> float:
        half = 0.5 * speed * DUTY / self._rate
        return min(_root_height(leg, half) for leg in self.model.legs)

    def _move_foot(
        self, side: int, x: float, y: float, yaw: float, forward: float, left: float, yaw_rate: float, effort: float
    ) -> None:
        """Carries a swinging foot towards the place where it will land; a standing foot stays."""
        foot = self._feet[side]
        share = (self.phase + 0.5 * side) % 1.0
        if share < DUTY:
            foot.swinging, foot.z = False, 0.0
            return
        if not foot.swinging:
            foot.swinging = True
            foot.lift_x, foot.lift_y, foot.lift_yaw = foot.x, foot.y, foot.yaw
        u = (share - DUTY) / (1.0 - DUTY)
        remaining = (1.0 - u) * (1.0 - DUTY) / self._rate
        half_stance = 0.5 * DUTY / self._rate
        landing_x, landing_y = _moved(x, y, yaw + 0.5 * yaw_rate * remaining, forward * remaining, left * remaining)
        landing_yaw = yaw + yaw_rate * remaining
        ankle = self.model.legs[side].ankle
        target_x, target_y = _moved(
            landing_x, landing_y, landing_yaw, ankle[0] + forward * half_stance, ankle[1] + left * half_stance
        )
        target_yaw = landing_yaw + yaw_rate * half_stance
        s = _smooth(u)
        foot.x = foot.lift_x + (target_x - foot.lift_x) * s
        foot.y = foot.lift_y + (target_y - foot.lift_y) * s
        foot.yaw = foot.lift_yaw + _wrapped(target_yaw - foot.lift_yaw) * s
        foot.z = self._lift(u, effort)

    def _feet_together(self, x: float, y: float, yaw: float) -> bool:
        for side, foot in enumerate(self._feet):
            ankle = self.model.legs[side].ankle
            home_x, home_y = _moved(x, y, yaw, ankle[0], ankle[1])
            if foot.swinging or math.hypot(foot.x - home_x, foot.y - home_y) > 0.02:
                return False
            if abs(_wrapped(foot.yaw - yaw)) > 0.04:
                return False
        return True

    def _solve(self, x: float, y: float, yaw: float, dt: float) -> None:
        """Turns feet and phase into joint targets."""
        cos, sin = math.cos(yaw), math.sin(yaw)
        for side, foot in enumerate(self._feet):
            leg = self.model.legs[side]
            dx, dy = foot.x - x, foot.y - y
            self._solve_leg(
                side,
                cos * dx + sin * dy - leg.hip[0],
                cos * dy - sin * dx - leg.hip[1],
                leg.sole + foot.z - self.height - leg.hip[2],
                _wrapped(foot.yaw - yaw),
                dt,
            )
            swing = self.arm_swing * self._amplitude * math.cos(2.0 * math.pi * (self.phase + 0.5 * side))
            self._set(2 + side, "shoulder_pitch", swing, dt)
            self._set(2 + side, "elbow", -0.25 - 0.2 * self._amplitude, dt)

    def _solve_leg(self, side: int, x: float, y: float, z: float, yaw: float, dt: float) -> None:
        """Solves one leg for its ankle at (x, y, z) from the hip, the foot flat and turned by ``yaw``."""
        leg = self.model.legs[side]
        if "hip_yaw" in leg.joints:
            cos, sin = math.cos(yaw), math.sin(yaw)
            x, y = cos * x + sin * y, cos * y - sin * x
            self._set(side, "hip_yaw", yaw, dt)
        roll = 0.0
        depth = -z
        if "hip_roll" in leg.joints:
            # Where the ankle hangs at the zero pose is roll zero.
            rest = math.atan2(leg.ankle[1] - leg.hip[1], leg.hip[2] - leg.ankle[2])
            roll = math.atan2(y, -z) - rest
            depth = math.hypot(y, z) * math.cos(rest)
            self._set(side, "hip_roll", roll, dt)
        first, second = leg.thigh_length, leg.shank_length
        reach = min(max(math.hypot(x, depth), abs(first - second) + 1e-3), (first + second) * 0.9995)
        direction = math.atan2(-x, depth)
        thigh = direction - math.acos(_clamped((first**2 + reach**2 - second**2) / (2 * first * reach)))
        shank = direction + math.acos(_clamped((second**2 + reach**2 - first**2) / (2 * second * reach)))
        self._set(side, "hip_pitch", thigh - leg.thigh_angle, dt)
        self._set(side, "knee", (shank - thigh) - (leg.shank_angle - leg.thigh_angle), dt)
        self._set(side, "ankle_pitch", leg.shank_angle - shank, dt)
        self._set(side, "ankle_roll", -roll, dt)

    def _set(self, part: int, role: str, angle: float, dt: float) -> None:
        slot = self._slots[part].get(role)
        if slot is None:
            return
        joint = self.joints[slot]
        value = min(max(joint.sign * joint.scale * angle + joint.offset, joint.lower), joint.upper)
        self.rates[slot] = (value - self.targets[slot]) / dt if dt > 0 else 0.0
        self.targets[slot] = value


def _root_height(leg: Leg, half_step: float) -> float:
    """Returns the height of the root at which a leg reaches its ankle ``half_step`` ahead or behind [m]."""
    length = STRETCH * (leg.thigh_length + leg.shank_length)
    aside = leg.ankle[1] - leg.hip[1]
    ahead = abs(leg.ankle[0] - leg.hip[0]) + half_step
    reach = math.sqrt(max(length**2 - aside**2 - ahead**2, (0.5 * length) ** 2))
    return reach - leg.hip[2] + leg.sole


def _moved(x: float, y: float, yaw: float, forward: float, left: float) -> tuple[float, float]:
    cos, sin = math.cos(yaw), math.sin(yaw)
    return x + cos * forward - sin * left, y + sin * forward + cos * left


def _smooth(u: float) -> float:
    """Minimum-jerk interpolation from 0 to 1: the foot leaves and lands at rest."""
    return u * u * u * (10.0 + u * (6.0 * u - 15.0))


def _clamped(value: float) -> float:
    return min(max(value, -1.0), 1.0)


def _wrapped(angle: float) -> float:
    return math.remainder(angle, 2.0 * math.pi)
