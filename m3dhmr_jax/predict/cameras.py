"""The intrinsic matrix K of an image: given, from EXIF, or assumed.

Pixels: centres on integers. K: pixels from camera coordinates, last row (0, 0, 1).
"""

import json
import math
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from m3dhmr_jax.errors import UserError

# Fields of view across the longer side. The assumed one lies between webcams and the main lens of
# phones. FreiHAND's images are cut out of larger ones: their focal length is 450 px of 224.
ASSUMED_FOV_DEG = 60.0
FREIHAND_FOV_DEG = 28.0
FULL_FRAME_DIAGONAL_MM = math.hypot(36, 24)
# Largest plausible offset of the principal point along the diagonal, as a fraction of the image.
MAX_DIAGONAL_OFFSET = 0.1
Matrix = Float[np.ndarray, "3 3"]


def intrinsics_from_focal(focal_px: float, width: int, height: int) -> Matrix:
    """K of a camera with square pixels and its principal point at the image centre."""
    return np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1.0]])


def intrinsics_from_fov(fov_deg: float, width: int, height: int) -> Matrix:
    """K of a camera with a field of view of `fov_deg` across the longer side of the image.

    Raises:
        UserError: if the angle is not between 0 and 180 degrees.
    """
    if not 0 < fov_deg < 180:
        raise UserError(
            f"a field of view of {fov_deg:g} degrees is impossible in a flat image: it must lie "
            "between 0 and 180"
        )
    focal_px = 0.5 * max(width, height) / math.tan(math.radians(fov_deg) / 2)
    return intrinsics_from_focal(focal_px, width, height)


def intrinsics_from_focal_35mm(focal_mm: float, width: int, height: int) -> Matrix:
    """K for EXIF's 35 mm equivalent focal length, which is defined by equal diagonal fields."""
    return intrinsics_from_focal(
        focal_mm / FULL_FRAME_DIAGONAL_MM * math.hypot(width, height), width, height
    )


def assumed_intrinsics(width: int, height: int, *, freihand: bool = False) -> Matrix:
    """K if nothing is known: a field of view of 60 degrees, or 28 for FreiHAND's images."""
    return intrinsics_from_fov(FREIHAND_FOV_DEG if freihand else ASSUMED_FOV_DEG, width, height)


def check_intrinsics(given: ArrayLike) -> Matrix:
    """K in float64.

    Raises:
        UserError: if it is not a finite 3 x 3 matrix with last row (0, 0, 1) and positive focal
            lengths, which depth needs.
    """
    k = np.asarray(given, np.float64)
    if k.shape != (3, 3):
        raise UserError(f"K has shape {k.shape}: it must be (3, 3), pixels from camera coordinates")
    text = f"K = {k.tolist()}"
    if not np.isfinite(k).all() or (k[2] != [0, 0, 1]).any() or k[1, 0] != 0:
        raise UserError(f"{text} must be [[fx, skew, cx], [0, fy, cy], [0, 0, 1]], all finite")
    if not min(k[0, 0], k[1, 1]) > 0:
        raise UserError(
            f"{text} is singular or mirrors: the focal lengths fx and fy must be positive"
        )
    return k


def intrinsics_mismatch(k: Matrix, width: int, height: int) -> str:
    """Why K seems to belong to an image of another size; "" if it does not.

    The principal point of such a K lies outside, or off centre by the same fraction in x and y.
    A cut-out's is off centre too, but rarely along the diagonal.
    """
    x, y = (k[0, 2] + 0.5) / width, (k[1, 2] + 0.5) / height
    is_outside = not (0 <= x <= 1 and 0 <= y <= 1)
    is_on_diagonal = (
        abs(x - y) < MAX_DIAGONAL_OFFSET / 2
        and min(abs(x - 0.5), abs(y - 0.5)) > MAX_DIAGONAL_OFFSET
    )
    if not (is_outside or is_on_diagonal):
        return ""
    return (
        f"the principal point of K is ({k[0, 2]:g}, {k[1, 2]:g}), as in an image of "
        f"{2 * k[0, 2] + 1:.0f} x {2 * k[1, 2] + 1:.0f} px, but this one has {width} x {height} "
        "px: scale K with the image"
    )


def mirrored_intrinsics(k: Matrix, width: int) -> Matrix:
    """K for the mirrored image and mirrored x."""
    mirrored = k.copy()
    mirrored[0, 1] = -k[0, 1]
    mirrored[0, 2] = width - 1 - k[0, 2]
    return mirrored


def parse_intrinsics(text: str) -> Matrix:
    """K from a command line: "fx,fy,cx,cy", nine numbers by rows, or a JSON file of a matrix.

    Raises:
        UserError: if the file is missing, or this is not a K.
    """
    if text.endswith(".json"):
        if not Path(text).is_file():
            raise UserError(f"--K {text}: no such file")
        try:
            content = json.loads(Path(text).read_text())
            return check_intrinsics(content["K"] if isinstance(content, dict) else content)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"--K {text}: {error}; the file must contain a 3 x 3 list, or an object with one "
                "under the name K"
            ) from error
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 4:
        fx, fy, cx, cy = numbers
        return check_intrinsics([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    if len(numbers) == 9:
        return check_intrinsics(np.reshape(numbers, (3, 3)))
    raise UserError(
        f"--K {text} must be fx,fy,cx,cy in pixels, the nine numbers of K by rows, or a .json file"
    )
