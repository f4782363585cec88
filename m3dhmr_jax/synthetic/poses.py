"""Random, anatomically plausible hand shapes and poses.

Axes: j = 16 skeleton joints in MANO order, p shape directions.
Flexion bends towards the palm, abduction moves towards the thumb; both from the relaxed hand.
"""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float

from m3dhmr_jax.hand import HandDetails, HandModel
from m3dhmr_jax.hand.capsules import LAST_JOINTS, Capsules
from m3dhmr_jax.math3d import axis_rotation
from m3dhmr_jax.synthetic.gestures import FingerPose, grip, sample_gesture
from m3dhmr_jax.synthetic.kinematics import chain, rest_joints
from m3dhmr_jax.synthetic.recipe import Recipe, happens

MODES = ("free", "coupled", "open", "fist", "point", "grasp")
MODE_PROBABILITIES = (0.3, 0.22, 0.16, 0.08, 0.12, 0.12)
FINGER_BASES = (1, 4, 10, 7)  # Index, middle, ring, little: side by side.
THUMB_BASE = 13
PENETRATION_LIMIT_M = 0.0035  # Skin may press together by this much.
MAX_TRIES = 60


@numba.njit(cache=True)
@no_type_check
def segment_distance(p, q, r, s):
    """Shortest distance between segments pq and rs (Ericson 2005, section 5.1.9)."""
    d1, d2, gap = q - p, s - r, p - r
    a, e, f = (d1 * d1).sum(), (d2 * d2).sum(), (d2 * gap).sum()
    c, b = (d1 * gap).sum(), (d1 * d2).sum()
    spread = a * e - b * b
    u = min(max((b * f - c * e) / spread, 0.0), 1.0) if spread > 1e-14 else 0.0
    w = (b * u + f) / e
    if w < 0:
        w, u = 0.0, min(max(-c / a, 0.0), 1.0)
    elif w > 1:
        w, u = 1.0, min(max((b - c) / a, 0.0), 1.0)
    apart = gap + d1 * u - d2 * w
    return np.sqrt((apart * apart).sum())


@numba.njit(cache=True)
@no_type_check
def overlaps(points, ends, radius_m, pairs):
    """Penetration depth of each pair of capsules, metres; negative where they are apart."""
    depth = np.empty(len(pairs))
    for i in range(len(pairs)):
        a, b = pairs[i]
        gap = segment_distance(
            points[ends[a, 0]], points[ends[a, 1]], points[ends[b, 0]], points[ends[b, 1]]
        )
        depth[i] = radius_m[a] + radius_m[b] - gap
    return depth


def capsule_points(
    hand: HandModel,
    capsules: Capsules,
    rotations: Float[np.ndarray, "j 3 3"],
    shape: Float[np.ndarray, " p"],
) -> Float[np.ndarray, "21 3"]:
    """Posed skeleton joints followed by the five fingertips, metres."""
    joints = rest_joints(hand, shape)
    bones, positions = chain(rotations.astype(np.float32), joints, hand.parents)
    offsets = capsules.tips_m - hand.rest_joints[LAST_JOINTS]
    tips = positions[LAST_JOINTS] + np.einsum("kab,kb->ka", bones[LAST_JOINTS], offsets)
    return np.concatenate([positions, tips]).astype(np.float64)


def penetration_m(
    hand: HandModel,
    capsules: Capsules,
    rotations: Float[np.ndarray, "j 3 3"],
    shape: Float[np.ndarray, " p"],
) -> float:
    """Deepest overlap of two finger capsules beyond that of the same hand at rest, metres."""
    at_rest, posed = (
        overlaps(capsule_points(hand, capsules, pose, shape), *capsules[:3])
        for pose in (np.tile(np.eye(3), (len(rotations), 1, 1)), rotations)
    )
    return float((posed - np.maximum(at_rest, 0)).max())


def sample_shape(rng: np.random.Generator, count: int, limit: float) -> Float[np.ndarray, " p"]:
    """Shape coefficients: standard normal, clipped."""
    return np.clip(rng.normal(size=count), -limit, limit)


def sample_curls(rng: np.random.Generator, mode: str) -> tuple[Float[np.ndarray, "4 2"], float]:
    """Fraction of the flexion range used by each long finger (MCP, PIP joint) and by the thumb."""
    if mode == "free":
        return rng.beta(0.8, 1.0, size=(4, 2)), rng.uniform()
    if mode == "coupled":
        curl = np.clip(rng.uniform(0, 0.95, 2) + rng.normal(0, 0.09, (4, 2)), 0, 1)
        return curl, rng.uniform()
    if mode == "open":
        return rng.beta(1.2, 6, size=(4, 2)), rng.uniform(0, 0.5)
    if mode == "fist":
        return rng.uniform(0.78, 0.96, size=(4, 2)), rng.uniform(0.4, 1)
    if mode == "point":
        straight = rng.random((4, 1)) < rng.choice([0.25, 0.5, 0.75])
        straight[rng.integers(4)] = True
        bent = rng.uniform(0.65, 0.95, size=(4, 2))
        return np.where(straight, rng.beta(1.2, 7, size=(4, 2)), bent), rng.uniform(0.1, 1)
    curl = rng.uniform(0.3, 0.65, 2) + rng.normal(0, 0.05, (4, 2))
    return curl, rng.uniform(0.3, 0.8)


