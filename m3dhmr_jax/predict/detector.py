"""Hands of an image without boxes: where they are, their direction, landmarks and handedness.

As in MediaPipe Hands, a network proposes palms, and another finds the landmarks in an upright crop
around each; a second pass in a crop around those landmarks refines them, and rejects what is not a
hand. Small hands are searched in parts of the image, hands cut by its border with a margin.

Axes: k hands, n = 21 landmarks, h w image, s crop side.
Pixels have their centres on integers, (x, y) order. Directions as in `predict.crops`.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.models.hand_detector_outputs import (
    LANDMARK_IMAGE_PX,
    PALM_IMAGE_PX,
    HandLandmarks,
)
from m3dhmr_jax.predict.crops import Image, crop, hand_size_px
from m3dhmr_jax.predict.detector_weights import weights_path
from m3dhmr_jax.predict.networks import DetectorNetworks
from m3dhmr_jax.predict.palms import merge_palms, palms_from_candidates
from m3dhmr_jax.predict.runtimes import JAX, find_runtime
from m3dhmr_jax.predict.squares import (
    VIEWS,
    Squares,
    crop_matrices,
    homogeneous,
    inverses,
    squares_around_landmarks,
    squares_around_palms,
    take_rows,
    tile_squares,
    transform,
    view_matrices,
)

# Hands whose box has a shorter longer side are counted but not returned.
MIN_HAND_PX = 20.0
# Below this presence in a pass, a palm is dropped.
MIN_PRESENCE = 0.5
# A hand is certain with this presence in two passes, whose landmarks are nearer than this fraction
# of its box. Others need this presence in the mean of all views.
CERTAIN_PRESENCE, CERTAIN_DISTANCE = 0.9, 0.067
MIN_MEAN_PRESENCE, MAX_VIEW_DISTANCE = 0.8, 0.12
# Distance between views over that between two passes, on average.
VIEWS_PER_PASSES = 2 / 3
# Hands whose landmarks have a smaller mean distance, as a fraction of the box, are the same.
DUPLICATE_DISTANCE = 0.25
# So is a part of a hand that was taken for a hand: smaller by this factor, and so much of its box
# lies inside the other's.
PART_SIZE, PART_INSIDE = 0.6, 0.7
# Crop around a box of a hand of unknown direction, in longer sides of the box.
BOX_SCALE = 1.6
# Black margins around the image with which hands that fill it are searched, in longer sides.
MARGINS = (0.25, 0.5)
# Images are searched in tiles if no hand was found, or none larger than this fraction of the image;
# for tiles half as large, than half of it.
LARGE_HAND = 0.3


class DetectedHands(NamedTuple):
    """Hands of an image, best first; NumPy arrays."""

    # Pixels of the image, FreiHAND order.
    landmarks_px: Float[np.ndarray, "k n 2"]
    # Up to rotation and scale, in the axes of a camera that looks along the ray to the hand (x
    # right, y down, z forward), about an arbitrary origin.
    joints_rel_m: Float[np.ndarray, "k n 3"]
    # Probability that this is a hand.
    presence: Float[np.ndarray, " k"]
    right_probability: Float[np.ndarray, " k"]
    # How far the views of each landmark are from their mean, as a fraction of the longer side of
    # the hand's box; with one view, estimated from the two passes; NaN with one pass.
    disagreement: Float[np.ndarray, "k n"]
    # Hands left out: smaller than MIN_HAND_PX, and more than asked for.
    too_small: int = 0
    too_many: int = 0


class HandDetector:
    """Finds hands of any number, size and direction in an image."""

    def __init__(self, networks: DetectorNetworks):
        self._networks = networks

    @classmethod
    def load(cls, path: Path | None = None, runtime: str = JAX) -> "HandDetector":
        """The detector with installed weights; None: those in the user's data folder.

        `runtime` as `HandMeshPredictor` takes it.

        Raises:
            UserError: if they are missing or corrupted, or there is no such runtime.
        """
        path = weights_path() if path is None else path
        return cls(find_runtime(runtime).load_detector(path))

    @staticmethod
    def is_installed() -> bool:
        """Whether there are weights in the user's data folder."""
        return weights_path().is_file()

    def __call__(
        self, image: Image, *, views: int = 1, max_hands: int = 50, thorough: bool = True
    ) -> DetectedHands:
        """The hands of an RGB image.

        Args:
            thorough: also search small hands, and hands that fill the image, which takes several
                times as long.
            views: how many views of each hand, 1 to 6, are averaged; their disagreement tells how
                certain landmarks are.
            max_hands: the largest number of hands to return.

        Raises:
            UserError: if there are not that many views.
        """
        _check_views(views)
        hands = self._search(image, thorough)
        size_px = hand_size_px(hands.landmarks_px)
        is_small = size_px < MIN_HAND_PX
        hands, too_small = take_rows(hands, ~is_small), int(is_small.sum())
        too_many = max(len(hands.presence) - max_hands, 0)
        hands = take_rows(hands, slice(max_hands))
        if views > 1:
            hands = self._views(image, hands.landmarks_px, views)
        return hands._replace(too_small=too_small, too_many=too_many)

    def refine(
        self, image: Image, landmarks_px: Float[np.ndarray, "k n 2"], *, views: int = 1
    ) -> DetectedHands:
        """Hands near known landmarks, such as those of the previous frame: one per row, in order.

        A row of low `presence` is no longer a hand.

        Raises:
            UserError: if there are not that many views.
        """
        _check_views(views)
        return self._views(image, landmarks_px, views)

    def in_boxes(
        self, image: Image, boxes_px: Float[np.ndarray, "k 4"], *, views: int = 1
    ) -> DetectedHands:
        """The hand in each box (x, y, width, height), of any direction: one per row, in order.

        Raises:
            UserError: if there are not that many views.
        """
        _check_views(views)
        squares = Squares(
            np.repeat(boxes_px[:, :2] + (boxes_px[:, 2:] - 1) / 2, 4, axis=0),
            np.repeat(BOX_SCALE * boxes_px[:, 2:].max(axis=1, initial=0), 4),
            np.tile(np.arange(4) * np.pi / 2, len(boxes_px)),
        )
        turned = self._landmarks(image, crop_matrices(squares, LANDMARK_IMAGE_PX))
        best = turned.presence.reshape(-1, 4).argmax(axis=1) + 4 * np.arange(len(boxes_px))
        hands = self._second_pass(image, take_rows(turned, best))
        return self._views(image, hands.landmarks_px, views) if views > 1 else hands

    def _search(self, image: Image, thorough: bool) -> DetectedHands:
        """The hands of the image; if thorough, also with margins around it and in tiles of it."""
        height, width, _ = image.shape
        centre_px, side_px = np.array([[width - 1, height - 1]]) / 2, float(max(width, height))
        hands = self._in_squares(image, Squares(centre_px, np.array([side_px]), np.zeros(1)))
        if not thorough:
            return hands
        for margin in MARGINS:
            if len(hands.presence):
                break
            square = Squares(centre_px, np.array([side_px * (1 + 2 * margin)]), np.zeros(1))
            hands = self._in_squares(image, square)
        for tiles in tile_squares(width, height):
            largest_px = hand_size_px(hands.landmarks_px).max(initial=0)
            if largest_px > LARGE_HAND * 2 * tiles.side_px[0]:
                break
            hands = merge_hands(hands, self._in_squares(image, tiles))
        return hands

    def _in_squares(self, image: Image, squares: Squares) -> DetectedHands:
        """Hands whose palms are found in upright squares of the image."""
        matrices = crop_matrices(squares, PALM_IMAGE_PX)
        crops = np.stack([crop(image, matrix, PALM_IMAGE_PX) for matrix in matrices])
        candidates = self._networks.detect_palms(crops)
        palms = merge_palms(palms_from_candidates(candidates, matrices))
        palm_crops = crop_matrices(squares_around_palms(palms), LANDMARK_IMAGE_PX)
        first = self._landmarks(image, palm_crops)
        first = take_rows(first, first.presence >= MIN_PRESENCE)
        hands = self._second_pass(image, first)
        hands = hands._replace(presence=np.minimum(hands.presence, first.presence))
        hands = merge_hands(take_rows(hands, hands.presence >= MIN_PRESENCE))
        certain = hands.presence >= CERTAIN_PRESENCE
        certain &= hands.disagreement.mean(axis=1) <= CERTAIN_DISTANCE
        doubtful = self._views(image, hands.landmarks_px[~certain], len(VIEWS))
        accepted = doubtful.presence >= MIN_MEAN_PRESENCE
        accepted &= doubtful.disagreement.mean(axis=1) <= MAX_VIEW_DISTANCE
        return merge_hands(take_rows(hands, certain), take_rows(doubtful, accepted))

    def _second_pass(self, image: Image, first: DetectedHands) -> DetectedHands:
        second = self._views(image, first.landmarks_px, 1)
        distance_px = np.linalg.norm(second.landmarks_px - first.landmarks_px, axis=-1)
        distance_px *= VIEWS_PER_PASSES
        size_px = hand_size_px(second.landmarks_px)
        return second._replace(disagreement=distance_px / size_px[:, None])

    def _views(
        self, image: Image, landmarks_px: Float[np.ndarray, "k n 2"], views: int
    ) -> DetectedHands:
        """The mean of the first views of the hands near these landmarks."""
        squares = squares_around_landmarks(landmarks_px)
        upright = crop_matrices(squares, LANDMARK_IMAGE_PX)
        matrices = [each @ homogeneous(upright) for each in view_matrices()[:views]]
        found = self._landmarks(image, np.concatenate(matrices))
        if views == 1:
            return found
        arrays: Any = found[:N_ARRAYS]
        each = [x.reshape(views, len(landmarks_px), *x.shape[1:]) for x in arrays]
        mean = DetectedHands(*(x.mean(axis=0) for x in each))
        distance_px = np.linalg.norm(each[0] - mean.landmarks_px, axis=-1).mean(axis=0)
        size_px = hand_size_px(mean.landmarks_px)
        return mean._replace(disagreement=distance_px / size_px[:, None])

    def _landmarks(self, image: Image, matrices: Float[np.ndarray, "k 2 3"]) -> DetectedHands:
        """The hand in each crop, one pass."""
        if not len(matrices):
            return NO_HANDS
        crops = np.stack([crop(image, matrix, LANDMARK_IMAGE_PX) for matrix in matrices])
        found = self._networks.find_landmarks(crops)
        return hands_from_crops(found, matrices)


