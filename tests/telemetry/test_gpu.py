"""The sampler against a double of NVML that withholds what real drivers withhold."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.telemetry import gpu
from saccade.telemetry.gpu import QUANTITIES, GpuSampler, ThinnedSeries

BUS = "0000000F:0A:00"
OTHER = "00000000:0F:00"


class NvmlDouble(ModuleType):
    """Two GPUs as NVML numbers them; any call can be made to fail.

    Names and errors are those of nvidia-ml-py; a name that is not here raises AttributeError as there.
    """

    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        def __str__(self) -> str:
            return self.args[0] if self.args else "Unknown Error"

    class NVMLError_NotSupported(NVMLError):
        def __str__(self) -> str:
            return "Not Supported"

    class NVMLError_FunctionNotFound(NVMLError):
        def __str__(self) -> str:
            return "Function Not Found"

    class NVMLError_NoPermission(NVMLError):
        def __str__(self) -> str:
            return "Insufficient Permissions"

    class NVMLError_GpuIsLost(NVMLError):
        def __str__(self) -> str:
            return "GPU is lost"

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.places = [(0, 0x0F, 0), (0xF, 0x0A, 0)]
        self.fails: dict[str, Exception] = {}
        self.calls: dict[str, int] = {}
        self.open = 0
        self.processes = [SimpleNamespace(pid=os.getpid(), usedGpuMemory=3 << 30)]
        self.bits = 0
        self.energy = 5_000_000

    def _call(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        if name in self.fails:
            raise self.fails[name]

    def nvmlInit(self) -> None:
        self._call("nvmlInit")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        self._call("nvmlDeviceGetCount")
        return len(self.places)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._call(f"nvmlDeviceGetHandleByIndex {index}")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        self._call("nvmlDeviceGetHandleByUUID")
        return int(uuid.rpartition("-")[2])

    def nvmlDeviceGetPciInfo(self, handle: int) -> SimpleNamespace:
        domain, bus, device = self.places[handle]
        return SimpleNamespace(domain=domain, bus=bus, device=device)

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return f"Example GPU {handle}".encode()

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        self._call("nvmlDeviceGetEnforcedPowerLimit")
        return 700_000

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        self._call("nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=40 + handle, memory=12)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        self._call("nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(total=80 << 30, used=(4 + handle) << 30)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        self._call("nvmlDeviceGetComputeRunningProcesses")
        return self.processes

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: int) -> list[SimpleNamespace]:
        return self.processes

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        self._call("nvmlDeviceGetPowerUsage")
        return 250_500

    def nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:
        self._call("nvmlDeviceGetClockInfo")
        return {self.NVML_CLOCK_SM: 1980, self.NVML_CLOCK_MEM: 2619}[kind]

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        self._call("nvmlDeviceGetTemperature")
        return 41

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: int) -> int:
        self._call("nvmlDeviceGetCurrentClocksEventReasons")
        return self.bits

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        self._call("nvmlDeviceGetCurrentClocksThrottleReasons")
        return self.bits

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        self._call("nvmlDeviceGetTotalEnergyConsumption")
        self.energy += 1500
        return self.energy


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> NvmlDouble:
    double = NvmlDouble()
    monkeypatch.setitem(sys.modules, "pynvml", double)
    return double


def sampled(rounds: int = 3, **options: object) -> GpuSampler:
    """A sampler that took at least that many rounds and was closed."""
    sampler = GpuSampler(period_s=0.03, **{"pci_bus_id": BUS, **options})  # type: ignore[arg-type]
    with sampler:
        deadline = time.monotonic() + 20
        while sampler.facts()["samples"] < rounds and time.monotonic() < deadline:
            time.sleep(0.005)
    return sampler


def test_each_quantity_has_its_statistics_in_its_unit(nvml: NvmlDouble) -> None:
    """mW become W, mJ since the driver was loaded become J since the start; nothing is absent."""
    facts = sampled().facts()
    assert facts["samples"] >= 3
    assert facts["absent"] == {}
    assert facts["power_w"]["mean"] == pytest.approx(250.5)
    assert facts["memory_used_bytes"]["max"] == 5 << 30
    assert facts["process_memory_bytes"]["min"] == 3 << 30
    assert facts["sm_clock_mhz"]["mean"] == 1980
    assert facts["memory_clock_mhz"]["mean"] == 2619
    assert facts["temperature_c"]["n"] == facts["samples"]
    assert facts["energy_j"] == pytest.approx(1.5 * (facts["samples"] - 1))
    assert facts["device"] == {
        "name": "Example GPU 1",
        "uuid": "GPU-1",
        "memory_total_bytes": 80 << 30,
        "power_limit_w": 700.0,
    }
    assert nvml.open == 0


def test_a_percentile_of_too_few_samples_is_null_with_its_reason(nvml: NvmlDouble) -> None:
    """The rule of every percentile in the record."""
    p95 = sampled().facts()["power_w"]["p95"]
    assert p95["value"] is None
    assert "72" in p95["reason"]


def test_the_gpu_is_found_by_its_address_not_by_its_number(nvml: NvmlDouble) -> None:
    """NVML's number 1 stands at the address of CUDA's number 0."""
    assert sampled(1).facts()["gpu_utilisation_percent"]["mean"] == 41
    assert sampled(1, pci_bus_id=f"{OTHER}.0").facts()["gpu_utilisation_percent"]["mean"] == 40


def test_the_address_of_a_cuda_device_is_asked_of_warp(nvml: NvmlDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's number 1 is passed on, and what Warp says of it is looked for."""
    asked = []

    def place(index: int) -> tuple[str, str]:
        asked.append(index)
        return BUS, "GPU-x"

    monkeypatch.setattr(gpu, "_visible_device", place)
    sampler = GpuSampler(1, period_s=0.03)
    with sampler:
        pass
    assert asked == [1]
    assert sampler.facts()["device"]["uuid"] == "GPU-1"


