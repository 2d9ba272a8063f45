"""Users' own functions measured: counts, nesting, threads, errors, and GPU events against a double of them."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.telemetry import profiled as module
from saccade.telemetry.profiled import clear_profile, profile_facts, profiled, set_profiling


@pytest.fixture(autouse=True)
def _fresh():
    clear_profile()
    yield
    set_profiling(True)
    clear_profile()


class DeviceDouble:
    """A CUDA device whose clock runs 3 ms per recorded event and whose free memory shrinks by 1 KiB per question."""

    alias = "cuda:7"
    is_cuda = True

    def __init__(self) -> None:
        self.stream = SimpleNamespace(is_capturing=False)
        self.made = 0
        self.now = 0.0
        self.free = 1 << 20

    @property
    def free_memory(self) -> int:
        self.free -= 1024
        return self.free


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> DeviceDouble:
    found = DeviceDouble()

    class Event:
        """The interface of saccade.cuda.Event."""

        def __init__(self, name: str) -> None:
            assert name == found.alias
            found.made += 1
            self.done = False

        def record(self, stream: object) -> None:
            assert stream is found.stream
            found.now += 3.0
            self.at = found.now
            self.done = False

        def synchronize(self) -> None:
            self.done = True

        def elapsed_ms(self, since: Event) -> float:
            assert self.done, "read before it was waited for"
            return self.at - since.at

    double = ModuleType("saccade.cuda")
    double.Event = Event  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "saccade.cuda", double)
    monkeypatch.setattr("warp.get_device", lambda name: found)
    return found


def test_a_decorated_function_is_the_same_and_counted() -> None:
    """Result, arguments, name and documentation stay; the name is the module's and the function's."""

    @profiled
    def plan(a: int, *, b: int = 2) -> int:
        """Plans."""
        return a + b

    assert [plan(1), plan(1, b=5)] == [3, 6]
    assert plan.__doc__ == "Plans."
    ((name, facts),) = profile_facts().items()
    assert name.endswith("test_profiled.test_a_decorated_function_is_the_same_and_counted.plan")
    assert facts["calls"] == 2
    assert facts["failed"] == 0
    assert facts["wall_ms"]["n"] == 2
    assert 0 <= facts["wall_ms"]["min"] <= facts["wall_ms"]["mean"] <= facts["wall_ms"]["max"]
    assert facts["absent"] == {}
    assert "gpu_ms" not in facts


def test_a_block_and_a_named_function_share_a_name() -> None:
    @profiled("both")
    def function() -> None:
        pass

    function()
    with profiled("both"):
        pass
    assert profile_facts()["both"]["calls"] == 2


def test_nested_and_recursive_calls_are_counted_each_and_outer_holds_inner() -> None:
    """A call's time includes the calls within it."""

    @profiled("down")
    def down(depth: int) -> None:
        with profiled("inside"):
            if depth:
                down(depth - 1)

    down(4)
    facts = profile_facts()
    assert facts["down"]["calls"] == facts["inside"]["calls"] == 5
    assert facts["down"]["wall_ms"]["max"] >= facts["inside"]["wall_ms"]["max"]


def test_an_error_goes_on_and_is_counted() -> None:
    """In a function and in a block; the call has its time."""

    @profiled("fails")
    def fails() -> None:
        raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"):
        fails()
    with pytest.raises(ZeroDivisionError), profiled("fails"):
        _ = 1 / 0
    facts = profile_facts()["fails"]
    assert (facts["calls"], facts["failed"]) == (2, 2)


def test_threads_lose_no_call_even_through_one_object() -> None:
    """Eight threads enter one object and call one function at the same time."""
    shared = profiled("shared")

    @profiled("function")
    def function() -> None:
        pass

    def work() -> None:
        for _ in range(500):
            with shared, shared:
                function()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    facts = profile_facts()
    assert facts["shared"]["calls"] == 8000
    assert facts["function"]["calls"] == 4000
    assert shared._open == {}


def test_off_nothing_is_recorded_and_nothing_is_asked(device: DeviceDouble) -> None:
    """No event, no memory question, no registry entry; a block that began while off ends without a figure."""

    @profiled("off", device="cuda:7", memory=True)
    def function() -> int:
        return 7

    set_profiling(False)
    assert function() == 7
    with profiled("off"):
        set_profiling(True)
    assert profile_facts() == {}
    assert (device.made, device.free) == (0, 1 << 20)


def test_a_coroutine_is_measured_to_its_end() -> None:
    """Not only to where it is made; its error counts."""
    order = []

    @profiled("coroutine")
    async def coroutine(fail: bool) -> int:
        await asyncio.sleep(0)
        order.append("inside")
        assert "coroutine" not in profile_facts() or profile_facts()["coroutine"]["calls"] == len(order) - 1
        if fail:
            raise OSError
        return 3

    assert asyncio.run(coroutine(False)) == 3
    with pytest.raises(OSError):
        asyncio.run(coroutine(True))
    assert (profile_facts()["coroutine"]["calls"], profile_facts()["coroutine"]["failed"]) == (2, 1)


