import dataclasses

import jax
import numpy as np
import pytest

from configs import resnet18
from m3dhmr_jax.data.appearance import AppearanceConfig
from m3dhmr_jax.data.augment import AugmentConfig, two_views
from m3dhmr_jax.data.background import exchange_background, random_background
from m3dhmr_jax.data.crop import crop_from_box, sample_mirrored, warp

STILL = dict.fromkeys(("brightness", "contrast", "saturation", "hue", "shift"), 0.0)
PLAIN = AugmentConfig(32, **{**resnet18.get_config().augment, **STILL})
EXCHANGED = dataclasses.replace(PLAIN, appearance=AppearanceConfig(background=(1.0, 0.0)))
views_of = jax.jit(two_views, static_argnums=3)


@pytest.fixture(scope="module")
def batch(hand_batch):
    """Each image has a colour of its own; a disc is covered."""
    image = np.zeros((4, 224, 224, 3), np.uint8)
    image[:] = np.array([[200, 10, 10], [10, 200, 10], [10, 10, 200], [200, 200, 10]])[
        :, None, None
    ]
    y, x = np.mgrid[:224, :224]
    disc = 255 * (np.hypot(x - 112, y - 105) < 45)
    return hand_batch._replace(image=image, coverage=np.stack([disc.astype(np.uint8)] * 4))


def test_covered_pixels_stay_and_others_are_the_previous_image(batch):
    plain, _ = views_of(batch, jax.random.key(0), 0, PLAIN)
    exchanged, _ = views_of(batch, jax.random.key(0), 0, EXCHANGED)
    for i in range(4):
        covered = warp(
            batch.coverage[i][..., None], np.linalg.inv(
                np.vstack([plain.img_from_crop[i], [0, 0, 1]])
            )[:2].astype(np.float32), 32,
        )[..., 0]  # fmt: skip
        inside, outside = np.asarray(covered) > 0.95, np.asarray(covered) < 0.05
        assert inside.sum() > 50
        assert outside.sum() > 50
        np.testing.assert_array_equal(exchanged.image[i][inside], plain.image[i][inside])
        other = batch.image[(i - 1) % 4, 0, 0] / 255 * 2 - 1
        np.testing.assert_allclose(
            exchanged.image[i][outside], np.tile(other, (outside.sum(), 1)), atol=1e-5
        )


def test_images_whose_coverage_is_complete_keep_their_background(batch):
    known = batch._replace(coverage=np.full_like(batch.coverage, 255))
    small = dataclasses.replace(PLAIN, scale=0.5, scale_jitter=0.0)  # Inside of the image.
    exchanging = dataclasses.replace(small, appearance=EXCHANGED.appearance)
    plain, _ = views_of(known, jax.random.key(0), 0, small)
    exchanged, _ = views_of(known, jax.random.key(0), 0, exchanging)
    np.testing.assert_array_equal(exchanged.image, plain.image)


def test_edge_between_hand_and_background_is_soft():
    coverage = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    mixed = exchange_background(np.ones((64, 64, 3)), coverage, np.zeros((64, 64, 3)))[0, :, 0]
    assert (np.diff(mixed) >= 0).all()
    assert np.sum((mixed > 0) & (mixed < 1)) > 30
    assert mixed[0] == 0
    assert mixed[-1] == 1


def test_random_backgrounds_are_mostly_beside_the_hand():
    image = np.zeros((224, 224, 3), np.uint8)
    image[80:140, 70:150] = 255  # The hand.
    box = np.array([70, 80, 80, 60], np.float32)
    keys = jax.random.split(jax.random.key(0), 200)
    shown = jax.vmap(lambda key: random_background(key, image, box, 16))(keys)
    share = np.asarray(shown).mean(axis=(1, 2, 3))
    assert share.mean() < 0.15
    centres = np.asarray(shown)[:, 6:10, 6:10].mean(axis=(1, 2, 3))
    assert centres.mean() < 0.25
    assert len(np.unique(share)) > 30


def test_sample_mirrored_reads_the_nearest_pixel_and_mirrors_outside():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    everything = crop_from_box(
        np.array([15.0, 10.0]), np.full(2, 90.0), np.full(2, 90.0), 0.0
    )  # From 30 px left of the image and 35 px above it.
    got = np.asarray(sample_mirrored(image, everything, 90)) * 255
    wide = np.concatenate([image[:, ::-1], image, image[:, ::-1]], axis=1)
    padded = np.pad(image, ((35, 35), (30, 30), (0, 0)), mode="symmetric")
    np.testing.assert_allclose(got, padded, atol=1e-3)
    np.testing.assert_allclose(got[35:55], wide, atol=1e-3)
