"""What this Python lacks for Saccade inside Isaac Sim, and the command that installs it; installs nothing itself."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from saccade.doctor import BASE, USES, Package
from saccade.panel.view import LogLine

KITS_OWN = ("numpy", "warp")
"""Modules that Kit brings and that nothing may replace."""

OPTIONAL = (
    (Package("nvidia-ml-py>=12", "pynvml"), "the GPU's memory and load are not shown"),
    (Package("cuda-bindings>=12.6", "cuda.bindings"), "what crosses PCIe is not proven from the captured graph"),
    (
        Package("pycuda>=2024.1", "pycuda"),
        "streams, events and pinned memory are Warp's own, which does as well; PyCUDA is built on installation and "
        "needs the CUDA toolkit's headers",
    ),
)
TENSORRT = Package("tensorrt-cu12", "tensorrt")
"""Built for CUDA 12, as Isaac Sim 5.0 to 6.2 are."""


def is_there(module: str) -> bool:
    """Tells whether a module can be imported, without importing it."""
    if module in sys.modules:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a parent is missing, or is no package
        return False


def python_command(
    *, executable: str = sys.executable, prefix: str = sys.prefix, environment: Mapping[str, str] = os.environ
) -> str:
    """Returns how a user starts this Python: Isaac Sim's ``python.sh`` where there is one, else the interpreter.

    Args:
        executable: Running program; inside Isaac Sim's window it is ``kit``, which is no Python.
        prefix: Folder of the running Python, ``<Isaac Sim>/kit/python``.
        environment: ``ISAAC_PATH`` is set by Isaac Sim's own scripts.
    """
    roots = [Path(environment["ISAAC_PATH"])] if environment.get("ISAAC_PATH") else []
    roots += list(Path(prefix).parents)[:3]
    name = "python.bat" if sys.platform == "win32" else "python.sh"
    for root in roots:
        if (root / name).is_file():
            return str(root / name)
    if Path(executable).name.startswith("python"):
        return executable
    return name


def missing_lines(
    have: Callable[[str], bool] = is_there, *, python: str | None = None, numpy_version: str | None = None
) -> tuple[LogLine, ...]:
    """Returns what is missing, most important first, each with the command that installs it.

    Args:
        have: Tells whether a module is there.
        python: How this Python is started; ``None`` finds out.
        numpy_version: Kit's own; named in every command, so that pip refuses rather than replaces it.

    Returns:
        An ``error`` where no run can start, ``warning`` for TensorRT, ``info`` for what is optional.
    """
    install = f"{python or python_command()} -m pip install"
    pin = f' "numpy=={numpy_version}"' if numpy_version else ""
    lines = []
    lacking = [module for module in KITS_OWN if not have(module)]
    if lacking:
        text = (
            f"Kit's own {' and '.join(lacking)} cannot be imported: enable omni.warp.core, and do not install them here"
        )
        lines.append(LogLine("", "error", text))
    needed = [package for package in USES[BASE] if package.module not in KITS_OWN and not have(package.module)]
    if needed:
        names = ", ".join(package.distribution for package in needed)
        wanted = " ".join(f'"{package.requirement}"' for package in needed)
        lines.append(LogLine("", "error", f"this Python lacks {names}: no run can start", f"{install} {wanted}{pin}"))
    if not have(TENSORRT.module):
        text = "TensorRT is not installed: networks run on the CPU, and every frame is copied to it"
        lines.append(LogLine("", "warning", text, f"{install} {TENSORRT.requirement}{pin}"))
    for package, consequence in OPTIONAL:
        if not have(package.module):
            text = f"{package.distribution} is not installed (optional): {consequence}"
            lines.append(LogLine("", "info", text, f'{install} "{package.requirement}"{pin}'))
    return tuple(lines)


def can_run(lines: tuple[LogLine, ...]) -> bool:
    """Tells whether runs can start with what is there."""
    return not any(line.level == "error" for line in lines)
