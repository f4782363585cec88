"""Camera-space translation of a root-relative hand, its uncertainty, and the outlier landmarks.

Landmarks follow a mixture: inliers lie at the projected joints plus Gaussian noise, outliers
anywhere within about a hand's extent in the image. The noise and the inlier ratio are unknown.
Closed-form translations from many small subsets of the landmarks are compared, and the most
plausible one initialises expectation-maximisation: the E-step computes the inlier probability of
each landmark, the M-step takes one Gauss-Newton step on the weighted reprojection error and
re-estimates the noise. No landmark is discarded: one that fits again regains its weight.

A silhouette adds a second mixture, over its extents. The errors of predicted landmarks share a
scale, which is an error of depth; alongside a silhouette that scale is therefore a parameter with
standard deviation LANDMARK_SCALE_STD.

Everything is written for one hand; `recover_roots` is batched and compiled.
Axes: b hands, n landmarks, v vertices, k directions, s subsets, m residuals of d dimensions,
p parameters. Frames as in m3dhmr_jax.camera.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from m3dhmr_jax.camera.mesh_extent import mesh_extent_px
from m3dhmr_jax.camera.pinhole import apply_affine, invert_affine, project
from m3dhmr_jax.camera.silhouette import SilhouetteExtent
from m3dhmr_jax.math3d import safe_sqrt
from m3dhmr_jax.types import FloatArray

# Limits for degenerate landmarks: all points beyond NEAREST_M, the root within FARTHEST_M.
NEAREST_M = 0.05
FARTHEST_M = 20.0
SUBSETS = 32  # With a third of the landmarks outliers, a sixth of the subsets has none.
SUBSET_SIZE = 4
ROUNDS = 7  # Five suffice without a silhouette.
NOISE_FLOOR = 5e-4  # Fraction of the hand's extent in the image: 0.05 px of 100.
PIXEL_NOISE_PX = 1 / math.sqrt(12)  # Quantisation of a mask's edge.
INLIER_PRIOR, INLIER_PRIOR_WEIGHT = 0.9, 5.0  # Prior inlier ratio, and its weight in landmarks.
LANDMARK_SCALE_STD = 0.1
ROUNDING = 1e-6  # Relative damping: smaller curvatures are lost in float32.


class Silhouette(NamedTuple):
    """A hand's outline in the image, and the surface that it belongs to."""

    # Relative to the root.
    verts_rel_m: Float[FloatArray, "*b v 3"]
    # Extent of the hand's mask, from `m3dhmr_jax.camera.silhouette.silhouette_extent`.
    extent: SilhouetteExtent


class Root(NamedTuple):
    """The root of a hand in camera space."""

    t_m: Float[Array, "*b 3"]
    # Covariance of t_m, from the estimated noise.
    covariance_m2: Float[Array, "*b 3 3"]
    inlier_probability: Float[Array, "*b n"]
    # Standard deviation of the inlier landmarks along each axis.
    noise_px: Float[Array, "*b"]


class ResidualSpec(NamedTuple):
    """Constants of one kind of residuals."""

    # 1, or 0 where not visible.
    counts: Float[Array, " m"]
    # Outliers are uniform within this distance.
    extent_px: Float[Array, ""]
    # Smallest variance of inliers.
    floor_px2: Float[Array, ""]
    # Degrees of freedom that the fit removes.
    fitted: int


class InlierModel(NamedTuple):
    """Current estimate for one kind of residuals."""

    # Variance of inliers along each dimension.
    noise_px2: Float[Array, ""]
    ratio: Float[Array, ""]


class _State(NamedTuple):
    # t_m; with a silhouette also the landmark scale and the edge width.
    theta: Float[Array, " p"]
    models: list[InlierModel]
    weights: list[Float[Array, " m"]]
    covariance: Float[Array, "p p"]


