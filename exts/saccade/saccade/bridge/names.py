"""ROS 2 names: resolved by namespace and remapping, checked, and as DDS spells them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from saccade.errors import ConfigurationError

TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
TYPE = re.compile(r"([a-z][a-z0-9_]*)/msg/([A-Z][A-Za-z0-9]*)")
DDS_TYPE = re.compile(r"([a-z][a-z0-9_]*)::msg::dds_::([A-Z][A-Za-z0-9]*)_")
TOPIC_PREFIX = "rt"
"""What ROS 2 puts before a topic's name on the wire."""


def resolve(name: str, *, namespace: str = "/", node: str = "", remap: Mapping[str, str] | None = None) -> str:
    """Returns the absolute name that ``name`` stands for.

    Args:
        name: ``/absolute``, ``relative`` to the namespace, or ``~/private`` to the node.
        namespace: The node's namespace, absolute.
        node: The node's name, for private names.
        remap: Names and what replaces them, both in any of the three forms.

    Raises:
        ConfigurationError: A name is not one that ROS 2 allows.
    """
    absolute = _absolute(name, namespace, node)
    for old, new in (remap or {}).items():
        if _absolute(old, namespace, node) == absolute:
            return _absolute(new, namespace, node)
    return absolute


def full_node_name(node: str, namespace: str = "/") -> str:
    """Returns the node's name with its namespace, such as ``/lab/saccade``, after a check of both.

    Raises:
        ConfigurationError: One of them is not a name that ROS 2 allows.
    """
    if not TOKEN.fullmatch(node) or "__" in node:
        raise ConfigurationError(
            f"ros2.node: {node!r} is no node name: letters, digits and single underscores, no digit first"
        )
    return _absolute(node, namespace, node)


def token(name: str) -> str:
    """Returns ``name`` with every character that a topic may not have as an underscore."""
    cleaned = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9_]", "_", name)).strip("_")
    return cleaned if TOKEN.fullmatch(cleaned) else f"_{cleaned}"


def dds_topic(name: str) -> str:
    """Returns the DDS topic of an absolute ROS 2 topic name."""
    return TOPIC_PREFIX + name


def ros_topic(topic: str) -> str | None:
    """Returns the ROS 2 name of a DDS topic, ``None`` where it is none of ROS 2's plain topics."""
    return topic[len(TOPIC_PREFIX) :] if topic.startswith(f"{TOPIC_PREFIX}/") else None


def dds_type(type_name: str) -> str:
    """Returns the DDS spelling of ``package/msg/Type``.

    Raises:
        ConfigurationError: It is not of that form.
    """
    match = TYPE.fullmatch(type_name)
    if match is None:
        raise ConfigurationError(f"{type_name!r} is no message type: expected package/msg/Type")
    return f"{match[1]}::msg::dds_::{match[2]}_"


def ros_type(type_name: str) -> str:
    """Returns ``package/msg/Type`` of a DDS type name; one that is none of ROS 2's stays as it is."""
    match = DDS_TYPE.fullmatch(type_name)
    return f"{match[1]}/msg/{match[2]}" if match else type_name


def _absolute(name: str, namespace: str, node: str) -> str:
    if not namespace.startswith("/"):
        raise ConfigurationError(f"ros2.namespace: {namespace!r} must start with '/'")
    base = namespace.rstrip("/")
    if name.startswith("/"):
        absolute = name
    elif name.startswith("~/"):
        absolute = f"{base}/{node}/{name[2:]}"
    else:
        absolute = f"{base}/{name}"
    for part in absolute[1:].split("/"):
        if not TOKEN.fullmatch(part) or "__" in part:
            raise ConfigurationError(
                f"{name!r} (in {namespace!r}) is no ROS 2 name: between slashes come letters, digits and single "
                f"underscores, no digit first"
            )
    return absolute
