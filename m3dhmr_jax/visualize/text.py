"""Text and subpixel coordinates for OpenCV. Axes: h w canvas."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

FONT = cv2.FONT_HERSHEY_SIMPLEX
FRACTION_BITS = 4  # OpenCV draws with a precision of 1/16 px.


def fixed_point(point_px: Float[np.ndarray, "2"]) -> tuple[int, int]:
    """A point in OpenCV's fixed-point format, for `shift=FRACTION_BITS`."""
    x, y = np.round(point_px * 2**FRACTION_BITS).astype(int).tolist()
    return x, y


def text_width(text: str, size_px: int) -> int:
    """Width of a line of text in pixels."""
    return cv2.getTextSize(text, FONT, size_px / 30, 1)[0][0]


def draw_text(
    canvas: UInt8[np.ndarray, "h w 3"],
    text: str,
    left_px: float,
    base_px: int,
    size_px: int,
    colour: tuple[int, int, int],
) -> None:
    """Draws a line of text into the canvas, with its baseline in row `base_px`."""
    cv2.putText(canvas, text, (round(left_px), base_px), FONT, size_px / 30, colour, 1, cv2.LINE_AA)
