"""Hand boxes from a file, as a detector or a person writes them.

A table (see `predict.tables`) with the column `image`, those of one of KINDS and, optionally,
`frame` (default: 0) and `handedness`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.tables import Row, read_table

SIZES = ("x", "y", "width", "height"), ("x", "y", "w", "h")
CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
KINDS = SIZES + CORNERS


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
        UserError: if the file is missing, not a table, or a row is invalid.
    """
    found: dict[tuple[str, int], list[tuple[list[float], str | None]]] = {}
    for row in read_table(path):
        key = row.image(), row.frame()
        found.setdefault(key, []).append((_box(row), row.side(handedness)))
    if not found:
        raise UserError(f"{path} contains no box; its columns must be image, {_kinds_text()}")
    boxes: BoxesByFile = {}
    for (image, frame), hands in found.items():
        boxes_px, sides = zip(*hands, strict=True)
        boxes.setdefault(image, {})[frame] = HandBoxes(np.array(boxes_px), sides)
    return boxes


def _box(row: Row) -> list[float]:
    """(x, y, width, height) in pixels."""
    complete = [kind for kind in KINDS if all(name in row.values for name in kind)]
    if len(complete) != 1:
        names = sorted({name for kind in KINDS for name in kind} & row.values.keys())
        raise UserError(
            f"{row.where} has {', '.join(names) or 'none of the columns of a box'}: a box needs "
            f"the four columns of exactly one kind, {_kinds_text()}"
        )
    (kind,) = complete
    x, y, third, fourth = map(row.number, kind)
    if kind in SIZES:
        return [x, y, third, fourth]
    if not (x < third and y < fourth):
        raise UserError(
            f"{row.where}: {','.join(kind)} is {x:g},{y:g},{third:g},{fourth:g}: {kind[2]} must be "
            f"larger than {kind[0]}, and {kind[3]} than {kind[1]}"
        )
    return [x, y, third - x, fourth - y]


def _kinds_text() -> str:
    return " or ".join(",".join(kind) for kind in KINDS)