def recover_root(
    points_rel_m: Float[FloatArray, "n 3"],
    landmarks_px: Float[FloatArray, "n 2"],
    intrinsics: Float[FloatArray, "3 3"],
    silhouette: Silhouette | None = None,
) -> Root:
    """The most plausible translation of root-relative points observed at `landmarks_px`.

    Finite for any landmarks; where they determine nothing, the deviation is metres.
    """
    points, uv, k = jnp.asarray(points_rel_m), jnp.asarray(landmarks_px), jnp.asarray(intrinsics)
    residuals = functools.partial(
        _residuals, points=points, landmarks_px=uv, intrinsics=k, silhouette=silhouette
    )
    t_m, noise_px2 = initial_estimate(points, uv, k)
    extent_px = hand_extent_px(points, t_m, k)
    specs = [ResidualSpec(jnp.ones_like(uv[:, 0]), extent_px, (NOISE_FLOOR * extent_px) ** 2, 3)]
    theta, prior_std, noises_px2 = t_m, [FARTHEST_M] * 3, [noise_px2]
    if silhouette is not None:
        theta = jnp.append(t_m, jnp.zeros(2))
        prior_std = [*prior_std, LANDMARK_SCALE_STD, PIXEL_NOISE_PX]
        visible = jnp.asarray(silhouette.extent.is_visible, uv.dtype)
        specs.append(
            ResidualSpec(visible, extent_px, jnp.full_like(extent_px, PIXEL_NOISE_PX**2), 1)
        )
        error_px2 = residuals(theta)[1][:, 0] ** 2 + PIXEL_NOISE_PX**2
        log_px2 = jnp.sum(visible * jnp.log(error_px2)) / jnp.maximum(jnp.sum(visible), 1)
        noises_px2.append(_typical_px2(log_px2, 1))
    weights = [spec.counts for spec in specs]
    models = [_inlier_model(*each) for each in zip(specs, noises_px2, weights, strict=True)]

    def em_step(_: Array, state: _State) -> _State:
        weights, information, gradient = _expectation(state, specs, prior_std, residuals)
        covariance = _inverse(information)
        theta = state.theta - jnp.sum(covariance * gradient[None], axis=1)
        theta = jnp.append(in_front(theta[:3], points), theta[3:])
        models = [
            _inlier_model(spec, _noise_px2(spec, weight, residual), weight)
            for spec, weight, residual in zip(specs, weights, residuals(theta), strict=True)
        ]
        return _State(theta, models, weights, covariance)

    state = _State(theta, models, weights, jnp.eye(len(theta)))
    state = jax.lax.fori_loop(0, ROUNDS, em_step, state)
    return Root(
        t_m=state.theta[:3],
        covariance_m2=state.covariance[:3, :3],
        inlier_probability=state.weights[0],
        noise_px=jnp.sqrt(state.models[0].noise_px2),
    )


recover_roots = jax.jit(jax.vmap(recover_root))


def initial_estimate(
    points_rel_m: Float[Array, "n 3"],
    landmarks_px: Float[Array, "n 2"],
    intrinsics: Float[Array, "3 3"],
) -> tuple[Float[Array, "3"], Float[Array, ""]]:
    """The translation that most landmarks support, and their noise variance, px^2.

    Among the closed-form solutions of SUBSETS subsets, the one with the least product of
    reprojection errors: the product needs no scale and is robust to outliers.
    """
    rays = apply_affine(landmarks_px, invert_affine(intrinsics[:2]))
    estimates = linear_translations(points_rel_m, rays, jnp.asarray(_subsets(len(landmarks_px))))
    estimates = jax.vmap(in_front, (0, None))(estimates, points_rel_m)
    tx, ty, tz = estimates.T[:, :, None]
    (x, y, z), (u, v) = points_rel_m.T[:, None], rays.T[:, None]
    error_x, error_y = (x + tx) / (z + tz) - u, (y + ty) / (z + tz) - v
    (a, b), (c, d) = intrinsics[:2, :2]
    squared_px2 = (a * error_x + b * error_y) ** 2 + (c * error_x + d * error_y) ** 2
    extents_px = jax.vmap(hand_extent_px, (None, 0, None))(points_rel_m, estimates, intrinsics)
    floor_px2 = (NOISE_FLOOR * extents_px) ** 2
    log_px2 = jnp.mean(jnp.log(squared_px2 + floor_px2[:, None]), axis=1)
    best = jnp.argmin(log_px2)
    return estimates[best], _typical_px2(log_px2[best], 2)


