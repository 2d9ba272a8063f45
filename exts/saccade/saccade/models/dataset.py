"""Datasets from the simulator: rendered once from randomised layouts, kept as one compressed shard per layout.

A dataset is a folder with ``dataset.json`` and ``<part>/<kind>_<seed>.npz``. Reading one needs NumPy and Pillow only,
so that a rendered dataset can be carried to another machine; rendering needs the embedded simulator.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from saccade.errors import ConfigurationError
from saccade.models.export import atomic_path
from saccade.models.progress import Report, silent

GENERATOR_VERSION = 1
"""Raised when samples come out differently; part of every dataset's key."""

PARTS = ("train", "validation", "test")
FIRST_SEED = {"train": 1_000_000, "validation": 5_000_000, "test": 9_000_000}
"""First scene seed of each part for data seed 0. Parts never share a layout, and no shipped scene has such a seed."""
SCENES = {"train": 80, "validation": 12, "test": 16}
"""Layouts by part where nothing else is asked for."""
POSES = 40
"""Samples per layout."""

KINDS = ("camera", "lidar")
SENSORS: dict[str, dict[str, Any]] = {
    "camera": {
        "kind": "camera",
        "prim": "head_camera",
        "width": 224,
        "height": 224,
        "outputs": ["color", "depth", "labels"],
    },
    "lidar": {
        "kind": "lidar",
        "prim": "lidar_mount",
        "channels": 32,
        "columns": 1024,
        "vertical_fov": [-45.0, 15.0],
        "range_max": 30.0,
        "outputs": ["ranges", "intensity", "labels"],
    },
}
"""The sensors as configured for rendering, without noise: training adds its own."""

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""Applied to RGB scaled to 0..1, as in the configuration's image input."""

SCORING_NOISE = {
    "camera": {"shot": 2.0, "read": 1.0},
    "lidar": {"range_std": 0.01, "dropout": 0.01},
}
"""Sensor noise while scoring; units as in the sensors' noise sections of the configuration."""

RANGE_STEP = 0.002
"""Resolution of stored ranges [m]."""

_SEEDS_PER_DATA_SEED = 10_000
_IMAGE_QUALITY = 93
_INTENSITY_STEP = 4


def scene_seeds(part: str, *, data_seed: int, count: int) -> list[int]:
    """Returns the scene seeds of a part; those of different parts and data seeds are disjoint.

    Raises:
        ConfigurationError: A part would run into the next one's seeds.
    """
    if not 0 <= data_seed < 100:
        raise ConfigurationError(f"data seed {data_seed}: choose one from 0 to 99")
    if not 1 <= count <= _SEEDS_PER_DATA_SEED:
        raise ConfigurationError(f"{count} layouts: choose from 1 to {_SEEDS_PER_DATA_SEED}")
    first = FIRST_SEED[part] + data_seed * _SEEDS_PER_DATA_SEED
    return list(range(first, first + count))


def scene_counts(train: int) -> dict[str, int]:
    """Returns the number of layouts by part for a number of training layouts."""
    share = train / SCENES["train"]
    return {part: train if part == "train" else max(2, round(count * share)) for part, count in SCENES.items()}


