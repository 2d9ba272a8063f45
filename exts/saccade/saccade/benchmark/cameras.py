"""Group ``cameras``: one to sixteen cameras as one batch through one engine."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.benchmark.frame import logits
from saccade.benchmark.measure import InvalidMeasurement, Variant, check_agreement, median, ratio
from saccade.benchmark.session import INPUT, OPENING_S, SIZE, Session, resnet18
from saccade.benchmark.source import BufferSource, OutputTap, buffers_for, camera_configs
from saccade.engines.options import ShapeRange
from saccade.engines.qualification import LIMITS

if TYPE_CHECKING:
    from saccade.network import Network
    from saccade.stream_execution import StreamExecution

COUNTS = (1, 2, 4, 8, 16)
TUNED_FOR = 8
"""Batch that the engine is tuned for."""
STATIC = "1 own engine"
"""One camera through an engine that was built for one."""


def measure_cameras(session: Session) -> dict[str, Any]:
    """Returns ``cameras_16_over_16x1`` and the medians by number of cameras.

    All numbers of cameras go through one engine with an open batch. What sixteen are compared with is the faster of
    one camera through that engine and one through an engine built for one.

    Raises:
        InvalidMeasurement: A frame was not captured, or a camera's result depends on how many there are.
    """
    session.say("cameras: opening")
    sensors = camera_configs(max(COUNTS))
    buffers = buffers_for(list(sensors), device=session.device)
    plan = _plan(session)
    with contextlib.ExitStack() as stack:
        networks: dict[str, Network] = {}
        executions: dict[str, StreamExecution] = {}
        for name, count, model in (*((str(count), count, plan) for count in COUNTS), (STATIC, 1, None)):
            feeding = list(sensors)[:count]
            source = BufferSource({camera: buffers[camera] for camera in feeding})
            networks[name], executions[name] = _opened(session, source, count, model, stack)
        distances = _check(executions, networks)
        times = session.measure(
            "cameras",
            {
                name: Variant(lambda execution=execution: execution.infer(execution.sense()))  # type: ignore[misc]
                for name, execution in executions.items()
            },
        )
        _check(executions, networks)
        session.proofs += [execution.facts()["residency"] for execution in executions.values()]
    medians = {name: median(values) for name, values in times.items()}
    one = min(("1", STATIC), key=lambda name: medians[name]["value"])
    judged = ratio(times[str(max(COUNTS))], times[one], scale=1 / max(COUNTS))
    return {
        "ratios": {"cameras_16_over_16x1": judged},
        "cameras": {"median_ms": medians, "one": one, "relative_l2": distances},
    }


def _opened(
    session: Session, source: BufferSource, count: int, model: Path | None, stack: contextlib.ExitStack
) -> tuple[Network, StreamExecution]:
    from saccade.stream_execution import StreamExecution

    network = session.open(resnet18(session, "fp16"), sensors=camera_configs(count), model=model)
    stack.callback(network.close)
    execution = StreamExecution(source, [network], device=session.device, stamps=False, stages=[OutputTap(network)])
    execution.infer(execution.sense())
    facts = execution.facts()["execution"]
    if facts["mode"] != "graph":
        raise InvalidMeasurement(f"{count} cameras: no graph is replayed: {facts['reason']}")
    return network, execution


def _check(executions: dict[str, StreamExecution], networks: dict[str, Network]) -> dict[str, float]:
    """Refuses batches whose first camera gets another result than it does alone."""
    results = {}
    for name, execution in executions.items():
        execution.infer(execution.sense())
        results[name] = logits(networks[name])[0]
    # Other tactics for another batch round differently.
    limit = 2 * LIMITS["fp16"]["relative_l2"]
    return check_agreement(results, results[STATIC], dict.fromkeys(results, limit))


def _plan(session: Session) -> Path:
    """Returns the file of the engine with an open batch, built where it is not in the store."""
    from saccade.engines.selection import options_from_config, qualified_plan
    from saccade.engines.store import EngineStore

    subject = resnet18(session, "fp16", batch=None)
    low, best, high = ((count, 3, SIZE[1], SIZE[0]) for count in (1, TUNED_FOR, max(COUNTS)))
    options = options_from_config(session.engine("fp16"), ranges={INPUT: ShapeRange(low, best, high)})
    with session.limit.paused(beyond=OPENING_S):
        stored = qualified_plan(subject.model, options, device=session.device, say=session.say)
    return EngineStore().plan_file(stored.key)
