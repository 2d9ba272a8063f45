"""The performance section: what it says of a captured, an eager, an old and a damaged record."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report_runs import make_run
from tests.reporting.test_html import HOSTILE, Page, value_at

from saccade.reporting.html import lookup, write_report
from saccade.reporting.performance import CHARTS, OLD, QUANTITIES, chart, performance, split
from saccade.telemetry import gpu

KEYS = ("execution", "residency", "clock", "gpu", "gpu_series", "profile")


def section(page: Page) -> str:
    """The source of the performance section alone."""
    (found,) = re.findall(r'<section id="performance">.*?</section>', page.source, re.DOTALL)
    return found


def words(part: str) -> str:
    """What is read of a part of the page."""
    text = re.sub(r"<[^>]+>", " ", part).replace("\u202f", " ")
    return re.sub(r"\s+", " ", text)


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Page]:
    directory = tmp_path_factory.mktemp("captured") / "run"
    run = make_run(directory, ticks=80, samples=0, performance="graph")
    return run, Page(write_report(directory))


def test_every_figure_is_that_of_run_json(captured: tuple[dict[str, Any], Page]) -> None:
    """Each new part of the record is shown by figures that are in run.json in full, lists by number."""
    run, page = captured
    fields = {name: value for name, value in page.fields().items() if name.split(".")[0] in (*KEYS, "engine")}
    for field, value in fields.items():
        assert value == value_at(run, field), field
    for field in (
        "execution.replays",
        "residency.graphs.1.nodes.kernel",
        "residency.graphs.0.host_to_device_bytes",
        "residency.taps.samples of head_camera.bytes",
        "clock.uncertainty_us.max",
        "gpu.power_w.p95",
        "gpu.energy_j",
        "engine.camera.qualification.relative_l2.hazard",
        "engine.lidar.plan_bytes",
        "profile.planner\\.plan.wall_ms.p95",
        "profile.planner\\.plan.gpu_ms.mean",
    ):
        assert fields[field] is not None, field


def test_residency_is_stated_with_the_number_of_nodes(captured: tuple[dict[str, Any], Page]) -> None:
    """All nodes of all graphs count, and the sentence is only there for a proof of 0 bytes."""
    run, page = captured
    count = sum(sum(graph["nodes"].values()) for graph in run["residency"]["graphs"])
    sentence = "0 bytes of pixels crossed PCIe on the inference path, proven from the 2 captured graphs"
    assert f"{sentence}' {count} nodes." in page.text
    assert 'class="statement proven"' in page.source


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"proven": False, "reason": "cuda-bindings is not installed"}, "unproven", "Not proven: cuda-bindings is not"),
        ({"proven": False, "reason": None}, "unproven", "Not proven: the record gives no reason."),
        ({"host_to_device_bytes": 921600}, "no", "900 KiB cross PCIe to the GPU with every set of frames"),
        ({"declared_uploads": {"points of lidar": 393216}}, "proven", "Of the streams that are resident on the GPU, 0"),
    ],
)
def test_what_is_not_proven_or_not_resident_is_not_called_so(
    tmp_path: Path, changes: dict[str, Any], kind: str, said: str
) -> None:
    """A missing proof, a copy in the graph and a declared upload each have their own sentence."""
    run = make_run(tmp_path, ticks=20, samples=0, performance="graph")
    run["residency"] |= changes
    (tmp_path / "run.json").write_text(json.dumps(run))
    page = Page(write_report(tmp_path))
    part = section(page)
    assert said in words(part)
    assert f'class="statement {kind}"' in part
    assert "on the inference path" not in part
    if "declared_uploads" in changes:
        assert page.fields()["residency.declared_uploads.points of lidar"] == 393216


def test_what_the_graph_holds_that_cannot_be_counted_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, ticks=20, samples=0, performance="graph")
    run["residency"]["graphs"][0]["unknown"] = ["conditional"]
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert "not accounted for: conditional" in Page(write_report(tmp_path)).text


def test_an_eager_run_on_the_cpu_says_what_is_missing_and_shows_no_zeros(tmp_path: Path) -> None:
    """No graphs, no proof and no GPU: each with its reason; only the process's CPU is drawn."""
    make_run(tmp_path, ticks=20, samples=0, performance="cpu")
    page = Page(write_report(tmp_path))
    part = section(page)
    text = words(part)
    assert "The frame ran eagerly" in text
    assert "Not proven: an eager run on the CPU: nothing crosses." in text
    assert "all stamps are the host" in text
    assert "Not measured: GPU busy, memory in use, whole GPU, power, energy, throttling. NVML is not installed" in text
    assert 'data-field="gpu.power_w' not in part
    assert part.count("<svg") == 1
    assert "put saccade.telemetry.profiled" in text


