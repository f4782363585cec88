"""A first look at what is predicted, on photos that are rendered on the spot."""

from pathlib import Path
from typing import Any

import numpy as np

from m3dhmr_jax.predict.images import read_image
from m3dhmr_jax.predict.outputs import jpeg_file, to_drawings
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.tracking import distances
from m3dhmr_jax.runtime.results_folder import ResultsFolder
from m3dhmr_jax.synthetic import write_photos
from m3dhmr_jax.synthetic.photo_set import LAYOUTS, TRUTH, photo_file
from m3dhmr_jax.visualize.sheet import SheetTile, draw_contact_sheet

SEED = 2026
PHOTOS, SHEET = "photos", "hands.jpg"
PHOTO_FILES = (TRUTH, *(photo_file(i, layout.name) for i, layout in enumerate(LAYOUTS)))
# Largest mean distance of a found hand's landmarks, as a fraction of the hand.
MATCH = 0.3


def show_demo(out: Path) -> None:
    """Renders photos of several hands, finds the hands, and draws their meshes on one sheet.

    The files of an earlier call are replaced.

    Raises:
        UserError: if the folder has other content than that of an earlier call.
    """
    photos = out / PHOTOS
    photo_names = [f"{PHOTOS}/{file}" for file in PHOTO_FILES]
    with ResultsFolder(out, "demo", [*photo_names, SHEET], replace=True) as folder:
        print("rendering six photos with several hands each")
        for name in photo_names:
            folder.add(name)
        rows = write_photos(photos, seed=SEED)
        _predict_photos(photos, rows, folder)
    print("the photos are rendered; now yours:  m3dhmr predict my_photo.jpg")


def _predict_photos(photos: Path, rows: list[dict[str, Any]], folder: ResultsFolder) -> None:
    """Draws the sheet, and compares what is found with the rows of `truth.json`."""
    predictor = HandMeshPredictor()
    tiles, n_found, n_false, n_true, n_unsure = [], 0, 0, 0, 0
    for row in rows:
        image = read_image(photos / row["file"]).image
        hands = predictor(image, K=np.array(row["K"]))
        tiles.append(
            SheetTile(image, to_drawings(hands), hands.intrinsics, f"{len(hands.root_m)} hands")
        )
        is_close = [
            (distances(np.array(hand["landmarks_px"]), hands.landmarks_px) < MATCH).any()
            for hand in row["hands"]
        ]
        n_found += sum(is_close)
        n_false += len(hands.root_m) - sum(is_close)
        n_true += len(is_close)
        n_unsure += int(hands.is_unsure.sum())
    folder.write(SHEET, jpeg_file(draw_contact_sheet(tiles)))
    print(
        f"{n_found} of {n_true} hands found, {n_false} where there is none: see "
        f"{folder.path / SHEET}"
    )
    print(f"{n_unsure} of them are unsure and drawn in grey")
