"""How good a label is, and which hands are left out: all thresholds in one place.

They were chosen on real photos, whose labels were looked at, and on rendered ones;
`docs/own_data.md` says what they leave out there.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from m3dhmr_jax.predict.predictor import UNSURE_SIDE

VIEWS = 6  # Looks at each hand that its landmarks are averaged over.
# Longer side of the box around the mesh.
MIN_HAND_PX = 64.0
# Mean distance of the views' landmarks from their mean, as a fraction of the landmarks' box.
MAX_DISAGREEMENT = 0.025
# Median distance of the fitted joints to the landmarks, as a fraction of that box.
MAX_RESIDUAL = 0.03
# `fitting.reliability` times the probability that there is a hand.
MIN_QUALITY = 0.4
# Fraction of the mesh inside the image.
MIN_INSIDE = 0.8

TOO_SMALL = f"smaller than {MIN_HAND_PX:g} px"
THRESHOLDS: Mapping[str, float] = {
    "views": VIEWS,
    "min_hand_px": MIN_HAND_PX,
    "max_disagreement": MAX_DISAGREEMENT,
    "max_residual": MAX_RESIDUAL,
    "min_quality": MIN_QUALITY,
    "min_inside": MIN_INSIDE,
    "min_side_probability": UNSURE_SIDE,
}


class Measures(NamedTuple):
    """What decides whether a hand is kept."""

    size_px: float
    inside: float
    disagreement: float
    residual: float
    # From 0 to 1.
    quality: float
    # NaN if the side was given.
    side_probability: float


def reason_to_leave_out(measures: Measures) -> str | None:
    """Why a hand is left out, the first reason that holds; None: it is kept."""
    reasons = {
        TOO_SMALL: measures.size_px < MIN_HAND_PX,
        "cut off by the image's border": measures.inside < MIN_INSIDE,
        "its views disagree": not measures.disagreement <= MAX_DISAGREEMENT,
        "the hand model does not fit its landmarks": not measures.residual <= MAX_RESIDUAL,
        "unlike a hand": not measures.quality >= MIN_QUALITY,
        "left or right is unsure": bool(np.less(measures.side_probability, UNSURE_SIDE)),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
