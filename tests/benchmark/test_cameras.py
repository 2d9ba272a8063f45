"""Cameras as one batch: each gets the result that it has alone, and the fairer of two comparisons is taken."""

import numpy as np
import pytest
from tests.benchmark.sessions import CpuAsGpu, session_for

from saccade.benchmark import cameras as group
from saccade.benchmark.measure import InvalidMeasurement
from saccade.benchmark.session import Subject
from saccade.models.resnet import resnet18_file


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resnet")
    return {batch: resnet18_file(folder / f"{batch}.onnx", batch=batch) for batch in (1, None)}


@pytest.fixture
def session(monkeypatch, networks):
    """One and two cameras, without a GPU: networks on ONNX Runtime, nothing captured."""
    from saccade import stream_execution

    class Eager(stream_execution.StreamExecution):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, capture=False, **options)

        def facts(self):
            facts = super().facts()
            facts["execution"]["mode"] = "graph"
            return facts

    monkeypatch.setattr(stream_execution, "StreamExecution", Eager)
    monkeypatch.setattr(group, "COUNTS", (1, 2))
    monkeypatch.setattr(group, "_plan", lambda session: networks[None])
    monkeypatch.setattr(
        group, "resnet18", lambda session, precision: Subject("resnet18", precision, networks[1], "logits")
    )
    monkeypatch.setattr("saccade.benchmark.measure.LEAST_ROUNDS", 1)
    session = session_for(CpuAsGpu, tensorrt="double")
    session.rounds = 1
    return session


def test_all_numbers_of_cameras_are_measured_against_the_faster_one(session):
    """The ratio is of the most cameras over as many times one, in this test over two."""
    found = group.measure_cameras(session)
    medians = {name: value["value"] for name, value in found["cameras"]["median_ms"].items()}
    assert set(medians) == {"1", "2", group.STATIC}
    one = min(medians["1"], medians[group.STATIC])
    assert found["ratios"]["cameras_16_over_16x1"]["value"] == pytest.approx(medians["2"] / (2 * one))
    assert max(found["cameras"]["relative_l2"].values()) < 1e-4


def test_a_camera_whose_result_depends_on_the_others_is_refused(session, monkeypatch):
    """Rows that were mixed up would be as fast."""
    original = group.logits

    def mixed_up(network):
        return np.flip(original(network), axis=0)

    monkeypatch.setattr(group, "logits", mixed_up)
    monkeypatch.setattr(group, "LIMITS", {"fp16": {"relative_l2": 1e-4}})
    with pytest.raises(InvalidMeasurement, match="2 gave another result"):
        group.measure_cameras(session)
