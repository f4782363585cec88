"""Pictures of any kind as RGB photos, and what their EXIF data tell of the camera.

Axes: h w photo.
"""

import struct
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.predict.cameras import intrinsics_from_focal_35mm
from m3dhmr_jax.predict.crops import Photo

EXIF_FOLDER, EXIF_FOCAL_35MM = 0x8769, 0xA405  # Tags: where the camera's entries are; one of them.
JPEG_START = b"\xff\xd8"


class ReadPhoto(NamedTuple):
    """A photo, upright, and what is to be said of it."""

    image: Photo
    intrinsics: Float[np.ndarray, "3 3"] | None  # By EXIF, if it tells.
    note: str  # What was converted; "" if nothing.


def as_photo(image: np.ndarray) -> tuple[Photo, str]:
    """The picture as RGB, and what was converted; "" if nothing.

    Raises:
        ValueError: if it is not 8-bit, not a picture, or empty.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8:
        bits = f"{8 * image.dtype.itemsize}-bit" if image.dtype.kind in "iu" else "not 8-bit"
        raise ValueError(
            f"the image is {bits} ({image.dtype}): it must be uint8; how its values become light "
            "is not known here, so map them to 0..255 first"
        )
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in image.shape:
        raise ValueError(f"the image has shape {image.shape}: it must be (h, w, 3), RGB")
    if channels == 1:
        grey = image.reshape(*image.shape[:2], 1)
        return np.repeat(grey, 3, axis=2), "the image has one channel: taken as grey"
    if channels == 4:
        return image[..., :3], "the image has an alpha channel: it is ignored"
    return image, ""


def read_photo(path: Path) -> ReadPhoto:
    """A photo from a file, turned upright as its EXIF data says.

    Raises:
        ValueError: if it is no image, or not 8-bit.
        OSError: if it cannot be read.
    """
    return decode_photo(np.fromfile(path, np.uint8), str(path))


def decode_photo(content: UInt8[np.ndarray, " n"], name: str) -> ReadPhoto:
    """The same of a file's content; raises ValueError, with its `name`, if that is no photo."""
    try:
        pixels, kinds, metadata = cv2.imdecodeWithMetadata(
            content, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
        )
    except cv2.error:  # An empty file.
        pixels, kinds, metadata = None, (), ()
    if pixels is None:
        raise ValueError(f"{name}: not an image")
    try:
        image, note = as_photo(
            pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        )
    except (ValueError, cv2.error) as error:
        raise ValueError(f"{name}: {error}") from error
    if not note and content[:2].tobytes() != JPEG_START and _has_alpha(content):
        note = "the image has an alpha channel: it is ignored"
    found = dict(zip(kinds, metadata, strict=True))
    focal_mm = 0
    if cv2.IMAGE_METADATA_EXIF in found:
        focal_mm = focal_35mm(np.asarray(found[cv2.IMAGE_METADATA_EXIF]).tobytes())
    height, width = image.shape[:2]
    k = intrinsics_from_focal_35mm(float(focal_mm), width, height) if focal_mm else None
    return ReadPhoto(image, k, f"{name}: {note}" if note else "")


def _has_alpha(content: np.ndarray) -> bool:
    raw = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    return raw is not None and raw.ndim == 3 and raw.shape[2] == 4


def focal_35mm(exif: bytes) -> int:
    """The focal length in mm that would show the same on 35 mm film; 0 if it is not told.

    `exif` is a TIFF header with its folders: 12 bytes an entry (tag, type, count, value).
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 0
    try:
        (first,) = struct.unpack_from(order + "I", exif, 4)
        place = _entry(exif, order, first, EXIF_FOLDER)
        return (place and _entry(exif, order, place, EXIF_FOCAL_35MM)) or 0
    except struct.error:  # Cut off.
        return 0


def _entry(exif: bytes, order: str, place: int, wanted: int) -> int | None:
    (n,) = struct.unpack_from(order + "H", exif, place)
    for start in range(place + 2, place + 2 + 12 * n, 12):
        tag, kind, _ = struct.unpack_from(order + "HHI", exif, start)
        if tag == wanted:
            return struct.unpack_from(order + ("H" if kind == 3 else "I"), exif, start + 8)[0]
    return None
