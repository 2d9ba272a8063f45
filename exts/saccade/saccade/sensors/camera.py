"""Pinhole cameras: colour, planar depth, labels and normals from one cast of rays."""

# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import warp as wp

from saccade.config import CameraConfig
from saccade.errors import ConfigurationError, SceneError
from saccade.frame import BACKGROUND, OBSTACLE
from saccade.sensors.noise import has_image_noise, noise_key, record_image_noise
from saccade.sensors.rays import NO_SHAPE, Mount, RayBundle, nearest_with_normal, rows

if TYPE_CHECKING:
    import newton
    from pxr import UsdGeom

    from saccade.scenes.lights import Lighting

SRGB_STEPS = 8192
"""Entries of the table that encodes linear light 0..1 to 8-bit sRGB: half a count of error in the darkest tones."""


@dataclass(frozen=True, slots=True)
class CameraIntrinsics:
    """A pinhole projection: ``u = fx * x / z + cx``, ``v = fy * y / z + cy`` with x right, y down, z forward.

    The centre of the top left pixel is at (0.5, 0.5).
    """

    fx: float
    fy: float
    cx: float
    cy: float
    """[px]"""
    width: int
    height: int

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for the record."""
        return asdict(self)


class CameraSensor:
    """A camera on a body of a Newton model.

    Depth is planar (along the optical axis); beyond ``max_distance`` along the ray there is background, as where
    nothing is hit: sky colour, depth and normal 0. Exposure multiplies linear light before it is encoded as sRGB.
    The prim's clipping range is not used.

    Args:
        name: Name in the configuration.
        config: Resolution, intrinsics, noise and outputs.
        model: Finalized model; the simulator refits its BVH before :meth:`sense`.
        usd_camera: Prim with the intrinsics; ``None`` where the configuration gives them.
        body: Body that carries the camera; -1 = the world.
        offset: Camera frame (-z forward, +y up) in the body's frame, or in the world.
        class_of_shape: Index of :data:`saccade.frame.CLASSES` by shape, shape ``(shape_count,)``, uint8.
        lighting: Light of the scene.
        seed: Seed of the noise.
        bands: See :class:`RayBundle`.

    Raises:
        ConfigurationError: Neither the configuration nor a prim gives intrinsics.
        SceneError: The prim's intrinsics cannot be used.
    """

    kind = "camera"

    def __init__(
        self,
        name: str,
        config: CameraConfig,
        model: newton.Model,
        *,
        usd_camera: UsdGeom.Camera | None,
        body: int,
        offset: wp.transform,
        class_of_shape: wp.array,
        lighting: Lighting,
        seed: int,
        bands: int | None = None,
    ):
        self.name = name
        self.config = config
        self.intrinsics = camera_intrinsics(name, config, usd_camera)
        device = model.device
        shape = (config.height, config.width)
        self._bundle = RayBundle(model, pinhole_rays(self.intrinsics, device), lighting=lighting, bands=bands)
        self._mount = Mount(device, body=body, offset=offset)
        self._sequence = wp.zeros(1, dtype=wp.int32, device=device)
        self.labels = wp.full(shape, BACKGROUND, dtype=wp.uint8, device=device)
        """True class index per pixel, shape ``(height, width)``, uint8; also when it is no configured output."""
        self.transform = self._mount.transform
        """Pose of the camera frame in the world at the last :meth:`sense`, shape ``(1,)``, transformf."""
        color = wp.zeros(shape, dtype=wp.uint32, device=device)
        depth = wp.zeros(shape, dtype=wp.float32, device=device)
        normals = wp.zeros(shape, dtype=wp.vec3f, device=device)
        every = {"color": color, "depth": depth, "labels": self.labels, "normals": normals}
        self.buffers: dict[str, wp.array] = {output: every[output] for output in config.outputs}
        """The configured outputs as documented at :class:`saccade.frame.Frame`."""

        table = _srgb_table()
        srgb = wp.array(table, dtype=wp.uint8, device=device)
        exposure = config.noise.exposure
        sky = _packed_color(lighting.sky_color, exposure, table)
        key = noise_key(seed, name)
        launches = []
        for first, last in self._bundle.bands:
            develop = wp.launch(
                _develop,
                dim=(last - first, config.width),
                inputs=[
                    rows(self._bundle.rays, first, last),
                    rows(self._bundle.depth, first, last),
                    rows(self._bundle.shape_index, first, last),
                    rows(self._bundle.normal, first, last),
                    rows(self._bundle.color, first, last),
                    class_of_shape,
                    srgb,
                    exposure,
                    sky,
                    config.max_distance,
                ],
                outputs=[
                    rows(color, first, last),
                    rows(depth, first, last),
                    rows(self.labels, first, last),
                    rows(normals, first, last),
                ],
                device=device,
                record_cmd=True,
            )
            launches.append([develop])
            if has_image_noise(config.noise):
                launches[-1].append(
                    record_image_noise(
                        rows(color, first, last),
                        config.noise,
                        key=key,
                        sequence=self._sequence,
                        first_pixel=first * config.width,
                    )
                )
        self._bundle.finish_with(launches)
        self._noisy = has_image_noise(config.noise)

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


def camera_intrinsics(name: str, config: CameraConfig, usd_camera: UsdGeom.Camera | None) -> CameraIntrinsics:
    """Returns a camera's intrinsics: ``focal`` before ``horizontal_fov`` before the prim, always square pixels there.

    The prim's vertical aperture is not used: the pixels are square, and the image's aspect is the configuration's.

    Args:
        name: Sensor name, for messages.
        config: The camera's configuration.
        usd_camera: The prim, or ``None``.

    Raises:
        ConfigurationError: Nothing gives a focal length.
        SceneError: The prim is no perspective camera or has no usable focal length or aperture.
    """
    width, height = config.width, config.height
    aperture = 0.0
    shift_x = shift_y = 0.0
    focal = (0.0, 0.0)
    if usd_camera is not None:
        aperture, focal_length, shift = _usd_lens(name, usd_camera)
        shift_x, shift_y = shift[0] / aperture * width, shift[1] / aperture * width
        focal = (focal_length / aperture * width,) * 2
    if config.horizontal_fov is not None:
        focal = (0.5 * width / float(np.tan(np.radians(config.horizontal_fov) / 2)),) * 2
    if config.focal is not None:
        focal = config.focal
        if min(focal) <= 0:
            raise ConfigurationError(f"sensors.{name}.focal: focal lengths lie above 0 px, got {list(focal)}")
    if min(focal) <= 0:
        raise ConfigurationError(
            f"sensors.{name}: no intrinsics: without a camera prim give horizontal_fov [degrees] or focal [px]"
        )
    cx, cy = config.principal or (0.5 * width - shift_x, 0.5 * height + shift_y)
    return CameraIntrinsics(float(focal[0]), float(focal[1]), float(cx), float(cy), width, height)


def pinhole_rays(intrinsics: CameraIntrinsics, device: Any) -> wp.array:
    """Returns the rays through all pixel centres in the camera frame, shape ``(height, width, 1, 2)``, vec3f."""
    x = (np.arange(intrinsics.width) + 0.5 - intrinsics.cx) / intrinsics.fx
    y = (np.arange(intrinsics.height) + 0.5 - intrinsics.cy) / intrinsics.fy
    rays = np.zeros((intrinsics.height, intrinsics.width, 1, 2, 3))
    rays[:, :, 0, 1, 0] = x[None, :]
    rays[:, :, 0, 1, 1] = -y[:, None]
    rays[:, :, 0, 1, 2] = -1.0
    rays[:, :, 0, 1] /= np.linalg.norm(rays[:, :, 0, 1], axis=-1, keepdims=True)
    return wp.array(rays.astype(np.float32), dtype=wp.vec3f, device=device)


def _usd_lens(name: str, usd_camera: UsdGeom.Camera) -> tuple[float, float, tuple[float, float]]:
    """Returns horizontal aperture, focal length and aperture offsets of a camera prim, in its own unit."""
    path = usd_camera.GetPrim().GetPath()
    projection = str(usd_camera.GetProjectionAttr().Get())
    if projection != "perspective":
        raise SceneError(f"sensors.{name}: camera {path} has projection {projection!r}: only 'perspective' is rendered")
    aperture = float(usd_camera.GetHorizontalApertureAttr().Get())
    focal_length = float(usd_camera.GetFocalLengthAttr().Get())
    if not (np.isfinite([aperture, focal_length]).all() and aperture > 0 and focal_length > 0):
        raise SceneError(
            f"sensors.{name}: camera {path} needs horizontalAperture and focalLength above 0, "
            f"has {aperture:g} and {focal_length:g}"
        )
    offsets = (
        float(usd_camera.GetHorizontalApertureOffsetAttr().Get()),
        float(usd_camera.GetVerticalApertureOffsetAttr().Get()),
    )
    return aperture, focal_length, offsets


def _srgb_table() -> np.ndarray:
    linear = np.arange(SRGB_STEPS) / (SRGB_STEPS - 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(encoded * 255).astype(np.uint8)


def _packed_color(color: tuple[float, float, float], exposure: float, table: np.ndarray) -> int:
    """Returns a linear colour as the kernel would pack it."""
    packed = 0xFF000000
    for index, component in enumerate(color):
        step = int(min(max(component * exposure, 0.0), 1.0) * (SRGB_STEPS - 1) + 0.5)
        packed |= int(table[step]) << (8 * index)
    return packed


@wp.func
def _encoded(component: wp.float32, srgb: wp.array(dtype=wp.uint8)):
    step = wp.int32(wp.clamp(component, 0.0, 1.0) * wp.float32(wp.static(SRGB_STEPS - 1)) + 0.5)
    return wp.uint32(srgb[step])


@wp.kernel(enable_backward=False)
def _develop(
    rays: wp.array4d(dtype=wp.vec3f),
    distance: wp.array2d(dtype=wp.float32),
    shape_index: wp.array2d(dtype=wp.uint32),
    normal: wp.array2d(dtype=wp.vec3f),
    light: wp.array2d(dtype=wp.vec3f),
    class_of_shape: wp.array(dtype=wp.uint8),
    srgb: wp.array(dtype=wp.uint8),
    exposure: wp.float32,
    sky: wp.uint32,
    max_distance: wp.float32,
    color: wp.array2d(dtype=wp.uint32),
    depth: wp.array2d(dtype=wp.float32),
    labels: wp.array2d(dtype=wp.uint8),
    normals: wp.array2d(dtype=wp.vec3f),
):
    row, column = wp.tid()
    shape = shape_index[row, column]
    if shape == NO_SHAPE or distance[row, column] > max_distance:
        color[row, column] = sky
        depth[row, column] = 0.0
        labels[row, column] = wp.uint8(wp.static(BACKGROUND))
        normals[row, column] = wp.vec3f(0.0, 0.0, 0.0)
        return
    depth[row, column] = -distance[row, column] * rays[row, column, 0, 1][2]
    if shape < wp.uint32(class_of_shape.shape[0]):
        labels[row, column] = class_of_shape[wp.int32(shape)]
    else:  # what is no rigid shape: cloth and other deformables
        labels[row, column] = wp.uint8(wp.static(OBSTACLE))
    whole = nearest_with_normal(normal, shape_index, row, column)
    normals[row, column] = normal[row, whole]
    value = light[row, whole] * exposure
    packed = (wp.uint32(255) << wp.uint32(24)) | _encoded(value[0], srgb)
    packed = packed | (_encoded(value[1], srgb) << wp.uint32(8)) | (_encoded(value[2], srgb) << wp.uint32(16))
    color[row, column] = packed
