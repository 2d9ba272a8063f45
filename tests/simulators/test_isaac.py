"""The simulator in Isaac Sim's doubles: every version, every trap, and what breaks when one is moved."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("newton")
pytest.importorskip("pxr")

from tests.contracts.isaac.doubles import VERSIONS, Behaviour, install
from tests.simulators.isaac_room import isaac_folder, waiting

from saccade.configuration import load_configuration
from saccade.errors import ConfigurationError, DependencyError, SaccadeError, SceneError
from saccade.frame import BACKGROUND, FLOOR, OBSTACLE, ROBOT, Command

SIX = tuple(version for version in VERSIONS if version[0] == "6")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return isaac_folder(tmp_path_factory.mktemp("isaac"))


def made(folder, *overrides, **more):
    from saccade.simulators.isaac import IsaacSimulator

    loaded = load_configuration(folder / "run.yaml", overrides=overrides)
    return IsaacSimulator(loaded.config, device="cpu", **more), loaded.scene_path()


def opened(folder, *overrides):
    simulator, scene = made(folder, *overrides)
    simulator.open(scene)
    return simulator


def walked(simulator, steps, command=None):
    """Steps and returns every frame with the time of the state that it came after."""
    found = [(simulator.state.sim_time, frame.sensor, frame.sequence, frame.sim_time) for frame in simulator.sense()]
    for _ in range(steps):
        state = simulator.step(command)
        command = None
        found += [(state.sim_time, frame.sensor, frame.sequence, frame.sim_time) for frame in simulator.sense()]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_lockstep_gives_every_sensor_s_frame_of_every_state(folder, version):
    with install(version, waiting()) as double:
        simulator = opened(folder)
        frames = walked(simulator, 6)
        for sensor in ("eye", "lidar"):
            own = [frame for frame in frames if frame[1] == sensor]
            assert [frame[2] for frame in own] == list(range(7))
            assert all(frame[0] == pytest.approx(frame[3], abs=1e-6) for frame in own)
        facts = simulator.facts()
        assert facts["streams"]["eye"]["deliveries"]["missing"] == 0
        assert facts["stale_deliveries"] == 0 and facts["clock"]["jumps"] == 0
        assert facts["core_api"] == ("isaacsim.core.api" if version[0] == "5" else "isaacsim.core.experimental")
        simulator.close()
        simulator.close()
        world = double.world
        assert not world.products and not world.physics_callbacks and not world.contact_listeners
        assert not [line for line in world.log_lines if line[0] in ("warn", "error")]
        assert not world.playing
        assert list(world.writers) == (["SaccadeFrameWriter"] if version[0] == "5" else [])
        assert not [p for p in world.stage.Traverse() if p.GetName().startswith("saccade_")]


@pytest.mark.parametrize("version", ("5.0", "6.2"))
def test_a_second_run_in_the_same_application_starts_at_its_own_beginning(folder, version):
    """After a stop the physics' time starts again; what a frame shows has to be in the same time."""
    with install(version, waiting()):
        found = []
        for _ in range(2):
            simulator = opened(folder)
            found.append(walked(simulator, 3))
            assert simulator.facts()["streams"]["eye"]["deliveries"]["missing"] == 0
            simulator.close()
        assert [frame[1:3] for frame in found[0]] == [frame[1:3] for frame in found[1]]
        assert [frame[2] for frame in found[1] if frame[1] == "eye"] == [0, 1, 2, 3]
        assert all(frame[0] == pytest.approx(frame[3], abs=1e-6) for frame in found[1])


