"""``saccade tradeoff``: accuracy against latency of every configured candidate, on held-out layouts, resumable."""

from __future__ import annotations

import datetime
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.benchmark.suite import commit
from saccade.config import RunConfig
from saccade.configuration import LoadedConfiguration
from saccade.engines.selection import quiet
from saccade.errors import ConfigurationError, EngineError, ModelError, RecordError, SaccadeError
from saccade.network import Network
from saccade.precision.samples import Samples
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
from saccade.validation.tradeoff_inputs import (
    SceneInputs,
    check_disjoint,
    network_config,
    read_sensors,
    scene_inputs,
)
from saccade.validation.tradeoff_journal import Journal
from saccade.validation.tradeoff_measure import agreement, measure_batch, measure_in_loop
from saccade.validation.tradeoff_models import (
    Calibration,
    CandidateModel,
    calibration_samples,
    engine_config,
    finds_scales_itself,
    model_for,
    sized_model,
    source_model,
)
from saccade.validation.tradeoff_results import Measured, candidate_entries
from saccade.validation.tradeoff_scenes import (
    Scene,
    calibration_scenes,
    ensure_recorded,
    evaluation_scenes,
    with_config,
)

__all__ = [
    "RESULT_FILE",
    "Recommendation",
    "candidate_title",
    "measure_tradeoff",
    "pareto_front",
    "read_result",
    "recommend",
]

SCHEMA = 1
Say = Callable[[str], None]


@dataclass(slots=True)
class Sweep:
    """What a sweep knows while it goes on."""

    loaded: LoadedConfiguration
    folder: Path
    device: str
    journal: Journal
    say: Say
    candidates: list[Candidate]
    scenes: list[Scene]
    models: dict[str, CandidateModel] = field(default_factory=dict)
    """By candidate; those that cannot be made are missing."""
    digests: dict[str, str] = field(default_factory=dict)
    """Of the recordings, by scene."""
    calibrations: dict[tuple[str, tuple[int, int] | None], Calibration] = field(default_factory=dict)

    @property
    def config(self) -> RunConfig:
        """The configuration."""
        return self.loaded.config

    def labels(self, candidate: Candidate, scene: Scene) -> Path:
        """The file with a candidate's predicted labels of a scene."""
        return self.folder / "labels" / candidate.key / f"{scene.name}.npz"


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
    candidates = candidates_from_config(loaded.config)
    scenes = evaluation_scenes(loaded, out / "scenes")
    started = time.monotonic()
    if fresh:
        for name in ("journal.jsonl", "labels"):
            path = out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def over() -> bool:
        return time_limit_s is not None and time.monotonic() - started > time_limit_s

    with Journal(out, _plan(loaded, device)) as journal:
        sweep = Sweep(loaded, out, device, journal, say, candidates, scenes)
        complete = _prepare(sweep, over, retry=retry) and _measure(sweep, over)
        result = _result(sweep, complete=complete, note=note)
    write_result(out, result)
    return result


def _plan(loaded: LoadedConfiguration, device: str) -> dict[str, Any]:
    """What must be the same for measurements to belong to one sweep; candidates and scenes may be added later."""
    config = loaded.config
    section = config.tradeoff
    host, versions = host_facts(), package_versions()
    shown = config.model_dump(mode="json")
    return {
        "sensors": shown["sensors"],
        "networks": shown["networks"],
        "engine": {name: shown["engine"][name] for name in ("backend", "threads", "workspace_mib", "graph")},
        "models": {name: _identity(source_model(loaded, name)) for name in config.networks},
        "frames": section.frames,
        "warmup": section.warmup,
        "amount": section.amount,
        "fine_tune_minutes": section.fine_tune_minutes,
        "calibration": section.calibration,
        "calibration_frames": section.calibration_frames,
        "layouts": section.seed,
        "recordings": section.recordings,
        "device": device,
        "processor": (host.get("gpu") or {}).get("name") if device != "cpu" else host.get("cpu"),
        "versions": {name: versions.get(name) for name in ("onnxruntime", "tensorrt", "warp-lang")},
    }


