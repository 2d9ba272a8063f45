"""The main job: opens what a configuration names, runs the loop, judges the record, writes the report."""

from __future__ import annotations

import contextlib
import inspect
import shutil
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from saccade.config import Budgets, RunConfig
from saccade.configuration import LoadedConfiguration
from saccade.controller import Controller, ReflexController
from saccade.errors import EngineError, RecordError, SaccadeError
from saccade.execution import Execution, execution_for
from saccade.loop import STAND, UPDATE, Observer, Outcome, PerceptionLoop, RecordSink
from saccade.network import Network
from saccade.simulators.base import Resettable, Simulator, SteppedSimulator
from saccade.simulators.opening import device_for, simulator_for
from saccade.telemetry.gpu import GpuSampler
from saccade.telemetry.profiled import clear_profile, profile_facts
from saccade.telemetry.recorder import (
    Recorder,
    latest_directory,
    read_frames,
    restore_latest,
    run_directory,
    write_atomic,
)
from saccade.telemetry.taps import Taps
from saccade.validation.accuracy_budgets import judged_budgets
from saccade.validation.adaptive import AdaptiveControl
from saccade.validation.documents import header_of, json_text, now_text, run_document
from saccade.validation.interrupt import Interrupt, signals_to
from saccade.validation.progress import RunProgress
from saccade.validation.samples import SampleKeeper
from saccade.validation.scorer import LabelScorer
from saccade.validation.summary import finish_run, summarise
from saccade.validation.verdict import EXIT_STATUS
from saccade.validation.watch import APPLICATION, WORK, Watch, WatchedSink, saying

if TYPE_CHECKING:
    from rich.console import Console

    from saccade.bridge.bag import BagRecorder
    from saccade.bridge.session import BridgeSession


def validate(
    loaded: LoadedConfiguration, *, out: Path = Path("runs"), console: Console | None = None
) -> dict[str, Any]:
    """Runs the configured validation and returns its summary.

    Args:
        loaded: Configuration with the source of every field.
        out: Folder in which the run's own folder is made.
        console: Shows progress; ``None`` = silent.

    Returns:
        The content of ``run.json``, with ``directory`` added: ``verdict``, ``exit_status``, budgets and figures.

    Raises:
        SaccadeError: Something that the configuration names cannot be used; nothing of the run is left behind.
    """
    interrupt = Interrupt()
    turns = validation_turns(loaded, out=out, console=console, interrupt=interrupt)
    raised: BaseException | None = None
    with signals_to(interrupt):
        while True:
            try:
                if raised is None:
                    next(turns)
                else:
                    error, raised = raised, None
                    turns.throw(error)
            except StopIteration as end:
                return end.value
            except KeyboardInterrupt as error:
                if inspect.getgeneratorstate(turns) == inspect.GEN_CLOSED:
                    raise
                # The signal came between two turns: the run ends as if it had come within one.
                raised = error