@pytest.mark.parametrize("version", ("5.0", "5.1", "6.2"))
def test_buffers_hold_what_the_renderer_shows(folder, version):
    with install(version, waiting()):
        simulator = opened(folder)
        frames = {frame.sensor: frame for frame in simulator.sense()}
        eye, lidar = frames["eye"].buffers, frames["lidar"].buffers
        assert eye["color"].shape == (304, 320) and eye["color"].dtype.__name__ == "uint32"
        depth, labels = eye["depth"].numpy(), eye["labels"].numpy()
        assert np.isfinite(depth).all() and (depth > 0).any() and len(np.unique(labels)) > 1
        assert (labels[depth == 0] == 5).all()
        ranges, points = lidar["ranges"].numpy(), lidar["points"].numpy()
        hit = ranges > 0
        assert hit.mean() > 0.3
        assert np.linalg.norm(points, axis=2)[hit] == pytest.approx(ranges[hit], abs=1e-3)
        azimuth = np.degrees(np.arctan2(points[..., 1], points[..., 0])) % 360
        away = (azimuth / 360 * 128 - np.arange(128) + 64) % 128 - 64
        assert np.abs(away[hit]).max() <= 0.5 + 1e-3
        truth = simulator.ground_truth(frames["lidar"])
        assert len(truth.clearance) == 16 and truth.hazard in (True, False)
        assert (truth.labels is not None) == (version != "5.0")
        returned = lidar["labels"].numpy()
        if version == "5.0":
            assert (returned == BACKGROUND).all()
            assert "5.0 hands out no map" in simulator.facts()["streams"]["lidar"]["no_labels_reason"]
        else:
            assert ROBOT not in returned  # own_body_mask
            assert (returned[~hit] == BACKGROUND).all() and {FLOOR, OBSTACLE} & set(returned[hit].tolist())
            assert "no_labels_reason" not in simulator.facts()["streams"]["lidar"]
        simulator.close()


def test_both_ways_to_the_labels_of_returns_agree(folder):
    """Looked up on the device by 128-bit id (5.1), and on the host (6.x): the same scene has the same labels."""
    found = {}
    for version in ("5.1", "6.2"):
        with install(version, waiting()):
            simulator = opened(folder)
            buffers = next(frame.buffers for frame in simulator.sense() if frame.sensor == "lidar")
            found[version] = buffers["ranges"].numpy().copy(), buffers["labels"].numpy().copy()
            simulator.close()
    (one, first), (other, second) = found.values()
    same = np.isclose(one, other, atol=2e-3)
    assert same.mean() > 0.95  # the two round a direction between two cells in their own way
    assert (first[same] == second[same]).mean() > 0.999 and len(np.unique(first)) > 2


@pytest.mark.parametrize("version", ("5.1", "6.1"))
def test_a_renderer_that_names_nothing_gives_no_labels_and_says_why(folder, version):
    with install(version, waiting(settings={"/rtx-transient/stableIds/enabled": False})):
        simulator = opened(folder)
        lidar = next(frame for frame in simulator.sense() if frame.sensor == "lidar")
        assert simulator.ground_truth(lidar).labels is None
        assert (lidar.buffers["labels"].numpy() == BACKGROUND).all()
        facts = simulator.facts()
        assert "--/rtx-transient/stableIds/enabled=true" in facts["streams"]["lidar"]["no_labels_reason"]
        assert any("accuracy is absent" in warning for warning in facts["warnings"])
        simulator.close()


@pytest.mark.parametrize("version", ("5.1", "6.2"))
def test_a_map_that_does_not_come_gives_no_labels(folder, monkeypatch, version):
    from tests.contracts.isaac import rtx

    empty = rtx._stable_id_map([])
    monkeypatch.setattr(rtx, "_stable_id_map", lambda paths: empty)
    with install(version, waiting()):
        simulator = opened(folder)
        lidar = next(frame for frame in simulator.sense() if frame.sensor == "lidar")
        assert simulator.ground_truth(lidar).labels is None
        assert "no map" in simulator.facts()["streams"]["lidar"]["no_labels_reason"]
        simulator.close()


@pytest.mark.parametrize("version", ("5.0", "6.0"))
def test_the_base_follows_the_command_and_the_joints_their_drives(folder, version):
    with install(version, waiting()) as double:
        simulator = opened(folder)
        start = simulator.state.position
        command = Command(linear_x=0.5, yaw_rate=0.3, joint_targets={"left_hip_roll": 0.2}, tick=7)
        applied = []
        for _ in range(8):
            applied += [(tick, time) for tick, _, time in simulator.step(command).applied]
            command = None
        state, physics = simulator.state, double.world.physics
        assert applied == [(7, pytest.approx(simulator.state.sim_time - 0.8))]
        assert state.position[0] > start[0] + 0.2 and state.distance == pytest.approx(
            np.hypot(state.position[0] - start[0], state.position[1] - start[1]), abs=0.02
        )
        # What physics has is what the state says.
        assert physics.root_pose()[:3] == pytest.approx(state.position, abs=1e-4)
        dof = physics.dof_names.index("left_hip_roll")
        assert physics.walk._coordinates.targets[physics._coordinates[dof]] == pytest.approx(0.2)
        knees = [physics.dof_names.index(name) for name in ("left_knee", "right_knee")]
        moved = [abs(float(physics.walk._coordinates.targets[physics._coordinates[knee]])) for knee in knees]
        assert max(moved) > 0.05
        simulator.close()


