"""The calibration samples of a sweep: taken from recorded frames once, and kept with a manifest of where they are from.

They are kept compressed, and a folder that has them needs neither the recordings that they come from nor, on another
machine, the source that was given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saccade.configuration import LoadedConfiguration
from saccade.errors import ConfigurationError, SaccadeError
from saccade.models.export import atomic_path
from saccade.network import NO_CLASS
from saccade.precision.samples import Samples
from saccade.precision.sources import input_shapes, samples_from
from saccade.telemetry.recorder import write_atomic
from saccade.validation.tradeoff_candidates import Candidate
from saccade.validation.tradeoff_inputs import network_config, read_sensors, scene_inputs
from saccade.validation.tradeoff_models import file_hash, graph_of, sized_model
from saccade.validation.tradeoff_scenes import Scene

Say = Callable[[str], None]


class CalibrationOverlap(ConfigurationError):
    """Calibration and evaluation share frames: the sweep as a whole is at fault, not one candidate."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What int8 scales and pruning are measured on."""

    path: Path
    """The inputs as a .npz file, for TensorRT's own calibrator."""
    samples: Samples


def calibration_samples(
    loaded: LoadedConfiguration,
    candidate: Candidate,
    source: Path,
    folder: Path,
    *,
    scenes: Callable[[], Sequence[Scene]],
    say: Say,
) -> Calibration:
    """Returns the calibration samples of a candidate's network at its size, made where they are not kept yet.

    Args:
        loaded: The configuration; ``tradeoff.calibration`` is taken where it is set.
        candidate: Network and size.
        source: The network's ONNX file.
        folder: Where the files are kept: ``NAME.npz`` with the inputs, ``NAME.truth.npz`` with what is known of their
            truth, and ``NAME.json``.
        scenes: Returns recorded scenes to take frames from; called where they are needed.
        say: Told what is done.

    Raises:
        ConfigurationError: There are no samples there, or they do not fit.
    """
    size = "" if candidate.size is None else f"-{candidate.size[0]}x{candidate.size[1]}"
    target = folder / f"{candidate.network}{size}.npz"
    given = loaded.config.tradeoff.calibration
    origin = _origin(loaded, candidate, source)
    # A source that is given is read again as long as it is there: what it holds may have changed.
    if given is None or not Path(given).expanduser().exists():
        kept = _kept(target, origin)
        if kept is not None:
            say(f"calibration: the {len(kept.samples)} samples of {candidate.network} are there already")
            return kept
    say(f"calibration: preparing the frames of {candidate.network}")
    count = loaded.config.tradeoff.calibration_frames
    if given is not None:
        shapes = input_shapes(graph_of(source, candidate))
        samples = samples_from(Path(given).expanduser(), shapes, count=count, say=say)
    else:
        samples = _recorded(loaded, candidate, source, folder, scenes()).spread(count)
    found = _kept(target, origin)
    if found is not None and found.samples.digest == samples.digest:
        return Calibration(target, samples)
    _keep(target, samples, origin)
    return Calibration(target, samples)


def _recorded(
    loaded: LoadedConfiguration, candidate: Candidate, source: Path, folder: Path, scenes: Sequence[Scene]
) -> Samples:
    sized = sized_model(source, candidate, folder)
    parts = [
        scene_inputs(loaded, candidate.network, sized, scene, size=candidate.size, warmup=True) for scene in scenes
    ]
    inputs = {name: np.concatenate([part.tensors[name] for part in parts]) for name in parts[0].tensors}
    truths = [part.truth for part in parts if part.truth is not None]
    truth: dict[str, np.ndarray] = {}
    if len(truths) == len(parts):
        labels = np.concatenate(truths)
        truth = {"labels": labels, "valid": labels != NO_CLASS}
    return Samples(inputs, f"{len(scenes)} training layouts", truth)


def _origin(loaded: LoadedConfiguration, candidate: Candidate, source: Path) -> dict[str, Any]:
    """What decides the samples, except for the content of a source that is given; no path is part of it."""
    config, wanted = loaded.config, loaded.config.tradeoff
    section = network_config(config, candidate.network, candidate.size)
    sensors = read_sensors(config, section).sensors
    origin: dict[str, Any] = {
        "given": None if wanted.calibration is None else Path(wanted.calibration).name,
        "frames": wanted.calibration_frames,
        "shapes": {name: list(shape[1:]) for name, shape in input_shapes(graph_of(source, candidate)).items()},
        "inputs": {name: entry.model_dump(mode="json") for name, entry in section.inputs.items()},
        "sensors": {name: entry.model_dump(mode="json") for name, entry in sensors.items()},
    }
    if wanted.calibration is None:
        origin |= {"layouts": wanted.seed, "per_layout": [wanted.warmup, wanted.frames]}
    found: dict[str, Any] = json.loads(json.dumps(origin))
    return found


def _kept(target: Path, origin: Mapping[str, Any]) -> Calibration | None:
    """What is kept, where it is whole and from the same origin."""
    try:
        manifest = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
        truth = target.with_name(manifest["truth"]) if manifest["truth"] else None
        files = [target] if truth is None else [target, truth]
        if manifest["origin"] != dict(origin) or manifest["sha256"] != [file_hash(file) for file in files]:
            return None
        return Calibration(target, Samples(_arrays(target), manifest["from"], {} if truth is None else _arrays(truth)))
    except (OSError, ValueError, KeyError, TypeError, SaccadeError):
        return None


def _keep(target: Path, samples: Samples, origin: Mapping[str, Any]) -> None:
    """Writes the manifest last: samples without one, or with that of others, are made again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _save(target, samples.inputs)
    truth = target.with_suffix(".truth.npz") if samples.truth else None
    if truth is not None:
        _save(truth, samples.truth)
    manifest = {
        "origin": dict(origin),
        "from": samples.source,
        "samples": len(samples),
        "digest": samples.digest,
        "truth": None if truth is None else truth.name,
        "sha256": [file_hash(file) for file in ((target,) if truth is None else (target, truth))],
    }
    write_atomic(target.with_suffix(".json"), json.dumps(manifest, indent=1) + "\n")


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
