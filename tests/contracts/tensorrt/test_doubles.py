"""The doubles themselves: they refuse what their release lacks, and model the documented refusals."""

import ctypes

import numpy as np
import pytest
from tests.contracts.tensorrt.doubles import RELEASES, TensorRTDouble, installed, views
from tests.onnx_models import camera_network

OLD, MIDDLE, NEW = RELEASES


@pytest.fixture(params=RELEASES)
def double(request):
    return TensorRTDouble(request.param)


def collector(trt):
    class Collector(trt.ILogger):
        def __init__(self):
            super().__init__()
            self.said = []

        def log(self, severity, message):
            self.said.append((severity.name, message))

    return Collector()


def parsed(double, path, flags=None):
    """Returns logger, builder, network and configuration of a network."""
    trt = double.module
    if flags is None:
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if double.version < (10,) else 0
    logger = collector(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(path.read_bytes())
    return logger, builder, network, builder.create_builder_config()


def deserialized(double, path):
    logger, builder, network, config = parsed(double, path)
    profile = builder.create_optimization_profile()
    profile.set_shape("image", (1, 3, 16, 16), (2, 3, 16, 16), (4, 3, 16, 16))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    return logger, plan, double.module.Runtime(logger).deserialize_cuda_engine(plan)


@pytest.mark.parametrize("release", [MIDDLE, NEW])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Builder", "build_engine"),
        ("Builder", "max_batch_size"),
        ("ICudaEngine", "num_bindings"),
        ("ICudaEngine", "get_binding_index"),
        ("IExecutionContext", "execute_async_v2"),
        ("IExecutionContext", "set_binding_shape"),
    ],
)
def test_removed_names_are_missing(tmp_path, release, kind, name):
    """What 10 and 11 no longer have raises, on objects that are really in use."""
    double = TensorRTDouble(release)
    logger, _, engine = deserialized(double, camera_network(tmp_path / "m.onnx", batch="n"))
    made = {
        "Builder": double.module.Builder(logger),
        "ICudaEngine": engine,
        "IExecutionContext": engine.create_execution_context(),
    }[kind]
    with pytest.raises(AttributeError, match=name):
        getattr(made, name)
    with pytest.raises(AttributeError, match=name):
        setattr(made, name, 1)


def test_what_is_not_modelled_says_so(double, tmp_path):
    """A name that the release has and the double does not model is no AttributeError: nobody may take it for absent."""
    _, _, engine = deserialized(double, camera_network(tmp_path / "m.onnx", batch="n"))
    with pytest.raises(NotImplementedError, match="get_output_allocator"):
        engine.create_execution_context().get_output_allocator("labels")
    with pytest.raises(NotImplementedError, match="IConvolutionLayer"):
        double.module.IConvolutionLayer  # noqa: B018
    with pytest.raises(AttributeError, match="nothing"):
        double.module.nothing  # noqa: B018


def test_arguments_are_checked(double, tmp_path):
    """Missing, unknown and wrongly typed arguments raise as in the bindings."""
    _, _, engine = deserialized(double, camera_network(tmp_path / "m.onnx", batch="n"))
    context = engine.create_execution_context()
    for wrong in (
        lambda: context.execute_async_v3(),
        lambda: context.execute_async_v3("stream"),
        lambda: context.execute_async_v3(0, 1),
        lambda: context.set_tensor_address("image", 1.5),
        lambda: context.set_tensor_address(0, 1),
        lambda: engine.get_tensor_name("image"),
    ):
        with pytest.raises(TypeError):
            wrong()
    assert context.execute_async_v3(stream_handle=0) is False


def test_subclasses_must_initialize_their_base(double):
    """A logger that forgets to call the base's constructor is refused; one that keeps state of its own works."""

    class Forgetful(double.module.ILogger):
        def __init__(self):
            pass

    with pytest.raises(TypeError, match="must be called"):
        Forgetful()
    assert collector(double.module).said == []


def test_handed_out_classes_cannot_be_made(double):
    """Engines, contexts and networks come from TensorRT alone."""
    with pytest.raises(TypeError, match="No constructor"):
        double.module.ICudaEngine()


