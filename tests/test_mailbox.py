"""The mailbox: where summaries and stamps lie, and that the host sees what kernels wrote."""

import numpy as np
import pytest
import warp as wp

from saccade.kernels.decode import CHECKED_ONLY, HAZARD, NON_FINITE, SUMMARY_SIZE, small_output
from saccade.kernels.stamps import Marks, mark_first, mark_last, set_marks, takes_marks, unmarked
from saccade.mailbox import MAX_STAMPS, Mailbox


@wp.kernel(enable_backward=False)
def marked(marks: Marks, values: wp.array(dtype=wp.int32)):
    i = wp.tid()
    mark_first(marks, i)
    values[i] = i
    mark_last(marks)


def launch_of(count):
    values = wp.zeros(count, dtype=wp.int32, device="cpu")
    launch = wp.launch(marked, count, inputs=[unmarked()], outputs=[values], device="cpu", record_cmd=True)
    launch.saccade_keeps = (values,)
    return launch


def hazard(value, *, row, batch=1, column=HAZARD):
    values = wp.array(np.full((batch, 1), value, np.float32), device="cpu")
    return small_output(values, row=row, batch=batch, column=column)


@pytest.mark.parametrize("rows", [0, 1, 3, 17])
def test_it_has_a_row_for_each_image_and_scan(rows):
    mailbox = Mailbox(rows, "cpu")
    assert mailbox.rows(0, rows).shape == (rows, SUMMARY_SIZE)
    assert not rows or mailbox.counts(0, rows).shape == (rows,)
    assert mailbox.row_bytes == 4 * SUMMARY_SIZE and mailbox.stamp_values.shape == (MAX_STAMPS,)


def test_each_row_and_each_stamp_is_its_own_memory():
    """Written by kernels, read by the host, with nothing to fetch."""
    mailbox = Mailbox(5, "cpu")
    stamps = np.arange(MAX_STAMPS, dtype=np.uint64) + (1 << 60)
    mailbox.stamps.assign(stamps)
    mailbox.record_results([hazard(row + 0.5, row=row) for row in range(5)], range(5)).launch()
    np.testing.assert_array_equal(mailbox.stamp_values, stamps)
    assert mailbox.rows(0, 5)[:, HAZARD].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert mailbox.rows(3, 1)[0, HAZARD] == 3.5
    assert not mailbox.rows(0, 5)[:, HAZARD + 1 :].any()


def test_counts_are_those_of_the_frame():
    """What was counted before and in the same launch, written once and begun anew; other rows are left alone."""
    mailbox = Mailbox(3, "cpu")
    results = mailbox.record_results([hazard(np.nan, row=1, batch=2, column=CHECKED_ONLY)], [1, 2])
    for added in (4, 0, 7):
        mailbox.counts(1, 1).fill_(added)
        mailbox.rows(0, 3)[0] = 5.0
        results.launch()
        assert mailbox.rows(0, 3)[:, NON_FINITE].tolist() == [5.0, added + 1.0, 1.0]
    assert not mailbox.counts(0, 3).numpy().any()


@pytest.mark.parametrize("count", [1, 700])
def test_a_launch_stamps_its_beginning_and_its_end(count):
    """Both in every frame anew, the end only once the results were brought; then the slot may be a beginning."""
    mailbox = Mailbox(0, "cpu")
    launch, results = launch_of(count), mailbox.record_results([], [], first=9)
    assert takes_marks(launch)
    set_marks(launch, mailbox.marks(first=2, last=5))
    newest = 0
    for _ in range(3):
        mailbox.stamp_values[5] = 0
        launch.launch()
        assert mailbox.stamp_values[5] == 0
        results.launch()
        first, last, end = (int(mailbox.stamp_values[slot]) for slot in (2, 5, 9))
        # Of every thread's own reading the last one's counts.
        assert newest < first < last < end and last - first == count
        newest = end
    mailbox.stamp_values[5] = 1
    results.launch()
    assert mailbox.stamp_values[5] == 1
    assert not mailbox.stamp_values[[0, 1, 3, 4]].any()


def test_a_launch_without_marks_stamps_nothing():
    mailbox = Mailbox(0, "cpu")
    launch_of(8).launch()
    mailbox.record_results([], []).launch()
    assert not mailbox.stamp_values.any()


def test_a_stamp_of_its_own_is_in_line_with_the_others():
    """One timer for all of them."""
    mailbox = Mailbox(0, "cpu")
    launch = launch_of(4)
    set_marks(launch, mailbox.marks(first=1))
    for each in (mailbox.record_stamp(0), launch, mailbox.record_stamp(2)):
        each.launch()
    assert (np.diff(mailbox.stamp_values[:3].astype(np.int64)) > 0).all()


def test_parts_keep_the_memory_alive():
    """Stamps outlive the mailbox that they were taken from."""
    mailbox = Mailbox(1, "cpu")
    stamps, host = mailbox.stamps, mailbox.stamp_values
    del mailbox
    others = [wp.full(4096, value=9.0, dtype=wp.float32, device="cpu") for _ in range(20)]
    stamps.fill_(2)
    assert (host == 2).all()
    assert all((other.numpy() == 9.0).all() for other in others)


def test_stamps_are_aligned():
    """Eight bytes each, whatever the number of rows."""
    assert Mailbox(3, "cpu").stamps.ptr % 8 == 0
