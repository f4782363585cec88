import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.math3d import random_rotation
from m3dhmr_jax.synthetic.camera import (
    PALM_VIEW,
    place_hand,
    project,
    sample_intrinsics,
    sample_view,
)
from m3dhmr_jax.synthetic.recipe import FULL, QUICKSTART, SIDE_PX, Recipe


def test_palm_view_shows_the_palm_with_fingers_up_and_thumb_to_the_right():
    hand = np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
    fingers, palm, thumb = hand @ PALM_VIEW.T
    np.testing.assert_allclose(fingers, [0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(palm, [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(thumb, [1, 0, 0], atol=1e-12)


def test_quickstart_views_stay_within_their_tilt_and_show_both_sides():
    rng = np.random.default_rng(0)
    towards_camera = np.array(
        [-(sample_view(rng, QUICKSTART) @ [0, -1.0, 0])[2] for _ in range(400)]
    )
    assert np.abs(towards_camera).min() >= np.cos(np.radians(14)) - 1e-9
    assert 0.4 < (towards_camera > 0).mean() < 0.6


def test_quickstart_turns_in_the_plane_by_at_most_its_limit():
    rng = np.random.default_rng(1)
    fingers = np.array([sample_view(rng, QUICKSTART) @ [-1.0, 0, 0] for _ in range(400)])
    turn_deg = np.degrees(np.arctan2(fingers[:, 0], -fingers[:, 1]))
    assert np.abs(turn_deg).max() < 45 + 3  # Tilting shears the turn a little.
    assert np.abs(turn_deg).max() > 38


def test_projection_of_the_axis_is_the_principal_point():
    intrinsics = sample_intrinsics(np.random.default_rng(2), FULL)
    np.testing.assert_allclose(project(np.array([[0, 0, 0.7]]), intrinsics), [[112, 112]])


def test_placed_hands_fill_the_wanted_part_of_the_picture():
    rng, hand = np.random.default_rng(3), load_builtin()
    for _ in range(40):
        points = hand.verts_m @ random_rotation(rng).T
        intrinsics = sample_intrinsics(rng, FULL)
        shift = place_hand(rng, points, points[0], intrinsics, FULL)
        assert shift is not None
        uv = project(points + shift, intrinsics)
        assert np.abs(uv - SIDE_PX / 2).max() < 65 + 8
        root_depth = (points[0] + shift)[2]
        assert FULL.root_depth_m[0] - 1e-9 <= root_depth <= FULL.root_depth_m[1] + 1e-9


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match="focal_px"):
        Recipe(focal_px=(500.0, 350.0))


def test_a_probability_above_one_is_refused():
    with pytest.raises(ValueError, match="occluder_probability"):
        Recipe(occluder_probability=1.5)
