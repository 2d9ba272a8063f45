"""The extension in the doubles of every Isaac Sim version: its life, its window, and what it leaves behind: nothing."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest
from tests.contracts.isaac.doubles import VERSIONS
from tests.kit.application import EXT_ID, application, assert_nothing_left

NO_UI = ("omni.ui", "omni.kit.menu.utils")


@pytest.mark.parametrize("version", VERSIONS)
def test_enabled_and_disabled_ten_times_it_leaves_nothing(version, tmp_path, monkeypatch):
    with application(version, tmp_path, monkeypatch) as app:
        modules = None
        for _ in range(10):
            app.enable()
            app.rest()
            assert app.world.menus["Tools"] and app.extension.window is not None
            assert not app.disable(), "Kit would warn that the extension is still alive"
            assert_nothing_left(app)
            found = {name for name in sys.modules if not name.startswith("saccade.kit")}
            assert modules is None or found == modules, "each time the same modules"
            modules = found


@pytest.mark.parametrize("version", VERSIONS)
def test_a_run_from_start_over_pause_and_resume_to_stop(version, tmp_path, monkeypatch):
    """As a user does it, with the window's own buttons."""
    with application(version, tmp_path, monkeypatch, frames=100_000) as app:
        app.enable()
        app.rest()
        app.drawn()
        assert not app.button("Stop").enabled
        app.click("Start")
        app.until_state("running")
        app.drawn()
        assert not app.button("Start").enabled
        app.click("Pause")
        app.updates(lambda: app.simulators[0].held == [True])
        stood = app.simulators[0].updates
        for _ in range(20):
            app.world.update()
        assert app.simulators[0].updates == stood, "simulated time stands still while Kit goes on"
        app.drawn()
        app.click("Resume")
        app.updates(lambda: app.simulators[0].updates > stood + 5)
        assert app.simulators[0].held == [True, False]
        app.click("Stop")
        app.until_state("done")
        view = app.panel.view()
        assert view.verdict == "invalid" and "interrupted" in " ".join(view.reasons)
        document = json.loads((Path(view.directory) / "run.json").read_text())
        assert document["state"] == "finished" and len(document["pauses"]) == 1
        app.drawn()
        app.click("Save report")
        app.updates(lambda: Path(f"{view.directory}.html").is_file())
        app.disable()
        assert_nothing_left(app)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_whole_run_is_shown_and_kits_thread_never_builds_or_writes(version, tmp_path, monkeypatch):
    with application(version, tmp_path, monkeypatch) as app:
        app.enable()
        app.rest()
        app.panel.start()
        app.until_state("done")
        app.drawn()
        labels = app.labels()
        assert any(label.startswith("PASS") for label in labels)
        assert any("21 frames, 0 dropped, on cpu" in label for label in labels)
        assert any("21 of 21 decisions" in label for label in labels)
        assert any("p95 needs at least 72 samples" in label for label in labels)
        plot = app.widgets("Plot")[-1]
        assert len(getattr(plot, "_values", plot._args[3:])) == 21
        pictures = {widget._image[1] for widget in app.widgets("ByteImageProvider")}
        assert pictures == {(320, 320), (32, 4)}  # the camera of 16 px is too small for Isaac Sim: rendered larger
        here = threading.get_ident()
        by_kind = {}
        for kind, thread in app.panel.threads:
            by_kind.setdefault(kind, set()).add(thread)
        assert here not in by_kind["work"] | by_kind["load"]
        assert by_kind["update"] == by_kind["application"] == {here}
        app.disable()
        assert_nothing_left(app)


@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_ui_it_runs_all_the_same(version, tmp_path, monkeypatch):
    with application(version, tmp_path, monkeypatch, without=NO_UI) as app:
        app.enable()
        assert app.extension.window is None and "saccade.kit.window" not in sys.modules
        app.rest()
        app.panel.start()
        app.until_state("done")
        assert app.panel.view().verdict == "pass"
        assert not app.disable()
        assert_nothing_left(app)


