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
    black = wp.zeros_like(source)
    preprocess.record_images([black, source], transform, output).launch()
    assert not np.isnan(output.numpy()).any(), "every element is written"
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


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(16, 12), (9, 7)])
def test_bytes_and_packed_pixels_give_the_same(channels, size):
    """Interleaved RGB, RGBA and grey come out as the same picture packed does, bit for bit."""
    pixels = np.random.default_rng(1).integers(0, 256, (12, 16, channels), dtype=np.uint8)
    packed = np.zeros((12, 16, 4), np.uint8)
    packed[..., :3] = pixels[..., :3]
    transform = preprocess.image_transform((16, 12), size, mean=MEAN, std=STD)
    found, wanted = (wp.zeros((1, 3, size[1], size[0]), dtype=wp.float32, device="cpu") for _ in range(2))
    preprocess.record_images([wp.array(pixels, device="cpu")], transform, found).launch()
    source = wp.array(packed.view(np.uint32)[..., 0].copy(), device="cpu")
    preprocess.record_images([source], transform, wanted).launch()
    assert (found.numpy() == wanted.numpy()).all()


def test_rows_with_padding_are_read_where_they_are():
    """A view on padded rows is read through its strides."""
    padded = np.random.default_rng(2).integers(0, 256, (6, 20, 3), dtype=np.uint8)
    view = wp.array(padded, device="cpu")[:, :16]
    transform = preprocess.image_transform((16, 6), (16, 6))
    output = wp.zeros((1, 3, 6, 16), dtype=wp.float32, device="cpu")
    preprocess.record_images([view], transform, output).launch()
    np.testing.assert_allclose(output.numpy()[0], padded[:, :16].transpose(2, 0, 1) / 255.0, atol=1e-6)


def test_half_output_is_the_rounded_float_output():
    """float16 holds what float32 does, rounded."""
    image = np.random.default_rng(3).integers(0, 2**32, (20, 30), dtype=np.uint32)
    transform = preprocess.image_transform((30, 20), (17, 13), resize="letterbox", mean=MEAN, std=STD)
    outputs = {dtype: wp.zeros((1, 3, 13, 17), dtype=dtype, device="cpu") for dtype in (wp.float32, wp.float16)}
    for output in outputs.values():
        preprocess.record_images([wp.array(image, device="cpu")], transform, output).launch()
    assert (outputs[wp.float16].numpy() == outputs[wp.float32].numpy().astype(np.float16)).all()


def test_sixteen_cameras_take_one_launch_and_do_not_mix():
    """Each image of a batch is its own camera's."""
    images = [wp.full((8, 8), value=0xFF000000 | value, dtype=wp.uint32, device="cpu") for value in range(16)]
    output = wp.zeros((16, 3, 8, 8), dtype=wp.float32, device="cpu")
    preprocess.record_images(images, preprocess.image_transform((8, 8), (8, 8)), output).launch()
    np.testing.assert_allclose(output.numpy()[:, 0, 3, 3] * 255, np.arange(16), atol=1e-4)


def test_source_order_is_undone():
    """A BGR picture for a BGR network is not swapped, for an RGB network it is."""
    image = np.full((8, 8), 0xFF0000FF, np.uint32)
    assert run(image, (8, 8), source_order="bgr", channel_order="bgr")[:, 0, 0].tolist() == [1.0, 0.0, 0.0]
    assert run(image, (8, 8), source_order="bgr")[:, 0, 0].tolist() == [0.0, 0.0, 1.0]


def test_a_batch_of_unlike_images_is_refused():
    """Size, kind and number have to agree."""
    output = wp.zeros((2, 3, 8, 8), dtype=wp.float32, device="cpu")
    transform = preprocess.image_transform((8, 8), (8, 8))
    small, large = (wp.zeros((size, size), dtype=wp.uint32, device="cpu") for size in (8, 9))
    with pytest.raises(ValueError, match="one size"):
        preprocess.record_images([small, large], transform, output)
    with pytest.raises(ValueError, match="batch of 2"):
        preprocess.record_images([small], transform, output)
