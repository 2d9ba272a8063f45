"""The frame pool: own copies, used again, each given back once."""

import numpy as np
import pytest
import warp as wp

from saccade.errors import ConfigurationError
from saccade.frame import Frame, Stamps
from saccade.framepool import FramePool


def frame(sequence, *, height=4, value=7):
    color = wp.full((height, 5), value, dtype=wp.uint32, device="cpu")
    depth = wp.full((height, 5), float(value), dtype=wp.float32, device="cpu")
    return Frame("eye", "camera", sequence, 0.1 * sequence, Stamps(sim_state=5), {"color": color, "depth": depth}, 2)


def test_copy_outlives_the_source():
    """What the simulator writes afterwards, into buffers or stamps, does not reach the copy; all else is equal."""
    pool, source = FramePool(), frame(3)
    kept = pool.keep(source)
    source.buffers["color"].fill_(1)
    source.stamps.clear()
    assert (kept.buffers["color"].numpy() == 7).all()
    assert (kept.buffers["depth"].numpy() == np.float32(7)).all()
    assert (kept.sensor, kept.kind, kept.sequence, kept.sim_time, kept.dropped) == ("eye", "camera", 3, 0.1 * 3, 2)
    assert kept.stamps.sim_state == 5


def test_buffers_are_used_again():
    """One frame at a time needs one set of buffers; copies and their bytes are counted."""
    pool = FramePool()
    for sequence in range(5):
        pool.release(pool.keep(frame(sequence)))
    assert (pool.copied_frames, pool.allocated_frames, pool.lent_frames) == (5, 1, 0)
    assert pool.copied_bytes == 5 * 2 * 4 * 5 * 4


def test_frames_kept_at_once_share_nothing():
    """Two kept frames have their own buffers."""
    pool = FramePool()
    first, second = pool.keep(frame(0, value=1)), pool.keep(frame(1, value=2))
    assert (first.buffers["color"].numpy() == 1).all() and (second.buffers["color"].numpy() == 2).all()
    assert (pool.allocated_frames, pool.lent_frames) == (2, 2)


def test_another_shape_gets_other_buffers():
    """A released frame is only used again for one of its layout."""
    pool = FramePool()
    pool.release(pool.keep(frame(0, height=4)))
    assert pool.keep(frame(1, height=6)).buffers["color"].shape == (6, 5)
    assert pool.allocated_frames == 2


def test_foreign_and_second_release_are_refused():
    """Buffers of the simulator cannot get into the pool, and none get in twice."""
    pool, source = FramePool(), frame(4)
    with pytest.raises(ConfigurationError, match="frame 4 of eye"):
        pool.release(source)
    kept = pool.keep(source)
    pool.release(kept)
    with pytest.raises(ConfigurationError, match="frame 4 of eye"):
        pool.release(kept)
