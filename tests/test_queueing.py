"""The bounded queue: order, reasons, waiting, and a balance that holds whatever happens."""

import sys
import threading
from collections import Counter

import numpy as np
import pytest
import warp as wp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from saccade import queueing
from saccade.errors import ConfigurationError
from saccade.frame import Frame, Stamps
from saccade.queueing import BoundedQueue, Counters, QueueClosed, payload_bytes

PATIENCE_S = 60.0
"""After this a thread that should have ended hangs; no assertion depends on how much earlier it ends."""


class Clock:
    """A clock that stands, or advances by a step each time it is read."""

    def __init__(self, step_ns=0):
        self.now = 0
        self.step = step_ns

    def __call__(self):
        self.now += self.step
        return self.now


def filled(count, **options):
    queue = BoundedQueue(**{"frames": count, "clock": Clock(), **options})
    for item in range(count):
        assert queue.put(item) is None
    return queue


def started(work, count=1):
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def ended(threads):
    for thread in threads:
        thread.join(PATIENCE_S)
    return not any(thread.is_alive() for thread in threads)


def waiting_on(condition):
    """Returns once a thread waits on the condition."""
    for _ in range(100_000):
        with condition:
            if condition._waiters:
                return
        threading.Event().wait(0.0005)
    raise AssertionError("nobody waits")


def test_take_is_in_order():
    """Items come out in the order in which they went in."""
    queue = filled(3)
    assert [queue.take(0) for _ in range(3)] == [0, 1, 2]
    assert queue.counters() == Counters(3, 3, {}, 0)


def test_drop_oldest_keeps_the_newest():
    """A full queue lets the oldest go, under its own reason."""
    queue = filled(2, policy="drop_oldest")
    assert queue.put(2) is None
    assert [queue.take(0), queue.take(0)] == [1, 2]
    assert queue.counters() == Counters(3, 2, {"oldest": 1}, 0)


def test_drop_newest_refuses():
    """A full queue refuses, tells the producer, and keeps what it has."""
    queue = filled(2, policy="drop_newest")
    assert queue.put(2) == "newest"
    assert [queue.take(0), queue.take(0)] == [0, 1]
    assert queue.counters() == Counters(3, 2, {"newest": 1}, 0)


def test_block_drops_at_the_deadline_of_the_given_clock():
    """The deadline is on the clock that was passed in, and an item that finds no room by then is counted for it."""
    clock = Clock(step_ns=1_000_000)
    queue = BoundedQueue(frames=1, policy="block", deadline_s=0.01, clock=clock)
    assert queue.put("first") is None
    assert queue.put("second") == "deadline"
    assert clock.now >= 10_000_000
    assert queue.counters() == Counters(2, 0, {"deadline": 1}, 1)


def test_block_waits_for_room():
    """A blocked producer is in flight, and goes on as soon as a reader has made room."""
    queue = filled(1, policy="block", deadline_s=PATIENCE_S)
    threads = started(lambda: queue.put(1))
    waiting_on(queue._writable)
    assert queue.counters() == Counters(2, 0, {}, 2)
    assert queue.take(0) == 0
    assert ended(threads)
    assert queue.take(0) == 1
    assert queue.counters() == Counters(2, 2, {}, 0)


def test_take_newest_names_what_it_skips():
    """The newest comes out; what was passed over is dropped by that read, and not by the policy."""
    queue = filled(4)
    assert queue.take_newest(0) == 3
    assert queue.counters() == Counters(4, 1, {"skipped": 3}, 0)


def test_take_item_out_of_turn():
    """A certain item can be taken, its bytes become free, and the others keep their order."""
    items = [object(), object(), object()]
    queue = BoundedQueue(frames=3, bytes=3)
    for item in items:
        queue.put(item, size_bytes=1)
    assert queue.take_item(items[1])
    assert not queue.take_item(items[1])
    assert queue.waiting_bytes == 2
    assert [queue.take(0), queue.take(0)] == [items[0], items[2]]


