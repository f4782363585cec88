import time

import numpy as np

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.visualize.hands import HAND_COLOURS, HandDrawing
from m3dhmr_jax.visualize.overlay import (
    GAP_PX,
    MAX_PANEL_RATIO,
    draw_landmarks,
    draw_meshes,
    draw_prediction,
    scale_intrinsics,
)
from m3dhmr_jax.visualize.skeleton import FINGER_COLOURS

CAMERA = np.array([[400.0, 0, 60], [0, 410, 50], [0, 0, 1]])
UPRIGHT = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # The built-in hand's fingers point to -x.
IMAGE = np.full((100, 120, 3), 10, np.uint8)


def drawing(shift_m=(0.0, 0.06, 0.7), colour=HAND_COLOURS[0]) -> HandDrawing:
    hand = load_builtin()
    verts_m = hand.verts_m @ UPRIGHT.T + np.array(shift_m)
    joints_m = hand.joint_regressor @ verts_m
    landmarks_px = (joints_m @ CAMERA.T)[:, :2] / joints_m[:, 2:]
    return HandDrawing(landmarks_px, verts_m, hand.faces, colour)


def test_scale_intrinsics_keeps_pixel_edges():
    point_m = np.array([0.01, -0.02, 0.5])
    before, after = ((K @ point_m)[:2] / 0.5 for K in (CAMERA, scale_intrinsics(CAMERA, 4.0)))
    np.testing.assert_allclose(after + 0.5, 4 * (before + 0.5))


def test_draw_prediction_aligns_panels():
    hand = drawing()
    canvas = draw_prediction(IMAGE, [hand], CAMERA, panel_px=200)
    assert canvas.shape == (200, 2 * 240 + 300 + 2 * GAP_PX, 3)
    points = (hand.verts_cam_m @ CAMERA.T)[:, :2] / hand.verts_cam_m[:, 2:] * 2 + 0.5
    mesh = canvas[:, 240 + GAP_PX : 480 + GAP_PX].max(-1) > 40
    rows, columns = np.nonzero(mesh)
    inside = points.clip([0, 0], [239, 199])
    np.testing.assert_allclose([columns.min(), rows.min()], inside.min(0), atol=2)
    np.testing.assert_allclose([columns.max(), rows.max()], inside.max(0), atol=2)
    thumb = np.round(hand.landmarks_px[4] * 2 + 0.5).astype(int)
    np.testing.assert_allclose(canvas[thumb[1], thumb[0]], FINGER_COLOURS[0], atol=30)


def test_draw_prediction_stacks_views_below_images():
    in_a_row = draw_prediction(IMAGE, [drawing()], CAMERA, panel_px=200)
    stacked = draw_prediction(IMAGE, [drawing()], CAMERA, panel_px=200, stacked=True)
    assert stacked.shape == (400 + GAP_PX, 480 + GAP_PX, 3)
    np.testing.assert_array_equal(stacked[:200], in_a_row[:, : 480 + GAP_PX])


def test_draw_prediction_bounds_the_drawing_of_long_images():
    for height, width in ((4, 3000), (3000, 4)):
        canvas = draw_prediction(np.zeros((height, width, 3), np.uint8), [], CAMERA, panel_px=100)
        assert canvas.shape[0] == 100
        assert canvas.shape[1] <= 2 * 100 * MAX_PANEL_RATIO + 150 + 2 * GAP_PX


def test_draw_meshes_occludes_in_any_order():
    near, far = drawing(), drawing((0.01, 0.06, 0.8), HAND_COLOURS[1])
    together = draw_meshes(IMAGE, [near, far], CAMERA)
    np.testing.assert_array_equal(together, draw_meshes(IMAGE, [far, near], CAMERA))
    alone = draw_meshes(IMAGE, [near], CAMERA)
    covered = (alone != IMAGE).any(-1)
    inside = covered[1:-1, 1:-1] & covered[2:, 1:-1] & covered[:-2, 1:-1]
    inside &= covered[1:-1, 2:] & covered[1:-1, :-2]
    change = np.abs(together.astype(int) - alone)[1:-1, 1:-1][inside]
    assert np.percentile(change, 99) < 25  # Except for soft shadows and edges.
    assert ((together != IMAGE).any(-1) & ~covered).sum() > 50


def test_draw_landmarks_puts_nearer_hand_on_top():
    near, far = drawing(), drawing((0.0, 0.06, 0.8))
    far = far._replace(landmarks_px=near.landmarks_px[::-1])  # Other colours at the same positions.
    alone, both = (draw_landmarks(IMAGE, hands) for hands in ([near], [near, far]))
    middle = np.round(near.landmarks_px[4]).astype(int)
    np.testing.assert_array_equal(both[middle[1], middle[0]], alone[middle[1], middle[0]])


def test_draw_landmarks_scales_bones_with_hand():
    image, large = IMAGE.repeat(5, 0).repeat(5, 1), drawing()
    small, large = (large._replace(landmarks_px=large.landmarks_px * zoom) for zoom in (1, 4))
    drawn = [(draw_landmarks(image, [hand]) != image).any(-1).sum() for hand in (small, large)]
    assert drawn[0] < drawn[1] / 6


def test_drawing_no_hands_keeps_image():
    np.testing.assert_array_equal(draw_meshes(IMAGE, [], CAMERA), IMAGE)
    np.testing.assert_array_equal(draw_landmarks(IMAGE, []), IMAGE)
    canvas = draw_prediction(IMAGE, [], CAMERA, panel_px=100)
    np.testing.assert_array_equal(canvas[:, :120], IMAGE)
    assert canvas.shape == (100, 2 * 120 + 150 + 2 * GAP_PX, 3)


def test_draw_prediction_is_fast_enough_for_video():
    """CPU time of this thread, as other processes may be running; a core draws about 20 per s."""
    image = np.full((480, 640, 3), 90, np.uint8)
    intrinsics = np.array([[420.0, 0, 320], [0, 420, 240], [0, 0, 1]])
    hands = [drawing((0.0, 0.06, 0.45))]
    draw_prediction(image, hands, intrinsics)
    times = []
    for _ in range(3):
        start = time.thread_time()
        draw_prediction(image, hands, intrinsics)
        times.append(time.thread_time() - start)
    assert min(times) < 0.2
