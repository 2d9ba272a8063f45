"""``saccade tradeoff``: accuracy against latency of every configured candidate, on held-out layouts, resumable."""

from __future__ import annotations

import datetime
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saccade.benchmark.suite import commit
from saccade.configuration import LoadedConfiguration
from saccade.engines.selection import quiet
from saccade.errors import ConfigurationError, EngineError, ModelError, RecordError
from saccade.telemetry.host import host_facts, package_versions
from saccade.telemetry.recorder import finite
from saccade.validation.recommendation import (
    RESULT_FILE,
    Recommendation,
    candidate_title,
    pareto_front,
    read_result,
    recommend,
)
from saccade.validation.tradeoff_candidates import Candidate, candidates_from_config
from saccade.validation.tradeoff_energy import EnergyMeter
from saccade.validation.tradeoff_inputs import SceneInputs, network_config
from saccade.validation.tradeoff_journal import Journal
from saccade.validation.tradeoff_measure import (
    ENERGY_SCENES,
    KeptEngines,
    agreement,
    measure_batch,
    measure_in_loop,
)
from saccade.validation.tradeoff_merge import fronts
from saccade.validation.tradeoff_models import file_hash, source_model
from saccade.validation.tradeoff_prepare import (
    Say,
    Sweep,
    failed_engine,
    identified,
    prepare,
    prepare_batches,
    scene_frames,
)
from saccade.validation.tradeoff_results import Measured, candidate_entries
from saccade.validation.tradeoff_scenes import Scene, ensure_recorded, evaluation_scenes, with_config

__all__ = [
    "RESULT_FILE",
    "Recommendation",
    "candidate_title",
    "measure_tradeoff",
    "pareto_front",
    "prepare_tradeoff",
    "read_result",
    "recommend",
]

SCHEMA = 1


def measure_tradeoff(
    loaded: LoadedConfiguration,
    *,
    out: Path,
    fresh: bool = False,
    retry: bool = False,
    time_limit_s: float | None = None,
    note: str | None = None,
    say: Say = quiet,
) -> dict[str, Any]:
    """Measures every candidate and returns the result, which is also written to ``out`` with its tables and plots.

    What is in ``out`` already is kept: a sweep that was stopped, killed or ran out of time goes on where it was.
    Candidates take turns scene by scene, and the order changes from scene to scene, so that what drifts hits all.

    Args:
        loaded: The configuration; its section ``tradeoff`` says what is compared.
        out: Folder of the sweep.
        fresh: Forgets what was measured there before; recordings and networks are kept.
        retry: Tries again what could not be made before.
        time_limit_s: Ends after the measurement that reaches it [s]; the result is then not complete.
        note: Goes into the result: what is special about this measurement.
        say: Told what is being done.

    Raises:
        SaccadeError: The configuration names something that cannot be used, or not even FP32 can be measured.
    """
    from saccade.reporting.tradeoff import write_result
    from saccade.simulators.opening import device_for

    device = device_for(loaded.config)
    over = _clock(time_limit_s)
    if fresh:
        for name in ("journal.jsonl", "labels"):
            path = out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    with Journal(out, _plan(loaded)) as journal:
        journal.measured_on(_machine(device))
        sweep = _sweep(loaded, out, device, journal, say, retry=retry)
        # The loop first: a sweep that is cut short has whole candidates, without their batches.
        complete = prepare(sweep, over) and _measure(sweep, over, alone=False)
        complete = complete and prepare_batches(sweep, over) and _measure(sweep, over, alone=True)
        result = _result(sweep, complete=complete, note=note)
    write_result(out, result)
    return result


