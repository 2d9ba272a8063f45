"""What the doubles claim, asked of a real Isaac Sim: only where its user has installed it and accepted its licence."""

import importlib.util
import os

import pytest

if os.environ.get("SACCADE_ISAAC_SIM") != "1" or importlib.util.find_spec("isaacsim") is None:
    pytest.skip("needs Isaac Sim's own Python and SACCADE_ISAAC_SIM=1; see README.md here", allow_module_level=True)


@pytest.fixture(scope="module")
def simulator():
    """The shipped corridor in a real application, settled."""
    from isaacsim import SimulationApp

    lockstep = (
        "/app/hydraEngine/waitIdle=true",
        "/app/updateOrder/checkForHydraRenderComplete=1000",
        "/rtx-transient/stableIds/enabled=true",
    )
    extra = [f"--{setting}" for setting in (*lockstep, "/app/asyncRendering=false")]
    app = SimulationApp({"headless": True, "multi_gpu": False, "active_gpu": 0, "extra_args": extra})
    from saccade.configuration import load_configuration
    from saccade.simulators.isaac import IsaacSimulator

    loaded = load_configuration("isaac", overrides=["scene=corridor.usda"])
    simulator = IsaacSimulator(loaded.config, device="cuda:0", progress=print)
    simulator.open(loaded.scene_path())
    yield simulator
    simulator.close()
    # The application is left to the end of the process: its close() would take pytest's report with it.
    assert app.is_running()


def test_the_release_is_one_whose_interface_was_read(simulator):
    assert simulator.release.read, simulator.release.version


def test_every_update_gives_one_frame_of_every_sensor_of_its_state(simulator):
    simulator.sense()
    for _ in range(10):
        state = simulator.step(None)
        frames = {frame.sensor: frame for frame in simulator.sense()}
        assert set(frames) == {"head_camera", "lidar"}
        assert frames["head_camera"].sim_time == pytest.approx(state.sim_time, abs=1e-6)
        assert frames["head_camera"].stamps.sim_state < frames["head_camera"].stamps.sensed
    assert simulator.stale == 0


def test_pictures_are_on_the_gpu_and_hold_the_scene(simulator):
    import numpy as np

    simulator.step(None)
    frames = {frame.sensor: frame for frame in simulator.sense()}
    camera, lidar = frames["head_camera"].buffers, frames["lidar"].buffers
    assert str(camera["color"].device) == "cuda:0" and camera["color"].shape == (320, 320)
    depth, labels = camera["depth"].numpy(), camera["labels"].numpy()
    assert np.isfinite(depth).all() and 0.5 < np.median(depth[depth > 0]) < 30
    assert len(np.unique(labels)) >= 3
    ranges = lidar["ranges"].numpy()
    assert (ranges > 0).mean() > 0.1 and 0.3 < np.median(ranges[ranges > 0]) < 30
    assert (simulator.uploads == {}) == (simulator.release.major == 5)


def test_the_base_goes_where_it_is_told(simulator):
    from saccade.frame import Command

    start = simulator.state.position
    simulator.step(Command(linear_x=0.5))
    for _ in range(19):
        simulator.step(None)
    assert simulator.state.position != start and simulator.state.distance > 0.5
    position = simulator._kit.current_stage() and simulator.state.position
    assert position[2] == pytest.approx(start[2], abs=0.15)
