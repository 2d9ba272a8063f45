"""The real code that builds engines, against the interfaces of three TensorRT releases; proof that this can fail."""

import json
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
import warp as wp
from onnx import TensorProto, helper
from tests.contracts.tensorrt.doubles import RELEASES, TensorRTDouble
from tests.onnx_models import camera_network, residual_network

from saccade.engines import build_worker, networks
from saccade.engines.build_worker import build
from saccade.engines.options import BuildOptions, ShapeRange
from saccade.errors import ConfigurationError, DependencyError, EngineError, ModelError

OLD, MIDDLE, NEW = RELEASES


@pytest.fixture(params=RELEASES)
def double(request):
    return TensorRTDouble(request.param)


@pytest.fixture
def camera(tmp_path):
    return camera_network(tmp_path / "camera.onnx")


@pytest.fixture
def samples(tmp_path):
    path = tmp_path / "samples.npz"
    np.savez(path, image=np.random.default_rng(0).normal(size=(100, 3, 16, 16)).astype(np.float32))
    return path


@pytest.fixture
def said():
    return []


def built(double, path, said, **options):
    return build(double.module, path, BuildOptions(**options), say=said.append, device="cpu")


def described(plan):
    return json.loads(plan.split(b"\n", 2)[2])


def unsupported(path: Path, *, name="mystery") -> Path:
    """Writes a network with an operator that no TensorRT has."""
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], domain="com.example", name=name)
    graph = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["x"], name="first"), node],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=8), path)
    return path


def test_fp32(double, camera, said):
    """A plan of this release with the network's tensors, TF32 off, no precision flag."""
    plan, facts = built(double, camera, said)
    assert described(plan)["version"] == double.module.__version__ == facts["tensorrt"]
    assert [tensor["name"] for tensor in described(plan)["outputs"]] == ["labels", "hazard"]
    assert facts["flags"] == []
    assert facts["network_flags"] == {OLD: ["EXPLICIT_BATCH"], MIDDLE: ["STRONGLY_TYPED"], NEW: []}[facts["tensorrt"]]
    assert described(plan)["detailed"]
    assert double.parsed_paths == [str(camera)]


def test_fp16_is_in_the_graph(double, camera, said):
    """The graph is half between float inputs and outputs; only 8.5 needs the flag."""
    plan, facts = built(double, camera, said, precision="fp16")
    assert {tensor["dtype"] for tensor in (*described(plan)["inputs"], *described(plan)["outputs"])} == {"FLOAT"}
    assert facts["route"] == "onnx half graph"
    network, _ = double.builds[0]
    assert network._half
    assert ("FP16" in facts["flags"]) == (facts["tensorrt"] == OLD)
    assert "OBEY_PRECISION_CONSTRAINTS" not in facts["flags"]


def test_float_layers_are_obeyed_where_tensorrt_chooses(double, tmp_path, said):
    """A half graph with a layer left in float: 8.5 is told so by layer, newer releases see it in the types."""
    from tests.onnx_models import save_network

    path = save_network(
        tmp_path / "m.onnx",
        inputs={"x": [1, 8]},
        outputs={"y": [1, 8]},
        nodes=[
            helper.make_node("Mul", ["x", "large"], ["z"], name="beyond_half"),
            helper.make_node("Sigmoid", ["z"], ["y"], name="within_half"),
        ],
        constants={"large": np.float32(1e6)},
    )
    plan, facts = built(double, path, said, precision="fp16")
    bound = [layer["name"] for layer in described(plan)["layers"] if layer["precision"] == "FLOAT"]
    if facts["tensorrt"] == OLD:
        assert bound == ["beyond_half"]
        assert "OBEY_PRECISION_CONSTRAINTS" in facts["flags"]
    else:
        assert bound == []
        assert facts["flags"] == ["TF32"]
    assert any("large" in text and "beyond_half" in text for text in said)


