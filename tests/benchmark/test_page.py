"""The benchmark page is made from the measurements, and is up to date."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("write_benchmarks", ROOT / "scripts" / "write_benchmarks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def median(value):
    return {"value": value, "interval": [value * 0.99, value * 1.01], "n": 300}


RESULT = {
    "ratios": {
        "graph_over_floor": median(1.031),
        "host_round_trip_over_graph": median(12.0),
        "graph_with_stamps_line_over_floor": {"value": 1.02, "interval": None, "n": 3},
    },
    "recorder_us": 2.5,
    "bridge": {
        "transport": "dds: without rclpy: not installed",
        "hand_over_ms": median(0.15),
        "median_ms": {"frame_on": median(41.0)},
        "topics": {
            "/a": {"delivered": 7, "dropped": 2, "received": 6},
            "/b": {"delivered": 1, "dropped": 0, "received": 1},
        },
    },
    "host_to_device_bytes": 0,
    "device_to_host_bytes": 4600,
    "graphs": 12,
    "engines": {"resnet18 fp16": {"median_ms": {"bare_graph": median(0.2)}}},
    "frame": {"bench": {"median_ms": {"frame": median(0.31)}}},
    "preprocess": {"median_us": {"fp16": median(8.0)}, "copy_bandwidth_bytes_per_s": 2.7e12},
    "host": {"cpu": "A CPU", "cores": 16, "gpu": {"name": "A GPU"}, "driver": "1.2", "tensorrt": "8.5"},
    "versions": {"warp-lang": "1", "python": "3"},
    "commit": "abc",
    "modified": True,
    "missing": {"polygraphy": "not here"},
    "invalid": {"cameras": "other results"},
}


def test_a_measurement_becomes_a_section(script):
    """Ratios with their goals, medians, what it ran on, what is missing and invalid."""
    text = script.page({"h100": RESULT})
    for part in (
        "## h100",
        "A GPU, driver 1.2",
        "A CPU, 16 cores",
        "commit abc with changes",
        "| 1.031 | 1.021 to 1.041 | 300 | at most 1.05: met |",
        "at least 15: **missed**",
        "12 graphs: 0 bytes",
        "| resnet18 fp16, bare_graph | 0.2 |",
        "| frame, bench, frame | 0.31 |",
        "| bridge, frame_on | 41 |",
        "Bridge (dds): handing one image of 640x480x3 over takes the loop 0.15 ms (0.148 to 0.151, n 300), "
        "goal at most 0.2: met. Of 2 topics, 8 messages were sent, 2 gave way to newer ones, and the listener got 7.",
        "Not measured: polygraphy: not here",
        "Invalid: cameras: other results",
    ):
        assert part in text


def test_latencies_become_a_table(script):
    """Tuned rows are judged, the others stand beside them; where nothing came, that is told."""
    row = {"transport": "dds", "middleware": "rmw_fastrtps_cpp", "p95_ms": 2.9, "max_ms": 9.5, "lost": 0}
    result = {
        "kind": "bridge_latency",
        "host": {"cpu": "A CPU", "cores": 2},
        "load": [0.1, 0.2, 0.3, 0.9, 0.5, 0.4],
        "rmem_max": 4194304,
        "note": "the machine was busy",
        "latency": [
            {**row, "tuned": True, "latency_ms": median(2.5)},
            {**row, "tuned": True, "transport": "rclpy", "latency_ms": median(3.5)},
            {**row, "tuned": False, "latency_ms": median(12.0)},
            {**row, "tuned": False, "transport": "rclpy", "latency_ms": None, "lost": 300},
        ],
    }
    text = script.page({"bridge": result})
    for part in (
        "## bridge",
        "before and after: 0.10, 0.90",
        "the machine was busy",
        "| dds | rmw_fastrtps_cpp | tuned | 2.5 | 2.48 to 2.52 | 300 | 2.9 | 9.5 | 0 | at most 3: met |",
        "| rclpy | rmw_fastrtps_cpp | tuned | 3.5 | 3.46 to 3.54 | 300 | 2.9 | 9.5 | 0 | at most 3: **missed** |",
        "| dds | rmw_fastrtps_cpp | as it comes | 12 | 11.9 to 12.1 | 300 | 2.9 | 9.5 | 0 |  |",
        "| rclpy | rmw_fastrtps_cpp | as it comes | | | 0 | | | 300 | |",
    ):
        assert part in text


def test_the_page_is_what_the_script_writes(script):
    """Whoever adds a measurement writes the page anew: python scripts/write_benchmarks.py."""
    written = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert written == script.page(script.measurements(ROOT / "docs" / "benchmarks"))
