"""Isaac Sim 5.0 and 5.1: ``isaacsim.core.api``, RTX LiDARs on the GPU; only loaded inside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import omni.kit.commands
from isaacsim.core.api import SimulationContext
from isaacsim.core.prims import Articulation
from isaacsim.core.simulation_manager import IsaacEvents, SimulationManager
from isaacsim.core.utils.stage import is_stage_loading, open_stage
from omni.physx import get_physx_simulation_interface
from pxr import Gf, PhysicsSchemaTools

from saccade.simulators.isaac_frames import array_and_info, host_bytes, is_empty, writer_value
from saccade.simulators.isaac_sensors import Request, Returns

SCAN = "IsaacCreateRTXLidarScanBuffer"
"""Gives whole rotations, as points in the sensor frame."""

NAMES = "StableIdMap"
"""Gives prim paths by object id, in host memory."""

EXTENSIONS = ("isaacsim.core.nodes", "isaacsim.sensors.rtx", "omni.replicator.core")

PhysicsFunction = Callable[[float], None]


class Adapter:
    """What 5.x calls what the simulator needs.

    Args:
        device: Of the run, ``"cpu"`` or ``"cuda:N"``.
    """

    lidar_on_host = False

    def __init__(self, device: str) -> None:
        self._device = device
        self._map = b""
        self._names: dict[int, str] = {}
        self._context: Any = None
        self._uids: list[Any] = []
        self._articulation: Any = None

    def open_stage(self, path: str) -> bool:
        """Opens a stage; a file that is missing is told by the returned flag only."""
        return bool(open_stage(path))

    def stage_is_loading(self) -> bool:
        """Whether the stage still loads."""
        return bool(is_stage_loading())

    def set_times(self, rendering: float, physics: float) -> None:
        """Sets the simulated times of one update and of one physics step [s]."""
        self._context = SimulationContext(
            physics_dt=physics, rendering_dt=rendering, stage_units_in_meters=1.0, set_defaults=False
        )

    def set_physics_time(self, physics: float) -> None:
        """Sets the simulated time of one physics step [s] without a simulation context, as in a window."""
        # It lacks its @classmethod in 5.0 and 5.1: the class has to be given.
        SimulationManager.set_physics_dt(SimulationManager, dt=physics)

    def times(self) -> float:
        """Returns the simulated time of one physics step [s], to be put back."""
        return float(SimulationManager.get_physics_dt())

    def restore_times(self, before: float) -> None:
        """Puts back what :meth:`times` returned."""
        self.set_physics_time(before)

    def close(self) -> None:
        """Lets go of what the times were set through."""
        if self._context is not None:
            SimulationContext.clear_instance()
            self._context = None
        self._articulation = None

    def simulation_time(self) -> float:
        """Simulation time [s] after the last physics step."""
        return float(SimulationManager.get_simulation_time())

    def physics_steps(self) -> int:
        """Physics steps so far."""
        return int(SimulationManager.get_num_physics_steps())

    def start_callbacks(self, before: PhysicsFunction, after: PhysicsFunction) -> None:
        """Calls both around every physics step with its time [s]; callbacks take ``(dt)`` here."""
        for function, event in ((before, IsaacEvents.PRE_PHYSICS_STEP), (after, IsaacEvents.POST_PHYSICS_STEP)):
            self._uids.append(SimulationManager.register_callback(function, event=event))

    def stop_callbacks(self) -> None:
        """Ends the calls."""
        for uid in self._uids:
            SimulationManager.deregister_callback(uid)
        self._uids.clear()

    def bind_articulation(self, path: str) -> list[str]:
        """Takes hold of the humanoid and returns the names of its degrees of freedom; while it plays."""
        self._articulation = Articulation(path)
        self._articulation.initialize()
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
        self._articulation.set_world_poses(positions=position, orientations=rotation)
        self._articulation.set_velocities(np.concatenate([linear, angular], axis=1))
        if len(dofs):
            self._articulation.set_joint_position_targets(targets, joint_indices=dofs)

    def start_contacts(self) -> None:
        """Nothing to do: contacts are asked for after each step."""

    def contacts(self) -> list[tuple[str, str]]:
        """Returns the pairs of colliders that began to touch in the last physics step."""
        headers, _ = get_physx_simulation_interface().get_contact_report()
        return [
            (str(PhysicsSchemaTools.intToSdfPath(one.collider0)), str(PhysicsSchemaTools.intToSdfPath(one.collider1)))
            for one in headers
            if str(getattr(one.type, "name", one.type)).endswith("CONTACT_FOUND")
        ]

    def stop_contacts(self) -> None:
        """Nothing to do."""

    def unregister_writer(self, name: str) -> None:
        """Nothing to do: no way was read in 5.x to take a writer out of the registry; the next one takes its place."""

    def create_lidar(
        self,
        parent: str,
        name: str,
        rate: float,
        translation: tuple[float, float, float],
        rotation: tuple[float, float, float, float],
    ) -> str:
        """Makes an RTX LiDAR prim below ``parent`` and returns its path; ``rotation`` is w, x, y, z."""
        w, x, y, z = rotation
        _, prim = omni.kit.commands.execute(
            "IsaacSensorCreateRtxLidar",
            path=f"/{name}",
            parent=parent or None,
            config=None,
            translation=Gf.Vec3d(*translation),
            orientation=Gf.Quatd(w, x, y, z),
            # Below EXTRA returns do not say what they hit.
            **{"omni:sensor:Core:scanRateBaseHz": rate, "omni:sensor:Core:auxOutputType": "EXTRA"},
        )
        return str(prim.GetPath())

    def lidar_requests(self, *, labels: bool) -> tuple[Request, ...]:
        """Returns the annotators to attach to a LiDAR's product; the map of what was hit is only there in 5.1."""
        device = "cuda" if self._device != "cpu" else "cpu"
        if not labels:
            return (Request(SCAN, (("outputIntensity", True),), device),)
        return (Request(SCAN, (("outputIntensity", True), ("outputObjectId", True)), device), Request(NAMES))

    def lidar_returns(self, data: Mapping[str, Any]) -> Returns | None:
        """Returns the points of a rotation, on the renderer's device; ``None`` before the first."""
        points, info = array_and_info(writer_value(data, SCAN))
        if is_empty(points):
            return None
        found = Returns(points=points, intensity=info.get("intensity"))
        ids = info.get("objectId")
        if not is_empty(ids):
            found.ids, found.names_of_ids = ids, self._names_of_things(data)
        return found

    def _names_of_things(self, data: Mapping[str, Any]) -> dict[int, str]:
        """Returns prim paths by object id; the same dictionary as long as the renderer's map is."""
        from isaacsim.sensors.rtx import LidarRtx

        raw, _ = array_and_info(writer_value(data, NAMES))
        found = b"" if is_empty(raw) else host_bytes(raw)
        if found != self._map:
            self._map = found
            self._names = LidarRtx.decode_stable_id_mapping(found) if found else {}
        return self._names
