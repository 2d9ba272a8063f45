"""The command line: exit statuses, what goes to stdout and what to stderr, and clear words for every mistake."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import saccade
from saccade import cli, paths
from saccade.console import outcome_table
from saccade.errors import EngineError, SceneError
from saccade.yamlfile import read_text

CONFIGURATION = "scene: room.usda\nsensors:\n  eye: {kind: camera, prim: head}\n"
COMMANDS = [
    ["validate"], ["config", "show"], ["config", "list"], ["config", "fields"], ["train"],
    ["scenes", "make"], ["bench"], ["report"], ["doctor"],
    ["engine", "build"], ["engine", "list"], ["engine", "verify"], ["engine", "remove"], ["engine", "inspect"],
    ["engine", "profile"], ["node"],
]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with a configuration and an (empty) scene."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(CONFIGURATION)
    (tmp_path / "room.usda").touch()
    return tmp_path


def call(*arguments: str, capfd) -> tuple[int, str, str]:
    """Runs the command line in this process, through its real entry point."""
    capfd.readouterr()
    status = cli._status(list(arguments))
    captured = capfd.readouterr()
    return status, captured.out, captured.err


def spawn(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m saccade`` as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "saccade", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "100", **environment},
    )  # fmt: skip


# -------------------------------------------------------------------------------------------- help and version


def test_version():
    done = spawn("--version")
    assert (done.returncode, done.stdout) == (0, f"saccade {saccade.__version__}\n")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_examples(command):
    done = CliRunner().invoke(cli.app, [*command, "--help"])
    assert done.exit_code == 0
    assert "Example" in done.output
    assert f"saccade {' '.join(command)}" in " ".join(done.output.split())


def test_help_explains_the_exit_status():
    output = " ".join(CliRunner().invoke(cli.app, ["--help"]).output.split())
    assert "0 PASS, 1 FAIL, 2 wrong usage or configuration, 3 INVALID" in output


def test_help_is_fast():
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        assert spawn("--help").returncode == 0
        seconds.append(time.perf_counter() - begin)
    # half a second on an idle machine; the tests share theirs
    assert min(seconds) < 1.5, seconds


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["validate", "--frames", "many"], ["validate", "--simulator", "newtn"], ["validate", "--set"],
     ["validate", "--device", "gpu"], ["train", "radar"], ["report"], ["validate", "a", "b"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_status_2(arguments, capfd):
    status, out, err = call(*arguments, capfd=capfd)
    assert status == 2
    assert out == ""
    assert "Traceback" not in err and err.strip()


# ---------------------------------------------------------------------------------------------- configuration


def test_config_show_prints_yaml_with_sources_that_loads_again(folder, capfd):
    status, out, err = call("config", "show", "run.yaml", "--set", "run.frames=9", capfd=capfd)
    assert (status, err) == (0, "")
    assert "  frames: 9  # --set\n" in out
    assert "scene: room.usda  # file run.yaml\n" in out
    assert "    width: 224  # default\n" in out
    assert read_text(out, "shown").value["run"]["frames"] == 9
    (folder / "again.yaml").write_text(out)
    again = call("config", "show", "again.yaml", capfd=capfd)[1]
    assert read_text(again, "a").value == read_text(out, "b").value


def test_config_show_as_json(folder, capfd):
    status, out, _ = call("config", "show", "run.yaml", "--json", capfd=capfd)
    found = json.loads(out)
    assert status == 0
    assert found["configuration"]["sensors"]["eye"]["width"] == 224
    assert found["sources"]["sensors.eye.width"] == "default"


def test_config_list_has_shipped_and_own(folder, capfd):
    (folder / "config").mkdir()
    (folder / "config" / "mine.yaml").write_text(CONFIGURATION + "description: My own room.\n")
    (folder / "config" / "broken.yaml").write_text("scene: [\n")
    rows = {row["name"]: row for row in json.loads(call("config", "list", "--json", capfd=capfd)[1])}
    assert set(rows) == {"warehouse", "corridor", "isaac", "mine", "broken"}
    assert rows["mine"]["description"] == "My own room."
    assert "cannot be used: config/broken.yaml:2: not valid YAML" in rows["broken"]["description"]
    out = call("config", "list", capfd=capfd)[1]
    assert "warehouse" in out and "My own room." in out


def test_config_fields(capfd):
    out = call("config", "fields", "budgets", capfd=capfd)[1]
    assert "budgets.latency_p95_ms" in out and "run.frames" not in out
    rows = json.loads(call("config", "fields", "--json", capfd=capfd)[1])
    assert {"name": "run.frames", "type": "integer >= 1, <= 10000000", "default": "400"}.items() <= next(
        row for row in rows if row["name"] == "run.frames"
    ).items()
    status, _, err = call("config", "fields", "budget", capfd=capfd)
    assert status == 2 and "no field that begins with 'budget'" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run.yaml", "--set", "run.fraems=3"], "--set: run.fraems: unknown field; did you mean 'frames'?"),
        (["run.yaml", "--set", "run.frames=many"], "run.frames: expected integer >= 1"),
        (["run.yaml", "--set", "run"], "expected field=value"),
        (["run.yaml", "--frames", "0"], "--frames: run.frames: expected integer >= 1, <= 10000000, got 0"),
        (["run.yaml", "--seed", "-3"], "--seed: run.seed: expected integer >= 0"),
        (["absent.yaml"], "there is no configuration 'absent.yaml'"),
        (["run.yaml", "--set", "scene=absent.usda"], "--set: scene: there is no scene 'absent.usda'"),
        (["run.yaml", "--simulator", "replay"], "--set simulator.recording=PATH"),
        (
            ["run.yaml", "--set", "networks.n={model: no.onnx, inputs: {x: {kind: image, sensor: eye}}}"],
            "networks.n.model: there is no network 'no.onnx'",
        ),
    ],
)
def test_wrong_configuration_is_one_clear_message_and_status_2(folder, arguments, expected):
    done = spawn("validate", *arguments, cwd=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "runs").exists()


def test_wrong_configuration_leaves_stdout_empty_with_json(folder):
    done = spawn("validate", "run.yaml", "--json", "--set", "a=1", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: --set: a: unknown field" in done.stderr


# --------------------------------------------------------------------------------------------------- validate


def percentile(value):
    return {"value": value, "low": value, "high": value, "n": 400, "reason": None}


def summary_of(verdict: str, directory: Path) -> dict:
    """A summary as docs/record.md has it; the command line's job is only to show it."""
    statistics = {"n": 400, "mean": 20.0, "min": 15.0, "max": 60.0}
    statistics |= {name: percentile(value) for name, value in (("p50", 20.0), ("p95", 31.5), ("p99", 40.0))}
    rate = {"value": 0.0, "low": 0.0, "high": 0.009, "count": 0, "n": 400}
    return {
        "schema": 1, "name": "x", "state": "finished", "verdict": verdict, "directory": str(directory),
        "exit_status": {"pass": 0, "fail": 1, "invalid": 3}[verdict], "reasons": ["camera_miou [low]"],
        "frames": 400, "dropped": 0, "stale": 0, "lost": 0, "latency_ms": statistics, "inference_ms": statistics,
        "deadline_miss_rate": rate, "realtime_factor": 1.5, "contacts": 0, "distance_m": 12.3,
        "accuracy": {"camera_miou": 0.71, "lidar_miou": 0.85, "hazard_auroc": None, "clearance_error_m": 0.1},
        "sensors": {
            "eye": {"kind": "camera", "judged": 400, "dropped": 0, "latency_ms": statistics, "inference_ms": statistics}
        },
        "budgets": [
            {"name": "latency_p95_ms", "description": "", "unit": "ms", "comparison": "<=", "limit": 100.0,
             "value": 31.5, "low": 30.0, "high": 33.0, "n": 400, "passed": verdict == "pass", "reason": ""},
            {"name": "hazard_auroc", "description": "", "unit": "", "comparison": ">=", "limit": 0.9,
             "value": None, "low": None, "high": None, "n": 0, "passed": None, "reason": "one class"},
        ],
    }  # fmt: skip


