"""The humanoid's walk in PhysX: base and gait as in the embedded simulator, as values for one physics step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.config import SimulatorConfig
from saccade.errors import SceneError
from saccade.frame import Command, Contact
from saccade.scenes.gait import Gait
from saccade.scenes.limbs import StageHumanoid
from saccade.simulators.newton_base import Base
from saccade.simulators.newton_contacts import RELEASE_TIME

GLIDE_CLEARANCE = 0.005
"""Height of a gliding humanoid's soles above the floor [m]: it must not drag its feet."""


@dataclass(slots=True)
class Moment:
    """Where the humanoid was."""

    sim_time: float
    x: float
    y: float
    z: float
    yaw: float
    heading: float


class StageWalk:
    """Where the root has to be and where the drives have to go, physics step by physics step.

    Args:
        config: The simulator's configuration.
        humanoid: As the stage describes it.
        joints: Paths of its joints in the order of the gait's coordinates.
        authored: Drive targets of the stage by joint path [rad or m].
    """

    def __init__(
        self,
        config: SimulatorConfig,
        humanoid: StageHumanoid,
        joints: Sequence[str],
        authored: Mapping[str, float],
    ) -> None:
        self._humanoid = humanoid
        self._joints = list(joints)
        short: dict[str, str] = {}
        for path in self._joints:
            name = path.rsplit("/", 1)[-1]
            short[name] = "" if name in short else path
        names = {name: path for name, path in short.items() if path}
        places = {path: (i, i) for i, path in enumerate(self._joints)}
        self.base = Base(config.humanoid, places, names)
        gait = config.humanoid.gait
        self.gait = (
            Gait(
                humanoid.gait,
                step_length=gait.step_length,
                swing_height=gait.swing_height,
                arm_swing=gait.arm_swing,
            )
            if humanoid.gait is not None
            else None
        )
        self._authored = [authored.get(path, 0.0) for path in self._joints]
        self._touched: set[int] = set()
        """Coordinates that a command has set once: they are put back where no command holds any more."""
        self.position = np.zeros((1, 3), dtype=np.float32)
        """Of the root link in the world at the beginning of the step [m]."""
        self.rotation = np.zeros((1, 4), dtype=np.float32)
        """Quaternion w, x, y, z."""
        self.linear = np.zeros((1, 3), dtype=np.float32)
        self.angular = np.zeros((1, 3), dtype=np.float32)
        self.dofs = np.zeros(0, dtype=np.int32)
        """Degrees of freedom of the articulation that :attr:`targets` are for."""
        self.targets = np.zeros((1, 0), dtype=np.float32)
        """[rad or m]"""
        self._dof_of: dict[int, int] = {}
        self.base.place(*humanoid.start)
        if self.gait is not None:
            self.gait.reset(*humanoid.start)
        self.height = self._wanted_height(0.0)
        """Of the root link in the world [m]."""

    def bind(self, dof_names: Sequence[str]) -> None:
        """Finds the joints among the articulation's degrees of freedom.

        Raises:
            SceneError: The physics lacks a joint of the gait.
        """
        known = {name: i for i, name in enumerate(dof_names)}
        self._dof_of = {}
        for i, path in enumerate(self._joints):
            dof = known.get(path.rsplit("/", 1)[-1])
            if dof is not None:
                self._dof_of[i] = dof
        wanted = {joint.coordinate for joint in self.gait.joints} if self.gait is not None else set()
        lost = [self._joints[i] for i in sorted(wanted - self._dof_of.keys())]
        if lost:
            raise SceneError(
                f"the articulation {self._humanoid.path} has no degree of freedom for {', '.join(lost[:8])}; it has "
                f"{', '.join(dof_names)}"
            )
        self._fill_targets()

    def accept(self, command: Command) -> None:
        """Queues a command for its time; see :class:`saccade.simulators.newton_base.Base`."""
        self.base.accept(command)

    def advance(self, sim_time: float, dt: float, applied: list[tuple[int, int, float]]) -> None:
        """Moves base and gait on by one physics step.

        Args:
            sim_time: At the beginning of the step [s].
            dt: Its length [s].
            applied: Gets the commands that take effect: tick, monotonic time [ns], simulation time [s].
        """
        self.base.apply_due(sim_time, applied)
        base = self.base
        x, y, z, yaw = base.x, base.y, self.height, base.yaw
        pose = self._humanoid.root_pose(x, y, z, yaw)
        self.position[0] = pose[:3]
        self.rotation[0] = (pose[6], pose[3], pose[4], pose[5])
        base.advance(dt)
        self.height = self._wanted_height(dt)
        # The physics integrates these over its step, and so arrives where the base is then.
        self.linear[0] = ((base.x - x) / dt, (base.y - y) / dt, (self.height - z) / dt)
        self.angular[0] = (0.0, 0.0, math.remainder(base.yaw - yaw, 2 * math.pi) / dt)
        self._fill_targets()

    def moment(self, sim_time: float) -> Moment:
        """Returns where the humanoid is now, at ``sim_time`` [s]."""
        base = self.base
        return Moment(sim_time, base.x, base.y, self.height, base.yaw, base.motion_heading())

    def _wanted_height(self, dt: float) -> float:
        base, floor = self.base, self._humanoid.floor_height
        if self.gait is None:
            return floor + self._humanoid.root_height + GLIDE_CLEARANCE
        if dt > 0:
            return floor + self.gait.advance(dt, base.x, base.y, base.yaw, base.forward, base.left, base.yaw_rate)
        return floor + self.gait.height

    def _fill_targets(self) -> None:
        wanted: dict[int, float] = {}
        if self.gait is not None:
            for joint, target in zip(self.gait.joints, self.gait.targets, strict=True):
                wanted[joint.coordinate] = target
        for coordinate in self._touched:
            wanted.setdefault(coordinate, self._authored[coordinate])
        for coordinate, target in self.base.joint_targets.items():
            wanted[coordinate] = target
            self._touched.add(coordinate)
        found = [(self._dof_of[i], target) for i, target in sorted(wanted.items()) if i in self._dof_of]
        if len(found) != len(self.dofs):
            self.dofs = np.array([dof for dof, _ in found], dtype=np.int32)
            self.targets = np.zeros((1, len(found)), dtype=np.float32)
        self.dofs[:] = [dof for dof, _ in found]
        self.targets[0] = [target for _, target in found]


class ContactLog:
    """Onsets of contacts between the humanoid and anything but the floor, from the physics' reports.

    Args:
        own: Paths of the humanoid's links.
        thing_of: Path of the thing that a collider belongs to; ``None`` = the floor, which does not count.
    """

    def __init__(self, own: Sequence[str], thing_of: Any) -> None:
        self._own = tuple(own)
        self._thing_of = thing_of
        self._last: dict[str, float] = {}
        self.onsets: list[Contact] = []

    def touch(self, first: str, second: str, sim_time: float) -> None:
        """Takes two colliders that touch at ``sim_time`` [s]; a contact lost for less than 0.3 s is the same one."""
        mine = [self._is_own(path) for path in (first, second)]
        if mine[0] == mine[1]:
            return
        body, other = (first, second) if mine[0] else (second, first)
        thing = self._thing_of(other)
        if thing is None:
            return
        if sim_time - self._last.get(thing, -math.inf) > RELEASE_TIME:
            self.onsets.append(Contact(sim_time, body, thing))
        self._last[thing] = sim_time

    def _is_own(self, path: str) -> bool:
        return any(path == link or path.startswith(link + "/") for link in self._own)
