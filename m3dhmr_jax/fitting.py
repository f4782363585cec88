"""Fits a hand model to landmarks: pose, shape and position by damped Gauss-Newton, no training.

Unknowns: rotation (3), position (3), 45 joint angles, p shape coefficients, and the rotation (3)
and scale (1) of the 3D landmarks. Residuals: reprojection, 3D landmarks up to rotation and scale,
density of poses, joint limits, shape, and fingers inside each other.
Skinning is linear in the bones' rotations, so a regressed landmark is `sum_j T_j e_j` with one
vector per bone instead of 778 vertices; the mesh is posed once, at the end. All derivatives are
written out: rotating joint k moves a landmark by `axis x sum_(j below k) T_j e_j`. That of MANO's
pose correctives, under a millimetre, is left out.

Everything is written for one hand; `make_fit` batches and compiles.
Axes: b hands, n = 21 landmarks or joints in FreiHAND order, j = 16 bones in MANO order, m points
(landmarks, then bones' joints), a = 45 angles, p shape directions, t unknowns, q capsule pairs,
g pairs of fingers.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from m3dhmr_jax.camera.pinhole import apply_affine, invert_affine
from m3dhmr_jax.camera.root_recovery import initial_estimate
from m3dhmr_jax.hand import HandModel, pose_hand
from m3dhmr_jax.hand.articulation import (
    N_ANGLES,
    JointFrames,
    angle_axes,
    angle_rotations,
    joint_frames,
    load_pose_prior,
)
from m3dhmr_jax.hand.capsules import TIP_LANDMARKS, closest_fractions, fit_capsules
from m3dhmr_jax.math3d import axis_rotation, rotation_matrices, unit
from m3dhmr_jax.types import N_JOINTS, ROOT, FloatArray

STEPS = 12
BASES = np.array([0, 1, 5, 9, 13, 17])  # Wrist and finger bases: conventions differ.
COMMON = np.array([2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16, 18, 19, 20])  # All others.
FINGER_BASES = np.array([5, 9, 13, 17])
NEAREST_M, FARTHEST_M = 0.05, 20.0
# Limits that keep degenerate observations finite: rays, box and standard deviations.
FARTHEST_RAY, SMALLEST_BOX, SMALLEST_STD = 20.0, 1e-4, 1e-3
LARGEST_STEP = 1.5  # Of any unknown: radians, or standard deviations.
FIRST_DAMPING = 1e-2
EXPLORATION_STEPS = 5
# Outliers lose their weight step by step, so that a bad start is not mistaken for outliers.
FIRST_OUTLIERS, OUTLIER_DECAY = 4.0, 0.6
RAYLEIGH_MEDIAN = 1.1774  # Median length of a 2D Gaussian of standard deviation 1.
MIDDLE_JOINT, INDEX_JOINT, LITTLE_JOINT = 10, 6, 18


class Observation(NamedTuple):
    """What is known of a right hand; left hands are mirrored by the caller."""

    landmarks_px: Float[FloatArray, "*b n 2"]
    # Standard deviation of each landmark along each axis, as a fraction of the hand's box.
    landmark_std: Float[FloatArray, "*b n"]
    # Up to rotation and scale; the axes of a camera that looks along the ray to the hand.
    joints_rel_m: Float[FloatArray, "*b n 3"]
    # 1, or 0 without 3D landmarks.
    joints_weight: Float[FloatArray, "*b"]
    # K: pixels from camera coordinates.
    intrinsics: Float[FloatArray, "*b 3 3"]
    # Prior of the shape coefficients: 0 and 1, or what other images of this hand said.
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
    # The same of all landmarks as a standard deviation along each axis, pixels.
    noise_px: Float[Array, "*b"]
    # Median distance to the aligned 3D landmarks, as a fraction of the hand's extent; 0 without.
    joints_residual: Float[Array, "*b"]


class FitWeights(NamedTuple):
    """How much each residual counts. The defaults suit the landmark network of the detector.

    Attributes:
        base_shift: that network's finger bases lie so much of the way nearer to the wrist.
        base_weight_2d, base_weight_3d: of wrist and finger bases, whose convention differs.
        joint_std_m: standard deviation of the 3D landmarks along each axis.
        outlier_std: residuals of so many standard deviations begin to lose their weight.
        rotation_std_rad, scale_std: of the 3D landmarks' rotation and (logarithmic) scale.
        pose_std: widens the density of poses.
        limit_std_rad: of angles beyond their limits.
        free_penetration_m, penetration_std_m: fingers may touch by so much, and deeper only by
            this standard deviation.
    """

    base_shift: float = 0.1
    base_weight_2d: float | Array = 0.2
    base_weight_3d: float | Array = 0.1
    joint_std_m: float | Array = 0.01
    outlier_std: float | Array = 6.0
    rotation_std_rad: float | Array = 0.1
    scale_std: float | Array = 0.2
    pose_std: float | Array = 1.5
    limit_std_rad: float | Array = 0.026
    free_penetration_m: float | Array = 0.002
    penetration_std_m: float | Array = 0.002


DEFAULT_WEIGHTS = FitWeights()
# For landmarks in this hand model's own convention.
OWN_CONVENTION = FitWeights(base_shift=0.0, base_weight_2d=1.0, base_weight_3d=1.0)


# ---- Points as sums over bones


class Points(NamedTuple):
    """Points of the hand, relative to the wrist joint: `sum_j T_j e_j` with bone rotations T.

    `e = offsets + shape . by_shape + (R - I) . by_pose`, R the joints' own rotations.
    """

    offsets: Float[np.ndarray, "m j 3"]
    by_shape: Float[np.ndarray, "p m j 3"]
    by_pose: Float[np.ndarray, "q m j 3"] | None


def build_points(hand: HandModel) -> Points:
    """The 21 landmarks, then the 16 joints."""
    weights = np.einsum("nv,vj->njv", hand.joint_regressor, hand.skin_weights, dtype=np.float64)
    sums = np.concatenate([weights.sum(2), np.eye(len(hand.parents))])  # (m, j)
    below = _is_below(hand.parents)

    def per_bone(verts: np.ndarray, joints: np.ndarray) -> np.ndarray:
        moments = np.einsum("njv,va->nja", weights, verts.astype(np.float64))
        moments = np.concatenate([moments, np.einsum("mj,ja->mja", np.eye(len(joints)), joints)])
        offsets = moments - sums[..., None] * joints
        for joint, parent in enumerate(hand.parents[1:], start=1):
            # The bone from parent to joint carries all that hangs below.
            bone = joints[joint] - joints[parent]
            offsets[:, parent] += (sums @ below[joint])[:, None] * bone
        return offsets.astype(np.float32)

    by_shape = [
        per_bone(verts, joints)
        for verts, joints in zip(hand.shape_basis, hand.joint_shape_basis, strict=True)
    ]
    by_pose = None
    if hand.pose_basis is not None:
        by_pose = np.einsum("njv,qva->qnja", weights, hand.pose_basis)
        by_pose = np.pad(by_pose, [(0, 0), (0, len(hand.parents)), (0, 0), (0, 0)])
        by_pose = by_pose.astype(np.float32)
    return Points(per_bone(hand.verts_m, hand.rest_joints), np.stack(by_shape), by_pose)


def _is_below(parents: Int[np.ndarray, " j"]) -> Float[np.ndarray, "j j"]:
    """1 where the second joint is the first or moves with it."""
    below = np.eye(len(parents))
    for joint in range(len(parents) - 1, 0, -1):
        below[parents[joint]] += below[joint]
    return below


def shift_bases(points: Points, base_shift: float) -> Points:
    """Points whose finger bases are moved towards the wrist."""
    shift = np.zeros((len(points.offsets), 1, 1), np.float32)
    shift[FINGER_BASES] = base_shift

    def moved(offsets: np.ndarray) -> np.ndarray:
        return offsets + shift * (offsets[..., :1, :, :] - offsets)

    by_pose = None if points.by_pose is None else moved(points.by_pose)
    return Points(moved(points.offsets), moved(points.by_shape), by_pose)


class PosedPoints(NamedTuple):
    """Points of a posed hand and what their derivatives need."""

    points_m: Float[Array, "m 3"]
    # Rotation of each bone from rest.
    bones: Float[Array, "j 3 3"]
    # What moves rigidly with each finger joint: the sum over the bones below of `T_j e_j`.
    below_m: Float[Array, "m j-1 3"]
    # The axis of each angle (last axis) in the camera's frame.
    axes: Float[Array, "j-1 3 3"]
    own_rotations: Float[Array, "j-1 3 3"]


def pose_points(
    points: Points,
    frames: JointFrames,
    rotation: Float[Array, "3 3"],
    angles_rad: Float[Array, " a"],
    shape: Float[Array, " p"],
) -> PosedPoints:
    """Poses the points alone."""
    angles = angles_rad.reshape(-1, 3)
    own = _times(_times(frames.before, angle_rotations(angles)), frames.after)
    # Five fingers of three joints.
    own_chain = own.reshape(5, 3, 3, 3)
    first = _times(rotation[None], own_chain[:, 0])
    second = _times(first, own_chain[:, 1])
    third = _times(second, own_chain[:, 2])
    parents = jnp.stack([jnp.broadcast_to(rotation, (5, 3, 3)), first, second], axis=1)
    bones = jnp.concatenate(
        [rotation[None], jnp.stack([first, second, third], 1).reshape(-1, 3, 3)]
    )
    p, m, j, _ = points.by_shape.shape
    by_shape = jnp.asarray(points.by_shape).reshape(p, -1)
    offsets = points.offsets + jnp.dot(shape, by_shape, precision="highest").reshape(m, j, 3)
    if points.by_pose is not None:
        bend = (own - jnp.eye(3)[None]).reshape(-1)
        by_pose = jnp.asarray(points.by_pose).reshape(len(bend), -1)
        offsets = offsets + jnp.dot(bend, by_pose, precision="highest").reshape(m, j, 3)
    turned = jnp.sum(bones[None] * offsets[:, :, None, :], axis=-1)
    chains = turned[:, 1:].reshape(m, 5, 3, 3)
    outer = chains[:, :, 2]
    middle = outer + chains[:, :, 1]
    inner = middle + chains[:, :, 0]
    below = jnp.stack([inner, middle, outer], axis=2).reshape(m, -1, 3)
    axes = _times(_times(parents.reshape(-1, 3, 3), frames.before), angle_axes(angles))
    return PosedPoints(turned[:, 0] + jnp.sum(inner, axis=1), bones, below, axes, own)


def _times(a: Float[FloatArray, "k 3 3"], b: Float[FloatArray, "k 3 3"]) -> Float[Array, "k 3 3"]:
    """Small products as plain arithmetic: precise everywhere, and faster than library calls."""
    return jnp.sum(jnp.asarray(a)[:, :, :, None] * jnp.asarray(b)[:, None, :, :], axis=2)


def point_derivatives(points: Points, posed: PosedPoints) -> Float[Array, "m 3 d"]:
    """By the rotation (about the camera's axes), the angles and the shape: d = 48 + p."""
    m = len(posed.points_m)
    by_rotation = jnp.cross(jnp.eye(3)[None], posed.points_m[:, None])  # (m, 3, xyz)
    axes = jnp.swapaxes(posed.axes, 1, 2)  # (j, 3, xyz)
    by_angle = jnp.cross(axes[None], posed.below_m[:, :, None]).reshape(m, N_ANGLES, 3)
    p, _, j, _ = points.by_shape.shape
    tensor = jnp.asarray(np.moveaxis(points.by_shape, (2, 3), (0, 1)).reshape(j * 3, -1))
    bones = jnp.moveaxis(posed.bones, 0, 1).reshape(3, -1)  # (xyz, j * 3)
    by_shape = jnp.dot(bones, tensor, precision="highest").reshape(3, p, m)
    by_shape = jnp.moveaxis(by_shape, 2, 0)
    others = jnp.concatenate([by_rotation, by_angle], axis=1)
    return jnp.concatenate([jnp.swapaxes(others, 1, 2), by_shape], axis=2)


# ---- Fingers inside each other


class FingerPairs(NamedTuple):
    """Capsules that may overlap, grouped by the two fingers they belong to."""

    # Points (indices of `Points`) at both ends of the first and of the second capsule.
    ends: Int[np.ndarray, "q 4"]
    # Distance of the two axes at which they overlap as much as at rest.
    distance_m: Float[np.ndarray, " q"]
    # Rows: the capsule pairs of two fingers, filled with the first of them.
    groups: Int[np.ndarray, "g k"]


def build_finger_pairs(hand: HandModel, points: Points) -> FingerPairs:
    capsules = fit_capsules(hand)
    point_of = np.concatenate([N_JOINTS + np.arange(len(hand.parents)), TIP_LANDMARKS])
    ends = point_of[capsules.ends[capsules.pairs]].reshape(-1, 4)
    at_rest = points.offsets.sum(1)[ends]
    rest_m = np.linalg.norm(_apart(jnp.asarray(at_rest))[1], axis=1)
    distance_m = np.minimum(capsules.radius_m[capsules.pairs].sum(1), rest_m)
    fingers = capsules.finger[capsules.pairs]
    members = [
        np.flatnonzero((fingers == pair).all(1))
        for pair in itertools.combinations_with_replacement(range(5), 2)
    ]
    members = [each for each in members if len(each)]
    longest = max(map(len, members))
    groups = np.stack([np.pad(x, (0, longest - len(x)), constant_values=x[0]) for x in members])
    return FingerPairs(ends, distance_m.astype(np.float32), groups)


def _apart(
    corners: Float[Array, "q 4 3"],
) -> tuple[Float[Array, "q 4"], Float[Array, "q 3"]]:
    """From the second segment to the first where they are closest, as weights of the corners."""
    u, w = closest_fractions(*jnp.moveaxis(corners, 1, 0))
    weights = jnp.stack([1 - u, u, w - 1, -w], axis=1)
    return weights, jnp.sum(weights[..., None] * corners, axis=1)


def penetrations(
    pairs: FingerPairs, points_m: Float[Array, "m 3"]
) -> tuple[Float[Array, " g"], Float[Array, "g 4 3"], Int[Array, "g 4"]]:
    """Deepest overlap of each two fingers beyond that at rest, metres, and its derivative.

    The derivative is by the four points of the last result. Negative where fingers are apart.
    """
    weights, apart = _apart(points_m[pairs.ends])
    gap_m = jnp.sqrt(jnp.sum(apart**2, axis=1) + 1e-12)
    depth_m = pairs.distance_m - gap_m
    deepest = jnp.argmax(depth_m[pairs.groups], axis=1)
    chosen = jnp.take_along_axis(jnp.asarray(pairs.groups), deepest[:, None], axis=1)[:, 0]
    direction = apart[chosen] / gap_m[chosen][:, None]
    by_points = -weights[chosen][:, :, None] * direction[:, None]
    return depth_m[chosen], by_points, jnp.asarray(pairs.ends)[chosen]


# ---- Residuals and normal equations


class Tables(NamedTuple):
    """All constants of a hand."""

    points: Points
    frames: JointFrames
    pairs: FingerPairs
    prior_mean_rad: Float[np.ndarray, " a"]
    prior_precision: Float[np.ndarray, "a a"]
    low_rad: Float[np.ndarray, " a"]
    high_rad: Float[np.ndarray, " a"]


def build_tables(hand: HandModel, base_shift: float) -> Tables:
    points, prior = build_points(hand), load_pose_prior()
    frames = JointFrames(*(each.astype(np.float32) for each in joint_frames(hand)))
    pairs = build_finger_pairs(hand, points)
    precision = np.linalg.inv(prior.covariance_rad2.astype(np.float64)).astype(np.float32)
    limits = (prior.low_rad.astype(np.float32), prior.high_rad.astype(np.float32))
    shifted = shift_bases(points, base_shift)
    return Tables(shifted, frames, pairs, prior.mean_rad.astype(np.float32), precision, *limits)


class Unknowns(NamedTuple):
    """What is estimated; its changes are ordered like this."""

    rotation: Float[Array, "3 3"]
    # Of the wrist: x / z, y / z, log z.
    position: Float[Array, "3"]
    angles_rad: Float[Array, " a"]
    shape: Float[Array, " p"]
    # From the 3D landmarks in the camera's axes to the hand's: axis-angle, log scale.
    joints_rotation: Float[Array, "3"]
    joints_scale: Float[Array, ""]


class Target(NamedTuple):
    """An observation in the units of the fit."""

    # At depth 1.
    rays: Float[Array, "n 2"]
    # Reciprocal of the box's longer side.
    per_box: Float[Array, ""]
    # In the camera's axes.
    joints_m: Float[Array, "n 3"]
    precision_2d: Float[Array, " n"]
    precision_3d: Float[Array, " n"]
    shape_mean: Float[Array, " p"]
    shape_precision: Float[Array, " p"]


def wrist_m(position: Float[Array, "3"]) -> Float[Array, "3"]:
    depth = jnp.exp(position[2])
    return jnp.stack([position[0] * depth, position[1] * depth, depth])


def changed(unknowns: Unknowns, step: Float[Array, " t"]) -> Unknowns:
    """After a step; rotations change by a small rotation from the left."""
    ends = np.cumsum([3, 3, N_ANGLES, len(unknowns.shape), 3])
    turn, position, angles, shape, joints_rotation, scale = jnp.split(step, ends)
    rotation = rotation_matrices(turn[None])[0]
    return Unknowns(
        jnp.matmul(rotation, unknowns.rotation, precision="highest"),
        unknowns.position + position,
        unknowns.angles_rad + angles,
        unknowns.shape + shape,
        unknowns.joints_rotation + joints_rotation,
        unknowns.joints_scale + scale[0],
    )


class Residuals(NamedTuple):
    """Residuals at some unknowns, before robust weighting."""

    posed: PosedPoints
    # Camera space.
    points_m: Float[Array, "n 3"]
    # Fraction of the box.
    reprojection: Float[Array, "n 2"]
    # Aligned 3D landmarks minus the hand's, both centred; the former alone.
    joints_m: Float[Array, "n 3"]
    aligned_m: Float[Array, "n 3"]
    penetration_m: Float[Array, " g"]
    penetration_by_points: Float[Array, "g 4 3"]
    penetration_points: Int[Array, "g 4"]


def residuals(tables: Tables, target: Target, unknowns: Unknowns) -> Residuals:
    posed = pose_points(
        tables.points, tables.frames, unknowns.rotation, unknowns.angles_rad, unknowns.shape
    )
    landmarks = posed.points_m[:N_JOINTS]
    points = landmarks + wrist_m(unknowns.position)[None]
    projected = points[:, :2] / jnp.maximum(points[:, 2:], NEAREST_M)
    reprojection = (projected - target.rays) * target.per_box
    rotation = rotation_matrices(unknowns.joints_rotation[None])[0]
    scale = jnp.exp(unknowns.joints_scale)
    aligned = scale * jnp.matmul(_centred(target.joints_m, target.precision_3d), rotation.T)
    centred = _centred(landmarks, target.precision_3d)
    depth = penetrations(tables.pairs, posed.points_m)
    return Residuals(posed, points, reprojection, centred - aligned, aligned, *depth)


def _centred(values: Float[Array, "n d *k"], weights: Float[Array, " n"]) -> Float[Array, "n d *k"]:
    total = jnp.maximum(jnp.sum(weights), 1e-12)
    mean = jnp.tensordot(weights / total, values, axes=1)
    return values - mean[None]


class Quadratic(NamedTuple):
    """Half the derivatives of a cost: value, gradient and (Gauss-Newton) Hessian."""

    value: Float[Array, ""]
    gradient: Float[Array, " t"]
    hessian: Float[Array, "t t"]


def prior_terms(
    tables: Tables, target: Target, weights: FitWeights, unknowns: Unknowns
) -> Quadratic:
    """Pose density, limits, shape, and the 3D landmarks' rotation and scale."""
    p = len(unknowns.shape)
    angles_rad = unknowns.angles_rad
    deviation = jnp.concatenate(
        [
            *(jnp.zeros(6), angles_rad - tables.prior_mean_rad),
            *(unknowns.shape - target.shape_mean, unknowns.joints_rotation),
            unknowns.joints_scale[None],
        ]
    )
    alignment = [jnp.full(3, weights.rotation_std_rad**-2), jnp.full(1, weights.scale_std**-2)]
    diagonal = jnp.concatenate([jnp.zeros(6 + N_ANGLES), target.shape_precision, *alignment])
    precision = np.pad(tables.prior_precision, [(6, p + 4)] * 2) / weights.pose_std**2
    hessian = jnp.diag(diagonal) + precision
    gradient = jnp.matmul(hessian, deviation, precision="highest")
    beyond = jnp.maximum(angles_rad - tables.high_rad, 0)
    beyond += jnp.minimum(angles_rad - tables.low_rad, 0)
    beyond = jnp.pad(beyond / weights.limit_std_rad, (6, p + 4))
    value = jnp.sum(gradient * deviation) + jnp.sum(beyond**2)
    curvature = jnp.where(beyond == 0, 0, weights.limit_std_rad**-2)
    gradient += beyond / weights.limit_std_rad
    return Quadratic(value, gradient, hessian + jnp.diag(curvature))


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
            jnp.sum(found.reprojection**2, axis=1) * target.precision_2d,
            jnp.sum(found.joints_m**2, axis=1) * target.precision_3d,
        ]
    )
    robust = jnp.sum(squares / (1 + squares / outlier_std**2))
    deep = jnp.maximum(found.penetration_m - weights.free_penetration_m, 0)
    overlap = jnp.sum(deep**2) / weights.penetration_std_m**2
    return robust + overlap + prior_terms(tables, target, weights, unknowns).value


