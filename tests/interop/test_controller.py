"""An external controller in plain rclpy walks the humanoid of a real run round an obstacle; the record says so."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.interop.conftest import FOLDER, ROOT, TRANSPORT, peer_environment

BODY = 0.28
"""Half the humanoid's width at the shoulders [m]."""
GOAL = 1.0
"""How far behind the obstacle the controller stops [m]."""
STANDING = 10
"""Decisions at the end in which nothing may move."""


def test_walks_round_an_obstacle(middleware, domain, tmp_path):
    """Every judged frame is the controller's; it turns out of the way, passes without a contact and stands at the end.

    The straight line from the start would run into the cone: see the blind walk.
    """
    frames, ros2, obstacle = walked(middleware, domain, tmp_path, frames=110)
    assert {(frame["command"]["source"], frame["command"]["reason"]) for frame in frames} == {("ros2", "external")}
    assert ros2["commands"]["accepted"] > 60
    assert ros2["commands"]["refused"] == ros2["commands"]["timeouts"] == 0
    assert ros2["command_latency_ms"]["n"] > 60
    poses = [frame["pose"] for frame in frames]
    assert abs(poses[0][1] - obstacle[1]) < BODY, "the obstacle is not in the way"
    beside = min(poses, key=lambda pose: abs(pose[0] - obstacle[0]))
    assert beside[1] - poses[0][1] > 0.15, "it did not turn out of the way"
    assert min(math.dist(pose[:2], obstacle) for pose in poses) > BODY
    assert not any(frame["contacts"] for frame in frames)
    assert poses[-1][0] > obstacle[0] + GOAL
    assert frames[-1]["distance"] > poses[-1][0] - poses[0][0] > 2.5
    standing = [frame for frame in frames if frame["tick"] > frames[-1]["tick"] - STANDING]
    assert all(frame["command"]["linear"] == [0, 0] and frame["command"]["yaw_rate"] == 0 for frame in standing)
    assert math.dist(standing[0]["pose"][:2], standing[-1]["pose"][:2]) < 0.01


@pytest.mark.slow
def test_blind_walk_hits_it(middleware, domain, tmp_path):
    """The same controller without its eyes runs into the cone: what the other test finds is the controller's doing."""
    frames, _, obstacle = walked(middleware, domain, tmp_path, "blind", frames=110)
    contacts = [contact for frame in frames for contact in frame["contacts"]]
    assert contacts
    touched = next(frame["pose"] for frame in frames if frame["contacts"])
    assert math.dist(touched[:2], obstacle) < 1.0


def walked(
    middleware: str, domain: int, folder: Path, *how: str, frames: int
) -> tuple[list[dict[str, Any]], dict[str, Any], list[float]]:
    """Runs the corridor under the controller; returns its judged frames, what it says of ROS 2, and the obstacle."""
    pytest.importorskip("newton")
    if TRANSPORT != "dds":
        pytest.skip("the simulator is not in the peer's Python")
    from pxr import Usd

    stage = Usd.Stage.Open(str(ROOT / "scenes" / "corridor.usda"))
    obstacle = list(stage.GetDefaultPrim().GetCustomDataByKey("saccade:obstructions"))[:2]
    script = Path(__file__).with_name("controller.py")
    goal = obstacle[0] + GOAL
    controller = subprocess.Popen(
        [str(FOLDER / "venv" / "bin" / "python"), str(script), "/ai/lidar/clearance", str(goal), *how],
        env=peer_environment(middleware, domain),
    )
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "saccade", "validate", "corridor", "--controller", "ros2"),
                *("--frames", str(frames), "--set", "run.warmup=0"),
                *("--out", str(folder), "--name", "external", "--json", "--device", "cpu"),
                *("--set", f"ros2.domain={domain}", "--set", "ros2.transport=dds", "--set", "ros2.command_timeout=20"),
                *("--set", "ros2.controller_wait=120"),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT / "exts" / "saccade")},
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
        assert controller.poll() is None, "the controller has ended"
    finally:
        controller.kill()
        controller.wait()
    assert done.returncode in (0, 1, 3), done.stderr
    lines = (folder / "external" / "frames.jsonl").read_text().splitlines()
    judged = [frame for frame in map(json.loads, lines) if frame["kind"] == "frame" and frame["phase"] == "judged"]
    assert len(judged) == 2 * frames
    return judged, json.loads((folder / "external" / "run.json").read_text())["ros2"], obstacle
