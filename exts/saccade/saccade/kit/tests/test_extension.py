"""The extension inside a real Kit: it is started, shows its window, and does a short run in the shipped corridor."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import carb.settings
import omni.kit.app
import omni.kit.test

from saccade.kit.extension import STARTED_BY, SaccadeExtension, started
from saccade.panel.bare import BarePanel
from saccade.panel.view import State

FRAMES = 8
BUILD_UPDATES = 200_000
"""Updates that building engines may take; every one of them comes back, or the application would hang."""


class TestExtension(omni.kit.test.AsyncTestCase):
    """What a user can check of the extension in their own Isaac Sim."""

    async def tearDown(self) -> None:
        """Ends a run that a test has left."""
        self.panel.stop()
        await self.until("idle", "done", "failed")

    @property
    def extension(self) -> SaccadeExtension:
        """The extension that is started."""
        found = started()
        if found is None or found.panel is None:
            raise AssertionError("the extension was not started: see the log for the reason")
        return found

    @property
    def panel(self) -> Any:
        """Its view model."""
        return self.extension.panel

    async def until(self, *states: State, updates: int = BUILD_UPDATES) -> State:
        """Lets the application update until the panel is in one of ``states``."""
        panel = self.panel
        for _ in range(updates):
            if panel.state in states:
                return panel.state
            await omni.kit.app.get_app().next_update_async()
        raise AssertionError(f"the panel is {panel.state} after {updates} updates: {panel.view().log[-3:]}")

    async def test_it_is_started_once(self) -> None:
        """The one extension that is enabled is the one that was started, whatever its folder is called."""
        ext_id = carb.settings.get_settings().get(STARTED_BY)
        self.assertEqual(self.extension.ext_id, ext_id)
        path = omni.kit.app.get_app().get_extension_manager().get_extension_path(ext_id)
        self.assertTrue(path)

    async def test_its_window_is_there_where_there_is_a_ui(self) -> None:
        """Without a UI it has none, and that is no error."""
        if self.extension.window is None:
            self.skipTest("this application has no omni.ui")
        from omni import ui

        self.assertIsNotNone(ui.Workspace.get_window("Saccade"))

    async def test_it_says_what_is_missing(self) -> None:
        """Every line that says something is missing has the command that installs it."""
        for line in self.panel.view().missing:
            if line.remedy:
                self.assertIn("-m pip install", line.remedy)

    async def test_a_short_run_ends_with_a_verdict(self) -> None:
        """The shipped corridor, eight decisions: every file of the record is there, whatever the verdict says."""
        panel = self.panel
        if isinstance(panel, BarePanel):
            self.skipTest(f"packages are missing: {'; '.join(line.text for line in panel.view().missing)}")
        panel.choose_configuration("isaac", frames=FRAMES)
        await self.until_ready()
        panel.start()
        state = await self.until("done", "failed", "idle")
        self.assertEqual(state, "done", [line.text for line in panel.view().log if line.level == "error"])
        view = panel.view()
        document = json.loads((Path(view.directory) / "run.json").read_text(encoding="utf-8"))
        self.assertEqual(document["state"], "finished")
        self.assertEqual(document["frames"], FRAMES)
        self.assertEqual(document["simulator"]["name"], "isaac")
        self.assertTrue((Path(view.directory) / "report.html").is_file())
        # Kit's own thread built, judged and wrote nothing.
        here = threading.get_ident()
        self.assertFalse([kind for kind, thread in panel.threads if thread == here and kind in ("work", "load")])

    async def until_ready(self) -> None:
        """Lets the application update until the configuration is read."""
        panel = self.panel
        for _ in range(2000):
            await omni.kit.app.get_app().next_update_async()
            if panel.view().actions.start and not panel.view().doing:
                return
        self.fail(f"the configuration was not read: {panel.view().log[-3:]}")
