"""Hands in real photos: found, right or left, 2D error, and 3D error where there is truth.

    REAL_DIR=... REFERENCE_DIR=... python -m benchmarks.real_images [--checkpoint RUN]

Sources: the development photos by their tag and together, `hgcnn` (a left hand with true 3D joints)
and FreiHAND's photos in REFERENCE_DIR (2D labels are predictions of another network). Methods: the
default predictor with one and six views, the detector's own landmarks, checkpoints, and constant
baselines: the mean of all labels within each true box, and one mean hand.

A hand is found if a prediction's landmarks are closer than MATCH box sides; others are false. 2D
errors are of the predicted mesh's projected joints, of the 15 joints that all conventions share,
over the longer side of the labels' box (NME), for found hands; missing hands count as wrong in PCK.
One JSON line for each source and method.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from benchmarks.measure import record, table
from m3dhmr_jax.fitting import COMMON
from m3dhmr_jax.hand import load_builtin, load_details
from m3dhmr_jax.hand.skinning import pose_hand
from m3dhmr_jax.metrics.freihand import aligned_and_centred
from m3dhmr_jax.predict.detector import HandDetector
from m3dhmr_jax.predict.outputs import to_drawings
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.visualize.sheet import SheetTile, draw_contact_sheet

MATCH = 0.5
PCK_LIMITS = {"pck_01": 0.1, "pck_02": 0.2}
HGCNN_IMAGE_PX = 256


class Label(NamedTuple):
    """A hand of a photo."""

    landmarks_px: Float[np.ndarray, "21 2"]
    handedness: str
    joints_m: Float[np.ndarray, "21 3"] | None = None

    @property
    def size_px(self) -> float:
        return float(np.ptp(self.landmarks_px, axis=0).max())


class Sample(NamedTuple):
    """A photo with its hands; K is None where it is unknown."""

    name: str
    source: str
    image: UInt8[np.ndarray, "h w 3"]
    intrinsics: Float[np.ndarray, "3 3"] | None
    labels: list[Label]
    freihand: bool = False


class Found(NamedTuple):
    """A predicted hand."""

    landmarks_px: Float[np.ndarray, "21 2"]
    handedness: str
    joints_m: Float[np.ndarray, "21 3"] | None = None
    is_unsure: bool = False


Method = Callable[[Sample], list[Found]]


def read_rgb(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    image = cv2.imread(str(path))
    if image is None:
        raise FileNotFoundError(f"{path}: not a readable image")
    return np.ascontiguousarray(image[..., ::-1])


def read_photos(folder: Path) -> Iterator[Sample]:
    for photo in json.loads((folder / "labels.json").read_text())["photos"]:
        labels = [Label(np.array(hand["uv"]), hand["handedness"]) for hand in photo["hands"]]
        image = read_rgb(folder / "photos" / photo["image"])
        yield Sample(photo["image"], photo["tag"], image, None, labels)


def read_hgcnn(folder: Path) -> Iterator[Sample]:
    """Crops of a larger image, whose K is moved along."""
    truth = np.load(folder / "annotations.npz")
    for name, (fx, fy, cx, cy), (x, y, side, _), joints in zip(
        truth["image"], truth["cam_param"], truth["bbox"], truth["pose_gt"], strict=True
    ):
        zoom = HGCNN_IMAGE_PX / side
        centre = zoom * (np.array([cx - x, cy - y]) + 0.5) - 0.5
        k = np.array([[zoom * fx, 0, centre[0]], [0, zoom * fy, centre[1]], [0, 0, 1]])
        joints_m = joints.astype(np.float64) / 100
        label = Label(project(joints_m, k), "left", joints_m)
        yield Sample(str(name), "hgcnn", read_rgb(folder / str(name)), k, [label])


def read_freihand(folder: Path, labels: Path) -> Iterator[Sample]:
    for name, uv in json.loads(labels.read_text())["uv"].items():
        number = Path(name).stem.removesuffix("_img")
        k = np.load(folder / f"{number}_K.npy").astype(np.float64)
        image = read_rgb(folder / f"{number}_img.jpg")
        yield Sample(number, "freihand", image, k, [Label(np.array(uv), "right")], freihand=True)


def project(
    points_m: Float[np.ndarray, "*k 3"], intrinsics: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "*k 2"]:
    projected = points_m @ intrinsics.T
    return projected[..., :2] / projected[..., 2:]


def predicted_by(predictor: HandMeshPredictor, views: int = 1) -> Method:
    """Joints of the predicted meshes."""

    def method(sample: Sample) -> list[Found]:
        hands = predictor(sample.image, K=sample.intrinsics, freihand=sample.freihand, views=views)
        landmarks_px = project(hands.joints_m, hands.intrinsics)
        columns = landmarks_px, hands.handedness, hands.joints_m, hands.is_unsure.tolist()
        return [Found(*each) for each in zip(*columns, strict=True)]

    return method


def detected_by(detector: HandDetector, views: int) -> Method:
    """The detector's landmarks, 2D and 3D."""

    def method(sample: Sample) -> list[Found]:
        hands = detector(sample.image, views=views)
        sides = np.where(hands.right_probability > 0.5, "right", "left").tolist()
        columns = hands.landmarks_px, sides, hands.joints_rel_m
        return [Found(*each) for each in zip(*columns, strict=True)]

    return method


