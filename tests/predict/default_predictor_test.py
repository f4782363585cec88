"""The predictor without arguments, on a rendered photo of one large hand."""

import cv2
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.candidates import Landmarks
from m3dhmr_jax.predict.fit_method import FitMethod
from m3dhmr_jax.predict.images import read_image
from m3dhmr_jax.predict.predictor import HandMeshPredictor
from m3dhmr_jax.synthetic import write_photos
from m3dhmr_jax.visualize.overlay import scale_intrinsics
from tests.negatives import DRAWN


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    """Image, K and the true hand."""
    folder = tmp_path_factory.mktemp("photos")
    row = write_photos(folder, count=2, seed=1, size_px=(480, 360))[1]
    image = read_image(folder / row["file"]).image
    return image, np.array(row["K"]), row["hands"][0]


@pytest.fixture(scope="session")
def predictor(detector):
    return HandMeshPredictor(FitMethod(load_builtin()), detector)


def size_px(hands):
    return np.ptp(hands.landmarks_px[0], axis=0).max()


def aligned_m(verts_m):
    return verts_m - verts_m.mean(axis=0)


def test_a_hand_is_found_and_fitted(predictor, photo):
    image, k, truth = photo
    hands = predictor(image, K=k)
    assert hands.method == "fit"
    assert hands.handedness == (truth["handedness"],)
    assert hands.is_left.tolist() == [truth["handedness"] == "left"]
    assert hands.verts_m.shape == (1, 778, 3)
    error_px = np.linalg.norm(hands.landmarks_px[0] - truth["landmarks_px"], axis=1).mean()
    assert error_px < 0.15 * size_px(hands)
    assert hands.pose is not None
    assert hands.pose.rotations.shape == (1, 16, 3, 3)
    assert not hands.camera_is_assumed


def test_mirrored_candidates_give_the_mirrored_hand(predictor, photo):
    image, k, _ = photo
    width = image.shape[1]
    candidates = predictor.find(image)
    x, y, side, _ = candidates.crop_px[0]
    landmarks = candidates.landmarks
    mirrored = candidates._replace(
        crop_px=np.array([[width - x - side, y, side, side]]),
        direction_rad=-candidates.direction_rad,
        handedness=({"right": "left", "left": "right"}[candidates.handedness[0]],),
        landmarks=Landmarks(
            landmarks.landmarks_px * [-1, 1] + [width - 1, 0],
            landmarks.joints_rel_m * [-1, 1, 1],
            landmarks.disagreement,
        ),
    )
    mirrored_k = k.copy()
    mirrored_k[0, 2] = width - 1 - k[0, 2]
    want = predictor.predict(image, candidates, k)
    got = predictor.predict(image[:, ::-1], mirrored, mirrored_k)
    np.testing.assert_allclose(got.verts_m, want.verts_m * [-1, 1, 1], atol=1e-6)
    np.testing.assert_array_equal(got.faces, want.faces[..., ::-1])


def test_scaling_image_and_k_together_keeps_the_hand(predictor, photo):
    image, k, _ = photo
    large = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    want, got = predictor(image, K=k), predictor(large, K=scale_intrinsics(k, 2.0))
    np.testing.assert_allclose(got.root_m, want.root_m, atol=0.02)
    difference_m = aligned_m(got.verts_m[0]) - aligned_m(want.verts_m[0])
    assert np.linalg.norm(difference_m, axis=1).mean() < 0.006


def test_rotating_the_photo_rotates_the_hand(predictor, photo):
    """By a quarter turn, counter-clockwise on the screen."""
    image, k, _ = photo
    width = image.shape[1]
    turned_k = np.array([[k[1, 1], 0, k[1, 2]], [0, k[0, 0], width - 1 - k[0, 2]], [0, 0, 1]])
    want, got = predictor(image, K=k), predictor(np.rot90(image).copy(), K=turned_k)
    rotation = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    assert got.handedness == want.handedness
    turn_rad = got.direction_rad[0] - want.direction_rad[0]
    assert abs(np.angle(np.exp(1j * (turn_rad - np.pi / 2)))) < 0.15
    difference_m = aligned_m(got.verts_m[0]) - aligned_m(want.verts_m[0] @ rotation.T)
    assert np.linalg.norm(difference_m, axis=1).mean() < 0.012


def test_given_landmarks_are_fitted_in_freihands_convention(predictor, photo):
    image, k, truth = photo
    landmarks_px = np.array(truth["landmarks_px"])
    hands = predictor(image, handedness=truth["handedness"], K=k, landmarks=landmarks_px)
    projected = hands.joints_m[0] @ k.T
    error_px = np.linalg.norm(projected[:, :2] / projected[:, 2:] - landmarks_px, axis=1)
    assert error_px.mean() < 0.02 * size_px(hands)
    np.testing.assert_allclose(hands.landmarks_px[0], landmarks_px, rtol=1e-5)


def test_a_box_without_a_direction_is_enough(predictor, photo):
    image, k, truth = photo
    hands = predictor(image, truth["bbox_px"], K=k)
    error_px = np.linalg.norm(hands.landmarks_px[0] - truth["landmarks_px"], axis=1).mean()
    assert error_px < 0.15 * size_px(hands)


def test_an_image_without_hands_gives_none(predictor):
    hands = predictor(DRAWN["text"](np.random.default_rng(0)))
    assert hands.handedness == ()
    assert hands.verts_m.shape == (0, 778, 3)


def test_one_side_applies_to_all_hands_that_are_found(predictor, photo):
    image, _, _ = photo
    assert predictor(image, handedness="left").handedness == ("left",)
    with pytest.raises(UserError, match="one side"):
        predictor(image, handedness=["left"])
