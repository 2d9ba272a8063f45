"""A run turn by turn: whose turn it is, standing still, stopping, and who looks on."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from tests.scripted_runs import SteppedSimulator, loaded_for, use

from saccade.errors import ModelError
from saccade.loop import STAND, UPDATE
from saccade.telemetry.record import read_frames
from saccade.validation.interrupt import Interrupt
from saccade.validation.run import _paused_over_ros, validate, validation_turns
from saccade.validation.watch import APPLICATION, WORK


class Onlooker:
    """Keeps what it is shown."""

    def __init__(self):
        self.said, self.sessions, self.ticks, self.records = [], [], [], []
        self.say = self.said.append
        self.opened = self.sessions.append
        self.record = self.records.append

    def tick(self, tick):
        self.ticks.append(tick.index)


def turns_of(loaded, out, **arguments):
    return validation_turns(loaded, out=out, **arguments)


def run_to_end(turns, *, on=lambda turn: None):
    """Runs all turns; returns what each was followed by, and the summary."""
    kinds = []
    sent = None
    while True:
        try:
            kind = turns.send(sent)
        except StopIteration as end:
            return kinds, end.value
        kinds.append(kind)
        sent = on(kind)


def test_turns_say_whose_they_are(tmp_path, monkeypatch):
    """Loading, judging and reporting are work; opening, stepping and closing are the application's."""
    loaded = loaded_for(tmp_path, frames=3, warmup=1)
    use(monkeypatch)
    kinds, summary = run_to_end(turns_of(loaded, tmp_path / "runs"))
    assert kinds[:2] == [APPLICATION, APPLICATION], "after loading, and after opening"
    assert kinds[-3:] == [WORK, APPLICATION, WORK], "judging, closing, the report"
    assert set(kinds[2:-3]) == {STAND}
    assert summary["verdict"] == "pass", summary["reasons"]


def test_an_application_that_steps_the_simulator_itself_has_its_update_between_two_turns(tmp_path, monkeypatch):
    loaded = loaded_for(tmp_path, frames=3, warmup=1)
    simulators = use(monkeypatch, SteppedSimulator)
    kinds, summary = run_to_end(
        turns_of(loaded, tmp_path / "runs", stepped=True),
        on=lambda kind: simulators[0].update() if kind == UPDATE else None,
    )
    counts = Counter(kinds)
    assert counts[UPDATE] == counts[STAND] + 2, "two of them while it was opened"
    assert simulators[0].updates == counts[STAND] > 3
    assert summary["verdict"] == "pass", summary["reasons"]


def test_without_its_update_such_a_simulator_makes_no_step_and_the_run_can_still_be_stopped(tmp_path, monkeypatch):
    loaded = loaded_for(tmp_path, frames=3, warmup=1)
    simulators = use(monkeypatch, SteppedSimulator)
    interrupt, turns = Interrupt(), []

    def stop(kind):
        turns.append(kind)
        interrupt.requested = len(turns) > 50

    _, summary = run_to_end(turns_of(loaded, tmp_path / "runs", interrupt=interrupt, stepped=True), on=stop)
    assert turns.count(STAND) == 1 and turns.count(UPDATE) > 40 and not simulators[0].updates
    assert summary["verdict"] == "invalid"


def test_standing_still_is_recorded_and_is_in_neither_latency_nor_pace(tmp_path, monkeypatch):
    loaded = loaded_for(tmp_path, frames=4, warmup=0)
    use(monkeypatch)
    stood = []

    def stand(kind):
        if kind == STAND and not stood:
            time.sleep(0.3)
            stood.append(time.perf_counter_ns())
            return 0.3
        return None

    _, summary = run_to_end(turns_of(loaded, tmp_path / "runs"), on=stand)
    assert summary["pauses"] == [{"after_tick": 0, "wall_s": 0.3}]
    frames = read_frames(summary["directory"]).frames
    for frame in frames:
        early, late = frame["stamps"]["decided"] < stood[0], frame["stamps"]["sim_state"] > stood[0]
        assert (early, late) == (frame["tick"] == 0, frame["tick"] > 0), "the pause is in no frame's latency"
    states = [frame["stamps"]["sim_state"] for frame in frames]
    assert (max(states) - min(states)) * 1e-9 == pytest.approx(summary["wall_s"] + 0.3, abs=1e-6)


