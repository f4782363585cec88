"""The shape that many meshes have in common, and where it stands for all of them best.

Axes: b meshes, v vertices.
"""

import numpy as np
from jaxtyping import Float

PROCRUSTES_ROUNDS = 100  # A dozen are enough for hands.


def procrustes_mean(verts_m: Float[np.ndarray, "b v 3"]) -> Float[np.ndarray, "v 3"]:
    """The shape that all meshes resemble most: their full generalised Procrustes mean.

    Each mesh is centred, brought to norm 1, turned onto the mean by the alignment of the scores
    (similarity, reflections admitted) and weighted by the scale that fits it best; then the mean
    is made anew, until it stays. Centred, of the meshes' average size, oriented like the first.

    Raises:
        ValueError: if there is no mesh, or one without extent, which is named.
    """
    if not len(verts_m):
        raise ValueError("no mesh to average: pass at least one")
    unit = verts_m - verts_m.mean(axis=1, keepdims=True)
    sizes = np.sqrt(np.sum(unit**2, axis=(1, 2), dtype=np.float64))
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        bad = np.flatnonzero(~(np.isfinite(sizes) & (sizes > 0)))[0]
        raise ValueError(
            f"mesh {bad} has size {sizes[bad]}: all of its vertices in one place or not finite, "
            "such a mesh has no shape to average; leave it out"
        )
    unit /= sizes.astype(unit.dtype)[:, None, None]
    mean = unit[0].astype(np.float64)
    for _ in range(PROCRUSTES_ROUNDS):
        previous = mean
        product = np.tensordot(unit, mean.astype(unit.dtype), axes=(1, 0)).astype(np.float64)
        left, singular, right = np.linalg.svd(product)
        turns = singular.sum(axis=1)[:, None, None] * (left @ right)
        mean = np.tensordot(unit, turns.astype(unit.dtype), axes=((0, 2), (0, 1)))
        mean = mean.astype(np.float64) / np.linalg.norm(mean)
        if np.linalg.norm(mean - previous) < 1e-6:
            break
    return (mean * sizes.mean()).astype(verts_m.dtype)


def place_about_root(
    shape_m: Float[np.ndarray, "v 3"],
    root_m: Float[np.ndarray, "3"],
    verts_rel_m: Float[np.ndarray, "b v 3"],
) -> Float[np.ndarray, "v 3"]:
    """Turns (never mirrors) and scales a shape about its root to fit root-relative meshes best.

    Best is least squares over all meshes, so the answer is the strongest constant guess of this
    shape; it is smaller than a hand where the meshes' orientations differ widely.
    """
    shape = shape_m.astype(np.float64) - root_m.astype(np.float64)[None]
    target = verts_rel_m.mean(axis=0, dtype=np.float64)
    left, singular, right = np.linalg.svd(shape.T @ target)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    turn = left @ (signs[:, None] * right)
    scale = np.sum(signs * singular) / np.sum(shape**2)
    return (scale * shape @ turn).astype(shape_m.dtype)