def normal_equations(
    tables: Tables,
    target: Target,
    weights: FitWeights,
    outlier_std: Float[Array, ""],
    unknowns: Unknowns,
    found: Residuals,
) -> tuple[Float[Array, " t"], Float[Array, "t t"]]:
    """Gradient and Gauss-Newton Hessian of half the cost."""
    derivatives = point_derivatives(tables.points, found.posed)  # (m, 3, d)
    landmarks, n = derivatives[:N_JOINTS], N_JOINTS
    p = len(unknowns.shape)
    w2 = _robust_weights(found.reprojection, target.precision_2d, outlier_std)
    w3 = _robust_weights(found.joints_m, target.precision_3d, outlier_std)
    # Reprojection.
    depth = jnp.maximum(found.points_m[:, 2], NEAREST_M)
    rays = found.points_m[:, :2] / depth[:, None]
    scale = target.per_box / depth
    by_pose = landmarks[:, :2] - rays[:, :, None] * landmarks[:, None, 2]
    z = jnp.exp(unknowns.position[2])
    wrist_ray = unknowns.position[None, :2] - rays
    one, zero = jnp.full(n, z), jnp.zeros(n)
    by_position = jnp.stack(
        [jnp.stack([one, zero], 1), jnp.stack([zero, one], 1), wrist_ray * z], axis=2
    )
    rows_2d = jnp.concatenate(
        [by_pose[:, :, :3], by_position, by_pose[:, :, 3:], jnp.zeros((n, 2, 4))], axis=2
    )
    root_2d = jnp.sqrt(w2)
    rows_2d = rows_2d * (scale * root_2d)[:, None, None]
    right_2d = found.reprojection * root_2d[:, None]
    # 3D landmarks.
    root_3d = jnp.sqrt(w3)
    by_pose = _centred(landmarks, target.precision_3d)
    by_rotation = jnp.cross(found.aligned_m[:, None], jnp.eye(3)[None])  # (n, 3 unknowns, xyz)
    by_rotation = jnp.matmul(
        jnp.swapaxes(by_rotation, 1, 2), _left_jacobian(unknowns.joints_rotation)[None]
    )
    rows_3d = jnp.concatenate(
        [
            *(by_pose[:, :, :3], jnp.zeros((n, 3, 3)), by_pose[:, :, 3:]),
            *(by_rotation, -found.aligned_m[:, :, None]),
        ],
        axis=2,
    )
    rows_3d = rows_3d * root_3d[:, None, None]
    right_3d = found.joints_m * root_3d[:, None]
    # Penetration.
    deep = jnp.maximum(found.penetration_m - weights.free_penetration_m, 0)
    active = jnp.where(deep > 0, 1 / weights.penetration_std_m, 0)
    moved = derivatives[found.penetration_points]  # (g, 4, 3, d)
    rows = jnp.sum(found.penetration_by_points[..., None] * moved, axis=(1, 2))
    g = len(rows)
    rows = jnp.concatenate([rows[:, :3], jnp.zeros((g, 3)), rows[:, 3:], jnp.zeros((g, 4))], 1)
    rows = rows * active[:, None]
    t = 6 + N_ANGLES + p + 4
    jacobian = jnp.concatenate([rows_2d.reshape(-1, t), rows_3d.reshape(-1, t), rows])
    right = jnp.concatenate([right_2d.reshape(-1), right_3d.reshape(-1), deep * active])
    prior = prior_terms(tables, target, weights, unknowns)
    gradient = jnp.matmul(right, jacobian, precision="highest") + prior.gradient
    hessian = jnp.matmul(jacobian.T, jacobian, precision="highest") + prior.hessian
    return gradient, hessian


