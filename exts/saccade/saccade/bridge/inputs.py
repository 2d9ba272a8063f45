"""Sensor messages to host arrays that networks read; every size and encoding is checked against the data first."""

from __future__ import annotations

from typing import Any

import numpy as np

from saccade.bridge.messages import MessageError

COLOR_CHANNELS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0), "mono8": (0,)}
"""Which byte of a pixel is red, green and blue, or grey, by encoding."""
PIXEL_SIZE = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "16UC1": 2, "32FC1": 4}
"""Bytes of a pixel by encoding."""
DEPTH_UNIT = {"16UC1": 1e-3, "32FC1": 1.0}
"""Metres of a depth image's unit (REP-118)."""
POINT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
"""PointField's numbers as NumPy types without byte order."""
LARGEST_IMAGE = 16_384
"""Pixels of a side above which an image is taken for a mistake."""


def color_from_image(message: Any, *, depth_max: float | None = None) -> np.ndarray:
    """Returns an image as RGB or grey, shape ``(height, width, 3 or 1)``, uint8, contiguous.

    Args:
        message: sensor_msgs/Image.
        depth_max: Depth [m] that counts as white where the image is depth, nearer is darker and nothing seen black;
            ``None`` refuses depth.

    Raises:
        MessageError: The encoding is none that is known, or size and data do not agree.
    """
    encoding = message.encoding
    if encoding not in PIXEL_SIZE:
        raise MessageError(
            f"image encoding {encoding!r} is not known: expected {', '.join(PIXEL_SIZE)}; "
            f"convert it before, for example with image_proc"
        )
    if encoding in DEPTH_UNIT:
        if depth_max is None:
            raise MessageError(
                f"image encoding {encoding!r} is depth, and the network reads colour: take the camera's colour topic, "
                f"or say which depth counts as white: --depth-max METRES"
            )
        return _grey_from_depth(message, depth_max)
    rows = _rows(message)
    pixels = rows.reshape(*rows.shape[:1], message.width, PIXEL_SIZE[encoding])
    channels = COLOR_CHANNELS[encoding]
    if channels == tuple(range(PIXEL_SIZE[encoding])):
        return np.ascontiguousarray(pixels)
    return np.ascontiguousarray(pixels[:, :, channels])


def points_from_cloud(message: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns a cloud's points [m], shape ``(n, 3)``, and intensities 0..1, shape ``(n,)``, both float32.

    Points with a value that is not finite become the origin, which is no return. Intensities of an integer type are
    divided by its greatest value, floating ones are cut off at 0 and 1; without such a field they are 0.

    Args:
        message: sensor_msgs/PointCloud2.

    Raises:
        MessageError: It has no x, y, z in floating point, or size, fields and data do not agree.
    """
    fields = {field.name: field for field in message.fields}
    for name in ("x", "y", "z"):
        if name not in fields or fields[name].datatype not in (7, 8):
            raise MessageError(f"point cloud without floating-point field {name!r}; it has: {', '.join(fields)}")
    intensity = fields.get("intensity", fields.get("i"))
    wanted = [fields["x"], fields["y"], fields["z"], *([intensity] if intensity is not None else [])]
    order = ">" if message.is_bigendian else "<"
    formats = []
    for field in wanted:
        if field.datatype not in POINT_TYPES:
            raise MessageError(f"point cloud: field {field.name!r} has the unknown type {field.datatype}")
        formats.append(order + POINT_TYPES[field.datatype])
        if field.offset + np.dtype(formats[-1]).itemsize > message.point_step:
            raise MessageError(f"point cloud: field {field.name!r} ends after the point's {message.point_step} bytes")
    count = message.width * message.height
    needed = (message.height - 1) * message.row_step + message.width * message.point_step if count else 0
    if message.width * message.point_step > message.row_step and message.height > 1:
        raise MessageError(f"point cloud: rows of {message.row_step} bytes do not hold {message.width} points")
    if needed > len(message.data):
        raise MessageError(
            f"point cloud: {message.width}x{message.height} points need {needed} bytes, there are {len(message.data)}"
        )
    if not count:
        return np.zeros((0, 3), np.float32), np.zeros(0, np.float32)
    kind = np.dtype(
        {
            "names": [f"f{i}" for i in range(len(wanted))],
            "formats": formats,
            "offsets": [field.offset for field in wanted],
            "itemsize": message.point_step,
        }
    )
    strides = (message.row_step if message.height > 1 else needed, message.point_step)
    cloud = np.ndarray(
        (message.height, message.width), kind, buffer=np.ascontiguousarray(message.data), strides=strides
    )
    points = np.stack([cloud[name].astype(np.float32).ravel() for name in ("f0", "f1", "f2")], axis=1)
    points[~np.isfinite(points).all(axis=1)] = 0.0
    if intensity is None:
        return points, np.zeros(count, np.float32)
    strength = cloud["f3"].astype(np.float32).ravel()
    if cloud["f3"].dtype.kind in "iu":
        strength /= np.float32(np.iinfo(cloud["f3"].dtype).max)
    return points, np.clip(np.nan_to_num(strength, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)


def depth_from_image(message: Any) -> np.ndarray:
    """Returns a depth image in metres, shape ``(height, width)``, float32, 0 where nothing was seen.

    Args:
        message: sensor_msgs/Image, 16UC1 [mm] or 32FC1 [m] of either byte order.

    Raises:
        MessageError: The encoding is another one, or size and data do not agree.
    """
    if message.encoding not in DEPTH_UNIT:
        raise MessageError(f"image encoding {message.encoding!r} is no depth: expected {' or '.join(DEPTH_UNIT)}")
    rows = _rows(message)
    order = ">" if message.is_bigendian else "<"
    kind = np.dtype(order + ("u2" if message.encoding == "16UC1" else "f4"))
    depth = np.ascontiguousarray(rows).view(kind).astype(np.float32)
    if message.encoding == "16UC1":
        depth *= np.float32(DEPTH_UNIT[message.encoding])
    return np.nan_to_num(depth, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def _grey_from_depth(message: Any, depth_max: float) -> np.ndarray:
    seen = depth_from_image(message)
    return np.clip(np.rint(seen * np.float32(255 / depth_max)), 0, 255).astype(np.uint8)[:, :, None]


def _rows(message: Any) -> np.ndarray:
    """The bytes of each row without its padding, as a view."""
    height, width, step = message.height, message.width, message.step
    used = width * PIXEL_SIZE[message.encoding]
    if not (0 < height <= LARGEST_IMAGE and 0 < width <= LARGEST_IMAGE):
        raise MessageError(f"image of {width}x{height} pixels: expected 1 to {LARGEST_IMAGE} each way")
    if step < used:
        raise MessageError(f"image: rows of {step} bytes do not hold {width} pixels of {message.encoding!r}")
    data = np.asarray(message.data, dtype=np.uint8).ravel()
    if len(data) < (height - 1) * step + used:  # the last row may go without padding
        raise MessageError(f"image: {height} rows of {step} bytes are announced, there are {len(data)} bytes")
    return np.lib.stride_tricks.as_strided(data, (height, used), (step, 1), writeable=False)
