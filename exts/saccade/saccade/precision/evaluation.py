"""What a changed network still does: agreement with the original, accuracy where the truth is known, and collapse."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.errors import ModelError
from saccade.frame import CLASS_COUNT
from saccade.models import scores
from saccade.precision.samples import Samples

if TYPE_CHECKING:
    import onnx

Outputs = dict[str, np.ndarray]


def session_from(model: onnx.ModelProto | bytes, *, threads: int = 0) -> Any:
    """Returns an ONNX Runtime session on the CPU.

    Raises:
        ModelError: ONNX Runtime cannot load the network.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    data = model if isinstance(model, bytes) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot load this network: {str(error).strip()}") from error


def outputs_of(model: Any, samples: Samples, *, report: Callable[[int, int], None] = lambda *_: None) -> Outputs:
    """Returns the outputs for all samples by name, first axis = samples.

    Args:
        model: A network, or a session of one.
        samples: Inputs; a fixed batch of the network is filled up from the start.
        report: Told how many samples are done, of how many.

    Raises:
        ModelError: The network fails on them.
    """
    session = model if hasattr(model, "run") else session_from(model)
    names = [node.name for node in session.get_outputs()]
    size = session.get_inputs()[0].shape[0] if session.get_inputs()[0].shape else 1
    batch = size if isinstance(size, int) and size > 0 else 1
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    count = len(samples)
    for start in range(0, count, batch):
        chosen = np.arange(start, start + batch) % count
        feed = {name: np.ascontiguousarray(array[chosen], np.float32) for name, array in samples.inputs.items()}
        try:
            found = session.run(None, feed)
        except Exception as error:
            raise ModelError(f"the network fails on sample {start}: {error}") from error
        for name, value in zip(names, found, strict=True):
            rows[name].append(np.asarray(value)[: count - start])
        report(min(start + batch, count), count)
    return {name: np.concatenate(values) for name, values in rows.items()}


def agreement(found: Outputs, reference: Outputs) -> dict[str, Any]:
    """Compares outputs with those of the original on the same samples.

    Returns:
        ``samples``, ``relative_l2`` by output, ``label_agreement`` (share of equal classes; ``None`` where no output
        holds classes) and ``non_finite`` values. Everything fits into JSON.
    """
    relative: dict[str, float | None] = {}
    non_finite = equal = total = 0
    labelled = label_axes(reference)
    for name, wanted in reference.items():
        value = found[name]
        finite = np.isfinite(value)
        non_finite += int(value.size - finite.sum())
        error = float(np.square(np.where(finite, value, 0).astype(np.float64) - wanted).sum())
        norm = float(np.square(wanted.astype(np.float64)).sum())
        relative[name] = (0.0 if error == 0 else None) if norm == 0 else math.sqrt(error / norm)
        if name in labelled:
            same = value.argmax(1) == wanted.argmax(1)
            equal, total = equal + int(same.sum()), total + same.size
    return {
        "samples": len(next(iter(reference.values()))),
        "relative_l2": relative,
        "label_agreement": equal / total if total else None,
        "non_finite": non_finite,
    }


def accuracy(found: Outputs, samples: Samples) -> dict[str, Any] | None:
    """Scores outputs against the truth of their samples.

    Returns:
        ``samples``; ``miou`` and ``iou`` by class of the output with saccade's classes, pooled; ``hazard_auroc``;
        ``clearance_median_m`` [m]. Those that cannot be scored are missing; ``None`` where none can.
    """
    result: dict[str, Any] = {}
    truth = samples.truth
    labels = truth.get("labels")
    if labels is not None:
        for value in found.values():
            if value.ndim == 4 and value.shape[1] == CLASS_COUNT and value.shape[2:] == labels.shape[1:]:
                confusion = scores.confusion_from_labels(labels, value.argmax(1), truth.get("valid"))
                result["miou"] = scores.mean_iou(confusion)
                result["iou"] = scores.intersection_over_union(confusion)
                break
    if "hazard" in truth and found.get("hazard") is not None:
        result["hazard_auroc"] = scores.area_under_roc(truth["hazard"], _finite(found["hazard"]).reshape(-1))
    if "clearance" in truth and found.get("clearance") is not None:
        error = np.abs(_finite(found["clearance"]).reshape(truth["clearance"].shape) - truth["clearance"])
        result["clearance_median_m"] = float(np.median(error))
    return {"samples": len(samples), **result} if result else None


