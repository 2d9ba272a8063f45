"""The kernel against its byte floor: what is launched, and that its values are right."""

import numpy as np
import pytest
import warp as wp
from tests.benchmark.sessions import CpuAsGpu, session_for

from saccade.benchmark import preprocess as group
from saccade.benchmark.measure import InvalidMeasurement
from saccade.kernels.preprocess import record_images


@pytest.fixture
def small(monkeypatch):
    """Two buffers and small copies, without a graph."""

    def rehearsed(stream, launch, *keeps):
        launch()
        return launch

    monkeypatch.setattr(group, "graph_of", rehearsed)
    monkeypatch.setattr(group, "BUFFERS", 2)
    monkeypatch.setattr(group, "COPY_BYTES", 1 << 20)
    monkeypatch.setattr(group, "l2_bytes", lambda device: None)
    return session_for(CpuAsGpu, tensorrt="double")


def test_bytes_are_the_image_once_and_the_input_once(small):
    """And the ratio is the time over what these bytes would take at the copies' bandwidth."""
    found = group.measure_preprocess(small)
    details = found["preprocess"]
    assert details["bytes"] == {
        "fp16": 1920 * 1080 * 4 + 640 * 640 * 3 * 2,
        "fp32": 1920 * 1080 * 4 + 640 * 640 * 3 * 4,
    }
    medians = {name: value["value"] for name, value in details["median_us"].items()}
    bandwidth = 2 * (1 << 20) / (medians["copy"] * 1e-6)
    assert details["copy_bandwidth_bytes_per_s"] == pytest.approx(bandwidth)
    for name, ratio in (("fp16", "preprocess_over_byte_floor"), ("fp32", "preprocess_over_byte_floor_fp32")):
        floor = details["bytes"][name] / bandwidth * 1e6
        assert found["ratios"][ratio]["value"] == pytest.approx((medians[name] - medians["empty"]) / floor)
        assert details["relative_l2"][name] < 1e-3


def test_buffers_that_stay_in_the_l2_are_refused(small, monkeypatch):
    """Reading from it is faster than any copy."""
    monkeypatch.setattr(group, "l2_bytes", lambda device: 1 << 30)
    with pytest.raises(InvalidMeasurement, match="L2"):
        group.measure_preprocess(small)


def test_wrong_values_are_refused():
    """An output that is not that of the image."""
    pixels = np.random.default_rng(0).integers(0, 2**32, (1080, 1920), dtype=np.uint32)
    output = wp.zeros((1, 3, 640, 640), dtype=wp.float16, device="cpu")
    record_images([wp.array(pixels, dtype=wp.uint32, device="cpu")], group.transform(), output).launch()
    assert group._checked("fp16", output, pixels) < 1e-3
    output.zero_()
    with pytest.raises(InvalidMeasurement, match="another result"):
        group._checked("fp16", output, pixels)
