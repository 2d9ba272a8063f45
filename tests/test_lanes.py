"""Lanes where there is one stream, and their order of waiting where there are several."""

import pytest

from saccade import lanes as module
from saccade.lanes import Lanes


class Stream:
    """A stream that notes what it is told."""

    def __init__(self, log, name):
        self.log, self.name = log, name

    def record_event(self, event):
        self.log.append((self.name, "records", event.number))

    def wait_event(self, event):
        self.log.append((self.name, "waits", event.number))


class Device:
    is_cuda = True


class Fake:
    """Just what lanes use of Warp."""

    def __init__(self):
        self.log, self.events, self.streams = [], 0, 0
        self.device = Device()
        self.device.stream = Stream(self.log, "main")

    def get_device(self, device):
        return self.device

    def Event(self, device):
        event = type("Event", (), {"number": self.events})()
        self.events += 1
        return event

    def Stream(self, device):
        self.streams += 1
        return Stream(self.log, f"side{self.streams}")

    class ScopedStream:
        def __init__(self, stream, *, sync_enter, sync_exit):
            assert not sync_enter and not sync_exit
            self.stream = stream

        def __enter__(self):
            return self.stream

        def __exit__(self, *error):
            pass


@pytest.fixture
def fake(monkeypatch):
    found = Fake()
    monkeypatch.setattr(module, "wp", found)
    return found


def frame(lanes):
    lanes.begin()
    with lanes.on("a") as stream:
        mark = lanes.mark("a")
    with lanes.on("b", mark):
        pass
    with lanes.on(None, mark):
        pass
    lanes.join()
    return stream


def test_a_lane_branches_off_waits_for_what_it_is_given_and_is_joined(fake):
    """Every lane starts after the main stream's past, and the main stream goes on after every lane."""
    frame(Lanes("cuda:0", branched=True))
    assert fake.log == [
        ("main", "records", 0),
        ("side1", "waits", 0),
        ("side1", "records", 1),
        ("side2", "waits", 0),
        ("side2", "waits", 1),
        ("main", "waits", 1),
        ("side1", "records", 2),
        ("main", "waits", 2),
        ("side2", "records", 3),
        ("main", "waits", 3),
    ]


def test_streams_and_events_are_made_once(fake):
    """A second frame makes none."""
    lanes = Lanes("cuda:0", branched=True)
    frame(lanes)
    made = (fake.events, fake.streams)
    frame(lanes)
    assert (fake.events, fake.streams) == made == (4, 2)


def test_in_one_line_everything_is_the_main_stream(fake):
    """No events, no waits, and every lane is the device's stream."""
    stream = frame(Lanes("cuda:0", branched=False))
    assert stream is fake.device.stream and not fake.log and not fake.streams


def test_the_cpu_has_no_streams():
    """Branched or not, the CPU runs what is launched at once."""
    assert frame(Lanes("cpu", branched=True)) is None