def _robust_weights(
    residuals: Float[Array, "n d"], precision: Float[Array, " n"], outlier_std: Float[Array, ""]
) -> Float[Array, " n"]:
    """Precisions with which a quadratic touches the robust cost."""
    return precision / (1 + jnp.sum(residuals**2, axis=1) * precision / outlier_std**2) ** 2


def _left_jacobian(axis_angle: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """Small change of `axis_angle` to the small rotation from the left that it causes."""
    square = jnp.sum(axis_angle**2)
    small = square < 1e-4
    angle = jnp.sqrt(jnp.where(small, 1.0, square))
    first = jnp.where(small, 0.5 - square / 24, (1 - jnp.cos(angle)) / angle**2)
    second = jnp.where(small, 1 / 6, (angle - jnp.sin(angle)) / angle**3)
    cross = jnp.cross(axis_angle[None], jnp.eye(3)).T
    return jnp.eye(3) + first * cross + second * jnp.matmul(cross, cross)


# ---- The fit


class _State(NamedTuple):
    unknowns: Unknowns
    damping: Float[Array, ""]


def lm_step(
    tables: Tables,
    target: Target,
    weights: FitWeights,
    outlier_std: Float[Array, ""],
    state: _State,
) -> _State:
    """One damped Gauss-Newton step, taken if it lowers the cost."""
    known = (tables, target, weights, outlier_std)
    found = residuals(tables, target, state.unknowns)
    before = cost(*known, state.unknowns, found)
    gradient, hessian = normal_equations(*known, state.unknowns, found)
    damped = hessian + jnp.diag(state.damping * (jnp.diag(hessian) + 1e-3))
    step = -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(damped), gradient)
    step *= jnp.minimum(1, LARGEST_STEP / (jnp.max(jnp.abs(step)) + 1e-9))
    candidate = changed(state.unknowns, step)
    after = cost(*known, candidate, residuals(tables, target, candidate))
    better = after < before  # False also if it is not finite.
    unknowns = jax.tree.map(lambda a, b: jnp.where(better, a, b), candidate, state.unknowns)
    damping = jnp.clip(state.damping * jnp.where(better, 0.3, 4.0), 1e-5, 1e4)
    return _State(unknowns, damping)


