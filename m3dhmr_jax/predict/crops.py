"""From boxes in a photo to the squares that the network sees, on the host: no photo is uploaded.

A box (x, y, width, height) covers the pixels from x to x + width - 1, as an array slice does, so
its left edge lies at x - 0.5 where pixels have their centres on integers, as maps have them.
Axes: k boxes, v vertices, h w photo, s crop side.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.types import FREIHAND_CROP_PX, FREIHAND_IMAGE_PX

BOX_SCALE = 1.3  # Side of the square over the longer side of the hand's box, as in training.
SMALLEST_BOX_PX = 1.0
Photo = UInt8[np.ndarray, "h w 3"]


def check_boxes(
    boxes_px: Float[np.ndarray, "k 4"], width: int, height: int
) -> Float[np.ndarray, "k 4"]:
    """The boxes; raises ValueError if one has no area, no place, or no pixel of the photo."""
    for i, (x, y, w, h) in enumerate(boxes_px.tolist()):
        box = f"box {i}, (x, y, width, height) = ({x:g}, {y:g}, {w:g}, {h:g}) px,"
        if not np.isfinite(boxes_px[i]).all():
            raise ValueError(f"{box} must hold finite numbers")
        if not min(w, h) >= SMALLEST_BOX_PX:
            raise ValueError(
                f"{box} has no area: width and height must be at least {SMALLEST_BOX_PX:g} px "
                "(they are sizes, not the lower right corner)"
            )
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            raise ValueError(
                f"{box} lies outside the photo of {width} x {height} px: "
                "boxes are in pixels of the photo as given, turned upright"
            )
    return boxes_px


def squares_around(boxes_px: Float[np.ndarray, "k 4"]) -> Float[np.ndarray, "k 4"]:
    """The squares that the network looks at for these boxes, room around the hand included."""
    side = BOX_SCALE * boxes_px[:, 2:].max(axis=1, keepdims=True)
    centre = boxes_px[:, :2] + boxes_px[:, 2:] / 2
    return np.concatenate([centre - side / 2, side, side], axis=1)


def square_of_photo(width: int, height: int) -> Float[np.ndarray, "1 4"]:
    """The square for a photo that is itself a crop of one hand: the one around all of it.

    A photo of FreiHAND's size is taken as one of FreiHAND: the square that evaluation looks at.
    """
    is_freihand = width == height == FREIHAND_IMAGE_PX
    side = FREIHAND_CROP_PX if is_freihand else max(width, height)
    return np.array([[(width - side) / 2, (height - side) / 2, side, side]])


def box_of_mesh(
    verts_m: Float[np.ndarray, "v 3"], intrinsics: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "4"]:
    """The box in which a hand is seen; that of landmarks would miss the wrist and the tips."""
    seen_px = verts_m.astype(np.float64) @ intrinsics.T
    seen_px = seen_px[:, :2] / seen_px[:, 2:]
    low, high = seen_px.min(axis=0), seen_px.max(axis=0)
    return np.concatenate([low + 0.5, np.maximum(high - low, SMALLEST_BOX_PX)])


def mirrored_boxes(boxes_px: Float[np.ndarray, "k 4"], width: int) -> Float[np.ndarray, "k 4"]:
    """The same boxes in the mirrored photo."""
    mirrored = boxes_px.copy()
    mirrored[:, 0] = width - boxes_px[:, 0] - boxes_px[:, 2]
    return mirrored


def crop_matrix(square_px: Float[np.ndarray, "4"], size: int) -> Float[np.ndarray, "2 3"]:
    """`crop_from_img` of a square, for crops of `size` px; edges fall on edges.

    So the crop of a larger copy of the photo is the same. Training lays centres of pixels
    otherwise by less than half a pixel of the crop, more or less with its size.
    """
    x, y, side, _ = square_px.tolist()
    zoom = size / side
    # The edge of the first pixel lies half a pixel before its centre, in photo and crop.
    offset = zoom * (0.5 - np.array([[x], [y]])) - 0.5
    return np.concatenate([zoom * np.eye(2), offset], axis=1)


def crop(
    photo: Photo, crop_from_img: Float[np.ndarray, "2 3"], size: int
) -> UInt8[np.ndarray, "s s 3"]:
    """What an upright square shows, read bilinearly; black outside the photo.

    Where it shrinks the photo more than twofold, blocks of pixels are averaged first: only the
    part that is looked at is touched, so the time does not grow with the photo.
    """
    height, width, _ = photo.shape
    zoom = crop_from_img[0, 0]
    block = max(int(1 / zoom), 1)
    first, last = ((corner - crop_from_img[:, 2]) / zoom for corner in (0, size - 1))
    left, top = np.maximum(np.floor(first).astype(int) - block, 0).tolist()
    right, low = np.minimum(np.ceil(last).astype(int) + block + 1, [width, height]).tolist()
    part = np.ascontiguousarray(photo[top:low, left:right])
    if block > 1:
        missing = (-part.shape[0] % block, -part.shape[1] % block)
        part = cv2.copyMakeBorder(part, 0, missing[0], 0, missing[1], cv2.BORDER_CONSTANT)
        reduced = part.shape[1] // block, part.shape[0] // block
        part = cv2.resize(part, reduced, interpolation=cv2.INTER_AREA)
    middle_of_first = np.array([left, top]) + (block - 1) / 2
    offset = crop_from_img[:, 2] + zoom * middle_of_first
    linear = zoom * block * np.eye(2)
    crop_from_part = np.concatenate([linear, offset[:, None]], axis=1)
    return cv2.warpAffine(part, crop_from_part, (size, size), flags=cv2.INTER_LINEAR)
