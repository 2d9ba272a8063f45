"""The table of architectures in docs/networks.md says what docs/benchmarks/architectures.json says."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def script():
    spec = importlib.util.spec_from_file_location(
        "compare_architectures", ROOT / "scripts" / "compare_architectures.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_up_to_date():
    """Whoever measures again lets the script write the page, too."""
    compare = script()
    page = compare.PAGE.read_text(encoding="utf-8")
    assert compare.with_table(page, json.loads(compare.OUT.read_text(encoding="utf-8"))) == page


def test_a_device_that_measured_one_network_leaves_a_dash():
    compare = script()
    figure = {"median_ms": {"value": 2.0}, "over_separable": {"value": 2.0, "interval": [1.5, 2.5]}}
    document = {
        "networks": {
            "camera": {
                "separable": {"parameters": 1000, "multiply_adds": 2e6, "latency": {"A": figure, "B": figure}},
                "plain": {"parameters": 2000, "multiply_adds": 3e6, "latency": {"A": figure}},
            }
        }
    }
    assert compare.table(document).splitlines()[2:] == [
        "| camera | separable | 1 k | 2 M | 2.00 ms | 2.00 ms |",
        "| camera | plain | 2 k | 3 M | 2.00 ms, 2.00 x (1.50 to 2.50) | – |",
    ]
