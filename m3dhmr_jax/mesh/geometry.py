"""Triangle geometry in NumPy. Axes: f triangles, then corners, then x y z."""

import numpy as np
from jaxtyping import Float


def area_vectors(triangles: Float[np.ndarray, "f 3 3"]) -> Float[np.ndarray, "f 3"]:
    """Normals whose lengths are the areas; outward for counter-clockwise corners."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    return np.cross(b - a, c - a) / 2


def qualities(triangles: Float[np.ndarray, "f 3 3"]) -> Float[np.ndarray, " f"]:
    """Shape quality: 1 for an equilateral triangle, towards 0 for a thin one."""
    sides = triangles - np.roll(triangles, 1, axis=1)
    doubled = 2 * np.linalg.norm(area_vectors(triangles), axis=1)
    return 2 * np.sqrt(3) * doubled / np.maximum((sides**2).sum((1, 2)), np.finfo(float).tiny)


def closest_barycentric(
    point: Float[np.ndarray, "3"], triangles: Float[np.ndarray, "f 3 3"]
) -> Float[np.ndarray, "f 3"]:
    """Barycentric weights (non-negative) of the point of each triangle closest to `point`."""
    inside = _plane_barycentric(point, triangles)
    candidates = np.stack(
        [*(_side_barycentric(point, triangles, side) for side in range(3)), inside]
    )
    points = np.einsum("cfk,fkx->cfx", candidates, triangles)
    distance = np.linalg.norm(points - point, axis=2)
    distance[3, (inside < 0).any(1)] = np.inf
    return candidates[distance.argmin(0), np.arange(len(triangles))]


def _plane_barycentric(point: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Weights of the projection onto each triangle's plane; negative beyond a side."""
    normals = area_vectors(triangles)
    square = np.maximum((normals**2).sum(1), np.finfo(float).tiny)
    to_corners = triangles - point
    opposite = np.cross(to_corners[:, [1, 2, 0]], to_corners[:, [2, 0, 1]]) / 2
    return np.einsum("fkx,fx->fk", opposite, normals) / square[:, None]


def _side_barycentric(point: np.ndarray, triangles: np.ndarray, side: int) -> np.ndarray:
    """Weights of the point of one side closest to `point`."""
    start, end = side, (side + 1) % 3
    edge = triangles[:, end] - triangles[:, start]
    square = np.maximum((edge**2).sum(1), np.finfo(float).tiny)
    fraction = np.clip(((point - triangles[:, start]) * edge).sum(1) / square, 0, 1)
    weights = np.zeros((len(triangles), 3))
    weights[:, start], weights[:, end] = 1 - fraction, fraction
    return weights
