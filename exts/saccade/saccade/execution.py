"""How the frames of one decision get from the sensors to results: on the host, or on a CUDA stream or graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from saccade.frame import Frame, Result, now_ns
from saccade.mailbox import Mailbox
from saccade.network import InputWork, Network
from saccade.simulators.base import Simulator


class FrameStage(Protocol):
    """A user's own work on the device as part of every frame: see :mod:`examples.custom_stage`."""

    name: str
    after: str
    """``"sense"`` or ``"inference"``: what it follows."""

    def record(self, frames: Sequence[Frame], stream: Any) -> None:
        """Launches the work on ``stream``; allocates nothing and waits for nothing, as it may be captured.

        Before a capture it is called some times for one frame, and a replayed graph does not call it any more.
        """
        ...


class Execution(Protocol):
    """Senses and infers; the frame's stamps up to ``on_host`` are its doing."""

    def sense(self) -> Sequence[Frame]:
        """Returns the frames that are due now; none is possible."""
        ...

    def infer(self, frames: Sequence[Frame]) -> dict[str, list[Result]]:
        """Runs every network whose first input is due; returns results by sensor."""
        ...

    def idle(self) -> None:
        """Does what need not cost a frame its time; called after each decision, when nothing is under way."""
        ...

    def facts(self) -> dict[str, Any]:
        """Returns ``execution``, ``residency`` and ``clock`` of the record: see docs/record.md."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """What happens when one frame of a set is handed over."""

    inputs: tuple[tuple[Network, str], ...]
    """Inputs that are complete with this frame."""
    prepared: tuple[int, ...]
    """Frames whose preprocessing is done after that, by their place in the set."""
    networks: tuple[Network, ...]
    """Networks that run then."""


def turns_of(sensors: Sequence[str], networks: Sequence[Network], seen: set[str]) -> list[Turn]:
    """Returns what to do for a set of frames that were due together, frame by frame.

    An input is prepared when the last of its sensors that is due has been handed over, and a network runs after the
    last of its sensors that is due, provided that its first input is due and every sensor has delivered before.

    Args:
        sensors: Of the frames, in order.
        networks: All networks, in order.
        seen: Sensors that have delivered, these included.
    """
    place = {sensor: i for i, sensor in enumerate(sensors)}
    inputs: list[list[tuple[Network, str]]] = [[] for _ in sensors]
    prepared: list[set[int]] = [set() for _ in sensors]
    running: list[list[Network]] = [[] for _ in sensors]
    for network in networks:
        for tensor, source in network.config.inputs.items():
            due = [place[sensor] for sensor in source.sensors if sensor in place]
            if due and set(source.sensors) <= seen:
                inputs[max(due)].append((network, tensor))
                prepared[max(due)].update(due)
        due = [place[sensor] for sensor in network.sensors if sensor in place]
        if set(network.primary) <= place.keys() and set(network.sensors) <= seen:
            running[max(due)].append(network)
    return [Turn(tuple(inputs[i]), tuple(sorted(prepared[i])), tuple(running[i])) for i in range(len(sensors))]


def buffer_key(frame: Frame) -> tuple[int, ...]:
    """Returns the addresses of a frame's buffers; a source may rotate one of them and not another."""
    return tuple([array.ptr for array in frame.buffers.values()])


