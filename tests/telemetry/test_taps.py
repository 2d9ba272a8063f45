"""Taps: copies of raw data, counted where they leave a GPU."""

import warp as wp

from saccade.telemetry.taps import Tap


def test_host_arrays_are_copied_at_once_and_not_counted():
    """Nothing leaves a GPU: both counters stay at 0, and there is nothing to wait for."""
    tap = Tap()
    copies = tap.copies()
    for value in (1, 2):
        source = wp.full((2, 3), value, dtype=wp.uint8, device="cpu")
        target = wp.zeros_like(source)
        copies.copy(target, source)
        copies.launched()
        copies.wait()
        assert (target.numpy() == value).all()
    assert tap.facts() == {"bytes": 0, "count": 0}
