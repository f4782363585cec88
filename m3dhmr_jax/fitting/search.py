"""From an observation to the unknowns of least cost, by damped Gauss-Newton steps.

The search starts from the 3D landmarks or, without them, from twelve directions.

Everything is written for one hand; points lie along the last axis. Axes: n = 21 landmarks or joints
in FreiHAND order, p shape directions, t unknowns, s starts.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from m3dhmr_jax.camera.pinhole import apply_affine, invert_affine
from m3dhmr_jax.camera.root_recovery import initial_estimate
from m3dhmr_jax.fitting.observation import BASES, Observation
from m3dhmr_jax.fitting.terms import (
    FARTHEST_M,
    NEAREST_M,
    FitWeights,
    Residuals,
    Tables,
    Target,
    Unknowns,
    changed,
    cost,
    normal_equations,
    residuals,
)
from m3dhmr_jax.hand.articulation import N_ANGLES
from m3dhmr_jax.hand.posed_points import pose_points, times
from m3dhmr_jax.math3d import axis_rotation, unit
from m3dhmr_jax.types import N_JOINTS, ROOT

# Limits that keep degenerate observations finite: rays, box, standard deviations, 3D landmarks.
FARTHEST_RAY, SMALLEST_BOX, SMALLEST_STD, LARGEST_M = 20.0, 1e-4, 1e-3, 1.0
SMALLEST_SCALE = 0.01
LARGEST_STEP = 1.5  # Of any unknown: radians, or standard deviations.
FIRST_DAMPING = 1e-2
STEPS, EXPLORATION_STEPS = 12, 5
# Outliers lose their weight step by step, so that a bad start is not mistaken for outliers.
FIRST_OUTLIERS, OUTLIER_DECAY = 4.0, 0.6
INDEX_JOINT, MIDDLE_JOINT, LITTLE_JOINT = 6, 10, 18  # The second joints of these fingers.


def as_target(weights: FitWeights, seen: Observation) -> Target:
    """The observation in the camera's axes; clipped, so that degenerate ones stay finite."""
    rays = apply_affine(seen.landmarks_px, invert_affine(seen.intrinsics[:2]))
    rays = jnp.clip(jnp.nan_to_num(rays), -FARTHEST_RAY, FARTHEST_RAY).T
    low, high = jnp.min(rays, axis=1), jnp.max(rays, axis=1)
    is_base = np.isin(np.arange(N_JOINTS), BASES)
    weights_2d = jnp.where(is_base, weights.base_weight_2d, 1.0)
    weights_3d = jnp.where(is_base, weights.base_weight_3d, 1.0) * seen.joints_weight
    joints = jnp.clip(seen.joints_rel_m, -LARGEST_M, LARGEST_M).T
    to_ray = _rotation_to_ray((low + high) / 2)
    return Target(
        rays=rays,
        per_box=1 / jnp.maximum(jnp.max(high - low), SMALLEST_BOX),
        joints_m=times(to_ray[None], (joints - _centre(joints, weights_3d))[None])[0],
        precision_2d=weights_2d / jnp.maximum(seen.landmark_std, SMALLEST_STD) ** 2,
        precision_3d=weights_3d / weights.joint_std_m**2,
        shape_mean=jnp.asarray(seen.shape_mean),
        shape_precision=1 / jnp.maximum(seen.shape_std, SMALLEST_STD) ** 2,
    )


def _rotation_to_ray(ray: Float[Array, "2"]) -> Float[Array, "3 3"]:
    """The rotation of least angle from the optical axis to a ray."""
    x, y, z = jnp.append(ray, 1) / jnp.sqrt(jnp.sum(ray**2) + 1)
    k = 1 / (1 + z)
    rows = [1 - k * x * x, -k * x * y, x, -k * x * y, 1 - k * y * y, y, -x, -y, z]
    return jnp.stack(rows).reshape(3, 3)


def _centre(points: Float[Array, "3 n"], weights: Float[Array, " n"]) -> Float[Array, "3 1"]:
    total = jnp.maximum(jnp.sum(weights), 1e-12)
    return jnp.sum(points * weights[None], axis=1, keepdims=True) / total


