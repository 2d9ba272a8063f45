"""Contacts between the humanoid and anything but the floor, found in MuJoCo's contact list."""

# mypy: disable-error-code="valid-type"

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import warp as wp

from saccade.frame import FLOOR, Contact
from saccade.simulators.newton_truth import HostArray

if TYPE_CHECKING:
    import newton

RELEASE_TIME = 0.3
"""A contact that was lost for less than this [s] is still the same contact."""


class ContactWatch:
    """Reports when the humanoid starts to touch something.

    Args:
        model: The finalized model.
        solver: Its MuJoCo solver, on the CPU or on CUDA.
        own_shapes: 1 for the humanoid's shapes, by shape.
        classes: Class index by shape.
        objects: Path of the thing that a shape belongs to, by shape; onsets are per thing.
    """

    def __init__(
        self,
        model: newton.Model,
        solver: Any,
        *,
        own_shapes: np.ndarray,
        classes: np.ndarray,
        objects: Sequence[str],
    ):
        self._names = list(dict.fromkeys(objects))
        index = {name: i for i, name in enumerate(self._names)}
        # Kind of a shape: 0 does not count, 1 the humanoid's own, 2 + k the thing k.
        kind = np.array([2 + index[name] for name in objects], dtype=np.int32)
        kind[classes == FLOOR] = 0
        kind[own_shapes != 0] = 1
        self._labels = list(model.shape_label)
        self._last_touch = [-1e9] * len(self._names)
        self._on_cpu = bool(solver.use_mujoco_cpu)
        self._solver = solver
        self.observables: Any = None
        self.contacts: Any = None
        device = model.device
        if self._on_cpu:
            # MuJoCo's geoms are numbered otherwise than Newton's shapes.
            self._shape_of_geom = solver.mjc_geom_to_newton_shape.numpy()[0].copy()
            self._kind_of_geom = [int(kind[s]) if s >= 0 else 0 for s in self._shape_of_geom]
        else:
            import newton

            self._touched_by = HostArray(np.full(len(self._names), -1, dtype=np.int32), wp.int32, device)
            self._kind = wp.array(kind, dtype=wp.int32, device=device)
            kinds = type(solver).ObservableKind
            self.contacts = newton.Contacts(solver.get_max_contact_count(), 0, device=device)
            self.observables = solver.observables({kinds.CONTACT_F}, contacts=self.contacts)

    def observe(self, sim_time: float, onsets: list[Contact]) -> None:
        """Appends the contacts that began since the last call to ``onsets``; called after every physics step."""
        if self._on_cpu:
            data = self._solver.mj_data
            count = data.ncon
            if not count:
                return
            pairs = data.contact.geom
            distances = None
            kinds = self._kind_of_geom
            for i in range(count):
                first, second = pairs[i]
                a, b = kinds[first], kinds[second]
                if (a == 1) == (b == 1) or a == 0 or b == 0:
                    continue
                if distances is None:
                    distances = data.contact.dist
                if distances[i] >= 0:
                    continue
                own, other = (first, b) if a == 1 else (second, a)
                self._touch(other - 2, int(self._shape_of_geom[own]), sim_time, onsets)
            return
        contacts = self.contacts
        wp.launch(
            _mark_touched,
            dim=contacts.rigid_contact_shape0.shape[0],
            inputs=[
                contacts.rigid_contact_count,
                contacts.rigid_contact_shape0,
                contacts.rigid_contact_shape1,
                self._kind,
            ],
            outputs=[self._touched_by.array],
            device=self._touched_by.array.device,
        )

    def collect(self, sim_time: float, onsets: list[Contact]) -> None:
        """Appends what CUDA found since the last call; called once per loop step, as it waits for the device."""
        if self._on_cpu:
            return
        self._touched_by.pull()
        host = self._touched_by.host
        for thing in range(len(self._names)):
            if host[thing] >= 0:
                self._touch(thing, int(host[thing]), sim_time, onsets)
        host.fill(-1)
        self._touched_by.push()

    def forget(self) -> None:
        """Forgets all contacts, for a humanoid that was put somewhere else."""
        for i in range(len(self._last_touch)):
            self._last_touch[i] = -1e9

    def _touch(self, thing: int, own_shape: int, sim_time: float, onsets: list[Contact]) -> None:
        if sim_time - self._last_touch[thing] > RELEASE_TIME:
            onsets.append(Contact(sim_time, self._labels[own_shape], self._names[thing]))
        self._last_touch[thing] = sim_time


@wp.kernel(enable_backward=False)
def _mark_touched(
    count: wp.array(dtype=wp.int32),
    shape0: wp.array(dtype=wp.int32),
    shape1: wp.array(dtype=wp.int32),
    kind: wp.array(dtype=wp.int32),
    touched_by: wp.array(dtype=wp.int32),
):
    i = wp.tid()
    if i >= count[0]:
        return
    a = shape0[i]
    b = shape1[i]
    if a < 0 or b < 0:
        return
    if kind[a] == 1 and kind[b] > 1:
        wp.atomic_max(touched_by, kind[b] - 2, a)
    if kind[b] == 1 and kind[a] > 1:
        wp.atomic_max(touched_by, kind[a] - 2, b)
