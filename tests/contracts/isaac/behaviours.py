"""What the names of the interface do in the doubles: thin models around :class:`tests.contracts.isaac.world.World`."""

from __future__ import annotations

import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tests.contracts.isaac import behaviours_replicator, behaviours_ui, rtx


def _made(kind: type | str, world: Any, module: str = "", **state: Any) -> Any:
    """Returns an object of a class of the double that users do not construct."""
    import importlib

    gated = getattr(importlib.import_module(module), kind) if isinstance(kind, str) else kind
    made = gated.__new__(gated)
    made._world = world
    for name, value in state.items():
        setattr(made, f"_{name}", value)
    return made


# -- carb ------------------------------------------------------------------------------------------------------------


class _Carb:
    def log_info(world, msg):
        world.log_lines.append(("info", msg))

    def log_warn(world, msg):
        world.log_lines.append(("warn", msg))

    def log_error(world, msg):
        world.log_lines.append(("error", msg))

    def log_verbose(world, msg):
        world.log_lines.append(("verbose", msg))


class _ISettings:
    def get(self, path):
        return self._world.settings.get(path)

    def set(self, path, value):
        self._world.settings[path] = value

    def set_default(self, path, value):
        self._world.settings.setdefault(path, value)

    def get_as_bool(self, path):
        return bool(self._world.settings.get(path))

    def get_as_int(self, path):
        return int(self._world.settings.get(path) or 0)

    def get_as_float(self, path):
        return float(self._world.settings.get(path) or 0.0)

    def get_as_string(self, path):
        value = self._world.settings.get(path)
        return "" if value is None else str(value)

    def set_bool(self, path, value):
        self._world.settings[path] = bool(value)

    def set_string(self, path, value):
        self._world.settings[path] = str(value)


class _EventDispatcher:
    def observe_event(self, *, event_name, on_event, order=0, filter=None, observer_name=""):
        entry = (event_name, order, on_event)
        self._world.observers.append(entry)
        return _made("ObserverGuard", self._world, "carb.eventdispatcher", entry=entry)


class _ObserverGuard:
    """Keeps the subscription as long as it lives."""

    def _end(self):
        if self._entry in self._world.observers:
            self._world.observers.remove(self._entry)

    def reset(self):
        self._end()

    def __del__(self):
        if "_entry" in self.__dict__:
            self._end()


# -- omni.kit, omni.usd, omni.timeline ---------------------------------------------------------------------------------


class _ExtensionManager:
    def set_extension_enabled_immediate(self, extension_id, enabled):
        name = extension_id.split("-")[0]
        (self._world.extensions.add if enabled else self._world.extensions.discard)(name)
        return True

    def is_extension_enabled(self, ext_name):
        return ext_name in self._world.extensions and ext_name not in self._world.behaviour.dead_extensions

    def get_enabled_extension_id(self, ext_name):
        return f"{ext_name}-1.0.0" if ext_name in self._world.extensions else None

    def get_extension_path(self, ext_id):
        return f"/isaac-sim/exts/{ext_id.split('-')[0]}"

    def add_path(self, path, type=None):
        self._world.settings.setdefault("/app/exts/folders", []).append(path)


class _IApp:
    def update(self):
        self._world.update()

    def get_extension_manager(self):
        return _made("ExtensionManager", self._world, "omni.ext")

    def get_kit_version(self):
        return "107.3" if self._world.major < 6 else "110.1"

    def is_running(self):
        return self._world.ended is None

    def get_update_number(self):
        return self._world.updates

    def post_quit(self, return_code=0):
        self._world.events.append(f"quit {return_code}")

    async def next_update_async(self):
        await self._world.next_update()


