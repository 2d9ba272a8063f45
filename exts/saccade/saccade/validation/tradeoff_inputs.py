"""The network inputs of recorded frames, as the loop would prepare them: for calibration, batches and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saccade.config import EngineConfig, ImageInput, NetworkConfig, RunConfig
from saccade.configuration import LoadedConfiguration
from saccade.errors import ConfigurationError
from saccade.frame import BACKGROUND, Frame
from saccade.kernels.preprocess import image_transform
from saccade.network import NO_CLASS, Network
from saccade.simulators.replay import ReplaySimulator
from saccade.validation.tradeoff_scenes import Scene, changed, replay_config


@dataclass(slots=True)
class SceneInputs:
    """The judged frames of one scene."""

    tensors: dict[str, np.ndarray]
    """Input by name, shape ``(frames, ...)`` without the batch axis of the network, float32."""
    truth: np.ndarray | None
    """True class on the network's own grid, shape ``(frames, height, width)``, uint8; 255 = not scored."""

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(next(iter(self.tensors.values())))


def network_config(config: RunConfig, name: str, size: tuple[int, int] | None) -> NetworkConfig:
    """Returns the configuration of a network at an input size [px], ``None`` = its own."""
    network = config.networks[name]
    if size is None:
        return network
    inputs = {
        tensor: changed(source, size=size) if isinstance(source, ImageInput) else source
        for tensor, source in network.inputs.items()
    }
    return network.model_copy(update={"inputs": inputs})


def read_sensors(config: RunConfig, network: NetworkConfig) -> RunConfig:
    """Returns the run with only those sensors that a network reads."""
    wanted = {sensor for source in network.inputs.values() for sensor in source.sensors}
    return config.model_copy(update={"sensors": {k: v for k, v in config.sensors.items() if k in wanted}})


def scene_inputs(
    loaded: LoadedConfiguration,
    name: str,
    model: Path,
    scene: Scene,
    *,
    size: tuple[int, int] | None = None,
    warmup: bool = False,
) -> SceneInputs:
    """Returns a network's inputs for the frames of a recorded scene, prepared on the CPU.

    Args:
        loaded: The configuration.
        name: The network.
        model: Its ONNX file, for the shapes of its inputs.
        scene: A recorded scene.
        size: Width and height of its image inputs [px], ``None`` = its own.
        warmup: Whether frames of the warm-up are taken, too.
    """
    network_section = network_config(loaded.config, name, size)
    config = read_sensors(replay_config(loaded.config, scene, device="cpu"), network_section)
    network = Network(
        name,
        network_section,
        model,
        sensors=config.sensors,
        engine=EngineConfig(backend="onnxruntime", precision="fp32", threads=config.engine.threads),
    )
    simulator = ReplaySimulator(config.model_copy(update={"networks": {name: network_section}}), scene.directory, "cpu")
    rows: dict[str, list[np.ndarray]] = {tensor: [] for tensor in network_section.inputs}
    truths: list[np.ndarray] = []
    try:
        simulator.open("")
        newest: dict[str, Frame] = {}
        skip = 0 if warmup else config.run.warmup
        for tick in range(config.run.warmup + config.run.frames):
            frames = simulator.sense()
            while not frames:
                simulator.step(None)
                frames = simulator.sense()
            newest.update({frame.sensor: frame for frame in frames})
            due = set(network.primary) <= {frame.sensor for frame in frames} and set(network.sensors) <= newest.keys()
            if due and tick >= skip:
                for tensor, found in rows.items():
                    network.input_work(tensor, newest).run()
                    found.append(network.input_array(tensor).numpy()[: network.batch].copy())
                frame = newest[network.primary[0]]
                labels = simulator.ground_truth(frame).labels
                if labels is not None and network.labels:
                    shape = next(iter(network.labels.values())).shape
                    truths.append(_on_grid(labels.numpy(), network_section, frame, (shape[0], shape[1])))
            simulator.step(None)
    finally:
        simulator.close()
        network.close()
    if not next(iter(rows.values())):
        raise ConfigurationError(f"{scene.directory}: no frame of the recording feeds network {name!r}")
    tensors = {tensor: np.concatenate(found).astype(np.float32, copy=False) for tensor, found in rows.items()}
    whole = len(truths) == len(next(iter(tensors.values())))
    return SceneInputs(tensors, np.stack(truths) if truths and whole else None)


def check_disjoint(calibration: Sequence[str], evaluation: Mapping[str, Sequence[str]], source: str) -> None:
    """Makes sure that nothing is measured on what the scales were measured on.

    Args:
        calibration: Hashes of the calibration samples.
        evaluation: Hashes by scene.
        source: Where the calibration samples come from, for the text.

    Raises:
        ConfigurationError: Samples are in both; the text says how many and of which scene.
    """
    known = set(calibration)
    for scene, hashes in evaluation.items():
        shared = sum(value in known for value in hashes)
        if shared:
            raise ConfigurationError(
                f"{source}: {shared} of the {len(hashes)} frames of {scene}, on which candidates are measured, are "
                "calibration samples as well: calibrate on other frames (tradeoff.calibration: null takes some), or "
                "measure on other scenes (tradeoff.seed, tradeoff.recordings)"
            )


def _on_grid(labels: np.ndarray, network: NetworkConfig, frame: Frame, shape: tuple[int, int]) -> np.ndarray:
    """Nearest sampling at the network's resolution, through the same stretch or letterbox as the image."""
    source = next(s for s in network.inputs.values() if frame.sensor in s.sensors)
    resize = source.resize if isinstance(source, ImageInput) else "stretch"
    found = labels
    if labels.shape != shape or resize == "letterbox":
        transform = image_transform((labels.shape[1], labels.shape[0]), (shape[1], shape[0]), resize=resize)
        ys, xs = np.arange(shape[0], dtype=np.float32), np.arange(shape[1], dtype=np.float32)
        rows = np.clip(_rounded(ys * transform.step_y + transform.origin_y), 0, labels.shape[0] - 1)
        columns = np.clip(_rounded(xs * transform.step_x + transform.origin_x), 0, labels.shape[1] - 1)
        found = np.full(shape, NO_CLASS, np.uint8)
        box = np.s_[transform.top : transform.bottom, transform.left : transform.right]
        found[box] = labels[rows[:, None], columns[None, :]][box]
    if frame.kind == "lidar":
        found = np.where(found == BACKGROUND, np.uint8(NO_CLASS), found)
    return found.astype(np.uint8)


def _rounded(values: np.ndarray) -> np.ndarray:
    """Halves away from zero, as the scorer's kernel rounds them."""
    return (np.sign(values) * np.floor(np.abs(values) + 0.5)).astype(np.int64)