def as_target(weights: FitWeights, seen: Observation) -> Target:
    rays = apply_affine(seen.landmarks_px, invert_affine(seen.intrinsics[:2]))
    rays = jnp.clip(jnp.nan_to_num(rays), -FARTHEST_RAY, FARTHEST_RAY)
    low, high = jnp.min(rays, axis=0), jnp.max(rays, axis=0)
    per_box = 1 / jnp.maximum(jnp.max(high - low), SMALLEST_BOX)
    is_base = np.isin(np.arange(N_JOINTS), BASES)
    counts_2d = jnp.where(is_base, weights.base_weight_2d, 1.0)
    counts_3d = jnp.where(is_base, weights.base_weight_3d, 1.0) * seen.joints_weight
    to_ray = _shortest_from_z(jnp.append((low + high) / 2, 1))
    joints = jnp.clip(seen.joints_rel_m, -1, 1)
    joints = jnp.matmul(joints - joints[:1], to_ray.T, precision="highest")
    return Target(
        rays=rays,
        per_box=per_box,
        joints_m=joints,
        precision_2d=counts_2d / jnp.maximum(seen.landmark_std, SMALLEST_STD) ** 2,
        precision_3d=counts_3d / weights.joint_std_m**2,
        shape_mean=jnp.asarray(seen.shape_mean),
        shape_precision=1 / jnp.maximum(seen.shape_std, SMALLEST_STD) ** 2,
    )


