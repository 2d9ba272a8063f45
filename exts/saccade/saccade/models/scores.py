"""Held-out scores of the networks in NumPy: pooled mIoU, AUROC, the hazard threshold, clearance errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saccade.frame import CLASS_COUNT, CLASSES


def confusion_from_labels(truth: np.ndarray, predicted: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Counts pixels or returns by true (row) and predicted (column) class, shape ``(6, 6)``.

    Args:
        truth: True class indices, any shape.
        predicted: Predicted class indices, the same shape.
        valid: What is scored, the same shape; ``None`` = everything.
    """
    truth, predicted = truth.astype(np.int64).ravel(), predicted.astype(np.int64).ravel()
    if valid is not None:
        keep = valid.ravel().astype(bool)
        truth, predicted = truth[keep], predicted[keep]
    return np.bincount(truth * CLASS_COUNT + predicted, minlength=CLASS_COUNT**2).reshape(CLASS_COUNT, CLASS_COUNT)


def intersection_over_union(confusion: np.ndarray) -> dict[str, float | None]:
    """Returns IoU by class; ``None`` for a class that is neither in the truth nor in the prediction."""
    intersection = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    return {name: float(intersection[i] / union[i]) if union[i] else None for i, name in enumerate(CLASSES)}


def mean_iou(confusion: np.ndarray) -> float | None:
    """Returns the mean IoU over the classes that occur; ``None`` when none does."""
    present = [value for value in intersection_over_union(confusion).values() if value is not None]
    return float(np.mean(present)) if present else None


def area_under_roc(truth: Sequence[bool] | np.ndarray, score: Sequence[float] | np.ndarray) -> float | None:
    """Returns the Mann-Whitney AUROC, ties counted half; ``None`` when only one class occurs."""
    truth, score = np.asarray(truth, dtype=bool), np.asarray(score, dtype=np.float64)
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return None
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def threshold_from_recall(
    truth: Sequence[bool] | np.ndarray,
    score: Sequence[float] | np.ndarray,
    *,
    recall: float,
    low: float = 0.05,
    high: float = 0.5,
) -> float:
    """Returns the highest threshold from ``low`` to ``high`` whose ``score >= threshold`` has at least ``recall``."""
    positive = np.sort(np.asarray(score, dtype=np.float64)[np.asarray(truth, dtype=bool)])
    if not len(positive):
        return high
    allowed = int(np.floor((1.0 - recall) * len(positive) + 1e-9))
    # Just below the score that must still be found, so that rounding does not lose it.
    return float(np.clip(np.floor(positive[allowed] * 1000) / 1000, low, high))


def hazard_scores(truth: np.ndarray, score: np.ndarray, *, threshold: float) -> dict[str, float | int | None]:
    """Returns AUROC, and the confusion, recall and precision at ``threshold``."""
    truth, said = np.asarray(truth, dtype=bool), np.asarray(score) >= threshold
    tp, fp = int((truth & said).sum()), int((~truth & said).sum())
    fn, tn = int((truth & ~said).sum()), int((~truth & ~said).sum())
    return {
        "auroc": area_under_roc(truth, score),
        "threshold": threshold,
        "recall": tp / (tp + fn) if tp + fn else None,
        "precision": tp / (tp + fp) if tp + fp else None,
        "specificity": tn / (tn + fp) if tn + fp else None,
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "n": len(truth),
    }


def clearance_scores(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float | int]:
    """Returns statistics of the absolute clearance error [m] over all sectors of all frames.

    ``too_far`` is the share of sectors in which the prediction overlooks something by more than 0.5 m.
    """
    error = np.abs(predicted - truth).ravel()
    near = truth.ravel() < 5.0
    return {
        "median_m": float(np.median(error)),
        "mean_m": float(error.mean()),
        "p95_m": float(np.percentile(error, 95)),
        "median_below_5_m": float(np.median(error[near])) if near.any() else 0.0,
        "mean_below_5_m": float(error[near].mean()) if near.any() else 0.0,
        "too_far": float(((predicted - truth).ravel() > 0.5).mean()),
        "n": int(error.size),
    }
