"""Images and clouds to arrays: encodings, padding, byte orders, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rosbags")

from hypothesis import given
from hypothesis import strategies as st
from tests.ros_messages import sample

from saccade.bridge import messages
from saccade.bridge.inputs import color_from_image, points_from_cloud
from saccade.bridge.messages import MessageError

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def image(pixels: np.ndarray, encoding: str, *, padding: int = 0, big: bool = False):
    """An image message with rows padded by so many bytes of 255."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    made = sample("sensor_msgs/msg/Image")
    made.height, made.width, made.encoding, made.is_bigendian = height, width, encoding, int(big)
    made.step = rows.shape[1] + padding
    made.data = np.pad(rows, ((0, 0), (0, padding)), constant_values=255).ravel()
    return made


def cloud(fields: dict[str, np.ndarray], *, big: bool = False, offset: int = 0, height: int = 1, padding: int = 0):
    """A cloud message of the given fields, each point with ``offset`` bytes before and rows padded."""
    numbers = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 8}
    count = len(next(iter(fields.values())))
    step, described = offset, []
    for name, values in fields.items():
        kind = values.dtype.str[1:]
        described.append(
            messages.new("sensor_msgs/msg/PointField", name=name, offset=step, datatype=numbers[kind], count=1)
        )
        step += values.dtype.itemsize
    points = np.full((count, step), 255, np.uint8)
    for field, values in zip(described, fields.values(), strict=True):
        ordered = values.astype(values.dtype.newbyteorder(">" if big else "<"))
        points[:, field.offset : field.offset + values.dtype.itemsize] = ordered.view(np.uint8).reshape(count, -1)
    made = sample("sensor_msgs/msg/PointCloud2")
    width = count // height
    made.height, made.width, made.fields, made.is_bigendian = height, width, described, big
    made.point_step, made.row_step = step, step * width + padding
    made.data = np.pad(points.reshape(height, -1), ((0, 0), (0, padding)), constant_values=255).ravel()
    return made


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[:, :, ::-1]),
        ("rgba8", np.dstack([RGB, np.full((2, 3), 9, np.uint8)])),
        ("bgra8", np.dstack([RGB[:, :, ::-1], np.full((2, 3), 9, np.uint8)])),
    ],
)
def test_color(encoding, pixels, padding):
    """Whatever the order of the channels and the padding of the rows, the same RGB comes out."""
    assert np.array_equal(color_from_image(image(pixels, encoding, padding=padding)), RGB)


def test_grey():
    """Grey stays one channel."""
    assert np.array_equal(color_from_image(image(RGB[:, :, 0], "mono8", padding=1)), RGB[:, :, :1])


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("encoding", "unit", "kind"), [("16UC1", 1000, "u2"), ("32FC1", 1, "f4")])
def test_depth(encoding, unit, kind, big):
    """Depth in either unit and byte order is grey from 0 to the given depth, and black where nothing was seen."""
    depth = np.array([[0.0, 1.0, 2.0], [4.0, 9.0, 2.0]]) * unit
    if kind == "f4":
        depth[0, 0] = np.nan
    message = image(depth.astype((">" if big else "<") + kind), encoding, big=big)
    found = color_from_image(message, depth_max=4.0)
    assert found[:, :, 0].tolist() == [[0, 64, 128], [255, 255, 128]]


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_is_refused(encoding):
    """Unless asked for, depth is refused with what to do."""
    with pytest.raises(MessageError, match=r"is depth.*--depth-max METRES"):
        color_from_image(image(np.zeros((2, 2), "u2" if encoding == "16UC1" else "f4"), encoding))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"encoding": "bayer_rggb8"}, "'bayer_rggb8' is not known: expected rgb8"),
        ({"height": 3}, "3 rows of 9 bytes are announced, there are 18 bytes"),
        ({"width": 4}, "rows of 9 bytes do not hold 4 pixels"),
        ({"height": 0}, "3x0 pixels"),
        ({"width": 2**31, "step": 2**32 - 1}, "expected 1 to 16384"),
    ],
)
def test_image_refused(change, told):
    """Sizes that do not agree with the data are refused before a byte is read."""
    message = image(RGB, "rgb8")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(MessageError, match=told):
        color_from_image(message)


@given(
    height=st.integers(0, 2**32 - 1),
    width=st.integers(0, 2**32 - 1),
    step=st.integers(0, 2**32 - 1),
    encoding=st.sampled_from(["rgb8", "bgra8", "mono8", "16UC1", "32FC1", "yuv422"]),
    size=st.integers(0, 64),
)
def test_image_of_any_claims(height, width, step, encoding, size):
    """Whatever a header claims, either an image of its size comes out or a MessageError."""
    message = sample("sensor_msgs/msg/Image")
    message.height, message.width, message.step, message.encoding = height, width, step, encoding
    message.data = np.zeros(size, np.uint8)
    try:
        found = color_from_image(message, depth_max=1.0)
    except MessageError:
        return
    assert found.shape[:2] == (height, width)


