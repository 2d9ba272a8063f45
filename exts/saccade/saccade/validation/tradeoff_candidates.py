"""What a trade-off compares: a network in one precision, pruned in one way, at one input size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saccade.config import ImageInput, RunConfig
from saccade.config_tradeoff import Precision, Pruning
from saccade.errors import ConfigurationError

PRECISION_ORDER = ("fp32", "fp16", "int8_mixed", "int8")
"""From the most to the least careful arithmetic."""
PRUNING_ORDER = ("none", "2:4", "l1", "channels")

TITLES = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8", "int8_mixed": "INT8 mixed"}
_PRUNED = {"none": "", "2:4": " 2:4", "l1": " L1", "channels": " channels"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One combination."""

    network: str
    precision: Precision = "fp32"
    pruning: Pruning = "none"
    size: tuple[int, int] | None = None
    """Width and height of the image input [px]; ``None`` = the network's own."""

    @property
    def key(self) -> str:
        """A name that can be part of a file's."""
        parts = [self.network, self.precision]
        if self.pruning != "none":
            parts.append(self.pruning.replace(":", ""))
        if self.size is not None:
            parts.append(f"{self.size[0]}x{self.size[1]}")
        return "-".join(parts)

    @property
    def title(self) -> str:
        """A name for people."""
        return candidate_title({"precision": self.precision, "sparsity": self.pruning, "size": self.size})

    @property
    def reference(self) -> Candidate:
        """What its accuracy is compared with: FP32, not pruned, at the network's own size."""
        return Candidate(self.network)

    @property
    def may_differ(self) -> bool:
        """Whether it is measured although its engine differs from FP32 by more than its precision explains.

        All but the reference: what others keep is a share of its accuracy, which must therefore be FP32's.
        """
        return self != self.reference

    @property
    def twin(self) -> Candidate:
        """What its labels are compared with: FP32, not pruned, at the same size."""
        return Candidate(self.network, size=self.size)


def candidate_title(candidate: Mapping[str, Any]) -> str:
    """Returns the name for people of an entry of ``candidates`` in a result."""
    name = TITLES.get(str(candidate["precision"]), str(candidate["precision"]))
    name += _PRUNED.get(str(candidate["sparsity"]), f" {candidate['sparsity']}")
    size = candidate.get("size")
    return f"{name} {size[0]}x{size[1]}" if size else name


def candidates_from_config(config: RunConfig) -> list[Candidate]:
    """Returns every combination that the configuration names, each network's reference first.

    Raises:
        ConfigurationError: There is no such network, or nothing that could be compared.
    """
    wanted = config.tradeoff
    names = wanted.networks or list(config.networks)
    if not names:
        raise ConfigurationError("networks: the configuration has none, and a trade-off compares networks")
    unknown = [name for name in names if name not in config.networks]
    if unknown:
        raise ConfigurationError(
            f"tradeoff.networks: no network {unknown[0]!r}; configured are: {', '.join(config.networks) or 'none'}"
        )
    for name, files in wanted.pruned.items():
        if name not in config.networks:
            raise ConfigurationError(
                f"tradeoff.pruned: no network {name!r}; configured are: {', '.join(config.networks)}"
            )
        unused = [pruning for pruning in files if pruning not in wanted.pruning]
        if unused:
            raise ConfigurationError(
                f"tradeoff.pruned.{name}.{unused[0]}: a network is given for a pruning that is not compared: add it, "
                f"--prune {','.join((*wanted.pruning, *unused))}"
            )
    found: list[Candidate] = []
    for name in dict.fromkeys(names):
        images = [source for source in config.networks[name].inputs.values() if isinstance(source, ImageInput)]
        sizes: list[tuple[int, int] | None] = [None, *(wanted.sizes if images else ())]
        found += [
            Candidate(name, precision, pruning, size)
            for size in sizes
            for precision, pruning in _combinations(wanted.precisions, wanted.pruning)
        ]
    return list(dict.fromkeys(found))


def _combinations(precisions: list[Precision], prunings: list[Pruning]) -> list[tuple[Precision, Pruning]]:
    """FP32 without pruning first, which all others need, then the rest in the order of the configuration."""
    asked = [(precision, pruning) for pruning in prunings for precision in precisions]
    first: tuple[Precision, Pruning] = ("fp32", "none")
    return [first, *(entry for entry in asked if entry != first)]
