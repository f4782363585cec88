"""The hands of a video: found once, then followed from frame to frame.

Axes: k hands, n = 21 landmarks, p shape directions.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from jaxtyping import Bool, Float

from m3dhmr_jax.predict.arguments import check_camera, check_image, check_one_side
from m3dhmr_jax.predict.boxes import HandBoxes
from m3dhmr_jax.predict.candidates import Candidates, ShapePrior, join, unknown_shape
from m3dhmr_jax.predict.crops import Image, check_boxes, hand_size_px
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.results import PredictedHands
from m3dhmr_jax.types import N_JOINTS

DETECTION_INTERVAL_S = 1.0  # Hands are looked for this often, and whenever one is missing.
COASTING_S = 0.5  # For so long a hidden hand keeps its number.
MAX_NOISE = 0.1  # Largest reprojection noise of a tracked hand, as a fraction of its size.
MIN_PRESENCE = 0.5
MIN_SIZE, MAX_SIZE = 0.02, 2.0  # Range of a hand's size, in longer sides of the image.
# Distances between hands, as a fraction of their size: of one found twice, and of the same hand in
# two frames; a hand of the other side counts as this much farther.
SAME_HAND, SAME_TRACK, OTHER_SIDE = 0.25, 1.0, 0.5
VELOCITY_MEMORY = 0.5  # Weight of the past: landmarks slide off a hand that is being hidden.
SIDE_MEMORY = 0.8  # Weight of the past in the handedness of a track.
MIN_SHAPE_STD = 0.2  # Errors of neighbouring frames are alike, so the shape stays this uncertain.


class Track(NamedTuple):
    """A hand in the latest frame that showed it."""

    number: int
    time_s: float
    landmarks_px: Float[np.ndarray, "n 2"]
    velocity_px: Float[np.ndarray, "2"]  # Per second.
    handedness: str
    handedness_probability: float  # NaN if the side was given.
    shape: ShapePrior | None  # Of one hand.

    def landmarks_at(self, time_s: float) -> Float[np.ndarray, "n 2"]:
        """Where the landmarks are expected."""
        return self.landmarks_px + self.velocity_px * (time_s - self.time_s)


class Tracker:
    """Predicts the hands of one video, frame after frame.

    Without boxes, the detector finds hands, and identities survive that hands cross. With boxes,
    there is one hand per box; one that is lost is searched for in its box again.

    Args:
        given: boxes by the first frame to which they apply; None: hands are found.
        handedness: side of all hands that are found; None: estimated.

    Attributes:
        losses: how often a hand was lost.

    Raises:
        UserError: if the handedness is unknown; when called, if a box lies outside the image, or
            image or K are as `HandMeshPredictor` rejects them.
    """

    def __init__(
        self,
        predictor: HandMeshPredictor,
        given: Mapping[int, HandBoxes] | None,
        handedness: str | Any | None,
    ):
        self._predictor, self._given = predictor, given
        self._handedness = check_one_side(handedness)
        self._boxes = HandBoxes(np.zeros((0, 4)), ())
        self._tracks: list[Track] = []
        self._hidden: list[Track] = []
        self._next = 0
        self._detected_s = self._thorough_s = -np.inf
        self.losses = 0

    def __call__(
        self,
        image: Image | Any,
        index: int,
        time_s: float,
        intrinsics: Float[np.ndarray, "3 3"] | Any,
    ) -> PredictedHands:
        """The hands of the next frame, in the order of their numbers in `track`."""
        image = check_image(image)
        height, width, _ = image.shape
        intrinsics = check_camera(intrinsics, width, height)
        if self._given is not None and index in self._given:
            self._boxes, self._tracks, self._hidden = self._given[index], [], []
        if self._given is not None:
            candidates, numbers = self._in_boxes(image, time_s, intrinsics)
        elif self._is_detection_due(time_s):
            self._detected_s = time_s
            candidates, numbers = self._detect(image, time_s)
        else:
            candidates, numbers = self._follow(image, self._tracks, time_s)
        hands = self._predictor.predict(image, candidates, intrinsics)
        hands = hands._replace(track=np.array(numbers, int))
        is_kept = ~is_lost(hands, candidates.presence, width, height)
        if self._given is None:
            is_kept &= ~self._is_repeated(hands, is_kept, time_s)
        self._update(hands, np.flatnonzero(is_kept), time_s)
        shown = np.flatnonzero(is_kept) if self._given is None else np.arange(len(numbers))
        return hands.take(shown[np.argsort(hands.track[shown], kind="stable")])

    def _is_detection_due(self, time_s: float) -> bool:
        return not self._tracks or bool(self._hidden) or _is_due(self._detected_s, time_s)

    def _in_boxes(
        self, image: Image, time_s: float, intrinsics: Float[np.ndarray, "3 3"]
    ) -> tuple[Candidates, list[int]]:
        """Tracked hands where they are expected, the others in their boxes."""
        height, width, _ = image.shape
        check_boxes(self._boxes.boxes_px, width, height)
        followed, numbers = self._follow(image, self._tracks, time_s)
        rest = [i for i in range(len(self._boxes.handedness)) if i not in numbers]
        sides = [self._boxes.handedness[i] for i in rest]
        boxes_px = self._boxes.boxes_px[rest]
        found = self._predictor.in_boxes(image, boxes_px, sides, intrinsics)
        return join(followed, found), numbers + rest

    def _follow(
        self, image: Image, tracks: Sequence[Track], time_s: float
    ) -> tuple[Candidates, list[int]]:
        landmarks_px = np.zeros((len(tracks), N_JOINTS, 2))
        for i, track in enumerate(tracks):
            landmarks_px[i] = track.landmarks_at(time_s)
        sides = [track.handedness for track in tracks]
        candidates = self._predictor.follow(image, landmarks_px, sides)
        return remember(candidates, tracks), [track.number for track in tracks]

    def _detect(self, image: Image, time_s: float) -> tuple[Candidates, list[int]]:
        """Hands that are found, with the numbers of the tracks they continue; others follow."""
        # While hands are tracked, small ones are not searched: that takes several frames' time.
        is_thorough = not self._tracks and _is_due(self._thorough_s, time_s)
        if is_thorough:
            self._thorough_s = time_s
        found = self._predictor.find(image, self._handedness, thorough=is_thorough)
        assert found.landmarks is not None
        tracks = self._tracks + self._hidden
        cost = np.zeros((len(tracks), len(found.handedness)))
        for i, track in enumerate(tracks):
            expected_px, found_px = track.landmarks_at(time_s), found.landmarks.landmarks_px
            # The fingers of a hand that is half hidden are often found wrong, its centre is not.
            apart = distances(expected_px, found_px), centre_distances(expected_px, found_px)
            is_other = np.array(found.handedness) != track.handedness
            # No farther, or the pairs would be chosen for those that are discarded.
            cost[i] = np.minimum(sum(apart) / 2 + OTHER_SIDE * is_other, SAME_TRACK)
        pairs = zip(*scipy.optimize.linear_sum_assignment(cost), strict=True)
        known = {int(j): tracks[i] for i, j in pairs if cost[i, j] < SAME_TRACK}
        numbers = []
        for j in range(len(found.handedness)):
            numbers.append(known[j].number if j in known else self._next)
            self._next += j not in known
        found = remember(found, [known.get(j) for j in range(len(numbers))])
        rest = [track for track in self._tracks if track.number not in numbers]
        followed, more = self._follow(image, rest, time_s)
        return join(found, followed), numbers + more

    def _is_repeated(
        self, hands: PredictedHands, is_kept: Bool[np.ndarray, " k"], time_s: float
    ) -> Bool[np.ndarray, " k"]:
        """Hands where another kept one fits its track better: of two that cross, one is hidden."""
        is_repeated = ~is_kept
        by_number = {track.number: track for track in self._tracks}
        p_right = right_probability(hands.handedness, hands.handedness_probability)
        doubt = np.full(len(hands.track), np.inf)
        for i, number in enumerate(hands.track.tolist()):
            if number in by_number:
                track = by_number[number]
                before = right_probability(
                    (track.handedness,), np.array([track.handedness_probability])
                )
                expected_px = track.landmarks_at(time_s)
                doubt[i] = abs(before[0] - p_right[i])
                doubt[i] += distances(expected_px, hands.landmarks_px[i : i + 1])[0]
        for i in np.argsort(doubt, kind="stable"):
            if not is_repeated[i]:
                near = distances(hands.landmarks_px[i], hands.landmarks_px) < SAME_HAND
                near[i] = False
                is_repeated |= near
        return is_repeated

    def _update(self, hands: PredictedHands, kept: np.ndarray, time_s: float) -> None:
        before = {track.number: track for track in self._tracks + self._hidden}
        seen_now = {track.number for track in self._tracks}
        self._tracks = [
            next_track(before.get(int(hands.track[i])), hands, i, time_s) for i in kept.tolist()
        ]
        numbers = {track.number for track in self._tracks}
        self.losses += len((seen_now & set(hands.track.tolist())) - numbers)
        self._hidden = [
            track
            for number, track in before.items()
            if number not in numbers and 0 <= time_s - track.time_s < COASTING_S
        ]


def _is_due(last_s: float, time_s: float) -> bool:
    return not 0 <= time_s - last_s < DETECTION_INTERVAL_S


def right_probability(
    handedness: Sequence[str], probability: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " k"]:
    """Probability of a right hand from that of its side; 0 or 1 if the side was given."""
    p = np.nan_to_num(probability, nan=1.0)
    return np.where(np.array(handedness, str) == "right", p, 1 - p)


def distances(
    landmarks_px: Float[np.ndarray, "n 2"], others_px: Float[np.ndarray, "k n 2"]
) -> Float[np.ndarray, " k"]:
    """Mean distance of landmarks to those of other hands, as a fraction of the hand's size."""
    distance_px = np.linalg.norm(others_px - landmarks_px, axis=-1).mean(axis=1)
    return distance_px / np.maximum(hand_size_px(landmarks_px[None]), 1)


