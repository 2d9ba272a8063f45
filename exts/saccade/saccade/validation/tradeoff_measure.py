"""Measures one candidate on one scene: in the loop for accuracy and latency, alone for batches and energy."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from saccade.config import EngineConfig, NetworkConfig
from saccade.configuration import LoadedConfiguration
from saccade.controller import ReflexController
from saccade.engines.base import Engine
from saccade.engines.selection import engine_from_onnx
from saccade.errors import EngineError, ModelError
from saccade.execution import execution_for
from saccade.frame import CLASS_COUNT
from saccade.loop import PerceptionLoop, Tick
from saccade.models.scores import confusion_from_labels
from saccade.network import NO_CLASS, Network
from saccade.simulators.replay import ReplaySimulator
from saccade.validation.accuracy import clearance_errors
from saccade.validation.scorer import LabelScorer
from saccade.validation.tradeoff_candidates import Candidate
from saccade.validation.tradeoff_energy import EnergyMeter
from saccade.validation.tradeoff_inputs import SceneInputs, network_config, read_sensors
from saccade.validation.tradeoff_models import CandidateModel, engine_config
from saccade.validation.tradeoff_scenes import Scene, replay_config

LEAST_RUNS = 12
"""Runs of a batch per scene."""
LEAST_FREE = 0.25
"""Share of the GPU's memory that kept engines leave free."""
ENERGY_SCENES = 3
"""Scenes in which energy is measured, the first ones: what an engine takes does not depend on the frames."""
ENERGY_S = 1.0
"""How long an engine is kept busy per scene for its energy [s]: NVML's counter moves some ten times a second."""


class LabelKeeper:
    """An observer that keeps the predicted labels of judged frames, to compare candidates with each other."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []

    def __call__(self, tick: Tick) -> None:
        """Copies the labels of every result of the decision."""
        if tick.phase != "judged":
            return
        for results in tick.results.values():
            for result in results:
                if result.labels is not None:
                    self.rows.append(result.labels.numpy().copy())


def measure_in_loop(
    loaded: LoadedConfiguration,
    candidate: Candidate,
    model: CandidateModel,
    scene: Scene,
    *,
    device: str,
    labels: Path,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Runs a candidate's network in the loop on the recorded frames of a scene.

    Args:
        loaded: The configuration.
        candidate: Which.
        model: Its network.
        scene: A recorded scene.
        device: Where frames and engine are, ``"cpu"`` or ``"cuda:N"``.
        labels: File that the predicted labels are written to.
        say: Told how far the build of an engine is.

    Returns:
        Sums for the accuracy and the times of every judged frame [ms]: see :func:`summed`; what the engine says of
        itself, its GPU memory [bytes] and the time that opening it took [s].

    Raises:
        EngineError: The engine stopped.
    """
    section = network_config(loaded.config, candidate.network, candidate.size)
    base = replay_config(loaded.config, scene, device="cpu" if device == "cpu" else "cuda")
    config = read_sensors(base, section)
    config = config.model_copy(
        update={"networks": {candidate.network: section}, "engine": engine_config(config.engine, candidate, model)}
    )
    before = _free_memory(device)
    started = time.perf_counter()
    network = Network(
        candidate.network,
        section,
        model.path,
        sensors=config.sensors,
        engine=config.engine,
        device=device,
        say=say,
        opener=functools.partial(engine_from_onnx, unqualified=candidate.may_differ),
    )
    opened_s = time.perf_counter() - started
    simulator = ReplaySimulator(config, scene.directory, device)
    records: list[dict[str, Any]] = []
    keeper = LabelKeeper()
    try:
        state = simulator.open("")
        execution = execution_for(simulator, [network], graph=config.engine.graph)
        threshold = section.decoder.hazard_threshold
        loop = PerceptionLoop(
            config,
            simulator=simulator,
            networks={candidate.network: network},
            controller=ReflexController(config.controller, hazard_thresholds={candidate.network: threshold}),
            sink=_Sink(records),
            scorer=LabelScorer(),
            observers=[keeper],
            execution=execution,
        )
        loop.run(state)
        after = _free_memory(device)
        cap = _range_max(config, section)
        found = summed(records, candidate.network, cap=cap)
        found["engine"] = network.facts()
        found["execution"] = execution.facts()["execution"]
        found["opened_s"] = opened_s
        found["memory_bytes"] = None if before is None or after is None else max(0, before - after)
    finally:
        simulator.close()
        network.close()
    if keeper.rows:
        _save(labels, keeper.rows)
    return found


