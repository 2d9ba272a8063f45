"""What a trade-off is measured on: frames of held-out layouts, recorded once and replayed to every candidate."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade import paths
from saccade.config import Budgets, CameraConfig, RecordConfig, RunConfig, SensorConfig, SimulatorConfig
from saccade.configuration import LoadedConfiguration
from saccade.errors import DependencyError, EngineError, RecordError
from saccade.models.dataset import scene_seeds
from saccade.telemetry.record import read_frames
from saccade.telemetry.sensor_recorder import FOLDER, INDEX, MANIFEST
from saccade.validation.tradeoff_journal import Journal

EVALUATION_PART, CALIBRATION_PART = "test", "train"
"""Parts of the layouts' seeds: no network was trained, and no threshold chosen, on the first."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One layout, or one recorded run."""

    name: str
    seed: int | None
    """Of the layout; ``None`` = a recorded run that was given."""
    directory: Path
    """The recorded run."""


def evaluation_scenes(loaded: LoadedConfiguration, folder: Path) -> list[Scene]:
    """Returns the scenes that candidates are measured on; those with a seed are recorded below ``folder``."""
    wanted = loaded.config.tradeoff
    if wanted.recordings:
        found = []
        for index, text in enumerate(wanted.recordings):
            beside = [Path.cwd(), loaded.path.parent]
            path = paths.resolve(text, "recording", beside=beside, field=f"tradeoff.recordings.{index}")
            found.append(Scene(f"{index:02d}-{path.resolve().name}", None, path))
        return found
    seeds = scene_seeds(EVALUATION_PART, data_seed=wanted.seed, count=wanted.scenes)
    return [Scene(f"layout_{seed}", seed, folder / f"layout_{seed}") for seed in seeds]


