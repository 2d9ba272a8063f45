"""A scan as a picture: where straight ahead is, what no return is, and that near is brighter than far."""

import numpy as np
import pytest
import warp as wp

from saccade.kernels.preview import draw_ranges

DEVICES = ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)]


def drawn(ranges, device, range_max=30.0):
    source = wp.array(np.asarray(ranges, np.float32), device=device)
    target = wp.zeros(source.shape, dtype=wp.uint32, device=device)
    draw_ranges(source, target, range_max)
    return target.numpy().view(np.uint8).reshape(*source.shape, 4)


@pytest.mark.parametrize("device", DEVICES)
def test_straight_ahead_is_in_the_middle_and_left_is_left(device):
    """Azimuth counts counter-clockwise from straight ahead: the column after 0 is a little to the left."""
    ranges = np.zeros((2, 8), np.float32)
    ranges[0, 0], ranges[1, 1] = 5.0, 5.0
    picture = drawn(ranges, device)
    lit = np.argwhere(picture[..., 0] > 0).tolist()
    assert lit == [[0, 4], [1, 3]]


@pytest.mark.parametrize("device", DEVICES)
def test_near_is_brighter_and_no_return_is_black(device):
    picture = drawn([[0.0, 0.5, 3.0, 12.0, 30.0, 90.0, 0.0, 0.0]], device)[0]
    assert (picture[:, 3] == 255).all()
    order = [4, 3, 2, 1, 0, 7]  # where columns 0 to 5 went
    levels = picture[order, :3].astype(int).sum(axis=1)
    assert levels[0] == 0
    assert (np.diff(levels[1:5]) < 0).all() and levels[5] == levels[4] > 0


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_is_read_out_of_bounds_for_any_width(device):
    for columns in (1, 2, 3, 7, 16):
        assert (drawn(np.full((3, columns), 2.0), device)[..., 3] == 255).all()
