"""What the embedded simulator says of the robot, and its way back to the start in mid-run."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robots import Scene, add_walker, run_config

from saccade.frame import Command
from saccade.scenes.mounts import multiply, rotate
from saccade.simulators.base import Resettable
from saccade.simulators.newton import NewtonSimulator
from saccade.simulators.newton_reading import base_pose


def test_joints_are_those_of_the_physics(walker: Any) -> None:
    """Names come with the coordinates that the solver has, and velocities are their derivatives."""
    walker.step(Command(linear_x=0.6, tick=1))
    for _ in range(60):
        walker.step(None)
    walker.report_robot()
    state = walker.state
    humanoid = walker._scene.humanoid
    q = walker._walk.state.joint_q.numpy()
    assert len(state.joint_names) == len(humanoid.joints) >= 12
    for name, position in zip(state.joint_names, state.joint_positions, strict=True):
        assert position == q[humanoid.joints[humanoid.joint_names[name]][0]]
    assert np.abs(state.joint_velocities).max() > 0.1
    before = state.joint_positions.copy()
    walker.step(None)
    walker.report_robot()
    moved = (state.joint_positions - before) / 0.02
    np.testing.assert_allclose(moved, state.joint_velocities, atol=0.25 * np.abs(state.joint_velocities).max())


def test_joints_can_be_commanded_by_these_names(walker: Any) -> None:
    """What is reported is what commands name, by name or path."""
    walker.report_robot()
    assert walker.joint_names >= set(walker.state.joint_names)
    name = walker.state.joint_names[0]
    walker.step(Command(joint_targets={name: 0.1}, tick=2))
    assert walker._walk.base.joint_targets


def test_nothing_is_read_unasked(walker: Any) -> None:
    """A step does not fill joints: they stay what they were when somebody last asked."""
    walker.report_robot()
    before = walker.state.joint_positions.copy()
    walker.step(Command(linear_x=0.6, tick=3))
    for _ in range(20):
        walker.step(None)
    assert np.array_equal(walker.state.joint_positions, before)
    walker.report_robot()
    assert not np.array_equal(walker.state.joint_positions, before)


def test_reading_keeps_its_memory(walker: Any) -> None:
    """Asked a thousand times, the arrays are the same ones and no memory is kept."""
    walker.report_robot()
    arrays = (walker.state.joint_positions, walker.state.joint_velocities)
    for _ in range(50):
        walker.report_robot()
    tracemalloc.start()
    for _ in range(50):
        walker.report_robot()
    start = tracemalloc.get_traced_memory()[0]
    for _ in range(1000):
        walker.report_robot()
    grown = tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    assert walker.state.joint_positions is arrays[0] and walker.state.joint_velocities is arrays[1]
    assert grown < 4096


def test_sensor_poses_put_what_is_seen_where_it_is(walker: Any) -> None:
    """LiDAR points and depth, by way of sensor and base into the world: the floor is at 0, the wall at 5.9 m."""
    walker.step(Command(linear_x=0.5, yaw_rate=0.3, tick=4))
    for _ in range(40):
        walker.step(None)
    walker.report_robot()
    state = walker.state
    frames = {frame.sensor: frame for frame in walker.sense_now()}
    rides, pose = state.sensor_poses["lidar"]
    assert rides
    lidar = multiply(base_pose(state), pose)
    points = frames["lidar"].buffers["points"].numpy().reshape(-1, 3)
    labels = frames["lidar"].buffers["labels"].numpy().ravel()
    seen = np.any(points != 0, axis=1)
    world = np.array([rotate(lidar[3:], tuple(map(float, point))) for point in points]) + lidar[:3]
    floor = seen & (labels == 0)
    assert floor.sum() > 50
    assert np.abs(world[floor, 2]).max() < 0.01
    wall = seen & (world[:, 2] > 1.0) & (np.abs(world[:, 0] - 5.9) < 0.5)
    assert wall.sum() > 5
    assert np.abs(world[wall, 0] - 5.9).max() < 0.01

    # The optical frame (z forward, x right, y down) is the camera's turned as the bridge's /tf_static says.
    camera = multiply(multiply(base_pose(state), state.sensor_poses["eye"][1]), (0, 0, 0, -0.5, 0.5, -0.5, 0.5))
    depth = frames["eye"].buffers["depth"].numpy()
    k = walker.facts()["sensors"]["eye"]["intrinsics"]
    ground = frames["eye"].buffers["labels"].numpy() == 0
    v, u = np.nonzero((depth > 0) & ground)
    z = depth[v, u]
    rays = np.stack([(u + 0.5 - k["cx"]) / k["fx"] * z, (v + 0.5 - k["cy"]) / k["fy"] * z, z], axis=1)
    heights = [rotate(camera[3:], tuple(map(float, ray)))[2] + camera[2] for ray in rays]
    assert len(heights) > 100
    assert np.abs(heights).max() < 0.02


@pytest.fixture(scope="module")
def visited(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The biped, and somebody who walks past."""
    scene = Scene(tmp_path_factory.mktemp("visited") / "scene.usda")
    scene.box("/World/floor", (30, 30, 0.1), (0, 0, -0.05), label="floor")
    scene.mover("/World/visitor", (0.4, 0.4, 1.7), [(0.0, (3.0, -3.0, 0.85)), (4.0, (3.0, 3.0, 0.85))])
    add_walker(scene)
    path: Path = scene.save()
    simulator = NewtonSimulator(run_config(path))
    simulator.open(path)
    yield simulator
    simulator.close()


