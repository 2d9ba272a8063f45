"""Kit and Replicator as all supported releases have them; only loaded inside Isaac Sim."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import carb.settings
import omni.kit.app
import omni.replicator.core as rep
import omni.timeline
import omni.usd
import warp as wp
from isaacsim.core.version import get_version

from saccade.simulators.isaac_sensors import Request
from saccade.simulators.isaac_versions import STABLE_IDS, THROTTLING, Release, release_of

WRITER = "SaccadeFrameWriter"
"""The name of the class below: Replicator knows a writer by it."""

SETTINGS = (
    "/app/hydraEngine/waitIdle",
    "/app/updateOrder/checkForHydraRenderComplete",
    "/app/asyncRendering",
    "/app/asyncRenderingLowLatency",
    "/omni/replicator/asyncRendering",
    THROTTLING,
    "/rtx/hydra/supportMultiTickRate",
    "/app/runLoops/main/manualModeEnabled",
    "/renderer/multiGpu/enabled",
    "/renderer/activeGpu",
    "/app/sensors/nv/lidar/outputBufferOnGPU",
    STABLE_IDS,
)
"""Settings that decide latency and where data are; the record has all of them."""

Sink = Callable[[Mapping[str, Any]], None]

_SINKS: dict[str, Sink] = {}
"""Where the writers' deliveries go, by token: what is attached is a copy of the writer that was made."""


class SaccadeFrameWriter(rep.Writer):
    """Hands every delivery of one render product to who waits for it.

    Replicator copies a writer when it is attached, and what it holds cannot be copied: a copy is a new writer with the
    same token.

    Args:
        token: Names the sink.
        requests: Annotators, as plain values.
    """

    def __init__(self, token: str = "", requests: Sequence[Any] = ()) -> None:
        self.version = "1.0.0"
        self.node_type_id = WRITER
        self._kwargs = {"token": token, "requests": requests}
        self._token = token
        self.annotators = [_annotator(request) for request in requests]
        self._annotators = list(self.annotators)

    def __deepcopy__(self, memo: dict[int, Any]) -> SaccadeFrameWriter:
        return SaccadeFrameWriter(self._token, self._kwargs["requests"])

    def write(self, data: Mapping[str, Any]) -> None:
        """Called by Replicator, none to several times in an update."""
        sink = _SINKS.get(self._token)
        if sink is not None:
            sink(data)


class Product:
    """One render product with a writer on it.

    Args:
        prim: Path of the camera or LiDAR prim.
        width: [px]; a LiDAR needs a size and does not use it.
        height: [px]
        name: Of the product.
        requests: Annotators.
        sink: Gets every delivery.
    """

    def __init__(self, prim: str, width: int, height: int, name: str, requests: Sequence[Request], sink: Sink) -> None:
        self._token = uuid.uuid4().hex
        _SINKS[self._token] = sink
        # (width, height) here, whatever the sensor classes of 6.x take.
        self._texture = rep.create.render_product(prim, (width, height), force_new=True, name=name)
        self._writer = rep.WriterRegistry.get(WRITER)
        plain = tuple((request.name, request.init, request.device) for request in requests)
        self._writer.initialize(token=self._token, requests=plain)
        self._writer.attach([self._texture.path])

    def close(self) -> None:
        """Detaches the writer and then destroys the product: the other way round its annotators stay empty."""
        _SINKS.pop(self._token, None)
        if self._texture is not None:
            self._writer.detach()
            self._texture.destroy()
            self._texture = self._writer = None


def register_writer() -> None:
    """Makes the writer known to Replicator; before the first product."""
    rep.WriterRegistry.register(SaccadeFrameWriter)


def _annotator(request: Any) -> Any:
    name, init, device = request
    if device is None:
        return rep.AnnotatorRegistry.get_annotator(name, init_params=dict(init) or None)
    # Both have to be said here: a read cannot turn off the copy that was asked for at creation.
    return rep.AnnotatorRegistry.get_annotator(name, init_params=dict(init) or None, device=device, do_array_copy=False)


