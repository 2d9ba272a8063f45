"""Group ``loop``: a configuration's whole loop against its bare engines, and the time to the first frame."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import warp as wp

from saccade.benchmark.measure import InvalidMeasurement, median, ratio
from saccade.benchmark.session import OPENING_S, Session
from saccade.config import RunConfig
from saccade.configuration import LoadedConfiguration
from saccade.controller import ReflexController
from saccade.frame import now_ns
from saccade.loop import WARMUP, PerceptionLoop, Tick
from saccade.network import Network
from saccade.simulators.base import Simulator
from saccade.telemetry.recorder import Recorder
from saccade.telemetry.statistics import describe
from saccade.validation.run import simulator_for
from saccade.validation.scorer import LabelScorer

WARMUP_DECISIONS = 15
LEAST_DECISIONS = 6
STAGES = ("frame", "sense", "preprocess", "engine", "bare", "rest")


def measure_loop(session: Session) -> dict[str, Any]:
    """Returns the loop's ratios over its bare engines, ``realtime_factor``, ``stages_ms`` and ``first_frame_s``.

    The bare engines run between the loop's decisions, on the same inputs, so that drift of the machine hits both.

    Raises:
        InvalidMeasurement: An output was not finite, records were lost, or there was too little time.
    """
    config = session.loaded.config.model_copy(deep=True)
    config.run.frames, config.run.warmup = session.frames, WARMUP_DECISIONS
    config.simulator.pace, config.simulator.act_delay = "lockstep", "none"
    session.say("loop: loading")
    with contextlib.ExitStack() as stack:
        simulator = simulator_for(session.loaded, session.say)
        stack.callback(simulator.close)
        networks = networks_for(session, config, simulator.device, stack)
        result = _measured(session, config, simulator, networks)
    if session.first_frame and simulator.device == "cpu":
        session.say("loop: starting a fresh process")
        result["first_frame_s"] = first_frame_s(session.loaded, timeout=max(60.0, session.limit.left))
    return result


def networks_for(session: Session, config: RunConfig, device: str, stack: contextlib.ExitStack) -> dict[str, Network]:
    """Returns the configuration's networks by name, closed with ``stack``; opening them is off the time limit."""
    networks: dict[str, Network] = {}
    for name, entry in config.networks.items():
        with session.limit.paused(beyond=OPENING_S):
            networks[name] = Network(
                name,
                entry,
                session.loaded.model_path(name),
                sensors=config.sensors,
                engine=config.engine,
                device=device,
                say=session.say,
            )
        stack.callback(networks[name].close)
    return networks


def _measured(session: Session, config: Any, simulator: Simulator, networks: dict[str, Network]) -> dict[str, Any]:
    measured: dict[str, list[float]] = {name: [] for name in STAGES}
    bare_s = 0.0
    finite = True

    def observe(tick: Tick) -> None:
        nonlocal finite, bare_s
        finite = finite and all(result.finite for results in tick.results.values() for result in results)
        bare = bare_ms(networks)
        bare_s += bare * 1e-3
        if tick.phase == WARMUP:
            return
        measured["bare"].append(bare)
        stamps = [frame.stamps for frame in tick.frames]
        read = [stamp for stamp in stamps if stamp.on_host]
        measured["frame"].append((stamps[0].decided - stamps[0].sim_state) * 1e-6)
        measured["sense"].append((max(stamp.sensed for stamp in stamps) - stamps[0].sim_state) * 1e-6)
        measured["preprocess"].append(sum(stamp.preprocessed - stamp.handed_over for stamp in read) * 1e-6)
        measured["engine"].append(sum(stamp.inferred - stamp.preprocessed for stamp in read) * 1e-6)
        measured["rest"].append(sum(stamp.on_host - stamp.inferred for stamp in read) * 1e-6)

    def stop() -> tuple[str, str] | None:
        return ("timeout", "the benchmark's time limit is over") if session.limit.left < 0 else None

    with tempfile.TemporaryDirectory(prefix="saccade-bench-") as folder:
        recorder = Recorder(folder, {"kind": "header", "schema": 1})
        try:
            replay = config.simulator.backend == "replay"
            state = simulator.open(config.scene if replay else session.loaded.scene_path())
            loop = PerceptionLoop(
                config,
                simulator=simulator,
                networks=networks,
                controller=ReflexController(config.controller, route=getattr(simulator, "route", ())),
                sink=recorder,
                scorer=LabelScorer(),
                observers=[observe],
                stop=stop,
            )
            session.say(f"loop: {session.frames} decisions")
            outcome = loop.run(state)
        finally:
            recorder.close("completed", "", 0.0, 0.0)
        lost = recorder.facts()["lost"]
    if not finite or lost:
        raise InvalidMeasurement("non-finite outputs, or lost records: the loop's times are not reported")
    if len(measured["frame"]) < LEAST_DECISIONS:
        raise InvalidMeasurement(
            f"the time limit was over after {len(measured['frame'])} decisions: allow more with --time-limit"
        )
    ratios = {}
    if networks:
        ratios = {
            "frame_over_engines": ratio(measured["frame"], measured["bare"]),
            "engine_in_loop_over_bare": ratio(measured["engine"], measured["bare"]),
            "preprocess_over_engines": ratio(measured["preprocess"], measured["bare"]),
        }
    return {
        "ratios": ratios,
        # Everything but the bare engines, which only the benchmark runs a second time.
        "realtime_factor": outcome.simulated_s / (outcome.wall_s - bare_s),
        "stages_ms": {name: describe(values)["p50"] for name, values in measured.items()},
        "loop": {
            "device": simulator.device,
            "median_ms": {name: median(values) for name, values in measured.items()},
            "execution": loop.execution.facts()["execution"],
        },
    }


def bare_ms(networks: dict[str, Network]) -> float:
    """Runs all engines once on what is in their inputs, waits, and returns the time that it took [ms]."""
    started = now_ns()
    for network in networks.values():
        network.engine.enqueue(None)
    for device in {network.engine.device for network in networks.values()}:
        if device != "cpu":
            wp.synchronize_stream(wp.get_device(device).stream)
    return (now_ns() - started) * 1e-6


def first_frame_s(loaded: LoadedConfiguration, *, timeout: float) -> float:
    """Returns the wall time from starting Python to the first sensed frame, with compiled kernels at hand [s]."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from saccade.configuration import load_configuration\n"
        "from saccade.validation.run import simulator_for\n"
        "loaded = load_configuration(sys.argv[1])\n"
        "simulator = simulator_for(loaded)\n"
        "simulator.open(loaded.scene_path())\n"
        "assert simulator.sense()\n"
    )
    started = time.perf_counter()
    command = [sys.executable, "-c", program, str(loaded.path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise InvalidMeasurement(f"a fresh process had no frame after {timeout:.0f} s") from error
    if done.returncode:
        raise InvalidMeasurement(f"the fresh process failed: {done.stderr.strip()[-500:]}")
    return time.perf_counter() - started
