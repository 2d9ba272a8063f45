"""Whole runs in this process, on the embedded simulator and ONNX Runtime: what they give, and what they leave."""

from __future__ import annotations

import hashlib
import json
import math
import resource
import shutil
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.end_to_end import (
    COLUMNS,
    LENIENT,
    assert_losses_are_named,
    assert_nothing_left,
    camera_network,
    frames_of,
    lidar_network,
    lines_of,
    repeatable,
    run_document,
    run_here,
    write_configuration,
)

from saccade.configuration import load_configuration
from saccade.errors import RecordError
from saccade.telemetry.record import read_frames
from saccade.validation.interrupt import Interrupt, signals_to
from saccade.validation.run import validate

FRAMES, WARMUP = 10, 2


# ------------------------------------------------------------------------------------------------ a sound run


def test_a_run_passes_and_its_figures_are_those_of_its_record(golden):
    document, frames = run_document(golden), frames_of(golden)
    assert (document["state"], document["verdict"], document["exit_status"]) == ("finished", "pass", 0)
    assert document["frames"] == FRAMES and document["frames_by_sensor"] == {"eye": FRAMES, "lidar": FRAMES}
    assert [frame["index"] for frame in frames] == list(range(2 * (FRAMES + WARMUP)))
    assert [frame["phase"] for frame in frames] == ["warmup"] * 2 * WARMUP + ["judged"] * 2 * FRAMES
    judged = [frame for frame in frames if frame["phase"] == "judged"]
    assert document["latency_ms"]["max"] == pytest.approx(max(frame["latency_ms"] for frame in judged))
    assert document["distance_m"] == pytest.approx(judged[-1]["distance"] - judged[0]["distance"])
    assert document["distance_m"] > 0.2, "it walked"
    # 10 Hz from the first state on: nothing was left out, and nothing came twice
    for sensor in ("eye", "lidar"):
        own = [frame for frame in frames if frame["sensor"] == sensor]
        assert [frame["sequence"] for frame in own] == list(range(FRAMES + WARMUP))
        assert [frame["sim_time"] for frame in own] == pytest.approx([0.1 * n for n in range(FRAMES + WARMUP)])
    assert {budget["name"] for budget in document["budgets"]} == {k for k, v in LENIENT.items() if v is not None}


def test_accuracy_is_that_of_the_counts_in_the_record(golden):
    document = run_document(golden)
    judged = [frame for frame in frames_of(golden) if frame["phase"] == "judged"]
    for network, sensor, title in (("camera", "eye", "camera_miou"), ("lidar", "lidar", "lidar_miou")):
        results = [frame["results"][network] for frame in judged if frame["sensor"] == sensor]
        totals = {
            name: [sum(column) for column in zip(*(result[name] for result in results), strict=True)]
            for name in ("intersection", "union", "support")
        }
        ious = [
            hits / union
            for hits, union, support in zip(totals["intersection"], totals["union"], totals["support"], strict=True)
            if support
        ]
        assert len(ious) >= 3, "the scene shows a floor, a wall and something else"
        assert document["accuracy"][title] == pytest.approx(sum(ious) / len(ious))
    pairs = [
        (frame["results"]["lidar"]["clearance"], frame["truth"]["clearance"])
        for frame in judged
        if frame["sensor"] == "lidar"
    ]
    errors = sorted(abs(said - min(true, 30.0)) for row in pairs for said, true in zip(*row, strict=True))
    middle = len(errors) // 2
    assert errors[middle - 1] - 1e-6 <= document["accuracy"]["clearance_error_m"] <= errors[middle] + 1e-6


def test_the_stamps_of_every_frame_are_in_order(golden):
    for frame in frames_of(golden):
        stamps = frame["stamps"]
        order = ["sim_state", "sensed", "handed_over", "preprocessed", "inferred", "on_host", "decided"]
        values = [stamps[name] for name in order]
        assert None not in values and values == sorted(values)
        assert frame["latency_ms"] == pytest.approx((stamps["decided"] - stamps["sim_state"]) * 1e-6)
        assert frame["inference_ms"] == pytest.approx((stamps["on_host"] - stamps["handed_over"]) * 1e-6)