def _identity(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def _prepare(sweep: Sweep, over: Callable[[], bool], *, retry: bool) -> bool:
    """Makes every candidate's network and opens it once, which builds its engine; returns whether there was time."""
    for scene in sweep.scenes if sweep.config.tradeoff.recordings else ():
        sweep.digests[scene.name] = ensure_recorded(sweep.loaded, scene, sweep.journal, say=sweep.say)
    for number, candidate in enumerate(sweep.candidates, start=1):
        failed = sweep.journal.find("failed", candidate=candidate.key)
        if failed is not None and not retry and sweep.journal.find("built", candidate=candidate.key) is None:
            continue
        if over():
            return False
        sweep.say(f"candidate {number} of {len(sweep.candidates)}: {candidate.key}")
        try:
            model = model_for(
                sweep.loaded,
                candidate,
                sweep.folder / "models",
                calibration=lambda c=candidate: _calibration(sweep, c),  # type: ignore[misc]
                calibrator=finds_scales_itself(sweep.config.engine, sweep.device),
                say=sweep.say,
            )
            _open_once(sweep, candidate, model)
        except (ModelError, EngineError, ConfigurationError) as error:
            if candidate == candidate.reference or _is_about_calibration(error):
                raise
            sweep.say(f"{candidate.key} is left out: {error}")
            sweep.journal.append({"kind": "failed", "candidate": candidate.key, "reason": str(error)})
            continue
        sweep.models[candidate.key] = model
        known = sweep.journal.find("built", candidate=candidate.key)
        if known is None or known["sha256"] != model.sha256:
            entry = {"sha256": model.sha256, "bytes": model.bytes, "build_s": model.build_s, "facts": model.facts}
            sweep.journal.append({"kind": "built", "candidate": candidate.key, **entry})
    return True


class CalibrationOverlap(ConfigurationError):
    """Calibration and evaluation share frames: the sweep as a whole is at fault, not one candidate."""


def _is_about_calibration(error: SaccadeError) -> bool:
    return isinstance(error, CalibrationOverlap)


def _open_once(sweep: Sweep, candidate: Candidate, model: CandidateModel) -> None:
    section = network_config(sweep.config, candidate.network, candidate.size)
    config = read_sensors(sweep.config, section)
    network = Network(
        candidate.network,
        section,
        model.path,
        sensors=config.sensors,
        engine=engine_config(config.engine, candidate, model),
        device=sweep.device,
        say=sweep.say,
    )
    network.close()


def _calibration(sweep: Sweep, candidate: Candidate) -> Calibration:
    """The calibration samples of a network at a size, made once, and checked against what is measured on."""
    key = (candidate.network, candidate.size)
    if key in sweep.calibrations:
        return sweep.calibrations[key]
    source = source_model(sweep.loaded, candidate.network)
    given = sweep.config.tradeoff.calibration
    recorded: list[Scene] = []
    if given is None:
        recorded = calibration_scenes(sweep.loaded, sweep.folder / "scenes")
        for number, scene in enumerate(recorded, start=1):
            sweep.say(f"calibration: layout {number} of {len(recorded)}")
            ensure_recorded(sweep.loaded, scene, sweep.journal, say=sweep.say)
    found = calibration_samples(sweep.loaded, candidate, source, recorded, sweep.folder / "calibration", say=sweep.say)
    evaluation: dict[str, Sequence[str]] = {}
    for scene in sweep.scenes:
        # Layouts' frames differ by their seeds, which are disjoint; what was given by a user is compared.
        if given is not None or scene.seed is None:
            ensure_recorded(sweep.loaded, scene, sweep.journal, say=sweep.say)
            inputs = _inputs(sweep, candidate, scene)
            evaluation[scene.name] = Samples(inputs.tensors, scene.name).hashes
    if evaluation:
        try:
            check_disjoint(found.samples.hashes, evaluation, f"tradeoff.calibration: {found.samples.source}")
        except ConfigurationError as error:
            raise CalibrationOverlap(str(error)) from error
    sweep.calibrations[key] = found
    return found


def _measure(sweep: Sweep, over: Callable[[], bool]) -> bool:
    """Measures what is missing, scene by scene; returns whether everything is there."""
    meter = EnergyMeter(sweep.device)
    usable = [candidate for candidate in sweep.candidates if candidate.key in sweep.models]
    batches = [batch for batch in sweep.config.tradeoff.batches if batch > 1 or sweep.device != "cpu"]
    total = len(usable) * len(sweep.scenes)
    try:
        for number, scene in enumerate(sweep.scenes):
            if over():
                return False
            sweep.digests[scene.name] = ensure_recorded(sweep.loaded, scene, sweep.journal, say=sweep.say)
            # Another goes first in every scene.
            shift = number % len(usable)
            turn = [*usable[shift:], *usable[:shift]]
            for place, candidate in enumerate(turn):
                if _cell(sweep, candidate, scene) is None:
                    if over():
                        return False
                    done = number * len(usable) + place + 1
                    sweep.say(f"measuring {done} of {total}: {candidate.key} on {scene.name}")
                    _measure_cell(sweep, candidate, scene, number)
            for batch in batches:
                inputs: dict[tuple[str, tuple[int, int] | None], SceneInputs] = {}
                for candidate in turn:
                    if _batch_cell(sweep, candidate, scene, batch) is None:
                        if over():
                            return False
                        sweep.say(f"measuring batch {batch}: {candidate.key} on {scene.name}")
                        _measure_batch_cell(sweep, candidate, scene, batch, inputs, meter)
    finally:
        meter.close()
    return True


def _inputs(sweep: Sweep, candidate: Candidate, scene: Scene) -> SceneInputs:
    source = source_model(sweep.loaded, candidate.network)
    model = sized_model(source, candidate, sweep.folder / "models")
    return scene_inputs(sweep.loaded, candidate.network, model, scene, size=candidate.size)


def _identified(sweep: Sweep, candidate: Candidate, scene: Scene) -> dict[str, Any]:
    return {
        "candidate": candidate.key,
        "scene": scene.name,
        "digest": sweep.digests.get(scene.name),
        "sha256": sweep.models[candidate.key].sha256,
    }


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


def _measure_batch_cell(
    sweep: Sweep,
    candidate: Candidate,
    scene: Scene,
    batch: int,
    inputs: dict[tuple[str, tuple[int, int] | None], SceneInputs],
    meter: EnergyMeter,
) -> None:
    key = (candidate.network, candidate.size)
    if key not in inputs:
        inputs[key] = _inputs(sweep, candidate, scene)
    identity = {"kind": "batch", "batch": batch, **_identified(sweep, candidate, scene)}
    try:
        found = measure_batch(
            sweep.loaded,
            candidate,
            sweep.models[candidate.key],
            inputs[key],
            batch=batch,
            device=sweep.device,
            meter=meter,
            say=sweep.say,
        )
    except (ModelError, EngineError) as error:
        sweep.journal.append({**identity, "failed": str(error)})
        return
    sweep.journal.append({**identity, **found})


def _result(sweep: Sweep, *, complete: bool, note: str | None) -> dict[str, Any]:
    usable = [candidate for candidate in sweep.candidates if candidate.key in sweep.models]
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
        "fronts": _fronts(entries),
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


def _fronts(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for network, batch in dict.fromkeys((entry["network"], entry["batch"]) for entry in entries):
        own = [entry for entry in entries if (entry["network"], entry["batch"]) == (network, batch)]
        found.setdefault(network, {})[str(batch)] = {
            "latency": [entry["key"] for entry in pareto_front(own)],
            "throughput": [entry["key"] for entry in pareto_front(own, cost="throughput", lower=False)],
        }
    return found


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
