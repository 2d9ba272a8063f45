"""When samples are due: whole numbers and fractions only, so that no rate drifts in however long a run."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

TOLERANCE = Fraction(1, 10**9)
"""A sample counts as due this much early [s], so that rounded steps do not delay it by a whole step."""


@dataclass(frozen=True, slots=True)
class Due:
    """The newest sample that is due."""

    sequence: int
    """Its number, from 0."""
    skipped: int
    """Samples that became due since the last one taken and can no longer be taken."""


class SampleClock:
    """Says at which steps a sensor samples: sample ``k`` at the first step whose time is at least ``k / rate``.

    Args:
        step_seconds: Simulated time of one step [s], taken as the decimal number that it prints as.
        rate: Samples per second [Hz], likewise.
    """

    def __init__(self, step_seconds: float, rate: float):
        step, frequency = Fraction(repr(float(step_seconds))), Fraction(repr(float(rate)))
        if step <= 0 or frequency <= 0:
            raise ValueError(f"step and rate must be above 0, got {step_seconds} s and {rate} Hz")
        # newest(n) = floor((n * step + tolerance) * rate), over one common denominator
        per_step, early = step * frequency, TOLERANCE * frequency
        self._denominator = per_step.denominator * early.denominator
        self._per_step = per_step.numerator * early.denominator
        self._early = early.numerator * per_step.denominator

    def newest(self, step: int) -> int:
        """Returns the number of the newest sample that is due at or before a step; the first is 0 at step 0."""
        return (step * self._per_step + self._early) // self._denominator

    def due(self, step: int, last_sequence: int) -> Due | None:
        """Returns what is due at a step.

        Args:
            step: Step number, from 0 for the initial state.
            last_sequence: Number of the last sample taken; -1 = none yet.

        Returns:
            The newest sample that is due and how many before it were missed; ``None`` when nothing is due.
        """
        newest = self.newest(step)
        return Due(newest, newest - last_sequence - 1) if newest > last_sequence else None


def samples_due(step: int, step_seconds: float, rate: float, last_sequence: int) -> Due | None:
    """Returns what is due at a step; see :meth:`SampleClock.due`, which is faster when asked at every step."""
    return SampleClock(step_seconds, rate).due(step, last_sequence)
