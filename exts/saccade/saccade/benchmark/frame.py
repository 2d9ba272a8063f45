"""Group ``frame``: sensing, preprocessing, inference and the result's way to the host in one CUDA graph."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import warp as wp

from saccade import paths
from saccade.benchmark.measure import InvalidMeasurement, Variant, check_agreement, median, ratio
from saccade.benchmark.session import Session, graph_of, resnet18
from saccade.benchmark.source import HEIGHT, WIDTH, OutputTap
from saccade.config import RunConfig
from saccade.frame import Frame

if TYPE_CHECKING:
    from saccade.network import Network
    from saccade.simulators.newton import NewtonSimulator
    from saccade.stream_execution import StreamExecution

CAMERA, LIDAR = "camera", "lidar"

MOVED = 0.3
"""How far the robot is moved to see whether the graph senses the state of the moment [m]."""

CARRIER = """#usda 1.0
(
    defaultPrim = "World"
    metersPerUnit = 1
    upAxis = "Z"
    subLayers = [@{scene}@]
)

over "World"
{{
    def Xform "carrier" (
        prepend apiSchemas = ["PhysicsArticulationRootAPI"]
    )
    {{
        def Xform "post" (
            prepend apiSchemas = ["PhysicsRigidBodyAPI", "PhysicsMassAPI"]
        )
        {{
            float physics:mass = 1
            float3 physics:diagonalInertia = (1, 1, 1)
            double3 xformOp:translate = (0.6, 0, 0.5)
            uniform token[] xformOpOrder = ["xformOp:translate"]

            def Capsule "shape" (
                prepend apiSchemas = ["PhysicsCollisionAPI"]
            )
            {{
                uniform token axis = "Z"
                double height = 0.8
                double radius = 0.05
                float3[] extent = [(-0.05, -0.05, -0.45), (0.05, 0.05, 0.45)]
            }}
        }}
    }}
}}
"""
"""The bench's 24 shapes and the post that stands for the robot, without which the simulator opens no scene: 25."""

CAPTURED = ("frame", "frame_stamps", "frame_line")
"""Ways that replay a graph with the sensors in it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where the frame is measured."""

    file: Path
    camera: str
    """Prim of the camera."""
    ratio: str
    """Name of its ratio in the results."""


def measure_frame(session: Session) -> dict[str, Any]:
    """Returns ``frame_over_floor`` of the bench scene and ``frame_over_floor_warehouse`` beside it, with the medians.

    Raises:
        InvalidMeasurement: The frame was not captured whole, or its graph senses something else than an eager frame.
    """
    found: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="saccade-bench-") as folder:
        scenes = {
            "bench": Scene(bench_with_carrier(Path(folder)), "camera", "frame_over_floor"),
            "warehouse": Scene(paths.resolve("warehouse.usda", "scene"), "head_camera", "frame_over_floor_warehouse"),
        }
        for name, scene in scenes.items():
            with contextlib.ExitStack() as stack:
                times, facts = _measured(session, name, scene, stack)
            ratios[scene.ratio] = ratio(times["frame"], times["bare_graph"])
            ratios[f"{scene.ratio}_with_stamps"] = ratio(times["frame_stamps"], times["bare_graph"])
            ratios[f"{scene.ratio}_line"] = ratio(times["frame_line"], times["bare_graph"])
            found[name] = {"median_ms": {key: median(values) for key, values in times.items()}, **facts}
    return {"ratios": ratios, "frame": found}


def bench_with_carrier(folder: Path) -> Path:
    """Writes a scene with all of ``scenes/bench.usda`` and a post for a robot; returns its path."""
    path = folder / "bench_with_carrier.usda"
    path.write_text(CARRIER.format(scene=paths.resolve("bench.usda", "scene")), encoding="utf-8")
    return path


def frame_config(scene: Scene) -> RunConfig:
    """Returns a run with a 640x480 camera (colour and depth) and a LiDAR of 32x1024, both without noise."""
    camera = {
        "kind": "camera",
        "prim": scene.camera,
        "width": WIDTH,
        "height": HEIGHT,
        "outputs": ["color", "depth"],
    }
    lidar = {
        "kind": "lidar",
        "prim": "lidar_mount",
        "channels": 32,
        "columns": 1024,
        "outputs": ["ranges", "intensity"],
    }
    return RunConfig.model_validate({"scene": str(scene.file), "sensors": {CAMERA: camera, LIDAR: lidar}})


