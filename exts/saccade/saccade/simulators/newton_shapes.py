"""Bounding boxes of a Newton model's shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import newton


class ShapeBoxes:
    """Bounding boxes of a model's shapes in their own frames, and their poses in the initial state."""

    def __init__(self, model: newton.Model):
        import newton

        geo = newton.GeoType
        count = model.shape_count
        kinds, scales = model.shape_type.numpy(), model.shape_scale.numpy()
        self.low, self.high = np.zeros((count, 3)), np.zeros((count, 3))
        self.infinite = np.zeros(count, dtype=bool)
        for i in range(count):
            kind, scale = int(kinds[i]), scales[i].astype(float)
            source = model.shape_source[i]
            if source is not None and hasattr(source, "vertices"):
                points = np.asarray(source.vertices, dtype=float).reshape(-1, 3) * scale
                self.low[i], self.high[i] = points.min(axis=0), points.max(axis=0)
                continue
            if kind == int(geo.SPHERE):
                half = np.full(3, scale[0])
            elif kind == int(geo.CAPSULE):
                half = np.array([scale[0], scale[0], scale[1] + scale[0]])
            elif kind in (int(geo.CYLINDER), int(geo.CONE)):
                half = np.array([scale[0], scale[0], scale[1]])
            elif kind == int(geo.PLANE):
                half = np.array([scale[0] or 1e3, scale[1] or 1e3, 0.0])
                self.infinite[i] = not (scale[0] and scale[1])
            else:
                half = scale
            self.low[i], self.high[i] = -half, half
        self.body = model.shape_body.numpy()
        self.local = model.shape_transform.numpy().reshape(-1, 7)

    def corners(self, shape: int, body_q: np.ndarray) -> np.ndarray:
        """Returns the corners of a shape's box in the world [m], shape ``(8, 3)``."""
        low, high = self.low[shape], self.high[shape]
        corners = np.array([[(low, high)[(k >> a) & 1][a] for a in range(3)] for k in range(8)])
        corners = transformed(self.local[shape], corners)
        body = self.body[shape]
        return corners if body < 0 else transformed(body_q[body], corners)


def transformed(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns points moved by a pose: position, quaternion x, y, z, w."""
    x, y, z, w = (float(v) for v in pose[3:7])
    matrix = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return points @ matrix.T + np.asarray(pose[:3], dtype=float)
