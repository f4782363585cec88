"""Constant baselines: predictions that do not depend on the image, which a network has to beat.

The mean-hand baseline is the generalised Procrustes mean of the training meshes, with one rotation
and scale fitted to all of them, placed at the true wrist.
Axes: b batch, n landmarks, v vertices.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float

from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.metrics.freihand import SampleMetrics, batch_metrics
from m3dhmr_jax.metrics.landmarks import landmark_errors_px, project_joints
from m3dhmr_jax.types import ROOT, Batch

PROCRUSTES_ROUNDS = 100  # A dozen are enough for hands.


def mean_hand_error_fn(
    verts_m: Float[np.ndarray, "b v 3"], hand: HandModel
) -> Callable[[Batch], SampleMetrics]:
    """Errors of the mean of these hands, those of a training set."""
    return constant_error_fn(mean_hand(verts_m, hand), hand)


def mean_landmark_error_fn(
    joints_m: Float[np.ndarray, "b n 3"], intrinsics: Float[np.ndarray, "b 3 3"]
) -> Callable[[Batch], Float[Array, "b n"]]:
    """Errors of the mean positions in the image of these landmarks, those of a training set."""
    mean_px = np.mean(project_joints(joints_m, intrinsics), axis=0)
    return lambda batch: landmark_errors_px(np.stack([mean_px] * len(batch.image)), batch)


def constant_error_fn(
    verts_m: Float[np.ndarray, "v 3"], hand: HandModel
) -> Callable[[Batch], SampleMetrics]:
    """Errors of the same root-relative mesh for every image, placed at the true root."""
    joints_m = hand.joint_regressor @ verts_m

    def error_fn(batch: Batch) -> SampleMetrics:
        root_m = batch.joints_m[:, ROOT, None]
        return batch_metrics(
            (joints_m[None] + root_m).astype(np.float32),
            (verts_m[None] + root_m).astype(np.float32),
            batch.joints_m,
            batch.verts_m,
        )

    return error_fn


def mean_hand(verts_m: Float[np.ndarray, "b v 3"], hand: HandModel) -> Float[np.ndarray, "v 3"]:
    """The root-relative mesh of the mean-hand baseline."""
    regressor = hand.joint_regressor[ROOT]
    roots_m = np.einsum("v,bvc->bc", regressor, verts_m)
    shape_m = procrustes_mean(verts_m)
    return fit_about_root(shape_m, regressor @ shape_m, verts_m - roots_m[:, None])


def procrustes_mean(verts_m: Float[np.ndarray, "b v 3"]) -> Float[np.ndarray, "v 3"]:
    """The generalised Procrustes mean of meshes: centred, of their average size.

    Each mesh is centred, scaled to norm 1, aligned to the mean as the scores align (similarity,
    reflections allowed) and weighted by its fitted scale; then the mean is recomputed, until it
    converges. It is oriented like the first mesh.

    Raises:
        ValueError: if there are no meshes, or one without extent.
    """
    if not len(verts_m):
        raise ValueError("no meshes to average: pass at least one")
    unit = verts_m - verts_m.mean(axis=1, keepdims=True)
    sizes = np.sqrt(np.sum(unit**2, axis=(1, 2), dtype=np.float64))
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        bad = np.flatnonzero(~(np.isfinite(sizes) & (sizes > 0)))[0]
        raise ValueError(
            f"mesh {bad} has size {sizes[bad]}: its vertices coincide or are not finite, so it has "
            "no shape to average; leave it out"
        )
    unit /= sizes.astype(unit.dtype)[:, None, None]
    mean = unit[0].astype(np.float64)
    for _ in range(PROCRUSTES_ROUNDS):
        previous = mean
        product = np.tensordot(unit, mean.astype(unit.dtype), axes=(1, 0)).astype(np.float64)
        left, singular, right = np.linalg.svd(product)
        rotations = singular.sum(axis=1)[:, None, None] * (left @ right)
        mean = np.tensordot(unit, rotations.astype(unit.dtype), axes=((0, 2), (0, 1)))
        mean = mean.astype(np.float64) / np.linalg.norm(mean)
        if np.linalg.norm(mean - previous) < 1e-6:
            break
    return (mean * sizes.mean()).astype(verts_m.dtype)


def fit_about_root(
    shape_m: Float[np.ndarray, "v 3"],
    root_m: Float[np.ndarray, "3"],
    verts_rel_m: Float[np.ndarray, "b v 3"],
) -> Float[np.ndarray, "v 3"]:
    """Rotates (never mirrors) and scales a shape about its root to fit root-relative meshes best.

    Best in least squares over all meshes, so this is the strongest constant baseline of the shape;
    it is smaller than a hand if the orientations of the meshes differ widely.
    """
    shape = shape_m.astype(np.float64) - root_m.astype(np.float64)[None]
    target = verts_rel_m.mean(axis=0, dtype=np.float64)
    left, singular, right = np.linalg.svd(shape.T @ target)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = left @ (signs[:, None] * right)
    scale = np.sum(signs * singular) / np.sum(shape**2)
    return (scale * shape @ rotation).astype(shape_m.dtype)
