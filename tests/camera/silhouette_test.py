import jax
import numpy as np
import pytest

from m3dhmr_jax.camera.mesh_extent import mesh_extent_px
from m3dhmr_jax.camera.silhouette import DIRECTIONS, silhouette_extent

K = np.array([[400.0, 0, 30], [0, 410, 28], [0, 0, 1]], np.float32)


@pytest.fixture
def mask():
    rng = np.random.default_rng(0)
    mask = np.zeros((50, 60), bool)
    mask[12:30, 15:44] = rng.random((18, 29)) < 0.1
    return mask


def test_silhouette_extent_matches_all_pixels(mask):
    y, x = np.nonzero(mask)
    want = (DIRECTIONS @ np.stack([x, y])).max(axis=1)
    extent = silhouette_extent(mask)
    np.testing.assert_allclose(extent.px, want, atol=1e-4)
    assert extent.is_visible.all()


def test_directions_are_unit_and_symmetric():
    np.testing.assert_allclose(np.linalg.norm(DIRECTIONS, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(DIRECTIONS, -np.roll(DIRECTIONS, len(DIRECTIONS) // 2, 0), atol=1e-6)


def test_silhouette_extent_is_hidden_beyond_the_border(mask):
    mask[20, 0:20] = True
    extent = silhouette_extent(mask)
    assert not extent.is_visible[np.argmin(DIRECTIONS[:, 0])]  # To the left.
    assert extent.is_visible[np.argmax(DIRECTIONS[:, 0])]
    np.testing.assert_array_equal(extent.px[~extent.is_visible], 0)


@pytest.mark.parametrize("is_hand", [False, True])
def test_silhouette_extent_of_constant_mask_is_hidden(is_hand):
    extent = silhouette_extent(np.full((50, 60), is_hand))
    assert not extent.is_visible.any()
    np.testing.assert_array_equal(extent.px, 0)


def test_mesh_extent_matches_projection_and_is_differentiable():
    verts = (0.04 * np.random.default_rng(1).normal(size=(60, 3))).astype(np.float32)
    t_m = np.array([0.02, -0.01, 0.6], np.float32)
    projected = (verts + t_m) @ K.T
    want = (DIRECTIONS @ (projected[:, :2] / projected[:, 2:]).T).max(axis=1)

    @jax.jit
    def extent_px(t_m):
        return mesh_extent_px(verts, t_m, K)

    np.testing.assert_allclose(extent_px(t_m), want, atol=1e-3)
    jacobian = jax.jit(jax.jacfwd(extent_px))(t_m)
    step = np.array([0, 0, 1e-3], np.float32)
    ahead, behind = (extent_px(t_m + s) for s in (step, -step))
    np.testing.assert_allclose(jacobian[:, 2], (ahead - behind) / 2e-3, rtol=0.03, atol=0.5)
