"""What RTX sensors give to what frames hold: depth without infinities, labels from ids, returns to range images."""

# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

import math
from typing import Any

import warp as wp

from saccade.frame import BACKGROUND, FLOOR, OBSTACLE, ROBOT, SECTOR_COUNT

FAR = 1.0e30
"""Range of a cell that no return fell into [m]."""
NOBODY = 2**31 - 1
"""Number of the return in such a cell."""
FOLD = 0x9E3779B97F4A7C15
"""Folds the upper half of a 128-bit number onto the lower one: lower xor (upper times this)."""


@wp.kernel(enable_backward=False)
def _clean_depth(depth: wp.array2d(dtype=wp.float32), longest: wp.float32, output: wp.array2d(dtype=wp.float32)):
    row, column = wp.tid()
    value = depth[row, column]
    # Nothing hit is infinite there and 0 here; what is beyond the configured distance was not seen either.
    if wp.isfinite(value) and value > 0.0 and value <= longest:
        output[row, column] = value
    else:
        output[row, column] = 0.0


@wp.kernel(enable_backward=False)
def _classes_of_ids(
    ids: wp.array2d(dtype=wp.uint32), class_of_id: wp.array(dtype=wp.uint8), output: wp.array2d(dtype=wp.uint8)
):
    row, column = wp.tid()
    number = ids[row, column]
    label = wp.uint8(wp.static(BACKGROUND))
    if number < wp.uint32(class_of_id.shape[0]):
        label = class_of_id[wp.int32(number)]
    output[row, column] = label


@wp.func
def _cell_of(azimuth: float, elevation: float, lowest: float, highest: float, channels: int, columns: int):
    """Returns row and column of a direction [rad]; row -1 outside the field of view."""
    row = wp.float32(0.0)
    if channels > 1:
        row = wp.round((highest - elevation) / (highest - lowest) * wp.float32(channels - 1))
        if row < 0.0 or row > wp.float32(channels - 1):
            return wp.vec2i(-1, 0)
    turn = azimuth / wp.float32(wp.static(2.0 * math.pi))
    column = wp.int32(wp.round((turn - wp.floor(turn)) * wp.float32(columns)))
    if column >= columns:
        column = 0
    return wp.vec2i(wp.int32(row), column)


@wp.kernel(enable_backward=False)
def _clear_cells(nearest: wp.array2d(dtype=wp.float32), owner: wp.array2d(dtype=wp.int32)):
    row, column = wp.tid()
    nearest[row, column] = wp.float32(wp.static(FAR))
    owner[row, column] = wp.int32(wp.static(NOBODY))


@wp.func
def _place(
    i: wp.int32,
    azimuth: wp.float32,
    elevation: wp.float32,
    range: wp.float32,
    lowest: wp.float32,
    highest: wp.float32,
    claim: wp.int32,
    nearest: wp.array2d(dtype=wp.float32),
    owner: wp.array2d(dtype=wp.int32),
):
    """First pass: the nearest range of each cell. Second: the lowest number among the returns that have it.

    One pass on range and number packed into 64 bits would do, but Warp 1.7 has no such minimum on the CPU.
    """
    cell = _cell_of(azimuth, elevation, lowest, highest, nearest.shape[0], nearest.shape[1])
    if cell[0] < 0:
        return
    if claim == 0:
        wp.atomic_min(nearest, cell[0], cell[1], range)
        return
    # Two kernels may round one range differently in its last bit.
    if range <= nearest[cell[0], cell[1]] * 1.000001:
        wp.atomic_min(owner, cell[0], cell[1], i)


@wp.kernel(enable_backward=False)
def _place_points(
    points: wp.array2d(dtype=wp.float32),
    count: wp.int32,
    lowest: wp.float32,
    highest: wp.float32,
    range_min: wp.float32,
    range_max: wp.float32,
    claim: wp.int32,
    nearest: wp.array2d(dtype=wp.float32),
    owner: wp.array2d(dtype=wp.int32),
):
    i = wp.tid()
    if i >= count:
        return
    x = points[i, 0]
    y = points[i, 1]
    z = points[i, 2]
    range = wp.sqrt(x * x + y * y + z * z)
    if not (wp.isfinite(range) and range >= range_min and range <= range_max):
        return
    elevation = wp.atan2(z, wp.sqrt(x * x + y * y))
    _place(i, wp.atan2(y, x), elevation, range, lowest, highest, claim, nearest, owner)