def finger_rotations(
    axes: Float[np.ndarray, "3 3 3"], flexion_rad: Float[np.ndarray, "3"], abduction_rad: float
) -> list[Float[np.ndarray, "3 3"]]:
    """Rotations of one finger's three joints; only the first abducts."""
    rotations = [axis_rotation(axes[i, 0], flexion_rad[i]) for i in range(3)]
    rotations[0] = axis_rotation(axes[0, 1], abduction_rad) @ rotations[0]
    return rotations


def thumb_rotations(
    axes: Float[np.ndarray, "3 3 3"], thumb_deg: Float[np.ndarray, "5"]
) -> list[Float[np.ndarray, "3 3"]]:
    """Rotations of the thumb's joints; angles as in `FingerPose`."""
    flexion, abduction, twist, middle, last = np.radians(thumb_deg)
    base = (
        axis_rotation(axes[0, 1], abduction)
        @ axis_rotation(axes[0, 0], flexion)
        @ axis_rotation(axes[0, 2], twist)
    )
    return [base, axis_rotation(axes[1, 0], middle), axis_rotation(axes[2, 0], last)]


def _sample_thumb(rng: np.random.Generator, curl: float) -> Float[np.ndarray, "5"]:
    """The base flexes, abducts and twists together."""
    flexion = np.clip(-25 + 70 * curl + rng.normal(0, 8), -25, 45)
    abduction = rng.uniform(-28, 28)
    twist = -0.2 * flexion + rng.normal(0, 4)
    middle = np.clip(-8 + 58 * rng.beta(1, 1.6) * (0.4 + 0.8 * curl), -8, 50)
    last = np.clip(-12 + 77 * rng.beta(1, 1.4), -12, 65)
    return np.array([flexion, abduction, twist, middle, last])


def _sample_broadly(rng: np.random.Generator) -> FingerPose:
    """Any pose: fingers bend together, in groups or freely."""
    curls, thumb = sample_curls(rng, str(rng.choice(MODES, p=MODE_PROBABILITIES)))
    spread_deg = rng.normal(0, 4) * np.array([1.0, 0.2, -0.6, -1.2])
    dip_deg, spread_noise_deg = rng.normal(0, (3.5, 2.5), (4, 2)).T
    return FingerPose(curls, spread_deg + spread_noise_deg, dip_deg, _sample_thumb(rng, thumb))


def hand_rotations(
    pose: FingerPose, details: HandDetails, recipe: Recipe
) -> Float[np.ndarray, "j 3 3"]:
    """Each joint's own rotation, the wrist at rest."""
    axes = details.axes
    rotations = np.tile(np.eye(3), (16, 1, 1))
    for finger, base in enumerate(FINGER_BASES):
        mcp, pip = (
            low + (high - low) * curl
            for (low, high), curl in zip(
                (recipe.mcp_deg, recipe.pip_deg), pose.curls[finger], strict=True
            )
        )
        dip = np.clip(0.58 * pip + pose.dip_deg[finger], -6, 62)
        fade = 1 - np.clip(pose.curls[finger, 0], 0, 1)  # A bent finger cannot be spread.
        flexion = np.radians([mcp, pip, dip])
        abduction = np.radians(pose.spread_deg[finger] * fade)
        rotations[base : base + 3] = finger_rotations(axes[base : base + 3], flexion, abduction)
    rotations[THUMB_BASE:] = thumb_rotations(axes[THUMB_BASE:], pose.thumb_deg)
    return details.relaxed @ rotations


def sample_articulation(
    rng: np.random.Generator,
    hand: HandModel,
    details: HandDetails,
    capsules: Capsules,
    shape: Float[np.ndarray, " p"],
    recipe: Recipe,
    is_grip: bool = False,
) -> Float[np.ndarray, "j 3 3"]:
    """Each joint's own rotation, the wrist at rest; fingers penetrate each other only slightly.

    After `MAX_TRIES` collisions in a row the relaxed pose is returned, which never collides.

    Args:
        is_grip: fingers and thumb are around an object as wide as a bottle.
    """

    def tip_gap_m(pose: FingerPose) -> float:
        points = capsule_points(hand, capsules, hand_rotations(pose, details, recipe), shape)
        thumb, index = (capsules.ends[:, 1].tolist().index(16 + finger) for finger in (0, 1))
        apart = segment_distance(*points[capsules.ends[[thumb, index]].ravel()])
        return apart - capsules.radius_m[[thumb, index]].sum()

    is_gesture = not is_grip and happens(rng, recipe.gesture_probability)
    for _ in range(MAX_TRIES):
        if is_grip:
            pose = grip(rng)
        else:
            pose = sample_gesture(rng, tip_gap_m) if is_gesture else _sample_broadly(rng)
        rotations = hand_rotations(pose, details, recipe)
        if penetration_m(hand, capsules, rotations, shape) <= PENETRATION_LIMIT_M:
            return rotations
    return details.relaxed.copy()
