import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.camera.silhouette import DIRECTIONS, mask_reach, mesh_reach_px

K = np.array([[400.0, 0, 30], [0, 410, 28], [0, 0, 1]], np.float32)


@pytest.fixture
def mask():
    rng = np.random.default_rng(0)
    mask = np.zeros((50, 60), bool)
    mask[12:30, 15:44] = rng.random((18, 29)) < 0.1
    return mask


def test_a_masks_reach_is_that_of_its_pixels(mask):
    y, x = np.nonzero(mask)
    want = (DIRECTIONS @ np.stack([x, y])).max(axis=1)
    reach = mask_reach(mask)
    np.testing.assert_allclose(reach.px, want, atol=1e-4)
    assert np.asarray(reach.is_seen).all()


def test_directions_go_all_the_way_round():
    np.testing.assert_allclose(np.linalg.norm(DIRECTIONS, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(DIRECTIONS, -np.roll(DIRECTIONS, len(DIRECTIONS) // 2, 0), atol=1e-6)


def test_where_the_mask_leaves_the_picture_nothing_is_seen(mask):
    mask[20, 0:20] = True
    reach = mask_reach(mask)
    is_seen = np.asarray(reach.is_seen)
    assert not is_seen[np.argmin(DIRECTIONS[:, 0])]  # To the left.
    assert is_seen[np.argmax(DIRECTIONS[:, 0])]
    np.testing.assert_array_equal(np.asarray(reach.px)[~is_seen], 0)


def test_an_empty_mask_is_seen_nowhere(mask):
    reach = mask_reach(np.zeros_like(mask))
    assert not np.asarray(reach.is_seen).any()
    assert np.isfinite(reach.px).all()


def test_a_meshs_reach_is_that_of_its_projection_and_moves_with_it():
    verts = (0.04 * np.random.default_rng(1).normal(size=(60, 3))).astype(np.float32)
    t_m = np.array([0.02, -0.01, 0.6], np.float32)
    seen = (verts + t_m) @ K.T
    want = (DIRECTIONS @ (seen[:, :2] / seen[:, 2:]).T).max(axis=1)
    np.testing.assert_allclose(mesh_reach_px(verts, jnp.asarray(t_m), K), want, atol=1e-3)
    slope = jax.jacfwd(lambda t_m: mesh_reach_px(verts, t_m, K))(jnp.asarray(t_m))
    step = np.array([0, 0, 1e-3], np.float32)
    ahead, behind = (mesh_reach_px(verts, jnp.asarray(t_m + s), K) for s in (step, -step))
    np.testing.assert_allclose(slope[:, 2], (ahead - behind) / 2e-3, rtol=0.03, atol=0.5)
