"""Bags for tests: written message by message, in both storages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from saccade.bridge import messages


def write_bag(folder: Path, entries, *, storage: str = "mcap", version: int = 8, compress: str | None = None) -> Path:
    """Writes ``(topic, seconds, message)`` or ``(topic, seconds, (type, bytes))`` to a rosbag2 folder."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
    writer = Writer(folder, version=version, storage_plugin=plugin)
    if compress:
        writer.set_compression(CompressionMode[compress.upper()], CompressionFormat.ZSTD)
    with writer:
        connections: dict[str, Any] = {}
        for topic, seconds, message in entries:
            kind, data = message if isinstance(message, tuple) else (message.__msgtype__, messages.encode(message))
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=messages.store())
            if data is not None:
                writer.write(connections[topic], round(seconds * 1e9), bytes(data))
    return folder


def stamped(message: Any, seconds: float) -> Any:
    """The message with its header's time set."""
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(round(seconds * 1e9), 10**9)
    return message


def colour(value: int, height: int = 8, width: int = 8):
    """An rgb8 image of one colour, each channel another."""
    from tests.bridge.test_inputs import image

    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:] = (value, 255 - value, 7)
    return image(pixels, "rgb8")
