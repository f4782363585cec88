import numpy as np
import pytest

from m3dhmr_jax.visualize.skeleton import FINGER_COLOURS, WRIST_COLOUR, draw_skeleton

# Five rising columns, the wrist below them.
FAN_PX = np.array(
    [[100.0, 180]] + [[20 + 40 * finger, 120 - 30 * k] for finger in range(5) for k in range(4)]
)


def test_each_landmark_and_bone_wears_its_fingers_colour():
    photo = np.full((200, 200, 3), 128, np.uint8)
    drawn = draw_skeleton(photo, FAN_PX, width_px=4.0)
    assert (photo == 128).all()  # The photo itself is left alone.
    np.testing.assert_array_equal(drawn[180, 100], WRIST_COLOUR)
    for finger, colour in enumerate(FINGER_COLOURS):
        for k in range(4):
            np.testing.assert_array_equal(drawn[120 - 30 * k, 20 + 40 * finger], colour)
        np.testing.assert_array_equal(drawn[105, 20 + 40 * finger], colour)
    np.testing.assert_array_equal(drawn[105, 40], 128)  # Nothing between the fingers.


def test_half_a_pixel_moves_the_drawing():
    photo = np.zeros((200, 200, 3), np.uint8)
    here, there = (draw_skeleton(photo, FAN_PX + shift, width_px=4.0) for shift in (0, 0.5))
    column = np.arange(200)[None, :, None]
    centres = [(picture * column).sum() / picture.sum() for picture in (here, there)]
    assert centres[1] - centres[0] == pytest.approx(0.5, abs=0.1)


def test_landmarks_that_are_missing_are_refused():
    photo = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match="1 of its numbers"):
        draw_skeleton(photo, np.where(np.arange(42).reshape(21, 2) == 7, np.nan, FAN_PX), 2.0)
    with pytest.raises(ValueError, match=r"\(16, 2\)"):
        draw_skeleton(photo, FAN_PX[:16], 2.0)
