"""Network outputs to results: arg-max labels, hazard, clearance, and whether everything was finite."""

from __future__ import annotations

import warp as wp

from saccade.frame import SECTOR_COUNT

HAZARD = 0
CLEARANCE = 1
NON_FINITE = CLEARANCE + SECTOR_COUNT
SUMMARY_SIZE = NON_FINITE + 1
"""Layout of the small result array: hazard, 16 clearances [m], count of non-finite outputs."""


@wp.kernel(enable_backward=False)
def _labels(
    logits: wp.array4d(dtype=wp.float32),
    class_of_logit: wp.array(dtype=wp.uint8),
    labels: wp.array2d(dtype=wp.uint8),
    summary: wp.array(dtype=wp.float32),
):
    y, x = wp.tid()
    best = logits[0, 0, y, x]
    # NaN compares false with everything, so a plain maximum would hide it: x - x is 0 for finite x only.
    broken = best - best
    index = wp.int32(0)  # a plain 0 is a constant to Warp, which the loop may not change
    for c in range(1, logits.shape[1]):
        value = logits[0, c, y, x]
        broken += value - value
        if value > best:
            best = value
            index = c
    labels[y, x] = class_of_logit[index]
    if broken != 0.0 or not wp.isfinite(broken):
        wp.atomic_add(summary, wp.static(NON_FINITE), 1.0)


@wp.kernel(enable_backward=False)
def _hazard(values: wp.array(dtype=wp.float32), sigmoid: int, summary: wp.array(dtype=wp.float32)):
    value = values[0]
    if not wp.isfinite(value):
        wp.atomic_add(summary, wp.static(NON_FINITE), 1.0)
    if sigmoid != 0:
        value = 1.0 / (1.0 + wp.exp(-value))
    summary[wp.static(HAZARD)] = value


@wp.kernel(enable_backward=False)
def _clearance(values: wp.array(dtype=wp.float32), summary: wp.array(dtype=wp.float32)):
    sector = wp.tid()
    value = values[sector]
    if not wp.isfinite(value):
        wp.atomic_add(summary, wp.static(NON_FINITE), 1.0)
    summary[wp.static(CLEARANCE) + sector] = value


@wp.kernel(enable_backward=False)
def _finite(values: wp.array(dtype=wp.float32), summary: wp.array(dtype=wp.float32)):
    if not wp.isfinite(values[wp.tid()]):
        wp.atomic_add(summary, wp.static(NON_FINITE), 1.0)


def record_labels(logits: wp.array, class_of_logit: wp.array, labels: wp.array, summary: wp.array) -> wp.Launch:
    """Returns a recorded launch for arg-max labels.

    Args:
        logits: Shape ``(1, classes, height, width)``, float32.
        class_of_logit: Class index per logit, uint8, 255 = none of saccade's classes.
        labels: Output, shape ``(height, width)``, uint8.
        summary: Small result array; counts pixels with a non-finite logit.
    """
    return wp.launch(
        _labels,
        dim=labels.shape,
        inputs=[logits, class_of_logit],
        outputs=[labels, summary],
        device=logits.device,
        record_cmd=True,
    )


def record_hazard(values: wp.array, summary: wp.array, *, sigmoid: bool) -> wp.Launch:
    """Returns a recorded launch that puts a hazard probability (or the sigmoid of a logit) into ``summary``."""
    return wp.launch(
        _hazard,
        dim=1,
        inputs=[values.flatten(), int(sigmoid)],
        outputs=[summary],
        device=values.device,
        record_cmd=True,
    )


def record_clearance(values: wp.array, summary: wp.array) -> wp.Launch:
    """Returns a recorded launch that puts 16 sector clearances [m] into ``summary``."""
    return wp.launch(
        _clearance,
        dim=SECTOR_COUNT,
        inputs=[values.flatten()],
        outputs=[summary],
        device=values.device,
        record_cmd=True,
    )


def record_finite(values: wp.array, summary: wp.array) -> wp.Launch:
    """Returns a recorded launch that counts the non-finite elements of an output that is not decoded."""
    return wp.launch(
        _finite, dim=values.size, inputs=[values.flatten()], outputs=[summary], device=values.device, record_cmd=True
    )