def _shortest_from_z(direction: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """The rotation of least angle from the optical axis to a direction in front of the camera."""
    x, y, z = direction / jnp.sqrt(jnp.sum(direction**2))
    k = 1 / (1 + z)
    rows = [1 - k * x * x, -k * x * y, x, -k * x * y, 1 - k * y * y, y, -x, -y, z]
    return jnp.stack(rows).reshape(3, 3)


class Start(NamedTuple):
    """The mean pose of the mean hand, and the directions it may be seen from."""

    # Relative to the wrist.
    joints_m: Float[np.ndarray, "n 3"]
    # For a middle finger that points along the image's x axis.
    rotations: Float[np.ndarray, "s 3 3"]


def build_start(tables: Tables) -> Start:
    """Four views around the hand's length, from level and from 45 degrees up and down."""
    mean = jnp.asarray(tables.prior_mean_rad)
    shape = jnp.zeros(len(tables.points.by_shape))
    posed = pose_points(tables.points, tables.frames, jnp.eye(3), mean, shape)
    joints_m = np.asarray(posed.points_m[:N_JOINTS])
    along = unit(joints_m[MIDDLE_JOINT] - joints_m[ROOT])
    normal = np.cross(joints_m[INDEX_JOINT] - joints_m[ROOT], joints_m[LITTLE_JOINT])
    normal = unit(normal - normal @ along * along)
    upright = np.stack([along, np.cross(normal, along), normal])
    rolls, pitches = np.radians([0.0, 90.0, 180.0, 270.0]), np.radians([-45.0, 0.0, 45.0])
    roll, pitch = axis_rotation(np.eye(3)[0], rolls), axis_rotation(np.eye(3)[1], pitches)
    rotations = np.einsum("pab,rbc,cd->prad", pitch, roll, upright).reshape(-1, 3, 3)
    return Start(joints_m, rotations.astype(np.float32))


def starts_of(tables: Tables, start: Start, target: Target, seen: Observation) -> Unknowns:
    """Where to start, one after the other along a leading axis: from the 3D landmarks, then blind.

    Each has the mean pose; its position is that of least reprojection errors.
    """
    rotation, scale = align(jnp.asarray(start.joints_m), target.joints_m, target.precision_3d)
    direction = unit_2d(target.rays[MIDDLE_JOINT] - target.rays[ROOT])
    (x, y), zero, one = direction, jnp.zeros(()), jnp.ones(())
    in_image = jnp.stack([x, -y, zero, y, x, zero, zero, zero, one]).reshape(3, 3)
    blind = jnp.matmul(in_image[None], start.rotations, precision="highest")
    rotations = jnp.concatenate([rotation[None], blind])
    joints = jnp.matmul(start.joints_m[None], jnp.swapaxes(rotations, 1, 2), precision="highest")
    joints = joints.at[0].set(target.joints_m / scale)

    def translate(points_rel_m: Float[Array, "n 3"]) -> Float[Array, "3"]:
        t_m, _ = initial_estimate(points_rel_m, seen.landmarks_px, seen.intrinsics)
        t_m = jnp.nan_to_num(t_m)
        depth = jnp.clip(t_m[2], 2 * NEAREST_M, FARTHEST_M)
        return jnp.append(jnp.clip(t_m[:2] / depth, -FARTHEST_RAY, FARTHEST_RAY), jnp.log(depth))

    count = len(rotations)
    return Unknowns(
        rotations,
        jax.vmap(translate)(joints),
        jnp.tile(tables.prior_mean_rad, (count, 1)),
        jnp.tile(seen.shape_mean, (count, 1)),
        jnp.zeros((count, 3)),
        jnp.zeros(count),
    )


def unit_2d(vector: Float[Array, "2"]) -> Float[Array, "2"]:
    """The direction of a vector; that of the first axis for 0."""
    length = jnp.sqrt(jnp.sum(vector**2))
    return jnp.where(length > 1e-9, vector / jnp.maximum(length, 1e-9), jnp.array([1.0, 0.0]))


def align(
    before: Float[Array, "n 3"], after: Float[Array, "n 3"], weights: Float[Array, " n"]
) -> tuple[Float[Array, "3 3"], Float[Array, ""]]:
    """Rotation and scale from the first points to the second, weighted least squares."""
    before, after = _centred(before, weights), _centred(after, weights)
    weighted = before * (weights / jnp.maximum(jnp.max(weights), 1e-12))[:, None]
    u, s, vt = jnp.linalg.svd(jnp.matmul(after.T, weighted, precision="highest"))
    sign = jnp.array([1.0, 1.0, 0.0]) + jnp.array([0.0, 0.0, 1.0]) * jnp.linalg.det(u @ vt)
    scale = jnp.sum(s * sign) / jnp.maximum(jnp.sum(weighted * before), 1e-12)
    return jnp.matmul(u * sign[None], vt, precision="highest"), jnp.maximum(scale, 0.1)


def search(
    tables: Tables,
    start: Start,
    weights: FitWeights,
    steps: int,
    seen: Observation,
    rounds: Int[Array, ""],
) -> Unknowns:
    """The unknowns of least cost.

    In all but the last of the `rounds`, the blind starts are tried with a few steps each. Hands
    with 3D landmarks do not need this: they start from those in every round.
    """
    target = as_target(weights, seen)
    starts = starts_of(tables, start, target, seen)
    has_joints = seen.joints_weight > 0

    def step(i: Array, state: _State) -> _State:
        outlier_std = weights.outlier_std * jnp.maximum(1.0, FIRST_OUTLIERS * OUTLIER_DECAY**i)
        return lm_step(tables, target, weights, outlier_std, state)

    def search_from(i: Array, best: tuple[Unknowns, Array]) -> tuple[Unknowns, Array]:
        is_last = i == rounds - 1
        own = jax.tree.map(lambda leaf: leaf[jnp.where(has_joints, 0, i + 1)], starts)
        own = _choose(is_last & ~has_joints & (rounds > 1), best[0], own)
        count = jnp.where(is_last, steps, EXPLORATION_STEPS)
        state = jax.lax.fori_loop(0, count, step, _State(own, jnp.float32(FIRST_DAMPING)))
        found = residuals(tables, target, state.unknowns)
        value = cost(tables, target, weights, weights.outlier_std, state.unknowns, found)
        better = is_last | (value < best[1])
        return _choose(better, state.unknowns, best[0]), jnp.where(better, value, best[1])

    first = jax.tree.map(lambda leaf: leaf[0], starts)
    return jax.lax.fori_loop(0, rounds, search_from, (first, jnp.float32(jnp.inf)))[0]


def _choose(condition: Array, first: Unknowns, second: Unknowns) -> Unknowns:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), first, second)


