from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.frame import CLASS_COUNT, CLASSES
from saccade.models import scores


def test_confusion_counts_only_what_is_valid():
    truth = np.array([[0, 1], [2, 2]], dtype=np.uint8)
    said = np.array([[0, 2], [2, 5]], dtype=np.uint8)
    confusion = scores.confusion_from_labels(truth, said, np.array([[True, True], [True, False]]))
    assert confusion.sum() == 3
    assert confusion[0, 0] == confusion[1, 2] == confusion[2, 2] == 1


def test_iou_of_a_known_case():
    truth = np.array([0] * 6 + [1] * 4)
    said = np.array([0] * 5 + [1] + [1] * 2 + [0] * 2)
    confusion = scores.confusion_from_labels(truth, said)
    by_class = scores.intersection_over_union(confusion)
    assert by_class["floor"] == pytest.approx(5 / 8)
    assert by_class["structure"] == pytest.approx(2 / 5)
    assert [by_class[name] for name in CLASSES[2:]] == [None] * 4
    assert scores.mean_iou(confusion) == pytest.approx((5 / 8 + 2 / 5) / 2)


def test_iou_of_nothing_is_none():
    assert scores.mean_iou(np.zeros((CLASS_COUNT, CLASS_COUNT), dtype=int)) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_auroc_is_the_share_of_ordered_pairs(samples):
    truth = np.array([positive for positive, _ in samples])
    score = np.array([value for _, value in samples], dtype=float)
    pairs = [(a, b) for a in score[truth] for b in score[~truth]]
    expected = np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]) if pairs else None
    found = scores.area_under_roc(truth, score)
    assert found is None if expected is None else found == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.5, 1.0))
def test_threshold_keeps_the_recall(positives, recall):
    truth = np.ones(len(positives), dtype=bool)
    threshold = scores.threshold_from_recall(truth, np.array(positives), recall=recall, low=0.0, high=1.0)
    assert (np.array(positives) >= threshold).mean() >= recall - 1e-9


def test_hazard_scores_count_every_case():
    truth = np.array([True, True, False, False, True])
    result = scores.hazard_scores(truth, np.array([0.9, 0.2, 0.6, 0.1, 0.5]), threshold=0.5)
    assert (result["tp"], result["fn"], result["fp"], result["tn"], result["n"]) == (2, 1, 1, 1, 5)
    assert result["recall"] == pytest.approx(2 / 3)
    assert result["auroc"] == pytest.approx(4 / 6)


def test_clearance_scores():
    truth = np.array([[1.0, 2.0, 30.0, 10.0]])
    result = scores.clearance_scores(truth, np.array([[1.1, 2.0, 30.0, 12.0]]))
    assert result["median_m"] == pytest.approx(0.05)
    assert result["mean_m"] == pytest.approx(2.1 / 4)
    assert result["mean_below_5_m"] == pytest.approx(0.05)
    assert result["too_far"] == pytest.approx(0.25)
    assert result["n"] == 4
