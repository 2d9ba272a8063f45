"""Which candidate to take: the Pareto front, and a choice for given limits with its reason; no measuring here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saccade.errors import ConfigurationError, RecordError
from saccade.validation.tradeoff_candidates import PRECISION_ORDER, PRUNING_ORDER, candidate_title

RESULT_FILE = "tradeoff.json"
SAME = "no measurable difference"

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit that was asked for."""

    name: str
    value: float
    at_least: bool
    read: Callable[[Entry], tuple[float | None, Sequence[float] | None]]
    """Value and interval of a candidate."""
    unit: str = ""
    field: str = ""
    """What a candidate calls it."""

    def why(self, entry: Entry) -> str | None:
        """Returns why a candidate has no value."""
        found = entry.get(self.field)
        return found.get("reason") if isinstance(found, Mapping) else entry.get("memory_absent")

    def met(self, entry: Entry) -> bool:
        """Tells whether a candidate's value meets it; what was not measured does not."""
        value, _ = self.read(entry)
        return value is not None and (value >= self.value if self.at_least else value <= self.value)

    def certain(self, entry: Entry) -> bool:
        """Tells whether its whole interval does."""
        _, interval = self.read(entry)
        if interval is None:
            return False
        return interval[0] >= self.value if self.at_least else interval[1] <= self.value

    def __str__(self) -> str:
        return f"{self.name} {'>=' if self.at_least else '<='} {self.value:g}{self.unit}"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to take of one network, and why."""

    network: str
    batch: int
    limits: tuple[str, ...]
    chosen: Entry | None
    """An entry of ``candidates``; ``None`` where nothing meets the limits."""
    reason: str
    runner_up: Entry | None = None
    runner_up_reason: str = ""
    unmet: tuple[str, ...] = ()
    """What no candidate meets, in sentences."""
    notes: tuple[str, ...] = field(default=())
    """What to keep in mind: intervals that reach a limit, candidates left out."""

    @property
    def satisfied(self) -> bool:
        """Whether something meets every limit."""
        return self.chosen is not None

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON has it; candidates by their key."""
        return {
            "network": self.network,
            "batch": self.batch,
            "limits": list(self.limits),
            "chosen": None if self.chosen is None else self.chosen["key"],
            "reason": self.reason,
            "runner_up": None if self.runner_up is None else self.runner_up["key"],
            "runner_up_reason": self.runner_up_reason or None,
            "unmet": list(self.unmet),
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """Returns it in words."""
        head = "nothing" if self.chosen is None else candidate_title(self.chosen)
        found = [f"{self.network}, batch {self.batch}: {head}: {self.reason}"]
        if self.runner_up is not None:
            found.append(f"  runner-up: {candidate_title(self.runner_up)}: {self.runner_up_reason}")
        found += [f"  {text}" for text in (*self.unmet, *self.notes)]
        return found


def recommend(
    results: Mapping[str, Any] | str | Path,
    *,
    min_accuracy: float | None = None,
    max_latency: float | None = None,
    max_memory_mib: float | None = None,
    max_energy_j: float | None = None,
    min_retention: float | None = None,
    network: str | None = None,
    batch: int = 1,
) -> dict[str, Recommendation]:
    """Returns what to take of each network: the fastest candidate that meets every limit.

    Of candidates whose latency cannot be told apart from that of the fastest, the most accurate is taken, and of those
    whose accuracy cannot be told apart either the one with the most careful arithmetic and the least pruning.

    Args:
        results: What ``saccade tradeoff`` measured: its JSON as a mapping, the file, or the folder it is in.
        min_accuracy: Least accuracy against the ground truth, 0..1.
        max_latency: Largest p95 of the inference time [ms].
        max_memory_mib: Most GPU memory [MiB].
        max_energy_j: Most energy per frame [J].
        min_retention: Least share of FP32's accuracy; ``None`` = the gate that was configured; 0 = none.
        network: Only this one; ``None`` = all.
        batch: Frames per run.

    Returns:
        By network; :attr:`Recommendation.satisfied` is false where nothing meets the limits.

    Raises:
        ConfigurationError: A limit that cannot be meant, or no such network or batch.
        RecordError: The result cannot be read.
    """
    document = read_result(results)
    entries = [entry for entry in document["candidates"] if entry["batch"] == batch]
    names = list(dict.fromkeys(entry["network"] for entry in document["candidates"]))
    if network is not None and network not in names:
        raise ConfigurationError(f"network {network!r} was not measured; measured were: {', '.join(names) or 'none'}")
    if not entries:
        batches = sorted({entry["batch"] for entry in document["candidates"]})
        raise ConfigurationError(f"batch {batch} was not measured; measured were: {batches or 'none'}")
    gate = document.get("gate", 0.99) if min_retention is None else min_retention
    limits = _limits(min_accuracy, max_latency, max_memory_mib, max_energy_j, gate)
    return {
        name: _recommended(name, batch, [entry for entry in entries if entry["network"] == name], limits)
        for name in ([network] if network is not None else names)
    }


def read_result(results: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """Returns the result of a trade-off.

    Raises:
        RecordError: There is none, or it is damaged.
    """
    if isinstance(results, Mapping):
        document: Any = results
        where = "the result"
    else:
        path = Path(results)
        path = path / RESULT_FILE if path.is_dir() else path
        where = str(path)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise RecordError(f"{path}: {error.strerror}: measure with  saccade tradeoff") from error
        except ValueError as error:
            raise RecordError(f"{path}: no JSON ({error}): measure again with  saccade tradeoff") from error
    try:
        for entry in document["candidates"]:
            for name in ("key", "network", "batch", "precision", "sparsity"):
                entry[name]
            for name in ("accuracy", "retention", "latency"):
                entry[name]["value"], entry[name]["interval"]
    except (KeyError, TypeError) as error:
        raise RecordError(f"{where}: no result of a trade-off ({error} is missing): see docs/tradeoff.md") from error
    return document


def pareto_front(entries: Sequence[Entry], *, cost: str = "latency", lower: bool = True) -> list[Entry]:
    """Returns the candidates that no other is at least as good as in both and better in one; by their values.

    Candidates that are invalid or not qualified are not among them.

    Args:
        entries: Of one network and one batch.
        cost: What accuracy is held against.
        lower: Whether less of it is better.
    """
    usable = [(entry, *point) for entry in entries if (point := _point(entry, cost)) is not None]
    sign = 1.0 if lower else -1.0
    front = []
    for entry, accuracy, amount in usable:
        beaten = any(
            other >= accuracy and sign * price <= sign * amount and (other > accuracy or sign * price < sign * amount)
            for _, other, price in usable
        )
        if not beaten:
            front.append((sign * amount, entry))
    return [entry for _, entry in sorted(front, key=lambda item: item[0])]


def not_qualified(entry: Entry) -> str | None:
    """Returns in words by how much an engine differs from FP32 beyond the limits of its precision.

    ``None`` where it does not, where nothing was compared, and for results that do not say.
    """
    if entry.get("qualified") is not False:
        return None
    figures = entry.get("qualification") or {}
    limits = figures.get("limits") or {}
    most, least = limits.get("relative_l2"), limits.get("label_agreement")
    agreement = figures.get("label_agreement")
    parts = [
        f"relative L2 of {name} {'undefined' if value is None else f'{value:.2g}'}, limit {most:g}"
        for name, value in (figures.get("relative_l2") or {}).items()
        if most is not None and (value is None or value > most)
    ]
    if agreement is not None and least is not None and agreement < least:
        parts.append(f"label agreement {agreement:.4f}, limit {least:g}")
    return f"not qualified: {'; '.join(parts) or 'it differs from FP32'}"


def overlap(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Tells whether two figures cannot be told apart: their intervals overlap, or one has none."""
    one, other = first.get("interval"), second.get("interval")
    if one is None or other is None:
        return True
    return bool(one[0] <= other[1] and other[0] <= one[1])


def _point(entry: Entry, cost: str) -> tuple[float, float] | None:
    accuracy, amount = entry["accuracy"]["value"], (entry.get(cost) or {}).get("value")
    left_out = entry.get("invalid") or not_qualified(entry)
    return None if left_out or accuracy is None or amount is None else (accuracy, amount)


def _limits(
    min_accuracy: float | None, max_latency: float | None, memory: float | None, energy: float | None, gate: float
) -> list[Limit]:
    for name, value in (("min_accuracy", min_accuracy), ("min_retention", gate)):
        if value is not None and not 0 <= value <= 1:
            raise ConfigurationError(f"{name} is {value:g}: expected a share from 0 to 1, such as 0.92")
    for name, value in (("max_latency", max_latency), ("max_memory_mib", memory), ("max_energy_j", energy)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigurationError(f"{name} is {value:g}: expected a number above 0")

    def figure(name: str) -> Callable[[Entry], tuple[float | None, Sequence[float] | None]]:
        return lambda entry: ((entry.get(name) or {}).get("value"), (entry.get(name) or {}).get("interval"))

    def mebibytes(entry: Entry) -> tuple[float | None, Sequence[float] | None]:
        used = entry.get("memory_bytes")
        return (None, None) if used is None else (used / 2**20, [used / 2**20] * 2)

    found = []
    if gate > 0:
        found.append(Limit("share of FP32's accuracy", gate, True, figure("retention"), field="retention"))
    if min_accuracy is not None:
        found.append(Limit("accuracy", min_accuracy, True, figure("accuracy"), field="accuracy"))
    if max_latency is not None:
        found.append(Limit("latency p95", max_latency, False, figure("latency_p95"), " ms", "latency_p95"))
    if memory is not None:
        found.append(Limit("GPU memory", memory, False, mebibytes, " MiB"))
    if energy is not None:
        found.append(Limit("energy per frame", energy, False, figure("energy_per_frame"), " J", "energy_per_frame"))
    return found


def _recommended(name: str, batch: int, entries: list[Entry], limits: list[Limit]) -> Recommendation:
    texts = tuple(map(str, limits))
    left_out = {entry["key"]: why for entry in entries if (why := entry.get("invalid") or not_qualified(entry))}
    usable = [entry for entry in entries if entry["key"] not in left_out and entry["latency"]["value"] is not None]
    notes = [
        f"{candidate_title(entry)} is left out: {left_out[entry['key']]}"
        for entry in entries
        if entry["key"] in left_out
    ]
    good = [entry for entry in usable if all(limit.met(entry) for limit in limits)]
    if not good:
        unmet = tuple(_unmet(usable, limits))
        reason = "no candidate meets the limits" if usable else "no candidate could be measured"
        return Recommendation(name, batch, texts, None, reason, unmet=unmet, notes=tuple(notes))
    chosen, reason = _best(good)
    rest = [entry for entry in good if entry is not chosen]
    for limit in limits:
        if not limit.certain(chosen):
            notes.append(f"{limit}: met by the value, but not by the whole interval")
    runner = _best(rest)[0] if rest else None
    why = "" if runner is None else _compared(runner, chosen)
    return Recommendation(name, batch, texts, chosen, reason, runner, why, notes=tuple(notes))


def _best(entries: Sequence[Entry]) -> tuple[Entry, str]:
    """Returns the best of candidates that all meet the limits, and why it is."""
    fastest = min(entries, key=lambda entry: entry["latency"]["value"])
    peers = [entry for entry in entries if entry is fastest or overlap(entry["latency"], fastest["latency"])]
    if len(entries) == 1:
        return fastest, f"the only one that meets the limits, {_latency(fastest)}, {_accuracy(fastest)}"
    if len(peers) == 1:
        return fastest, f"the fastest that meets the limits, {_latency(fastest)}, {_accuracy(fastest)}"
    top = max(peers, key=lambda entry: entry["accuracy"]["value"] or 0.0)
    equals = [entry for entry in peers if entry is top or overlap(entry["accuracy"], top["accuracy"])]
    chosen = min(equals, key=carefulness)
    others = ", ".join(candidate_title(entry) for entry in peers if entry is not chosen)
    text = f"{_latency(chosen)}, {_accuracy(chosen)}; {SAME} in latency to {others}"
    if len(equals) > 1:
        return chosen, f"{text}, nor in accuracy among the best of them: the most careful arithmetic is taken"
    return chosen, f"{text}, and it is the most accurate of them"


def carefulness(entry: Entry) -> tuple[int, int, float]:
    """Returns a key that sorts the most careful arithmetic and the least pruning first."""
    order = PRECISION_ORDER.index(entry["precision"]) if entry["precision"] in PRECISION_ORDER else 9
    pruned = PRUNING_ORDER.index(entry["sparsity"]) if entry["sparsity"] in PRUNING_ORDER else 9
    return pruned, order, float(entry["latency"]["value"] or 0.0)


def _compared(entry: Entry, chosen: Entry) -> str:
    parts = []
    for name, word in (("latency", "latency"), ("accuracy", "accuracy")):
        one, other = entry[name], chosen[name]
        if one["value"] is None or other["value"] is None:
            continue
        if overlap(one, other):
            parts.append(f"{SAME} in {word}")
        elif name == "latency":
            parts.append(f"{one['value'] / other['value']:.3g} times its latency")
        else:
            parts.append(f"accuracy {one['value'] - other['value']:+.4f}")
    return ", ".join(parts)


def _unmet(entries: Sequence[Entry], limits: Sequence[Limit]) -> list[str]:
    texts = []
    impossible = [limit for limit in limits if not any(limit.met(entry) for entry in entries)]
    for limit in impossible:
        known = [(value, entry) for entry in entries if (value := limit.read(entry)[0]) is not None]
        if not known:
            why = next((text for entry in entries if (text := limit.why(entry))), "it was not measured here")
            texts.append(f"{limit}: nothing is known to meet it: {why}")
            continue
        value, entry = (max if limit.at_least else min)(known, key=lambda item: item[0])
        texts.append(
            f"{limit}: no candidate meets it; the nearest is {candidate_title(entry)} with {value:.4g}{limit.unit}"
        )
    if not impossible and entries:
        for limit in limits:
            able = ", ".join(candidate_title(entry) for entry in entries if limit.met(entry))
            texts.append(f"{limit}: met by {able}")
        texts.append("no candidate meets all of them together")
    return texts


def _latency(entry: Entry) -> str:
    return f"median {entry['latency']['value']:.3g} ms"


def _accuracy(entry: Entry) -> str:
    value, kept = entry["accuracy"]["value"], entry["retention"]["value"]
    text = "accuracy not measured" if value is None else f"accuracy {value:.4f}"
    return text if kept is None else f"{text} ({kept:.2%} of FP32)"
