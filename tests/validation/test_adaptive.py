"""Adaptive precision in real runs, and what the experiment says of them."""

from __future__ import annotations

import json

import pytest
import warp as wp
import yaml
from tests.end_to_end import configuration, run_here, spawn
from tests.stream_doubles import KernelEngine, PaintingSimulator, drive, networks_of
from tests.stream_doubles import configuration as stream_configuration
from tests.validation.tradeoff_results import entry as made
from tests.validation.tradeoff_results import qualification, result

from saccade.configuration import load_configuration
from saccade.engines.adaptive import AdaptiveEngine
from saccade.errors import ConfigurationError, RecordError
from saccade.execution import HostExecution
from saccade.stream_execution import StreamExecution
from saccade.telemetry.record import read_frames
from saccade.validation.adaptive_detections import DetectionCounter
from saccade.validation.adaptive_experiment import ADAPTIVE, UNLOADED, Pacer, outcome, run_experiment
from saccade.validation.load_generator import LoadGenerator, load_from_kind

ADAPT = "engine.adaptive={precisions: [fp32, fp16]}"


def doubled(config, monkeypatch):
    """Networks whose engines come in two precisions."""
    networks = networks_of(config, monkeypatch)
    made = []
    for network in networks:
        first = network.engine
        shapes = [{spec.name: spec.shape for spec in specs} for specs in (first.inputs, first.outputs)]
        engine = AdaptiveEngine({"fp32": first, "fp16": KernelEngine(*shapes)})
        for name, array in {**network._inputs, **network.outputs}.items():
            engine.bind(name, array)
        network.engine = engine
        made.append(engine)
    return networks, made


def test_a_graph_per_precision_is_captured_before_it_is_needed(monkeypatch):
    config = stream_configuration()
    networks, engines = doubled(config, monkeypatch)
    simulator = PaintingSimulator(config)
    execution = StreamExecution(simulator, networks, device="cpu")
    counts = []

    def switch(frames, results):
        facts = execution.facts()["execution"]
        counts.append((facts["captures"], facts["replays"]))
        for engine in engines:
            engine.select(("fp32", "fp16")[len(counts) % 2])

    found = drive(execution, simulator, 40, after=switch)
    captures, replays = counts[-1]
    # Both precisions with the first set, and never again although it switched after every frame.
    assert captures == counts[0][0] == 2 and execution.facts()["execution"]["recaptures"] == 0
    assert replays == len(counts) >= 8
    monkeypatch.undo()
    plain_networks = networks_of(config, monkeypatch)
    plain = PaintingSimulator(config)
    # Both doubles compute the same: whatever was switched, no frame is lost and none is another.
    assert len(found) == len(drive(HostExecution(plain, plain_networks), plain, 40))


def test_a_run_records_which_precision_made_each_decision(room, tmp_path):
    summary = run_here(room, tmp_path, ADAPT, "run.warmup=10", frames=12)
    assert summary["verdict"] == "pass"
    record = read_frames(summary["directory"])
    precisions = [frame["adaptive"]["precision"] for frame in record.frames]
    warmup = [f["adaptive"]["precision"] for f in record.frames if f["phase"] == "warmup" and f["sensor"] == "eye"]
    # Each in turn, to know what it takes here.
    assert warmup == ["fp32"] * 5 + ["fp16"] * 5
    assert set(precisions) <= {"fp32", "fp16"}
    assert all(frame["adaptive"]["switch"] is None for frame in record.frames if frame["phase"] == "warmup")
    facts = summary["adaptive"]
    assert set(facts["frames"]) <= {"fp32", "fp16"} and sum(facts["frames"].values()) == 22
    assert [level["precision"] for level in facts["levels"]] == ["fp32", "fp16"]
    assert all(level["unloaded_ms"] > 0 for level in facts["levels"])
    recorded = [f["adaptive"]["switch"] for f in record.frames if f["sensor"] == "eye" and f["adaptive"]["switch"]]
    assert recorded == facts["switches"][: len(recorded)]
    assert set(summary["engine"]["camera"]["variants"]) == {"fp32", "fp16"}
    assert summary["dropped"] == 0


