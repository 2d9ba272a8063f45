from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from saccade.errors import ConfigurationError  # noqa: E402
from saccade.frame import BACKGROUND, CLASS_COUNT, SECTOR_COUNT  # noqa: E402
from saccade.models import blocks, networks, tuning  # noqa: E402
from saccade.models.export import export_network  # noqa: E402
from saccade.paths import MODELS  # noqa: E402
from saccade.precision import cost  # noqa: E402
from saccade.precision.pruning import without_channels  # noqa: E402


@pytest.fixture(scope="module", params=["camera", "lidar"])
def network(request):
    torch.manual_seed(1)
    return networks.network_from_kind(request.param).eval()


def test_shapes(network):
    labels, other = network(torch.rand(2, *network.input_shape))
    assert labels.shape == (2, CLASS_COUNT, *network.input_shape[1:])
    assert other.shape == (2, 1 if isinstance(network, networks.CameraNetwork) else SECTOR_COUNT)
    assert labels.dtype == other.dtype == torch.float32
    assert torch.isfinite(labels).all()
    assert torch.isfinite(other).all()


def test_size_stays_in_budget(network):
    multiply_adds = networks.count_multiply_adds(network)
    assert 50e6 < multiply_adds < 200e6
    assert networks.count_parameters(network) * 4 < 3.5 * 2**20


@pytest.mark.parametrize("kind", ["camera", "lidar"])
@pytest.mark.parametrize("architecture", networks.ARCHITECTURES)
def test_architectures(kind, architecture, tmp_path):
    """Each is of about the size of the shipped one, gives the same outputs, learns, and can be exported and pruned."""
    torch.manual_seed(0)
    network = networks.network_from_kind(kind, architecture=architecture)
    shipped = networks.count_parameters(networks.network_from_kind(kind))
    assert 0.85 * shipped < networks.count_parameters(network) < 1.15 * shipped
    out = network.forward_training(torch.rand(2, *network.input_shape))
    sum(value.float().mean() for value in out.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    path = export_network(network, tmp_path / "m.onnx", metadata={"kind": kind, "architecture": architecture})
    model = onnx.load(str(path))
    smaller, _ = without_channels(model, 0.5)
    assert cost.multiply_adds_of(smaller) < 0.75 * cost.multiply_adds_of(model)
    tuned, found = tuning.network_from_onnx(smaller)
    assert found == kind
    assert networks.count_parameters(tuned) < 0.75 * networks.count_parameters(network)


def test_the_shipped_networks_are_separable():
    """Their weights fit into the module that the default builds."""
    for kind in ("camera", "lidar"):
        network, found = tuning.network_from_onnx(onnx.load(str(MODELS / f"{kind}.onnx")))
        assert found == kind and any(isinstance(module, blocks.SeparableBlock) for module in network.modules())


def test_unknown_architecture():
    with pytest.raises(ConfigurationError, match="separable, mobilenet, efficientnet, plain"):
        networks.network_from_kind("camera", architecture="transformer")


def test_multiply_adds_of_a_known_layer():
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(8 * 16, 5))
    layer.input_shape = (3, 4, 4)
    assert networks.count_multiply_adds(layer) == 8 * 16 * 27 + 5 * 128


def test_hazard_is_a_probability():
    torch.manual_seed(0)
    hazard = networks.CameraNetwork().eval()(torch.randn(4, 3, 224, 224) * 5)[1]
    assert ((hazard >= 0) & (hazard <= 1)).all()


@pytest.fixture(scope="module")
def lidar():
    """A LiDAR network with all kinds of weights and statistics, as after training."""
    torch.manual_seed(4)
    network = networks.LidarNetwork()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    return network.eval()


@pytest.mark.parametrize("sectors", [1, 5, 15])
def test_turning_the_robot_turns_the_answer(lidar, sectors):
    scan = torch.rand(1, *networks.LIDAR_SHAPE)
    labels, clearance = lidar(scan)
    turned_labels, turned_clearance = lidar(scan.roll(64 * sectors, dims=-1))
    torch.testing.assert_close(turned_clearance, clearance.roll(sectors, dims=-1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(turned_labels, labels.roll(64 * sectors, dims=-1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("azimuth_degrees", [0.0, 10.0, -10.0, 12.0, 90.0, 180.0, 337.0])
def test_sectors_are_centred_ahead_and_counter_clockwise(azimuth_degrees):
    """One thing at 3 m, and the gate told where it is: the sector around its azimuth answers, and no other."""
    network = networks.LidarNetwork()
    column = round(azimuth_degrees / 360 * 1024) % 1024
    distance = torch.full((32, 1024), 10.0)
    gate = torch.full((32, 1024), -20.0)
    distance[12, column], gate[12, column] = 3.0, 20.0
    clearance = network.clearance(distance.view(1, -1), gate.view(1, -1))[0]
    expected = int(np.floor(azimuth_degrees / 22.5 + 0.5)) % SECTOR_COUNT
    assert clearance[expected] == pytest.approx(3.0, abs=0.01)
    others = [clearance[s].item() for s in range(SECTOR_COUNT) if s != expected]
    assert min(others) == pytest.approx(30.0, abs=0.01)


def test_no_return_is_background_and_leaves_all_clear(lidar):
    labels, clearance = lidar(torch.zeros(1, *networks.LIDAR_SHAPE))
    assert (labels.argmax(dim=1) == BACKGROUND).all()
    assert clearance.min() > 29.5


def test_geometry_of_the_input_planes(lidar):
    """A return 10 m away in the lowest channel is 7.07 m away on the floor plan."""
    scan = torch.zeros(1, *networks.LIDAR_SHAPE)
    scan[0, 0, 31, 0] = 10.0 / 30.0
    scan[0, 0, 0, 5] = 10.0 / 30.0
    planes, horizontal, no_return = lidar.planes(scan)
    horizontal = horizontal.view(32, 1024)
    assert horizontal[31, 0].item() == pytest.approx(10 * np.cos(np.radians(-45)), abs=1e-4)
    assert horizontal[0, 5].item() == pytest.approx(10 * np.cos(np.radians(15)), abs=1e-4)
    assert planes[0, 5, 31, 0].item() == pytest.approx(0.5 * 10 * np.sin(np.radians(-45)), abs=1e-4)
    assert no_return.sum().item() == 32 * 1024 - 2


def test_the_file_s_form_is_the_same_function(lidar, monkeypatch):
    """Wrapped once, its offsets in the head; with a halo that is too narrow the zeros beyond it would be seen."""
    import copy

    trained = copy.deepcopy(lidar)
    networks.exclude_absent_classes(trained, [True, True, True, True, False, False])
    generator = torch.Generator().manual_seed(7)
    scan, kept = (torch.rand(2, *networks.LIDAR_SHAPE, generator=generator) for _ in range(2))
    scan = scan * (kept > 0.2)

    def differences():
        prepared = copy.deepcopy(trained)
        prepared.prepare_export()
        return [(one - other).abs().max().item() for one, other in zip(trained(scan), prepared(scan), strict=True)]

    labels, clearance = differences()
    assert labels < 1e-3 and clearance < 1e-3
    monkeypatch.setattr(networks, "_HALO", 8)
    assert differences()[0] > 10 * labels


def test_absent_classes_are_never_predicted(network):
    import copy

    limited = copy.deepcopy(network)
    networks.exclude_absent_classes(limited, [True, True, False, True, False, True])
    labels, _ = limited(torch.rand(1, *network.input_shape))
    assert not ({2, 4} & set(labels.argmax(dim=1).unique().tolist()))
