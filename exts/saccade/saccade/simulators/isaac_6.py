"""Isaac Sim 6.0 to 6.2: managers and experimental modules, RTX LiDARs in host memory; only loaded inside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import omni.replicator.core as rep
from isaacsim.core.experimental.prims import Articulation
from isaacsim.core.experimental.utils.stage import is_stage_loading, open_stage
from isaacsim.core.rendering_manager import RenderingManager
from isaacsim.core.simulation_manager import SimulationEvent, SimulationManager
from isaacsim.sensors.experimental.rtx import (
    Lidar,
    parse_generic_model_output_data,
    parse_object_ids,
    parse_stable_id_map_data,
)
from omni.physics.core import get_physics_simulation_interface
from pxr import PhysicsSchemaTools

from saccade.kernels.rtx import FOLD
from saccade.simulators.isaac_frames import array_and_info, is_empty, writer_value
from saccade.simulators.isaac_sensors import Request, Returns

OUTPUT, NAMES = "GenericModelOutput", "StableIdMap"

MAGIC = 0x4E474D4F
"""How a generic model output begins that is valid; the first ones are not."""

WHOLE = (1 << 96) - 1

EXTENSIONS = ("isaacsim.core.nodes", "isaacsim.sensors.experimental.rtx", "omni.replicator.core")

PhysicsFunction = Callable[[float], None]


class Adapter:
    """What 6.x calls what the simulator needs.

    Args:
        device: Of the run, ``"cpu"`` or ``"cuda:N"``.
    """

    lidar_on_host = True

    def __init__(self, device: str) -> None:
        self._uids: list[Any] = []
        self._articulation: Any = None
        self._lidars: list[Any] = []
        self._subscription: Any = None
        self._begun: list[tuple[str, str]] = []
        self._labels = True

    def open_stage(self, path: str) -> bool:
        """Opens a stage; a file that is missing is told by the returned flag only."""
        opened, _ = open_stage(path)
        return bool(opened)

    def stage_is_loading(self) -> bool:
        """Whether the stage still loads."""
        return bool(is_stage_loading())

    def set_times(self, rendering: float, physics: float) -> None:
        """Sets the simulated times of one update and of one physics step [s]."""
        SimulationManager.setup_simulation(dt=physics)
        RenderingManager.set_dt(rendering)

    def times(self) -> tuple[float, float]:
        """Returns the simulated times of one physics step and of one update [s], to be put back."""
        return float(SimulationManager.get_physics_dt()), float(RenderingManager.get_dt())

    def restore_times(self, before: tuple[float, float]) -> None:
        """Puts back what :meth:`times` returned."""
        physics, rendering = before
        self.set_times(rendering, physics)

    def close(self) -> None:
        """Lets go of the prims."""
        self._lidars.clear()
        self._articulation = None

    def simulation_time(self) -> float:
        """Simulation time [s] after the last physics step."""
        return float(SimulationManager.get_simulation_time())

    def physics_steps(self) -> int:
        """Physics steps so far."""
        return int(SimulationManager.get_num_physics_steps())

    def start_callbacks(self, before: PhysicsFunction, after: PhysicsFunction) -> None:
        """Calls both around every physics step with its time [s]; callbacks take ``(dt, context)`` here."""

        def without_context(function: PhysicsFunction) -> Callable[[float, Any], None]:
            return lambda dt, context: function(dt)

        for function, event in ((before, SimulationEvent.PHYSICS_PRE_STEP), (after, SimulationEvent.PHYSICS_POST_STEP)):
            self._uids.append(SimulationManager.register_callback(without_context(function), event))

    def stop_callbacks(self) -> None:
        """Ends the calls."""
        for uid in self._uids:
            SimulationManager.deregister_callback(uid)
        self._uids.clear()

    def bind_articulation(self, path: str) -> list[str]:
        """Takes hold of the humanoid and returns the names of its degrees of freedom; while it plays."""
        self._articulation = Articulation(path)
        return list(self._articulation.dof_names or ())

    def command(
        self,
        position: np.ndarray,
        rotation: np.ndarray,
        linear: np.ndarray,
        angular: np.ndarray,
        targets: np.ndarray,
        dofs: np.ndarray,
    ) -> None:
        """Sets the root's pose and velocity and the drives' targets for the physics step that begins."""
        self._articulation.set_world_poses(position, rotation)
        self._articulation.set_velocities(linear, angular)
        if len(dofs):
            self._articulation.set_dof_position_targets(targets, dof_indices=dofs)

    def start_contacts(self) -> None:
        """Listens to contacts; what it returns has to be kept, or it hears nothing."""
        self._subscription = get_physics_simulation_interface().subscribe_physics_contact_report_events(self._heard)

    def contacts(self) -> list[tuple[str, str]]:
        """Returns the pairs of colliders that began to touch since the last call."""
        begun, self._begun = self._begun, []
        return begun

    def stop_contacts(self) -> None:
        """Listens no more."""
        self._subscription = None

    def unregister_writer(self, name: str) -> None:
        """Takes a writer out of Replicator's registry, where its class would outlive the extension."""
        rep.WriterRegistry.unregister_writer(name)

    def create_lidar(
        self,
        parent: str,
        name: str,
        rate: float,
        translation: tuple[float, float, float],
        rotation: tuple[float, float, float, float],
    ) -> str:
        """Makes an RTX LiDAR prim below ``parent`` and returns its path; ``rotation`` is w, x, y, z."""
        lidar = Lidar(
            f"{parent}/{name}",
            accumulate_outputs=True,
            aux_output_level="FULL",
            tick_rate=rate,
            attributes={
                "omni:sensor:Core:scanRateBaseHz": rate,
                "omni:sensor:Core:elementsCoordsType": "SPHERICAL",
            },
            translations=np.array([translation]),
            orientations=np.array([rotation]),
        )
        self._lidars.append(lidar)
        return str(lidar.paths[0])

    def lidar_requests(self, *, labels: bool) -> tuple[Request, ...]:
        """Returns the annotators to attach to a LiDAR's product; both are on the host whatever is asked for."""
        self._labels = labels
        output, names = Request(OUTPUT, device="cpu"), Request(NAMES, device="cpu")
        return (output, names) if labels else (output,)

    def lidar_returns(self, data: Mapping[str, Any]) -> Returns | None:
        """Returns the angles of a rotation; ``None`` while the output is empty or its header is not valid."""
        output, _ = array_and_info(writer_value(data, OUTPUT))
        if is_empty(output):
            return None
        parsed = parse_generic_model_output_data(output)
        if parsed.magicNumber != MAGIC or not parsed.numElements:
            return None
        found = Returns(azimuth=parsed.x, elevation=parsed.y, range=parsed.z, strength=parsed.scalar)
        names, _ = array_and_info(writer_value(data, NAMES)) if self._labels else (None, {})
        known = {} if is_empty(names) else parse_stable_id_map_data(names)
        if known:
            ids = np.ascontiguousarray(parsed.objId).view(np.uint64).reshape(-1, 2)
            _, first, found.things = np.unique(
                ids[:, 0] ^ (ids[:, 1] * np.uint64(FOLD)), return_index=True, return_inverse=True
            )
            numbers = parse_object_ids(np.ascontiguousarray(ids[first]))
            # A part of a mesh has the number of the whole in its lower 96 bits, and often no name of its own.
            found.names = [known.get(number, known.get(number & WHOLE)) for number in numbers]
        return found

    def _heard(self, headers: Any, data: Any, anchors: Any) -> None:
        for one in headers:
            if str(getattr(one.type, "name", one.type)).endswith("CONTACT_FOUND"):
                first, second = (PhysicsSchemaTools.intToSdfPath(end) for end in (one.collider0, one.collider1))
                self._begun.append((str(first), str(second)))
