"""The main job: opens what a configuration names, runs the loop, judges the record, writes the report."""

from __future__ import annotations

import contextlib
import datetime
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from saccade.config import Budgets, RunConfig
from saccade.configuration import LoadedConfiguration
from saccade.controller import Controller, ReflexController
from saccade.errors import EngineError, RecordError, SaccadeError
from saccade.execution import Execution, execution_for
from saccade.loop import Observer, Outcome, PerceptionLoop
from saccade.network import Network
from saccade.simulators.base import Resettable, Simulator
from saccade.simulators.opening import device_for, simulator_for
from saccade.telemetry.gpu import GpuSampler
from saccade.telemetry.host import host_facts, package_versions
from saccade.telemetry.profiled import clear_profile, profile_facts
from saccade.telemetry.recorder import (
    Recorder,
    latest_directory,
    point_latest,
    read_frames,
    run_directory,
    write_atomic,
)
from saccade.telemetry.taps import Taps
from saccade.validation.accuracy_budgets import judged_budgets
from saccade.validation.progress import RunProgress
from saccade.validation.samples import SampleKeeper
from saccade.validation.scorer import LabelScorer
from saccade.validation.summary import finish_run, summarise
from saccade.validation.verdict import EXIT_STATUS

if TYPE_CHECKING:
    from rich.console import Console

    from saccade.bridge.bag import BagRecorder
    from saccade.bridge.session import BridgeSession


