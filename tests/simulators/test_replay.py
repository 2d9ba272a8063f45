"""Recording of sensor frames and their replay: bit for bit the same, and what happens to damaged recordings."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import warp as wp
from tests.factories import make_frames, make_header, write_record

from saccade.config import RunConfig
from saccade.errors import EngineError, RecordError
from saccade.frame import Command, Contact, Frame, GroundTruth, SimState, Stamps, now_ns
from saccade.loop import Tick
from saccade.simulators.base import Simulator
from saccade.simulators.replay import ReplaySimulator
from saccade.telemetry import sensor_recorder as recording
from saccade.telemetry.sensor_recorder import SensorRecorder

TICKS = 12


def configuration(frames=TICKS - 2, warmup=2, **changes):
    data = {
        "scene": "any.usda",
        "simulator": {"step": 0.05},
        "sensors": {
            "eye": {"kind": "camera", "prim": "eye", "width": 12, "height": 8, "rate": 10},
            "lidar": {"kind": "lidar", "prim": "lidar", "channels": 4, "columns": 16, "rate": 5},
        },
        "networks": {
            "a": {"model": "a.onnx", "inputs": {"x": {"kind": "image", "sensor": "eye"}}},
            "b": {"model": "b.onnx", "inputs": {"x": {"kind": "range_image", "sensor": "lidar"}}},
        },
        "run": {"frames": frames, "warmup": warmup},
        **changes,
    }
    return RunConfig.model_validate(data)


def scripted_ticks(count=TICKS, seed=0):
    """Decisions with random content; the LiDAR comes every other time, and its true labels are its own array."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        state = SimState(
            sim_time=0.05 + 0.1 * index + 1e-9 * rng.random(),
            step=1 + 2 * index,
            position=tuple(rng.normal(size=3)),
            yaw=rng.normal(),
            velocity=tuple(rng.normal(size=2)),
            yaw_rate=rng.normal(),
            distance=0.07 * index,
        )
        labels = wp.array(rng.integers(0, 6, (8, 12)).astype(np.uint8), dtype=wp.uint8, device="cpu")
        color = wp.array(rng.integers(0, 2**32, (8, 12), dtype=np.uint32), dtype=wp.uint32, device="cpu")
        frames = [Frame("eye", "camera", 2 * index, state.sim_time, Stamps(), {"color": color, "labels": labels}, 1)]
        truths = [GroundTruth(labels, bool(rng.random() < 0.5), None)]
        if index % 2 == 0:
            ranges = rng.random((4, 16)).astype(np.float32)
            ranges[0, 0] = np.nan
            buffers = {
                "ranges": wp.array(ranges, dtype=wp.float32, device="cpu"),
                "intensity": wp.array(rng.random((4, 16)).astype(np.float32), dtype=wp.float32, device="cpu"),
                "points": wp.array(rng.normal(size=(4, 16, 3)).astype(np.float32), dtype=wp.vec3f, device="cpu"),
            }
            true = wp.array(rng.integers(0, 6, (4, 16)).astype(np.uint8), dtype=wp.uint8, device="cpu")
            frames.append(Frame("lidar", "lidar", index // 2, state.sim_time, Stamps(), buffers))
            truths.append(GroundTruth(true, None, rng.random(16).tolist()))
        yield Tick(index, "judged", state, frames, {}, truths, Command())


def content(frame, truth):
    buffers = {name: (array.numpy().tobytes(), array.shape, array.dtype) for name, array in frame.buffers.items()}
    labels = None if truth.labels is None else truth.labels.numpy().tobytes()
    facts = (frame.sensor, frame.kind, frame.sequence, frame.sim_time, frame.dropped)
    return (*facts, buffers, labels, truth.hazard, truth.clearance)


def pose(state):
    return state.sim_time, state.position, state.yaw, state.velocity, state.yaw_rate, state.distance


def record(folder, *, complete=True, count=TICKS, contacts=()):
    """Records scripted decisions and returns what they were."""
    folder.mkdir(parents=True, exist_ok=True)
    simulator = {"route": [[1, 2]], "scene_sha256": "ab"}
    run = {"configuration": configuration().model_dump(mode="json"), "simulator": simulator}
    (folder / "run.json").write_text(json.dumps(run))
    rows = make_frames(1, warmup=0)[:1]
    rows[0]["contacts"] = list(contacts)
    rows[0]["tick"] = 3
    write_record(folder, make_header(1, 0), rows)
    recorder = SensorRecorder(folder)
    seen = []
    for tick in scripted_ticks(count):
        recorder(tick)
        frames = [content(frame, truth) for frame, truth in zip(tick.frames, tick.truths, strict=True)]
        seen.append((pose(tick.state), frames))
    recorder.close(complete=complete)
    recorder.close(complete=False)
    assert recorder.failure is None and recorder.facts()["decisions"] == count
    return seen


def replay(folder, config=None, count=TICKS):
    simulator = ReplaySimulator(config or configuration(), folder, "cpu")
    assert isinstance(simulator, Simulator)
    state = simulator.open("ignored.usda")
    seen, steps, contacts = [], 0, []
    while len(seen) < count:
        frames = simulator.sense()
        if frames:
            group = [content(frame, simulator.ground_truth(frame)) for frame in frames]
            for frame in frames:
                assert 0 < frame.stamps.sim_state <= frame.stamps.sensed <= now_ns()
            seen.append((pose(state), group))
        state = simulator.step(Command(linear_x=5.0, tick=len(seen)))
        assert state.applied == []
        contacts += state.contacts
        steps += 1
    return simulator, seen, steps, contacts


def test_a_round_trip_is_bit_identical(tmp_path):
    recorded = record(tmp_path / "run")
    simulator, replayed, steps, _ = replay(tmp_path / "run")
    assert replayed == recorded
    # Decisions are 0.1 s apart and the recorded step is 0.05 s.
    assert steps == 2 * (TICKS - 1) + 1
    assert simulator.route == [(1.0, 2.0)]
    facts = simulator.facts()
    assert facts["name"] == "replay" and facts["scene_sha256"] == "ab" and facts["recording_state"] == "complete"
    simulator.close()
    simulator.close()


def test_twice_is_the_same_and_buffers_stay_where_they_are(tmp_path):
    record(tmp_path)
    _, first, _, _ = replay(tmp_path)
    simulator = ReplaySimulator(configuration(), tmp_path, "cpu")
    simulator.open("")
    places = set()
    for _ in range(2 * TICKS):
        for frame in simulator.sense():
            if frame.sensor == "eye":
                places.add(frame.buffers["color"].ptr)
        simulator.step(None)
    assert len(places) == 1
    assert replay(tmp_path)[1] == first


def test_contacts_happen_where_they_happened(tmp_path):
    contacts = [{"sim_time": 0.22, "body": "/h", "other": "/rack"}, {"sim_time": 99.0, "body": "/h", "other": "/late"}]
    record(tmp_path, contacts=contacts)
    simulator = ReplaySimulator(configuration(), tmp_path, "cpu")
    state = simulator.open("")
    found = []
    for _ in range(2 * TICKS):
        state = simulator.step(None)
        found += [(contact, state.sim_time) for contact in state.contacts]
    assert [contact for contact, _ in found] == [Contact(0.22, "/h", "/rack"), Contact(99.0, "/h", "/late")]
    assert found[0][1] == pytest.approx(0.25)
    # Recorded with decision 3, so it belongs to it whatever its own time says.
    assert found[1][1] == pytest.approx(0.35)


def test_sensors_that_the_configuration_leaves_out_are_left_out(tmp_path):
    recorded = record(tmp_path)
    data = configuration(frames=4, warmup=0).model_dump()
    del data["sensors"]["eye"], data["networks"]["a"]
    _, replayed, _, _ = replay(tmp_path, RunConfig.model_validate(data), count=TICKS // 2)
    assert replayed == [(place, [frame for frame in group if frame[0] == "lidar"]) for place, group in recorded[::2]]


def test_skipped_decisions_are_counted_as_dropped(tmp_path):
    record(tmp_path)
    simulator = ReplaySimulator(configuration(), tmp_path, "cpu")
    simulator.open("")
    for _ in range(4):
        simulator.step(None)
    frames = {frame.sensor: frame for frame in simulator.sense()}
    # Two decisions went by, each with one eye frame that itself followed one dropped sample; the LiDAR missed one.
    assert frames["eye"].sequence == 4 and frames["eye"].dropped == 2 * 2 + 1
    assert frames["lidar"].sequence == 1 and frames["lidar"].dropped == 1
    with pytest.raises(EngineError, match="is over"):
        for _ in range(200):
            simulator.step(None)
            simulator.sense()


def test_a_recording_that_was_cut_off_is_marked_and_replays_up_to_there(tmp_path):
    recorded = record(tmp_path, complete=False)
    assert json.loads((tmp_path / "sensors" / "manifest.json").read_text())["state"] == "incomplete"
    index = tmp_path / "sensors" / "index.jsonl"
    index.write_bytes(index.read_bytes()[:-30])
    simulator, replayed, _, _ = replay(tmp_path, configuration(frames=5), count=TICKS - 1)
    assert replayed == recorded[:-1]
    assert simulator.facts()["recording_state"] == "incomplete"


def damage(folder, name):
    return folder / "sensors" / name


def shorten(path, count):
    path.write_bytes(path.read_bytes()[:-count])


@pytest.mark.parametrize(
    ("change", "config", "expected"),
    [
        (lambda f: (f / "sensors").rename(f / "gone"), {}, r"record\.sensors=true"),
        (lambda f: damage(f, "manifest.json").unlink(), {}, "cannot read|damaged"),
        (lambda f: damage(f, "manifest.json").write_text("{"), {}, "damaged"),
        (lambda f: damage(f, "manifest.json").write_text("[]"), {}, "damaged"),
        (lambda f: damage(f, "manifest.json").write_text('{"schema": 9}'), {}, "schema 9"),
        (lambda f: damage(f, "index.jsonl").unlink(), {}, "damaged"),
        (lambda f: shorten(damage(f, "index.jsonl"), 20), {}, "truncated"),
        (lambda f: damage(f, "index.jsonl").write_text("{}\n" * TICKS), {}, "line 1"),
        (lambda f: damage(f, "000-color.bin").unlink(), {}, "000-color.bin is missing"),
        (lambda f: shorten(damage(f, "000-color.bin"), 1), {}, "truncated"),
        (lambda f: (f / "run.json").unlink(), {}, "run.json"),
        (lambda f: (f / "run.json").write_text("{}"), {}, r"simulator\.step"),
        (lambda f: None, {"frames": TICKS}, f"--frames {TICKS - 2} at most"),
        (lambda f: None, {"frames": 1, "warmup": 50}, r"fewer run\.warmup"),
    ],
)
def test_damaged_recordings_are_refused_with_the_remedy(tmp_path, change, config, expected):
    record(tmp_path)
    change(tmp_path)
    with pytest.raises(RecordError, match=expected):
        ReplaySimulator(configuration(**config), tmp_path, "cpu").open("")


def test_a_changed_sample_is_noticed(tmp_path):
    record(tmp_path)
    path = damage(tmp_path, "001-ranges.bin")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(RecordError, match="sample 5 of sensor 'lidar' is damaged"):
        replay(tmp_path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d["sensors"].update(chest=d["sensors"]["eye"]), "'chest' of the configuration is not in"),
        (lambda d: d["sensors"]["eye"].update(width=13), r"recorded with shape \(8, 12\)"),
        (lambda d: d["sensors"]["eye"].update(rate=5), "recorded at 10 Hz"),
        (lambda d: d["sensors"].update(eye=d["sensors"]["lidar"]) or d["networks"].pop("a"), "recorded as 'camera'"),
    ],
)
def test_what_the_configuration_needs_must_be_there(tmp_path, change, expected):
    record(tmp_path)
    data = configuration().model_dump()
    change(data)
    with pytest.raises(RecordError, match=expected):
        ReplaySimulator(RunConfig.model_validate(data), tmp_path, "cpu").open("")


def test_no_such_run(tmp_path):
    with pytest.raises(RecordError, match="no recorded run"):
        ReplaySimulator(configuration(), tmp_path / "nothing", "cpu").open("")


class SlowDisk:
    """Holds the writer until it is let go."""

    def __init__(self, monkeypatch):
        self.go = threading.Event()
        real = SensorRecorder._write
        monkeypatch.setattr(SensorRecorder, "_write", lambda *args: (self.go.wait(10), real(*args)))


def test_a_full_pool_holds_the_lockstep_loop_and_loses_nothing(tmp_path, monkeypatch):
    disk = SlowDisk(monkeypatch)
    recorder = SensorRecorder(tmp_path, slots=2)
    threading.Timer(0.3, disk.go.set).start()
    for tick in scripted_ticks():
        recorder(tick)
    recorder.close(complete=True)
    assert recorder.waited_s > 0.1 and recorder.lost == 0 and recorder.facts()["decisions"] == TICKS
    assert json.loads(damage(tmp_path, "manifest.json").read_text())["state"] == "complete"


def test_a_full_pool_in_real_time_leaves_out_and_says_so(tmp_path, monkeypatch):
    disk = SlowDisk(monkeypatch)
    recorder = SensorRecorder(tmp_path, slots=2, block=False)
    for tick in scripted_ticks():
        recorder(tick)
    disk.go.set()
    recorder.close(complete=True)
    manifest = json.loads(damage(tmp_path, "manifest.json").read_text())
    assert recorder.lost == TICKS - 2 == manifest["lost"]
    assert manifest["state"] == "incomplete" and manifest["decisions"] == 2


def test_a_disk_that_fills_marks_the_recording_and_does_not_stop_the_loop(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording._Channel, "append", full)
    recorder = SensorRecorder(tmp_path, slots=2)
    for tick in scripted_ticks():
        recorder(tick)
    recorder.close(complete=True)
    assert "disk is full" in recorder.failure
    manifest = json.loads(damage(tmp_path, "manifest.json").read_text())
    assert manifest["state"] == "incomplete" and "disk is full" in manifest["failure"]


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(RecordError, match="cannot write"):
        SensorRecorder(tmp_path / "missing")
