"""The window's view model over real runs: on a worker as without an application, and stepped as inside one."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.end_to_end import make_folder
from tests.scripted_runs import SteppedSimulator, loaded_for, use

from saccade.panel import live
from saccade.panel.model import Panel
from saccade.panel.view import TRANSITIONS


def panel_for(folder, monkeypatch, *, kind=None, frames=6, application=None, **sections):
    simulators = use(monkeypatch) if kind is None else use(monkeypatch, kind)
    loaded = loaded_for(folder, frames=frames, warmup=1, **sections)
    panel = Panel(out=folder / "runs", configuration=str(loaded.path), application_stage=application)
    assert panel.settle() == "idle"
    return panel, simulators


@pytest.fixture
def panels():
    """Closes what a test opened."""
    opened = []
    yield opened
    for panel in opened:
        panel.close()


def updates(panel, simulators, count=2000, *, until=("done", "failed", "idle")):
    """An application's updates: its own step of the simulator, then the panel's turn."""
    states = [panel.state]
    for _ in range(count):
        if simulators:
            simulators[0].update()
        panel.update()
        if panel.state != states[-1]:
            states.append(panel.state)
        if panel.state in until:
            return states
        time.sleep(0.002)
    raise AssertionError(f"no end after {count} updates: {states}")


def test_a_run_on_the_worker_ends_with_a_verdict_and_a_report(tmp_path, monkeypatch, panels):
    panel, _ = panel_for(tmp_path, monkeypatch)
    panels.append(panel)
    before = panel.view()
    assert before.actions.start and before.actions.choose and not before.actions.stop
    panel.start()
    assert panel.state == "building" and not panel.view().actions.choose
    assert panel.settle() == "done"
    view = panel.view()
    assert (view.verdict, view.verdict_final) == ("pass", True)
    assert view.decisions == view.wanted == 7 and view.progress == 1.0
    assert len(view.latency_ms) == 7 and all(value > 0 for value in view.latency_ms)
    assert (Path(view.directory) / "report.html").is_file()
    assert [row.state for row in view.engines] == ["ready", "ready"]
    assert {row.name: row.frames for row in view.sensors if row.name in ("eye", "laser")} == {"eye": 7, "laser": 7}
    # 7 decisions carry no p95, and the window says so instead of giving one
    p95 = next(row for row in view.percentiles if row.name == "p95")
    assert p95.value is None and "needs at least 72" in p95.reason


def test_the_stages_add_up_to_the_latency(tmp_path, monkeypatch, panels):
    panel, _ = panel_for(tmp_path, monkeypatch)
    panels.append(panel)
    panel.start()
    panel.settle()
    view = panel.view()
    total = sum(value for _, value in view.stages_ms)
    assert total == pytest.approx(sum(view.latency_ms) / len(view.latency_ms), rel=1e-6)


def test_in_an_application_stepping_is_on_its_thread_and_work_is_not(tmp_path, monkeypatch, panels):
    panel, simulators = panel_for(tmp_path, monkeypatch, kind=SteppedSimulator, application=lambda: None)
    panels.append(panel)
    panel.start()
    states = updates(panel, simulators)
    assert states == ["building", "running", "stopping", "done"]
    here = threading.get_ident()
    by_kind = {}
    for kind, thread in panel.threads:
        by_kind.setdefault(kind, set()).add(thread)
    assert by_kind["application"] == by_kind["stand"] == by_kind["update"] == {here}
    assert here not in by_kind["work"] | by_kind["load"], "building, judging and writing are elsewhere"
    assert panel.view().verdict == "pass"


def test_in_an_application_cameras_are_rendered_as_large_as_isaac_sim_needs(tmp_path, panels):
    """What the window has chosen when it opens was written for any simulator, with pictures of 224 px."""
    panel = Panel(out=tmp_path / "runs", configuration="warehouse", application_stage=lambda: None)
    panels.append(panel)
    panel._loading.result(30)
    config = panel._loaded.config
    assert config.simulator.backend == "isaac"
    assert (config.sensors["head_camera"].width, config.sensors["head_camera"].height) == (448, 448)


def test_no_update_waits_for_work(tmp_path, monkeypatch, panels):
    """Loading that takes long holds up no update: the control is the same work done by the update itself."""
    from saccade.network import Network

    started, go_on = threading.Event(), threading.Event()

    class SlowNetwork(Network):
        def __init__(self, *arguments, **named):
            started.set()
            assert go_on.wait(30)
            super().__init__(*arguments, **named)

    monkeypatch.setattr("saccade.validation.run.Network", SlowNetwork)
    panel, simulators = panel_for(tmp_path, monkeypatch, kind=SteppedSimulator, application=lambda: None)
    panels.append(panel)
    panel.start()
    panel.update()
    assert started.wait(30)
    for _ in range(50):
        panel.update()  # would hang here if it waited
        assert panel.view().state == "building"
    assert any(row.state == "building" for row in panel.view().engines)
    go_on.set()
    assert updates(panel, simulators)[-1] == "done"


def test_pause_stands_still_and_resume_goes_on(tmp_path, monkeypatch, panels):
    panel, simulators = panel_for(tmp_path, monkeypatch, kind=SteppedSimulator, application=lambda: None, frames=30)
    panels.append(panel)
    panel.start()
    updates(panel, simulators, until=("running",))
    panel.pause()
    for _ in range(5):
        simulators[0].update()
        panel.update()
    stood = simulators[0].updates
    for _ in range(20):
        simulators[0].update()
        panel.update()
        time.sleep(0.002)
    assert panel.state == "paused" and panel.view().actions.resume
    assert simulators[0].updates == stood and simulators[0].held == [True], "nothing was handed over meanwhile"
    panel.resume()
    assert updates(panel, simulators)[-1] == "done"
    document = __import__("json").loads((Path(panel.view().directory) / "run.json").read_text())
    assert len(document["pauses"]) == 1 and document["pauses"][0]["wall_s"] >= 0.02
    assert document["verdict"] == "pass", document["reasons"]


def test_pause_and_stop_on_the_worker(tmp_path, monkeypatch, panels):
    panel, _ = panel_for(tmp_path, monkeypatch, frames=100_000)
    panels.append(panel)
    panel.start()
    while panel.state != "running" or panel.view().decisions < 3:
        panel.update()
        time.sleep(0.002)
    panel.pause()
    time.sleep(0.2)
    stood = panel.view().decisions
    time.sleep(0.2)
    assert panel.view().decisions == stood
    panel.stop()
    assert panel.settle() == "done"
    view = panel.view()
    assert view.verdict == "invalid" and "interrupted" in " ".join(view.reasons)


def test_stop_while_building_ends_the_build(tmp_path, monkeypatch, panels):
    panel, simulators = panel_for(tmp_path, monkeypatch)
    panels.append(panel)
    panel.start()
    panel.stop()
    assert panel.settle() in ("done", "idle")
    assert not simulators, "the simulator was never made"


def test_what_cannot_be_used_is_said_with_its_remedy_and_another_run_can_start(tmp_path, monkeypatch, panels):
    panel, _ = panel_for(tmp_path, monkeypatch)
    panels.append(panel)
    good = (tmp_path / "camera.onnx").read_bytes()
    (tmp_path / "camera.onnx").write_bytes(b"no network")
    panel.start()
    assert panel.settle() == "failed"
    line = next(line for line in reversed(panel.view().log) if line.level == "error")
    assert "camera.onnx" in line.text and "networks.*.model" in line.remedy
    (tmp_path / "camera.onnx").write_bytes(good)
    panel.start()
    assert panel.settle() == "done"


def test_an_unexpected_error_is_no_end_of_the_window(tmp_path, monkeypatch, panels):
    class Broken(SteppedSimulator):
        def sense(self):
            raise ZeroDivisionError("a fault")

    panel, simulators = panel_for(tmp_path, monkeypatch, kind=Broken, application=lambda: None)
    panels.append(panel)
    panel.start()
    assert updates(panel, simulators)[-1] == "failed"
    line = next(line for line in reversed(panel.view().log) if line.level == "error")
    assert "ZeroDivisionError" in line.text and "report it" in line.remedy


def test_a_wrong_configuration_is_said_and_nothing_can_start(tmp_path, panels):
    path = tmp_path / "wrong.yaml"
    path.write_text("scene: nowhere.usda\nsensors: {}\nfoo: 1\n")
    panel = Panel(out=tmp_path / "runs", configuration=str(path))
    panels.append(panel)
    panel.settle()
    view = panel.view()
    assert not view.actions.start
    assert "foo" in view.log[-1].text and view.log[-1].remedy
    panel.start()
    assert panel.state == "idle"


def test_the_verdict_so_far_is_of_the_runs_own_records(tmp_path, monkeypatch, panels):
    """A budget that is missed from the first frame on shows while the run goes on; the control meets it."""
    for limit, wanted in ((0.0001, "fail"), (None, "pass")):
        budgets = {"latency_p95_ms": None, "inference_p95_ms": None, "deadline_miss_rate": None, "dropped": 0}
        folder = tmp_path / str(limit)
        run = {"frames": 200, "warmup": 1, "deadline_ms": limit or 1000.0}
        budgets["deadline_miss_rate"] = 0.0
        panel, simulators = panel_for(
            folder, monkeypatch, kind=SteppedSimulator, application=lambda: None, budgets=budgets, run=run
        )
        panels.append(panel)
        panel.start()
        for _ in range(4000):
            if simulators:
                simulators[0].update()
            panel.update()
            if panel.view().verdict:
                break
            time.sleep(0.001)
        view = panel.view()
        assert (view.verdict, view.verdict_final, panel.state) == (wanted, False, "running"), view.reasons
        rows = {row.name: row.state for row in view.budgets}
        assert rows["deadline_miss_rate"] == ("missed" if limit else "met")
        panel.stop()
        updates(panel, simulators)


def test_the_verdict_so_far_moves_on(tmp_path, monkeypatch, panels):
    """It is of more and more decisions; one slow judgement, as the first is that loads SciPy, does not end that."""
    monkeypatch.setattr(live, "JUDGE_PERIOD_S", 0.0)
    monkeypatch.setattr(live, "JUDGE_SHARE", 1.0)
    slow = [0.1, 0.0, 0.1, 0.0]
    figures = live.figures_so_far

    def sometimes_slow(*arguments):
        time.sleep(slow.pop() if slow else 0.0)
        return figures(*arguments)

    monkeypatch.setattr(live, "figures_so_far", sometimes_slow)
    panel, simulators = panel_for(tmp_path, monkeypatch, kind=SteppedSimulator, application=lambda: None, frames=40)
    panels.append(panel)
    panel.start()
    judged = set()
    for _ in range(4000):
        for simulator in simulators:
            simulator.update()
        panel.update()
        judged.add(panel.view().judged)
        if panel.state == "done":
            break
        time.sleep(0.001)
    assert len(judged) > 20 and max(judged) == 40


def test_a_verdict_that_takes_too_long_stands_still_and_its_records_are_let_go(tmp_path, monkeypatch, panels):
    monkeypatch.setattr(live, "JUDGE_PERIOD_S", 0.0)
    monkeypatch.setattr(live, "JUDGE_SHARE", 1.0)
    monkeypatch.setattr(live, "JUDGE_LIMIT_S", -1.0)
    panel, simulators = panel_for(tmp_path, monkeypatch, kind=SteppedSimulator, application=lambda: None, frames=40)
    panels.append(panel)
    panel.start()
    for _ in range(4000):
        for simulator in simulators:
            simulator.update()
        panel.update()
        if panel.state == "running" and panel.view().decisions > 30:
            break
        time.sleep(0.001)
    view = panel.view()
    assert 0 < view.judged < 10 and not panel._live._records
    updates(panel, simulators)
    assert panel.view().judged == 40, "the final one is of all"


def test_save_report_copies_it_and_nothing_half(tmp_path, monkeypatch, panels):
    panel, _ = panel_for(tmp_path, monkeypatch)
    panels.append(panel)
    panel.save_report(tmp_path / "x.html")
    assert "no report yet" in panel.view().log[-1].text
    panel.start()
    panel.settle()
    panel.save_report(tmp_path / "mine.html")
    panel.save_report(tmp_path / "no" / "such" / "folder" / "mine.html")
    panel.choose_scene("")  # behind both in the worker's queue
    panel.settle()
    assert (tmp_path / "mine.html").read_bytes() == (Path(panel.view().directory) / "report.html").read_bytes()
    assert any(line.level == "error" and "mine.html" in line.text for line in panel.view().log)


def test_choices_end_in_the_configuration(tmp_path, monkeypatch, panels):
    panel, _ = panel_for(tmp_path, monkeypatch)
    panels.append(panel)
    panel.choose_humanoid("/World/Robot")
    panel.choose_engine(backend="onnxruntime", precision="fp32")
    panel.settle()
    view = panel.view()
    assert (view.backend, view.precision, view.humanoid) == ("onnxruntime", "fp32", "/World/Robot")
    assert panel._loaded.config.simulator.humanoid.prim == "/World/Robot"
    panel.start()
    panel.choose_engine(precision="int8")
    assert "choices are fixed" in panel.view().log[-1].text
    panel.settle()


def test_what_was_chosen_before_cannot_start_while_the_new_choice_is_read(tmp_path, monkeypatch, panels):
    from saccade.panel import model

    go_on = threading.Event()
    load = model.load_configuration

    panel, simulators = panel_for(tmp_path, monkeypatch)
    panels.append(panel)
    monkeypatch.setattr(model, "load_configuration", lambda *a, **named: go_on.wait(30) and load(*a, **named))
    panel.choose_configuration(str(tmp_path / "scripted.yaml"), frames=3)
    assert not panel.view().actions.start and panel.view().doing == "reading the configuration"
    panel.start()
    assert panel.state == "idle" and not simulators
    go_on.set()
    panel.settle()
    panel.start()
    panel.settle()
    assert panel.view().judged == 3


def test_previews_are_drawn_only_for_who_looks(tmp_path, monkeypatch, panels):
    panel, _ = panel_for(tmp_path, monkeypatch)
    panels.append(panel)
    panel.start()
    panel.settle()
    assert panel.previews == {}
    panel.preview(True)
    panel.start()
    panel.settle()
    shown = panel.previews
    assert {name: preview.size for name, preview in shown.items()} == {"eye": (16, 16), "laser": (32, 4)}
    assert (shown["eye"].array.numpy() == 0xFF0000FF).all()
    scan = shown["laser"].array.numpy()
    assert scan[0, 16] == 0xFF000000, "no return is black, and straight ahead is in the middle"
    assert scan[1, 16] != 0xFF000000


def test_closing_ends_a_run_and_leaves_no_thread(tmp_path, monkeypatch):
    before = set(threading.enumerate())
    panel, simulators = panel_for(
        tmp_path, monkeypatch, kind=SteppedSimulator, application=lambda: None, frames=100_000
    )
    panel.start()
    updates(panel, simulators, until=("running",))
    panel.close()
    panel.close()
    assert set(threading.enumerate()) <= before
    record = next((tmp_path / "runs").glob("*/run.json")).read_text()
    assert '"state": "finished"' in record and '"verdict": "invalid"' in record


def test_an_unused_panel_leaves_no_thread(tmp_path):
    before = set(threading.enumerate())
    panel = Panel(out=tmp_path)
    panel.settle()
    panel.close()
    assert set(threading.enumerate()) <= before


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["start", "pause", "resume", "stop", "update", "simulate"]), max_size=60))
def test_no_sequence_of_buttons_leaves_the_states(tmp_path_factory, actions):
    with pytest.MonkeyPatch.context() as monkeypatch:
        panel, simulators = panel_for(
            tmp_path_factory.mktemp("run"), monkeypatch, kind=SteppedSimulator, application=lambda: None, frames=2
        )
        try:
            state = panel.state
            for action in actions:
                if action == "simulate":
                    for simulator in simulators[-1:]:
                        simulator.update()
                    continue
                getattr(panel, action)()
                actions_now = panel.view().actions
                assert actions_now.stop == (panel.state in ("building", "running", "paused"))
                if panel.state != state:
                    reachable = {state}
                    for _ in range(3):
                        reachable |= {after for before in reachable for after in TRANSITIONS[before]}
                    assert panel.state in reachable
                state = panel.state
        finally:
            panel.close()


def test_a_view_is_only_values(tmp_path, monkeypatch, panels):
    """It can be kept, compared and copied; nothing in it lives on the run."""
    panel, _ = panel_for(tmp_path, monkeypatch)
    panels.append(panel)
    view = panel.view()
    assert hash(view) == hash(replace(view)) and view == replace(view)


def test_a_short_run_on_the_embedded_simulator(tmp_path, monkeypatch, panels):
    """The whole thing for once: a stage, physics, ray-traced sensors, ONNX Runtime, judged."""
    pytest.importorskip("newton")
    path = make_folder(tmp_path) / "run.yaml"
    panel = Panel(out=tmp_path / "runs", configuration=str(path))
    panels.append(panel)
    assert panel.settle() == "idle"
    view = panel.view()
    assert view.humanoids, "the scene was looked through"
    assert {row.state for row in view.sensors if row.name in ("eye", "lidar")} == {"found"}
    panel.preview(True)
    panel.start()
    assert panel.settle(120) == "done"
    view = panel.view()
    assert view.verdict == "pass", view.reasons
    assert {row.state for row in view.sensors if row.name in ("eye", "lidar")} == {"attached"}
    assert set(panel.previews) == {"eye", "lidar"}
    assert len(set(panel.previews["eye"].array.numpy().ravel().tolist())) > 2, "a picture, not one colour"


@pytest.mark.gpu
def test_on_the_gpu_pictures_stay_on_it(tmp_path, panels):
    """Camera and LiDAR of the embedded simulator on CUDA: what the window shows lies in the GPU's memory."""
    path = make_folder(tmp_path) / "run.yaml"
    path.write_text(path.read_text().replace("device: cpu", "device: cuda"))
    panel = Panel(out=tmp_path / "runs", configuration=str(path))
    panels.append(panel)
    panel.settle()
    panel.preview(True)
    panel.start()
    assert panel.settle(300) == "done"
    assert {name: shown.array.device.is_cuda for name, shown in panel.previews.items()} == {"eye": True, "lidar": True}
    view = panel.view()
    assert {row.device for row in view.sensors if row.frames} == {"cuda:0"}
    assert len(set(panel.previews["eye"].array.numpy().ravel().tolist())) > 2