def summed(records: Sequence[dict[str, Any]], network: str, *, cap: float | None) -> dict[str, Any]:
    """Returns what a scene's judged records say about a network.

    Returns:
        ``frames``; ``intersection``, ``union`` and ``support`` per class summed over frames, ``None`` where there are
        no labels; ``agree`` and ``valid`` pixels; ``hazard`` pairs of score and truth; ``clearance`` sum of absolute
        errors [m] and their count; ``inference_ms`` and ``latency_ms`` of each frame; ``non_finite`` frames;
        ``predicted``: which classes were predicted at all.
    """
    judged = [record for record in records if record["phase"] == "judged" and network in record["results"]]
    results = [record["results"][network] for record in judged]
    scored = [result for result in results if result["intersection"] is not None]

    def total(name: str) -> list[int] | None:
        return [sum(column) for column in zip(*(r[name] for r in scored), strict=True)] if scored else None

    pairs = [
        (result["hazard"], record["truth"]["hazard"])
        for record, result in zip(judged, results, strict=True)
        if result["hazard"] is not None and record["truth"] is not None and record["truth"]["hazard"] is not None
    ]
    errors = [
        error
        for record, result in zip(judged, results, strict=True)
        if result["clearance"] is not None and record["truth"] is not None and record["truth"]["clearance"] is not None
        for error in clearance_errors(result["clearance"], record["truth"]["clearance"], cap)
    ]
    intersection, union = total("intersection"), total("union")
    support = total("support")
    predicted = None
    if intersection is not None and union is not None and support is not None:
        said = [u - s + i for u, s, i in zip(union, support, intersection, strict=True)]
        predicted = [bool(value) for value in said]
    return {
        "frames": len(judged),
        "intersection": intersection,
        "union": union,
        "support": support,
        "predicted": predicted,
        "agree": sum(result["agree"] or 0 for result in scored),
        "valid": sum(result["valid"] or 0 for result in scored),
        "hazard": [[float(score), bool(truth)] for score, truth in pairs],
        "clearance": [float(sum(errors)), len(errors)],
        "inference_ms": [record["inference_ms"] for record in judged if record["inference_ms"] is not None],
        "latency_ms": [record["latency_ms"] for record in judged],
        "non_finite": sum(not result["finite"] for result in results),
    }


@dataclass(frozen=True, slots=True)
class AloneEngine:
    """A candidate's engine for one batch, bound to arrays of its own."""

    engine: Engine
    batch: int
    arrays: dict[str, wp.array]
    run: Callable[[], None]
    """Runs it once and waits; on CUDA a captured graph."""
    memory_bytes: int | None
    """GPU memory that opening and capturing it took; ``None`` on the CPU."""


