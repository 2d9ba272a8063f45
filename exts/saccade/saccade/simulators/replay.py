"""ReplaySimulator: the frames of a recorded run once more, for regression on identical input."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from saccade.config import ImageInput, RunConfig
from saccade.errors import EngineError, RecordError
from saccade.frame import Command, Contact, Frame, GroundTruth, SimState, Stamps, now_ns
from saccade.telemetry.record import read_frames
from saccade.telemetry.recorder import latest_directory
from saccade.telemetry.sensor_recorder import FOLDER, INDEX, MANIFEST, SCHEMA, TRUTH

HOW_TO_RECORD = "record it with: saccade validate --set record.sensors=true"
_DTYPES = {"uint8": wp.uint8, "uint32": wp.uint32, "float32": wp.float32, "vec3f": wp.vec3f}
NOT_CAPTURABLE = "a recording cannot be put into a CUDA graph"
_OVERRUN_S = 1.0
"""Simulated time beyond the last recorded decision after which the recording counts as over [s]."""


class ReplaySimulator:
    """Delivers what :class:`saccade.telemetry.sensor_recorder.SensorRecorder` kept.

    Frames come in the recorded order with the recorded simulation times, sequence numbers, truth and poses. Commands
    have no effect: the humanoid walks where it walked, contacts happen where they happened, and the record's
    ``applied`` stays ``null``. :meth:`step` advances by the recorded step; between two decisions the pose is that of
    the earlier one.

    Args:
        config: The run; its sensors must be in the recording with the same kind, size and rate. Others that are in
            the recording are left out.
        recording: Folder of the recorded run.
        device: Warp device of the buffers.
    """

    name = "replay"
    acts = False
    capturable = False

    def __init__(self, config: RunConfig, recording: Path | str, device: str) -> None:
        self.device = str(wp.get_device(device))
        self.route: list[tuple[float, float]] = []
        """Waypoints of the recorded run, in the world [m]."""
        self._config = config
        self._directory = Path(recording)
        self._channels: dict[str, Any] = {}
        self._ticks: list[dict[str, Any]] = []
        self._run: dict[str, Any] = {}
        self._manifest: dict[str, Any] = {}
        self._state = SimState()
        self._state_ns = 0

    def open(self, scene: Path | str) -> SimState:
        """Opens the recording and returns the state of its first decision; the scene is not needed.

        Raises:
            RecordError: The recording is missing, damaged, too short, or does not hold what the configuration needs.
        """
        self._directory = _run_folder(self._directory)
        folder = self._directory / FOLDER
        self._manifest = _json_file(folder / MANIFEST)
        if self._manifest.get("schema") != SCHEMA:
            raise RecordError(
                f"{folder}: recorded with schema {self._manifest.get('schema')!r}, and this version reads {SCHEMA}: "
                "record it again"
            )
        self._run = _json_file(self._directory / "run.json")
        self._step_s = self._recorded_step()
        self._ticks = self._read_index(folder)
        self._check_length()
        self._channels = {
            name: _Channel(folder, name, self._described(name), self._ticks, self.device)
            for name in self._config.sensors
        }
        self._check_buffers()
        self.route = [(float(x), float(y)) for x, y in (self._run.get("simulator") or {}).get("route") or []]
        self._contacts = _contacts(self._directory)
        self._begin()
        return self._state

    def _begin(self) -> None:
        """Goes to the first decision."""
        self._position = 0
        self._unsensed: list[int] = []
        self._skipped = dict.fromkeys(self._channels, 0)
        self._overrun = 0.0
        self._truths: dict[str, GroundTruth] = {}
        self._arrive(SimState())

    def step(self, command: Command | None) -> SimState:
        """Advances by the recorded step, or to the next recorded decision when that comes sooner."""
        before = self._state.sim_time
        state = SimState(step=self._state.step + 1)
        following = self._position + 1
        target = before + self._step_s
        if following < len(self._ticks):
            time = self._ticks[following]["state"]["sim_time"]
            if time <= target + self._step_s / 2:
                self._position = following
                self._arrive(state)
                state.contacts = self._onsets(state.sim_time, tick=self._ticks[following]["tick"])
                return state
        else:
            self._overrun += self._step_s
        held = self._state
        state.position, state.yaw, state.distance = held.position, held.yaw, held.distance
        state.velocity, state.yaw_rate = held.velocity, held.yaw_rate
        state.sim_time = target
        state.contacts = self._onsets(target)
        self._state = state
        self._state_ns = now_ns()
        return state

    def sense(self) -> Sequence[Frame]:
        """Returns the frames recorded for the state that was reached; none between two decisions.

        When several decisions went by since the last call (real time), those of the newest are returned, and the
        others are counted in ``dropped`` of the next frame of their sensor.

        Raises:
            EngineError: The recording is over and the run is not.
        """
        if self._overrun > _OVERRUN_S:
            raise EngineError(
                f"the recording {self._directory} is over: at simulator.pace=realtime decisions are skipped; use "
                "--set simulator.pace=lockstep, or fewer --frames"
            )
        if not self._unsensed:
            return []
        *skipped, newest = self._unsensed
        for number in skipped:
            for entry in self._ticks[number]["frames"]:
                if entry["sensor"] in self._channels:
                    self._skipped[entry["sensor"]] += 1 + entry["dropped"]
        self._unsensed.clear()
        frames = []
        for entry in self._ticks[newest]["frames"]:
            channel = self._channels.get(entry["sensor"])
            if channel is None:
                continue
            frame = channel.frame
            frame.sequence, frame.sim_time = entry["sequence"], entry["sim_time"]
            frame.dropped = entry["dropped"] + self._skipped[frame.sensor]
            self._skipped[frame.sensor] = 0
            frame.stamps.clear()
            frame.stamps.sim_state = self._state_ns
            frame.stamps.sensed = now_ns()
            self._truths[frame.sensor] = channel.truth_of(entry["truth"])
            frames.append(frame)
        return frames

    def ground_truth(self, frame: Frame) -> GroundTruth:
        """Returns the recorded truth about a frame of the last :meth:`sense`."""
        return self._truths[frame.sensor]

    def due(self) -> Sequence[Frame]:
        """Not offered: frames come from files."""
        raise NotImplementedError(NOT_CAPTURABLE)

    def prepare(self, frames: Sequence[Frame]) -> None:
        """Not offered: frames come from files."""
        raise NotImplementedError(NOT_CAPTURABLE)

    def record_state(self, stream: Any) -> None:
        """Not offered: frames come from files."""
        raise NotImplementedError(NOT_CAPTURABLE)

    def record_sense(self, frames: Sequence[Frame], stream: Any) -> None:
        """Not offered: frames come from files."""
        raise NotImplementedError(NOT_CAPTURABLE)

    @property
    def uploads(self) -> dict[str, int]:
        """Bytes per set of frames that recorded buffers are uploaded with, by name; nothing on the CPU."""
        if self.device == "cpu":
            return {}
        return {f"replay.{name}": channel.size for name, channel in self._channels.items()}

    def facts(self) -> dict[str, Any]:
        """Returns the facts of the recorded run's simulator, and what was replayed."""
        recorded = self._run.get("simulator") or {}
        return {
            **recorded,
            "name": self.name,
            "device": self.device,
            "recorded_name": recorded.get("name"),
            "recorded_device": recorded.get("device"),
            "recording": str(self._directory),
            "recording_state": self._manifest.get("state"),
            "recording_decisions": len(self._ticks),
        }

    def close(self) -> None:
        """Frees the buffers and files; safe to call twice."""
        self._channels = {}
        self._truths = {}

    def _arrive(self, state: SimState) -> None:
        """Takes over the recorded state of the current decision and reads its samples, as a step of physics would."""
        entry = self._ticks[self._position]
        recorded = entry["state"]
        state.sim_time, state.step = recorded["sim_time"], recorded["step"]
        state.position = tuple(recorded["position"])
        state.yaw, state.yaw_rate, state.distance = recorded["yaw"], recorded["yaw_rate"], recorded["distance"]
        state.velocity = tuple(recorded["velocity"])
        for frame in entry["frames"]:
            if frame["sensor"] in self._channels:
                self._channels[frame["sensor"]].load(frame["row"], frame["crc32"])
        if any(frame["sensor"] in self._channels for frame in entry["frames"]):
            self._unsensed.append(self._position)
        self._state = state
        self._state_ns = now_ns()

    def _onsets(self, sim_time: float, tick: int | None = None) -> list[Contact]:
        """Contacts up to ``sim_time``, and all that were recorded with decision ``tick`` when it was reached."""
        found = []
        while self._contacts:
            owner, contact = self._contacts[0]
            if contact.sim_time > sim_time + 1e-9 and not (tick is not None and owner <= tick):
                break
            found.append(contact)
            self._contacts.pop(0)
        return found

    def _recorded_step(self) -> float:
        try:
            step = float(self._run["configuration"]["simulator"]["step"])
        except (KeyError, TypeError, ValueError) as error:
            path = self._directory / "run.json"
            raise RecordError(f"{path}: no configuration.simulator.step; {HOW_TO_RECORD}") from error
        if not step > 0:
            raise RecordError(f"{self._directory / 'run.json'}: configuration.simulator.step is {step:g}")
        return step

    def _read_index(self, folder: Path) -> list[dict[str, Any]]:
        path = folder / INDEX
        try:
            *lines, tail = path.read_bytes().split(b"\n")
        except OSError as error:
            raise _damaged(path, error.strerror) from error
        complete = self._manifest.get("state") == "complete"
        if complete and (tail or len(lines) != self._manifest.get("decisions")):
            raise RecordError(
                f"{path}: {len(lines)} decisions are there and {self._manifest.get('decisions')} were recorded: the "
                f"file is truncated; {HOW_TO_RECORD}"
            )
        # A recording that was cut off ends in the middle of a line: what is before it can be replayed.
        ticks = []
        for number, line in enumerate(lines, start=1):
            try:
                ticks.append(_checked(json.loads(line)))
            except (KeyError, TypeError, ValueError) as error:
                raise _damaged(path, f"line {number}: {error}") from error
        wanted = self._config.sensors.keys()
        return [tick for tick in ticks if any(frame["sensor"] in wanted for frame in tick["frames"])] or ticks

    def _check_length(self) -> None:
        run = self._config.run
        available = len(self._ticks) - run.warmup
        if not self._ticks:
            raise RecordError(f"{self._directory}: the recording holds no decision; {HOW_TO_RECORD}")
        if run.frames > available:
            fewer = f"--frames {available} at most" if available > 0 else "fewer run.warmup"
            raise RecordError(
                f"{self._directory}: the recording holds {len(self._ticks)} decisions, and run.warmup ({run.warmup}) + "
                f"run.frames ({run.frames}) ask for {run.warmup + run.frames}: use {fewer}, or record a longer run"
            )

    def _described(self, name: str) -> dict[str, Any]:
        recorded = self._manifest.get("sensors") or {}
        if name not in recorded:
            have = ", ".join(recorded) or "none"
            raise RecordError(
                f"{self._directory}: sensor {name!r} of the configuration is not in the recording (it has: {have}); "
                "use the configuration of the recorded run, or record it again"
            )
        facts, sensor = recorded[name], self._config.sensors[name]
        if facts.get("kind") != sensor.kind:
            raise RecordError(
                f"{self._directory}: sensor {name!r} was recorded as {facts.get('kind')!r}, not {sensor.kind!r}; "
                "use the configuration of the recorded run"
            )
        sections = (self._run.get("configuration") or {}).get("sensors") or {}
        rate = (sections.get(name) or {}).get("rate")
        if rate is not None and rate != sensor.rate:
            raise RecordError(
                f"{self._directory}: sensor {name!r} was recorded at {rate:g} Hz, and sensors.{name}.rate asks for "
                f"{sensor.rate:g} Hz: set it to {rate:g}"
            )
        return facts

    def _check_buffers(self) -> None:
        for name, sensor in self._config.sensors.items():
            shape = (sensor.height, sensor.width) if sensor.kind == "camera" else (sensor.channels, sensor.columns)
            for buffer, array in self._channels[name].arrays.items():
                if tuple(array.shape) != shape:
                    raise RecordError(
                        f"{self._directory}: {buffer} of sensor {name!r} was recorded with shape "
                        f"{tuple(array.shape)}, and the configuration asks for {shape}"
                    )
        for network, section in self._config.networks.items():
            for source in section.inputs.values():
                needed = ("color",) if isinstance(source, ImageInput) else ("ranges", "intensity")
                for feeding in source.sensors:
                    missing = [buffer for buffer in needed if buffer not in self._channels[feeding].frame.buffers]
                    if missing:
                        raise RecordError(
                            f"{self._directory}: network {network!r} reads {', '.join(missing)} of sensor "
                            f"{feeding!r}, which the recording lacks; {HOW_TO_RECORD}"
                        )


