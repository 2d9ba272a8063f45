"""A sweep's journal: what is there counts, what is torn does not, and another sweep's is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from saccade.errors import RecordError
from saccade.validation.tradeoff_journal import JOURNAL_FILE, Journal

PLAN = {"frames": 10, "models": {"camera": "abc"}}


def test_goes_on_with_what_is_there(tmp_path):
    with Journal(tmp_path, PLAN) as journal:
        assert not journal.resumed
        journal.append({"kind": "cell", "candidate": "a", "scene": "s", "value": 1})
        journal.append({"kind": "cell", "candidate": "b", "scene": "s", "value": 2})
    with Journal(tmp_path, PLAN) as journal:
        assert journal.resumed
        assert journal.find("cell", candidate="a", scene="s")["value"] == 1
        assert journal.find("cell", candidate="c") is None
        journal.append({"kind": "cell", "candidate": "a", "scene": "s", "value": 3})
        assert journal.find("cell", candidate="a")["value"] == 3
        assert sorted(entry["value"] for entry in journal.entries("cell")) == [2, 3]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_line_is_cut_off(tmp_path, cut):
    with Journal(tmp_path, PLAN) as journal:
        journal.append({"kind": "cell", "candidate": "a", "scene": "s"})
        journal.append({"kind": "cell", "candidate": "b", "scene": "s"})
    path = tmp_path / JOURNAL_FILE
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(tmp_path, PLAN) as journal:
        assert journal.torn
        assert [entry["candidate"] for entry in journal.entries("cell")] == ["a"]
        journal.append({"kind": "cell", "candidate": "b", "scene": "s"})
    for line in path.read_text().splitlines():
        json.loads(line)


def test_another_sweep_is_refused_by_what_differs(tmp_path):
    with Journal(tmp_path, PLAN):
        pass
    with pytest.raises(RecordError, match=r"frames, warmup.* differ.*--fresh"):
        Journal(tmp_path, {**PLAN, "frames": 11, "warmup": 1})


def test_damage_in_the_middle_is_named(tmp_path):
    with Journal(tmp_path, PLAN) as journal:
        journal.append({"kind": "cell"})
    path = tmp_path / JOURNAL_FILE
    path.write_bytes(path.read_bytes() + b"nonsense\n")
    with pytest.raises(RecordError, match="line 3 is damaged"):
        Journal(tmp_path, PLAN)


def test_one_process_at_a_time(tmp_path):
    code = (
        "import sys; from saccade.validation.tradeoff_journal import Journal\n"
        f"try: Journal(sys.argv[1], {PLAN!r})\n"
        "except Exception as error: print(error)"
    )
    with Journal(tmp_path, PLAN):
        said = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert "another sweep is at work" in said.stdout


def test_numbers_that_json_lacks_become_null(tmp_path):
    with Journal(tmp_path, PLAN) as journal:
        journal.append({"kind": "cell", "value": float("nan")})
    with Journal(tmp_path, PLAN) as journal:
        assert journal.find("cell")["value"] is None
