"""Frames on a CUDA stream: the whole frame captured once as a graph and replayed, or launched eagerly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import warp as wp

from saccade.errors import EngineError
from saccade.execution import FrameStage, Turn, buffer_key, declared_uploads, place_networks, turns_of
from saccade.frame import Frame, Result, now_ns
from saccade.kernels.stamps import record_stamp
from saccade.mailbox import MAX_STAMPS, Mailbox
from saccade.network import InputWork, Network
from saccade.residency import graph_facts
from saccade.simulators.base import Simulator
from saccade.telemetry.gpu_clock import GpuClock, gpu_pair

MAX_GRAPHS = 8
"""Graphs kept for one set of sensors whose buffers rotate; past it frames are copied into own buffers."""

REHEARSALS = 3
"""Eager runs before a capture: kernels are loaded and engines have made what they make on first use."""

FIRST, LAST = 0, 1
"""Slots of the stamps around a whole frame."""


@dataclass(slots=True)
class _Recorded:
    """What one set of frames needs, captured or not."""

    turns: list[Turn]
    inputs: list[list[InputWork]]
    slots: list[tuple[int, int, int]]
    """Per frame the stamp slots of sensed, preprocessed and inferred; -1 = none."""
    own: Sequence[Frame] | None = None
    """Own frames that are worked on instead of the source's, whose buffers rotate too much."""
    order: list[int] = field(default_factory=list)
    """Slots in the order in which they are taken."""
    graph: Any = None


