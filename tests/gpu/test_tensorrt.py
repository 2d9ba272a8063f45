"""TensorRT on a GPU: the shipped network against ONNX Runtime, one enqueue per frame, and every way to fail."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import warp as wp
from tests.onnx_models import camera_network

from saccade import cuda, paths
from saccade.config import EngineConfig
from saccade.engines.buffers import BufferPool
from saccade.engines.onnxruntime import OnnxRuntimeEngine
from saccade.engines.options import BuildOptions, ShapeRange
from saccade.engines.selection import engine_from_onnx
from saccade.engines.store import EngineStore
from saccade.errors import EngineError, ModelError

pytestmark = pytest.mark.gpu
DEVICE = "cuda:0"
CAMERA = paths.MODELS / "camera.onnx"


@wp.kernel
def spin(cycles: int, values: wp.array(dtype=wp.float32)):
    """Keeps one thread busy."""
    value = float(0.0)  # noqa: UP018 (a Warp variable, not a constant)
    for step in range(cycles):
        value = wp.sin(value + float(step))
    values[0] = value


@pytest.fixture(scope="module", autouse=True)
def tensorrt():
    return pytest.importorskip("tensorrt", exc_type=ImportError)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tensorrt")


@pytest.fixture(scope="module")
def plan(folder, tensorrt):
    """The shipped camera network in FP32."""
    from saccade.engines.builder import plan_from_onnx

    return plan_from_onnx(CAMERA, BuildOptions(), timing_cache=folder / "timing.cache").data


@pytest.fixture(scope="module")
def small(folder, tensorrt):
    """A small network with an open batch of 1 to 16, and its plan."""
    from saccade.engines.builder import plan_from_onnx

    path = camera_network(folder / "small.onnx", size=(32, 32), batch="n")
    shapes = {"image": ShapeRange((1, 3, 32, 32), (4, 3, 32, 32), (16, 3, 32, 32))}
    built = plan_from_onnx(path, BuildOptions(shapes=shapes), timing_cache=folder / "timing.cache")
    return SimpleNamespace(path=path, plan=built.data)


def opened(plan, **options):
    from saccade.engines.tensorrt import TensorRTEngine

    return TensorRTEngine(plan, name_of="camera.onnx", **options)


def bound(engine, seed=0):
    """Binds new arrays, the inputs random, and returns them with the inputs on the host."""
    generator = np.random.default_rng(seed)
    arrays, host = {}, {}
    for spec in (*engine.inputs, *engine.outputs):
        dtype = wp.dtype_from_numpy(np.dtype(spec.dtype))
        arrays[spec.name] = wp.zeros(spec.shape, dtype=dtype, device=DEVICE)
        engine.bind(spec.name, arrays[spec.name])
    for spec in engine.inputs:
        host[spec.name] = generator.standard_normal(spec.shape).astype(spec.dtype)
        arrays[spec.name].assign(host[spec.name])
    wp.synchronize_device(DEVICE)
    return arrays, host


def on_cpu(path, host, shapes=None):
    engine = OnnxRuntimeEngine(path, shapes=shapes)
    arrays = {}
    for spec in (*engine.inputs, *engine.outputs):
        value = host.get(spec.name, np.zeros(spec.shape, spec.dtype))
        arrays[spec.name] = wp.array(value, dtype=wp.dtype_from_numpy(np.dtype(spec.dtype)), device="cpu")
        engine.bind(spec.name, arrays[spec.name])
    engine.enqueue()
    return {spec.name: arrays[spec.name].numpy().copy() for spec in engine.outputs}


def assert_close(found, wanted, limit=1e-3):
    for name, value in wanted.items():
        error = np.linalg.norm(found[name] - value) / max(np.linalg.norm(value), 1e-12)
        assert error <= limit, (name, error)


def results(engine, arrays):
    return {spec.name: arrays[spec.name].numpy() for spec in engine.outputs}


# --------------------------------------------------------------------------------------------------------- results


def test_the_shipped_network_agrees_with_onnx_runtime(plan):
    """Every output, in FP32, on a stream of its own; and through ``infer``, which leaves bound arrays as they were."""
    engine = opened(plan)
    arrays, host = bound(engine)
    stream = cuda.stream(DEVICE)
    engine.enqueue(stream)
    cuda.synchronize(stream)
    wanted = on_cpu(CAMERA, host)
    found = results(engine, arrays)
    assert_close(found, wanted)
    first = engine.outputs[0].name
    np.testing.assert_allclose(engine.infer(host[engine.inputs[0].name]), found[first], rtol=1e-5, atol=1e-6)
    arrays[first].zero_()
    engine.enqueue(None)
    assert_close(results(engine, arrays), wanted)
    assert engine.facts()["memory_bytes"] == engine.memory_bytes > 0
    engine.close()
    engine.close()


@pytest.mark.parametrize("batch", [1, 2, 4, 8, 16])
def test_one_engine_serves_any_batch(small, batch):
    """Opened for it, and reshaped to it from another; batches outside the plan's range are refused."""
    engine = opened(small.plan, shapes={"image": (batch, 3, 32, 32)})
    for _ in range(2):
        arrays, host = bound(engine, seed=batch)
        engine.enqueue(None)
        assert_close(results(engine, arrays), on_cpu(small.path, host, {"image": (batch, 3, 32, 32)}))
        engine.reshape({"image": (3, 3, 32, 32)})
        assert engine.outputs[0].shape[0] == 3
        engine.reshape({"image": (batch, 3, 32, 32)})
    with pytest.raises(ModelError, match=r"from \(1, 3, 32, 32\) to \(16, 3, 32, 32\)"):
        engine.reshape({"image": (17, 3, 32, 32)})
    engine.close()


