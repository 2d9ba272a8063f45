"""The policy of adaptive precision: by properties, and on recorded load traces by counts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.config_tradeoff import AdaptiveConfig
from saccade.validation.adaptive_policy import Level, PrecisionPolicy, Signals

TRACES = sorted((Path(__file__).parent / "traces").glob("*.json"))
PERIOD = 0.1
LEVELS = (Level("fp32", 1.0), Level("fp16", 0.999), Level("int8", 0.992))
BASE = {"fp32": 5.0, "fp16": 2.5, "int8": 1.5}
DEADLINE = 6.0


def policy(levels=LEVELS, base=BASE, deadline=DEADLINE, **fields):
    found = PrecisionPolicy(levels, AdaptiveConfig(**fields), deadline)
    if base:
        found.calibrate(base)
    return found


def drive(subject, slowdowns, *, base=BASE, period=PERIOD, faults=None):
    """Runs frames whose latency is that of the chosen precision times a slowdown; returns precision by frame."""
    chosen = []
    for number, slowdown in enumerate(slowdowns):
        chosen.append(subject.precision)
        extra = (faults or {}).get(number, {})
        subject.observe(Signals(number * period, base[subject.precision] * slowdown, **extra))
    return chosen


def misses(chosen, slowdowns, *, base=BASE, deadline=DEADLINE):
    return sum(base[name] * slowdown > deadline for name, slowdown in zip(chosen, slowdowns, strict=True))


def gaps(subject):
    times = [switch.time_s for switch in subject.switches]
    return [later - before for before, later in itertools.pairwise(times)]


def test_without_load_the_most_accurate_runs():
    subject = policy()
    assert set(drive(subject, [1.0] * 200)) == {"fp32"}
    assert subject.switches == [] and subject.notes == []


def test_under_load_the_most_accurate_that_fits_and_back_afterwards():
    slowdowns = [1.0] * 50 + [1.8] * 100 + [1.0] * 200
    subject = policy()
    chosen = drive(subject, slowdowns)
    # 1.8 x 2.5 ms fits into 95 % of 6 ms: there is no need for INT8.
    assert set(chosen[55:150]) == {"fp16"}
    assert chosen[-1] == "fp32"
    assert [switch.kind for switch in subject.switches] == ["load", "relax"]
    assert misses(chosen, slowdowns) <= 5 < misses(["fp32"] * 350, slowdowns) / 5


def test_heavier_load_goes_further_down():
    chosen = drive(policy(), [1.0] * 20 + [3.5] * 100)
    assert chosen[-1] == "int8"


def test_one_late_frame_changes_nothing():
    slowdowns = [1.0] * 30 + [9.0] + [1.0] * 30
    assert set(drive(policy(), slowdowns)) == {"fp32"}


def test_below_the_accuracy_floor_nothing_is_taken():
    subject = policy([LEVELS[0], Level("fp16", 0.97), LEVELS[2]])
    chosen = drive(subject, [1.0] * 20 + [1.8] * 100)
    assert "fp16" not in chosen and chosen[-1] == "int8"
    assert "0.9700 of FP32's accuracy" in subject.excluded["fp16"]


def test_where_no_precision_helps_it_stays_and_says_so():
    base = {"fp32": 5.0, "fp16": 5.1, "int8": 9.4}
    subject = policy(base=base)
    assert set(drive(subject, [1.0] * 20 + [3.0] * 200, base=base)) == {"fp32"}
    assert "no precision is faster than fp32 here" in subject.notes[0]
    assert "int8 takes 1.88 times as long" in subject.notes[0]


def test_what_does_not_help_under_load_is_left_again_and_held():
    # Fast when alone, and not under this load: found out only by trying.
    subject = policy([LEVELS[0], LEVELS[1]], hold_s=10.0)
    chosen = []
    for number in range(300):
        chosen.append(subject.precision)
        alone = number < 20
        subject.observe(Signals(number * PERIOD, BASE[subject.precision] if alone else 12.0))
    kinds = [switch.kind for switch in subject.switches]
    assert kinds[:2] == ["load", "no_help"]
    assert any("did not help" in note for note in subject.notes)
    # 28 s of load, held for 10 s and then for 20 s: tried twice at most.
    assert kinds.count("load") <= 2
    assert chosen.count("fp16") <= 2 * (1.0 / PERIOD + 2)


@pytest.mark.parametrize(
    ("fault", "said"), [({"finite": False}, "not finite"), ({"agreement": 0.3}, "agree"), ({}, "no detection")]
)
def test_faults_lead_to_the_most_careful_precision_at_once_and_are_held(fault, said):
    subject = policy(zero_streak=3, hold_s=20.0)
    slowdowns = [1.0] * 20 + [1.8] * 80
    faults = {number: {"detections": True} for number in range(60)}
    if fault:
        faults[60] = fault
    else:
        faults.update({number: {"detections": False} for number in range(60, 100)})
    chosen = drive(subject, slowdowns, faults=faults)
    assert chosen[59] == "fp16"
    switch = next(switch for switch in subject.switches if switch.kind == "fault")
    assert switch.target == "fp32" and said in switch.reason
    at = 61 if fault else 63
    assert chosen[at] == "fp32"
    if fault:
        assert "fp16" not in chosen[at:]


def test_an_empty_world_is_not_blamed_on_the_precision():
    subject = policy(zero_streak=3)
    slowdowns = [1.0] * 20 + [1.8] * 200
    faults = {number: {"detections": number < 60} for number in range(220)}
    chosen = drive(subject, slowdowns, faults=faults)
    assert [switch.kind for switch in subject.switches].count("fault") == 1
    # FP32 sees nothing either: FP16 may run again long before its hold is over.
    assert "fp16" in chosen[70:95]


def test_a_fault_of_the_most_careful_precision_is_noted():
    subject = policy()
    drive(subject, [1.0] * 5, faults={2: {"finite": False}})
    assert subject.switches == [] and "no more careful precision" in subject.notes[0]


def test_a_busy_device_keeps_the_faster_precision():
    slowdowns = [1.0] * 20 + [1.8] * 50 + [1.0] * 100
    busy = {number: {"load_percent": 99.0} for number in range(170)}
    assert drive(policy(), slowdowns, faults=busy)[-1] == "fp16"
    full = {number: {"memory_percent": 99.0} for number in range(170)}
    assert drive(policy(), slowdowns, faults=full)[-1] == "fp16"


loads = st.lists(st.tuples(st.floats(0.5, 8.0), st.integers(1, 60)), min_size=1, max_size=12).map(
    lambda parts: [slowdown for slowdown, count in parts for _ in range(count)]
)
retention = st.none() | st.floats(0.9, 1.0)
configs = st.builds(
    AdaptiveConfig,
    dwell_s=st.floats(0.0, 3.0),
    window=st.integers(2, 20),
    hold_s=st.floats(0.0, 20.0),
    target=st.floats(0.8, 1.0),
    relax=st.floats(0.2, 0.8),
    accuracy_floor=st.floats(0.9, 1.0),
)


@settings(max_examples=150, deadline=None)
@given(
    loads, configs, st.lists(retention, min_size=2, max_size=2), st.lists(st.floats(0.2, 3.0), min_size=3, max_size=3)
)
def test_whatever_the_load(slowdowns, config, kept, factors):
    base = dict(zip(("fp32", "fp16", "int8"), (5.0 * factor for factor in factors), strict=True))
    levels = [Level("fp32", 1.0), Level("fp16", kept[0]), Level("int8", kept[1])]
    subject = PrecisionPolicy(levels, config, DEADLINE)
    subject.calibrate(base)
    chosen = drive(subject, slowdowns, base=base)
    # Never below the floor.
    below = {
        level.precision
        for level in levels[1:]
        if level.retention is not None and level.retention < config.accuracy_floor
    }
    assert below.isdisjoint(chosen) and below == set(subject.excluded)
    # Never faster than the dwell time, without faults.
    assert all(gap >= config.dwell_s - 1e-9 for gap in gaps(subject))
    # For load only to what is faster when alone.
    assert all(base[s.target] < base[s.source] for s in subject.switches if s.kind == "load")
    assert all(switch.reason for switch in subject.switches)
    # The same every time.
    again = PrecisionPolicy(levels, config, DEADLINE)
    again.calibrate(base)
    assert drive(again, slowdowns, base=base) == chosen


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.1, 1.1), min_size=1, max_size=200))
def test_with_room_to_spare_it_never_leaves_the_most_accurate(slowdowns):
    subject = policy()
    assert set(drive(subject, slowdowns)) == {"fp32"}


@settings(max_examples=100, deadline=None)
@given(loads, st.sets(st.integers(0, 400), max_size=6))
def test_after_a_fault_the_precision_is_not_taken_within_its_hold(slowdowns, broken):
    subject = policy(hold_s=5.0)
    drive(subject, slowdowns, faults={number: {"finite": False} for number in broken})
    for place, switch in enumerate(subject.switches):
        if switch.kind == "fault":
            assert switch.target == "fp32"
            later = [s for s in subject.switches[place + 1 :] if s.time_s < switch.time_s + 5.0]
            assert all(s.target != switch.source for s in later)
        else:
            before = subject.switches[place - 1].time_s if place else -1e9
            assert switch.time_s - before >= subject.config.dwell_s - 1e-9


H100 = {"fp32": 0.921, "fp16": 0.208}
"""Median of one ResNet-18 as a graph on an H100 [ms]: how much a precision can help."""
NO_VNNI = {"fp32": 5.0, "fp16": 5.1, "int8": 9.4}
"""A CPU on which no precision helps."""


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
@pytest.mark.parametrize("base", [H100, NO_VNNI, BASE], ids=["h100", "no help", "moderate"])
def test_recorded_load(path, base):
    """The slowdown over time is recorded from real runs under real load, by counts and not by milliseconds."""
    trace = json.loads(path.read_text())
    slowdowns = trace["slowdown"]
    idle = sorted(s for s, under in zip(slowdowns, trace["loaded"], strict=True) if not under)
    # As in the experiment: 1.2 times the p95 of FP32 without load.
    deadline = 1.2 * base["fp32"] * idle[int(0.95 * len(idle))]
    subject = PrecisionPolicy([Level(name) for name in base], AdaptiveConfig(), deadline)
    subject.calibrate(base)
    chosen = drive(subject, slowdowns, base=base, period=trace["period_s"])
    fixed = misses(["fp32"] * len(slowdowns), slowdowns, base=base, deadline=deadline)
    late = misses(chosen, slowdowns, base=base, deadline=deadline)
    assert all(gap >= subject.config.dwell_s - 1e-9 for gap in gaps(subject))
    if base is NO_VNNI:
        assert set(chosen) == {"fp32"} and "no precision is faster than fp32" in subject.notes[0]
        return
    assert late <= fixed
    assert len(subject.switches) <= 6
    if base is H100 and fixed >= 10:
        # Two late frames are what it takes to notice.
        assert late <= max(3, fixed / 5)
