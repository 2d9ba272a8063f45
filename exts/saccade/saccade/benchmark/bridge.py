"""Group ``bridge``: what publishing costs the loop while another process listens to every topic."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import IO, Any

import warp as wp

from saccade.benchmark.loop import networks_for
from saccade.benchmark.measure import InvalidMeasurement, median, ratio
from saccade.benchmark.session import Session
from saccade.benchmark.source import HEIGHT, WIDTH, picture
from saccade.bridge import contents
from saccade.bridge.bridge import Bridge, Topic
from saccade.bridge.copies import CopySender
from saccade.bridge.qos import PRESETS
from saccade.bridge.selection import open_transport
from saccade.bridge.session import BridgeSession
from saccade.config import Ros2Config, RunConfig
from saccade.controller import ReflexController
from saccade.frame import now_ns
from saccade.loop import WARMUP, Observer, PerceptionLoop, Tick
from saccade.network import Network
from saccade.simulators.base import Simulator
from saccade.validation.run import simulator_for
from saccade.validation.scorer import LabelScorer

BLOCK = 6
"""Decisions in a row that are published, or are not."""
SETTLE = 1
"""Of those, the first ones that are not counted: what ran before still has its effect."""
WARMUP_DECISIONS = 12
LEAST_DECISIONS = 6
IMAGE_TOPIC = "/bench/image"
IMAGE_TYPE = "sensor_msgs/msg/Image"
FIRST_HAND_OVERS = 10
"""Not counted: each slot is touched for the first time [messages]."""
FLUSH_S = 10.0
MATCH_S = 30.0
"""How long the listener may take to be found [s]."""


class AlternatingPublisher:
    """Publishes decisions block by block, and times the loop with and without.

    Nothing is in flight when a block begins, so that what one block left to send costs the next one nothing.

    Args:
        publisher: What publishes one decision.
        bridge: Where its messages wait.
    """

    def __init__(self, publisher: Observer, bridge: Bridge) -> None:
        self._publisher = publisher
        self._bridge = bridge
        self._left = 0
        self.finite = True
        self.frames_ms: dict[bool, list[float]] = {True: [], False: []}
        """From state to decision [ms], by whether decisions were published."""
        self.turns_ms: dict[bool, list[float]] = {True: [], False: []}
        """From one decision's end to the next one's, handing over included [ms]."""
        self.hand_over_ms: list[float] = []
        """Of all topics of one decision [ms]."""

    def __call__(self, tick: Tick) -> None:
        """Takes one decision; see :data:`saccade.loop.Observer`."""
        self.finite = self.finite and all(result.finite for results in tick.results.values() for result in results)
        block, number = divmod(tick.index, BLOCK)
        on = block % 2 == 0
        started = now_ns()
        if on:
            self._publisher(tick)
        ended = now_ns()
        if tick.phase != WARMUP and number >= SETTLE:
            stamps = tick.frames[0].stamps
            self.frames_ms[on].append((stamps.decided - stamps.sim_state) * 1e-6)
            self.turns_ms[on].append((ended - self._left) * 1e-6)
            if on:
                self.hand_over_ms.append((ended - started) * 1e-6)
        if number == BLOCK - 1:
            self._bridge.flush(FLUSH_S)
        self._left = now_ns()


def measure_bridge(session: Session) -> dict[str, Any]:
    """Returns ``bridge_on_over_off``, ``bridge_turn_on_over_off`` and the medians behind them.

    The configuration's own loop runs with all its topics listened to by another process, so that every message is
    serialised and sent. The frame is the time from state to decision, the turn that from one decision to the next.

    Raises:
        InvalidMeasurement: Nobody listened, a message failed or is not accounted for, an output was not finite, or
            there was too little time.
    """
    config = session.loaded.config.model_copy(deep=True)
    config.run.frames, config.run.warmup = 2 * session.frames * BLOCK // (BLOCK - SETTLE), WARMUP_DECISIONS
    config.simulator.pace, config.simulator.act_delay = "lockstep", "none"
    config.controller.kind = "reflex"
    config.ros2 = _settings(config.ros2)
    session.say("bridge: loading")
    with contextlib.ExitStack() as stack:
        simulator = simulator_for(session.loaded, session.say)
        stack.callback(simulator.close)
        networks = networks_for(session, config, simulator.device, stack)
        state = simulator.open(config.scene if simulator.name == "replay" else session.loaded.scene_path())
        sensors = simulator.facts().get("sensors", {})
        intrinsics = {name: facts["intrinsics"] for name, facts in sensors.items() if facts["kind"] == "camera"}
        ros2 = BridgeSession(config, intrinsics=intrinsics, report_robot=getattr(simulator, "report_robot", None))
        stack.callback(ros2.close)
        image = ros2.bridge.advertise(IMAGE_TOPIC, IMAGE_TYPE, preset="reliable_sensor")
        with listening(ros2.bridge, config.ros2) as heard:
            alternating = AlternatingPublisher(ros2.publisher, ros2.bridge)
            _run(session, config, simulator, networks, state, alternating)
            session.say("bridge: handing images over")
            hand_over_ms = hand_overs(ros2.bridge, image, device=simulator.device, count=session.frames)
            counters = _accounted(ros2.bridge)
        return _result(alternating, hand_over_ms, counters, heard, ros2, simulator)


def hand_overs(bridge: Bridge, topic: Topic, *, device: str, count: int) -> list[float]:
    """Returns how long the loop is held by each of ``count`` images of 640x480 [ms]: its copy and its hand-over."""
    arrays = {"color": wp.array(picture(), dtype=wp.uint32, device=device)}
    copies = CopySender()
    make = partial(contents.color_image, 0.0, "bench")
    times = []
    for _ in range(FIRST_HAND_OVERS + count):
        started = now_ns()
        copies.send(topic, arrays, make)
        times.append((now_ns() - started) * 1e-6)
        bridge.flush(FLUSH_S)
    return times[FIRST_HAND_OVERS:]


@contextlib.contextmanager
def listening(bridge: Bridge, config: Ros2Config) -> Iterator[dict[str, int]]:
    """Has another process listen to everything that a node publishes; afterwards has how many messages of each it got.

    Raises:
        InvalidMeasurement: It did not come to listen.
    """
    assert bridge.transport is not None
    topics = [end for end in bridge.transport.own_endpoints() if end.publishes]
    request = {
        "ros2": config.model_copy(update={"node": "saccade_listener"}).model_dump(mode="json"),
        "topics": [[end.topic, end.type_name, end.qos.reliable] for end in topics],
    }
    program = "import sys; from saccade.benchmark.bridge import listen; listen(sys.stdin, sys.stdout)"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    heard: dict[str, int] = {}
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        deadline = time.monotonic() + MATCH_S
        while not all(bridge.advertise(end.topic, end.type_name).wanted for end in topics):
            if process.poll() is not None or time.monotonic() > deadline:
                raise InvalidMeasurement("the process that was to listen did not: nothing would be serialised")
            time.sleep(0.05)
        yield heard
        bridge.flush(FLUSH_S)
        process.stdin.close()  # ends it, and it says what it has heard
        heard.update(json.loads(process.stdout.readline() or "{}"))
        process.wait(FLUSH_S)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def listen(requests: IO[str], answers: IO[str]) -> None:
    """Listens to topics until ``requests`` ends, then writes how many messages of each have come; the other process.

    Args:
        requests: One line of JSON: ``ros2`` settings and ``topics`` with type and whether they are reliable.
        answers: Gets one line of JSON.
    """
    request = json.loads(requests.readline())
    heard = {topic: 0 for topic, _, _ in request["topics"]}

    def count(topic: str, data: bytes) -> None:
        heard[topic] += 1

    transport, _ = open_transport(Ros2Config(**request["ros2"]))
    try:
        for topic, type_name, reliable in request["topics"]:
            qos = PRESETS["default" if reliable else "sensor"]
            transport.subscribe(topic, type_name, qos, partial(count, topic))
        requests.read()
    finally:
        transport.close()
    answers.write(json.dumps(heard) + "\n")
    answers.flush()


def _settings(given: Ros2Config) -> Ros2Config:
    """The node's settings, in a domain where nobody else is unless one is configured."""
    domain = given.domain if given.domain is not None else 100 + os.getpid() % 100
    changed = {"domain": domain, "node": "saccade_bench", "namespace": "/", "remap": {}, "policy": "drop_oldest"}
    return given.model_copy(update=changed)


