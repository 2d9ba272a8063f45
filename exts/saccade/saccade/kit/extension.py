"""The extension's life in Kit: on_startup opens view model and window (where there is a UI), on_shutdown ends all."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import carb
import carb.eventdispatcher
import carb.settings
import omni.ext
import omni.kit.app

from saccade.panel.bare import BarePanel
from saccade.panel.dependencies import can_run, missing_lines
from saccade.panel.view import Level

if TYPE_CHECKING:
    from saccade.kit.window import SaccadeWindow
    from saccade.panel.model import Panel

SETTINGS = "/exts/saccade"
"""Where the settings are, whatever the folder of the extension is called."""
STARTED_BY = f"{SETTINGS}/started_by"
"""Identifier of the extension that is started; outlives the module, which Kit loads anew for each."""
DEFAULTS: dict[str, Any] = {
    "configuration": "warehouse",
    "out": "~/saccade/runs",
    "window": True,
    "preview": True,
    "draw_hz": 10.0,
}
"""The same as in the manifests; a test holds them equal."""

_STARTED: weakref.ref[SaccadeExtension] | None = None
"""The extension that is started, held weakly."""

_LOGGERS = {"info": carb.log_info, "warning": carb.log_warn, "error": carb.log_error}


class SaccadeExtension(omni.ext.IExt):
    """Measures a humanoid's perception in the open stage.

    The view model is stepped from Kit's post-update event, when the renderer has done its part of the update; building,
    judging and writing are on a thread of their own.
    """

    panel: Panel | BarePanel | None = None
    window: SaccadeWindow | None = None
    ext_id = ""
    _updates: Any = None

    def on_startup(self, ext_id: str) -> None:
        """Opens the view model, and the window where there is a UI.

        Args:
            ext_id: Name and version of this extension, as Kit has them.
        """
        settings = carb.settings.get_settings()
        other = settings.get(STARTED_BY)
        if other:
            _forward(
                "error",
                f"Saccade is started already, by the extension {other}: {ext_id} is not started. The checkout and its "
                f"folder exts/ both hold the extension: enable one of them.",
            )
            return
        global _STARTED  # noqa: PLW0603
        _STARTED = weakref.ref(self)
        settings.set(STARTED_BY, ext_id)
        self.ext_id = ext_id
        for name, value in DEFAULTS.items():
            settings.set_default(f"{SETTINGS}/{name}", value)
        self.panel = _panel(settings)
        if _has_ui():
            from saccade.kit.window import SaccadeWindow

            self.window = SaccadeWindow(
                self.panel,
                visible=settings.get_as_bool(f"{SETTINGS}/window"),
                previews=settings.get_as_bool(f"{SETTINGS}/preview"),
                draw_hz=settings.get_as_float(f"{SETTINGS}/draw_hz"),
            )
        # Kit keeps what it calls: nothing here may hold the extension alive after its end.
        own = weakref.proxy(self)
        self._updates = carb.eventdispatcher.get_eventdispatcher().observe_event(
            event_name=omni.kit.app.GLOBAL_EVENT_POST_UPDATE,
            on_event=lambda _event: own.update(),
            observer_name="saccade",
        )

    def update(self) -> None:
        """Steps the run, and draws; called once per update of Kit."""
        if self.panel is not None:
            self.panel.update()
        if self.window is not None:
            self.window.draw()

    def on_shutdown(self) -> None:
        """Ends the run in order and gives back everything: subscription, window, menu, annotators, engines, threads."""
        if not self.ext_id:
            return
        if self._updates is not None:
            self._updates.reset()
            self._updates = None
        if self.window is not None:
            self.window.destroy()
            self.window = None
        if self.panel is not None:
            self.panel.close()
            self.panel = None
        carb.settings.get_settings().set(STARTED_BY, "")
        self.ext_id = ""


def started() -> SaccadeExtension | None:
    """Returns the extension that is started, for scripts and tests: its ``panel`` does what the window's buttons do."""
    return None if _STARTED is None else _STARTED()


def _panel(settings: Any) -> Panel | BarePanel:
    """Returns the view model, or where packages are missing the one that says so."""
    import numpy

    missing = missing_lines(numpy_version=numpy.__version__)
    if not can_run(missing):
        return BarePanel(missing, _forward)
    from saccade.panel.model import Panel

    return Panel(
        out=Path(settings.get_as_string(f"{SETTINGS}/out")).expanduser(),
        configuration=settings.get_as_string(f"{SETTINGS}/configuration"),
        application_stage=_open_stage,
        forward=_forward,
        missing=missing,
    )


def _open_stage() -> Any:
    import omni.usd

    return omni.usd.get_context().get_stage()


def _has_ui() -> bool:
    """Tells whether this application has a UI; a headless one may have none."""
    try:
        import omni.ui  # noqa: F401
    except ImportError:
        return False
    return True


def _forward(level: Level, text: str) -> None:
    """Hands a line of the log to Kit's own."""
    _LOGGERS[level](f"[saccade] {text}")