def test_a_run_leaves_its_files(golden):
    assert {entry.name for entry in golden.iterdir()} == {
        "run.json", "frames.jsonl", "metrics.json", "junit.xml", "report.html", "samples", "sensors",
    }  # fmt: skip
    assert (golden.parent / "latest").resolve() == golden
    suite = ElementTree.parse(golden / "junit.xml").getroot()
    cases = {case.attrib["name"] for case in suite.iter("testcase")}
    assert {budget["name"] for budget in run_document(golden)["budgets"]} <= cases
    assert not list(suite.iter("failure")) and not list(suite.iter("error"))
    metrics = json.loads((golden / "metrics.json").read_text())
    assert metrics
    report = (golden / "report.html").read_text()
    assert "PASS" in report and "<html" in report and golden.name in report
    assert len(list((golden / "samples").glob("*.npz"))) >= 1
    header, *frames, end = lines_of(golden)
    assert header["kind"] == "header" and header["frames_expected"] == FRAMES and header["warmup"] == WARMUP
    assert end["kind"] == "end" and (end["reason"], end["frames"], end["lost"]) == ("completed", len(frames), 0)
    # the run ends one step after its last decision
    assert end["simulated_s"] == pytest.approx(0.1 * (FRAMES + WARMUP - 1) + 0.02)


def test_the_record_of_where_it_ran_and_what_it_used(golden, room):
    document = run_document(golden)
    assert document["simulator"]["name"] == "newton" and document["device"] == "cpu"
    assert document["versions"] and document["host"]["peak_rss_mb"] > 10
    for network in ("camera", "lidar"):
        digest = hashlib.sha256((room / f"{network}.onnx").read_bytes()).hexdigest()
        assert document["hashes"][f"model {network}"] == digest
    assert document["hashes"]["scene"]
    assert document["configuration"]["sensors"]["eye"]["width"] == 32
    assert document["recorder"]["records"] == 2 * (FRAMES + WARMUP) and document["recorder"]["lost"] == 0
    no_nonsense(golden / "run.json")


def no_nonsense(path: Path) -> None:
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(text: str) -> None:
        raise AssertionError(f"{path.name} holds {text}")

    for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
        json.loads(line, parse_constant=refuse)


def test_sources_name_the_options(room, tmp_path):
    loaded = load_configuration(
        room / "run.yaml", overrides=["controller.cruise_speed=0.4", "budgets.contacts=null"], frames=3, seed=5
    )
    document = run_document(Path(validate(loaded, out=tmp_path)["directory"]))
    sources, used = document["sources"], document["configuration"]
    assert (sources["run.frames"], used["run"]["frames"], document["frames"]) == ("--frames", 3, 3)
    assert (sources["run.seed"], used["run"]["seed"], document["seed"]) == ("--seed", 5, 5)
    assert (sources["controller.cruise_speed"], used["controller"]["cruise_speed"]) == ("--set", 0.4)
    assert (sources["budgets.contacts"], used["budgets"]["contacts"]) == ("--set", None)
    assert sources["sensors.eye.width"].startswith("file ") and sources["sensors.eye.width"].endswith("run.yaml")
    assert sources["sensors.eye.max_distance"] == "default"


def test_runs_of_one_name_are_kept_apart_and_latest_is_the_newest(room, tmp_path):
    first, second = (Path(run_here(room, tmp_path, "run.name=mine", frames=1)["directory"]) for _ in range(2))
    assert first != second and first.is_dir() and second.is_dir()
    assert (tmp_path / "latest").resolve() == second.resolve()
    assert {entry.name for entry in tmp_path.iterdir()} == {first.name, second.name, "latest"}


def test_without_networks_the_sensors_alone_are_judged(room, tmp_path):
    write_configuration(room / "bare.yaml", networks={"camera": None, "lidar": None})
    summary = validate(load_configuration(room / "bare.yaml", frames=3), out=tmp_path)
    assert summary["verdict"] == "pass" and summary["frames"] == 3
    assert summary["accuracy"]["camera_miou"] is None and summary["inference_ms"]["n"] == 0
    # without a result, it stands
    assert all(frame["command"]["linear"] == [0.0, 0.0] for frame in frames_of(Path(summary["directory"])))