def calibration_scenes(loaded: LoadedConfiguration, folder: Path) -> list[Scene]:
    """Returns the layouts that INT8 is calibrated on: as many as give the wanted frames."""
    wanted = loaded.config.tradeoff
    count = -(-wanted.calibration_frames // (wanted.frames + wanted.warmup))
    seeds = scene_seeds(CALIBRATION_PART, data_seed=wanted.seed, count=count)
    return [Scene(f"calibration_{seed}", seed, folder / f"calibration_{seed}") for seed in seeds]


def ensure_recorded(loaded: LoadedConfiguration, scene: Scene, journal: Journal, *, say: Callable[[str], None]) -> str:
    """Makes sure that the frames of a scene are there; returns their digest.

    A recording that is not there, or not complete, is made with the configuration's own networks in FP32 on ONNX
    Runtime and the CPU, where a run repeats bit for bit: frames that were recorded again have the digest of the first
    time, or what was measured on those is not used any more.

    Raises:
        RecordError: A recorded run that was given is not complete.
        DependencyError: The embedded simulator is not installed.
    """
    if scene.seed is not None and not is_complete(scene.directory):
        say(f"{scene.name}: recording")
        record_scene(loaded, scene, say)
    digest = recording_digest(scene.directory)
    known = journal.find("scene", scene=scene.name)
    if known is None or known["digest"] != digest:
        if known is not None:
            say(f"{scene.name}: recorded anew with other frames; what was measured on it is measured again")
        journal.append({"kind": "scene", "scene": scene.name, "seed": scene.seed, "digest": digest})
    return digest


def recording_digest(directory: Path) -> str:
    """Returns a hash over the checksums of every recorded sample, and over states and truths.

    Raises:
        RecordError: There is no recording.
    """
    index = Path(directory) / FOLDER / INDEX
    try:
        return hashlib.sha256(index.read_bytes()).hexdigest()
    except OSError as error:
        raise RecordError(
            f"{directory}: no recorded sensor frames there ({error.strerror}): record them with "
            "saccade validate --set record.sensors=true"
        ) from error


def with_config(loaded: LoadedConfiguration, config: RunConfig) -> LoadedConfiguration:
    """Returns a loaded configuration with other values; paths are found from the same places."""
    return dataclasses.replace(loaded, config=config)


def changed(section: Any, **values: Any) -> Any:
    """Returns a section with other values, checked."""
    return type(section).model_validate({**section.model_dump(), **values})


def recording_config(config: RunConfig, scene: Path) -> RunConfig:
    """Returns the run that records a layout: the same sensors and networks, in FP32 on the CPU."""
    wanted = config.tradeoff
    return config.model_copy(
        update={
            "scene": str(scene),
            "simulator": changed(
                config.simulator, backend="newton", device="cpu", pace="lockstep", act_delay="none", recording=None
            ),
            "sensors": {name: _recorded(sensor) for name, sensor in config.sensors.items()},
            "engine": type(config.engine)(backend="onnxruntime", precision="fp32", threads=config.engine.threads),
            "controller": changed(config.controller, kind="stand" if config.controller.kind == "stand" else "reflex"),
            "ros2": changed(config.ros2, enabled=False),
            "run": changed(
                config.run, frames=wanted.frames, warmup=wanted.warmup, name=None, max_time=None, deadline_ms=1e6
            ),
            "record": RecordConfig(sensors=True, samples=0),
            "budgets": Budgets(),
        }
    )


def replay_config(config: RunConfig, scene: Scene, *, device: str) -> RunConfig:
    """Returns the run that replays a scene on ``device``, judged frames and warm-up as recorded."""
    simulator: SimulatorConfig = changed(
        config.simulator, backend="replay", device=device, pace="lockstep", act_delay="none",
        recording=str(scene.directory),
    )  # fmt: skip
    run = changed(config.run, frames=config.tradeoff.frames, warmup=config.tradeoff.warmup, max_time=None)
    return config.model_copy(update={"simulator": simulator, "run": run, "ros2": changed(config.ros2, enabled=False)})


def _recorded(sensor: SensorConfig) -> SensorConfig:
    """Only what networks read and what they are scored with: a recording is large enough."""
    outputs = ["color", "labels"] if isinstance(sensor, CameraConfig) else ["ranges", "intensity", "labels"]
    return changed(sensor, outputs=outputs)


def is_complete(directory: Path) -> bool:
    """Tells whether a folder holds a recording that came to its end."""
    import json

    try:
        manifest = json.loads((directory / FOLDER / MANIFEST).read_bytes())
        end = read_frames(directory).end
    except (OSError, ValueError, RecordError):
        return False
    return manifest.get("state") == "complete" and end is not None and end["reason"] == "completed"


def record_scene(loaded: LoadedConfiguration, scene: Scene, say: Callable[[str], None]) -> None:
    """Makes a layout and records the walk through it.

    Raises:
        DependencyError: The embedded simulator is not installed.
        EngineError: The run did not come to its end.
    """
    try:
        from saccade.scenes.author_scene import author_scene
    except ImportError as error:
        raise DependencyError(
            f"making layouts needs the embedded simulator ({error}): pip install 'saccade[sim]', or measure on "
            "recorded runs: tradeoff.recordings"
        ) from error
    from saccade.validation.run import validate

    folder = scene.directory.parent
    # What a kill has left of it; the folder is the sweep's own.
    shutil.rmtree(scene.directory, ignore_errors=True)
    authored = folder / "usd" / f"{scene.name}.usda"
    authored.parent.mkdir(parents=True, exist_ok=True)
    assert scene.seed is not None
    author_scene(authored, layout="random", seed=scene.seed)
    config = recording_config(loaded.config, authored)
    config = config.model_copy(update={"run": changed(config.run, name=scene.name)})
    validate(with_config(loaded, config), out=folder)
    end = read_frames(scene.directory).end
    if end is not None and end["reason"] == "interrupted":
        raise KeyboardInterrupt
    if not is_complete(scene.directory):
        reason = "the recording is not complete" if end is None else end["message"]
        raise EngineError(f"{scene.name}: the layout could not be recorded: {reason}; see {scene.directory}")
    say(f"{scene.name}: recorded")
