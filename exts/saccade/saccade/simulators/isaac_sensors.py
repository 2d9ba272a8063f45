"""Streams from Isaac Sim's sensors to buffers of ours: what one delivery of a writer becomes; no omni in here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import warp as wp

from saccade.config import CameraConfig, LidarConfig
from saccade.errors import ConfigurationError
from saccade.frame import BACKGROUND, OBSTACLE
from saccade.kernels import rtx
from saccade.simulators.isaac_frames import (
    Freshness,
    PinnedUpload,
    array_and_info,
    check_device,
    class_table,
    image_view,
    is_empty,
    packed_color,
    writer_value,
)

COLOR, DEPTH, LABELS = "rgb", "distance_to_image_plane", "semantic_segmentation"
"""Annotators of a camera. ``rgb`` is four channels, contiguous."""


NO_MAP = "the renderer delivered no map from object ids to prims (StableIdMap)"
"""Why returns have no labels although they were asked for."""

WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Request:
    """One annotator on a render product."""

    name: str
    init: tuple[tuple[str, Any], ...] = ()
    device: str | None = None
    """``"cuda"``, or ``None`` for values on the host."""


TIMES = (
    Request("ReferenceTime"),
    # Left to itself it goes on over a stop in 5.x, while the physics' own time starts again.
    Request("IsaacReadSimulationTime", (("resetOnStop", True),)),
    Request("IsaacReadSystemTime"),
)
"""Annotators that say which state a frame shows; attached beside every sensor."""


@dataclass(slots=True)
class Returns:
    """One LiDAR output: on the device as points, or on the host as angles."""

    points: Any = None
    """Device array in the sensor frame [m], shape ``(n, 3)``, float32."""
    intensity: Any = None
    """Device array 0..1, shape ``(n,)``, float32."""
    azimuth: Any = None
    """Host arrays, shape ``(n,)``: azimuth and elevation [degrees], range [m], intensity 0..1."""
    elevation: Any = None
    range: Any = None
    strength: Any = None
    things: Any = None
    """Place in ``names`` per return, shape ``(n,)``, int; ``None`` = not known."""
    names: Sequence[str | None] = ()
    """Prim paths; ``None`` for a thing without one."""
    ids: Any = None
    """Device array of the numbers of 128 bits that name the things, 16 bytes per return; ``None`` = not known."""
    names_of_ids: Mapping[int, str] | None = None
    """Prim paths by such a number; the same object as long as it is unchanged, ``None`` = not known."""


class Dialect(Protocol):
    """What differs between the releases' LiDARs: see the adapters."""

    lidar_on_host: bool

    def lidar_requests(self, *, labels: bool) -> tuple[Request, ...]:
        """Returns the annotators to attach, with those that tell what was hit where ``labels`` are to be had."""
        ...

    def lidar_returns(self, data: Mapping[str, Any]) -> Returns | None:
        """Returns what a delivery holds; ``None`` while there is nothing valid."""
        ...


@dataclass(slots=True)
class Residency:
    """Where the outputs of one sensor came from; written with the first frame."""

    outputs: dict[str, str] = field(default_factory=dict)
    """``"cuda:0, the renderer's memory"`` and the like by output."""
    upload: bool = False


