"""Frames on a stream, with Warp's graphs on the CPU: what is captured, replayed, copied, stamped, not allocated."""

import contextlib
import itertools
import tracemalloc

import numpy as np
import pytest
import warp as wp
from tests.stream_doubles import (
    APART,
    KernelEngine,
    PaintingSimulator,
    colors,
    configuration,
    drive,
    mixed,
    networks_of,
)

from saccade import stream_execution
from saccade.controller import ReflexController
from saccade.errors import EngineError
from saccade.execution import HostExecution, execution_for
from saccade.frame import STAGES
from saccade.lanes import Lanes
from saccade.loop import PerceptionLoop
from saccade.simulators.base import Simulator
from saccade.stream_execution import MAX_GRAPHS, REHEARSALS, StreamExecution
from saccade.telemetry.gpu_clock import GpuClock

SETS = {
    "one set": {},
    "two rates": {"lidar_rate": 5.0},
    "the camera slower": {"camera_rate": 5.0},
    "a network of two sensors": {"networks": ("camera", "fused"), "lidar_rate": 5.0},
    "a network whose second sensor is faster": {"networks": ("swapped", "fused"), "lidar_rate": 5.0},
    "four cameras in a batch": {"cameras": ("eye", "left", "right", "back"), "lidar_rate": 5.0},
}


def on_host(config, monkeypatch, steps, **simulator):
    simulator = PaintingSimulator(config, **simulator)
    return drive(HostExecution(simulator, networks_of(config, monkeypatch)), simulator, steps)


def on_stream(config, monkeypatch, steps, *, after=lambda frames, results: None, simulator=None, **options):
    simulator = simulator or PaintingSimulator(config)
    execution = StreamExecution(simulator, networks_of(config, monkeypatch), device="cpu", **options)
    return drive(execution, simulator, steps, after=after), execution


# ------------------------------------------------------------------------------------------------ the same results


def test_the_double_is_a_simulator():
    assert isinstance(PaintingSimulator(configuration()), Simulator)


@pytest.mark.parametrize("capturable", [True, False])
@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("kind", SETS)
def test_results_are_those_of_the_host(monkeypatch, kind, capture, capturable):
    """Every sensor's every result, and labels, whatever part of the frame is captured; and results do change."""
    config = configuration(**SETS[kind])
    wanted = on_host(config, monkeypatch, 41)
    simulator = PaintingSimulator(config, capturable=capturable)
    found, execution = on_stream(config, monkeypatch, 41, simulator=simulator, capture=capture)
    assert found == wanted
    values = [repr(results) for frame_set in found for results in frame_set.values() if results]
    assert len(set(values)) == len(values) > 8
    facts = execution.facts()["execution"]
    assert facts["mode"] == ("graph" if capture else "eager")
    assert facts["replays"] == (len(found) if capture else 0)
    assert facts["scope"] == (("frame" if capturable else "buffers") if capture else None)


@pytest.mark.parametrize("capture", [True, False])
def test_results_are_those_that_numpy_computes(monkeypatch, capture):
    """Sensed in the graph, prepared, inferred and decoded: hazard and labels of three cameras in one batch."""
    config = configuration(cameras=("eye", "left", "right"), networks=("camera",))
    found, _ = on_stream(config, monkeypatch, 16, capture=capture)
    assert len(found) == 4
    for number, frame_set in enumerate(found):
        for index, sensor in enumerate(("eye", "left", "right")):
            packed = colors(number + APART * index, 5 * number)
            image = np.stack([(packed >> shift & 255).astype(np.float32) / 255 for shift in (0, 8, 16)])[None]
            logits = mixed([image], 6 * image[0, 0].size).reshape(6, *image.shape[2:])
            ((_, hazard, _, finite, labels),) = frame_set[sensor, number]
            assert finite and hazard == pytest.approx(image[0, 0, 0, 0], abs=1e-6)
            found_labels = np.array(labels)
            picked = np.take_along_axis(logits, found_labels[None].astype(np.int64), axis=0)[0]
            np.testing.assert_allclose(picked, logits.max(axis=0), rtol=1e-5)


