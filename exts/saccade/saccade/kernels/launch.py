"""Recorded launches that keep alive what their kernels read and write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import warp as wp


def recorded(
    kernel: Any,
    dim: Any,
    inputs: Sequence[Any],
    outputs: Sequence[Any] = (),
    *,
    device: Any,
    keep: Any = None,
    block: int = 256,
) -> wp.Launch:
    """Returns a recorded launch of ``kernel``.

    Older Warps (1.7) keep only the addresses of the arguments: what was made for the launch alone would be gone
    before it runs.

    Args:
        kernel: Warp kernel.
        dim: Threads.
        inputs: Arguments.
        outputs: Arguments that are written, after the inputs.
        device: Warp device.
        keep: More that must live as long as the launch.
        block: Threads of a block.
    """
    launch = wp.launch(
        kernel,
        dim=dim,
        inputs=list(inputs),
        outputs=list(outputs),
        device=device,
        record_cmd=True,
        block_dim=block,
    )
    launch.saccade_keeps = (*inputs, *outputs, keep)
    return launch
