"""SensorRecorder: every sensor frame of a run with its truth and pose, for replay on identical input."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import warp as wp

from saccade.errors import RecordError
from saccade.frame import Frame, GroundTruth, SimState
from saccade.telemetry.recorder import write_atomic, write_problem
from saccade.telemetry.taps import Tap

if TYPE_CHECKING:
    from saccade.loop import Tick

FOLDER = "sensors"
MANIFEST = "manifest.json"
INDEX = "index.jsonl"
SCHEMA = 1
TRUTH = "truth"
"""Name beside a sensor's own buffers under which its true labels are kept."""


class SensorRecorder:
    """An observer of the loop that keeps every frame in ``sensors/`` of the run's folder.

    ``manifest.json`` names the sensors, and per buffer its file, shape and type; each of those files holds one sample
    after the other as raw bytes. ``index.jsonl`` holds one line per decision: the simulator's state, and for each of
    its frames the sample's number in the files, its checksum, and the truth. About 11 MB per second for the default
    camera and LiDAR at 10 Hz.

    Frames are copied into slots that are allocated with a sensor's first frame, and a thread writes them. When all
    slots wait for the disk, ``block=True`` makes the loop wait outside of the latency that is measured: right in
    lockstep, where it costs wall time only (``waited_s``). With ``block=False``, for real time, the decision is left
    out and counted in ``lost``; the recording is then marked incomplete.

    Args:
        directory: The run's folder.
        slots: Samples per sensor that may wait for the disk.
        block: What happens when all of them wait.

    Raises:
        RecordError: The folder cannot be written.
    """

    def __init__(self, directory: Path | str, *, slots: int = 8, block: bool = True) -> None:
        self.folder = Path(directory) / FOLDER
        self.failure: str | None = None
        """Why the recording is incomplete; ``None`` as long as all is well."""
        self.lost = 0
        """Decisions left out because the disk did not keep up."""
        self.waited_s = 0.0
        """Wall time that the loop waited for the disk [s]."""
        self.tap = Tap()
        self._slots = slots
        self._block = block
        self._channels: dict[str, _Channel] = {}
        self._work: queue.SimpleQueue[tuple[dict[str, Any], list[tuple[_Channel, _Slot]]] | None] = queue.SimpleQueue()
        self._ticks = 0
        self._closed = False
        try:
            self.folder.mkdir()
            self._index = (self.folder / INDEX).open("wb")
        except OSError as error:
            raise RecordError(write_problem(self.folder / INDEX, error)) from error
        self._write_manifest("recording")
        self._thread = threading.Thread(target=self._run, name="saccade-sensors", daemon=True)
        self._thread.start()

    def __call__(self, tick: Tick) -> None:
        """Copies the frames of one decision; does nothing once something has failed."""
        if self.failure is not None or self._closed:
            return
        taken: list[tuple[_Channel, _Slot]] = []
        for frame, truth in zip(tick.frames, tick.truths, strict=True):
            channel = self._channel(frame, truth)
            slot = self._slot(channel)
            if slot is None:
                for other, unused in taken:
                    other.free.put(unused)
                if self.failure is None:
                    self.lost += 1
                return
            taken.append((channel, slot))
            channel.copy(slot, frame, truth)
        line = {
            "tick": tick.index,
            "state": _state(tick.state),
            "frames": [_frame(frame, truth) for frame, truth in zip(tick.frames, tick.truths, strict=True)],
        }
        self._work.put((line, taken))

    def close(self, *, complete: bool) -> None:
        """Writes what waits and says in the manifest whether everything is there; safe to call twice.

        Args:
            complete: Whether the run itself came to its end.
        """
        if self._closed:
            return
        self._closed = True
        self._work.put(None)
        self._thread.join()
        for file in (self._index, *(file for channel in self._channels.values() for file in channel.files.values())):
            try:
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                self._fail(error)
            with contextlib.suppress(OSError):
                file.close()
        whole = complete and self.failure is None and not self.lost
        try:
            self._write_manifest("complete" if whole else "incomplete")
        except RecordError as error:
            # The manifest still says "recording", which a reader takes for incomplete.
            self.failure = self.failure or str(error)

    def facts(self) -> dict[str, Any]:
        """Returns how the recording went."""
        return {"decisions": self._ticks, "lost": self.lost, "waited_s": self.waited_s, "failure": self.failure}

    def _channel(self, frame: Frame, truth: GroundTruth) -> _Channel:
        channel = self._channels.get(frame.sensor)
        if channel is None:
            channel = _Channel(len(self._channels), frame, truth, self._slots, self.tap)
            self._channels[frame.sensor] = channel
        return channel

    def _slot(self, channel: _Channel) -> _Slot | None:
        with contextlib.suppress(queue.Empty):
            return channel.free.get_nowait()
        if not self._block:
            return None
        start = time.perf_counter()
        try:
            while self.failure is None:
                with contextlib.suppress(queue.Empty):
                    return channel.free.get(timeout=0.1)
        finally:
            self.waited_s += time.perf_counter() - start
        return None

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            line, taken = work
            if self.failure is None:
                try:
                    self._write(line, taken)
                except (OSError, RecordError) as error:
                    self._fail(error)
            for channel, slot in taken:
                channel.free.put(slot)

    def _write(self, line: dict[str, Any], taken: list[tuple[_Channel, _Slot]]) -> None:
        new = [channel for channel, _ in taken if not channel.files]
        for channel in new:
            channel.open(self.folder)
        if new:
            self._write_manifest("recording")
        for entry, (channel, slot) in zip(line["frames"], taken, strict=True):
            entry["row"], entry["crc32"] = channel.append(slot)
        # The line comes after its samples are with the system: what the index names is there, also after SIGKILL.
        self._index.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._index.flush()
        self._ticks += 1

    def _fail(self, error: Exception) -> None:
        text = write_problem(self.folder / INDEX, error) if isinstance(error, OSError) else str(error)
        self.failure = self.failure or f"the sensor recording is incomplete: {text}"

    def _write_manifest(self, state: str) -> None:
        manifest = {
            "schema": SCHEMA,
            "state": state,
            "decisions": self._ticks,
            "lost": self.lost,
            "failure": self.failure,
            "sensors": {name: channel.described for name, channel in self._channels.items() if channel.files},
        }
        write_atomic(self.folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


class _Slot:
    """Host copies of one sample's buffers."""

    def __init__(self, arrays: Mapping[str, wp.array], tap: Tap) -> None:
        self.copies = tap.copies()
        self.arrays = {
            name: wp.empty(array.shape, dtype=array.dtype, device="cpu", pinned=array.device.is_cuda)
            for name, array in arrays.items()
        }
        self.views = {name: array.numpy() for name, array in self.arrays.items()}


class _Channel:
    """The files and slots of one sensor."""

    def __init__(self, number: int, frame: Frame, truth: GroundTruth, slots: int, tap: Tap) -> None:
        arrays = dict(frame.buffers)
        same = truth.labels is not None and any(truth.labels.ptr == buffer.ptr for buffer in arrays.values())
        # A sensor that delivers the true labels itself needs them only once.
        self._own_truth = truth.labels is not None and not same
        if self._own_truth:
            arrays[TRUTH] = truth.labels
        self.described: dict[str, Any] = {
            "kind": frame.kind,
            "buffers": {
                name: {
                    "file": f"{number:03d}-{name}.bin",
                    "shape": list(array.shape),
                    "dtype": array.dtype.__name__,
                }
                for name, array in arrays.items()
            },
        }
        self.files: dict[str, BinaryIO] = {}
        self.free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for _ in range(slots):
            self.free.put(_Slot(arrays, tap))
        self._rows = 0

    def copy(self, slot: _Slot, frame: Frame, truth: GroundTruth) -> None:
        """Launches the copy of the sample into the slot's arrays."""
        for name, target in slot.arrays.items():
            source: Any = truth.labels if name == TRUTH and self._own_truth else frame.buffers[name]
            slot.copies.copy(target, source)
        slot.copies.launched()

    def open(self, folder: Path) -> None:
        """Makes the files."""
        self.files = {name: (folder / facts["file"]).open("wb") for name, facts in self.described["buffers"].items()}

    def append(self, slot: _Slot) -> tuple[int, int]:
        """Writes one sample and returns its number in the files and the checksum over its buffers."""
        slot.copies.wait()
        checksum = 0
        for name, view in slot.views.items():
            data = memoryview(view).cast("B")
            self.files[name].write(data)
            self.files[name].flush()
            checksum = zlib.crc32(data, checksum)
        self._rows += 1
        return self._rows - 1, checksum


def _state(state: SimState) -> dict[str, Any]:
    return {
        "sim_time": float(state.sim_time),
        "step": int(state.step),
        "position": [float(value) for value in state.position],
        "yaw": float(state.yaw),
        "velocity": [float(value) for value in state.velocity],
        "yaw_rate": float(state.yaw_rate),
        "distance": float(state.distance),
    }


def _frame(frame: Frame, truth: GroundTruth) -> dict[str, Any]:
    return {
        "sensor": frame.sensor,
        "sequence": int(frame.sequence),
        "sim_time": float(frame.sim_time),
        "dropped": int(frame.dropped),
        "truth": {
            "labels": truth.labels is not None,
            "hazard": None if truth.hazard is None else bool(truth.hazard),
            "clearance": None if truth.clearance is None else [float(value) for value in truth.clearance],
        },
    }
