"""The terms of a fit, and their derivatives, written out.

Terms: reprojection, 3D landmarks, density of poses, joint limits, shape, and fingers inside each
other. Unknowns: rotation (3), 45 joint angles, p shape coefficients, position (3), and where the 3D
landmarks lie: rotation (3), translation (3) and scale (1).

Everything is written for one hand; points lie along the last axis. Axes: n = 21 landmarks or joints
in FreiHAND order, a = 45 angles, p shape directions, t unknowns, c = 48 + p of them that move the
hand, g pairs of fingers.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.hand.articulation import N_ANGLES, load_pose_prior
from m3dhmr_jax.hand.capsules import Contacts, Overlap, build_contacts, finger_overlap
from m3dhmr_jax.hand.posed_points import (
    PointTable,
    PosedPoints,
    build_point_table,
    cross,
    point_derivatives,
    pose_points,
    shape_derivatives,
    times,
)
from m3dhmr_jax.math3d import rotation_matrices
from m3dhmr_jax.types import N_JOINTS

NEAREST_M, FARTHEST_M = 0.05, 20.0
TRANSLATION_STD_M = 0.1  # Of the 3D landmarks relative to the wrist: hardly a limit.


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
    base_weight_2d: float = 0.1
    base_weight_3d: float = 0.3
    joint_std_m: float = 0.01
    outlier_std: float = 6.0
    rotation_std_rad: float = 0.1
    scale_std: float = 0.2
    pose_std: float = 1.5
    limit_std_rad: float = 0.026
    free_overlap_m: float = 0.001
    overlap_std_m: float = 0.001


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
