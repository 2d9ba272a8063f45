"""What is known of a run while it goes on: figures so far, from the run's own records and by the report's own rules."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from saccade.config import Budgets, RunConfig
from saccade.loop import JUDGED, Tick
from saccade.panel.preview import Previews
from saccade.panel.topics import TopicWatch
from saccade.panel.view import BudgetRow, EngineRow, GpuRow, Percentile, SensorRow, TopicRow, View
from saccade.telemetry.record import Record
from saccade.validation.documents import header_of
from saccade.validation.summary import STAGE_NAMES, decision_latency, summarise
from saccade.validation.verdict import judge, record_problems

if TYPE_CHECKING:
    from saccade.validation.run import RunSession

SHOWN = 240
"""Decisions that the latency plot and the stages' means are of."""
JUDGE_PERIOD_S = 1.0
JUDGE_SHARE = 0.02
"""Largest share of the time that judging what there is so far may take."""
JUDGE_LIMIT_S = 0.05
JUDGE_PATIENCE = 3
"""Once judging has taken longer than the limit that many times in a row, the verdict so far stands still; the final one
is of all frames."""


_STATES: dict[bool | None, Literal["met", "missed", "open"]] = {True: "met", False: "missed", None: "open"}


class LiveRun:
    """Looks on while a run goes on.

    All of it happens on the run's thread where nothing is under way, so that no latency that is measured holds any of
    it; :meth:`lock` guards what other threads read.

    Args:
        config: The run.
        budgets: What it is judged by; ``None`` = the configuration's.
        previews: Pictures of the sensors; ``None`` = none are made.
    """

    def __init__(self, config: RunConfig, budgets: Budgets | None = None, previews: Previews | None = None) -> None:
        self._config = config
        self._budgets = budgets or config.budgets
        self._previews = previews
        self.lock = threading.Lock()
        self.doing = "starting"
        self.news = 0
        """Grows with everything that changes."""
        self.session: RunSession | None = None
        self.decisions = 0
        self.latency_ms: deque[float] = deque(maxlen=SHOWN)
        self._stages: deque[dict[str, float]] = deque(maxlen=SHOWN)
        self._sensors: dict[str, dict[str, Any]] = {
            name: {"frames": 0, "dropped": 0, "age_ms": None, "device": ""} for name in config.sensors
        }
        self._building: str | None = None
        self._details: dict[str, str] = {}
        self._ready: dict[str, EngineRow] = {}
        self._records: list[Mapping[str, Any]] = []
        self.figures: Mapping[str, Any] = {}
        """The summary fields of docs/record.md so far; empty before the first judged decision."""
        self._topics = TopicWatch()
        self._judge_next = 0.0
        self._judge_slow = 0

    # -- what the run tells (saccade.validation.watch.Watch)

    def say(self, text: str) -> None:
        """Takes what is being done."""
        with self.lock:
            self.doing = text
            loading = text.removeprefix("loading network ")
            if loading != text:
                self._building = loading
            elif self._building is not None:
                self._details[self._building] = text
            self.news += 1

    def opened(self, session: RunSession) -> None:
        """Takes note of what is open."""
        with self.lock:
            self.session = session
            for name, network in session.networks.items():
                if name not in self._ready:
                    self._ready[name] = _engine_row(name, network.facts(), str(network.engine.device))
            if session.simulator is not None:
                self._building = None
            self.news += 1

    def tick(self, tick: Tick) -> None:
        """Takes one decision."""
        stamped: list[Mapping[str, Any]] = [
            {"stamps": frame.stamps.as_dict(), "sensor": frame.sensor} for frame in tick.frames
        ]
        latency = decision_latency(stamped)
        with self.lock:
            self.decisions = tick.index + 1
            self.doing = "judging" if tick.phase == JUDGED else "warm-up"
            if latency is not None:
                self.latency_ms.append(latency)
                self._stages.append(_of_decision(stamped))
            for frame in tick.frames:
                row = self._sensors[frame.sensor]
                row["frames"] += 1
                row["dropped"] += frame.dropped
                row["age_ms"] = (frame.stamps.decided - frame.stamps.sim_state) * 1e-6
                row["device"] = str(next(iter(frame.buffers.values())).device)
            self.news += 1
        if self._previews is not None:
            self._previews.take(tick.frames)

    def record(self, record: Mapping[str, Any]) -> None:
        """Takes one finished record."""
        if self._judge_slow < JUDGE_PATIENCE:
            self._records.append(record)

    def at_stand(self) -> None:
        """Judges what there is so far, once a second and never more than a small share of the time."""
        now = time.perf_counter()
        if now < self._judge_next:
            return
        if self._judge_slow >= JUDGE_PATIENCE:
            self._records.clear()  # nobody reads them any more
            return
        found = figures_so_far(self._config, self._budgets, self._records)
        if found:
            cost = time.perf_counter() - now
            self._judge_slow = self._judge_slow + 1 if cost > JUDGE_LIMIT_S else 0
            self._judge_next = now + max(JUDGE_PERIOD_S, cost / JUDGE_SHARE)
            with self.lock:
                self.figures = found
                self.news += 1

    # -- what the window shows

    def sensor_rows(self, found: Mapping[str, SensorRow]) -> tuple[SensorRow, ...]:
        """Returns the configured sensors with what they have delivered; ``found`` is what the scene has for them."""
        rows = []
        attached = self.session is not None and self.session.state is not None
        with self.lock:
            for name, counts in self._sensors.items():
                before = found[name]
                rows.append(
                    SensorRow(
                        name,
                        before.kind,
                        before.place,
                        "attached" if attached else before.state,
                        before.detail,
                        **counts,
                    )
                )
        return tuple(rows)

    def engine_rows(self) -> tuple[EngineRow, ...]:
        """Returns the networks and how far their engines are."""
        with self.lock:
            return tuple(self._ready.get(name) or self._unready(name) for name in self._config.networks)

    def _unready(self, name: str) -> EngineRow:
        if name == self._building:
            return EngineRow(name, "building", detail=self._details.get(name, "loading"))
        return EngineRow(name, "waiting")

    @property
    def progress(self) -> float:
        """0..1 of the decisions; before the first, of the networks."""
        wanted = self._config.run.warmup + self._config.run.frames
        if self.decisions:
            return min(self.decisions / wanted, 1.0)
        return len(self._ready) / max(len(self._config.networks), 1)

    def stages_ms(self) -> tuple[tuple[str, float], ...]:
        """Returns the mean of each stage over the newest decisions [ms]."""
        with self.lock:
            shown = list(self._stages)
        return tuple(
            (name, sum(stages.get(name, 0.0) for stages in shown) / len(shown))
            for name in STAGE_NAMES
            if any(name in stages for stages in shown)
        )

    def gpu_rows(self) -> tuple[GpuRow, ...]:
        """Returns memory and load of the GPU now, or why they are not known."""
        sampler = self.session.sampler if self.session is not None else None
        return () if sampler is None else gpu_rows(sampler.newest())

    def ros2(self) -> str:
        """Returns the state of the ROS 2 bridge in words."""
        if not self._config.ros2.enabled:
            return "off (ros2.enabled: false)"
        bridge = self.session.bridge if self.session is not None else None
        if bridge is None:
            return "not joined yet"
        return f"joined by {bridge.reason}"

    def topics(self) -> tuple[TopicRow, ...]:
        """Returns the ROS 2 topics with their counts; none without a bridge."""
        bridge = self.session.bridge if self.session is not None else None
        return () if bridge is None else self._topics.rows(bridge.bridge.counters)

    def commands(self) -> str:
        """Returns how many external commands came and how old the newest is; empty without a bridge."""
        bridge = self.session.bridge if self.session is not None else None
        if bridge is None:
            return ""
        receiver = bridge.receiver
        age = receiver.age_s
        if age is None:
            return "no command came yet"
        counts = receiver.facts()
        return (
            f"{counts['accepted']} commands accepted, {counts['refused']} refused, {counts['timeouts']} silences; "
            f"the newest is {age:.1f} s old"
        )


