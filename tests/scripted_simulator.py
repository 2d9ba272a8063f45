"""A simulator for tests of the loop: real Warp buffers with scripted content, no physics."""

from __future__ import annotations

import time

import numpy as np
import warp as wp

from saccade.frame import BACKGROUND, Contact, Frame, GroundTruth, SimState, Stamps, now_ns


class ScriptedSimulator:
    """Cameras and LiDARs deliver at their rates; the base integrates commands without limits.

    Args:
        config: Run configuration; sensors are taken from it.
        sense_s: Wall time that sensing takes [s].
        contact_at: Steps at which a contact begins.
    """

    name = "scripted"
    acts = True
    device = "cpu"
    capturable = False

    def __init__(self, config, *, sense_s=0.0, contact_at=()):
        self.config = config
        self.sense_s = sense_s
        self.contact_at = set(contact_at)
        self.state = SimState()
        self.pending = []
        self.route = []
        self.received = []
        self.state_ns = 0
        self.truths = {}
        self.next_sequence = dict.fromkeys(config.sensors, 0)
        self.frames = {name: self._frame(name, sensor) for name, sensor in config.sensors.items()}

    def _frame(self, name, sensor):
        if sensor.kind == "camera":
            shape = (sensor.height, sensor.width)
            image = np.full(shape, 0xFF0000FF, np.uint32)
            buffers = {"color": wp.array(image, device="cpu")}
        else:
            shape = (sensor.channels, sensor.columns)
            ranges = np.full(shape, 4.0, np.float32)
            ranges[0, 0] = 0.0
            buffers = {
                "ranges": wp.array(ranges, device="cpu"),
                "intensity": wp.full(shape, value=0.5, dtype=wp.float32, device="cpu"),
                "points": wp.zeros(shape, dtype=wp.vec3f, device="cpu"),
            }
        labels = np.zeros(shape, np.uint8)
        if sensor.kind == "lidar":
            labels[:] = 1
            labels[0, 0] = BACKGROUND
        buffers["labels"] = wp.array(labels, device="cpu")
        return Frame(name, sensor.kind, 0, 0.0, Stamps(), buffers)

    def open(self, scene):
        self.state_ns = now_ns()
        return self.state

    def step(self, command):
        if command is not None:
            self.received.append((self.state.sim_time, command))
            self.pending.append(command)
        step = self.config.simulator.step
        state = SimState(sim_time=(self.state.step + 1) * step, step=self.state.step + 1)
        state.distance = state.step * 0.01
        for waiting in list(self.pending):
            if waiting.apply_at <= state.sim_time + 1e-9:
                self.pending.remove(waiting)
                state.applied.append((waiting.tick, now_ns(), state.sim_time))
        if state.step in self.contact_at:
            state.contacts.append(Contact(state.sim_time, "/World/Humanoid/arm", "/World/box"))
        self.state = state
        self.state_ns = now_ns()
        return state

    def sense(self):
        due = []
        for name, sensor in self.config.sensors.items():
            newest = int(self.state.sim_time * sensor.rate + 1e-9)
            if newest >= self.next_sequence[name]:
                frame = self.frames[name]
                frame.dropped = newest - self.next_sequence[name]
                frame.sequence = newest
                frame.sim_time = self.state.sim_time
                self.next_sequence[name] = newest + 1
                frame.stamps.clear()
                frame.stamps.sim_state = self.state_ns
                if self.sense_s:
                    time.sleep(self.sense_s)
                frame.stamps.sensed = now_ns()
                due.append(frame)
        return due

    def ground_truth(self, frame):
        if frame.kind == "camera":
            return GroundTruth(labels=frame.buffers["labels"], hazard=False)
        return GroundTruth(labels=frame.buffers["labels"], clearance=[5.5] * 16)

    def due(self):
        raise NotImplementedError

    def prepare(self, frames):
        raise NotImplementedError

    def record_state(self, stream):
        raise NotImplementedError

    def record_sense(self, frames, stream):
        raise NotImplementedError

    def facts(self):
        return {"simulator": self.name}

    def close(self):
        pass
