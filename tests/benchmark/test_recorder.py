"""The recorder's cost: records kept and dropped in turns, and the times put to the right side."""

import pytest
from tests.benchmark.sessions import session_for

from saccade.benchmark.measure import InvalidMeasurement
from saccade.benchmark.recorder import WARMUP_FRAMES, AlternatingSink, _result, measure_recorder
from saccade.telemetry.recorder import Recorder

COST = {"hand_over_us": {"mean": 2.0, "max": 9.0}, "records": 10, "lost": 0}


def test_every_other_record_is_kept(tmp_path):
    """Warm-up is recorded, too, but not timed."""
    recorder = Recorder(tmp_path, {"kind": "header", "schema": 1})
    sink = AlternatingSink(recorder)
    for tick in range(20):
        sink.put({"kind": "frame", "tick": tick, "phase": "warmup" if tick < 4 else "judged"})
    recorder.close("completed", "", 0.0, 0.0)
    assert recorder.facts()["records"] == 10
    assert len(sink.hand_over_us) == 8
    assert all(value > 0 for value in sink.hand_over_us)


def test_turns_are_told_apart_by_their_number():
    """A record is handed over right after the step: even turns have it, odd ones have not."""
    times = [0]
    for number in range(WARMUP_FRAMES + 40):
        times.append(times[-1] + (9_000_000 if number < WARMUP_FRAMES else 3_000_000 if number % 2 == 0 else 2_000_000))
    found = _result(times, [4.0] * 40, [2.0] * 20, COST)
    assert found["ratios"]["recorder_on_over_off"]["value"] == pytest.approx(1.5)
    assert found["ratios"]["recorder_share"]["value"] == pytest.approx(2.0 / 4000)
    assert found["recorder_us"] == 2.0
    assert found["recorder"]["median_ms"]["turn_recorded"]["n"] == 20


def test_too_few_turns_are_refused():
    """Nothing is said of five frames."""
    with pytest.raises(InvalidMeasurement, match="six"):
        _result([n * 1_000_000 for n in range(WARMUP_FRAMES + 6)], [1.0] * 6, [1.0] * 6, COST)


def test_the_loop_over_buffers_is_recorded_in_turns():
    """The real loop with the shipped camera network: half of the records are written, none is lost."""
    session = session_for(frames=10)
    found = measure_recorder(session)
    assert found["recorder"]["records"] == (20 + WARMUP_FRAMES + 1) // 2
    assert found["ratios"]["recorder_share"]["n"] >= 6
    assert 0 < found["ratios"]["recorder_share"]["value"] < 0.5
    assert found["recorder"]["median_ms"]["frame"]["n"] == 20
