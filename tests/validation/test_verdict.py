"""Verdicts: what passes, fails, and cannot be judged, and how it is said."""

from __future__ import annotations

import pytest
from tests.factories import make_budgets, make_frames, make_header, make_record, write_record

from saccade.config import Budgets
from saccade.telemetry.record import read_frames
from saccade.validation.budget import _DESCRIPTIONS, judge_budgets
from saccade.validation.summary import summarise
from saccade.validation.verdict import json_summary, last_line, record_problems


def verdict_of(folder, budgets=None):
    found = summarise(read_frames(folder), budgets or make_budgets())
    assert found["exit_status"] == {"pass": 0, "fail": 1, "invalid": 3}[found["verdict"]]
    assert found["reasons"]
    return found["verdict"], "\n".join(found["reasons"])


@pytest.mark.parametrize(
    ("faults", "verdict", "reason"),
    [
        ({}, "pass", "all 8 budgets are met"),
        ({"contacts": (50,)}, "fail", "budget contacts: 1 is over the limit of 0"),
        ({"dropped": (20,)}, "fail", "budget dropped: 1 is over"),
        ({"duplicate": (30,)}, "fail", "budget stale: 1 is over"),
        ({"slow": range(40, 60)}, "fail", "budget latency_p95_ms: "),
        ({"torn": True}, "invalid", "torn"),
        ({"cut": True}, "invalid", "cut off"),
        ({"gap": 7}, "invalid", "1 record was lost"),
        ({"reason": "interrupted"}, "invalid", "the run was interrupted"),
        ({"reason": "timeout"}, "invalid", "took too long"),
        ({"reason": "error"}, "invalid", "the run failed"),
        ({"nan": (31,)}, "invalid", "network camera gave NaN or infinite values in 1 frame"),
        ({"nan": (1,)}, "invalid", "network camera gave NaN"),
        ({"stall": 40}, "invalid", "sensor lidar stalled: no frame for 0.6 s after 4.000 s"),
        ({"stall": 100}, "invalid", "sensor lidar stalled"),
        ({"ticks": 30}, "invalid", "p95 needs at least 72 samples, and there are 30: --frames at least 72"),
        ({"ticks": 71}, "invalid", "--frames at least 72"),
        ({"ticks": 72}, "pass", "met"),
    ],
)
def test_verdicts(tmp_path, faults, verdict, reason):
    make_record(tmp_path, **faults)
    found, reasons = verdict_of(tmp_path)
    assert found == verdict and reason in reasons


def test_invalid_also_names_what_was_missed(tmp_path):
    make_record(tmp_path, contacts=(50,), reason="interrupted")
    found, reasons = verdict_of(tmp_path)
    assert found == "invalid" and reasons.index("interrupted") < reasons.index("budget contacts")


def test_fewer_decisions_than_asked(tmp_path):
    write_record(tmp_path, make_header(100), make_frames(90))
    assert verdict_of(tmp_path) == ("invalid", "90 of 100 judged decisions are in the record")


def test_the_end_says_why(tmp_path):
    write_record(tmp_path, make_header(80), make_frames(80), reason="error", message="the engine stopped")
    assert "the run failed: the engine stopped" in verdict_of(tmp_path)[1]


def changed(tmp_path, change, ticks=80):
    frames = make_frames(ticks)
    change(frames)
    write_record(tmp_path, make_header(ticks), frames)
    return verdict_of(tmp_path)


def test_stamps_out_of_order_are_a_clock_jump(tmp_path):
    def change(frames):
        frames[40]["stamps"]["preprocessed"] = frames[40]["stamps"]["sim_state"] - 1

    found, reasons = changed(tmp_path, change)
    assert found == "invalid" and "stamps of 1 frame are not in order (first: index 40)" in reasons


def test_an_effect_before_its_decision_is_a_clock_jump(tmp_path):
    def change(frames):
        frames[40]["stamps"]["applied"] = frames[40]["stamps"]["decided"] - 1

    assert "not in order" in changed(tmp_path, change)[1]


def test_publishing_and_effect_may_come_in_either_order(tmp_path):
    def change(frames):
        for frame in frames:
            frame["stamps"]["published"] = frame["stamps"]["applied"] + 5

    assert changed(tmp_path, change)[0] == "pass"


def test_a_state_that_is_not_later_is_a_clock_jump(tmp_path):
    def change(frames):
        for frame in frames[60:62]:
            shift = frames[58]["stamps"]["sim_state"] - frame["stamps"]["sim_state"]
            for name, stamp in frame["stamps"].items():
                frame["stamps"][name] = None if stamp is None else stamp + shift

    found, reasons = changed(tmp_path, change)
    assert found == "invalid" and "the state of decision 30 is not later" in reasons


