"""The intrinsic matrix K of a photo: given, told by EXIF, or assumed.

Pixels: centres on integers. K: pixels from camera coordinates, last row (0, 0, 1).
"""

import json
import math
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from m3dhmr_jax.types import FREIHAND_IMAGE_PX

ASSUMED_FIELD_DEG = 60.0  # Across the longer side: between webcams and the main lens of telephones.
FREIHAND_FIELD_DEG = 28.0  # FreiHAND's photos are cut out of larger ones: focal length 450 px.
FULL_FRAME_DIAGONAL_MM = math.hypot(36, 24)
MISFIT = 0.1  # How far from the middle K may look along the diagonal, as a share of the photo.
Matrix = Float[np.ndarray, "3 3"]


def intrinsics_of(focal_px: float, width: int, height: int) -> Matrix:
    """K of a camera with square pixels that looks through the middle of the photo."""
    return np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1.0]])


def intrinsics_from_field(field_deg: float, width: int, height: int) -> Matrix:
    """K of a camera that sees `field_deg` across the photo's longer side.

    Raises:
        ValueError: if the angle is not between 0 and 180 degrees.
    """
    if not 0 < field_deg < 180:
        raise ValueError(
            f"field of view of {field_deg:g} degrees: it must lie between 0 and 180, "
            "as a flat picture shows no more"
        )
    focal_px = 0.5 * max(width, height) / math.tan(math.radians(field_deg) / 2)
    return intrinsics_of(focal_px, width, height)


def intrinsics_from_focal_35mm(focal_mm: float, width: int, height: int) -> Matrix:
    """K for EXIF's focal length on 35 mm film, which compares the fields across the diagonals."""
    return intrinsics_of(
        focal_mm / FULL_FRAME_DIAGONAL_MM * math.hypot(width, height), width, height
    )


def assumed_intrinsics(width: int, height: int) -> Matrix:
    """K where nothing is known: 60 degrees, or FreiHAND's 28 for a photo of FreiHAND's size."""
    is_freihand = width == height == FREIHAND_IMAGE_PX
    return intrinsics_from_field(
        FREIHAND_FIELD_DEG if is_freihand else ASSUMED_FIELD_DEG, width, height
    )


def check_intrinsics(given: ArrayLike) -> Matrix:
    """K in float64.

    Raises:
        ValueError: if it is no 3 x 3 matrix of finite numbers with last row (0, 0, 1) and positive
            focal lengths: then no depth follows from it.
    """
    k = np.asarray(given, np.float64)
    if k.shape != (3, 3):
        raise ValueError(
            f"K has shape {k.shape}: it must be (3, 3), pixels from camera coordinates"
        )
    shown = f"K = {k.tolist()}"
    if not np.isfinite(k).all() or (k[2] != [0, 0, 1]).any() or k[1, 0] != 0:
        raise ValueError(f"{shown} must be [[fx, skew, cx], [0, fy, cy], [0, 0, 1]], all finite")
    if not min(k[0, 0], k[1, 1]) > 0:
        raise ValueError(
            f"{shown} is singular or mirrors: focal lengths fx and fy must be positive"
        )
    return k


def misfit(k: Matrix, width: int, height: int) -> str:
    """Why K seems to be of a photo of another size; "" if it does not.

    Such a K has its principal point outside, or off the middle in the same proportion in both
    directions. That of a cut-out is off the middle too, but rarely along the diagonal.
    """
    x, y = (k[0, 2] + 0.5) / width, (k[1, 2] + 0.5) / height
    is_outside = not (0 <= x <= 1 and 0 <= y <= 1)
    is_on_diagonal = abs(x - y) < MISFIT / 2 and min(abs(x - 0.5), abs(y - 0.5)) > MISFIT
    if not (is_outside or is_on_diagonal):
        return ""
    return (
        f"K looks through ({k[0, 2]:g}, {k[1, 2]:g}), as in a photo of {2 * k[0, 2] + 1:.0f} x "
        f"{2 * k[1, 2] + 1:.0f} px, but this one has {width} x {height} px: scale K with the photo"
    )


def mirrored_intrinsics(k: Matrix, width: int) -> Matrix:
    """K for the mirrored photo and mirrored x."""
    mirrored = k.copy()
    mirrored[0, 1] = -k[0, 1]
    mirrored[0, 2] = width - 1 - k[0, 2]
    return mirrored


def parse_intrinsics(text: str) -> Matrix:
    """K as people give it: "fx,fy,cx,cy", nine numbers by rows, or a JSON file of a matrix.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or it holds no K.
    """
    if text.endswith(".json"):
        if not Path(text).is_file():
            raise FileNotFoundError(f"--K {text}: no such file")
        try:
            content = json.loads(Path(text).read_text())
            return check_intrinsics(content["K"] if isinstance(content, dict) else content)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"--K {text}: {error}; the file must hold a 3 x 3 list, or an object with one as K"
            ) from error
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 4:
        fx, fy, cx, cy = numbers
        return check_intrinsics([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    if len(numbers) == 9:
        return check_intrinsics(np.reshape(numbers, (3, 3)))
    raise ValueError(
        f"--K {text}: give fx,fy,cx,cy in pixels, the nine numbers of K by rows, or a .json file"
    )
