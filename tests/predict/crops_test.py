import cv2
import numpy as np
import pytest

from m3dhmr_jax.camera.pinhole import apply_affine, invert_affine
from m3dhmr_jax.data.augment import eval_view
from m3dhmr_jax.data.crop import crop_from_box, warp
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.crops import (
    BOX_SCALE,
    centred_box,
    check_boxes,
    crop,
    crop_matrix,
    crops_around,
    crops_of_landmarks,
    crops_of_points,
    freihand_crop,
    hand_directions,
    mirrored_boxes,
    rotation_matrix,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def blotches(rng, height, width):
    coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def whole(image, size):
    height, width, _ = image.shape
    side = max(height, width)
    corner = (width - side) / 2, (height - side) / 2
    return crop_matrix(np.array([*corner, side, side], float), size)


@pytest.mark.parametrize("side", [224, 448])
def test_freihand_crop_is_that_of_evaluation(rng, hand_batch, side):
    image = blotches(rng, side, side)
    matrix = crop_matrix(freihand_crop(side, side)[0], 128)
    view = eval_view(hand_batch._replace(image=image[None].repeat(4, 0)), 128)
    np.testing.assert_allclose(
        invert_affine(matrix.astype(np.float32)), view.img_from_crop[0], atol=0.01
    )
    if side == 224:  # Larger images are antialiased here only.
        got = crop(image, matrix, 128) / 255
        np.testing.assert_allclose(2 * got - 1, view.image[0], atol=0.025)


@pytest.mark.parametrize(("height", "width"), [(100, 60), (60, 100), (225, 225), (90, 90)])
def test_crop_matrix_of_whole_image_covers_its_longer_side(rng, height, width):
    matrix = whole(blotches(rng, height, width), 64).astype(np.float32)
    side = max(height, width)
    ends = np.array([[(width - side) / 2, (height - side) / 2], [width / 2, height / 2]])
    np.testing.assert_allclose(
        apply_affine(ends.astype(np.float32), matrix), [[0, 0], [32, 32]], atol=1e-4
    )


@pytest.mark.parametrize("box", [(10, 20, 60, 50), (-3.5, 7.25, 1000, 900), (300, 200, 9, 12)])
def test_crop_matrix_equals_crop_from_box_of_training(box):
    box_px = np.array([box], np.float64)
    matrix = crop_matrix(crops_around(box_px)[0], 128)
    centre = (box_px[0, :2] + box_px[0, 2:] / 2).astype(np.float32)
    side = np.full(2, max(box[2:]) * BOX_SCALE, np.float32)
    want = crop_from_box(centre, side, np.full(2, 128, np.float32), 0.0)
    np.testing.assert_allclose(matrix, want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 60), (110, 120)])
def test_crop_matches_warp_of_training(rng, height, width):
    """Where nothing is shrunk twofold; OpenCV reads at 32nds of a pixel."""
    image = blotches(rng, height, width)
    matrix = whole(image, 64)
    want = warp(image, matrix.astype(np.float32), 64)
    np.testing.assert_allclose(crop(image, matrix, 64) / 255, want, atol=0.025)


@pytest.mark.parametrize("square", [(-30.0, 10.0, 90.0), (300.3, 200.7, 610.0), (5.0, -400.0, 1e3)])
def test_crop_matches_warp_across_borders_and_scales(rng, square):
    """Shrunk crops are means over the area of a pixel."""
    x, y, side = square
    coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
    image = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
    matrix = crop_matrix(np.array([x, y, side, side]), 64)
    want, got = warp(image, matrix.astype(np.float32), 64), crop(image, matrix, 64) / 255
    across = np.arange(64) * side / 64
    at_px = np.stack(np.meshgrid(x + across, y + across), axis=-1)
    within_px = np.minimum(at_px, [639, 479] - at_px).min(axis=-1)
    inside, outside = within_px > 2 * side / 64, within_px < -2 * side / 64 - 1
    np.testing.assert_allclose(got[inside], np.asarray(want)[inside], atol=0.03)
    assert not got[outside].any()


