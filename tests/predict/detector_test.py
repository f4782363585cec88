import json

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.models.hand_detector_outputs import PALM_GRIDS, HandLandmarks, PalmCandidates
from m3dhmr_jax.predict.crops import hand_size_px
from m3dhmr_jax.predict.detector import (
    DUPLICATE_DISTANCE,
    NO_HANDS,
    DetectedHands,
    HandDetector,
    hands_from_crops,
    merge_hands,
)
from m3dhmr_jax.predict.palms import merge_palms, palms_from_candidates
from m3dhmr_jax.predict.squares import (
    TILE_OVERLAP,
    VIEWS,
    Palms,
    Squares,
    crop_matrices,
    squares_around_landmarks,
    squares_around_palms,
    tile_squares,
    view_matrices,
)
from tests.negatives import DRAWN

# Photos of the development set with an open hand, and the smallest distance that is no match.
PHOTOS = ("abcs_011.jpg", "lebanese_009.jpg", "rps_014.png")
MATCH = 0.1
NEGATIVES = [name for name in DRAWN if name != "foot"]  # Its toes are taken for fingers.


def hands(*landmarks_px, presence=None):
    k = len(landmarks_px)
    return DetectedHands(
        np.stack(landmarks_px).astype(float),
        np.zeros((k, 21, 3)),
        np.ones(k) if presence is None else np.array(presence),
        np.full(k, 0.9),
        np.zeros((k, 21)),
    )


def open_hand(centre=(0.0, 0.0), size=100.0):
    """A right hand seen from the back, fingers up."""
    wrist, points = np.array([0.0, 0.5]), [np.array([0.0, 0.5])]
    for angle in (-0.9, -0.25, 0.0, 0.2, 0.4):
        towards = np.array([np.sin(angle), -np.cos(angle)])
        points += [wrist + length * towards for length in (0.5, 0.7, 0.85, 1.0)]
    return np.array(points) * size + centre


