"""Which kernel takes which stamp of a frame: one that begins or ends there anyway, or one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import warp as wp

from saccade.errors import EngineError
from saccade.execution import Turn
from saccade.kernels.stamps import set_marks, takes_marks
from saccade.mailbox import MAX_STAMPS, Mailbox
from saccade.network import InputWork

SENSED, PREPROCESSED, INFERRED = 0, 1, 2


@dataclass(slots=True)
class StampPlan:
    """The stamps of one set of frames."""

    stages: list[list[int]]
    """Per frame the slots of its stamps of ``sensed``, ``preprocessed`` and ``inferred``; -1 = none."""
    taken: int = 0
    """Stamps that are taken."""
    own: dict[tuple[int, int], wp.Launch] = field(default_factory=dict)
    """Launches of those that need a kernel of their own, by stage and place of the frame after whose work they come."""
    results: int = -1
    """Slot of the stamp that the launch of the results takes as it begins; -1 = none."""

    def take(self, stage: int, places: Sequence[int]) -> int:
        """Returns the slot of one more stamp, of a stage of some frames."""
        slot = self.taken
        if slot == MAX_STAMPS:
            raise EngineError(
                f"{len(self.stages)} sensors are due together, more than one frame can stamp: give them other rates"
            )
        self.taken += 1
        for place in places:
            self.stages[place][stage] = slot
        return slot


def plan_stamps(
    turns: Sequence[Turn],
    inputs: Sequence[Sequence[InputWork]],
    decodes: Sequence[Sequence[wp.Launch]],
    sensors: Sequence[str],
    lanes: Sequence[str | None],
    mailbox: Mailbox,
    *,
    whole: bool,
    results: bool,
    staged: bool,
) -> StampPlan:
    """Gives every stamp a slot and the cheapest kernel that takes it at the right moment, and marks launches.

    - ``sensed`` of the last frame of a lane is when the lane's next work begins, where that is preprocessing and waits
      for nothing else.
    - ``preprocessed`` is when the last launch of the preprocessing ends, where something comes after it that brings
      such stamps to the host: the launch of the results.
    - ``inferred`` is when decoding begins: its first launch, or that of the results where it comes next.

    All else has a kernel of one thread.

    Args:
        turns: What happens frame by frame.
        inputs: Preprocessing by turn.
        decodes: Decoding of large outputs by turn.
        sensors: Of the frames, in order.
        lanes: Lane of each frame; all the same where there are no branches.
        mailbox: Where stamps go.
        whole: Whether the frames are sensed as part of the set.
        results: Whether a launch of the results ends the set.
        staged: Whether users' stages come between sensing and preprocessing.

    Raises:
        EngineError: There are more stamps than one frame can take.
    """
    plan = StampPlan([[-1, -1, -1] for _ in turns])
    place = {sensor: i for i, sensor in enumerate(sensors)}
    marked: dict[int, tuple[wp.Launch, dict[str, int]]] = {}

    def mark(launch: wp.Launch | None, end: str, stage: int, at: int, places: Sequence[int]) -> None:
        slot = plan.take(stage, places)
        if launch is None:
            plan.own[stage, at] = mailbox.record_stamp(slot)
        else:
            marked.setdefault(id(launch), (launch, {}))[1][end] = slot

    if whole:
        for i in range(len(turns)):
            mark(None if staged else _after_sensing(i, turns, inputs, lanes), "first", SENSED, i, [i])
    working = [i for i, turn in enumerate(turns) if turn.inputs or turn.networks]
    alone = len({lanes[i] for i in working}) == 1
    for i, turn in enumerate(turns):
        if turn.prepared:
            mark(_last_of(inputs[i]) if results else None, "last", PREPROCESSED, i, turn.prepared)
        if turn.networks:
            primary = [place[sensor] for network in turn.networks for sensor in network.primary]
            if results and not decodes[i] and alone and i == working[-1]:
                plan.results = plan.take(INFERRED, primary)
            else:
                mark(decodes[i][0] if decodes[i] else None, "first", INFERRED, i, primary)
    for launch, slots in marked.values():
        set_marks(launch, mailbox.marks(**slots))
    return plan


def _after_sensing(
    frame: int, turns: Sequence[Turn], inputs: Sequence[Sequence[InputWork]], lanes: Sequence[str | None]
) -> Any:
    """Returns the launch that begins when a frame has been sensed; ``None`` = there is no such launch."""
    lane = lanes[frame]
    if lane in lanes[frame + 1 :]:
        return None
    for i, turn in enumerate(turns):
        if lanes[i] == lane and inputs[i]:
            launches = inputs[i][0].launches
            waits = any(lanes[j] != lane for j in turn.prepared)
            return None if waits or not launches or not takes_marks(launches[0]) else launches[0]
    return None


def _last_of(works: Sequence[InputWork]) -> Any:
    """Returns the launch with which preprocessing ends; ``None`` = a copy comes after it, or it cannot stamp itself."""
    if not works or works[-1].copies or not works[-1].launches:
        return None
    launch = works[-1].launches[-1]
    return launch if takes_marks(launch) else None
