"""Network outputs to results: arg-max labels, hazard, clearance, and whether everything was finite.

Outputs of an image's size have a launch of their own. All small ones of a frame, and what the launches before have
counted, are brought into the summaries by one block of threads, which ends the frame.
"""

# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import warp as wp

from saccade.frame import SECTOR_COUNT
from saccade.kernels.launch import recorded
from saccade.kernels.stamps import Marks, mark_first, unmarked

HAZARD = 0
CLEARANCE = 1
NON_FINITE = CLEARANCE + SECTOR_COUNT
SUMMARY_SIZE = NON_FINITE + 1
"""Layout of the small result of one image or scan: hazard, 16 clearances [m], count of non-finite outputs."""

SMALL = 4096
"""Values up to which an output is left to the one block of :func:`record_results`."""

CHECKED_ONLY = -1
"""Column of an output that is not part of a summary."""

THREADS = 256

BARRIER = """
#if defined(__CUDA_ARCH__)
    __syncthreads();
#endif
"""

TAKE_COUNT = """
#if defined(__CUDA_ARCH__)
    return atomicExch(&counts.data[row], 0);
#else
    wp::int32 count = counts.data[row];
    counts.data[row] = 0;
    return count;
#endif
"""


@wp.func_native(BARRIER)
def _barrier(): ...


@wp.func_native(TAKE_COUNT)
def _take_count(counts: wp.array(dtype=wp.int32), row: int) -> wp.int32: ...


@wp.struct
class SmallOutput:
    """An output that goes into the summaries, or is only checked."""

    values: wp.array2d(dtype=wp.float32)
    """One row for each image of the batch."""
    row: wp.int32
    """Of the first image's summary."""
    column: wp.int32
    """Where its values begin in a summary; :data:`CHECKED_ONLY` = nowhere."""
    sigmoid: wp.int32
    """Whether its values are logits."""


@wp.kernel(enable_backward=False)
def _labels(
    logits: wp.array4d(dtype=wp.float32),
    class_of_logit: wp.array(dtype=wp.uint8),
    marks: Marks,
    labels: wp.array3d(dtype=wp.uint8),
    counts: wp.array(dtype=wp.int32),
):
    batch, y, x = wp.tid()
    mark_first(marks, batch + y + x)
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
        wp.atomic_add(counts, batch, 1)


@wp.kernel(enable_backward=False)
def _finite(values: wp.array2d(dtype=wp.float32), marks: Marks, counts: wp.array(dtype=wp.int32)):
    batch, i = wp.tid()
    mark_first(marks, batch + i)
    if not wp.isfinite(values[batch, i]):
        wp.atomic_add(counts, batch, 1)


@wp.kernel(enable_backward=False)
def _results(
    threads: int,
    outputs: wp.array(dtype=SmallOutput),
    rows: wp.array(dtype=wp.int32),
    marks: Marks,
    counts: wp.array(dtype=wp.int32),
    summary: wp.array2d(dtype=wp.float32),
):
    i = wp.tid()
    mark_first(marks, i)
    # Stamps of work that ends in many blocks: taken and set back, as the next frame may have others.
    for slot in range(i, marks.ends.shape[0], threads):
        time = marks.ends[slot]
        if time > wp.uint64(0):
            marks.times[slot] = time
            marks.ends[slot] = wp.uint64(0)
    for k in range(outputs.shape[0]):
        output = outputs[k]
        size = output.values.shape[1]
        for j in range(i, output.values.shape[0] * size, threads):
            batch = j // size
            value = output.values[batch, j - batch * size]
            if not wp.isfinite(value):
                wp.atomic_add(counts, output.row + batch, 1)
            if output.sigmoid != 0:
                value = 1.0 / (1.0 + wp.exp(-value))
            if output.column >= 0:
                summary[output.row + batch, output.column + j - batch * size] = value
    # There is one block, and every thread of it gets here: no count is taken before all have counted.
    _barrier()
    for r in range(i, rows.shape[0], threads):
        row = rows[r]
        summary[row, wp.static(NON_FINITE)] = wp.float32(_take_count(counts, row))


def record_labels(logits: wp.array, class_of_logit: wp.array, labels: wp.array, counts: wp.array) -> wp.Launch:
    """Returns a recorded launch for arg-max labels.

    Args:
        logits: Shape ``(batch, classes, height, width)``, float32.
        class_of_logit: Class index per logit, uint8, 255 = none of saccade's classes.
        labels: Output, shape ``(batch, height, width)``, uint8.
        counts: Shape ``(batch,)``, int32; pixels with a non-finite logit are added.
    """
    return recorded(
        _labels,
        dim=labels.shape,
        inputs=[logits, class_of_logit, unmarked()],
        outputs=[labels, counts],
        device=logits.device,
    )


def record_finite(values: wp.array, counts: wp.array) -> wp.Launch:
    """Returns a recorded launch that adds the non-finite elements of an output to ``counts``, image by image."""
    rows = rows_of(values, counts.shape[0])
    return recorded(_finite, dim=rows.shape, inputs=[rows, unmarked()], outputs=[counts], device=values.device)


def small_output(
    values: wp.array, *, row: int, batch: int, column: int = CHECKED_ONLY, sigmoid: bool = False
) -> SmallOutput:
    """Returns an output for :func:`record_results`.

    Args:
        values: One row of values for each image, any shape, float32.
        row: Of the first image's summary.
        batch: Images.
        column: Where its values begin in a summary, such as :data:`HAZARD`; :data:`CHECKED_ONLY` = nowhere.
        sigmoid: Whether the values are logits.
    """
    output = SmallOutput()
    output.values = rows_of(values, batch)
    output.row, output.column, output.sigmoid = row, column, int(sigmoid)
    return output


def record_results(
    outputs: Sequence[SmallOutput], rows: Sequence[int], counts: wp.array, summary: wp.array, marks: Marks
) -> wp.Launch:
    """Returns a recorded launch of one block that completes the summaries of a frame.

    It brings small outputs into them, counts their non-finite values, writes and sets back the counts, and takes the
    stamps that other launches have left in ``marks.ends``. Nothing need be cleared before: what it writes it writes in
    every frame.

    Args:
        outputs: From :func:`small_output`.
        rows: Summaries that are completed.
        counts: Non-finite values by summary so far, shape ``(summaries,)``, int32; 0 afterwards.
        summary: Shape ``(summaries, SUMMARY_SIZE)``, float32, in the device's memory or in pinned memory of the host.
        marks: Which stamps are taken.
    """
    device = counts.device
    # On the CPU threads run one after the other and cannot wait for each other: there one does it all.
    threads = 1 if device.is_cpu else THREADS
    listed = wp.array(list(outputs), dtype=SmallOutput, device=device) if outputs else None
    if listed is None:
        listed = wp.zeros(0, dtype=SmallOutput, device=device)
    numbers = wp.array(np.array(rows, dtype=np.int32), dtype=wp.int32, device=device)
    return recorded(
        _results,
        dim=threads,
        inputs=[threads, listed, numbers, marks],
        outputs=[counts, summary],
        device=device,
        block=THREADS,
        keep=tuple(outputs),
    )


def rows_of(values: wp.array, batch: int) -> wp.array:
    """Returns an output as one row of values per image of the batch; one that has no batch goes to the first."""
    if values.shape[0] != batch or values.size % batch:
        return values.reshape((1, values.size))
    return values.reshape((batch, values.size // batch))
