"""Whole runs in Isaac Sim's doubles: scene, sensors, loop, verdict, and nothing left behind, for every version."""

import json
from pathlib import Path

import pytest

pytest.importorskip("newton")
pytest.importorskip("pxr")

from tests.contracts.isaac.doubles import VERSIONS, Behaviour, install
from tests.simulators.isaac_room import isaac_folder, waiting

from saccade.configuration import load_configuration
from saccade.simulators import isaac_frames
from saccade.validation.accuracy_budgets import judged_budgets
from saccade.validation.run import validate

SHIPPED = {"camera": (0.6, 0.95), "lidar": (0.9, 1.0)}
"""Where the mIoU of the shipped networks lies on the embedded simulator's own pictures of this scene."""


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return isaac_folder(tmp_path_factory.mktemp("room"))


def run(folder, out, *overrides, frames=8):
    return validate(load_configuration(folder / "run.yaml", overrides=overrides, frames=frames), out=out)


@pytest.mark.parametrize(
    "version", [v if v in ("5.1", "6.2") else pytest.param(v, marks=pytest.mark.slow) for v in VERSIONS]
)
def test_a_run_passes_and_leaves_nothing(room, tmp_path, version):
    with install(version, waiting()) as double:
        summary = run(room, tmp_path)
        assert summary["verdict"] == "pass", summary["reasons"]
        assert summary["frames"] == 8 and summary["dropped"] == 0 and summary["stale"] == 0
        streams = summary["simulator"]["streams"]
        assert streams["eye"]["residency"]["color"].startswith("cpu")
        assert streams["lidar"]["deliveries"]["missing"] == 0
        assert streams["eye"]["sim_to_data"]["count"] >= 8
        assert not double.world.products and not double.world.physics_callbacks
    record = [json.loads(line) for line in (Path(summary["directory"]) / "frames.jsonl").read_text().splitlines()]
    frames = [line for line in record if line["kind"] == "frame"]
    assert all(frame["stamps"]["sim_state"] <= frame["stamps"]["sensed"] for frame in frames)
    assert all(frame["applied_sim_time"] is not None for frame in frames[:-2])
    assert (Path(summary["directory"]) / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_a_hundred_frames_of_the_shipped_corridor(tmp_path, version):
    overrides = ["scene=corridor.usda", "simulator.device=cpu", "budgets.latency_p95_ms=null", "run.deadline_ms=60000"]
    loaded = load_configuration("isaac", overrides=[*overrides, "controller.cruise_speed=0.6"], frames=100)
    with install(version, waiting()):
        summary = validate(loaded, out=tmp_path)
    assert summary["verdict"] == "pass", summary["reasons"]
    assert summary["frames"] == 100 and summary["distance_m"] > 2
    low, high = SHIPPED["camera"]
    assert low < summary["accuracy"]["camera_miou"] < high
    if version == "5.0":
        assert summary["accuracy"]["lidar_miou"] is None
    else:
        assert SHIPPED["lidar"][0] < summary["accuracy"]["lidar_miou"] <= SHIPPED["lidar"][1]
    assert summary["accuracy"]["clearance_error_m"] < 0.1


def test_a_lidar_without_labels_has_no_accuracy_and_the_budget_says_why(room, tmp_path):
    with install("5.0", waiting()):
        for name in ("camera", "lidar"):
            (room / f"{name}.card.json").write_text(json.dumps({"renderers": ["isaac"]}))
        try:
            summary = run(room, tmp_path, "budgets.lidar_miou=0.5")
        finally:
            for name in ("camera", "lidar"):
                (room / f"{name}.card.json").unlink()
    assert summary["accuracy"]["lidar_miou"] is None and summary["verdict"] == "invalid"
    reason = next(budget["reason"] for budget in summary["budgets"] if budget["name"] == "lidar_miou")
    assert "5.0 hands out no map" in reason


def test_repeated_deliveries_count_as_stale(room, tmp_path):
    with install("6.1", waiting(repeats=tuple(range(14, 18)))):
        summary = run(room, tmp_path)
    assert summary["stale"] == 8 and summary["verdict"] == "fail"
    assert any("stale" in reason for reason in summary["reasons"])


def test_a_system_clock_that_jumps_makes_a_run_invalid(room, tmp_path, monkeypatch):
    monkeypatch.setattr(isaac_frames, "RESAMPLE_NS", 0)
    with install("6.0", waiting(clock_jump_at=45)) as double:
        real = isaac_frames.time.time_ns
        monkeypatch.setattr(
            isaac_frames.EpochClock.__init__, "__kwdefaults__", {
                **isaac_frames.EpochClock.__init__.__kwdefaults__,
                "epoch_ns": lambda: real() + round(double.world.clock_offset * 1e9),
            }
        )  # fmt: skip
        summary = run(room, tmp_path)
    assert summary["verdict"] == "invalid" and summary["simulator"]["clock"]["jumps"] >= 1
    assert any("system clock" in reason for reason in summary["reasons"])


def test_without_waiting_frames_are_dropped_and_counted(room, tmp_path):
    with install("6.2", Behaviour()):
        summary = run(room, tmp_path, "simulator.pace=realtime", "budgets.dropped=null", frames=5)
    assert summary["frames"] == 5
    queue = summary["simulator"]["streams"]["eye"]["queue"]
    assert queue["produced"] == queue["consumed"] + sum(queue["dropped"].values()) + queue["in_flight"]


def test_negative_control_an_interface_without_deliveries_gives_no_verdict(room, tmp_path, monkeypatch):
    from saccade.errors import ConfigurationError
    from saccade.simulators import isaac

    monkeypatch.setattr(isaac, "MAX_SETTLING", 20)
    with install("6.0", waiting(zero_reference_frames=10_000)):
        with pytest.raises(ConfigurationError, match="without_time"):
            run(room, tmp_path)
        assert not list(tmp_path.iterdir())


def test_accuracy_is_judged_only_where_the_card_names_the_renderer(room, tmp_path):
    loaded = load_configuration(room / "run.yaml", overrides=["budgets.camera_miou=0.9"])
    budgets, reason = judged_budgets(loaded)
    assert budgets.camera_miou is None and "camera" in reason
    for name in ("camera", "lidar"):
        (room / f"{name}.card.json").write_text(json.dumps({"renderers": ["newton", "isaac"]}))
    try:
        assert judged_budgets(loaded) == (loaded.config.budgets, None)
    finally:
        for name in ("camera", "lidar"):
            (room / f"{name}.card.json").unlink()
    embedded = load_configuration(room / "run.yaml", overrides=["budgets.camera_miou=0.9"], simulator="newton")
    assert judged_budgets(embedded)[0].camera_miou == 0.9
