"""What the groups of the benchmark share: device, effort, time left, networks, and what is missing here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import warp as wp

from saccade import paths
from saccade.benchmark.measure import TimeLimit, Variant, interleaved
from saccade.config import CameraConfig, DecoderConfig, EngineConfig, ImageInput, NetworkConfig
from saccade.network import Network

if TYPE_CHECKING:
    from saccade.configuration import LoadedConfiguration

INPUT = "image"
"""Name of the input of both networks."""
SIZE = (224, 224)
"""Width and height of that input [px]."""
REHEARSALS = 3
"""Runs before a capture, as the loop makes them."""
OPENING_S = 3.0
"""Time in which a stored engine opens [s]; what one takes beyond that is its build, which is not measured."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A network in one precision."""

    network: str
    """``"resnet18"`` or ``"camera"``."""
    precision: str
    model: Path
    output: str
    """The output whose values are compared, and which the host round trip brings back."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    @property
    def name(self) -> str:
        """Name in the results."""
        return f"{self.network} {self.precision}"


@dataclass(slots=True)
class Session:
    """One run of the benchmark."""

    loaded: LoadedConfiguration
    device: str
    """``"cuda:N"`` where there is a GPU, else ``"cpu"``."""
    tensorrt: str | None
    """Version of TensorRT; ``None`` = networks run on the CPU."""
    rounds: int
    limit: TimeLimit
    say: Callable[[str], None]
    frames: int
    """Decisions of groups that run the whole loop."""
    first_frame: bool
    missing: dict[str, str] = field(default_factory=dict)
    """What could not be measured here, and why."""
    proofs: list[dict[str, Any]] = field(default_factory=list)
    """``residency`` of every graph of the loop."""

    @property
    def engine_device(self) -> str:
        """Device of the networks."""
        return self.device if self.tensorrt else "cpu"

    @property
    def stream(self) -> wp.Stream:
        """The GPU's stream, which the loop uses, too."""
        return wp.get_device(self.device).stream

    def engine(self, precision: str) -> EngineConfig:
        """Returns how a network is run here."""
        given = self.loaded.config.engine
        return EngineConfig(
            backend="tensorrt" if self.tensorrt else "onnxruntime",
            precision=precision,  # type: ignore[arg-type]
            threads=given.threads,
            workspace_mib=given.workspace_mib,
            calibration=given.calibration if precision == "int8" else None,
            build_limit_s=given.build_limit_s,
        )

    def open(
        self,
        subject: Subject,
        *,
        sensors: Mapping[str, CameraConfig],
        feeding: Sequence[str] | None = None,
        decode: bool = False,
        model: Path | None = None,
    ) -> Network:
        """Opens a network that reads cameras as one batch.

        Args:
            subject: Which, in which precision.
            sensors: Configuration of all sensors.
            feeding: The cameras; ``None`` = all sensors.
            decode: Whether its outputs are decoded; whether they are finite is always checked.
            model: Another file than the subject's, such as a plan.
        """
        source = ImageInput(
            kind="image",
            sensor=list(feeding or sensors),
            size=SIZE,
            # Scaled to 0..1 and no more, as the lesson that it is compared with does it.
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        )
        config = NetworkConfig(
            model=str(model or subject.model),
            inputs={INPUT: source},
            decoder=subject.decoder if decode else DecoderConfig(),
        )
        with self.limit.paused(beyond=OPENING_S):
            return Network(
                subject.name,
                config,
                model or subject.model,
                sensors=sensors,
                engine=self.engine(subject.precision),
                device=self.engine_device,
                say=self.say,
            )

    def measure(self, title: str, variants: Mapping[str, Variant]) -> dict[str, list[float]]:
        """Times variants in turns [ms]; see :func:`saccade.benchmark.measure.interleaved`."""
        return interleaved(
            variants, rounds=self.rounds, limit=self.limit, say=lambda text: self.say(f"{title}: {text}")
        )


def subjects(session: Session) -> list[Subject]:
    """Returns the networks to measure, ResNet-18 in FP16 first, which the goals are about."""
    precisions = ["fp16", "fp32"] if session.tensorrt else ["fp32"]
    found = [resnet18(session, precision) for precision in precisions]
    found += [camera_network(precision) for precision in precisions]
    if session.tensorrt and session.loaded.config.engine.calibration is not None:
        found.append(camera_network("int8"))
    elif session.tensorrt:
        session.missing["int8"] = "no calibration samples: --set engine.calibration=FILE.npz gives the camera network's"
    return found


def resnet18(session: Session, precision: str, *, batch: int | None = 1) -> Subject:
    """Returns ResNet-18, written where it does not exist yet."""
    from saccade.kernels.setup import cache_folder
    from saccade.models import resnet

    path = cache_folder("benchmark") / f"resnet18-{'dynamic' if batch is None else batch}.onnx"
    if not path.is_file():
        session.say(f"writing {path.name}")
        resnet.resnet18_file(path, batch=batch)
    return Subject("resnet18", precision, path, resnet.OUTPUT)


def camera_network(precision: str) -> Subject:
    """Returns the shipped camera network."""
    decoder = DecoderConfig(labels="labels", hazard="hazard")
    return Subject("camera", precision, paths.MODELS / "camera.onnx", "labels", decoder)


def graph_of(stream: wp.Stream, launch: Callable[[], None], *keeps: Any) -> Callable[[], None]:
    """Captures what ``launch`` launches as a CUDA graph; returns a function that replays it and waits.

    Args:
        stream: The device's stream.
        launch: Launches the work; run a few times before the capture.
        keeps: What the graph uses and must outlive it, such as arrays.
    """
    for _ in range(REHEARSALS):
        launch()
    wp.synchronize_stream(stream)
    with wp.ScopedCapture(stream=stream) as capture:
        launch()
    graph = capture.graph
    alive = (launch, keeps)

    def replay() -> None:
        wp.capture_launch(graph, stream=stream)
        wp.synchronize_stream(stream)

    replay.keeps = alive  # type: ignore[attr-defined]
    return replay
