"""Which precision runs the next frame: pure decisions from latency, load and outputs; no clock and no device."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from saccade.config_tradeoff import AdaptiveConfig

FASTER = 0.95
"""Share of another precision's latency that one must stay below to count as faster."""
CHECKED = 4
"""Frames after a switch from which it is told whether it helped."""
MAX_BACKOFF = 8
"""Most times that the hold of a precision which was tried in vain is doubled to."""


@dataclass(frozen=True, slots=True)
class Level:
    """One precision that is ready to run."""

    precision: str
    retention: float | None = None
    """Share of FP32's accuracy that was measured; ``None`` = not measured."""


@dataclass(frozen=True, slots=True)
class Signals:
    """What is known after a frame."""

    time_s: float
    """Monotonic time [s]."""
    inference_ms: float
    load_percent: float | None = None
    """Of the GPU, or of all CPU cores."""
    memory_percent: float | None = None
    """Of the GPU's memory in use."""
    finite: bool = True
    detections: bool | None = None
    """Whether anything was detected; ``None`` where that cannot be said."""
    agreement: float | None = None
    """Share of labels as in the frame before, for the first frame after a switch."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A change of precision, with its reason."""

    time_s: float
    source: str
    target: str
    kind: str
    """``"load"``, ``"relax"``, ``"no_help"`` or ``"fault"``."""
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Returns it as the record has it."""
        return asdict(self)


class PrecisionPolicy:
    """Runs the most accurate precision that keeps the deadline, and never one below the accuracy floor.

    Down, when recent latency comes near the deadline: to the most accurate precision that is expected to keep it. Up,
    when the more accurate one is expected to stay well below it and the device has room: the two thresholds differ
    (hysteresis), and two switches for load are at least the dwell time apart. A precision that was tried in vain is
    left out for a while, longer each time. What a precision is expected to take follows from the latencies of all
    precisions measured before (:meth:`calibrate`) and from how much slower than then the present one runs.

    Outputs at fault (not finite, labels that change at a switch, no detection any more) lead to the most careful
    precision at once.

    Args:
        levels: The most accurate first.
        config: Thresholds.
        deadline_ms: Inference time that a frame may take [ms].
    """

    def __init__(self, levels: Sequence[Level], config: AdaptiveConfig, deadline_ms: float) -> None:
        if not levels:
            raise ValueError("a policy needs at least one precision")
        self.config = config
        self.deadline_ms = deadline_ms
        self.excluded: dict[str, str] = {}
        """Precisions that are never taken, and why."""
        self.levels: list[Level] = []
        for place, level in enumerate(levels):
            if place and level.retention is not None and level.retention < config.accuracy_floor:
                self.excluded[level.precision] = (
                    f"it keeps {level.retention:.4f} of FP32's accuracy, and the floor is {config.accuracy_floor:g}"
                )
            else:
                self.levels.append(level)
        self.precision = self.levels[0].precision
        """What runs the next frame."""
        self.switches: list[Switch] = []
        self.notes: list[str] = []
        """What was found out and is no switch, such as that no precision helps."""
        self._base: dict[str, float] = {}
        self._window: deque[float] = deque(maxlen=config.window)
        self._switched_s: float | None = None
        self._before_ms: float | None = None
        self._unproven = False
        self._held: dict[str, float] = {}
        self._vain: dict[str, int] = {}
        self._seen = False
        self._empty = 0
        self._watched: str | None = None

    def calibrate(self, base_ms: Mapping[str, float]) -> None:
        """Takes what each precision took for a frame when nothing else was going on, median [ms]."""
        self._base = dict(base_ms)
        top = self.levels[0].precision
        if top not in self._base:
            return
        slower = [level.precision for level in self.levels[1:] if not self._is_faster(level.precision, top)]
        told = ", ".join(f"{name} takes {self._base[name] / self._base[top]:.2f} times as long" for name in slower)
        if slower and len(slower) == len(self.levels) - 1:
            self._note(f"no precision is faster than {top} here ({told}): it stays, whatever the load")
        elif slower:
            self._note(f"not faster than {top} here and therefore never taken for load: {told}")

    def observe(self, signals: Signals) -> Switch | None:
        """Takes what is known after a frame; returns the switch that it leads to, if any."""
        fault = self._fault(signals)
        if fault is not None:
            return self._fall_back(signals, fault)
        self._window.append(signals.inference_ms)
        if self._switched_s is not None and signals.time_s - self._switched_s < self.config.dwell_s:
            return None
        if len(self._window) < min(CHECKED, self.config.window):
            return None
        return self._in_vain(signals) or self._down(signals) or self._up(signals)

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say."""
        return {
            "deadline_ms": self.deadline_ms,
            "accuracy_floor": self.config.accuracy_floor,
            "levels": [{**asdict(level), "unloaded_ms": self._base.get(level.precision)} for level in self.levels],
            "excluded": self.excluded,
            "switches": [switch.as_dict() for switch in self.switches],
            "notes": list(self.notes),
        }

    def _recent(self) -> float:
        """The second largest of the window: one frame that was late by chance does not count, two do."""
        ordered = sorted(self._window)
        return ordered[-2] if len(ordered) > 2 else ordered[-1]

    def _down(self, signals: Signals) -> Switch | None:
        recent = self._recent()
        limit = self.config.target * self.deadline_ms
        if recent <= limit:
            return None
        faster = [name for name in self._below(signals) if self._is_faster(name, self.precision)]
        if not faster:
            self._note(f"{self.precision} comes near the deadline, and no faster precision is allowed")
            return None
        fitting = [name for name in faster if self._expected(name, recent) <= limit]
        # None is expected to be fast enough: then the fastest is the least bad.
        target = fitting[0] if fitting else min(faster, key=lambda name: self._base.get(name, 0.0))
        reason = f"recent latency {recent:.3g} ms above {limit:.3g} ms ({_load(signals)})"
        # Frames from before the load came do not show what it is to help against.
        slow = median(value for value in self._window if value > limit)
        switch = self._switch(signals, target, "load", reason)
        self._unproven, self._before_ms = True, slow
        return switch

    def _up(self, signals: Signals) -> Switch | None:
        if self._place() == 0 or len(self._window) < self.config.window:
            return None
        if (signals.load_percent or 0.0) >= self.config.load_high:
            return None
        if (signals.memory_percent or 0.0) >= self.config.memory_high:
            return None
        recent, limit = self._recent(), self.config.relax * self.deadline_ms
        for level in self.levels[: self._place()]:
            name = level.precision
            if self._is_held(name, signals.time_s):
                continue
            expected = self._expected(name, recent)
            if expected <= limit:
                reason = f"expected to take {expected:.3g} ms, below {limit:.3g} ms ({_load(signals)})"
                return self._switch(signals, name, "relax", reason)
        return None

    def _in_vain(self, signals: Signals) -> Switch | None:
        """Goes back where a faster precision turned out not to be faster."""
        if not self._unproven or self._before_ms is None:
            return None
        self._unproven = False
        now = median(self._window)
        if now < FASTER * self._before_ms:
            return None
        name, back = self.precision, self.switches[-1].source
        self._hold(name, signals.time_s)
        self._note(f"{name} did not help: median {now:.3g} ms after {self._before_ms:.3g} ms with {back}")
        return self._switch(signals, back, "no_help", f"{name} is not faster under this load")

    def _fault(self, signals: Signals) -> str | None:
        if not signals.finite:
            return "outputs are not finite"
        if signals.agreement is not None and signals.agreement < self.config.agreement:
            return f"labels agree with those before the switch in {signals.agreement:.2f} only"
        if signals.detections is None:
            return None
        if signals.detections:
            self._seen, self._empty, self._watched = True, 0, None
            return None
        self._empty += 1
        if self._watched is not None:
            if self._empty >= self.config.zero_streak:
                # The careful precision sees nothing either: there is nothing, and the other one was right.
                self._held.pop(self._watched, None)
                self._seen, self._watched = False, None
            return None
        if self._seen and self._place() > 0 and self._empty >= self.config.zero_streak:
            self._watched = self.precision
            return f"no detection in {self._empty} frames"
        return None

    def _fall_back(self, signals: Signals, fault: str) -> Switch | None:
        self._empty = 0
        if self._place() == 0:
            self._note(f"{self.precision}: {fault}, and there is no more careful precision")
            return None
        self._hold(self.precision, signals.time_s)
        return self._switch(signals, self.levels[0].precision, "fault", fault)

    def _switch(self, signals: Signals, target: str, kind: str, reason: str) -> Switch:
        switch = Switch(signals.time_s, self.precision, target, kind, reason)
        last = self.switches[-1] if self.switches else None
        # A more careful precision that had to be left again soon is not tried again as soon.
        if kind == "load" and last is not None and last.kind == "relax":
            if signals.time_s - last.time_s < 3 * max(self.config.dwell_s, 1e-9):
                self._hold(self.precision, signals.time_s)
        self._unproven = False
        self.switches.append(switch)
        self.precision = target
        self._switched_s = signals.time_s
        self._window.clear()
        return switch

    def _hold(self, name: str, time_s: float) -> None:
        doubled = min(2 ** self._vain.get(name, 0), MAX_BACKOFF)
        self._vain[name] = self._vain.get(name, 0) + 1
        self._held[name] = time_s + self.config.hold_s * doubled

    def _is_held(self, name: str, time_s: float) -> bool:
        return time_s < self._held.get(name, float("-inf"))

    def _below(self, signals: Signals) -> list[str]:
        names = [level.precision for level in self.levels[self._place() + 1 :]]
        return [name for name in names if not self._is_held(name, signals.time_s)]

    def _place(self) -> int:
        return next(place for place, level in enumerate(self.levels) if level.precision == self.precision)

    def _is_faster(self, name: str, than: str) -> bool:
        """Where nothing was measured a less careful precision is taken to be faster, until it shows otherwise."""
        if name not in self._base or than not in self._base:
            return True
        return self._base[name] < FASTER * self._base[than]

    def _expected(self, name: str, recent: float) -> float:
        if name not in self._base or self.precision not in self._base:
            return recent
        return recent * self._base[name] / self._base[self.precision]

    def _note(self, text: str) -> None:
        if text not in self.notes and len(self.notes) < 64:
            self.notes.append(text)


def _load(signals: Signals) -> str:
    return "load not known" if signals.load_percent is None else f"load {signals.load_percent:.0f} %"
