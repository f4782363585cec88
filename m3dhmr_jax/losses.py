"""Loss terms of eq. 7: named, unweighted, pure. The weights are fields of the config.

Vertices are in units of MESH_UNIT_M and relative to the root, landmarks are fractions of the crop
side. An `..._errors` function returns one error per element, which `mean_over` or `sum_over`
reduces over the valid examples; `two_view_terms` computes all terms of eq. 7 from two views.

Axes: b batch, v vertices, f faces, n landmarks, h w heatmap, k and c any two axes of errors.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from m3dhmr_jax.camera import pinhole
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.math3d import safe_sqrt, safe_unit
from m3dhmr_jax.models.gather import gather_rows
from m3dhmr_jax.types import FloatArray, LandmarkPrediction, Prediction, View

# 0.02 mm. The direction of a shorter edge fades to 0, so that its gradient is bounded.
SHORTEST_EDGE = 1e-4


def l1_errors(
    pred: Float[FloatArray, "b k c"], target: Float[FloatArray, "b k c"]
) -> Float[Array, "b k c"]:
    """Absolute differences: L_mesh of eq. 7 for vertices, L_pose2D for landmarks."""
    return jnp.abs(jnp.subtract(pred, target))


def _edge_vectors(
    verts: Float[FloatArray, "b v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[Array, "b f 3 3"]:
    corners = gather_rows(jnp.asarray(verts), faces)
    return corners - jnp.roll(corners, 1, axis=2)


def _unit(vectors: Float[Array, "*k 3"]) -> Float[Array, "*k 3"]:
    return safe_unit(vectors, SHORTEST_EDGE)


def face_normals(
    verts: Float[FloatArray, "b v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[Array, "b f 3"]:
    """Unit normals, outward for faces counter-clockwise from outside; 0 for a collapsed face."""
    edges = _edge_vectors(verts, faces)
    # Normalised before the product, which would be far smaller than SHORTEST_EDGE otherwise.
    return _unit(jnp.cross(_unit(edges[:, :, 1]), _unit(edges[:, :, 2])))


def normal_errors(
    pred: Float[FloatArray, "b v 3"],
    target: Float[FloatArray, "b v 3"],
    faces: Int[np.ndarray, "f 3"],
) -> Float[Array, "b f 3"]:
    """L_norm of eq. 7: |predicted edge direction . true face normal|, three edges per face."""
    normals = jax.lax.stop_gradient(face_normals(target, faces))
    return jnp.abs(jnp.sum(_unit(_edge_vectors(pred, faces)) * normals[:, :, None], axis=-1))


def edge_lengths(
    verts: Float[FloatArray, "b v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[Array, "b f 3"]:
    """Lengths of the three edges of each face; an inner edge appears twice."""
    return safe_sqrt(jnp.sum(_edge_vectors(verts, faces) ** 2, axis=-1))


def edge_errors(
    pred: Float[FloatArray, "b v 3"],
    target: Float[FloatArray, "b v 3"],
    faces: Int[np.ndarray, "f 3"],
) -> Float[Array, "b f 3"]:
    """L_edge of eq. 7: absolute differences of edge lengths."""
    return jnp.abs(edge_lengths(pred, faces) - edge_lengths(target, faces))


def con3d_errors(
    verts1: Float[FloatArray, "b v 3"],
    verts2: Float[FloatArray, "b v 3"],
    rotation_rad: Float[FloatArray, " b"],
) -> Float[Array, "b v 3"]:
    """L_con3D of eq. 7: differences of two meshes, the first rotated into the second view.

    `rotation_rad` is angle 2 - angle 1.
    """
    return jnp.abs(jax.vmap(pinhole.rotate_about_optical_axis)(verts1, rotation_rad) - verts2)


def con2d_errors(
    landmarks1_01: Float[FloatArray, "b n 2"],
    landmarks2_01: Float[FloatArray, "b n 2"],
    img_from_crop1: Float[FloatArray, "b 2 3"],
    img_from_crop2: Float[FloatArray, "b 2 3"],
    crop_px: int,
) -> Float[Array, "b n 2"]:
    """L_con2D of eq. 7: differences of two views' landmarks in the source image, in crop sides."""
    to_image = jax.vmap(pinhole.apply_affine)
    landmarks1_px = to_image(landmarks1_01 * crop_px, img_from_crop1)
    landmarks2_px = to_image(landmarks2_01 * crop_px, img_from_crop2)
    return jnp.abs(landmarks1_px - landmarks2_px) / crop_px


def mean_over(
    errors: Float[Array, "b k c"], valid: Bool[FloatArray, "#b #k #c"]
) -> Float[Array, ""]:
    """Mean over all valid elements of the batch; 0 if there are none."""
    mask = jnp.broadcast_to(valid, errors.shape)
    total_error = jnp.sum(jnp.where(mask, errors, 0))  # `where`, as NaN times 0 is NaN.
    return total_error / jnp.maximum(jnp.sum(mask), 1)


def sum_over(
    errors: Float[Array, "b k c"], valid: Bool[FloatArray, "#b #k #c"]
) -> Float[Array, ""]:
    """Sum over each example's valid elements, as in eq. 7; mean over the valid examples."""
    mask = jnp.broadcast_to(valid, errors.shape)
    total_error = jnp.sum(jnp.where(mask, errors, 0))
    return total_error / jnp.maximum(jnp.sum(mask.any(axis=(1, 2))), 1)


