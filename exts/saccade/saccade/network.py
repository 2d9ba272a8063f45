"""One configured network: preprocess, engine and decode on arrays that are allocated once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from saccade.config import EngineConfig, ImageInput, InputConfig, NetworkConfig, SensorConfig
from saccade.engines.base import Engine, TensorSpec
from saccade.engines.selection import engine_from_onnx
from saccade.errors import ModelError
from saccade.frame import CLASSES, SECTOR_COUNT, Frame, Result
from saccade.kernels import decode, preprocess, range_image
from saccade.mailbox import Mailbox

NO_CLASS = 255
"""Label of a logit whose class is none of saccade's."""


@dataclass(frozen=True, slots=True)
class InputWork:
    """What turns the frames of one input's sensors into its tensor."""

    launches: Sequence[wp.Launch]
    copies: Sequence[tuple[wp.array, wp.array]]
    """Declared copies to a device that cannot read the sensor's: source, target."""
    copied_bytes: int

    def run(self) -> None:
        """Launches it."""
        for launch in self.launches:
            launch.launch()
        for source, target in self.copies:
            wp.copy(target, source)


class Network:
    """Takes frames of the sensors it reads and gives results.

    Args:
        name: Name in the configuration.
        config: What the network is and reads.
        path: The resolved ONNX file.
        sensors: Configuration of the sensors by name.
        engine: How to run it.
        device: Warp device of the sensors' buffers; an engine for it is taken where there is one.
        say: Told why an engine is built, and how far it is.
        opener: What opens the engine instead of :func:`saccade.engines.selection.engine_from_onnx`.

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
        device: str = "cpu",
        say: Callable[[str], None] = lambda _: None,
        opener: Callable[..., Engine] | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self._sensor_configs = sensors
        self.sensors = tuple(dict.fromkeys(s for source in config.inputs.values() for s in source.sensors))
        """All sensors that it reads."""
        self.primary = next(iter(config.inputs.values())).sensors
        """The sensors of the first input: the network runs when they are due, and results belong to their frames."""
        shapes: dict[str, tuple[int, ...]] = {}
        defaults: dict[str, tuple[int, ...]] = {}
        for tensor, source in config.inputs.items():
            fixed = not isinstance(source, ImageInput) or source.size is not None
            (shapes if fixed else defaults)[tensor] = _shape(source, sensors)
        opened = opener or engine_from_onnx
        self.engine: Engine = opened(path, engine, device=device, shapes=shapes, defaults=defaults, say=say)
        self._path = path
        self._check_inputs()
        self._inputs = {spec.name: _array(spec, self.engine.device) for spec in self.engine.inputs}
        self.outputs = {spec.name: _array(spec, self.engine.device) for spec in self.engine.outputs}
        """Output arrays by tensor name, on the engine's device."""
        for tensor, array in (*self._inputs.items(), *self.outputs.items()):
            self.engine.bind(tensor, array)
        self.labels: dict[str, wp.array] = {}
        """Predicted class index by sensor, shape ``(height, width)``, uint8; empty without a label output."""
        self.declared_copies: dict[str, int] = {}
        """Bytes per set of frames copied to a device that cannot read the sensor's, by tensor."""
        self._check_outputs()
        self._make_labels()
        self.place(Mailbox(self.batch, self.engine.device), 0)

    @property
    def batch(self) -> int:
        """Images or scans that one run takes."""
        return len(self.primary)

    def place(self, mailbox: Mailbox, row: int) -> None:
        """Puts the summaries into ``mailbox`` from ``row`` on; before the first frame.

        Args:
            mailbox: On the engine's device.
            row: The first of :attr:`batch` summaries.
        """
        self._values = mailbox.rows(row, self.batch)
        self.rows = range(row, row + self.batch)
        """Its summaries."""
        self._mailbox = mailbox
        self._decode = [*self.record_decode(), mailbox.record_results(self.small_outputs(), self.rows)]

    def input_work(self, tensor: str, frames: Mapping[str, Frame]) -> InputWork:
        """Returns what fills an input from frames; it holds as long as their buffers stay where they are.

        Args:
            tensor: Input of the network.
            frames: Newest frame by sensor.
        """
        source, target = self.config.inputs[tensor], self._inputs[tensor]
        feeding = [frames[sensor] for sensor in source.sensors]
        device = next(iter(feeding[0].buffers.values())).device
        copies: list[tuple[wp.array, wp.array]] = []
        if device != target.device:
            # The engine cannot read the sensor's device: preprocess there, then one declared, counted copy.
            staged = wp.empty(target.shape, dtype=target.dtype, device=device)
            copies.append((staged, target))
            target = staged
        copied = sum(wp.types.type_size_in_bytes(target.dtype) * target.size for _, target in copies)
        if copied:
            self.declared_copies[tensor] = copied
        launches = record_input(source, feeding, target, self._sensor_configs)
        return InputWork(launches, copies, copied)

    def input_array(self, tensor: str) -> wp.array:
        """Returns the array that is bound to an input, as the last :meth:`input_work` filled it."""
        return self._inputs[tensor]

    def record_decode(self) -> list[wp.Launch]:
        """Returns new recorded launches for the outputs that are not small: label maps, and what is only checked."""
        counts = self._mailbox.counts(self.rows.start, self.batch)
        labels = self.config.decoder.labels
        launches = []
        if labels is not None:
            launches.append(decode.record_labels(self.outputs[labels], self._class_of_logit, self._labels, counts))
        return launches + [
            decode.record_finite(array, counts) for array in self._only_checked() if array.size > decode.SMALL
        ]

    def small_outputs(self) -> list[decode.SmallOutput]:
        """Returns the outputs that one launch for all networks of a frame brings into the summaries, or checks."""
        decoder, row, batch = self.config.decoder, self.rows.start, self.batch
        found = []
        if decoder.hazard is not None:
            logits = decoder.hazard_activation == "sigmoid"
            values = self.outputs[decoder.hazard]
            found.append(decode.small_output(values, row=row, batch=batch, column=decode.HAZARD, sigmoid=logits))
        if decoder.clearance is not None:
            values = self.outputs[decoder.clearance]
            found.append(decode.small_output(values, row=row, batch=batch, column=decode.CLEARANCE))
        return found + [
            decode.small_output(array, row=row, batch=batch)
            for array in self._only_checked()
            if array.size <= decode.SMALL
        ]

    def launch_decode(self) -> None:
        """Launches the decoding of all outputs into the summaries, where this network runs by itself."""
        for launch in self._decode:
            launch.launch()

    def results(self) -> list[Result]:
        """Returns what the host side of the summaries says, one result per sensor of the first input."""
        decoder = self.config.decoder
        results = []
        for row, sensor in zip(self._values.tolist(), self.primary, strict=True):
            result = Result(self.name, sensor)
            result.finite = not row[decode.NON_FINITE]
            if decoder.hazard is not None:
                result.hazard = row[decode.HAZARD]
            if decoder.clearance is not None:
                result.clearance = row[decode.CLEARANCE : decode.NON_FINITE]
            result.labels = self.labels.get(sensor)
            results.append(result)
        return results

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say about the engine."""
        return {
            **self.engine.facts(),
            "batch": self.batch,
            "declared_copy_bytes": sum(self.declared_copies.values()),
        }

    def close(self) -> None:
        """Frees the engine."""
        self.engine.close()

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
            source = self.config.inputs[spec.name]
            wanted = (len(source.sensors), 3 if isinstance(source, ImageInput) else 2)
            if spec.dtype not in ("float32", "float16") or len(spec.shape) != 4 or spec.shape[:2] != wanted:
                raise ModelError(
                    f"networks.{self.name}.inputs.{spec.name}: {self._path} wants {spec.dtype} {list(spec.shape)}, "
                    f"the sensors give float32 or float16 [{wanted[0]}, {wanted[1]}, height, width]: export the "
                    f"network with float input and batch {wanted[0]} or a dynamic one"
                )

    def _check_outputs(self) -> None:
        decoder = self.config.decoder
        for role in ("labels", "hazard", "clearance"):
            tensor = getattr(decoder, role)
            if tensor is None:
                continue
            where = f"networks.{self.name}.decoder.{role}"
            array = self.outputs.get(tensor)
            if array is None:
                raise ModelError(f"{where}: {self._path} has no output {tensor!r}; it has {', '.join(self.outputs)}")
            if array.dtype != wp.float32:
                raise ModelError(f"{where}: output {tensor!r} must be float32")
            shape, batch = list(array.shape), self.batch
            if role == "labels" and (len(shape) != 4 or shape[:2] != [batch, len(decoder.classes)]):
                raise ModelError(
                    f"networks.{self.name}.decoder: output {tensor!r} of {self._path} has shape {shape}, "
                    f"{len(decoder.classes)} classes are configured: expected "
                    f"[{batch}, {len(decoder.classes)}, height, width]"
                )
            values = {"hazard": 1, "clearance": SECTOR_COUNT}.get(role)
            if values is not None and (array.size != batch * values or (batch > 1 and shape[0] != batch)):
                wanted = "one value" if values == 1 else f"{values} sectors"
                more = "" if batch == 1 else f" for each of {batch} images"
                raise ModelError(f"{where}: output {tensor!r} has shape {shape}, expected {wanted}{more}")

    def _only_checked(self) -> list[wp.array]:
        """Outputs that nobody decodes."""
        decoder = self.config.decoder
        decoded = (decoder.labels, decoder.hazard, decoder.clearance)
        return [array for tensor, array in self.outputs.items() if tensor not in decoded and array.dtype == wp.float32]

    def _make_labels(self) -> None:
        decoder = self.config.decoder
        if decoder.labels is None:
            return
        array = self.outputs[decoder.labels]
        index = [CLASSES.index(name) if name in CLASSES else NO_CLASS for name in decoder.classes]
        self._class_of_logit = wp.array(np.array(index, dtype=np.uint8), device=array.device)
        batch, _, height, width = array.shape
        self._labels = wp.zeros((batch, height, width), dtype=wp.uint8, device=array.device)
        self.labels = {sensor: self._labels[i] for i, sensor in enumerate(self.primary)}


def _shape(source: InputConfig, sensors: Mapping[str, SensorConfig]) -> tuple[int, ...]:
    """The input shape that sensors and preprocessing give."""
    sensor = sensors[source.sensors[0]]
    if isinstance(source, ImageInput):
        width, height = source.size or (sensor.width, sensor.height)  # type: ignore[union-attr]
        return (len(source.sensors), 3, height, width)
    return (1, 2, sensor.channels, sensor.columns)  # type: ignore[union-attr]


def _array(spec: TensorSpec, device: str) -> wp.array:
    return wp.zeros(spec.shape, dtype=wp.dtype_from_numpy(np.dtype(spec.dtype)), device=device)


def record_input(
    source: InputConfig, frames: Sequence[Frame], target: wp.array, sensors: Mapping[str, SensorConfig]
) -> list[wp.Launch]:
    """Returns the launches that turn frames into one input of a network, in their order.

    Args:
        source: What the input reads, and how.
        frames: Newest frame of each of its sensors.
        target: The input, shape ``(sensors, channels, height, width)``, on the frames' device.
        sensors: Configuration of the sensors by name.
    """
    if isinstance(source, ImageInput):
        images = [frame.buffers["color"] for frame in frames]
        transform = preprocess.image_transform(
            (images[0].shape[1], images[0].shape[0]),
            (target.shape[3], target.shape[2]),
            resize=source.resize,
            channel_order=source.channel_order,
            mean=source.mean,
            std=source.std,
            fill=source.fill,
        )
        return [preprocess.record_images(images, transform, target)]
    buffers = frames[0].buffers
    if "ranges" in buffers:
        scale = source.range_scale
        return [range_image.record_range_image(buffers["ranges"], buffers["intensity"], scale, target)]
    # A source of points only: they are sorted into the image that the configured LiDAR would give.
    cells = wp.zeros(target.shape[2:], dtype=wp.float32, device=target.device)
    launches = range_image.record_point_image(
        buffers["points"],
        buffers["intensity"],
        source.range_scale,
        target,
        vertical_fov=sensors[source.sensor].vertical_fov,  # type: ignore[union-attr]
        cells=cells,
    )
    launches[0].saccade_keeps = (cells,)  # the launches know its address only
    return launches
