"""Scenes shared by the simulator's tests; opened once, as an import of Newton and a solver take seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("newton")
pytest.importorskip("pxr")
sys.path.insert(0, str(Path(__file__).parent))

from robots import run_config, walker_scene


@pytest.fixture(scope="session")
def walker_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with a biped that has gait roles, z up, in metres."""
    return walker_scene(tmp_path_factory.mktemp("walker") / "walker.usda")


@pytest.fixture(scope="session")
def _opened(walker_file: Path) -> Iterator[Any]:
    from saccade.simulators.newton import NewtonSimulator

    simulator = NewtonSimulator(run_config(walker_file))
    simulator.open(walker_file)
    yield simulator
    simulator.close()


@pytest.fixture
def walker(_opened: Any) -> Any:
    """The biped's simulator, back at the start; its clock goes on."""
    _opened.place(0.0, 0.0, 0.0, time=_opened.state.step * 0.02)
    return _opened
