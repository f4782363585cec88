"""How accurate a network is on hands whose box is known: real photos and rendered images.

    REAL_DIR=... python -m benchmarks.network_accuracy network fit runs/small --rendered FOLDER

`network` is the built-in network, everything but `fit` a run's workdir or a weights file. Photos:
those of the development set by their tag, all but the digits together (`photos`), and `hgcnn`, with
3D joints. The network gets the crop around the tight box of the labels, 1.3 times its size, and the
side of the hand: `one look` as the crop is, `two looks` as prediction does with given boxes, turned
upright as the first look says. The fit gets the detector's landmarks in the same boxes. Rendered
images: the evaluation split of a folder in FreiHAND's layout, in the crop of evaluation.

2D errors are of the 15 joints that all conventions share, over the longer side of the labels' box:
of the mesh's projected joints and, as `landmarks_nme`, of the network's landmarks. Every hand
counts. PA-MPJPE is of all 21 joints and, as `pa_mpjpe_15_mm`, of those 15. One JSON line for each
network, source and number of looks.
"""

import argparse
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import record, table
from benchmarks.real_images import (
    PCK_LIMITS,
    Label,
    Sample,
    aligned_mm,
    project,
    read_hgcnn,
    read_photos,
    read_rgb,
)
from m3dhmr_jax.data import freihand
from m3dhmr_jax.evaluate.comparison.hands import central_hand
from m3dhmr_jax.evaluate.comparison.run import load_named
from m3dhmr_jax.fitting import COMMON
from m3dhmr_jax.predict.cameras import assumed_intrinsics
from m3dhmr_jax.predict.candidates import unseen
from m3dhmr_jax.predict.crops import crops_around
from m3dhmr_jax.predict.fit_method import FitMethod
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.results import PredictedHands

Scores = dict[str, float | int | None]
# Whether the candidates are those of prediction with given boxes, or the boxes as they are.
NETWORK_LOOKS = {"one look": False, "two looks": True}
FIT_LOOKS = {"landmarks": True}


def real_sources(real: Path) -> dict[str, list[Sample]]:
    """The photos by tag, all but the digits, and hgcnn."""
    photos = list(read_photos(real))
    sources = {"photos": [sample for sample in photos if sample.source != "digits"]}
    for tag in dict.fromkeys(sample.source for sample in photos):
        sources[tag] = [sample for sample in photos if sample.source == tag]
    return sources | {"hgcnn": list(read_hgcnn(real / "hgcnn"))}


def look(
    predictor: HandMeshPredictor, sample: Sample, label: Label, *, as_predicted: bool
) -> PredictedHands:
    """The hand in the tight box around the labels."""
    low, high = label.landmarks_px.min(axis=0), label.landmarks_px.max(axis=0)
    box_px = np.concatenate([low, high - low])[None]
    k = sample.intrinsics
    if k is None:
        k = assumed_intrinsics(sample.image.shape[1], sample.image.shape[0])
    if as_predicted:
        candidates = predictor.in_boxes(sample.image, box_px, label.handedness, k)
    else:
        candidates = unseen(crops_around(box_px), (label.handedness,))
    return predictor.predict(sample.image, candidates, k)


def score_real(
    predictor: HandMeshPredictor, samples: Sequence[Sample], *, as_predicted: bool
) -> Scores:
    """The scores of one source."""
    distances, landmark_nme, aligned = [], [], []
    pairs = [(sample, label) for sample in samples for label in sample.labels]
    for sample, label in pairs:
        hands = look(predictor, sample, label, as_predicted=as_predicted)
        for kept, points_px in (
            (distances, project(hands.joints_m[0], hands.intrinsics)),
            (landmark_nme, hands.landmarks_px[0]),
        ):
            offset_px = (points_px - label.landmarks_px)[COMMON]
            kept.append(np.linalg.norm(offset_px, axis=1) / label.size_px)
        if label.joints_m is not None:
            aligned.append(_aligned_mm(hands.joints_m[0], label.joints_m))
    nme = np.mean(distances, axis=1)
    return {
        "hands": len(pairs),
        "nme_mean": float(nme.mean()),
        "nme_median": float(np.median(nme)),
        **{name: float(np.mean(np.less(distances, x))) for name, x in PCK_LIMITS.items()},
        "landmarks_nme_mean": float(np.mean(landmark_nme)),
        "landmarks_nme_median": float(np.median(np.mean(landmark_nme, axis=1))),
        **_means(aligned),
    }


def score_rendered(predictor: HandMeshPredictor, folder: Path) -> Scores:
    """PA-MPJPE on the evaluation split of a folder in FreiHAND's layout."""
    labels = freihand.read_annotations(folder, "test")
    aligned = []
    for i, k in enumerate(labels.intrinsics.astype(np.float64)):
        image = read_rgb(folder / freihand.image_name("test", i))
        hand = central_hand(predictor, image, k)
        aligned.append(_aligned_mm(hand.joints_m, labels.joints_m[i]))
    return {"hands": len(aligned), **_means(aligned)}


def _aligned_mm(pred_m: np.ndarray, truth_m: np.ndarray) -> tuple[float, float]:
    pred_m, truth_m = pred_m.astype(np.float32), truth_m.astype(np.float32)
    return aligned_mm(pred_m, truth_m), aligned_mm(pred_m[COMMON], truth_m[COMMON])


def _means(aligned: Sequence[tuple[float, float]]) -> Scores:
    all_mm, common_mm = np.mean(aligned, axis=0).tolist() if aligned else (None, None)
    return {"pa_mpjpe_mm": all_mm, "pa_mpjpe_15_mm": common_mm}


def score_network(
    name: str, sources: Mapping[str, Sequence[Sample]], rendered: Path | None
) -> Iterator[dict[str, Any]]:
    """The lines of a network, by its path or name, or of the fit."""
    predictor = load_named(name)
    looks_of = FIT_LOOKS if name == FitMethod.name else NETWORK_LOOKS
    # Those of hgcnn's crops lie far from the centre.
    warnings.filterwarnings("ignore", message="the principal point")
    for source, samples in sources.items():
        for looks, as_predicted in looks_of.items():
            scores = score_real(predictor, samples, as_predicted=as_predicted)
            yield {"source": source, "looks": looks, **scores}
    if rendered is not None:
        looks = next(iter(looks_of))
        yield {"source": "rendered", "looks": looks, **score_rendered(predictor, rendered)}


def print_table(lines: Sequence[Mapping[str, Any]]) -> None:
    heads = list(dict.fromkeys(head for line in lines for head in line))
    print(table(heads, [[line.get(head) for head in heads] for line in lines]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.network_accuracy")
    parser.add_argument("networks", nargs="+", metavar="NETWORK")
    parser.add_argument("--rendered", type=Path, metavar="FOLDER", help="in FreiHAND's layout")
    options = parser.parse_args(arguments)
    sources = real_sources(Path(os.environ["REAL_DIR"]))
    lines = []
    for name in options.networks:
        for scores in score_network(name, sources, options.rendered):
            lines.append({"network": name, **scores})
            record("network_accuracy", {}, **lines[-1])
    print_table(lines)


if __name__ == "__main__":
    main()
