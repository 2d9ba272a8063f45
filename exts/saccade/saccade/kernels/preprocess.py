"""Camera images to network inputs: packed or interleaved bytes to a normalised NCHW batch in one launch."""

# mypy: disable-error-code="valid-type,no-untyped-def,no-redef"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import warp as wp

from saccade.kernels.launch import recorded
from saccade.kernels.stamps import Marks, mark_first, mark_last, unmarked

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


@wp.struct
class PackedImage:
    """One image of a batch, packed RGBA."""

    pixels: wp.array2d(dtype=wp.uint32)


@wp.struct
class InterleavedImage:
    """One image of a batch, channels last."""

    pixels: wp.array3d(dtype=wp.uint8)


@wp.func
def _pixel(image: PackedImage, y: int, x: int):
    packed = image.pixels[y, x]
    return wp.vec3f(
        wp.float32(packed & wp.uint32(255)),
        wp.float32((packed >> wp.uint32(8)) & wp.uint32(255)),
        wp.float32((packed >> wp.uint32(16)) & wp.uint32(255)),
    )


@wp.func
def _pixel(image: InterleavedImage, y: int, x: int):
    last = wp.min(image.pixels.shape[2], 3) - 1  # one channel is grey
    return wp.vec3f(
        wp.float32(image.pixels[y, x, 0]),
        wp.float32(image.pixels[y, x, wp.min(1, last)]),
        wp.float32(image.pixels[y, x, last]),
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


@wp.func
def _sample(image: Any, transform: ImageTransform, y: int, x: int):
    """Returns the colour at a pixel of the input, between four of the image."""
    height = image.pixels.shape[0]
    width = image.pixels.shape[1]
    source_x = wp.clamp(wp.float32(x) * transform.step_x + transform.origin_x, 0.0, wp.float32(width - 1))
    source_y = wp.clamp(wp.float32(y) * transform.step_y + transform.origin_y, 0.0, wp.float32(height - 1))
    x0 = int(source_x)
    y0 = int(source_y)
    x1 = wp.min(x0 + 1, width - 1)
    y1 = wp.min(y0 + 1, height - 1)
    along_x = source_x - wp.float32(x0)
    along_y = source_y - wp.float32(y0)
    upper = _pixel(image, y0, x0) * (1.0 - along_x) + _pixel(image, y0, x1) * along_x
    lower = _pixel(image, y1, x0) * (1.0 - along_x) + _pixel(image, y1, x1) * along_x
    return upper * (1.0 - along_y) + lower * along_y


@wp.kernel(enable_backward=False)
def _resample(images: wp.array(dtype=Any), transform: ImageTransform, marks: Marks, output: wp.array4d(dtype=Any)):
    batch, y, x = wp.tid()
    mark_first(marks, batch + y + x)
    if x < transform.left or x >= transform.right or y < transform.top or y >= transform.bottom:
        value = transform.fill * 255.0
        _store(wp.vec3f(value, value, value), transform, batch, y, x, output)
    else:
        _store(_sample(images[batch], transform, y, x), transform, batch, y, x, output)
    mark_last(marks)


@wp.kernel(enable_backward=False)
def _convert(images: wp.array(dtype=Any), transform: ImageTransform, marks: Marks, output: wp.array4d(dtype=Any)):
    batch, y, x = wp.tid()
    mark_first(marks, batch + y + x)
    image = images[batch]
    _store(_pixel(image, y, x), transform, batch, y, x, output)
    mark_last(marks)


# All at once: an overload that came later would compile the whole module again.
for _kernel in (_resample, _convert):
    for _image in (PackedImage, InterleavedImage):
        for _dtype in (wp.float32, wp.float16):
            wp.overload(_kernel, {"images": wp.array(dtype=_image), "output": wp.array4d(dtype=_dtype)})


def image_transform(
    source: tuple[int, int],
    target: tuple[int, int],
    *,
    resize: str = STRETCH,
    channel_order: str = "rgb",
    source_order: str = "rgb",
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
        source_order: ``"rgb"`` or ``"bgr"``, the order of the image's channels.
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
    transform.reverse = int(channel_order != source_order)
    return transform


def record_images(images: Sequence[wp.array], transform: ImageTransform, output: wp.array) -> wp.Launch:
    """Returns a recorded launch that turns one image of each camera into a network's input batch.

    Args:
        images: Of one size and kind: packed RGBA, shape ``(height, width)``, uint32, or channels last, shape
            ``(height, width, channels)``, uint8 with 1 (grey), 3 or 4 channels, the fourth not used.
        transform: From :func:`image_transform`.
        output: Network input, shape ``(len(images), 3, height, width)``, float32 or float16.

    Raises:
        ValueError: The images differ in size or kind, or their number is not the batch's.
    """
    first = images[0]
    if len(images) != output.shape[0]:
        raise ValueError(f"a batch of {output.shape[0]} images was given {len(images)}")
    if any((image.shape, image.dtype) != (first.shape, first.dtype) for image in images):
        raise ValueError(f"images of one batch have one size and kind, got {[image.shape for image in images]}")
    whole = (transform.left, transform.top, transform.right, transform.bottom) == (
        0,
        0,
        output.shape[3],
        output.shape[2],
    )
    # A camera that already has the network's size needs no interpolation: a quarter of the reads.
    same = whole and first.shape[:2] == (output.shape[2], output.shape[3])
    # The launch keeps a pointer to the batch and the batch one to the pixels: both must outlive it.
    batch = _batch(images)
    return recorded(
        _convert if same else _resample,
        dim=(output.shape[0], output.shape[2], output.shape[3]),
        inputs=[batch, transform, unmarked()],
        outputs=[output],
        device=first.device,
        keep=tuple(images),
    )


def _batch(images: Sequence[wp.array]) -> wp.array:
    kind: Any = InterleavedImage
    if images[0].ndim == 2:
        kind = PackedImage
    elif images[0].shape[2] == 4 and all(image.is_contiguous and image.ptr % 4 == 0 for image in images):
        # Four bytes a pixel are read as one word.
        kind = PackedImage
        images = [
            wp.array(ptr=image.ptr, shape=image.shape[:2], dtype=wp.uint32, device=image.device) for image in images
        ]
    entries = []
    for image in images:
        entry = kind()
        entry.pixels = image
        entries.append(entry)
    return wp.array(entries, dtype=kind, device=images[0].device)
