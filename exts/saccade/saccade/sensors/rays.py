"""Bundles of rays cast into a Newton model: the one ray caster behind cameras, LiDARs and ground truth.

Every bundle asks Newton's :class:`SensorCamera` for the same outputs with the same settings, because each further
combination would compile a kernel of its own (seconds, megabytes). What differs is decided at run time: a bundle with
lighting gets the shaded colour, one without gets the bare albedo, and range limits are applied by who reads the rays.
"""

# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import warp as wp

if TYPE_CHECKING:
    import newton

    from saccade.scenes.lights import Lighting

NO_SHAPE = wp.constant(wp.uint32(0xFFFFFFFF))
"""Shape index of a ray that hit nothing."""

MAX_DISTANCE = 10_000.0
"""How far rays are followed [m]."""

REPAIR_REACH = 8
"""How many columns away a hit without a normal looks for one."""

MAX_WORKERS = 8
"""How many threads cast one bundle at most."""

BANDS_PER_WORKER = 4
"""More bands than threads, because bands differ in cost."""

MIN_BAND_RAYS = 4096
"""Below this a band costs more to start than it saves."""


@wp.kernel(enable_backward=False)
def _place(
    body_q: wp.array(dtype=wp.transformf),
    body: wp.int32,
    offset: wp.transformf,
    out_transform: wp.array(dtype=wp.transformf),
):
    out_transform[0] = wp.transform_multiply(body_q[body], offset)


@wp.func
def nearest_with_normal(
    normal: wp.array2d(dtype=wp.vec3f), shape_index: wp.array2d(dtype=wp.uint32), row: wp.int32, column: wp.int32
):
    """Returns the column of the nearest ray of the row that hit the same shape and has a normal, or ``column``.

    Newton 1.8 finds the face of a box by comparing distances to 1e-6 m. Above some ten metres float32 is coarser than
    that, and a share of the hits on floors and walls comes back without a normal and so without sunlight.
    """
    if wp.length_sq(normal[row, column]) > 0.0:
        return column
    shape = shape_index[row, column]
    for step in range(1, REPAIR_REACH + 1):
        left = column - step
        if left >= 0 and shape_index[row, left] == shape and wp.length_sq(normal[row, left]) > 0.0:
            return left
        right = column + step
        if right < normal.shape[1] and shape_index[row, right] == shape and wp.length_sq(normal[row, right]) > 0.0:
            return right
    return column


class Mount:
    """A place that moves with a body.

    Args:
        device: Warp device of the bodies.
        body: Body that carries the mount; -1 = the world.
        offset: Pose in the body's frame, or in the world.
    """

    def __init__(self, device: Any, *, body: int, offset: wp.transform):
        self.transform = wp.array([wp.transformf(*offset)], dtype=wp.transformf, device=device)
        """Pose in the world as of the last :meth:`update`, shape ``(1,)``."""
        self.body = int(body)
        self.offset = wp.transformf(*offset)

    def update(self, state: newton.State) -> None:
        """Launches the computation of :attr:`transform` from the bodies' poses in ``state``."""
        if self.body < 0:
            return
        wp.launch(
            _place,
            dim=1,
            inputs=[state.body_q, self.body, self.offset],
            outputs=[self.transform],
            device=self.transform.device,
        )


