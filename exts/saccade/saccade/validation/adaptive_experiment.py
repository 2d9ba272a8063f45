"""``saccade adaptive``: adaptive precision against each fixed one, on the same frames under the same load."""

from __future__ import annotations

import datetime
import gc
import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.benchmark.suite import commit
from saccade.config import RunConfig
from saccade.configuration import LoadedConfiguration
from saccade.controller import ReflexController
from saccade.engines.selection import quiet
from saccade.errors import ConfigurationError, EngineError, RecordError
from saccade.execution import execution_for
from saccade.loop import JUDGED, PerceptionLoop, Tick
from saccade.models.dataset import scene_seeds
from saccade.network import Network
from saccade.simulators.opening import device_for
from saccade.simulators.replay import ReplaySimulator
from saccade.telemetry.host import host_facts, package_versions
from saccade.telemetry.recorder import finite, write_atomic
from saccade.telemetry.statistics import describe, proportion
from saccade.validation.accuracy import mean_iou, pooled_iou
from saccade.validation.adaptive import AdaptiveControl, retentions, unqualified, variants_of
from saccade.validation.load_generator import PROCESS, Load, load_from_kind
from saccade.validation.scorer import LabelScorer
from saccade.validation.tradeoff_scenes import (
    EVALUATION_PART,
    Scene,
    changed,
    is_complete,
    record_scene,
    recording_digest,
    replay_config,
    with_config,
)

SCHEMA = 1
RESULT_FILE = "adaptive.json"
ADAPTIVE, UNLOADED = "adaptive", "unloaded"
MARGIN = 1.2
"""The deadline, as a multiple of the p95 that FP32 takes without load."""
GOAL = 0.2
"""Share of fixed FP32's deadline misses that the adaptive run may have."""

ACCURACY_TOLERANCE = 5e-4
"""mIoU by which two precisions differ on a few hundred frames without either being better."""

Say = Callable[[str], None]


def run_experiment(
    loaded: LoadedConfiguration,
    *,
    out: Path,
    recording: Path | None = None,
    frames: int = 300,
    rate: float = 10.0,
    workers: int | None = None,
    load_kind: str = PROCESS,
    fresh: bool = False,
    note: str | None = None,
    say: Say = quiet,
) -> dict[str, Any]:
    """Runs every fixed precision and the adaptive choice on the same frames, with load in the middle third.

    The deadline is fixed first: 1.2 times the p95 of FP32 without load. What is finished is kept in ``out``, and the
    same call goes on with it.

    Args:
        loaded: The configuration, with ``engine.adaptive``.
        out: Folder of the experiment.
        recording: Recorded run to replay; ``None`` records a held-out layout first.
        frames: Judged decisions of each run.
        rate: Decisions per second of wall time [Hz]; the load shares the device with them and with the pauses.
        workers: Processes or streams of the load; ``None`` = one per core, on a GPU one.
        load_kind: One of :data:`saccade.validation.load_generator.KINDS`.
        fresh: Forgets what was finished before.
        note: Goes into the result.
        say: Told what is being done.

    Returns:
        What is written to ``adaptive.json``.
    """
    from saccade.reporting.adaptive import write_adaptive

    adaptive = loaded.config.engine.adaptive
    assert adaptive is not None
    device = device_for(loaded.config)
    # Before anything is run: what would end it later.
    retentions(loaded)
    for network in loaded.config.networks:
        variants_of(loaded, network, device=device)
        for precision, why in unqualified(loaded, network).items():
            if precision in adaptive.precisions:
                raise ConfigurationError(
                    f"engine.adaptive.precisions: {precision} of network {network!r} is not taken, the trade-off says "
                    f"that it is {why}: leave it out with --precision"
                )
    warmup = max(loaded.config.run.warmup, 5 * len(adaptive.precisions) + 5)
    section = changed(loaded.config.tradeoff, frames=frames, warmup=warmup)
    loaded = with_config(loaded, loaded.config.model_copy(update={"tradeoff": section}))
    out.mkdir(parents=True, exist_ok=True)
    scene = _scene(loaded, out, recording, say)
    plan = {
        "digest": recording_digest(scene.directory),
        "frames": frames,
        "warmup": warmup,
        "rate": rate,
        "workers": workers,
        "load": load_kind,
        "device": device,
        "adaptive": adaptive.model_dump(mode="json"),
        "networks": loaded.config.model_dump(mode="json")["networks"],
    }
    runs = _Runs(out / "finished", plan, fresh=fresh)
    unloaded = runs.get(UNLOADED, lambda: _run(loaded, scene, "fp32", device=device, rate=rate, say=say))
    reference = unloaded["inference_ms"]["p95"]["value"]
    if reference is None:
        raise RecordError(f"a p95 needs at least 72 frames, and there are {frames}: give --frames 72 or more")
    deadline = MARGIN * reference
    with load_from_kind(load_kind, device, workers=workers) as load:
        for precision in (*adaptive.precisions, ADAPTIVE):
            runs.get(
                precision,
                lambda p=precision: _run(  # type: ignore[misc]
                    loaded, scene, p, device=device, rate=rate, load=load, deadline=deadline, say=say
                ),
            )
        used = load.workers
    result = _result(loaded, runs.found, deadline, plan, used, note)
    write_adaptive(out, result)
    return result


