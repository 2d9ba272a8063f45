"""The embedded simulator: walking, commands, sensing on time, truth, contacts, foreign humanoids."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robots import HIP, Scene, add_camera, add_joint, add_walker, run_config, walker_scene

from saccade.errors import ConfigurationError, SceneError
from saccade.frame import BACKGROUND, FLOOR, OBSTACLE, PERSON, ROBOT, STRUCTURE, Command
from saccade.simulators.base import Simulator
from saccade.simulators.newton import NewtonSimulator


def test_is_a_simulator(walker: Any) -> None:
    assert isinstance(walker, Simulator)
    assert walker.name == "newton"
    assert walker.device == "cpu"


def test_first_state_stands_on_the_floor(walker: Any) -> None:
    feet = _feet(walker)
    for foot in feet:
        assert foot[2] == pytest.approx(0.08, abs=2e-3)  # the ankle above the sole
    assert walker.state.position[2] == pytest.approx(HIP + 0.04, abs=0.03)


def test_walks_as_commanded(walker: Any) -> None:
    start = walker.state.distance
    walker.step(Command(linear_x=0.6, tick=1))
    for _ in range(99):
        walker.step(None)
    state = walker.state
    # 0.6 m/s after 0.4 s of acceleration at 1.5 m/s^2
    assert state.velocity == pytest.approx((0.6, 0.0))
    assert state.position[0] == pytest.approx(0.6 * 2.0 - 0.5 * 0.6 * 0.4, abs=0.02)
    assert state.position[1] == pytest.approx(0.0, abs=1e-6)
    assert state.distance - start == pytest.approx(state.position[0], abs=1e-6)


def test_standing_feet_do_not_skate(walker: Any) -> None:
    walker.step(Command(linear_x=0.6, yaw_rate=0.2, tick=1))
    stood: dict[int, list[np.ndarray]] = {0: [], 1: []}
    slips, lifts = [], []
    for _ in range(200):
        walker.step(None)
        feet = _feet(walker)
        for side in (0, 1):
            *_, swinging = walker._walk._gait.foot(side)
            if swinging:
                lifts.append(feet[side][2])
                if len(stood[side]) > 3:
                    track = np.array(stood[side][2:])
                    slips.append(np.linalg.norm(track[:, :2] - track[0, :2], axis=1).max())
                stood[side].clear()
            else:
                stood[side].append(feet[side])
    assert len(slips) >= 4
    assert max(slips) < 0.02  # while the base moved about 0.4 m over each
    assert max(lifts) > 0.08 + 0.05


def test_stops_and_stands(walker: Any) -> None:
    walker.step(Command(linear_x=0.6, tick=1))
    for _ in range(60):
        walker.step(None)
    walker.step(Command(tick=2))
    for _ in range(150):
        walker.step(None)
    assert walker.state.velocity == (0.0, 0.0)
    assert walker._walk._gait.standing
    left, right = _feet(walker)
    assert left[0] == pytest.approx(walker.state.position[0], abs=0.03)
    assert right[0] == pytest.approx(walker.state.position[0], abs=0.03)


def test_turns_in_place_with_steps(walker: Any) -> None:
    walker.step(Command(yaw_rate=1.0, tick=1))
    lifted = 0
    for _ in range(75):
        walker.step(None)
        lifted += walker._walk._gait.foot(0)[3]
    assert walker.state.yaw == pytest.approx(1.5 - 0.5 * 1.0 * 0.25, abs=0.05)
    assert math.hypot(*walker.state.position[:2]) < 1e-6
    assert lifted > 5


def test_commands_are_clamped_and_limited(walker: Any) -> None:
    walker.step(Command(linear_x=30.0, linear_y=40.0, yaw_rate=-50.0, tick=1))
    limit = walker._config.simulator.humanoid
    assert math.hypot(*walker.state.velocity) <= limit.max_acceleration * 0.02 + 1e-9
    for _ in range(100):
        walker.step(None)
    assert walker.state.velocity == pytest.approx((0.6 * limit.max_speed, 0.8 * limit.max_speed))
    assert walker.state.yaw_rate == pytest.approx(-limit.max_yaw_rate)


@pytest.mark.parametrize("name", ["linear_x", "linear_y", "yaw_rate", "apply_at"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_commands_are_refused(walker: Any, name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=name):
        walker.step(Command(**{name: value}))


def test_a_delayed_command_takes_effect_within_a_substep_of_its_time(walker: Any) -> None:
    now = walker._step * 0.02
    due = now + 0.053
    walker.step(Command(linear_x=0.5, tick=7, apply_at=due))
    applied: list[tuple[int, int, float]] = []
    before = 0
    while not applied:
        before = walker.state.velocity[0]
        walker.step(None)
        applied += list(walker.state.applied)
        assert walker._step * 0.02 < due + 0.1
    assert before == 0.0
    tick, stamp, sim_time = applied[0]
    assert (tick, stamp > 0) == (7, True)
    assert due - 1e-9 <= sim_time <= due + 0.005 + 1e-9


def test_waiting_commands_are_bounded_and_applied_in_order(walker: Any) -> None:
    now = walker._step * 0.02
    for tick in range(400):
        walker._walk.base.accept(Command(linear_x=0.001 * tick, tick=tick, apply_at=now + 10.0))
    assert len(walker._walk.base._pending) <= 256
    walker._walk.base.accept(Command(tick=1000, apply_at=now + 5.0))
    times = [command.apply_at for command in walker._walk.base._pending]
    assert times == sorted(times)


def test_joint_targets_override_the_gait_and_end_with_the_next_command(walker: Any) -> None:
    coordinate, _ = walker._scene.humanoid.joints["/Robot/joints/trunk"]
    walker.step(Command(joint_targets={"trunk": 0.5}, tick=1))
    for _ in range(50):
        walker.step(None)
    assert walker._walk._coordinates.q[coordinate] == pytest.approx(0.5, abs=0.05)
    walker.step(Command(tick=2))
    for _ in range(50):
        walker.step(None)
    assert walker._walk._coordinates.q[coordinate] == pytest.approx(0.0, abs=0.05)
    with pytest.raises(ConfigurationError, match=r"left_knee"):
        walker.step(Command(joint_targets={"left_nee": 0.1}))
    with pytest.raises(ConfigurationError, match=r"nan"):
        walker.step(Command(joint_targets={"left_knee": math.nan}))


def test_sensors_sample_on_time(walker_file: Path) -> None:
    config = run_config(walker_file, step=0.02, substeps=1)
    config.sensors["lidar"].rate = 12.5
    simulator = NewtonSimulator(config)
    simulator.open(walker_file)
    got: dict[str, list[tuple[int, float, int]]] = {"eye": [], "lidar": []}
    for _ in range(101):
        for frame in simulator.sense():
            got[frame.sensor].append((frame.sequence, frame.sim_time, frame.dropped))
            assert 0 < frame.stamps.sim_state <= frame.stamps.sensed
            assert frame.stamps.decided == 0
        assert simulator.sense() == []
        simulator.step(None)
    assert [sequence for sequence, _, _ in got["eye"]] == list(range(21))
    assert [time for _, time, _ in got["eye"]] == pytest.approx([0.1 * k for k in range(21)])
    assert [time for _, time, _ in got["lidar"]] == pytest.approx([0.08 * k for k in range(26)])
    assert not any(dropped for samples in got.values() for *_, dropped in samples)
    # Samples that nobody asked for in time are counted, not delivered late.
    simulator.advance_dropping(simulator.state.sim_time + 0.35)
    frames = {frame.sensor: frame for frame in simulator.sense()}
    assert frames["eye"].dropped == frames["eye"].sequence - 21
    assert frames["eye"].dropped >= 2
    simulator.close()
    simulator.close()


def test_truth_sees_the_wall_and_only_the_corridor(walker: Any) -> None:
    frames = {f.sensor: f for f in _sensed_at(walker, 0.0, 0.0, 0.0)}
    truth = walker.ground_truth(frames["lidar"])
    assert truth.hazard is False
    assert truth.labels is not None and truth.labels.shape == frames["lidar"].buffers["labels"].shape
    assert truth.clearance is not None
    assert truth.clearance[0] == pytest.approx(5.9, abs=0.02)  # the wall's near face
    assert truth.clearance[8] == pytest.approx(30.0)  # nothing behind
    # 2.86 m to the crate's corner at (1.7, 1.7) lies in sector 2 (45 degrees)
    assert truth.clearance[2] == pytest.approx(math.hypot(1.7, 1.7), abs=0.08)
    # 1.4 m before the wall it is in the corridor, turned away it is not
    near = _sensed_at(walker, 4.6, 0.0, 0.0)
    assert walker.ground_truth(near[0]).hazard is True
    away = _sensed_at(walker, 4.6, 0.0, math.pi / 2)
    assert walker.ground_truth(away[0]).hazard is False
    clearance = walker.ground_truth(away[1]).clearance
    assert clearance is not None and clearance[12] == pytest.approx(1.3, abs=0.02)  # the wall is to its right
    # the crate's near face begins 1.7 m ahead of a base at its side, half a width beside the corridor
    assert walker.ground_truth(_sensed_at(walker, 0.3, 1.95, 0.0)[0]).hazard is True
    assert walker.ground_truth(_sensed_at(walker, 0.3, 1.25, 0.0)[0]).hazard is False


def test_hazard_follows_the_commanded_direction(walker: Any) -> None:
    walker.place(5.0, 0.0, math.pi / 2)
    walker.step(Command(linear_y=-0.5, tick=1))  # sideways, towards the wall on its right
    assert walker.ground_truth(walker.sense_now()[0]).hazard is True
    walker.place(5.0, 0.0, math.pi / 2)
    walker.step(Command(linear_x=0.5, tick=2))
    assert walker.ground_truth(walker.sense_now()[0]).hazard is False


def test_truth_is_that_of_the_sensed_state(walker: Any) -> None:
    frames = _sensed_at(walker, 4.6, 0.0, 0.0)
    walker.place(0.0, 0.0, 0.0)
    assert walker.ground_truth(frames[0]).hazard is True


def test_people_move_in_sight_and_in_physics(walker: Any) -> None:
    seen = []
    for time in (0.0, 1.0, 2.0, 6.0, 10.0):
        walker.place(0.0, 0.0, 0.0, time=time)
        frame = next(f for f in walker.sense_now() if f.kind == "lidar")
        points = frame.buffers["points"].numpy()[frame.buffers["labels"].numpy() == PERSON]
        seen.append(float(np.mean(points[:, 1])) if len(points) else math.nan)
    # -3 m .. 3 m within 4 s and back, every 8 s
    assert seen == pytest.approx([-3.0, -1.5, 0.0, 0.0, 0.0], abs=0.25)


def test_contacts_are_reported_once_by_thing(walker: Any) -> None:
    start = walker._step * 0.02
    walker.place(4.9, 5.0, 0.0, time=start)
    onsets = []
    walker.step(Command(linear_x=0.8, tick=1))
    for _ in range(60):
        onsets += walker.step(None).contacts
    assert [contact.other for contact in onsets] == ["/World/wall"]
    assert onsets[0].body.startswith("/Robot/")
    assert start < onsets[0].sim_time <= start + 1.3


def test_a_person_who_walks_into_the_robot_is_a_contact(walker: Any) -> None:
    # The visitor crosses x = 3 at y = 0 at 2 s of each 8 s.
    phase = math.fmod(walker._step * 0.02, 8.0)
    y = -3.0 + 1.5 * phase if phase < 4 else 3.0 - 1.5 * (phase - 4)
    ahead = 0.8 if phase < 3.4 or phase > 7.4 else -0.8
    walker.place(3.0, min(max(y + ahead, -2.9), 2.9), 0.0, time=walker._step * 0.02)
    onsets = []
    for _ in range(150):
        onsets += walker.step(None).contacts
    assert {contact.other for contact in onsets} == {"/World/visitor"}


def test_labels_and_facts(walker: Any) -> None:
    scene = walker._scene
    by_path = dict(zip(scene.model.shape_label, scene.classes.tolist(), strict=True))
    assert by_path["/World/ground"] == FLOOR
    assert by_path["/World/wall"] == STRUCTURE
    assert by_path["/World/crate"] == OBSTACLE
    assert by_path["/World/visitor/shape"] == PERSON
    assert by_path["/Robot/left_knee/shape"] == ROBOT
    facts = walker.facts()
    assert len(facts["scene_sha256"]) == 64
    assert facts["humanoid"] == {
        "prim": "/Robot", "joints": 13, "mass_kg": 60.0, "gait": True, "no_gait_reason": "",
    }  # fmt: skip
    assert set(facts["startup_s"]) >= {"import", "scene", "solver", "sensors", "kernels"}
    assert facts["sensors"]["eye"]["intrinsics"]["fx"] == pytest.approx(12.0 / 20.955 * 48)
    assert walker.route == [(0.0, 0.0), (4.0, 0.0), (4.0, 4.0)]
    plan = walker.floor_plan()
    wall = next(entry for entry in plan if entry["label"] == "wall")
    assert sorted(map(tuple, wall["polygon"])) == [(5.9, -15.0), (5.9, 15.0), (6.1, -15.0), (6.1, 15.0)]
    assert {entry["kind"] for entry in plan} == {"floor", "static", "mover"}
    import json

    json.dumps(facts)


@pytest.mark.parametrize(("unit", "up"), [(0.01, "Y"), (0.01, "Z"), (1.0, "Y")])
def test_units_and_up_axis_change_nothing(tmp_path: Path, walker: Any, unit: float, up: str) -> None:
    path = walker_scene(tmp_path / "other.usda", meters_per_unit=unit, up_axis=up)
    other = NewtonSimulator(run_config(path))
    other.open(path)
    assert np.allclose(other.route, walker.route)
    assert other._scene.humanoid.total_mass == pytest.approx(60.0)
    walker.place(0.0, 0.0, 0.0, time=1.0)
    for simulator in (walker, other):
        simulator.place(0.5, 0.2, 0.3, gait_phase=0.3, gait_speed=0.6, time=1.0)
    assert other.state.position == pytest.approx(walker.state.position, abs=1e-4)
    first, second = ({f.sensor: f for f in s.sense_now()} for s in (walker, other))
    for sensor, name in (("lidar", "ranges"), ("eye", "depth")):
        a, b = first[sensor].buffers[name].numpy(), second[sensor].buffers[name].numpy()
        # Edges may fall to the other side of a pixel; surfaces may not move.
        assert np.mean(np.abs(a - b) > 2e-3) < 0.02, (sensor, float(np.abs(a - b).max()))
    truths = [s.ground_truth(f["lidar"]) for s, f in ((walker, first), (other, second))]
    assert truths[1].clearance == pytest.approx(truths[0].clearance, abs=2e-2)
    # physics too: the same walk ends at the same place with the same feet
    walker.place(0.0, 0.0, 0.0)
    other.place(0.0, 0.0, 0.0)
    for simulator in (walker, other):
        simulator.step(Command(linear_x=0.6, tick=1))
        for _ in range(40):
            simulator.step(None)
    assert other.state.position == pytest.approx(walker.state.position, abs=1e-3)
    assert np.allclose(_feet(other), _feet(walker), atol=5e-3)
    other.close()


def test_a_robot_from_elsewhere_walks_with_a_gait_by_configuration(tmp_path: Path) -> None:
    from tests.scenes.foreign import foreign_scene

    scene = foreign_scene(tmp_path / "foreign.usda")
    config = run_config(scene, device="cpu", humanoid={"gait": {"joints": "unitree_g1"}})
    simulator = NewtonSimulator(config, device="cpu")
    simulator.open(scene)
    try:
        assert simulator.facts()["humanoid"]["gait"] is True
        gait = simulator._walk._gait
        for _ in range(40):
            simulator.step(Command(linear_x=0.5))
        knees = {
            leg.joints["knee"].sign: gait.targets[gait.joints.index(leg.joints["knee"])] for leg in gait.model.legs
        }
        assert knees[-1.0] < -0.05 and knees[1.0] > 0.05  # the left one's axis points the other way
    finally:
        simulator.close()


def test_a_humanoid_without_gait_glides(tmp_path: Path) -> None:
    """Other names, y up, centimetres, no roles: named by its root prim, among two articulations."""
    scene = Scene(tmp_path / "other.usda", meters_per_unit=0.01, up_axis="Y")
    scene.box("/World/ground", (30, 30, 0.2), (0, 0, -0.1), label="floor")
    scene.box("/World/post", (0.2, 0.2, 2), (2.0, 0, 1.0), label="pillar")
    for root, x in (("/World/Unit7", 0.0), ("/World/Unit8", -5.0)):
        _two_link_robot(scene, root, x)
    path = scene.save()
    config = run_config(path)
    config.sensors["eye"].prim = "Optic"
    config.sensors["lidar"].prim = "Spinner"
    with pytest.raises(SceneError, match=r"2 articulations.*/World/Unit7.*/World/Unit8"):
        NewtonSimulator(config).open(path)
    config.simulator.humanoid.prim = "/World/Unit7"
    simulator = NewtonSimulator(config)
    state = simulator.open(path)
    facts = simulator.facts()
    assert facts["humanoid"]["gait"] is False
    assert "hip_pitch" in facts["humanoid"]["no_gait_reason"]
    height = state.position[2]
    assert height == pytest.approx(0.5 + 0.005, abs=2e-3)  # its lowest point is 0.5 m below the root
    frames = simulator.sense()
    lidar = next(f for f in frames if f.kind == "lidar")
    assert simulator.ground_truth(lidar).clearance[0] == pytest.approx(1.5, abs=0.02)
    onsets = []
    simulator.step(Command(linear_x=0.8, tick=1))
    for _ in range(150):
        onsets += simulator.step(None).contacts
    assert simulator.state.position[0] == pytest.approx(0.8 * 3.02 - 0.5 * 0.8**2 / 1.5, abs=0.05)
    assert simulator.state.position[2] == pytest.approx(height)
    assert {contact.other for contact in onsets} == {"/World/post"}
    config.simulator.humanoid.gait.enabled = True
    with pytest.raises(SceneError, match=r"left_hip_pitch"):
        NewtonSimulator(config).open(path)
    simulator.close()


def test_a_scene_without_floor_labels_guesses_the_floor(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "plain.usda")
    scene.box("/World/slab", (30, 30, 0.2), (0, 0, -0.1))
    scene.box("/World/thing", (1, 1, 1), (3, 0, 0.5), label="gizmo")
    add_walker(scene)
    path = scene.save()
    simulator = NewtonSimulator(run_config(path))
    simulator.open(path)
    facts = simulator.facts()
    assert any("/World/slab" in text and "floor" in text for text in facts["warnings"])
    assert any("gizmo" in text for text in facts["warnings"])
    assert facts["unknown_labels"] == {"gizmo": ["/World/thing"]}
    assert facts["unlabelled"] == ["/World/slab"]
    assert any("no light" in text for text in facts["warnings"])
    labels = simulator.sense()[0].buffers["labels"].numpy()
    assert {FLOOR, OBSTACLE} <= set(np.unique(labels).tolist()) <= {FLOOR, OBSTACLE, BACKGROUND, ROBOT}
    simulator.close()


def _two_link_robot(scene: Scene, root: str, x: float) -> None:
    from pxr import UsdGeom, UsdPhysics

    UsdGeom.Xform.Define(scene.stage, root)
    chassis = UsdGeom.Xform.Define(scene.stage, f"{root}/Chassis")
    chassis.AddTranslateOp().Set(scene.vector(x, 0, 0.6))
    arm = UsdGeom.Xform.Define(scene.stage, f"{root}/Arm")
    arm.AddTranslateOp().Set(scene.vector(x, 0, 1.1))
    for prim, mass in ((chassis, 30.0), (arm, 5.0)):
        UsdPhysics.RigidBodyAPI.Apply(prim.GetPrim())
        UsdPhysics.MassAPI.Apply(prim.GetPrim()).CreateMassAttr(mass)
    UsdPhysics.ArticulationRootAPI.Apply(chassis.GetPrim())
    scene.box(f"{root}/Chassis/hull", (0.5, 0.5, 1.0), (0, 0, 0))
    scene.box(f"{root}/Arm/tube", (0.1, 0.1, 0.4), (0, 0, 0.2))
    add_joint(scene, f"{root}/Pivot", f"{root}/Chassis", (x, 0, 0.6), f"{root}/Arm", (x, 0, 1.1), "Z", 200.0)
    add_camera(scene, f"{root}/Chassis/Optic", (0.3, 0.0, 0.4), pitch=10.0)
    mount = UsdGeom.Xform.Define(scene.stage, f"{root}/Chassis/Spinner")
    mount.AddTranslateOp().Set(scene.vector(0.4, 0.0, 0.55))


def _feet(simulator: Any) -> list[np.ndarray]:
    poses = simulator._walk.state.body_q.numpy()
    bodies = simulator._scene.bodies
    return [poses[bodies[f"/Robot/{side}_ankle_roll"]][:3].copy() for side in ("left", "right")]


def _sensed_at(simulator: Any, x: float, y: float, yaw: float) -> list[Any]:
    simulator.place(x, y, yaw, time=0.0)
    return list(simulator.sense_now())
