"""The build in a child process: what comes back, and that nothing of it stays when it ends early."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from tests.contracts.tensorrt.doubles import RELEASES, TensorRTDouble
from tests.onnx_models import camera_network

from saccade.engines import builder
from saccade.engines.builder import BuildCancelled, plan_from_onnx
from saccade.engines.options import BuildOptions
from saccade.errors import ConfigurationError, DependencyError, EngineError, ModelError

FOREVER = "import time\ndouble.on_build = lambda *_: time.sleep(600)"


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a double where the child imports TensorRT, after ``extra`` has told it what to do."""

    def install(release=RELEASES[0], extra=""):
        folder = tmp_path / "site" / "tensorrt"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(
            "import sys\n"
            "from tests.contracts.tensorrt.doubles import TensorRTDouble\n"
            f"double = TensorRTDouble({release!r})\n"
            f"{extra}\n"
            "sys.modules['tensorrt'] = double.module\n",
            encoding="utf-8",
        )
        monkeypatch.syspath_prepend(str(folder.parent))

    return install


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An own folder for temporary files, so that what is left over can be seen."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def camera(tmp_path):
    return camera_network(tmp_path / "camera.onnx")


def running(folder: Path) -> list[int]:
    """Returns the processes that work in ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except (OSError, IndexError):
                continue
            if str(folder).encode() in command and b"build_worker" in command and state != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("release", RELEASES)
def test_a_plan_comes_back(stand_in, temporary, camera, tmp_path, release):
    """The plan runs in the release that built it, the facts say how; no temporary file is left."""
    stand_in(release)
    said = []
    cache = tmp_path / "engines" / "timing.cache"
    built = plan_from_onnx(camera, BuildOptions(precision="fp16"), timing_cache=cache, say=said.append)
    trt = TensorRTDouble(release).module
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(built.data)
    assert engine.num_io_tensors == 3
    assert built.facts["tensorrt"] == release and built.facts["route"] == "onnx half graph"
    assert built.facts["plan_bytes"] == len(built.data) and built.facts["build_s"] >= 0
    assert built.facts["timing_cache"]["saved_bytes"] == cache.stat().st_size
    assert any("converting to float16" in text for text in said)
    assert list(temporary.iterdir()) == []


def test_a_graph_in_memory(stand_in, camera):
    """A graph that was changed in memory is built instead of the file."""
    stand_in()
    other = camera.parent / "other.onnx"
    camera_network(other, size=(8, 8))
    built = plan_from_onnx(camera, BuildOptions(), graph=other.read_bytes())
    trt = TensorRTDouble(RELEASES[0]).module
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(built.data)
    assert tuple(engine.get_tensor_shape("image")) == (1, 3, 8, 8)


def test_the_time_limit_ends_the_build(stand_in, temporary, camera):
    """Past the limit the child is gone, no file is left, and the error says what to do; time was said meanwhile."""
    stand_in(extra=FOREVER)
    said = []
    with pytest.raises(EngineError, match=r"camera\.onnx.*within 3 s.*building.*--time-limit"):
        plan_from_onnx(camera, BuildOptions(time_limit=3.0), timing_cache=camera.parent / "timing", say=said.append)
    assert running(temporary) == [] and list(temporary.iterdir()) == []
    assert not (camera.parent / "timing").exists()
    assert sum(" s: " in text for text in said) >= 2


def test_cancel_ends_the_build(stand_in, temporary, camera):
    """Once cancelled the child is gone and no file is left."""
    stand_in(extra=FOREVER)
    said = []
    with pytest.raises(BuildCancelled, match="cancelled"):
        plan_from_onnx(camera, BuildOptions(), say=said.append, cancelled=lambda: "camera.onnx: building" in said)
    assert running(temporary) == [] and list(temporary.iterdir()) == []


def test_interrupt_ends_the_build(stand_in, temporary, camera):
    """Ctrl-C reaches the caller, and the child is gone."""
    stand_in(extra=FOREVER)

    def interrupt(text):
        if text.endswith(": building"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        plan_from_onnx(camera, BuildOptions(), say=interrupt)
    assert running(temporary) == [] and list(temporary.iterdir()) == []


def test_a_child_that_does_not_listen_is_killed(stand_in, temporary, camera):
    """A builder that ignores the request to end, as a native loop does, ends all the same."""
    stand_in(extra=f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{FOREVER}")
    said = []
    with pytest.raises(BuildCancelled):
        plan_from_onnx(camera, BuildOptions(), say=said.append, cancelled=lambda: "camera.onnx: building" in said)
    assert running(temporary) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_child_ends_with_its_parent(stand_in, temporary, camera):
    """When the waiting process is killed, the build does not run on unseen."""
    stand_in(extra=FOREVER)
    code = (
        "import sys, tempfile\n"
        f"tempfile.tempdir = {str(temporary)!r}\n"
        "from pathlib import Path\n"
        "from saccade.engines.builder import plan_from_onnx\n"
        "from saccade.engines.options import BuildOptions\n"
        f"plan_from_onnx(Path({str(camera)!r}), BuildOptions(), say=lambda text: print(text, flush=True))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    for line in parent.stdout:
        if line.endswith(": building\n"):
            break
    assert len(running(temporary)) == 1
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while running(temporary) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running(temporary) == []


def test_a_crash_of_the_builder_is_an_error(stand_in, temporary, camera):
    """A builder that dies takes nothing along: the error names the signal, the file and what it last said."""
    stand_in(
        extra="import os\ndef crash(*_):\n    os.write(2, b'about to fail')\n    os.abort()\ndouble.on_build = crash"
    )
    with pytest.raises(EngineError, match=r"(?s)camera\.onnx.*SIGABRT.*--workspace.*about to fail"):
        plan_from_onnx(camera, BuildOptions())
    assert list(temporary.iterdir()) == []


def test_an_unexpected_failure_shows_its_traceback(stand_in, camera):
    """What is nobody's known error comes with the last lines of the child."""
    stand_in(extra="def fail(*_):\n    raise ValueError('this was not foreseen')\ndouble.on_build = fail")
    with pytest.raises(EngineError, match=r"(?s)with status 1.*ValueError: this was not foreseen"):
        plan_from_onnx(camera, BuildOptions())


