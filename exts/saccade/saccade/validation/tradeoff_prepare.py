"""What a sweep makes before it measures: recordings, calibration samples, networks, and every engine that is needed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.config import RunConfig
from saccade.configuration import LoadedConfiguration
from saccade.engines.identity import CALIBRATED_BUILD
from saccade.engines.selection import declared_inputs, engine_made_ready, wants_tensorrt
from saccade.errors import ConfigurationError, EngineError, ModelError
from saccade.network import Network
from saccade.precision.samples import Samples
from saccade.validation.tradeoff_calibration import Calibration, CalibrationOverlap, calibration_samples
from saccade.validation.tradeoff_candidates import Candidate
from saccade.validation.tradeoff_inputs import (
    SceneInputs,
    check_disjoint,
    network_config,
    read_sensors,
    scene_inputs,
)
from saccade.validation.tradeoff_journal import Journal
from saccade.validation.tradeoff_models import (
    CandidateModel,
    engine_config,
    finds_scales_itself,
    model_for,
    sized_model,
    source_model,
)
from saccade.validation.tradeoff_scenes import Scene, calibration_scenes, ensure_recorded

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
    retry: bool = False
    """Whether what could not be made before is tried again."""
    models: dict[str, CandidateModel] = field(default_factory=dict)
    """By candidate; those that cannot be made are missing."""
    digests: dict[str, str] = field(default_factory=dict)
    """Of the recordings, by scene."""
    calibrations: dict[tuple[str, tuple[int, int] | None], Calibration] = field(default_factory=dict)
    ready: set[tuple[str, int]] = field(default_factory=set)
    """Engines that can be opened without a build, or cannot be built, by candidate and batch."""

    @property
    def config(self) -> RunConfig:
        """The configuration."""
        return self.loaded.config

    def labels(self, candidate: Candidate, scene: Scene) -> Path:
        """The file with a candidate's predicted labels of a scene."""
        return self.folder / "labels" / candidate.key / f"{scene.name}.npz"

    def usable(self) -> list[Candidate]:
        """Candidates whose network there is."""
        return [candidate for candidate in self.candidates if candidate.key in self.models]

    def engines(self) -> list[tuple[Candidate, int]]:
        """Every engine that is measured, those of the loop first: a sweep that is cut short then has all of them."""
        alone = [batch for batch in self.config.tradeoff.batches if batch > 1] if self.device != "cpu" else []
        usable = self.usable()
        return [(candidate, batch) for batch in (1, *alone) for candidate in usable]


def prepare(sweep: Sweep, over: Callable[[], bool], *, engines: bool = True) -> bool:
    """Makes all that measuring in the loop needs, so that nothing is built beside a measurement.

    Engines for batches follow in :func:`prepare_batches`, when the loop's measurements are safe.

    Args:
        sweep: The sweep.
        over: Asked before each thing that takes time whether to stop.
        engines: Whether engines are built as well, which needs the device.

    Returns:
        Whether there was time for everything.

    Raises:
        SaccadeError: Not even FP32 can be made, or calibration and evaluation share frames.
    """
    for scene in sweep.scenes if sweep.config.tradeoff.recordings or not engines else ():
        if over():
            return False
        sweep.digests[scene.name] = ensure_recorded(sweep.loaded, scene, sweep.journal, say=sweep.say)
    for number, candidate in enumerate(sweep.candidates, start=1):
        failed = sweep.journal.find("failed", candidate=candidate.key)
        if failed is not None and not sweep.retry and sweep.journal.find("built", candidate=candidate.key) is None:
            continue
        if over():
            return False
        sweep.say(f"candidate {number} of {len(sweep.candidates)}: {candidate.key}")
        with _left_out(sweep, candidate):
            sweep.models[candidate.key] = _model(sweep, candidate)
    return _build(sweep, over, loop=True) if engines else True


def prepare_batches(sweep: Sweep, over: Callable[[], bool]) -> bool:
    """Builds the engines for batches; returns whether there was time for all of them."""
    return _build(sweep, over, loop=False)


def scene_frames(sweep: Sweep, candidate: Candidate, scene: Scene) -> SceneInputs:
    """Returns the inputs of a candidate's network for the frames of a scene."""
    source = source_model(sweep.loaded, candidate.network)
    model = sized_model(source, candidate, sweep.folder / "models")
    return scene_inputs(sweep.loaded, candidate.network, model, scene, size=candidate.size)


def identified(sweep: Sweep, candidate: Candidate) -> dict[str, Any]:
    """What an engine of a candidate comes from: its file, and the samples where TensorRT measures scales on them."""
    model = sweep.models[candidate.key]
    return {
        "candidate": candidate.key,
        "sha256": model.sha256,
        "calibration": model.calibration_digest,
        # What was measured on an engine that is built otherwise now does not count.
        "calibrated_build": None if model.calibration_digest is None else CALIBRATED_BUILD,
    }


def _model(sweep: Sweep, candidate: Candidate) -> CandidateModel:
    engine = sweep.config.engine
    return model_for(
        sweep.loaded,
        candidate,
        sweep.folder / "models",
        calibration=lambda: _calibration(sweep, candidate),
        calibrator=finds_scales_itself(engine, sweep.device, sweep.config.tradeoff.int8),
        compared=sweep.device != "cpu" and engine.backend != "onnxruntime",
        say=sweep.say,
    )


