"""Compression of any ONNX network: half or int8 arithmetic, pruning, and what that does to it on held-out frames."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from saccade.errors import ConfigurationError, DependencyError, ModelError
from saccade.precision import evaluation as judge
from saccade.precision.cost import multiply_adds_of, parameters_of
from saccade.precision.int8 import FEWEST_SAMPLES
from saccade.precision.samples import USUAL_SAMPLES, Samples, apart, require_apart, require_usable
from saccade.precision.sources import SIMULATOR, ImagePreparation, input_shapes, samples_from

if TYPE_CHECKING:
    import onnx

Precision = Literal["fp32", "fp16", "int8", "int8_mixed"]
Prune = Literal["none", "l1", "channels", "2:4"]
Method = Literal["minmax", "entropy", "percentile"]

PRECISIONS: tuple[str, ...] = get_args(Precision)
PRUNINGS: tuple[str, ...] = get_args(Prune)
METHODS: tuple[str, ...] = get_args(Method)

AMOUNTS = {"none": 0.0, "l1": 0.5, "channels": 0.25, "2:4": 0.5}
"""Share of the weights or channels that is taken away where nothing else is asked for."""

EVALUATION_SAMPLES = 240
"""Held-out frames that a result is judged on."""
KEPT_SAMPLES = 6
"""Held-out inputs kept beside a result, for comparing engines built from it with ONNX Runtime."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is to be compressed."""

    precision: Precision = "fp32"
    """``int8_mixed``: int8, except for the nodes that cost most accuracy, which stay in float."""
    prune: Prune = "none"
    """``l1``: single weights; ``channels``: whole channels, the graph becomes smaller; ``2:4``: two of four weights."""
    amount: float | None = None
    """Share that is pruned, 0..1; ``None`` = :data:`AMOUNTS`. Of ``2:4`` it is one half."""
    method: Method = "percentile"
    """How int8 ranges follow from the calibration samples."""
    percentile: float = 99.99
    """Share of the values that a range holds with ``percentile`` [%]."""
    keep: tuple[str, ...] = ()
    """Operator types and names of nodes that stay as they are."""
    target: float = 0.99
    """Share of the original's accuracy that ``int8_mixed`` has to keep on the selection samples."""
    fine_tune_minutes: float = 0.0
    """Training after pruning [min], for the shipped networks and those trained from them; needs torch."""
    seed: int = 0
    """Of the order and augmentation while fine-tuning."""
    fine_tune_device: str = "auto"
    """Where to fine-tune: ``"cpu"``, ``"cuda"``, or ``"auto"``, a GPU where PyTorch has one."""

    def __post_init__(self) -> None:
        for name, allowed in (("precision", PRECISIONS), ("prune", PRUNINGS), ("method", METHODS)):
            if getattr(self, name) not in allowed:
                raise ConfigurationError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(allowed)}")
        if self.amount is not None and not 0 < self.amount < 1:
            raise ConfigurationError(f"amount {self.amount:g}: expected a share between 0 and 1, such as 0.5")
        if self.prune == "2:4" and self.amount not in (None, 0.5):
            raise ConfigurationError("amount: 2:4 sparsity takes two of four weights, which is 0.5; leave it out")
        if self.prune == "none" and (self.amount is not None or self.fine_tune_minutes):
            raise ConfigurationError("amount and fine-tuning are for pruned networks: say which way, such as l1")
        if not 50 < self.percentile <= 100:
            raise ConfigurationError(f"percentile {self.percentile:g}: expected more than 50, at most 100")
        if not 0 < self.target <= 1:
            raise ConfigurationError(f"target {self.target:g}: expected a share between 0 and 1, such as 0.99")
        if not self.fine_tune_minutes >= 0:
            raise ConfigurationError(f"fine_tune_minutes {self.fine_tune_minutes:g}: expected 0 or more")

    @property
    def share(self) -> float:
        """The share that is pruned."""
        return AMOUNTS[self.prune] if self.amount is None else self.amount

    @property
    def name(self) -> str:
        """Short text such as ``int8-channels25`` for files and tables."""
        pruned = {"none": "", "2:4": "-2to4"}.get(self.prune, f"-{self.prune}{round(100 * self.share)}")
        tuned = "-tuned" if self.fine_tune_minutes else ""
        return f"{self.precision}{pruned}{tuned}"


