"""LiDAR buffers to network inputs: ranges, or points in any order, to a range image."""

# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

import math
from typing import Any

import warp as wp

from saccade.kernels.launch import recorded
from saccade.kernels.stamps import Marks, mark_first, mark_last, unmarked

NOTHING = 1.0e30
"""A cell that no point fell into [m]: above every range."""


@wp.kernel(enable_backward=False)
def _range_image(
    ranges: wp.array2d(dtype=wp.float32),
    intensity: wp.array2d(dtype=wp.float32),
    scale: float,
    marks: Marks,
    output: wp.array4d(dtype=Any),
):
    channel, column = wp.tid()
    mark_first(marks, channel + column)
    output[0, 0, channel, column] = output.dtype(ranges[channel, column] * scale)
    output[0, 1, channel, column] = output.dtype(intensity[channel, column])
    mark_last(marks)


@wp.func
def _cell(point: wp.vec3f, lowest: float, highest: float, channels: int, columns: int):
    """Returns row, column and range of a point; row -1 outside the field of view or where nothing came back."""
    flat = wp.sqrt(point[0] * point[0] + point[1] * point[1])
    distance = wp.length(point)
    if not (distance > 0.0 and wp.isfinite(distance)):
        return wp.vec3f(-1.0, 0.0, 0.0)
    elevation = wp.atan2(point[2], flat)
    row = wp.float32(0.0)
    if channels > 1:
        row = wp.round((highest - elevation) / (highest - lowest) * wp.float32(channels - 1))
        if row < 0.0 or row > wp.float32(channels - 1):
            return wp.vec3f(-1.0, 0.0, 0.0)
    turn = wp.atan2(point[1], point[0]) / wp.float32(wp.static(2.0 * math.pi))
    column = wp.round((turn - wp.floor(turn)) * wp.float32(columns))
    if column >= wp.float32(columns):
        column = wp.float32(0.0)
    return wp.vec3f(row, column, distance)


@wp.kernel(enable_backward=False)
def _clear(marks: Marks, cells: wp.array2d(dtype=wp.float32)):
    channel, column = wp.tid()
    mark_first(marks, channel + column)
    cells[channel, column] = wp.static(NOTHING)


@wp.kernel(enable_backward=False)
def _nearest(points: wp.array(dtype=wp.vec3f), lowest: float, highest: float, cells: wp.array2d(dtype=wp.float32)):
    cell = _cell(points[wp.tid()], lowest, highest, cells.shape[0], cells.shape[1])
    if cell[0] >= 0.0:
        wp.atomic_min(cells, int(cell[0]), int(cell[1]), cell[2])


@wp.kernel(enable_backward=False)
def _empty_image(output: wp.array4d(dtype=Any)):
    layer, channel, column = wp.tid()
    output[0, layer, channel, column] = output.dtype(0.0)


@wp.kernel(enable_backward=False)
def _fill_image(
    points: wp.array(dtype=wp.vec3f),
    intensity: wp.array(dtype=wp.float32),
    lowest: float,
    highest: float,
    cells: wp.array2d(dtype=wp.float32),
    scale: float,
    marks: Marks,
    output: wp.array4d(dtype=Any),
):
    i = wp.tid()
    cell = _cell(points[i], lowest, highest, cells.shape[0], cells.shape[1])
    if cell[0] >= 0.0:
        row = int(cell[0])
        column = int(cell[1])
        # Two kernels may round one range differently in its last bit; points that near each other are one to the
        # reader.
        if cell[2] <= cells[row, column] * 1.000001:
            output[0, 0, row, column] = output.dtype(cell[2] * scale)
            output[0, 1, row, column] = output.dtype(intensity[i])
    mark_last(marks)


def record_range_image(ranges: wp.array, intensity: wp.array, scale: float, output: wp.array) -> wp.Launch:
    """Returns a recorded launch that turns LiDAR buffers into a network input.

    Args:
        ranges: [m], shape ``(channels, columns)``, float32, 0 = no return.
        intensity: 0..1, same shape, float32.
        scale: Multiplies the ranges [1/m].
        output: Shape ``(1, 2, channels, columns)``, float32 or float16: range, intensity.
    """
    return recorded(
        _range_image,
        dim=ranges.shape,
        inputs=[ranges, intensity, scale, unmarked()],
        outputs=[output],
        device=ranges.device,
    )


def record_point_image(
    points: wp.array,
    intensity: wp.array,
    scale: float,
    output: wp.array,
    *,
    vertical_fov: tuple[float, float],
    cells: wp.array,
) -> list[wp.Launch]:
    """Returns recorded launches that turn points in any order into a range image; the nearest of a cell counts.

    Args:
        points: In the sensor frame [m] (x forward, y left, z up), any shape, vec3f; the origin = no return.
        intensity: 0..1, as many values, float32.
        scale: Multiplies the ranges [1/m].
        output: Shape ``(1, 2, channels, columns)``, float32 or float16: range, intensity. Row 0 is the highest
            channel, column 0 looks straight ahead, azimuth counter-clockwise.
        vertical_fov: Elevation of the lowest and highest channel [degrees].
        cells: Scratch, shape ``(channels, columns)``, float32.
    """
    lowest, highest = (math.radians(angle) for angle in vertical_fov)
    points, intensity = points.flatten(), intensity.flatten()
    device = points.device
    return [
        recorded(_clear, dim=cells.shape, inputs=[unmarked()], outputs=[cells], device=device),
        recorded(_empty_image, dim=output.shape[1:], inputs=[], outputs=[output], device=device),
        recorded(_nearest, dim=points.size, inputs=[points, lowest, highest], outputs=[cells], device=device),
        recorded(
            _fill_image,
            dim=points.size,
            inputs=[points, intensity, lowest, highest, cells, scale, unmarked()],
            outputs=[output],
            device=device,
        ),
    ]
