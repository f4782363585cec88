"""Where the networks of the hand detector look: rotated squares of an image.

Axes: k squares or hands, n = 21 landmarks, p palms, m points, v views.
Pixels have their centres on integers, (x, y) order. Directions as in `predict.crops`.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.models.hand_detector_outputs import LANDMARK_IMAGE_PX
from m3dhmr_jax.predict.crops import directions_of, vectors_of

# Crop around a palm: its size and its shift towards the fingers, in sizes of the palm's box.
PALM_SCALE, PALM_SHIFT = 2.6, 0.5
# The same around landmarks, in sizes of the box of PALM_LANDMARKS along the hand's direction.
LANDMARKS_SCALE, LANDMARKS_SHIFT = 2.0, 0.1
PALM_LANDMARKS = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
# Tiles have this fraction of the image's longer side, and no fewer pixels than this.
TILE_PARTS, TILE_OVERLAP, MIN_TILE_PX = (2, 4), 0.4, 160.0
# Views of a hand: rotation in degrees, scale of the crop, whether it is mirrored.
VIEWS = (
    *((0, 1.0, False), (12, 0.95, False), (-12, 1.08, False)),
    *((0, 1.0, True), (12, 1.08, True), (-12, 0.95, True)),
)


class Squares(NamedTuple):
    """Rotated squares of an image."""

    centre_px: Float[np.ndarray, "k 2"]
    side_px: Float[np.ndarray, " k"]
    direction_rad: Float[np.ndarray, " k"]


class Palms(NamedTuple):
    """Palms in pixels of the image; boxes are (left, top, right, bottom)."""

    box_px: Float[np.ndarray, "p 4"]
    # Wrist, bases of index, middle, ring and little finger, two of the thumb.
    points_px: Float[np.ndarray, "p 7 2"]
    score: Float[np.ndarray, " p"]


def squares_around_palms(palms: Palms) -> Squares:
    """The crops for the first pass: MediaPipe's, from the palm towards the fingers."""
    low, high = palms.box_px[:, :2], palms.box_px[:, 2:]
    direction_rad = directions_of(palms.points_px[:, 2] - palms.points_px[:, 0])
    shift_px = PALM_SHIFT * (high - low)[:, 1:] * vectors_of(direction_rad)
    side_px = PALM_SCALE * (high - low).max(axis=1, initial=0)
    return Squares((low + high) / 2 + shift_px, side_px, direction_rad)


def squares_around_landmarks(landmarks_px: Float[np.ndarray, "k n 2"]) -> Squares:
    """The crops for the next pass: MediaPipe's, around palm and bases of the fingers."""
    index, middle, ring = (landmarks_px[:, i] for i in (6, 10, 14))
    towards_px = (index + ring) / 4 + middle / 2 - landmarks_px[:, 0]
    direction_rad = directions_of(towards_px)
    up = vectors_of(direction_rad)
    right = np.stack([-up[:, 1], up[:, 0]], axis=1)
    axes = np.stack([right, up], axis=1)
    along_px = np.einsum("kad,knd->kna", axes, landmarks_px[:, PALM_LANDMARKS])
    low, high = along_px.min(axis=1), along_px.max(axis=1)
    centre_px = (low + high) / 2 + LANDMARKS_SHIFT * (high - low) * [0, 1]
    side_px = LANDMARKS_SCALE * (high - low).max(axis=1)
    return Squares(np.einsum("kad,ka->kd", axes, centre_px), side_px, direction_rad)


def tile_squares(width: int, height: int) -> Iterator[Squares]:
    """Overlapping squares that cover an image, half and then a quarter as large as the image."""
    for parts in TILE_PARTS:
        side_px = max(width, height) / parts
        if side_px < MIN_TILE_PX:
            return
        x, y = (_tile_centres_px(length, side_px) for length in (width, height))
        centre_px = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        n = len(centre_px)
        yield Squares(centre_px, np.full(n, side_px), np.zeros(n))


def _tile_centres_px(length_px: int, side_px: float) -> Float[np.ndarray, " k"]:
    if length_px <= side_px:
        return np.array([(length_px - 1) / 2])
    steps = int(np.ceil((length_px - side_px) / ((1 - TILE_OVERLAP) * side_px) - 1e-9))
    return np.linspace(side_px / 2, length_px - side_px / 2, steps + 1) - 0.5


def crop_matrices(squares: Squares, size: int) -> Float[np.ndarray, "k 2 3"]:
    """`crop_from_img` of each square, its direction upwards, for crops of `size` px."""
    up = vectors_of(squares.direction_rad)
    right = np.stack([-up[:, 1], up[:, 0]], axis=1)
    linear = np.stack([right, -up], axis=1) * (size / squares.side_px)[:, None, None]
    offset = (size - 1) / 2 - np.einsum("kad,kd->ka", linear, squares.centre_px)
    return np.concatenate([linear, offset[..., None]], axis=-1)


@functools.cache
def view_matrices() -> Float[np.ndarray, "v 2 3"]:
    """What each view does to an upright crop: rotation, scale and reflection about its centre."""
    matrices = []
    for degrees, scale, is_mirrored in VIEWS:
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        linear = np.array([[cos, sin], [-sin, cos]]) / scale @ np.diag([1 - 2 * is_mirrored, 1])
        centre_px = np.full(2, (LANDMARK_IMAGE_PX - 1) / 2)
        matrices.append(np.column_stack([linear, centre_px - linear @ centre_px]))
    return np.stack(matrices)


def homogeneous(matrix: Float[np.ndarray, "*k 2 3"]) -> Float[np.ndarray, "*k 3 3"]:
    last = np.broadcast_to([0.0, 0.0, 1.0], (*matrix.shape[:-2], 1, 3))
    return np.concatenate([matrix, last], axis=-2)


def inverses(matrices: Float[np.ndarray, "k 2 3"]) -> Float[np.ndarray, "k 2 3"]:
    return np.linalg.inv(homogeneous(matrices))[:, :2]


def transform(
    matrices: Float[np.ndarray, "k 2 3"], points: Float[np.ndarray, "k m 2"]
) -> Float[np.ndarray, "k m 2"]:
    return np.einsum("kad,kmd->kma", matrices[..., :2], points) + matrices[:, None, :, 2]


def take_rows(record: Any, rows: Any) -> Any:
    """Some rows of every array of a record."""
    return type(record)(*(x[rows] if isinstance(x, np.ndarray) else x for x in record))