@dataclass(frozen=True)
class Compressed:
    """What a compression gave. ``<stem>.card.json`` and ``<stem>.samples.npz`` lie beside the network."""

    path: Path
    """The ONNX file: same inputs and outputs as the original, float32 at its edges."""
    card: Path
    recipe: Recipe
    hash: str
    """SHA-256 of the file."""
    parameters: dict[str, dict[str, int]]
    """``before`` and ``after``, each ``total`` and ``nonzero``."""
    multiply_adds: dict[str, int]
    """``before`` and ``after``, for one sample."""
    checks: dict[str, Any]
    """``agreement`` with the original on held-out frames; ``accuracy`` of ``original`` and ``compressed`` against the
    truth and their ``retention`` (``None`` without a truth)."""
    latency: dict[str, Any]
    """Both networks on the CPU in turn, see :func:`saccade.precision.evaluation.latency_ratio`."""
    calibration: dict[str, Any] | None
    """Source, hash and number of the calibration samples."""
    kept_float: list[dict[str, Any]] = field(default_factory=list)
    """Tensors or nodes that stay in float, each with its reason."""
    sensitivity: list[dict[str, Any]] = field(default_factory=list)
    """Quantized nodes, the most harmful first, each with the error that it alone causes."""

    @property
    def retention(self) -> float | None:
        """Share of the original's mIoU that is left; ``None`` where the truth is not known."""
        return self.checks["retention"]


