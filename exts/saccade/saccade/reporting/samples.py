"""Sample frames of a run: what the loop keeps as pictures and the report shows."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from saccade.errors import RecordError

KINDS = ("camera", "lidar")


@dataclass(slots=True)
class Sample:
    """One tick with prediction and truth.

    ``cameras`` by network: ``color`` shape ``(height, width, 3)``, uint8; ``predicted`` and ``truth`` class index,
    uint8, shape ``(height, width)``, not necessarily the same; ``hazard`` 0..1; ``hazard_truth`` 0, 1 or -1 = unknown.

    ``lidars`` by network: ``points`` in the sensor frame [m], shape ``(channels * columns, 3)``, float32, zero = no
    return; ``predicted`` and ``truth`` class index, uint8, shape ``(channels * columns,)``; ``clearance`` and
    ``clearance_truth`` [m], shape ``(16,)``.

    What was not there (no truth, no such output) is absent.
    """

    tick: int
    sim_time: float
    cameras: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    lidars: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def write_sample(path: Path, tick: int, sim_time: float, entries: Mapping[str, Any]) -> None:
    """Writes one sample, whole or not at all.

    Args:
        path: The ``.npz`` file; its folder is made.
        tick: The decision.
        sim_time: Simulation time of the sensed state [s].
        entries: Arrays and numbers by ``camera:<network>:<key>`` or ``lidar:<network>:<key>``, the keys of
            :class:`Sample`.
    """
    for key in entries:
        if _split(key) is None:
            raise ValueError(f"{key!r} is not camera:<network>:<key> or lidar:<network>:<key>")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            values: dict[str, Any] = {key: np.asarray(value) for key, value in entries.items()}
            np.savez_compressed(file, tick=np.int64(tick), sim_time=np.float64(sim_time), **values)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_sample(path: Path) -> Sample:
    """Reads what :func:`write_sample` wrote.

    Raises:
        RecordError: The file is not a sample or is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            sample = Sample(int(archive["tick"]), float(archive["sim_time"]))
            for name in archive.files:
                parts = _split(name)
                if parts is None:
                    continue
                kind, network, key = parts
                group = sample.cameras if kind == "camera" else sample.lidars
                group.setdefault(network, {})[key] = archive[name]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise RecordError(f"{path}: not a readable sample ({error}): delete it and make the report again") from error
    return sample


def read_samples(directory: Path) -> tuple[list[Sample], list[str]]:
    """Reads every sample below ``directory``/samples in the order of their ticks.

    Returns:
        The samples, and a sentence for each file that could not be read.
    """
    samples, problems = [], []
    for path in sorted((directory / "samples").glob("*.npz")):
        try:
            samples.append(read_sample(path))
        except RecordError as error:
            problems.append(str(error))
    return sorted(samples, key=lambda sample: sample.tick), problems


def _split(name: str) -> tuple[str, str, str] | None:
    match = re.fullmatch(rf"({'|'.join(KINDS)}):(.+):([a-z_]+)", name, re.DOTALL)
    return None if match is None else (match[1], match[2], match[3])
