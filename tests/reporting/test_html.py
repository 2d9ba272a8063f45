from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report_runs import make_run

from saccade.errors import RecordError
from saccade.reporting import wording
from saccade.reporting.html import lookup, reproduce_command, write_report

HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)>'


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text outside of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._silent = False
        self.source = path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def fields(self) -> dict[str, Any]:
        return {
            attributes["data-field"]: json.loads(attributes["data-value"] or "")
            for _, attributes in self.elements
            if attributes.get("data-field")
        }


def value_at(run: dict[str, Any], field: str) -> Any:
    """What ``run.json`` holds for a ``data-field``."""
    path = tuple(part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", field))
    found = lookup(run, path)
    return found.get("value") if isinstance(found, dict) else found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Page]:
    directory = tmp_path_factory.mktemp("whole") / "run"
    run = make_run(directory, ticks=400, warmup=15, contacts=2)
    return run, Page(write_report(directory))


def test_every_figure_is_that_of_run_json_in_full(whole: tuple[dict[str, Any], Page]) -> None:
    run, page = whole
    fields = page.fields()
    assert len(fields) > 100
    for field, value in fields.items():
        assert value == value_at(run, field), field
    for field in ("latency_ms.p95", "realtime_factor", "accuracy.camera_miou", "contacts", "verdict", "frames"):
        assert fields[field] is not None


def test_budgets_show_value_limit_and_outcome_with_the_failed_first(whole: tuple[dict[str, Any], Page]) -> None:
    run, page = whole
    shown = {a["data-budget"]: json.loads(a["data-value"] or "") for _, a in page.elements if a.get("data-budget")}
    assert shown == {budget["name"]: budget["value"] for budget in run["budgets"]}
    assert next(iter(shown)) == "contacts"
    assert "FAIL" in page.words
    assert "1 of 7 budgets was missed over 400 judged decisions." in page.text
    assert sum("bullet" in (a.get("class") or "") for tag, a in page.elements if tag == "svg") == 7


def test_the_page_is_self_contained_and_small(whole: tuple[dict[str, Any], Page]) -> None:
    _, page = whole
    assert len(page.source) < 3_000_000
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "action"):
            link = attributes.get(name)
            assert link is None or link.startswith(("data:", "#")), (tag, link)
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_only_the_pages_own_script_may_run(whole: tuple[dict[str, Any], Page]) -> None:
    _, page = whole
    (policy,) = [a["content"] for tag, a in page.elements if tag == "meta" and a.get("http-equiv")]
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]


def test_pictures_have_words_and_tables_have_headers(whole: tuple[dict[str, Any], Page]) -> None:
    _, page = whole
    images = [a for tag, a in page.elements if tag == "img"]
    assert len(images) == 3 * 4
    assert all(a.get("alt") for a in images)
    assert all(
        a.get("aria-label") or a.get("aria-hidden") for tag, a in page.elements if tag == "svg" and a.get("viewbox")
    )
    assert all(a.get("scope") for tag, a in page.elements if tag == "th")
    assert ("html", {"lang": "en"}) in page.elements


def test_hostile_names_are_text(tmp_path: Path) -> None:
    sensors = ((HOSTILE, "camera"), ("li.dar", "lidar"))
    run = make_run(
        tmp_path, name=HOSTILE, sensors=sensors, reasons=[HOSTILE], hashes={HOSTILE: HOSTILE}, samples=1, ticks=80
    )
    page = Page(write_report(tmp_path))
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert not [a for _, a in page.elements if "onerror" in a]
    assert HOSTILE in page.text
    fields = page.fields()
    assert fields["sensors.li\\.dar.produced"] == run["sensors"]["li.dar"]["produced"]
    assert fields[f"sensors.{HOSTILE}.judged"] == 80


def test_few_frames_say_why_there_is_no_percentile(tmp_path: Path) -> None:
    run = make_run(tmp_path, ticks=20, warmup=2, samples=1)
    page = Page(write_report(tmp_path))
    assert page.fields()["latency_ms.p95"] is None
    assert run["latency_ms"]["p95"]["reason"] in page.text
    assert "not judged" in page.words
    assert "1 could not be judged" in page.text


