"""Uploads prescribed joint coordinates and targets to a Newton model on CUDA."""

# mypy: disable-error-code="valid-type"

from __future__ import annotations

from typing import Any

import numpy as np
import warp as wp

from saccade.simulators.newton_truth import HostArray


class CoordinateUpload:
    """Pinned host copies of coordinates and targets, and the kernel that writes the prescribed ones.

    Only coordinates of kinematic bodies are prescribed; those of all other joints belong to the solver.

    Args:
        model: The finalized model.
        control: Its control, whose joint targets are uploaded whole.
    """

    def __init__(self, model: Any, control: Any):
        import newton

        flags, child = model.body_flags.numpy(), model.joint_child.numpy()
        q_start, qd_start = model.joint_q_start.numpy(), model.joint_qd_start.numpy()
        prescribed_q = np.zeros(model.joint_coord_count, dtype=np.uint8)
        prescribed_qd = np.zeros(model.joint_dof_count, dtype=np.uint8)
        for j in range(model.joint_count):
            if flags[child[j]] & int(newton.BodyFlags.KINEMATIC):
                prescribed_q[q_start[j] : q_start[j + 1]] = 1
                prescribed_qd[qd_start[j] : qd_start[j + 1]] = 1
        device = model.device
        self._device = device
        self._mask_q = wp.array(prescribed_q, dtype=wp.uint8, device=device)
        self._mask_qd = wp.array(prescribed_qd, dtype=wp.uint8, device=device)
        self._q = HostArray(model.joint_q.numpy(), wp.float32, device)
        self._qd = HostArray(model.joint_qd.numpy(), wp.float32, device)
        self._targets = HostArray(control.joint_target_q.numpy(), wp.float32, device)
        self._control = control
        self.q, self.qd = self._q.host, self._qd.host
        self.targets = self._targets.host

    def push(self, state: Any, *, everything: bool) -> None:
        """Uploads to ``state`` and the control; pinned memory is reused, so the last upload must have arrived."""
        wp.synchronize_stream(self._device.stream)
        for array in (self._q, self._qd, self._targets):
            array.push()
        wp.copy(self._control.joint_target_q, self._targets.array)
        for mask, source, target in (
            (self._mask_q, self._q.array, state.joint_q),
            (self._mask_qd, self._qd.array, state.joint_qd),
        ):
            wp.launch(
                _write_prescribed,
                dim=source.shape[0],
                inputs=[mask, source, int(everything)],
                outputs=[target],
                device=self._device,
            )


@wp.kernel(enable_backward=False)
def _write_prescribed(
    prescribed: wp.array(dtype=wp.uint8),
    source: wp.array(dtype=wp.float32),
    everything: wp.int32,
    target: wp.array(dtype=wp.float32),
):
    i = wp.tid()
    if everything != 0 or prescribed[i] != wp.uint8(0):
        target[i] = source[i]