def test_peek_sees_the_newest_without_consuming():
    """A peek changes no counter, sees what was read already, and nothing that is too old."""
    clock = Clock()
    queue = BoundedQueue(frames=2, clock=clock)
    assert queue.peek(1e9) is None
    queue.put("a")
    clock.now = 2_000_000_000
    queue.put("b", stamp_ns=1_000_000_000)
    assert queue.peek(1.0) == "b"
    assert queue.peek(0.999) is None
    assert queue.take_newest(0) == "b"
    assert queue.peek(1.0) == "b"
    assert queue.counters() == Counters(2, 1, {"skipped": 1}, 0)


def test_bytes_bound_lets_several_go():
    """One large item replaces as many old ones as its bytes need."""
    queue = BoundedQueue(frames=10, bytes=10)
    for item in range(3):
        queue.put(item, size_bytes=3)
    assert queue.put("large", size_bytes=6) is None
    assert queue.waiting_bytes == 9
    assert [queue.take(0), queue.take(0)] == [2, "large"]
    assert queue.counters().dropped == {"oldest": 2}


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "block"])
def test_item_larger_than_the_queue(policy):
    """What could never fit is dropped at once, under any policy, and costs no other item its place."""
    queue = BoundedQueue(frames=2, bytes=10, policy=policy, deadline_s=PATIENCE_S)
    queue.put("small", size_bytes=10)
    assert queue.put("large", size_bytes=11) == "too_large"
    assert queue.counters() == Counters(2, 0, {"too_large": 1}, 1)


def test_close_lets_readers_drain():
    """After close nothing comes in, what waits is still read, and then the end is told."""
    queue = filled(2)
    queue.close()
    assert queue.put(2) == "closed"
    assert [queue.take(0), queue.take_newest()] == [0, 1]
    with pytest.raises(QueueClosed):
        queue.take()
    assert queue.counters() == Counters(3, 2, {"closed": 1}, 0)


def test_close_can_abandon():
    """What waited is dropped under its own reason, and a peek finds nothing."""
    queue = filled(3)
    queue.close(abandon=True)
    assert queue.peek(1e9) is None
    assert queue.counters() == Counters(3, 0, {"abandoned": 3}, 0)


def test_close_wakes_every_reader():
    """All readers that wait without a limit end when the queue is closed."""
    queue = BoundedQueue(frames=1)
    outcomes = []

    def read():
        try:
            queue.take()
        except QueueClosed:
            outcomes.append("closed")

    threads = started(read, 5)
    waiting_on(queue._readable)
    queue.close()
    assert ended(threads)
    assert outcomes == ["closed"] * 5


def test_close_wakes_every_producer():
    """All producers that wait for room are told, and their items are counted."""
    queue = filled(1, policy="block", deadline_s=PATIENCE_S, clock=Clock())
    outcomes = []
    threads = started(lambda: outcomes.append(queue.put("late")), 5)
    waiting_on(queue._writable)
    queue.close()
    assert ended(threads)
    assert outcomes == ["closed"] * 5
    assert queue.counters() == Counters(6, 0, {"closed": 5}, 1)


def test_stop_waiting_for_room():
    """A producer that waits gives up, and later ones do not wait."""
    queue = filled(1, policy="block", deadline_s=PATIENCE_S)
    outcomes = []
    threads = started(lambda: outcomes.append(queue.put("late")))
    waiting_on(queue._writable)
    queue.stop_waiting_for_room()
    assert ended(threads)
    outcomes.append(queue.put("later"))
    assert outcomes == ["deadline", "deadline"]


def test_take_times_out_on_the_given_clock():
    """Nothing in the queue ends in a TimeoutError that names the queue."""
    queue = BoundedQueue(frames=1, name="eye", clock=Clock(step_ns=1_000_000))
    with pytest.raises(TimeoutError, match="eye: nothing came within"):
        queue.take(0.01)


def test_policy_of_one_item():
    """A single put can have another policy than the queue."""
    queue = filled(1, policy="drop_oldest", deadline_s=0.0)
    assert queue.put(1, policy="drop_newest") == "newest"
    assert queue.put(2, policy="block") == "deadline"
    assert queue.put(3) is None
    assert queue.take(0) == 3


