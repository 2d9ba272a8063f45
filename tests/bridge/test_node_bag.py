"""A node on a bag: every message of its topics, in order, paced or not; bad ones counted; exit status and summary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags")

from tests.bridge.bags import colour, stamped, write_bag
from tests.bridge.doubles import KeptTransport
from tests.bridge.test_inputs import cloud
from tests.onnx_models import camera_network, lidar_network

from saccade.bridge import contents, messages
from saccade.bridge.bag_reader import BagReader
from saccade.bridge.node import PerceptionNode
from saccade.bridge.node_bag import check_topics, feed
from saccade.bridge.node_configuration import node_configuration, sensor_topics
from saccade.errors import RecordError

ROOT = Path(__file__).resolve().parents[2]


def fed(model, bag, *, topics=(), rate=0.0, stopped=None, before=lambda node: None, **arguments):
    """Feeds a bag to a node; returns what was fed, the node's summary and the transport."""
    loaded = node_configuration(str(model), device="cpu")
    wanted = sensor_topics(loaded.config, topics)
    transport = KeptTransport()
    with BagReader(bag) as reader:
        check_topics(reader, loaded.config, wanted)
        node = PerceptionNode(loaded, topics=wanted, transport=transport, subscribed=False, **arguments)
        before(node)
        try:
            facts = feed(reader, node, rate=rate, stopped=stopped or threading.Event())
        finally:
            node.close()
    return facts, node.summary(), transport


def sent(transport, topic, type_name):
    return [messages.decode(data, type_name) for data in transport.publications[topic].sent]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_every_image(tmp_path, storage):
    """As fast as processed nothing is dropped, however short the queue: each image has its result, with its stamp."""
    camera_network(tmp_path / "net.onnx", size=(8, 8), hazard=0.25)
    times = [100.0 + 0.1 * index for index in range(30)]
    entries = [("/camera/image_raw", at, stamped(colour(index), at)) for index, at in enumerate(times)]
    bag = write_bag(tmp_path / "bag", [*entries, ("/other", 100.0, contents.number(1.0))], storage=storage)
    facts, summary, transport = fed(tmp_path / "net.onnx", bag, queue=1)
    assert (facts["messages"], facts["unreadable"], facts["complete"]) == (30, 0, True)
    frames = summary["pipeline"]["frames"]
    assert (frames["produced"], frames["consumed"], sum(frames["dropped"].values())) == (30, 30, 0)
    labels = sent(transport, "/ai/labels", "sensor_msgs/msg/Image")
    stamps = [label.header.stamp.sec * 10**9 + label.header.stamp.nanosec for label in labels]
    # The bridge's own queue may drop, but what comes is in order and has the stamps of the bag.
    assert stamps == sorted(stamps)
    assert set(stamps) <= {round(at * 1e9) for at in times}
    assert transport.receivers == {}


def test_points(tmp_path):
    """Clouds feed a LiDAR's network."""
    lidar_network(tmp_path / "net.onnx", clearance=3.5)
    entries = [("/scan", index * 0.1, cloud({name: np.ones(9, "f4") for name in "xyz"})) for index in range(5)]
    _, summary, transport = fed(tmp_path / "net.onnx", write_bag(tmp_path / "bag", entries), topics=["/scan"])
    assert summary["pipeline"]["frames"]["consumed"] == 5
    assert sent(transport, "/ai/inference_result", "std_msgs/msg/Float32")[0].data == 3.5


def test_paced(tmp_path):
    """With a rate messages come at the recorded distances over it: never early."""
    camera_network(tmp_path / "net.onnx", size=(8, 8))
    entries = [("/camera/image_raw", 5.0 + 0.2 * index, colour(index)) for index in range(4)]
    times: list[float] = []

    def listen(node):
        submit = node.submit
        node.submit = lambda *arguments: (times.append(time.monotonic()), submit(*arguments))

    facts, _, _ = fed(tmp_path / "net.onnx", write_bag(tmp_path / "bag", entries), rate=4.0, before=listen, queue=8)
    assert facts["messages"] == 4
    for index, at in enumerate(times):
        assert at - times[0] >= index * 0.05 - facts["late_ms"] * 1e-3 - 1e-6


