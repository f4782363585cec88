"""Fits a hand model to landmarks: pose, shape and position by damped Gauss-Newton, no training.

Unknowns: rotation (3), 45 joint angles, p shape coefficients, position (3), and where the 3D
landmarks lie: rotation (3), translation (3) and scale (1). Terms: reprojection, 3D landmarks,
density of poses, joint limits, shape, and fingers inside each other.
Only landmarks and joints are posed (`m3dhmr_jax.hand.posed_points`), the mesh once at the end. All
derivatives are written out.

Everything is written for one hand; `make_fit` batches and compiles.
Axes: b hands, n = 21 landmarks or joints in FreiHAND order, j = 16 bones in MANO order, m points,
v vertices, a = 45 angles, p shape directions, t unknowns, c = 48 + p of them that move the hand,
g pairs of fingers, s starts. Inside, points lie along the last axis.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from m3dhmr_jax.camera.pinhole import apply_affine, invert_affine
from m3dhmr_jax.camera.root_recovery import initial_estimate
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.hand.articulation import N_ANGLES, angle_rotations, load_pose_prior
from m3dhmr_jax.hand.capsules import Contacts, Overlap, build_contacts, finger_overlap
from m3dhmr_jax.hand.posed_points import (
    PointTable,
    PosedPoints,
    build_point_table,
    cross,
    own_rotations,
    point_derivatives,
    pose_points,
    shape_derivatives,
    times,
)
from m3dhmr_jax.hand.skinning import skin
from m3dhmr_jax.math3d import axis_rotation, rotation_matrices, unit
from m3dhmr_jax.types import N_JOINTS, ROOT, FloatArray

STEPS = 12
SHAPE_STD = 1.0  # Shape coefficients are standard normal.
NETWORK_STD = 0.017  # Of landmarks on which all views agree, as a fraction of the box.
BASES = np.array([0, 1, 5, 9, 13, 17])  # Wrist and finger bases: conventions differ.
COMMON = np.array([2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16, 18, 19, 20])  # All others.
NEAREST_M, FARTHEST_M = 0.05, 20.0
# Limits that keep degenerate observations finite: rays, box, standard deviations, 3D landmarks.
FARTHEST_RAY, SMALLEST_BOX, SMALLEST_STD, LARGEST_M = 20.0, 1e-4, 1e-3, 1.0
SMALLEST_SCALE = 0.01
LARGEST_STEP = 1.5  # Of any unknown: radians, or standard deviations.
FIRST_DAMPING = 1e-2
EXPLORATION_STEPS = 5
# Outliers lose their weight step by step, so that a bad start is not mistaken for outliers.
FIRST_OUTLIERS, OUTLIER_DECAY = 4.0, 0.6
TRANSLATION_STD_M = 0.1  # Of the 3D landmarks relative to the wrist: hardly a limit.
RAYLEIGH_MEDIAN = 1.1774  # Median length of a 2D Gaussian of standard deviation 1.
INDEX_JOINT, MIDDLE_JOINT, LITTLE_JOINT = 6, 10, 18  # The second joints of these fingers.


class Observation(NamedTuple):
    """What is known of a right hand; left hands are mirrored by the caller."""

    landmarks_px: Float[FloatArray, "*b n 2"]
    # Standard deviation of each landmark along each axis, as a fraction of the hand's box.
    landmark_std: Float[FloatArray, "*b n"]
    # Up to rotation and scale; the axes of a camera that looks along the ray to the hand.
    joints_rel_m: Float[FloatArray, "*b n 3"]
    # 1, or 0 without 3D landmarks; more for more precise ones.
    joints_weight: Float[FloatArray, "*b"]
    # K: pixels from camera coordinates.
    intrinsics: Float[FloatArray, "*b 3 3"]
    # Prior of the shape coefficients: 0 and SHAPE_STD, or what other images of this hand said.
    shape_mean: Float[FloatArray, "*b p"]
    shape_std: Float[FloatArray, "*b p"]


class FittedHand(NamedTuple):
    """A hand in camera space, and how well it explains its observation."""

    verts_m: Float[Array, "*b v 3"]
    # Regressed from the mesh, FreiHAND order.
    joints_m: Float[Array, "*b n 3"]
    # Each joint's own rotation, the global one first, as `pose_hand` takes them.
    rotations: Float[Array, "*b j 3 3"]
    shape: Float[Array, "*b p"]
    # Of the posterior.
    shape_std: Float[Array, "*b p"]
    # Covariance of the wrist's position.
    root_covariance_m2: Float[Array, "*b 3 3"]
    # Median reprojection error of the landmarks that all conventions share, fraction of the box.
    residual: Float[Array, "*b"]
    # The same as a standard deviation along each axis, pixels.
    noise_px: Float[Array, "*b"]
    # Median distance to the aligned 3D landmarks, fraction of the hand's extent; 0 without them.
    joints_residual: Float[Array, "*b"]


# Of residual, residual of the 3D landmarks and disagreement: twice to four times what is usual.
_TYPICAL = (0.08, 0.2, 0.04)


def reliability(
    residual: Float[FloatArray, "*b"],
    joints_residual: Float[FloatArray, "*b"],
    disagreement: Float[FloatArray, "*b"],
) -> Float[FloatArray, "*b"]:
    """How far a fit can be trusted, from 0 to 1; below 0.5 the hand is probably wrong.

    Args:
        residual, joints_residual: of the `FittedHand`.
        disagreement: mean distance of several views' landmarks as a fraction of the hand's box, or
            two thirds of that between two passes of one view.

    Measured on 96 photos, 5 of them wrong, and 290 of one hand with 3D truth: below 0.5 lie 4 of
    the 5 and 4 of the other 91; of the 290, 7 % with a mean error of 11.7 mm against 7.5. It knows
    nothing of landmarks that are wrong but agree with each other and with a hand.
    """
    typical_2d, typical_3d, typical_views = _TYPICAL
    total = residual / typical_2d + joints_residual / typical_3d + disagreement / typical_views
    return 1 / (1 + total**2)


def landmark_std(disagreement: Float[FloatArray, "*b n"]) -> Float[Array, "*b n"]:
    """`Observation.landmark_std` of the detector's landmark network.

    Args:
        disagreement: of several views, per landmark, as a fraction of the hand's box; 0 if unknown.
    """
    return jnp.sqrt(NETWORK_STD**2 + jnp.asarray(disagreement) ** 2)


class FitWeights(NamedTuple):
    """How much each term counts. The defaults suit the landmark network of the detector.

    Attributes:
        base_shift: that network's finger bases lie so much of the way nearer to the wrist.
        tip_shift: its fingertips lie so much of the way nearer to the last joint.
        base_weight_2d, base_weight_3d: of wrist and finger bases, whose convention differs.
        joint_std_m: standard deviation of the 3D landmarks along each axis.
        outlier_std: residuals of so many standard deviations begin to lose their weight.
        rotation_std_rad, scale_std: of the 3D landmarks' rotation and (logarithmic) scale.
        pose_std: widens the density of poses.
        limit_std_rad: of angles beyond their limits.
        free_overlap_m, overlap_std_m: fingers may press into each other by so much, and deeper
            only by this standard deviation.
    """

    base_shift: float = 0.1
    tip_shift: float = 0.15
    base_weight_2d: float | Array = 0.1
    base_weight_3d: float | Array = 0.3
    joint_std_m: float | Array = 0.01
    outlier_std: float | Array = 6.0
    rotation_std_rad: float | Array = 0.1
    scale_std: float | Array = 0.2
    pose_std: float | Array = 1.5
    limit_std_rad: float | Array = 0.026
    free_overlap_m: float | Array = 0.001
    overlap_std_m: float | Array = 0.001


DEFAULT_WEIGHTS = FitWeights()
# For landmarks in the hand model's own convention.
OWN_CONVENTION = FitWeights(base_shift=0.0, tip_shift=0.0, base_weight_2d=1.0, base_weight_3d=1.0)


class Tables(NamedTuple):
    """All constants of a hand."""

    points: PointTable
    contacts: Contacts
    prior_mean_rad: Float[np.ndarray, " a"]
    prior_precision: Float[np.ndarray, "a a"]
    low_rad: Float[np.ndarray, " a"]
    high_rad: Float[np.ndarray, " a"]


def build_tables(hand: HandModel, base_shift: float, tip_shift: float) -> Tables:
    prior = load_pose_prior()
    precision = np.linalg.inv(prior.covariance_rad2.astype(np.float64))
    return Tables(
        points=build_point_table(hand, base_shift, tip_shift),
        contacts=build_contacts(hand),
        prior_mean_rad=prior.mean_rad.astype(np.float32),
        prior_precision=precision.astype(np.float32),
        low_rad=prior.low_rad.astype(np.float32),
        high_rad=prior.high_rad.astype(np.float32),
    )


class Unknowns(NamedTuple):
    """What is estimated; its changes are ordered like this."""

    rotation: Float[Array, "3 3"]
    angles_rad: Float[Array, " a"]
    shape: Float[Array, " p"]
    # Of the wrist: x / z, y / z, log z.
    position: Float[Array, "3"]
    # The 3D landmarks in the camera's axes, relative to the wrist: axis-angle from how they are
    # given, translation in metres, logarithmic scale.
    joints_rotation: Float[Array, "3"]
    joints_translation: Float[Array, "3"]
    joints_scale: Float[Array, ""]


class Target(NamedTuple):
    """An observation in the units of the fit."""

    # At depth 1.
    rays: Float[Array, "2 n"]
    # Reciprocal of the box's longer side.
    per_box: Float[Array, ""]
    # In the camera's axes, centred.
    joints_m: Float[Array, "3 n"]
    precision_2d: Float[Array, " n"]
    precision_3d: Float[Array, " n"]
    shape_mean: Float[Array, " p"]
    shape_precision: Float[Array, " p"]


def wrist_m(position: Float[Array, "3"]) -> Float[Array, "3"]:
    depth = jnp.exp(position[2])
    return jnp.stack([position[0] * depth, position[1] * depth, depth])


def changed(unknowns: Unknowns, step: Float[Array, " t"]) -> Unknowns:
    """After a step; the rotation changes by a small rotation from the left."""
    sizes = [3, N_ANGLES, len(unknowns.shape), 3, 3, 3]
    turn, *steps, scale = jnp.split(step, np.cumsum(sizes))
    rotation = times(rotation_matrices(turn[None]), unknowns.rotation[None])[0]
    others = [x + dx for x, dx in zip(unknowns[1:], [*steps, scale[0]], strict=True)]
    return Unknowns(rotation, *others)


class Residuals(NamedTuple):
    """Residuals at some unknowns, unweighted."""

    posed: PosedPoints
    # Camera space.
    joints_m: Float[Array, "3 n"]
    # Projected minus observed, fraction of the box.
    reprojection: Float[Array, "2 n"]
    # The hand's joints minus the 3D landmarks, and the latter alone without their translation.
    difference_m: Float[Array, "3 n"]
    aligned_m: Float[Array, "3 n"]
    overlap: Overlap


def residuals(tables: Tables, target: Target, unknowns: Unknowns) -> Residuals:
    posed = pose_points(tables.points, unknowns.rotation, unknowns.angles_rad, unknowns.shape)
    joints_rel = posed.points_m[:, :N_JOINTS]
    joints = joints_rel + wrist_m(unknowns.position)[:, None]
    projected = joints[:2] / jnp.maximum(joints[2:], NEAREST_M)
    rotation = rotation_matrices(unknowns.joints_rotation[None])
    aligned = jnp.exp(unknowns.joints_scale) * times(rotation, target.joints_m[None])[0]
    return Residuals(
        posed=posed,
        joints_m=joints,
        reprojection=(projected - target.rays) * target.per_box,
        difference_m=joints_rel - aligned - unknowns.joints_translation[:, None],
        aligned_m=aligned,
        overlap=finger_overlap(tables.contacts, posed.points_m),
    )


def cost(
    tables: Tables,
    target: Target,
    weights: FitWeights,
    outlier_std: Float[Array, ""],
    unknowns: Unknowns,
    found: Residuals,
) -> Float[Array, ""]:
    """Twice the negative log density; landmarks follow Geman and McClure's robust function."""
    squares = jnp.stack(
        [
            jnp.sum(found.reprojection**2, axis=0) * target.precision_2d,
            jnp.sum(found.difference_m**2, axis=0) * target.precision_3d,
        ]
    )
    robust = jnp.sum(squares / (1 + squares / outlier_std**2))
    deep_m = jnp.maximum(found.overlap.depth_m - weights.free_overlap_m, 0)
    overlap = jnp.sum(deep_m**2) / weights.overlap_std_m**2
    return robust + overlap + prior_terms(tables, target, weights, unknowns).cost


