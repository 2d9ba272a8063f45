"""``saccade compress``: half or int8 arithmetic and pruning of an ONNX network, judged on held-out frames."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saccade.cli_engine import progress
from saccade.cli_options import Device, interruptible
from saccade.errors import ConfigurationError

if TYPE_CHECKING:
    from saccade.precision.compress import Compressed


class Precision(str, Enum):
    """Arithmetic of the result."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"
    int8_mixed = "int8_mixed"


class Prune(str, Enum):
    """What is taken away."""

    none = "none"
    l1 = "l1"
    channels = "channels"
    two_to_four = "2:4"


class Method(str, Enum):
    """How int8 ranges follow from samples."""

    minmax = "minmax"
    entropy = "entropy"
    percentile = "percentile"


USUAL, MANY = 500, 390
"""Calibration frames that are usual, and fewer than which is worth a word: a fifth may have been held out."""

EXAMPLES = (
    "Examples:\n\n- `saccade compress camera.onnx --precision int8`\n\n"
    "- `saccade compress mine.onnx --precision int8_mixed --calibration pictures/`\n\n"
    "- `saccade compress mine.onnx --precision fp16 --calibration runs/golden` takes frames recorded with "
    "`--set record.sensors=true`\n\n"
    "- `saccade compress camera.onnx --prune channels --amount 0.25 --fine-tune 10`"
)


@interruptible
def compress(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="ONNX file, or the name of a shipped network.")],
    precision: Annotated[Precision, typer.Option("--precision", help="Arithmetic.")] = Precision.fp32,
    prune: Annotated[
        Prune, typer.Option("--prune", help="Single weights, whole channels, or two of every four weights.")
    ] = Prune.none,
    amount: Annotated[
        float | None, typer.Option("--amount", metavar="SHARE", help="Share to prune: l1 0.5, channels 0.25.")
    ] = None,
    calibration: Annotated[
        str,
        typer.Option(
            "--calibration",
            metavar="SOURCE",
            help="`simulator`; or a recorded run, a folder of images or .npy, a .npz, a rendered dataset.",
        ),
    ] = "simulator",
    evaluation: Annotated[
        str | None,
        typer.Option("--evaluation", metavar="SOURCE", help="Held-out frames; missing = a part of the calibration's."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Result; missing = MODEL-RECIPE.onnx, here.")
    ] = None,
    method: Annotated[Method, typer.Option("--method", help="How int8 ranges are chosen.")] = Method.percentile,
    percentile: Annotated[float, typer.Option("--percentile", metavar="%", help="Share a range holds [%].")] = 99.99,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", metavar="NODE", help="Operator or node left as it is; repeatable.")
    ] = None,
    target: Annotated[
        float, typer.Option("--target", metavar="SHARE", help="Accuracy that int8_mixed keeps, of the original's.")
    ] = 0.99,
    fine_tune: Annotated[
        float, typer.Option("--fine-tune", min=0, metavar="MIN", help="Training after pruning [min]; needs torch.")
    ] = 0.0,
    fine_tune_device: Annotated[
        Device, typer.Option("--fine-tune-device", help="Where to train; auto = a GPU where torch has one.")
    ] = Device.auto,
    samples: Annotated[int, typer.Option("--samples", min=2, metavar="N", help="Most calibration frames.")] = 500,
    allow_few: Annotated[bool, typer.Option("--allow-few", help="Takes fewer than 100 frames.")] = False,
    mean: Annotated[
        str | None, typer.Option("--mean", metavar="R,G,B", help="Of images scaled to 0..1; missing = ImageNet's.")
    ] = None,
    std: Annotated[str | None, typer.Option("--std", metavar="R,G,B", help="Likewise.")] = None,
    bgr: Annotated[bool, typer.Option("--bgr", help="The network takes images as BGR.")] = False,
    cache: Annotated[Path | None, typer.Option("--cache", metavar="DIR", help="Where rendered data is kept.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of fine-tuning.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The card, as JSON.")] = False,
) -> None:
    """Compresses a network, compares it with the original on held-out frames and writes it with its card.

    A result that gives NaN or has collapsed is refused, and nothing is left behind. Without labels, as for your own
    frames, agreement with the original is measured; on the simulator's frames also accuracy.
    """
    from saccade import paths
    from saccade.models.dataset import IMAGE_MEAN, IMAGE_STD
    from saccade.precision.compress import Recipe
    from saccade.precision.compress import compress as compressed_from
    from saccade.precision.sources import ImagePreparation

    recipe = Recipe(
        precision=precision.value,
        prune=prune.value,
        amount=amount,
        method=method.value,
        percentile=percentile,
        keep=tuple(keep or ()),
        target=target,
        fine_tune_minutes=fine_tune,
        fine_tune_device=fine_tune_device.value,
        seed=seed,
    )
    if precision is Precision.fp32 and prune is Prune.none:
        raise ConfigurationError("nothing to do: say --precision fp16, int8 or int8_mixed, or --prune")
    path = paths.resolve(model, "model")
    target_file = out or Path(f"{path.stem}-{recipe.name}.onnx")
    if target_file.suffix != ".onnx":
        raise ConfigurationError(f"--out {target_file}: expected a name that ends in .onnx")
    if target_file.resolve() == path.resolve():
        raise ConfigurationError(f"--out {target_file}: is the original itself; give another name")
    preparation = ImagePreparation(
        _three("--mean", mean, IMAGE_MEAN), _three("--std", std, IMAGE_STD), "bgr" if bgr else "rgb"
    )
    with progress() as say:
        result = compressed_from(
            path,
            recipe,
            calibration=calibration,
            evaluation=evaluation,
            out=target_file,
            allow_few=allow_few,
            count=samples,
            cache=cache,
            preparation=preparation,
            say=say,
        )
    if as_json:
        typer.echo(json.dumps(json.loads(result.card.read_text(encoding="utf-8")), indent=1, allow_nan=False))
        return
    for line in summary_lines(result):
        typer.echo(line, err=True)
    typer.echo(str(result.path))


