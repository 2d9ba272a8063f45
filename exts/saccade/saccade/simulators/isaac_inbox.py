"""Inbox: what a writer delivers for one sensor, sorted into new frames and everything else; no omni in here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import warp as wp

from saccade.frame import Frame, Stamps, now_ns
from saccade.framepool import FramePool
from saccade.queueing import BoundedQueue
from saccade.sensors.rates import SampleClock
from saccade.simulators.isaac_frames import EpochClock, Summary, reference_key, writer_value
from saccade.simulators.isaac_sensors import CameraStream, LidarStream

SAME_TIME = 1e-6
"""Simulation times that differ by less are one [s]."""

QUEUED = 2
"""Frames of one sensor that may wait where the simulator does not."""


class Inbox:
    """Takes deliveries of one sensor during an update and gives at most one frame after it.

    Args:
        stream: Makes buffers of deliveries.
        rate: Samples per second of simulation time [Hz].
        step: Simulated time of one update [s].
        clock: Maps the time of a physics step.
        queued: Whether frames are copied on arrival and wait in a bounded queue, as the renderer does not wait.
    """

    def __init__(
        self, stream: CameraStream | LidarStream, *, rate: float, step: float, clock: EpochClock, queued: bool
    ) -> None:
        self.stream = stream
        self.listener: Callable[[Frame], None] | None = None
        """Gets every new frame when it arrives, within the update; who keeps one copies it."""
        self.in_row = 0
        """Deliveries in a row that showed the newest state."""
        self.sim_to_data = Summary()
        """From the physics step that a frame shows to the frame in hand."""
        self._step, self._clock = step, clock
        self._samples = SampleClock(step, rate)
        self._started: float | None = None
        self._last = self._taken = -1
        self._frame: Frame | None = None
        self._pool = FramePool() if queued else None
        self._queue: BoundedQueue[Frame] | None = None
        self._lent: Frame | None = None
        if self._pool is not None:
            pool = self._pool
            self._queue = BoundedQueue(
                frames=QUEUED,
                policy="drop_oldest",
                name=stream.name,
                on_drop=lambda frame, reason: pool.release(frame),
            )

    @property
    def counters(self) -> Any:
        """What came, by what it was."""
        return self.stream.freshness.counters

    def deliver(self, data: Mapping[str, Any], newest: float) -> None:
        """Takes one delivery of the writer.

        Args:
            data: By annotator.
            newest: Simulation time of the newest state [s].

        Raises:
            ConfigurationError: It cannot be used; the text says what to do.
        """
        arrived = now_ns()
        reference = writer_value(data, "ReferenceTime")
        key = reference_key(reference["referenceTimeNumerator"], reference["referenceTimeDenominator"])
        if not self.stream.freshness.is_new(key):
            return
        sim_time = float(writer_value(data, "IsaacReadSimulationTime")["simulationTime"])
        sequence = self._sequence(sim_time)
        if sequence is None:
            self.counters.surplus += 1
            return
        buffers = self.stream.take(data)
        if buffers is None:
            self.counters.empty += 1
            self.in_row = 0
            return
        state = self._clock.monotonic_of(float(writer_value(data, "IsaacReadSystemTime")["systemTime"]))
        self._clock.check(state, arrived)
        self.sim_to_data.add((arrived - state) * 1e-6)
        self.counters.fresh += 1
        late = sim_time < newest - SAME_TIME
        self.counters.lagging += late
        self.in_row = 0 if late else self.in_row + 1
        self._last = sequence
        # Never behind its arrival: clocks agree to within their uncertainty only.
        stamps = Stamps(sim_state=min(state, arrived), sensed=now_ns())
        self._keep(Frame(self.stream.name, self.stream.kind, sequence, sim_time, stamps, buffers))

    def start(self, sim_time: float) -> None:
        """Begins to count samples: number 0 shows the state at ``sim_time`` [s]."""
        self._started = sim_time
        first = self._frame
        if first is not None and abs(first.sim_time - sim_time) > SAME_TIME:
            first = None
        self._frame = None
        self._last = self._taken = -1
        self.stream.freshness.reset()
        self.sim_to_data = Summary()
        if first is not None:
            first.sequence = self._last = 0
            self.counters.fresh = 1
            self._keep(first)

    def take(self, step: int) -> Frame | None:
        """Returns the newest new frame; older ones count as dropped.

        Args:
            step: Number of the newest update; in lockstep a sample that is due and did not come is counted.
        """
        frame = self._frame
        self._frame = None
        if self._queue is not None:
            frame = self._queue.take_newest(0) if len(self._queue) else None
            if frame is not None:
                if self._lent is not None and self._pool is not None:
                    self._pool.release(self._lent)
                self._lent = frame
        elif frame is None and self._samples.due(step, self._taken) is not None:
            self.counters.missing += 1
        if frame is not None:
            frame.dropped = frame.sequence - self._taken - 1
            self._taken = frame.sequence
        return frame

    def facts(self) -> dict[str, Any]:
        """Returns what the record says about the stream."""
        facts = {**self.stream.facts(), "sim_to_data": self.sim_to_data.as_dict()}
        if self._queue is not None and self._pool is not None:
            facts["queue"] = {**self._queue.counters().as_dict(), "copied_bytes": self._pool.copied_bytes}
        return facts

    def close(self) -> None:
        """Drops what waits."""
        if self._queue is not None:
            self._queue.close(abandon=True)
        self._frame = None

    def _sequence(self, sim_time: float) -> int | None:
        """Returns the number of the sample that a state is; ``None`` where it is not due or was delivered."""
        if self._started is None:
            return 0
        number = round((sim_time - self._started) / self._step)
        if number < 0:
            return None
        newest = self._samples.newest(number)
        return newest if newest > self._last else None

    def _keep(self, frame: Frame) -> None:
        if self._started is not None and self.listener is not None:
            self.listener(frame)
        if self._queue is None or self._pool is None or self._started is None:
            self.counters.superseded += self._frame is not None and self._started is not None
            self._frame = frame
            return
        kept = self._pool.keep(frame)
        array = next(iter(kept.buffers.values()))
        if array.device.is_cuda:
            # What is copied belongs to the renderer, which goes on when this returns.
            wp.synchronize_stream(array.device.stream)
        self._queue.put(kept)
