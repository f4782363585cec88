import numpy as np
import pytest

from m3dhmr_jax.visualize.hands import HAND_COLOURS, HandDrawing
from m3dhmr_jax.visualize.views import (
    GAP_PX,
    MARGIN_PX,
    RULER_PX,
    SIDE_VIEW,
    TOP_VIEW,
    draw_views,
)

CAMERA = np.array([[400.0, 0, 200], [0, 400, 100], [0, 0, 1]])
WIDTH, HEIGHT = 600, 400
STRIP_PX = (HEIGHT - RULER_PX - GAP_PX) // 2


def block(centre_m, size_m, colour=(1.0, 0.1, 0.1)) -> HandDrawing:
    """A box instead of a hand, faces counter-clockwise seen from outside."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    verts_m = np.array(centre_m) + corners * np.array(size_m) / 2
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = np.array([[q[0], q[i], q[i + 1]] for q in quads for i in (1, 2)])
    return HandDrawing(np.zeros((21, 2)), verts_m, faces, colour)


def views(*hands):
    return draw_views(hands, CAMERA, (400, 200), WIDTH, HEIGHT)


def strips(*hands):
    canvas = views(*hands)
    return canvas[:STRIP_PX], canvas[STRIP_PX + GAP_PX : 2 * STRIP_PX + GAP_PX]


def reddish(canvas):
    red, green, _ = canvas.astype(int).transpose(2, 0, 1)
    return np.nonzero(red > 1.6 * green)


@pytest.mark.parametrize("rotation", [SIDE_VIEW, TOP_VIEW])
def test_views_are_rotations_with_distance_to_the_right(rotation):
    np.testing.assert_array_equal(rotation @ rotation.T, np.eye(3))
    assert np.linalg.det(rotation) == pytest.approx(1)  # Handedness is preserved.
    np.testing.assert_array_equal(rotation @ [0.0, 0, 1], [1, 0, 0])


def test_side_view_is_upright_and_top_view_looks_down():
    np.testing.assert_array_equal(SIDE_VIEW @ [0.0, -1, 0], [0, -1, 0])
    np.testing.assert_array_equal(TOP_VIEW @ [1.0, 0, 0], [0, 1, 0])
    np.testing.assert_array_equal(TOP_VIEW @ [0.0, 1, 0], [0, 0, 1])  # Into the drawing.


def test_draw_views_is_to_scale():
    """A block of 8 x 6 x 12 cm at half a metre, 10 cm below the optical axis."""
    side, above = strips(block([0.02, 0.10, 0.5], [0.08, 0.06, 0.12]))
    side_rows, side_columns = reddish(side)
    above_rows, above_columns = reddish(above)
    px_per_m = (side_columns.max() - side_columns.min() + 1) / 0.12
    assert np.ptp(side_rows) + 1 == pytest.approx(0.06 * px_per_m, abs=2)
    assert np.ptp(above_rows) + 1 == pytest.approx(0.08 * px_per_m, abs=2)
    for columns in (side_columns, above_columns):
        assert columns.min() == pytest.approx(MARGIN_PX + 0.44 * px_per_m, abs=5)
        assert columns.max() == pytest.approx(MARGIN_PX + 0.56 * px_per_m, abs=5)


def test_draw_views_fits_any_position():
    for centre in ([0.0, 0, 0.2], [0.5, -0.4, 0.4], [-1.0, 0.1, 3.0], [0.0, 0.9, 0.5]):
        for strip in strips(block(centre, [0.1, 0.1, 0.1])):
            rows, columns = reddish(strip)
            assert len(rows) > 9
            assert min(rows.min(), columns.min()) > 0
            assert rows.max() < STRIP_PX - 1
            assert columns.max() < WIDTH - 8


@pytest.mark.parametrize("first", [0, 1])
def test_draw_views_occludes_by_viewpoint(first):
    """The side view looks from the right, the top view from above."""

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


def test_ruler_marks_each_hand():
    colours = HAND_COLOURS[:2]
    hands = [block([0, 0, z], [0.1, 0.1, 0.1], c) for z, c in zip((0.3, 0.6), colours, strict=True)]
    row = views(*hands)[2 * STRIP_PX + GAP_PX + 2].astype(int)
    px_per_m = (WIDTH - 2 * MARGIN_PX) / 0.65
    for z, colour in zip((0.3, 0.6), colours, strict=True):
        marked = np.nonzero(np.abs(row - 0.75 * 255 * np.array(colour)).max(-1) < 3)[0]
        assert marked.min() == pytest.approx(MARGIN_PX + (z - 0.05) * px_per_m, abs=3)
        assert marked.max() == pytest.approx(MARGIN_PX + (z + 0.05) * px_per_m, abs=3)


def test_draw_views_without_hands_shows_camera():
    canvas = views()
    assert canvas.shape == (HEIGHT, WIDTH, 3)
    assert (canvas[:, : round(MARGIN_PX)] < 100).any()
    assert len(reddish(canvas)[0]) == 0


def test_draw_views_skips_grid_line_beyond_last_column():
    """A grid line 0.26 px before the edge would round to a column outside."""
    farthest_m = 0.1 * (WIDTH - 2 * MARGIN_PX) * 5 / (WIDTH - 0.26 - MARGIN_PX)
    assert views(block((0, 0, farthest_m - 0.01), (0.02, 0.02, 0.02))).shape == (HEIGHT, WIDTH, 3)
