"""Draws the 21 landmarks as a coloured skeleton. Axes: n = 21 landmarks, h w image."""

import itertools

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.types import N_JOINTS
from m3dhmr_jax.visualize.text import FRACTION_BITS, fixed_point

# RGB, thumb to little finger.
FINGER_COLOURS = ((235, 87, 87), (242, 165, 60), (88, 190, 104), (62, 150, 235), (155, 100, 225))
WRIST_COLOUR = (240, 240, 240)


def draw_skeleton(
    image: UInt8[np.ndarray, "h w 3"], landmarks_px: Float[np.ndarray, "n 2"], width_px: float
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of `image` with bones `width_px` wide and a dot at every landmark, with dark outlines.

    Raises:
        ValueError: if the landmarks are not 21 or not finite.
    """
    if landmarks_px.shape != (N_JOINTS, 2) or not np.isfinite(landmarks_px).all():
        raise ValueError(
            f"landmarks_px has shape {landmarks_px.shape} and {(~np.isfinite(landmarks_px)).sum()} "
            f"values that are not finite; it must be ({N_JOINTS}, 2), in FreiHAND order"
        )
    canvas = image.copy()
    chains = [[0, *range(4 * finger + 1, 4 * finger + 5)] for finger in range(5)]
    points = [fixed_point(point) for point in landmarks_px]
    outline_px = max(1, round(0.35 * width_px))

    def bones(colours: list[tuple[int, int, int]], thickness: int) -> None:
        for chain, colour in zip(chains, colours, strict=True):
            for a, b in itertools.pairwise(chain):
                cv2.line(
                    canvas, points[a], points[b], colour, thickness, cv2.LINE_AA, FRACTION_BITS
                )

    def dot(landmark: int, colour: tuple[int, int, int], radius_px: float) -> None:
        radius = round(radius_px * 2**FRACTION_BITS)
        cv2.circle(canvas, points[landmark], radius, colour, -1, cv2.LINE_AA, FRACTION_BITS)

    bones([(40, 40, 40)] * 5, round(width_px) + 2 * outline_px)
    bones(list(FINGER_COLOURS), max(1, round(width_px)))
    for landmark in range(N_JOINTS):
        colour = WRIST_COLOUR if landmark == 0 else FINGER_COLOURS[(landmark - 1) // 4]
        dot(landmark, (40, 40, 40), 1.25 * width_px + outline_px)
        dot(landmark, (255, 255, 255), 1.25 * width_px)
        dot(landmark, colour, 0.85 * width_px)
    return canvas