@pytest.fixture
def outcome(folder, monkeypatch):
    """Lets ``saccade validate`` end in a given verdict, and returns what it was asked to run."""
    asked = {}

    def arrange(verdict: str | BaseException) -> dict:
        def run(loaded, out, *, quiet):
            asked.update(loaded=loaded, out=out)
            print("chatter of a library")
            os.write(1, b"chatter from C\n")
            if isinstance(verdict, BaseException):
                raise verdict
            return summary_of(verdict, folder)

        monkeypatch.setattr(cli, "_run", run)
        return asked

    return arrange


@pytest.mark.parametrize(("verdict", "status"), [("pass", 0), ("fail", 1), ("invalid", 3)])
def test_verdict_decides_the_exit_status_and_ends_the_output(outcome, folder, capfd, verdict, status):
    outcome(verdict)
    found, out, err = call("validate", "run.yaml", capfd=capfd)
    assert found == status
    last = out.strip().splitlines()[-1]
    assert last.startswith(f"{verdict.upper()} frames=400 ") and last.endswith(f"-> {folder}")
    assert "latency_p95_ms" in err and "30 .. 33" in err and "<= 100 ms" in err
    assert "camera mIoU 0.71" in err and "camera_miou [low]" in err


@pytest.mark.parametrize("verdict", ["pass", "fail", "invalid"])
def test_json_is_the_only_thing_on_stdout(outcome, folder, capfd, verdict):
    outcome(verdict)
    _, out, err = call("validate", "run.yaml", "--json", capfd=capfd)
    found = json.loads(out)
    assert out.count("\n") == 1
    assert found["verdict"] == verdict
    assert {"frames", "latency_ms", "deadline_miss_rate", "realtime_factor", "dropped", "accuracy", "contacts",
            "directory"} <= set(found)  # fmt: skip
    assert {"p50", "p95", "p99", "max"} <= set(found["latency_ms"])
    assert {"camera_miou", "lidar_miou", "hazard_auroc", "clearance_error_m"} <= set(found["accuracy"])
    assert "chatter from C" in err and "chatter of a library" in err
    assert f"{verdict.upper()} frames=400" in err


