"""Load from another process or another stream: matrix products, started and stopped while a run goes on."""

# Warp reads the annotations of kernels: they are its array types, not Python's.
# mypy: disable-error-code="valid-type,no-untyped-def"

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import warp as wp

from saccade.errors import ConfigurationError, EngineError

SIDE = {"cpu": 384, "cuda": 2048}
"""Rows of the matrices: small enough that a product ends soon after it is told to."""
READY, START, STOP = "ready", "start", "stop"
READY_TIMEOUT_S = 180.0
"""A GPU's kernel is compiled first where its cache is cold."""

PROCESS, STREAM = "process", "stream"
KINDS = (PROCESS, STREAM)
STREAM_SIDE, STREAM_THREADS = 1024, 256
"""Rows of a stream's matrices, and threads of each of its blocks, of which there is one per multiprocessor."""
IN_FLIGHT = 3
"""Products that a stream has ahead of it, so that it never runs dry."""


class Load(Protocol):
    """What can be started and stopped while a run goes on."""

    workers: int
    active: bool

    def start(self) -> None:
        """Starts to compute."""

    def stop(self) -> None:
        """Stops to compute; what is under way is finished."""

    def close(self) -> None:
        """Ends it; safe to call twice."""


def load_from_kind(kind: str, device: str, *, workers: int | None = None) -> LoadGenerator | StreamLoad:
    """Returns the load of a kind, warm and not started.

    Processes take turns with the run on a GPU, slice by slice. A stream's products run beside the run's kernels, on
    the same multiprocessors.

    Args:
        kind: One of :data:`KINDS`.
        device: Where it computes, ``"cpu"`` or ``"cuda:N"``.
        workers: Processes or streams; ``None`` = one per core of the CPU, one for a GPU.

    Raises:
        ConfigurationError: There is no such kind, or not on this device.
        EngineError: It does not start.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"load {kind!r}: expected {' or '.join(KINDS)}")
    return (LoadGenerator if kind == PROCESS else StreamLoad)(device, workers=workers)


class LoadGenerator:
    """Processes that multiply matrices between :meth:`start` and :meth:`stop`; warm from the beginning.

    They end with this process, however that ends: they read from a pipe that closes with it.

    Args:
        device: Where they compute, ``"cpu"`` or ``"cuda:N"``.
        workers: How many; ``None`` = one per core of the CPU, one for a GPU.

    Raises:
        EngineError: They do not start.
    """

    def __init__(self, device: str, *, workers: int | None = None) -> None:
        self.device = device
        self.workers = workers or (1 if device.startswith("cuda") else len(os.sched_getaffinity(0)))
        self.active = False
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "saccade.validation.load_generator", "--device", device]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
            for _ in range(self.workers)
        ]
        try:
            for process in self._processes:
                self._wait_ready(process)
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Starts to compute."""
        self._tell(START)
        self.active = True

    def stop(self) -> None:
        """Stops to compute; a product that is under way is finished."""
        self._tell(STOP)
        self.active = False

    def close(self) -> None:
        """Ends the processes; safe to call twice."""
        self.active = False
        for process in self._processes:
            with contextlib.suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()
        for process in self._processes:
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def __enter__(self) -> LoadGenerator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tell(self, word: str) -> None:
        for process in self._processes:
            assert process.stdin is not None
            try:
                process.stdin.write(f"{word}\n")
                process.stdin.flush()
            except OSError as error:
                raise EngineError(f"the load generator on {self.device} has ended (status {process.poll()})") from error

    def _wait_ready(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        timer = threading.Timer(READY_TIMEOUT_S, process.kill)
        timer.start()
        try:
            for line in process.stdout:
                if line.strip() == READY:
                    return
        finally:
            timer.cancel()
        raise EngineError(f"the load generator on {self.device} does not start (status {process.wait()})")


class StreamLoad:
    """Streams of this process that multiply matrices between :meth:`start` and :meth:`stop`.

    Each has one block of 256 threads on every multiprocessor, so that the run's own kernels find room beside it and
    share arithmetic units, caches and memory with it.

    Args:
        device: ``"cuda:N"``.
        workers: How many streams; ``None`` = one.

    Raises:
        ConfigurationError: Not a GPU.
    """

    def __init__(self, device: str, *, workers: int | None = None) -> None:
        if not device.startswith("cuda"):
            raise ConfigurationError(f"a load on a stream needs a GPU, and this run is on {device!r}: --load process")
        self.device = device
        self.workers = workers or 1
        self.active = False
        self.products = 0
        """Products that were begun."""
        self._running, self._ended = threading.Event(), threading.Event()
        place = wp.get_device(device)
        self._works = [_stream_product(place) for _ in range(self.workers)]
        for launch, _ in self._works:
            launch()  # compiles the kernel
        wp.synchronize_device(place)
        self._thread = threading.Thread(target=self._work, name="saccade-load", daemon=True)
        self._thread.start()

    def start(self) -> None:
        """Starts to compute."""
        self._running.set()
        self.active = True

    def stop(self) -> None:
        """Stops to compute; products that are under way are finished."""
        self._running.clear()
        self.active = False

    def close(self) -> None:
        """Ends the thread; safe to call twice."""
        self.stop()
        self._ended.set()
        self._thread.join(30.0)

    def __enter__(self) -> StreamLoad:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self) -> None:
        ahead = [[wp.Event(self.device, enable_timing=False) for _ in range(IN_FLIGHT)] for _ in self._works]
        count = 0
        while not self._ended.is_set():
            if not self._running.wait(0.2):
                continue
            for (launch, stream), events in zip(self._works, ahead, strict=True):
                event = events[count % IN_FLIGHT]
                if count >= IN_FLIGHT:
                    wp.synchronize_event(event)
                launch()
                stream.record_event(event)
                self.products += 1
            count += 1
        for _, stream in self._works:
            wp.synchronize_stream(stream)


