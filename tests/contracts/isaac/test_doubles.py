"""The doubles hold what they promise: the surface of each version, and the behaviours of behaviours.md."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from tests.contracts.isaac.doubles import VERSIONS, Behaviour, install
from tests.contracts.isaac.surface import read_api, read_assumed, surface_of
from tests.contracts.isaac.world import ProcessEnded

CORRIDOR = str(Path(__file__).parents[3] / "scenes" / "corridor.usda")
ZERO_DELAY = {"/app/hydraEngine/waitIdle": True}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_has_its_modules_and_no_other(version):
    with install(version):
        import isaacsim.core.simulation_manager

        if version[0] == "5":
            with pytest.raises(ImportError):
                import isaacsim.core.rendering_manager
        else:
            import isaacsim.core.rendering_manager  # noqa: F401
        with pytest.raises(ImportError):
            import omni.isaac.core  # noqa: F401


def test_nothing_stays_behind():
    import sys

    with install("6.2"):
        import omni.usd  # noqa: F401
    assert not [name for name in sys.modules if name.split(".")[0] in ("omni", "carb", "isaacsim")]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_callback_is_registered_as_its_version_wants_it(version):
    with install(version) as double:
        from isaacsim.core.simulation_manager import IsaacEvents, SimulationManager

        uid = SimulationManager.register_callback(lambda *args: None, event=IsaacEvents.PRE_PHYSICS_STEP, order=3)
        if version[0] == "5":
            SimulationManager.register_callback(lambda *args: None, IsaacEvents.PRE_PHYSICS_STEP, 0, "named")
            SimulationManager.deregister_callback(callback_id=uid)
        else:
            with pytest.raises(TypeError, match=f"In Isaac Sim {version} it is"):
                SimulationManager.register_callback(lambda *args: None, IsaacEvents.PRE_PHYSICS_STEP, 0)
            SimulationManager.deregister_callback(uid=uid)
        assert uid not in double.world.physics_callbacks


def test_the_bug_of_5_is_there():
    with install("5.1"):
        from isaacsim.core.simulation_manager import SimulationManager

        with pytest.raises(TypeError):
            SimulationManager.set_physics_dt(dt=0.01)
    with install("6.0"):
        from isaacsim.core.simulation_manager import SimulationManager

        SimulationManager.set_physics_dt(dt=0.01)


def test_close_takes_what_its_version_takes_and_ends_the_process():
    for version, arguments, status in (
        ("5.0", {}, 0),
        ("5.1", {"skip_cleanup": True}, 0),
        ("6.1", {"exit_code": 3}, 3),
    ):
        with install(version):
            from isaacsim import SimulationApp

            app = SimulationApp({"headless": True})
            with pytest.raises(ProcessEnded) as ended:
                app.close(**arguments)
            assert ended.value.status == status
    with install("5.1"):
        from isaacsim import SimulationApp

        app = SimulationApp({})
        with pytest.raises(TypeError):
            app.close(exit_code=1)


def test_a_name_can_be_taken_away():
    with install("6.2", without=("isaacsim.sensors.experimental.rtx.Lidar",)), pytest.raises(ImportError):
        from isaacsim.sensors.experimental.rtx import Lidar  # noqa: F401


def test_what_is_not_modelled_says_so():
    with install("6.0"):
        from isaacsim.sensors.experimental.rtx import TiledCameraSensor

        with pytest.raises(NotImplementedError):
            TiledCameraSensor("/World/Camera", resolution=(2, 2), annotators="rgb")


def test_every_assumption_has_a_reason_and_is_needed():
    # A signature put together from calls that were seen may be refined by what is documented.
    read = {
        (raw["module"], raw["name"], version)
        for raw in read_api()
        if raw["kind"] != "call"
        for version in raw["versions"]
    }
    for raw in read_assumed():
        assert raw["reason"] and raw["nearest"] in VERSIONS
        if raw["module"] == "omni.kit.commands":
            continue  # seen as a call in every version, and read as a function in one
        for version in raw["versions"]:
            assert (raw["module"], raw["name"], version) not in read, f"{raw['name']} was read in {version}"


@pytest.mark.parametrize("version", VERSIONS)
def test_no_signature_is_unreadable(version):
    from tests.contracts.isaac.surface import signature_of

    for entries in surface_of(version).modules.values():
        for entry in entries.values():
            signature_of(entry)


def test_play_waits_for_an_update_or_a_commit():
    with install("5.1") as double:
        import omni.kit.app
        import omni.timeline

        timeline = omni.timeline.get_timeline_interface()
        timeline.play()
        assert not timeline.is_playing()
        omni.kit.app.get_app().update()
        assert timeline.is_playing()
        timeline.stop()
        timeline.commit()
        assert not timeline.is_playing()
        assert double.world.events.count("play") == 1


def test_a_missing_stage_is_told_by_the_flag():
    with install("5.0"):
        from isaacsim.core.utils.stage import open_stage

        assert open_stage("/nowhere.usda") is False
    with install("6.1"):
        from isaacsim.core.experimental.utils.stage import open_stage

        assert open_stage("/nowhere.usda")[0] is False


def test_coroutines_resume_after_the_renderer():
    with install("6.0") as double:
        import omni.kit.app

        app, seen = omni.kit.app.get_app(), []

        async def wait():
            await app.next_update_async()
            seen.append(list(double.world.events))

        task = double.world.loop.create_task(wait())
        app.update()
        assert isinstance(task, asyncio.Task) and task.done()
        assert seen[0][-1] == "update" and "postUpdate" not in seen[0]


def _camera(rep, *, size=(400, 320), names=("rgb",), device="cuda"):
    product = rep.create.render_product("/World/camera", size)
    found = []
    for name in names:
        annotator = rep.AnnotatorRegistry.get_annotator(name, device=device, do_array_copy=False)
        annotator.attach([product.path])
        found.append(annotator)
    return product, found


@pytest.fixture
def scene(tmp_path):
    """A biped that is an articulation, and something to see."""
    from tests.simulators.robots import walker_scene

    return walker_scene(tmp_path / "walker.usda")


def _running(double, scene, dt=0.1):
    from pxr import UsdGeom

    world = double.world
    assert world.open_stage(str(scene))
    world.set_rendering_dt(dt)
    camera = UsdGeom.Camera.Define(world.stage, "/World/camera")
    UsdGeom.Xformable(camera).AddTranslateOp().Set((0.0, 0.0, 3.0))
    for _ in range(world.behaviour.loading_updates):
        world.update()
    world.pending = True


def test_first_frames_are_empty_then_without_a_time_then_whole(scene):
    with install("6.0", Behaviour(settings=ZERO_DELAY)) as double:
        import omni.replicator.core as rep

        _running(double, scene)
        _, (rgb, depth, time) = _camera(rep, names=("rgb", "distance_to_image_plane", "ReferenceTime"))
        shapes, times = [], []
        for _ in range(9):
            double.world.update()
            shapes.append((tuple(rgb.get_data().shape), tuple(depth.get_data().shape)))
            times.append(tuple(time.get_data().values()))
        assert shapes[0] == ((0,), (0,))
        assert shapes[-1] == ((320, 400, 4), (320, 400))  # (height, width) of a product made with (width, height)
        assert times[0] == (0, 0) and times[-1] == double.world.reference_time()


def test_arrays_are_overwritten_by_later_frames(scene):
    with install("5.1", Behaviour(settings=ZERO_DELAY, empty_first_frames=0, zero_reference_frames=0)) as double:
        import omni.replicator.core as rep

        _running(double, scene)
        product, (rgb,) = _camera(rep)
        for _ in range(6):
            double.world.update()
        first = rgb.get_data()
        before = first.numpy().copy()
        product._product.sensor.buffers["color"].fill_(0)
        product._product.sensor.sense = lambda state, number: None
        double.world.update()
        assert np.array_equal(first.numpy(), before)
        double.world.update()
        assert not first.numpy().any()
        assert rgb.get_data().ptr == first.ptr


def test_small_products_give_another_size_up_to_6_0(scene):
    for version, height in (("5.0", 120), ("6.0", 120), ("6.1", 240)):
        behaviour = Behaviour(settings=ZERO_DELAY, empty_first_frames=0, zero_reference_frames=0, startup_lag=0)
        with install(version, behaviour) as double:
            import omni.replicator.core as rep

            _running(double, scene)
            _, (rgb,) = _camera(rep, size=(240, 240))
            double.world.update()
            assert rgb.get_data().shape[0] == height


def test_without_waiting_an_update_delivers_none_to_two(scene):
    with install("6.2", Behaviour(empty_first_frames=0)) as double:
        import omni.replicator.core as rep

        counts = []

        class Counter(rep.Writer):
            def __init__(self, counts=counts):
                self.annotators = [rep.AnnotatorRegistry.get_annotator("ReferenceTime")]
                self._annotators, self._kwargs, self.node_type_id, self.version = [], {}, "Counter", "1"

            def __deepcopy__(self, memo):
                return Counter()

            def write(self, data):
                counts.append(double.world.updates)

        _running(double, scene)
        rep.WriterRegistry.register(Counter)
        product = rep.create.render_product("/World/camera", (320, 320))
        writer = rep.WriterRegistry.get("Counter")
        writer.initialize()
        writer.attach([product.path])
        start = double.world.updates
        for _ in range(12):
            double.world.update()
        per_update = [counts.count(update) for update in range(start + 1, start + 13)]
        assert set(per_update) == {0, 1, 2}


def test_the_root_layer_s_rate_changes_what_its_animation_means():
    with install("6.1") as double:
        assert double.world.open_stage(CORRIDOR)
        assert double.world.stage.GetTimeCodesPerSecond() == 24
        from isaacsim.core.rendering_manager import RenderingManager

        RenderingManager.set_dt(0.1)
        assert double.world.stage.GetTimeCodesPerSecond() == pytest.approx(10)
        double.world.stage.GetRootLayer().timeCodesPerSecond = 24
