import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.math3d import random_rotation
from m3dhmr_jax.synthetic.camera import (
    PALM_VIEW,
    is_beyond_border,
    place_hand,
    project,
    sample_intrinsics,
    sample_view,
)
from m3dhmr_jax.synthetic.recipe import FULL, QUICKSTART, SIDE_PX, Recipe, happens


def test_palm_view_has_fingers_up_and_thumb_right():
    hand = np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
    fingers, palm, thumb = hand @ PALM_VIEW.T
    np.testing.assert_allclose(fingers, [0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(palm, [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(thumb, [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("points", "want"),
    [
        ([[-3, 5], [-1, 20]], True),
        ([[-3, 5], [1, 5]], False),
        ([[5, 60], [9, 70]], True),
        ([[-3, 20], [105, 20]], False),  # Outside, but of both borders: it crosses the image.
    ],
)
def test_is_beyond_border_needs_one_border(points, want):
    assert is_beyond_border(np.array(points, float), width=100, height=50) == want


def test_sample_view_limits_tilt_and_shows_both_sides():
    rng = np.random.default_rng(0)
    towards_camera = np.array(
        [-(sample_view(rng, QUICKSTART) @ [0, -1.0, 0])[2] for _ in range(400)]
    )
    assert np.abs(towards_camera).min() >= np.cos(np.radians(14)) - 1e-9
    assert 0.4 < (towards_camera > 0).mean() < 0.6


def test_sample_view_is_upright_as_often_as_the_recipe_says():
    rng, recipe = np.random.default_rng(4), Recipe(upright_probability=0.8, upright_deg=50.0)
    fingers = np.array([sample_view(rng, recipe) @ [-1.0, 0, 0] for _ in range(800)])
    from_upright_deg = np.abs(np.degrees(np.arctan2(fingers[:, 0], -fingers[:, 1])))
    assert (from_upright_deg <= 50).mean() == pytest.approx(0.8 + 0.2 * 50 / 180, abs=0.04)
    assert from_upright_deg.max() > 150


def test_happens_draws_nothing_for_probability_zero():
    rng, same = np.random.default_rng(0), np.random.default_rng(0)
    assert not happens(rng, 0.0)
    assert rng.random() == same.random()
    assert happens(rng, 1.0)


def test_recipe_rejects_upright_angle_of_zero():
    with pytest.raises(UserError, match=r"upright_deg=0"):
        Recipe(upright_deg=0.0)


def test_sample_view_limits_in_plane_rotation():
    rng = np.random.default_rng(1)
    fingers = np.array([sample_view(rng, QUICKSTART) @ [-1.0, 0, 0] for _ in range(400)])
    in_plane_deg = np.degrees(np.arctan2(fingers[:, 0], -fingers[:, 1]))
    assert np.abs(in_plane_deg).max() < 45 + 3  # Tilt adds a little.
    assert np.abs(in_plane_deg).max() > 38


def test_project_maps_axis_to_principal_point():
    intrinsics = sample_intrinsics(np.random.default_rng(2), FULL)
    np.testing.assert_allclose(project(np.array([[0, 0, 0.7]]), intrinsics), [[112, 112]])


def test_place_hand_respects_box_and_depth():
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


def test_recipe_rejects_empty_range():
    with pytest.raises(UserError, match=r"\(500.0, 350.0\)"):
        Recipe(focal_px=(500.0, 350.0))


def test_recipe_rejects_probability_above_one():
    with pytest.raises(UserError, match=r"1\.5"):
        Recipe(occluder_probability=1.5)
