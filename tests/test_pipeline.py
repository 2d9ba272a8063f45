"""The pipeline: order, errors, deadlines, a stuck engine, stopping, and a balance that is asserted."""

import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import warp as wp
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.errors import ConfigurationError, EngineError
from saccade.frame import Frame, Stamps
from saccade.framepool import FramePool
from saccade.pipeline import Pipeline
from saccade.queueing import Counters, QueueClosed

ROOT = Path(__file__).parent.parent

PATIENCE_S = 60.0
"""After this something hangs; no assertion depends on how much earlier it ends."""


class Clock:
    """A clock that only the test moves [ms]."""

    def __init__(self):
        self.ms = 0.0

    def __call__(self):
        return round(self.ms * 1e6)


class Gate:
    """A ``process`` that holds each frame until the test lets it go."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)

    def __call__(self, frame):
        self.entered.release()
        assert self.leave.acquire(timeout=PATIENCE_S)
        return frame

    def holds_one(self):
        """Waits until a frame is in work."""
        assert self.entered.acquire(timeout=PATIENCE_S)


def values(pipeline, count):
    return [pipeline.get_result(timeout_s=PATIENCE_S).require() for _ in range(count)]


def test_results_in_order():
    """Each frame gives one result, in the order of submission, and everything balances."""
    with Pipeline(lambda frame: frame * 2, name="double", frames=10) as pipeline:
        tickets = [pipeline.submit_frame(frame) for frame in range(10)]
        assert values(pipeline, 10) == [2 * frame for frame in range(10)]
    assert [ticket.sequence for ticket in tickets] == list(range(10))
    assert {ticket.state for ticket in tickets} == {"delivered"}
    assert {ticket._delivered for ticket in tickets} == {None}, "a ticket that is kept must not keep its result"
    counters = pipeline.counters()
    assert counters.frames == Counters(10, 10, {}, 0)
    assert counters.results == Counters(10, 10, {}, 0)


def test_result_by_ticket_out_of_order():
    """A ticket gets its own result, the others stay in order, and each is delivered once."""
    with Pipeline(lambda frame: frame, name="same", frames=3) as pipeline:
        tickets = [pipeline.submit_frame(frame) for frame in "abc"]
        assert pipeline.get_result(tickets[1], PATIENCE_S).require() == "b"
        assert values(pipeline, 2) == ["a", "c"]
        with pytest.raises(ConfigurationError, match="frame 1 was read before"):
            pipeline.get_result(tickets[1])


def test_newest_result_names_what_it_skips():
    """The newest unread result comes out, the tickets of those passed over say so."""
    with Pipeline(lambda frame: frame, name="same", frames=3) as pipeline:
        tickets = [pipeline.submit_frame(frame) for frame in "abc"]
        pipeline.stop()
        assert pipeline.get_result(newest=True).require() == "c"
    assert [ticket.dropped for ticket in tickets] == ["result skipped", "result skipped", None]
    assert pipeline.counters().results == Counters(3, 1, {"skipped": 2}, 0)


def test_dropped_frame_answers_its_ticket():
    """Who waits for a frame that the policy dropped gets the reason at once."""
    gate = Gate()
    with Pipeline(gate, name="gate", frames=1) as pipeline:
        pipeline.submit_frame(0)
        gate.holds_one()
        replaced = pipeline.submit_frame(1)
        pipeline.submit_frame(2)
        delivered = pipeline.get_result(replaced, PATIENCE_S)
        assert (replaced.state, replaced.dropped) == ("dropped", "oldest")
        assert delivered.ticket is replaced
        with pytest.raises(EngineError, match=r"frame 1 was dropped \(oldest\)"):
            delivered.require()
        assert pipeline.counters().frames == Counters(3, 0, {"oldest": 1}, 2)
        gate.leave.release(2)
        assert values(pipeline, 2) == [0, 2]


def test_drop_wakes_who_waits_for_the_ticket():
    """A thread that waits for a ticket without a limit learns that its frame was dropped."""
    gate, outcome = Gate(), []
    with Pipeline(gate, name="gate", frames=1) as pipeline:
        pipeline.submit_frame(0)
        gate.holds_one()
        ticket = pipeline.submit_frame(1)
        waiter = threading.Thread(target=lambda: outcome.append(pipeline.get_result(ticket).ticket.dropped))
        waiter.start()
        pipeline.submit_frame(2)
        waiter.join(PATIENCE_S)
        gate.leave.release(2)
    assert outcome == ["oldest"]


def test_exception_is_that_frames_error():
    """One frame's exception is delivered for it and counted; the worker lives on."""

    def divide(frame):
        return 12 / frame

    with Pipeline(divide, name="divide", frames=3) as pipeline:
        for frame in (3, 0, 4):
            pipeline.submit_frame(frame)
        first, second, third = (pipeline.get_result(timeout_s=PATIENCE_S) for _ in range(3))
    assert (first.require(), third.require()) == (4.0, 3.0)
    assert second.value is None
    with pytest.raises(ZeroDivisionError):
        second.require()
    assert pipeline.counters().errors == 1
    assert pipeline.counters().frames == Counters(3, 3, {}, 0)


