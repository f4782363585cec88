"""Where hands may be in an image: what a method of recovery starts from.

Axes: k hands, n = 21 landmarks, p shape directions. Pixels: centres on integers, (x, y) order.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.errors import UserError

SIDES = ("right", "left")


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
    handedness: str | Sequence[str | None] | None, n: int
) -> tuple[str | None, ...]:
    """The side of each of `n` hands; None where it is to be estimated.

    Raises:
        UserError: if a side is unknown, or their number is another.
    """
    if handedness is None or isinstance(handedness, str):
        given, sides = {handedness}, (handedness,) * n
    else:
        given, sides = set(handedness), tuple(handedness)
    if given - {None, *SIDES}:
        raise UserError(f"handedness={handedness!r} must be one of {SIDES}, for all or each box")
    if len(sides) != n:
        raise UserError(f"handedness has {len(sides)} entries for {n} boxes: give one for each")
    return sides