class CameraStream:
    """Colour as it comes, depth and labels through one kernel each into buffers that stay.

    Args:
        name: Of the sensor.
        config: The camera.
        device: Of the run, ``"cpu"`` or ``"cuda:N"``.
        further: ``simulator.labels``.
        require_device: ``simulator.require_device``.

    Raises:
        ConfigurationError: An output that is not offered here.
    """

    kind = "camera"

    def __init__(
        self,
        name: str,
        config: CameraConfig,
        *,
        device: str,
        further: Mapping[str, str],
        require_device: bool,
    ) -> None:
        if "normals" in config.outputs:
            raise ConfigurationError(f"sensors.{name}.outputs: normals are not offered in Isaac Sim: leave them out")
        self.name, self.config = name, config
        self.freshness = Freshness()
        self.residency = Residency()
        self._device, self._further, self._require = device, further, require_device
        shape = (config.height, config.width)
        self._depth = wp.zeros(shape, dtype=wp.float32, device=device)
        self.labels = wp.full(shape, BACKGROUND, dtype=wp.uint8, device=device)
        """True class index per pixel, shape ``(height, width)``, uint8."""
        self._names: dict[Any, Any] | None = None
        self._table = wp.full(1, BACKGROUND, dtype=wp.uint8, device=device)
        self._held: Any = None
        """What colour is a view of; it is dropped, and may be used again, with the next frame."""
        self._buffers: dict[int, dict[str, wp.array]] = {}

    def requests(self) -> tuple[Request, ...]:
        """Returns the annotators to attach."""
        device = "cuda" if self._device != "cpu" else "cpu"
        wanted = [Request(COLOR, device=device), Request(LABELS, (("colorize", False),), device)]
        if "depth" in self.config.outputs:
            wanted.append(Request(DEPTH, device=device))
        return tuple(wanted)

    def take(self, data: Mapping[str, Any]) -> Mapping[str, wp.array] | None:
        """Returns the buffers of one delivery, or ``None`` while one of its outputs is still empty.

        Raises:
            ConfigurationError: A size, a layout or a device that cannot be used.
        """
        height, width = self.config.height, self.config.width
        color, _ = array_and_info(writer_value(data, COLOR))
        ids, info = array_and_info(writer_value(data, LABELS))
        depth = array_and_info(writer_value(data, DEPTH))[0] if "depth" in self.config.outputs else None
        if is_empty(color) or is_empty(ids) or ("depth" in self.config.outputs and is_empty(depth)):
            return None
        for what, array in (("colour", color), ("labels", ids), ("depth", depth)):
            if array is not None:
                check_device(self.name, what, array, self._device, require_device=self._require)
        packed = packed_color(self.name, color, height, width)
        self._held = color
        ids = image_view(self.name, "semantic_segmentation", ids, height, width, wp.uint32)
        self._learn(info.get("idToLabels") or {})
        rtx.classes_of_ids(ids, self._table, self.labels)
        if depth is not None:
            depth = image_view(self.name, "depth", depth, height, width, wp.float32)
            rtx.clean_depth(depth, self.config.max_distance, self._depth)
        if not self.residency.outputs:
            self.residency.outputs = {
                "color": f"{packed.device}, the renderer's memory",
                "labels": f"{ids.device}, converted there",
                **({"depth": f"{depth.device}, converted there"} if depth is not None else {}),
            }
        return self._mapping(packed)

    def facts(self) -> dict[str, Any]:
        """Returns what the record says about the stream."""
        return {"residency": dict(self.residency.outputs), "deliveries": self.freshness.counters.as_dict()}

    @property
    def upload_bytes(self) -> int:
        """Bytes per frame that are uploaded: none."""
        return 0

    def _mapping(self, color: wp.array) -> Mapping[str, wp.array]:
        """The renderer's buffers take turns: each has its own mapping, so that a graph for it is found again."""
        known = self._buffers.get(color.ptr)
        if known is None:
            every = {"color": color, "depth": self._depth, "labels": self.labels}
            known = self._buffers[color.ptr] = {name: every[name] for name in self.config.outputs}
            if len(self._buffers) > 64:
                self._buffers.pop(next(iter(self._buffers)))
        return known

    def _learn(self, names: Mapping[Any, Any]) -> None:
        if names != self._names:
            self._names = dict(names)
            self._table = wp.array(class_table(names, further=self._further), dtype=wp.uint8, device=self._device)


