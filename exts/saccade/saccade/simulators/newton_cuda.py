"""Uploads prescribed joint coordinates and targets to a Newton model on CUDA."""

# mypy: disable-error-code="valid-type"

from __future__ import annotations

from typing import Any

import numpy as np
import warp as wp

from saccade.simulators.newton_truth import HostArray


class CoordinateUpload:
    """Pinned host copies of coordinates and targets, and the kernel that writes the prescribed ones.

    Only coordinates of kinematic bodies are prescribed; those of all other joints belong to the solver. What one step
    of the loop needs for all its physics steps lies side by side and is uploaded in three copies.

    Args:
        model: The finalized model.
        control: Its control, whose joint targets are uploaded whole.
        slots: Physics steps of one step of the loop.
    """

    def __init__(self, model: Any, control: Any, *, slots: int):
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
        self.q, self.qd = model.joint_q.numpy().copy(), model.joint_qd.numpy().copy()
        """What the host prescribes now; :meth:`stage` keeps it."""
        self.targets = control.joint_target_q.numpy().copy()
        self._q, self._qd, self._targets = (
            HostArray(np.repeat(values[None], slots, axis=0), wp.float32, device)
            for values in (self.q, self.qd, self.targets)
        )
        self._rows = [[array.array[slot] for array in (self._q, self._qd, self._targets)] for slot in range(slots)]
        self._control = control

    def stage(self, slot: int) -> None:
        """Keeps what the host prescribes now for physics step ``slot``; the last upload must have arrived."""
        self._q.host[slot] = self.q
        self._qd.host[slot] = self.qd
        self._targets.host[slot] = self.targets

    def upload(self) -> None:
        """Launches the copies of all slots to the device."""
        for array in (self._q, self._qd, self._targets):
            array.push()

    def write(self, slot: int, state: Any, *, everything: bool) -> None:
        """Launches the writing of a slot to ``state`` and the control."""
        q, qd, targets = self._rows[slot]
        wp.copy(self._control.joint_target_q, targets)
        for mask, source, target in ((self._mask_q, q, state.joint_q), (self._mask_qd, qd, state.joint_qd)):
            wp.launch(
                _write_prescribed,
                dim=source.shape[0],
                inputs=[mask, source, int(everything)],
                outputs=[target],
                device=self._device,
            )

    def wait(self) -> None:
        """Waits until everything that was launched has arrived."""
        wp.synchronize_stream(self._device.stream)


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