def test_a_uuid_finds_what_the_address_does_not(nvml: NvmlDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual machine may show one address to CUDA and another to NVML."""
    monkeypatch.setattr(gpu, "_visible_device", lambda index: ("0000AAAA:01:00", "GPU-0"))
    assert sampled(1, pci_bus_id=None).facts()["device"]["uuid"] == "GPU-0"


def test_gpus_that_may_not_be_seen_are_passed_over(nvml: NvmlDouble) -> None:
    """In a container the other GPUs of the host refuse."""
    nvml.fails["nvmlDeviceGetHandleByIndex 0"] = nvml.NVMLError_NoPermission()
    assert sampled(1).facts()["device"]["uuid"] == "GPU-1"


def test_an_address_that_nvml_does_not_know_is_no_other_gpu(nvml: NvmlDouble) -> None:
    """Everything of the GPU is absent rather than another GPU's."""
    facts = sampled(1, pci_bus_id="00000001:01:00").facts()
    assert facts["absent"]["power_w"] == "NVML knows 2 GPUs, and none of them at 00000001:01:00"
    assert "power_w" not in facts
    assert "device" not in facts
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("call", "names"),
    [
        ("nvmlDeviceGetUtilizationRates", ("gpu_utilisation_percent", "memory_utilisation_percent")),
        ("nvmlDeviceGetPowerUsage", ("power_w",)),
        ("nvmlDeviceGetTotalEnergyConsumption", ("energy_j",)),
        ("nvmlDeviceGetCurrentClocksEventReasons", ("throttle_reasons",)),
        ("nvmlDeviceGetTemperature", ("temperature_c",)),
    ],
)
def test_what_a_gpu_does_not_support_is_absent_and_asked_once(nvml: NvmlDouble, call: str, names: tuple) -> None:
    """The field is not there, its reason is, it is no zero, and the rest is measured."""
    nvml.fails[call] = nvml.NVMLError_NotSupported()
    sampler = sampled()
    facts = sampler.facts()
    assert facts["absent"] == dict.fromkeys(names, "NVML says: Not Supported")
    assert not set(names) & (set(facts) | set(sampler.series))
    assert nvml.calls[call] == 1
    assert facts["sm_clock_mhz"]["n"] == facts["samples"]