def linear_translations(
    points_rel_m: Float[Array, "n 3"], rays: Float[Array, "n 2"], weights: Float[Array, "s n"]
) -> Float[Array, "s 3"]:
    """Least squares of `ray * depth - (x, y)` for several weightings, in closed form.

    `rays` are the landmarks at depth 1. Compared with pixels, far points weigh more.
    """
    middle = jnp.mean(rays, axis=0, keepdims=True)  # Subtracted to keep rounding small.
    rays = rays - middle
    offset = points_rel_m[:, :2] - (rays + middle) * points_rel_m[:, 2:]
    columns = [rays, offset, rays**2, rays * offset]
    moments = jnp.matmul(weights, jnp.concatenate(columns, axis=1), precision="highest")
    total = jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1e-12)
    ray, shift, square, product = jnp.split(moments / total, 4, axis=1)
    spread = jnp.sum(square - ray**2, axis=1, keepdims=True)
    depth = jnp.sum(product - ray * shift, axis=1, keepdims=True) / jnp.maximum(spread, 1e-12)
    return jnp.concatenate([(ray + middle) * depth - shift, depth], axis=1)


def in_front(t_m: Float[Array, "3"], points_rel_m: Float[Array, "n 3"]) -> Float[Array, "3"]:
    """Clamps the depth: points at least NEAREST_M away, the root within FARTHEST_M."""
    return t_m.at[2].min(FARTHEST_M).at[2].max(NEAREST_M - jnp.min(points_rel_m[:, 2]))