class PriorTerms(NamedTuple):
    """The part of the cost that needs no landmarks, with half its derivatives."""

    cost: Float[Array, ""]
    gradient: Float[Array, " t"]
    hessian: Float[Array, "t t"]


def prior_terms(
    tables: Tables, target: Target, weights: FitWeights, unknowns: Unknowns
) -> PriorTerms:
    """Density of poses, limits, shape, and how the 3D landmarks lie."""
    angles_rad, p = unknowns.angles_rad, len(unknowns.shape)
    precision = jnp.concatenate(
        [
            *(jnp.zeros(3 + N_ANGLES), target.shape_precision, jnp.zeros(3)),
            *(jnp.full(3, weights.rotation_std_rad**-2), jnp.full(3, TRANSLATION_STD_M**-2)),
            jnp.full(1, weights.scale_std**-2),
        ]
    )
    constant = jnp.pad(tables.prior_precision, [(3, p + 10)] * 2) / weights.pose_std**2
    hessian = jnp.diag(precision) + constant
    deviation = jnp.concatenate(
        [
            *(jnp.zeros(3), angles_rad - tables.prior_mean_rad, unknowns.shape - target.shape_mean),
            *(jnp.zeros(3), unknowns.joints_rotation, unknowns.joints_translation),
            unknowns.joints_scale[None],
        ]
    )
    gradient = jnp.matmul(hessian, deviation, precision="highest")
    beyond = jnp.maximum(angles_rad - tables.high_rad, 0)
    beyond += jnp.minimum(angles_rad - tables.low_rad, 0)
    beyond = jnp.pad(beyond, (3, p + 10)) / weights.limit_std_rad
    is_beyond = jnp.where(beyond == 0, 0, weights.limit_std_rad**-2)
    return PriorTerms(
        jnp.sum(gradient * deviation) + jnp.sum(beyond**2),
        gradient + beyond / weights.limit_std_rad,
        hessian + jnp.diag(is_beyond),
    )


