"""The perception node: messages in, results out, every message accounted for, bad ones told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags")

from tests.bridge.doubles import KeptTransport
from tests.bridge.test_inputs import cloud, image
from tests.onnx_models import camera_network, lidar_network, save_network

from saccade.bridge import messages
from saccade.bridge.node import PerceptionNode
from saccade.bridge.node_configuration import node_configuration, sensor_topics

ROOT = Path(__file__).resolve().parents[2]


def opened(path, *, overrides=(), topics=(), **arguments):
    """A node on a transport that only remembers."""
    loaded = node_configuration(str(path), overrides=overrides, device="cpu")
    transport = arguments.pop("transport", None) or KeptTransport()
    return PerceptionNode(
        loaded, topics=sensor_topics(loaded.config, topics), transport=transport, **arguments
    ), transport


def sent(transport, topic, type_name):
    return [messages.decode(data, type_name) for data in transport.publications[topic].sent]


def settled(node, count):
    """Waits until so many messages have been processed."""
    deadline = time.monotonic() + 20
    while node.pipeline.counters().results.consumed < count:
        assert time.monotonic() < deadline, node.pipeline.counters()
        time.sleep(0.005)


def test_image_to_results(tmp_path):
    """An image gives hazard, latency, labels with the image's own stamp and frame; a blue image is class 2."""
    camera_network(tmp_path / "net.onnx", size=(8, 8), hazard=0.25)
    node, transport = opened(tmp_path / "net.onnx")
    assert node.topics == {"camera": "/camera/image_raw"}
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :, 0] = 255  # of bgr8: blue
    message = image(pixels, "bgr8", padding=4)
    message.header.stamp.sec, message.header.stamp.nanosec = 1_790_000_000, 123_456_789
    transport.give("/camera/image_raw", message)
    settled(node, 1)
    node.close()
    (result,) = sent(transport, "/ai/inference_result", "std_msgs/msg/Float32")
    (latency,) = sent(transport, "/ai/inference_latency", "std_msgs/msg/Float32")
    (labels,) = sent(transport, "/ai/labels", "sensor_msgs/msg/Image")
    assert result.data == 0.25
    assert latency.data > 0
    assert (labels.header.stamp.sec, labels.header.stamp.nanosec) == (1_790_000_000, 123_456_789)
    assert labels.header.frame_id == message.header.frame_id
    assert set(labels.data.tolist()) == {2}
    assert transport.closed


def test_points_to_clearance(tmp_path):
    """A cloud gives clearance, and its first sector as the result; clouds of several sizes are taken."""
    lidar_network(tmp_path / "net.onnx", clearance=3.5)
    node, transport = opened(tmp_path / "net.onnx", topics=["/velodyne"])
    for count in (1, 0, 3000):
        transport.give("/velodyne", cloud({name: np.ones(max(count, 1), "f4") for name in "xyz"}))
    node.close()
    assert node.summary()["refused"] == 0
    found = sent(transport, "/ai/clearance", "std_msgs/msg/Float32MultiArray")
    assert [message.data.tolist() for message in found] == [[3.5] * 16] * len(found)
    assert sent(transport, "/ai/inference_result", "std_msgs/msg/Float32")[0].data == 3.5
    counters = node.pipeline.counters()
    assert counters.frames.produced == 3 == counters.frames.consumed + counters.frames.dropped_total


def test_points_in_any_order(tmp_path):
    """The cloud's points land in their cells: what is in front is range over scale in column 0, whatever the order."""
    lidar_network(tmp_path / "net.onnx", channels=4, columns=32)
    node, _ = opened(tmp_path / "net.onnx")
    points = {"x": np.array([0.0, 6.0], "f4"), "y": np.array([3.0, 0.0], "f4"), "z": np.zeros(2, "f4")}
    node.submit("lidar", cloud(points))
    settled(node, 1)
    ranges = node.networks["lidar"].input_array("range_image").numpy()[0, 0].copy()
    node.close()
    assert ranges[:, 0].max() == pytest.approx(6 / 30)
    assert ranges[:, 8].max() == pytest.approx(3 / 30)
    assert np.count_nonzero(ranges) == 2


def test_first_output(tmp_path):
    """Without hazard and clearance the result is the first output's first value."""
    from onnx import helper

    path = tmp_path / "net.onnx"
    nodes = [helper.make_node("ReduceMax", ["image"], ["top"], axes=[2, 3], keepdims=0)]
    save_network(path, inputs={"image": [1, 3, 8, 8]}, outputs={"top": [1, 3]}, nodes=nodes)
    settings = ["networks.camera.inputs.image.mean=[0, 0, 0]", "networks.camera.inputs.image.std=[1, 1, 1]"]
    node, transport = opened(path, overrides=settings)
    transport.give("/camera/image_raw", image(np.full((8, 8, 3), 51, np.uint8), "rgb8"))
    settled(node, 1)
    node.close()
    assert sent(transport, "/ai/inference_result", "std_msgs/msg/Float32")[0].data == pytest.approx(0.2)


