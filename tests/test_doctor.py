"""The doctor: what it sees, and that the commands it gives are the right ones."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from saccade import doctor, paths
from saccade.console import doctor_tables
from saccade.doctor import Check, Package


@pytest.fixture(scope="module")
def checks(tmp_path_factory):
    return doctor.examine(tmp_path_factory.mktemp("runs"))


def test_everything_that_is_installed_here_is_seen(checks):
    state = {(check.use, check.name): check for check in checks}
    assert state[doctor.MACHINE, "Python"].state == "ok"
    assert state[doctor.BASE, "numpy"].state == "ok"
    import numpy

    assert state[doctor.BASE, "numpy"].detail == numpy.__version__
    assert state[doctor.FILES, "run folder"].state == "ok"
    assert re.search(r"\d+ cores", state[doctor.MACHINE, "processor"].detail)


def test_whatever_is_missing_or_wrong_has_a_remedy(checks):
    assert [check for check in checks if check.state in ("missing", "problem") and not check.fix] == []


def test_every_use_is_covered(checks):
    assert {check.use for check in checks} == {
        doctor.MACHINE, doctor.FILES, *doctor.USES, doctor.ISAAC
    }  # fmt: skip


def test_json_form(checks):
    found = json.loads(json.dumps(doctor.as_dict(checks)))
    assert found["ready"] == doctor.is_ready(checks)
    assert found["uses"][doctor.BASE] is True
    assert {"use", "name", "state", "detail", "fix"} == set(found["checks"][0])


def test_tables_show_every_check_with_its_command(checks):
    console = Console(width=300, record=True, file=io.StringIO())
    for part in doctor_tables(checks):
        console.print(part)
    text = console.export_text()
    for check in checks:
        assert check.name in text
        if check.state != "ok" and check.fix:
            assert check.fix in text


@pytest.mark.parametrize("use", doctor.NEEDED)
@pytest.mark.parametrize(("state", "ready"), [("ok", True), ("note", True), ("missing", False), ("problem", False)])
def test_ready_means_that_the_main_job_can_run(use, state, ready):
    assert doctor.is_ready([Check(use, "x", state, "")]) is ready


def test_a_missing_extra_does_not_keep_the_main_job_from_running():
    extras = [Check(use, "x", "missing", "") for use in (doctor.GPU, doctor.ROS, doctor.TRAINING, doctor.ISAAC)]
    assert doctor.is_ready(extras)
    console = Console(width=100, record=True, file=io.StringIO())
    for part in doctor_tables(extras):
        console.print(part)
    assert "saccade validate can run here." in console.export_text()


def test_missing_package_gives_the_pip_command():
    check = doctor._package(doctor.TRAINING, Package("no-such-thing>=2", "no_such_thing"), {})
    assert check.state == "missing"
    assert check.fix == f"{sys.executable} -m pip install 'no-such-thing>=2'"


def test_wrong_version_is_a_problem():
    check = doctor._package(doctor.BASE, Package("numpy>=99", "numpy"), {})
    assert check.state == "problem"
    assert "numpy>=99 is needed" in check.detail


def test_package_that_cannot_be_imported_is_a_problem():
    check = doctor._package(doctor.BASE, Package("numpy>=1", "numpy"), {"numpy": "ImportError: libz.so"})
    assert check.state == "problem"
    assert "cannot be imported: ImportError: libz.so" in check.detail


def test_broken_import_is_found_even_when_it_ends_the_process(tmp_path, monkeypatch):
    (tmp_path / "fine.py").write_text("print('chatter')")
    (tmp_path / "broken.py").write_text("import no_such_library_at_all")
    (tmp_path / "wrong.py").write_text("raise OSError('libGL.so.1 is missing')")
    (tmp_path / "crash.py").write_text("import os; os._exit(9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "PROBED", ("fine", "absent", "broken", "wrong", "crash", "never"))
    broken = doctor._broken_imports()
    assert set(broken) == {"broken", "wrong", "crash"}
    assert "no_such_library_at_all" in broken["broken"]
    assert broken["wrong"] == "OSError: libGL.so.1 is missing"
    assert "status 9" in broken["crash"]


def test_kernel_cache_cold_and_warm(tmp_path, monkeypatch):
    monkeypatch.setenv("SACCADE_CACHE", str(tmp_path))
    assert doctor._kernel_cache().detail.startswith("cold")
    monkeypatch.setattr(doctor, "_version", {"warp-lang": "1.19.0"}.get)
    (tmp_path / "kernels" / "1.18.0" / "wp_module").mkdir(parents=True)
    assert doctor._kernel_cache().detail.startswith("cold")
    (tmp_path / "kernels" / "1.19.0" / "wp_module").mkdir(parents=True)
    (tmp_path / "kernels" / "1.19.0" / "wp_module" / "code.o").write_bytes(b"0" * 2**20)
    check = doctor._kernel_cache()
    assert check.state == "ok"
    assert "warm" in check.detail and "1 modules, 1.0 MiB" in check.detail
    assert str(paths.cache_folder()) in check.detail


def test_run_folder_below_a_file_is_a_problem(tmp_path):
    (tmp_path / "file").touch()
    check = doctor._writable(tmp_path / "file" / "runs")
    assert check.state == "problem"
    assert check.fix == "saccade validate --out DIR"


def test_examination_writes_nothing(tmp_path):
    doctor._writable(tmp_path / "runs" / "deep")
    assert list(tmp_path.iterdir()) == []


def test_no_scenes_and_no_networks_are_told_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path)
    monkeypatch.setattr(paths, "MODELS", tmp_path / "models")
    found = {check.name: check for check in doctor._files(tmp_path / "runs")}
    assert found["scenes"].state == found["networks"].state == "missing"
    assert found["scenes"].fix.startswith("saccade scenes make")
    assert "saccade train camera" in found["networks"].fix


def test_requirements_are_those_of_the_distribution():
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    root = paths.checkout_root()
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = {
        doctor.BASE: project["dependencies"],
        doctor.SIMULATOR: extras["sim"],
        doctor.GPU: extras["gpu"],
        doctor.ROS: extras["ros"],
        doctor.TRAINING: extras["train"],
    }
    assert {use: [package.requirement for package in packages] for use, packages in doctor.USES.items()} == declared


def test_command_line_form(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "saccade", "doctor", "--json"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["ready"] else 1)
    assert (
        Path(next(c["detail"] for c in found["checks"] if c["name"] == "run folder").split(",")[0]) == tmp_path / "runs"
    )


@pytest.mark.parametrize(
    ("flags", "state", "text"),
    [
        ({"lo": "0x9", "eth0": "0x1003"}, "note", "on eth0; not on lo: on the loopback"),
        ({"lo": "0x1009", "eth0": "0x1003", "wlan0": "0x1002"}, "ok", "on eth0, lo"),
        ({"eth0": "0x1"}, "note", "on no interface; not on eth0"),
        ({"eth0": "0x1003", "odd": "no number"}, "ok", "on eth0"),
    ],
)
def test_multicast(tmp_path, flags, state, text):
    """Which interfaces that are up can multicast; the loopback without it is told with the command that changes it."""
    for name, value in flags.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "flags").write_text(value)
    (found,) = doctor._multicast(tmp_path)
    assert (found.state, found.detail.startswith(text)) == (state, True)
    assert ("lo multicast on" in found.fix) == ("not on lo" in found.detail)
    assert list(doctor._multicast(tmp_path / "nothing")) == []
