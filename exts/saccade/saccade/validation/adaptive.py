"""Adaptive precision in the loop: several engines ready, and after each frame the choice for the next one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from saccade.config import EngineConfig
from saccade.configuration import LoadedConfiguration
from saccade.engines.adaptive import AdaptiveEngine, Variant, adaptive_from_onnx
from saccade.engines.base import Engine
from saccade.errors import ConfigurationError, RecordError
from saccade.kernels.setup import cache_folder
from saccade.loop import WARMUP, Tick
from saccade.network import Network
from saccade.telemetry.load import LoadMonitor
from saccade.telemetry.recorder import write_atomic
from saccade.validation.adaptive_detections import DetectionCounter
from saccade.validation.adaptive_policy import Level, PrecisionPolicy, Signals, Switch
from saccade.validation.recommendation import RESULT_FILE, not_qualified, read_result
from saccade.validation.tradeoff_models import finds_scales_itself

FRAMES_EACH = 5
"""Frames of the warm-up that each precision runs, to know what it takes here; the first of them does not count."""


class AdaptiveControl:
    """Chooses the precision of all networks of a run, frame by frame.

    It is an observer of the loop: everything it does comes after a decision, outside the latency that is measured. In
    the warm-up every precision runs some frames in turn, so that the policy knows what each takes.

    Args:
        loaded: The configuration, with ``engine.adaptive``.
        device: Warp device of the sensors.

    Raises:
        ConfigurationError: The warm-up is too short, or a precision cannot be had.
    """

    def __init__(self, loaded: LoadedConfiguration, *, device: str) -> None:
        config = loaded.config
        assert config.engine.adaptive is not None
        self.config = config.engine.adaptive
        needed = FRAMES_EACH * len(self.config.precisions)
        if config.run.warmup < needed:
            raise ConfigurationError(
                f"run.warmup: {config.run.warmup} frames, and engine.adaptive needs at least {needed} to learn what "
                f"each of its {len(self.config.precisions)} precisions takes"
            )
        self._loaded, self._device = loaded, device
        self._deadline = self.config.deadline_ms or config.run.deadline_ms
        self._retentions = retentions(loaded)
        self._engines: list[AdaptiveEngine] = []
        self._refused: dict[str, dict[str, str]] = {}
        self._base: dict[str, list[float]] = {}
        self._frames: dict[str, int] = {}
        self._compare: dict[tuple[str, str], np.ndarray] | None = None
        self._calibrated = False
        self._pending: Switch | None = None
        self._counters: dict[int, DetectionCounter] = {}
        self.policy: PrecisionPolicy | None = None
        self.monitor = LoadMonitor(device)

    def opener(self, name: str) -> Callable[..., Engine]:
        """Returns what opens a network's engines, in place of :func:`saccade.engines.selection.engine_from_onnx`."""
        variants = variants_of(self._loaded, name, device=self._device)
        refused = self._refused.setdefault(name, {})
        first = next(iter(variants))
        for precision, why in unqualified(self._loaded, name).items():
            if precision == first:
                raise ConfigurationError(
                    f"engine.adaptive.precisions: {precision}, the most accurate one, cannot be taken for network "
                    f"{name!r}: the trade-off says that it is {why}. Leave it out"
                )
            if variants.pop(precision, None) is not None:
                refused[precision] = f"the trade-off says that it is {why}"
        return functools.partial(adaptive_from_onnx, variants=variants, refused=refused)

    def attach(self, networks: Mapping[str, Network]) -> None:
        """Takes the opened networks and makes the policy; a precision that one of them lacks is left out for all."""
        self._engines = [network.engine for network in networks.values()]  # type: ignore[misc]
        common = [p for p in self.config.precisions if all(p in engine.precisions for engine in self._engines)]
        levels = [Level(precision, self._retentions.get(precision)) for precision in common]
        self.policy = PrecisionPolicy(levels, self.config, self._deadline)
        for refused in self._refused.values():
            self.policy.excluded.update(refused)
        self._order = [level.precision for level in self.policy.levels]
        self._select(self.policy.precision)

    @property
    def precision(self) -> str:
        """What runs just now."""
        return self._engines[0].precisions[self._engines[0].level]

    def record_fields(self) -> dict[str, Any]:
        """Returns ``adaptive`` of a frame's record; a switch is told with the first frame that it holds for."""
        monitor, pending = self.monitor, self._pending
        return {
            "precision": self.precision,
            "load_percent": monitor.load_percent,
            "memory_percent": monitor.memory_percent,
            "switch": None if pending is None else pending.as_dict(),
        }

    def __call__(self, tick: Tick) -> None:
        """Looks at a decision and chooses the precision of the next one."""
        assert self.policy is not None
        self._pending = None
        took = _inference_ms(tick)
        if took is None:
            return
        name = self.precision
        self._frames[name] = self._frames.get(name, 0) + 1
        if tick.phase == WARMUP:
            self._base.setdefault(name, []).append(took)
            turn = min((tick.index + 1) // FRAMES_EACH, len(self._order))
            self._select(self._order[turn] if turn < len(self._order) else self._order[0])
            return
        if not self._calibrated:
            self._calibrated = True
            self.policy.calibrate({name: median(values[1:]) for name, values in self._base.items() if values[1:]})
        results = [result for found in tick.results.values() for result in found]
        stamps = tick.frames[0].stamps
        switch = self.policy.observe(
            Signals(
                time_s=stamps.decided * 1e-9,
                inference_ms=took,
                load_percent=self.monitor.load_percent,
                memory_percent=self.monitor.memory_percent,
                finite=all(result.finite for result in results),
                detections=self._detections(results),
                agreement=self._agreement(results),
            )
        )
        if switch is not None:
            self._pending = switch
            self._compare = _labels(results)
            self._select(switch.target)

    def facts(self) -> dict[str, Any]:
        """Returns ``adaptive`` of ``run.json``: see docs/record.md."""
        assert self.policy is not None
        return {
            **self.policy.facts(),
            "frames": dict(self._frames),
            "load_absent": self.monitor.absent,
            "tradeoff": self.config.tradeoff,
        }

    def _select(self, precision: str) -> None:
        for engine in self._engines:
            engine.select(precision)

    def _detections(self, results: Sequence[Any]) -> bool | None:
        """Whether anything but floor, walls and nothing was seen; ``None`` where no network gives labels."""
        found = [result.labels for result in results if result.labels is not None]
        if not found:
            return None
        for labels in found:
            counter = self._counters.get(labels.ptr)
            if counter is None:
                counter = self._counters[labels.ptr] = DetectionCounter(labels)
            if counter.count():
                return True
        return False

    def _agreement(self, results: Sequence[Any]) -> float | None:
        """Least share of labels that are those of the last frame before a switch; right after one only."""
        before, self._compare = self._compare, None
        if before is None:
            return None
        now = _labels(results)
        shares = [float((now[key] == labels).mean()) for key, labels in before.items() if key in now]
        return min(shares) if shares else None


def retentions(loaded: LoadedConfiguration) -> dict[str, float]:
    """Returns the share of FP32's accuracy by precision, the least of all networks, from a trade-off's result.

    Raises:
        RecordError: There is no such result.
        ConfigurationError: It does not hold one of the networks.
    """
    config = loaded.config.engine.adaptive
    if config is None or config.tradeoff is None:
        return {}
    found: dict[str, list[float]] = {}
    for name in loaded.config.networks:
        for entry in _own_entries(loaded, name):
            if not entry.get("size") and entry["retention"]["value"] is not None:
                found.setdefault(entry["precision"], []).append(float(entry["retention"]["value"]))
    return {precision: min(values) for precision, values in found.items()}


def unqualified(loaded: LoadedConfiguration, name: str) -> dict[str, str]:
    """Returns the precisions of a network whose engine differs too much from FP32 in the trade-off, and by how much."""
    config = loaded.config.engine.adaptive
    if config is None or config.tradeoff is None:
        return {}
    return {
        entry["precision"]: why
        for entry in _own_entries(loaded, name)
        if not entry.get("size") and (why := not_qualified(entry)) is not None
    }


def _own_entries(loaded: LoadedConfiguration, name: str) -> list[Mapping[str, Any]]:
    """What the trade-off measured of a network in the loop, without pruning."""
    path = _tradeoff(loaded)
    entries = read_result(path)["candidates"]
    own = [e for e in entries if e["network"] == name and e["sparsity"] == "none" and e["batch"] == 1]
    if not own:
        raise ConfigurationError(f"engine.adaptive.tradeoff: {path} holds no measurement of network {name!r}")
    return own


def variants_of(loaded: LoadedConfiguration, name: str, *, device: str) -> dict[str, Variant]:
    """Returns the file and the engine of each precision of a network.

    Raises:
        ConfigurationError: A precision has no file; the text says how to get one.
    """
    config = loaded.config.engine.adaptive
    assert config is not None
    given = config.models.get(name, {})
    unknown = set(given) - set(config.precisions)
    if unknown:
        raise ConfigurationError(
            f"engine.adaptive.models.{name}: {sorted(unknown)[0]!r} is none of engine.adaptive.precisions "
            f"({', '.join(config.precisions)})"
        )
    own = loaded.model_path(name)
    base = loaded.config.engine
    found: dict[str, Variant] = {}
    for precision in config.precisions:
        engine = {"fp32": "fp32", "fp16": "fp16"}.get(precision, "int8")
        calibration = None
        if precision in given:
            path = _file(loaded, given[precision], f"engine.adaptive.models.{name}.{precision}")
        elif precision == "fp32" or (precision == "fp16" and _is_tensorrt(base, device)):
            path = own
        elif (made := _made(loaded, name, precision, device)) is not None:
            path, calibration = made
        elif precision == "fp16":
            path = _half(own)
        else:
            raise ConfigurationError(
                f"engine.adaptive.precisions: {precision} of network {name!r} has no file: measure it with  saccade "
                f"tradeoff  and name its folder in engine.adaptive.tradeoff, or give a file in "
                f"engine.adaptive.models.{name}.{precision}"
            )
        changes = {"precision": engine, "adaptive": None, "calibration": calibration}
        found[precision] = Variant(path, base.model_copy(update=changes))
    return found


def _made(loaded: LoadedConfiguration, name: str, precision: str, device: str) -> tuple[Path, str | None] | None:
    """The network that a trade-off made, and the samples for TensorRT's calibrator where it is not quantized."""
    config = loaded.config.engine.adaptive
    if config is None or config.tradeoff is None:
        return None
    folder = _tradeoff(loaded)
    folder = folder if folder.is_dir() else folder.parent
    made = folder / "models" / f"{name}-{precision}.onnx"
    samples = folder / "calibration" / f"{name}.npz"
    if precision == "int8" and finds_scales_itself(loaded.config.engine, device, loaded.config.tradeoff.int8):
        return (loaded.model_path(name), str(samples)) if samples.is_file() else None
    return (made, None) if made.is_file() else None


def _tradeoff(loaded: LoadedConfiguration) -> Path:
    config = loaded.config.engine.adaptive
    assert config is not None and config.tradeoff is not None
    for folder in (Path.cwd(), loaded.path.parent):
        path = folder / Path(config.tradeoff).expanduser()
        if path.is_file() or (path / RESULT_FILE).is_file():
            return path
    raise RecordError(
        f"engine.adaptive.tradeoff: {config.tradeoff}: no result of a trade-off there: measure with  saccade tradeoff"
    )


def _file(loaded: LoadedConfiguration, text: str, field: str) -> Path:
    from saccade import paths

    return paths.resolve(text, "model", beside=[Path.cwd(), loaded.path.parent], field=field)


def _half(source: Path) -> Path:
    """The half graph of a network, kept in the user's cache under the hash of what it comes from."""
    import hashlib

    from saccade.precision.compress import loaded as loaded_graph
    from saccade.precision.fp16 import half_from_float

    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    path = cache_folder("half") / f"{source.stem}-{digest}.onnx"
    if not path.is_file():
        write_atomic(path, half_from_float(loaded_graph(source), say=lambda _: None).SerializeToString())
    return path


def _is_tensorrt(config: EngineConfig, device: str) -> bool:
    from saccade.engines.selection import wants_tensorrt

    return wants_tensorrt(config.backend, device)


def _inference_ms(tick: Tick) -> float | None:
    """Time from hand-over to result of all frames of a decision [ms]."""
    found = [(frame.stamps.on_host - frame.stamps.handed_over) * 1e-6 for frame in tick.frames if frame.stamps.on_host]
    return sum(found) if found else None


def _labels(results: Sequence[Any]) -> dict[tuple[str, str], np.ndarray]:
    return {(r.network, r.sensor): r.labels.numpy().copy() for r in results if r.labels is not None}
