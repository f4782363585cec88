import colorsys

import jax
import numpy as np
import pytest

from m3dhmr_jax.data.color import LUMA, adjust_color, jitter_color


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.3, 0.6, (16, 16, 3)).astype(np.float32)


def grey(image):
    return np.asarray(image) @ np.array(LUMA)


def test_adjust_color_with_neutral_factors_is_identity(crop):
    np.testing.assert_allclose(adjust_color(crop, 1.0, 1.0, 1.0, 0.0), crop, atol=1e-6)


def test_adjust_color_brightness_scales(crop):
    np.testing.assert_allclose(adjust_color(crop, 1.3, 1.0, 1.0, 0.0), 1.3 * crop, atol=1e-6)


def test_adjust_color_contrast_scales_distance_to_middle_grey(crop):
    changed = np.asarray(adjust_color(crop, 1.0, 0.6, 1.0, 0.0))
    np.testing.assert_allclose(changed - 0.5, 0.6 * (crop - 0.5), atol=1e-6)


def test_adjust_color_without_saturation_is_grey(crop):
    changed = np.asarray(adjust_color(crop, 1.0, 1.0, 0.0, 0.0))
    np.testing.assert_allclose(changed, np.repeat(grey(crop)[..., None], 3, -1), atol=1e-6)


def test_adjust_color_by_a_third_of_hue_permutes_channels(crop):
    changed = adjust_color(crop, 1.0, 1.0, 1.0, 1 / 3)
    np.testing.assert_allclose(changed, np.roll(crop, 1, -1), atol=1e-6)


def test_adjust_color_hue_follows_hsv():
    skin = np.full((2, 2, 3), [0.7, 0.5, 0.4], np.float32)
    changed = np.asarray(adjust_color(skin, 1.0, 1.0, 1.0, 0.1))
    before, after = (colorsys.rgb_to_hsv(*image[0, 0])[0] for image in (skin, changed))
    assert 0.07 < after - before < 0.13


def test_adjust_color_clips_to_0_and_1(crop):
    assert adjust_color(crop, 3.0, 2.0, 2.0, 0.2).max() == 1
    assert adjust_color(crop, 1.0, 9.0, 1.0, 0.0).min() == 0


def test_jitter_color_depends_on_strength_and_key(crop):
    still = jitter_color(crop, jax.random.key(0), 0.0, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(still, crop, atol=1e-6)
    draws = [jitter_color(crop, jax.random.key(i), 0.4, 0.4, 0.4, 0.05) for i in (0, 1)]
    assert np.abs(draws[0] - draws[1]).max() > 0.02