def dataset_key(*, data_seed: int, counts: dict[str, int], poses: int) -> str:
    """Returns a name for a dataset that changes with everything that its samples depend on."""
    scenes = Path(__file__).resolve().parent.parent / "scenes"
    digest = hashlib.sha256(json.dumps([GENERATOR_VERSION, data_seed, counts, poses, SENSORS], sort_keys=True).encode())
    for source in sorted(scenes.glob("author*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def ensure_dataset(
    kind: str,
    *,
    cache: Path | None = None,
    data_seed: int = 0,
    scenes: int = SCENES["train"],
    poses: int = POSES,
    workers: int | None = None,
    report: Report = silent,
) -> Path:
    """Returns the folder of a complete dataset; what is missing is rendered, what is there is kept.

    Args:
        kind: ``"camera"`` or ``"lidar"``; a layout is rendered for both at once.
        cache: A dataset's own folder, taken as it is; or a folder of datasets; ``None`` = the user's cache folder.
        data_seed: Chooses other layouts.
        scenes: Training layouts.
        poses: Samples per layout.
        workers: Processes; ``None`` = one per core, at most 8.
        report: Called as scenes are done.

    Raises:
        DependencyError: Rendering is needed, and the embedded simulator is not installed.
    """
    counts = scene_counts(scenes)
    if cache is not None and (Path(cache) / "dataset.json").is_file():
        folder = Path(cache)
        manifest = read_manifest(folder)
    else:
        root = Path(cache) if cache is not None else _user_cache() / "datasets"
        folder = root / dataset_key(data_seed=data_seed, counts=counts, poses=poses)
        manifest = _manifest(data_seed, counts, poses)
    missing = [(part, seed) for part, seed in _shards(manifest) if not shard_path(folder, part, kind, seed).is_file()]
    if missing or not (folder / "dataset.json").is_file():
        from saccade.models.rendering import render_scenes

        # All parts grow at the same pace, so that an unfinished dataset is already a small one.
        first, size = {p: s[0] for p, s in manifest["seeds"].items()}, {p: len(s) for p, s in manifest["seeds"].items()}
        missing.sort(key=lambda shard: ((shard[1] - first[shard[0]]) / size[shard[0]], shard[0]))
        render_scenes(folder, manifest, missing, workers=workers, report=report)
    return folder


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saccade"


def _manifest(data_seed: int, counts: dict[str, int], poses: int) -> dict[str, Any]:
    return {
        "schema": 1,
        "generator": GENERATOR_VERSION,
        "renderer": "newton",
        "data_seed": data_seed,
        "poses": poses,
        "seeds": {part: scene_seeds(part, data_seed=data_seed, count=counts[part]) for part in PARTS},
        "sensors": SENSORS,
        "versions": {},
        "minutes": 0.0,
    }


def _shards(manifest: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for part in PARTS:
        for seed in manifest["seeds"][part]:
            yield part, seed


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns what a dataset was made from.

    Raises:
        ConfigurationError: The folder holds no readable dataset.
    """
    path = Path(folder) / "dataset.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for name in ("generator", "data_seed", "seeds", "sensors", "renderer", "versions"):
            manifest[name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: no readable dataset ({error}): leave --cache out, and one is rendered"
        ) from error
    return manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes ``dataset.json``, whole or not at all."""
    with atomic_path(folder / "dataset.json") as path:
        path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def shard_path(folder: Path, part: str, kind: str, seed: int) -> Path:
    """Returns where the samples of one layout lie."""
    return Path(folder) / part / f"{kind}_{seed}.npz"


def load_part(folder: Path, kind: str, part: str, *, at_most: int | None = None) -> dict[str, np.ndarray]:
    """Returns the samples of a part, concatenated; arrays as documented at :func:`write_shard`.

    Args:
        folder: The dataset's folder.
        kind: ``"camera"`` or ``"lidar"``.
        part: One of :data:`PARTS`.
        at_most: Takes only so many, as evenly from as many layouts as can be read in little time; ``None`` = all.

    Raises:
        ConfigurationError: A shard is missing or damaged; the text names it.
    """
    manifest = read_manifest(folder)
    seeds = manifest["seeds"][part]
    each: int | None = None
    if at_most is not None:
        # From half of a layout's samples on, further layouts cost more time than they add.
        layouts = min(len(seeds), max(1, -(-2 * at_most // int(manifest.get("poses") or POSES))))
        seeds = [seeds[row] for row in np.unique(np.linspace(0, len(seeds) - 1, layouts).astype(int))]
        each = -(-at_most // len(seeds))
    shards = []
    for seed in seeds:
        path = shard_path(folder, part, kind, seed)
        try:
            shards.append(_some(read_shard(path, kind), each))
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"{path}: this part of the dataset is missing: start again, and it is rendered"
            ) from error
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, lzma.LZMAError) as error:
            raise ConfigurationError(f"{path}: damaged ({error}): delete it, and it is rendered again") from error
    return {name: np.concatenate([shard[name] for shard in shards])[:at_most] for name in shards[0]}


def _some(samples: dict[str, np.ndarray], count: int | None) -> dict[str, np.ndarray]:
    have = len(samples["labels"])
    if count is None or count >= have:
        return samples
    rows = np.unique(np.linspace(0, have - 1, count).astype(int))
    return {name: array[rows] for name, array in samples.items()}


def write_shard(path: Path, kind: str, samples: dict[str, np.ndarray]) -> None:
    """Writes the samples of one layout, whole or not at all.

    Args:
        path: The file.
        kind: ``"camera"``: ``images`` RGB uint8 ``(n, 224, 224, 3)`` (stored as WebP of quality 93, which is
            off by one or two counts), ``labels`` uint8 ``(n, 224, 224)``, ``proximity`` bool ``(n, 28, 28)``,
            ``nearness`` uint8 ``(n, 28, 28)`` = 255 / (1 + depth [m]), ``hazard`` bool ``(n,)``. ``"lidar"``:
            ``ranges`` [m] float32 ``(n, 32, 1024)`` (stored to 2 mm), ``intensity`` uint8 (to 4 counts), ``labels``
            uint8, ``gate`` bool, all of that shape, ``clearance`` [m] float32 ``(n, 16)``. Both: ``poses`` x, y [m],
            yaw [rad], float32 ``(n, 3)``.
        samples: Those arrays.
    """
    stored: dict[str, np.ndarray] = {}
    for name, array in samples.items():
        if name == "images":
            stored["images.webp"], stored["images.ends"] = _compressed(array)
        elif name == "ranges":
            stored.update(_packed(name, _differences(np.rint(array / RANGE_STEP).astype(np.uint16))))
        elif name == "intensity":
            stored.update(_packed(name, _differences(array // _INTENSITY_STEP)))
        elif array.size > 4096:
            stored.update(_packed(name, array))
        else:
            stored[name] = array
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **stored)  # type: ignore[arg-type]


def read_shard(path: Path, kind: str) -> dict[str, np.ndarray]:
    """Returns the arrays of :func:`write_shard`."""
    samples: dict[str, np.ndarray] = {}
    # Opened here, so that it is closed when NumPy finds it damaged.
    with path.open("rb") as file, np.load(file) as stored:
        for name in stored.files:
            if name == "images.webp":
                samples["images"] = _images(stored[name], stored["images.ends"])
            elif name.endswith(".lzma"):
                plain = name[: -len(".lzma")]
                samples[plain] = _unpacked(stored[name], stored[plain + ".like"])
            elif "." not in name:
                samples[name] = stored[name]
    if kind == "lidar":
        samples["ranges"] = _sums(samples["ranges"]).astype(np.float32) * np.float32(RANGE_STEP)
        samples["intensity"] = _sums(samples["intensity"]) * _INTENSITY_STEP + _INTENSITY_STEP // 2
    return samples


def _differences(array: np.ndarray) -> np.ndarray:
    """Returns neighbours' differences along the columns; they repeat, and so compress several times better."""
    return np.diff(array, axis=-1, prepend=np.zeros_like(array[..., :1]))


def _sums(array: np.ndarray) -> np.ndarray:
    return np.cumsum(array, axis=-1, dtype=array.dtype)


def _packed(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    flat = np.packbits(array) if array.dtype == bool else np.ascontiguousarray(array)
    # Low and high bytes apart: the high ones are nearly all zero.
    data = flat.reshape(-1).view(np.uint8).reshape(-1, flat.itemsize).T.tobytes()
    packed = lzma.compress(data, format=lzma.FORMAT_XZ, preset=4)
    return {
        f"{name}.lzma": np.frombuffer(packed, np.uint8),
        f"{name}.like": np.array([array.dtype.str, *map(str, array.shape)]),
    }


def _unpacked(packed: np.ndarray, like: np.ndarray) -> np.ndarray:
    dtype, shape = np.dtype(str(like[0])), tuple(int(n) for n in like[1:])
    data = np.frombuffer(lzma.decompress(packed.tobytes()), np.uint8)
    if dtype.kind == "b":
        return np.unpackbits(data, count=int(np.prod(shape))).astype(bool).reshape(shape)
    return np.ascontiguousarray(data.reshape(dtype.itemsize, -1).T).view(dtype).reshape(shape)


def _compressed(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    parts = []
    for image in images:
        out = io.BytesIO()
        Image.fromarray(image).save(out, "WEBP", quality=_IMAGE_QUALITY)
        parts.append(out.getvalue())
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum([len(part) for part in parts])


def _images(data: np.ndarray, ends: np.ndarray) -> np.ndarray:
    from PIL import Image

    starts = [0, *ends[:-1].tolist()]
    return np.stack(
        [
            np.asarray(Image.open(io.BytesIO(data[a:b].tobytes())).convert("RGB"))
            for a, b in zip(starts, ends.tolist(), strict=True)
        ]
    )