@pytest.mark.parametrize("capture", [True, False])
def test_new_frame_objects_each_time(monkeypatch, capture):
    """What a source makes anew for each sample is worked on, captured or not: a user's stage sees today's frame."""
    config = configuration()
    seen = []
    stage = Stage("watch", "sense", lambda frames, stream: seen.append([frame.sequence for frame in frames]))
    simulator = PaintingSimulator(config, fresh=True)
    found, _ = on_stream(config, monkeypatch, 21, simulator=simulator, capture=capture, stages=[stage])
    assert found == on_host(config, monkeypatch, 21)
    wanted = [[0, 0]] * (REHEARSALS + 1) if capture else [[number, number] for number in range(5)]
    assert seen == wanted


# -------------------------------------------------------------------------------------- captured once, then replayed


def test_captured_once_per_set_and_replayed_after(monkeypatch):
    """Two sets of sensors are two graphs; Python launches nothing of a set any more once it is captured."""
    config = configuration(lidar_rate=5.0)
    simulator = PaintingSimulator(config)
    engines = {}
    launched = []

    def after(frames, results):
        launched.append((simulator.recorded, *(engine.enqueued for engine in engines.values())))

    networks = networks_of(config, monkeypatch)
    engines.update({network.name: network.engine for network in networks})
    execution = StreamExecution(simulator, networks, device="cpu")
    found = drive(execution, simulator, 101, after=after)
    facts = execution.facts()["execution"]
    assert len(found) == 21
    assert (facts["graphs"], facts["captures"], facts["recaptures"], facts["copied_inputs"]) == (2, 2, 0, 0)
    assert facts["replays"] == 21
    times = REHEARSALS + 1
    assert launched[0] == (2 * times, times, times)
    assert set(launched[1:]) == {(3 * times, 2 * times, times)}
    # Before each launch, capture and replay the simulator could change what changes.
    assert simulator.prepared == 2 * times + 21
    assert [graph["sensors"] for graph in execution.facts()["residency"]["graphs"]] == [["eye", "laser"], ["eye"]]


def test_a_sensor_that_comes_later_is_captured_with_its_networks(monkeypatch):
    """A network of two sensors does not run before both have delivered; then the set is captured again, with it."""
    config = configuration(networks=("camera", "fused"), lidar_rate=5.0)

    class Late(PaintingSimulator):
        def due(self):
            return [frame for frame in super().due() if frame.sensor == "eye" or self.state.sim_time > 0.25]

    results = []
    for execution_of in (HostExecution, lambda *a: StreamExecution(*a, device="cpu")):
        simulator = Late(config)
        execution = execution_of(simulator, networks_of(config, monkeypatch))
        results.append(drive(execution, simulator, 31))
    assert results[0] == results[1]
    names = [[name for name, *_ in found["eye", n]] for n, found in enumerate(results[0])]
    assert names == [["camera"]] * 4 + [["camera", "fused"]] * 3
    assert execution.facts()["execution"]["captures"] == 3


# ------------------------------------------------------------------------------------------------- rotating buffers


@pytest.mark.parametrize("count", [3, MAX_GRAPHS])
def test_rotating_buffers_have_a_graph_each(monkeypatch, count):
    """As many graphs as sets of buffers, and no copy; results stay right."""
    config = configuration(networks=("camera", "fused"))
    simulator = PaintingSimulator(config, capturable=False, rotating={"eye": count})
    found, execution = on_stream(config, monkeypatch, 5 * (2 * count + 1), simulator=simulator)
    assert found == on_host(config, monkeypatch, 5 * (2 * count + 1))
    facts = execution.facts()["execution"]
    assert (facts["graphs"], facts["recaptures"], facts["copied_inputs"]) == (count, count - 1, 0)


def test_past_the_bound_inputs_are_copied(monkeypatch):
    """More sets of buffers than graphs: those beyond are copied and counted; one more graph, and right results."""
    count = MAX_GRAPHS + 3
    config = configuration(networks=("camera", "lidar"))
    simulator = PaintingSimulator(config, capturable=False, rotating={"eye": count})
    found, execution = on_stream(config, monkeypatch, 5 * 2 * count, simulator=simulator)
    assert len(found) == 2 * count
    assert found == on_host(config, monkeypatch, 5 * 2 * count)
    facts = execution.facts()["execution"]
    assert facts["graphs"] == facts["captures"] == MAX_GRAPHS + 1
    # Each of the 3 sets beyond the bound came twice, with 2 buffers of the camera and 3 of the LiDAR.
    assert facts["copied_inputs"] == 2 * 3 * 5
    assert facts["replays"] == 2 * count


