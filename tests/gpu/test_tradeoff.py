"""The trade-off and adaptive precision on a GPU: TensorRT engines in captured graphs, energy, memory, load."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from tests.end_to_end import configuration, make_folder, run_here

from saccade.configuration import load_configuration

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[Path, Path]:
    """A configuration, and a run of it that was recorded on the CPU."""
    pytest.importorskip("tensorrt")
    room = make_folder(tmp_path_factory.mktemp("room"))
    summary = run_here(room, tmp_path_factory.mktemp("runs"), "record.sensors=true", "run.warmup=10", frames=80)
    document = configuration(simulator={"device": "cuda"}, engine={"backend": "tensorrt"})
    path = room / "gpu.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path, Path(summary["directory"])


def test_a_sweep_measures_graphs_energy_and_memory(recorded, tmp_path):
    from saccade.validation.tradeoff import measure_tradeoff, with_tradeoff

    path, run = recorded
    loaded = with_tradeoff(
        load_configuration(path), precisions=["fp32", "fp16"], recordings=[str(run)] * 5, frames=20, warmup=5,
        calibration=None, networks=["camera"],
    )  # fmt: skip
    import numpy as np

    samples = tmp_path / "samples.npz"
    np.savez(samples, image=np.random.default_rng(0).normal(size=(120, 3, 16, 16)).astype(np.float32))
    result = measure_tradeoff(with_tradeoff(loaded, calibration=str(samples)), out=tmp_path / "sweep")
    assert result["complete"]
    entries = {entry["key"]: entry for entry in result["candidates"]}
    assert set(entries) == {"camera-fp32", "camera-fp16"}
    for entry in entries.values():
        assert entry["device"].startswith("cuda") and entry["engine"]["engine"] == "tensorrt"
        assert entry["plan_bytes"] > 0 and entry["memory_bytes"] is not None
        energy = entry["energy_per_frame"]
        assert energy["value"] is None or energy["value"] > 0
        assert energy["value"] is not None or energy["reason"]
    assert entries["camera-fp16"]["agreement"] > 0.95


def test_an_engine_that_differs_too_much_is_measured_and_not_recommended(recorded, tmp_path, monkeypatch):
    """A real engine in half, held against a limit that none keeps; in a store of its own, where it stays refused."""
    import numpy as np
    from tests.onnx_models import camera_network

    from saccade.config import EngineConfig
    from saccade.engines import qualification, selection
    from saccade.engines.store import EngineStore
    from saccade.errors import EngineError
    from saccade.validation.recommendation import recommend
    from saccade.validation.tradeoff import measure_tradeoff, with_tradeoff

    store = EngineStore(tmp_path / "engines", secret=tmp_path / "keys" / "engines.key")
    monkeypatch.setattr("saccade.engines.store.EngineStore", lambda: store)
    monkeypatch.setitem(qualification.LIMITS, "fp16", {"relative_l2": 0.0, "label_agreement": 0.0})
    path, run = recorded
    camera_network(path.parent / "camera_dynamic.onnx", size=(16, 16), batch="batch")
    samples = tmp_path / "samples.npz"
    np.savez(samples, image=np.random.default_rng(0).normal(size=(120, 3, 16, 16)).astype(np.float32))
    loaded = with_tradeoff(
        load_configuration(path), precisions=["fp32", "fp16"], recordings=[str(run)] * 5, frames=20, warmup=5,
        calibration=str(samples), networks=["camera"], batches=[1, 4],
    )  # fmt: skip
    result = measure_tradeoff(loaded, out=tmp_path / "sweep")
    (path.parent / "camera_dynamic.onnx").unlink()
    entries = {entry["key"]: entry for entry in result["candidates"]}
    assert result["complete"] and result["failed"] == []
    for key in ("camera-fp16", "camera-fp16-batch4"):
        assert entries[key]["qualified"] is False and entries[key]["latency"]["value"] > 0
        assert entries[key]["qualification"]["relative_l2"]["labels"] > 0
    assert entries["camera-fp32"]["qualified"] is True and entries["camera-fp32-batch4"]["qualified"] is True
    for batch in (1, 4):
        assert recommend(result, batch=batch, min_retention=0)["camera"].chosen["precision"] == "fp32"
    with pytest.raises(EngineError, match="may not be used"):
        selection.engine_from_onnx(
            tmp_path / "sweep" / "models" / "camera-fp16.onnx", EngineConfig(precision="fp16"), device="cuda:0",
            shapes={"image": (1, 3, 16, 16)},
        )  # fmt: skip


def test_a_graph_per_precision_is_replayed_and_a_switch_captures_nothing(recorded, tmp_path):
    from saccade.validation.adaptive_experiment import run_experiment

    path, run = recorded
    loaded = load_configuration(path, overrides=["engine.adaptive={precisions: [fp32, fp16]}"])
    result = run_experiment(loaded, out=tmp_path, recording=run, frames=72, rate=20.0)
    found = result["runs"]["adaptive"]
    assert found["non_finite"] == 0 and found["frames"] == 72
    shares = [value for value in found["series"]["load_percent"] if value is not None]
    assert shares or found["adaptive"]["load_absent"]


def test_adaptive_runs_in_graphs_of_the_whole_run(recorded, tmp_path):
    path, run = recorded
    overrides = [
        "engine.adaptive={precisions: [fp32, fp16], deadline_ms: 0.001}", "run.warmup=10",
        f"simulator.recording={run}", "simulator.backend=replay",
    ]  # fmt: skip
    from saccade.validation.run import validate

    summary = validate(load_configuration(path, overrides=overrides, frames=40), out=tmp_path)
    execution = summary["execution"]
    assert execution["mode"] == "graph" and execution["captures"] == 2 and execution["recaptures"] == 0
    assert execution["replays"] == 50
    assert summary["adaptive"]["switches"] or summary["adaptive"]["notes"]


def test_nothing_is_built_once_measuring_has_begun(recorded, tmp_path):
    import numpy as np
    from tests.onnx_models import camera_network

    from saccade.validation.tradeoff import measure_tradeoff, with_tradeoff

    path, run = recorded
    camera_network(path.parent / "camera_dynamic.onnx", size=(16, 16), batch="batch")
    samples = tmp_path / "samples.npz"
    np.savez(samples, image=np.random.default_rng(0).normal(size=(120, 3, 16, 16)).astype(np.float32))
    loaded = with_tradeoff(
        load_configuration(path), precisions=["fp32", "fp16", "int8"], recordings=[str(run)] * 5, frames=20, warmup=5,
        calibration=str(samples), networks=["camera"], batches=[1, 4],
    )  # fmt: skip
    said: list[str] = []
    result = measure_tradeoff(loaded, out=tmp_path / "sweep", say=said.append)
    (path.parent / "camera_dynamic.onnx").unlink()
    loop = next(index for index, text in enumerate(said) if text.startswith("measuring"))
    alone = next(index for index, text in enumerate(said) if text.startswith("measuring batch"))
    assert [text for text in said[:loop] if text.startswith("engine ")][-1].startswith("engine 3 of 6")
    assert [text for text in said[:alone] if text.startswith("engine ")][-1].startswith("engine 6 of 6")
    assert not [text for text in said[alone:] if "building" in text or text.startswith("engine ")]
    entries = {entry["key"]: entry for entry in result["candidates"]}
    assert "camera-fp16-batch4" in entries and entries["camera-fp16-batch4"]["memory_bytes"] is not None
    assert entries["camera-fp16"]["energy_per_frame"]["n"] in (0, 3)


def test_a_stream_multiplies_between_start_and_stop():
    from saccade.validation.load_generator import load_from_kind

    with load_from_kind("stream", "cuda:0", workers=2) as load:
        assert load.products == 0
        load.start()
        deadline = time.monotonic() + 20
        while load.products < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        load.stop()
        assert load.products >= 20
        time.sleep(0.3)
        after = load.products
        time.sleep(0.2)
        assert load.products == after
    load.close()