def problems(found: Outputs, reference: Outputs) -> list[str]:
    """Returns why outputs are no use at all: not finite, or collapsed where the original's are not."""
    labelled = label_axes(reference)
    said = []
    for name, wanted in reference.items():
        value = found[name]
        bad = int(value.size - np.isfinite(value).sum())
        if bad and np.isfinite(wanted).all():
            said.append(f"output {name!r} has {bad} values that are NaN or infinite")
            continue
        if name in labelled:
            classes, before = np.unique(value.argmax(1)), np.unique(wanted.argmax(1))
            if len(classes) == 1 and len(before) > 1:
                said.append(f"output {name!r} says class {classes[0]} everywhere, the original {len(before)} classes")
        if value.min() == value.max() and wanted.min() != wanted.max():
            said.append(f"output {name!r} is {float(value.flat[0]):g} everywhere, the original's is not")
        elif _is_score(wanted) and (wanted >= 0.5).any() and not (value >= 0.5).any():
            count = int((wanted >= 0.5).sum())
            said.append(f"output {name!r} no longer detects anything: the original has {count} scores of 0.5 or more")
    return said


def label_axes(outputs: Mapping[str, np.ndarray]) -> set[str]:
    """Returns the outputs that hold a score per class along axis 1: maps, or vectors where there are no maps."""
    maps = {name for name, value in outputs.items() if value.ndim == 4 and value.shape[1] > 1}
    return maps or {name for name, value in outputs.items() if value.ndim == 2 and value.shape[1] > 1}


def retention(found: Mapping[str, Any] | None, original: Mapping[str, Any] | None) -> float | None:
    """Returns the share of the original's mIoU that is left; ``None`` where it cannot be scored."""
    if not found or not original or not original.get("miou") or found.get("miou") is None:
        return None
    return float(found["miou"] / original["miou"])


def latency_ratio(
    original: onnx.ModelProto | bytes, changed: onnx.ModelProto | bytes, samples: Samples, *, runs: int = 30
) -> dict[str, Any]:
    """Times both networks on ONNX Runtime on the CPU, one run of each in turn, so that drift hits both alike.

    Returns:
        ``original_ms`` and ``compressed_ms`` medians of one batch [ms], ``ratio`` = the median of the ratios of
        neighbouring runs (below 1: faster), ``runs``, ``device``.
    """
    sessions: Sequence[Any] = [session_from(original), session_from(changed)]
    size = sessions[0].get_inputs()[0].shape[0]
    batch = size if isinstance(size, int) and size > 0 else 1
    rows = [np.arange(first, first + batch) % len(samples) for first in range(min(len(samples), 8))]
    feeds = [{n: np.ascontiguousarray(a[row], np.float32) for n, a in samples.inputs.items()} for row in rows]
    times: list[list[float]] = [[], []]
    for run in range(runs + 3):
        for place in (0, 1) if run % 2 == 0 else (1, 0):
            begin = time.perf_counter()
            sessions[place].run(None, feeds[run % len(feeds)])
            if run >= 3:
                times[place].append((time.perf_counter() - begin) * 1e3)
    return {
        "device": "cpu",
        "runtime": "onnxruntime",
        "batch": batch,
        "runs": runs,
        "original_ms": statistics.median(times[0]),
        "compressed_ms": statistics.median(times[1]),
        "ratio": statistics.median(b / a for a, b in zip(*times, strict=True)),
    }


def _finite(value: np.ndarray) -> np.ndarray:
    return np.nan_to_num(value.astype(np.float64), nan=0.0, posinf=1e30, neginf=-1e30)


def _is_score(value: np.ndarray) -> bool:
    """Whether an output is one probability per sample."""
    one = value.ndim >= 1 and value.size == len(value)
    return bool(one and value.min() >= 0 and value.max() <= 1)
