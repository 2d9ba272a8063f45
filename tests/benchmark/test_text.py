"""A benchmark in words."""

import io

import pytest

from saccade.benchmark import engines
from saccade.benchmark.text import GOALS, TITLES, Progress, bench_lines, ratio_line

RESULT = {
    "ratios": {
        "graph_over_floor": {"value": 1.04, "interval": [1.03, 1.06], "n": 300},
        "host_round_trip_over_graph": {"value": 12.0, "interval": None, "n": 60},
    },
    "recorder_us": 2.5,
    "bridge": {
        "hand_over_ms": {"value": 0.25, "interval": [0.24, 0.26], "n": 150},
        "median_ms": {"frame_on": {"value": 41.0, "interval": [40.0, 42.0], "n": 150}},
    },
    "host_to_device_bytes": 0,
    "engines": {"resnet18 fp16": {"median_ms": {"bare_graph": {"value": 0.2, "interval": [0.19, 0.21], "n": 300}}}},
    "device": "cuda:0",
    "host": {"cpu": "A CPU", "gpu": {"name": "A GPU"}},
    "missing": {"polygraphy": "not installed"},
    "invalid": {"frame": "other results"},
}


def test_ratios_stand_beside_their_goals():
    """Met or missed, with interval and number of samples."""
    assert "[1.03 .. 1.06]  n=300  goal at most 1.05: met" in ratio_line(
        "graph_over_floor", RESULT["ratios"]["graph_over_floor"]
    )
    assert ratio_line("host_round_trip_over_graph", RESULT["ratios"]["host_round_trip_over_graph"]).endswith(
        "n=60  goal at least 15: MISSED"
    )


def test_lines_say_what_is_missing_and_what_is_invalid():
    """Medians with their unit, zero bytes as a figure, and no figure of an invalid group."""
    text = "\n".join(bench_lines(RESULT))
    for part in (
        "A CPU, A GPU, cuda:0",
        "0 bytes",
        "median resnet18 fp16, bare_graph",
        "0.25 ms  goal at most 0.2: MISSED",
        "median bridge, frame_on",
        "not measured: polygraphy: not installed",
        "INVALID: frame: other results",
    ):
        assert part in text


def test_goals_and_ratios_have_titles():
    """No name of the JSON is left to be guessed."""
    assert set(GOALS) <= set(TITLES)
    assert set(engines.RATIOS) <= set(TITLES)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_one_line_or_few(terminal):
    """A terminal's line is written over; a log gets a line per group and then one every few seconds."""
    stream, seconds = io.StringIO(), [0.0]
    stream.isatty = lambda: terminal
    progress = Progress(stream, now=lambda: seconds[0])
    for number in range(100):
        seconds[0] += 0.125
        progress(f"engines: round {number}")
    progress("frame: opening")
    progress.close()
    written = stream.getvalue()
    if terminal:
        assert "\n" not in written
        assert written.endswith("\r\x1b[K")
    else:
        assert written.splitlines() == ["engines: round 0", "engines: round 40", "engines: round 80", "frame: opening"]
