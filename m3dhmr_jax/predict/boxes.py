"""Hand boxes from a file, as a detector or a person writes them.

CSV with a header, or JSON as a list of objects, both with the columns
`image, x, y, width, height` and, optionally, `frame` (default: 0) and `handedness`.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.types import SIDES

REQUIRED = ("image", "x", "y", "width", "height")


class HandBoxes(NamedTuple):
    """The hands of one frame. Axes: k hands."""

    boxes_px: Float[np.ndarray, "k 4"]
    # None where it is to be estimated.
    handedness: tuple[str | None, ...]


# By file name, without folders, and the first frame to which they apply.
BoxesByFile = dict[str, dict[int, HandBoxes]]


def boxes_at(boxes: Mapping[int, HandBoxes], index: int) -> HandBoxes:
    """The boxes that apply to a frame: the last ones up to it, or none."""
    frames = [frame for frame in boxes if frame <= index]
    return boxes[max(frames)] if frames else HandBoxes(np.zeros((0, 4)), ())


def read_boxes(path: Path, handedness: str | None) -> BoxesByFile:
    """The boxes of a file; `handedness` applies to rows that do not state theirs.

    Raises:
        UserError: if the file is missing, neither CSV nor JSON, or a row is invalid.
    """
    if not path.is_file():
        raise UserError(f"--boxes {path}: no such file")
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    found: dict[tuple[str, int], list[tuple[list[float], str | None]]] = {}
    for i, row in enumerate(rows):
        key, box, side = _parse_row(row, handedness, f"{path}, row {i + 1}")
        found.setdefault(key, []).append((box, side))
    if not found:
        raise UserError(f"{path} contains no box; its columns must be {', '.join(REQUIRED)}")
    boxes: BoxesByFile = {}
    for (image, frame), hands in found.items():
        boxes_px, sides = zip(*hands, strict=True)
        boxes.setdefault(image, {})[frame] = HandBoxes(np.array(boxes_px), sides)
    return boxes


def _csv_rows(path: Path) -> Iterable[Mapping[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            return list(csv.DictReader(file))
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path} is neither CSV nor JSON ({error})") from error


def _json_rows(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} must be a list of objects with {', '.join(REQUIRED)}")
    return rows


def _parse_row(
    row: Mapping[str, Any], handedness: str | None, where: str
) -> tuple[tuple[str, int], list[float], str | None]:
    missing = [name for name in REQUIRED if row.get(name) in (None, "")]
    if missing:
        raise UserError(
            f"{where}: {', '.join(missing)} missing; every box needs {', '.join(REQUIRED)}"
        )
    try:
        box = [float(row[name]) for name in REQUIRED[1:]]
        frame = int(row.get("frame") or 0)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}; boxes are numbers in pixels") from error
    side = row.get("handedness") or handedness
    if side not in (None, *SIDES):
        raise UserError(f"{where}: handedness {side!r} must be one of {SIDES}")
    return (Path(str(row["image"])).name, frame), box, side
