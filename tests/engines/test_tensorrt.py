"""The TensorRT runtime on doubles of three releases: what it calls, in which order, and how it fails."""

import contextlib
import hashlib
import importlib
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import warp as wp
from tests.contracts.tensorrt.build_models import MAGIC
from tests.contracts.tensorrt.doubles import RELEASES, installed, views

from saccade import cuda
from saccade.engines.base import Engine
from saccade.errors import DependencyError, EngineError, ModelError

MODULE = "saccade.engines.tensorrt"
STREAM = SimpleNamespace(cuda_stream=0x70)


@pytest.fixture(params=RELEASES)
def double(request, monkeypatch):
    """Each release in turn, on a machine that is said to have one GPU."""
    monkeypatch.setattr(cuda, "require", lambda device: device)
    monkeypatch.setattr(cuda, "primary_context", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(
        cuda, "driver_facts", lambda device: {"name": "GPU", "memory_free": 3 << 20, "memory_total": 8 << 20}
    )
    with installed(request.param, MODULE) as double:
        yield double


def tensor(name, dims, dtype="FLOAT"):
    return {"name": name, "dims": dims, "dtype": dtype}


def plan_of(
    double, *, inputs=None, outputs=None, profiles=None, layers=("conv", "add"), detailed=False, version=None
) -> bytes:
    """A plan as the double's builder writes it."""
    described = {
        "version": version or double.module.__version__,
        "inputs": inputs or [tensor("image", [1, 3, 4, 4])],
        "outputs": outputs or [tensor("labels", [1, 6, 4, 4]), tensor("hazard", [1, 1])],
        "profiles": profiles if profiles is not None else [{}],
        "layers": [{"name": name, "type": "CONVOLUTION"} for name in layers],
        "detailed": detailed,
    }
    body = json.dumps(described, sort_keys=True).encode()
    return MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def open_dims(double, **options):
    """A plan whose batch is open: 1 to 8, tuned for 2, the second profile for 16 alone."""
    shapes = {"image": [[1, 3, 4, 4], [2, 3, 4, 4], [8, 3, 4, 4]]}
    large = {"image": [[16, 3, 4, 4]] * 3}
    return plan_of(
        double,
        inputs=[tensor("image", ["batch", 3, 4, 4])],
        outputs=[tensor("labels", ["batch", 6, 4, 4])],
        profiles=[shapes, large],
        **options,
    )


def engine_of(plan, **options):
    return importlib.import_module(MODULE).TensorRTEngine(plan, name_of="camera.onnx", **options)


class OnGpu:
    """An array with ``__cuda_array_interface__`` whose memory is the host's: what a double executes on."""

    def __init__(self, array, *, strides=None, read_only=False, device=None):
        self.array = array
        pointer = array.__array_interface__["data"][0]
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (pointer, read_only), "strides": strides,
            "version": 3,
        }  # fmt: skip
        if device is not None:
            self.device = device


def bind_all(engine):
    """Binds new arrays to every tensor and returns them by name."""
    arrays = {spec.name: OnGpu(np.zeros(spec.shape, spec.dtype)) for spec in (*engine.inputs, *engine.outputs)}
    for name, array in arrays.items():
        engine.bind(name, array)
    return {name: array.array for name, array in arrays.items()}


# ------------------------------------------------------------------------------------------------------- running


def test_tensors_have_names_shapes_and_types(double):
    """From the plan, in its order, inputs and outputs apart; it is an engine like any other."""
    plan = plan_of(double, inputs=[tensor("image", [1, 3, 4, 4], "HALF"), tensor("index", [2], "INT32")])
    engine = engine_of(plan)
    assert isinstance(engine, Engine)
    assert [(spec.name, spec.shape, spec.dtype) for spec in engine.inputs] == [
        ("image", (1, 3, 4, 4), "float16"), ("index", (2,), "int32"),
    ]  # fmt: skip
    assert [spec.name for spec in engine.outputs] == ["labels", "hazard"]
    facts = engine.facts()
    assert facts["engine"] == "tensorrt" and facts["version"] == double.module.__version__
    assert facts["memory_bytes"] == engine.memory_bytes == 1 << 20
    assert facts["plan_sha256"] == hashlib.sha256(plan).hexdigest()
    json.dumps(facts)


