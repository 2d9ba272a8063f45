"""Percentiles and proportions with 95 % confidence intervals, AUROC; nothing is trimmed and nothing left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

CONFIDENCE = 0.95
PERCENTILES = (50, 95, 99)


def describe(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Returns the statistics object of docs/record.md: ``n``, ``mean``, ``min``, ``max``, ``p50``, ``p95``, ``p99``.

    Args:
        values: Finite numbers, any order; none is possible.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if ordered.size and not (math.isfinite(ordered[0]) and math.isfinite(ordered[-1])):
        raise ValueError("statistics are taken of finite numbers only")
    n = int(ordered.size)
    return {
        "n": n,
        # Rounding must not push the mean of equal values outside of them.
        "mean": float(np.clip(ordered.mean(), ordered[0], ordered[-1])) if n else None,
        "min": float(ordered[0]) if n else None,
        "max": float(ordered[-1]) if n else None,
        **{f"p{percent}": percentile(ordered, percent) for percent in PERCENTILES},
    }


def percentile(ordered: np.ndarray, percent: float) -> dict[str, Any]:
    """Returns ``{value, low, high, n, reason}`` of one percentile.

    The value interpolates linearly between order statistics. The interval is that of two order statistics whose
    binomial probability of having the percentile between them is at least 95 %, at most 2.5 % on either side; it
    assumes nothing about the distribution. Where ``n`` is too small for both to exist, the value is ``None``.

    Args:
        ordered: Ascending finite numbers, shape ``(n,)``.
        percent: 0 < percent < 100.
    """
    n = len(ordered)
    ranks = order_ranks(n, percent / 100)
    if ranks is None:
        least = samples_needed(percent / 100)
        reason = f"p{percent:g} needs at least {least} samples, and there {'is' if n == 1 else 'are'} {n}"
        return {"value": None, "low": None, "high": None, "n": n, "reason": reason}
    low, high = float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1])
    return {"value": _interpolated(ordered, percent / 100), "low": low, "high": high, "n": n, "reason": None}


def order_ranks(n: int, share: float) -> tuple[int, int] | None:
    """Returns the ranks (from 1) of the order statistics that bound a quantile, ``None`` when ``n`` is too small.

    With ``B`` binomial ``(n, share)``, the number of samples below the quantile: the lower rank is the largest ``l``
    with ``P(B < l) <= 0.025``, the upper the smallest ``u`` with ``P(B >= u) <= 0.025``.
    """
    if n < 1:
        return None
    from scipy.special import bdtr

    tail = (1 - CONFIDENCE) / 2

    def below(rank: int) -> float:
        """P(B < rank)."""
        return 0.0 if rank <= 0 else float(bdtr(rank - 1, n, share))

    def above(rank: int) -> float:
        """P(B >= rank), from the mirrored distribution: no cancellation near 0."""
        return 1.0 if rank <= 0 else float(bdtr(n - rank, n, 1 - share))

    if below(1) > tail or above(n) > tail:
        return None
    low, high = 1, n
    while low < high:  # the largest rank whose lower tail is small enough
        middle = (low + high + 1) // 2
        low, high = (middle, high) if below(middle) <= tail else (low, middle - 1)
    lower = low
    low, high = 1, n
    while low < high:  # the smallest rank whose upper tail is small enough
        middle = (low + high) // 2
        low, high = (low, middle) if above(middle) <= tail else (middle + 1, high)
    return lower, high


def samples_needed(share: float) -> int:
    """Returns the smallest number of samples for which both bounds of a quantile exist: 72 for 0.95, 368 for 0.99."""
    tail = (1 - CONFIDENCE) / 2
    n = math.ceil(math.log(tail) / math.log(max(share, 1 - share)))
    while order_ranks(n, share) is None:
        n += 1
    while n > 1 and order_ranks(n - 1, share) is not None:
        n -= 1
    return n


def proportion(count: int, n: int) -> dict[str, Any]:
    """Returns ``{value, low, high, count, n}`` with the Clopper-Pearson interval; ``None`` values for ``n`` = 0."""
    if not 0 <= count <= n:
        raise ValueError(f"{count} of {n} is no proportion")
    if n == 0:
        return {"value": None, "low": None, "high": None, "count": 0, "n": 0}
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, n - count + 1, tail))
    high = 1.0 if count == n else float(betaincinv(count + 1, n - count, 1 - tail))
    return {"value": count / n, "low": low, "high": high, "count": count, "n": n}


def auroc(scores: Sequence[float] | np.ndarray, positive: Sequence[bool] | np.ndarray) -> float | None:
    """Returns the probability that a positive scores higher than a negative, ties counted half.

    ``None`` when there are no positives or no negatives.
    """
    values = np.asarray(scores, dtype=np.float64)
    truth = np.asarray(positive, dtype=bool)
    if values.shape != truth.shape:
        raise ValueError(f"{values.shape[0]} scores and {truth.shape[0]} truths")
    yes, no = values[truth], np.sort(values[~truth])
    if not yes.size or not no.size:
        return None
    # Twice the Mann-Whitney U is an integer, so that the result is exact up to the one division.
    twice = np.searchsorted(no, yes, side="left").sum() + np.searchsorted(no, yes, side="right").sum()
    return float(int(twice) / (2 * yes.size * no.size))


def _interpolated(ordered: np.ndarray, share: float) -> float:
    """Linear interpolation between order statistics: the same as NumPy's default."""
    position = (len(ordered) - 1) * share
    index = min(int(position), len(ordered) - 1)
    after = min(index + 1, len(ordered) - 1)
    low, high = float(ordered[index]), float(ordered[after])
    weight = position - index
    return min(max(low * (1 - weight) + high * weight, low), high)