@pytest.mark.parametrize("finished", [True, False])
def test_an_old_record_and_one_of_a_run_that_did_not_finish_say_so_once(tmp_path: Path, finished: bool) -> None:
    """One sentence instead of one under every heading; what engines there were is still shown."""
    make_run(tmp_path, ticks=20, samples=0, performance=None, finished=finished)
    page = Page(write_report(tmp_path))
    part = section(page)
    assert part.count(OLD) == 1
    assert "What crossed PCIe" not in part
    assert page.fields()["engine.camera.name"] == "onnxruntime"


@pytest.mark.parametrize("key", KEYS)
def test_each_part_may_be_missing_or_damaged_alone(tmp_path: Path, key: str) -> None:
    """The page is made, and the others' figures stay."""
    run = make_run(tmp_path, ticks=20, samples=0, performance="graph")
    for value in (None, [], "damaged", {}):
        (tmp_path / "run.json").write_text(json.dumps({**run, key: value}))
        page = Page(write_report(tmp_path))
        other = "execution.replays" if key != "execution" else "clock.pairs"
        assert page.fields()[other] is not None
        assert not any(name.startswith(f"{key}.") and found is not None for name, found in page.fields().items())


def test_hostile_names_are_text(tmp_path: Path) -> None:
    """Names of functions, reasons and graphs come from users."""
    run = make_run(tmp_path, ticks=20, samples=0, performance="graph")
    run["profile"] = {HOSTILE: run["profile"]["planner.plan"] | {"absent": {"gpu_ms": HOSTILE}}}
    run["execution"]["reason"] = HOSTILE
    run["residency"]["taps"] = {HOSTILE: {"bytes": 1, "count": 1}}
    run["residency"]["graphs"][0]["sensors"] = [HOSTILE]
    run["gpu"]["throttle_reasons"] = {HOSTILE: 0.5}
    run["gpu"]["device"]["name"] = HOSTILE
    (tmp_path / "run.json").write_text(json.dumps(run))
    page = Page(write_report(tmp_path))
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert not [a for _, a in page.elements if "onerror" in a]
    assert page.fields()[f"residency.taps.{HOSTILE}.bytes"] == 1


@pytest.mark.parametrize(
    ("reasons", "text"),
    [
        (None, ""),
        ({}, "Nothing throttled the clocks."),
        ({"gpu_idle": 0.5}, "Nothing throttled the clocks. Not counted as throttling: the GPU was idle 50.0 %."),
        (
            {"sw_power_cap": 0.25, "reason_0x400": 0.1},
            "Clocks were throttled, share of samples by reason: power limit 25.0 %, reason_0x400 10.0 %.",
        ),
    ],
)
def test_throttling_is_told_from_idling(reasons: Any, text: str) -> None:
    """Absent is no statement, none seen is one, and an idle GPU is not throttled."""
    found = performance({"gpu": {"throttle_reasons": reasons}})["gpu"]["throttling"]
    assert found.replace("\u202f", " ") == text