def test_a_ui_without_menus_is_a_window_without_a_menu_item(tmp_path, monkeypatch):
    with application("6.2", tmp_path, monkeypatch, without=("omni.kit.menu.utils",)) as app:
        app.enable()
        assert app.extension.window is not None and not app.world.menus
        app.disable()
        assert_nothing_left(app)


def test_disabled_in_mid_run_it_judges_what_there_is_and_leaves_nothing(tmp_path, monkeypatch):
    with application("6.2", tmp_path, monkeypatch, frames=100_000) as app:
        app.enable()
        app.rest()
        app.panel.start()
        app.until_state("running")
        assert not app.disable()
        assert_nothing_left(app)
        document = json.loads(next((tmp_path / "runs").glob("*/run.json")).read_text())
        assert (document["state"], document["verdict"]) == ("finished", "invalid")


def test_disabled_while_the_scene_opens_it_ends_without_further_updates(tmp_path, monkeypatch):
    with application("5.1", tmp_path, monkeypatch) as app:
        app.enable()
        app.rest()
        app.panel.start()
        app.updates(lambda: app.simulators)
        assert not app.disable()
        assert_nothing_left(app)


def test_a_subscription_that_leaks_is_found(tmp_path, monkeypatch):
    """The control of the tests above."""
    with application("6.2", tmp_path, monkeypatch) as app:
        extension = app.enable()
        leaked = extension._updates
        extension._updates = None  # so that on_shutdown does not know of it
        app.disable()
        with pytest.raises(AssertionError, match="left behind: subscriptions"):
            assert_nothing_left(app)
        leaked.reset()
        assert_nothing_left(app)


def test_a_thread_that_leaks_is_found(tmp_path, monkeypatch):
    go = threading.Event()
    with application("6.2", tmp_path, monkeypatch) as app:
        thread = threading.Thread(target=go.wait, name="leaked")
        thread.start()
        try:
            with pytest.raises(AssertionError, match="left behind: threads"):
                assert_nothing_left(app)
        finally:
            go.set()
            thread.join()


def test_the_second_of_two_extensions_is_refused_and_the_first_lives(tmp_path, monkeypatch):
    """A checkout loaded as an extension, and the folder exts/ in it scanned as well."""
    with application("6.2", tmp_path, monkeypatch) as app:
        app.enable()
        second = app.enable("my.checkout-0.1.0")
        assert second.panel is None and second.window is None
        text = next(text for level, text in app.world.log_lines if level == "error")
        assert EXT_ID in text and "my.checkout-0.1.0 is not started" in text and "enable one of them" in text
        app.disable(second)
        assert app.world.settings["/exts/saccade/started_by"] == EXT_ID
        assert len(app.world.menus["Tools"]) == 1
        app.disable()
        # with the first gone, the other one may start, whatever its folder is called
        third = app.enable("my.checkout-0.1.0")
        assert third.panel is not None
        app.disable()
        assert_nothing_left(app)


def test_what_is_missing_is_said_in_window_and_log_and_nothing_is_installed(tmp_path, monkeypatch):
    from saccade.panel import dependencies

    root = tmp_path / "isaac-sim"
    root.mkdir()
    (root / "python.sh").touch()
    monkeypatch.setenv("ISAAC_PATH", str(root))
    monkeypatch.setattr(dependencies.missing_lines, "__defaults__", (lambda m: m not in ("tensorrt", "typer"),))
    monkeypatch.setattr("subprocess.Popen", None)
    with application("6.2", tmp_path, monkeypatch) as app:
        app.enable()
        for _ in range(3):
            app.world.update()
        commands = [field.model.get_value_as_string() for field in app.widgets("StringField")]
        command = next(command for command in commands if "typer" in command)
        assert command.startswith(f'{root}/python.sh -m pip install "typer>=') and '"numpy==' in command
        assert any(f"{root}/python.sh -m pip install tensorrt-cu12" in command for command in commands)
        errors = [text for level, text in app.world.log_lines if level == "error"]
        assert any("no run can start" in text and command in text for text in errors)
        app.drawn()
        assert not app.button("Start").enabled
        app.disable()
        assert_nothing_left(app)