def constant_baseline(samples: Sequence[Sample]) -> Method:
    """The mean of all labels within the true box, and the relaxed hand."""
    hand = load_builtin()
    rotations = jnp.asarray(load_details().relaxed, jnp.float32)
    relaxed = pose_hand(hand, rotations, jnp.zeros(len(hand.shape_basis)))
    joints_m = np.asarray(hand.joint_regressor @ np.asarray(relaxed.verts_m))
    boxes = [(label, label.landmarks_px.min(axis=0)) for s in samples for label in s.labels]
    mean_01 = np.mean([(label.landmarks_px - low) / label.size_px for label, low in boxes], axis=0)

    def method(sample: Sample) -> list[Found]:
        return [
            Found(
                label.landmarks_px.min(axis=0) + label.size_px * mean_01,
                "right",
                joints_m * [1 if label.handedness == "right" else -1, 1, 1],
            )
            for label in sample.labels
        ]

    return method


def aligned_mm(pred_m: Float[np.ndarray, "n 3"], truth_m: Float[np.ndarray, "n 3"]) -> float:
    """Mean error after the best similarity."""
    pred, truth = aligned_and_centred(jnp.asarray(pred_m), jnp.asarray(truth_m))
    return 1000 * float(jnp.linalg.norm(pred - truth, axis=1).mean())


def score(samples: Sequence[Sample], method: Method) -> dict[str, float | int | None]:
    """The figures of one source and method; None where there is no truth."""
    errors, sides, unsure, aligned, pck = [], [], [], [], {name: [] for name in PCK_LIMITS}
    n_hands = n_false = 0
    for sample in samples:
        found = method(sample)
        n_hands += len(sample.labels)
        free = set(range(len(found)))
        for label in sample.labels:
            distances = {
                i: np.linalg.norm((found[i].landmarks_px - label.landmarks_px)[COMMON], axis=1)
                / label.size_px
                for i in free
            }
            best = min(distances, key=lambda i: distances[i].mean(), default=None)
            if best is None or distances[best].mean() > MATCH:
                for values in pck.values():
                    values.append(0.0)
                continue
            free.remove(best)
            hand, distance = found[best], distances[best]
            errors.append(distance.mean())
            sides.append(hand.handedness == label.handedness)
            unsure.append(hand.is_unsure)
            for name, limit in PCK_LIMITS.items():
                pck[name].append(float(np.mean(distance < limit)))
            if label.joints_m is not None and hand.joints_m is not None:
                pairs = hand.joints_m, label.joints_m
                aligned.append(
                    (aligned_mm(*pairs), aligned_mm(*(joints_m[COMMON] for joints_m in pairs)))
                )
        n_false += len(free)
    pa_mm, pa_15_mm = np.mean(aligned, axis=0).tolist() if aligned else (None, None)
    return {
        "images": len(samples),
        "hands": n_hands,
        "found": len(errors),
        "false_hands": n_false,
        "handedness_right": float(np.mean(sides)) if sides else None,
        "nme_mean": float(np.mean(errors)) if errors else None,
        "nme_median": float(np.median(errors)) if errors else None,
        **{name: float(np.mean(values)) for name, values in pck.items()},
        "unsure": int(np.sum(unsure)),
        "pa_mpjpe_mm": pa_mm,
        "pa_mpjpe_15_mm": pa_15_mm,
    }


