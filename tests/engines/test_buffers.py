"""The pool of device arrays: shared by kind, never by two at once."""

import pytest
import warp as wp
from hypothesis import given
from hypothesis import strategies as st

from saccade.engines.base import TensorSpec
from saccade.engines.buffers import BufferPool
from saccade.errors import EngineError

SPECS = [TensorSpec("image", (1, 3, 4, 4), "float32"), TensorSpec("labels", (1, 6, 4, 4), "float32")]


def test_two_engines_of_one_shape_share(monkeypatch):
    """What the first gave back serves the second: arrays are allocated for one, and are the same memory."""
    pool = BufferPool()
    with pool.borrowed(SPECS, device="cpu") as first:
        where = {name: array.ptr for name, array in first.items()}
        assert pool.taken == 2
    with pool.borrowed(SPECS, device="cpu") as second:
        assert {name: array.ptr for name, array in second.items()} == where
    assert (pool.allocations, pool.taken) == (2, 0)
    assert pool.memory_bytes == (3 + 6) * 16 * 4
    pool.clear()
    assert pool.memory_bytes == 0


def test_arrays_are_given_back_after_an_error():
    pool = BufferPool()
    with pytest.raises(ZeroDivisionError), pool.borrowed(SPECS, device="cpu"):
        raise ZeroDivisionError
    assert pool.taken == 0


def test_what_is_not_out_cannot_be_given_back():
    """A foreign array and a second release are refused: both would hand one array to two engines."""
    pool = BufferPool()
    with pytest.raises(EngineError, match=r"shape \(2,\).*not out"):
        pool.release(wp.zeros(2, dtype=wp.float32, device="cpu"))
    array = pool.acquire((2,), "float32", device="cpu")
    pool.release(array)
    with pytest.raises(EngineError, match="not out"):
        pool.release(array)


def test_a_scalar_has_one_element():
    """TensorRT has outputs without dimensions, Warp has no such arrays."""
    assert BufferPool().acquire((), "int32", device="cpu").shape == (1,)


kinds = st.sampled_from([((2,), "float32"), ((2,), "float16"), ((1, 2), "float32"), ((2,), "uint8")])


@given(steps=st.lists(kinds | st.integers(0, 5), max_size=40))
def test_nobody_shares_and_nothing_is_allocated_in_vain(steps):
    """Arrays that are out are distinct and of the kind asked for; as many are allocated as were out at once."""
    pool, out, most = BufferPool(), [], {}
    for step in steps:
        if isinstance(step, int):
            if step < len(out):
                pool.release(out.pop(step)[1])
            continue
        shape, dtype = step
        array = pool.acquire(shape, dtype, device="cpu")
        assert tuple(array.shape) == shape and array.numpy().dtype == dtype
        out.append((step, array))
        assert len({taken.ptr for _, taken in out}) == len(out) == pool.taken
        most[step] = max(most.get(step, 0), sum(kind == step for kind, _ in out))
    assert pool.allocations == sum(most.values())
