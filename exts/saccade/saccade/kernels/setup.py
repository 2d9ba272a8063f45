"""Warp's global settings, made in one place before the first kernel: cache folder, no gradients, quiet log."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from saccade import paths


@dataclass(frozen=True, slots=True)
class KernelCache:
    """Where compiled kernels are kept."""

    folder: Path
    cold: bool
    """Whether it held no kernel when it was prepared, so that the first start compiles for a while."""


_prepared: KernelCache | None = None


def prepare_warp() -> KernelCache:
    """Sets up Warp for this process; later calls return what the first one did.

    Must run before the first Warp array, kernel launch or ``import newton``. Inside Isaac Sim nobody calls it: there
    Warp belongs to Kit.

    Returns:
        The kernel cache folder and whether it is cold.
    """
    global _prepared  # noqa: PLW0603 (Warp's settings are per process, and so is this)
    if _prepared is not None:
        return _prepared
    import warp as wp

    base = cache_folder("kernels")
    wp.config.kernel_cache_dir = str(base)
    # Gradients are never needed, and without them kernels compile in half the time.
    wp.config.enable_backward = False
    if hasattr(wp.config, "log_level"):
        wp.config.log_level = wp.LOG_WARNING
    else:
        wp.config.quiet = True
    wp.init()
    # Newer Warps add their version to the folder, older ones and one that was initialized before do not.
    folder = base / str(wp.config.version)
    folder.mkdir(exist_ok=True, mode=0o700)
    wp.config.kernel_cache_dir = str(folder)
    cold = not any(folder.glob("wp_*"))
    _prepared = KernelCache(folder, cold)
    return _prepared


def cache_folder(*parts: str) -> Path:
    """Returns a writable, owner-only folder below the user's cache, or a temporary one where that fails.

    Args:
        parts: Path below the cache folder.
    """
    folder = paths.cache_folder().joinpath(*parts)
    if _is_writable(folder):
        return folder
    # Compiled kernels are code: a folder under a predictable name in a shared place could hold somebody else's.
    return Path(tempfile.mkdtemp(prefix="saccade-"))


def _is_writable(folder: Path) -> bool:
    """Creates ``folder`` if need be and says whether files can be made in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