def _of_decision(frames: list[Mapping[str, Any]]) -> dict[str, float]:
    """Splits one decision's time among its stages, so that they add up to its latency."""
    from saccade.reporting.plots import stage_shares

    found: dict[str, float] = {}
    for (stage, _), value in stage_shares(frames).items():
        found[stage] = found.get(stage, 0.0) + value
    return found


def with_run(view: View, run: LiveRun, found: dict[str, Any], summary: dict[str, Any] | None) -> View:
    """Returns ``view`` with what is known of a run; ``summary`` is that of its end, ``None`` while it goes on."""
    figures: Any = summary if summary is not None else run.figures
    sensors = run.sensor_rows(found)
    with run.lock:
        latencies = tuple(run.latency_ms)
        doing = run.doing
    unused = tuple(row for row in found.values() if row.state == "unused")
    return replace(
        view,
        doing=doing if view.state in ("building", "running", "stopping") else view.doing,
        progress=run.progress,
        sensors=(*sensors, *unused),
        engines=run.engine_rows(),
        decisions=run.decisions,
        latency_ms=latencies,
        percentiles=percentile_rows(figures),
        stages_ms=run.stages_ms(),
        dropped=sum(row.dropped for row in sensors),
        misses=figures.get("deadline_misses", 0),
        realtime_factor=figures.get("realtime_factor"),
        gpu=run.gpu_rows(),
        verdict=figures.get("verdict", ""),
        verdict_final=summary is not None,
        judged=figures.get("frames", 0),
        reasons=tuple(figures.get("reasons", ())),
        budgets=budget_rows(figures),
        ros2=run.ros2(),
        topics=run.topics(),
        commands=run.commands(),
        directory=summary["directory"] if summary is not None else "",
        revision=view.revision * 1_000_000 + run.news,
    )