class StreamExecution:
    """Puts sensing, preprocessing, inference, decoding and the copy of the results on one stream.

    A set of frames that are due together is captured as one CUDA graph the first time and replayed from then on. With
    a simulator whose sensing can be captured the graph holds the whole frame, else it begins at the sensors' buffers,
    with one graph for each set of buffer addresses. Where capture fails the same work is launched eagerly, and
    :meth:`facts` says why.

    Args:
        simulator: The opened simulator.
        networks: All networks, in order; their engines are on ``device``.
        device: Warp device.
        capture: Whether graphs are used at all.
        stages: Users' own work as part of every frame.
        stamps: Whether stages are stamped on the device; only the benchmark does without.
        clock: Maps device times; ``None`` makes one where ``stamps`` is set.

    Raises:
        EngineError: A stage that follows nothing known.
    """

    def __init__(
        self,
        simulator: Simulator,
        networks: Sequence[Network],
        *,
        device: str,
        capture: bool = True,
        stages: Sequence[FrameStage] = (),
        stamps: bool = True,
        clock: GpuClock | None = None,
    ) -> None:
        self._simulator = simulator
        self._networks = list(networks)
        self._device = wp.get_device(device)
        self._stream = self._device.stream if self._device.is_cuda else None
        self._stages = list(stages)
        for stage in self._stages:
            if stage.after not in ("sense", "inference"):
                raise EngineError(f"stage {stage.name!r}: after is {stage.after!r}, expected 'sense' or 'inference'")
        self._mailbox = Mailbox(sum(network.batch for network in networks), self._device)
        place_networks(networks, self._mailbox)
        self._stamped = stamps
        if not stamps:
            clock = None
        elif clock is None and self._device.is_cuda:
            clock = GpuClock(gpu_pair(self._device))
        self._clock = clock
        if clock is not None:
            clock.synchronise()
        self._stamp_launches = [record_stamp(self._mailbox.stamps, slot) for slot in range(MAX_STAMPS)]
        same_device = wp.get_device(simulator.device) == self._device
        self._whole = bool(simulator.capturable) and same_device
        self._capture = capture and same_device
        self._reason = None if self._capture else _why_eager(capture, simulator.device, device)
        self._newest: dict[str, Frame] = {}
        self._recorded: dict[tuple[Any, ...], _Recorded] = {}
        self._per_set: Counter[tuple[str, ...]] = Counter()
        self._own: dict[tuple[Any, ...], dict[str, Frame]] = {}
        self._proofs: list[dict[str, Any]] = []
        self._counts = Counter(dict.fromkeys(("captures", "recaptures", "replays", "copied_inputs"), 0))

    def sense(self) -> Sequence[Frame]:
        """Returns the frames that are due now; where sensing is part of the graph it has not happened yet."""
        return self._simulator.due() if self._whole else self._simulator.sense()

    def infer(self, frames: Sequence[Frame]) -> dict[str, list[Result]]:
        """Senses where that is part of the graph, runs every network whose first input is due, and waits.

        Returns:
            Results by sensor.

        Raises:
            EngineError: The device stopped; the text says what to do.
        """
        for frame in frames:
            self._newest[frame.sensor] = frame
        # A capture and copies into own buffers are part of what this frame's inference takes.
        launched = now_ns()
        recorded = self._recorded_for(frames)
        try:
            self._prepare(frames)
            if recorded.graph is not None:
                wp.capture_launch(recorded.graph, stream=self._stream)
                self._counts["replays"] += 1
            else:
                self._launch(recorded, frames)
            self._wait()
        except (RuntimeError, EngineError) as error:
            raise self._stopped(error) from error
        done = now_ns()
        self._stamp(frames, recorded, launched, done)
        results: dict[str, list[Result]] = {frame.sensor: [] for frame in frames}
        for turn in recorded.turns:
            for network in turn.networks:
                for result in network.results():
                    results[result.sensor].append(result)
                    self._newest[result.sensor].stamps.on_host = done
        return results

    def idle(self) -> None:
        """Synchronises the clocks when the last time was a second ago: no frame should wait for that."""
        if self._clock is not None:
            self._clock.synchronise_if_due()

    def facts(self) -> dict[str, Any]:
        """Returns ``execution``, ``residency`` and ``clock`` of the record: see docs/record.md."""
        proofs = self._proofs
        unlisted = [proof["reason"] for proof in proofs if "reason" in proof]
        unknown = [node for proof in proofs for node in proof.get("unknown", ())]
        if self._reason:
            reason = f"an eager run: {self._reason}"
        elif unlisted:
            reason = unlisted[0]
        elif unknown:
            reason = f"the driver does not tell what these nodes move: {', '.join(dict.fromkeys(unknown))}"
        else:
            reason = None if proofs else "no frame was captured"
        listed = bool(proofs) and not unlisted
        crossed = {
            name: sum(proof[name] for proof in proofs) if listed else None
            for name in ("host_to_device_bytes", "device_to_host_bytes")
        }
        facts: dict[str, Any] = {
            "execution": {
                "mode": "eager" if self._reason else "graph",
                "scope": None if self._reason else "frame" if self._whole else "buffers",
                "reason": self._reason,
                "graphs": len(proofs),
                **self._counts,
            },
            "residency": {
                "proven": reason is None,
                "reason": reason,
                "graphs": proofs,
                **crossed,
                "declared_uploads": declared_uploads(self._simulator, self._networks),
            },
        }
        if self._clock is not None:
            facts["clock"] = self._clock.facts()
        return facts

    def _recorded_for(self, frames: Sequence[Frame]) -> _Recorded:
        sensors = tuple(frame.sensor for frame in frames)
        # Where sensing is captured the buffers are the simulator's own and stay; else they are part of the key.
        addresses = () if self._whole else tuple(buffer_key(self._newest[s]) for s in self._inputs_of(sensors))
        key = (sensors, len(self._newest), addresses)
        known = self._recorded.get(key)
        if known is not None:
            return known
        if self._per_set[sensors] >= MAX_GRAPHS and not self._whole:
            return self._copied(sensors)
        self._recorded[key] = recorded = self._record(frames, self._newest)
        return recorded

    def _inputs_of(self, sensors: Sequence[str]) -> list[str]:
        """Sensors whose newest buffers are read for this set, in order: of all inputs that one of the set feeds."""
        found = dict.fromkeys(sensors)
        for network in self._networks:
            for source in network.config.inputs.values():
                if not set(source.sensors).isdisjoint(sensors):
                    found.update(dict.fromkeys(sensor for sensor in source.sensors if sensor in self._newest))
        return list(found)

    def _copied(self, sensors: tuple[str, ...]) -> _Recorded:
        """Copies buffers that have rotated past every graph into own ones, for which there is one more graph."""
        key = (sensors, len(self._newest), "own")
        own = self._own.get(key)
        if own is None:
            own = self._own[key] = {sensor: _own_frame(self._newest[sensor]) for sensor in self._inputs_of(sensors)}
        for sensor, frame in own.items():
            newest = self._newest[sensor]
            frame.sequence, frame.sim_time, frame.stamps = newest.sequence, newest.sim_time, newest.stamps
            for name, array in frame.buffers.items():
                wp.copy(array, newest.buffers[name])
                self._counts["copied_inputs"] += 1
        if key not in self._recorded:
            frames = [own[sensor] for sensor in sensors]
            self._recorded[key] = self._record(frames, {**self._newest, **own}, own=frames)
        return self._recorded[key]

    def _record(
        self, frames: Sequence[Frame], newest: dict[str, Frame], *, own: Sequence[Frame] | None = None
    ) -> _Recorded:
        sensors = tuple(frame.sensor for frame in frames)
        turns = turns_of(sensors, self._networks, set(self._newest))
        inputs = [[network.input_work(tensor, newest) for network, tensor in turn.inputs] for turn in turns]
        recorded = _Recorded(turns, inputs, _slots(sensors, turns), own)
        again = self._per_set[sensors] > 0
        self._per_set[sensors] += 1
        if not self._capture:
            return recorded
        try:
            for _ in range(REHEARSALS):
                self._prepare(frames)
                self._launch(recorded, frames)
            self._wait()
            self._prepare(frames)
            recorded.graph = self._captured(lambda: self._launch(recorded, frames))
            self._counts["captures"] += 1
            self._counts["recaptures"] += again
            self._proofs.append({"sensors": list(sensors), **_proof(recorded.graph)})
        except Exception as error:  # users' stages raise what they like, and PyCUDA's errors are no RuntimeError
            recorded.graph = None
            self._capture = False
            self._reason = f"the frame could not be captured as a graph: {_first_line(error)}"
            self._wait()
        return recorded

    def _prepare(self, frames: Sequence[Frame]) -> None:
        """Launches, outside the graph, what a simulator changes from frame to frame."""
        if self._whole:
            self._simulator.prepare(frames)

    def _captured(self, launch: Callable[[], None]) -> Any:
        if self._stream is None:
            with wp.ScopedCapture(device=self._device) as capture:
                launch()
        else:
            with wp.ScopedCapture(stream=self._stream) as capture:
                launch()
        return capture.graph

    def _launch(self, recorded: _Recorded, frames: Sequence[Frame]) -> None:
        """Launches one set of frames; eagerly, or while it is captured."""
        mailbox = self._mailbox
        frames = recorded.own or frames
        recorded.order.clear()
        mailbox.clear()
        self._take(recorded, FIRST)
        if self._whole:
            for frame, (sensed, _, _) in zip(frames, recorded.slots, strict=True):
                self._simulator.record_sense([frame], self._stream)
                self._take(recorded, sensed)
        self._run_stages("sense", frames)
        for number, (turn, inputs) in enumerate(zip(recorded.turns, recorded.inputs, strict=True)):
            for work in inputs:
                work.run()
            for place in turn.prepared:
                self._take(recorded, recorded.slots[place][1])
            for network in turn.networks:
                network.engine.enqueue(self._stream)
            if turn.networks:
                self._take(recorded, 2 + 2 * len(recorded.turns) + number)
            for network in turn.networks:
                network.launch_decode()
        self._run_stages("inference", frames)
        self._take(recorded, LAST)
        mailbox.fetch()

    def _run_stages(self, after: str, frames: Sequence[Frame]) -> None:
        for stage in self._stages:
            if stage.after == after:
                stage.record(frames, self._stream)

    def _take(self, recorded: _Recorded, slot: int) -> None:
        if self._stamped and slot >= 0 and slot not in recorded.order:
            self._stamp_launches[slot].launch()
            recorded.order.append(slot)

    def _stamp(self, frames: Sequence[Frame], recorded: _Recorded, launched: int, done: int) -> None:
        """Writes host times of the stages into the frames' stamps."""
        if self._clock is None:
            for frame in frames:
                if self._whole:
                    frame.stamps.sensed = done
                frame.stamps.handed_over = done if self._whole else launched
            return
        order = recorded.order
        taken = self._mailbox.stamp_values
        times = self._clock.stages_between(launched, [int(taken[slot]) for slot in order], done)
        host = dict(zip(order, times, strict=True))
        handed_over = launched if not self._whole else None
        for frame, (sensed, preprocessed, inferred) in zip(frames, recorded.slots, strict=True):
            stamps = frame.stamps
            if self._whole:
                stamps.sensed = host[sensed]
            # The graph goes on at once: a buffer is handed over when the last of the set has been sensed.
            stamps.handed_over = handed_over or max(host[slots[0]] for slots in recorded.slots)
            if preprocessed in host:
                stamps.preprocessed = host[preprocessed]
            if inferred in host:
                stamps.inferred = host[inferred]

    def _wait(self) -> None:
        if self._stream is not None:
            wp.synchronize_stream(self._stream)

    def _stopped(self, error: Exception) -> EngineError:
        names = ", ".join(network.name for network in self._networks) or "none"
        return EngineError(
            f"{self._device}: a frame stopped with: {_first_line(error)} (networks: {names}). Is another program using "
            "up the GPU's memory? See nvidia-smi; --set engine.graph=off names the stage that fails"
        )


