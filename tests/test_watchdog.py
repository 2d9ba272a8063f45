"""The watchdog: once per incident, with the stacks of all threads, and recovery is noticed."""

import threading

import pytest

from saccade import watchdog as module
from saccade.errors import ConfigurationError
from saccade.watchdog import Watchdog, stacks

PATIENCE_S = 60.0


class Clock:
    """A clock that only the test moves [s]."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return round(self.seconds * 1e9)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reported():
    return []


@pytest.fixture
def watchdog(clock, reported):
    return Watchdog(2.0, name="camera", on_stuck=reported.append, clock=clock)


def test_idle_is_never_stuck(watchdog, clock, reported):
    """Without work, and after work has ended, no time is too long."""
    clock.seconds = 1e6
    assert watchdog.check() is None
    watchdog.begin("frame 0")
    watchdog.end()
    clock.seconds = 2e6
    assert watchdog.check() is None
    assert reported == [] and watchdog.incident is None


def test_limit_itself_is_not_too_long(watchdog, clock):
    """Exactly the limit passes, a nanosecond more does not."""
    watchdog.begin("frame 0")
    clock.seconds = 2.0
    assert watchdog.check() is None
    clock.seconds = 2.000000001
    assert watchdog.check() is not None


def test_one_report_per_incident(watchdog, clock, reported):
    """However often it looks, and however long it lasts, one incident is told once."""
    watchdog.begin("frame 7")
    for clock.seconds in (3.0, 4.0, 100.0):
        watchdog.check()
    assert watchdog.incident_count == 1
    assert [(incident.work, incident.silent_s) for incident in reported] == [("frame 7", 3.0)]


def test_recovery_is_recorded_and_the_next_incident_is_told(clock, reported):
    """The end of the work closes the incident with its whole duration; the next one is a new one."""
    recovered = []
    watchdog = Watchdog(2.0, name="camera", on_stuck=reported.append, on_recovered=recovered.append, clock=clock)
    watchdog.begin("frame 0")
    clock.seconds = 3.0
    watchdog.check()
    clock.seconds = 5.0
    watchdog.end()
    assert watchdog.incident is None
    assert recovered == reported
    assert reported[0].recovered_after_s == 5.0
    watchdog.begin("frame 1")
    clock.seconds = 8.0
    watchdog.check()
    assert [incident.work for incident in watchdog.incidents] == ["frame 0", "frame 1"]
    assert watchdog.incident is reported[1]
    assert reported[1].recovered_after_s is None


def test_beats_keep_long_work_alive(watchdog, clock, reported):
    """Work may take any time as long as it gives signs of life; a beat also ends an incident."""
    watchdog.begin("frame 0")
    for clock.seconds in (2.0, 4.0, 6.0):
        assert watchdog.check() is None
        watchdog.beat()
    clock.seconds = 9.0
    watchdog.check()
    watchdog.beat()
    assert [incident.recovered_after_s for incident in reported] == [3.0]
    assert watchdog.incident is None


def test_beat_without_work_starts_none(watchdog, clock):
    """A stray beat does not make the watchdog wait for an end."""
    watchdog.beat()
    clock.seconds = 100.0
    assert watchdog.check() is None
    assert watchdog.silent_s() == 0.0


def test_stacks_name_the_stuck_thread_first(clock, reported):
    """The report shows where the worker stands, by thread name and function, before all other threads."""
    watchdog = Watchdog(2.0, name="camera", on_stuck=reported.append, clock=clock)
    inside, release = threading.Event(), threading.Event()

    def inference_that_never_returns():
        watchdog.begin("frame 3")
        inside.set()
        release.wait(PATIENCE_S)
        watchdog.end()

    worker = threading.Thread(target=inference_that_never_returns, name="worker of the test")
    worker.start()
    try:
        assert inside.wait(PATIENCE_S)
        clock.seconds = 12.3
        incident = watchdog.check()
    finally:
        release.set()
        worker.join(PATIENCE_S)
    first, *others = incident.stacks.removeprefix("Thread ").split("\nThread ")
    assert first.startswith("worker of the test") and "in inference_that_never_returns" in first
    assert any(other.startswith("MainThread") and "watchdog.check()" in other for other in others)
    assert str(incident).startswith(
        "camera is stuck: no sign of life from frame 3 for 12.3 s (limit 2 s), recovered after 12.3 s\nThread worker"
    )


def test_remedy_names_engine_time_and_what_to_do(watchdog, clock):
    """The text for those who wait holds all three."""
    watchdog.begin("frame 3")
    clock.seconds = 12.34
    watchdog.check()
    text = watchdog.remedy()
    assert text.startswith("camera: the engine is stuck, no sign of life from frame 3 for 12.3 s (limit 2 s).")
    assert "Start the process anew" in text and "stuck_after_s" in text and "heartbeat()" in text


def test_report_goes_to_standard_error_by_default(clock, capsys):
    """Who gives no callback still sees the stacks."""
    watchdog = Watchdog(2.0, name="camera", clock=clock)
    watchdog.begin("frame 0")
    clock.seconds = 3.0
    watchdog.check()
    out, err = capsys.readouterr()
    assert out == ""
    assert "camera is stuck" in err and "Thread MainThread" in err


def test_callback_that_raises_does_not_end_the_watch(clock, capsys):
    """Its error is shown, and the next incident is noticed."""
    calls = []

    def fail(incident):
        calls.append(incident.work)
        raise RuntimeError("no mail server")

    watchdog = Watchdog(2.0, name="camera", on_stuck=fail, clock=clock)
    for work in ("frame 0", "frame 1"):
        watchdog.begin(work)
        clock.seconds += 3.0
        watchdog.check()
        watchdog.end()
    assert calls == ["frame 0", "frame 1"]
    assert capsys.readouterr().err.count("RuntimeError: no mail server") == 2


def test_thread_notices_by_itself(monkeypatch):
    """Started, it looks without being asked; closed, its thread is gone."""
    monkeypatch.setattr(module, "LONGEST_PERIOD_S", 0.001)
    clock, noticed, reported = Clock(), threading.Event(), []

    def tell(incident):
        reported.append(incident.work)
        noticed.set()

    with Watchdog(2.0, name="camera", on_stuck=tell, clock=clock) as watchdog:
        watchdog.begin("frame 0")
        clock.seconds = 3.0
        assert noticed.wait(PATIENCE_S)
    assert reported == ["frame 0"]
    assert "saccade-watchdog camera" not in [thread.name for thread in threading.enumerate()]


def test_incidents_are_bounded(watchdog, clock, monkeypatch):
    """Beyond the bound incidents are counted and told, but their stacks are not kept."""
    monkeypatch.setattr(module, "MAX_INCIDENTS", 2)
    for index in range(4):
        watchdog.begin(f"frame {index}")
        clock.seconds += 3.0
        watchdog.check()
        watchdog.end()
    assert watchdog.incident_count == 4
    assert [incident.work for incident in watchdog.incidents] == ["frame 0", "frame 1"]


def test_incident_for_the_record(watchdog, clock, reported):
    """The record holds what, how long and whether it came back, and no stacks."""
    watchdog.begin("frame 0")
    clock.seconds = 3.0
    watchdog.check()
    assert reported[0].as_dict() == {"work": "frame 0", "silent_s": 3.0, "recovered_after_s": None}


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_senseless_limit_is_refused(limit):
    """The message names the engine."""
    with pytest.raises(ConfigurationError, match="camera: the watchdog's limit"):
        Watchdog(limit, name="camera")


def test_stacks_begin_with_any_thread_that_is_asked_for():
    """Every thread has its stack, and whichever is named comes first."""
    release = threading.Event()
    others = [threading.Thread(target=release.wait, args=(PATIENCE_S,), name=f"other {index}") for index in range(3)]
    for thread in others:
        thread.start()
    try:
        threads = [threading.current_thread(), *others]
        for first in threads:
            text = stacks(first.ident)
            assert text.startswith(f"Thread {first.name} (")
            assert all(f"Thread {thread.name} (" in text for thread in threads)
    finally:
        release.set()
