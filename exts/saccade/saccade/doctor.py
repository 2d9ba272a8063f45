"""What is installed, what is missing for which use, and the command that fixes it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from saccade import __version__, paths

State = Literal["ok", "missing", "problem", "note"]

PYTHON_RANGE = ((3, 10), (3, 14))
DISK_MIN = 500 * 2**20
PROBE_TIMEOUT_S = 120
SOCKET_BUFFER = 4 * 2**20
"""Bytes: a few images."""


@dataclass(frozen=True)
class Package:
    """A package that a use needs."""

    requirement: str
    """As pip takes it."""
    module: str

    @property
    def distribution(self) -> str:
        """The name without extras and versions."""
        return self.requirement.split("[")[0].split("=")[0].split(">")[0].split("<")[0]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    use: str
    name: str
    state: State
    detail: str
    fix: str = ""
    """Command or step that mends it; empty where nothing is wrong or nothing helps."""


BASE = "base"
SIMULATOR = "embedded simulator"
GPU = "GPU engines"
ROS = "ROS 2"
INTERFACE_UP, INTERFACE_MULTICAST = 0x1, 0x1000
"""Flags of a network interface on Linux."""
TRAINING = "training"
ISAAC = "Isaac Sim"
MACHINE = "machine"
FILES = "files"

USES: dict[str, tuple[Package, ...]] = {
    BASE: (
        Package("warp-lang>=1.7.1", "warp"),
        Package("numpy>=1.26", "numpy"),
        Package("scipy>=1.11", "scipy"),
        Package("pydantic>=2.7,<3", "pydantic"),
        Package("pyyaml>=6", "yaml"),
        Package("typer>=0.12.4", "typer"),
        Package("rich>=13", "rich"),
        Package("psutil>=5.9", "psutil"),
        Package("jinja2>=3.1", "jinja2"),
        Package("onnxruntime>=1.18", "onnxruntime"),
        Package("pillow>=10", "PIL"),
    ),
    SIMULATOR: (
        Package("newton[sim]==1.8.*", "newton"),
        Package("usd-core>=25.5,<26.9", "pxr"),
        Package("newton-usd-schemas>=0.6", "newton_usd_schemas"),
        Package("pillow>=10", "PIL"),
    ),
    GPU: (
        Package("pycuda>=2024.1", "pycuda"),
        Package("cuda-bindings>=12.6", "cuda.bindings"),
        Package("nvidia-ml-py>=12", "pynvml"),
        Package("onnx>=1.16", "onnx"),
    ),
    ROS: (
        Package("cyclonedds==11.0.*; python_version < '3.13'", "cyclonedds"),
        Package("rosbags>=0.11", "rosbags"),
    ),
    TRAINING: (
        Package("torch>=2.3", "torch"),
        Package("onnx>=1.16", "onnx"),
        Package("matplotlib>=3.8", "matplotlib"),
        Package("pillow>=10", "PIL"),
    ),
}
"""The same requirements as in pyproject.toml; a test holds them equal."""

TENSORRT = Package("tensorrt", "tensorrt")
PROBED = (
    "warp",
    "numpy",
    "scipy",
    "jinja2",
    "matplotlib",
    "onnxruntime",
    "newton",
    "mujoco",
    "mujoco_warp",
    "pxr.Usd",
    "PIL",
)
NEEDED = (BASE, SIMULATOR, FILES, MACHINE)
"""The uses without which ``saccade validate`` cannot run."""


def examine(out: Path = Path("runs")) -> list[Check]:
    """Looks at everything and changes nothing; takes a few seconds, for the heavy packages are really imported.

    Args:
        out: Folder that runs go to.
    """
    checks = [_python(), _processor(), *_gpu(), *_files(out)]
    broken = _broken_imports()
    for use, packages in USES.items():
        checks += [_package(use, package, broken) for package in packages]
    checks += _mujoco(broken)
    checks.append(_package(GPU, TENSORRT, broken))
    checks += [_rclpy(), *_socket_buffers(), *_multicast()]
    checks.append(_isaac())
    return checks


def is_ready(checks: Sequence[Check]) -> bool:
    """Tells whether the main job, ``saccade validate`` on the embedded simulator, can run."""
    return not any(check.use in NEEDED and check.state in ("missing", "problem") for check in checks)


def as_dict(checks: Sequence[Check]) -> dict[str, Any]:
    """Returns what was found, for ``saccade doctor --json``."""
    uses = dict.fromkeys(check.use for check in checks)
    complete = {use: all(check.state in ("ok", "note") for check in checks if check.use == use) for use in uses}
    return {
        "saccade": __version__,
        "python": platform.python_version(),
        "ready": is_ready(checks),
        "uses": complete,
        "checks": [asdict(check) for check in checks],
    }


def _python() -> Check:
    low, high = PYTHON_RANGE
    text = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    if low <= sys.version_info[:2] < high and platform.python_implementation() == "CPython":
        return Check(MACHINE, "Python", "ok", text)
    return Check(
        MACHINE, "Python", "problem", f"{text}: CPython 3.10 to 3.13 is needed", "make PYTHON=python3.11 validate"
    )


def _processor() -> Check:
    flags = _processor_flags()
    wanted = {
        "AVX2": "avx2", "AVX-512": "avx512f", "VNNI": "avx512_vnni", "AVX-VNNI": "avx_vnni", "dot product": "asimddp"
    }  # fmt: skip
    found = [name for name, flag in wanted.items() if flag in flags]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    extensions = ", ".join(found) if found else "no vector extensions known of"
    text = f"{platform.machine()}, {cores} cores, {extensions}"
    if platform.machine() == "x86_64" and flags and "avx2" not in flags:
        return Check(MACHINE, "processor", "note", f"{text}: without AVX2 inference on the CPU is slow")
    if cores < 2:
        return Check(MACHINE, "processor", "note", f"{text}: the shipped budgets expect 2 cores")
    return Check(MACHINE, "processor", "ok", text)


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def _gpu() -> Iterator[Check]:
    """Asks the CUDA driver itself: no package is needed for that."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        yield Check(
            MACHINE, "GPU", "note", "no NVIDIA driver (libcuda is not found): everything runs on the CPU",
            "on a machine with an NVIDIA GPU: install its driver, then nvidia-smi must list the GPU",
        )  # fmt: skip
        return
    error = driver.cuInit(0)
    if error:
        hint = {100: "no GPU is visible", 999: "unknown error", 803: "driver and library versions differ"}.get(
            error, ""
        )
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        where = f"; CUDA_VISIBLE_DEVICES={hidden}" if hidden is not None else ""
        fix = "unset CUDA_VISIBLE_DEVICES" if hidden is not None else "nvidia-smi"
        yield Check(MACHINE, "GPU", "note", f"the CUDA driver refuses: error {error} {hint}{where}", fix)
        return
    version, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGetCount(ctypes.byref(count))
    for index in range(count.value):
        device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
        text = f"{name.value.decode(errors='replace')}, {memory.value / 2**30:.0f} GiB, driver for CUDA {cuda}"
        yield Check(MACHINE, f"GPU {index}", "ok", text)


