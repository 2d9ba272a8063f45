"""What a node runs: from a model alone, from a configuration, and which topics feed it."""

from __future__ import annotations

import pytest
from tests.onnx_models import camera_network, lidar_network, save_network

from saccade.bridge.node_configuration import node_configuration, sensor_topics
from saccade.errors import ConfigurationError, ModelError


def test_from_camera_model(tmp_path):
    """A network with an image as input gets a camera of its size, its named outputs are decoded."""
    camera_network(tmp_path / "net.onnx", size=(12, 20))
    config = node_configuration(str(tmp_path / "net.onnx"), overrides=["ros2.domain=7"], device="cpu").config
    assert (config.sensors["camera"].height, config.sensors["camera"].width) == (12, 20)
    decoder = config.networks["camera"].decoder
    assert (decoder.labels, decoder.hazard, decoder.clearance) == ("labels", "hazard", None)
    assert (config.ros2.domain, config.simulator.device) == (7, "cpu")
    assert sensor_topics(config) == {"camera": "/camera/image_raw"}
    assert sensor_topics(config, ["/head"]) == sensor_topics(config, ["camera=/head"]) == {"camera": "/head"}


def test_from_lidar_model(tmp_path):
    """A network with a range image as input gets a LiDAR of its channels and columns."""
    lidar_network(tmp_path / "net.onnx", channels=4, columns=32)
    config = node_configuration(str(tmp_path / "net.onnx")).config
    assert (config.sensors["lidar"].channels, config.sensors["lidar"].columns) == (4, 32)
    assert config.networks["lidar"].decoder.clearance == "clearance"
    assert sensor_topics(config) == {"lidar": "/lidar/points"}


def test_outputs_of_another_shape(tmp_path):
    """An output with a known name and another shape is not decoded."""
    from onnx import helper

    path = tmp_path / "net.onnx"
    nodes = [helper.make_node("Identity", ["image"], ["labels"])]
    save_network(path, inputs={"image": ["n", 3, "h", "w"]}, outputs={"labels": ["n", 3, "h", "w"]}, nodes=nodes)
    config = node_configuration(str(path)).config
    assert config.networks["camera"].decoder.labels is None
    assert config.sensors["camera"].width == 224


@pytest.mark.parametrize("shape", [[1, 4, 8, 8], [1, 10]])
def test_no_such_sensor(tmp_path, shape):
    """A network that takes neither image nor range image is refused with its inputs."""
    from onnx import helper

    path = tmp_path / "net.onnx"
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    save_network(path, inputs={"x": shape}, outputs={"y": shape}, nodes=nodes)
    with pytest.raises(ModelError, match=r"x \[1, "):
        node_configuration(str(path))


def test_no_model(tmp_path):
    """A plan, and a file that is no network, are refused with what to do."""
    with pytest.raises(ModelError, match="configuration file"):
        node_configuration("some.plan")
    (tmp_path / "net.onnx").write_text("nothing")
    with pytest.raises(ModelError, match="Is it an ONNX file"):
        node_configuration(str(tmp_path / "net.onnx"))


def test_from_configuration():
    """A configuration brings all its networks; each sensor has the usual topic where it is the only one of its kind."""
    config = node_configuration("warehouse").config
    assert sensor_topics(config) == {"head_camera": "/camera/image_raw", "lidar": "/lidar/points"}
    assert sensor_topics(config, ["lidar=/velodyne"])["lidar"] == "/velodyne"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (["/head"], "say for which sensor, head_camera or lidar"),
        (["eye=/head"], "no network reads a sensor 'eye'"),
        (["lidar=/camera/image_raw"], "a topic of its own"),
    ],
)
def test_topics_refused(wanted, told):
    """A topic that cannot be assigned is refused."""
    with pytest.raises(ConfigurationError, match=told):
        sensor_topics(node_configuration("warehouse").config, wanted)


def test_several_cameras_at_once():
    """An input that waits for several cameras is refused: messages arrive one by one."""
    overrides = [
        "sensors.left={kind: camera, prim: left, rate: 10}",
        "networks.camera.inputs.image.sensor=[head_camera, left]",
    ]
    with pytest.raises(ConfigurationError, match="waits for 2 cameras at once"):
        node_configuration("warehouse", overrides=overrides)