def test_one_buffer_of_a_frame_that_rotates_alone(monkeypatch):
    """The key holds every buffer's address: a LiDAR whose ranges stay and whose intensity moves is noticed."""
    config = configuration(networks=("lidar",))

    class Partly(PaintingSimulator):
        def __init__(self, config):
            super().__init__(config, capturable=False, rotating={"laser": 2})
            one, other = self.sets["laser"]
            other.buffers["ranges"] = one.buffers["ranges"]
            other.buffers["intensity"].fill_(0.125)

    found, execution = on_stream(config, monkeypatch, 21, simulator=Partly(config))
    host = Partly(config)
    assert found == drive(HostExecution(host, networks_of(config, monkeypatch)), host, 21)
    assert execution.facts()["execution"]["graphs"] == 2


def test_a_second_sensor_of_a_batch_that_was_not_due_is_part_of_the_key(monkeypatch):
    """A frame dropped of a network's second input: the newest of its other camera is read, wherever that is."""
    config = configuration(cameras=("eye", "left"), networks=("swapped",), lidar_rate=5.0)

    class Dropping(PaintingSimulator):
        """``left`` rotates and misses each third sample."""

        def __init__(self, config):
            super().__init__(config, capturable=False, rotating={"left": 4})

        def due(self):
            return [f for f in super().due() if f.sensor != "left" or f.sequence % 3 != 2]

    results = []
    for execution_of in (HostExecution, lambda *a: StreamExecution(*a, device="cpu")):
        simulator = Dropping(config)
        networks = networks_of(config, monkeypatch)
        seen = []

        def after(frames, found, networks=networks, seen=seen):
            seen.append(networks[0].engine.bound["image"].numpy().copy())

        drive(execution_of(simulator, networks), simulator, 91, after=after)
        results.append(seen)
    assert len(results[0]) == 19
    for host, stream in zip(*results, strict=True):
        np.testing.assert_array_equal(host, stream)


# ------------------------------------------------------------------------------------------------------- users' stages


class Stage:
    """A stage of a function."""

    def __init__(self, name, after, record):
        self.name, self.after, self.record = name, after, record


@wp.kernel(enable_backward=False)
def add_one(values: wp.array(dtype=wp.int32)):
    values[0] = values[0] + 1


@wp.kernel(enable_backward=False)
def darken(image: wp.array2d(dtype=wp.uint32)):
    y, x = wp.tid()
    image[y, x] = wp.uint32(0)


def test_a_stage_is_part_of_the_graph(monkeypatch):
    """One after sensing changes what the network sees; one after inference is replayed with every frame."""
    config = configuration(networks=("camera",))
    counter = wp.zeros(1, dtype=wp.int32, device="cpu")

    def erase(frames, stream):
        for frame in frames:
            if frame.kind == "camera":
                image = frame.buffers["color"]
                wp.launch(darken, image.shape, outputs=[image], device="cpu")

    stages = [
        Stage("erase", "sense", erase),
        Stage("count", "inference", lambda f, s: wp.launch(add_one, 1, outputs=[counter], device="cpu")),
    ]
    found, execution = on_stream(config, monkeypatch, 21, stages=stages)
    hazards = [results[0][1] for frame_set in found for (sensor, _), results in frame_set.items() if sensor == "eye"]
    assert hazards == [0.0] * 5
    assert execution.facts()["execution"]["mode"] == "graph"
    assert counter.numpy()[0] == REHEARSALS + 5


@wp.kernel(enable_backward=False)
def pick(image: wp.array2d(dtype=wp.uint32), picked: wp.array(dtype=wp.uint32)):
    picked[0] = image[0, 0]


def test_a_stage_reads_the_copies_of_buffers_that_rotate(monkeypatch):
    """Past the bound it is handed the own frames, with the sample's number: their graph must not read old buffers."""
    config = configuration(networks=("camera",))
    picked = wp.zeros(1, dtype=wp.uint32, device="cpu")
    numbers = []

    def record(frames, stream):
        numbers.append(frames[0].sequence)
        wp.launch(pick, 1, inputs=[frames[0].buffers["color"]], outputs=[picked], device="cpu")

    def after(frames, results):
        assert picked.numpy()[0] == frames[0].buffers["color"].numpy()[0, 0]

    count = MAX_GRAPHS + 3
    simulator = PaintingSimulator(config, capturable=False, rotating={"eye": count})
    stage = Stage("pick", "sense", record)
    found, _ = on_stream(config, monkeypatch, 5 * 2 * count, simulator=simulator, stages=[stage], after=after)
    assert len(found) == 2 * count
    assert numbers == [number for number in range(MAX_GRAPHS + 1) for _ in range(REHEARSALS + 1)]


