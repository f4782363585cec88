"""The best answers that do not look at the photo: what a network has to beat.

Axes: b batch, n landmarks, v vertices.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Array, Float

from m3dhmr_jax.data import loader
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.inference import landmark_errors_px, project_joints
from m3dhmr_jax.metrics.freihand import SampleMetrics, batch_metrics
from m3dhmr_jax.metrics.mean_shape import place_about_root, procrustes_mean
from m3dhmr_jax.types import ROOT, Batch

MEAN_OF = 10_000  # Hands. More do not move the mean mesh by a hundredth of a millimetre.


def mean_hand(verts_m: Float[np.ndarray, "b v 3"], hand: HandModel) -> Float[np.ndarray, "v 3"]:
    """The constant mesh, metres: the Procrustes mean of meshes, placed to fit them best."""
    regressor = hand.joint_regressor[ROOT]
    roots = np.einsum("v,bvc->bc", regressor, verts_m)
    shape = procrustes_mean(verts_m)
    return place_about_root(shape, regressor @ shape, verts_m - roots[:, None])


def constant_error_fn(
    verts_m: Float[np.ndarray, "v 3"], hand: HandModel
) -> Callable[[Batch], SampleMetrics]:
    """Errors of the same mesh for every photo, put at the true root."""
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


def training_labels(data: Path, *names: str) -> list[np.ndarray]:
    """Labels of at most MEAN_OF hands of the training set, evenly spaced."""
    source = loader.open_split(data, "train")
    rows = np.linspace(0, len(source) - 1, min(len(source), MEAN_OF)).astype(int)
    records = [source[int(row)] for row in rows]
    return [np.stack([record[name] for record in records]) for name in names]


def mean_hand_error_fn(data: Path, hand: HandModel) -> Callable[[Batch], SampleMetrics]:
    """Errors of the training set's mean hand."""
    (verts_m,) = training_labels(data, "verts")
    return constant_error_fn(mean_hand(verts_m, hand), hand)


def mean_landmark_error_fn(data: Path) -> Callable[[Batch], Float[Array, "b n"]]:
    """Errors of the places that the training set's landmarks have on average."""
    mean_px = np.mean(project_joints(*training_labels(data, "xyz", "K")), axis=0)
    return lambda batch: landmark_errors_px(np.stack([mean_px] * len(batch.image)), batch)
