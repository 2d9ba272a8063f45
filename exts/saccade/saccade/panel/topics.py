"""The ROS 2 topics of a run as rows of the view: counts from the bridge's own counters, rates over a few seconds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from saccade.panel.view import TopicRow

PERIOD_S = 0.5
"""How often the counters are read."""
WINDOW = 10
"""Readings that a rate is over."""


class TopicWatch:
    """Reads the bridge's counters now and then, and makes rows of them.

    Args:
        clock: Monotonic time [s].
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._readings: deque[tuple[float, Mapping[str, Mapping[str, Any]]]] = deque(maxlen=WINDOW)

    def rows(self, read: Callable[[], Mapping[str, Mapping[str, Any]]]) -> tuple[TopicRow, ...]:
        """Returns a row per topic that carried something, and one for those that nobody listens to.

        Args:
            read: Returns the counters; see :meth:`saccade.bridge.bridge.Bridge.counters`.
        """
        now = self._clock()
        if not self._readings or now - self._readings[-1][0] >= PERIOD_S:
            self._readings.append((now, read()))
        first, newest = self._readings[0], self._readings[-1]
        span = newest[0] - first[0]
        rows, idle = [], 0
        for topic, counts in sorted(newest[1].items()):
            taken, lost, detail = _figures(counts)
            if not taken and not lost and not detail:
                idle += 1
                continue
            before = _figures(first[1].get(topic, {}))[0]
            rate = (taken - before) / span if span > 0 else None
            rows.append(TopicRow(topic, str(counts["direction"]), taken, lost, rate, detail))
        if idle:
            rows.append(TopicRow(f"{idle} further topics", "", 0, 0, None, "nothing sent or received yet"))
        return tuple(rows)


def _figures(counts: Mapping[str, Any]) -> tuple[int, int, str]:
    """Returns what went through, what was lost, and the newest reason, in either direction."""
    received, refused = counts.get("received", 0), counts.get("refused", 0)
    lost = counts.get("dropped", 0)
    lost = sum(lost.values()) if isinstance(lost, Mapping) else lost
    lost += counts.get("failures", 0)
    detail = counts.get("failure") or counts.get("refusal") or ""
    return counts.get("delivered", 0) + received, lost + refused, str(detail)
