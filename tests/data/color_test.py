import colorsys

import jax
import numpy as np
import pytest

from m3dhmr_jax.data.color import LUMA, change_colour, jitter_colour


@pytest.fixture(scope="module")
def crop() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.3, 0.6, (16, 16, 3)).astype(np.float32)


def grey(image):
    return np.asarray(image) @ np.array(LUMA)


def test_neutral_factors_change_nothing(crop):
    np.testing.assert_allclose(change_colour(crop, 1.0, 1.0, 1.0, 0.0), crop, atol=1e-6)


def test_brightness_scales(crop):
    np.testing.assert_allclose(change_colour(crop, 1.3, 1.0, 1.0, 0.0), 1.3 * crop, atol=1e-6)


def test_contrast_scales_the_distance_to_middle_grey(crop):
    changed = np.asarray(change_colour(crop, 1.0, 0.6, 1.0, 0.0))
    np.testing.assert_allclose(changed - 0.5, 0.6 * (crop - 0.5), atol=1e-6)


def test_no_saturation_leaves_the_grey_of_each_pixel(crop):
    changed = np.asarray(change_colour(crop, 1.0, 1.0, 0.0, 0.0))
    np.testing.assert_allclose(changed, np.repeat(grey(crop)[..., None], 3, -1), atol=1e-6)


def test_a_third_of_a_turn_of_hue_passes_the_channels_on(crop):
    changed = change_colour(crop, 1.0, 1.0, 1.0, 1 / 3)
    np.testing.assert_allclose(changed, np.roll(crop, 1, -1), atol=1e-6)


def test_hue_turns_the_way_of_the_colour_circle():
    skin = np.full((2, 2, 3), [0.7, 0.5, 0.4], np.float32)
    changed = np.asarray(change_colour(skin, 1.0, 1.0, 1.0, 0.1))
    before, after = (colorsys.rgb_to_hsv(*image[0, 0])[0] for image in (skin, changed))
    assert 0.07 < after - before < 0.13


def test_result_stays_between_black_and_white(crop):
    assert change_colour(crop, 3.0, 2.0, 2.0, 0.2).max() == 1
    assert change_colour(crop, 1.0, 9.0, 1.0, 0.0).min() == 0


def test_strength_zero_changes_nothing_and_strength_changes_each_key_differently(crop):
    still = jitter_colour(crop, jax.random.key(0), 0.0, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(still, crop, atol=1e-6)
    draws = [jitter_colour(crop, jax.random.key(i), 0.4, 0.4, 0.4, 0.05) for i in (0, 1)]
    assert np.abs(draws[0] - draws[1]).max() > 0.02
