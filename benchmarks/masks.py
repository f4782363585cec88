"""What masks gain in camera space: a checkpoint's hands with and without silhouettes.

    python -m benchmarks.masks --checkpoint runs/quickstart

Renders new examples, with a seed that no training uses, and compares hands placed by landmarks
alone, by landmarks and the true masks, and by masks that are 2 px too wide all round, as those of a
segmentation network may be. Prints one table of errors in millimetres.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float

from benchmarks.measure import record, table
from m3dhmr_jax.camera.silhouette import SilhouetteExtent, silhouette_extent
from m3dhmr_jax.data import freihand
from m3dhmr_jax.inference import place
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.results import PredictedHands
from m3dhmr_jax.synthetic import RECIPES, write_dataset
from m3dhmr_jax.types import ROOT

SEED = 1_000_003
COUNT = 500
GROWN_PX = 2


def read_image(path: Path, flag: int) -> np.ndarray:
    """Pixels of an image file, RGB if in colour."""
    image = cv2.imread(str(path), flag)
    if image is None:
        raise FileNotFoundError(f"{path}: not a readable image")
    return image[..., ::-1] if image.ndim == 3 else image


def predict_all(predictor: HandMeshPredictor, folder: Path, k: np.ndarray) -> list[PredictedHands]:
    """The hand of each training image, in the centred crop that evaluation uses."""
    images = (
        read_image(folder / freihand.image_name("train", i), cv2.IMREAD_COLOR)
        for i in range(len(k))
    )
    pairs = zip(images, k, strict=True)
    return [predictor(image, K=k_of, freihand=True) for image, k_of in pairs]


def grown(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask and all pixels within GROWN_PX."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * GROWN_PX + 1,) * 2)
    return cv2.dilate(mask.astype(np.uint8), disc) > 0


def extents_of(masks: Sequence[Bool[np.ndarray, "h w"]]) -> SilhouetteExtent:
    return SilhouetteExtent(*map(np.stack, zip(*map(silhouette_extent, masks), strict=True)))


def errors_mm(joints_m: Float[np.ndarray, "b n 3"], true_m: Float[np.ndarray, "b n 3"]) -> dict:
    """Camera-space errors: of all joints, of the root, and of the root's depth."""
    difference_mm = 1000 * (joints_m - true_m)
    root_mm = np.linalg.norm(difference_mm[:, ROOT], axis=-1)
    median, high = np.percentile(root_mm, [50, 95]).tolist()
    return {
        "joints_mean": float(np.linalg.norm(difference_mm, axis=-1).mean()),
        "root_mean": float(root_mm.mean()),
        "root_median": median,
        "root_95": high,
        "depth_mean": float(np.abs(difference_mm[:, ROOT, 2]).mean()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.masks")
    parser.add_argument("--checkpoint", type=Path, required=True, help="workdir or weights file")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="quickstart")
    parser.add_argument("--count", type=int, default=COUNT, help="examples to render")
    parser.add_argument("--seed", type=int, default=SEED, help="other than that of training")
    flags = parser.parse_args(arguments)
    predictor = HandMeshPredictor.from_checkpoint(flags.checkpoint)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "examples")
        recipe, workers = RECIPES[flags.recipe], os.cpu_count() or 1
        write_dataset(folder, flags.count, 1, flags.seed, workers, recipe, hand=predictor.hand)
        labels = freihand.read_annotations(folder, "train")
        mask_paths = sorted((folder / "training" / "mask").iterdir())
        masks = [read_image(path, cv2.IMREAD_GRAYSCALE) > 127 for path in mask_paths]
        hands = predict_all(predictor, folder, labels.intrinsics)
    landmarks_px, joints_m, verts_m = (
        np.concatenate([getattr(hand, name) for hand in hands])
        for name in ("landmarks_px", "joints_m", "verts_m")
    )
    extents = {
        "none": None,
        "true": extents_of(masks),
        f"{GROWN_PX} px too wide": extents_of([grown(mask) for mask in masks]),
    }
    results_mm = {}
    for kind, of_kind in extents.items():
        placed = place(landmarks_px, joints_m, verts_m, labels.intrinsics, of_kind)
        results_mm[kind] = errors_mm(np.asarray(placed.joints_m), labels.joints_m)
    heads = [f"{len(masks)} hands, masks", "joints mm", "root mm", "median", "95 %", "depth mm"]
    print(table(heads, [[kind, *errors.values()] for kind, errors in results_mm.items()]))
    facts = {"count": flags.count, "seed": flags.seed, "recipe": flags.recipe}
    record("masks", {}, errors_mm=results_mm, **facts)


if __name__ == "__main__":
    main()
