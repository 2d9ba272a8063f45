"""What ``saccade node`` runs: a configuration file, or one made from an ONNX file's inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade import paths
from saccade.config import CameraConfig, RunConfig
from saccade.configuration import LoadedConfiguration, configuration_from, load_configuration
from saccade.errors import ConfigurationError, ModelError
from saccade.frame import CLASS_COUNT, SECTOR_COUNT

CAMERA_TOPIC = "/camera/image_raw"
LIDAR_TOPIC = "/lidar/points"
OPEN_IMAGE = 224
"""Pixels of a side where the network leaves them open."""
OPEN_RANGE_IMAGE = (32, 1024)
"""Channels and columns where the network leaves them open."""


def node_configuration(
    target: str, *, overrides: Sequence[str] = (), device: str | None = None, engine: str | None = None
) -> LoadedConfiguration:
    """Returns the configuration that a model or a configuration file means.

    Args:
        target: ONNX file or the name of a shipped one, or configuration file or the name of a shipped one.
        overrides: ``"a.b.c=value"``, applied last.
        device: Sets ``simulator.device``.
        engine: Sets ``engine.backend``.

    Raises:
        ModelError: The network takes something that no camera or LiDAR gives.
        ConfigurationError: A field is wrong, or a network waits for several cameras at once.
    """
    if Path(target).suffix in (".plan", ".engine", ".trt"):
        raise ModelError(f"{target}: a plan does not say what it takes: name it in a configuration file's networks")
    if Path(target).suffix == ".onnx":
        path = paths.resolve(target, "model")
        loaded = configuration_from(
            document_from_model(path), path=path, overrides=overrides, device=device, engine=engine
        )
    else:
        loaded = load_configuration(target, overrides=overrides, device=device, engine=engine)
    if not loaded.config.networks:
        raise ConfigurationError("networks: a node needs at least one network, such as saccade node camera.onnx")
    for name, network in loaded.config.networks.items():
        for tensor, source in network.inputs.items():
            if len(source.sensors) > 1:
                raise ConfigurationError(
                    f"networks.{name}.inputs.{tensor}.sensor: a node runs on each image as it arrives, and this input "
                    f"waits for {len(source.sensors)} cameras at once: give each camera a network of its own"
                )
        loaded.model_path(name)
    return loaded


def sensor_topics(config: RunConfig, wanted: Sequence[str] = ()) -> dict[str, str]:
    """Returns the topic of each sensor that a network reads.

    Args:
        config: Sensors and networks.
        wanted: ``SENSOR=TOPIC``, or only a topic where there is one sensor.

    Raises:
        ConfigurationError: A sensor is not known, or a topic cannot be assigned.
    """
    read = list(dict.fromkeys(s for n in config.networks.values() for i in n.inputs.values() for s in i.sensors))
    found = _default_topics(config, read)
    for text in wanted:
        sensor, separator, topic = text.partition("=")
        if not separator:
            if len(read) != 1:
                raise ConfigurationError(f"--topic {text!r}: say for which sensor, {' or '.join(read)}: SENSOR=TOPIC")
            sensor, topic = read[0], text
        if sensor not in read:
            raise ConfigurationError(f"--topic {text!r}: no network reads a sensor {sensor!r}; read are: {read}")
        found[sensor] = topic
    if len(set(found.values())) < len(found):
        raise ConfigurationError(f"--topic: each sensor needs a topic of its own, got {found}")
    return found


def document_from_model(path: Path) -> dict[str, Any]:
    """Returns the configuration of one network on one sensor, as its inputs and outputs tell.

    Outputs named ``labels``, ``hazard`` and ``clearance`` are decoded where their shapes fit.

    Raises:
        ModelError: It has several inputs, or one that neither a camera nor a LiDAR gives.
    """
    inputs, outputs = _tensors(path)
    described = ", ".join(f"{name} {list(shape)}" for name, shape in inputs.items())
    if len(inputs) != 1 or any(len(shape) != 4 for shape in inputs.values()):
        raise ModelError(
            f"{path}: a node takes networks with one image [1, 3, height, width] or range image "
            f"[1, 2, channels, columns] by themselves; this one's inputs are: {described}. Say in a configuration "
            f"file which sensor feeds which"
        )
    ((tensor, shape),) = inputs.items()
    if shape[1] == 3:
        height, width = (size if isinstance(size, int) else OPEN_IMAGE for size in shape[2:])
        sensor = {"kind": "camera", "prim": "camera", "width": width, "height": height}
        source = {"kind": "image", "sensor": "camera"}
    elif shape[1] == 2:
        channels, columns = (
            size if isinstance(size, int) else usual for size, usual in zip(shape[2:], OPEN_RANGE_IMAGE, strict=True)
        )
        sensor = {"kind": "lidar", "prim": "lidar", "channels": channels, "columns": columns}
        source = {"kind": "range_image", "sensor": "lidar"}
    else:
        raise ModelError(f"{path}: input {described} has neither 3 channels (an image) nor 2 (a range image)")
    return {
        "scene": "none",
        "sensors": {sensor["kind"]: sensor},
        "networks": {sensor["kind"]: {"model": str(path), "inputs": {tensor: source}, "decoder": _decoder(outputs)}},
    }


def _decoder(outputs: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    found = {}
    for role, values in (("labels", CLASS_COUNT), ("hazard", 1), ("clearance", SECTOR_COUNT)):
        shape = list(outputs.get(role, ()))
        if (len(shape) == 4 and role == "labels" and shape[1] == values) or (
            role != "labels" and shape and shape[1:] in ([values], [values, 1])
        ):
            found[role] = role
    return found


def _tensors(path: Path) -> tuple[dict[str, Sequence[Any]], dict[str, Sequence[Any]]]:
    """Shapes of inputs and outputs by name; open dimensions are names."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"{path}: ONNX Runtime cannot read it: {error}. Is it an ONNX file?") from error
    inputs = {node.name: node.shape for node in session.get_inputs()}
    return inputs, {node.name: node.shape for node in session.get_outputs()}


def _default_topics(config: RunConfig, sensors: Sequence[str]) -> dict[str, str]:
    """The usual topic where there is one camera or LiDAR, else what a validation run publishes by the sensor's name."""
    from saccade.bridge.names import token

    cameras = [name for name in sensors if isinstance(config.sensors[name], CameraConfig)]
    found = {}
    for name in sensors:
        camera = name in cameras
        alone = len(cameras) == 1 if camera else len(sensors) - len(cameras) == 1
        usual = CAMERA_TOPIC if camera else LIDAR_TOPIC
        found[name] = usual if alone else f"/{token(name)}/{'image_raw' if camera else 'points'}"
    return found