def test_crop_antialiases_large_images():
    """Single pixels of a chequerboard are anything from black to white."""
    board = (np.indices((2000, 1500)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    got = crop(board, whole(board, 64), 64) / 255
    np.testing.assert_allclose(got[2:-2, 12:-12], 0.5, atol=0.05)
    assert (got[:, :6] == 0).all()


@pytest.mark.parametrize("side", [40.0, 200.5, 900.0])
def test_crop_of_a_mirrored_view_equals_that_of_a_copy(rng, side):
    image = blotches(rng, 480, 641)
    crops_px = mirrored_boxes(np.array([[30.0, 40.0, side, side]]), 641)
    np.testing.assert_allclose(crops_px[0], [641 - 30 - side, 40, side, side])
    matrix = crop_matrix(crops_px[0], 64)
    copy = np.ascontiguousarray(image[:, ::-1])
    np.testing.assert_array_equal(crop(image[:, ::-1], matrix, 64), crop(copy, matrix, 64))


def test_check_boxes_rejects_boxes_that_show_nothing():
    good = [3.0, 4.0, 5.0, 6.0]
    check_boxes(np.array([good, [-4.0, 0.0, 5.0, 6.0]]), 100, 50)
    for bad, value in {
        (3.0, 4.0, 0.0, 6.0): r"box 1, .*\(3, 4, 0, 6\)",
        (30.0, 40.0, 10.0, -4.0): "-4",
        (100.0, 4.0, 5.0, 6.0): "100 x 50 px",
        (3.0, -9.0, 5.0, 6.0): "-9",
        (np.nan, 4.0, 5.0, 6.0): "nan",
        (-1e9, -1e9, 2e9, 2e9): r"2e\+09.* 10 times as large",
    }.items():
        with pytest.raises(UserError, match=value):
            check_boxes(np.array([good, bad]), 100, 50)


HAND = np.array([[0.0, 0.0]] * 9 + [[0.0, -1.0]] + [[0.3, -1.5]] * 11)  # Upright.


def test_centred_box_gives_the_crop_of_evaluation():
    np.testing.assert_allclose(crops_around(centred_box(300, 200)), freihand_crop(300, 200))


@pytest.mark.parametrize("angle_rad", [-2.0, 0.0, 0.3, np.pi / 2])
def test_hand_directions_are_counter_clockwise_on_the_screen(angle_rad):
    turned = HAND @ rotation_matrix(angle_rad).T
    np.testing.assert_allclose(hand_directions(turned[None]), [angle_rad], atol=1e-12)
    left = np.array([[0.0, 0.0]] * 9 + [[-1.0, 0.0]] * 12)
    np.testing.assert_allclose(hand_directions(left[None]), [np.pi / 2])


@pytest.mark.parametrize("angle_rad", [-2.0, 0.0, 0.3])
def test_crop_matrix_turns_the_direction_upright(rng, angle_rad):
    points_px = 100 * HAND @ rotation_matrix(angle_rad).T + [320, 240]
    direction_rad = hand_directions(points_px[None])
    crop_px = crops_of_points(points_px[None], direction_rad)[0]
    matrix = crop_matrix(crop_px, 64, direction_rad[0])
    in_crop = points_px @ matrix[:, :2].T + matrix[:, 2]
    assert in_crop.min() > 0
    assert in_crop.max() < 64
    np.testing.assert_allclose(in_crop[9] - in_crop[0], [0, -100 * 64 / crop_px[2]], atol=1e-9)
    np.testing.assert_allclose(np.ptp(in_crop, axis=0).max(), 64 / BOX_SCALE)
    want = crop_from_box(crop_px[:2] + crop_px[2:] / 2, crop_px[2:], np.full(2, 64.0), -angle_rad)
    np.testing.assert_allclose(matrix, want, atol=1e-3)


@pytest.mark.parametrize("direction_rad", [0.4, -2.2])
def test_turned_crop_matches_warp_of_training(rng, direction_rad):
    coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
    image = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
    matrix = crop_matrix(np.array([200.0, 120, 150, 150]), 64, direction_rad)
    want = warp(image, matrix.astype(np.float32), 64)
    np.testing.assert_allclose(crop(image, matrix, 64) / 255, want, atol=0.03)


def test_crop_outside_the_image_is_black():
    image = np.full((50, 60, 3), 255, np.uint8)
    for corner in (-900.0, 900.0):
        matrix = crop_matrix(np.array([corner, corner, 90.0, 90.0]), 32, 0.5)
        assert not crop(image, matrix, 32).any()


def test_crops_of_landmarks_contain_the_mesh():
    """An upright hand's box around its landmarks grows towards the wrist."""
    x, y, side, _ = crops_of_landmarks(100 * HAND[None])[0]
    assert x < 0 < 30 < x + side
    assert y < -150
    assert y + side - 0 > -150 - y
