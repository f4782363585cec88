import cv2
import jax
import numpy as np
import pytest
import simplejpeg

from m3dhmr_jax.data import effects

SIZE = 32
KEYS = jax.random.split(jax.random.key(0), 32)
PIXEL_EFFECTS = (
    effects.change_gamma,
    effects.change_white_balance,
    effects.make_grey,
    effects.cut_out,
    effects.add_band,
    effects.add_noise,
)
FILTERS = (effects.blurring, effects.sharpening, effects.resampling)


def photo(seed: int = 0) -> np.ndarray:
    """Blotches of many sizes, in [0.1, 0.9]."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.normal(size=(n, n, 3)), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        for n in (2, 4, 8, 16, 32)
    ]
    image = sum(layers)
    return (0.1 + 0.8 * (image - image.min()) / np.ptp(image)).astype(np.float32)


PHOTO = photo()


def many(effect, strength, image=PHOTO):
    """The effect with all keys."""
    return np.asarray(jax.jit(jax.vmap(lambda key: effect(key, image, strength)))(KEYS))


def many_filtered(matrix, strength, image=PHOTO):
    def effect(key, image, strength):
        return effects.filtered(image, matrix(key, SIZE, strength))

    return many(effect, strength, image)


def detail(images):
    """The mean size of the Laplacian."""
    images = np.asarray(images)
    inner = images[..., 1:-1, 1:-1, :] * 4
    neighbours = (
        images[..., :-2, 1:-1, :]
        + images[..., 2:, 1:-1, :]
        + images[..., 1:-1, :-2, :]
        + images[..., 1:-1, 2:, :]
    )
    return np.abs(inner - neighbours).mean(axis=(-1, -2, -3))


@pytest.mark.parametrize("effect", PIXEL_EFFECTS)
def test_effect_without_strength_changes_nothing(effect):
    np.testing.assert_allclose(many(effect, 0.0)[0], PHOTO, atol=2e-6)


@pytest.mark.parametrize("matrix", FILTERS)
def test_filter_without_strength_changes_nothing(matrix):
    np.testing.assert_allclose(many_filtered(matrix, 0.0)[0], PHOTO, atol=2e-6)


@pytest.mark.parametrize("effect", [*PIXEL_EFFECTS, effects.compress])
def test_effect_changes_more_with_more_strength_and_stays_an_image(effect):
    weak, strong = many(effect, 0.1), many(effect, 0.9)
    assert 0 < np.abs(weak - PHOTO).mean() < 0.5 * np.abs(strong - PHOTO).mean()
    assert strong.shape == (len(KEYS), SIZE, SIZE, 3)
    assert strong.min() >= 0
    assert strong.max() <= 1


@pytest.mark.parametrize("effect", [e for e in PIXEL_EFFECTS if e is not effects.make_grey])
def test_effect_differs_from_key_to_key(effect):
    distinct = np.unique(many(effect, 0.8).reshape(len(KEYS), -1), axis=0)
    assert len(distinct) > 0.8 * len(KEYS)  # Bands are whole pixels wide, so some are alike.


def test_gamma_keeps_black_and_white():
    image = np.zeros((8, 8, 3), np.float32)
    image[:4] = 1
    np.testing.assert_allclose(many(effects.change_gamma, 1.0, image)[0], image, atol=0.01)


def test_white_balance_scales_each_colour():
    image = np.full((8, 8, 3), 0.5, np.float32)
    gains = many(effects.change_white_balance, 0.2, image)[:, 0, 0] / 0.5
    assert np.exp(-0.2) <= gains.min() < 0.83
    assert 1.2 < gains.max() <= np.exp(0.2) + 1e-6
    assert np.abs(gains[:, 0] - gains[:, 2]).mean() > 0.05


def test_full_grey_has_no_colour():
    grey = many(effects.make_grey, 1.0)[0]
    np.testing.assert_allclose(np.ptp(grey, axis=-1), 0, atol=1e-6)
    want = cv2.cvtColor(PHOTO, cv2.COLOR_RGB2GRAY)
    np.testing.assert_allclose(grey[..., 0], want, atol=1e-3)


def test_cutout_covers_a_rectangle_of_the_drawn_size():
    for changed in np.any(many(effects.cut_out, 0.5) != PHOTO, axis=-1):
        rows, columns = np.nonzero(changed.any(1))[0], np.nonzero(changed.any(0))[0]
        for hit in (rows, columns):
            assert SIZE / 8 - 1 <= np.ptp(hit) + 1 <= SIZE / 2 + 1
        inside = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert inside.mean() > 0.97  # Pixels that are by chance as before.


def test_bands_are_black_and_along_every_side():
    black = np.all(many(effects.add_band, 0.5) == 0, axis=-1)
    assert 0.4 < black.mean(axis=(1, 2)).max() <= 0.5
    sides = [black[:, 0].all(1), black[:, -1].all(1), black[:, :, 0].all(1), black[:, :, -1].all(1)]
    assert all(2 < np.sum(side) < 20 for side in sides)


def test_blur_removes_detail_and_keeps_the_mean():
    weak, strong = many_filtered(effects.blurring, 0.3), many_filtered(effects.blurring, 0.9)
    assert detail(strong).mean() < detail(weak).mean() < 0.85 * detail(PHOTO)
    assert np.abs(strong.mean(axis=(1, 2)) - PHOTO.mean(axis=(0, 1))).max() < 0.03


def test_blur_is_a_gaussian():
    matrix = np.asarray(effects._gaussian(SIZE, 2.0))
    want = cv2.GaussianBlur(PHOTO, (0, 0), 2.0)
    inner = slice(10, -10)  # Borders are treated in another way.
    got = np.asarray(effects.filtered(PHOTO, matrix))
    np.testing.assert_allclose(got[inner, inner], want[inner, inner], atol=2e-3)


def test_sharpening_adds_detail():
    assert detail(many_filtered(effects.sharpening, 0.8)).mean() > 1.05 * detail(PHOTO)


def test_resampling_removes_detail_and_does_not_move_the_image():
    changed = many_filtered(effects.resampling, 0.7)
    assert detail(changed).mean() < 0.7 * detail(PHOTO)
    ramp = np.broadcast_to(
        np.linspace(0.2, 0.8, SIZE, dtype=np.float32)[:, None, None], (SIZE, SIZE, 3)
    )
    moved = np.asarray(
        jax.vmap(lambda key: effects.filtered(ramp, effects.resampling(key, SIZE, 0.7)))(KEYS)
    )
    inner = slice(8, -8)
    np.testing.assert_allclose(moved[:, inner], np.stack([ramp[inner]] * len(KEYS)), atol=4e-3)


def test_noise_has_the_drawn_deviation_and_is_nearly_normal():
    grey = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    noise = many(effects.add_noise, 0.05, grey) - 0.5
    deviations = noise.std(axis=(1, 2, 3))
    assert deviations.min() < 0.005
    assert 0.045 < deviations.max() < 0.051
    assert np.abs(noise.mean(axis=(1, 2, 3)) / deviations).max() < 0.05
    normal = noise / deviations[:, None, None, None]
    assert abs(np.mean(np.abs(normal) < 1) - 0.683) < 0.02
    neighbours = (
        np.mean(normal[:, 1:] * normal[:, :-1]),
        np.mean(normal[..., 1:] * normal[..., :-1]),
    )
    assert np.abs(neighbours).max() < 0.01
    assert abs(np.mean(normal[0] * normal[1])) < 0.03


def test_compression_matches_a_jpeg_library():
    """At the quality that a key draws, about the error of that library, and the same blocks."""
    compress = jax.jit(effects.compress, static_argnums=2)
    for key in KEYS[:4]:
        quality = 100 * (1 - 0.8 * float(jax.random.uniform(key)))
        ours = np.asarray(compress(key, PHOTO, 0.8))
        encoded = simplejpeg.encode_jpeg(
            (PHOTO * 255 + 0.5).astype(np.uint8), quality=round(quality), colorsubsampling="444"
        )
        theirs = simplejpeg.decode_jpeg(encoded) / 255
        assert np.abs(ours - theirs).mean() < 0.3 * np.abs(theirs - PHOTO).mean() + 2 / 255


def test_mixed_amplitudes_are_those_of_the_previous_crop_and_phases_stay():
    images = np.stack([photo(0), photo(1), photo(2)]) * 0.5 + 0.25
    mixed = np.asarray(effects.mix_amplitudes(KEYS[:3], images, 0.5))
    before, after = np.fft.rfft2(images, axes=(1, 2)), np.fft.rfft2(mixed, axes=(1, 2))
    fraction = 0.5 * np.asarray(jax.vmap(jax.random.uniform)(KEYS[:3]))[:, None, None, None]
    want = np.abs(before) ** (1 - fraction) * np.abs(np.roll(before, 1, axis=0)) ** fraction
    clear = want > 1
    np.testing.assert_allclose(np.abs(after)[clear], want[clear], rtol=0.02)
    turned = np.abs(np.angle(after[clear] / before[clear]))
    assert np.median(turned) < 1e-3
    unchanged = effects.mix_amplitudes(KEYS[:3], images, 0.0)
    np.testing.assert_allclose(unchanged, images, atol=1e-5)
