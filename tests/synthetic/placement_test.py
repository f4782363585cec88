import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.synthetic.camera import is_beyond_border, project
from m3dhmr_jax.synthetic.placement import (
    Placement,
    arm_end_m,
    check_placement,
    lengthen_arm,
    transform_scene,
    try_placement,
    upper_arm_m,
)
from m3dhmr_jax.synthetic.recipe import FULL
from m3dhmr_jax.synthetic.scene import prepare_assets, sample_scene

SIZE_PX = (320, 240)
K = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
MIRROR = np.diag([-1.0, 1.0, 1.0])


def signed_volume(verts_m, faces) -> float:
    centred = verts_m - verts_m.mean(0)
    return float(np.linalg.det(centred[faces]).sum() / 6)


@pytest.fixture(scope="module")
def assets():
    return prepare_assets(load_builtin())


@pytest.fixture(scope="module")
def scene(assets):
    """With a sleeve and an occluder."""
    for seed in range(40):
        scene = sample_scene(np.random.default_rng(seed), assets, FULL)
        if scene.sleeve is not None and scene.occluders:
            return scene
    raise AssertionError


@pytest.fixture(
    scope="module", params=[("right", (90.0, 80.0), 100.0), ("left", (165.0, 112.0), 26.0)]
)
def hand(request, assets):
    placement = Placement(*request.param)
    rng = np.random.default_rng(3)
    tries = (try_placement(rng, assets, FULL, placement, K, SIZE_PX) for _ in range(20))
    return next(hand for hand in tries if hand is not None)


def test_transform_scene_mirrors_points_and_turns_faces_outwards(scene, assets):
    mirrored = transform_scene(scene, MIRROR)
    np.testing.assert_allclose(mirrored.verts_m, scene.verts_m * [-1, 1, 1])
    np.testing.assert_allclose(mirrored.joints_m, scene.joints_m * [-1, 1, 1])
    before, after = scene.occluders[0], mirrored.occluders[0]
    volumes = [signed_volume(each.verts_m, each.faces) for each in (before, after)]
    assert volumes[1] == pytest.approx(volumes[0], rel=1e-4)
    sleeves = [signed_volume(*(each.sleeve or ())) for each in (scene, mirrored)]
    assert sleeves[1] == pytest.approx(sleeves[0], rel=1e-4)


def test_lengthen_arm_moves_its_end_only(scene, assets):
    longer = lengthen_arm(scene, assets.surface, 0.3)
    start_m, end_m = upper_arm_m(scene, assets.surface)
    direction = (end_m - start_m) / np.linalg.norm(end_m - start_m)
    want = arm_end_m(scene, assets.surface) + 0.3 * direction
    np.testing.assert_allclose(arm_end_m(longer, assets.surface), want, atol=1e-5)
    n_hand = len(scene.verts_m)
    np.testing.assert_array_equal(longer.body_m[:n_hand], scene.verts_m)
    moved_m = np.linalg.norm(longer.body_m - scene.body_m, axis=1)
    assert moved_m.max() < 0.3 + 1e-5
    assert longer.sleeve is not None
    assert scene.sleeve is not None
    sleeve_moved_m = np.linalg.norm(longer.sleeve[0] - scene.sleeve[0], axis=1)
    assert sleeve_moved_m.max() == pytest.approx(0.3, abs=2e-3)
    assert (sleeve_moved_m[: len(sleeve_moved_m) // 2] < 1e-6).all()


def test_try_placement_meets_place_and_size(hand):
    x, y, width, height = hand.box_px
    centre = np.array([x + width / 2, y + height / 2])
    size_px = hand.placement.size_px
    assert max(width, height) == pytest.approx(size_px, rel=0.25)
    assert np.abs(centre - hand.placement.centre_px).max() < 0.2 * size_px
    assert min(x, y) >= 0
    assert x + width < SIZE_PX[0]
    assert y + height < SIZE_PX[1]


def test_try_placement_ends_arm_outside_photo(hand):
    end_m = arm_end_m(hand.scene, hand.surface)
    assert is_beyond_border(project(end_m, K), *SIZE_PX)
    assert end_m[:, 2].min() > 0.1


def test_left_hands_are_mirrored_with_their_labels(hand):
    """The volume inside the right hand's faces changes its sign in a mirror."""
    model = load_builtin()
    volume = signed_volume(hand.scene.verts_m, model.faces)
    want = signed_volume(model.verts_m, model.faces)
    is_right = hand.placement.handedness == "right"
    assert (np.sign(volume) == np.sign(want)) == is_right
    joints_m = model.joint_regressor @ hand.scene.verts_m
    np.testing.assert_allclose(hand.scene.joints_m, joints_m, atol=1e-5)
    np.testing.assert_allclose(hand.landmarks_px, project(joints_m, K), atol=0.02)
    own = hand.surface.faces[: hand.surface.n_hand_faces]
    assert np.sign(signed_volume(hand.scene.body_m, own)) == np.sign(want)


@pytest.mark.parametrize(
    ("placement", "text"),
    [
        (Placement("both", (10, 10), 20), "'both'"),
        (Placement("left", (400, 10), 20), r"\(400, 10\).*320 x 240"),
        (Placement("left", (100, 100), 250), r"250 px.*6\.\.240 px"),
        (Placement("left", (100, 100), 3), "3 px"),
    ],
)
def test_check_placement_rejects_what_cannot_fit(placement, text):
    with pytest.raises(UserError, match=text):
        check_placement(placement, SIZE_PX)