def test_block_for_one_item_needs_a_deadline():
    """Without a deadline the call is refused before the item is counted."""
    queue = filled(1)
    with pytest.raises(ConfigurationError, match="deadline_s"):
        queue.put(1, policy="block")
    assert queue.counters() == Counters(1, 0, {}, 1)


def test_on_drop_gets_each_item_and_its_reason():
    """Whoever drops, the callback is told."""
    dropped = []
    queue = BoundedQueue(frames=2, on_drop=lambda item, reason: dropped.append((item, reason)))
    for item in range(3):
        queue.put(item)
    queue.take_newest(0)
    queue.put(3)
    queue.close(abandon=True)
    queue.put(4)
    assert dropped == [(0, "oldest"), (1, "skipped"), (3, "abandoned"), (4, "closed")]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"frames": 0}, "at least one"),
        ({"bytes": 0}, "bytes is 0"),
        ({"policy": "drop"}, "none of drop_oldest, drop_newest, block"),
        ({"policy": "block"}, "needs deadline_s"),
        ({"deadline_s": -1.0}, "deadline_s is -1"),
        ({"deadline_s": float("nan")}, "deadline_s is nan"),
        ({"deadline_s": float("inf")}, "deadline_s is inf"),
    ],
)
def test_senseless_bounds_are_refused(options, text):
    """The message names the queue and the field."""
    with pytest.raises(ConfigurationError, match=f"eye: .*{text}"):
        BoundedQueue(**{"frames": 1, "name": "eye", **options})


def test_payload_bytes():
    """The bytes of arrays and frames are known, those of other objects are refused."""
    color = wp.zeros((4, 5), dtype=wp.uint32, device="cpu")
    normals = wp.zeros((4, 5), dtype=wp.vec3f, device="cpu")
    frame = Frame("eye", "camera", 0, 0.0, Stamps(), {"color": color, "normals": normals})
    assert payload_bytes(frame) == 4 * 5 * 4 + 4 * 5 * 12
    assert payload_bytes(np.zeros((2, 3), np.float64)) == 48
    assert payload_bytes(b"abc") == 3
    with pytest.raises(ConfigurationError, match=r"object.*size_bytes"):
        payload_bytes(object())


def test_bytes_are_found_where_not_given():
    """A queue bounded by bytes asks the item for its size."""
    queue = BoundedQueue(frames=9, bytes=100)
    queue.put(np.zeros(60, np.uint8))
    queue.put(np.zeros(50, np.uint8))
    assert queue.waiting_bytes == 50
    assert queue.counters().dropped == {"oldest": 1}


def test_counters_read_as_an_equation():
    """The text for people holds the same numbers, and says so when they do not add up."""
    assert str(Counters(5, 2, {"skipped": 1, "oldest": 1}, 1)) == (
        "5 produced = 2 consumed + 2 dropped (oldest 1, skipped 1) + 1 in flight"
    )
    wrong = Counters(5, 2, {}, 1)
    assert not wrong.balanced
    assert str(wrong) == "5 produced ≠ 2 consumed + 0 dropped + 1 in flight"


