"""Decoding of logits, hazard and clearance, and the finite check."""

import numpy as np
import pytest
import warp as wp

from saccade.kernels import decode
from saccade.kernels.stamps import unmarked


def counts_of(batch=1):
    return wp.zeros(batch, dtype=wp.int32, device="cpu")


def completed(outputs, counts):
    """Summaries of all rows, none of which was cleared."""
    batch = counts.shape[0]
    summary = wp.full((batch, decode.SUMMARY_SIZE), value=-7.0, dtype=wp.float32, device="cpu")
    decode.record_results(outputs, range(batch), counts, summary, unmarked()).launch()
    return summary.numpy()


def small(values, batch=1, **options):
    return decode.small_output(wp.array(np.asarray(values, np.float32), device="cpu"), row=0, batch=batch, **options)


def labels_of(logits, class_of_logit):
    result = wp.zeros((1, *logits.shape[2:]), dtype=wp.uint8, device="cpu")
    counts = counts_of()
    lut = wp.array(np.array(class_of_logit, np.uint8), device="cpu")
    decode.record_labels(wp.array(logits, device="cpu"), lut, result, counts).launch()
    return result.numpy()[0], int(counts.numpy()[0])


def test_labels_are_the_arg_max_mapped_to_classes():
    """The first of equal logits wins and the class map is applied."""
    logits = np.random.default_rng(0).normal(size=(1, 4, 9, 11)).astype(np.float32)
    logits[0, :, 0, 0] = 1.0
    lut = np.array([3, 0, 255, 1], np.uint8)
    found, broken = labels_of(logits, lut)
    assert (found == lut[logits[0].argmax(0)]).all()
    assert broken == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channel", [0, 1, 3])
def test_a_non_finite_logit_is_counted(value, channel):
    """NaN and infinity in any channel are seen, once per pixel."""
    logits = np.zeros((1, 4, 5, 5), np.float32)
    logits[0, channel, 2, 2] = value
    logits[0, channel, 4, 4] = value
    assert labels_of(logits, [0, 1, 2, 3])[1] == 2


def test_large_finite_logits_are_not_called_broken():
    """The largest float is finite."""
    logits = np.full((1, 4, 3, 3), np.finfo(np.float32).max, np.float32)
    assert labels_of(logits, [0, 1, 2, 3])[1] == 0


@pytest.mark.parametrize(("sigmoid", "value", "wanted"), [(False, 0.25, 0.25), (True, 0.0, 0.5), (True, 2.0, 0.880797)])
def test_hazard(sigmoid, value, wanted):
    """A probability passes, a logit goes through the sigmoid."""
    found = completed([small([[value]], column=decode.HAZARD, sigmoid=sigmoid)], counts_of())
    assert found[0, decode.HAZARD] == pytest.approx(wanted, abs=1e-6)
    assert found[0, decode.NON_FINITE] == 0


def test_clearance_and_other_outputs():
    """16 sectors arrive in order; non-finite ones and those of undecoded outputs are counted, small or not."""
    values = np.arange(16, dtype=np.float32)
    values[5] = np.nan
    counts = counts_of()
    large = np.zeros((1, 2 * decode.SMALL), np.float32)
    large[0, [0, -1]] = np.inf
    decode.record_finite(wp.array(large, device="cpu"), counts).launch()
    found = completed([small(values[None], column=decode.CLEARANCE), small([[1.0, np.inf]])], counts)[0]
    sectors = found[decode.CLEARANCE : decode.NON_FINITE]
    assert sectors[4] == 4.0 and np.isnan(sectors[5])
    assert found[decode.HAZARD] == -7.0
    assert found[decode.NON_FINITE] == 4
    assert counts.numpy()[0] == 0


def test_a_batch_is_decoded_image_by_image():
    """Labels, hazards, clearances and broken values of one image do not reach another."""
    random = np.random.default_rng(4)
    logits = random.normal(size=(3, 4, 5, 6)).astype(np.float32)
    logits[1, 0, 0, 0] = np.nan
    counts, result = counts_of(3), wp.zeros((3, 5, 6), dtype=wp.uint8, device="cpu")
    decode.record_labels(
        wp.array(logits, device="cpu"), wp.array(np.arange(4, dtype=np.uint8), device="cpu"), result, counts
    ).launch()
    hazards = np.array([[0.1], [0.2], [0.3]], np.float32)
    clearances = random.uniform(size=(3, 16)).astype(np.float32)
    other = np.zeros((3, 2, 2), np.float32)
    other[2, 1, 1] = np.inf
    outputs = [small(hazards, 3, column=decode.HAZARD), small(clearances, 3, column=decode.CLEARANCE), small(other, 3)]
    found = completed(outputs, counts)
    assert (result.numpy()[[0, 2]] == logits.argmax(1)[[0, 2]]).all()
    np.testing.assert_allclose(found[:, decode.HAZARD], hazards[:, 0])
    np.testing.assert_allclose(found[:, decode.CLEARANCE : decode.NON_FINITE], clearances)
    assert found[:, decode.NON_FINITE].tolist() == [0.0, 1.0, 1.0]


def test_an_output_without_a_batch_is_still_checked():
    """A non-finite value in an output of another shape is counted with the first image."""
    assert completed([small([1.0, np.nan, 2.0], 2)], counts_of(2))[:, decode.NON_FINITE].tolist() == [1.0, 0.0]
    counts = counts_of(2)
    decode.record_finite(wp.array(np.array([1.0, np.nan, 2.0], np.float32), device="cpu"), counts).launch()
    assert counts.numpy().tolist() == [1, 0]
