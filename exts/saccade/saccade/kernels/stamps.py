"""Time stamps taken on the GPU, in the middle of a replayed graph: a one-thread kernel reads the global timer."""

# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

import warp as wp

from saccade.kernels.launch import recorded

READ_GLOBAL_TIMER = """
#if defined(__CUDA_ARCH__)
    unsigned long long now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return (wp::uint64)now;
#else
    return (wp::uint64)0;
#endif
"""


@wp.func_native(READ_GLOBAL_TIMER)
def _global_timer() -> wp.uint64: ...


@wp.kernel(enable_backward=False)
def _stamp(slot: int, stamps: wp.array(dtype=wp.uint64)):
    stamps[slot] = _global_timer()


def record_stamp(stamps: wp.array, slot: int) -> wp.Launch:
    """Returns a recorded launch that writes the GPU's global timer [ns] into ``stamps[slot]``.

    Work launched before it on the stream has finished by then, work launched after it has not begun. The timer is
    PTX's ``%globaltimer`` (PTX ISA, special registers); on the CPU there is none, and 0 is written.

    Args:
        stamps: Shape ``(slots,)``, uint64.
        slot: Which element is written.
    """
    return recorded(_stamp, dim=1, inputs=[slot], outputs=[stamps], device=stamps.device)
