"""What can be asked of an engine build: precision, sparsity, shapes, memory, calibration, time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.errors import ConfigurationError

PRECISIONS = ("fp32", "fp16", "int8")

_OPTIMIZATION_LEVELS = range(6)


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """The shapes of one input that an engine accepts, and the one that it is tuned for."""

    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("minimum", "optimum", "maximum"):
            object.__setattr__(self, name, tuple(int(size) for size in getattr(self, name)))
        if not len(self.minimum) == len(self.optimum) == len(self.maximum):
            raise ConfigurationError(f"shapes {self}: minimum, optimum and maximum need the same number of dimensions")
        sizes = zip(self.minimum, self.optimum, self.maximum, strict=True)
        if not all(1 <= low <= middle <= high for low, middle, high in sizes):
            raise ConfigurationError(f"shapes {self}: every dimension needs 1 <= minimum <= optimum <= maximum")

    def __str__(self) -> str:
        return " / ".join("x".join(map(str, shape)) for shape in (self.minimum, self.optimum, self.maximum))

    @classmethod
    def fixed(cls, shape: Sequence[int]) -> ShapeRange:
        """Returns the range that holds ``shape`` alone."""
        return cls(tuple(shape), tuple(shape), tuple(shape))


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """One engine build. Two builds of one ONNX file with equal options give engines that can stand for each other."""

    precision: str = "fp32"
    """One of :data:`PRECISIONS`."""
    sparse: bool = False
    """Whether TensorRT may use 2:4 structured sparsity where the weights have it."""
    shapes: Mapping[str, ShapeRange] = field(default_factory=dict)
    """Range by input name; an input that is not named must have a static shape in the ONNX file."""
    workspace: int | None = None
    """Most scratch memory that a layer may use [bytes]; ``None`` = all there is."""
    calibration: Path | None = None
    """Samples for int8: a .npz file, or a folder of .npy files."""
    optimization_level: int | None = None
    """TensorRT's builder optimisation level, 0 to 5; ignored, and said, by versions without it. ``None`` = its own."""
    time_limit: float | None = 1800.0
    """Longest time that the build may take [s]; not part of the engine's key."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigurationError(f"precision {self.precision!r}: expected one of {', '.join(PRECISIONS)}")
        if self.workspace is not None and self.workspace <= 0:
            raise ConfigurationError(f"workspace {self.workspace}: expected a positive number of bytes")
        if self.time_limit is not None and not self.time_limit > 0:
            raise ConfigurationError(f"time limit {self.time_limit} s: expected a positive time, or none")
        if self.optimization_level is not None and self.optimization_level not in _OPTIMIZATION_LEVELS:
            raise ConfigurationError(f"optimization level {self.optimization_level}: expected 0 to 5")

    def as_dict(self) -> dict[str, Any]:
        """Returns what decides the engine, ready for JSON and equal for equal builds.

        The time limit does not decide it, and of the calibration set it is the content (which the store hashes), not
        the place: neither is in here, so that moving a data set or waiting longer does not rebuild anything.
        """
        return {
            "precision": self.precision,
            "sparse": self.sparse,
            "shapes": {
                name: [list(shape.minimum), list(shape.optimum), list(shape.maximum)]
                for name, shape in sorted(self.shapes.items())
            },
            "workspace": self.workspace,
            "optimization_level": self.optimization_level,
        }
