"""Spinning LiDARs: ranges, intensity, points and labels of all channels at all azimuths in one instant."""

# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import warp as wp

from saccade.config import LidarConfig
from saccade.frame import BACKGROUND, OBSTACLE
from saccade.sensors.noise import has_range_noise, noise_key, record_range_noise
from saccade.sensors.rays import NO_SHAPE, Mount, RayBundle, nearest_with_normal, rows

if TYPE_CHECKING:
    import newton

    from saccade.scenes.lights import Lighting

__all__ = ["LidarIntrinsics", "LidarSensor", "RayBundle", "lidar_directions"]


@dataclass(frozen=True, slots=True)
class LidarIntrinsics:
    """Where the rays of a LiDAR point, in its frame (x forward, y left, z up)."""

    channels: int
    columns: int
    elevation: tuple[float, ...]
    """By channel [rad], highest first."""
    range_min: float
    range_max: float
    """[m]"""

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for the record."""
        return {**asdict(self), "elevation": list(self.elevation)}


class LidarSensor:
    """A LiDAR on a body of a Newton model.

    Channel 0 is the highest; column 0 looks straight ahead, column ``c`` at azimuth ``2 pi c / columns``,
    counter-clockwise. A return outside the range limits, and with ``own_body_mask`` one from the humanoid itself, is
    none: range, intensity and point 0, label background. A ray that starts inside a primitive shape hits that shape
    from within, so the mount belongs outside all of them.

    Intensity is the luminance of the surface's linear albedo times the cosine of incidence, 0..1: what a receiver
    that corrects for distance reports of a matt surface. Sun and shadows play no part.

    Args:
        name: Name in the configuration.
        config: Channels, columns, limits, noise and outputs.
        model: Finalized model; the simulator refits its BVH before :meth:`sense`.
        body: Body that carries the LiDAR; -1 = the world.
        offset: Sensor frame in the body's frame, or in the world.
        class_of_shape: Index of :data:`saccade.frame.CLASSES` by shape, shape ``(shape_count,)``, uint8.
        own_shapes: 1 for the humanoid's shapes, shape ``(shape_count,)``, uint8.
        lighting: Light of the scene; a LiDAR brings its own and does not use it.
        seed: Seed of the noise.
        bands: See :class:`RayBundle`.
    """

    kind = "lidar"

    def __init__(
        self,
        name: str,
        config: LidarConfig,
        model: newton.Model,
        *,
        body: int,
        offset: wp.transform,
        class_of_shape: wp.array,
        own_shapes: wp.array,
        lighting: Lighting | None = None,
        seed: int,
        bands: int | None = None,
    ):
        self.name = name
        self.config = config
        device = model.device
        shape = (config.channels, config.columns)
        elevation, directions = lidar_directions(config)
        self.intrinsics = LidarIntrinsics(*shape, tuple(elevation.tolist()), config.range_min, config.range_max)
        rays = np.zeros((*shape, 1, 2, 3), dtype=np.float32)
        rays[:, :, 0, 1] = directions
        self._bundle = RayBundle(model, wp.array(rays, dtype=wp.vec3f, device=device), bands=bands)
        self._mount = Mount(device, body=body, offset=offset)
        self._sequence = wp.zeros(1, dtype=wp.int32, device=device)
        self._noisy = has_range_noise(config.noise)
        self.transform = self._mount.transform
        """Pose of the sensor frame in the world at the last :meth:`sense`, shape ``(1,)``, transformf."""
        self.clean_ranges = wp.zeros(shape, dtype=wp.float32, device=device)
        """Ranges without noise [m], shape ``(channels, columns)``, float32, 0 = no return."""
        self.labels = wp.full(shape, BACKGROUND, dtype=wp.uint8, device=device)
        """True class index per return, same shape, uint8; also when it is no configured output."""
        self.clean_labels = wp.full(shape, BACKGROUND, dtype=wp.uint8, device=device) if self._noisy else self.labels
        """True class index without dropout, same shape, uint8: what the ground truth is made from."""
        ranges = wp.zeros(shape, dtype=wp.float32, device=device) if self._noisy else self.clean_ranges
        intensity = wp.zeros(shape, dtype=wp.float32, device=device)
        points = wp.zeros(shape, dtype=wp.vec3f, device=device)
        every = {"ranges": ranges, "intensity": intensity, "points": points, "labels": self.labels}
        self.buffers: dict[str, wp.array] = {output: every[output] for output in config.outputs}
        """The configured outputs as documented at :class:`saccade.frame.Frame`."""

        launches = []
        for first, last in self._bundle.bands:
            band_rays = rows(self._bundle.rays, first, last)
            clean, measured, strength, cloud, classes, clean_classes = (
                rows(array, first, last)
                for array in (self.clean_ranges, ranges, intensity, points, self.labels, self.clean_labels)
            )
            receive = wp.launch(
                _receive,
                dim=(last - first, config.columns),
                inputs=[
                    band_rays,
                    self._mount.transform,
                    rows(self._bundle.depth, first, last),
                    rows(self._bundle.shape_index, first, last),
                    rows(self._bundle.normal, first, last),
                    rows(self._bundle.albedo, first, last),
                    class_of_shape,
                    own_shapes,
                    int(config.own_body_mask),
                    config.range_min,
                    config.range_max,
                ],
                outputs=[clean, strength, cloud, classes, clean_classes],
                device=device,
                record_cmd=True,
            )
            launches.append([receive])
            if self._noisy:
                launches[-1].append(
                    record_range_noise(
                        measured,
                        strength,
                        cloud,
                        classes,
                        band_rays,
                        config.noise,
                        limits=(config.range_min, config.range_max),
                        key=noise_key(seed, name),
                        sequence=self._sequence,
                        clean_ranges=clean,
                        first_ray=first * config.columns,
                    )
                )
        self._bundle.finish_with(launches)

    def sense(self, state: newton.State, sequence: int) -> None:
        """Launches one sample; allocates nothing and waits for nothing on the device.

        Args:
            state: State to which the model's BVH was refitted.
            sequence: The sample's number, on which its noise depends.
        """
        self.number(sequence)
        self.cast(state)

    def number(self, sequence: int) -> None:
        """Launches the setting of the number of the sample that is cast next; not part of a captured graph."""
        if self._noisy:
            self._sequence.fill_(sequence)

    def cast(self, state: newton.State) -> None:
        """Launches one sample with the number that was set; may be captured."""
        self._mount.update(state)
        self._bundle.cast(state, self._mount.transform)


def lidar_directions(config: LidarConfig) -> tuple[np.ndarray, np.ndarray]:
    """Returns a LiDAR's elevations [rad], shape ``(channels,)``, and unit directions, ``(channels, columns, 3)``."""
    lowest, highest = np.radians(config.vertical_fov)
    if config.channels == 1:
        elevation = np.array([0.5 * (lowest + highest)])
    else:
        elevation = np.linspace(highest, lowest, config.channels)
    azimuth = 2.0 * np.pi * np.arange(config.columns) / config.columns
    directions = np.empty((config.channels, config.columns, 3))
    directions[..., 0] = np.cos(elevation)[:, None] * np.cos(azimuth)
    directions[..., 1] = np.cos(elevation)[:, None] * np.sin(azimuth)
    directions[..., 2] = np.sin(elevation)[:, None]
    return elevation, directions


