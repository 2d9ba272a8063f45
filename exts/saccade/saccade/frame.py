"""The values that travel through the loop: Frame, Stamps, Result, GroundTruth, Command, SimState."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import warp as wp

CLASSES = ("floor", "structure", "obstacle", "person", "robot", "background")
"""The six labels of the shipped networks, in the order of their logits. Index 5 is also "nothing was hit"."""

CLASS_COUNT = len(CLASSES)
FLOOR, STRUCTURE, OBSTACLE, PERSON, ROBOT, BACKGROUND = range(CLASS_COUNT)

SECTOR_COUNT = 16
"""LiDAR clearance sectors: sector 0 is centred straight ahead, counter-clockwise, 22.5 degrees each."""

STAGES = (
    "sim_state",
    "sensed",
    "handed_over",
    "preprocessed",
    "inferred",
    "on_host",
    "decided",
    "published",
    "applied",
)
"""The stamps of one frame, in the order in which they are taken."""


def now_ns() -> int:
    """Returns the monotonic time of this process [ns]: the one timeline of all stamps."""
    return time.perf_counter_ns()


@dataclass(slots=True)
class Stamps:
    """When one frame passed each stage [ns] on the monotonic timeline of :func:`now_ns`; 0 = not reached."""

    sim_state: int = 0
    sensed: int = 0
    handed_over: int = 0
    preprocessed: int = 0
    inferred: int = 0
    on_host: int = 0
    decided: int = 0
    published: int = 0
    applied: int = 0

    def clear(self) -> None:
        """Sets every stamp back to 0, so that a pooled frame can be used again."""
        self.sim_state = self.sensed = self.handed_over = self.preprocessed = self.inferred = 0
        self.on_host = self.decided = self.published = self.applied = 0

    def as_dict(self) -> dict[str, int | None]:
        """Returns the stamps by stage [ns], ``None`` for a stage that was not reached."""
        return {stage: getattr(self, stage) or None for stage in STAGES}


@dataclass(slots=True)
class Frame:
    """One sample of one sensor.

    The buffers belong to the simulator and are valid until its next ``sense()``; who keeps one copies it.
    """

    sensor: str
    """Name of the sensor in the configuration."""
    kind: str
    """``"camera"`` or ``"lidar"``."""
    sequence: int
    """That sensor's own sample number, from 0, also counting dropped samples."""
    sim_time: float
    """Simulation time of the state that was sensed [s]."""
    stamps: Stamps
    buffers: Mapping[str, wp.array]
    """Named arrays on the simulator's device, sensor coordinates as documented by the sensor; never changed in place:
    buffers that have moved come in another mapping.

    camera: ``color`` packed RGBA, shape ``(height, width)``, uint32; ``depth`` forward (planar) depth [m], shape
    ``(height, width)``, float32, 0 = nothing hit; ``labels`` class index, shape ``(height, width)``, uint8;
    ``normals`` world normals, shape ``(height, width)``, vec3f.

    lidar: ``ranges`` [m], shape ``(channels, columns)``, float32, 0 = no return; ``intensity`` 0..1, same shape,
    float32; ``points`` in the sensor frame [m] (x forward, y left, z up), same shape, vec3f; ``labels`` class
    index, same shape, uint8. Column 0 looks straight ahead, azimuth counter-clockwise; channel 0 is the highest.
    """
    dropped: int = 0
    """Samples of this sensor that were due and not delivered since the frame before."""


@dataclass(slots=True)
class GroundTruth:
    """What the simulator knows about one frame; arrays belong to the simulator until its next ``sense()``."""

    labels: wp.array | None = None
    """True class index per pixel or return, the frame's own shape, uint8."""
    hazard: bool | None = None
    """Whether something other than floor is inside the corridor 0.8 m wide, 0.3 to 1.5 m ahead along the motion."""
    clearance: Sequence[float] | None = None
    """True clearance [m] per sector, 16 values, capped at the LiDAR's maximum range."""


@dataclass(slots=True)
class Result:
    """What one network said about one frame; plain host values, arrays stay with the decoder."""

    network: str
    sensor: str
    hazard: float | None = None
    """Probability that the walking corridor is not free, 0..1."""
    clearance: list[float] | None = None
    """Clearance [m] per sector, 16 values."""
    finite: bool = True
    """False when any output of the network was NaN or infinite."""
    labels: wp.array | None = None
    """Predicted class index, uint8, on the engine's device; valid until the next frame of the same network."""


@dataclass(slots=True)
class Command:
    """What the humanoid is asked to do, in its base frame (x forward, y left, z up)."""

    linear_x: float = 0.0
    """Forward velocity [m/s]."""
    linear_y: float = 0.0
    """Leftward velocity [m/s]."""
    yaw_rate: float = 0.0
    """Turn rate [rad/s], counter-clockwise."""
    joint_targets: Mapping[str, float] | None = None
    """Targets by joint name [rad or m] that take precedence over the gait; ``None`` leaves them to the gait."""
    tick: int = -1
    """The decision it came from; -1 = not from a decision."""
    apply_at: float = 0.0
    """Simulation time [s] from which it holds; in the past = at once."""
    source: str = "none"
    """Who decided: ``"reflex"``, ``"ros2"``, ``"script"``."""
    reason: str = ""
    """Why, in a word: ``"cruise"``, ``"slow"``, ``"steer"``, ``"avoid"``, ``"stop"``, ``"give way"``, ``"blind"``,
    ``"stand"``."""


@dataclass(slots=True)
class Contact:
    """The onset of a contact between the humanoid and anything but the floor."""

    sim_time: float
    body: str
    """Prim path of the humanoid's shape or link."""
    other: str
    """Prim path of the thing it touched."""


@dataclass(slots=True)
class SimState:
    """The state after one step."""

    sim_time: float = 0.0
    """Simulation time [s]."""
    step: int = 0
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The humanoid's root in the world [m]."""
    yaw: float = 0.0
    """Heading in the world [rad], counter-clockwise from +x."""
    velocity: tuple[float, float] = (0.0, 0.0)
    """Planar velocity in the base frame [m/s]: forward, left."""
    yaw_rate: float = 0.0
    distance: float = 0.0
    """Planar distance walked since the start [m]."""
    contacts: list[Contact] = field(default_factory=list)
    """Contact onsets during this step."""
    applied: list[tuple[int, int, float]] = field(default_factory=list)
    """Commands that took effect during this step: (tick, monotonic time [ns], simulation time [s])."""
    joint_names: tuple[str, ...] = ()
    """Joints with one degree of freedom; this and what follows only where a simulator was asked to report the robot."""
    joint_positions: np.ndarray | None = None
    """[rad or m], shape ``(joints,)``; the simulator's own, valid until it is asked again."""
    joint_velocities: np.ndarray | None = None
    """[rad/s or m/s], shape ``(joints,)``; likewise."""
    sensor_poses: dict[str, tuple[bool, tuple[float, ...]]] = field(default_factory=dict)
    """By sensor: whether it rides on the humanoid, and its frame (x forward, z up) in the base's, else in the world's:
    position [m], quaternion x, y, z, w."""
