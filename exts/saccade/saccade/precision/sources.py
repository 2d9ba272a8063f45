"""Where samples come from: the simulator, a recorded run, a folder of images or arrays, an archive."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.errors import ConfigurationError, RecordError
from saccade.models import dataset
from saccade.precision.int8 import UNNAMED, calibration_arrays, fitted_samples
from saccade.precision.samples import USUAL_SAMPLES, Samples

if TYPE_CHECKING:
    import onnx

SIMULATOR = "simulator"
"""Named instead of a path: frames of the embedded simulator's random layouts, rendered where they are missing."""

HOW_TO_RECORD = "record it with: saccade validate --set record.sensors=true"

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")

LAYOUTS = 13
"""Training layouts to render where no dataset is given: 520 frames to calibrate on, 120 of others to evaluate on."""

_PART = {"calibration": "train", "selection": "validation", "evaluation": "test"}


@dataclass(frozen=True, slots=True)
class ImagePreparation:
    """How pictures become a network input; the defaults are those of the configuration's image input."""

    mean: tuple[float, float, float] = dataset.IMAGE_MEAN
    """Subtracted from the channels scaled to 0..1."""
    std: tuple[float, float, float] = dataset.IMAGE_STD
    """Divides what remains."""
    channel_order: str = "rgb"
    """``"rgb"`` or ``"bgr"``."""

    def tensor(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 ``(n, 3, height, width)`` from RGB 0..1 ``(n, height, width, 3)``."""
        ordered = images[..., ::-1] if self.channel_order == "bgr" else images
        scaled = (ordered - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


def input_shapes(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Returns the shape of each input of a network, ``None`` for open sizes."""
    constants = {constant.name for constant in model.graph.initializer}
    return {
        info.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in info.type.tensor_type.shape.dim)
        for info in model.graph.input
        if info.name not in constants
    }