class QueueAgainstModel(RuleBasedStateMachine):
    """The queue against a plain list, one call at a time."""

    @initialize(
        frames=st.integers(1, 4),
        limit=st.none() | st.integers(1, 12),
        policy=st.sampled_from(["drop_oldest", "drop_newest", "block"]),
    )
    def open(self, frames, limit, policy):
        """Makes both; ``block`` without patience, as nobody else could make room."""
        self.clock = Clock()
        self.queue = BoundedQueue(frames=frames, bytes=limit, policy=policy, deadline_s=0.0, clock=self.clock)
        self.frames, self.limit, self.policy = frames, limit, policy
        self.waiting = []  # (item, size)
        self.newest = None  # (item, stamp)
        self.produced, self.consumed, self.dropped = 0, 0, Counter()
        self.closed = False

    def fits(self, size):
        """Whether there is room for one more."""
        return len(self.waiting) < self.frames and (
            self.limit is None or sum(s for _, s in self.waiting) + size <= self.limit
        )

    @rule(size=st.integers(0, 14), age=st.integers(0, 5))
    def put(self, size, age):
        """Offers one item that is ``age`` seconds old."""
        item, stamp = self.produced, self.clock.now - age * 10**9
        self.produced += 1
        refusal = {"drop_newest": "newest", "block": "deadline"}.get(self.policy)
        if self.closed:
            expected = "closed"
        elif self.limit is not None and size > self.limit:
            expected = "too_large"
        else:
            expected = None if self.fits(size) else refusal
        if expected is not None:
            self.dropped[expected] += 1
        else:
            while not self.fits(size):
                self.waiting.pop(0)
                self.dropped["oldest"] += 1
            self.waiting.append((item, size))
            self.newest = (item, stamp)
        assert self.queue.put(item, size_bytes=size, stamp_ns=stamp) == expected

    @rule(newest=st.booleans())
    def read(self, newest):
        """Takes in order or the newest, without waiting."""
        read = self.queue.take_newest if newest else self.queue.take
        if not self.waiting:
            with pytest.raises(QueueClosed if self.closed else TimeoutError):
                read(0)
            return
        while newest and len(self.waiting) > 1:
            self.waiting.pop(0)
            self.dropped["skipped"] += 1
        self.consumed += 1
        assert read(0) == self.waiting.pop(0)[0]

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def take_item(self, data):
        """Takes any waiting item out of turn."""
        index = data.draw(st.integers(0, len(self.waiting) - 1))
        self.consumed += 1
        assert self.queue.take_item(self.queue._entries[index].item)
        self.waiting.pop(index)

    @rule(seconds=st.integers(0, 5), max_age=st.integers(0, 10))
    def peek(self, seconds, max_age):
        """Lets time pass and peeks."""
        self.clock.now += seconds * 10**9
        young = self.newest is not None and self.clock.now - self.newest[1] <= max_age * 10**9
        assert self.queue.peek(max_age) == (self.newest[0] if young else None)

    @precondition(lambda self: self.produced > 10)
    @rule(abandon=st.booleans())
    def close(self, abandon):
        """Closes, once or again."""
        self.queue.close(abandon=abandon)
        self.closed = True
        if abandon:
            self.newest = None
            if self.waiting:
                self.dropped["abandoned"] += len(self.waiting)
            self.waiting.clear()

    @invariant()
    def counts_agree(self):
        """Every counter, the bytes and the balance are the model's."""
        if not hasattr(self, "queue"):
            return
        counters = self.queue.counters()
        assert counters == Counters(self.produced, self.consumed, dict(self.dropped), len(self.waiting))
        assert counters.balanced
        assert self.queue.waiting_bytes == sum(size for _, size in self.waiting)
        assert len(self.queue) == len(self.waiting)


QueueAgainstModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestQueueAgainstModel = QueueAgainstModel.TestCase


@pytest.fixture
def eager_switching():
    """Lets threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switching")
@settings(max_examples=40, deadline=None)
@given(
    frames=st.integers(1, 5),
    limit=st.none() | st.integers(3, 12),
    policy=st.sampled_from(["drop_oldest", "drop_newest", "block"]),
    sizes=st.lists(st.lists(st.integers(0, 4), max_size=25), min_size=1, max_size=3),
    readers=st.lists(st.booleans(), min_size=1, max_size=3),
    abandon=st.booleans(),
)
def test_balance_between_real_threads(frames, limit, policy, sizes, readers, abandon):
    """Every item is read once or dropped once, each reader sees each producer's order, and every snapshot balances."""
    dropped = []
    queue = BoundedQueue(
        frames=frames,
        bytes=limit,
        policy=policy,
        deadline_s=PATIENCE_S,
        on_drop=lambda item, reason: dropped.append((item, reason)),
    )
    read = [[] for _ in readers]
    snapshots = []
    done = threading.Event()

    def produce(producer):
        for index, size in enumerate(sizes[producer]):
            queue.put((producer, index), size_bytes=size)

    def consume(reader):
        while True:
            try:
                read[reader].append(queue.take_newest() if readers[reader] else queue.take())
            except QueueClosed:
                return

    def watch():
        while not done.is_set():
            snapshots.append(queue.counters())

    consumers = [started(lambda reader=reader: consume(reader))[0] for reader in range(len(readers))]
    watcher = started(watch)
    producers = [started(lambda producer=producer: produce(producer))[0] for producer in range(len(sizes))]
    assert ended(producers)
    queue.close(abandon=abandon)
    assert ended(consumers)
    done.set()
    assert ended(watcher)

    everything = [(producer, index) for producer, items in enumerate(sizes) for index in range(len(items))]
    counters = queue.counters()
    seen = [item for items in read for item in items]
    too_large = [item for item, reason in dropped if reason == "too_large"]
    assert sorted(seen + [item for item, _ in dropped]) == everything
    assert counters == Counters(len(everything), len(seen), dict(Counter(reason for _, reason in dropped)), 0)
    assert all(snapshot.balanced for snapshot in snapshots)
    assert too_large == [] or limit < 4
    for items in read:
        for producer in range(len(sizes)):
            order = [index for who, index in items if who == producer]
            assert order == sorted(order)