def test_bad_messages(tmp_path):
    """Bytes that are no image are counted where they are read, images that cannot be used where they are processed."""
    camera_network(tmp_path / "net.onnx", size=(8, 8))
    unknown = colour(1)
    unknown.encoding = "yuv422"
    image = "sensor_msgs/msg/Image"
    entries = [colour(0), (image, b"\0\1\0\0 nothing"), unknown, colour(2)]
    bag = write_bag(tmp_path / "bag", [("/camera/image_raw", 0.1 * i, entry) for i, entry in enumerate(entries)])
    facts, summary, _ = fed(tmp_path / "net.onnx", bag)
    assert (facts["messages"], facts["unreadable"]) == (4, 1)
    assert "are no sensor_msgs/msg/Image" in facts["unreadable_reason"]
    assert (summary["refused"], summary["pipeline"]["frames"]["produced"]) == (1, 3)
    assert "yuv422" in summary["refusal"]


def test_missing_topic(tmp_path):
    """The default topic is not in the bag: the error lists the images that are, before anything is loaded."""
    camera_network(tmp_path / "net.onnx", size=(8, 8))
    bag = write_bag(tmp_path / "bag", [("/head/image", 0.0, colour(1))])
    with pytest.raises(RecordError, match=r"no topic /camera/image_raw .*/head/image: .*--topic camera=TOPIC"):
        fed(tmp_path / "net.onnx", bag)


def test_stopped(tmp_path):
    """A stop in mid-bag ends it at once; what was handed over is accounted for."""
    camera_network(tmp_path / "net.onnx", size=(8, 8))
    bag = write_bag(tmp_path / "bag", [("/camera/image_raw", float(index), colour(index)) for index in range(3)])
    stopped = threading.Event()
    threading.Timer(0.3, stopped.set).start()
    start = time.monotonic()
    facts, summary, _ = fed(tmp_path / "net.onnx", bag, rate=1e-3, stopped=stopped)
    assert (facts["messages"], facts["complete"]) == (1, False)
    assert summary["pipeline"]["frames"]["produced"] == 1
    assert time.monotonic() - start < 100


def started(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "exts" / "saccade"), "COLUMNS": "200"}
    command = [sys.executable, "-m", "saccade", "node", *map(str, arguments), "--device", "cpu"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_command(tmp_path):
    """The command ends with the bag: status 0 and the sums; 3 where a message was unusable; 2 where none can be."""
    pytest.importorskip("cyclonedds")
    camera_network(tmp_path / "net.onnx", size=(8, 8))
    domain = ("--set", f"ros2.domain={120 + os.getpid() % 80}", "--set", "ros2.transport=dds")
    images = [("/camera/image_raw", 0.1 * index, colour(index)) for index in range(6)]
    good = write_bag(tmp_path / "good", images)
    done = started(tmp_path / "net.onnx", "--bag", good / "good.mcap", "--bag-rate", 0, "--json", *domain)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["bag"]["messages"], summary["pipeline"]["frames"]["consumed"]) == (6, 6)
    bad = write_bag(tmp_path / "bad", [*images, ("/camera/image_raw", 1.0, ("sensor_msgs/msg/Image", b"\0\1\0\0"))])
    done = started(tmp_path / "net.onnx", "--bag", bad, "--bag-rate", 0, *domain)
    assert done.returncode == 3, done.stderr
    assert "bag: 7 messages of" in done.stdout and "1 of them unreadable" in done.stdout
    missing = started(tmp_path / "net.onnx", "--bag", tmp_path / "none.mcap", *domain)
    assert (missing.returncode, "Traceback" in missing.stderr) == (2, False)
    assert "there is no such bag" in missing.stderr
