"""Outbox: every message is accounted for under every policy, nobody waits who need not, nothing is built unheard."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.bridge.outbox import Outbox


class Gate:
    """A receiver that takes messages only while it is open."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.sent: list[bytes] = []

    def send(self, data) -> None:
        self.open.wait(10)
        self.sent.append(bytes(data))


@pytest.fixture
def outbox():
    made = Outbox()
    yield made
    made.close()


def balanced(counters) -> bool:
    return counters["produced"] == counters["delivered"] + counters["dropped"] + counters["in_flight"]


@pytest.mark.parametrize(("policy", "kept"), [("drop_oldest", [b"8", b"9"]), ("drop_newest", [b"1", b"2"])])
def test_drop(outbox, policy, kept):
    """With a receiver that takes nothing, the queue holds the newest or the oldest messages; the rest is dropped."""
    gate = Gate()
    channel = outbox.open("/topic", send=gate.send, capacity=2, policy=policy)
    channel.put(lambda: b"0")
    while not channel._sending:
        time.sleep(0.001)
    for number in range(1, 10):
        channel.put(lambda number=number: str(number).encode())
    counters = channel.counters()
    assert (counters["produced"], counters["dropped"], counters["in_flight"]) == (10, 7, 3)
    assert balanced(counters)
    gate.open.set()
    assert outbox.flush(5)
    assert gate.sent == [b"0", *kept]
    assert channel.counters()["delivered"] == 3


def test_block(outbox):
    """Under ``block`` the caller waits for room and nothing is lost."""
    gate = Gate()
    channel = outbox.open("/topic", send=gate.send, capacity=1, policy="block")
    threading.Timer(0.2, gate.open.set).start()
    for number in range(20):
        assert channel.put(lambda number=number: bytes([number]))
    assert outbox.flush(5)
    assert gate.sent == [bytes([number]) for number in range(20)]
    assert channel.waited_s > 0
    assert channel.dropped == 0


def test_block_ends_with_close():
    """A caller who waits for room is let go when the outbox is closed, and the messages are accounted for."""
    outbox = Outbox()
    gate = Gate()
    channel = outbox.open("/topic", send=gate.send, capacity=1, policy="block")
    caller = threading.Thread(target=lambda: [channel.put(lambda: b"x") for _ in range(5)])
    caller.start()
    while channel.in_flight < 2:
        time.sleep(0.001)
    threading.Timer(0.3, gate.open.set).start()
    outbox.close(timeout=0.1)
    caller.join(5)
    assert not caller.is_alive()
    assert balanced(channel.counters())
    assert channel.counters()["produced"] == 5


def test_unheard(outbox):
    """Without a listener nothing is built, queued or counted as produced; what it held is let go."""
    built = []
    released = []
    channel = outbox.open("/topic", send=lambda data: None, wanted=lambda: False)
    assert not channel.put(lambda: built.append(1) or b"", release=lambda: released.append(1))
    assert (built, released) == ([], [1])
    assert (channel.unheard, channel.produced, channel.in_flight) == (1, 0, 0)


def test_failures_are_dropped(outbox):
    """A message that cannot be built or sent is counted with its reason, and the next one goes out."""
    sent = []

    def send(data) -> None:
        if data == b"refused":
            raise OSError("no room")
        sent.append(data)

    channel = outbox.open("/topic", send=send)
    channel.put(lambda: 1 / 0)
    channel.put(lambda: b"refused")
    channel.put(lambda: b"good")
    assert outbox.flush(5)
    counters = channel.counters()
    assert (counters["produced"], counters["delivered"], counters["dropped"], counters["failures"]) == (3, 1, 2, 2)
    assert counters["failure"] == "OSError: no room"
    assert sent == [b"good"]


def test_turns(outbox):
    """A full channel delays another one by the message that is being sent, not by its queue."""
    gate = Gate()
    order = []
    first = outbox.open("/large", send=lambda data: (gate.send(data), order.append("large")), capacity=50)
    second = outbox.open("/small", send=lambda data: order.append("small"))
    for _ in range(50):
        first.put(lambda: b"")
    while not first._sending:
        time.sleep(0.001)
    second.put(lambda: b"")
    gate.open.set()
    assert outbox.flush(5)
    assert order.index("small") <= 2


def test_close_gives_up():
    """Closing with a receiver that hangs ends in time; what was not sent is dropped, and everything is released."""
    outbox = Outbox()
    gate = Gate()
    released = []
    channel = outbox.open("/topic", send=gate.send, capacity=5)
    for _ in range(4):
        channel.put(lambda: b"", release=lambda: released.append(1))
    assert not outbox.close(timeout=0.2)
    assert not channel.put(lambda: b"", release=lambda: released.append(1))
    gate.open.set()
    outbox._thread.join(5)
    assert len(released) == 5
    assert balanced(channel.counters())
    assert channel.counters()["in_flight"] == 0


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 2), max_size=60),
    st.integers(1, 4),
    st.sampled_from(["drop_oldest", "drop_newest", "block"]),
)
def test_balance(actions, capacity, policy):
    """Whatever mix of good and failing messages on three channels: all is accounted for and released once."""
    outbox = Outbox()
    released = []
    channels = [
        outbox.open(str(number), send=lambda data: None, capacity=capacity, policy=policy) for number in range(3)
    ]
    for number, action in enumerate(actions):
        build = (lambda: 1 / 0) if number % 5 == 4 else (lambda: b"")
        channels[action].put(build, release=lambda: released.append(1))
        assert balanced(channels[action].counters())
    outbox.close()
    assert all(balanced(channel.counters()) and not channel.in_flight for channel in channels)
    assert sum(channel.produced for channel in channels) == len(actions) == len(released)