@pytest.mark.parametrize("version", ("5.1", "6.2"))
def test_a_robot_from_elsewhere_walks_with_a_gait_by_configuration(folder, tmp_path, version):
    from tests.scenes.foreign import foreign_scene

    scene = foreign_scene(tmp_path / "foreign.usda", ankle_pitch="ankle")
    chosen = (f"scene={scene}", "simulator.humanoid.gait.joints=unitree_h1")
    with install(version, waiting()) as double:
        simulator = opened(folder, *chosen)
        physics, command = double.world.physics, Command(linear_x=0.5)
        names, walk = physics.dof_names, physics.walk
        seen, order = {name: [] for name in names}, []
        for _ in range(12):
            simulator.step(command)
            command = None
            order.append([names[dof] for dof in simulator._walk.dofs])
            q = walk._coordinates.q
            for i, name in enumerate(names):
                seen[name].append((walk._coordinates.targets[physics._coordinates[i]], q[physics._coordinates[i]]))
        moved = {name for name, values in seen.items() if np.ptp([target for target, _ in values]) > 0.02}
        assert {"left_hip_pitch_joint", "left_knee_joint", "left_ankle_joint"} <= moved
        assert {"right_hip_pitch_joint", "right_knee_joint", "right_ankle_joint"} <= moved
        # One knee's axis points the other way: its target has the other sign.
        knees = [[target for target, _ in seen[f"{side}_knee_joint"][2:]] for side in ("left", "right")]
        assert max(knees[0]) < 0 < min(knees[1])
        # The drives bring the joints there, and what has no role stays where it was.
        for side in ("left", "right"):
            asked, got = (np.ptp(one) for one in zip(*seen[f"{side}_knee_joint"][2:], strict=True))
            assert got > 0.5 * asked
        assert all(abs(target) < 1e-6 and abs(angle) < 0.05 for target, angle in seen["left_ankle_roll_joint"])
        assert all("left_ankle_roll_joint" not in dofs and len(dofs) == 10 for dofs in order)
        assert simulator.facts()["humanoid"]["gait"] is True and not simulator.facts()["humanoid"]["no_gait_reason"]
        simulator.close()
    with install(version, waiting()) as double:
        simulator = opened(folder, chosen[0])
        simulator.step(Command(linear_x=0.5))
        assert not len(simulator._walk.dofs)  # it glides, and says what would give it a gait
        assert "gait.joints: unitree_h1" in simulator.facts()["humanoid"]["no_gait_reason"]
        simulator.close()


def test_joints_of_a_gait_without_a_drive_are_told(folder, tmp_path):
    from pxr import Usd
    from tests.scenes.foreign import foreign_scene

    scene = foreign_scene(tmp_path / "limp.usda")
    stage = Usd.Stage.Open(str(scene))
    stage.GetPrimAtPath("/Robot/joints/left_knee_joint").GetAttribute("drive:angular:physics:stiffness").Set(0.0)
    stage.Save()
    with install("6.0", waiting()):
        simulator = opened(folder, f"scene={scene}", "simulator.humanoid.gait.joints=unitree_g1")
        (warning,) = [text for text in simulator.facts()["warnings"] if "without an angular drive" in text]
        assert "/Robot/joints/left_knee_joint" in warning and "right" not in warning
        simulator.close()


def _touching(step, own, thing):
    onset = SimpleNamespace(body=own, other=thing)

    def touching(dt, time):
        step(dt, time)
        return [onset]

    return touching


@pytest.mark.parametrize("version", ("5.1", "6.1"))
def test_contacts_come_from_the_physics(folder, monkeypatch, version):
    with install(version, waiting()) as double:
        simulator = opened(folder)
        own, physics = simulator._scene.humanoid.bodies[0], double.world.physics
        monkeypatch.setattr(physics, "step", _touching(physics.step, own, "/World/wall"))
        contacts = simulator.step(None).contacts
        assert [(contact.body, contact.other) for contact in contacts] == [(own, "/World/wall")]
        assert not simulator.step(None).contacts  # the same contact goes on
        simulator.close()