class _UsdContext:
    def open_stage(self, url, on_finish_fn=None, load_set=None):
        return self._world.open_stage(url)

    def get_stage(self):
        return self._world.stage

    def get_stage_url(self):
        return str(self._world.stage_path or "")

    def get_stage_loading_status(self):
        return ("", 0, 0) if not self._world.loading else ("loading", 0, self._world.loading)

    def close_stage(self, on_finish_fn=None):
        self._world.close_stage()
        return True

    def stage_event_name(self, event):
        return {"OPENED": "stage opened"}.get(event.name, f"stage {event.name}")

    def stage_rendering_event_name(self, event, immediate=False):
        return "new frame"


class _Timeline:
    def play(self):
        self._world.pending = True

    def stop(self):
        self._world.pending = False

    def pause(self):
        self._world.pause()

    def commit(self):
        self._world.commit()

    def is_playing(self):
        return self._world.playing

    def is_stopped(self):
        return not self._world.playing

    def get_current_time(self):
        return self._world.time

    def set_end_time(self, seconds):
        self._world.end_time = seconds

    def get_end_time(self):
        return self._world.end_time

    def get_time_codes_per_seconds(self):
        return 1.0 / self._world.rendering_dt

    def set_time_codes_per_second(self, rate):
        self._world.set_rendering_dt(1.0 / rate)

    def set_looping(self, value):
        self._world.looping = bool(value)


class _LoopRunner:
    def set_manual_step_size(self, seconds):
        self._world.manual_dt = seconds

    def set_manual_mode(self, on):
        self._world.events.append(f"manual mode {on}")


def _execute(world, name, **kwargs):
    entry = world.commands[name]
    world.check_arguments(entry, (), kwargs)
    if name != "IsaacSensorCreateRtxLidar":
        raise NotImplementedError(name)
    parent = kwargs.get("parent") or ""
    prim = _lidar_prim(world, f"{parent}/{kwargs['path'].lstrip('/')}")
    _placed(prim, kwargs["translation"], kwargs["orientation"])
    prim.SetCustomDataByKey("aux", kwargs.get("omni:sensor:Core:auxOutputType", "NONE"))
    return True, prim


class _LidarRtx:
    @staticmethod
    def decode_stable_id_mapping(world, stable_id_mapping_raw):
        if not isinstance(stable_id_mapping_raw, bytes):
            raise TypeError(f"the map is taken as bytes, not {type(stable_id_mapping_raw).__name__}")
        return rtx.parse_stable_id_map(np.frombuffer(stable_id_mapping_raw, dtype=np.uint8))


def _lidar_prim(world: Any, path: str) -> Any:
    """Its type is not registered outside Isaac Sim, where it would have no place: a mark stands for it."""
    prim = world.stage.DefinePrim(path, "Xform")
    prim.SetCustomDataByKey("double", "OmniLidar")
    return prim


def _placed(prim: Any, translation: Any, orientation: Any) -> None:
    from pxr import Gf, UsdGeom

    xform = UsdGeom.Xformable(prim)
    xform.ClearXformOpOrder()
    xform.AddTranslateOp().Set(Gf.Vec3d(*(float(v) for v in translation)))
    xform.AddOrientOp(UsdGeom.XformOp.PrecisionDouble).Set(orientation)


# -- isaacsim.core -----------------------------------------------------------------------------------------------------


def _register(world, callback, event, order=0, name=None, **kwargs):
    """Bound methods are held weakly."""
    if hasattr(callback, "__self__"):
        reference = weakref.WeakMethod(callback)

        def call(*args):
            method = reference()
            if method is not None:
                method(*args)
    else:
        call = callback
    uid = max(world.physics_callbacks, default=-1) + 1
    world.physics_callbacks[uid] = (event.name, order, call)
    return uid