def normal_equations(
    tables: Tables,
    target: Target,
    weights: FitWeights,
    outlier_std: Float[Array, ""],
    unknowns: Unknowns,
    found: Residuals,
) -> tuple[Float[Array, " t"], Float[Array, "t t"]]:
    """Half the gradient and the Gauss-Newton Hessian of the cost.

    Every landmark pulls at the hand like a spring: across its ray in 2D, in all directions in 3D.
    """
    weight_2d = _robust(found.reprojection, target.precision_2d, outlier_std)
    weight_3d = _robust(found.difference_m, target.precision_3d, outlier_std)
    depth = jnp.maximum(found.joints_m[2], NEAREST_M)
    ray_x, ray_y = found.joints_m[:2] / depth[None]
    stiffness = weight_2d * (target.per_box / depth) ** 2

    def pull_2d(moved: Float[Array, "k 3 n"]) -> Float[Array, "k 3 n"]:
        x = stiffness[None] * (moved[:, 0] - ray_x[None] * moved[:, 2])
        y = stiffness[None] * (moved[:, 1] - ray_y[None] * moved[:, 2])
        return jnp.stack([x, y, -ray_x[None] * x - ray_y[None] * y], axis=1)

    hand, eye = point_derivatives(tables.points, found.posed), jnp.eye(3)
    by_position = jnp.exp(unknowns.position[2]) * eye.at[2, :2].set(unknowns.position[:2])
    position = jnp.broadcast_to(by_position[:, :, None], (3, 3, N_JOINTS))
    spun = cross(_left_jacobian(unknowns.joints_rotation).T[:, :, None], found.aligned_m[None])
    moved = jnp.broadcast_to(eye[:, :, None], (3, 3, N_JOINTS))
    joints = -jnp.concatenate([spun, moved, found.aligned_m[None]])
    x, y = found.reprojection * (weight_2d * target.per_box / depth)[None]
    force_2d = jnp.stack([x, y, -ray_x * x - ray_y * y])
    force_3d = weight_3d[None] * found.difference_m
    pull_hand = pull_2d(hand) + weight_3d[None, None] * hand
    pull_position, pull_joints = pull_2d(position), weight_3d[None, None] * joints
    contact, deep = _contact_derivatives(tables, weights, found)
    left = jnp.concatenate([_flat(hand), contact], axis=1)
    right = jnp.concatenate([_flat(pull_hand), contact], axis=1)
    others = jnp.concatenate([pull_position, pull_joints, (force_2d + force_3d)[None]])
    others = jnp.pad(_flat(others), ((0, 0), (0, len(deep)))).at[-1, -len(deep) :].set(deep)
    top = jnp.matmul(left, jnp.concatenate([right, others]).T, precision="highest")
    with_position = [_flat(x) for x in (position, jnp.concatenate([pull_position, force_2d[None]]))]
    with_joints = [_flat(x) for x in (joints, jnp.concatenate([pull_joints, force_3d[None]]))]
    middle, bottom = (
        jnp.matmul(a, b.T, precision="highest") for a, b in (with_position, with_joints)
    )
    c, gradient = len(hand), jnp.concatenate([top[:, -1], middle[:, -1], bottom[:, -1]])
    sides = top[:, c:-1]
    corner = jnp.pad(middle[:, :-1], ((0, 7), (0, 7))) + jnp.pad(bottom[:, :-1], ((3, 0), (3, 0)))
    hessian = jnp.block([[top[:, :c], sides], [sides.T, corner]])
    known = prior_terms(tables, target, weights, unknowns)
    return gradient + known.gradient, hessian + known.hessian


