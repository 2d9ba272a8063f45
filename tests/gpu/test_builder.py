"""Engines built by the real TensorRT in the child process: precision routes, refusals, and what is left behind."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.onnx_models import camera_network, residual_network

from saccade.engines.builder import plan_from_onnx
from saccade.engines.options import BuildOptions, ShapeRange
from saccade.errors import DependencyError, EngineError, ModelError
from saccade.paths import MODELS

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def trt():
    from saccade.kernels.setup import prepare_warp

    prepare_warp()
    return pytest.importorskip("tensorrt")


def qualified(path, built, precision, **more):
    """Compares a plan with ONNX Runtime."""
    from saccade.engines.onnxruntime import OnnxRuntimeEngine
    from saccade.engines.qualification import qualify
    from saccade.engines.tensorrt import TensorRTEngine

    candidate = TensorRTEngine(built.data, name_of=path.name)
    reference = OnnxRuntimeEngine(path, shapes={spec.name: spec.shape for spec in candidate.inputs})
    try:
        return qualify(candidate, reference, precision=precision, **more)
    finally:
        candidate.close()
        reference.close()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_shipped_camera_network(precision):
    """The build succeeds and its outputs stay within the limits of its precision."""
    path = MODELS / "camera.onnx"
    built = plan_from_onnx(path, BuildOptions(precision=precision))
    report = qualified(path, built, precision)
    assert report["passed"], report
    assert built.facts["build_s"] > 0 and built.facts["plan_bytes"] == len(built.data)


def test_int8_by_the_route_of_this_version(trt, tmp_path):
    """The version's own int8 route builds a small network and uses every sample."""
    from saccade.engines.versions import int8_route

    path = camera_network(tmp_path / "m.onnx")
    samples = np.random.default_rng(0).normal(size=(128, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", image=samples)
    built = plan_from_onnx(path, BuildOptions(precision="int8", calibration=tmp_path / "samples.npz", time_limit=300))
    route = int8_route(trt.__version__)
    assert built.facts["route"] == {"calibrator": "calibrator", "explicit": "explicit Q/DQ"}[route]
    if route == "calibrator":
        assert built.facts["calibration_batches"] == 128
        assert "PREFER_PRECISION_CONSTRAINTS" in built.facts["flags"]
    report = qualified(path, built, "int8", inputs={"image": samples[:16]})
    assert report["non_finite"] == 0 and report["relative_l2"]["labels"] < 0.05


def test_the_calibrator_puts_int8_before_products_alone(trt, tmp_path):
    """What reads eight bits is a convolution or a change of format, as the engine itself tells."""
    from saccade.engines.tensorrt import TensorRTEngine
    from saccade.engines.versions import int8_route

    if int8_route(trt.__version__) != "calibrator":
        pytest.skip("this release gets Q/DQ pairs")
    path = residual_network(tmp_path / "m.onnx")
    samples = np.random.default_rng(0).normal(size=(128, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", image=samples)
    built = plan_from_onnx(path, BuildOptions(precision="int8", calibration=tmp_path / "samples.npz", time_limit=300))
    report = qualified(path, built, "int8", inputs={"image": samples[:16]})
    assert report["non_finite"] == 0 and max(report["relative_l2"].values()) < 0.1, report
    engine = TensorRTEngine(built.data, name_of=path.name)
    try:
        layers = engine.layers()
    finally:
        engine.close()
    reading = {
        layer["Name"]: layer["LayerType"]
        for layer in layers
        if any("Int8" in tensor["Format/Datatype"] for tensor in layer["Inputs"])
    }
    allowed = ("conv", "gemm", "matrix", "reformat", "noop")
    assert all(any(word in kind.lower() for word in allowed) for kind in reading.values()), reading


def test_float_layers_of_a_half_network(tmp_path):
    """Weights beyond float16 work: their node computes in float32, also where TensorRT chooses the types."""
    from tests.onnx_models import save_network

    path = save_network(
        tmp_path / "m.onnx",
        inputs={"x": [1, 64]},
        outputs={"y": [1, 64]},
        nodes=[
            helper.make_node("Mul", ["x", "large"], ["z"], name="beyond_half"),
            helper.make_node("Sigmoid", ["z"], ["y"], name="within_half"),
        ],
        constants={"large": np.float32(1e6)},
    )
    built = plan_from_onnx(path, BuildOptions(precision="fp16"))
    inputs = {"x": (np.random.default_rng(0).normal(size=(8, 64)) * 1e-6).astype(np.float32)}
    report = qualified(path, built, "fp16", inputs=inputs)
    assert report["non_finite"] == 0 and report["relative_l2"]["y"] < 1e-2


def test_open_batch(tmp_path):
    """An engine with a range of batch sizes comes out and is right at its optimum."""
    path = camera_network(tmp_path / "m.onnx", batch="n")
    shapes = {"image": ShapeRange((1, 3, 16, 16), (4, 3, 16, 16), (8, 3, 16, 16))}
    assert qualified(path, plan_from_onnx(path, BuildOptions(shapes=shapes)), "fp32")["passed"]


def test_timing_cache(tmp_path):
    """The second build uses what the first one measured."""
    path, cache = camera_network(tmp_path / "m.onnx"), tmp_path / "engines" / "timing.cache"
    first = plan_from_onnx(path, BuildOptions(), timing_cache=cache).facts["timing_cache"]
    second = plan_from_onnx(path, BuildOptions(), timing_cache=cache).facts["timing_cache"]
    assert not first["used"] and second["used"] and second["loaded_bytes"] == first["saved_bytes"] > 0


def test_unsupported_operator_is_named(tmp_path):
    """The real parser's complaint ends in an error with the operator and the node."""
    node = helper.make_node("NoSuchOperator", ["image"], ["y"], domain="com.example", name="mystery")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    path = tmp_path / "strange.onnx"
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=8), path)
    with pytest.raises(ModelError, match=r"strange\.onnx.*NoSuchOperator.*mystery"):
        plan_from_onnx(path, BuildOptions())


def test_the_time_limit_ends_a_native_build(tmp_path):
    """A build inside TensorRT's own code ends at the limit and leaves no timing cache."""
    with pytest.raises(EngineError, match="--time-limit"):
        plan_from_onnx(
            MODELS / "camera.onnx", BuildOptions(precision="fp16", time_limit=2.0), timing_cache=tmp_path / "cache"
        )
    assert list(tmp_path.iterdir()) == []


def test_no_device(tmp_path, monkeypatch):
    """Where the driver shows no GPU the error is about the machine."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DependencyError, match="no usable GPU"):
        plan_from_onnx(camera_network(tmp_path / "m.onnx"), BuildOptions())


def test_out_of_device_memory(tmp_path):
    """On a full GPU the build ends in a clear error, and this process goes on."""
    import warp as wp

    device = wp.get_device("cuda:0")
    held = []
    size = 1 << 30  # a Warp array has fewer than 2^31 values
    while size >= 1 << 22:
        try:
            held.append(wp.empty(size, wp.uint8, device=device))
        except RuntimeError:
            size //= 2
    try:
        with pytest.raises(EngineError, match=r"(?i)memory"):
            plan_from_onnx(camera_network(tmp_path / "m.onnx"), BuildOptions())
    finally:
        held.clear()
    assert wp.zeros(4, wp.float32, device=device).numpy().sum() == 0
