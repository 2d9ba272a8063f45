"""Which engine is taken, and that a TensorRT engine is built, compared and stored before it is used.

On doubles of TensorRT whose "GPU" is the host: the real builder, store, runtime and qualification run on it.
"""

import contextlib
import importlib
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import warp as wp
from tests.contracts.tensorrt.doubles import RELEASES, installed, views
from tests.onnx_models import camera_network

from saccade import cuda
from saccade.config import EngineConfig
from saccade.engines import selection
from saccade.engines.builder import BuiltPlan
from saccade.engines.options import BuildOptions, ShapeRange
from saccade.engines.store import EngineStore
from saccade.errors import DependencyError, EngineError, ModelError

MODULE = "saccade.engines.tensorrt"
FACTS = {"name": "GPU", "sm": "90", "driver": "580", "cuda": "13.0", "memory_free": 1, "memory_total": 2}


@pytest.fixture
def store(tmp_path):
    return EngineStore(tmp_path / "engines", secret=tmp_path / "keys" / "engines.key")


@pytest.fixture
def network(tmp_path):
    return camera_network(tmp_path / "camera.onnx")


@pytest.fixture
def no_tensorrt(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)


@pytest.fixture(params=RELEASES)
def machine(request, monkeypatch):
    """A release of TensorRT on a GPU that is the host; it computes what ONNX Runtime does, times ``gain``."""
    monkeypatch.setattr(cuda, "require", lambda device: "cpu")
    monkeypatch.setattr(cuda, "primary_context", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(cuda, "driver_facts", lambda device: FACTS)
    monkeypatch.setattr(wp, "get_stream", lambda device: SimpleNamespace(cuda_stream=1))
    with installed(request.param, MODULE) as double:
        state = SimpleNamespace(double=double, gain=1.0, builds=[], devices=[], session=None)

        def build(path, options, *, timing_cache, say, device):
            from saccade.engines import build_worker

            state.builds.append(options)
            state.devices.append(device)
            state.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            say("building")
            return BuiltPlan(*build_worker.build(double.module, path, options, say=say, device="cpu"))

        def execute(context):
            arrays = views(context)
            found = state.session.run(None, {"image": arrays["image"]})
            for node, value in zip(state.session.get_outputs(), found, strict=True):
                arrays[node.name][...] = value * state.gain

        double.on_execute = execute
        # The builder works in a child process, which has no double.
        monkeypatch.setattr("saccade.engines.builder.plan_from_onnx", build)
        yield state


def open_engine(path, store, lines=None, **options):
    config = EngineConfig(backend="tensorrt", **options.pop("config", {}))
    say = (lambda _text: None) if lines is None else lines.append
    return selection.engine_from_onnx(path, config, device="cuda:0", store=store, say=say, **options)


# ---------------------------------------------------------------------------------------------------- which engine


@pytest.mark.parametrize(
    ("backend", "device"), [("auto", "cpu"), ("auto", "cuda:0"), ("onnxruntime", "cpu"), ("onnxruntime", "cuda:0")]
)
def test_onnx_runtime_without_tensorrt(no_tensorrt, network, backend, device):
    """Asked for, or the best there is; callers that name no device mean the CPU."""
    config = EngineConfig(backend=backend)
    assert selection.engine_from_onnx(network, config, device=device).name == "onnxruntime"
    assert selection.engine_from_onnx(network, config).name == "onnxruntime"


def test_tensorrt_is_taken_on_cuda_and_not_on_the_cpu(machine, network, store):
    """``auto``: by the device."""
    for device, name in (("cuda:0", "tensorrt"), ("cpu", "onnxruntime")):
        engine = selection.engine_from_onnx(network, EngineConfig(precision="fp32"), device=device, store=store)
        assert engine.name == name
    assert len(machine.builds) == 1


def test_an_engine_is_built_on_the_gpu_that_runs_it(machine, network, store):
    """Not on the first one: another GPU may be of another kind."""
    selection.engine_from_onnx(
        network, EngineConfig(backend="tensorrt", precision="fp32"), device="cuda:1", store=store
    )
    assert machine.devices == ["cuda:1"]


def test_tensorrt_by_name_says_what_is_missing(no_tensorrt, network):
    """The package, with the line that installs it."""
    with pytest.raises(DependencyError, match=r"(?s)engine\.backend.*pip install tensorrt.*onnxruntime"):
        selection.engine_from_onnx(network, EngineConfig(backend="tensorrt"), device="cuda:0")


def test_tensorrt_by_name_needs_cuda(machine, network):
    with pytest.raises(DependencyError, match=r"engine\.backend: tensorrt needs a CUDA device.*'cpu'.*--device cuda"):
        selection.engine_from_onnx(network, EngineConfig(backend="tensorrt"))


def test_build_options_come_from_the_configuration(tmp_path):
    """Each field has its place; memory is in bytes there."""
    config = EngineConfig(precision="int8", sparse=True, workspace_mib=2, calibration="a.npz", build_limit_s=5)
    options = selection.options_from_config(config, ranges={"x": ShapeRange.fixed((1, 2))})
    assert (options.precision, options.sparse, options.workspace, options.time_limit) == ("int8", True, 2 << 20, 5.0)
    assert str(options.calibration) == "a.npz" and options.shapes["x"].maximum == (1, 2)
    assert selection.options_from_config(EngineConfig()) == BuildOptions(precision="fp16")


# --------------------------------------------------------------------------------------------- built and compared


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_is_built_compared_and_found_again(machine, network, store, precision):
    """The first start builds and compares, the second does neither; the record has key, hash and figures."""
    lines = []
    config = {"precision": precision}
    facts = open_engine(network, store, lines, config=config).facts()
    assert "camera.onnx: building its engine" in lines[0]
    assert f"comparing its {precision} engine with ONNX Runtime" in lines[-1]
    assert facts["precision"] == precision and facts["foreign"] is False
    assert facts["qualification"]["passed"] is True and facts["qualification"]["samples"] == 16
    assert facts["sha256"] == selection.engine_from_onnx(network, EngineConfig()).facts()["sha256"]
    assert facts["build"]["tensorrt"] == machine.double.module.__version__
    (entry,) = store.verify()
    assert entry.problem is None and entry.manifest["qualification"] == facts["qualification"]
    lines.clear()
    machine.double.executions.clear()
    again = open_engine(network, store, lines, config=config)
    assert again.facts() == facts and lines == [] and machine.double.executions == []
    assert len(machine.builds) == 1


def test_an_engine_that_differs_too_much_may_not_be_used(machine, network, store):
    """Not at first, and not at the next start either, which compares nothing again; the figures are in the error."""
    machine.gain = 1.02
    for _ in range(2):
        with pytest.raises(EngineError, match=r"relative L2 of labels 0\.02.*limit 0\.01.*saccade engine remove"):
            open_engine(network, store)
        machine.gain = 1.0
    assert len(machine.builds) == 1
    (entry,) = store.list()
    assert entry.manifest["qualification"]["passed"] is False
    store.remove(entry.key)
    assert open_engine(network, store).facts()["qualification"]["passed"] is True


def test_values_that_are_not_finite_are_counted(machine, network, store):
    machine.gain = np.nan
    with pytest.raises(EngineError, match=r"24592 non-finite values, 16 samples"):
        open_engine(network, store)


def test_an_open_batch_takes_the_shape_that_is_asked_for(machine, tmp_path, store):
    """By default that shape alone, each with an engine of its own; with ranges one engine serves all in them."""
    path = camera_network(tmp_path / "open.onnx", batch="n")
    engine = open_engine(path, store, shapes={"image": (2, 3, 16, 16)})
    assert engine.outputs[0].shape == (2, 6, 16, 16)
    assert open_engine(path, store, defaults={"image": (3, 3, 16, 16)}).outputs[0].shape == (3, 6, 16, 16)
    assert [options.shapes["image"].maximum[0] for options in machine.builds] == [2, 3]
    ranges = {"image": ShapeRange((1, 3, 16, 16), (4, 3, 16, 16), (16, 3, 16, 16))}
    for batch in (1, 5, 16):
        engine = open_engine(path, store, shapes={"image": (batch, 3, 16, 16)}, ranges=ranges)
        assert engine.inputs[0].shape[0] == batch
    assert len(machine.builds) == 3


def test_a_static_network_needs_no_shapes(machine, network, store):
    """So that ``saccade engine build`` without shapes makes the engine that a run then finds."""
    open_engine(network, store, shapes={"image": (1, 3, 16, 16)})
    assert machine.builds[0].shapes == {}
    with pytest.raises(ModelError, match=r"image.*\[1, 3, 16, 16\].*\[1, 3, 8, 8\].*size"):
        open_engine(network, store, shapes={"image": (1, 3, 8, 8)})


def test_calibration_samples_are_what_it_is_compared_on(machine, network, store, tmp_path):
    """From all over the set; samples of another input are refused by name."""
    samples = tmp_path / "samples.npz"
    images = np.random.default_rng(0).standard_normal((120, 3, 16, 16)).astype(np.float32)
    np.savez(samples, image=images)
    config = {"precision": "int8", "calibration": str(samples)}
    figures = open_engine(network, store, config=config).facts()["qualification"]
    assert (figures["inputs"], figures["samples"]) == ("given", 16)
    np.savez(samples, picture=images)
    with pytest.raises(Exception, match=r"picture"):
        open_engine(network, store, config=config)


# ----------------------------------------------------------------------------------------------------------- plans


def test_a_plan_file_is_opened_when_it_is_trusted(machine, network, store, tmp_path):
    """One built elsewhere: refused at first, opened once its hash was named; what was built here needs no naming."""
    open_engine(network, store, config={"precision": "fp32"})
    (built,) = store.folder.glob("*.plan")
    plan = tmp_path / "copy.plan"
    plan.write_bytes(built.read_bytes())
    assert open_engine(plan, store).facts()["precision"] == "fp32"
    store.remove(store.list()[0].key)
    with pytest.raises(EngineError, match=r"copy\.plan: this plan was not built here.*--trust"):
        open_engine(plan, store)
    store.trust(plan, store_digest(plan))
    facts = open_engine(plan, store).facts()
    assert (facts["foreign"], facts["precision"], facts["file"]) == (True, "unknown", "copy.plan")


def test_a_plan_file_needs_tensorrt(no_tensorrt, tmp_path):
    with pytest.raises(ModelError, match=r"robot\.plan: only TensorRT on CUDA opens a plan"):
        selection.engine_from_onnx(tmp_path / "robot.plan", EngineConfig())


def store_digest(path):
    return importlib.import_module("saccade.engines.files").digest(path.read_bytes())