@wp.kernel(enable_backward=False)
def _place_spherical(
    returns: wp.array2d(dtype=wp.float32),
    count: wp.int32,
    lowest: wp.float32,
    highest: wp.float32,
    range_min: wp.float32,
    range_max: wp.float32,
    claim: wp.int32,
    nearest: wp.array2d(dtype=wp.float32),
    owner: wp.array2d(dtype=wp.int32),
):
    i = wp.tid()
    if i >= count:
        return
    range = returns[2, i]
    if not (wp.isfinite(range) and range >= range_min and range <= range_max):
        return
    _place(i, wp.radians(returns[0, i]), wp.radians(returns[1, i]), range, lowest, highest, claim, nearest, owner)


@wp.kernel(enable_backward=False)
def _fill_from_points(
    owner: wp.array2d(dtype=wp.int32),
    source: wp.array2d(dtype=wp.float32),
    strength: wp.array(dtype=wp.float32),
    classes: wp.array(dtype=wp.uint8),
    own: wp.array(dtype=wp.float32),
    mask_robot: wp.int32,
    ranges: wp.array2d(dtype=wp.float32),
    intensity: wp.array2d(dtype=wp.float32),
    points: wp.array2d(dtype=wp.vec3f),
    labels: wp.array2d(dtype=wp.uint8),
):
    row, column = wp.tid()
    ranges[row, column] = 0.0
    intensity[row, column] = 0.0
    points[row, column] = wp.vec3f(0.0, 0.0, 0.0)
    labels[row, column] = wp.uint8(wp.static(BACKGROUND))
    i = owner[row, column]
    if i == wp.int32(wp.static(NOBODY)):
        return
    point = wp.vec3f(source[i, 0], source[i, 1], source[i, 2])
    label = wp.uint8(wp.static(BACKGROUND))
    if i < classes.shape[0]:
        label = classes[i]
    if mask_robot != 0 and label == wp.uint8(wp.static(ROBOT)):
        return
    if _is_own(point, own):
        return
    ranges[row, column] = wp.length(point)
    if i < strength.shape[0]:
        intensity[row, column] = wp.clamp(strength[i], 0.0, 1.0)
    points[row, column] = point
    labels[row, column] = label


@wp.func
def _find(key: wp.uint64, keys: wp.array(dtype=wp.uint64)):
    """Returns the place of a key in an ascending list, -1 where it is not in it."""
    low = wp.int32(0)
    high = keys.shape[0]
    while low < high:
        middle = (low + high) / 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    if low < keys.shape[0]:
        if keys[low] == key:
            return low
    return wp.int32(-1)


@wp.func
def _folded(lower: wp.uint64, upper: wp.uint64, fold: wp.uint64):
    return lower ^ (upper * fold)


@wp.kernel(enable_backward=False)
def _classes_of_things(
    ids: wp.array2d(dtype=wp.uint32),
    keys: wp.array(dtype=wp.uint64),
    class_of_key: wp.array(dtype=wp.uint8),
    fold: wp.uint64,
    classes: wp.array(dtype=wp.uint8),
):
    i = wp.tid()
    lower = wp.uint64(ids[i, 0]) | (wp.uint64(ids[i, 1]) << wp.uint64(32))
    third = wp.uint64(ids[i, 2])
    place = _find(_folded(lower, third | (wp.uint64(ids[i, 3]) << wp.uint64(32)), fold), keys)
    if place < 0:
        # A part of a mesh has the number of the whole in its lower 96 bits, and often no name of its own.
        place = _find(_folded(lower, third, fold), keys)
    label = wp.uint8(wp.static(OBSTACLE))
    if place >= 0:
        label = class_of_key[place]
    classes[i] = label


