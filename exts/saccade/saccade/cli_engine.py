"""``saccade engine``: builds, lists, checks, describes and profiles TensorRT engines."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saccade.cli_options import interruptible
from saccade.errors import ConfigurationError, DependencyError, EngineError

if TYPE_CHECKING:
    from saccade.engines.options import ShapeRange
    from saccade.engines.store import EngineStore, Entry, StoredPlan

QUIET_S = 5.0
"""Time between two lines of progress where they cannot overwrite each other [s]."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Builds TensorRT engines and looks after those that were built.\n\n"
    "`saccade validate` builds what it needs by itself, and finds what was built here with the same options.",
)


class Precision(str, Enum):
    """Arithmetic of an engine."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


DeviceOption = Annotated[str, typer.Option("--device", metavar="CUDA", help="GPU, such as `cuda` or `cuda:1`.")]
TargetArgument = Annotated[
    str, typer.Argument(metavar="ENGINE", help="Key, or its beginning, from `saccade engine list`; or a plan file.")
]
TrustOption = Annotated[
    str | None,
    typer.Option("--trust", metavar="SHA256", help="Takes in a plan that was not built here, if it has this hash."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command(
    epilog="Examples:\n\n- `saccade engine build camera.onnx`\n\n"
    "- `saccade engine build net.onnx --precision int8 --calibration samples.npz`\n\n"
    "- `saccade engine build net.onnx --min image:1x3x224x224 --opt image:4x3x224x224 --max image:16x3x224x224`"
)
@interruptible
def build(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="ONNX file, or the name of a shipped network.")],
    precision: Annotated[Precision, typer.Option("--precision", help="Arithmetic of the engine.")] = Precision.fp16,
    sparse: Annotated[bool, typer.Option("--sparse", help="Uses 2:4 sparsity where the weights have it.")] = False,
    minimum: Annotated[
        list[str] | None, typer.Option("--min", metavar="NAME:SHAPE", help="Smallest shape; missing = `--opt`.")
    ] = None,
    optimum: Annotated[
        list[str] | None, typer.Option("--opt", metavar="NAME:SHAPE", help="Shape to tune for; missing = `--max`.")
    ] = None,
    maximum: Annotated[
        list[str] | None, typer.Option("--max", metavar="NAME:SHAPE", help="Largest shape; missing = `--opt`.")
    ] = None,
    workspace: Annotated[
        int | None, typer.Option("--workspace", min=1, metavar="MIB", help="Scratch memory of a layer [MiB].")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", metavar="PATH", help="Samples for int8: .npz, or folder of .npy.")
    ] = None,
    optimization_level: Annotated[
        int | None, typer.Option("--optimization-level", min=0, max=5, help="How hard to search, where it can be said.")
    ] = None,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=1, metavar="S", help="Time after which it gives up [s].")
    ] = 1800.0,
    device: DeviceOption = "cuda:0",
    as_json: JsonOption = False,
) -> None:
    """Builds an engine, compares it with the network in FP32 and stores it; finds it where it is there already.

    A shape is written `1x3x224x224`, for networks with several inputs `NAME:1x3x224x224`, repeated for each.
    """
    from saccade import paths
    from saccade.engines.options import BuildOptions
    from saccade.engines.selection import qualification_text, qualified_plan

    path = paths.resolve(model, "model")
    options = BuildOptions(
        precision=precision.value,
        sparse=sparse,
        shapes=_ranges(path, minimum or (), optimum or (), maximum or ()),
        workspace=None if workspace is None else workspace * 2**20,
        calibration=calibration,
        optimization_level=optimization_level,
        time_limit=time_limit,
    )
    _require_tensorrt()
    with progress() as say:
        stored = qualified_plan(path, options, device=device, say=say)
    if as_json:
        _print_json({"key": stored.key, **stored.manifest})
        return
    typer.echo(stored.key)
    typer.echo(qualification_text(stored.manifest["qualification"]), err=True)


@app.command("list", epilog="Examples:\n\n- `saccade engine list`\n\n- `saccade engine list --json | jq '.[].key'`")
@interruptible
def engine_list(as_json: JsonOption = False) -> None:
    """Lists the engines that are stored here."""
    store = _store()
    entries = store.list()
    if as_json:
        _print_json([_row(entry) for entry in entries])
        return
    if not entries:
        typer.echo(f"no engines in {store.folder}", err=True)
    _print_table(("key", "network", "precision", "TensorRT", "GPU", "MiB", "created", ""), map(_cells, entries))


@app.command(
    epilog="Examples:\n\n- `saccade engine verify`\n\n- `saccade engine verify 1f3a`\n\n"
    "- `saccade engine verify robot.plan --trust SHA256` takes in a plan whose builder told you its hash"
)
@interruptible
def verify(
    target: Annotated[
        str | None, typer.Argument(metavar="[ENGINE]", help="Key or plan file; none = every stored engine.")
    ] = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Checks stored engines: hash of the plan, signature of the manifest.

    Exit status 0 where all are as they were stored, 1 where one would be refused.
    """
    store = _store()
    if trust is not None and target is None:
        raise ConfigurationError("--trust: say which plan: saccade engine verify PLAN --trust SHA256")
    if target is not None and (trust is not None or Path(target).is_file()):
        target = _stored(store, target, trust).key
    entries = store.verify(target)
    if as_json:
        _print_json([_row(entry) for entry in entries])
    else:
        for entry in entries:
            name = entry.manifest.get("name", "")
            typer.echo(f"{entry.key[:12]}  {name}  {'ok' if entry.problem is None else entry.problem}")
    raise typer.Exit(0 if all(entry.problem is None for entry in entries) else 1)


