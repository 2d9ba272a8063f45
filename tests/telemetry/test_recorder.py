"""The recorder, its reader and run folders: what is written, what survives, what is said about the rest."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factories import make_frames, make_header, make_record, rewrite

from saccade.errors import RecordError
from saccade.telemetry import recorder as module
from saccade.telemetry.record import read_frames
from saccade.telemetry.recorder import Recorder, finite, latest_directory, run_directory, write_atomic


def test_round_trip(tmp_path):
    frames = make_frames(20)
    recorder = Recorder(tmp_path, make_header(20))
    for frame in frames:
        recorder.put(frame)
    recorder.close("completed", "done", 2.5, 2.0)
    recorder.close("error", "a second call changes nothing", 0, 0)
    record = read_frames(tmp_path)
    assert record.header == make_header(20)
    assert record.frames == frames
    assert record.end == {
        "kind": "end",
        "frames": 50,
        "lost": 0,
        "reason": "completed",
        "message": "done",
        "wall_s": 2.5,
        "simulated_s": 2.0,
    }
    assert not record.torn and not record.problems and not record.lost
    facts = recorder.facts()
    assert facts["records"] == 50 and facts["lost"] == 0
    assert 0 < facts["hand_over_us"]["mean"] <= facts["hand_over_us"]["max"]


def test_handing_over_is_cheap(tmp_path):
    recorder = Recorder(tmp_path, make_header())
    for frame in make_frames(500):
        recorder.put(frame)
    recorder.close("completed", "", 1, 1)
    assert recorder.lost == 0
    assert recorder.facts()["hand_over_us"]["mean"] < 10


def test_non_finite_numbers_become_null_and_are_marked(tmp_path):
    frame = make_frames(1, warmup=0)[0]
    frame["results"]["camera"]["hazard"] = math.nan
    frame["pose"] = [np.float32(math.inf), np.float64(1.5), -math.inf]
    recorder = Recorder(tmp_path, make_header(1, 0))
    recorder.put(frame)
    recorder.close("completed", "", math.nan, 1.0)
    text = (tmp_path / "frames.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    record = read_frames(tmp_path)
    result = record.frames[0]["results"]["camera"]
    assert result["hazard"] is None and result["finite"] is False
    assert record.frames[0]["pose"] == [None, 1.5, None]
    assert record.end["wall_s"] is None
    assert not record.problems


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
        max_leaves=15,
    )
)
def test_whatever_is_recorded_is_json_without_nan(value):
    line = module._line({"value": value})
    assert line.count(b"\n") == 1 and line.endswith(b"\n")

    def refuse(token):
        raise AssertionError(token)

    json.loads(line, parse_constant=refuse)


def test_finite_leaves_good_values_alone():
    value = {"a": [1, 2.5, "x", None, True], "b": {"finite": True, "c": (1.0,)}}
    assert finite(value) == {"a": [1, 2.5, "x", None, True], "b": {"finite": True, "c": [1.0]}}


def test_records_are_readable_while_the_run_goes_on_and_idle(tmp_path):
    recorder = Recorder(tmp_path, make_header(1, 0), flush_ms=100)
    frames = make_frames(1, warmup=0)
    try:
        recorder.put(frames[0])
        deadline = time.monotonic() + 5
        while len(read_frames(tmp_path).frames) < 1:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        record = read_frames(tmp_path)
        assert record.frames == frames[:1] and record.end is None
        assert any("no end" in problem for problem in record.problems)
    finally:
        recorder.close("completed", "", 1, 1)


def test_sigkill_loses_at_most_the_flush_period(tmp_path):
    program = textwrap.dedent(
        """
        import sys, time
        from tests.factories import make_frames, make_header
        from saccade.telemetry.recorder import Recorder
        frames = make_frames(400)
        recorder = Recorder(sys.argv[1], make_header(400), flush_ms=100)
        for frame in frames:
            put_at = time.monotonic()
            recorder.put(frame)
            print(frame["index"], put_at, flush=True)
            time.sleep(0.003)
        time.sleep(60)
        """
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        times = []
        for line in process.stdout:
            index, put_at = line.split()
            times.append(float(put_at))
            if int(index) == 250:
                break
        process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        rest = [line.split() for line in process.stdout]
        times += [float(words[1]) for words in rest if len(words) == 2]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    record = read_frames(tmp_path)
    assert record.end is None and any("cut off" in problem for problem in record.problems)
    assert [frame["index"] for frame in record.frames] == list(range(len(record.frames)))
    # Everything that was handed over more than a period (and some time of a busy machine) before the kill is there.
    safe = sum(put_at < killed - 0.1 - 0.15 for put_at in times)
    assert safe > 50
    assert len(record.frames) >= safe
    assert record.frames == make_frames(400)[: len(record.frames)]


def test_a_record_cut_at_any_byte_is_readable_and_marked(tmp_path):
    data = make_record(tmp_path / "whole", ticks=2, warmup=0).read_bytes()
    whole = read_frames(tmp_path / "whole")
    first = data.index(b"\n") + 1
    cut_folder = tmp_path / "cut"
    cut_folder.mkdir()
    # Every cut near line ends, and a sample of the others.
    ends = [match.end() for match in re.finditer(b"\n", data)]
    near = {end + d for end in ends for d in (-2, -1, 0, 1) if first <= end + d <= len(data)}
    cuts = sorted(near | set(range(first, len(data), 97)))
    for cut in cuts:
        (cut_folder / "frames.jsonl").write_bytes(data[:cut])
        record = read_frames(cut_folder)
        assert record.frames == whole.frames[: len(record.frames)]
        # Whole when at most the last line break is missing.
        assert bool(record.problems) is (cut < len(data) - 1), cut
        lines = data[:cut].count(b"\n") - 1
        assert len(record.frames) >= min(lines, len(whole.frames))


@settings(max_examples=60, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), junk=st.binary(min_size=1, max_size=40))
def test_damage_never_raises_beyond_the_header(tmp_path_factory, position, junk):
    folder = tmp_path_factory.mktemp("damage")
    data = _small_record()
    start = data.index(b"\n") + 1
    at = start + int(position * (len(data) - start))
    (folder / "frames.jsonl").write_bytes(data[:at] + junk + data[at + len(junk) :])
    record = read_frames(folder)
    assert len(record.frames) <= 4


_cache: list[bytes] = []


def _small_record():
    if not _cache:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            _cache.append(make_record(folder, ticks=2, warmup=0).read_bytes())
    return _cache[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda lines: [*lines[:3], "broken", *lines[4:]], "line 4 is broken"),
        (lambda lines: lines[:3] + lines[4:], "1 record was lost, the first of them number 2"),
        (lambda lines: lines[:-1], "no end"),
        (lambda lines: [*lines, lines[2]], "comes after the end"),
        (lambda lines: [lines[0], *lines], "second header"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "not in the order"),
        (lambda lines: [*lines[:-1], {**lines[-1], "lost": 3}], "3 records were lost"),
        (lambda lines: [*lines[:2], {**lines[2], "stamps": None}, *lines[3:]], "stamps"),
        (lambda lines: [*lines[:2], {k: v for k, v in lines[2].items() if k != "pose"}, *lines[3:]], "pose"),
    ],
)
def test_problems_are_named(tmp_path, change, expected):
    path = make_record(tmp_path, ticks=10)
    assert not read_frames(tmp_path).problems
    rewrite(path, change)
    assert any(expected in problem for problem in read_frames(tmp_path).problems)


def test_unknown_fields_are_kept_and_do_not_matter(tmp_path):
    path = make_record(tmp_path, ticks=3)
    rewrite(path, lambda lines: [{**line, "later": [1]} for line in lines])
    record = read_frames(tmp_path)
    assert not record.problems and record.frames[0]["later"] == [1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no frames.jsonl"),
        ("", "no header"),
        ("garbage\n", "no header"),
        ('{"kind": "header", "schema": 2}\n', "schema 2"),
        (
            '{"kind": "end", "frames": 0, "lost": 0, "reason": "error", "message": "", "wall_s": 0, "simulated_s": 0}',
            "no header",
        ),
    ],
)
def test_what_is_no_record(tmp_path, content, expected):
    if content is not None:
        (tmp_path / "frames.jsonl").write_text(content)
    with pytest.raises(RecordError, match=expected):
        read_frames(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(RecordError, match=r"does not exist"):
        Recorder(tmp_path / "missing", make_header())
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="not a folder"):
        Recorder(tmp_path / "file", make_header())
    Recorder(tmp_path, make_header()).close("completed", "", 0, 0)
    with pytest.raises(RecordError, match=r"run\.name"):
        Recorder(tmp_path, make_header())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_at_the_start(tmp_path, monkeypatch):
    real = os.open
    monkeypatch.setattr(module.os, "open", lambda path, flags, mode=0o777: real("/dev/full", os.O_WRONLY))
    with pytest.raises(RecordError, match=r"disk is full.*--out") as caught:
        Recorder(tmp_path, make_header())
    assert str(tmp_path) in str(caught.value)


def test_a_disk_that_fills_during_the_run_costs_records_and_says_so(tmp_path, monkeypatch):
    header, frames = make_header(20), make_frames(20)
    recorder = Recorder(tmp_path, header, flush_ms=20)
    limit = os.path.getsize(recorder.path) + 5000
    real = os.write
    full = threading.Event()

    def write(file, data):
        if file != recorder._file:
            return real(file, data)
        room = limit - os.fstat(file).st_size
        if full.is_set() and room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data[: max(room, 0)] if full.is_set() else data)

    monkeypatch.setattr(module.os, "write", write)
    full.set()
    for frame in frames:
        recorder.put(frame)
    deadline = time.monotonic() + 5
    while recorder.failure is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert "disk is full" in recorder.failure
    recorder.close("error", recorder.failure, 1, 1)
    record = read_frames(tmp_path)
    # Whole lines only, in order, and the verdict can see that some are missing.
    assert record.frames == frames[: len(record.frames)]
    assert 0 < len(record.frames) < len(frames)
    assert recorder.facts()["records"] == len(record.frames)
    assert recorder.lost == len(frames) - len(record.frames)
    assert not record.torn and record.end["lost"] == record.lost == recorder.lost and record.problems


def test_a_real_file_size_limit(tmp_path):
    resource = pytest.importorskip("resource")
    program = textwrap.dedent(
        """
        import json, resource, signal, sys
        from tests.factories import make_frames, make_header
        from saccade.telemetry.recorder import Recorder
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        frames = make_frames(50)
        recorder = Recorder(sys.argv[1], make_header(50), flush_ms=10)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        for frame in frames:
            recorder.put(frame)
        recorder.close("completed", "", 1, 1)
        print(json.dumps([recorder.failure, recorder.lost, recorder.facts()["records"]]))
        """
    )
    assert resource
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, env=environment, check=True
    )
    failure, lost, written = json.loads(done.stdout)
    assert "ulimit -f" in failure and lost + written == 110 and lost > 0
    record = read_frames(tmp_path)
    assert len(record.frames) == written and not record.torn and record.problems


def test_a_full_queue_counts_what_it_loses(tmp_path, monkeypatch):
    stopped = threading.Event()
    recorder = Recorder(tmp_path, make_header(5, 0), flush_ms=1, capacity=3)
    monkeypatch.setattr(recorder, "_drain", lambda: stopped.wait(10))
    time.sleep(0.05)
    frames = make_frames(5, warmup=0)
    for frame in frames:
        recorder.put(frame)
    assert recorder.lost == 7 and "does not keep up" in recorder.failure
    monkeypatch.undo()
    stopped.set()
    recorder.close("error", "", 1, 1)
    record = read_frames(tmp_path)
    assert len(record.frames) == 3 and record.end["lost"] == 7 and record.lost == 7


def test_what_cannot_be_json_is_lost_and_the_rest_is_not(tmp_path):
    frames = make_frames(2, warmup=0)
    recorder = Recorder(tmp_path, make_header(2, 0))
    recorder.put(frames[0])
    recorder.put({**frames[1], "command": object()})
    recorder.put(frames[2])
    recorder.close("completed", "", 1, 1)
    assert recorder.lost == 1 and "object has no place" in recorder.failure
    record = read_frames(tmp_path)
    assert [frame["index"] for frame in record.frames] == [0, 2] and record.lost == 1


def test_run_directory_makes_unique_folders_and_points_at_the_newest(tmp_path):
    first = run_directory(tmp_path / "runs", "demo")
    second = run_directory(tmp_path / "runs", "demo")
    assert (first.name, second.name) == ("demo", "demo-2")
    assert (tmp_path / "runs" / "latest").resolve() == second.resolve()
    assert latest_directory(tmp_path / "runs") == second.resolve()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["demo", "demo-2", "latest"]


@pytest.mark.parametrize("name", ["../up", "a/b", "", "...", "latest", "x" * 500, "a\0b", "ünï code"])
def test_run_names_stay_inside(tmp_path, name):
    directory = run_directory(tmp_path, name)
    assert directory.parent == tmp_path and directory.is_dir() and not directory.is_symlink()
    assert directory.name != "latest"


def test_run_directory_without_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    directory = run_directory(tmp_path, "demo")
    assert (tmp_path / "latest").read_text().strip() == "demo"
    assert latest_directory(tmp_path) == directory.resolve()
    assert latest_directory(tmp_path / "nowhere") is None


def test_run_directory_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="--out"):
        run_directory(tmp_path / "file", "demo")


def test_write_atomic_replaces_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_text() == "two"

    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", fail)
    with pytest.raises(RecordError, match=r"cannot write run\.json.*disk is full"):
        write_atomic(path, "three")
    assert path.read_text() == "two" and [p.name for p in tmp_path.iterdir()] == ["run.json"]
