"""Compares predicted with true labels on the network's own grid, whatever was resized on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import warp as wp

from saccade.config import ImageInput
from saccade.frame import BACKGROUND, CLASS_COUNT, Frame, GroundTruth, Result
from saccade.kernels.preprocess import image_transform
from saccade.network import NO_CLASS, Network
from saccade.validation.accuracy import ConfusionCounter


@wp.kernel(enable_backward=False)
def _resample_labels(
    labels: wp.array2d(dtype=wp.uint8),
    step_x: float,
    step_y: float,
    origin_x: float,
    origin_y: float,
    box: wp.vec4i,
    output: wp.array2d(dtype=wp.uint8),
):
    y, x = wp.tid()
    if x < box[0] or y < box[1] or x >= box[2] or y >= box[3]:
        output[y, x] = wp.uint8(wp.static(NO_CLASS))
        return
    source_x = wp.clamp(int(wp.round(wp.float32(x) * step_x + origin_x)), 0, labels.shape[1] - 1)
    source_y = wp.clamp(int(wp.round(wp.float32(y) * step_y + origin_y)), 0, labels.shape[0] - 1)
    output[y, x] = labels[source_y, source_x]


@dataclass(slots=True)
class _Plan:
    key: int
    counter: ConfusionCounter
    truth: wp.array
    prepare: Callable[[], None] | None


class LabelScorer:
    """Scores networks with a label output; arrays are allocated at the first frame of each network.

    The truth is sampled (nearest) at the network's own resolution through the same stretch or letterbox as the
    image. LiDAR rays without a return are not scored; camera pixels of the background are.
    """

    def __init__(self) -> None:
        self._plans: dict[tuple[str, str], _Plan] = {}

    def score(self, network: Network, result: Result, frame: Frame, truth: GroundTruth) -> dict[str, Any]:
        """Returns ``intersection``, ``union`` and ``support`` per class, ``valid`` and ``agree``, all as counts."""
        if result.labels is None or truth.labels is None:
            return {}
        key = (network.name, frame.sensor)
        plan = self._plans.get(key)
        if plan is None or plan.key != truth.labels.ptr:
            plan = self._plans[key] = _plan(network, result.labels, frame, truth.labels)
        if plan.prepare is not None:
            plan.prepare()
        intersection, union, valid, agree = plan.counter.count(result.labels, plan.truth)
        return {
            "intersection": intersection,
            "union": union,
            "support": plan.counter.support,
            "valid": valid,
            "agree": agree,
        }


def _plan(network: Network, predicted: wp.array, frame: Frame, labels: wp.array) -> _Plan:
    ignore = BACKGROUND if frame.kind == "lidar" else None
    counter = ConfusionCounter(tuple(predicted.shape), CLASS_COUNT, str(predicted.device), ignore=ignore)
    source = next(s for s in network.config.inputs.values() if frame.sensor in s.sensors)
    letterbox = isinstance(source, ImageInput) and source.resize == "letterbox"
    steps: list[Callable[[], None]] = []
    truth = labels
    if labels.device != predicted.device:
        # The engine's device scores; the truth is no part of the inference path and comes as a named tap.
        target = wp.empty(labels.shape, dtype=wp.uint8, device=predicted.device)
        steps.append(lambda: wp.copy(target, labels))
        truth = target
    if truth.shape != predicted.shape or letterbox:
        transform = image_transform(
            (labels.shape[1], labels.shape[0]),
            (predicted.shape[1], predicted.shape[0]),
            resize=source.resize if isinstance(source, ImageInput) else "stretch",
        )
        grid = wp.empty(predicted.shape, dtype=wp.uint8, device=predicted.device)
        box = wp.vec4i(transform.left, transform.top, transform.right, transform.bottom)
        launch = wp.launch(
            _resample_labels,
            dim=grid.shape,
            inputs=[truth, transform.step_x, transform.step_y, transform.origin_x, transform.origin_y, box],
            outputs=[grid],
            device=predicted.device,
            record_cmd=True,
        )
        steps.append(launch.launch)
        truth = grid
    if not steps:
        return _Plan(labels.ptr, counter, truth, None)

    def prepare() -> None:
        for step in steps:
            step()

    return _Plan(labels.ptr, counter, truth, prepare)
