"""Which transport: rclpy where this Python imports it, DDS otherwise, and why not the other."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.errors import DependencyError

if TYPE_CHECKING:
    from saccade.bridge.base import Transport
    from saccade.config import Ros2Config

RCLPY = "rclpy"
DDS = "dds"
DDS_REMEDY = "pip install 'saccade[ros]' (cyclonedds and rosbags)"
ROS_ROOT = Path("/opt/ros")


@dataclass(frozen=True, slots=True)
class Choice:
    """The transport that was chosen."""

    transport: str
    reason: str
    """Why it, and why not the other."""


def choose(
    wanted: str = "auto",
    *,
    importing: Callable[[str], object] = importlib.import_module,
    environment: Mapping[str, str] | None = None,
    root: Path = ROS_ROOT,
) -> Choice:
    """Returns which transport to use.

    Args:
        wanted: ``auto``, ``rclpy`` or ``dds``.
        importing: Imports a module by name.
        environment: Environment variables; ``None`` = this process's.
        root: Where ROS 2 distributions are installed.

    Raises:
        DependencyError: What is wanted, or both under ``auto``, cannot be imported; the text says why and the remedy.
    """
    environment = os.environ if environment is None else environment
    if wanted in ("auto", RCLPY):
        try:
            importing("rclpy")
            importing("rclpy.node")
        except Exception as error:  # a half-sourced ROS 2 fails with more than ImportError
            without_rclpy = why_no_rclpy(error, environment, root)
        else:
            asked = "configured" if wanted == RCLPY else "preferred to dds, which also works without ROS 2"
            return Choice(RCLPY, f"rclpy imports here: {asked}")
        if wanted == RCLPY:
            raise DependencyError(f"ros2.transport: rclpy: {without_rclpy}; or set ros2.transport: dds")
    else:
        without_rclpy = "dds is configured"
    without_dds = why_no_dds(importing)
    if without_dds is None:
        return Choice(DDS, f"without rclpy: {without_rclpy}")
    raise DependencyError(f"ros2: neither transport can be used. rclpy: {without_rclpy}. dds: {without_dds}")


def why_no_rclpy(error: Exception, environment: Mapping[str, str], root: Path = ROS_ROOT) -> str:
    """Returns why ``import rclpy`` failed and what helps.

    Args:
        error: What the import raised.
        environment: Environment variables.
        root: Where ROS 2 distributions are installed.
    """
    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    text = str(error)
    if "cannot open shared object" in text:
        library = text.split(":", 1)[0]
        return f"{library} is not found: source ROS 2's setup file, which sets LD_LIBRARY_PATH, before starting"
    found = _installed(environment.get("PYTHONPATH", "").split(os.pathsep), root)
    others = sorted({(place, python) for place, python in found if python != mine})
    if others:
        place, python = others[0]
        return (
            f"the one in {place} is for Python {python}, this is Python {mine}: run saccade with python{python}, "
            f"or leave it to dds"
        )
    if found:
        return f"ROS 2 is in {found[0][0]} but not sourced: run 'source {found[0][0]}/setup.bash' before starting"
    return f"not installed for Python {mine} ({text})"


def why_no_dds(importing: Callable[[str], object] = importlib.import_module) -> str | None:
    """Returns why the DDS transport cannot be used and what helps, ``None`` where it can."""
    for module in ("cyclonedds", "rosbags"):
        try:
            importing(module)
        except Exception as error:
            if module == "cyclonedds" and sys.version_info >= (3, 13):
                return (
                    f"cyclonedds has no build for Python {sys.version_info[0]}.{sys.version_info[1]}: use 3.10 to 3.12"
                )
            return f"{module} cannot be imported ({error}): {DDS_REMEDY}"
    return None


def open_transport(config: Ros2Config) -> tuple[Transport, Choice]:
    """Returns the opened transport of a run and why it was chosen.

    Raises:
        DependencyError: What the transport needs is not there.
        ConfigurationError: A name or the domain is wrong.
        TransportError: The middleware could not start.
    """
    from saccade.bridge.dds_settings import domain_id

    choice = choose(config.transport)
    if choice.transport == RCLPY:
        from saccade.bridge.messages import store
        from saccade.bridge.rclpy import RclpyTransport

        store()
        return RclpyTransport(node=config.node, namespace=config.namespace, domain=config.domain), choice
    from saccade.bridge.dds import DdsTransport

    transport = DdsTransport(
        node=config.node,
        namespace=config.namespace,
        domain=domain_id(config.domain),
        network=config.network,
        fragment_size=config.fragment_size,
        graph=config.graph,
        distribution=distribution(config.distribution),
    )
    return transport, choice


def distribution(configured: str, environment: Mapping[str, str] | None = None) -> str:
    """Returns the ROS 2 distribution to look like: as configured, else ``ROS_DISTRO``, else Jazzy."""
    if configured != "auto":
        return configured
    sourced = (os.environ if environment is None else environment).get("ROS_DISTRO", "")
    return sourced if sourced in ("humble", "iron", "jazzy", "kilted") else "jazzy"


def _installed(search_path: Sequence[str], root: Path) -> list[tuple[Path, str]]:
    """Places with an rclpy and the Python that each is built for."""
    packages = [Path(entry) / "rclpy" for entry in search_path if entry]
    if root.is_dir():
        packages += root.glob("*/lib/python3.*/site-packages/rclpy")
        packages += root.glob("*/local/lib/python3.*/dist-packages/rclpy")
    found = []
    for package in packages:
        for library in package.glob("_rclpy_pybind11.cpython-3*"):
            version = re.match(r"_rclpy_pybind11\.cpython-3(\d+)", library.name)
            if version:
                below_root = package.is_relative_to(root)
                place = root / package.relative_to(root).parts[0] if below_root else package.parent
                found.append((place, f"3.{version[1]}"))
    return found
