"""Group ``engines``: sensor buffer to host result, beside the bare engine and the ways that others go."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp

from saccade.benchmark.measure import InvalidMeasurement, Variant, check_agreement, median, ratio
from saccade.benchmark.round_trip import HostRoundTrip
from saccade.benchmark.session import INPUT, SIZE, Session, Subject, graph_of, subjects
from saccade.benchmark.source import HEIGHT, WIDTH, BufferSource, OutputTap, buffers_for, camera_configs
from saccade.engines.base import Engine
from saccade.engines.qualification import LIMITS
from saccade.execution import Execution, HostExecution
from saccade.kernels.preprocess import image_transform, record_images
from saccade.network import Network

ROUND_TRIP_LIMIT = 5e-2
"""Largest relative L2 distance of the host round trip, whose resized picture is rounded to whole counts."""

SLOW = {"repeats": 2, "settle": 1}
"""Turns of variants that take milliseconds."""

RATIOS = {
    "graph_over_floor": ("loop_graph", "bare_graph"),
    "graph_with_stamps_over_floor": ("loop_graph_stamps", "bare_graph"),
    "graph_with_stamps_line_over_floor": ("loop_graph_stamps_line", "bare_graph"),
    "eager_over_graph": ("loop_eager", "loop_graph"),
    "host_round_trip_over_graph": ("host_round_trip", "loop_graph"),
    "host_round_trip_pinned_over_graph": ("host_round_trip_pinned", "loop_graph"),
    "polygraphy_over_graph": ("polygraphy", "loop_graph"),
    "onnxruntime_cpu_over_graph": ("onnxruntime_cpu", "loop_graph"),
    "host_loop_over_onnxruntime_cpu": ("loop_cpu", "onnxruntime_cpu"),
}
"""Ratios by name, of which variant over which; those of variants that are not here are left out."""


@dataclass(slots=True)
class Lane:
    """One way from the sensor buffer to the result."""

    run: Callable[[], Any]
    result: Callable[[], np.ndarray]
    """Returns what the last run gave, of the output that is compared."""
    limit: float
    """Largest relative L2 distance from ONNX Runtime in FP32."""
    slow: bool = False
    loop: Execution | None = None
    graph: bool = False
    """Whether ``loop`` must have captured its frames."""


def measure_engines(session: Session) -> dict[str, Any]:
    """Returns ``ratios`` of ResNet-18 in FP16 (on the CPU FP32) and everything by network and precision.

    Raises:
        InvalidMeasurement: Variants gave different or non-finite results.
    """
    found: dict[str, Any] = {}
    for subject in subjects(session):
        with contextlib.ExitStack() as stack:
            found[subject.name] = _measured(session, subject, stack)
    judged = found["resnet18 fp16" if session.tensorrt else "resnet18 fp32"]["ratios"]
    return {"ratios": judged, "engines": found}


def _measured(session: Session, subject: Subject, stack: contextlib.ExitStack) -> dict[str, Any]:
    session.say(f"engines: {subject.name}: opening")
    lanes, reference = _lanes(session, subject, stack)
    limits = {name: lane.limit for name, lane in lanes.items()}
    distances = check_agreement(_results(lanes), reference, limits)
    for name, lane in lanes.items():
        _check_loop(subject, name, lane)
    variants = {name: Variant(lane.run, **(SLOW if lane.slow else {})) for name, lane in lanes.items()}
    times = session.measure(f"engines: {subject.name}", variants)
    check_agreement(_results(lanes), reference, limits)
    session.proofs += [lane.loop.facts()["residency"] for lane in lanes.values() if lane.loop and lane.graph]
    return {
        "median_ms": {name: median(values) for name, values in times.items()},
        "ratios": ratios_of(times),
        "relative_l2": distances,
    }


def ratios_of(times: Mapping[str, list[float]]) -> dict[str, Any]:
    """Returns those of :data:`RATIOS` whose variants were measured."""
    return {
        name: ratio(times[upper], times[lower])
        for name, (upper, lower) in RATIOS.items()
        if upper in times and lower in times
    }


def _results(lanes: Mapping[str, Lane]) -> dict[str, np.ndarray]:
    found = {}
    for name, lane in lanes.items():
        lane.run()
        found[name] = np.array(lane.result())
    return found


def _check_loop(subject: Subject, name: str, lane: Lane) -> None:
    """Refuses a loop that was to replay a graph and does not."""
    if lane.loop is not None and lane.graph:
        facts = lane.loop.facts()["execution"]
        if facts["mode"] != "graph" or not facts["replays"]:
            raise InvalidMeasurement(
                f"{subject.name}: {name} replays no graph: {facts['reason'] or 'nothing captured'}"
            )


def _lanes(session: Session, subject: Subject, stack: contextlib.ExitStack) -> tuple[dict[str, Lane], np.ndarray]:
    """Returns the ways by name, the ones that feed others first, and the reference's output."""
    sensors = camera_configs()
    buffers = buffers_for(list(sensors), device=session.engine_device)
    reference = _on_cpu(session, subject, stack, prepared_input(next(iter(buffers.values()))))
    lanes: dict[str, Lane] = {}
    if session.tensorrt:
        _add_loops(lanes, session, subject, stack, buffers)
        _add_round_trip(lanes, session, subject, stack, buffers)
        _add_polygraphy(lanes, session, subject, stack, prepared_input(next(iter(buffers.values()))))
    else:
        network = stack.enter_context(contextlib.closing(session.open(subject, sensors=sensors, decode=True)))
        execution = HostExecution(BufferSource(buffers), [network])
        lanes["loop_cpu"] = Lane(_frame(execution), _output(network, subject), 1e-3, slow=True, loop=execution)
    lanes["onnxruntime_cpu"] = reference
    reference.run()
    return lanes, np.array(reference.result())


