"""Isaac Sim as a simulator: RTX cameras and LiDARs of an opened stage, a humanoid whose base is on rails in PhysX."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.config import LidarConfig, RunConfig
from saccade.errors import ConfigurationError, DependencyError, SceneError
from saccade.frame import Command, Frame, GroundTruth, SimState
from saccade.paths import is_url
from saccade.simulators import isaac_checks as checks
from saccade.simulators.isaac_frames import EpochClock, finish_reading, physics_time_step
from saccade.simulators.isaac_inbox import Inbox
from saccade.simulators.isaac_versions import Release

if TYPE_CHECKING:
    from saccade.simulators.isaac_scene import IsaacScene
    from saccade.simulators.isaac_walk import Moment

SETTLED = 5
"""Deliveries in a row that have to show the state just simulated before a lockstep run begins."""
MAX_SETTLING = 240
"""Updates after which sensors that have not settled are given up."""
MAX_LOADING = 3000
"""Updates after which a stage that still loads is given up."""
LIDAR_SIZE = 128  # [px]; a LiDAR's render product needs a size and does not use it
HISTORY = 4096
"""Steps whose poses are kept for the ground truth of frames that show an earlier state."""
END_OF_TIME = 1.0e6  # of the timeline [s]
NOT_CAPTURABLE = "Isaac Sim renders outside of any graph of ours"


class IsaacSimulator:
    """The stage that a configuration names, with its cameras and LiDARs rendered by RTX.

    One step of the loop is one update of the application: its physics steps, then a rendering of every sensor. Frames
    come through a Replicator writer and are told apart by their reference time. In lockstep colour is a view of the
    renderer's own memory, valid until the next :meth:`step`; with ``pace: realtime`` frames are copied on the device
    when they arrive and wait in a bounded queue.

    The base follows the commanded velocity on rails and the joints' drives follow the gait, as in the embedded
    simulator; both are set before every physics step.

    Args:
        config: The run.
        device: ``"cpu"`` or ``"cuda:N"``: where engines and sensors' buffers are.
        progress: Called with what is being done while the scene loads.
        attach: Whether the stage that is open is used as it is, instead of the configured scene being opened. Setting
            the times then writes ``timeCodesPerSecond`` of its root layer, which changes the pace of its animation
            until :meth:`close`.

    Raises:
        DependencyError: This Python is not Isaac Sim's, or the release is not supported.
    """

    name = "isaac"
    acts = True
    capturable = False

    def __init__(
        self,
        config: RunConfig,
        *,
        device: str = "cuda:0",
        progress: Callable[[str], None] | None = None,
        attach: bool = False,
    ) -> None:
        self._config = config
        self._progress = progress or (lambda text: None)
        self.device = device
        self._attach = attach
        self._begun = False
        self._before: tuple[Any, Any] | None = None  # times of the application and its stage, as they were
        self._physics_before = 0
        self.route: list[tuple[float, float]] = []
        """Waypoints that the scene names, in the world [m]."""
        try:
            self._kit = importlib.import_module("saccade.simulators.isaac_kit")
        except ImportError as error:
            raise DependencyError(
                f"simulator.backend: isaac runs inside Isaac Sim's own Python ({error}): use "
                f"scripts/run_in_isaac.sh, or --simulator newton"
            ) from error
        self.release: Release = self._kit.installed_release()
        adapter = importlib.import_module(self.release.adapter)
        self._extensions: tuple[str, ...] = adapter.EXTENSIONS
        self._adapter = adapter.Adapter(device)
        self._lockstep = config.simulator.pace == "lockstep"
        self._inboxes: dict[str, Inbox] = {}
        self._frames: list[Frame] = []
        self._products: list[Any] = []
        self._prims: list[str] = []
        self._folder: Path | None = None
        self._scene: IsaacScene | None = None
        self._failure: BaseException | None = None
        self._missing_extensions: list[str] = []
        self.uploads: dict[str, int] = {}
        """Bytes per set of frames that streams on the host are uploaded with, by name."""

    def open(self, scene: Path | str) -> SimState:
        """Opens the stage, attaches the configured sensors, starts the simulation and waits until they have settled.

        Raises:
            SceneError: The stage is missing or cannot be used; the text says what to do.
            ConfigurationError: A sensor or a setting cannot be met.
        """
        steps = self.opening(scene)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                state: SimState = end.value
                return state
            self._kit.update()

    def opening(self, scene: Path | str) -> Generator[str, None, SimState]:
        """Does what :meth:`open` does, and yields what it waits for wherever the application has to make an update."""
        from saccade.simulators.isaac_scene import prepare_stage, write_top_layer
        from saccade.simulators.isaac_truth import CorridorBoxes
        from saccade.simulators.isaac_walk import ContactLog, StageWalk

        self.close()
        config = self._config.simulator
        self._check_settings()
        checks.check_sensors(self._config, self.release)
        self._missing_extensions = [name for name in self._extensions if not self._kit.enable_extension(name)]
        path = scene if is_url(str(scene)) else Path(scene)
        if not self._attach:
            self._folder = Path(tempfile.mkdtemp(prefix="saccade-isaac-"))
            self._progress(f"opening {scene} in Isaac Sim {self.release.version}")
            yield from self._open_stage(write_top_layer(path, self._folder), path)
        stage = self._kit.current_stage()
        if stage is None:
            raise SceneError("no stage is open in Isaac Sim: open one, or name a scene")
        self._scene = prepare_stage(stage, path, self._config)
        self.route = self._scene.route
        humanoid = self._scene.humanoid
        self._walk = StageWalk(config, humanoid, self._scene.joints, self._scene.authored_targets)
        self._contacts = ContactLog(humanoid.bodies, self._scene.thing_of)
        self._boxes = CorridorBoxes(self._scene.stage, self._scene.labels, humanoid.bodies, humanoid.floor_height)
        self.state = SimState()
        self._steps = 0
        self._history: deque[Moment] = deque(maxlen=HISTORY)
        self._clock = EpochClock()
        self._before = (self._adapter.times(), self._kit.times()) if self._attach else None
        self._set_times(config.step, physics_time_step(config.step, config.substeps))
        self._kit.set_timeline_end(END_OF_TIME)
        self._progress("attaching sensors")
        self._attach_sensors()
        self._progress("starting the simulation")
        self._adapter.start_contacts()
        self._kit.play()
        yield "starting the simulation"
        self._walk.bind(self._adapter.bind_articulation(humanoid.articulation))
        self._adapter.start_callbacks(self._before_physics, self._after_physics)
        yield from self._settle()
        self._check_settings()
        return self.state

    def step(self, command: Command | None) -> SimState:
        """Advances by one update of ``simulator.step``; ``None`` keeps the command that holds.

        Returns:
            The state after the step, valid until the next.

        Raises:
            ConfigurationError: A commanded value is not finite, a joint is unknown, or a sensor's stream cannot be
                used; the text says what to do.
        """
        if not self._begun:
            self.begin_step(command)
            self._kit.update()
        self._begun = False
        self._end_update()
        self._clock.sample_if_due()
        return self.state

    def begin_step(self, command: Command | None) -> None:
        """Hands over the command for the next step, for who leaves the update to the application."""
        if command is not None:
            self._walk.accept(command)
        if self._lockstep:
            finish_reading(self.device)
        self._steps += 1
        self._begun = True
        self._begin_update()

    def step_done(self) -> bool:
        """Tells whether the application has made that step; :meth:`step` then returns its state."""
        return self._failure is not None or self._physics_steps() >= self._config.simulator.substeps

    def hold(self, on: bool) -> None:
        """Lets simulated time stand still, or go on, while the application makes further updates."""
        if on:
            self._kit.pause()
        else:
            self._kit.play()

    def sense(self) -> Sequence[Frame]:
        """Returns the newest new frame of each sensor that is due; none is possible.

        Frames are valid until the next call, and colour in lockstep until the next step.
        """
        self._frames.clear()
        for inbox in self._inboxes.values():
            frame = inbox.take(self._steps)
            if frame is not None:
                self._frames.append(frame)
        return self._frames

    def listen(self, function: Callable[[Frame], None] | None) -> None:
        """Has every new frame handed to ``function`` when it arrives, within the update that delivered it.

        For users whose application updates by itself, such as a window: the function must return at once, and copies
        what it keeps (``Pipeline.submit_frame`` with a ``keep`` does).
        """
        for inbox in self._inboxes.values():
            inbox.listener = function

    def ground_truth(self, frame: Frame) -> GroundTruth:
        """Returns the truth about ``frame``, of its state; labels are the newest delivery's if nothing waits for it."""
        moment = self._moment(frame.sim_time)
        stream = self._inboxes[frame.sensor].stream
        truth = GroundTruth()
        if stream.kind == "camera" or getattr(stream, "has_labels", False):
            truth.labels = frame.buffers.get("labels", stream.labels)
        truth.hazard = self._boxes.is_hazard(moment.x, moment.y, moment.heading, seconds=frame.sim_time)
        if stream.kind == "lidar":
            truth.clearance = self._clearance(stream, frame, moment)
        return truth

    def due(self) -> Sequence[Frame]:
        """Not offered: what is due is only known when it has come."""
        raise NotImplementedError(NOT_CAPTURABLE)

    def prepare(self, frames: Sequence[Frame]) -> None:
        """Not offered."""
        raise NotImplementedError(NOT_CAPTURABLE)

    def record_state(self, stream: Any) -> None:
        """Not offered."""
        raise NotImplementedError(NOT_CAPTURABLE)

    def record_sense(self, frames: Sequence[Frame], stream: Any) -> None:
        """Not offered."""
        raise NotImplementedError(NOT_CAPTURABLE)

    @property
    def stale(self) -> int:
        """Deliveries since the sensors settled that came twice or out of order."""
        return sum(inbox.counters.stale for inbox in self._inboxes.values())

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say about the simulator and the scene."""
        settings = self._kit.settings()
        facts: dict[str, Any] = {
            "name": self.name,
            "device": self.device,
            "versions": self._kit.versions(),
            "release_read": self.release.read,
            "core_api": self.release.core,
            "settings": settings,
            "missing_extensions": list(self._missing_extensions),
        }
        scene = self._scene
        if scene is None:
            return facts
        from saccade.scenes.stage import scene_hash
        from saccade.simulators.isaac_scene import intrinsics_facts

        humanoid = scene.humanoid
        facts.update(
            scene=str(scene.path),
            scene_sha256=scene_hash(scene.stage),
            physics="PhysX",
            substep_s=physics_time_step(self._config.simulator.step, self._config.simulator.substeps),
            humanoid={
                "prim": humanoid.path,
                "joints": len(scene.joints),
                "gait": humanoid.gait is not None,
                "no_gait_reason": humanoid.no_gait_reason,
            },
            floor_height_m=humanoid.floor_height,
            classes=self._boxes.counts,
            unknown_labels={label: paths[:5] for label, paths in scene.labels.unknown.items()},
            warnings=[*scene.warnings, *self._warnings(settings)],
            floor_plan=self._boxes.plan(scene.route),
            sensors=intrinsics_facts(scene.placements, self._config),
            streams={name: inbox.facts() for name, inbox in self._inboxes.items()},
            stale_deliveries=self.stale,
            clock=self._clock.facts(),
        )
        return facts

    def close(self) -> None:
        """Detaches the sensors, stops the simulation and takes back what was put into the stage; safe to call twice."""
        for product in self._products:
            product.close()
        self._products.clear()
        for inbox in self._inboxes.values():
            inbox.close()
        if self._scene is not None:
            self._adapter.stop_callbacks()
            self._adapter.stop_contacts()
            self._kit.stop()
            if self._before is not None and self._kit.current_stage() == self._scene.stage:
                self._adapter.restore_times(self._before[0])
                self._kit.restore_times(self._before[1])
            self._adapter.close()
            self._adapter.unregister_writer(self._kit.WRITER)
            self._scene.restore(self._prims)
            self._scene = None
        self._prims.clear()
        self._inboxes.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _check_settings(self) -> None:
        """Before anything is opened, and again when it plays: an application may change them with its timeline."""
        checks.check_settings(self._kit.settings(), self._config, self.device)

    def _warnings(self, settings: Mapping[str, Any]) -> list[str]:
        streams = {name: box.stream for name, box in self._inboxes.items()}
        return checks.warnings_of(self._config, self.release, settings, self._missing_extensions, streams)

    def _set_times(self, rendering: float, physics: float) -> None:
        self._adapter.set_times(rendering, physics)

    def _open_stage(self, top: Path, scene: Path | str) -> Generator[str, None, None]:
        if not self._adapter.open_stage(str(top)):
            raise SceneError(f"Isaac Sim could not open {scene}: its log says why")
        for _ in range(MAX_LOADING):
            yield f"loading {scene}"
            if not self._adapter.stage_is_loading() and not self._kit.stage_is_loading():
                return
        raise SceneError(f"{scene} was still loading after {MAX_LOADING} updates: check its references")

    def _attach_sensors(self) -> None:
        from saccade.simulators.isaac_scene import define_camera, lidar_pose
        from saccade.simulators.isaac_sensors import TIMES, CameraStream, LidarStream, own_cylinder

        scene = self._scene
        assert scene is not None
        config, humanoid = self._config.simulator, scene.humanoid
        self._kit.register_writer()
        no_labels = checks.no_labels_reason(self.release, self._kit.settings())
        for name, sensor in self._config.sensors.items():
            placement = scene.placements[name]
            stream: CameraStream | LidarStream
            if isinstance(sensor, LidarConfig):
                own = own_cylinder(placement.on_root, humanoid.radius, humanoid.root_height, humanoid.height)
                stream = LidarStream(
                    name,
                    sensor,
                    self._adapter,
                    device=self.device,
                    class_of=scene.labels.class_of,
                    own=own if placement.carried else (0.0, 0.0, 0.0, 0.0, 0.0),
                    require_device=config.require_device,
                    no_labels_reason=no_labels,
                )
                translation, rotation = lidar_pose(scene.stage, placement)
                prim = self._adapter.create_lidar(
                    placement.parent, f"saccade_{name}", sensor.rate, translation, rotation
                )
                width = height = LIDAR_SIZE
            else:
                stream = CameraStream(
                    name, sensor, device=self.device, further=config.labels, require_device=config.require_device
                )
                prim = define_camera(scene.stage, placement, sensor)
                width, height = sensor.width, sensor.height
            self._prims.append(prim)
            self._inboxes[name] = Inbox(
                stream, rate=sensor.rate, step=config.step, clock=self._clock, queued=not self._lockstep
            )
            requests = [*stream.requests(), *TIMES]
            self._products.append(
                self._kit.Product(prim, width, height, f"saccade_{name}", requests, self._sink_of(name))
            )

    def _sink_of(self, name: str) -> Callable[[Mapping[str, Any]], None]:
        def sink(data: Mapping[str, Any]) -> None:
            # What is raised inside a writer ends in a log: it is kept, and raised by the step.
            try:
                self._inboxes[name].deliver(data, self._adapter.simulation_time())
            except Exception as error:
                self._failure = self._failure or error

        return sink

    def _before_physics(self, dt: float) -> None:
        try:
            walk = self._walk
            walk.advance(self._adapter.simulation_time(), dt, self.state.applied)
            self._adapter.command(walk.position, walk.rotation, walk.linear, walk.angular, walk.targets, walk.dofs)
        except Exception as error:
            self._failure = self._failure or error

    def _after_physics(self, dt: float) -> None:
        try:
            now = self._adapter.simulation_time()
            for first, second in self._adapter.contacts():
                self._contacts.touch(first, second, now)
        except Exception as error:
            self._failure = self._failure or error

    def _begin_update(self) -> None:
        self.state.applied.clear()
        self._contacts.onsets.clear()
        self._physics_before = self._adapter.physics_steps()

    def _physics_steps(self) -> int:
        return int(self._adapter.physics_steps()) - self._physics_before

    def _end_update(self) -> None:
        """Takes over what an update brought; raises what went wrong in callbacks during it."""
        if self._failure is not None:
            error, self._failure = self._failure, None
            raise error
        taken, wanted = self._physics_steps(), self._config.simulator.substeps
        if taken != wanted and self._steps > 0:
            raise ConfigurationError(
                f"one update made {taken} physics steps instead of simulator.substeps = {wanted}: something else sets "
                f"the application's times, or the simulation was stopped"
            )
        self.uploads = {
            f"isaac.{name}": inbox.stream.upload_bytes
            for name, inbox in self._inboxes.items()
            if self.device != "cpu" and inbox.stream.upload_bytes
        }
        self._report()

    def _settle(self) -> Generator[str, None, None]:
        """Waits until every sensor has delivered what was just simulated several times in a row."""
        needed = SETTLED if self._lockstep else 1
        waiting: list[str] = []
        for _ in range(MAX_SETTLING):
            self._begin_update()
            yield "waiting for the sensors"
            self._end_update()
            waiting = [
                name
                for name, inbox in self._inboxes.items()
                # A rotating LiDAR's output may belong to an earlier state by design; that it comes is enough.
                if (inbox.counters.fresh if inbox.stream.kind == "lidar" or not self._lockstep else inbox.in_row)
                < needed
            ]
            if not waiting:
                break
        else:
            self._check_settings()
            listed = "; ".join(f"{name}: {self._inboxes[name].counters.as_dict()}" for name in waiting)
            raise ConfigurationError(
                f"after {MAX_SETTLING} updates these sensors had not delivered {needed} frames of the newest state "
                f"in a row: {listed}. Check Isaac Sim's log for the renderer's errors"
            )
        start = self._adapter.simulation_time()
        for inbox in self._inboxes.values():
            inbox.start(start)
        self.state.applied.clear()

    def _report(self) -> None:
        state, base = self.state, self._walk.base
        state.sim_time, state.step = self._adapter.simulation_time(), self._steps
        state.position, state.yaw = (base.x, base.y, self._walk.height), base.yaw
        state.velocity, state.yaw_rate = (base.forward, base.left), base.yaw_rate
        state.distance = base.distance
        state.contacts = list(self._contacts.onsets)
        self._history.append(self._walk.moment(state.sim_time))

    def _moment(self, sim_time: float) -> Moment:
        return min(reversed(self._history), key=lambda moment: abs(moment.sim_time - sim_time))

    def _clearance(self, stream: Any, frame: Frame, moment: Moment) -> list[float]:
        from saccade.simulators.isaac_truth import clearance_of

        assert self._scene is not None
        humanoid, placement = self._scene.humanoid, self._scene.placements[frame.sensor]
        root = humanoid.root_pose(moment.x, moment.y, moment.z, moment.yaw) if placement.carried else None
        points = frame.buffers.get("points", stream.points)
        labels = frame.buffers.get("labels", stream.labels)
        return clearance_of(
            points,
            labels if stream.has_labels else None,
            root,
            placement.on_root,
            floor_height=humanoid.floor_height,
            range_max=stream.config.range_max,
        )