class Interrupt:
    """Turns the first Ctrl-C (or SIGTERM) into an orderly end and the second into an immediate one."""

    def __init__(self) -> None:
        self.requested = False
        self.running = False
        self.raised = False
        """Whether an exception was raised; what loads at that moment may have turned it into one of its own."""

    def __call__(self, number: int, frame: Any) -> None:
        """Handles the signal."""
        at_once = self.requested or not self.running
        self.requested = True
        if at_once:
            self.raised = True
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Puts the first signal off until the block has ended: what it makes is never left without an owner."""
        self.running = True
        try:
            yield
        finally:
            self.running = False
        if self.requested:
            self.raised = True
            raise KeyboardInterrupt


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
    config = loaded.config
    before = latest_directory(out)
    directory = run_directory(out, config.run.name or loaded.name)
    interrupt = Interrupt()
    document = _document(loaded, directory)
    progress = RunProgress(console, config)
    with _signals(interrupt), progress:
        recorder: Recorder | None = None
        session = _Session()
        outcome = Outcome(reason="interrupted", message="stopped before the first frame")
        keeper: SampleKeeper | None = None
        summary: dict[str, Any] | None = None
        try:
            write_atomic(directory / "run.json", _json({**document, "state": "running"}))
            with interrupt.held():
                recorder = Recorder(directory, _header(config, directory.name), flush_ms=config.record.flush_ms)
            session.open(loaded, progress.say)
            document.update(session.facts())
            write_atomic(directory / "run.json", _json({**document, "state": "running"}))
            keeper = SampleKeeper(
                config.record.samples,
                first=config.run.warmup,
                frames=config.run.frames,
                networks=session.networks,
            )
            outcome = _run(config, session, recorder, directory, keeper, progress, interrupt, progress.say)
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
                _restore_latest(out, before)
                raise
            else:
                outcome.reason, outcome.message = "error", f"{type(error).__name__}: {error}"
                raise
        finally:
            # Judging and the report take a second or two: the first Ctrl-C does not take the verdict away.
            interrupt.running = True
            if recorder is not None:
                recorder.close(outcome.reason, outcome.message, outcome.wall_s, outcome.simulated_s)
            if directory.exists() and recorder is not None:
                progress.say("judging the record")
                document["finished"] = _now()
                if session.bag is not None:
                    session.bag.flush()
                # After the run: the floor plan with what moved, engines' final counters.
                document.update(session.facts())
                document["recorder"] = recorder.facts()
                budgets, reason = judged_budgets(loaded)
                if reason is not None:
                    document["accuracy_not_judged"] = reason
                summary = _judged(directory, budgets, document)
                for listener in (session.bridge, session.bag):
                    if listener is not None:
                        listener.verdict(summary)
            session.close()
        if recorder is None:  # stopped before there was anything to judge
            shutil.rmtree(directory, ignore_errors=True)
            _restore_latest(out, before)
            raise KeyboardInterrupt
        if summary is None:
            raise RecordError(f"{directory}: the folder was removed during the run, and its record with it")
        progress.say("writing the report")
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


class _Session:
    """What is open during a run."""

    def __init__(self) -> None:
        self.networks: dict[str, Network] = {}
        self.simulator: Simulator | None = None
        self.state: Any = None
        self.bridge: BridgeSession | None = None
        self.bag: BagRecorder | None = None
        self.execution: Execution | None = None
        self.taps: Taps = {}
        """What leaves the GPU beside the results, by name: bytes and count so far."""
        self.sampler: GpuSampler | None = None

    def open(self, loaded: LoadedConfiguration, say: Callable[[str], None]) -> None:
        config = loaded.config
        device = device_for(config)
        for name, network in config.networks.items():
            say(f"loading network {name}")
            path = loaded.model_path(name)
            self.networks[name] = Network(
                name, network, path, sensors=config.sensors, engine=config.engine, device=device, say=say
            )
        self.simulator = simulator_for(loaded, say)
        replay = config.simulator.backend == "replay"
        self.state = self.simulator.open(config.scene if replay else loaded.scene_path())
        if config.ros2.enabled:
            from saccade.bridge.session import BridgeSession

            say("joining ROS 2")
            self.bridge = BridgeSession(
                config,
                intrinsics=self._intrinsics(),
                joints=getattr(self.simulator, "joint_names", None),
                resettable=isinstance(self.simulator, Resettable),
                report_robot=getattr(self.simulator, "report_robot", None),
            )

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
        if self.sampler is not None:
            facts.update(gpu=self.sampler.facts(), gpu_series=self.sampler.series, profile=profile_facts())
        return facts

    def close(self) -> None:
        for listener in (self.bag, self.bridge):
            if listener is not None:
                listener.close()
        for network in self.networks.values():
            network.close()
        if self.simulator is not None:
            self.simulator.close()


def _run(
    config: RunConfig,
    session: _Session,
    recorder: Recorder,
    directory: Path,
    keeper: SampleKeeper,
    progress: Observer,
    interrupt: Interrupt,
    say: Callable[[str], None],
) -> Outcome:
    simulator = session.simulator
    assert simulator is not None
    observers: list[Observer] = [keeper, progress]
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
    started = time.perf_counter()

    def stop() -> tuple[str, str] | None:
        if bridge is not None:
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
        sink=recorder,
        scorer=LabelScorer(),
        observers=observers,
        publishers=[bridge.publisher] if bridge is not None else [],
        stop=stop,
        reset=bridge.reset if bridge is not None else lambda state: False,
        execution=execution,
    )
    clear_profile()
    session.sampler = GpuSampler(_ordinal(simulator.device))
    interrupt.running = True
    outcome = None
    try:
        with session.sampler:
            if bridge is not None:
                bridge.wait_for_controller(say=say, stopped=lambda: interrupt.requested)
            outcome = loop.run(session.state)
        return outcome
    finally:
        interrupt.running = False
        if sensor_recorder is not None:
            sensor_recorder.close(complete=outcome is not None and outcome.reason == "completed")


def _ordinal(device: str) -> int:
    """Returns the number of a CUDA device; 0 for the CPU, beside which the first GPU is watched where there is one."""
    return int(device.partition(":")[2] or 0)


def _header(config: RunConfig, name: str) -> dict[str, Any]:
    return {
        "kind": "header",
        "schema": 1,
        "run": name,
        "created": _now(),
        "sensors": {
            name: {"kind": s.kind, "rate": s.rate, **({"range_max": s.range_max} if s.kind == "lidar" else {})}
            for name, s in config.sensors.items()
        },
        "networks": {
            name: {
                "sensor": next(iter(n.inputs.values())).sensors[0],
                "classes": n.decoder.classes,
                "hazard_threshold": n.decoder.hazard_threshold,
            }
            for name, n in config.networks.items()
        },
        "deadline_ms": config.run.deadline_ms,
        "frames_expected": config.run.frames,
        "warmup": config.run.warmup,
    }


def _document(loaded: LoadedConfiguration, directory: Path) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": directory.name,
        "started": _now(),
        "configuration": loaded.config.model_dump(mode="json"),
        "configuration_file": str(loaded.path),
        "sources": loaded.sources,
        "seed": loaded.config.run.seed,
        "versions": package_versions(),
        "host": host_facts(),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).astimezone().isoformat(timespec="milliseconds")


def _json(document: dict[str, Any]) -> str:
    import json

    return json.dumps(document, indent=1, default=str)


def _report(directory: Path) -> None:
    from saccade.reporting.html import write_report

    write_report(directory)


def _restore_latest(out: Path, before: Path | None) -> None:
    """Points ``latest`` back at the run before the one that could not start."""
    if before is not None:
        point_latest(out, before.name)
    elif (out / "latest").is_symlink():
        (out / "latest").unlink()


@contextlib.contextmanager
def _signals(interrupt: Interrupt) -> Iterator[None]:
    """Installs the handler; signals belong to the main thread, elsewhere the caller's own handling stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    report = sys.unraisablehook

    def quiet(unraisable: sys.UnraisableHookArgs) -> None:
        # A signal can arrive in a callback that cannot raise, such as a weak reference's during an import: it is noted
        # all the same, and the run ends at the next step.
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            report(unraisable)

    sys.unraisablehook = quiet
    try:
        yield
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)
