"""The fields of ``frames.jsonl`` as types: what docs/record.md defines, checked line by line on reading."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import NotRequired, TypedDict

from saccade.frame import CLASS_COUNT, SECTOR_COUNT

SCHEMA = 1
"""Raised when a field changes its meaning."""

FRAMES_FILE = "frames.jsonl"

_RELAXED = ConfigDict(extra="allow", allow_inf_nan=False, strict=True)

Count = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[float, Field(ge=-1e15, le=1e15)] | None
"""``None`` where the value was not finite; the bounds keep sums and differences finite."""
ClassCounts = Annotated[list[Count], Field(min_length=CLASS_COUNT, max_length=CLASS_COUNT)]
Clearances = Annotated[list[Number], Field(min_length=SECTOR_COUNT, max_length=SECTOR_COUNT)]


class SensorHeader(TypedDict):
    """One sensor in the header."""

    __pydantic_config__ = _RELAXED  # type: ignore[misc]
    kind: str
    rate: Annotated[float, Field(ge=1e-6, le=1e9)]
    range_max: NotRequired[Number]


class NetworkHeader(TypedDict):
    """One network in the header."""

    __pydantic_config__ = _RELAXED  # type: ignore[misc]
    sensor: str
    classes: list[str]
    hazard_threshold: Annotated[float, Field(ge=-1e15, le=1e15)]


class Header(TypedDict):
    """The first line."""

    __pydantic_config__ = _RELAXED  # type: ignore[misc]
    kind: Literal["header"]
    schema: int
    run: str
    created: str
    sensors: dict[str, SensorHeader]
    networks: dict[str, NetworkHeader]
    deadline_ms: Annotated[float, Field(gt=0, le=1e15)]
    frames_expected: Count
    warmup: Count


class StampFields(TypedDict):
    """Monotonic times [ns]; ``None`` = not reached."""

    __pydantic_config__ = _RELAXED  # type: ignore[misc]
    sim_state: Count | None
    sensed: Count | None
    handed_over: Count | None
    preprocessed: Count | None
    inferred: Count | None
    on_host: Count | None
    decided: Count | None
    published: Count | None
    applied: Count | None


class ResultFields(TypedDict):
    """What one network said about the frame."""

    __pydantic_config__ = _RELAXED  # type: ignore[misc]
    hazard: Number
    clearance: Clearances | None
    finite: bool
    intersection: ClassCounts | None
    union: ClassCounts | None
    support: NotRequired[ClassCounts | None]
    valid: Count | None
    agree: Count | None


class TruthFields(TypedDict):
    """What the simulator knew about the frame."""

    __pydantic_config__ = _RELAXED  # type: ignore[misc]
    hazard: bool | None
    clearance: Clearances | None


class CommandFields(TypedDict):
    """The decision."""

    __pydantic_config__ = _RELAXED  # type: ignore[misc]
    linear: Annotated[list[Number], Field(min_length=2, max_length=2)]
    yaw_rate: Number
    source: str
    reason: str


class ContactFields(TypedDict):
    """One contact onset."""

    __pydantic_config__ = _RELAXED  # type: ignore[misc]
    sim_time: Number
    body: str
    other: str


class SwitchFields(TypedDict):
    """A change of precision that holds from this decision on."""

    __pydantic_config__ = _RELAXED  # type: ignore[misc]
    time_s: Number
    source: str
    target: str
    kind: Literal["load", "relax", "no_help", "fault"]
    reason: str


class AdaptiveFields(TypedDict):
    """Which precision made the decision."""

    __pydantic_config__ = _RELAXED  # type: ignore[misc]
    precision: str
    load_percent: Number
    memory_percent: Number
    switch: SwitchFields | None


class FrameFields(TypedDict):
    """One sensor frame."""

    __pydantic_config__ = _RELAXED  # type: ignore[misc]
    kind: Literal["frame"]
    index: Count
    tick: Count
    phase: Literal["warmup", "judged"]
    sensor: str
    sequence: Count
    sim_time: Number
    dropped: Count
    stamps: StampFields
    latency_ms: Number
    inference_ms: Number
    applied_sim_time: Number
    results: dict[str, ResultFields]
    truth: TruthFields | None
    command: CommandFields
    pose: Annotated[list[Number], Field(min_length=3, max_length=3)]
    distance: Number
    contacts: list[ContactFields]
    adaptive: NotRequired[AdaptiveFields]


class End(TypedDict):
    """The last line."""

    __pydantic_config__ = _RELAXED  # type: ignore[misc]
    kind: Literal["end"]
    frames: Count
    lost: Count
    reason: Literal["completed", "interrupted", "timeout", "error"]
    message: str
    wall_s: Number
    simulated_s: Number


LINE: TypeAdapter[Any] = TypeAdapter(Annotated[Header | FrameFields | End, Field(discriminator="kind")])
"""Validates one line of any kind; fields it does not know are kept."""
