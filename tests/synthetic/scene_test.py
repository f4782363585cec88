import numpy as np
import pytest

from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.synthetic.camera import project
from m3dhmr_jax.synthetic.imaging import encode_photo
from m3dhmr_jax.synthetic.raster import FAR_M
from m3dhmr_jax.synthetic.recipe import FULL, QUICKSTART, SIDE_PX, Recipe
from m3dhmr_jax.synthetic.render import draw, mask_of, photograph
from m3dhmr_jax.synthetic.scene import THINGS_MUST_LEAVE, hidden_share, make_kit, sample_scene


@pytest.fixture(scope="module")
def kit():
    return make_kit(load_builtin())


@pytest.fixture(scope="module", params=["full", "quickstart"])
def scenes(request, kit):
    recipe = {"full": FULL, "quickstart": QUICKSTART}[request.param]
    return [sample_scene(np.random.default_rng([7, i]), kit, recipe) for i in range(12)]


def test_joints_come_from_the_labelled_vertices(scenes):
    for scene in scenes:
        want = load_builtin().joint_regressor @ scene.verts_m
        np.testing.assert_allclose(scene.joints_m, want, atol=1e-6)


def test_drawn_hand_starts_with_the_labels(scenes):
    for scene in scenes:
        np.testing.assert_array_equal(scene.body_m[:778], scene.verts_m)


def test_the_mask_is_where_the_labels_project_to(scenes, kit):
    for scene in scenes:
        mask = mask_of(draw(scene, kit.surface), kit.surface)
        uv = project(scene.verts_m.astype(np.float64), scene.intrinsics)
        rows, columns = np.nonzero(mask)
        assert rows.min() >= uv[:, 1].min() - 1
        assert rows.max() <= uv[:, 1].max() + 1
        assert columns.min() >= uv[:, 0].min() - 1
        assert columns.max() <= uv[:, 0].max() + 1


def test_most_of_the_hand_is_seen(scenes, kit):
    for scene in scenes:
        alone = scene._replace(sleeve=None, things=())
        seen = (mask_of(draw(scene, kit.surface), kit.surface) > 0).sum()
        without = (mask_of(draw(alone, kit.surface), kit.surface) > 0).sum()
        assert seen > 0.9 * THINGS_MUST_LEAVE * without
        assert without > 600


def test_points_behind_a_thing_count_as_hidden():
    intrinsics = np.array([[400.0, 0, 112], [0, 400, 112], [0, 0, 1]])
    points = np.array([[0, 0, 0.6], [0, 0, 0.4], [0.1, 0, 0.6], [-0.1, 0, 0.6]])
    depth = np.full((84, 84), FAR_M, np.float32)
    depth[36:48, 36:48] = 0.5
    assert hidden_share(points, intrinsics, depth) == 0.25


def test_hands_lie_inside_the_centred_square_that_evaluation_looks_at(scenes):
    for scene in scenes:
        uv = project(scene.verts_m.astype(np.float64), scene.intrinsics)
        assert np.abs(uv - SIDE_PX / 2).max() < 70


def test_the_same_generator_gives_the_same_photo(kit):
    photos = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        scene = sample_scene(rng, kit, FULL)
        photo, quality = photograph(rng, scene, kit, draw(scene, kit.surface))
        photos.append(encode_photo(photo, quality))
    assert photos[0] == photos[1]


def test_the_hand_stands_out_from_a_black_frame(scenes, kit):
    rng = np.random.default_rng(0)
    photo, _ = photograph(rng, scenes[0], kit, draw(scenes[0], kit.surface))
    mask = mask_of(draw(scenes[0], kit.surface), kit.surface) > 0
    assert photo.shape == (SIDE_PX, SIDE_PX, 3)
    assert 20 < photo[mask].mean() < 250


def test_an_impossible_recipe_is_refused(kit):
    tiny = Recipe(hand_box_px=(4.0, 5.0), root_depth_m=(0.4, 0.41))
    with pytest.raises(ValueError, match="widen"):
        sample_scene(np.random.default_rng(0), kit, tiny)
