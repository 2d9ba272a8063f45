"""What a robot would report of itself: joint angles and where its sensors are, read when somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.frame import SimState
from saccade.scenes.mounts import SensorMount, inverse, multiply
from saccade.scenes.movers import Pose

if TYPE_CHECKING:
    import warp as wp

    from saccade.simulators.newton_scene import Humanoid
    from saccade.simulators.newton_walk import Walk

CAMERA_TURN: Pose = (0.0, 0.0, 0.0, 0.5, -0.5, -0.5, 0.5)
"""From x forward, z up to a camera's -z forward, +y up."""


class RobotReading:
    """Reads joints and sensor poses into a state; what it needs is allocated once.

    Args:
        humanoid: Its joints.
        walk: The physics.
        mounts: Of each sensor.
        cameras: Which of the sensors are cameras.
    """

    def __init__(
        self, humanoid: Humanoid, walk: Walk, mounts: Mapping[str, SensorMount], cameras: frozenset[str]
    ) -> None:
        self._walk = walk
        short = {path: name for name, path in humanoid.joint_names.items()}
        paths = list(humanoid.joints)
        self.names = tuple(short.get(path, path) for path in paths)
        """By which joints can be commanded, too: the prim's name where it is the only one, else its path."""
        self._q = np.array([humanoid.joints[path][0] for path in paths], dtype=np.intp)
        self._qd = np.array([humanoid.joints[path][1] for path in paths], dtype=np.intp)
        self._positions = np.zeros(len(paths), np.float32)
        self._velocities = np.zeros(len(paths), np.float32)
        turn = inverse(CAMERA_TURN)
        self._mounts = {
            name: (mount.body, multiply(mount.offset, turn) if name in cameras else mount.offset)
            for name, mount in mounts.items()
        }
        self._host: dict[str, tuple[wp.array, np.ndarray]] = {}

    def fill(self, state: SimState, copy: Callable[[Any, Any], None]) -> None:
        """Writes the state's joints and sensor poses; waits for the GPU where the physics is there.

        Args:
            state: The current one.
            copy: Copies an array to another, such as a tap that counts.
        """
        physics = self._walk.state
        sources = {"q": physics.joint_q, "qd": physics.joint_qd, "poses": self._walk.poses}
        views = {name: self._on_host(name, source, copy) for name, source in sources.items()}
        device = physics.joint_q.device
        if device.is_cuda:
            import warp as wp

            wp.synchronize_stream(device.stream)
        np.take(views["q"], self._q, out=self._positions, mode="clip")
        np.take(views["qd"], self._qd, out=self._velocities, mode="clip")
        state.joint_names = self.names
        state.joint_positions, state.joint_velocities = self._positions, self._velocities
        base = inverse(base_pose(state))
        for name, (body, offset) in self._mounts.items():
            if body < 0:
                state.sensor_poses[name] = (False, offset)
                continue
            carrier = tuple(views["poses"][body].tolist())
            state.sensor_poses[name] = (True, multiply(multiply(base, carrier), offset))

    def _on_host(self, name: str, source: wp.array, copy: Callable[[Any, Any], None]) -> np.ndarray:
        if source.device.is_cpu:
            return source.numpy()
        import warp as wp

        if name not in self._host:
            kept = wp.empty(source.shape, dtype=source.dtype, device="cpu", pinned=True)
            self._host[name] = (kept, kept.numpy())
        kept, view = self._host[name]
        copy(kept, source)
        return view


def base_pose(state: SimState) -> Pose:
    """Returns the humanoid's base in the world: position [m], quaternion x, y, z, w."""
    half = 0.5 * state.yaw
    return (*state.position, 0.0, 0.0, float(np.sin(half)), float(np.cos(half)))
