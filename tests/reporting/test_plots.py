from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from saccade.reporting import accuracy, plots
from saccade.telemetry.statistics import describe

SVG = "{http://www.w3.org/2000/svg}"


def frame(tick: int, sensor: str = "camera", *, start: int | None = None, stages=(2, 0.5, 1, 10, 0.5, 1), **changes):
    """A frame whose stages take so many milliseconds each."""
    start = tick * 100_000_000 + 1_000_000 if start is None else start
    moments = np.cumsum([start, *(int(stage * 1e6) for stage in stages)]).tolist()
    names = ("sim_state", "sensed", "handed_over", "preprocessed", "inferred", "on_host", "decided")
    stamps = {**dict(zip(names, moments, strict=True)), "published": None, "applied": moments[-1] + 2_000_000}
    return {
        "tick": tick,
        "phase": "judged",
        "sensor": sensor,
        "sim_time": tick * 0.1,
        "dropped": 0,
        "stamps": stamps,
        "latency_ms": (moments[-1] - moments[0]) * 1e-6,
        "results": {},
        "truth": None,
        **changes,
    }


def parse(drawn: str) -> ET.Element:
    return ET.fromstring(drawn)


def of_class(root: ET.Element, tag: str, name: str) -> list[ET.Element]:
    return [element for element in root.iter(SVG + tag) if name in (element.get("class") or "").split()]


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(SVG + "text")]


def test_stage_shares_add_up_to_the_latency_also_when_sensors_interleave() -> None:
    start = 5_000_000
    first = frame(0, "camera", start=start, stages=(3, 0.5, 1, 12, 0.5, 20))
    second = frame(0, "lidar", start=start, stages=(7, 10.2, 1, 8, 0.5, 10.3))
    shares = plots.stage_shares([first, second])
    assert sum(shares.values()) == pytest.approx(37.0)
    assert shares["infer", "lidar"] == pytest.approx(8.0)
    # The camera inferred alone but for the moments at which the LiDAR was sensed and handed over.
    assert shares["sense", "lidar"] == pytest.approx(2.5)
    assert shares["infer", "camera"] == pytest.approx(9.5)


def test_stage_shares_of_a_tick_without_decision_are_none() -> None:
    undecided = frame(0)
    undecided["stamps"]["decided"] = None
    assert plots.stage_shares([undecided]) == {}


def test_timeline_has_a_layer_per_stage_a_bar_per_decision_and_the_deadline() -> None:
    drawn, notes = plots.timeline([frame(tick) for tick in range(30)], deadline_ms=20.0)
    root = parse(drawn)
    assert len(of_class(root, "path", "layer")) == 6
    bars = of_class(root, "rect", "hit")
    assert len(bars) == 30
    assert bars[7].find(SVG + "title").text.startswith("decision 7: 15.00 ms (sense 2.00, hand over 0.50")
    assert len(of_class(root, "line", "deadline")) == 1
    assert "deadline 20 ms" in texts(root)
    assert "infer 10 ms" in texts(root)
    assert notes == []


def test_timeline_of_two_sensors_splits_inference_by_sensor() -> None:
    frames = [
        part for tick in range(5) for part in (frame(tick, "front"), frame(tick, "lidar", stages=(2, 14, 1, 3, 0.5, 1)))
    ]
    said = texts(parse(plots.timeline(frames, deadline_ms=100)[0]))
    assert any(text.startswith("infer front") for text in said)
    assert any(text.startswith("infer lidar") for text in said)


def test_timeline_marks_what_rises_above_it_and_shades_the_warmup() -> None:
    frames = [frame(tick, phase="warmup" if tick < 2 else "judged") for tick in range(100)]
    frames[50] = frame(50, stages=(2, 0.5, 1, 900, 0.5, 1))
    drawn, notes = plots.timeline(frames, deadline_ms=100)
    root = parse(drawn)
    assert len(of_class(root, "path", "clipped")) == 1
    assert len(of_class(root, "rect", "warmup")) == 1
    assert notes == ["1 decision rises above the chart (marked ▲), up to 905 ms."]


