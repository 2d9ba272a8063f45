"""Meshes for authored scenes: boxes, lofts and tubes with smooth normals and texture coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Section = Sequence[float]
"""One cross-section of a loft: z, centre x, centre y, radius x, radius y, exponent (2 = ellipse, 5 = rounded box)."""


@dataclass(frozen=True, slots=True)
class MeshData:
    """A polygon mesh with one normal per point."""

    points: np.ndarray
    """[m], shape ``(n, 3)``."""
    counts: np.ndarray
    """Points per face, int32."""
    indices: np.ndarray
    """int32"""
    normals: np.ndarray
    """Shape ``(n, 3)``."""
    st: np.ndarray | None = None
    """Texture coordinates, shape ``(n, 2)``."""
    double_sided: bool = False


_FACES = (
    # normal, and the two directions along which u and v run
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    ((0, 0, 1), (1, 0, 0), (0, 1, 0)),
    ((0, 0, -1), (-1, 0, 0), (0, 1, 0)),
)


def boxes_mesh(boxes: Sequence[tuple[Sequence[float], Sequence[float]]], *, tile: float | None = None) -> MeshData:
    """Returns boxes as one mesh.

    Args:
        boxes: Size and centre of each [m].
        tile: Length that one repeat of the texture covers [m]; ``None`` puts the whole texture on every face.
    """
    points, normals, st = [], [], []
    for size, center in boxes:
        half = np.asarray(size, dtype=float) / 2
        for normal, along_u, along_v in _FACES:
            n, u, v = (np.asarray(a, dtype=float) for a in (normal, along_u, along_v))
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                points.append(np.asarray(center, dtype=float) + (n + a * u + b * v) * half)
                normals.append(n)
                if tile is None:
                    st.append(((a + 1) / 2, (b + 1) / 2))
                else:
                    st.append(((a + 1) * abs(half @ u) / tile, (b + 1) * abs(half @ v) / tile))
    count = len(points)
    return MeshData(
        np.array(points),
        np.full(count // 4, 4, dtype=np.int32),
        np.arange(count, dtype=np.int32),
        np.array(normals, dtype=float),
        np.array(st, dtype=float),
    )


def quad_mesh(width: float, depth: float, *, tile: float | None = None) -> MeshData:
    """Returns a horizontal rectangle around the origin that faces up."""
    x, y = width / 2, depth / 2
    u, v = (1.0, 1.0) if tile is None else (width / tile, depth / tile)
    return MeshData(
        np.array([(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0)], dtype=float),
        np.array([4], dtype=np.int32),
        np.arange(4, dtype=np.int32),
        np.tile([0.0, 0.0, 1.0], (4, 1)),
        np.array([(0, 0), (u, 0), (u, v), (0, v)], dtype=float),
    )


def strips_mesh(strips: Sequence[tuple[tuple[float, float], tuple[float, float]]], *, height: float) -> MeshData:
    """Returns horizontal rectangles at one height as one mesh; size and centre of each [m]."""
    points = [
        (x + a * width / 2, y + b * depth / 2, height)
        for (width, depth), (x, y) in strips
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    count = len(points)
    return MeshData(
        np.array(points, dtype=float),
        np.full(count // 4, 4, dtype=np.int32),
        np.arange(count, dtype=np.int32),
        np.tile([0.0, 0.0, 1.0], (count, 1)),
    )


def loft_mesh(sections: Sequence[Section], *, segments: int = 16, start: float = 0.0, end: float = 360.0) -> MeshData:
    """Returns a closed skin over cross-sections, or an open part of it.

    Args:
        sections: From the lowest to the highest.
        segments: Points around.
        start: Where around the skin begins [degrees], 0 = +x, counter-clockwise.
        end: Where it ends [degrees]; a full turn is capped at both ends.
    """
    whole = end - start >= 360.0
    columns = segments + 1
    angles = np.radians(np.linspace(start, end, columns))
    rows = []
    for z, cx, cy, rx, ry, exponent in sections:
        cos, sin = np.cos(angles), np.sin(angles)
        power = 2.0 / exponent
        x = cx + rx * np.sign(cos) * np.abs(cos) ** power
        y = cy + ry * np.sign(sin) * np.abs(sin) ** power
        rows.append(np.stack([x, y, np.full(columns, float(z))], axis=1))
    points = np.concatenate(rows)
    heights = np.array([section[0] for section in sections], dtype=float)
    spread = max(float(np.ptp(heights)), 1e-9)
    u = np.tile(np.linspace(0.0, 1.0, columns), len(sections))
    v = np.repeat((heights - heights.min()) / spread, columns)
    faces: list[tuple[int, ...]] = []
    for row in range(len(sections) - 1):
        for column in range(segments):
            a = row * columns + column
            faces.append((a, a + 1, a + 1 + columns, a + columns))
    if whole:
        low, high = len(points), len(points) + 1
        ends = [[s[1], s[2], s[0]] for s in (sections[0], sections[-1])]
        points = np.concatenate([points, ends])
        u, v = np.append(u, (0.5, 0.5)), np.append(v, (0.0, 1.0))
        top = (len(sections) - 1) * columns
        for column in range(segments):
            faces.append((low, column + 1, column))
            faces.append((high, top + column, top + column + 1))
    normals = _smooth_normals(points, faces)
    if whole:
        for row in range(len(sections)):
            # The seam's two columns are the same points.
            first, last = row * columns, row * columns + segments
            both = normals[first] + normals[last]
            normals[first] = normals[last] = both / max(float(np.linalg.norm(both)), 1e-9)
    return MeshData(
        points,
        np.array([len(face) for face in faces], dtype=np.int32),
        np.array([index for face in faces for index in face], dtype=np.int32),
        normals,
        np.stack([u, v], axis=1),
        double_sided=not whole,
    )


def rounded_sections(
    z0: float,
    z1: float,
    profile: Sequence[tuple[float, float, float]],
    *,
    exponent: float = 2.6,
    rim: float = 0.02,
    x: float = 0.0,
) -> list[Section]:
    """Returns sections between two heights whose ends are rounded off.

    Args:
        z0: Lower end [m].
        z1: Upper end [m].
        profile: (share of the height, radius x, radius y) from the lower to the upper end.
        exponent: Shape of the cross-section.
        rim: Radius of the rounding at both ends [m].
        x: Centre of all sections [m].
    """
    rim = min(rim, (z1 - z0) / 3)
    sections: list[Section] = []
    _, rx, ry = profile[0]
    for angle in (90.0, 60.0, 30.0):
        inset, drop = rim * (1 - math.cos(math.radians(angle))), rim * (1 - math.sin(math.radians(angle)))
        sections.append((z0 + drop, x, 0.0, max(rx - inset, 1e-3), max(ry - inset, 1e-3), exponent))
    for share, px, py in profile:
        z = z0 + rim + share * (z1 - z0 - 2 * rim)
        sections.append((z, x, 0.0, px, py, exponent))
    _, rx, ry = profile[-1]
    for angle in (30.0, 60.0, 90.0):
        inset, drop = rim * (1 - math.cos(math.radians(angle))), rim * (1 - math.sin(math.radians(angle)))
        sections.append((z1 - drop, x, 0.0, max(rx - inset, 1e-3), max(ry - inset, 1e-3), exponent))
    return sections


def ellipsoid_mesh(
    rx: float, ry: float, rz: float, *, segments: int = 14, rings: int = 9, lowest: float = -1.0
) -> MeshData:
    """Returns an ellipsoid around the origin, cut off below ``lowest`` times its height."""
    sections = []
    for k in range(rings):
        angle = -math.pi / 2 + math.pi * k / (rings - 1)
        height = math.sin(angle)
        if height < lowest:
            continue
        radius = max(math.cos(angle), 1e-3)
        sections.append((rz * height, 0.0, 0.0, rx * radius, ry * radius, 2.0))
    return loft_mesh(sections, segments=segments)


def _smooth_normals(points: np.ndarray, faces: list[tuple[int, ...]]) -> np.ndarray:
    """Returns the area-weighted mean normal of the faces around each point."""
    normals = np.zeros_like(points)
    for face in faces:
        corners = points[list(face)]
        area = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        if len(face) == 4:
            area = area + np.cross(corners[2] - corners[0], corners[3] - corners[0])
        for index in face:
            normals[index] += area
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    fallback = np.tile([0.0, 0.0, 1.0], (len(points), 1))
    return np.where(length > 1e-12, normals / np.maximum(length, 1e-12), fallback)
