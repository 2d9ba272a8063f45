"""Procedural textures: concrete, brick, plaster, cardboard, wood, hazard stripes, checker, doors and panels.

A texture is named after what it shows, so the same name always holds the same picture and is drawn once per folder.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

Color = tuple[float, float, float]

LEVELS = 24
"""Brightness levels of the grain: few enough for small files, more than enough for an eye."""


def texture(
    folder: Path, kind: str, color: Color, *, second: Color | None = None, seed: int = 0, size: int = 256
) -> str:
    """Draws a texture unless it is there already.

    Args:
        folder: Folder of the scene; the picture goes into ``textures`` below it.
        kind: One of :data:`KINDS`.
        color: Main colour, sRGB 0..1.
        second: Other colour; ``None`` = the kind's own.
        seed: Seed of the grain.
        size: Width and height [pixels].

    Returns:
        Path of the picture relative to the scene.
    """
    key = f"{kind}|{[round(c, 3) for c in color]}|{second and [round(c, 3) for c in second]}|{seed}|{size}"
    name = f"{kind}_{hashlib.sha256(key.encode()).hexdigest()[:8]}.png"
    target = folder / "textures" / name
    if not target.exists():
        rng = np.random.default_rng([seed, zlib.crc32(kind.encode())])
        image = KINDS[kind](size, np.array(color), None if second is None else np.array(second), rng)
        _write(target, image)
    return f"./textures/{name}"


def _write(target: Path, image: np.ndarray) -> None:
    from PIL import Image

    levels = np.round(np.clip(image, 0, 1) * (LEVELS * 2)) / (LEVELS * 2)
    buffer = io.BytesIO()
    Image.fromarray((levels * 255).round().astype(np.uint8), "RGB").save(
        buffer, "PNG", optimize=False, compress_level=9
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".texture-", suffix=".png", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(buffer.getvalue())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _noise(size: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Returns smooth noise that tiles, about -1..1, shape ``(size, size)``."""
    grid = rng.random((cells, cells)) * 2 - 1
    grid = np.pad(grid, ((0, 1), (0, 1)), mode="wrap")
    at = np.arange(size) * cells / size
    low = at.astype(int)
    share = at - low
    share = share * share * (3 - 2 * share)
    rows = grid[low] * (1 - share)[:, None] + grid[low + 1] * share[:, None]
    return rows[:, low] * (1 - share)[None] + rows[:, low + 1] * share[None]


def _filled(size: int, color: np.ndarray, shade: np.ndarray) -> np.ndarray:
    return color[None, None] * (1 + shade[..., None])


