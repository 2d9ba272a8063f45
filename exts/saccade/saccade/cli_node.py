"""``saccade node``: networks on any ROS 2 camera or LiDAR, without a simulator."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from saccade.cli_options import DeviceOption, EngineOption, SetOption, interruptible
from saccade.errors import ConfigurationError

DIAGNOSTICS_PERIOD_S = 1.0
SILENT_AFTER_S = 5


class QueuePolicy(str, Enum):
    """What a full queue does with one more message."""

    drop_oldest = "drop_oldest"
    drop_newest = "drop_newest"
    block = "block"


@interruptible
def node(
    target: Annotated[
        str,
        typer.Argument(metavar="MODEL|CONFIG", help="ONNX file, or configuration whose networks and sensors to take."),
    ],
    topics: Annotated[
        list[str] | None,
        typer.Option(
            "--topic",
            metavar="[SENSOR=]TOPIC",
            help="Where a sensor's messages come from; without it `/camera/image_raw` and `/lidar/points`. Repeatable.",
        ),
    ] = None,
    queue: Annotated[int, typer.Option("--queue", min=1, metavar="N", help="Messages that may wait.")] = 2,
    policy: Annotated[QueuePolicy, typer.Option("--policy", help="What gives way then.")] = QueuePolicy.drop_oldest,
    depth_max: Annotated[
        float | None,
        typer.Option("--depth-max", min=0.01, metavar="M", help="Takes depth images; this depth is white [m]."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, metavar="N", help="Ends after so many messages were processed.")
    ] = None,
    bag: Annotated[
        Path | None,
        typer.Option("--bag", metavar="PATH", help="Takes the messages from a bag: .mcap, .db3 or a rosbag2 folder."),
    ] = None,
    bag_rate: Annotated[
        float | None,
        typer.Option("--bag-rate", min=0.0, metavar="F", help="Of recorded time; 1 as recorded, 0 as fast as it goes."),
    ] = None,
    engine: EngineOption = None,
    device: DeviceOption = None,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as one JSON object on stdout.")] = False,
) -> None:
    """Subscribes to a camera or LiDAR, runs the networks and publishes what they say.

    Publishes `/ai/inference_result`, `/ai/inference_latency`, labels, detections, clearance and `/diagnostics`. Needs
    no simulator. Ctrl-C ends it in order and shows where every message went. With `--bag` it ends with the bag: exit
    status 0 when every message that was not dropped gave a result, else 3.
    """
    from saccade.bridge.bag_reader import BagReader
    from saccade.bridge.node import PerceptionNode
    from saccade.bridge.node_bag import check_topics, feed
    from saccade.bridge.node_configuration import node_configuration, sensor_topics

    if bag_rate is not None and bag is None:
        raise ConfigurationError("--bag-rate: there is no bag to pace: give one with --bag PATH")
    say = _say
    loaded = node_configuration(
        target,
        overrides=overrides or (),
        engine=engine.value if engine else None,
        device=device.value if device else None,
    )
    wanted = sensor_topics(loaded.config, topics or ())
    ended = threading.Event()
    read: dict[str, Any] = {}
    with contextlib.ExitStack() as outer:
        reader = outer.enter_context(BagReader(bag)) if bag is not None else None
        if reader is not None:
            check_topics(reader, loaded.config, wanted)
        outer.enter_context(_signals(ended))
        finished = 0

        def count() -> None:
            nonlocal finished
            finished += 1
            if frames is not None and finished >= frames:
                ended.set()

        opened = PerceptionNode(
            loaded,
            topics=wanted,
            queue=queue,
            policy=policy.value,
            depth_max=depth_max,
            subscribed=bag is None,
            on_result=count,
            say=say,
        )
        with contextlib.ExitStack() as closing:
            closing.callback(lambda: _show({**opened.summary(), **({"bag": read} if read else {})}, as_json=as_json))
            closing.callback(opened.close)
            say(f"{opened.reason}")
            listed = ", ".join(f"{topic} ({sensor})" for sensor, topic in opened.topics.items())
            if reader is None:
                say(f"listening to {listed}; Ctrl-C ends")
                _attend(opened, ended, say)
                return
            say(f"reading {listed} from {reader.path}; Ctrl-C ends")
            rate = 1.0 if bag_rate is None else bag_rate
            feed(reader, opened, rate=rate, stopped=ended, attend=opened.diagnose, facts=read)
        if _incomplete(opened.summary(), read):
            raise typer.Exit(3)


def _incomplete(summary: Mapping[str, Any], read: Mapping[str, Any]) -> bool:
    """Whether a message of the bag that was not dropped gave no result, or none was processed at all."""
    unusable = summary["refused"] or summary["failure"] or read["unreadable"]
    return bool(unusable or not summary["pipeline"]["frames"]["consumed"])


def _attend(opened: Any, ended: threading.Event, say: Any) -> None:
    """Publishes diagnostics once a second and tells once of a source that is silent or cannot match."""
    told: set[str] = set()
    seconds = 0
    while not ended.wait(DIAGNOSTICS_PERIOD_S):
        seconds += 1
        opened.diagnose()
        news = list(opened.bridge.problems())
        if seconds == SILENT_AFTER_S:
            news += [
                f"nothing on {opened.topics[sensor]} yet: is it published, in the same domain and network? "
                f"(saccade doctor; docs/ros2.md)"
                for sensor, count in opened.received.items()
                if not count
            ]
        news += [text for text in (opened.refusal, opened.failure) if text]
        for text in news:
            if text not in told:
                told.add(text)
                say(text)


def _show(summary: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary, default=str))
        return
    if "bag" in summary:
        bag = summary["bag"]
        unreadable = f", {bag['unreadable']} of them unreadable" if bag["unreadable"] else ""
        cut = "" if bag["complete"] else "; stopped before its end"
        typer.echo(f"bag: {bag['messages']} messages of {bag['path']}{unreadable}{cut}")
        if bag["unreadable_reason"]:
            typer.echo(f"unreadable: the last because: {bag['unreadable_reason']}")
    pipeline = summary["pipeline"]
    frames = pipeline["frames"]
    dropped = sum(frames["dropped"].values())
    reasons = "".join(f", {reason} {count}" for reason, count in sorted(frames["dropped"].items()))
    typer.echo(
        f"messages: {frames['produced']} received = {frames['consumed']} processed + {dropped} dropped"
        f"{f' ({reasons[2:]})' if reasons else ''} + {frames['in_flight']} in flight"
    )
    if summary["refused"]:
        typer.echo(f"refused: {summary['refused']} of the processed; the last because: {summary['refusal']}")
    if summary["failure"]:
        typer.echo(f"failed: {summary['failure']}")
    latency = pipeline["latency_ms"]
    if latency["n"]:
        middle = latency["p50"]["value"]
        median = "" if middle is None else f"median {middle:.2f} ms, "
        typer.echo(f"receipt to result: {median}longest {latency['max']:.2f} ms, n = {latency['n']}")
    for name, counts in summary["ros2"]["topics"].items():
        if counts["direction"] == "out" and counts["produced"]:
            typer.echo(f"{name}: {counts['delivered']} sent, {counts['dropped']} dropped")


def _say(text: str) -> None:
    typer.echo(text, err=True)


@contextlib.contextmanager
def _signals(ended: threading.Event) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends in order, a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: Any) -> None:
        if ended.is_set():
            raise KeyboardInterrupt
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
