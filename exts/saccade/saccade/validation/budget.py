"""Budgets: limits on a run's figures, each judged with the interval that its sample supports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saccade.config import Budgets

P99_SAMPLES = 400
"""Judged decisions from which a p99 budget is judged: its interval exists from 368, and 400 leave room above it."""

_DESCRIPTIONS = {
    "latency_p95_ms": ("95 % of the decisions come within", "ms", "<="),
    "latency_p99_ms": ("99 % of the decisions come within", "ms", "<="),
    "inference_p95_ms": ("95 % of the decisions have their inference done within", "ms", "<="),
    "deadline_miss_rate": ("Share of decisions later than the deadline", "", "<="),
    "dropped": ("Sensor samples that were due and not delivered", "", "<="),
    "stale": ("Frames seen twice or out of order", "", "<="),
    "realtime_factor": ("Simulated time over wall time", "", ">="),
    "camera_miou": ("Camera labels against the truth, mean IoU over classes", "", ">="),
    "lidar_miou": ("LiDAR labels against the truth, mean IoU over classes", "", ">="),
    "hazard_recall": ("Share of the true hazards that were seen", "", ">="),
    "hazard_auroc": ("Hazard probability, area under the ROC curve", "", ">="),
    "clearance_error_m": ("Median absolute error of the clearance", "m", "<="),
    "contacts": ("Contacts with anything but the floor", "", "<="),
    "distance_m": ("Distance walked", "m", ">="),
    "recaptures": ("CUDA graphs captured again because buffers had moved", "", "<="),
}
"""By field of :class:`saccade.config.Budgets`: what it limits, unit, comparison."""


def judge_budgets(summary: Mapping[str, Any], budgets: Budgets) -> list[dict[str, Any]]:
    """Judges every configured budget.

    A budget passes when the point estimate meets the limit. The interval stands beside it, and where it reaches to
    the other side of the limit the reason says so: a repeat may end the other way.

    Args:
        summary: The summary fields of docs/record.md.
        budgets: The limits; ``None`` = not judged, and not listed.

    Returns:
        The ``budgets`` list of docs/record.md; ``passed`` is ``None`` where the sample cannot support a judgement.
    """
    entries = []
    for name, limit in budgets.model_dump().items():
        if limit is not None:
            entries.append(_judge(name, limit, _figure(name, summary)))
    return entries


def _judge(name: str, limit: float, figure: Mapping[str, Any]) -> dict[str, Any]:
    description, unit, comparison = _DESCRIPTIONS[name]
    value = figure["value"]
    entry = {
        "name": name,
        "description": description,
        "unit": unit,
        "comparison": comparison,
        "limit": limit,
        "value": value,
        "low": figure.get("low"),
        "high": figure.get("high"),
        "n": figure.get("n"),
        "passed": None,
        "reason": figure.get("reason"),
    }
    if value is None:
        entry["reason"] = f"cannot be judged: {figure.get('reason') or 'no value'}"
        return entry
    passed = _meets(value, comparison, limit)
    entry["passed"] = passed
    words = {"<=": ("is within", "is over"), ">=": ("reaches", "is below")}[comparison][0 if passed else 1]
    reason = f"{_number(value, unit)} {words} the limit of {_number(limit, unit)}"
    low, high = entry["low"], entry["high"]
    if low is not None and high is not None and _meets(low, comparison, limit) is not _meets(high, comparison, limit):
        reason += (
            f"; its 95 % interval {_number(low, '')} to {_number(high, unit)} reaches across the limit, "
            "so a repeat may end the other way"
        )
    entry["reason"] = reason
    return entry


def _meets(value: float, comparison: str, limit: float) -> bool:
    return value <= limit if comparison == "<=" else value >= limit


def _figure(name: str, summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """The value that a budget limits: ``value``, and where they exist ``low``, ``high``, ``n``, ``reason``."""
    n = summary["frames"]
    accuracy = summary["accuracy"]
    if name in ("latency_p95_ms", "latency_p99_ms", "inference_p95_ms"):
        field, share = name.removesuffix("_ms").rsplit("_", 1)
        return _percentile(name, summary[f"{field}_ms"][share], share)
    if name == "deadline_miss_rate":
        return {**summary[name], "reason": "no decision was judged"}
    if name == "hazard_recall":
        reason = (
            "no judged frame has a true hazard with a prediction beside it: run longer with --frames, choose another "
            f"seed, or leave it out with --set budgets.{name}=null"
        )
        return {**accuracy["hazard"]["recall"], "reason": reason}
    if name == "clearance_error_m":
        percentile = accuracy["clearance"]["p50"]
        missing = "no network gives clearances that could be compared with the truth"
        reason = missing if not percentile["n"] else percentile["reason"]
        return {**percentile, "reason": f"{reason}; leave it out with --set budgets.{name}=null"}
    if name in ("camera_miou", "lidar_miou", "hazard_auroc"):
        hazard = accuracy["hazard"]
        missing = {
            "camera_miou": "no network labels camera frames with the truth beside them",
            "lidar_miou": summary.get("no_lidar_labels") or "no network labels LiDAR frames with the truth beside them",
            "hazard_auroc": "the judged frames do not hold both hazards and free corridors with predictions",
        }[name]
        count = hazard["tp"] + hazard["fp"] + hazard["tn"] + hazard["fn"] if name == "hazard_auroc" else n
        reason = f"{missing}; leave it out with --set budgets.{name}=null"
        return {"value": accuracy[name], "n": count, "reason": reason}
    reasons = {
        "realtime_factor": "it needs at least two judged decisions",
        "distance_m": "the distance walked is not known",
        "recaptures": "no engine runs on the GPU; leave it out with --set budgets.recaptures=null",
    }
    return {"value": summary.get(name) if n else None, "n": n, "reason": reasons.get(name, "no decision was judged")}


def _percentile(name: str, percentile: Mapping[str, Any], share: str) -> Mapping[str, Any]:
    n = percentile["n"]
    if share == "p99" and n < P99_SAMPLES:
        least = P99_SAMPLES
        reason = f"p99 is judged from {least} judged decisions, and there are {n}: --frames at least {least}"
        return {**percentile, "value": None, "low": None, "high": None, "reason": reason}
    if percentile["value"] is None:
        if name.startswith("inference") and n == 0:
            return {**percentile, "reason": f"no network ran; leave it out with --set budgets.{name}=null"}
        return {**percentile, "reason": f"{percentile['reason']}: --frames at least 72"}
    return percentile


def _number(value: float, unit: str) -> str:
    text = f"{value:d}" if isinstance(value, int) else f"{value:.4g}"
    return f"{text} {unit}" if unit else text
