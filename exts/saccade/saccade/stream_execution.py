"""Frames on a CUDA stream: the whole frame captured once as a graph and replayed, or launched eagerly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import warp as wp

from saccade.engines.adaptive import AdaptiveEngine
from saccade.errors import EngineError
from saccade.execution import FrameStage, Turn, buffer_key, declared_uploads, place_networks, turns_of
from saccade.frame import Frame, Result, now_ns
from saccade.lanes import Lanes
from saccade.mailbox import Mailbox
from saccade.network import InputWork, Network
from saccade.residency import graph_facts
from saccade.simulators.base import Simulator
from saccade.stamp_plan import INFERRED, PREPROCESSED, SENSED, StampPlan, plan_stamps
from saccade.telemetry.gpu_clock import GpuClock, gpu_pair

MAX_GRAPHS = 8
"""Graphs kept for one set of sensors whose buffers rotate; past it frames are copied into own buffers."""

REHEARSALS = 3
"""Eager runs before a capture: kernels are loaded and engines have made what they make on first use."""


@dataclass(slots=True)
class _Recorded:
    """What one set of frames needs, captured or not."""

    turns: list[Turn]
    inputs: list[list[InputWork]]
    networks: list[Network]
    """Those that run, in order."""
    decodes: list[list[wp.Launch]]
    """By turn what decodes large outputs."""
    stamps: StampPlan | None
    results: wp.Launch | None
    """Brings the results, and some of the stamps, to the host."""
    written: int
    """Bytes that kernels write to the host in one frame."""
    own: Sequence[Frame] | None = None
    """Frames whose buffers stay, where those of the source have rotated too often."""
    graph: Any = None
    frames: tuple[Frame, ...] = ()
    buffers: tuple[Any, ...] = ()
    """The frames and their mappings of buffers that this was last used for."""


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
        decode: Whether outputs are decoded and summaries brought to the host; only the benchmark does without.
        branched: Whether cameras, LiDARs, their networks and the stamps are branches of the graph that need not wait
            for each other, instead of one line.
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
        decode: bool = True,
        branched: bool = False,
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
        self._stamped, self._decoded = stamps, decode
        self._lanes = Lanes(self._device, branched=branched)
        if not stamps:
            clock = None
        elif clock is None and self._device.is_cuda:
            clock = GpuClock(gpu_pair(self._device))
        self._clock = clock
        if clock is not None:
            clock.synchronise()
        same_device = wp.get_device(simulator.device) == self._device
        self._whole = bool(simulator.capturable) and same_device
        self._capture = capture and same_device
        self._reason = None if self._capture else _why_eager(capture, simulator.device, device)
        self._newest: dict[str, Frame] = {}
        self._recorded: dict[tuple[Any, ...], _Recorded] = {}
        self._adaptive = [network.engine for network in networks if isinstance(network.engine, AdaptiveEngine)]
        self._hot: dict[int, list[_Recorded]] = {}
        self._per_set: Counter[tuple[Any, ...]] = Counter()
        self._own: dict[tuple[Any, ...], dict[str, Frame]] = {}
        self._proofs: list[dict[str, Any]] = []
        self._counts = Counter(dict.fromkeys(("captures", "recaptures", "copied_inputs"), 0))
        self._replays = 0

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
        # A capture and copies into own buffers are part of what this frame's inference takes.
        launched = now_ns()
        recorded = self._known(frames) or self._recorded_for(frames)
        try:
            if self._whole:
                self._simulator.prepare(frames)
            if recorded.graph is not None:
                wp.capture_launch(recorded.graph, stream=self._stream)
                self._replays += 1
            else:
                self._launch(recorded, frames)
            self._wait()
        except (RuntimeError, EngineError) as error:
            raise self._stopped(error) from error
        done = now_ns()
        self._stamp(frames, recorded, launched, done)
        results: dict[str, list[Result]] = {frame.sensor: [] for frame in frames}
        if not self._decoded:
            return results
        for network in recorded.networks:
            for result in network.results():
                results[result.sensor].append(result)
        for frame in frames:
            if results[frame.sensor]:
                frame.stamps.on_host = done
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
        reason: str | None
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
                "replays": self._replays,
            },
            "residency": {
                "proven": reason is None,
                "reason": reason,
                "graphs": proofs,
                **crossed,
                "kernel_writes": _summed(proof["kernel_writes"] for proof in proofs),
                "declared_uploads": declared_uploads(self._simulator, self._networks),
            },
        }
        if self._clock is not None:
            facts["clock"] = self._clock.facts()
        return facts

    def _known(self, frames: Sequence[Frame]) -> _Recorded | None:
        """Returns what a set was recorded as when it has the same frames with the same buffers as the last time."""
        for recorded in self._hot.get(self._level, ()):
            known = recorded.frames
            if len(known) == len(frames) and all(
                frame is other and frame.buffers is buffers
                for frame, other, buffers in zip(frames, known, recorded.buffers, strict=True)
            ):
                for frame in frames:
                    self._newest[frame.sensor] = frame
                return recorded
        return None

    def _recorded_for(self, frames: Sequence[Frame]) -> _Recorded:
        for frame in frames:
            if frame.sensor not in self._newest:
                self._hot.clear()  # what other sets read may change with it
            self._newest[frame.sensor] = frame
        sensors = tuple(frame.sensor for frame in frames)
        reads = self._inputs_of(sensors)
        # Where sensing is captured the buffers are the simulator's own and stay; else they are part of the key.
        addresses = () if self._whole else tuple(buffer_key(self._newest[s]) for s in reads)
        key = (sensors, len(self._newest), addresses, self._level)
        recorded = self._recorded.get(key)
        if recorded is None:
            if self._per_set[sensors, self._level] >= MAX_GRAPHS and not self._whole:
                return self._copied(sensors)
            recorded = self._record_levels(key, frames, self._newest)
        # A set that reads other sensors' newest frames, too, has to look where these are each time.
        if set(reads) == set(sensors):
            recorded.frames, recorded.buffers = tuple(frames), tuple(frame.buffers for frame in frames)
            hot = self._hot.setdefault(self._level, [])
            if recorded not in hot:
                hot.append(recorded)
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
        key = (sensors, len(self._newest), "own", self._level)
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

    @property
    def _level(self) -> int:
        """Which of several precisions runs; 0 where there is one."""
        return self._adaptive[0].level if self._adaptive else 0

    def _record_levels(self, key: tuple[Any, ...], frames: Sequence[Frame], newest: dict[str, Frame]) -> _Recorded:
        """Records a set for every precision that may run it, so that a switch captures nothing."""
        if not self._adaptive:
            self._recorded[key] = self._record(frames, newest)
            return self._recorded[key]
        chosen = self._adaptive[0].precisions[self._level]
        for precision in self._adaptive[0].precisions:
            for engine in self._adaptive:
                engine.select(precision)
            variant = (*key[:-1], self._level)
            self._recorded[variant] = self._record(frames, newest)
        for engine in self._adaptive:
            engine.select(chosen)
        return self._recorded[key]

    def _record(
        self, frames: Sequence[Frame], newest: dict[str, Frame], *, own: Sequence[Frame] | None = None
    ) -> _Recorded:
        sensors = tuple(frame.sensor for frame in frames)
        turns = turns_of(sensors, self._networks, set(self._newest))
        inputs = [[network.input_work(tensor, newest) for network, tensor in turn.inputs] for turn in turns]
        networks = [network for turn in turns for network in turn.networks]
        recorded = self._planned(frames, turns, inputs, networks, own)
        again = self._per_set[sensors, self._level] > 0
        self._per_set[sensors, self._level] += 1
        if not self._capture:
            return recorded
        try:
            for _ in range(REHEARSALS):
                if self._whole:
                    self._simulator.prepare(frames)
                self._launch(recorded, frames)
            self._wait()
            if self._whole:
                self._simulator.prepare(frames)
            recorded.graph = self._captured(lambda: self._launch(recorded, frames))
            self._counts["captures"] += 1
            self._counts["recaptures"] += again
            written = {"results and stamps": recorded.written} if recorded.written else {}
            self._proofs.append({"sensors": list(sensors), **_proof(recorded.graph), "kernel_writes": written})
        except Exception as error:  # users' stages raise what they like, and PyCUDA's errors are no RuntimeError
            recorded.graph = None
            self._capture = False
            self._reason = f"the frame could not be captured as a graph: {_first_line(error)}"
            self._wait()
        return recorded

    def _planned(
        self,
        frames: Sequence[Frame],
        turns: list[Turn],
        inputs: list[list[InputWork]],
        networks: list[Network],
        own: Sequence[Frame] | None,
    ) -> _Recorded:
        """Prepares what ends a set of frames, and decides which kernel takes which stamp."""
        decodes = [[launch for n in turn.networks for launch in n.record_decode()] for turn in turns]
        decodes = decodes if self._decoded else [[] for _ in turns]
        decoded = self._decoded and bool(networks)
        plan = results = None
        if self._stamped:
            lanes = self._lanes.names([frame.kind for frame in frames])
            staged = any(stage.after == "sense" for stage in self._stages)
            plan = plan_stamps(
                turns,
                inputs,
                decodes,
                [frame.sensor for frame in frames],
                lanes,
                self._mailbox,
                whole=self._whole,
                results=decoded,
                staged=staged,
            )
        rows = [row for network in networks for row in network.rows]
        if decoded:
            outputs = [output for network in networks for output in network.small_outputs()]
            results = self._mailbox.record_results(outputs, rows, first=plan.results if plan else -1)
        written = (self._mailbox.row_bytes * len(rows) if decoded else 0) + (8 * plan.taken if plan else 0)
        return _Recorded(turns, inputs, networks, decodes, plan, results, written, own)

    def _captured(self, launch: Callable[[], None]) -> Any:
        if self._stream is None:
            with wp.ScopedCapture(device=self._device) as capture:
                launch()
        else:
            with wp.ScopedCapture(stream=self._stream) as capture:
                launch()
        return capture.graph

    def _launch(self, recorded: _Recorded, frames: Sequence[Frame]) -> None:
        """Launches one set of frames; eagerly, or while it is captured.

        Cameras have a lane and LiDARs another: what one waits for does not hold up the other, and frames of a kind
        share what their ray caster keeps. Stamps that need a kernel of their own are taken beside the work, on a lane
        of their own for each.
        """
        lanes, frames = self._lanes, recorded.own or frames
        lane_of = lanes.names([frame.kind for frame in frames])
        sensed: list[Any] = [None] * len(frames)
        if self._whole:
            self._simulator.record_state(self._stream)
        lanes.begin()
        if self._whole:
            for i, frame in enumerate(frames):
                with lanes.on(lane_of[i]) as stream:
                    self._simulator.record_sense([frame], stream)
                    sensed[i] = lanes.mark(lane_of[i])
                self._take(recorded, SENSED, i, lane_of[i])
        changed = self._run_stages("sense", frames, sensed)
        for i, (turn, inputs) in enumerate(zip(recorded.turns, recorded.inputs, strict=True)):
            lane = lane_of[i]
            # What a user's stage changes is what the networks read.
            with lanes.on(lane, changed, *(sensed[j] for j in turn.prepared if lane_of[j] != lane)) as stream:
                for work in inputs:
                    work.run()
                self._take(recorded, PREPROCESSED, i, lane)
                for network in turn.networks:
                    network.engine.enqueue(stream)
                self._take(recorded, INFERRED, i, lane)
                for launch in recorded.decodes[i]:
                    launch.launch()
        done = {lane: lanes.mark(lane) for lane in dict.fromkeys(lane_of)}
        if recorded.results is not None:
            worked = {lane_of[i] for i, turn in enumerate(recorded.turns) if turn.inputs or turn.networks}
            first = next(lane for lane in lane_of if lane in worked)
            with lanes.on(first, *(done[lane] for lane in done if lane in worked and lane != first)):
                recorded.results.launch()
        self._run_stages("inference", frames, list(done.values()))
        lanes.join()

    def _run_stages(self, after: str, frames: Sequence[Frame], marks: Sequence[Any]) -> Any:
        """Launches users' stages on a lane of their own, after the points given; returns the point where they end."""
        stages = [stage for stage in self._stages if stage.after == after]
        for stage in stages:
            with self._lanes.on("stages", *marks) as stream:
                stage.record(frames, stream)
        return self._lanes.mark("stages") if stages else None

    def _take(self, recorded: _Recorded, stage: int, place: int, lane: str | None) -> None:
        """Launches the stamp of a stage where it needs a kernel of its own."""
        plan = recorded.stamps
        if plan is None or (stage, place) not in plan.own:
            return
        with self._lanes.on(f"stamps {lane}", self._lanes.mark(lane)):
            plan.own[stage, place].launch()

    def _stamp(self, frames: Sequence[Frame], recorded: _Recorded, launched: int, done: int) -> None:
        """Writes host times of the stages into the frames' stamps."""
        clock, whole = self._clock, self._whole
        plan = recorded.stamps
        if clock is None or plan is None:
            for frame in frames:
                stamps = frame.stamps
                if whole:
                    stamps.sensed = done
                stamps.handed_over = done if whole else launched
            return
        taken = self._mailbox.stamp_values[: plan.taken].tolist()
        for frame, (sensed, preprocessed, inferred) in zip(frames, plan.stages, strict=True):
            stamps, before = frame.stamps, launched
            if whole:
                before = stamps.sensed = clock.host_time(taken[sensed], before, done)
            # The graph goes on at once: a buffer is handed over when it has been sensed.
            stamps.handed_over = before
            if preprocessed >= 0:
                before = stamps.preprocessed = clock.host_time(taken[preprocessed], before, done)
            if inferred >= 0:
                stamps.inferred = clock.host_time(taken[inferred], before, done)

    def _wait(self) -> None:
        if self._stream is not None:
            wp.synchronize_stream(self._stream)

    def _stopped(self, error: Exception) -> EngineError:
        names = ", ".join(network.name for network in self._networks) or "none"
        return EngineError(
            f"{self._device}: a frame stopped with: {_first_line(error)} (networks: {names}). Is another program using "
            "up the GPU's memory? See nvidia-smi; --set engine.graph=off names the stage that fails"
        )


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


def _summed(entries: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for entry in entries:
        found.update(entry)
    return dict(found)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
