"""A contact sheet of a dataset: `python -m m3dhmr_jax.synthetic.contact_sheet DIR OUT.jpg`.

Axes: h w of one picture; the sheet is `rows` by `columns` of them.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

QUALITY = 85


def _read(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    picture = cv2.imread(str(path))
    if picture is None:
        raise ValueError(f"{path} is not a picture: render the dataset again")
    return np.asarray(picture, np.uint8)


def contact_sheet(
    folder: Path, rows: int = 4, columns: int = 6, split: str = "training"
) -> UInt8[np.ndarray, "h w 3"]:
    """The first pictures of a split side by side, BGR.

    Raises:
        ValueError: if there are too few pictures, or one cannot be read.
    """
    paths = sorted((folder / split / "rgb").glob("*.jpg"))[: rows * columns]
    if len(paths) < rows * columns:
        raise ValueError(
            f"{folder / split / 'rgb'} holds {len(paths)} pictures, a sheet of {rows} x {columns} "
            f"needs {rows * columns}: render more or ask for a smaller sheet"
        )
    pictures = [_read(path) for path in paths]
    tiles = np.stack(pictures).reshape(rows, columns, *pictures[0].shape)
    return np.ascontiguousarray(tiles.swapaxes(1, 2).reshape(-1, columns * tiles.shape[3], 3))


def main(arguments: list[str]) -> int:
    """Writes a sheet; 2 if that was refused."""
    parser = argparse.ArgumentParser("python -m m3dhmr_jax.synthetic.contact_sheet")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--columns", type=int, default=6)
    options = parser.parse_args(arguments)
    try:
        sheet = contact_sheet(options.folder, options.rows, options.columns)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    cv2.imwrite(str(options.out), sheet, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
