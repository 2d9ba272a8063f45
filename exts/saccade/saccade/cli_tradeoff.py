"""``saccade tradeoff``: accuracy against latency of precisions, prunings and input sizes, and what to take."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from saccade.cli_options import ConfigurationArgument, DeviceOption, EngineOption, SetOption, Stopped, interruptible

NOTHING_FITS = 1
NOT_COMPLETE = 3
GATES = {"default": 0.99, "strict": 0.999}

EPILOG = (
    "Examples:\n\n- `saccade tradeoff warehouse`\n\n"
    "- `saccade tradeoff warehouse --precision fp32,fp16,int8 --prune none,2:4 --batch 1,16`\n\n"
    "- `saccade tradeoff warehouse --min-accuracy 0.92 --max-latency 30`\n\n"
    "- `saccade tradeoff warehouse --time-limit 280 --out sweep --json > result.json`, again until it is complete\n\n"
    "- `saccade tradeoff warehouse --device cuda --engine tensorrt --out sweep --prepare-only`\n\n"
    "- `saccade tradeoff warehouse --prune none,2:4 --pruned camera:2:4=camera-2to4-tuned.onnx`\n\n"
    "- `saccade tradeoff --merge sweep-camera --merge sweep-lidar --out sweep`\n\n"
    "- `saccade tradeoff --from docs/tradeoff/cpu.json --max-latency 5` asks a result, and measures nothing\n\n"
    "Exit status: 0, 1 where no candidate meets the limits, 3 where the sweep is not complete yet."
)


@interruptible
def tradeoff(
    configuration: ConfigurationArgument = "warehouse",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the sweep; the same one goes on with it.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", metavar="LIST", help="Such as `fp32,fp16,int8,int8_mixed`.")
    ] = None,
    prune: Annotated[str | None, typer.Option("--prune", metavar="LIST", help="Such as `none,2:4,channels`.")] = None,
    pruned: Annotated[
        list[str] | None,
        typer.Option(
            "--pruned", metavar="NETWORK:HOW=FILE", help="A network pruned elsewhere, `camera:2:4=FILE`; repeatable."
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="LIST", help="Further image sizes, such as `160x160,192x192`.")
    ] = None,
    batch: Annotated[str | None, typer.Option("--batch", metavar="LIST", help="Such as `1,16`.")] = None,
    network: Annotated[list[str] | None, typer.Option("--network", help="Only this network; repeatable.")] = None,
    scenes: Annotated[int | None, typer.Option("--scenes", min=1, metavar="N", help="Held-out layouts.")] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, metavar="N", help="Judged decisions per layout.")
    ] = None,
    calibration: Annotated[
        str | None, typer.Option("--calibration", metavar="SOURCE", help="For int8: .npz, folder, or recorded run.")
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option("--gate", metavar="SHARE", help="Of FP32's accuracy: `default` 0.99, `strict` 0.999, a number."),
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option("--min-accuracy", metavar="SHARE", help="Least accuracy, 0..1.")
    ] = None,
    max_latency: Annotated[
        float | None, typer.Option("--max-latency", metavar="MS", help="Largest p95 of the inference time [ms].")
    ] = None,
    max_memory: Annotated[
        float | None, typer.Option("--max-memory", metavar="MIB", help="Most GPU memory [MiB].")
    ] = None,
    max_energy: Annotated[
        float | None, typer.Option("--max-energy", metavar="J", help="Most energy per frame [J].")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="RESULT", help="Result to ask, instead of measuring.")
    ] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option("--merge", metavar="RESULT", help="Results that become one in `--out`; repeatable."),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option("--time-limit", min=1, metavar="S", help="Ends after so long; goes on next time [s]."),
    ] = None,
    prepare_only: Annotated[
        bool, typer.Option("--prepare-only", help="Makes scenes, samples and networks; needs no GPU, measures nothing.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forgets what was measured in the folder before.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Tries again what could not be made before.")] = False,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Goes into the result.")] = None,
    engine: EngineOption = None,
    device: DeviceOption = None,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as one JSON object on stdout.")] = False,
) -> None:
    """Measures candidates in the loop on held-out layouts, draws the Pareto front and says which to take.

    Every measurement is kept as it is made: a sweep that was stopped, killed or ran out of time goes on where it was.
    """
    from saccade.validation.recommendation import read_result, recommend

    share = _gate(gate)
    limits = {
        "min_accuracy": min_accuracy,
        "max_latency": max_latency,
        "max_memory_mib": max_memory,
        "max_energy_j": max_energy,
        "min_retention": share,
    }
    result: Mapping[str, Any]
    if merge:
        result, folder = _merged(merge, out)
    elif source is not None:
        result = read_result(source)
        folder = None
    else:
        changes = {
            "precisions": _list(precision),
            "pruning": _list(prune),
            "pruned": _pruned(pruned),
            "sizes": None if size is None else [_size(text) for text in _list(size) or ()],
            "batches": None if batch is None else [_whole(text, "--batch") for text in _list(batch) or ()],
            "networks": network,
            "scenes": scenes,
            "frames": frames,
            "calibration": calibration,
            "gate": share,
        }
        run = functools.partial(
            _measured, configuration, out, {k: v for k, v in changes.items() if v is not None},
            engine=engine, device=device, overrides=overrides, retry=retry, time_limit_s=time_limit,
        )  # fmt: skip
        if prepare_only:
            if fresh:
                raise typer.BadParameter("nothing is measured, so that there is nothing to forget: leave --fresh out")
            _show_prepared(*run(prepare=True), as_json=as_json)
            return
        result, folder = run(fresh=fresh, note=note)
    advice = [
        found
        for number in sorted({entry["batch"] for entry in result["candidates"]})
        for found in recommend(result, **limits, batch=number).values()  # type: ignore[arg-type]
        if not network or found.network in network
    ]
    _show(result, advice, folder, as_json=as_json)
    if not result.get("complete", True):
        raise typer.Exit(NOT_COMPLETE)
    if not all(found.satisfied for found in advice if found.batch == 1):
        raise typer.Exit(NOTHING_FITS)


def _measured(
    configuration: str,
    out: Path | None,
    changes: Mapping[str, Any],
    *,
    engine: Any,
    device: Any,
    overrides: Sequence[str] | None,
    prepare: bool = False,
    **options: Any,
) -> tuple[Mapping[str, Any], Path]:
    from saccade.benchmark.text import Progress
    from saccade.cli_output import stdout_kept_clean
    from saccade.configuration import load_configuration
    from saccade.validation.tradeoff import measure_tradeoff, prepare_tradeoff, with_tradeoff

    loaded = load_configuration(
        configuration,
        overrides=overrides or (),
        engine=engine.value if engine else None,
        device=device.value if device else None,
    )
    loaded = with_tradeoff(loaded, **changes)
    for name in loaded.config.networks:
        loaded.model_path(name)
    folder = out or Path("runs") / f"tradeoff-{loaded.name}"
    progress = Progress(sys.stderr)
    # A time limit from outside ends it in order, too.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with stdout_kept_clean(), contextlib.closing(progress):
            work = prepare_tradeoff if prepare else measure_tradeoff
            return work(loaded, out=folder, say=progress, **options), folder
    except KeyboardInterrupt:
        raise Stopped(f"stopped; what was measured is in {folder}, and the same command goes on with it") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _merged(places: Sequence[Path], out: Path | None) -> tuple[Mapping[str, Any], Path]:
    from saccade.errors import RecordError
    from saccade.reporting.tradeoff import write_result
    from saccade.validation.recommendation import read_result
    from saccade.validation.tradeoff_merge import merge_results

    if out is None:
        raise typer.BadParameter("say where the merged result goes: --out DIR", param_hint="--merge")
    result = merge_results({str(place): read_result(place) for place in places})
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"{out}: cannot be written: {error.strerror}; give another --out") from error
    write_result(out, result)
    return result, out


def _show_prepared(found: Mapping[str, Any], folder: Path, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        for key, file in found["models"].items():
            typer.echo(f"{key}: {file}")
    for key, reason in found["failed"].items():
        typer.echo(f"{key} cannot be made: {reason}", err=True)
    if not found["complete"]:
        typer.echo("the time limit was reached; the same command goes on", err=True)
        raise typer.Exit(NOT_COMPLETE)
    typer.echo(f"prepared in {folder}; the same command without --prepare-only measures, here or elsewhere", err=True)


def _show(result: Mapping[str, Any], advice: Sequence[Any], folder: Path | None, *, as_json: bool) -> None:
    from rich.console import Console

    from saccade.console_tradeoff import tradeoff_tables

    console = Console(stderr=as_json)
    for part in tradeoff_tables(result, width=console.width):
        console.print(part)
    for found in advice:
        for line in found.lines():
            typer.echo(line, err=as_json)
    if left := result.get("remaining"):
        text = ", ".join(f"{count} {what}" for what, count in left.items())
        typer.echo(f"not complete, there remain: {text}; the same command goes on", err=True)
    if folder is not None:
        typer.echo(f"report: {folder / 'tradeoff.html'}", err=True)
    if as_json:
        shown = {**result, "recommendations": [found.as_dict() for found in advice]}
        typer.echo(json.dumps(shown, indent=1, allow_nan=False))


def _gate(text: str | None) -> float | None:
    if text is None:
        return None
    if text in GATES:
        return GATES[text]
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise typer.BadParameter(
            f"expected default, strict or a share such as 0.995, got {text!r}", param_hint="--gate"
        )
    return value


def _pruned(entries: Sequence[str] | None) -> dict[str, dict[str, str]] | None:
    found: dict[str, dict[str, str]] = {}
    for entry in entries or ():
        what, equals, file = entry.partition("=")
        network, colon, how = what.partition(":")
        if not (network and colon and how and equals and file):
            raise typer.BadParameter(
                f"expected NETWORK:HOW=FILE such as camera:2:4=camera-sparse.onnx, got {entry!r}", param_hint="--pruned"
            )
        found.setdefault(network, {})[how] = file
    return found or None


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    return _whole(width, "--size"), _whole(height, "--size")


def _whole(text: str, option: str) -> int:
    if not text.isdigit():
        example = "160x160" if option == "--size" else "1,16"
        raise typer.BadParameter(f"expected whole numbers such as {example}, got {text!r}", param_hint=option)
    return int(text)
