"""One picture that shows an answer: landmarks and mesh on the photo, and the mesh from elsewhere.

Axes: n landmarks, v vertices, f faces, h w photo, a b picture.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from m3dhmr_jax.visualize.mesh import render_mesh
from m3dhmr_jax.visualize.skeleton import draw_skeleton

PAPER = (247, 247, 245)
INK = (96, 96, 100)
# The mesh's turn about its middle before it is looked at: camera axes, right-handed.
FROM_THE_SIDE = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # The eye stands on the right.
FROM_ABOVE = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # The photo's camera is below.


def scale_intrinsics(intrinsics: Float[np.ndarray, "3 3"], factor: float) -> np.ndarray:
    """K of the photo enlarged by `factor`; pixel centres on integers, so edges lie at -0.5."""
    offset = 0.5 * (factor - 1)
    return np.array([[factor, 0, offset], [0, factor, offset], [0, 0, 1]]) @ intrinsics


def _enlarge(photo: UInt8[np.ndarray, "h w 3"], factor: float) -> UInt8[np.ndarray, "a b 3"]:
    size = (round(photo.shape[1] * factor), round(photo.shape[0] * factor))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def mesh_from(
    turn: Float[np.ndarray, "3 3"],
    verts_m: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    side_px: int,
) -> UInt8[np.ndarray, "a b 3"]:
    """The mesh, turned about its middle and fitted to a light square."""
    turned = (verts_m - (verts_m.min(0) + verts_m.max(0)) / 2) @ turn.T
    distance_m = 1.0  # Far enough for little perspective.
    turned = turned - (turned.min(0) + turned.max(0)) / 2 + [0, 0, distance_m]
    extent = np.abs(turned[:, :2] / turned[:, 2:]).max()
    focal, middle = 0.42 * side_px / extent, (side_px - 1) / 2
    intrinsics = np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
    picture = render_mesh(turned, faces, intrinsics, side_px, side_px)
    return picture.over(np.full((side_px, side_px, 3), PAPER, np.uint8))


def captioned(picture: UInt8[np.ndarray, "h w 3"], caption: str) -> UInt8[np.ndarray, "a w 3"]:
    """The picture with a line of small print below."""
    strip = np.full((30, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, caption, (4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
    return np.concatenate([picture, strip])


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
    photo: UInt8[np.ndarray, "h w 3"],
    uv_px: Float[np.ndarray, "n 2"],
    verts_cam_m: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    panel_px: int = 448,
) -> UInt8[np.ndarray, "a b 3"]:
    """Four panels `panel_px` high: landmarks, mesh on the photo, mesh from the side and from above.

    `uv_px`, `intrinsics`: of the photo as given. `verts_cam_m`: in camera space.

    Raises:
        ValueError: if the mesh lies behind the camera or the landmarks are not 21 finite points.
    """
    factor = panel_px / photo.shape[0]
    large = _enlarge(photo, factor)
    height, width = large.shape[:2]
    joints = draw_skeleton(large, (uv_px + 0.5) * factor - 0.5, width_px=panel_px / 110)
    mesh = render_mesh(verts_cam_m, faces, scale_intrinsics(intrinsics, factor), width, height)
    panels = [
        captioned(joints, "landmarks"),
        captioned(mesh.over(large), "mesh, projected"),
        captioned(mesh_from(FROM_THE_SIDE, verts_cam_m, faces, panel_px), "from the side"),
        captioned(mesh_from(FROM_ABOVE, verts_cam_m, faces, panel_px), "from above"),
    ]
    spaced = [np.pad(panel, ((0, 0), (0, 8), (0, 0)), constant_values=255) for panel in panels]
    return np.concatenate(spaced, axis=1)[:, :-8]
