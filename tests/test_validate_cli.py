"""``saccade validate`` as a process: exit statuses, stdout, signals, and what is left when it is killed."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.end_to_end import (
    Running,
    assert_losses_are_named,
    camera_network,
    command,
    environment,
    frames_of,
    lines_of,
    make_folder,
    repeatable,
    run_document,
    spawn,
)

from saccade import cli
from saccade.telemetry.record import read_frames

LAST_LINE = re.compile(
    r"(PASS|FAIL|INVALID) frames=(\d+) p50=(\d+\.\dms|n/a) p95=(\d+\.\dms|n/a) dropped=(\d+) miou=(\d\.\d{3}|n/a) "
    r"contacts=(\d+) -> (\S+)"
)
PROMISED = {
    "verdict", "frames", "latency_ms", "deadline_miss_rate", "realtime_factor", "dropped", "accuracy", "contacts",
    "directory",
}  # fmt: skip
ENDLESS = ("--frames", "1000000")
FRAMES, WARMUP = 10, 2


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    """A folder with a configuration, its scene and its networks; runs go elsewhere."""
    return make_folder(tmp_path_factory.mktemp("room"))


@pytest.fixture(scope="module")
def twins(room, tmp_path_factory) -> list[tuple[int, str, str, Path]]:
    """Exit status, stdout, stderr and folder of two equal runs, in two processes at the same time.

    The first prints the last line, the second one JSON object.
    """
    out = tmp_path_factory.mktemp("twins")
    started = [
        subprocess.Popen(
            command("validate", "run.yaml", "--out", out, "--name", name, "--seed", "3", *options),
            cwd=room, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        )
        for name, *options in (["one"], ["two", "--json"])
    ]  # fmt: skip
    ended = [process.communicate(timeout=120) for process in started]
    return [
        (process.returncode, *streams, out / name)
        for process, streams, name in zip(started, ended, ("one", "two"), strict=True)
    ]


def call(*arguments: str | Path, capfd) -> tuple[int, str, str]:
    """Runs the command line in this process, through its real entry point."""
    capfd.readouterr()
    status = cli._status([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    return status, captured.out, captured.err


def only_run(out: Path) -> Path:
    """The one run that a folder holds."""
    (directory,) = (entry for entry in out.iterdir() if entry.is_dir() and not entry.is_symlink())
    assert (out / "latest").resolve() == directory.resolve()
    return directory


# ------------------------------------------------------------------------------------------------- what it says


def test_a_pass_is_status_0_and_one_last_line(twins):
    status, out, err, directory = twins[0]
    assert status == 0, err
    (line,) = out.splitlines()
    found = LAST_LINE.fullmatch(line)
    assert found is not None, line
    document = run_document(directory)
    assert found[1] == "PASS" and int(found[2]) == document["frames"] == FRAMES
    assert found[3] == f"{document['latency_ms']['p50']['value']:.1f}ms"
    assert found[4] == "n/a", "ten decisions do not support a p95"
    assert int(found[5]) == document["dropped"] == 0 and int(found[7]) == document["contacts"]
    assert found[6] == f"{document['accuracy']['camera_miou']:.3f}"
    assert Path(found[8]) == directory
    assert "budget" in err and "deadline_miss_rate" in err and str(directory / "report.html") in err
    assert "Traceback" not in err


def test_json_is_one_object_with_the_promised_keys_and_nothing_else(twins):
    status, out, err, directory = twins[1]
    assert status == 0, err
    assert out.endswith("\n") and out.count("\n") == 1
    found = json.loads(out)
    assert set(found) == PROMISED
    assert set(found["latency_ms"]) == {"p50", "p95", "p99", "max"}
    assert set(found["accuracy"]) == {"camera_miou", "lidar_miou", "hazard_auroc", "clearance_error_m"}
    document = run_document(directory)
    assert (found["verdict"], found["frames"], found["directory"]) == ("pass", FRAMES, str(directory))
    assert found["latency_ms"]["max"] == document["latency_ms"]["max"] > 0
    assert found["accuracy"] == {name: document["accuracy"][name] for name in found["accuracy"]}
    assert found["realtime_factor"] == document["realtime_factor"] > 0
    assert found["deadline_miss_rate"] == document["deadline_miss_rate"]["value"]
    assert LAST_LINE.fullmatch(err.splitlines()[-1])


def test_two_processes_make_the_same_run(twins):
    one, two = (frames_of(directory) for *_, directory in twins)
    assert len(one) == 2 * (FRAMES + WARMUP)
    assert repeatable(one) == repeatable(two)
    first, second = (run_document(directory) for *_, directory in twins)
    for field in ("accuracy", "distance_m", "contact_list", "hashes", "frames_by_sensor", "simulated_s"):
        assert first[field] == second[field], field


def test_options_are_named_as_sources(twins):
    *_, directory = twins[0]
    document = run_document(directory)
    assert document["sources"]["run.seed"] == "--seed" and document["sources"]["run.name"] == "--name"
    assert document["sources"]["run.frames"] == "file run.yaml"


def test_an_impossible_budget_is_status_1(room, tmp_path, capfd):
    status, out, err = call(
        "validate", room / "run.yaml", "--out", tmp_path, "--frames", "4", "--set", "budgets.camera_miou=1.0",
        capfd=capfd,
    )  # fmt: skip
    assert status == 1
    assert out.startswith("FAIL frames=4 ") and LAST_LINE.fullmatch(out.strip())
    assert "camera_miou" in err and "missed" in err
    sources = run_document(only_run(tmp_path))["sources"]
    assert (sources["run.frames"], sources["budgets.camera_miou"]) == ("--frames", "--set")


def test_a_network_that_gives_nan_is_status_3(room, tmp_path, capfd):
    model = camera_network(tmp_path / "nan.onnx", hazard=float("nan"))
    status, out, err = call(
        "validate", room / "run.yaml", "--out", tmp_path / "runs", "--frames", "4", "--json", "--set",
        f"networks.camera.model={model}", capfd=capfd,
    )  # fmt: skip
    assert status == 3
    found = json.loads(out)
    assert found["verdict"] == "invalid" and set(found) == PROMISED
    assert "network camera gave NaN" in err and "check the model and its preprocessing" in " ".join(err.split())
    assert err.splitlines()[-1].startswith("INVALID frames=4 ")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--frames", "0"], ["--frames: run.frames: expected integer >= 1", "got 0"]),
        (["--set", "run.fraems=3"], ["run.fraems: unknown field; did you mean 'frames'?"]),
        (["--set", "sensors.eye.prim=eyes"], ["sensors.eye.prim", "'eyes'", "/Robot/trunk/eye"]),
        (["--set", "scene=rom.usda"], ["there is no scene 'rom.usda'", "room.usda"]),
        (["--set", "networks.camera.inputs={x: {kind: image, sensor: eye}}"], ["no input x", "image float32"]),
        (["--set", "networks.lidar.model=run.yaml"], ["run.yaml", "ONNX"]),
        (["--out", "run.yaml"], ["run.yaml", "--out DIR"]),
        (["--out", "/sys/runs"], ["/sys/runs", "--out DIR"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("-") else "",
)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_what_cannot_run_is_status_2_with_one_message(room, tmp_path, capfd, monkeypatch, options, parts, as_json):
    monkeypatch.chdir(room)
    out = [] if "--out" in options else ["--out", str(tmp_path / "runs")]
    status, stdout, err = call("validate", "run.yaml", *out, *options, *(["--json"] if as_json else []), capfd=capfd)
    assert (status, stdout) == (2, "")
    assert err.count("error: ") == 1 and "Traceback" not in err
    message = " ".join(err[err.index("error: ") :].split())
    for part in parts:
        assert part in message
    assert not list(tmp_path.glob("runs/*")), "nothing of the run is left behind"
    assert not (room / "runs").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_status_2(room, tmp_path, capfd):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    status, out, err = call("validate", room / "run.yaml", "--out", locked, capfd=capfd)
    assert (status, out) == (2, "")
    assert "no permission to write there" in err and "--out DIR" in err


# ------------------------------------------------------------------------------------------------------ signals


def started(room: Path, out: Path, *options: str) -> Running:
    return Running("validate", "run.yaml", "--out", out, *ENDLESS, *options, cwd=room)


def records(out: Path) -> int:
    """Lines that the run in ``out`` has on the disk so far."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob("run/frames.jsonl"))


