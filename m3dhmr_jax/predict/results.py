"""The record of hands that every way of prediction returns.

Axes: k hands, n = 21 joints or landmarks, v vertices, f faces, j = 16 skeleton joints, p shape
directions. Camera frame: x right, y down, z forward, metres. Pixels: centres on integers, (x, y).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class FittedPose(NamedTuple):
    """Parameters of the hand model, of a right hand: that of a left hand is of its mirror image."""

    # Rotation of each skeleton joint relative to its parent; the first is the whole hand's.
    rotations: Float[np.ndarray, "k j 3 3"]
    shape: Float[np.ndarray, "k p"]
    # Standard deviation of the shape.
    shape_std: Float[np.ndarray, "k p"]


class PredictedHands(NamedTuple):
    """Hands in camera space; NumPy arrays."""

    verts_m: Float[np.ndarray, "k v 3"]
    # FreiHAND order, regressed from the vertices.
    joints_m: Float[np.ndarray, "k n 3"]
    # As observed by the network or the detector, pixels of the image.
    landmarks_px: Float[np.ndarray, "k n 2"]
    # The wrist, joints_m[:, 0].
    root_m: Float[np.ndarray, "k 3"]
    # Covariance of the hand's position: large where depth is uncertain.
    root_covariance_m2: Float[np.ndarray, "k 3 3"]
    # Reprojection noise between mesh and landmarks.
    noise_px: Float[np.ndarray, " k"]
    # Counter-clockwise seen from outside.
    faces: Int[np.ndarray, "k f 3"]
    # "right" or "left".
    handedness: tuple[str, ...]
    # Probability of that side; NaN if it was given or assumed.
    handedness_probability: Float[np.ndarray, " k"]
    # From 0 to 1: whether there is a hand, and whether the mesh explains what was seen of it.
    score: Float[np.ndarray, " k"]
    # Whether the score, or the probability of the side, is so low that it is often wrong.
    is_unsure: Bool[np.ndarray, " k"]
    # The square of the image that was processed, (x, y, side, side), and its direction.
    crop_px: Float[np.ndarray, "k 4"]
    direction_rad: Float[np.ndarray, " k"]
    # The same hand has the same number in all frames of a video.
    track: Int[np.ndarray, " k"]
    # K of the image.
    intrinsics: Float[np.ndarray, "3 3"]
    # Whether K was not given: depth is then only as good as the assumed field of view.
    camera_is_assumed: bool
    # "fit" or "network".
    method: str
    # Of the method "fit".
    pose: FittedPose | None

    @property
    def vertices_m(self) -> Float[np.ndarray, "k v 3"]:
        """`verts_m`, for readers of full words."""
        return self.verts_m

    @property
    def is_left(self) -> Bool[np.ndarray, " k"]:
        """Whether each hand is a left one."""
        return np.array([side == "left" for side in self.handedness], bool)

    def take(self, rows: np.ndarray | Sequence[int]) -> "PredictedHands":
        """Some of the hands."""
        rows = np.asarray(rows, int)
        alike = {"intrinsics", "camera_is_assumed", "method", "handedness", "pose"}
        chosen = {name: x[rows] for name, x in self._asdict().items() if name not in alike}
        return self._replace(
            handedness=tuple(self.handedness[row] for row in rows),
            pose=self.pose and FittedPose(*(x[rows] for x in self.pose)),
            **chosen,
        )