def installed_release() -> Release:
    """Returns the release that runs.

    Raises:
        DependencyError: It cannot be used.
    """
    return release_of(str(get_version()[0]))


def versions() -> dict[str, str]:
    """Returns the versions of Isaac Sim, Kit and the Warp that Kit brought."""
    return {
        "isaacsim": str(get_version()[0]),
        "kit": str(omni.kit.app.get_app().get_kit_version()),
        "warp-lang": str(wp.config.version),
    }


def settings() -> dict[str, Any]:
    """Returns the settings of :data:`SETTINGS` as they are now."""
    store = carb.settings.get_settings()
    return {path: store.get(path) for path in SETTINGS}


def current_stage() -> Any:
    """Returns the stage that is open, or ``None``."""
    return omni.usd.get_context().get_stage()


def stage_is_loading() -> bool:
    """Whether the stage still loads files."""
    _, loaded, total = omni.usd.get_context().get_stage_loading_status()
    return bool(loaded < total)


def update() -> None:
    """One update of the application: its physics steps, then a rendering of every product."""
    omni.kit.app.get_app().update()


def set_timeline_end(seconds: float) -> None:
    """Puts the end of the timeline off [s]: at the end of the stage's range it would start again, and with it time."""
    omni.timeline.get_timeline_interface().set_end_time(seconds)


def play() -> None:
    """Starts the simulation at once, instead of at the next update."""
    timeline = omni.timeline.get_timeline_interface()
    timeline.play()
    timeline.commit()


def pause() -> None:
    """Lets simulated time stand still."""
    timeline = omni.timeline.get_timeline_interface()
    timeline.pause()
    timeline.commit()


def stop() -> None:
    """Ends the simulation at once; time and poses go back to where they were."""
    timeline = omni.timeline.get_timeline_interface()
    timeline.stop()
    timeline.commit()


def set_loop_times(rendering: float) -> None:
    """Sets the simulated time of one update [s] without a simulation context: layer, timeline and run loop.

    The timeline takes the time codes where it steps by a fixed time, as applications with a window do, and otherwise
    what the run loop says; so both are set, as Isaac Sim's own contexts do.
    """
    from omni.kit.loop import _loop
    from pxr import Usd

    stage = current_stage()
    with Usd.EditContext(stage, stage.GetRootLayer()):
        stage.SetTimeCodesPerSecond(1.0 / rendering)
    omni.timeline.get_timeline_interface().set_time_codes_per_second(1.0 / rendering)
    loop = _loop.acquire_loop_interface()
    loop.set_manual_step_size(rendering)
    loop.set_manual_mode(True)


def times() -> tuple[float | None, float, float]:
    """Returns what setting the times changes: the root layer's own time codes per second (``None`` = it has none), the
    timeline's, and the timeline's end [s].
    """
    layer = current_stage().GetRootLayer()
    timeline = omni.timeline.get_timeline_interface()
    own = layer.timeCodesPerSecond if layer.HasTimeCodesPerSecond() else None
    return own, float(timeline.get_time_codes_per_seconds()), float(timeline.get_end_time())


def restore_times(before: tuple[float | None, float, float]) -> None:
    """Puts back what :func:`times` returned, and the run loop's step with it where the release's manager does not."""
    own, rate, end = before
    if installed_release().major < 6:
        set_loop_times(1.0 / rate)
    timeline = omni.timeline.get_timeline_interface()
    timeline.set_time_codes_per_second(rate)
    timeline.set_end_time(end)
    layer = current_stage().GetRootLayer()
    if own is None:
        layer.ClearTimeCodesPerSecond()
    else:
        layer.timeCodesPerSecond = own


def enable_extension(name: str) -> bool:
    """Enables an extension and says whether it is enabled; it may still have shut itself down."""
    manager = omni.kit.app.get_app().get_extension_manager()
    if not manager.is_extension_enabled(name):
        manager.set_extension_enabled_immediate(name, True)
    return bool(manager.is_extension_enabled(name))
