"""The mailbox: where summaries and stamps lie, and that the host sees what kernels wrote."""

import numpy as np
import pytest
import warp as wp

from saccade.kernels.decode import SUMMARY_SIZE
from saccade.mailbox import MAX_STAMPS, Mailbox


@pytest.mark.parametrize("rows", [0, 1, 3, 17])
def test_size_is_stamps_and_summaries(rows):
    """Nothing else is copied."""
    assert Mailbox(rows, "cpu").size == MAX_STAMPS * 8 + rows * SUMMARY_SIZE * 4


def test_parts_do_not_overlap_and_reach_the_host():
    """Each summary row and each stamp is its own memory: written on the device, read on the host after a fetch."""
    mailbox = Mailbox(5, "cpu")
    parts = [mailbox.rows(0, 2), mailbox.rows(2, 1), mailbox.rows(3, 2)]
    stamps = np.arange(MAX_STAMPS, dtype=np.uint64) + (1 << 60)
    mailbox.stamps.assign(stamps)
    for number, (device, host) in enumerate(parts):
        assert device.shape == host.shape == (host.shape[0], SUMMARY_SIZE)
        device.fill_(float(number + 1))
    mailbox.fetch()
    np.testing.assert_array_equal(mailbox.stamp_values, stamps)
    for number, (device, host) in enumerate(parts):
        assert (host == number + 1).all()
        np.testing.assert_array_equal(device.numpy(), host)


def test_clear_sets_everything_to_zero():
    """Summaries count up from there, and a stamp that is not taken reads 0."""
    mailbox = Mailbox(2, "cpu")
    device, host = mailbox.rows(0, 2)
    device.fill_(3.0)
    mailbox.stamps.fill_(7)
    mailbox.clear()
    mailbox.fetch()
    assert not host.any() and not mailbox.stamp_values.any()


def test_parts_keep_the_memory_alive():
    """A summary outlives the mailbox it was taken from."""
    device, host = Mailbox(1, "cpu").rows(0, 1)
    others = [wp.full(4096, value=9.0, dtype=wp.float32, device="cpu") for _ in range(20)]
    device.fill_(2.0)
    assert (host == 2.0).all()
    assert all((other.numpy() == 9.0).all() for other in others)


def test_stamps_are_aligned():
    """Eight bytes each, whatever the number of rows."""
    mailbox = Mailbox(3, "cpu")
    assert mailbox.stamps.ptr % 8 == 0 and mailbox.rows(1, 1)[0].ptr % 4 == 0