def test_timeline_of_many_decisions_keeps_the_slowest_of_each_bar_and_says_so() -> None:
    frames = [frame(tick) for tick in range(5000)]
    frames[4321] = frame(4321, stages=(2, 0.5, 1, 60, 0.5, 1))
    drawn, notes = plots.timeline(frames, deadline_ms=100)
    tips = [bar.find(SVG + "title").text for bar in of_class(parse(drawn), "rect", "hit")]
    assert len(tips) == plots.MAX_BARS
    assert any(tip.startswith("decision 4321: 65.00 ms") for tip in tips)
    assert notes[0] == "5000 decisions: each bar is the slowest of up to 11 in a row."


def test_timeline_and_age_of_nothing_are_empty() -> None:
    assert plots.timeline([], deadline_ms=100) == ("", [])
    assert plots.age([], deadline_ms=100) == ("", [])


def test_frames_without_a_time_are_left_out() -> None:
    frames = [frame(0), frame(1, sim_time=None), frame(2)]
    assert len(of_class(parse(plots.timeline(frames, deadline_ms=None)[0]), "rect", "hit")) == 2
    assert "nan" not in plots.age(frames, deadline_ms=None)[0]


def test_age_draws_one_line_per_stamp_and_marks_drops() -> None:
    frames = [frame(tick, dropped=int(tick == 4)) for tick in range(20)]
    drawn, notes = plots.age(frames, deadline_ms=100.0)
    root = parse(drawn)
    assert {"on host, camera", "decided", "in effect", "deadline 100 ms"} <= set(texts(root))
    assert len(of_class(root, "path", "line")) == 3
    assert len(of_class(root, "line", "loss")) == 1
    assert notes == ["Red marks on the axis: samples dropped before that frame."]


def test_age_of_a_long_run_draws_envelopes_and_says_so() -> None:
    drawn, notes = plots.age([frame(tick) for tick in range(2000)], deadline_ms=100.0)
    assert len(of_class(parse(drawn), "path", "envelope")) == 3
    assert any("least to their greatest" in note for note in notes)


def test_histogram_counts_every_decision_once() -> None:
    values = [*np.random.default_rng(3).gamma(40, 1.0, 500).tolist(), 95.0]
    root = parse(plots.histogram(values, describe(values), deadline_ms=100.0))
    counts = [int(bar.find(SVG + "title").text.split()[0]) for bar in of_class(root, "rect", "bar")]
    assert sum(counts) == 501
    assert len(of_class(root, "line", "percentile")) == 3
    assert len(of_class(root, "rect", "interval-band")) == 3
    assert len(of_class(root, "line", "deadline")) == 1


def test_histogram_with_a_far_deadline_names_it_instead_of_squashing_the_data() -> None:
    root = parse(plots.histogram([10.0, 11.0, 12.0], None, deadline_ms=100.0))
    assert of_class(root, "line", "deadline") == []
    assert "deadline 100 ms →" in texts(root)


def test_tail_marks_supported_percentiles_with_their_intervals_and_names_the_others() -> None:
    values = np.random.default_rng(0).gamma(40, 1.0, 100).tolist()
    statistics = describe(values)
    root = parse(plots.tail(values, statistics, deadline_ms=60.0))
    assert len(of_class(root, "circle", "marker")) == 2
    assert len(of_class(root, "line", "interval")) == 2
    assert f"p95 {statistics['p95']['value']:.4g}" in texts(root)
    assert "p99 not supported by n = 100" in texts(root)


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0, 5.0], [0.0, 1.0], [0.01, 2000.0]])
def test_distributions_of_odd_values_are_drawn_without_nan(values: list[float]) -> None:
    for drawn in (
        plots.histogram(values, describe(values), deadline_ms=100.0),
        plots.tail(values, describe(values), deadline_ms=None),
    ):
        parse(drawn)
        assert "nan" not in drawn
        assert "inf" not in drawn


def test_distributions_of_nothing_are_empty() -> None:
    assert plots.histogram([], None, deadline_ms=1.0) == ""
    assert plots.tail([], None, deadline_ms=1.0) == ""


@pytest.mark.parametrize(("comparison", "inside"), [("<=", True), (">=", False)])
def test_bullet_tints_the_allowed_side_of_the_limit(comparison: str, inside: bool) -> None:
    budget = {
        "value": 40.0,
        "limit": 100.0,
        "low": 35.0,
        "high": 45.0,
        "comparison": comparison,
        "passed": inside,
        "unit": "ms",
    }
    root = parse(plots.bullet(budget))
    (allowed,) = of_class(root, "rect", "allowed")
    (value,) = of_class(root, "circle", "value")
    left, width = float(allowed.get("x")), float(allowed.get("width"))
    assert (left <= float(value.get("cx")) <= left + width) is inside
    (interval,) = of_class(root, "line", "range")
    assert float(interval.get("x1")) < float(value.get("cx")) < float(interval.get("x2"))


