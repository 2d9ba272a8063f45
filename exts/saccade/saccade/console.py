"""What the command line shows in the terminal: the outcome of a run, and what the doctor found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from saccade.doctor import NEEDED, Check, is_ready

_STYLES = {"pass": "bold green", "fail": "bold red", "invalid": "bold yellow"}
_MARK_STYLES = {"ok": "green", "missing": "yellow", "problem": "red", "note": "cyan"}


def outcome_table(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yields the verdict, its reasons, the budgets, the accuracy and each sensor's latency.

    Args:
        summary: The content of ``run.json``.
    """
    verdict = str(summary.get("verdict", "invalid"))
    head = Text(f"\n{verdict.upper()}", style=_STYLES.get(verdict, "bold"))
    head.append(f"  {summary.get('name', '')}, {summary.get('frames', 0)} judged decisions", style="default not bold")
    yield head
    for reason in summary.get("reasons") or ():
        yield Text(f"  {reason}", style="default")
    budgets = summary.get("budgets") or []
    if budgets:
        yield _budgets(budgets)
    sensors = summary.get("sensors") or {}
    if sensors:
        yield _sensors(sensors)
    figures = [f"{name} {text}" for name, text in _figures(summary)]
    if figures:
        yield Text(", ".join(figures), style="default")


def _budgets(budgets: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, side in (
        ("", "left"),
        ("budget", "left"),
        ("value", "right"),
        ("95 % interval", "right"),
        ("limit", "right"),
    ):
        table.add_column(name, justify=side, header_style="dim")  # type: ignore[arg-type]
    for budget in budgets:
        passed = budget.get("passed")
        mark = "[green]met[/]" if passed else "[yellow]not judged[/]" if passed is None else "[red]missed[/]"
        unit = f" {budget['unit']}" if budget.get("unit") else ""
        low, high = budget.get("low"), budget.get("high")
        interval = f"{_number(low)} .. {_number(high)}" if low is not None and high is not None else ""
        value = _number(budget.get("value"))
        limit = f"{budget.get('comparison', '')} {_number(budget.get('limit'))}{unit}"
        table.add_row(mark, escape(str(budget.get("name", ""))), value, interval, escape(limit))
    return table


def _sensors(sensors: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("[ms]", "frames", "dropped", "latency p50", "p95", "p99", "max", "inference p50", "p95"):
        table.add_column(escape(name), justify="left" if name == "[ms]" else "right", header_style="dim")
    for name, facts in sensors.items():
        latency, inference = facts.get("latency_ms") or {}, facts.get("inference_ms") or {}
        table.add_row(
            escape(name), _number(facts.get("judged")), _number(facts.get("dropped")),
            *(_milliseconds(_percentile(latency, which)) for which in ("p50", "p95", "p99", "max")),
            *(_milliseconds(_percentile(inference, which)) for which in ("p50", "p95")),
        )  # fmt: skip
    return table


def _figures(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    accuracy = summary.get("accuracy") or {}
    for key, name in (("camera_miou", "camera mIoU"), ("lidar_miou", "LiDAR mIoU"), ("hazard_auroc", "hazard AUROC")):
        if accuracy.get(key) is not None:
            yield name, _number(accuracy[key])
    if accuracy.get("clearance_error_m") is not None:
        yield "clearance error", f"{_number(accuracy['clearance_error_m'])} m"
    if summary.get("contacts") is not None:
        yield "contacts", _number(summary["contacts"])
    if summary.get("distance_m") is not None:
        yield "walked", f"{_number(summary['distance_m'])} m"
    if summary.get("realtime_factor") is not None:
        yield "real-time factor", _number(summary["realtime_factor"])


def _percentile(statistics: Mapping[str, Any], which: str) -> Any:
    value = statistics.get(which)
    return value.get("value") if isinstance(value, Mapping) else value


def _milliseconds(value: Any) -> str:
    return "-" if value is None else f"{value:.1f}"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return _number(value.get("value"))
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e9 else f"{value:.4g}"
    return str(value)


def doctor_tables(checks: Sequence[Check]) -> Iterator[RenderableType]:
    """Yields one table per use and, at the end, whether the main job can run."""
    for use in dict.fromkeys(check.use for check in checks):
        own = [check for check in checks if check.use == use]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), show_header=False)
        for _ in range(3):
            table.add_column(overflow="fold")
        for check in own:
            detail = Text(check.detail)
            if check.fix and check.state != "ok":
                detail.append(f"\n{check.fix}", style="cyan")
            table.add_row(Text(check.state, style=_MARK_STYLES[check.state]), Text(check.name), detail)
        title = Text(use, style="bold")
        if use in NEEDED:
            title.append("  needed by saccade validate", style="dim not bold")
        yield title
        yield table
    if is_ready(checks):
        yield Text("saccade validate can run here.", style="bold green")
    else:
        wrong = ", ".join(
            check.name for check in checks if check.use in NEEDED and check.state in ("missing", "problem")
        )
        yield Text(f"saccade validate cannot run here yet: {wrong}", style="bold red")
