"""Whole runs in the window of Isaac Sim's doubles: scene, physics, sensors and networks; every update is Kit's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.contracts.isaac.doubles import VERSIONS, install
from tests.kit.application import Application, assert_nothing_left

pytest.importorskip("newton")

ROOT = Path(__file__).resolve().parents[2]
OWN_UPDATES = (
    "omni.kit.app.IApp.update",
    "isaacsim.core.experimental.utils.app.update_app",
    "isaacsim.core.api.SimulationContext.step",
    "isaacsim.core.api.SimulationContext.play",
    "isaacsim.core.api.SimulationContext.stop",
)
"""Calls that make an update, which nothing may do inside of one."""


def configuration(folder, frames):
    path = folder / "isaac.yaml"
    document = {
        "base": str(ROOT / "config" / "isaac.yaml"),
        "scene": "corridor.usda",
        "simulator": {"device": "cpu"},
        "run": {"frames": frames, "warmup": 1},
        "budgets": {"latency_p95_ms": None, "deadline_miss_rate": None, "contacts": None},
    }
    path.write_text(yaml.safe_dump(document))
    return path


def settings(path, folder):
    return {
        "/app/hydraEngine/waitIdle": True,
        "/exts/saccade/configuration": str(path),
        "/exts/saccade/out": str(folder / "runs"),
    }


@pytest.mark.parametrize("version", [*(pytest.param(v, marks=pytest.mark.slow) for v in VERSIONS[:-1]), VERSIONS[-1]])
def test_a_run_in_the_window(version, tmp_path):
    """Started, paused, resumed and judged; Kit's updates are the only ones, and nothing stays behind."""
    path = configuration(tmp_path, 5)
    with install(version, settings=settings(path, tmp_path)) as double:
        world = double.world
        app = Application(double, [])
        app.enable()
        app.rest()
        app.drawn()
        app.click("Start")
        app.updates(lambda: app.panel.view().decisions >= 2, limit=40_000)
        assert not world.playing or app.panel.state == "running"
        app.panel.pause()
        app.updates(lambda: not world.playing)
        stood, steps = world.simulation_time, world.physics_steps
        for _ in range(10):
            world.update()
        assert (world.simulation_time, world.physics_steps) == (stood, steps), "simulated time stands still"
        app.panel.resume()
        app.until_state("done")
        view = app.panel.view()
        assert view.verdict == "pass", view.reasons
        document = json.loads((Path(view.directory) / "run.json").read_text())
        assert (
            document["simulator"]["name"] == "isaac" and document["simulator"]["versions"]["isaacsim"] == f"{version}.0"
        )
        assert len(document["pauses"]) == 1
        assert {row.name: row.frames for row in view.sensors if row.frames} == {"head_camera": 6, "lidar": 6}
        assert not double.called & set(OWN_UPDATES), "updates are Kit's own"
        assert {kind for kind, thread in app.panel.threads if kind in ("work", "update")} == {"work", "update"}
        app.drawn()
        assert any(widget._image[1] == (320, 320) for widget in app.widgets("ByteImageProvider"))
        app.disable()
        assert_nothing_left(app)
        assert not world.playing


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_a_hundred_decisions_in_the_window_and_then_another_run(version, tmp_path):
    """The second run of the same application begins anew; both end with a verdict, and nothing stays behind."""
    path = configuration(tmp_path, 100)
    with install(version, settings=settings(path, tmp_path)) as double:
        app = Application(double, [])
        app.enable()
        app.rest()
        app.drawn()
        app.click("Start")
        app.until_state("running", "failed")
        app.updates(lambda: app.panel.state in ("done", "failed"), limit=400_000)
        first = app.panel.view()
        assert first.verdict == "pass" and first.decisions == 101, (first.reasons, first.log[-3:])
        assert {row.name: row.frames for row in first.sensors if row.frames} == {"head_camera": 101, "lidar": 101}
        app.panel.start()
        app.updates(lambda: app.panel.view().decisions >= 3 or app.panel.state == "failed", limit=40_000)
        second = app.panel.view()
        assert second.decisions >= 3 and second.dropped == 0, second.log[-3:]
        app.panel.stop()
        app.updates(lambda: app.panel.state in ("done", "failed"), limit=40_000)
        document = json.loads((Path(app.panel.view().directory) / "run.json").read_text())
        assert document["simulator"]["streams"]["head_camera"]["deliveries"]["missing"] == 0
        app.disable()
        assert_nothing_left(app)


