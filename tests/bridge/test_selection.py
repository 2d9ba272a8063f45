"""Which transport is chosen, and that the reason names what is wrong and what helps."""

from __future__ import annotations

import sys

import pytest

from saccade.bridge.selection import choose, distribution
from saccade.errors import DependencyError


def importing(*there: str, fails: str = "No module named 'rclpy'"):
    """An import that knows only the modules ``there``."""

    def load(name: str) -> object:
        if name.split(".", 1)[0] not in there:
            raise ImportError(fails)
        return object()

    return load


def test_rclpy_first(tmp_path):
    """Where both import, ``auto`` takes rclpy; either can be insisted on."""
    both = importing("rclpy", "cyclonedds", "rosbags")
    assert choose("auto", importing=both, root=tmp_path).transport == "rclpy"
    assert choose("dds", importing=both, root=tmp_path).transport == "dds"
    assert choose("rclpy", importing=both, root=tmp_path).transport == "rclpy"


def test_dds_without_ros(tmp_path):
    """Without ROS 2, ``auto`` takes dds and says that rclpy is not installed for this Python."""
    choice = choose("auto", importing=importing("cyclonedds", "rosbags"), environment={}, root=tmp_path)
    assert choice.transport == "dds"
    assert f"not installed for Python {sys.version_info[0]}.{sys.version_info[1]}" in choice.reason


def test_other_python(tmp_path):
    """A ROS 2 for another Python is named with its place, its Python and the remedy."""
    package = tmp_path / "humble" / "local" / "lib" / "python3.7" / "dist-packages" / "rclpy"
    package.mkdir(parents=True)
    (package / "_rclpy_pybind11.cpython-37m-x86_64-linux-gnu.so").touch()
    choice = choose("auto", importing=importing("cyclonedds", "rosbags"), environment={}, root=tmp_path)
    assert choice.transport == "dds"
    assert f"the one in {tmp_path / 'humble'} is for Python 3.7" in choice.reason
    assert "run saccade with python3.7" in choice.reason


def test_not_sourced(tmp_path):
    """A ROS 2 for this Python that is not sourced: the remedy is its setup file."""
    mine = f"{sys.version_info[0]}{sys.version_info[1]}"
    package = tmp_path / "jazzy" / "lib" / f"python3.{sys.version_info[1]}" / "site-packages" / "rclpy"
    package.mkdir(parents=True)
    (package / f"_rclpy_pybind11.cpython-{mine}-x86_64-linux-gnu.so").touch()
    with pytest.raises(DependencyError) as caught:
        choose("rclpy", importing=importing(), environment={}, root=tmp_path)
    assert f"run 'source {tmp_path / 'jazzy'}/setup.bash'" in str(caught.value)


def test_missing_library(tmp_path):
    """A sourced Python path without the library path: the missing library is named."""
    fails = "librcl_action.so: cannot open shared object file: No such file or directory"
    with pytest.raises(DependencyError, match=r"librcl_action\.so is not found: source ROS 2's setup file"):
        choose("rclpy", importing=importing(fails=fails), environment={}, root=tmp_path)


def test_neither(tmp_path):
    """With neither, the error names both and the command that installs one."""
    with pytest.raises(DependencyError) as caught:
        choose("auto", importing=importing(), environment={}, root=tmp_path)
    assert "rclpy: not installed" in str(caught.value)
    assert "cyclonedds" in str(caught.value)


def test_distribution():
    """The distribution is as configured, else the sourced one, else Jazzy."""
    assert distribution("humble", {"ROS_DISTRO": "jazzy"}) == "humble"
    assert distribution("auto", {"ROS_DISTRO": "humble"}) == "humble"
    assert distribution("auto", {}) == "jazzy"
    assert distribution("auto", {"ROS_DISTRO": "noetic"}) == "jazzy"
