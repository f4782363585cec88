"""What turning a hand upright gains: a checkpoint's hands in crops of three directions.

    python -m benchmarks.second_look --checkpoint runs/quickstart

Renders new examples, with a seed that no training uses, whose hands point in all directions (full
recipe) or within 45 degrees of upright (quickstart), and predicts each in the crop around its true
box: unturned; turned by the network's own first look; turned by the true direction.
"""

import argparse
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.masks import read_image
from benchmarks.measure import record, table
from m3dhmr_jax.data import freihand
from m3dhmr_jax.metrics.freihand import batch_metrics
from m3dhmr_jax.predict.candidates import Candidates
from m3dhmr_jax.predict.crops import crops_around, hand_directions
from m3dhmr_jax.predict.masks import boxes_of_masks
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.results import PredictedHands
from m3dhmr_jax.synthetic import RECIPES, write_dataset

SEED = 1_000_003
COUNT = 200


def predict_all(
    predictor: HandMeshPredictor, folder: Path, k: np.ndarray, candidates: Candidates
) -> PredictedHands:
    """The hand of each training image in its crop."""
    hands = [
        predictor.predict(
            read_image(folder / freihand.image_name("train", i), cv2.IMREAD_COLOR),
            take(candidates, i),
            k[i],
        )
        for i in range(len(k))
    ]
    arrays = ("verts_m", "joints_m", "landmarks_px")
    return hands[0]._replace(
        **{name: np.concatenate([getattr(hand, name) for hand in hands]) for name in arrays}
    )


def take(candidates: Candidates, i: int) -> Candidates:
    """One candidate that has neither landmarks nor shape."""
    row = slice(i, i + 1)
    return Candidates(
        candidates.crop_px[row],
        candidates.direction_rad[row],
        candidates.handedness[row],
        candidates.handedness_probability[row],
        candidates.presence[row],
        None,
    )


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.second_look")
    parser.add_argument("--checkpoint", type=Path, required=True, help="workdir or weights file")
    parser.add_argument("--count", type=int, default=COUNT, help="examples per recipe")
    flags = parser.parse_args()
    predictor = HandMeshPredictor.from_checkpoint(flags.checkpoint)
    rows = []
    for name, recipe in RECIPES.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "examples")
            write_dataset(
                folder, flags.count, 1, SEED, os.cpu_count() or 1, recipe, hand=predictor.hand
            )
            labels = freihand.read_annotations(folder, "train")
            paths = sorted((folder / "training" / "mask").iterdir())
            masks = np.stack([read_image(path, cv2.IMREAD_GRAYSCALE) > 127 for path in paths])
            k, one = labels.intrinsics, np.ones(flags.count)
            crops_px = crops_around(boxes_of_masks(masks))
            sides = ("right",) * flags.count
            unturned = Candidates(crops_px, 0 * one, sides, np.nan * one, one, None)
            first = predict_all(predictor, folder, k, unturned)
            true_px = labels.joints_m @ k.swapaxes(1, 2)
            true_px = true_px[..., :2] / true_px[..., 2:]
            looks = {"unturned": first}
            for look, landmarks_px in {"own look": first.landmarks_px, "true": true_px}.items():
                turned = unturned._replace(direction_rad=hand_directions(landmarks_px))
                looks[look] = predict_all(predictor, folder, k, turned)
        for look, hands in looks.items():
            arrays = hands.joints_m, hands.verts_m, labels.joints_m, labels.verts_m
            errors = batch_metrics(*(x.astype(np.float32) for x in arrays))
            joints_mm = 1000 * float(np.mean(errors.joint_errors_al_m))
            verts_mm = 1000 * float(np.mean(errors.vert_errors_al_m))
            rows.append([name, look, joints_mm, verts_mm])
    heads = ["recipe", "direction", "PA-MPJPE mm", "PA-MPVPE mm"]
    print(table(heads, rows))
    record(
        "second_look",
        {},
        count=flags.count,
        rows=[dict(zip(heads, row, strict=True)) for row in rows],
    )


if __name__ == "__main__":
    main()
