"""Merging results: what was measured the same way becomes one, anything else is refused by name."""

from __future__ import annotations

import copy
import json

import pytest
from tests.end_to_end import spawn

from saccade.errors import RecordError
from saccade.paths import PACKAGE
from saccade.validation.tradeoff_merge import merge_results


@pytest.fixture(scope="module")
def whole():
    return json.loads((PACKAGE.parents[2] / "docs" / "tradeoff" / "cpu.json").read_text(encoding="utf-8"))


def part(result, network):
    """The result of a sweep of one network."""
    found = copy.deepcopy(result)
    found["candidates"] = [entry for entry in found["candidates"] if entry["network"] == network]
    found["failed"] = [entry for entry in found["failed"] if entry["key"].startswith(network)]
    found["fronts"] = {network: found["fronts"][network]}
    return found


def test_two_halves_are_the_whole(whole):
    merged = merge_results({"a": part(whole, "camera"), "b": part(whole, "lidar")})
    assert merged == whole


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["scenes"][0].update(digest="0"), "scenes differs"),
        (lambda r: r["host"].update(cpu="another"), r"host\.cpu differs"),
        (lambda r: r["versions"].update(onnxruntime="0"), r"versions\.onnxruntime differs"),
        (lambda r: r.update(device="cuda:0", frames_per_scene=1), "device, frames_per_scene differ"),
        (lambda r: r.update(complete=False), "b: is not complete"),
    ],
)
def test_what_was_measured_in_another_way_is_refused(whole, change, said):
    other = part(whole, "lidar")
    change(other)
    with pytest.raises(RecordError, match=said):
        merge_results({"a": part(whole, "camera"), "b": other})


def test_a_candidate_in_both_and_one_alone_are_refused(whole):
    with pytest.raises(RecordError, match="both have the candidate camera-"):
        merge_results({"a": part(whole, "camera"), "b": part(whole, "camera")})
    with pytest.raises(RecordError, match="at least two"):
        merge_results({"a": whole})


def test_the_command_line_writes_the_merged_result(whole, tmp_path):
    for network in ("camera", "lidar"):
        (tmp_path / f"{network}.json").write_text(json.dumps(part(whole, network)), encoding="utf-8")
    arguments = ("tradeoff", "--merge", "camera.json", "--merge", "lidar.json")
    done = spawn(*arguments, "--out", "both", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "both" / "tradeoff.json").read_text(encoding="utf-8")) == whole
    assert spawn(*arguments, cwd=tmp_path).returncode == 2
