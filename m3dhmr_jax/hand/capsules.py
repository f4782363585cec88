"""Capsules along the bones of a hand, to tell whether one finger is inside another.

Axes: j = 16 skeleton joints in MANO order, c capsules, q pairs of capsules, v vertices, m points
(`m3dhmr_jax.hand.posed_points`), g pairs of fingers.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from m3dhmr_jax.hand.model import HandModel
from m3dhmr_jax.types import N_JOINTS

LAST_JOINTS = [15, 3, 6, 12, 9]  # Thumb, index, middle, ring, little.
TIP_LANDMARKS = [4, 8, 12, 16, 20]  # In the same order.
PALM_RADIUS_M = 0.009  # Of the bones between wrist and fingers.


class Capsules(NamedTuple):
    """Capsules along the bones, and the pairs of them that could collide."""

    # Joint indices; 16..20 are the fingertips.
    ends: Int[np.ndarray, "c 2"]
    radius_m: Float[np.ndarray, " c"]
    pairs: Int[np.ndarray, "q 2"]
    # At rest; each moves with the bone of its finger's last joint.
    tips_m: Float[np.ndarray, "5 3"]
    # Of each capsule: 0 thumb, 1 index, 2 middle, 3 ring, 4 little.
    finger: Int[np.ndarray, " c"]


def fit_capsules(hand: HandModel) -> Capsules:
    """Capsules from the rest surface: half of a bone's skin lies inside its radius."""
    tips = hand.joint_regressor[TIP_LANDMARKS] @ hand.verts_m
    points = np.concatenate([hand.rest_joints, tips]).astype(np.float64)
    owner = hand.skin_weights.argmax(1)
    ends, radius, finger = [], [], []
    for number, last in enumerate(LAST_JOINTS):
        stops = (0, last - 2, last - 1, last, 16 + number)
        for start, stop in itertools.pairwise(stops):
            if start == 0 and number == 0:
                continue  # The ball of the thumb moves inside the palm's skin.
            near = hand.verts_m[owner == start] if start else None
            ends.append((start, stop))
            radius.append(
                PALM_RADIUS_M if near is None else _median_distance(near, *points[[start, stop]])
            )
            finger.append(number)
    pairs = [
        (a, b)
        for a in range(len(ends))
        for b in range(a + 1, len(ends))
        if not set(ends[a]) & set(ends[b]) and not (finger[a] == finger[b] and b - a < 3)
    ]
    return Capsules(np.array(ends), np.array(radius), np.array(pairs), tips, np.array(finger))


def _median_distance(points, start, stop) -> float:
    along = stop - start
    fraction = np.clip((points - start) @ along / (along @ along), 0, 1)
    return float(np.median(np.linalg.norm(points - start - fraction[:, None] * along, axis=1)))


class Contacts(NamedTuple):
    """Constants that find where two fingers overlap most; points as in `posed_points`."""

    # (m, 3 q): from points to both capsules' axes and the vector between their starts.
    segments: Float[np.ndarray, "m k"]
    # Points at both ends of the first and of the second capsule.
    ends: Int[np.ndarray, "q 4"]
    # Distance of the axes below which they overlap more than at rest.
    distance_m: Float[np.ndarray, " q"]
    # Rows: the capsule pairs of two fingers; the first fills up.
    groups: Int[np.ndarray, "g k"]


class Overlap(NamedTuple):
    """The deepest overlap of each two fingers beyond that at rest."""

    # Negative where they are apart.
    depth_m: Float[Array, " g"]
    # Where they are closest: from the second to the first, as a unit vector and as weights of the
    # points. The derivative of the depth is `-direction . (derivatives of the points @ weights)`.
    direction: Float[Array, "3 g"]
    weights: Float[Array, "m g"]


def build_contacts(hand: HandModel) -> Contacts:
    """Pairs of capsules by the fingers that they belong to."""
    capsules = fit_capsules(hand)
    points_m = np.concatenate([hand.joint_regressor @ hand.verts_m, hand.rest_joints]).T
    point_of = np.concatenate([N_JOINTS + np.arange(len(hand.parents)), TIP_LANDMARKS])
    ends = point_of[capsules.ends[capsules.pairs]].reshape(-1, 4)
    p, q, r, s = np.eye(points_m.shape[1], dtype=np.float32)[ends.T]
    segments = np.concatenate([q - p, s - r, p - r]).T
    fingers = capsules.finger[capsules.pairs]
    members = [
        np.flatnonzero((fingers == pair).all(1))
        for pair in itertools.combinations_with_replacement(range(5), 2)
    ]
    members = [each for each in members if len(each)]
    most = max(map(len, members))
    groups = np.stack([np.pad(x, (0, most - len(x)), constant_values=x[0]) for x in members])
    _, apart = jax.jit(_closest)(jnp.asarray(points_m @ segments, jnp.float32))
    rest_m = np.linalg.norm(apart, axis=0)
    distance_m = np.minimum(capsules.radius_m[capsules.pairs].sum(1), rest_m)
    return Contacts(segments, ends, distance_m.astype(np.float32), groups)


def finger_overlap(contacts: Contacts, points_m: Float[Array, "3 m"]) -> Overlap:
    """How deep fingers are inside each other, and how that changes with the points."""
    fractions, apart = _closest(jnp.matmul(points_m, contacts.segments, precision="highest"))
    gap_m = jnp.sqrt(jnp.sum(apart**2, axis=0) + 1e-12)
    depth_m = contacts.distance_m - gap_m
    grouped = depth_m[contacts.groups]
    deepest = jnp.max(grouped, axis=1)
    is_deepest = grouped == deepest[:, None]
    chosen = jnp.max(jnp.where(is_deepest, contacts.groups, 0), axis=1)
    u, w = fractions[:, chosen]
    corners = jnp.stack([1 - u, u, w - 1, -w])  # (4, g)
    ends = jnp.asarray(contacts.ends)[chosen].T
    is_end = ends[None] == jnp.arange(points_m.shape[1])[:, None, None]
    weights = jnp.sum(jnp.where(is_end, corners[None], 0), axis=1)
    return Overlap(deepest, apart[:, chosen] / gap_m[None, chosen], weights)


def _closest(
    segments: Float[Array, "3 k"],
) -> tuple[Float[Array, "2 q"], Float[Array, "3 q"]]:
    """How far along two segments their closest points lie, and the vector between these.

    Ericson 2005, section 5.1.9. `segments` holds both segments and the vector between their starts.
    """
    d1, d2, gap = jnp.split(segments, 3, axis=1)
    a, e = (jnp.maximum(jnp.sum(d * d, axis=0), 1e-12) for d in (d1, d2))
    b, c, f = (jnp.sum(x * y, axis=0) for x, y in ((d1, d2), (d1, gap), (d2, gap)))
    spread = a * e - b * b
    u = jnp.where(spread > 1e-6 * a * e, (b * f - c * e) / jnp.maximum(spread, 1e-24), 0)
    unclipped = (b * jnp.clip(u, 0, 1) + f) / e
    w = jnp.clip(unclipped, 0, 1)
    u = jnp.clip(jnp.where(w == unclipped, u, (b * w - c) / a), 0, 1)
    return jnp.stack([u, w]), gap + d1 * u[None] - d2 * w[None]
