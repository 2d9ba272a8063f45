"""The frame pool on CUDA: copies are ordered with what the simulator writes, on its stream or on one of their own."""

import pytest

from saccade.frame import Frame, Stamps
from saccade.framepool import FramePool

pytestmark = pytest.mark.gpu


@pytest.fixture
def device():
    import warp as wp

    return wp.get_device("cuda:0")


@pytest.mark.parametrize("own_stream", [False, True])
def test_copies_hold_what_the_frame_held(device, own_stream):
    """A source that overwrites its large buffer at once, without waiting, does not reach the copies before it."""
    import warp as wp

    pool = FramePool(stream=wp.Stream(device) if own_stream else None)
    color = wp.zeros((4096, 4096), dtype=wp.uint32, device=device)
    kept = []
    for sequence in range(5):
        color.fill_(sequence + 1)
        kept.append(pool.keep(Frame("eye", "camera", sequence, 0.0, Stamps(), {"color": color})))
    color.fill_(99)
    for sequence, frame in enumerate(kept):
        pixels = frame.buffers["color"].numpy()
        assert (int(pixels.min()), int(pixels.max())) == (sequence + 1, sequence + 1)
        pool.release(frame)
    assert (pool.copied_frames, pool.allocated_frames, pool.lent_frames) == (5, 5, 0)
    assert pool.copied_bytes == 5 * 4096 * 4096 * 4