@pytest.mark.slow
def test_the_open_stage_is_measured_as_it_is(tmp_path):
    """Picked by its file, it is not opened anew, and what was put into it is taken back."""
    stage_file = ROOT / "scenes" / "corridor.usda"
    path = configuration(tmp_path, 2)
    with install("6.2", settings=settings(path, tmp_path)) as double:
        app = Application(double, [])
        assert double.world.open_stage(str(stage_file))
        stage = double.world.stage
        app.enable()
        app.rest()
        app.updates(lambda: app.panel.view().humanoids)
        app.drawn()
        box = next(box for box in app.widgets("ComboBox") if str(stage_file) in box._args)
        prims = {str(prim.GetPath()) for prim in stage.Traverse()}
        box._choose(str(stage_file))
        app.drawn()
        app.rest()
        app.panel.start()
        app.until_state("done")
        assert app.panel.view().verdict == "pass", app.panel.view().reasons
        assert double.world.stage is stage, "it was not opened anew"
        assert {str(prim.GetPath()) for prim in stage.Traverse()} == prims
        app.disable()
        assert_nothing_left(app)


@pytest.mark.slow
def test_a_clock_that_its_user_has_stopped_makes_no_step_and_stop_still_ends_the_run(tmp_path):
    path = configuration(tmp_path, 1000)
    with install("6.2", settings=settings(path, tmp_path)) as double:
        app = Application(double, [])
        app.enable()
        app.rest()
        app.panel.start()
        app.updates(lambda: app.panel.view().decisions >= 2, limit=40_000)
        double.world.playing = False  # Kit's own pause button
        for _ in range(3):
            double.world.update()
        decisions = app.panel.view().decisions
        for _ in range(20):
            double.world.update()
        assert app.panel.view().decisions == decisions and app.panel.state == "running"
        app.panel.stop()
        app.until_state("done")
        assert app.panel.view().verdict == "invalid"
        app.disable()
        assert_nothing_left(app)


def test_disabled_while_sensors_settle_it_leaves_nothing(tmp_path):
    path = configuration(tmp_path, 5)
    with install("6.2", settings=settings(path, tmp_path)) as double:
        app = Application(double, [])
        app.enable()
        app.rest()
        app.panel.start()
        app.updates(lambda: double.world.products, limit=40_000)
        assert not app.disable()
        assert_nothing_left(app)


def test_without_waiting_for_the_renderer_the_log_says_what_to_do(tmp_path):
    """The other control: the same run where one setting is wrong."""
    path = configuration(tmp_path, 5)
    wrong = {**settings(path, tmp_path), "/app/hydraEngine/waitIdle": False}
    with install("6.2", settings=wrong) as double:
        app = Application(double, [])
        app.enable()
        app.rest()
        app.panel.start()
        app.until_state("failed")
        line = next(line for line in reversed(app.panel.view().log) if line.level == "error")
        assert "/app/hydraEngine/waitIdle is False" in line.text and "zero_delay" in line.text and line.remedy
        app.disable()
        assert_nothing_left(app)


@pytest.mark.slow
@pytest.mark.parametrize(
    "without",
    ["omni.timeline.ITimeline.set_time_codes_per_second", "omni.kit.loop._loop.LoopRunner.set_manual_step_size"],
)
def test_an_api_that_is_gone_fails_the_run(without, tmp_path):
    """The control of the doubles: what 5.x in a window is set up with."""
    path = configuration(tmp_path, 5)
    with install("5.1", settings=settings(path, tmp_path), without=(without,)) as double:
        app = Application(double, [])
        app.enable()
        app.rest()
        app.panel.start()
        app.until_state("failed")
        assert without.rsplit(".", 1)[-1] in app.panel.view().log[-1].text
        app.disable()
        assert_nothing_left(app)