def rotated(points, angle_rad):
    """Counter-clockwise about the origin, where y points down."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return points @ np.array([[cos, sin], [-sin, cos]]).T


def apply(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


@pytest.mark.parametrize("angle_rad", [0.0, 0.7, np.pi / 2, -2.5])
def test_crop_matrices_turn_direction_upwards(angle_rad):
    square = Squares(np.array([[40.0, 30.0]]), np.array([20.0]), np.array([angle_rad]))
    (matrix,) = crop_matrices(square, 100)
    up = rotated(np.array([[0.0, -1.0]]), angle_rad)[0]
    np.testing.assert_allclose(apply(matrix, square.centre_px[0]), [49.5, 49.5], atol=1e-9)
    np.testing.assert_allclose(apply(matrix, square.centre_px[0] + 2 * up), [49.5, 39.5], atol=1e-9)


@pytest.mark.parametrize("angle_rad", [0.0, 1.0, -2.0])
def test_squares_around_landmarks_turn_and_move_with_the_hand(angle_rad):
    upright = squares_around_landmarks(open_hand()[None])
    turned = squares_around_landmarks(rotated(2 * open_hand(), angle_rad)[None] + [30, 40])
    np.testing.assert_allclose(turned.direction_rad, upright.direction_rad + angle_rad, atol=1e-6)
    np.testing.assert_allclose(turned.side_px, 2 * upright.side_px)
    np.testing.assert_allclose(
        turned.centre_px, rotated(2 * upright.centre_px, angle_rad) + np.array([30, 40]), atol=1e-6
    )
    assert abs(upright.direction_rad[0]) < 0.2


def test_squares_around_palms_reach_towards_the_fingers():
    points = np.zeros((1, 7, 2))
    points[0, 2] = [-30, 0]  # The middle finger's base is to the left of the wrist.
    square = squares_around_palms(Palms(np.array([[-10.0, -10, 10, 10]]), points, np.ones(1)))
    np.testing.assert_allclose(square.direction_rad, np.pi / 2)
    np.testing.assert_allclose(square.centre_px, [[-10, 0]], atol=1e-9)
    np.testing.assert_allclose(square.side_px, 52)


def test_palms_are_read_at_their_cells():
    """The last candidate of the fine grid, in the lower right corner of a crop at (100, 50)."""
    p = sum(cells**2 * n for cells, n in PALM_GRIDS)
    row = PALM_GRIDS[0][0] ** 2 * PALM_GRIDS[0][1] - 1
    offsets_px, logits = np.zeros((1, p, 18), np.float32), np.full((1, p), -9, np.float32)
    logits[0, row] = 3
    offsets_px[0, row, :6] = [0, 0, 20, 10, 1, 2]
    matrix = crop_matrices(Squares(np.array([[195.5, 145.5]]), np.array([192.0]), np.zeros(1)), 192)
    palms = palms_from_candidates(PalmCandidates(offsets_px, logits), matrix)
    centre, half = np.array([100, 50]) + 188 - 0.5, np.array([10, 5])
    np.testing.assert_allclose(palms.box_px, np.concatenate([centre - half, centre + half])[None])
    np.testing.assert_allclose(palms.points_px[0, 0], centre + np.array([1, 2]))
    np.testing.assert_allclose(palms.score, 1 / (1 + np.exp(-3)))


def test_merge_palms_averages_overlapping_boxes():
    box_px = np.array([[0.0, 0, 10, 10], [50, 50, 60, 60], [1, 0, 11, 10]])
    palms = merge_palms(Palms(box_px, np.zeros((3, 7, 2)), np.array([0.9, 0.5, 0.6])))
    np.testing.assert_allclose(palms.box_px, [[0.4, 0, 10.4, 10], [50, 50, 60, 60]])
    np.testing.assert_allclose(palms.score, [0.9, 0.5])
    nothing = Palms(np.zeros((0, 4)), np.zeros((0, 7, 2)), np.zeros(0))
    assert len(merge_palms(nothing).score) == 0


def test_merge_hands_keeps_each_hand_once_best_first():
    hand = open_hand()
    size = hand_size_px(hand[None])[0]
    near, far = (hand + np.array([share * size, 0]) for share in (DUPLICATE_DISTANCE - 0.01, 1.0))
    merged = merge_hands(hands(hand, far, presence=[0.7, 0.8]), hands(near, presence=[0.9]))
    np.testing.assert_allclose(merged.landmarks_px, [near, far])
    assert len(merge_hands(NO_HANDS, NO_HANDS).presence) == 0


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 1000), (4000, 3000)])
def test_every_small_hand_lies_inside_a_tile(width, height):
    rng = np.random.default_rng(0)
    levels = list(tile_squares(width, height))
    assert len(levels) == 2
    for tiles in levels:
        side = TILE_OVERLAP * tiles.side_px[0]
        corner = rng.uniform(0, [width - side, height - side], (200, 2))[:, None]
        low = tiles.centre_px + 0.5 - tiles.side_px[:, None] / 2
        inside = (corner >= low - 1e-6) & (corner + side <= low + tiles.side_px[:, None] + 1e-6)
        assert inside.all(axis=-1).any(axis=1).all()
    assert not list(tile_squares(200, 100))


def test_views_are_undone_in_the_image():
    """The same hand seen by a perfect network in every view has the same landmarks and joints."""
    hand, direction = open_hand(), np.array([0.4])
    joints = np.concatenate([hand, np.full((21, 1), 3.0)], axis=1) / 1000
    upright = crop_matrices(Squares(np.array([[5.0, 6.0]]), np.array([300.0]), direction), 224)[0]
    matrices = np.stack([view @ np.vstack([upright, [0, 0, 1]]) for view in view_matrices()])
    landmarks, seen, right = [], [], []
    for matrix in matrices:
        linear = matrix[:, :2]
        scale = np.sqrt(np.abs(np.linalg.det(linear)))
        xy = joints[:, :2] @ (linear / scale).T
        landmarks.append(np.concatenate([apply(matrix, hand) + 0.5, joints[:, 2:]], axis=1))
        seen.append(np.concatenate([xy, joints[:, 2:]], axis=1))
        right.append(0.8 if np.linalg.det(linear) > 0 else 0.2)
    n = len(VIEWS)
    assert [value < 0.5 for value in right] == [is_mirrored for *_, is_mirrored in VIEWS]
    found = HandLandmarks(*map(np.array, (landmarks, seen, np.ones(n), right)))
    undone = hands_from_crops(found, matrices)
    np.testing.assert_allclose(undone.landmarks_px, np.stack([hand] * n), atol=1e-9)
    np.testing.assert_allclose(undone.joints_rel_m, np.stack([joints] * n), atol=1e-9)
    np.testing.assert_allclose(undone.right_probability, 0.8)


class Searched(HandDetector):
    """Records where it searches; finds what `found` says for the side of the squares."""

    def __init__(self, found):
        self.found, self.sides_px = found, []

    def _in_squares(self, image, squares):
        self.sides_px.append(squares.side_px[0])
        return merge_hands(self.found.get(squares.side_px[0], NO_HANDS))


@pytest.mark.parametrize(
    ("found", "sides_px"),
    [
        ({}, [800, 1200, 1600, 400, 200]),
        ({800: hands(open_hand(size=260))}, [800]),
        ({800: hands(open_hand(size=200))}, [800, 400]),
        ({800: hands(open_hand(size=50))}, [800, 400, 200]),
        ({1200: hands(open_hand(size=300))}, [800, 1200]),
        ({400: hands(open_hand(size=150))}, [800, 1200, 1600, 400]),
    ],
)
def test_search_goes_on_until_no_hand_can_be_missing(found, sides_px):
    detector = Searched(found)
    result = detector(np.zeros((600, 800, 3), np.uint8))
    assert detector.sides_px == sides_px
    assert len(result.presence) == len(found)


def test_a_part_of_a_hand_is_not_another_hand():
    large, part, other = (
        open_hand((x, y), size) for x, y, size in ((0, 0, 200), (60, 60, 80), (300, 0, 80))
    )
    found = merge_hands(hands(large, part, other, presence=[0.9, 0.95, 0.8]))
    np.testing.assert_allclose(found.landmarks_px, [large, other])


def test_hands_left_out_are_counted():
    several = [open_hand((x, 0), size) for x, size in ((0, 15), (500, 150), (1000, 150))]
    detector = Searched({800: hands(*several, presence=[1.0, 0.8, 0.9])})
    result = detector(np.zeros((600, 800, 3), np.uint8), max_hands=1)
    assert (result.too_small, result.too_many) == (1, 1)
    np.testing.assert_allclose(result.landmarks_px, several[2:])


@pytest.mark.parametrize("views", [0, 7])
def test_unknown_number_of_views_is_rejected(views):
    detector, image = Searched({}), np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(UserError, match=f"views={views} must be 1 to 6"):
        detector(image, views=views)
    with pytest.raises(UserError, match=f"views={views} must be 1 to 6"):
        detector.refine(image, np.zeros((0, 21, 2)), views=views)
    with pytest.raises(UserError, match=f"views={views} must be 1 to 6"):
        detector.in_boxes(image, np.zeros((0, 4)), views=views)


@pytest.mark.parametrize("name", NEGATIVES)
def test_drawings_hold_no_hand(name, detector):
    for seed in range(2):
        image = DRAWN[name](np.random.default_rng(seed))
        assert len(detector(image).presence) == 0


@pytest.fixture(scope="session")
def photos(real):
    """(image, landmarks, handedness) of a few photos with one hand each, 300 px wide."""
    labels = json.loads((real / "labels.json").read_text())["photos"]
    chosen = {label["image"]: label["hands"][0] for label in labels if label["image"] in PHOTOS}
    assert len(chosen) == len(PHOTOS)
    result = []
    for name, hand in chosen.items():
        image = cv2.cvtColor(cv2.imread(str(real / "photos" / name)), cv2.COLOR_BGR2RGB)
        zoom = 300 / image.shape[1]
        image = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        result.append((image, (np.array(hand["uv"]) + 0.5) * zoom - 0.5, hand["handedness"]))
    return result


def error(found_px, landmarks_px):
    """Mean distance as a fraction of the hand's box."""
    distance_px = np.linalg.norm(found_px - landmarks_px, axis=-1).mean()
    return distance_px / hand_size_px(landmarks_px[None])[0]


