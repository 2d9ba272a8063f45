"""Statistics against NumPy, SciPy, brute force and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from saccade.telemetry.statistics import auroc, describe, order_ranks, percentile, proportion, samples_needed

NUMBERS = st.floats(-1e9, 1e9, allow_nan=False)


def test_samples_needed_for_a_two_sided_interval():
    assert samples_needed(0.95) == 72
    assert samples_needed(0.99) == 368
    assert samples_needed(0.5) == 6


@pytest.mark.parametrize(("percent", "least"), [(50, 6), (95, 72), (99, 368)])
def test_a_percentile_that_n_cannot_support_is_null_with_the_reason(percent, least):
    short = percentile(np.arange(least - 1.0), percent)
    assert short["value"] is None and short["low"] is None and short["high"] is None
    assert short["n"] == least - 1 and f"at least {least} samples" in short["reason"]
    enough = percentile(np.arange(float(least)), percent)
    assert enough["reason"] is None and enough["low"] <= enough["value"] <= enough["high"]


@given(n=st.integers(1, 600), share=st.sampled_from([0.05, 0.5, 0.9, 0.95, 0.99]))
def test_ranks_are_the_tightest_with_two_and_a_half_percent_on_either_side(n, share):
    found = order_ranks(n, share)
    cdf = stats.binom.cdf(np.arange(-1, n + 1), n, share)  # cdf[k] = P(B < k)
    low = [rank for rank in range(1, n + 1) if cdf[rank] <= 0.025]
    high = [rank for rank in range(1, n + 1) if 1 - cdf[rank] <= 0.025 + 1e-12]
    expected = (max(low), min(high)) if low and high else None
    assert found == expected


@given(st.lists(NUMBERS, min_size=1, max_size=500))
def test_describe_against_numpy(values):
    found = describe(values)
    assert found["n"] == len(values)
    assert found["min"] == min(values) and found["max"] == max(values)
    assert found["mean"] == pytest.approx(math.fsum(values) / len(values), rel=1e-9, abs=1e-3)
    for percent in (50, 95, 99):
        entry = found[f"p{percent}"]
        if entry["value"] is None:
            assert entry["reason"]
            continue
        assert entry["value"] == pytest.approx(np.percentile(values, percent), rel=1e-9, abs=1e-6)
        assert found["min"] <= entry["low"] <= entry["value"] <= entry["high"] <= found["max"]
        assert entry["low"] in values and entry["high"] in values


@given(st.lists(NUMBERS, max_size=80), st.randoms())
def test_order_does_not_matter_and_nothing_is_trimmed(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    first, second = describe(values), describe(shuffled)
    assert first.pop("mean") == pytest.approx(second.pop("mean"), rel=1e-9, abs=1e-6) if values else True
    assert {**first, "mean": 0} == {**second, "mean": 0}


def test_describe_nothing_and_the_non_finite():
    empty = describe([])
    assert empty["n"] == 0 and empty["mean"] is empty["min"] is empty["max"] is None
    assert empty["p50"]["value"] is None
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="finite"):
            describe([1.0, bad, 2.0])


@pytest.mark.parametrize(("n", "percent"), [(72, 95), (200, 50), (400, 95), (400, 99)])
def test_intervals_cover_the_true_percentile(n, percent):
    rng = np.random.default_rng(n + percent)
    true = stats.lognorm.ppf(percent / 100, 0.7)
    repeats, hits, above, below = 2000, 0, 0, 0
    for _ in range(repeats):
        entry = percentile(np.sort(rng.lognormal(0, 0.7, n)), percent)
        hits += entry["low"] <= true <= entry["high"]
        above += entry["low"] > true
        below += entry["high"] < true
    # At least 95 %, and at most 2.5 % on either side, within four standard errors of this simulation.
    assert hits / repeats >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / repeats)
    tail = 0.025 + 4 * math.sqrt(0.025 * 0.975 / repeats)
    assert above / repeats <= tail and below / repeats <= tail


@given(st.integers(0, 400), st.integers(0, 400))
def test_proportion_against_scipy(count, more):
    n = count + more
    found = proportion(count, n)
    if n == 0:
        assert found == {"value": None, "low": None, "high": None, "count": 0, "n": 0}
        return
    interval = stats.binomtest(count, n).proportion_ci(0.95, "exact")
    assert found["value"] == count / n and (found["count"], found["n"]) == (count, n)
    assert found["low"] == pytest.approx(interval.low, abs=1e-9)
    assert found["high"] == pytest.approx(interval.high, abs=1e-9)
    assert found["low"] <= found["value"] <= found["high"]


@pytest.mark.parametrize(("count", "n"), [(-1, 3), (4, 3)])
def test_no_proportion(count, n):
    with pytest.raises(ValueError, match="no proportion"):
        proportion(count, n)


def test_clopper_pearson_covers():
    rng = np.random.default_rng(1)
    for true, n in ((0.02, 400), (0.3, 50)):
        hits = [(lambda e: e["low"] <= true <= e["high"])(proportion(int(k), n)) for k in rng.binomial(n, true, 2000)]
        assert np.mean(hits) >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 2000)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5).map(lambda i: i / 5), st.booleans()), max_size=40))
def test_auroc_against_all_pairs(pairs):
    scores, truth = [s for s, _ in pairs], [t for _, t in pairs]
    yes = [s for s, t in pairs if t]
    no = [s for s, t in pairs if not t]
    found = auroc(scores, truth)
    if not yes or not no:
        assert found is None
        return
    expected = sum((a > b) + 0.5 * (a == b) for a in yes for b in no) / (len(yes) * len(no))
    assert found == pytest.approx(expected, abs=1e-12)
    assert found == pytest.approx(stats.mannwhitneyu(yes, no).statistic / (len(yes) * len(no)), abs=1e-12)


def test_auroc_needs_one_truth_per_score():
    with pytest.raises(ValueError, match="2 scores and 1 truths"):
        auroc([0.1, 0.2], [True])