@pytest.mark.parametrize("capture", [True, False])
def test_what_a_stage_changes_is_what_the_network_reads(monkeypatch, capture):
    """Also where buffers rotate past the bound, and the network reads copies of them."""
    config = configuration(networks=("camera",))

    def erase(frames, stream):
        image = frames[0].buffers["color"]
        wp.launch(darken, image.shape, outputs=[image], device="cpu")

    count = MAX_GRAPHS + 3
    simulator = PaintingSimulator(config, capturable=False, rotating={"eye": count})
    stage = Stage("erase", "sense", erase)
    found, _ = on_stream(config, monkeypatch, 5 * 2 * count, simulator=simulator, stages=[stage], capture=capture)
    assert [frame_set["eye", number][0][1] for number, frame_set in enumerate(found)] == [0.0] * 2 * count


class Branches(Lanes):
    """Lanes of the CPU that note which points each piece of work waits for, as the branches of a GPU's graph would."""

    def __init__(self, device, *, branched):
        super().__init__(device, branched=branched)
        self.waited = []

    def names(self, kinds):
        return [None if kind == kinds[0] else kind for kind in kinds]

    def mark(self, lane=None):
        return ("after", lane)

    @contextlib.contextmanager
    def on(self, lane, *after):
        self.waited.append((lane, {point[1] for point in after if point is not None}))
        yield None

    def join(self):
        pass


@pytest.mark.parametrize("staged", [True, False])
def test_networks_wait_for_the_stages_between_them_and_the_sensors(monkeypatch, staged):
    """On branches, too: what a stage changes would else be read before or after it, as it happens."""
    monkeypatch.setattr("saccade.stream_execution.Lanes", Branches)
    config = configuration()
    stages = [Stage("erase", "sense", lambda frames, stream: None)] if staged else []
    _, execution = on_stream(config, monkeypatch, 1, stages=stages, capture=False)
    lanes = execution._lanes
    stage = next((i for i, (lane, _) in enumerate(lanes.waited) if lane == "stages"), 0)
    work = [points for lane, points in lanes.waited[stage + 1 :] if lane in (None, "lidar")]
    assert work and all(("stages" in points) == staged for points in work[:2])


def test_a_stage_that_follows_nothing_known(monkeypatch):
    """A typing error in ``after`` would otherwise leave the stage out."""
    config = configuration()
    with pytest.raises(EngineError, match=r"stage 'odd': after is 'sensing', expected 'sense' or 'inference'"):
        on_stream(config, monkeypatch, 1, stages=[Stage("odd", "sensing", None)])


# ---------------------------------------------------------------------------------------------------- capture failure


class DriverError(Exception):
    """As PyCUDA's errors, no RuntimeError."""


@pytest.mark.parametrize(
    "error", [RuntimeError("cannot synchronize"), DriverError("not while capturing"), KeyError("x")]
)
@pytest.mark.parametrize("capturable", [True, False])
def test_capture_failure_falls_back_to_eager(monkeypatch, error, capturable):
    """Something that may not be captured: the run goes on eagerly, with the reason, and its results are right."""
    config = configuration(lidar_rate=5.0)

    def fail(frames, stream):
        if wp.get_device("cpu").is_capturing:
            raise error

    simulator = PaintingSimulator(config, capturable=capturable)
    found, execution = on_stream(
        config, monkeypatch, 41, simulator=simulator, stages=[Stage("waits", "inference", fail)]
    )
    assert found == on_host(config, monkeypatch, 41)
    facts = execution.facts()
    assert facts["execution"]["mode"] == "eager" and facts["execution"]["scope"] is None
    assert (facts["execution"]["captures"], facts["execution"]["replays"]) == (0, 0)
    assert facts["execution"]["reason"] == f"the frame could not be captured as a graph: {error}"
    assert facts["residency"]["proven"] is False
    assert facts["residency"]["reason"] == f"an eager run: {facts['execution']['reason']}"
    assert not wp.get_device("cpu").is_capturing


