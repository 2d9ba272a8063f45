"""One network in several precisions, all warm and bound to the same arrays; one of them runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from saccade.config import EngineConfig
from saccade.engines.base import Engine, TensorSpec
from saccade.engines.selection import Shapes, engine_from_onnx, quiet
from saccade.errors import EngineError, ModelError


@dataclass(frozen=True, slots=True)
class Variant:
    """A network in one precision."""

    path: Path
    config: EngineConfig


class AdaptiveEngine:
    """Several engines of one network behind the protocol of one.

    All are bound to the caller's arrays once, so that switching between them is a change of one reference: nothing is
    built, allocated or copied.

    Args:
        engines: By precision, in the order of the policy; all with the same inputs and outputs, on one device.

    Raises:
        ModelError: They differ in a tensor.
    """

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = list(engines.values())
        self.precisions = tuple(engines)
        """What can be selected, by level."""
        self.level = 0
        """Which one runs."""
        self._active = self._engines[0]
        self.name = self._active.name
        self.device = self._active.device
        self.inputs: Sequence[TensorSpec] = self._active.inputs
        self.outputs: Sequence[TensorSpec] = self._active.outputs
        for precision, engine in engines.items():
            self._check(precision, engine)

    def select(self, precision: str) -> None:
        """Makes one of the engines run from the next :meth:`enqueue` on; no host or device work."""
        self.level = self.precisions.index(precision)
        self._active = self._engines[self.level]

    def bind(self, name: str, array: wp.array) -> None:
        """Binds an array to a tensor of every engine; see :class:`saccade.engines.base.Engine`."""
        for engine in self._engines:
            engine.bind(name, array)

    def enqueue(self, stream: Any) -> None:
        """Runs the selected engine on the bound arrays."""
        self._active.enqueue(stream)

    def infer(self, array: np.ndarray) -> np.ndarray:
        """Runs the selected engine on ``array`` and returns its first output."""
        return self._active.infer(array)

    def facts(self) -> dict[str, Any]:
        """Returns the facts of the first engine, and of all by precision."""
        found = dict(self._engines[0].facts())
        variants = {name: engine.facts() for name, engine in zip(self.precisions, self._engines, strict=True)}
        return {**found, "precision": "adaptive", "variants": variants}

    def close(self) -> None:
        """Frees all engines; safe to call twice."""
        for engine in self._engines:
            engine.close()

    def _check(self, precision: str, engine: Engine) -> None:
        for kind in ("inputs", "outputs"):
            own = {(spec.name, spec.shape, spec.dtype) for spec in getattr(engine, kind)}
            first = {(spec.name, spec.shape, spec.dtype) for spec in getattr(self, kind)}
            if own != first:
                raise ModelError(
                    f"engine.adaptive: the {kind} of precision {precision} are {sorted(own)}, and those of "
                    f"{self.precisions[0]} are {sorted(first)}: both must be one network"
                )
        if engine.device != self.device:
            raise ModelError(f"engine.adaptive: precision {precision} is on {engine.device}, others on {self.device}")


def adaptive_from_onnx(
    path: Path,
    config: EngineConfig,
    *,
    variants: Mapping[str, Variant],
    refused: dict[str, str],
    device: str = "cpu",
    shapes: Shapes | None = None,
    defaults: Shapes | None = None,
    say: Callable[[str], None] = quiet,
) -> AdaptiveEngine:
    """Opens a network in several precisions; one that cannot be opened beside the others is left out.

    Args:
        path: The network's own file; its variants are named in ``variants``.
        config: How engines are run.
        variants: By precision, the most accurate first, which must open.
        refused: Takes the precisions that were left out, and why: out of memory, for example.
        device: Where the sensor data are.
        shapes: As of :func:`saccade.engines.selection.engine_from_onnx`.
        defaults: As there.
        say: Told why an engine is built, and how far it is.
    """
    engines: dict[str, Engine] = {}
    try:
        for precision, variant in variants.items():
            try:
                engines[precision] = engine_from_onnx(
                    variant.path, variant.config, device=device, shapes=shapes, defaults=defaults, say=say
                )
            except (EngineError, ModelError) as error:
                if not engines:
                    raise
                refused[precision] = str(error)
                say(f"{path.name}: precision {precision} is left out: {error}")
        return AdaptiveEngine(engines)
    except BaseException:
        for engine in engines.values():
            engine.close()
        raise