def test_a_cut_off_record_is_invalid_and_says_what_is_missing(tmp_path: Path) -> None:
    make_run(tmp_path, ticks=30, finished=False, cut=True, samples=0)
    page = Page(write_report(tmp_path))
    assert "INVALID" in page.words
    assert "The run did not finish" in page.text
    assert "last line is torn" in page.text
    assert "No budget was judged" in page.text
    assert "verdict" not in page.fields()
    assert any("layer" in (a.get("class") or "") for tag, a in page.elements if tag == "path")


def test_a_verdict_that_its_record_does_not_bear_out_is_not_repeated(tmp_path: Path) -> None:
    run = make_run(tmp_path, ticks=80, cut=True, samples=0, budgets=[])
    assert run["verdict"] == "pass"
    page = Page(write_report(tmp_path))
    assert "INVALID" in page.words
    assert "PASS" not in page.words
    assert "run.json says PASS, but the record does not bear it out." in page.text


@pytest.mark.parametrize("name", ["frames.jsonl", "samples/000070.npz"])
def test_damaged_parts_are_said_and_the_rest_is_shown(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path, ticks=120, samples=1)
    (tmp_path / name).write_bytes(b"damaged\n")
    page = Page(write_report(tmp_path))
    assert name in page.text
    assert page.fields()["latency_ms.p95"] == run["latency_ms"]["p95"]["value"]
    assert ("INVALID" in page.words) is (name == "frames.jsonl")


def test_without_networks_truth_and_samples(tmp_path: Path) -> None:
    make_run(tmp_path, ticks=80, networks=False, truth=False, samples=0)
    page = Page(write_report(tmp_path))
    assert "nothing to compare" in page.text or "no ground truth" in page.text
    assert "kept no sample frames" in page.text
    assert page.fields()["accuracy.camera_miou"] is None


def test_a_run_that_only_began(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"schema": 1, "name": "x", "state": "running"}')
    page = Page(write_report(tmp_path))
    assert "INVALID" in page.words
    assert "frames.jsonl cannot be used" in page.text


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_without_a_readable_run_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RecordError, match="run"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_several_cameras_and_lidars_over_thousands_of_ticks(tmp_path: Path) -> None:
    sensors = (("front", "camera"), ("back", "camera"), ("top", "lidar"), ("waist", "lidar"))
    make_run(tmp_path, ticks=1500, sensors=sensors, samples=10)
    page = Page(write_report(tmp_path))
    assert len(page.source) < 3_000_000
    assert "each bar is the slowest of up to" in page.text
    for sensor, _ in sensors:
        assert f"Sensor {sensor}" in page.words


def test_a_report_is_replaced_whole(tmp_path: Path) -> None:
    make_run(tmp_path, ticks=20, samples=0)
    (tmp_path / "report.html").write_text("old")
    write_report(tmp_path)
    assert (tmp_path / "report.html").read_text().rstrip().endswith("</html>")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_command_repeats_the_run() -> None:
    run = {
        "configuration": {"run": {"frames": 50}, "simulator": {"pace": "realtime"}, "labels": {"a b": "structure"}},
        "sources": {
            "run.frames": "--frames",
            "simulator.pace": "--set",
            "labels": "--set",
            "scene": "file my runs/a.yaml",
            "seed": "default",
        },
    }
    words = shlex.split(reproduce_command(run))
    assert words[:3] == ["saccade", "validate", "my runs/a.yaml"]
    assert words[3:] == ["--frames", "50", "--set", "simulator.pace=realtime", "--set", 'labels={"a b": "structure"}']


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "ms", "–"),
        (0.0, "ms", "0 ms"),
        (44.652, "ms", "44.7 ms"),
        (0.00012, "m", "1.2e-04 m"),
        (123456, "", "123 456"),
        (0.0123, "share", "1.2 %"),
        (1.0, "share", "100 %"),
        (0.99996, "share", "100.00 %"),
        (0.86, "score", "0.860"),
        (True, "", "True"),
    ],
)
def test_figures_are_written_for_people(value: Any, unit: str, text: str) -> None:
    assert wording.joined(value, unit).replace(wording.NARROW_SPACE, " ") == text


@given(st.floats(min_value=1e-3, max_value=1e6))
def test_a_written_number_is_within_half_of_its_last_digit(value: float) -> None:
    written = float(wording.number(value).replace(wording.NARROW_SPACE, ""))
    assert (
        abs(written - value) <= max(0.0051 * value, 0.5)
        if value >= 100
        else abs(written - value) <= 0.051 * max(value, 0.01)
    )