def _files(out: Path) -> Iterator[Check]:
    yield _writable(out)
    yield _kernel_cache()
    for kind, name, fix in (
        ("scene", "scenes", "saccade scenes make"),
        ("configuration", "configurations", ""),
        ("model", "networks", _train()),
    ):
        found = paths.listing(kind)  # type: ignore[arg-type]
        folder = paths.shipped(kind)  # type: ignore[arg-type]
        if found:
            yield Check(FILES, name, "ok", f"{', '.join(file.name for file in found)} in {folder}")
        else:
            yield Check(
                FILES, name, "missing", f"none in {folder or 'the installation'}", fix or "install saccade again"
            )


def _train() -> str:
    folder = shlex.quote(str(paths.MODELS))
    return f"saccade train camera --out {folder} && saccade train lidar --out {folder}"


def _writable(out: Path) -> Check:
    folder = out.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    except OSError as error:
        reason = error.strerror or error
        return Check(FILES, "run folder", "problem", f"{out.absolute()}: {reason}", "saccade validate --out DIR")
    text = f"{out.absolute()}, {free / 2**30:.1f} GiB free"
    if free < DISK_MIN:
        return Check(FILES, "run folder", "problem", f"{text}: too little for a run", "saccade validate --out DIR")
    return Check(FILES, "run folder", "ok", text)


