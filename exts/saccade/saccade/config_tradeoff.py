"""The sections of the configuration about precision: what is compared, and what adapts while a run goes on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from saccade.config_section import Section

Precision = Literal["fp32", "fp16", "int8", "int8_mixed"]
Pruning = Literal["none", "l1", "channels", "2:4"]
Pruned = Literal["l1", "channels", "2:4"]


class TradeoffConfig(Section):
    """What ``saccade tradeoff`` compares: every precision times every pruning times every input size."""

    networks: list[str] = []
    """Networks that are compared; empty = all of the configuration."""
    precisions: list[Precision] = ["fp32", "fp16", "int8", "int8_mixed"]
    """Arithmetic; FP32 without pruning is the reference and always measured."""
    pruning: list[Pruning] = ["none"]
    """What is taken out of the weights before: nothing, the smallest, channels, or two of four for sparse cores."""
    amount: float | None = Field(None, gt=0, lt=1)
    """Share of weights or channels that ``l1`` and ``channels`` take out; ``None`` = 0.5 and 0.25."""
    fine_tune_minutes: float = Field(0.0, ge=0, le=600)
    """Training after pruning [min], for the shipped networks and those trained from them; needs torch."""
    pruned: dict[str, dict[Pruned, str]] = {}
    """Networks that were pruned elsewhere, in FP32: ONNX file by network and pruning, ``{camera: {"2:4": FILE}}``; all
    precisions of that pruning are made from it."""
    int8: Literal["auto", "qdq", "calibrator"] = "auto"
    """How ``int8`` reaches TensorRT: scales in the graph, or its own calibrator, which only releases before 10 have;
    ``auto`` = the calibrator where that is so."""
    sizes: list[tuple[int, int]] = []
    """Further input sizes of image networks, width and height [px]; their own is always measured."""
    batches: list[int] = [1]
    """Frames per run of the engine. 1 is measured in the loop, others with the engine alone on the same frames."""
    scenes: int = Field(12, ge=1, le=1000)
    """Held-out randomised layouts; an interval of the accuracy needs at least 5."""
    recordings: list[str] = []
    """Recorded runs (``record.sensors: true``) to measure on instead of layouts; each counts as a scene."""
    frames: int = Field(60, ge=1, le=100_000)
    """Judged decisions in each."""
    warmup: int = Field(5, ge=0, le=10_000)
    """Decisions before those, not judged."""
    seed: int = Field(0, ge=0, lt=100)
    """Chooses other layouts."""
    calibration: str | None = None
    """Samples for ``int8`` and pruning: a .npz file, a folder of images or arrays, or a recorded run; ``None`` = frames
    of training layouts."""
    calibration_frames: int = Field(512, ge=1, le=100_000)
    """Most frames taken for it."""
    gate: float = Field(0.99, gt=0, le=1)
    """Share of FP32's accuracy that a candidate must keep; MLPerf has 0.99 and 0.999."""

    @field_validator("batches")
    @classmethod
    def _positive(cls, value: list[int]) -> list[int]:
        if not value or any(not 1 <= batch <= 1024 for batch in value):
            raise ValueError("expected a list of batch sizes from 1 to 1024, such as [1, 16]")
        return sorted(set(value) | {1})

    @field_validator("sizes")
    @classmethod
    def _sensible(cls, value: list[tuple[int, int]]) -> list[tuple[int, int]]:
        if any(not 8 <= edge <= 8192 for size in value for edge in size):
            raise ValueError("expected [width, height] pairs from 8 to 8192 px, such as [[160, 160]]")
        return value

    @field_validator("precisions", "pruning")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("expected at least one")
        return list(dict.fromkeys(value))


class AdaptiveConfig(Section):
    """How a precision is chosen from frame to frame: see docs/adaptive.md."""

    precisions: list[Precision] = ["fp32", "fp16", "int8"]
    """Engines that are kept ready; the most accurate of them that keeps the deadline runs."""
    models: dict[str, dict[str, str]] = {}
    """ONNX file by network and precision; without one it is made from the network's own model."""
    tradeoff: str | None = None
    """Result of ``saccade tradeoff`` with the retention of each precision; without one none is below the floor."""
    accuracy_floor: float = Field(0.99, gt=0, le=1)
    """Share of FP32's accuracy below which a precision is never taken."""
    deadline_ms: float | None = Field(None, gt=0)
    """Inference time that a frame may take [ms]; ``None`` = ``run.deadline_ms``."""
    target: float = Field(0.95, gt=0, le=1)
    """Share of the deadline above which recent latency asks for a faster precision."""
    relax: float = Field(0.87, gt=0, le=1)
    """Share of the deadline below which the more accurate precision's expected latency must lie to go back to it."""
    window: int = Field(8, ge=2, le=1000)
    """Frames over which latency is looked at."""
    dwell_s: float = Field(1.0, ge=0, le=600)
    """Least time between two switches for load [s]; a fault in the outputs does not wait."""
    hold_s: float = Field(10.0, ge=0, le=3600)
    """How long a precision whose outputs were at fault, or which did not help, is left out [s]."""
    zero_streak: int = Field(10, ge=1, le=10_000)
    """Frames in a row without a single detection, where there were some before, that count as a fault."""
    agreement: float = Field(0.8, ge=0, le=1)
    """Share of labels that must be the same as in the frame before a switch for the first frame after it."""
    load_high: float = Field(90.0, gt=0, le=100)
    """Load of the device [percent] at which nothing more accurate is tried."""
    memory_high: float = Field(95.0, gt=0, le=100)
    """Share of the device's memory in use [percent] at which nothing more accurate is tried."""

    @field_validator("precisions")
    @classmethod
    def _several(cls, value: list[str]) -> list[str]:
        if len(set(value)) < 2 or len(set(value)) < len(value):
            raise ValueError("expected two or more precisions, each once, such as [fp32, fp16]")
        return value