def _run(
    session: Session,
    config: RunConfig,
    simulator: Simulator,
    networks: Mapping[str, Network],
    state: Any,
    observer: AlternatingPublisher,
) -> None:
    def stop() -> tuple[str, str] | None:
        return ("timeout", "the benchmark's time limit is over") if session.limit.left < 0 else None

    loop = PerceptionLoop(
        config,
        simulator=simulator,
        networks=networks,
        controller=ReflexController(config.controller, route=getattr(simulator, "route", ())),
        sink=_Nowhere(),
        scorer=LabelScorer(),
        observers=[observer],
        stop=stop,
    )
    session.say(f"bridge: {config.run.frames} decisions")
    loop.run(state)


class _Nowhere:
    """Drops records: what recording costs is the group ``recorder``'s."""

    def put(self, record: dict[str, Any]) -> None:
        """See :class:`saccade.loop.RecordSink`."""


def _accounted(bridge: Bridge) -> dict[str, dict[str, Any]]:
    """The counters of what is published, once nothing is in flight; refuses what does not add up."""
    bridge.flush(FLUSH_S)
    counters = {name: counts for name, counts in bridge.counters().items() if counts["direction"] == "out"}
    for name, counts in counters.items():
        if counts["produced"] != counts["delivered"] + counts["dropped"] + counts["in_flight"] or counts["failures"]:
            raise InvalidMeasurement(f"{name}: messages failed or are not accounted for: {counts}")
    if not counters[IMAGE_TOPIC]["delivered"]:
        raise InvalidMeasurement("no image was serialised")
    return counters


