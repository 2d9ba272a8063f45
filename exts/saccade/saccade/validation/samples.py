"""Keeps a few frames of a run as pictures for the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from saccade.loop import JUDGED, Tick
from saccade.network import Network
from saccade.telemetry.taps import Tap


class SampleKeeper:
    """An observer that copies evenly spaced judged ticks and writes them when the run is over.

    Args:
        count: How many ticks to keep.
        first: Index of the first judged tick.
        frames: Number of judged ticks.
        networks: By name.
    """

    def __init__(self, count: int, *, first: int, frames: int, networks: Mapping[str, Network]) -> None:
        self._networks = networks
        count = min(count, frames)
        # Centres of equal parts of the run, so that neither the start nor the end stands for the whole.
        self._wanted = {first + int((i + 0.5) * frames / count) for i in range(count)}
        self._slots: dict[int, dict[str, Any]] = {}
        self._pool: list[dict[str, Any]] = []
        self.tap = Tap()

    def __call__(self, tick: Tick) -> None:
        """Copies the tick when it is one of those wanted; the copies' arrays exist since the first tick."""
        if not self._pool and not self._slots:
            self._pool = [self._allocate(tick) for _ in self._wanted]
        if tick.index not in self._wanted or tick.phase != JUDGED or not self._pool:
            return
        slot = self._pool.pop()
        slot["sim_time"] = tick.state.sim_time
        copies = slot["copies"]
        for frame, truth in zip(tick.frames, tick.truths, strict=True):
            for result in tick.results[frame.sensor]:
                entry = slot["entries"].get(result.network)
                if entry is None:
                    continue
                entry["seen"] = True
                copies.copy(entry["image"], frame.buffers[entry["buffer"]])
                if result.labels is not None:
                    copies.copy(entry["predicted"], result.labels)
                if truth.labels is not None:
                    copies.copy(entry["truth"], truth.labels)
                entry["result"] = (result.hazard, result.clearance)
                entry["expected"] = (truth.hazard, None if truth.clearance is None else list(truth.clearance))
        copies.launched()
        self._slots[tick.index] = slot

    def write(self, directory: Path) -> list[Path]:
        """Writes one file per kept tick into ``directory``/samples and returns their paths."""
        from saccade.reporting.samples import write_sample

        paths = []
        for index, slot in sorted(self._slots.items()):
            slot["copies"].wait()
            entries = {}
            for name, entry in slot["entries"].items():
                if entry.get("seen"):
                    entries.update(_entry(name, entry))
            if not entries:
                continue
            path = directory / "samples" / f"{index:06d}.npz"
            path.parent.mkdir(exist_ok=True)
            write_sample(path, index, slot["sim_time"], entries)
            paths.append(path)
        return paths

    def _allocate(self, tick: Tick) -> dict[str, Any]:
        entries = {}
        for frame, truth in zip(tick.frames, tick.truths, strict=True):
            for result in tick.results[frame.sensor]:
                buffer = "color" if frame.kind == "camera" else "points"
                if buffer not in frame.buffers:
                    continue
                image = frame.buffers[buffer]
                entries[result.network] = {
                    "kind": frame.kind,
                    "buffer": buffer,
                    "image": _host_array(image),
                    "predicted": None if result.labels is None else _host_array(result.labels),
                    "truth": None if truth.labels is None else _host_array(truth.labels),
                }
        return {"entries": entries, "copies": self.tap.copies()}


def _host_array(like: wp.array) -> wp.array:
    return wp.empty(like.shape, dtype=like.dtype, device="cpu", pinned=like.device.is_cuda)


def _entry(network: str, entry: dict[str, Any]) -> dict[str, Any]:
    prefix = f"{entry['kind']}:{network}:"
    found: dict[str, Any] = {}
    hazard, clearance = entry["result"]
    hazard_truth, clearance_truth = entry["expected"]
    lidar = entry["kind"] == "lidar"
    for key in ("predicted", "truth"):
        if entry[key] is not None:
            labels = entry[key].numpy()
            found[prefix + key] = labels.reshape(-1) if lidar else labels
    if lidar:
        found[prefix + "points"] = entry["image"].numpy().reshape(-1, 3)
        if clearance is not None:
            found[prefix + "clearance"] = np.asarray(clearance, np.float32)
        if clearance_truth is not None:
            found[prefix + "clearance_truth"] = np.asarray(clearance_truth, np.float32)
        return found
    packed = entry["image"].numpy()
    found[prefix + "color"] = packed.view(np.uint8).reshape(*packed.shape, 4)[..., :3]
    if hazard is not None:
        found[prefix + "hazard"] = float(hazard)
    found[prefix + "hazard_truth"] = -1 if hazard_truth is None else int(hazard_truth)
    return found
