"""The ONNX file of each candidate: made once, kept beside the journal, made again when what it comes from changes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.config import EngineConfig
from saccade.configuration import LoadedConfiguration
from saccade.errors import ConfigurationError, DependencyError, ModelError, SaccadeError
from saccade.precision import int8
from saccade.telemetry.recorder import write_atomic
from saccade.validation.tradeoff_candidates import Candidate
from saccade.validation.tradeoff_inputs import scene_inputs
from saccade.validation.tradeoff_scenes import Scene, recording_digest

if TYPE_CHECKING:
    import onnx

Say = Callable[[str], None]
OPEN_BATCH = "_dynamic"
"""Ending of the name of a network with an open batch beside one with a batch of 1."""


@dataclass(frozen=True, slots=True)
class CandidateModel:
    """A network as one candidate runs it."""

    path: Path
    sha256: str
    bytes: int
    build_s: float
    """Time that making it took [s]; 0 where nothing is changed."""
    calibration: Path | None = None
    """Samples for TensorRT's own calibrator, where the file is not quantized itself."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What was done: the method, parameters, multiply-adds, nodes left in half, each where it is known."""


def source_model(loaded: LoadedConfiguration, name: str) -> Path:
    """Returns the ONNX file that the candidates of a network are made from.

    Where batches are compared, that is the file of the same name with an open batch, if there is one.
    """
    path = loaded.model_path(name)
    beside = path.with_name(f"{path.stem}{OPEN_BATCH}{path.suffix}")
    return beside if max(loaded.config.tradeoff.batches) > 1 and beside.is_file() else path


def engine_config(config: EngineConfig, candidate: Candidate, model: CandidateModel) -> EngineConfig:
    """Returns how a candidate is run: TensorRT has to be told the precision that the graph has."""
    precision = {"fp32": "fp32", "fp16": "fp16"}.get(candidate.precision, "int8")
    return config.model_copy(
        update={
            "precision": precision,
            "sparse": candidate.pruning == "2:4",
            "calibration": None if model.calibration is None else str(model.calibration),
            "adaptive": None,
        }
    )


def model_for(
    loaded: LoadedConfiguration,
    candidate: Candidate,
    folder: Path,
    *,
    calibration: Callable[[], Path],
    say: Say,
) -> CandidateModel:
    """Returns a candidate's ONNX file, made where it is not there yet.

    Args:
        loaded: The configuration.
        candidate: What to make.
        folder: Where files are kept.
        calibration: Returns the samples of the network at the candidate's size; called where they are needed.
        say: Told what is done.

    Raises:
        SaccadeError: It cannot be made; the text says why.
    """
    source = source_model(loaded, candidate.network)
    if candidate == candidate.reference:
        return _model(source, 0.0)
    target = folder / f"{candidate.key}.onnx"
    samples = calibration() if candidate.precision.startswith("int8") or candidate.pruning != "none" else None
    origin = {
        "source": _sha256(source),
        "calibration": None if samples is None else _sha256(samples),
        "amount": None if candidate.pruning == "none" else loaded.config.tradeoff.amount,
    }
    known = _known(target, origin)
    if known is not None:
        return known
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{candidate.key}: making its network")
    started = time.perf_counter()
    graph, facts = _made(source, candidate, samples, loaded, say)
    took = time.perf_counter() - started
    write_atomic(target, graph.SerializeToString())
    manifest = {"origin": origin, "build_s": took, "sha256": _sha256(target), "facts": facts}
    write_atomic(target.with_suffix(".json"), json.dumps(manifest, indent=1) + "\n")
    return _model(target, took, facts)


def with_size(model: onnx.ModelProto, size: tuple[int, int]) -> onnx.ModelProto:
    """Returns a copy of a network whose image inputs have another width and height [px].

    Raises:
        ModelError: Its layers do not fit together at that size.
    """
    import onnx

    found = onnx.ModelProto()
    found.CopyFrom(model)
    for info in found.graph.input:
        dims = info.type.tensor_type.shape.dim
        if len(dims) == 4:
            dims[3].dim_value, dims[2].dim_value = size
    # What was inferred holds for the size before.
    del found.graph.value_info[:]
    for info in found.graph.output:
        shape = info.type.tensor_type.shape
        if len(shape.dim) == 4:
            for axis in (2, 3):
                shape.dim[axis].dim_param = f"{info.name}_{axis}"
    try:
        inferred = onnx.shape_inference.infer_shapes(found, strict_mode=True, data_prop=True)
        onnx.checker.check_model(inferred)
    except Exception as error:
        raise ModelError(
            f"the network cannot take images of {size[0]}x{size[1]}: {str(error).strip().splitlines()[-1]}"
        ) from error
    return inferred


