import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import resnet18
from m3dhmr_jax.data.appearance import AppearanceConfig, change_pixels, mix_amplitudes
from m3dhmr_jax.data.augment import AugmentConfig, two_views
from m3dhmr_jax.data.fake import fake_batch
from m3dhmr_jax.errors import UserError

NAMES = [field.name for field in dataclasses.fields(AppearanceConfig)]
PLAIN = AugmentConfig(16, **resnet18.get_config().augment)
views_of = jax.jit(two_views, static_argnums=3)


@pytest.fixture(scope="module")
def batch():
    """With the middle of each image covered."""
    batch = fake_batch(4, image_px=48)
    coverage = np.zeros(batch.image.shape[:3], np.uint8)
    coverage[:, 12:36, 12:36] = 255
    return batch._replace(coverage=coverage)


def test_default_config_and_the_papers_change_nothing(batch):
    own = AppearanceConfig(**resnet18.get_config().appearance)
    assert own == AppearanceConfig()
    plain = views_of(batch, jax.random.key(1), 3, PLAIN)
    without = views_of(batch._replace(coverage=None), jax.random.key(1), 3, PLAIN)
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(without), strict=True):
        np.testing.assert_array_equal(one, other)


def test_all_changes_together_alter_the_input_but_no_label(batch):
    everything = AppearanceConfig(**{name: (1.0, 0.3) for name in NAMES})
    config = dataclasses.replace(PLAIN, appearance=everything)
    plain, _ = views_of(batch, jax.random.key(1), 3, PLAIN)
    changed, other = views_of(batch, jax.random.key(1), 3, config)
    again, _ = views_of(batch, jax.random.key(1), 3, config)
    np.testing.assert_array_equal(changed.image, again.image)
    assert (np.abs(plain.image - changed.image).max(axis=(1, 2, 3)) > 0.1).all()
    assert (np.abs(other.image - changed.image).max(axis=(1, 2, 3)) > 0.1).all()
    assert np.abs(changed.image).max() <= 1
    for one, other in zip(plain[1:], changed[1:], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_each_change_has_a_field_of_its_own(name):
    images = jnp.asarray(np.random.default_rng(0).random((2, 16, 16, 3), np.float32))
    keys = jax.random.split(jax.random.key(0), 2)
    config = AppearanceConfig(**{name: (1.0, 0.5)})
    mixed = mix_amplitudes(images, keys, config)
    changed = jax.vmap(lambda image, key: change_pixels(image, key, config))(mixed, keys)
    assert (np.abs(changed - images).max() > 0.02) == (name != "background")


@pytest.mark.parametrize("name", ["gamma", "amplitudes", "background"])
def test_changes_are_as_frequent_as_configured(name):
    batch = fake_batch(150, image_px=32)
    batch = batch._replace(coverage=np.zeros(batch.image.shape[:3], np.uint8))
    changing = dataclasses.replace(PLAIN, appearance=AppearanceConfig(**{name: (0.25, 0.8)}))
    plain, changed = (
        np.concatenate([view.image for view in views_of(batch, jax.random.key(1), 0, config)])
        for config in (PLAIN, changing)
    )
    differs = np.abs(plain - changed).max(axis=(1, 2, 3)) > 1e-3
    assert 0.17 < differs.mean() < 0.33


@pytest.mark.parametrize(
    "value", [(1.5, 0.1), (0.1, -0.1), (0.5,), (0.5, 0.1, 0.1), (0.5, float("nan"))]
)
def test_appearance_config_rejects_what_is_not_two_fractions(value):
    with pytest.raises(UserError, match=r"^appearance\.blur="):
        AppearanceConfig(blur=value)
