"""What happens to a frame from Isaac Sim before it is one of ours: times, freshness, shapes, devices, uploads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import warp as wp

from saccade.errors import ConfigurationError
from saccade.frame import BACKGROUND, OBSTACLE, now_ns
from saccade.scenes.labels import class_of_labels

MAX_IDS = 4096
"""Semantic ids of one picture that are told apart; Replicator numbers them from 0."""

JUMP_NS = 1_000_000
"""A change between the system clock and the monotonic one above this makes latencies unknown."""

RESAMPLE_NS = 1_000_000_000


def reference_key(numerator: int, denominator: int) -> Fraction | None:
    """Returns a frame's reference time [s] as its key; ``None`` for the 0/0 of early frames.

    Of such a frame the time annotators report the moment of the read, which would look like no latency at all.
    """
    if numerator <= 0 or denominator <= 0:
        return None
    return Fraction(int(numerator), int(denominator))


def writer_value(data: Mapping[str, Any], annotator: str) -> Any:
    """Returns what an annotator gave in a writer's data, whose keys may end in the render product's name.

    Raises:
        KeyError: It gave nothing.
    """
    if annotator in data:
        return data[annotator]
    for key, value in data.items():
        if key.startswith(f"{annotator}-") or key.startswith(f"{annotator}_"):
            return value
    raise KeyError(f"{annotator} is not among {', '.join(map(str, data))}")


def array_and_info(value: Any) -> tuple[Any, dict[str, Any]]:
    """Returns array and further outputs of what an annotator gave: a bare array, or both in a dictionary."""
    if isinstance(value, Mapping):
        info = dict(value.get("info") or {})
        info.update({name: part for name, part in value.items() if name not in ("data", "info")})
        return value.get("data"), info
    return value, {}


def is_empty(array: Any) -> bool:
    """Whether an annotator has not delivered yet: nothing, or an array without elements."""
    return array is None or int(np.prod(array.shape)) == 0


def host_bytes(array: Any) -> bytes:
    """Returns the bytes of what an annotator gave in host memory, as an array of NumPy or of Warp."""
    found = array.numpy() if isinstance(array, wp.array) else np.asarray(array)
    return found.tobytes()


@dataclass(slots=True)
class StreamCounters:
    """What one sensor's render product delivered; every delivery is in exactly one of the first seven."""

    fresh: int = 0
    surplus: int = 0
    """Rendered more often than the sensor samples, and not used."""
    superseded: int = 0
    """Fresh, but replaced by a newer one before it was taken."""
    empty: int = 0
    without_time: int = 0
    """Reference time 0/0."""
    duplicates: int = 0
    out_of_order: int = 0
    lagging: int = 0
    """Of the fresh ones, those that show an earlier state than the one that was just simulated."""
    missing: int = 0
    """Samples that were due and that no delivery came for in lockstep."""

    @property
    def stale(self) -> int:
        """Deliveries that came twice or out of order."""
        return self.duplicates + self.out_of_order

    def as_dict(self) -> dict[str, int]:
        """Returns the counters for the record."""
        return asdict(self)


class Freshness:
    """Tells new deliveries of one stream from those that came before, by reference time."""

    def __init__(self) -> None:
        self.counters = StreamCounters()
        self._newest: Fraction | None = None

    def reset(self) -> None:
        """Starts counting anew; what was seen stays seen."""
        self.counters = StreamCounters()

    def is_new(self, key: Fraction | None) -> bool:
        """Counts a delivery that is not new, and says whether it is."""
        if key is None:
            self.counters.without_time += 1
            return False
        if self._newest is not None and key <= self._newest:
            if key == self._newest:
                self.counters.duplicates += 1
            else:
                self.counters.out_of_order += 1
            return False
        self._newest = key
        return True


