"""The window: draws the view model with omni.ui, and hands clicks to it; knows nothing of runs."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

from omni import ui

from saccade.kit import tables, widgets
from saccade.kit.menu import Menu
from saccade.panel.view import View
from saccade.panel.wording import latency_lines, log_text

TITLE = "Saccade"
WIDTH, HEIGHT = 560, 900
PREVIEW_HEIGHT = 150
LOG_LINES = 60


class SaccadeWindow:
    """One window and its menu item.

    Args:
        panel: The view model: see :class:`saccade.panel.model.Panel`.
        visible: Whether it is shown at once.
        previews: Whether it shows what the sensors see.
        draw_hz: How often it is drawn at most.
    """

    def __init__(self, panel: Any, *, visible: bool = True, previews: bool = True, draw_hz: float = 10.0) -> None:
        self._panel = panel
        self._previews = previews
        self._period = 1.0 / max(draw_hz, 0.1)
        self._next = 0.0
        self._parts: list[widgets.Part] = []
        self._pictures: dict[str, Any] = {}
        self._shown: dict[str, int] = {}
        self._window: Any = ui.Window(TITLE, width=WIDTH, height=HEIGHT, visible=visible)
        self._window.set_visibility_changed_fn(_weakly(self.visibility_changed))
        ui.Workspace.set_show_window_fn(TITLE, _weakly(self.show))
        self._menu = Menu(TITLE, _weakly(self.toggle))
        self._build()
        self.visibility_changed(visible)

    def draw(self) -> None:
        """Draws what has changed; called once per update, returns at once where it is not yet time."""
        now = time.monotonic()
        if self._window is None or not self._window.visible or now < self._next:
            return
        self._next = now + self._period
        view = self._panel.view()
        for part in self._parts:
            part.draw(view)
        if self._previews:
            self._draw_previews()

    def show(self, shown: bool) -> None:
        """Shows or hides the window."""
        if self._window is not None:
            self._window.visible = shown

    def toggle(self) -> None:
        """Shows the window where it is hidden, and hides it where it is shown."""
        if self._window is not None:
            self.show(not self._window.visible)

    def visibility_changed(self, shown: bool) -> None:
        """Draws pictures of the sensors only while somebody can see them."""
        self._panel.preview(bool(shown) and self._previews)

    def destroy(self) -> None:
        """Takes window, menu item and pictures away; safe to call twice."""
        if self._window is None:
            return
        self._panel.preview(False)
        self._menu.remove()
        ui.Workspace.set_show_window_fn(TITLE, None)
        self._window.set_visibility_changed_fn(None)
        self._parts.clear()
        self._pictures.clear()
        self._window.destroy()
        self._window = None

    # ------------------------------------------------------------------------------------------ building

    def _build(self) -> None:
        panel = self._panel
        with self._window.frame:
            with ui.ScrollingFrame():
                with ui.VStack(spacing=6, height=0):
                    self._add(widgets.Text(lambda view: f"{view.state.upper()}   {view.doing}", height=22))
                    self._add(widgets.Bar(lambda view: view.progress))
                    with ui.HStack(spacing=6, height=28):
                        self._push("Start", panel.start, lambda view: view.actions.start)
                        self._push("Pause", panel.pause, lambda view: view.actions.pause)
                        self._push("Resume", panel.resume, lambda view: view.actions.resume)
                        self._push("Stop", panel.stop, lambda view: view.actions.stop)
                        self._push("Save report", self._save, lambda view: view.actions.save)
                    self._add(widgets.Rebuilt(_choice_key, self._build_choices))
                    self._add(widgets.Rebuilt(lambda view: view.missing, tables.build_missing))
                    with ui.CollapsableFrame("Verdict", collapsed=False):
                        self._add(widgets.Rebuilt(tables.verdict_key, tables.build_verdict))
                    with ui.CollapsableFrame("Latency from the simulated state to the decision", collapsed=False):
                        with ui.VStack(spacing=4, height=0):
                            self._add(widgets.LinePlot(lambda view: view.latency_ms, height=110))
                            self._add(widgets.Text(lambda view: "\n".join(latency_lines(view))))
                            self._add(widgets.Rebuilt(tables.stage_key, tables.build_stages))
                    with ui.CollapsableFrame("Sensors", collapsed=False):
                        with ui.VStack(spacing=4, height=0):
                            self._add(widgets.Rebuilt(lambda view: view.sensors, tables.build_sensors))
                            self._add(widgets.Rebuilt(self._preview_key, self._build_previews))
                    with ui.CollapsableFrame("Engines", collapsed=False):
                        self._add(widgets.Rebuilt(lambda view: view.engines, tables.build_engines))
                    with ui.CollapsableFrame("GPU", collapsed=False):
                        self._add(widgets.Rebuilt(lambda view: view.gpu, tables.build_gpu))
                    with ui.CollapsableFrame("ROS 2", collapsed=False):
                        self._add(widgets.Rebuilt(tables.ros2_key, tables.build_ros2))
                    with ui.CollapsableFrame("Log", collapsed=False):
                        with ui.ScrollingFrame(height=180):
                            self._add(widgets.Text(_log_text, wrap=True))

    def _add(self, part: widgets.Part) -> None:
        self._parts.append(part)

    def _push(self, text: str, clicked: Callable[[], None], enabled: Callable[[View], bool]) -> None:
        self._add(widgets.Push(text, clicked, enabled))

    def _save(self) -> None:
        directory = self._panel.view().directory
        if directory:
            self._panel.save_report(f"{directory}.html")

    def _build_choices(self, view: View) -> list[widgets.Part]:
        free, panel = view.actions.choose, self._panel
        own = "(the configuration's own)"
        rows: list[tuple[str, tuple[str, ...], str, Callable[[str], None]]] = [
            ("Configuration", view.configurations, view.configuration, panel.choose_configuration),
            ("Scene", ("", *view.scenes), view.scene, panel.choose_scene),
            ("Humanoid", ("", *view.humanoids), view.humanoid, panel.choose_humanoid),
            ("Engine", ("auto", "tensorrt", "onnxruntime"), view.backend, lambda v: panel.choose_engine(backend=v)),
            ("Precision", ("fp16", "int8", "fp32"), view.precision, lambda v: panel.choose_engine(precision=v)),
        ]
        boxes: list[widgets.Part] = []
        with ui.VStack(spacing=4, height=0):
            for title, values, chosen, choose in rows:
                with ui.HStack(height=24):
                    ui.Label(title, width=110)
                    boxes.append(widgets.Choice(values, chosen, choose, enabled=free, empty=own))
            with ui.HStack(height=24):
                ui.Label("File", width=110)
                path = ui.StringField(tooltip="Path of a configuration file (.yaml)")
                ui.Button(
                    "Open", width=70, clicked_fn=lambda: panel.choose_configuration(path.model.get_value_as_string())
                )
        return boxes

    # ------------------------------------------------------------------------------------------ previews

    def _preview_key(self, view: View) -> Any:
        return tuple(sorted((name, shown.size) for name, shown in self._panel.previews.items()))

    def _build_previews(self, view: View) -> None:
        self._pictures.clear()
        self._shown.clear()
        with ui.VStack(spacing=4, height=0):
            for name in sorted(self._panel.previews):
                provider = ui.ByteImageProvider()
                self._pictures[name] = provider
                ui.Label(name, height=18)
                ui.ImageWithProvider(provider, height=PREVIEW_HEIGHT)

    def _draw_previews(self) -> None:
        for name, shown in self._panel.previews.items():
            provider = self._pictures.get(name)
            if provider is None or self._shown.get(name) == shown.sequence:
                continue
            self._shown[name] = shown.sequence
            if shown.array.device.is_cuda:
                # A copy on the device: it does not pass the host. The picture's buffer lives as long as the run.
                provider.set_bytes_data_from_gpu(shown.array.ptr, list(shown.size))
            else:
                provider.set_bytes_data(shown.array.numpy().view("uint8").ravel().tolist(), list(shown.size))


def _choice_key(view: View) -> Any:
    return (
        view.actions.choose,
        (view.configurations, view.configuration, view.scenes, view.scene, view.humanoids, view.humanoid),
        (view.backend, view.precision),
    )


def _log_text(view: View) -> str:
    return "\n".join(log_text(line) for line in view.log[-LOG_LINES:])


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """Returns a function that calls a method as long as its object lives: Kit's lists do not keep it alive."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> None:
        found = reference()
        if found is not None:
            found(*arguments)

    return call
