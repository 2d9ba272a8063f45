"""What is recommended for given limits, and what is said when nothing fits."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.validation.tradeoff_results import entry, figure, result

from saccade.errors import ConfigurationError, RecordError
from saccade.validation.recommendation import SAME, carefulness, overlap, pareto_front, recommend


def test_takes_the_fastest_that_keeps_the_gate():
    found = recommend(result(entry(), entry("fp16", latency=3.0), entry("int8", latency=2.0, retention=0.9)))["camera"]
    assert found.chosen["precision"] == "fp16"
    assert found.runner_up["precision"] == "fp32"
    assert "fastest" in found.reason and "1.67 times" in found.runner_up_reason


def test_the_gate_can_be_taken_away():
    found = recommend(result(entry(), entry("int8", latency=2.0, retention=0.9)), min_retention=0)["camera"]
    assert found.chosen["precision"] == "int8"


def test_no_measurable_difference_is_said_and_the_most_careful_arithmetic_is_taken():
    found = recommend(result(entry("fp16", latency=4.99), entry("fp32", latency=5.0)))["camera"]
    assert found.chosen["precision"] == "fp32"
    assert SAME in found.reason


def test_of_equals_in_latency_the_more_accurate_is_taken():
    entries = [entry("fp32", latency=5.0, accuracy=0.8), entry("fp16", latency=5.01, accuracy=0.9)]
    found = recommend(result(*entries))["camera"]
    assert found.chosen["precision"] == "fp16"
    assert "most accurate" in found.reason


def test_without_intervals_nothing_is_told_apart():
    assert overlap(figure(1.0, None), figure(9.0, 0.1))
    assert not overlap(figure(1.0, 0.1), figure(9.0, 0.1))


def test_impossible_limits_name_the_nearest():
    found = recommend(result(entry(), entry("fp16", latency=3.0)), min_accuracy=0.99, max_latency=0.1)["camera"]
    assert not found.satisfied and found.chosen is None
    text = "\n".join(found.lines())
    assert "accuracy >= 0.99: no candidate meets it; the nearest is FP32 with 0.9" in text
    assert "latency p95 <= 0.1 ms: no candidate meets it; the nearest is FP16 with 3.6 ms" in text


def test_limits_that_are_met_only_apart_say_by_whom():
    entries = [entry("fp32", latency=9.0, accuracy=0.95), entry("int8", latency=1.0, accuracy=0.6)]
    found = recommend(result(*entries), min_accuracy=0.9, max_latency=2)["camera"]
    text = "\n".join(found.unmet)
    assert "accuracy >= 0.9: met by FP32" in text and "latency p95 <= 2 ms: met by INT8" in text
    assert "all of them together" in text


def test_what_was_not_measured_meets_no_limit_and_says_why():
    found = recommend(result(entry()), max_energy_j=1.0, max_memory_mib=100)["camera"]
    assert not found.satisfied
    assert any("no NVML here" in text for text in found.unmet)
    assert any("measured on GPUs only" in text for text in found.unmet)


def test_memory_and_energy_limits_choose():
    entries = [
        entry("fp32", latency=1.0, memory=900 * 2**20, energy=0.9),
        entry("fp16", latency=2.0, memory=90 * 2**20, energy=0.2),
    ]
    assert recommend(result(*entries), max_memory_mib=100)["camera"].chosen["precision"] == "fp16"
    assert recommend(result(*entries), max_energy_j=0.5)["camera"].chosen["precision"] == "fp16"


def test_invalid_candidates_are_left_out_and_named():
    found = recommend(result(entry(), entry("int8", latency=1.0, invalid="collapsed")))["camera"]
    assert found.chosen["precision"] == "fp32"
    assert any("INT8 is left out: collapsed" in note for note in found.notes)


def test_what_is_not_qualified_is_neither_taken_nor_on_the_front():
    entries = [
        entry(),
        entry("fp16", latency=3.0, differs=0.01),
        entry("int8", latency=1.0, accuracy=0.95, differs=0.13),
    ]
    found = recommend(result(*entries))["camera"]
    assert found.chosen["precision"] == "fp16" and found.runner_up["precision"] == "fp32"
    assert "INT8 is left out: not qualified: relative L2 of labels 0.13, limit 0.05" in found.notes
    assert [e["precision"] for e in pareto_front(entries)] == ["fp16"]
    alone = recommend(result(entries[2]))["camera"]
    assert not alone.satisfied and alone.reason == "no candidate could be measured"


def test_an_interval_that_reaches_a_limit_is_noted():
    found = recommend(result(entry(latency=5.0, spread=2.0)), max_latency=6.5)["camera"]
    assert found.satisfied
    assert any("not by the whole interval" in note for note in found.notes)


def test_networks_and_batches_are_answered_for_themselves():
    document = result(entry(), entry(network="lidar"), entry(batch=16, latency=40.0))
    assert list(recommend(document)) == ["camera", "lidar"]
    assert list(recommend(document, network="lidar")) == ["lidar"]
    assert recommend(document, batch=16)["camera"].chosen["batch"] == 16


@pytest.mark.parametrize(
    "options",
    [{"min_accuracy": 92}, {"max_latency": 0}, {"max_latency": float("nan")}, {"network": "radar"}, {"batch": 3}],
)
def test_what_cannot_be_meant_is_refused(options):
    with pytest.raises(ConfigurationError):
        recommend(result(entry()), **options)


def test_a_file_a_folder_and_what_is_neither(tmp_path):
    path = tmp_path / "tradeoff.json"
    path.write_text(json.dumps(result(entry())))
    assert recommend(path)["camera"].satisfied and recommend(tmp_path)["camera"].satisfied
    (tmp_path / "other.json").write_text('{"candidates": [{}]}')
    with pytest.raises(RecordError, match="no result of a trade-off"):
        recommend(tmp_path / "other.json")
    with pytest.raises(RecordError, match="saccade tradeoff"):
        recommend(tmp_path / "missing.json")


numbers = st.floats(0.1, 100, allow_nan=False)
entries = st.lists(
    st.builds(
        entry,
        precision=st.sampled_from(["fp32", "fp16", "int8", "int8_mixed"]),
        sparsity=st.sampled_from(["none", "2:4"]),
        accuracy=st.floats(0, 1),
        latency=numbers,
        spread=st.floats(0, 5),
        retention=st.floats(0.5, 1.1),
    ),
    min_size=1,
    max_size=8,
)


@given(entries)
def test_the_front_is_never_beaten_and_beats_all_others(found):
    front = pareto_front(found)
    points = [(e["accuracy"]["value"], e["latency"]["value"]) for e in front]
    assert points
    for e in found:
        accuracy, latency = e["accuracy"]["value"], e["latency"]["value"]
        if not any(e is other for other in front):
            assert any(a >= accuracy and t <= latency and (a, t) != (accuracy, latency) for a, t in points)
    for a, t in points:
        assert not any(
            e["accuracy"]["value"] >= a and e["latency"]["value"] <= t
            and (e["accuracy"]["value"] > a or e["latency"]["value"] < t)
            for e in found
        )  # fmt: skip


@given(entries, st.none() | st.floats(0, 1), st.none() | numbers)
def test_what_is_recommended_meets_every_limit_and_nothing_usable_is_clearly_faster(found, accuracy, latency):
    advice = recommend(result(*found), min_accuracy=accuracy, max_latency=latency)["camera"]

    def fits(e):
        return (
            e["retention"]["value"] >= 0.99
            and (accuracy is None or e["accuracy"]["value"] >= accuracy)
            and (latency is None or e["latency_p95"]["value"] <= latency)
        )

    good = [e for e in found if fits(e)]
    assert advice.satisfied == bool(good)
    if good:
        assert fits(advice.chosen)
        fastest = min(good, key=lambda e: e["latency"]["value"])
        assert advice.chosen is fastest or overlap(advice.chosen["latency"], fastest["latency"])
    else:
        assert advice.unmet


def test_carefulness_puts_pruning_behind_precision():
    assert carefulness(entry("int8")) < carefulness(entry("fp32", sparsity="2:4"))
