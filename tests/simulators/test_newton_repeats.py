"""The same run twice, in processes of their own: identical bit for bit. And no array is made in the steady loop."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from robots import run_config

from saccade.frame import Command

RUN = """
import hashlib, json, sys
sys.path.insert(0, {here!r})
from robots import run_config
from saccade.frame import Command
from saccade.simulators.newton import NewtonSimulator

config = run_config({scene!r})
config.sensors["eye"].noise.shot = 2.0
config.sensors["lidar"].noise.range_std = 0.02
config.run.seed = {seed}
simulator = NewtonSimulator(config)
simulator.open({scene!r})
digests = {{}}
def add(name, data):
    digests.setdefault(name, hashlib.sha256()).update(data)
for step in range(26):
    for frame in simulator.sense():
        for name, array in frame.buffers.items():
            add(frame.sensor + "." + name, array.numpy().tobytes())
        truth = simulator.ground_truth(frame)
        add("truth", repr((truth.hazard, truth.clearance)).encode() + truth.labels.numpy().tobytes())
    state = simulator.step(Command(linear_x=0.6, yaw_rate=0.3, tick=step) if step == 2 else None)
    add("pose", repr((state.position, state.yaw, state.distance)).encode())
    add("bodies", simulator._walk.state.body_q.numpy().tobytes())
print(json.dumps({{name: digest.hexdigest() for name, digest in digests.items()}}))
"""


def _digests(scene: Path, seed: int) -> dict[str, str]:
    code = RUN.format(here=str(Path(__file__).parent), scene=str(scene), seed=seed)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_two_processes_agree_bit_for_bit(walker_file: Path) -> None:
    first, second = _digests(walker_file, 3), _digests(walker_file, 3)
    assert first == second
    assert set(first) >= {"eye.depth", "eye.labels", "eye.color", "lidar.ranges", "truth", "pose", "bodies"}
    other = _digests(walker_file, 4)
    assert other["eye.color"] != first["eye.color"]  # the seed reaches the noise
    assert other["eye.depth"] == first["eye.depth"]  # and nothing else
    assert other["pose"] == first["pose"]


def test_the_steady_loop_makes_no_warp_array(walker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import warp as wp

    made: list[str] = []
    original = wp.array.__init__

    def counted(self: Any, *arguments: Any, **options: Any) -> None:
        # Who asked for it: the nearest caller that is not Warp itself.
        for entry in reversed(traceback.extract_stack()[:-1]):
            if "/warp/" not in entry.filename:
                made.append(f"{entry.filename}:{entry.lineno}")
                break
        original(self, *arguments, **options)

    walker.step(Command(linear_x=0.5, tick=1))
    for _ in range(6):
        for frame in walker.sense():
            walker.ground_truth(frame)
        walker.step(None)
    monkeypatch.setattr(wp.array, "__init__", counted)
    for _ in range(12):
        for frame in walker.sense():
            walker.ground_truth(frame)
        walker.step(None)
    monkeypatch.undo()
    assert made, "the count sees what MuJoCo's adapter in Newton makes"
    ours = [place for place in made if "/saccade/" in place]
    assert ours == []


def test_frames_and_buffers_are_pooled(walker: Any) -> None:
    first = {f.sensor: (id(f), {n: a.ptr for n, a in f.buffers.items()}) for f in walker.sense_now()}
    walker.step(Command(linear_x=0.5))
    second = {f.sensor: (id(f), {n: a.ptr for n, a in f.buffers.items()}) for f in walker.sense_now()}
    assert first == second


def test_run_config_is_what_the_tests_say() -> None:
    config = run_config("x")
    assert {name: sensor.rate for name, sensor in config.sensors.items()} == {"eye": 10, "lidar": 10}