def test_movers_keep_their_pace_whatever_time_an_update_simulates():
    from saccade.scenes.movers import movers_from_stage
    from saccade.scenes.stage import stage_from_file

    corridor = Path(__file__).parents[2] / "scenes" / "corridor.usda"
    stage = stage_from_file(corridor)
    with install("6.0", waiting()) as double:
        from saccade.simulators.isaac import IsaacSimulator

        config = load_configuration("isaac", overrides=["scene=corridor.usda"]).config
        simulator = IsaacSimulator(config, device="cpu")
        for _ in simulator.opening(corridor):
            double.world.update()
            if double.world.physics is not None:
                break
        assert double.world.stage.GetTimeCodesPerSecond() == pytest.approx(10)
        movers = {mover.path: mover for mover, _ in double.world.physics.movers}
        known = {mover.path: mover for mover in movers_from_stage(stage, movers)}
        one, other = [0.0] * 7, [0.0] * 7
        assert movers
        for path, mover in movers.items():
            for time in (0.0, 3.7, 11.0):
                mover.pose_into(time, one)
                known[path].pose_into(time, other)
                assert one == pytest.approx(other, abs=1e-3)
        simulator.close()


def test_repeats_and_late_deliveries_are_counted_and_no_frames(folder):
    with install("6.1", waiting(repeats=(14, 16), late=(18,))):
        simulator = opened(folder)
        frames = walked(simulator, 12)
        sequences = [frame[2] for frame in frames if frame[1] == "eye"]
        assert sequences == sorted(set(sequences))
        counters = simulator.facts()["streams"]["eye"]["deliveries"]
        assert counters["duplicates"] == 2
        assert counters["out_of_order"] + counters["missing"] >= 1
        assert simulator.stale == sum(
            simulator.facts()["streams"][name]["deliveries"]["duplicates"]
            + simulator.facts()["streams"][name]["deliveries"]["out_of_order"]
            for name in ("eye", "lidar")
        )
        simulator.close()


@pytest.mark.parametrize("version", ("5.0", "6.2"))
def test_without_waiting_frames_are_copied_into_a_bounded_queue(folder, version):
    with install(version, Behaviour()) as double:
        simulator = opened(folder, "simulator.pace=realtime")
        for _ in range(5):
            simulator.step(None)
        frames = {frame.sensor: frame for frame in simulator.sense()}
        queue = simulator.facts()["streams"]["eye"]["queue"]
        assert queue["produced"] == queue["consumed"] + sum(queue["dropped"].values()) + queue["in_flight"]
        assert sum(queue["dropped"].values()) >= 1 and frames["eye"].dropped >= 1
        before = frames["eye"].buffers["color"].numpy().copy()
        ring = [slot["rgba"].ptr for slot in double.world.products[0].ring if "rgba" in slot]
        assert frames["eye"].buffers["color"].ptr not in ring
        for _ in range(3):
            simulator.step(Command(yaw_rate=1.0))
        assert np.array_equal(frames["eye"].buffers["color"].numpy(), before)
        simulator.close()


def test_lockstep_needs_the_zero_delay_settings(folder):
    with install("6.0", Behaviour()):
        simulator, scene = made(folder)
        with pytest.raises(ConfigurationError, match="zero_delay"):
            simulator.open(scene)
    with install("6.0", waiting(settings={"/app/asyncRendering": True})):
        simulator, scene = made(folder)
        with pytest.raises(ConfigurationError, match="asyncRendering"):
            simulator.open(scene)


@pytest.mark.parametrize("path", ("/omni/replicator/asyncRendering", "/exts/isaacsim.core.throttling/enable_async"))
def test_lockstep_is_refused_where_rendering_would_not_wait_for_long(folder, path):
    """Also while the timeline plays, when the full application has turned asynchronous rendering off for a while."""
    with install("6.0", waiting(settings={path: True})) as double:
        simulator, scene = made(folder)
        double.world.open_stage(str(scene))
        double.world.pending = True
        double.world.update()
        assert not double.world.settings["/app/asyncRendering"]
        with pytest.raises(ConfigurationError, match=f"--{path}=false"):
            simulator.open(scene)
        made(folder, "simulator.pace=realtime")[0].open(scene)


def test_rendering_that_stops_waiting_when_it_plays_is_told_as_the_reason(folder, monkeypatch):
    from saccade.simulators import isaac

    monkeypatch.setattr(isaac, "MAX_SETTLING", 16)
    with install("6.0", waiting()) as double:
        world = double.world

        def begins(_event):
            if world.playing:
                world.settings["/app/asyncRendering"] = True

        world.observers.append(("update", 0, begins))
        simulator, scene = made(folder)
        with pytest.raises(ConfigurationError, match="--/app/asyncRendering=false"):
            simulator.open(scene)
        simulator.close()