class HostExecution:
    """Runs stage after stage on the calling thread: engines on the CPU, sensors wherever they are.

    Args:
        simulator: The opened simulator.
        networks: All networks, in order.
    """

    def __init__(self, simulator: Simulator, networks: Sequence[Network]) -> None:
        self._simulator = simulator
        self._networks = list(networks)
        rows = sum(network.batch for network in networks)
        self._mailbox = Mailbox(rows, "cpu")
        place_networks(networks, self._mailbox)
        self._newest: dict[str, Frame] = {}
        self._turns: dict[tuple[Any, ...], list[Turn]] = {}
        self._work: dict[tuple[str, str], tuple[tuple[tuple[int, ...], ...], InputWork]] = {}

    def sense(self) -> Sequence[Frame]:
        """Returns the frames that are due now, sensed."""
        return self._simulator.sense()

    def infer(self, frames: Sequence[Frame]) -> dict[str, list[Result]]:
        """Runs every network whose first input is due; returns results by sensor."""
        for frame in frames:
            self._newest[frame.sensor] = frame
        sensors = tuple(frame.sensor for frame in frames)
        key = (sensors, len(self._newest))
        turns = self._turns.get(key)
        if turns is None:
            turns = self._turns[key] = turns_of(sensors, self._networks, set(self._newest))
        results: dict[str, list[Result]] = {sensor: [] for sensor in sensors}
        for frame, turn in zip(frames, turns, strict=True):
            frame.stamps.handed_over = now_ns()
            for network, tensor in turn.inputs:
                self._input_work(network, tensor).run()
            prepared = now_ns()
            for place in turn.prepared:
                frames[place].stamps.preprocessed = prepared
            for network in turn.networks:
                self._run(network, results)
        return results

    def idle(self) -> None:
        """Has nothing to do."""

    def facts(self) -> dict[str, Any]:
        """Returns how it ran."""
        if self._simulator.device == "cpu":
            why, crosses = "the run is on the CPU", "an eager run on the CPU: nothing crosses"
        else:
            why = "the engines run on the CPU"
            crosses = f"an eager run: {why}, what they read is copied from {self._simulator.device}"
        uploads = declared_uploads(self._simulator, self._networks)
        return {
            "execution": {"mode": "eager", "scope": None, "reason": why},
            "residency": {"proven": False, "reason": crosses, "graphs": [], "declared_uploads": uploads},
        }

    def _run(self, network: Network, results: dict[str, list[Result]]) -> None:
        network.engine.enqueue(None)
        inferred = now_ns()
        network.launch_decode()
        found = network.results()
        on_host = now_ns()
        for result in found:
            stamps = self._newest[result.sensor].stamps
            stamps.inferred, stamps.on_host = inferred, on_host
            results[result.sensor].append(result)

    def _input_work(self, network: Network, tensor: str) -> InputWork:
        """Recorded launches of an input; recorded anew only when buffers have moved."""
        sensors = network.config.inputs[tensor].sensors
        key = tuple(buffer_key(self._newest[sensor]) for sensor in sensors)
        known = self._work.get((network.name, tensor))
        if known is None or known[0] != key:
            known = self._work[network.name, tensor] = (key, network.input_work(tensor, self._newest))
        return known[1]


def place_networks(networks: Sequence[Network], mailbox: Mailbox) -> None:
    """Puts the summaries of all networks side by side into a mailbox with a row for each image and scan."""
    row = 0
    for network in networks:
        network.place(mailbox, row)
        row += network.batch


def declared_uploads(simulator: Simulator, networks: Sequence[Network]) -> dict[str, int]:
    """Returns bytes per set of frames that reach the engine's device by a declared copy, by name."""
    uploads: Mapping[str, int] = getattr(simulator, "uploads", {})
    copies = {
        f"{network.name}.{tensor}": size for network in networks for tensor, size in network.declared_copies.items()
    }
    return {**uploads, **copies}


def execution_for(
    simulator: Simulator, networks: Sequence[Network], *, graph: str = "auto", stages: Sequence[FrameStage] = ()
) -> Execution:
    """Returns the execution that fits where sensors and engines are.

    Args:
        simulator: The opened simulator.
        networks: All networks, in order.
        graph: ``"auto"`` captures frames as CUDA graphs with branches where the engines are on the GPU, ``"line"`` as
            graphs without, ``"off"`` never.
        stages: Users' own work on the device; it needs engines on the GPU.

    Raises:
        EngineError: Networks on several devices, or stages without an engine on the GPU.
    """
    from saccade.errors import EngineError

    devices = {network.engine.device for network in networks}
    if len(devices) > 1:
        listed = ", ".join(f"{network.name} on {network.engine.device}" for network in networks)
        raise EngineError(f"all networks of a run share one device, these do not: {listed}; use engine.backend: auto")
    device = devices.pop() if devices else "cpu"
    if device == "cpu":
        if stages:
            raise EngineError(
                f"stage {stages[0].name!r} runs on the GPU, and no engine does: use --engine tensorrt --device cuda"
            )
        return HostExecution(simulator, networks)
    from saccade.stream_execution import StreamExecution

    return StreamExecution(
        simulator, networks, device=device, capture=graph != "off", branched=graph == "auto", stages=stages
    )