class Start(NamedTuple):
    """The mean pose of the mean hand, and the directions it may be seen from."""

    # Relative to the wrist.
    joints_m: Float[np.ndarray, "3 n"]
    # For a middle finger that points along the image's x axis.
    rotations: Float[np.ndarray, "s 3 3"]


def build_start(tables: Tables) -> Start:
    """Four views around the hand's length, from level and from 45 degrees up and down."""
    shape = jnp.zeros(len(tables.points.by_shape_m))
    pose = jax.jit(functools.partial(pose_points, tables.points))
    posed = pose(jnp.eye(3), jnp.asarray(tables.prior_mean_rad), shape)
    joints_m = np.asarray(posed.points_m[:, :N_JOINTS])
    wrist, index, middle, little = joints_m[:, [ROOT, INDEX_JOINT, MIDDLE_JOINT, LITTLE_JOINT]].T
    along = unit(middle - wrist)
    normal = np.cross(index - wrist, little - wrist)
    normal = unit(normal - normal @ along * along)
    upright = np.stack([along, np.cross(normal, along), normal])
    roll = axis_rotation(np.eye(3)[0], np.radians([0.0, 90.0, 180.0, 270.0]))
    pitch = axis_rotation(np.eye(3)[1], np.radians([-45.0, 0.0, 45.0]))
    rotations = np.einsum("pab,rbc,cd->prad", pitch, roll, upright).reshape(-1, 3, 3)
    return Start(joints_m, rotations.astype(np.float32))


def start_at(
    tables: Tables,
    start: Start,
    target: Target,
    seen: Observation,
    number: Int[Array, ""],
) -> Unknowns:
    """The mean pose, rotated to the 3D landmarks or, without them, in one of the directions.

    The position is that of least reprojection errors.
    """
    joints_m = jnp.asarray(start.joints_m)
    aligned, scale = _align(joints_m, target.joints_m, target.precision_3d)
    x, y = _unit(target.rays[:, MIDDLE_JOINT] - target.rays[:, ROOT])
    zero, one = jnp.zeros(()), jnp.ones(())
    in_image = jnp.stack([x, -y, zero, y, x, zero, zero, zero, one]).reshape(3, 3)
    blind = times(in_image[None], jnp.asarray(start.rotations)[number][None])
    has_joints = seen.joints_weight > 0
    rotation = jnp.where(has_joints, aligned, blind[0])
    rotated = times(rotation[None], joints_m[None])[0]
    points = jnp.where(has_joints, target.joints_m / scale, rotated)
    points = points - points[:, :1]
    t_m, _ = initial_estimate(points.T, *map(jnp.asarray, (seen.landmarks_px, seen.intrinsics)))
    t_m = jnp.nan_to_num(t_m)
    depth = jnp.clip(t_m[2], 2 * NEAREST_M, FARTHEST_M)
    ray = jnp.clip(t_m[:2] / depth, -FARTHEST_RAY, FARTHEST_RAY)
    return Unknowns(
        rotation=rotation,
        angles_rad=jnp.asarray(tables.prior_mean_rad),
        shape=target.shape_mean,
        position=jnp.append(ray, jnp.log(depth)),
        joints_rotation=jnp.zeros(3),
        joints_translation=_centre(rotated, target.precision_3d)[:, 0],
        joints_scale=-jnp.log(scale),
    )


def _unit(vector: Float[Array, "2"]) -> Float[Array, "2"]:
    """The direction of a vector; that of the x axis for 0."""
    length = jnp.sqrt(jnp.sum(vector**2))
    return jnp.where(length > 1e-9, vector / jnp.maximum(length, 1e-9), jnp.array([1.0, 0.0]))


def _align(
    before: Float[Array, "3 n"], after: Float[Array, "3 n"], weights: Float[Array, " n"]
) -> tuple[Float[Array, "3 3"], Float[Array, ""]]:
    """Rotation and scale from the first points to the second, weighted least squares."""
    before, after = before - _centre(before, weights), after - _centre(after, weights)
    weighted = before * (weights / jnp.maximum(jnp.max(weights), 1e-12))[None]
    u, s, vt = jnp.linalg.svd(jnp.matmul(after, weighted.T, precision="highest"))
    sign = jnp.append(jnp.ones(2), jnp.linalg.det(jnp.matmul(u, vt, precision="highest")))
    scale = jnp.sum(s * sign) / jnp.maximum(jnp.sum(weighted * before), 1e-12)
    rotation = jnp.matmul(u * sign[None], vt, precision="highest")
    return rotation, jnp.clip(scale, SMALLEST_SCALE, 1 / SMALLEST_SCALE)


