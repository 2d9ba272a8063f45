"""TensorRT plans built in a child process, so that a time limit, Ctrl-C or a crash ends the build and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade import errors
from saccade.engines.build_worker import options_to_json
from saccade.engines.options import BuildOptions
from saccade.errors import EngineError, ModelError, SaccadeError

_POLL = 0.1
"""Longest time between two looks at the child [s]."""
_GRACE = 2.0
"""Time that the child has to end after it was asked to [s]."""
_LOG_LINES = 12


class BuildCancelled(EngineError):
    """The build was ended on request; nothing of it is left."""


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """A serialized engine."""

    data: bytes
    facts: dict[str, Any]
    """TensorRT version, ``build_s``, the route to the precision, layers, flags, tactic sources, timing cache."""


def quiet(text: str) -> None:
    """Says nothing."""


def never() -> bool:
    """Is never cancelled."""
    return False


def plan_from_onnx(
    path: Path | str,
    options: BuildOptions,
    *,
    timing_cache: Path | None = None,
    say: Callable[[str], None] = quiet,
    cancelled: Callable[[], bool] = never,
    graph: bytes | None = None,
    device: str = "cuda:0",
) -> BuiltPlan:
    """Builds a TensorRT plan and waits for it.

    TensorRT 8.5 cannot be stopped, and where the GPU's memory runs out it may take its process along: it works in a
    child. Whatever ends this call early, also a signal, ends the child; of an unfinished build no file is left.

    Args:
        path: ONNX file.
        options: What to build, and how long it may take.
        timing_cache: File that measured kernel times are read from and added to; replaced whole.
        say: Told every second how long it has taken, and of each phase where TensorRT reports them.
        cancelled: Asked ten times per second whether to stop.
        graph: The network instead of what stands in ``path``; weights in other files are still found from ``path``.
        device: GPU to build on and for.

    Raises:
        BuildCancelled: ``cancelled`` said so.
        ModelError: The network cannot be built; the text names operator and node.
        DependencyError: TensorRT, its driver or a package is missing.
        EngineError: The time limit passed, memory ran out, or the builder crashed.
    """
    path = Path(path).absolute()
    if not path.is_file() and graph is None:
        raise ModelError(f"{path}: no such network. Check networks.*.model")
    with tempfile.TemporaryDirectory(prefix="saccade-build-") as name:
        folder = Path(name)
        if graph is not None:
            (folder / "graph.onnx").write_bytes(graph)
        read, write = os.pipe()
        try:
            request = {
                "onnx": str(path),
                "options": options_to_json(options),
                "timing_cache": None if timing_cache is None else str(Path(timing_cache).absolute()),
                "channel": write,
            }
            (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
            child = _start(folder, write, device)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        try:
            with open(read, "rb", buffering=0) as channel:
                _wait(child, channel.fileno(), path, options, say, cancelled)
        finally:
            _end(child)
        return _result(folder, child.returncode, path)


def _start(folder: Path, channel: int, device: str) -> subprocess.Popen[bytes]:
    """Starts the child in a session of its own, so that Ctrl-C reaches this process, which then ends it."""
    environment = dict(os.environ)
    # The child finds what this process finds, whoever extended its path.
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    environment["CUDA_VISIBLE_DEVICES"] = _visible(environment.get("CUDA_VISIBLE_DEVICES"), device)
    command = [_interpreter(), "-m", "saccade.engines.build_worker", str(folder)]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(channel,),
            start_new_session=True,
            env=environment,
        )


def _visible(now: str | None, device: str) -> str:
    """Returns the one GPU that the child sees, as its first: what this process calls ``device``."""
    _, _, number = device.partition(":")
    index = int(number or 0)
    seen = [entry.strip() for entry in (now or "").split(",") if entry.strip()]
    if not seen:
        return now if now == "" else str(index)
    return seen[index] if index < len(seen) else str(index)


def _interpreter() -> str:
    """Returns the Python that can run the child; inside an application that embeds Python, the one beside it."""
    if Path(sys.executable).name.startswith("python"):
        return sys.executable
    for name in ("python3", "python"):
        beside = Path(sys.prefix) / "bin" / name
        if beside.exists():
            return str(beside)
    raise EngineError(
        f"engines are built by a Python of their own, and {sys.executable or 'this application'} is none: build with "
        "`saccade engine build` in a terminal first"
    )


def _wait(
    child: subprocess.Popen[bytes],
    channel: int,
    path: Path,
    options: BuildOptions,
    say: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> None:
    """Waits for the child to end; says what it does and for how long."""
    started = time.monotonic()
    phase, pending, next_word = "starting", b"", 1.0
    is_open = True
    while child.poll() is None:
        if is_open:
            ready, _, _ = select.select([channel], [], [], _POLL)
            if ready:
                data = os.read(channel, 65536)
                is_open = bool(data)
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    phase = line.decode("utf-8", "replace")
                    say(f"{path.name}: {phase}")
        else:
            time.sleep(_POLL)
        elapsed = time.monotonic() - started
        if cancelled():
            raise BuildCancelled(f"{path}: the {options.precision} build was cancelled after {elapsed:.0f} s")
        if options.time_limit is not None and elapsed > options.time_limit:
            raise EngineError(
                f"{path}: no {options.precision} engine was built within {options.time_limit:g} s (last: {phase}): "
                "allow more with --time-limit, or build another --precision"
            )
        if elapsed >= next_word:
            next_word = float(int(elapsed) + 1)
            say(f"{path.name}: {options.precision} engine, {elapsed:.0f} s: {phase}")


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends the child and what it started, if it still runs."""
    if child.poll() is not None:
        return
    for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        try:
            child.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue


def _result(folder: Path, status: int, path: Path) -> BuiltPlan:
    """Returns what the child left, or raises what it reported."""
    file = folder / "result.json"
    if status != 0 or not file.exists():
        remedy = "Memory is the usual reason: a smaller --workspace or --max shape may help. " if status < 0 else ""
        said = _tail(folder / "log")
        raise EngineError(f"{path}: the builder ended {_ending(status)}. {remedy}It last said:\n{said}")
    result = json.loads(file.read_text(encoding="utf-8"))
    if "error" in result:
        kind = getattr(errors, result["error"], EngineError)
        raise (kind if issubclass(kind, SaccadeError) else EngineError)(result["text"])
    return BuiltPlan((folder / "plan").read_bytes(), result["facts"])


def _ending(status: int) -> str:
    if status < 0:
        try:
            return f"by signal {signal.Signals(-status).name}"
        except ValueError:
            return f"by signal {-status}"
    return f"with status {status}"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    return "\n".join(f"  {line}" for line in lines) or "  (nothing)"