@app.command(epilog="Examples:\n\n- `saccade engine remove 1f3a`\n\n- `saccade engine remove --all`")
@interruptible
def remove(
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY...", help="Keys, or their beginnings.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every engine that is stored here.")] = False,
) -> None:
    """Removes engines; they are built again when they are needed."""
    store = _store()
    if bool(keys) == everything:
        raise ConfigurationError("say which engines to remove: keys from saccade engine list, or --all")
    for key in [entry.key for entry in store.list()] if everything else [store.resolve(key) for key in keys or ()]:
        typer.echo(store.remove(key))


@app.command(
    epilog="Examples:\n\n- `saccade engine inspect 1f3a`\n\n"
    "- `saccade engine inspect 1f3a --layers --json | jq .layers`"
)
@interruptible
def inspect(
    target: TargetArgument,
    layers: Annotated[bool, typer.Option("--layers", help="Opens it on the GPU and lists its layers.")] = False,
    device: DeviceOption = "cuda:0",
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows what an engine was built from and how far it is from FP32; with `--layers` also what it consists of."""
    stored = _stored(_store(), target, trust)
    shown: dict[str, Any] = {"key": stored.key, **stored.manifest}
    if layers:
        with _opened(stored, device) as engine:
            shown |= {"engine": engine.facts(), "layers": engine.layers()}
    if as_json:
        _print_json(shown)
        return
    for name, value in _lines(shown):
        typer.secho(name, bold=True, nl=False)
        typer.echo(f"  {value}")


@app.command(
    epilog="Examples:\n\n- `saccade engine profile 1f3a`\n\n- `saccade engine profile 1f3a --iterations 500 --json`"
)
@interruptible
def profile(
    target: TargetArgument,
    iterations: Annotated[int, typer.Option("--iterations", min=1, metavar="N", help="Measured runs.")] = 100,
    device: DeviceOption = "cuda:0",
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measures each layer of an engine on the GPU, by TensorRT's own profiler."""
    stored = _stored(_store(), target, trust)
    with _opened(stored, device) as engine:
        found = {"key": stored.key, "engine": engine.facts(), **engine.profile(iterations)}
    if as_json:
        _print_json(found)
        return
    rows = (
        (layer["name"], f"{layer['median_ms']:.4f}", "-" if layer["share"] is None else f"{layer['share']:.1%}")
        for layer in sorted(found["layers"], key=lambda layer: -layer["median_ms"])
    )
    _print_table(("layer", "median [ms]", "share"), rows)
    typer.echo(f"{found['total_ms']:.4f} ms in {len(found['layers'])} layers, {iterations} runs")


def _ranges(
    path: Path, minimum: Sequence[str], optimum: Sequence[str], maximum: Sequence[str]
) -> dict[str, ShapeRange]:
    """The shapes by input name; what one option leaves out is what the others say."""
    from saccade.engines.options import ShapeRange
    from saccade.engines.selection import declared_inputs

    if not (minimum or optimum or maximum):
        return {}
    inputs = declared_inputs(path)
    low, best, high = (
        _shapes(option, texts, inputs) for option, texts in (("--min", minimum), ("--opt", optimum), ("--max", maximum))
    )
    found = {}
    for name in dict.fromkeys((*low, *best, *high)):
        middle = best.get(name) or high.get(name) or low[name]
        found[name] = ShapeRange(low.get(name) or middle, middle, high.get(name) or middle)
    return found


def _shapes(
    option: str, texts: Sequence[str], inputs: Mapping[str, tuple[int | None, ...]]
) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, sizes = text.rpartition(":")
        if not name and len(inputs) == 1:
            name = next(iter(inputs))
        if name not in inputs:
            raise ConfigurationError(f"{option} {text}: expected NAME:1x3x224x224 with NAME one of {', '.join(inputs)}")
        parts = sizes.lower().split("x")
        if not all(part.isdigit() and int(part) for part in parts):
            raise ConfigurationError(f"{option} {text}: expected sizes such as 1x3x224x224, got {sizes!r}")
        found[name] = tuple(int(part) for part in parts)
        declared = inputs[name]
        if len(found[name]) != len(declared) or any(
            size not in (None, wanted) for size, wanted in zip(declared, found[name], strict=True)
        ):
            shape = "x".join("?" if size is None else str(size) for size in declared)
            raise ConfigurationError(f"{option} {text}: input {name!r} has shape {shape}; only ? can be chosen")
    return found


def _store() -> EngineStore:
    from saccade.engines.store import EngineStore

    return EngineStore()


def _stored(store: EngineStore, target: str, trust: str | None) -> StoredPlan:
    """The plan that a key or a file names, with its authentic manifest; ``trust`` makes it one."""
    path = Path(target)
    if path.is_file():
        if trust is not None:
            store.trust(path, trust)
        return store.trusted(path)
    if path.suffix:
        raise EngineError(f"{target}: there is no such plan file; keys are listed by  saccade engine list")
    key = store.resolve(target)
    if trust is not None:
        store.trust(store.plan_file(key), trust)
    stored = store.get(key)
    if stored is None:
        raise EngineError(f"engine {key[:12]} has no manifest. Remove it:  saccade engine remove {key[:12]}")
    return stored


@contextlib.contextmanager
def _opened(stored: StoredPlan, device: str) -> Iterator[Any]:
    _require_tensorrt()
    from saccade.engines.identity import Platform, check_platform
    from saccade.engines.selection import facts_of
    from saccade.engines.tensorrt import TensorRTEngine

    name = stored.manifest["name"] or stored.key[:12]
    check_platform(stored.manifest["parts"].get("platform", {}), Platform.here(device), name)
    engine = TensorRTEngine(stored.data, name_of=name, device=device, facts=facts_of(stored))
    try:
        yield engine
    finally:
        engine.close()


def _require_tensorrt() -> None:
    try:
        import tensorrt  # noqa: F401
    except (ImportError, OSError) as error:
        raise DependencyError(
            f"TensorRT does not import here ({error}): pip install tensorrt (the release that fits your driver)"
        ) from error


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Gives what a long call says a place: one line that changes in a terminal, few lines elsewhere; on stderr."""
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status("starting") as status:
            yield status.update
        return
    last = -QUIET_S

    def say(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= QUIET_S:
            typer.echo(text, err=True)
            last = time.monotonic()

    yield say


def _row(entry: Entry) -> dict[str, Any]:
    return {"key": entry.key, "problem": entry.problem, "manifest": entry.manifest or None}


def _cells(entry: Entry) -> tuple[str, ...]:
    parts = entry.manifest.get("parts", {})
    platform = parts.get("platform", {})
    size = entry.manifest.get("plan", {}).get("bytes")
    figures = entry.manifest.get("qualification")
    state = entry.problem and "refused, see: saccade engine verify"
    if state is None:
        state = "not compared yet" if figures is None else "" if figures.get("passed") else "too far from FP32"
    return (
        entry.key[:12],
        entry.manifest.get("name", ""),
        parts.get("options", {}).get("precision", ""),
        platform.get("tensorrt", ""),
        platform.get("gpu", ""),
        "" if size is None else f"{size / 2**20:.1f}",
        entry.manifest.get("created", ""),
        "foreign" if entry.manifest.get("foreign") and not entry.problem else state,
    )


def _print_table(titles: Sequence[str], rows: Any) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(escape(title), header_style="dim", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    if table.row_count:
        Console().print(table)


def _lines(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a nested mapping by dotted name; lists as JSON, those of mappings one item a line."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _lines(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, item in enumerate(value):
            yield f"{name}.{index}", json.dumps(item, ensure_ascii=False)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
