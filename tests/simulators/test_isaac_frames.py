"""What happens to frames from Isaac Sim, without it: keys, freshness, clocks, shapes, devices, labels, time steps."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import warp as wp
from hypothesis import given
from hypothesis import strategies as st

from saccade.errors import ConfigurationError
from saccade.frame import BACKGROUND, FLOOR, OBSTACLE, PERSON
from saccade.simulators import isaac_frames as frames


def test_reference_times_are_exact_keys():
    assert frames.reference_key(1, 3) == Fraction(1, 3)
    assert frames.reference_key(2, 6) == frames.reference_key(1, 3)
    assert frames.reference_key(0, 0) is None and frames.reference_key(0, 5) is None


@given(st.lists(st.integers(0, 20), max_size=60))
def test_every_delivery_is_counted_once(numbers):
    freshness = frames.Freshness()
    fresh = sum(freshness.is_new(frames.reference_key(number, 60)) for number in numbers)
    counters = freshness.counters
    assert fresh + counters.duplicates + counters.out_of_order + counters.without_time == len(numbers)
    newest, wanted = 0, 0
    for number in numbers:
        wanted += number > newest
        newest = max(newest, number)
    assert fresh == wanted


def test_a_writer_s_keys_may_end_in_the_product_s_name():
    data = {"rgb-RenderProduct_01": 1, "rgbd": 2, "ReferenceTime": 3}
    assert frames.writer_value(data, "rgb") == 1 and frames.writer_value(data, "ReferenceTime") == 3
    with pytest.raises(KeyError, match="depth"):
        frames.writer_value(data, "depth")


def test_arrays_come_bare_or_with_more():
    assert frames.array_and_info(5) == (5, {})
    array, info = frames.array_and_info({"data": 1, "info": {"a": 2}, "intensity": 3})
    assert array == 1 and info == {"a": 2, "intensity": 3}


def test_the_epoch_clock_maps_and_sees_jumps():
    now = {"epoch": 10**18, "mono": 0}

    def monotonic():
        now["mono"] += 100
        return now["mono"]

    clock = frames.EpochClock(epoch_ns=lambda: now["epoch"] + now["mono"], monotonic_ns=monotonic)
    assert clock.monotonic_of((10**18 + 5_000_000_000) * 1e-9) == pytest.approx(5_000_000_000, abs=300)
    now["mono"] += 2 * 10**9
    clock.sample_if_due()
    assert clock.jumps == 0 and clock.samples == 2
    now["epoch"] += 2_000_000
    now["mono"] += 2 * 10**9
    clock.sample_if_due()
    assert clock.jumps == 1
    clock.check(stamp_ns=5_000_000, arrived_ns=1_000_000)
    assert clock.facts()["jumps"] == 2


def test_colour_is_the_same_memory_and_a_strided_view_is_refused():
    rgba = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    array = wp.array(rgba, dtype=wp.uint8, device="cpu")
    packed = frames.packed_color("eye", array, 2, 3)
    assert packed.ptr == array.ptr and packed.numpy().tolist() == rgba.view(np.uint32)[..., 0].tolist()
    with pytest.raises(ConfigurationError, match="contiguous RGBA"):
        frames.packed_color("eye", array[:, :, :3], 2, 3)
    with pytest.raises(ConfigurationError, match="320 px"):
        frames.packed_color("eye", array, 4, 6)


def test_pictures_of_one_channel_come_with_two_or_three_dimensions():
    for shape in ((4, 5), (4, 5, 1)):
        array = wp.zeros(shape, dtype=wp.float32, device="cpu")
        view = frames.image_view("eye", "depth", array, 4, 5, wp.float32)
        assert view.shape == (4, 5) and view.ptr == array.ptr
    with pytest.raises(ConfigurationError, match="expected contiguous float32"):
        frames.image_view("eye", "depth", wp.zeros((4, 5), dtype=wp.float16, device="cpu"), 4, 5, wp.float32)


def on(device):
    return SimpleNamespace(device=device, shape=(1,))


def test_devices_are_checked():
    assert frames.check_device("a", "x", on("cuda:0"), "cuda:0", require_device=True) is False
    with pytest.raises(ConfigurationError, match=r"activeGpu=1"):
        frames.check_device("a", "x", on("cuda:0"), "cuda:1", require_device=False)
    with pytest.raises(ConfigurationError, match="came in host memory"):  # silently, although CUDA was asked for
        frames.check_device("a", "x", on("cpu"), "cuda:0", require_device=False)
    assert frames.check_device("a", "x", on("cpu"), "cuda:0", require_device=False, delivered_on_host=True)
    with pytest.raises(ConfigurationError, match="require_device"):
        frames.check_device("a", "x", on("cpu"), "cuda:0", require_device=True, delivered_on_host=True)


def test_classes_by_semantic_id():
    table = frames.class_table(
        {
            "0": {"class": "BACKGROUND"},
            "1": {"class": "UNLABELLED"},
            2: {"class": "floor"},
            "3": {"class": "gizmo"},
            "4": {"class": "gizmo, pedestrian"},
            "5": {"class": "gadget"},
        },
        further={"gadget": "floor"},
    )
    assert table[:6].tolist() == [BACKGROUND, OBSTACLE, FLOOR, OBSTACLE, PERSON, FLOOR]
    with pytest.raises(ConfigurationError, match="colorized"):
        frames.class_table({"4294967295": {"class": "floor"}})


@given(st.integers(1, 2000), st.integers(1, 100))
def test_a_step_holds_its_physics_steps_cut_off_or_rounded(milliseconds, substeps):
    step = milliseconds / 1000
    time_step = frames.physics_time_step(step, substeps)
    assert int(step / time_step) == substeps == round(step / time_step)
    assert time_step == pytest.approx(step / substeps, rel=1e-12)


def test_one_pinned_upload_on_the_cpu_copies_nothing():
    upload = frames.PinnedUpload("cpu")
    upload.reserve(3000)
    upload.host[0, :3] = (1, 2, 3)
    upload.push()
    assert upload.array.shape == (5, 4096) and upload.array.numpy()[0, :3].tolist() == [1, 2, 3]
    assert upload.bytes == 0 and upload.facts()["copy"]["count"] == 0
