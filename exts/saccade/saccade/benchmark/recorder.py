"""Group ``recorder``: what handing a record to the writer costs the loop, with every other frame's record kept back."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from typing import Any

from saccade.benchmark.measure import InvalidMeasurement, median, ratio
from saccade.benchmark.session import Session, camera_network
from saccade.benchmark.source import STEP, BufferSource, buffers_for, camera_configs
from saccade.config import RunConfig
from saccade.controller import ReflexController
from saccade.frame import SimState, now_ns
from saccade.loop import WARMUP, PerceptionLoop, Tick
from saccade.telemetry.recorder import Recorder
from saccade.validation.scorer import LabelScorer

WARMUP_FRAMES = 15


class AlternatingSink:
    """Hands every other record to the recorder and drops the rest, so that both kinds of frame drift alike.

    Args:
        recorder: Takes the records with an even tick.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.hand_over_us: list[float] = []
        """Time that each record took to hand over [us], warm-up left out."""

    def put(self, record: dict[str, Any]) -> None:
        """Takes one record; see :class:`saccade.loop.RecordSink`."""
        if record["tick"] % 2:
            return
        started = now_ns()
        self._recorder.put(record)
        spent = now_ns() - started
        if record["phase"] != WARMUP:
            self.hand_over_us.append(spent * 1e-3)


def measure_recorder(session: Session) -> dict[str, Any]:
    """Returns ``recorder_share``, ``recorder_on_over_off`` and ``recorder_us`` (the mean).

    The loop runs over a resident frame with the shipped camera network and everything that it does in a run, but
    without a scene. The share is that of handing over in the frame, from state to decision.

    Raises:
        InvalidMeasurement: A record was lost, or an output was not finite.
    """
    subject = camera_network("fp16" if session.tensorrt else "fp32")
    sensors = camera_configs()
    session.say("recorder: opening")
    network = session.open(subject, sensors=sensors, decode=True)
    config = RunConfig.model_validate(
        {
            "scene": "none",
            "simulator": {"step": STEP},
            "sensors": {name: sensor.model_dump() for name, sensor in sensors.items()},
            "networks": {subject.network: network.config.model_dump()},
            "run": {"frames": 2 * session.frames, "warmup": WARMUP_FRAMES},
        }
    )
    source = BufferSource(buffers_for(list(sensors), device=session.engine_device))
    frames_ms: list[float] = []
    finite = True

    def observe(tick: Tick) -> None:
        nonlocal finite
        finite = finite and all(result.finite for results in tick.results.values() for result in results)
        if tick.phase != WARMUP:
            frames_ms.append((tick.frames[0].stamps.decided - tick.frames[0].stamps.sim_state) * 1e-6)

    def stop() -> tuple[str, str] | None:
        return ("timeout", "the benchmark's time limit is over") if session.limit.left < 0 else None

    with contextlib.closing(network), tempfile.TemporaryDirectory(prefix="saccade-bench-") as folder:
        recorder = Recorder(folder, {"kind": "header", "schema": 1})
        sink = AlternatingSink(recorder)
        try:
            loop = PerceptionLoop(
                config,
                simulator=source,
                networks={network.name: network},
                controller=ReflexController(config.controller),
                sink=sink,
                scorer=LabelScorer(),
                observers=[observe],
                stop=stop,
            )
            session.say(f"recorder: {config.run.frames} frames")
            loop.run(SimState())
        finally:
            recorder.close("completed", "", 0.0, 0.0)
        cost = recorder.facts()
    if not finite or cost["lost"]:
        raise InvalidMeasurement("non-finite outputs, or lost records: the recorder's cost is not reported")
    return _result(source.step_times, frames_ms, sink.hand_over_us, cost)


def _result(
    step_times: list[int], frames_ms: list[float], hand_over_us: list[float], cost: dict[str, Any]
) -> dict[str, Any]:
    """Returns the group's results.

    Args:
        step_times: When the simulator was stepped after each frame [ns]: records are handed over right after.
        frames_ms: From state to decision, of the judged frames [ms].
        hand_over_us: Of each record kept [us].
        cost: The recorder's own facts.
    """
    turns = [
        (number, (later - earlier) * 1e-6)
        for number, (earlier, later) in enumerate(itertools.pairwise(step_times))
        if number >= WARMUP_FRAMES
    ]
    on = [value for number, value in turns if number % 2 == 0]
    off = [value for number, value in turns if number % 2]
    if min(len(on), len(off), len(frames_ms), len(hand_over_us)) < 6:
        raise InvalidMeasurement("fewer than six frames were measured: allow more with --time-limit")
    return {
        "ratios": {
            "recorder_share": ratio(hand_over_us, frames_ms, scale=1e-3),
            "recorder_on_over_off": ratio(on, off),
        },
        "recorder_us": cost["hand_over_us"]["mean"],
        "recorder": {
            "median_ms": {"turn_recorded": median(on), "turn_not_recorded": median(off), "frame": median(frames_ms)},
            "hand_over_us": median(hand_over_us),
            "hand_over_max_us": cost["hand_over_us"]["max"],
            "records": cost["records"],
        },
    }
