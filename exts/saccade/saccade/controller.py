"""Who decides: the controller protocol, and the built-in reflex that slows, stops and steers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from saccade.config import ControllerConfig
from saccade.frame import SECTOR_COUNT, Command, Result, SimState

SECTOR = 2 * math.pi / SECTOR_COUNT
WAYPOINT_RADIUS = 0.8
"""A waypoint nearer than this counts as reached [m]."""
BODY_RADIUS = 0.35
"""Half the width that the humanoid needs [m]."""
CREEP_SPEED = 0.12
"""Speed while the camera reports a hazard [m/s]."""
AVOID_TIME = 1.6
"""How long the heading that was found free is kept before the route draws it back [s]."""
AVOID_RATE = 0.7
"""Turn rate away from a hazard [rad/s]."""
GIVE_WAY_SPEED = 0.5
"""Speed away from what has come too close [m/s]."""
TURN_GAIN = 1.6
"""Turn rate per heading error [1/s]."""


class Controller(Protocol):
    """Makes a command of what the networks report, on the loop's thread."""

    def update(self, result: Result, sim_time: float) -> None:
        """Takes in a result about the state at ``sim_time`` [s]."""
        ...

    def decide(self, state: SimState, tick: int) -> Command:
        """Returns the command for the state, from what was taken in so far; never waits."""
        ...

    def reset(self) -> None:
        """Forgets what it has seen: the simulation starts again from where it began."""
        ...


