import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.synthetic.camera import project
from m3dhmr_jax.synthetic.imaging import encode_image
from m3dhmr_jax.synthetic.recipe import FULL, NATURAL, RECIPES, SIDE_PX, Recipe
from m3dhmr_jax.synthetic.render import (
    rasterise_scene,
    render_image,
    visible_coverage,
    visible_hand_mask,
)
from m3dhmr_jax.synthetic.scene import (
    OCCLUDERS_MIN_VISIBLE,
    hidden_fraction,
    prepare_assets,
    sample_scene,
)
from m3dhmr_jax.visualize.raster import FAR_M


@pytest.fixture(scope="module")
def assets():
    return prepare_assets(load_builtin())


@pytest.fixture(scope="module", params=["full", "natural", "quickstart"])
def scenes(request, assets):
    recipe = RECIPES[request.param]
    return [sample_scene(np.random.default_rng([7, i]), assets, recipe) for i in range(12)]


def mask_of(scene, assets):
    return visible_hand_mask(rasterise_scene(scene, assets.surface), assets.surface) > 0


def test_scene_joints_are_regressed_from_vertices(scenes):
    for scene in scenes:
        want = load_builtin().joint_regressor @ scene.verts_m
        np.testing.assert_allclose(scene.joints_m, want, atol=1e-6)


def test_scene_body_starts_with_label_vertices(scenes):
    for scene in scenes:
        np.testing.assert_array_equal(scene.body_m[:778], scene.verts_m)


def test_visible_hand_mask_lies_within_projection(scenes, assets):
    for scene in scenes:
        mask = mask_of(scene, assets)
        uv = project(scene.verts_m.astype(np.float64), scene.intrinsics)
        rows, columns = np.nonzero(mask)
        assert rows.min() >= uv[:, 1].min() - 1
        assert rows.max() <= uv[:, 1].max() + 1
        assert columns.min() >= uv[:, 0].min() - 1
        assert columns.max() <= uv[:, 0].max() + 1


def test_sample_scene_leaves_hand_visible(scenes, assets):
    for scene in scenes:
        alone = scene._replace(sleeve=None, occluders=())
        visible, without = (mask_of(each, assets).sum() for each in (scene, alone))
        assert visible > 0.9 * OCCLUDERS_MIN_VISIBLE * without
        assert without > 600


def test_visible_coverage_contains_hand_and_reaches_border(scenes, assets):
    """The arm always leaves the image, and its edges are soft."""
    for scene in scenes:
        raster = rasterise_scene(scene, assets.surface)
        coverage = visible_coverage(raster)
        assert (coverage[visible_hand_mask(raster, assets.surface) > 0] > 127).all()
        border = np.concatenate([coverage[[0, -1]].ravel(), coverage[:, [0, -1]].ravel()])
        assert border.max() == 255
        assert ((coverage > 0) & (coverage < 255)).sum() > 50


def test_hidden_fraction_counts_points_behind_depth():
    intrinsics = np.array([[400.0, 0, 112], [0, 400, 112], [0, 0, 1]])
    points = np.array([[0, 0, 0.6], [0, 0, 0.4], [0.1, 0, 0.6], [-0.1, 0, 0.6]])
    depth = np.full((84, 84), FAR_M, np.float32)
    depth[36:48, 36:48] = 0.5
    assert hidden_fraction(points, intrinsics, depth) == 0.25


def test_sample_scene_centres_hand(scenes):
    for scene in scenes:
        uv = project(scene.verts_m.astype(np.float64), scene.intrinsics)
        assert np.abs(uv - SIDE_PX / 2).max() < 70


def test_sample_scene_puts_a_bottle_between_fingers_and_palm(assets):
    """Its axis is nearer to the palm and to the fingertips than a finger is long."""
    recipe, held = Recipe(grip_probability=1.0), 0
    for seed in range(6):
        scene = sample_scene(np.random.default_rng(seed), assets, recipe)
        if not scene.occluders:  # It would always have hidden too much.
            continue
        held += 1
        start, stop = (
            scene.occluders[0].verts_m[rows].mean(0) for rows in (slice(32), slice(-32, None))
        )
        along = (stop - start) / np.linalg.norm(stop - start)
        for joint in (8, 12, 16, 9):
            offset = scene.joints_m[joint] - start
            distance_m = np.linalg.norm(offset - (offset @ along) * along)
            assert 0.01 < distance_m < 0.065
    assert held >= 3


@pytest.mark.parametrize("recipe", [FULL, NATURAL])
def test_render_image_is_deterministic(assets, recipe):
    images = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        scene = sample_scene(rng, assets, recipe)
        raster = rasterise_scene(scene, assets.surface)
        image, quality = render_image(rng, scene, assets, raster, recipe)
        images.append(encode_image(image, quality))
    assert images[0] == images[1]


def test_render_image_exposes_hand(scenes, assets):
    rng = np.random.default_rng(0)
    image, _ = render_image(rng, scenes[0], assets, rasterise_scene(scenes[0], assets.surface))
    mask = mask_of(scenes[0], assets)
    assert image.shape == (SIDE_PX, SIDE_PX, 3)
    assert 20 < image[mask].mean() < 250


def test_sample_scene_rejects_impossible_recipe(assets, monkeypatch):
    monkeypatch.setattr("m3dhmr_jax.synthetic.scene.SCENE_TRIES", 5)
    tiny = Recipe(hand_box_px=(4.0, 5.0), root_depth_m=(0.4, 0.41))
    with pytest.raises(UserError, match=r"\(4.0, 5.0\)"):
        sample_scene(np.random.default_rng(0), assets, tiny)
