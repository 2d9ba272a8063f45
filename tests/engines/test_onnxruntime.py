"""The CPU engine: zero copy, open dimensions, and every way a file can be wrong."""

import numpy as np
import pytest
import warp as wp
from tests.onnx_models import camera_network, save_network

from saccade.engines.base import Engine
from saccade.engines.onnxruntime import OnnxRuntimeEngine
from saccade.errors import ModelError


def cpu(shape, value=0.0):
    return wp.full(shape, value=value, dtype=wp.float32, device="cpu")


def test_reads_and_writes_the_bound_arrays(tmp_path):
    """A run after the input array changed in place gives the new output in the same output array."""
    engine = OnnxRuntimeEngine(camera_network(tmp_path / "m.onnx"))
    assert isinstance(engine, Engine)
    image, labels, hazard = cpu((1, 3, 16, 16)), cpu((1, 6, 16, 16)), cpu((1, 1))
    for name, array in {"image": image, "labels": labels, "hazard": hazard}.items():
        engine.bind(name, array)
    where = labels.ptr
    for value in (1.0, 2.0):
        image.fill_(value)
        engine.enqueue()
        assert labels.ptr == where
        np.testing.assert_allclose(labels.numpy()[0, :3], value)
        assert (labels.numpy()[0, 3:] == 0).all()
    assert hazard.numpy()[0, 0] == pytest.approx(0.25)
    np.testing.assert_allclose(engine.infer(image.numpy()), labels.numpy())
    assert len(engine.facts()["sha256"]) == 64
    engine.close()


def test_open_dimensions_take_the_given_shape(tmp_path):
    """A dynamic batch becomes 1, or what the caller says; outputs follow."""
    path = camera_network(tmp_path / "m.onnx", batch="n")
    assert OnnxRuntimeEngine(path).inputs[0].shape == (1, 3, 16, 16)
    engine = OnnxRuntimeEngine(path, shapes={"image": (4, 3, 16, 16)})
    assert engine.outputs[0].shape == (4, 6, 16, 16)


def test_shape_that_the_file_does_not_have_is_refused(tmp_path):
    """The message names the tensor, both shapes and the field to change."""
    path = camera_network(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"image.*\[1, 3, 16, 16\].*\[1, 3, 8, 8\].*size"):
        OnnxRuntimeEngine(path, shapes={"image": (1, 3, 8, 8)})


def test_missing_file(tmp_path):
    """A missing file is named."""
    with pytest.raises(ModelError, match=r"nothing\.onnx"):
        OnnxRuntimeEngine(tmp_path / "nothing.onnx")


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x08\x12\x07"])
def test_corrupt_file(tmp_path, content):
    """Bytes that are no network give one clear error."""
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx.*cannot load"):
        OnnxRuntimeEngine(path)


def test_truncated_file(tmp_path):
    """A network that was cut off is refused."""
    path = camera_network(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelError, match=r"m\.onnx"):
        OnnxRuntimeEngine(path)


@pytest.mark.parametrize(
    ("name", "array"),
    [("picture", (1, 3, 16, 16)), ("image", (1, 3, 16, 8))],
)
def test_bind_refuses_what_does_not_fit(tmp_path, name, array):
    """An unknown tensor and a wrong shape are refused by name."""
    engine = OnnxRuntimeEngine(camera_network(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match=name):
        engine.bind(name, cpu(array))


def test_unsupported_operator_is_named(tmp_path):
    """An operator that the runtime lacks is named in the error."""
    from onnx import helper

    nodes = [helper.make_node("NoSuchOperator", ["x"], ["y"], domain="com.example")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [1])],
        [helper.make_tensor_value_info("y", 1, [1])],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)], ir_version=8
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="NoSuchOperator"):
        OnnxRuntimeEngine(path)


def test_several_inputs(tmp_path):
    """Inputs are bound by name, whatever their order."""
    from onnx import helper

    path = save_network(
        tmp_path / "m.onnx",
        inputs={"a": [1, 2], "b": [1, 2]},
        outputs={"y": [1, 2]},
        nodes=[helper.make_node("Sub", ["a", "b"], ["y"])],
    )
    engine = OnnxRuntimeEngine(path)
    result = cpu((1, 2))
    engine.bind("y", result)
    engine.bind("b", cpu((1, 2), 1.0))
    engine.bind("a", cpu((1, 2), 3.0))
    engine.enqueue()
    assert result.numpy().tolist() == [[2.0, 2.0]]
