"""The embedded simulator on CUDA against itself on the CPU: the same scene, the same walk, the same pictures."""

import numpy as np
import pytest

from saccade.configuration import load_configuration
from saccade.frame import Command

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def walks():
    """Twenty decisions of the shipped warehouse on either device: pose, labels, depth, ranges and truth."""
    from saccade.kernels.setup import prepare_warp

    prepare_warp()
    from saccade.simulators.newton import NewtonSimulator

    loaded = load_configuration("warehouse", overrides=["sensors.head_camera.noise={}", "sensors.lidar.noise={}"])
    found = {}
    for device in ("cpu", "cuda"):
        simulator = NewtonSimulator(loaded.config, device=device)
        simulator.open(loaded.scene_path())
        samples = []
        while len(samples) < 20:
            frames = {frame.sensor: frame for frame in simulator.sense()}
            if frames:
                camera, lidar = frames["head_camera"], frames["lidar"]
                samples.append(
                    {
                        "position": np.array(simulator.state.position),
                        "labels": camera.buffers["labels"].numpy().copy(),
                        "depth": camera.buffers["depth"].numpy().copy(),
                        "ranges": lidar.buffers["ranges"].numpy().copy(),
                        "hazard": simulator.ground_truth(camera).hazard,
                        "clearance": np.array(simulator.ground_truth(lidar).clearance),
                    }
                )
            simulator.step(Command(linear_x=0.7))
        found[device] = samples
        simulator.close()
    return found


def test_the_walk_is_the_same(walks):
    """The base is prescribed: positions agree to float rounding."""
    for cpu, cuda in zip(walks["cpu"], walks["cuda"], strict=True):
        np.testing.assert_allclose(cuda["position"], cpu["position"], atol=1e-4)


def test_the_first_pictures_agree(walks):
    """Before physics has run, nearly every pixel has the same label and depth, every ray the same range."""
    cpu, cuda = walks["cpu"][0], walks["cuda"][0]
    assert (cpu["labels"] == cuda["labels"]).mean() > 0.999
    assert np.median(np.abs(cpu["depth"] - cuda["depth"])) < 1e-4
    assert np.median(np.abs(cpu["ranges"] - cuda["ranges"])) < 1e-4


def test_the_later_pictures_agree_about_the_scene(walks):
    """After two seconds of walking the drives differ a little; what is seen does not."""
    cpu, cuda = walks["cpu"][-1], walks["cuda"][-1]
    assert (cpu["labels"] == cuda["labels"]).mean() > 0.97
    assert np.median(np.abs(cpu["ranges"] - cuda["ranges"])) < 0.02


def test_truth_agrees(walks):
    """Hazard and clearance say the same on either device."""
    for cpu, cuda in zip(walks["cpu"], walks["cuda"], strict=True):
        assert cpu["hazard"] == cuda["hazard"]
        assert np.median(np.abs(cpu["clearance"] - cuda["clearance"])) < 0.02
