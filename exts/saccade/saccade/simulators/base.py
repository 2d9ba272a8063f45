"""The simulator protocol: what the loop asks of Newton, Isaac Sim or a recording."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from saccade.frame import Command, Frame, GroundTruth, SimState


@runtime_checkable
class Simulator(Protocol):
    """A source of sensor frames that can be stepped and commanded.

    Time is simulation time [s] from the simulator's own clock, never from the wall.
    """

    name: str
    """``"newton"``, ``"replay"`` or ``"isaac"``."""
    device: str
    """Warp device of the buffers, ``"cpu"`` or ``"cuda:N"``."""
    acts: bool
    """Whether commands have an effect; a recording walks where it walked."""
    capturable: bool
    """Whether sensing can be part of a CUDA graph: :meth:`due`,
    :meth:`prepare`, :meth:`record_state` and :meth:`record_sense`."""

    def open(self, scene: Path | str) -> SimState:
        """Loads the scene, attaches the configured sensors and returns the first state.

        Raises:
            SceneError: The file or a prim is missing, or the scene has no physics.
        """
        ...

    def step(self, command: Command | None) -> SimState:
        """Advances by one step; ``None`` keeps the command that holds. The state is valid until the next step."""
        ...

    def sense(self) -> Sequence[Frame]:
        """Returns one frame per sensor sample that is due now; none is possible.

        The ``sim_state`` and ``sensed`` stamps are set. Frames and their buffers are valid until the next call.
        """
        ...

    def ground_truth(self, frame: Frame) -> GroundTruth:
        """Returns the truth about ``frame``, of that frame's own state."""
        ...

    def due(self) -> Sequence[Frame]:
        """Returns the frames that :meth:`sense` would, before they are sensed; only where :attr:`capturable`.

        Everything is set but the buffers' content and the ``sensed`` stamp.
        """
        ...

    def prepare(self, frames: Sequence[Frame]) -> None:
        """Launches what changes from frame to frame; precedes every launch, capture and replay of a set of frames.

        Only where :attr:`capturable`.
        """
        ...

    def record_state(self, stream: Any) -> None:
        """Launches on ``stream`` what brings the scene that sensors see to the current state; may be captured.

        Only where :attr:`capturable`; once for a set of frames, before their :meth:`record_sense`.
        """
        ...

    def record_sense(self, frames: Sequence[Frame], stream: Any) -> None:
        """Launches sensing of frames that are due on ``stream``; waits for nothing and may be captured.

        Only where :attr:`capturable`. Called once or several times for one set; frames of one kind always come on one
        stream, those of another kind may come on another.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say: versions, solver, sensors' intrinsics, scene hash."""
        ...

    def close(self) -> None:
        """Frees what was opened; safe to call twice."""
        ...


@runtime_checkable
class SteppedSimulator(Protocol):
    """What a simulator has beyond :class:`Simulator` that its own application advances, update by update.

    All of it, and the methods of :class:`Simulator`, are called on the application's thread between two updates.
    """

    def opening(self, scene: Path | str) -> Generator[str, None, SimState]:
        """Does what :meth:`Simulator.open` does, and yields what it waits for wherever an update has to be made."""
        ...

    def begin_step(self, command: Command | None) -> None:
        """Hands over the command for the next step, which the application's next updates make."""
        ...

    def step_done(self) -> bool:
        """Tells whether that step was made; :meth:`Simulator.step` then returns its state."""
        ...

    def hold(self, on: bool) -> None:
        """Lets simulated time stand still, or go on, while the application makes further updates."""
        ...


@runtime_checkable
class Resettable(Protocol):
    """A simulator that can start again in mid-run."""

    def reset(self) -> SimState:
        """Puts everything back to the start while the clock, and the sensors' numbers, run on; returns the state."""
        ...
