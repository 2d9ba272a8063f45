"""What happens behind the doubles' interface: an application that updates, a timeline, physics and callbacks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

THROTTLING = "/exts/isaacsim.core.throttling/enable_async"
THROTTLE_DELAY = 10
"""Updates after a stop or a pause until asynchronous rendering comes back."""


@dataclass
class Behaviour:
    """What the application does beyond its interface; the defaults are what the reference documents.

    The source of every line is in ``behaviours.md``.
    """

    empty_first_frames: int = 3
    """Renderings whose annotators give empty arrays."""
    zero_reference_frames: int = 2
    """Renderings after those whose reference time is 0/0 and whose times are those of the moment of the read."""
    startup_lag: int = 3
    """Renderings that lag one update even with the zero-delay settings."""
    writer_calls: tuple[int, ...] = (1, 0, 2, 1)
    """Deliveries per update without waiting for the renderer, repeated; with waiting it is always one."""
    repeats: tuple[int, ...] = ()
    """Renderings, by number, that are delivered twice."""
    late: tuple[int, ...] = ()
    """Renderings that are delivered after the next one."""
    silent_cpu: tuple[str, ...] = ()
    """Annotators that give host arrays although CUDA was asked for."""
    wrong_size_below: int = 300
    """Products with a side below this [px] give buffers of another size (not from 6.1 on)."""
    bad_magic_frames: int = 2
    """LiDAR outputs whose header is not valid yet, 6.x."""
    loading_updates: int = 2
    """Updates until an opened stage has loaded."""
    dead_extensions: tuple[str, ...] = ()
    """Extensions that say that they were enabled and are not."""
    render_before_physics: bool = False
    """A broken order: sensors show the state before the physics of their update."""
    clock_jump_at: int | None = None
    """Physics step at which the system clock jumps by a second."""
    ends_process: Callable[[int], None] | None = None
    """What the end of the process does with the status; ``None`` raises :class:`ProcessEnded`."""
    settings: dict[str, Any] = field(default_factory=dict)


class ProcessEnded(BaseException):
    """The process would have ended here, whatever comes after."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the process ended with status {status}")
        self.status = status


