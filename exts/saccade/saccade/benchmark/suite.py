"""The whole benchmark: which groups can run here, one after the other, and what comes out as one JSON object."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from saccade import paths
from saccade.benchmark.measure import TimeLimit
from saccade.benchmark.session import Session
from saccade.configuration import LoadedConfiguration
from saccade.errors import ConfigurationError, DependencyError, SaccadeError
from saccade.kernels.setup import prepare_warp

SCHEMA = 1

GROUPS: Mapping[str, str] = {
    "engines": "",
    "frame": "tensorrt",
    "preprocess": "cuda",
    "cameras": "tensorrt",
    "recorder": "",
    "bridge": "ros2",
    "loop": "",
}
"""What each group needs, in the order in which they run; the loop comes last, as it takes what time is left."""

TIME_LIMIT_S = 200.0
"""Time for measuring, building engines not counted [s]."""

FULL_ROUNDS, QUICK_ROUNDS = 30, 8
QUICK_FRAMES = 40

HOST_FIELDS = ("cpu", "cores", "memory_mb", "system", "gpu", "gpu_reason")

COMMIT_VARIABLE = "SACCADE_COMMIT"


def bench(
    loaded: LoadedConfiguration,
    *,
    frames: int = 150,
    first_frame: bool = True,
    quick: bool = False,
    only: Sequence[str] = (),
    time_limit_s: float = TIME_LIMIT_S,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measures everything that can be measured here.

    Args:
        loaded: The configuration whose loop is run; its device and engine fields hold for all groups.
        frames: Decisions of that loop.
        first_frame: Also start a fresh process and time it to its first frame.
        quick: A tenth of the runs: to see that it works, not for figures to report.
        only: Groups of :data:`GROUPS`; none = all.
        time_limit_s: Time for measuring [s]; a group that it ends early has fewer samples, or is left out.
        say: Told what is being done.

    Returns:
        See docs/benchmarks.md; after a Ctrl-C what was measured until then. ``missing`` says what could not be
        measured here and why, ``invalid`` which groups gave figures that must not be shown.

    Raises:
        ConfigurationError: There is no such group, or no such device.
    """
    unknown = [name for name in only if name not in GROUPS]
    if unknown:
        raise ConfigurationError(f"--only {', '.join(unknown)}: expected one or more of {', '.join(GROUPS)}")
    prepare_warp()
    session = Session(
        loaded=loaded,
        device=_device(loaded),
        tensorrt=None,
        rounds=QUICK_ROUNDS if quick else FULL_ROUNDS,
        limit=TimeLimit(time_limit_s),
        say=say,
        frames=min(frames, QUICK_FRAMES) if quick else frames,
        first_frame=first_frame,
    )
    _find_tensorrt(session)
    started = time.perf_counter()
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "ratios": {},
        "recorder_us": None,
        "host_to_device_bytes": None,
        "invalid": {},
    }
    for name in GROUPS:
        if not only or name in only:
            try:
                _run_group(name, session, result)
            except KeyboardInterrupt:  # what was measured until then is not thrown away
                result["invalid"][name] = "interrupted, and what would have come after it left out"
                break
    _add_residency(session, result)
    result.update(
        missing=session.missing,
        device=session.device,
        host=_host(session),
        versions=_versions(),
        **commit(),
        configuration=loaded.name,
        quick=quick,
        wall_s=time.perf_counter() - started,
    )
    return result


def _run_group(name: str, session: Session, result: dict[str, Any]) -> None:
    """Runs one group and merges what it found; what goes wrong in it does not take the others along."""
    lacking = _lacking(GROUPS[name], session)
    if lacking is None and session.limit.left < 0:
        lacking = f"the time limit of {session.limit.seconds:g} s was over"
    if lacking is not None:
        session.missing[name] = lacking
        return
    try:
        found = _measurement(name)(session)
    except SaccadeError as error:
        result["invalid"][name] = str(error)
        return
    except Exception as error:  # a fault of one group, shown where it can be reported
        traceback.print_exc(file=sys.stderr)
        result["invalid"][name] = f"{type(error).__name__}: {error}"
        return
    result["ratios"].update(found.pop("ratios"))
    result.update(found)


