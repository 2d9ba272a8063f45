"""An external controller in plain rclpy walks the humanoid of a real run, and the record says that it did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.interop.conftest import FOLDER, ROOT, TRANSPORT, peer_environment


def test_walks_the_corridor(middleware, domain, tmp_path):
    """The run waits for the controller, every judged frame is its, and the humanoid walks without a contact."""
    pytest.importorskip("newton")
    if TRANSPORT != "dds":
        pytest.skip("the simulator is not in the peer's Python")
    python = str(FOLDER / "venv" / "bin" / "python")
    script = str(Path(__file__).with_name("controller.py"))
    controller = subprocess.Popen([python, script, "/ai/lidar/clearance"], env=peer_environment(middleware, domain))
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "saccade", "validate", "corridor", "--controller", "ros2", "--frames", "40"),
                *("--out", str(tmp_path), "--name", "external", "--json", "--device", "cpu"),
                *("--set", f"ros2.domain={domain}", "--set", "ros2.transport=dds", "--set", "ros2.command_timeout=5"),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT / "exts" / "saccade")},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    finally:
        controller.kill()
        controller.wait()
    assert done.returncode in (0, 1, 3), done.stderr
    lines = (tmp_path / "external" / "frames.jsonl").read_text().splitlines()
    frames = [frame for frame in map(json.loads, lines) if frame["kind"] == "frame" and frame["phase"] == "judged"]
    assert len(frames) == 80
    assert {(frame["command"]["source"], frame["command"]["reason"]) for frame in frames} == {("ros2", "external")}
    facts = json.loads((tmp_path / "external" / "run.json").read_text())["ros2"]
    assert facts["commands"]["accepted"] > 20
    assert facts["commands"]["refused"] == facts["commands"]["timeouts"] == 0
    assert facts["command_latency_ms"]["n"] > 20
    assert frames[-1]["distance"] - frames[0]["distance"] > 0.3
    assert not any(frame["contacts"] for frame in frames)
