"""How busy the device is just now: NVML's utilisation on a GPU, all cores on the CPU; read without waiting."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any


class LoadMonitor:
    """Looks in a thread of its own, so that the loop only reads two numbers.

    Args:
        device: Warp device of the engines.
        period_s: Time between two looks [s].
    """

    def __init__(self, device: str, *, period_s: float = 0.1) -> None:
        self.load_percent: float | None = None
        """Of the GPU, or of all CPU cores together."""
        self.memory_percent: float | None = None
        """Of the GPU's memory; ``None`` on the CPU."""
        self.absent: str | None = None
        """Why the GPU's load is not known."""
        self._period = period_s
        self._stop = threading.Event()
        self._nvml: Any = None
        self._handle: Any = None
        self._gpu = device.startswith("cuda")
        if self._gpu:
            self._open(int(device.partition(":")[2] or 0))
        self._thread = threading.Thread(target=self._run, name="saccade-load", daemon=True)

    def __enter__(self) -> LoadMonitor:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops; safe to call twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None

    def _open(self, index: int) -> None:
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception as error:
            self.absent = f"NVML: {error}"
            return
        from saccade.telemetry.gpu import device_handle

        handle, reason = device_handle(pynvml, index)
        if handle is None:
            self.absent = reason
            pynvml.nvmlShutdown()
            return
        self._nvml, self._handle = pynvml, handle

    def _run(self) -> None:
        import psutil

        psutil.cpu_percent(None)
        while not self._stop.wait(self._period):
            if not self._gpu:
                self.load_percent = float(psutil.cpu_percent(None))
            elif self._nvml is not None:
                self._look()

    def _look(self) -> None:
        try:
            self.load_percent = float(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
            self.memory_percent = 100.0 * memory.used / memory.total
        except self._nvml.NVMLError as error:
            self.load_percent = self.memory_percent = None
            self.absent = f"NVML says: {error}"
