"""Draws predictions: landmarks and meshes over the image, and the hands in camera space.

Axes: h w image, a b canvas.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.visualize.hands import HandDrawing, merge_meshes
from m3dhmr_jax.visualize.mesh import render_mesh
from m3dhmr_jax.visualize.skeleton import draw_skeleton
from m3dhmr_jax.visualize.views import draw_views

Image = UInt8[np.ndarray, "h w 3"]
GAP_PX = 6
# A panel is at most so many times as wide as it is high; longer images leave white below.
MAX_PANEL_RATIO = 4
# Width of a bone relative to the hand's size, and at most relative to the image's height.
BONE_PER_HAND, MAX_BONE_PER_IMAGE = 1 / 55, 1 / 90


def scale_intrinsics(intrinsics: Float[np.ndarray, "3 3"], factor: float) -> np.ndarray:
    """K of the image scaled by `factor`; pixel centres are integers, so the outer edge is -0.5."""
    offset = 0.5 * (factor - 1)
    return np.array([[factor, 0, offset], [0, factor, offset], [0, 0, 1]]) @ intrinsics


def scale_drawing(
    image: Image, hands: Sequence[HandDrawing], intrinsics: Float[np.ndarray, "3 3"], factor: float
) -> tuple[UInt8[np.ndarray, "a b 3"], list[HandDrawing], Float[np.ndarray, "3 3"]]:
    """Image, landmarks and K, scaled by the same factor."""
    size = (max(round(image.shape[1] * factor), 1), max(round(image.shape[0] * factor), 1))
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(image, size, interpolation=interpolation)
    scaled = [
        hand._replace(landmarks_px=(hand.landmarks_px + 0.5) * factor - 0.5) for hand in hands
    ]
    return resized, scaled, scale_intrinsics(intrinsics, factor)


def draw_meshes(
    image: Image,
    hands: Sequence[HandDrawing],
    intrinsics: Float[np.ndarray, "3 3"],
    samples: int = 2,
) -> Image:
    """The meshes over the image, nearer ones in front; fast enough for video.

    `samples`: per pixel and axis; 1 is faster, with aliased edges.

    Raises:
        ValueError: if all hands are behind the camera.
    """
    if not hands:
        return image.copy()
    height, width, _ = image.shape
    verts_m, faces, colours = merge_meshes(hands)
    return render_mesh(verts_m, faces, intrinsics, width, height, colours, samples).over(image)


def draw_landmarks(image: Image, hands: Sequence[HandDrawing]) -> Image:
    """The skeletons over the image, nearer hands on top; smaller hands get thinner bones.

    Raises:
        ValueError: if landmarks are not 21 finite points.
    """
    for hand in sorted(hands, key=lambda hand: -float(np.median(hand.verts_cam_m[:, 2]))):
        extent_px = float(np.ptp(hand.landmarks_px, axis=0).max())
        width_px = min(extent_px * BONE_PER_HAND, image.shape[0] * MAX_BONE_PER_IMAGE)
        image = draw_skeleton(image, hand.landmarks_px, max(width_px, 1.0))
    return image


def draw_prediction(
    image: Image,
    hands: Sequence[HandDrawing],
    intrinsics: Float[np.ndarray, "3 3"],
    panel_px: int = 448,
    stacked: bool = False,
    extra_hands: Sequence[HandDrawing] = (),
) -> UInt8[np.ndarray, "a b 3"]:
    """Landmarks, meshes and views in camera space, as panels `panel_px` high.

    Args:
        intrinsics: K of `image` as given; landmarks are in its pixels.
        stacked: put the views below the images, not next to them.
        extra_hands: hands that only the views show, such as the ground truth.

    Raises:
        ValueError: if all hands are behind the camera or landmarks are not 21 finite points.
    """
    image_size = image.shape[1], image.shape[0]
    factor = panel_px * min(1 / image.shape[0], MAX_PANEL_RATIO / image.shape[1])
    large, hands, large_k = scale_drawing(image, hands, intrinsics, factor)
    gap = np.full((panel_px, GAP_PX, 3), 255, np.uint8)
    drawn = [draw_landmarks(large, hands), draw_meshes(large, hands, large_k)]
    below = ((0, max(panel_px - len(large), 0)), (0, 0), (0, 0))
    left, right = (np.pad(panel, below, constant_values=255) for panel in drawn)
    panels = np.concatenate([left, gap, right], axis=1)
    width = panels.shape[1] if stacked else panel_px * 3 // 2
    views = draw_views([*hands, *extra_hands], intrinsics, image_size, width, panel_px)
    if stacked:
        return np.concatenate([panels, np.full((GAP_PX, width, 3), 255, np.uint8), views])
    return np.concatenate([panels, gap, views], axis=1)
