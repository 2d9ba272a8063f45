"""Runs a validation inside Isaac Sim, without a window: ``./python.sh scripts/isaac_validate.py isaac --frames 100``.

Arguments that are not listed below go to Kit, such as ``--/renderer/activeGpu=1``. The verdict's status (0 pass, 1
fail, 2 wrong usage, 3 invalid) is written to ``--status-file`` before Isaac Sim is closed: the process ends inside its
close(), and ``python.sh`` turns every status but 0 into 1. ``scripts/run_in_isaac.sh`` returns it.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
INVALID, USAGE = 3, 2

EXAMPLES = """examples:
  ./python.sh scripts/isaac_validate.py isaac
  ./python.sh scripts/isaac_validate.py config/warehouse.yaml --frames 600 --set simulator.pace=realtime
  scripts/run_in_isaac.sh isaac --frames 100      finds Isaac Sim, and returns 0, 1 or 3
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configuration", help="a YAML file, or the name of a shipped configuration")
    parser.add_argument("--frames", type=int, help="judged decisions (run.frames)")
    parser.add_argument("--name", help="of the run's folder")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="of engines and sensors")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", dest="overrides")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for runs (default: runs)")
    parser.add_argument("--status-file", type=Path, help="gets the status as its first word")
    parser.add_argument("--experience", help="Kit file; default: the one without delay where the release has it")
    parser.add_argument("--gpu", type=int, default=0, help="GPU that renders and infers (default: 0)")
    arguments, for_kit = parser.parse_known_args()
    if arguments.status_file is not None and not arguments.status_file.resolve().parent.is_dir():
        parser.error(f"--status-file: there is no folder {arguments.status_file.resolve().parent}: make it first")
    # What Kit is to have stays; what is ours would confuse it.
    sys.argv = [sys.argv[0], *for_kit]
    status, words = run(arguments)
    _finish(arguments.status_file, status, words)


def run(arguments: argparse.Namespace) -> tuple[int, str]:
    """Loads the configuration, starts Isaac Sim and runs the loop; returns status and what to say."""
    global _app, _release  # noqa: PLW0603 (one application per process)
    try:
        import saccade  # noqa: F401
    except ImportError:
        sys.path.insert(0, str(REPOSITORY / "exts" / "saccade"))
    try:
        # Nothing of these imports Warp or USD: inside Isaac Sim both are Kit's, and come with it.
        from saccade.configuration import load_configuration
        from saccade.errors import SaccadeError
        from saccade.simulators.isaac_checks import isaac_overrides
        from saccade.simulators.isaac_versions import release_of
    except ImportError as error:
        return USAGE, f"{error}: install what is missing with  ./python.sh -m pip install '{error.name}'"
    names = ("frames", "name", "seed", "device")
    options = {name: getattr(arguments, name) for name in names}
    try:
        loaded = load_configuration(arguments.configuration, overrides=arguments.overrides, **options)
        if loaded.config.simulator.backend != "isaac":
            changes = isaac_overrides(loaded.config)
            print(f"not written for Isaac Sim, so: --set {' --set '.join(changes)}", flush=True)
            overrides = [*arguments.overrides, *changes]
            loaded = load_configuration(arguments.configuration, overrides=overrides, **options)
        _release = release_of(installed_version())
    except SaccadeError as error:
        return USAGE, str(error)
    print(f"starting Isaac Sim {_release.version} ({_release.core})", flush=True)
    from isaacsim import SimulationApp

    launch, experience = launch_of(loaded.config, _release, arguments.gpu, arguments.experience)
    _app = SimulationApp(launch, experience=experience)
    try:
        _enable(loaded.config)
        return _validate(loaded, arguments.out)
    except Exception:
        return INVALID, traceback.format_exc()


def installed_version() -> str:
    """Returns the release's own version, from its file or its package, before anything of it is started.

    Raises:
        DependencyError: There is none.
    """
    from importlib.metadata import PackageNotFoundError, version

    from saccade.errors import DependencyError

    for folder in (os.environ.get("ISAAC_PATH"), os.environ.get("ISAACSIM_PATH")):
        if folder and (Path(folder) / "VERSION").is_file():
            return (Path(folder) / "VERSION").read_text(encoding="utf-8").strip()
    try:
        return version("isaacsim")
    except PackageNotFoundError:
        raise DependencyError(
            "this Python belongs to no Isaac Sim: start with scripts/run_in_isaac.sh, or with Isaac Sim's python.sh "
            "and ISAAC_PATH set to its folder"
        ) from None


