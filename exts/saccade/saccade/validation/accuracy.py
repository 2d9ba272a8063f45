"""Accuracy against the simulator's truth: label counts on the frame's device, IoU, clearance errors."""

# Warp reads the annotations of kernels: they are its array types, not Python's.
# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import warp as wp

from saccade.frame import CLASSES


@wp.kernel(enable_backward=False)
def _count_all(
    predicted: wp.array2d(dtype=wp.uint8),
    truth: wp.array2d(dtype=wp.uint8),
    classes: int,
    ignore: int,
    counts: wp.array(dtype=wp.int32),
):
    # On the CPU threads of a launch run one after the other: one thread that walks memory in order is fastest.
    side = classes + 1
    for i in range(side * side):
        counts[i] = 0
    for y in range(truth.shape[0]):
        for x in range(truth.shape[1]):
            true = int(truth[y, x])
            # Branch-free: what is not scored goes to the last row, a class of neither kind to the last column.
            row = wp.where(true == ignore, classes, wp.min(true, classes))
            column = wp.min(int(predicted[y, x]), classes)
            counts[row * side + column] += 1


@wp.kernel(enable_backward=False)
def _count_each(
    predicted: wp.array2d(dtype=wp.uint8),
    truth: wp.array2d(dtype=wp.uint8),
    classes: int,
    ignore: int,
    counts: wp.array(dtype=wp.int32),
):
    y, x = wp.tid()
    true = int(truth[y, x])
    if true == ignore or true >= classes:
        return
    # Integer additions give the same sums in any order.
    wp.atomic_add(counts, true * (classes + 1) + wp.min(int(predicted[y, x]), classes), 1)


class ConfusionCounter:
    """Counts how predicted labels meet true ones; every array is allocated here, none per call.

    A pixel or return whose true label is ``ignore`` or no class at all (255, a letterbox border) is not scored. A
    predicted label that is no class is wrong, and belongs to the union of the true class only.

    Args:
        shape: Rows and columns of both label arrays.
        class_count: Classes 0 to ``class_count`` - 1.
        device: Warp device of both label arrays.
        ignore: True label that is not scored: the background of a LiDAR, which is no return. A camera has none.
    """

    def __init__(self, shape: tuple[int, int], class_count: int, device: str, *, ignore: int | None = None) -> None:
        self.shape = tuple(shape)
        self.device = wp.get_device(device)
        self._classes = class_count
        self._ignore = -1 if ignore is None else ignore
        side = class_count + 1
        self._counts = wp.zeros(side * side, dtype=wp.int32, device=self.device)
        on_gpu = self.device.is_cuda
        self._host = wp.zeros(side * side, dtype=wp.int32, device="cpu", pinned=True) if on_gpu else self._counts
        self._view = self._host.numpy().reshape(side, side)
        self._launch: Any = None
        self._known: tuple[Any, Any] = (None, None)
        self.support: list[int] = [0] * class_count
        """True pixels or returns per class in the last :meth:`count`."""

    def count(self, predicted: wp.array, truth: wp.array) -> tuple[list[int], list[int], int, int]:
        """Counts one frame; on CUDA it waits for the current stream.

        Args:
            predicted: Class indices, ``shape``, uint8.
            truth: True class indices, ``shape``, uint8.

        Returns:
            Intersection per class, union per class, how many were scored, how many of them were right.
        """
        if self._known[0] is not predicted or self._known[1] is not truth:
            self._record(predicted, truth)
        if self.device.is_cuda:
            self._counts.zero_()
            self._launch.launch()
            wp.copy(self._host, self._counts)
            wp.synchronize_stream(self.device.stream)
        else:
            self._launch.launch()
        confusion = self._view.tolist()
        self.support = [sum(row) for row in confusion[: self._classes]]
        return _totals(confusion, self._classes)

    def _record(self, predicted: wp.array, truth: wp.array) -> None:
        for name, labels in (("predicted", predicted), ("truth", truth)):
            if tuple(labels.shape) != self.shape or labels.dtype is not wp.uint8 or labels.device != self.device:
                raise ValueError(
                    f"{name}: labels of shape {self.shape}, uint8 on {self.device} expected, and they are "
                    f"{tuple(labels.shape)}, {labels.dtype.__name__} on {labels.device}"
                )
        self._launch = wp.launch(
            _count_each if self.device.is_cuda else _count_all,
            dim=self.shape if self.device.is_cuda else 1,
            inputs=[predicted, truth, self._classes, self._ignore],
            outputs=[self._counts],
            device=self.device,
            record_cmd=True,
        )
        # Kept, not only compared: another array must not come to lie at the same address.
        self._known = (predicted, truth)


def _totals(confusion: list[list[int]], classes: int) -> tuple[list[int], list[int], int, int]:
    """Rows are true classes, columns predicted ones; the last of each is what belongs to none."""
    scored = confusion[:classes]
    true = [sum(row) for row in scored]
    said = [sum(row[c] for row in scored) for c in range(classes)]
    intersection = [scored[c][c] for c in range(classes)]
    union = [true[c] + said[c] - intersection[c] for c in range(classes)]
    return intersection, union, sum(true), sum(intersection)


def pooled_iou(
    counts: Iterable[tuple[Sequence[int], Sequence[int]]],
    classes: Sequence[str] = CLASSES,
    *,
    support: Iterable[Sequence[int] | None] = (),
) -> dict[str, float | None]:
    """Returns IoU by class from intersections and unions summed over frames.

    Args:
        counts: Intersection and union per class, by frame.
        classes: Their names.
        support: True pixels or returns per class, by frame. A class of which there is none in any frame is not
            present: its IoU is ``None``, and pixels that were wrongly taken for it count against the classes that
            they belong to. ``None`` for a frame = not known, every class of its unions counts as present.
    """
    intersections, unions = [0] * len(classes), [0] * len(classes)
    present = list(support)
    absent = {c for c in range(len(classes)) if present and all(s is not None and not s[c] for s in present)}
    for intersection, union in counts:
        for c in range(len(classes)):
            intersections[c] += intersection[c]
            unions[c] += union[c]
    return {
        name: intersections[c] / unions[c] if unions[c] and c not in absent else None for c, name in enumerate(classes)
    }


def mean_iou(iou: dict[str, float | None]) -> float | None:
    """Returns the mean over the classes that occur; ``None`` when none does."""
    present = [value for value in iou.values() if value is not None]
    return sum(present) / len(present) if present else None


def clearance_errors(
    predicted: Sequence[float | None], truth: Sequence[float | None], range_max: float | None
) -> list[float]:
    """Returns ``|predicted - true|`` per sector [m], both capped at ``range_max`` [m] where it is known.

    A sector without a finite value on either side gives none; the verdict counts those as non-finite outputs.
    """
    cap = float("inf") if range_max is None else range_max
    return [
        abs(min(said, cap) - min(true, cap))
        for said, true in zip(predicted, truth, strict=True)
        if said is not None and true is not None
    ]