class _SimulationManager:
    def get_simulation_time(cls):
        return cls._world.simulation_time

    def get_num_physics_steps(cls):
        return cls._world.physics_steps

    def get_physics_dt(cls, physics_scene=None):
        return cls._world.physics_dt

    def register_callback(cls, callback, event, order=0, name=None, **kwargs):
        return _register(cls._world, callback, event, order, name, **kwargs)

    def deregister_callback(cls, *args, callback_id=None, uid=None):
        # Its name is another in 5.x and in 6.x.
        cls._world.physics_callbacks.pop(next(v for v in (*args, callback_id, uid) if v is not None), None)
        return True

    def setup_simulation(cls, dt=None, device=None):
        if dt is not None:
            cls._world.physics_dt = dt

    def set_physics_dt(cls, dt=1 / 60, physics_scene=None):
        cls._world.physics_dt = dt

    def initialize_physics(cls):
        cls._world.pending = True
        cls._world.commit()


class _RenderingManager:
    def set_dt(cls, dt):
        cls._world.set_rendering_dt(dt)

    def get_dt(cls):
        return cls._world.rendering_dt


class _SimulationContext:
    def __init__(self, physics_dt=None, rendering_dt=None, **kwargs):
        world = self._world
        if world.stage is None:
            raise RuntimeError("there is no stage")
        world.physics_dt = physics_dt or 1 / 60
        world.set_rendering_dt(rendering_dt or 1 / 60)

    def play(self):
        self._world.pending = True
        self._world.update()

    def stop(self):
        self._world.pending = False
        self._world.update()

    def is_playing(self):
        return self._world.playing

    def initialize_physics(self):
        self._world.pending = True
        self._world.commit()

    def step(self, render=True, update_fabric=False):
        if render:
            self._world.update()
        elif self._world.playing:
            self._world.step_physics(self._world.physics_dt)

    def get_physics_dt(self):
        return self._world.physics_dt

    def get_rendering_dt(self):
        return self._world.rendering_dt

    def clear_instance(cls):
        cls._world.events.append("simulation context cleared")


class _Articulation:
    """``isaacsim.core.prims``: without initialize() its calls warn and do nothing."""

    def __init__(self, prim_paths_expr, **kwargs):
        self._path, self._initialized = prim_paths_expr, False

    def initialize(self, physics_sim_view=None):
        self._initialized = self._world.playing and self._world.physics is not None

    def _physics(self):
        if not self._initialized:
            self._world.log_lines.append(("warn", "Articulation needs to be initialized."))
            return None
        return self._world.physics

    dof_names = property(lambda self: self._physics() and list(self._physics().dof_names))

    def set_world_poses(self, positions=None, orientations=None, indices=None, usd=True):
        if physics := self._physics():
            physics.set_root_pose(positions[0], orientations[0])

    def set_velocities(self, velocities=None, indices=None):
        if physics := self._physics():
            physics.set_root_velocity(velocities[0][:3], velocities[0][3:])

    def set_joint_position_targets(self, positions, indices=None, joint_indices=None, joint_names=None):
        if physics := self._physics():
            physics.set_targets(positions[0], joint_indices)


class _ExperimentalArticulation:
    """``isaacsim.core.experimental.prims``: what needs the tensor interface asserts that it is there."""

    def __init__(self, paths, **kwargs):
        self._path = paths

    def _physics(self):
        assert self._world.playing and self._world.physics is not None, "physics tensor entity not initialized"
        return self._world.physics

    dof_names = property(lambda self: list(self._physics().dof_names))

    def set_world_poses(self, positions=None, orientations=None, *, indices=None):
        self._physics().set_root_pose(positions[0], orientations[0])

    def set_velocities(self, linear_velocities=None, angular_velocities=None, *, indices=None):
        self._physics().set_root_velocity(linear_velocities[0], angular_velocities[0])

    def set_dof_position_targets(self, positions, *, indices=None, dof_indices=None):
        self._physics().set_targets(positions[0], dof_indices)


class _Lidar:
    """``isaacsim.sensors.experimental.rtx.Lidar``: makes the prim where there is none."""

    def __init__(self, path, *, translations=None, orientations=None, **kwargs):
        from pxr import Gf

        prim = _lidar_prim(self._world, path)
        w, x, y, z = (float(value) for value in orientations[0])
        _placed(prim, translations[0], Gf.Quatd(w, x, y, z))
        self._path = path

    def create(world, path, *, config=None, usd_path=None, variant=None, **kwargs):
        from isaacsim.sensors.experimental.rtx import Lidar

        return Lidar(path, **{k: v for k, v in kwargs.items() if v is not None})

    paths = property(lambda self: [self._path])


