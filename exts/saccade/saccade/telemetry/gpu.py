"""What the GPU did during a run, sampled by NVML beside it; what cannot be measured is absent and says why."""

from __future__ import annotations

import math
import os
import threading
import time
from array import array
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np

from saccade.telemetry.statistics import percentile

__all__ = ["QUANTITIES", "GpuSampler", "ThinnedSeries", "device_handle"]

MAX_POINTS = 600
"""Points of the time series that is kept for the report."""

CLOSE_TIMEOUT_S = 5.0
"""How long :meth:`GpuSampler.close` waits for a driver that hangs."""

REASONS = {
    0x001: "gpu_idle",
    0x002: "application_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
"""NVML's bits for why the clocks are not higher; part of its stable interface."""

Source = tuple[tuple[str, ...], Callable[[Any, Any], tuple[float, ...]]]
"""The quantities that one call of NVML gives, and the call: module and device handle in, values out."""


class GpuSampler:
    """Samples a GPU and this process's share of the CPU in a thread, from ``with`` to its end.

    What is sampled: see ``gpu`` in docs/record.md. A quantity that the driver, the GPU or the container withholds is
    absent from :meth:`facts` and named in its ``absent``; nothing is ever filled in. All samples are kept (8 bytes
    each, some 3 MB per hour), so that no statistic is estimated.

    Args:
        device_index: Number of the CUDA device as this process sees it: ``CUDA_VISIBLE_DEVICES`` counts.
        period_s: Time between samples [s].
        pci_bus_id: PCI address of the GPU to sample, such as ``"00000000:0F:00"``; ``None`` asks Warp for that of
            ``device_index``, which starts CUDA.
    """

    def __init__(self, device_index: int = 0, *, period_s: float = 0.1, pci_bus_id: str | None = None) -> None:
        if not (math.isfinite(period_s) and period_s > 0):
            raise ValueError(f"period_s is {period_s}, and a sampling period is a time above 0 s")
        self._device_index = device_index
        self._period = period_s
        self._pci_bus_id = pci_bus_id
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._nvml: Any = None
        self._handle: Any = None
        self._sources: list[Source] = []
        self._device: dict[str, Any] = {}
        self._absent: dict[str, str] = {}
        self._values: dict[str, array[float]] = {}
        self._reason_counts: dict[str, int] = {}
        self._reason_samples = 0
        self._energy: list[float] = []
        self._rounds = array("d")
        self._series = ThinnedSeries(MAX_POINTS)
        self._started = 0.0
        self._stopped: str | None = None

    def __enter__(self) -> GpuSampler:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def series(self) -> dict[str, list[float | None]]:
        """``t_s`` [s since the start] and each quantity that was ever measured; ``None`` where it was not."""
        with self._lock:
            return self._series.as_dict()

    def newest(self) -> dict[str, Any]:
        """Returns the newest value of each quantity (``values``), ``device`` and ``absent``; cheap at any time."""
        with self._lock:
            values = {name: found[-1] for name, found in self._values.items() if found}
            return {"values": values, "device": dict(self._device), "absent": dict(self._absent)}

    def start(self) -> None:
        """Finds the GPU and starts to sample; a GPU that is not found is no error, its quantities are absent."""
        if self._thread is not None:
            raise RuntimeError("this sampler was started already; make a new one for another run")
        self._open()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="saccade-gpu-sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes a last sample and stops; safe to call twice."""
        if self._thread is None or self._stop.is_set():
            return
        self._stop.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            self._stopped = f"a call of NVML did not return within {CLOSE_TIMEOUT_S:g} s"
        elif self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None

    def facts(self) -> dict[str, Any]:
        """Returns the ``gpu`` field of ``run.json``: statistics of what was measured, and why the rest is absent."""
        with self._lock:
            facts: dict[str, Any] = {"samples": len(self._rounds), "period_s": self._period}
            if self._rounds:
                facts["round_ms"] = {"mean": float(np.mean(self._rounds)), "max": float(np.max(self._rounds))}
            if self._device:
                facts["device"] = dict(self._device)
            for name in QUANTITIES:
                if self._values.get(name):
                    facts[name] = _statistics(self._values[name])
            if len(self._energy) >= 2:
                facts["energy_j"] = self._energy[-1] - self._energy[0]
            if self._reason_samples:
                counts = sorted(self._reason_counts.items(), key=lambda entry: -entry[1])
                facts["throttle_reasons"] = {name: count / self._reason_samples for name, count in counts}
            if self._stopped is not None:
                facts["stopped"] = self._stopped
            facts["absent"] = {
                name: self._absent.get(name, "no sample was taken: the run was shorter than the sampler's period")
                for name in (*QUANTITIES, "energy_j", "throttle_reasons")
                if name not in facts
            }
            return facts

    def _open(self) -> None:
        try:
            import pynvml
        except ImportError:
            self._withhold("NVML is not installed: pip install nvidia-ml-py")
            return
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self._withhold(f"NVML does not start: {error}")
            return
        try:
            self._handle = _handle(pynvml, self._pci_bus_id, self._device_index)
        except _Absent as error:
            pynvml.nvmlShutdown()
            self._withhold(str(error))
            return
        self._nvml = pynvml
        self._sources = list(SOURCES)
        self._device = _device_facts(pynvml, self._handle)

    def _withhold(self, reason: str) -> None:
        names = [name for names, _ in SOURCES for name in names]
        self._absent.update(dict.fromkeys((*names, "energy_j", "throttle_reasons"), reason))

    def _run(self) -> None:
        try:
            cpu = _CpuShare()
            following = time.monotonic()
            while True:
                # Asked before the sample, so that the last one is taken after the end was called for.
                last = self._stop.is_set()
                self._sample(cpu)
                if last:
                    return
                now = time.monotonic()
                # A round that came late leaves out the rounds it missed instead of making up for them in a burst.
                following = max(following + self._period, now)
                self._stop.wait(following - now)
        except Exception as error:
            # A run does not end because its sampler does: the facts say that they are incomplete.
            self._stopped = f"the sampler failed: {type(error).__name__}: {error}"

    def _sample(self, cpu: _CpuShare) -> None:
        begin = time.monotonic()
        found = cpu.since_last()
        for source in list(self._sources):
            names, read = source
            values = self._attempt(names, read)
            if values is not None:
                found.update(zip(names, map(float, values), strict=True))
            elif self._given_up(names):
                self._sources.remove(source)
        reasons = self._attempt(("throttle_reasons",), _reasons)
        energy = self._attempt(("energy_j",), lambda nvml, handle: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        with self._lock:
            for name, value in found.items():
                self._values.setdefault(name, array("d")).append(value)
            if reasons is not None:
                self._reason_samples += 1
                for name in reasons:
                    self._reason_counts[name] = self._reason_counts.get(name, 0) + 1
            if energy is not None:
                # The counter runs since the driver was loaded [mJ]: only its first and its newest value matter.
                self._energy[1:] = [energy * 1e-3]
            self._series.add(begin - self._started, found)
            self._rounds.append((time.monotonic() - begin) * 1e3)

    def _attempt(self, names: tuple[str, ...], read: Callable[[Any, Any], Any]) -> Any:
        """Returns what ``read`` returns, or ``None`` with the reason kept where NVML withholds it."""
        nvml = self._nvml
        if nvml is None or self._given_up(names):
            return None
        reason: str
        try:
            return read(nvml, self._handle)
        except _Absent as error:
            reason = str(error)
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NoPermission) as error:
            # A driver does not learn to do this while it runs; anything else may pass and is asked for again.
            reason = _Final(f"NVML says: {error}")
        except nvml.NVMLError as error:
            reason = f"NVML says: {error}"
        self._absent.update(dict.fromkeys(names, reason))
        return None

    def _given_up(self, names: tuple[str, ...]) -> bool:
        return any(isinstance(self._absent.get(name), _Final) for name in names)


class ThinnedSeries:
    """A time series of bounded length: when it is full, neighbours are put together to their mean.

    Args:
        limit: Most points, even.
    """

    def __init__(self, limit: int) -> None:
        if limit < 2 or limit % 2:
            raise ValueError(f"limit is {limit}, and points are put together in pairs: an even number from 2 on")
        self._limit = limit
        self._stride = 1
        self._points: list[_Point] = []

    def add(self, moment: float, values: dict[str, float]) -> None:
        """Takes one sample.

        Args:
            moment: When it was taken [s].
            values: What was measured; a quantity that is left out has a gap there.
        """
        new = _Point(moment, 1, {name: (value, 1) for name, value in values.items()})
        if self._points and self._points[-1].count < self._stride:
            self._points[-1] = self._points[-1].with_point(new)
            return
        if len(self._points) == self._limit:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [first.with_point(second) for first, second in pairs]
            self._stride *= 2
        self._points.append(new)

    def as_dict(self) -> dict[str, list[float | None]]:
        """Returns ``t_s`` and the means by quantity, with six significant digits and ``None`` in gaps."""
        names = dict.fromkeys(name for point in self._points for name in point.sums)
        found: dict[str, list[float | None]] = {
            "t_s": [_rounded(point.moments / point.count) for point in self._points]
        }
        for name in names:
            sums = [point.sums.get(name) for point in self._points]
            found[name] = [None if entry is None else _rounded(entry[0] / entry[1]) for entry in sums]
        return found


class _Point:
    """Samples that were put together: sums, so that a mean of means is never taken."""

    __slots__ = ("count", "moments", "sums")

    def __init__(self, moments: float, count: int, sums: dict[str, tuple[float, int]]) -> None:
        self.moments = moments
        self.count = count
        self.sums = sums

    def with_point(self, other: _Point) -> _Point:
        """Returns both in one."""
        sums = dict(self.sums)
        for name, (total, count) in other.sums.items():
            before = sums.get(name, (0.0, 0))
            sums[name] = (before[0] + total, before[1] + count)
        return _Point(self.moments + other.moments, self.count + other.count, sums)


class _CpuShare:
    """This process's share of the CPU between one call and the next, all of its threads together."""

    def __init__(self) -> None:
        self._before = (time.perf_counter(), time.process_time())

    def since_last(self) -> dict[str, float]:
        """Returns the share [percent of one core]; nothing for a time too short to measure."""
        now = (time.perf_counter(), time.process_time())
        elapsed = now[0] - self._before[0]
        # Where the system counts in ticks of 10 ms, a shorter time would show 0 or 1000 %.
        if elapsed < 0.02:
            return {}
        share = (now[1] - self._before[1]) / elapsed * 100
        self._before = now
        return {"process_cpu_percent": share}


class _Absent(Exception):
    """Why something is not measured."""


class _Final(str):
    """A reason that will not change during the run."""


def _handle(nvml: Any, pci_bus_id: str | None, device_index: int) -> Any:
    """NVML's handle of a CUDA device: NVML numbers GPUs on its own and ignores ``CUDA_VISIBLE_DEVICES``."""
    uuid = None
    if pci_bus_id is None:
        pci_bus_id, uuid = _visible_device(device_index)
    wanted = _pci_address(pci_bus_id)
    try:
        count = nvml.nvmlDeviceGetCount()
        for index in range(count):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                place = nvml.nvmlDeviceGetPciInfo(handle)
            except nvml.NVMLError:
                continue  # a GPU that this process may not see is not the one that it computes on
            if (place.domain, place.bus, place.device) == wanted:
                return handle
        if uuid is not None:
            return nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError as error:
        raise _Absent(f"NVML does not find the GPU at {pci_bus_id}: {error}") from error
    raise _Absent(f"NVML knows {count} GPU{'' if count == 1 else 's'}, and none of them at {pci_bus_id}")


def device_handle(nvml: Any, device_index: int) -> tuple[Any, str | None]:
    """Returns NVML's handle of a CUDA device as this process numbers it, or ``None`` and why there is none."""
    try:
        return _handle(nvml, None, device_index), None
    except _Absent as error:
        return None, str(error)


def _visible_device(index: int) -> tuple[str, str]:
    """PCI address and UUID of a CUDA device in this process's own numbering."""
    import warp as wp

    count = wp.get_cuda_device_count() if wp.is_cuda_available() else 0
    if index >= count:
        seen = "no CUDA device" if not count else "only 1 CUDA device" if count == 1 else f"only {count} CUDA devices"
        raise _Absent(f"this process sees {seen}, and was asked for number {index}")
    device = wp.get_device(f"cuda:{index}")
    return device.pci_bus_id, device.uuid


def _pci_address(text: str) -> tuple[int, int, int]:
    """Domain, bus and device of ``domain:bus:device[.function]``, whose parts are hexadecimal."""
    try:
        domain, bus, device = text.split(":")
        return int(domain, 16), int(bus, 16), int(device.partition(".")[0], 16)
    except ValueError as error:
        raise ValueError(f"pci_bus_id is {text!r}, and an address looks like 00000000:0F:00") from error


def _device_facts(nvml: Any, handle: Any) -> dict[str, Any]:
    """What does not change: name, UUID, memory and power limit, each where NVML says it."""
    readers: dict[str, Callable[[], Any]] = {
        "name": lambda: _text(nvml.nvmlDeviceGetName(handle)),
        "uuid": lambda: _text(nvml.nvmlDeviceGetUUID(handle)),
        "memory_total_bytes": lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        "power_limit_w": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) * 1e-3,
    }
    facts = {}
    for name, read in readers.items():
        try:
            facts[name] = read()
        except nvml.NVMLError:
            continue
    return facts


