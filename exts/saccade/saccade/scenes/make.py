"""Makes the scenes that are shipped, or random ones: what ``saccade scenes make`` and the script call."""

from __future__ import annotations

from pathlib import Path


def make_scenes(folder: Path, *, layout: str = "all", seed: int = 0) -> list[Path]:
    """Writes scenes and their textures into a folder; the same layout and seed give the same bytes.

    Args:
        folder: Where to write; made when it is not there.
        layout: ``"all"`` (humanoid, warehouse, corridor and bench), ``"warehouse"``, ``"corridor"`` or ``"random"``.
        seed: Layout, colours, light and people. A random scene has its seed in its name.

    Returns:
        The scene files.

    Raises:
        SceneError: The folder cannot be written.
    """
    from saccade.errors import DependencyError, SceneError

    try:
        from saccade.scenes.author_humanoid import author_humanoid
        from saccade.scenes.author_scene import author_bench, author_scene
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("saccade"):
            raise
        raise DependencyError(f"making scenes needs {error.name}: pip install 'saccade[sim]'") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if layout == "random":
            return [author_scene(folder / f"random_{seed}.usda", layout="random", seed=seed)]
        names = ("warehouse", "corridor") if layout == "all" else (layout,)
        paths = [author_humanoid(folder / "humanoid.usda")]
        paths += [author_scene(folder / f"{name}.usda", layout=name, seed=seed) for name in names]  # type: ignore[arg-type]
        if layout == "all":
            paths.append(author_bench(folder / "bench.usda"))
    except OSError as error:
        raise SceneError(f"{error.filename or folder}: cannot write: {error.strerror}; give another folder") from error
    return paths