def _add_loops(
    lanes: dict[str, Lane],
    session: Session,
    subject: Subject,
    stack: contextlib.ExitStack,
    buffers: Mapping[str, wp.array],
) -> None:
    """Adds the loop, eager and captured, without and with stamps and decoding, with and without branches, and the
    bare engine.
    """
    from saccade.stream_execution import StreamExecution

    limit = LIMITS[subject.precision]["relative_l2"]

    def loop(name: str, *, capture: bool = True, whole: bool = False, branched: bool = True) -> Network:
        network = stack.enter_context(contextlib.closing(session.open(subject, sensors=camera_configs(), decode=whole)))
        execution = StreamExecution(
            BufferSource(buffers),
            [network],
            device=session.device,
            capture=capture,
            stamps=whole,
            decode=whole,
            branched=branched,
            stages=[OutputTap(network)],
        )
        lanes[name] = Lane(_frame(execution), _output(network, subject), limit, loop=execution, graph=capture)
        return network

    network = loop("loop_graph")
    loop("loop_graph_stamps", whole=True)
    loop("loop_graph_stamps_line", whole=True, branched=False)
    loop("loop_eager", capture=False)
    # The engine of the first loop, on the arrays that this loop has filled: the loop less all that is around it.
    lanes["loop_graph"].run()
    stream, engine = session.stream, network.engine

    def eager() -> None:
        engine.enqueue(stream)
        wp.synchronize_stream(stream)

    replay = graph_of(stream, lambda: engine.enqueue(stream), network)
    lanes["bare_eager"] = Lane(eager, _output(network, subject), limit)
    lanes["bare_graph"] = Lane(replay, _output(network, subject), limit)


def _add_round_trip(
    lanes: dict[str, Lane],
    session: Session,
    subject: Subject,
    stack: contextlib.ExitStack,
    buffers: Mapping[str, wp.array],
) -> None:
    frame = next(iter(buffers.values()))
    for name, pinned in (("host_round_trip", False), ("host_round_trip_pinned", True)):
        # Opened like the loop's, so that it is the same plan; each its own, for each binds its own arrays.
        network = stack.enter_context(contextlib.closing(session.open(subject, sensors=camera_configs())))
        try:
            trip = HostRoundTrip(
                network.engine, frame, input_name=INPUT, output_name=subject.output, pinned_frame=pinned
            )
        except ImportError as error:
            session.missing["host_round_trip"] = f"{error}: pip install opencv-python-headless"
            return
        lanes[name] = _round_trip(trip)