def judging(out: Path) -> Callable[[], bool]:
    return lambda: records(out) > 1 + 2 * (WARMUP + 10)


def assert_ended_as_invalid(status: int, out: str, err: str, directory: Path) -> None:
    """Status 3, the last line, a whole record, a finished run.json and a report."""
    assert status == 3, err
    assert "Traceback" not in err
    lines = out.splitlines()
    found = LAST_LINE.fullmatch(lines[-1])
    assert found is not None and found[1] == "INVALID", out
    document = run_document(directory)
    assert (document["state"], document["verdict"], document["exit_status"]) == ("finished", "invalid", 3)
    assert any("the run was interrupted" in reason for reason in document["reasons"]), document["reasons"]
    record = read_frames(directory)
    assert not record.problems and not record.torn
    assert record.end is not None and record.end["reason"] == "interrupted"
    assert record.end["frames"] == len(record.frames) == len(frames_of(directory))
    assert int(found[2]) == document["frames"]
    report = (directory / "report.html").read_text()
    assert "INVALID" in report and "The run was interrupted" in report
    assert (directory / "junit.xml").is_file() and (directory / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("number", "options"),
    [(signal.SIGINT, []), pytest.param(signal.SIGTERM, ["--json"], marks=pytest.mark.slow)],
)
def test_a_signal_in_mid_run_ends_it_in_order(room, tmp_path, number, options):
    with started(room, tmp_path, *options) as running:
        running.wait_for(judging(tmp_path))
        running.send(number)
        status, out, err = running.end()
    assert_ended_as_invalid(status, err if options else out, err, tmp_path / "run")
    document = run_document(tmp_path / "run")
    if options:
        found = json.loads(out)
        assert set(found) == PROMISED
        assert (found["verdict"], found["frames"]) == ("invalid", document["frames"])
    assert (tmp_path / "latest").resolve() == (tmp_path / "run").resolve()
    assert document["frames"] >= 8
    assert any("stopped by the user" in reason for reason in document["reasons"])
    assert any(f"{document['frames']} of 1000000 judged decisions" in reason for reason in document["reasons"])
    # what was measured until then is there
    assert document["latency_ms"]["p50"]["value"] > 0
    assert document["simulator"]["name"] == "newton" and document["hashes"]["scene"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_while_loading_ends_it_in_order(room, tmp_path, number):
    with started(room, tmp_path) as running:
        running.wait_for((tmp_path / "run" / "frames.jsonl").is_file)
        running.send(number)
        status, out, err = running.end()
    assert_ended_as_invalid(status, out, err, tmp_path / "run")
    assert run_document(tmp_path / "run")["frames"] == 0
    assert not frames_of(tmp_path / "run")


def test_a_signal_while_the_physics_starts_ends_it_in_order(room, tmp_path):
    with started(room, tmp_path) as running:
        running.wait_for(lambda: "starting the physics solver" in running.stderr)
        running.send(signal.SIGINT)
        status, out, err = running.end()
    assert_ended_as_invalid(status, out, err, tmp_path / "run")


def test_a_killed_run_is_readable_up_to_the_last_flush_and_its_report_says_invalid(room, tmp_path, capfd):
    with started(room, tmp_path) as running:
        running.wait_for(judging(tmp_path))
        time.sleep(0.3)
        killed = time.monotonic_ns()
        running.send(signal.SIGKILL)
        status, out, _ = running.end()
    assert (status, out) == (-signal.SIGKILL, "")
    directory = tmp_path / "run"
    assert run_document(directory)["state"] == "running"
    assert lines_of(directory)[0]["kind"] == "header"
    frames = frames_of(directory)
    assert [frame["index"] for frame in frames] == list(range(len(frames)))
    # flushed every 50 ms; the rest is for a machine that does other things at the same time
    assert (killed - frames[-1]["stamps"]["decided"]) * 1e-9 < 0.5
    record = read_frames(directory)
    assert len(record.frames) == len(frames) and record.end is None
    status, out, err = call("report", directory, capfd=capfd)
    assert status == 0, err
    assert out.strip() == str(directory / "report.html")
    report = (directory / "report.html").read_text()
    assert "INVALID" in report and "cut off" in report
    assert ">PASS<" not in report


def test_report_is_rebuilt_from_the_record_alone(twins, tmp_path, capfd):
    import shutil

    *_, directory = twins[0]
    copy = tmp_path / directory.name
    shutil.copytree(directory, copy)
    before = (copy / "report.html").read_text()
    (copy / "report.html").unlink()
    assert call("report", copy, capfd=capfd)[0] == 0

    def lasting(text: str) -> str:
        """Without the time at which the page was made and the place of the folder."""
        return re.sub(r"\d{4}-\d\d-\d\dT[\d:]+\+00:00", "", text).replace(str(copy), "").replace(str(directory), "")

    assert lasting((copy / "report.html").read_text()) == lasting(before)


# --------------------------------------------------------------------------------------------------- a full disk


def can_mount() -> bool:
    """Whether a file system of a given size can be had here."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        done = subprocess.run(
            ["unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"],
            capture_output=True, check=False,
        )  # fmt: skip
    except OSError:
        return False
    return done.returncode == 0


@pytest.mark.skipif(not can_mount(), reason="no file system of its own can be mounted here")
def test_a_full_disk_is_status_3_and_what_fits_is_readable(room, tmp_path):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    script = (
        'mount -t tmpfs -o size=200k tmpfs "$1" || exit 99; shift; "$@"; status=$?; cp -a "$0" "$KEPT"; exit $status'
    )
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, str(disk), str(disk),
         *command("validate", "run.yaml", "--out", disk, *ENDLESS)],
        cwd=room, capture_output=True, text=True, check=False, timeout=120, env={**environment(), "KEPT": str(kept)},
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    message = " ".join(done.stderr.split())
    assert "the disk is full" in message and "--out DIR" in message
    assert LAST_LINE.fullmatch(done.stdout.strip()), done.stdout
    record = read_frames(kept / "run")
    assert_losses_are_named(record)


def test_a_disk_that_is_full_from_the_start_is_status_2(room, tmp_path):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    done = spawn("validate", "run.yaml", "--out", tmp_path, cwd=room, before=limit)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and "ulimit -f" in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