def test_system_exit_in_process_does_not_end_the_worker():
    """Even a SystemExit is only its frame's error."""

    def leave(frame):
        if frame == 0:
            raise SystemExit(1)
        return frame

    with Pipeline(leave, name="leave", frames=2) as pipeline:
        pipeline.submit_frame(0)
        pipeline.submit_frame(1)
        assert isinstance(pipeline.get_result(timeout_s=PATIENCE_S).error, SystemExit)
        assert values(pipeline, 1) == [1]


def test_deadline_streaks():
    """Misses are counted from capture to result, in a row and longest; the deadline itself is in time."""
    clock = Clock()

    def take(frame):
        clock.ms += frame
        if frame == 5:
            raise ValueError
        return frame

    with Pipeline(take, name="slow", deadline_ms=20, stuck_after_s=None, clock=clock) as pipeline:
        missed, streaks = [], []
        for took, waited in ((20, 0), (21, 0), (5, 0), (10, 11), (10, 10), (30, 0)):
            pipeline.submit_frame(took, captured_ns=clock() - waited * 1_000_000 if waited else None)
            missed.append(pipeline.get_result(timeout_s=None).missed)
            streaks.append(pipeline.counters().miss_streak)
            clock.ms += 100
    assert missed == [False, True, True, True, False, True]
    assert streaks == [0, 1, 2, 3, 0, 1]
    counters = pipeline.counters()
    assert (counters.missed, counters.longest_miss_streak, counters.errors) == (4, 3, 1)
    statistics = pipeline.statistics()
    assert (statistics["deadline"]["missed"]["count"], statistics["deadline"]["missed"]["n"]) == (4, 6)
    # Times are those of results, all of them: the error has none.
    assert (statistics["latency_ms"]["n"], statistics["latency_ms"]["max"]) == (5, 30.0)
    assert statistics["process_ms"]["min"] == 10.0


def test_without_a_deadline_nothing_is_judged():
    """No deadline, no misses, and the record says that none were judged."""
    with Pipeline(lambda frame: frame, name="same") as pipeline:
        pipeline.submit_frame(0)
        assert not pipeline.get_result(timeout_s=PATIENCE_S).missed
    assert pipeline.statistics()["deadline"]["missed"]["n"] == 0


def test_peek_does_not_take():
    """The newest result can be looked at before and after it is read, up to its age since capture."""
    clock = Clock()
    clock.ms = 1000
    with Pipeline(lambda frame: frame, name="same", stuck_after_s=None, clock=clock) as pipeline:
        assert pipeline.peek_result(1e9) is None
        pipeline.submit_frame("a", captured_ns=900_000_000)
        pipeline.get_result()
        assert pipeline.peek_result(0.1).require() == "a"
        assert pipeline.peek_result(0.099) is None
    assert pipeline.counters().results == Counters(1, 1, {}, 0)