def _walked(simulator: Any) -> list[Any]:
    """Poses of everything over some steps of a commanded walk."""
    simulator.step(Command(linear_x=0.7, yaw_rate=0.4, tick=1))
    found = []
    for _ in range(40):
        simulator.step(None)
        found.append(simulator._walk.poses.numpy().copy())
    return found


def test_reset_is_the_start_once_more(visited: Any) -> None:
    """After a reset humanoid and visitor do what they did from the start; only the clock has run on."""
    first = _walked(visited)
    time, step, distance = visited.state.sim_time, visited.state.step, visited.state.distance
    visited.step(Command(linear_x=1.0, tick=2, apply_at=time + 10))  # still waiting, and to be forgotten
    state = visited.reset()
    assert isinstance(visited, Resettable)
    assert (state.sim_time, state.step) == (pytest.approx(time + 0.02), step + 1)
    assert state.position[:2] == pytest.approx((0.0, 0.0))
    assert (state.yaw, state.velocity, state.applied) == (0.0, (0.0, 0.0), [])
    second = _walked(visited)
    assert np.abs(np.array(first) - np.array(second)).max() < 2e-3
    assert visited.state.sim_time == pytest.approx(time + 0.02 + time)
    assert visited.state.distance > distance  # what was walked stays walked


def test_frames_run_on_over_a_reset(visited: Any) -> None:
    """No sample comes twice, goes back in time or is missing: sequence and time of a sensor only rise."""
    seen: list[tuple[int, float, int]] = []
    for number in range(60):
        if number == 23:
            visited.reset()
        seen += [(f.sequence, f.sim_time, f.dropped) for f in visited.sense() if f.sensor == "eye"]
        visited.step(None)
    sequences = [sequence for sequence, _, _ in seen[1:]]
    times = [time for _, time, _ in seen[1:]]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    assert np.diff(times) == pytest.approx(0.1)
    assert not any(dropped for _, _, dropped in seen[1:])


@pytest.mark.gpu
@pytest.mark.parametrize("substeps", [3, 4])
def test_on_cuda(walker: Any, walker_file: Path, substeps: int) -> None:
    """On CUDA joints and sensor poses are those of the CPU at the start, count as a copy, and move with the walk."""
    from saccade.telemetry.taps import Tap

    walker.report_robot()
    expected = walker.state
    simulator = NewtonSimulator(run_config(walker_file, substeps=substeps), device="cuda")
    try:
        simulator.open(walker_file)
        tap = Tap()

        def copy(target: Any, source: Any) -> None:
            copies = tap.copies()
            copies.copy(target, source)
            copies.launched()

        simulator.report_robot(copy)
        state = simulator.state
        assert state.joint_names == expected.joint_names
        np.testing.assert_allclose(state.joint_positions, expected.joint_positions, atol=1e-4)
        for name, (rides, pose) in expected.sensor_poses.items():
            assert state.sensor_poses[name][0] == rides
            assert state.sensor_poses[name][1] == pytest.approx(pose, abs=1e-3)
        assert tap.count == 3 and tap.bytes > 0
        first = state.joint_positions.copy()
        simulator.step(Command(linear_x=0.6, tick=1))
        for _ in range(30):
            simulator.step(None)
        simulator.report_robot()
        assert np.abs(simulator.state.joint_positions - first).max() > 0.05
    finally:
        simulator.close()


@pytest.mark.gpu
def test_reset_on_cuda(visited: Any) -> None:
    """Steps that are replayed as a graph start again, too: the walk after a reset is the walk before it."""
    simulator = NewtonSimulator(visited._config, device="cuda")
    try:
        simulator.open(visited._config.scene)
        first = _walked(simulator)
        assert simulator._walk.mode == "graph"
        simulator.reset()
        second = _walked(simulator)
        # The solver adds contact forces up in no fixed order there: the second walk is off by up to 1 cm after 0.8 s.
        assert np.abs(np.array(first) - np.array(second)).max() < 3e-2
    finally:
        simulator.close()
