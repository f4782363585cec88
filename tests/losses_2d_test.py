import jax
import jax.numpy as jnp
import numpy as np
import pytest

from m3dhmr_jax.losses import gaussian_heatmaps, two_view_terms_2d
from m3dhmr_jax.models.heads import soft_argmax
from m3dhmr_jax.types import LandmarkPrediction, View

SIGMA_CELLS = 1.5
SIDE = 32


def view_of(landmarks_01):
    b = len(landmarks_01)
    return View(
        np.zeros((b, 8, 8, 3)), landmarks_01, np.zeros((b, 4, 3)), np.zeros(b), np.zeros((b, 2, 3))
    )


@pytest.fixture
def landmarks_01():
    """Far enough from the border for complete Gaussians."""
    return np.random.default_rng(0).uniform(0.25, 0.75, (2, 3, 21, 2)).astype(np.float32)


def exact(landmarks_01):
    return LandmarkPrediction(
        gaussian_heatmaps(landmarks_01, SIDE, SIGMA_CELLS), jnp.asarray(landmarks_01)
    )


def loss_terms_fn(preds, landmarks_01, valid=(True, True, True), quality=None):
    views = [view_of(uv) for uv in landmarks_01]
    pairs = preds[0], views[0], preds[1], views[1]
    return two_view_terms_2d(*pairs, np.array(valid), SIGMA_CELLS, quality)


def test_quality_multiplies_the_errors_of_an_example(landmarks_01):
    preds = [exact(uv + 0.1) for uv in landmarks_01]
    full = loss_terms_fn(preds, landmarks_01)
    halved = loss_terms_fn(preds, landmarks_01, quality=np.full(3, 0.5, np.float32))
    for name, term in full.items():
        assert term > 0
        np.testing.assert_allclose(halved[name], term / 2, rtol=1e-5)


def test_gaussian_heatmaps_height_and_width():
    """At the centre of cell (row 4, column 9): x = 9.5 / 32 and y = 4.5 / 32."""
    heatmap = gaussian_heatmaps(np.array([[[9.5, 4.5]]], np.float32) / SIDE, SIDE, SIGMA_CELLS)
    assert heatmap.shape == (1, SIDE, SIDE, 1)
    assert jnp.unravel_index(jnp.argmax(heatmap[0, ..., 0]), (SIDE, SIDE)) == (4, 9)
    np.testing.assert_allclose(heatmap[0, 4, 9, 0], 1)
    np.testing.assert_allclose(
        heatmap[0, 5, 7, 0], np.exp(-(1 + 4) / 2 / SIGMA_CELLS**2), rtol=1e-5
    )


def test_gaussian_heatmaps_agree_with_soft_argmax(landmarks_01):
    heatmaps = gaussian_heatmaps(landmarks_01[0], SIDE, SIGMA_CELLS)
    np.testing.assert_allclose(soft_argmax(jnp.log(heatmaps + 1e-30)), landmarks_01[0], atol=1e-4)


def test_two_view_terms_2d_of_exact_and_blank_predictions(landmarks_01):
    preds = [exact(uv) for uv in landmarks_01]
    terms = loss_terms_fn(preds, landmarks_01)
    assert set(terms) == {"heatmap", "pose2d"}
    np.testing.assert_allclose(list(terms.values()), 0, atol=1e-7)
    blank = [LandmarkPrediction(jnp.zeros_like(p.heatmaps), p.landmarks_01 + 0.1) for p in preds]
    terms = loss_terms_fn(blank, landmarks_01)
    np.testing.assert_allclose(terms["heatmap"], np.pi * SIGMA_CELLS**2 / SIDE**2, rtol=1e-4)
    np.testing.assert_allclose(terms["pose2d"], 0.1, rtol=1e-4)


def test_two_view_terms_2d_weights_both_views_equally(landmarks_01):
    wrong, right = LandmarkPrediction(jnp.ones((3, 8, 8, 21)), jnp.ones((3, 21, 2))), landmarks_01
    both = loss_terms_fn([wrong, wrong], right)
    for preds in ([wrong, None], [None, wrong]):
        halves = [
            LandmarkPrediction(gaussian_heatmaps(uv, 8, SIGMA_CELLS), jnp.asarray(uv))
            if pred is None
            else pred
            for pred, uv in zip(preds, right, strict=True)
        ]
        alone = loss_terms_fn(halves, right)
        assert all(0.3 < alone[name] / both[name] < 0.7 for name in both)


def test_two_view_terms_2d_ignores_padding(landmarks_01):
    """Even if its labels and predictions are NaN."""
    valid = (True, False, True)
    preds = [LandmarkPrediction(jnp.ones((3, 8, 8, 21)), jnp.zeros((3, 21, 2)))] * 2
    spoilt = landmarks_01.copy()
    spoilt[:, 1] = np.nan
    spoilt_preds = jax.tree.map(lambda x: x.at[1].set(jnp.nan), preds)
    want, got = (
        loss_terms_fn(preds, landmarks_01, valid),
        loss_terms_fn(spoilt_preds, spoilt, valid),
    )
    for name, term in want.items():
        np.testing.assert_array_equal(term, got[name])
    grads = jax.grad(lambda preds: sum(loss_terms_fn(preds, spoilt, valid).values()))(spoilt_preds)
    for grad in jax.tree.leaves(grads):
        assert jnp.isfinite(grad).all()
        assert not grad[1].any()
        assert grad[0].any()
