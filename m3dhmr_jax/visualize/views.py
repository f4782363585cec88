"""Where hands stand in front of the camera: from the side and from above, to scale.

Both drawings look along another axis of the camera frame and share the distance from the camera,
which grows to the right. Axes: v vertices, f faces, h w picture.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.visualize.hands import HandDrawing, joined
from m3dhmr_jax.visualize.mesh import render_mesh
from m3dhmr_jax.visualize.text import fixed_point, text_width, write

PAPER = (250, 250, 248)
IN_VIEW = (240, 242, 246)  # What the camera sees is tinted.
GRID = (222, 224, 228)
RULE = (176, 180, 188)
INK = (88, 90, 98)
# Rows: right and down in the drawing, then away from the eye; right-handed.
FROM_THE_SIDE = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # The eye stands on the right.
FROM_ABOVE = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # The photo's right is below.
EYE_M = 1000.0  # So far away that the drawing has no perspective.
MARGIN_PX = 34.0  # Left of the camera and right of the farthest point.
GRID_M = 0.1
RULER_PX = 44  # Height of the scale and the line of print below it.
GAP_PX = 6


class Strip(NamedTuple):
    """One drawing: how camera space becomes its pixels."""

    turn: Float[np.ndarray, "3 3"]
    top: int
    height: int
    centre: float  # Row of the optical axis.


def _spans_m(hands: Sequence[HandDrawing], row: Float[np.ndarray, "3"]) -> tuple[float, float]:
    """How far the camera and all hands reach along an axis."""
    reach = [0.0] + [float(end) for hand in hands for end in ends_of(hand.verts_cam_m @ row)]
    return min(reach), max(reach)


def ends_of(values: Float[np.ndarray, " v"]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _scale(hands: Sequence[HandDrawing], width: int, strip_px: int) -> float:
    """Pixels per metre at which all hands and the camera fit."""
    farthest = max(_spans_m(hands, np.array([0.0, 0, 1]))[1], 0.3)
    fits = [(width - 2 * MARGIN_PX) / farthest]
    for turn in (FROM_THE_SIDE, FROM_ABOVE):
        low, high = _spans_m(hands, turn[1])
        fits.append((strip_px - 16) / max(high - low, 1e-3))
    return min(fits)


def _camera(picture: UInt8[np.ndarray, "h w 3"], x: float, y: float) -> None:
    """A small camera that looks to the right, its pinhole at (x, y)."""
    body = np.array([[x - 25, y - 8], [x - 8, y - 8], [x - 8, y + 8], [x - 25, y + 8]])
    lens = np.array([[x - 8, y - 3], [x, y - 6], [x, y + 6], [x - 8, y + 3]])
    for outline in (body, lens):
        corners = np.array([fixed_point(corner) for corner in outline], np.int32)
        cv2.fillPoly(picture, [corners], INK, cv2.LINE_AA, 4)


def _draw_strip(
    picture: UInt8[np.ndarray, "h w 3"],
    strip: Strip,
    hands: Sequence[HandDrawing],
    slopes: tuple[float, float],
    per_m: float,
) -> None:
    """Field of view, grid, hands and camera, into the rows of the strip."""
    part = picture[strip.top : strip.top + strip.height]
    width = part.shape[1]
    part[:] = PAPER
    reach = width - MARGIN_PX
    wedge = [[0.0, 0.0], [reach, slopes[0] * reach], [reach, slopes[1] * reach]]
    corners = [fixed_point(np.array([MARGIN_PX + x, strip.centre + y])) for x, y in wedge]
    cv2.fillPoly(part, [np.array(corners, np.int32)], IN_VIEW, cv2.LINE_AA, 4)
    step = GRID_M * per_m
    for x in np.arange(MARGIN_PX, width - 0.5, step).round().astype(int):
        part[:, x] = GRID
    first = strip.centre - step * math.floor(strip.centre / step)
    for y in np.arange(first, strip.height, step).round().astype(int):
        part[min(y, strip.height - 1), round(MARGIN_PX) :] = GRID
    for end in corners[1:]:
        cv2.line(part, corners[0], end, RULE, 1, cv2.LINE_AA, 4)
    if hands:
        verts_m, faces, colours = joined(hands)
        turned = verts_m @ strip.turn.T + [0, 0, EYE_M]
        focal = per_m * EYE_M
        intrinsics = np.array([[focal, 0, MARGIN_PX], [0, focal, strip.centre], [0, 0, 1]])
        mesh = render_mesh(turned, faces, intrinsics, width, strip.height, colours)
        part[:] = mesh.over(part)
    _camera(part, MARGIN_PX, strip.centre)


def _ruler(
    picture: UInt8[np.ndarray, "h w 3"], top: int, hands: Sequence[HandDrawing], per_m: float
) -> None:
    """Distances from the camera in centimetres, and from where to where each hand reaches."""
    width = picture.shape[1]
    step = 10 if GRID_M * per_m >= 40 else 20 if GRID_M * per_m >= 20 else 100
    for cm in range(0, 10_000, step):
        x = MARGIN_PX + cm * per_m / 100
        if x > width - 14:
            break
        cv2.line(picture, (round(x), top), (round(x), top + 4), RULE, 1)
        write(picture, f"{cm}", x - text_width(f"{cm}", 12) / 2, top + 17, 12, INK)
    left = MARGIN_PX
    for hand in hands:
        near, far = ends_of(hand.verts_cam_m[:, 2])
        colour = tuple(round(0.75 * 255 * c) for c in hand.colour)
        ends = (round(MARGIN_PX + per_m * near), top), (round(MARGIN_PX + per_m * far), top)
        cv2.line(picture, *ends, colour, 4)
        cv2.rectangle(picture, (round(left), top + 25), (round(left) + 9, top + 34), colour, -1)
        label = f"{100 * near:.0f} to {100 * far:.0f} cm"
        write(picture, label, left + 15, top + 35, 13, INK)
        left += 15 + text_width(label, 13) + 18
    note = "cm from the camera, grid 10 cm"
    write(picture, note, width - text_width(note, 12) - 8.0, top + 35, 12, INK)


def draw_views(
    hands: Sequence[HandDrawing],
    intrinsics: Float[np.ndarray, "3 3"],
    photo_size: tuple[int, int],
    width: int,
    height: int,
) -> UInt8[np.ndarray, "h w 3"]:
    """Side view over top view, on a grid of 10 cm, with the camera and what it sees.

    `photo_size`: width and height of the photo whose K is given.
    """
    strip_px = (height - RULER_PX - GAP_PX) // 2
    per_m = _scale(hands, width, strip_px)
    picture = np.full((height, width, 3), 255, np.uint8)
    for number, (turn, axis) in enumerate(((FROM_THE_SIDE, 1), (FROM_ABOVE, 0))):
        low, high = _spans_m(hands, turn[1])
        centre = strip_px / 2 - per_m * (low + high) / 2
        strip = Strip(turn, number * (strip_px + GAP_PX), strip_px, centre)
        ends = np.array([-0.5, photo_size[axis] - 0.5])
        slopes = (ends - intrinsics[axis, 2]) / intrinsics[axis, axis]
        _draw_strip(picture, strip, hands, (float(slopes[0]), float(slopes[1])), per_m)
        name = ("from the side", "from above")[number]
        write(picture, name, 8.0, strip.top + 18, 13, INK)
    _ruler(picture, 2 * strip_px + GAP_PX + 2, hands, per_m)
    return picture
