"""Half-precision graphs: float at the edges, half inside, and what does not fit stays in float."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from tests.onnx_models import camera_network, save_network

from saccade.errors import ConfigurationError
from saccade.paths import MODELS
from saccade.precision.cost import constants_of, multiply_adds_of
from saccade.precision.fp16 import float_nodes, half_from_float, is_half, name_nodes, overflowing


def run(model, **inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def scaling(path, *, large=1e6):
    return save_network(
        path,
        inputs={"x": [1, 8]},
        outputs={"y": [1, 8]},
        nodes=[
            helper.make_node("Mul", ["x", "large"], ["z"], name="multiply"),
            helper.make_node("Sigmoid", ["z"], ["w"], name="squash"),
            helper.make_node("Mul", ["w", "small"], ["y"], name="shrink"),
        ],
        constants={"large": np.float32(large), "small": np.float32(0.5)},
    )


@pytest.mark.parametrize("name", ["camera.onnx", "camera_dynamic.onnx", "lidar.onnx"])
def test_shipped_networks(name):
    """Inputs and outputs stay float, weights become half, the graph is valid, the outputs agree to 1e-2."""
    model = onnx.load(str(MODELS / name))
    half = half_from_float(model)
    onnx.checker.check_model(half)
    edges = [[*graph.input, *graph.output] for graph in (half.graph, model.graph)]
    for ours, theirs in zip(*edges, strict=True):
        assert ours.name == theirs.name and ours.type == theirs.type
    assert not any(c.data_type == TensorProto.FLOAT and len(c.dims) > 1 for c in half.graph.initializer)
    assert is_half(half) and not is_half(model)
    info = model.graph.input[0]
    shape = [d.dim_value or 1 for d in info.type.tensor_type.shape.dim]
    value = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for ours, theirs in zip(run(half, **{info.name: value}), run(model, **{info.name: value}), strict=True):
        assert ours.dtype == np.float32
        assert np.linalg.norm(ours - theirs) <= 1e-2 * np.linalg.norm(theirs)


def test_the_given_network_is_left_unchanged(tmp_path):
    """The conversion works on a copy."""
    model = onnx.load(str(camera_network(tmp_path / "m.onnx")))
    before = model.SerializeToString()
    half_from_float(model)
    assert model.SerializeToString() == before


def test_weights_beyond_half_stay_in_float(tmp_path):
    """The node that uses them computes in float, is named, and its result is not clamped."""
    model = onnx.load(str(scaling(tmp_path / "m.onnx")))
    said = []
    half = half_from_float(model, say=said.append)
    assert overflowing(model) == {"large": 1e6}
    assert float_nodes(half) == {"multiply"}
    assert "large" in said[0] and "multiply" in said[0]
    value = np.full((1, 8), 2e-6, np.float32)
    np.testing.assert_allclose(run(half, x=value)[0], run(model, x=value)[0], rtol=2e-3)


def test_no_round_trip_through_half(tmp_path):
    """Between float inputs, float nodes and float outputs nothing is rounded to half, and the graph stays valid."""
    path = save_network(
        tmp_path / "m.onnx",
        inputs={"x": [1, 8]},
        outputs={"y": [1, 8], "z": [1, 8]},
        nodes=[
            helper.make_node("Mul", ["x", "large"], ["y"], name="first"),
            helper.make_node("Add", ["y", "large"], ["w"], name="second"),
            helper.make_node("Sigmoid", ["w"], ["z"], name="third"),
        ],
        constants={"large": np.float32(1e6)},
    )
    model = onnx.load(str(path))
    half = half_from_float(model)
    onnx.checker.check_model(half, full_check=True)
    assert float_nodes(half) == {"first", "second"}
    value = np.linspace(1e-9, 3e-7, 8, dtype=np.float32)[None] + 1.0
    found, wanted = run(half, x=value), run(model, x=value)
    assert (found[0] == wanted[0]).all() and np.abs(wanted[0]).min() > 65504


def test_infinities_are_meant(tmp_path):
    """A mask of infinity fits into half and keeps nothing in float."""
    assert overflowing(onnx.load(str(scaling(tmp_path / "m.onnx", large=np.inf)))) == {}


@pytest.mark.parametrize("blocked", ["Sigmoid", "squash"])
def test_blocked_by_operator_or_node(tmp_path, blocked):
    """What is blocked, by either name, stays in float; the rest does not."""
    model = onnx.load(str(scaling(tmp_path / "m.onnx", large=2.0)))
    assert float_nodes(half_from_float(model)) == set()
    half = half_from_float(model, blocked=[blocked])
    onnx.checker.check_model(half)
    assert float_nodes(half) == {"squash"}


def test_blocking_what_is_not_there(tmp_path):
    """A name that the network lacks is refused with the names that it has."""
    model = onnx.load(str(scaling(tmp_path / "m.onnx")))
    with pytest.raises(ConfigurationError, match=r"Softmaxx.*Mul, Sigmoid"):
        half_from_float(model, blocked=["Softmaxx"])


def test_nodes_without_names_get_different_ones(tmp_path):
    """Missing and repeated names are replaced, given ones kept."""
    model = onnx.load(str(scaling(tmp_path / "m.onnx")))
    model.graph.node[0].name = ""
    model.graph.node[1].name = "Mul_0"
    model.graph.node[2].name = "Mul_0"
    name_nodes(model)
    names = [node.name for node in model.graph.node]
    assert names[1] == "Mul_0" and len(set(names)) == 3 and all(names)


@pytest.mark.parametrize("name", ["camera_dynamic", "lidar_dynamic", "camera", "lidar"])
def test_the_scales_of_a_resize_stay_constants_so_that_sizes_and_cost_are_known(name):
    model = onnx.load(str(MODELS / f"{name}.onnx"))
    half = half_from_float(model)
    constants = constants_of(half)
    resizes = [node for node in half.graph.node if node.op_type == "Resize"]
    assert resizes and all(node.input[2] in constants for node in resizes)
    assert all(constants[node.input[2]].dtype == np.float32 for node in resizes)
    assert multiply_adds_of(half) == multiply_adds_of(model) > 0
    onnx.checker.check_model(half, full_check=True)


def test_a_scale_that_half_would_round_is_as_it_was(tmp_path):
    path = save_network(
        tmp_path / "net.onnx",
        inputs={"image": ["batch", 3, 12, 12]},
        outputs={"out": ["batch", 4, 14, 14]},
        nodes=[
            helper.make_node("Conv", ["image", "weight"], ["a"], "conv"),
            helper.make_node("Resize", ["a", "", "scales"], ["b"], "resize", mode="linear"),
            helper.make_node("Conv", ["b", "second"], ["out"], "end"),
        ],
        constants={
            "weight": np.ones((4, 3, 1, 1), np.float32),
            "second": np.ones((4, 4, 1, 1), np.float32),
            "scales": np.array([1, 1, 7 / 6, 7 / 6], np.float32),
        },
    )
    half = half_from_float(onnx.load(str(path)))
    (resize,) = (node for node in half.graph.node if node.op_type == "Resize")
    assert constants_of(half)[resize.input[2]].tolist() == [1.0, 1.0, np.float32(7 / 6), np.float32(7 / 6)]
    assert run(half, image=np.zeros((2, 3, 12, 12), np.float32))[0].shape == (2, 4, 14, 14)
