"""Scales, axes and marks as SVG text, coloured by the page's own CSS variables so that figures follow its theme."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

CHARACTER_WIDTH = 6.3
"""Mean advance of one character of 12 px text [px]; generous, so that labels do not touch."""


def coordinate(value: float) -> str:
    """Returns a coordinate [px] with one decimal and no padding: a tenth of a pixel is never seen."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def shorten(text: str, limit: int = 28) -> str:
    """Returns ``text`` cut in its middle to at most ``limit`` characters."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def label(x: float, y: float, content: str, *, style: str = "", anchor: str = "start", kind: str = "") -> str:
    """Returns a text element; ``content`` is escaped."""
    attributes = f' class="{kind}"' if kind else ""
    attributes += f' text-anchor="{anchor}"' if anchor != "start" else ""
    attributes += f' style="{style}"' if style else ""
    return f'<text x="{coordinate(x)}" y="{coordinate(y)}"{attributes}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, *, kind: str = "", style: str = "") -> str:
    """Returns a straight line."""
    attributes = (f' class="{kind}"' if kind else "") + (f' style="{style}"' if style else "")
    ends = " ".join(
        f'{name}="{coordinate(value)}"' for name, value in zip(("x1", "y1", "x2", "y2"), (x1, y1, x2, y2), strict=True)
    )
    return f"<line {ends}{attributes}/>"


def rectangle(
    x: float, y: float, width: float, height: float, *, kind: str = "", style: str = "", tip: str = ""
) -> str:
    """Returns a rectangle; ``tip`` is what hovering over it says."""
    attributes = (f' class="{kind}"' if kind else "") + (f' style="{style}"' if style else "")
    size = f'width="{coordinate(max(width, 0))}" height="{coordinate(max(height, 0))}"'
    body = f'<rect x="{coordinate(x)}" y="{coordinate(y)}" {size}{attributes}'
    return f"{body}><title>{escape(tip)}</title></rect>" if tip else f"{body}/>"


def circle(x: float, y: float, radius: float, *, kind: str = "", style: str = "", tip: str = "") -> str:
    """Returns a circle; ``tip`` is what hovering over it says."""
    attributes = (f' class="{kind}"' if kind else "") + (f' style="{style}"' if style else "")
    body = f'<circle cx="{coordinate(x)}" cy="{coordinate(y)}" r="{coordinate(radius)}"{attributes}'
    return f"{body}><title>{escape(tip)}</title></circle>" if tip else f"{body}/>"


def path(
    points: Iterable[tuple[float, float]], *, kind: str = "", style: str = "", close: bool = False, tip: str = ""
) -> str:
    """Returns a polyline, or a polygon when ``close``."""
    joined = "L".join(f"{coordinate(x)},{coordinate(y)}" for x, y in points)
    attributes = (f' class="{kind}"' if kind else "") + (f' style="{style}"' if style else "")
    body = f'<path d="M{joined}{"Z" if close else ""}"{attributes}'
    return f"{body}><title>{escape(tip)}</title></path>" if tip else f"{body}/>"


def document(width: float, height: float, parts: Sequence[str], *, description: str, kind: str = "figure") -> str:
    """Returns a whole inline SVG; ``description`` is what a screen reader says of it."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {coordinate(width)} {coordinate(height)}" role="img" '
        f'aria-label="{escape(description)}" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def legend(entries: Sequence[tuple[str, str, str]], *, x: float, y: float, width: float) -> tuple[list[str], float]:
    """Lays out legend entries from left to right and wraps them.

    Args:
        entries: Mark (``"box"``, ``"line"``, ``"dash"``, ``"dot"`` or ``"ring"``), CSS colour, text.
        x: Left edge [px].
        y: Baseline of the first row [px].
        width: Width at which a row wraps [px].

    Returns:
        The elements, and the baseline of the last row [px].
    """
    parts: list[str] = []
    left = x
    for mark, colour, content in entries:
        needed = 20 + CHARACTER_WIDTH * len(content) + 16
        if left > x and left + needed > x + width:
            left, y = x, y + 19
        if mark == "box":
            parts.append(rectangle(left, y - 9, 11, 10, style=f"fill:{colour}"))
        elif mark in ("dot", "ring"):
            paint = f"fill:{colour}" if mark == "dot" else f"fill:none;stroke:{colour};stroke-width:1.6"
            parts.append(circle(left + 6, y - 4, 4, style=paint))
        else:
            dash = ";stroke-dasharray:4 3" if mark == "dash" else ""
            parts.append(line(left, y - 4, left + 14, y - 4, style=f"stroke:{colour};stroke-width:2{dash}"))
        parts.append(label(left + 19, y, content))
        left += needed
    return parts, y


def linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns round values in ``low..high``, about ``count`` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= rough * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Returns powers of ten in ``low..high``, with their 2 and 5 fold where there are few, or else round values."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors: tuple[int, ...] = (1, 2, 5) if last - first <= 3 else (1,)
    values = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    found = [value for value in values if low * 0.999 <= value <= high * 1.001]
    # Within one decade there may be none of them, and an axis with a single number cannot be read.
    return found if len(found) >= 3 else linear_ticks(low, high)


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values ``low..high`` to pixels ``start..end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Returns the pixel of one value; values outside are clipped to the ends."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + share * (self.end - self.start)

    def many(self, values: np.ndarray) -> np.ndarray:
        """Returns the pixels of many values, not clipped, linear scales only."""
        return self.start + (np.asarray(values, float) - self.low) / ((self.high - self.low) or 1.0) * (
            self.end - self.start
        )

    def ticks(self, count: int = 5) -> list[float]:
        """Returns round values for an axis."""
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high, count)


@dataclass(slots=True)
class Panel:
    """One plotting area with its two scales and the elements drawn so far."""

    x: Scale
    y: Scale
    parts: list[str] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Left edge [px]."""
        return self.x.start

    @property
    def right(self) -> float:
        """Right edge [px]."""
        return self.x.end

    @property
    def top(self) -> float:
        """Upper edge [px]."""
        return self.y.end

    @property
    def bottom(self) -> float:
        """Lower edge [px]."""
        return self.y.start

    def axes(
        self,
        x_title: str,
        y_title: str,
        *,
        x_ticks: Sequence[tuple[float, str]] | None = None,
        y_ticks: Sequence[tuple[float, str]] | None = None,
    ) -> None:
        """Draws the grid, tick labels and titles; the title of y stands above its axis, where it reads straight."""
        if x_ticks is None:
            x_ticks = [(value, f"{value:g}") for value in self.x.ticks(max(int((self.right - self.left) / 90), 2))]
        if y_ticks is None:
            y_ticks = [(value, f"{value:g}") for value in self.y.ticks(max(int((self.bottom - self.top) / 45), 2))]
        for value, content in y_ticks:
            y = self.y(value)
            self.parts.append(line(self.left, y, self.right, y, kind="grid"))
            self.parts.append(label(self.left - 8, y + 4, content, anchor="end"))
        self.parts.append(line(self.left, self.bottom, self.right, self.bottom, kind="axis"))
        for value, content in x_ticks:
            x = self.x(value)
            self.parts.append(line(x, self.bottom, x, self.bottom + 4, kind="axis"))
            self.parts.append(label(x, self.bottom + 18, content, anchor="middle"))
        self.parts.append(label((self.left + self.right) / 2, self.bottom + 36, x_title, anchor="middle", kind="title"))
        self.parts.append(label(self.left - 34, self.top - 12, y_title, kind="title"))

    def series(self, xs: np.ndarray, ys: np.ndarray, *, style: str, bins: int = 480) -> bool:
        """Draws a line; of more than ``bins`` points each bin's median, with the range from least to greatest.

        Gaps (NaN) are left out.

        Returns:
            Whether points were put together in bins.
        """
        keep = np.isfinite(ys)
        xs, ys = xs[keep], ys[keep]
        if len(xs) <= bins:
            if len(xs):
                self.parts.append(
                    path([(self.x(a), self.y(b)) for a, b in zip(xs, ys, strict=True)], kind="line", style=style)
                )
            return False
        groups = np.array_split(np.arange(len(xs)), bins)
        centres = [float(xs[group].mean()) for group in groups]
        upper = [(self.x(a), self.y(float(ys[group].max()))) for a, group in zip(centres, groups, strict=True)]
        lower = [(self.x(a), self.y(float(ys[group].min()))) for a, group in zip(centres, groups, strict=True)]
        middle = [(self.x(a), self.y(float(np.median(ys[group])))) for a, group in zip(centres, groups, strict=True)]
        self.parts.append(path([*upper, *reversed(lower)], close=True, kind="envelope", style=style))
        self.parts.append(path(middle, kind="line", style=style))
        return True

    def deadline(self, value: float, content: str) -> None:
        """Draws the deadline as a horizontal line with its text above, at the right."""
        y = self.y(value)
        self.parts.append(line(self.left, y, self.right, y, kind="deadline"))
        self.parts.append(label(self.right, y - 6, content, anchor="end", kind="deadline-text"))