def test_flags_on_a_strongly_typed_network_are_refused(tmp_path):
    """10 builds nothing from a strongly typed network with a precision flag."""
    double = TensorRTDouble(MIDDLE)
    trt = double.module
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    logger, builder, network, config = parsed(double, camera_network(tmp_path / "m.onnx"), flags)
    config.set_flag(trt.BuilderFlag.INT8)
    assert builder.build_serialized_network(network, config) is None
    assert "strongly typed" in logger.said[-1][1]


def test_int8_without_scales_is_refused(tmp_path):
    """INT8 with neither a calibrator nor Q/DQ pairs builds nothing."""
    double = TensorRTDouble(OLD)
    logger, builder, network, config = parsed(double, camera_network(tmp_path / "m.onnx"))
    config.set_flag(double.module.BuilderFlag.INT8)
    assert builder.build_serialized_network(network, config) is None
    assert "no scaling factors" in logger.said[-1][1]


def test_implicit_batch_is_refused_by_the_parser(tmp_path):
    """8.5 reads ONNX only into a network with an explicit batch."""
    trt = TensorRTDouble(OLD).module
    logger = collector(trt)
    network = trt.Builder(logger).create_network()
    parser = trt.OnnxParser(network, logger)
    assert not parser.parse(camera_network(tmp_path / "m.onnx").read_bytes())
    assert "explicit batch" in parser.get_error(0).desc()


@pytest.mark.parametrize("damage", [lambda plan: plan[:-1], lambda plan: b"\0" * 64, lambda plan: plan[:40] + b"xx"])
def test_damaged_plans_give_none(double, tmp_path, damage):
    """A truncated, foreign or changed plan deserializes to None, with an error in the log."""
    logger, plan, engine = deserialized(double, camera_network(tmp_path / "m.onnx", batch="n"))
    assert engine is not None
    assert double.module.Runtime(logger).deserialize_cuda_engine(damage(bytes(plan))) is None
    assert logger.said[-1][0] == "ERROR"


def test_plan_of_another_release_gives_none(tmp_path):
    """A plan runs only on the TensorRT that built it."""
    path = camera_network(tmp_path / "m.onnx", batch="n")
    _, plan, _ = deserialized(TensorRTDouble(MIDDLE), path)
    trt = TensorRTDouble(NEW).module
    logger = collector(trt)
    assert trt.Runtime(logger).deserialize_cuda_engine(bytes(plan)) is None
    assert "Version tag" in logger.said[-1][1]


def test_execution(double, tmp_path):
    """A context runs once every address and shape is known, on the bound memory, and reports layers to a profiler."""
    _, _, engine = deserialized(double, camera_network(tmp_path / "m.onnx", batch="n"))
    context = engine.create_execution_context()
    assert context.infer_shapes() == ["image"]
    assert tuple(context.get_tensor_shape("labels")) == (-1, 6, 16, 16)
    assert not context.set_input_shape("image", (5, 3, 16, 16))
    assert context.set_input_shape("image", (2, 3, 16, 16)) and context.infer_shapes() == []
    assert tuple(context.get_tensor_shape("labels")) == (2, 6, 16, 16)
    arrays = {
        engine.get_tensor_name(index): np.zeros(tuple(context.get_tensor_shape(engine.get_tensor_name(index))), "f4")
        for index in range(engine.num_io_tensors)
    }
    assert not context.execute_async_v3(7)
    for name, array in arrays.items():
        assert context.set_tensor_address(name, array.ctypes.data_as(ctypes.c_void_p).value)
    double.on_execute = lambda running: views(running)["labels"].fill(3.0)

    class Profiler(double.module.IProfiler):
        def __init__(self):
            super().__init__()
            self.layers = []

        def report_layer_time(self, layer_name, ms):
            self.layers.append(layer_name)

    profiler = Profiler()
    context.profiler = profiler
    assert context.execute_async_v3(7)
    assert (arrays["labels"] == 3.0).all()
    assert double.executions == [(context, 7)]
    assert len(profiler.layers) == engine.num_layers


def test_installed_puts_back_what_was_there():
    """The stand-in is what ``import tensorrt`` finds inside, and gone outside."""
    import sys

    before = sys.modules.get("tensorrt")
    with installed(NEW) as double:
        import tensorrt

        assert tensorrt is double.module and tensorrt.__version__ == NEW
    assert sys.modules.get("tensorrt") is before
