"""Mapping a device's clock onto the host's: offset, its bounds, drift, jumps, and stamps that stay in order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.telemetry.gpu_clock import JUMP_NS, PAIRS, PERIOD_NS, GpuClock


class Clocks:
    """A host clock that the test moves, and a device clock with an offset, read after and before some delay."""

    def __init__(self, *, ahead=0, delays=((1000, 1000),)):
        self.host = 10**12
        self.ahead = ahead
        self.delays = list(delays)
        self.taken = 0

    def pair(self):
        there, back = self.delays[self.taken % len(self.delays)]
        self.taken += 1
        before = self.host
        device = before + there + self.ahead
        self.host = before + there + back
        return before, device, self.host

    def now(self):
        return self.host


def clock_of(clocks):
    return GpuClock(clocks.pair, now=clocks.now)


@settings(deadline=None)
@given(
    ahead=st.integers(-(10**18), 10**18),
    delays=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=20),
    moment=st.integers(0, 10**9),
)
def test_a_mapped_time_is_off_by_no_more_than_is_said(ahead, delays, moment):
    """Whatever the delays: the true host time lies within the uncertainty around the mapped one."""
    clocks = Clocks(ahead=ahead, delays=delays)
    clock = clock_of(clocks)
    clock.synchronise()
    true = clocks.host + moment
    mapped = clock.host_time(true + ahead, 0, 10**20)
    assert abs(mapped - true) <= clock.facts()["uncertainty_us"]["max"] * 1e3 + 1
    tightest = min(there + back for there, back in (delays * PAIRS)[:PAIRS])
    assert clock.facts()["uncertainty_us"]["max"] * 1e3 == pytest.approx(tightest / 2)


def test_symmetric_delays_give_the_exact_offset():
    """The middle of the tightest pair, not of the first or the mean."""
    clocks = Clocks(ahead=123_456_789, delays=[(9000, 1000), (500, 500), (1000, 9000)])
    clock = clock_of(clocks)
    clock.synchronise()
    assert clock.offset == -123_456_789
    assert clock.facts()["pairs"] == PAIRS == clocks.taken


def test_synchronised_once_a_second():
    """The first time at once, then not before a second has passed."""
    clocks = Clocks()
    clock = clock_of(clocks)
    clock.synchronise_if_due()
    assert clocks.taken == PAIRS
    clocks.host += PERIOD_NS - 1
    clock.synchronise_if_due()
    assert clocks.taken == PAIRS
    clocks.host += 1
    clock.synchronise_if_due()
    assert clocks.taken == 2 * PAIRS


def test_a_host_clock_that_begins_at_zero_is_due():
    """The process's clock may be young."""
    clocks = Clocks()
    clocks.host = 0
    clock = clock_of(clocks)
    clock.synchronise_if_due()
    assert clocks.taken == PAIRS


@pytest.mark.parametrize(("step", "jumps"), [(JUMP_NS, 0), (JUMP_NS + 1, 1), (-JUMP_NS - 1, 1), (5 * JUMP_NS, 1)])
def test_a_jump_is_more_than_a_millisecond(step, jumps):
    """Either way; the first synchronisation is none, and what the offset moved by is part of the uncertainty."""
    clocks = Clocks(ahead=10**15)
    clock = clock_of(clocks)
    clock.synchronise()
    assert clock.jumps == 0
    clocks.ahead += step
    clock.synchronise()
    clock.synchronise()
    facts = clock.facts()
    assert facts["jumps"] == jumps
    assert facts["uncertainty_us"]["max"] == pytest.approx((1000 + abs(step)) * 1e-3)
    assert facts["uncertainty_us"]["mean"] == pytest.approx((3 * 1000 + abs(step)) / 3 * 1e-3)


@settings(deadline=None)
@given(
    times=st.lists(st.integers(-2000, 12_000), max_size=12),
    offset=st.integers(-(10**15), 10**15),
)
def test_stages_are_in_order_and_within_the_frame(times, offset):
    """Those that fit are not touched, the others are put level with a neighbour and counted."""
    clock = GpuClock(lambda: (0, -offset, 0), now=lambda: 0)
    clock.synchronise()
    first, last = 1000, 10_000
    found, floor = [], first
    for time in times:
        floor = clock.host_time(time - offset, floor, last)
        found.append(floor)
    assert found == sorted(found) and all(first <= value <= last for value in found)
    if times == sorted(times):
        assert found == [min(max(time, first), last) for time in times]
    assert clock.clamped == sum(value != time for value, time in zip(found, times, strict=True))


@pytest.mark.parametrize("tick", [1, 32, 1000, 1024])
def test_the_timers_tick_is_the_step_of_what_was_seen(tick):
    """The greatest common divisor of differences, of a timer that only shows multiples."""
    clocks = Clocks(delays=[(137, 212), (1409, 77), (3001, 5)])

    def pair():
        before, device, after = clocks.pair()
        return before, 5 + device // tick * tick, after

    clock = GpuClock(pair, now=clocks.now)
    for _ in range(40):
        clock.synchronise()
    assert clock.facts()["tick_ns"] == tick


def test_facts_before_the_first_synchronisation():
    """Nothing is made up."""
    facts = GpuClock(lambda: (0, 0, 0), now=lambda: 0).facts()
    assert facts["uncertainty_us"] == {"mean": None, "max": None}
    assert (facts["tick_ns"], facts["pairs"], facts["jumps"], facts["clamped"]) == (None, 0, 0, 0)
