"""The command line: ``saccade validate`` and what goes with it."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saccade import __version__
from saccade.cli_adaptive import EPILOG as ADAPTIVE_EPILOG
from saccade.cli_adaptive import adaptive
from saccade.cli_compress import EXAMPLES as COMPRESS_EXAMPLES
from saccade.cli_compress import compress
from saccade.cli_config import app as config_app
from saccade.cli_engine import app as engine_app
from saccade.cli_node import node
from saccade.cli_options import (
    Architecture,
    ConfigurationArgument,
    ControllerOption,
    Device,
    DeviceOption,
    EngineOption,
    FramesOption,
    Layout,
    NameOption,
    Network,
    Ros2Option,
    SeedOption,
    SetOption,
    SimulatorOption,
    interruptible,
    ros2_overrides,
)
from saccade.cli_output import stdout_kept_clean
from saccade.cli_tradeoff import EPILOG as TRADEOFF_EPILOG
from saccade.cli_tradeoff import tradeoff
from saccade.errors import SaccadeError

if TYPE_CHECKING:
    from rich.console import Console

    from saccade.configuration import LoadedConfiguration

CRASHED = 70
"""Exit status of an unexpected error, as sysexits.h has it: neither a verdict nor wrong usage."""

app = typer.Typer(
    name="saccade",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Validates a humanoid's perception in the loop: how fast, how accurate and how safe it is, with evidence.\n\n"
    "**Start with** `saccade validate`; where something is missing, `saccade doctor` says what and how to get it.",
    epilog="Exit status: 0 PASS, 1 FAIL, 2 wrong usage or configuration, 3 INVALID (could not be judged).",
)
scenes_app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Makes scenes.")
app.add_typer(config_app, name="config")
app.add_typer(scenes_app, name="scenes")
app.add_typer(engine_app, name="engine")
app.command(epilog=COMPRESS_EXAMPLES)(compress)
app.command(
    epilog="Examples:\n\n- `saccade node camera.onnx` runs the shipped network on `/camera/image_raw`\n\n"
    "- `saccade node mine.onnx --topic /robot/head/image --set ros2.network=any`\n\n"
    "- `saccade node warehouse --topic head_camera=/cam/image_raw --topic lidar=/velodyne_points`\n\n"
    "- `saccade node mine.onnx --topic /depth/image --depth-max 5 --frames 100 --json`\n\n"
    "- `saccade node mine.onnx --bag drive.mcap --topic /front/image --bag-rate 0` runs on a recording"
)(node)
app.command(epilog=TRADEOFF_EPILOG)(tradeoff)
app.command(epilog=ADAPTIVE_EPILOG)(adaptive)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"saccade {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Shows the version and exits.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Examples:\n\n"
    "- `saccade validate` runs the warehouse\n\n"
    "- `saccade validate corridor --frames 100 --open`\n\n"
    "- `saccade validate my.yaml --set controller.cruise_speed=1.0 --set budgets.contacts=null`\n\n"
    "- `saccade validate --set record.sensors=true --name golden`, then\n"
    "  `saccade validate --simulator replay --set simulator.recording=runs/golden`\n\n"
    "- `saccade validate --json | jq .latency_ms.p95`"
)
@interruptible
def validate(
    configuration: ConfigurationArgument = "warehouse",
    frames: FramesOption = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder that runs go to.")] = Path("runs"),
    name: NameOption = None,
    simulator: SimulatorOption = None,
    engine: EngineOption = None,
    device: DeviceOption = None,
    seed: SeedOption = None,
    ros2: Ros2Option = False,
    controller: ControllerOption = None,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")] = False,
    open_report: Annotated[bool, typer.Option("--open", help="Opens the report in the browser.")] = False,
) -> None:
    """Runs the loop, judges it against its budgets and writes a report.

    Ends with `PASS`, `FAIL` or `INVALID` in one line; everything about the run is in its folder below `runs/`.
    """
    from saccade.configuration import load_configuration

    loaded = load_configuration(
        configuration,
        overrides=ros2_overrides(overrides, ros2=ros2, controller=controller),
        frames=frames,
        name=name,
        seed=seed,
        simulator=simulator.value if simulator else None,
        engine=engine.value if engine else None,
        device=device.value if device else None,
    )
    loaded.check_files()
    with stdout_kept_clean(True):
        summary = _run(loaded, out, quiet=as_json)
    directory = Path(summary["directory"])
    _show_outcome(summary, directory, as_json=as_json)
    if open_report:
        _open(directory / "report.html")
    raise typer.Exit(int(summary["exit_status"]))


def _run(loaded: LoadedConfiguration, out: Path, *, quiet: bool) -> dict[str, Any]:
    from saccade.validation.run import validate as run_validation

    console = None if quiet and not sys.stderr.isatty() else _stderr()
    try:
        return run_validation(loaded, out=out, console=console)
    except PermissionError as error:
        where = error.filename or out
        raise SaccadeError(f"{where}: {error.strerror}; give a folder that can be written to: --out DIR") from error
    except OSError as error:
        if error.errno in (28, 122):  # no space left, quota exceeded
            raise SaccadeError(
                f"{error.filename or out}: {error.strerror}; free some space or give --out DIR"
            ) from error
        raise


def _show_outcome(summary: dict[str, Any], directory: Path, *, as_json: bool) -> None:
    from saccade.console import outcome_table
    from saccade.validation.verdict import json_summary, last_line

    console = _stderr()
    for part in outcome_table(summary):
        console.print(part)
    report = directory / "report.html"
    if report.is_file():
        console.print(f"report: {report}", highlight=False, soft_wrap=True)
    line = last_line(summary, directory)
    if as_json:
        typer.echo(line, err=True)
        typer.echo(json.dumps(json_summary(summary, directory), allow_nan=False))
    else:
        typer.echo(line)


@app.command(
    epilog="Examples:\n\n- `saccade train camera`\n\n- `saccade train lidar --out mine --scenes 40 --time-limit 10`\n\n"
    "- `saccade validate --set networks.camera.model=models/camera.onnx` uses what was trained"
)
@interruptible
def train(
    network: Annotated[Network, typer.Argument(help="Which network.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the ONNX files and the card.")] = Path(
        "models"
    ),
    data_seed: Annotated[int, typer.Option("--data-seed", min=0, help="Chooses other layouts.")] = 0,
    scenes: Annotated[int | None, typer.Option("--scenes", min=1, metavar="N", help="Training layouts.")] = None,
    poses: Annotated[int | None, typer.Option("--poses", min=1, metavar="N", help="Samples per layout.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, metavar="N", help="Passes over the data.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of weights, order and augmentation.")] = 0,
    architecture: Annotated[
        Architecture, typer.Option("--architecture", help="What the network is built from.")
    ] = Architecture.separable,
    device: Annotated[Device, typer.Option("--device", help="Where it trains.")] = Device.auto,
    cache: Annotated[Path | None, typer.Option("--cache", metavar="DIR", help="Where rendered data is kept.")] = None,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=1, metavar="MIN", help="Rendering and training together [min].")
    ] = 40.0,
) -> None:
    """Renders its own dataset from randomised scenes, trains, and writes ONNX files and a model card."""
    from saccade.errors import DependencyError

    try:
        from saccade.models import training
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("saccade"):
            raise
        raise DependencyError(
            f"training needs {error.name}, which is not installed: "
            f"{sys.executable} -m pip install 'torch>=2.3' 'onnx>=1.16'"
        ) from error
    amounts: dict[str, Any] = {
        name: value for name, value in (("scenes", scenes), ("poses", poses)) if value is not None
    }
    result = training.train(
        network.value,
        output=out,
        data_seed=data_seed,
        epochs=epochs,
        seed=seed,
        device=device.value,
        cache=cache,
        time_limit_minutes=time_limit,
        architecture=architecture.value,
        **amounts,
    )
    for goal in result.goals:
        met = "met" if goal["met"] else "MISSED"
        typer.echo(
            f"{goal['title']}: {goal['value']:.4f} (goal {goal['comparison']} {goal['limit']:g}, {met})", err=True
        )
    typer.echo(str(result.model))


@scenes_app.command(
    "make",
    epilog="Examples:\n\n- `saccade scenes make --out scenes` makes the shipped scenes\n\n"
    "- `saccade scenes make --layout random --seed 7 --out mine`, then "
    "`saccade validate --set scene=mine/random_7.usda`",
)
@interruptible
def scenes_make(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the scenes and their textures.")] = Path(
        "scenes"
    ),
    layout: Annotated[Layout, typer.Option("--layout", help="Which scene.")] = Layout.all,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Layout, colours, light and people of the scene.")] = 0,
) -> None:
    """Makes the humanoid and the scenes around it: the same seed gives the same bytes."""
    from saccade.scenes.make import make_scenes

    for path in make_scenes(out, layout=layout.value, seed=seed):
        typer.echo(str(path))


@app.command(
    epilog="Examples:\n\n- `saccade bench`\n\n- `saccade bench --quick --only engines --only frame`\n\n"
    "- `saccade bench --json > h100.json`\n\n- `saccade bench corridor --device cpu --frames 300`"
)
@interruptible
def bench(
    configuration: ConfigurationArgument = "warehouse",
    frames: Annotated[int, typer.Option("--frames", min=20, metavar="N", help="Decisions of the loop.")] = 150,
    quick: Annotated[bool, typer.Option("--quick", help="Few runs: to see that it works, not to report.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="GROUP",
            help="`engines`, `frame`, `preprocess`, `cameras`, `recorder`, `bridge` or `loop`; repeatable.",
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=1, metavar="S", help="For measuring; builds are not counted [s].")
    ] = 200.0,
    engine: EngineOption = None,
    device: DeviceOption = None,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")] = False,
) -> None:
    """Measures the loop against what it cannot do without, in one process, and prints ratios.

    Exit status 3 where a measurement was not valid; its figures are not shown.
    """
    from saccade.benchmark.suite import bench as measure
    from saccade.benchmark.text import Progress, bench_lines
    from saccade.configuration import load_configuration

    loaded = load_configuration(
        configuration,
        overrides=overrides or (),
        engine=engine.value if engine else None,
        device=device.value if device else None,
    )
    loaded.check_files()
    progress = Progress(sys.stderr)
    # Whoever ends it from outside, such as a time limit, gets what was measured until then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with stdout_kept_clean(as_json), contextlib.closing(progress):
        result = measure(loaded, frames=frames, quick=quick, only=only or (), time_limit_s=time_limit, say=progress)
    if as_json:
        typer.echo(json.dumps(result, indent=2, allow_nan=False))
    else:
        for line in bench_lines(result):
            typer.echo(line)
    if result["invalid"]:
        raise typer.Exit(3)


@app.command(epilog="Example: `saccade report runs/latest --open`")
@interruptible
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder of a run, such as `runs/latest`.")],
    open_report: Annotated[bool, typer.Option("--open", help="Opens it in the browser.")] = False,
) -> None:
    """Rebuilds the report of a run from its record alone."""
    from saccade.errors import RecordError
    from saccade.paths import display

    folder = _run_folder(run)
    if not (folder / "run.json").is_file():
        here = sorted(entry.parent.name for entry in Path("runs").glob("*/run.json")) if Path("runs").is_dir() else []
        known = f" Runs in runs/: {', '.join(here)}." if here else ""
        raise RecordError(f"{display(run)}: no run.json there: this is no folder of a run.{known}")
    from saccade.reporting.html import write_report

    written = write_report(folder)
    path = written if isinstance(written, Path) else folder / "report.html"
    typer.echo(str(path))
    if open_report:
        _open(path)


def _run_folder(run: Path) -> Path:
    """Follows ``runs/latest`` where it is a text file with the path, because links are not allowed."""
    if run.is_file() and run.name == "latest":
        return run.parent / run.read_text(encoding="utf-8").strip()
    return run


@app.command(epilog="Examples:\n\n- `saccade doctor`\n\n- `saccade doctor --json | jq .ready`")
@interruptible
def doctor(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder that runs go to.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Says what is installed, what is missing for which use, and the command that fixes it.

    Exit status 0 where `saccade validate` can run, 1 where it cannot.
    """
    from saccade import doctor as examination

    checks = examination.examine(out)
    if as_json:
        typer.echo(json.dumps(examination.as_dict(checks), indent=2))
    else:
        from rich.console import Console

        from saccade.console import doctor_tables

        console = Console(soft_wrap=False)
        for part in doctor_tables(checks):
            console.print(part)
    raise typer.Exit(0 if examination.is_ready(checks) else 1)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and leaves with its exit status; no traceback reaches a user."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without UTF-8 must not end a run
            stream.reconfigure(errors="replace")
    sys.exit(_status(arguments))


def _status(arguments: list[str] | None) -> int:
    try:
        app(args=arguments)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 0 if leave.code is None else 1
    except SaccadeError as error:
        _say_error(str(error))
        return error.exit_status
    except Exception as error:
        _say_error(
            f"unexpected {type(error).__name__}: {str(error)[:300]}\n"
            f"This is a fault of Saccade, not yours. The details are in {_traceback_file()}"
        )
        return CRASHED
    return 0


def _traceback_file() -> str:
    text = f"saccade {__version__}, {' '.join(sys.argv)}\n{traceback.format_exc()}"
    with (
        contextlib.suppress(OSError),
        tempfile.NamedTemporaryFile(
            "w", prefix=time.strftime("saccade-%Y%m%d-%H%M%S-"), suffix=".log", delete=False, encoding="utf-8"
        ) as file,
    ):
        file.write(text)
        return file.name
    return f"what follows:\n{text}"


def _say_error(text: str) -> None:
    typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(text, err=True)


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _open(path: Path) -> None:
    import webbrowser

    if path.is_file() and not webbrowser.open(path.resolve().as_uri()):
        typer.echo(f"no browser could be opened; the report is {path}", err=True)


if __name__ == "__main__":
    main()
