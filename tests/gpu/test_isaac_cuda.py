"""Isaac Sim's doubles with CUDA arrays and TensorRT: the data path of a real run, in everything but the renderer.

Physics and pictures of the doubles are made on the CPU. For CUDA only what a run in Isaac Sim launches is compiled:
``saccade.kernels`` ``.rtx``, ``.preprocess``, ``.range_image``, ``.decode`` and ``.stamps``, and
``saccade.validation`` ``.scorer`` and ``.accuracy``. With ``-s`` Warp says when it compiles one, and every test how
long it took. Engines are those of the shipped networks in FP16, from the user's store where they were built before.
"""

import time

import numpy as np
import pytest
import warp as wp

pytest.importorskip("newton")
pytest.importorskip("pxr")

from tests.contracts.isaac.doubles import VERSIONS, Behaviour, install
from tests.simulators.isaac_room import isaac_folder, waiting

from saccade.configuration import load_configuration
from saccade.errors import ConfigurationError
from saccade.paths import MODELS

pytestmark = pytest.mark.gpu
DEVICE = "cuda:0"


@pytest.fixture(scope="module", autouse=True)
def cuda():
    from saccade.kernels.setup import prepare_warp

    prepare_warp()
    level = getattr(wp.config, "log_level", None)
    if level is not None:
        wp.config.log_level = wp.LOG_INFO
    yield
    if level is not None:
        wp.config.log_level = level