def _build(sweep: Sweep, over: Callable[[], bool], *, loop: bool) -> bool:
    """Builds the loop's or the other engines that are not in the store yet; what is killed loses the one it was at."""
    engines = sweep.engines()
    for number, (candidate, batch) in enumerate(engines, start=1):
        if candidate.key not in sweep.models:
            continue  # its engine for the loop could not be built
        if loop != (batch == 1):
            continue
        if over():
            return False
        sweep.say(f"engine {number} of {len(engines)}: {candidate.key}, batch {batch}")
        if batch == 1:
            with _left_out(sweep, candidate):
                _ready_for_loop(sweep, candidate)
                _note_built(sweep, candidate)
        else:
            _ready_for_batch(sweep, candidate, batch)
        sweep.ready.add((candidate.key, batch))
    return True


def _ready_for_loop(sweep: Sweep, candidate: Candidate) -> None:
    """Builds a candidate's engine where need be, and makes sure that the network is one that the loop can use."""
    section = network_config(sweep.config, candidate.network, candidate.size)
    config = read_sensors(sweep.config, section)
    model = sweep.models[candidate.key]
    network = Network(
        candidate.network,
        section,
        model.path,
        sensors=config.sensors,
        engine=engine_config(config.engine, candidate, model),
        device=sweep.device,
        say=sweep.say,
        opener=functools.partial(engine_made_ready, unqualified=candidate.may_differ),
    )
    network.close()


def _ready_for_batch(sweep: Sweep, candidate: Candidate, batch: int) -> None:
    """Builds a candidate's engine for a batch where need be; what cannot be built is noted, and tried once."""
    if not wants_tensorrt(sweep.config.engine.backend, sweep.device):
        return
    model = sweep.models[candidate.key]
    identity = {"kind": "engine", "batch": batch, **identified(sweep, candidate)}
    if failed_engine(sweep, candidate, batch) is not None:
        return
    try:
        engine = engine_made_ready(
            model.path,
            engine_config(sweep.config.engine, candidate, model),
            device=sweep.device,
            shapes=batch_shapes(model.path, batch),
            say=sweep.say,
            unqualified=candidate.may_differ,
        )
        engine.close()
        if sweep.journal.find("engine", batch=batch, **identified(sweep, candidate)) is not None:
            sweep.journal.append({**identity, "failed": None})  # it was tried again, and there it is
    except (ModelError, EngineError) as error:
        sweep.say(f"{candidate.key}, batch {batch} is left out: {error}")
        sweep.journal.append({**identity, "failed": f"batch {batch}: {error}"})


def failed_engine(sweep: Sweep, candidate: Candidate, batch: int) -> str | None:
    """Returns why a candidate's engine for a batch cannot be built, where that was found before."""
    found = sweep.journal.find("engine", batch=batch, **identified(sweep, candidate))
    failed: str | None = None if found is None or sweep.retry else found["failed"]
    return failed


def batch_shapes(path: Path, batch: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a network's inputs with so many frames in each."""
    return {name: (batch, *(size or 1 for size in sizes[1:])) for name, sizes in declared_inputs(path).items()}


def _note_built(sweep: Sweep, candidate: Candidate) -> None:
    model = sweep.models[candidate.key]
    known = sweep.journal.find("built", candidate=candidate.key)
    if known is None or known["sha256"] != model.sha256:
        entry = {"sha256": model.sha256, "bytes": model.bytes, "build_s": model.build_s, "facts": model.facts}
        sweep.journal.append({"kind": "built", "candidate": candidate.key, **entry})


def _calibration(sweep: Sweep, candidate: Candidate) -> Calibration:
    """The calibration samples of a network at a size, made once, and checked against what is measured on."""
    key = (candidate.network, candidate.size)
    if key in sweep.calibrations:
        return sweep.calibrations[key]
    source = source_model(sweep.loaded, candidate.network)
    found = calibration_samples(
        sweep.loaded,
        candidate,
        source,
        sweep.folder / "calibration",
        scenes=lambda: _calibration_scenes(sweep),
        say=sweep.say,
    )
    evaluation: dict[str, Sequence[str]] = {}
    for scene in sweep.scenes:
        # Layouts' frames differ by their seeds, which are disjoint; what was given by a user is compared.
        if sweep.config.tradeoff.calibration is not None or scene.seed is None:
            ensure_recorded(sweep.loaded, scene, sweep.journal, say=sweep.say)
            inputs = scene_frames(sweep, candidate, scene)
            evaluation[scene.name] = Samples(inputs.tensors, scene.name).hashes
    if evaluation:
        try:
            check_disjoint(found.samples.hashes, evaluation, f"tradeoff.calibration: {found.samples.source}")
        except ConfigurationError as error:
            raise CalibrationOverlap(str(error)) from error
    sweep.calibrations[key] = found
    return found


def _calibration_scenes(sweep: Sweep) -> list[Scene]:
    recorded = calibration_scenes(sweep.loaded, sweep.folder / "scenes")
    for number, scene in enumerate(recorded, start=1):
        sweep.say(f"calibration: layout {number} of {len(recorded)}")
        ensure_recorded(sweep.loaded, scene, sweep.journal, say=sweep.say)
    return recorded


@contextlib.contextmanager
def _left_out(sweep: Sweep, candidate: Candidate) -> Iterator[None]:
    """Notes a candidate that cannot be made, and goes on with the others; without the reference there are none."""
    try:
        yield
    except (ModelError, EngineError, ConfigurationError) as error:
        if candidate == candidate.reference or isinstance(error, CalibrationOverlap):
            raise
        sweep.models.pop(candidate.key, None)
        sweep.say(f"{candidate.key} is left out: {error}")
        sweep.journal.append({"kind": "failed", "candidate": candidate.key, "reason": str(error)})
