import numpy as np
import pytest

from m3dhmr_jax.synthetic import shading
from m3dhmr_jax.synthetic.backgrounds import KINDS, drop_shadow, sample_background
from m3dhmr_jax.synthetic.color import linear_rgb, srgb
from m3dhmr_jax.synthetic.imaging import (
    SHOULDER,
    CameraResponse,
    apply_camera_response,
    auto_exposure,
    pixel_coverage,
)
from m3dhmr_jax.synthetic.lights import Lights, render_shadow_map
from m3dhmr_jax.synthetic.occluders import grid_faces, superquadric
from m3dhmr_jax.synthetic.skin import sample_skin
from m3dhmr_jax.visualize.raster import rasterise, vertex_normals

K = np.array([[200.0, 0, 32], [0, 200, 32], [0, 0, 1]])
IDEAL_CAMERA = CameraResponse(
    exposure=1.0, contrast=1.0, blur_px=0.0, noise_01=0.0, jpeg_quality=90
)


def lit_balls(light_direction, centres):
    """Matt grey balls of 3 cm under one light and dim ambient light."""
    ball = superquadric(np.full(3, 0.03), 1.0, 1.0)
    points = np.concatenate([ball + centre for centre in centres]).astype(np.float32)
    faces = np.concatenate([grid_faces() + i * len(ball) for i in range(len(centres))])
    materials = np.zeros((len(points), shading.N_ATTRIBUTES), np.float32)
    materials[:, :3] = vertex_normals(points, faces)
    materials[:, shading.ALBEDO : shading.ALBEDO + 3] = 0.5
    dim = np.full(3, 0.1, np.float32)
    direction = np.array([light_direction], np.float32)
    lights = Lights(
        direction / np.linalg.norm(direction), np.ones((1, 3), np.float32), dim, dim, 1.0
    )
    fragments = rasterise(points, faces, K, 64, 64, 1)
    shadow = render_shadow_map(points, faces, points, lights.directions[0])
    nail = np.zeros(3)
    return shading.shade(fragments, 1, K, materials, faces, nail, 0.5, lights, shadow, 1.0)[..., 1]


def test_shade_brightens_side_facing_light():
    image = lit_balls([-1, 0, -0.5], [[0, 0, 0.4]])
    assert image[32, 22] > 2 * image[32, 42] > 0


def test_shade_casts_shadow():
    free = lit_balls([0, -1, -1], [[0, 0, 0.4]])
    shaded = lit_balls([0, -1, -1], [[0, 0, 0.4], [0, -0.07, 0.33]])
    assert shaded[28, 32] < 0.7 * free[28, 32]


def test_srgb_inverts_linear_rgb():
    values = np.linspace(0, 1, 50)
    np.testing.assert_allclose(srgb(linear_rgb(values)), values, atol=1e-6)


def test_apply_camera_response_averages_samples_and_keeps_grey():
    samples = np.full((16, 16, 3), 0.2, np.float32)
    face = np.full((16, 16), -1, np.int32)
    face[:, ::2] = 0
    background = np.zeros((8, 8, 3), np.float32)
    image = apply_camera_response(samples, face, background, IDEAL_CAMERA, np.random.default_rng(0))
    exposed = 0.2 * auto_exposure(samples, face, background)
    light = 0.5 * exposed / (1 + SHOULDER * exposed)
    assert (image == image[0, 0, 0]).all()
    assert image[0, 0, 0] == pytest.approx(255 * srgb(np.array(light)), abs=1)


def test_auto_exposure_dims_bright_scenes_and_lifts_dark_ones():
    face, dark = np.full((16, 16), 0, np.int32), np.full((8, 8, 3), 0.1, np.float32)
    exposures = [
        auto_exposure(np.full((16, 16, 3), light, np.float32), face, dark)
        for light in (0.1, 0.6, 2.0)
    ]
    assert exposures[0] > 1.3
    assert 0.9 < exposures[1] < 1.1
    assert exposures[2] < 0.7


def test_subject_metering_exposes_dark_hands_more():
    """A dark hand before a bright wall and the reverse: the hand's value moves to the middle."""
    face = np.full((16, 16), -1, np.int32)
    face[4:12, 4:12] = 0
    for hand, wall in ((0.06, 0.9), (0.9, 0.06)):
        samples = np.full((16, 16, 3), hand, np.float32)
        background = np.full((8, 8, 3), wall, np.float32)
        values = [
            apply_camera_response(
                samples, face, background, IDEAL_CAMERA._replace(subject_metering=metering),
                np.random.default_rng(0),
            )[4, 4, 0]
            for metering in (0.0, 0.8)
        ]  # fmt: skip
        assert abs(int(values[1]) - 130) < abs(int(values[0]) - 130)