class World:
    """One application.

    Args:
        version: Isaac Sim's.
        behaviour: What it does.
        device: Where the renderer's buffers are: ``"cpu"`` stands for the GPU where there is none. What is in them was
            drawn on the CPU.
        settings: More settings than the experience has.
    """

    def __init__(
        self, version: str, behaviour: Behaviour, *, device: str = "cpu", settings: dict[str, Any] | None = None
    ) -> None:
        self.version, self.behaviour, self.device = version, behaviour, device
        self.major = int(version.split(".", maxsplit=1)[0])
        self.settings: dict[str, Any] = {
            "/app/asyncRendering": False,
            "/omni/replicator/asyncRendering": False,
            "/app/hydraEngine/waitIdle": False,
            THROTTLING: False,
            "/rtx/hydra/supportMultiTickRate": self.major >= 6,
            "/renderer/multiGpu/enabled": False,
            "/renderer/activeGpu": -1,
            "/app/sensors/nv/lidar/outputBufferOnGPU": self.major < 6,
            **behaviour.settings,
            **(settings or {}),
        }
        self.throttled_in: int | None = None
        """Updates until asynchronous rendering comes back."""
        self._throttle(playing=False, now=True)
        self.log: list[str] = []
        """Qualified names of all calls, in order."""
        self.events: list[str] = []
        """What happened within updates, in order."""
        self.annotator_names: set[str] = set()
        self.commands: dict[str, Any] = {}
        self.check_arguments: Callable[..., None] = lambda *_: None
        self.extensions: set[str] = set()
        self.observers: list[tuple[str, int, Callable[..., None]]] = []
        self.physics_callbacks: dict[int, tuple[str, int, Callable[..., None]]] = {}
        self.contact_listeners: list[Callable[..., None]] = []
        self.contact_headers: list[Any] = []
        """Contacts of the last physics step."""
        self.writers: dict[str, type] = {}
        """Registered writer classes."""
        self.products: list[Any] = []
        self.widgets: list[Any] = []
        self.menus: dict[str, list[Any]] = {}
        self.log_lines: list[tuple[str, str]] = []
        self.stage: Any = None
        self.stage_path: Path | None = None
        self.loading = 0
        self.updates = 0
        self.ended: int | None = None
        self.started = False
        self.playing = False
        self.pending: bool | None = None
        """Play (True) or stop (False) that waits for the next update or a commit."""
        self.time = 0.0
        """The timeline's [s]."""
        self.end_time = 1152 / 24.0
        self.looping = True
        self.manual_dt: float | None = None
        self.physics_dt = 1 / 60
        self.physics_steps = 0
        self.simulation_time = 0.0
        self.stopped_time = 0.0
        """Simulation time of what was stopped before [s]: what the time that goes on over a stop has more."""
        self.samples: dict[tuple[int, int], tuple[float, float]] = {}
        """Simulation and system time by reference time."""
        self.clock_offset = 0.0
        self.physics: Any = None
        self.articulations: dict[str, Any] = {}
        self.loop = asyncio.new_event_loop()
        self.waiting: list[asyncio.Future[None]] = []

    # -- the application -------------------------------------------------------------------------------------------

    def update(self) -> None:
        """One update: timeline, physics, update event, renderer, post-update; coroutines resume after the renderer."""
        if self.ended is not None:
            raise ProcessEnded(self.ended)
        self.updates += 1
        if self.throttled_in is not None:
            self.throttled_in -= 1
            if self.throttled_in <= 0:
                self._throttle(playing=False, now=True)
        self._emit("preUpdate")
        if self.loading:
            self.loading -= 1
        self._run_loop()
        self.commit()
        before = self.physics.snapshot() if self.physics is not None and self.behaviour.render_before_physics else None
        stepped = self.playing and self.stage is not None and not self.loading
        if stepped:
            self._advance(self.rendering_dt)
        self._emit("update")
        if stepped:
            if before is not None:
                self.physics.show(before)
            self._render()
            if before is not None:
                self.physics.show(None)
        for future in self.waiting:
            if not future.done():
                future.set_result(None)
        self.waiting.clear()
        self._run_loop()
        self._emit("postUpdate")

    @property
    def rendering_dt(self) -> float:
        return self.manual_dt if self.manual_dt is not None else 1 / 60

    def set_rendering_dt(self, dt: float) -> None:
        """As both APIs do it: the loop's step, the timeline's rate, and the root layer's time codes per second."""
        self.manual_dt = dt
        if self.stage is not None:
            self.stage.GetRootLayer().timeCodesPerSecond = 1.0 / dt

    def commit(self) -> None:
        """Carries out what play and stop left for the next update."""
        if self.pending is None:
            return
        wanted, self.pending = self.pending, None
        if wanted and not self.playing:
            self._prepare_physics()
        if not wanted:
            self.stopped_time += self.simulation_time
            self.time = self.simulation_time = 0.0
            self.physics_steps = 0
            self.samples.clear()
            if self.physics is not None:
                self.physics.reset()
        self.playing = wanted
        self._throttle(playing=wanted)
        self.events.append("play" if wanted else "stop")

    def pause(self) -> None:
        """Lets time stand still at once."""
        self.playing = False
        self._throttle(playing=False)

    def _throttle(self, *, playing: bool, now: bool = False) -> None:
        """What ``isaacsim.core.throttling`` does with asynchronous rendering where it is told to."""
        if not self.settings.get(THROTTLING):
            return
        if playing or now:
            self.settings["/app/asyncRendering"] = not playing
        self.throttled_in = None if playing or now else THROTTLE_DELAY

    def open_stage(self, path: str) -> bool:
        """Opens a file; a missing one is reported by the returned flag only."""
        from pxr import Sdf, Usd

        if not Path(path).is_file():
            return False
        self.close_stage()
        # Layers live on in this process, with what an earlier stage wrote into them; a new application has none.
        known = Sdf.Layer.Find(path)
        if known is not None:
            known.Reload(force=True)
        self.stage = Usd.Stage.Open(path)
        self.stage_path = Path(path)
        self.loading = self.behaviour.loading_updates
        codes = self.stage.GetEndTimeCode() - self.stage.GetStartTimeCode()
        self.end_time = codes / self.stage.GetTimeCodesPerSecond() if codes > 0 else 100 / 24.0
        self._emit("stage opened")
        return True

    def close_stage(self) -> None:
        self.stage = None
        self.physics = None
        self.articulations.clear()
        self.playing, self.pending = False, None

    def end_process(self, status: int) -> None:
        """Ends the process here, as a fast shutdown does."""
        self.ended = status
        self._emit("process ends")
        if self.behaviour.ends_process is not None:
            self.behaviour.ends_process(status)
        raise ProcessEnded(status)

    def close(self) -> None:
        self.close_stage()
        self.loop.close()

    async def next_update(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        await future

    def _run_loop(self) -> None:
        """Lets coroutines run as far as they can without an update."""
        if asyncio.all_tasks(self.loop):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def _emit(self, name: str) -> None:
        self.events.append(name)
        for event, _, function in sorted(self.observers, key=lambda entry: entry[1]):
            if event == name:
                function(None)

    # -- physics ---------------------------------------------------------------------------------------------------

    def _prepare_physics(self) -> None:
        from tests.contracts.isaac.physics import physics_of

        if self.physics is None and self.stage is not None:
            self.physics = physics_of(self.stage_path, self.stage)
        self._callbacks("PHYSICS_READY")
        self._callbacks("SIMULATION_STARTED")

    def _advance(self, dt: float) -> None:
        """All physics steps of one update; their number is the quotient of both times, cut off (5.x) or rounded."""
        quotient = dt / self.physics_dt
        count = max(int(quotient) if self.major < 6 else round(quotient), 1)
        for _ in range(count):
            self.step_physics(dt / count)
        self.time += dt
        if self.time > self.end_time + 1e-9:
            self.time = 0.0 if self.looping else self.end_time
            self.events.append("timeline at its end")

    def step_physics(self, dt: float) -> None:
        """One physics step between the callbacks before and after it."""
        self._callbacks("PRE_PHYSICS_STEP", dt)
        self._callbacks("PHYSICS_PRE_STEP", dt)
        self.physics_steps += 1
        self.simulation_time += dt
        if self.behaviour.clock_jump_at == self.physics_steps:
            self.clock_offset += 1.0
        self.contact_headers = self.physics.step(dt, self.simulation_time)
        self.events.append("physics")
        for listener in list(self.contact_listeners):
            if self.contact_headers:
                listener(self.contact_headers, [], [])
        self.samples[self.reference_time()] = (self.simulation_time, time.time() + self.clock_offset)
        self._callbacks("POST_PHYSICS_STEP", dt)
        self._callbacks("PHYSICS_POST_STEP", dt)

    def reference_time(self) -> tuple[int, int]:
        return (round(self.simulation_time * 1_000_000), 1_000_000)

    def _callbacks(self, event: str, *args: Any) -> None:
        """Physics callbacks take (dt) in 5.x and (dt, context) in 6.x; the others take what was sent."""
        for name, _, function in sorted(self.physics_callbacks.values(), key=lambda entry: entry[1]):
            if name != event:
                continue
            if args:
                function(*args) if self.major < 6 else function(*args, object())
            else:
                function(None)

    # -- rendering -------------------------------------------------------------------------------------------------

    @property
    def waits_for_renderer(self) -> bool:
        return bool(self.settings.get("/app/hydraEngine/waitIdle")) and not self.settings.get("/app/asyncRendering")

    def _render(self) -> None:
        self.events.append("render")
        calls = 1
        if not self.waits_for_renderer:
            pattern = self.behaviour.writer_calls if self.major >= 6 else (1,)
            calls = pattern[self.updates % len(pattern)]
        for product in list(self.products):
            if product.enabled:
                product.capture()
                product.deliver(calls)
        self._emit("new frame")