@wp.kernel(enable_backward=False)
def _fill_from_spherical(
    owner: wp.array2d(dtype=wp.int32),
    returns: wp.array2d(dtype=wp.float32),
    own: wp.array(dtype=wp.float32),
    mask_robot: wp.int32,
    ranges: wp.array2d(dtype=wp.float32),
    intensity: wp.array2d(dtype=wp.float32),
    points: wp.array2d(dtype=wp.vec3f),
    labels: wp.array2d(dtype=wp.uint8),
):
    row, column = wp.tid()
    ranges[row, column] = 0.0
    intensity[row, column] = 0.0
    points[row, column] = wp.vec3f(0.0, 0.0, 0.0)
    labels[row, column] = wp.uint8(wp.static(BACKGROUND))
    i = owner[row, column]
    if i == wp.int32(wp.static(NOBODY)):
        return
    azimuth = wp.radians(returns[0, i])
    elevation = wp.radians(returns[1, i])
    range = returns[2, i]
    flat = range * wp.cos(elevation)
    point = wp.vec3f(flat * wp.cos(azimuth), flat * wp.sin(azimuth), range * wp.sin(elevation))
    label = wp.uint8(returns[4, i])
    if mask_robot != 0 and label == wp.uint8(wp.static(ROBOT)):
        return
    if _is_own(point, own):
        return
    ranges[row, column] = range
    intensity[row, column] = wp.clamp(returns[3, i], 0.0, 1.0)
    points[row, column] = point
    labels[row, column] = label


@wp.func
def _is_own(point: wp.vec3f, own: wp.array(dtype=wp.float32)):
    """Whether a point [m] lies in the upright cylinder (x, y, radius, lowest, highest) around the carrier."""
    x = point[0] - own[0]
    y = point[1] - own[1]
    return x * x + y * y < own[2] * own[2] and point[2] > own[3] and point[2] < own[4]


def clean_depth(depth: wp.array, longest: float, output: wp.array) -> None:
    """Writes planar depth [m] with 0 where nothing was hit, or beyond ``longest`` [m].

    Args:
        depth: Shape ``(height, width)``, float32; infinite, NaN or 0 where nothing was hit.
        longest: [m]
        output: Same shape, float32.
    """
    wp.launch(_clean_depth, dim=output.shape, inputs=[depth, longest], outputs=[output], device=output.device)


def classes_of_ids(ids: wp.array, class_of_id: wp.array, output: wp.array) -> None:
    """Writes class indices for the ids of a semantic segmentation; an unknown id is background.

    Args:
        ids: Shape ``(height, width)``, uint32.
        class_of_id: Class by id, shape ``(ids,)``, uint8.
        output: Shape ``(height, width)``, uint8.
    """
    wp.launch(_classes_of_ids, dim=output.shape, inputs=[ids, class_of_id], outputs=[output], device=output.device)


def classes_of_things(ids: wp.array, keys: wp.array, class_of_key: wp.array, classes: wp.array) -> None:
    """Writes the class of the thing that each return came from; a thing that is not known is an obstacle.

    Args:
        ids: The things' numbers of 128 bits, least significant word first, shape ``(n, 4)``, uint32.
        keys: Known numbers, folded to 64 bits with :data:`FOLD`, ascending, shape ``(k,)``, uint64.
        class_of_key: Class of each, shape ``(k,)``, uint8.
        classes: Shape ``(n,)`` or longer, uint8.
    """
    # The factor goes in as an argument: Warp 1.7 cuts a constant of 64 bits to 32.
    inputs = [ids, keys, class_of_key, FOLD]
    wp.launch(_classes_of_things, dim=ids.shape[0], inputs=inputs, outputs=[classes], device=ids.device)


