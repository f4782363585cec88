import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import resnet18
from m3dhmr_jax.camera.pinhole import apply_affine, project, rotate_about_optical_axis
from m3dhmr_jax.data.augment import (
    AugmentConfig,
    augmented_view,
    eval_view,
    mask_box,
    random_crop,
    two_views,
    upright_box,
)
from m3dhmr_jax.data.crop import crop_from_box, max_shift, warp
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict import crops
from m3dhmr_jax.types import MESH_UNIT_M, Batch

CONFIG = AugmentConfig(128, **resnet18.get_config().augment)
NO_COLOR = dataclasses.replace(CONFIG, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
CENTRED = dataclasses.replace(NO_COLOR, scale_jitter=0.0, rotation_probability=0.0, shift=0.0)


def smooth_image(height: int, width: int) -> np.ndarray:
    """Two ramps and a wave: bilinear sampling of it is nearly exact."""
    y, x = np.mgrid[:height, :width]
    wave = 127 + 100 * np.sin(x / 31) * np.cos(y / 23)
    return np.stack([x * 255 / width, y * 255 / height, wave], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = np.random.default_rng(0)
    intrinsics = np.array([[480, 0, 112], [0, 470, 110], [0, 0, 1]], np.float32)
    centre = np.array([0.02, -0.03, 0.6], np.float32)
    verts_m = (centre + rng.uniform(-0.06, 0.06, (4, 778, 3))).astype(np.float32)
    uv = verts_m @ intrinsics.T
    uv = uv[..., :2] / uv[..., 2:]
    low, high = uv.min(1), uv.max(1)
    return Batch(
        image=np.stack([smooth_image(224, 224)] * 4),
        intrinsics=np.stack([intrinsics] * 4),
        joints_m=verts_m[:, :21],
        verts_m=verts_m,
        bbox_px=np.concatenate([low, high - low], 1).astype(np.float32),
        index=np.arange(4, dtype=np.int32),
        valid=np.ones(4, bool),
    )


@pytest.fixture(scope="module")
def views(batch):
    return jax.jit(lambda batch, step: two_views(batch, jax.random.key(3), step, NO_COLOR))(
        batch, 5
    )


@pytest.fixture(scope="module")
def draw(batch):
    """Both views with random colors, by step; compiled once."""
    return jax.jit(lambda step: two_views(batch, jax.random.key(7), step, CONFIG))


@pytest.mark.parity
def test_crop_from_box_matches_published_code(reference):
    case = np.load(reference / "augmentation.npz")
    box_wh = case["src_wh"] * case["scale"][:, None]
    # Without a size to keep inside, the published code does not shift the crop.
    keep_wh = np.where(np.isnan(case["shift_wh"]), box_wh, case["shift_wh"])
    for i in range(len(box_wh)):
        offset = case["shift"][i] * np.asarray(max_shift(box_wh[i], keep_wh[i]))
        np.testing.assert_allclose(offset / box_wh[i], case["shift_out"][i], atol=1e-6)
        crop_from_img = np.asarray(
            crop_from_box(
                (case["centre"][i] + offset).astype(np.float32),
                box_wh[i].astype(np.float32),
                case["dst_wh"][i],
                jnp.float32(np.radians(case["rot_deg"][i])),
            )
        )
        largest = np.abs(case["trans"][i]).max()
        np.testing.assert_allclose(crop_from_img, case["trans"][i], atol=2e-5 * largest)
        points = np.asarray(apply_affine(case["points_src"][i], crop_from_img))
        largest = np.abs(case["points_dst"][i]).max()
        np.testing.assert_allclose(points, case["points_dst"][i], atol=2e-5 * largest)
        inverse = cv2.invertAffineTransform(crop_from_img)
        largest = np.abs(case["inv_trans"][i]).max()
        np.testing.assert_allclose(inverse, case["inv_trans"][i], atol=2e-5 * largest)


@pytest.mark.parametrize("angle_deg", [0.0, 37.0, -120.0])
def test_warp_matches_opencv_including_the_border(angle_deg):
    image = np.random.default_rng(1).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    crop_from_img = crop_from_box(
        jnp.array([20.0, 60.0]), jnp.full(2, 100.0), jnp.full(2, 64.0), jnp.radians(angle_deg)
    )
    want = cv2.warpAffine(image.astype(np.float32), np.asarray(crop_from_img), (64, 64)) / 255
    np.testing.assert_allclose(warp(image, crop_from_img, 64), want, atol=5e-4)


def test_positive_angle_rotates_content_counter_clockwise():
    image = np.zeros((64, 64, 3), np.uint8)
    image[32, 52] = 255  # Right of the centre.
    crop_from_img = crop_from_box(
        jnp.full(2, 32.0), jnp.full(2, 64.0), jnp.full(2, 64.0), jnp.float32(np.pi / 2)
    )
    crop = np.asarray(warp(image, crop_from_img, 64))
    assert np.unravel_index(crop[..., 0].argmax(), (64, 64)) == (12, 32)  # Now above it.


def test_views_show_the_image_at_img_from_crop(batch, views):
    at = np.stack(np.meshgrid(np.arange(128), np.arange(128)), -1).reshape(-1, 2)
    for view in views:
        for i in range(4):
            image_px = np.asarray(apply_affine(at.astype(np.float32), view.img_from_crop[i]))
            inside = ((image_px > 1) & (image_px < 222)).all(1)
            colors = (np.asarray(view.image[i]).reshape(-1, 3) + 1) / 2 * 255
            x, y = image_px[inside].T
            np.testing.assert_allclose(colors[inside, 0], x * 255 / 224, atol=1.5)
            np.testing.assert_allclose(colors[inside, 1], y * 255 / 224, atol=1.5)


def test_landmarks_of_both_views_agree_in_the_image(batch, views):
    for i in range(4):
        want = project(batch.joints_m[i], batch.intrinsics[i])
        for view in views:
            back = apply_affine(view.landmarks_01[i] * 128, view.img_from_crop[i])
            np.testing.assert_allclose(back, want, atol=2e-3)


def test_vertices_rotate_with_the_image(batch, views):
    """Steps along x and y in the image plane are rotated alike in the crop and in the labels."""
    for view in views:
        for i in range(4):
            offsets = (batch.verts_m[i] - batch.joints_m[i, :1])[:, :2] / MESH_UNIT_M
            linear = np.linalg.inv(np.asarray(view.img_from_crop[i])[:, :2])
            rotation = linear / np.sqrt(np.linalg.det(linear))
            np.testing.assert_allclose(view.verts[i, :, :2], offsets @ rotation.T, atol=1e-4)
            np.testing.assert_allclose(
                view.verts[i, :, 2], (batch.verts_m[i] - batch.joints_m[i, 0])[:, 2] / MESH_UNIT_M,
                atol=1e-6,
            )  # fmt: skip
            assert np.isclose(np.cos(view.angle_rad[i]), rotation[0, 0], atol=1e-4)
            assert np.isclose(np.sin(view.angle_rad[i]), rotation[0, 1], atol=1e-4)


def test_random_crop_keeps_the_hand_inside():
    config = dataclasses.replace(CENTRED, scale=1.5, shift=1.0, rotation_probability=1.0)
    bbox_px = np.array([40, 70, 90, 60], np.float32)
    corners = bbox_px[:2] + bbox_px[2:] * np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    keys = jax.random.split(jax.random.key(0), 300)
    maps, angles = jax.jit(jax.vmap(lambda key: random_crop(key, mask_box(bbox_px), config)))(keys)
    placed = np.asarray(jax.vmap(lambda matrix: apply_affine(corners, matrix))(maps))
    assert placed.min() > -1e-3
    assert placed.max() < 128 + 1e-3
    assert placed.min() < 3  # The crop is shifted up to the hand.
    assert np.abs(angles).max() > 1.4


def test_random_crop_covers_the_configured_range():
    config = dataclasses.replace(CENTRED, scale_jitter=0.2, rotation_probability=0.6)
    bbox_px = np.array([50, 50, 100, 80], np.float32)
    keys = jax.random.split(jax.random.key(1), 2000)
    maps, angles = jax.jit(jax.vmap(lambda key: random_crop(key, mask_box(bbox_px), config)))(keys)
    sides = 128 / np.sqrt(np.linalg.det(np.asarray(maps)[:, :, :2])) / 100
    assert 1.1 <= sides.min() < 1.11
    assert 1.49 < sides.max() <= 1.5001
    assert abs(np.mean(angles != 0) - 0.6) < 0.04
    assert 1.55 < np.abs(angles).max() <= np.pi / 2


UPRIGHT = dataclasses.replace(CENTRED, upright=True)


def crop_matrices(batch, config):
    """The maps and angles of crops that are cut upright."""

    def one(joints_m, verts_m, intrinsics):
        return random_crop(jax.random.key(0), upright_box(joints_m, verts_m, intrinsics), config)

    return jax.jit(jax.vmap(one))(batch.joints_m, batch.verts_m, batch.intrinsics)


def test_upright_crops_are_those_of_prediction(hand_batch):
    """In which hands of any direction point upwards."""
    maps, angles = crop_matrices(hand_batch, UPRIGHT)
    verts_px, joints_px = (
        np.stack([project(m, k) for m, k in zip(points_m, hand_batch.intrinsics, strict=True)])
        for points_m in (hand_batch.verts_m, hand_batch.joints_m)
    )
    direction_rad = crops.hand_directions(joints_px)
    for i, crop_px in enumerate(crops.crops_of_points(verts_px, direction_rad)):
        want = crops.crop_matrix(crop_px, 128, direction_rad[i])
        np.testing.assert_allclose(maps[i], want, atol=2e-3)
        wrist, middle = apply_affine(joints_px[i][[0, 9]], maps[i])
        assert abs(wrist[0] - middle[0]) < 0.05
        assert wrist[1] > middle[1]
    np.testing.assert_allclose(angles, -direction_rad, atol=1e-4)


def test_labels_of_upright_and_stretched_crops_follow_the_image(batch):
    """Landmarks are where the image shows them, and meshes have the crop's rotation and stretch."""
    config = dataclasses.replace(
        NO_COLOR, upright=True, max_angle_deg=30.0, rotation_probability=1.0, stretch=0.2
    )
    views = jax.jit(lambda batch: two_views(batch, jax.random.key(3), 5, config))(batch)
    stretches = []
    for view in views:
        for i in range(4):
            want = project(batch.joints_m[i], batch.intrinsics[i])
            back = apply_affine(view.landmarks_01[i] * 128, view.img_from_crop[i])
            np.testing.assert_allclose(back, want, atol=5e-3)
            linear = np.linalg.inv(np.asarray(view.img_from_crop[i])[:, :2])
            linear /= np.sqrt(np.linalg.det(linear))
            verts = (batch.verts_m[i] - batch.joints_m[i, :1]) / MESH_UNIT_M
            np.testing.assert_allclose(view.verts[i, :, :2], verts[:, :2] @ linear.T, atol=1e-4)
            np.testing.assert_allclose(view.verts[i, :, 2], verts[:, 2], atol=1e-5)
            stretches.append(np.linalg.svd(linear)[1][0])
    stretches = np.array(stretches).reshape(2, 4)
    assert stretches.max() < np.exp(0.2)
    assert stretches.max() > 1.05
    np.testing.assert_allclose(*stretches, rtol=1e-4)  # Both views are of one stretched image.
    turned = jax.vmap(rotate_about_optical_axis)(
        views[0].verts, views[1].angle_rad - views[0].angle_rad
    )
    np.testing.assert_allclose(turned, views[1].verts, atol=1e-4)


def test_upright_crops_deviate_from_upright_as_configured(hand_batch):
    config = dataclasses.replace(UPRIGHT, max_angle_deg=20.0, rotation_probability=1.0)
    box = upright_box(hand_batch.joints_m[0], hand_batch.verts_m[0], hand_batch.intrinsics[0])
    keys = jax.random.split(jax.random.key(0), 300)
    _, angles = jax.jit(jax.vmap(lambda key: random_crop(key, box, config)))(keys)
    tilts_deg = np.degrees(np.asarray(angles + box.direction_rad))
    assert 19 < np.abs(tilts_deg).max() <= 20.1
    assert abs(tilts_deg.mean()) < 2


def test_augmented_view_without_randomness_equals_eval_view(batch):
    centred = batch._replace(bbox_px=np.tile(np.float32([62, 62, 100, 100]), (4, 1)))
    keys = jax.random.split(jax.random.key(0), 4)
    trained = jax.jit(lambda batch: augmented_view(batch, keys, CENTRED))(centred)
    evaluated = jax.jit(eval_view)(centred)
    for name, one, other in zip(trained._fields, trained, evaluated, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4, err_msg=name)


def test_eval_view_keeps_its_ratio_in_other_images(batch):
    large = batch._replace(image=np.zeros((4, 448, 600, 3), np.uint8))
    corners = np.array([[0, 0], [128, 128]], np.float32)
    placed = apply_affine(corners, jax.jit(eval_view)(large).img_from_crop[0])
    np.testing.assert_allclose(placed, [[170, 94], [430, 354]], atol=1e-3)


def test_two_views_are_a_function_of_key_and_step(draw):
    first, again, later = draw(4), draw(4), draw(5)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    maps = np.concatenate([np.asarray(view.img_from_crop) for view in (*first, *later)])
    assert len(np.unique(maps, axis=0)) == 16  # Two steps, two views, four examples.


def test_two_views_normalise_the_image(draw):
    view, _ = draw(0)
    assert view.image.dtype == jnp.float32
    assert -1 <= view.image.min() < -0.5
    assert 0.5 < view.image.max() <= 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("size", 0), ("scale_jitter", 1.3), ("max_angle_deg", 200.0)),
        *(("stretch", 0.6), ("shift", 1.5), ("hue", 0.6)),
    ],
)
def test_augment_config_rejects_values_out_of_range(field, value):
    with pytest.raises(UserError, match=f"augment.{field}={value}"):
        dataclasses.replace(CONFIG, **{field: value})
