"""Whole sweeps on the real thing: tiny networks in the loop on recorded frames, stopped, killed and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from tests.end_to_end import command, configuration, environment, spawn

from saccade.configuration import load_configuration
from saccade.errors import ConfigurationError, RecordError
from saccade.validation.tradeoff import measure_tradeoff, with_tradeoff
from saccade.validation.tradeoff_candidates import candidates_from_config
from saccade.validation.tradeoff_journal import JOURNAL_FILE

CANDIDATES = ("fp32", "fp16")


@pytest.fixture(scope="module")
def sweep_file(room, golden, tmp_path_factory) -> Path:
    """A configuration beside scene and networks whose sweep takes the golden run for six scenes."""
    section = {
        "precisions": list(CANDIDATES),
        "recordings": [str(golden)] * 6,
        "calibration": str(calibration_file(tmp_path_factory.mktemp("calibration"))),
        "frames": 8,
        "warmup": 2,
        "networks": ["camera"],
    }
    path = room / "sweep.yaml"
    path.write_text(yaml.safe_dump({**configuration(), "tradeoff": section}, sort_keys=False), encoding="utf-8")
    return path


def calibration_file(folder: Path) -> Path:
    import numpy as np

    path = folder / "samples.npz"
    np.savez(path, image=np.random.default_rng(0).normal(size=(120, 3, 16, 16)).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def measured(sweep_file, tmp_path_factory) -> tuple[Path, dict]:
    """A finished sweep."""
    out = tmp_path_factory.mktemp("sweep")
    loaded = with_tradeoff(load_configuration(sweep_file), batches=[1, 4])
    return out, measure_tradeoff(loaded, out=out)


def lines(folder: Path, kind: str) -> list[dict]:
    path = folder / JOURNAL_FILE
    found = []
    for line in path.read_bytes().split(b"\n")[:-1] if path.is_file() else ():
        entry = json.loads(line)
        if entry["kind"] == kind:
            found.append(entry)
    return found


def test_every_candidate_is_measured_on_every_scene(measured):
    out, result = measured
    assert result["complete"]
    cells = lines(out, "cell")
    assert sorted((c["candidate"], c["scene"]) for c in cells) == sorted(
        (f"camera-{precision}", scene["name"]) for precision in CANDIDATES for scene in result["scenes"]
    )
    # The order changes from scene to scene.
    firsts = [next(c["candidate"] for c in cells if c["scene"] == scene["name"]) for scene in result["scenes"]]
    assert firsts == ["camera-fp32", "camera-fp16"] * 3
    by_key = {entry["key"]: entry for entry in result["candidates"]}
    # A network of two layers cannot take other batches: its file has a batch of 1.
    assert set(by_key) == {"camera-fp32", "camera-fp16"}
    fp32, fp16 = by_key["camera-fp32"], by_key["camera-fp16"]
    assert fp32["retention"]["value"] == 1.0 and fp32["agreement"] == 1.0
    assert fp16["agreement"] > 0.95
    assert fp32["latency"]["n"] == fp32["accuracy"]["n"] == 6 * 8
    assert fp32["latency"]["value"] > 0 and fp32["throughput"]["value"] > 0
    assert fp32["energy_per_frame"]["value"] is None and "CPU" in fp32["energy_per_frame"]["reason"]
    assert {entry["key"] for entry in result["failed"]} == {"camera-fp32-batch4", "camera-fp16-batch4"}
    assert all("open batch" in entry["reason"] for entry in result["failed"])


def test_the_accuracy_is_that_of_the_record(measured, room, golden):
    _, result = measured
    summary = json.loads((golden / "run.json").read_text())
    judged = [e for e in result["candidates"] if e["key"] == "camera-fp32"]
    # The golden run has ten judged frames and the sweep takes eight of them: nearly the same, from the same truth.
    assert judged[0]["accuracy"]["value"] == pytest.approx(summary["accuracy"]["camera_miou"], abs=0.05)


def test_the_files_are_whole(measured):
    out, result = measured
    assert json.loads((out / "tradeoff.json").read_text()) == result
    for name in ("camera-latency.svg", "camera-throughput.svg"):
        ElementTree.parse(out / name)
    page = (out / "tradeoff.html").read_text()
    assert "camera" in page and "http-equiv" in page and 'src="http' not in page
    rows = (out / "tradeoff.csv").read_text().splitlines()
    assert len(rows) == 1 + len(result["candidates"])


def test_a_second_time_measures_nothing(measured, sweep_file):
    out, result = measured
    before = (out / JOURNAL_FILE).read_bytes()
    loaded = with_tradeoff(load_configuration(sweep_file), batches=[1, 4])
    again = measure_tradeoff(loaded, out=out)
    assert (out / JOURNAL_FILE).read_bytes() == before
    assert again["candidates"] == result["candidates"]


def test_scenes_can_be_added_but_not_other_frames(measured, sweep_file, tmp_path):
    out, _ = measured
    with pytest.raises(RecordError, match="frames differs"):
        measure_tradeoff(with_tradeoff(load_configuration(sweep_file), frames=7), out=out)


def test_a_time_limit_ends_it_with_what_is_whole(sweep_file, tmp_path):
    found = measure_tradeoff(load_configuration(sweep_file), out=tmp_path, time_limit_s=1e-9)
    assert not found["complete"] and found["candidates"] == []


def test_a_killed_sweep_goes_on_where_it_was(sweep_file, tmp_path):
    out = tmp_path / "sweep"
    arguments = ("tradeoff", sweep_file, "--out", out)
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), cwd=tmp_path
    )
    deadline = time.monotonic() + 60
    while len(lines(out, "cell")) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = lines(out, "cell")
    assert 3 <= len(before) < 12
    finished = spawn(*arguments, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    after = lines(out, "cell")
    assert after[: len(before)] == before
    assert len(after) == len({(c["candidate"], c["scene"]) for c in after}) == 12
    assert json.loads((out / "tradeoff.json").read_text())["complete"]


def test_ctrl_c_keeps_what_was_measured_and_says_how_to_go_on(sweep_file, tmp_path):
    out = tmp_path / "sweep"
    process = subprocess.Popen(
        command("tradeoff", sweep_file, "--out", out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=environment(), cwd=tmp_path,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not lines(out, "cell") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "the same command goes on with it" in said and "Traceback" not in said


def test_limits_that_nothing_meets_end_with_status_1_and_an_answer(measured, tmp_path):
    out, _ = measured
    found = spawn("tradeoff", "--from", out, "--min-accuracy", "1.0", "--max-latency", "1e-6", cwd=tmp_path)
    assert found.returncode == 1
    assert "no candidate meets" in found.stdout and "Traceback" not in found.stderr


def test_json_is_all_that_is_on_stdout(measured, tmp_path):
    out, _ = measured
    found = spawn("tradeoff", "--from", out, "--json", cwd=tmp_path)
    document = json.loads(found.stdout)
    assert document["recommendations"][0]["chosen"].startswith("camera-")
    assert document["candidates"][0]["precision"] == "fp32"


def test_calibration_on_what_is_measured_is_refused(sweep_file, golden, tmp_path):
    loaded = with_tradeoff(load_configuration(sweep_file), calibration=str(golden), precisions=["int8"])
    with pytest.raises(ConfigurationError, match="calibration samples"):
        measure_tradeoff(loaded, out=tmp_path)


def test_a_recording_that_is_not_there(sweep_file, tmp_path):
    loaded = with_tradeoff(load_configuration(sweep_file), recordings=[str(tmp_path / "none")])
    with pytest.raises(RecordError, match=r"tradeoff\.recordings\.0"):
        measure_tradeoff(loaded, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"networks": ["radar"]}, "no network 'radar'"),
        ({"batches": [0]}, r"tradeoff\.batches"),
        ({"precisions": []}, r"tradeoff\.precisions"),
        ({"sizes": [(1, 1)]}, r"tradeoff\.sizes"),
    ],
)
def test_what_cannot_be_compared_is_refused(sweep_file, tmp_path, changes, said):
    with pytest.raises(ConfigurationError, match=said):
        measure_tradeoff(with_tradeoff(load_configuration(sweep_file), **changes), out=tmp_path)


def test_candidates_are_every_combination_with_the_reference_first():
    loaded = load_configuration("warehouse")
    loaded = with_tradeoff(loaded, precisions=["int8", "fp32"], pruning=["2:4", "none"], sizes=[(160, 160)])
    keys = [candidate.key for candidate in candidates_from_config(loaded.config)]
    assert keys[:4] == ["camera-fp32", "camera-int8-24", "camera-fp32-24", "camera-int8"]
    assert keys[4] == "camera-fp32-160x160"
    assert [key for key in keys if key.startswith("lidar")] == [
        "lidar-fp32", "lidar-int8-24", "lidar-fp32-24", "lidar-int8",
    ]  # fmt: skip
    assert len(keys) == len(set(keys)) == 12


@pytest.mark.slow
def test_held_out_layouts_are_recorded_once_and_measured(tmp_path):
    loaded = with_tradeoff(load_configuration("warehouse"), precisions=["fp32", "fp16"], scenes=1, frames=4, warmup=1)
    loaded = with_tradeoff(loaded, calibration_frames=120, networks=["lidar"])
    result = measure_tradeoff(loaded, out=tmp_path)
    assert result["complete"] and result["scenes"][0]["seed"] == 9_000_000
    entries = {entry["key"]: entry for entry in result["candidates"]}
    assert entries["lidar-fp16"]["retention"]["value"] == pytest.approx(1.0, abs=0.01)