@pytest.fixture(autouse=True)
def progress(request):
    started = time.monotonic()
    print(f"\n{request.node.name} ...", flush=True)
    yield
    print(f"{request.node.name}: {time.monotonic() - started:.1f} s", flush=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return isaac_folder(tmp_path_factory.mktemp("isaac"), device="cuda")


def opened(folder, *overrides, device=DEVICE):
    from saccade.simulators.isaac import IsaacSimulator

    loaded = load_configuration(folder / "run.yaml", overrides=overrides)
    simulator = IsaacSimulator(loaded.config, device=device)
    simulator.open(loaded.scene_path())
    return simulator


@pytest.mark.parametrize("version", VERSIONS)
def test_cameras_stay_on_the_gpu_and_lidars_do_where_they_can(folder, version):
    with install(version, waiting(), device=DEVICE) as double:
        simulator = opened(folder)
        for _ in range(3):
            simulator.step(None)
            frames = {frame.sensor: frame for frame in simulator.sense()}
        eye, lidar = frames["eye"].buffers, frames["lidar"].buffers
        assert {str(array.device) for array in (*eye.values(), *lidar.values())} == {DEVICE}
        ring = [slot["rgba"].ptr for slot in double.world.products[0].ring]
        assert eye["color"].ptr in ring  # the renderer's own memory
        streams = simulator.facts()["streams"]
        assert streams["eye"]["residency"]["color"] == f"{DEVICE}, the renderer's memory"
        if version[0] == "5":
            assert simulator.uploads == {} and "upload" not in streams["lidar"]
            assert streams["lidar"]["residency"]["points"].startswith(DEVICE)
        else:
            upload = streams["lidar"]["upload"]
            assert simulator.uploads == {"isaac.lidar": upload["bytes"]} and upload["bytes"] > 0
            assert upload["copy"]["count"] >= 3 and upload["copy"]["max_ms"] > 0
        assert np.isfinite(eye["depth"].numpy()).all() and (lidar["ranges"].numpy() > 0).any()
        simulator.close()


@pytest.mark.parametrize("version", ["5.1", "6.2"])
def test_the_same_frames_as_on_the_cpu(folder, version):
    found = {}
    for device in ("cpu", DEVICE):
        with install(version, waiting(), device=device):
            simulator = opened(folder, device=device)
            simulator.step(None)
            frames = {frame.sensor: frame.buffers for frame in simulator.sense()}
            found[device] = {
                name: {key: array.numpy().copy() for key, array in buffers.items()} for name, buffers in frames.items()
            }
            simulator.close()
    one, other = found["cpu"], found[DEVICE]
    for key in ("color", "depth", "labels"):  # one value per pixel, and no arithmetic
        assert np.array_equal(one["eye"][key], other["eye"][key]), key
    # Twelve returns share a cell, and one in eight lies exactly between two: CPU and GPU round those in their own
    # way, and the nearest of such a cell may be another (on an H100 in 35 of 2048). Nothing else may differ.
    ranges, labels = other["lidar"]["ranges"], other["lidar"]["labels"]
    assert np.isclose(one["lidar"]["ranges"], ranges, atol=2e-3).mean() > 0.96
    assert (one["lidar"]["labels"] == labels).mean() > 0.96
    assert ((one["lidar"]["ranges"] > 0) == (ranges > 0)).mean() > 0.98
    assert len(np.unique(other["lidar"]["ranges"])) > 100


@wp.kernel
def late_copy(cycles: int, source: wp.array(dtype=wp.uint32, ndim=2), target: wp.array(dtype=wp.uint32)):
    """Reads a pixel, much later."""
    value = float(0.0)  # noqa: UP018 (a Warp variable, not a constant)
    for step in range(cycles):
        value = wp.sin(value + float(step))
    if value < 2.0:
        target[0] = source[0, 0] | wp.uint32(1)


@pytest.mark.parametrize("side_stream", [False, True])
def test_no_update_begins_while_the_renderers_memory_is_read(folder, side_stream):
    """Whether by the loop's stream or by a tap's: what was launched before a step has ended when the update begins."""
    with install("6.2", waiting(), device=DEVICE) as double:
        simulator = opened(folder)
        color = next(frame for frame in simulator.sense() if frame.sensor == "eye").buffers["color"]
        device = wp.get_device(DEVICE)
        done = wp.zeros(1, dtype=wp.uint32, device=device)
        target = wp.zeros(1, dtype=wp.uint32, device="cpu", pinned=True)
        seen = []
        double.world.observers.append(("preUpdate", 0, lambda _event: seen.append(int(target.numpy()[0]))))
        wp.launch(late_copy, dim=1, inputs=[1, color], outputs=[done], device=device)  # compiled before
        wp.synchronize_device(device)
        stream = wp.Stream(device) if side_stream else device.stream
        stream.wait_stream(device.stream)
        with wp.ScopedStream(stream):
            wp.launch(late_copy, dim=1, inputs=[5_000_000, color], outputs=[done], device=device)
            wp.copy(target, done)
        device.stream.wait_stream(stream)  # as a tap does
        assert int(target.numpy()[0]) == 0, "the kernel ended before anybody waited for it: it shows nothing"
        simulator.step(None)
        assert seen[0] != 0
        simulator.close()


def test_a_host_array_for_a_camera_on_the_gpu_is_refused(folder):
    with install("6.0", waiting(silent_cpu=("rgb",)), device=DEVICE):
        with pytest.raises(ConfigurationError, match="came in host memory"):
            opened(folder)


def test_a_lidar_on_the_host_is_refused_where_the_device_is_required(folder):
    with install("6.1", waiting(), device=DEVICE), pytest.raises(ConfigurationError, match="require_device"):
        opened(folder, "simulator.require_device=true")
    with install("5.1", waiting(), device=DEVICE):
        opened(folder, "simulator.require_device=true").close()


def test_a_renderer_on_another_gpu_is_refused(folder):
    with install("6.0", waiting(settings={"/renderer/activeGpu": 1}), device=DEVICE):
        with pytest.raises(ConfigurationError, match="activeGpu=0"):
            opened(folder)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_with_tensorrt(folder, tmp_path, version):
    pytest.importorskip("tensorrt", exc_type=ImportError)
    from saccade.validation.run import validate

    loaded = load_configuration(folder / "run.yaml", overrides=shipped_networks(), frames=20)
    with install(version, waiting(), device=DEVICE):
        summary = validate(loaded, out=tmp_path)
    assert summary["verdict"] == "pass", summary["reasons"]
    residency = summary["residency"]
    uploads = residency["declared_uploads"]
    assert ("isaac.lidar" in uploads) == (version[0] == "6") and not any("eye" in name for name in uploads)
    if residency["proven"]:
        assert residency["host_to_device_bytes"] == 0


def shipped_networks():
    """The networks and input sizes that ``config/warehouse.yaml`` has, so that its engines are found again."""
    return [
        "engine.backend=tensorrt",
        "engine.precision=fp16",
        f"networks.camera.model={MODELS / 'camera.onnx'}",
        "networks.camera.inputs.image.size=[224, 224]",
        f"networks.lidar.model={MODELS / 'lidar.onnx'}",
        "sensors.lidar.channels=32",
        "sensors.lidar.columns=1024",
    ]


def test_without_waiting_frames_are_copied_on_the_device(folder):
    with install("6.2", Behaviour(), device=DEVICE):
        simulator = opened(folder, "simulator.pace=realtime")
        for _ in range(4):
            simulator.step(None)
        frames = {frame.sensor: frame for frame in simulator.sense()}
        assert str(frames["eye"].buffers["color"].device) == DEVICE
        simulator.close()
