"""What callers hand to a predictor: checked, and turned into arrays.

Axes: k hands, n = 21 landmarks, h w image.
"""

import warnings
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.cameras import camera_doubt, check_intrinsics
from m3dhmr_jax.predict.candidates import check_handedness
from m3dhmr_jax.predict.crops import MAX_BOX_PER_IMAGE, MIN_BOX_PX, Image, check_boxes
from m3dhmr_jax.predict.images import as_image
from m3dhmr_jax.predict.masks import Masks, boxes_of_masks
from m3dhmr_jax.types import N_JOINTS

PILLOW_MODES = ("L", "RGB", "RGBA")


def check_image(image: Any) -> Image:
    """The image as RGB; a warning tells what was converted.

    Raises:
        UserError: if it is not an image in memory, not 8-bit, or of another shape.
    """
    if image is None:
        raise UserError(
            "the image is None: it must be an array; cv2.imread returns None for a file that it "
            "cannot read"
        )
    if isinstance(image, str | bytes | PathLike):
        raise UserError(
            f"the image is {image!r:.80}: it must be an array, so read the file first, for example "
            "cv2.imread(path)[..., ::-1]; m3dhmr predict takes files"
        )
    mode = getattr(image, "mode", "RGB")
    if mode not in PILLOW_MODES:
        raise UserError(f'the image has the mode {mode!r}: use image.convert("RGB")')
    try:
        array = np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the image is not an array of numbers: {error}") from error
    shape, advice = array.shape, ""
    if array.ndim == 4:
        advice = "give one image at a time"
    elif array.ndim == 3 and shape[2] not in (1, 3, 4) and shape[0] in (1, 3, 4):
        advice = "its channels come first: use image.transpose(1, 2, 0)"
    elif array.dtype.kind == "f" and array.size and 0 <= array.min() <= array.max() <= 1:
        advice = "its values are from 0 to 1: use (255 * image).round().astype(numpy.uint8)"
    if advice:
        raise UserError(
            f"the image has shape {shape} and type {array.dtype}: it must be (h, w, 3), RGB, "
            f"uint8; {advice}"
        )
    pixels, note = as_image(array)
    if note:
        warnings.warn(note, stacklevel=3)
    return pixels


def check_camera(K: Any, width: int, height: int) -> Float[np.ndarray, "3 3"]:
    """K of an image; a warning tells if it is hardly that of this one.

    Raises:
        UserError: if it is not a K, or no camera has it.
    """
    intrinsics = check_intrinsics(K)
    doubt = camera_doubt(intrinsics, width, height)
    if doubt:
        warnings.warn(doubt, stacklevel=3)
    return intrinsics


def check_box_array(boxes: Any, width: int, height: int) -> Float[np.ndarray, "k 4"]:
    """Boxes of the hands of an image, or one box.

    Raises:
        UserError: if they have another shape, or one is as `check_boxes` rejects it.
    """
    boxes_px = _numbers("boxes", boxes, "(hands, 4), (x, y, width, height) each")
    boxes_px = boxes_px.reshape(-1, 4) if boxes_px.shape in {(4,), (0,)} else boxes_px
    if boxes_px.ndim != 2 or boxes_px.shape[1] != 4:
        raise UserError(
            f"boxes have shape {boxes_px.shape}: they must be (hands, 4), (x, y, width, height) "
            "each"
        )
    return check_boxes(boxes_px, width, height)


def check_landmarks(landmarks: Any, width: int, height: int) -> Float[np.ndarray, "k n 2"]:
    """Landmarks of the hands of an image, or of one hand.

    Raises:
        UserError: if they are not 21 finite points per hand in pixels of the image.
    """
    landmarks_px = _numbers("landmarks", landmarks, f"(hands, {N_JOINTS}, 2), finite")
    landmarks_px = landmarks_px[None] if landmarks_px.ndim == 2 else landmarks_px
    if landmarks_px.shape[1:] != (N_JOINTS, 2) or not np.isfinite(landmarks_px).all():
        raise UserError(
            f"landmarks have shape {landmarks_px.shape}: they must be (hands, {N_JOINTS}, 2), "
            "finite"
        )
    limit_px = MAX_BOX_PER_IMAGE * max(width, height)
    for i, points_px in enumerate(landmarks_px):
        if np.ptp(points_px, axis=0).max() <= MIN_BOX_PX or np.abs(points_px).max() > limit_px:
            raise UserError(
                f"the landmarks of hand {i} lie between {points_px.min(axis=0).tolist()} and "
                f"{points_px.max(axis=0).tolist()}: they must be pixels of the image of {width} x "
                f"{height} px, not fractions of it"
            )
    return landmarks_px


def _numbers(name: str, values: Any, rule: str) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{name} are {values!r:.60}: they must be numbers of shape {rule}"
        ) from error


def check_one_side(handedness: str | Sequence[str | None] | Any | None) -> str | None:
    """The side of all hands that are found, whose number is not known before.

    Raises:
        UserError: if there are several, or one is unknown.
    """
    if handedness is None or isinstance(handedness, str):
        return check_handedness(handedness, 1)[0]
    raise UserError(
        f"handedness={handedness!r} is for given boxes: hands that are found have one side or None"
    )


def boxes_or_masks(masks: Masks, boxes: Any) -> Any:
    """The given boxes; None: those around the masks. A warning names empty masks.

    Raises:
        UserError: if a mask without a box is empty.
    """
    empty = np.flatnonzero(~masks.any(axis=(1, 2)))
    if len(empty):
        warnings.warn(f"empty masks, used as none: {empty.tolist()}", stacklevel=3)
    if boxes is not None:
        return boxes
    if len(empty):
        raise UserError(
            f"masks {empty.tolist()} are empty and there are no boxes: a hand without a mask needs "
            "a box"
        )
    return boxes_of_masks(masks)