def test_an_error_that_may_pass_is_asked_again(nvml: NvmlDouble) -> None:
    """While it lasts there are gaps, which n and the series show."""
    nvml.fails["nvmlDeviceGetPowerUsage"] = nvml.NVMLError("Unknown Error")
    sampler = GpuSampler(period_s=0.02, pci_bus_id=BUS)
    with sampler:
        while sampler.facts()["samples"] < 3:
            time.sleep(0.005)
        assert sampler.facts()["absent"]["power_w"] == "NVML says: Unknown Error"
        del nvml.fails["nvmlDeviceGetPowerUsage"]
        while "power_w" not in sampler.facts():
            time.sleep(0.005)
    facts, series = sampler.facts(), sampler.series
    assert 0 < facts["power_w"]["n"] < facts["samples"]
    assert "power_w" not in facts["absent"]
    assert series["power_w"][0] is None
    assert series["power_w"][-1] == 250.5


def test_the_older_name_of_the_throttle_reasons_is_used_where_the_newer_is_missing(nvml: NvmlDouble) -> None:
    """An older driver lacks the function, an older binding its name."""
    nvml.bits = 0x44
    nvml.fails["nvmlDeviceGetCurrentClocksEventReasons"] = nvml.NVMLError_FunctionNotFound()
    assert sampled().facts()["throttle_reasons"] == {"sw_power_cap": 1.0, "hw_thermal_slowdown": 1.0}
    nvml.nvmlDeviceGetCurrentClocksEventReasons = None  # type: ignore[assignment, method-assign]
    assert sampled().facts()["throttle_reasons"] == {"sw_power_cap": 1.0, "hw_thermal_slowdown": 1.0}


def test_no_reason_seen_is_an_empty_answer_not_an_absent_one(nvml: NvmlDouble) -> None:
    """A bit that this module has no name for is shown by its number."""
    assert sampled(1).facts()["throttle_reasons"] == {}
    nvml.bits = 1 << 40
    assert sampled(1).facts()["throttle_reasons"] == {"reason_0x10000000000": 1.0}


@pytest.mark.parametrize(
    ("processes", "reason"),
    [
        ([], "in a container it knows the host's process numbers"),
        ([SimpleNamespace(pid=-5, usedGpuMemory=1)], "in a container it knows the host's process numbers"),
        ([SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)], "lists this process without its memory"),
    ],
)
def test_memory_of_a_process_that_nvml_does_not_tell_is_absent(nvml: NvmlDouble, processes: list, reason: str) -> None:
    """Other processes' memory is not taken for this one's, and no list is not none used."""
    nvml.processes = processes
    facts = sampled(2).facts()
    assert "process_memory_bytes" not in facts
    assert reason in facts["absent"]["process_memory_bytes"]


@pytest.mark.parametrize("error", [None, "NVML Shared Library Not Found"])
def test_without_nvml_only_the_process_is_measured(
    nvml: NvmlDouble, monkeypatch: pytest.MonkeyPatch, error: str | None
) -> None:
    """Not installed or not to be started: every quantity of the GPU is absent with that reason."""
    if error is None:
        monkeypatch.setitem(sys.modules, "pynvml", None)
    else:
        nvml.fails["nvmlInit"] = nvml.NVMLError(error)
    sampler = sampled(2)
    facts = sampler.facts()
    of_gpu = {*QUANTITIES, "energy_j", "throttle_reasons"} - {"process_cpu_percent"}
    assert set(facts["absent"]) == of_gpu
    assert all((error or "pip install nvidia-ml-py") in reason for reason in facts["absent"].values())
    assert not of_gpu & set(facts)
    assert set(sampler.series) == {"t_s", "process_cpu_percent"}


def test_the_share_of_the_cpu_is_that_of_this_process(nvml: NvmlDouble) -> None:
    """A thread that computes all the time is seen; the share of a sleeping process is below it."""
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            sum(range(2000))

    thread = threading.Thread(target=compute)
    thread.start()
    busy = sampled(8).facts()["process_cpu_percent"]
    stop.set()
    thread.join()
    idle = sampled(8).facts()["process_cpu_percent"]
    assert 0 <= idle["mean"] < busy["mean"]


