"""CUDA context, streams, events and pinned memory: through PyCUDA, or Warp's own where PyCUDA is not installed.

Both share the device's primary context with Warp, Newton, TensorRT and torch. Streams are :class:`warp.Stream`
throughout. PyCUDA's calls need its context current: it is pushed around each of them and popped after, because a
context that is left on PyCUDA's stack aborts the process when it ends.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from saccade.errors import ConfigurationError, DependencyError, EngineError

BACKENDS = ("pycuda", "warp")

_VARIABLE = "SACCADE_CUDA_BACKEND"


def backend() -> str:
    """Returns ``"pycuda"`` where PyCUDA imports, else ``"warp"``; ``SACCADE_CUDA_BACKEND`` overrides.

    Raises:
        ConfigurationError: The variable names neither.
        DependencyError: It asks for PyCUDA, which does not import.
    """
    wanted = os.environ.get(_VARIABLE, "").strip().lower()
    if wanted == "warp":
        return "warp"
    if wanted not in ("", "pycuda"):
        raise ConfigurationError(f"{_VARIABLE}={wanted}: expected one of {', '.join(BACKENDS)}")
    problem = _pycuda_problem()
    if problem is None:
        return "pycuda"
    if wanted:
        raise DependencyError(
            f"{_VARIABLE}=pycuda: PyCUDA does not import ({problem}): pip install pycuda (it needs the CUDA toolkit's "
            f"headers), or unset {_VARIABLE} to use Warp's own"
        )
    return "warp"


def require(device: str) -> str:
    """Returns the name ``"cuda:N"`` of a CUDA device that can be used here.

    Raises:
        ConfigurationError: ``device`` is no CUDA device.
        DependencyError: There is no driver, no GPU, or not that one.
    """
    text = str(device)
    if text != "cuda" and not (text.startswith("cuda:") and text[5:].isdigit()):
        raise ConfigurationError(f"device {text!r}: expected cuda or cuda:N")
    wp.init()
    if not wp.is_cuda_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        hint = f"; CUDA_VISIBLE_DEVICES={hidden} may hide it" if hidden is not None else ""
        raise DependencyError(
            f"device {text!r}: no NVIDIA driver or no GPU is usable here{hint}. Install the driver (nvidia-smi shows "
            f"whether it works), or run on the CPU: --device cpu"
        )
    count = wp.get_cuda_device_count()
    ordinal = int(wp.get_device("cuda").ordinal) if text == "cuda" else int(text[5:])
    if ordinal >= count:
        raise DependencyError(f"device {text!r}: this machine has cuda:0 to cuda:{count - 1}")
    return f"cuda:{ordinal}"


@contextlib.contextmanager
def primary_context(device: str) -> Iterator[None]:
    """Makes the primary context of ``device`` current for the calling thread, and what was current before after it."""
    if backend() == "warp":
        with wp.ScopedDevice(device):
            yield
        return
    context = _retained(device)
    context.push()
    try:
        yield
    finally:
        context.pop()


def stream(device: str) -> wp.Stream:
    """Returns a new stream of ``device``."""
    if backend() == "warp":
        return wp.Stream(wp.get_device(device))
    with primary_context(device):
        return PycudaStream(device)


class PycudaStream(wp.Stream):
    """A stream that PyCUDA made and owns; to Warp it is any stream.

    PyCUDA records events on its own streams only, which is why they are made here.
    """

    def __init__(self, device: str) -> None:
        own = _driver().Stream()
        # A device by name is not enough before Warp has started.
        super().__init__(wp.get_device(device), cuda_stream=own.handle)
        self.pycuda = own


class Event:
    """A point in a stream's work that can be waited for and timed.

    Inside a graph capture, and on streams that :func:`stream` did not make, it is Warp's event even where PyCUDA is
    installed: PyCUDA can do neither.

    Args:
        device: Device of the streams that it is recorded on.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._pycuda: Any = None
        self._warp: Any = None
        self._recorded: Any = None

    def record(self, stream: wp.Stream | None = None) -> None:
        """Marks the end of the work enqueued on ``stream`` so far; ``None`` = the device's current stream."""
        stream = wp.get_stream(self.device) if stream is None else stream
        own = getattr(stream, "pycuda", None)
        if own is None or stream.is_capturing:
            if self._warp is None:
                self._warp = wp.Event(self.device, enable_timing=True)
            stream.record_event(self._warp)
            self._recorded = self._warp
            return
        with primary_context(self.device):
            if self._pycuda is None:
                self._pycuda = _driver().Event()
            self._pycuda.record(own)
        self._recorded = self._pycuda

    def synchronize(self) -> None:
        """Waits until the device has reached this event.

        Raises:
            EngineError: It was never recorded.
        """
        event = self._reached()
        if event is self._warp:
            wp.synchronize_event(event)
            return
        with primary_context(self.device):
            event.synchronize()

    def elapsed_ms(self, since: Event) -> float:
        """Returns the time from ``since`` to this event on the device [ms]; waits for this one.

        Raises:
            EngineError: One of them was never recorded, or they cannot be compared.
        """
        end, begin = self._reached(), since._reached()
        if (end is self._warp) != (begin is since._warp):
            raise EngineError(
                "two CUDA events cannot be compared: one was recorded on a stream of saccade.cuda.stream(), the other "
                "on a stream made elsewhere. Record both on streams of one kind"
            )
        self.synchronize()
        if end is self._warp:
            return float(wp.get_event_elapsed_time(begin, end, synchronize=False))
        with primary_context(self.device):
            return float(end.time_since(begin))

    def _reached(self) -> Any:
        if self._recorded is None:
            raise EngineError(f"a CUDA event of {self.device} was never recorded: call record(stream) first")
        return self._recorded


