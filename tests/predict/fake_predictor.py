"""A predictor that sees given hands, so that tests of tracking need no networks and no images."""

from typing import NamedTuple

import numpy as np

from m3dhmr_jax.predict.cameras import intrinsics_from_fov
from m3dhmr_jax.predict.candidates import Candidates, Landmarks, unknown_shape
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.predict.results import FittedPose, PredictedHands

IMAGE = np.zeros((480, 640, 3), np.uint8)
K = intrinsics_from_fov(60.0, 640, 480)
# Seen from the back, fingers up: about 100 px.
SHAPE_PX = np.array(
    [[0, 50]]
    + [[-20 - 7 * i, 35 - 12 * i] for i in range(4)]
    + [[-24 + 16 * j, -5 - 15 * i] for j in range(4) for i in range(4)]
)
N_SHAPE = 3


class Seen(NamedTuple):
    """A hand that an image shows."""

    centre_px: tuple[float, float]
    p_right: float = 0.99
    presence: float = 1.0
    noise_px: float = 1.0

    @property
    def landmarks_px(self):
        return np.array(self.centre_px) + SHAPE_PX


class FakePredictor(HandMeshPredictor):
    """Sees `hands`, those of the next frame, and logs its calls.

    A hand is followed to the nearest one that is seen within 60 px.
    """

    def __init__(self):
        self.hands: list[Seen] = []
        self.calls: list[str] = []
        self.candidates: Candidates | None = None
        self.shape_std = 0.05

    def find(self, image, handedness=None, *, views=1, thorough=True):
        self.calls.append("find")
        return self._candidates(self.hands, (handedness,) * len(self.hands))

    def follow(self, image, landmarks_px, sides):
        self.calls.append("follow")
        found = [self._nearest(each.mean(axis=0)) for each in landmarks_px]
        return self._candidates(found, (None,) * len(found))

    def in_boxes(self, image, boxes_px, handedness, intrinsics, *, views=1):
        self.calls.append("in_boxes")
        found = []
        for x, y, w, h in boxes_px.tolist():
            inside = (
                hand
                for hand in self.hands
                if x <= hand.centre_px[0] < x + w and y <= hand.centre_px[1] < y + h
            )
            found.append(next(inside, Seen((x + w / 2, y + h / 2), presence=0.0)))
        return self._candidates(found, tuple(handedness))

    def predict(self, image, candidates, intrinsics, masks=None):
        self.candidates = candidates
        k = len(candidates.handedness)
        landmarks_px = candidates.landmarks.landmarks_px
        homogeneous_px = np.concatenate([landmarks_px, np.ones((k, 21, 1))], axis=2)
        shapes = np.arange(k * N_SHAPE, dtype=float).reshape(k, N_SHAPE) + 1
        return PredictedHands(
            verts_m=homogeneous_px @ np.linalg.inv(intrinsics).T,
            joints_m=np.zeros((k, 21, 3)),
            landmarks_px=landmarks_px,
            root_m=np.zeros((k, 3)),
            root_covariance_m2=np.zeros((k, 3, 3)),
            noise_px=candidates.landmarks.disagreement[:, 0],
            faces=np.zeros((k, 1, 3), int),
            handedness=candidates.handedness,
            handedness_probability=candidates.handedness_probability,
            score=candidates.presence,
            is_unsure=candidates.presence < 0.5,
            crop_px=candidates.crop_px,
            direction_rad=candidates.direction_rad,
            track=np.arange(k),
            intrinsics=intrinsics,
            camera_is_assumed=True,
            method="fit",
            pose=FittedPose(np.zeros((k, 16, 3, 3)), shapes, np.full((k, N_SHAPE), self.shape_std)),
        )

    def _nearest(self, point_px):
        gone = Seen(tuple(point_px - SHAPE_PX.mean(axis=0)), presence=0.0)
        centres = [np.subtract(hand.landmarks_px.mean(axis=0), point_px) for hand in self.hands]
        distances = np.linalg.norm(centres, axis=-1) if centres else np.array([np.inf])
        return self.hands[distances.argmin()] if distances.min() < 60 else gone

    def _candidates(self, hands, sides):
        """Its noise goes the way of the landmarks' disagreement, which nothing else reads."""
        k = len(hands)
        landmarks_px = np.array([hand.landmarks_px for hand in hands], float).reshape(k, 21, 2)
        p_right = np.array([hand.p_right for hand in hands])
        noise_px = np.array([hand.noise_px for hand in hands])
        estimated = np.where(p_right > 0.5, "right", "left").tolist()
        return Candidates(
            crop_px=np.zeros((k, 4)),
            direction_rad=np.zeros(k),
            handedness=tuple(side or own for side, own in zip(sides, estimated, strict=True)),
            handedness_probability=np.where(
                [side is None for side in sides], np.maximum(p_right, 1 - p_right), np.nan
            ),
            presence=np.array([hand.presence for hand in hands]),
            landmarks=Landmarks(
                landmarks_px, np.zeros((k, 21, 3)), np.repeat(noise_px[:, None], 21, axis=1)
            ),
            shape=unknown_shape(k, N_SHAPE),
        )
