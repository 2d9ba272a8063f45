"""How figures are written for people: rounded, with unit, the same everywhere in the report."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

NARROW_SPACE = "\u202f"

SHARES = {"deadline_miss_rate", "hazard_recall", "hazard_precision"}
"""Budgets whose value is a share of a count, shown in percent."""


def number(value: Any) -> str:
    """Returns a number with three significant digits or all digits before the point; other values as text."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", NARROW_SPACE)
    size = abs(value)
    if size == 0:
        return "0"
    if size < 0.001:
        return f"{value:.1e}"
    digits = 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:,.{digits}f}".replace(",", NARROW_SPACE)


def split(value: Any, unit: str) -> tuple[str, str]:
    """Returns the rounded value and its unit; ``"share"`` gives percent, ``"score"`` three decimals."""
    if value is None or isinstance(value, (bool, str)):
        return number(value), ""
    if unit == "share":
        percent = value * 100
        return (
            f"{percent:.0f}" if percent in (0, 100) else f"{percent:.1f}" if percent < 99.95 else f"{percent:.2f}"
        ), "%"
    if unit == "score":
        return f"{value:.3f}", ""
    return number(value), unit


def joined(value: Any, unit: str) -> str:
    """Returns the rounded value with its unit in one text."""
    text, suffix = split(value, unit)
    return f"{text}{NARROW_SPACE}{suffix}" if suffix else text


def span(low: Any, high: Any, unit: str) -> str:
    """Returns an interval, its unit once; nothing where an end is missing."""
    if low is None or high is None:
        return ""
    first, _ = split(low, unit)
    second, suffix = split(high, unit)
    return f"{first} – {second}{NARROW_SPACE + suffix if suffix else ''}"


def budget_unit(budget: Mapping[str, Any]) -> str:
    """Returns the unit in which a budget is shown."""
    name, unit = budget.get("name"), str(budget.get("unit") or "")
    if name in SHARES:
        return "share"
    if "miou" in str(name) or "auroc" in str(name):
        return "score"
    return "" if unit == "1" else unit


def moment(text: Any) -> str | None:
    """Returns an ISO 8601 time as people write it; as it is when it is none."""
    if text is None:
        return None
    try:
        # Python 3.10 reads no Z.
        parsed = datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return str(text)
    return parsed.strftime("%-d %B %Y, %H:%M:%S %Z").strip()