def _flat(rows: Float[Array, "c 3 n"]) -> Float[Array, "c k"]:
    return rows.reshape(len(rows), -1)


def _robust(
    residuals: Float[Array, "d n"], precision: Float[Array, " n"], outlier_std: Float[Array, ""]
) -> Float[Array, " n"]:
    """Precisions of the quadratic that touches the robust cost."""
    return precision / (1 + jnp.sum(residuals**2, axis=0) * precision / outlier_std**2) ** 2


def _contact_derivatives(
    tables: Tables, weights: FitWeights, found: Residuals
) -> tuple[Float[Array, "c g"], Float[Array, " g"]]:
    """Derivatives of overlaps beyond the free one, in standard deviations, and the overlaps."""
    posed, overlap = found.posed, found.overlap
    deep_m = jnp.maximum(overlap.depth_m - weights.free_overlap_m, 0)
    arms = jnp.matmul(posed.arms_m, overlap.weights[None], precision="highest")
    torque = cross(arms, overlap.direction[None])
    by_rotation = times(jnp.swapaxes(posed.axes, 1, 2), torque).reshape(-1, len(deep_m))
    columns = shape_derivatives(tables.points, posed)
    columns = jnp.matmul(columns, overlap.weights[None], precision="highest")
    by_shape = jnp.sum(columns * overlap.direction[None], axis=1)
    active = jnp.where(deep_m > 0, 1 / weights.overlap_std_m, 0)
    derivatives = -jnp.concatenate([by_rotation, by_shape]) * active[None]
    return derivatives, deep_m / weights.overlap_std_m


