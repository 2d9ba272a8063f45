"""Group ``preprocess``: the kernel alone, against the time that its bytes need at the copy bandwidth of this GPU."""

# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import warp as wp

from saccade.benchmark.measure import InvalidMeasurement, Variant, check_agreement, median, ratio
from saccade.benchmark.session import Session, graph_of
from saccade.kernels.preprocess import image_transform, record_images

SOURCE = (1920, 1080)
"""Width and height of the camera's image [px]."""
TARGET = (640, 640)
"""Width and height of the network's input [px]."""
BUFFERS = 64
"""Images that take turns within one graph: more than half a gigabyte, far more than any L2 holds."""
COPIES = 4
COPY_BYTES = 256 << 20
"""Size of one copy that measures the bandwidth."""
DTYPES = {"fp16": wp.float16, "fp32": wp.float32}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@wp.kernel(enable_backward=False)
def _nothing():
    pass


def measure_preprocess(session: Session) -> dict[str, Any]:
    """Returns ``preprocess_over_byte_floor`` (FP16) and ``preprocess_over_byte_floor_fp32``, with the medians.

    Every variant is a graph with as many launches as there are buffers; times are those of the graph over that
    number. An empty kernel's time is taken off. The floor is the input read once and the output written once, at the
    bandwidth of copies within the device, bytes read plus bytes written.

    Raises:
        InvalidMeasurement: The kernel gives other values than on the CPU, or the buffers fit into the L2.
    """
    device, stream = session.device, session.stream
    session.say("preprocess: preparing buffers")
    sources, first = _sources(device)
    input_bytes = sources[0].capacity
    l2 = l2_bytes(device)
    if l2 is not None and input_bytes * BUFFERS < 2 * l2:
        raise InvalidMeasurement(f"{BUFFERS} images of {input_bytes} bytes do not exceed twice the L2 of {l2} bytes")
    variants: dict[str, Variant] = {}
    bytes_moved, distances = {}, {}
    for name, dtype in DTYPES.items():
        outputs = [wp.zeros((1, 3, TARGET[1], TARGET[0]), dtype=dtype, device=device) for _ in sources]
        launches = [record_images([source], transform(), out) for source, out in zip(sources, outputs, strict=True)]
        replay = graph_of(stream, _all(launches), sources, outputs)
        variants[name] = Variant(replay, repeats=5, settle=1)
        bytes_moved[name] = input_bytes + outputs[0].capacity
        distances[name] = _checked(name, outputs[-1], first)
    empty = wp.launch(_nothing, dim=1, inputs=[], device=device, record_cmd=True)
    variants["empty"] = Variant(graph_of(stream, _all([empty] * BUFFERS)), repeats=5, settle=1)
    variants["copy"] = Variant(graph_of(stream, _copies(device)), repeats=5, settle=1)
    times = session.measure("preprocess", variants)
    each = {
        name: [value / (COPIES if name == "copy" else BUFFERS) for value in values] for name, values in times.items()
    }
    copied = 2 * COPY_BYTES
    ratios = {
        f"preprocess_over_byte_floor{suffix}": ratio(
            each[name], each["copy"], less=each["empty"], scale=copied / bytes_moved[name]
        )
        for name, suffix in (("fp16", ""), ("fp32", "_fp32"))
    }
    bandwidth = copied / (median(each["copy"])["value"] * 1e-3)
    return {
        "ratios": ratios,
        "preprocess": {
            "median_us": {name: _in_us(median(values)) for name, values in each.items()},
            "bytes": bytes_moved,
            "copy_bandwidth_bytes_per_s": bandwidth,
            "l2_bytes": l2,
            "rotated_bytes": {"input": input_bytes * BUFFERS, "copies": copied * COPIES},
            "relative_l2": distances,
        },
    }


def transform() -> Any:
    """Returns the transform that is measured: stretched, normalised."""
    return image_transform(SOURCE, TARGET, mean=MEAN, std=STD)


def l2_bytes(device: str) -> int | None:
    """Returns the size of the L2 [bytes]; ``None`` where ``cuda-bindings`` is not there to tell."""
    try:
        from cuda.bindings import driver
    except ImportError:
        return None
    kind = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE
    status, handle = driver.cuDeviceGet(int(wp.get_device(device).ordinal))
    if status != driver.CUresult.CUDA_SUCCESS:
        return None
    status, size = driver.cuDeviceGetAttribute(kind, handle)
    return int(size) if status == driver.CUresult.CUDA_SUCCESS else None


def _sources(device: str) -> tuple[list[wp.array], np.ndarray]:
    """Returns the images and what is in each of them."""
    pixels = np.random.default_rng(0).integers(0, 2**32, (SOURCE[1], SOURCE[0]), dtype=np.uint32)
    first = wp.array(pixels, dtype=wp.uint32, device=device)
    sources = [first]
    for _ in range(BUFFERS - 1):
        copy = wp.empty_like(first)
        wp.copy(copy, first)
        sources.append(copy)
    return sources, pixels


def _checked(name: str, output: wp.array, pixels: np.ndarray) -> float:
    """Returns the distance of the last output from what the same kernel gives on the CPU in FP32."""
    wanted = wp.zeros(output.shape, dtype=wp.float32, device="cpu")
    record_images([wp.array(pixels, dtype=wp.uint32, device="cpu")], transform(), wanted).launch()
    return check_agreement({name: output.numpy()}, wanted.numpy(), {name: 1e-2 if name == "fp16" else 1e-5})[name]


def _all(launches: list[wp.Launch]) -> Callable[[], None]:
    def launch() -> None:
        for each in launches:
            each.launch()

    return launch


def _copies(device: str) -> Callable[[], None]:
    """Returns a function that launches copies, each between arrays of its own."""
    count = COPY_BYTES // 4
    pairs = [
        (wp.zeros(count, dtype=wp.uint32, device=device), wp.zeros(count, dtype=wp.uint32, device=device))
        for _ in range(COPIES)
    ]

    def launch() -> None:
        for target, source in pairs:
            wp.copy(target, source)

    return launch


def _in_us(found: dict[str, Any]) -> dict[str, Any]:
    interval = found["interval"]
    return {
        **found,
        "value": found["value"] * 1e3,
        "interval": None if interval is None else [1e3 * bound for bound in interval],
    }
