"""Sample clocks: exact counts for odd rates, no drift, nothing skipped when asked at every step."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.sensors.rates import Due, SampleClock, samples_due

STEPS = [0.001, 0.002, 0.004, 0.005, 0.01, 1 / 60, 0.02, 1 / 30, 0.1]
RATES = [1.0, 7.5, 10.0, 12.5, 15.0, 24.0, 29.97, 30.0, 50.0, 60.0, 100.0, 1000.0]


def walk(step_seconds: float, rate: float, steps: int) -> list[tuple[int, int]]:
    clock = SampleClock(step_seconds, rate)
    last, taken = -1, []
    for step in range(steps):
        due = clock.due(step, last)
        if due is not None:
            taken.append((step, due.sequence))
            assert due.skipped == due.sequence - last - 1
            last = due.sequence
    return taken


@pytest.mark.parametrize(
    ("step_seconds", "rate", "seconds", "expected"),
    [
        (0.02, 10, 100, 1000),
        (0.02, 30, 100, 3000),
        (0.02, 7.5, 100, 750),
        (0.005, 29.97, 1000, 29970),
        (0.02, 50, 100, 5000),
    ],
)
def test_counts_are_exact_over_long_runs(step_seconds, rate, seconds, expected):
    steps = round(seconds / step_seconds)
    taken = walk(step_seconds, rate, steps)
    assert len(taken) == expected
    assert [sequence for _, sequence in taken] == list(range(expected))


def test_30_hz_at_20_ms_alternates_between_one_and_two_steps():
    assert [step for step, _ in walk(0.02, 30, 12)] == [0, 2, 4, 5, 7, 9, 10]


def test_a_rate_equal_to_the_step_rate_samples_every_step_forever():
    for step_seconds, rate in ((1 / 30, 30.0), (1 / 60, 60.0), (0.001, 1000.0), (1 / 3, 3.0)):
        clock = SampleClock(step_seconds, rate)
        for step in (0, 1, 2, 10**6 - 1, 10**6):
            assert clock.newest(step) == step


def test_late_questions_report_what_was_skipped():
    assert samples_due(0, 0.02, 50, -1) == Due(0, 0)
    assert samples_due(0, 0.02, 50, 0) is None
    assert samples_due(7, 0.02, 50, 2) == Due(7, 4)


@pytest.mark.parametrize(("step_seconds", "rate"), [(0.0, 10.0), (0.02, 0.0), (-0.02, 10.0)])
def test_nonsense_is_refused(step_seconds, rate):
    with pytest.raises(ValueError, match="above 0"):
        SampleClock(step_seconds, rate)


@given(step_seconds=st.sampled_from(STEPS), rate=st.sampled_from(RATES), step=st.integers(0, 10**9))
def test_newest_is_the_definition(step_seconds, rate, step):
    clock = SampleClock(step_seconds, rate)
    newest = clock.newest(step)
    time = step * Fraction(repr(step_seconds))
    frequency = Fraction(repr(rate))
    assert newest / frequency <= time + Fraction(1, 10**9)
    assert (newest + 1) / frequency > time + Fraction(1, 10**9)


@given(
    step_seconds=st.floats(1e-4, 0.5, allow_nan=False),
    share=st.floats(0.01, 1.0),
    steps=st.integers(1, 400),
)
def test_no_sample_is_skipped_or_repeated_below_the_step_rate(step_seconds, share, steps):
    rate = share / step_seconds
    taken = walk(step_seconds, rate, steps)
    assert [sequence for _, sequence in taken] == list(range(len(taken)))
    assert taken[0] == (0, 0)


@given(step_seconds=st.sampled_from(STEPS), rate=st.sampled_from(RATES), gaps=st.lists(st.integers(1, 20), max_size=50))
def test_taken_and_skipped_add_up(step_seconds, rate, gaps):
    clock = SampleClock(step_seconds, rate)
    step, last, taken, skipped = 0, -1, 0, 0
    for gap in [0, *gaps]:
        step += gap
        due = clock.due(step, last)
        if due is not None:
            taken, skipped, last = taken + 1, skipped + due.skipped, due.sequence
    assert taken + skipped == clock.newest(step) + 1
