"""What happens when a frame is handed over, where it runs, and how a run on the host is described."""

import subprocess
import sys
from pathlib import Path

import pytest
import warp as wp
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.stream_doubles import PaintingSimulator, configuration, drive, networks_of

from saccade.errors import EngineError
from saccade.execution import HostExecution, buffer_key, declared_uploads, execution_for, turns_of

SENSORS = ("a", "b", "c", "d")


class Source:
    """An input that some sensors feed."""

    def __init__(self, sensors):
        self.sensors = sensors


class Reader:
    """A network as far as turns are concerned."""

    def __init__(self, inputs):
        self.config = type("Config", (), {"inputs": {f"input{n}": Source(s) for n, s in enumerate(inputs)}})
        self.primary = inputs[0]
        self.sensors = tuple(dict.fromkeys(sensor for sensors in inputs for sensor in sensors))


sensor_lists = st.lists(st.sampled_from(SENSORS), min_size=1, max_size=3, unique=True).map(tuple)
readers = st.lists(st.lists(sensor_lists, min_size=1, max_size=3).map(Reader), max_size=4)


@settings(deadline=None)
@given(
    due=st.lists(st.sampled_from(SENSORS), min_size=1, unique=True),
    earlier=st.sets(st.sampled_from(SENSORS)),
    networks=readers,
)
def test_turns_by_the_rule(due, earlier, networks):
    """By going through the frames one after the other and asking the rule each time, as its text has it."""
    seen = earlier | set(due)
    turns = turns_of(due, networks, seen)
    assert len(turns) == len(due)
    for i, turn in enumerate(turns):
        given_before, given_now = set(due[:i]), set(due[: i + 1])
        inputs, prepared, running = [], set(), []
        for network in networks:
            for tensor, source in network.config.inputs.items():
                fed = [sensor for sensor in due if sensor in source.sensors]
                complete = set(fed) <= given_now and not set(fed) <= given_before
                if fed and complete and all(sensor in seen for sensor in source.sensors):
                    inputs.append((network, tensor))
                    prepared |= {due.index(sensor) for sensor in fed}
            fed = [sensor for sensor in due if sensor in network.sensors]
            last = set(fed) <= given_now and not set(fed) <= given_before
            first_due = all(sensor in due for sensor in network.primary)
            if last and first_due and all(sensor in seen for sensor in network.sensors):
                running.append(network)
        assert list(turn.inputs) == inputs
        assert list(turn.prepared) == sorted(prepared)
        assert list(turn.networks) == running


@settings(deadline=None)
@given(due=st.lists(st.sampled_from(SENSORS), min_size=1, unique=True), networks=readers)
def test_a_network_runs_after_its_inputs_and_once(due, networks):
    """Whatever is due: an input of a running network that anything due feeds is complete by then."""
    turns = turns_of(due, networks, set(SENSORS))
    for network in networks:
        ran = [i for i, turn in enumerate(turns) if network in turn.networks]
        assert len(ran) == (set(network.primary) <= set(due))
        for i, turn in enumerate(turns):
            for owner, _ in turn.inputs:
                if owner is network and ran:
                    assert i <= ran[0]


def test_a_buffer_key_changes_with_any_buffer():
    """A source may rotate its ranges and keep its intensity."""
    simulator = PaintingSimulator(configuration())
    frame = simulator.frames["laser"]
    before = buffer_key(frame)
    assert before == buffer_key(frame)
    other = PaintingSimulator(configuration()).frames["laser"]
    for name in frame.buffers:
        kept = frame.buffers[name]
        frame.buffers[name] = other.buffers[name]
        assert buffer_key(frame) != before
        frame.buffers[name] = kept


def test_the_host_records_launches_anew_only_when_buffers_move(monkeypatch):
    """Same results with buffers that rotate; without, each input is recorded once."""
    config = configuration()
    counts = []
    found = []
    for rotating in ({}, {"eye": 3}):
        simulator = PaintingSimulator(config, rotating=rotating)
        networks = networks_of(config, monkeypatch)
        recorded = []
        for network in networks:
            monkeypatch.setattr(
                network,
                "input_work",
                lambda *a, original=network.input_work, log=recorded: log.append(1) or original(*a),
            )
        found.append(drive(HostExecution(simulator, networks), simulator, 31))
        counts.append(len(recorded))
    assert found[0] == found[1] and len(found[0]) == 7
    assert counts == [2, 1 + 7]


def test_facts_of_a_run_on_the_cpu(monkeypatch):
    """As docs/record.md has them."""
    config = configuration()
    execution = execution_for(PaintingSimulator(config), networks_of(config, monkeypatch))
    assert isinstance(execution, HostExecution)
    assert execution.facts() == {
        "execution": {"mode": "eager", "scope": None, "reason": "the run is on the CPU"},
        "residency": {
            "proven": False,
            "reason": "an eager run on the CPU: nothing crosses",
            "graphs": [],
            "declared_uploads": {},
        },
    }


def test_facts_of_an_engine_on_the_cpu_with_sensors_on_a_gpu(monkeypatch):
    """The declared copies stand there by network and tensor, and the reason says where from."""
    config = configuration(networks=("camera",))
    simulator = PaintingSimulator(config)
    networks = networks_of(config, monkeypatch)
    execution = HostExecution(simulator, networks)
    simulator.device = "cuda:0"
    networks[0].declared_copies["image"] = 768
    facts = execution.facts()
    assert facts["execution"]["reason"] == "the engines run on the CPU"
    assert facts["residency"]["reason"].endswith("what they read is copied from cuda:0")
    assert facts["residency"]["declared_uploads"] == {"camera.image": 768}


def test_uploads_of_the_simulator_are_declared_too(monkeypatch):
    """A stream that its source delivers on the host."""
    config = configuration(networks=("camera",))
    simulator = PaintingSimulator(config)
    simulator.uploads = {"laser": 4096}
    networks = networks_of(config, monkeypatch)
    networks[0].declared_copies["image"] = 768
    assert declared_uploads(simulator, networks) == {"laser": 4096, "camera.image": 768}


def test_networks_on_several_devices_are_refused(monkeypatch):
    """Each is named with its device."""
    config = configuration()
    networks = networks_of(config, monkeypatch)
    networks[1].engine.device = "cuda:0"
    with pytest.raises(EngineError, match="camera on cpu, lidar on cuda:0"):
        execution_for(PaintingSimulator(config), networks)


def test_stages_need_an_engine_on_the_gpu(monkeypatch):
    """The stage is named, with the options that help."""
    config = configuration()
    stage = type("Stage", (), {"name": "mine", "after": "sense"})()
    with pytest.raises(EngineError, match=r"stage 'mine' runs on the GPU.*--device cuda"):
        execution_for(PaintingSimulator(config), networks_of(config, monkeypatch), stages=[stage])


def test_the_example_says_what_it_needs():
    """Without a GPU examples/custom_stage.py ends with one sentence, and no traceback."""
    if wp.is_cuda_available():
        pytest.skip("there is a GPU: tests/gpu runs the example")
    path = Path(__file__).parents[1] / "examples" / "custom_stage.py"
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "runs its kernels on an NVIDIA GPU" in done.stderr and "Traceback" not in done.stderr
