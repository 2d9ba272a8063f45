"""A benchmark in words: goals, lines for the terminal, progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO


@dataclass(frozen=True, slots=True)
class Goal:
    """What a ratio should be."""

    at_most: bool
    limit: float

    def met(self, value: float) -> bool:
        """Tells whether a ratio is as good as that."""
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {self.limit:g}"


GOALS = {
    "graph_over_floor": Goal(True, 1.05),
    "graph_with_stamps_over_floor": Goal(True, 1.10),
    "host_round_trip_over_graph": Goal(False, 15),
    "frame_over_floor": Goal(True, 1.5),
    "preprocess_over_byte_floor": Goal(True, 3),
    "cameras_16_over_16x1": Goal(True, 0.5),
    "recorder_share": Goal(True, 0.01),
    "bridge_on_over_off": Goal(True, 1.05),
}

HAND_OVER_GOAL_MS = Goal(True, 0.2)
"""Handing one 640x480x3 image over to be published, on the loop [ms]."""
LATENCY_GOAL_MS = Goal(True, 3)
"""From there to a subscriber in another process [ms], the median, tuned."""

TITLES = {
    "graph_over_floor": "buffer to result, one graph, over the bare engine's graph",
    "graph_with_stamps_over_floor": "the same with stamps and decoding",
    "graph_with_stamps_line_over_floor": "the same with stamps and decoding, without branches",
    "host_round_trip_pinned_over_graph": "the same with a pinned frame",
    "eager_over_graph": "buffer to result, eager over graph",
    "host_round_trip_over_graph": "host round trip over the graph",
    "polygraphy_over_graph": "Polygraphy's runner (engine alone) over the graph",
    "onnxruntime_cpu_over_graph": "ONNX Runtime on the CPU over the graph",
    "host_loop_over_onnxruntime_cpu": "loop on the CPU over ONNX Runtime alone",
    "frame_over_floor": "sensors to result, bench scene, over the bare graph",
    "frame_over_floor_with_stamps": "the same with stamps",
    "frame_over_floor_line": "the same, without branches",
    "frame_over_floor_warehouse": "sensors to result, warehouse, over the bare graph",
    "frame_over_floor_warehouse_with_stamps": "the same with stamps",
    "frame_over_floor_warehouse_line": "the same, without branches",
    "preprocess_over_byte_floor": "preprocess to FP16 over its byte floor",
    "preprocess_over_byte_floor_fp32": "preprocess to FP32 over its byte floor",
    "cameras_16_over_16x1": "16 cameras over 16 x one",
    "recorder_share": "recorder, share of the frame",
    "recorder_on_over_off": "turn of the loop, recorded over not recorded",
    "bridge_on_over_off": "state to decision, published over not published",
    "bridge_turn_on_over_off": "turn of the loop, published over not published",
    "frame_over_engines": "state to decision, over the bare engines",
    "engine_in_loop_over_bare": "engines in the loop, over the bare engines",
    "preprocess_over_engines": "preprocessing, over the bare engines",
}


def bench_lines(result: dict[str, Any]) -> list[str]:
    """Returns a benchmark as lines of text."""
    host = result["host"]
    gpu = host.get("gpu")
    lines = [", ".join(filter(None, (host.get("cpu"), gpu and gpu["name"], result["device"])))]
    if result.get("quick"):
        lines.append("quick: too few samples for figures to report")
    lines += [ratio_line(name, ratio) for name, ratio in result["ratios"].items()]
    lines += list(_further(result))
    for title, group in (("not measured", "missing"), ("INVALID", "invalid")):
        lines += [f"{title}: {name}: {reason}" for name, reason in result.get(group, {}).items()]
    return lines


def ratio_line(name: str, ratio: dict[str, Any]) -> str:
    """Returns one ratio with its interval and, where there is one, its goal."""
    interval = "" if ratio["interval"] is None else "  [{:.3g} .. {:.3g}]".format(*ratio["interval"])
    goal = GOALS.get(name)
    verdict = "" if goal is None else f"  goal {goal}: {'met' if goal.met(ratio['value']) else 'MISSED'}"
    return f"{TITLES.get(name, name):<58} {ratio['value']:10.4g}{interval}  n={ratio['n']}{verdict}"


def _further(result: dict[str, Any]) -> Iterator[str]:
    """Yields what is no ratio."""
    if result.get("recorder_us") is not None:
        yield f"{'recorder, per record':<58} {result['recorder_us']:10.3g} us"
    if "bridge" in result:
        taken = result["bridge"]["hand_over_ms"]
        met = "met" if HAND_OVER_GOAL_MS.met(taken["value"]) else "MISSED"
        yield f"{'bridge, one image of 640x480x3':<58} {taken['value']:10.3g} ms  goal {HAND_OVER_GOAL_MS}: {met}"
    if result.get("host_to_device_bytes") is not None:
        yield f"{'host to device, per frame, from the graphs':<58} {result['host_to_device_bytes']:10d} bytes"
    if "realtime_factor" in result:
        yield f"{'real-time factor':<58} {result['realtime_factor']:10.3g}"
    for title, medians in median_groups(result):
        for name, median in medians.items():
            if median["value"] is not None:
                yield f"{'median ' + title + name:<58} {median['value']:10.4g} ms"
    if "first_frame_s" in result:
        yield f"{'fresh process to first frame':<58} {result['first_frame_s']:10.3g} s"


def median_groups(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every set of medians [ms] with what stands before its names."""
    for subject, found in result.get("engines", {}).items():
        yield f"{subject}, ", found["median_ms"]
    for scene, found in result.get("frame", {}).items():
        yield f"frame, {scene}, ", found["median_ms"]
    for group in ("cameras", "recorder", "bridge", "loop"):
        if group in result:
            yield f"{group}, ", result[group]["median_ms"]


class Progress:
    """Shows what is being done in one line of a terminal; elsewhere now and then as lines of their own.

    It has no thread of its own: that would take time from what is measured.

    Args:
        stream: Where to.
        now: Clock [s].
    """

    PERIOD_S = 5.0
    """Least time between two lines where it is no terminal [s]; a new group is always shown."""

    def __init__(self, stream: TextIO, *, now: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._now = stream, now
        self._terminal = stream.isatty()
        self._shown = -self.PERIOD_S
        self._group = ""

    def __call__(self, text: str) -> None:
        """Shows ``text``."""
        group = text.partition(":")[0]
        if self._terminal:
            self._stream.write(f"\r\x1b[K{text[:110]}")
        elif group != self._group or self._now() - self._shown >= self.PERIOD_S:
            self._stream.write(f"{text}\n")
            self._shown = self._now()
        self._group = group
        self._stream.flush()

    def close(self) -> None:
        """Clears the line of a terminal."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
