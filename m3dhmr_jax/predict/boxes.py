"""Boxes of hands from a file, as a detector or a person writes them.

CSV with a header, or JSON as a list of objects, both with the columns
`image, x, y, width, height` and, if wanted, `frame` (0 unless given) and `handedness`.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.predict.predictor import SIDES

NEEDED = ("image", "x", "y", "width", "height")


class Targets(NamedTuple):
    """Which hands to look at. Axes: k hands."""

    boxes_px: Float[np.ndarray, "k 4"]
    handedness: tuple[str, ...]


# By the name of a file, without its folder, and the frame from which on they hold.
TargetsOf = dict[str, dict[int, Targets]]


def read_boxes(path: Path, handedness: str) -> TargetsOf:
    """The boxes of a file; `handedness` holds where a row names none.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is neither CSV nor JSON, or a row is not as it must be, which is named.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--boxes {path}: no such file")
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    found: dict[tuple[str, int], list[tuple[list[float], str]]] = {}
    for i, row in enumerate(rows):
        place, box, side = _parsed(row, handedness, f"{path}, row {i + 1}")
        found.setdefault(place, []).append((box, side))
    if not found:
        raise ValueError(f"{path}: no box in it; it needs the columns {', '.join(NEEDED)}")
    targets: TargetsOf = {}
    for (image, frame), hands in found.items():
        boxes, sides = zip(*hands, strict=True)
        targets.setdefault(image, {})[frame] = Targets(np.array(boxes), sides)
    return targets


def _csv_rows(path: Path) -> Iterable[Mapping[str, Any]]:
    with path.open(newline="") as file:
        try:
            return list(csv.DictReader(file))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: neither CSV nor JSON ({error})") from error


def _json_rows(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        rows = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: it must hold a list of objects with {', '.join(NEEDED)}")
    return rows


def _parsed(
    row: Mapping[str, Any], handedness: str, where: str
) -> tuple[tuple[str, int], list[float], str]:
    missing = [name for name in NEEDED if row.get(name) in (None, "")]
    if missing:
        raise ValueError(f"{where}: no {', '.join(missing)}; every box needs {', '.join(NEEDED)}")
    try:
        box = [float(row[name]) for name in NEEDED[1:]]
        frame = int(row.get("frame") or 0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}; boxes are numbers in pixels") from error
    side = row.get("handedness") or handedness
    if side not in SIDES:
        raise ValueError(f"{where}: handedness {side!r} must be one of {SIDES}")
    return (Path(str(row["image"])).name, frame), box, side
