"""Whole runs on the scripted simulator: a configuration on disk, networks beside it, and who steps it."""

from __future__ import annotations

import yaml
from tests.onnx_models import camera_network, lidar_network
from tests.scripted_simulator import ScriptedSimulator

from saccade.configuration import load_configuration

BUDGETS = {"latency_p95_ms": None, "deadline_miss_rate": None, "dropped": 0}


class SteppedSimulator(ScriptedSimulator):
    """Is advanced by its application, as Isaac Sim is in its own window: a step without an update is an error."""

    def __init__(self, config, **arguments):
        super().__init__(config, **arguments)
        self.updates = 0
        self.command = None
        self.begun = False
        self.updated = None
        self.held = []

    def opening(self, scene):
        """Takes two updates."""
        for _ in range(2):
            yield "opening"
        return self.open(scene)

    def begin_step(self, command):
        """Takes the command for the next update."""
        self.command, self.begun = command, True

    def update(self):
        """What the application does between two turns: a step where one was begun and time does not stand still."""
        if self.begun and not (self.held and self.held[-1]):
            self.updates += 1
            self.updated = super().step(self.command)
            self.begun = False

    def step_done(self):
        return self.updated is not None

    def hold(self, on):
        self.held.append(on)

    def step(self, command):
        assert self.updated is not None, "no update came between begin_step and step"
        state, self.updated = self.updated, None
        return state


def loaded_for(folder, *, frames=10, warmup=2, **sections):
    """Writes networks and configuration into ``folder`` and returns the loaded configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    camera_network(folder / "camera.onnx")
    lidar_network(folder / "lidar.onnx")
    (folder / "scene.usda").write_text('#usda 1.0\ndef Xform "World" {}\n')
    document = {
        "scene": str(folder / "scene.usda"),
        "sensors": {
            "eye": {"kind": "camera", "prim": "c", "width": 16, "height": 16},
            "laser": {"kind": "lidar", "prim": "l", "channels": 4, "columns": 32},
        },
        "networks": {
            "camera": {
                "model": str(folder / "camera.onnx"),
                "inputs": {"image": {"kind": "image", "sensor": "eye"}},
                "decoder": {"labels": "labels", "hazard": "hazard"},
            },
            "lidar": {
                "model": str(folder / "lidar.onnx"),
                "inputs": {"range_image": {"kind": "range_image", "sensor": "laser"}},
                "decoder": {"labels": "labels", "clearance": "clearance"},
            },
        },
        "run": {"frames": frames, "warmup": warmup},
        "budgets": BUDGETS,
        **sections,
    }
    path = folder / "scripted.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return load_configuration(path)


def use(monkeypatch, kind=ScriptedSimulator, **arguments):
    """Makes every run use a scripted simulator; returns the list that those made go to."""
    made = []

    def simulator_for(loaded, say=None, *, stepped=False, attach=False):
        made.append(kind(loaded.config, **arguments))
        return made[-1]

    monkeypatch.setattr("saccade.validation.run.simulator_for", simulator_for)
    return made