def validation_turns(
    loaded: LoadedConfiguration,
    *,
    out: Path = Path("runs"),
    console: Console | None = None,
    interrupt: Interrupt | None = None,
    watch: Watch | None = None,
    stepped: bool = False,
    attach: bool = False,
) -> Generator[str, float | None, dict[str, Any]]:
    """Does what :func:`validate` does turn by turn, for an application that must not be held up.

    Each turn ends by saying what the next one is: :data:`WORK` may take minutes and can be done by any thread, one
    turn at a time; all others belong to the application's thread. :data:`~saccade.loop.STAND` and
    :data:`~saccade.loop.UPDATE` are the loop's: see :meth:`~saccade.loop.PerceptionLoop.steps`. The first turn is work.
    The generator is run to its end; to end it early, ask ``interrupt``.

    Args:
        loaded: As for :func:`validate`.
        out: As for :func:`validate`.
        console: As for :func:`validate`.
        interrupt: Its ``requested`` ends the run in order.
        watch: Looks on.
        stepped: Whether Isaac Sim's own application makes the updates.
        attach: Whether the stage that it has open is used as it is, instead of the scene being opened.

    Returns:
        As :func:`validate`, as the generator's value.

    Raises:
        SaccadeError: As :func:`validate`.
        KeyboardInterrupt: It was interrupted before there was anything to judge.
    """
    config = loaded.config
    interrupt = interrupt or Interrupt()
    before = latest_directory(out)
    directory = run_directory(out, config.run.name or loaded.name)
    document = run_document(loaded, directory)
    progress = RunProgress(console, config)
    say = saying(progress, watch, interrupt)
    with progress:
        recorder: Recorder | None = None
        session = RunSession(watch, stepped=stepped, attach=attach)
        outcome = Outcome(reason="interrupted", message="stopped before the first frame")
        keeper: SampleKeeper | None = None
        summary: dict[str, Any] | None = None
        driven = True
        try:
            write_atomic(directory / "run.json", json_text({**document, "state": "running"}))
            with interrupt.held():
                recorder = Recorder(directory, header_of(config, directory.name), flush_ms=config.record.flush_ms)
            yield from session.opening(loaded, say)
            document.update(session.facts())
            write_atomic(directory / "run.json", json_text({**document, "state": "running"}))
            keeper = SampleKeeper(
                config.record.samples,
                first=config.run.warmup,
                frames=config.run.frames,
                networks=session.networks,
            )
            outcome = yield from _run(config, session, recorder, directory, keeper, progress, interrupt, say)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or interrupt.raised:
                if session.state is not None:
                    outcome.message = "stopped by the user"
            elif isinstance(error, EngineError):
                outcome.reason, outcome.message = "error", str(error)
            elif isinstance(error, SaccadeError):
                if recorder is not None:
                    recorder.close("error", "the run could not start", 0.0, 0.0)
                shutil.rmtree(directory, ignore_errors=True)
                restore_latest(out, before)
                raise
            elif isinstance(error, GeneratorExit):
                # Whoever did the turns has gone: what is left is done here and now.
                driven = False
                outcome.message = "the run was given up"
                raise
            else:
                outcome.reason, outcome.message = "error", f"{type(error).__name__}: {error}"
                raise
        finally:
            # Judging and the report take a second or two: the first Ctrl-C does not take the verdict away.
            interrupt.running = True
            # After the run: the floor plan with what moved, engines' final counters.
            if session.bag is not None:
                session.bag.flush()
            facts = session.facts() if directory.exists() and recorder is not None else {}
            if driven:
                yield WORK
            if recorder is not None:
                recorder.close(outcome.reason, outcome.message, outcome.wall_s, outcome.simulated_s)
            if directory.exists() and recorder is not None:
                say("judging the record")
                document["finished"] = now_text()
                document.update(facts)
                document["recorder"] = recorder.facts()
                if outcome.pauses:
                    document["pauses"] = [{"after_tick": tick, "wall_s": wall_s} for tick, wall_s in outcome.pauses]
                budgets, reason = judged_budgets(loaded)
                if reason is not None:
                    document["accuracy_not_judged"] = reason
                summary = _judged(directory, budgets, document)
                for listener in (session.bridge, session.bag):
                    if listener is not None:
                        listener.verdict(summary)
            session.leave_ros()
            if driven:
                yield APPLICATION
            session.close()
        if recorder is None:  # stopped before there was anything to judge
            shutil.rmtree(directory, ignore_errors=True)
            restore_latest(out, before)
            raise KeyboardInterrupt
        if summary is None:
            raise RecordError(f"{directory}: the folder was removed during the run, and its record with it")
        yield WORK
        say("writing the report")
        summary = _with_report(directory, keeper, summary)
    return {**summary, "directory": str(directory)}


def _judged(directory: Path, budgets: Budgets, document: dict[str, Any]) -> dict[str, Any]:
    """Judges the record; where the verdict cannot be written, it is returned all the same, and is INVALID."""
    try:
        return finish_run(directory, budgets, document)
    except RecordError as error:
        found = summarise(read_frames(directory), budgets)
        reasons = [str(error), *(reason for reason in found["reasons"] if found["verdict"] != "pass")]
        return {**document, **found, "verdict": "invalid", "exit_status": EXIT_STATUS["invalid"], "reasons": reasons}


def _with_report(directory: Path, keeper: SampleKeeper | None, summary: dict[str, Any]) -> dict[str, Any]:
    """Writes samples and report; a full disk does not take the verdict away, which is written already."""
    try:
        if keeper is not None:
            keeper.write(directory)
        _report(directory)
    except (RecordError, OSError) as error:
        remedy = f"make room and run: saccade report {directory}"
        return {**summary, "reasons": [*summary["reasons"], f"there is no report: {error}; {remedy}"]}
    return summary


