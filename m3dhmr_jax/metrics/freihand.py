"""The official FreiHAND protocol: errors, PCK curves and F-scores, with and without alignment.

`sample_metrics` computes errors of one hand on the device, `batch_metrics` of many in bounded
memory; `scores` averages them on the host in float64. Counts rather than fractions leave the
device, so F-scores are those of float64 unless a distance is within rounding of its threshold.
All in metres in the camera frame; "al": after similarity alignment, "rel": relative to the root.
Axes: b samples, p points, q other points, n landmarks, v vertices, t thresholds.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.types import ROOT, FloatArray

F_THRESHOLDS_M = (0.005, 0.015)
PCK_THRESHOLDS_M = np.linspace(0.0, 0.05, 100)
HANDS_AT_ONCE = 16  # The fastest on two cores; takes about 40 MB with 778 vertices.


class SampleMetrics(NamedTuple):
    """Errors of each hand; `batch_metrics` gives every array a leading b."""

    joint_errors_m: Float[FloatArray, "*b n"]
    joint_errors_al_m: Float[FloatArray, "*b n"]
    joint_errors_rel_m: Float[FloatArray, "*b n"]
    vert_errors_m: Float[FloatArray, "*b v"]
    vert_errors_al_m: Float[FloatArray, "*b v"]
    vert_errors_rel_m: Float[FloatArray, "*b v"]
    # Number of vertices near the other mesh: (true, predicted) x F_THRESHOLDS_M.
    matched: Int[FloatArray, "*b 2 2"]
    matched_al: Int[FloatArray, "*b 2 2"]


def _centred(points: Float[Array, "p 3"]) -> Float[Array, "p 3"]:
    points = points - points.mean(axis=0, keepdims=True)
    # Again, as rounding leaves an offset if the mean is large.
    return points - points.mean(axis=0, keepdims=True)


def aligned_and_centred(
    pred: Float[Array, "p 3"], truth: Float[Array, "p 3"]
) -> tuple[Float[Array, "p 3"], Float[Array, "p 3"]]:
    """`pred` after the similarity that best fits `truth`, and `truth`; both centred at 0.

    As in the official script, the orthogonal factor may be a reflection, 1e-8 is added to norms,
    and a prediction without extent becomes the centroid.
    """
    pred, truth = _centred(pred), _centred(truth)
    truth_norm = jnp.linalg.norm(truth) + 1e-8
    pred_unit, truth_unit = pred / (jnp.linalg.norm(pred) + 1e-8), truth / truth_norm
    product = jnp.matmul(pred_unit.T, truth_unit, precision="highest")
    left, singular, right = jnp.linalg.svd(product)
    rotation = jnp.matmul(left, right, precision="highest")
    scale = jnp.sum(singular) * truth_norm
    return jnp.matmul(pred_unit, rotation, precision="highest") * scale, truth


def distances(a: Float[Array, "p 3"], b: Float[Array, "p 3"]) -> Float[Array, " p"]:
    """Euclidean distances of corresponding points."""
    return jnp.sqrt(jnp.sum((a - b) ** 2, axis=-1))


def nearest_squared(points: Float[Array, "p 3"], others: Float[Array, "q 3"]) -> Float[Array, " p"]:
    """Squared distance of each point to the nearest of the others.

    Computed from differences: |a|^2 + |b|^2 - 2ab loses millimetres for hands a metre away.
    """
    return jax.lax.platform_dependent(points, others, cpu=_nearest_loop, default=_nearest_pairs)


def _nearest_loop(points: Float[Array, "p 3"], others: Float[Array, "q 3"]) -> Float[Array, " p"]:
    """Loops over the others: on a CPU four times as fast as a minimum along an axis."""
    x, y, z = points.T

    def nearer(i: Int[Array, ""], nearest: Float[Array, " p"]) -> Float[Array, " p"]:
        other = others[i]
        squared = (x - other[0]) ** 2 + (y - other[1]) ** 2 + (z - other[2]) ** 2
        return jnp.where(squared < nearest, squared, nearest)

    return jax.lax.fori_loop(0, len(others), nearer, jnp.full(len(points), jnp.inf, points.dtype))


def _nearest_pairs(points: Float[Array, "p 3"], others: Float[Array, "q 3"]) -> Float[Array, " p"]:
    """All pairs at once, for accelerators."""
    columns = [others[:, None, axis] - points[None, :, axis] for axis in range(3)]
    return jnp.min(sum(column**2 for column in columns), axis=0)


def matched_counts(pred: Float[Array, "p 3"], truth: Float[Array, "q 3"]) -> Int[Array, "2 2"]:
    """Number of true and of predicted points within each threshold of the other set."""
    limits = jnp.array(F_THRESHOLDS_M)[:, None] ** 2
    pairs = nearest_squared(truth, pred), nearest_squared(pred, truth)
    return jnp.stack([jnp.sum(squared[None] < limits, axis=1) for squared in pairs])


def sample_metrics(
    pred_joints_m: Float[FloatArray, "n 3"],
    pred_verts_m: Float[FloatArray, "v 3"],
    true_joints_m: Float[FloatArray, "n 3"],
    true_verts_m: Float[FloatArray, "v 3"],
) -> SampleMetrics:
    """Errors of one hand; joints and vertices are aligned separately."""
    pred_joints_m, pred_verts_m = jnp.asarray(pred_joints_m), jnp.asarray(pred_verts_m)
    true_joints_m, true_verts_m = jnp.asarray(true_joints_m), jnp.asarray(true_verts_m)
    pred_root_m, true_root_m = pred_joints_m[ROOT : ROOT + 1], true_joints_m[ROOT : ROOT + 1]
    verts_al_m, centred_verts_m = aligned_and_centred(pred_verts_m, true_verts_m)
    return SampleMetrics(
        joint_errors_m=distances(pred_joints_m, true_joints_m),
        joint_errors_al_m=distances(*aligned_and_centred(pred_joints_m, true_joints_m)),
        joint_errors_rel_m=distances(pred_joints_m - pred_root_m, true_joints_m - true_root_m),
        vert_errors_m=distances(pred_verts_m, true_verts_m),
        vert_errors_al_m=distances(verts_al_m, centred_verts_m),
        vert_errors_rel_m=distances(pred_verts_m - pred_root_m, true_verts_m - true_root_m),
        matched=matched_counts(pred_verts_m, true_verts_m),
        matched_al=matched_counts(verts_al_m, centred_verts_m),
    )


@jax.jit
def batch_metrics(
    pred_joints_m: Float[FloatArray, "b n 3"],
    pred_verts_m: Float[FloatArray, "b v 3"],
    true_joints_m: Float[FloatArray, "b n 3"],
    true_verts_m: Float[FloatArray, "b v 3"],
) -> SampleMetrics:
    """`sample_metrics` of any number of hands, in bounded memory."""
    hands = (pred_joints_m, pred_verts_m, true_joints_m, true_verts_m)
    return jax.lax.map(lambda hand: sample_metrics(*hand), hands, batch_size=HANDS_AT_ONCE)


def pck(errors_m: Float[np.ndarray, "b p"]) -> Float[np.ndarray, " t"]:
    """Fraction of errors up to and including each of PCK_THRESHOLDS_M."""
    first = np.searchsorted(PCK_THRESHOLDS_M, errors_m.astype(np.float64).ravel(), side="left")
    return np.cumsum(np.bincount(first, minlength=len(PCK_THRESHOLDS_M) + 1)[:-1]) / first.size


def f_scores(matched: Int[FloatArray, "b 2 2"], vertices: int) -> Float[np.ndarray, "b 2"]:
    """Harmonic mean of recall and precision, 0 if both are 0, for each of F_THRESHOLDS_M."""
    recall, precision = np.moveaxis(np.asarray(matched) / vertices, 1, 0)
    total = recall + precision
    return np.where(total > 0, 2 * recall * precision / np.where(total > 0, total, 1), 0)


def _valid_rows(samples: SampleMetrics, valid: Bool[FloatArray, " b"] | None) -> SampleMetrics:
    """The valid rows as host arrays; UserError if there are none or one is not finite."""
    host = SampleMetrics(*(np.asarray(values) for values in samples))
    rows = (
        np.arange(len(host.joint_errors_m)) if valid is None else np.flatnonzero(np.asarray(valid))
    )
    if not len(rows):
        raise UserError(f"none of {len(host.joint_errors_m)} samples is valid: nothing to score")
    kept = SampleMetrics(*(values[rows] for values in host))
    errors_m = (
        *(kept.joint_errors_m, kept.joint_errors_al_m),
        *(kept.vert_errors_m, kept.vert_errors_al_m),
    )
    finite = np.all([np.isfinite(each).all(axis=1) for each in errors_m], axis=0)
    if not finite.all():
        bad = rows[~finite]
        raise UserError(
            f"sample {bad[0]} ({len(bad)} of {len(rows)}) has errors that are not finite: every "
            "coordinate must be a finite number of metres, as the official script requires; "
            "look for NaN or infinity in that prediction or its ground truth"
        )
    return kept


def _distance_scores(name: str, errors_m: Float[np.ndarray, "b p"]) -> dict[str, float]:
    span = PCK_THRESHOLDS_M[-1] - PCK_THRESHOLDS_M[0]
    return {
        f"{name}_mean3d": float(errors_m.mean()),
        f"{name}_median3d": float(np.median(errors_m, axis=0).mean()),
        f"{name}_auc3d": float(np.trapezoid(pck(errors_m), PCK_THRESHOLDS_M) / span),
    }


def camera_scores(
    joint_errors_m: Float[FloatArray, "b n"], vert_errors_m: Float[FloatArray, "b v"]
) -> dict[str, float]:
    """Scores of errors in camera space under the official script's keys, in metres.

    `xyz_mean3d` and `mesh_mean3d` are MPJPE and MPVPE in camera space. `root_mm` is the mean error
    of the wrist, in millimetres.
    """
    joint_errors_m = np.asarray(joint_errors_m, np.float64)
    vert_errors_m = np.asarray(vert_errors_m, np.float64)
    return {
        **_distance_scores("xyz", joint_errors_m),
        **_distance_scores("mesh", vert_errors_m),
        "root_mm": 1000 * float(joint_errors_m[:, ROOT].mean()),
    }


def scores(samples: SampleMetrics, valid: Bool[FloatArray, " b"] | None = None) -> dict[str, float]:
    """The scores of the official script under its keys (metres), and those that papers report.

    The latter are `mpjpe_mm` and `mpvpe_mm` (root-relative), `pa_mpjpe_mm`, `pa_mpvpe_mm`, `f_5`
    and `f_15` (aligned); `root_mm` is the wrist's error in camera space. Samples that are not
    `valid` are ignored.

    Raises:
        UserError: if no sample is valid, or a valid one has NaN or infinity.
    """
    kept = _valid_rows(samples, valid)
    result = camera_scores(kept.joint_errors_m, kept.vert_errors_m)
    for name, errors_m in (("xyz_al", kept.joint_errors_al_m), ("mesh_al", kept.vert_errors_al_m)):
        result |= _distance_scores(name, np.asarray(errors_m, np.float64))
    vertices = kept.vert_errors_m.shape[1]
    for name, matched in (("f_score", kept.matched), ("f_al_score", kept.matched_al)):
        result[f"{name}_5"], result[f"{name}_15"] = f_scores(matched, vertices).mean(axis=0)
    result |= {
        "mpjpe_mm": 1000 * kept.joint_errors_rel_m.mean(dtype=np.float64),
        "mpvpe_mm": 1000 * kept.vert_errors_rel_m.mean(dtype=np.float64),
        "pa_mpjpe_mm": 1000 * result["xyz_al_mean3d"],
        "pa_mpvpe_mm": 1000 * result["mesh_al_mean3d"],
        "f_5": result["f_al_score_5"],
        "f_15": result["f_al_score_15"],
    }
    return {name: float(value) for name, value in result.items()}