class _PhysxSimulation:
    """``omni.physx``: the contacts of the step, to be asked for after it."""

    def get_contact_report(self):
        return _headers(self._world, self._world.contact_headers), []


class _PhysicsSimulation:
    """``omni.physics.core``: the contacts of each step, told to who listens."""

    def subscribe_physics_contact_report_events(self, function):
        world = self._world

        def listener(headers, data, anchors):
            function(_headers(world, headers), data, anchors)

        world.contact_listeners.append(listener)
        return _Subscription(world.contact_listeners, listener)


class _Subscription:
    """Ends when it is dropped."""

    def __init__(self, listeners, listener):
        self._listeners, self._listener = listeners, listener

    def unsubscribe(self):
        if self._listener in self._listeners:
            self._listeners.remove(self._listener)

    def __del__(self):
        self.unsubscribe()


def _headers(world: Any, onsets: Any) -> list[Any]:
    return [
        SimpleNamespace(
            type=SimpleNamespace(name="CONTACT_FOUND"),
            collider0=_number(world, onset.body),
            collider1=_number(world, onset.other),
        )
        for onset in onsets
    ]


def _number(world: Any, path: str) -> int:
    known = world.__dict__.setdefault("path_numbers", {})
    return known.setdefault(path, len(known) + 1)


def _path(world, number):
    from pxr import Sdf

    return Sdf.Path(next(path for path, known in world.path_numbers.items() if known == number))


class _SimulationApp:
    def __init__(self, launch_config=None, experience=""):
        world, config = self._world, launch_config or {}
        if world.started:
            raise RuntimeError("SimulationApp was made twice")
        world.started = True
        world.launch = (dict(config), experience)
        if "zero_delay" in str(experience):
            world.settings["/app/hydraEngine/waitIdle"] = True
        world.settings["/renderer/multiGpu/enabled"] = bool(config.get("multi_gpu", True))
        for argument in config.get("extra_args", ()):
            key, _, value = argument.removeprefix("--").partition("=")
            world.settings[key] = {"true": True, "false": False}.get(value, value)

    def update(self):
        self._world.update()

    def is_running(self):
        return self._world.ended is None

    def is_exiting(self):
        return self._world.ended is not None

    def set_setting(self, setting, value):
        self._world.settings[setting] = value

    def close(self, wait_for_replicator=True, skip_cleanup=False, exit_code=0):
        """Does not return: the process ends with 0 in 5.x whatever happened, with ``exit_code`` in 6.x."""
        self._world.events.append("close")
        self._world.end_process(int(exit_code) if self._world.major >= 6 else 0)


def _parse_ids(world, obj_ids):
    words = {"uint8": 16, "uint32": 4, "uint64": 2}[obj_ids.dtype.name]
    return [int.from_bytes(group.tobytes(), "little") for group in obj_ids.reshape(-1, words)]


def _open_in(world, usd_path):
    return world.open_stage(usd_path)


def _enable(world, name, *, enabled=True):
    (world.extensions.add if enabled else world.extensions.discard)(name)
    return True


def _update_app(world, *, steps=1, callback=None):
    for step in range(steps):
        world.update()
        if callback is not None and callback(step, steps) is False:
            break


def _play(world, *, commit=True):
    world.pending = True
    if commit:
        world.commit()


def _stop(world, *, commit=True):
    world.pending = False
    if commit:
        world.commit()