def test_int8_route(double, camera, samples, said):
    """8.5 asks the calibrator for every sample; newer releases get Q/DQ pairs and no precision flag."""
    _, facts = built(double, camera, said, precision="int8", calibration=samples)
    network, _ = double.builds[0]
    if facts["tensorrt"] == OLD:
        assert facts["route"] == "calibrator"
        assert {"INT8", "FP16"} <= set(facts["flags"])
        assert double.calibration_batches == [100] and facts["calibration_batches"] == 100
        assert not network._quantized
    else:
        assert facts["route"] == "explicit Q/DQ"
        assert facts["flags"] == ["TF32"]
        assert network._quantized and facts["calibration_batches"] is None


def test_calibrator_on_ten_is_weakly_typed(camera, samples, said, monkeypatch):
    """Where 10 is made to calibrate, the network must leave types to TensorRT, or it would refuse the flags."""
    monkeypatch.setattr(networks, "int8_route", lambda version: "calibrator")
    _, facts = built(TensorRTDouble(MIDDLE), camera, said, precision="int8", calibration=samples)
    assert facts["network_flags"] == []
    assert {"INT8", "FP16"} <= set(facts["flags"])


def chosen(plan):
    """Returns precision and output type by layer."""
    layers = described(plan)["layers"]
    return {layer["name"]: (layer["precision"], next(iter(layer["outputs"].values()), None)) for layer in layers}


@pytest.mark.parametrize("release", [OLD, MIDDLE])
def test_the_calibrator_gets_int8_for_products_alone(release, tmp_path, samples, said, monkeypatch):
    """As with Q/DQ pairs: other layers compute in half, and only what products read may be rounded to eight bits."""
    monkeypatch.setattr(networks, "int8_route", lambda version: "calibrator")
    double = TensorRTDouble(release)
    plan, facts = built(double, residual_network(tmp_path / "m.onnx"), said, precision="int8", calibration=samples)
    assert {"INT8", "FP16", "PREFER_PRECISION_CONSTRAINTS"} <= set(facts["flags"])
    assert "OBEY_PRECISION_CONSTRAINTS" not in facts["flags"]
    assert chosen(plan) == {
        "first": (None, None),
        "first_relu": (None, None),
        "second": (None, None),
        "second_relu": (None, "HALF"),
        "third": (None, "HALF"),
        "sum": ("HALF", "HALF"),
        "scaled": ("HALF", None),
        "both": (None, None),
        "labels": (None, "FLOAT"),
        "score": (None, "HALF"),
        "turned": (None, None),
        "share": ("HALF", "HALF"),
        "hazard": ("HALF", "FLOAT"),
    }
    # Inputs and outputs are what they were.
    assert {tensor["dtype"] for tensor in (*described(plan)["inputs"], *described(plan)["outputs"])} == {"FLOAT"}


def test_nodes_without_names_are_constrained_the_same(tmp_path, samples, said):
    named, _ = built(
        TensorRTDouble(OLD), residual_network(tmp_path / "a.onnx"), said, precision="int8", calibration=samples
    )
    bare = residual_network(tmp_path / "b.onnx", named=False)
    unnamed, _ = built(TensorRTDouble(OLD), bare, said, precision="int8", calibration=samples)
    assert list(chosen(unnamed).values()) == list(chosen(named).values())


def test_what_half_cannot_hold_stays_in_float_beside_int8(tmp_path, samples, said):
    path = residual_network(tmp_path / "m.onnx", factor=1e6)
    plan, facts = built(TensorRTDouble(OLD), path, said, precision="int8", calibration=samples)
    assert chosen(plan)["scaled"] == ("FLOAT", "FLOAT") and chosen(plan)["sum"] == ("HALF", "HALF")
    assert "PREFER_PRECISION_CONSTRAINTS" in facts["flags"]
    assert "OBEY_PRECISION_CONSTRAINTS" not in facts["flags"]