def _residuals(
    theta: Float[Array, " p"],
    points: Float[Array, "n 3"],
    landmarks_px: Float[Array, "n 2"],
    intrinsics: Float[Array, "3 3"],
    silhouette: Silhouette | None,
) -> list[Float[Array, "m d"]]:
    """Projected minus observed, pixels: of the landmarks, then of the silhouette's extents."""
    projected_px = project(points + theta[None, :3], intrinsics)
    if silhouette is None:
        return [projected_px - landmarks_px]
    verts_rel_m, extent = silhouette
    # Only a visible width, between opposite directions, determines a scale: without one the
    # landmarks keep theirs, as they do without a silhouette.
    visible = jnp.asarray(extent.is_visible)
    has_width = jnp.any(visible & jnp.roll(visible, len(visible) // 2))
    middle, (scale, edge_px) = jnp.mean(projected_px, axis=0, keepdims=True), theta[3:]
    scaling = jnp.where(has_width, scale, 0) * (projected_px - middle)
    extent_px = mesh_extent_px(verts_rel_m, theta[:3], intrinsics) + edge_px
    return [projected_px + scaling - landmarks_px, (extent_px - extent.px)[:, None]]


def _expectation(
    state: _State,
    specs: Sequence[ResidualSpec],
    prior_std: Sequence[float],
    residuals: Callable[[Float[Array, " p"]], list[Float[Array, "m d"]]],
) -> tuple[list[Float[Array, " m"]], Float[Array, "p p"], Float[Array, " p"]]:
    """Inlier probabilities, then Hessian and gradient of the negative log likelihood with them.

    The prior of scale and edge is centred on 0, that of t_m on its current value, so that it
    only damps the step.
    """
    values, jacobians = residuals(state.theta), jax.jacfwd(residuals)(state.theta)
    weights = [_inlier_probability(*each) for each in zip(specs, state.models, values, strict=True)]
    precision = jnp.array(prior_std) ** -2
    information = jnp.diag(precision)
    gradient = precision * state.theta.at[:3].set(0)
    for weight, model, residual, jacobian in zip(
        weights, state.models, values, jacobians, strict=True
    ):
        weighted = (weight / model.noise_px2)[:, None, None] * jacobian
        information += jnp.sum(weighted[..., None] * jacobian[..., None, :], axis=(0, 1))
        gradient += jnp.sum(weighted * residual[..., None], axis=(0, 1))
    return weights, information * (1 + ROUNDING * jnp.eye(len(precision))), gradient


@functools.cache
def _subsets(n: int) -> Float[np.ndarray, "s n"]:
    """Random subsets as rows of 0 and 1, the same at every call."""
    order = np.random.default_rng(0).permuted(np.tile(np.arange(n), (SUBSETS, 1)), axis=1)
    return (order < SUBSET_SIZE).astype(np.float32)


def hand_extent_px(
    points_rel_m: Float[Array, "n 3"], t_m: Float[Array, "3"], intrinsics: Float[Array, "3 3"]
) -> Float[Array, ""]:
    """About a hand's length in the image."""
    (a, b), (c, d) = intrinsics[:2, :2]
    focal_px = jnp.sqrt(jnp.abs(a * d - b * c))
    spread_m = safe_sqrt(jnp.sum(jnp.var(points_rel_m, axis=0)))
    return 2 * focal_px * spread_m / jnp.maximum(t_m[2], NEAREST_M)


def _inlier_probability(
    spec: ResidualSpec, model: InlierModel, residual_px: Float[Array, "m d"]
) -> Float[Array, " m"]:
    d = residual_px.shape[1]
    log_outlier_volume = math.log((2, math.pi)[d - 1]) + d * jnp.log(spec.extent_px)
    log_inlier = -0.5 * (
        jnp.sum(residual_px**2, axis=1) / model.noise_px2
        + d * jnp.log(2 * math.pi * model.noise_px2)
    )
    log_odds = jnp.log(model.ratio) - jnp.log1p(-model.ratio) + log_inlier + log_outlier_volume
    return spec.counts * jax.nn.sigmoid(log_odds)


def _typical_px2(log_px2: Float[Array, ""], d: int) -> Float[Array, ""]:
    """Variance of Gaussian noise in `d` dimensions from its mean logarithm of squared lengths."""
    return jnp.exp(log_px2 + np.euler_gamma) * {1: 2.0, 2: 0.5}[d]


def _noise_px2(
    spec: ResidualSpec, weights: Float[Array, " m"], residual_px: Float[Array, "m d"]
) -> Float[Array, ""]:
    """Weighted variance of the residuals along each dimension."""
    freedom = jnp.sum(weights) * residual_px.shape[1] - spec.fitted
    return jnp.sum(weights[:, None] * residual_px**2) / jnp.maximum(freedom, 1)


def _inlier_model(
    spec: ResidualSpec, noise_px2: Float[Array, ""], weights: Float[Array, " m"]
) -> InlierModel:
    inliers = jnp.sum(weights) + INLIER_PRIOR * INLIER_PRIOR_WEIGHT
    ratio = inliers / (jnp.sum(spec.counts) + INLIER_PRIOR_WEIGHT)
    return InlierModel(jnp.maximum(noise_px2, spec.floor_px2), ratio)


def _inverse(matrix: Float[Array, "p p"]) -> Float[Array, "p p"]:
    """Inverse of a small positive definite matrix by elimination, which batches as arithmetic."""
    for i in range(len(matrix)):
        is_pivot = np.arange(len(matrix)) == i
        row = jnp.where(is_pivot, 1, matrix[i]) / matrix[i, i]
        others = jnp.where(is_pivot[None], 0, matrix) - matrix[:, i : i + 1] * row[None]
        matrix = jnp.where(is_pivot[:, None], row[None], others)
    return matrix
