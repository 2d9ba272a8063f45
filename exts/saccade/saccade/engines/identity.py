"""What decides an engine: hashes of the network and its calibration set, options, GPU, TensorRT and driver."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saccade import __version__
from saccade.engines.options import BuildOptions
from saccade.engines.versions import int8_route
from saccade.errors import DependencyError, EngineError, ModelError

CALIBRATED_BUILD = 2
"""Counted up when builds with TensorRT's calibrator change: engines from before are then built anew."""

_TITLES = {
    "onnx": "the ONNX file changed",
    "calibration": "the calibration set changed",
    "saccade": "Saccade",
    "calibrated_build": "way of calibrating",
    "platform.tensorrt": "TensorRT",
    "platform.gpu": "GPU",
    "platform.sm": "SM",
    "platform.driver": "driver",
}


@dataclass(frozen=True, slots=True)
class Platform:
    """What an engine is built for."""

    tensorrt: str
    gpu: str
    """Name of the GPU."""
    sm: str
    """Its compute capability, such as ``"90"``."""
    driver: str

    @classmethod
    def here(cls, device: str = "cuda:0") -> Platform:
        """Returns that of ``device``.

        Raises:
            DependencyError: TensorRT is not installed, or there is no such device.
        """
        from saccade import cuda

        facts = cuda.driver_facts(device)
        try:
            import tensorrt
        except ImportError as error:
            raise DependencyError(f"TensorRT does not import ({error}): pip install tensorrt") from error
        # Where only the driver's CUDA version is known, that is the best there is.
        driver = facts["driver"] or f"CUDA {facts['cuda']}"
        return cls(str(tensorrt.__version__), facts["name"], facts["sm"], driver)

    def as_dict(self) -> dict[str, str]:
        """Returns its fields by name."""
        return asdict(self)


def parts(onnx: Path, options: BuildOptions, platform: Platform) -> dict[str, Any]:
    """Returns everything that can change the engine, ready for JSON.

    Raises:
        ModelError: The ONNX file, its external data or the calibration set cannot be read.
    """
    calibration = options.calibration if options.precision == "int8" else None
    found = {
        "name": onnx.name,
        "onnx": onnx_hash(onnx),
        "calibration": None if calibration is None else calibration_hash(calibration),
        "options": json.loads(json.dumps(options.as_dict(), allow_nan=False)),
        "platform": platform.as_dict(),
        "saccade": __version__,
    }
    if calibration is not None and int8_route(platform.tensorrt) == "calibrator":
        found["calibrated_build"] = CALIBRATED_BUILD
    return found


def key_of(content: Mapping[str, Any]) -> str:
    """Returns the key of an engine with that content: 32 hexadecimal digits. A network's file name is no part of it."""
    decisive = {name: value for name, value in content.items() if name != "name"}
    text = json.dumps(decisive, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def differences(former: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns in words what differs between the parts of two engines, such as ``"driver 570.1 -> 580.2"``."""
    old, new = _flat(former), _flat(now)
    found = []
    for name in dict.fromkeys((*new, *old)):
        before, after = old.get(name), new.get(name)
        if before == after or name == "name":
            continue
        title = _TITLES.get(name, name.rpartition(".")[2].replace("_", " "))
        found.append(title if name in ("onnx", "calibration") else f"{title} {_word(before)} -> {_word(after)}")
    return found


def check_platform(told: Mapping[str, Any], here: Platform, name: str) -> None:
    """Refuses a plan whose manifest says that it was built for another platform.

    Raises:
        EngineError: It was; the text says what differs.
    """
    other = differences({"platform": told}, {"platform": here.as_dict()}) if told else []
    if other:
        raise EngineError(f"{name}: this plan was built for another platform: {', '.join(other)}. Build it here")


def onnx_hash(path: Path) -> str:
    """Returns the SHA-256 of an ONNX file, where there are some together with the files that hold its weights.

    Raises:
        ModelError: One of them cannot be read.
        DependencyError: It has external weights, and ``onnx``, which finds them, is not installed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read this network: {error.strerror}. Check networks.*.model") from error
    own = hashlib.sha256(data)
    locations = _external_files(path, data)
    if not locations:
        return own.hexdigest()
    total = hashlib.sha256(own.digest())
    for location in locations:
        try:
            content = _file_hash(path.parent / location)
        except OSError as error:
            raise ModelError(
                f"{path}: its weights are in {location}, which cannot be read: {error.strerror}. "
                f"Copy it beside the .onnx file"
            ) from error
        total.update(location.encode() + b"\0" + content)
    return total.hexdigest()


def calibration_hash(path: Path) -> str:
    """Returns the SHA-256 of a calibration set: a file, or the names and contents of a folder's .npy files.

    Raises:
        ModelError: It cannot be read, or the folder has none.
    """
    try:
        if not path.is_dir():
            return _file_hash(path).hex()
        names = sorted(file.name for file in path.glob("*.npy"))
        total = hashlib.sha256()
        for name in names:
            total.update(name.encode() + b"\0" + _file_hash(path / name))
    except OSError as error:
        raise ModelError(f"{path}: cannot read this calibration set: {error.strerror}") from error
    if not names:
        raise ModelError(f"{path}: this folder has no .npy file: expected one per calibration sample, or a .npz file")
    return total.hexdigest()


def _file_hash(path: Path) -> bytes:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.digest()


def _external_files(path: Path, data: bytes) -> list[str]:
    """The files that hold tensors of the model, relative to its folder; most models have none."""
    if b"location" not in data:  # the key that every external tensor has: what lacks it need not be parsed
        return []
    try:
        import onnx
    except ImportError as error:
        raise DependencyError(f"{path}: finding its external weights needs onnx: pip install onnx") from error
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:
        raise ModelError(f"{path}: not a complete ONNX file: {error}") from error
    found: set[str] = set()
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            found.update(entry.value for entry in tensor.external_data if entry.key == "location")
    return sorted(found)


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of a graph and of the graphs inside its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            flat.update(_flat(item, f"{prefix}{name}."))
        else:
            flat[prefix + name] = item
    return flat


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return json.dumps(value, separators=(",", ":"))
    return "none" if value is None else str(value)
