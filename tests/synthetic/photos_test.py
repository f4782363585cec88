import cv2
import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.synthetic import photos
from m3dhmr_jax.synthetic.lights import sample_lights
from m3dhmr_jax.synthetic.photos import (
    Layers,
    render_photo,
    sample_photo,
    sample_photo_intrinsics,
    sample_placements,
)
from m3dhmr_jax.synthetic.placement import Placement, transform_scene
from m3dhmr_jax.synthetic.scene import prepare_assets
from m3dhmr_jax.visualize.raster import FAR_M, rasterise

SIZE_PX = (240, 180)
PLACEMENTS = (Placement("right", (70.0, 80.0), 80.0), Placement("left", (180.0, 90.0), 60.0))


@pytest.fixture(scope="module")
def assets():
    return prepare_assets(load_builtin())


@pytest.fixture(scope="module")
def photo(assets):
    return sample_photo(np.random.default_rng(2), assets, PLACEMENTS, SIZE_PX)


def mask_of(hand, intrinsics, size_px=SIZE_PX):
    """Where the labelled mesh projects."""
    faces = hand.surface.faces[: hand.surface.n_hand_faces]
    fragments = rasterise(hand.scene.body_m, faces, intrinsics, size_px[0], size_px[1], 1)
    return fragments.face >= 0


def test_sample_photo_covers_labelled_meshes(photo):
    assert photo.image.shape == (180, 240, 3)
    for hand in photo.hands:
        inner = cv2.erode(mask_of(hand, photo.intrinsics).astype(np.uint8), np.ones((3, 3))) > 0
        assert inner.sum() > 300
        assert (photo.coverage[inner] == 255).mean() > 0.99
    assert (photo.coverage == 0).mean() > 0.3


def test_sample_photo_keeps_order_and_sides(photo):
    assert tuple(hand.placement for hand in photo.hands) == PLACEMENTS


def test_sample_photo_is_deterministic(assets, photo):
    again = sample_photo(np.random.default_rng(2), assets, PLACEMENTS, SIZE_PX)
    np.testing.assert_array_equal(again.image, photo.image)
    np.testing.assert_array_equal(again.hands[1].scene.verts_m, photo.hands[1].scene.verts_m)


def test_hands_do_not_hide_each_other(assets):
    """Also where arms must cross a photo full of hands."""
    size_px = (160, 120)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        placements = sample_placements(rng, 4, size_px, (0.15, 0.3))
        intrinsics = sample_photo_intrinsics(rng, placements, size_px)
        hands = photos.place_hands(rng, assets, placements, intrinsics, size_px)
        for a in hands:
            alone = mask_of(a, intrinsics, size_px)
            own, _ = photos._depth_maps(a, size_px)
            assert alone.sum() > 50
            for b in hands:
                if b is not a:
                    _, whole = photos._depth_maps(b, size_px)
                    assert (whole < own)[own < FAR_M].mean() <= 0.05 + 1e-6


def test_nearer_hand_hides_farther_one_in_any_order(photo):
    near = photo.hands[0]
    far = near._replace(scene=transform_scene(near.scene, 1.5 * np.eye(3)))
    depths = []
    for hands in ((near,), (near, far), (far, near)):
        layers = Layers(
            np.full((360, 480), FAR_M, np.float32),
            np.full((360, 480), -1, np.int32),
            np.zeros((360, 480, 3), np.float32),
        )
        for hand in hands:
            lights = sample_lights(np.random.default_rng(0))
            photos._add_hand(np.random.default_rng(0), layers, hand, lights, 2)
        depths.append(layers.depth_m)
    inside = depths[0] < FAR_M
    np.testing.assert_array_equal(depths[1][inside], depths[0][inside])
    np.testing.assert_array_equal(depths[2], depths[1])


def test_photo_without_hands_is_background(assets):
    photo = sample_photo(np.random.default_rng(0), assets, (), (180, 240))
    assert photo.image.shape == (240, 180, 3)
    assert photo.hands == ()
    assert not photo.coverage.any()
    assert photo.image.std() > 1


def test_photo_is_the_same_scene_at_another_sampling(photo, monkeypatch):
    rendered = []
    for limit in (photos.MAX_SUPERSAMPLED_PX, 0):
        monkeypatch.setattr(photos, "MAX_SUPERSAMPLED_PX", limit)
        rng = np.random.default_rng(8)
        rendered.append(render_photo(rng, photo.hands, photo.intrinsics, SIZE_PX))
    fine, coarse = (each.coverage.astype(float) for each in rendered)
    assert np.abs(fine - coarse).mean() < 5
    difference = rendered[0].image.astype(float) - rendered[1].image
    assert np.abs(difference).mean() < 12


def test_sample_placements_keeps_boxes_apart_and_inside():
    for seed in range(20):
        places = sample_placements(np.random.default_rng(seed), 4, SIZE_PX)
        low = np.array([np.array(p.centre_px) - p.size_px / 2 for p in places])
        high = np.array([np.array(p.centre_px) + p.size_px / 2 for p in places])
        assert (low > 0).all()
        assert (high < SIZE_PX).all()
        for a in range(4):
            for b in range(a):
                assert ((high[a] <= low[b] + 1e-9) | (high[b] <= low[a] + 1e-9)).any()
        assert sorted(p.handedness for p in places) == ["left", "left", "right", "right"]


def test_sample_placements_rejects_too_many_hands():
    with pytest.raises(UserError, match="9 hands of at least 50%"):
        sample_placements(np.random.default_rng(0), 9, SIZE_PX, (0.5, 0.6))


def test_intrinsics_keep_large_hands_at_a_distance():
    close_up = (Placement("right", (120.0, 90.0), 150.0),)
    focal_px = sample_photo_intrinsics(np.random.default_rng(0), close_up, SIZE_PX)[0, 0]
    assert focal_px * 0.17 / 150 >= 0.3 - 1e-9


def test_place_hands_names_hands_that_cannot_be_arranged(assets, monkeypatch):
    monkeypatch.setattr(photos, "ARRANGEMENT_TRIES", 1)
    same = (Placement("right", (120.0, 90.0), 80.0),) * 2
    with pytest.raises(UserError, match=r"hands of 80, 80 px .* 240 x 180"):
        sample_photo(np.random.default_rng(0), assets, same, SIZE_PX)
