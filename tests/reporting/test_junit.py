"""junit.xml as a reader of JUnit sees it."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.factories import make_run

from saccade.reporting.junit import junit_document


def suite_of(run):
    root = ElementTree.fromstring(junit_document(run))
    assert root.tag == "testsuites"
    (suite,) = root
    cases = suite.findall("testcase")
    assert int(suite.get("tests")) == len(cases)
    assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
    assert int(suite.get("errors")) == len(suite.findall("testcase/error"))
    return suite, {case.get("name"): case for case in cases}


@pytest.mark.parametrize(
    ("faults", "failures", "errors"),
    [
        ({}, set(), set()),
        ({"contacts": (50,), "dropped": (60,)}, {"contacts", "dropped"}, set()),
        ({"reason": "interrupted"}, set(), {"validity"}),
        ({"ticks": 30, "contacts": (20,)}, {"contacts"}, {"validity", "latency_p95_ms"}),
    ],
)
def test_one_case_per_budget_and_one_for_validity(tmp_path, faults, failures, errors):
    run = make_run(tmp_path, **faults)
    suite, cases = suite_of(run)
    assert set(cases) == {"validity", *(budget["name"] for budget in run["budgets"])}
    assert {name for name, case in cases.items() if case.find("failure") is not None} == failures
    assert {name for name, case in cases.items() if case.find("error") is not None} == errors
    assert suite.get("name") == f"saccade.{tmp_path.name}"


@given(name=st.text(), reason=st.text())
def test_any_text_is_valid_xml(tmp_path_factory, name, reason):
    run = dict(_run(tmp_path_factory))
    run["name"], run["reasons"], run["verdict"] = name, [reason], "invalid"
    run["budgets"] = [{**run["budgets"][0], "passed": False, "reason": reason}]
    _, cases = suite_of(run)
    assert set(cases) == {"validity", run["budgets"][0]["name"]}


_runs = []


def _run(factory):
    if not _runs:
        _runs.append(make_run(factory.mktemp("run"), 80))
    return _runs[0]
