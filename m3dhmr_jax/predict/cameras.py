"""The intrinsic matrix K of an image: given, from EXIF, or assumed.

Pixels: centres on integers. K: pixels from camera coordinates, last row (0, 0, 1).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.intrinsics_file import SUFFIXES, matrix_of, read_intrinsics
from m3dhmr_jax.runtime.files import user_path

# Fields of view across the longer side. The assumed one lies between webcams and the main lens of
# phones. FreiHAND's images are cut out of larger ones: their focal length is 450 px of 224.
ASSUMED_FOV_DEG = 60.0
FREIHAND_FOV_DEG = 28.0
FULL_FRAME_DIAGONAL_MM = math.hypot(36, 24)
# Fields of view of cameras and of what is cut out of their images: FreiHAND's are 11 to 30 degrees,
# action cameras reach 130. Beyond the outer limits a hand that fills the image would be more than
# 20 m away, or less than a centimetre.
PLAUSIBLE_FOV_DEG = 8.0, 140.0
POSSIBLE_FOV_DEG = 0.5, 170.0
# From here on, the principal point is off the middle, as a fraction of the image. Along the
# diagonal, K is probably that of a copy of another size.
MAX_DIAGONAL_OFFSET = 0.06
MAX_SKEW = 0.1  # Over the focal length; real cameras have less than a hundredth.
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


def check_intrinsics(given: ArrayLike | Any) -> Matrix:
    """K in float64.

    Raises:
        UserError: if it is not a finite 3 x 3 matrix with last row (0, 0, 1) and positive focal
            lengths, which depth needs.
    """
    try:
        k = np.asarray(given, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"K is {given!r:.60}: it must be a 3 x 3 matrix of numbers") from error
    if k.shape != (3, 3):
        raise UserError(f"K has shape {k.shape}: it must be (3, 3), pixels from camera coordinates")
    text = f"K = {k.tolist()}"
    if not np.isfinite(k).all() or (k[2] != [0, 0, 1]).any() or k[1, 0] != 0:
        is_transposed = (k[:, 2] == [0, 0, 1]).all()
        hint = "; it is written by columns: transpose it" if is_transposed else ""
        raise UserError(
            f"{text} must be [[fx, skew, cx], [0, fy, cy], [0, 0, 1]], all finite{hint}"
        )
    if not min(k[0, 0], k[1, 1]) > 0:
        raise UserError(
            f"{text} is singular or mirrors: the focal lengths fx and fy must be positive"
        )
    if abs(k[0, 1]) > MAX_SKEW * k[0, 0]:
        raise UserError(
            f"{text} has the skew {k[0, 1]:g}: no camera has more than {MAX_SKEW:g} fx; its order "
            "is [[fx, skew, cx], [0, fy, cy], [0, 0, 1]]"
        )
    return k


def fov_deg_of(k: Matrix, width: int, height: int) -> float:
    """The larger of the two fields of view, were the principal point in the middle."""
    return math.degrees(2 * math.atan(max(width / k[0, 0], height / k[1, 1]) / 2))


def is_possible(k: Matrix, width: int, height: int) -> bool:
    """Whether a camera with K can have taken an image of this size, or one it is cut out of."""
    offset = max(abs(width / 2 - k[0, 2]) / k[0, 0], abs(height / 2 - k[1, 2]) / k[1, 1])
    is_seen = 2 * math.degrees(math.atan(offset)) <= PLAUSIBLE_FOV_DEG[1]
    low_deg, high_deg = POSSIBLE_FOV_DEG
    return is_seen and low_deg <= fov_deg_of(k, width, height) <= high_deg


def camera_doubt(k: Matrix, width: int, height: int) -> str:
    """Why K is hardly that of this image, with the likely reason; "" if it is plausible.

    Raises:
        UserError: if no camera sees so wide or so narrow an image, or so far from its axis.
    """
    doubts = _fov_doubt(k, width, height), _principal_point_doubt(k, width, height)
    doubt = "; ".join(filter(None, doubts))
    if not is_possible(k, width, height):
        raise UserError(f"no camera has this K: {doubt}")
    return doubt


def _fov_doubt(k: Matrix, width: int, height: int) -> str:
    low_deg, high_deg = PLAUSIBLE_FOV_DEG
    fov_deg = fov_deg_of(k, width, height)
    if low_deg <= fov_deg <= high_deg:
        return ""
    reason = (
        "they look like millimetres, or like those of a smaller image; K is in pixels"
        if fov_deg > high_deg
        else "they look like those of a larger image; scale K with the image"
    )
    return (
        f"the focal lengths of K, {k[0, 0]:g} and {k[1, 1]:g}, give an image of {width} x "
        f"{height} px a field of view of {fov_deg:.3g} degrees (usual: {low_deg:g} to "
        f"{high_deg:g}): {reason}"
    )


def _principal_point_doubt(k: Matrix, width: int, height: int) -> str:
    """The principal point of a K of another size is off the middle by the same fraction in x and y.

    A cut-out's is off the middle too, but rarely along the diagonal; FreiHAND has such images.
    """
    x, y = (k[0, 2] + 0.5) / width - 0.5, (k[1, 2] + 0.5) / height - 0.5
    if max(abs(x), abs(y)) <= MAX_DIAGONAL_OFFSET:
        return ""
    point = f"the principal point of K is ({k[0, 2]:g}, {k[1, 2]:g}), "
    if min(k[0, 2], k[1, 2]) > 0:
        full_px = f"{2 * k[0, 2] + 1:.0f} x {2 * k[1, 2] + 1:.0f} px"
        point += f"as in an image of {full_px}, but this one has {width} x {height} px"
    else:
        point += f"outside this image of {width} x {height} px"
    turned = (k[0, 2] + 0.5) / height - 0.5, (k[1, 2] + 0.5) / width - 0.5
    if max(map(abs, turned)) <= MAX_DIAGONAL_OFFSET:
        return f"{point}: give K of the upright image, which was rotated after it was taken"
    is_inside = max(abs(x), abs(y)) <= 0.5
    is_diagonal = min(abs(x), abs(y)) > MAX_DIAGONAL_OFFSET and abs(x - y) < MAX_DIAGONAL_OFFSET
    if is_inside and not is_diagonal:
        return ""
    return f"{point}: scale K with the image, unless the image is cut out of a larger one"


def mirrored_intrinsics(k: Matrix, width: int) -> Matrix:
    """K for the mirrored image and mirrored x."""
    mirrored = k.copy()
    mirrored[0, 1] = -k[0, 1]
    mirrored[0, 2] = width - 1 - k[0, 2]
    return mirrored


def parse_intrinsics(text: str) -> Matrix:
    """K from a command line: "fx,fy,cx,cy", nine numbers by rows, or a file of `intrinsics_file`.

    Raises:
        UserError: if the file is missing, or this is not a K.
    """
    if Path(text).suffix.lower() in SUFFIXES:
        return check_intrinsics(read_intrinsics(user_path(text)))
    try:
        k = matrix_of([float(number) for number in text.split(",")])
    except ValueError as error:
        raise UserError(
            f"--K {text}: {error}; give fx,fy,cx,cy in pixels, the nine numbers of K by rows, or "
            f"a file ({', '.join(SUFFIXES)})"
        ) from error
    return check_intrinsics(k)
