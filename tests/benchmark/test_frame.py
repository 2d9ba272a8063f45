"""The whole frame: the bench scene, and graphs that must sense what an eager frame senses."""

import contextlib
import functools
from types import SimpleNamespace

import numpy as np
import pytest
import warp as wp
from tests.benchmark.sessions import CpuAsGpu, session_for

from saccade import paths
from saccade.benchmark import frame as group
from saccade.benchmark.measure import InvalidMeasurement
from saccade.frame import Frame, Stamps


def test_the_bench_is_the_shipped_scene_with_a_post(tmp_path):
    """24 shapes and the one without which no scene opens: within the 20 to 25 that the goal is about."""
    pytest.importorskip("newton")
    from saccade.simulators.newton import NewtonSimulator

    path = group.bench_with_carrier(tmp_path)
    assert str(paths.resolve("bench.usda", "scene")) in path.read_text()
    scene = group.Scene(path, "camera", "frame_over_floor")
    config = group.frame_config(scene)
    simulator = NewtonSimulator(config, device="cpu")
    try:
        simulator.open(path)
        assert simulator._scene.model.shape_count == 25
        frames = {frame.sensor: frame for frame in simulator.sense()}
        assert frames["camera"].buffers["color"].shape == (480, 640)
        assert frames["lidar"].buffers["ranges"].shape == (32, 1024)
        assert (frames["camera"].buffers["depth"].numpy() > 0).mean() > 0.8
        assert (frames["lidar"].buffers["ranges"].numpy() > 0).mean() > 0.5
    finally:
        simulator.close()


@pytest.mark.slow
def test_the_group_runs_from_the_scene_to_its_figures(tmp_path, monkeypatch):
    """Everything but the capture, on the CPU: sensing inside the execution, results compared, ratios made."""
    pytest.importorskip("newton")
    from saccade import stream_execution
    from saccade.simulators import newton

    monkeypatch.setattr(group, "graph_of", lambda stream, launch, *keeps: launch)
    monkeypatch.setattr(group, "check_whole", lambda name, facts: None)
    eager = functools.partial(stream_execution.StreamExecution)

    def without_capture(*arguments, **options):
        return eager(*arguments, **{**options, "capture": False})

    monkeypatch.setattr(stream_execution, "StreamExecution", without_capture)
    original = newton.NewtonSimulator.__init__

    def capturable(self, *arguments, **options):
        original(self, *arguments, **options)
        self.capturable = True

    monkeypatch.setattr(newton.NewtonSimulator, "__init__", capturable)
    session = session_for(CpuAsGpu, tensorrt="double")
    monkeypatch.setattr("saccade.benchmark.measure.LEAST_ROUNDS", 1)
    session.rounds = 1
    scene = group.Scene(group.bench_with_carrier(tmp_path), "camera", "frame_over_floor")
    with contextlib.ExitStack() as stack:
        times, facts = group._measured(session, "bench", scene, stack)
    assert {name: len(values) for name, values in times.items()} == {
        "bare_graph": 10,
        "frame": 10,
        "frame_stamps": 10,
        "frame_line": 10,
        "frame_eager": 10,
    }
    assert facts["relative_l2"] == pytest.approx(
        dict.fromkeys(("frame", "frame_stamps", "frame_line", "frame_eager"), 0), abs=1e-6
    )


class World:
    """A simulator and executions whose pictures are where the robot is."""

    def __init__(self, *, stale=False, blind=False, unmoved=False):
        self.state = SimpleNamespace(position=(1.0, 2.0, 0.9), yaw=0.5)
        self.stale, self.blind, self.unmoved = stale, blind, unmoved
        self.x = 1.0
        depth = wp.zeros((4, 4), dtype=wp.float32, device="cpu")
        ranges = wp.zeros((2, 8), dtype=wp.float32, device="cpu")
        self.frames = [
            Frame("camera", "camera", 0, 0.0, Stamps(), {"depth": depth}),
            Frame("lidar", "lidar", 0, 0.0, Stamps(), {"ranges": ranges}),
        ]

    def place(self, x, y, yaw):
        self.x = x

    def execution(self, stale=False):
        def infer(frames):
            if not self.blind:
                value = 1.0 if stale or self.unmoved else self.x
                for frame in frames:
                    for array in frame.buffers.values():
                        array.fill_(value)

        return SimpleNamespace(infer=infer)

    def check(self):
        group.check_senses("bench", self, self.execution(self.stale), self.execution(), self.frames)


def test_a_graph_that_follows_the_robot_is_measured():
    """The robot is back where it was afterwards."""
    world = World()
    world.check()
    assert world.x == 1.0
    assert np.all(world.frames[0].buffers["depth"].numpy() == 1.0)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("stale", "does not sense the state of the moment"),
        ("blind", "nothing was sensed"),
        ("unmoved", "sees the same after the robot was moved"),
    ],
)
def test_a_graph_that_senses_something_else_is_refused(fault, message):
    """Such a graph may well be faster."""
    with pytest.raises(InvalidMeasurement, match=message):
        World(**{fault: True}).check()


def test_a_frame_that_is_not_one_graph_is_refused():
    """A graph from the buffers on leaves the sensors out."""
    whole = {"mode": "graph", "scope": "frame", "reason": None}
    group.check_whole("bench", whole)
    with pytest.raises(InvalidMeasurement, match="scope buffers"):
        group.check_whole("bench", {**whole, "scope": "buffers"})
    with pytest.raises(InvalidMeasurement, match="it would not"):
        group.check_whole("bench", {**whole, "mode": "eager", "reason": "it would not"})
