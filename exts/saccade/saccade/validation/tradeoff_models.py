"""The ONNX file of each candidate: made once, kept beside the journal, made again when what it comes from changes."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade import paths
from saccade.config import EngineConfig
from saccade.configuration import LoadedConfiguration
from saccade.engines.selection import QUALIFICATION_SAMPLES
from saccade.errors import ConfigurationError, ModelError, SaccadeError
from saccade.precision.compress import Recipe, compress
from saccade.precision.compress import loaded as loaded_graph
from saccade.precision.samples import Samples
from saccade.telemetry.recorder import write_atomic
from saccade.validation.tradeoff_candidates import Candidate

if TYPE_CHECKING:
    import onnx

    from saccade.validation.tradeoff_calibration import Calibration

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
    calibration_digest: str | None = None
    """Their hash, whatever their place."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What was done: the method, parameters, multiply-adds, nodes left in half, each where it is known."""


def source_model(loaded: LoadedConfiguration, name: str) -> Path:
    """Returns the ONNX file that the candidates of a network are made from.

    Where batches are compared, that is the file of the same name with an open batch, if there is one.
    """
    path = loaded.model_path(name)
    beside = path.with_name(f"{path.stem}{OPEN_BATCH}{path.suffix}")
    return beside if max(loaded.config.tradeoff.batches) > 1 and beside.is_file() else path


def finds_scales_itself(config: EngineConfig, device: str, wanted: str = "auto") -> bool:
    """Tells whether TensorRT finds int8 scales itself: releases before 10 do not finish with every Q/DQ graph.

    Args:
        config: What runs the networks.
        device: Where.
        wanted: ``"qdq"``, ``"calibrator"``, or ``"auto"``, which is what the release that is installed does best;
            where none is, Q/DQ.

    Raises:
        ConfigurationError: The calibrator is asked for, and the TensorRT that is installed has no use for it.
    """
    if device == "cpu" or config.backend == "onnxruntime" or wanted == "qdq":
        return False
    try:
        import tensorrt
    except (ImportError, OSError):
        return wanted == "calibrator" and config.backend == "tensorrt"
    from saccade.engines.versions import int8_route

    found = int8_route(tensorrt.__version__) == "calibrator"
    if wanted == "calibrator" and not found:
        raise ConfigurationError(
            f"tradeoff.int8: calibrator is for TensorRT before 10, here is {tensorrt.__version__}: take auto or qdq"
        )
    return found


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
    compared: bool = False,
    say: Say,
) -> CandidateModel:
    """Returns a candidate's ONNX file, made where it is not there yet, with samples beside it to compare engines on.

    All precisions of a pruning are made from one pruned network in FP32: the one that is measured as such. What they
    keep of the accuracy of the network before pruning is for the sweep to judge, on other frames.

    Args:
        loaded: The configuration.
        candidate: What to make.
        folder: Where files are kept.
        calibration: Returns the samples of the network at the candidate's size; called where they are needed.
        calibrator: Whether int8 scales are TensorRT's own doing; the file then stays in float.
        compared: Whether engines are compared with their reference, for which a resized network needs samples, too.
        say: Told what is done.

    Raises:
        SaccadeError: It cannot be made; the text says why.
    """
    base = _float_model(loaded, candidate, folder, calibration=calibration, compared=compared, say=say)
    if candidate.precision == "fp32":
        return base
    if calibrator and candidate.precision == "int8":
        given = calibration()
        return dataclasses.replace(base, calibration=given.path, calibration_digest=given.samples.digest)
    origin = {"source": base.sha256, "recipe": _plain(Recipe(precision=candidate.precision))}
    made = _made(folder / f"{candidate.key}.onnx", origin, base.path, calibration, say)
    facts = dict(made.facts)
    if pruned := base.facts.get("pruning"):
        # Against the network before pruning, as everything else is.
        facts["pruning"] = pruned
        for name in ("parameters", "multiply_adds"):
            facts[name] = {**facts[name], "before": base.facts[name]["before"]}
    return dataclasses.replace(made, facts=facts)


def _float_model(
    loaded: LoadedConfiguration,
    candidate: Candidate,
    folder: Path,
    *,
    calibration: Callable[[], Calibration],
    compared: bool,
    say: Say,
) -> CandidateModel:
    """Returns the FP32 network of a candidate's pruning and size, which its other precisions are made from."""
    source = source_model(loaded, candidate.network)
    sized = sized_model(source, candidate, folder)
    if candidate.pruning == "none":
        if candidate.size is not None and compared:
            _keep_own_samples(sized, calibration, say)
        return _model(sized, 0.0)
    twin = dataclasses.replace(candidate, precision="fp32")
    target = folder / f"{twin.key}.onnx"
    wanted = loaded.config.tradeoff
    given = wanted.pruned.get(candidate.network, {}).get(candidate.pruning)
    if given is not None:
        return _taken(loaded, candidate, sized, given, target, calibration, say)
    recipe = Recipe(
        prune=candidate.pruning,
        amount=wanted.amount if candidate.pruning in ("l1", "channels") else None,
        fine_tune_minutes=wanted.fine_tune_minutes,
    )
    origin = {"source": file_hash(source), "recipe": _plain(recipe)}
    made = _made(target, origin, sized, calibration, say)
    method = {"kind": candidate.pruning, "share": recipe.share, "fine_tune_minutes": recipe.fine_tune_minutes}
    return dataclasses.replace(made, facts={**made.facts, "pruning": method})


