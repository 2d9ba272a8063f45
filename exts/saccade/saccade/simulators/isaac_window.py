"""Isaac Sim as a simulator inside its own window: the application makes the updates, and nothing here makes one."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from saccade.frame import Command, SimState
from saccade.simulators.isaac import IsaacSimulator


class WindowIsaacSimulator(IsaacSimulator):
    """Isaac Sim whose updates are Kit's own: see :class:`saccade.simulators.base.SteppedSimulator`.

    Simulated time stands still whenever no step is begun: an application with a window updates all the while. And in it
    the ``SimulationContext`` of 5.x does not set up anything, so times go through Kit's timeline, its run loop and the
    physics scene.
    """

    _held = False

    def open(self, scene: Path | str) -> SimState:
        """Is not offered: the application's updates are not made here."""
        raise RuntimeError("inside an application the scene is opened between its updates: opening()")

    def opening(self, scene: Path | str) -> Generator[str, None, SimState]:
        """Does what :meth:`IsaacSimulator.opening` does, and then lets time stand still until the first step."""
        state = yield from super().opening(scene)
        self.hold(True)
        return state

    def begin_step(self, command: Command | None) -> None:
        """Hands over the command for the step that the application's next update makes."""
        super().begin_step(command)
        if self._held:
            self.hold(False)

    def hold(self, on: bool) -> None:
        """Lets simulated time stand still, or go on, while the application makes further updates."""
        self._held = on
        super().hold(on)

    def _set_times(self, rendering: float, physics: float) -> None:
        if self.release.major < 6:
            self._kit.set_loop_times(rendering)
            self._adapter.set_physics_time(physics)
        else:
            super()._set_times(rendering, physics)