def prepare_tradeoff(
    loaded: LoadedConfiguration,
    *,
    out: Path,
    retry: bool = False,
    time_limit_s: float | None = None,
    say: Say = quiet,
) -> dict[str, Any]:
    """Records scenes and calibration and makes every candidate's network; opens no engine and measures nothing.

    The configured device does not have to be here: the folder may be copied to the machine that measures.

    Args:
        loaded: The configuration; its section ``tradeoff`` says what is compared.
        out: Folder of the sweep.
        retry: Tries again what could not be made before.
        time_limit_s: Ends after the part that reaches it [s].
        say: Told what is being done.

    Returns:
        ``complete``; ``scenes``; ``models``, the files below ``out`` or of the configuration by candidate; ``failed``,
        the reasons by candidate.

    Raises:
        SaccadeError: The configuration names something that cannot be used, or not even FP32 can be made.
    """
    from saccade.kernels.setup import prepare_warp

    prepare_warp()
    device = "cuda:0" if loaded.config.simulator.device == "cuda" else "cpu"
    with Journal(out, _plan(loaded)) as journal:
        sweep = _sweep(loaded, out, device, journal, say, retry=retry)
        complete = prepare(sweep, _clock(time_limit_s), engines=False)
        return {
            "complete": complete,
            "scenes": list(sweep.digests),
            "models": {key: str(model.path) for key, model in sweep.models.items()},
            "failed": {
                candidate.key: entry["reason"]
                for candidate in sweep.candidates
                if candidate.key not in sweep.models
                and (entry := journal.find("failed", candidate=candidate.key)) is not None
            },
        }


def _sweep(loaded: LoadedConfiguration, out: Path, device: str, journal: Journal, say: Say, *, retry: bool) -> Sweep:
    candidates = candidates_from_config(loaded.config)
    return Sweep(loaded, out, device, journal, say, candidates, evaluation_scenes(loaded, out / "scenes"), retry=retry)


def _clock(limit_s: float | None) -> Callable[[], bool]:
    """Returns what tells whether so much time has passed since now."""
    started = time.monotonic()
    return lambda: limit_s is not None and time.monotonic() - started > limit_s


def _plan(loaded: LoadedConfiguration) -> dict[str, Any]:
    """What must be the same for measurements to belong to one sweep; candidates and scenes may be added later.

    No path is part of it, so that the folder and what the configuration names may move. What it is calibrated on and
    which recordings are measured decides by content: see :func:`identified`.
    """
    config = loaded.config
    section = config.tradeoff
    shown = config.model_dump(mode="json")
    return {
        "sensors": shown["sensors"],
        "networks": {
            name: {key: value for key, value in entry.items() if key != "model"}
            for name, entry in shown["networks"].items()
        },
        "engine": {name: shown["engine"][name] for name in ("backend", "threads", "workspace_mib", "graph")},
        "models": {name: file_hash(source_model(loaded, name)) for name in config.networks},
        "frames": section.frames,
        "warmup": section.warmup,
        "amount": section.amount,
        "fine_tune_minutes": section.fine_tune_minutes,
        "calibration_frames": section.calibration_frames,
        "layouts": section.seed,
    }


def _machine(device: str) -> dict[str, Any]:
    """What must be the same for measurements to be compared with each other."""
    host, versions = host_facts(), package_versions()
    return {
        "device": device,
        "processor": (host.get("gpu") or {}).get("name") if device != "cpu" else host.get("cpu"),
        "versions": {name: versions.get(name) for name in ("onnxruntime", "tensorrt", "warp-lang")},
    }


def _measure(sweep: Sweep, over: Callable[[], bool], *, alone: bool) -> bool:
    """Measures what is missing, scene by scene, in the loop or the engines alone; returns whether all is there."""
    usable = sweep.usable()
    meter, kept = EnergyMeter(sweep.device), KeptEngines(sweep.device)
    try:
        for number, scene in enumerate(sweep.scenes):
            if over():
                return False
            sweep.digests[scene.name] = ensure_recorded(sweep.loaded, scene, sweep.journal, say=sweep.say)
            # Another goes first in every scene.
            shift = number % len(usable)
            turn = [*usable[shift:], *usable[:shift]]
            done = (
                _alone(sweep, turn, scene, number, over, kept, meter)
                if alone
                else _loop(sweep, turn, scene, number, over)
            )
            if not done:
                return False
    finally:
        kept.close()
        meter.close()
    return True


def _loop(sweep: Sweep, turn: Sequence[Candidate], scene: Scene, number: int, over: Callable[[], bool]) -> bool:
    total = len(turn) * len(sweep.scenes)
    for place, candidate in enumerate(turn, start=1):
        if _cell(sweep, candidate, scene) is None:
            if over():
                return False
            sweep.say(f"measuring {number * len(turn) + place} of {total}: {candidate.key} on {scene.name}")
            _measure_cell(sweep, candidate, scene, number)
    return True