def test_capture_failure_of_a_later_set(monkeypatch):
    """What was captured before is still replayed; the run as a whole is not proven."""
    config = configuration(lidar_rate=5.0)

    def fail(frames, stream):
        if wp.get_device("cpu").is_capturing and len(frames) == 1:
            raise RuntimeError("only both")

    found, execution = on_stream(config, monkeypatch, 41, stages=[Stage("both", "sense", fail)])
    assert found == on_host(config, monkeypatch, 41)
    facts = execution.facts()
    assert facts["execution"]["mode"] == "eager" and "only both" in facts["execution"]["reason"]
    assert facts["execution"]["replays"] == 5
    assert facts["residency"]["proven"] is False


def test_an_error_of_the_frame_itself(monkeypatch):
    """What fails eagerly too ends the run, with the networks' names and a remedy."""
    config = configuration()

    def fail(frames, stream):
        raise RuntimeError("out of memory\nmore")

    with pytest.raises(EngineError, match=r"cpu: a frame stopped with: out of memory \(networks: camera, lidar\)"):
        on_stream(config, monkeypatch, 1, stages=[Stage("broken", "sense", fail)])


def test_too_many_sensors_for_the_stamps(monkeypatch):
    """64 cameras and a LiDAR due together: refused, and not run eagerly as if capture had failed."""
    config = configuration(cameras=tuple(f"eye{n}" for n in range(64)))
    with pytest.raises(EngineError, match=r"65 sensors are due together, more than one frame can stamp"):
        on_stream(config, monkeypatch, 1)


# --------------------------------------------------------------------------------------------------------------- stamps


class Timeline:
    """One timeline for host and device, whose readings the kernels count: the host's are 10 ns apart, 5 s behind."""

    AHEAD = 5_000_000_000

    def __init__(self):
        self.array = wp.full(1, value=1_000_000 + self.AHEAD, dtype=wp.uint64, device="cpu")
        self.values = self.array.numpy()

    def now(self):
        self.values[0] += np.uint64(10)
        return int(self.values[0]) - self.AHEAD

    def pair(self):
        before, device, after = self.now(), self.now(), self.now()
        return before, device + self.AHEAD, after


@pytest.fixture
def timeline(monkeypatch):
    found = Timeline()
    monkeypatch.setattr("saccade.mailbox.new_timer", lambda device: found.array)
    monkeypatch.setattr(stream_execution, "now_ns", found.now)
    monkeypatch.setattr("tests.stream_doubles.now_ns", found.now)
    monkeypatch.setattr("tests.scripted_simulator.now_ns", found.now)
    return found


def stamped(config, monkeypatch, timeline, *, capturable=True, **options):
    clock = GpuClock(timeline.pair, now=timeline.now)
    frames_seen = []

    def after(frames, results):
        frames_seen.append({frame.sensor: frame.stamps.as_dict() for frame in frames})

    simulator = PaintingSimulator(config, capturable=capturable)
    simulator.open("none")
    _, execution = on_stream(config, monkeypatch, 41, simulator=simulator, clock=clock, after=after, **options)
    return frames_seen, execution


@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("capturable", [True, False])
@pytest.mark.parametrize("kind", SETS)
def test_stamps_rise_through_the_stages(monkeypatch, timeline, kind, capturable, capture):
    """Mapped from the device's clock without one having to be clamped: on a common timeline they are exact."""
    config = configuration(**SETS[kind])
    seen, execution = stamped(config, monkeypatch, timeline, capturable=capturable, capture=capture)
    reached = [stage for stage in STAGES if stage not in ("decided", "published", "applied")]
    full = 0
    for frames in seen:
        for stamps in frames.values():
            values = [stamps[stage] for stage in reached if stamps[stage] is not None]
            assert values == sorted(values)
            assert stamps["sim_state"] and stamps["sensed"] and stamps["handed_over"]
            full += len(set(values)) >= len(reached) - 1
    assert full >= len(seen)
    facts = execution.facts()["clock"]
    assert (facts["clamped"], facts["jumps"], facts["tick_ns"]) == (0, 0, 30)
    assert facts["uncertainty_us"]["max"] == pytest.approx(0.010)


