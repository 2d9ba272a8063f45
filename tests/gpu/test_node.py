"""``saccade node`` on a GPU: a pinned, declared upload of each message, TensorRT in a graph, the results back."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rosbags")

from tests.bridge.doubles import KeptTransport
from tests.bridge.test_inputs import image
from tests.onnx_models import camera_network

from saccade.bridge import messages
from saccade.bridge.node import PerceptionNode
from saccade.bridge.node_configuration import node_configuration, sensor_topics

pytestmark = pytest.mark.gpu
WIDTH, HEIGHT = 64, 48


@pytest.fixture(scope="module", autouse=True)
def tensorrt(tmp_path_factory):
    """TensorRT, with engines kept in a folder of this module."""
    module = pytest.importorskip("tensorrt", exc_type=ImportError)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SACCADE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield module


def heard(path, device, engine, pictures):
    """Labels and hazards that a node publishes for pictures, and what it says of itself at the end."""
    loaded = node_configuration(str(path), device=device, engine=engine)
    transport = KeptTransport()
    node = PerceptionNode(loaded, topics=sensor_topics(loaded.config), transport=transport, queue=4, policy="block")
    try:
        for number, pixels in enumerate(pictures):
            transport.give("/camera/image_raw", image(pixels, "bgr8", padding=8))
            deadline = time.monotonic() + 120
            while node.pipeline.counters().results.consumed <= number:
                assert time.monotonic() < deadline, node.pipeline.counters()
                time.sleep(0.002)
            assert node.bridge.flush(10)
    finally:
        node.close()
    labels = [messages.decode(data, "sensor_msgs/msg/Image") for data in transport.publications["/ai/labels"].sent]
    values = transport.publications["/ai/inference_result"].sent
    hazards = [messages.decode(data, "std_msgs/msg/Float32").data for data in values]
    return [np.array(one.data) for one in labels], hazards, node.summary()


def test_images_are_uploaded_pinned_and_give_the_cpu_s_results(tmp_path):
    """Labels and hazards are ONNX Runtime's; the upload is declared with its bytes, and only the labels come down."""
    path = camera_network(tmp_path / "net.onnx", hazard=0.25)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(6)]
    wanted_labels, wanted_hazards, on_cpu = heard(path, "cpu", "onnxruntime", pictures)
    labels, hazards, summary = heard(path, "cuda", "tensorrt", pictures)
    assert (summary["failure"], summary["refused"]) == (None, 0)
    assert len(labels) == len(hazards) == len(pictures)
    assert hazards == pytest.approx(wanted_hazards, abs=1e-3)
    for found, wanted in zip(labels, wanted_labels, strict=True):
        assert np.mean(found == wanted) > 0.99
    assert summary["execution"]["mode"] == "graph", summary["execution"]["reason"]
    assert summary["execution"]["scope"] == "buffers"
    assert summary["execution"]["replays"] == len(pictures)
    residency = summary["residency"]
    assert residency["declared_uploads"] == {"camera.message": WIDTH * HEIGHT * 3}
    assert on_cpu["residency"]["declared_uploads"] == {}
    if residency["proven"]:
        assert residency["host_to_device_bytes"] == 0  # within the graph: the message's way is the declared one


def test_the_upload_comes_from_pinned_memory():
    """Pageable memory would make the host wait for the copy, through a buffer of the driver's."""
    from saccade.bridge.node_source import _Buffer

    values = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
    buffer = _Buffer("color", values, "cuda:0")
    assert buffer._host.pinned and buffer.array.device.is_cuda
    buffer.fill(values)
    assert np.array_equal(buffer.array.numpy(), values)
    points = np.arange(30, dtype=np.float32).reshape(10, 3)
    cloud = _Buffer("points", points, "cuda:0")
    cloud.fill(points)
    assert np.array_equal(cloud.array.numpy(), points)
