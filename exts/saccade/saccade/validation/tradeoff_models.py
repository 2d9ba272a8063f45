"""The ONNX file of each candidate: made once, kept beside the journal, made again when what it comes from changes."""

from __future__ import annotations

import dataclasses
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
from saccade.errors import ModelError, SaccadeError
from saccade.models.export import atomic_path
from saccade.network import NO_CLASS
from saccade.precision.compress import Recipe, compress
from saccade.precision.compress import loaded as loaded_graph
from saccade.precision.samples import Samples
from saccade.precision.sources import input_shapes, samples_from
from saccade.telemetry.recorder import write_atomic
from saccade.validation.tradeoff_candidates import Candidate
from saccade.validation.tradeoff_inputs import scene_inputs
from saccade.validation.tradeoff_scenes import Scene

if TYPE_CHECKING:
    import onnx

Say = Callable[[str], None]
OPEN_BATCH = "_dynamic"
"""Ending of the name of a network with an open batch beside one with a batch of 1."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What int8 scales and pruning are measured on."""

    path: Path
    """The inputs as a .npz file, for TensorRT's own calibrator."""
    samples: Samples


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


def finds_scales_itself(config: EngineConfig, device: str) -> bool:
    """Tells whether TensorRT finds int8 scales itself here: releases before 10 do not finish with Q/DQ graphs."""
    if device == "cpu" or config.backend == "onnxruntime":
        return False
    try:
        import tensorrt
    except (ImportError, OSError):
        return False
    from saccade.engines.versions import int8_route

    return int8_route(tensorrt.__version__) == "calibrator"


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
    calibration: Callable[[], Calibration],
    calibrator: bool = False,
    say: Say,
) -> CandidateModel:
    """Returns a candidate's ONNX file, made where it is not there yet.

    Args:
        loaded: The configuration.
        candidate: What to make.
        folder: Where files are kept.
        calibration: Returns the samples of the network at the candidate's size; called where they are needed.
        calibrator: Whether int8 scales are TensorRT's own doing; the file then stays in float.
        say: Told what is done.

    Raises:
        SaccadeError: It cannot be made; the text says why.
    """
    source = source_model(loaded, candidate.network)
    float_graph = calibrator and candidate.precision == "int8"
    recipe = _recipe(loaded, candidate, float_graph=float_graph)
    if recipe == Recipe():
        plain = _model(sized_model(source, candidate, folder), 0.0)
        return dataclasses.replace(plain, calibration=calibration().path) if float_graph else plain
    samples = calibration()
    name = f"{candidate.key}-float" if float_graph else candidate.key
    target = folder / f"{name}.onnx"
    origin = {
        "source": _sha256(source),
        "calibration": samples.samples.digest,
        "recipe": json.loads(json.dumps(dataclasses.asdict(recipe))),
    }
    found = _known(target, origin)
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        say(f"{candidate.key}: making its network")
        started = time.perf_counter()
        given = sized_model(source, candidate, folder)
        facts = _compressed(given, recipe, samples.samples, target, say)
        took = time.perf_counter() - started
        manifest = {"origin": origin, "build_s": took, "sha256": _sha256(target), "facts": facts}
        write_atomic(target.with_suffix(".made.json"), json.dumps(manifest, indent=1) + "\n")
        found = _model(target, took, facts)
    return dataclasses.replace(found, calibration=samples.path) if float_graph else found


def _compressed(source: Path, recipe: Recipe, samples: Samples, target: Path, say: Say) -> dict[str, Any]:
    """Writes the compressed network and returns what is to be told about it."""
    try:
        made = compress(source, recipe, calibration=samples, out=target, say=say)
    except ModelError as error:
        if recipe.precision != "fp16" or recipe.prune != "none" or "cost cannot be counted" not in str(error):
            raise
        # A half graph whose batch is open hides its sizes from ONNX's inference: it is made without its cost.
        from saccade.precision.fp16 import half_from_float

        write_atomic(target, half_from_float(loaded_graph(source), say=say).SerializeToString())
        return {"multiply_adds": None, "reason": str(error)}
    return {
        "parameters": made.parameters,
        "multiply_adds": made.multiply_adds,
        "calibration": made.calibration,
        "kept_float": made.kept_float,
    }


def calibration_samples(
    loaded: LoadedConfiguration,
    candidate: Candidate,
    source: Path,
    scenes: Sequence[Scene],
    folder: Path,
    *,
    say: Say,
) -> Calibration:
    """Returns the calibration samples of a candidate's network at its size; they are kept as a .npz file.

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
    given, count = loaded.config.tradeoff.calibration, loaded.config.tradeoff.calibration_frames
    say(f"calibration: preparing the frames of {candidate.network}")
    if given is not None:
        shapes = input_shapes(_graph(source, candidate))
        samples = samples_from(Path(given).expanduser(), shapes, count=count, say=say)
    else:
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
        samples = Samples(inputs, f"{len(scenes)} training layouts", truth).spread(count)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        np.savez(file, **samples.inputs)  # type: ignore[arg-type]
    return Calibration(target, samples)


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
        reason = str(error).strip().splitlines()[0].partition("error(s): ")[2] or str(error).strip()
        raise ModelError(f"the network cannot take images of {size[0]}x{size[1]}: {reason}") from error
    return inferred


def _recipe(loaded: LoadedConfiguration, candidate: Candidate, *, float_graph: bool) -> Recipe:
    wanted = loaded.config.tradeoff
    pruned = candidate.pruning != "none"
    return Recipe(
        precision="fp32" if float_graph else candidate.precision,
        prune=candidate.pruning,
        amount=wanted.amount if candidate.pruning in ("l1", "channels") else None,
        fine_tune_minutes=wanted.fine_tune_minutes if pruned else 0.0,
    )


def _graph(source: Path, candidate: Candidate) -> onnx.ModelProto:
    model = loaded_graph(source)
    return model if candidate.size is None else with_size(model, candidate.size)


def sized_model(source: Path, candidate: Candidate, folder: Path) -> Path:
    """Returns the float network at the candidate's size: its own file, or one in ``folder``.

    Raises:
        ModelError: It cannot take that size.
    """
    if candidate.size is None:
        return source
    path = folder / f"{candidate.network}-{candidate.size[0]}x{candidate.size[1]}.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _graph(source, candidate).SerializeToString())
    return path


def _known(target: Path, origin: Mapping[str, Any]) -> CandidateModel | None:
    try:
        manifest = json.loads(target.with_suffix(".made.json").read_text(encoding="utf-8"))
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