NO_HANDS = DetectedHands(
    np.zeros((0, 21, 2)), np.zeros((0, 21, 3)), np.zeros(0), np.zeros(0), np.zeros((0, 21))
)
N_ARRAYS = len(NO_HANDS) - 2  # Fields of DetectedHands with one row per hand.


def hands_from_crops(
    found: HandLandmarks, crop_from_img: Float[np.ndarray, "k 2 3"]
) -> DetectedHands:
    """Hands in pixels and axes of the image; in a mirrored crop, a right hand is a left one."""
    img_from_crop = inverses(crop_from_img)
    determinant = np.linalg.det(img_from_crop[:, :, :2])
    rotation = img_from_crop[:, :, :2] / np.sqrt(np.abs(determinant))[:, None, None]
    landmarks_px, right = np.asarray(found.landmarks_px), np.asarray(found.right_probability)
    joints_rel_m = np.asarray(found.joints_m, np.float64)
    turned_m = np.einsum("kad,knd->kna", rotation, joints_rel_m[..., :2])
    return DetectedHands(
        landmarks_px=transform(img_from_crop, landmarks_px[..., :2] - 0.5),
        joints_rel_m=np.concatenate([turned_m, joints_rel_m[..., 2:]], axis=-1),
        presence=np.asarray(found.presence),
        right_probability=np.where(determinant < 0, 1 - right, right),
        disagreement=np.full(landmarks_px.shape[:2], np.nan),
    )