def image_of_points(
    points: wp.array,
    intensity: wp.array,
    classes: wp.array,
    limits: tuple[float, float, float, float],
    own: wp.array,
    mask_robot: bool,
    cells: tuple[wp.array, wp.array],
    outputs: tuple[wp.array, wp.array, wp.array, wp.array],
) -> None:
    """Sorts points in any order into the image that the configured LiDAR would give; the nearest of a cell counts.

    Args:
        points: In the sensor frame [m] (x forward, y left, z up), shape ``(n, 3)``, float32.
        intensity: 0..1, shape ``(n,)``, float32; an empty array = none.
        classes: Class index by return, shape ``(n,)`` or longer, uint8; an empty array = not known.
        limits: Elevation of the lowest and highest channel [rad], shortest and longest range [m].
        own: The carrier's cylinder in the sensor frame: x, y, radius, lowest, highest [m], shape ``(5,)``, float32;
            radius 0 = none.
        mask_robot: Whether returns of class robot count as none.
        cells: Scratch, two arrays of shape ``(channels, columns)``: float32 and int32.
        outputs: Ranges, intensity, points and labels as in :class:`saccade.frame.Frame`; without classes labels are
            all background.
    """
    count = points.shape[0]
    _sort(_place_points, points, count, limits, cells)
    owner = cells[1]
    wp.launch(
        _fill_from_points,
        dim=owner.shape,
        inputs=[owner, points, intensity, classes, own, int(mask_robot)],
        outputs=list(outputs),
        device=owner.device,
    )


def _sort(
    kernel: Any, returns: wp.array, count: int, limits: tuple[float, ...], cells: tuple[wp.array, wp.array]
) -> None:
    """Finds the nearest return of every cell."""
    shape, device = cells[0].shape, cells[0].device
    wp.launch(_clear_cells, dim=shape, inputs=[], outputs=list(cells), device=device)
    for claim in (0, 1) if count else ():
        wp.launch(kernel, dim=count, inputs=[returns, count, *limits, claim], outputs=list(cells), device=device)


def image_of_spherical(
    returns: wp.array,
    count: int,
    limits: tuple[float, float, float, float],
    own: wp.array,
    mask_robot: bool,
    cells: tuple[wp.array, wp.array],
    outputs: tuple[wp.array, wp.array, wp.array, wp.array],
) -> None:
    """As :func:`image_of_points`, from azimuth, elevation [degrees], range [m], intensity and class index.

    Args:
        returns: One row each, shape ``(5, capacity)``, float32.
        count: How many returns are valid.
        limits: As there.
        own: As there.
        mask_robot: Whether returns of class robot count as none.
        cells: As there.
        outputs: As there.
    """
    _sort(_place_spherical, returns, count, limits, cells)
    owner = cells[1]
    wp.launch(
        _fill_from_spherical,
        dim=owner.shape,
        inputs=[owner, returns, own, int(mask_robot)],
        outputs=list(outputs),
        device=owner.device,
    )


@wp.kernel(enable_backward=False)
def _nearest_per_sector(
    points: wp.array2d(dtype=wp.vec3f),
    labels: wp.array2d(dtype=wp.uint8),
    use_labels: wp.int32,
    pose: wp.transformf,
    lowest: wp.float32,
    highest: wp.float32,
    sectors: wp.array(dtype=wp.float32),
):
    row, column = wp.tid()
    local = points[row, column]
    if wp.length(local) <= 0.0:
        return
    if use_labels != 0:
        label = labels[row, column]
        if (
            label == wp.uint8(wp.static(FLOOR))
            or label == wp.uint8(wp.static(ROBOT))
            or label == wp.uint8(wp.static(BACKGROUND))
        ):
            return
    point = wp.transform_vector(pose, local)
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


def nearest_per_sector(
    points: wp.array,
    labels: wp.array,
    use_labels: bool,
    pose: wp.transform,
    heights: tuple[float, float],
    sectors: wp.array,
) -> None:
    """Lowers each sector's value to the planar distance [m] of its nearest return.

    Args:
        points: In the sensor frame [m], shape ``(channels, columns)``, vec3f; the origin = no return.
        labels: Class index per return, same shape, uint8.
        use_labels: Whether floor, robot and background are left out by label; otherwise by height alone.
        pose: Sensor frame in the world.
        heights: World heights [m] between which returns count.
        sectors: Shape ``(16,)``, float32.
    """
    wp.launch(
        _nearest_per_sector,
        dim=points.shape,
        inputs=[points, labels, int(use_labels), pose, *heights],
        outputs=[sectors],
        device=points.device,
    )
