"""Where hands may be in an image: what a method of recovery starts from.

Axes: k hands, n = 21 landmarks, p shape directions. Pixels: centres on integers, (x, y) order.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.crops import crops_of_landmarks, hand_directions, mirrored_boxes
from m3dhmr_jax.predict.detector import DetectedHands
from m3dhmr_jax.types import SIDES


class Landmarks(NamedTuple):
    """Landmarks that a hand can be fitted to."""

    landmarks_px: Float[np.ndarray, "k n 2"]
    # 3D up to rotation and scale, axes along the ray to the hand; NaN: unknown.
    joints_rel_m: Float[np.ndarray, "k n 3"]
    # Distance between several looks at each landmark, as a fraction of the hand's box.
    disagreement: Float[np.ndarray, "k n"]


class ShapePrior(NamedTuple):
    """What earlier frames say about the shape of a hand; NaN: nothing."""

    mean: Float[np.ndarray, "k p"]
    std: Float[np.ndarray, "k p"]


class Candidates(NamedTuple):
    """Hands that may be in an image, in the order of the results."""

    # (x, y, side, side).
    crop_px: Float[np.ndarray, "k 4"]
    # See `predict.crops`.
    direction_rad: Float[np.ndarray, " k"]
    handedness: tuple[str, ...]
    # Probability of that side; NaN if it was given or assumed.
    handedness_probability: Float[np.ndarray, " k"]
    # Probability that there is a hand; 1 if its box was given.
    presence: Float[np.ndarray, " k"]
    # None: not known before the network has run.
    landmarks: Landmarks | None
    # None: nothing is known.
    shape: ShapePrior | None = None


def unseen(crops_px: Float[np.ndarray, "k 4"], sides: Sequence[str | None]) -> Candidates:
    """Candidates of which only the crop is known; the side is right unless it is given."""
    k = len(crops_px)
    handedness = tuple(side or "right" for side in sides)
    return Candidates(crops_px, np.zeros(k), handedness, np.full(k, np.nan), np.ones(k), None)


def seen(detected: DetectedHands, sides: Sequence[str | None]) -> Candidates:
    """The detector's hands; the side is the detector's unless it is given."""
    p_right = detected.right_probability
    estimated = np.where(p_right > 0.5, "right", "left").tolist()
    probability = np.maximum(p_right, 1 - p_right)
    return Candidates(
        crops_of_landmarks(detected.landmarks_px),
        hand_directions(detected.landmarks_px),
        tuple(side or own for side, own in zip(sides, estimated, strict=True)),
        np.where([side is None for side in sides], probability, np.nan),
        detected.presence,
        Landmarks(detected.landmarks_px, detected.joints_rel_m, detected.disagreement),
    )


def mirrored(candidates: Candidates, is_left: np.ndarray, width: int) -> Candidates:
    """The candidates with left hands as right hands of the mirrored image."""
    row, column = is_left[:, None], is_left[:, None, None]
    landmarks = candidates.landmarks
    if landmarks is not None:
        flip = np.array([-1.0, 1.0])
        offset = np.array([width - 1.0, 0.0])
        px, rel_m = landmarks.landmarks_px, landmarks.joints_rel_m
        landmarks = landmarks._replace(
            landmarks_px=np.where(column, flip * px + offset, px),
            joints_rel_m=np.where(column, rel_m * np.array([-1.0, 1.0, 1.0]), rel_m),
        )
    return candidates._replace(
        crop_px=np.where(row, mirrored_boxes(candidates.crop_px, width), candidates.crop_px),
        direction_rad=np.where(is_left, -candidates.direction_rad, candidates.direction_rad),
        landmarks=landmarks,
    )


def join(first: Candidates, second: Candidates) -> Candidates:
    """All candidates of both, with landmarks if both have them."""
    landmarks = None
    if first.landmarks is not None and second.landmarks is not None:
        pairs = zip(first.landmarks, second.landmarks, strict=True)
        landmarks = Landmarks(*map(np.concatenate, pairs))
    known = first.shape or second.shape
    shape = None
    if known is not None:
        p = known.mean.shape[1]
        both = [each.shape or unknown_shape(len(each.handedness), p) for each in (first, second)]
        shape = ShapePrior(*map(np.concatenate, zip(*both, strict=True)))
    return Candidates(
        crop_px=np.concatenate([first.crop_px, second.crop_px]),
        direction_rad=np.concatenate([first.direction_rad, second.direction_rad]),
        handedness=first.handedness + second.handedness,
        handedness_probability=np.concatenate(
            [first.handedness_probability, second.handedness_probability]
        ),
        presence=np.concatenate([first.presence, second.presence]),
        landmarks=landmarks,
        shape=shape,
    )


def unknown_shape(k: int, p: int) -> ShapePrior:
    """No prior for `k` hands."""
    return ShapePrior(np.full((k, p), np.nan), np.full((k, p), np.nan))


def check_handedness(
    handedness: str | Sequence[str | None] | Any | None, n: int
) -> tuple[str | None, ...]:
    """The side of each of `n` hands; None where it is to be estimated.

    Raises:
        UserError: if a side is unknown, or their number is another.
    """
    if handedness is None or isinstance(handedness, str):
        sides, repeats = (handedness,), n
    else:
        is_sequence = isinstance(handedness, Sequence | np.ndarray)
        sides, repeats = tuple(handedness) if is_sequence else (handedness,), 1
    if not all(side is None or (isinstance(side, str) and side in SIDES) for side in sides):
        raise UserError(f"handedness={handedness!r} must be one of {SIDES}, for all or each box")
    sides = sides * repeats
    if len(sides) != n:
        raise UserError(f"handedness has {len(sides)} entries for {n} boxes: give one for each")
    return sides