def test_bullet_without_value_shows_only_the_limit() -> None:
    root = parse(plots.bullet({"value": None, "limit": 5, "comparison": "<=", "passed": None}))
    assert of_class(root, "circle", "value") == []
    assert len(of_class(root, "line", "limit")) == 1
    assert root.get("aria-label") == "no value, at most 5 allowed"


def test_iou_bars_have_the_length_of_their_value() -> None:
    network = {"iou": {"floor": 1.0, "structure": 0.5, "person": None}, "miou": 0.75}
    root = parse(accuracy.iou_bars(network))
    full, half = of_class(root, "rect", "class-bar")
    assert float(half.get("width")) == pytest.approx(float(full.get("width")) / 2, abs=0.2)
    assert {"1.000", "0.500", "did not occur", "mIoU 0.750"} <= set(texts(root))
    assert accuracy.iou_bars({"iou": {}}) == ""


def hazard_frame(tick: int, score: float, truth: bool | None):
    return frame(tick, results={"eye": {"hazard": score}}, truth={"hazard": truth})


def test_hazard_marks_misses_false_alarms_and_the_true_stretches() -> None:
    truth = [False, False, True, True, False, True, True, True]
    scores = [0.1, 0.7, 0.9, 0.2, 0.1, 0.8, 0.9, 0.9]
    frames = [hazard_frame(tick, score, real) for tick, (score, real) in enumerate(zip(scores, truth, strict=True))]
    root = parse(accuracy.hazard(frames, "eye", threshold=0.5)[0])
    assert len(of_class(root, "circle", "missed")) == 1
    assert len(of_class(root, "circle", "false-alarm")) == 1
    assert len(of_class(root, "rect", "truth-band")) == 2
    assert len(of_class(root, "line", "threshold")) == 1


def test_hazard_without_scores_is_empty_and_without_truth_judges_nothing() -> None:
    assert accuracy.hazard([frame(0)], "eye", threshold=0.5) == ("", [])
    root = parse(accuracy.hazard([hazard_frame(0, 0.9, None), hazard_frame(1, 0.9, None)], "eye", threshold=0.5)[0])
    assert of_class(root, "circle", "false-alarm") == []


def test_clearance_errors_are_signed_and_capped() -> None:
    result = {"clearance": [5.0] * 8 + [2.0] * 7 + [90.0]}
    frames = [frame(0, results={"lidar": result}, truth={"clearance": [4.8] * 8 + [2.3] * 7 + [40.0]})]
    root = parse(accuracy.clearance_errors(frames, "lidar", cap=30.0)[0])
    bars = of_class(root, "rect", "bar")
    count = sum(int(bar.find(SVG + "title").text.split()[0]) for bar in bars)
    unsafe = sum(int(bar.find(SVG + "title").text.split()[0]) for bar in bars if "unsafe" in bar.get("class"))
    assert (count, unsafe) == (16, 8)


def test_clearance_errors_beyond_the_outermost_bars_are_said() -> None:
    result = {"clearance": [5.0] * 16}
    frames = [frame(tick, results={"lidar": result}, truth={"clearance": [5.0] * 16}) for tick in range(100)]
    frames[3] = frame(3, results={"lidar": {"clearance": [5.0] * 15 + [20.0]}}, truth={"clearance": [5.0] * 16})
    assert accuracy.clearance_errors(frames, "lidar", cap=30.0)[1] == [
        "1 of 1600 errors lie beyond the outermost bars, up to 15 m."
    ]


def test_names_are_escaped_in_every_figure() -> None:
    name = '<script>alert("x")</script>'
    frames = [frame(tick, sensor, results={name: {"hazard": 0.3}}) for tick in range(3) for sensor in (name, "b")]
    drawn = [
        plots.timeline(frames, deadline_ms=10)[0],
        plots.age(frames, deadline_ms=10)[0],
        accuracy.hazard(frames, name, threshold=0.5)[0],
        accuracy.iou_bars({"iou": {name: 0.5}, "miou": 0.5}),
    ]
    for figure in drawn:
        parse(figure)
        assert not re.search(r"<\s*script", figure)