def _alone(
    sweep: Sweep,
    turn: Sequence[Candidate],
    scene: Scene,
    number: int,
    over: Callable[[], bool],
    kept: KeptEngines,
    meter: EnergyMeter,
) -> bool:
    for batch in _batches(sweep, number):
        inputs: dict[tuple[str, tuple[int, int] | None], SceneInputs] = {}
        for candidate in turn:
            known = _batch_cell(sweep, candidate, scene, batch)
            if known is None or (sweep.retry and "failed" in known):
                if over():
                    return False
                sweep.say(f"measuring batch {batch}: {candidate.key} on {scene.name}")
                found = _batch_figures(sweep, candidate, scene, number, batch, inputs, kept, meter)
                identity = {"kind": "batch", "batch": batch, **_identified(sweep, candidate, scene)}
                sweep.journal.append({**identity, **found})
    return True


def _batches(sweep: Sweep, number: int) -> list[int]:
    """The batches that a scene is measured with, engine alone: a batch of 1 is for its energy only."""
    energy = sweep.device != "cpu" and number < ENERGY_SCENES
    return [batch for batch in sweep.config.tradeoff.batches if batch > 1 or energy]


def _remaining(sweep: Sweep) -> dict[str, int]:
    """How much of the sweep is left: networks to be made, engines to be looked at or built, measurements."""
    failed = {
        candidate.key
        for candidate in sweep.candidates
        if candidate.key not in sweep.models and sweep.journal.find("failed", candidate=candidate.key) is not None
    }
    open_ones = [candidate for candidate in sweep.candidates if candidate.key not in failed]
    cells = [
        candidate.key not in sweep.models or scene.name not in sweep.digests or _cell(sweep, candidate, scene) is None
        for scene in sweep.scenes
        for candidate in open_ones
    ]
    alone = [
        candidate.key not in sweep.models
        or scene.name not in sweep.digests
        or _batch_cell(sweep, candidate, scene, batch) is None
        for number, scene in enumerate(sweep.scenes)
        for batch in _batches(sweep, number)
        for candidate in open_ones
    ]
    made = [candidate for candidate in open_ones if candidate.key in sweep.models]
    per_candidate = 1 + (sum(batch > 1 for batch in sweep.config.tradeoff.batches) if sweep.device != "cpu" else 0)
    return {
        "networks": len(open_ones) - len(made),
        "engines": len(open_ones) * per_candidate - len(sweep.ready),
        "measurements": sum(cells) + sum(alone),
    }


def _identified(sweep: Sweep, candidate: Candidate, scene: Scene) -> dict[str, Any]:
    digest = sweep.digests.get(scene.name)
    return {"scene": scene.name, "digest": digest, **identified(sweep, candidate)}


def _cell(sweep: Sweep, candidate: Candidate, scene: Scene) -> dict[str, Any] | None:
    return sweep.journal.find("cell", **_identified(sweep, candidate, scene))


def _batch_cell(sweep: Sweep, candidate: Candidate, scene: Scene, batch: int) -> dict[str, Any] | None:
    return sweep.journal.find("batch", batch=batch, **_identified(sweep, candidate, scene))


def _measure_cell(sweep: Sweep, candidate: Candidate, scene: Scene, number: int) -> None:
    model = sweep.models[candidate.key]
    found = measure_in_loop(
        sweep.loaded,
        candidate,
        model,
        scene,
        device=sweep.device,
        labels=sweep.labels(candidate, scene),
        say=sweep.say,
    )
    if not found["frames"]:
        raise RecordError(f"{scene.directory}: no judged frame of the recording feeds network {candidate.network!r}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    sweep.journal.append(
        {"kind": "cell", **_identified(sweep, candidate, scene), "round": number, "load": load, **found}
    )


def _batch_figures(
    sweep: Sweep,
    candidate: Candidate,
    scene: Scene,
    number: int,
    batch: int,
    inputs: dict[tuple[str, tuple[int, int] | None], SceneInputs],
    alone: KeptEngines,
    meter: EnergyMeter,
) -> dict[str, Any]:
    """What the engine alone gives with a batch, or why it gives nothing."""
    reason = failed_engine(sweep, candidate, batch)
    if reason is not None:
        return {"failed": reason}
    key = (candidate.network, candidate.size)
    if key not in inputs:
        inputs[key] = scene_frames(sweep, candidate, scene)
    try:
        engine = alone.engine(
            sweep.loaded, candidate, sweep.models[candidate.key], inputs[key], batch=batch, say=sweep.say
        )
        section = network_config(sweep.config, candidate.network, candidate.size)
        return measure_batch(engine, inputs[key], section, meter=meter if number < ENERGY_SCENES else None)
    except (ModelError, EngineError) as error:
        return {"failed": str(error)}
    finally:
        alone.make_room()