# ---------------------------------------------------------------------------------------------------- verdicts


def test_a_missed_budget_is_a_fail_that_names_it(room, tmp_path):
    summary = run_here(room, tmp_path, "budgets.camera_miou=0.99")
    assert (summary["verdict"], summary["exit_status"]) == ("fail", 1)
    (reason,) = summary["reasons"]
    assert "camera_miou" in reason and "0.99" in reason
    suite = ElementTree.parse(Path(summary["directory"]) / "junit.xml").getroot()
    (failed,) = [case.attrib["name"] for case in suite.iter("testcase") if case.find("failure") is not None]
    assert "camera_miou" in failed
    assert "FAIL" in (Path(summary["directory"]) / "report.html").read_text()


def test_a_budget_that_the_sample_cannot_support_is_invalid(room, tmp_path):
    summary = run_here(room, tmp_path, "budgets.latency_p95_ms=1000")
    assert (summary["verdict"], summary["exit_status"]) == ("invalid", 3)
    assert any("latency_p95_ms" in reason and "--frames" in reason for reason in summary["reasons"])


def test_a_run_that_takes_too_long_is_invalid(room, tmp_path):
    summary = run_here(room, tmp_path, "run.max_time=0.05", frames=100_000)
    assert (summary["verdict"], summary["exit_status"]) == ("invalid", 3)
    assert any("run.max_time" in reason for reason in summary["reasons"])
    assert lines_of(Path(summary["directory"]))[-1]["reason"] == "timeout"


@pytest.mark.parametrize(
    ("network", "make"),
    [
        ("camera", lambda path: camera_network(path, size=(16, 16), hazard=math.nan)),
        ("camera", lambda path: camera_network(path, size=(16, 16), bias=(math.nan, 0, 0, 0, 0, 0))),
        ("lidar", lambda path: lidar_network(path, channels=4, columns=COLUMNS, clearance=math.nan)),
        ("lidar", lambda path: lidar_network(path, channels=4, columns=COLUMNS, clearance=math.inf)),
    ],
    ids=["hazard", "labels", "clearance", "infinite clearance"],
)
def test_a_network_that_gives_no_number_makes_the_run_invalid(room, tmp_path, network, make):
    model = make(tmp_path / "broken.onnx")
    summary = run_here(room, tmp_path / "runs", f"networks.{network}.model={model}")
    directory = Path(summary["directory"])
    assert (summary["verdict"], summary["exit_status"]) == ("invalid", 3)
    assert any(f"network {network} gave NaN or infinite values in 12 frames" in why for why in summary["reasons"])
    assert summary["frames"] == FRAMES, "the run itself went on to its end"
    for name in ("run.json", "metrics.json", "frames.jsonl"):
        no_nonsense(directory / name)
    results = [frame["results"][network] for frame in frames_of(directory) if network in frame["results"]]
    assert len(results) == FRAMES + WARMUP and not any(result["finite"] for result in results)
    for frame in frames_of(directory):
        assert all(math.isfinite(value) for value in (*frame["command"]["linear"], *frame["pose"]))
    assert "INVALID" in (directory / "report.html").read_text()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Lets no file of this process grow beyond ``size`` bytes: what a full disk does, where none can be had."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_record_that_cannot_grow_ends_the_run_as_invalid(room, tmp_path):
    # enough for run.json, not for ten thousand frames
    with largest_file(300_000):
        summary = run_here(room, tmp_path, "record.samples=0", frames=10_000)
    directory = Path(summary["directory"])
    assert (summary["verdict"], summary["exit_status"]) == ("invalid", 3)
    assert any("frames.jsonl" in reason and "ulimit -f" in reason for reason in summary["reasons"]), summary["reasons"]
    assert 0 < summary["frames"] < 10_000
    assert (directory / "frames.jsonl").read_text().endswith("\n")
    assert_losses_are_named(read_frames(directory))
    assert run_document(directory)["verdict"] == "invalid"


def test_a_folder_that_is_removed_during_the_run_is_named(room, tmp_path):
    record = tmp_path / "run" / "frames.jsonl"

    def remove() -> None:
        while not record.is_file() or record.read_bytes().count(b"\n") < 5:
            time.sleep(0.005)
        shutil.rmtree(record.parent)

    thread = threading.Thread(target=remove)
    thread.start()
    with pytest.raises(RecordError, match=r"the folder was removed during the run"):
        run_here(room, tmp_path, "run.max_time=1", frames=100_000)
    thread.join()


