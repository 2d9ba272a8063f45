"""The doubles' physics and scene: the embedded simulator's model of the same USD file, driven from outside."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import warp as wp

from saccade.scenes.mounts import quaternion_product
from saccade.scenes.movers import movers_from_stage

PLAIN_SENSOR = {"kind": "camera", "mount": {"link": "/"}, "horizontal_fov": 90}
"""A configuration needs a sensor; none is made from this one."""


class Physics:
    """A humanoid and movers of one file: poses and drive targets in, poses, contacts and pictures out.

    The articulation is a MuJoCo model with its root on rails, as in the embedded simulator: where a pose is set for it
    before a step, it is there after the step; the joints follow their drives. Always on the CPU: a GPU would compile
    physics and ray caster for minutes, and nothing that is tested on one depends on where they ran.
    """

    def __init__(self, path: Path) -> None:
        from saccade.config import RunConfig
        from saccade.simulators.newton_scene import scene_from_file
        from saccade.simulators.newton_walk import Walk

        config = RunConfig.model_validate({"scene": str(path), "sensors": {"none": PLAIN_SENSOR}})
        config.simulator.humanoid.gait.enabled = False
        self.scene = scene_from_file(path, config, device="cpu", progress=lambda text: None)
        self.walk = Walk(config.simulator, self.scene, capture=False)
        humanoid = self.scene.humanoid
        by_coordinate = sorted(humanoid.joints.items(), key=lambda entry: entry[1][0])
        self.dof_paths = [path for path, _ in by_coordinate]
        self.dof_names = [path.rsplit("/", 1)[-1] for path in self.dof_paths]
        self._coordinates = [coordinate for _, (coordinate, _) in by_coordinate]
        self.root_path = self.scene.model.body_label[humanoid.root_body]
        self.movers = list(self.scene.movers)
        self._shown: Any = None
        self.sensed = self.scene.model.state()
        self.reset()

    def reset(self) -> None:
        """Puts everything where the file has it."""
        import newton

        walk, coordinates = self.walk, self.walk._coordinates
        walk._watch.forget()
        coordinates.restore()
        coordinates.push_everything()
        with wp.ScopedDevice("cpu"):
            newton.eval_fk(self.scene.model, walk.state.joint_q, walk.state.joint_qd, walk.state)
        walk._keep_poses()
        self._shown = None
        self.overlap: list[Any] = []

    def root_pose(self) -> tuple[float, ...]:
        """Position [m] and quaternion x, y, z, w of the root link."""
        start = self.scene.humanoid.root_q
        return tuple(float(value) for value in self.walk._coordinates.q[start : start + 7])

    def set_root_pose(self, position: Any, rotation: Any) -> None:
        """Teleports the root; the rotation is w, x, y, z as in the interface."""
        start, q = self.scene.humanoid.root_q, self.walk._coordinates.q
        for i in range(3):
            q[start + i] = float(position[i])
        w, x, y, z = (float(value) for value in rotation)
        for i, value in enumerate((x, y, z, w)):
            q[start + 3 + i] = value

    def set_root_velocity(self, linear: Any, angular: Any) -> None:
        start, qd = self.scene.humanoid.root_qd, self.walk._coordinates.qd
        for i in range(3):
            qd[start + i], qd[start + 3 + i] = float(linear[i]), float(angular[i])

    def set_targets(self, targets: Any, dofs: Any) -> None:
        for dof, target in zip(dofs, targets, strict=True):
            self.walk._coordinates.targets[self._coordinates[int(dof)]] = float(target)

    def step(self, dt: float, time: float) -> list[Any]:
        """One step; returns headers of the contacts that began.

        The root is carried on by its velocity over the step, as any body is.
        """
        walk = self.walk
        start, velocity = self.scene.humanoid.root_q, self.scene.humanoid.root_qd
        q, qd = walk._coordinates.q, walk._coordinates.qd
        for i in range(3):
            q[start + i] += dt * float(qd[velocity + i])
        half = 0.5 * dt * float(qd[velocity + 5])
        turned = quaternion_product(
            (0.0, 0.0, math.sin(half), math.cos(half)), tuple(float(v) for v in q[start + 3 : start + 7])
        )
        for i in range(4):
            q[start + 3 + i] = turned[i]
        pose = [0.0] * 7
        for mover, start in self.movers:
            mover.pose_into(time, pose)
            for i in range(7):
                walk._coordinates.q[start + i] = pose[i]
        walk.substep = dt
        with wp.ScopedDevice("cpu"):
            walk._physics(0)
        onsets: list[Any] = []
        walk._watch.observe(time, onsets)
        walk._watch.collect(time, onsets)
        walk._keep_poses()
        return [SimpleNamespace(body=onset.body, other=onset.other) for onset in onsets]

    def snapshot(self) -> np.ndarray:
        """Poses of all bodies now."""
        return self.walk.poses.numpy().copy()

    def show(self, poses: np.ndarray | None) -> None:
        """What sensors see until the next call; ``None`` = the newest state."""
        self._shown = poses

    def refit(self) -> Any:
        """Brings the ray caster's scene to what is to be seen."""
        if self._shown is not None:
            self.sensed.body_q.assign(self._shown)
        else:
            wp.copy(self.sensed.body_q, self.walk.poses)
        self.scene.model.bvh_refit_shapes(self.sensed)
        return self.sensed


@lru_cache(maxsize=4)
def _loaded(path: str, modified: int) -> Physics:
    with wp.ScopedDevice("cpu"):
        return Physics(Path(path))


def physics_of(path: Path, stage: Any) -> Physics:
    """Returns the physics of an opened stage, loaded once per file: a root layer above a scene is its scene."""
    layers = [Path(layer.realPath) for layer in stage.GetLayerStack() if layer.realPath]
    own = next((layer for layer in layers if layer != Path(path)), Path(path))
    physics = _loaded(str(own), own.stat().st_mtime_ns)
    physics.reset()
    # Animation is the stage's: time codes mean what its root layer says a second is now.
    starts = {mover.path: start for mover, start in physics.scene.movers}
    physics.movers = [(mover, starts[mover.path]) for mover in movers_from_stage(stage, starts)]
    return physics
