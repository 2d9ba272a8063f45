"""``saccade bench``: what the loop costs beside what it cannot do without, as ratios measured in one process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saccade.configuration import LoadedConfiguration
from saccade.controller import ReflexController
from saccade.errors import SaccadeError
from saccade.frame import now_ns
from saccade.kernels.setup import prepare_warp
from saccade.loop import PerceptionLoop, Tick
from saccade.network import Network
from saccade.telemetry.host import host_facts, package_versions
from saccade.telemetry.recorder import Recorder
from saccade.telemetry.statistics import describe
from saccade.validation.run import simulator_for
from saccade.validation.scorer import LabelScorer

WARMUP = 15


def bench(
    loaded: LoadedConfiguration,
    *,
    frames: int = 150,
    first_frame: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measures a configuration's loop against its parts.

    The bare engines run between the loop's decisions, on the same inputs, so that drift of the machine hits both.

    Args:
        loaded: The configuration to run.
        frames: Decisions to measure.
        first_frame: Also start a fresh process and time it to its first frame.
        say: Told what is being done.

    Returns:
        ``ratios`` (each ``value``, ``interval``, ``n``), ``recorder_us``, ``realtime_factor``, ``stages_ms``,
        ``first_frame_s``, ``host``, ``versions``, ``commit``. A ratio is that of medians; its interval comes from
        the medians' 95 % order-statistic intervals, the wider way round.

    Raises:
        SaccadeError: Something that the configuration names cannot be used, or a measurement is not valid.
    """
    config = loaded.config.model_copy(deep=True)
    config.run.frames, config.run.warmup = frames, WARMUP
    config.simulator.pace, config.simulator.act_delay = "lockstep", "none"
    say("loading")
    prepare_warp()
    networks = {
        name: Network(name, entry, loaded.model_path(name), sensors=config.sensors, engine=config.engine)
        for name, entry in config.networks.items()
    }
    simulator = simulator_for(loaded, say)
    measured: dict[str, list[float]] = {
        "frame": [],
        "sense": [],
        "preprocess": [],
        "engine": [],
        "bare": [],
        "rest": [],
    }
    finite = True

    def observe(tick: Tick) -> None:
        nonlocal finite
        finite = finite and all(result.finite for results in tick.results.values() for result in results)
        started = now_ns()
        for network in networks.values():
            network.engine.enqueue(None)
        bare = (now_ns() - started) * 1e-6
        if tick.phase == "warmup":
            return
        stamps = [frame.stamps for frame in tick.frames]
        read = [stamp for stamp in stamps if stamp.on_host]
        measured["frame"].append((stamps[0].decided - stamps[0].sim_state) * 1e-6)
        measured["sense"].append((max(stamp.sensed for stamp in stamps) - stamps[0].sim_state) * 1e-6)
        measured["preprocess"].append(sum(stamp.preprocessed - stamp.handed_over for stamp in read) * 1e-6)
        measured["engine"].append(sum(stamp.inferred - stamp.preprocessed for stamp in read) * 1e-6)
        measured["rest"].append(sum(stamp.on_host - stamp.inferred for stamp in read) * 1e-6)
        measured["bare"].append(bare)

    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(folder, {"kind": "header", "schema": 1})
        try:
            state = simulator.open(loaded.scene_path())
            loop = PerceptionLoop(
                config,
                simulator=simulator,
                networks=networks,
                controller=ReflexController(config.controller, route=getattr(simulator, "route", ())),
                sink=recorder,
                scorer=LabelScorer(),
                observers=[observe],
            )
            say(f"measuring {frames} decisions")
            outcome = loop.run(state)
        finally:
            recorder.close("completed", "", 0.0, 0.0)
            simulator.close()
            for network in networks.values():
                network.close()
        cost = recorder.facts()
    if not finite or cost["lost"]:
        raise SaccadeError("the measurement is not valid (non-finite outputs or lost records): no figures are given")
    bare_s = sum(measured["bare"]) * 1e-3
    result = {
        "ratios": {
            "frame_over_engines": _ratio(measured["frame"], measured["bare"]),
            "engine_in_loop_over_bare": _ratio(measured["engine"], measured["bare"]),
            "preprocess_over_engines": _ratio(measured["preprocess"], measured["bare"]),
            "recorder_share": {
                "value": cost["hand_over_us"]["mean"] * 1e-3 * len(config.sensors) / _median(measured["frame"]),
                "interval": None,
                "n": cost["records"],
            },
        },
        "recorder_us": cost["hand_over_us"]["mean"],
        # Everything but the bare engines, which only the benchmark runs a second time.
        "realtime_factor": outcome.simulated_s / (outcome.wall_s - bare_s),
        "stages_ms": {name: describe(values)["p50"] for name, values in measured.items()},
        "device": simulator.device,
        "host": host_facts(),
        "versions": package_versions(),
        "commit": _commit(),
    }
    if first_frame:
        say("starting a fresh process")
        result["first_frame_s"] = _first_frame_s(loaded)
    return result


def _ratio(upper: Sequence[float], lower: Sequence[float]) -> dict[str, Any]:
    top, bottom = describe(upper)["p50"], describe(lower)["p50"]
    interval = None
    if top["low"] is not None and bottom["low"] is not None:
        interval = [top["low"] / bottom["high"], top["high"] / bottom["low"]]
    return {"value": top["value"] / bottom["value"], "interval": interval, "n": len(upper)}


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _first_frame_s(loaded: LoadedConfiguration) -> float:
    """Wall time [s] from starting Python to the first sensed frame, with compiled kernels at hand."""
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
    done = subprocess.run(
        [sys.executable, "-c", program, str(loaded.path)], capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise SaccadeError(f"the fresh process failed: {done.stderr.strip()[-500:]}")
    return time.perf_counter() - started


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def bench_lines(result: dict[str, Any]) -> list[str]:
    """Returns a benchmark as lines of text."""
    titles = {
        "frame_over_engines": "state to decision, over the bare engines",
        "engine_in_loop_over_bare": "engines in the loop, over the bare engines",
        "preprocess_over_engines": "preprocessing, over the bare engines",
        "recorder_share": "recorder, share of the frame",
    }
    lines = [f"{result['host']['cpu']}, {result['device']}"] if "cpu" in result["host"] else [str(result["device"])]
    for name, ratio in result["ratios"].items():
        interval = "" if ratio["interval"] is None else "  [{:.3g} .. {:.3g}]".format(*ratio["interval"])
        lines.append(f"{titles.get(name, name):<44} {ratio['value']:10.3g}{interval}  n={ratio['n']}")
    lines.append(f"{'real-time factor':<44} {result['realtime_factor']:10.3g}")
    lines.append(f"{'recorder, per record':<44} {result['recorder_us']:10.3g} us")
    for name, median in result["stages_ms"].items():
        lines.append(f"{'median ' + name:<44} {median['value']:10.3g} ms")
    if "first_frame_s" in result:
        lines.append(f"{'fresh process to first frame':<44} {result['first_frame_s']:10.3g} s")
    return lines
