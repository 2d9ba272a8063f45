"""Whole frames on a GPU: TensorRT in captured graphs, what crosses PCIe, stamps, failures, batches, no allocation."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import warp as wp
from onnx import helper
from tests.onnx_models import camera_network, save_network
from tests.stream_doubles import PaintingSimulator, configuration, drive

from saccade import cuda, paths
from saccade.config import EngineConfig
from saccade.execution import HostExecution, execution_for
from saccade.frame import STAGES
from saccade.network import Network
from saccade.stream_execution import MAX_GRAPHS, REHEARSALS, StreamExecution

pytestmark = pytest.mark.gpu
DEVICE = "cuda:0"
SIZE = 32
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def tensorrt(tmp_path_factory):
    """TensorRT, with engines kept in a folder of this module."""
    module = pytest.importorskip("tensorrt", exc_type=ImportError)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SACCADE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield module


@pytest.fixture(scope="module")
def models(tmp_path_factory, tensorrt):
    """The colour network with labels, and one whose hazard is the mean of each image; both take any batch."""
    folder = tmp_path_factory.mktemp("models")
    mean = save_network(
        folder / "mean.onnx",
        inputs={"image": ["n", 3, SIZE, SIZE]},
        outputs={"hazard": ["n", 1]},
        nodes=[
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Reshape", ["mean", "shape"], ["hazard"]),
        ],
        constants={"shape": np.array([-1, 1], np.int64)},
    )
    return {"labels": camera_network(folder / "labels.onnx", size=(SIZE, SIZE), batch="n"), "mean": mean}


def configured(*, cameras=("eye",), size=SIZE, **rates):
    return configuration(cameras=cameras, networks=("camera",), size=size, **rates)


def network_of(config, path, *, device=DEVICE, precision="fp32", **decoder):
    """The run's one network on an ONNX file."""
    entry = config.networks["camera"].model_copy(deep=True)
    entry.decoder = type(entry.decoder).model_validate(decoder)
    engine = EngineConfig(precision=precision)
    return Network("camera", entry, path, sensors=config.sensors, engine=engine, device=device)


def executions(config, path, *, simulator=None, **options):
    simulator = simulator or PaintingSimulator(config, device=DEVICE)
    stream_options = {name: options.pop(name) for name in ("stages", "capture", "stamps") if name in options}
    network = network_of(config, path, **options)
    assert network.engine.name == "tensorrt"
    return simulator, StreamExecution(simulator, [network], device=DEVICE, **stream_options)


def results_on_cpu(config, path, steps, **decoder):
    simulator = PaintingSimulator(config)
    network = network_of(config, path, device="cpu", **decoder)
    return drive(HostExecution(simulator, [network]), simulator, steps)


def assert_alike(found, wanted):
    """The same sensors and samples; hazards close, and nearly every pixel of the same class."""
    assert [list(entry) for entry in found] == [list(entry) for entry in wanted]
    agree = []
    for one, other in zip(found, wanted, strict=True):
        for key in one:
            for mine, theirs in zip(one[key], other[key], strict=True):
                assert mine[0] == theirs[0] and mine[3] is theirs[3] is True
                assert mine[1] == (None if theirs[1] is None else pytest.approx(theirs[1], abs=5e-3))
                if theirs[4] is not None:
                    agree.append((np.array(mine[4]) == np.array(theirs[4])).mean())
    assert not agree or np.mean(agree) >= 0.99


# ------------------------------------------------------------------------------------- TensorRT inside a captured frame


@pytest.mark.parametrize("capturable", [True, False])
@pytest.mark.parametrize("name", ["labels", "mean"])
def test_a_captured_frame_gives_what_the_cpu_gives(models, name, capturable):
    """Sensing, preprocessing, TensorRT and decoding in one graph, replayed with other content each time."""
    config = configured(lidar_rate=5.0)
    decoder = {"labels": "labels"} if name == "labels" else {"hazard": "hazard"}
    simulator = PaintingSimulator(config, device=DEVICE, capturable=capturable)
    simulator, execution = executions(config, models[name], simulator=simulator, **decoder)
    found = drive(execution, simulator, 41)
    assert_alike(found, results_on_cpu(config, models[name], 41, **decoder))
    facts = execution.facts()["execution"]
    assert facts["reason"] is None and facts["mode"] == "graph"
    assert facts["scope"] == ("frame" if capturable else "buffers")
    assert (facts["graphs"], facts["replays"]) == (2, len(found))


