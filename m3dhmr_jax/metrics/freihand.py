"""The official FreiHAND protocol: errors, PCK curves and F-scores, with and without alignment.

`sample_metrics` scores one hand on the device, `batch_metrics` many in bounded memory; `scores`
then sums them up on the host in float64. Counts and not shares leave the device, so F-scores are
those of float64 unless a distance lies within rounding of its threshold.
Camera frame in metres; "raw" is camera space as it is, "al" after a similarity alignment, "rel"
relative to the root. Axes: b samples, p points, q other points, n landmarks, v vertices,
t thresholds.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from m3dhmr_jax.types import ROOT, FloatArray

F_THRESHOLDS_M = (0.005, 0.015)
PCK_THRESHOLDS_M = np.linspace(0.0, 0.05, 100)
HANDS_AT_ONCE = 16  # On two cores the fastest; 778 vertices then need some 40 MB.


class SampleMetrics(NamedTuple):
    """What is kept of each hand; under `batch_metrics` every array has a leading b."""

    joints_m: Float[FloatArray, "*b n"]  # Distance of each landmark to its true place.
    xyz_al_m: Float[FloatArray, "*b n"]
    xyz_rel_m: Float[FloatArray, "*b n"]
    mesh_m: Float[FloatArray, "*b v"]
    mesh_al_m: Float[FloatArray, "*b v"]
    mesh_rel_m: Float[FloatArray, "*b v"]
    matched: Int[
        FloatArray, "*b 2 2"
    ]  # Vertices near the other mesh: (true, predicted) by F_THRESHOLDS_M.
    matched_al: Int[FloatArray, "*b 2 2"]


def _centred(points: Float[Array, "p 3"]) -> Float[Array, "p 3"]:
    points = points - points.mean(axis=0, keepdims=True)
    return points - points.mean(axis=0, keepdims=True)  # What rounding left of a far-off mean.


def aligned_and_centred(
    pred: Float[Array, "p 3"], truth: Float[Array, "p 3"]
) -> tuple[Float[Array, "p 3"], Float[Array, "p 3"]]:
    """`pred` after the similarity that fits `truth` best, and `truth`, both about its centroid.

    As in the official script the orthogonal factor may be a reflection, norms are raised by 1e-8,
    and a prediction without extent ends in the centroid.
    """
    pred, truth = _centred(pred), _centred(truth)
    truth_norm = jnp.linalg.norm(truth) + 1e-8
    pred_unit, truth_unit = pred / (jnp.linalg.norm(pred) + 1e-8), truth / truth_norm
    product = jnp.matmul(pred_unit.T, truth_unit, precision="highest")
    left, singular, right = jnp.linalg.svd(product)
    turn = jnp.matmul(left, right, precision="highest")
    scale = jnp.sum(singular) * truth_norm
    return jnp.matmul(pred_unit, turn, precision="highest") * scale, truth


def distances(a: Float[Array, "p 3"], b: Float[Array, "p 3"]) -> Float[Array, " p"]:
    """Euclidean, point by point."""
    return jnp.sqrt(jnp.sum((a - b) ** 2, axis=-1))


def nearest_squared(points: Float[Array, "p 3"], others: Float[Array, "q 3"]) -> Float[Array, " p"]:
    """Squared distance of each point to the nearest of the others.

    By explicit differences: |a|^2 + |b|^2 - 2ab loses the millimetres of hands a metre away.
    """
    return jax.lax.platform_dependent(
        points, others, cpu=_nearest_in_turn, default=_nearest_at_once
    )


def _nearest_in_turn(
    points: Float[Array, "p 3"], others: Float[Array, "q 3"]
) -> Float[Array, " p"]:
    """One of the others after the other: on a CPU four times as fast as a minimum along an axis."""
    x, y, z = points.T

    def nearer(i: Int[Array, ""], nearest: Float[Array, " p"]) -> Float[Array, " p"]:
        other = others[i]
        squared = (x - other[0]) ** 2 + (y - other[1]) ** 2 + (z - other[2]) ** 2
        return jnp.where(squared < nearest, squared, nearest)

    return jax.lax.fori_loop(0, len(others), nearer, jnp.full(len(points), jnp.inf, points.dtype))


def _nearest_at_once(
    points: Float[Array, "p 3"], others: Float[Array, "q 3"]
) -> Float[Array, " p"]:
    """All pairs, axis by axis, for devices that compute many at a time."""
    columns = [others[:, None, axis] - points[None, :, axis] for axis in range(3)]
    return jnp.min(sum(column**2 for column in columns), axis=0)


def matched_counts(pred: Float[Array, "p 3"], truth: Float[Array, "q 3"]) -> Int[Array, "2 2"]:
    """How many true and how many predicted points have one of the others near, by threshold."""
    limits = jnp.array(F_THRESHOLDS_M)[:, None] ** 2
    pairs = nearest_squared(truth, pred), nearest_squared(pred, truth)
    return jnp.stack([jnp.sum(squared[None] < limits, axis=1) for squared in pairs])


def sample_metrics(
    pred_xyz: Float[FloatArray, "n 3"],
    pred_verts: Float[FloatArray, "v 3"],
    gt_xyz: Float[FloatArray, "n 3"],
    gt_verts: Float[FloatArray, "v 3"],
) -> SampleMetrics:
    """Scores one hand; landmarks and vertices are aligned separately, each by its own points."""
    pred_xyz, pred_verts = jnp.asarray(pred_xyz), jnp.asarray(pred_verts)
    gt_xyz, gt_verts = jnp.asarray(gt_xyz), jnp.asarray(gt_verts)
    pred_root, gt_root = pred_xyz[ROOT : ROOT + 1], gt_xyz[ROOT : ROOT + 1]
    mesh_al, mesh_truth = aligned_and_centred(pred_verts, gt_verts)
    return SampleMetrics(
        joints_m=distances(pred_xyz, gt_xyz),
        xyz_al_m=distances(*aligned_and_centred(pred_xyz, gt_xyz)),
        xyz_rel_m=distances(pred_xyz - pred_root, gt_xyz - gt_root),
        mesh_m=distances(pred_verts, gt_verts),
        mesh_al_m=distances(mesh_al, mesh_truth),
        mesh_rel_m=distances(pred_verts - pred_root, gt_verts - gt_root),
        matched=matched_counts(pred_verts, gt_verts),
        matched_al=matched_counts(mesh_al, mesh_truth),
    )


@jax.jit
def batch_metrics(
    pred_xyz: Float[FloatArray, "b n 3"],
    pred_verts: Float[FloatArray, "b v 3"],
    gt_xyz: Float[FloatArray, "b n 3"],
    gt_verts: Float[FloatArray, "b v 3"],
) -> SampleMetrics:
    """`sample_metrics` of each hand; any number of hands, the whole set if you like."""
    hands = (pred_xyz, pred_verts, gt_xyz, gt_verts)
    return jax.lax.map(lambda hand: sample_metrics(*hand), hands, batch_size=HANDS_AT_ONCE)


def pck(errors_m: Float[np.ndarray, "b p"]) -> Float[np.ndarray, " t"]:
    """Share of errors up to and including each of PCK_THRESHOLDS_M."""
    first = np.searchsorted(PCK_THRESHOLDS_M, errors_m.astype(np.float64).ravel(), side="left")
    return np.cumsum(np.bincount(first, minlength=len(PCK_THRESHOLDS_M) + 1)[:-1]) / first.size


def f_scores(matched: Int[FloatArray, "b 2 2"], vertices: int) -> Float[np.ndarray, "b 2"]:
    """Harmonic mean of both shares, 0 if both are 0, for each of F_THRESHOLDS_M."""
    of_truth, of_pred = np.moveaxis(np.asarray(matched) / vertices, 1, 0)
    both = of_truth + of_pred
    return np.where(both > 0, 2 * of_truth * of_pred / np.where(both > 0, both, 1), 0)


def _kept(samples: SampleMetrics, valid: Bool[FloatArray, " b"] | None) -> SampleMetrics:
    """The valid rows as host arrays; refuses what no score can be made of."""
    host = SampleMetrics(*(np.asarray(values) for values in samples))
    rows = np.arange(len(host.joints_m)) if valid is None else np.flatnonzero(np.asarray(valid))
    if not len(rows):
        raise ValueError(f"no valid sample among {len(host.joints_m)}: there is nothing to score")
    kept = SampleMetrics(*(values[rows] for values in host))
    finite = np.isfinite(kept.joints_m).all(1) & np.isfinite(kept.mesh_m).all(1)
    finite &= np.isfinite(kept.xyz_al_m).all(1) & np.isfinite(kept.mesh_al_m).all(1)
    if not finite.all():
        bad = rows[~finite]
        raise ValueError(
            f"sample {bad[0]} ({len(bad)} of {len(rows)}) has errors that are not finite: every "
            "coordinate must be a finite number of metres, as the official script demands; "
            "look for NaN or infinity in that prediction or its truth"
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
    joints_m: Float[FloatArray, "b n"], mesh_m: Float[FloatArray, "b v"]
) -> dict[str, float]:
    """Scores of distances in camera space, under the official script's keys; metres.

    `xyz_mean3d` and `mesh_mean3d` are what others call MPJPE and MPVPE in camera space.
    `root_mm` is the wrist's mean distance from its true place, in millimetres.
    """
    joints_m, mesh_m = np.asarray(joints_m, np.float64), np.asarray(mesh_m, np.float64)
    root_mm = 1000 * float(joints_m[:, ROOT].mean())
    return (
        _distance_scores("xyz", joints_m) | _distance_scores("mesh", mesh_m) | {"root_mm": root_mm}
    )


def scores(samples: SampleMetrics, valid: Bool[FloatArray, " b"] | None = None) -> dict[str, float]:
    """The numbers of the official script under its keys (metres), and those that papers quote.

    The latter are `mpjpe_mm` and `mpvpe_mm` (root-relative), `pa_mpjpe_mm`, `pa_mpvpe_mm`, `f_5`
    and `f_15` (aligned); `root_mm` is the wrist's error in camera space. Samples that are not
    `valid` count nowhere.

    Raises:
        ValueError: if no sample is valid, or a valid one has NaN or infinity, which is named.
    """
    kept = _kept(samples, valid)
    result = camera_scores(kept.joints_m, kept.mesh_m)
    for name in ("xyz_al", "mesh_al"):
        result |= _distance_scores(name, np.asarray(getattr(kept, f"{name}_m"), np.float64))
    vertices = kept.mesh_m.shape[1]
    for name, matched in (("f_score", kept.matched), ("f_al_score", kept.matched_al)):
        result[f"{name}_5"], result[f"{name}_15"] = f_scores(matched, vertices).mean(axis=0)
    result |= {
        "mpjpe_mm": 1000 * kept.xyz_rel_m.mean(dtype=np.float64),
        "mpvpe_mm": 1000 * kept.mesh_rel_m.mean(dtype=np.float64),
        "pa_mpjpe_mm": 1000 * result["xyz_al_mean3d"],
        "pa_mpvpe_mm": 1000 * result["mesh_al_mean3d"],
        "f_5": result["f_al_score_5"],
        "f_15": result["f_al_score_15"],
    }
    return {name: float(value) for name, value in result.items()}


def pck_curves(
    samples: SampleMetrics, valid: Bool[FloatArray, " b"] | None = None
) -> dict[str, Float[np.ndarray, " t"]]:
    """Shares over PCK_THRESHOLDS_M under `xyz`, `xyz_al`, `mesh` and `mesh_al`.

    Raises:
        ValueError: as `scores`.
    """
    kept = _kept(samples, valid)
    names = ("xyz", "xyz_al", "mesh", "mesh_al")
    return {name: pck(getattr(kept, f"{name}_m")) for name in names}
