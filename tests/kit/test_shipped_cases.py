"""The cases that ship for omni.kit.test, on the doubles: that they run, pass, and can fail."""

from __future__ import annotations

import asyncio
import importlib
import sys
import unittest

import pytest
from tests.contracts.isaac.doubles import VERSIONS
from tests.kit.application import application


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