@pytest.mark.parametrize(
    ("policy", "block", "expected"),
    [
        ("drop_oldest", None, [None, "oldest", None]),
        ("drop_newest", None, [None, None, "newest"]),
        ("block", None, [None, None, "deadline"]),
        ("drop_oldest", True, [None, None, "deadline"]),
        ("block", False, [None, None, "newest"]),
        ("drop_oldest", False, [None, "oldest", None]),
    ],
)
def test_policies_and_their_override(policy, block, expected):
    """What happens to the third frame while the first is in work and the second waits."""
    gate = Gate()
    with Pipeline(gate, name="gate", frames=1, policy=policy, block_deadline_s=0.0) as pipeline:
        tickets = [pipeline.submit_frame(0)]
        gate.holds_one()
        tickets.append(pipeline.submit_frame(1))
        tickets.append(pipeline.submit_frame(2, block=block))
        assert [ticket.dropped for ticket in tickets] == expected
        gate.leave.release(2)


def test_results_are_bounded_by_a_policy_of_their_own():
    """Unread results make room for newer ones, and their tickets say which."""
    with Pipeline(lambda frame: frame, name="same", frames=5, results=2) as pipeline:
        tickets = [pipeline.submit_frame(frame) for frame in range(5)]
        pipeline.stop()
        assert values(pipeline, 2) == [3, 4]
    assert [ticket.dropped for ticket in tickets] == ["result oldest"] * 3 + [None] * 2
    assert {ticket._delivered for ticket in tickets} == {None}, "a ticket that is kept must not keep its result"
    assert pipeline.counters().results == Counters(5, 2, {"oldest": 3}, 0)


def test_blocking_results_hold_the_worker_until_they_are_read():
    """With ``block`` no result is lost while somebody reads, however few may wait."""
    options = {"results": 1, "results_policy": "block", "results_deadline_s": PATIENCE_S}
    with Pipeline(lambda frame: frame, name="same", frames=50, **options) as pipeline:
        for frame in range(50):
            pipeline.submit_frame(frame)
        assert values(pipeline, 50) == list(range(50))


def test_stop_does_not_wait_for_a_reader_that_has_gone():
    """Results for which ``block`` has no room at the end are dropped and counted: stop returns."""
    options = {"results": 1, "results_policy": "block", "results_deadline_s": 1e6}
    pipeline = Pipeline(lambda frame: frame, name="same", frames=3, **options)
    for frame in range(3):
        pipeline.submit_frame(frame)
    pipeline.stop()
    assert pipeline.counters().results == Counters(3, 0, {"deadline": 2}, 1)
    assert pipeline.get_result().require() == 0
    with pytest.raises(QueueClosed, match="same: the pipeline has stopped"):
        pipeline.get_result()


def test_on_result_gets_everything_once():
    """Results and errors go to the callback in order; there is nothing to read then."""
    seen = []
    with Pipeline(lambda frame: 1 / frame, name="one", frames=3, on_result=seen.append) as pipeline:
        tickets = [pipeline.submit_frame(frame) for frame in (1, 0, 2)]
        with pytest.raises(ConfigurationError, match="on_result"):
            pipeline.get_result()
        with pytest.raises(ConfigurationError, match="on_result"):
            pipeline.peek_result(1.0)
    assert [delivered.ticket for delivered in seen] == tickets
    assert [delivered.value for delivered in seen] == [1.0, None, 0.5]
    assert pipeline.counters().results == Counters(3, 3, {}, 0)


def test_callback_that_raises_is_told_at_the_end():
    """The worker lives on, every frame is counted, and stop raises with the first error."""

    def publish(delivered):
        raise OSError(f"no network for {delivered.value}")

    pipeline = Pipeline(lambda frame: frame, name="same", frames=2, on_result=publish)
    pipeline.submit_frame("a")
    pipeline.submit_frame("b")
    with pytest.raises(EngineError, match=r"same: .*raised 2 times, first OSError: no network for a"):
        pipeline.stop()
    assert pipeline.counters().results == Counters(2, 2, {}, 0)
    pipeline.stop()


