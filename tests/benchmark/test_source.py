"""Frames that lie in buffers: the same memory every time, each camera its own picture."""

import numpy as np
import warp as wp

from saccade.benchmark.source import HEIGHT, WIDTH, BufferSource, OutputTap, buffers_for, camera_configs, picture
from saccade.simulators.base import Simulator


def test_it_is_a_simulator_that_moves_no_buffer():
    """Sequence, time and stamps go on, addresses stay: what a graph was captured with stays good."""
    source = BufferSource(buffers_for(["a", "b"], device="cpu"))
    assert isinstance(source, Simulator)
    seen = []
    for _ in range(3):
        frames = source.sense()
        seen.append([(frame.sensor, frame.sequence, frame.buffers["color"].ptr) for frame in frames])
        assert all(0 < frame.stamps.sim_state <= frame.stamps.sensed for frame in frames)
        source.step(None)
    pointers = [frame.buffers["color"].ptr for frame in source.sense()]
    assert seen == [[("a", n, pointers[0]), ("b", n, pointers[1])] for n in range(3)]
    assert len(source.step_times) == 3


def test_pictures_differ_and_repeat():
    """By seed; opaque, and of the size that is configured."""
    first, second = picture(0), picture(1)
    assert first.shape == (HEIGHT, WIDTH)
    assert first.dtype == np.uint32
    assert (first >> 24 == 255).all()
    assert np.array_equal(first, picture(0))
    assert not np.array_equal(first, second)
    assert [(c.width, c.height) for c in camera_configs(2).values()] == [(WIDTH, HEIGHT)] * 2


def test_the_tap_brings_small_outputs_only():
    """Label maps stay where they are."""

    class Outputs:
        outputs = {"small": wp.full(4, 2.5, dtype=wp.float32, device="cpu"), "map": wp.zeros(1 << 16, dtype=wp.float32)}

    tap = OutputTap(Outputs())
    tap.record([], None)
    assert [(host.numpy().tolist()) for host, _ in tap._pairs] == [[2.5] * 4]