def test_arrays_of_other_libraries(small):
    """Anything with the CUDA array interface: Warp's own through it, and PyCUDA's where it is installed."""
    engine = opened(small.plan, shapes={"image": (1, 3, 32, 32)})
    arrays, host = bound(engine)
    engine.bind("image", SimpleNamespace(__cuda_array_interface__=arrays["image"].__cuda_array_interface__))
    engine.enqueue(None)
    wanted = results(engine, arrays)
    assert np.abs(wanted["labels"]).max() > 0
    if cuda._pycuda_problem() is None:
        import pycuda.gpuarray

        with cuda.primary_context(DEVICE):
            image = pycuda.gpuarray.to_gpu(host["image"])
            engine.bind("image", image)
            arrays["labels"].zero_()
            engine.enqueue(None)
            assert_close(results(engine, arrays), wanted, 1e-6)
            engine.close()
            del image
    engine.close()


# --------------------------------------------------------------------------------------- one enqueue and no more


def test_enqueue_neither_allocates_nor_waits(plan):
    """Free memory and Warp's pool stay as they are over 200 frames; behind a busy stream it returns at once."""
    engine = opened(plan)
    arrays, _ = bound(engine)
    busy = wp.zeros(1, dtype=wp.float32, device=DEVICE)
    stream = cuda.stream(DEVICE)
    wp.launch(spin, 1, inputs=[1, busy], stream=stream)
    for _ in range(20):
        engine.enqueue(stream)
    cuda.synchronize(stream)

    def memory():
        return cuda.driver_facts(DEVICE)["memory_free"], wp.get_mempool_used_mem_current(DEVICE)

    before = memory()
    for _ in range(200):
        engine.enqueue(stream)
    assert memory() == before
    cuda.synchronize(stream)
    wp.launch(spin, 1, inputs=[20_000_000, busy], stream=stream)
    engine.enqueue(stream)
    assert not stream.is_complete
    cuda.synchronize(stream)
    del arrays
    engine.close()


def test_enqueue_in_a_graph(plan):
    """Captured once and replayed, it reads what the input holds then."""
    engine = opened(plan)
    arrays, host = bound(engine)
    stream = wp.Stream(DEVICE)
    for _ in range(3):
        engine.enqueue(stream)
    wp.synchronize_stream(stream)
    with wp.ScopedStream(stream), wp.ScopedCapture(stream=stream) as capture:
        engine.enqueue(stream)
    other = {name: value * 0.5 for name, value in host.items()}
    for name, value in other.items():
        arrays[name].assign(value)
    wp.synchronize_device(DEVICE)
    wp.capture_launch(capture.graph, stream=stream)
    wp.synchronize_stream(stream)
    assert_close(results(engine, arrays), on_cpu(CAMERA, other))
    engine.close()


def test_engines_of_one_shape_share_buffers(small):
    """Two engines that infer by turns take the same arrays from the pool."""
    shared = BufferPool()
    engines = [opened(small.plan, shapes={"image": (2, 3, 32, 32)}, buffers=shared) for _ in range(2)]
    image = np.ones((2, 3, 32, 32), np.float32)
    answers = [engine.infer(image) for engine in engines for _ in range(3)]
    assert all((answer == answers[0]).all() for answer in answers)
    assert shared.allocations == len(engines[0].inputs) + len(engines[0].outputs) and shared.taken == 0
    for engine in engines:
        engine.close()


