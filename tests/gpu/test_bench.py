"""The benchmark on a GPU: every group valid, every promised key there, nothing that crosses to the device."""

import math

import pytest

from saccade.configuration import load_configuration

pytestmark = pytest.mark.gpu

PROMISED = {
    "graph_over_floor",
    "host_round_trip_over_graph",
    "frame_over_floor",
    "frame_over_floor_warehouse",
    "graph_with_stamps_over_floor",
    "preprocess_over_byte_floor",
    "cameras_16_over_16x1",
    "recorder_share",
}


@pytest.fixture(scope="module")
def result():
    """One quick run of all groups."""
    pytest.importorskip("tensorrt", exc_type=ImportError)
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    from saccade.benchmark.suite import bench
    from saccade.benchmark.text import bench_lines

    found = bench(load_configuration("warehouse"), quick=True, first_frame=False, say=print)
    print("\n".join(bench_lines(found)))
    return found


def test_nothing_is_invalid_and_no_group_is_missing(result):
    """Graph, eager, host round trip and ONNX Runtime gave the same results."""
    assert result["invalid"] == {}
    assert not {"frame", "preprocess", "cameras", "tensorrt", "host_to_device_bytes"} & set(result["missing"])


def test_every_promised_ratio_is_there_with_its_interval(result):
    """Positive, finite, inside its interval."""
    missing = PROMISED - set(result["ratios"]) - set(result["missing"])
    if "host_round_trip" in result["missing"]:
        missing -= {"host_round_trip_over_graph"}
    assert missing == set()
    for name, ratio in result["ratios"].items():
        low, high = ratio["interval"]
        assert 0 < low <= ratio["value"] <= high, name
        assert math.isfinite(high), name
        assert ratio["n"] >= 6, name


def test_no_pixel_crosses_to_the_device(result):
    """From the nodes of every graph that the loop captured."""
    assert result["host_to_device_bytes"] == 0
    assert result["graphs"] >= 4 * 3 + 2 * 2 + 6


def test_both_networks_were_measured_in_both_precisions(result):
    """Each with the bare engine and the loop, eager and captured."""
    ways = {
        "bare_eager",
        "bare_graph",
        "loop_eager",
        "loop_graph",
        "loop_graph_stamps",
        "loop_graph_stamps_line",
        "onnxruntime_cpu",
    }
    for network in ("resnet18", "camera"):
        for precision in ("fp32", "fp16"):
            assert ways <= set(result["engines"][f"{network} {precision}"]["median_ms"])


def test_it_says_what_it_ran_on(result):
    """GPU, CPU, driver, TensorRT."""
    host = result["host"]
    assert host["cpu"]
    assert host["gpu"]["name"]
    assert host["driver"]
    assert host["tensorrt"]