def test_options_reach_the_configuration(outcome, folder, capfd):
    asked = outcome("pass")
    call("validate", "run.yaml", "--frames", "80", "--out", "elsewhere", "--name", "n", "--simulator", "newton",
         "--engine", "onnxruntime", "--device", "cpu", "--seed", "5", "--set", "run.warmup=3", "--set",
         "budgets.contacts=0", capfd=capfd)  # fmt: skip
    config, out = asked["loaded"].config, asked["out"]
    assert (config.run.frames, config.run.name, config.run.seed, config.run.warmup) == (80, "n", 5, 3)
    assert (config.simulator.backend, config.simulator.device, config.engine.backend) == (
        "newton",
        "cpu",
        "onnxruntime",
    )
    assert config.budgets.contacts == 0
    assert out == Path("elsewhere")


def test_open_opens_the_report(outcome, folder, capfd, monkeypatch):
    import webbrowser

    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    outcome("pass")
    (folder / "report.html").touch()
    call("validate", "run.yaml", "--open", capfd=capfd)
    assert opened == [(folder / "report.html").as_uri()]


@pytest.mark.parametrize(
    ("error", "status"),
    [(SceneError("scene: no physics; add some"), 2), (EngineError("the engine gave up"), 3), (KeyboardInterrupt(), 3)],
)
def test_errors_of_a_run(outcome, capfd, error, status):
    outcome(error)
    found, out, err = call("validate", "run.yaml", "--json", capfd=capfd)
    assert (found, out) == (status, "")
    assert f"error: {error or 'stopped'}" in err and "Traceback" not in err


def test_unexpected_error_leaves_a_log_and_no_traceback(outcome, capfd, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outcome(ZeroDivisionError("seven"))
    status, _, err = call("validate", "run.yaml", capfd=capfd)
    assert status == cli.CRASHED
    assert "unexpected ZeroDivisionError: seven" in err and "Traceback" not in err
    (log,) = tmp_path.glob("saccade-*.log")
    assert str(log) in err
    assert "Traceback" in log.read_text() and "seven" in log.read_text()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/locked/runs"), "/locked/runs: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device", "/full/run.json"), "/full/run.json: No space left on device"),
    ],
)
def test_output_that_cannot_be_written(folder, capfd, monkeypatch, error, expected):
    module = type(sys)("saccade.validation.run")

    def validate(loaded, *, out, console):
        raise error

    module.validate = validate
    monkeypatch.setitem(sys.modules, "saccade.validation.run", module)
    status, _, err = call("validate", "run.yaml", capfd=capfd)
    assert status == 2
    assert expected in err and "--out DIR" in err


def test_budget_table_survives_nulls():
    assert list(outcome_table({}))
    assert list(outcome_table({"verdict": "invalid", "budgets": [{"name": "x"}], "sensors": {"eye": {}}}))


# ----------------------------------------------------------------------------------------------------- others


def test_report_of_a_folder_without_a_run_lists_the_runs(folder, capfd):
    (folder / "runs" / "golden").mkdir(parents=True)
    (folder / "runs" / "golden" / "run.json").write_text("{}")
    status, _, err = call("report", "runs/gold", capfd=capfd)
    assert status == 2
    assert "runs/gold: no run.json there" in err and "golden" in err


def test_latest_may_be_a_text_file(folder):
    (folder / "runs").mkdir()
    (folder / "runs" / "latest").write_text("golden\n")
    assert cli._run_folder(Path("runs/latest")) == Path("runs/golden")


def test_training_without_torch_says_how_to_get_it(capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "saccade.models.training", raising=False)
    status, _, err = call("train", "camera", capfd=capfd)
    assert status == 2
    assert f"training needs torch, which is not installed: {sys.executable} -m pip install" in err


def test_doctor_status_follows_the_main_job(capfd, monkeypatch):
    from saccade import doctor

    for state, status in (("ok", 0), ("missing", 1)):
        checks = [doctor.Check(doctor.BASE, "numpy", state, "1.0", "pip install numpy")]
        monkeypatch.setattr(doctor, "examine", lambda out, checks=checks: checks)
        assert call("doctor", capfd=capfd)[0] == status
        found, out, _ = call("doctor", "--json", capfd=capfd)
        assert found == status and json.loads(out)["ready"] is (status == 0)


def test_a_closed_pipe_is_no_crash():
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m saccade config fields | head -1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr


def test_terminal_without_utf_8(folder):
    (folder / "run.yaml").write_text(CONFIGURATION + "description: mètres → ☃\n", encoding="utf-8")
    done = spawn("config", "show", "run.yaml", cwd=folder, PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr


def test_default_configuration_is_the_warehouse(capfd):
    out = call("config", "show", capfd=capfd)[1]
    assert f"file {paths.display(paths.shipped('configuration') / 'warehouse.yaml')}" in out
