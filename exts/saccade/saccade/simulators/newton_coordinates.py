"""Joint coordinates and targets of a Newton model as the host writes them."""

from __future__ import annotations

from typing import Any

from saccade.errors import SceneError


class Coordinates:
    """Host views of joint coordinates and targets; on the CPU they are the arrays themselves.

    On CUDA the host keeps what it prescribes and uploads it before each physics step; coordinates that physics
    computes live on the device and are not read back.
    """

    def __init__(self, model: Any, state: Any, following: Any, control: Any) -> None:
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

            self._upload = CoordinateUpload(model, control)
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

    def restore(self, model: Any) -> None:
        """Puts all coordinates back to where the scene has them."""
        self.q[:] = self._start_q
        self.qd[:] = self._start_qd

    def push(self, *, everything: bool = False) -> None:
        """Uploads what the host prescribes; ``everything`` also the coordinates that physics computes."""
        if not self._on_cpu:
            self._upload.push(self._states[0], everything=everything)