def test_simulation_time_that_goes_back(tmp_path):
    def change(frames):
        frames[60]["sim_time"] = frames[60]["sim_time"] - 5

    found, reasons = changed(tmp_path, change)
    assert found == "invalid" and "simulation time stood still or went back: head_camera" in reasons


def test_a_diverged_state(tmp_path):
    def change(frames):
        frames[60]["pose"] = [float("nan"), 0.0, 0.0]

    assert "simulated state was not finite in 1 frame" in changed(tmp_path, change)[1]


def test_judged_frames_need_a_decision(tmp_path):
    def change(frames):
        frames[60]["stamps"]["decided"] = None

    assert "1 judged frames have no decision" in changed(tmp_path, change)[1]


def test_a_sensor_that_never_delivers_and_one_that_nobody_named(tmp_path):
    frames = [frame for frame in make_frames(80) if frame["sensor"] != "lidar"]
    for index, frame in enumerate(frames):
        frame["index"] = index
    header = make_header(80)
    header["sensors"]["chest"] = header["sensors"].pop("lidar")
    write_record(tmp_path, header, frames)
    assert "sensor chest never delivered a frame" in verdict_of(tmp_path)[1]
    header["sensors"].pop("head_camera")
    write_record(tmp_path / "b", header, frames)
    assert "does not name: head_camera" in verdict_of(tmp_path / "b")[1]


def test_one_missing_sample_is_no_stall_and_a_declared_one_neither(tmp_path):
    frames = [f for f in make_frames(80) if not (f["sensor"] == "lidar" and f["tick"] in (40,))]
    for index, frame in enumerate(frames):
        frame["index"] = index
    write_record(tmp_path / "one", make_header(80), frames)
    assert record_problems(read_frames(tmp_path / "one")) == []
    frames = [f for f in make_frames(80) if not (f["sensor"] == "lidar" and f["tick"] in (40, 41, 42))]
    for index, frame in enumerate(frames):
        frame["index"] = index
    write_record(tmp_path / "three", make_header(80), frames)
    assert any("lidar stalled" in text for text in record_problems(read_frames(tmp_path / "three")))
    next(f for f in frames if f["sensor"] == "lidar" and f["tick"] == 43)["dropped"] = 3
    write_record(tmp_path / "declared", make_header(80), frames)
    assert record_problems(read_frames(tmp_path / "declared")) == []


def test_sensors_at_rates_that_do_not_divide_the_step(tmp_path):
    frames = make_frames(90)
    for frame in frames:
        if frame["sensor"] == "lidar":  # 7 Hz on a grid of 0.1 s: intervals of 0.1 and 0.2 s
            frame["keep"] = int(frame["sim_time"] * 7 + 1e-6) != int((frame["sim_time"] - 0.1) * 7 + 1e-6)
    kept = [f for f in frames if f.pop("keep", True)]
    for index, frame in enumerate(kept):
        frame["index"] = index
    header = make_header(90)
    header["sensors"]["lidar"]["rate"] = 7.0
    write_record(tmp_path, header, kept)
    assert record_problems(read_frames(tmp_path)) == []


def test_p99_is_judged_from_400(tmp_path):
    make_record(tmp_path, 399)
    found, reasons = verdict_of(tmp_path, Budgets(latency_p99_ms=100))
    assert found == "invalid" and "--frames at least 400" in reasons
    make_record(tmp_path / "b", 400)
    assert verdict_of(tmp_path / "b", Budgets(latency_p99_ms=100))[0] == "pass"


def test_an_interval_across_the_limit_is_said(tmp_path):
    make_record(tmp_path, 100, slow=(20, 40, 60, 80))
    record = read_frames(tmp_path)
    found = summarise(record, Budgets(deadline_miss_rate=0.05))
    (budget,) = found["budgets"]
    assert budget["passed"] is True and budget["value"] == 0.04
    assert budget["low"] < 0.05 < budget["high"] and "a repeat may end the other way" in budget["reason"]
    (budget,) = summarise(record, Budgets(deadline_miss_rate=0.5))["budgets"]
    assert "repeat" not in budget["reason"]


def test_every_budget_of_the_configuration_is_known_and_can_be_missed_and_met(tmp_path):
    assert set(_DESCRIPTIONS) == set(Budgets.model_fields)
    make_record(tmp_path, 400, slow=(30,), contacts=(40,), dropped=(50,), duplicate=(60,))
    summary = {**summarise(read_frames(tmp_path), Budgets()), "recaptures": 3}
    assert summary["budgets"] == [] and summary["verdict"] == "pass"
    for name, (_, _, comparison) in _DESCRIPTIONS.items():
        strict = {"camera_miou": 1, "lidar_miou": 1, "hazard_recall": 1, "hazard_auroc": 1}.get(name, 1e6)
        easy, hard = (1e6, 1e-9) if comparison == "<=" else (1e-9, strict)
        if name == "deadline_miss_rate":
            easy = 1
        if name in ("dropped", "stale", "contacts", "recaptures"):
            easy, hard = 1000, 0
        if name == "hazard_recall":
            # The synthetic network may see every hazard: perfect recall cannot be missed.
            (met,) = judge_budgets(summary, Budgets(**{name: easy}))
            assert met["passed"] is True
            continue
        (met,) = judge_budgets(summary, Budgets(**{name: easy}))
        (missed,) = judge_budgets(summary, Budgets(**{name: hard}))
        assert met["passed"] is True, (name, met)
        assert missed["passed"] is (missed["value"] == hard and comparison == ">="), (name, missed)
        assert met["value"] == missed["value"] is not None


