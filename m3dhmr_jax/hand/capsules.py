"""Capsules along the bones of a hand, to tell whether one finger is inside another.

Axes: j = 16 skeleton joints in MANO order, c capsules, q pairs of capsules, v vertices.
"""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from m3dhmr_jax.hand.model import HandModel

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


def closest_fractions(
    p: Float[Array, "q 3"], q: Float[Array, "q 3"], r: Float[Array, "q 3"], s: Float[Array, "q 3"]
) -> tuple[Float[Array, " q"], Float[Array, " q"]]:
    """How far along segments pq and rs their closest points lie (Ericson 2005, section 5.1.9)."""
    d1, d2, gap = q - p, s - r, p - r
    a, e = (jnp.maximum(jnp.sum(d * d, axis=1), 1e-12) for d in (d1, d2))
    b, c, f = (jnp.sum(x * y, axis=1) for x, y in ((d1, d2), (d1, gap), (d2, gap)))
    spread = a * e - b * b
    u = jnp.where(spread > 1e-6 * a * e, (b * f - c * e) / jnp.maximum(spread, 1e-24), 0)
    w = (b * jnp.clip(u, 0, 1) + f) / e
    clipped = jnp.clip(w, 0, 1)
    u = jnp.where(w == clipped, u, (b * clipped - c) / a)
    return jnp.clip(u, 0, 1), clipped
