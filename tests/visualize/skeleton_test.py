import numpy as np
import pytest

from m3dhmr_jax.visualize.skeleton import FINGER_COLOURS, WRIST_COLOUR, draw_skeleton

# Five vertical fingers, the wrist below them.
FAN_PX = np.array(
    [[100.0, 180]] + [[20 + 40 * finger, 120 - 30 * k] for finger in range(5) for k in range(4)]
)


def test_draw_skeleton_colours_fingers():
    image = np.full((200, 200, 3), 128, np.uint8)
    drawn = draw_skeleton(image, FAN_PX, width_px=4.0)
    assert (image == 128).all()  # The input is unchanged.
    np.testing.assert_array_equal(drawn[180, 100], WRIST_COLOUR)
    for finger, colour in enumerate(FINGER_COLOURS):
        for k in range(4):
            np.testing.assert_array_equal(drawn[120 - 30 * k, 20 + 40 * finger], colour)
        np.testing.assert_array_equal(drawn[105, 20 + 40 * finger], colour)
    np.testing.assert_array_equal(drawn[105, 40], 128)  # Nothing between the fingers.


def test_draw_skeleton_is_subpixel_accurate():
    image = np.zeros((200, 200, 3), np.uint8)
    here, there = (draw_skeleton(image, FAN_PX + shift, width_px=4.0) for shift in (0, 0.5))
    column = np.arange(200)[None, :, None]
    centres = [(canvas * column).sum() / canvas.sum() for canvas in (here, there)]
    assert centres[1] - centres[0] == pytest.approx(0.5, abs=0.1)


def test_draw_skeleton_rejects_invalid_landmarks():
    image = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\(21, 2\) and 1 "):
        draw_skeleton(image, np.where(np.arange(42).reshape(21, 2) == 7, np.nan, FAN_PX), 2.0)
    with pytest.raises(ValueError, match=r"\(16, 2\)"):
        draw_skeleton(image, FAN_PX[:16], 2.0)
