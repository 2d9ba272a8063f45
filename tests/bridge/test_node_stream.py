"""Messages on a CUDA stream's path, with Warp's graphs on the CPU: captured once for each size, the host's results."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rosbags")

from tests.bridge.test_inputs import image
from tests.stream_doubles import SIZE, configuration, networks_of

from saccade.bridge.node_source import NodeSource
from saccade.execution import HostExecution
from saccade.stream_execution import StreamExecution

SIDES = (SIZE, 2 * SIZE)
"""Images of two sizes take turns."""


def results_of(execution, source):
    """What the networks say of eight images, in plain values."""
    random = np.random.default_rng(0)
    found = []
    for number in range(8):
        side = SIDES[number % 2]
        message = image(random.integers(0, 256, (side, side, 3), np.uint8), "rgb8", padding=4)
        frame = source.frame("eye", message, captured_ns=1_000 + number)
        (result,) = execution.infer([frame])["eye"]
        execution.idle()
        assert frame.stamps.on_host >= frame.stamps.handed_over > 0
        found.append((frame.sequence, result.hazard, result.finite, result.labels.numpy().tolist()))
    return found


@pytest.mark.parametrize("capture", [True, False])
def test_results_are_those_of_the_host(monkeypatch, capture):
    """Replayed from graphs over the messages' buffers, every image gives what it gives stage by stage on the host."""
    config = configuration(networks=("camera",))
    host = NodeSource(config.sensors, device="cpu")
    wanted = results_of(HostExecution(host, networks_of(config, monkeypatch)), host)
    source = NodeSource(config.sensors, device="cpu")
    execution = StreamExecution(source, networks_of(config, monkeypatch), device="cpu", capture=capture)
    found = results_of(execution, source)
    assert found == wanted
    assert len({hazard for _, hazard, _, _ in found}) == len(found)
    facts = execution.facts()["execution"]
    assert (facts["mode"], facts["scope"]) == (("graph", "buffers") if capture else ("eager", None))
    if capture:
        assert (facts["captures"], facts["replays"]) == (len(SIDES), len(found))
