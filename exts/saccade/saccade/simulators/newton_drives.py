"""Position targets that make drives follow a moving target, instead of trailing behind it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import newton

    from saccade.scenes.gait import Joint

MAX_LEAD = 0.6
"""By how much a target may run ahead [rad]."""


NATURAL_FREQUENCY = 4.0
"""Least natural frequency of a gait joint on its drive [Hz]."""


def stiffen_drives(model: newton.Model, solver: Any, joints: Sequence[Joint]) -> None:
    """Raises the stiffness of drives that are too soft to carry a leg through a step, and damps them critically.

    Drives in scenes are made to balance and to give way; here the base is on rails, and the walk has to look as it
    is planned. A drive that is stiff enough, and every drive outside the gait, stays as authored.

    Args:
        model: The finalized model, whose drive gains are changed.
        solver: Its MuJoCo solver, which takes them over.
        joints: The joints of the gait.
    """
    import newton

    if not joints:
        return
    stiffness, damping = model.joint_target_ke.numpy().copy(), model.joint_target_kd.numpy().copy()
    effort = model.joint_effort_limit.numpy().copy()
    dof_of_newton = _mujoco_dofs(model, solver)
    pulse = 2.0 * math.pi * NATURAL_FREQUENCY
    for joint in joints:
        inertia = float(solver.mj_model.dof_M0[dof_of_newton[joint.dof]])
        if stiffness[joint.dof] < inertia * pulse**2:
            stiffness[joint.dof] = inertia * pulse**2
            damping[joint.dof] = 2.0 * inertia * pulse
            # Enough to follow a step; a limit keeps a leg that is stuck from pushing without end.
            effort[joint.dof] = max(effort[joint.dof], inertia * pulse**2 * 0.25)
    model.joint_target_ke.assign(stiffness)
    model.joint_target_kd.assign(damping)
    model.joint_effort_limit.assign(effort)
    solver.notify_model_changed(newton.ModelFlags.JOINT_DOF_PROPERTIES)


class DriveLead:
    """Computes by how much the targets of driven joints have to run ahead.

    A drive's torque is ``stiffness * (target - angle) - damping * rate``: on a moving target it trails by what
    damping and inertia take. The lead adds just that, so that the joints follow the gait through their own drives,
    within their own torque limits. Inertia is the mass matrix of the initial pose.

    Args:
        model: The finalized model.
        solver: Its MuJoCo solver.
        joints: The joints of the gait.
    """

    def __init__(self, model: newton.Model, solver: Any, joints: Sequence[Joint]):
        import mujoco

        stiffness, damping = model.joint_target_ke.numpy(), model.joint_target_kd.numpy()
        dof_of_newton = _mujoco_dofs(model, solver)
        size = solver.mj_model.nv
        mass = np.zeros((size, size))
        mujoco.mj_fullM(solver.mj_model, solver.mj_data, mass)
        self._damping = []
        self._rows: list[list[tuple[int, float]]] = []
        for joint in joints:
            gain = float(stiffness[joint.dof])
            row = dof_of_newton.get(joint.dof)
            self._damping.append(float(damping[joint.dof]) / gain if gain > 0 else 0.0)
            entries = []
            for k, other in enumerate(joints):
                column = dof_of_newton.get(other.dof)
                if gain > 0 and row is not None and column is not None and abs(mass[row, column]) > 1e-3:
                    entries.append((k, float(mass[row, column]) / gain))
            self._rows.append(entries)
        self._last = [0.0] * len(joints)
        self._acceleration = [0.0] * len(joints)
        self.lead = [0.0] * len(joints)
        """[rad], in the order of the joints."""

    def update(self, rates: Sequence[float], dt: float) -> None:
        """Computes :attr:`lead` from the targets' rates [rad/s]; with ``dt`` 0 everything is at rest."""
        if dt <= 0:
            for k in range(len(self.lead)):
                self._last[k] = self.lead[k] = 0.0
            return
        for k, rate in enumerate(rates):
            self._acceleration[k] = (rate - self._last[k]) / dt
            self._last[k] = rate
        for k, row in enumerate(self._rows):
            lead = self._damping[k] * rates[k]
            for other, share in row:
                lead += share * self._acceleration[other]
            self.lead[k] = min(max(lead, -MAX_LEAD), MAX_LEAD)


def _mujoco_dofs(model: newton.Model, solver: Any) -> dict[int, int]:
    """Returns MuJoCo's velocity index by Newton's, for joints with one degree of freedom."""
    starts, mujoco_starts = model.joint_qd_start.numpy(), solver.mj_qd_start.numpy()
    return {
        int(starts[j]): int(mujoco_starts[j])
        for j in range(model.joint_count)
        if starts[j + 1] - starts[j] == 1 and mujoco_starts[j] >= 0
    }
