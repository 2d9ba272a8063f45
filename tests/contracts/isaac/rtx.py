"""The doubles' renderer: render products that ray-cast the same scene, and the annotators and writers on them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import warp as wp

from saccade.config import CameraConfig, LidarConfig
from saccade.frame import CLASSES
from saccade.scenes.mounts import sensor_mount

MAGIC = 0x4E474D4F
RING = 2
"""Linear buffers that take turns: what an annotator gave is overwritten after this many renderings."""

GPU_TIMES = ("ReferenceTime", "IsaacReadSimulationTime", "IsaacReadSystemTime")
CLASS_IDS = {f"{index + 2}": {"class": name} for index, name in enumerate(CLASSES[:5])}
ID_TO_LABELS = {"0": {"class": "BACKGROUND"}, "1": {"class": "UNLABELLED"}, **CLASS_IDS}


@dataclass(eq=False)
class Picture:
    """What one rendering saw."""

    number: int
    reference: tuple[int, int]
    times: tuple[float, float] | None
    """Simulation and system time; ``None`` = those of the moment of the read."""
    buffers: dict[str, Any]
    empty: bool


class Product:
    """A render product: one sensor prim, captured once per rendering."""

    def __init__(self, world: Any, camera: str, resolution: tuple[int, int], name: str | None) -> None:
        self.world, self.camera = world, camera
        self.width, self.height = int(resolution[0]), int(resolution[1])
        self.path = f"/Render/OmniverseKit/HydraTextures/{name or f'Replicator_{len(world.products):02d}'}"
        self.enabled, self.destroyed = True, False
        self.annotators: list[Any] = []
        self.writers: list[Any] = []
        self.number = -1
        self.waiting: list[Picture] = []
        """Rendered and not yet delivered."""
        self.newest: Picture | None = None
        self.ring: list[dict[str, wp.array]] = [{} for _ in range(RING)]
        self.sensor: Any = None
        world.products.append(self)

    def capture(self) -> None:
        """Renders the scene as it is now."""
        world, behaviour = self.world, self.world.behaviour
        self.number += 1
        empty = self.number < behaviour.empty_first_frames
        zero = not empty and self.number < behaviour.empty_first_frames + behaviour.zero_reference_frames
        reference = (0, 0) if zero else world.reference_time()
        times = None if zero else world.samples.get(reference)
        buffers = {} if empty else self._cast()
        self.waiting.append(Picture(self.number, reference, times, buffers, empty))

    def deliver(self, calls: int) -> None:
        """Hands what was rendered to annotators and writers: with waiting the newest, else with a lag of one."""
        behaviour = self.world.behaviour
        lagging = not self.world.waits_for_renderer or self.number < behaviour.startup_lag
        ready = list(self.waiting[:-1] if lagging else self.waiting)
        ready = ready[:calls] if lagging else ready
        held = [picture for picture in ready if picture.number in behaviour.late and picture.number == self.number]
        # What was held back comes after what is newer.
        ready = sorted((one for one in ready if one not in held), key=lambda one: one.number in behaviour.late)
        for picture in ready:
            self.waiting.remove(picture)
            for _ in range(2 if picture.number in behaviour.repeats else 1):
                self._hand_over(picture)

    def _hand_over(self, picture: Picture) -> None:
        slot = self.ring[picture.number % RING]
        for name, array in picture.buffers.items():
            kept = slot.get(name)
            if kept is None or kept.size < array.size or kept.dtype != array.dtype:
                slot[name] = kept = wp.empty(max(array.size, 1), dtype=array.dtype, device=array.device)
            if array.size:
                wp.copy(kept, array.flatten(), count=array.size)
        self.newest = picture
        for writer in list(self.writers):
            writer._deliver(self)

    def read(self, annotator: Any) -> Any:
        """Returns what an annotator gives for the newest picture: views on buffers that nobody owns."""
        picture = self.newest
        if annotator._name == "ReferenceTime":
            numerator, denominator = picture.reference if picture is not None else (0, 0)
            return {"referenceTimeNumerator": numerator, "referenceTimeDenominator": denominator}
        if annotator._name in GPU_TIMES:
            import time

            now = (self.world.simulation_time, time.time() + self.world.clock_offset)
            simulation, system = now if picture is None or picture.times is None else picture.times
            if annotator._name == "IsaacReadSystemTime":
                return {"systemTime": system}
            # Goes on over a stop where nobody asks for the other one: the node's default was turned round with 6.0.
            resets = annotator._inputs.get("resetOnStop", self.world.major >= 6)
            return {"simulationTime": simulation if resets else simulation + self.world.stopped_time}
        if picture is None or picture.empty:
            return wp.empty(0, dtype=wp.uint8, device=self._device(annotator))
        return self._view(annotator, picture)

    def _view(self, annotator: Any, picture: Picture) -> Any:
        slot = self.ring[picture.number % RING]

        def view(name: str, **how: Any) -> wp.array:
            return self._borrow(annotator, slot[name], picture.buffers[name].shape, **how)

        name = annotator._name
        if name in ("rgb", "LdrColor"):
            return view("rgba")
        if name == "distance_to_image_plane":
            return view("depth")
        if name == "semantic_segmentation":
            return {"data": view("ids"), "info": {"idToLabels": copy.deepcopy(ID_TO_LABELS)}}
        if name == "IsaacCreateRTXLidarScanBuffer":
            found = {"data": view("points"), "info": {"transform": picture.buffers["transform"].numpy()}}
            if annotator._inputs.get("outputIntensity"):
                found["intensity"] = view("intensity")
            if annotator._inputs.get("outputObjectId"):
                found["objectId"] = view("ids")
            return found
        if name in ("GenericModelOutput", "StableIdMap"):
            found = view("gmo" if name == "GenericModelOutput" else "map", host=True)
            return found.numpy() if annotator._asked is None else found
        raise NotImplementedError(f"the double's renderer has no annotator {name}")

    def _device(self, annotator: Any, *, host: bool = False) -> str:
        if annotator._device != "cuda" or host or annotator._name in self.world.behaviour.silent_cpu:
            return "cpu"
        return self.world.device

    def _borrow(self, annotator: Any, array: wp.array, shape: Any, *, host: bool = False) -> wp.array:
        device = self._device(annotator, host=host)
        if str(array.device) != device:
            array = array.to(device)
            annotator._copies.append(array)
        if annotator._copies_arrays:
            own = wp.clone(array)
            annotator._copies = [own]
            array = own
        # An address with a shape: nothing keeps the memory, and nothing says when it is used again.
        return wp.array(ptr=array.ptr, dtype=array.dtype, shape=tuple(shape), device=array.device)

    def _cast(self) -> dict[str, Any]:
        physics = self.world.physics
        with wp.ScopedDevice("cpu"):
            state = physics.refit()
            if self.sensor is None:
                self.sensor = self._made()
            sensor = self.sensor
            sensor.sense(state, max(self.number, 0))
        if sensor.kind == "lidar":
            prim = self.world.stage.GetPrimAtPath(self.camera)
            return _lidar_buffers(sensor, physics, self.world, str(prim.GetCustomDataByKey("aux") or "NONE"))
        labels = sensor.labels.numpy()
        ids = np.where(labels == len(CLASSES) - 1, 0, labels.astype(np.uint32) + 2).astype(np.uint32)
        depth = sensor.buffers["depth"].numpy().copy()
        depth[depth == 0] = np.inf
        rgba = sensor.buffers["color"].numpy().view(np.uint8).reshape(*labels.shape, 4)
        trap = min(self.width, self.height) < self.world.behaviour.wrong_size_below
        if trap and self.world.version in ("5.0", "5.1", "6.0"):
            rgba, depth, ids = (np.ascontiguousarray(image[::2, ::2]) for image in (rgba, depth, ids))
        device = self.world.device
        return {
            "rgba": wp.array(np.ascontiguousarray(rgba), dtype=wp.uint8, device=device),
            "depth": wp.array(depth, dtype=wp.float32, device=device),
            "ids": wp.array(ids, dtype=wp.uint32, device=device),
        }

    def _made(self) -> Any:
        from saccade.sensors.camera import CameraSensor
        from saccade.sensors.lidar import LidarSensor

        world, scene = self.world, self.world.physics.scene
        prim = world.stage.GetPrimAtPath(self.camera)
        if not prim:
            raise RuntimeError(f"the camera prim of {self.path} is gone: {self.camera}")
        lidar = prim.GetCustomDataByKey("double") == "OmniLidar"
        if lidar:
            config: Any = LidarConfig(kind="lidar", prim=self.camera, own_body_mask=False, range_min=0.05)
        else:
            config = CameraConfig(kind="camera", prim=self.camera, width=self.width, height=self.height)
        mount = sensor_mount(world.stage, "double", config, scene.bodies, root=scene.humanoid.path)
        classes = wp.array(scene.classes, dtype=wp.uint8, device="cpu")
        shared = {
            "body": mount.body,
            "offset": wp.transform(mount.offset[:3], mount.offset[3:]),
            "class_of_shape": classes,
            "seed": 0,
        }
        if lidar:
            own = wp.array(scene.own_shapes, dtype=wp.uint8, device="cpu")
            return LidarSensor("double", config, scene.model, own_shapes=own, **shared)
        return CameraSensor("double", config, scene.model, usd_camera=mount.camera, lighting=scene.lighting, **shared)


def _lidar_buffers(sensor: Any, physics: Any, world: Any, aux: str) -> dict[str, Any]:
    """Points in no order, as a rotating sensor emits them; nothing of what it saw is left out, its carrier neither."""
    ranges = sensor.clean_ranges.numpy()
    hit = ranges > 0
    points = sensor.buffers["points"].numpy()[hit]
    intensity = sensor.buffers["intensity"].numpy()[hit]
    shapes = sensor._bundle.shape_index.numpy().reshape(ranges.shape)[hit]
    order = np.random.default_rng(7).permutation(len(points))
    points, intensity, shapes = points[order], intensity[order], shapes[order]
    device = world.device
    transform = sensor.transform.numpy()[0]
    found = {
        "points": wp.array(points.astype(np.float32).reshape(-1, 3), dtype=wp.float32, device=device),
        "intensity": wp.array(intensity.astype(np.float32), dtype=wp.float32, device=device),
        "transform": SimpleNamespace(numpy=lambda: transform, size=0, dtype=wp.float32, device="cpu"),
    }
    stable = bool(world.settings.get("/rtx-transient/stableIds/enabled"))
    names = _stable_id_map(physics.scene.model.shape_label if stable else [])
    if world.major >= 6:
        found = {"gmo": _gmo(points, intensity, shapes), "map": names}
        product_number = sensor.__dict__.setdefault("_outputs", 0)
        sensor._outputs = product_number + 1
        if product_number < world.behaviour.bad_magic_frames:
            found["gmo"].numpy()[:4] = 0
    else:
        found.pop("transform")
        found["transform"] = wp.array(transform, dtype=wp.float32, device="cpu")
        found["map"] = names
        # One word for each return in 5.0, four in 5.1, and none where the prim does not ask for them.
        words = {"5.0": 1}.get(world.version, 4) if aux in ("EXTRA", "FULL") else 0
        ids = _object_ids(shapes)[:, :words]
        found["ids"] = wp.array(np.ascontiguousarray(ids).reshape(-1), dtype=wp.uint32, device=device)
    return found


def _object_ids(shapes: np.ndarray) -> np.ndarray:
    """Numbers of 128 bits, the least significant word first; the third word tells that all of them are read."""
    ids = np.zeros((len(shapes), 4), dtype="<u4")
    ids[:, 0], ids[:, 2] = shapes + 1, 7
    return ids


HEADER = np.dtype([("magic", "<u4"), ("count", "<u4")])


def _gmo(points: np.ndarray, intensity: np.ndarray, shapes: np.ndarray) -> wp.array:
    """A buffer of this module's own layout with the fields of a generic model output: degrees, degrees, metres."""
    flat = np.hypot(points[:, 0], points[:, 1])
    columns = [
        np.degrees(np.arctan2(points[:, 1], points[:, 0])),
        np.degrees(np.arctan2(points[:, 2], flat)),
        np.linalg.norm(points, axis=1),
        intensity,
    ]
    ids = _object_ids(shapes)
    header = np.array([(MAGIC, len(points))], dtype=HEADER)
    body = np.concatenate([np.asarray(column, dtype="<f4") for column in columns])
    data = header.tobytes() + body.tobytes() + ids.tobytes()
    return wp.array(np.frombuffer(data, dtype=np.uint8).copy(), dtype=wp.uint8, device="cpu")