def test_enqueue_runs_on_the_bound_arrays_and_the_given_stream(double):
    """Addresses are set once; per frame there is one call, on that stream, whatever happened to the input in place."""
    engine = engine_of(plan_of(double))
    arrays = bind_all(engine)
    set_again = []
    double.module.IExecutionContext.set_tensor_address = lambda *arguments: set_again.append(arguments)
    double.on_execute = lambda context: views(context)["labels"].fill(views(context)["image"].sum())
    for value in (1.0, 2.0):
        arrays["image"].fill(value)
        engine.enqueue(STREAM)
        assert (arrays["labels"] == value * 48).all()
    assert [handle for _, handle in double.executions] == [0x70, 0x70]
    assert set_again == []


def test_the_default_stream_is_that_of_the_device(double, monkeypatch):
    """Warp gives it; its handle may be none, which is CUDA's stream 0."""
    engine = engine_of(plan_of(double))
    bind_all(engine)
    asked = []
    monkeypatch.setattr(wp, "get_stream", lambda device: asked.append(device) or SimpleNamespace(cuda_stream=None))
    engine.enqueue()
    assert asked == ["cuda:0"] and double.executions[0][1] == 0


def test_code_in_plans_is_switched_off_where_it_can_be(double):
    """TensorRT 8.5 has no such switch; 10 and 11 have it, and it is off."""
    engine_of(plan_of(double))
    assert double.host_code_allowed == [None if double.version < (8, 6) else False]


def test_open_dimensions(double):
    """As the plan is tuned, as asked for, and changed later; outputs follow, arrays that no longer fit are let go."""
    engine = engine_of(open_dims(double))
    assert engine.inputs[0].shape == (2, 3, 4, 4) and engine.outputs[0].shape == (2, 6, 4, 4)
    engine = engine_of(open_dims(double), shapes={"image": (4, 3, 4, 4)})
    assert engine.outputs[0].shape == (4, 6, 4, 4)
    bind_all(engine)
    engine.enqueue(STREAM)
    engine.reshape({"image": (8, 3, 4, 4)})
    with pytest.raises(EngineError, match="nothing is bound to image, labels"):
        engine.enqueue(STREAM)
    arrays = bind_all(engine)
    engine.enqueue(STREAM)
    assert arrays["labels"].shape == (8, 6, 4, 4) and len(double.executions) == 2
    engine.reshape({"image": (8, 3, 4, 4)})
    engine.enqueue(STREAM)


def test_another_profile(double, monkeypatch):
    """Chosen when it is opened; its range holds."""
    synchronized = []
    monkeypatch.setattr(wp, "get_stream", lambda device: STREAM)
    monkeypatch.setattr(wp, "synchronize_stream", synchronized.append)
    engine = engine_of(open_dims(double), optimization_profile=1)
    assert engine.inputs[0].shape == (16, 3, 4, 4) and synchronized == [STREAM]
    with pytest.raises(ModelError, match="no optimization profile 2; it has 0 to 1"):
        engine_of(open_dims(double), optimization_profile=2)


def test_close_is_final_and_can_be_repeated(double):
    """What is used after it says that the engine was closed."""
    engine = engine_of(plan_of(double))
    bind_all(engine)
    engine.close()
    engine.close()
    for use in (lambda: engine.enqueue(STREAM), engine.layers, lambda: engine.reshape({})):
        with pytest.raises(EngineError, match=r"camera\.onnx: this engine was closed"):
            use()
    assert engine.facts()["memory_bytes"] == 1 << 20  # a summary is written after the engine was closed


@pytest.mark.parametrize("detailed", [False, True])
def test_layers_have_names(double, detailed):
    """Whether the inspector gives names alone or descriptions."""
    layers = engine_of(plan_of(double, detailed=detailed)).layers()
    assert [layer["Name"] for layer in layers] == ["conv", "add"]
    assert all(("LayerType" in layer) == detailed for layer in layers)


# ------------------------------------------------------------------------------------------------------- binding


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (OnGpu(np.zeros((1, 3, 4, 5), np.float32)), r"float32 \(1, 3, 4, 4\), bound was a float32 \(1, 3, 4, 5\)"),
        (OnGpu(np.zeros((1, 3, 4, 4), np.float16)), r"bound was a float16 \(1, 3, 4, 4\)"),
        (OnGpu(np.zeros((1, 3, 4, 4), np.float32), strides=(4, 4, 4, 4)), "bound was a non-contiguous float32"),
        (OnGpu(np.zeros((1, 3, 4, 4), np.float32), device=SimpleNamespace(index=1)), r"runs on cuda:0.*on cuda:1"),
        (OnGpu(np.zeros((1, 3, 4, 4), np.float32), device=SimpleNamespace(id=2)), r"runs on cuda:0.*on cuda:2"),
        (np.zeros((1, 3, 4, 4), np.float32), "bound to a ndarray: expected a Warp array or an object with __cuda"),
        ("image", "bound to a str"),
    ],
)
def test_bind_refuses_what_does_not_fit(double, array, words):
    """The message names network, tensor, both layouts."""
    with pytest.raises(ModelError, match=f"camera.onnx.*{words}"):
        engine_of(plan_of(double)).bind("image", array)


