"""Quantized graphs, and the samples that their scales come from."""

import collections

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.onnx_models import save_network

from saccade.errors import ConfigurationError, ModelError
from saccade.precision.int8 import (
    UNNAMED,
    batches,
    calibration_arrays,
    fitted_samples,
    is_quantized,
    quantized_from_float,
    simplified,
)


def run(model, **inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def residual(path, *, opset=17):
    """Writes two convolutions with a residual sum, a bias behind an Identity and a batch normalisation."""
    generator = np.random.default_rng(0)

    def weight(*shape):
        return (generator.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    return save_network(
        path,
        inputs={"image": [1, 3, 16, 16]},
        outputs={"scores": [1, 5]},
        nodes=[
            helper.make_node("Identity", ["bias"], ["hidden_bias"]),
            helper.make_node("Conv", ["image", "w0", "hidden_bias"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", ["a", "scale", "zeros", "zeros", "scale"], ["b"]),
            helper.make_node("Relu", ["b"], ["c"]),
            helper.make_node("Conv", ["c", "w1", "bias"], ["d"], pads=[1, 1, 1, 1]),
            helper.make_node("Add", ["c", "d"], ["e"]),
            helper.make_node("Relu", ["e"], ["f"]),
            helper.make_node("GlobalAveragePool", ["f"], ["g"]),
            helper.make_node("Flatten", ["g"], ["h"]),
            helper.make_node("Gemm", ["h", "w2"], ["scores"], transB=1),
        ],
        constants={
            "w0": weight(4, 3, 3, 3),
            "w1": weight(4, 4, 3, 3),
            "w2": weight(5, 4),
            "bias": 0.1 * ones,
            "scale": 2.0 * ones,
            "zeros": zeros,
        },
        opset=opset,
    )


@pytest.fixture
def model(tmp_path):
    return onnx.load(str(residual(tmp_path / "m.onnx")))


@pytest.fixture(scope="module")
def samples():
    return {"image": np.random.default_rng(1).normal(size=(100, 3, 16, 16)).astype(np.float32)}


@pytest.fixture
def quantized(model, samples):
    return quantized_from_float(model, samples)


def test_outputs_agree(model, quantized, samples):
    """On the calibration set, the error stays within the limit for int8, and there is one."""
    wanted = np.concatenate([run(model, image=image[None])[0] for image in samples["image"][:20]])
    found = np.concatenate([run(quantized, image=image[None])[0] for image in samples["image"][:20]])
    assert 0 < np.linalg.norm(found - wanted) <= 5e-2 * np.linalg.norm(wanted)


def test_what_tensorrt_needs(quantized):
    """Int8 and symmetric, weights with a scale per channel, biases float constants, standard operators alone."""
    onnx.checker.check_model(quantized)
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in quantized.graph.initializer}
    makers = {name: node for node in quantized.graph.node for name in node.output}
    convolutions = [node for node in quantized.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2 and is_quantized(quantized)
    for node in convolutions:
        data, weight, bias = node.input
        assert makers[data].op_type == makers[weight].op_type == "DequantizeLinear"
        assert makers[makers[weight].input[0]].op_type == "QuantizeLinear"
        assert constants[makers[weight].input[1]].shape == (4,)
        assert constants[bias].dtype == np.float32
    for node in quantized.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8 and not zero.any()
    assert {node.domain for node in quantized.graph.node} == {""}
    assert [entry.domain for entry in quantized.opset_import] == [""] and quantized.ir_version == 8


def test_a_residual_sum_can_be_fused(quantized):
    """The sum takes the convolution before it as it is and the residual quantized."""
    makers = {name: node for node in quantized.graph.node for name in node.output}
    (total,) = [node for node in quantized.graph.node if node.op_type == "Add"]
    assert collections.Counter(makers[name].op_type for name in total.input) == {"Conv": 1, "DequantizeLinear": 1}


def test_no_output_is_quantized_away_from_its_activation(quantized):
    """No pair stands between a convolution and what follows it."""
    makers = {name: node for node in quantized.graph.node for name in node.output}
    for node in quantized.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in makers:
            assert makers[node.input[0]].op_type != "Conv"


def test_simplified(model):
    """Identities and batch normalisations are gone, the outputs the same, the given network untouched."""
    before = model.SerializeToString()
    folded = simplified(model)
    assert {"Identity", "BatchNormalization"}.isdisjoint(node.op_type for node in folded.graph.node)
    image = np.random.default_rng(2).normal(size=(1, 3, 16, 16)).astype(np.float32)
    np.testing.assert_allclose(run(folded, image=image)[0], run(model, image=image)[0], rtol=1e-4, atol=1e-5)
    assert model.SerializeToString() == before


def test_old_opset_is_refused(model):
    """Scales per channel came with opset 13."""
    model.opset_import[0].version = 11
    with pytest.raises(ModelError, match=r"13 or newer.*has 11"):
        simplified(model)


def test_too_few_samples(model, samples):
    """Fewer than a hundred need to be allowed."""
    few = {"image": samples["image"][:10]}
    with pytest.raises(ConfigurationError, match=r"10 samples.*100"):
        quantized_from_float(model, few)
    assert is_quantized(quantized_from_float(model, few, allow_few=True))


def test_unknown_method(model, samples):
    """The ways to find a range are named."""
    with pytest.raises(ConfigurationError, match=r"guess.*minmax, entropy, percentile"):
        quantized_from_float(model, samples, method="guess")


@pytest.mark.parametrize(
    ("given_samples", "text"),
    [
        ({"picture": np.zeros((100, 3, 16, 16), "f4")}, "image are expected, found picture"),
        ({"image": np.zeros((100, 3, 8, 8), "f4")}, r"3x16x16.*\(3, 8, 8\)"),
        ({"image": np.zeros((100, 3, 16), "f4")}, "3x16x16"),
        ({"image": np.full((100, 3, 16, 16), np.nan, "f4")}, "NaN"),
    ],
)
def test_samples_that_do_not_fit(given_samples, text):
    """By name, shape and value, each with what was expected."""
    with pytest.raises(ConfigurationError, match=text):
        fitted_samples(given_samples, {"image": [1, 3, 16, 16]})


def test_open_sizes_take_any_sample():
    """An open size of the network fits every sample."""
    arrays = {"image": np.zeros((100, 3, 9, 7), "f4")}
    assert fitted_samples(arrays, {"image": [None, 3, None, None]})["image"].shape == (100, 3, 9, 7)


def test_archive(tmp_path):
    """An archive holds one array per input."""
    path = tmp_path / "samples.npz"
    np.savez(path, a=np.arange(6).reshape(3, 2), b=np.zeros((3, 1)))
    arrays = calibration_arrays(path)
    assert set(arrays) == {"a", "b"} and arrays["a"].tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("batched", [False, True])
def test_folder(tmp_path, batched):
    """Files are samples in the order of their names, with or without a batch axis of one."""
    for index in (2, 0, 1):
        sample = np.full((3, 4, 4), index, np.float32)
        np.save(tmp_path / f"{index}.npy", sample[None] if batched else sample)
    arrays = calibration_arrays(tmp_path)
    assert set(arrays) == {UNNAMED} and arrays[UNNAMED].shape == (3, 3, 4, 4)
    assert arrays[UNNAMED][:, 0, 0, 0].tolist() == [0, 1, 2]
    fitted = fitted_samples(arrays, {"image": [1, 3, 4, 4]}, allow_few=True)
    assert set(fitted) == {"image"}
    with pytest.raises(ConfigurationError, match="one input"):
        fitted_samples(arrays, {"a": [1, 3, 4, 4], "b": [1, 3, 4, 4]}, allow_few=True)


def _write(path, content):
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "write", "text"),
    [
        ("nothing.npz", lambda path: None, "no such file"),
        ("broken.npz", lambda path: _write(path, b"not an archive"), r"broken\.npz"),
        ("one.npy", lambda path: np.save(path, np.zeros(3)), "single array"),
        ("objects.npz", lambda path: np.savez(path, a=np.array([{}], dtype=object)), r"objects\.npz"),
        ("uneven.npz", lambda path: np.savez(path, a=np.zeros((2, 1)), b=np.zeros((3, 1))), "same number"),
        ("scalar.npz", lambda path: np.savez(path, a=np.float32(1)), "same number"),
        ("empty.npz", lambda path: np.savez(path), "no arrays"),
        ("folder", lambda path: path.mkdir(), "no .npy files"),
    ],
)
def test_unusable_samples(tmp_path, name, write, text):
    """Every way a file can be wrong is one clear error that names it; objects are never unpickled."""
    path = tmp_path / name
    write(path)
    with pytest.raises(ConfigurationError, match=text):
        calibration_arrays(path)


def test_folder_with_mixed_shapes(tmp_path):
    """The file that differs is named."""
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4)))
    np.save(tmp_path / "b.npy", np.zeros((3, 4, 5)))
    with pytest.raises(ConfigurationError, match=r"b\.npy.*\(3, 4, 5\).*a\.npy"):
        calibration_arrays(tmp_path)


@given(count=st.integers(1, 40), size=st.integers(1, 16))
def test_every_sample_is_in_a_batch(count, size):
    """Batches are whole, in order, together hold every sample, and only the last one repeats any."""
    found = [batch["x"][:, 0] for batch in batches({"x": np.arange(count, dtype=np.int64)[:, None]}, size)]
    assert all(len(batch) == size for batch in found)
    rows = np.concatenate(found)
    assert rows[:count].tolist() == list(range(count)) and len(rows) - count < size
    assert rows.dtype == np.float32


def test_constants_are_float_or_int8(quantized):
    """What is left after the surgery is read by something."""
    used = {name for node in quantized.graph.node for name in node.input}
    assert {c.name for c in quantized.graph.initializer} <= used
    assert {c.data_type for c in quantized.graph.initializer} <= {
        TensorProto.FLOAT,
        TensorProto.INT8,
        TensorProto.INT64,
    }