def test_the_full_applications_throttle(folder):
    """Negative control of the two above: what the double does where that setting is on."""
    with install("6.0", waiting(settings={"/exts/isaacsim.core.throttling/enable_async": True})) as double:
        world, timeline = double.world, importlib.import_module("omni.timeline").get_timeline_interface()
        seen = [world.settings["/app/asyncRendering"]]
        timeline.play()
        timeline.commit()
        seen.append(world.settings["/app/asyncRendering"])
        timeline.pause()
        for _ in range(10):
            seen.append(world.settings["/app/asyncRendering"])
            world.update()
        assert seen == [True] + 11 * [False] and world.settings["/app/asyncRendering"]


def test_small_cameras_are_refused_where_the_upscaler_resizes_them(folder):
    for version, refused in (("5.1", True), ("6.0", True), ("6.1", False)):
        with install(version, waiting()):
            simulator, scene = made(folder, "sensors.eye.width=240")
            if refused:
                with pytest.raises(ConfigurationError, match="320 px"):
                    simulator.open(scene)
            else:
                simulator.open(scene)
                simulator.close()


def test_a_size_that_comes_all_the_same_is_refused_by_every_frame(folder):
    with install("6.0", waiting(wrong_size_below=400)):
        simulator, scene = made(folder)
        with pytest.raises(ConfigurationError, match="another size"):
            simulator.open(scene)


def test_a_missing_scene_and_wrong_units_are_told(folder, tmp_path):
    with install("5.0", waiting()):
        simulator, _ = made(folder)
        with pytest.raises(SceneError, match="there is no scene"):
            simulator.open(tmp_path / "nowhere.usda")
    from tests.simulators.robots import walker_scene

    scene = walker_scene(tmp_path / "centimetres.usda", meters_per_unit=0.01)
    with install("6.2", waiting()):
        simulator, _ = made(folder)
        with pytest.raises(SceneError, match=r"metersPerUnit is 0\.01"):
            simulator.open(scene)


def test_a_stalled_sensor_is_told_with_its_counts(folder):
    with install("6.0", waiting(empty_first_frames=10_000)):
        simulator, scene = made(folder)
        with pytest.raises(ConfigurationError, match=r"eye: .*'empty': \d+"):
            simulator.open(scene)
        simulator.close()


def test_outside_of_isaac_sim_it_says_where_it_runs(folder):
    with pytest.raises(DependencyError, match="run_in_isaac"):
        made(folder)


def test_an_application_that_updates_by_itself_opens_and_steps_it(folder):
    with install("6.1", waiting()) as double:
        simulator, scene = made(folder)
        heard = []
        opening = simulator.opening(scene)
        try:
            while True:
                next(opening)
                double.world.update()
        except StopIteration as end:
            assert end.value is simulator.state
        simulator.listen(lambda frame: heard.append((frame.sensor, frame.sequence)))
        simulator.sense()
        for number in (1, 2):
            simulator.begin_step(Command(linear_x=0.2))
            assert not simulator.step_done()
            double.world.update()
            assert simulator.step_done()
            assert simulator.step(None).step == number
            assert len(simulator.sense()) == 2
        simulator.hold(True)
        before = simulator.state.sim_time
        double.world.update()
        simulator.hold(False)
        double.world.update()
        assert double.world.simulation_time == pytest.approx(before + 0.1)
        assert heard[:4] == [("eye", 1), ("lidar", 1), ("eye", 2), ("lidar", 2)]
        simulator.close()


def test_an_open_stage_says_afterwards_what_it_said_before(folder):
    """Links bear no weight and report contacts for the run, and no longer; also where it cannot begin."""
    with install("6.0", waiting()) as double:
        simulator, scene = made(folder, attach=True)
        assert double.world.open_stage(str(scene))
        stage = double.world.stage
        before = stage.Flatten().ExportToString()
        simulator.open(scene)
        body = stage.GetPrimAtPath(simulator._scene.humanoid.bodies[0])
        assert body.GetAttribute("physxRigidBody:disableGravity").Get() is True
        assert "PhysxContactReportAPI" in body.GetPrimTypeInfo().GetAppliedAPISchemas()
        assert stage.Flatten().ExportToString() != before
        simulator.close()
        assert double.world.stage is stage and stage.Flatten().ExportToString() == before
        broken, _ = made(folder, "sensors.eye.prim=nowhere", attach=True)
        with pytest.raises(SaccadeError, match="nowhere"):
            broken.open(scene)
        broken.close()
        assert stage.Flatten().ExportToString() == before


