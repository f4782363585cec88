"""Where a root-relative hand stands in camera space, how sure that is, and which landmarks mislead.

Landmarks are taken as a mixture: most lie where the hand's joints project, but for Gaussian noise;
some lie anywhere within about a hand's length. The amount of noise and the share of the latter are
unknown. The most plausible of many closed-form translations, each from a few landmarks, starts
expectation maximisation: how probably each landmark is a good one; one Gauss-Newton step on the
reprojection error with these weights; the noise that is left; and so on. No landmark is thrown
away: one that fits again counts again.

A silhouette is a second mixture: how far it reaches in each direction of the picture. Landmarks
that a network predicts share errors of scale, and those are errors of depth; beside a silhouette
the scale of the landmarks' figure is therefore known to LANDMARK_SCALE_ERROR only.

Everything is written for one hand; `recover_roots` is batched and compiled.
Axes: b hands, n landmarks, v vertices, k directions, s subsets, m misfits of d dimensions,
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

from m3dhmr_jax.camera.pinhole import apply_affine, invert_affine, project
from m3dhmr_jax.camera.silhouette import Reach, mesh_reach_px
from m3dhmr_jax.types import FloatArray

NEAREST_M = 0.05  # No point of a hand is placed nearer to the camera than this,
FARTHEST_M = 20.0  # and no root farther: landmarks in one spot would send a hand to infinity.
SUBSETS = 32  # With a third of the landmarks wrong, a sixth of them is free of wrong ones.
SUBSET_SIZE = 4
ROUNDS = 7  # Five are enough for landmarks alone.
NOISE_FLOOR = 5e-4  # Of a hand's length in the picture: 0.05 px of 100.
PIXEL_NOISE_PX = 1 / math.sqrt(12)  # What a grid of pixels leaves open about an edge.
GOOD_SHARE, GOOD_SHARE_WEIGHT = 0.9, 5.0  # Prior share of good ones, worth so many of them.
LANDMARK_SCALE_ERROR = 0.1
ROUNDING = 1e-6  # Share of each curvature that float32 cannot tell from none.


class Silhouette(NamedTuple):
    """A hand's outline in the picture, and the surface that has it."""

    verts_rel_m: Float[FloatArray, "*b v 3"]  # Relative to the root.
    reach: Reach  # Of the mask, `m3dhmr_jax.camera.silhouette.mask_reach`.


class Root(NamedTuple):
    """Where a hand stands."""

    t_m: Float[Array, "*b 3"]  # The root in camera space.
    covariance_m2: Float[Array, "*b 3 3"]  # Of t_m, from the noise that was found.
    inlier_probability: Float[
        Array, "*b n"
    ]  # The probability that a landmark is where it should be.
    noise_px: Float[Array, "*b"]  # Of the good landmarks, along each axis.


class _Kind(NamedTuple):
    """What is given for one kind of misfits."""

    counts: Float[Array, " m"]  # 1, or 0 for what is not seen.
    span_px: Float[Array, ""]  # Bad ones are anywhere within this distance.
    floor_px2: Float[Array, ""]  # The least variance of good ones.
    fitted: int  # Parameters that these misfits determine.


class _Mixture(NamedTuple):
    """What is believed of one kind of misfits."""

    noise_px2: Float[Array, ""]  # Variance of the good ones along each dimension.
    share: Float[Array, ""]  # Of good ones.


class _State(NamedTuple):
    theta: Float[Array, " p"]  # t_m; with a silhouette also landmark scale and edge width.
    mixtures: list[_Mixture]
    weights: list[Float[Array, " m"]]
    covariance: Float[Array, "p p"]


