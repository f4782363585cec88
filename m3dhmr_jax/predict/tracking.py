"""Where to look in the next frame: where the hands of this one are."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.predict.boxes import Targets
from m3dhmr_jax.predict.crops import box_of_mesh
from m3dhmr_jax.predict.predictor import PredictedHands

LOST_NOISE = 0.1  # Landmarks that miss the mesh by more than this part of its box show no hand.
SMALLEST_SHARE, LARGEST_SHARE = 0.02, 2.0  # Of a box in the photo's longer side.


class Tracker:
    """Looks where hands were given, then where they were seen last. Axes: k hands.

    A hand that is lost is looked for again where it was given last.

    Args:
        given: boxes by the frame from which on they hold; None: one hand, in all of the photo.
        handedness: of that one.
        follows: whether boxes move with the hands.
    """

    def __init__(self, given: Mapping[int, Targets] | None, handedness: str, *, follows: bool):
        self._given = given or {}
        self._follows = follows
        self._start = None if given is None else np.zeros((0, 4))
        self._boxes_px, self._sides = self._start, (handedness,) if given is None else ()
        self.losses = 0

    def look_at(self, index: int) -> tuple[Float[np.ndarray, "k 4"] | None, tuple[str, ...]]:
        """Boxes in this frame, None for all of it, and whose hands they hold."""
        if index in self._given:
            self._start, self._sides = self._given[index]
            self._boxes_px = self._start
        return self._boxes_px, self._sides

    def saw(self, hands: PredictedHands, width: int, height: int) -> None:
        """Takes note of what was found in the boxes of `look_at`."""
        if not self._follows or not len(hands.is_left):
            return
        boxes_px = np.stack([box_of_mesh(verts_m, hands.intrinsics) for verts_m in hands.verts_m])
        is_lost = [
            is_no_hand(box_px, noise_px, width, height)
            for box_px, noise_px in zip(boxes_px, hands.noise_px.tolist(), strict=True)
        ]
        self.losses += sum(is_lost)
        if self._start is None:
            self._boxes_px = None if is_lost[0] else boxes_px
        else:
            self._boxes_px = np.where(np.array(is_lost)[:, None], self._start, boxes_px)


def is_no_hand(box_px: Float[np.ndarray, "4"], noise_px: float, width: int, height: int) -> bool:
    """Whether this is not to be followed: it left the photo, shrank, grew, or fits no hand."""
    x, y, w, h = box_px.tolist()
    side, photo_px = max(w, h), max(width, height)
    is_inside = 0 <= x + w / 2 <= width and 0 <= y + h / 2 <= height
    is_sized = SMALLEST_SHARE * photo_px <= side <= LARGEST_SHARE * photo_px
    return not (is_inside and is_sized and noise_px <= LOST_NOISE * side)