def _concrete(size: int, color: np.ndarray, second: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    shade = 0.07 * _noise(size, 4, rng) + 0.05 * _noise(size, 12, rng) + 0.04 * _noise(size, size // 3, rng)
    image = _filled(size, color, shade)
    joint = max(size // 128, 1)
    image[:joint] *= 0.72
    image[:, :joint] *= 0.72
    return image


def _checker(size: int, color: np.ndarray, second: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    other = color * 0.72 if second is None else second
    y, x = np.mgrid[:size, :size] * 4 // size
    image = np.where(((x + y) % 2)[..., None] == 0, color, other) * (1 + 0.05 * _noise(size, 24, rng)[..., None])
    edge = np.arange(size) % (size // 4) == 0
    image[edge] *= 0.8
    image[:, edge] *= 0.8
    return image


def _brick(size: int, color: np.ndarray, second: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    mortar = np.array((0.72, 0.7, 0.66)) if second is None else second
    rows, columns = 8, 4
    height, width = size // rows, size // columns
    image = np.empty((size, size, 3))
    y, x = np.mgrid[:size, :size]
    row = y // height
    shifted = (x + (row % 2) * (width // 2)) % size
    column = shifted // width
    tint = 1 + 0.16 * (rng.random((rows, columns)) * 2 - 1)
    image[:] = color * tint[row, column][..., None]
    gap = max(size // 86, 2)
    image[(y % height < gap) | (shifted % width < gap)] = mortar
    return image * (1 + 0.05 * _noise(size, size // 4, rng)[..., None])


def _blocks(size: int, color: np.ndarray, second: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Painted concrete blocks."""
    y, x = np.mgrid[:size, :size]
    height, width = size // 4, size // 2
    shifted = (x + (y // height % 2) * (width // 2)) % size
    image = _filled(size, color, 0.03 * _noise(size, 8, rng) + 0.02 * _noise(size, size // 3, rng))
    image[(y % height < 2) | (shifted % width < 2)] *= 0.82
    return image


def _plaster(size: int, color: np.ndarray, second: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Painted wall with a dado of another colour below."""
    image = _filled(size, color, 0.03 * _noise(size, 6, rng) + 0.02 * _noise(size, size // 3, rng))
    if second is not None:
        image[int(size * 0.68) :] = _filled(size, second, 0.03 * _noise(size, 6, rng))[int(size * 0.68) :]
    return image


def _metal(size: int, color: np.ndarray, second: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Corrugated sheet."""
    wave = np.sin(np.arange(size) * 2 * np.pi * 8 / size)
    return _filled(size, color, 0.13 * wave[None, :] + 0.03 * _noise(size, 8, rng))


def _cardboard(size: int, color: np.ndarray, second: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    grain = 0.025 * np.repeat(_noise(size, size // 2, rng)[:1], size, axis=0)
    image = _filled(size, color, grain + 0.05 * _noise(size, 5, rng))
    tape = slice(int(size * 0.45), int(size * 0.55))
    image[:, tape] = image[:, tape] * 0.6 + np.array((0.86, 0.78, 0.6)) * 0.4
    edge = max(size // 42, 2)
    for border in (np.s_[:edge], np.s_[-edge:], np.s_[:, :edge], np.s_[:, -edge:]):
        image[border] *= 0.84
    left, top = int(size * (0.1 + 0.05 * rng.random())), int(size * 0.58)
    image[top : top + size // 4, left : left + size // 4] = (0.93, 0.93, 0.9)
    bars = rng.random(size // 4 - 12) < 0.5
    bars = np.repeat(bars[::2], 2)[: size // 4 - 12]
    image[top + 8 : top + size // 6, left + 6 : left + 6 + len(bars)][:, bars] = (0.1, 0.1, 0.1)
    if second is not None:
        image[int(size * 0.12) : int(size * 0.3), int(size * 0.62) : int(size * 0.92)] = second
    return image


def _wood(size: int, color: np.ndarray, second: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    warp = _noise(size, 4, rng)
    rings = np.sin((y * 14 + 0.5 * warp + 0.15 * np.sin(x * 2 * np.pi)) * 2 * np.pi)
    image = _filled(size, color, 0.1 * rings + 0.06 * _noise(size, 32, rng))
    boards = (np.arange(size) % (size // 4)) < max(size // 128, 1)
    image[boards] *= 0.55
    return image


def _hazard(size: int, color: np.ndarray, second: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    dark = np.array((0.08, 0.08, 0.08)) if second is None else second
    y, x = np.mgrid[:size, :size] / size
    stripe = ((x + y) * 4) % 1.0 < 0.5
    return np.where(stripe[..., None], color, dark) * (1 + 0.04 * _noise(size, 16, rng)[..., None])


def _door(size: int, color: np.ndarray, second: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    image = _filled(size, color, 0.02 * _noise(size, 8, rng))
    edge = size // 24
    for border in (np.s_[:edge], np.s_[-edge:], np.s_[:, :edge], np.s_[:, -edge:]):
        image[border] *= 0.7
    image[size // 6 : size // 2, size // 3 : size - size // 3] = (0.62, 0.74, 0.8) if second is None else second
    image[int(size * 0.54) : int(size * 0.57), int(size * 0.78) : int(size * 0.9)] = (0.8, 0.8, 0.82)
    return image


def _shutter(size: int, color: np.ndarray, second: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Rolling door of horizontal slats."""
    wave = np.abs(np.sin(np.arange(size) * np.pi * 12 / size))
    image = _filled(size, color, (0.16 * wave - 0.1)[:, None] + 0.02 * _noise(size, 8, rng))
    image[int(size * 0.93) :] = (0.15, 0.15, 0.15)
    return image


def _panel(size: int, color: np.ndarray, second: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """A robot's chest panel: dark glass with a stripe, status lights and a grille."""
    image = np.tile(color, (size, size, 1)).astype(float)
    accent = np.array((0.1, 0.75, 0.85)) if second is None else second
    image[int(size * 0.16) : int(size * 0.22), int(size * 0.15) : int(size * 0.85)] = accent
    for k in range(4):
        at = int(size * (0.2 + 0.18 * k))
        image[int(size * 0.36) : int(size * 0.44), at : at + size // 12] = accent if k < 3 else (0.9, 0.35, 0.1)
    for k in range(6):
        at = int(size * (0.56 + 0.06 * k))
        image[at : at + size // 50 + 1, int(size * 0.2) : int(size * 0.8)] = color * 0.3
    return image


KINDS: dict[str, Callable[[int, np.ndarray, np.ndarray | None, np.random.Generator], np.ndarray]] = {
    "concrete": _concrete,
    "checker": _checker,
    "brick": _brick,
    "blocks": _blocks,
    "plaster": _plaster,
    "metal": _metal,
    "cardboard": _cardboard,
    "wood": _wood,
    "hazard": _hazard,
    "door": _door,
    "shutter": _shutter,
    "panel": _panel,
}
"""Kinds of textures."""
