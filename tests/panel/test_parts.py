"""The parts of the view model: dependencies, scene, log, wording, driver and picture."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saccade.config import RunConfig
from saccade.doctor import BASE, USES
from saccade.errors import DependencyError, EngineError
from saccade.loop import STAND, UPDATE
from saccade.panel import live, scene, wording
from saccade.panel.dependencies import KITS_OWN, can_run, is_there, missing_lines, python_command
from saccade.panel.driver import RunDriver
from saccade.panel.logbook import LINES, UNEXPECTED, Logbook
from saccade.panel.picture import picture
from saccade.panel.view import EngineRow, GpuRow, Percentile, SensorRow, View
from saccade.validation.interrupt import Interrupt
from saccade.validation.watch import APPLICATION, WORK

ROOT = Path(__file__).resolve().parents[2]


# ------------------------------------------------------------------------------------------------ what is missing


def test_nothing_is_missing_where_everything_is_there():
    assert missing_lines(lambda module: True) == ()


def test_each_line_has_the_command_and_pins_kits_numpy():
    lines = missing_lines(lambda module: module in KITS_OWN, python="/isaac/python.sh", numpy_version="2.3.1")
    assert [line.level for line in lines] == ["error", "warning", "info", "info", "info"]
    assert not can_run(lines)
    for line in lines:
        assert line.remedy.startswith("/isaac/python.sh -m pip install ") and line.remedy.endswith('"numpy==2.3.1"')
    packages = lines[0].remedy
    for package in USES[BASE]:
        wanted = package.module not in KITS_OWN
        assert (f'"{package.requirement}"' in packages) is wanted, "Kit's own are never installed"
    assert "tensorrt-cu12" in lines[1].remedy
    assert "optional" in lines[-1].text and "CUDA toolkit's headers" in lines[-1].text and "pycuda" in lines[-1].remedy


def test_kits_own_that_cannot_be_imported_is_no_reason_to_install_it():
    lines = missing_lines(lambda module: module != "warp")
    assert len(lines) == 1 and not lines[0].remedy and "do not install" in lines[0].text


def test_optional_ones_do_not_keep_a_run_from_starting():
    assert can_run(missing_lines(lambda module: module not in ("tensorrt", "pycuda", "pynvml")))


def test_is_there_imports_nothing():
    import sys

    assert is_there("this") and "this" not in sys.modules
    assert not is_there("no_such_module") and not is_there("no_such.module")


def test_python_is_isaac_sims_own_script(tmp_path):
    root = tmp_path / "isaac-sim"
    prefix = root / "kit" / "python"
    prefix.mkdir(parents=True)
    arguments = {"executable": str(root / "kit" / "kit"), "prefix": str(prefix)}
    assert python_command(**arguments, environment={}) == "python.sh", "kit itself is no Python"
    (root / "python.sh").touch()
    assert python_command(**arguments, environment={}) == str(root / "python.sh")
    assert python_command(executable="x", prefix="/", environment={"ISAAC_PATH": str(root)}) == str(root / "python.sh")
    venv = {"executable": "/venv/bin/python3.12", "prefix": "/venv", "environment": {}}
    assert python_command(**venv) == "/venv/bin/python3.12"


# ------------------------------------------------------------------------------------------------ scene


def looked_through(stage):
    turns, count = scene.look_through(stage), 0
    while True:
        try:
            next(turns)
            count += 1
        except StopIteration as end:
            return end.value, count


def test_the_shipped_scene_is_looked_through_in_pieces():
    Usd = pytest.importorskip("pxr.Usd")
    facts, turns = looked_through(Usd.Stage.Open(str(ROOT / "scenes" / "corridor.usda")))
    assert len(facts.humanoids) == 1 and facts.cameras
    assert turns == facts.prims // scene.PIECE > 0


def test_lidars_are_known_by_their_type_or_their_attributes():
    Usd = pytest.importorskip("pxr.Usd")
    from pxr import Sdf

    stage = Usd.Stage.CreateInMemory()
    stage.DefinePrim("/w", "Xform")
    stage.DefinePrim("/w/six", "OmniLidar")
    stage.DefinePrim("/w/five", "Camera").CreateAttribute("sensorModelPluginName", Sdf.ValueTypeNames.String)
    stage.DefinePrim("/w/camera", "Camera")
    facts, _ = looked_through(stage)
    assert (facts.lidars, facts.cameras) == (["/w/six", "/w/five"], ["/w/camera"])


def sensors(**prims):
    section = {name: {"kind": "camera", "prim": prim} for name, prim in prims.items()}
    return RunConfig.model_validate({"scene": "x", "sensors": section}).sensors


def test_sensors_are_found_by_path_and_name_and_the_humanoids_own_come_first():
    facts = scene.SceneFacts(humanoids=["/w/robot"], cameras=["/w/robot/head/eye", "/w/wall/eye", "/w/other"])
    for path in facts.cameras:
        facts.names.setdefault(path.rsplit("/", 1)[-1], []).append(path)
    rows = scene.sensor_rows(sensors(a="eye", b="/w/other", c="nothing", d="wall/eye"), facts)
    assert (rows["a"].state, rows["a"].place) == ("found", "/w/robot/head/eye")
    assert rows["b"].state == "found" and rows["d"].place == "/w/wall/eye"
    assert rows["c"].state == "missing" and "sensors.c.prim" in rows["c"].detail
    facts.humanoids.clear()
    rows = scene.sensor_rows(sensors(a="eye"), facts)
    assert rows["a"].state == "missing" and "2 prims are named" in rows["a"].detail
    assert rows["/w/other"].state == "unused"
    assert scene.sensor_rows(sensors(a="eye"), None)["a"].state == "not looked for"


# ------------------------------------------------------------------------------------------------ log and words


def test_the_log_is_bounded_forwarded_and_has_remedies():
    heard = []
    log = Logbook(lambda level, text: heard.append((level, text)))
    for number in range(LINES + 5):
        log.add("info", str(number))
    assert len(log.lines) == LINES and log.lines[0].text == "5" and len(heard) == LINES + 5
    line = log.add_error(DependencyError("x is missing: pip install x"))
    assert "pip install x" in line.text and "start Isaac Sim again" in line.remedy
    assert "Build the engine again" in log.add_error(EngineError("no")).remedy
    assert log.add_error(ValueError("odd")).remedy == UNEXPECTED
    assert heard[-1][0] == "error" and UNEXPECTED in heard[-1][1]


def test_words_say_what_is_not_known():
    assert wording.percentile_text(Percentile("p95", None, reason="p95 needs at least 72 samples")).startswith(
        "p95 needs"
    )
    assert wording.verdict_text(View()) == "no decision was judged yet"
    assert wording.verdict_text(View(verdict="open", judged=3)) == "OPEN so far, of 3 decisions"
    assert wording.verdict_text(View(verdict="pass", verdict_final=True, judged=3)) == "PASS"


def test_gpu_rows_show_what_there_is_or_why_there_is_nothing():
    absent = {"values": {}, "device": {}, "absent": {"gpu_utilisation_percent": "NVML is not installed"}}
    assert live.gpu_rows(absent) == (GpuRow("GPU", "NVML is not installed"),)
    values = {"gpu_utilisation_percent": 50.0, "memory_used_bytes": 2**30, "process_memory_bytes": 2**29}
    rows = live.gpu_rows({"values": values, "device": {"memory_total_bytes": 4 * 2**30}, "absent": {}})
    assert [(row.name, row.share) for row in rows] == [("load", 0.5), ("memory", 0.25), ("this process", 0.125)]
    assert live.gpu_rows({"values": {"memory_used_bytes": 2**30}, "device": {}, "absent": {}})[0].share is None


# ------------------------------------------------------------------------------------------------ driver


def scripted(kinds, log, *, error=None):
    """Turns that note which thread did them."""
    for kind in kinds:
        log.append(threading.get_ident())
        yield kind
    log.append(threading.get_ident())
    if error is not None:
        raise error
    return {"verdict": "pass"}


def test_each_turn_is_on_its_thread():
    log, here = [], threading.get_ident()
    with ThreadPoolExecutor(1) as worker:
        kinds = [APPLICATION, UPDATE, STAND, UPDATE, WORK, APPLICATION, WORK]
        driver = RunDriver(scripted(kinds, log), Interrupt(), worker, stepped=True)
        while not driver.finished:
            driver.update()
    mine = [thread == here for thread in log]
    # the turn after WORK is the worker's, all others are the application's; the first one is work
    assert mine == [False, True, True, True, True, False, True, False]
    assert driver.summary == {"verdict": "pass"} and driver.error is None


def test_a_decision_and_its_hand_over_are_in_one_update():
    """After STAND comes what is begun before the application's update; only UPDATE and WORK wait for another one."""
    log = []
    with ThreadPoolExecutor(1) as worker:
        driver = RunDriver(
            scripted([APPLICATION, STAND, UPDATE, STAND, UPDATE], log), Interrupt(), worker, stepped=True
        )
        while len(log) < 1 or driver._job is not None:
            driver.update()
        counts = []
        while not driver.finished:
            before = len(log)
            driver.update()
            counts.append(len(log) - before)
    assert counts[-2:] == [2, 1] or counts[-3:] == [2, 2, 1], counts


