"""The shipped Foxglove layout shows what a run of the shipped configuration publishes, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("rosbags")

from tests.bridge.doubles import KeptTransport

from saccade.bridge.bridge import Bridge
from saccade.bridge.messages import store
from saccade.bridge.publishing import RunPublisher
from saccade.configuration import load_configuration

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = ROOT / "docs" / "foxglove" / "saccade.json"


@pytest.fixture(scope="module")
def layout():
    return json.loads(LAYOUT.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=["corridor", "warehouse"])
def types(request):
    """Type by topic of what a run of a shipped configuration publishes."""
    config = load_configuration(ROOT / "config" / f"{request.param}.yaml").config
    transport = KeptTransport()
    bridge = Bridge(transport, config.ros2)
    RunPublisher(bridge, config, intrinsics={}, report_robot=lambda copy: None)
    found = {name: made.type_name for name, made in transport.publications.items()}
    bridge.close()
    return found


def strings(value):
    """Every string anywhere in a document, keys included."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from strings(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from strings(entry)
    elif isinstance(value, str):
        yield value


def leaves(node):
    if isinstance(node, str):
        return [node]
    return [*leaves(node["first"]), *leaves(node["second"])]


def test_topics_are_published(layout, types):
    """Every topic that a panel names is one, and where a path goes on, its type has those fields."""
    paths = [text for text in strings(layout["configById"]) if text.startswith("/")]
    assert len(paths) >= 10
    for path in paths:
        topic, *fields = path.split(".")
        assert topic in types, path
        kind = types[topic]
        for field in fields:
            name = re.sub(r"\[\d+\]$", "", field)
            known = dict(store().fielddefs[kind][1])
            assert name in known, path
            content = known[name][1]
            kind = content if isinstance(content, str) else ""


def test_panels_fit_their_topics(layout, types):
    """Image panels show images with their calibration, the table of diagnostics shows diagnostics."""
    for panel, config in layout["configById"].items():
        if panel.startswith("Image!"):
            assert types[config["imageMode"]["imageTopic"]] == "sensor_msgs/msg/Image"
            calibration = config["imageMode"].get("calibrationTopic")
            assert calibration is None or types[calibration] == "sensor_msgs/msg/CameraInfo"
        if panel.startswith("DiagnosticSummary!"):
            assert types[config["topicToRender"]] == "diagnostic_msgs/msg/DiagnosticArray"


def test_panels_are_all_placed(layout):
    """Each configured panel has one place, and each place its panel."""
    assert sorted(leaves(layout["layout"])) == sorted(layout["configById"])
