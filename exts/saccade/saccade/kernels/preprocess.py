"""Sensor buffers to network inputs: packed RGBA to a normalised NCHW tensor, ranges to a range image."""

from __future__ import annotations

from typing import Any

import warp as wp

STRETCH = "stretch"
LETTERBOX = "letterbox"


@wp.struct
class ImageTransform:
    """Maps a pixel of the network's input to the camera's image and its colour to the network's scale."""

    step_x: wp.float32
    step_y: wp.float32
    origin_x: wp.float32
    origin_y: wp.float32
    left: wp.int32
    top: wp.int32
    right: wp.int32
    bottom: wp.int32
    gain: wp.vec3f
    bias: wp.vec3f
    fill: wp.float32
    reverse: wp.int32


@wp.func
def _unpack(packed: wp.uint32):
    return wp.vec3f(
        wp.float32(packed & wp.uint32(255)),
        wp.float32((packed >> wp.uint32(8)) & wp.uint32(255)),
        wp.float32((packed >> wp.uint32(16)) & wp.uint32(255)),
    )


@wp.func
def _store(color: wp.vec3f, transform: ImageTransform, batch: int, y: int, x: int, output: wp.array4d(dtype=Any)):
    c = color
    if transform.reverse != 0:
        c = wp.vec3f(color[2], color[1], color[0])
    c = wp.cw_mul(c, transform.gain) + transform.bias
    output[batch, 0, y, x] = output.dtype(c[0])
    output[batch, 1, y, x] = output.dtype(c[1])
    output[batch, 2, y, x] = output.dtype(c[2])


@wp.kernel(enable_backward=False)
def _resample(
    image: wp.array2d(dtype=wp.uint32), transform: ImageTransform, batch: int, output: wp.array4d(dtype=wp.float32)
):
    y, x = wp.tid()
    if x < transform.left or x >= transform.right or y < transform.top or y >= transform.bottom:
        value = transform.fill * 255.0
        _store(wp.vec3f(value, value, value), transform, batch, y, x, output)
        return
    height = image.shape[0]
    width = image.shape[1]
    source_x = wp.clamp(wp.float32(x) * transform.step_x + transform.origin_x, 0.0, wp.float32(width - 1))
    source_y = wp.clamp(wp.float32(y) * transform.step_y + transform.origin_y, 0.0, wp.float32(height - 1))
    x0 = int(source_x)
    y0 = int(source_y)
    x1 = wp.min(x0 + 1, width - 1)
    y1 = wp.min(y0 + 1, height - 1)
    along_x = source_x - wp.float32(x0)
    along_y = source_y - wp.float32(y0)
    upper = _unpack(image[y0, x0]) * (1.0 - along_x) + _unpack(image[y0, x1]) * along_x
    lower = _unpack(image[y1, x0]) * (1.0 - along_x) + _unpack(image[y1, x1]) * along_x
    _store(upper * (1.0 - along_y) + lower * along_y, transform, batch, y, x, output)


@wp.kernel(enable_backward=False)
def _convert(
    image: wp.array2d(dtype=wp.uint32), transform: ImageTransform, batch: int, output: wp.array4d(dtype=wp.float32)
):
    y, x = wp.tid()
    _store(_unpack(image[y, x]), transform, batch, y, x, output)


@wp.kernel(enable_backward=False)
def _range_image(
    ranges: wp.array2d(dtype=wp.float32),
    intensity: wp.array2d(dtype=wp.float32),
    scale: float,
    output: wp.array4d(dtype=wp.float32),
):
    channel, column = wp.tid()
    output[0, 0, channel, column] = ranges[channel, column] * scale
    output[0, 1, channel, column] = intensity[channel, column]


def image_transform(
    source: tuple[int, int],
    target: tuple[int, int],
    *,
    resize: str = STRETCH,
    channel_order: str = "rgb",
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    std: tuple[float, float, float] = (1.0, 1.0, 1.0),
    fill: float = 0.0,
) -> ImageTransform:
    """Returns the geometry and colour scale of one camera's preprocessing.

    Pixel centres lie at half integers, as in OpenCV's and PyTorch's bilinear resize without antialiasing.

    Args:
        source: Camera image width and height [px].
        target: Network input width and height [px].
        resize: ``"stretch"`` fills the input; ``"letterbox"`` keeps the aspect and centres it.
        channel_order: ``"rgb"`` or ``"bgr"``, the order of the network's channels.
        mean: Subtracted from channels scaled to 0..1, in the network's order.
        std: Divides what remains.
        fill: Border value of a letterbox before mean and std, 0..1.
    """
    width, height = target
    left, top, inner_width, inner_height = 0, 0, width, height
    if resize == LETTERBOX:
        scale = min(width / source[0], height / source[1])
        inner_width, inner_height = max(1, round(source[0] * scale)), max(1, round(source[1] * scale))
        left, top = (width - inner_width) // 2, (height - inner_height) // 2
    transform = ImageTransform()
    transform.step_x = source[0] / inner_width
    transform.step_y = source[1] / inner_height
    transform.origin_x = (0.5 - left) * transform.step_x - 0.5
    transform.origin_y = (0.5 - top) * transform.step_y - 0.5
    transform.left, transform.top = left, top
    transform.right, transform.bottom = left + inner_width, top + inner_height
    transform.gain = wp.vec3f(*(1.0 / (255.0 * s) for s in std))
    transform.bias = wp.vec3f(*(-m / s for m, s in zip(mean, std, strict=True)))
    transform.fill = fill
    transform.reverse = int(channel_order == "bgr")
    return transform


def record_image(image: wp.array, transform: ImageTransform, output: wp.array, *, batch: int = 0) -> wp.Launch:
    """Returns a recorded launch that turns a camera image into one image of a network's input batch.

    Args:
        image: Packed RGBA, shape ``(height, width)``, uint32.
        transform: From :func:`image_transform`.
        output: Network input, shape ``(batch, 3, height, width)``, float32.
        batch: Which image of the batch is written.
    """
    whole = (transform.left, transform.top, transform.right, transform.bottom) == (
        0,
        0,
        output.shape[3],
        output.shape[2],
    )
    # A camera that already has the network's size needs no interpolation: a quarter of the reads.
    same = whole and image.shape == (output.shape[2], output.shape[3])
    return wp.launch(
        _convert if same else _resample,
        dim=(output.shape[2], output.shape[3]),
        inputs=[image, transform, batch],
        outputs=[output],
        device=image.device,
        record_cmd=True,
    )


def record_range_image(ranges: wp.array, intensity: wp.array, scale: float, output: wp.array) -> wp.Launch:
    """Returns a recorded launch that turns LiDAR buffers into a network input.

    Args:
        ranges: [m], shape ``(channels, columns)``, float32, 0 = no return.
        intensity: 0..1, same shape, float32.
        scale: Multiplies the ranges [1/m].
        output: Shape ``(1, 2, channels, columns)``, float32: range, intensity.
    """
    return wp.launch(
        _range_image,
        dim=ranges.shape,
        inputs=[ranges, intensity, scale],
        outputs=[output],
        device=ranges.device,
        record_cmd=True,
    )