def test_out_of_device_memory(stand_in, camera):
    """The GPU's lack of memory arrives as an engine's error with remedies."""
    stand_in(extra="double.build_fails = 'Error Code 1: Cuda Runtime (out of memory)'")
    with pytest.raises(EngineError, match=r"camera\.onnx.*out of memory.*--workspace"):
        plan_from_onnx(camera, BuildOptions())


def test_no_driver(stand_in, camera):
    """Without a driver the error is about the machine, not the network."""
    stand_in(extra="double.no_driver = True")
    with pytest.raises(DependencyError, match="nvidia-smi"):
        plan_from_onnx(camera, BuildOptions())


def test_no_tensorrt(stand_in, camera):
    """Where TensorRT cannot be imported the error holds the command that installs it."""
    stand_in(extra="raise ImportError('libnvinfer.so.8: cannot open shared object file')")
    with pytest.raises(DependencyError, match=r"libnvinfer.*pip install tensorrt"):
        plan_from_onnx(camera, BuildOptions())


def test_errors_keep_their_kind(stand_in, camera):
    """A wrong option is a configuration error, a missing file a model error, also through the child."""
    stand_in()
    with pytest.raises(ConfigurationError, match="--calibration"):
        plan_from_onnx(camera, BuildOptions(precision="int8"))
    with pytest.raises(ModelError, match=r"nothing\.onnx"):
        plan_from_onnx(camera.parent / "nothing.onnx", BuildOptions())


def test_builds_beside_each_other(stand_in, temporary, camera):
    """Two threads that build at once get a plan each."""
    stand_in()
    built = []
    threads = [threading.Thread(target=lambda: built.append(plan_from_onnx(camera, BuildOptions()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 2 and built[0].data == built[1].data
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("now", "device", "seen"),
    [
        (None, "cuda:0", "0"),
        (None, "cuda:3", "3"),
        (None, "cuda", "0"),
        ("5,2", "cuda:1", "2"),
        ("GPU-1f2e, GPU-3c4d", "cuda:1", "GPU-3c4d"),
        ("", "cuda:0", ""),
    ],
)
def test_the_child_sees_one_gpu(now, device, seen):
    """It is the one that this process calls so, whatever part of the machine's GPUs this process sees itself."""
    assert builder._visible(now, device) == seen


def test_the_child_gets_that_gpu(stand_in, camera):
    """The environment of the build names the device."""
    stand_in(extra="import os\ndouble.build_fails = 'on ' + os.environ['CUDA_VISIBLE_DEVICES']")
    with pytest.raises(ModelError, match="on 1"):
        plan_from_onnx(camera, BuildOptions(), device="cuda:1")