Reduce = Callable[[Float[Array, "b k c"], Bool[FloatArray, "#b #k #c"]], Float[Array, ""]]
REDUCTIONS: dict[str, Reduce] = {"mean": mean_over, "sum": sum_over}


def reduction(name: str) -> Reduce:
    """The reduction that `config.loss.reduction` names: over an example's elements.

    Raises:
        UserError: if there is no such reduction.
    """
    if name not in REDUCTIONS:
        raise UserError(f"loss.reduction={name!r} must be one of {tuple(REDUCTIONS)}")
    return REDUCTIONS[name]


def scale_errors(
    errors: Float[Array, "b k c"], quality: Float[FloatArray, " b"] | None
) -> Float[Array, "b k c"]:
    """Errors to labels, each example's times the quality of its label; default: 1."""
    return errors if quality is None else errors * jnp.asarray(quality)[:, None, None]


def only_valid(preds: Any, valid: Bool[FloatArray, " b"], dtype: DTypeLike) -> Any:
    """Predictions in the dtype of the labels, and 0 in padding.

    A reduction excludes padding from the terms; this also excludes its gradient, which may be NaN.
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
    reduce: Reduce = mean_over,
    quality: Float[FloatArray, " b"] | None = None,
) -> dict[str, Float[Array, ""]]:
    """All terms of eq. 7 for two crops of the same images; per-view terms are averaged over views.

    `quality` multiplies an example's errors to its label, 3D and 2D: both are from one fit where
    labels are uncertain. The consistency terms have no label. Default: 1.
    Examples that are not valid are ignored and get a gradient of exactly 0, even if they hold NaN.
    Predictions of lower precision are compared in the labels' dtype.
    """
    mask = jnp.asarray(valid)[:, None, None]

    def both(first: Float[Array, "b k c"], second: Float[Array, "b k c"]) -> Float[Array, ""]:
        first, second = scale_errors(first, quality), scale_errors(second, quality)
        return (reduce(first, mask) + reduce(second, mask)) / 2

    (verts1, landmarks1_01), (verts2, landmarks2_01) = only_valid(
        (pred1, pred2), valid, view1.verts.dtype
    )
    true1, true2 = view1.verts, view2.verts
    rotation_rad = jnp.subtract(view2.angle_rad, view1.angle_rad)
    con2d = con2d_errors(
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
        "con3d": reduce(con3d_errors(verts1, verts2, rotation_rad), mask),
        "con2d": reduce(con2d, mask),
    }


def gaussian_heatmaps(
    landmarks_01: Float[FloatArray, "b n 2"], side: int, sigma_cells: float
) -> Float[Array, "b h w n"]:
    """A Gaussian of height 1 around each landmark, on `side` times `side` cells.

    The centre of cell i is at (i + 0.5) / side of the crop, as in `soft_argmax`.
    """
    centres_01 = (jnp.arange(side) + 0.5) / side
    offset_01 = centres_01[None, :, None, None] - jnp.asarray(landmarks_01)[:, None]
    x, y = jnp.moveaxis(jnp.exp(-((offset_01 * side / sigma_cells) ** 2) / 2), -1, 0)
    return y[:, :, None] * x[:, None]


def two_view_terms_2d(
    pred1: LandmarkPrediction,
    view1: View,
    pred2: LandmarkPrediction,
    view2: View,
    valid: Bool[FloatArray, " b"],
    sigma_cells: float,
    quality: Float[FloatArray, " b"] | None = None,
) -> dict[str, Float[Array, ""]]:
    """The terms of the 2D pre-training, averaged over two crops; padding is ignored.

    `quality` multiplies each example's errors; default: 1.

    `heatmap` is the mean squared error over all cells, `pose2d` is that of `two_view_terms`.
    """
    mask = jnp.asarray(valid)[:, None, None]
    pred1, pred2 = only_valid((pred1, pred2), valid, view1.landmarks_01.dtype)

    def heatmap(pred: LandmarkPrediction, view: View) -> Float[Array, ""]:
        side = pred.heatmaps.shape[1]
        target = gaussian_heatmaps(view.landmarks_01, side, sigma_cells)
        squared = (jnp.asarray(pred.heatmaps) - target) ** 2
        errors = squared.reshape(len(squared), side * side, -1)
        return mean_over(scale_errors(errors, quality), mask)

    def pose2d(pred: LandmarkPrediction, view: View) -> Float[Array, ""]:
        errors = l1_errors(pred.landmarks_01, view.landmarks_01)
        return mean_over(scale_errors(errors, quality), mask)

    return {
        "heatmap": (heatmap(pred1, view1) + heatmap(pred2, view2)) / 2,
        "pose2d": (pose2d(pred1, view1) + pose2d(pred2, view2)) / 2,
    }


def total(
    terms: Mapping[str, Float[Array, ""]], weights: Mapping[str, float | int]
) -> Float[Array, ""]:
    """Weighted sum of the terms (L_total of the paper).

    Raises:
        UserError: if a term has no weight or a weight has no term.
    """
    if set(terms) != set(weights):
        raise UserError(
            f"loss weights {sorted(weights)} must name exactly the terms {sorted(terms)}: "
            f"without a weight {sorted(set(terms) - set(weights))}, "
            f"unknown {sorted(set(weights) - set(terms))}; give 0 to switch a term off"
        )
    return sum((weights[name] * term for name, term in terms.items()), jnp.zeros(()))