def launch_of(config: Any, release: Any, gpu: int, experience: str | None) -> tuple[dict[str, Any], str]:
    """Returns what SimulationApp is started with: launch configuration and experience file."""
    from saccade.simulators.isaac_versions import PYTHON_EXPERIENCE, STABLE_IDS, THROTTLING, ZERO_DELAY_EXPERIENCE

    lockstep = config.simulator.pace == "lockstep"
    renderer = ("/app/asyncRendering", "/omni/replicator/asyncRendering", THROTTLING)
    settings: dict[str, Any] = dict.fromkeys(renderer, False)
    # An application without a display may have omni.ui all the same: nothing is drawn beside a measurement.
    settings["/exts/saccade/window"] = False
    # Read when the renderer starts: without it no LiDAR says what its returns hit.
    settings[STABLE_IDS] = True
    if lockstep:
        # The same as the zero-delay experience says, for releases that lack it.
        settings |= {"/app/hydraEngine/waitIdle": True, "/app/updateOrder/checkForHydraRenderComplete": 1000}
    if config.ros2.enabled:
        # In 5.1 the experience writes this one where nobody reads it.
        settings["/exts/isaacsim.ros2.bridge/publish_multithreading_disabled"] = True
        if release.major >= 6:
            settings["/exts/isaacsim.ros2.bridge/publish_with_queue_thread"] = False
    launch = {
        "headless": True,
        "multi_gpu": False,
        "active_gpu": gpu,
        "physics_gpu": gpu,
        "disable_viewport_updates": True,
        "extra_args": [f"--{path}={_text(value)}" for path, value in settings.items()],
    }
    if experience is None:
        folder = Path(os.environ.get("EXP_PATH", ""))
        wanted = folder / (ZERO_DELAY_EXPERIENCE if lockstep else PYTHON_EXPERIENCE)
        experience = str(wanted) if wanted.is_file() else ""
    return launch, experience


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _enable(config: Any) -> None:
    """Enables Saccade's extension, and the ROS 2 bridge where the run uses it."""
    import omni.kit.app

    manager = omni.kit.app.get_app().get_extension_manager()
    manager.add_path(str(REPOSITORY / "exts"))
    manager.set_extension_enabled_immediate("saccade", True)
    if not manager.is_extension_enabled("saccade"):
        print("the extension 'saccade' could not be enabled: the run goes on without it", file=sys.stderr)
    if config.ros2.enabled:
        manager.set_extension_enabled_immediate("isaacsim.ros2.bridge", True)
        # It checks its libraries itself and may shut itself down: rclpy is there after an update, or not at all.
        omni.kit.app.get_app().update()
        try:
            import rclpy  # noqa: F401
        except ImportError as error:
            print(
                f"isaacsim.ros2.bridge did not bring rclpy ({error}): the run uses DDS where it can. Start with "
                f"scripts/run_in_isaac.sh --ros2, which sets the library path before the start",
                file=sys.stderr,
            )


def _validate(loaded: Any, out: Path) -> tuple[int, str]:
    from rich.console import Console

    from saccade.errors import ConfigurationError, SaccadeError
    from saccade.validation.run import validate
    from saccade.validation.verdict import last_line

    try:
        summary = validate(loaded, out=out, console=Console(stderr=True))
    except ConfigurationError as error:
        return USAGE, str(error)
    except SaccadeError as error:
        return INVALID, str(error)
    except KeyboardInterrupt:
        return INVALID, "stopped before there was anything to judge"
    for path in Path(summary["directory"]).rglob("*"):
        if path.is_file():
            _flush(path)
    return int(summary["exit_status"]), "\n".join([*summary["reasons"], last_line(summary, summary["directory"])])


def _flush(path: Path) -> None:
    """Brings a file to the disk: what the system still holds when the process is cut off is its, not ours."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _finish(status_file: Path | None, status: int, words: str) -> None:
    """Says the verdict, writes it down, and ends the process with it as far as the release lets it."""
    print(words, flush=True)
    if status_file is not None:
        partial = status_file.with_suffix(status_file.suffix + ".partial")
        partial.write_text(f"{status}\n{words}\n", encoding="utf-8")
        _flush(partial)
        partial.replace(status_file)
    sys.stdout.flush()
    sys.stderr.flush()
    if _app is None:
        sys.exit(status)
    if _release is not None and _release.exit_status == "close":
        _app.close(exit_code=status)  # the process ends in here
    # Before 6.1 close() ends it with 0, or before it has cleaned up: everything of ours is on disk already.
    os._exit(status)


_app: Any = None
_release: Any = None

if __name__ == "__main__":
    main()