def figures_so_far(config: RunConfig, budgets: Budgets, records: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the summary of docs/record.md for the records that there are, as if the run had been that long.

    Empty before the first judged decision. ``verdict`` is ``"open"`` where nothing is missed and some budgets need more
    decisions.
    """
    frames: list[Any] = list(records)
    judged = len({frame["tick"] for frame in frames if frame["phase"] == JUDGED})
    if not judged:
        return {}
    record = Record({**header_of(config, "so far"), "frames_expected": judged}, frames)
    summary = summarise(record, budgets)
    verdict, _, reasons = judge(record_problems(record), [b for b in summary["budgets"] if b["passed"] is not None])
    if verdict == "pass" and any(budget["passed"] is None for budget in summary["budgets"]):
        verdict = "open"
        reasons = [f"budget {b['name']}: {b['reason']}" for b in summary["budgets"] if b["passed"] is None]
    return {**summary, "verdict": verdict, "reasons": reasons}


def budget_rows(figures: Mapping[str, Any]) -> tuple[BudgetRow, ...]:
    """Returns the budgets of a summary."""
    rows = []
    for budget in figures.get("budgets", ()):
        unit = f" {budget['unit']}" if budget["unit"] else ""
        value = "–" if budget["value"] is None else f"{budget['value']:.4g}{unit}"
        comparison = {"<=": "≤", ">=": "≥"}[budget["comparison"]]
        limit = f"{comparison} {budget['limit']:g}{unit}"
        rows.append(BudgetRow(budget["name"], limit, value, _STATES[budget["passed"]], budget["reason"] or ""))
    return tuple(rows)


def percentile_rows(figures: Mapping[str, Any]) -> tuple[Percentile, ...]:
    """Returns the percentiles of a summary's latency."""
    latency = figures.get("latency_ms")
    if not latency:
        return ()
    return tuple(
        Percentile(name, found["value"], found["low"], found["high"], found["reason"] or "")
        for name in ("p50", "p95", "p99")
        for found in (latency[name],)
    )


def gpu_rows(newest: Mapping[str, Any]) -> tuple[GpuRow, ...]:
    """Returns what of the GPU can be shown: load and memory now, or the one reason why there is nothing.

    Args:
        newest: See :meth:`saccade.telemetry.gpu.GpuSampler.newest`.
    """
    rows = []
    values = newest["values"]
    total = newest["device"].get("memory_total_bytes")
    load, used, own = (
        values.get(name) for name in ("gpu_utilisation_percent", "memory_used_bytes", "process_memory_bytes")
    )
    if load is not None:
        rows.append(GpuRow("load", f"{load:.0f} %", min(load / 100, 1.0)))
    if used is not None:
        text = f"{used / 2**30:.1f} GiB" + (f" of {total / 2**30:.1f} GiB" if total else "")
        rows.append(GpuRow("memory", text, min(used / total, 1.0) if total else None))
    if own is not None:
        rows.append(GpuRow("this process", f"{own / 2**30:.1f} GiB", min(own / total, 1.0) if total else None))
    if rows:
        return tuple(rows)
    return (GpuRow("GPU", newest["absent"].get("gpu_utilisation_percent", "no sample was taken yet")),)


def _engine_row(name: str, facts: Mapping[str, Any], device: str) -> EngineRow:
    engine = " ".join(str(facts[key]) for key in ("engine", "version") if facts.get(key))
    built = (facts.get("build") or {}).get("build_s")
    detail = f"built in {built:.0f} s, kept for the next run" if built else ""
    return EngineRow(name, "ready", engine, str(facts.get("precision", "")), device, detail)