def test_stages_of_a_replayed_frame_in_their_order(monkeypatch, timeline):
    """Sensed one after the other, each handed over when it was sensed, then preprocessed and inferred in turn."""
    seen, _ = stamped(configuration(), monkeypatch, timeline)
    eye, laser = seen[-1]["eye"], seen[-1]["laser"]
    assert eye["sensed"] == eye["handed_over"] < laser["sensed"] == laser["handed_over"]
    assert laser["handed_over"] < eye["preprocessed"] < eye["inferred"]
    assert eye["inferred"] < laser["preprocessed"] < laser["inferred"] < laser["on_host"] == eye["on_host"]


def test_cameras_of_a_batch_share_their_stages(monkeypatch, timeline):
    """One launch prepares and one run infers them: sensed and handed over apart, the rest is the same moment."""
    seen, _ = stamped(configuration(cameras=("eye", "left"), networks=("camera",)), monkeypatch, timeline)
    eye, left = seen[-1]["eye"], seen[-1]["left"]
    assert eye["sensed"] < left["sensed"]
    for stage in ("preprocessed", "inferred", "on_host"):
        assert eye[stage] == left[stage]


def test_a_frame_that_no_network_reads_is_only_sensed(monkeypatch, timeline):
    """No stage is stamped that was not reached."""
    seen, _ = stamped(configuration(networks=("camera",)), monkeypatch, timeline)
    assert seen[-1]["laser"]["sensed"] and seen[-1]["laser"]["handed_over"]
    for stage in ("preprocessed", "inferred", "on_host"):
        assert seen[-1]["laser"][stage] is None


def test_without_stamps_nothing_is_stamped_on_the_device(monkeypatch, timeline):
    """Not even with a clock at hand: what is left is when the frame was launched and when it was back."""
    before = timeline.now()
    seen, execution = stamped(configuration(), monkeypatch, timeline, stamps=False)
    assert "clock" not in execution.facts()
    for frames in seen:
        for stamps in frames.values():
            assert stamps["sensed"] == stamps["handed_over"] == stamps["on_host"] > before
            assert stamps["preprocessed"] is None


def test_the_clocks_are_synchronised_between_frames_only(monkeypatch):
    """At the start, and in ``idle`` once a second has passed: never while a frame waits."""
    config = configuration()
    now = itertools.count(0, 400_000_000)
    pairs = []

    def pair():
        pairs.append(1)
        return 0, 0, 0

    clock = GpuClock(pair, now=lambda: next(now))
    simulator = PaintingSimulator(config)
    execution = StreamExecution(simulator, networks_of(config, monkeypatch), device="cpu", clock=clock)
    assert len(pairs) == 8
    for _ in range(3):
        before = len(pairs)
        execution.infer(execution.sense())
        assert len(pairs) == before
        for _ in range(5):
            simulator.step(None)
        execution.idle()
    assert len(pairs) == 8 * 2


# ---------------------------------------------------------------------------------------------------------------- facts


def test_facts_have_the_shape_of_the_record(monkeypatch, timeline):
    """The fields that docs/record.md names; a graph of the CPU has no nodes to list, and says so."""
    seen, execution = stamped(configuration(lidar_rate=5.0), monkeypatch, timeline)
    facts, name = execution.facts(), "results and stamps"
    assert facts.keys() == {"execution", "residency", "clock"}
    assert facts["execution"] == {
        "mode": "graph",
        "scope": "frame",
        "reason": None,
        "graphs": 2,
        "captures": 2,
        "recaptures": 0,
        "replays": len(seen),
        "copied_inputs": 0,
    }
    assert facts["residency"] == {
        "proven": False,
        "reason": "not a CUDA graph",
        "graphs": [
            {"sensors": ["eye", "laser"], "reason": "not a CUDA graph", "kernel_writes": {name: 2 * 72 + 6 * 8}},
            {"sensors": ["eye"], "reason": "not a CUDA graph", "kernel_writes": {name: 72 + 3 * 8}},
        ],
        "host_to_device_bytes": None,
        "device_to_host_bytes": None,
        "kernel_writes": {name: 3 * 72 + 9 * 8},
        "declared_uploads": {},
    }
    assert facts["clock"].keys() == {"source", "tick_ns", "uncertainty_us", "pairs", "jumps", "clamped"}


def graph_of(unknown=(), **sizes):
    sizes = {"host_to_device_bytes": 0, "device_to_host_bytes": 100, "device_to_device_bytes": 0, **sizes}
    return {"nodes": {"kernel": 3}, **sizes, "unknown": list(unknown)}


