"""Fits a hand model to landmarks: pose, shape and position by damped Gauss-Newton, no training.

Only landmarks and joints are posed during the search (`m3dhmr_jax.hand.posed_points`), the mesh
once at the end. Axes: b hands, n = 21 joints, v vertices.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from m3dhmr_jax.fitting.observation import COMMON, FittedHand, Observation
from m3dhmr_jax.fitting.search import State, as_target, build_start, search, solve
from m3dhmr_jax.fitting.terms import (
    DEFAULT_WEIGHTS,
    FitWeights,
    Tables,
    Target,
    build_tables,
    wrist_m,
)
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.hand.articulation import N_ANGLES, angle_rotations
from m3dhmr_jax.hand.posed_points import own_rotations, times
from m3dhmr_jax.hand.skinning import skin
from m3dhmr_jax.types import N_JOINTS

RAYLEIGH_MEDIAN = 1.1774  # Median length of a 2D Gaussian of standard deviation 1.


def make_fit(
    hand: HandModel, weights: FitWeights = DEFAULT_WEIGHTS
) -> Callable[[Observation], FittedHand]:
    """A compiled function that fits `hand` to a batch of observations, each on its own.

    Without 3D landmarks (`joints_weight` 0) twelve directions are tried, which takes longer for
    the whole batch. Finite for any finite observation; see `FittedHand.residual` for how good.
    """
    tables = build_tables(hand, weights.base_shift, weights.tip_shift)
    start = build_start(tables)

    @jax.jit
    def fit(seen: Observation) -> FittedHand:
        blind = jnp.any(seen.joints_weight <= 0)
        rounds = jnp.where(blind, len(start.rotations) + 1, 1)

        def one(seen: Observation) -> FittedHand:
            target = as_target(weights, seen)
            state = search(tables, start, target, weights, seen, rounds)
            return describe(hand, tables, target, seen, state)

        return jax.vmap(one)(seen)

    return fit


def describe(
    hand: HandModel, tables: Tables, target: Target, seen: Observation, state: State
) -> FittedHand:
    """The mesh at these unknowns, its uncertainty and its residuals."""
    unknowns, found = state.unknowns, state.found
    p, hessian = len(unknowns.shape), state.hessian
    columns = np.arange(3 + N_ANGLES, 3 + N_ANGLES + p + 3)
    damped = hessian + jnp.diag(1e-6 * jnp.diag(hessian) + 1e-6)
    covariance = solve(damped, jnp.eye(len(hessian))[:, columns])[columns]
    wrist = wrist_m(unknowns.position)
    by_position = jnp.stack([wrist[2] * jnp.eye(3)[0], wrist[2] * jnp.eye(3)[1], wrist], axis=1)
    root = jnp.matmul(by_position, covariance[p:, p:], precision="highest")
    root = jnp.matmul(root, by_position.T, precision="highest")
    turns = own_rotations(tables.points, angle_rotations(unknowns.angles_rad.reshape(-1, 3)))
    own = jnp.concatenate([unknowns.rotation[None], turns])
    bones = times(found.posed.bones, tables.points.after)
    positions = found.posed.points_m[:, N_JOINTS:].T + wrist[None]
    verts_m = skin(hand, bones, positions, own, unknowns.shape)
    missed, missed_m = (
        jnp.sort(jnp.sqrt(jnp.sum(x[:, COMMON] ** 2, axis=0)))[len(COMMON) // 2]
        for x in (found.reprojection, found.difference_m)
    )
    extent_m = jnp.max(jnp.ptp(found.posed.points_m[:, :N_JOINTS], axis=1))
    (a, b), (c, d) = seen.intrinsics[:2, :2]
    focal_px = jnp.sqrt(jnp.abs(a * d - b * c))
    return FittedHand(
        verts_m=verts_m,
        joints_m=jnp.matmul(hand.joint_regressor, verts_m, precision="highest"),
        rotations=own,
        shape=unknowns.shape,
        shape_std=jnp.sqrt(jnp.maximum(jnp.nan_to_num(jnp.diagonal(covariance)[:p]), 0)),
        root_covariance_m2=jnp.nan_to_num(root),
        residual=missed,
        noise_px=missed / RAYLEIGH_MEDIAN * focal_px / target.per_box,
        joints_residual=jnp.where(seen.joints_weight > 0, missed_m / extent_m, 0),
    )
