"""Names: resolved by namespace and remapping, refused where ROS 2 would refuse them, and as DDS spells them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saccade.bridge import names
from saccade.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/camera/image_raw", "/camera/image_raw"),
        ("camera/image_raw", "/lab/camera/image_raw"),
        ("~/pause", "/lab/saccade/pause"),
        ("/old", "/new"),
        ("relative_old", "/lab/replaced"),
    ],
)
def test_resolve(name, expected):
    """Absolute, relative and private names resolve as in rclpy, and remapping compares resolved names."""
    remap = {"/old": "/new", "/lab/relative_old": "replaced"}
    assert names.resolve(name, namespace="/lab", node="saccade", remap=remap) == expected


@pytest.mark.parametrize("name", ["", "/", "/a//b", "/1a", "a b", "/a/", "/a__b", "/ä", "~/", "/a-b"])
def test_refused(name):
    """What ROS 2 does not allow is a configuration error that quotes the name."""
    with pytest.raises(ConfigurationError) as caught:
        names.resolve(name, namespace="/", node="saccade")
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("node", ["", "1a", "a/b", "a b", "a__b"])
def test_node_refused(node):
    """A node's name has no slash, space or leading digit."""
    with pytest.raises(ConfigurationError, match=r"ros2\.node"):
        names.full_node_name(node)


def test_relative_namespace_refused():
    """A namespace is absolute."""
    with pytest.raises(ConfigurationError, match="must start with '/'"):
        names.full_node_name("saccade", "lab")


@given(st.text())
def test_token_is_a_name(text):
    """Whatever a sensor is called, its token is a name part that ROS 2 allows."""
    assert names.resolve(f"/{names.token(text)}") == f"/{names.token(text)}" or names.token(text) == "_"


def test_dds_spelling():
    """Topics and types go over to DDS and back as ROS 2 spells them."""
    assert names.dds_topic("/camera/image_raw") == "rt/camera/image_raw"
    assert names.ros_topic("rt/camera/image_raw") == "/camera/image_raw"
    assert names.ros_topic("rq/service") is None
    assert names.dds_type("sensor_msgs/msg/Image") == "sensor_msgs::msg::dds_::Image_"
    assert names.ros_type("sensor_msgs::msg::dds_::Image_") == "sensor_msgs/msg/Image"
    assert names.ros_type("Foreign") == "Foreign"
    with pytest.raises(ConfigurationError, match="package/msg/Type"):
        names.dds_type("Image")
