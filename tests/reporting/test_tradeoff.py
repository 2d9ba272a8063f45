"""Tables, plots and pages of trade-offs, and that the committed ones are those of their measurements."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console
from tests.validation.tradeoff_results import entry, result

from saccade.console_tradeoff import tradeoff_tables
from saccade.reporting.tradeoff import csv_text, front_plot, gain_lines, markdown_lines, page, plots, write_result

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def written():
    spec = importlib.util.spec_from_file_location("write_tradeoff", ROOT / "scripts" / "write_tradeoff.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.written


@pytest.fixture
def document():
    return result(
        entry(),
        entry("fp16", latency=2.0),
        entry("int8", latency=9.0, retention=0.9, accuracy=0.8),
        entry("int8", sparsity="2:4", invalid="collapsed: it gives one class for everything"),
        entry(batch=16, latency=40.0),
        failed=[{"key": "camera-int8_mixed", "reason": "<b>no</b>"}],
    )


def test_the_committed_pages_are_those_of_the_measurements(written):
    for path, text in written(ROOT / "docs").items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is stale: python scripts/write_tradeoff.py"


def test_measurements_have_the_fields_that_are_read():
    for path in sorted((ROOT / "docs" / "tradeoff").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["kind"] != "tradeoff":
            continue
        for candidate in found["candidates"]:
            assert candidate["precision"] in ("fp32", "fp16", "int8", "int8_mixed")
            for name in ("retention", "accuracy", "latency"):
                assert {"value", "interval", "n"} <= candidate[name].keys()


def test_plots_are_whole_and_leave_out_what_is_invalid(document):
    found = plots(document)
    assert list(found) == ["camera-latency", "camera-throughput", "camera-batch16-latency", "camera-batch16-throughput"]
    root = ElementTree.fromstring(found["camera-latency"])
    texts = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert {"FP32", "FP16", "INT8"} <= set(texts) and "INT8 2:4" not in texts
    marks = [node for node in root.iter() if node.tag.endswith("circle")]
    assert len(marks) == 3
    # FP32 and FP16 have the same accuracy, and INT8 less for more time: FP16 alone is on the front.
    assert sum("fill:#fff" not in mark.get("style") for mark in marks) == 1


def test_nothing_to_draw():
    assert front_plot([entry(latency=None)]) is None
    assert "Nothing was measured" in page(result())


def test_csv_has_a_row_per_candidate_and_nothing_where_nothing_was_measured(document):
    rows = list(csv.DictReader(io.StringIO(csv_text(document))))
    assert len(rows) == 5
    assert rows[0]["latency_ms"] == "5.0" and rows[0]["energy_mj"] == "" and rows[0]["latency_p99_ms"] == ""


def test_the_table_says_what_is_gained_and_what_is_lost(document):
    text = "\n".join(markdown_lines(document))
    assert "- FP16: 2.50 times as fast as FP32" in text
    assert "- INT8: slower than FP32, 1.80 times its time" in text
    assert "collapsed" in text and "camera-int8_mixed" in text
    assert [*gain_lines([entry(), entry("fp16", latency=5.01)])] == [
        "- FP16: no measurable difference to FP32 in median latency"
    ]


def test_what_is_not_qualified_is_hollow_and_said_everywhere():
    found = result(entry(), entry("int8", latency=1.0, differs=0.13), entry("fp16", latency=2.0, differs=0.001))
    said = "not qualified: relative L2 of labels 0.13, limit 0.05"
    text = "\n".join(markdown_lines(found))
    row = next(line for line in text.splitlines() if line.startswith("| INT8"))
    assert f"| yes; {said} |" in row and text.count("- INT8 (not qualified): 5.00 times as fast") == 1
    assert said in page(found) and "not qualified" not in "\n".join(
        line for line in text.splitlines() if line.startswith("| FP")
    )
    rows = {row["precision"]: row["qualified"] for row in csv.DictReader(io.StringIO(csv_text(found)))}
    assert rows == {"fp32": "", "int8": "no", "fp16": "yes"}
    marks = {
        mark[0].text.split(":")[0]: mark.get("style")
        for mark in ElementTree.fromstring(plots(found)["camera-latency"]).iter()
        if mark.tag.endswith("circle")
    }
    assert "fill:#fff" in marks["INT8"] and "dasharray" in marks["INT8"]
    assert "fill:#fff" not in marks["FP16"] and "dasharray" not in marks["FP32"]


@pytest.mark.parametrize("width", [80, 200])
def test_the_terminal_says_what_is_not_qualified(width):
    found = result(entry(), entry("int8", latency=1.0, differs=0.13))
    console = Console(width=width, file=io.StringIO(), record=True)
    for part in tradeoff_tables(found, width=width):
        console.print(part)
    text = console.export_text()
    assert "INT8: not qualified: relative L2 of labels 0.13, limit 0.05" in text
    assert text.count("limit 0.05") == 1


def test_pages_escape_names_and_load_nothing(document):
    text = page(document)
    assert "<b>no</b>" not in text and "&lt;b&gt;no&lt;/b&gt;" in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")


def test_files_are_written(document, tmp_path):
    names = {path.name for path in write_result(tmp_path, document)}
    assert {"tradeoff.json", "tradeoff.csv", "tradeoff.md", "tradeoff.html", "camera-latency.svg"} <= names
    assert {path.name for path in tmp_path.iterdir()} == names
