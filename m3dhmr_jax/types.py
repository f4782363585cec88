"""Records passed between stages: batches, augmented views, predictions.

Axes: b batch, h w image, s crop side, n = 21 joints or their landmarks, v vertices.
Joints are 3D, landmarks are their 2D projections, both in FreiHAND order: wrist; thumb, index,
middle, ring, little, each from palm to tip.
Camera frame: x right, y down, z forward. Pixels: centres on integers, (x, y) order.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

if TYPE_CHECKING:
    from jax import Array

MESH_UNIT_M = 0.2  # Vertices are learned in units of about one hand length, so losses start near 1.
N_JOINTS = 21
N_VERTICES = 778  # FreiHAND's topology, which every hand model here shares.
ROOT = 0  # The wrist.
MIDDLE_BASE = 9  # The joint at the base of the middle finger.
SIDES = ("right", "left")
BOX_SCALE = 1.3  # Side of a crop over the longer side of the hand's box, as in training.
FREIHAND_IMAGE_PX = 224  # Side of FreiHAND's images.
# Side of the centred crop that published implementations evaluate FreiHAND on: 100 px x 1.3.
FREIHAND_CROP_PX = 130.0

# Of JAX or NumPy; by name only for type checkers, as importing JAX takes a second.
if TYPE_CHECKING:
    FloatArray = Array | np.ndarray
else:
    FloatArray = Any
Config = Any  # A ConfigDict, whose fields are unknown to type checkers.


class Batch(NamedTuple):
    """Examples as stored: the whole image and its labels in camera space."""

    # RGB.
    image: UInt8[FloatArray, "b h w 3"]
    # K: pixels from camera coordinates.
    intrinsics: Float[FloatArray, "b 3 3"]
    joints_m: Float[FloatArray, "b n 3"]
    verts_m: Float[FloatArray, "b v 3"]
    # (x, y, width, height) of the hand's mask.
    bbox_px: Float[FloatArray, "b 4"]
    # Position in the dataset; positions in several datasets follow each other.
    index: Int[FloatArray, " b"]
    # False for the padding of the last batch.
    valid: Bool[FloatArray, " b"]
    # How far to trust the labels, above 0 and up to 1; None: fully.
    quality: Float[FloatArray, " b"] | None = None
    # 255 where the hand, the arm or a thing hides the background; None unless asked for.
    coverage: UInt8[FloatArray, "b h w"] | None = None


class View(NamedTuple):
    """One crop per example, as the network receives it, with the labels transformed alike."""

    # In [-1, 1]: mean 0.5 and deviation 0.5 are removed.
    image: Float[FloatArray, "b s s 3"]
    # As a fraction of the crop side.
    landmarks_01: Float[FloatArray, "b n 2"]
    # Relative to the root, in units of MESH_UNIT_M, rotated with the crop.
    verts: Float[FloatArray, "b v 3"]
    # Rotation of the image content, counter-clockwise on the screen.
    angle_rad: Float[FloatArray, " b"]
    # Image pixels from crop pixels.
    img_from_crop: Float[FloatArray, "b 2 3"]


class Prediction(NamedTuple):
    """Output of the network for each crop, in the units of `View`."""

    verts: Float[FloatArray, "b v 3"]
    landmarks_01: Float[FloatArray, "b n 2"]


class LandmarkPrediction(NamedTuple):
    """Output of the 2D pre-training network for each crop."""

    # 1 in the landmark's cell, 0 far from it.
    heatmaps: Float[FloatArray, "b h w n"]
    # As in View.
    landmarks_01: Float[FloatArray, "b n 2"]


class CameraHands(NamedTuple):
    """Hands in camera space."""

    # Predicted by the network, pixels of the whole image.
    landmarks_px: Float[FloatArray, "b n 2"]
    # Regressed from the mesh.
    joints_m: Float[FloatArray, "b n 3"]
    verts_m: Float[FloatArray, "b v 3"]
    # Covariance of the hand's position.
    root_covariance_m2: Float[FloatArray, "b 3 3"]
    # Reprojection noise of the inlier landmarks.
    noise_px: Float[FloatArray, " b"]