def centre_distances(
    landmarks_px: Float[np.ndarray, "n 2"], others_px: Float[np.ndarray, "k n 2"]
) -> Float[np.ndarray, " k"]:
    """Distance of the landmarks' centre to those of other hands, as `distances`."""
    distance_px = np.linalg.norm((others_px - landmarks_px).mean(axis=1), axis=-1)
    return distance_px / np.maximum(hand_size_px(landmarks_px[None]), 1)


def remember(candidates: Candidates, tracks: Sequence[Track | None]) -> Candidates:
    """The candidates with what their tracks know of handedness and shape."""
    sides, probability = list(candidates.handedness), candidates.handedness_probability.copy()
    p_right = right_probability(sides, probability)
    shapes = [None if track is None else track.shape for track in tracks]
    for i, track in enumerate(tracks):
        if track is None:
            continue
        before = np.array([track.handedness_probability])
        if np.isnan(before[0]) or np.isnan(probability[i]):
            sides[i], probability[i] = track.handedness, before[0]
        else:
            p = p_right[i] + SIDE_MEMORY * (
                right_probability((track.handedness,), before)[0] - p_right[i]
            )
            sides[i], probability[i] = ("right" if p > 0.5 else "left"), max(p, 1 - p)
    known = next((shape for shape in shapes if shape is not None), None)
    prior = None
    if known is not None:
        nothing = unknown_shape(1, known.mean.shape[1])
        prior = ShapePrior(*map(np.concatenate, zip(*(s or nothing for s in shapes), strict=True)))
    return candidates._replace(
        handedness=tuple(sides), handedness_probability=probability, shape=prior
    )


