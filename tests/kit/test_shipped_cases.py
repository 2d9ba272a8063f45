"""The cases that ship for omni.kit.test, on the doubles: that they run, pass, and can fail."""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
import unittest
from pathlib import Path

import pytest
from tests.contracts.isaac.doubles import VERSIONS
from tests.kit.application import application

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "test_in_isaac.sh"


def run_cases(app):
    """Runs all cases as omni.kit.test does: setUp, test and tearDown are coroutines, and the application updates."""

    class Case(unittest.IsolatedAsyncioTestCase):
        async def _updating(self):
            while True:
                app.world.update()
                await asyncio.sleep(0.001)

        async def setUp(self):
            pass

        async def tearDown(self):
            pass

        async def asyncSetUp(self):
            self._task = asyncio.get_running_loop().create_task(self._updating())
            await self.setUp()

        async def asyncTearDown(self):
            await self.tearDown()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

        def _callSetUp(self):
            self._asyncioRunner.get_loop()
            self._callAsync(self.asyncSetUp)

        def _callTearDown(self):
            self._callAsync(self.asyncTearDown)

    sys.modules["omni.kit.test"].AsyncTestCase = Case
    package = importlib.import_module("saccade.kit.tests")
    assert package.scan_for_test_modules
    module = importlib.import_module("saccade.kit.tests.test_extension")
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = unittest.TestResult()
    suite.run(result)
    return result


def test_the_script_starts_kit_with_them(tmp_path):
    """On a folder that looks like Isaac Sim; its status is Kit's own."""
    root = tmp_path / "isaac sim"
    for folder in ("kit", "apps", "exts", "extsDeprecated"):
        (root / folder).mkdir(parents=True)
    kit = root / "kit" / "kit"
    kit.write_text('#!/bin/sh\nfor argument; do echo "<$argument>"; done\nexit 7\n')
    kit.chmod(0o755)

    def ran(*arguments):
        plain = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
        return subprocess.run([SCRIPT, *arguments], env=plain, capture_output=True, text=True, check=False)

    ended = ran(str(root))
    assert ended.returncode == 7
    given = [line[1:-1] for line in ended.stdout.splitlines() if line.startswith("<")]
    folders = [given[i + 1] for i, argument in enumerate(given) if argument == "--ext-folder"]
    assert folders == [*(str(root / name) for name in ("apps", "exts", "extsDeprecated")), str(ROOT / "exts")]
    assert "--/exts/omni.kit.test/testExts/0=saccade" in given
    assert "--/exts/omni.kit.test/runTestsAndQuit=true" in given
    assert f"--/exts/omni.kit.test/testExtApp={root}/apps/isaacsim.exp.base.kit" in given
    (root / "apps" / "isaacsim.exp.base.zero_delay.kit").write_text("")
    assert f"testExtApp={root}/apps/isaacsim.exp.base.zero_delay.kit" in ran(str(root)).stdout
    for wrong, said in (((), "ISAAC_PATH"), ((str(tmp_path),), "is no Isaac Sim")):
        ended = ran(*wrong)
        assert ended.returncode == 2 and said in ended.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the stand-in for omni.kit.test uses asyncio.Runner")
@pytest.mark.parametrize("version", VERSIONS)
def test_they_pass(version, tmp_path, monkeypatch):
    with application(version, tmp_path, monkeypatch) as app:
        as_isaac(monkeypatch, tmp_path, app)
        app.enable()
        app.rest()
        result = run_cases(app)
        assert result.testsRun == 4 and not result.skipped
        assert result.wasSuccessful(), [text for _, text in (*result.failures, *result.errors)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the stand-in for omni.kit.test uses asyncio.Runner")
def test_they_fail_where_the_extension_is_broken(tmp_path, monkeypatch):
    """The control: a run that cannot sense."""

    def broken(self):
        raise ZeroDivisionError("a fault")

    with application("6.2", tmp_path, monkeypatch) as app:
        as_isaac(monkeypatch, tmp_path, app)
        monkeypatch.setattr("tests.scripted_runs.SteppedSimulator.sense", broken)
        app.enable()
        app.rest()
        result = run_cases(app)
        assert len(result.failures) == 1 and "a fault" in result.failures[0][1]


def as_isaac(monkeypatch, folder, app):
    """Lets the scripted run stand for the shipped configuration of Isaac Sim, which needs its simulator."""
    from saccade import configuration

    load = configuration.load_configuration
    monkeypatch.setattr(
        "saccade.panel.model.load_configuration",
        lambda name, **named: load(str(folder / "scripted.yaml") if name == "isaac" else name, **named),
    )
    monkeypatch.setattr("tests.scripted_simulator.ScriptedSimulator.facts", lambda self: {"name": "isaac"})