def _left_jacobian(axis_angle: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """From a small change of `axis_angle` to the small rotation from the left that it causes."""
    square = jnp.sum(axis_angle**2)
    small = square < 1e-4
    angle = jnp.sqrt(jnp.where(small, 1.0, square))
    first = jnp.where(small, 0.5 - square / 24, (1 - jnp.cos(angle)) / angle**2)
    second = jnp.where(small, 1 / 6, (angle - jnp.sin(angle)) / angle**3)
    cross_matrix = jnp.cross(axis_angle[None], jnp.eye(3)).T
    squared = jnp.matmul(cross_matrix, cross_matrix, precision="highest")
    return jnp.eye(3) + first * cross_matrix + second * squared


# ---- The search


class State(NamedTuple):
    """Progress of the search."""

    unknowns: Unknowns
    found: Residuals
    cost: Float[Array, ""]
    hessian: Float[Array, "t t"]
    damping: Float[Array, ""]
    # What the last step led to, not yet compared.
    candidate: Unknowns


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
    step = -_solve(damped, gradient[:, None])[:, 0]
    step *= jnp.minimum(1, LARGEST_STEP / (jnp.max(jnp.abs(step)) + 1e-9))
    candidate = changed(unknowns, step)
    return State(unknowns, found, jnp.where(better, after, before), hessian, damping, candidate)


def _apart(values: Any) -> Any:
    """Keeps the compiler from repeating their computation in everything that uses them."""
    return jax.lax.optimization_barrier(values)


def _solve(matrix: Float[Array, "t t"], right: Float[Array, "t k"]) -> Float[Array, "t k"]:
    """Solves positive definite equations."""
    factor = jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
    solve = functools.partial(jax.lax.linalg.triangular_solve, factor, left_side=True, lower=True)
    return solve(solve(right), transpose_a=True)


def choose(condition: Bool[Array, ""], first: Any, second: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), first, second)


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


def search(
    tables: Tables,
    start: Start,
    target: Target,
    weights: FitWeights,
    steps: int,
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
        count = 1 + jnp.where(is_last, steps, EXPLORATION_STEPS)
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


def describe(
    hand: HandModel, tables: Tables, target: Target, seen: Observation, state: State
) -> FittedHand:
    """The mesh at these unknowns, its uncertainty and its residuals."""
    unknowns, found = state.unknowns, state.found
    p, hessian = len(unknowns.shape), state.hessian
    columns = np.arange(3 + N_ANGLES, 3 + N_ANGLES + p + 3)
    damped = hessian + jnp.diag(1e-6 * jnp.diag(hessian) + 1e-6)
    covariance = _solve(damped, jnp.eye(len(hessian))[:, columns])[columns]
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


def make_fit(
    hand: HandModel, *, weights: FitWeights = DEFAULT_WEIGHTS, steps: int = STEPS
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
            state = search(tables, start, target, weights, steps, seen, rounds)
            return describe(hand, tables, target, seen, state)

        return jax.vmap(one)(seen)

    return fit