def _taken(
    loaded: LoadedConfiguration,
    candidate: Candidate,
    sized: Path,
    given: str,
    target: Path,
    calibration: Callable[[], Calibration],
    say: Say,
) -> CandidateModel:
    """Returns a pruned network that was made elsewhere, checked and copied to the others."""
    from saccade.validation.tradeoff_pruned import checked_pruned

    field = f"tradeoff.pruned.{candidate.network}.{candidate.pruning}"
    path = paths.resolve(given, "model", beside=[Path.cwd(), loaded.path.parent], field=field)
    samples = calibration().samples
    open_batch = max(loaded.config.tradeoff.batches) > 1
    origin = {
        "source": file_hash(path),
        "sized": file_hash(sized),
        "calibration": samples.digest,
        "open_batch": open_batch,
    }
    known = _known(target, origin)
    if known is None:
        say(f"{candidate.key}: checking {path}")
        graph, facts = checked_pruned(path, candidate, loaded_graph(sized), samples, open_batch=open_batch)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, graph.SerializeToString())
        known = _recorded(target, origin, 0.0, facts, samples)
    return known


def _made(
    target: Path, origin: Mapping[str, Any], source: Path, calibration: Callable[[], Calibration], say: Say
) -> CandidateModel:
    """Returns the compressed network at ``target``, made anew where what it comes from is not what it was."""
    samples = calibration().samples
    origin = {**origin, "calibration": samples.digest}
    known = _known(target, origin)
    if known is not None:
        return known
    target.parent.mkdir(parents=True, exist_ok=True)
    say(f"{target.stem}: making its network")
    started = time.perf_counter()
    made = compress(source, Recipe(**origin["recipe"]), calibration=samples, out=target, say=say)
    facts = {
        "parameters": made.parameters,
        "multiply_adds": made.multiply_adds,
        "calibration": made.calibration,
        "kept_float": made.kept_float,
    }
    return _recorded(target, origin, time.perf_counter() - started, facts, samples)


def _recorded(
    target: Path, origin: Mapping[str, Any], build_s: float, facts: Mapping[str, Any], samples: Samples
) -> CandidateModel:
    """Writes the samples and, last, the manifest."""
    _keep_samples(target, samples)
    manifest = {"origin": dict(origin), "build_s": build_s, "sha256": file_hash(target), "facts": dict(facts)}
    write_atomic(target.with_suffix(".made.json"), json.dumps(manifest, indent=1) + "\n")
    return _model(target, build_s, facts)


def _keep_samples(path: Path, samples: Samples) -> None:
    """Writes, beside a network, samples from all over the calibration set for engines of it to be compared on.

    On noise, which is what is left without any, two labels of a pixel are often nearly equal, and which of them wins
    depends on rounding.
    """
    target = path.with_name(f"{path.stem.removesuffix(OPEN_BATCH)}.samples.npz")
    rows = samples.spread(QUALIFICATION_SAMPLES)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **rows.inputs)  # type: ignore[arg-type]
    write_atomic(target, buffer.getvalue())


def _keep_own_samples(path: Path, calibration: Callable[[], Calibration], say: Say) -> None:
    """As :func:`_keep_samples`; a network that is not made from samples can do without where they do not fit it."""
    from saccade.validation.tradeoff_calibration import CalibrationOverlap

    try:
        _keep_samples(path, calibration().samples)
    except CalibrationOverlap:
        raise
    except ConfigurationError as error:
        say(f"{path.name}: its engine is compared on noise, for want of samples: {error}")


def _plain(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON has it."""
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return found


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


def graph_of(source: Path, candidate: Candidate) -> onnx.ModelProto:
    """Returns the float network at the candidate's size.

    Raises:
        ModelError: It cannot be read, or cannot take that size.
    """
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
    data = graph_of(source, candidate).SerializeToString(deterministic=True)
    if not path.is_file() or path.read_bytes() != data:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    return path


def _known(target: Path, origin: Mapping[str, Any]) -> CandidateModel | None:
    try:
        manifest = json.loads(target.with_suffix(".made.json").read_text(encoding="utf-8"))
        if manifest["origin"] == dict(origin) and manifest["sha256"] == file_hash(target):
            return _model(target, float(manifest["build_s"]), manifest["facts"])
    except (OSError, ValueError, KeyError, TypeError, SaccadeError):
        pass
    return None


def _model(path: Path, build_s: float, facts: Mapping[str, Any] | None = None) -> CandidateModel:
    return CandidateModel(path, file_hash(path), path.stat().st_size, build_s, facts=dict(facts or {}))


def file_hash(path: Path) -> str:
    """Returns the SHA-256 of a file.

    Raises:
        ModelError: It cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()
