"""What a run's turns are called, and who may look on while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from saccade.loop import RecordSink, Tick
from saccade.validation.interrupt import Interrupt
from saccade.validation.progress import RunProgress

if TYPE_CHECKING:
    from saccade.validation.run import RunSession

WORK = "work"
"""A turn of :func:`saccade.validation.run.validation_turns` comes next that may take long and needs nothing of the
simulator's application."""
APPLICATION = "application"
"""A turn comes next that belongs to the thread of the simulator's application."""


class Watch(Protocol):
    """Who looks on while a run goes on, such as a window; called by the thread that does the turn."""

    def say(self, text: str) -> None:
        """Is told what is being done."""
        ...

    def opened(self, session: RunSession) -> None:
        """Is told when something more was opened; the session is only looked at."""
        ...

    def tick(self, tick: Tick) -> None:
        """Is told of each decision, outside the latency that is measured; buffers are valid during the call."""
        ...

    def record(self, record: Mapping[str, Any]) -> None:
        """Is given each finished record; it must not be changed."""
        ...


class WatchedSink:
    """Hands every record to the recorder, and shows it to who looks on."""

    def __init__(self, recorder: RecordSink, watch: Watch) -> None:
        self._recorder = recorder
        self._watch = watch

    def put(self, record: dict[str, Any]) -> None:
        """Takes one record without blocking."""
        self._recorder.put(record)
        self._watch.record(record)


def saying(progress: RunProgress, watch: Watch | None, interrupt: Interrupt) -> Callable[[str], None]:
    """Returns what tells progress and whoever looks on, and ends what is being loaded once that is asked for."""

    def say(text: str) -> None:
        progress.say(text)
        if watch is not None:
            watch.say(text)
        if interrupt.requested and not interrupt.running:
            raise KeyboardInterrupt

    return say