class _Channel:
    """The recorded samples of one sensor and the arrays that they are read into, allocated once."""

    def __init__(
        self, folder: Path, name: str, described: dict[str, Any], ticks: Sequence[dict[str, Any]], device: str
    ) -> None:
        rows = [frame["row"] for tick in ticks for frame in tick["frames"] if frame["sensor"] == name]
        self.arrays: dict[str, wp.array] = {}
        self._name, self._folder = name, folder
        self._samples: dict[str, np.ndarray] = {}
        self._staging: dict[str, tuple[wp.array, np.ndarray]] = {}
        for buffer, facts in described["buffers"].items():
            try:
                dtype, shape, file = _DTYPES[facts["dtype"]], tuple(int(n) for n in facts["shape"]), facts["file"]
            except (KeyError, TypeError, ValueError) as error:
                raise RecordError(f"{folder / MANIFEST}: {buffer} of {name!r} is damaged; {HOW_TO_RECORD}") from error
            array = wp.zeros(shape, dtype=dtype, device=device)
            pinned = array.device.is_cuda
            host = wp.zeros(shape, dtype=dtype, device="cpu", pinned=True) if pinned else array
            view = host.numpy()
            self.arrays[buffer] = array
            self._staging[buffer] = (host, view)
            self._samples[buffer] = _samples(folder / Path(file).name, view, max(rows, default=-1) + 1)
        own = {buffer: array for buffer, array in self.arrays.items() if buffer != TRUTH}
        self.frame = Frame(name, described["kind"], 0, 0.0, Stamps(), own)
        self._truth = self.arrays.get(TRUTH, own.get("labels"))

    @property
    def size(self) -> int:
        """Bytes of one sample of all buffers."""
        return sum(view.nbytes for _, view in self._staging.values())

    def load(self, row: int, checksum: int) -> None:
        """Reads one sample into the arrays.

        Raises:
            RecordError: The bytes are not those that were recorded.
        """
        found = 0
        for buffer, (host, view) in self._staging.items():
            np.copyto(view, self._samples[buffer][row])
            found = zlib.crc32(view.data.cast("B"), found)
            array = self.arrays[buffer]
            if host is not array:
                wp.copy(array, host)
        if found != checksum:
            raise RecordError(f"{self._folder}: sample {row} of sensor {self._name!r} is damaged; {HOW_TO_RECORD}")
        device = next(iter(self.arrays.values())).device
        if device.is_cuda:
            # The staging arrays are filled again by the next sample.
            wp.synchronize_stream(device.stream)

    def truth_of(self, entry: dict[str, Any]) -> GroundTruth:
        """Returns the recorded truth of the loaded sample."""
        return GroundTruth(self._truth if entry["labels"] else None, entry["hazard"], entry["clearance"])


