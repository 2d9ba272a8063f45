"""NVML beside real work, and users' functions timed by real events."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def device():
    """The first CUDA device."""
    import warp as wp

    from saccade.kernels.setup import prepare_warp

    prepare_warp()
    return wp.get_device("cuda:0")


@pytest.fixture(scope="module")
def work(device):
    """A function that keeps the GPU busy for a while and returns at once."""
    import warp as wp

    array = wp.ones(64 << 20, dtype=wp.float32, device=device)
    other = wp.empty_like(array)

    def run(times: int = 20) -> None:
        for _ in range(times):
            wp.copy(other, array)

    run()
    wp.synchronize_device(device)
    return run


def test_the_sampled_gpu_is_the_one_that_computes(device, work):
    """Name and memory are those of Warp's device, 1 GiB that was taken is seen, and every quantity is there or not."""
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    import warp as wp

    from saccade.telemetry.gpu import QUANTITIES, GpuSampler

    with wp.ScopedMempool(device, False), GpuSampler(period_s=0.02) as sampler:
        while sampler.facts()["samples"] < 5:
            time.sleep(0.01)
        block = wp.zeros(1 << 30, dtype=wp.uint8, device=device)
        at = sampler.facts()["samples"]
        while sampler.facts()["samples"] < at + 100:
            work()
            wp.synchronize_device(device)
        del block
    facts = sampler.facts()
    print(facts)
    assert "stopped" not in facts
    for name in (*QUANTITIES, "energy_j", "throttle_reasons"):
        assert (name in facts) != bool(facts["absent"].get(name)), name
    if "memory_used_bytes" not in facts:
        pytest.skip(f"this GPU tells nothing of its memory: {facts['absent']['memory_used_bytes']}")
    assert facts["device"]["name"] == device.name
    assert facts["device"]["memory_total_bytes"] == pytest.approx(device.total_memory, rel=0.1)
    assert facts["memory_used_bytes"]["max"] - facts["memory_used_bytes"]["min"] >= 1 << 30
    if "gpu_utilisation_percent" in facts:
        assert facts["gpu_utilisation_percent"]["max"] > 0
    if "power_w" in facts:
        assert facts["power_w"]["min"] > 0
    series = sampler.series
    assert len(series["t_s"]) == len(series["memory_used_bytes"]) <= 600


def test_gpu_time_covers_the_work_inside_and_memory_what_was_taken(device, work):
    """Events within the block are closer together than those around it; 256 MiB less are free after it."""
    import warp as wp

    from saccade.telemetry.profiled import clear_profile, profile_facts, profiled

    clear_profile()
    first, last = (wp.Event(device, enable_timing=True) for _ in range(2))
    with wp.ScopedMempool(device, False):
        with profiled("work", device="cuda:0", memory=True):
            device.stream.record_event(first)
            work()
            device.stream.record_event(last)
            block = wp.zeros(256 << 20, dtype=wp.uint8, device=device)
        inner = wp.get_event_elapsed_time(first, last)
        facts = profile_facts()["work"]
        del block
    assert facts["absent"] == {}
    assert inner > 0
    # The events' resolution is half a microsecond.
    assert facts["gpu_ms"]["max"] >= inner - 0.001
    assert facts["gpu_memory_change_bytes"]["max"] >= 256 << 20


def test_many_calls_are_each_timed_without_waiting_for_the_gpu(device, work):
    """300 calls, far more than wait to be read, have 300 times, all above 0."""
    from saccade.telemetry.profiled import clear_profile, profile_facts, profiled

    clear_profile()

    @profiled("copy", device="cuda:0")
    def copy() -> None:
        work(1)

    for _ in range(300):
        copy()
    facts = profile_facts()["copy"]
    assert facts["absent"] == {}
    assert facts["gpu_ms"]["n"] == facts["calls"] == 300
    assert facts["gpu_ms"]["min"] > 0


def test_a_call_inside_a_capture_leaves_the_graph_whole(device, work):
    """The graph is captured and replayed; the call has no time of the GPU and says why."""
    import warp as wp

    from saccade.telemetry.profiled import clear_profile, profile_facts, profiled

    clear_profile()
    with wp.ScopedCapture(device) as capture, profiled("captured", device="cuda:0", memory=True):
        work(2)
    wp.capture_launch(capture.graph)
    wp.synchronize_device(device)
    facts = profile_facts()["captured"]
    assert facts["calls"] == 1
    assert "gpu_ms" not in facts
    assert "capture" in facts["absent"]["gpu_ms"]
