"""Label counts against NumPy, IoU and clearance errors by hand."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
import warp as wp
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.frame import BACKGROUND, CLASS_COUNT, CLASSES
from saccade.validation.accuracy import ConfusionCounter, clearance_errors, mean_iou, pooled_iou

DEVICES = ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)]


def expected_counts(predicted, truth, ignore):
    scored = (truth < CLASS_COUNT) if ignore is None else (truth < CLASS_COUNT) & (truth != ignore)
    predicted, truth = predicted[scored], truth[scored]
    intersection = [int(((predicted == c) & (truth == c)).sum()) for c in range(CLASS_COUNT)]
    union = [int(((predicted == c) | (truth == c)).sum()) for c in range(CLASS_COUNT)]
    return intersection, union, int(scored.sum()), int((predicted == truth).sum())


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 13),
    seed=st.integers(0, 10_000),
    ignore=st.sampled_from([None, BACKGROUND, 0]),
)
def test_counts_against_numpy(device, rows, columns, seed, ignore):
    if device != "cpu" and not wp.is_cuda_available():
        pytest.skip("no CUDA device")
    rng = np.random.default_rng(seed)
    values = np.array([*range(CLASS_COUNT), 6, 200, 255], np.uint8)
    predicted, truth = (rng.choice(values, (rows, columns)) for _ in range(2))
    counter = ConfusionCounter((rows, columns), CLASS_COUNT, device, ignore=ignore)
    arrays = [wp.array(labels, dtype=wp.uint8, device=device) for labels in (predicted, truth)]
    expected = expected_counts(predicted, truth, ignore)
    assert counter.count(*arrays) == expected
    # The counts of one frame do not leak into the next, with the same and with other arrays.
    assert counter.count(*arrays) == expected
    swapped = expected_counts(truth, predicted, ignore)
    assert counter.count(arrays[1], arrays[0]) == swapped


def test_a_lidar_without_returns_and_a_camera_of_the_sky():
    sky = wp.full((4, 5), value=BACKGROUND, dtype=wp.uint8, device="cpu")
    nothing = [0] * CLASS_COUNT
    assert ConfusionCounter((4, 5), CLASS_COUNT, "cpu", ignore=BACKGROUND).count(sky, sky) == (nothing, nothing, 0, 0)
    seen = [0, 0, 0, 0, 0, 20]
    assert ConfusionCounter((4, 5), CLASS_COUNT, "cpu").count(sky, sky) == (seen, seen, 20, 20)


def test_changed_contents_are_counted_anew():
    labels = wp.zeros((2, 2), dtype=wp.uint8, device="cpu")
    counter = ConfusionCounter((2, 2), CLASS_COUNT, "cpu")
    first = counter.count(labels, labels)
    labels.fill_(3)
    second = counter.count(labels, labels)
    assert first[0] == [4, 0, 0, 0, 0, 0] and second[0] == [0, 0, 0, 4, 0, 0]


def test_other_arrays_are_refused():
    counter = ConfusionCounter((2, 2), CLASS_COUNT, "cpu")
    good = wp.zeros((2, 2), dtype=wp.uint8, device="cpu")
    with pytest.raises(ValueError, match=r"truth: labels of shape \(2, 2\)"):
        counter.count(good, wp.zeros((2, 3), dtype=wp.uint8, device="cpu"))
    with pytest.raises(ValueError, match="predicted"):
        counter.count(wp.zeros((2, 2), dtype=wp.int32, device="cpu"), good)


def test_a_frame_is_counted_in_well_under_a_millisecond_without_arrays(monkeypatch):
    rng = np.random.default_rng(0)
    labels = [
        wp.array(rng.integers(0, CLASS_COUNT, (224, 224)).astype(np.uint8), dtype=wp.uint8, device="cpu")
        for _ in range(2)
    ]
    counter = ConfusionCounter((224, 224), CLASS_COUNT, "cpu")
    counter.count(*labels)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        counter.count(*labels)
        best = min(best, time.perf_counter() - start)
    assert best < 1e-3
    made = []
    monkeypatch.setattr(wp.array, "__init__", lambda *a, **k: made.append(a))
    tracemalloc.start()
    try:
        counter.count(*labels)
        before = tracemalloc.take_snapshot()
        for _ in range(50):
            counter.count(*labels)
        grown = tracemalloc.take_snapshot().compare_to(before, "filename")
    finally:
        tracemalloc.stop()
    assert made == []
    # Warp keeps a small tuple per launch until the next garbage collection; a frame of labels would be 50 KB.
    assert sum(entry.size_diff for entry in grown) < 50 * 400


def test_iou_is_pooled_over_frames_and_absent_classes_are_left_out():
    frames = [([10, 0, 0, 0, 0, 0], [20, 5, 0, 0, 0, 0]), ([30, 0, 0, 0, 0, 0], [30, 5, 0, 0, 0, 0])]
    iou = pooled_iou(frames)
    assert iou == {"floor": 0.8, "structure": 0.0, "obstacle": None, "person": None, "robot": None, "background": None}
    assert mean_iou(iou) == pytest.approx(0.4)
    assert mean_iou(pooled_iou([])) is None and set(pooled_iou([])) == set(CLASSES)


def test_clearance_errors_are_capped_at_the_range():
    assert clearance_errors([1.0, 40.0, 3.0, None], [1.5, 30.0, 33.0, 2.0], 30.0) == [0.5, 0.0, 27.0]
    assert clearance_errors([40.0], [30.0], None) == [10.0]
    with pytest.raises(ValueError):
        clearance_errors([1.0], [1.0, 2.0], None)


def test_a_class_that_is_not_in_the_truth_is_not_scored_but_its_false_pixels_cost_the_others():
    """Ten floor pixels taken for background: no background in the truth, so its IoU is null and floor's falls."""
    intersection, union, support = [90, 0, 0, 0, 0, 0], [100, 0, 0, 0, 0, 10], [100, 0, 0, 0, 0, 0]
    iou = pooled_iou([(intersection, union)], support=[support])
    assert iou["background"] is None
    assert mean_iou(iou) == pytest.approx(0.9)
    assert pooled_iou([(intersection, union)])["background"] == 0.0
    present = [[100, 0, 0, 0, 0, 0], [50, 0, 0, 0, 0, 1]]
    assert pooled_iou([(intersection, union), (intersection, union)], support=present)["background"] == 0.0


def test_support_is_the_number_of_true_pixels():
    """Support counts the truth, whatever was predicted, and leaves out what is ignored."""
    truth = wp.array(np.array([[0, 0, 5], [1, 3, 5]], np.uint8), device="cpu")
    predicted = wp.array(np.zeros((2, 3), np.uint8), device="cpu")
    counter = ConfusionCounter((2, 3), 6, "cpu", ignore=5)
    counter.count(predicted, truth)
    assert counter.support == [2, 1, 0, 1, 0, 0]
