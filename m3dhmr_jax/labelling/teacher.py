"""The teacher: detector and fit, which say where the hands of an image are.

Axes: n = 21 joints, v vertices, h w image.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.fitting import COMMON
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.labelling.quality import VIEWS, Measures
from m3dhmr_jax.predict.candidates import seen
from m3dhmr_jax.predict.crops import Image, hand_size_px
from m3dhmr_jax.predict.detector import HandDetector
from m3dhmr_jax.predict.fit_method import FitMethod
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.synthetic.camera import project


class LabelledHand(NamedTuple):
    """A hand of an image; a left one as the right hand of the mirrored image."""

    handedness: str
    # (x, y, width, height) around the mesh, in the image as it is.
    box_px: Float[np.ndarray, "4"]
    verts_m: Float[np.ndarray, "v 3"]
    joints_m: Float[np.ndarray, "n 3"]
    measures: Measures


class Teacher:
    """Labels hands by their landmarks, which are averaged over several views.

    Attributes:
        hand: the model that is fitted.

    Raises:
        UserError: if the detector is not installed.
    """

    def __init__(self, hand: HandModel, detector: HandDetector | None = None):
        self.hand = hand
        self._detector = detector or HandDetector.load()
        self._predictor = HandMeshPredictor(FitMethod(hand), self._detector)

    def __call__(
        self, image: Image, intrinsics: Float[np.ndarray, "3 3"], handedness: str | None
    ) -> tuple[list[LabelledHand], int]:
        """All hands, and how many more are too small for the detector."""
        detected = self._detector(image, views=VIEWS)
        candidates = seen(detected, (handedness,) * len(detected.presence))
        hands = self._predictor.predict(image, candidates, intrinsics)
        labelled = []
        for i, side in enumerate(hands.handedness):
            verts_px = project(hands.verts_m[i].astype(np.float64), intrinsics)
            low, extent = verts_px.min(axis=0), np.ptp(verts_px, axis=0)
            landmarks_px = detected.landmarks_px[i]
            missed_px = project(hands.joints_m[i].astype(np.float64), intrinsics) - landmarks_px
            missed_px = np.median(np.linalg.norm(missed_px[COMMON], axis=1))
            measures = Measures(
                size_px=float(extent.max()),
                inside=_inside(verts_px, image),
                disagreement=float(detected.disagreement[i].mean()),
                residual=float(missed_px / hand_size_px(landmarks_px[None])[0]),
                quality=float(hands.score[i]),
                side_probability=float(hands.handedness_probability[i]),
            )
            mirror = np.array([-1.0 if side == "left" else 1.0, 1.0, 1.0])
            points_m = hands.verts_m[i] * mirror, hands.joints_m[i] * mirror
            box_px = np.concatenate([low, extent])
            labelled.append(LabelledHand(side, box_px, *points_m, measures))
        return labelled, detected.too_small


def _inside(points_px: Float[np.ndarray, "v 2"], image: Image) -> float:
    """The fraction of points inside the image."""
    limits = np.array([image.shape[1], image.shape[0]]) - 0.5
    return float(((points_px >= -0.5) & (points_px <= limits)).all(axis=1).mean())
