"""What is built and pinned: the wheel holds all that a run needs, the lock holds hashes and no registry's name."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import saccade

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINS = [Requirement(line.rstrip(" \\")) for line in LOCK.splitlines() if line and not line.startswith(" ")]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    code = f"import hatchling.build as b; print(b.build_wheel({str(folder)!r}))"
    pytest.importorskip("hatchling", reason="part of the dev extra")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.strip().splitlines()[-1]


def test_wheel_holds_code_scenes_configurations_and_networks(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder, target in (
        ("config", "saccade/share/config"),
        ("scenes", "saccade/share/scenes"),
        ("exts/saccade/saccade", "saccade"),
    ):
        files = [
            file.relative_to(ROOT / folder)
            for file in (ROOT / folder).rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        ]
        assert files or folder == "scenes"
        missing = [str(file) for file in files if f"{target}/{file.as_posix()}" not in names]
        assert missing == []
    assert not [name for name in names if name.startswith(("tests/", "exts/", "scripts/"))]


def test_wheel_has_the_command_and_the_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = f"saccade-{saccade.__version__}.dist-info"
        assert "saccade = saccade.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in archive.namelist()
        metadata = archive.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: <3.14,>=3.10" in metadata


def test_a_run_from_the_wheel_finds_what_is_shipped(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "from saccade.configuration import load_configuration; from saccade import paths;"
        "print(load_configuration('warehouse').path); print(paths.checkout_root())"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {code}"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    expected = tmp_path / "site" / "saccade" / "share" / "config" / "warehouse.yaml"
    assert done.stdout.splitlines() == [str(expected), "None"], done.stderr


def test_lock_has_a_hash_for_every_pin_and_no_registry():
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) == len(PINS) > 50
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in LOCK
    assert "index-url" not in LOCK and "find-links" not in LOCK


def test_lock_pins_exactly():
    assert [str(pin) for pin in PINS if not re.fullmatch(r"==[^*]+", str(pin.specifier))] == []


@pytest.mark.parametrize("python", PYTHONS)
def test_lock_covers_what_validate_and_test_need(python):
    pinned = {}
    for pin in PINS:
        environment = {
            "python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux",
            "platform_machine": "x86_64", "platform_python_implementation": "CPython", "implementation_name": "cpython",
        }  # fmt: skip
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.name not in pinned, f"{pin.name} is pinned twice"
            pinned[pin.name.lower().replace("_", "-")] = pin
    extras = PROJECT["project"]["optional-dependencies"]
    for text in [*PROJECT["project"]["dependencies"], *extras["sim"], *extras["dev"]]:
        wanted = Requirement(text)
        version = str(pinned[wanted.name.lower()].specifier).removeprefix("==")
        assert wanted.specifier.contains(version), f"{text}: {version} is pinned"
    assert "torch" not in pinned


def test_python_versions_agree_everywhere():
    assert PROJECT["project"]["requires-python"] == ">=3.10,<3.14"
    from saccade.doctor import PYTHON_RANGE

    assert PYTHON_RANGE == ((3, 10), (3, 14))
    assert "(3, 10) <= sys.version_info[:2] < (3, 14)" in (ROOT / "Makefile").read_text(encoding="utf-8")
    for python in PYTHONS:
        assert f"Programming Language :: Python :: {python}" in PROJECT["project"]["classifiers"]


def test_make_knows_its_targets():
    for target in ("validate", "test", "lint", "lock", "clean", "help"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_make_says_clearly_that_there_is_no_python(tmp_path):
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(["make", "validate", "PYTHON="], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No CPython 3.10 to 3.13 with venv was found" in done.stderr
    (tmp_path / "old").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "old").chmod(0o755)
    done = subprocess.run(["make", "test", "PYTHON=./old"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "./old is no CPython 3.10 to 3.13 with venv: make PYTHON=/path/to/python3.11 test" in done.stderr


def test_continuous_integration_is_runnable():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "make lint" in text and "make test" in text
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def test_licence_is_apache():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text and len(text) > 10_000


HEAVY = ("torch", "pxr", "newton", "mujoco", "onnx", "onnxruntime", "matplotlib", "warp", "jinja2", "scipy", "numpy")


@pytest.mark.parametrize("module", ["saccade", "saccade.cli", "saccade.configuration", "saccade.doctor"])
def test_light_modules_import_nothing_heavy(module):
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