def test_a_deadline_that_nothing_meets_is_met_as_well_as_can_be(room, tmp_path):
    # FP32 misses every deadline: what happens then is a switch or the note that none helps, never silence.
    summary = run_here(room, tmp_path, ADAPT, "engine.adaptive.deadline_ms=0.0001", "run.warmup=10", frames=20)
    facts = summary["adaptive"]
    assert facts["switches"] or any("no precision is faster" in note or "no faster" in note for note in facts["notes"])
    assert all(switch["reason"] for switch in facts["switches"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run.warmup=3", "run.warmup: 3 frames, and engine.adaptive needs at least 10"),
        ("engine.adaptive.models={camera: {int4: x.onnx}}", "'int4' is none of"),
        ("engine.adaptive.precisions=[fp32, int8]", "int8 of network 'camera' has no file"),
    ],
)
def test_what_cannot_adapt_is_refused(room, tmp_path, override, said):
    with pytest.raises(ConfigurationError, match=said):
        run_here(room, tmp_path, ADAPT, "run.warmup=10", override)


def test_a_tradeoff_that_is_not_there(room, tmp_path):
    with pytest.raises(RecordError, match=r"engine\.adaptive\.tradeoff"):
        run_here(room, tmp_path, ADAPT, "run.warmup=10", "engine.adaptive.tradeoff=nowhere")


def test_a_precision_that_is_not_qualified_in_the_tradeoff_is_not_taken(room, tmp_path):
    entries = {name: [made("fp32", network=name), made("fp16", network=name)] for name in ("camera", "lidar")}
    entries["lidar"][1] |= qualification(0.13)
    (tmp_path / "sweep").mkdir()
    found = tmp_path / "sweep" / "tradeoff.json"
    found.write_text(json.dumps(result(*entries["camera"], *entries["lidar"])), encoding="utf-8")
    adapt = [ADAPT, f"engine.adaptive.tradeoff={found.parent}", "run.warmup=10"]
    facts = run_here(room, tmp_path / "runs", *adapt, "engine.adaptive.deadline_ms=0.0001", frames=12)["adaptive"]
    assert [level["precision"] for level in facts["levels"]] == ["fp32"] and not facts["switches"]
    why = "the trade-off says that it is not qualified: relative L2 of labels 0.13, limit 0.05"
    assert facts["excluded"] == {"fp16": why}
    # The experiment runs every precision that is named: there it is an error.
    loaded = load_configuration(room / "run.yaml", overrides=adapt[:2])
    with pytest.raises(ConfigurationError, match=r"fp16 of network 'lidar' is not taken.*not qualified.*--precision"):
        run_experiment(loaded, out=tmp_path / "experiment", frames=72)
    assert not (tmp_path / "experiment").exists()
    entries["camera"][0] |= qualification(0.13)
    found.write_text(json.dumps(result(*entries["camera"], *entries["lidar"])), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"fp32, the most accurate one, cannot be taken for network 'camera'"):
        run_here(room, tmp_path / "runs", *adapt, frames=12)


def test_detections_are_obstacles_persons_and_robots():
    labels = wp.array([[0, 1, 5], [2, 3, 4]], dtype=wp.uint8, device="cpu")
    counter = DetectionCounter(labels)
    assert counter.count() == counter.count() == 3
    labels.fill_(1)
    assert counter.count() == 0


def test_the_load_starts_stops_and_ends_with_its_owner():
    with LoadGenerator("cpu", workers=1) as load:
        [process] = load._processes
        load.start()
        assert load.active
        load.stop()
        assert not load.active
    assert process.returncode == 0


class Switchboard:
    """Counts in place of a load."""

    active = False
    starts = stops = 0

    def start(self):
        self.active, self.starts = True, self.starts + 1

    def stop(self):
        self.active, self.stops = False, self.stops + 1