def describe(
    hand: HandModel, tables: Tables, weights: FitWeights, seen: Observation, unknowns: Unknowns
) -> FittedHand:
    """The mesh at these unknowns, its uncertainty and its residuals."""
    target = as_target(weights, seen)
    found = residuals(tables, target, unknowns)
    outlier_std = jnp.float32(weights.outlier_std)
    _, hessian = normal_equations(tables, target, weights, outlier_std, unknowns, found)
    p = len(unknowns.shape)
    columns = np.r_[3:6, 6 + N_ANGLES : 6 + N_ANGLES + p]
    factor = jax.scipy.linalg.cho_factor(hessian + 1e-6 * jnp.diag(jnp.diag(hessian)))
    covariance = jax.scipy.linalg.cho_solve(factor, jnp.eye(len(hessian))[:, columns])[columns]
    wrist = wrist_m(unknowns.position)
    by_position = jnp.stack([wrist[2] * jnp.eye(3)[0], wrist[2] * jnp.eye(3)[1], wrist], axis=1)
    root = jnp.matmul(by_position, covariance[:3, :3], precision="highest")
    root = jnp.matmul(root, by_position.T, precision="highest")
    own = jnp.concatenate([unknowns.rotation[None], found.posed.own_rotations])
    mesh = pose_hand(hand, own, unknowns.shape)
    shift = (wrist - mesh.skeleton_m[0])[None]
    missed = jnp.median(jnp.sqrt(jnp.sum(found.reprojection[COMMON] ** 2, axis=1)))
    missed_m = jnp.median(jnp.sqrt(jnp.sum(found.joints_m[COMMON] ** 2, axis=1)))
    extent_m = jnp.max(jnp.ptp(found.posed.points_m[:N_JOINTS], axis=0))
    focal_px = jnp.sqrt(jnp.abs(jnp.linalg.det(seen.intrinsics[:2, :2])))
    return FittedHand(
        verts_m=mesh.verts_m + shift,
        joints_m=mesh.joints_m + shift,
        rotations=own,
        shape=unknowns.shape,
        shape_std=jnp.sqrt(jnp.maximum(jnp.nan_to_num(jnp.diagonal(covariance)[3:]), 0)),
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
    tables = build_tables(hand, weights.base_shift)
    start = build_start(tables)

    @jax.jit
    def fit(seen: Observation) -> FittedHand:
        blind = jnp.any(seen.joints_weight <= 0)
        rounds = jnp.where(blind, len(start.rotations) + 1, 1)

        def one(seen: Observation) -> FittedHand:
            unknowns = search(tables, start, weights, steps, seen, rounds)
            return describe(hand, tables, weights, seen, unknowns)

        return jax.vmap(one)(seen)

    return fit
