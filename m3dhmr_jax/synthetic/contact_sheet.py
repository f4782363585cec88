"""A contact sheet: a dataset's first images in one file. Axes: h w of one image or the sheet."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.runtime.files import check_new, expand_home, explain_disk_full

QUALITY = 85


@expand_home
def write_contact_sheet(
    folder: Path, out: Path, rows: int = 4, columns: int = 6, split: str = "training"
) -> None:
    """Writes the first `rows * columns` images of a split side by side into the JPEG file `out`.

    Raises:
        UserError: if there are too few images, one cannot be read, or `out` exists or cannot be
            written.
    """
    if min(rows, columns) < 1:
        raise UserError(f"a sheet of {rows} x {columns} images is empty: ask for 1 x 1 or more")
    check_new(out)
    images_dir = folder / split / "rgb"
    paths = sorted(images_dir.glob("*.jpg"))[: rows * columns]
    if len(paths) < rows * columns:
        raise UserError(
            f"{images_dir} contains {len(paths)} images, but a sheet of {rows} x {columns} needs "
            f"{rows * columns}: render more or ask for a smaller sheet"
        )
    images = np.stack([_read(path) for path in paths])
    tiles = images.reshape(rows, columns, *images.shape[1:])
    sheet = tiles.swapaxes(1, 2).reshape(-1, columns * tiles.shape[3], 3)
    _, jpeg = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    with explain_disk_full(out.parent):
        try:
            out.write_bytes(jpeg.tobytes())
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
            raise UserError(
                f"cannot write the sheet to {out} ({error.strerror}): choose a file in a folder "
                "that exists and has write permission"
            ) from error


def _read(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    image = cv2.imread(str(path))
    if image is None:
        raise UserError(f"{path} is not a readable image: render the dataset again")
    return np.asarray(image, np.uint8)