def test_the_shipped_network_in_half_precision():
    """224x224, FP16, as a run has it: labels and hazard of a captured frame against ONNX Runtime."""
    config = configured(size=224)
    path, decoder = paths.MODELS / "camera.onnx", {"labels": "labels", "hazard": "hazard"}
    simulator, execution = executions(config, path, precision="fp16", **decoder)
    found = drive(execution, simulator, 16)
    wanted = results_on_cpu(config, path, 16, **decoder)
    agree = []
    for one, other in zip(found, wanted, strict=True):
        for key in one:
            for mine, theirs in zip(one[key], other[key], strict=True):
                assert mine[1] == pytest.approx(theirs[1], abs=0.05)
                agree.append((np.array(mine[4]) == np.array(theirs[4])).mean())
    # These pictures are like none that it was trained with: close calls are many.
    assert len(agree) == 4 and np.mean(agree) > 0.95
    assert execution.facts()["residency"]["proven"] is True


def test_execution_for_captures_where_engines_are_on_the_gpu(models):
    config = configured()
    network = network_of(config, models["mean"], hazard="hazard")
    simulator = PaintingSimulator(config, device=DEVICE)
    execution = execution_for(simulator, [network])
    drive(execution, simulator, 6)
    assert isinstance(execution, StreamExecution) and execution.facts()["execution"]["mode"] == "graph"


# --------------------------------------------------------------------------------------------------- what crosses PCIe


def proof(models, **options):
    pytest.importorskip("cuda.bindings.driver", exc_type=ImportError)
    config = configured()
    simulator, execution = executions(config, models["labels"], labels="labels", **options)
    drive(execution, simulator, 11)
    return execution, execution.facts()["residency"]


def test_no_pixel_crosses(models):
    """0 bytes to the GPU and no copy back: a kernel writes a summary and the stamps of two frames to the host."""
    execution, found = proof(models)
    assert found["proven"] is True and found["reason"] is None
    assert found["host_to_device_bytes"] == 0
    assert found["device_to_host_bytes"] == 0
    # Sensing of both, preprocessing and inference of the camera; nothing is cleared, nothing is copied.
    assert found["kernel_writes"] == {"results and stamps": execution._mailbox.row_bytes + 4 * 8}
    (graph,) = found["graphs"]
    assert graph["unknown"] == [] and graph["nodes"]["kernel"] > 5
    assert found["declared_uploads"] == {}


class Stage:
    """A stage of a function."""

    def __init__(self, record, after="sense"):
        self.name, self.after, self.record = "test", after, record


def test_an_inserted_copy_is_found(models):
    """The control: a stage that uploads from pinned memory shows up, byte for byte."""
    host = wp.zeros(12_345, dtype=wp.uint8, device="cpu", pinned=True)
    target = wp.empty(12_345, dtype=wp.uint8, device=DEVICE)
    _, found = proof(models, stages=[Stage(lambda frames, stream: wp.copy(target, host, stream=stream))])
    assert found["host_to_device_bytes"] == 12_345
    assert found["device_to_host_bytes"] == 0
    assert found["graphs"][0]["host_to_device_bytes"] == 12_345


def test_an_inserted_download_is_found(models):
    """As is one the other way."""
    host = wp.empty(777, dtype=wp.uint8, device="cpu", pinned=True)
    source = wp.zeros(777, dtype=wp.uint8, device=DEVICE)
    stage = Stage(lambda frames, stream: wp.copy(host, source, stream=stream), "inference")
    _, found = proof(models, stages=[stage])
    assert found["device_to_host_bytes"] == 777


# --------------------------------------------------------------------------------------------------------------- stamps