def _round_trip(trip: HostRoundTrip) -> Lane:
    found: list[np.ndarray] = []

    def run() -> None:
        found[:] = [trip.run()]

    return Lane(run, lambda: found[0], ROUND_TRIP_LIMIT, slow=True)


def _add_polygraphy(
    lanes: dict[str, Lane], session: Session, subject: Subject, stack: contextlib.ExitStack, image: wp.array
) -> None:
    """Adds Polygraphy's runner with input and outputs on the host, as its users have them."""
    from saccade.engines.store import EngineStore

    network = session.open(subject, sensors=camera_configs())
    key = str(network.facts().get("key", ""))
    network.close()
    try:
        stored = EngineStore().get(key)
        if stored is None:
            raise RuntimeError(f"engine {key[:12]} is not in the store")
        # It calls the CUDA runtime, which may not be installed: better known before an engine is opened.
        importlib.import_module("polygraphy.cuda").wrapper()
        backend = importlib.import_module("polygraphy.backend.trt")
        trt = importlib.import_module("tensorrt")
        # Its own loader would also load all plugins, which this engine does not need.
        runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        runner = backend.TrtRunner(runtime.deserialize_cuda_engine(stored.data))
        runner.activate()
        stack.callback(_deactivated, runner, runtime)
        feed = {INPUT: image.numpy()}
        found = {"outputs": runner.infer(feed)}
    except Exception as error:  # whatever keeps a competitor from running here is said, and the others go on
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        session.missing["polygraphy"] = f"TrtRunner does not run here: {type(error).__name__}: {first}"
        return

    def run() -> None:
        found["outputs"] = runner.infer(feed)

    limit = LIMITS[subject.precision]["relative_l2"]
    lanes["polygraphy"] = Lane(run, lambda: np.asarray(found["outputs"][subject.output]), limit, slow=True)


def _deactivated(runner: Any, runtime: Any) -> None:
    """Ends Polygraphy's runner; the runtime must exist for as long as its engine."""
    with contextlib.suppress(Exception):  # what it could not do it need not undo
        runner.deactivate()


def _on_cpu(session: Session, subject: Subject, stack: contextlib.ExitStack, image: wp.array) -> Lane:
    """Returns ONNX Runtime on the CPU, on a prepared input: a column of its own and the reference of all others."""
    from saccade.engines.onnxruntime import OnnxRuntimeEngine

    engine: Engine = stack.enter_context(
        contextlib.closing(
            OnnxRuntimeEngine(subject.model, threads=session.loaded.config.engine.threads)  # type: ignore[type-var]
        )
    )
    arrays = {
        spec.name: wp.zeros(spec.shape, dtype=wp.dtype_from_numpy(np.dtype(spec.dtype)), device="cpu")
        for spec in (*engine.inputs, *engine.outputs)
    }
    arrays[INPUT].assign(image.numpy())
    for name, array in arrays.items():
        engine.bind(name, array)
    return Lane(lambda: engine.enqueue(None), arrays[subject.output].numpy, 1e-6, slow=True)


def prepared_input(image: wp.array) -> wp.array:
    """Returns a network's input from a frame, shape ``(1, 3, 224, 224)``, float32, on the frame's device."""
    transform = image_transform((WIDTH, HEIGHT), SIZE)
    prepared = wp.zeros((1, 3, SIZE[1], SIZE[0]), dtype=wp.float32, device=image.device)
    record_images([image], transform, prepared).launch()
    wp.synchronize_device(image.device)
    return prepared


def _frame(execution: Execution) -> Callable[[], None]:
    """Returns a function that takes one frame from the buffers to its result on the host."""

    def run() -> None:
        results = execution.infer(execution.sense())
        for found in results.values():
            for result in found:
                if not result.finite:
                    raise InvalidMeasurement(f"{result.network} gave values that are not finite: no time is reported")

    return run


def _output(network: Network, subject: Subject) -> Callable[[], np.ndarray]:
    return network.outputs[subject.output].numpy