@pytest.mark.parametrize("views", [1, 6])
def test_photos_have_one_hand_of_the_right_side(views, photos, detector):
    for image, landmarks_px, handedness in photos:
        found = detector(image, views=views)
        assert found.landmarks_px.shape == (1, 21, 2)
        assert error(found.landmarks_px[0], landmarks_px) < (0.03 if views == 1 else 0.01)
        assert (found.right_probability[0] > 0.5) == (handedness == "right")
        assert found.presence[0] > 0.9
        assert found.disagreement.mean() < 0.05


def test_mirror_swaps_handedness(photos, detector):
    for image, *_ in photos:
        found = detector(image, views=6)
        mirrored = detector(np.ascontiguousarray(image[:, ::-1]), views=6)
        landmarks_px = mirrored.landmarks_px[0] * [-1, 1] + [image.shape[1] - 1, 0]
        assert error(landmarks_px, found.landmarks_px[0]) < 0.02
        assert (mirrored.right_probability[0] > 0.5) != (found.right_probability[0] > 0.5)
        difference_m = mirrored.joints_rel_m[0] * [-1, 1, 1] - found.joints_rel_m[0]
        assert np.abs(difference_m).mean() < 0.003


def test_rotated_photos_have_rotated_hands(photos, detector):
    for image, *_ in photos:
        found, height = detector(image, views=6), image.shape[0]
        turned = detector(np.ascontiguousarray(np.rot90(image, -1)), views=6)
        x, y = found.landmarks_px[0].T
        assert error(turned.landmarks_px[0], np.stack([height - 1 - y, x], axis=1)) < 0.03
        difference_m = turned.joints_rel_m[0] - found.joints_rel_m[0] @ TURN.T
        assert np.abs(difference_m).mean() < 0.005


