"""One result from sweeps of different networks, or candidates, that ran one after another on one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saccade.errors import RecordError
from saccade.validation.recommendation import pareto_front

SAME = ("schema", "kind", "device", "frames_per_scene", "scenes", "gate", "calibration", "commit")
"""Fields that must be equal."""
HOST = ("cpu", "cores", "gpu")
VERSIONS = ("onnxruntime", "tensorrt", "warp-lang")


def merge_results(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns one result with the candidates of all.

    Args:
        results: At least two results of ``saccade tradeoff`` by the place that they come from, for errors.

    Raises:
        RecordError: They were measured on other scenes, another machine or other versions, are not complete, or have
            a candidate in common; the text names the places and what differs.
    """
    (first_place, first), *others = results.items()
    if not others:
        raise RecordError(f"{first_place}: one result alone cannot be merged: name at least two")
    for place, result in results.items():
        if not result.get("complete"):
            raise RecordError(f"{place}: is not complete: go on with it first, the same command does")
    for place, result in others:
        different = [name for name in SAME if result.get(name) != first.get(name)]
        different += [f"host.{name}" for name in HOST if _within(result, "host", name) != _within(first, "host", name)]
        different += [
            f"versions.{name}"
            for name in VERSIONS
            if _within(result, "versions", name) != _within(first, "versions", name)
        ]
        if different:
            raise RecordError(
                f"{first_place} and {place}: cannot be merged, {', '.join(different)} "
                f"{'differs' if len(different) == 1 else 'differ'}: measure both the same way"
            )
    entries: list[Mapping[str, Any]] = []
    owner: dict[str, str] = {}
    for place, result in results.items():
        for entry in result["candidates"]:
            if entry["key"] in owner:
                raise RecordError(f"{owner[entry['key']]} and {place}: both have the candidate {entry['key']}")
            owner[entry["key"]] = place
            entries.append(entry)
    loads = [result["load_average"] for result in results.values() if result.get("load_average")]
    notes = dict.fromkeys(result["note"] for result in results.values() if result.get("note"))
    return {
        **first,
        "created": max(result["created"] for result in results.values()),
        "note": " ".join(notes) or None,
        "load_average": {"min": min(load["min"] for load in loads), "max": max(load["max"] for load in loads)}
        if loads
        else None,
        "candidates": entries,
        "failed": [entry for result in results.values() for entry in result["failed"]],
        "fronts": fronts(entries),
    }


def fronts(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the keys of the Pareto fronts, by network, batch and cost."""
    found: dict[str, Any] = {}
    for network, batch in dict.fromkeys((entry["network"], entry["batch"]) for entry in entries):
        own = [entry for entry in entries if (entry["network"], entry["batch"]) == (network, batch)]
        found.setdefault(network, {})[str(batch)] = {
            "latency": [entry["key"] for entry in pareto_front(own)],
            "throughput": [entry["key"] for entry in pareto_front(own, cost="throughput", lower=False)],
        }
    return found


def _within(result: Mapping[str, Any], section: str, name: str) -> Any:
    return (result.get(section) or {}).get(name)
