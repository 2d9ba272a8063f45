"""The view as a picture, drawn where there is no Isaac Sim: what the window shows, not how omni.ui draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from saccade.panel.view import View
from saccade.panel.wording import budget_text, latency_lines, log_text, sensor_text, topic_text, verdict_text

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

WIDTH, HIGHEST = 1240, 2400
MARGIN, GAP = 16, 14
MARK = "Preview drawn without Isaac Sim, from the same view model as the window"
BACKGROUND, PANEL, EDGE = (35, 36, 38), (46, 48, 51), (72, 75, 79)
TEXT, DIM = (222, 224, 226), (146, 150, 155)
GREEN, AMBER, RED, BLUE = (107, 191, 89), (224, 163, 62), (232, 90, 90), (86, 156, 214)
COLOURS = {
    "pass": GREEN, "met": GREEN, "ready": GREEN, "attached": GREEN, "running": GREEN,
    "fail": RED, "missed": RED, "missing": RED, "error": RED, "failed": RED,
    "invalid": AMBER, "open": AMBER, "building": AMBER, "warning": AMBER, "stopping": AMBER, "paused": BLUE,
}  # fmt: skip
STAGE_COLOURS = (BLUE, (120, 120, 200), (190, 130, 200), GREEN, (200, 190, 90), AMBER, RED, DIM)
_PLAIN = str.maketrans({"≤": "<=", "≥": ">=", "–": "-", "×": "x"})

Box = tuple[int, int, int, int]
Colour = tuple[int, int, int]


def picture(view: View, previews: Mapping[str, np.ndarray] | None = None) -> Image.Image:
    """Returns a picture of the window.

    Args:
        view: What it shows.
        previews: By sensor, packed RGBA (red lowest), shape ``(height, width)``, uint32.
    """
    from PIL import Image

    image = Image.new("RGB", (WIDTH, HIGHEST), BACKGROUND)
    canvas = _Canvas(image)
    canvas.text(MARGIN, 8, MARK, size=13, colour=AMBER)
    middle = WIDTH // 2
    left, right = (MARGIN, middle - GAP // 2), (middle + GAP // 2, WIDTH - MARGIN)
    y = _run(canvas, view, left, 34)
    y = _choices(canvas, view, left, y)
    y = _latency(canvas, view, left, y)
    bottom = _stages(canvas, view, left, y)
    y = _verdict(canvas, view, right, 34)
    y = _sensors(canvas, view, previews or {}, right, y)
    y = _rows(canvas, "Engines", _engine_rows(view), right, y)
    y = _rows(canvas, "GPU", _device_rows(view), right, y)
    y = _rows(canvas, "ROS 2", _ros2_rows(view), right, y, column=190)
    bottom = _log(canvas, view, (MARGIN, WIDTH - MARGIN), max(y, bottom))
    return image.crop((0, 0, WIDTH, bottom))


class _Canvas:
    """Draws text, boxes and lines."""

    def __init__(self, image: Image.Image) -> None:
        from PIL import ImageDraw

        self.image = image
        self.draw: ImageDraw.ImageDraw = ImageDraw.Draw(image)

    def text(
        self, x: float, y: float, content: str, *, size: int = 14, colour: Colour = TEXT, width: float | None = None
    ) -> None:
        """Writes one line, cut where it is wider than ``width`` [px]."""
        from PIL import ImageFont

        font = ImageFont.load_default(size=size)
        content = content.translate(_PLAIN)
        if width is not None and font.getlength(content) > width:
            while content and font.getlength(f"{content}...") > width:
                content = content[:-1]
            content = f"{content.rstrip()}..."
        self.draw.text((x, y), content, font=font, fill=colour)

    def section(self, title: str, span: tuple[int, int], y: int, height: int) -> Box:
        """Draws a titled box and returns the room inside."""
        self.draw.rounded_rectangle((span[0], y, span[1], y + height), 5, fill=PANEL, outline=EDGE)
        self.text(span[0] + 12, y + 8, title, colour=DIM, size=13)
        return span[0] + 12, y + 30, span[1] - 12, y + height - 10

    def bar(self, box: Sequence[float], share: float, colour: Colour = BLUE) -> None:
        """Draws a bar."""
        left, top, right, bottom = box
        self.draw.rectangle((left, top, right, bottom), fill=(60, 62, 66))
        if share > 0:
            self.draw.rectangle((left, top, left + (right - left) * min(share, 1.0), bottom), fill=colour)


def _run(canvas: _Canvas, view: View, span: tuple[int, int], y: int) -> int:
    left, top, right, _ = canvas.section("Run", span, y, 118)
    canvas.text(left, top, view.state.upper(), size=20, colour=COLOURS.get(view.state, TEXT))
    done = f"{view.doing}   {view.decisions} of {view.wanted} decisions" if view.wanted else view.doing
    canvas.text(left + 130, top + 4, done, width=right - left - 130)
    canvas.bar((left, top + 30, right, top + 38), view.progress or 0.0)
    x = left
    actions = view.actions
    for text, enabled in (
        ("Start", actions.start), ("Pause", actions.pause), ("Resume", actions.resume),
        ("Stop", actions.stop), ("Save report", actions.save),
    ):  # fmt: skip
        width = (right - left - 4 * 8) // 5
        fill = (84, 88, 94) if enabled else (54, 56, 59)
        canvas.draw.rounded_rectangle((x, top + 50, x + width, top + 76), 4, fill=fill)
        canvas.text(x + 12, top + 55, text, colour=TEXT if enabled else DIM)
        x += width + 8
    return y + 118 + GAP


def _choices(canvas: _Canvas, view: View, span: tuple[int, int], y: int) -> int:
    own = "(the configuration's own)"
    humanoid = view.humanoid or (view.humanoids[0] if len(view.humanoids) == 1 else own)
    rows = [
        ("Configuration", view.configuration),
        ("Scene", view.scene or own),
        ("Humanoid", humanoid),
        ("Engine", f"{view.backend}, {view.precision}"),
    ]
    left, top, right, _ = canvas.section("What is measured", span, y, 38 + 22 * len(rows))
    for title, value in rows:
        canvas.text(left, top, title, colour=DIM)
        canvas.text(left + 120, top, value, width=right - left - 120)
        top += 22
    return y + 38 + 22 * len(rows) + GAP


def _latency(canvas: _Canvas, view: View, span: tuple[int, int], y: int) -> int:
    lines = latency_lines(view)
    height = 172 + 20 * len(lines)
    left, top, right, _ = canvas.section("Latency from the simulated state to the decision", span, y, height)
    plot = (left + 46, top + 4, right, top + 116)
    canvas.draw.rectangle(plot, fill=(40, 41, 44))
    highest = max(view.latency_ms, default=0.0)
    scale = 1.0
    while scale < highest:
        scale *= 2
    for share in (0.0, 0.5, 1.0):
        level = plot[3] - (plot[3] - plot[1]) * share
        canvas.draw.line((plot[0], level, plot[2], level), fill=EDGE)
        canvas.text(left, level - 8, f"{scale * share:g}", size=12, colour=DIM)
    canvas.text(left, plot[3] + 6, "ms", size=12, colour=DIM)
    canvas.text(plot[0], plot[3] + 6, f"the newest {len(view.latency_ms)} decisions", size=12, colour=DIM)
    if view.deadline_ms is not None and view.deadline_ms <= scale:
        level = plot[3] - (plot[3] - plot[1]) * view.deadline_ms / scale
        canvas.draw.line((plot[0], level, plot[2], level), fill=RED)
    if len(view.latency_ms) > 1:
        step = (plot[2] - plot[0]) / (len(view.latency_ms) - 1)
        points = [
            (plot[0] + step * i, plot[3] - (plot[3] - plot[1]) * value / scale)
            for i, value in enumerate(view.latency_ms)
        ]
        canvas.draw.line(points, fill=BLUE, width=2, joint="curve")
    top = plot[3] + 26
    for line in lines:
        canvas.text(left, top, line, width=right - left)
        top += 20
    return y + height + GAP


def _stages(canvas: _Canvas, view: View, span: tuple[int, int], y: int) -> int:
    height = 42 + 20 * max(len(view.stages_ms), 1)
    left, top, right, _ = canvas.section("Stages of one decision, mean of the newest", span, y, height)
    total = sum(value for _, value in view.stages_ms) or 1.0
    if not view.stages_ms:
        canvas.text(left, top, "no decision yet", colour=DIM)
    for i, (name, value) in enumerate(view.stages_ms):
        canvas.text(left, top, name.replace("_", " "))
        canvas.bar((left + 96, top + 3, right - 88, top + 13), value / total, STAGE_COLOURS[i % len(STAGE_COLOURS)])
        canvas.text(right - 78, top, f"{value:.2f} ms")
        top += 20
    return y + height + GAP


def _verdict(canvas: _Canvas, view: View, span: tuple[int, int], y: int) -> int:
    rows = view.budgets
    height = 64 + 20 * len(rows) + (22 if view.reasons else 0)
    left, top, right, _ = canvas.section("Verdict", span, y, height)
    canvas.text(left, top, verdict_text(view), size=20, colour=COLOURS.get(view.verdict, DIM))
    top += 30
    if view.reasons:
        more = f" (and {len(view.reasons) - 1} more)" if len(view.reasons) > 1 else ""
        canvas.text(left, top, view.reasons[0] + more, colour=DIM, width=right - left)
        top += 22
    for row in rows:
        canvas.text(left, top, row.state, colour=COLOURS[row.state])
        canvas.text(left + 70, top, budget_text(row), width=right - left - 70)
        top += 20
    return y + height + GAP


def _sensors(canvas: _Canvas, view: View, previews: Mapping[str, np.ndarray], span: tuple[int, int], y: int) -> int:
    shown = [row for row in view.sensors if row.state != "unused"] + [r for r in view.sensors if r.state == "unused"][
        :1
    ]
    wide = [name for name in previews if previews[name].shape[1] > 3 * previews[name].shape[0]]
    narrow = [name for name in previews if name not in wide]
    height = 40 + 20 * len(shown) + (168 if narrow else 0) + 74 * len(wide)
    left, top, right, _ = canvas.section("Sensors", span, y, height)
    for row in shown:
        canvas.text(left, top, row.state, colour=COLOURS.get(row.state, DIM))
        canvas.text(left + 70, top, sensor_text(row), width=right - left - 70)
        top += 20
    x = left
    for name in narrow:
        size = (round(140 * previews[name].shape[1] / previews[name].shape[0]), 140)
        _paste(canvas, previews[name], (x, top + 18), size)
        canvas.text(x, top, name, size=12, colour=DIM)
        x += size[0] + 12
    top += 168 if narrow else 0
    for name in wide:
        canvas.text(left, top, f"{name}: straight ahead is in the middle, near is bright", size=12, colour=DIM)
        _paste(canvas, previews[name], (left, top + 18), (right - left, 46))
        top += 74
    return y + height + GAP


def _paste(canvas: _Canvas, packed: np.ndarray, place: tuple[int, int], size: tuple[int, int]) -> None:
    from PIL import Image

    pixels = np.ascontiguousarray(packed).view(np.uint8).reshape(*packed.shape, 4)[..., :3]
    canvas.image.paste(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR), place)


def _engine_rows(view: View) -> list[tuple[str, str, float | None]]:
    rows: list[tuple[str, str, float | None]] = []
    for row in view.engines:
        parts = [row.network, row.engine, row.precision, row.device, row.detail]
        rows.append((row.state, "   ".join(part for part in parts if part), None))
    return rows


def _device_rows(view: View) -> list[tuple[str, str, float | None]]:
    return [(row.name, row.text, row.share) for row in view.gpu]


def _ros2_rows(view: View) -> list[tuple[str, str, float | None]]:
    rows: list[tuple[str, str, float | None]] = [("bridge", view.ros2, None)]
    if view.commands:
        rows.append(("commands", view.commands, None))
    return [*rows, *((row.name, topic_text(row), None) for row in view.topics)]


def _rows(
    canvas: _Canvas,
    title: str,
    rows: Sequence[tuple[str, str, float | None]],
    span: tuple[int, int],
    y: int,
    *,
    column: int = 70,
) -> int:
    height = 40 + 20 * max(len(rows), 1)
    left, top, right, _ = canvas.section(title, span, y, height)
    for name, text, share in rows:
        canvas.text(left, top, name, colour=COLOURS.get(name, DIM), width=column - 6)
        if share is None:
            canvas.text(left + column, top, text, width=right - left - column)
        else:
            canvas.bar((left + 70, top + 3, left + 230, top + 13), share)
            canvas.text(left + 242, top, text, width=right - left - 242)
        top += 20
    return y + height + GAP


def _log(canvas: _Canvas, view: View, span: tuple[int, int], y: int) -> int:
    left, top, right, _ = canvas.section("Log", span, y, 142)
    lines = [line for entry in view.log for line in log_text(entry).splitlines()]
    for line in lines[-5:]:
        canvas.text(left, top, line, size=13, width=right - left)
        top += 20
    return y + 142 + GAP
