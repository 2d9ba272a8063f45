"""Isaac Sim as a simulator inside its own window: the application makes the updates, and nothing here makes one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from saccade.frame import Command, SimState
from saccade.loop import UPDATE
from saccade.simulators.isaac import IsaacSimulator

PLAY_UPDATES = 2
"""Updates from play until physics is ready: the play event is handled in the first, the first steps are made in it."""


class WindowIsaacSimulator(IsaacSimulator):
    """Isaac Sim whose updates are Kit's own: see :class:`saccade.simulators.base.SteppedSimulator`.

    In an application with a window nothing may call ``update()`` from a callback, and ``SimulationContext`` of 5.x does
    not set up anything there. So times, play and stop go through Kit's timeline, its run loop and the physics scene;
    sensors, callbacks and the humanoid are as in a script.
    """

    def open(self, scene: Path | str) -> SimState:
        """Is not offered: the application's updates are not made here."""
        raise RuntimeError("inside an application the scene is opened between its updates: opening()")

    def opening(self, scene: Path | str) -> Generator[str, None, SimState]:
        """Does what :meth:`IsaacSimulator.open` does, and yields wherever the application has to make an update.

        Raises:
            SceneError: As :meth:`IsaacSimulator.open`.
            ConfigurationError: As :meth:`IsaacSimulator.open`.
        """
        for _ in self._opening(scene):
            yield UPDATE
        # Time stands still until the first step is begun: whatever is opened after this takes as long as it takes.
        self.hold(True)
        return self.state

    def begin_step(self, command: Command | None) -> None:
        """Hands over the command for the step that the application's next update makes."""
        if command is not None:
            self._walk.accept(command)
        self._steps += 1
        self._before_update()
        if self._held:
            self.hold(False)

    def step_done(self) -> bool:
        """Tells whether the update has come; a clock that its user has stopped makes no step."""
        return self._failure is not None or bool(self._adapter.physics_steps() != self._before)

    def step(self, command: Command | None) -> SimState:
        """Returns the state after the step that was begun.

        Raises:
            ConfigurationError: As :meth:`IsaacSimulator.step`.
        """
        self._after_update()
        self._clock.sample_if_due()
        return self.state

    def hold(self, on: bool) -> None:
        """Lets simulated time stand still, or go on, while the application makes further updates."""
        self._held = on
        if on:
            self._kit.pause()
        else:
            self._kit.play()

    def _set_times(self, rendering: float, physics: float) -> None:
        if self.release.major < 6:
            self._kit.set_loop_times(rendering)
            self._adapter.set_physics_time(physics)
        else:
            self._adapter.set_times(rendering, physics)

    def _play(self) -> Iterator[Callable[[], None]]:
        self._held = False
        self._kit.play()
        for _ in range(PLAY_UPDATES):
            yield self._kit.update

    def _stop(self) -> None:
        self._kit.stop()
        self._adapter.stop_in_window()