def write_sheet(
    path: Path, samples: Sequence[Sample], predictor: HandMeshPredictor, views: int
) -> None:
    """Meshes on the photos, for the eye; not to be published, as the photos are not."""
    tiles = []
    for sample in samples:
        hands = predictor(sample.image, K=sample.intrinsics, freihand=sample.freihand, views=views)
        mark = "?" if hands.is_unsure.any() else ""
        tiles.append(
            SheetTile(
                sample.image,
                to_drawings(hands),
                hands.intrinsics,
                f"{Path(sample.name).stem}{mark}",
            )
        )
    cv2.imwrite(str(path), draw_contact_sheet(tiles)[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Hands in real photos.")
    parser.add_argument("--checkpoint", action="append", default=[], metavar="RUN")
    parser.add_argument(
        "--quick", action="store_true", help="only the default predictor, on sources as a whole"
    )
    parser.add_argument("--sheet", type=Path, help="draw the photos and FreiHAND's with meshes")
    options = parser.parse_args()
    # Those of hgcnn's crops lie far from the centre.
    warnings.filterwarnings("ignore", message="the principal point")
    real = Path(os.environ["REAL_DIR"])
    samples = [*read_photos(real), *read_hgcnn(real / "hgcnn")]
    if "REFERENCE_DIR" in os.environ:
        folder = Path(os.environ["REFERENCE_DIR"]) / "freihand_photos"
        samples += read_freihand(folder, real / "freihand_uv.json")
    tags = list(dict.fromkeys(sample.source for sample in samples))
    sources = {tag: [s for s in samples if s.source == tag] for tag in tags}
    photos = [s for s in samples if s.source not in ("hgcnn", "freihand")]
    sources = {"photos": photos, **sources}
    if options.quick:
        sources = {
            name: sources[name] for name in ("photos", "hgcnn", "freihand") if name in sources
        }
    predictor, detector = HandMeshPredictor(), HandDetector.load()
    methods: dict[str, Method | None] = {
        "fit": predicted_by(predictor),
        "fit, 6 views": predicted_by(predictor, views=6),
        "landmarks": detected_by(detector, views=1),
        "landmarks, 6 views": detected_by(detector, views=6),
        **{
            path: predicted_by(HandMeshPredictor.from_checkpoint(path))
            for path in options.checkpoint
        },
        "constant": None,
    }
    if options.quick:
        methods = {"fit": methods["fit"]}
    lines = []
    for name, method in methods.items():
        for source, chosen in sources.items():
            start = time.perf_counter()
            result = score(chosen, method or constant_baseline(chosen))
            result["ms_per_image"] = 1000 * (time.perf_counter() - start) / len(chosen)
            lines.append({"source": source, "method": name, **result})
            record("real_images", {}, **lines[-1])
    heads = list(lines[0])
    print(table(heads, [[line[head] for head in heads] for line in lines]))
    if options.sheet is not None:
        stem = options.sheet
        write_sheet(stem, photos, predictor, views=1)
        others = sources.get("freihand", [])
        write_sheet(stem.with_name(f"{stem.stem}_freihand{stem.suffix}"), others, predictor, 1)


if __name__ == "__main__":
    main()
