"""The three things that travel through the program: what is read, what is seen, what is answered.

Axes: b batch, h w image, s crop side, n = 21 landmarks, v vertices.
Camera frame: x right, y down, z forward. Pixels: centres on integers, (x, y) order.
Joints: FreiHAND order (wrist; thumb, index, middle, ring, little, each from palm to tip).
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

MESH_UNIT_M = 0.2  # Vertices are learned in units of about one hand length, so losses start near 1.
N_JOINTS = 21
N_VERTICES = 778  # Of FreiHAND's meshes, and so of every hand here.
ROOT = 0  # The wrist.

FloatArray = Array | np.ndarray
Config = Any  # A ConfigDict, whose fields no type checker knows.


class Batch(NamedTuple):
    """Examples as they are stored: the whole photo and its labels in camera space."""

    image: UInt8[FloatArray, "b h w 3"]  # RGB.
    intrinsics: Float[FloatArray, "b 3 3"]  # K: pixels from camera coordinates.
    joints_m: Float[FloatArray, "b n 3"]
    verts_m: Float[FloatArray, "b v 3"]
    bbox_px: Float[FloatArray, "b 4"]  # (x, y, width, height) of the hand's mask.
    index: Int[FloatArray, " b"]  # Position in the official annotation lists.
    valid: Bool[FloatArray, " b"]  # False for the filler of the last batch.


class View(NamedTuple):
    """One crop per example, as the network sees it, with labels moved along."""

    image: Float[FloatArray, "b s s 3"]  # Mean 0.5 and deviation 0.5 taken out of [0, 1].
    landmarks_01: Float[FloatArray, "b n 2"]  # Landmarks as a fraction of the crop side.
    verts: Float[
        FloatArray, "b v 3"
    ]  # Relative to the root, in units of MESH_UNIT_M, turned with the crop.
    angle_rad: Float[
        FloatArray, " b"
    ]  # Turn of the picture content, counter-clockwise on the screen.
    img_from_crop: Float[FloatArray, "b 2 3"]  # Crop pixels to photo pixels.


class Prediction(NamedTuple):
    """What the network answers for one crop."""

    verts: Float[FloatArray, "b v 3"]  # As View.verts.
    landmarks_01: Float[FloatArray, "b n 2"]  # As View.landmarks_01.


class LandmarkPrediction(NamedTuple):
    """What the network of the 2D pre-training answers for one crop."""

    heatmaps: Float[FloatArray, "b h w n"]  # 1 in the cell of the landmark, 0 far from it.
    landmarks_01: Float[FloatArray, "b n 2"]  # As View.landmarks_01.
