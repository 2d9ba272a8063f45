"""Channels: what is removed is gone from the graph, and what did nothing is not missed."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from tests.onnx_models import save_network
from tests.precision.conftest import segmenter

from saccade.errors import ConfigurationError
from saccade.models.resnet import resnet18
from saccade.paths import MODELS
from saccade.precision.cost import constants_of, multiply_adds_of, parameters_of
from saccade.precision.pruning import without_channels


def run(model, **inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def shapes(model):
    return {c.name: tuple(c.dims) for c in model.graph.initializer}


def put(model, **arrays):
    for constant in model.graph.initializer:
        if constant.name in arrays:
            constant.CopyFrom(numpy_helper.from_array(arrays[constant.name], constant.name))


def test_channels_are_really_removed(network, frames):
    smaller, layers = without_channels(network, 0.5)
    onnx.checker.check_model(smaller, full_check=True)
    found = shapes(smaller)
    # The residual ties stem, depthwise and narrow; three image channels join by Concat and stay.
    assert found["w0"] == (8, 3, 3, 3) and found["w1"] == (8, 1, 3, 3) and found["w3"] == (8, 16, 1, 1)
    assert found["w2"] == (16, 8, 1, 1) and found["head"] == (6, 11, 1, 1) and found["w4"] == (1, 8)
    assert [(layer["before"], layer["after"]) for layer in layers] == [(16, 8), (32, 16), (6, 6), (1, 1)]
    group = [a.i for node in smaller.graph.node for a in node.attribute if a.name == "group"]
    assert group == [8]
    assert multiply_adds_of(smaller) < 0.5 * multiply_adds_of(network)
    outputs = run(smaller, image=frames[:1])
    assert [value.shape for value in outputs] == [(1, 6, 16, 16), (1, 1)]
    assert shapes(network)["w0"] == (16, 3, 3, 3)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(32)), st.permutations(range(16)))
def test_channels_that_do_nothing_are_not_missed(wide, tied):
    """With eight filters of each set at zero, removing a quarter or a half changes no output."""

    with tempfile.TemporaryDirectory() as folder:
        model = onnx.load(str(segmenter(Path(folder) / "net.onnx")))
    weights = {name: array.copy() for name, array in constants_of(model).items()}
    for name, gone in (("w2", wide[:16]), ("w0", tied[:8]), ("w1", tied[:8]), ("w3", tied[:8])):
        weights[name][list(gone)] = 0
        weights[f"b{name[1]}"][list(gone)] = 0
    put(model, **weights)
    smaller, _ = without_channels(model, 0.5)
    image = np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)
    for one, other in zip(run(model, image=image), run(smaller, image=image), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_what_is_kept(network):
    smaller, _ = without_channels(network, 0.5, keep=("wide",))
    assert shapes(smaller)["w2"][0] == 32 and shapes(smaller)["w0"][0] == 8


def test_nothing_to_remove(tmp_path):
    """A network whose only channels are its outputs."""
    path = save_network(
        tmp_path / "m.onnx",
        inputs={"x": [1, 3, 4, 4]},
        outputs={"y": [1, 16, 4, 4]},
        nodes=[helper.make_node("Conv", ["x", "w"], ["y"], "only")],
        constants={"w": np.ones((16, 3, 1, 1), np.float32)},
    )
    with pytest.raises(ConfigurationError, match="none can be removed"):
        without_channels(onnx.load(str(path)), 0.5)


def test_what_is_not_known_stays(tmp_path):
    """Channels that a Transpose mixes with places, and those of a shared weight, are left."""
    path = save_network(
        tmp_path / "m.onnx",
        inputs={"x": [1, 16, 4, 4]},
        outputs={"y": [1, 4, 4, 16]},
        nodes=[
            helper.make_node("Conv", ["x", "shared"], ["a"], "one"),
            helper.make_node("Conv", ["a", "shared"], ["b"], "two"),
            helper.make_node("Conv", ["b", "w"], ["c"], "free"),
            helper.make_node("Conv", ["c", "v"], ["d"], "last"),
            helper.make_node("Transpose", ["d"], ["y"], "turn", perm=[0, 2, 3, 1]),
        ],
        constants={
            "shared": np.ones((16, 16, 1, 1), np.float32),
            "w": np.ones((32, 16, 1, 1), np.float32),
            "v": np.ones((16, 32, 1, 1), np.float32),
        },
    )
    smaller, _ = without_channels(onnx.load(str(path)), 0.5)
    assert shapes(smaller) == {"shared": (16, 16, 1, 1), "w": (16, 16, 1, 1), "v": (16, 16, 1, 1)}


def test_resnet():
    """All stages shrink, through their residual sums, down to the classifier."""
    model = resnet18()
    smaller, _ = without_channels(model, 0.5)
    found = shapes(smaller)
    assert found["layer4.1.conv2.weight"] == (256, 256, 3, 3) and found["fc.weight"] == (1000, 256)
    assert found["layer1.0.conv2.weight"][0] == found["conv1.weight"][0] == 32
    assert multiply_adds_of(smaller) < 0.3 * multiply_adds_of(model)
    assert parameters_of(smaller)["total"] < 0.3 * parameters_of(model)["total"]
    (logits,) = run(smaller, image=np.zeros((1, 3, 224, 224), np.float32))
    assert logits.shape == (1, 1000) and np.isfinite(logits).all()


@pytest.mark.parametrize(("kind", "shape"), [("camera", (1, 3, 224, 224)), ("lidar", (1, 2, 32, 1024))])
@pytest.mark.parametrize("suffix", ["", "_dynamic"])
def test_shipped(kind, shape, suffix):
    model = onnx.load(str(MODELS / f"{kind}{suffix}.onnx"))
    smaller, _ = without_channels(model, 0.25)
    onnx.checker.check_model(smaller, full_check=True)
    assert multiply_adds_of(smaller) < 0.8 * multiply_adds_of(model)
    feed = {model.graph.input[0].name: np.zeros(shape, np.float32)}
    for one, other in zip(run(model, **feed), run(smaller, **feed), strict=True):
        assert one.shape == other.shape and np.isfinite(other).all()