def test_a_simulator_that_needs_an_application_is_an_error_without_one():
    def turns():
        try:
            yield APPLICATION
            yield UPDATE
        finally:
            yield WORK

    with ThreadPoolExecutor(1) as worker:
        driver = RunDriver(turns(), Interrupt(), worker, stepped=False)
        driver._job.result(10)
    assert driver.finished and "advanced by an application" in str(driver.error)


def test_finish_gives_up_on_work_that_does_not_end():
    go = threading.Event()

    def turns():
        go.wait()
        yield WORK

    with ThreadPoolExecutor(1) as worker:
        driver = RunDriver(turns(), Interrupt(), worker, stepped=True)
        assert driver.finish(0.2) is False
        go.set()
        assert driver.finish(10)


# ------------------------------------------------------------------------------------------------ picture


def pixels(view, previews=None):
    return np.asarray(picture(view, previews))


def test_the_picture_says_what_it_is_and_shows_what_changes():
    """Every part of the view that changes, changes the picture."""
    row = SensorRow("eye", "camera", "/w/eye", "attached", "16x16 at 10 Hz", "cuda:0", 5, 1, 3.0)
    base = View(
        state="running", decisions=3, wanted=10, latency_ms=(1.0, 2.0, 3.0), deadline_ms=2.5, verdict="open", judged=3,
        stages_ms=(("sense", 1.0), ("infer", 2.0)), sensors=(row,), engines=(EngineRow("camera", "building"),),
        percentiles=(Percentile("p50", 2.0, 1.0, 3.0),), gpu=(GpuRow("load", "40 %", 0.4),),
    )  # fmt: skip
    before = pixels(base)
    changes = [
        {"state": "paused"}, {"decisions": 4}, {"latency_ms": (1.0, 9.0)}, {"verdict": "fail"}, {"deadline_ms": 1.0},
        {"stages_ms": (("sense", 2.0), ("infer", 1.0))}, {"sensors": (replace(row, frames=6),)},
        {"engines": (EngineRow("camera", "ready"),)}, {"gpu": (GpuRow("load", "40 %", 0.9),)}, {"ros2": "joined"},
        {"percentiles": (Percentile("p50", 2.5, 1.0, 3.0),)},
    ]  # fmt: skip
    for change in changes:
        after = pixels(replace(base, **change))
        assert after.shape != before.shape or (after != before).any(), change
    # its mark is in the uppermost lines, in a colour of its own
    assert (before[:30] == (224, 163, 62)).all(axis=2).sum() > 100
    with_picture = pixels(base, {"eye": np.full((8, 8), 0xFF2010F0, np.uint32)})
    assert (with_picture == (0xF0, 0x10, 0x20)).all(axis=2).sum() > 1000


def test_an_empty_view_and_long_texts_have_a_picture():
    pixels(View())
    pixels(View(doing="x" * 500, configuration="y" * 500, reasons=("z" * 500,), verdict="invalid", ros2="w" * 500))
