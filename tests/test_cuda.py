"""The CUDA layer without a GPU: which back end it takes, and that PyCUDA's context stack is left as it was found."""

import sys
import threading
import types

import numpy as np
import pytest
import warp as wp

from saccade import cuda
from saccade.errors import ConfigurationError, DependencyError, EngineError


class PycudaDouble:
    """``pycuda.driver`` as far as it is used; every call that needs a current context fails without one."""

    def __init__(self) -> None:
        self.stacks: dict[int, list] = {}
        self.retained: list[tuple[int, int]] = []
        self.calls: list[str] = []
        double = self

        class Context:
            def __init__(self, ordinal):
                self.ordinal = ordinal

            def push(self):
                double.stack().append(self)

            @staticmethod
            def pop():
                double.stack().pop()

        class Device:
            def __init__(self, ordinal):
                self.ordinal = ordinal

            def retain_primary_context(self):
                double.retained.append((threading.get_ident(), self.ordinal))
                return Context(self.ordinal)

            def name(self):
                return "NVIDIA Double"

            def compute_capability(self):
                return (9, 0)

        class Stream:
            handle = 7

            def synchronize(self):
                double.need("Stream.synchronize")

        class Event:
            def __init__(self):
                double.need("Event")
                self.at = None

            def record(self, stream):
                # The real one extracts its own Stream and nothing else.
                assert isinstance(stream, Stream)
                double.need("Event.record")
                self.at = len(double.calls)
                return self

            def synchronize(self):
                double.need("Event.synchronize")
                return self

            def time_since(self, start):
                double.need("Event.time_since")
                return float(self.at - start.at)

        self.Device, self.Stream, self.Event = Device, Stream, Event

    def stack(self):
        return self.stacks.setdefault(threading.get_ident(), [])

    def need(self, call):
        assert self.stack(), f"{call} without a current context"
        self.calls.append(call)

    def init(self, flags=0):
        pass

    def get_driver_version(self):
        return 13010

    def mem_get_info(self):
        self.need("mem_get_info")
        return (3, 8)

    def pagelocked_empty(self, shape, dtype):
        self.need("pagelocked_empty")
        if np.prod(shape) > 100:
            raise MemoryError("cuMemHostAlloc failed: out of memory")
        return np.full(shape, 9, dtype)


@pytest.fixture
def pycuda(monkeypatch):
    """PyCUDA is installed, as a double."""
    double = PycudaDouble()
    package = types.ModuleType("pycuda")
    package.driver = double
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", double)
    monkeypatch.delenv("SACCADE_CUDA_BACKEND", raising=False)
    monkeypatch.setattr(cuda, "_kept", threading.local())
    cuda._pycuda_problem.cache_clear()
    yield double
    cuda._pycuda_problem.cache_clear()


@pytest.fixture
def no_pycuda(monkeypatch):
    """PyCUDA is not installed."""
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.delenv("SACCADE_CUDA_BACKEND", raising=False)
    cuda._pycuda_problem.cache_clear()
    yield
    cuda._pycuda_problem.cache_clear()


class StreamOfPycuda:
    """What :class:`saccade.cuda.PycudaStream` is without a GPU."""

    is_capturing = False
    device = "cuda:0"

    def __init__(self, double):
        self.pycuda = double.Stream()


# ------------------------------------------------------------------------------------------------- which back end


def test_pycuda_is_taken_where_it_imports(pycuda, monkeypatch):
    """Installed, it is used; the variable chooses Warp all the same."""
    assert cuda.backend() == "pycuda"
    monkeypatch.setenv("SACCADE_CUDA_BACKEND", "warp")
    assert cuda.backend() == "warp"


def test_warp_is_taken_where_pycuda_is_absent(no_pycuda, monkeypatch):
    """Without it Warp does; to ask for it by name is an error that says how to get it."""
    assert cuda.backend() == "warp"
    monkeypatch.setenv("SACCADE_CUDA_BACKEND", "pycuda")
    with pytest.raises(DependencyError, match="pip install pycuda"):
        cuda.backend()


def test_unknown_backend_is_refused(no_pycuda, monkeypatch):
    """A typo in the variable is no silent default."""
    monkeypatch.setenv("SACCADE_CUDA_BACKEND", "pycude")
    with pytest.raises(ConfigurationError, match=r"pycude.*pycuda, warp"):
        cuda.backend()


# ------------------------------------------------------------------------------------------------------ no driver


@pytest.mark.parametrize("device", ["cpu", "cuda:x", "gpu", "cuda:"])
def test_other_devices_are_refused(device):
    """Only CUDA devices are meant."""
    with pytest.raises(ConfigurationError, match="expected cuda or cuda:N"):
        cuda.require(device)