def compress(
    model: Path,
    recipe: Recipe,
    *,
    calibration: str | Path | Samples | None = None,
    evaluation: str | Path | Samples | None = None,
    out: Path,
    allow_few: bool = False,
    count: int = USUAL_SAMPLES,
    cache: Path | None = None,
    preparation: ImagePreparation | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Compressed:
    """Compresses a network, checks it against the original on held-out frames, and writes it with its card.

    Args:
        model: A float32 ONNX file.
        recipe: What is to be done.
        calibration: A source as of :func:`saccade.precision.sources.samples_from`, or samples; ``None`` = the
            simulator. Needed for every recipe: ranges and checks come from it.
        evaluation: Where the held-out frames come from; ``None`` = of a dataset its test layouts, else a fifth of the
            calibration source, chosen by hash.
        out: The file to write; what was there is replaced when everything has succeeded.
        allow_few: Accepts fewer than 100 calibration samples.
        count: Most calibration samples to use.
        cache: Where rendered datasets are kept; ``None`` = the user's cache folder.
        preparation: How a folder of pictures becomes an input.
        say: Told what is going on.

    Raises:
        ConfigurationError: The recipe or the samples do not fit.
        DependencyError: ``onnx``, or what a source or fine-tuning needs, is not installed.
        ModelError: The network cannot be compressed, or the result is no use: NaN, or collapsed. Nothing is written.
        KeyboardInterrupt: Interrupted; nothing is written.
    """
    original = loaded(model)
    _require_float(model, original)
    # Fine-tuning takes its frames from the dataset that was given, if one was.
    given = None if calibration is None or isinstance(calibration, Samples) else Path(calibration)
    tuning_data = given if given is not None and (given / "dataset.json").is_file() else cache
    sets = _samples(original, recipe, calibration, evaluation, allow_few, count, cache, preparation, say)
    reference = judge.outputs_of(original, sets.evaluation, report=_steps(say, "running the original on frame"))
    changed, notes = _changed(original, recipe, sets, tuning_data, say)
    _check_graph(model, changed)
    found = judge.outputs_of(changed, sets.evaluation, report=_steps(say, "running the compressed network on frame"))
    if trouble := judge.problems(found, reference):
        raise ModelError(
            f"{model}: {recipe.name} is refused, nothing is written: {'; '.join(trouble)}. Keep more in float "
            "(precision int8_mixed, --keep), prune less (--amount), or calibrate on more frames"
        )
    truth = {
        "original": judge.accuracy(reference, sets.evaluation),
        "compressed": judge.accuracy(found, sets.evaluation),
    }
    say("timing both networks in turn")
    result: dict[str, Any] = {
        "parameters": {"before": parameters_of(original), "after": parameters_of(changed)},
        "multiply_adds": {"before": multiply_adds_of(original), "after": multiply_adds_of(changed)},
        "checks": {
            "checker": "passed",
            "evaluation": described(sets.evaluation),
            "agreement": judge.agreement(found, reference),
            "accuracy": truth if truth["original"] else None,
            "retention": judge.retention(truth["compressed"], truth["original"]),
        },
        "latency": judge.latency_ratio(original, changed, sets.evaluation),
        "calibration": described(sets.calibration),
        **notes,
    }
    return _written(model, changed, recipe, result, sets.evaluation, Path(out))


@dataclass(frozen=True, slots=True)
class Sets:
    """Samples by what they are for; no frame is in two of them, except that selection may reuse the calibration's."""

    calibration: Samples
    selection: Samples
    """What choices are made on: which nodes stay in float."""
    evaluation: Samples
    """What the result is judged on, used for nothing else."""


def loaded(path: Path) -> onnx.ModelProto:
    """Returns a network that ONNX's checker accepts.

    Raises:
        ModelError: It cannot be read; the text names the file.
        DependencyError: ``onnx`` is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise DependencyError(f"compression changes the graph ({error}): pip install onnx") from error
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except OSError as error:
        raise ModelError(f"{path}: cannot read this network: {error.strerror or error}") from error
    except Exception as error:
        raise ModelError(f"{path}: this is no complete ONNX network: {error}") from error
    return model


def described(samples: Samples) -> dict[str, Any]:
    """Returns source, hash and number of samples, for the record."""
    return {"source": samples.source, "sha256": samples.digest, "samples": len(samples)}


def _require_float(path: Path, model: onnx.ModelProto) -> None:
    """Refuses networks that are compressed already, or that hold what cannot be changed; the text names it."""
    from saccade.precision import fp16, int8

    if int8.is_quantized(model) or fp16.is_half(model):
        raise ModelError(f"{path}: is in int8 or half precision already: give the float32 network it came from")
    foreign = sorted(
        {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    )
    inner = sorted({node.op_type for node in model.graph.node if any(a.HasField("g") for a in node.attribute)})
    if foreign or inner:
        raise ModelError(
            f"{path}: unsupported operators: {', '.join((*foreign, *inner))}. Compression changes graphs of standard "
            "ONNX operators without branches or loops; export the network without them"
        )


def _samples(
    model: onnx.ModelProto,
    recipe: Recipe,
    calibration: str | Path | Samples | None,
    evaluation: str | Path | Samples | None,
    allow_few: bool,
    count: int,
    cache: Path | None,
    preparation: ImagePreparation | None,
    say: Callable[[str], None],
) -> Sets:
    shapes = input_shapes(model)
    options: dict[str, Any] = {"cache": cache, "preparation": preparation, "say": say}
    source = SIMULATOR if calibration is None else calibration
    say("reading calibration samples")
    given = source if isinstance(source, Samples) else samples_from(source, shapes, count=count, **options)
    fewest = FEWEST_SAMPLES if recipe.precision != "fp32" else 1
    selection = None
    if isinstance(evaluation, Samples):
        held = evaluation
    elif evaluation is not None:
        held = samples_from(evaluation, shapes, role="evaluation", count=EVALUATION_SAMPLES, **options)
    elif not isinstance(source, Samples) and _is_dataset(source):
        held = samples_from(source, shapes, role="evaluation", count=EVALUATION_SAMPLES, **options)
        if recipe.precision == "int8_mixed":
            selection = samples_from(source, shapes, role="selection", count=EVALUATION_SAMPLES, **options)
    else:
        require_usable(given, fewest=fewest, allow_few=allow_few)
        # What was enough before a part is held out is enough.
        allow_few = True
        given, held = apart(given)
    require_usable(given, fewest=fewest, allow_few=allow_few)
    require_apart(given, held)
    if not len(held):
        raise ConfigurationError(f"evaluation: {held.source} holds no samples")
    return Sets(given, selection or given, held)


def _is_dataset(source: str | Path) -> bool:
    return str(source) == SIMULATOR or (Path(source) / "dataset.json").is_file()


def _changed(
    original: onnx.ModelProto, recipe: Recipe, sets: Sets, cache: Path | None, say: Callable[[str], None]
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Returns the compressed graph, and what is to be told about it."""
    from saccade.precision import fp16

    model = onnx_copy(original)
    fp16.name_nodes(model)
    notes: dict[str, Any] = {"kept_float": [], "sensitivity": []}
    if recipe.prune != "none":
        model, notes["pruning"] = _pruned(model, recipe, cache, say)
    if recipe.precision == "fp16":
        model, notes["kept_float"] = _half(model, recipe, sets, say)
    elif recipe.precision in ("int8", "int8_mixed"):
        model, further = _int8(model, recipe, sets, say)
        notes |= further
    return model, notes


def onnx_copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of a network."""
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _pruned(
    model: onnx.ModelProto, recipe: Recipe, cache: Path | None, say: Callable[[str], None]
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    from saccade.precision import pruning, sparsity

    notes: dict[str, Any] = {"share": recipe.share, "fine_tuning": None}
    masks: dict[str, np.ndarray] = {}
    if recipe.prune == "channels":
        model, notes["layers"] = pruning.without_channels(model, recipe.share, keep=recipe.keep)
    else:
        masks = sparsity.sparse_masks(model, recipe.prune, amount=recipe.share, keep=recipe.keep)
        if not masks:
            raise ConfigurationError(f"prune {recipe.prune}: the network has no weights that this applies to")
        model = sparsity.masked(model, masks)
        notes["layers"] = [
            {"weight": name, "before": mask.size, "after": int(mask.sum())} for name, mask in masks.items()
        ]
    if recipe.fine_tune_minutes:
        model, notes["fine_tuning"] = _tuning().fine_tuned(
            model,
            masks,
            minutes=recipe.fine_tune_minutes,
            seed=recipe.seed,
            device=recipe.fine_tune_device,
            cache=cache,
            say=say,
        )
    return model, notes


def _tuning() -> Any:
    try:
        from saccade.models import tuning
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("saccade"):
            raise
        raise DependencyError(
            f"fine-tuning needs {error.name}, which is not installed: {sys.executable} -m pip install 'torch>=2.3'; "
            "leave --fine-tune out to prune without it"
        ) from error
    return tuning


def _half(
    model: onnx.ModelProto, recipe: Recipe, sets: Sets, say: Callable[[str], None]
) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    from saccade.precision import fp16, int8, ranges

    unfit = ranges.unfit_for_half(model, sets.calibration, report=_steps(say, "checking ranges on frame"))
    weights = fp16.overflowing(model)
    reasons = [{"tensor": name, "reason": "overflow", "largest": size} for name, size in weights.items()]
    blocked = {*int8.kept_nodes(model, recipe.keep), *ranges.nodes_to_keep(model, unfit)}
    for entry in unfit:
        say(f"{entry['tensor']} {entry['reason']}s in float16 (up to {entry['largest']:.3g}): stays in float32")
    return fp16.half_from_float(model, blocked=blocked, say=say), [*reasons, *unfit]


def _int8(
    model: onnx.ModelProto, recipe: Recipe, sets: Sets, say: Callable[[str], None]
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    from saccade.precision import int8, sensitivity

    quantized = int8.quantized_from_float(
        model,
        sets.calibration.inputs,
        allow_few=True,
        method=recipe.method,
        percentile=recipe.percentile,
        keep=recipe.keep,
        say=say,
    )
    nodes = int8.quantized_nodes(quantized)
    if not nodes:
        raise ModelError(
            f"int8: the network has no operators to quantize ({', '.join(int8.OPERATORS)}) outside of what is kept"
        )
    if recipe.precision == "int8":
        return quantized, {"quantized": len(nodes)}
    reference = int8.simplified(model)
    ranking = sensitivity.node_sensitivity(
        reference, quantized, sets.selection, report=_steps(say, "trying each node alone:")
    )
    mixed, kept, share = sensitivity.mixed_from(
        reference, quantized, ranking, sets.selection, target=recipe.target, say=say
    )
    if share < recipe.target:
        text = f"int8_mixed: even with all {len(kept)} quantized nodes back in float the network keeps {share:.2%}"
        raise ModelError(f"{text} of its accuracy on the selection frames, less than the target {recipe.target:.2%}")
    reasons = [{**row, "reason": "sensitive"} for row in ranking if row["node"] in kept]
    left = {"quantized": len(nodes) - len(kept), "selection": {**described(sets.selection), "kept": share}}
    return mixed, {"kept_float": reasons, "sensitivity": ranking, **left}


def _steps(say: Callable[[str], None], what: str) -> Callable[[int, int], None]:
    return lambda done, total: say(f"{what} {done}/{total}")


def _check_graph(path: Path, model: onnx.ModelProto) -> None:
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise ModelError(
            f"{path}: the compressed graph does not pass ONNX's checker, nothing is written: {error}"
        ) from error


def _written(
    model: Path,
    changed: onnx.ModelProto,
    recipe: Recipe,
    result: Mapping[str, Any],
    held: Samples,
    out: Path,
) -> Compressed:
    """Writes network, card and samples: all of them, or none."""
    import onnx

    metadata = {entry.key: entry.value for entry in changed.metadata_props}
    onnx.helper.set_model_props(changed, {**metadata, "saccade.recipe": recipe.name})
    data = changed.SerializeToString()
    digest = hashlib.sha256(data).hexdigest()
    card = {
        "schema": 1,
        "kind": "compressed",
        "network": out.name,
        "sha256": digest,
        "original": {"name": model.name, "sha256": hashlib.sha256(model.read_bytes()).hexdigest()},
        "recipe": {**asdict(recipe), "name": recipe.name},
        **result,
        "versions": _versions(),
    }
    kept = held.spread(KEPT_SAMPLES)
    files = {
        out: lambda path: path.write_bytes(data),
        out.with_name(f"{out.stem}.samples.npz"): lambda path: _save(path, kept),
        out.with_name(f"{out.stem}.card.json"): lambda path: path.write_text(
            json.dumps(card, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        ),
    }
    _write_together(files)
    fields = ("parameters", "multiply_adds", "checks", "latency", "calibration", "kept_float", "sensitivity")
    return Compressed(
        path=out,
        card=out.with_name(f"{out.stem}.card.json"),
        recipe=recipe,
        hash=digest,
        **{name: result[name] for name in fields if name in result},
    )


def _save(path: Path, samples: Samples) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **samples.inputs)  # type: ignore[arg-type]


def _write_together(files: Mapping[Path, Callable[[Path], Any]]) -> None:
    """Writes files beside each other and moves them to their places when all of them are there."""
    folder = next(iter(files)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".compress-", dir=folder))
    except OSError as error:
        raise ConfigurationError(f"{folder}: cannot be written: {error.strerror}; give another --out") from error
    try:
        for path, write in files.items():
            write(scratch / path.name)
        for path in files:
            (scratch / path.name).replace(path)
    except OSError as error:
        raise ConfigurationError(f"{folder}: cannot be written: {error.strerror}; give another --out") from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(scratch)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("onnx", "onnxruntime", "numpy")}