class KeptEngines:
    """Opened engines that are measured alone, kept from scene to scene on a GPU, where opening one takes a second.

    On the CPU, where opening costs little and threads of an open engine might disturb the next, none is kept.

    Args:
        device: Warp device of the engines.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._open: dict[tuple[str, int], AloneEngine] = {}

    def engine(
        self,
        loaded: LoadedConfiguration,
        candidate: Candidate,
        model: CandidateModel,
        inputs: SceneInputs,
        *,
        batch: int,
        say: Callable[[str], None] = lambda _: None,
    ) -> AloneEngine:
        """Returns a candidate's engine for a batch, opened where it is not yet.

        Raises:
            ModelError: The network's batch is fixed at another size.
            EngineError: It cannot be opened.
        """
        key = (candidate.key, batch)
        if key not in self._open:
            config = engine_config(loaded.config.engine, candidate, model)
            shapes = {tensor: (batch, *rows.shape[1:]) for tensor, rows in inputs.tensors.items()}
            self._open[key] = _opened_alone(
                model.path, config, shapes, batch, device=self._device, say=say, unqualified=candidate.may_differ
            )
        return self._open[key]

    def make_room(self) -> None:
        """Closes what need not, or must not, be kept."""
        if not self._device.startswith("cuda"):
            self.close()
            return
        place = wp.get_device(self._device)
        if place.free_memory < LEAST_FREE * place.total_memory:
            self.close()

    def close(self) -> None:
        """Closes all; safe to call twice."""
        while self._open:
            self._open.popitem()[1].engine.close()


def measure_batch(
    alone: AloneEngine, inputs: SceneInputs, section: NetworkConfig, *, meter: EnergyMeter | None
) -> dict[str, Any]:
    """Runs an engine alone on prepared frames, a batch at a time, and scores its labels.

    Args:
        alone: The engine.
        inputs: Frames of one scene.
        section: The network's configuration.
        meter: Measures the energy; ``None`` = not in this scene.

    Returns:
        ``run_ms`` of every run, summed counts as of :func:`summed` where there are labels and a truth, ``energy_j`` of
        one run or ``None`` with ``energy_absent``, the engine's facts.
    """
    batch, arrays, run = alone.batch, alone.arrays, alone.run
    chunks = _chunks(inputs.count, batch)
    times: list[float] = []
    confusion = np.zeros((CLASS_COUNT, CLASS_COUNT + 1), np.int64)
    tensor = section.decoder.labels
    scored = tensor is not None and inputs.truth is not None
    _fill(arrays, inputs, chunks[0])
    for _ in range(3):
        run()
    for number in range(max(len(chunks), LEAST_RUNS)):
        rows = chunks[number % len(chunks)]
        _fill(arrays, inputs, rows)
        begin = time.perf_counter_ns()
        run()
        times.append((time.perf_counter_ns() - begin) * 1e-6)
        if scored and number < len(chunks):
            # Of the last chunk, which is filled up with frames from the start, only its own are scored.
            own = min(batch, inputs.count - number * batch)
            _count(confusion, arrays[tensor].numpy()[:own], inputs.truth[rows[:own]], section.decoder.classes)  # type: ignore[index]
    elsewhere = f"measured in the first {ENERGY_SCENES} scenes"
    energy, absent = (None, elsewhere) if meter is None else meter.per_run(run, seconds=ENERGY_S)
    return {
        "run_ms": times,
        **(_totals(confusion) if scored else {"intersection": None, "union": None, "support": None}),
        "frames": inputs.count,
        "energy_j": energy,
        "energy_absent": absent,
        "memory_bytes": alone.memory_bytes,
        "engine": alone.engine.facts(),
    }


def _opened_alone(
    path: Path,
    config: EngineConfig,
    shapes: dict[str, tuple[int, ...]],
    batch: int,
    *,
    device: str,
    say: Callable[[str], None],
    unqualified: bool,
) -> AloneEngine:
    before = _free_memory(device)
    try:
        engine = engine_from_onnx(path, config, device=device, shapes=shapes, say=say, unqualified=unqualified)
    except ModelError as error:
        raise ModelError(f"batch {batch}: {error}; export the network with an open batch") from error
    try:
        arrays = {spec.name: _zeros(spec, engine.device) for spec in (*engine.inputs, *engine.outputs)}
        for name, array in arrays.items():
            engine.bind(name, array)
        run = _runner(engine)
        run()
        after = _free_memory(device)
    except BaseException:
        engine.close()
        raise
    return AloneEngine(engine, batch, arrays, run, None if before is None or after is None else max(0, before - after))


def agreement(first: Path, second: Path) -> tuple[int, int] | None:
    """Returns how many labels of two files are the same, and how many there are; ``None`` where they do not compare."""
    try:
        with np.load(first) as one, np.load(second) as other:
            a, b = one["labels"], other["labels"]
    except (OSError, ValueError, KeyError):
        return None
    return (int((a == b).sum()), int(a.size)) if a.shape == b.shape else None


class _Sink:
    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.put = records.append


def _range_max(config: Any, section: Any) -> float | None:
    caps = [
        config.sensors[sensor].range_max
        for source in section.inputs.values()
        for sensor in source.sensors
        if config.sensors[sensor].kind == "lidar"
    ]
    return min(caps) if caps else None


def _free_memory(device: str) -> int | None:
    return int(wp.get_device(device).free_memory) if device.startswith("cuda") else None


def _zeros(spec: Any, device: str) -> wp.array:
    return wp.zeros(spec.shape, dtype=wp.dtype_from_numpy(np.dtype(spec.dtype)), device=device)


def _runner(engine: Any) -> Callable[[], None]:
    """Returns what runs the engine once and waits: on CUDA a captured graph where that can be."""
    if engine.device == "cpu":
        return lambda: engine.enqueue(None)
    stream = wp.get_device(engine.device).stream
    for _ in range(3):
        engine.enqueue(stream)
    wp.synchronize_stream(stream)
    try:
        with wp.ScopedCapture(stream=stream) as capture:
            engine.enqueue(stream)
    except Exception as error:
        raise EngineError(f"{engine.device}: the engine could not be captured as a graph: {error}") from error

    def replay() -> None:
        wp.capture_launch(capture.graph, stream=stream)
        wp.synchronize_stream(stream)

    return replay


def _chunks(count: int, batch: int) -> list[np.ndarray]:
    rows = -(-count // batch)
    return [np.arange(i * batch, (i + 1) * batch) % count for i in range(rows)]


def _fill(arrays: dict[str, wp.array], inputs: SceneInputs, rows: np.ndarray) -> None:
    for name, values in inputs.tensors.items():
        target = arrays[name]
        data = values[rows].astype(wp.dtype_to_numpy(target.dtype), copy=False)
        target.assign(data)
    device = next(iter(arrays.values())).device
    if device.is_cuda:
        # The upload is no part of what is timed.
        wp.synchronize_stream(device.stream)


def _count(confusion: np.ndarray, logits: np.ndarray, truth: np.ndarray, classes: Sequence[str]) -> None:
    from saccade.frame import CLASSES

    index = np.array([CLASSES.index(name) if name in CLASSES else CLASS_COUNT for name in classes])
    said = index[logits.argmax(axis=1)]
    valid = truth != NO_CLASS
    if CLASS_COUNT in index:
        # A class that is none of the six: wrong, and in no column.
        flat = truth[valid].astype(np.int64) * (CLASS_COUNT + 1) + said[valid]
        confusion += np.bincount(flat, minlength=CLASS_COUNT * (CLASS_COUNT + 1)).reshape(CLASS_COUNT, -1)
        return
    confusion[:, :CLASS_COUNT] += confusion_from_labels(truth, said, valid)


def _totals(confusion: np.ndarray) -> dict[str, list[int]]:
    intersection = np.diag(confusion[:, :CLASS_COUNT])
    support = confusion.sum(axis=1)
    union = support + confusion[:, :CLASS_COUNT].sum(axis=0) - intersection
    return {"intersection": intersection.tolist(), "union": union.tolist(), "support": support.tolist()}


def _save(path: Path, rows: list[np.ndarray]) -> None:
    from saccade.models.export import atomic_path

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, labels=np.stack(rows))
