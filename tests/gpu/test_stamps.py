"""Stamps by the GPU's global timer against CUDA events around the same work, inside replayed graphs."""

import statistics

import numpy as np
import pytest
import warp as wp

from saccade.frame import now_ns
from saccade.kernels.stamps import record_stamp
from saccade.telemetry.gpu_clock import PAIRS, GpuClock, gpu_pair

pytestmark = pytest.mark.gpu
DEVICE = "cuda:0"
LIMIT_NS = 5000
REPLAYS = 50


@wp.kernel
def spin(cycles: int, values: wp.array(dtype=wp.float32)):
    """Keeps one thread busy."""
    value = float(0.0)  # noqa: UP018 (a Warp variable, not a constant)
    for step in range(cycles):
        value = wp.sin(value + float(step))
    values[0] = value


@pytest.fixture(scope="module", autouse=True)
def device():
    if not wp.is_cuda_available():
        pytest.skip("Warp finds no CUDA device")


def tick():
    """The timer's step, from paired samples."""
    clock = GpuClock(gpu_pair(DEVICE))
    for _ in range(20):
        clock.synchronise()
    return clock.facts()["tick_ns"]


@pytest.mark.parametrize("cycles", [1, 1000, 20_000, 200_000])
def test_stamps_agree_with_events(cycles):
    """Each pair once around the other: what the graph needs from one node to the next counts once for each and cancels.

    After a long kernel that is 4 us on either side, more than stamps and events differ by.
    """
    around = difference_to_events(cycles, events_outside=False)
    within = difference_to_events(cycles, events_outside=True)
    limit = max(LIMIT_NS, tick() or 0)
    found = statistics.median(around) + statistics.median(within)
    assert abs(found) / 2 <= limit, f"stamps less events: {found / 2:.0f} ns, of {around} and {within}"
    assert statistics.median(within) <= statistics.median(around), "the inner pair took longer than the outer one"


def difference_to_events(cycles, *, events_outside):
    """Returns, per replay, the time [ns] between two stamps less that between two events around the same work."""
    stream = wp.get_stream(DEVICE)
    array, values = (wp.zeros(2, dtype=kind, device=DEVICE) for kind in (wp.uint64, wp.float32))
    stamps = [record_stamp(array, slot) for slot in range(2)]
    events = [wp.Event(DEVICE, enable_timing=True) for _ in range(2)]
    work = wp.launch(spin, 1, inputs=[cycles], outputs=[values], device=DEVICE, record_cmd=True)
    for launch in (*stamps, work):
        launch.launch()
    wp.synchronize_stream(stream)

    def mark(slot):
        marks = [lambda: stream.record_event(events[slot], external=True), stamps[slot].launch]
        for act in marks if events_outside == (slot == 0) else reversed(marks):
            act()

    with wp.ScopedCapture(stream=stream) as capture:
        mark(0)
        work.launch()
        mark(1)
    differences = []
    for _ in range(REPLAYS):
        wp.capture_launch(capture.graph, stream=stream)
        wp.synchronize_stream(stream)
        first, last = (int(value) for value in array.numpy())
        differences.append(last - first - wp.get_event_elapsed_time(*events) * 1e6)
    return differences


def test_stamps_rise_within_and_across_replays():
    """64 slots in one graph with work between them, replayed: never backwards, and each replay after the one before."""
    stream = wp.get_stream(DEVICE)
    array, values = (wp.zeros(64, dtype=kind, device=DEVICE) for kind in (wp.uint64, wp.float32))
    stamps = [record_stamp(array, slot) for slot in range(64)]
    work = wp.launch(spin, 1, inputs=[500], outputs=[values], device=DEVICE, record_cmd=True)
    stamps[0].launch()
    work.launch()
    wp.synchronize_stream(stream)
    with wp.ScopedCapture(stream=stream) as capture:
        for stamp in stamps:
            stamp.launch()
            work.launch()
    last = 0
    for _ in range(20):
        wp.capture_launch(capture.graph, stream=stream)
        times = array.numpy().astype(np.int64)
        assert times[0] >= last and (np.diff(times) >= 0).all() and times[-1] > times[0]
        last = times[-1]


def test_the_gpus_clock_is_mapped_within_what_is_said():
    """A stamp between two host times is mapped between them, give or take the uncertainty; nothing jumps."""
    clock = GpuClock(gpu_pair(DEVICE))
    clock.synchronise()
    array = wp.zeros(1, dtype=wp.uint64, device=DEVICE)
    stamp = record_stamp(array, 0)
    stream = wp.get_stream(DEVICE)
    margin = clock.facts()["uncertainty_us"]["max"] * 1e3 + 20_000
    for _ in range(100):
        wp.synchronize_stream(stream)
        before = now_ns()
        stamp.launch()
        wp.synchronize_stream(stream)
        after = now_ns()
        mapped = int(array.numpy()[0]) + clock.offset
        assert before - margin <= mapped <= after + margin
    clock.synchronise()
    facts = clock.facts()
    assert (facts["jumps"], facts["pairs"]) == (0, 2 * PAIRS)
    assert 0 < facts["uncertainty_us"]["max"] < 1000
