"""Sensor noise: its statistics, that it repeats, and that frames and sensors are independent of each other."""

from __future__ import annotations

import numpy as np
import pytest
import warp as wp
from hypothesis import given, settings
from hypothesis import strategies as st

from saccade.config import CameraNoise, LidarNoise
from saccade.frame import BACKGROUND
from saccade.sensors.noise import (
    has_image_noise,
    has_range_noise,
    noise_key,
    record_image_noise,
    record_range_noise,
)

HEIGHT, WIDTH = 200, 300
CHANNELS, COLUMNS = 32, 1024


def noisy_image(value: int, noise: CameraNoise, *, key: int = 7, sequence: int = 0) -> np.ndarray:
    packed = np.uint32(value | value << 8 | value << 16 | 0xAB << 24)
    image = wp.full((HEIGHT, WIDTH), packed, dtype=wp.uint32, device="cpu")
    number = wp.array([sequence], dtype=wp.int32, device="cpu")
    record_image_noise(image, noise, key=key, sequence=number).launch()
    return image.numpy().view(np.uint8).reshape(HEIGHT, WIDTH, 4)


def noisy_scan(clean: np.ndarray, noise: LidarNoise, *, key: int = 7, sequence: int = 0, limits=(0.1, 30.0)):
    directions = np.zeros((*clean.shape, 1, 2, 3), dtype=np.float32)
    directions[..., 0, 1, 0] = 1.0
    shape = clean.shape
    ranges = wp.zeros(shape, dtype=wp.float32, device="cpu")
    intensity = wp.full(shape, 0.5, dtype=wp.float32, device="cpu")
    points = wp.zeros(shape, dtype=wp.vec3f, device="cpu")
    labels = wp.full(shape, 1, dtype=wp.uint8, device="cpu")
    launch = record_range_noise(
        ranges,
        intensity,
        points,
        labels,
        wp.array(directions, dtype=wp.vec3f, device="cpu"),
        noise,
        limits=limits,
        key=key,
        sequence=wp.array([sequence], dtype=wp.int32, device="cpu"),
        clean_ranges=wp.array(clean, dtype=wp.float32, device="cpu"),
    )
    launch.launch()
    return ranges.numpy(), intensity.numpy(), points.numpy(), labels.numpy()


@pytest.mark.parametrize(("value", "shot", "read"), [(128, 0.0, 5.0), (128, 8.0, 0.0), (60, 6.0, 3.0), (200, 4.0, 4.0)])
def test_image_noise_has_the_configured_spread(value, shot, read):
    image = noisy_image(value, CameraNoise(shot=shot, read=read))[..., :3].astype(float)
    # 180000 normal samples: the standard deviation of their standard deviation is 0.17 %; rounding adds 1/12.
    expected = np.sqrt(shot**2 * value / 255 + read**2 + 1 / 12)
    assert image.std() == pytest.approx(expected, rel=0.01)
    assert image.mean() == pytest.approx(value, abs=5 * expected / np.sqrt(image.size))


def test_image_noise_is_independent_between_channels_pixels_frames_and_sensors():
    noise = CameraNoise(read=10)
    first = noisy_image(128, noise, sequence=3)[..., :3].astype(float) - 128
    second = noisy_image(128, noise, sequence=4)[..., :3].astype(float) - 128
    other = noisy_image(128, noise, sequence=3, key=noise_key(0, "other"))[..., :3].astype(float) - 128
    bound = 5 / np.sqrt(HEIGHT * WIDTH)
    pairs = {
        "channels": (first[..., 0], first[..., 1]),
        "columns": (first[:, :-1, 0], first[:, 1:, 0]),
        "rows": (first[:-1, :, 0], first[1:, :, 0]),
        "frames": (first[..., 0], second[..., 0]),
        "sensors": (first[..., 0], other[..., 0]),
    }
    for name, (a, b) in pairs.items():
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < bound, name


def test_noise_repeats_for_the_same_seed_and_sample_and_for_no_other():
    noise = CameraNoise(shot=5, read=5)
    first = noisy_image(100, noise, key=noise_key(1, "head"), sequence=9)
    assert np.array_equal(first, noisy_image(100, noise, key=noise_key(1, "head"), sequence=9))
    assert not np.array_equal(first, noisy_image(100, noise, key=noise_key(2, "head"), sequence=9))
    assert not np.array_equal(first, noisy_image(100, noise, key=noise_key(1, "chest"), sequence=9))
    assert not np.array_equal(first, noisy_image(100, noise, key=noise_key(1, "head"), sequence=10))


