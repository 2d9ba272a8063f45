"""Engines that differ too much from FP32: a sweep measures them and says so, nothing else takes them.

On a double of TensorRT whose "GPU" is the host: the real store, runtime, qualification, loop and sweep run on it.
"""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import warp as wp
import yaml
from tests.contracts.tensorrt.doubles import RELEASES, installed, views
from tests.end_to_end import configuration
from tests.onnx_models import camera_network

from saccade import cuda
from saccade.config import EngineConfig
from saccade.configuration import load_configuration
from saccade.engines import selection
from saccade.engines.builder import BuiltPlan
from saccade.engines.store import EngineStore
from saccade.errors import EngineError
from saccade.validation import tradeoff_measure, tradeoff_prepare
from saccade.validation.recommendation import not_qualified, recommend
from saccade.validation.tradeoff import measure_tradeoff
from saccade.validation.tradeoff_candidates import Candidate
from saccade.validation.tradeoff_journal import JOURNAL_FILE, Journal
from saccade.validation.tradeoff_models import CandidateModel

FACTS = {"name": "GPU", "sm": "90", "driver": "580", "cuda": "13.0", "memory_free": 1, "memory_total": 2}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """TensorRT on a GPU that is the host; it computes what ONNX Runtime does, times the precision's ``gain``."""
    store = EngineStore(tmp_path / "engines", secret=tmp_path / "keys" / "engines.key")
    monkeypatch.setattr(cuda, "require", lambda device: "cpu")
    monkeypatch.setattr(cuda, "primary_context", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(cuda, "driver_facts", lambda device: FACTS)
    monkeypatch.setattr(wp, "get_stream", lambda device: SimpleNamespace(cuda_stream=1))
    monkeypatch.setattr(selection, "wants_tensorrt", lambda *_: True)
    monkeypatch.setattr(tradeoff_prepare, "wants_tensorrt", lambda *_: True)
    monkeypatch.setattr("saccade.engines.store.EngineStore", lambda: store)
    with installed(RELEASES[0], "saccade.engines.tensorrt") as double:
        state = SimpleNamespace(double=double, gain={"fp32": 1.0}, builds=[], store=store)
        sessions = {}

        def build(path, options, *, timing_cache, say, device):
            from saccade.engines import build_worker

            state.builds.append(options.precision)
            built = BuiltPlan(*build_worker.build(double.module, path, options, say=say, device="cpu"))
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            sessions[built.data] = session, options.precision
            return built

        def execute(context):
            session, precision = sessions[bytes(context._engine._plan)]
            arrays = views(context)
            found = session.run(None, {node.name: arrays[node.name] for node in session.get_inputs()})
            for node, value in zip(session.get_outputs(), found, strict=True):
                arrays[node.name][...] = value * state.gain.get(precision, 1.0)

        double.on_execute = execute
        # The builder works in a child process, which has no double.
        monkeypatch.setattr("saccade.engines.builder.plan_from_onnx", build)
        yield state


@pytest.fixture
def loaded(room, golden, tmp_path):
    samples = tmp_path / "samples.npz"
    np.savez(samples, image=np.random.default_rng(0).normal(size=(120, 3, 16, 16)).astype(np.float32))
    section = {
        "precisions": ["fp32", "fp16", "int8"], "recordings": [str(golden)] * 2, "calibration": str(samples),
        "frames": 8, "warmup": 2, "networks": ["camera"],
    }  # fmt: skip
    path = room / "qualification.yaml"
    path.write_text(yaml.safe_dump({**configuration(), "tradeoff": section}, sort_keys=False), encoding="utf-8")
    return load_configuration(path)


def test_what_differs_too_much_is_measured_and_never_recommended(machine, loaded, tmp_path):
    machine.gain |= {"fp16": 1.02, "int8": np.nan}
    result = measure_tradeoff(loaded, out=tmp_path / "sweep")
    entries = {entry["key"]: entry for entry in result["candidates"]}
    assert result["complete"] and set(entries) == {"camera-fp32", "camera-fp16"}
    half = entries["camera-fp16"]
    assert half["engine"]["engine"] == "tensorrt" and half["qualified"] is False and half["invalid"] is None
    assert half["qualification"]["relative_l2"]["labels"] == pytest.approx(0.02, rel=1e-2)
    assert half["qualification"]["label_agreement"] == 1.0
    # Two percent more of every score are the same labels: only the qualification keeps it from being taken.
    assert half["retention"]["value"] == 1.0 and half["latency"]["n"] == 16
    assert entries["camera-fp32"]["qualified"] is True
    # Values that are not finite are no accuracy.
    [failed] = result["failed"]
    assert failed["key"] == "camera-int8" and "non-finite values" in failed["reason"]
    found = recommend(result)["camera"]
    assert found.chosen["key"] == "camera-fp32"
    said = "not qualified: relative L2 of hazard 0.02, limit 0.01; relative L2 of labels 0.02, limit 0.01"
    assert f"FP16 is left out: {said}" in found.notes
    assert result["fronts"]["camera"]["1"] == {"latency": ["camera-fp32"], "throughput": ["camera-fp32"]}
    for name in ("tradeoff.md", "tradeoff.html", "camera-latency.svg"):
        assert said in (tmp_path / "sweep" / name).read_text(encoding="utf-8"), name
    # Everywhere else the same stored engine is refused, and it is not built again.
    machine.builds.clear()
    path = tmp_path / "sweep" / "models" / "camera-fp16.onnx"
    for opened in (selection.engine_from_onnx, selection.engine_made_ready):
        with pytest.raises(EngineError, match=r"may not be used: .*labels 0\.02 \(limit 0\.01"):
            opened(path, EngineConfig(precision="fp16"), device="cpu")
    assert machine.builds == []


def test_a_reference_that_is_not_fp32s_ends_the_sweep(machine, loaded, tmp_path):
    machine.gain["fp32"] = 1.02
    with pytest.raises(EngineError, match=r"fp32 engine may not be used: .*labels 0\.02 \(limit 0\.001"):
        measure_tradeoff(loaded, out=tmp_path / "sweep")


def test_what_was_measured_on_an_engine_that_is_built_otherwise_now_does_not_count(loaded, tmp_path, monkeypatch):
    with Journal(tmp_path, {}) as journal:
        sweep = tradeoff_prepare.Sweep(loaded, tmp_path, "cuda:0", journal, lambda _: None, [], [])
        half, int8 = Candidate("camera", "fp16"), Candidate("camera", "int8")
        sweep.models[half.key] = CandidateModel(tmp_path / "a", "a", 1, 0.0)
        sweep.models[int8.key] = CandidateModel(tmp_path / "b", "b", 1, 0.0, tmp_path / "c.npz", "c")
        # As the lines were before builds were counted.
        for candidate, digest in ((half, None), (int8, "c")):
            known = {"candidate": candidate.key, "sha256": sweep.models[candidate.key].sha256, "calibration": digest}
            journal.append({"kind": "cell", **known})
        assert journal.find("cell", **tradeoff_prepare.identified(sweep, half)) is not None
        wanted = tradeoff_prepare.identified(sweep, int8)
        assert journal.find("cell", **wanted) is None
        journal.append({"kind": "cell", **wanted})
        assert journal.find("cell", **tradeoff_prepare.identified(sweep, int8)) is not None
        monkeypatch.setattr(tradeoff_prepare, "CALIBRATED_BUILD", 99)
        assert journal.find("cell", **tradeoff_prepare.identified(sweep, int8)) is None


def test_a_candidate_that_was_refused_before_is_measured_when_it_is_tried_again(machine, loaded, tmp_path):
    out = tmp_path / "sweep"
    machine.gain["fp16"] = np.nan
    first = measure_tradeoff(loaded, out=out)
    assert "camera-fp16" in {entry["key"] for entry in first["failed"]}
    # As another build would be.
    for entry in machine.store.list():
        if not entry.manifest["qualification"]["passed"]:
            machine.store.remove(entry.key)
    machine.gain["fp16"] = 1.02
    assert "camera-fp16" in {entry["key"] for entry in measure_tradeoff(loaded, out=out)["failed"]}
    again = measure_tradeoff(loaded, out=out, retry=True)
    assert {e["key"]: e["qualified"] for e in again["candidates"]}["camera-fp16"] is False and again["failed"] == []
    kept = [json.loads(line) for line in (out / JOURNAL_FILE).read_text(encoding="utf-8").splitlines()]
    assert sum(line["kind"] == "cell" and line["candidate"] == "camera-fp32" for line in kept) == 2


def test_batches_too_are_measured_unless_they_are_the_reference(machine, loaded, tmp_path):
    path = camera_network(tmp_path / "open.onnx", batch="n")
    machine.gain |= {"fp32": 1.02, "fp16": 1.02}
    shapes = {"image": (4, 3, 16, 16)}
    said = {"device": "cpu", "say": lambda _: None}
    config = EngineConfig(precision="fp16")
    alone = tradeoff_measure._opened_alone(path, config, shapes, 4, unqualified=True, **said)
    assert alone.engine.name == "tensorrt" and alone.engine.facts()["qualification"]["passed"] is False
    alone.engine.close()
    with pytest.raises(EngineError, match="may not be used"):
        tradeoff_measure._opened_alone(path, config, shapes, 4, unqualified=False, **said)
    with Journal(tmp_path, {}) as journal:
        sweep = tradeoff_prepare.Sweep(loaded, tmp_path, "cpu", journal, lambda _: None, [], [])
        for candidate, failed in ((Candidate("camera"), True), (Candidate("camera", "fp16"), False)):
            sweep.models[candidate.key] = CandidateModel(path, candidate.key, 1, 0.0)
            tradeoff_prepare._ready_for_batch(sweep, candidate, 4)
            assert (tradeoff_prepare.failed_engine(sweep, candidate, 4) is not None) == failed


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, None),  # a result from before it was said
        ({"qualified": None, "qualification": None}, None),
        ({"qualified": True, "qualification": {"relative_l2": {"labels": 9.0}}}, None),
        (
            {"qualification": {"relative_l2": {"labels": 0.131, "hazard": 0.01}, "label_agreement": 0.9865}},
            "not qualified: relative L2 of labels 0.13, limit 0.05",
        ),
        (
            {"qualification": {"relative_l2": {"labels": None, "hazard": 0.06}, "label_agreement": 0.81}},
            "not qualified: relative L2 of labels undefined, limit 0.05; relative L2 of hazard 0.06, limit 0.05; "
            "label agreement 0.8100, limit 0.97",
        ),
        ({"qualification": None}, "not qualified: it differs from FP32"),
    ],
)
def test_what_is_said_of_an_engine_that_differs(fields, said):
    limits = {"relative_l2": 0.05, "label_agreement": 0.97}
    found = fields.get("qualification")
    entry = {"qualified": False, **fields} if fields else {}
    if found is not None:
        entry["qualification"] = {"limits": limits, "label_agreement": None, **found}
    assert not_qualified(entry) == said
