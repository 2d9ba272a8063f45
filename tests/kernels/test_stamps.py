"""Stamps of the device's clock: what is written where, and that compiled code reads the global timer."""

import numpy as np
import pytest
import warp as wp

from saccade.kernels import stamps


def test_only_the_slot_is_written():
    """On the CPU readings are counted instead, and nobody else's slot is touched."""
    array = wp.full(8, value=99, dtype=wp.uint64, device="cpu")
    stamps.record_stamp(array, 3, wp.full(1, value=41, dtype=wp.uint64, device="cpu")).launch()
    wanted = np.full(8, 99, np.uint64)
    wanted[3] = 42
    np.testing.assert_array_equal(array.numpy(), wanted)


def test_recording_does_not_launch():
    array = wp.full(2, value=99, dtype=wp.uint64, device="cpu")
    stamps.record_stamp(array, 0)
    assert (array.numpy() == 99).all()


@pytest.mark.parametrize("arch", [75, 90])
def test_compiled_for_a_gpu_it_reads_the_global_timer(tmp_path, arch):
    """NVRTC, which comes with Warp, makes PTX without a GPU: one read of all 64 bits, and a store of them."""
    if not hasattr(wp, "compile_aot_module"):
        pytest.skip("this Warp compiles nothing ahead of time")
    try:
        wp.compile_aot_module(stamps, arch=arch, module_dir=tmp_path, use_ptx=True)
    except RuntimeError as error:
        pytest.skip(f"this Warp compiles nothing for CUDA: {error}")
    (path,) = tmp_path.rglob("*.ptx")
    lines = [line.split() for line in path.read_text().splitlines()]
    reads = [words for words in lines if "%globaltimer;" in words]
    assert len(reads) == 1 and reads[0][0] == "mov.u64"
    register = reads[0][1].rstrip(",")
    assert any(words[0].startswith("st.global") and words[-1] == f"{register};" for words in lines if words)