def test_bad_messages_end_nothing(tmp_path):
    """Depth, an unknown encoding, missing data and bytes that are no image are counted and told; the next one runs."""
    camera_network(tmp_path / "net.onnx")
    node, transport = opened(tmp_path / "net.onnx", queue=8)
    good = image(np.zeros((4, 4, 3), np.uint8), "rgb8")
    short = image(np.zeros((4, 4, 3), np.uint8), "rgb8")
    short.height = 5
    unknown = image(np.zeros((4, 4, 3), np.uint8), "rgb8")
    unknown.encoding = "yuv422"
    for message in (image(np.zeros((4, 4), "<u2"), "16UC1"), short, unknown, good):
        transport.give("/camera/image_raw", message)
    transport.receivers["/camera/image_raw"](b"\0\1\0\0 nothing")
    settled(node, 4)
    node.diagnose()
    node.close()
    summary = node.summary()
    assert (summary["refused"], summary["failure"]) == (3, None)
    assert "'yuv422' is not known" in summary["refusal"]
    assert summary["ros2"]["topics"]["/camera/image_raw"]["refused"] == 1
    assert len(sent(transport, "/ai/inference_result", "std_msgs/msg/Float32")) == 1
    status = sent(transport, "/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")[0].status[0]
    assert (status.level, "yuv422" in status.message) == (1, True)
    assert {value.key: value.value for value in status.values}["refused"] == "3"


def test_sizes_are_bounded(tmp_path):
    """A source that changes its size with every message is refused from the ninth size on: memory stays bounded."""
    camera_network(tmp_path / "net.onnx")
    node, _ = opened(tmp_path / "net.onnx", queue=32)
    for width in range(4, 16):
        node.submit("camera", image(np.zeros((4, width, 3), np.uint8), "rgb8"))
    settled(node, 12)
    node.close()
    assert node.refused == 12 - 7  # the warm-up's size is one of the eight
    assert "9th size" in node.refusal


def test_flood_is_balanced(tmp_path):
    """More messages than it can take: produced = consumed + dropped, and nothing stays in flight."""
    camera_network(tmp_path / "net.onnx", size=(64, 64))
    node, _ = opened(tmp_path / "net.onnx", queue=2)
    message = image(np.zeros((480, 640, 3), np.uint8), "rgb8")
    threads = [threading.Thread(target=lambda: [node.submit("camera", message) for _ in range(200)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    node.close()
    node.submit("camera", message)  # a source that runs on does no harm
    frames = node.pipeline.counters().frames
    assert frames.produced == 401 == frames.consumed + frames.dropped_total
    assert (frames.in_flight, frames.dropped["closed"]) == (0, 1)


def test_process_over_dds(tmp_path):
    """``saccade node`` in a process of its own, over DDS: results arrive, Ctrl-C ends it in order, the sums add up."""
    pytest.importorskip("cyclonedds")
    from saccade.bridge.bridge import Bridge
    from saccade.bridge.selection import open_transport
    from saccade.config import Ros2Config

    camera_network(tmp_path / "net.onnx", hazard=0.75)
    domain = 120 + os.getpid() % 80
    command = [sys.executable, "-m", "saccade", "node", str(tmp_path / "net.onnx"), "--json", "--device", "cpu"]
    command += ["--set", f"ros2.domain={domain}", "--set", "ros2.transport=dds"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "exts" / "saccade")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    config = Ros2Config(domain=domain, transport="dds", node="camera")
    transport, _ = open_transport(config)
    bridge = Bridge(transport, config)
    heard: list[float] = []
    try:
        bridge.subscribe("/ai/inference_result", "std_msgs/msg/Float32", lambda message: heard.append(message.data))
        camera = bridge.advertise("/camera/image_raw", "sensor_msgs/msg/Image", preset="reliable_sensor")
        message = image(np.zeros((48, 64, 3), np.uint8), "rgb8")
        deadline = time.monotonic() + 60
        while len(heard) < 3:
            assert time.monotonic() < deadline and process.poll() is None
            camera.publish(message)
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
        bridge.close()
    assert process.returncode == 0, err
    assert set(heard) == {0.75}
    frames = json.loads(out)["pipeline"]["frames"]
    assert frames["consumed"] >= 3
    assert frames["produced"] == frames["consumed"] + sum(frames["dropped"].values()) + frames["in_flight"]
    assert frames["in_flight"] == 0
    assert "listening to /camera/image_raw (camera)" in err