@pytest.mark.parametrize("release", [MIDDLE, NEW])
def test_strongly_typed_builds_constrain_no_layer(release, tmp_path, samples, said):
    """There the graph says it, and a constraint would be refused."""
    double = TensorRTDouble(release)
    plan, facts = built(double, residual_network(tmp_path / "m.onnx"), said, precision="int8", calibration=samples)
    assert facts["route"] == "explicit Q/DQ" and facts["flags"] == ["TF32"]
    assert set(chosen(plan).values()) == {(None, None)}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_other_precisions_constrain_no_layer(double, tmp_path, said, precision):
    plan, facts = built(double, residual_network(tmp_path / "m.onnx"), said, precision=precision)
    assert set(chosen(plan).values()) == {(None, None)}
    assert not [flag for flag in facts["flags"] if "CONSTRAINTS" in flag]


def test_shapes_and_integers_have_no_type_to_choose(camera, samples, said):
    """A float tensor that is a shape, as TensorRT has them, is left alone, and so is what gives integers."""
    double = TensorRTDouble(OLD)
    from saccade.engines.constraints import int8_for_products

    built(double, camera, said, precision="int8", calibration=samples)
    network, _ = double.builds[0]
    for layer in network._layers:
        layer.__dict__.pop("precision", None)
        layer._types.clear()
        for tensor in layer._outputs:
            object.__setattr__(tensor, "is_shape_tensor", True)
    assert not int8_for_products(double.module, network)
    for layer in network._layers:
        for tensor in layer._outputs:
            object.__setattr__(tensor, "is_shape_tensor", False)
            tensor.dtype = double.module.DataType.INT32
    assert not int8_for_products(double.module, network)
    assert not any(layer._constrained or layer._types for layer in network._layers)


def test_calibration_uses_the_optimum_of_the_profile(tmp_path, samples, said):
    """With an open batch, TensorRT calibrates at the profile's optimum, so batches have that size."""
    path = camera_network(tmp_path / "open.onnx", batch="n")
    shapes = {"image": ShapeRange((1, 3, 16, 16), (8, 3, 16, 16), (16, 3, 16, 16))}
    double = TensorRTDouble(OLD)
    _, facts = built(double, path, said, precision="int8", calibration=samples, shapes=shapes)
    assert facts["calibration_batches"] == 13  # 100 samples in eights, the last one filled up


def test_quantized_graph_as_given(double, camera, samples, said):
    """A network that brings its own Q/DQ pairs is built as it is, without samples; before 10 the flag says so."""
    from saccade.precision.int8 import calibration_arrays, quantized_from_float

    graph = quantized_from_float(onnx.load(str(camera)), calibration_arrays(samples)).SerializeToString()
    _, facts = build(double.module, camera, BuildOptions(precision="int8"), graph=graph, say=said.append, device="cpu")
    assert facts["route"] == "explicit Q/DQ as given"
    assert ("INT8" in facts["flags"]) == (facts["tensorrt"] == OLD)
    # What is left in float runs in half where TensorRT chooses; strongly typed, as 10 and 11 are, the graph says it.
    assert ("FP16" in facts["flags"]) == (facts["tensorrt"] == OLD)


def test_int8_without_samples(double, camera, said):
    """The option that is missing is named."""
    with pytest.raises(ConfigurationError, match="--calibration"):
        built(double, camera, said, precision="int8")


def test_options_reach_the_configuration(double, camera, said):
    """Sparsity and workspace are set everywhere, the optimization level where it exists."""
    _, facts = built(double, camera, said, sparse=True, workspace=1 << 28, optimization_level=4)
    _, config = double.builds[0]
    assert facts["flags"] == ["SPARSE_WEIGHTS"]
    assert config._pools == {"WORKSPACE": 1 << 28}
    if facts["tensorrt"] == OLD:
        assert any("no optimization level" in text for text in said)
    else:
        assert config.builder_optimization_level == 4


