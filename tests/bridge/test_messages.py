"""Messages: every type survives its round trip, and no bytes whatsoever get past the reader as anything but refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("rosbags")

from tests.ros_messages import same, sample

from saccade.bridge import messages
from saccade.bridge.messages import MessageError

IN = [
    "geometry_msgs/msg/Twist",
    "geometry_msgs/msg/TwistStamped",
    "sensor_msgs/msg/JointState",
    "trajectory_msgs/msg/JointTrajectory",
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/PointCloud2",
    "std_msgs/msg/Bool",
    "std_msgs/msg/Empty",
    "std_msgs/msg/UInt32",
]
"""Types that come from outside."""

HASHES = {
    "sensor_msgs/msg/Image": "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47",
    "std_msgs/msg/Float32": "RIHS01_7170d3d8f841f7be3172ce5f4f59f3a4d7f63b0447e8b33327601ad64d83d6e2",
    "diagnostic_msgs/msg/DiagnosticStatus": "RIHS01_b0e3e692ea2d54a8af2f4ef1930e81556a2db55216b771f8a7d2724ed47bf0e4",
}
"""As the distribution's own type descriptions have them."""


@pytest.mark.parametrize("type_name", [*IN, "vision_msgs/msg/Detection2DArray", "diagnostic_msgs/msg/DiagnosticArray"])
@pytest.mark.parametrize("length", [0, 1, 3])
def test_round_trip(type_name, length):
    """Encoded and decoded again, every field is as it was; the bytes are padded to four."""
    message = sample(type_name, seed=length, length=length)
    data = messages.encode(message)
    assert len(data) % 4 == 0
    assert same(messages.decode(data, type_name), message)


def test_big_endian():
    """A message from a big-endian machine reads the same."""
    message = sample("geometry_msgs/msg/TwistStamped")
    data = messages.store().serialize_cdr(message, message.__msgtype__, little_endian=False)
    assert same(messages.decode(data, message.__msgtype__), message)


def test_bytes_after_the_end():
    """Fast DDS leaves bytes behind a message that ends with empty sequences: they are no reason to refuse it."""
    message = sample("sensor_msgs/msg/JointState", length=0)
    assert same(messages.decode(bytes(messages.encode(message)) + b"\x34" * 8, message.__msgtype__), message)


@pytest.mark.parametrize("type_name", HASHES)
def test_type_hash(type_name):
    """Type hashes are ROS 2's."""
    assert messages.type_hash(type_name) == HASHES[type_name]


@pytest.mark.parametrize("data", [b"", b"\0\1", b"\xff" * 64, b"\0\3\0\0" + b"\0" * 64])
def test_no_cdr(data):
    """Nothing, too little and other encapsulations are refused."""
    with pytest.raises(MessageError):
        messages.decode(data, "geometry_msgs/msg/Twist")


@pytest.mark.parametrize("type_name", [name for name in IN if name != "std_msgs/msg/Empty"])
def test_every_truncation(type_name):
    """A message cut anywhere before its last field's end is refused."""
    data = bytes(messages.encode(sample(type_name)))
    end = len(data)
    while data[end - 1] == 0 and len(data) - end < 3:
        end -= 1
    for cut in range(end - 1):
        try:
            messages.decode(data[:cut], type_name)
        except MessageError:
            continue
        pytest.fail(f"{type_name} cut to {cut} of {len(data)} bytes was read")


@pytest.mark.parametrize("type_name", ["sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"])
def test_huge_lengths(type_name):
    """A length of 4 billion, wherever a length may stand, is refused at once and nothing of that size allocated."""
    data = bytes(messages.encode(sample(type_name, length=0)))
    for offset in range(4, len(data) - 3, 4):
        changed = data[:offset] + struct.pack("<I", 0xFFFFFFFF) + data[offset + 4 :]
        try:
            message = messages.decode(changed, type_name)
        except MessageError:
            continue
        assert messages.encode(message).nbytes <= len(data) + 8


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(IN), st.binary(max_size=256), st.booleans())
@example("sensor_msgs/msg/JointState", b"\0\1\0\0" + b"\xff" * 40, False)
def test_fuzz_bytes(type_name, data, header):
    """Any bytes are either a message that can be encoded again, or refused; no other exception, ever."""
    _read(b"\0\1\0\0" + data if header else data, type_name)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(IN), st.integers(0, 3), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6))
def test_fuzz_changed(type_name, length, changes):
    """Nor does a real message with some bytes changed."""
    data = bytearray(messages.encode(sample(type_name, length=length)))
    for offset, value in changes:
        data[offset % len(data)] = value
    _read(bytes(data), type_name)


def _read(data: bytes, type_name: str) -> None:
    try:
        message = messages.decode(data, type_name)
    except MessageError as error:
        assert type_name in str(error)
        return
    for value in vars(message).values():
        if isinstance(value, np.ndarray):
            assert value.nbytes <= len(data)
