"""Whole runs on the real thing for the end-to-end tests: a small scene, small networks, and how to start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tests.onnx_models import camera_network, lidar_network
from tests.simulators.robots import walker_scene

if TYPE_CHECKING:
    from saccade.telemetry.record import Record

CHANNELS, COLUMNS = 4, 64
"""Of the LiDAR."""

LENIENT = {"latency_p95_ms": None, "deadline_miss_rate": 1.0, "dropped": 0, "stale": 0, "contacts": 1000}
"""Budgets that any sound run meets, on a machine that does other things at the same time as well."""

WALL_CLOCK = ("stamps", "latency_ms", "inference_ms")
"""Fields of a frame that no run can repeat."""


def configuration(**changes: Any) -> dict[str, Any]:
    """Returns a run of a walker with a tiny camera and LiDAR, both read by a network.

    Args:
        changes: By section; they are merged, and ``None`` takes a field away.
    """
    document: dict[str, Any] = {
        "description": "A walker on a floor before a wall.",
        "scene": "room.usda",
        "simulator": {"backend": "newton", "device": "cpu", "substeps": 1},
        "sensors": {
            "eye": {"kind": "camera", "prim": "eye", "width": 32, "height": 32, "rate": 10},
            "lidar": {"kind": "lidar", "prim": "lidar", "channels": CHANNELS, "columns": COLUMNS, "rate": 10},
        },
        "networks": {
            "camera": {
                "model": "camera.onnx",
                "inputs": {"image": {"kind": "image", "sensor": "eye"}},
                "decoder": {"labels": "labels", "hazard": "hazard"},
            },
            "lidar": {
                "model": "lidar.onnx",
                "inputs": {"range_image": {"kind": "range_image", "sensor": "lidar"}},
                "decoder": {"labels": "labels", "clearance": "clearance"},
            },
        },
        "engine": {"backend": "onnxruntime", "threads": 1},
        "run": {"frames": 10, "warmup": 2, "deadline_ms": 1000},
        "record": {"samples": 2, "flush_ms": 50},
        "budgets": dict(LENIENT),
    }
    return _merged(document, changes)


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        known = base.get(key)
        if value is None:
            base.pop(key, None)
            continue
        base[key] = _merged(known, value) if isinstance(value, Mapping) and isinstance(known, dict) else value
    return base


def make_folder(folder: Path) -> Path:
    """Writes ``run.yaml`` with its scene and its networks."""
    folder.mkdir(parents=True, exist_ok=True)
    walker_scene(folder / "room.usda")
    camera_network(folder / "camera.onnx", size=(16, 16))
    lidar_network(folder / "lidar.onnx", channels=CHANNELS, columns=COLUMNS)
    return write_configuration(folder / "run.yaml").parent


def write_configuration(path: Path, **changes: Any) -> Path:
    """Writes a configuration; scene and networks are those beside it."""
    path.write_text(yaml.safe_dump(configuration(**changes), sort_keys=False), encoding="utf-8")
    return path


def run_here(
    folder: Path, out: Path, *overrides: str, frames: int | None = None, simulator: str | None = None
) -> dict[str, Any]:
    """Runs ``run.yaml`` of ``folder`` in this process."""
    from saccade.configuration import load_configuration
    from saccade.validation.run import validate

    loaded = load_configuration(folder / "run.yaml", overrides=overrides, frames=frames, simulator=simulator)
    loaded.check_files()
    return validate(loaded, out=out)


def command(*arguments: str | Path) -> list[str]:
    """Returns the command line of ``saccade`` as a user starts it."""
    return [sys.executable, "-m", "saccade", *map(str, arguments)]


def spawn(
    *arguments: str | Path, cwd: Path, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs ``saccade`` in a process of its own to its end."""
    return subprocess.run(
        command(*arguments), cwd=cwd, capture_output=True, text=True, check=False, timeout=120,
        env=environment(), preexec_fn=before,
    )  # fmt: skip


def environment() -> dict[str, str]:
    """Returns the environment of a spawned ``saccade``: a plain terminal of a known width."""
    return {**os.environ, "COLUMNS": "120", "TERM": "dumb", "PYTHONUNBUFFERED": "1"}


class Running:
    """A ``saccade`` process that tests send signals to.

    Args:
        arguments: Of ``saccade``.
        cwd: Working folder.
    """

    def __init__(self, *arguments: str | Path, cwd: Path) -> None:
        self.process = subprocess.Popen(
            command(*arguments), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(), start_new_session=True,
        )  # fmt: skip
        self.stderr = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.stderr += line

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def wait_for(self, condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
        """Waits until ``condition`` holds while the process lives."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.stderr}"
            assert time.monotonic() < end, f"it did not come to that: {self.stderr}"
            time.sleep(0.005)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def end(self, *, seconds: float = 60.0) -> tuple[int, str, str]:
        """Waits for the end and returns exit status, stdout and stderr."""
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        status = self.process.wait(seconds)
        self._reader.join(10)
        return status, out, self.stderr


def frames_of(directory: Path) -> list[dict[str, Any]]:
    """Returns the frames of a record, read as plain lines and not by the package that wrote them."""
    return [line for line in lines_of(directory) if line["kind"] == "frame"]


def lines_of(directory: Path) -> list[dict[str, Any]]:
    """Returns the whole lines of a record; a last line without its end is left out."""
    text = (directory / "frames.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def repeatable(frames: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns frames without what the wall clock decides."""
    return [{key: value for key, value in frame.items() if key not in WALL_CLOCK} for frame in frames]


def run_document(directory: Path) -> dict[str, Any]:
    """Returns ``run.json``."""
    return json.loads((directory / "run.json").read_text(encoding="utf-8"))


def assert_nothing_left(out: Path) -> None:
    """Only the former run is there, whole, and ``latest`` points at it."""
    assert sorted(entry.name for entry in out.iterdir()) == ["former", "latest"]
    assert (out / "latest").resolve() == (out / "former").resolve()
    assert run_document(out / "former")["state"] == "finished"


def assert_losses_are_named(record: Record) -> None:
    """Every line that is there is whole and in order, and a record says so where one is missing in between.

    A line that finds no room is left out, and a shorter one after it may still find some.
    """
    indices = [frame["index"] for frame in record.frames]
    assert indices and indices == sorted(set(indices))
    assert not any("broken" in problem for problem in record.problems), record.problems
    missing = indices[-1] + 1 - len(indices)
    assert record.lost >= missing
    if missing:
        assert any("lost" in problem for problem in record.problems), record.problems