def test_a_failed_qualification_and_a_missing_one_are_shown_as_such(tmp_path: Path) -> None:
    run = make_run(tmp_path, ticks=20, samples=0, performance="graph")
    run["engine"]["camera"]["qualification"]["passed"] = False
    del run["engine"]["lidar"]["qualification"]
    (tmp_path / "run.json").write_text(json.dumps(run))
    text = words(section(Page(write_report(tmp_path))))
    assert "not qualified" in text
    assert "not compared" in text


def test_a_gap_in_the_series_is_a_gap_in_the_line() -> None:
    """Three stretches: two lines and, for a single sample, a dot."""
    series = {"t_s": [0.0, 1, 2, 3, 4, 5, 6], "power_w": [10.0, 11.0, None, 12.0, None, 13.0, 14.0]}
    drawn = chart(series, "Power", "W", 1.0, (("power_w", "power", "red"),))
    assert len(re.findall(r'<path [^>]*class="line"', drawn)) == 2
    assert len(re.findall(r"<circle ", drawn)) == 1
    assert "not measured" in drawn


@pytest.mark.parametrize("series", [{}, {"t_s": []}, {"t_s": [0.0], "power_w": [None]}, {"t_s": [0.0], "power_w": []}])
def test_nothing_measured_is_no_chart(series: dict[str, Any]) -> None:
    """Also where lists have different lengths: nothing is drawn at wrong times."""
    assert chart(series, "Power", "W", 1.0, (("power_w", "power", "red"),)) == ""


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1e12)), min_size=1, max_size=80),
    st.one_of(st.none(), st.floats(1, 1e3)),
)
def test_a_chart_stays_within_its_frame(values: list[float | None], limit: float | None) -> None:
    """Whatever was measured, every coordinate lies on the canvas and none is NaN."""
    series = {"t_s": list(np.arange(len(values)) * 0.1), "power_w": values}
    drawn = chart(series, "Power", "W", 1.0, (("power_w", "power", "red"),), limit=limit)
    assert "nan" not in drawn
    for x, y in re.findall(r"[ML](-?[\d.]+),(-?[\d.]+)", drawn):
        assert 0 <= float(x) <= 510
        assert 0 <= float(y) <= 232


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (921600, "900 KiB"),
        (5 << 30, "5.00 GiB"),
        (-2048, "-2.00 KiB"),
    ],
)
def test_bytes_are_written_in_their_largest_unit(value: int, text: str) -> None:
    assert " ".join(split(value, "bytes")) == text


def test_values_that_are_no_bytes_are_written_as_elsewhere() -> None:
    assert split(None, "bytes") == ("–", "")
    assert split(0.5, "share") == ("50.0", "%")


def test_every_sampled_quantity_is_shown_and_drawn() -> None:
    """The report knows each quantity of the sampler, and no other."""
    assert {name for name, _, _ in QUANTITIES} == set(gpu.QUANTITIES)
    assert {name for *_, lines in CHARTS for name, _, _ in lines} == set(gpu.QUANTITIES)


def test_a_place_in_a_list_is_found_by_its_number() -> None:
    run = {"a": [{"b": 1}, {"b": 2}]}
    assert lookup(run, ("a", "1", "b")) == 2
    assert lookup(run, ("a", "2", "b")) is None
    assert lookup(run, ("a", "x", "b")) is None


def test_what_a_kernel_writes_to_the_host_is_named(tmp_path: Path) -> None:
    """It is no copy, so no node shows it; a record of before it was written has none."""
    run = make_run(tmp_path, ticks=20, samples=0, performance="graph")
    run["residency"]["kernel_writes"] = {"results and stamps": 1234}
    (tmp_path / "run.json").write_text(json.dumps(run))
    page = Page(write_report(tmp_path))
    assert page.fields()["residency.kernel_writes.results and stamps"] == 1234
    assert "written by a kernel" in words(section(page))
    del run["residency"]["kernel_writes"]
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert "written by a kernel" not in words(section(Page(write_report(tmp_path))))
