"""The hands that two predictors see in the same images.

Axes: n = 21 joints, v vertices, f faces.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.data import freihand
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.labelling.labelled_set import is_finished, read_labels
from m3dhmr_jax.labelling.sources import Source
from m3dhmr_jax.predict.crops import Image, freihand_crop
from m3dhmr_jax.predict.frames import LogFn
from m3dhmr_jax.predict.images import read_image
from m3dhmr_jax.predict.inputs import Input
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.results import PredictedHands
from m3dhmr_jax.predict.run import PredictOptions, choose_intrinsics

Pair = tuple[HandMeshPredictor, HandMeshPredictor]


class HandPoints(NamedTuple):
    """A hand in camera space."""

    joints_m: Float[np.ndarray, "n 3"]
    verts_m: Float[np.ndarray, "v 3"]


class ComparedHand(NamedTuple):
    """One hand as both see it."""

    path: Path
    # Of the image, relative to its folder.
    name: str
    # Its video or folder: what scores are averaged over.
    source: str
    intrinsics: Float[np.ndarray, "3 3"]
    # The square around the hand, (x, y, side, side).
    crop_px: Float[np.ndarray, "4"]
    faces: Int[np.ndarray, "f 3"]
    before: HandPoints
    after: HandPoints
    # None where there is none.
    truth: HandPoints | None


def is_labelled(folder: Path) -> bool:
    """Whether the folder has an evaluation split in FreiHAND's layout."""
    return (folder / "evaluation" / "rgb").is_dir()


def labelled_hands(folder: Path, pair: Pair) -> Iterator[ComparedHand]:
    """The evaluation split of a folder in FreiHAND's layout, in the crops of evaluation.

    Raises:
        UserError: if it is incomplete, or its meshes are of another hand than the predictors'.
    """
    hand = pair[0].hand
    labels = freihand.read_annotations(folder, "test", hand)
    distance_m = freihand.joint_distance_m(hand, labels.verts_m, labels.joints_m)
    if distance_m > freihand.MAX_JOINT_DISTANCE_M:
        raise UserError(
            f"{folder} is labelled with another hand model than the one that is predicted: joints "
            f"regressed from its meshes are {1000 * distance_m:.0f} mm from the labelled ones, so "
            "it cannot be compared; compare with networks of its hand"
        )
    sources = _sources(folder)
    for i, k in enumerate(labels.intrinsics.astype(np.float64)):
        name = freihand.image_name("test", i)
        image = read_image(folder / name).image
        before, after = (central_hand(predictor, image, k) for predictor in pair)
        crop_px = freihand_crop(image.shape[1], image.shape[0])[0]
        truth = HandPoints(labels.joints_m[i], labels.verts_m[i])
        source = sources.get(name, folder.name)
        where = folder / name, name, source, k, crop_px, hand.faces
        yield ComparedHand(*where, before, after, truth)


def _sources(folder: Path) -> dict[str, str]:
    """The video, or the folder of photos, of each image of a set of `m3dhmr label`."""
    if not is_finished(folder):
        return {}
    hands = read_labels(folder)["hands"]
    return {hand["image"]: Source(Path(hand["source"])).group for hand in hands}


def central_hand(
    predictor: HandMeshPredictor, image: Image, intrinsics: Float[np.ndarray, "3 3"]
) -> HandPoints:
    """The only hand or, if the detector finds several, that in the centre."""
    hands = predictor(image, None, "right", intrinsics, freihand=True)
    centre_px = np.array(image.shape[1::-1]) / 2
    offsets_px = hands.crop_px[:, :2] + hands.crop_px[:, 2:] / 2 - centre_px
    return _points(hands, int(np.linalg.norm(offsets_px, axis=1).argmin()))


def _points(hands: PredictedHands, row: int) -> HandPoints:
    return HandPoints(hands.joints_m[row], hands.verts_m[row])


class PhotoHands:
    """The hands that the detector finds in photos, seen by both; to be iterated once.

    Attributes:
        photos: how many were looked at so far.
        skipped: why photos could not be read.

    Raises:
        UserError: while it is iterated, if no detector is installed.
    """

    def __init__(self, inputs: Sequence[Input], pair: Pair, log: LogFn):
        self._inputs, self._pair, self._log = inputs, pair, log
        self.photos = 0
        self.skipped: list[str] = []

    def __iter__(self) -> Iterator[ComparedHand]:
        for each in self._inputs:
            assert each.path is not None
            try:
                decoded = read_image(each.path)
            except UserError as error:
                self.skipped.append(str(error))
                self._log(f"skipped: {error}")
                continue
            self.photos += 1
            k, _ = choose_intrinsics(decoded.image, decoded.intrinsics, PredictOptions())
            candidates = self._pair[0].find(decoded.image)
            if not candidates.handedness:
                continue
            before, after = (p.predict(decoded.image, candidates, k) for p in self._pair)
            source = each.path.parent.as_posix()
            for i, crop_px in enumerate(candidates.crop_px):
                where = each.path, each.source, source, k, crop_px, before.faces[i]
                yield ComparedHand(*where, _points(before, i), _points(after, i), None)
