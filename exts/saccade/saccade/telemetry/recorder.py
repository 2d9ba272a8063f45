"""Recorder: one JSON line per frame through a writer thread that never holds up the loop; and run folders."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from saccade.errors import RecordError
from saccade.telemetry.record import Record, read_frames
from saccade.telemetry.schema import FRAMES_FILE

__all__ = ["Record", "Recorder", "finite", "latest_directory", "read_frames", "run_directory", "write_atomic"]

CAPACITY = 4096
"""Records that may wait for the disk; at 10 Hz and two sensors more than three minutes of a disk that hangs."""
CLOSE_TIMEOUT_S = 30.0
"""How long :meth:`Recorder.close` waits for a disk that hangs."""


class Recorder:
    """Writes ``frames.jsonl`` of one run.

    :meth:`put` only appends to a bounded queue; a thread turns records into JSON and hands them to the operating
    system at least every ``flush_ms``, so that a killed process loses at most that. A record that finds the queue
    full, or cannot be written, is lost: it is counted, and nothing is raised into the loop.

    Args:
        directory: The run's folder; it exists.
        header: First line, without non-finite numbers.
        flush_ms: Longest time from :meth:`put` until the record is with the operating system [ms].
        capacity: Records that may wait.

    Raises:
        RecordError: The folder cannot be written or holds a record already.
    """

    def __init__(
        self, directory: Path | str, header: dict[str, Any], *, flush_ms: float = 100.0, capacity: int = CAPACITY
    ) -> None:
        self.path = Path(directory) / FRAMES_FILE
        self.failure: str | None = None
        """Why records are being lost; ``None`` as long as all is well. The loop ends the run when it is set."""
        self._capacity = capacity
        self._queue: deque[dict[str, Any]] = deque()
        self._offset = 0
        self._written = 0
        self._refused = 0
        self._unwritten = 0
        self._puts = 0
        self._hand_over_ns = 0
        self._hand_over_max_ns = 0
        self._closed = False
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RecordError(write_problem(self.path, error)) from error
        try:
            self._write(_line(header))
            os.fsync(self._file)
        except OSError as error:
            os.close(self._file)
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise RecordError(write_problem(self.path, error)) from error
        # Twice per period: a record put just after one round is still out in time after the next.
        self._period = flush_ms * 1e-3 / 2
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="saccade-recorder", daemon=True)
        self._thread.start()

    def put(self, record: dict[str, Any]) -> None:
        """Takes one record without blocking; the recorder owns it from here on."""
        start = time.perf_counter_ns()
        if len(self._queue) < self._capacity and not self._closed:
            self._queue.append(record)
        else:
            self._refused += 1
            if self.failure is None:
                self.failure = f"{self._capacity} records are waiting for {self.path}: the disk does not keep up"
        spent = time.perf_counter_ns() - start
        self._puts += 1
        self._hand_over_ns += spent
        self._hand_over_max_ns = max(self._hand_over_max_ns, spent)

    @property
    def lost(self) -> int:
        """Records that could not be written so far."""
        return self._refused + self._unwritten

    def close(self, reason: str, message: str, wall_s: float, simulated_s: float) -> None:
        """Writes what waits and the end line, and makes sure that all of it is on the disk; safe to call twice.

        Args:
            reason: ``"completed"``, ``"interrupted"``, ``"timeout"`` or ``"error"``.
            message: The reason in words.
            wall_s: Wall time of the whole run [s].
            simulated_s: Simulated time of the whole run [s].
        """
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self.failure = f"{self.path}: the disk does not answer; the record was left as it is"
            return
        self._drain()
        end = {
            "kind": "end",
            "frames": self._written,
            "lost": self.lost,
            "reason": reason,
            "message": message,
            "wall_s": wall_s,
            "simulated_s": simulated_s,
        }
        try:
            self._write(_line(end))
            os.fsync(self._file)
        except OSError as error:
            self._keep_whole_lines([])
            self.failure = write_problem(self.path, error)
        finally:
            os.close(self._file)

    def facts(self) -> dict[str, Any]:
        """Returns what ``run.json`` says about the recorder; the cost is that of handing over on the loop."""
        mean = self._hand_over_ns / self._puts * 1e-3 if self._puts else None
        return {
            "records": self._written,
            "lost": self.lost,
            "hand_over_us": {"mean": mean, "max": self._hand_over_max_ns * 1e-3 if self._puts else None},
        }

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            self._drain()

    def _drain(self) -> None:
        lines = []
        while self._queue:
            try:
                lines.append(_line(self._queue.popleft()))
            except Exception as error:  # whatever a record holds, the others must be written
                self._unwritten += 1
                self.failure = f"a record cannot be written as JSON: {error}"
        if not lines:
            return
        try:
            self._write(b"".join(lines))
            self._written += len(lines)
        except OSError as error:
            # A full disk takes a part: what is whole stays, the rest goes, so that no broken line is in the middle.
            whole = self._keep_whole_lines(lines)
            self._written += whole
            self._unwritten += len(lines) - whole
            self.failure = write_problem(self.path, error)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += os.write(self._file, view[done:])
        self._offset += done

    def _keep_whole_lines(self, lines: list[bytes]) -> int:
        with contextlib.suppress(OSError):
            size = os.fstat(self._file).st_size
            whole = 0
            for line in lines:
                if self._offset + len(line) > size:
                    break
                self._offset += len(line)
                whole += 1
            os.ftruncate(self._file, self._offset)
            os.lseek(self._file, self._offset, os.SEEK_SET)
            return whole
        return 0


def _line(record: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(record, allow_nan=False, separators=(",", ":"), default=_plain)
    except ValueError:
        text = json.dumps(finite(record), allow_nan=False, separators=(",", ":"), default=_plain)
    # `ensure_ascii` keeps lone surrogates of odd file names writable.
    return text.encode() + b"\n"


def _plain(value: Any) -> Any:
    """Turns NumPy scalars and arrays, paths and the like into what JSON has."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no place in a record")


