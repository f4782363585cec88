"""Hand landmarks from a file, as any landmark network or a person writes them.

One of:
- CSV with the columns `image, x0, y0, ..., x20, y20` and, optionally, `frame` and `handedness`;
- JSON, a list of objects with `image`, `landmarks_px` (21 pairs) and, optionally, those two;
- JSON lines as `m3dhmr predict` writes them to hands.jsonl.
Axes: k hands, n = 21 landmarks in FreiHAND order.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.types import N_JOINTS, SIDES

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
        UserError: if the file is missing, of another format, or a row is invalid.
    """
    if not path.is_file():
        raise UserError(f"--landmarks {path}: no such file")
    found: dict[tuple[str, int], list[tuple[np.ndarray, str]]] = {}
    for i, row in enumerate(_rows(path)):
        key, points_px, side = _parse_row(row, handedness or "right", f"{path}, hand {i + 1}")
        found.setdefault(key, []).append((points_px, side))
    if not found:
        raise UserError(f"{path} contains no hand")
    landmarks: LandmarksByFile = {}
    for (image, frame), hands in found.items():
        points_px, sides = zip(*hands, strict=True)
        landmarks.setdefault(image, {})[frame] = HandLandmarks(np.stack(points_px), sides)
    return landmarks


def _rows(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        if path.suffix.lower() not in (".json", ".jsonl"):
            with path.open(newline="", encoding="utf-8-sig") as file:
                return [_as_pairs(row) for row in csv.DictReader(file)]
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            rows = json.loads(text)
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise TypeError("it must be a list of objects")
            return rows
        frames = [json.loads(line) for line in text.splitlines() if line.strip()]
        return [{**frame, **hand} for frame in frames for hand in frame["hands"]]
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise UserError(f"--landmarks {path} is neither CSV nor JSON of hands: {error}") from error


def _as_pairs(row: dict[str, Any]) -> dict[str, Any]:
    numbers = [float(row.pop(name)) for name in COLUMNS]
    return row | {"landmarks_px": np.reshape(numbers, (N_JOINTS, 2))}


def _parse_row(
    row: Mapping[str, Any], handedness: str, where: str
) -> tuple[tuple[str, int], Float[np.ndarray, "n 2"], str]:
    try:
        points_px = np.asarray(row["landmarks_px"], np.float64)
        key = Path(str(row["image"])).name, int(row.get("frame") or 0)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: {error} is missing or invalid") from error
    if points_px.shape != (N_JOINTS, 2) or not np.isfinite(points_px).all():
        raise UserError(f"{where}: landmarks_px must be {N_JOINTS} pairs of finite pixels")
    side = row.get("handedness") or handedness
    if side not in SIDES:
        raise UserError(f"{where}: handedness {side!r} must be one of {SIDES}")
    return key, points_px, side
