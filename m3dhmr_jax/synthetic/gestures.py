"""Clean gestures, as people show them: each finger is straight, half bent or folded.

Axes: four long fingers, index to little. A curl is a fraction of the recipe's range of flexion, of
MCP and PIP joint.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

Curls = Float[np.ndarray, "4 2"]
# Side by side: angles from a relaxed hand's slightly open fingers.
CLOSED_DEG = np.array([-9.0, -2.0, 5.0, 14.0])
OPEN_DEG = np.array([8.0, 2.0, -5.0, -13.0])
PINCH_CANDIDATES = 12
PINCH_GAP_M = -0.001  # The tips press together by this much.


class FingerPose(NamedTuple):
    """Angles of all fingers, relative to the relaxed hand."""

    curls: Curls
    spread_deg: Float[np.ndarray, "4"]
    # Of the DIP joints, beyond their usual fraction of the PIP joints' flexion.
    dip_deg: Float[np.ndarray, "4"]
    # Flexion, abduction and twist of the base, flexion of the middle and last joint.
    thumb_deg: Float[np.ndarray, "5"]


NO_DIP_DEG = np.zeros(4)
TipGap = Callable[[FingerPose], float]


def _straight(rng: np.random.Generator) -> Curls:
    return np.stack([rng.uniform(0.1, 0.3, 4), rng.uniform(0.0, 0.16, 4)], 1)


def _folded(rng: np.random.Generator) -> Curls:
    """As far as the palm allows."""
    return rng.uniform([0.6, 0.8], [0.78, 0.9]) + rng.normal(0, 0.02, (4, 2))


def _half_bent(rng: np.random.Generator) -> Curls:
    return rng.uniform([0.2, 0.25], [0.5, 0.5]) + rng.normal(0, 0.04, (4, 2))


def _thumb(rng, flexion, abduction, middle, last) -> Float[np.ndarray, "5"]:
    """Random angles in the given ranges."""
    base = rng.uniform(*flexion)
    return np.array(
        [base, rng.uniform(*abduction), -0.2 * base, rng.uniform(*middle), rng.uniform(*last)]
    )


def thumb_out(rng: np.random.Generator) -> Float[np.ndarray, "5"]:
    """Straight and away from the palm, in any direction."""
    return _thumb(rng, (-38, 5), (-30, 30), (-8, 3), (-12, 5))


def thumb_beside(rng: np.random.Generator) -> Float[np.ndarray, "5"]:
    """Along the index finger."""
    return _thumb(rng, (-8, 8), (-38, -15), (-6, 10), (-8, 12))


def thumb_across(rng: np.random.Generator) -> Float[np.ndarray, "5"]:
    """Over the palm or over folded fingers."""
    return _thumb(rng, (25, 45), (0, 35), (5, 45), (5, 60))


def _any_thumb(rng: np.random.Generator) -> Float[np.ndarray, "5"]:
    return (thumb_out, thumb_beside, thumb_across)[rng.choice(3, p=[0.22, 0.16, 0.62])](rng)


def _mixed(rng, straight: Bool[np.ndarray, "4"], thumb_deg) -> FingerPose:
    others = (_folded, _half_bent)[int(rng.random() < 0.42)](rng)
    curls = np.where(straight[:, None], _straight(rng), others)
    spread = rng.choice([0.0, 1.0]) * rng.uniform(0, 1.2) * OPEN_DEG
    return FingerPose(curls, spread, rng.normal(0, 3, 4), thumb_deg)


def counting(rng: np.random.Generator) -> FingerPose:
    """Some fingers straight, the others folded or half bent: pointing, numbers, letters."""
    count = rng.choice([1, 2, 3], p=[0.42, 0.38, 0.2])
    first = rng.integers(0, 5 - count)
    straight = np.zeros(4, bool)
    straight[first : first + count] = True
    if rng.random() < 0.25:  # Horns, and others that are not side by side.
        straight = rng.permutation(straight)
    return _mixed(rng, straight, _any_thumb(rng))


def flat(rng: np.random.Generator) -> FingerPose:
    """A flat hand with closed fingers."""
    thumb_deg = (thumb_beside, thumb_out)[int(rng.random() < 0.4)](rng)
    base = rng.uniform(0.08, 0.35)
    curls = np.stack([base + rng.normal(0, 0.02, 4), rng.uniform(0.03, 0.12, 4)], 1)
    return FingerPose(curls, CLOSED_DEG, NO_DIP_DEG, thumb_deg)


def spread(rng: np.random.Generator) -> FingerPose:
    """An open hand with spread fingers."""
    return FingerPose(_straight(rng), rng.uniform(0.4, 1.3) * OPEN_DEG, NO_DIP_DEG, thumb_out(rng))


def thumb_up(rng: np.random.Generator) -> FingerPose:
    """All fingers folded and the thumb straight."""
    return FingerPose(_folded(rng), np.zeros(4), rng.normal(0, 3, 4), thumb_out(rng))


def fist(rng: np.random.Generator) -> FingerPose:
    return FingerPose(_folded(rng), np.zeros(4), rng.normal(0, 3, 4), thumb_across(rng))


def relaxed(rng: np.random.Generator) -> FingerPose:
    """All fingers half bent, as of a hand at rest or about to grasp."""
    thumb_deg = _thumb(rng, (-20, 25), (-20, 25), (-5, 25), (-5, 30))
    return FingerPose(
        _half_bent(rng), rng.uniform(-0.3, 0.6) * OPEN_DEG, rng.normal(0, 3, 4), thumb_deg
    )


def pinch(rng: np.random.Generator, tip_gap: TipGap) -> FingerPose:
    """Tips of thumb and index finger together: the best of some random ones.

    `tip_gap`: the distance between the skins of both tips in a pose, metres.
    """
    others = (_straight, _half_bent, _folded)[rng.choice(3, p=[0.65, 0.2, 0.15])](rng)
    spreads = rng.uniform(0, 1) * OPEN_DEG
    spreads[0] = 0.0

    def candidate():
        curls = others.copy()
        curls[0] = rng.uniform([0.45, 0.3], [0.8, 0.62])
        thumb_deg = _thumb(rng, (5, 45), (5, 40), (-5, 40), (-5, 45))
        return FingerPose(curls, spreads, NO_DIP_DEG, thumb_deg)

    candidates = [candidate() for _ in range(PINCH_CANDIDATES)]
    return min(candidates, key=lambda pose: abs(tip_gap(pose) - PINCH_GAP_M))


def grip(rng: np.random.Generator) -> FingerPose:
    """Around an object as wide as a bottle."""
    curls = rng.uniform([0.5, 0.5], [0.72, 0.68]) + rng.normal(0, 0.015, (4, 2))
    return FingerPose(
        curls,
        CLOSED_DEG * rng.uniform(0, 1),
        NO_DIP_DEG,
        _thumb(rng, (10, 40), (15, 40), (0, 30), (0, 35)),
    )


SIMPLE = (counting, flat, spread, thumb_up, fist, relaxed)
PROBABILITIES = (0.55, 0.1, 0.09, 0.05, 0.02, 0.07)  # The rest are pinches.


def sample_gesture(rng: np.random.Generator, tip_gap: TipGap) -> FingerPose:
    """A random clean gesture."""
    sampled = rng.random()
    for gesture, limit in zip(SIMPLE, np.cumsum(PROBABILITIES), strict=True):
        if sampled < limit:
            return gesture(rng)
    return pinch(rng, tip_gap)
