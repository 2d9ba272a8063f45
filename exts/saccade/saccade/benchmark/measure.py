"""How everything is measured: variants in turns, all samples kept, medians with intervals, refusals."""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saccade.errors import SaccadeError
from saccade.telemetry.statistics import describe

LEAST_ROUNDS = 6
"""Rounds without which nothing is said: a median needs six samples for its 95 % interval."""


class InvalidMeasurement(SaccadeError):
    """Something was measured that must not be reported; the text says what is wrong with it."""

    exit_status = 3


class TimeLimit:
    """How much time is left for measuring; work that is no measurement, such as building engines, can be left out.

    Args:
        seconds: From now on [s].
        now: Clock [s].
    """

    def __init__(self, seconds: float, *, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = seconds
        self._now = now
        self._end = now() + seconds

    @property
    def left(self) -> float:
        """Time left [s]; negative once it is over."""
        return self._end - self._now()

    @contextlib.contextmanager
    def paused(self, *, beyond: float = 0.0) -> Iterator[None]:
        """Does not count the time that passes inside, but for the first ``beyond`` seconds."""
        started = self._now()
        try:
            yield
        finally:
            self._end += max(0.0, self._now() - started - beyond)


@dataclass(frozen=True, slots=True)
class Variant:
    """One of several things whose times are compared."""

    run: Callable[[], Any]
    """Does it once and returns when it is done, on the device as well."""
    repeats: int = 10
    """Times that it is run and measured, one after the other, when its turn has come."""
    settle: int = 3
    """Times that it is run before those: what ran before has left caches and clocks as it needs them."""


def interleaved(
    variants: Mapping[str, Variant],
    *,
    rounds: int,
    limit: TimeLimit,
    say: Callable[[str], None] = lambda _: None,
    now_ns: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, list[float]]:
    """Runs variants in turns, so that what drifts hits all of them, and returns every time that was measured [ms].

    Every other round goes through them in reverse. Nothing is trimmed.

    Args:
        variants: By name.
        rounds: Turns that each has.
        limit: Ends it early, after a whole round.
        say: Told which round it is.
        now_ns: Clock [ns].

    Raises:
        InvalidMeasurement: The time limit left too few rounds, or a time is not positive.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    gc.collect()
    # A full collection that walks through all that was loaded would hit whichever variant runs just then.
    gc.freeze()
    try:
        for number in range(rounds):
            if limit.left < 0:
                if number < LEAST_ROUNDS:
                    raise InvalidMeasurement(
                        f"the time limit of {limit.seconds:g} s was over after {number} rounds, {LEAST_ROUNDS} are "
                        f"the least: allow more with --time-limit, or measure less with --only"
                    )
                break
            say(f"round {number + 1} of {rounds}")
            for name in names if number % 2 == 0 else reversed(names):
                variant = variants[name]
                for _ in range(variant.settle):
                    variant.run()
                for _ in range(variant.repeats):
                    started = now_ns()
                    variant.run()
                    times[name].append((now_ns() - started) * 1e-6)
    finally:
        gc.unfreeze()
    for name, values in times.items():
        if not all(value > 0 for value in values):
            raise InvalidMeasurement(f"{name}: a run took no time by the clock of this machine")
    return times


def median(values: Sequence[float]) -> dict[str, Any]:
    """Returns ``value``, ``interval`` (95 %, from order statistics) and ``n`` of the median."""
    found = describe(values)["p50"]
    interval = None if found["low"] is None else [found["low"], found["high"]]
    value = found["value"] if interval is not None else float(np.median(values)) if len(values) else None
    return {"value": value, "interval": interval, "n": len(values)}


def ratio(
    upper: Sequence[float], lower: Sequence[float], *, scale: float = 1.0, less: Sequence[float] | None = None
) -> dict[str, Any]:
    """Returns the ratio of two medians with the widest interval that theirs allow.

    Args:
        upper: Times of what is judged.
        lower: Times of what it is compared with.
        scale: Multiplies the ratio.
        less: Times whose median is taken off ``upper``'s.
    """
    top, bottom = median(upper), median(lower)
    off: dict[str, Any] = {"value": 0.0, "interval": [0.0, 0.0]} if less is None else median(less)
    interval = None
    if None not in (top["interval"], bottom["interval"], off["interval"]):
        interval = [
            scale * (top["interval"][0] - off["interval"][1]) / bottom["interval"][1],
            scale * (top["interval"][1] - off["interval"][0]) / bottom["interval"][0],
        ]
    value = scale * (top["value"] - off["value"]) / bottom["value"]
    return {"value": value, "interval": interval, "n": min(len(upper), len(lower))}


def check_agreement(
    results: Mapping[str, np.ndarray], reference: np.ndarray, limits: Mapping[str, float]
) -> dict[str, float]:
    """Returns the relative L2 distance of each result from the reference.

    Args:
        results: What each variant gave, by its name.
        reference: What they should have given; any shape with as many values.
        limits: Largest distance by variant.

    Raises:
        InvalidMeasurement: A value is not finite, or a result is too far off.
    """
    wanted = np.asarray(reference, dtype=np.float64).ravel()
    norm = float(np.linalg.norm(wanted))
    if not math.isfinite(norm) or norm == 0:
        raise InvalidMeasurement("the reference result is all zeros or not finite: there is nothing to compare with")
    distances = {}
    for name, result in results.items():
        found = np.asarray(result, dtype=np.float64).ravel()
        if found.size != wanted.size:
            raise InvalidMeasurement(f"{name} gave {found.size} values, expected were {wanted.size}")
        distance = float(np.linalg.norm(found - wanted)) / norm
        if not math.isfinite(distance):
            raise InvalidMeasurement(f"{name} gave values that are not finite: no time of it is reported")
        if distance > limits[name]:
            raise InvalidMeasurement(
                f"{name} gave another result: relative L2 {distance:.3g}, limit {limits[name]:g}: no time is reported"
            )
        distances[name] = distance
    return distances