def recover_root(
    points_rel_m: Float[FloatArray, "n 3"],
    landmarks_px: Float[FloatArray, "n 2"],
    intrinsics: Float[FloatArray, "3 3"],
    silhouette: Silhouette | None = None,
) -> Root:
    """The most plausible translation of root-relative points that are seen at `landmarks_px`.

    Finite whatever is seen; where that tells nothing, the covariance is metres.
    """
    points, uv, k = jnp.asarray(points_rel_m), jnp.asarray(landmarks_px), jnp.asarray(intrinsics)
    misfits = functools.partial(
        _misfits, points=points, landmarks_px=uv, intrinsics=k, silhouette=silhouette
    )
    t_m, noise_px2 = first_guess(points, uv, k)
    span_px = _span_px(points, t_m, k)
    kinds = [_Kind(jnp.ones_like(uv[:, 0]), span_px, (NOISE_FLOOR * span_px) ** 2, 3)]
    theta, prior, noises_px2 = t_m, [FARTHEST_M] * 3, [noise_px2]
    if silhouette is not None:
        theta, prior = jnp.append(t_m, jnp.zeros(2)), [*prior, LANDMARK_SCALE_ERROR, PIXEL_NOISE_PX]
        seen = jnp.asarray(silhouette.reach.is_seen, uv.dtype)
        kinds.append(_Kind(seen, span_px, jnp.full_like(span_px, PIXEL_NOISE_PX**2), 1))
        far_px2 = misfits(theta)[1][:, 0] ** 2 + PIXEL_NOISE_PX**2
        log_px2 = jnp.sum(seen * jnp.log(far_px2)) / jnp.maximum(jnp.sum(seen), 1)
        noises_px2.append(_typical_px2(log_px2, 1))
    weights = [kind.counts for kind in kinds]
    mixtures = [_mixture(*each) for each in zip(kinds, noises_px2, weights, strict=True)]

    def improve(_: Array, state: _State) -> _State:
        """One round of expectation maximisation."""
        weights, information, slope = _expectation(state, kinds, prior, misfits)
        covariance = _inverse(information)
        theta = state.theta - jnp.sum(covariance * slope[None], axis=1)
        theta = jnp.append(in_front(theta[:3], points), theta[3:])
        mixtures = [
            _mixture(kind, _noise_px2(kind, weight, rows), weight)
            for kind, weight, rows in zip(kinds, weights, misfits(theta), strict=True)
        ]
        return _State(theta, mixtures, weights, covariance)

    state = _State(theta, mixtures, weights, jnp.eye(len(theta)))
    state = jax.lax.fori_loop(0, ROUNDS, improve, state)
    return Root(
        t_m=state.theta[:3],
        covariance_m2=state.covariance[:3, :3],
        inlier_probability=state.weights[0],
        noise_px=jnp.sqrt(state.mixtures[0].noise_px2),
    )


recover_roots = jax.jit(jax.vmap(recover_root))


def first_guess(
    points_rel_m: Float[Array, "n 3"],
    landmarks_px: Float[Array, "n 2"],
    intrinsics: Float[Array, "3 3"],
) -> tuple[Float[Array, "3"], Float[Array, ""]]:
    """A translation that most landmarks agree to, and their noise variance, px^2.

    Of the closed-form solutions from SUBSETS subsets, that with the least product of reprojection
    errors: it needs no scale, and what is far off anyway hardly matters.
    """
    rays = apply_affine(landmarks_px, invert_affine(intrinsics[:2]))
    guesses = linear_translations(points_rel_m, rays, jnp.asarray(_subsets(len(landmarks_px))))
    guesses = jax.vmap(in_front, (0, None))(guesses, points_rel_m)
    tx, ty, tz = guesses.T[:, :, None]
    (x, y, z), (u, v) = points_rel_m.T[:, None], rays.T[:, None]
    right, down = (x + tx) / (z + tz) - u, (y + ty) / (z + tz) - v
    (a, b), (c, d) = intrinsics[:2, :2]
    squared = (a * right + b * down) ** 2 + (c * right + d * down) ** 2
    floor_px2 = (
        NOISE_FLOOR * jax.vmap(_span_px, (None, 0, None))(points_rel_m, guesses, intrinsics)
    ) ** 2
    log_px2 = jnp.mean(jnp.log(squared + floor_px2[:, None]), axis=1)
    best = jnp.argmin(log_px2)
    return guesses[best], _typical_px2(log_px2[best], 2)


def linear_translations(
    points_rel_m: Float[Array, "n 3"], rays: Float[Array, "n 2"], weights: Float[Array, "s n"]
) -> Float[Array, "s 3"]:
    """Least squares of `ray * depth - (x, y)` for many weightings, in closed form.

    `rays` are the landmarks at depth 1. Weights the residual of a far point more than pixels do.
    """
    middle = jnp.mean(rays, axis=0, keepdims=True)  # Taken out, so that rounding stays small.
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
    """The nearest translation that keeps points NEAREST_M away, and the root within FARTHEST_M."""
    return t_m.at[2].min(FARTHEST_M).at[2].max(NEAREST_M - jnp.min(points_rel_m[:, 2]))


def _misfits(
    theta: Float[Array, " p"],
    points: Float[Array, "n 3"],
    landmarks_px: Float[Array, "n 2"],
    intrinsics: Float[Array, "3 3"],
    silhouette: Silhouette | None,
) -> list[Float[Array, "m d"]]:
    """What is seen too much, pixels: by the landmarks, and by the silhouette's reach if given."""
    seen = project(points + theta[None, :3], intrinsics)
    if silhouette is None:
        return [seen - landmarks_px]
    middle, (scale, width_px) = jnp.mean(seen, axis=0, keepdims=True), theta[3:]
    reach_px = mesh_reach_px(silhouette.verts_rel_m, theta[:3], intrinsics) + width_px
    return [
        middle + (1 + scale) * (seen - middle) - landmarks_px,
        (reach_px - silhouette.reach.px)[:, None],
    ]


