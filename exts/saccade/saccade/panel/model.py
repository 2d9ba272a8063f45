"""Panel: the view model of the window, a state machine over a real run on a worker or in an application's updates."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade import paths
from saccade.config import Budgets
from saccade.configuration import LoadedConfiguration, load_configuration
from saccade.errors import SaccadeError
from saccade.panel import live, scene
from saccade.panel.driver import RunDriver
from saccade.panel.live import LiveRun
from saccade.panel.logbook import Logbook
from saccade.panel.preview import Preview, Previews
from saccade.panel.view import TRANSITIONS, Actions, Level, LogLine, State, View
from saccade.simulators.base import SteppedSimulator
from saccade.simulators.isaac_checks import isaac_overrides
from saccade.validation.accuracy_budgets import judged_budgets
from saccade.validation.interrupt import Interrupt

if TYPE_CHECKING:
    from pxr import Usd

LOOKING_S = 0.003
"""Time per update that looking through an open stage may take [s]."""
CLOSE_TIMEOUT_S = 60.0
"""How long the end of the application waits for a run to be ended in order [s]."""


class Panel:
    """What the window shows and what its buttons do; every method returns at once, :meth:`close` excepted.

    Args:
        out: Folder that runs go to.
        application_stage: Returns the stage that an application has open. Given, runs on its simulator are stepped by
            :meth:`update`, and its stage is looked through; ``None`` = no application, a worker does all.
        forward: Also given every line of the log.
        missing: What this Python lacks.
    """

    def __init__(
        self,
        *,
        out: Path = Path("runs"),
        configuration: str = "warehouse",
        application_stage: Callable[[], Usd.Stage | None] | None = None,
        forward: Callable[[Any, str], None] | None = None,
        missing: tuple[LogLine, ...] = (),
    ) -> None:
        self.out = out
        self.log = Logbook(forward)
        self.threads: list[tuple[str, int]] = []
        """Which thread did what: kind of work and thread identifier, the newest 1000."""
        self._stage = application_stage
        self._missing = missing
        self._lock = threading.RLock()
        self._state: State = "idle"
        self._worker: ThreadPoolExecutor | None = None
        self._driver: RunDriver | None = None
        self._live: LiveRun | None = None
        self._previews: Previews | None = None
        self._previewing = False
        self._loaded: LoadedConfiguration | None = None
        self._budgets: Budgets | None = None
        self._loading: Future[None] | None = None
        self._looking: Generator[None, None, scene.SceneFacts] | None = None
        self._looked_at: tuple[Any, ...] | None = None
        self._facts: scene.SceneFacts | None = None
        self._open_scene = ""
        self._summary: dict[str, Any] | None = None
        self._choices: dict[str, str] = {
            "configuration": "",
            "scene": "",
            "humanoid": "",
            "backend": "",
            "precision": "",
        }
        self._revision = itertools.count(1)
        self._shipped = tuple(path.stem for path in paths.listing("configuration"))
        self._base = View(missing=missing, scenes=tuple(path.name for path in paths.listing("scene")))
        for line in missing:
            self.log.add(line.level, line.text, line.remedy)
        self.choose_configuration(configuration)

    # ------------------------------------------------------------------------------------------ choices

    @property
    def state(self) -> State:
        """What it does now."""
        return self._state

    def choose_configuration(self, path_or_name: str, *, frames: int | None = None) -> None:
        """Picks a configuration file, or a shipped one by name; a wrong one is said in the log.

        Args:
            path_or_name: The file, or the name.
            frames: Judged decisions; ``None`` = the configuration's own.
        """
        self._frames = frames
        self._choices = {"configuration": path_or_name, "scene": "", "humanoid": "", "backend": "", "precision": ""}
        self._load()

    def choose_scene(self, path: str) -> None:
        """Picks another scene than the configuration's; empty = its own.

        The file of the stage that an application has open means that stage as it is: sensors are attached to it.
        """
        self._choose("scene", path)

    def choose_humanoid(self, prim: str) -> None:
        """Picks the humanoid's prim; empty = the configuration's own."""
        self._choose("humanoid", prim)

    def choose_engine(self, backend: str = "", precision: str = "") -> None:
        """Picks what runs the networks, and in which arithmetic; empty = the configuration's own."""
        self._choices["backend"] = backend or self._choices["backend"]
        self._choose("precision", precision or self._choices["precision"])

    def _choose(self, name: str, value: str) -> None:
        self._choices[name] = value
        self._load()

    def overrides(self) -> list[str]:
        """Returns the choices as ``--set`` has them."""
        import json

        names = {
            "scene": "scene",
            "humanoid": "simulator.humanoid.prim",
            "backend": "engine.backend",
            "precision": "engine.precision",
        }
        found = [f"{names[key]}={json.dumps(value)}" for key, value in self._choices.items() if value and key in names]
        return found

    def _load(self) -> None:
        if self._state not in ("idle", "done", "failed"):
            self.log.add("warning", "choices are fixed while a run goes on", "Press Stop first.")
            return
        choices, overrides, frames = dict(self._choices), self.overrides(), self._frames

        def load() -> None:
            self._note("load")
            try:
                loaded = load_configuration(choices["configuration"], overrides=overrides, frames=frames)
                if self._stage is not None and loaded.config.simulator.backend == "auto":
                    overrides.extend(isaac_overrides(loaded.config))
                    loaded = load_configuration(choices["configuration"], overrides=overrides, frames=frames)
                budgets, _ = judged_budgets(loaded)
                facts = None if self._stage is not None else scene.looked_through(loaded)
            except SaccadeError as error:
                self.log.add_error(error)
                with self._lock:
                    self._loaded, self._facts = None, None
                    self._changed()
                return
            with self._lock:
                if choices == self._choices:
                    self._loaded, self._budgets = loaded, budgets
                    if self._stage is None:
                        self._facts = facts
                    self._changed()

        self._loading = self._work().submit(load)
        self._changed()

    # ------------------------------------------------------------------------------------------ buttons

    def start(self) -> None:
        """Starts a run of what is chosen."""
        with self._lock:
            if self._state not in ("idle", "done", "failed") or self._reads:
                return
            if self._loaded is None:
                self.log.add(
                    "error", "there is no configuration to run", "Pick one; the log says what is wrong with it."
                )
                return
            loaded = self._loaded
            config = loaded.config
            interrupt = Interrupt()
            ranges = {name: s.range_max for name, s in config.sensors.items() if s.kind == "lidar"}
            self._previews = Previews(ranges)
            self._previews.enabled = self._previewing
            self._live = LiveRun(config, self._budgets, self._previews)
            self._summary = None
            stepped = self._stage is not None and config.simulator.backend == "isaac"
            attach = stepped and bool(self._open_scene) and self._choices["scene"] == self._open_scene
            self._move("building")
            self.log.add(
                "info", f"run of {loaded.name}: {config.run.frames} decisions after {config.run.warmup} of warm-up"
            )
            self._driver = RunDriver(
                self._turns(loaded, interrupt, self._live, stepped=stepped, attach=attach),
                interrupt,
                self._work(),
                stepped=stepped,
                at_stand=self._at_stand,
                on_hold=self._hold,
            )

    def _turns(
        self, loaded: LoadedConfiguration, interrupt: Interrupt, watch: LiveRun, *, stepped: bool, attach: bool
    ) -> Generator[Any, Any, Any]:
        """The run's turns, each noted with the thread that does it."""
        from saccade.validation.run import validation_turns

        turns = validation_turns(loaded, out=self.out, interrupt=interrupt, watch=watch, stepped=stepped, attach=attach)
        kind, sent, raised = "work", None, None
        while True:
            self._note(kind)
            try:
                kind = turns.send(sent) if raised is None else turns.throw(raised)
            except StopIteration as end:
                return end.value
            raised = None
            try:
                sent = yield kind
            except Exception as error:
                sent, raised = None, error

    def pause(self) -> None:
        """Lets the run stand still after the decision that is under way."""
        with self._lock:
            if self._state == "running" and self._driver is not None:
                self._driver.pause()
                self._move("paused")

    def resume(self) -> None:
        """Lets it go on."""
        with self._lock:
            if self._state == "paused" and self._driver is not None:
                self._driver.resume()
                self._move("running")

    def stop(self) -> None:
        """Ends the run in order: what there is, is judged as interrupted and reported."""
        with self._lock:
            if self._state in ("building", "running", "paused") and self._driver is not None:
                self._driver.stop()
                self._move("stopping")
                self.log.add("info", "stopping: the run is judged as interrupted")

    def save_report(self, target: Path | str) -> None:
        """Copies the report of the last run to ``target``: a file, or a folder that it goes into."""
        summary = self._summary
        if summary is None:
            self.log.add("warning", "there is no report yet", "Let a run come to its end first.")
            return

        def save() -> None:
            self._note("save")
            try:
                self.log.add("info", f"report saved: {_save(Path(summary['directory']), Path(target))}")
            except SaccadeError as error:
                self.log.add_error(error)
            self._changed()

        self._work().submit(save)

    def preview(self, on: bool) -> None:
        """Draws pictures of the sensors, or no longer: without a viewer none are made."""
        self._previewing = on
        if self._previews is not None:
            self._previews.enabled = on

    @property
    def previews(self) -> dict[str, Preview]:
        """The newest picture of each sensor."""
        return {} if self._previews is None else self._previews.shown

    # ------------------------------------------------------------------------------------------ driving

    def update(self) -> None:
        """Does what is due now; called once per update of the application, or as often as something shall be drawn."""
        self._look()
        driver = self._driver
        if driver is None:
            return
        driver.update()
        with self._lock:
            if driver.stepping and self._state == "building":
                self._move("running")
            if driver.finished:
                self._end(driver)
            elif self._live is not None and self._state == "running" and self._live.progress >= 1.0:
                self._move("stopping")

    def _at_stand(self) -> None:
        self._note("stand")
        if self._live is not None:
            self._live.at_stand()

    def _hold(self, on: bool) -> None:
        session = self._live.session if self._live is not None else None
        simulator = session.simulator if session is not None else None
        if isinstance(simulator, SteppedSimulator):
            simulator.hold(on)

    def _end(self, driver: RunDriver) -> None:
        self._driver = None
        error = driver.error
        if error is None:
            self._summary = driver.summary
            assert self._summary is not None
            if self._state in ("building", "running", "paused"):
                self._move("stopping")
            self._move("done")
            verdict = self._summary["verdict"]
            level: Level = "info" if verdict == "pass" else "warning"
            self.log.add(level, f"{verdict.upper()}: {'; '.join(self._summary['reasons'])}")
            self.log.add("info", f"report: {self._summary['directory']}/report.html")
        elif isinstance(error, KeyboardInterrupt):
            self._move("idle" if self._state in ("building", "stopping") else "failed")
            self.log.add("info", "stopped before there was anything to judge")
        else:
            self.log.add_error(error)
            self._move("failed")

    def _look(self) -> None:
        """Looks on through the application's stage, a few milliseconds per update."""
        if self._stage is None or self._state not in ("idle", "done", "failed"):
            return
        if self._looking is None:
            stage = self._stage()
            identifier = "" if stage is None else str(stage.GetRootLayer().identifier)
            key = None if stage is None else (identifier, id(stage))
            if key == self._looked_at:
                return
            self._looked_at = key
            self._facts = None
            # A stage that was never saved has no file that a record could name.
            self._open_scene = identifier if Path(identifier).is_file() else ""
            if stage is not None:
                self._looking = scene.look_through(stage)
            self._changed()
            return
        until = time.perf_counter() + LOOKING_S
        try:
            while time.perf_counter() < until:
                next(self._looking)
        except StopIteration as end:
            self._facts, self._looking = end.value, None
            self._changed()
        except Exception as error:  # the stage was closed under it
            self._looking, self._looked_at = None, None
            self.log.add("warning", f"the stage changed while it was looked through: {error}")

    def look_again(self) -> None:
        """Looks through the application's stage anew, such as after it was changed."""
        self._looking, self._looked_at = None, None

    # ------------------------------------------------------------------------------------------ view

    def view(self) -> View:
        """Returns what the window shows now."""
        with self._lock:
            loaded, current, summary = self._loaded, self._live, self._summary
            state = self._state
            facts = self._facts
        shipped = self._shipped
        chosen = self._choices["configuration"]
        view = replace(
            self._base,
            state=state,
            actions=_actions(state, ready=loaded is not None and not self._reads, reported=summary is not None),
            configurations=shipped if chosen in shipped else (chosen, *shipped),
            configuration=chosen,
            scenes=(*((self._open_scene,) if self._open_scene else ()), *self._base.scenes),
            scene=self._choices["scene"],
            humanoids=tuple(facts.humanoids) if facts is not None else (),
            humanoid=self._choices["humanoid"],
            log=self.log.lines,
        )
        if self._reads:
            view = replace(view, doing="reading the configuration")
        if loaded is None:
            return view
        config = loaded.config
        found = scene.sensor_rows(config.sensors, facts)
        view = replace(
            view,
            backend=config.engine.backend,
            precision=config.engine.precision,
            deadline_ms=config.run.deadline_ms,
            wanted=config.run.warmup + config.run.frames,
            warmup=config.run.warmup,
            sensors=tuple(found.values()),
            ros2="on" if config.ros2.enabled else "off (ros2.enabled: false)",
        )
        return view if current is None else live.with_run(view, current, found, summary)

    @property
    def _reads(self) -> bool:
        """Whether a choice is still being read: what is loaded is then not what is chosen."""
        return self._loading is not None and not self._loading.done()

    def _changed(self) -> None:
        self._base = replace(self._base, revision=next(self._revision))

    def _move(self, state: State) -> None:
        if state not in TRANSITIONS[self._state]:
            raise RuntimeError(f"{state} does not follow {self._state}")
        self._state = state
        self._changed()

    def _note(self, kind: str) -> None:
        self.threads.append((kind, threading.get_ident()))
        del self.threads[:-1000]

    def _work(self) -> ThreadPoolExecutor:
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="saccade-panel")
        return self._worker

    def settle(self, timeout_s: float = 60.0) -> State:
        """Updates until nothing is under way, for scripts and tests; a paused run stays paused.

        Returns:
            The state then.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.update()
            if not self._reads and self._state in ("idle", "paused", "done", "failed") and self._looking is None:
                return self._state
            time.sleep(0.002)
        return self._state

    def close(self) -> None:
        """Ends what is under way, and the worker; safe to call twice."""
        driver, self._driver = self._driver, None
        if driver is not None and not driver.finish(CLOSE_TIMEOUT_S):
            self.log.add("warning", f"the run did not end within {CLOSE_TIMEOUT_S:g} s")
        if self._worker is not None:
            self._worker.shutdown(wait=driver is None or driver.finished, cancel_futures=True)
            self._worker = None
        self._looking = None
        self._stage = None
        self._live = self._previews = None


def _actions(state: State, *, ready: bool, reported: bool) -> Actions:
    resting = state in ("idle", "done", "failed")
    return Actions(
        start=resting and ready,
        pause=state == "running",
        resume=state == "paused",
        stop=state in ("building", "running", "paused"),
        save=resting and reported,
        choose=resting,
    )


def _save(directory: Path, target: Path) -> Path:
    from saccade.telemetry.recorder import write_atomic

    if target.is_dir() or not target.suffix:
        target = target / f"{directory.name}.html"
    report = directory / "report.html"
    try:
        content = report.read_bytes()
    except OSError as error:
        raise SaccadeError(f"{report}: the run has no report ({error}): saccade report {directory}") from error
    write_atomic(target.expanduser(), content)
    return target
