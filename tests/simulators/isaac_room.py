"""A small room for runs in the doubles of Isaac Sim: a walker, a camera of a size that every version takes, a LiDAR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.contracts.isaac.doubles import Behaviour
from tests.end_to_end import make_folder, write_configuration

STARTED = {"/app/hydraEngine/waitIdle": True, "/rtx-transient/stableIds/enabled": True}


def isaac_folder(folder: Path, **simulator: Any) -> Path:
    """Writes ``run.yaml`` for Isaac Sim with its scene and networks, and returns the folder."""
    make_folder(folder)
    write_configuration(
        folder / "run.yaml",
        simulator={"backend": "isaac", "device": "cpu", "step": 0.1, "substeps": 3, **simulator},
        sensors={"eye": {"width": 320, "height": 304}, "lidar": {"channels": 16, "columns": 128}},
        networks={"camera": {"inputs": {"image": {"size": [16, 16]}}}},
    )
    from tests.onnx_models import lidar_network

    lidar_network(folder / "lidar.onnx", channels=16, columns=128)
    return folder


def waiting(**changes: Any) -> Behaviour:
    """Returns the behaviour of an application that was started as ``scripts/isaac_validate.py`` starts it."""
    settings = {**STARTED, **changes.pop("settings", {})}
    return Behaviour(settings=settings, **changes)