def _made(
    source: Path, candidate: Candidate, samples: Path | None, loaded: LoadedConfiguration, say: Say
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    try:
        import onnx
    except ImportError as error:
        raise DependencyError(f"precisions other than fp32 change the graph ({error}): pip install onnx") from error
    from saccade.precision import fp16

    model = onnx.load(str(source))
    if candidate.size is not None:
        model = with_size(model, candidate.size)
    if candidate.pruning != "none":
        raise ModelError(f"pruning {candidate.pruning!r} is not part of this version")
    if candidate.precision == "fp32":
        return model, {}
    if candidate.precision == "fp16":
        return fp16.half_from_float(model, say=say), {"route": "onnx half graph"}
    if candidate.precision == "int8_mixed":
        raise ModelError("precision 'int8_mixed' is not part of this version")
    assert samples is not None
    arrays = int8.calibration_arrays(samples)
    return int8.quantized_from_float(model, arrays, say=say), {"route": "explicit Q/DQ"}


def calibration_file(
    loaded: LoadedConfiguration,
    candidate: Candidate,
    source: Path,
    scenes: Sequence[Scene],
    folder: Path,
    *,
    say: Say,
) -> tuple[Path, dict[str, np.ndarray]]:
    """Returns the calibration samples of a candidate's network at its size: a .npz file and what is in it.

    Args:
        loaded: The configuration; ``tradeoff.calibration`` is taken where it is set.
        candidate: Network and size.
        source: The network's ONNX file.
        scenes: Recorded scenes to take frames from, where it is not.
        folder: Where the file is kept.
        say: Told what is done.

    Raises:
        ConfigurationError: There are no samples there, or they do not fit.
    """
    size = "" if candidate.size is None else f"-{candidate.size[0]}x{candidate.size[1]}"
    target = folder / f"{candidate.network}{size}.npz"
    given = loaded.config.tradeoff.calibration
    if given is not None and (Path(given).suffix == ".npz" or not (Path(given) / "sensors").is_dir()):
        tensors = int8.calibration_arrays(Path(given).expanduser())
        if set(tensors) == {int8.UNNAMED}:
            inputs = loaded.config.networks[candidate.network].inputs
            if len(inputs) > 1:
                raise ConfigurationError(
                    f"tradeoff.calibration: {given}: a folder of .npy files does not say which input of "
                    f"{candidate.network!r} they are for: give a .npz file with {', '.join(inputs)}"
                )
            tensors = {next(iter(inputs)): tensors[int8.UNNAMED]}
        save_samples(target, tensors)
        return target, tensors
    if given is not None:
        scenes = [Scene("calibration", None, Path(given))]
    elif target.is_file() and _is_of(target, scenes):
        return target, int8.calibration_arrays(target)
    say(f"calibration: preparing the frames of {candidate.network}")
    parts = [
        scene_inputs(loaded, candidate.network, source, scene, size=candidate.size, warmup=True).tensors
        for scene in scenes
    ]
    count = loaded.config.tradeoff.calibration_frames
    tensors = {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}
    save_samples(target, tensors)
    write_atomic(target.with_suffix(".json"), json.dumps(_origin(scenes)))
    return target, tensors


def _origin(scenes: Sequence[Scene]) -> list[str]:
    return [recording_digest(scene.directory) for scene in scenes]


def _is_of(target: Path, scenes: Sequence[Scene]) -> bool:
    try:
        return bool(json.loads(target.with_suffix(".json").read_text(encoding="utf-8")) == _origin(scenes))
    except (OSError, ValueError):
        return False


def save_samples(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes calibration samples, whole or not at all."""
    from saccade.models.export import atomic_path

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **tensors)  # type: ignore[arg-type]


def _known(target: Path, origin: Mapping[str, Any]) -> CandidateModel | None:
    try:
        manifest = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
        if manifest["origin"] == dict(origin) and manifest["sha256"] == _sha256(target):
            return _model(target, float(manifest["build_s"]), manifest["facts"])
    except (OSError, ValueError, KeyError, TypeError, SaccadeError):
        pass
    return None


def _model(path: Path, build_s: float, facts: Mapping[str, Any] | None = None) -> CandidateModel:
    return CandidateModel(path, _sha256(path), path.stat().st_size, build_s, None, dict(facts or {}))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()