def finite(value: Any) -> Any:
    """Returns ``value`` with every non-finite number replaced by ``None``.

    An object that has a ``finite`` field and such a number anywhere inside gets ``finite: false``.
    """
    return _finite(value)[0]


def _finite(value: Any) -> tuple[Any, bool]:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return (value, True) if math.isfinite(value) else (None, False)
    if isinstance(value, dict):
        pairs = {key: _finite(entry) for key, entry in value.items()}
        clean = all(good for _, good in pairs.values())
        replaced = {key: entry for key, (entry, _) in pairs.items()}
        if not clean and "finite" in replaced:
            replaced["finite"] = False
        return replaced, clean
    if isinstance(value, list | tuple):
        entries = [_finite(entry) for entry in value]
        return [entry for entry, _ in entries], all(good for _, good in entries)
    return value, True


def write_atomic(path: Path | str, content: str | bytes) -> None:
    """Writes a file whole or not at all: readers see what was there before, or everything.

    Raises:
        RecordError: The folder cannot be written.
    """
    path = Path(path)
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RecordError(write_problem(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def run_directory(root: Path | str, name: str) -> Path:
    """Makes the folder of a new run below ``root`` and points ``root``/latest at it.

    Args:
        root: Folder of all runs; made when it is not there.
        name: Wished name; characters that a folder name cannot have become ``-``, and a number is added when a run
            of that name exists.

    Returns:
        The new, empty folder.

    Raises:
        RecordError: The folder cannot be made.
    """
    root = Path(root)
    name = re.sub(r"[^\w.+ -]", "-", name).strip(". ")[:120] or "run"
    if name == "latest":
        name = "latest-run"
    try:
        if root.exists() and not root.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file")
        root.mkdir(parents=True, exist_ok=True)
        directory = _new_folder(root, name)
    except OSError as error:
        raise RecordError(write_problem(root / name, error)) from error
    try:
        point_latest(root, directory.name)
    except OSError as error:
        with contextlib.suppress(OSError):
            directory.rmdir()
        raise RecordError(write_problem(root / "latest", error)) from error
    return directory


def _new_folder(root: Path, name: str) -> Path:
    for number in range(1, 1_000_000):
        directory = root / (name if number == 1 else f"{name}-{number}")
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        return directory
    raise OSError(errno.EEXIST, "too many runs of that name")


def point_latest(root: Path, name: str) -> None:
    """Makes ``root``/latest point at the run ``name``; somebody's own folder of that name stays.

    Raises:
        OSError: The folder cannot be written.
    """
    latest = root / "latest"
    temporary = root / f".latest.{os.getpid()}.{threading.get_ident()}"
    if latest.is_dir() and not latest.is_symlink():
        return  # somebody's own folder of that name is not ours to replace
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        temporary.symlink_to(name)
    except OSError:
        # No links here (FAT, some network shares, Windows): the path as text.
        temporary.write_text(name + "\n", encoding="utf-8")
    temporary.replace(latest)


def restore_latest(root: Path, before: Path | None) -> None:
    """Points ``latest`` back at the run before the one that could not start."""
    if before is not None:
        point_latest(root, before.name)
    elif (root / "latest").is_symlink():
        (root / "latest").unlink()


def latest_directory(root: Path | str) -> Path | None:
    """Returns the folder that ``root``/latest points at, ``None`` when there is none."""
    latest = Path(root) / "latest"
    if latest.is_dir():
        return latest.resolve()
    if latest.is_file():
        target = Path(root) / latest.read_text(encoding="utf-8").strip()
        return target.resolve() if target.is_dir() else None
    return None


def write_problem(path: Path, error: OSError) -> str:
    """Returns what went wrong with writing ``path`` and what to do about it."""
    folder = path.parent
    remedies = {
        errno.ENOSPC: "the disk is full: free some space there, or choose another folder with --out DIR",
        errno.EDQUOT: "the disk quota is used up: free some space there, or choose another folder with --out DIR",
        errno.EFBIG: "the file would be larger than allowed here (ulimit -f): raise the limit, or record less",
        errno.EACCES: "no permission to write there: choose another folder with --out DIR",
        errno.EPERM: "no permission to write there: choose another folder with --out DIR",
        errno.EROFS: "the file system is read-only: choose another folder with --out DIR",
        errno.EEXIST: "there is a record already: choose another name with --set run.name=NAME",
        errno.ENOTDIR: "a part of the path is a file, not a folder: choose another folder with --out DIR",
        errno.ENOENT: "the folder does not exist any more: was it removed during the run?",
        errno.ENAMETOOLONG: "the path is too long: choose another folder with --out DIR",
    }
    number = error.errno or 0
    remedy = remedies.get(number, f"{error.strerror or error}: check the folder, or choose another one with --out DIR")
    return f"cannot write {path.name} in {folder}: {remedy}"