class State(NamedTuple):
    """Progress of the search."""

    unknowns: Unknowns
    found: Residuals
    cost: Float[Array, ""]
    hessian: Float[Array, "t t"]
    damping: Float[Array, ""]
    # What the last step led to, not yet compared.
    candidate: Unknowns


def search(
    tables: Tables,
    start: Start,
    target: Target,
    weights: FitWeights,
    seen: Observation,
    rounds: Int[Array, ""],
) -> State:
    """The unknowns of least cost.

    In all but the last of the `rounds`, the blind starts are tried with a few steps each. Hands
    with 3D landmarks do not need this: they start from those in every round.
    """
    step = functools.partial(lm_step, tables, target, weights)

    def search_from(i: Array, best: State) -> State:
        is_last = i == rounds - 1
        first = start_at(tables, start, target, seen, i)
        first = choose(is_last & (seen.joints_weight <= 0), best.unknowns, first)
        state = best._replace(candidate=first, damping=jnp.float32(FIRST_DAMPING))
        count = 1 + jnp.where(is_last, STEPS, EXPLORATION_STEPS)
        state = jax.lax.fori_loop(0, count, step, state)
        return choose(is_last | ~(state.cost >= best.cost), state, best)

    def any_state() -> State:
        unknowns = start_at(tables, start, target, seen, jnp.int32(0))
        hessian = jnp.eye(13 + N_ANGLES + len(unknowns.shape))
        value, found = jnp.float32(0), residuals(tables, target, unknowns)
        return State(unknowns, found, value, hessian, value, unknowns)

    nothing = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(any_state)
    )
    return jax.lax.fori_loop(0, rounds, search_from, nothing._replace(cost=jnp.float32(jnp.inf)))


def choose(condition: Bool[Array, ""], first: Any, second: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), first, second)


def lm_step(
    tables: Tables, target: Target, weights: FitWeights, i: Int[Array, ""], state: State
) -> State:
    """Accepts the candidate if it lowers the cost, and takes a damped Gauss-Newton step."""
    relaxation = jnp.maximum(1.0, FIRST_OUTLIERS * OUTLIER_DECAY**i)
    known = (tables, target, weights, weights.outlier_std * relaxation)
    both = jax.tree.map(
        lambda *leaves: _apart(jnp.stack(leaves)),
        (state.unknowns, state.found),
        (state.candidate, residuals(tables, target, state.candidate)),
    )
    before, after = jax.vmap(functools.partial(cost, *known))(*both)
    better = (i == 0) | (after < before)  # False if it is not finite.
    unknowns, found = _apart(jax.tree.map(lambda leaf: jnp.where(better, leaf[1], leaf[0]), both))
    damping = jnp.clip(state.damping * jnp.where(better, 0.3, 4.0), 1e-5, 1e4)
    gradient, hessian = _apart(normal_equations(*known, unknowns, found))
    damped = hessian + jnp.diag(damping * (jnp.diag(hessian) + 1e-3))
    step = -solve(damped, gradient[:, None])[:, 0]
    step *= jnp.minimum(1, LARGEST_STEP / (jnp.max(jnp.abs(step)) + 1e-9))
    candidate = changed(unknowns, step)
    return State(unknowns, found, jnp.where(better, after, before), hessian, damping, candidate)


def _apart(values: Any) -> Any:
    """Keeps the compiler from repeating their computation in everything that uses them."""
    return jax.lax.optimization_barrier(values)


def solve(matrix: Float[Array, "t t"], right: Float[Array, "t k"]) -> Float[Array, "t k"]:
    """Solves positive definite equations."""
    factor = jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
    solve = functools.partial(jax.lax.linalg.triangular_solve, factor, left_side=True, lower=True)
    return solve(solve(right), transpose_a=True)