@pytest.mark.parametrize("capture", [True, False])
def test_stamps_rise_through_the_stages(models, capture):
    """By the GPU's timer, mapped to the host's clock."""
    config = configured()
    simulator, execution = executions(config, models["labels"], labels="labels", capture=capture)
    simulator.open("none")
    seen = []

    def after(frames, results):
        seen.extend(frame.stamps.as_dict() for frame in frames if frame.sensor == "eye")

    drive(execution, simulator, 101, after=after)
    assert len(seen) == 21
    for stamps in seen:
        values = [stamps[stage] for stage in STAGES[:6]]
        assert None not in values and values == sorted(values)
    clock = execution.facts()["clock"]
    assert clock["jumps"] == 0 and clock["pairs"] >= 8 and clock["tick_ns"] > 0
    # Clamping is for some microseconds at the edges, not for every stamp.
    assert clock["clamped"] <= len(seen) * 3


# ------------------------------------------------------------------------------------------------------ capture failure


def refused(stream):
    """Asks the driver for what it refuses while a stream is captured."""
    return ctypes.CDLL("libcuda.so.1").cuStreamSynchronize(ctypes.c_void_p(int(stream.cuda_stream)))


class DriverError(Exception):
    """As PyCUDA's errors, no RuntimeError."""


def waits_by_warp(frames, stream):
    wp.synchronize_stream(stream)


def waits_and_raises(frames, stream):
    if refused(stream):
        raise DriverError("operation not permitted when stream is capturing")


def waits_and_is_silent(frames, stream):
    refused(stream)


@pytest.mark.parametrize("record", [waits_by_warp, waits_and_raises, waits_and_is_silent])
def test_capture_failure_falls_back_to_eager(models, record):
    """A stage that synchronises cannot be captured: every frame after it is right, and another run can capture."""
    config = configured(lidar_rate=5.0)
    simulator, execution = executions(config, models["mean"], stages=[Stage(record)], hazard="hazard")
    found = drive(execution, simulator, 41)
    wanted = results_on_cpu(config, models["mean"], 41, hazard="hazard")
    assert_alike(found, wanted)
    facts = execution.facts()
    assert facts["execution"]["mode"] == "eager" and facts["execution"]["replays"] == 0
    assert facts["execution"]["reason"].startswith("the frame could not be captured as a graph: ")
    assert facts["residency"]["proven"] is False
    simulator, execution = executions(config, models["mean"], hazard="hazard")
    assert_alike(drive(execution, simulator, 41), wanted)
    assert execution.facts()["execution"]["mode"] == "graph"


# ------------------------------------------------------------------------------------------ rotating buffers, batches


def test_rotating_buffers(models):
    """A graph per set of buffers, then counted device copies; results stay right, and nothing crosses PCIe."""
    count = MAX_GRAPHS + 2
    config = configured()
    steps = 5 * 3 * count
    simulator = PaintingSimulator(config, device=DEVICE, capturable=False, rotating={"eye": count})
    simulator, execution = executions(config, models["mean"], simulator=simulator, hazard="hazard")
    assert_alike(drive(execution, simulator, steps), results_on_cpu(config, models["mean"], steps, hazard="hazard"))
    facts = execution.facts()
    assert facts["execution"]["graphs"] == MAX_GRAPHS + 1
    assert facts["execution"]["copied_inputs"] == 3 * 2 * 5
    assert facts["residency"]["host_to_device_bytes"] in (0, None)


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_a_batch_of_cameras_gives_what_single_images_give(models, count):
    """All of them through one engine and one preprocessing launch: labels exactly, means closely."""
    names = tuple(f"eye{n}" for n in range(count))
    for model, decoder in (("labels", {"labels": "labels"}), ("mean", {"hazard": "hazard"})):
        config = configured(cameras=names)
        simulator, execution = executions(config, models[model], **decoder)
        found = drive(execution, simulator, 16)
        for name in names:
            # Sensors of the whole run, so that pictures are the same; one network that reads one of them.
            alone = configured(cameras=names)
            alone.networks["camera"].inputs["image"].sensor = name
            single, by_itself = executions(alone, models[model], **decoder)
            wanted = drive(by_itself, single, 16)
            for one, other in zip(found, wanted, strict=True):
                for key in one:
                    if key[0] == name:
                        ((_, hazard, _, finite, labels),), ((_, wanted_hazard, _, _, wanted_labels),) = (
                            one[key],
                            other[key],
                        )
                        assert finite is True and labels == wanted_labels
                        assert hazard == (None if wanted_hazard is None else pytest.approx(wanted_hazard, abs=1e-4))