def summary_lines(result: Compressed) -> list[str]:
    """Returns what a reader wants to know about a result first."""
    parameters, work, latency = result.parameters, result.multiply_adds, result.latency
    lines = [
        f"parameters {parameters['before']['total']:,} -> {parameters['after']['total']:,} "
        f"({parameters['after']['nonzero']:,} not zero), multiply-adds {work['before'] / 1e6:.1f} M -> "
        f"{work['after'] / 1e6:.1f} M",
        f"latency on this CPU, both in turn: {latency['ratio']:.2f} of the original's ({latency['runs']} runs)",
    ]
    held = result.checks["evaluation"]["samples"]
    agreement = result.checks["agreement"]["label_agreement"]
    if agreement is not None:
        lines.append(f"labels equal to the original's on {held} held-out frames: {agreement:.2%}")
    if result.retention is not None:
        scores = result.checks["accuracy"]
        lines.append(
            f"mIoU against the truth {scores['original']['miou']:.4f} -> {scores['compressed']['miou']:.4f}, "
            f"{result.retention:.2%} of it"
        )
    calibrated = result.calibration["samples"] if result.calibration else 0
    if result.recipe.precision.startswith("int8") and calibrated < MANY:
        lines.append(f"calibrated on {calibrated} frames: some {USUAL} are usual, ranges may hang on chance")
    if result.kept_float:
        names = [str(entry.get("node") or entry.get("tensor")) for entry in result.kept_float]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        lines.append(f"left in float: {', '.join(names[:5])}{more}")
    return lines


def _three(option: str, text: str | None, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if text is None:
        return default
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigurationError(f"{option} {text}: expected three numbers such as 0.5,0.5,0.5") from error
    if option == "--std" and min(red, green, blue) <= 0:
        raise ConfigurationError(f"{option} {text}: expected numbers above 0")
    return red, green, blue
