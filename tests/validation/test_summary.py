"""From records to figures: every one recomputed here in another way, and the files of a finished run."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.factories import make_budgets, make_document, make_frames, make_header, make_record, make_run, write_record

from saccade.config import Budgets
from saccade.errors import RecordError
from saccade.telemetry.record import read_frames
from saccade.validation import summary as module
from saccade.validation.summary import finish_run, frame_stages, summarise


def test_the_figures_are_those_of_the_record(tmp_path):
    make_record(tmp_path, 400, seed=3, contacts=(60, 61), dropped=(2, 50), duplicate=(70,), slow=(80, 81, 82))
    record = read_frames(tmp_path)
    found = summarise(record, make_budgets())
    judged = [f for f in record.frames if f["phase"] == "judged"]
    camera = [f for f in judged if f["sensor"] == "head_camera"]
    lidar = [f for f in judged if f["sensor"] == "lidar"]

    latency = np.array([(f["stamps"]["decided"] - f["stamps"]["sim_state"]) / 1e6 for f in camera])
    assert found["frames"] == 400 and found["frames_by_sensor"] == {"head_camera": 400, "lidar": 400}
    assert found["latency_ms"]["n"] == 400
    assert found["latency_ms"]["mean"] == pytest.approx(latency.mean())
    assert found["latency_ms"]["max"] == pytest.approx(latency.max())
    for percent in (50, 95, 99):
        assert found["latency_ms"][f"p{percent}"]["value"] == pytest.approx(np.percentile(latency, percent))
    inference = [a["inference_ms"] + b["inference_ms"] for a, b in zip(camera, lidar, strict=True)]
    assert found["inference_ms"]["p50"]["value"] == pytest.approx(np.median(inference))

    assert found["deadline_misses"] == int((latency > 100).sum()) == 3
    interval = stats.binomtest(3, 400).proportion_ci(0.95, "exact")
    assert found["deadline_miss_rate"]["value"] == 3 / 400
    assert found["deadline_miss_rate"]["high"] == pytest.approx(interval.high)

    assert found["dropped"] == 2 and found["lost"] == 0 and found["stale"] == 1
    sensor = found["sensors"]["head_camera"]
    assert (sensor["produced"], sensor["judged"], sensor["dropped"], sensor["duplicates"]) == (407, 400, 2, 1)
    assert sensor["achieved_hz"] == pytest.approx(10.0) and sensor["rate_hz"] == 10.0

    wall = (judged[-1]["stamps"]["sim_state"] - judged[0]["stamps"]["sim_state"]) / 1e9
    assert found["wall_s"] == pytest.approx(wall)
    assert found["realtime_factor"] == pytest.approx((judged[-1]["sim_time"] - judged[0]["sim_time"]) / wall)
    assert found["distance_m"] == pytest.approx(judged[-1]["distance"] - judged[0]["distance"])
    assert found["contacts"] == 2 == len(found["contact_list"])

    accuracy = found["accuracy"]
    for name, frames, network in (("camera_miou", camera, "camera"), ("lidar_miou", lidar, "lidar")):
        intersection = np.sum([f["results"][network]["intersection"] for f in frames], axis=0)
        union = np.sum([f["results"][network]["union"] for f in frames], axis=0)
        expected = float(np.mean(intersection[union > 0] / union[union > 0]))
        assert accuracy[name] == pytest.approx(expected) == accuracy["networks"][network]["miou"]
    assert accuracy["networks"]["camera"]["iou"]["robot"] is None
    scores = np.array([f["results"]["camera"]["hazard"] for f in camera])
    truth = np.array([f["truth"]["hazard"] for f in camera])
    hazard = accuracy["hazard"]
    said = scores >= 0.5
    assert (hazard["tp"], hazard["fn"]) == (int((said & truth).sum()), int((~said & truth).sum()))
    assert (hazard["fp"], hazard["tn"]) == (int((said & ~truth).sum()), int((~said & ~truth).sum()))
    assert hazard["recall"]["value"] == pytest.approx(hazard["tp"] / truth.sum())
    assert accuracy["hazard_auroc"] == pytest.approx(
        stats.mannwhitneyu(scores[truth], scores[~truth]).statistic / (truth.sum() * (~truth).sum())
    )
    said = np.minimum([f["results"]["lidar"]["clearance"] for f in lidar], 30.0)
    errors = np.abs(said - np.array([f["truth"]["clearance"] for f in lidar]))
    assert accuracy["clearance_error_m"] == pytest.approx(np.median(errors))
    assert accuracy["clearance"]["n"] == 400 * 16 and accuracy["clearance"]["mean"] == pytest.approx(errors.mean())


def test_stages_add_up_to_the_latency():
    for frame in make_frames(20):
        found = frame_stages(frame)
        until = sum(found[name] for name in ("sense", "hand_over", "preprocess", "infer", "to_host", "decide"))
        assert until == pytest.approx(frame["latency_ms"])
        assert "publish" not in found and found["apply"] > 0


def test_a_frame_that_no_network_reads_has_no_inference():
    frame = make_frames(1)[0]
    frame["stamps"].update(preprocessed=None, inferred=None, on_host=None)
    found = frame_stages(frame)
    assert set(found) == {"sense", "hand_over", "decide", "apply"}
    assert found["sense"] + found["hand_over"] + found["decide"] == pytest.approx(frame["latency_ms"])


def test_warmup_is_recorded_and_not_judged(tmp_path):
    make_record(tmp_path, 80, warmup=20, slow=range(20), contacts=(3,), nan=())
    found = summarise(read_frames(tmp_path), make_budgets())
    assert found["deadline_misses"] == 0 and found["contacts"] == 0 and found["frames"] == 80
    assert found["sensors"]["lidar"]["produced"] == 100 and found["sensors"]["lidar"]["judged"] == 80
    assert found["verdict"] == "pass"


def test_a_late_tick_counts_once_and_out_of_order_is_stale(tmp_path):
    frames = make_frames(80)
    cameras = [f for f in frames if f["sensor"] == "head_camera"]
    cameras[30]["sequence"], cameras[31]["sequence"] = cameras[31]["sequence"], cameras[30]["sequence"]
    write_record(tmp_path, make_header(80), frames)
    sensor = summarise(read_frames(tmp_path), make_budgets())["sensors"]["head_camera"]
    assert (sensor["duplicates"], sensor["out_of_order"]) == (0, 1)


def test_a_run_without_truth_or_networks(tmp_path):
    frames = make_frames(80)
    for frame in frames:
        frame["results"], frame["truth"], frame["inference_ms"] = {}, None, None
        frame["stamps"].update(preprocessed=None, inferred=None, on_host=None)
    write_record(tmp_path, make_header(80, networks={}), frames)
    found = summarise(read_frames(tmp_path), Budgets(latency_p95_ms=100))
    accuracy = found["accuracy"]
    assert [accuracy[k] for k in ("camera_miou", "lidar_miou", "hazard_auroc", "clearance_error_m")] == [None] * 4
    assert found["inference_ms"]["n"] == 0 and found["verdict"] == "pass"


def test_finish_run_writes_every_file_whole(tmp_path):
    found = make_run(tmp_path, 100)
    document = json.loads((tmp_path / "run.json").read_text())
    assert document == json.loads(json.dumps(found))
    assert (document["state"], document["schema"], document["verdict"]) == ("finished", 1, "pass")
    assert document["host"]["peak_rss_mb"] > 1
    assert document["configuration"] == make_document()["configuration"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frames.jsonl", "junit.xml", "metrics.json", "run.json"]


def test_run_json_has_every_field_of_the_schema(tmp_path):
    found = make_run(tmp_path, 100)
    fields = """
    schema name state started finished verdict exit_status reasons frames frames_by_sensor dropped stale lost
    latency_ms inference_ms stages_ms sensors deadline_ms deadline_misses deadline_miss_rate realtime_factor
    simulated_s wall_s accuracy contacts contact_list distance_m budgets configuration sources versions host
    hashes engine simulator seed device recorder
    """.split()
    assert set(fields) <= set(found)
    assert set(found["stages_ms"]) == set(module.STAGE_NAMES)
    for entry in found["budgets"]:
        assert set(entry) == set("name description unit comparison limit value low high n passed reason".split())


def test_nothing_half_written_when_the_disk_is_full(tmp_path, monkeypatch):
    make_record(tmp_path, 10)
    (tmp_path / "run.json").write_text('{"state": "running"}')

    def full(path, text):
        raise RecordError(f"{path}: the disk is full")

    monkeypatch.setattr(module, "write_atomic", full)
    with pytest.raises(RecordError, match="disk is full"):
        finish_run(tmp_path, make_budgets(), make_document())
    assert json.loads((tmp_path / "run.json").read_text()) == {"state": "running"}


def test_non_finite_facts_do_not_break_run_json(tmp_path):
    make_record(tmp_path, 80)
    document = make_document(simulator={"value": math.nan}, engine={"value": np.float32(2.5)})
    finish_run(tmp_path, make_budgets(), document)
    text = (tmp_path / "run.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["simulator"] == {"value": None} and json.loads(text)["engine"] == {"value": 2.5}


FIELDS = ["index", "tick", "phase", "sequence", "sim_time", "dropped", "stamps", "results", "truth", "pose", "contacts"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 23),
            st.sampled_from(FIELDS),
            st.none()
            | st.integers(-5, 2**70)
            | st.floats()
            | st.booleans()
            | st.just("judged")
            | st.just([])
            | st.just({})
            | st.just([None, None, None]),
        ),
        max_size=4,
    )
)
def test_whatever_stands_in_a_record_is_judged_without_a_crash(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("odd")
    frames = make_frames(10, warmup=2)
    for number, field, value in changes:
        frames[number][field] = value
    write_record(folder, make_header(10, 2), frames)
    found = finish_run(folder, make_budgets(), make_document())
    assert found["verdict"] == "invalid"
    json.loads((folder / "run.json").read_text(), parse_constant=lambda token: pytest.fail(token))
