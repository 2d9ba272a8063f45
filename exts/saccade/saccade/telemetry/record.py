"""Reads the record of a run back, also one that was cut off, and says what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from saccade.errors import RecordError
from saccade.telemetry.schema import FRAMES_FILE, LINE, SCHEMA

MAX_NAMED = 5
"""Broken lines that are named one by one."""


@dataclass(slots=True)
class Record:
    """What ``frames.jsonl`` holds."""

    header: dict[str, Any]
    frames: list[dict[str, Any]] = field(default_factory=list)
    """Lines of kind frame, in the order of the file."""
    end: dict[str, Any] | None = None
    """The last line; ``None`` when the record was cut off."""
    torn: bool = False
    """Whether the last line is incomplete and was left out."""
    lost: int = 0
    """Records that the writer counted as lost or that are missing from the numbering."""
    problems: list[str] = field(default_factory=list)
    """What makes the record incomplete, in sentences; empty for a whole one."""


def read_frames(directory: Path | str) -> Record:
    """Reads ``frames.jsonl`` of a run folder; what is whole is returned, what is not is said.

    Raises:
        RecordError: There is no record, it has no header, or its schema is newer than this program.
    """
    path = Path(directory) / FRAMES_FILE
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError as error:
        text = f"{directory}: no {FRAMES_FILE} there; give the folder of a run, such as runs/latest"
        raise RecordError(text) from error
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
    tail = lines.pop()
    header = _header(path, lines[0] if lines else tail)
    record = Record(header)
    broken: list[str] = []
    for number, line in enumerate(lines[1:], start=2):
        _take(record, line, number, broken)
    if lines and tail:
        # A line without its end: whole when only the line break is missing.
        torn: list[str] = []
        _take(record, tail, len(lines) + 1, torn)
        record.torn = bool(torn)
    record.problems = _problems(record, broken)
    return record


def _header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        known = json.loads(line)
    except ValueError:
        known = None
    if isinstance(known, dict) and known.get("kind") == "header" and known.get("schema") != SCHEMA:
        raise RecordError(
            f"{path}: schema {known.get('schema')!r}, and this version of saccade reads schema {SCHEMA}: "
            "use the version that recorded it (its run.json names it)"
        )
    try:
        header = LINE.validate_json(line)
    except ValidationError as error:
        raise RecordError(f"{path}: the first line is no header ({_first(error)}): no record of a run") from error
    if header["kind"] != "header":
        raise RecordError(f"{path}: the first line is of kind {header['kind']!r} and no header: no record of a run")
    return header


def _take(record: Record, line: bytes, number: int, broken: list[str]) -> None:
    try:
        entry = LINE.validate_json(line)
    except ValidationError as error:
        broken.append(f"line {number} is broken ({_first(error)})")
        return
    if record.end is not None:
        broken.append(f"line {number} comes after the end")
    elif entry["kind"] == "frame":
        record.frames.append(entry)
    elif entry["kind"] == "end":
        record.end = entry
    else:
        broken.append(f"line {number} is a second header")


def _problems(record: Record, broken: list[str]) -> list[str]:
    problems = [f"the record's {text}" for text in broken[:MAX_NAMED]]
    if len(broken) > MAX_NAMED:
        problems.append(f"{len(broken) - MAX_NAMED} more lines of the record are broken")
    indices = [frame["index"] for frame in record.frames]
    present = set(indices)
    if any(later <= before for before, later in pairwise(indices)):
        problems.append("the lines of the record are not in the order of their index")
    missing = max(indices) + 1 - len(present) if indices else 0
    declared = record.end["lost"] if record.end is not None else 0
    record.lost = max(missing, declared)
    if record.lost:
        first = _first_gap(indices)
        at = f", the first of them number {first}" if first is not None else ""
        problems.append(f"{record.lost} record{'s were' if record.lost > 1 else ' was'} lost{at}")
    if record.torn:
        problems.append("the record's last line is torn: the run was cut off while it was written")
    if record.end is None:
        problems.append("the record has no end: the run was cut off (killed, or the disk was full)")
    elif record.end["frames"] != len(record.frames) and not broken:
        counted = record.end["frames"]
        problems.append(f"the record's end counts {counted} frames, and {len(record.frames)} are there")
    return problems


def _first_gap(indices: list[int]) -> int | None:
    for expected, index in enumerate(sorted(set(indices))):
        if index != expected:
            return expected
    return None


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in detail["loc"])
    return f"{where}: {detail['msg']}" if where else str(detail["msg"])
