"""Ground truth of the embedded simulator: is the walking corridor free, and how far is the next thing per sector."""

# mypy: disable-error-code="valid-type"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import warp as wp

from saccade.frame import BACKGROUND, FLOOR, ROBOT, SECTOR_COUNT
from saccade.sensors.lidar import LidarSensor, lidar_directions
from saccade.sensors.rays import NO_SHAPE, RayBundle

if TYPE_CHECKING:
    import newton

    from saccade.config import LidarConfig

CORRIDOR_LENGTH = 1.5
CORRIDOR_WIDTH = 0.8
"""The corridor reaches this far from the base along the motion, and is this wide [m]."""

CORRIDOR_TOP = 2.0
"""Height above the floor from which it is probed [m]."""

PITCH = 0.05
"""Largest distance between probing rays [m]."""

AHEAD_FROM = 0.3
"""Distance from the base at which the corridor starts, in front of the humanoid's own body and feet [m].

What is nearer stands beside the humanoid or is being touched: no longer something to see and stop for.
"""

MIN_HEIGHT = 0.03
"""What is lower above the floor than this is no hazard [m]."""

CLEARANCE_HEIGHTS = (0.05, 1.9)
"""Heights above the floor between which returns count for the clearance [m]."""


class CorridorProbe:
    """Looks into the corridor ahead with two grids of rays: from above, and along it.

    A ray that starts inside a solid passes through it unseen, so that only the rays along the corridor find walls and
    other things that are taller than :data:`CORRIDOR_TOP`.

    Args:
        model: Finalized model, its BVH refitted to the state that is probed.
        classes: Class index by shape, uint8, on the model's device.
        floor_height: Height of the floor [m].
    """

    def __init__(self, model: newton.Model, classes: wp.array, floor_height: float):
        device = model.device
        rays = corridor_rays()
        self._bundle = RayBundle(model, wp.array(rays, dtype=wp.vec3f, device=device), bands=1)
        self._classes = classes
        down = len(rays) // 2
        reach = np.repeat([CORRIDOR_TOP - MIN_HEIGHT, CORRIDOR_LENGTH - AHEAD_FROM], [down, len(rays) - down])
        self._reach = wp.array(reach.astype(np.float32), dtype=wp.float32, device=device)
        self._floor_height = floor_height
        self._transform = HostArray(np.zeros((1, 7), dtype=np.float32), wp.transformf, device)
        self._hits = HostArray(np.zeros(1, dtype=np.int32), wp.int32, device)
        self._device = device

    def is_hazard(self, state: newton.State, x: float, y: float, heading: float) -> bool:
        """Returns whether anything but floor and robot is in the corridor from (x, y) [m] along ``heading`` [rad]."""
        pose = self._transform.host
        pose[0, 0], pose[0, 1], pose[0, 2] = x, y, self._floor_height + CORRIDOR_TOP
        pose[0, 3], pose[0, 4] = 0.0, 0.0
        pose[0, 5], pose[0, 6] = math.sin(heading / 2), math.cos(heading / 2)
        self._transform.push()
        self._hits.host[0] = 0
        self._hits.push()
        self._bundle.cast(state, self._transform.array)
        wp.launch(
            _count_hazards,
            dim=self._bundle.shape,
            inputs=[self._bundle.depth, self._bundle.shape_index, self._classes, self._reach],
            outputs=[self._hits.array],
            device=self._device,
        )
        self._hits.pull()
        return bool(self._hits.host[0] > 0)


def corridor_rays() -> np.ndarray:
    """Returns rays down into the corridor, then as many rows of rays along it.

    Shape ``(2 * rows, columns, 1, 2, 3)``, float32, in a frame :data:`CORRIDOR_TOP` above the floor, x forward.
    """
    columns = math.ceil(CORRIDOR_LENGTH / PITCH) + 1
    rows = math.ceil(CORRIDOR_WIDTH / PITCH) + 1
    rays = np.zeros((2 * rows, columns, 1, 2, 3), dtype=np.float32)
    across = np.linspace(-CORRIDOR_WIDTH / 2, CORRIDOR_WIDTH / 2, rows)[:, None]
    down, along = rays[:rows, :, 0], rays[rows:, :, 0]
    down[:, :, 0, 0] = np.linspace(AHEAD_FROM, CORRIDOR_LENGTH, columns)[None, :]
    down[:, :, 0, 1] = across
    down[:, :, 1, 2] = -1.0
    along[:, :, 0, 0] = AHEAD_FROM
    along[:, :, 0, 1] = across
    along[:, :, 0, 2] = np.linspace(MIN_HEIGHT, CORRIDOR_TOP, columns)[None, :] - CORRIDOR_TOP
    along[:, :, 1, 0] = 1.0
    return rays


