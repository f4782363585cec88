"""Hand landmarks from a file, as any landmark network or a person writes them.

A table (see `predict.tables`) with the columns `image`, `x0`, `y0` to `x20`, `y20` or, in JSON,
`landmarks_px` (21 pairs), and, optionally, `frame` and `handedness`; hands.jsonl is such a table.
Axes: k hands, n = 21 landmarks in FreiHAND order.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.tables import Row, read_table
from m3dhmr_jax.types import N_JOINTS

COLUMNS = [f"{axis}{i}" for i in range(N_JOINTS) for axis in "xy"]


class HandLandmarks(NamedTuple):
    """The hands of one frame."""

    landmarks_px: Float[np.ndarray, "k n 2"]
    handedness: tuple[str, ...]


# By file name, without folders, and frame.
LandmarksByFile = dict[str, dict[int, HandLandmarks]]


def landmarks_at(landmarks: Mapping[int, HandLandmarks], index: int) -> HandLandmarks:
    """The landmarks of a frame, or none."""
    return landmarks.get(index, HandLandmarks(np.zeros((0, N_JOINTS, 2)), ()))


def read_landmarks(path: Path, handedness: str | None) -> LandmarksByFile:
    """The landmarks of a file.

    `handedness` applies to rows that do not state theirs; None: right.

    Raises:
        UserError: if the file is missing, not a table, or a row is invalid.
    """
    found: dict[tuple[str, int], list[tuple[np.ndarray, str]]] = {}
    for row in read_table(path):
        key, side = (row.image(), row.frame()), row.side(handedness) or "right"
        found.setdefault(key, []).append((_points(row), side))
    if not found:
        raise UserError(f"{path} contains no hand")
    landmarks: LandmarksByFile = {}
    for (image, frame), hands in found.items():
        points_px, sides = zip(*hands, strict=True)
        landmarks.setdefault(image, {})[frame] = HandLandmarks(np.stack(points_px), sides)
    return landmarks


def _points(row: Row) -> Float[np.ndarray, "n 2"]:
    if "landmarks_px" not in row.values:
        missing = [name for name in COLUMNS if name not in row.values]
        if missing:
            raise UserError(
                f"{row.where} has no {missing[0]}: a hand needs {COLUMNS[0]},{COLUMNS[1]} to "
                f"{COLUMNS[-2]},{COLUMNS[-1]} or, in JSON, landmarks_px"
            )
        return np.reshape([row.number(name) for name in COLUMNS], (N_JOINTS, 2))
    try:
        points_px = np.asarray(row.values["landmarks_px"], np.float64)
    except (TypeError, ValueError, OverflowError):
        points_px = np.zeros(0)
    if points_px.shape != (N_JOINTS, 2) or not np.isfinite(points_px).all():
        raise UserError(f"{row.where}: landmarks_px must be {N_JOINTS} pairs of finite pixels")
    return points_px