@settings(max_examples=40, deadline=None)
@given(value=st.integers(0, 255), shot=st.floats(0, 10), read=st.floats(0, 50), sequence=st.integers(0, 2**31 - 1))
def test_any_image_noise_stays_in_a_byte_and_leaves_alpha(value, shot, read, sequence):
    image = noisy_image(value, CameraNoise(shot=shot, read=read), sequence=sequence)
    assert (image[..., 3] == 0xAB).all()
    spread = np.sqrt(shot**2 * value / 255 + read**2)
    # Nothing may wrap around: no sample lies further than the longest tail of a 32-bit normal generator.
    assert np.abs(image[..., :3].astype(float) - value).max() <= 7 * spread + 0.5


def test_zero_noise_changes_no_value():
    noise = CameraNoise()
    assert not has_image_noise(noise)
    assert not has_image_noise(CameraNoise(exposure=2.0))
    assert (noisy_image(77, noise)[..., :3] == 77).all()
    assert not has_range_noise(LidarNoise())
    clean = np.full((4, 64), 5.0, dtype=np.float32)
    assert np.array_equal(noisy_scan(clean, LidarNoise())[0], clean)


@pytest.mark.parametrize("range_std", [0.005, 0.03, 0.2])
def test_range_noise_has_the_configured_spread(range_std):
    clean = np.full((CHANNELS, COLUMNS), 10.0, dtype=np.float32)
    ranges, _, points, _ = noisy_scan(clean, LidarNoise(range_std=range_std))
    error = ranges - 10.0
    assert error.std() == pytest.approx(range_std, rel=0.03)
    assert abs(error.mean()) < 5 * range_std / np.sqrt(error.size)
    assert np.array_equal(points[..., 0], ranges)


@pytest.mark.parametrize("dropout", [0.01, 0.1, 0.5])
def test_dropout_loses_the_configured_share(dropout):
    from scipy.stats import binom

    clean = np.full((CHANNELS, COLUMNS), 10.0, dtype=np.float32)
    ranges, intensity, points, labels = noisy_scan(clean, LidarNoise(dropout=dropout))
    lost = ranges == 0
    low, high = binom.interval(0.9999, clean.size, dropout)
    assert low <= lost.sum() <= high
    assert (intensity[lost] == 0).all() and (intensity[~lost] == 0.5).all()
    assert (points[lost] == 0).all()
    assert (labels[lost] == BACKGROUND).all() and (labels[~lost] == 1).all()


def test_scans_are_independent_and_repeat():
    clean = np.full((CHANNELS, COLUMNS), 10.0, dtype=np.float32)
    noise = LidarNoise(range_std=0.05, dropout=0.3)
    first = noisy_scan(clean, noise, sequence=1)[0]
    assert np.array_equal(first, noisy_scan(clean, noise, sequence=1)[0])
    second = noisy_scan(clean, noise, sequence=2)[0]
    both = (first > 0) & (second > 0)
    assert abs(np.corrcoef(first[both], second[both])[0, 1]) < 5 / np.sqrt(both.sum())
    # Lost twice by chance only: 0.3 * 0.3.
    assert ((first == 0) & (second == 0)).mean() == pytest.approx(0.09, abs=5 * np.sqrt(0.09 * 0.91 / first.size))


@settings(max_examples=30, deadline=None)
@given(
    range_std=st.floats(0, 1),
    dropout=st.floats(0, 0.9),
    distance=st.floats(0.125, 30.0, width=32),
    sequence=st.integers(0, 2**31 - 1),
)
def test_measured_ranges_are_none_or_within_limits(range_std, dropout, distance, sequence):
    clean = np.full((4, 256), distance, dtype=np.float32)
    clean[0] = 0.0
    ranges, _, _, _ = noisy_scan(clean, LidarNoise(range_std=range_std, dropout=dropout), sequence=sequence)
    low, high = np.float32(0.1), np.float32(30.0)
    assert (ranges[0] == 0).all()
    assert ((ranges == 0) | ((ranges >= low) & (ranges <= high))).all()
