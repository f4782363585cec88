"""A first look at what is predicted, on photos that are rendered on the spot."""

from pathlib import Path

import cv2
import numpy as np

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.images import read_image
from m3dhmr_jax.predict.outputs import to_drawings
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.tracking import distances
from m3dhmr_jax.synthetic import write_photos
from m3dhmr_jax.visualize.sheet import SheetTile, draw_contact_sheet

SEED = 2026
SHEET = "hands.jpg"
MARK = "m3dhmr_demo.txt"
# Largest mean distance of a found hand's landmarks, as a fraction of the hand.
MATCH = 0.3


def show_demo(out: Path) -> None:
    """Renders photos of several hands, finds the hands, and draws their meshes on one sheet.

    Raises:
        UserError: if the folder has other content than that of an earlier call.
    """
    photos, mark = out / "photos", out / MARK
    if out.exists() and not mark.is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} has other content, without {MARK}: choose a new folder")
    print("rendering six photos with several hands each")
    rows = write_photos(photos, seed=SEED)
    mark.write_text("Written by m3dhmr demo; its next call replaces photos and sheet.\n")
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
    sheet = out / SHEET
    jpeg = cv2.imencode(".jpg", draw_contact_sheet(tiles)[..., ::-1])[1]
    sheet.write_bytes(jpeg.tobytes())
    print(f"{n_found} of {n_true} hands found, {n_false} where there is none: see {sheet}")
    print(f"{n_unsure} of them are unsure and drawn in grey")
    print("the photos are rendered; now yours:  m3dhmr predict my_photo.jpg")
