"""The embedded simulator: Newton physics and ray-cast sensors on the CPU or on CUDA, from a USD scene."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.config import RunConfig
from saccade.errors import ConfigurationError
from saccade.frame import Command, Frame, GroundTruth, SimState, Stamps, now_ns
from saccade.kernels.setup import prepare_warp

if TYPE_CHECKING:
    import warp as wp

    from saccade.simulators.newton_scene import NewtonScene


class NewtonSimulator:
    """A humanoid on a kinematic base walks through a scene, sensed by ray-cast cameras and LiDARs.

    The root follows the commanded planar velocity within its acceleration limits at the height at which the standing
    foot touches the floor; the joints are driven to a walking gait where the scene names its joints, and hold their
    pose elsewhere. Balance is not simulated: falling over is not what is validated here.

    On the CPU, and in lockstep, a run repeats bit for bit.

    Args:
        config: The run.
        device: ``"cpu"``, or ``"cuda"`` with an optional number.
        progress: Called with what is being done while the scene loads.
    """

    name = "newton"
    acts = True

    def __init__(
        self, config: RunConfig, *, device: str = "cpu", progress: Callable[[str], None] | None = None
    ) -> None:
        self._config = config
        self._progress = progress or (lambda text: None)
        self._phases: dict[str, float] = {}
        with self._timed("import"):
            self._cache = prepare_warp()
            import newton  # noqa: F401  (the first import takes seconds; it belongs to the start-up's account)
            import warp as wp
        if device == "cuda" and not wp.is_cuda_available():
            raise ConfigurationError(
                "simulator.device is 'cuda', but Warp finds no CUDA device; use --device cpu, or see 'saccade doctor'"
            )
        self.device = str(wp.get_device("cuda:0" if device == "cuda" else device))
        self.capturable = self.device != "cpu"
        """On CUDA sensing can be part of a graph; on the CPU a graph gains nothing."""
        self.route: list[tuple[float, float]] = []
        """Waypoints that the scene names, in the world [m]."""
        self._scene: NewtonScene | None = None
        self._frames: list[Frame] = []
        self._hazard: bool | None = None
        self._sensed_motion = (0.0, 0.0, 0.0)

    def open(self, scene: Path | str) -> SimState:
        """Loads the scene, attaches the configured sensors and returns the first state.

        Raises:
            SceneError: The file or a prim is missing, or the scene cannot be used; the text says what to do.
            ConfigurationError: A sensor's configuration cannot be met.
        """
        import warp as wp

        from saccade.simulators.newton_reading import RobotReading
        from saccade.simulators.newton_scene import scene_from_file
        from saccade.simulators.newton_truth import CorridorProbe
        from saccade.simulators.newton_walk import Walk

        self.close()
        config = self._config.simulator
        if self._cache.cold:
            self._progress("compiling kernels (first start only, up to a minute) ...")
        with self._timed("scene"):
            loaded = scene_from_file(Path(scene), self._config, device=self.device, progress=self._progress)
            self._scene = loaded
            self.route = loaded.route
        model, start = loaded.model, loaded.humanoid.start
        with self._timed("solver"):
            self._progress("starting the physics solver")
            self._walk = Walk(config, loaded, capture=config.graph == "auto")
            self._sensed = model.state()
        with self._timed("sensors"):
            self._progress("attaching sensors")
            classes = wp.array(loaded.classes, dtype=wp.uint8, device=model.device)
            self._probe = CorridorProbe(model, classes, loaded.floor_height)
            self._attach_sensors(classes)
            cameras = frozenset(name for name, sensor in self._sensors.items() if sensor.kind == "camera")
            self._reading = RobotReading(loaded.humanoid, self._walk, self._mounts, cameras)
        self._step = 0
        self.state = SimState()
        self.place(*start)
        with self._timed("kernels"):
            # The first cast compiles or loads kernels; it belongs to the start-up, not to the first frame.
            self._refit()
            for sensor in self._sensors.values():
                sensor.sense(self._sensed, 0)
            base = self._walk.base
            self._probe.is_hazard(self._sensed, base.x, base.y, base.yaw)
            for truth in self._clearances.values():
                truth.compute()
            self._walk.rehearse()
            self.place(*start)
            wp.synchronize_device(self.device)
        self._available_ns = now_ns()
        return self.state

    def step(self, command: Command | None) -> SimState:
        """Advances by one step of ``simulator.step``; ``None`` keeps the command that holds.

        Returns:
            The state after the step, valid until the next.

        Raises:
            ConfigurationError: A commanded value is not finite, or a joint is unknown.
        """
        if command is not None:
            self._walk.base.accept(command)
        self._walk.step(self._step, self.state)
        self._step += 1
        self._report(self._step * self._config.simulator.step)
        self._available_ns = now_ns()
        return self.state

    def advance_dropping(self, sim_time: float, command: Command | None = None) -> SimState:
        """Steps until ``sim_time`` [s] without sensing; :meth:`sense` then delivers the newest samples only."""
        while self.state.sim_time < sim_time - 1e-9:
            self.step(command)
            command = None
        return self.state

    def sense(self) -> Sequence[Frame]:
        """Returns the newest due sample of each sensor; samples that became due before it count as dropped.

        Frames and their buffers are valid until the next call.
        """
        if self.due():
            self._sample(self._frames)
        return self._frames

    def due(self) -> Sequence[Frame]:
        """Returns the frames that :meth:`sense` would, before anything is sensed: see :meth:`record_sense`."""
        self._frames.clear()
        for name, clock in self._clocks.items():
            due = clock.due(self._step, self._last_sequence[name])
            if due is not None:
                self._last_sequence[name] = due.sequence
                self._announce(name, due.sequence, due.skipped)
        return self._frames

    def prepare(self, frames: Sequence[Frame]) -> None:
        """Launches what changes from frame to frame; precedes every launch, capture or replay of a set of frames."""
        for frame in frames:
            self._sensors[frame.sensor].number(frame.sequence)

    def record_state(self, stream: Any) -> None:
        """Launches the copy of the bodies' poses and the refit of the ray caster's tree; may be captured."""
        self._refit()

    def record_sense(self, frames: Sequence[Frame], stream: Any) -> None:
        """Launches sensing of frames that are due, on the current stream; waits for nothing and may be captured.

        Args:
            frames: As :meth:`due` returned them, all or some; :meth:`prepare` and :meth:`record_state` came before.
            stream: The device's current stream.
        """
        for frame in frames:
            self._sensors[frame.sensor].cast(self._sensed)

    def sense_now(self) -> Sequence[Frame]:
        """Returns one frame of every sensor, whether due or not; for data sets made with :meth:`place`."""
        self._frames.clear()
        for name in self._pool:
            self._last_sequence[name] += 1
            self._announce(name, self._last_sequence[name], 0)
        self._sample(self._frames)
        return self._frames

    def ground_truth(self, frame: Frame) -> GroundTruth:
        """Returns the truth about ``frame``, of the state that was last sensed; valid until the next :meth:`sense`."""
        truth = self._truths[frame.sensor]
        if self._hazard is None:
            x, y, heading = self._sensed_motion
            self._hazard = self._probe.is_hazard(self._sensed, x, y, heading)
        truth.hazard = self._hazard
        clearance = self._clearances.get(frame.sensor)
        if clearance is not None:
            truth.clearance = clearance.compute()
        return truth

    def place(
        self, x: float, y: float, yaw: float, *, gait_phase: float = 0.0, gait_speed: float = 0.0, time: float = 0.0
    ) -> SimState:
        """Puts the humanoid and everything that moves by itself into a pose, without physics.

        Args:
            x: Base in the world [m].
            y: Base in the world [m].
            yaw: Heading [rad].
            gait_phase: Phase of the walk, 0..1.
            gait_speed: Speed of the walk whose pose is taken [m/s]; 0 stands.
            time: Simulation time at which people and vehicles are [s].

        Returns:
            The state.
        """
        self._walk.place(x, y, yaw, phase=gait_phase, speed=gait_speed, time=time)
        self.state.applied.clear()
        self._report(time)
        if gait_speed:
            self._walk.base.forward = gait_speed
        self._available_ns = now_ns()
        return self.state

    def reset(self) -> SimState:
        """Puts the humanoid and everything that moves by itself back to where they started, at rest.

        The clock and the sensors' numbers run on, as does the distance walked; commands that wait are dropped.
        """
        assert self._scene is not None
        now = self._step * self._config.simulator.step
        self._walk.restart_movers(now)
        self._walk.place(*self._scene.humanoid.start, phase=0.0, speed=0.0, time=now)
        self.state.applied.clear()
        self._report(now)
        self._available_ns = now_ns()
        return self.state

    @property
    def joint_names(self) -> frozenset[str]:
        """Names and paths of the joints that can be commanded."""
        assert self._scene is not None
        humanoid = self._scene.humanoid
        return frozenset((*humanoid.joints, *humanoid.joint_names))

    def report_robot(self, copy: Callable[[Any, Any], None] | None = None) -> None:
        """Fills joints and sensor poses of the current state, which no step does by itself.

        Args:
            copy: Copies an array from the GPU, where the physics is there; ``None`` does so without counting.
        """
        import warp as wp

        self._reading.fill(self.state, copy or wp.copy)

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say about the simulator and the scene."""
        from importlib.metadata import PackageNotFoundError, version

        from saccade.simulators.newton_plan import scene_facts

        def installed(package: str) -> str | None:
            try:
                return version(package)
            except PackageNotFoundError:
                return None

        packages = ("newton", "warp-lang", "mujoco", "mujoco-warp", "usd-core", "numpy")
        facts: dict[str, Any] = {
            "name": self.name,
            "device": self.device,
            "versions": {package: installed(package) for package in packages},
            "solver": "MuJoCo (C)" if self.device == "cpu" else "mujoco_warp",
            "kernel_cache": {"folder": str(self._cache.folder), "cold": self._cache.cold},
            "startup_s": {name: round(seconds, 3) for name, seconds in self._phases.items()},
        }
        scene = self._scene
        if scene is None:
            return facts
        facts.update(
            scene_facts(scene),
            substep_s=self._walk.substep,
            physics=self._walk.mode,
            physics_reason=self._walk.reason,
            sensors={
                name: {
                    "kind": sensor.kind,
                    "rate_hz": self._config.sensors[name].rate,
                    "prim": self._mounts[name].prim,
                    "intrinsics": sensor.intrinsics.as_dict(),
                }
                for name, sensor in self._sensors.items()
            },
        )
        return facts

    def floor_plan(self) -> list[dict[str, Any]]:
        """Returns footprints in the world [m]: ``class``, ``kind``, ``label`` and ``polygon`` of each shape.

        ``kind`` is ``"floor"``, ``"static"`` or ``"mover"``; movers are where they start.
        """
        from saccade.simulators.newton_plan import footprints

        assert self._scene is not None
        return footprints(self._scene)

    def close(self) -> None:
        """Frees the scene; safe to call twice."""
        if self._scene is None:
            return
        self._scene.model.__dict__.pop("_saccade_casters", None)
        self._scene = None
        self._frames.clear()
        for name in ("_walk", "_sensed", "_sensors", "_probe", "_clearances", "_pool", "_truths", "_reading"):
            self.__dict__.pop(name, None)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._phases[phase] = time.perf_counter() - start

    def _attach_sensors(self, classes: wp.array) -> None:
        """Makes the configured sensors, their pooled frames and what their ground truth needs."""
        import warp as wp

        from saccade.config import LidarConfig
        from saccade.scenes.mounts import sensor_mount
        from saccade.sensors.camera import CameraSensor
        from saccade.sensors.lidar import LidarSensor
        from saccade.sensors.rates import SampleClock
        from saccade.simulators.newton_truth import ClearanceTruth

        assert self._scene is not None
        scene, seed = self._scene, self._config.run.seed
        own = wp.array(scene.own_shapes, dtype=wp.uint8, device=scene.model.device)
        self._sensors: dict[str, Any] = {}
        self._mounts, self._clocks = {}, {}
        self._pool: dict[str, Frame] = {}
        self._truths: dict[str, GroundTruth] = {}
        self._clearances: dict[str, ClearanceTruth] = {}
        self._last_sequence = dict.fromkeys(self._config.sensors, -1)
        for name, config in self._config.sensors.items():
            mount = sensor_mount(scene.stage, name, config, scene.bodies, root=scene.humanoid.path)
            offset = wp.transform(mount.offset[:3], mount.offset[3:])
            sensor: Any
            if isinstance(config, LidarConfig):
                sensor = LidarSensor(
                    name,
                    config,
                    scene.model,
                    body=mount.body,
                    offset=offset,
                    class_of_shape=classes,
                    own_shapes=own,
                    seed=seed,
                )
                self._clearances[name] = ClearanceTruth(sensor, config, scene.floor_height)
            else:
                sensor = CameraSensor(
                    name,
                    config,
                    scene.model,
                    usd_camera=mount.camera,
                    body=mount.body,
                    offset=offset,
                    class_of_shape=classes,
                    lighting=scene.lighting,
                    seed=seed,
                )
            self._sensors[name], self._mounts[name] = sensor, mount
            self._clocks[name] = SampleClock(self._config.simulator.step, config.rate)
            self._pool[name] = Frame(name, config.kind, 0, 0.0, Stamps(), sensor.buffers)
            self._truths[name] = GroundTruth(labels=sensor.labels)

    def _report(self, sim_time: float) -> None:
        """Writes the pooled state."""
        assert self._scene is not None
        state, walk = self.state, self._walk
        base = walk.base
        state.sim_time, state.step = sim_time, self._step
        state.position, state.yaw = (base.x, base.y, walk.height), base.yaw
        state.velocity, state.yaw_rate = (base.forward, base.left), base.yaw_rate
        state.distance = base.distance
        state.contacts = list(walk.onsets) if walk.onsets else []

    def _refit(self) -> None:
        """Copies the bodies' poses to the state that sensors read, and refits the ray caster's tree to it."""
        import warp as wp

        assert self._scene is not None
        wp.copy(self._sensed.body_q, self._walk.poses)
        self._scene.model.bvh_refit_shapes(self._sensed)

    def _announce(self, name: str, sequence: int, dropped: int) -> None:
        """Puts a sensor's pooled frame among those that are due."""
        frame, base = self._pool[name], self._walk.base
        frame.sequence, frame.dropped, frame.sim_time = sequence, dropped, self.state.sim_time
        frame.stamps.clear()
        frame.stamps.sim_state = self._available_ns
        self._frames.append(frame)
        self._hazard = None
        self._sensed_motion = (base.x, base.y, base.motion_heading())

    def _sample(self, frames: Sequence[Frame]) -> None:
        import warp as wp

        self._refit()
        on_cpu = self.device == "cpu"
        for frame in frames:
            self._sensors[frame.sensor].sense(self._sensed, frame.sequence)
            if not on_cpu:
                wp.synchronize_device(self.device)
            frame.stamps.sensed = now_ns()
