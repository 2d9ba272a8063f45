"""Stamps by the GPU's global timer against CUDA events around the same work, inside replayed graphs."""

import statistics

import numpy as np
import pytest
import warp as wp

from saccade.frame import now_ns
from saccade.kernels.stamps import Marks, mark_first, mark_last, record_stamp, set_marks, unmarked
from saccade.mailbox import Mailbox
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


@wp.kernel
def marked(marks: Marks, cycles: int, values: wp.array(dtype=wp.float32)):
    """Keeps every thread busy, some longer than others, and stamps itself."""
    i = wp.tid()
    mark_first(marks, i)
    value = float(0.0)  # noqa: UP018 (a Warp variable, not a constant)
    for step in range(cycles + i % 7):
        value = wp.sin(value + float(step))
    values[i] = value
    mark_last(marks)


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


@pytest.mark.parametrize("threads", [1, 1000, 224 * 224, 1_000_000])
@pytest.mark.parametrize("cycles", [1, 1000])
def test_a_kernel_that_stamps_itself_agrees_with_events(threads, cycles):
    """Beginning to end lies between two events around it and takes no more than the limit less; in every replay."""
    stream, mailbox = wp.get_stream(DEVICE), Mailbox(0, DEVICE)
    values = wp.zeros(threads, dtype=wp.float32, device=DEVICE)
    work = wp.launch(marked, threads, inputs=[unmarked(), cycles], outputs=[values], device=DEVICE, record_cmd=True)
    set_marks(work, mailbox.marks(first=0, last=1))
    results = mailbox.record_results([], [], first=2)
    events = [wp.Event(DEVICE, enable_timing=True) for _ in range(2)]
    for launch in (work, results):
        launch.launch()
    wp.synchronize_stream(stream)
    with wp.ScopedCapture(stream=stream) as capture:
        stream.record_event(events[0], external=True)
        work.launch()
        stream.record_event(events[1], external=True)
        results.launch()
    step, newest, differences = tick() or 0, 0, []
    for _ in range(REPLAYS):
        wp.capture_launch(capture.graph, stream=stream)
        wp.synchronize_stream(stream)
        first, last, after = (int(value) for value in mailbox.stamp_values[:3])
        assert newest < first + step and first <= last + step and last <= after + step
        newest = after
        differences.append(wp.get_event_elapsed_time(*events) * 1e6 - (last - first))
    assert -step <= statistics.median(differences) <= max(LIMIT_NS, step), f"events less stamps: {differences}"


@pytest.mark.parametrize("threads", [1000, 224 * 224])
def test_a_kernels_own_stamps_agree_with_those_of_kernels_around_it(threads):
    """What took a node each and what takes none are the same moments, give or take what a node needs to begin."""
    stream, mailbox = wp.get_stream(DEVICE), Mailbox(0, DEVICE)
    values = wp.zeros(threads, dtype=wp.float32, device=DEVICE)
    work = wp.launch(marked, threads, inputs=[unmarked(), 500], outputs=[values], device=DEVICE, record_cmd=True)
    set_marks(work, mailbox.marks(first=1, last=2))
    launches = [mailbox.record_stamp(0), work, mailbox.record_stamp(3), mailbox.record_results([], [])]
    for launch in launches:
        launch.launch()
    wp.synchronize_stream(stream)
    with wp.ScopedCapture(stream=stream) as capture:
        for launch in launches:
            launch.launch()
    apart = []
    for _ in range(REPLAYS):
        wp.capture_launch(capture.graph, stream=stream)
        wp.synchronize_stream(stream)
        times = mailbox.stamp_values[:4].astype(np.int64)
        assert (np.diff(times) >= 0).all()
        apart.append((times[1] - times[0], times[3] - times[2]))
    limit = max(LIMIT_NS, tick() or 0)
    assert (np.median(apart, axis=0) <= limit).all(), f"{np.median(apart, axis=0)} ns apart"


def test_a_block_counts_all_that_is_not_finite():
    """256 threads and a barrier between counting and writing, replayed with other values each time."""
    from saccade.kernels import decode

    stream, mailbox = wp.get_stream(DEVICE), Mailbox(2, DEVICE)
    values = wp.zeros((2, decode.SMALL // 2), dtype=wp.float32, device=DEVICE)
    hazards = wp.array(np.array([[0.25], [0.75]], np.float32), device=DEVICE)
    outputs = [
        decode.small_output(values, row=0, batch=2),
        decode.small_output(hazards, row=0, batch=2, column=decode.HAZARD),
    ]
    results = mailbox.record_results(outputs, [0, 1])
    results.launch()
    wp.synchronize_stream(stream)
    with wp.ScopedCapture(stream=stream) as capture:
        results.launch()
    random = np.random.default_rng(0)
    for count in (0, 1, 2048, 3, 0, 700):
        given = np.zeros((2, decode.SMALL // 2), np.float32)
        given[1, random.permutation(given.shape[1])[:count]] = np.nan
        values.assign(given)
        wp.capture_launch(capture.graph, stream=stream)
        wp.synchronize_stream(stream)
        assert mailbox.rows(0, 2)[:, decode.NON_FINITE].tolist() == [0, count]
        assert mailbox.rows(0, 2)[:, decode.HAZARD].tolist() == [0.25, 0.75]


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
