"""A small room to run in, and recorded runs: shared by the tests of whole runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.end_to_end import make_folder, run_here


@pytest.fixture(scope="session")
def room(tmp_path_factory) -> Path:
    """A folder with a configuration, its scene and its networks; tests do not write there."""
    return make_folder(tmp_path_factory.mktemp("room"))


@pytest.fixture(scope="session")
def golden(room, tmp_path_factory) -> Path:
    """A run that was recorded with its sensors."""
    summary = run_here(room, tmp_path_factory.mktemp("golden"), "record.sensors=true")
    return Path(summary["directory"])


@pytest.fixture
def former(golden, tmp_path) -> Path:
    """A folder of runs that holds one already."""
    out = tmp_path / "runs"
    shutil.copytree(golden, out / "former", ignore=shutil.ignore_patterns("sensors"))
    (out / "latest").symlink_to("former")
    return out
