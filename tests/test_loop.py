"""The loop: what is delivered, stamped, scored, delayed and recorded, and what it does not allocate."""

import time
import tracemalloc

import numpy as np
import pytest
import warp as wp
from tests.onnx_models import camera_network, lidar_network
from tests.scripted_simulator import ScriptedSimulator

from saccade.config import RunConfig
from saccade.controller import ReflexController
from saccade.frame import STAGES, now_ns
from saccade.loop import PerceptionLoop
from saccade.network import Network
from saccade.simulators.base import Simulator
from saccade.validation.scorer import LabelScorer


class Sink(list):
    """Keeps records in a list."""

    put = list.append


def configuration(*, camera_rate=10.0, lidar_rate=10.0, frames=10, warmup=2, decoder=None, **simulator):
    return RunConfig.model_validate(
        {
            "scene": "none.usda",
            "simulator": simulator,
            "sensors": {
                "eye": {"kind": "camera", "prim": "c", "width": 16, "height": 16, "rate": camera_rate},
                "laser": {"kind": "lidar", "prim": "l", "channels": 4, "columns": 32, "rate": lidar_rate},
            },
            "networks": {
                "camera": {
                    "model": "camera.onnx",
                    "inputs": {"image": {"kind": "image", "sensor": "eye"}},
                    "decoder": decoder or {"labels": "labels", "hazard": "hazard"},
                },
                "lidar": {
                    "model": "lidar.onnx",
                    "inputs": {"range_image": {"kind": "range_image", "sensor": "laser"}},
                    "decoder": {"labels": "labels", "clearance": "clearance"},
                },
            },
            "run": {"frames": frames, "warmup": warmup},
        }
    )


def run(folder, config, simulator=None, *, sink=None, observers=(), publishers=(), stop=lambda: None, **network):
    camera_network(folder / "camera.onnx", **network)
    lidar_network(folder / "lidar.onnx")
    networks = {
        name: Network(name, entry, folder / entry.model, sensors=config.sensors, engine=config.engine)
        for name, entry in config.networks.items()
    }
    simulator = simulator or ScriptedSimulator(config)
    sink = Sink() if sink is None else sink
    loop = PerceptionLoop(
        config,
        simulator=simulator,
        networks=networks,
        controller=ReflexController(config.controller),
        sink=sink,
        scorer=LabelScorer(),
        observers=observers,
        publishers=publishers,
        stop=stop,
    )
    return loop.run(simulator.open("none")), sink, simulator


def test_the_double_is_a_simulator():
    """The double satisfies the protocol."""
    assert isinstance(ScriptedSimulator(configuration()), Simulator)


