"""Energy of one run of an engine, from NVML's energy counter; absent with the reason where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

LEAST_ENERGY_J = 1.0
"""Energy below which the counter's steps are too coarse to say anything [J]."""


CPU_ENERGY = "the engines run on the CPU, whose energy NVML does not know"


class EnergyMeter:
    """Reads the GPU's energy counter (Volta and later); what is measured includes what the GPU takes when idle.

    Args:
        device: Warp device of the engines.
    """

    def __init__(self, device: str) -> None:
        self._nvml: Any = None
        self._handle: Any = None
        self.absent: str | None = None
        """Why nothing is measured; ``None`` where it is."""
        if not device.startswith("cuda"):
            self.absent = CPU_ENERGY
            return
        self._open(int(device.partition(":")[2] or 0))

    def per_run(self, run: Callable[[], None], *, seconds: float) -> tuple[float | None, str | None]:
        """Runs something over and over; returns the energy of one run [J], or ``None`` and why.

        Args:
            run: Does it once and waits for it.
            seconds: For how long [s].
        """
        if self.absent is not None:
            return None, self.absent
        first = self._read()
        if first is None:
            return None, self.absent
        runs, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            run()
            runs += 1
        last = self._read()
        if last is None:
            return None, self.absent
        if last - first < LEAST_ENERGY_J:
            return None, f"the energy counter moved by {last - first:.2g} J in {seconds:g} s, too little to divide"
        return (last - first) / runs, None

    def close(self) -> None:
        """Lets go of NVML; safe to call twice."""
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None

    def _open(self, index: int) -> None:
        try:
            import pynvml
        except ImportError:
            self.absent = "NVML is not installed: pip install nvidia-ml-py"
            return
        from saccade.telemetry.gpu import device_handle

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            self.absent = f"NVML does not start: {error}"
            return
        handle, reason = device_handle(pynvml, index)
        if handle is None:
            pynvml.nvmlShutdown()
            self.absent = reason
            return
        self._nvml, self._handle = pynvml, handle

    def _read(self) -> float | None:
        """Returns the counter [J]."""
        try:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) * 1e-3
        except self._nvml.NVMLError as error:
            self.absent = f"NVML says: {error}"
            return None
