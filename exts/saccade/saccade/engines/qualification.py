"""Whether an engine may stand for its FP32 reference: relative error, agreement of labels, nothing non-finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import warp as wp

from saccade.engines.base import Engine, TensorSpec
from saccade.errors import ConfigurationError, ModelError

LIMITS = {
    "fp32": {"relative_l2": 1e-3, "label_agreement": 0.999},
    "fp16": {"relative_l2": 1e-2, "label_agreement": 0.99},
    "int8": {"relative_l2": 5e-2, "label_agreement": 0.97},
}
"""Largest relative L2 error of any output and smallest share of equal labels, by precision."""


def qualify(
    candidate: Engine,
    reference: Engine,
    *,
    seed: int = 0,
    samples: int = 16,
    inputs: Mapping[str, np.ndarray] | None = None,
    precision: str,
) -> dict[str, Any]:
    """Runs both engines on the same inputs and compares what they say.

    Arrays are bound to both engines: bind your own afterwards. Labels are the arg-max over axis 1 of outputs
    ``(batch, classes, height, width)``, or over the last axis of outputs ``(batch, classes)`` where a network has none
    of the former; an output with one class has no label.

    Args:
        candidate: The engine to judge.
        reference: The FP32 engine of the same network, with the same shapes.
        seed: Of the pseudo-random inputs, normally distributed.
        samples: How many pseudo-random samples; whole batches are run.
        inputs: Samples by input name, first axis = samples, instead of pseudo-random ones.
        precision: The precision whose limits hold, a key of :data:`LIMITS`.

    Returns:
        ``relative_l2`` by output, pooled over the samples; ``label_agreement``, ``None`` without labels;
        ``non_finite`` values of the candidate; ``samples``; ``passed``; ``limits``; and ``inputs``, where they came
        from. Everything fits into JSON.

    Raises:
        ConfigurationError: ``inputs`` do not fit the network, or there is no such precision.
        ModelError: The engines do not have the same inputs and outputs.
        EngineError: One of them failed.
    """
    if precision not in LIMITS:
        raise ConfigurationError(f"precision {precision!r}: expected one of {', '.join(LIMITS)}")
    _require_same_network(candidate, reference)
    batch = candidate.inputs[0].shape[0] if candidate.inputs[0].shape else 1
    if inputs is None:
        given = _random_inputs(candidate, math.ceil(samples / batch), seed)
    else:
        given = _batched(candidate, inputs)
    count = len(next(iter(given.values())))
    judged, truth = _Bound(candidate), _Bound(reference)
    errors = {spec.name: 0.0 for spec in candidate.outputs}
    norms = dict.fromkeys(errors, 0.0)
    labelled = _labelled(candidate)
    equal = total = non_finite = 0
    for index in range(count):
        feed = {name: array[index] for name, array in given.items()}
        found, wanted = judged.run(feed), truth.run(feed)
        for name, value in found.items():
            finite = np.isfinite(value)
            non_finite += int(value.size - finite.sum())
            expected = wanted[name].astype(np.float64)
            errors[name] += float(np.square(np.where(finite, value, 0.0) - expected).sum())
            norms[name] += float(np.square(expected).sum())
        for name, axis in labelled.items():
            same = found[name].argmax(axis) == wanted[name].argmax(axis)
            equal += int(same.sum())
            total += same.size
    relative = {name: _relative(errors[name], norms[name]) for name in errors}
    agreement = equal / total if total else None
    limits = LIMITS[precision]
    passed = (
        non_finite == 0
        and all(value is not None and value <= limits["relative_l2"] for value in relative.values())
        and (agreement is None or agreement >= limits["label_agreement"])
    )
    return {
        "relative_l2": relative,
        "label_agreement": agreement,
        "non_finite": non_finite,
        "samples": count * batch,
        "passed": passed,
        "limits": dict(limits),
        "inputs": f"normal, seed {seed}" if inputs is None else "given",
    }


class _Bound:
    """An engine with arrays of its own bound, run on host arrays."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._arrays = {
            spec.name: wp.zeros(spec.shape, wp.dtype_from_numpy(np.dtype(spec.dtype)), device=engine.device)
            for spec in (*engine.inputs, *engine.outputs)
        }
        for name, array in self._arrays.items():
            engine.bind(name, array)

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with wp.ScopedDevice(self._engine.device) as device:
            for name, value in feed.items():
                self._arrays[name].assign(value)
            self._engine.enqueue(wp.get_stream(device) if device.is_cuda else None)
            # Copying to the host waits for the device.
            return {spec.name: self._arrays[spec.name].numpy().copy() for spec in self._engine.outputs}


def _require_same_network(candidate: Engine, reference: Engine) -> None:
    for kind in ("inputs", "outputs"):
        found = {spec.name: spec.shape for spec in getattr(candidate, kind)}
        wanted = {spec.name: spec.shape for spec in getattr(reference, kind)}
        if found != wanted:
            raise ModelError(
                f"engines with other {kind} cannot be compared: {candidate.name} has {found}, {reference.name} {wanted}"
            )


def _random_inputs(engine: Engine, count: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {spec.name: _random(generator, (count, *spec.shape), spec) for spec in engine.inputs}


def _random(generator: np.random.Generator, shape: tuple[int, ...], spec: TensorSpec) -> np.ndarray:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    highest = {"b": 2, "u": 256}.get(dtype.kind, 10)
    return generator.integers(0, highest, shape).astype(dtype)


def _batched(engine: Engine, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the samples as ``(runs, *shape of the input)``; the last batch is filled up from the start."""
    specs = {spec.name: spec for spec in engine.inputs}
    if set(inputs) != set(specs):
        raise ConfigurationError(f"qualification: inputs {', '.join(specs)} are expected, found {', '.join(inputs)}")
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ConfigurationError(f"qualification: every input needs the same number of samples, found {counts}")
    found = {}
    for name, array in inputs.items():
        shape = specs[name].shape
        if array.shape[1:] != shape[1:]:
            raise ConfigurationError(
                f"qualification: input {name!r} takes samples of {shape[1:]}, these have {array.shape[1:]}"
            )
        rows = np.arange(math.ceil(len(array) / shape[0]) * shape[0]) % len(array)
        found[name] = array[rows].astype(specs[name].dtype).reshape(-1, *shape)
    return found


def _labelled(engine: Engine) -> dict[str, int]:
    """Returns the outputs that hold a score per class, with the axis of the classes."""
    maps = {spec.name: 1 for spec in engine.outputs if len(spec.shape) == 4 and spec.shape[1] > 1}
    # Beside a map of labels a vector is a measurement, such as clearances, whose arg-max means nothing.
    return maps or {spec.name: 1 for spec in engine.outputs if len(spec.shape) == 2 and spec.shape[1] > 1}


def _relative(error: float, norm: float) -> float | None:
    """Returns the relative L2 error, ``None`` where the reference is all zeros and the candidate is not."""
    if norm == 0:
        return 0.0 if error == 0 else None
    value = math.sqrt(error / norm)
    return value if math.isfinite(value) else None
