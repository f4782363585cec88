"""Loss terms: named, unweighted, pure. The weights belong to whoever trains.

Vertices are in units of MESH_UNIT_M and relative to the root, landmarks are fractions of the crop
side. An `..._errors` function answers one error per element, so that `mean_over` can average over
whatever is valid; `two_view_terms` makes all terms of the paper from two views.
Axes: b batch, v vertices, f faces, n landmarks, h w heatmap, k and c any two axes of errors.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from m3dhmr_jax.camera import pinhole
from m3dhmr_jax.math3d import safe_sqrt, safe_unit
from m3dhmr_jax.models.gather import take_rows
from m3dhmr_jax.types import FloatArray, LandmarkPrediction, Prediction, View

SHORTEST_EDGE = 1e-4  # 0.02 mm. The direction of a shorter edge fades out, so its slope is bounded.


def l1_errors(
    pred: Float[FloatArray, "b k c"], target: Float[FloatArray, "b k c"]
) -> Float[Array, "b k c"]:
    """Absolute differences: of vertices the mesh term, of landmarks the 2D pose term."""
    return jnp.abs(jnp.subtract(pred, target))


def _sides(
    verts: Float[FloatArray, "b v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[Array, "b f 3 3"]:
    corners = take_rows(jnp.asarray(verts), faces)
    return corners - jnp.roll(corners, 1, axis=2)


def _unit(vectors: Float[Array, "*k 3"]) -> Float[Array, "*k 3"]:
    return safe_unit(vectors, SHORTEST_EDGE)


def face_normals(
    verts: Float[FloatArray, "b v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[Array, "b f 3"]:
    """Unit normals, outward for faces counter-clockwise from outside; 0 for a collapsed face."""
    sides = _sides(verts, faces)
    # Both sides are made unit first: a product of raw sides is too small for a floor on lengths.
    return _unit(jnp.cross(_unit(sides[:, :, 1]), _unit(sides[:, :, 2])))


def normal_errors(
    pred: Float[FloatArray, "b v 3"],
    target: Float[FloatArray, "b v 3"],
    faces: Int[np.ndarray, "f 3"],
) -> Float[Array, "b f 3"]:
    """|predicted edge direction . true face normal| for the three edges of each face."""
    normals = jax.lax.stop_gradient(face_normals(target, faces))
    return jnp.abs(jnp.sum(_unit(_sides(pred, faces)) * normals[:, :, None], axis=-1))


def edge_lengths(
    verts: Float[FloatArray, "b v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[Array, "b f 3"]:
    """Lengths of the three edges of each face; an inner edge stands there twice."""
    return safe_sqrt(jnp.sum(_sides(verts, faces) ** 2, axis=-1))


def edge_errors(
    pred: Float[FloatArray, "b v 3"],
    target: Float[FloatArray, "b v 3"],
    faces: Int[np.ndarray, "f 3"],
) -> Float[Array, "b f 3"]:
    """Absolute differences of edge lengths."""
    return jnp.abs(edge_lengths(pred, faces) - edge_lengths(target, faces))


def con3d_errors(
    verts1: Float[FloatArray, "b v 3"],
    verts2: Float[FloatArray, "b v 3"],
    rotation_rad: Float[FloatArray, " b"],
) -> Float[Array, "b v 3"]:
    """Differences of two views' meshes once view one is turned by `rotation_rad`, angle 2 - angle 1."""
    return jnp.abs(jax.vmap(pinhole.rotate_about_optical_axis)(verts1, rotation_rad) - verts2)


def con2d_errors(
    landmarks1_01: Float[FloatArray, "b n 2"],
    landmarks2_01: Float[FloatArray, "b n 2"],
    img_from_crop1: Float[FloatArray, "b 2 3"],
    img_from_crop2: Float[FloatArray, "b 2 3"],
    crop_px: int,
) -> Float[Array, "b n 2"]:
    """Differences of two views' landmarks in the photo, in crop sides (`crop_px` pixels)."""
    in_photo = jax.vmap(pinhole.apply_affine)
    first_px = in_photo(landmarks1_01 * crop_px, img_from_crop1)
    return jnp.abs(first_px - in_photo(landmarks2_01 * crop_px, img_from_crop2)) / crop_px


def mean_over(
    errors: Float[Array, "b k c"], valid: Bool[FloatArray, "#b #k #c"]
) -> Float[Array, ""]:
    """Average over the valid elements, divided by their number; 0 if there are none."""
    everywhere = jnp.broadcast_to(valid, errors.shape)
    total_error = jnp.sum(jnp.where(everywhere, errors, 0))  # `where`, as NaN times 0 is NaN.
    return total_error / jnp.maximum(jnp.sum(everywhere), 1)