TURN = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])  # Clockwise as seen: x becomes y, y is -x.


def test_small_hand_is_found_in_a_tile(photos, detector):
    image, landmarks_px, _ = photos[0]
    zoom = 50 / hand_size_px(landmarks_px[None])[0]
    small = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    canvas = np.full((480, 720, 3), 90, np.uint8)
    canvas[150 : 150 + small.shape[0], 500 : 500 + small.shape[1]] = small
    found = detector(canvas)
    assert len(found.presence) == 1
    expected_px = (landmarks_px + 0.5) * zoom - 0.5 + [500, 150]
    assert error(found.landmarks_px[0], expected_px) < MATCH


def test_refine_follows_moved_hands_row_by_row(photos, detector):
    image, landmarks_px, _ = photos[0]
    size_px = hand_size_px(landmarks_px[None])[0]
    nowhere_px = open_hand((-500, -500), size_px)
    near_px = landmarks_px + 0.1 * size_px
    found = detector.refine(image, np.stack([nowhere_px, near_px]))
    assert found.presence[0] < 0.1
    assert found.presence[1] > 0.9
    assert error(found.landmarks_px[1], landmarks_px) < 0.03
    assert np.isnan(found.disagreement).all()
    assert len(detector.refine(image, np.zeros((0, 21, 2))).presence) == 0


@pytest.mark.parametrize("quarters", [0, 1, 2])
def test_in_boxes_needs_no_direction(quarters, photos, detector):
    image, landmarks_px, _ = photos[0]
    x, y = landmarks_px.T
    for _ in range(quarters):
        x, y, image = y, image.shape[1] - 1 - x, np.ascontiguousarray(np.rot90(image))
    landmarks_px = np.stack([x, y], axis=1)
    low, high = landmarks_px.min(axis=0), landmarks_px.max(axis=0)
    box_px = np.concatenate([low, high - low + 1])
    found = detector.in_boxes(image, np.stack([box_px, box_px + np.array([4, -4, 0, 0])]))
    assert error(found.landmarks_px[0], landmarks_px) < 0.04
    assert error(found.landmarks_px[1], landmarks_px) < 0.04
    assert len(detector.in_boxes(image, np.zeros((0, 4))).presence) == 0


def test_load_uses_given_weights(detector_weights, monkeypatch, tmp_path):
    monkeypatch.setenv("M3DHMR_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match="m3dhmr detector install"):
        HandDetector.load()
    assert jnp.shape(detector_weights.palms[0]) == (5, 5, 3, 32)
