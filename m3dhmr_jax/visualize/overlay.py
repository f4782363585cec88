"""One picture that shows an answer: landmarks and meshes on the photo, and where the hands stand.

Axes: n landmarks, v vertices, f faces, h w photo, a b picture.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from m3dhmr_jax.visualize.hands import HandDrawing, joined
from m3dhmr_jax.visualize.mesh import render_mesh
from m3dhmr_jax.visualize.skeleton import draw_skeleton
from m3dhmr_jax.visualize.views import draw_views

Photo = UInt8[np.ndarray, "h w 3"]
GAP_PX = 6
BONE_OF_HAND, BONE_OF_PICTURE = 1 / 55, 1 / 90  # Width of a bone: of the hand's length, at most.


def scale_intrinsics(intrinsics: Float[np.ndarray, "3 3"], factor: float) -> np.ndarray:
    """K of the photo enlarged by `factor`; pixel centres on integers, so edges lie at -0.5."""
    offset = 0.5 * (factor - 1)
    return np.array([[factor, 0, offset], [0, factor, offset], [0, 0, 1]]) @ intrinsics


def _enlarged(
    photo: Photo, hands: Sequence[HandDrawing], intrinsics: Float[np.ndarray, "3 3"], factor: float
) -> tuple[UInt8[np.ndarray, "a b 3"], list[HandDrawing], Float[np.ndarray, "3 3"]]:
    """Photo, landmarks and camera, all enlarged alike."""
    size = (round(photo.shape[1] * factor), round(photo.shape[0] * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    larger = [
        hand._replace(landmarks_px=(hand.landmarks_px + 0.5) * factor - 0.5) for hand in hands
    ]
    return cv2.resize(photo, size, interpolation=how), larger, scale_intrinsics(intrinsics, factor)


def draw_meshes(
    photo: Photo,
    hands: Sequence[HandDrawing],
    intrinsics: Float[np.ndarray, "3 3"],
    samples: int = 2,
) -> Photo:
    """The meshes on the photo, hiding each other where they should; fast enough for video.

    `samples`: per pixel and axis; 1 is faster, with hard edges.

    Raises:
        ValueError: if all hands lie behind the camera.
    """
    if not hands:
        return photo.copy()
    height, width, _ = photo.shape
    verts_m, faces, colours = joined(hands)
    return render_mesh(verts_m, faces, intrinsics, width, height, colours, samples).over(photo)


def draw_landmarks(photo: Photo, hands: Sequence[HandDrawing]) -> Photo:
    """The skeletons on the photo, nearer hands over farther ones; thin bones on small hands.

    Raises:
        ValueError: if landmarks are not 21 finite points.
    """
    for hand in sorted(hands, key=lambda hand: -float(np.median(hand.verts_cam_m[:, 2]))):
        reach_px = float(np.ptp(hand.landmarks_px, axis=0).max())
        width_px = min(reach_px * BONE_OF_HAND, photo.shape[0] * BONE_OF_PICTURE)
        photo = draw_skeleton(photo, hand.landmarks_px, max(width_px, 1.0))
    return photo


def draw_prediction(
    photo: Photo,
    hands: Sequence[HandDrawing],
    intrinsics: Float[np.ndarray, "3 3"],
    panel_px: int = 448,
    stacked: bool = False,
    in_views: Sequence[HandDrawing] = (),
) -> UInt8[np.ndarray, "a b 3"]:
    """Landmarks, meshes on the photo, and the views, as panels `panel_px` high.

    `stacked` puts the views below the photos, not beside them; `in_views` are further hands, such
    as the true ones, that only the views show. Landmarks and K are of the photo as given; a photo
    without hands is shown as it is.

    Raises:
        ValueError: if all hands lie behind the camera or landmarks are not 21 finite points.
    """
    photo_size = photo.shape[1], photo.shape[0]
    large, hands, large_k = _enlarged(photo, hands, intrinsics, panel_px / photo.shape[0])
    gap = np.full((panel_px, GAP_PX, 3), 255, np.uint8)
    photos = [draw_landmarks(large, hands), gap, draw_meshes(large, hands, large_k)]
    photos = np.concatenate(photos, axis=1)
    width = photos.shape[1] if stacked else panel_px * 3 // 2
    views = draw_views([*hands, *in_views], intrinsics, photo_size, width, panel_px)
    if stacked:
        return np.concatenate([photos, np.full((GAP_PX, width, 3), 255, np.uint8), views])
    return np.concatenate([photos, gap, views], axis=1)


def contact_sheet(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], columns: int, gap_px: int = 8
) -> UInt8[np.ndarray, "a b 3"]:
    """Pictures in rows of `columns` on white; smaller ones keep to the upper left of their cell.

    Raises:
        ValueError: if there is no picture or no column.
    """
    if not pictures or columns < 1:
        raise ValueError(
            f"a sheet of {len(pictures)} pictures in {columns} columns has no place: "
            "give at least one picture and one column"
        )
    cell_h, cell_w = np.max([picture.shape[:2] for picture in pictures], axis=0).tolist()
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    shape = rows * (cell_h + gap_px) - gap_px, columns * (cell_w + gap_px) - gap_px, 3
    sheet = np.full(shape, 255, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = place // columns * (cell_h + gap_px), place % columns * (cell_w + gap_px)
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def overlay(
    photo: Photo,
    landmarks_px: Float[np.ndarray, "n 2"],
    verts_cam_m: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    panel_px: int = 448,
) -> UInt8[np.ndarray, "a b 3"]:
    """`draw_prediction` of a single hand."""
    return draw_prediction(
        photo, [HandDrawing(landmarks_px, verts_cam_m, faces)], intrinsics, panel_px
    )
