"""From measured scenes to figures with intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.validation.accuracy import mean_iou, pooled_iou
from saccade.validation.tradeoff_candidates import Candidate
from saccade.validation.tradeoff_results import (
    Measured,
    bootstrap_interval,
    candidate_entries,
    estimate,
    gate_state,
    invalid_reason,
    miou_statistic,
)


def cell(right=90, wrong=10, *, frames=20, ms=5.0, hazard=(), **fields):
    """A scene with two classes, as many of each."""
    support = [right + wrong, right + wrong, 0, 0, 0, 0]
    union = [right + 2 * wrong, right + 2 * wrong, 0, 0, 0, 0]
    return {
        "frames": frames,
        "intersection": [right, right, 0, 0, 0, 0],
        "union": union,
        "support": support,
        "predicted": [True, True, False, False, False, False],
        "inference_ms": [ms] * frames,
        "latency_ms": [ms + 1] * frames,
        "hazard": list(hazard),
        "clearance": [0.0, 0],
        "non_finite": 0,
        "memory_bytes": None,
        "engine": {"engine": "onnxruntime", "version": "1"},
        **fields,
    }


def entries(cells, reference, **more):
    fp32 = Measured(Candidate("camera"), {}, reference)
    return candidate_entries(Measured(Candidate("camera", "int8"), {}, cells, **more), fp32, device="cpu", gate=0.99)


def test_accuracy_is_the_pooled_miou_of_the_record():
    cells = [cell(90, 10), cell(50, 50), cell(70, 30)]
    value = miou_statistic(cells)(np.arange(3))
    pairs = [(c["intersection"], c["union"]) for c in cells]
    assert value == pytest.approx(mean_iou(pooled_iou(pairs, support=[c["support"] for c in cells])))


def test_retention_compares_the_same_scenes():
    # Scenes differ wildly, the two candidates do not: the ratio is certain although both accuracies are not.
    reference = [cell(right, 100 - right) for right in (20, 40, 60, 80, 95)]
    [found] = entries(reference, reference)
    assert found["retention"]["value"] == 1.0
    assert found["retention"]["interval"] == [1.0, 1.0]
    low, high = found["accuracy"]["interval"]
    assert high - low > 0.1
    assert found["retention"]["kept"] and found["retention"]["certain"]


def test_fewer_than_five_scenes_have_no_interval_and_say_so():
    [found] = entries([cell()] * 4, [cell()] * 4)
    assert found["accuracy"]["interval"] is None and "at least 5 scenes" in found["accuracy"]["reason"]
    assert not found["retention"]["certain"]


def test_without_the_reference_there_is_no_retention():
    [found] = candidate_entries(Measured(Candidate("camera", "int8"), {}, [cell()] * 5), None, device="cpu", gate=0.99)
    assert found["retention"]["value"] is None and found["retention"]["kept"] is None


def test_batches_have_their_own_entry_with_their_own_accuracy():
    batch = [{**cell(80, 20), "run_ms": [10.0] * 12, "energy_j": 3.2, "energy_absent": None} for _ in range(5)]
    fp32 = Measured(Candidate("camera"), {}, [cell()] * 5, {16: [{**entry, **cell()} for entry in batch]})
    first, second = candidate_entries(
        Measured(Candidate("camera", "int8"), {}, [cell()] * 5, {16: batch}), fp32, device="cpu", gate=0.99
    )
    assert (first["batch"], second["batch"]) == (1, 16)
    assert second["accuracy"]["value"] < first["accuracy"]["value"] == pytest.approx(90 / 110)
    assert second["throughput"]["value"] == pytest.approx(1600)
    assert second["energy_per_frame"]["value"] == pytest.approx(0.2)
    assert second["retention"]["value"] == pytest.approx((80 / 120) / (90 / 110))


def test_times_keep_every_sample_and_a_percentile_that_n_cannot_bear_is_null():
    [found] = entries([cell(ms=2.0), cell(ms=4.0)], [cell(), cell()])
    assert found["latency"]["n"] == 40 and found["latency"]["value"] == pytest.approx(3.0)
    assert found["latency_p99"]["value"] is None and "needs at least" in found["latency_p99"]["reason"]


def test_a_network_without_labels_is_judged_by_its_hazard():
    pairs = [[0.9, True], [0.1, False], [0.4, True], [0.6, False]]
    cells = [cell(intersection=None, union=None, support=None, predicted=None, hazard=pairs) for _ in range(5)]
    [found] = entries(cells, cells)
    assert found["accuracy"]["metric"] == "hazard_auroc" and found["accuracy"]["value"] == 0.75


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"non_finite": 3}, "3 of 20 frames"),
        ({"predicted": [True, False, False, False, False, False]}, "collapsed"),
        ({}, None),
    ],
)
def test_what_must_not_be_used(changes, said):
    found = invalid_reason([cell(**changes)])
    assert found is None if said is None else said in found


def test_an_entry_says_whether_its_engine_was_compared_and_how_it_was_found():
    figures = {"passed": False, "relative_l2": {"labels": 0.13}}
    built = {"engine": "tensorrt", "version": "8.5", "qualification": figures}
    [loop, batch] = entries(
        [cell(engine=built)] * 5, [cell()] * 5, batches={4: [cell(run_ms=[1.0], engine={"engine": "onnxruntime"})] * 5}
    )
    assert loop["qualified"] is False and loop["qualification"] == figures
    # Another engine of the same candidate: ONNX Runtime, which there is nothing to compare with.
    assert batch["qualified"] is None and batch["qualification"] is None


def test_gate_states():
    assert gate_state({"value": 0.995, "interval": [0.98, 1.0]}, 0.99) == {"gate": 0.99, "kept": True, "certain": False}
    assert gate_state({"value": 0.9, "interval": [0.88, 0.92]}, 0.99) == {"gate": 0.99, "kept": False, "certain": True}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 1000)), min_size=5, max_size=12))
def test_intervals_lie_within_the_range_of_the_scenes_and_around_nothing_else(counts):
    cells = [cell(right, wrong) for right, wrong in counts]
    found = estimate(miou_statistic(cells), cells)
    single = [float(miou_statistic([c])(np.arange(1))) for c in cells]
    low, high = found["interval"]
    assert min(single) - 1e-9 <= low <= high <= max(single) + 1e-9
    assert estimate(miou_statistic(cells), cells) == found  # the same every time


def test_the_interval_of_a_mean_agrees_with_theory():
    values = np.random.default_rng(3).normal(10.0, 2.0, 200)
    low, high = bootstrap_interval(lambda rows: values[rows].mean(axis=-1), 200)
    half = 1.96 * values.std() / np.sqrt(200)
    assert low == pytest.approx(values.mean() - half, abs=0.05)
    assert high == pytest.approx(values.mean() + half, abs=0.05)