# ------------------------------------------------------------------------------------ repetition, replay, delay


def test_a_run_repeats_itself(golden, room, tmp_path):
    again = Path(run_here(room, tmp_path)["directory"])
    assert repeatable(frames_of(again)) == repeatable(frames_of(golden))
    assert run_document(again)["accuracy"] == run_document(golden)["accuracy"]


def test_the_seed_changes_what_is_random(room, tmp_path):
    override = "sensors.lidar.noise.dropout=0.3"
    runs = [Path(run_here(room, tmp_path, override, f"run.seed={seed}")["directory"]) for seed in (1, 1, 2)]
    first, same, other = ([frame["results"] for frame in frames_of(run) if frame["sensor"] == "lidar"] for run in runs)
    assert first == same != other
    truths = [[frame["truth"] for frame in frames_of(run) if frame["tick"] == 0] for run in runs]
    assert truths[0] == truths[2], "the world is the same at the start, also where returns were lost"


def test_a_replay_gives_the_same_results_and_accuracy(golden, room, tmp_path):
    summary = run_here(room, tmp_path, f"simulator.recording={golden}", simulator="replay")
    directory = Path(summary["directory"])
    assert summary["verdict"] == "pass", summary["reasons"]
    assert summary["simulator"]["name"] == "replay"
    recorded, replayed = frames_of(golden), frames_of(directory)
    fields = ("tick", "phase", "sensor", "sequence", "sim_time", "dropped", "results", "truth", "command", "pose",
              "distance", "contacts")  # fmt: skip
    assert [[frame[field] for field in fields] for frame in replayed] == [
        [frame[field] for field in fields] for frame in recorded
    ]
    assert summary["accuracy"] == run_document(golden)["accuracy"]
    assert all(frame["applied_sim_time"] is None for frame in replayed), "nobody acts on a recording"


def test_a_replay_shows_that_a_network_has_changed(golden, room, tmp_path):
    other = camera_network(tmp_path / "other.onnx", size=(16, 16), bias=(9.0, 0, 0, 0, 0, 0), hazard=0.9)
    overrides = [f"simulator.recording={golden}", f"networks.camera.model={other}"]
    summary = run_here(room, tmp_path / "runs", *overrides, simulator="replay")
    before = run_document(golden)["accuracy"]
    assert summary["accuracy"]["camera_miou"] != before["camera_miou"]
    assert summary["accuracy"]["lidar_miou"] == before["lidar_miou"]
    replayed = frames_of(Path(summary["directory"]))
    hazards = [frame["results"]["camera"]["hazard"] for frame in replayed if frame["sensor"] == "eye"]
    assert hazards == pytest.approx([0.9] * (FRAMES + WARMUP))


def test_a_replay_of_too_few_decisions_says_so_and_leaves_nothing(golden, room, former):
    with pytest.raises(RecordError, match=r"12 decisions|--frames"):
        run_here(room, former, f"simulator.recording={golden}", simulator="replay", frames=500)
    assert_nothing_left(former)


def test_a_replay_without_recorded_sensors_says_how_to_record(room, former):
    with pytest.raises(RecordError, match=r"record\.sensors=true"):
        run_here(room, former, f"simulator.recording={former / 'former'}", simulator="replay")
    assert_nothing_left(former)


def test_latency_has_its_effect_on_the_walk(golden, room, tmp_path):
    late = frames_of(Path(run_here(room, tmp_path, "simulator.act_delay=300")["directory"]))
    prompt = frames_of(golden)

    def effects(frames: list[dict[str, Any]]) -> list[float]:
        return [
            frame["applied_sim_time"] - frame["sim_time"] for frame in frames if frame["applied_sim_time"] is not None
        ]

    assert effects(prompt) == pytest.approx([0.0] * len(prompt), abs=1e-9)
    # the last decisions of a run have no effect in it any more
    assert len(late) - 2 * 4 <= len(effects(late)) < len(late)
    assert effects(late) == pytest.approx([0.3] * len(effects(late)), abs=0.02 + 1e-9)
    walked = {time: frame["distance"] for frame in late if (time := round(frame["sim_time"], 3)) is not None}
    assert walked[0.3] == 0.0 and walked[0.5] > 0.0, "it stands until the first decision arrives"
    assert late[-1]["distance"] < prompt[-1]["distance"] - 0.05
    assert [frame["pose"] for frame in late] != [frame["pose"] for frame in prompt]