def test_a_pause_over_ros_lets_the_application_go_on():
    """No turn waits: paused, the run asks for update after update, and for how long is told to the loop."""
    asked, held, told = [], [], []

    def may_step():
        asked.append(True)
        return len(asked) > 6

    def steps():
        for _ in range(3):
            told.append((yield STAND))
        return "the outcome"

    simulator = SimpleNamespace(hold=held.append)
    kinds, outcome = run_to_end(_paused_over_ros(steps(), may_step, simulator, lambda: False))
    assert outcome == "the outcome" and held == [True]
    assert kinds == [STAND, *[UPDATE] * 5, STAND, STAND]
    assert told[0] > 0 and told[1:] == [None, None]
    # and a wish to stop ends the pause
    kinds, _ = run_to_end(_paused_over_ros(steps(), lambda: False, simulator, lambda: True))
    assert UPDATE not in kinds


def test_a_stop_between_two_turns_ends_the_run_as_ctrl_c_does(tmp_path, monkeypatch):
    loaded = loaded_for(tmp_path, frames=50, warmup=0)
    use(monkeypatch)
    interrupt, watch = Interrupt(), Onlooker()

    def stop(kind):
        interrupt.requested = interrupt.requested or len(watch.ticks) == 3

    _, summary = run_to_end(turns_of(loaded, tmp_path / "runs", interrupt=interrupt, watch=watch), on=stop)
    assert summary["verdict"] == "invalid" and "interrupted" in summary["reasons"][0]
    assert summary["frames"] == 3


def test_a_stop_while_loading_ends_the_loading(tmp_path, monkeypatch):
    """What is loaded says every second how far it is, and that is where the wish to stop is heard."""
    loaded = loaded_for(tmp_path, frames=5)
    simulators = use(monkeypatch)
    interrupt = Interrupt()
    interrupt.requested = True
    _, summary = run_to_end(turns_of(loaded, tmp_path / "runs", interrupt=interrupt))
    assert summary["verdict"] == "invalid" and not simulators, "it came before the simulator"


def test_who_looks_on_sees_what_was_opened_every_decision_and_every_record(tmp_path, monkeypatch):
    loaded = loaded_for(tmp_path, frames=4, warmup=2)
    use(monkeypatch)
    watch = Onlooker()
    _, summary = run_to_end(turns_of(loaded, tmp_path / "runs", watch=watch))
    assert watch.ticks == list(range(6))
    assert watch.records == read_frames(summary["directory"]).frames
    session = watch.sessions[-1]
    assert set(session.networks) == {"camera", "lidar"} and session.sampler is not None
    assert "writing the report" in watch.said


def test_turns_may_be_done_by_another_thread_each(tmp_path, monkeypatch):
    loaded = loaded_for(tmp_path, frames=2, warmup=0)
    use(monkeypatch)
    turns = turns_of(loaded, tmp_path / "runs")
    summaries, running = [], True

    def one():
        nonlocal running
        try:
            next(turns)
        except StopIteration as end:
            summaries.append(end.value)
            running = False

    while running:
        thread = threading.Thread(target=one)
        thread.start()
        thread.join()
    assert summaries[0]["verdict"] == "pass", summaries[0]["reasons"]


def test_a_run_that_is_given_up_is_closed_all_the_same(tmp_path, monkeypatch):
    """Whoever did the turns goes away in the middle: the record has its end, and nothing is complained about."""
    loaded = loaded_for(tmp_path, frames=50, warmup=0)
    use(monkeypatch)
    turns = turns_of(loaded, tmp_path / "runs")
    for _ in range(20):
        next(turns)
    own = ("saccade-recorder", "saccade-gpu-sampler")
    assert {thread.name for thread in threading.enumerate()} >= set(own), "the control: both were at work"
    turns.close()
    assert not {thread.name for thread in threading.enumerate()} & set(own)
    record = read_frames(tmp_path / "runs" / "latest")
    assert record.end["reason"] == "interrupted" and record.end["message"] == "the run was given up"


def test_turns_and_validate_give_the_same_record(tmp_path, monkeypatch):
    loaded = loaded_for(tmp_path, frames=3, warmup=1)
    use(monkeypatch)
    _, first = run_to_end(turns_of(loaded, tmp_path / "a"))
    second = validate(loaded, out=tmp_path / "b")
    keys = ("sensor", "sequence", "sim_time", "results", "command", "pose")
    one, two = ([{k: f[k] for k in keys} for f in read_frames(s["directory"]).frames] for s in (first, second))
    assert one == two


def test_what_cannot_be_used_leaves_nothing_behind(tmp_path, monkeypatch):
    loaded = loaded_for(tmp_path, frames=2)
    use(monkeypatch)
    (tmp_path / "camera.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError):
        run_to_end(turns_of(loaded, tmp_path / "runs"))
    assert not list((tmp_path / "runs").iterdir())