class LidarStream:
    """Returns in any order, from the device or through one declared upload, as the configured range image.

    Args:
        name: Of the sensor.
        config: The LiDAR.
        dialect: What differs between releases.
        device: Of the run.
        class_of: Class index by prim path; ``None`` where nothing labels it.
        own: The humanoid's cylinder in the sensor frame: x, y, radius, lowest, highest [m].
        require_device: ``simulator.require_device``.
        no_labels_reason: Why returns have no labels; empty = they have.

    Raises:
        ConfigurationError: The stream comes on the host, and that was forbidden.
    """

    kind = "lidar"

    def __init__(
        self,
        name: str,
        config: LidarConfig,
        dialect: Dialect,
        *,
        device: str,
        class_of: Any,
        own: tuple[float, float, float, float, float],
        require_device: bool,
        no_labels_reason: str = "",
    ) -> None:
        self.name, self.config = name, config
        self.freshness = Freshness()
        self.residency = Residency()
        self.no_labels_reason = no_labels_reason
        """Why the newest frame's returns have no labels; empty = they have."""
        self._wanted = not no_labels_reason
        self._dialect, self._device, self._require, self._class_of = dialect, device, require_device, class_of
        if dialect.lidar_on_host and require_device and device != "cpu":
            raise ConfigurationError(
                f"sensors.{name}: RTX LiDARs of this Isaac Sim leave their returns in host memory, and "
                f"simulator.require_device is set: leave it out to have a declared upload that is counted and timed, "
                f"or use Isaac Sim 5.x"
            )
        shape = (config.channels, config.columns)
        lowest, highest = (math.radians(angle) for angle in config.vertical_fov)
        self._limits = (lowest, highest, config.range_min, config.range_max)
        # Where labels tell the robot's own returns apart, nothing else has to.
        self._nobody = wp.zeros(5, dtype=wp.float32, device=device)
        self._own = wp.array(own, dtype=wp.float32, device=device) if config.own_body_mask else self._nobody
        self._cells = tuple(wp.zeros(shape, dtype=dtype, device=device) for dtype in (wp.float32, wp.int32))
        self._none = wp.zeros(0, dtype=wp.float32, device=device)
        self._no_classes = wp.zeros(0, dtype=wp.uint8, device=device)
        self._classes_of_returns = self._no_classes
        self._names_of_ids: Mapping[int, str] | None = None
        self._keys = wp.zeros(0, dtype=wp.uint64, device=device)
        self._class_of_key = self._no_classes
        self.labels = wp.full(shape, BACKGROUND, dtype=wp.uint8, device=device)
        """True class index per return, shape ``(channels, columns)``, uint8; all background without labels."""
        self.points = wp.zeros(shape, dtype=wp.vec3f, device=device)
        """In the sensor frame [m], the origin = no return."""
        ranges = wp.zeros(shape, dtype=wp.float32, device=device)
        intensity = wp.zeros(shape, dtype=wp.float32, device=device)
        self._outputs = (ranges, intensity, self.points, self.labels)
        every = {"ranges": ranges, "intensity": intensity, "points": self.points, "labels": self.labels}
        self.buffers: dict[str, wp.array] = {output: every[output] for output in config.outputs}
        self._upload = PinnedUpload(device) if dialect.lidar_on_host else None
        self._class_of_thing: dict[str | None, int] = {}

    def requests(self) -> tuple[Request, ...]:
        """Returns the annotators to attach."""
        return self._dialect.lidar_requests(labels=self._wanted)

    @property
    def has_labels(self) -> bool:
        """Whether the newest frame's returns have labels."""
        return not self.no_labels_reason

    def take(self, data: Mapping[str, Any]) -> Mapping[str, wp.array] | None:
        """Returns the buffers of one delivery, or ``None`` while it holds nothing valid.

        Raises:
            ConfigurationError: A device that cannot be used.
        """
        found = self._dialect.lidar_returns(data)
        if found is None:
            return None
        if found.points is not None:
            self._take_points(found)
        else:
            self._take_host(found)
        return self.buffers

    def facts(self) -> dict[str, Any]:
        """Returns what the record says about the stream."""
        facts: dict[str, Any] = {
            "residency": dict(self.residency.outputs),
            "deliveries": self.freshness.counters.as_dict(),
            "labels": self.has_labels,
        }
        if self.no_labels_reason:
            facts["no_labels_reason"] = self.no_labels_reason
        if self._upload is not None and self._device != "cpu":
            facts["upload"] = self._upload.facts()
        return facts

    @property
    def upload_bytes(self) -> int:
        """Bytes per frame that are uploaded."""
        return self._upload.bytes if self._upload is not None else 0

    def _take_points(self, found: Returns) -> None:
        points, intensity = found.points, found.intensity
        check_device(self.name, "the point cloud", points, self._device, require_device=self._require)
        count = int(points.shape[0])
        points = wp.array(ptr=points.ptr, dtype=wp.float32, shape=(count, 3), device=points.device)
        if intensity is None or is_empty(intensity):
            intensity = self._none
        else:
            check_device(self.name, "intensity", intensity, self._device, require_device=self._require)
            intensity = wp.array(ptr=intensity.ptr, dtype=wp.float32, shape=(count,), device=intensity.device)
        classes = self._classes_by_id(found, count)
        rtx.image_of_points(points, intensity, classes, self._limits, *self._own_returns(), self._cells, self._outputs)
        if not self.residency.outputs:
            self.residency.outputs = {"points": f"{points.device}, sorted there"}

    def _take_host(self, found: Returns) -> None:
        from saccade.frame import now_ns

        upload = self._upload
        assert upload is not None
        count = len(found.range)
        upload.reserve(count)
        started = now_ns()
        # The sensor's own memory may be freed or written again after this call: everything is copied out of it here.
        rows = (found.azimuth, found.elevation, found.range, found.strength)
        for row, values in enumerate(rows):
            upload.host[row, :count] = values
        upload.host[4, :count] = self._classes(found)
        own, mask_robot = self._own_returns()
        upload.packed.add((now_ns() - started) * 1e-6)
        upload.push()
        rtx.image_of_spherical(
            upload.array,
            count,
            self._limits,
            own,
            mask_robot,
            self._cells,
            self._outputs,
        )
        if not self.residency.outputs:
            where = "host" if self._device == "cpu" else f"host, one pinned upload to {self._device}"
            self.residency.outputs = {"points": where}
            self.residency.upload = self._device != "cpu"

    def _own_returns(self) -> tuple[wp.array, bool]:
        """Returns the cylinder whose returns are the robot's own, and whether their labels say so instead."""
        by_label = self.config.own_body_mask and self.has_labels
        return (self._nobody if by_label else self._own), by_label

    def _classes(self, found: Returns) -> Any:
        if not self._wanted:
            return BACKGROUND
        self.no_labels_reason = "" if found.things is not None else NO_MAP
        if found.things is None:
            return BACKGROUND
        return np.array([self._class_of_path(name) for name in found.names], dtype=np.float32)[found.things]

    def _classes_by_id(self, found: Returns, count: int) -> wp.array:
        """Returns the class of each return, on the device, without anything of them leaving it."""
        if not self._wanted:
            return self._no_classes
        ids = found.ids
        self.no_labels_reason = ""
        if not found.names_of_ids:
            self.no_labels_reason = NO_MAP
        elif ids is None or ids.size * wp.types.type_size_in_bytes(ids.dtype) != 16 * count:
            size = 0 if ids is None else ids.size * wp.types.type_size_in_bytes(ids.dtype)
            self.no_labels_reason = f"{size} bytes of object ids came for {count} returns, expected 16 for each"
        if self.no_labels_reason or not count:
            return self._no_classes
        check_device(self.name, "object ids", ids, self._device, require_device=self._require)
        if found.names_of_ids is not self._names_of_ids:
            self._learn(found.names_of_ids or {})
        if self._classes_of_returns.size < count:
            size = 2 ** math.ceil(math.log2(count))
            self._classes_of_returns = wp.zeros(size, dtype=wp.uint8, device=self._device)
        words = wp.array(ptr=ids.ptr, dtype=wp.uint32, shape=(count, 4), device=ids.device)
        rtx.classes_of_things(words, self._keys, self._class_of_key, self._classes_of_returns)
        return self._classes_of_returns

    def _learn(self, names: Mapping[int, str]) -> None:
        """Brings a new map from numbers to classes onto the device; it changes when the stage does."""
        self._names_of_ids = names
        found = {}
        for number, path in names.items():
            lower, upper = number & WORD, number >> 64
            found[(lower ^ (upper * rtx.FOLD)) & WORD] = self._class_of_path(path)
        keys = sorted(found)
        classes = [found[key] for key in keys]
        self._keys = wp.array(np.array(keys, dtype=np.uint64), dtype=wp.uint64, device=self._device)
        self._class_of_key = wp.array(np.array(classes, dtype=np.uint8), dtype=wp.uint8, device=self._device)

    def _class_of_path(self, path: str | None) -> int:
        known = self._class_of_thing
        if path not in known:
            index = self._class_of(path) if path else None
            known[path] = OBSTACLE if index is None else index
        return known[path]


def own_cylinder(
    on_root: tuple[float, ...], radius: float, root_height: float, height: float
) -> tuple[float, float, float, float, float]:
    """Returns the upright cylinder that holds the humanoid, in the frame of a sensor on it.

    Args:
        on_root: Sensor frame in the root link's frame, taken as upright.
        radius: Of the cylinder about the root link [m].
        root_height: Of the root link above the lowest point [m].
        height: Of the humanoid [m].

    Returns:
        x, y, radius, lowest, highest [m].
    """
    from saccade.scenes.mounts import inverse

    root = inverse(on_root)  # type: ignore[arg-type]
    low = root[2] - root_height
    return (root[0], root[1], radius, low, low + height)