class RayBundle:
    """Any fixed set of rays, cast from a pose in the world.

    Args:
        model: Finalized model; its shape BVH has to be refitted whenever something moved.
        rays: Ray origins and unit directions in the bundle's frame, shape ``(height, width, 1, 2)`` of vec3f.
        device: Must be the model's device; ``None`` = that.
        lighting: Shades the hits; ``None`` gives their albedo.
        bands: Bands of rows cast in parallel on the CPU; ``None`` chooses by the cores. The result does not depend
            on it, bit for bit. CUDA and graph capture never split.
    """

    def __init__(
        self,
        model: newton.Model,
        rays: wp.array,
        device: Any = None,
        *,
        lighting: Lighting | None = None,
        bands: int | None = None,
    ):
        if rays.ndim != 4 or rays.shape[2:] != (1, 2) or rays.dtype != wp.vec3f:
            raise ValueError(f"rays must have shape (height, width, 1, 2) of vec3f, got {rays.shape} of {rays.dtype}")
        self.device = model.device
        if device is not None and wp.get_device(device) != self.device:
            raise ValueError(f"the model is on {self.device}, not on {device}")
        height, width = rays.shape[:2]
        self.shape = (height, width)
        self.rays = rays
        self.depth = wp.zeros(self.shape, dtype=wp.float32, device=self.device)
        """Distance along each ray [m], shape ``(height, width)``; 0 = nothing hit."""
        self.shape_index = wp.full(self.shape, NO_SHAPE, dtype=wp.uint32, device=self.device)
        """Shape that was hit, shape ``(height, width)``; :data:`NO_SHAPE` = none."""
        self.normal = wp.zeros(self.shape, dtype=wp.vec3f, device=self.device)
        """World normal of the surface, shape ``(height, width)``; zero = nothing hit, or a distant box face that
        Newton could not tell (see :func:`nearest_with_normal`)."""
        self.color = wp.zeros(self.shape, dtype=wp.vec3f, device=self.device)
        """Linear RGB, shape ``(height, width)``: shaded with lighting, else the albedo; zero = nothing hit."""
        self._caster = _caster(model, lighting)
        self._warm = False
        count = _band_count(height, width, self.device) if bands is None else max(1, min(bands, height))
        edges = [height * i // count for i in range(count + 1)]
        self.bands = [(first, last) for first, last in pairwise(edges)]
        """First and last row (excluded) of each band."""
        self._bands = [
            {
                "camera_rays": rows(rays, first, last),
                "depth_image": rows(self.depth, first, last, view=True),
                "shape_index_image": rows(self.shape_index, first, last, view=True),
                "normal_image": rows(self.normal, first, last, view=True),
                "hdr_color_image": rows(self.color, first, last, view=True),
            }
            for first, last in self.bands
        ]
        self._finish: Sequence[Sequence[Any]] = ()

    @property
    def albedo(self) -> wp.array:
        """Linear RGB albedo of a bundle without lighting, shape ``(height, width)`` of vec3f."""
        return self.color

    def finish_with(self, launches: Sequence[Sequence[Any]]) -> None:
        """Sets recorded launches, a sequence for each band, that follow the rays of their band in every cast."""
        if len(launches) != len(self.bands):
            raise ValueError(f"{len(self.bands)} bands need as many sequences of launches, got {len(launches)}")
        self._finish = launches

    def cast(self, state: newton.State, transform: wp.array) -> None:
        """Launches the rays; allocates nothing and waits for nothing on the device.

        Args:
            state: Simulation state to which the BVH was refitted.
            transform: Pose of the bundle in the world, shape ``(1,)`` of transformf, on the model's device.
        """
        if len(self._bands) == 1 or not self._warm or self.device.is_capturing:
            # The first cast compiles or loads the kernel, which only one thread may do.
            for index in range(len(self._bands)):
                self._cast_band(index, state, transform)
            self._warm = True
            return
        # Bands differ in cost (sky above, floor with shadows below): each worker takes the next one that is left.
        left = iter(range(len(self._bands)))
        others: list[Future[None]] = [
            _pool().submit(self._cast_bands, left, state, transform)
            for _ in range(min(worker_count(), MAX_WORKERS, len(self._bands)) - 1)
        ]
        try:
            self._cast_bands(left, state, transform)
        finally:
            for other in others:
                other.result()

    def _cast_bands(self, left: Iterator[int], state: newton.State, transform: wp.array) -> None:
        for index in left:  # a range's iterator hands each index to one thread only
            self._cast_band(index, state, transform)

    def _cast_band(self, index: int, state: newton.State, transform: wp.array) -> None:
        band = self._bands[index]
        self._caster.update(state, transform, **band)
        if self._finish:
            for launch in self._finish[index]:
                launch.launch()


def rows(array: wp.array, first: int, last: int, *, view: bool = False) -> wp.array:
    """Returns rows ``first`` to ``last`` (excluded) of a contiguous array as an array on the same memory.

    Args:
        array: Any contiguous array.
        first: First row.
        last: Row after the last.
        view: Puts a leading dimension of 1 in front: one view of a camera.
    """
    shape = (last - first, *array.shape[1:])
    alias = wp.array(
        ptr=array.ptr + first * array.strides[0],
        dtype=array.dtype,
        shape=(1, *shape) if view else shape,
        device=array.device,
        capacity=(last - first) * array.strides[0],
    )
    alias._saccade_owner = array  # the memory must outlive the alias
    return alias


@cache
def worker_count() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, min(worker_count(), MAX_WORKERS) - 1), thread_name_prefix="saccade-rays")


def _band_count(height: int, width: int, device: Any) -> int:
    workers = min(worker_count(), MAX_WORKERS)
    if workers == 1 or not device.is_cpu:
        return 1
    return max(1, min(BANDS_PER_WORKER * workers, height, height * width // MIN_BAND_RAYS))


def _caster(model: newton.Model, lighting: Lighting | None) -> Any:
    """Returns the ray caster of a model and a light; there is one of each, as each loads all textures."""
    # Kept on the model, so that they live exactly as long as it does: each holds the model itself.
    casters = model.__dict__.setdefault("_saccade_casters", {})
    if lighting is None:
        key: Any = None
    else:
        key = (
            tuple(lighting.sun_direction),
            tuple(lighting.sun_color),
            tuple(lighting.sky_color),
            tuple(lighting.ground_color),
            bool(lighting.cast_shadows),
        )
    if key not in casters:
        casters[key] = _make_caster(model, lighting)
    return casters[key]


def _make_caster(model: newton.Model, lighting: Lighting | None) -> Any:
    from newton.sensors import SensorCamera

    # A warp of 32 threads takes a compact patch: its rays meet the same shapes. On an H100 that casts the warehouse's
    # camera in 0.34 instead of 0.46 ms and its LiDAR in 0.27 instead of 0.33 ms, with equal values.
    order = SensorCamera.RenderOrder
    caster = SensorCamera(
        model,
        default_render_config=SensorCamera.RenderConfig(
            enable_shadows=True,
            enable_textures=True,
            enable_particles=False,
            max_distance=MAX_DISTANCE,
            render_order=order.PIXEL_PRIORITY if model.device.is_cpu else order.TILED,
            tile_width=8,
            tile_height=4,
        ),
        default_clear_data=SensorCamera.ClearData(),
    )
    if lighting is None:
        # White ambient light from everywhere and no sun: the shaded colour is the albedo.
        caster.set_ambient_light((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
        return caster
    caster.set_ambient_light(lighting.sky_color, lighting.ground_color)
    if any(component > 0 for component in lighting.sun_color):
        caster.create_default_light(
            enable_shadows=lighting.cast_shadows,
            direction=wp.vec3f(*lighting.sun_direction),
            color=lighting.sun_color,
        )
    return caster
