"""PerceptionLoop: from the simulator's state to a command and a record, frame by frame."""

from __future__ import annotations

import gc
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from saccade.config import RunConfig
from saccade.controller import Controller
from saccade.execution import Execution, FrameStage, execution_for
from saccade.frame import Command, Frame, GroundTruth, Result, SimState, now_ns
from saccade.network import Network
from saccade.simulators.base import Resettable, Simulator, SteppedSimulator

WARMUP = "warmup"
JUDGED = "judged"

STAND = "stand"
"""A turn of :meth:`PerceptionLoop.steps` that ended where the run may stand still."""
UPDATE = "update"
"""A turn that ended where the application has to advance the simulator."""

MAX_UNAPPLIED = 64
"""Decisions that may wait for their effect before their records are written without it."""


class RecordSink(Protocol):
    """Where the loop hands its records: see :class:`saccade.telemetry.recorder.Recorder`."""

    def put(self, record: dict[str, Any]) -> None:
        """Takes one record without blocking."""
        ...


class Scorer(Protocol):
    """Compares labels with the truth: see :mod:`saccade.validation.accuracy`."""

    def score(self, network: Network, result: Result, frame: Frame, truth: GroundTruth) -> dict[str, Any]:
        """Returns ``intersection``, ``union``, ``valid`` and ``agree``, or nothing without labels."""
        ...


class AdaptiveFields(Protocol):
    """What is recorded of adaptive precision: see :mod:`saccade.validation.adaptive`."""

    def record_fields(self) -> dict[str, Any]:
        """Returns ``adaptive`` of the records of the decision that was just made."""
        ...


Observer = Callable[["Tick"], None]
"""Called after each decision, outside the latency that is measured: samples, progress, raw recording."""


@dataclass(slots=True)
class Tick:
    """One decision and the frames that it was made from."""

    index: int
    phase: str
    state: SimState
    frames: Sequence[Frame]
    results: dict[str, list[Result]]
    """Results by sensor."""
    truths: list[GroundTruth]
    """Truth of each frame, in the order of ``frames``."""
    command: Command


@dataclass(slots=True)
class Outcome:
    """How the loop ended."""

    reason: str = "completed"
    message: str = ""
    ticks: int = 0
    wall_s: float = 0.0
    simulated_s: float = 0.0
    first_state: SimState = field(default_factory=SimState)
    pauses: list[tuple[int, float]] = field(default_factory=list)
    """Where the run was made to stand still: the last decision before it (-1 = none), and for how long [s]."""