class _Runs:
    """Finished runs, kept as files."""

    def __init__(self, folder: Path, plan: Mapping[str, Any], *, fresh: bool) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / "plan.json"
        wanted = json.loads(json.dumps(plan))
        known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else None
        if fresh or known != wanted:
            if known is not None and not fresh:
                other = ", ".join(sorted(name for name in wanted if known.get(name) != wanted[name]))
                raise RecordError(
                    f"{folder}: holds an experiment of something else ({other} differ): --fresh, or another --out"
                )
            for path in folder.glob("*.json"):
                path.unlink()
            write_atomic(kept, json.dumps(wanted, indent=1))

    def get(self, name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self._folder / f"run-{name}.json"
        if path.is_file():
            self.found[name] = json.loads(path.read_text(encoding="utf-8"))
        else:
            self.found[name] = finite(run())
            write_atomic(path, json.dumps(self.found[name], allow_nan=False))
        return self.found[name]


class Pacer:
    """An observer that keeps the pace of the sensors and starts and stops the load at given frames.

    Args:
        period_s: Wall time between decisions [s].
        warmup: Decisions before the judged ones.
        frames: Judged decisions; the load runs in the middle third.
        load: Told to start and stop; ``None`` = no load.
    """

    def __init__(self, period_s: float, *, warmup: int, frames: int, load: Load | None) -> None:
        self._period = period_s
        self._warmup = warmup
        self._begin, self._end = _thirds(frames) if load is not None else (-1, -1)
        self._load = load
        self._due: float | None = None
        self.loaded: list[bool] = []
        """By judged decision: whether the load ran."""

    def __call__(self, tick: Tick) -> None:
        """Waits until the next decision is due."""
        now = time.perf_counter()
        if tick.phase == JUDGED:
            self.loaded.append(self._load is not None and self._load.active)
        following = tick.index + 1 - self._warmup
        if self._load is not None and following == self._begin:
            self._load.start()
        elif self._load is not None and following == self._end:
            self._load.stop()
        self._due = max((self._due if self._due is not None else now) + self._period, now)
        time.sleep(max(0.0, self._due - time.perf_counter()))


def _thirds(frames: int) -> tuple[int, int]:
    """Judged decisions at which the load starts and stops."""
    return frames // 3, 2 * frames // 3


def _scene(loaded: LoadedConfiguration, out: Path, recording: Path | None, say: Say) -> Scene:
    if recording is not None:
        return Scene(recording.name, None, recording)
    seed = scene_seeds(EVALUATION_PART, data_seed=loaded.config.tradeoff.seed, count=1)[0]
    scene = Scene(f"layout_{seed}", seed, out / "scenes" / f"layout_{seed}")
    if not is_complete(scene.directory):
        say(f"recording {scene.name}")
        record_scene(loaded, scene, say)
    return scene


def _run(
    loaded: LoadedConfiguration,
    scene: Scene,
    name: str,
    *,
    device: str,
    rate: float,
    load: Load | None = None,
    deadline: float | None = None,
    say: Say,
) -> dict[str, Any]:
    """One run over all frames: a fixed precision, or the adaptive choice."""
    config = replay_config(loaded.config, scene, device="cpu" if device == "cpu" else "cuda")
    adaptive = changed(config.engine.adaptive, deadline_ms=deadline)
    config = config.model_copy(update={"engine": config.engine.model_copy(update={"adaptive": adaptive})})
    own = with_config(loaded, config)
    control = AdaptiveControl(own, device=device) if name == ADAPTIVE else None
    pacer = Pacer(1.0 / rate, warmup=config.run.warmup, frames=config.run.frames, load=load)
    networks: dict[str, Network] = {}
    records: list[dict[str, Any]] = []
    simulator = ReplaySimulator(config, scene.directory, device)
    say(f"{name}{'' if load is None else ', load in the middle third'}")
    try:
        for network, section in config.networks.items():
            options: dict[str, Any] = {"engine": config.engine}
            path = own.model_path(network)
            if control is not None:
                options["opener"] = control.opener(network)
            else:
                variant = variants_of(own, network, device=device)[name]
                path, options["engine"] = variant.path, variant.config
            networks[network] = Network(
                network, section, path, sensors=config.sensors, device=device, say=say, **options
            )
        if control is not None:
            control.attach(networks)
        state = simulator.open("")
        thresholds = {n: section.decoder.hazard_threshold for n, section in config.networks.items()}
        loop = PerceptionLoop(
            config,
            simulator=simulator,
            networks=networks,
            controller=ReflexController(config.controller, hazard_thresholds=thresholds),
            sink=_Sink(records),
            scorer=LabelScorer(),
            observers=[*([control] if control is not None else ()), pacer],
            execution=execution_for(simulator, list(networks.values()), graph=config.engine.graph),
            adaptive=control,
        )
        gc.collect()
        if control is not None:
            with control.monitor:
                loop.run(state)
        else:
            loop.run(state)
        return _found(records, config, pacer.loaded, name, deadline, control)
    finally:
        if load is not None and load.active:
            load.stop()
        simulator.close()
        for opened in networks.values():
            opened.close()


class _Sink:
    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.put = records.append


def _found(
    records: Sequence[Mapping[str, Any]],
    config: RunConfig,
    loaded: Sequence[bool],
    name: str,
    deadline: float | None,
    control: AdaptiveControl | None,
) -> dict[str, Any]:
    ticks: dict[int, list[Mapping[str, Any]]] = {}
    for record in records:
        if record["phase"] == JUDGED:
            ticks.setdefault(record["tick"], []).append(record)
    if len(ticks) != config.run.frames or len(loaded) != config.run.frames:
        raise EngineError(f"{name}: {len(ticks)} decisions were recorded, and {config.run.frames} were to be made")
    took = [sum(r["inference_ms"] or 0.0 for r in tick) for tick in ticks.values()]
    firsts = [tick[0] for tick in ticks.values()]
    start = firsts[0]["stamps"]["decided"]
    precision = [r["adaptive"]["precision"] if control is not None else name for r in firsts]
    shares = [r["adaptive"]["load_percent"] if control is not None else None for r in firsts]
    misses = [deadline is not None and value > deadline for value in took]
    busy = [tick for tick, under in zip(ticks.values(), loaded, strict=True) if under]
    return {
        "frames": len(took),
        "inference_ms": describe(took),
        "inference_under_load_ms": describe([v for v, under in zip(took, loaded, strict=True) if under]),
        "misses": sum(misses),
        "misses_under_load": sum(miss for miss, under in zip(misses, loaded, strict=True) if under),
        "miss_rate": proportion(sum(misses), len(misses)),
        "accuracy": _accuracy(config, list(ticks.values())),
        "accuracy_under_load": _accuracy(config, busy) if busy else None,
        "non_finite": sum(not r["finite"] for tick in ticks.values() for f in tick for r in f["results"].values()),
        "series": {
            "t_s": [round((r["stamps"]["decided"] - start) * 1e-9, 4) for r in firsts],
            "inference_ms": [round(value, 4) for value in took],
            "precision": precision,
            "loaded": list(loaded),
            "load_percent": shares,
        },
        "adaptive": None if control is None else {**control.facts(), "start_s": start * 1e-9},
    }


def _accuracy(config: RunConfig, ticks: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float | None]:
    """MIoU by network, pooled over the frames."""
    found = {}
    for name in config.networks:
        results = [f["results"][name] for tick in ticks for f in tick if name in f["results"]]
        scored = [r for r in results if r["intersection"] is not None]
        pairs = [(r["intersection"], r["union"]) for r in scored]
        found[name] = mean_iou(pooled_iou(pairs, support=[r["support"] for r in scored])) if scored else None
    return found


def _result(
    loaded: LoadedConfiguration,
    runs: Mapping[str, dict[str, Any]],
    deadline: float,
    plan: Mapping[str, Any],
    workers: int,
    note: str | None,
) -> dict[str, Any]:
    adaptive = loaded.config.engine.adaptive
    assert adaptive is not None
    document = {
        "schema": SCHEMA,
        "kind": "adaptive",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "note": note,
        "configuration": loaded.name,
        "device": plan["device"],
        "host": {name: value for name, value in host_facts().items() if name != "python"},
        "versions": package_versions(),
        **commit(),
        "frames": plan["frames"],
        "rate_hz": plan["rate"],
        "load": {
            "kind": plan["load"],
            "workers": workers,
            "on": plan["device"],
            "between": list(_thirds(plan["frames"])),
        },
        "digest": plan["digest"],
        "retention": retentions(loaded),
        "deadline_ms": deadline,
        "deadline_from": f"{MARGIN:g} x p95 of FP32 without load",
        "precisions": adaptive.precisions,
        "dwell_s": adaptive.dwell_s,
        "runs": dict(runs),
        "outcome": outcome(runs, adaptive.precisions, dwell_s=adaptive.dwell_s),
    }
    found: dict[str, Any] = finite(document)
    return found


def outcome(runs: Mapping[str, Mapping[str, Any]], precisions: Sequence[str], *, dwell_s: float) -> dict[str, Any]:
    """Returns how the adaptive run compares with the fixed ones, and which of the goals are met.

    Returns:
        ``misses`` by run; ``misses_goal``: at most a fifth of fixed FP32's; ``accuracy_goal``: by network, not below
        the fixed lowest precision that may run; ``least_gap_s`` between two switches and ``dwell_goal``; ``helps``:
        whether a less careful precision is faster here at all; ``statement``.
    """
    own, top = runs[ADAPTIVE], runs[precisions[0]]
    facts = own["adaptive"]
    allowed = [level["precision"] for level in facts["levels"]]
    lowest = allowed[-1]
    switches = facts["switches"]
    times = [switch["time_s"] for switch in switches]
    gaps = [later - before for before, later in itertools.pairwise(times)]
    calm = [
        gap for gap, switch in zip(gaps, switches[1:], strict=True) if switch["kind"] != "fault"
    ]  # a fault does not wait
    accuracy = {
        name: {"adaptive": value, lowest: runs[lowest]["accuracy"][name], precisions[0]: top["accuracy"][name]}
        for name, value in own["accuracy"].items()
    }
    helps = len(allowed) > 1 and not any("no precision is faster" in note for note in facts["notes"])
    misses_goal = own["misses"] <= math.floor(GOAL * top["misses"]) if top["misses"] else own["misses"] == 0
    found = {
        "misses": {name: run["misses"] for name, run in runs.items()},
        "misses_goal": misses_goal,
        "accuracy": accuracy,
        "accuracy_goal": all(
            None in (values["adaptive"], values[lowest]) or values["adaptive"] >= values[lowest] - ACCURACY_TOLERANCE
            for values in accuracy.values()
        ),
        "accuracy_tolerance": ACCURACY_TOLERANCE,
        "lowest": lowest,
        "switches": len(switches),
        "least_gap_s": min(calm) if calm else None,
        "dwell_goal": all(gap >= dwell_s - 1e-6 for gap in calm),
        "helps": helps,
    }
    found["statement"] = _statement(found, precisions[0], facts)
    return found


def _statement(found: Mapping[str, Any], top: str, facts: Mapping[str, Any]) -> str:
    misses = found["misses"]
    text = f"{misses[ADAPTIVE]} deadline misses, {misses[top]} with fixed {top}, {len(facts['switches'])} switches"
    if not found["helps"]:
        why = next((note for note in facts["notes"] if "no precision is faster" in note), "no other precision may run")
        return f"{text}: {why}"
    if misses[top] == 0:
        return f"{text}: the load cost fixed {top} no deadline, and there was nothing to gain"
    met = "met" if found["misses_goal"] else "missed"
    return f"{text}: the goal of a fifth is {met}"