X = np.array([1.0, np.nan, 3.0, -4.0])


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize(("height", "padding", "offset"), [(1, 0, 0), (2, 7, 3)])
def test_points(big, kind, height, padding, offset):
    """Either byte order, precision, padding and order of fields; a point that is not finite is the origin."""
    fields = {"intensity": np.array([0, 255, 51, 255], np.uint8), "x": X.astype(kind)}
    fields |= {"y": np.arange(4).astype(kind), "z": -np.arange(4).astype(kind)}
    points, intensity = points_from_cloud(cloud(fields, big=big, offset=offset, height=height, padding=padding))
    assert points.tolist() == [[1, 0, 0], [0, 0, 0], [3, 2, -2], [-4, 3, -3]]
    assert intensity.tolist() == pytest.approx([0, 1, 0.2, 1])


def test_float_intensity_and_none():
    """Floating intensities are cut off at 0 and 1; without the field they are 0."""
    fields = {name: X.astype("f4") for name in "xyz"}
    _, intensity = points_from_cloud(cloud({**fields, "intensity": np.array([-1, 0.5, 300, np.nan], "f4")}))
    assert intensity.tolist() == [0, 0.5, 1, 0]
    assert points_from_cloud(cloud(fields))[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"width": 5}, "5x1 points need 60 bytes, there are 48"),
        ({"height": 2, "row_step": 4}, "rows of 4 bytes do not hold"),
        ({"point_step": 8}, "field 'z' ends after the point's 8 bytes"),
        ({"fields": []}, "without floating-point field 'x'"),
    ],
)
def test_cloud_refused(change, told):
    """Sizes, steps and fields that do not agree with the data are refused."""
    message = cloud({name: X.astype("f4") for name in "xyz"})
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(MessageError, match=told):
        points_from_cloud(message)


def test_empty_cloud():
    """A cloud without points is none that is wrong."""
    message = cloud({name: X.astype("f4") for name in "xyz"})
    message.width = 0
    points, intensity = points_from_cloud(message)
    assert (points.shape, intensity.shape) == ((0, 3), (0,))


field_claims = st.builds(
    dict,
    name=st.sampled_from(["x", "y", "z", "intensity", "ring"]),
    offset=st.one_of(st.integers(0, 24), st.integers(0, 2**32 - 1)),
    datatype=st.one_of(st.sampled_from([7, 8]), st.integers(0, 255)),
    count=st.integers(0, 2**32 - 1),
)
small_or_any = st.one_of(st.integers(0, 16), st.integers(0, 2**32 - 1))


@given(
    height=small_or_any,
    width=small_or_any,
    point_step=small_or_any,
    row_step=small_or_any,
    big=st.booleans(),
    fields=st.lists(field_claims, max_size=5),
    whole=st.booleans(),
    data=st.binary(max_size=256),
)
def test_cloud_of_any_claims(height, width, point_step, row_step, big, fields, whole, data):
    """Whatever a cloud claims, finite points come out, as many as it has, or a MessageError."""
    if whole:  # otherwise few get past the fields
        fields = [{"name": n, "offset": 4 * i, "datatype": 7, "count": 1} for i, n in enumerate("xyz")] + fields
    message = sample("sensor_msgs/msg/PointCloud2")
    message.height, message.width, message.point_step, message.row_step = height, width, point_step, row_step
    message.is_bigendian = big
    message.fields = [messages.new("sensor_msgs/msg/PointField", **claims) for claims in fields]
    message.data = np.frombuffer(data, np.uint8)
    try:
        points, intensity = points_from_cloud(message)
    except MessageError:
        return
    assert points.shape == (height * width, 3) and intensity.shape == (height * width,)
    assert np.isfinite(points).all()
    assert ((intensity >= 0) & (intensity <= 1)).all()


@given(
    kind=st.sampled_from(["image", "cloud"]),
    changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 400),
)
def test_bytes_to_arrays(kind, changes, cut):
    """The whole way from changed and cut bytes to what a network reads: an array or a MessageError, nothing else."""
    made = image(RGB, "rgb8") if kind == "image" else cloud({name: X.astype("f4") for name in "xyz"})
    data = bytearray(messages.encode(made))
    for offset, value in changes:
        data[offset % len(data)] = value
    try:
        message = messages.decode(
            bytes(data[: len(data) - cut % len(data)] if cut % 3 == 0 else data), made.__msgtype__
        )
        if kind == "image":
            assert color_from_image(message, depth_max=1.0).dtype == np.uint8
        else:
            assert np.isfinite(points_from_cloud(message)[0]).all()
    except MessageError:
        pass
