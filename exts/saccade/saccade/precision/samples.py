"""Samples to calibrate and to evaluate on: inputs, truth where it is known, and hashes that keep them apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from saccade.errors import ConfigurationError

USUAL_SAMPLES = 500
"""From here on more samples hardly change a range."""


@dataclass(frozen=True)
class Samples:
    """Inputs of a network, first axis = samples."""

    inputs: Mapping[str, np.ndarray]
    """Float32 arrays by input name."""
    source: str
    """Where they come from, for the record."""
    truth: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Where it is known: ``labels`` ``(n, height, width)``, ``valid`` (scored where true) of that shape, ``hazard``
    ``(n,)``, ``clearance`` [m] ``(n, 16)``."""

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values()))) if self.inputs else 0

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of each sample's inputs, in hexadecimal."""
        names = sorted(self.inputs)
        found = []
        for index in range(len(self)):
            digest = hashlib.sha256()
            for name in names:
                digest.update(np.ascontiguousarray(self.inputs[name][index], np.float32).data)
            found.append(digest.hexdigest())
        return tuple(found)

    @property
    def digest(self) -> str:
        """One hash of all samples, whatever their order."""
        return hashlib.sha256("".join(sorted(self.hashes)).encode()).hexdigest()

    def take(self, rows: Sequence[int] | np.ndarray) -> Samples:
        """Returns some of the samples, in the given order."""
        rows = np.asarray(rows, dtype=np.int64)
        taken = Samples(
            {name: array[rows] for name, array in self.inputs.items()},
            self.source,
            {name: array[rows] for name, array in self.truth.items()},
        )
        if "hashes" in self.__dict__:
            taken.__dict__["hashes"] = tuple(self.hashes[row] for row in rows)
        return taken

    def spread(self, count: int) -> Samples:
        """Returns at most ``count`` samples from all over the set."""
        if len(self) <= count:
            return self
        return self.take(np.unique(np.linspace(0, len(self) - 1, count).astype(int)))


def require_usable(samples: Samples, *, fewest: int, allow_few: bool) -> None:
    """Refuses what no range can be measured on.

    Raises:
        ConfigurationError: The samples are none, too few, not finite, all the same, or constant.
    """
    count = len(samples)
    if not count:
        raise ConfigurationError(f"calibration: {samples.source} holds no samples")
    for name, array in samples.inputs.items():
        if not np.isfinite(array).all():
            raise ConfigurationError(f"calibration: the samples for {name!r} of {samples.source} hold NaN or infinity")
        if array.size and array.min() == array.max():
            raise ConfigurationError(
                f"calibration: every value for {name!r} of {samples.source} is {array.flat[0]:g}: ranges cannot be "
                "measured on constant data; give frames that the network is for"
            )
    different = len(set(samples.hashes))
    if different == 1 and count > 1:
        raise ConfigurationError(f"calibration: all {count} samples of {samples.source} are the same")
    if different < fewest and not allow_few:
        raise ConfigurationError(
            f"calibration: {different} different samples in {samples.source}, at least {fewest} are needed for ranges "
            f"that can be trusted (some {USUAL_SAMPLES} are usual); --allow-few takes them all the same"
        )


def require_apart(calibration: Samples, evaluation: Samples) -> None:
    """Refuses an evaluation on what was calibrated on.

    Raises:
        ConfigurationError: A sample is in both; the text gives its hash.
    """
    shared = set(calibration.hashes) & set(evaluation.hashes)
    if shared:
        raise ConfigurationError(
            f"{len(shared)} of {len(evaluation)} evaluation samples ({evaluation.source}) are also calibration samples "
            f"({calibration.source}), such as {min(shared)[:12]}: accuracy measured on them says nothing; give others"
        )


def apart(samples: Samples, *, share: float = 0.2) -> tuple[Samples, Samples]:
    """Splits samples into those to calibrate and those to evaluate on.

    Which part a sample falls into depends on its hash alone, so that the same frame is never in both, neither here nor
    in another run.

    Args:
        samples: At least two different ones.
        share: Part to evaluate on, of 0..1.

    Raises:
        ConfigurationError: They cannot be split.
    """
    limit = int(share * 2**32)
    held = np.array([int(value[:8], 16) < limit for value in samples.hashes], dtype=bool)
    if held.all() or not held.any():
        # So few that chance left one part empty: the smallest hash decides.
        ordered = sorted(set(samples.hashes))
        if len(ordered) < 2:
            raise ConfigurationError(f"{samples.source}: one sample cannot be both calibrated and evaluated on")
        held = np.array([value == ordered[0] for value in samples.hashes], dtype=bool)
    return samples.take(np.flatnonzero(~held)), samples.take(np.flatnonzero(held))
