"""From hand boxes to the network's crops, on the host: the whole image is never uploaded.

Pixels have their centres on integers. A box (x, y, width, height) covers the pixels from x to
x + width - 1, as an array slice does; its centre is taken as x + width / 2, as in training.
The direction of a hand points from its wrist to the base of its middle finger: 0 is up, positive
is counter-clockwise on the screen. A crop is a square of the image with a direction, which is
turned upright.
Axes: k boxes or hands, n landmarks, p points, h w image, s crop side.
"""

import itertools
import math
import warnings

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.types import BOX_SCALE, FREIHAND_CROP_PX, FREIHAND_IMAGE_PX, MIDDLE_BASE, ROOT

# Side of the box around a hand's mesh over that around its landmarks, and how far its centre lies
# below, towards the wrist; medians over synthetic images.
MESH_PER_LANDMARKS, MESH_BELOW_LANDMARKS = 1.2, 0.075
MIN_BOX_PX = 1.0
MAX_BOX_PER_IMAGE = 10.0  # Sides of a box over the longer side of the image.
MIN_BOX_INSIDE = 0.5  # Fraction of a box's area inside the image.
Image = UInt8[np.ndarray, "h w 3"]


def check_boxes(
    boxes_px: Float[np.ndarray, "k 4"], width: int, height: int
) -> Float[np.ndarray, "k 4"]:
    """The boxes; one of which most lies outside the image gives a warning.

    Raises:
        UserError: if one is not finite, has no area, is much larger than the image, or does not
            overlap it.
    """
    for i, (x, y, w, h) in enumerate(boxes_px.tolist()):
        box = f"box {i}, (x, y, width, height) = ({x:g}, {y:g}, {w:g}, {h:g}) px,"
        if not np.isfinite(boxes_px[i]).all():
            raise UserError(f"{box} must be finite numbers")
        if not min(w, h) >= MIN_BOX_PX:
            raise UserError(
                f"{box} has no area: width and height must be at least {MIN_BOX_PX:g} px "
                "(they are sizes, not the lower right corner)"
            )
        if max(w, h) > MAX_BOX_PER_IMAGE * max(width, height):
            raise UserError(
                f"{box} is more than {MAX_BOX_PER_IMAGE:g} times as large as the image of "
                f"{width} x {height} px: boxes are in pixels of the image"
            )
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            raise UserError(
                f"{box} lies outside the image of {width} x {height} px: "
                "boxes are in pixels of the image after its EXIF rotation"
            )
        inside = (min(x + w, width) - max(x, 0)) * (min(y + h, height) - max(y, 0))
        if inside < MIN_BOX_INSIDE * w * h:
            are_corners = 0 <= x < w <= width and 0 <= y < h <= height
            guess = "they look like corners, (x1, y1, x2, y2); " if are_corners else ""
            warnings.warn(
                f"{box} lies with {1 - inside / (w * h):.0%} of its area outside the image of "
                f"{width} x {height} px: {guess}boxes are (x, y, width, height) in pixels "
                "of the image after its EXIF rotation",
                stacklevel=3,
            )
    return boxes_px


def crops_around(boxes_px: Float[np.ndarray, "k 4"]) -> Float[np.ndarray, "k 4"]:
    """The square crop for each box, with a margin around the hand."""
    side = BOX_SCALE * boxes_px[:, 2:].max(axis=1, keepdims=True)
    centre = boxes_px[:, :2] + boxes_px[:, 2:] / 2
    return np.concatenate([centre - side / 2, side, side], axis=1)


def freihand_crop(width: int, height: int) -> Float[np.ndarray, "1 4"]:
    """The centred square that FreiHAND's evaluation takes of its images."""
    side = FREIHAND_CROP_PX * min(width, height) / FREIHAND_IMAGE_PX
    return np.array([[(width - side) / 2, (height - side) / 2, side, side]])


def centred_box(width: int, height: int) -> Float[np.ndarray, "1 4"]:
    """The box whose crop FreiHAND's evaluation takes."""
    x, y, side, _ = freihand_crop(width, height)[0].tolist()
    margin = side * (1 - 1 / BOX_SCALE) / 2
    return np.array([[x + margin, y + margin, side / BOX_SCALE, side / BOX_SCALE]])


def directions_of(vectors_px: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, " k"]:
    """Directions of vectors in the image, in radians."""
    dx, dy = vectors_px.T.astype(np.float64)
    return np.arctan2(-dx, -dy)


def vectors_of(direction_rad: Float[np.ndarray, " k"]) -> Float[np.ndarray, "k 2"]:
    """Unit vectors in these directions."""
    return -np.stack([np.sin(direction_rad), np.cos(direction_rad)], axis=1)