# -------------------------------------------------------------------------------------------------- real time


def test_in_real_time_every_sample_is_delivered_or_counted_as_dropped(room, tmp_path):
    # 50 Hz is more than a camera of this size can give on two cores
    summary = run_here(
        room, tmp_path, "simulator.pace=realtime", "sensors.eye.rate=50", "sensors.eye.width=640",
        "sensors.eye.height=480", "sensors.lidar.rate=25", frames=12,
    )  # fmt: skip
    directory = Path(summary["directory"])
    frames = frames_of(directory)
    for sensor, rate in (("eye", 50), ("lidar", 25)):
        own = [frame for frame in frames if frame["sensor"] == sensor]
        assert own
        due = -1
        for frame in own:
            assert frame["sequence"] == due + 1 + frame["dropped"]
            # the newest sample that was due at the time
            assert frame["sequence"] == math.floor(frame["sim_time"] * rate + 1e-6)
            due = frame["sequence"]
        entry = summary["sensors"][sensor]
        assert own[-1]["sequence"] + 1 == len(own) + sum(frame["dropped"] for frame in own) == entry["produced"]
        assert entry["dropped"] == sum(frame["dropped"] for frame in own)
    assert summary["dropped"] == sum(frame["dropped"] for frame in frames) > 0
    assert summary["verdict"] == "fail" and any("dropped" in reason for reason in summary["reasons"])
    # what has an effect has it after the decision was made
    for frame in frames:
        if frame["applied_sim_time"] is not None:
            assert frame["applied_sim_time"] >= frame["sim_time"] + frame["latency_ms"] * 1e-3 - 1e-6
    assert 0.5 < summary["realtime_factor"] < 1.5, "neither faster nor slower than the clock on the wall"


def test_in_real_time_a_small_load_keeps_up(room, tmp_path):
    summary = run_here(room, tmp_path, "simulator.pace=realtime", "budgets.dropped=null", frames=8)
    assert summary["verdict"] == "pass", summary["reasons"]
    assert summary["realtime_factor"] == pytest.approx(1.0, abs=0.3)
    frames = frames_of(Path(summary["directory"]))
    assert frames[-1]["sequence"] >= 9


def test_one_ctrl_c_while_judging_does_not_take_the_verdict_away(room, tmp_path, monkeypatch):
    """A signal that comes when the run is over is too late: files, verdict and report are there."""
    import signal

    from saccade.validation import run as module

    finish = module.finish_run

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return finish(*arguments)

    monkeypatch.setattr(module, "finish_run", interrupted)
    summary = run_here(room, tmp_path)
    assert summary["verdict"] == "pass", summary["reasons"]
    assert (Path(summary["directory"]) / "report.html").is_file()


def test_a_signal_while_the_record_is_opened_is_put_off_until_it_has_an_owner():
    """The block runs to its end, and the interrupt comes right after it; without a signal nothing comes."""
    interrupt = Interrupt()
    made = []
    with pytest.raises(KeyboardInterrupt), interrupt.held():
        interrupt(signal.SIGINT, None)
        made.append("recorder")
    assert made == ["recorder"] and interrupt.raised
    with Interrupt().held():
        made.append("another")


def test_a_signal_in_a_callback_that_cannot_raise_leaves_no_traceback(monkeypatch):
    """Python reports such exceptions on stderr: a user's Ctrl-C is none to report, anything else still is."""

    class Target:
        pass

    def dies(error):
        def callback(_):
            raise error

        return callback

    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(str(unraisable.exc_value)))
    with signals_to(Interrupt()):
        for error in (KeyboardInterrupt(), ValueError("a real one")):
            target = Target()
            reference = weakref.ref(target, dies(error))
            del target
            assert reference() is None
    assert reported == ["a real one"]
