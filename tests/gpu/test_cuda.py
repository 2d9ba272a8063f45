"""The CUDA layer on a GPU, through PyCUDA and through Warp: the same answers, and a process that ends well."""

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import warp as wp

from saccade import cuda

pytestmark = pytest.mark.gpu


@wp.kernel
def spin(cycles: int, values: wp.array(dtype=wp.float32)):
    """Keeps one thread busy, then adds one."""
    value = float(0.0)  # noqa: UP018 (a Warp variable, not a constant)
    for step in range(cycles):
        value = wp.sin(value + float(step))
    values[0] = values[0] + 1.0 + 0.0 * value


@pytest.fixture(scope="module", autouse=True)
def device():
    return "cuda:0"


@pytest.fixture(params=["pycuda", "warp"])
def backend(request, monkeypatch):
    if request.param == "pycuda" and cuda._pycuda_problem() is not None:
        pytest.skip(f"PyCUDA does not import: {cuda._pycuda_problem()}")
    monkeypatch.setenv("SACCADE_CUDA_BACKEND", request.param)
    return request.param


def busy(stream, values, cycles=200_000):
    wp.launch(spin, 1, inputs=[cycles, values], stream=stream)


def test_work_on_a_stream_is_done_after_synchronize(backend, device):
    """It is not when the launch returns; Warp's kernels run on either back end's streams."""
    values = wp.zeros(1, dtype=wp.float32, device=device)
    wp.synchronize_device(device)
    stream = cuda.stream(device)
    assert isinstance(stream, wp.Stream) and stream.cuda_stream
    busy(stream, values, 1)
    cuda.synchronize(stream)
    busy(stream, values, 2_000_000)
    assert not stream.is_complete
    cuda.synchronize(stream)
    assert stream.is_complete
    assert values.numpy()[0] == 2.0


def test_events_time_what_lies_between_them(backend, device):
    """An inner pair is within the outer one, which Warp takes on the same stream."""
    values = wp.zeros(1, dtype=wp.float32, device=device)
    wp.synchronize_device(device)
    stream = cuda.stream(device)
    busy(stream, values, 1)
    outer = [wp.Event(device, enable_timing=True) for _ in range(2)]
    inner = [cuda.Event(device) for _ in range(2)]
    stream.record_event(outer[0])
    inner[0].record(stream)
    busy(stream, values)
    inner[1].record(stream)
    stream.record_event(outer[1])
    elapsed = inner[1].elapsed_ms(inner[0])
    around = wp.get_event_elapsed_time(*outer)
    assert 0 < elapsed <= around
    # Nothing but two event records lies between the pairs.
    assert around - elapsed < 0.5 * around


def test_events_on_warps_own_streams(backend, device):
    """A stream that was made elsewhere serves as well."""
    values = wp.zeros(1, dtype=wp.float32, device=device)
    stream = wp.Stream(device)
    begin, end = cuda.Event(device), cuda.Event(device)
    begin.record(stream)
    busy(stream, values, 1000)
    end.record(stream)
    end.synchronize()
    assert end.elapsed_ms(begin) > 0


def test_pinned_memory_is_page_locked(backend, device):
    """The driver says so; a copy enqueued to it arrives; ordinary memory is told apart."""
    kind = ctypes.c_int()
    ask = ctypes.CDLL("libcuda.so.1").cuPointerGetAttribute
    memory_type, host = 2, 1
    array = cuda.pinned((3, 5), np.float32, device=device)
    assert array.shape == (3, 5) and not array.any()
    with cuda.primary_context(device):
        assert ask(ctypes.byref(kind), memory_type, ctypes.c_uint64(array.ctypes.data)) == 0
        assert kind.value == host
        assert ask(ctypes.byref(kind), memory_type, ctypes.c_uint64(np.zeros(99).ctypes.data)) != 0
    source = wp.full((3, 5), value=7.0, dtype=wp.float32, device=device)
    wp.synchronize_device(device)
    stream = cuda.stream(device)
    wp.copy(wp.array(array, copy=False, device="cpu"), source, stream=stream)
    cuda.synchronize(stream)
    assert (array == 7.0).all()


def test_another_thread_has_its_own(backend, device):
    """Context, events and pinned memory made and freed there; this thread's Warp goes on."""
    problems = []

    def work():
        try:
            with cuda.primary_context(device):
                array = cuda.pinned(8, np.uint8, device=device)
            stream = cuda.stream(device)
            begin = cuda.Event(device)
            begin.record(stream)
            begin.synchronize()
            del array, begin, stream
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert problems == []
    assert wp.full(1, value=3.0, dtype=wp.float32, device=device).numpy()[0] == 3.0


def test_both_back_ends_know_the_same_gpu(device, monkeypatch):
    """Name, compute capability, driver and memory agree."""
    if cuda._pycuda_problem() is not None:
        pytest.skip("PyCUDA does not import")
    found = {}
    for name in cuda.BACKENDS:
        monkeypatch.setenv("SACCADE_CUDA_BACKEND", name)
        found[name] = cuda.driver_facts(device)
    for field in ("name", "sm", "driver", "cuda", "memory_total"):
        assert found["pycuda"][field] == found["warp"][field], field
    assert found["warp"]["driver"] and 0 < found["warp"]["memory_free"] <= found["warp"]["memory_total"]


WHOLE = """
import sys
import numpy as np
if sys.argv[1] == "warp first":
    import warp as wp
    wp.init()
    wp.zeros(4, device="cuda:0")
from saccade import cuda
import warp as wp
with cuda.primary_context("cuda:0"):
    stream = cuda.stream("cuda:0")
    event = cuda.Event("cuda:0")
    event.record(stream)
    event.synchronize()
    array = cuda.pinned(4, np.float32)
print(wp.full(4, value=2.0, dtype=wp.float32, device="cuda:0").numpy().sum())
kept = (stream, event, array)  # alive when the process ends
"""


@pytest.mark.parametrize("order", ["warp first", "cuda first"])
def test_a_process_ends_well(backend, order):
    """With everything still open when it ends: PyCUDA aborts where a context is left on its stack."""
    done = run(WHOLE, order)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "8.0"
    assert "PyCUDA ERROR" not in done.stderr


NOTHING = """
from saccade import cuda
from saccade.errors import DependencyError
try:
    cuda.driver_facts("cuda:0")
except DependencyError as error:
    print(error)
"""


def test_a_hidden_gpu_is_said(backend):
    """Where the environment hides it, the message names the variable."""
    done = run(NOTHING, CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 0, done.stderr
    assert "CUDA_VISIBLE_DEVICES=-1" in done.stdout and "--device cpu" in done.stdout


def run(code, *arguments, **environment):
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )  # fmt: skip