def next_track(track: Track | None, hands: PredictedHands, i: int, time_s: float) -> Track:
    """The track of hand `i`, which continues `track`."""
    landmarks_px, velocity_px = hands.landmarks_px[i], np.zeros(2)
    if track is not None and time_s > track.time_s:
        moved_px = (landmarks_px - track.landmarks_px).mean(axis=0)
        velocity_px = moved_px / (time_s - track.time_s)
        velocity_px += VELOCITY_MEMORY * (track.velocity_px - velocity_px)
    shape = None
    if hands.pose is not None:
        std = np.maximum(hands.pose.shape_std[i : i + 1], MIN_SHAPE_STD)
        shape = ShapePrior(hands.pose.shape[i : i + 1], std)
    return Track(
        number=int(hands.track[i]),
        time_s=time_s,
        landmarks_px=landmarks_px,
        velocity_px=velocity_px,
        handedness=hands.handedness[i],
        handedness_probability=float(hands.handedness_probability[i]),
        shape=shape,
    )


def is_lost(
    hands: PredictedHands, presence: Float[np.ndarray, " k"], width: int, height: int
) -> Bool[np.ndarray, " k"]:
    """Hands that left the image, shrank or grew implausibly, or do not look like hands."""
    projected_px = hands.verts_m @ hands.intrinsics.T
    projected_px = projected_px[..., :2] / projected_px[..., 2:]
    low, high = projected_px.min(axis=1), projected_px.max(axis=1)
    centre, side = (low + high) / 2, (high - low).max(axis=1)
    is_inside = ((centre >= 0) & (centre <= [width, height])).all(axis=1)
    longer = max(width, height)
    is_plausible = (side >= MIN_SIZE * longer) & (side <= MAX_SIZE * longer)
    return ~(
        is_inside & is_plausible & (hands.noise_px <= MAX_NOISE * side) & (presence >= MIN_PRESENCE)
    )
