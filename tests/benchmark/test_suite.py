"""The whole benchmark: groups that can run here, what is missing, what is not valid, and the shape of the JSON."""

import json

import pytest

from saccade.benchmark import suite
from saccade.benchmark.measure import InvalidMeasurement
from saccade.configuration import load_configuration
from saccade.errors import ConfigurationError

RATIO = {"value": 1.02, "interval": [1.01, 1.03], "n": 300}
PROOF = {"proven": True, "reason": None, "host_to_device_bytes": 0, "device_to_host_bytes": 4584, "graphs": [{}]}


@pytest.fixture
def loaded():
    return load_configuration("warehouse", device="cpu")


@pytest.fixture
def groups(monkeypatch):
    """Groups as given, instead of measuring."""

    def use(**measurements):
        monkeypatch.setattr(suite, "_measurement", lambda name: measurements[name])
        monkeypatch.setattr(suite, "GROUPS", dict.fromkeys(measurements, ""))

    return use


def test_groups_are_merged_into_one_object_that_json_bears(loaded, groups):
    """Ratios side by side, each group's details under its name, host and commit beside them."""

    def engines(session):
        written = {"device_to_host_bytes": 600, "kernel_writes": {"results and stamps": 4100}}
        session.proofs += [PROOF, {**PROOF, **written}]
        return {"ratios": {"graph_over_floor": RATIO}, "engines": {}}

    def recorder(session):
        return {"ratios": {"recorder_share": RATIO}, "recorder_us": 2.5, "recorder": {"records": 10}}

    groups(engines=engines, recorder=recorder)
    result = suite.bench(loaded, quick=True)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["ratios"] == {"graph_over_floor": RATIO, "recorder_share": RATIO}
    assert result["recorder_us"] == 2.5
    assert (result["host_to_device_bytes"], result["device_to_host_bytes"], result["graphs"]) == (0, 4700, 2)
    assert isinstance(result["host_to_device_bytes"], int)
    assert {"cpu", "gpu", "driver", "tensorrt"} <= set(result["host"])
    assert "python" not in result["host"]  # a path of this machine
    assert result["invalid"] == {}
    assert {"commit", "modified", "versions", "missing", "quick", "device", "wall_s"} <= set(result)


def test_bytes_that_are_not_proven_are_not_given(loaded, groups):
    """One graph whose nodes could not be listed is enough."""

    def engines(session):
        session.proofs += [PROOF, {"proven": False, "reason": "cuda-bindings is not installed"}]
        return {"ratios": {}, "engines": {}}

    groups(engines=engines)
    result = suite.bench(loaded)
    assert result["host_to_device_bytes"] is None
    assert "cuda-bindings" in result["missing"]["host_to_device_bytes"]


def test_an_invalid_group_gives_no_figures_and_the_others_go_on(loaded, groups, capsys):
    """Refusals and faults alike, each under the group's name."""

    def engines(session):
        raise InvalidMeasurement("loop_graph gave another result")

    def frame(session):
        raise KeyError("sensor")

    groups(engines=engines, frame=frame, recorder=lambda session: {"ratios": {"recorder_share": RATIO}})
    result = suite.bench(loaded)
    assert result["ratios"] == {"recorder_share": RATIO}
    assert result["invalid"] == {"engines": "loop_graph gave another result", "frame": "KeyError: 'sensor'"}
    assert "Traceback" in capsys.readouterr().err


def test_groups_after_the_time_limit_are_left_out(loaded, groups):
    """They are missing, not invalid."""
    groups(engines=lambda session: {"ratios": {}}, loop=lambda session: {"ratios": {}})
    result = suite.bench(loaded, time_limit_s=-1.0)
    assert set(result["missing"]) >= {"engines", "loop"}
    assert "time limit" in result["missing"]["loop"]


def test_without_a_gpu_its_groups_are_missing_with_the_reason(loaded, monkeypatch):
    """What needs one is not tried."""
    ran = []
    monkeypatch.setattr(suite, "_measurement", lambda name: lambda session: ran.append(name) or {"ratios": {}})
    monkeypatch.setattr(suite, "_no_ros2", lambda session: None)
    result = suite.bench(loaded)
    assert ran == ["engines", "recorder", "bridge", "loop"]
    assert "simulator.device is cpu" in result["missing"]["frame"]
    assert {"frame", "preprocess", "cameras", "cuda"} <= set(result["missing"])


def test_only_the_groups_asked_for_run(loaded, monkeypatch):
    """In the usual order, whatever the order asked in."""
    ran = []
    monkeypatch.setattr(suite, "_measurement", lambda name: lambda session: ran.append(name) or {"ratios": {}})
    suite.bench(loaded, only=["loop", "engines"])
    assert ran == ["engines", "loop"]
    with pytest.raises(ConfigurationError, match=r"--only everything: expected .*engines"):
        suite.bench(loaded, only=["everything"])


def test_a_copy_without_its_history_is_told_its_commit(monkeypatch):
    """Where git knows nothing, the variable does."""
    monkeypatch.setenv(suite.COMMIT_VARIABLE, "abc123")
    assert suite.commit() == {"commit": "abc123", "modified": None}
    monkeypatch.delenv(suite.COMMIT_VARIABLE)
    monkeypatch.setattr(suite, "_git", lambda *arguments: "")
    assert suite.commit() == {"commit": None, "modified": None}


def test_every_group_has_its_measurement():
    """The names that are offered are those that can be run."""
    found = {name: suite._measurement(name).__name__ for name in suite.GROUPS}
    assert found == {name: f"measure_{name}" for name in suite.GROUPS}


def test_an_interrupt_keeps_what_was_measured(loaded, groups):
    """The group that was interrupted is invalid, later ones are not begun, and earlier ones stay."""
    begun = []

    def engines(session):
        return {"ratios": {"graph_over_floor": RATIO}, "engines": {}}

    def frame(session):
        raise KeyboardInterrupt

    def cameras(session):
        begun.append("cameras")
        return {"ratios": {}}

    groups(engines=engines, frame=frame, cameras=cameras)
    result = suite.bench(loaded, quick=True)
    assert result["ratios"] == {"graph_over_floor": RATIO}
    assert result["invalid"]["frame"].startswith("interrupted") and not begun