def hand_directions(landmarks_px: Float[np.ndarray, "k n 2"]) -> Float[np.ndarray, " k"]:
    """Direction of each hand in the image, in radians, from its landmarks in FreiHAND order."""
    return directions_of(landmarks_px[:, MIDDLE_BASE] - landmarks_px[:, ROOT])


def hand_size_px(landmarks_px: Float[np.ndarray, "k n 2"]) -> Float[np.ndarray, " k"]:
    """The longer side of each hand's box."""
    return np.ptp(landmarks_px, axis=1).max(axis=1)


def crops_of_points(
    points_px: Float[np.ndarray, "k p 2"], direction_rad: Float[np.ndarray, " k"]
) -> Float[np.ndarray, "k 4"]:
    """The crops in these directions around the points, such as projected meshes, with a margin."""
    turn = rotation_matrix(-direction_rad)
    turned_px = np.einsum("kij,kpj->kpi", turn, points_px)
    low, high = turned_px.min(axis=1), turned_px.max(axis=1)
    centre = np.einsum("kji,kj->ki", turn, (low + high) / 2) + 0.5
    side = BOX_SCALE * np.maximum(high - low, MIN_BOX_PX).max(axis=1, keepdims=True)
    return np.concatenate([centre - side / 2, side, side], axis=1)


def crops_of_landmarks(landmarks_px: Float[np.ndarray, "k n 2"]) -> Float[np.ndarray, "k 4"]:
    """The upright crops of hands of which only landmarks are known, as around their meshes."""
    direction_rad = hand_directions(landmarks_px)
    crops_px = crops_of_points(landmarks_px, direction_rad)
    side = crops_px[:, 2:] * MESH_PER_LANDMARKS
    shift = -MESH_BELOW_LANDMARKS * crops_px[:, 2:] * vectors_of(direction_rad)
    centre = crops_px[:, :2] + crops_px[:, 2:] / 2 + shift
    return np.concatenate([centre - side / 2, side], axis=1)


def rotation_matrix(angle_rad: float | Float[np.ndarray, "*k"]) -> Float[np.ndarray, "*k 2 2"]:
    """Rotates pixels counter-clockwise on the screen, where y points down."""
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    return np.stack([np.stack([cosine, sine], -1), np.stack([-sine, cosine], -1)], -2)


def mirrored_boxes(boxes_px: Float[np.ndarray, "k 4"], width: int) -> Float[np.ndarray, "k 4"]:
    """The same boxes in the mirrored image."""
    mirrored = boxes_px.copy()
    mirrored[:, 0] = width - boxes_px[:, 0] - boxes_px[:, 2]
    return mirrored


def crop_matrix(
    crop_px: Float[np.ndarray, "4"], size: int, direction_rad: float = 0.0
) -> Float[np.ndarray, "2 3"]:
    """`crop_from_img` that turns this direction of a crop upright, for crops of `size` px.

    The twin on the host of `data.crop.crop_from_box`: networks see what they were trained on.
    """
    x, y, side, _ = crop_px.tolist()
    linear = size / side * rotation_matrix(-direction_rad)
    offset = size / 2 - linear @ (np.array([[x], [y]]) + side / 2)
    return np.concatenate([linear, offset], axis=1)


def crop(
    image: Image, crop_from_img: Float[np.ndarray, "2 3"], size: int
) -> UInt8[np.ndarray, "s s 3"]:
    """A square of the image, resampled bilinearly; black outside the image.

    Where it shrinks the image more than twofold, blocks of pixels are averaged first. Only the
    region inside the crop is read, so the time does not grow with the image.
    """
    linear, offset = crop_from_img[:, :2], crop_from_img[:, 2]
    block = max(int(1 / math.hypot(*linear[0])), 1)
    corners = np.array(list(itertools.product((0, size - 1), repeat=2)))
    corners_px = (corners - offset) @ np.linalg.inv(linear).T
    left, top = np.maximum(np.floor(corners_px.min(axis=0)).astype(int) - block, 0).tolist()
    right, bottom = (np.ceil(corners_px.max(axis=0)).astype(int) + block + 1).tolist()
    region = np.ascontiguousarray(image[top : max(bottom, 0), left : max(right, 0)])
    if region.size == 0:
        return np.zeros((size, size, 3), np.uint8)
    if block > 1:
        missing = (-region.shape[0] % block, -region.shape[1] % block)
        region = cv2.copyMakeBorder(region, 0, missing[0], 0, missing[1], cv2.BORDER_CONSTANT)
        reduced = region.shape[1] // block, region.shape[0] // block
        region = cv2.resize(region, reduced, interpolation=cv2.INTER_AREA)
    centre_of_first = np.array([left, top]) + (block - 1) / 2
    crop_from_region = np.column_stack([block * linear, offset + linear @ centre_of_first])
    return cv2.warpAffine(region, crop_from_region, (size, size), flags=cv2.INTER_LINEAR)
