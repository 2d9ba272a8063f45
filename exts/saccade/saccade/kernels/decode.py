"""Network outputs to results: arg-max labels, hazard, clearance, and whether everything was finite."""

# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

import warp as wp

from saccade.frame import SECTOR_COUNT
from saccade.kernels.launch import recorded

HAZARD = 0
CLEARANCE = 1
NON_FINITE = CLEARANCE + SECTOR_COUNT
SUMMARY_SIZE = NON_FINITE + 1
"""Layout of the small result of one image or scan: hazard, 16 clearances [m], count of non-finite outputs."""


@wp.kernel(enable_backward=False)
def _labels(
    logits: wp.array4d(dtype=wp.float32),
    class_of_logit: wp.array(dtype=wp.uint8),
    labels: wp.array3d(dtype=wp.uint8),
    summary: wp.array2d(dtype=wp.float32),
):
    batch, y, x = wp.tid()
    best = logits[batch, 0, y, x]
    # NaN compares false with everything, so a plain maximum would hide it: x - x is 0 for finite x only.
    broken = best - best
    index = wp.int32(0)  # a plain 0 is a constant to Warp, which the loop may not change
    for c in range(1, logits.shape[1]):
        value = logits[batch, c, y, x]
        broken += value - value
        if value > best:
            best = value
            index = c
    labels[batch, y, x] = class_of_logit[index]
    if broken != 0.0 or not wp.isfinite(broken):
        wp.atomic_add(summary, batch, wp.static(NON_FINITE), 1.0)


@wp.kernel(enable_backward=False)
def _hazard(values: wp.array2d(dtype=wp.float32), sigmoid: int, summary: wp.array2d(dtype=wp.float32)):
    batch = wp.tid()
    value = values[batch, 0]
    if not wp.isfinite(value):
        wp.atomic_add(summary, batch, wp.static(NON_FINITE), 1.0)
    if sigmoid != 0:
        value = 1.0 / (1.0 + wp.exp(-value))
    summary[batch, wp.static(HAZARD)] = value


@wp.kernel(enable_backward=False)
def _clearance(values: wp.array2d(dtype=wp.float32), summary: wp.array2d(dtype=wp.float32)):
    batch, sector = wp.tid()
    value = values[batch, sector]
    if not wp.isfinite(value):
        wp.atomic_add(summary, batch, wp.static(NON_FINITE), 1.0)
    summary[batch, wp.static(CLEARANCE) + sector] = value


@wp.kernel(enable_backward=False)
def _finite(values: wp.array2d(dtype=wp.float32), summary: wp.array2d(dtype=wp.float32)):
    batch, i = wp.tid()
    if not wp.isfinite(values[batch, i]):
        wp.atomic_add(summary, batch, wp.static(NON_FINITE), 1.0)


def record_labels(logits: wp.array, class_of_logit: wp.array, labels: wp.array, summary: wp.array) -> wp.Launch:
    """Returns a recorded launch for arg-max labels.

    Args:
        logits: Shape ``(batch, classes, height, width)``, float32.
        class_of_logit: Class index per logit, uint8, 255 = none of saccade's classes.
        labels: Output, shape ``(batch, height, width)``, uint8.
        summary: Small results, shape ``(batch, SUMMARY_SIZE)``, float32; counts pixels with a non-finite logit.
    """
    return recorded(
        _labels, dim=labels.shape, inputs=[logits, class_of_logit], outputs=[labels, summary], device=logits.device
    )


def record_hazard(values: wp.array, summary: wp.array, *, sigmoid: bool) -> wp.Launch:
    """Returns a recorded launch that puts hazard probabilities (or sigmoids of logits) into ``summary``.

    Args:
        values: One value per image, any shape, float32.
        summary: Small results, shape ``(batch, SUMMARY_SIZE)``, float32.
        sigmoid: Whether the values are logits.
    """
    return recorded(
        _hazard,
        dim=summary.shape[0],
        inputs=[_rows(values, summary), int(sigmoid)],
        outputs=[summary],
        device=values.device,
    )


def record_clearance(values: wp.array, summary: wp.array) -> wp.Launch:
    """Returns a recorded launch that puts 16 sector clearances [m] of each scan into ``summary``."""
    return recorded(
        _clearance,
        dim=(summary.shape[0], SECTOR_COUNT),
        inputs=[_rows(values, summary)],
        outputs=[summary],
        device=values.device,
    )


def record_finite(values: wp.array, summary: wp.array) -> wp.Launch:
    """Returns a recorded launch that counts the non-finite elements of an output that is not decoded."""
    rows = _rows(values, summary)
    return recorded(_finite, dim=rows.shape, inputs=[rows], outputs=[summary], device=values.device)


def _rows(values: wp.array, summary: wp.array) -> wp.array:
    """Returns an output as one row of values per image of the batch; one that has no batch goes to the first."""
    batch = summary.shape[0]
    if values.shape[0] != batch or values.size % batch:
        return values.reshape((1, values.size))
    return values.reshape((batch, values.size // batch))