@pytest.mark.parametrize(("version", "own_rate"), [("5.1", 24.0), ("6.0", None)])
def test_an_open_stage_has_its_times_back_after_the_run(folder, version, own_rate):
    """Its root layer's rate, the timeline's end, and the application's steps are its user's."""

    def times(world):
        layer = world.stage.GetRootLayer()
        own = layer.timeCodesPerSecond if layer.HasTimeCodesPerSecond() else None
        return own, world.end_time, world.rendering_dt, world.physics_dt

    with install(version, waiting()) as double:
        simulator, scene = made(folder, attach=True)
        assert double.world.open_stage(str(scene))
        layer = double.world.stage.GetRootLayer()
        layer.ClearTimeCodesPerSecond()
        if own_rate is not None:
            layer.timeCodesPerSecond = own_rate
        before = times(double.world)
        assert before[0] == own_rate
        simulator.open(scene)
        simulator.step(None)
        during = times(double.world)
        assert all(one != other for one, other in zip(before, during, strict=True))
        simulator.close()
        assert times(double.world) == (own_rate, *(pytest.approx(value) for value in before[1:]))


def test_an_open_stage_is_used_as_it_is(folder):
    with install("6.0", waiting()) as double:
        simulator, scene = made(folder, attach=True)
        with pytest.raises(SceneError, match="no stage is open"):
            simulator.open(scene)
        assert double.world.open_stage(str(scene))
        simulator.open(scene)
        assert double.world.stage_path == scene
        assert len(walked(simulator, 2)) == 6
        simulator.close()


GONE = {
    "5.0": (
        "isaacsim.core.api.SimulationContext",
        "isaacsim.core.prims.Articulation.set_joint_position_targets",
        "isaacsim.core.simulation_manager.IsaacEvents",
        "omni.replicator.core.WriterRegistry.register",
        "omni.physx",
    ),
    "6.2": (
        "isaacsim.sensors.experimental.rtx.Lidar",
        "isaacsim.core.rendering_manager.RenderingManager.set_dt",
        "isaacsim.core.simulation_manager.SimulationManager.register_callback",
        "omni.replicator.core.AnnotatorRegistry.get_annotator",
        "omni.timeline.ITimeline.set_end_time",
    ),
}


@pytest.mark.parametrize(("version", "name"), [(version, name) for version, names in GONE.items() for name in names])
def test_negative_control_an_interface_that_lacks_a_name_fails(folder, version, name):
    with install(version, waiting(), without=(name,)), pytest.raises((ImportError, AttributeError, SaccadeError)):
        simulator, scene = made(folder)
        simulator.open(scene)
        walked(simulator, 2)


def _errors(folder, **behaviour):
    """How far the depth of frames is from what a second look at the same state shows [m], frame by frame."""
    with install("6.0", waiting(**behaviour)) as double:
        simulator = opened(folder)
        simulator.sense()
        simulator.step(Command(linear_x=1.0))
        found = []
        for _ in range(3):
            simulator.step(None)
            frame = next(frame for frame in simulator.sense() if frame.sensor == "eye")
            again = double.world.products[0]._cast()["depth"].numpy()
            seen = np.isfinite(again)
            found.append(float(np.median(np.abs(frame.buffers["depth"].numpy() - again)[seen])))
        simulator.close()
        return found


def test_frames_show_the_state_that_they_say_and_not_the_one_before(folder):
    assert max(_errors(folder)) < 1e-4
    # Negative control: a renderer in front of the physics shows the state before, and this is what tells.
    assert min(_errors(folder, render_before_physics=True)) > 5e-3


@pytest.mark.parametrize("version", SIX)
def test_negative_control_a_callback_of_the_other_arity_fails(folder, version):
    with install(version, waiting()) as double:
        simulator, scene = made(folder)
        double.world.major = 5  # callbacks of 5.x take (dt) only
        with pytest.raises((TypeError, SaccadeError, NotImplementedError, KeyError)):
            simulator.open(scene)