def pinned(shape: int | tuple[int, ...], dtype: Any, *, device: str = "cuda:0") -> np.ndarray:
    """Returns a page-locked, zeroed array on the host, which ``device`` can read and write asynchronously.

    ``warp.array(pinned(...), copy=False, device="cpu")`` is the same memory as a Warp array.

    Args:
        shape: Its shape.
        dtype: NumPy element type.
        device: CUDA device that copies from or to it.
    """
    kind = np.dtype(dtype)
    if backend() == "warp":
        array = wp.empty(shape, dtype=wp.dtype_from_numpy(kind), device="cpu", pinned=True).numpy()
    else:
        with primary_context(device):
            array = _driver().pagelocked_empty(shape, kind)
    array.fill(0)
    return array


def synchronize(stream: wp.Stream) -> None:
    """Waits for all work that was enqueued on ``stream``."""
    own = getattr(stream, "pycuda", None)
    if own is None:
        wp.synchronize_stream(stream)
        return
    with primary_context(str(stream.device)):
        own.synchronize()


def driver_facts(device: str = "cuda:0") -> dict[str, Any]:
    """Returns what tells one GPU and driver from another.

    ``name``; ``sm`` (compute capability, ``"90"``); ``driver`` (version such as ``"580.95.05"``, ``None`` where
    nobody tells); ``cuda`` (newest CUDA version of that driver); ``memory_total`` and ``memory_free`` [bytes];
    ``backend``.

    Raises:
        DependencyError: There is no such device.
    """
    device = require(device)
    if backend() == "warp":
        facts = _facts_of_warp(device)
    else:
        facts = _facts_of_pycuda(device)
    return {**facts, "driver": _driver_version(), "backend": backend()}


def _facts_of_warp(device: str) -> dict[str, Any]:
    known = wp.get_device(device)
    # Warps before 1.10 do not tell the driver's version.
    version = wp.get_cuda_driver_version() if hasattr(wp, "get_cuda_driver_version") else None
    return {
        "name": str(known.name),
        "sm": str(known.arch),
        "cuda": None if version is None else ".".join(map(str, version)),
        "memory_total": int(known.total_memory),
        "memory_free": int(known.free_memory),
    }


def _facts_of_pycuda(device: str) -> dict[str, Any]:
    driver = _driver()
    known = driver.Device(int(device[5:]))
    with primary_context(device):
        free, total = driver.mem_get_info()
    version = int(driver.get_driver_version())
    return {
        "name": str(known.name()),
        "sm": "".join(map(str, known.compute_capability())),
        "cuda": f"{version // 1000}.{version % 1000 // 10}",
        "memory_total": int(total),
        "memory_free": int(free),
    }


def _driver_version() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # not installed, or a driver without it: the kernel module says the same
        return _kernel_module_version()
    try:
        version = pynvml.nvmlSystemGetDriverVersion()
    finally:
        pynvml.nvmlShutdown()
    return version.decode(errors="replace") if isinstance(version, bytes) else str(version)


def _kernel_module_version() -> str | None:
    try:
        return Path("/sys/module/nvidia/version").read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


@functools.lru_cache(maxsize=1)
def _pycuda_problem() -> str | None:
    """Why PyCUDA does not import; ``None`` = it does. Its library fails to load where there is no driver."""
    try:
        importlib.import_module("pycuda.driver")
    except (ImportError, OSError) as error:
        return str(error)
    return None


def _driver() -> Any:
    """PyCUDA's driver module, initialized."""
    driver = importlib.import_module("pycuda.driver")
    driver.init()  # may be called again and again
    return driver


_kept = threading.local()
"""The retained contexts of each thread by device ordinal.

PyCUDA frees a stream, an event or pinned memory only in the thread whose context it was made in, and leaves a context
pushed when a primary one is released: each thread retains each device once, for as long as it lives.
"""


def _retained(device: str) -> Any:
    ordinal = int(device[5:] or 0) if device.startswith("cuda:") else int(wp.get_device(device).ordinal)
    contexts = _kept.__dict__.setdefault("contexts", {})
    if ordinal not in contexts:
        contexts[ordinal] = _driver().Device(ordinal).retain_primary_context()
    return contexts[ordinal]
