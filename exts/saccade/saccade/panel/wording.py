"""Rows of the view in words, the same in the window and in its picture."""

from __future__ import annotations

from saccade.panel.view import BudgetRow, LogLine, Percentile, SensorRow, TopicRow, View


def budget_text(row: BudgetRow) -> str:
    """Returns a budget: name, value and limit."""
    return f"{row.name.replace('_', ' ')}: {row.value} ({row.limit})"


def percentile_text(row: Percentile) -> str:
    """Returns a percentile with its interval, or why there is none."""
    if row.value is None:
        return row.reason
    interval = "" if row.low is None else f" (95 % interval {row.low:.1f} to {row.high:.1f})"
    return f"{row.name}: {row.value:.1f} ms{interval}"


def sensor_text(row: SensorRow) -> str:
    """Returns a sensor: what it is and what it has delivered."""
    text = f"{row.name}   {row.detail}" if row.name != row.place else f"{row.place}   {row.detail}"
    if row.frames:
        text += f"   {row.frames} frames, {row.dropped} dropped, on {row.device}"
        if row.age_ms is not None:
            text += f", age {row.age_ms:.1f} ms"
    return text


def topic_text(row: TopicRow) -> str:
    """Returns a topic: messages, rate and losses."""
    if not row.direction:
        return row.detail
    rate = "" if row.rate_hz is None else f" at {row.rate_hz:.1f} Hz"
    done, gone = ("sent", "dropped") if row.direction == "out" else ("received", "refused")
    text = f"{row.count} {done}{rate}, {row.lost} {gone}"
    return f"{text}: {row.detail}" if row.detail else text


def verdict_text(view: View) -> str:
    """Returns the verdict, and of how many decisions it is."""
    if not view.verdict:
        return "no decision was judged yet"
    if view.verdict_final:
        return view.verdict.upper()
    return f"{view.verdict.upper()} so far, of {view.judged} decisions"


def latency_lines(view: View) -> list[str]:
    """Returns percentiles, deadline, misses, drops and progress."""
    lines = [percentile_text(row) for row in view.percentiles]
    if view.deadline_ms is not None:
        lines.append(f"deadline {view.deadline_ms:g} ms: {view.misses} missed; {view.dropped} samples dropped")
    if view.realtime_factor is not None:
        lines.append(f"real-time factor {view.realtime_factor:.2f}")
    if view.wanted:
        lines.append(f"{view.decisions} of {view.wanted} decisions, the first {view.warmup} to warm up")
    return lines


def log_text(line: LogLine) -> str:
    """Returns a line of the log with its remedy."""
    mark = {"info": "", "warning": "warning: ", "error": "error: "}[line.level]
    return f"{line.time} {mark}{line.text}" + (f"\n    {line.remedy}" if line.remedy else "")