def test_one_record_per_frame_in_order(tmp_path):
    """12 decisions of two sensors give 24 records with a gapless index and shared decisions."""
    outcome, records, _ = run(tmp_path, configuration())
    assert (outcome.reason, outcome.ticks) == ("completed", 12)
    assert [record["index"] for record in records] == list(range(24))
    assert [record["tick"] for record in records] == [i // 2 for i in range(24)]
    assert [record["phase"] for record in records] == ["warmup"] * 4 + ["judged"] * 20
    for first, second in zip(records[::2], records[1::2], strict=True):
        assert first["sensor"] == "eye"
        assert second["sensor"] == "laser"
        for stamp in ("sim_state", "decided", "applied"):
            assert first["stamps"][stamp] == second["stamps"][stamp]


def test_stamps_rise_through_the_stages(tmp_path):
    """Every reached stage comes after the one before, and latencies are those of the stamps."""
    _, records, _ = run(tmp_path, configuration())
    for record in records:
        stamps = [record["stamps"][stage] for stage in STAGES if stage != "published"]
        assert stamps == sorted(stamps)
        assert record["stamps"]["published"] is None
        assert record["latency_ms"] == pytest.approx(
            (record["stamps"]["decided"] - record["stamps"]["sim_state"]) / 1e6
        )
        assert record["inference_ms"] == pytest.approx(
            (record["stamps"]["on_host"] - record["stamps"]["handed_over"]) / 1e6
        )


def test_results_are_what_the_network_says_and_scored_against_the_truth(tmp_path):
    """The red image is floor for this network; the truth is floor; no-returns are not scored."""
    _, records, _ = run(tmp_path, configuration(), bias=(2.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    camera = records[0]["results"]["camera"]
    assert camera["hazard"] == pytest.approx(0.25)
    assert camera["intersection"] == [256, 0, 0, 0, 0, 0]
    assert (camera["valid"], camera["agree"], camera["finite"]) == (256, 256, True)
    lidar = records[1]["results"]["lidar"]
    assert lidar["clearance"] == [5.0] * 16
    assert lidar["intersection"] == [0, 127, 0, 0, 0, 0]
    assert lidar["valid"] == 127
    assert records[0]["truth"] == {"hazard": False, "clearance": None}
    assert records[1]["truth"]["clearance"] == [5.5] * 16


def test_wrong_labels_are_scored_as_wrong(tmp_path):
    """A network that calls everything person has no intersection with a floor truth."""
    _, records, _ = run(tmp_path, configuration(), bias=(0.0, 0.0, 0.0, 99.0, 0.0, 0.0))
    camera = records[0]["results"]["camera"]
    assert camera["intersection"] == [0] * 6
    assert camera["union"] == [256, 0, 0, 256, 0, 0]
    assert camera["agree"] == 0


def test_network_with_another_size_is_scored_on_its_own_grid(tmp_path):
    """A letterboxed 24x16 input of a square camera: borders are not scored."""
    config = configuration()
    entry = config.networks["camera"].inputs["image"]
    entry.size, entry.resize = (24, 16), "letterbox"
    _, records, _ = run(tmp_path, config, size=(16, 24), bias=(99.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    assert records[0]["results"]["camera"]["valid"] == 256
    assert records[0]["results"]["camera"]["agree"] == 256


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_outputs_are_marked_and_the_robot_stands(tmp_path, value):
    """NaN from a network is recorded as such and stops the humanoid."""
    _, records, simulator = run(tmp_path, configuration(), bias=(value, 0.0, 0.0, 0.0, 0.0, 0.0))
    assert not any(record["results"]["camera"]["finite"] for record in records[::2])
    assert {command.reason for _, command in simulator.received} == {"blind"}


def test_sensors_at_different_rates(tmp_path):
    """10 Hz and 5 Hz: every second decision has one frame only."""
    config = configuration(lidar_rate=5.0, frames=10, warmup=0)
    _, records, _ = run(tmp_path, config)
    assert sum(record["sensor"] == "eye" for record in records) == 10
    assert [record["sequence"] for record in records if record["sensor"] == "laser"] == list(range(5))


@pytest.mark.parametrize(("delay", "wanted"), [("none", 0.0), (50.0, 0.05), (250.0, 0.25)])
def test_act_delay_shifts_the_effect(tmp_path, delay, wanted):
    """A fixed delay asks for the effect that much simulated time after the state."""
    _, records, simulator = run(tmp_path, configuration(act_delay=delay))
    for sim_time, command in simulator.received:
        assert command.apply_at == pytest.approx(sim_time + wanted)
    step = 0.02
    for record in records:
        if record["applied_sim_time"] is not None:
            assert (
                record["sim_time"] + wanted - 1e-9
                <= record["applied_sim_time"]
                <= record["sim_time"] + wanted + 2 * step
            )
    assert sum(record["applied_sim_time"] is not None for record in records) >= len(records) - 8


def test_measured_delay_is_the_latency(tmp_path):
    """With ``measured`` the effect comes one latency after the state."""
    config = configuration(act_delay="measured")
    _, records, simulator = run(tmp_path, config, ScriptedSimulator(config, sense_s=0.01))
    latencies = [record["latency_ms"] for record in records[::2]]
    delays = [(command.apply_at - sim_time) * 1e3 for sim_time, command in simulator.received]
    assert delays == pytest.approx(latencies)
    assert min(delays) > 10.0


def test_realtime_drops_what_it_cannot_keep_up_with(tmp_path):
    """A loop that takes 2.5 periods loses samples, and the count of each frame adds up to the sequence."""
    config = configuration(pace="realtime", camera_rate=20.0, lidar_rate=20.0, frames=8, warmup=0, step=0.05)
    _, records, _ = run(tmp_path, config, ScriptedSimulator(config, sense_s=0.06))
    camera = [record for record in records if record["sensor"] == "eye"]
    assert sum(record["dropped"] for record in camera) > 0
    expected = -1
    for record in camera:
        expected += 1 + record["dropped"]
        assert record["sequence"] == expected


def test_contacts_are_recorded_once(tmp_path):
    """Contacts between two decisions stand on the first frame of the later one."""
    config = configuration()
    _, records, _ = run(tmp_path, config, ScriptedSimulator(config, contact_at=(3, 12)))
    found = [(record["tick"], record["sensor"]) for record in records for _ in record["contacts"]]
    assert found == [(1, "eye"), (3, "eye")]


def test_stop_ends_the_run_and_keeps_the_records(tmp_path):
    """A stop after some decisions hands over everything decided so far."""
    ticks = []
    outcome, records, _ = run(
        tmp_path,
        configuration(frames=100),
        observers=[ticks.append],
        stop=lambda: ("interrupted", "stopped by the user") if len(ticks) >= 5 else None,
    )
    assert outcome.reason == "interrupted"
    assert outcome.ticks == 5
    assert len(records) == 10


def test_an_exception_keeps_the_records(tmp_path):
    """An error in mid-run still hands over what was decided before."""
    sink = Sink()

    def fail(tick):
        if tick.index == 4:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run(tmp_path, configuration(), sink=sink, observers=[fail])
    assert len(sink) == 8


def test_the_steady_loop_allocates_no_arrays(tmp_path, monkeypatch):
    """After the warm-up no Warp array is made and no NumPy array of even one small image's size."""
    made = []
    original = wp.array.__init__

    def counted(self, *args, **kwargs):
        made.append(self)
        original(self, *args, **kwargs)

    peaks = []

    def observe(tick):
        if tick.index == 4:
            monkeypatch.setattr(wp.array, "__init__", counted)
            tracemalloc.start()
        if tick.index > 4:
            now, peak = tracemalloc.get_traced_memory()
            peaks.append(peak - now)
            tracemalloc.reset_peak()

    config = configuration(frames=40)
    run(tmp_path, config, observers=[observe])
    tracemalloc.stop()
    assert len(peaks) > 30
    assert made == []
    assert max(peaks[1:]) < 16 * 16 * 3 * 4


def test_a_simulator_that_does_not_act_keeps_no_record_waiting(tmp_path):
    """A replay never applies commands: its records are handed over decision by decision."""
    config = configuration(act_delay=400.0)
    simulator = ScriptedSimulator(config)
    simulator.acts = False
    waiting = []

    class Watched(Sink):
        def put(self, record):
            self.append(record)

    sink = Watched()

    def observe(tick):
        waiting.append(2 * tick.index - len(sink))

    run(tmp_path, config, simulator, sink=sink, observers=[observe])
    assert set(waiting) == {0}


def test_a_stop_that_waits_is_in_no_frames_latency(tmp_path):
    """A pause over ROS 2 waits there: it comes before a step, whose state is then sensed at once."""
    config = configuration(frames=4, warmup=0)
    waited = []

    def stop():
        waited.append(now_ns())
        time.sleep(0.05)
        waited.append(now_ns())

    _, sink, _ = run(tmp_path, config, stop=stop)
    pauses = list(zip(waited[::2], waited[1::2], strict=True))
    assert len(pauses) > 4
    for record in sink:
        stamps = record["stamps"]
        # the first stop is asked before the first frame, whose state is that of the opening
        inside = [start for start, end in pauses[1:] if stamps["sim_state"] < end and start < stamps["decided"]]
        assert not inside, "from the state to the decision nothing was waited for"


def test_reset_between_frames(tmp_path):
    """The simulator starts again when the loop is told so, the controller forgets, and no record is lost or doubled."""
    config = configuration(frames=20, warmup=0)
    forgotten = []

    class Starting(ScriptedSimulator):
        def reset(self):
            self.pending.clear()
            return self.state

    class Forgetful(ReflexController):
        def reset(self):
            forgotten.append(True)
            super().reset()

    camera_network(tmp_path / "camera.onnx")
    lidar_network(tmp_path / "lidar.onnx")
    networks = {
        name: Network(name, entry, tmp_path / entry.model, sensors=config.sensors, engine=config.engine)
        for name, entry in config.networks.items()
    }
    simulator = Starting(config)
    sink = Sink()
    loop = PerceptionLoop(
        config,
        simulator=simulator,
        networks=networks,
        controller=Forgetful(config.controller),
        sink=sink,
        scorer=LabelScorer(),
        reset=lambda state: state.step == 22,
    )
    outcome = loop.run(simulator.open("none"))
    assert (outcome.reason, outcome.ticks, forgotten) == ("completed", 20, [True])
    assert [record["index"] for record in sink] == list(range(40))
    assert [record["sequence"] for record in sink[::2]] == list(range(20))


def test_published_is_stamped_by_an_observer(tmp_path):
    """What an observer stamps as published is in the record, after the decision."""

    def publish(tick):
        for frame in tick.frames:
            frame.stamps.published = now_ns()

    _, records, _ = run(tmp_path, configuration(), observers=[publish])
    for record in records:
        assert record["stamps"]["published"] >= record["stamps"]["decided"]


def test_published_before_the_truth_is_taken(tmp_path):
    """Publishers come before the truth, which takes its time; observers come after it, and see the same decision."""
    order = []

    class Telling(ScriptedSimulator):
        def ground_truth(self, frame):
            order.append("truth")
            return super().ground_truth(frame)

    def publish(tick):
        assert tick.truths == []
        tick.frames[0].stamps.published = now_ns()
        order.append("published")

    def observe(tick):
        assert len(tick.truths) == len(tick.frames) == 2
        order.append("observed")

    config = configuration(frames=3, warmup=0)
    _, records, _ = run(tmp_path, config, Telling(config), observers=[observe], publishers=[publish])
    assert order == ["published", "truth", "truth", "observed"] * 3
    assert [record["stamps"]["published"] is not None for record in records] == [True, False] * 3