def merge_hands(*found: DetectedHands) -> DetectedHands:
    """All hands, each once, those of high presence first."""
    arrays: Any = map(np.concatenate, list(zip(*found, strict=True))[:N_ARRAYS])
    hands = DetectedHands(*arrays)
    kept: list[int] = []
    for i in np.argsort(-hands.presence, kind="stable").tolist():
        distances_px = np.linalg.norm(hands.landmarks_px[kept] - hands.landmarks_px[i], axis=-1)
        sizes_px = hand_size_px(hands.landmarks_px[[i, *kept]])
        limits_px = DUPLICATE_DISTANCE * np.maximum(sizes_px[0], sizes_px[1:])
        if (distances_px.mean(axis=1) > limits_px).all():
            kept.append(i)
    hands = take_rows(hands, kept)
    return take_rows(hands, ~_are_parts(hands.landmarks_px))


def _are_parts(landmarks_px: Float[np.ndarray, "k n 2"]) -> Bool[np.ndarray, " k"]:
    """Whether each hand is only a part of another one."""
    low, high = landmarks_px.min(axis=1), landmarks_px.max(axis=1)
    common = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    inside = (
        np.prod(np.maximum(common, 0), axis=-1)
        / np.prod(np.maximum(high - low, 1), axis=-1)[:, None]
    )
    size_px = hand_size_px(landmarks_px)
    is_smaller = size_px[:, None] < PART_SIZE * size_px
    return (is_smaller & (inside >= PART_INSIDE)).any(axis=1)


def _check_views(views: int) -> None:
    if views not in range(1, len(VIEWS) + 1):
        raise UserError(f"views={views} must be 1 to {len(VIEWS)}: that many views are defined")