def only_valid(preds: Any, valid: Bool[FloatArray, " b"], dtype: DTypeLike) -> Any:
    """Predictions in the number type of the labels, and 0 where they are filler.

    `mean_over` keeps filler out of the terms; this keeps its slope, maybe NaN, out as well.
    """
    return jax.tree.map(
        lambda x: jnp.where(jnp.expand_dims(valid, range(1, x.ndim)), x, 0).astype(dtype), preds
    )


def two_view_terms(
    pred1: Prediction,
    view1: View,
    pred2: Prediction,
    view2: View,
    faces: Int[np.ndarray, "f 3"],
    valid: Bool[FloatArray, " b"],
    crop_px: int,
) -> dict[str, Float[Array, ""]]:
    """All terms for two crops of the same photos, per-view terms averaged over the views.

    Examples that are not valid count nowhere and get a gradient of exactly 0, whatever they hold.
    Predictions of lower precision are compared in that of the labels.
    """
    mask = jnp.asarray(valid)[:, None, None]

    def both(first: Float[Array, "b k c"], second: Float[Array, "b k c"]) -> Float[Array, ""]:
        return (mean_over(first, mask) + mean_over(second, mask)) / 2

    (verts1, landmarks1_01), (verts2, landmarks2_01) = only_valid(
        (pred1, pred2), valid, view1.verts.dtype
    )
    true1, true2 = view1.verts, view2.verts
    rotation_rad = jnp.subtract(view2.angle_rad, view1.angle_rad)
    in_photo = con2d_errors(
        landmarks1_01, landmarks2_01, view1.img_from_crop, view2.img_from_crop, crop_px
    )
    return {
        "mesh": both(l1_errors(verts1, true1), l1_errors(verts2, true2)),
        "pose2d": both(
            l1_errors(landmarks1_01, view1.landmarks_01),
            l1_errors(landmarks2_01, view2.landmarks_01),
        ),
        "normal": both(normal_errors(verts1, true1, faces), normal_errors(verts2, true2, faces)),
        "edge": both(edge_errors(verts1, true1, faces), edge_errors(verts2, true2, faces)),
        "con3d": mean_over(con3d_errors(verts1, verts2, rotation_rad), mask),
        "con2d": mean_over(in_photo, mask),
    }


def gaussian_heatmaps(
    landmarks_01: Float[FloatArray, "b n 2"], side: int, sigma_cells: float
) -> Float[Array, "b h w n"]:
    """A bell of height 1 around each landmark, on `side` times `side` cells.

    Cell i has its centre at (i + 0.5) / side of the crop, as `soft_argmax` reads maps.
    """
    centres_01 = (jnp.arange(side) + 0.5) / side
    off = (
        (centres_01[None, :, None, None] - jnp.asarray(landmarks_01)[:, None]) * side / sigma_cells
    )
    across, down = jnp.moveaxis(jnp.exp(-(off**2) / 2), -1, 0)
    return down[:, :, None] * across[:, None]


def two_view_terms_2d(
    pred1: LandmarkPrediction,
    view1: View,
    pred2: LandmarkPrediction,
    view2: View,
    valid: Bool[FloatArray, " b"],
    sigma_cells: float,
) -> dict[str, Float[Array, ""]]:
    """The terms of the 2D pre-training, averaged over two crops; filler counts nowhere.

    `heatmap` is the mean squared error over all cells, `pose2d` that of `two_view_terms`.
    """
    mask = jnp.asarray(valid)[:, None, None]
    pred1, pred2 = only_valid((pred1, pred2), valid, view1.landmarks_01.dtype)

    def heatmap(pred: LandmarkPrediction, view: View) -> Float[Array, ""]:
        side = pred.heatmaps.shape[1]
        off = jnp.asarray(pred.heatmaps) - gaussian_heatmaps(view.landmarks_01, side, sigma_cells)
        return mean_over((off**2).reshape(len(off), side * side, -1), mask)

    def pose2d(pred: LandmarkPrediction, view: View) -> Float[Array, ""]:
        return mean_over(l1_errors(pred.landmarks_01, view.landmarks_01), mask)

    return {
        "heatmap": (heatmap(pred1, view1) + heatmap(pred2, view2)) / 2,
        "pose2d": (pose2d(pred1, view1) + pose2d(pred2, view2)) / 2,
    }


def total(
    terms: Mapping[str, Float[Array, ""]], weights: Mapping[str, float | int]
) -> Float[Array, ""]:
    """Weighted sum of the terms.

    Raises:
        ValueError: if a term has no weight or a weight has no term.
    """
    if set(terms) != set(weights):
        raise ValueError(
            f"loss weights {sorted(weights)} must name exactly the terms {sorted(terms)}: "
            f"without a weight {sorted(set(terms) - set(weights))}, "
            f"unknown {sorted(set(weights) - set(terms))}; give 0 to switch a term off"
        )
    return sum((weights[name] * term for name, term in terms.items()), jnp.zeros(()))