def test_open_dimensions_need_a_range(double, tmp_path, said):
    """Without a range the message shows the options to give; with one, the profile has it."""
    path = camera_network(tmp_path / "open.onnx", batch="n")
    with pytest.raises(ConfigurationError, match=r"image.*\?x3x16x16.*--min image:1x3x16x16"):
        built(double, path, said)
    shapes = {"image": ShapeRange((1, 3, 16, 16), (4, 3, 16, 16), (16, 3, 16, 16))}
    plan, _ = built(double, path, said, shapes=shapes)
    assert described(plan)["profiles"] == [{"image": [[1, 3, 16, 16], [4, 3, 16, 16], [16, 3, 16, 16]]}]


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ({"picture": ShapeRange.fixed((1, 3, 16, 16))}, r"picture.*the inputs are image"),
        ({"image": ShapeRange.fixed((1, 3, 8, 8))}, r"1x3x16x16.*does not fit"),
        ({"image": ShapeRange.fixed((1, 3, 16))}, "does not fit"),
    ],
)
def test_ranges_that_do_not_fit(double, camera, said, shapes, text):
    """A range for no input, or for other sizes than the network's, is refused by name."""
    with pytest.raises(ConfigurationError, match=text):
        built(double, camera, said, shapes=shapes)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_unsupported_operator_is_named(double, tmp_path, said, precision):
    """The error names the file, the operator, its node and a way out."""
    path = unsupported(tmp_path / "strange.onnx")
    with pytest.raises(ModelError, match=r"strange\.onnx.*operator NoSuchOperator.*'mystery'.*onnxruntime"):
        built(double, path, said, precision=precision)


def test_unsupported_operator_is_named_without_onnx(tmp_path, said, monkeypatch):
    """8.5 gives only the node's index; where ONNX is not installed the operator comes from what the parser noted."""
    monkeypatch.setattr(networks, "_node_at", lambda graph, index: ("", ""))
    with pytest.raises(ModelError, match="operator NoSuchOperator"):
        built(TensorRTDouble(OLD), unsupported(tmp_path / "strange.onnx"), said)


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x08\x12\x07"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_corrupt_network(double, tmp_path, said, content, precision):
    """A file that is no network is named."""
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        built(double, path, said, precision=precision)


def test_missing_network(double, tmp_path, said):
    """A missing file is named."""
    with pytest.raises(ModelError, match=r"nothing\.onnx"):
        built(double, tmp_path / "nothing.onnx", said)


def test_no_driver(double, camera, said):
    """Without a driver the error says what to run and how to do without a GPU."""
    double.no_driver = True
    with pytest.raises(DependencyError, match=r"CUDA initialization failure.*nvidia-smi.*onnxruntime"):
        built(double, camera, said)


def test_no_memory_to_begin_with(double, camera, said):
    """A GPU too full for the builder to start is no missing driver."""
    double.no_memory = True
    with pytest.raises(EngineError, match=r"camera\.onnx.*out of memory.*nvidia-smi"):
        built(double, camera, said)


@pytest.mark.parametrize(("status", "kind"), [(2, EngineError), (100, DependencyError), (None, DependencyError)])
def test_where_tensorrt_says_nothing_the_driver_is_asked(double, camera, said, monkeypatch, status, kind):
    """As 8.5 was seen to on a GPU without room for a context: no line in the log, and no builder."""
    double.no_memory = double.silent = True
    monkeypatch.setattr(build_worker, "_context_status", lambda: status)
    with pytest.raises(kind, match="out of memory" if kind is EngineError else "no usable GPU"):
        built(double, camera, said)


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        ("[defaultAllocator] Error Code 1: Cuda Runtime (out of memory)", EngineError, r"out of memory.*--workspace"),
        ("Requested amount of GPU memory (9 bytes) could not be allocated.", EngineError, "nvidia-smi"),
        ("Could not find any implementation for node conv1", EngineError, r"conv1.*larger --workspace than 64 MiB"),
        ("Error Code 4: Internal Error (something else)", ModelError, "something else"),
    ],
)
def test_failed_builds_say_why(double, camera, said, message, kind, text):
    """What TensorRT logged is in the error, with the remedy that fits it."""
    double.build_fails = message
    with pytest.raises(kind, match=text):
        built(double, camera, said, workspace=64 << 20)


def test_failing_calibration_is_told(camera, samples, said, monkeypatch):
    """An exception in a callback, which TensorRT cannot pass on, ends in the error."""

    def refuse(device):
        raise RuntimeError("the device was lost")

    monkeypatch.setattr(wp, "synchronize_device", refuse)
    with pytest.raises(EngineError, match=r"calibration failed: the device was lost"):
        built(TensorRTDouble(OLD), camera, said, precision="int8", calibration=samples)


