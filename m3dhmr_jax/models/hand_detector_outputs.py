"""What the two networks of models/hand_detector.py take and compute, in whichever runtime.

Axes: b batch, p palm candidates, n = 21 landmarks.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.types import FloatArray

PALM_IMAGE_PX = 192
LANDMARK_IMAGE_PX = 224
# Candidates per location on each grid of the palm detector, finest first: (cells per side, number).
PALM_GRIDS = ((24, 2), (12, 6))


class DetectorWeights(NamedTuple):
    """The weights of both networks, float32."""

    palms: tuple[np.ndarray, ...]
    landmarks: tuple[np.ndarray, ...]


class PalmCandidates(NamedTuple):
    """Raw outputs for every location, from the finest grid on, row by row."""

    # Centre and size of the box, then 7 points: pixels of the input relative to the cell's centre.
    offsets_px: Float[FloatArray, "b p 18"]
    logits: Float[FloatArray, "b p"]


class HandLandmarks(NamedTuple):
    """One hand per image."""

    # Pixels of the input, counted from its edge; the third coordinate is a relative depth.
    landmarks_px: Float[FloatArray, "b n 3"]
    # Metres about the hand's centre, in the axes of the input: x right, y down, z forward.
    joints_m: Float[FloatArray, "b n 3"]
    # Probabilities that there is a hand, and that it is a right one.
    presence: Float[FloatArray, " b"]
    right_probability: Float[FloatArray, " b"]
