"""JUnit XML: one test case per budget and one for whether the run can be judged, for CI systems that read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

_ILLEGAL = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, even escaped."""


def junit_document(run: Mapping[str, Any]) -> bytes:
    """Returns the content of ``junit.xml`` for the content of ``run.json``.

    A missed budget is a failure, one that could not be judged an error; a run that cannot be judged has an error in
    the case ``validity``.
    """
    name = str(run.get("name") or "run")
    budgets = run["budgets"]
    invalid = run["verdict"] == "invalid"
    suite = ElementTree.Element(
        "testsuite",
        {
            "name": _clean(f"saccade.{name}"),
            "tests": str(len(budgets) + 1),
            "failures": str(sum(budget["passed"] is False for budget in budgets)),
            "errors": str(sum(budget["passed"] is None for budget in budgets) + int(invalid)),
            "skipped": "0",
            "time": f"{run['wall_s'] or 0:.3f}",
        },
    )
    if run.get("started"):
        suite.set("timestamp", _clean(str(run["started"])))
    properties = ElementTree.SubElement(suite, "properties")
    for key in ("verdict", "frames", "dropped", "contacts", "realtime_factor", "seed", "device"):
        if run.get(key) is not None:
            ElementTree.SubElement(properties, "property", {"name": key, "value": _clean(str(run[key]))})
    case = _case(suite, name, "validity", run["wall_s"])
    if invalid:
        text = "\n".join(run["reasons"])
        error = ElementTree.SubElement(case, "error", {"message": _clean(run["reasons"][0]), "type": "invalid"})
        error.text = _clean(text)
    for budget in budgets:
        _budget(suite, name, budget)
    suites = ElementTree.Element(
        "testsuites", {key: suite.attrib[key] for key in ("tests", "failures", "errors", "time")}
    )
    suites.append(suite)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True) + b"\n"


def _budget(suite: ElementTree.Element, name: str, budget: Mapping[str, Any]) -> None:
    case = _case(suite, name, budget["name"], None)
    unit = f" {budget['unit']}" if budget["unit"] else ""
    said = f"{budget['description']}: {budget['value']}{unit} {budget['comparison']} {budget['limit']}{unit}"
    if budget["low"] is not None:
        said += f", 95 % interval {budget['low']} to {budget['high']}"
    if budget["n"] is not None:
        said += f", n={budget['n']}"
    if budget["passed"] is True:
        ElementTree.SubElement(case, "system-out").text = _clean(said)
        return
    tag, kind = ("error", "not judged") if budget["passed"] is None else ("failure", "missed")
    found = ElementTree.SubElement(case, tag, {"message": _clean(budget["reason"] or kind), "type": kind})
    found.text = _clean(said)


def _case(suite: ElementTree.Element, run: str, name: str, seconds: float | None) -> ElementTree.Element:
    names = {"classname": _clean(f"saccade.{run}"), "name": _clean(name), "time": f"{seconds or 0:.3f}"}
    return ElementTree.SubElement(suite, "testcase", names)


def _clean(text: str) -> str:
    return _ILLEGAL.sub("", text)