@pytest.mark.usefixtures("eager_switching")
def test_no_wake_up_is_lost():
    """Producers and readers that wait without a limit all come to their end: 4000 items through one place."""
    queue = BoundedQueue(frames=1, policy="block", deadline_s=10 * PATIENCE_S)
    read = [[] for _ in range(4)]

    def consume(mine):
        try:
            while True:
                mine.append(queue.take())
        except QueueClosed:
            pass

    consumers = [started(lambda mine=mine: consume(mine))[0] for mine in read]
    producers = started(lambda: [queue.put(index) for index in range(1000)], 4)
    assert ended(producers)
    queue.close()
    assert ended(consumers)
    assert queue.counters() == Counters(4000, 4000, {}, 0)
    assert Counter(item for mine in read for item in mine) == Counter(list(range(1000)) * 4)


def calls():
    """Each kind of call that changes the account, on a queue that is full."""
    return {
        "put": lambda queue: queue.put("new", size_bytes=1),
        "refuse": lambda queue: queue.put("new", size_bytes=1, policy="drop_newest"),
        "block": lambda queue: queue.put("new", size_bytes=1, policy="block"),
        "take": lambda queue: queue.take(0),
        "take_newest": lambda queue: queue.take_newest(0),
        "take_item": lambda queue: queue.take_item("b"),
        "abandon": lambda queue: queue.close(abandon=True),
    }


@pytest.mark.parametrize("kind", calls())
def test_interrupt_between_any_two_lines(kind):
    """A Ctrl-C at any line of a call leaves a queue that balances, has its lock free and works on."""
    interrupted = 0
    line = 0
    while True:
        queue = BoundedQueue(frames=3, bytes=3, policy="drop_oldest", deadline_s=0.0)
        for item in "abc":
            queue.put(item, size_bytes=1)
        hit = interrupt_at(line, lambda queue=queue: calls()[kind](queue))
        if not hit:
            break
        interrupted += 1
        line += 1
        counters = queue.counters()
        assert counters.balanced, (line, counters)
        assert counters.in_flight == len(queue) == queue.waiting_bytes
        assert ended(started(queue.counters)), "the lock is still held"
        while len(queue):
            queue.take(0)
        assert queue.counters().balanced
    assert interrupted >= 5


def interrupt_at(wanted, call):
    """Raises KeyboardInterrupt at the ``wanted``-th line of the queue that the call runs; tells whether it did.

    Not in the code that deals with an interrupt, and not on a ``with`` line: Python itself cannot be interrupted
    safely between taking a lock and entering the block.
    """
    count = -1
    fired = False

    def trace(frame, event, _):
        nonlocal count, fired
        code = frame.f_code
        if code.co_filename != queueing.__file__ or code.co_name in ("_settle_interrupt", "_exact"):
            return None
        if event == "line" and not fired and frame.f_lineno not in with_lines:
            count += 1
            if count == wanted:
                fired = True
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return fired


with open(queueing.__file__, encoding="utf-8") as source:
    with_lines = {number for number, text in enumerate(source, 1) if text.strip().startswith("with ")}