def _result(sweep: Sweep, *, complete: bool, note: str | None) -> dict[str, Any]:
    usable = sweep.usable()
    # Rounds that every candidate went through, so that all are judged on the same frames.
    rounds = [
        scene
        for scene in sweep.scenes
        if scene.name in sweep.digests and all(_cell(sweep, candidate, scene) is not None for candidate in usable)
    ]
    measured = {candidate.key: _measured(sweep, candidate, rounds) for candidate in usable} if rounds else {}
    gate = sweep.config.tradeoff.gate
    entries = [
        entry
        for found in measured.values()
        for entry in candidate_entries(
            found, measured.get(found.candidate.reference.key), device=sweep.device, gate=gate
        )
    ]
    failed = {
        candidate.key: sweep.journal.find("failed", candidate=candidate.key)
        for candidate in sweep.candidates
        if candidate.key not in sweep.models
    }
    refused = {
        f"{candidate.key}-batch{batch}": entry["failed"]
        for candidate in usable
        for batch in sweep.config.tradeoff.batches
        for scene in rounds[:1]
        if (entry := _batch_cell(sweep, candidate, scene, batch)) is not None and "failed" in entry
    }
    cells = [cell for found in measured.values() for cell in found.cells]
    loads = [cell["load"] for cell in cells if cell.get("load") is not None]
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "tradeoff",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "complete": complete and bool(entries),
        **({} if complete else {"remaining": _remaining(sweep)}),
        "note": note,
        "configuration": sweep.loaded.name,
        "device": sweep.device,
        "host": {name: value for name, value in host_facts().items() if name != "python"},
        "versions": package_versions(),
        **commit(),
        "load_average": {"min": min(loads), "max": max(loads)} if loads else None,
        "frames_per_scene": sweep.config.tradeoff.frames,
        "scenes": [{"name": scene.name, "seed": scene.seed, "digest": sweep.digests[scene.name]} for scene in rounds],
        "calibration": {
            "source": sweep.config.tradeoff.calibration or "training layouts",
            "frames": sweep.config.tradeoff.calibration_frames if sweep.config.tradeoff.calibration is None else None,
        },
        "gate": gate,
        "candidates": entries,
        "failed": [
            {"key": key, "reason": "not reached yet" if entry is None else entry["reason"]}
            for key, entry in failed.items()
        ]
        + [{"key": key, "reason": reason} for key, reason in refused.items()],
        "fronts": fronts(entries),
    }
    found: dict[str, Any] = finite(document)
    return found


def _measured(sweep: Sweep, candidate: Candidate, rounds: Sequence[Scene]) -> Measured:
    cells = [cell for scene in rounds if (cell := _cell(sweep, candidate, scene)) is not None]
    batches = {}
    for batch in sweep.config.tradeoff.batches:
        found = [_batch_cell(sweep, candidate, scene, batch) for scene in rounds]
        batches[batch] = [cell for cell in found if cell is not None and "failed" not in cell]
    pairs = [
        pair
        for scene in rounds
        if (pair := agreement(sweep.labels(candidate, scene), sweep.labels(candidate.twin, scene))) is not None
    ]
    same = (sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)) if len(pairs) == len(rounds) else None
    built = dict(sweep.journal.find("built", candidate=candidate.key) or {})
    return Measured(candidate, built, cells, batches, same)


def with_tradeoff(loaded: LoadedConfiguration, **values: Any) -> LoadedConfiguration:
    """Returns a configuration whose section ``tradeoff`` has other values, checked.

    Raises:
        ConfigurationError: A value that cannot be meant.
    """
    from pydantic import ValidationError

    section = loaded.config.tradeoff
    try:
        changed = type(section).model_validate({**section.model_dump(), **values})
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        where = ".".join(map(str, detail["loc"]))
        raise ConfigurationError(f"tradeoff.{where}: {detail['msg'].removeprefix('Value error, ')}") from error
    return with_config(loaded, loaded.config.model_copy(update={"tradeoff": changed}))
