"""The humanoid's walk: base on rails, gait through the drives, physics around it; on CUDA as one graph per step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from saccade.config import SimulatorConfig
from saccade.frame import Contact, SimState
from saccade.simulators.newton_base import Base
from saccade.simulators.newton_solver import defer_mujoco_warp

if TYPE_CHECKING:
    import warp as wp

    from saccade.simulators.newton_scene import NewtonScene

GLIDE_CLEARANCE = 0.005
"""Height of a gliding humanoid's soles above the floor [m]: it must not drag its feet."""

EAGER_STEPS = 2
"""Steps on CUDA before one is captured: kernels are loaded and the solver has made what it makes on first use."""


class Walk:
    """Physics of one scene and the humanoid that walks through it.

    Args:
        config: The simulator's configuration.
        scene: The loaded scene.
        capture: Whether a step on CUDA is captured as a graph and replayed.
    """

    def __init__(self, config: SimulatorConfig, scene: NewtonScene, *, capture: bool = True) -> None:
        import newton
        import warp as wp

        from saccade.scenes.gait import Gait
        from saccade.simulators.newton_contacts import ContactWatch
        from saccade.simulators.newton_coordinates import Coordinates
        from saccade.simulators.newton_drives import DriveLead, stiffen_drives

        self._config, self._scene = config, scene
        model, humanoid = scene.model, scene.humanoid
        self._on_cpu = bool(model.device.is_cpu)
        if self._on_cpu:
            defer_mujoco_warp()
        self.solver = newton.solvers.SolverMuJoCo(model, use_mujoco_cpu=self._on_cpu, kinematic_switchable_roots=False)
        self.state, self._next = model.state(), model.state()
        self._control = model.control()
        newton.eval_fk(model, model.joint_q, model.joint_qd, self.state)
        substeps = config.substeps
        self._coordinates = Coordinates(model, self.state, self._next, self._control, substeps=substeps)
        self.base = Base(config.humanoid, humanoid.joints, humanoid.joint_names)
        gait = config.humanoid.gait
        self._gait = (
            Gait(
                humanoid.gait,
                step_length=gait.step_length,
                swing_height=gait.swing_height,
                arm_swing=gait.arm_swing,
            )
            if humanoid.gait is not None
            else None
        )
        gait_joints = self._gait.joints if self._gait is not None else []
        stiffen_drives(model, self.solver, gait_joints)
        self._lead = DriveLead(model, self.solver, gait_joints)
        self.substep = config.step / substeps
        """Simulated time of one physics step [s]."""
        self._authored_targets = [float(v) for v in self._coordinates.targets]
        self._overridden: frozenset[int] = frozenset()
        self._mover_pose = [0.0] * 7
        self._movers_from = 0.0
        self.onsets: list[Contact] = []
        """Contacts that began during the last step."""
        self._watch = ContactWatch(
            model, self.solver, own_shapes=scene.own_shapes, classes=scene.classes, objects=scene.objects
        )
        # Sensors read poses from a place that stays while the two states of the solver take turns.
        self._poses = None if self._on_cpu else wp.clone(self.state.body_q)
        self._graphs: dict[int, Any] = {}
        self._capture = capture and not self._on_cpu
        self._eager_left = EAGER_STEPS
        self.reason: str | None = None if self._capture or self._on_cpu else "simulator.graph is off"
        """Why steps on CUDA are launched eagerly."""

    @property
    def poses(self) -> wp.array:
        """Poses of all bodies after the last step, shape ``(bodies,)``, transformf; on CUDA always the same array."""
        return self.state.body_q if self._poses is None else self._poses

    @property
    def height(self) -> float:
        """Height of the humanoid's root in the world as last prescribed [m]."""
        return float(self._coordinates.q[self._scene.humanoid.root_q + 2])

    @property
    def mode(self) -> str:
        """``"cpu"``, ``"graph"`` or ``"eager"``."""
        return "cpu" if self._on_cpu else "graph" if self._graphs else "eager"

    def step(self, number: int, state: SimState) -> None:
        """Advances by one step of the loop.

        Args:
            number: Of the step, from 0.
            state: Gets the commands that took effect.
        """
        self.onsets.clear()
        state.applied.clear()
        substeps = self._config.substeps
        for k in range(substeps):
            tick = number * substeps + k
            self.base.apply_due(tick * self.substep, state.applied)
            self.base.advance(self.substep)
            end = (tick + 1) * self.substep
            self._drive(end, self.substep)
            if self._on_cpu:
                self._physics(0)
                self._watch.observe(end, self.onsets)
            else:
                self._coordinates.stage(k)
        if not self._on_cpu:
            self._step_on_cuda()
        self._watch.collect((number + 1) * self._config.step, self.onsets)

    def place(self, x: float, y: float, yaw: float, *, phase: float, speed: float, time: float) -> None:
        """Puts the humanoid and everything that moves by itself into a pose, without physics; see the simulator."""
        import newton

        self.base.place(x, y, yaw)
        self._watch.forget()
        if self._gait is not None:
            self._gait.reset(x, y, yaw, phase=phase, speed=speed)
        coordinates = self._coordinates
        coordinates.restore()
        self._drive(time, 0.0)
        if self._gait is not None:
            for joint, target in zip(self._gait.joints, self._gait.targets, strict=True):
                coordinates.q[joint.coordinate] = target
        coordinates.push_everything()
        newton.eval_fk(self._scene.model, self.state.joint_q, self.state.joint_qd, self.state)
        self._keep_poses()
        self.onsets.clear()

    def restart_movers(self, sim_time: float) -> None:
        """Has everything that moves by itself start again at ``sim_time`` [s]; the next :meth:`place` puts it there."""
        self._movers_from = sim_time

    def rehearse(self) -> None:
        """Runs one physics step whose result is thrown away by the next :meth:`place`: kernels get loaded."""
        self.solver.step(self.state, self._next, self._control, None, self.substep)

    def _physics(self, slot: int) -> None:
        self._coordinates.prescribe(slot)
        self.solver.step(
            self.state,
            self._next,
            self._control,
            self._watch.contacts,
            self.substep,
            observables=self._watch.observables,
        )
        self.state, self._next = self._next, self.state
        self._coordinates.swap()

    def _launch_step(self) -> None:
        """Launches all physics steps of one step of the loop; on CUDA, eagerly or while it is captured."""
        self._coordinates.upload()
        for k in range(self._config.substeps):
            self._physics(k)
            self._watch.observe(0.0, self.onsets)
        self._keep_poses()

    def _step_on_cuda(self) -> None:
        import warp as wp

        if not self._capture or self._eager_left > 0:
            self._eager_left -= 1
            self._launch_step()
            return
        # The two states of the solver take turns: after an odd number of physics steps there is one graph for each.
        start = id(self.state)
        graph = self._graphs.get(start)
        if graph is None:
            graph = self._captured()
            if graph is None:
                self._launch_step()
                return
            self._graphs[start] = graph
        wp.capture_launch(graph)
        if self._config.substeps % 2:
            self.state, self._next = self._next, self.state
            self._coordinates.swap()

    def _captured(self) -> Any:
        """Captures one step without running it; ``None`` where that fails, with the reason kept."""
        import warp as wp

        states = (self.state, self._next)
        graph = None
        try:
            with wp.ScopedCapture(device=self._scene.model.device) as capture:
                self._launch_step()
            graph = capture.graph
        except Exception as error:  # whatever the solver does that cannot be captured: steps go on eagerly
            self._capture = False
            self.reason = f"a step could not be captured: {str(error).splitlines()[0] if str(error) else error!r}"
        if self.state is not states[0]:
            self.state, self._next = states
            self._coordinates.swap()
        return graph

    def _keep_poses(self) -> None:
        import warp as wp

        if self._poses is not None:
            wp.copy(self._poses, self.state.body_q)

    def _drive(self, sim_time: float, dt: float) -> None:
        """Writes where root, movers and joint targets are to be at ``sim_time`` [s]."""
        humanoid, base, coordinates = self._scene.humanoid, self.base, self._coordinates
        floor = self._scene.floor_height
        if self._gait is None:
            height = humanoid.root_height + GLIDE_CLEARANCE
        elif dt > 0:
            height = self._gait.advance(dt, base.x, base.y, base.yaw, base.forward, base.left, base.yaw_rate)
        else:
            height = self._gait.height
        from_z = coordinates.q[humanoid.root_q + 2]
        self._set_pose(humanoid, base.x, base.y, floor + height, base.yaw)
        cos, sin = math.cos(base.yaw), math.sin(base.yaw)
        qd, k = coordinates.qd, humanoid.root_qd
        qd[k] = cos * base.forward - sin * base.left
        qd[k + 1] = sin * base.forward + cos * base.left
        qd[k + 2] = (floor + height - from_z) / dt if dt > 0 else 0.0
        qd[k + 3] = qd[k + 4] = 0.0
        qd[k + 5] = base.yaw_rate
        for mover, start in self._scene.movers:
            mover.pose_into(sim_time - self._movers_from, self._mover_pose)
            for i in range(7):
                coordinates.q[start + i] = self._mover_pose[i]
        if self._gait is not None:
            self._lead.update(self._gait.rates, dt)
            for joint, target, lead in zip(self._gait.joints, self._gait.targets, self._lead.lead, strict=True):
                coordinates.targets[joint.coordinate] = target + lead
        if base.joint_targets or self._overridden:
            self._override(coordinates.targets)

    def _override(self, targets: Any) -> None:
        """Puts commanded joint targets over the gait's, and what was authored back where no command holds any more."""
        commanded = self.base.joint_targets
        gait = {joint.coordinate for joint in self._gait.joints} if self._gait is not None else frozenset()
        for coordinate in self._overridden:
            if coordinate not in commanded and coordinate not in gait:
                targets[coordinate] = self._authored_targets[coordinate]
        for coordinate, target in commanded.items():
            targets[coordinate] = target
        if self._overridden != commanded.keys():
            self._overridden = frozenset(commanded)

    def _set_pose(self, humanoid: Any, x: float, y: float, z: float, yaw: float) -> None:
        from saccade.simulators.newton_scene import root_pose

        q, start = self._coordinates.q, humanoid.root_q
        pose = root_pose(humanoid, x, y, z, yaw)
        for i in range(7):
            q[start + i] = pose[i]
