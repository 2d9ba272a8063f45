"""Joint coordinates and targets of a Newton model as the host writes them."""

from __future__ import annotations

from typing import Any

from saccade.errors import SceneError


class Coordinates:
    """Host views of joint coordinates and targets; on the CPU they are the arrays themselves.

    On CUDA the host writes what it prescribes for each physics step of a loop step and keeps it with :meth:`stage`;
    all of it is uploaded at once. Coordinates that physics computes live on the device and are not read back.

    Args:
        model: The finalized model.
        state: The state that the next physics step starts from.
        following: The state that it writes.
        control: The model's control, whose joint targets are written.
        substeps: Physics steps of one step of the loop.
    """

    def __init__(self, model: Any, state: Any, following: Any, control: Any, *, substeps: int = 1) -> None:
        self._on_cpu = model.device.is_cpu
        if control.joint_target_q is None:
            raise SceneError("the scene has no joint: a humanoid needs joints between its links")
        self._states = [state, following]
        if self._on_cpu:
            self._q = [s.joint_q.numpy() for s in self._states]
            self._qd = [s.joint_qd.numpy() for s in self._states]
            self.q, self.qd = self._q[0], self._qd[0]
            self.targets = control.joint_target_q.numpy()
        else:
            from saccade.simulators.newton_cuda import CoordinateUpload

            self._upload = CoordinateUpload(model, control, slots=substeps)
            self.q, self.qd = self._upload.q, self._upload.qd
            self.targets = self._upload.targets
        self._start_q, self._start_qd = model.joint_q.numpy().copy(), model.joint_qd.numpy().copy()

    def swap(self) -> None:
        """Follows the exchange of the two states after a physics step."""
        self._states.reverse()
        if self._on_cpu:
            self._q.reverse()
            self._qd.reverse()
            self.q, self.qd = self._q[0], self._qd[0]

    def restore(self) -> None:
        """Puts all coordinates back to where the scene has them."""
        self.q[:] = self._start_q
        self.qd[:] = self._start_qd

    def stage(self, slot: int) -> None:
        """Keeps what the host prescribes for physics step ``slot`` of the next upload; on the CPU nothing is needed."""
        if not self._on_cpu:
            self._upload.stage(slot)

    def upload(self) -> None:
        """Launches the upload of all that was kept."""
        if not self._on_cpu:
            self._upload.upload()

    def prescribe(self, slot: int) -> None:
        """Launches the writing of what was kept for ``slot`` into the state that is stepped next."""
        if not self._on_cpu:
            self._upload.write(slot, self._states[0], everything=False)

    def push_everything(self) -> None:
        """Writes all coordinates, those that physics computes included, and waits until they have arrived."""
        if not self._on_cpu:
            self._upload.stage(0)
            self._upload.upload()
            self._upload.write(0, self._states[0], everything=True)
            self._upload.wait()
