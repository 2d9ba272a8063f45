"""Variants in turns, medians and their ratios, and what is refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.benchmark.measure import (
    LEAST_ROUNDS,
    InvalidMeasurement,
    TimeLimit,
    Variant,
    check_agreement,
    interleaved,
    median,
    ratio,
)
from saccade.telemetry.statistics import describe

TIMES = st.lists(st.floats(0.01, 100), min_size=6, max_size=60)


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds

    def ns(self):
        return round(self.seconds * 1e9)


def variants(clock, log, costs, **options):
    def variant(name, seconds):
        def run():
            log.append(name)
            clock.seconds += seconds

        return Variant(run, **options)

    return {name: variant(name, seconds) for name, seconds in costs.items()}


def test_variants_take_turns_and_every_other_round_is_reversed():
    """Each turn is the settling runs and then the measured ones; nothing that was measured is left out."""
    clock, log = Clock(), []
    things = variants(clock, log, {"a": 1e-3, "b": 2e-3, "c": 3e-3}, repeats=2, settle=1)
    times = interleaved(things, rounds=4, limit=TimeLimit(100, now=clock), now_ns=clock.ns)
    turns = [name for name, _ in itertools.groupby(log)]
    # Where a round ends with the variant that the next begins with, two turns of it follow each other.
    assert turns == ["a", "b", "c", "b", "a", "b", "c", "b", "a"]
    assert {name: log.count(name) for name in "abc"} == {"a": 12, "b": 12, "c": 12}
    assert {name: len(values) for name, values in times.items()} == {"a": 8, "b": 8, "c": 8}
    assert times["c"] == pytest.approx([3.0] * 8)


def test_the_time_limit_ends_it_after_a_whole_round():
    """All variants then have the same number of samples, fewer than asked for."""
    clock, log = Clock(), []
    things = variants(clock, log, {"a": 0.1, "b": 0.2}, repeats=1, settle=0)
    times = interleaved(things, rounds=1000, limit=TimeLimit(3.1, now=clock), now_ns=clock.ns)
    assert len(times["a"]) == len(times["b"]) == 11  # the eleventh is the first to end after 3.1 s


def test_too_little_time_is_refused():
    """Below the least number of rounds nothing is reported, and the text says what to do."""
    clock, log = Clock(), []
    things = variants(clock, log, {"a": 1.0}, repeats=1, settle=0)
    with pytest.raises(InvalidMeasurement, match="--time-limit"):
        interleaved(things, rounds=1000, limit=TimeLimit(LEAST_ROUNDS - 2, now=clock), now_ns=clock.ns)


def test_a_run_without_duration_is_refused():
    """A clock that stands still measures nothing."""
    clock = Clock()
    with pytest.raises(InvalidMeasurement, match="no time"):
        interleaved({"a": Variant(lambda: None)}, rounds=6, limit=TimeLimit(1, now=clock), now_ns=clock.ns)


def test_a_pause_does_not_count():
    """Neither does it give time back: the first seconds of an opening count, its build does not."""
    clock = Clock()
    limit = TimeLimit(10, now=clock)
    with limit.paused(beyond=3):
        clock.seconds += 100
    assert limit.left == pytest.approx(7)
    with limit.paused(beyond=3):
        clock.seconds += 1
    assert limit.left == pytest.approx(6)


@given(upper=TIMES, lower=TIMES)
def test_a_ratio_is_that_of_medians_and_lies_in_its_interval(upper, lower):
    """Value and interval follow from the two medians' own, the wider way round."""
    found = ratio(upper, lower)
    assert found["value"] == pytest.approx(np.median(upper) / np.median(lower))
    assert found["interval"][0] <= found["value"] <= found["interval"][1]
    top, bottom = describe(upper)["p50"], describe(lower)["p50"]
    assert found["interval"] == pytest.approx([top["low"] / bottom["high"], top["high"] / bottom["low"]])
    assert found["n"] == min(len(upper), len(lower))


def test_what_is_taken_off_widens_the_interval():
    """Preprocess less an empty kernel, scaled by the bytes."""
    upper, less, lower = [8.0] * 6 + [10.0] * 6, [1.0] * 6 + [2.0] * 6, [4.0] * 12
    found = ratio(upper, lower, less=less, scale=2)
    assert found["value"] == pytest.approx(2 * (9.0 - 1.5) / 4)
    assert found["interval"] == pytest.approx([2 * (8 - 2) / 4, 2 * (10 - 1) / 4])


def test_few_samples_have_a_median_without_an_interval():
    """Five do not bound a median; nobody can take it for certain."""
    assert median([1.0, 2.0, 3.0, 4.0, 5.0]) == {"value": 3.0, "interval": None, "n": 5}
    assert ratio([2.0] * 5, [1.0] * 6)["interval"] is None


def test_results_that_agree_are_measured():
    """The distance is the relative L2 norm of the difference."""
    reference = np.array([3.0, 4.0])
    assert check_agreement({"a": np.array([[3.0, 4.05]])}, reference, {"a": 0.02}) == {"a": pytest.approx(0.01)}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.array([3.0, 4.5]), "another result"),
        (np.array([3.0, np.nan]), "not finite"),
        (np.array([3.0, np.inf]), "not finite"),
        (np.array([3.0]), "1 values"),
    ],
)
def test_results_that_disagree_are_refused(result, message):
    """Whose result is wrong, its time is not reported; the variant is named."""
    with pytest.raises(InvalidMeasurement, match=message) as caught:
        check_agreement({"graph": result}, np.array([3.0, 4.0]), {"graph": 0.02})
    assert "graph" in str(caught.value)
    assert caught.value.exit_status == 3


def test_a_reference_of_zeros_is_refused():
    """Everything would be infinitely far from it."""
    with pytest.raises(InvalidMeasurement, match="nothing to compare"):
        check_agreement({}, np.zeros(3), {})
