"""Boxes for the next frame from the hands found in this one."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.predict.boxes import HandBoxes
from m3dhmr_jax.predict.crops import box_of_mesh
from m3dhmr_jax.predict.predictor import PredictedHands

MAX_NOISE = 0.1  # Largest reprojection noise of a tracked hand, as a fraction of its box.
MIN_SIZE, MAX_SIZE = 0.02, 2.0  # Range of a tracked box's size, in longer sides of the image.


class Tracker:
    """Starts from given boxes and moves them with the hands. Axes: k hands.

    A hand that is lost is searched for in its last given box.

    Args:
        given: boxes by the first frame to which they apply; None: one hand, in the whole image.
        handedness: side of that one hand.
        track: whether boxes move with the hands.
    """

    def __init__(self, given: Mapping[int, HandBoxes] | None, handedness: str, *, track: bool):
        self._given = given or {}
        self._track = track
        self._start = None if given is None else np.zeros((0, 4))
        self._boxes_px, self._sides = self._start, (handedness,) if given is None else ()
        self.losses = 0

    def boxes_for(self, index: int) -> tuple[Float[np.ndarray, "k 4"] | None, tuple[str, ...]]:
        """Boxes in this frame, None for the whole image, and the handedness of each."""
        if index in self._given:
            self._start, self._sides = self._given[index]
            self._boxes_px = self._start
        return self._boxes_px, self._sides

    def update(self, hands: PredictedHands, width: int, height: int) -> None:
        """Moves the boxes to the hands that were found in the boxes from `boxes_for`."""
        if not self._track or not hands.handedness:
            return
        boxes_px = np.stack([box_of_mesh(verts_m, hands.intrinsics) for verts_m in hands.verts_m])
        lost = [
            is_lost(box_px, noise_px, width, height)
            for box_px, noise_px in zip(boxes_px, hands.noise_px.tolist(), strict=True)
        ]
        self.losses += sum(lost)
        if self._start is None:
            self._boxes_px = None if lost[0] else boxes_px
        else:
            self._boxes_px = np.where(np.array(lost)[:, None], self._start, boxes_px)


def is_lost(box_px: Float[np.ndarray, "4"], noise_px: float, width: int, height: int) -> bool:
    """Whether a hand left the image, shrank or grew implausibly, or does not look like a hand."""
    x, y, w, h = box_px.tolist()
    side, image_px = max(w, h), max(width, height)
    is_inside = 0 <= x + w / 2 <= width and 0 <= y + h / 2 <= height
    is_plausible = MIN_SIZE * image_px <= side <= MAX_SIZE * image_px
    return not (is_inside and is_plausible and noise_px <= MAX_NOISE * side)