def test_the_load_runs_in_the_middle_third():
    from types import SimpleNamespace

    load = Switchboard()
    pacer = Pacer(0.0, warmup=4, frames=9, load=load)
    for index in range(13):
        pacer(SimpleNamespace(index=index, phase="warmup" if index < 4 else "judged"))
    assert pacer.loaded == [False] * 3 + [True] * 3 + [False] * 3
    assert (load.starts, load.stops) == (1, 1)


def run_of(misses, accuracy=0.9, **adaptive):
    facts = {"levels": [{"precision": "fp32"}, {"precision": "int8"}], "switches": [], "notes": [], **adaptive}
    return {"misses": misses, "accuracy": {"camera": accuracy}, "adaptive": facts}


def test_outcomes():
    switches = [{"time_s": t, "kind": kind} for t, kind in ((0.0, "load"), (1.5, "relax"), (1.6, "fault"))]
    runs = {"fp32": run_of(50), "int8": run_of(0, 0.8), ADAPTIVE: run_of(10, 0.88, switches=switches)}
    found = outcome(runs, ["fp32", "int8"], dwell_s=1.0)
    assert found["misses_goal"] and found["accuracy_goal"] and found["dwell_goal"] and found["helps"]
    assert found["least_gap_s"] == 1.5
    runs[ADAPTIVE] = run_of(11, 0.7, switches=[{"time_s": t, "kind": "load"} for t in (0.0, 0.5)])
    found = outcome(runs, ["fp32", "int8"], dwell_s=1.0)
    assert not (found["misses_goal"] or found["accuracy_goal"] or found["dwell_goal"])
    runs[ADAPTIVE] = run_of(50, notes=["no precision is faster than fp32 here (int8 takes 2 times as long): it stays"])
    found = outcome(runs, ["fp32", "int8"], dwell_s=1.0)
    assert not found["helps"] and "no precision is faster" in found["statement"]


@pytest.mark.slow
def test_the_whole_experiment_and_what_it_writes(room, golden, tmp_path):
    path = room / "adaptive.yaml"
    path.write_text(yaml.safe_dump(configuration(), sort_keys=False), encoding="utf-8")
    recorded = run_here(room, tmp_path / "runs", "record.sensors=true", frames=90)
    loaded = load_configuration(path, overrides=[ADAPT])
    result = run_experiment(
        loaded, out=tmp_path / "out", recording=__import__("pathlib").Path(recorded["directory"]), frames=75, rate=50.0,
        workers=1,
    )  # fmt: skip
    assert set(result["runs"]) == {UNLOADED, "fp32", "fp16", ADAPTIVE}
    for name, run in result["runs"].items():
        assert run["frames"] == 75 and run["non_finite"] == 0
        assert sum(run["series"]["loaded"]) == (0 if name == UNLOADED else 25)
    assert result["deadline_ms"] == pytest.approx(1.2 * result["runs"][UNLOADED]["inference_ms"]["p95"]["value"])
    assert json.loads((tmp_path / "out" / "adaptive.json").read_text()) == result
    page = (tmp_path / "out" / "adaptive.html").read_text()
    assert result["outcome"]["statement"].split(":")[0] in page
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "finished").iterdir()}
    again = run_experiment(
        loaded, out=tmp_path / "out", recording=__import__("pathlib").Path(recorded["directory"]), frames=75, rate=50.0,
        workers=1,
    )  # fmt: skip
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "finished").iterdir()} == before
    assert again["runs"] == result["runs"]


def test_help_has_examples(tmp_path):
    for command in ("adaptive", "tradeoff"):
        found = spawn(command, "--help", cwd=tmp_path)
        assert found.returncode == 0 and "Examples" in found.stdout


def test_a_load_on_a_stream_needs_a_gpu():
    with pytest.raises(ConfigurationError, match=r"needs a GPU, and this run is on 'cpu': --load process"):
        load_from_kind("stream", "cpu")
    with pytest.raises(ConfigurationError, match=r"load 'fork': expected process or stream"):
        load_from_kind("fork", "cpu")
