"""Masks: what goes is the smallest, and 2:4 is 2:4."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from saccade.errors import ConfigurationError
from saccade.precision.cost import multiply_adds_of, parameters_of, weights_of
from saccade.precision.sparsity import is_2_to_4, mask_2_to_4, mask_l1, masked, sparse_masks

WEIGHTS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(4, 18), st.integers(1, 3), st.integers(1, 3)),
    elements=st.floats(-10, 10, width=32),
)


@given(WEIGHTS)
def test_two_of_four_stay_and_they_are_the_largest(weight):
    mask = mask_2_to_4(weight)
    whole = weight.shape[1] // 4 * 4
    assert is_2_to_4(weight * mask)
    assert mask[:, whole:].all()
    for first in range(0, whole, 4):
        group, stays = np.abs(weight[:, first : first + 4]), mask[:, first : first + 4]
        assert (stays.sum(axis=1) == 2).all()
        assert (np.where(stays, group, np.inf).min(axis=1) >= np.where(stays, -1, group).max(axis=1)).all()


@given(WEIGHTS, st.floats(0.05, 0.95))
def test_the_smallest_weights_go(weight, amount):
    mask = mask_l1(weight, amount)
    assert mask.size - mask.sum() == round(amount * weight.size)
    gone = np.abs(weight[~mask])
    assert not gone.size or mask.all() or gone.max() <= np.abs(weight[mask]).min()


def test_dense_is_not_2_to_4():
    assert not is_2_to_4(np.ones((1, 4, 1, 1)))


@pytest.mark.parametrize("how", ["l1", "2:4"])
def test_network(network, how):
    """Depthwise convolutions and biases are left alone; the graph stays as large; half of the others is zero."""
    masks = sparse_masks(network, how)
    assert set(masks) == {"w2", "w3", "head", "w4"}
    pruned = masked(network, masks)
    onnx.checker.check_model(pruned, full_check=True)
    assert multiply_adds_of(pruned) == multiply_adds_of(network)
    before, after = parameters_of(network), parameters_of(pruned)
    assert after["total"] == before["total"] and after["nonzero"] < 0.7 * before["nonzero"]
    if how == "2:4":
        assert all(is_2_to_4(weights_of(pruned)[name]) for name in masks)


def test_what_is_kept(network):
    assert set(sparse_masks(network, "l1", keep=("wide", "Gemm"))) == {"w3", "head"}
    with pytest.raises(ConfigurationError, match="keep: nothing: neither"):
        sparse_masks(network, "l1", keep=("nothing",))
