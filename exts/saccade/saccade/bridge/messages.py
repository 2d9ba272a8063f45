"""Messages: made by type name, serialised and read by rosbags, hostile bytes refused."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from saccade.errors import DependencyError

if TYPE_CHECKING:
    from rosbags.interfaces import Typestore

ROS_EXTRA = "pip install 'saccade[ros]'"

HEADER_SIZE = 4
"""Of CDR's encapsulation: byte order and options [B]."""

VISION_DEFINITIONS = {
    "Point2D": "float64 x\nfloat64 y",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "ObjectHypothesis": "string class_id\nfloat64 score",
    "ObjectHypothesisWithPose": "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose",
    "Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox2D bbox\nstring id"
    ),
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections",
}
"""Fields of vision_msgs 4, which rosbags does not bring."""


class MessageError(Exception):
    """Bytes that are not a message of their topic's type; the text says what is wrong with them."""


def new(type_name: str, **fields: Any) -> Any:
    """Returns a message of ``package/msg/Type``; all its fields must be given, array fields as NumPy arrays."""
    return store().types[type_name](**fields)


def encode(message: Any) -> memoryview:
    """Returns the message in little-endian CDR with its encapsulation header, padded to four bytes.

    Args:
        message: From :func:`new` or :func:`decode`.
    """
    data = store().serialize_cdr(message, message.__msgtype__, little_endian=True)
    missing = -len(data) % 4
    return memoryview(bytes(data) + bytes(missing)) if missing else data


def decode(data: bytes | memoryview, type_name: str) -> Any:
    """Returns the message; its array fields are views of ``data``.

    Args:
        data: CDR of either byte order, with its encapsulation header.
        type_name: ``package/msg/Type``.

    Raises:
        MessageError: ``data`` is truncated or otherwise no message of that type.
    """
    try:
        # Not deserialize_cdr of the store: it refuses bytes after the end, and Fast DDS sends some after a message
        # that ends with empty sequences, such as a joint command without efforts.
        if len(data) < HEADER_SIZE or bytes(data[:2]) not in (b"\0\0", b"\0\1"):
            raise ValueError("no CDR encapsulation header")
        definition = store().get_msgdef(type_name)
        read = definition.deserialize_cdr_le if data[1] else definition.deserialize_cdr_be
        message, end = read(memoryview(data)[HEADER_SIZE:], 0, definition.cls, store())
        if end > len(data) - HEADER_SIZE:
            raise ValueError("truncated")
        return message
    except Exception as error:
        # Foreign bytes: whatever the generated reader stumbles over is theirs, and must not end a receiving thread.
        raise MessageError(f"{len(data)} bytes are no {type_name}: {error or type(error).__name__}") from error


def type_hash(type_name: str) -> str:
    """Returns the ``RIHS01_...`` hash by which ROS 2 since Iron identifies the type."""
    return store().hash_rihs01(type_name)


@cache
def store(distribution: str = "jazzy") -> Typestore:
    """Returns the message types of a ROS 2 distribution, with vision_msgs.

    Raises:
        DependencyError: rosbags is not installed.
    """
    try:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError as error:
        raise DependencyError(f"the ROS 2 bridge needs rosbags ({error}): {ROS_EXTRA}") from error
    types = get_typestore(Stores[f"ROS2_{distribution.upper()}"])
    for name, definition in VISION_DEFINITIONS.items():
        full = f"vision_msgs/msg/{name}"
        if full not in types.fielddefs:
            types.register(get_types_from_msg(definition, full))
    return types
