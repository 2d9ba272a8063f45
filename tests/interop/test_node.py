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


def test_images_to_results(peer, domain, tmp_path):
    """Each image of rclpy that is processed gives one result and one latency; after Ctrl-C the sums add up."""
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
        node.send_signal(signal.SIGINT)
        out, err = node.communicate(timeout=60)
    finally:
        node.kill()
        node.communicate()
    assert node.returncode == 0, err
    summary = json.loads(out)
    frames = summary["pipeline"]["frames"]
    assert frames["produced"] == frames["consumed"] + sum(frames["dropped"].values())
    assert (summary["refused"], summary["failure"], frames["in_flight"]) == (0, None, 0)
    values = [struct.unpack("<f", unpacked(data)[4:8])[0] for data in peer.report("/ai/inference_result")["raw"]]
    assert set(values) == {0.75}
    assert 5 <= peer.report("/ai/inference_result")["count"] <= frames["consumed"]
