"""Preprocessing against a straightforward NumPy reference."""

import numpy as np
import pytest
import warp as wp
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.kernels import preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def reference(image, size, *, letterbox, order, mean, std, fill):
    """Bilinear with half-pixel centres in float64, written from the definition."""
    width, height = size
    rgb = image.view(np.uint8).reshape(*image.shape, 4)[..., :3].astype(np.float64)
    inner_width, inner_height, left, top = width, height, 0, 0
    if letterbox:
        scale = min(width / image.shape[1], height / image.shape[0])
        inner_width, inner_height = round(image.shape[1] * scale), round(image.shape[0] * scale)
        left, top = (width - inner_width) // 2, (height - inner_height) // 2
    result = np.full((height, width, 3), fill * 255.0)
    ys = np.clip((np.arange(inner_height) + 0.5) * image.shape[0] / inner_height - 0.5, 0, image.shape[0] - 1)
    xs = np.clip((np.arange(inner_width) + 0.5) * image.shape[1] / inner_width - 0.5, 0, image.shape[1] - 1)
    y0, x0 = ys.astype(int), xs.astype(int)
    y1, x1 = np.minimum(y0 + 1, image.shape[0] - 1), np.minimum(x0 + 1, image.shape[1] - 1)
    fy, fx = (ys - y0)[:, None, None], (xs - x0)[None, :, None]
    upper = rgb[y0][:, x0] * (1 - fx) + rgb[y0][:, x1] * fx
    lower = rgb[y1][:, x0] * (1 - fx) + rgb[y1][:, x1] * fx
    result[top : top + inner_height, left : left + inner_width] = upper * (1 - fy) + lower * fy
    if order == "bgr":
        result = result[..., ::-1]
    return ((result / 255.0 - mean) / std).transpose(2, 0, 1)


def run(image, size, **options):
    source = wp.array(image, device="cpu")
    output = wp.full((2, 3, size[1], size[0]), value=np.nan, dtype=wp.float32, device="cpu")
    transform = preprocess.image_transform((image.shape[1], image.shape[0]), size, **options)
    preprocess.record_image(source, transform, output, batch=1).launch()
    assert np.isnan(output.numpy()[0]).all(), "the other image of the batch was touched"
    return output.numpy()[1]


@settings(max_examples=25, deadline=None)
@given(
    source=st.tuples(st.integers(8, 70), st.integers(8, 70)),
    target=st.tuples(st.integers(8, 50), st.integers(8, 50)),
    resize=st.sampled_from(["stretch", "letterbox"]),
    order=st.sampled_from(["rgb", "bgr"]),
    seed=st.integers(0, 2**31),
)
def test_matches_the_reference_for_any_size(source, target, resize, order, seed):
    """Stretch and letterbox, up and down, agree with the definition to float rounding."""
    image = np.random.default_rng(seed).integers(0, 2**32, source[::-1], dtype=np.uint32)
    found = run(image, target, resize=resize, channel_order=order, mean=MEAN, std=STD, fill=0.5)
    wanted = reference(
        image, target, letterbox=resize == "letterbox", order=order, mean=np.array(MEAN), std=np.array(STD), fill=0.5
    )
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_same_size_takes_no_interpolation_and_is_exact():
    """A camera of the network's size is only converted."""
    image = np.random.default_rng(0).integers(0, 2**32, (24, 32), dtype=np.uint32)
    rgb = image.view(np.uint8).reshape(24, 32, 4)[..., :3].transpose(2, 0, 1) / 255.0
    np.testing.assert_allclose(run(image, (32, 24)), rgb, atol=1e-6)


def test_channel_order_swaps_red_and_blue():
    """A red image is red in the first channel of RGB and in the last of BGR."""
    image = np.full((8, 8), 0xFF0000FF, np.uint32)
    assert run(image, (8, 8))[:, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert run(image, (8, 8), channel_order="bgr")[:, 0, 0].tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("scale", [1.0, 1 / 30])
def test_range_image_holds_scaled_ranges_and_intensity(scale):
    """Channel 0 is range times scale with 0 for no return, channel 1 intensity."""
    ranges = np.array([[0.0, 3.0, 30.0]], np.float32)
    intensity = np.array([[0.0, 0.5, 1.0]], np.float32)
    output = wp.zeros((1, 2, 1, 3), dtype=wp.float32, device="cpu")
    preprocess.record_range_image(
        wp.array(ranges, device="cpu"), wp.array(intensity, device="cpu"), scale, output
    ).launch()
    np.testing.assert_allclose(output.numpy()[0], [ranges * scale, intensity], rtol=1e-6)