class ReflexController:
    """Walks along the route, or straight on, and yields to what the networks report.

    The heading is the free direction nearest to the route; the speed falls with the perceived clearance in that
    direction. While the camera reports a hazard it creeps and turns to the freer side until the way is free, and
    keeps that heading for a while: low things close by are out of sight for a LiDAR on the head, and soon for the
    camera, too. What comes too close from any side it gives way to, where there is room on the other. Without fresh
    results it stands: a blind robot does not walk.

    Args:
        config: Speeds and distances.
        hazard_thresholds: By network, the probability from which a hazard counts.
        route: Waypoints of a closed loop [m], shape ``(n, 2)``; empty = straight on.
    """

    def __init__(
        self,
        config: ControllerConfig,
        *,
        hazard_thresholds: dict[str, float] | None = None,
        route: Sequence[tuple[float, float]] = (),
    ) -> None:
        self._config = config
        self._thresholds = hazard_thresholds or {}
        self._route = list(route) if config.follow_route else []
        self._next: int | None = None
        self._results: dict[str, tuple[float, Result]] = {}
        self._turning = 0.0
        self._avoid_until = -math.inf

    def reset(self) -> None:
        """Forgets results, the next waypoint and which way it was turning."""
        self._next = None
        self._results.clear()
        self._turning = 0.0
        self._avoid_until = -math.inf

    def update(self, result: Result, sim_time: float) -> None:
        """Takes in a result about the state at ``sim_time`` [s]."""
        self._results[result.network] = (sim_time, result)

    def decide(self, state: SimState, tick: int) -> Command:
        """Returns the command for the state, from the results taken in so far."""
        command = Command(tick=tick, source="reflex")
        if self._config.kind == "stand":
            command.reason = "stand"
            return command
        clearance, hazard, fresh = self._perceived(state.sim_time)
        if not fresh:
            command.reason = "blind"
            return command
        command = self._walk(command, state, clearance, hazard)
        return self._give_way(command, clearance)

    def _walk(self, command: Command, state: SimState, clearance: list[float] | None, hazard: bool) -> Command:
        wanted = self._wanted_heading(state)
        if not hazard and state.sim_time < self._avoid_until:
            wanted = 0.0
        direction = self._free_direction(wanted, clearance)
        ahead = self._ahead(clearance, 0.0)
        blocked = ahead < self._config.stop_clearance or direction is None
        if blocked or hazard:
            # Keep turning the same way until there is room, or two openings would be dithered between.
            if not self._turning:
                self._turning = self._freer_side(clearance, direction)
            command.yaw_rate = AVOID_RATE * self._turning
            command.linear_x = 0.0 if blocked else min(CREEP_SPEED, self._config.cruise_speed)
            command.reason = "stop" if blocked else "avoid"
            self._avoid_until = state.sim_time + AVOID_TIME
            return command
        self._turning = 0.0
        assert direction is not None
        command.yaw_rate = max(-1.0, min(1.0, TURN_GAIN * direction))
        slow = self._config.slow_clearance - self._config.stop_clearance
        room = 1.0 if slow <= 0 else max(0.0, min(1.0, (ahead - self._config.stop_clearance) / slow))
        turn = max(0.2, math.cos(min(abs(direction), math.pi / 2)))
        command.linear_x = self._config.cruise_speed * max(0.3, room) * turn
        if room < 1.0:
            command.reason = "slow"
        else:
            command.reason = "steer" if abs(direction - wanted) > SECTOR / 2 else "cruise"
        return command

    def _give_way(self, command: Command, clearance: list[float] | None) -> Command:
        """Moves away from the nearest thing when it is too near, unless something is as near on the other side."""
        if clearance is None:
            return command
        nearest = min(range(SECTOR_COUNT), key=clearance.__getitem__)
        near = self._config.give_way_clearance
        away = nearest * SECTOR + math.pi
        if clearance[nearest] >= near or self._ahead(clearance, away) < 2 * near:
            return command
        command.linear_x = GIVE_WAY_SPEED * math.cos(away)
        command.linear_y = GIVE_WAY_SPEED * math.sin(away)
        command.reason = "give way"
        return command

    def _perceived(self, sim_time: float) -> tuple[list[float] | None, bool, bool]:
        clearance: list[float] | None = None
        hazard = False
        fresh = False
        for name, (seen, result) in self._results.items():
            if sim_time - seen > self._config.max_result_age or not result.finite:
                return None, False, False
            fresh = True
            if result.hazard is not None:
                hazard = hazard or result.hazard >= self._thresholds.get(name, 0.5)
            if result.clearance is not None:
                if clearance is None:
                    clearance = list(result.clearance)
                else:
                    clearance = [min(a, b) for a, b in zip(clearance, result.clearance, strict=True)]
        return clearance, hazard, fresh

    def _wanted_heading(self, state: SimState) -> float:
        """Heading to the next waypoint in the base frame [rad]; 0 without a route."""
        if not self._route:
            return 0.0
        x, y = state.position[0], state.position[1]
        if self._next is None:
            nearest = min(range(len(self._route)), key=lambda i: math.dist((x, y), self._route[i]))
            # Of the nearest waypoint's two neighbours in the loop, its successor: routes are walked in order.
            self._next = (nearest + 1) % len(self._route)
        if math.dist((x, y), self._route[self._next]) < WAYPOINT_RADIUS:
            self._next = (self._next + 1) % len(self._route)
        target = self._route[self._next]
        return _wrap(math.atan2(target[1] - y, target[0] - x) - state.yaw)

    def _free_direction(self, wanted: float, clearance: list[float] | None) -> float | None:
        """The direction nearest to ``wanted`` [rad] with room to walk, or ``None``."""
        if clearance is None:
            return wanted
        wanted = max(-math.pi / 2, min(math.pi / 2, wanted))
        need = self._config.stop_clearance + 0.5
        for steps in range(9):
            # Nearest first, so that the first with room is the answer: nearly always the wanted one itself.
            sides = (wanted,) if steps == 0 else (wanted - steps * SECTOR / 2, wanted + steps * SECTOR / 2)
            for candidate in sorted(sides, key=abs):
                if abs(candidate) <= 0.75 * math.pi and self._ahead(clearance, candidate) >= need:
                    return candidate
        return None

    @staticmethod
    def _ahead(clearance: list[float] | None, direction: float) -> float:
        """Free distance [m] along ``direction`` for a body of :data:`BODY_RADIUS`, from sector minima."""
        if clearance is None:
            return math.inf
        free = math.inf
        for sector, distance in enumerate(clearance):
            # The nearest return may lie anywhere in its sector: assume the edge that is nearest to the direction.
            offset = max(0.0, abs(_wrap(sector * SECTOR - direction)) - SECTOR / 2)
            if offset < math.pi / 2 and distance * math.sin(offset) < BODY_RADIUS:
                free = min(free, distance * math.cos(offset))
        return free

    @staticmethod
    def _freer_side(clearance: list[float] | None, direction: float | None) -> float:
        """Returns +1 to turn left, -1 to turn right: to where a free direction lies, else to the opener side."""
        if direction is not None and abs(direction) > SECTOR / 4:
            return math.copysign(1.0, direction)
        if clearance is None:
            return 1.0
        left = sum(min(value, 5.0) for value in clearance[1:6])
        right = sum(min(value, 5.0) for value in clearance[-5:])
        return 1.0 if left >= right else -1.0


def _wrap(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi
