"""The tables of the window, built anew when their rows change."""

from __future__ import annotations

from collections.abc import Hashable

from omni import ui

from saccade.panel.view import View
from saccade.panel.wording import budget_text, sensor_text, topic_text, verdict_text

RED, AMBER, GREEN, GREY = 0xFF5A5AE8, 0xFF3EA3E0, 0xFF59BF6B, 0xFF9A9A9A
"""ABGR, as omni.ui has its colours."""
COLOURS = {
    "pass": GREEN, "met": GREEN, "ready": GREEN, "attached": GREEN,
    "fail": RED, "missed": RED, "missing": RED, "error": RED,
    "invalid": AMBER, "open": AMBER, "building": AMBER, "warning": AMBER,
}  # fmt: skip


def build_missing(view: View) -> None:
    """What this Python lacks, each with its command in a field from which it can be copied."""
    with ui.VStack(spacing=2, height=0):
        for line in view.missing:
            ui.Label(line.text, word_wrap=True, style={"color": COLOURS.get(line.level, GREY)})
            if line.remedy:
                field = ui.StringField(read_only=True, height=22)
                field.model.set_value(line.remedy)


def verdict_key(view: View) -> Hashable:
    """What the verdict's table depends on."""
    return verdict_text(view), view.reasons, view.budgets


def build_verdict(view: View) -> None:
    """The verdict, so far or final, and every budget."""
    with ui.VStack(spacing=2, height=0):
        ui.Label(verdict_text(view), style={"color": COLOURS.get(view.verdict, GREY)}, height=22)
        for reason in view.reasons:
            ui.Label(reason, word_wrap=True)
        for row in view.budgets:
            with ui.HStack(height=18):
                ui.Label(row.state, width=60, style={"color": COLOURS[row.state]})
                ui.Label(budget_text(row), tooltip=row.reason, word_wrap=True)


def stage_key(view: View) -> Hashable:
    """What the stages' bars depend on, to a hundredth of a millisecond."""
    return tuple((name, round(value, 2)) for name, value in view.stages_ms)


def build_stages(view: View) -> None:
    """One bar per stage; full length is the whole latency."""
    total = sum(value for _, value in view.stages_ms) or 1.0
    with ui.VStack(spacing=2, height=0):
        for name, value in view.stages_ms:
            with ui.HStack(height=16, spacing=6):
                ui.Label(name.replace("_", " "), width=90)
                ui.ProgressBar(ui.SimpleFloatModel(value / total), height=12)
                ui.Label(f"{value:.2f} ms", width=80)


def build_sensors(view: View) -> None:
    """Every sensor that is configured or in the scene."""
    with ui.VStack(spacing=2, height=0):
        for row in view.sensors:
            with ui.HStack(height=18, spacing=6):
                ui.Label(row.state, width=90, style={"color": COLOURS.get(row.state, GREY)})
                ui.Label(sensor_text(row), tooltip=row.place, word_wrap=True)


def build_engines(view: View) -> None:
    """Every network and what runs it."""
    with ui.VStack(spacing=2, height=0):
        for row in view.engines:
            with ui.HStack(height=18, spacing=6):
                ui.Label(row.state, width=90, style={"color": COLOURS.get(row.state, GREY)})
                parts = [row.network, row.engine, row.precision, row.device, row.detail]
                ui.Label("   ".join(part for part in parts if part), word_wrap=True)


def ros2_key(view: View) -> Hashable:
    """What the topics' table depends on."""
    return view.ros2, view.commands, tuple(topic_text(row) for row in view.topics)


def build_ros2(view: View) -> None:
    """How the bridge is joined, what external commands there are, and every topic that carried something."""
    with ui.VStack(spacing=2, height=0):
        ui.Label(view.ros2, word_wrap=True)
        if view.commands:
            ui.Label(view.commands, word_wrap=True)
        for row in view.topics:
            with ui.HStack(height=18, spacing=6):
                colour = COLOURS["warning"] if row.lost else GREY
                ui.Label(row.name, width=200, style={"color": colour}, tooltip=row.name)
                ui.Label(topic_text(row), word_wrap=True)


def build_gpu(view: View) -> None:
    """Load and memory, or why they are not known."""
    with ui.VStack(spacing=2, height=0):
        for row in view.gpu:
            with ui.HStack(height=18, spacing=6):
                ui.Label(row.name, width=90)
                if row.share is not None:
                    ui.ProgressBar(ui.SimpleFloatModel(row.share), height=12)
                ui.Label(row.text, word_wrap=True)