def _measurement(name: str) -> Callable[[Session], dict[str, Any]]:
    """Imports a group only when it is run: each needs something that is not installed everywhere."""
    if name == "engines":
        from saccade.benchmark.engines import measure_engines as measure
    elif name == "frame":
        from saccade.benchmark.frame import measure_frame as measure
    elif name == "preprocess":
        from saccade.benchmark.preprocess import measure_preprocess as measure
    elif name == "cameras":
        from saccade.benchmark.cameras import measure_cameras as measure
    elif name == "recorder":
        from saccade.benchmark.recorder import measure_recorder as measure
    elif name == "bridge":
        from saccade.benchmark.bridge import measure_bridge as measure
    else:
        from saccade.benchmark.loop import measure_loop as measure
    return measure


def _lacking(need: str, session: Session) -> str | None:
    if need == "ros2":
        return _no_ros2(session)
    if need and session.device == "cpu":
        return session.missing["cuda"]
    if need == "tensorrt" and session.tensorrt is None:
        return session.missing["tensorrt"]
    return None


def _no_ros2(session: Session) -> str | None:
    from saccade.bridge.selection import choose

    try:
        choose(session.loaded.config.ros2.transport)
    except DependencyError as error:
        return str(error)
    return None


def _device(loaded: LoadedConfiguration) -> str:
    import warp as wp

    from saccade import cuda

    wanted = loaded.config.simulator.device
    if wanted == "cuda":
        return cuda.require("cuda")
    return cuda.require("cuda") if wanted == "auto" and wp.is_cuda_available() else "cpu"


def _find_tensorrt(session: Session) -> None:
    """Finds out whether networks can run on the GPU, and says what is missing where they cannot."""
    config = session.loaded.config
    if session.device == "cpu":
        why = "simulator.device is cpu" if config.simulator.device == "cpu" else "Warp finds no NVIDIA GPU here"
        session.missing["cuda"] = f"{why}: graphs, residency and everything on the GPU are not measured"
    if config.engine.backend == "onnxruntime":
        session.missing["tensorrt"] = "engine.backend is onnxruntime"
        return
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        session.missing["tensorrt"] = f"TensorRT does not import ({error}): pip install tensorrt"
        return
    if session.device != "cpu":
        session.tensorrt = str(tensorrt.__version__)


def _add_residency(session: Session, result: dict[str, Any]) -> None:
    """Adds the bytes that the captured graphs of the loop move between host and device, the most of any."""
    proofs = session.proofs
    unproven = [proof["reason"] for proof in proofs if not proof["proven"]]
    if not proofs:
        if session.tensorrt:
            session.missing["host_to_device_bytes"] = "no frame of the loop was captured"
        return
    if unproven:
        session.missing["host_to_device_bytes"] = f"not proven: {unproven[0]}"
        return
    result["host_to_device_bytes"] = max(int(proof["host_to_device_bytes"]) for proof in proofs)
    # By copies, and what kernels write to pinned memory themselves.
    result["device_to_host_bytes"] = max(
        int(proof["device_to_host_bytes"]) + sum((proof.get("kernel_writes") or {}).values()) for proof in proofs
    )
    result["graphs"] = sum(len(proof["graphs"]) for proof in proofs)


def _host(session: Session) -> dict[str, Any]:
    from saccade.telemetry.host import host_facts

    facts = host_facts()
    found = {name: facts[name] for name in HOST_FIELDS if name in facts}
    found["driver"] = (facts.get("gpu") or {}).get("driver")
    found["tensorrt"] = session.tensorrt
    return found


def _versions() -> dict[str, str | None]:
    from saccade.telemetry.host import package_versions

    return package_versions()


def commit() -> dict[str, Any]:
    """Returns ``commit`` and whether the checkout was ``modified``; both ``None`` where nobody knows.

    ``SACCADE_COMMIT`` names it for a copy of a checkout without its history.
    """
    given = os.environ.get(COMMIT_VARIABLE, "").strip()
    if given:
        return {"commit": given, "modified": None}
    head = _git("rev-parse", "HEAD")
    if not head:
        return {"commit": None, "modified": None}
    return {"commit": head, "modified": bool(_git("status", "--porcelain", "--untracked-files=no"))}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=paths.PACKAGE, capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
