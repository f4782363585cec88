import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.camera import pinhole


@pytest.fixture
def matrix():
    """Rotation by 0.7 rad, scale 1.8, and a shift."""
    linear = 1.8 * np.array([[np.cos(0.7), np.sin(0.7)], [-np.sin(0.7), np.cos(0.7)]])
    return np.concatenate([linear, [[30.0], [-12.0]]], axis=1).astype(np.float32)


@pytest.fixture
def points():
    return np.random.default_rng(0).uniform(0, 224, (9, 2)).astype(np.float32)


def test_apply_affine_matches_matrix_product(points, matrix):
    want = points.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(pinhole.apply_affine(points, matrix), want, rtol=1e-5, atol=1e-4)


def test_invert_affine_is_the_inverse(points, matrix):
    there = pinhole.apply_affine(points, matrix)
    back = pinhole.apply_affine(there, pinhole.invert_affine(matrix))
    np.testing.assert_allclose(back, points, atol=1e-4)


def test_affine_maps_batch_under_vmap_and_jit(points, matrix):
    there_and_back = jax.jit(
        jax.vmap(
            lambda p, m: pinhole.apply_affine(pinhole.apply_affine(p, m), pinhole.invert_affine(m))
        )
    )
    got = there_and_back(jnp.stack([points, 2 * points]), jnp.stack([matrix, 0.5 * matrix]))
    np.testing.assert_allclose(got, [points, 2 * points], atol=1e-3)


@pytest.mark.parity
def test_affine_maps_match_published_crops(reference):
    crops = np.load(reference / "augmentation.npz")
    src = crops["points_src"]
    got = jax.vmap(pinhole.apply_affine)(src, crops["trans"])
    np.testing.assert_allclose(got, crops["points_dst"], atol=1e-3)
    np.testing.assert_allclose(
        jax.vmap(pinhole.invert_affine)(crops["trans"]), crops["inv_trans"], atol=2e-3, rtol=1e-4
    )


def test_rotate_about_optical_axis_is_counter_clockwise():
    right = np.array([[1.0, 0.0, 5.0]], np.float32)
    up = np.array([[0.0, -1.0, 5.0]], np.float32)  # y points down.
    rotated = pinhole.rotate_about_optical_axis(right, jnp.array(np.pi / 2))
    np.testing.assert_allclose(rotated, up, atol=1e-6)


@pytest.mark.parity
def test_rotate_about_optical_axis_matches_published_crops(reference):
    crops = np.load(reference / "augmentation.npz")
    towards = np.concatenate([np.eye(2), np.zeros((2, 1))], 1).astype(np.float32)
    for matrix, degrees, dst, src in zip(
        crops["trans"], crops["rot_deg"], crops["dst_wh"], crops["src_wh"], strict=True
    ):
        rotated = pinhole.rotate_about_optical_axis(towards, jnp.deg2rad(degrees))[:, :2]
        pixels = rotated * (dst / src)[None]
        got = matrix[:, :2].T / np.linalg.norm(matrix[:, :2].T, axis=1, keepdims=True)
        want = pixels / jnp.linalg.norm(pixels, axis=1, keepdims=True)
        np.testing.assert_allclose(got, want, atol=1e-3)


@pytest.fixture
def hand():
    """21 root-relative points, their translation, and K."""
    points = (0.05 * np.random.default_rng(1).normal(size=(21, 3))).astype(np.float32)
    t_m = np.array([0.06, -0.03, 0.7], np.float32)
    intrinsics = np.array([[480.0, 0, 112], [0, 470, 110], [0, 0, 1]], np.float32)
    return points, t_m, intrinsics


def test_project_matches_homogeneous_product(hand):
    points, t_m, intrinsics = hand
    homogeneous = (points + t_m).astype(np.float64) @ intrinsics.T
    want = homogeneous[:, :2] / homogeneous[:, 2:]
    np.testing.assert_allclose(pinhole.project(points + t_m, intrinsics), want, rtol=1e-5)