def test_stop_can_abandon():
    """Without draining, the frame in work is finished and what waits is dropped, each with its reason."""
    gate = Gate()
    pipeline = Pipeline(gate, name="gate", frames=5)
    tickets = [pipeline.submit_frame(0)]
    gate.holds_one()
    tickets += [pipeline.submit_frame(frame) for frame in (1, 2)]
    gate.leave.release()
    pipeline.stop(drain=False)
    assert [ticket.dropped for ticket in tickets] == [None, "abandoned", "abandoned"]
    assert pipeline.get_result(tickets[0]).require() == 0
    assert pipeline.counters().frames == Counters(3, 1, {"abandoned": 2}, 0)


def test_source_that_runs_on_after_stop():
    """Frames after the end are counted as ``closed``, and nothing is raised into the source."""
    pipeline = Pipeline(lambda frame: frame, name="same")
    pipeline.stop()
    assert pipeline.submit_frame(0).dropped == "closed"
    assert pipeline.counters().frames == Counters(1, 0, {"closed": 1}, 0)


def test_stop_wakes_blocked_sources_and_readers():
    """Sources that wait for room and readers that wait for results all end, and the balance holds."""
    gate, outcomes = Gate(), []
    pipeline = Pipeline(gate, name="gate", frames=1, policy="block", block_deadline_s=1e6)
    pipeline.submit_frame(0)
    gate.holds_one()
    pipeline.submit_frame(1)

    def read():
        try:
            outcomes.append(pipeline.get_result().value)
        except QueueClosed:
            outcomes.append("closed")

    threads = [threading.Thread(target=lambda: outcomes.append(pipeline.submit_frame(2).dropped)) for _ in range(3)]
    threads += [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    while pipeline.counters().frames.in_flight < 5:
        threading.Event().wait(0.001)
    gate.leave.release(1)
    gate.holds_one()
    while len(pipeline._frames) < 1:
        threading.Event().wait(0.001)
    # One source has got the room; the queue is full again, and two wait.
    stopping = threading.Thread(target=lambda: pipeline.stop(drain=False))
    stopping.start()
    gate.leave.release(1)
    for thread in [*threads, stopping]:
        thread.join(PATIENCE_S)
    assert Counter(map(str, outcomes)) == {"None": 1, "closed": 3, "0": 1, "1": 1}
    assert pipeline.counters().frames == Counters(5, 2, {"abandoned": 1, "closed": 2}, 0)


def test_stop_from_within_is_refused():
    """A callback that would wait for its own end is told so."""
    errors = []

    def publish(delivered):
        try:
            pipeline.stop()
        except ConfigurationError as error:
            errors.append(str(error))

    with Pipeline(lambda frame: frame, name="same", on_result=publish) as pipeline:
        pipeline.submit_frame(0)
    assert len(errors) == 1 and "another thread" in errors[0]


def test_time_limit_of_get_result():
    """Nothing in time is a TimeoutError that shows where the frames are."""
    gate = Gate()
    with Pipeline(gate, name="gate") as pipeline:
        pipeline.submit_frame(0)
        gate.holds_one()
        with pytest.raises(TimeoutError, match=r"gate: no result within 0 s; frames: 1 produced = .* 1 in flight"):
            pipeline.get_result(timeout_s=0)
        gate.leave.release()


def stuck_pipeline(clock, reported, **options):
    """A pipeline whose frame 0 the watchdog has found stuck, and its gate."""
    gate = Gate()
    pipeline = Pipeline(
        gate, name="camera", frames=3, stuck_after_s=1000.0, on_stuck=reported.append, clock=clock, **options
    )
    pipeline.submit_frame("stuck")
    gate.holds_one()
    clock.ms += 1_234_500
    pipeline.watchdog.check()
    return pipeline, gate


def recovered(pipeline):
    """Waits until the incident is over; the test has let the frame go."""
    while pipeline.stuck is not None:
        threading.Event().wait(0.001)


def test_stuck_engine_is_told_instead_of_hanging():
    """The one incident is reported with stacks, and who waits without a limit gets name, time and remedy."""
    clock, reported = Clock(), []
    pipeline, gate = stuck_pipeline(clock, reported)
    assert pipeline.stuck is reported[0]
    assert "saccade-pipeline camera" in reported[0].stacks and "in __call__" in reported[0].stacks
    for _ in range(2):
        with pytest.raises(
            EngineError, match=r"camera: the engine is stuck.* frame 0 for 1234\.5 s.*Start the process"
        ):
            pipeline.get_result()
    assert pipeline.counters().incidents == len(reported) == 1
    gate.leave.release()
    recovered(pipeline)
    pipeline.stop()


def test_recovery_is_noticed_and_recorded():
    """When the frame comes back after all, its result is delivered and the incident has its duration."""
    clock, reported = Clock(), []
    pipeline, gate = stuck_pipeline(clock, reported)
    clock.ms += 500
    gate.leave.release()
    recovered(pipeline)
    assert pipeline.get_result(timeout_s=PATIENCE_S).require() == "stuck"
    pipeline.stop()
    assert pipeline.statistics()["incidents"] == [
        {"work": "frame 0", "silent_s": 1234.5, "recovered_after_s": 1235.0},
    ]


def test_becoming_stuck_wakes_who_waits():
    """A reader that waits already is told too."""
    clock, gate, outcome = Clock(), Gate(), []
    pipeline = Pipeline(gate, name="camera", stuck_after_s=1000.0, on_stuck=lambda _: None, clock=clock)
    pipeline.submit_frame(0)
    gate.holds_one()

    def read():
        try:
            pipeline.get_result()
        except EngineError as error:
            outcome.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    while not pipeline._changed._waiters:
        threading.Event().wait(0.001)
    clock.ms += 2_000_000
    pipeline.watchdog.check()
    reader.join(PATIENCE_S)
    assert len(outcome) == 1 and "stuck" in outcome[0]
    gate.leave.release()
    recovered(pipeline)
    pipeline.stop()


def test_stop_gives_a_stuck_engine_up():
    """Stop does not hang: it raises, the frame in work counts as stuck, and a late return changes nothing."""
    clock, reported = Clock(), []
    pool = []
    pipeline, gate = stuck_pipeline(clock, reported, keep=lambda frame: [frame], release=pool.append)
    waiting = pipeline.submit_frame("waiting")
    with pytest.raises(EngineError, match="camera: the engine is stuck"):
        pipeline.stop()
    assert waiting.dropped == "abandoned"
    expected = Counters(2, 0, {"abandoned": 1, "stuck": 1}, 0)
    assert pipeline.counters().frames == expected
    with pytest.raises(EngineError, match="stuck"):
        pipeline.get_result()
    assert pool == [["waiting"]]
    gate.leave.release()
    pipeline._thread.join(PATIENCE_S)
    assert pool == [["waiting"], ["stuck"]]
    assert pipeline.counters().frames == expected
    assert pipeline.counters().results == Counters(0, 0, {}, 0)


def test_stop_with_a_time_limit():
    """What is not done in time counts as dropped, and stop says so."""
    gate = Gate()
    pipeline = Pipeline(gate, name="gate", stuck_after_s=None)
    ticket = pipeline.submit_frame(0)
    gate.holds_one()
    with pytest.raises(EngineError, match=r"gate: .*not done in the time"):
        pipeline.stop(timeout_s=0)
    assert ticket.dropped == "stuck"
    assert pipeline.counters().frames == Counters(1, 0, {"stuck": 1}, 0)
    gate.leave.release()


def test_heartbeat_from_within_long_work():
    """A frame that says that it goes on is not stuck, however long it takes."""
    clock = Clock()
    found = []

    def long_work(frame):
        for _ in range(3):
            clock.ms += 900_000
            found.append(pipeline.watchdog.check())
            pipeline.heartbeat()
        return frame

    pipeline = Pipeline(long_work, name="camera", stuck_after_s=1000.0, clock=clock)
    pipeline.submit_frame(0)
    assert pipeline.get_result().require() == 0
    pipeline.stop()
    assert found == [None, None, None]
    assert pipeline.counters().incidents == 0


def test_frame_of_another_clock_is_refused():
    """A capture time in the future can only be a mistake, and says which clock to use."""
    with Pipeline(lambda frame: frame, name="same") as pipeline:
        with pytest.raises(ConfigurationError, match=r"in the future.*now_ns"):
            pipeline.submit_frame(0, captured_ns=10**19)
        assert pipeline.counters().frames == Counters(0, 0, {}, 0)


def test_bytes_bound_and_unknown_sizes():
    """Frames count by their bytes; where those are not known the frame is refused, not let through."""
    gate = Gate()
    with Pipeline(gate, name="gate", frames=10, bytes=10) as pipeline:
        pipeline.submit_frame(b"0")
        gate.holds_one()
        tickets = [pipeline.submit_frame(bytes(size)) for size in (6, 4, 4, 11)]
        assert [ticket.dropped for ticket in tickets] == ["oldest", None, None, "too_large"]
        with pytest.raises(ConfigurationError, match="size_bytes"):
            pipeline.submit_frame(object())
        gate.leave.release(3)


def test_simulator_frames_are_copied_into_a_pool():
    """Frames that wait keep their values while the source overwrites its one buffer, and all buffers come back."""
    pool, gate = FramePool(), Gate()
    color = wp.zeros((2, 2), dtype=wp.uint32, device="cpu")

    def first_pixel(frame):
        gate(frame)
        return int(frame.buffers["color"].numpy()[0, 0])

    options = {"keep": pool.keep, "release": pool.release}
    with Pipeline(first_pixel, name="pixel", frames=2, bytes=1000, **options) as pipeline:
        for sequence in range(5):
            color.fill_(sequence)
            pipeline.submit_frame(Frame("eye", "camera", sequence, 0.0, Stamps(), {"color": color}))
            if sequence == 0:
                gate.holds_one()
        gate.leave.release(5)
        assert values(pipeline, 3) == [0, 3, 4]
    assert pipeline.counters().copies == pool.copied_frames == 5
    assert pool.lent_frames == 0
    assert pool.allocated_frames <= 4


def test_refused_frames_are_not_copied():
    """What a full queue, a bound in bytes or the end refuses at once costs no copy, and nothing is given back."""
    gate, copied, released = Gate(), [], []

    def keep(frame):
        copied.append(frame)
        return frame

    options = {"keep": keep, "release": released.append}
    with Pipeline(gate, name="gate", frames=1, bytes=5, policy="drop_newest", **options) as pipeline:
        pipeline.submit_frame(b"0")
        gate.holds_one()
        dropped = [pipeline.submit_frame(frame).dropped for frame in (b"1", b"2", b"too large")]
        gate.leave.release(2)
        pipeline.stop()
        dropped.append(pipeline.submit_frame(b"3").dropped)
    assert dropped == [None, "newest", "too_large", "closed"]
    assert copied == released == [b"0", b"1"]
    assert pipeline.counters().copies == 2


def test_violated_balance_raises():
    """A frame that is nowhere makes stop raise with all counters, also when the block ends by another exception."""
    pipeline = Pipeline(lambda frame: frame, name="camera")
    pipeline._frames._produced += 1
    with pytest.raises(EngineError, match=r"camera: not every frame(?s:.*)1 produced ≠ 0 consumed"):
        pipeline.stop()

    pipeline = Pipeline(lambda frame: frame, name="camera")
    pipeline._frames._produced += 1
    pipeline._in_work = object()
    with pytest.raises(EngineError, match=r"not every frame(?s:.*)1 produced = 0 consumed \+ 0 dropped \+ 1 in flight"):
        pipeline.stop()

    pipeline = Pipeline(lambda frame: frame, name="camera")
    pipeline._results._produced += 1
    pipeline._results._consumed += 1
    with pytest.raises(EngineError, match=r"not every frame(?s:.*)results: 1 produced = 1 consumed"):
        pipeline.stop()

    with pytest.raises(EngineError, match="not every frame"):
        with Pipeline(lambda frame: frame, name="camera") as pipeline:
            pipeline._results._consumed += 1
            raise RuntimeError


def test_worker_that_crashes_is_told(monkeypatch):
    """Should the worker itself end by an error, nobody waits for it, and its error is the cause of what is raised."""
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    pipeline = Pipeline(lambda frame: frame, name="camera", frames=3)

    def crash(delivered):
        raise MemoryError("no room for one more number")

    pipeline._tally = SimpleNamespace(count=crash, finished=0, errors=0, missed=0, miss_streak=0, longest_miss_streak=0)
    for frame in range(3):
        pipeline.submit_frame(frame)
    with pytest.raises(EngineError, match="camera: the worker ended with MemoryError") as raised:
        pipeline.get_result()
    assert isinstance(raised.value.__cause__, MemoryError)
    pipeline._thread.join(PATIENCE_S)
    with pytest.raises(EngineError, match="not every frame") as raised:
        pipeline.stop()
    assert isinstance(raised.value.__cause__, MemoryError)


def test_exception_in_the_block_is_the_one_that_is_told():
    """Leaving by an exception abandons what waits, ends the worker, and does not hide the exception."""
    gate = Gate()
    with pytest.raises(RuntimeError, match="mine"):
        with Pipeline(gate, name="gate", frames=3) as pipeline:
            pipeline.submit_frame(0)
            gate.holds_one()
            pipeline.submit_frame(1)
            gate.leave.release()
            raise RuntimeError("mine")
    assert not pipeline._thread.is_alive()
    assert pipeline.counters().frames == Counters(2, 1, {"abandoned": 1}, 0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"frames": 0}, "camera: frames: frames is 0"),
        ({"results": 0}, "camera: results: frames is 0"),
        ({"policy": "block"}, "camera: frames: block needs deadline_s"),
        ({"results_policy": "block"}, "camera: results: block needs deadline_s"),
        ({"deadline_ms": 0}, "camera: deadline_ms is 0"),
        ({"stuck_after_s": 0}, "camera: the watchdog's limit is 0"),
    ],
)
def test_senseless_options_are_refused(options, text):
    """The message names the pipeline and the field, and no thread is left behind."""
    with pytest.raises(ConfigurationError, match=text):
        Pipeline(lambda frame: frame, **{"name": "camera", **options})
    assert not [thread for thread in threading.enumerate() if thread.name.endswith(" camera")]