class EpochClock:
    """Maps the system clock, by which Isaac Sim stamps physics steps, to the monotonic one, by paired samples.

    Args:
        epoch_ns: The system clock [ns].
        monotonic_ns: The clock of all stamps [ns].
    """

    def __init__(self, *, epoch_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = now_ns) -> None:
        self._epoch, self._monotonic = epoch_ns, monotonic_ns
        self.jumps = 0
        self.samples = 0
        self.uncertainty_ns = 0
        """Half the time that the closest pair took, the largest so far."""
        self._offset, self._taken = self._pair()

    def sample_if_due(self) -> None:
        """Takes a pair when the last is a second old; a change above 1 ms counts as a jump."""
        if self._monotonic() - self._taken < RESAMPLE_NS:
            return
        offset, taken = self._pair()
        if abs(offset - self._offset) > JUMP_NS:
            self.jumps += 1
        self._offset, self._taken = offset, taken

    def monotonic_of(self, epoch_seconds: float) -> int:
        """Returns the monotonic time [ns] of a moment on the system clock [s]."""
        return round(epoch_seconds * 1e9) - self._offset

    def check(self, stamp_ns: int, arrived_ns: int) -> None:
        """Counts a jump where a state seems to have been simulated after its picture had arrived."""
        if stamp_ns > arrived_ns + JUMP_NS:
            self.jumps += 1

    def facts(self) -> dict[str, Any]:
        """Returns ``source``, ``jumps``, ``samples`` and ``uncertainty_us`` for the record."""
        return {
            "source": "Isaac Sim's physics steps (system clock)",
            "jumps": self.jumps,
            "samples": self.samples,
            "uncertainty_us": self.uncertainty_ns / 1000.0,
        }

    def _pair(self) -> tuple[int, int]:
        best: tuple[int, int, int] | None = None
        for _ in range(5):
            before = self._monotonic()
            epoch = self._epoch()
            after = self._monotonic()
            if best is None or after - before < best[0]:
                best = (after - before, epoch - (before + after) // 2, after)
        assert best is not None
        self.samples += 1
        self.uncertainty_ns = max(self.uncertainty_ns, best[0] // 2)
        return best[1], best[2]


def packed_color(name: str, array: wp.array, height: int, width: int) -> wp.array:
    """Returns an RGBA picture as packed colours without a copy.

    Args:
        name: Of the sensor, for messages.
        array: Shape ``(height, width, 4)``, uint8; three channels would be a strided view of four, and are refused.
        height: Expected [px].
        width: Expected [px].

    Returns:
        The same memory, shape ``(height, width)``, uint32; it owns nothing, so ``array`` has to be kept beside it.

    Raises:
        ConfigurationError: Another shape or layout.
    """
    check_image(name, "rgba", array, height, width)
    if len(array.shape) != 3 or array.shape[2] != 4 or not array.is_contiguous:
        raise ConfigurationError(
            f"sensors.{name}: colour came with shape {tuple(array.shape)} and strides {tuple(array.strides)}, "
            f"expected contiguous RGBA of shape ({height}, {width}, 4)"
        )
    return wp.array(ptr=array.ptr, dtype=wp.uint32, shape=(height, width), device=array.device)


def image_view(name: str, what: str, array: wp.array, height: int, width: int, dtype: Any) -> wp.array:
    """Returns a picture of one channel with two dimensions, whether it came with a third of size 1 or not.

    Raises:
        ConfigurationError: Another shape, or another type of the same size.
    """
    check_image(name, what, array, height, width)
    if wp.types.type_size_in_bytes(array.dtype) != wp.types.type_size_in_bytes(dtype) or not array.is_contiguous:
        raise ConfigurationError(
            f"sensors.{name}: {what} came as {array.dtype.__name__} with strides {tuple(array.strides)}, expected "
            f"contiguous {dtype.__name__}"
        )
    return wp.array(ptr=array.ptr, dtype=dtype, shape=(height, width), device=array.device)


def finish_reading(device: str) -> None:
    """Waits until nothing that was launched on ``device`` reads the renderer's memory any more.

    Nothing tells the renderer who still reads what it lent: its next update may write there, on a stream of its own.
    Copies that leave by a side stream are in it, as the device's stream waits for them.
    """
    if device != "cpu":
        wp.synchronize_stream(wp.get_device(device).stream)


def check_image(name: str, what: str, array: wp.array, height: int, width: int) -> None:
    """Refuses a picture of another size than its render product.

    Raises:
        ConfigurationError: The text says what to do.
    """
    shape = tuple(array.shape)
    if shape[:2] != (height, width):
        raise ConfigurationError(
            f"sensors.{name}: the render product is {width}x{height}, but {what} came with shape {shape}: the upscaler "
            f"gives buffers of another size for products with a side below 300 px. Render at 320 px or more "
            f"(sensors.{name}.width and height) and let the network's input resize it"
        )


def check_device(
    name: str, what: str, array: wp.array, expected: str, *, require_device: bool, delivered_on_host: bool = False
) -> bool:
    """Says whether a stream came on the host and has to be uploaded; refuses what nobody declared.

    Args:
        name: Of the sensor, for messages.
        what: Of its outputs.
        array: What came.
        expected: Device of sensors and engines, ``"cuda:N"`` or ``"cpu"``.
        require_device: Whether ``simulator.require_device`` is set.
        delivered_on_host: Whether this stream is known to come on the host.

    Raises:
        ConfigurationError: It came on another GPU, or on the host where that was not declared or is not allowed.
    """
    device = str(array.device)
    if device == expected or (device == "cpu" and expected == "cpu"):
        return False
    if device != "cpu":
        raise ConfigurationError(
            f"sensors.{name}: {what} came on {device}, the engines are on {expected}: the renderer uses another GPU. "
            f"Start with --/renderer/multiGpu/enabled=false and --/renderer/activeGpu={expected.partition(':')[2] or 0}"
        )
    if require_device:
        raise ConfigurationError(
            f"sensors.{name}: {what} comes in host memory and simulator.require_device is set: leave it out to have a "
            f"declared upload that is counted and timed"
            + (", or use Isaac Sim 5.x, whose RTX LiDAR stays on the GPU" if delivered_on_host else "")
        )
    if not delivered_on_host:
        raise ConfigurationError(
            f"sensors.{name}: {what} was asked for on the GPU and came in host memory: the annotator has no source "
            f"there in this release. Use --device cpu, or another output"
        )
    return True


def class_table(id_to_labels: Mapping[Any, Any], *, further: Mapping[str, str] | None = None) -> np.ndarray:
    """Returns the class index by semantic id, shape ``(MAX_IDS,)``, uint8.

    Args:
        id_to_labels: As the semantic segmentation gives it: ``{"2": {"class": "floor"}}``; several labels of one thing
            are separated by commas.
        further: ``simulator.labels``.

    Raises:
        ConfigurationError: More ids than can be told apart.
    """
    table = np.full(MAX_IDS, BACKGROUND, dtype=np.uint8)
    for key, labels in id_to_labels.items():
        number = int(key)
        if number >= MAX_IDS:
            raise ConfigurationError(
                f"the semantic segmentation numbers more than {MAX_IDS} things: it must not be colorized, and "
                f"labels of type 'class' should be few"
            )
        names = list(labels.values()) if isinstance(labels, Mapping) else [labels]
        table[number] = _class_of([part.strip() for name in names for part in str(name).split(",")], further)
    return table


def _class_of(names: list[str], further: Mapping[str, str] | None) -> int:
    if names == ["BACKGROUND"]:
        return BACKGROUND
    found = class_of_labels([name for name in names if name != "UNLABELLED"], further=further)
    # What has no label, or one that nothing knows, is something to keep clear of, as in the embedded simulator.
    return OBSTACLE if found is None else found


def physics_time_step(step: float, substeps: int) -> float:
    """Returns a physics step [s] of which a step of the loop holds ``substeps``, however the quotient is rounded.

    Isaac Sim 5.x cuts ``int(rendering_dt / physics_dt)`` off: 0.3 / (0.3 / 3) is below 3 in floating point, and would
    be two steps.
    """
    time_step = step / substeps
    while int(step / time_step) < substeps:
        time_step = float(np.nextafter(time_step, 0.0))
    return time_step


@dataclass(slots=True)
class Summary:
    """Count, sum and largest of a duration [ms]."""

    count: int = 0
    total_ms: float = 0.0
    largest_ms: float = 0.0

    def add(self, milliseconds: float) -> None:
        """Takes one in."""
        self.count += 1
        self.total_ms += milliseconds
        self.largest_ms = max(self.largest_ms, milliseconds)

    def as_dict(self) -> dict[str, float | int | None]:
        """Returns ``count``, ``mean_ms`` and ``max_ms``."""
        mean = self.total_ms / self.count if self.count else None
        return {"count": self.count, "mean_ms": mean, "max_ms": self.largest_ms if self.count else None}


@dataclass(slots=True)
class PinnedUpload:
    """One declared upload per frame: packed in page-locked memory, copied in one asynchronous call.

    From pageable memory an asynchronous copy is neither asynchronous nor surely in order with a stream that does not
    block. On the CPU nothing is copied.
    """

    device: str
    host: np.ndarray = field(init=False)
    """Where to pack, shape ``(5, capacity)``, float32."""
    array: wp.array = field(init=False)
    """The same on the device."""
    packed: Summary = field(default_factory=Summary)
    """Time to pack on the host."""
    copied: Summary = field(default_factory=Summary)
    """Time of the copy, by events of its stream."""
    bytes: int = 0
    """Of the last copy."""
    _pinned: wp.array = field(init=False)

    def __post_init__(self) -> None:
        self._allocate(1024)

    def reserve(self, count: int) -> None:
        """Makes room for ``count`` columns."""
        if count > self.host.shape[1]:
            self._allocate(2 ** math.ceil(math.log2(count)))

    def push(self) -> None:
        """Copies what was packed, on the device's current stream, and waits for the event behind it.

        The wait keeps the page-locked memory from being packed again while it is read, and gives the copy its time.
        """
        if self.array is self._pinned:
            return
        stream = wp.get_device(self.device).stream
        begin, end = wp.Event(self.device, enable_timing=True), wp.Event(self.device, enable_timing=True)
        stream.record_event(begin)
        wp.copy(self.array, self._pinned, stream=stream)
        stream.record_event(end)
        wp.synchronize_event(end)
        self.bytes = self._pinned.capacity
        self.copied.add(float(wp.get_event_elapsed_time(begin, end)))

    def facts(self) -> dict[str, Any]:
        """Returns bytes per frame and both times for the record."""
        return {"bytes": self.bytes, "pack": self.packed.as_dict(), "copy": self.copied.as_dict()}

    def _allocate(self, capacity: int) -> None:
        on_cpu = self.device == "cpu"
        self._pinned = wp.zeros((5, capacity), dtype=wp.float32, device="cpu", pinned=not on_cpu)
        self.array = self._pinned if on_cpu else wp.zeros((5, capacity), dtype=wp.float32, device=self.device)
        self.host = self._pinned.numpy()
