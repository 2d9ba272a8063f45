"""``saccade node`` on images that a plain rclpy publishes, and its results as rclpy receives them."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
from tests.interop.conftest import ROOT, TRANSPORT, packed, unpacked, until
from tests.ros_messages import sample

IMAGE = "sensor_msgs/msg/Image"
FLOAT = "std_msgs/msg/Float32"
DIAGNOSTICS = "diagnostic_msgs/msg/DiagnosticArray"


def test_images_to_results(peer, domain, tmp_path):
    """Each image of rclpy that is processed gives one result and one latency; after Ctrl-C the sums add up.

    Images whose size does not match their data, or of an unknown encoding, are refused and told meanwhile.
    """
    if TRANSPORT != "dds":
        pytest.skip("the engine is not in the peer's Python")
    from tests.onnx_models import camera_network

    from saccade.bridge import messages

    camera_network(tmp_path / "net.onnx", hazard=0.75)
    node = subprocess.Popen(
        [
            *(sys.executable, "-m", "saccade", "node", str(tmp_path / "net.onnx"), "--json", "--device", "cpu"),
            *("--set", f"ros2.domain={domain}", "--set", "ros2.transport=dds", "--set", "ros2.queue=100"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "exts" / "saccade")},
    )
    image = sample(IMAGE)
    image.height, image.width, image.encoding, image.step = 48, 64, "bgr8", 200
    image.data = np.zeros(48 * 200, np.uint8)
    picture = {"topic": "/camera/image_raw", "type": IMAGE, "data": packed(messages.encode(image))}
    topics = ("/ai/inference_result", "/ai/inference_latency")
    try:
        for topic in topics:
            peer.ask("subscribe", topic=topic, type=FLOAT)
        peer.ask("advertise", topic="/camera/image_raw", type=IMAGE)

        def answered() -> bool:
            assert node.poll() is None, "the node has ended"
            peer.ask("publish", **picture)
            return all(peer.ask("count", topic=topic)["count"] >= 5 for topic in topics)

        until(answered, seconds=90)
        info = peer.ask("graph", topics=["/ai/inference_result"])["infos"]["/ai/inference_result"]
        assert "/saccade" in [found["node"] for found in info if found["publishes"]]
        peer.ask("subscribe", topic="/diagnostics", type=DIAGNOSTICS)
        before = peer.ask("count", topic="/ai/inference_result")["count"]

        def told(data: str, why: str) -> bool:
            assert node.poll() is None, "the node has ended"
            peer.ask("publish", **{**picture, "data": data})
            said = [messages.decode(unpacked(raw), DIAGNOSTICS) for raw in peer.report("/diagnostics")["raw"]]
            return any(why in status.message for one in said for status in one.status)

        image.height = 4800
        short = packed(messages.encode(image))
        until(lambda: told(short, "4800 rows of 200 bytes are announced"))
        image.height, image.encoding = 48, "yuv422"
        unknown = packed(messages.encode(image))
        until(lambda: told(unknown, "'yuv422' is not known"))
        until(
            lambda: peer.ask("publish", **picture) is not None and peer.ask("count", topic=topics[0])["count"] > before
        )
        node.send_signal(signal.SIGINT)
        out, err = node.communicate(timeout=60)
    finally:
        node.kill()
        node.communicate()
    assert node.returncode == 0, err
    summary = json.loads(out)
    frames = summary["pipeline"]["frames"]
    assert frames["produced"] == frames["consumed"] + sum(frames["dropped"].values())
    assert summary["refused"] >= 2
    assert (summary["failure"], frames["in_flight"]) == (None, 0)
    values = [struct.unpack("<f", unpacked(data)[4:8])[0] for data in peer.report("/ai/inference_result")["raw"]]
    assert set(values) == {0.75}
    assert 5 <= peer.report("/ai/inference_result")["count"] <= frames["consumed"]
