"""Side and top view of the hands in camera space, to scale.

Both views share the horizontal axis, the distance from the camera, which increases to the right.
Axes: v vertices, h w canvas.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.visualize.hands import HandDrawing, merge_meshes
from m3dhmr_jax.visualize.mesh import render_mesh
from m3dhmr_jax.visualize.text import FRACTION_BITS, draw_text, fixed_point, text_width

BACKGROUND = (250, 250, 248)
FIELD_OF_VIEW = (240, 242, 246)
GRID = (222, 224, 228)
RULE = (176, 180, 188)
INK = (88, 90, 98)
# Rotations from the camera frame; rows: right, down and into the drawing.
SIDE_VIEW = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # Seen from the right.
TOP_VIEW = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # The image's right is at the bottom.
VIEWER_DISTANCE_M = 1000.0  # Far enough for a practically orthographic view.
MARGIN_PX = 34.0  # To the left of the camera and to the right of the farthest point.
GRID_M = 0.1
RULER_PX = 44  # Height of the ruler and the line of text below it.
GAP_PX = 6


class Strip(NamedTuple):
    """One view: its rotation from the camera frame and its rows in the canvas."""

    rotation: Float[np.ndarray, "3 3"]
    top: int
    height: int
    axis_row: float  # Row of the optical axis within the strip.


def _extent_m(hands: Sequence[HandDrawing], row: Float[np.ndarray, "3"]) -> tuple[float, float]:
    """Minimum and maximum of the camera and all hands along an axis."""
    ends = [0.0] + [end for hand in hands for end in _min_max(hand.verts_cam_m @ row)]
    return min(ends), max(ends)


def _min_max(values: Float[np.ndarray, " v"]) -> tuple[float, float]:
    """Smallest and largest value."""
    return float(values.min()), float(values.max())


def _scale(hands: Sequence[HandDrawing], width: int, strip_px: int) -> float:
    """Pixels per metre with which all hands and the camera fit into both views."""
    farthest = max(_extent_m(hands, np.array([0.0, 0, 1]))[1], 0.3)
    fits = [(width - 2 * MARGIN_PX) / farthest]
    for rotation in (SIDE_VIEW, TOP_VIEW):
        low, high = _extent_m(hands, rotation[1])
        fits.append((strip_px - 16) / max(high - low, 1e-3))
    return min(fits)


def _camera(canvas: UInt8[np.ndarray, "h w 3"], x: float, y: float) -> None:
    """Draws a small camera that faces right, with its pinhole at (x, y)."""
    body = np.array([[x - 25, y - 8], [x - 8, y - 8], [x - 8, y + 8], [x - 25, y + 8]])
    lens = np.array([[x - 8, y - 3], [x, y - 6], [x, y + 6], [x - 8, y + 3]])
    for outline in (body, lens):
        corners = np.array([fixed_point(corner) for corner in outline], np.int32)
        cv2.fillPoly(canvas, [corners], INK, cv2.LINE_AA, FRACTION_BITS)


def _draw_strip(
    canvas: UInt8[np.ndarray, "h w 3"],
    strip: Strip,
    hands: Sequence[HandDrawing],
    slopes: tuple[float, float],
    px_per_m: float,
) -> None:
    """Draws field of view, grid, hands and camera into the rows of the strip."""
    part = canvas[strip.top : strip.top + strip.height]
    width = part.shape[1]
    part[:] = BACKGROUND
    far = width - MARGIN_PX
    wedge = [[0.0, 0.0], [far, slopes[0] * far], [far, slopes[1] * far]]
    corners = [fixed_point(np.array([MARGIN_PX + x, strip.axis_row + y])) for x, y in wedge]
    cv2.fillPoly(part, [np.array(corners, np.int32)], FIELD_OF_VIEW, cv2.LINE_AA, FRACTION_BITS)
    step = GRID_M * px_per_m
    for x in np.arange(MARGIN_PX, width - 0.5, step).round().astype(int):
        part[:, x] = GRID
    first = strip.axis_row - step * math.floor(strip.axis_row / step)
    for y in np.arange(first, strip.height, step).round().astype(int):
        part[min(y, strip.height - 1), round(MARGIN_PX) :] = GRID
    for end in corners[1:]:
        cv2.line(part, corners[0], end, RULE, 1, cv2.LINE_AA, FRACTION_BITS)
    if hands:
        verts_m, faces, colours = merge_meshes(hands)
        rotated = verts_m @ strip.rotation.T + [0, 0, VIEWER_DISTANCE_M]
        focal = px_per_m * VIEWER_DISTANCE_M
        intrinsics = np.array([[focal, 0, MARGIN_PX], [0, focal, strip.axis_row], [0, 0, 1]])
        mesh = render_mesh(rotated, faces, intrinsics, width, strip.height, colours)
        part[:] = mesh.over(part)
    _camera(part, MARGIN_PX, strip.axis_row)


def _ruler(
    canvas: UInt8[np.ndarray, "h w 3"], top: int, hands: Sequence[HandDrawing], px_per_m: float
) -> None:
    """Draws distances from the camera in centimetres, and the extent of each hand."""
    width = canvas.shape[1]
    step = 10 if GRID_M * px_per_m >= 40 else 20 if GRID_M * px_per_m >= 20 else 100
    for cm in range(0, 10_000, step):
        x = MARGIN_PX + cm * px_per_m / 100
        if x > width - 14:
            break
        cv2.line(canvas, (round(x), top), (round(x), top + 4), RULE, 1)
        draw_text(canvas, f"{cm}", x - text_width(f"{cm}", 12) / 2, top + 17, 12, INK)
    left = MARGIN_PX
    for hand in hands:
        near, far = _min_max(hand.verts_cam_m[:, 2])
        colour = tuple(round(0.75 * 255 * c) for c in hand.colour)
        ends = (round(MARGIN_PX + px_per_m * near), top), (round(MARGIN_PX + px_per_m * far), top)
        cv2.line(canvas, *ends, colour, 4)
        cv2.rectangle(canvas, (round(left), top + 25), (round(left) + 9, top + 34), colour, -1)
        label = f"{100 * near:.0f} to {100 * far:.0f} cm"
        draw_text(canvas, label, left + 15, top + 35, 13, INK)
        left += 15 + text_width(label, 13) + 18
    note = "cm from the camera, grid 10 cm"
    draw_text(canvas, note, width - text_width(note, 12) - 8.0, top + 35, 12, INK)


def draw_views(
    hands: Sequence[HandDrawing],
    intrinsics: Float[np.ndarray, "3 3"],
    image_size: tuple[int, int],
    width: int,
    height: int,
) -> UInt8[np.ndarray, "h w 3"]:
    """Side view above top view, on a grid of 10 cm, with the camera and its field of view.

    `image_size`: width and height of the image to which K belongs.
    """
    strip_px = (height - RULER_PX - GAP_PX) // 2
    px_per_m = _scale(hands, width, strip_px)
    canvas = np.full((height, width, 3), 255, np.uint8)
    for number, (rotation, axis) in enumerate(((SIDE_VIEW, 1), (TOP_VIEW, 0))):
        low, high = _extent_m(hands, rotation[1])
        axis_row = strip_px / 2 - px_per_m * (low + high) / 2
        strip = Strip(rotation, number * (strip_px + GAP_PX), strip_px, axis_row)
        ends = np.array([-0.5, image_size[axis] - 0.5])
        slopes = (ends - intrinsics[axis, 2]) / intrinsics[axis, axis]
        _draw_strip(canvas, strip, hands, (float(slopes[0]), float(slopes[1])), px_per_m)
        name = ("from the side", "from above")[number]
        draw_text(canvas, name, 8.0, strip.top + 18, 13, INK)
    _ruler(canvas, 2 * strip_px + GAP_PX + 2, hands, px_per_m)
    return canvas
