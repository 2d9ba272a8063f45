"""The values that a window draws: plain, immutable, made anew whenever something has changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

State = Literal["idle", "building", "running", "paused", "stopping", "done", "failed"]
Level = Literal["info", "warning", "error"]

TRANSITIONS: dict[State, tuple[State, ...]] = {
    "idle": ("building",),
    "building": ("running", "stopping", "done", "failed", "idle"),
    "running": ("paused", "stopping", "failed"),
    "paused": ("running", "stopping", "failed"),
    "stopping": ("done", "failed", "idle"),
    "done": ("building", "idle"),
    "failed": ("building", "idle"),
}
"""What may follow a state. ``stopping`` is also where a run that has all its frames is judged and reported."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the log."""

    time: str
    """Wall clock, ``"14:05:09"``."""
    level: Level
    text: str
    remedy: str = ""
    """What to do about it; empty where nothing is wrong."""


@dataclass(frozen=True, slots=True)
class SensorRow:
    """One sensor of the configuration or of the scene."""

    name: str
    """In the configuration; of a prim that it does not use, its path."""
    kind: str
    place: str
    """The prim that it was found at, or the one that was looked for."""
    state: Literal["attached", "found", "missing", "unused", "not looked for"]
    detail: str = ""
    """Resolution and rate, or why it is missing."""
    device: str = ""
    """Where its buffers are; empty before the first frame."""
    frames: int = 0
    dropped: int = 0
    age_ms: float | None = None
    """Age of the newest frame when it was decided on [ms]."""


@dataclass(frozen=True, slots=True)
class EngineRow:
    """One network and what runs it."""

    network: str
    state: Literal["waiting", "building", "ready"]
    engine: str = ""
    """``"tensorrt 10.3"``, ``"onnxruntime 1.19"``; empty until it is ready."""
    precision: str = ""
    device: str = ""
    detail: str = ""
    """What is being done, or where the engine came from."""


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """One limit, judged by what there is so far."""

    name: str
    limit: str
    value: str
    state: Literal["met", "missed", "open"]
    reason: str


@dataclass(frozen=True, slots=True)
class Percentile:
    """One percentile of the latency of the judged decisions [ms]; ``None`` where the sample cannot support it."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GpuRow:
    """One quantity of the GPU, or why it is not known."""

    name: str
    text: str
    share: float | None = None
    """0..1 for a bar; ``None`` = no bar."""


@dataclass(frozen=True, slots=True)
class TopicRow:
    """One ROS 2 topic."""

    name: str
    direction: str
    """``"out"`` or ``"in"``; empty for a row about several."""
    count: int
    """Messages delivered, or received."""
    lost: int
    """Messages dropped or failed, or refused."""
    rate_hz: float | None
    """Over the newest seconds; ``None`` = not known yet."""
    detail: str = ""
    """The newest reason of a loss."""


@dataclass(frozen=True, slots=True)
class Actions:
    """Which buttons can be pressed."""

    start: bool = False
    pause: bool = False
    resume: bool = False
    stop: bool = False
    save: bool = False
    choose: bool = False
    """Configuration, scene, humanoid, engine and precision can be changed."""


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the window shows."""

    state: State = "idle"
    doing: str = ""
    """What is being done, in words."""
    progress: float | None = None
    """0..1 of the decisions, or of the networks while they are built."""
    actions: Actions = field(default_factory=Actions)
    configurations: tuple[str, ...] = ()
    configuration: str = ""
    scenes: tuple[str, ...] = ()
    scene: str = ""
    """Empty = the configuration's own."""
    humanoids: tuple[str, ...] = ()
    humanoid: str = ""
    """Empty = the configuration's own, else the only articulation of the scene."""
    backend: str = "auto"
    precision: str = "fp16"
    sensors: tuple[SensorRow, ...] = ()
    engines: tuple[EngineRow, ...] = ()
    decisions: int = 0
    wanted: int = 0
    warmup: int = 0
    latency_ms: tuple[float, ...] = ()
    """The newest decisions, oldest first."""
    deadline_ms: float | None = None
    percentiles: tuple[Percentile, ...] = ()
    stages_ms: tuple[tuple[str, float], ...] = ()
    """Mean of each stage over the newest decisions; they add up to the latency."""
    dropped: int = 0
    misses: int = 0
    realtime_factor: float | None = None
    gpu: tuple[GpuRow, ...] = ()
    verdict: Literal["", "pass", "fail", "invalid", "open"] = ""
    """``"open"``: nothing is missed, and some budgets need more decisions."""
    verdict_final: bool = False
    judged: int = 0
    """Decisions that the verdict, the budgets and the percentiles are of."""
    reasons: tuple[str, ...] = ()
    budgets: tuple[BudgetRow, ...] = ()
    ros2: str = ""
    topics: tuple[TopicRow, ...] = ()
    commands: str = ""
    """External commands so far and how old the newest is; empty without a bridge."""
    missing: tuple[LogLine, ...] = ()
    """What this Python lacks, with the command that installs it."""
    log: tuple[LogLine, ...] = ()
    directory: str = ""
    """Folder of the run."""
    revision: int = 0
    """Changes with every change of anything above."""
