"""ResNet-18 from a seed: its shape and cost, the same bytes, and results that half precision bears."""

import numpy as np
import onnx
import onnxruntime
import pytest

from saccade.models.resnet import CLASS_COUNT, SIZE, resnet18, resnet18_file
from saccade.precision.fp16 import half_from_float


@pytest.fixture(scope="module")
def network():
    return resnet18()


def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def images(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, SIZE, SIZE)).astype(np.float32)


def test_it_is_resnet_18(network):
    """Twenty convolutions with batch normalization folded in, eight additions, and the known number of weights."""
    operators = [node.op_type for node in network.graph.node]
    assert {name: operators.count(name) for name in ("Conv", "Add", "MaxPool", "Gemm")} == {
        "Conv": 20,
        "Add": 8,
        "MaxPool": 1,
        "Gemm": 1,
    }
    assert "BatchNormalization" not in operators
    # torchvision's 11 689 512, less the scale and shift of each normalized channel, plus one bias for each.
    channels = 64 + 4 * 64 + 5 * 128 + 5 * 256 + 5 * 512
    assert sum(int(np.prod(tensor.dims)) for tensor in network.graph.initializer) == 11_689_512 - channels
    assert [(entry.domain, entry.version) for entry in network.opset_import] == [("", 13)]


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    """Engines are found by the file's hash: a network written anew must be the same one."""
    first = resnet18_file(tmp_path / "a.onnx").read_bytes()
    assert resnet18_file(tmp_path / "b.onnx").read_bytes() == first
    assert resnet18_file(tmp_path / "c.onnx", seed=1).read_bytes() != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx", "c.onnx"]


def test_an_open_batch_gives_each_image_the_result_that_it_has_alone(network):
    """Static and open batch differ in nothing else."""
    pair = images(2)
    together = session(resnet18(batch=None)).run(None, {"image": pair})[0]
    alone = session(network)
    assert together.shape == (2, CLASS_COUNT)
    for row in range(2):
        np.testing.assert_allclose(
            together[row], alone.run(None, {"image": pair[row : row + 1]})[0][0], rtol=1e-4, atol=1e-4
        )


def test_half_precision_bears_it(network):
    """Engines must agree on the label: it wins by far more than rounding moves a logit, and nothing overflows."""
    given = images(4)
    whole, half = session(network), session(half_from_float(network))
    for image in given:
        wanted = whole.run(None, {"image": image[None]})[0]
        found = half.run(None, {"image": image[None]})[0]
        assert np.isfinite(found).all()
        assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 2e-3
        ordered = np.sort(wanted[0])
        assert ordered[-1] - ordered[-2] > 0.2 * wanted.std()
    onnx.checker.check_model(network, full_check=True)
