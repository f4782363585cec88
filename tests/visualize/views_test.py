import numpy as np
import pytest

from m3dhmr_jax.visualize.hands import HAND_COLOURS, HandDrawing
from m3dhmr_jax.visualize.views import (
    FROM_ABOVE,
    FROM_THE_SIDE,
    GAP_PX,
    MARGIN_PX,
    RULER_PX,
    draw_views,
)

CAMERA = np.array([[400.0, 0, 200], [0, 400, 100], [0, 0, 1]])
WIDTH, HEIGHT = 600, 400
STRIP_PX = (HEIGHT - RULER_PX - GAP_PX) // 2


def block(centre_m, size_m, colour=(1.0, 0.1, 0.1)) -> HandDrawing:
    """A box in the place of a hand, faces counter-clockwise seen from outside."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    verts_m = np.array(centre_m) + corners * np.array(size_m) / 2
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = np.array([[q[0], q[i], q[i + 1]] for q in quads for i in (1, 2)])
    return HandDrawing(np.zeros((21, 2)), verts_m, faces, colour)


def views(*hands):
    return draw_views(hands, CAMERA, (400, 200), WIDTH, HEIGHT)


def strips(*hands):
    picture = views(*hands)
    return picture[:STRIP_PX], picture[STRIP_PX + GAP_PX : 2 * STRIP_PX + GAP_PX]


def reddish(picture):
    red, green, _ = picture.astype(int).transpose(2, 0, 1)
    return np.nonzero(red > 1.6 * green)


@pytest.mark.parametrize("turn", [FROM_THE_SIDE, FROM_ABOVE])
def test_viewpoints_are_rotations_with_the_distance_to_the_right(turn):
    np.testing.assert_array_equal(turn @ turn.T, np.eye(3))
    assert np.linalg.det(turn) == pytest.approx(1)  # A right hand stays one.
    np.testing.assert_array_equal(turn @ [0.0, 0, 1], [1, 0, 0])


def test_the_side_view_stands_upright_and_the_view_from_above_has_the_photos_right_below():
    np.testing.assert_array_equal(FROM_THE_SIDE @ [0.0, -1, 0], [0, -1, 0])
    np.testing.assert_array_equal(FROM_ABOVE @ [1.0, 0, 0], [0, 1, 0])
    np.testing.assert_array_equal(FROM_ABOVE @ [0.0, 1, 0], [0, 0, 1])  # The eye looks down.


def test_drawings_are_to_scale_and_share_it():
    """A block of 8 x 6 x 12 cm at half a metre, a decimetre below the optical axis."""
    side, above = strips(block([0.02, 0.10, 0.5], [0.08, 0.06, 0.12]))
    side_rows, side_columns = reddish(side)
    above_rows, above_columns = reddish(above)
    per_m = (side_columns.max() - side_columns.min() + 1) / 0.12
    assert np.ptp(side_rows) + 1 == pytest.approx(0.06 * per_m, abs=2)
    assert np.ptp(above_rows) + 1 == pytest.approx(0.08 * per_m, abs=2)
    for columns in (side_columns, above_columns):
        assert columns.min() == pytest.approx(MARGIN_PX + 0.44 * per_m, abs=5)
        assert columns.max() == pytest.approx(MARGIN_PX + 0.56 * per_m, abs=5)


def test_hands_at_any_place_fit_into_the_drawing():
    for centre in ([0.0, 0, 0.2], [0.5, -0.4, 0.4], [-1.0, 0.1, 3.0], [0.0, 0.9, 0.5]):
        for strip in strips(block(centre, [0.1, 0.1, 0.1])):
            rows, columns = reddish(strip)
            assert len(rows) > 9
            assert min(rows.min(), columns.min()) > 0
            assert rows.max() < STRIP_PX - 1
            assert columns.max() < WIDTH - 8


@pytest.mark.parametrize("first", [0, 1])
def test_the_hand_on_the_eyes_side_hides_the_other(first):
    """The eye stands on the right for the side view, and above for the other."""

    def red_pixels(strip, shift_m):
        small, large = [0.04, 0.04, 0.04], [0.08, 0.08, 0.08]
        red = block(np.array([0, 0, 0.5]) + shift_m, small)
        blue = block([0, 0, 0.5], large, (0.1, 0.1, 1.0))
        return len(reddish(strips(*((red, blue) if first else (blue, red)))[strip])[0])

    right, below = np.array([0.1, 0, 0]), np.array([0, 0.1, 0])
    assert red_pixels(0, right) > 300
    assert red_pixels(0, -right) == 0
    assert red_pixels(1, -below) > 300
    assert red_pixels(1, below) == 0


def test_the_ruler_marks_where_each_hand_is():
    colours = HAND_COLOURS[:2]
    places = [
        block([0, 0, z], [0.1, 0.1, 0.1], c) for z, c in zip((0.3, 0.6), colours, strict=True)
    ]
    row = views(*places)[2 * STRIP_PX + GAP_PX + 2].astype(int)
    per_m = (WIDTH - 2 * MARGIN_PX) / 0.65
    for z, colour in zip((0.3, 0.6), colours, strict=True):
        marked = np.nonzero(np.abs(row - 0.75 * 255 * np.array(colour)).max(-1) < 3)[0]
        assert marked.min() == pytest.approx(MARGIN_PX + (z - 0.05) * per_m, abs=3)
        assert marked.max() == pytest.approx(MARGIN_PX + (z + 0.05) * per_m, abs=3)


def test_without_hands_only_the_camera_is_drawn():
    picture = views()
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert (picture[:, : round(MARGIN_PX)] < 100).any()
    assert len(reddish(picture)[0]) == 0


def test_a_grid_line_may_end_up_between_the_last_column_and_the_edge():
    """0.26 px short of it: it is left out."""
    farthest_m = 0.1 * (WIDTH - 2 * MARGIN_PX) * 5 / (WIDTH - 0.26 - MARGIN_PX)
    assert views(block((0, 0, farthest_m - 0.01), (0.02, 0.02, 0.02))).shape == (HEIGHT, WIDTH, 3)