@pytest.mark.parametrize(
    ("budgets", "reason"),
    [
        ({"camera_miou": 0.5}, "budgets.camera_miou=null"),
        ({"lidar_miou": 0.5}, "budgets.lidar_miou=null"),
        ({"hazard_recall": 0.5}, "budgets.hazard_recall=null"),
        ({"hazard_auroc": 0.5}, "budgets.hazard_auroc=null"),
        ({"clearance_error_m": 0.5}, "budgets.clearance_error_m=null"),
        ({"inference_p95_ms": 5}, "budgets.inference_p95_ms=null"),
    ],
)
def test_a_budget_without_a_figure_is_invalid_with_the_remedy(tmp_path, budgets, reason):
    frames = make_frames(80)
    for frame in frames:
        frame["truth"] = None
        frame["stamps"].update(preprocessed=None, inferred=None, on_host=None)
        for result in frame["results"].values():
            result["intersection"] = result["union"] = None
    write_record(tmp_path, make_header(80), frames)
    found, reasons = verdict_of(tmp_path, Budgets(**budgets))
    assert found == "invalid" and "cannot be judged" in reasons and reason in reasons


def test_an_empty_record_is_invalid_for_every_budget(tmp_path):
    write_record(tmp_path, make_header(10), [], reason="interrupted")
    limits = dict.fromkeys(Budgets.model_fields, 1)
    found = summarise(read_frames(tmp_path), Budgets(**limits))
    assert found["verdict"] == "invalid" and all(b["passed"] is None for b in found["budgets"])
    assert last_line(found, "d").startswith("INVALID frames=0 p50=n/a p95=n/a dropped=0 miou=n/a contacts=0 -> d")


def test_last_line_and_json(tmp_path):
    make_record(tmp_path, 400)
    found = summarise(read_frames(tmp_path), make_budgets())
    latency, accuracy = found["latency_ms"], found["accuracy"]
    assert last_line(found, "runs/x") == (
        f"PASS frames=400 p50={latency['p50']['value']:.1f}ms p95={latency['p95']['value']:.1f}ms dropped=0 "
        f"miou={accuracy['camera_miou']:.3f} contacts=0 -> runs/x"
    )
    assert json_summary(found, "runs/x") == {
        "verdict": "pass",
        "frames": 400,
        "latency_ms": {
            "p50": latency["p50"]["value"],
            "p95": latency["p95"]["value"],
            "p99": latency["p99"]["value"],
            "max": latency["max"],
        },
        "deadline_miss_rate": 0.0,
        "realtime_factor": found["realtime_factor"],
        "dropped": 0,
        "accuracy": {
            "camera_miou": accuracy["camera_miou"],
            "lidar_miou": accuracy["lidar_miou"],
            "hazard_auroc": accuracy["hazard_auroc"],
            "clearance_error_m": accuracy["clearance_error_m"],
        },
        "contacts": 0,
        "directory": "runs/x",
    }


def test_a_clock_that_jumped_makes_the_run_invalid(tmp_path):
    """Stamps of the GPU mean nothing when its clock jumped against the host's; without a jump nothing is said."""
    make_record(tmp_path)
    record = read_frames(tmp_path)
    sound = summarise(record, make_budgets(), run={"clock": {"source": "GPU global timer", "jumps": 0}})
    assert sound["verdict"] == "pass"
    found = summarise(record, make_budgets(), run={"clock": {"source": "GPU global timer", "jumps": 2}})
    assert found["verdict"] == "invalid"
    assert "GPU global timer jumped by more than 1 ms 2 times" in found["reasons"][0]


@pytest.mark.parametrize(("recaptures", "verdict"), [(0, "pass"), (3, "fail"), (None, "invalid")])
def test_recaptures_are_budgeted(tmp_path, recaptures, verdict):
    """More graphs than allowed fail; without an engine on the GPU the budget cannot be judged."""
    make_record(tmp_path)
    record = read_frames(tmp_path)
    run = {"execution": {"recaptures": recaptures}}
    assert summarise(record, Budgets(recaptures=2), run=run)["verdict"] == verdict
