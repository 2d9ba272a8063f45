"""A LiDAR's ranges as a picture: near is bright and warm, far is dark and cold, no return is black."""

# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

import warp as wp


@wp.kernel(enable_backward=False)
def _draw_ranges(ranges: wp.array2d(dtype=wp.float32), range_max: wp.float32, picture: wp.array2d(dtype=wp.uint32)):
    row, column = wp.tid()
    # Column 0 looks straight ahead, counter-clockwise: the middle of the picture is straight ahead, left is left.
    columns = ranges.shape[1]
    source = (columns // 2 - column + columns) % columns
    distance = ranges[row, source]
    red = wp.float32(0.0)
    green = wp.float32(0.0)
    blue = wp.float32(0.0)
    if distance > 0.0:
        near = 1.0 - wp.min(wp.sqrt(distance / range_max), 1.0)
        red = wp.clamp(2.4 * near - 0.25, 0.06, 1.0)
        green = wp.clamp(2.2 * near - 0.75, 0.04, 0.92)
        blue = wp.clamp(0.35 + 0.9 * near - 1.6 * near * near, 0.12, 1.0)
    packed = wp.uint32(255.0 * red) | (wp.uint32(255.0 * green) << wp.uint32(8))
    packed = packed | (wp.uint32(255.0 * blue) << wp.uint32(16)) | (wp.uint32(255) << wp.uint32(24))
    picture[row, column] = packed


def draw_ranges(ranges: wp.array, picture: wp.array, range_max: float) -> None:
    """Draws a scan; straight ahead is in the middle.

    Args:
        ranges: [m], shape ``(channels, columns)``, float32; 0 = no return.
        picture: Packed RGBA, red lowest, same shape, uint32; filled.
        range_max: Range that is drawn darkest [m].
    """
    wp.launch(
        _draw_ranges, dim=ranges.shape, inputs=[ranges, float(range_max)], outputs=[picture], device=ranges.device
    )