def test_layers_and_their_times(plan):
    """The inspector names layers; the profiler's shares are of one whole, and the engine still runs after it."""
    engine = opened(plan)
    arrays, host = bound(engine)
    layers = engine.layers()
    assert layers and all(layer["Name"] for layer in layers)
    profile = engine.profile(20)
    assert profile["layers"] and sum(layer["share"] for layer in profile["layers"]) == pytest.approx(1)
    assert all(layer["median_ms"] >= 0 for layer in profile["layers"])
    engine.enqueue(None)
    assert_close(results(engine, arrays), on_cpu(CAMERA, host))
    engine.close()


# ---------------------------------------------------------------------------------------- built, compared, stored


def test_the_whole_way(folder):
    """``auto`` on CUDA: built in FP16, compared, stored; the next start finds it, and says nothing."""
    store = EngineStore(folder / "whole", secret=folder / "keys" / "engines.key")
    lines = []
    engine = engine_from_onnx(CAMERA, EngineConfig(), device=DEVICE, store=store, say=lines.append)
    facts = engine.facts()
    assert engine.name == "tensorrt" and facts["precision"] == "fp16"
    assert facts["qualification"]["passed"] is True and facts["qualification"]["non_finite"] == 0
    assert any("building its engine" in line for line in lines)
    lines.clear()
    again = engine_from_onnx(CAMERA, EngineConfig(), device=DEVICE, store=store, say=lines.append)
    assert lines == [] and again.facts() == facts
    engine.close()
    again.close()


BUILD = """
import sys
from pathlib import Path
from saccade.engines.options import BuildOptions
from saccade.engines.selection import qualified_plan
stored = qualified_plan(Path(sys.argv[1]), BuildOptions(), say=lambda text: print(text, flush=True))
print("key", stored.key)
"""


def test_two_processes_build_one_engine_once(folder, tensorrt):
    """One builds, the other waits and takes it; both end with the same key."""
    path = camera_network(folder / "twice.onnx", size=(32, 32), hazard=0.75)
    environment = {**environ(), "SACCADE_CACHE": str(folder / "twice")}
    command = [sys.executable, "-c", BUILD, str(path)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    output = "".join(out for out, _ in said)
    assert output.count("building its engine") == 1
    assert len({line for line in output.splitlines() if line.startswith("key ")}) == 1


# -------------------------------------------------------------------------------------------------------- failures

OPEN = """
import sys
from pathlib import Path
from saccade.engines.tensorrt import TensorRTEngine
from saccade.errors import SaccadeError
try:
    TensorRTEngine(Path(sys.argv[1]).read_bytes(), name_of="camera.onnx")
    print("opened")
except SaccadeError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("kind", ["truncated", "cut in the header", "another version", "empty", "garbage"])
def test_a_plan_that_does_not_open(plan, folder, kind):
    """Refused with a reason and a remedy; TensorRT is asked in a process of its own, which must not crash."""
    other = bytearray(plan)
    other[4] ^= 0xFF  # the serialization version follows the four bytes of magic
    content = {
        "truncated": plan[: len(plan) // 2],
        "cut in the header": plan[:16],
        "another version": bytes(other),
        "empty": b"",
        "garbage": b"no plan at all " * 999,
    }[kind]
    path = folder / "broken.plan"
    path.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, check=False, env=environ(), timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = done.stdout.splitlines()[-1]
    assert answer.startswith("EngineError camera.onnx: this plan does not open"), answer
    assert "saccade engine build" in answer


FULL = """
import sys
from pathlib import Path
import warp as wp
from saccade.engines.tensorrt import TensorRTEngine
from saccade.errors import EngineError
engine = TensorRTEngine(Path(sys.argv[1]).read_bytes(), name_of="camera.onnx")
wp.set_mempool_enabled("cuda:0", False)
kept, size = [], 1 << 30
while size >= 1 << 16:
    try:
        kept.append(wp.empty(size, dtype=wp.uint8, device="cuda:0"))
    except RuntimeError:
        size //= 2
try:
    contexts = [engine._new_context() for _ in range(64)]
    print("64 contexts")
except EngineError as error:
    print("EngineError", error)
kept.clear()
contexts = None
engine._new_context()
print("recovered")
"""


def test_too_little_memory_for_a_context(plan, folder):
    """On a full GPU: what it needs, what is free, what to do; with room again it works."""
    path = folder / "whole.plan"
    path.write_bytes(plan)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False, env=environ(), timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    (answer,) = [line for line in lines if line.startswith("EngineError")]
    assert "no execution context" in answer and "MiB free of" in answer and "lower the batch" in answer
    assert lines[-1] == "recovered"


def test_a_closed_engine_says_so(plan):
    engine = opened(plan)
    engine.close()
    with pytest.raises(EngineError, match="was closed"):
        engine.enqueue(None)


def environ():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
