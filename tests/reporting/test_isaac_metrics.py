"""metrics.json has the shape of Isaac Sim's JSONFileMetrics and the figures of run.json."""

from __future__ import annotations

import json

from tests.factories import make_document, make_run


def test_phases_and_measurements(tmp_path):
    document = make_document("demo", simulator={"startup_s": {"scene": 1.5}})
    run = make_run(tmp_path, 100, document=document)
    phases = json.loads((tmp_path / "metrics.json").read_text())
    assert [phase["phase_name"] for phase in phases] == ["loading", "benchmark"]
    for phase in phases:
        assert set(phase) == {"phase_name", "measurements", "metadata"}
        for entry in phase["measurements"]:
            assert set(entry) == {"name", "value", "unit", "type"} and entry["type"] == "single"
            assert isinstance(entry["value"], int | float) and isinstance(entry["unit"], str)
            assert entry["name"].startswith(f"demo {phase['phase_name']} ")
        names = [entry["name"] for entry in phase["measurements"]]
        assert len(names) == len(set(names))
        for entry in phase["metadata"]:
            assert set(entry) == {"name", "data", "type"}
    loading, benchmark = ({e["name"].split(" ", 2)[2]: e["value"] for e in p["measurements"]} for p in phases)
    assert loading["Simulator scene"] == 1500.0 and loading["Peak System Memory RSS"] > 1
    assert benchmark["Real Time Factor"] == run["realtime_factor"]
    assert benchmark["P95 Decision Latency"] == run["latency_ms"]["p95"]["value"]
    assert benchmark["Mean Stage infer"] == run["stages_ms"]["infer"]["mean"]
    assert benchmark["Camera mIoU"] == run["accuracy"]["camera_miou"]
    # 100 decisions support no p99: there is no such measurement rather than a made-up one.
    assert "P99 Decision Latency" not in benchmark
    assert {"name": "demo benchmark verdict", "data": "pass", "type": "string"} in phases[1]["metadata"]
