"""The doubles of Isaac Sim as an application with the extension in it, driven as Kit and its user would."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from tests.contracts.isaac.doubles import install
from tests.scripted_runs import SteppedSimulator, loaded_for, use

EXT_ID = "saccade-0.1.0"


class Application:
    """One Isaac Sim with its extensions.

    Args:
        double: Its modules.
        simulators: Those that runs made; each is stepped in every update, as physics is.
    """

    def __init__(self, double, simulators):
        self.world = double.world
        self.simulators = simulators
        self.extension = None
        self.world.observers.append(("update", 0, self._physics))
        self.before = leftovers(self.world)

    def _physics(self, _event):
        for simulator in self.simulators[-1:]:
            simulator.update()

    def enable(self, ext_id=EXT_ID):
        """Does what Kit does when an extension is enabled."""
        import saccade.kit

        extension = saccade.kit.SaccadeExtension()
        extension.on_startup(ext_id)
        self.extension = self.extension or extension
        return extension

    def disable(self, extension=None):
        """Does what Kit does when it is disabled; returns whether the object is still alive, as Kit checks."""
        extension = extension or self.extension
        if extension is self.extension:
            self.extension = None
        extension.on_shutdown()
        extension.__dict__.clear()
        reference = weakref.ref(extension)
        del extension
        for name in [name for name in sys.modules if name.startswith("saccade.kit")]:
            del sys.modules[name]
        gc.collect()
        return reference() is not None

    @property
    def panel(self):
        return self.extension.panel

    def updates(self, until, limit=4000):
        """Updates until ``until`` is true."""
        for _ in range(limit):
            self.world.update()
            if until():
                return
            time.sleep(0.001)
        raise AssertionError(f"not within {limit} updates; state {self.panel.state}, log {self.panel.view().log[-3:]}")

    def until_state(self, *states):
        """Updates until the panel is in one of ``states``."""
        self.updates(lambda: self.panel.state in states)

    def rest(self):
        """Updates until the choice has been read."""
        self.updates(lambda: self.panel._loading.done() and self.panel._looking is None)

    def widgets(self, kind):
        return [widget for widget in self.world.widgets if type(widget).__name__ == kind]

    def button(self, text):
        return next(widget for widget in self.widgets("Button") if widget._args[:1] == (text,))

    def click(self, text):
        button = self.button(text)
        assert button.enabled, f"{text} cannot be pressed"
        button._click()

    def labels(self):
        return [str(widget.text) for widget in self.widgets("Label")]

    def drawn(self):
        """Draws at once, whatever the time."""
        if self.extension.window is not None:
            self.extension.window._next = 0.0
            self.extension.window.draw()


def leftovers(world):
    """Everything that an extension could leave behind in an application, by kind."""
    names = sorted(thread.name for thread in threading.enumerate())
    return {
        # The doubles' pictures are cast by the embedded simulator, whose ray threads live as long as the process.
        "threads": [name for name in names if not name.startswith("saccade-rays")],
        "subscriptions": list(world.observers),
        "physics callbacks": dict(world.physics_callbacks),
        "contact listeners": list(world.contact_listeners),
        "menus": {name: list(items) for name, items in world.menus.items() if items},
        "windows": [widget for widget in world.widgets if type(widget).__name__ != "MenuItemDescription"],
        "show functions": dict(world.__dict__.get("show_window_functions", {})),
        "render products": list(world.products),
        # No way was read in 5.x to take one out.
        "writers": sorted(world.writers) if world.major >= 6 else [],
        "started": world.settings.get("/exts/saccade/started_by") or "",
    }


def assert_nothing_left(application):
    """Compares with what was there before the first extension."""
    now = leftovers(application.world)
    for kind, before in application.before.items():
        assert now[kind] == before, f"left behind: {kind}: {now[kind]}"


@contextmanager
def application(
    version, folder, monkeypatch, *, without=(), frames=20, settings=None, simulator=SteppedSimulator
) -> Iterator:
    """Yields an application with nothing enabled yet; runs are of the scripted simulator."""
    simulators = use(monkeypatch, simulator)
    loaded = loaded_for(folder, frames=frames, warmup=1)
    chosen = {"/exts/saccade/configuration": str(loaded.path), "/exts/saccade/out": str(folder / "runs")}
    with install(version, without=without, settings={**chosen, **(settings or {})}) as double:
        made = Application(double, simulators)
        try:
            yield made
        finally:
            if made.extension is not None:
                made.extension.on_shutdown()
