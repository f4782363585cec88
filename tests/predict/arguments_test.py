import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.arguments import (
    check_box_array,
    check_camera,
    check_image,
    check_landmarks,
    check_one_side,
)
from m3dhmr_jax.predict.candidates import check_handedness
from m3dhmr_jax.predict.tracking import Tracker
from tests.predict.fake_predictor import SHAPE_PX, FakePredictor, K

IMAGE = np.zeros((48, 64, 3), np.uint8)


class Pillow:
    """What distinguishes an image of Pillow."""

    def __init__(self, mode, shape=(48, 64, 3)):
        self.mode, self.shape = mode, shape

    def __array__(self, dtype=None, copy=None):
        return np.zeros(self.shape, np.uint8)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "is None: .* cv2.imread returns None"),
        ("a.jpg", "'a.jpg': .* read the file first"),
        (b"a.jpg", "read the file first"),
        (Path("a.jpg"), "a.jpg.*: .* read the file first"),
        (Pillow("P"), r"mode 'P': use image.convert\(\"RGB\"\)"),
        (Pillow("CMYK", (48, 64, 4)), "'CMYK'"),
        (IMAGE.transpose(2, 0, 1), r"\(3, 48, 64\) .*transpose\(1, 2, 0\)"),
        (IMAGE[None], r"\(1, 48, 64, 3\).* one image at a time"),
        (IMAGE / 255 + 0.5, r"float64.* 0 to 1: use \(255 \* image\)"),
        (IMAGE + 99.0, "float64"),
        (IMAGE.astype(np.uint16), "16-bit"),
        ([[1, 2], [3]], "not an array of numbers"),
        ({}, r"shape|type|object"),
        (5, r"\(\)|int64"),
        (np.zeros((0, 0), np.uint8), r"\(0, 0\)"),
    ],
)
def test_check_image_says_what_to_do(image, message):
    with pytest.raises(UserError, match=message):
        check_image(image)
    with pytest.raises(UserError, match=message):
        Tracker(FakePredictor(), None, None)(image, 0, 0.0, K)


def test_check_image_takes_images_of_other_libraries():
    for image in (Pillow("RGB"), memoryview(IMAGE)):
        assert check_image(image).shape == IMAGE.shape
    with pytest.warns(UserWarning, match="one channel"):
        assert check_image(Pillow("L", (48, 64))).shape == IMAGE.shape


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ({}, r"boxes are \{\}: they must be numbers of shape \(hands, 4\)"),
        ("1,2,3,4", "'1,2,3,4'"),
        ([[1, 2, 3, 4], [1, 2]], "boxes are"),
        ([1, 2, 3], r"\(3,\)"),
        (5, r"shape \(\)"),
        ([[1, 2, 3, 4, 5]], r"\(1, 5\)"),
        ([1, 2, np.nan, 4], "must be finite"),
        ([1, 2, np.inf, 4], "must be finite"),
        ([1, 2, -3, 4], "at least 1 px"),
        ([1, 2, 1e9, 1e9], "10 times as large"),
        ([1e9, 2, 3, 4], "outside the image"),
    ],
)
def test_check_box_array_says_what_to_do(boxes, message):
    with pytest.raises(UserError, match=message):
        check_box_array(boxes, 64, 48)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([500, 400, 630, 470], "96% of its area .*: they look like corners"),
        ([-20, 0, 30, 30], "67% of its area .* px: boxes are"),
        ([630, 470, 500, 400], "px: boxes are"),
    ],
)
def test_a_box_that_lies_mostly_outside_gives_a_warning(box, message):
    with pytest.warns(UserWarning, match=message):
        check_box_array(box, 640, 480)


@pytest.mark.parametrize("box", [[-14, 0, 30, 30], [0, 0, 640, 480], [-100, -60, 800, 600]])
def test_a_box_may_reach_outside(box):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_box_array(box, 640, 480)


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        ({}, r"landmarks are \{\}"),
        (SHAPE_PX[:20], r"\(1, 20, 2\)"),
        (np.zeros((21, 3)), r"\(1, 21, 3\)"),
        (SHAPE_PX * np.nan, "finite"),
        ((SHAPE_PX + 50) / 100, "not fractions of it"),
        (SHAPE_PX + 1e9, "must be pixels of the image of 64 x 48 px"),
    ],
)
def test_check_landmarks_says_what_to_do(landmarks, message):
    with pytest.raises(UserError, match=message):
        check_landmarks(landmarks, 64, 48)


@pytest.mark.parametrize("handedness", [1, "Right", True, [1], [["right"]], {"right": 1}, b"left"])
def test_sides_are_words(handedness):
    with pytest.raises(UserError, match=re.escape(f"handedness={handedness!r}")):
        check_handedness(handedness, 1)
    with pytest.raises(UserError, match=re.escape(f"handedness={handedness!r}")):
        check_one_side(handedness)
    with pytest.raises(UserError, match=re.escape(f"handedness={handedness!r}")):
        Tracker(FakePredictor(), None, handedness)


def test_sides_have_the_number_of_the_boxes():
    with pytest.raises(UserError, match="2 entries for 3 boxes"):
        check_handedness(["right", "left"], 3)
    assert check_handedness(np.array(["right", "left"]), 2) == ("right", "left")


def test_cameras_are_checked():
    with pytest.warns(UserWarning, match="scale K with the image"):
        check_camera(K, 320, 240)
    with pytest.raises(UserError, match=r"K is \{\}"):
        check_camera({}, 320, 240)
    tracker = Tracker(FakePredictor(), None, None)
    with pytest.warns(UserWarning, match="scale K with the image"):
        tracker(np.zeros((240, 320, 3), np.uint8), 0, 0.0, K)
    with pytest.raises(UserError, match="no camera"):
        tracker(np.zeros((240, 320, 3), np.uint8), 1, 0.1, np.eye(3))