def _measured(
    session: Session, name: str, scene: Scene, stack: contextlib.ExitStack
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    from saccade.simulators.newton import NewtonSimulator
    from saccade.stream_execution import StreamExecution

    config = frame_config(scene)
    session.say(f"frame: {name}: opening the scene")
    simulator = NewtonSimulator(
        config, device=session.device, progress=lambda text: session.say(f"frame: {name}: {text}")
    )
    stack.callback(simulator.close)
    simulator.open(scene.file)
    # One list: the simulator fills its own anew each time that it is asked what is due.
    frames = list(simulator.due())
    if {frame.sensor for frame in frames} != {CAMERA, LIDAR}:
        raise InvalidMeasurement(f"{name}: due at the start are {[frame.sensor for frame in frames]}, not both sensors")

    executions: dict[str, StreamExecution] = {}
    networks: dict[str, Network] = {}
    ways: dict[str, dict[str, Any]] = {
        "frame": {"stamps": False, "decode": False, "branched": True},
        "frame_stamps": {"branched": True},
        "frame_line": {"stamps": False, "decode": False},
        "frame_eager": {"stamps": False, "decode": False, "capture": False},
    }
    for key, options in ways.items():
        network = session.open(resnet18(session, "fp16"), sensors=config.sensors, feeding=[CAMERA])  # type: ignore[arg-type]
        stack.callback(network.close)
        networks[key] = network
        executions[key] = StreamExecution(
            simulator,
            [network],
            device=session.device,
            stages=[OutputTap(network)],
            **options,
        )
        executions[key].infer(frames)
    for key in CAPTURED:
        check_whole(name, executions[key].facts()["execution"])
        check_senses(name, simulator, executions[key], executions["frame_eager"], frames)
    _check_results(executions, networks, frames)

    engine, stream = networks["frame"].engine, session.stream
    variants = {"bare_graph": Variant(graph_of(stream, lambda: engine.enqueue(stream), engine))}
    for key, execution in executions.items():
        variants[key] = Variant(lambda execution=execution: execution.infer(frames))  # type: ignore[misc]
    times = session.measure(f"frame: {name}", variants)
    distances = _check_results(executions, networks, frames)
    session.proofs += [executions[key].facts()["residency"] for key in CAPTURED]
    proofs = executions["frame"].facts()["residency"]["graphs"]
    return times, {"relative_l2": distances, "graph": proofs[0] if proofs else None}


def check_whole(name: str, facts: dict[str, Any]) -> None:
    """Refuses a frame that is not one graph with the sensors in it."""
    if facts["mode"] != "graph" or facts["scope"] != "frame":
        raise InvalidMeasurement(
            f"{name}: the frame is not one graph from the sensors on (mode {facts['mode']}, scope {facts['scope']}): "
            f"{facts['reason'] or 'this simulator does not let its sensors be captured'}"
        )


def check_senses(
    name: str,
    simulator: NewtonSimulator,
    graph: StreamExecution,
    eager: StreamExecution,
    frames: Sequence[Frame],
) -> None:
    """Refuses a graph that does not fill the sensors' buffers, or not with the state of the moment.

    The robot is moved a little and back; graph and eager launches must see the same each time, and not the same
    before and after.
    """
    x, y, _ = simulator.state.position
    yaw = simulator.state.yaw
    seen = []
    for offset in (0.0, MOVED, 0.0):
        simulator.place(x + offset, y, yaw)
        pictures = {}
        for way, execution in (("graph", graph), ("eager", eager)):
            for frame in frames:
                for array in frame.buffers.values():
                    array.zero_()
            execution.infer(frames)
            pictures[way] = {
                f"{frame.sensor}.{key}": array.numpy().copy()
                for frame in frames
                for key, array in frame.buffers.items()
            }
        for key, wanted in pictures["eager"].items():
            if not wanted.any():
                raise InvalidMeasurement(f"{name}: {key} is all zeros: nothing was sensed")
            equal = float((pictures["graph"][key] == wanted).mean())
            if equal < 0.999:
                raise InvalidMeasurement(
                    f"{name}: {key} of the replayed graph equals that of the same frame launched eagerly in only "
                    f"{100 * equal:.1f} % of its values, the robot {offset:g} m from its start: the graph does not "
                    f"sense the state of the moment"
                )
        seen.append(pictures["eager"][f"{CAMERA}.depth"])
    if np.array_equal(seen[0], seen[1]):
        raise InvalidMeasurement(f"{name}: the camera sees the same after the robot was moved by {MOVED} m")


def _check_results(
    executions: dict[str, StreamExecution], networks: dict[str, Network], frames: Sequence[Frame]
) -> dict[str, float]:
    results = {}
    for key, execution in executions.items():
        execution.infer(frames)
        results[key] = logits(networks[key])
    # One plan on one picture.
    return check_agreement(results, results["frame_eager"], dict.fromkeys(results, 1e-3))


def logits(network: Network) -> np.ndarray:
    """Returns a copy of the network's first output."""
    array: wp.array = next(iter(network.outputs.values()))
    return array.numpy().copy()
