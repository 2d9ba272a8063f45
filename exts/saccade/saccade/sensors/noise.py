"""Sensor noise that repeats: every random number follows from the seed, the sensor, the sample and the pixel."""

# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

import zlib

import warp as wp

from saccade.config import CameraNoise, LidarNoise
from saccade.frame import BACKGROUND


def noise_key(seed: int, sensor: str) -> int:
    """Returns the 31-bit key of one sensor's noise; another seed or name gives unrelated noise."""
    return zlib.crc32(f"{seed}/{sensor}".encode()) & 0x7FFFFFFF


def has_image_noise(noise: CameraNoise) -> bool:
    """Returns whether :func:`record_image_noise` has anything to do; exposure is the camera's own matter."""
    return noise.shot > 0 or noise.read > 0


def has_range_noise(noise: LidarNoise) -> bool:
    """Returns whether :func:`record_range_noise` has anything to do."""
    return noise.range_std > 0 or noise.dropout > 0


def record_image_noise(
    image: wp.array, noise: CameraNoise, *, key: int, sequence: wp.array, first_pixel: int = 0
) -> wp.Launch:
    """Records the launch that adds shot and read noise to an image in place.

    A channel of value ``v`` (0..255) gets normal noise of variance ``shot^2 * v / 255 + read^2``, is rounded and
    clipped to 0..255. The alpha channel stays.

    Args:
        image: Packed RGBA, shape ``(height, width)``, uint32.
        noise: Standard deviations in 8-bit counts.
        key: From :func:`noise_key`.
        sequence: Sample number, shape ``(1,)``, int32, read when the launch runs.
        first_pixel: Index of the first pixel, for a band of a larger image.

    Returns:
        The launch; ``launch()`` runs it.
    """
    return wp.launch(
        _image_noise,
        dim=image.shape,
        inputs=[image, noise.shot**2 / 255.0, noise.read**2, key, sequence, first_pixel],
        device=image.device,
        record_cmd=True,
    )


def record_range_noise(
    ranges: wp.array,
    intensity: wp.array,
    points: wp.array,
    labels: wp.array,
    rays: wp.array,
    noise: LidarNoise,
    *,
    limits: tuple[float, float],
    key: int,
    sequence: wp.array,
    clean_ranges: wp.array,
    first_ray: int = 0,
) -> wp.Launch:
    """Records the launch that turns clean ranges into measured ones.

    A lost return is one that was never there: range, intensity and point 0, label background. So is a return that the
    noise pushes out of the range limits.

    Args:
        ranges: Measured ranges [m], shape ``(channels, columns)``, float32; written.
        intensity: Same shape, float32; set to 0 where the return is lost.
        points: In the sensor frame [m], same shape, vec3f; written.
        labels: Class index, same shape, uint8; background where the return is lost.
        rays: Origins and unit directions in the sensor frame, shape ``(channels, columns, 1, 2)``, vec3f.
        noise: Standard deviation [m] and dropout share.
        limits: Smallest and largest range [m].
        key: From :func:`noise_key`.
        sequence: Sample number, shape ``(1,)``, int32, read when the launch runs.
        clean_ranges: True ranges [m], shape ``(channels, columns)``, float32, 0 = no return.
        first_ray: Index of the first ray, for a band of a larger scan.

    Returns:
        The launch; ``launch()`` runs it.
    """
    return wp.launch(
        _range_noise,
        dim=ranges.shape,
        inputs=[clean_ranges, rays, noise.range_std, noise.dropout, limits[0], limits[1], key, sequence, first_ray],
        outputs=[ranges, intensity, points, labels],
        device=ranges.device,
        record_cmd=True,
    )


@wp.func
def _random_state(key: wp.int32, sequence: wp.int32, index: wp.int32):
    return wp.rand_init(wp.int32(wp.rand_init(key, sequence)), index)


@wp.func
def _noisy_channel(value: wp.uint32, variance: wp.float32, normal: wp.float32):
    noisy = wp.float32(value) + wp.sqrt(variance) * normal
    return wp.uint32(wp.clamp(noisy + 0.5, 0.0, 255.0))


@wp.kernel(enable_backward=False)
def _image_noise(
    image: wp.array2d(dtype=wp.uint32),
    shot_variance: wp.float32,
    read_variance: wp.float32,
    key: wp.int32,
    sequence: wp.array(dtype=wp.int32),
    first_pixel: wp.int32,
):
    row, column = wp.tid()
    state = _random_state(key, sequence[0], first_pixel + row * image.shape[1] + column)
    byte = wp.uint32(255)
    pixel = image[row, column]
    red = pixel & byte
    green = (pixel >> wp.uint32(8)) & byte
    blue = (pixel >> wp.uint32(16)) & byte
    red = _noisy_channel(red, shot_variance * wp.float32(red) + read_variance, wp.randn(state))
    green = _noisy_channel(green, shot_variance * wp.float32(green) + read_variance, wp.randn(state))
    blue = _noisy_channel(blue, shot_variance * wp.float32(blue) + read_variance, wp.randn(state))
    alpha = pixel & (byte << wp.uint32(24))
    image[row, column] = alpha | (blue << wp.uint32(16)) | (green << wp.uint32(8)) | red


@wp.kernel(enable_backward=False)
def _range_noise(
    clean_ranges: wp.array2d(dtype=wp.float32),
    rays: wp.array4d(dtype=wp.vec3f),
    range_std: wp.float32,
    dropout: wp.float32,
    range_min: wp.float32,
    range_max: wp.float32,
    key: wp.int32,
    sequence: wp.array(dtype=wp.int32),
    first_ray: wp.int32,
    ranges: wp.array2d(dtype=wp.float32),
    intensity: wp.array2d(dtype=wp.float32),
    points: wp.array2d(dtype=wp.vec3f),
    labels: wp.array2d(dtype=wp.uint8),
):
    row, column = wp.tid()
    clean = clean_ranges[row, column]
    if clean == 0.0:
        ranges[row, column] = 0.0
        return
    state = _random_state(key, sequence[0], first_ray + row * ranges.shape[1] + column)
    lost = wp.randf(state) < dropout
    noisy = clean
    if range_std > 0.0:
        noisy = clean + range_std * wp.randn(state)
    if lost or noisy < range_min or noisy > range_max:
        ranges[row, column] = 0.0
        intensity[row, column] = 0.0
        points[row, column] = wp.vec3f(0.0, 0.0, 0.0)
        labels[row, column] = wp.uint8(wp.static(BACKGROUND))
        return
    ranges[row, column] = noisy
    points[row, column] = noisy * rays[row, column, 0, 1]
