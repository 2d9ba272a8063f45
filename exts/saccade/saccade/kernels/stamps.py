"""Time stamps taken on the GPU, in the middle of a replayed graph: kernels read the global timer.

Work that begins or ends with one of Saccade's own kernels is stamped by that kernel (:class:`Marks`), so that the stamp
is no node of the graph; a kernel of one thread stamps the rest.
"""

# mypy: disable-error-code="valid-type,no-untyped-def,empty-body"

from __future__ import annotations

from typing import Any

import warp as wp

from saccade.kernels.launch import recorded

READ_TIMER = """
#if defined(__CUDA_ARCH__)
    unsigned long long now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now) : : "memory");
    return (wp::uint64)now;
#else
    timer.data[0] += 1;
    return timer.data[0];
#endif
"""

LEADS_BLOCK = """
#if defined(__CUDA_ARCH__)
    return threadIdx.x == 0;
#else
    return true;
#endif
"""


RAISE = """
#if defined(__CUDA_ARCH__)
    atomicMax((unsigned long long *)&times.data[slot], (unsigned long long)time);
#else
    if (times.data[slot] < time)
        times.data[slot] = time;
#endif
"""
"""Warp's own ``atomic_max`` knows no 64-bit integers in the oldest releases."""


@wp.func_native(READ_TIMER)
def _read_timer(timer: wp.array(dtype=wp.uint64)) -> wp.uint64: ...


@wp.func_native(LEADS_BLOCK)
def _leads_block() -> bool: ...


@wp.func_native(RAISE)
def _raise_to(times: wp.array(dtype=wp.uint64), slot: int, time: wp.uint64): ...


@wp.struct
class Marks:
    """Which stamps a kernel takes of itself: slots, -1 = none."""

    first: wp.int32
    """Written by the first thread as the kernel begins: all work before it on the stream has ended."""
    last: wp.int32
    """Raised by every block as it ends, so that the last one's time stays; the launch of the results takes it."""
    times: wp.array(dtype=wp.uint64)
    """Times [ns] by slot, which the host reads."""
    ends: wp.array(dtype=wp.uint64)
    """Times [ns] by slot of what ends in many blocks, in the device's own memory; 0 = none."""
    timer: wp.array(dtype=wp.uint64)
    """See :func:`new_timer`."""


@wp.func
def mark_first(marks: Marks, thread: int):
    """Stamps the beginning; ``thread`` is 0 for the first thread of the launch only."""
    if marks.first >= 0:
        if thread == 0:
            marks.times[marks.first] = _read_timer(marks.timer)


@wp.func
def mark_last(marks: Marks):
    """Stamps the end; every thread calls it after its last store.

    The timer never runs backwards, so the greatest time of all blocks is that of the one that ended last: no block need
    know whether it is. One thread for each block speaks for its other warps, which end within its own time.
    """
    if marks.last >= 0:
        if _leads_block():
            _raise_to(marks.ends, marks.last, _read_timer(marks.timer))


@wp.kernel(enable_backward=False)
def _stamp(slot: int, stamps: wp.array(dtype=wp.uint64), timer: wp.array(dtype=wp.uint64)):
    stamps[slot] = _read_timer(timer)


def new_timer(device: Any) -> wp.array:
    """Returns what stands in for the global timer on the CPU: a count of its readings, shape ``(1,)``, uint64."""
    return wp.zeros(1, dtype=wp.uint64, device=device)


def unmarked() -> Marks:
    """Returns marks of a kernel that takes no stamps."""
    marks = Marks()
    marks.first = marks.last = -1
    return marks


def takes_marks(launch: wp.Launch) -> bool:
    """Returns whether a recorded launch is of a kernel that can stamp itself."""
    return any(argument.label == "marks" for argument in launch.kernel.adj.args)


def set_marks(launch: wp.Launch, marks: Marks) -> None:
    """Lets a recorded launch stamp itself; before it is captured."""
    launch.set_param_by_name("marks", marks)
    launch.saccade_keeps = (*getattr(launch, "saccade_keeps", ()), marks)  # the launch knows addresses only


def record_stamp(stamps: wp.array, slot: int, timer: wp.array | None = None) -> wp.Launch:
    """Returns a recorded launch that writes the GPU's global timer [ns] into ``stamps[slot]``.

    Work launched before it on the stream has finished by then, work launched after it has not begun. The timer is
    PTX's ``%globaltimer`` (PTX ISA, special registers); on the CPU there is none, and readings are counted instead.

    Args:
        stamps: Shape ``(slots,)``, uint64.
        slot: Which element is written.
        timer: From :func:`new_timer`; ``None`` = one of its own.
    """
    timer = new_timer(stamps.device) if timer is None else timer
    return recorded(_stamp, dim=1, inputs=[slot], outputs=[stamps, timer], device=stamps.device)