def with_proofs(config, monkeypatch, proofs):
    remaining = iter(proofs)
    monkeypatch.setattr(stream_execution, "_proof", lambda graph: next(remaining))
    return on_stream(config, monkeypatch, 41)[1].facts()["residency"]


def test_proven_when_every_graph_is(monkeypatch):
    """Bytes are summed over the graphs."""
    config = configuration(lidar_rate=5.0)
    found = with_proofs(config, monkeypatch, [graph_of(), graph_of(device_to_host_bytes=60)])
    assert found["proven"] is True and found["reason"] is None
    assert (found["host_to_device_bytes"], found["device_to_host_bytes"]) == (0, 160)


def test_proven_of_bytes_that_do_cross(monkeypatch):
    """The count is proven, whatever it is."""
    found = with_proofs(configuration(), monkeypatch, [graph_of(host_to_device_bytes=7)])
    assert found["proven"] is True and found["host_to_device_bytes"] == 7


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (graph_of(unknown=["host", "host"]), "the driver does not tell what these nodes move: host"),
        ({"reason": "cuda-bindings is not installed"}, "cuda-bindings is not installed"),
    ],
)
def test_one_graph_that_cannot_be_told(monkeypatch, second, reason):
    """Nothing is proven then."""
    found = with_proofs(configuration(lidar_rate=5.0), monkeypatch, [graph_of(), second])
    assert found["proven"] is False and found["reason"] == reason


def test_no_cuda_bindings(monkeypatch):
    """The proof's reason names the package."""

    class Handle:
        graph = 77

    monkeypatch.setitem(__import__("sys").modules, "cuda", None)
    assert stream_execution._proof(Handle())["reason"].endswith("pip install cuda-bindings")


def test_before_the_first_frame_nothing_is_proven(monkeypatch):
    simulator = PaintingSimulator(configuration())
    execution = StreamExecution(simulator, networks_of(configuration(), monkeypatch), device="cpu")
    assert execution.facts()["residency"]["reason"] == "no frame was captured"


def test_graphs_switched_off(monkeypatch):
    """The configuration's own wish is the reason."""
    facts = on_stream(configuration(), monkeypatch, 5, capture=False)[1].facts()
    assert facts["execution"]["reason"] == "engine.graph is off"
    assert facts["residency"]["reason"] == "an eager run: engine.graph is off"


def test_sensors_elsewhere_are_not_captured(monkeypatch):
    """Where engines cannot read the sensors' device the frame is eager, and the reason names both."""
    simulator = PaintingSimulator(configuration())
    networks = networks_of(configuration(), monkeypatch)
    known = wp.get_device
    monkeypatch.setattr(wp, "get_device", lambda name=None: object() if name == "elsewhere" else known(name))
    simulator.device = "elsewhere"
    execution = StreamExecution(simulator, networks, device="cpu")
    facts = execution.facts()["execution"]
    assert facts["mode"] == "eager"
    assert facts["reason"] == "the sensors' buffers are on elsewhere, the engines on cpu"
    assert execution._whole is False


# ------------------------------------------------------------------------------------------------- nothing is allocated


@pytest.mark.parametrize("capturable", [True, False])
def test_the_steady_loop_allocates_no_arrays(monkeypatch, timeline, capturable):
    """From the third frame on no Warp array is made, and NumPy takes less memory than the smallest image."""
    config = configuration(lidar_rate=5.0)
    simulator = PaintingSimulator(config, capturable=True)
    execution = StreamExecution(
        simulator,
        networks_of(config, monkeypatch),
        device="cpu",
        clock=GpuClock(timeline.pair, now=timeline.now),
    )
    execution._whole = capturable
    made, peaks = [], []
    original = wp.array.__init__

    def counted(self, *args, **kwargs):
        made.append(self)
        original(self, *args, **kwargs)

    for number in range(40):
        frames = execution.sense()
        if number == 5:
            monkeypatch.setattr(wp.array, "__init__", counted)
            tracemalloc.start()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        execution.infer(frames)
        execution.idle()
        if number > 5:
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
        for _ in range(5):
            simulator.step(None)
    arrays = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)])
    tracemalloc.stop()
    assert made == []
    assert len(peaks) == 34 and max(peaks) < 8 * 8 * 3 * 4 * 16
    assert sum(trace.size for trace in arrays.traces) == 0