def test_missing_tactic_libraries_are_left_out(double, camera, said, monkeypatch):
    """Sources whose library is missing go, the others stay; with all there, the default is left alone."""
    default = sorted(double.module.TacticSource.__members__)
    monkeypatch.setattr(build_worker, "_exports", lambda file, function: True)
    assert built(double, camera, said)[1]["tactic_sources"] == default
    monkeypatch.setattr(build_worker, "_exports", lambda file, function: function == "cudnnCreate")
    kept = built(double, camera, said)[1]["tactic_sources"]
    assert kept == [name for name in default if not name.startswith("CUBLAS")]


def test_timing_cache_is_kept(double, camera, tmp_path, said):
    """The first build writes the file, the second uses it, a damaged one is replaced and said."""
    cache = tmp_path / "engines" / "timing.cache"

    def facts():
        built = build(double.module, camera, BuildOptions(), timing_cache=cache, say=said.append, device="cpu")
        return built[1]["timing_cache"]

    first = facts()
    assert not first["used"] and first["saved_bytes"] == cache.stat().st_size > 0
    second = facts()
    assert second["used"] and second["loaded_bytes"] == first["saved_bytes"]
    cache.write_bytes(b"of another GPU")
    assert not facts()["used"]
    assert any("timing.cache" in text and "another GPU" in text for text in said)
    assert facts()["used"]
    assert [file.name for file in cache.parent.iterdir()] == ["timing.cache"]


def test_timing_cache_that_cannot_be_written(double, camera, tmp_path, said):
    """The engine comes all the same, and the reason is said."""
    (tmp_path / "file").write_text("in the way")
    cache = tmp_path / "file" / "timing.cache"
    _, facts = build(double.module, camera, BuildOptions(), timing_cache=cache, say=said.append, device="cpu")
    assert facts["timing_cache"]["saved_bytes"] == 0
    assert any("cannot write the timing cache" in text for text in said)


def test_failed_build_leaves_the_timing_cache_alone(double, camera, tmp_path, said):
    """A build that fails writes nothing."""
    double.build_fails = "no"
    with pytest.raises(ModelError):
        build(double.module, camera, BuildOptions(), timing_cache=tmp_path / "t", say=said.append, device="cpu")
    assert not (tmp_path / "t").exists()


def test_phases_are_said_where_they_exist(double, camera, said):
    """10 and 11 report phases; 8.5 has none to report."""
    built(double, camera, said)
    assert ("Building (2 steps)" in said) == (double.version >= (10,))


REMOVED = {
    "build_engine": ("builder.build_serialized_network(network", "builder.build_engine(network"),
    "max_batch_size": ('say("building")', "builder.max_batch_size = 1"),
    "max_workspace_size": ('say("building")', "config.max_workspace_size = 1 << 28"),
    "FP16": ('say("building")', "config.set_flag(trt.BuilderFlag.FP16)"),
}


@pytest.mark.parametrize("removed", REMOVED)
def test_the_contract_fails_when_a_removed_call_is_put_in(removed, camera, said):
    """The same source with one removed call is caught: by a missing name, or by TensorRT's refusal to build."""
    source = Path(build_worker.__file__).read_text(encoding="utf-8")
    old, new = REMOVED[removed]
    assert source.count(old) == 1
    changed = types.ModuleType("changed_build_worker")
    exec(compile(source.replace(old, new), "changed_build_worker", "exec"), changed.__dict__)
    unchanged = build(TensorRTDouble(NEW).module, camera, BuildOptions(), say=said.append)
    assert unchanged[1]["layers"] > 0
    with pytest.raises(AttributeError, match=removed):
        changed.build(TensorRTDouble(NEW).module, camera, BuildOptions(), say=said.append)
    with pytest.raises((AttributeError, ModelError), match=removed):
        changed.build(TensorRTDouble(MIDDLE).module, camera, BuildOptions(), say=said.append)