class PerceptionLoop:
    """Runs simulate, sense, infer, act for a number of decisions.

    Everything that is measured happens on the calling thread. A decision is made whenever at least one sensor
    sample is due; its frames share ``sim_state`` and ``decided``. Ground truth and accuracy are taken after the
    decision and outside its latency.

    Args:
        config: The run.
        simulator: An opened simulator.
        networks: By name; a network runs when the frames of its first input's sensors are due.
        controller: Makes the command.
        sink: Takes one record per frame.
        scorer: Compares labels with the truth.
        observers: Called after each decision.
        publishers: Called right after it, before the truth is taken: their tick has none yet.
        stop: Asked once per step; a text ends the run with that reason.
        reset: Asked once per step, told the state; whether the simulation is to go back to its start, which the
            simulator must be able to (``reset``).
        stages: Users' own work on the GPU as part of every frame.
        execution: How frames become results; ``None`` takes what fits where sensors and engines are.
        stepped: Whether the simulator's application makes its steps, between the turns of :meth:`steps`.
        adaptive: Says which precision made a decision, where that changes during the run.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        simulator: Simulator,
        networks: Mapping[str, Network],
        controller: Controller,
        sink: RecordSink,
        scorer: Scorer,
        observers: Sequence[Observer] = (),
        publishers: Sequence[Observer] = (),
        stop: Callable[[], tuple[str, str] | None] = lambda: None,
        reset: Callable[[SimState], bool] = lambda state: False,
        stages: Sequence[FrameStage] = (),
        execution: Execution | None = None,
        stepped: bool = False,
        adaptive: AdaptiveFields | None = None,
    ) -> None:
        self._stepped = stepped
        self._config = config
        self._simulator = simulator
        self._networks = dict(networks)
        self.execution = execution or execution_for(
            simulator, list(networks.values()), graph=config.engine.graph, stages=stages
        )
        self._controller = controller
        self._sink = sink
        self._scorer = scorer
        self._observers = observers
        self._publishers = publishers
        self._stop = stop
        self._reset = reset
        self._adaptive = adaptive
        self._index = 0
        self._unapplied: deque[tuple[int, list[dict[str, Any]]]] = deque()
        self._contacts: list[dict[str, Any]] = []

    def run(self, state: SimState) -> Outcome:
        """Runs from the opened simulator's first ``state`` until the configured number of judged decisions.

        Returns:
            How it ended; records still waiting for their effect have been handed to the sink.
        """
        steps = self.steps(state)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    def steps(self, state: SimState) -> Generator[str, float | None, Outcome]:
        """Does the same turn by turn, for an application that has other work to do in between.

        Turns end with :data:`STAND` where a decision is made and recorded and nothing is under way: the one place
        where a run can stand still without a frame growing old. What is sent in is for how long it was made to stand
        [s]; a simulation that keeps up with the wall clock does not catch up with that. Where the application advances
        the simulator (:class:`~saccade.simulators.base.SteppedSimulator`), turns also end with :data:`UPDATE`: the next
        one comes after the application's next update.

        Returns:
            How it ended, as the generator's value.
        """
        config = self._config
        wanted = config.run.warmup + config.run.frames
        outcome = Outcome(first_state=state)
        start_wall = time.perf_counter()
        stood = 0.0
        start_sim = state.sim_time
        command: Command | None = None
        stepped = self._simulator if self._stepped and isinstance(self._simulator, SteppedSimulator) else None
        realtime = config.simulator.pace == "realtime" and stepped is None
        # What was loaded (USD, physics, networks) lives as long as the run: a full collection that walks through
        # all of it in mid-run would cost a frame its deadline.
        gc.collect()
        gc.freeze()
        try:
            ended = self._stop()
            while ended is None and outcome.ticks < wanted:
                if self._reset(state):
                    state = cast(Resettable, self._simulator).reset()
                    self._controller.reset()
                frames = self.execution.sense()
                command = None
                if frames:
                    phase = WARMUP if outcome.ticks < config.run.warmup else JUDGED
                    command = self._tick(outcome.ticks, phase, state, frames)
                    outcome.ticks += 1
                paused = yield STAND
                if paused:
                    stood += paused
                    outcome.pauses.append((outcome.ticks - 1, paused))
                if outcome.ticks < wanted:
                    # Asked before the step, as it may wait here (a pause over ROS 2): the state of a step is sensed at
                    # once.
                    ended = self._stop()
                    if ended is not None:
                        break
                if stepped is not None:
                    stepped.begin_step(command)
                    yield UPDATE
                    while ended is None and not stepped.step_done():
                        # Its user has stopped the clock: it may never go on.
                        yield UPDATE
                        ended = self._stop()
                    if ended is not None:
                        break
                state = self._step(command)
                if realtime:
                    state = self._catch_up(state, start_wall + stood, start_sim)
            if ended is not None:
                outcome.reason, outcome.message = ended
        finally:
            gc.unfreeze()
            self._flush(everything=True)
            outcome.wall_s = time.perf_counter() - start_wall
            outcome.simulated_s = state.sim_time - start_sim
        return outcome

    def _tick(self, index: int, phase: str, state: SimState, frames: Sequence[Frame]) -> Command:
        results = self.execution.infer(frames)
        for frame in frames:
            for result in results[frame.sensor]:
                self._controller.update(result, frame.sim_time)
        command = self._controller.decide(state, index)
        decided = now_ns()
        for frame in frames:
            frame.stamps.decided = decided
        command.apply_at = state.sim_time + self._delay(frames)
        tick = Tick(index, phase, state, frames, results, [], command)
        for publisher in self._publishers:
            publisher(tick)
        truths = tick.truths = [self._simulator.ground_truth(frame) for frame in frames]
        records = [
            self._record(index, phase, state, frame, results[frame.sensor], truth, command)
            for frame, truth in zip(frames, truths, strict=True)
        ]
        if self._adaptive is not None:
            fields = self._adaptive.record_fields()
            for record in records:
                record["adaptive"] = fields
        records[0]["contacts"] = self._contacts
        self._contacts = []
        for observer in self._observers:
            observer(tick)
        for frame, record in zip(frames, records, strict=True):
            record["stamps"]["published"] = frame.stamps.published or None
        self.execution.idle()
        self._unapplied.append((index, records))
        return command

    def _delay(self, frames: Sequence[Frame]) -> float:
        """Simulated time from the state to the effect of its decision [s]."""
        delay = self._config.simulator.act_delay
        if delay == "none":
            fixed = 0.0
        elif delay == "measured":
            fixed = (frames[0].stamps.decided - frames[0].stamps.sim_state) * 1e-9
        else:
            fixed = float(delay) * 1e-3
        if self._config.simulator.pace == "realtime":
            # The world has moved on while the decision was made: it cannot take effect in the past.
            return max(fixed, (frames[0].stamps.decided - frames[0].stamps.sim_state) * 1e-9)
        return fixed

    def _record(
        self,
        index: int,
        phase: str,
        state: SimState,
        frame: Frame,
        results: list[Result],
        truth: GroundTruth,
        command: Command,
    ) -> dict[str, Any]:
        stamps = frame.stamps
        return {
            "kind": "frame",
            "index": -1,
            "tick": index,
            "phase": phase,
            "sensor": frame.sensor,
            "sequence": frame.sequence,
            "sim_time": frame.sim_time,
            "dropped": frame.dropped,
            "stamps": stamps.as_dict(),
            "latency_ms": (stamps.decided - stamps.sim_state) * 1e-6,
            "inference_ms": (stamps.on_host - stamps.handed_over) * 1e-6 if stamps.on_host else None,
            "applied_sim_time": None,
            "results": {result.network: self._scored(result, frame, truth) for result in results},
            "truth": None
            if truth.hazard is None and truth.clearance is None
            else {"hazard": truth.hazard, "clearance": None if truth.clearance is None else list(truth.clearance)},
            "command": {
                "linear": [command.linear_x, command.linear_y],
                "yaw_rate": command.yaw_rate,
                "source": command.source,
                "reason": command.reason,
            },
            "pose": [state.position[0], state.position[1], state.yaw],
            "distance": state.distance,
            "contacts": [],
        }

    def _scored(self, result: Result, frame: Frame, truth: GroundTruth) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "hazard": result.hazard,
            "clearance": result.clearance,
            "finite": result.finite,
            "intersection": None,
            "union": None,
            "support": None,
            "valid": None,
            "agree": None,
        }
        if result.labels is not None and truth.labels is not None:
            entry.update(self._scorer.score(self._networks[result.network], result, frame, truth))
        return entry

    def _step(self, command: Command | None) -> SimState:
        state = self._simulator.step(command)
        for contact in state.contacts:
            self._contacts.append({"sim_time": contact.sim_time, "body": contact.body, "other": contact.other})
        for tick, stamp, sim_time in state.applied:
            for waiting, records in self._unapplied:
                if waiting == tick:
                    for record in records:
                        record["stamps"]["applied"] = stamp
                        record["applied_sim_time"] = sim_time
        self._flush()
        return state

    def _flush(self, *, everything: bool = False) -> None:
        """Hands over, in order, the records whose effect is known or can no longer come."""
        while self._unapplied:
            records = self._unapplied[0][1]
            superseded = any(later[0]["applied_sim_time"] is not None for _, later in list(self._unapplied)[1:])
            done = records[0]["applied_sim_time"] is not None
            hopeless = everything or not self._simulator.acts or len(self._unapplied) > MAX_UNAPPLIED
            if not (done or superseded or hopeless):
                return
            self._unapplied.popleft()
            for record in records:
                record["index"] = self._index
                self._index += 1
                self._sink.put(record)

    def _catch_up(self, state: SimState, start_wall: float, start_sim: float) -> SimState:
        """Lets the simulated world run on to where the wall clock is; the simulator does not wait for the loop."""
        before = math.inf
        while True:
            behind = (time.perf_counter() - start_wall) - (state.sim_time - start_sim)
            if behind >= before:
                return state  # a step takes longer than it simulates: more of them would not catch up, ever
            before = behind
            if behind < self._config.simulator.step:
                if behind < 0:
                    time.sleep(-behind)
                return state
            if self._stop() is not None:
                return state
            state = self._step(None)