# ------------------------------------------------------------------------------------------------------- the whole loop


class Sink(list):
    put = list.append


def loop_of(config, monkeypatch, execution_of):
    class Scorer:
        def score(self, *_):
            return {}

    simulator = PaintingSimulator(config)
    networks = networks_of(config, monkeypatch)
    sink = Sink()
    loop = PerceptionLoop(
        config,
        simulator=simulator,
        networks={network.name: network for network in networks},
        controller=ReflexController(config.controller),
        sink=sink,
        scorer=Scorer(),
        execution=execution_of(simulator, networks),
    )
    outcome = loop.run(simulator.open("none"))
    return outcome, sink, loop.execution


def test_the_loop_end_to_end(monkeypatch):
    """Records of a captured run are those of an eager one on the host, stamps apart; every stage is in order."""
    config = configuration(lidar_rate=5.0, networks=("camera", "lidar", "fused"), frames=20)
    runs = [
        loop_of(config, monkeypatch, HostExecution),
        loop_of(
            config,
            monkeypatch,
            lambda s, n: StreamExecution(
                s, n, device="cpu", clock=GpuClock(lambda: (stream_execution.now_ns(), 0, stream_execution.now_ns()))
            ),
        ),
    ]
    plain = [
        [
            {key: record[key] for key in ("index", "tick", "sensor", "sequence", "sim_time", "results", "command")}
            for record in sink
        ]
        for _, sink, _ in runs
    ]
    assert [outcome.reason for outcome, _, _ in runs] == ["completed"] * 2
    assert plain[0] == plain[1] and len(plain[0]) == 30
    assert {name for record in plain[1] for name in record["results"]} == {"camera", "lidar", "fused"}
    _, records, execution = runs[1]
    for record in records:
        stamps = [record["stamps"][stage] for stage in STAGES if record["stamps"][stage] is not None]
        assert stamps == sorted(stamps)
        assert record["stamps"]["sensed"] and record["stamps"]["decided"]
        assert record["inference_ms"] >= 0 and record["latency_ms"] > 0
    assert execution.facts()["execution"]["replays"] == 20


def test_the_loop_leaves_time_between_decisions(monkeypatch):
    """``idle`` follows each decision, after its records and observers."""
    config = configuration(frames=6)
    calls = []

    class Watched(HostExecution):
        def infer(self, frames):
            calls.append("infer")
            return super().infer(frames)

        def idle(self):
            calls.append("idle")

    loop_of(config, monkeypatch, Watched)
    assert calls == ["infer", "idle"] * 6


@pytest.mark.parametrize(
    ("graph", "capture", "branched"), [("off", False, False), ("line", True, False), ("auto", True, True)]
)
def test_execution_for_takes_the_stream_where_engines_are_on_a_gpu(monkeypatch, graph, capture, branched):
    """Device, graphs and stages are handed on."""
    config = configuration(networks=("camera",))
    simulator = PaintingSimulator(config)
    networks = networks_of(config, monkeypatch)
    networks[0].engine.device = "cuda:0"
    given = {}
    monkeypatch.setattr(stream_execution, "StreamExecution", lambda *args, **options: given.update(options))
    stage = Stage("s", "sense", None)
    execution_for(simulator, networks, graph=graph, stages=[stage])
    assert given == {"device": "cuda:0", "capture": capture, "branched": branched, "stages": [stage]}


def test_the_engine_double_is_an_engine():
    from saccade.engines.base import Engine

    assert isinstance(KernelEngine({"a": (1, 2)}, {"b": (1, 3)}), Engine)


def test_without_decoding_nothing_but_the_engine_runs(monkeypatch):
    """What the benchmark compares with the bare engine: outputs are computed, nothing is decoded or fetched."""
    config = configuration(networks=("camera",))
    simulator = PaintingSimulator(config)
    simulator.open("none")
    networks = networks_of(config, monkeypatch)
    execution = stream_execution.StreamExecution(simulator, networks, device="cpu", stamps=False, decode=False)
    results = execution.infer(execution.sense())
    assert not any(results.values())
    assert not networks[0].labels["eye"].numpy().any()
    assert execution.facts()["residency"]["kernel_writes"] == {}
    assert networks[0].outputs["labels"].numpy().any()
    assert execution.facts()["execution"]["replays"] == 1
