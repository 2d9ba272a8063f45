"""Qualification of one engine against another, on ONNX Runtime at both ends."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.onnx_models import camera_network, lidar_network, save_network

from saccade.engines.onnxruntime import OnnxRuntimeEngine
from saccade.engines.qualification import LIMITS, qualify
from saccade.errors import ConfigurationError, ModelError
from saccade.precision.fp16 import half_from_float


def engine(path, **shapes):
    return OnnxRuntimeEngine(path, threads=1, shapes=shapes or None)


def scaled(path, factor, *, shift=0.0, opset=17):
    """Writes a classifier: four scores, the input times ``factor`` plus ``shift`` on the last score."""
    return save_network(
        path,
        inputs={"x": [2, 4]},
        outputs={"scores": [2, 4]},
        nodes=[helper.make_node("Mul", ["x", "factor"], ["y"]), helper.make_node("Add", ["y", "shift"], ["scores"])],
        constants={"factor": np.float32(factor), "shift": np.array([0, 0, 0, shift], np.float32)},
        opset=opset,
    )


def test_a_half_network_passes_and_its_figures_are_right(tmp_path):
    """The relative error is that of the outputs, computed here a second way, and small but not zero."""
    path = camera_network(tmp_path / "m.onnx", bias=(0.1, 0.2, 0.3, 0.0, 0.0, 0.0))
    half = tmp_path / "half.onnx"
    onnx.save(half_from_float(onnx.load(str(path))), half)
    images = np.random.default_rng(1).normal(size=(3, 3, 16, 16)).astype(np.float32)
    report = qualify(engine(half), engine(path), inputs={"image": images}, precision="fp16")
    assert report["passed"] and report["samples"] == 3 and report["non_finite"] == 0
    judged, truth = engine(half), engine(path)
    pairs = [(judged.infer(image[None]), truth.infer(image[None])) for image in images]
    error = sum(np.square(a.astype("f8") - b).sum() for a, b in pairs)
    norm = sum(np.square(b.astype("f8")).sum() for _, b in pairs)
    assert report["relative_l2"]["labels"] == pytest.approx(np.sqrt(error / norm))
    assert 0 < report["relative_l2"]["labels"] < 1e-2
    same = np.mean([(a.argmax(1) == b.argmax(1)).mean() for a, b in pairs])
    assert report["label_agreement"] == pytest.approx(same)
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("side", [0.9, 1.1])
def test_the_limit_on_the_error(tmp_path, precision, side):
    """A scale error just inside the limit passes, just outside fails; labels do not change with a scale."""
    reference = engine(scaled(tmp_path / "a.onnx", 1.0))
    candidate = engine(scaled(tmp_path / "b.onnx", 1.0 + side * LIMITS[precision]["relative_l2"]))
    report = qualify(candidate, reference, precision=precision)
    assert report["relative_l2"]["scores"] == pytest.approx(side * LIMITS[precision]["relative_l2"], rel=1e-3)
    assert report["label_agreement"] == 1.0
    assert report["passed"] == (side < 1)
    assert report["limits"] == LIMITS[precision]


def test_disagreeing_labels_fail(tmp_path):
    """Small errors that turn the label fail, by the share of labels alone."""
    near = np.tile(np.array([[100.0, 100.5, 0.0, 100.0]], np.float32), (4, 1))
    reference = engine(scaled(tmp_path / "a.onnx", 1.0))
    candidate = engine(scaled(tmp_path / "b.onnx", 1.0, shift=1.0))
    report = qualify(candidate, reference, inputs={"x": near}, precision="fp16")
    assert report["relative_l2"]["scores"] < LIMITS["fp16"]["relative_l2"]
    assert report["label_agreement"] == 0.0 and not report["passed"]


def test_non_finite_outputs_fail(tmp_path):
    """Infinities of the candidate are counted and fail, and the figures stay fit for JSON."""
    reference = engine(scaled(tmp_path / "a.onnx", 1.0))
    candidate = engine(scaled(tmp_path / "b.onnx", 1.0, shift=np.inf))
    report = qualify(candidate, reference, samples=4, precision="int8")
    assert report["non_finite"] == 4 and not report["passed"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_an_output_that_should_be_nothing(tmp_path):
    """Against a reference of zeros any difference fails, and none passes."""
    zero = engine(scaled(tmp_path / "a.onnx", 0.0))
    assert qualify(engine(scaled(tmp_path / "b.onnx", 0.0)), zero, precision="fp32")["passed"]
    report = qualify(engine(scaled(tmp_path / "c.onnx", 1e-3)), zero, precision="fp32")
    assert report["relative_l2"] == {"scores": None} and not report["passed"]


def test_the_same_seed_gives_the_same_figures(tmp_path):
    """Pseudo-random inputs repeat for a seed and differ between seeds; whole batches are run."""
    reference = engine(scaled(tmp_path / "a.onnx", 1.0))
    candidate = engine(scaled(tmp_path / "b.onnx", 1.0, shift=0.02))
    first = qualify(candidate, reference, seed=3, samples=5, precision="int8")
    assert first == qualify(candidate, reference, seed=3, samples=5, precision="int8")
    assert first["samples"] == 6
    assert first["relative_l2"] != qualify(candidate, reference, seed=4, samples=5, precision="int8")["relative_l2"]


def test_a_vector_beside_a_map_is_no_label(tmp_path):
    """Clearances beside a map of labels are measured by error, not by their arg-max."""
    first = lidar_network(tmp_path / "a.onnx", clearance=np.linspace(5.0, 5.001, 16)[None])
    second = lidar_network(tmp_path / "b.onnx", clearance=np.linspace(5.001, 5.0, 16)[None])
    report = qualify(engine(second), engine(first), precision="fp32")
    assert 0 < report["relative_l2"]["clearance"] < 1e-3
    assert report["label_agreement"] == 1.0 and report["passed"]


def test_networks_that_differ_are_refused(tmp_path):
    """Engines with other shapes cannot be compared."""
    with pytest.raises(ModelError, match="inputs"):
        qualify(
            engine(camera_network(tmp_path / "a.onnx")),
            engine(camera_network(tmp_path / "b.onnx", size=(8, 8))),
            precision="fp32",
        )


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"picture": np.zeros((1, 4), "f4")}, "x are expected, found picture"),
        ({"x": np.zeros((3, 5), "f4")}, r"\(4,\).*\(5,\)"),
        ({"x": np.zeros((0, 4), "f4")}, "number of samples"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path, inputs, text):
    """Given samples must be the network's, by name and shape."""
    one = engine(scaled(tmp_path / "a.onnx", 1.0))
    with pytest.raises(ConfigurationError, match=text):
        qualify(one, engine(scaled(tmp_path / "b.onnx", 1.0)), inputs=inputs, precision="fp32")


def test_unknown_precision(tmp_path):
    """There are limits for three precisions."""
    one = engine(scaled(tmp_path / "a.onnx", 1.0))
    with pytest.raises(ConfigurationError, match="fp8"):
        qualify(one, one, precision="fp8")
