"""Hand masks from any segmenter: read, checked, and turned into boxes.

Axes: k hands, h w image.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.inputs import Input

MAX_LABEL = 127  # An image with a larger value is the mask of one hand, with soft edges or not.
Masks = Bool[np.ndarray, "k h w"]


def check_masks(masks: np.ndarray | Sequence | Any, height: int, width: int) -> Masks:
    """One mask for each hand, or one (h, w) for one hand; non-zero is hand.

    Raises:
        UserError: if the masks are not of the image's size.
    """
    try:
        array = np.asarray(masks)
    except ValueError as error:
        raise UserError(f"masks differ in shape: {error}") from error
    array = array[None] if array.ndim == 2 else array
    if array.dtype.kind not in "biuf" or array.ndim != 3:
        raise UserError(
            f"masks have shape {array.shape} and type {array.dtype}: they must be (hands, h, w), "
            "numbers or booleans"
        )
    if array.shape[1:] != (height, width):
        raise UserError(
            f"masks of {array.shape[2]} x {array.shape[1]} px do not match the image of "
            f"{width} x {height} px: they must show the image after its EXIF rotation"
        )
    return array != 0


def boxes_of_masks(masks: Masks) -> Float[np.ndarray, "k 4"]:
    """The smallest box (x, y, width, height) around each mask; none may be empty."""
    boxes_px = np.zeros((len(masks), 4))
    for i, mask in enumerate(masks):
        columns, rows = (np.flatnonzero(mask.any(axis=axis)) for axis in (0, 1))
        boxes_px[i] = [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
    return boxes_px


def find_masks(folder: Path, inputs: Iterable[Input]) -> dict[str, Path]:
    """FOLDER/NAME.png for each image NAME.jpg that has one, by the name of its input.

    Raises:
        UserError: if the folder is missing, an input is a video or camera, or no image has a mask.
    """
    if not folder.is_dir():
        raise UserError(f"--masks {folder}: no such folder")
    inputs = list(inputs)
    videos = [each.source for each in inputs if each.is_video]
    if videos:
        raise UserError(f"--masks is for images: leave out {', '.join(videos)}")
    paths = {each.name: folder / f"{each.name}.png" for each in inputs}
    found = {name: path for name, path in paths.items() if path.is_file()}
    if not found:
        raise UserError(
            f"--masks {folder}: none of the images has a mask there, for example "
            f"{inputs[0].name}.png for {inputs[0].source}"
        )
    return found


def read_masks(path: Path, hands: int | None) -> Masks:
    """The masks in a single-channel image, for this number of hands if that is known.

    Non-zero is hand. For several hands, the value of a pixel is the number of its hand from 1.

    Raises:
        UserError: if it is not a single-channel image, or does not distinguish several hands.
    """
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if labels is None:
        raise UserError(f"{path} is not an image")
    if labels.ndim == 3 and (labels == labels[..., :1]).all():
        labels = labels[..., 0]  # Saved in colour, but grey.
    if labels.ndim != 2:
        raise UserError(f"{path} has {labels.shape[2]} channels: a mask has one")
    highest = int(labels.max())
    if hands is None:
        hands = 1 if highest > MAX_LABEL else max(highest, 1)
    if hands == 1:
        return labels[None] != 0
    if highest > hands:
        raise UserError(
            f"{path} contains the value {highest} for {hands} hands: the pixels of the first hand "
            "must be 1, those of the second 2, and so on, in the order of the boxes"
        )
    return labels == np.arange(1, hands + 1)[:, None, None]