def parse_gmo(data: Any, *, aliases: bool) -> SimpleNamespace:
    """Returns the fields; before 6.1 they alias the buffer, which the next output overwrites."""
    raw = data.numpy() if isinstance(data, wp.array) else np.asarray(data)
    if raw.size < HEADER.itemsize or raw[: HEADER.itemsize].view(HEADER)["magic"][0] != MAGIC:
        return SimpleNamespace(magicNumber=0, numElements=0)
    count = int(raw[: HEADER.itemsize].view(HEADER)["count"][0])
    start, size = HEADER.itemsize, 4 * count
    columns = [raw[start + i * size : start + (i + 1) * size].view("<f4") for i in range(4)]
    ids = raw[start + 4 * size : start + 4 * size + 16 * count].view("<u4").reshape(-1, 4)
    if not aliases:
        columns, ids = [column.copy() for column in columns], ids.copy()
    x, y, z, scalar = columns
    return SimpleNamespace(magicNumber=MAGIC, numElements=count, x=x, y=y, z=z, scalar=scalar, objId=ids)


def _stable_id_map(paths: list[str]) -> wp.array:
    """The layout that the map's parser documents: entries, names, the number of entries."""
    names = [path.encode() for path in paths]
    offset = 24 * len(names)
    entries = np.zeros((len(names), 6), dtype="<u4")
    for i, name in enumerate(names):
        entries[i] = (i + 1, 0, 7, 0, len(name), offset)
        offset += len(name)
    data = entries.tobytes() + b"".join(names) + len(names).to_bytes(4, "little")
    return wp.array(np.frombuffer(data, dtype=np.uint8).copy(), dtype=wp.uint8, device="cpu")


def parse_stable_id_map(data: Any) -> dict[int, str]:
    raw = (data.numpy() if isinstance(data, wp.array) else np.asarray(data)).tobytes()
    count = int.from_bytes(raw[-4:], "little")
    found = {}
    for entry in np.frombuffer(raw[: 24 * count], "<u4").reshape(-1, 6):
        key = int.from_bytes(entry[:4].tobytes(), "little")
        found[key] = raw[int(entry[5]) : int(entry[5]) + int(entry[4])].decode()
    return found