def _samples(path: Path, like: np.ndarray, count: int) -> np.ndarray:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise RecordError(f"{path} is missing: the recording is damaged; {HOW_TO_RECORD}") from error
    if size < count * like.nbytes:
        raise RecordError(
            f"{path} is truncated: {size} bytes are there and {count} samples take {count * like.nbytes}; "
            f"{HOW_TO_RECORD}"
        )
    if not count:
        return np.empty((0, *like.shape), like.dtype)
    return np.memmap(path, dtype=like.dtype, mode="r", shape=(count, *like.shape))


def _run_folder(path: Path) -> Path:
    folder = (latest_directory(path.parent) if path.name == "latest" else None) or path
    if not folder.is_dir():
        raise RecordError(f"there is no recorded run {str(path)!r}; {HOW_TO_RECORD}")
    if not (folder / FOLDER).is_dir():
        raise RecordError(f"{folder} holds no sensor frames (no folder {FOLDER!r}): {HOW_TO_RECORD}")
    return folder


def _damaged(path: Path, why: object) -> RecordError:
    return RecordError(f"{path}: the recording is damaged ({why}); {HOW_TO_RECORD}")


def _json_file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise _damaged(path, error.strerror) from error
    except ValueError as error:
        raise _damaged(path, error) from error
    if not isinstance(content, dict):
        raise _damaged(path, "no object")
    return content


