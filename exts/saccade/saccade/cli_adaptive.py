"""``saccade adaptive``: the precision that adapts to real load, against each fixed one."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from saccade.cli_options import ConfigurationArgument, DeviceOption, EngineOption, SetOption, Stopped, interruptible

EPILOG = (
    "Examples:\n\n- `saccade adaptive warehouse --precision fp32,fp16`\n\n"
    "- `saccade adaptive warehouse --tradeoff runs/tradeoff-warehouse`, which has the networks for INT8\n\n"
    "- `saccade adaptive warehouse --device cuda --tradeoff sweep --frames 240 --json > adaptive.json`\n\n"
    "In a run: `saccade validate --set engine.adaptive.tradeoff=runs/tradeoff-warehouse`"
)


class LoadKind(str, Enum):
    """Values of ``--load``."""

    process = "process"
    stream = "stream"


@interruptible
def adaptive(
    configuration: ConfigurationArgument = "warehouse",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the experiment; the same one goes on.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", metavar="LIST", help="Most accurate first, such as `fp32,fp16,int8`.")
    ] = None,
    tradeoff: Annotated[
        str | None, typer.Option("--tradeoff", metavar="DIR", help="Sweep with networks and measured accuracies.")
    ] = None,
    recording: Annotated[
        Path | None, typer.Option("--recording", metavar="DIR", help="Recorded run; none = a held-out layout.")
    ] = None,
    frames: Annotated[int, typer.Option("--frames", min=72, metavar="N", help="Decisions of each run.")] = 300,
    rate: Annotated[float, typer.Option("--rate", min=0.1, metavar="HZ", help="Decisions per second.")] = 10.0,
    workers: Annotated[int | None, typer.Option("--workers", min=1, metavar="N", help="Of the load.")] = None,
    load: Annotated[
        LoadKind, typer.Option("--load", help="Other processes, or on a GPU streams of the same process.")
    ] = LoadKind.process,
    floor: Annotated[
        float | None, typer.Option("--floor", min=0.01, max=1, metavar="SHARE", help="Of FP32's accuracy to keep.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forgets what was finished in the folder before.")] = False,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Goes into the result.")] = None,
    engine: EngineOption = None,
    device: DeviceOption = None,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as one JSON object on stdout.")] = False,
) -> None:
    """Runs the same recorded frames with each fixed precision and with the adaptive choice, load in the middle third.

    The deadline is fixed first: 1.2 times the p95 of FP32 without load. Shows load, precision, latency and accuracy.
    """
    from saccade.benchmark.text import Progress
    from saccade.cli_output import stdout_kept_clean
    from saccade.configuration import load_configuration
    from saccade.reporting.adaptive import adaptive_lines
    from saccade.validation.adaptive_experiment import run_experiment

    listed = precision and f"[{precision}]"
    fields: dict[str, Any] = {"precisions": listed, "tradeoff": tradeoff, "accuracy_floor": floor}
    changes = [f"engine.adaptive.{name}={value}" for name, value in fields.items() if value is not None]
    loaded = load_configuration(
        configuration,
        # The section has to be there before its fields can be set one by one.
        overrides=["engine.adaptive={}", *(overrides or ()), *changes],
        engine=engine.value if engine else None,
        device=device.value if device else None,
    )
    folder = out or Path("runs") / f"adaptive-{loaded.name}"
    progress = Progress(sys.stderr)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with stdout_kept_clean(), contextlib.closing(progress):
            result = run_experiment(
                loaded, out=folder, recording=recording, frames=frames, rate=rate, workers=workers,
                load_kind=load.value, fresh=fresh, note=note, say=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise Stopped(f"stopped; finished runs are in {folder}, and the same command goes on with it") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    for line in adaptive_lines(result):
        typer.echo(line, err=as_json)
    typer.echo(f"report: {folder / 'adaptive.html'}", err=True)
    if as_json:
        typer.echo(json.dumps(result, indent=1, allow_nan=False))
