"""The simulator protocol: what the loop asks of Newton, Isaac Sim or a recording."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Whether :meth:`record_sense` can put sensing into a CUDA graph."""

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

    def record_sense(self, stream: Any) -> None:
        """Puts sensing of all sensors due together on ``stream`` while a CUDA graph is captured."""
        ...

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say: versions, solver, sensors' intrinsics, scene hash."""
        ...

    def close(self) -> None:
        """Frees what was opened; safe to call twice."""
        ...