def _slots(sensors: Sequence[str], turns: Sequence[Turn]) -> list[tuple[int, int, int]]:
    """Returns the stamp slots of sensed, preprocessed and inferred by frame; frames of one batch share theirs."""
    count = len(turns)
    if 2 + 3 * count > MAX_STAMPS:
        raise EngineError(
            f"{count} sensors are due together, and one frame can stamp {(MAX_STAMPS - 2) // 3}: give them other rates"
        )
    place = {sensor: i for i, sensor in enumerate(sensors)}
    preprocessed, inferred = [-1] * count, [-1] * count
    for number, turn in enumerate(turns):
        for frame in turn.prepared:
            preprocessed[frame] = 2 + count + number
        for network in turn.networks:
            for sensor in network.primary:
                inferred[place[sensor]] = 2 + 2 * count + number
    return [(2 + i, preprocessed[i], inferred[i]) for i in range(count)]


def _own_frame(frame: Frame) -> Frame:
    buffers = {name: wp.empty_like(array) for name, array in frame.buffers.items()}
    return Frame(frame.sensor, frame.kind, frame.sequence, frame.sim_time, frame.stamps, buffers)


def _why_eager(capture: bool, sensors: str, device: str) -> str:
    if not capture:
        return "engine.graph is off"
    return f"the sensors' buffers are on {sensors}, the engines on {device}"


def _proof(graph: Any) -> dict[str, Any]:
    """Returns the graph's nodes and bytes, or why they could not be listed."""
    handle = getattr(graph, "graph", None)
    handle = getattr(handle, "value", handle)
    if not handle:
        return {"reason": "not a CUDA graph"}
    try:
        return graph_facts(int(handle)).as_dict()
    except ImportError as error:
        return {"reason": f"cuda-bindings is not installed ({_first_line(error)}): pip install cuda-bindings"}
    except RuntimeError as error:
        return {"reason": _first_line(error)}


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
