"""From hand boxes to the network's crops, on the host: the whole image is never uploaded.

A box (x, y, width, height) covers the pixels from x to x + width - 1, as an array slice does, so
its left edge lies at x - 0.5: pixels have their centres on integers.
Axes: k boxes, v vertices, h w image, s crop side.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.types import FREIHAND_CROP_PX, FREIHAND_IMAGE_PX

BOX_SCALE = 1.3  # Side of the crop over the longer side of the hand's box, as in training.
MIN_BOX_PX = 1.0
Image = UInt8[np.ndarray, "h w 3"]


def check_boxes(
    boxes_px: Float[np.ndarray, "k 4"], width: int, height: int
) -> Float[np.ndarray, "k 4"]:
    """The boxes.

    Raises:
        UserError: if one is not finite, has no area, or does not overlap the image.
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
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            raise UserError(
                f"{box} lies outside the image of {width} x {height} px: "
                "boxes are in pixels of the image after its EXIF rotation"
            )
    return boxes_px


def crops_around(boxes_px: Float[np.ndarray, "k 4"]) -> Float[np.ndarray, "k 4"]:
    """The square crop for each box, with a margin around the hand."""
    side = BOX_SCALE * boxes_px[:, 2:].max(axis=1, keepdims=True)
    centre = boxes_px[:, :2] + boxes_px[:, 2:] / 2
    return np.concatenate([centre - side / 2, side, side], axis=1)


def whole_image_crop(
    width: int, height: int, *, freihand: bool = False
) -> Float[np.ndarray, "1 4"]:
    """The crop of an image that shows one hand: the square around all of it.

    With `freihand`, the centred square that FreiHAND's evaluation takes of its images.
    """
    side = max(width, height)
    if freihand:
        side = FREIHAND_CROP_PX * min(width, height) / FREIHAND_IMAGE_PX
    return np.array([[(width - side) / 2, (height - side) / 2, side, side]])


def box_of_mesh(
    verts_m: Float[np.ndarray, "v 3"], intrinsics: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "4"]:
    """The box of a projected mesh; that of the landmarks would miss wrist and fingertips."""
    projected_px = verts_m.astype(np.float64) @ intrinsics.T
    projected_px = projected_px[:, :2] / projected_px[:, 2:]
    low, high = projected_px.min(axis=0), projected_px.max(axis=0)
    return np.concatenate([low + 0.5, np.maximum(high - low, MIN_BOX_PX)])


def mirrored_boxes(boxes_px: Float[np.ndarray, "k 4"], width: int) -> Float[np.ndarray, "k 4"]:
    """The same boxes in the mirrored image."""
    mirrored = boxes_px.copy()
    mirrored[:, 0] = width - boxes_px[:, 0] - boxes_px[:, 2]
    return mirrored


def crop_matrix(crop_px: Float[np.ndarray, "4"], size: int) -> Float[np.ndarray, "2 3"]:
    """`crop_from_img` of an upright crop box, for crops of `size` px.

    The twin on the host of `data.augment.crop_from_box`: networks see what they were trained on.
    """
    x, y, side, _ = crop_px.tolist()
    zoom = size / side
    offset = size / 2 - zoom * (np.array([[x], [y]]) + side / 2)
    return np.concatenate([zoom * np.eye(2), offset], axis=1)


def crop(
    image: Image, crop_from_img: Float[np.ndarray, "2 3"], size: int
) -> UInt8[np.ndarray, "s s 3"]:
    """An upright square of the image, resampled bilinearly; black outside the image.

    Where it shrinks the image more than twofold, blocks of pixels are averaged first. Only the
    region inside the crop is read, so the time does not grow with the image.
    """
    height, width, _ = image.shape
    zoom = crop_from_img[0, 0]
    block = max(int(1 / zoom), 1)
    first, last = ((corner - crop_from_img[:, 2]) / zoom for corner in (0, size - 1))
    left, top = np.maximum(np.floor(first).astype(int) - block, 0).tolist()
    right, bottom = np.minimum(np.ceil(last).astype(int) + block + 1, [width, height]).tolist()
    region = np.ascontiguousarray(image[top:bottom, left:right])
    if block > 1:
        missing = (-region.shape[0] % block, -region.shape[1] % block)
        region = cv2.copyMakeBorder(region, 0, missing[0], 0, missing[1], cv2.BORDER_CONSTANT)
        reduced = region.shape[1] // block, region.shape[0] // block
        region = cv2.resize(region, reduced, interpolation=cv2.INTER_AREA)
    centre_of_first = np.array([left, top]) + (block - 1) / 2
    offset = crop_from_img[:, 2] + zoom * centre_of_first
    linear = zoom * block * np.eye(2)
    crop_from_region = np.concatenate([linear, offset[:, None]], axis=1)
    return cv2.warpAffine(region, crop_from_region, (size, size), flags=cv2.INTER_LINEAR)