_STAGE_TOOLS = {
    "get_current_stage": lambda world, **_: world.stage,
    "is_stage_loading": lambda world: bool(world.loading),
}
MODELS: dict[str, Any] = {
    "carb": _Carb,
    "carb.settings": SimpleNamespace(
        get_settings=lambda world: _made("ISettings", world, "carb.settings"), ISettings=_ISettings
    ),
    "carb.eventdispatcher": SimpleNamespace(
        get_eventdispatcher=lambda world: _made("IEventDispatcher", world, "carb.eventdispatcher"),
        IEventDispatcher=_EventDispatcher,
        ObserverGuard=_ObserverGuard,
    ),
    "omni.ext": SimpleNamespace(ExtensionManager=_ExtensionManager, IExt=object),
    "omni.kit.app": SimpleNamespace(get_app=lambda world: _made("IApp", world, "omni.kit.app"), IApp=_IApp),
    "omni.kit.commands": SimpleNamespace(execute=_execute),
    "omni.usd": SimpleNamespace(
        get_context=lambda world, name="": _made("UsdContext", world, "omni.usd"), UsdContext=_UsdContext
    ),
    "omni.timeline": SimpleNamespace(
        get_timeline_interface=lambda world: _made("ITimeline", world, "omni.timeline"), ITimeline=_Timeline
    ),
    "omni.kit.loop._loop": SimpleNamespace(
        acquire_loop_interface=lambda world: _made("LoopRunner", world, "omni.kit.loop._loop"), LoopRunner=_LoopRunner
    ),
    "isaacsim.core.version": SimpleNamespace(
        get_version=lambda world: (f"{world.version}.0", "", *world.version.split("."), "0", "", "")
    ),
    "isaacsim.core.utils.stage": SimpleNamespace(open_stage=_open_in, **_STAGE_TOOLS),
    "isaacsim.core.experimental.utils.stage": SimpleNamespace(
        open_stage=lambda world, usd_path: (world.open_stage(usd_path), world.stage), **_STAGE_TOOLS
    ),
    "isaacsim.core.experimental.utils.app": SimpleNamespace(
        enable_extension=_enable,
        update_app=_update_app,
        play=_play,
        stop=_stop,
        is_playing=lambda world: world.playing,
        is_extension_enabled=lambda world, name: name in world.extensions,
    ),
    "isaacsim.core.simulation_manager": SimpleNamespace(SimulationManager=_SimulationManager),
    "isaacsim.core.rendering_manager": SimpleNamespace(RenderingManager=_RenderingManager),
    "isaacsim.core.api": SimpleNamespace(SimulationContext=_SimulationContext),
    "isaacsim.core.prims": SimpleNamespace(Articulation=_Articulation),
    "isaacsim.core.experimental.prims": SimpleNamespace(Articulation=_ExperimentalArticulation),
    "isaacsim.sensors.rtx": SimpleNamespace(LidarRtx=_LidarRtx),
    "isaacsim.sensors.experimental.rtx": SimpleNamespace(
        Lidar=_Lidar,
        parse_generic_model_output_data=lambda world, data: rtx.parse_gmo(data, aliases=world.version == "6.0"),
        parse_stable_id_map_data=lambda world, data: rtx.parse_stable_id_map(data),
        parse_object_ids=_parse_ids,
    ),
    "omni.physx": SimpleNamespace(
        get_physx_simulation_interface=lambda world: _made("PhysxSimulation", world, "omni.physx"),
        PhysxSimulation=_PhysxSimulation,
    ),
    "omni.physics.core": SimpleNamespace(
        get_physics_simulation_interface=lambda world: _made("PhysicsSimulation", world, "omni.physics.core"),
        PhysicsSimulation=_PhysicsSimulation,
    ),
    "pxr.PhysicsSchemaTools": SimpleNamespace(intToSdfPath=_path),
    "isaacsim.simulation_app": SimpleNamespace(SimulationApp=_SimulationApp),
    "isaacsim.storage.native": SimpleNamespace(get_assets_root_path=lambda world, **_: str(Path("/isaac-assets"))),
    **behaviours_replicator.MODELS,
    **behaviours_ui.MODELS,
}
"""Models by module; a module's functions get the world first."""