def test_bind_refuses_arrays_on_the_host_unknown_names_and_read_only_outputs(double):
    engine = engine_of(plan_of(double))
    with pytest.raises(ModelError, match=r"TensorRT runs on cuda:0 here, tensor 'image' was bound on cpu"):
        engine.bind("image", wp.zeros((1, 3, 4, 4), dtype=wp.float32, device="cpu"))
    with pytest.raises(ModelError, match="no tensor 'picture'; it has image, labels, hazard"):
        engine.bind("picture", OnGpu(np.zeros(1)))
    read_only = OnGpu(np.zeros((1, 1), np.float32), read_only=True)
    with pytest.raises(ModelError, match="output 'hazard' was bound to a read-only array"):
        engine.bind("hazard", read_only)
    engine.bind("image", OnGpu(np.zeros((1, 3, 4, 4), np.float32), read_only=True))


def test_contiguous_strides_are_contiguous(double):
    """Libraries may spell them out, and may give any stride to a dimension of one."""
    array = np.zeros((1, 3, 4, 4), np.float32)
    engine = engine_of(plan_of(double))
    engine.bind("image", OnGpu(array, strides=array.strides))
    engine.bind("image", OnGpu(array, strides=(7, *array.strides[1:])))


def test_a_scalar_output_takes_one_element(double):
    engine = engine_of(plan_of(double, outputs=[tensor("score", [])]))
    assert engine.outputs[0].shape == ()
    engine.bind("score", OnGpu(np.zeros(1, np.float32)))


def test_bound_arrays_are_kept_alive(double):
    """The engine holds them: the address stays valid when nobody else does."""
    engine = engine_of(plan_of(double))
    array = OnGpu(np.zeros((1, 3, 4, 4), np.float32))
    before = sys.getrefcount(array)
    engine.bind("image", array)
    assert sys.getrefcount(array) == before + 1
    engine.close()
    assert sys.getrefcount(array) == before


# -------------------------------------------------------------------------------------------------------- errors


def test_every_tensor_must_be_bound(double):
    engine = engine_of(plan_of(double))
    engine.bind("labels", OnGpu(np.zeros((1, 6, 4, 4), np.float32)))
    with pytest.raises(EngineError, match="nothing is bound to image, hazard"):
        engine.enqueue(STREAM)
    assert double.executions == []


def test_a_failed_enqueue_names_engine_stream_and_reason(double):
    """TensorRT only returns false: what it logged is the reason; a warning before it is none."""
    engine = engine_of(plan_of(double))
    bind_all(engine)
    log = sys.modules[MODULE]._LOG
    log.log(double.module.ILogger.WARNING, "something harmless")
    double.execution_fails = "illegal memory access"
    with pytest.raises(EngineError, match=r"camera\.onnx on cuda:0, stream 0x70.*illegal memory access") as caught:
        engine.enqueue(STREAM)
    assert "harmless" not in str(caught.value) and "CUDA_LAUNCH_BLOCKING" in str(caught.value)
    assert caught.value.exit_status == 3