def test_sharpening_and_enlarging_change_fine_detail():
    rng = np.random.default_rng(0)
    background = np.clip(rng.normal(0.3, 0.1, (64, 64, 3)), 0, 1).astype(np.float32)
    face, samples = np.full((64, 64), -1, np.int32), np.zeros((64, 64, 3), np.float32)

    def deviation(**change):
        camera = IDEAL_CAMERA._replace(**change)
        image = apply_camera_response(samples, face, background, camera, np.random.default_rng(0))
        assert image.shape == background.shape
        return image.astype(float).std()

    assert deviation(sharpening=1.0) > 1.2 * deviation()
    assert deviation(enlarged_from=0.5) < 0.8 * deviation()


def test_lifelike_skin_varies_less_and_is_less_saturated():
    def tones(is_lifelike):
        skins = [sample_skin(np.random.default_rng(i), is_lifelike) for i in range(300)]
        return srgb(np.array([skin.base for skin in skins]))

    plain, lifelike = tones(False), tones(True)
    assert lifelike.mean(1).std() < 0.85 * plain.mean(1).std()
    ratio = np.median(lifelike[:, 0] / lifelike[:, 2]) / np.median(plain[:, 0] / plain[:, 2])
    assert ratio < 0.9
    assert lifelike.mean(1).min() < 0.35  # Dark skin is rarer, but there.


def test_pixel_coverage_is_fraction_of_samples():
    covered = np.zeros((4, 6), bool)
    covered[:2, :2], covered[0, 2], covered[2:, 4] = True, True, True
    want = np.array([[255, 255 / 4, 0], [0, 0, 255 / 2]])
    np.testing.assert_allclose(pixel_coverage(covered, 2), want, atol=1)


def test_apply_camera_response_fills_images_larger_than_its_grain():
    background = np.full((400, 1000, 3), 0.3, np.float32)
    samples, face = np.zeros_like(background), np.full((400, 1000), -1, np.int32)
    camera = IDEAL_CAMERA._replace(noise_01=0.02)
    image = apply_camera_response(samples, face, background, camera, np.random.default_rng(0))
    assert image.shape == background.shape
    assert image.std() == pytest.approx(255 * 0.02, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_backgrounds_are_finite_and_varied(kind):
    images = np.stack([kind(np.random.default_rng(i), 112) for i in range(4)])
    assert images.shape == (4, 112, 112, 3)
    assert np.isfinite(images).all()
    assert images.mean((1, 2)).std(0).max() > 0.01


def test_sample_background_has_plausible_brightness():
    rng = np.random.default_rng(0)
    means = np.array([sample_background(rng, 224).mean() for _ in range(20)])
    assert (means > 0.01).all()
    assert (means < 1).all()


def test_sample_background_shows_the_same_at_any_resolution():
    """Beyond the noise fields' own side too, with as much contrast and finer detail."""
    contrast = np.array(
        [
            [sample_background(np.random.default_rng(i), side).std() for i in range(8)]
            for side in (224, 448)
        ]
    )
    ratio = contrast[1] / contrast[0]
    assert 0.7 < np.exp(np.log(ratio).mean()) < 1.4


def test_drop_shadow_darkens_beside_what_casts_it():
    covered = np.zeros((60, 90), bool)
    covered[20:40, 30:50] = True
    wall = np.full((60, 90, 3), 0.5, np.float32)
    light = np.array([-1.0, 0.0, -1.0])
    shaded = drop_shadow(np.random.default_rng(1), wall, covered, light, scale=0.6)
    row = shaded[30, :, 0]
    assert shaded.shape == wall.shape
    assert 35 < row.argmin() <= 65
    assert row[0] > 0.49


def test_sample_skin_covers_tones_with_lighter_palms():
    skins = [sample_skin(np.random.default_rng(i)) for i in range(200)]
    back = np.array([skin.base.mean() for skin in skins])
    palm = np.array([skin.palm.mean() for skin in skins])
    assert back.max() > 0.5
    assert back.min() < 0.06
    assert (palm > 0.95 * back).all()