class RunSession:
    """What is open during a run."""

    def __init__(self, watch: Watch | None = None, *, stepped: bool = False, attach: bool = False) -> None:
        self.stepped = stepped
        self._attach = attach
        self.networks: dict[str, Network] = {}
        self.simulator: Simulator | None = None
        self.state: Any = None
        self.bridge: BridgeSession | None = None
        self.bag: BagRecorder | None = None
        self.execution: Execution | None = None
        self.taps: Taps = {}
        """What leaves the GPU beside the results, by name: bytes and count so far."""
        self.sampler: GpuSampler | None = None
        self.watch = watch
        self.adaptive: AdaptiveControl | None = None

    def opening(self, loaded: LoadedConfiguration, say: Callable[[str], None]) -> Generator[str, float | None, None]:
        """Opens networks, simulator and the ROS 2 bridge; the turns are those of :func:`validation_turns`."""
        config = loaded.config
        device = device_for(config)
        options: dict[str, Any] = {}
        if config.engine.adaptive is not None and config.networks:
            self.adaptive = AdaptiveControl(loaded, device=device)
        for name, network in config.networks.items():
            say(f"loading network {name}")
            path = loaded.model_path(name)
            if self.adaptive is not None:
                options["opener"] = self.adaptive.opener(name)
            self.networks[name] = Network(
                name, network, path, sensors=config.sensors, engine=config.engine, device=device, say=say, **options
            )
            self._opened()
        if self.adaptive is not None:
            self.adaptive.attach(self.networks)
        yield APPLICATION
        self.simulator = simulator_for(loaded, say, stepped=self.stepped, attach=self._attach)
        replay = config.simulator.backend == "replay"
        scene = config.scene if replay else loaded.scene_path()
        if self.stepped and isinstance(self.simulator, SteppedSimulator):
            opening = self.simulator.opening(scene)
            while self.state is None:
                try:
                    waits_for = next(opening)
                except StopIteration as end:
                    self.state = end.value
                else:
                    yield UPDATE
                    say(waits_for)  # and hears a wish to stop
        else:
            self.state = self.simulator.open(scene)
        self._opened()
        if config.ros2.enabled:
            from saccade.bridge.session import BridgeSession

            yield WORK
            say("joining ROS 2")
            self.bridge = BridgeSession(
                config,
                intrinsics=self._intrinsics(),
                joints=getattr(self.simulator, "joint_names", None),
                resettable=isinstance(self.simulator, Resettable),
                report_robot=getattr(self.simulator, "report_robot", None),
            )
            self._opened()

    def _opened(self) -> None:
        if self.watch is not None:
            self.watch.opened(self)

    def record_bag(self, config: RunConfig, directory: Path) -> None:
        """Opens the bag of the run in its folder."""
        from saccade.bridge.bag import BagRecorder

        report_robot = getattr(self.simulator, "report_robot", None)
        self.bag = BagRecorder(directory, config, intrinsics=self._intrinsics(), report_robot=report_robot)

    def _intrinsics(self) -> dict[str, Any]:
        """Of each camera whose simulator knows them."""
        sensors = self.simulator.facts().get("sensors", {}) if self.simulator is not None else {}
        return {name: facts["intrinsics"] for name, facts in sensors.items() if facts.get("intrinsics")}

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say about what is open."""
        engines = {name: network.facts() for name, network in self.networks.items()}
        # A simulator that was stopped while it opened has nothing to say yet.
        simulator = self.simulator.facts() if self.simulator is not None and self.state is not None else {}
        hashes = {f"model {name}": facts["sha256"] for name, facts in engines.items() if "sha256" in facts}
        if "scene_sha256" in simulator:
            hashes["scene"] = simulator["scene_sha256"]
        facts: dict[str, Any] = {
            "engine": engines,
            "simulator": simulator,
            "hashes": hashes,
            "device": self.simulator.device if self.simulator is not None else None,
            **({"ros2": self.bridge.facts()} if self.bridge is not None else {}),
            **({"bag": self.bag.facts()} if self.bag is not None else {}),
        }
        if self.execution is not None:
            facts.update(self.execution.facts())
            facts["execution"]["physics"] = simulator.get("physics")
            taps = {name: tap() for name, tap in self.taps.items()}
            facts["residency"]["taps"] = {name: tap for name, tap in taps.items() if tap["count"]}
        if self.adaptive is not None and self.adaptive.policy is not None:
            facts["adaptive"] = self.adaptive.facts()
        if self.sampler is not None:
            facts.update(gpu=self.sampler.facts(), gpu_series=self.sampler.series, profile=profile_facts())
        return facts

    def leave_ros(self) -> None:
        """Sends and writes what waits, and leaves ROS 2; safe to call twice."""
        for listener in (self.bag, self.bridge):
            if listener is not None:
                listener.close()

    def close(self) -> None:
        """Frees everything; safe to call twice."""
        self.leave_ros()
        for network in self.networks.values():
            network.close()
        if self.simulator is not None:
            self.simulator.close()


def _run(
    config: RunConfig,
    session: RunSession,
    recorder: Recorder,
    directory: Path,
    keeper: SampleKeeper,
    progress: Observer,
    interrupt: Interrupt,
    say: Callable[[str], None],
) -> Generator[str, float | None, Outcome]:
    simulator = session.simulator
    assert simulator is not None
    adaptive = session.adaptive
    observers: list[Observer] = [*([adaptive] if adaptive is not None else ()), keeper, progress]
    thresholds = {name: network.config.decoder.hazard_threshold for name, network in session.networks.items()}
    controller: Controller = ReflexController(
        config.controller, hazard_thresholds=thresholds, route=getattr(simulator, "route", ())
    )
    bridge = session.bridge
    if bridge is not None:
        controller = bridge.controller or controller
    if config.record.bag:
        session.record_bag(config, directory)
        observers = [*observers, cast(Observer, session.bag)]
    sensor_recorder = None
    if config.record.sensors:
        from saccade.telemetry.sensor_recorder import SensorRecorder

        # In lockstep the simulator waits for the disk; in real time it cannot, and what is lost is counted.
        sensor_recorder = SensorRecorder(directory, block=config.simulator.pace == "lockstep")
        observers = [*observers, sensor_recorder]
    sink: RecordSink = recorder
    if session.watch is not None:
        observers = [*observers, session.watch.tick]
        sink = WatchedSink(recorder, session.watch)
    started = time.perf_counter()

    def stop() -> tuple[str, str] | None:
        if bridge is not None and not session.stepped:
            bridge.pause(lambda: interrupt.requested)
        if interrupt.requested:
            return "interrupted", "stopped by the user"
        if recorder.failure is not None:
            return "error", f"the record could not be written: {recorder.failure}"
        if sensor_recorder is not None and sensor_recorder.failure is not None:
            return "error", f"the sensor recording could not be written: {sensor_recorder.failure}"
        if session.bag is not None and session.bag.failure is not None:
            return "error", session.bag.failure
        if config.run.max_time is not None and time.perf_counter() - started > config.run.max_time:
            return "timeout", f"run.max_time of {config.run.max_time:g} s is over"
        return None

    execution = execution_for(simulator, list(session.networks.values()), graph=config.engine.graph)
    session.execution = execution
    session.taps = {
        name: observer.tap.facts
        for name, observer in (
            ("record.samples", keeper),
            ("record.sensors", sensor_recorder),
            ("record.bag", session.bag),
            ("ros2", bridge.publisher if bridge is not None else None),
        )
        if observer is not None
    }
    loop = PerceptionLoop(
        config,
        simulator=simulator,
        networks=session.networks,
        controller=controller,
        sink=sink,
        scorer=LabelScorer(),
        observers=observers,
        publishers=[bridge.publisher] if bridge is not None else [],
        stop=stop,
        reset=bridge.reset if bridge is not None else lambda state: False,
        execution=execution,
        stepped=session.stepped,
        adaptive=adaptive,
    )
    clear_profile()
    session.sampler = GpuSampler(_ordinal(simulator.device))
    session._opened()
    interrupt.running = True
    outcome = None
    try:
        with session.sampler, adaptive.monitor if adaptive is not None else contextlib.nullcontext():
            if bridge is not None:
                yield WORK
                bridge.wait_for_controller(say=say, stopped=lambda: interrupt.requested)
            yield APPLICATION
            steps = loop.steps(session.state)
            if bridge is not None and session.stepped:
                steps = _paused_over_ros(steps, bridge.receiver.may_step, simulator, lambda: interrupt.requested)
            outcome = yield from steps
        return outcome
    finally:
        interrupt.running = False
        if sensor_recorder is not None:
            sensor_recorder.close(complete=outcome is not None and outcome.reason == "completed")


def _paused_over_ros(
    steps: Generator[str, float | None, Outcome],
    may_step: Callable[[], bool],
    simulator: Any,
    stopped: Callable[[], bool],
) -> Generator[str, float | None, Outcome]:
    """Lets a run stand still while it is paused over ROS 2, and the application go on: its thread waits for nothing."""
    stood: float | None = None
    while True:
        try:
            turn = steps.send(stood)
        except StopIteration as end:
            return end.value
        stood = yield turn
        if turn != STAND or may_step() or stopped():
            continue
        start = time.perf_counter()
        simulator.hold(True)
        while not may_step() and not stopped():
            yield UPDATE
        stood = (stood or 0.0) + time.perf_counter() - start


def _ordinal(device: str) -> int:
    """Returns the number of a CUDA device; 0 for the CPU, beside which the first GPU is watched where there is one."""
    return int(device.partition(":")[2] or 0)


def _report(directory: Path) -> None:
    from saccade.reporting.html import write_report

    write_report(directory)
