"""The group that compares ways to a result: which there are, that their results are compared, and what is refused."""

import contextlib

import numpy as np
import pytest
from tests.benchmark.sessions import CpuAsGpu, session_for

from saccade import cuda
from saccade.benchmark import engines
from saccade.benchmark.measure import InvalidMeasurement
from saccade.benchmark.session import camera_network
from saccade.benchmark.source import buffers_for

ROUND_TRIPS = {"host_round_trip", "host_round_trip_pinned"}
GPU_WAYS = {"loop_graph", "loop_graph_stamps", "loop_graph_stamps_line", "loop_eager", "bare_eager", "bare_graph"}


@pytest.fixture
def no_gpu_calls(monkeypatch):
    """What needs a GPU, done on the CPU: streams, graphs and pinned memory."""
    monkeypatch.setattr(engines, "graph_of", lambda stream, launch, *keeps: launch)
    monkeypatch.setattr(engines.wp, "synchronize_stream", lambda stream: None)
    monkeypatch.setattr(cuda, "stream", lambda device: None)
    monkeypatch.setattr(cuda, "synchronize", lambda stream: None)
    monkeypatch.setattr(cuda, "pinned", lambda shape, dtype, *, device: np.zeros(shape, dtype))


@pytest.fixture
def lanes(no_gpu_calls):
    session = session_for(CpuAsGpu, tensorrt="double")
    with contextlib.ExitStack() as stack:
        found, reference = engines._lanes(session, camera_network("fp32"), stack)
        yield session, found, reference


def test_all_ways_give_the_reference_s_result(lanes):
    """Loop, bare engine and, where OpenCV is, the host round trip; what cannot run is named with its reason."""
    session, found, reference = lanes
    assert set(found) | ROUND_TRIPS == GPU_WAYS | ROUND_TRIPS | {"onnxruntime_cpu"}
    assert ("host_round_trip" in found) != ("host_round_trip" in session.missing)
    assert "TrtRunner does not run here" in session.missing["polygraphy"]
    limits = {name: lane.limit for name, lane in found.items()}
    distances = engines.check_agreement(engines._results(found), reference, limits)
    assert distances["onnxruntime_cpu"] == 0
    assert max(distance for name, distance in distances.items() if name not in ROUND_TRIPS) < 1e-5


def test_the_host_round_trip_brings_the_result_to_the_host(no_gpu_calls):
    """OpenCV rounds the resized picture to whole counts: the result is close, not equal."""
    pytest.importorskip("cv2")
    session = session_for(CpuAsGpu, tensorrt="double")
    subject = camera_network("fp32")
    buffers = buffers_for(["camera_0"], device="cpu")
    with contextlib.ExitStack() as stack:
        found = {}
        engines._add_round_trip(found, session, subject, stack, buffers)
        reference = engines._on_cpu(session, subject, stack, engines.prepared_input(buffers["camera_0"]))
        results = engines._results({**found, "reference": reference})
    wanted = results.pop("reference").ravel()
    assert set(results) == ROUND_TRIPS
    for result in results.values():
        distance = np.linalg.norm(result - wanted) / np.linalg.norm(wanted)
        assert 0 < distance < engines.ROUND_TRIP_LIMIT


def test_a_loop_that_replays_nothing_is_refused(lanes):
    """Its time would be that of an eager frame under the graph's name; the reason is passed on."""
    _, found, _ = lanes

    class Eager:
        def facts(self):
            return {"execution": {"mode": "eager", "replays": 0, "reason": "no memory for it"}}

    lane = found["loop_graph"]
    lane.loop, lane.graph = Eager(), True
    with pytest.raises(InvalidMeasurement, match="loop_graph replays no graph: no memory for it"):
        engines._check_loop(camera_network("fp32"), "loop_graph", lane)


def test_a_frame_with_non_finite_outputs_is_refused():
    """The loop's own finite flag ends the measurement."""

    class Result:
        network, finite = "camera", False

    class Execution:
        def sense(self):
            return []

        def infer(self, frames):
            return {"camera_0": [Result()]}

    with pytest.raises(InvalidMeasurement, match="not finite"):
        engines._frame(Execution())()


def test_ratios_of_ways_that_are_missing_are_left_out():
    """Nothing is made up for a column that was not measured."""
    times = {"loop_graph": [2.0] * 6, "bare_graph": [1.0] * 6}
    assert engines.ratios_of(times) == {"graph_over_floor": {"value": 2.0, "interval": [2.0, 2.0], "n": 6}}


def test_on_the_cpu_the_loop_is_compared_with_onnx_runtime():
    """The columns that a machine without a GPU has, for the network that is asked about."""
    session = session_for(rounds=6)
    with contextlib.ExitStack() as stack:
        found = engines._measured(session, camera_network("fp32"), stack)
    assert set(found["median_ms"]) == {"loop_cpu", "onnxruntime_cpu"}
    assert set(found["ratios"]) == {"host_loop_over_onnxruntime_cpu"}
    assert found["median_ms"]["loop_cpu"]["n"] == 12
    assert found["relative_l2"]["loop_cpu"] < 1e-3
