"""Where files are looked for: scenes, configurations, models and recordings; checkout, installation and caches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from saccade.errors import ConfigurationError, ModelError, RecordError, SaccadeError, SceneError

Kind = Literal["scene", "configuration", "model", "recording"]

PACKAGE = Path(__file__).resolve().parent
"""The folder of the package itself."""

MODELS = PACKAGE / "models"
"""The networks that come with Saccade; they lie beside the code that trains them."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "scene": (".usda", ".usd", ".usdc", ".usdz"),
    "configuration": (".yaml", ".yml"),
    "model": (".onnx",),
    "recording": (),
}
_BAGS = (".mcap", ".db3", ".zstd")
_ERRORS: dict[Kind, type[SaccadeError]] = {
    "scene": SceneError,
    "configuration": ConfigurationError,
    "model": ModelError,
    "recording": RecordError,
}


def checkout_root() -> Path | None:
    """Returns the root of the checkout that the package is imported from, ``None`` for an installed package."""
    root = PACKAGE.parent.parent.parent
    return root if (root / "pyproject.toml").is_file() and (root / "exts" / "saccade" / "saccade") == PACKAGE else None


def shipped(kind: Kind) -> Path | None:
    """Returns the folder with what comes with Saccade, from the checkout or the installation; ``None`` if absent."""
    if kind == "model":
        return MODELS
    if kind == "recording":
        return None
    name = "scenes" if kind == "scene" else "config"
    root = checkout_root()
    for folder in ((root / name,) if root else ()) + (PACKAGE / "share" / name,):
        if folder.is_dir():
            return folder
    return None


def is_url(path: str) -> bool:
    """Tells whether ``path`` is a URL such as ``omniverse://...``, which only Isaac Sim can open."""
    return bool(_URL.match(path))


def resolve(path: str | Path, kind: Kind, *, beside: Sequence[Path] = (), field: str = "") -> Path:
    """Returns the absolute path of an existing file, or of a file or folder for recordings.

    A relative path is tried below each folder of ``beside`` (the configuration file's, as a rule), the working
    folder, the checkout's root and what comes with Saccade, in that order; the first that exists is taken.

    Args:
        path: As the user wrote it; ``~`` is the home folder.
        kind: What is looked for.
        beside: Folders that come first.
        field: Configuration field that named the path, for the message.

    Raises:
        SaccadeError: Nothing is there; the class fits ``kind`` and the text lists where it was looked for and what
            exists there.
    """
    text = str(path)
    looked: list[Path] = []
    for candidate in candidates(text, kind, beside=beside):
        if candidate in looked:
            continue
        looked.append(candidate)
        try:
            found = _is_recording(candidate) if kind == "recording" else candidate.is_file()
        except (OSError, ValueError):  # a name too long or with a null byte is no file
            continue
        if found:
            return candidate
    raise _ERRORS[kind](_not_found(text, kind, looked, field))


def candidates(text: str, kind: Kind, *, beside: Sequence[Path] = ()) -> Iterator[Path]:
    """Yields the absolute paths that ``text`` may mean, in the order in which they are tried."""
    if not text:
        return
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # a user that does not exist
        path = Path(text)
    if path.is_absolute():
        yield path
        return
    folders = [*beside, Path.cwd()]
    root = checkout_root()
    if root is not None:
        folders.append(root)
    at_home = shipped(kind)
    if at_home is not None:
        # `scenes/warehouse.usda` and `warehouse.usda` both mean the shipped scene
        folders += [at_home.parent, at_home]
    for folder in folders:
        yield Path(os.path.abspath(folder / path))


def listing(kind: Kind, folder: Path | None = None) -> list[Path]:
    """Returns the files of a kind in ``folder`` (default: those that come with Saccade), sorted by name."""
    folder = folder or shipped(kind)
    if folder is None:
        return []
    try:
        return sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES[kind] and file.is_file())
    except (OSError, ValueError):
        return []


def display(path: Path | str) -> str:
    """Returns ``path`` as a reader wants it: relative to the working folder where it lies below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def cache_folder() -> Path:
    """Returns the folder for what can be made again: ``$SACCADE_CACHE``, else the user's cache folder."""
    own = os.environ.get("SACCADE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saccade"


def _not_found(text: str, kind: Kind, looked: Sequence[Path], field: str) -> str:
    what = {"scene": "scene", "configuration": "configuration", "model": "network", "recording": "recorded run"}[kind]
    head = f"{field}: " if field else ""
    if is_url(text):
        return f"{head}{text!r} is a URL: only Isaac Sim opens those (--simulator isaac). Give a local file."
    if not looked:
        return f"{head}the path of the {what} is empty"
    lines = [f"{head}there is no {what} {text!r}. Looked for:"]
    lines += [f"  {candidate}" for candidate in looked]
    seen: list[Path] = []
    for candidate in looked:
        folder = candidate.parent
        if folder in seen:
            continue
        seen.append(folder)
        if kind == "recording":
            names = _recordings(folder)
        else:
            names = [file.name for file in listing(kind, folder)]
        if names:
            more = ", ..." if len(names) > 12 else ""
            lines.append(f"In {folder} there is: {', '.join(names[:12])}{more}")
    if kind == "recording":
        lines.append(
            "Record a run that can be replayed with: saccade validate --set record.sensors=true (or record.bag=true)"
        )
    elif kind == "model" and not listing("model"):
        lines.append(f"Train the shipped networks with: saccade train camera --out {MODELS} (and lidar)")
    elif kind == "scene" and not listing("scene"):
        lines.append("Make the shipped scenes with: saccade scenes make")
    return "\n".join(lines)


def _is_recording(path: Path) -> bool:
    return path.is_dir() or (path.suffix in _BAGS and path.is_file())


def _recordings(folder: Path) -> list[str]:
    try:
        return sorted(run.name for run in folder.iterdir() if (run / "sensors").is_dir() and not run.is_symlink())
    except (OSError, ValueError):
        return []