def _expectation(
    state: _State,
    kinds: Sequence[_Kind],
    prior: Sequence[float],
    misfits: Callable[[Float[Array, " p"]], list[Float[Array, "m d"]]],
) -> tuple[list[Float[Array, " m"]], Float[Array, "p p"], Float[Array, " p"]]:
    """Which misfits are good ones, and curvature and slope of -log likelihood with these.

    `prior` has deviations: of scale and width about 0, of t_m about where it is, so that it moves
    nothing.
    """
    parts, jacobians = misfits(state.theta), jax.jacfwd(misfits)(state.theta)
    weights = [_good(*each) for each in zip(kinds, state.mixtures, parts, strict=True)]
    precision = jnp.array(prior) ** -2
    information = jnp.diag(precision)
    slope = precision * state.theta.at[:3].set(0)
    for weight, mixture, rows, jacobian in zip(
        weights, state.mixtures, parts, jacobians, strict=True
    ):
        weighted = (weight / mixture.noise_px2)[:, None, None] * jacobian
        information += jnp.sum(weighted[..., None] * jacobian[..., None, :], axis=(0, 1))
        slope += jnp.sum(weighted * rows[..., None], axis=(0, 1))
    return weights, information * (1 + ROUNDING * jnp.eye(len(precision))), slope


@functools.cache
def _subsets(n: int) -> Float[np.ndarray, "s n"]:
    """Rows of 0 and 1, the same at every call."""
    order = np.random.default_rng(0).permuted(np.tile(np.arange(n), (SUBSETS, 1)), axis=1)
    return (order < SUBSET_SIZE).astype(np.float32)


def _span_px(
    points_rel_m: Float[Array, "n 3"], t_m: Float[Array, "3"], intrinsics: Float[Array, "3 3"]
) -> Float[Array, ""]:
    """About a hand's length in the picture."""
    (a, b), (c, d) = intrinsics[:2, :2]
    focal_px = jnp.sqrt(jnp.abs(a * d - b * c))
    across_m = jnp.sqrt(jnp.sum(jnp.var(points_rel_m, axis=0)) + 1e-12)
    return 2 * focal_px * across_m / jnp.maximum(t_m[2], NEAREST_M)


def _good(kind: _Kind, mixture: _Mixture, misfit_px: Float[Array, "m d"]) -> Float[Array, " m"]:
    """The probability of each misfit to be a good one."""
    d = misfit_px.shape[1]
    log_volume = math.log((2, math.pi)[d - 1]) + d * jnp.log(kind.span_px)
    log_good = -0.5 * (
        jnp.sum(misfit_px**2, axis=1) / mixture.noise_px2
        + d * jnp.log(2 * math.pi * mixture.noise_px2)
    )
    log_odds = jnp.log(mixture.share) - jnp.log1p(-mixture.share) + log_good + log_volume
    return kind.counts * jax.nn.sigmoid(log_odds)


def _typical_px2(log_px2: Float[Array, ""], d: int) -> Float[Array, ""]:
    """Variance of Gaussian noise in `d` dimensions from its mean logarithm of squared lengths."""
    return jnp.exp(log_px2 + np.euler_gamma) * {1: 2.0, 2: 0.5}[d]


def _noise_px2(
    kind: _Kind, weights: Float[Array, " m"], misfit_px: Float[Array, "m d"]
) -> Float[Array, ""]:
    freedom = jnp.sum(weights) * misfit_px.shape[1] - kind.fitted
    return jnp.sum(weights[:, None] * misfit_px**2) / jnp.maximum(freedom, 1)


def _mixture(kind: _Kind, noise_px2: Float[Array, ""], weights: Float[Array, " m"]) -> _Mixture:
    good = jnp.sum(weights) + GOOD_SHARE * GOOD_SHARE_WEIGHT
    share = good / (jnp.sum(kind.counts) + GOOD_SHARE_WEIGHT)
    return _Mixture(jnp.maximum(noise_px2, kind.floor_px2), share)


def _inverse(matrix: Float[Array, "p p"]) -> Float[Array, "p p"]:
    """Of a small positive definite matrix, by elimination: batches as plain arithmetic."""
    for i in range(len(matrix)):
        is_pivot = np.arange(len(matrix)) == i
        row = jnp.where(is_pivot, 1, matrix[i]) / matrix[i, i]
        rest = jnp.where(is_pivot[None], 0, matrix) - matrix[:, i : i + 1] * row[None]
        matrix = jnp.where(is_pivot[:, None], row[None], rest)
    return matrix