def test_no_driver_is_said_with_the_remedy(monkeypatch):
    """Without driver or GPU the message names both ways out, and the variable that may hide a GPU."""
    monkeypatch.setattr(wp, "is_cuda_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    for ask in (cuda.require, cuda.driver_facts):
        with pytest.raises(DependencyError, match=r"(?s)CUDA_VISIBLE_DEVICES=-1.*nvidia-smi.*--device cpu"):
            ask("cuda:0")


def test_a_gpu_too_many_is_refused(monkeypatch):
    """The devices that exist are named."""
    monkeypatch.setattr(wp, "is_cuda_available", lambda: True)
    monkeypatch.setattr(wp, "get_cuda_device_count", lambda: 2)
    assert cuda.require("cuda:1") == "cuda:1"
    with pytest.raises(DependencyError, match=r"cuda:2.*cuda:0 to cuda:1"):
        cuda.require("cuda:2")


# --------------------------------------------------------------------------------------- PyCUDA's context stack


def test_the_context_is_popped_whatever_happens(pycuda):
    """Nested, and left by an exception: the stack is empty after it, because a full one aborts the process."""
    with cuda.primary_context("cuda:0"):
        with cuda.primary_context("cuda:0"):
            assert len(pycuda.stack()) == 2
        assert len(pycuda.stack()) == 1
    assert pycuda.stack() == []
    with pytest.raises(ZeroDivisionError), cuda.primary_context("cuda:0"):
        raise ZeroDivisionError
    assert pycuda.stack() == []


def test_a_context_is_retained_once_per_thread_and_device(pycuda):
    """PyCUDA frees things in their own thread only, and leaks a pushed context at each release."""
    for _ in range(3):
        with cuda.primary_context("cuda:0"), cuda.primary_context("cuda:1"):
            pass
    here = threading.get_ident()
    assert pycuda.retained == [(here, 0), (here, 1)]

    def elsewhere():
        for _ in range(2):
            with cuda.primary_context("cuda:0"):
                pass

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(pycuda.retained) == 3
    assert not any(pycuda.stacks.values())


def test_events_on_a_stream_of_pycuda(pycuda):
    """Each call finds the context current and leaves nothing on the stack; time is that of PyCUDA."""
    stream = StreamOfPycuda(pycuda)
    begin, end = cuda.Event("cuda:0"), cuda.Event("cuda:0")
    begin.record(stream)
    end.record(stream)
    assert end.elapsed_ms(begin) == 2.0
    cuda.synchronize(stream)
    assert pycuda.calls == [
        "Event", "Event.record", "Event", "Event.record", "Event.synchronize", "Event.time_since", "Stream.synchronize",
    ]  # fmt: skip
    assert pycuda.stack() == []


def test_events_that_cannot_be_compared_are_refused(pycuda, monkeypatch):
    """PyCUDA's and Warp's events have no common time; one that was never recorded has none at all."""
    monkeypatch.setattr(wp, "Event", lambda device, *, enable_timing: ("warp event", device, enable_timing))
    recorded = []

    class Foreign:
        is_capturing = False

        def record_event(self, event):
            recorded.append(event)

    begin, end = cuda.Event("cuda:0"), cuda.Event("cuda:0")
    with pytest.raises(EngineError, match="never recorded"):
        begin.synchronize()
    begin.record(Foreign())
    end.record(StreamOfPycuda(pycuda))
    assert recorded == [("warp event", "cuda:0", True)]
    with pytest.raises(EngineError, match="cannot be compared"):
        end.elapsed_ms(begin)


def test_an_event_inside_a_capture_is_warps(pycuda, monkeypatch):
    """PyCUDA cannot put an event into a graph."""
    monkeypatch.setattr(wp, "Event", lambda device, *, enable_timing: "warp event")
    recorded = []
    stream = StreamOfPycuda(pycuda)
    stream.is_capturing = True
    stream.record_event = recorded.append
    cuda.Event("cuda:0").record(stream)
    assert recorded == ["warp event"] and pycuda.calls == []


def test_pinned_memory_is_zeroed_and_leaves_no_context(pycuda):
    """As asked in shape and type; also after a failure the stack is empty."""
    array = cuda.pinned((2, 3), np.float16)
    assert array.shape == (2, 3) and array.dtype == np.float16 and not array.any()
    with pytest.raises(MemoryError):
        cuda.pinned((11, 11), np.uint8)
    assert pycuda.stack() == []


def test_facts_through_pycuda(pycuda, monkeypatch):
    """The version is that of the driver, memory in bytes."""
    monkeypatch.setattr(cuda, "require", lambda device: device)
    monkeypatch.setattr(cuda, "_driver_version", lambda: "580.95.05")
    assert cuda.driver_facts("cuda:0") == {
        "name": "NVIDIA Double", "sm": "90", "cuda": "13.1", "memory_total": 8, "memory_free": 3,
        "driver": "580.95.05", "backend": "pycuda",
    }  # fmt: skip
    assert pycuda.stack() == []


def test_driver_version_comes_from_nvml_or_the_kernel_module(monkeypatch):
    """With NVML its answer, in either type that its releases give; without it the kernel module's."""
    nvml = types.ModuleType("pynvml")
    nvml.nvmlInit = nvml.nvmlShutdown = lambda: None
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    for answer in ("580.1", b"580.1"):
        nvml.nvmlSystemGetDriverVersion = lambda answer=answer: answer
        assert cuda._driver_version() == "580.1"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(cuda, "_kernel_module_version", lambda: "570.2")
    assert cuda._driver_version() == "570.2"