def test_choices_in_the_window_reach_the_configuration(tmp_path, monkeypatch):
    with application("6.0", tmp_path, monkeypatch) as app:
        app.enable()
        app.rest()
        app.drawn()
        box = next(box for box in app.widgets("ComboBox") if "onnxruntime" in box._args)
        box._choose("onnxruntime")
        app.drawn()
        app.rest()
        assert app.panel.view().backend == "onnxruntime"


def test_a_hidden_window_draws_nothing_and_makes_no_pictures(tmp_path, monkeypatch):
    with application("6.2", tmp_path, monkeypatch, settings={"/exts/saccade/window": False}) as app:
        app.enable()
        app.rest()
        app.panel.start()
        app.until_state("done")
        app.drawn()
        assert app.panel.previews == {} and not app.widgets("Plot")
        # the menu item shows it
        app.world.menus["Tools"][0]._kwargs["onclick_fn"]()
        app.drawn()
        assert app.extension.window._window.visible and app.widgets("Plot")


def test_the_open_stage_offers_its_humanoids_and_sensors(tmp_path, monkeypatch):
    """Looked through a few milliseconds per update, and anew when another stage is opened."""
    pytest.importorskip("pxr")
    corridor = Path(__file__).parents[2] / "scenes" / "corridor.usda"
    with application("6.2", tmp_path, monkeypatch) as app:
        app.enable()
        app.rest()
        assert app.panel.view().humanoids == ()
        assert app.world.open_stage(str(corridor))
        app.updates(lambda: app.panel.view().humanoids)
        view = app.panel.view()
        assert len(view.humanoids) == 1
        unused = [row for row in view.sensors if row.state == "unused"]
        assert any(row.kind == "camera" for row in unused)
        app.drawn()
        assert any(view.humanoids[0] in box._args for box in app.widgets("ComboBox"))
        app.disable()
        assert_nothing_left(app)


def test_topics_with_their_counts_are_in_the_window():
    from dataclasses import replace

    from tests.contracts.isaac.doubles import install

    from saccade.panel.view import TopicRow

    with install("6.2") as double:
        from saccade.kit.window import SaccadeWindow
        from saccade.panel.bare import BarePanel

        panel = BarePanel(())
        topics = (TopicRow("/eye/image_raw", "out", 12, 3, 10.0), TopicRow("/cmd_vel", "in", 2, 1, None, "not finite"))
        shown = [replace(panel.view(), ros2="joined by dds", commands="2 commands accepted", topics=topics)]
        panel.view = lambda: shown[0]
        window = SaccadeWindow(panel, draw_hz=1000)
        window.draw()

        def labels():
            return [str(one.text) for one in double.world.widgets if type(one).__name__ == "Label"]

        wanted = ("joined by dds", "2 commands accepted", "/eye/image_raw", "12 sent at 10.0 Hz, 3 dropped",
                  "2 received, 1 refused: not finite")  # fmt: skip
        assert set(wanted) <= set(labels())
        shown[0] = replace(shown[0], topics=topics[1:])
        window._next = 0.0
        window.draw()
        assert "12 sent at 10.0 Hz, 3 dropped" not in labels() and "/cmd_vel" in labels()
        window.destroy()


@pytest.mark.gpu
def test_pictures_reach_the_window_from_the_gpus_memory(tmp_path, monkeypatch):
    """No byte of them passes the host: the provider is given the address of the sensor's picture."""
    import numpy as np
    import warp as wp
    from tests.contracts.isaac.doubles import install

    from saccade.panel.preview import Preview

    wp.init()
    with install("6.2"):
        from saccade.kit.window import SaccadeWindow
        from saccade.panel.bare import BarePanel

        panel = BarePanel(())
        array = wp.array(np.full((8, 16), 0xFF00FF00, np.uint32), device="cuda:0")
        panel.previews = {"eye": Preview("eye", array, 3)}
        window = SaccadeWindow(panel, draw_hz=1000)
        window.draw()
        assert window._pictures["eye"]._image == (array.ptr, (16, 8))
        window.destroy()
