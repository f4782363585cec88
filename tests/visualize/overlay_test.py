import time

import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.visualize.hands import HAND_COLOURS, HandDrawing
from m3dhmr_jax.visualize.overlay import (
    GAP_PX,
    contact_sheet,
    draw_landmarks,
    draw_meshes,
    draw_prediction,
    overlay,
    scale_intrinsics,
)
from m3dhmr_jax.visualize.skeleton import FINGER_COLOURS

CAMERA = np.array([[400.0, 0, 60], [0, 410, 50], [0, 0, 1]])
UPRIGHT = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # The built-in hand's fingers point to -x.
PHOTO = np.full((100, 120, 3), 10, np.uint8)


def seen(shift_m=(0.0, 0.06, 0.7), colour=HAND_COLOURS[0]) -> HandDrawing:
    hand = load_builtin()
    verts_m = hand.verts_m @ UPRIGHT.T + np.array(shift_m)
    joints_m = hand.joint_regressor @ verts_m
    landmarks_px = (joints_m @ CAMERA.T)[:, :2] / joints_m[:, 2:]
    return HandDrawing(landmarks_px, verts_m, hand.faces, colour)


def test_enlarged_camera_keeps_pixel_edges_together():
    point_m = np.array([0.01, -0.02, 0.5])
    before, after = ((K @ point_m)[:2] / 0.5 for K in (CAMERA, scale_intrinsics(CAMERA, 4.0)))
    np.testing.assert_allclose(after + 0.5, 4 * (before + 0.5))


def test_panels_show_photo_and_hand_in_register():
    hand = seen()
    sheet = overlay(PHOTO, hand.landmarks_px, hand.verts_cam_m, hand.faces, CAMERA, panel_px=200)
    assert sheet.shape == (200, 2 * 240 + 300 + 2 * GAP_PX, 3)
    points = (hand.verts_cam_m @ CAMERA.T)[:, :2] / hand.verts_cam_m[:, 2:] * 2 + 0.5
    mesh = sheet[:, 240 + GAP_PX : 480 + GAP_PX].max(-1) > 40
    rows, columns = np.nonzero(mesh)
    inside = points.clip([0, 0], [239, 199])
    np.testing.assert_allclose([columns.min(), rows.min()], inside.min(0), atol=2)
    np.testing.assert_allclose([columns.max(), rows.max()], inside.max(0), atol=2)
    thumb = np.round(hand.landmarks_px[4] * 2 + 0.5).astype(int)
    np.testing.assert_allclose(sheet[thumb[1], thumb[0]], FINGER_COLOURS[0], atol=30)


def test_stacked_panels_are_the_same_pictures_one_below_the_other():
    beside = draw_prediction(PHOTO, [seen()], CAMERA, panel_px=200)
    stacked = draw_prediction(PHOTO, [seen()], CAMERA, panel_px=200, stacked=True)
    assert stacked.shape == (400 + GAP_PX, 480 + GAP_PX, 3)
    np.testing.assert_array_equal(stacked[:200], beside[:, : 480 + GAP_PX])


def test_several_hands_hide_each_other_in_any_order():
    near, far = seen(), seen((0.01, 0.06, 0.8), HAND_COLOURS[1])
    together = draw_meshes(PHOTO, [near, far], CAMERA)
    np.testing.assert_array_equal(together, draw_meshes(PHOTO, [far, near], CAMERA))
    alone = draw_meshes(PHOTO, [near], CAMERA)
    covered = (alone != PHOTO).any(-1)
    inside = covered[1:-1, 1:-1] & covered[2:, 1:-1] & covered[:-2, 1:-1]
    inside &= covered[1:-1, 2:] & covered[1:-1, :-2]
    off = np.abs(together.astype(int) - alone)[1:-1, 1:-1][inside]
    assert np.percentile(off, 99) < 25  # But for the soft shadow between them and the rims.
    assert ((together != PHOTO).any(-1) & ~covered).sum() > 50


def test_landmarks_of_nearer_hands_lie_on_top():
    near, far = seen(), seen((0.0, 0.06, 0.8))
    far = far._replace(landmarks_px=near.landmarks_px[::-1])  # Other colours in the same places.
    alone, both = (draw_landmarks(PHOTO, hands) for hands in ([near], [near, far]))
    middle = np.round(near.landmarks_px[4]).astype(int)
    np.testing.assert_array_equal(both[middle[1], middle[0]], alone[middle[1], middle[0]])


def test_bones_are_as_thin_as_the_hand_is_small():
    photo, large = PHOTO.repeat(5, 0).repeat(5, 1), seen()
    small, large = (large._replace(landmarks_px=large.landmarks_px * zoom) for zoom in (1, 4))
    drawn = [(draw_landmarks(photo, [hand]) != photo).any(-1).sum() for hand in (small, large)]
    assert drawn[0] < drawn[1] / 6


def test_a_photo_without_hands_is_shown_as_it_is():
    np.testing.assert_array_equal(draw_meshes(PHOTO, [], CAMERA), PHOTO)
    np.testing.assert_array_equal(draw_landmarks(PHOTO, []), PHOTO)
    sheet = draw_prediction(PHOTO, [], CAMERA, panel_px=100)
    np.testing.assert_array_equal(sheet[:, :120], PHOTO)
    assert sheet.shape == (100, 2 * 120 + 150 + 2 * GAP_PX, 3)


def test_pictures_are_fast_enough_for_video():
    """Ten a second of 640 x 480 px are asked for; a core makes about twenty, forty without views.

    Processor time of this thread: neighbours on the machine do not count.
    """
    photo = np.full((480, 640, 3), 90, np.uint8)
    intrinsics = np.array([[420.0, 0, 320], [0, 420, 240], [0, 0, 1]])
    hands = [seen((0.0, 0.06, 0.45))]
    draw_prediction(photo, hands, intrinsics)
    times = []
    for _ in range(3):
        start = time.thread_time()
        draw_prediction(photo, hands, intrinsics)
        times.append(time.thread_time() - start)
    assert min(times) < 0.2


def test_sheet_puts_pictures_in_rows():
    pictures = [np.full((4, 6, 3), shade, np.uint8) for shade in (10, 20, 30)]
    sheet = contact_sheet(pictures, columns=2, gap_px=1)
    assert sheet.shape == (9, 13, 3)
    corners = sheet[[0, 0, 5, 5], [0, 7, 0, 7], 0]
    assert corners.tolist() == [10, 20, 30, 255]


def test_empty_sheet_is_refused():
    with pytest.raises(ValueError, match="0 pictures in 2 columns"):
        contact_sheet([], columns=2)
