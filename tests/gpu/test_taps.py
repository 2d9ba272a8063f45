"""Taps on the GPU: on a stream of their own, and yet before the next frame overwrites what they copy."""

import pytest
import warp as wp

from saccade.telemetry.taps import Tap

pytestmark = pytest.mark.gpu
DEVICE = "cuda:0"
SIZE = 1 << 24


def test_the_next_frame_overwrites_nothing_that_is_still_copied():
    """Each copy has the value from before what was launched after it, and the bytes add up."""
    tap = Tap()
    source = wp.zeros(SIZE, dtype=wp.uint8, device=DEVICE)
    slots = [(wp.zeros(SIZE, dtype=wp.uint8, device="cpu", pinned=True), tap.copies()) for _ in range(4)]
    for value, (target, copies) in enumerate(slots, start=1):
        source.fill_(value)
        copies.copy(target, source)
        copies.launched()
    source.fill_(99)
    for value, (target, copies) in enumerate(slots, start=1):
        copies.wait()
        assert (target.numpy() == value).all()
    assert tap.facts() == {"bytes": 4 * SIZE, "count": 4}
    assert tap._stream(wp.get_device(DEVICE)) is not wp.get_stream(DEVICE)


def test_a_set_can_be_used_again():
    tap = Tap()
    copies, target = tap.copies(), wp.zeros(8, dtype=wp.float32, device="cpu", pinned=True)
    source = wp.zeros(8, dtype=wp.float32, device=DEVICE)
    for value in (1.0, 2.0, 3.0):
        source.fill_(value)
        copies.copy(target, source)
        copies.launched()
        copies.wait()
        assert (target.numpy() == value).all()