def test_what_cannot_be_measured_is_refused() -> None:
    """Generators, a block without a name, GPU options without a GPU."""
    with pytest.raises(TypeError, match="generator function"):

        @profiled
        def generator():
            yield 1

    with pytest.raises(ValueError, match="no name"), profiled():
        pass
    with pytest.raises(ValueError, match="device="):
        profiled("x", memory=True)


def test_gpu_time_is_between_two_events_and_memory_is_what_was_taken(device: DeviceDouble) -> None:
    """Each call has 3 ms between its events and 1 KiB less free memory; events are used again."""

    @profiled("gpu", device="cuda:7", memory=True)
    def function() -> None:
        pass

    for _ in range(200):
        function()
    facts = profile_facts()["gpu"]
    assert facts["gpu_ms"]["n"] == 200
    assert facts["gpu_ms"]["min"] == facts["gpu_ms"]["max"] == 3.0
    assert facts["gpu_memory_change_bytes"]["mean"] == 1024
    assert device.made <= 2 * (module.MAX_PENDING + 1)
    assert facts["absent"] == {}


def test_a_call_within_the_capture_of_a_graph_has_no_gpu_time(device: DeviceDouble) -> None:
    """Nothing runs while a graph is captured: such calls are counted as missing, and nothing is recorded."""
    with profiled("captured", device="cuda:7", memory=True):
        pass
    device.stream.is_capturing = True
    with profiled("captured", device="cuda:7", memory=True):
        pass
    device.stream.is_capturing = False
    facts = profile_facts()["captured"]
    assert facts["calls"] == facts["wall_ms"]["n"] == 2
    assert facts["gpu_ms"]["n"] == facts["gpu_memory_change_bytes"]["n"] == 1
    assert facts["absent"]["gpu_ms"].startswith("1 of 2 calls: ")


def test_a_capture_that_begins_inside_of_the_call_is_noticed_at_its_end(device: DeviceDouble) -> None:
    with profiled("half", device="cuda:7"):
        device.stream.is_capturing = True
    facts = profile_facts()["half"]
    assert "gpu_ms" not in facts
    assert "capture" in facts["absent"]["gpu_ms"]


def test_without_a_cuda_device_the_wall_time_stays_and_the_rest_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warp's refusal is the reason; the function runs."""

    def refuse(name: str) -> None:
        raise ValueError(f"Invalid device identifier: {name}")

    monkeypatch.setattr("warp.get_device", refuse)
    with profiled("here", device="cuda:9", memory=True):
        pass
    facts = profile_facts()["here"]
    assert facts["wall_ms"]["n"] == 1
    reason = "1 of 1 calls: ValueError: Invalid device identifier: cuda:9"
    assert facts["absent"] == {"gpu_ms": reason, "gpu_memory_change_bytes": reason}


def test_a_device_that_is_no_gpu_is_said() -> None:
    with profiled("here", device="cpu"):
        pass
    assert profile_facts()["here"]["absent"] == {"gpu_ms": "1 of 1 calls: cpu is no CUDA device"}


def test_an_event_that_fails_hides_neither_result_nor_error(
    device: DeviceDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device error within a measurement is a missing figure; the user's own error comes through."""

    def broken(self: object, stream: object) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(sys.modules["saccade.cuda"].Event, "record", broken)
    with pytest.raises(KeyError), profiled("broken", device="cuda:7"):
        raise KeyError
    facts = profile_facts()["broken"]
    assert facts["failed"] == 1
    assert facts["absent"]["gpu_ms"] == "1 of 1 calls: RuntimeError: device lost"


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names made from data do not fill the memory: what comes late shares one entry."""
    monkeypatch.setattr(module, "MAX_NAMES", 5)
    for index in range(50):
        with profiled(f"name {index}"):
            pass
    facts = profile_facts()
    assert len(facts) == 6
    assert facts[module.OTHER_NAMES]["calls"] == 45


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300))
def test_values_beyond_the_bound_keep_count_mean_and_extremes(values: list[float]) -> None:
    """Those four are of all values, percentiles of a sample of the bounded size, taken from the values."""
    kept = module.KEPT
    module.KEPT = 40
    try:
        found = module._Values()
        for value in values:
            found.add(value)
        facts = found.facts()
    finally:
        module.KEPT = kept
    assert facts["n"] == len(values)
    assert facts["min"] == min(values)
    assert facts["max"] == max(values)
    assert facts["mean"] == pytest.approx(np.mean(values), rel=1e-9, abs=1e-6)
    assert facts["p50"]["n"] == min(len(values), 40) == len(found._kept)
    assert set(found._kept) <= set(values)


def test_the_sample_that_is_kept_is_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 0..19999, 2000 are kept: each tenth of the range has its share (200, within six standard deviations)."""
    monkeypatch.setattr(module, "KEPT", 2000)
    found = module._Values()
    for value in range(20_000):
        found.add(float(value))
    counts, _ = np.histogram(found._kept, bins=10, range=(0, 20_000))
    assert counts.sum() == 2000
    assert np.abs(counts - 200).max() < 6 * np.sqrt(200 * 0.9 * 0.9)
