"""One configured network: preprocess, engine and decode on arrays that are allocated once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from saccade.config import EngineConfig, ImageInput, NetworkConfig, SensorConfig
from saccade.engines.base import Engine, TensorSpec
from saccade.engines.selection import engine_from_onnx
from saccade.errors import ModelError
from saccade.frame import CLASSES, SECTOR_COUNT, Frame, Result, Stamps, now_ns
from saccade.kernels import decode, preprocess

NO_CLASS = 255
"""Label of a logit whose class is none of saccade's."""


class Network:
    """Takes frames of the sensors it reads and gives results.

    Args:
        name: Name in the configuration.
        config: What the network is and reads.
        path: The resolved ONNX file.
        sensors: Configuration of the sensors by name.
        engine: How to run it.

    Raises:
        ModelError: The file cannot be used, or its inputs and outputs are not those configured.
    """

    def __init__(
        self,
        name: str,
        config: NetworkConfig,
        path: Path,
        *,
        sensors: Mapping[str, SensorConfig],
        engine: EngineConfig,
    ) -> None:
        self.name = name
        self.config = config
        self.sensors = tuple(dict.fromkeys(source.sensor for source in config.inputs.values()))
        shapes: dict[str, tuple[int, ...]] = {}
        defaults: dict[str, tuple[int, ...]] = {}
        for tensor, source in config.inputs.items():
            fixed = not isinstance(source, ImageInput) or source.size is not None
            (shapes if fixed else defaults)[tensor] = _shape(source, sensors[source.sensor])
        self.engine: Engine = engine_from_onnx(path, engine, shapes=shapes, defaults=defaults)
        self._path = path
        self._check_inputs()
        device = self.engine.device
        self._inputs = {spec.name: _array(spec, device) for spec in self.engine.inputs}
        self.outputs = {spec.name: _array(spec, device) for spec in self.engine.outputs}
        """Output arrays by tensor name, on the engine's device."""
        for tensor, array in (*self._inputs.items(), *self.outputs.items()):
            self.engine.bind(tensor, array)
        self.summary = wp.zeros(decode.SUMMARY_SIZE, dtype=wp.float32, device=device)
        self._summary_view = self.summary.numpy() if not self.summary.device.is_cuda else None
        self.labels: wp.array | None = None
        self._decode = self._record_decode()
        self._preprocess: dict[str, tuple[int, list[wp.Launch], list[tuple[wp.array, wp.array]]]] = {}
        self._waiting = set(self.sensors)

    @property
    def sensor(self) -> str:
        """The sensor of the first input: results belong to its frames."""
        return self.sensors[0]

    def process(self, frame: Frame) -> Result | None:
        """Runs the network when ``frame`` completes its inputs, and stamps the frame.

        Returns:
            The result, or ``None`` while another sensor's first frame is still missing.
        """
        for launch in self._launches(frame):
            launch.launch()
        for source, target in self._preprocess[frame.sensor][2]:
            wp.copy(target, source)
        self._waiting.discard(frame.sensor)
        stamps = frame.stamps
        stamps.preprocessed = now_ns()
        if self._waiting or frame.sensor != self.sensor:
            return None
        self.engine.enqueue(None)
        stamps.inferred = now_ns()
        return self._result(frame, stamps)

    @property
    def declared_copy_bytes(self) -> int:
        """Bytes per set of frames copied from the sensors' device to the engine's; 0 when they share one."""
        return sum(target.size * 4 for _, _, copies in self._preprocess.values() for _, target in copies)

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say about the engine."""
        return {**self.engine.facts(), "declared_copy_bytes": self.declared_copy_bytes}

    def close(self) -> None:
        """Frees the engine."""
        self.engine.close()

    def _result(self, frame: Frame, stamps: Stamps) -> Result:
        self.summary.zero_()
        for launch in self._decode:
            launch.launch()
        values = self._summary_view if self._summary_view is not None else self.summary.numpy()
        decoder = self.config.decoder
        result = Result(self.name, frame.sensor)
        result.finite = not values[decode.NON_FINITE]
        if decoder.hazard is not None:
            result.hazard = float(values[decode.HAZARD])
        if decoder.clearance is not None:
            result.clearance = values[decode.CLEARANCE : decode.NON_FINITE].tolist()
        result.labels = self.labels
        stamps.on_host = now_ns()
        return result

    def _launches(self, frame: Frame) -> list[wp.Launch]:
        """Recorded launches for a frame; recorded anew only when the frame's buffers have moved."""
        key = next(iter(frame.buffers.values())).ptr
        known = self._preprocess.get(frame.sensor)
        if known is not None and known[0] == key:
            return known[1]
        launches: list[wp.Launch] = []
        copies: list[tuple[wp.array, wp.array]] = []
        for tensor, source in self.config.inputs.items():
            if source.sensor != frame.sensor:
                continue
            target = self._inputs[tensor]
            first = frame.buffers["color" if isinstance(source, ImageInput) else "ranges"]
            if first.device != target.device:
                # The engine cannot read the sensor's device: preprocess there, then one declared, counted copy.
                staged = wp.empty(target.shape, dtype=target.dtype, device=first.device)
                copies.append((staged, target))
                target = staged
            launches.append(_record_input(source, frame, target))
        self._preprocess[frame.sensor] = (key, launches, copies)
        return launches

    def _check_inputs(self) -> None:
        have = {spec.name: spec for spec in self.engine.inputs}
        missing = [tensor for tensor in have if tensor not in self.config.inputs]
        unknown = [tensor for tensor in self.config.inputs if tensor not in have]
        described = ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in have.values())
        if unknown:
            raise ModelError(
                f"networks.{self.name}.inputs: {self._path} has no input {', '.join(unknown)}; "
                f"its inputs are: {described}"
            )
        if missing:
            raise ModelError(
                f"networks.{self.name}.inputs: {self._path} also needs {', '.join(missing)}; "
                f"its inputs are: {described}"
            )
        for spec in have.values():
            channels = 3 if isinstance(self.config.inputs[spec.name], ImageInput) else 2
            if spec.dtype != "float32" or len(spec.shape) != 4 or spec.shape[:2] != (1, channels):
                raise ModelError(
                    f"networks.{self.name}.inputs.{spec.name}: {self._path} wants {spec.dtype} {list(spec.shape)}, "
                    f"a sensor gives float32 [1, {channels}, height, width]: export the network with float input, "
                    f"batch 1 or dynamic"
                )

    def _record_decode(self) -> list[wp.Launch]:
        decoder = self.config.decoder
        launches: list[wp.Launch] = []
        decoded = set()
        for role in ("labels", "hazard", "clearance"):
            tensor = getattr(decoder, role)
            if tensor is None:
                continue
            array = self.outputs.get(tensor)
            if array is None:
                raise ModelError(
                    f"networks.{self.name}.decoder.{role}: {self._path} has no output {tensor!r}; "
                    f"it has {', '.join(self.outputs)}"
                )
            if array.dtype != wp.float32:
                raise ModelError(f"networks.{self.name}.decoder.{role}: output {tensor!r} must be float32")
            decoded.add(tensor)
            launches.append(getattr(self, f"_record_{role}")(tensor, array))
        for tensor, array in self.outputs.items():
            if tensor not in decoded and array.dtype == wp.float32:
                launches.append(decode.record_finite(array, self.summary))
        return launches

    def _record_labels(self, tensor: str, array: wp.array) -> wp.Launch:
        classes = self.config.decoder.classes
        if len(array.shape) != 4 or array.shape[:2] != (1, len(classes)):
            raise ModelError(
                f"networks.{self.name}.decoder: output {tensor!r} of {self._path} has shape {list(array.shape)}, "
                f"{len(classes)} classes are configured: expected [1, {len(classes)}, height, width]"
            )
        index = [CLASSES.index(name) if name in CLASSES else NO_CLASS for name in classes]
        class_of_logit = wp.array(np.array(index, dtype=np.uint8), device=array.device)
        self.labels = wp.zeros(array.shape[2:], dtype=wp.uint8, device=array.device)
        return decode.record_labels(array, class_of_logit, self.labels, self.summary)

    def _record_hazard(self, tensor: str, array: wp.array) -> wp.Launch:
        if array.size != 1:
            raise ModelError(
                f"networks.{self.name}.decoder.hazard: output {tensor!r} has shape {list(array.shape)}, "
                f"expected one value"
            )
        return decode.record_hazard(array, self.summary, sigmoid=self.config.decoder.hazard_activation == "sigmoid")

    def _record_clearance(self, tensor: str, array: wp.array) -> wp.Launch:
        if array.size != SECTOR_COUNT:
            raise ModelError(
                f"networks.{self.name}.decoder.clearance: output {tensor!r} has shape {list(array.shape)}, "
                f"expected {SECTOR_COUNT} sectors"
            )
        return decode.record_clearance(array, self.summary)


def _shape(source: Any, sensor: SensorConfig) -> tuple[int, ...]:
    """The input shape that sensor and preprocessing give."""
    if isinstance(source, ImageInput):
        width, height = source.size or (sensor.width, sensor.height)  # type: ignore[union-attr]
        return (1, 3, height, width)
    return (1, 2, sensor.channels, sensor.columns)  # type: ignore[union-attr]


def _array(spec: TensorSpec, device: str) -> wp.array:
    return wp.zeros(spec.shape, dtype=wp.dtype_from_numpy(np.dtype(spec.dtype)), device=device)


def _record_input(source: Any, frame: Frame, target: wp.array) -> wp.Launch:
    if not isinstance(source, ImageInput):
        return preprocess.record_range_image(
            frame.buffers["ranges"], frame.buffers["intensity"], source.range_scale, target
        )
    image = frame.buffers["color"]
    transform = preprocess.image_transform(
        (image.shape[1], image.shape[0]),
        (target.shape[3], target.shape[2]),
        resize=source.resize,
        channel_order=source.channel_order,
        mean=source.mean,
        std=source.std,
        fill=source.fill,
    )
    return preprocess.record_image(image, transform, target)