BROKEN = {
    "truncated": lambda double: plan_of(double)[:-20],
    "changed": lambda double: plan_of(double).replace(b"labels", b"lapels"),
    "empty": lambda double: b"",
    "no plan": lambda double: b"not a plan",
    "of another version": lambda double: plan_of(double, version="7.2.3"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_plan_that_does_not_open(double, kind):
    """TensorRT gives none: the error has its reason, its version and what to do."""
    with pytest.raises(EngineError, match=r"camera\.onnx: this plan does not open.*saccade engine build") as caught:
        engine_of(BROKEN[kind](double))
    text = str(caught.value)
    assert double.module.__version__ in text
    assert {"empty": "the plan is empty", "of another version": "7.2.3"}.get(kind, "Serialization") in text


def test_too_little_memory_for_a_context(double):
    """What it needs, what is free, and how to get more."""
    double.context_fails = True
    with pytest.raises(EngineError, match=r"(?s)OutOfMemory.*needs 1 MiB.*3 MiB free of 8 MiB.*lower the batch"):
        engine_of(plan_of(double))


def test_too_little_memory_for_the_weights(double):
    """A plan that is good but does not fit is not called broken."""

    def no_room(self, _plan):
        self._logger._say("ERROR", "Error Code 2: OutOfMemory (no further information)")

    double.module.Runtime.deserialize_cuda_engine = no_room
    with pytest.raises(EngineError, match=r"no room for this engine: .*3 MiB free of 8 MiB"):
        engine_of(plan_of(double))


def test_no_driver(double, monkeypatch):
    """Found by Warp before TensorRT is asked; and where TensorRT's own start fails, that is said."""
    double.no_driver = True
    with pytest.raises(DependencyError, match=r"does not start on cuda:0: CUDA initialization failure.*nvidia-smi"):
        engine_of(plan_of(double))

    def none(device):
        raise DependencyError("no NVIDIA driver")

    monkeypatch.setattr(cuda, "require", none)
    with pytest.raises(DependencyError, match="no NVIDIA driver"):
        engine_of(plan_of(double))


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"image": (9, 3, 4, 4)}, r"from \(1, 3, 4, 4\) to \(8, 3, 4, 4\), asked for was \(9, .*--max image:9x3x4x4"),
        ({"image": (1, 3, 4)}, r"asked for was \(1, 3, 4\)"),
        ({"image": (1, 3, 5, 4)}, r"asked for was \(1, 3, 5, 4\)"),
        ({"picture": (1,)}, "no input picture; it has image"),
    ],
)  # fmt: skip
def test_shapes_that_the_plan_does_not_take(double, shapes, words):
    with pytest.raises(ModelError, match=words):
        engine_of(open_dims(double), shapes=shapes)


def test_a_static_input_cannot_be_reshaped(double):
    engine = engine_of(plan_of(double), shapes={"image": (1, 3, 4, 4)})
    with pytest.raises(ModelError, match=r"input 'image' has shape \(1, 3, 4, 4\), asked for was \(2, 3, 4, 4\)"):
        engine.reshape({"image": (2, 3, 4, 4)})


def test_outputs_whose_shape_depends_on_the_data(double):
    plan = plan_of(double, outputs=[tensor("boxes", ["found", 4])])
    with pytest.raises(ModelError, match="shape of output 'boxes' depends on the data"):
        engine_of(plan)


def test_types_that_numpy_lacks(double):
    if "BF16" not in double.module.DataType.__members__:
        pytest.skip("this release has no such type")
    with pytest.raises(ModelError, match=r"'image' is BF16.*float inputs"):
        engine_of(plan_of(double, inputs=[tensor("image", [1], "BF16")]))


# ----------------------------------------------------------------------------------------------------- profiling


def test_profile_uses_a_context_of_its_own(double, monkeypatch):
    """Layers with their times and shares; the engine's own context never gets a profiler, warm-up is not counted."""
    engine = engine_of(plan_of(double))
    bind_all(engine)
    monkeypatch.setattr(wp, "ScopedDevice", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(wp, "get_stream", lambda device: STREAM)
    synchronized = []
    monkeypatch.setattr(cuda, "synchronize", synchronized.append)
    engine._pool = SimpleNamespace(borrowed=lambda specs, device: contextlib.nullcontext({}))
    found = engine.profile(7)
    assert [layer["name"] for layer in found["layers"]] == ["conv", "add"]
    assert found["layers"][0] == {"name": "conv", "median_ms": 0.001, "mean_ms": 0.001, "share": 0.5}
    assert (found["iterations"], found["warmup"]) == (7, 10) and found["total_ms"] == pytest.approx(0.002)
    assert len(double.executions) == len(synchronized) == 17
    (context,) = {context for context, _ in double.executions}
    assert context is not engine._context and engine._context.profiler is None


# -------------------------------------------------------------------------------------------------- the contract


REMOVED = ("execute_async_v2", "set_binding_shape", "get_binding_shape")


@pytest.mark.parametrize("name", REMOVED)
def test_a_removed_call_would_fail_the_contract(double, name):
    """Put into the enqueue, it works on 8.5 at most: the doubles tell, so these tests would."""
    engine = engine_of(plan_of(double))
    bind_all(engine)
    with pytest.raises((AttributeError, NotImplementedError)) as caught:
        getattr(engine._context, name)([], 0x70)
    assert (caught.type is AttributeError) == (double.version >= (10,))


@pytest.mark.parametrize("name", ["max_batch_size", "num_bindings", "get_binding_index"])
def test_a_removed_property_would_fail_the_contract(double, name):
    with pytest.raises((AttributeError, NotImplementedError)) as caught:
        getattr(engine_of(plan_of(double))._engine, name)
    assert (caught.type is AttributeError) == (double.version >= (10,))