# ------------------------------------------------------------------------------------------------- nothing is allocated


def test_replay_allocates_nothing(models):
    """Warp's pool and the GPU's free memory are the same before and after 100 replayed frames."""
    config = configured()
    simulator, execution = executions(config, models["labels"], labels="labels")
    drive(execution, simulator, 26)

    def memory():
        return wp.get_mempool_used_mem_current(DEVICE), cuda.driver_facts(DEVICE)["memory_free"]

    before, replays = memory(), execution.facts()["execution"]["replays"]
    for _ in range(100):
        for _ in range(5):
            simulator.step(None)
        execution.infer(execution.sense())
        execution.idle()
    assert memory() == before
    assert execution.facts()["execution"]["replays"] == replays + 100


# -------------------------------------------------------------------------------------------------------- users' stages

PTX = """
.version 7.0
.target sm_70
.address_size 64

.visible .entry custom_robotics_kernel(.param .u64 input, .param .u64 output, .param .u32 size)
{
    .reg .pred %p<2>;
    .reg .b32 %r<6>;
    .reg .f32 %f<5>;
    .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [input];
    ld.param.u64 %rd2, [output];
    ld.param.u32 %r1, [size];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.s32 %p1, %r5, %r1;
    @%p1 bra DONE;
    cvta.to.global.u64 %rd3, %rd1;
    cvta.to.global.u64 %rd4, %rd2;
    mul.wide.s32 %rd5, %r5, 4;
    add.s64 %rd6, %rd3, %rd5;
    add.s64 %rd7, %rd4, %rd5;
    ld.global.f32 %f1, [%rd6];
    abs.f32 %f2, %f1;
    sqrt.rn.f32 %f3, %f2;
    add.f32 %f4, %f3, %f3;
    st.global.f32 [%rd7], %f4;
DONE:
    ret;
}
"""
"""The example's kernel, for hosts that have no nvcc."""


def test_a_pycuda_kernel_is_a_node_of_the_graph(models):
    """On a stream of PyCUDA's own that branches off the frame's: captured, replayed, and right beside Warp's kernel."""
    if cuda.backend() != "pycuda":
        pytest.skip("PyCUDA does not import")
    import pycuda.driver
    from examples.custom_stage import PycudaStage, WarpStage

    config = configured()
    size = config.sensors["laser"].channels * config.sensors["laser"].columns
    by_warp, by_pycuda = (wp.zeros(size, dtype=wp.float32, device=DEVICE) for _ in range(2))
    with cuda.primary_context(DEVICE):
        module = pycuda.driver.module_from_buffer(PTX.encode())
        function = module.get_function("custom_robotics_kernel")
    calls = []
    stages = [WarpStage("laser", by_warp), PycudaStage("laser", by_pycuda, function)]
    for stage in stages:
        stage.record = lambda frames, stream, original=stage.record: calls.append(1) or original(frames, stream)
    simulator, execution = executions(config, models["mean"], stages=stages, hazard="hazard")

    def after(frames, results):
        ranges = next(frame for frame in frames if frame.sensor == "laser").buffers["ranges"].numpy().ravel()
        wanted = 2 * np.sqrt(np.abs(ranges))
        np.testing.assert_allclose(by_warp.numpy(), wanted, rtol=1e-6)
        np.testing.assert_allclose(by_pycuda.numpy(), wanted, rtol=1e-6)

    drive(execution, simulator, 41, after=after)
    facts = execution.facts()
    assert facts["execution"]["reason"] is None and facts["execution"]["replays"] == 9
    assert len(calls) == 2 * (REHEARSALS + 1)
    assert facts["residency"]["host_to_device_bytes"] in (0, None)


def test_the_example_runs():
    """In a process of its own, with SourceModule where nvcc is installed."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "custom_stage.py"), "--frames", "20"],
        capture_output=True, text=True, check=False, timeout=500, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "The frame is one CUDA graph, replayed 20 times" in done.stdout
    assert "Warp: greatest difference from NumPy" in done.stdout
    assert "PyCUDA: greatest difference from NumPy" in done.stdout or "Without the PyCUDA stage" in done.stdout