def _contacts(directory: Path) -> list[tuple[int, Contact]]:
    """Contacts of the recorded run with the decision that they were recorded with."""
    return [
        (frame["tick"], Contact(contact["sim_time"], contact["body"], contact["other"]))
        for frame in read_frames(directory).frames
        for contact in frame["contacts"]
        if contact["sim_time"] is not None
    ]


def _checked(tick: Any) -> dict[str, Any]:
    """Fails with what is missing from a line of the index."""
    state = tick["state"]
    for key in ("sim_time", "yaw", "yaw_rate", "distance"):
        state[key] = float(state[key])
    for key, length in (("position", 3), ("velocity", 2)):
        state[key] = [float(value) for value in state[key]]
        if len(state[key]) != length:
            raise ValueError(f"{key} has {len(state[key])} values")
    state["step"], tick["tick"] = int(state["step"]), int(tick["tick"])
    for frame in tick["frames"]:
        for key in ("sequence", "dropped", "row", "crc32"):
            if int(frame[key]) < 0:
                raise ValueError(f"{key} is negative")
        frame["sim_time"], frame["sensor"] = float(frame["sim_time"]), str(frame["sensor"])
        frame["truth"] = {key: frame["truth"][key] for key in ("labels", "hazard", "clearance")}
    return tick
