"""Image files of any kind as RGB, and the camera's focal length from their EXIF data.

Axes: h w image.
"""

import struct
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.cameras import intrinsics_from_focal_35mm
from m3dhmr_jax.predict.crops import Image

# EXIF tags: the offset of the camera's folder, and its 35 mm equivalent focal length.
EXIF_FOLDER, EXIF_FOCAL_35MM = 0x8769, 0xA405
JPEG_START = b"\xff\xd8"


class DecodedImage(NamedTuple):
    """An image after its EXIF rotation."""

    image: Image
    # From EXIF, if present.
    intrinsics: Float[np.ndarray, "3 3"] | None
    # What was converted; "" if nothing.
    note: str


def as_image(image: np.ndarray) -> tuple[Image, str]:
    """The image as RGB, and what was converted; "" if nothing.

    Raises:
        UserError: if it is not 8-bit, not of an image's shape, or empty.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8:
        bits = f"{8 * image.dtype.itemsize}-bit" if image.dtype.kind in "iu" else "not 8-bit"
        raise UserError(
            f"the image is {bits} ({image.dtype}): it must be uint8; the right tone mapping is not "
            "known here, so map its values to 0..255 first"
        )
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in image.shape:
        raise UserError(f"the image has shape {image.shape}: it must be (h, w, 3), RGB")
    if channels == 1:
        grey = image.reshape(*image.shape[:2], 1)
        return np.repeat(grey, 3, axis=2), "the image has one channel: taken as grey"
    if channels == 4:
        return image[..., :3], "the image has an alpha channel: it is ignored"
    return image, ""


def read_image(path: Path) -> DecodedImage:
    """An image from a file, rotated according to its EXIF data.

    Raises:
        UserError: if it cannot be read, is not an image, or is not 8-bit.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    return decode_image(content, str(path))


def decode_image(content: UInt8[np.ndarray, " n"], name: str) -> DecodedImage:
    """The image in a file's content, as `read_image`.

    Raises:
        UserError: with the `name`, if it is not an image, or is not 8-bit.
    """
    try:
        pixels, kinds, metadata = cv2.imdecodeWithMetadata(
            content, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
        )
    except cv2.error:  # An empty file.
        pixels, kinds, metadata = None, (), ()
    if pixels is None:
        raise UserError(f"{name} is not an image")
    try:
        image, note = as_image(
            pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        )
    except (UserError, cv2.error) as error:
        raise UserError(f"{name}: {error}") from error
    if not note and content[:2].tobytes() != JPEG_START and _has_alpha(content):
        note = "the image has an alpha channel: it is ignored"
    found = dict(zip(kinds, metadata, strict=True))
    focal_mm = 0
    if cv2.IMAGE_METADATA_EXIF in found:
        focal_mm = focal_35mm(np.asarray(found[cv2.IMAGE_METADATA_EXIF]).tobytes())
    height, width = image.shape[:2]
    k = intrinsics_from_focal_35mm(float(focal_mm), width, height) if focal_mm else None
    return DecodedImage(image, k, f"{name}: {note}" if note else "")


def _has_alpha(content: np.ndarray) -> bool:
    raw = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    return raw is not None and raw.ndim == 3 and raw.shape[2] == 4


def focal_35mm(exif: bytes) -> int:
    """The 35 mm equivalent focal length in mm; 0 if it is not given.

    `exif` is a TIFF header with its folders: 12 bytes an entry (tag, type, count, value).
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 0
    try:
        (first,) = struct.unpack_from(order + "I", exif, 4)
        folder = _exif_entry(exif, order, first, EXIF_FOLDER)
        return (folder and _exif_entry(exif, order, folder, EXIF_FOCAL_35MM)) or 0
    except struct.error:  # Truncated.
        return 0


def _exif_entry(exif: bytes, order: str, folder: int, wanted: int) -> int | None:
    (n,) = struct.unpack_from(order + "H", exif, folder)
    for start in range(folder + 2, folder + 2 + 12 * n, 12):
        tag, kind, _ = struct.unpack_from(order + "HHI", exif, start)
        if tag == wanted:
            return struct.unpack_from(order + ("H" if kind == 3 else "I"), exif, start + 8)[0]
    return None
