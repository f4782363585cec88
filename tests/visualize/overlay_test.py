import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.visualize.overlay import (
    FROM_ABOVE,
    FROM_THE_SIDE,
    PAPER,
    contact_sheet,
    mesh_from,
    overlay,
    scale_intrinsics,
)

CAMERA = np.array([[400.0, 0, 60], [0, 410, 50], [0, 0, 1]])
UPRIGHT = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # The built-in hand's fingers point to -x.


@pytest.fixture(scope="module")
def hand_cam_m() -> np.ndarray:
    return load_builtin().vertices @ UPRIGHT.T + [0.0, 0.06, 0.7]


def inked(picture: np.ndarray) -> np.ndarray:
    return (picture != PAPER).any(-1)


@pytest.mark.parametrize("turn", [FROM_THE_SIDE, FROM_ABOVE])
def test_other_viewpoints_are_rotations(turn):
    np.testing.assert_array_equal(turn @ turn.T, np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)


def test_side_view_stands_upright_and_above_view_has_the_camera_below():
    up, away = np.array([0.0, -1, 0]), np.array([0.0, 0, 1])
    np.testing.assert_array_equal(FROM_THE_SIDE @ up, up)
    np.testing.assert_array_equal(FROM_THE_SIDE @ away, [1, 0, 0])  # Away from the camera: right.
    np.testing.assert_array_equal(FROM_ABOVE @ away, up)


def test_view_from_elsewhere_fills_its_square_but_not_to_the_edge(hand_cam_m):
    picture = mesh_from(FROM_THE_SIDE, hand_cam_m, load_builtin().faces, 120)
    rows, columns = np.nonzero(inked(picture))
    assert max(np.ptp(rows), np.ptp(columns)) == pytest.approx(0.84 * 119, abs=3)
    assert min(rows.min(), columns.min(), 119 - rows.max(), 119 - columns.max()) >= 8


def test_enlarged_camera_keeps_pixel_edges_together():
    point_m = np.array([0.01, -0.02, 0.5])
    before, after = ((K @ point_m)[:2] / 0.5 for K in (CAMERA, scale_intrinsics(CAMERA, 4.0)))
    np.testing.assert_allclose(after + 0.5, 4 * (before + 0.5))


def test_panels_show_photo_and_hand_in_register(hand_cam_m):
    photo = np.full((100, 120, 3), 10, np.uint8)
    uv_px = (hand_cam_m @ CAMERA.T)[:21, :2] / hand_cam_m[:21, 2:]
    sheet = overlay(photo, uv_px, hand_cam_m, load_builtin().faces, CAMERA, panel_px=200)
    assert sheet.shape == (230, 2 * 240 + 2 * 200 + 3 * 8, 3)
    mesh = sheet[:200, 248:488].max(-1) > 40
    points = (hand_cam_m @ CAMERA.T)[:, :2] / hand_cam_m[:, 2:] * 2 + 0.5
    rows, columns = np.nonzero(mesh)
    inside = points.clip([0, 0], [239, 199])
    np.testing.assert_allclose([columns.min(), rows.min()], inside.min(0), atol=2)
    np.testing.assert_allclose([columns.max(), rows.max()], inside.max(0), atol=2)


def test_sheet_puts_pictures_in_rows():
    pictures = [np.full((4, 6, 3), shade, np.uint8) for shade in (10, 20, 30)]
    sheet = contact_sheet(pictures, columns=2, gap_px=1)
    assert sheet.shape == (9, 13, 3)
    corners = sheet[[0, 0, 5, 5], [0, 7, 0, 7], 0]
    assert corners.tolist() == [10, 20, 30, 255]


def test_empty_sheet_is_refused():
    with pytest.raises(ValueError, match="0 pictures in 2 columns"):
        contact_sheet([], columns=2)
