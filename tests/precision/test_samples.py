"""Samples: hashes, splits that never share a frame, and data that no range can be measured on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import ConfigurationError
from saccade.precision.samples import Samples, apart, require_apart, require_usable


def some(values, source="there"):
    return Samples({"x": np.asarray(values, np.float32).reshape(-1, 1)}, source)


@given(st.lists(st.integers(0, 50), min_size=2, max_size=80).filter(lambda v: len(set(v)) > 1))
def test_no_frame_is_on_both_sides(values):
    """Whatever repeats, the parts share no hash, and together they are everything."""
    first, second = apart(some(values))
    require_apart(first, second)
    assert len(first) and len(second)
    assert sorted([*first.inputs["x"][:, 0], *second.inputs["x"][:, 0]]) == sorted(values)
    assert sorted([*first.hashes, *second.hashes]) == sorted(some(values).hashes)


@given(st.lists(st.integers(0, 1000), min_size=60, max_size=90, unique=True), st.randoms())
def test_a_frame_keeps_its_side(values, random):
    """The side depends on the frame alone, not on what else is there or in which order."""
    shuffled = list(values)
    random.shuffle(shuffled)
    held = set(apart(some(values))[1].hashes)
    assert set(apart(some(shuffled))[1].hashes) == held
    fewer = apart(some(values[:-1]))[1]
    assert set(fewer.hashes) <= held or len(held) == 1


def test_one_frame_cannot_be_split():
    with pytest.raises(ConfigurationError, match="cannot be both"):
        apart(some([1, 1, 1]))


def test_overlap_is_refused():
    with pytest.raises(ConfigurationError, match=r"1 of 2 evaluation samples \(b\) are also calibration samples \(a\)"):
        require_apart(some([1, 2, 3], "a"), some([3, 4], "b"))


def test_digest_knows_no_order():
    assert some([1, 2, 3]).digest == some([3, 1, 2]).digest != some([1, 2, 4]).digest


def test_the_same_values_under_another_input_are_another_frame_only_by_value():
    """Truth has no part in the hash, inputs have."""
    one = Samples({"x": np.zeros((1, 2), np.float32)}, "a", {"hazard": np.ones(1, bool)})
    assert one.hashes == Samples({"x": np.zeros((1, 2), np.float32)}, "b").hashes


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (some([]), "holds no samples"),
        (some([2.0] * 5), "every value .* is 2"),
        (Samples({"x": np.tile(np.arange(4.0, dtype="f4"), (5, 1))}, "s"), "all 5 samples of s are the same"),
        (some([1, np.nan]), "NaN"),
        (some(range(99)), "99 different samples"),
        (some([*range(60), *range(60)]), "60 different samples"),
    ],
)
def test_unusable(samples, text):
    with pytest.raises(ConfigurationError, match=text):
        require_usable(samples, fewest=100, allow_few=False)


def test_few_can_be_allowed():
    require_usable(some(range(99)), fewest=100, allow_few=True)


@given(st.integers(1, 300), st.integers(1, 100))
def test_spread(have, count):
    """As many as asked for, different ones, from the first to the last."""
    chosen = some(range(have)).spread(count).inputs["x"][:, 0]
    assert len(set(chosen)) == len(chosen) == min(have, count)
    assert chosen[0] == 0 and (count == 1 or chosen[-1] == have - 1)