def _stream_product(device: Any) -> tuple[Callable[[], None], wp.Stream]:
    stream = wp.Stream(device)
    shape = (STREAM_SIDE,) * 2
    a, b, c = (wp.full(shape, value=0.5, dtype=wp.float32, device=device) for _ in range(3))

    def launch() -> None:
        wp.launch(
            _multiply, dim=shape, inputs=[a, b], outputs=[c], stream=stream, max_blocks=device.sm_count,
            block_dim=STREAM_THREADS,
        )  # fmt: skip

    return launch, stream


@wp.kernel(enable_backward=False)
def _multiply(a: wp.array2d(dtype=wp.float32), b: wp.array2d(dtype=wp.float32), c: wp.array2d(dtype=wp.float32)):
    row, column = wp.tid()
    total = wp.float32(0.0)
    for k in range(a.shape[1]):
        total += a[row, k] * b[k, column]
    c[row, column] = total


def main() -> None:
    """Computes while told to, until its input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    work = _product(device)
    work()
    running, ended = threading.Event(), threading.Event()
    threading.Thread(target=_listen, args=(running, ended), daemon=True).start()
    print(READY, flush=True)
    while not ended.is_set():
        if running.wait(0.2):
            work()


def _listen(running: threading.Event, ended: threading.Event) -> None:
    for line in sys.stdin:
        (running.set if line.strip() == START else running.clear)()
    ended.set()


def _product(device: str) -> Callable[[], Any]:
    if device == "cpu":
        random = np.random.default_rng(0)
        first, second = (random.normal(size=(SIDE["cpu"],) * 2).astype(np.float32) for _ in range(2))
        return lambda: first @ second
    from saccade.kernels.setup import prepare_warp

    prepare_warp()
    shape = (SIDE["cuda"],) * 2
    a, b, c = (wp.full(shape, value=0.5, dtype=wp.float32, device=device) for _ in range(3))

    def multiply() -> None:
        # A few at a time, so that the GPU never waits for the next launch and yet stops soon.
        for _ in range(4):
            wp.launch(_multiply, dim=shape, inputs=[a, b], outputs=[c], device=device)
        wp.synchronize_device(device)

    return multiply


if __name__ == "__main__":
    main()