def _result(
    measured: AlternatingPublisher,
    hand_over_ms: Sequence[float],
    counters: Mapping[str, Mapping[str, Any]],
    heard: Mapping[str, int],
    ros2: BridgeSession,
    simulator: Simulator,
) -> dict[str, Any]:
    """Returns the group's results.

    Args:
        measured: The loop's times.
        hand_over_ms: Of each image [ms].
        counters: Of every topic.
        heard: Messages by topic that the other process got.
        ros2: The node.
        simulator: Where the sensors are.
    """
    if not measured.finite:
        raise InvalidMeasurement("non-finite outputs: the bridge's cost is not reported")
    counts = [*map(len, measured.frames_ms.values()), *map(len, measured.turns_ms.values()), len(hand_over_ms)]
    if min(counts) < LEAST_DECISIONS:
        raise InvalidMeasurement("fewer than six decisions were measured: allow more with --time-limit")
    if not heard.get(IMAGE_TOPIC):
        raise InvalidMeasurement("the other process got no image: the topics were not listened to")
    frames, turns = measured.frames_ms, measured.turns_ms
    return {
        "ratios": {
            "bridge_on_over_off": ratio(frames[True], frames[False]),
            "bridge_turn_on_over_off": ratio(turns[True], turns[False]),
        },
        "bridge": {
            "device": simulator.device,
            "transport": ros2.reason,
            "image": [WIDTH, HEIGHT, 3],
            "hand_over_ms": median(hand_over_ms),
            "median_ms": {
                "hand_over_all_topics": median(measured.hand_over_ms),
                "frame_on": median(frames[True]),
                "frame_off": median(frames[False]),
                "turn_on": median(turns[True]),
                "turn_off": median(turns[False]),
            },
            "topics": {
                name: {
                    **{key: counts[key] for key in ("produced", "delivered", "dropped")},
                    "received": heard.get(name, 0),
                }
                for name, counts in counters.items()
            },
        },
    }