@pytest.fixture
def eager_switching():
    """Lets threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switching")
@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(1, 4),
    results=st.integers(1, 4),
    policy=st.sampled_from(["drop_oldest", "drop_newest", "block"]),
    results_policy=st.sampled_from(["drop_oldest", "drop_newest", "block"]),
    counts=st.lists(st.integers(0, 20), min_size=1, max_size=3),
    readers=st.lists(st.booleans(), max_size=2),
    drain=st.booleans(),
)
def test_balance_between_real_threads(frames, results, policy, results_policy, counts, readers, drain):
    """Every ticket ends as delivered, unread or dropped for a reason, and they add up to the counters."""
    pipeline = Pipeline(
        lambda frame: frame if frame % 5 else 1 // 0,
        name="threads",
        frames=frames,
        policy=policy,
        block_deadline_s=PATIENCE_S,
        results=results,
        results_policy=results_policy,
        results_deadline_s=PATIENCE_S if readers else 0.0,
        deadline_ms=1e6,
    )
    tickets = [[] for _ in counts]
    read = [[] for _ in readers]

    def submit(source):
        tickets[source].extend(pipeline.submit_frame(frame) for frame in range(counts[source]))

    def consume(reader):
        try:
            while True:
                read[reader].append(pipeline.get_result(newest=readers[reader]).ticket)
        except QueueClosed:
            pass

    consumers = [threading.Thread(target=consume, args=(reader,)) for reader in range(len(readers))]
    sources = [threading.Thread(target=submit, args=(source,)) for source in range(len(counts))]
    for thread in [*consumers, *sources]:
        thread.start()
    for thread in sources:
        thread.join(PATIENCE_S)
    pipeline.stop(drain=drain)
    for thread in consumers:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in [*consumers, *sources])

    everything = [ticket for mine in tickets for ticket in mine]
    states = Counter(ticket.state for ticket in everything)
    reasons = Counter(ticket.dropped for ticket in everything if ticket.dropped)
    counters = pipeline.counters()
    delivered = [ticket for mine in read for ticket in mine]
    assert len(everything) == sum(counts) == counters.frames.produced
    assert sorted(ticket.sequence for ticket in everything) == list(range(len(everything)))
    assert len(delivered) == len(set(map(id, delivered))) == states["delivered"] == counters.results.consumed
    assert states["ready"] == counters.results.in_flight
    assert {r: n for r, n in reasons.items() if not r.startswith("result ")} == counters.frames.dropped
    assert {r[7:]: n for r, n in reasons.items() if r.startswith("result ")} == counters.results.dropped
    assert set(states) <= {"delivered", "ready", "dropped"}
    assert counters.missed == counters.errors
    for mine in read:
        # The order of completion is that of acceptance: within one source, the order of submission.
        for source in tickets:
            order = [ticket.sequence for ticket in mine if ticket in source]
            assert order == sorted(order)


def test_example_of_the_document_runs(capsys):
    """The code in docs/pipeline.md runs as it stands, and its frames and results balance."""
    text = (ROOT / "docs" / "pipeline.md").read_text(encoding="utf-8")
    exec(text.split("```python\n")[1].split("```")[0], {})
    result, frames, results = capsys.readouterr().out.splitlines()[-3:]
    assert result.startswith("(1, 6, 224, 224) ")
    assert frames.startswith("frames: 100 produced = ") and frames.endswith(" + 0 in flight")
    assert results.startswith("results: ") and " = 1 consumed + " in results


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "block"])
def test_example_script_balances(policy):
    """examples/pipeline.py runs under each policy and prints the balance of all its frames."""
    command = [sys.executable, str(ROOT / "examples" / "pipeline.py"), "--seconds", "0.2", "--policy", policy]
    out = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
    frames = next(line for line in out.splitlines() if line.startswith("frames: "))
    assert frames.startswith("frames: 200 produced = ") and frames.endswith(" + 0 in flight")


def test_end_of_the_process_waits_for_the_frame_in_work():
    """A script that ends without stopping its pipeline, as after a second Ctrl-C, lets the frame in work end."""
    script = textwrap.dedent(
        """
        import threading
        from saccade.pipeline import Pipeline

        entered, leave = threading.Event(), threading.Event()

        def process(frame):
            entered.set()
            leave.wait(0.2)
            print("frame", frame, "ended", flush=True)

        pipeline = Pipeline(process, name="camera", frames=5)
        for frame in range(3):
            pipeline.submit_frame(frame)
        entered.wait()
        """
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (process.returncode, process.stdout, process.stderr) == (0, "frame 0 ended\n", "")


def test_ctrl_c_ends_cleanly():
    """A script that is interrupted while it waits ends by KeyboardInterrupt, with its worker stopped and balanced."""
    script = textwrap.dedent(
        """
        import signal
        import threading
        from saccade.pipeline import Pipeline

        # A parent in the background of a shell passes on that SIGINT is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)

        go = threading.Event()
        pipeline = Pipeline(lambda frame: go.wait(0.05), name="camera", frames=1)
        try:
            with pipeline:
                pipeline.submit_frame(0)
                pipeline.get_result()
                print("ready", flush=True)
                while True:
                    pipeline.submit_frame(1)
                    pipeline.get_result()
                    pipeline.submit_frame(2)
        except KeyboardInterrupt:
            frames = pipeline.counters().frames
            print("balanced", frames.balanced, frames.in_flight, pipeline._thread.is_alive())
            raise
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert out == "balanced True 0 False\n"
    assert err.rstrip().endswith("KeyboardInterrupt")