def samples_from(
    source: str | Path,
    shapes: Mapping[str, Sequence[int | None]],
    *,
    role: str = "calibration",
    count: int = USUAL_SAMPLES,
    cache: Path | None = None,
    preparation: ImagePreparation | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Samples:
    """Reads samples for a network with the given inputs.

    Args:
        source: :data:`SIMULATOR`; the folder of a rendered dataset; the folder of a run recorded with
            ``record.sensors=true``; a folder of images or of .npy files; or a .npz file.
        shapes: Shape of each input, batch axis first, ``None`` for open sizes.
        role: ``"calibration"``, ``"selection"`` or ``"evaluation"``: of a dataset, the layouts that are for it.
        count: Most samples to take, from all over the source.
        cache: Where rendered datasets are kept; ``None`` = the user's cache folder.
        preparation: How pictures become an input.
        say: Told what is going on.

    Raises:
        ConfigurationError: The source cannot be read, or does not fit the inputs.
        DependencyError: Frames must be rendered and the simulator is not installed.
        RecordError: The recording is damaged.
    """
    preparation = preparation or ImagePreparation()
    if str(source) == SIMULATOR or (Path(source) / "dataset.json").is_file():
        return _simulated(source, shapes, role, count, cache, preparation, say)
    path = Path(source)
    if (path / "sensors").is_dir():
        return _recorded(path, shapes, count, preparation)
    if path.is_dir() and any(file.suffix.lower() in IMAGES for file in path.iterdir()):
        return _pictures(path, shapes, count, preparation)
    arrays = calibration_arrays(path)
    if set(arrays) == {UNNAMED} and len(shapes) == 1:
        arrays = {next(iter(shapes)): arrays[UNNAMED]}
    fitted = fitted_samples(arrays, shapes, allow_few=True)
    samples = Samples({name: array.astype(np.float32, copy=False) for name, array in fitted.items()}, str(path))
    return samples.spread(count)


def kind_of(shapes: Mapping[str, Sequence[int | None]]) -> str | None:
    """Returns which sensor the only input is for: ``"camera"`` (3 channels), ``"lidar"`` (2), else ``None``."""
    if len(shapes) != 1:
        return None
    (shape,) = shapes.values()
    if len(shape) != 4:
        return None
    return {3: "camera", 2: "lidar"}.get(shape[1] or 0)


def _simulated(
    source: str | Path,
    shapes: Mapping[str, Sequence[int | None]],
    role: str,
    count: int,
    cache: Path | None,
    preparation: ImagePreparation,
    say: Callable[[str], None],
) -> Samples:
    kind = kind_of(shapes)
    if kind is None:
        described = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ConfigurationError(
            f"calibration from the simulator needs a network with one image [n, 3, height, width] or range image "
            f"[n, 2, 32, 1024]; this one's inputs are: {described}. Give a .npz file with one array per input"
        )

    def report(stage: str, done: int, total: int, note: str = "") -> None:
        say(f"rendering {stage} {done}/{total} {note}".rstrip())

    folder = dataset.ensure_dataset(
        kind, cache=cache if str(source) == SIMULATOR else Path(source), scenes=LAYOUTS, report=report
    )
    ((name, shape),) = shapes.items()
    part = dataset.load_part(folder, kind, _PART[role], at_most=count)
    where = f"{folder.name}/{_PART[role]}"
    if kind == "lidar":
        wanted = (dataset.SENSORS["lidar"]["channels"], dataset.SENSORS["lidar"]["columns"])
        if any(size not in (None, fixed) for size, fixed in zip(shape[2:], wanted, strict=True)):
            raise ConfigurationError(f"the simulator's range images are {wanted}, input {name!r} takes {shape[2:]}")
        image, valid = _noisy_scans(part["ranges"], part["intensity"])
        truth = {"labels": part["labels"], "valid": valid, "clearance": part["clearance"]}
        return Samples({name: image}, where, truth)
    height, width = (size or fixed for size, fixed in zip(shape[2:], part["labels"].shape[1:], strict=True))
    images, labels = part["images"], part["labels"]
    if (height, width) != labels.shape[1:]:
        images = np.stack([_resized(image, (width, height)) for image in images])
        labels = np.stack([_resized(label, (width, height), nearest=True) for label in labels])
    truth = {"labels": labels, "hazard": part["hazard"].astype(bool)}
    return Samples({name: preparation.tensor(_noisy_images(images))}, where, truth)


def _generator(array: np.ndarray) -> np.random.Generator:
    """A source of noise that depends on the frame alone: the same frame is the same sample wherever it is read."""
    return np.random.default_rng(list(hashlib.sha256(np.ascontiguousarray(array).data).digest()[:16]))


def _noisy_images(images: np.ndarray) -> np.ndarray:
    """Returns RGB 0..1 with the scoring noise, as :func:`saccade.models.augmentation.image_noise` adds it."""
    noise = dataset.SCORING_NOISE["camera"]
    found = np.empty(images.shape, np.float32)
    for index, raw in enumerate(images):
        image = raw.astype(np.float32) / 255
        spread = np.sqrt(image * noise["shot"] ** 2 + noise["read"] ** 2) / 255
        noisy = image + spread * _generator(raw).standard_normal(image.shape, np.float32)
        found[index] = np.rint(noisy.clip(0, 1) * 255) / 255
    return found


def _noisy_scans(ranges: np.ndarray, intensity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns range images and which returns are left, as :func:`saccade.models.augmentation.lidar_batch` has them."""
    noise, limit = dataset.SCORING_NOISE["lidar"], dataset.SENSORS["lidar"]["range_max"]
    images = np.empty((len(ranges), 2, *ranges.shape[1:]), np.float32)
    valid = np.empty(ranges.shape, bool)
    for index, scan in enumerate(ranges):
        random = _generator(scan)
        kept = (scan > 0) & (random.random(scan.shape, np.float32) >= noise["dropout"])
        noisy = scan + np.float32(noise["range_std"]) * random.standard_normal(scan.shape, np.float32)
        images[index, 0] = np.where(kept, noisy.clip(min=0.05), 0) / limit
        images[index, 1] = np.where(kept, intensity[index].astype(np.float32) / 255, 0)
        valid[index] = kept
    return images, valid


def _pictures(
    folder: Path, shapes: Mapping[str, Sequence[int | None]], count: int, preparation: ImagePreparation
) -> Samples:
    from PIL import Image, UnidentifiedImageError

    if kind_of(shapes) != "camera":
        described = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ConfigurationError(
            f"{folder}: images are for networks with one input [n, 3, height, width]; this one's are: {described}"
        )
    ((name, shape),) = shapes.items()
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGES)
    chosen = [files[row] for row in np.unique(np.linspace(0, len(files) - 1, min(count, len(files))).astype(int))]
    images: list[np.ndarray] = []
    for file in chosen:
        try:
            with Image.open(file) as opened:
                picture = np.asarray(opened.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise ConfigurationError(f"{file}: cannot read this image: {error}") from error
        if shape[2] is None and shape[3] is None and images and picture.shape != images[0].shape:
            raise ConfigurationError(
                f"{file}: {picture.shape[1]}x{picture.shape[0]}, but {chosen[0].name} is "
                f"{images[0].shape[1]}x{images[0].shape[0]}: the network leaves the size open, so all must have one"
            )
        images.append(_resized(picture, (shape[3] or picture.shape[1], shape[2] or picture.shape[0])))
    tensor = preparation.tensor(np.stack(images).astype(np.float32) / 255)
    return Samples({name: tensor}, f"{folder} ({len(files)} images)")


def _resized(image: np.ndarray, size: tuple[int, int], *, nearest: bool = False) -> np.ndarray:
    from PIL import Image

    if image.shape[1::-1] == size:
        return image
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize(size, method))


def _recorded(
    folder: Path, shapes: Mapping[str, Sequence[int | None]], count: int, preparation: ImagePreparation
) -> Samples:
    """Returns the inputs that a recorded run's frames give, prepared by the kernels that the loop uses."""
    import warp as wp

    from saccade.config import RunConfig
    from saccade.network import record_input
    from saccade.simulators.replay import ReplaySimulator

    document = _configuration(folder)
    inputs = _recorded_inputs(folder, document, shapes, preparation)
    kept = {name: section for name, section in document["sensors"].items() if name in _sensors_of(inputs)}
    config = RunConfig.model_validate(
        {
            "scene": "none",
            "sensors": kept,
            "networks": {"compressed": {"model": "none.onnx", "inputs": inputs, "decoder": {}}},
            "simulator": {"backend": "replay", "pace": "lockstep"},
            "run": {"frames": 1, "warmup": 0},
        }
    )
    simulator = ReplaySimulator(config, folder, "cpu")
    simulator.open("none")
    decisions = int(simulator.facts()["recording_decisions"])
    chosen = set(np.unique(np.linspace(0, decisions - 1, min(count, decisions)).astype(int)).tolist())
    rows: dict[str, list[np.ndarray]] = {name: [] for name in inputs}
    work: dict[str, tuple[wp.array, list[wp.Launch]]] = {}
    decision = 0
    try:
        while decision < decisions:
            frames = {frame.sensor: frame for frame in simulator.sense()}
            if frames and decision in chosen and kept.keys() <= frames.keys():
                for name, source in config.networks["compressed"].inputs.items():
                    if name not in work:
                        feeding = [frames[sensor] for sensor in source.sensors]
                        target = wp.zeros(_target_shape(shapes[name], feeding), dtype=wp.float32, device="cpu")
                        work[name] = (target, record_input(source, feeding, target, config.sensors))
                    target, launches = work[name]
                    for launch in launches:
                        launch.launch()
                    rows[name].append(target.numpy()[0].copy())
            decision += bool(frames)
            simulator.step(None)
    finally:
        simulator.close()
    if not all(rows.values()):
        raise RecordError(f"{folder}: no decision of this recording has frames of all of {', '.join(sorted(kept))}")
    return Samples({name: np.stack(values) for name, values in rows.items()}, f"{folder} ({decisions} decisions)")


def _configuration(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    try:
        document = json.loads(path.read_bytes())["configuration"]
        if not isinstance(document["sensors"], dict):
            raise TypeError("configuration.sensors is no mapping")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path}: cannot read the recorded run's configuration ({error}); {HOW_TO_RECORD}") from error
    return document


def _recorded_inputs(
    folder: Path, document: Mapping[str, Any], shapes: Mapping[str, Sequence[int | None]], preparation: ImagePreparation
) -> dict[str, Any]:
    """Returns what feeds each input: as the recorded run's network has it, else the only sensor that fits."""
    for section in (document.get("networks") or {}).values():
        if set(section.get("inputs", ())) == set(shapes):
            return {
                name: entry | ({"size": None} if entry["kind"] == "image" else {})
                for name, entry in section["inputs"].items()
            }
    kind = kind_of(shapes)
    sensors = [name for name, section in document["sensors"].items() if section.get("kind") == kind]
    if kind is None or len(sensors) != 1:
        described = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ConfigurationError(
            f"{folder}: no network of this run has the inputs {described}, and it has {len(sensors)} sensors of that "
            f"kind: record a run whose configuration names this network, or give a .npz file"
        )
    if kind == "lidar":
        return {next(iter(shapes)): {"kind": "range_image", "sensor": sensors[0]}}
    image = {
        "kind": "image",
        "sensor": sensors[0],
        "mean": list(preparation.mean),
        "std": list(preparation.std),
        "channel_order": preparation.channel_order,
    }
    return {next(iter(shapes)): image}


def _sensors_of(inputs: Mapping[str, Any]) -> set[str]:
    """Returns the sensors that inputs read; of a batch of cameras the first, which stands for all."""
    found = set()
    for entry in inputs.values():
        if isinstance(entry["sensor"], list):
            entry["sensor"] = entry["sensor"][0]
        found.add(entry["sensor"])
    return found


def _target_shape(shape: Sequence[int | None], frames: Sequence[Any]) -> tuple[int, ...]:
    rows, columns = next(iter(frames[0].buffers.values())).shape[:2]
    return (1, int(shape[1] or 3), int(shape[2] or rows), int(shape[3] or columns))
