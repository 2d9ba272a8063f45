"""What a run ran on: processor, memory, system, packages, GPU and driver, with the reason where one is not known."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "saccade",
    "warp-lang",
    "numpy",
    "scipy",
    "newton",
    "mujoco",
    "mujoco-warp",
    "usd-core",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "pycuda",
    "cuda-bindings",
    "torch",
    "cyclonedds",
)


def package_versions() -> dict[str, str | None]:
    """Returns the version of Python and of each package that can change a result; ``None`` = not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    if found["saccade"] is None:
        # Inside Isaac Sim it is a Kit extension, not an installed distribution.
        from saccade import __version__

        found["saccade"] = __version__
    return found


def host_facts() -> dict[str, Any]:
    """Returns the ``host`` field of ``run.json``.

    ``cpu``, ``cores`` (that this process may use), ``cores_total``, ``memory_mb``, ``system``, ``kernel``, ``python``,
    and ``gpu`` (``name``, ``driver``, ``memory_mb``) or ``gpu: None`` with ``gpu_reason``.
    """
    return {
        "cpu": cpu_model(),
        "cores": _usable_cores(),
        "cores_total": os.cpu_count(),
        "memory_mb": _memory_mb(),
        "system": _system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": sys.executable,
        **_gpu(),
    }


def cpu_model() -> str:
    """Returns the processor's name as the system knows it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware") and value.strip():
                return value.strip()
    except OSError:
        pass  # not Linux: the platform's own name follows
    return platform.processor() or platform.machine() or "unknown"


def peak_rss_mb() -> float | None:
    """Returns the largest resident memory of this process so far [MiB]; ``None`` where the system does not say."""
    try:
        import resource
    except ImportError:
        import psutil

        peak = getattr(psutil.Process().memory_info(), "peak_wset", None)
        return None if peak is None else peak / 2**20
    # Linux counts in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def rss_mb() -> float:
    """Returns the resident memory of this process [MiB]."""
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def _usable_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory_mb() -> float:
    import psutil

    return psutil.virtual_memory().total / 2**20


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def _gpu() -> dict[str, Any]:
    """The GPU through NVML, which starts no CUDA context; Warp's own list where NVML is not installed."""
    try:
        import pynvml
    except ImportError:
        return _gpu_of_warp()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"gpu": None, "gpu_reason": f"NVML does not start: {error}"}
    try:
        if not pynvml.nvmlDeviceGetCount():
            return {"gpu": None, "gpu_reason": "the driver knows of no GPU"}
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return {
            "gpu": {
                "name": _text(pynvml.nvmlDeviceGetName(handle)),
                "driver": _text(pynvml.nvmlSystemGetDriverVersion()),
                "memory_mb": pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**20,
                "count": pynvml.nvmlDeviceGetCount(),
            }
        }
    except pynvml.NVMLError as error:
        return {"gpu": None, "gpu_reason": f"NVML gives no facts: {error}"}
    finally:
        pynvml.nvmlShutdown()


def _gpu_of_warp() -> dict[str, Any]:
    import warp as wp

    if not wp.is_cuda_available():
        return {"gpu": None, "gpu_reason": "no CUDA device is visible to Warp"}
    device = wp.get_device("cuda:0")
    gpu = {
        "name": device.name,
        "driver": None,
        "memory_mb": device.total_memory / 2**20,
        "count": wp.get_cuda_device_count(),
    }
    return {"gpu": gpu, "gpu_reason": "the driver version needs NVML: pip install nvidia-ml-py"}


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