def _kernel_cache() -> Check:
    folder = paths.cache_folder() / "kernels" / (_version("warp-lang") or "")
    try:
        modules = [entry for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
        size = sum(file.stat().st_size for module in modules for file in module.rglob("*") if file.is_file())
    except OSError as error:
        return Check(FILES, "kernel cache", "note", f"{folder}: {error.strerror}", "export SACCADE_CACHE=DIR")
    parent = folder
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not os.access(parent, os.W_OK):
        text = f"{folder} is not writable: kernels are compiled again for every run"
        return Check(FILES, "kernel cache", "note", text, "export SACCADE_CACHE=DIR")
    if not modules:
        return Check(FILES, "kernel cache", "note", f"cold, {folder}: the first run compiles kernels, up to a minute")
    return Check(FILES, "kernel cache", "ok", f"warm, {folder}: {len(modules)} modules, {size / 2**20:.1f} MiB")


def _broken_imports() -> dict[str, str]:
    """Imports the heavy packages in a process of its own, where a crash or their chatter does no harm."""
    code = (
        "import importlib, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ModuleNotFoundError as error:\n"
        "        if error.name and not name.startswith(error.name): found[name] = str(error)\n"
        "    except BaseException as error:\n"
        "        found[name] = f'{type(error).__name__}: {error}'\n"
        "    print('\\nSACCADE-PROBE ' + json.dumps([name, found]), flush=True)\n"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", code, *PROBED]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, env=environment, check=False
        )
        output, ended = done.stdout, f"the import ended with status {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        ended = f"the import took longer than {PROBE_TIMEOUT_S} s"
    except OSError as error:
        return {PROBED[0]: f"{sys.executable} could not be started: {error}"}
    lines = [line for line in output.splitlines() if line.startswith("SACCADE-PROBE ")]
    last, broken = json.loads(lines[-1].removeprefix("SACCADE-PROBE ")) if lines else (None, {})
    reached = PROBED.index(last) + 1 if last else 0
    if reached < len(PROBED):
        broken[PROBED[reached]] = ended
    return broken


def _package(use: str, package: Package, broken: dict[str, str]) -> Check:
    version = _version(package.distribution)
    fix = _pip(package.requirement)
    if not _importable(package.module):
        text = f"{version} is installed, but its module {package.module!r} is not found" if version else "not installed"
        if use == SIMULATOR and _importable("isaacsim"):
            fix = f"in a virtual environment of its own, never in Isaac Sim's Python: {fix}"
        if package is TENSORRT:
            text += ": networks run on ONNX Runtime"
        return Check(use, package.distribution, "missing", text, fix)
    problem = next((text for name, text in broken.items() if name.split(".")[0] == package.module.split(".")[0]), None)
    if problem is not None:
        return Check(use, package.distribution, "problem", f"{version}: cannot be imported: {problem}", fix)
    if version is not None and not _fits(version, package.requirement):
        return Check(use, package.distribution, "problem", f"{version}, but {package.requirement} is needed", fix)
    return Check(use, package.distribution, "ok", version or "version unknown")


def _mujoco(broken: dict[str, str]) -> Iterator[Check]:
    for name, module in (("mujoco", "mujoco"), ("mujoco-warp", "mujoco_warp")):
        yield _package(SIMULATOR, Package(name, module), broken)


def _pip(requirement: str) -> str:
    return f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(requirement)}"


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fits(version: str, requirement: str) -> bool:
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return True
    return Requirement(requirement).specifier.contains(version, prereleases=True)


def _rclpy() -> Check:
    from saccade.bridge.selection import why_no_rclpy

    try:
        importlib.import_module("rclpy")
    except Exception as error:  # a half-sourced ROS 2 fails with more than ImportError
        reason = why_no_rclpy(error, os.environ)
        fix = _pip(USES[ROS][0].requirement) if os.environ.get("ROS_DISTRO") else ""
        return Check(ROS, "rclpy", "note", f"{reason}; cyclonedds does without it", fix)
    return Check(ROS, "rclpy", "ok", f"ROS 2 {os.environ.get('ROS_DISTRO') or 'of unknown name'}")


def _socket_buffers() -> Iterator[Check]:
    """Images over DDS need larger socket buffers than most systems allow; looked at on Linux only."""
    try:
        allowed = int(Path("/proc/sys/net/core/rmem_max").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return
    state: State = "ok" if allowed >= SOCKET_BUFFER else "note"
    fix = "" if state == "ok" else f"sysctl -w net.core.rmem_max={SOCKET_BUFFER}"
    yield Check(
        ROS, "socket buffers", state, f"up to {allowed / 2**20:.1f} MB; images want {SOCKET_BUFFER / 2**20:.0f}", fix
    )


def _multicast(root: Path = Path("/sys/class/net")) -> Iterator[Check]:
    """Nodes that are not told of each other find each other by multicast; looked at on Linux only."""
    able: dict[bool, list[str]] = {True: [], False: []}
    for flags in sorted(root.glob("*/flags")):
        try:
            value = int(flags.read_text(encoding="ascii"), 16)
        except (OSError, ValueError):
            continue
        if value & INTERFACE_UP:
            able[bool(value & INTERFACE_MULTICAST)].append(flags.parent.name)
    if not able[True] and not able[False]:
        return
    has = f"on {', '.join(able[True])}" if able[True] else "on no interface"
    text = f"{has}; not on {', '.join(able[False])}" if able[False] else has
    if "lo" in able[False]:
        text += ": on the loopback interface Saccade finds others by unicast, some middlewares do not"
    fix = "ip link set lo multicast on" if "lo" in able[False] else ""
    yield Check(ROS, "multicast", "ok" if not fix and able[True] else "note", text, fix)


def _isaac() -> Check:
    if _importable("isaacsim"):
        return Check(ISAAC, "isaacsim", "ok", f"{_version('isaacsim') or 'bundled'}: this is Isaac Sim's Python")
    return Check(
        ISAAC, "isaacsim", "note", "not this Python: the embedded simulator is used",
        "inside Isaac Sim: add this checkout's exts folder to Window > Extensions, or start with --ext-folder",
    )  # fmt: skip
