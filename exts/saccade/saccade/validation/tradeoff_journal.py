"""The journal of a sweep: one line per thing measured, so that a killed sweep goes on where it was."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from saccade.errors import RecordError
from saccade.telemetry.recorder import finite, write_problem

JOURNAL_FILE = "journal.jsonl"
SCHEMA = 1


class Journal:
    """Appends lines to ``journal.jsonl`` and knows those that are there.

    Every line is with the disk when :meth:`append` returns. A torn last line, which a kill leaves, is cut off when the
    journal is opened again. One process at a time may have it open.

    Args:
        folder: The sweep's folder; made when it is not there.
        plan: What is measured; a journal of something else is refused.

    Raises:
        RecordError: The folder cannot be written, holds another sweep, or another process is at work there.
    """

    def __init__(self, folder: Path | str, plan: Mapping[str, Any]) -> None:
        self.path = Path(folder) / JOURNAL_FILE
        self.torn = False
        """Whether a torn last line was cut off."""
        self._entries: list[dict[str, Any]] = []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab+")
        except OSError as error:
            raise RecordError(write_problem(self.path, error)) from error
        try:
            self._lock()
            self._entries = self._read()
            self._check(plan)
        except BaseException:
            self._file.close()
            raise

    @property
    def resumed(self) -> bool:
        """Whether something had been measured before."""
        return len(self._entries) > 1

    def entries(self, kind: str) -> Iterator[dict[str, Any]]:
        """Yields the lines of one kind in their order; of lines about the same thing only the newest counts."""
        newest = {_identity(entry): entry for entry in self._entries if entry["kind"] == kind}
        yield from newest.values()

    def find(self, kind: str, **fields: Any) -> dict[str, Any] | None:
        """Returns the newest line of a kind with these fields, ``None`` where there is none."""
        for entry in reversed(self._entries):
            if entry["kind"] == kind and all(entry.get(name) == value for name, value in fields.items()):
                return entry
        return None

    def append(self, entry: Mapping[str, Any]) -> None:
        """Writes one line and waits until it is on the disk.

        Raises:
            RecordError: It cannot be written.
        """
        line = finite(dict(entry))
        try:
            self._file.write(json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RecordError(write_problem(self.path, error)) from error
        self._entries.append(line)

    def measured_on(self, machine: Mapping[str, Any]) -> None:
        """Binds the journal to the machine that measures; where it was prepared does not matter.

        Raises:
            RecordError: What is there was measured on another one.
        """
        wanted = json.loads(json.dumps(dict(machine)))
        known = self.find("machine")
        if known is None:
            self.append({"kind": "machine", "machine": wanted})
            return
        self._refuse(known["machine"], wanted, "holds measurements of another machine")

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # no such thing on Windows
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RecordError(
                f"{self.path}: another sweep is at work there: wait for it, or give another folder with --out"
            ) from error
        except OSError:
            return  # a file system without locks

    def _read(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self.torn = True
            with contextlib.suppress(OSError):
                self._file.truncate(whole)
        entries = []
        for number, line in enumerate(data[:whole].splitlines(), start=1):
            try:
                entry = json.loads(line)
                entry["kind"]
            except (ValueError, KeyError, TypeError) as error:
                raise RecordError(
                    f"{self.path}: line {number} is damaged ({error}): start anew with --fresh, or give another --out"
                ) from error
            entries.append(entry)
        return entries

    def _check(self, plan: Mapping[str, Any]) -> None:
        wanted = json.loads(json.dumps(dict(plan)))
        if not self._entries:
            self.append({"kind": "plan", "schema": SCHEMA, "plan": wanted})
            return
        first = self._entries[0]
        if first["kind"] != "plan" or first.get("schema") != SCHEMA:
            raise RecordError(
                f"{self.path}: no journal of this version: start anew with --fresh, or give another --out"
            )
        self._refuse(first["plan"], wanted, "holds a sweep of something else")

    def _refuse(self, there: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> None:
        different = [name for name in {**there, **wanted} if there.get(name) != wanted.get(name)]
        if different:
            raise RecordError(
                f"{self.path}: {what} ({', '.join(sorted(different))} "
                f"{'differs' if len(different) == 1 else 'differ'}): measure anew with --fresh, or give another --out"
            )


def _identity(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(entry.get(name) for name in ("candidate", "scene", "batch"))