@wp.kernel(enable_backward=False)
def _receive(
    rays: wp.array4d(dtype=wp.vec3f),
    transform: wp.array(dtype=wp.transformf),
    distance: wp.array2d(dtype=wp.float32),
    shape_index: wp.array2d(dtype=wp.uint32),
    normal: wp.array2d(dtype=wp.vec3f),
    albedo: wp.array2d(dtype=wp.vec3f),
    class_of_shape: wp.array(dtype=wp.uint8),
    own_shapes: wp.array(dtype=wp.uint8),
    mask_own: wp.int32,
    range_min: wp.float32,
    range_max: wp.float32,
    ranges: wp.array2d(dtype=wp.float32),
    intensity: wp.array2d(dtype=wp.float32),
    points: wp.array2d(dtype=wp.vec3f),
    labels: wp.array2d(dtype=wp.uint8),
    clean_labels: wp.array2d(dtype=wp.uint8),
):
    row, column = wp.tid()
    shape = shape_index[row, column]
    range = distance[row, column]
    label = wp.uint8(wp.static(OBSTACLE))  # what is no rigid shape: cloth and other deformables
    hit = shape != NO_SHAPE and range >= range_min and range <= range_max
    if hit and shape < wp.uint32(class_of_shape.shape[0]):
        label = class_of_shape[wp.int32(shape)]
        if mask_own != 0 and own_shapes[wp.int32(shape)] != wp.uint8(0):
            hit = False
    if not hit:
        ranges[row, column] = 0.0
        intensity[row, column] = 0.0
        points[row, column] = wp.vec3f(0.0, 0.0, 0.0)
        labels[row, column] = wp.uint8(wp.static(BACKGROUND))
        clean_labels[row, column] = wp.uint8(wp.static(BACKGROUND))
        return
    direction = rays[row, column, 0, 1]
    whole = nearest_with_normal(normal, shape_index, row, column)
    cosine = wp.abs(wp.dot(wp.transform_vector(transform[0], direction), normal[row, whole]))
    luminance = wp.dot(albedo[row, column], wp.vec3f(0.2126, 0.7152, 0.0722))
    ranges[row, column] = range
    intensity[row, column] = wp.clamp(cosine * luminance, 0.0, 1.0)
    points[row, column] = range * direction
    labels[row, column] = label
    clean_labels[row, column] = label