class ClearanceTruth:
    """True clearance per sector of one LiDAR, from its noise-free returns.

    Args:
        sensor: The LiDAR.
        config: Its configuration.
        floor_height: Height of the floor [m].
    """

    def __init__(self, sensor: LidarSensor, config: LidarConfig, floor_height: float):
        device = sensor.clean_ranges.device
        self._sensor = sensor
        self._directions = wp.array(lidar_directions(config)[1], dtype=wp.vec3f, device=device)
        self._range_max = config.range_max
        self._floor_height = floor_height
        self._sectors = HostArray(np.zeros(SECTOR_COUNT, dtype=np.float32), wp.float32, device)
        self.values = [config.range_max] * SECTOR_COUNT
        """Clearance [m] by sector, as of the last :meth:`compute`."""

    def compute(self) -> list[float]:
        """Returns the clearance [m] by sector of what the sensor last sensed."""
        self._sectors.host.fill(self._range_max)
        self._sectors.push()
        wp.launch(
            _nearest_per_sector,
            dim=self._sensor.clean_ranges.shape,
            inputs=[
                self._sensor.clean_ranges,
                self._sensor.clean_labels,
                self._directions,
                self._sensor.transform,
                self._floor_height + CLEARANCE_HEIGHTS[0],
                self._floor_height + CLEARANCE_HEIGHTS[1],
            ],
            outputs=[self._sectors.array],
            device=self._sectors.array.device,
        )
        self._sectors.pull()
        for i in range(SECTOR_COUNT):
            self.values[i] = float(self._sectors.host[i])
        return self.values


class HostArray:
    """A small array with a host side; on the CPU both are the same memory."""

    def __init__(self, values: np.ndarray, dtype: Any, device: Any):
        self.array = wp.array(values, dtype=dtype, device=device)
        if self.array.device.is_cpu:
            self._pinned = None
            self.host = self.array.numpy()
        else:
            self._pinned = wp.array(values, dtype=dtype, device="cpu", pinned=True)
            self.host = self._pinned.numpy()

    def push(self) -> None:
        """Copies the host side to the device."""
        if self._pinned is not None:
            wp.copy(self.array, self._pinned)

    def pull(self) -> None:
        """Copies the device side to the host and waits for it."""
        if self._pinned is not None:
            wp.copy(self._pinned, self.array)
            wp.synchronize_stream(self.array.device.stream)


@wp.kernel(enable_backward=False)
def _count_hazards(
    depth: wp.array2d(dtype=wp.float32),
    shape_index: wp.array2d(dtype=wp.uint32),
    classes: wp.array(dtype=wp.uint8),
    reach: wp.array(dtype=wp.float32),
    hits: wp.array(dtype=wp.int32),
):
    row, column = wp.tid()
    shape = shape_index[row, column]
    if shape == NO_SHAPE or depth[row, column] >= reach[row]:
        return
    if shape < wp.uint32(classes.shape[0]):
        label = classes[wp.int32(shape)]
        if label == wp.uint8(wp.static(FLOOR)) or label == wp.uint8(wp.static(ROBOT)):
            return
    wp.atomic_add(hits, 0, 1)


@wp.kernel(enable_backward=False)
def _nearest_per_sector(
    ranges: wp.array2d(dtype=wp.float32),
    labels: wp.array2d(dtype=wp.uint8),
    directions: wp.array2d(dtype=wp.vec3f),
    transform: wp.array(dtype=wp.transformf),
    lowest: wp.float32,
    highest: wp.float32,
    sectors: wp.array(dtype=wp.float32),
):
    row, column = wp.tid()
    label = labels[row, column]
    if (
        label == wp.uint8(wp.static(FLOOR))
        or label == wp.uint8(wp.static(ROBOT))
        or label == wp.uint8(wp.static(BACKGROUND))
    ):
        return
    range = ranges[row, column]
    if range <= 0.0:
        return
    pose = transform[0]
    point = wp.transform_vector(pose, directions[row, column] * range)
    height = point[2] + wp.transform_get_translation(pose)[2]
    if height < lowest or height > highest:
        return
    # Sectors turn with the sensor's yaw, but lie flat in the world however the sensor is tilted.
    ahead = wp.transform_vector(pose, wp.vec3f(1.0, 0.0, 0.0))
    angle = wp.atan2(point[1], point[0]) - wp.atan2(ahead[1], ahead[0])
    count = wp.float32(wp.static(SECTOR_COUNT))
    turn = angle / wp.float32(wp.static(2.0 * math.pi))
    sector = wp.int32(wp.floor((turn - wp.floor(turn)) * count + 0.5)) % wp.static(SECTOR_COUNT)
    wp.atomic_min(sectors, sector, wp.sqrt(point[0] * point[0] + point[1] * point[1]))