def test_a_gpu_lost_on_the_way_keeps_what_was_measured(nvml: NvmlDouble) -> None:
    """The samples before stay, their number says how many, and the run goes on."""
    sampler = GpuSampler(period_s=0.02, pci_bus_id=BUS)
    with sampler:
        while sampler.facts()["samples"] < 2:
            time.sleep(0.005)
        nvml.fails |= {name: nvml.NVMLError_GpuIsLost() for name in list(nvml.calls)}
        at = sampler.facts()["samples"]
        while sampler.facts()["samples"] < at + 3:
            time.sleep(0.005)
    facts = sampler.facts()
    assert 2 <= facts["power_w"]["n"] < facts["samples"]


def test_a_sampler_that_fails_says_so(nvml: NvmlDouble) -> None:
    """An unforeseen error ends the sampling, not the run."""
    nvml.fails["nvmlDeviceGetPowerUsage"] = ZeroDivisionError("planted")
    sampler = GpuSampler(period_s=0.02, pci_bus_id=BUS)
    with sampler:
        pass
    assert sampler.facts()["stopped"] == "the sampler failed: ZeroDivisionError: planted"


def test_it_is_closed_twice_and_started_once(nvml: NvmlDouble) -> None:
    """Also without a single period: the round that close asks for is there."""
    sampler = GpuSampler(period_s=60, pci_bus_id=BUS)
    sampler.start()
    sampler.close()
    sampler.close()
    assert sampler.facts()["samples"] >= 1
    assert nvml.open == 0
    with pytest.raises(RuntimeError, match="started already"):
        sampler.start()


@pytest.mark.parametrize("period", [0, -1, math.nan, math.inf])
def test_a_period_that_is_none_is_refused(period: float) -> None:
    with pytest.raises(ValueError, match="period_s"):
        GpuSampler(period_s=period)


def test_a_device_that_this_process_does_not_see_is_said(nvml: NvmlDouble) -> None:
    """Number 999 exists nowhere, with or without a GPU."""
    facts = sampled(1, device_index=999, pci_bus_id=None).facts()
    assert "was asked for number 999" in facts["absent"]["power_w"]


def test_the_double_has_only_names_of_the_binding() -> None:
    """Where nvidia-ml-py is installed: what is called here exists there, errors included."""
    binding = pytest.importorskip("pynvml")
    names = [name for name in vars(NvmlDouble) if name.startswith(("nvml", "NVML"))]
    assert len(names) > 20
    assert [name for name in names if not hasattr(binding, name)] == []


@given(st.integers(0, 700), st.sampled_from([2, 4, 10, 50]))
def test_a_thinned_series_is_bounded_and_keeps_the_mean(count: int, limit: int) -> None:
    """Points never exceed the limit, times ascend, and weighted by their size the means give the mean of all."""
    series = ThinnedSeries(limit)
    values = np.random.default_rng(count).normal(10, 1, count)
    for index, value in enumerate(values):
        series.add(float(index), {"a": float(value)})
    found = series.as_dict()
    assert len(found["t_s"]) <= limit
    assert found["t_s"] == sorted(found["t_s"])
    if count:
        assert len(found["a"]) == len(found["t_s"]) > min(count, limit) / 2 - 1
        sizes = [point.count for point in series._points]
        assert sum(sizes) == count
        assert np.average(found["a"], weights=sizes) == pytest.approx(values.mean(), rel=1e-4)


def test_gaps_stay_gaps_when_points_are_put_together() -> None:
    """A pair with one gap has the other's value; one with two gaps is a gap; a quantity may begin late."""
    series = ThinnedSeries(4)
    for index, value in enumerate([1.0, None, None, None, 5.0]):
        series.add(float(index), {} if value is None else {"a": value})
    assert series.as_dict() == {"t_s": [0.5, 2.5, 4.0], "a": [1.0, None, 5.0]}