def _utilisation(nvml: Any, handle: Any) -> tuple[float, ...]:
    rates = nvml.nvmlDeviceGetUtilizationRates(handle)
    return rates.gpu, rates.memory


def _process_memory(nvml: Any, handle: Any) -> tuple[float, ...]:
    listed = [
        process.usedGpuMemory
        for processes in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses)
        for process in processes(handle)
        if process.pid == os.getpid()
    ]
    known = [used for used in listed if used is not None]
    if known:
        # A process that computes and renders stands in both lists, with all of its memory in each.
        return (max(known),)
    if listed:
        raise _Absent("NVML lists this process without its memory")
    raise _Absent(
        "NVML does not list this process among those of the GPU; in a container it knows the host's process numbers"
    )


def _reasons(nvml: Any, handle: Any) -> list[str]:
    # The call was renamed: older bindings and drivers have only the second name.
    read = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    try:
        bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) if read is None else read(handle)
    except nvml.NVMLError_FunctionNotFound:
        bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    return [REASONS.get(1 << bit, f"reason_{1 << bit:#x}") for bit in range(64) if bits >> bit & 1]


SOURCES: tuple[Source, ...] = (
    (("gpu_utilisation_percent", "memory_utilisation_percent"), _utilisation),
    (("memory_used_bytes",), lambda nvml, handle: (nvml.nvmlDeviceGetMemoryInfo(handle).used,)),
    (("process_memory_bytes",), _process_memory),
    (("power_w",), lambda nvml, handle: (nvml.nvmlDeviceGetPowerUsage(handle) * 1e-3,)),
    (("sm_clock_mhz",), lambda nvml, handle: (nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),)),
    (("memory_clock_mhz",), lambda nvml, handle: (nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),)),
    (("temperature_c",), lambda nvml, handle: (nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),)),
)
"""What is asked of NVML in every round."""

QUANTITIES = (*(name for names, _ in SOURCES for name in names), "process_cpu_percent")
"""Everything that has statistics and a time series."""


def _statistics(values: array[float]) -> dict[str, Any]:
    ordered = np.sort(np.frombuffer(values, dtype=np.float64))
    return {
        "n": len(ordered),
        "mean": float(np.clip(ordered.mean(), ordered[0], ordered[-1])),
        "min": float(ordered[0]),
        "max": float(ordered[-1]),
        "p95": percentile(ordered, 95),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
