"""Parts of the window: each draws one piece of the view, and touches omni.ui only where that piece has changed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from omni import ui

from saccade.panel.view import View


class Part(Protocol):
    """A piece of the window."""

    def draw(self, view: View) -> None:
        """Draws it anew where it has changed."""
        ...


class Text:
    """One text.

    Args:
        text_of: The text.
        height: [px]; 0 = as high as the text.
        wrap: Whether long lines are broken.
    """

    def __init__(self, text_of: Callable[[View], str], *, height: int = 0, wrap: bool = True) -> None:
        self._text_of = text_of
        self._text = ""
        self._label = ui.Label("", height=height, word_wrap=wrap)

    def draw(self, view: View) -> None:
        """Draws it anew where it has changed."""
        text = self._text_of(view)
        if text != self._text:
            self._text = self._label.text = text


class Bar:
    """A bar from 0 to 1; empty where there is nothing to say.

    Args:
        share_of: Its length.
    """

    def __init__(self, share_of: Callable[[View], float | None]) -> None:
        self._share_of = share_of
        self._model = ui.SimpleFloatModel(0.0)
        self._bar = ui.ProgressBar(self._model, height=14)
        self._share = 0.0

    def draw(self, view: View) -> None:
        """Draws it anew where it has changed."""
        share = self._share_of(view) or 0.0
        if share != self._share:
            self._share = share
            self._model.set_value(share)


class Push:
    """A button.

    Args:
        text: On it.
        clicked: What it does.
        enabled_of: Whether it can be pressed.
    """

    def __init__(self, text: str, clicked: Callable[[], None], enabled_of: Callable[[View], bool]) -> None:
        self._enabled_of = enabled_of
        self._enabled = False
        self._button = ui.Button(text, clicked_fn=clicked, enabled=False)

    def draw(self, view: View) -> None:
        """Draws it anew where it has changed."""
        enabled = self._enabled_of(view)
        if enabled != self._enabled:
            self._enabled = self._button.enabled = enabled


class Rebuilt:
    """A piece that is built anew as a whole when its key changes, such as a table.

    Args:
        key_of: What it depends on.
        build: Makes the widgets; parts that it returns are drawn until the next time.
    """

    def __init__(self, key_of: Callable[[View], Hashable], build: Callable[[View], Sequence[Part] | None]) -> None:
        self._key_of = key_of
        self._build = build
        self._key: Any = object()
        self._parts: Sequence[Part] = ()
        self._frame = ui.Frame(height=0)

    def draw(self, view: View) -> None:
        """Builds it anew where its key has changed."""
        key = self._key_of(view)
        if key != self._key:
            self._key = key
            self._frame.clear()
            with self._frame:
                self._parts = self._build(view) or ()
        for part in self._parts:
            part.draw(view)


class LinePlot:
    """A line over the newest values, from 0 up.

    Args:
        values_of: Oldest first.
        height: [px]
    """

    def __init__(self, values_of: Callable[[View], Sequence[float]], *, height: int) -> None:
        self._values_of = values_of
        self._height = height
        self._values: tuple[float, ...] = ()
        self._top = 0.0
        self._frame = ui.Frame(height=height)
        self._plot: Any = None

    def draw(self, view: View) -> None:
        """Draws it anew where values have come; its scale only ever changes by doubling or halving."""
        values = tuple(self._values_of(view))
        if values == self._values:
            return
        self._values = values
        highest = max(values, default=0.0)
        if self._plot is None or highest > self._top or highest < self._top / 4:
            self._top = 1.0
            while self._top < highest:
                self._top *= 2
            while self._top / 2 > highest > 0:
                self._top /= 2
            self._frame.clear()
            with self._frame:
                self._plot = ui.Plot(ui.Type.LINE, 0.0, self._top, *(values or (0.0,)), height=self._height)
        else:
            self._plot.set_data(*values)


class Choice:
    """A box with values to choose from; looked at when it is drawn, so that it needs no subscription.

    Args:
        values: To choose from.
        chosen: The one that holds.
        choose: Told of another.
        enabled: Whether it can be changed.
        empty: How the empty value is written.
    """

    def __init__(
        self, values: Sequence[str], chosen: str, choose: Callable[[str], None], *, enabled: bool, empty: str
    ) -> None:
        self._values = list(dict.fromkeys(values if chosen in values else (chosen, *values)))
        self._choose = choose
        self._index = self._values.index(chosen)
        self._box = ui.ComboBox(self._index, *(value or empty for value in self._values), enabled=enabled)

    def draw(self, view: View) -> None:
        """Hands on what was chosen since the last time."""
        index = self._box.model.get_item_value_model().get_value_as_int()
        if index != self._index:
            self._index = index
            self._choose(self._values[index])
