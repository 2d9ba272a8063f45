"""BridgeSession: the ROS 2 side of one run, opened, waited for, reported and closed in one place."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from saccade.bridge.base import Transport, TransportError
from saccade.bridge.bridge import Bridge, Recording
from saccade.bridge.commands import CommandReceiver, Ros2Controller, pause_while
from saccade.bridge.messages import new
from saccade.bridge.publishing import RunPublisher
from saccade.bridge.selection import open_transport
from saccade.config import RunConfig
from saccade.errors import EngineError
from saccade.frame import SimState

DISCOVERY_S = 1.0
"""How long the nodes that are there need to make themselves known [s]."""
ASKED_EVERY_S = 0.1
RESET_RESULT_TOPIC = "~/reset_result"
NO_RESET = "what is replayed, or this simulator, cannot start again in mid-run"


class BridgeSession:
    """What a run has of ROS 2: a publisher that observes its loop, commands, and a controller where one is wanted.

    Args:
        config: The run.
        intrinsics: Of each camera, by sensor, as the simulator reports them.
        joints: Names of the joints that may be commanded; ``None`` = not checked.
        resettable: Whether the simulator can start again in mid-run.
        transport: An opened node; ``None`` opens the configured one and waits :data:`DISCOVERY_S` for the others.
        recording: Takes every message that is sent.
        options: Further arguments of the publisher.

    Raises:
        DependencyError: What the transport needs is not there.
        ConfigurationError: A name or the domain is wrong.
        EngineError: The middleware could not start.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        intrinsics: Mapping[str, Mapping[str, Any]],
        joints: frozenset[str] | None = None,
        resettable: bool = False,
        transport: Transport | None = None,
        recording: Recording | None = None,
        **options: Any,
    ) -> None:
        self._config = config
        self._resettable = resettable
        self.resets = 0
        """Times that the simulation was put back to its start."""
        self.resets_refused = 0
        """Times that it was asked for and cannot be done."""
        self.reason = "given"
        """Which transport it is, and why not the other."""
        try:
            if transport is None:
                transport, choice = open_transport(config.ros2)
                self.reason = f"{choice.transport}: {choice.reason}"
                # What others publish already is left to them: they must be known before the first topic.
                time.sleep(DISCOVERY_S)
            self.bridge = Bridge(transport, config.ros2, recording=recording)
            self.publisher = RunPublisher(self.bridge, config, intrinsics=intrinsics, **options)
            self._reset_result = self.bridge.advertise(RESET_RESULT_TOPIC, "std_msgs/msg/String")
            self.receiver = CommandReceiver(
                self.bridge, config.simulator.humanoid, timeout=config.ros2.command_timeout, joints=joints
            )
        except TransportError as error:
            if transport is not None:
                transport.close()
            raise EngineError(f"ros2: {error}") from error
        self.controller = Ros2Controller(self.receiver) if config.controller.kind == "ros2" else None
        """Takes the reflex's place; ``None`` where the configuration wants the reflex."""

    def wait_for_controller(self, *, say: Callable[[str], None], stopped: Callable[[], bool] = lambda: False) -> None:
        """Waits until an external controller has sent its first command, where the configuration wants one.

        Args:
            say: Told what is waited for.
            stopped: Asked all the while; ends the waiting.

        Raises:
            EngineError: None came in time; the text says on which topics, in which domain, and what to look at.
        """
        if self.controller is None:
            return
        topics = " or ".join(self.bridge.resolve(name) for name in ("/cmd_vel", "/joint_command", "/trajectory"))
        limit = self._config.ros2.controller_wait
        say(f"waiting up to {limit:g} s for a controller on {topics}")
        deadline = time.monotonic() + limit
        while not self.receiver.wait(ASKED_EVERY_S):
            if stopped():
                return
            if time.monotonic() >= deadline:
                transport = self.bridge.transport
                facts = transport.facts() if transport is not None else {}
                problems = self.bridge.problems()
                raise EngineError(
                    f"ros2.controller_wait: no command came within {limit:g} s on {topics} "
                    f"(domain {facts.get('domain')}, network {facts.get('network')}). "
                    + (problems[0] if problems else "Is the controller running, in the same domain and network?")
                )

    def pause(self, stopped: Callable[[], bool]) -> None:
        """Waits while the run is paused over ROS 2 and no step is asked for, or until ``stopped`` says so."""
        pause_while(self.receiver, stopped)

    def reset(self, state: SimState) -> bool:
        """Returns whether the simulation is to go back to its start now, and answers who asked for it.

        The answer, JSON on :data:`RESET_RESULT_TOPIC`: ``done``, ``sim_time`` [s] and, where it cannot be done,
        ``reason``.

        Args:
            state: The current one.
        """
        if not self.receiver.take_reset():
            return False
        answer: dict[str, Any] = {"done": self._resettable, "sim_time": state.sim_time}
        if self._resettable:
            self.resets += 1
        else:
            self.resets_refused += 1
            answer["reason"] = NO_RESET
        text = json.dumps(answer)
        self._reset_result.publish(lambda: new("std_msgs/msg/String", data=text))
        return self._resettable

    def facts(self) -> dict[str, Any]:
        """Returns what the record should say: transport and why, counters, problems, commands and their latency."""
        latencies = sorted(self.controller.latencies_ms()) if self.controller is not None else []
        return {
            "chosen": self.reason,
            **self.publisher.facts(),
            "commands": self.receiver.facts(),
            "resets": {"done": self.resets, "refused": self.resets_refused},
            "command_latency_ms": {
                "n": len(latencies),
                "median": latencies[len(latencies) // 2] if latencies else None,
                "max": latencies[-1] if latencies else None,
            },
        }

    def verdict(self, summary: Mapping[str, Any]) -> None:
        """Publishes the verdict, latched; it can be heard until :meth:`close`."""
        self.publisher.verdict(summary)

    def close(self) -> None:
        """Sends what waits and leaves ROS 2; safe to call twice."""
        self.bridge.close()
